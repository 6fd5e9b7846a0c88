"""HTML for panes, made of texts from outside: everything in it is escaped."""

from __future__ import annotations

import difflib
import html
from collections.abc import Iterable, Sequence

from cloudlab.console import ConsoleLine, printable
from cloudlab.errors import CloudlabError
from cloudlab.seed import Problem


def safe(text: object) -> str:
    """Return text as HTML, whatever a guest or a learner put into it."""
    return "\n".join(html.escape(printable(line)) for line in str(text).splitlines())


def console_html(lines: Iterable[ConsoleLine]) -> str:
    """Return console lines with their numbers."""
    shown = "\n".join(f"<i>{line.number:>5}</i> {html.escape(line.text)}" for line in lines)
    return f"<pre>{shown}</pre>"


def marked_html(before: str, after: str) -> str:
    """Return a text whose lines that were not in ``before`` are marked, by more than colour."""
    old, new = before.splitlines(), after.splitlines()
    changed: set[int] = set()
    for kind, _, _, start, end in difflib.SequenceMatcher(None, old, new).get_opcodes():
        if kind in {"replace", "insert"}:
            changed |= set(range(start, end))
    lines = [
        f"<mark>{safe(line)}</mark> <b>&larr; changed</b>" if number in changed else safe(line)
        for number, line in enumerate(new)
    ]
    return f"<pre>{chr(10).join(lines)}</pre>"


def problems_html(problems: Sequence[Problem]) -> str:
    """Return what is wrong in a user-data text, as a list."""
    if not problems:
        return "<p>No problem found: cloud-init would take this.</p>"
    items = "".join(
        f"<li><b>{problem.severity.capitalize()}</b>, {safe(problem)}</li>" for problem in problems
    )
    return f"<ul>{items}</ul>"


def error_html(error: CloudlabError) -> str:
    """Return an error and what to do about it."""
    return f"<pre>{safe(error)}</pre>"


def table_html(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str, code: str = ""
) -> str:
    """Return a table whose first column names the rows.

    Parameters
    ----------
    head : sequence of str
    rows : iterable of sequences
    caption : str
    code : str
        The column that is a quotation.
    """
    cells = "".join(f'<th scope="col">{safe(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{safe(row[0])}</th>'
        + "".join(
            f"<td><code>{safe(cell)}</code></td>" if name == code else f"<td>{safe(cell)}</td>"
            for name, cell in zip(head[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{safe(caption)}</caption><thead><tr>{cells}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )
