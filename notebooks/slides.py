"""Write printable slides from the notebooks: ``python slides.py slides.html``.

Cells that Jupyter's slideshow metadata calls ``slide`` become slides; so does the output of code
cells called ``fragment``.  The notebooks run on recordings, so neither QEMU nor a network is
needed, and the page needs no other file.
"""  # noqa: INP001

from __future__ import annotations

import os
import re
import sys
from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert.filters import markdown2html

from cloudlab.paths import whole_file

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>How do cloud images grow?</title>
<style>
@page { size: 320mm 180mm; margin: 0 }
html { font: 24px/1.4 system-ui, sans-serif; scroll-snap-type: y proximity; color: #1a1a1a }
body { margin: 0; counter-reset: slide }
section { box-sizing: border-box; min-height: 100vh; padding: 1.6rem 2.6rem 2rem; position:
  relative; scroll-snap-align: start; counter-increment: slide; border-bottom: 1px solid #ccc }
section::after { content: counter(slide); position: absolute; right: 1.5rem; bottom: 1rem;
  color: #666; font-size: .7rem }
h1 { font-size: 2rem } h2 { font-size: 1.4rem; margin: 0 0 .8rem }
table { border-collapse: collapse; border: 0 } th, td { padding: .25rem .8rem; text-align: left;
  border: 0; border-bottom: 1px solid #ddd;
  vertical-align: top }
table { font-size: .82rem } table.dataframe { font-variant-numeric: tabular-nums }
pre { font: .78rem/1.3 monospace; white-space: pre-wrap } code { font-size: .9em }
img { max-height: 72vh; max-width: 100%; width: auto !important }
.cloudlab-explanation { font-size: .72rem } figure { margin: 0 } figcaption { color: #666; font-size: .7rem } .anchor-link { display: none }
@media print { section { height: 180mm; min-height: 0; overflow: hidden; border: 0;
  break-after: page } img { max-height: 124mm } }
</style></head><body>
"""


def main(target: Path) -> None:
    """Write the slides of all notebooks of this folder to ``target``."""
    books = [executed(path) for path in sorted(Path(__file__).parent.glob("[0-9]*.ipynb"))]
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as part:
        part.write_text(page_of(books), encoding="utf-8")
    sys.stdout.write(f"{target}\n")


def page_of(books: Iterable[Any]) -> str:
    """Return the page that holds the slides of executed notebooks."""
    slides = [slide for book in books for slide in slides_of(book)]
    sections = "\n".join(f"<section>{slide}</section>" for slide in slides)
    return f"{_PAGE}{sections}\n</body></html>\n"


def executed(path: Path) -> Any:
    """Return a notebook after running it on recordings, in a folder of its own."""
    os.environ["CLOUDLAB_MODE"] = "replay"
    book = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    with TemporaryDirectory() as folder:
        client = NotebookClient(
            book, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
    return book


def slides_of(book: Any) -> Iterator[str]:
    """Yield the slides of an executed notebook, as HTML."""
    heading = ""
    for cell in book.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type", "skip")
        if cell.cell_type == "markdown":
            heading = [heading, *re.findall(r"^##? (.*)$", cell.source, re.MULTILINE)][-1]
        if cell.cell_type == "markdown" and kind == "slide":
            # An audience does not need to know how long the notebook takes.
            shown = re.sub(r"\n\n\*\*(Before you start|Time):.*", "", cell.source)
            yield re.sub(r'src="(images/[\w-]+\.svg)"', _embedded, markdown2html(shown))
        elif cell.cell_type == "code" and kind == "fragment":
            shown = "".join(_html_of(output) for output in cell.outputs)
            yield f"<h2>{escape(heading)}</h2>{shown}"


def _embedded(match: re.Match[str]) -> str:
    picture = (Path(__file__).parent / match[1]).read_bytes()
    return f'src="data:image/svg+xml;base64,{b64encode(picture).decode()}"'


def _html_of(output: Any) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        return str(data["text/html"])
    return f"<pre>{escape(data.get('text/plain') or output.get('text', ''))}</pre>"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
