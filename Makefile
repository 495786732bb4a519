# make train   trains an agent (ENV=MiniGrid-MemoryS11-v0) to a success rate of .97 and shows what it
#              learned; ARGS="--seed 2" adds options. ARGS="--stop-at-return 475" is another target,
#              ARGS="--stop-at-success None" none; without a success rate it is the return from which
#              on the environment is registered as solved, if it is
# make test    runs every check: ruff, pyright, import-linter, pytest
#
# Both set up .venv first. PYTHON picks the interpreter: 3.11 to 3.13.

PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,\
	$(shell $(p) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) and print("$(p)")' 2>/dev/null)))
ENV ?= MiniGrid-MemoryS11-v0
ARGS ?=
BIN := .venv/bin

.PHONY: train test clean

train: .venv/installed
	$(BIN)/python -m mtxl_rl.train --env $(ENV) \
		$(if $(findstring --stop,$(ARGS)),,--stop-at-success 0.97) $(ARGS)

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv
