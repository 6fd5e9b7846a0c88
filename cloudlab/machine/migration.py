"""A paused machine's state, written to a file and read back, by QEMU's own migration.

The file goes over QMP's socket as a descriptor: QEMU's sandbox lets it start no program to
write or read for it, and QEMU learned to migrate to a file name only in version 8.2.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from cloudlab.errors import MachineError, SavedMachineError
from cloudlab.machine.process import Machine
from cloudlab.tools import Deadline

#: Seconds that writing or reading a state may take; on an idle host it takes less than one.
TIMEOUT_S = 120.0

_TICK_S = 0.02
#: QEMU's default, made for networks, would write for seconds.
_BYTES_PER_S = 100 << 30


async def save_state(machine: Machine, path: Path) -> None:
    """Write memory and devices of a paused machine to ``path``; the machine stays paused.

    Raises
    ------
    SavedMachineError
        With QEMU's words.
    OSError
        If the file cannot be made.
    """
    try:
        with path.open("xb") as file:
            machine.pass_file(file)
            await machine.command("getfd", fdname="state")
            await machine.command("migrate-set-parameters", max_bandwidth=_BYTES_PER_S)
            await machine.command("migrate", uri="fd:state")
        await _wait_until_done(machine)
    except MachineError as error:
        raise SavedMachineError(f"The machine could not be saved: {error.message}") from error


async def load_state(machine: Machine, path: Path) -> None:
    """Read the state of a machine that was launched to wait for one; it is paused afterwards.

    Raises
    ------
    SavedMachineError
        If QEMU does not take it; that QEMU has then ended.
    OSError
        If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            machine.pass_file(file)
            await machine.command("getfd", fdname="state")
            await machine.command("migrate-incoming", uri="fd:state")
        await _wait_until_done(machine)
    except MachineError as error:
        words = machine.end.stderr.strip() if machine.end else error.message
        raise SavedMachineError(f"The saved machine could not be restored: {words}") from error


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
