"""The documentation as a site: `make docs` writes docs/_build/index.html."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages of this repository

project = "mtxl-rl"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
smartquotes = False  # which makes one dash of the two of an option
highlight_language = "none"
default_role = "code"  # of one pair of backquotes, as in Markdown
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "mtxl-rl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False

myst_heading_anchors = 3

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_use_ivar = True


def setup(app: Any) -> None:
    """Let an option's words begin in a second line: napoleon takes "gated: ..." for a type."""

    def begin_below(*arguments: Any) -> None:
        _, what, _, _, _, lines = arguments
        if what == "attribute":
            lines.insert(0, "")

    app.connect("autodoc-process-docstring", begin_below, priority=400)  # before napoleon's
