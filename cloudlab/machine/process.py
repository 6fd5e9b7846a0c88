"""One QEMU: launched, listened to, ended, always."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import signal
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cloudlab import platforms
from cloudlab.errors import LaunchError, MachineError
from cloudlab.machine.config import Accel, MachineConfig, qemu_argv, qemu_program
from cloudlab.machine.network import Passt
from cloudlab.machine.registry import Entry
from cloudlab.tools import clean_environment, find_tool

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

#: Seconds QEMU may take from its start to its first word on QMP.
LAUNCH_TIMEOUT_S = 30.0

#: Seconds from asking the supervisor to end QEMU until it must have happened.
END_TIMEOUT_S = 5.0

#: Exit code of a QEMU that could not be started, as in a shell.
NOT_STARTED = 126

#: Seconds that QEMU's last words may take after its end.
_LAST_WORDS_S = 1.0

_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class MachineEnd:
    """How QEMU ended.

    Attributes
    ----------
    returncode : int
        Negative for a signal.
    stderr : str
        Its last words.
    stopped : bool
        Whether ``cloudlab stop``, or a signal to the supervisor, ended it.
    """

    returncode: int
    stderr: str
    stopped: bool = False


class Machine(contextlib.AbstractAsyncContextManager["Machine"]):
    """A QEMU process as an asynchronous context manager.

    Leaving the block ends QEMU, whatever happened in it, and deletes the files that the
    entry names; ending it twice is harmless.  When this process dies instead of leaving the
    block, the supervisor does the same.

    Parameters
    ----------
    config : MachineConfig
    entry : Entry
        Closed on leaving the block.

    Attributes
    ----------
    qemu_pid : int
        0 before the launch.
    slot : int or None
        An open file that QEMU inherits, to keep its lock; see :mod:`cloudlab.machine.slots`.
    end : MachineEnd or None
        How QEMU ended, once it did.
    events : deque of mapping
        What QEMU itself reports about the guest, as in QMP: ``event`` is the name (``RESET``,
        ``BLOCK_IO_ERROR`` ...), ``data`` has the details.  Filled while the machine runs; take
        them from the left.
    """

    def __init__(self, config: MachineConfig, entry: Entry) -> None:
        self.config = config
        self.qemu_pid = 0
        self.slot: int | None = None
        self.end: MachineEnd | None = None
        self.events: deque[Mapping[str, Any]] = deque()
        self._entry = entry
        self._process: asyncio.subprocess.Process | None = None
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._qmp: QMPClient | None = None
        self._passt: Passt | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.stop()
            await self._let_go()
        finally:
            self._entry.close()

    async def launch(self) -> None:
        """Start QEMU and wait for its first word.

        Raises
        ------
        ToolNotFoundError, LaunchError
            With QEMU's own words.
        """
        try:
            await asyncio.wait_for(self._launch(), LAUNCH_TIMEOUT_S)
        except TimeoutError:
            raise LaunchError(
                f"QEMU was started but did not answer within {LAUNCH_TIMEOUT_S:g} s; it was ended.",
                hint="Run 'cloudlab doctor' to see which accelerator works here.",
            ) from None

    async def read_console(self) -> bytes:
        """Return what the guest wrote since the last call; waits for it; empty at the end."""
        assert self._process is not None
        assert self._process.stdout is not None
        return await self._process.stdout.read(_READ_BYTES)

    async def command(self, name: str, **arguments: Any) -> Any:
        """Run a QMP command and return its answer.

        Raises
        ------
        MachineError
            With QEMU's words.
        """
        from qemu.qmp import ExecuteError, QMPError

        assert self._qmp is not None
        words = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            return await self._qmp.execute(name, words or None)
        except (ExecuteError, QMPError) as error:
            raise MachineError(f"QEMU refused {name}: {error}.") from error

    def pass_file(self, file: BinaryIO) -> None:
        """Send an open file to QEMU, for the next command that takes one."""
        assert self._qmp is not None
        self._qmp.send_fd_scm(file.fileno())

    async def wait(self) -> MachineEnd:
        """Wait until QEMU ended and return how; all its events are there by then."""
        await self._ended.wait()
        await self._hang_up()
        assert self.end is not None
        return self.end

    async def stop(self) -> None:
        """End QEMU and wait until it is gone; idempotent.  Its files are still there."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(b"end\n")
        try:
            await asyncio.wait_for(self._ended.wait(), END_TIMEOUT_S)
        except TimeoutError:
            self._kill_qemu()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await self._ended.wait()
        await self._hang_up()

    async def _let_go(self) -> None:
        process, self._process = self._process, None
        passt, self._passt = self._passt, None
        if passt is not None:
            await asyncio.to_thread(passt.close)
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            # A child with output that nobody reads does not count as ended.
            assert process.stdout is not None
            while await process.stdout.read(_READ_BYTES):
                pass
            await process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _kill_qemu(self) -> None:
        if self.qemu_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.qemu_pid, signal.SIGKILL)

    async def _hang_up(self) -> None:
        """Close the connection to a QEMU that ended, after its last events."""
        from qemu.qmp import Runstate

        qmp, self._qmp = self._qmp, None
        if qmp is None:
            return
        if qmp.runstate is Runstate.RUNNING:
            # The end of the connection comes behind the last event.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(qmp.runstate_changed(), _LAST_WORDS_S)
        with contextlib.suppress(Exception):
            # The connection broke when QEMU ended; its complaint is no news.
            await qmp.disconnect()
        self.events.extend(qmp.events.clear())
        for task in self._tasks[1:]:
            task.cancel()

    async def _launch(self) -> None:
        from qemu.qmp import QMPClient, QMPError

        qemu = find_tool(qemu_program(self.config.arch))
        if self.config.passt:
            self._passt = await asyncio.to_thread(Passt)
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as ours_if_it_fails:
            ours_if_it_fails.callback(ours.close)
            with theirs:
                await self._start_supervisor(str(qemu), theirs.fileno())
            if self._passt is not None:
                self._passt.socket.close()
            await self._started.wait()
            self._entry.dismiss_guard()
            if self.end is not None:
                raise _launch_error(self.end, self.config.accel)
            self._qmp = QMPClient(self.config.name)
            # Its log repeats, at error level, every connection that ends with its QEMU.
            self._qmp.logger.disabled = True
            try:
                await self._qmp.connect(ours)
            except QMPError:
                raise _launch_error(await self.wait(), self.config.accel) from None
            ours_if_it_fails.pop_all()
        self._tasks.append(asyncio.create_task(self._watch_events(self._qmp)))

    async def _start_supervisor(self, qemu: str, qmp_fd: int) -> None:
        net_fd = self._passt.socket.fileno() if self._passt else 0
        fds = [qmp_fd, net_fd] if net_fd else [qmp_fd]
        fds += [] if self.slot is None else [self.slot]
        user = other_user(self.config)
        files = self.config.files() if user else {}
        names = {path: f"/dev/fdset/{number}" for number, path in enumerate(files, start=1)}
        argv = qemu_argv(self.config, qmp_fd=qmp_fd, net_fd=net_fd, names=names)
        supervisor = self._entry.supervisor_argv(
            argv=[qemu, *argv],
            fds=fds,
            files={str(path): writable for path, writable in files.items()},
            user=user,
        )
        self._process = await asyncio.create_subprocess_exec(
            *supervisor,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(*fds, self._entry.fileno()),
            start_new_session=True,
            env=clean_environment(),
        )
        self._tasks.append(asyncio.create_task(self._listen(self._process)))

    async def _listen(self, supervisor: asyncio.subprocess.Process) -> None:
        assert supervisor.stderr is not None
        strange = []
        try:
            async for line in supervisor.stderr:
                try:
                    said = json.loads(line)
                except ValueError:
                    strange.append(line.decode(errors="replace"))
                    continue
                if "qemu_pid" in said:
                    self.qemu_pid = said["qemu_pid"]
                elif "failed" in said:
                    self.end = MachineEnd(NOT_STARTED, said["failed"])
                else:
                    self.end = MachineEnd(**said)
                    self._ended.set()
                self._started.set()
        finally:
            if self.end is None:
                # The supervisor was killed; where no kernel ends QEMU with it, this is sooner.
                self._kill_qemu()
                self.end = MachineEnd(-signal.SIGKILL, "".join(strange))
            self._started.set()
            self._ended.set()

    async def _watch_events(self, qmp: QMPClient) -> None:
        async for event in qmp.events:
            self.events.append(event)


def other_user(config: MachineConfig) -> dict[str, Any] | None:
    """Return whom QEMU runs as where root starts it; None where it stays the user it is.

    QEMU then gets its files as open descriptors, because that user may open none of them.
    """
    if not platforms.is_linux() or os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
        device = Path("/dev/kvm").stat() if config.accel is Accel.KVM else None
    except (KeyError, OSError):
        return None
    groups = []
    if device is not None and device.st_mode & 0o006 != 0o006:  # noqa: PLR2004 (others' rights)
        if device.st_mode & 0o060 != 0o060:  # noqa: PLR2004 (the group's)
            return None
        groups = [device.st_gid]
    return {"uid": nobody.pw_uid, "gid": nobody.pw_gid, "groups": groups}


def _launch_error(end: MachineEnd, accel: Accel) -> LaunchError:
    words = end.stderr.strip().rstrip(".")
    hint = "Run 'cloudlab doctor' to check QEMU and the accelerator on this machine."
    if "CPUs" in words:
        hint = "Choose fewer CPUs (--cpus)."
    elif "memory" in words:
        hint = "Choose less memory (--memory), or close other programs."
    elif end.returncode == NOT_STARTED or "Could not open" in words:
        hint = "Check that the file is still there and that you may use it."
    elif end.returncode == -signal.SIGKILL:
        hint = "Check whether the host ran out of memory (its kernel log says so)."
    elif accel is not Accel.TCG:
        hint = (
            "Leave out --accel, or run 'cloudlab doctor --refresh' to see which accelerator works "
            "here."
        )
    if end.returncode == NOT_STARTED:
        return LaunchError(f"QEMU could not be started: {words}.", hint=hint)
    how = f"signal {-end.returncode}" if end.returncode < 0 else f"exit code {end.returncode}"
    return LaunchError(
        f"QEMU ended before the machine ran ({how}): {words or 'it said nothing'}.", hint=hint
    )
