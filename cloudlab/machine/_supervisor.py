"""The small process between cloudlab and QEMU: QEMU ends when its owner ends, however it ends.

It runs with ``python -I -S`` and imports nothing outside the standard library but
:mod:`cloudlab.platforms`, so that it starts in a moment and needs little memory.  It is in a
session of its own: a Ctrl-C in the terminal or the Interrupt button of a notebook is meant for the
owner and does not reach it.  Its standard input is the lifeline: when the owner's end
closes, by intention or because the owner died of whatever cause, QEMU is ended and what
only this machine used is deleted.  Without a command for QEMU it is the guard of a machine that
has no supervisor yet: it waits on its lifeline, and cleans up if that closes.

Words on the lifeline: ``end`` (QEMU, or the guard, shall end; the files are still wanted).
Lines on standard error, JSON each: ``{"qemu_pid": N}`` once QEMU was started, or
``{"failed": "..."}``; once it ended ``{"returncode": N, "stderr": "...", "stopped": B}``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
from typing import Any

from cloudlab import platforms

#: Seconds between QEMU being asked to end and being killed.
GRACE_S = 1.0

#: Seconds between two looks at whether the owner is still there.
OWNER_CHECK_S = 1.0

_STDERR_KEPT_BYTES = 8192


def main() -> int:
    job = json.loads(sys.argv[1])
    return supervise(job) if "argv" in job else guard(job)


def guard(job: dict[str, Any]) -> int:
    """Clean up when the owner closes the lifeline or dies, unless it says ``end`` before.

    Signals that ask it to end are blocked (see :class:`~cloudlab.machine.registry.Entry`).
    """
    lifeline = sys.stdin.fileno()
    while os.getppid() == job["about"]["owner_pid"]:
        ready, _, _ = select.select([lifeline], [], [], OWNER_CHECK_S)
        if ready and os.read(lifeline, 4096):
            return 0
        if ready:
            break
    leave(job["entry"], job["about"])
    return 0


def supervise(job: dict[str, Any]) -> int:
    """Start QEMU, watch it, end it and clean up."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    stopped_by: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: stopped_by.append(received))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    stderr_read, stderr_write = os.pipe()
    held = [*job["fds"]]
    try:
        qemu = start(job, held, stderr_write)
    except OSError as error:
        tell(failed=f"{error.filename or job['argv'][0]}: {error.strerror}")
        return 1
    # Only QEMU holds these now, so that the owner sees its end as an end of file.
    for descriptor in (*held, sys.stdout.fileno(), stderr_write):
        os.close(descriptor)
    about = {**job["about"], "qemu_pid": qemu.pid, "supervisor_pid": os.getpid()}
    # What was there is a shorter form of the same, so one write leaves no moment in between.
    os.pwrite(job["entry_fd"], json.dumps(about).encode(), 0)
    tell(qemu_pid=qemu.pid)
    watch(qemu, (stderr_read, wake_read), stopped_by, about["owner_pid"])
    end(qemu)
    leave(job["entry"], about)
    return 0


def start(job: dict[str, Any], held: list[int], stderr: int) -> subprocess.Popen[bytes]:
    """Start QEMU, which inherits ``held`` and the descriptors of its files, added to that."""
    argv = list(job["argv"])
    for number, (path, writable) in enumerate(job["files"].items(), start=1):
        # QEMU opens some files anew for reading only before it writes to them.
        for flags in (os.O_RDWR, os.O_RDONLY) if writable else (os.O_RDONLY,):
            held.append(os.open(path, flags | os.O_CLOEXEC))
            argv += ["-add-fd", f"fd={held[-1]},set={number}"]
    # A program in a folder that only root may enter cannot be started as anyone else.
    for user in (job["user"], None) if job["user"] else (None,):
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=sys.stdout.fileno(),
                stderr=stderr,
                pass_fds=held,
                # This process has one thread only.
                preexec_fn=functools.partial(become, user),  # noqa: PLW1509
            )
        except PermissionError:
            if user is None:
                raise
    raise AssertionError


def become(user: dict[str, Any] | None) -> None:
    """Give up root's rights in a child that will be QEMU, and let it die with its parent."""
    if user is not None:
        # A container may not know the user; then QEMU stays what its starter is.
        with contextlib.suppress(OSError):
            os.setgroups(user["groups"])
            os.setresgid(*[user["gid"]] * 3)
            os.setresuid(*[user["uid"]] * 3)
    # The main thread of its parent started it, which lives as long as the parent does.
    platforms.die_with_parent()


def watch(
    qemu: subprocess.Popen[bytes], reads: tuple[int, int], stopped_by: list[int], owner_pid: int
) -> None:
    """End QEMU when that is asked for, tell of its end, return when the owner let go or died."""
    stderr_read, wake_read = reads
    lifeline = sys.stdin.fileno()
    sources = {lifeline, *reads}
    stderr = b""
    told = False
    # A child that the owner forked may hold the lifeline open after the owner's death.
    while os.getppid() == owner_pid:
        if stopped_by:
            end(qemu)
        if not told and qemu.poll() is not None:
            stderr = (stderr + read_rest(stderr_read))[-_STDERR_KEPT_BYTES:]
            words = stderr.decode(errors="replace")
            tell(returncode=qemu.returncode, stderr=words, stopped=bool(stopped_by))
            told = True
        ready, _, _ = select.select(sources, [], [], OWNER_CHECK_S)
        if stderr_read in ready:
            chunk = os.read(stderr_read, 65536)
            stderr = (stderr + chunk)[-_STDERR_KEPT_BYTES:]
            if not chunk:
                sources.discard(stderr_read)
        if wake_read in ready:
            os.read(wake_read, 4096)
        if lifeline in ready:
            if not os.read(lifeline, 4096):
                return
            end(qemu)


def end(qemu: subprocess.Popen[bytes]) -> None:
    """Ask QEMU to end, then make it end, then reap it."""
    qemu.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        qemu.wait(GRACE_S)
    qemu.kill()
    qemu.wait()


def read_rest(stderr_read: int) -> bytes:
    os.set_blocking(stderr_read, False)
    rest = b""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(stderr_read, 65536):
            rest = (rest + chunk)[-_STDERR_KEPT_BYTES:]
    return rest


def leave(entry: str, about: dict[str, Any]) -> None:
    """Clean up and take the machine off the list."""
    clean(about)
    with contextlib.suppress(OSError):
        os.unlink(entry)  # noqa: PTH108 (pathlib is slow to import)


def clean(about: dict[str, Any]) -> None:
    """Delete what only this machine used; a run that nobody will finish says so from now on."""
    for path in about.get("cleanup", ()):
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108
    record = os.path.join(str(about.get("run_folder")), "run.json")  # noqa: PTH118
    with contextlib.suppress(OSError, ValueError, AttributeError):
        with open(record, encoding="utf-8") as stream:  # noqa: PTH123
            run = json.load(stream)
        if run.get("outcome") != "running":
            return
        words = "The process that ran it ended before the run did."
        run |= {"outcome": "interrupted", "error": {"kind": "InterruptedRunError", "text": words}}
        with open(f"{record}.part", "w", encoding="utf-8") as stream:  # noqa: PTH123
            json.dump(run, stream, indent=2, ensure_ascii=False)
        os.replace(f"{record}.part", record)  # noqa: PTH105


def tell(**words: object) -> None:
    # The owner may be gone; that must not keep QEMU alive.
    with contextlib.suppress(OSError):
        os.write(2, (json.dumps(words) + "\n").encode())
