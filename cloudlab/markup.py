"""Small tables as HTML, for pages and notebooks; whatever they hold is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from cloudlab.console import printable


def table_html(head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> str:
    """Return a table whose first column names its rows.

    Parameters
    ----------
    head : sequence of str
        Column names; all empty leaves the head out.
    rows : iterable of sequence
        Cells as text or numbers; nothing in them acts on the page or a terminal.
    caption : str, optional
    """
    above = f"<caption>{_safe(caption)}</caption>" if caption else ""
    # A heading without a word would be read out as one.
    columns = "".join(
        f'<th scope="col">{_safe(name)}</th>' if name else "<td></td>" for name in head
    )
    first = f"<thead><tr>{columns}</tr></thead>" if any(head) else ""
    body = "".join(
        f'<tr><th scope="row">{_safe(row[0])}</th>'
        + "".join(f"<td>{_safe(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table>{above}{first}<tbody>{body}</tbody></table>"


def files_html(texts: Mapping[str, str]) -> str:
    """Return small text files, each below its name."""
    return "".join(
        f"<figure><figcaption>{_safe(name)}</figcaption><pre>{safe_text(text)}</pre></figure>"
        for name, text in texts.items()
    )


def safe_text(text: str) -> str:
    """Return lines of text for a page, escaped, without anything a terminal would act on."""
    return "\n".join(_safe(line) for line in text.splitlines())


def _safe(cell: object) -> str:
    return html.escape(printable(str(cell)))
