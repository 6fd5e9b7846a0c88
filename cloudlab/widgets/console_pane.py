"""Console: one boot, booted here or played, and nothing else."""

from __future__ import annotations

from pathlib import Path

from cloudlab.course.cases import CASES, case_options
from cloudlab.course.prediction import Prediction, ends
from cloudlab.errors import ImageError, UsageError
from cloudlab.html import table_html
from cloudlab.image.cache import recall
from cloudlab.image.recipe import make_recipe
from cloudlab.run.options import Options
from cloudlab.run.value import Run, open_run
from cloudlab.units import format_seconds
from cloudlab.widgets.boot import LINES, BootPanel, Plan, console_html
from cloudlab.widgets.panel import AnyRun, Pane, origin, origin_html
from cloudlab.widgets.results import Finished, predicted_html


class Console(BootPanel):
    """A boot's serial console with its stages, as it comes.

    Parameters
    ----------
    run : run or str
        A run to play; or the name of a case of the gallery, which live is booted here.
    prediction : Prediction, optional
        What the learner expects of it; with an empty one the panel asks, and Boot is locked
        until there is an answer.
    folder : Path
        Where live runs are recorded.

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
    ) -> None:
        self.recording: Run | None = None
        self._shipped = open_run(run)
        self._case = run if isinstance(run, str) and run in CASES else None
        super().__init__(folder, asks=prediction is not None, only_plays=self._case is None)
        self._outcome = Pane(look="result", name="Result", role="region")
        if prediction is not None:
            first = {layer: sizes[0] for layer, sizes in ends(self._shipped).items() if sizes}
            self.prediction_form.about(first)
            self.prediction_form.set(prediction)
        asking = [self.prediction_form] if self._asks else []
        self.fill(
            *asking, self.boot_form, self.problem, self.stage, self.progress, self.console,
            self._outcome,
        )  # fmt: skip
        self.keep("<p>Nothing was booted or played here yet.</p>")

    @property
    def run(self) -> Run:
        """The last run that came to its end here; until then the shipped recording.

        While a boot goes on, this waits for its end.
        """
        self.settle()
        return self.recording or self._shipped

    @property
    def origin(self) -> str:
        """Where :attr:`run` comes from, in words."""
        return origin(self.run)

    def _plan(self) -> Plan:
        # The prediction that holds now is compared with the run.
        prediction = self.prediction if self._asks else None

        def done(run: Run | None) -> None:
            if run is None:
                return
            self.recording = run
            if prediction is not None:
                self._outcome.html = predicted_html(Finished(run, prediction))
            last = console_html(run.console[-LINES:])
            stages = [
                (one.stage, format_seconds(one.start_s), format_seconds(one.end_s))
                for one in run.record.stages
            ]
            table = table_html(("stage", "from", "to"), stages, caption="The boot's stages")
            self.keep(f"{origin_html(run)}{table}{last}{self._outcome.html}")

        if self.live:
            return self._booting(self._options(), done)
        return self._playing(self._shipped, done)

    def _options(self) -> Options:
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
        return case_options(self._case, image)
