"""Commands that read what was recorded: parse, replay, explain, figure."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloudlab import figures, paths
from cloudlab.cli import terminal
from cloudlab.cli.images import print_path
from cloudlab.console import play, printable
from cloudlab.errors import ParseError, UsageError, suggest
from cloudlab.explanation.evidence import redact_files
from cloudlab.run.display import distinct, plot
from cloudlab.run.value import Run, open_run, recording_names
from cloudlab.run.value import explain as explain_sources
from cloudlab.sizes import ParsedConsole, parse_console, to_json
from cloudlab.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd

_LONGEST_SEQUENCE = 300
_MOST_UNREAD = 20
_CUT_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*|[ -/]*)\Z")


def parse(args: argparse.Namespace) -> None:
    """Print the sizes in a console log."""
    if str(args.log) == "-":
        parsed = parse_console(sys.stdin.buffer)
    else:
        hint = "Name a console log or a text with the output of lsblk and df, or '-' for "
        hint += "standard input."
        problem = f"{args.log} cannot be read"
        with paths.os_errors_as(ParseError, problem, hint=hint), args.log.open("rb") as stream:
            parsed = parse_console(stream)
    if args.json:
        terminal.print_json(to_json(parsed))
    else:
        terminal.print_table(
            ("report", "tool", "device", "size", "used", "mounted on", "line"),
            _parsed_rows(parsed),
            right="size,used,line",
        )
    if parsed.damaged:
        terminal.say(f"{parsed.damaged} damaged lines of the exact report were ignored.")
    for row in parsed.unread[:_MOST_UNREAD]:
        terminal.say(f"line {row.line} was not understood as a row of {row.tool}: {row.text[:200]}")
    if len(parsed.unread) > _MOST_UNREAD:
        terminal.say(f"{len(parsed.unread) - _MOST_UNREAD} further lines were not understood.")


def _parsed_rows(parsed: ParsedConsole) -> list[list[str]]:
    rows = []
    for number, report in enumerate(parsed.reports, start=1):
        name = f"{number}, {report.stage or 'no stage'}, {'exact' if report.exact else 'rounded'}"
        for row in report.lsblk:
            size = format_bytes(row.size_bytes)
            mounts = " ".join(row.mountpoints)
            rows.append([name, "lsblk", row.name, size, "", mounts, str(row.line)])
        for mount in report.df:
            used = "" if mount.used_bytes is None else format_bytes(mount.used_bytes)
            size, point = format_bytes(mount.size_bytes), mount.mountpoint or ""
            rows.append([name, "df", mount.filesystem or "", size, used, point, str(mount.line)])
    return rows


def replay(args: argparse.Namespace) -> None:
    """Play a run's console, labelled as a recording."""
    run = open_run(args.run)
    first = _first_line(run, args.start)
    start = f", from line {first}" if first > 1 else ""
    terminal.say(f"RECORDING: {run.name}, {run.label}; speed {args.speed:g}{start}")
    if args.start == "growth" and all(one.grown is False for one in run.explain().statements):
        terminal.say("Nothing grew in this boot. It is played from the end of the first report.")
    rest = ""
    for text in play(run.folder / "console.cast", speed=args.speed, first_line=first):
        rest += text
        # An escape sequence cut in two could not be told from text.
        cut = _CUT_SEQUENCE.search(rest, max(0, len(rest) - _LONGEST_SEQUENCE))
        end = cut.start() if cut else len(rest)
        # The blanks at its end, which printable() takes off a line, stand before what follows.
        pieces = (printable(f"{line}.")[:-1] for line in rest[:end].split("\n"))
        sys.stdout.write("\n".join(pieces))
        sys.stdout.flush()
        rest = rest[end:]
    sys.stdout.write(printable(rest) + "\n")
    terminal.say(f"END OF RECORDING: {run.name}, {run.label}")


def _first_line(run: Run, start: str | None) -> int:
    """Return the first line of a report, or the one after the report before growth."""
    if start is None:
        return 1
    stage = "after" if start == "report" else "before"
    report = run.console.find(f"^@cloudlab {stage} ", report=True)
    if not report:
        raise UsageError(
            f"{run.name} has no report {stage} growth, so it cannot be played from there.",
            hint="Leave --from out.",
        )
    return report[-1].number + 1 if start == "growth" else report[0].number


def explain(args: argparse.Namespace) -> None:
    """Say what grew a disk, or why it did not grow."""
    names = recording_names()
    for source in args.sources:
        if source != "-" and source not in names and not os.path.lexists(source):
            raise ParseError(
                f"{source} does not exist.",
                hint=suggest(
                    source,
                    names,
                    "Name files, folders, archives or disk images, a run folder, or a recording.",
                ),
            )
    if args.redact:
        redact_files(args.sources, sys.stdout, sys.stdin.buffer)
        return
    explanation = explain_sources(*args.sources)
    if args.json:
        terminal.print_json(explanation.to_json())
    else:
        width = terminal.OUT.width if sys.stdout.isatty() else None
        terminal.OUT.print(explanation.to_text(width))


def figure(args: argparse.Namespace) -> None:
    """Draw a figure of one or more runs."""
    if args.kind == "help":
        rows = [[kind.name, kind.title] for kind in figures.KINDS.values()]
        terminal.print_table(("kind", "shows"), rows)
        return
    kind = figures.find_kind(args.kind)
    if not args.run:
        raise UsageError(
            "Name a run folder or a recording to draw.",
            hint=f"For example: cloudlab figure default --kind {kind.name}",
        )
    if ("predictions" in kind.tables) != (args.predict is not None):
        raise UsageError(
            "--kind prediction and --predict PARTITION,FILESYSTEM need each other.",
            hint="For example: --kind prediction --predict 19.9G,20G",
        )
    runs = [open_run(run) for run in args.run]
    drawn = plot(
        kind.name,
        runs,
        tables={"predictions": _predictions(runs, args.predict)} if args.predict else {},
        size=args.size,
        style=args.style,
        title=True if args.title is None else args.title or False,
    )
    output = args.output or Path(f"{kind.name}.svg")
    drawn.save(output)
    if args.data:
        drawn.save_data(args.data)
    print_path(output)


def _predictions(runs: Sequence[Run], text: str) -> pd.DataFrame:
    """Return the predictions table: expected and measured sizes of partition and filesystem."""
    import pandas as pd

    from cloudlab.course.prediction import Prediction

    parts = text.split(",")
    if len(parts) != 2:  # noqa: PLR2004
        raise UsageError(
            f"A prediction is two sizes, partition and filesystem; {text!r} has {len(parts)}.",
            hint="For example: --predict 19.9G,20G",
        )
    prediction = Prediction(*parts)
    # Figures tell two runs of one name apart so, too.
    names = distinct(run.name for run in runs)
    tables = [prediction.table(run).assign(run=name) for run, name in zip(runs, names, strict=True)]
    return pd.concat(tables, ignore_index=True)
