"""Small pieces of HTML for notebooks and reports; whatever they hold is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloudlab.console import printable

#: Cells up to so many characters are kept on one line, or are broken between words only.
_SHORT, _LONG = 10, 20


@dataclass(frozen=True)
class Page:
    """A result to display: plain text for a terminal, HTML for a notebook.

    Without HTML, the notebook shows the text in a fixed-width font.
    """

    text: str
    html: str = ""

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        # JupyterLab breaks the words of a <pre> anywhere.
        style = (
            "font-family: monospace; white-space: pre-wrap; overflow-wrap: anywhere; "
            "word-break: normal"
        )
        return self.html or f'<pre style="{style}">{escaped(self.text)}</pre>'


def escaped(text: object) -> str:
    """Return text as HTML that neither a page nor a terminal acts on; lines stay lines."""
    return "\n".join(html.escape(printable(line)) for line in str(text).splitlines())


def table_html(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str = "",
    code: Sequence[str] = (),
) -> str:
    """Return a table whose first column names its rows.

    Parameters
    ----------
    head : sequence of str
        Column names; all empty leaves the head out.
    rows : iterable of sequence
        Cells as text or numbers.
    caption : str, optional
    code : sequence of str
        Columns whose cells are quotations, set in a fixed-width font.
    """
    above = f"<caption>{escaped(caption)}</caption>" if caption else ""
    # Screen readers announce every <th>, so a heading without a word must not be one.
    columns = "".join(
        f'<th scope="col" style="text-align: left">{escaped(name)}</th>' if name else "<td></td>"
        for name in head
    )
    thead = f"<thead><tr>{columns}</tr></thead>" if any(head) else ""
    body = "".join(
        f'<tr><th scope="row" {_style(row[0])}>{escaped(row[0])}</th>'
        + "".join(
            f"<td {_style(cell)}>{_cell(cell, code=name in code)}</td>"
            for name, cell in zip(head[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table>{above}{thead}<tbody>{body}</tbody></table>"


def files_html(texts: Mapping[str, str]) -> str:
    """Return small text files, each below its name."""
    return "".join(
        f"<figure><figcaption>{escaped(name)}</figcaption><pre>{escaped(text)}</pre></figure>"
        for name, text in texts.items()
    )


def _cell(cell: object, *, code: bool) -> str:
    return f"<code>{escaped(cell)}</code>" if code else escaped(cell)


def _style(cell: object) -> str:
    # What is broken anywhere needs room for whole words.
    breaks = "min-width: 6.5em; overflow-wrap: anywhere"
    if len(str(cell)) <= _LONG:
        breaks = f"white-space: {'nowrap' if len(str(cell)) <= _SHORT else 'normal'}"
    return f'style="text-align: left; {breaks}"'
