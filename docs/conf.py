"""Sphinx configuration for the documentation, with pages in Markdown."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "gradstable"
author = "The gradstable authors"
copyright = author
release = version = installed_version("gradstable")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "public_names",
    "short_types",
]
exclude_patterns = ["_build", "_extensions"]

# Every reference must resolve, except those to other projects.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!gradstable\b)\w+\..*"),
    ("py:class", r"(ArrayLike|ArrayTree|DTypeLike|Mask|Schedule|Tree|Units)"),
]

myst_enable_extensions = ["dollarmath", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # autodoc lists the fields of a NamedTuple a second time otherwise
napoleon_custom_sections = ["Source"]

html_theme = "furo"
html_title = "gradstable"
