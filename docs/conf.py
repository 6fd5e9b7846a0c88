"""Sphinx configuration: `make docs` renders the pages, the notebooks and the API reference."""

import os
import re
from pathlib import Path

import cloudlab

# The notebooks are executed on the shipped recordings, not on machines that are booted here.
os.environ["CLOUDLAB_MODE"] = "replay"
os.environ.pop("CLOUDLAB_CLASS", None)

project = "cloudlab"
author = "The cloudlab maintainers"
release = version = cloudlab.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
# The source folder is the project's, so that links between its pages work here and on GitHub.
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb", "notebooks/*.md"]
exclude_patterns = [".*", "build", "cloudlab", "scripts", "tests", "**/.ipynb_checkpoints"]

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["cloudlab.css"]
# Only the course has pages to list beside a page.
html_sidebars = {
    page: []
    for page in (
        "docs/a*",
        "docs/b*",
        "docs/p*",
        "docs/t*",
        "CONTRIBUTING",
        "CHANGELOG",
        "SECURITY",
    )
}
html_title = "cloudlab"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "header_links_before_dropdown": 4,
    "footer_start": ["copyright"],
    "footer_end": [],
}

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
myst_heading_anchors = 3
# The notebooks link to the folder of solutions, which is not a page.
suppress_warnings = ["myst.xref_missing"]
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_merge_streams = True
# Panels need a kernel; their scripts would be loaded from elsewhere for nothing.
nb_ipywidgets_js = {}

_PAGES = """

```{toctree}
:hidden:
:maxdepth: 1

docs/course
docs/teaching-thirty
docs/api
docs/platforms
docs/architecture
docs/atlas
docs/benchmarks
docs/scoreboard
CONTRIBUTING
SECURITY
CHANGELOG
```
"""


def _add_pages(_app: object, name: str, source: list[str]) -> None:
    """Add the table of contents, which is of use to Sphinx only, to README.

    A link to the player leads to its built page, which is not one of Sphinx's.
    """
    page = '<a href="' + "../" * name.count("/") + r'player/index.html">\1</a>'
    source[0] = re.sub(r"\[([^]]+)\]\((?:docs/)?player/index\.html\)", page, source[0])
    if name == root_doc:
        source[0] += _PAGES


def _add_index(app: object, error: Exception | None) -> None:
    """Let the folder of the pages open with README."""
    if error is None:
        page = Path(app.outdir) / f"{root_doc}.html"
        (page.parent / "index.html").write_bytes(page.read_bytes())


def _split_names(
    _app: object, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Give each name of a field such as ``a, b : str`` an entry of its own."""
    done: list[str] = []
    while lines:
        line = lines.pop(0)
        names, colon, kind = line.partition(" : ")
        if not colon or ", " not in names or not names.replace(", ", "").isidentifier():
            done.append(line)
            continue
        body = []
        while lines and (lines[0].startswith("    ") or not lines[0]):
            body.append(lines.pop(0))
        for name in names.split(", "):
            done += [f"{name} : {kind}", *body]
    lines[:] = done


def setup(app: object) -> None:
    """Register what this project adds to Sphinx."""
    # Before napoleon, which reads the fields.
    app.connect("autodoc-process-docstring", _split_names, priority=400)
    app.connect("source-read", _add_pages)
    app.connect("build-finished", _add_index)
