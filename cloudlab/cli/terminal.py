"""What the commands print: tables, progress, and live views of running machines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from cloudlab.console import printable
from cloudlab.run.monitor import RunEvent
from cloudlab.units import format_bytes, is_known

#: Columns up to this width never wrap, nor does the first one, of names, up to its own; wide enough
#: for any table that is not shown on a terminal.
_NARROW, _NAMES = 16, 40
_UNBOUNDED = 10_000

#: Standard output carries results, standard error progress and warnings.
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
OUT = Console(soft_wrap=True, **_PLAIN)


class _Meanwhile(Console):
    """Standard error; a run goes on if its reader goes away."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


ERR = _Meanwhile(stderr=True, **_PLAIN)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON on standard output.

    It is ASCII, because a name may hold characters that a terminal acts on.
    """
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on standard output, without characters that a terminal would act on."""
    for line in lines:
        OUT.print(printable(line))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> None:
    """Print a table; no cell is cut off.

    On a terminal, long cells wrap where the table is too wide, in the first column only very long
    ones.  Elsewhere the lines are as long as they need to be.  Characters that a terminal would act
    on are removed.  ``right`` names the columns that are aligned to the right, comma-separated.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    cells = [[printable(cell) for cell in row] for row in rows]
    for number, name in enumerate(columns):
        widest = max((cell_len(row[number]) for row in cells), default=0)
        table.add_column(
            name,
            justify="right" if name in right.split(",") else "left",
            overflow="fold",
            no_wrap=widest <= (_NARROW if number else _NAMES),
        )
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console(width=None if sys.stdout.isatty() else _UNBOUNDED, **_PLAIN)
    with console.capture() as text:
        console.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in text.get().splitlines()))


def say(text: str) -> None:
    """Print a line on standard error."""
    ERR.print(Text(printable(text)), soft_wrap=not ERR.is_terminal)


@contextmanager
def fetch_view() -> Iterator[Callable[[Any], None]]:
    """Yield a callback that shows a download as a bar on a terminal, and as lines elsewhere."""
    said_s = 0.0
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal) as bar:
        task = bar.add_task("", visible=False, detail="")

        def show(news: Any) -> None:
            nonlocal said_s
            name, detail = printable(news.name), printable(news.words())
            bar.update(
                task,
                description=name,
                total=news.total_bytes,
                completed=news.done_bytes,
                detail=detail,
                visible=True,
            )
            if not ERR.is_terminal and time.monotonic() - said_s > 10:  # noqa: PLR2004 (seconds)
                said_s = time.monotonic()
                say(f"{name}: {detail}")

        yield show


@contextmanager
def build_view() -> Iterator[Callable[[Any], None]]:
    """Yield a callback that shows the steps of an image's build."""
    started_s = time.monotonic()
    titles: list[str] = []
    with ERR.status("building the lab image") as status:

        def show(step: Any) -> None:
            if step.title not in titles:
                titles.append(step.title)
                passed = time.monotonic() - started_s
                say(f"[{passed:5.1f} s] build {step.number}/{step.count}: {step.title}")
            status.update(Text(printable(f"{step.title}: {step.detail}")[: ERR.width - 4]))

        yield show


@contextmanager
def sweep_view() -> Iterator[Callable[[Any], None]]:
    """Yield a callback that shows how far a sweep is: a bar on a terminal, lines elsewhere."""
    said = -1
    columns = (TextColumn("{task.description}", markup=False), BarColumn())
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(news: Any) -> None:
            nonlocal said
            text = f"{news.done} of {news.total} runs"
            text += f", {news.failed} failed" if news.failed else ""
            if news.left_s is not None and news.done < news.total:
                text += f", about {timedelta(seconds=round(news.left_s))} left"
            bar.update(task, description=text, completed=news.done, total=news.total)
            if not ERR.is_terminal and news.done > said:
                said = news.done
                say(text)

        yield show


class RunView:
    """Callback that shows a line per machine: stage, elapsed and typical time, last console line.

    Elsewhere than on a terminal it prints a line whenever a machine enters a stage.  ``console``
    prints each console line with its time, in seconds since launch, ``named`` the run's name
    before it.
    """

    def __init__(self, *, console: bool = False, named: bool = False) -> None:
        self._console, self._named = console, named
        self._remarks: set[str] = set()
        self._events: dict[str, RunEvent] = {}
        self._lines: dict[str, str] = {}
        #: Run -> when it was launched, and how long such a run usually takes, in seconds.
        self._launches: dict[str, tuple[float, float]] = {}
        self._live = Live(console=ERR, refresh_per_second=4, get_renderable=self._render)

    def __enter__(self) -> Self:
        if ERR.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if ERR.is_terminal:
            self._live.stop()

    def __call__(self, event: RunEvent) -> None:
        """Show an event."""
        before = self._events.get(event.run)
        self._events[event.run] = event
        if event.expected_s:
            self._launches[event.run] = time.monotonic(), event.expected_s
        if event.is_remark:
            # Runs side by side share most of these.
            if event.note not in self._remarks:
                say(event.note)
            self._remarks.add(event.note)
            return
        if event.line is not None and event.line.text:
            self._lines[event.run] = event.line.text
            if self._console:
                name = f"{event.run}: " if self._named else ""
                line = printable(f"{event.line.time_s:8.2f} {name}{event.line.text}")
                ERR.print(Text(line), soft_wrap=True)
        news = event.note or (before is not None and before.stage is not event.stage)
        if news and not ERR.is_terminal:
            what = event.note or event.stage.value
            typical = f" of about {event.expected_s:.0f}" if event.expected_s else ""
            say(f"[{event.time_s:6.1f}{typical} s] {event.run}: {what}")

    def _render(self) -> Group:
        waiting = []
        table = Table(box=None, pad_edge=False, show_header=False, expand=True)
        for width in (24, 18, 24, 22):
            table.add_column(width=width, no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis", style="dim")
        for run, event in self._events.items():
            ended = event.note in ("done", "failed", "interrupted")
            launched_s, expected_s = self._launches.get(run, (None, 0.0))
            now_s = event.time_s
            if launched_s is not None and not ended:
                now_s = time.monotonic() - launched_s
            share = min(now_s / expected_s, 0.99) if expected_s else 0.0
            share = 1.0 if event.note == "done" else share
            stage = event.note if ended or event.note == "preparing" else event.stage.value
            if event.is_waiting:
                # Too long for a column.
                stage = "waiting"
                waiting.append(Text(printable(f"{run}: {event.note}")))
            table.add_row(
                Text(printable(run)),
                Text(stage),
                Text("█" * round(share * 22) + "░" * (22 - round(share * 22))),
                Text(f"{now_s:4.0f} s of about {expected_s:.0f} s" if expected_s else ""),
                Text(self._lines.get(run, "")),
            )
        return Group(table, *waiting)


def sizes_rows(sizes: Any) -> list[list[str]]:
    """Return the rows of a sizes table for a terminal: disk and root, before and after growth."""
    found = sizes[sizes["stage"].isin(["before", "after"]) & sizes["exact"]]
    rows = []
    for _, run in found.groupby("run", sort=False):
        root = run.loc[(run["layer"] == "filesystem") & (run["mountpoint"] == "/"), "device"]
        for layer in ("virtual_disk", "partition", "filesystem"):
            of_layer = run[run["layer"] == layer]
            if layer != "virtual_disk":
                of_layer = of_layer[of_layer["device"].isin(root)]
            for device, measured in of_layer.groupby("device", sort=False):
                at = measured.drop_duplicates("stage").set_index("stage")
                sizes_at = at["size_bytes"].reindex(["before", "after"])
                line = at["line"].reindex(["after"]).iloc[0]
                rows.append(
                    [
                        str(measured["scenario"].iloc[0]),
                        layer.replace("_", " "),
                        str(device),
                        *(format_bytes(size) if is_known(size) else "-" for size in sizes_at),
                        str(line) if is_known(line) else "-",
                    ]
                )
    return rows


SIZES_HEAD = ("scenario", "layer", "device", "before", "after", "console line")
