"""Watching one boot: from a machine's launch to the end of the guest's last report."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cloudlab.console import (
    REPORT_MARK,
    TRANSCRIPT_CAP_BYTES,
    BootWatcher,
    CastWriter,
    ConsoleLine,
    LineSplitter,
    Stage,
    Transcript,
)
from cloudlab.disk import allocated_bytes
from cloudlab.errors import (
    BootFailedError,
    ConsoleClosedError,
    ConsoleError,
    ConsoleTimeoutError,
    HostDiskError,
    InterruptedRunError,
    MachineError,
)
from cloudlab.machine.process import Machine, MachineEnd
from cloudlab.machine.slots import WAITING
from cloudlab.sizes import ConsoleParser, GuestBlock
from cloudlab.tools import Deadline

#: Seconds between two checks of what causes no event (cancellation, time, the overlay's size).
TICK_S = 0.2

#: Seconds of console that are still read after the proof of a failure, for the error's tail.
AFTERMATH_S = 2.0

#: Seconds that cloud-init gets to start once the guest is up, which normally comes later.
UP_PATIENCE_S = 30.0

#: Seconds of console after which a report's next line no longer comes: a guest prints it in one
#: go, so its end was damaged on the way.
REPORT_PATIENCE_S = 10.0

#: A guest that resets this often is in a boot loop.
RESETS_OF_A_LOOP = 3

#: Bytes of tables and frames that are read for sizes; a real guest prints some ten thousand.
REPORTS_CAP_BYTES = 2 << 20

#: The overlay's growth is recorded in steps of at least this.
OVERLAY_STEP_BYTES = 1 << 20

#: No snapshot is taken of a guest that wrote more than this before it read its seed.
CONSOLE_CAP_BYTES = 4 << 20


@dataclass(frozen=True)
class RunEvent:
    """Progress of a run, passed to ``on_event`` callbacks."""

    run: str
    #: Seconds since launch.
    time_s: float = 0.0
    #: The boot stage that the run is in.
    stage: Stage = Stage.FIRMWARE
    #: The console line that was just completed.
    line: ConsoleLine | None = None
    #: What cloudlab itself does (``preparing``, ``waiting for ...``, ``launched``, ``resuming from a
    #: snapshot``, and at the end the outcome), or a remark: ``warning: ...`` about the user-data or
    #: the network, ``accelerator: ...`` or ``network: ...``; else empty.
    note: str = ""
    #: At the launch: how long such a run usually takes, in seconds; else 0.
    expected_s: float = 0.0
    #: What the guest measured, if this line completed it.
    block: GuestBlock | None = None

    @property
    def is_remark(self) -> bool:
        """Whether the note is a warning or names a choice; a run goes on meanwhile."""
        return self.note.startswith(("warning: ", "accelerator: ", "network: "))

    @property
    def is_waiting(self) -> bool:
        """Whether the run waits for a slot that other users' machines take."""
        return self.note.startswith(WAITING)


#: The line with which ``report.sh enlarge`` asks for a larger disk.
ENLARGE_LINE = b"cloudlab: enlarge the disk"

#: Seconds after that line when the disk is enlarged without the event; the guest waits up to 180 s.
ENLARGE_PATIENCE_S = 120.0

#: What can be done after a run was stopped.
AFTER_STOP = "Its folder keeps what was recorded; to boot it again, choose another folder."

OnEvent = Callable[[RunEvent], None]
_Error = TypeVar("_Error", bound=ConsoleError)
_Result = TypeVar("_Result")


def ignore_events(_: RunEvent) -> None:
    """No-op progress callback."""


#: What a guest has written, with seconds since the launch.
Written = Sequence[tuple[float, bytes]]

#: Awaited with a machine that is paused at its guest's first access to the seed, the seconds
#: that it has run and what it has written, up to :data:`CONSOLE_CAP_BYTES`; when it returns, the
#: machine continues.
OnPause = Callable[[Machine, "BootLog", float, Written], Coroutine[Any, Any, None]]


async def unless_stopped(
    work: Coroutine[Any, Any, _Result], stop: threading.Event, run: str
) -> _Result:
    """Return the result of ``work``, or cancel it when the run is stopped.

    Raises
    ------
    InterruptedRunError
        Also where ``work`` failed and the run was stopped: stopping breaks things in it.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done() and not stop.is_set():
            await asyncio.wait({task}, timeout=TICK_S)
    finally:
        task.cancel()
        # What it holds must be released before anything else continues.
        await asyncio.gather(task, return_exceptions=True)
    if stop.is_set():
        raise InterruptedRunError(f"The run {run} was stopped.", hint=AFTER_STOP)
    return task.result()


@dataclass
class BootLog:
    """What a boot leaves in memory; the rest is in the run folder."""

    parser: ConsoleParser = field(default_factory=ConsoleParser)
    watcher: BootWatcher = field(default_factory=BootWatcher)
    #: Line of a report -> seconds since launch.
    times: dict[int, float] = field(default_factory=dict)
    #: Seconds since launch, allocated bytes.
    overlay_growth: list[tuple[float, int]] = field(default_factory=list)
    #: Seconds that the machine ran, including those before its snapshot was taken.
    time_s: float = 0.0
    #: Seconds from this run's launch to its end.
    took_s: float = 0.0
    #: How much the console wrote, and how much of that is beyond the transcript's cap.
    lines: int = 0
    bytes: int = 0
    dropped_bytes: int = 0


@dataclass
class BootMonitor:
    """Reads a machine's console until the last report is complete, or proves that it cannot be."""

    #: The run's name, for events.
    run: str
    #: Filled while the boot goes on, so that a failed one is recorded as well.
    log: BootLog
    _: KW_ONLY
    #: Where ``console.log`` and ``console.cast`` go.
    folder: Path
    overlay: Path
    #: How long the boot may take, and how long the console may be silent.
    timeout_s: float
    silence_s: float
    on_event: OnEvent
    cancel: threading.Event
    #: Awaited when the machine has paused at the guest's first access to the seed.
    on_pause: OnPause | None = None
    #: What the disk is enlarged to when the guest asks for it.
    enlarge_to_bytes: int | None = None
    #: Set once it may be enlarged, by the user or after the patience; None: as soon as the guest asks.
    enlarge: threading.Event | None = None

    _paused_at_s: float | None = field(default=None, init=False)
    _console: list[tuple[float, bytes]] = field(default_factory=list, init=False)
    _splitter: LineSplitter = field(default_factory=LineSplitter, init=False)
    _launched_s: float = field(default=0.0, init=False)
    _started_s: float = field(default=0.0, init=False)
    _heard_s: float = field(default=0.0, init=False)
    _resets: int = field(default=0, init=False)
    #: When the guest asked for a larger disk.
    _asked_s: float | None = field(default=None, init=False)
    _reports_bytes: int = field(default=0, init=False)
    #: Frames of the report after growth, whose end has not come, and when the last one came.
    _reported: tuple[int, float] = field(default=(0, 0.0), init=False)
    #: Why QEMU says that it ends, e.g. guest-shutdown or host-signal.
    _shutdown: str = field(default="", init=False)

    async def follow(self, machine: Machine, *, past: Written = (), past_s: float = 0.0) -> None:
        """Return when the report after growth is complete, or its end must have been damaged.

        ``past`` is what a resumed machine had written before, and ``past_s`` how many seconds
        it had run.

        Raises
        ------
        BootFailedError, HostDiskError, ConsoleTimeoutError, ConsoleClosedError
            Each with the last stage and the console's tail.
        InterruptedRunError
        """
        self._launched_s = time.monotonic()
        self._started_s = self._launched_s - past_s
        deadline = Deadline.after(self.timeout_s)
        title = f"cloudlab: {self.run}"
        with contextlib.ExitStack() as files:
            path = self.folder / "console.log"
            transcript = self._write(Transcript, path, cap_bytes=TRANSCRIPT_CAP_BYTES)
            files.enter_context(transcript)
            cast = self._write(CastWriter, self.folder / "console.cast", title=title)
            files.enter_context(cast)
            try:
                for time_s, written in past:
                    self._keep(time_s, written, transcript, cast)
                    self._take_chunk(time_s, written)
                while True:
                    chunk = await _next_chunk(machine)
                    self._take_events(machine)
                    if chunk == b"":
                        end = await machine.wait()
                        self._take_events(machine)
                        raise self._closed(end)
                    if chunk:
                        now_s = self._now_s()
                        self._keep(now_s, chunk, transcript, cast)
                        if self._take_chunk(now_s, chunk):
                            return
                    else:
                        self._write(cast.flush)
                        if self._paused_at_s is not None:
                            # Quiet for a tick: all that the guest wrote before has been read.
                            await self._pause(machine, self._paused_at_s)
                    await self._enlarge_disk(machine)
                    self._check(deadline)
                    if self._report_broke_off():
                        return
            finally:
                self.log.time_s = self._now_s()
                self.log.took_s = time.monotonic() - self._launched_s
                self.log.dropped_bytes = transcript.dropped_bytes

    def _now_s(self) -> float:
        return time.monotonic() - self._started_s

    async def _pause(self, machine: Machine, at_s: float) -> None:
        assert self.on_pause is not None
        on_pause, self.on_pause, self._paused_at_s = self.on_pause, None, None
        console, self._console = self._console, []
        await unless_stopped(on_pause(machine, self.log, at_s, console), self.cancel, self.run)
        # A machine that ended meanwhile has closed its console, which is reported with the reason.
        with contextlib.suppress(MachineError):
            await machine.command("cont")
        # The machine's clock stood still meanwhile.
        self._started_s += self._now_s() - at_s

    async def _enlarge_disk(self, machine: Machine) -> None:
        """Enlarge the disk once the guest has asked for it and the user allows it."""
        if self._asked_s is None or self.enlarge_to_bytes is None:
            return
        now_s = self._now_s()
        allowed = self.enlarge is None or self.enlarge.is_set()
        if not allowed and now_s < self._asked_s + ENLARGE_PATIENCE_S:
            self._heard_s = now_s  # the guest is silent because it waits
            return
        if self.enlarge is not None:
            self.enlarge.set()
        size_bytes, self.enlarge_to_bytes = self.enlarge_to_bytes, None
        await machine.command("block_resize", node_name="disk", size=size_bytes)

    def _keep(self, time_s: float, chunk: bytes, transcript: Transcript, cast: CastWriter) -> None:
        if self.on_pause is not None and self.log.bytes < CONSOLE_CAP_BYTES:
            self._console.append((time_s, chunk))
        self._write(transcript.write, chunk)
        self._write(cast.write, time_s, chunk)

    def _write(self, write: Callable[..., _Result], *what: object, **more: object) -> _Result:
        try:
            return write(*what, **more)
        except OSError as error:
            raise self._host_disk(
                "the console could not be recorded",
                str(error.strerror),
                full=error.errno in {errno.ENOSPC, errno.EDQUOT},
            ) from error

    def _take_chunk(self, now_s: float, chunk: bytes) -> bool:
        """Return whether the report after growth is complete."""
        log = self.log
        self._heard_s = now_s
        log.bytes += len(chunk)
        complete = False
        for line in self._splitter.feed(chunk, now_s):
            log.lines = line.number
            log.watcher.feed(line)
            if self._asked_s is None and line.raw.rstrip() == ENLARGE_LINE:
                self._asked_s = now_s
            block = self._take_sizes(line)
            complete = complete or (block is not None and block.stage == "after" and block.ended)
            frames = log.parser.frames_so_far("after")
            if frames != self._reported[0]:
                self._reported = frames, now_s
            passed_s = time.monotonic() - self._launched_s
            self.on_event(RunEvent(self.run, passed_s, log.watcher.stage, line, block=block))
        log.watcher.feed_unfinished(self._splitter.unfinished(now_s))
        return complete

    def _take_sizes(self, line: ConsoleLine) -> GuestBlock | None:
        """Return the part of the guest's report that this line completes, if any."""
        parser = self.log.parser
        begun = parser.busy
        block = parser.feed(line.raw, line.number)
        if begun or parser.busy or REPORT_MARK in line.raw:
            self.log.times[line.number] = line.time_s
            self._reports_bytes += len(line.raw)
            # Sizes are kept in memory, and a guest may print tables without end.
            if self._reports_bytes > REPORTS_CAP_BYTES:
                raise self._failed(
                    "the guest prints tables of sizes without end",
                    "Check whether its user-data runs lsblk or df in a loop.",
                )
        return block

    def _report_broke_off(self) -> bool:
        frames, last_s = self._reported
        return frames > 0 and self._now_s() >= last_s + REPORT_PATIENCE_S

    def _take_events(self, machine: Machine) -> None:
        while machine.events:
            self._take_event(machine.events.popleft())

    def _take_event(self, event: Mapping[str, Any]) -> None:
        name, data = event["event"], event.get("data", {})
        if name == "BLOCK_IO_ERROR":
            node = data.get("node-name")
            if self.on_pause is not None and node == "seed":
                self._paused_at_s = self._now_s()
                return
            raise self._host_disk(
                f"the guest's {data.get('operation', 'access')} of its {node or 'disk'} failed",
                str(data.get("reason", "no reason given")),
                full=bool(data.get("nospace")),
            )
        if name == "RESET" and data.get("guest"):
            self._resets += 1
            if self._resets >= RESETS_OF_A_LOOP:
                raise self._failed(
                    f"the guest reboots in a loop ({self._resets} times so far)",
                    "See in the console's last lines what it does before it reboots; try more memory "
                    "(--memory 2G) or the other --firmware.",
                )
        if name == "SHUTDOWN":
            self._shutdown = str(data.get("reason", ""))

    def _check(self, deadline: Deadline) -> None:
        """Raise what ends the run, and record the overlay's growth."""
        if self.cancel.is_set():
            raise InterruptedRunError(f"The run {self.run} was stopped.", hint=AFTER_STOP)
        now_s = self._now_s()
        growth, size = self.log.overlay_growth, allocated_bytes(self.overlay)
        if not growth or size - growth[-1][1] >= OVERLAY_STEP_BYTES:
            growth.append((now_s, size))
        self._check_console(now_s)
        if deadline.expired:
            raise self._error(
                ConsoleTimeoutError,
                f"The guest's report did not come within {self.timeout_s:g} s; "
                "the machine was ended.",
                "Give a slow machine more time with --timeout.",
            )
        if now_s - self._heard_s > self.silence_s:
            raise self._error(
                ConsoleTimeoutError,
                f"The guest has written nothing for {self.silence_s:g} s; the machine was ended.",
                "Use an image that writes to its serial console; cloudlab cannot watch another.",
            )

    def _check_console(self, now_s: float) -> None:
        watcher = self.log.watcher
        if watcher.failure is not None and now_s >= watcher.failure.time_s + AFTERMATH_S:
            raise self._failed(watcher.failure.reason, watcher.failure.hint)
        if (
            watcher.up_s is not None
            and not watcher.cloud_init_seen
            and now_s >= watcher.up_s + UP_PATIENCE_S
        ):
            raise self._failed(
                "the guest came up and cloud-init did not run: it found no "
                "seed, or the image has no cloud-init",
                "Use an image with cloud-init, and a seed with the volume label cidata.",
            )

    def _failed(self, reason: str, hint: str) -> BootFailedError:
        return self._error(BootFailedError, f"The boot cannot finish: {reason}.", hint)

    def _host_disk(self, what: str, reason: str, *, full: bool) -> HostDiskError:
        words = "host disk full" if full else f"The host's disk failed ({reason})"
        return self._error(
            HostDiskError,
            f"{words}: {what}, in {self.folder}; the machine was ended.",
            "Free some space there, or choose another disk with --output."
            if full
            else "Check that the folder is still there and can be written, and read the host's kernel "
            "log.",
        )

    def _closed(self, end: MachineEnd) -> ConsoleError:
        failure = self.log.watcher.failure
        if failure is not None:
            return self._failed(failure.reason, failure.hint)
        if self._shutdown == "guest-shutdown":
            how = "The guest powered off before its report was complete"
            hint = "Check whether its user-data powers it off."
        elif end.stopped:
            how = "The machine was stopped from outside"
            hint = "'cloudlab stop' or a signal ended it; boot it again if that was not intended."
        elif end.returncode < 0 or self._shutdown == "host-signal":
            how = "QEMU was killed from outside"
            how += f" (signal {-end.returncode})" if end.returncode < 0 else ""
            hint = "Check whether the host ran out of memory (its kernel log says so)."
        else:
            output = end.stderr.strip() or "no output"
            how = f"QEMU ended with exit code {end.returncode}: {output}"
            hint = "Run 'cloudlab doctor' to check QEMU on this machine."
        return self._error(ConsoleClosedError, f"{how}.", hint)

    def _error(self, kind: type[_Error], message: str, hint: str) -> _Error:
        watcher = self.log.watcher
        return kind(message, stage=watcher.stage.value, tail=watcher.tail, hint=hint)


async def _next_chunk(machine: Machine) -> bytes | None:
    """Return console output, empty bytes at its end, or None if it was quiet for a tick."""
    try:
        return await asyncio.wait_for(machine.read_console(), TICK_S)
    except TimeoutError:
        return None
