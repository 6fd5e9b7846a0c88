"""Booting in a panel: a boot beside the notebook's kernel, and the panel that starts and shows it.

Two threads: one carries the boot out, the other, the only one that writes to widgets, looks at it
a few times a second.  The cell that started it has long returned, so the kernel stays free;
stopping only sets an event.
"""

from __future__ import annotations

import html
import itertools
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudlab.console import ORDER, REPORT_MARK, ConsoleLine, Stage
from cloudlab.course.prediction import Prediction
from cloudlab.course.runs import Mode, live_problem, mode
from cloudlab.errors import CloudlabError, InterruptedRunError
from cloudlab.html import escaped
from cloudlab.machine.slots import WAITING
from cloudlab.run.boot import boot_many, dated_folder
from cloudlab.run.monitor import OnEvent, RunEvent
from cloudlab.run.options import Options
from cloudlab.run.record import Outcome
from cloudlab.run.value import Run
from cloudlab.sizes import ConsoleParser, GuestBlock
from cloudlab.units import format_bytes, format_seconds
from cloudlab.widgets.panel import (
    Form,
    Pane,
    Panel,
    PredictionForm,
    button,
    error_html,
    field,
    origin,
)

_LOG = logging.getLogger("cloudlab.widgets")

#: Seconds between two looks; more often costs the browser more than it shows.
PERIOD_S = 0.3
#: Console lines that a pane holds.
LINES = 200
#: Seconds within which a change of the playing speed is noticed.
_SLICE_S = 0.1

_GOES_ON = ("launched", "resuming from a snapshot")
#: What comes before that.
_BEFORE = ("preparing", WAITING)

_SPEEDS = ("1", "5", "10", "25", "100")

#: A boot is called slow when it takes this much longer than usual.
_SLOW = 1.25
#: Seconds taken as usual where nothing is known.
_USUAL_S = 60.0
#: What a boot's last note means, for people.
_ENDS = {"done": "Done", "interrupted": "Stopped", "failed": "Failed"}
_BEGINS = {
    "preparing": "Preparing disk and seed",
    "resuming from a snapshot": "Resuming from a snapshot",
}

# What shows growth on a console: the kernel's and growpart's lines, and root in lsblk and df.
_GROWTH = re.compile(
    r"resizing filesystem|resized filesystem|growpart.*CHANGED|CHANGED: partition|resized: changed"
)

Pace = Callable[[], float]


#: Carries a boot out and returns its run; None where nothing was recorded.
Job = Callable[[OnEvent, threading.Event], Run | None]


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


def live_job(options: Options, folder: Path, enlarge: threading.Event | None) -> Job:
    """Return a job that boots a machine and records it in ``folder``; see :func:`boot_many`."""

    def boot(on_event: OnEvent, cancel: threading.Event) -> Run:
        jobs = [(options, folder)]
        [run] = boot_many(jobs, on_event=on_event, cancel=cancel, enlarge=enlarge, numbered=True)
        return run

    return boot


def replay_job(recording: Run, pace: Pace) -> Job:
    """Return a job that plays a recording, ``pace()`` times as fast as it was."""

    def play(on_event: OnEvent, cancel: threading.Event) -> Run:
        name, last = recording.name, ORDER[0]
        on_event(RunEvent(name, note="launched"))
        position_s = 0.0
        for event in replay_events(recording):
            _wait(event.time_s - position_s, pace, cancel)
            position_s, last = event.time_s, event.stage
            on_event(event)
        end_s = recording.record.time_s or position_s
        _wait(end_s - position_s, pace, cancel)
        on_event(RunEvent(name, end_s, last, note=str(recording.outcome)))
        return recording

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
        Called after that with the run, if one was recorded, and what went wrong, if anything.
    pace : callable, optional
        How fast a recording plays; a live boot goes by the clock of this host.
    """

    def __init__(
        self,
        job: Job,
        *,
        show: Callable[[Snapshot], None],
        done: Callable[[Run | None, CloudlabError | None], None],
        pace: Pace | None = None,
    ) -> None:
        self._job, self._show, self._done, self._pace = job, show, done, pace
        self._cancel = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._lines: deque[ConsoleLine] = deque(maxlen=LINES)
        self._blocks: list[GuestBlock] = []
        self._last = RunEvent("")
        self._last_at_s = self._launched_at_s = time.monotonic()
        self._time_s = self._expected_s = 0.0
        self._note = "preparing"
        self._run: Run | None = None
        self._error: CloudlabError | None = None
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
                if self._note.startswith(_BEFORE) and event.note in _GOES_ON:
                    self._launched_at_s = self._last_at_s
                self._note = event.note
            self._expected_s = event.expected_s or self._expected_s
            if event.line is not None:
                self._lines.append(event.line)
            if event.block is not None:
                self._blocks.append(event.block)

    def _work(self) -> None:
        try:
            self._run = self._job(self._take, self._cancel)
            # What went wrong in a recording is part of what it shows.
            self._error = self._run.error if self._run and self._pace is None else None
        except CloudlabError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - an exception in a thread would be lost
            _LOG.exception("a boot in the background failed")
            self._error = own_fault(error)
        finally:
            self._ended.set()

    def _write(self) -> None:
        while not self._ended.wait(PERIOD_S):
            self._show(self.snapshot())
        self.snapshot()
        if self._note.startswith((*_GOES_ON, *_BEFORE)):
            self._note = "interrupted" if self._cancel.is_set() else "failed"
        self._show(self.snapshot())
        self._done(self._run, self._error)


@dataclass(frozen=True)
class Plan:
    """What Boot would start now.

    Attributes
    ----------
    job : callable
    about : str
        What is booted or played, in words.
    done : callable
        Called from another thread with the run, None if it was interrupted or not recorded.
    usual_s : float or None
        How long a recording takes, in seconds of its own clock; None for a live boot.
    waits : bool
        Whether it waits for the user, so that nobody knows how long it takes.
    """

    job: Job
    about: str
    done: Callable[[Run | None], None]
    usual_s: float | None = None
    waits: bool = False


class BootPanel(Panel):
    """A panel that boots what :meth:`_plan` returns, and shows it.

    Parameters
    ----------
    folder : Path or str
        Where live runs are recorded.
    asks : bool
        Whether Boot is locked until there is a prediction.
    only_plays : bool
        Whether there is nothing to be booted here.
    fold : str
        Whether the console is ``open`` or ``closed`` at first.
    """

    def __init__(
        self, folder: Path | str, *, asks: bool, only_plays: bool = False, fold: str = "open"
    ) -> None:
        super().__init__()
        self._folder, self._asks, self._plays = Path(folder), asks, only_plays
        self._run: BackgroundRun | None = None
        choice = Mode(live=False, reason="") if only_plays else mode()
        self._reason = choice.reason
        speeds = [(one, f"{one} times as fast" if one != "1" else "as recorded") for one in _SPEEDS]
        self.boot_form = Form(
            "Boot",
            [
                button("boot", "Boot", primary=True),
                button("stop", "Stop"),
                field("live", "checkbox", "Boot a real machine (live)", choice.live),
                field("speed", "select", "Playing speed", "10", choices=speeds),
            ],
        )
        self.stage = Pane(role="status", name="Boot stage")
        self.progress = Pane(name="Progress", role="group")
        self.console = Pane(
            role="log", name="Serial console", look="console", folds=fold, summary="Console"
        )
        self.problem = Pane(role="alert", look="note")
        self.prediction_form = PredictionForm()
        self.prediction_form.on_values(self._show_buttons)
        self.boot_form.on_values(self._switch)
        self.boot_form.on_press(boot=self.boot, stop=self.stop)
        self.boot_form.change(live={"hidden": only_plays})
        self._show_source()
        self._show_buttons()

    def _plan(self) -> Plan:
        """Return what Boot would start now; a CloudlabError that this raises is shown."""
        raise NotImplementedError

    def _missing(self) -> tuple[str, str]:
        """Return what must be done before Boot can be pressed, and why; empty if nothing."""
        problem = self.prediction_form.problem() if self._asks else ""
        return ("predict first" if problem else ""), problem

    def _switched(self) -> None:
        """React to a switch between live and recorded runs."""

    def _watch(self, now: Snapshot) -> None:
        """React to a moment of the boot."""

    @property
    def live(self) -> bool:
        """Whether Boot boots a real machine."""
        return bool(self.boot_form.values["live"])

    @property
    def prediction(self) -> Prediction:
        """What was predicted in this panel; may be empty."""
        return self.prediction_form.prediction()

    @property
    def running(self) -> bool:
        """Whether a boot goes on."""
        return self._run is not None and self._run.running

    def boot(self) -> None:
        """Press Boot: start a boot in the background, unless one goes on."""
        with self._lock:
            if self.running or self._missing()[0]:
                return
            self.problem.html = ""
            try:
                plan = self._plan()
            except CloudlabError as error:
                self.problem.html = error_html(error)
                return
            self._run = BackgroundRun(
                plan.job,
                show=lambda snapshot: self._show(plan, snapshot),
                done=lambda run, error: self._finish(plan, run, error),
                pace=None if plan.usual_s is None else self._pace,
            )
            self._run.start()
            self._show_buttons()

    def stop(self) -> None:
        """Press Stop: end the boot soon; returns at once."""
        with self._lock:
            if self._run is not None:
                self._run.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the boot's end; return whether it came."""
        run = self._run
        return run is None or run.wait(timeout_s)

    def settle(self) -> None:
        """Wait for a boot that goes on, and say so: what follows is about its run."""
        run = self._run
        if run is not None and run.running:
            print(f"Waiting for the boot, which is in stage {run.snapshot().stage} ...")  # noqa: T201
            while not run.wait(0.2):
                pass

    def _playing(self, recording: Run, done: Callable[[Run | None], None]) -> Plan:
        usual_s = recording.record.time_s or 0.0
        return Plan(replay_job(recording, self._pace), origin(recording), done, usual_s)

    def _booting(
        self,
        options: Options,
        done: Callable[[Run | None], None],
        enlarge: threading.Event | None = None,
    ) -> Plan:
        job = live_job(options, dated_folder(options.scenario, self._folder), enlarge)
        disk = format_bytes(options.disk_size_bytes)
        about = f"Booting {options.image.name} with a disk of {disk}"
        return Plan(job, about, done, waits=options.enlarge_to_bytes is not None)

    def _pace(self) -> float:
        return float(self.boot_form.values["speed"])

    def _switch(self) -> None:
        problem = live_problem() if self.live else ""
        if problem:
            self._reason = f"this host cannot boot: {problem}"
            self.boot_form.values = {**self.boot_form.values, "live": False}
        elif self.live:
            self._reason = ""
        self._show_source()
        self._show_buttons()
        self._switched()

    def _show_source(self) -> None:
        note = "Boot starts QEMU on this computer."
        if not self.live:
            note = f"Boot plays a recording{f' ({self._reason})' if self._reason else ''}."
        self.boot_form.change(live={"help": note}, speed={"hidden": self.live})

    def _show_buttons(self) -> None:
        running, (missing, why) = self.running, self._missing()
        word = "Play" if self._plays else "Boot" if self.live else "Boot (recorded)"
        label = f"{word}: {missing}" if missing else word
        self.boot_form.change(
            boot={"disabled": running or bool(missing), "label": label, "help": why},
            stop={"disabled": not running},
        )

    def _show(self, plan: Plan, now: Snapshot) -> None:
        usual_s = plan.usual_s or now.expected_s or _USUAL_S
        clock = format_seconds(now.time_s)
        if now.note in _ENDS:
            self.stage.html = (
                f"<b>{_ENDS[now.note]}</b> after {clock}, in stage {escaped(now.stage)}"
            )
            self.progress.html = ""
        else:
            waits = now.note.capitalize() if now.note.startswith(_BEFORE) else ""
            begins = _BEGINS.get(now.note, waits)
            stage = begins if begins and not now.lines else str(now.stage)
            slow = plan.usual_s is None and not plan.waits and now.time_s > _SLOW * usual_s
            self.stage.html = f"<b>{escaped(stage)}</b>" + ", slower than usual" * slow
            self.progress.html = (
                f'<progress max="{usual_s:.1f}" value="{min(now.time_s, usual_s):.1f}" '
                f'aria-label="Time of the boot"></progress> {clock}'
                f"{' of' if plan.usual_s else ', usually'} {format_seconds(usual_s)}"
                f"<br><small>{escaped(plan.about)}</small>"
            )
        self.show_console(now.lines)
        try:
            self._watch(now)
        except Exception:  # noqa: BLE001 - a guest's report must not end the thread that shows it
            _LOG.exception("a part of the guest's report could not be shown")

    def show_console(self, lines: Iterable[ConsoleLine]) -> None:
        """Show console lines, and the last one that is not empty beside the fold's name."""
        lines = tuple(lines)
        spoken = (one for one in reversed(lines) if one.text.strip() and REPORT_MARK not in one.raw)
        last = next((one.text for one in spoken), "")
        self.console.summary = f"Console <code>{html.escape(last[:110])}</code>"
        self.console.html = console_html(lines)

    def _finish(self, plan: Plan, run: Run | None, error: CloudlabError | None) -> None:
        try:
            if run is not None:
                # All of it, so that evidence finds its line.
                self.show_console(run.console)
            plan.done(run if run is None or run.outcome is not Outcome.INTERRUPTED else None)
        except Exception as fault:  # noqa: BLE001 - an exception in a thread would be lost
            _LOG.exception("the result of a boot could not be shown")
            error = error or (fault if isinstance(fault, CloudlabError) else own_fault(fault))
        finally:
            if error is not None:
                self.problem.html = error_html(error)
            with self._lock:
                self._run = None
                self._show_buttons()

    def close(self) -> None:
        """Stop what goes on and close the panel."""
        self.stop()
        super().close()


def console_html(lines: Iterable[ConsoleLine]) -> str:
    """Return console lines with their numbers: growth marked, the exact report's frames folded."""
    parts = []
    for framed, group in itertools.groupby(lines, key=lambda line: REPORT_MARK in line.raw):
        shown = list(group)
        text = "\n".join(_line_html(line) for line in shown)
        if framed:
            text = f"<details><summary>{len(shown)} lines of the exact report</summary>{text}</details>"
        parts.append(text if framed else f"{text}\n")
    return f"<pre>{''.join(parts)}</pre>" if parts else ""


def _line_html(line: ConsoleLine) -> str:
    text = f"<i>{line.number:>5}</i> {html.escape(line.text)}"
    grew = _GROWTH.search(line.text) and REPORT_MARK not in line.raw
    return f'<span data-number="{line.number}">{f"<mark>{text}</mark>" if grew else text}</span>'
