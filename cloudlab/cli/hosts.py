"""Commands about this host: doctor, ps, stop."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil

from cloudlab import paths, tools
from cloudlab.cli import terminal
from cloudlab.errors import CloudlabError, ShutdownError, UsageError
from cloudlab.image.cache import cached_images
from cloudlab.machine import registry
from cloudlab.machine.accel import AccelChoice, choose_accel
from cloudlab.machine.config import qemu_program
from cloudlab.units import format_bytes

#: A run writes some hundred megabytes into its overlay, a build holds 1.7 GiB for a while.
_LEAST_DISK_BYTES = 4 << 30

#: One machine with 1 GiB, and cloudlab itself.
_LEAST_MEMORY_BYTES = 1536 << 20


@dataclass(frozen=True)
class _Check:
    name: str
    ok: bool
    detail: str
    fix: str = ""


def doctor(args: argparse.Namespace) -> None:
    """Check everything that a real boot needs; a failure is an error at the end."""
    accel: AccelChoice | None = None
    checks = [_tool(qemu_program(tools.host_arch())), _tool("qemu-img"), _tool("qemu-nbd")]
    if checks[0].ok:
        try:
            accel = choose_accel(refresh=args.refresh)
            checks.append(_Check("accelerator", True, f"{accel.accel}: {accel.reason}"))
        except CloudlabError as error:
            checks.append(_Check("accelerator", False, error.message, error.hint))
    checks += [_gpgv(), _folder(), _disk(), _memory(), _image()]
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
        terminal.print_table(("", "check", "what was found"), rows)
        for check in checks:
            if check.fix:
                terminal.OUT.print(f"{check.name}: {check.fix}")
    if not all(check.ok for check in checks):
        raise CloudlabError("A real boot cannot be done here yet.", hint="See the fixes above.")


def _tool(program: str) -> _Check:
    found = tools.which(program)
    if found is None:
        return _Check(program, False, "not found", tools.install_hint(program))
    version = tools.run([found, "--version"], check=False).stdout.splitlines()
    return _Check(program, True, f"{found}: {version[0] if version else 'no version'}")


def _gpgv() -> _Check:
    found = _tool("gpgv")
    if found.ok:
        return found
    # Machines boot without it; only signed images cannot be fetched.
    return replace(found, ok=True, detail="not found: signed images cannot be verified")


def _folder() -> _Check:
    try:
        folder = paths.make_folder(paths.cache_folder())
    except CloudlabError as error:
        return _Check("cache", False, error.message, error.hint)
    return _Check("cache", True, str(folder))


def _disk() -> _Check:
    folder = paths.cache_folder()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    fix = "" if free >= _LEAST_DISK_BYTES else "Free some space, or move CLOUDLAB_CACHE."
    return _Check("disk", not fix, f"{format_bytes(free)} free for the cache", fix)


def _memory() -> _Check:
    free = psutil.virtual_memory().available
    fix = "" if free >= _LEAST_MEMORY_BYTES else "Close other programs, or run with --memory 512M."
    return _Check("memory", not fix, f"{format_bytes(free)} available", fix)


def _image() -> _Check:
    images = cached_images()
    if images:
        return _Check("image", True, f"{images[0].name} ({len(images)} in the cache)")
    # Not a failure: 'run' fetches or builds one by itself.
    return _Check("image", True, "none in the cache yet; the first run fetches or builds one")


def ps(args: argparse.Namespace) -> None:
    """List the machines that run; leftovers of dead ones are cleaned up on the way."""
    machines = registry.list_running()
    if args.json:
        fields = ("ident", "name", "started", "owner_pid", "supervisor_pid", "qemu_pid")
        terminal.print_json(
            [
                {**{name: getattr(one, name) for name in fields}, "run_folder": str(one.run_folder)}
                for one in machines
            ]
        )
    elif not machines:
        terminal.say("No machine is running.")
    else:
        terminal.print_table(
            ("id", "machine", "started", "QEMU", "run folder"),
            [[m.ident, m.name, m.started, str(m.qemu_pid), str(m.run_folder)] for m in machines],
        )


def stop(args: argparse.Namespace) -> None:
    """End the machines that were named, or all."""
    machines = registry.list_running()
    wanted: Callable[[registry.RunningMachine], bool] = lambda one: (  # noqa: E731
        args.all or one.ident in args.machine or one.name in args.machine
    )
    chosen = [machine for machine in machines if wanted(machine)]
    known = {machine.ident for machine in machines} | {machine.name for machine in machines}
    unknown = set(args.machine) - known
    if unknown or not (args.all or args.machine):
        raise UsageError(
            f"There is no machine {', '.join(sorted(unknown))}."
            if unknown
            else "Which machine shall be stopped?",
            hint="'cloudlab ps' lists the machines; --all stops every one.",
        )
    stubborn = []
    for machine in chosen:
        try:
            registry.stop(machine)
        except ShutdownError as error:
            stubborn.append(error)
        else:
            terminal.say(f"Stopped {machine.name}.")
    if stubborn:
        raise ShutdownError(
            "\n".join(error.message for error in stubborn),
            hint="\n".join(error.hint for error in stubborn),
        )
