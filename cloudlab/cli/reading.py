"""Commands that read what was recorded: parse, replay, explain, figure."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloudlab import figures, paths
from cloudlab.cli import terminal
from cloudlab.cli.images import print_path
from cloudlab.console import play, printable
from cloudlab.errors import ParseError, UsageError
from cloudlab.explanation.redact import redact_files
from cloudlab.run.plots import plot
from cloudlab.run.value import Run, open_run
from cloudlab.run.value import explain as explain_sources
from cloudlab.sizes import ParsedConsole, parse_console, parse_size, to_json
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
        try:
            with args.log.open("rb") as stream:
                parsed = parse_console(stream)
        except OSError as error:
            raise ParseError(
                f"{args.log} cannot be read: {paths.why_not(args.log, error)}.",
                hint="Name a console log or a text with the output of lsblk and df, or '-' for "
                "standard input.",
            ) from error
    if args.json:
        terminal.print_json(to_json(parsed))
    else:
        terminal.print_table(
            ("report", "tool", "device", "size", "used", "mounted on", "line"),
            _parsed_rows(parsed),
            right="size,used,line",
        )
    if parsed.damaged:
        terminal.say(f"{parsed.damaged} damaged lines of the exact report were left out.")
    for one in parsed.unread[:_MOST_UNREAD]:
        terminal.say(f"line {one.line} was not understood as a row of {one.tool}: {one.text[:200]}")
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
    """Play a run's console, labelled as the recording that it is."""
    run = open_run(args.run)
    terminal.say(f"RECORDING: {run.name}, {run.label}; speed {args.speed:g}")
    rest = ""
    for text in play(run.folder / "console.cast", speed=args.speed):
        rest += text
        # An escape sequence cut in two could not be told from text.
        cut = _CUT_SEQUENCE.search(rest, max(0, len(rest) - _LONGEST_SEQUENCE))
        end = cut.start() if cut else len(rest)
        sys.stdout.write("\n".join(_printable_piece(line) for line in rest[:end].split("\n")))
        sys.stdout.flush()
        rest = rest[end:]
    sys.stdout.write(printable(rest) + "\n")
    terminal.say(f"END OF RECORDING: {run.name}, {run.label}")


def _printable_piece(text: str) -> str:
    # The blanks at its end, which printable() takes off a line, stand before what follows.
    return printable(text + ".")[:-1]


def explain(args: argparse.Namespace) -> None:
    """Say what grew a disk, or why it did not grow."""
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
    """Draw a figure of one or several runs."""
    if args.kind == "help":
        rows = [[one.name, one.title] for one in figures.KINDS.values()]
        terminal.print_table(("kind", "shows"), rows)
        return
    kind = _kind(args)
    runs = [open_run(run) for run in args.runs]
    tables = {}
    if "predictions" in kind.tables:
        tables["predictions"] = _predictions(runs, args.predict)
    drawn = plot(
        args.kind,
        runs,
        tables=tables,
        size=args.size,
        style=args.style,
        title=True if args.title is None else args.title or False,
    )
    drawn.save(args.output)
    if args.data:
        drawn.save_data(args.data)
    print_path(args.output)


def _kind(args: argparse.Namespace) -> figures.Kind:
    """Return the kind that was asked for.

    Raises
    ------
    UsageError
        If there is none such, or it needs something else.
    """
    if args.kind not in figures.KINDS:
        known = ", ".join(f"{one.name} ({one.title.lower()})" for one in figures.KINDS.values())
        raise UsageError(f"There is no figure of the kind {args.kind!r}.", hint=f"Kinds: {known}.")
    kind = figures.KINDS[args.kind]
    if not args.runs or args.output is None:
        raise UsageError(
            f"What to draw is missing: {'--output FILE' if args.runs else 'a run folder'}.",
            hint="Write: cloudlab figure RUN --kind K --output F.svg; --kind help lists the kinds.",
        )
    if kind.one_run and len(args.runs) > 1:
        raise UsageError(
            f"The figure {kind.name} shows one run; {len(args.runs)} were named.",
            hint="Draw one file for each, or all in one with --kind scenarios.",
        )
    if ("predictions" in kind.tables) != (args.predict is not None):
        raise UsageError(
            "A prediction is drawn with --kind prediction and --predict PARTITION,FILESYSTEM; "
            "one of the two is missing.",
            hint="Such as: --kind prediction --predict 19.9G,20G",
        )
    return kind


def _predictions(runs: Sequence[Run], text: str) -> pd.DataFrame:
    """Return the predictions table of what was expected of each run's partition and filesystem."""
    import pandas as pd

    parts = text.split(",")
    if len(parts) != 2:  # noqa: PLR2004
        raise UsageError(
            f"A prediction is two sizes, partition and filesystem; {text!r} has {len(parts)}.",
            hint="For example: --predict 19.9G,20G",
        )
    layers = ("partition", "filesystem")
    expected = [parse_size(part) for part in parts]
    rows = [
        (run.scenario, layer, guess, measured)
        for run in runs
        for layer, guess, measured in zip(layers, expected, run.root_sizes("after"), strict=True)
    ]
    columns = ["scenario", "layer", "predicted_bytes", "measured_bytes"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:], "Int64"))
