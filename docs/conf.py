"""How the pages become a site; `make docs` builds it, without a network.

The source is the whole repository, so that links among pages and files are the same on the site as
in the repository.
"""

from importlib.metadata import version as version_of

project = "ddgm"
author = "the ddgm developers"
release = version_of("ddgm")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
myst_heading_anchors = 4
root_doc = "docs/index"
include_patterns = ["*.md", "config/*.md", "docs/**", "src/ddgm/networks/*.md"]
exclude_patterns = ["docs/_build", "docs/_templates", ".venv", "results"]
templates_path = ["_templates"]
highlight_language = "sh"  # of indented blocks, which are commands

autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "ignore-module-all": True,  # what a package hands on is described where it is made
}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say more: shapes, units
napoleon_google_docstring = False
napoleon_use_ivar = True  # the attributes of dataclasses are fields as well

html_theme = "furo"
html_title = "ddgm"
