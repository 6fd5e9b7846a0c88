"""A paused machine's state, written to a file and read back, by QEMU's own migration.

The state goes through a pipe whose other end QEMU is given over QMP's socket.  QEMU's sandbox
lets it start no program that would write or read a file for it; it learned to migrate to a
file by name only in version 8.2, and lost the way to one by descriptor in 11.0.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from cloudlab.errors import MachineError, SavedMachineError
from cloudlab.machine.process import Machine
from cloudlab.tools import Deadline

#: Seconds that writing or reading a state may take; on an idle host it takes less than one.
TIMEOUT_S = 120.0

#: Seconds that QEMU's end may take to become known after its connection broke.
_END_S = 5.0
_TICK_S = 0.02
#: QEMU's default, made for networks, would write for seconds.
_BYTES_PER_S = 100 << 30
_COPY_BYTES = 1 << 20


async def save_state(machine: Machine, path: Path) -> None:
    """Write memory and devices of a paused machine to ``path``; the machine stays paused.

    Raises
    ------
    SavedMachineError
        With QEMU's words.
    OSError
        If the file cannot be written.
    """
    file = path.open("xb")
    ours, theirs = _pipe()
    copying = asyncio.ensure_future(asyncio.to_thread(_copy, ours, file))
    try:
        await _give(machine, theirs)
        await machine.command("migrate-set-parameters", max_bandwidth=_BYTES_PER_S)
        await machine.command("migrate", uri="fd:state")
        await _wait_until_done(machine)
    except MachineError as error:
        if copying.done():
            # It is the host's disk that would not take it.
            await copying
        raise SavedMachineError(f"The machine could not be saved: {error.message}") from error
    # The end of the pipe comes behind QEMU's last byte.
    await copying


async def load_state(machine: Machine, path: Path) -> None:
    """Read the state of a machine that was launched to wait for one; it is paused afterwards.

    Raises
    ------
    SavedMachineError
        If QEMU does not take it; that QEMU has then ended.
    OSError
        If the file cannot be read.
    """
    file = path.open("rb")
    theirs, ours = _pipe()
    copying = asyncio.ensure_future(asyncio.to_thread(_copy, file, ours))
    try:
        await _give(machine, theirs)
        await machine.command("migrate-incoming", uri="fd:state")
        await _wait_until_done(machine)
    except MachineError as error:
        # A QEMU that refuses the state ends; its own words say more than the lost connection.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(machine.wait(), _END_S)
        words = (machine.end and machine.end.stderr.strip()) or error.message
        raise SavedMachineError(f"The saved machine could not be restored: {words}") from error
    finally:
        # QEMU may end, or have all that it wants, before the file does.
        copying.add_done_callback(asyncio.Future.exception)


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb", buffering=0), os.fdopen(writing, "wb", buffering=0)


async def _give(machine: Machine, end: BinaryIO) -> None:
    """Hand one end of a pipe over to QEMU; ours of it is closed."""
    with end:
        machine.pass_file(end)
        await machine.command("getfd", fdname="state")


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    with source, target:
        shutil.copyfileobj(source, target, _COPY_BYTES)


async def _wait_until_done(machine: Machine) -> None:
    deadline = Deadline.after(TIMEOUT_S)
    while not deadline.expired:
        news = await machine.command("query-migrate")
        if news.get("status") == "completed":
            return
        if news.get("status") in {"failed", "cancelled"}:
            raise MachineError(news.get("error-desc", "QEMU gave no reason."))
        await asyncio.sleep(_TICK_S)
    raise MachineError(f"It took more than {TIMEOUT_S:g} s.")
