"""The part of a panel that boots: where from, Boot and Stop, how far it is, its console."""

from __future__ import annotations

import html
import itertools
import logging
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cloudlab.console import REPORT_MARK, ConsoleLine
from cloudlab.course.runs import Mode, live_problem, mode
from cloudlab.errors import CloudlabError
from cloudlab.html import escaped
from cloudlab.units import format_seconds
from cloudlab.widgets.background import BackgroundRun, Job, Outcome, Pace, Snapshot, own_fault
from cloudlab.widgets.native import Form, Pane, button, field
from cloudlab.widgets.panel import Panel
from cloudlab.widgets.prediction_form import PredictionForm

_LOG = logging.getLogger("cloudlab.widgets")

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


@dataclass(frozen=True)
class Plan:
    """What Boot would start now.

    Attributes
    ----------
    job : callable
    about : str
        What is booted or played, in words.
    done : callable
        Called with the outcome, from another thread.
    usual_s : float or None
        How long a recording takes, in seconds of its own clock; None for a live boot.
    """

    job: Job
    about: str
    done: Callable[[Outcome], None]
    usual_s: float | None = None


class BootPart:
    """Boots what ``plan`` says, and shows it.

    Parameters
    ----------
    plan : callable
        ``plan(live, pace)``; may raise a CloudlabError, which is shown.
    changed : callable
        Called when live and recorded runs are switched.
    watch : callable
        Called with each :class:`~cloudlab.widgets.background.Snapshot` of a boot.
    after : callable
        Called once Boot may be pressed again, for what takes time.
    only_plays : bool
        Whether there is nothing to be booted here.
    console : str
        Whether the console is ``open`` or ``closed`` at first.
    """

    def __init__(
        self,
        plan: Callable[[bool, Pace], Plan],
        *,
        changed: Callable[[], None] = lambda: None,
        watch: Callable[[Snapshot], None] = lambda _: None,
        after: Callable[[], None] = lambda: None,
        only_plays: bool = False,
        console: str = "open",
    ) -> None:
        self._plan, self._changed, self._watch, self._after = plan, changed, watch, after
        self._lock = threading.RLock()
        self._run: BackgroundRun | None = None
        self._plays, self._missing, self._help = only_plays, "", ""
        choice = Mode(live=False, reason="") if only_plays else mode()
        self._reason = choice.reason
        speeds = [(one, f"{one} times as fast" if one != "1" else "as recorded") for one in _SPEEDS]
        self.form = Form(
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
            role="log", name="Serial console", look="console", folds=console, summary="Console"
        )
        self.problem = Pane(role="alert", look="note")
        self.form.on_values(self._switched)
        self.form.on_press(boot=self.boot, stop=self.stop)
        self.form.change(live={"hidden": only_plays})
        self._show_source()
        self._show_buttons()

    @property
    def live(self) -> bool:
        """Whether Boot boots a real machine."""
        return bool(self.form.values["live"])

    @property
    def running(self) -> bool:
        """Whether a boot goes on."""
        return self._run is not None and self._run.running

    def unlock(self, missing: str = "", why: str = "") -> None:
        """Unlock Boot, unless something is missing, which its label then says."""
        self._missing, self._help = missing, why
        self._show_buttons()

    def need(self, form: PredictionForm) -> None:
        """Lock Boot until a prediction was made."""
        problem = form.problem()
        self.unlock("predict first" if problem else "", problem)

    def boot(self) -> None:
        """Start a boot in the background, unless one goes on."""
        with self._lock:
            if self.running or self._missing:
                return
            self.problem.html = ""
            try:
                plan = self._plan(self.live, self._pace)
            except CloudlabError as error:
                self.problem.html = error_html(error)
                return
            self._run = BackgroundRun(
                plan.job,
                show=lambda snapshot: self._show(plan, snapshot),
                done=lambda outcome: self._finish(plan, outcome),
                pace=None if plan.usual_s is None else self._pace,
            )
            self._run.start()
            self._show_buttons()

    def stop(self) -> None:
        """End the boot soon; returns at once."""
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

    def _pace(self) -> float:
        return float(self.form.values["speed"])

    def _switched(self) -> None:
        problem = live_problem() if self.live else ""
        if problem:
            self._reason = f"this host cannot boot: {problem}"
            self.form.values = {**self.form.values, "live": False}
        elif self.live:
            self._reason = ""
        self._show_source()
        self._show_buttons()
        self._changed()

    def _show_source(self) -> None:
        note = "Boot starts QEMU on this computer."
        if not self.live:
            note = f"Boot plays a recording{f' ({self._reason})' if self._reason else ''}."
        self.form.change(live={"help": note}, speed={"hidden": self.live})

    def _show_buttons(self) -> None:
        running = self.running
        word = "Play" if self._plays else "Boot" if self.live else "Boot (recorded)"
        label = f"{word}: {self._missing}" if self._missing else word
        self.form.change(
            boot={"disabled": running or bool(self._missing), "label": label, "help": self._help},
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
            begins = _BEGINS.get(now.note, "")
            stage = begins if begins and not now.lines else str(now.stage)
            slow = plan.usual_s is None and now.time_s > _SLOW * usual_s
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

    def _finish(self, plan: Plan, outcome: Outcome) -> None:
        try:
            if outcome.run is not None:
                # All of it, so that evidence finds its line.
                self.show_console(outcome.run.console)
            plan.done(outcome)
        except Exception as error:  # noqa: BLE001 - an exception in a thread would be lost
            _LOG.exception("the result of a boot could not be shown")
            self.problem.html = error_html(
                error if isinstance(error, CloudlabError) else own_fault(error)
            )
        finally:
            if outcome.error is not None:
                self.problem.html = error_html(outcome.error)
            with self._lock:
                self._run = None
                self._show_buttons()
        self._after()


class BootPanel(Panel):
    """A panel with a part that boots; the methods are for scripts."""

    boot_part: BootPart

    def boot(self) -> None:
        """Press Boot."""
        self.boot_part.boot()

    def stop(self) -> None:
        """Press Stop."""
        self.boot_part.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the boot's end; return whether it came."""
        return self.boot_part.wait(timeout_s)

    def close(self) -> None:
        """Stop what goes on and close the panel."""
        self.boot_part.stop()
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


def error_html(error: CloudlabError) -> str:
    """Return an error and what to do about it."""
    hint = f"<br>{escaped(error.hint)}" if error.hint else ""
    return f"<p><b>{escaped(error.message)}</b>{hint}</p>"
