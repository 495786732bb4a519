# make train   trains an agent (ENV=MiniGrid-MemoryS11-v0) to a success rate of .97 and shows what it
#              learned; ARGS="--seed 2" adds options. ARGS="--stop-at-return 475" is another target,
#              ARGS="--stop-at-success None" none; without a success rate it is the return from which
#              on the environment is registered as solved, if it is
# make test    runs every check: ruff, pyright, import-linter, pytest
# make proofs  runs the long forms of tests: longer episodes, more kills
# make docs    writes the documentation as a site: docs/_build/index.html
# make pythons runs pytest in a fresh environment of each Python from 3.11 to 3.13 that is installed,
#              pyenv's too; ARGS="tests/runs_on_disk/test_resume.py" names tests
#
# They set up .venv first. PYTHON picks the interpreter: 3.11 to 3.13. TORCH=cpu takes torch's CPU
# build, TORCH=cuda the one of PyPI; left out, it is cpu on Linux where there is no nvidia-smi.

PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,\
	$(shell $(p) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) and print("$(p)")' 2>/dev/null)))
ENV ?= MiniGrid-MemoryS11-v0
ARGS ?=
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= $(if $(and $(filter Linux,$(shell uname -s)),$(if $(shell command -v nvidia-smi),,none)),cpu,cuda)
CPU_BUILD := https://download.pytorch.org/whl/cpu
TORCH_VERSION := $(shell sed -n 's/^ *"\(torch>=[^"]*\)",/\1/p' pyproject.toml)
CUDA_SIZE := about 3 GB to download, 5 GB on the disk
comma := ,
# tests that wait for processes leave a core idle: three workers on two cores
WORKERS := $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) * 3 / 2 )))
SIZE := $(if $(filter cpu,$(TORCH)),about .4 GB to download$(comma) 1.3 GB on the disk,\
	$(if $(filter Linux,$(shell uname -s)),$(CUDA_SIZE) (TORCH=cpu is a fraction),about .3 GB to download))

.PHONY: train test types tests proofs docs pythons clean

train: $(VENV)/installed
	$(BIN)/python -m mtxl_rl.train --env $(ENV) \
		$(if $(findstring --stop,$(ARGS)),,--stop-at-success 0.97) $(ARGS)

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory --jobs 2 --keep-going types tests  # pyright uses one core

types: $(VENV)/installed-dev
	$(BIN)/pyright

tests: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not proof" --numprocesses $(WORKERS) --dist worksteal

proofs: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m proof --numprocesses $(WORKERS) --dist worksteal

docs: $(VENV)/installed-dev
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build
	@echo "open docs/_build/index.html"


pythons:
	@for version in 3.11 3.12 3.13; do \
		python=$$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python 2>/dev/null | tail -1); \
		python=$${python:-$$(command -v python$$version)} || { echo "no Python $$version: skipped"; continue; }; \
		echo "Python $$version: $$python"; \
		venv=$$(mktemp -d) || exit 1; trap "rm -rf $$venv" EXIT; \
		$(MAKE) $$venv/installed-dev VENV=$$venv PYTHON=$$python || exit 1; \
		$$venv/bin/python -m pytest -m "not proof" --numprocesses $(WORKERS) --dist worksteal $(ARGS) || exit 1; \
		rm -rf $$venv; \
	done

$(VENV)/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@case "$(TORCH)" in cpu|cuda) ;; *) echo "error: TORCH=$(TORCH) must be cpu or cuda" >&2; exit 2;; esac
	@echo "Installing torch ($(TORCH)) and what else it needs into $(VENV): $(SIZE)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
ifeq ($(TORCH),cpu)
	$(BIN)/python -m pip install --retries 1 --index-url $(CPU_BUILD) "$(TORCH_VERSION)" \
		|| echo "warning: no CPU build from $(CPU_BUILD); going on with PyPI's: $(CUDA_SIZE)" >&2
endif
	$(BIN)/python -m pip install --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV)
