"""The part of a panel that boots: where from, Boot and Stop, how far it is, its console."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets

from cloudlab.course.mode import Mode, ModeChoice, live_problem, mode
from cloudlab.errors import CloudlabError
from cloudlab.units import format_seconds
from cloudlab.widgets.background import BackgroundRun, Job, Outcome, Pace, Snapshot, own_fault
from cloudlab.widgets.native import Form, Pane, button, field
from cloudlab.widgets.texts import console_html, error_html, safe

_LOG = logging.getLogger("cloudlab.widgets")

_SPEEDS = ("1", "5", "10", "25", "100")


@dataclass(frozen=True)
class Plan:
    """What Boot would start now.

    Attributes
    ----------
    job : callable
    typical_s : float
        How long it takes, in seconds of the machine's clock.
    about : str
        What is booted or played, in words; a recording is called one.
    done : callable
        Told the outcome, from another thread.
    plays : bool
        Whether it is a recording that is played.
    """

    job: Job
    typical_s: float | None
    about: str
    done: Callable[[Outcome], None]
    plays: bool = False


class BootPart:
    """Boots what ``plan`` says, and shows it.

    Parameters
    ----------
    plan : callable
        ``plan(live, pace)``; may raise a CloudlabError, which is shown.
    changed : callable
        Called when live and recorded runs are switched.
    only_plays : bool
        Whether there is nothing to be booted here.
    """

    def __init__(
        self,
        plan: Callable[[bool, Pace], Plan],
        changed: Callable[[], None] = lambda: None,
        *,
        only_plays: bool = False,
    ) -> None:
        self._plan, self._changed = plan, changed
        self._lock = threading.RLock()
        self._run: BackgroundRun | None = None
        self._unlocked = True
        choice = ModeChoice(Mode.REPLAY, "") if only_plays else mode()
        self._reason = choice.reason
        self.source = Form(
            "Where the boot comes from",
            [
                field("live", "checkbox", "Boot a real machine (live)", choice.live),
                field(
                    "speed", "select", "Playing speed", "10",
                    choices=[(one, f"{one} times as fast" if one != "1" else "as it was") for one in _SPEEDS],
                ),
            ],
        )  # fmt: skip
        self.buttons = Form(
            "Boot and stop", [button("boot", "Boot", primary=True), button("stop", "Stop")]
        )
        self.stage = Pane(role="status", name="Boot stage")
        self.progress = Pane(name="Progress", role="group")
        self.console = Pane(role="log", name="Serial console", look="console", scrolls=True)
        self.problem = Pane(role="alert", look="note")
        self.source.on_values(self._switched)
        self.buttons.on_press(boot=self.boot, stop=self.stop)
        self.source.change(live={"hidden": only_plays})
        self._show_source()
        self._show_buttons(label="Play" if only_plays else "Boot")

    @property
    def widgets(self) -> list[ipywidgets.Widget]:
        """What is shown below the button, from top to bottom."""
        return [self.problem, self.stage, self.progress, self.console]

    @property
    def live(self) -> bool:
        """Whether Boot boots a real machine."""
        return bool(self.source.values["live"])

    @property
    def running(self) -> bool:
        """Whether a boot goes on."""
        return self._run is not None and self._run.running

    def unlock(self, *, unlocked: bool, label: str = "Boot", help: str = "") -> None:  # noqa: A002
        """Say whether Boot may be pressed, and what it would do."""
        self._unlocked = unlocked
        self._show_buttons(label=label, help=help)

    def boot(self) -> None:
        """Start a boot in the background, unless one goes on."""
        with self._lock:
            if self.running or not self._unlocked:
                return
            self.problem.html = ""
            try:
                plan = self._plan(self.live, self._pace)
            except CloudlabError as error:
                self.problem.html = error_html(error)
                return
            pace = self._pace if plan.plays else (lambda: 1.0)
            self._run = BackgroundRun(
                plan.job,
                show=lambda snapshot: self._show(plan, snapshot),
                done=lambda outcome: self._finish(plan, outcome),
                pace=pace,
            )
            self._run.start()
            self._show_buttons()

    def stop(self) -> None:
        """Ask the boot to end; returns at once."""
        with self._lock:
            if self._run is not None:
                self._run.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the boot's end, for scripts; return whether it came."""
        return self._run is None or self._run.wait(timeout_s)

    def _pace(self) -> float:
        return float(self.source.values["speed"])

    def _switched(self) -> None:
        problem = live_problem() if self.live else ""
        if problem:
            self._reason = f"this cannot go live: {problem}"
            self.source.values = {**self.source.values, "live": False}
        elif self.live:
            self._reason = ""
        self._show_source()
        self._changed()

    def _show_source(self) -> None:
        if self.live:
            note = "Boot starts QEMU on this computer."
        else:
            note = "Boot plays a recording of a real boot"
            note += f" ({self._reason})." if self._reason else "."
        self.source.change(live={"help": note}, speed={"hidden": self.live})

    def _show_buttons(self, **boot: str) -> None:
        running = self.running
        self.buttons.change(
            boot={"disabled": running or not self._unlocked, **boot},
            stop={"disabled": not running},
        )

    def _show(self, plan: Plan, snapshot: Snapshot) -> None:
        self.stage.html = f"Stage: <b>{safe(snapshot.stage)}</b> ({safe(snapshot.note)})"
        last = next((line.text for line in reversed(snapshot.lines) if line.text.strip()), "")
        at_s = snapshot.time_s
        whole_s = plan.typical_s or snapshot.expected_s or 60.0
        self.progress.html = (
            f'<progress max="{whole_s:.1f}" value="{min(at_s, whole_s):.1f}" '
            f'aria-label="Time of the boot"></progress> '
            f"{format_seconds(at_s)}, typically {format_seconds(whole_s)}"
            f"<br><small>{safe(plan.about)}</small><br><code>{safe(last[:120])}</code>"
        )
        self.console.html = console_html(snapshot.lines)

    def _finish(self, plan: Plan, outcome: Outcome) -> None:
        if outcome.error is not None:
            self.problem.html = error_html(outcome.error)
        try:
            plan.done(outcome)
        except Exception as error:  # noqa: BLE001 - nobody else hears of what a thread does wrong
            _LOG.exception("the result of a boot could not be shown")
            self.problem.html = error_html(own_fault(error))
        finally:
            with self._lock:
                self._run = None
                self._show_buttons()
