"""Commands that read what was recorded: parse, replay, explain, figure."""

from __future__ import annotations

import argparse
import sys

from cloudlab import figures
from cloudlab.cli import terminal
from cloudlab.cli.images import print_path
from cloudlab.console import printable
from cloudlab.errors import ParseError, UsageError
from cloudlab.recording import play, read_run
from cloudlab.sizes import ParsedConsole, parse_console, to_json
from cloudlab.units import format_bytes


def parse(args: argparse.Namespace) -> None:
    """Print the sizes in a console log."""
    if str(args.log) == "-":
        parsed = parse_console(sys.stdin.buffer)
    else:
        try:
            with args.log.open("rb") as stream:
                parsed = parse_console(stream)
        except OSError as error:
            raise ParseError(f"{args.log} cannot be read: {error.strerror}.") from error
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


def _parsed_rows(parsed: ParsedConsole) -> list[list[str]]:
    rows = []
    for number, report in enumerate(parsed.reports, start=1):
        name = f"{number}, {report.stage or 'no stage'}, {'exact' if report.exact else 'rounded'}"
        for row in report.lsblk:
            size = format_bytes(row.size_bytes)
            mounts = " ".join(row.mountpoints)
            rows.append([name, "lsblk", row.name, size, "", mounts, str(row.line)])
        for line in report.df:
            used = "" if line.used_bytes is None else format_bytes(line.used_bytes)
            size = format_bytes(line.size_bytes)
            rows.append([name, "df", line.filesystem, size, used, line.mountpoint, str(line.line)])
    return rows


def replay(args: argparse.Namespace) -> None:
    """Play a run's console, labelled as the recording that it is."""
    recording = read_run(args.run)
    terminal.say(f"RECORDING: {recording.name}, {recording.label}; speed {args.speed:g}")
    rest = ""
    for text in play(recording.folder / "console.cast", speed=args.speed):
        # Line by line: an escape sequence cut in two could not be told from text.
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()
    sys.stdout.write(printable(rest) + "\n")
    terminal.say(f"END OF RECORDING: {recording.name}, {recording.label}")


def explain(args: argparse.Namespace) -> None:
    """Say who grew what in a recorded run, when, or why nobody did."""
    from cloudlab.lab.explained import explain_run

    explanation = explain_run(read_run(args.run))
    if args.json:
        terminal.print_json(explanation.to_json())
    else:
        terminal.OUT.print(explanation.to_text())


def figure(args: argparse.Namespace) -> None:
    """Draw a figure of one or several runs."""
    from cloudlab.lab.table import tables_of

    kinds = figures.KINDS
    if args.kind not in kinds:
        known = ", ".join(f"{one.name} ({one.title.lower()})" for one in kinds.values())
        raise UsageError(f"There is no figure of the kind {args.kind!r}.", hint=f"Kinds: {known}.")
    kind = kinds[args.kind]
    if kind.one_run and len(args.runs) > 1:
        raise UsageError(
            f"The figure {kind.name} shows one run; {len(args.runs)} were named.",
            hint="Draw one file for each, or all in one with --kind scenarios.",
        )
    tables = tables_of([read_run(folder) for folder in args.runs])
    if "predictions" in kind.tables:
        raise UsageError(
            "Predictions are made in the notebooks; a run folder holds none.",
            hint="Draw it there with cloudlab.figures.plot_prediction.",
        )
    wanted = [tables[name] for name in kind.tables]
    figures.save_figure(kind.plot(*wanted), args.output, title=kind.title, alt=kind.alt(*wanted))
    if args.data:
        figures.save_data(kind.data(*wanted), args.data)
    print_path(args.output)
