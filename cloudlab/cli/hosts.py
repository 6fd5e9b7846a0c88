"""Commands about this host and the course on it: doctor, ps, stop, lab, class."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import os
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from cloudlab import paths, platforms, tools
from cloudlab.cli import terminal
from cloudlab.course.runs import ready_line
from cloudlab.errors import CloudlabError, ShutdownError, UsageError, suggest
from cloudlab.image.cache import cached_images
from cloudlab.image.fetch import cached_choice
from cloudlab.machine import registry
from cloudlab.machine.accel import AccelChoice, choose_accel
from cloudlab.machine.config import qemu_program
from cloudlab.machine.slots import read_slots
from cloudlab.units import format_bytes

#: A run writes some hundred megabytes into its overlay, a build holds 1.7 GiB for a while.
_LEAST_DISK_BYTES = 4 << 30

#: One machine with 1 GiB, and cloudlab itself.
_LEAST_MEMORY_BYTES = 1536 << 20


#: The columns of a class's CSV.
_CSV = (
    "learner", "passed", "stuck_at", "trying", "wrong_answers", "last_change", "file", "exercises",
    "machine_check",
)  # fmt: skip


@dataclass(frozen=True)
class _Check:
    name: str
    ok: bool
    detail: str
    fix: str = ""


def doctor(args: argparse.Namespace) -> None:
    """Check what a boot needs; raise an error at the end if a check failed."""
    accel: AccelChoice | None = None
    qemu = _tool(qemu_program(tools.host_arch()))
    system = _Check("system", True, platforms.describe())
    checks = [system, qemu, _tool("qemu-img"), _tool("qemu-nbd")]
    if qemu.ok:
        try:
            accel = choose_accel(refresh=args.refresh)
            checks.append(_Check("accelerator", True, f"{accel.accel}: {accel.reason}"))
        except CloudlabError as error:
            checks.append(_Check("accelerator", False, error.message, error.hint))
    gpgv = _tool("gpgv")
    if not gpgv.ok:
        # No failure: only signed images need it.
        gpgv = replace(gpgv, ok=True, detail="not found: signed images cannot be verified")
    checks += [gpgv, *_host_checks()]
    if args.json:
        terminal.print_json(
            {
                "checks": [vars(check) for check in checks],
                "accelerator": {
                    "name": accel.accel.value if accel else None,
                    "reason": accel.reason if accel else "QEMU does not run",
                },
            }
        )
    else:
        rows = [["ok" if check.ok else "FAILED", check.name, check.detail] for check in checks]
        terminal.print_table(("", "check", "found"), rows)
        for check in checks:
            if check.fix:
                terminal.OUT.print(f"{check.name}: {check.fix}")
        terminal.OUT.print(ready_line())
    if not all(check.ok for check in checks):
        raise CloudlabError("This host cannot boot a machine yet.", hint="See the fixes above.")


def _tool(program: str) -> _Check:
    found = tools.which(program)
    if found is None:
        return _Check(program, False, "not found", tools.install_hint(program))
    version = tools.run([found, "--version"], check=False).stdout.splitlines()
    return _Check(program, True, f"{found}: {version[0] if version else 'no version'}")


def _host_checks() -> list[_Check]:
    """Check what is not a program: the cache, the room on disk and in memory, the images."""
    folder = paths.cache_folder()
    try:
        cache = _Check("cache", True, str(paths.make_folder(folder)))
    except CloudlabError as error:
        cache = _Check("cache", False, error.message, error.hint)
    if drive := platforms.windows_drive(str(folder)):
        # No failure: it works, and takes several times as long.
        detail = f"{folder}, on the Windows drive {drive}, which is slow from WSL"
        cache = replace(cache, detail=detail, fix="Set CLOUDLAB_CACHE to a folder of Linux's own.")
    place = next(one for one in (folder, *folder.parents) if one.exists())
    disk, memory = shutil.disk_usage(place).free, psutil.virtual_memory().available
    move = "" if disk >= _LEAST_DISK_BYTES else "Free some space, or move CLOUDLAB_CACHE."
    close = ""
    if memory < _LEAST_MEMORY_BYTES:
        close = "Close other programs, or run with --memory 512M."
    # No failure: 'run' fetches or builds one by itself.
    image = _Check("image", True, "none in the cache yet; the first run fetches or builds one")
    try:
        choice, images = cached_choice(tools.host_arch()), cached_images()
        if images:
            name = choice[0].name if choice else "none that a run takes without its name"
            image = replace(image, detail=f"{name} ({len(images)} in the cache)")
    except CloudlabError as error:  # of a catalogue of the user's
        image = _Check("image", False, error.message, error.hint)
    return [
        *_slots_check(),
        cache,
        _Check("disk", not move, f"{format_bytes(disk)} free for the cache", move),
        _Check("memory", not close, f"{format_bytes(memory)} available", close),
        image,
    ]


def _slots_check() -> list[_Check]:
    """Check the limit on machines of all users, where one is set."""
    try:
        if (slots := read_slots()) is None:
            return []
    except CloudlabError as error:
        return [_Check("slots", False, error.message, error.hint)]
    found = f"{slots.taken()} of {slots.count} taken, for all users, in {slots.folder}"
    return [_Check("slots", True, found)]


def ps(args: argparse.Namespace) -> None:
    """List running machines; what dead ones left behind is removed first."""
    machines = registry.list_running()
    if args.json:
        terminal.print_json([asdict(machine) for machine in machines])
    elif not machines:
        terminal.say("No machine is running.")
    else:
        terminal.print_table(
            ("id", "machine", "started", "QEMU", "run folder"),
            [[m.ident, m.name, m.started, str(m.qemu_pid), m.run_folder] for m in machines],
        )


def stop(args: argparse.Namespace) -> None:
    """Stop the named machines, or all."""
    machines = registry.list_running()
    known = {word for machine in machines for word in (machine.ident, machine.name)}
    unknown = sorted(set(args.machine) - known)
    if unknown or not (args.all or args.machine):
        raise UsageError(
            f"There is no running machine {', '.join(unknown)}. {suggest(unknown[0], known)}".strip()
            if unknown
            else "Name a machine to stop.",
            hint="'cloudlab ps' lists the machines; --all stops all of them.",
        )
    errors = []
    for machine in machines:
        if not args.all and not {machine.ident, machine.name} & set(args.machine):
            continue
        try:
            registry.stop(machine)
        except ShutdownError as error:
            errors.append(error)
        else:
            terminal.say(f"Stopped {machine.name}.")
    if errors:
        raise ShutdownError(
            "\n".join(error.message for error in errors),
            hint="\n".join(error.hint for error in errors),
        )


#: JupyterLab, whose process ends with it.  At the end Python waits for all threads, among them
#: an idle one of JupyterLab's file manager that, if the host is busy, is never told to end.
_JUPYTERLAB = """\
import os, sys
from jupyterlab.labapp import main
try:
    code = main()
except SystemExit as error:
    code = error.code
if isinstance(code, str):
    print(code, file=sys.stderr)
sys.stdout.flush()
sys.stderr.flush()
os._exit(code if isinstance(code, int) else bool(code))
"""


def lab(args: argparse.Namespace) -> None:
    """Copy the course, then replace this process by JupyterLab."""
    from cloudlab.course import copy_course

    missing = [
        name
        for name in ("jupyterlab", "ipykernel", "ipywidgets", "anywidget")
        if importlib.util.find_spec(name) is None
    ]
    if missing and not args.copy_only:
        raise CloudlabError(
            f"The course needs {', '.join(missing)}, which this Python does not have.",
            hint=f"Install it with: {sys.executable} -m pip install 'cloudlab[notebook]'",
        )
    course = copy_course((args.folder or paths.expand("~/cloudlab-course")).absolute())
    terminal.say(f"The course is in {course.folder}; {len(course.written)} files were written.")
    for name in course.kept:
        terminal.say(f"Kept your {name}; cloudlab has a newer version of it.")
    if args.copy_only:
        return
    options = [f"--ServerApp.root_dir={course.folder}"]
    options += [
        f"--LabApp.default_url=/lab/tree/{p.name}" for p in course.folder.glob("00-*.ipynb")
    ]
    # JupyterLab replaces this process, so that it gets Ctrl-C and every other signal itself.
    argv = [sys.executable, "-c", _JUPYTERLAB, *options, *args.jupyter]
    os.execv(sys.executable, argv)  # noqa: S606


def class_(args: argparse.Namespace) -> None:
    """Show the board of a class, as a table, as JSON or as CSV."""
    from cloudlab.course import checks
    from cloudlab.course.classroom import ago, read_class

    board, problems = read_class(args.folder)
    for problem in problems:
        terminal.say(problem)
    rows = [
        {
            "learner": one.name,
            "passed": len(one.passed),
            "stuck_at": one.stuck_at,
            "trying": one.answer.trying or "",
            "wrong_answers": one.answer.wrong,
            "last_change": datetime.fromtimestamp(one.changed_s, UTC).isoformat(timespec="seconds"),
            "file": one.file,
            "exercises": one.passed,
            "machine_check": one.answer.ready,
        }
        for one in board
    ]
    if args.csv is not None:
        _write_csv(rows, args.csv)
    if args.json:
        terminal.print_json({"learners": rows, "left_out": problems})
    elif not rows:
        terminal.say("No answer of a learner is there yet.")
    elif str(args.csv) != "-":
        columns = ("learner", "passed", "stuck at", "last change", "file")
        count = len(checks.exercises())
        cells = [
            [one.name, f"{len(one.passed)}/{count}", one.stuck_at, ago(one.changed_s), one.file]
            for one in board
        ]
        terminal.print_table(columns, cells, right="passed")


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as CSV to a file, or to standard output for ``-``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV)
    for row in rows:
        cells = [row[name] for name in _CSV]
        cells = [" ".join(cell) if isinstance(cell, list) else str(cell) for cell in cells]
        # Learners choose their names, and a spreadsheet would take some for formulas.
        writer.writerow(
            f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell for cell in cells
        )
    if str(path) == "-":
        sys.stdout.write(text.getvalue())
        return
    problem, hint = f"{path} could not be written", "Choose another file with --csv."
    with paths.os_errors_as(CloudlabError, problem, hint=hint):
        paths.write_whole(path, text.getvalue())
    terminal.say(f"Wrote {path}.")
