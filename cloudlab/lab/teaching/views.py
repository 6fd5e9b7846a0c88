"""A run as pictures, tables and numbered console lines."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cloudlab import figures
from cloudlab.console import printable
from cloudlab.lab.table import tables_of
from cloudlab.recording import Recording
from cloudlab.sizes import ConsoleParser, ParsedConsole, read_sizes

if TYPE_CHECKING:
    import pandas as pd

_FRAME = b"@cloudlab "
_MOST_LINES = 60

#: Of a boot: before growth (bootcmd) and after it (runcmd).
Moment = Literal["before", "after"]


@dataclass(frozen=True)
class Page:
    """Something to look at, as text and as a page.

    Attributes
    ----------
    text : str
    html : str
        Empty: the text as it is.
    """

    text: str
    html: str = ""

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        # JupyterLab breaks words of a pre anywhere.
        style = (
            "font-family: monospace; white-space: pre-wrap; overflow-wrap: anywhere; "
            "word-break: normal"
        )
        return self.html or f'<pre style="{style}">{html.escape(self.text)}</pre>'


class Picture(Page):
    """A figure with its numbers in words, which can be saved for a talk."""

    def __init__(self, axes: Any, title: str, alt: str) -> None:
        drawn = figures.to_html(axes, title=title, alt=alt)
        super().__init__(alt, f'<div style="max-width: 52em">{drawn}</div>')
        self._axes, self._title = axes, title

    def save(self, path: str | Path) -> Path:
        """Write it as PNG, SVG or PDF, by the path's ending; return the path."""
        return figures.save_figure(self._axes, path, title=self._title, alt=self.text)


def say(text: str) -> None:
    """Show one line, as a page where there is one."""
    from IPython.display import display

    page = Page(text, f'<p style="font-style: italic">{html.escape(text)}</p>')
    display(page)  # type: ignore[no-untyped-call]


def show(kind: str, *runs: Recording, only_before: bool = False) -> Picture:
    """Return a figure of one or several runs.

    Parameters
    ----------
    kind : str
        ``layers``, ``disk-map``, ``timeline``, ``overlay-map`` or ``stages`` of a run,
        ``scenarios`` of several.
    *runs : Recording
    only_before : bool
        Whether what happened in the boot stays hidden.
    """
    found = figures.KINDS[kind]
    tables = tables_of(runs)
    if only_before:
        table = tables["sizes"]
        tables["sizes"] = table[table["stage"].isin(["image", "before"])]
    wanted = [tables[name] for name in found.tables]
    names = ", ".join(str(run.about.get("scenario", run.name)) for run in runs)
    axes = found.plot(*wanted, ax=figures.new_axes("slide"))
    return Picture(axes, f"{found.title}: {names}", found.alt(*wanted))


def console(
    run: Recording,
    pattern: str = "",
    *,
    first: int = 1,
    last: int | None = None,
    frames: bool = False,
) -> Page:
    """Return lines of a run's console, each with its number in the transcript.

    Parameters
    ----------
    run : Recording
    pattern : str
        A regular expression that a line must match somewhere.
    first, last : int
        From which line to which.
    frames : bool
        Whether the exact report's lines are shown, too.
    """
    lines = [
        f"{number:5}  {line}"
        for number, line in transcript(run, pattern, frames=frames)
        if first <= number and (last is None or number <= last)
    ]
    more = len(lines) - _MOST_LINES
    tail = [f"       ({more} more lines)"] if more > 0 else []
    return Page("\n".join([*lines[:_MOST_LINES], *tail]) or "No line matches.")


def transcript(
    run: Recording, pattern: str = "", *, frames: bool = False
) -> Iterator[tuple[int, str]]:
    """Yield the console's lines that match, each with its number, safe to be shown."""
    for number, raw in enumerate(run.console_log.read_bytes().split(b"\n"), start=1):
        line = printable(raw)
        if line and (frames or _FRAME not in raw) and re.search(pattern, line):
            yield number, line


def logs(run: Recording, pattern: str = "") -> Page:
    """Return lines of the guest's own logs, each with the transcript's line that brought it."""
    found = [
        f"{log.line:5}  {printable(log.text)}"
        for block in parsed_console(run).blocks
        for log in block.logs
        if re.search(pattern, log.text)
    ]
    return Page("\n".join(found) or "No line matches.")


def parsed_console(run: Recording) -> ParsedConsole:
    """Return what the guest reported, with the transcript's line numbers."""
    parser = ConsoleParser(run.nonce)
    for number, line in enumerate(run.console_log.read_bytes().split(b"\n"), start=1):
        parser.feed(line, number)
    return parser.result()


def tables(run: Recording, moment: Moment) -> Page:
    """Return what lsblk and df printed: before growth from bootcmd, after it from runcmd."""
    raw = run.console_log.read_bytes().split(b"\n")
    edges = [
        number
        for number, line in enumerate(raw, start=1)
        if line.startswith((f"@cloudlab {moment} 0 ".encode(), f"@cloudlab {moment} 1 ".encode()))
    ]
    return console(run, "[$]|NAME|vd|Filesystem", first=edges[0], last=edges[-1])


def modules(run: Recording) -> Page:
    """Return which modules cloud-init ran in which stage, as the guest's log told."""
    block = parsed_console(run).block("after")
    facts = block.facts if block is not None else ()
    told = next((fact for fact in facts if fact.name == "modules" and fact.value), None)
    if told is None:
        return Page("This recording does not tell which modules ran.")
    return Page(f"line {told.line}:\n" + printable(told.value).replace("; ", "\n"))


def options(*runs: Recording) -> pd.DataFrame:
    """Return what runs were made with: a row for each option, a column for each run."""
    import pandas as pd

    columns = {
        run.name: {"image": run.about["image"]["name"], **run.about["options"]} for run in runs
    }
    return _headed(pd.DataFrame(columns), "option")


def file(run: Recording, name: str) -> Page:
    """Return a text file of a run's folder, such as ``user-data``."""
    return Page((run.folder / name).read_text(encoding="utf-8"))


def layout(run: Recording, when: Moment = "before") -> pd.DataFrame:
    """Return the partitions of a run's disk as the host read them, in order of place.

    Columns: ``number`` (Int64, missing for a filesystem on the whole disk), ``start_bytes``,
    ``size_bytes`` (int64), ``type``, ``filesystem`` (str), ``filesystem_bytes`` (Int64).
    """
    return partitions_frame(run.about["disk_before" if when == "before" else "disk"])


def partitions_frame(disk: dict[str, Any]) -> pd.DataFrame:
    """Return the table of :func:`layout` of a disk as the host tells it in ``run.json``."""
    import pandas as pd

    rows = [
        {
            "number": one["number"],
            "start_bytes": one["start_bytes"],
            "size_bytes": one["size_bytes"],
            "type": one["type_name"],
            "filesystem": (one["filesystem"] or {}).get("type", ""),
            "filesystem_bytes": (one["filesystem"] or {}).get("size_bytes"),
        }
        for one in disk["partitions"]
    ]
    frame = pd.DataFrame(rows).astype({"number": "Int64", "filesystem_bytes": "Int64"})
    return _headed(frame, "row")


def extents(run: Recording) -> pd.DataFrame:
    """Return where the boot wrote: ``start_bytes``, ``length_bytes``, ``kind``, ``region``."""
    return tables_of([run])["extents"].drop(columns="run")


def stages(run: Recording) -> pd.DataFrame:
    """Return the boot's stages: ``stage``, ``start_s``, ``end_s`` since launch."""
    import pandas as pd

    return _headed(pd.DataFrame(run.stages()), "row")


def root_sizes(run: Recording, stage: Moment) -> tuple[int | None, int | None]:
    """Return partition and filesystem of ``/`` in bytes, as the guest measured them exactly."""
    table = read_sizes(run.sizes_csv)
    table = table[(table["stage"] == stage) & (table["mountpoint"] == "/") & table["exact"]]
    found = {
        str(layer): int(size_bytes)
        for layer, size_bytes in zip(table["layer"], table["size_bytes"], strict=True)
    }
    return found.get("partition"), found.get("filesystem")


def sizes(*runs: Recording) -> pd.DataFrame:
    """Return root's partition and filesystem before and after, in bytes, a row for each run.

    A row is called as its scenario; where two runs share that, as the run's folder.
    """
    import pandas as pd

    rows: dict[str, tuple[int | None, ...]] = {}
    for run in runs:
        before, after = root_sizes(run, "before"), root_sizes(run, "after")
        scenario = str(run.about.get("scenario", run.name))
        rows[run.folder.name if scenario in rows else scenario] = (
            before[0],
            after[0],
            before[1],
            after[1],
        )
    columns = ["partition before", "partition after", "filesystem before", "filesystem after"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype("Int64")
    return _headed(frame, "run")


def _headed(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a table whose first column has a heading on the page, for who cannot see it."""
    return frame.rename_axis(columns=name)


#: A cell up to this long is kept on one line.
_SHORT = 20


def _cell(content: object) -> str:
    text = printable(str(content))
    breaks = "white-space: nowrap" if len(text) <= _SHORT else "overflow-wrap: anywhere"
    return f'<td style="text-align: left; {breaks}">{html.escape(text)}</td>'


def table_html(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table for a page, everything in it escaped; only long words are broken."""
    style = "text-align: left"
    # A heading without a word would be read out as one.
    cells = "".join(
        f'<th scope="col" style="{style}">{html.escape(name)}</th>' if name else "<td></td>"
        for name in head
    )
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
