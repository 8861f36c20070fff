"""The documentation site: ``make docs`` writes it to ``docs/_build/html``."""

import re

from sphinx.application import Sphinx

import cldmray

project = "cldmray"
author = "The cldmray maintainers"
release = version = cldmray.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"cldmray {release}"

myst_heading_anchors = 3
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # fields of one name, such as low, in several records

PROJECT = re.compile(r"\]\((?:\.\./)+(CONTRIBUTING|CHANGELOG|SECURITY|CODE_OF_CONDUCT)\.md")
OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?!docs/)[^)]*\)")


def keep_links_inside(app: Sphinx, docname: str, source: list[str]) -> None:
    """Pages link to files that the site has not got: such a link becomes its text."""
    if app.env.doc2path(docname).suffix != ".md":
        return
    up = "../" * docname.count("/")
    pages = PROJECT.sub(lambda page: f"]({up}project/{page[1].lower()}.md", source[0])
    source[0] = OUTSIDE.sub(r"\1", pages)


def keep_included_links_inside(app: Sphinx, path: object, docname: str, text: list[str]) -> None:
    """The same for files that a page includes."""
    keep_links_inside(app, docname, text)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", keep_links_inside)
    app.connect("include-read", keep_included_links_inside)
