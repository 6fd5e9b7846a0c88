"""Console: one boot, booted here or played, and nothing else."""

from __future__ import annotations

from pathlib import Path

from cloudlab.errors import ImageError, UsageError
from cloudlab.image.cache import recall
from cloudlab.image.recipe import make_recipe
from cloudlab.lab import typical
from cloudlab.lab.cases import CASES
from cloudlab.lab.gallery import case_options
from cloudlab.lab.teaching.prediction import Prediction
from cloudlab.machine.accel import choose_accel
from cloudlab.recording import Recording, dated_folder
from cloudlab.units import format_seconds
from cloudlab.widgets.background import Outcome, Pace, live_job, replay_job
from cloudlab.widgets.boot_part import BootPart, Plan
from cloudlab.widgets.panel import AnyRun, Panel, find_run
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
    recording : Recording or None
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
        self.recording: Recording | None = None
        self._shipped = find_run(run)
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
    def run(self) -> Recording:
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
        typical_s = float(self._shipped.about.get("time_s", 0.0))
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
        accel = choose_accel(image.arch).accel
        return Plan(
            live_job(options, dated_folder(self._folder, options.scenario)),
            typical.expected_s(options, accel),
            f"Booting {image.name} under {accel.value.upper()}",
            self._done,
        )

    def _done(self, outcome: Outcome) -> None:
        recording = outcome.recording
        if recording is None or recording.about.get("outcome") == "interrupted":
            return
        self.recording = recording
        kept = f"<p><small>{safe(origin(recording))}</small></p>{_stages_html(recording)}"
        kept += self.boot_part.console.html
        self.keep(kept + (result_html(Finished(recording)) if self._result else ""))


def _stages_html(recording: Recording) -> str:
    rows = [
        (one["stage"], format_seconds(one["start_s"]), format_seconds(one["end_s"]))
        for one in recording.stages()
    ]
    return table_html(("stage", "from", "to"), rows, caption="The boot's stages")
