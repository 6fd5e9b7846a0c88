"""A boot beside the notebook's kernel: live or played, watched through the same events.

Two threads: one carries the boot out, the other, the only one that writes to widgets,
looks at it a few times a second.  The cell that started it has long returned, so the
kernel stays free; stopping only sets an event.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudlab.console import ORDER, ConsoleLine, Stage
from cloudlab.errors import CloudlabError, InterruptedRunError
from cloudlab.run.boot import boot_many
from cloudlab.run.monitor import OnEvent, RunEvent
from cloudlab.run.options import Options
from cloudlab.run.value import Run
from cloudlab.sizes import ConsoleParser, GuestBlock

_LOG = logging.getLogger("cloudlab.widgets")

#: Seconds between two looks; more often costs the browser more than it shows.
PERIOD_S = 0.3

#: Console lines that a pane holds.
LINES = 200

#: Seconds within which a change of the playing speed is noticed.
_SLICE_S = 0.1

_GOES_ON = ("launched", "resuming from a snapshot")

Pace = Callable[[], float]


@dataclass(frozen=True)
class Outcome:
    """How a boot ended: its run, None where nothing was recorded, and what went wrong."""

    run: Run | None
    error: CloudlabError | None = None


Job = Callable[[OnEvent, threading.Event], Outcome]


@dataclass(frozen=True)
class Snapshot:
    """A boot at one moment.

    Attributes
    ----------
    stage : Stage
    time_s : float
        Seconds since launch, of a recorded boot on the clock of its day.
    lines : tuple of ConsoleLine
        The last :data:`LINES` of the console.
    note : str
        What cloudlab itself did last (``preparing``, ``launched``, ``done`` ...).
    expected_s : float
        How long such a boot usually takes; 0 where that is not known.
    blocks : tuple of GuestBlock
        What the guest has measured.
    """

    stage: Stage = ORDER[0]
    time_s: float = 0.0
    lines: tuple[ConsoleLine, ...] = ()
    note: str = "preparing"
    expected_s: float = 0.0
    blocks: tuple[GuestBlock, ...] = ()


def live_job(options: Options, folder: Path) -> Job:
    """Return a job that boots a machine and records it in ``folder``."""

    def boot(on_event: OnEvent, cancel: threading.Event) -> Outcome:
        jobs = [(options, folder)]
        [run] = boot_many(jobs, on_event=on_event, cancel=cancel, numbered=True)
        return Outcome(run, run.error)

    return boot


def replay_job(recording: Run, pace: Pace) -> Job:
    """Return a job that plays a recording, ``pace()`` times as fast as it was."""

    def play(on_event: OnEvent, cancel: threading.Event) -> Outcome:
        name, last = recording.name, ORDER[0]
        on_event(RunEvent(name, 0.0, last, note="launched"))
        position_s = 0.0
        for event in replay_events(recording):
            _wait(event.time_s - position_s, pace, cancel)
            position_s, last = event.time_s, event.stage
            on_event(event)
        end_s = recording.record.time_s or position_s
        _wait(end_s - position_s, pace, cancel)
        on_event(RunEvent(name, end_s, last, note=str(recording.outcome)))
        return Outcome(recording)

    return play


def replay_events(recording: Run) -> Iterator[RunEvent]:
    """Yield the events of a recorded boot, as a live one would send them.

    Raises
    ------
    RunError
        If the recorded console cannot be read.
    """
    parser = ConsoleParser(recording.record.nonce)
    for line in recording.console:
        stage, block = recording.stage_at(line.time_s), parser.feed(line.raw, line.number)
        yield RunEvent(recording.name, line.time_s, stage, line, block=block)


def _wait(recorded_s: float, pace: Pace, cancel: threading.Event) -> None:
    """Wait for a recorded time at the pace that holds meanwhile."""
    while True:
        speed = pace()
        if cancel.wait(max(0.0, min(recorded_s / speed, _SLICE_S))):
            raise InterruptedRunError("The playback was stopped.")
        recorded_s -= speed * _SLICE_S
        if recorded_s <= 0:
            return


def own_fault(error: Exception) -> CloudlabError:
    """Return an unexpected error as one that a panel shows."""
    return CloudlabError(
        f"An error in cloudlab itself: {type(error).__name__}: {error}",
        hint="Please report it with the notebook's log.",
    )


class BackgroundRun:
    """One boot in the background.

    Parameters
    ----------
    job : callable
        Carries the boot out; see :func:`live_job` and :func:`replay_job`.
    show : callable
        Called with a :class:`Snapshot` every :data:`PERIOD_S` seconds and once at the end.
    done : callable
        Called with the :class:`Outcome` after that.
    pace : callable, optional
        How fast a recording plays; a live boot goes by the clock of this host.
    """

    def __init__(
        self,
        job: Job,
        *,
        show: Callable[[Snapshot], None],
        done: Callable[[Outcome], None],
        pace: Pace | None = None,
    ) -> None:
        self._job, self._show, self._done, self._pace = job, show, done, pace
        self._cancel = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._lines: deque[ConsoleLine] = deque(maxlen=LINES)
        self._blocks: list[GuestBlock] = []
        self._last = RunEvent("", 0.0, ORDER[0])
        self._last_at_s = self._launched_at_s = time.monotonic()
        self._time_s = self._expected_s = 0.0
        self._note = "preparing"
        self._outcome = Outcome(None)
        # Daemons: an interpreter that exits does not wait for them, and the supervisors
        # end the machines that it leaves.
        self._worker = threading.Thread(target=self._work, name="cloudlab-boot", daemon=True)
        self._writer = threading.Thread(target=self._write, name="cloudlab-writer", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._worker.start()
        self._writer.start()

    def stop(self) -> None:
        """End it soon; returns at once."""
        self._cancel.set()

    @property
    def running(self) -> bool:
        """Whether anything of it still goes on."""
        return self._writer.is_alive()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; return whether it came."""
        self._writer.join(timeout_s)
        return not self._writer.is_alive()

    def snapshot(self) -> Snapshot:
        """Return the boot as it is now."""
        with self._lock:
            now_s, last = time.monotonic(), self._last
            if self._pace is None and self._note in _GOES_ON:
                # One clock from the launch on: a boot that resumes, or that starts again
                # without its snapshot, begins to count anew in its events.
                self._time_s = now_s - self._launched_at_s
            elif self._pace is not None:
                ahead_s = (now_s - self._last_at_s) * self._pace()
                running = self._note in _GOES_ON
                self._time_s = max(self._time_s, last.time_s + ahead_s) if running else last.time_s
            return Snapshot(
                last.stage, self._time_s, tuple(self._lines), self._note, self._expected_s,
                tuple(self._blocks),
            )  # fmt: skip

    def _take(self, event: RunEvent) -> None:
        with self._lock:
            self._last, self._last_at_s = event, time.monotonic()
            if event.note and not event.is_remark:
                if self._note == "preparing" and event.note in _GOES_ON:
                    self._launched_at_s = self._last_at_s
                self._note = event.note
            self._expected_s = event.expected_s or self._expected_s
            if event.line is not None:
                self._lines.append(event.line)
            if event.block is not None:
                self._blocks.append(event.block)

    def _work(self) -> None:
        try:
            self._outcome = self._job(self._take, self._cancel)
        except CloudlabError as error:
            self._outcome = Outcome(None, error)
        except Exception as error:  # noqa: BLE001 - an exception in a thread would be lost
            _LOG.exception("a boot in the background failed")
            self._outcome = Outcome(None, own_fault(error))
        finally:
            self._ended.set()

    def _write(self) -> None:
        while not self._ended.wait(PERIOD_S):
            self._show(self.snapshot())
        self.snapshot()
        if self._note in (*_GOES_ON, "preparing"):
            self._note = "interrupted" if self._cancel.is_set() else "failed"
        self._show(self.snapshot())
        self._done(self._outcome)
