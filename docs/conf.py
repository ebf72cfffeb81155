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
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",
    "notebooks",
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

# Notebooks are run at each build; an error in a cell, or anything on its stderr, is a warning.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "warn"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # autodoc lists the fields of a NamedTuple a second time otherwise
napoleon_custom_sections = ["Source"]

# Pages load nothing from outside: tests/docs/site.py looks.
html_theme = "furo"
html_title = "gradstable"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"

# Where a block has prompts, only what follows them is copied: neither prompts nor output.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
