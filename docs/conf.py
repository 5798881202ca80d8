"""How Sphinx builds this documentation: MyST Markdown, warnings as errors."""

from __future__ import annotations

import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]

project = _PROJECT["name"]
author = _PROJECT["authors"][0]["name"]
version = release = _PROJECT["version"]
project_copyright = author

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
# Headings down to this level can be linked to as page.md#heading.
myst_heading_anchors = 3

# Names are written once: in the code, with their types.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# `name` in a docstring is a link where it names something of ours, else plain code.
default_role = "py:obj"

html_theme = "furo"
html_title = f"{project} {version}"
