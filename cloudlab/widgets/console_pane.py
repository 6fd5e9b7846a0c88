"""Console: one boot, booted here or played, and nothing else."""

from __future__ import annotations

from pathlib import Path

from cloudlab.course.cases import CASES, case_options
from cloudlab.course.prediction import Prediction
from cloudlab.errors import ImageError, UsageError
from cloudlab.image.cache import recall
from cloudlab.image.recipe import make_recipe
from cloudlab.run.boot import dated_folder
from cloudlab.run.record import Outcome as RunOutcome
from cloudlab.run.value import Run, open_run
from cloudlab.units import format_seconds
from cloudlab.widgets.background import Outcome, Pace, live_job, replay_job
from cloudlab.widgets.boot_part import BootPart, Plan
from cloudlab.widgets.panel import AnyRun, Panel
from cloudlab.widgets.results import Finished, origin, result_html
from cloudlab.widgets.texts import safe, table_html


class Console(Panel):
    """A boot's serial console with its stages, as it comes.

    Parameters
    ----------
    run : run or str
        A run to play; or the name of a case of the gallery, which live is booted here.
    prediction : Prediction, optional
        What the learner expects of it; an empty one keeps Boot locked.
    folder : Path
        Where live runs are recorded.
    result : bool
        Whether the sizes and their explanation stay below it at the end.

    Attributes
    ----------
    recording : Run or None
        The last run that came to its end.
    """

    def __init__(
        self,
        run: AnyRun = "default",
        *,
        prediction: Prediction | None = None,
        folder: Path | str = "runs",
        result: bool = False,
    ) -> None:
        self.recording: Run | None = None
        self._shipped = open_run(run)
        self._case = run if isinstance(run, str) and run in CASES else None
        self._folder = Path(folder)
        self._result = result
        self.boot_part = BootPart(self._plan, only_plays=self._case is None)
        if prediction == Prediction():
            self.boot_part.unlock(
                unlocked=False,
                label="Boot: predict first",
                help="Fill in your prediction above and run both cells again",
            )
        super().__init__(self.boot_part.source, self.boot_part.buttons, *self.boot_part.widgets)
        self.keep("<p>Nothing was booted or played here yet.</p>")

    @property
    def run(self) -> Run:
        """The last run that came to its end here; until then the shipped recording."""
        return self.recording or self._shipped

    @property
    def origin(self) -> str:
        """Where :attr:`run` comes from, in words."""
        return origin(self.run)

    def boot(self) -> None:
        """Press Boot."""
        self.boot_part.boot()

    def stop(self) -> None:
        """Press Stop."""
        self.boot_part.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the boot's end, for scripts; return whether it came."""
        return self.boot_part.wait(timeout_s)

    def close(self) -> None:
        """Stop what goes on and close the panel."""
        self.boot_part.stop()
        super().close()

    def _plan(self, live: bool, pace: Pace) -> Plan:  # noqa: FBT001
        if live:
            return self._live_plan()
        job = replay_job(self._shipped, pace)
        typical_s = self._shipped.record.time_s or 0.0
        return Plan(job, typical_s, origin(self._shipped), self._done, plays=True)

    def _live_plan(self) -> Plan:
        assert self._case is not None, "a run that is only played has no live switch"
        if CASES[self._case].follows is not None:
            raise UsageError(
                "This run can only be played.", hint="Switch live off and press Boot again."
            )
        recipe = CASES[self._case].recipe
        name = make_recipe(recipe.suite, recipe.filesystem, recipe.variant).name
        image = recall(name)
        if image is None:
            raise ImageError(
                f"The image {name} is not in the cache.",
                hint=f"Build it with: cloudlab build --filesystem {recipe.filesystem} "
                f"--variant {recipe.variant}",
            )
        options = case_options(self._case, image)
        return Plan(
            live_job(options, dated_folder(options.scenario, self._folder)),
            None,
            f"Booting {image.name}",
            self._done,
        )

    def _done(self, outcome: Outcome) -> None:
        recording = outcome.run
        if recording is None or recording.outcome is RunOutcome.INTERRUPTED:
            return
        self.recording = recording
        kept = f"<p><small>{safe(origin(recording))}</small></p>{_stages_html(recording)}"
        kept += self.boot_part.console.html
        self.keep(kept + (result_html(Finished(recording)) if self._result else ""))


def _stages_html(recording: Run) -> str:
    rows = [
        (one.stage, format_seconds(one.start_s), format_seconds(one.end_s))
        for one in recording.record.stages
    ]
    return table_html(("stage", "from", "to"), rows, caption="The boot's stages")
