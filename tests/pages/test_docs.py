"""The documentation as a site is built without a warning, and opens."""

from __future__ import annotations

import html
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from browser import browser, complaints
from programs import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it by the command of `make docs`."""
    if not all(map(importlib.util.find_spec, ("sphinx", "myst_parser", "furo"))):
        pytest.skip('the site needs sphinx, myst-parser and furo: pip install -e ".[docs]"')
    out = tmp_path_factory.mktemp("site")
    (options,) = re.findall(r"sphinx-build (.*) docs docs/_build", (ROOT / "Makefile").read_text())
    command = [sys.executable, "-m", "sphinx", *options.split(), "docs", str(out)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    return out


def test_every_page_is_in_the_site_and_says_what_the_docstrings_say(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file(), page
    shown = {
        "policy": ["mtxl_rl.load", "mtxl_rl.policies.policy.Policy.act"],
        "core": ["mtxl_rl.core.MemoryTransformerXL.forward", "mtxl_rl.core.Acting.step"],
        "cores": [
            "agents.cores.interface.Core.initial_state",
            "agents.cores.core_config.CoreConfig.kind",
        ],
        "envs": ["envs.make", "envs.BatchedEnv.step", "envs.EnvStep.success"],
    }
    for page, names in shown.items():
        text = (site / "api" / f"{page}.html").read_text(encoding="utf-8")
        for name in names:
            assert f'id="{name}"' in text, name
    page = (site / "api" / "cores.html").read_text(encoding="utf-8")
    assert "x: Float[Tensor, 'B T D']" in html.unescape(re.sub("<[^>]*>", "", page))


@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_shows_the_site(site: Path, width: int) -> None:
    with browser() as chrome:
        screen: dict[str, Any] = {"width": width, "height": 900, "mobile": width < 500}
        chrome.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", screen | {"deviceScaleFactor": 1}
        )
        for page in sorted(site.rglob("*.html")):
            chrome.get(f"file://{page}")
            wide = chrome.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, page  # what is wider scrolls by itself
            broken = chrome.execute_script(
                "return [...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
            )
            assert broken == [], page
        assert complaints(chrome) == []
