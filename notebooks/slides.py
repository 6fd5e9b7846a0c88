"""Write printable slides and a handout from the notebooks: ``python slides.py slides.html``.

Cells that Jupyter's slideshow metadata calls ``slide`` become slides; so does the output of code
cells called ``fragment``.  Their metadata also has the speaker's notes and minutes, which are
printed below each slide, and hidden on a screen unless the box on the first slide is ticked.  The
handout, one A4 page, is written beside the slides as ``handout.html``.  The notebooks run on
recordings, so neither QEMU nor a network is needed, and no page needs another file.
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
from cloudlab.run.value import recorded
from cloudlab.units import df_size, lsblk_size

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>How do cloud images grow?</title>
<style>
/* A slide of 320 x 180 mm and its notes have the proportions of A4. */
@page { size: 320mm 226mm; margin: 0 }
html { font: 24px/1.4 system-ui, sans-serif; scroll-snap-type: y proximity; color: #1a1a1a }
body { margin: 0; counter-reset: slide }
section { scroll-snap-align: start; counter-increment: slide; border-bottom: 1px solid #ccc }
section > div { box-sizing: border-box; min-height: 100vh; padding: 1.6rem 2.6rem 2rem;
  position: relative }
section > div::after { content: counter(slide); position: absolute; right: 1.5rem; bottom: 1rem;
  color: #666; font-size: .7rem }
h1 { font-size: 2rem } h2 { font-size: 1.4rem; margin: 0 0 .8rem }
table { border-collapse: collapse; border: 0 } th, td { padding: .25rem .8rem; text-align: left;
  border: 0; border-bottom: 1px solid #ddd;
  vertical-align: top }
table { font-size: .82rem } table.dataframe { font-variant-numeric: tabular-nums }
pre { font: .78rem/1.3 monospace; white-space: pre-wrap } code { font-size: .9em }
img { max-height: 72vh; max-width: 100%; width: auto !important }
/* The sentences below it say what this table does. */
table:has(+ .cloudlab-explanation) { display: none }
.cloudlab-explanation { font-size: .72rem } figure { margin: 0 } figcaption { color: #666; font-size: .7rem } .anchor-link { display: none }
aside { display: none; font-size: .72rem; padding: .6rem 2.6rem; border-top: 1px dashed #999;
  background: #f6f6f6 }
body:has(#notes:checked) aside { display: block }
label { position: absolute; right: 1.5rem; top: .6rem; font-size: .7rem; color: #555; z-index: 1 }
@media print { html { font-size: 18px } section { height: 226mm; overflow: hidden; border: 0; break-after: page }
  section > div { height: 180mm; min-height: 0; overflow: hidden } img { max-height: 124mm }
  aside { display: block; background: none } label { display: none } }
</style></head><body>
<label><input type="checkbox" id="notes"> Speaker notes</label>
"""

_SETTINGS = (
    "nothing set",
    "resize_rootfs: false",
    "growpart: {mode: 'off'}",
    "growpart: {mode: 'off'}\nresize_rootfs: false",
)

_HANDOUT = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>How do cloud images grow? Handout</title>
<style>
@page {{ size: A4; margin: 0 }}
body {{ box-sizing: border-box; width: 210mm; height: 296mm; margin: 0 auto; padding: 14mm 15mm;
  font: 10.5pt/1.4 system-ui, sans-serif; color: #1a1a1a; background: #fff }}
h1 {{ font-size: 17pt; margin: 0 0 2mm }} h2 {{ font-size: 12pt; margin: 6mm 0 1.5mm }}
p, ol, ul {{ margin: 0 0 2mm }} ol, ul {{ padding-left: 6mm }} code {{ font-size: 9pt; white-space: pre }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ border: .3mm solid #555; padding: 1mm 1.5mm; text-align: left; font-weight: normal }}
thead th {{ font-size: 9pt; font-weight: bold; background: #eee; print-color-adjust: exact }}
tbody tr {{ height: 18mm }} td:nth-child(4), td:nth-child(6), td:nth-child(7) {{ background: #eee;
  print-color-adjust: exact }} th:nth-child(n+3) {{ width: 21mm }}
.field {{ display: flex; gap: 1.5mm; margin: 0 0 4mm }}
.field i {{ flex: 1; border-bottom: .3mm solid #555 }}
</style></head><body>
<h1>How do cloud images grow?</h1>
<p class="field">Nickname: <i></i> Address of the class: <i></i></p>
<p class="field">Last line of the machine check (notebook 00): ready: <i></i></p>

<h2>Before the boot</h2>
<p><code>lsblk</code> prints {disk} for the disk and {partition} for the root partition;
<code>df -h</code> prints {filesystem} for the root filesystem. <code>lsblk</code> rounds to the
nearest tenth, <code>df -h</code> rounds up.</p>

<h2>Predict all four, then boot (notebook 05)</h2>
<p>Write sizes such as 3G, or “stays” or “fills”. Fill in the white columns before any machine is
booted, the grey ones afterwards. A wrong prediction teaches more than a right one.</p>
<table><thead><tr><th></th><th>user-data</th><th>partition, predicted</th>
<th>partition, measured</th><th>filesystem, predicted</th><th>filesystem, measured</th>
<th>line that proves it</th></tr></thead><tbody>{rows}</tbody></table>
<p style="margin-top: 2mm">To send them: <code>course.send_to_class(mine)</code>. Which prediction
was wrong, and which reason?</p>
<p class="field">&nbsp;<i></i></p><p class="field">&nbsp;<i></i></p>

<h2>When a disk does not grow, check in this order (notebook 06)</h2>
<ol><li>Did <b>cloud-init</b> run, and did it read the <b>user-data</b>?</li>
<li>Is the <b>disk</b> larger than the image?</li>
<li>Is there <b>free space right behind</b> the partition?</li>
<li>Did <b>growpart</b> run? What did it log?</li>
<li>Did the <b>filesystem</b> have a larger partition to fill?</li></ol>
<p>Stop at the first “no”. Inside a guest: <code>cloud-init status --long</code>,
<code>sudo cloud-init schema --system</code>, <code>sudo growpart --dry-run /dev/vda 1</code>,
<code>lsblk</code>, <code>df -h</code>.</p>
<p class="field">My question for an experiment (notebook 08): <i></i></p>
</body></html>
"""


def main(target: Path) -> None:
    """Write the slides of all notebooks of this folder to ``target``."""
    books = [executed(path) for path in sorted(Path(__file__).parent.glob("[0-9]*.ipynb"))]
    target.parent.mkdir(parents=True, exist_ok=True)
    for path, page in ((target, page_of(books)), (target.with_name("handout.html"), handout())):
        with whole_file(path) as part:
            part.write_text(page, encoding="utf-8")
        sys.stdout.write(f"{path}\n")


def page_of(books: Iterable[Any]) -> str:
    """Return the page that holds the slides of executed notebooks."""
    sections = []
    for book in books:
        passed = 0.0
        for slide, meta in slides_of(book):
            passed += meta["minutes"]
            clock = f"{_minutes(meta['minutes'])}, {_minutes(passed)} in this notebook so far."
            notes = f"<aside><strong>{clock}</strong> {escape(meta['notes'])}</aside>"
            sections.append(f"<section><div>{slide}</div>{notes}</section>")
    return _PAGE + "\n".join(sections) + "\n</body></html>\n"


def _minutes(minutes: float) -> str:
    whole, seconds = divmod(round(minutes * 60), 60)
    return f"{whole}:{seconds:02} min"


def executed(path: Path) -> Any:
    """Return a notebook after running it on recordings, in a folder of its own."""
    os.environ["CLOUDLAB_MODE"] = "replay"
    os.environ.pop("CLOUDLAB_CLASS", None)  # this is no learner
    book = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    with TemporaryDirectory() as folder:
        client = NotebookClient(
            book, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
    return book


def slides_of(book: Any) -> Iterator[tuple[str, Any]]:
    """Yield the slides of an executed notebook, as HTML, each with its minutes and notes."""
    heading = ""
    for cell in book.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type", "skip")
        if cell.cell_type == "markdown":
            heading = [heading, *re.findall(r"^##? (.*)$", cell.source, re.MULTILINE)][-1]
        if cell.cell_type == "markdown" and kind == "slide":
            # An audience does not need to know how long the notebook takes.
            shown = re.sub(r"\n\n\*\*(Before you start|Time):.*", "", cell.source)
            slide = re.sub(r'src="(images/[\w-]+\.svg)"', _embedded, markdown2html(shown))
            yield slide, cell.metadata["cloudlab"]
        elif cell.cell_type == "code" and kind == "fragment":
            shown = "".join(_html_of(output) for output in cell.outputs)
            yield f"<h2>{escape(heading)}</h2>{shown}", cell.metadata["cloudlab"]


def handout() -> str:
    """Return the page that learners fill in: what is known before the boot, and no result."""
    run = recorded("default")
    partition_bytes, filesystem_bytes = run.root_sizes("before")
    rows = "".join(
        f"<tr><th>{number}</th><td><code>{setting}</code></td>{'<td></td>' * 5}</tr>"
        for number, setting in enumerate(map(escape, _SETTINGS), start=1)
    )
    return _HANDOUT.format(
        rows=rows,
        disk=lsblk_size(run.options.disk_size_bytes),
        partition=lsblk_size(partition_bytes),
        filesystem=df_size(filesystem_bytes),
    )


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
