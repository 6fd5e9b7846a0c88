"""What a run came to, as HTML: figures, numbers, reasons, and the console lines that prove them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab import figures, paths
from cloudlab.errors import CloudlabError
from cloudlab.figures.data import RunSizes, prediction_data, records
from cloudlab.run.plots import plot
from cloudlab.run.value import Run
from cloudlab.units import format_bytes, format_count, is_known
from cloudlab.widgets.texts import safe, table_html

if TYPE_CHECKING:
    import pandas as pd

LAYERS = ("partition", "filesystem")

#: Characters of a console line that are quoted.
_QUOTED = 160

#: Files of a machine, of no use without it.
_MACHINE_FILES = shutil.ignore_patterns("overlay.qcow2", "seed.iso", "uefi-variables.fd")


@dataclass(frozen=True)
class Prediction:
    """What a learner expects after the boot, in bytes."""

    partition_bytes: int
    filesystem_bytes: int

    def of(self, layer: str) -> int:
        """Return what is expected of a layer."""
        return self.partition_bytes if layer == "partition" else self.filesystem_bytes


@dataclass(frozen=True)
class Finished:
    """A run that came to its end in a panel.

    Attributes
    ----------
    run : Run
    prediction : Prediction or None
    differences : tuple of str
        In what the recording that was played is not what was asked for.
    """

    run: Run
    prediction: Prediction | None = None
    differences: tuple[str, ...] = ()

    @property
    def judged(self) -> bool:
        """Whether there is a prediction, and of just the boot that is shown."""
        return self.prediction is not None and not self.differences

    def measured(self) -> dict[str, tuple[int, int] | None]:
        """Return each layer's size in bytes before and after; None where it is not known."""
        try:
            sizes = RunSizes(self.run.sizes)
        except CloudlabError:
            return dict.fromkeys(LAYERS)
        return {layer: sizes.ends(layer) for layer in LAYERS}


def origin(recording: Run) -> str:
    """Return where a run comes from: a recording is always called one."""
    if recording.is_recording:
        return f"Recording: {recording.label}"
    return recording.label[0].upper() + recording.label[1:]


def result_html(finished: Finished) -> str:
    """Return the whole result of one run."""
    recording = finished.run
    scenario = recording.scenario
    parts = [
        f"<h3>Result: {safe(scenario)}</h3>",
        f"<p><small>{safe(origin(recording))}</small></p>",
    ]
    if finished.differences:
        parts.append(
            f"<p><b>This is not quite what you asked for.</b></p>{differences_html(finished.differences)}"
        )
    error = recording.record.error
    if error:
        parts.append(
            f"<p><b>The boot did not come to its end.</b></p><pre>{safe(error.text)}</pre>"
        )
    parts += [
        _or_reason(lambda: figure_html("disk-map", [recording])),
        compared_html([finished], "Predicted and measured"),
        _or_reason(lambda: prediction_html([finished])) if finished.judged else "",
        "<h4>Why</h4>",
        _or_reason(lambda: recording.explain().to_html()),
        _or_reason(lambda: proof_html(recording)),
    ]
    return "".join(parts)


def earlier_html(runs: Sequence[Finished]) -> str:
    """Return several runs side by side; empty for fewer than two."""
    different = {one.run.name: one.run for one in runs}
    if len(runs) < 2:  # noqa: PLR2004
        return ""
    figure = figure_html("scenarios", list(different.values())) if len(different) > 1 else ""
    return f"<h3>All runs so far</h3>{figure}{compared_html(runs, 'All runs so far')}"


def differences_html(differences: Sequence[str]) -> str:
    """Return the differences between a wish and a recording as a list."""
    return f"<ul>{''.join(f'<li>{safe(one)}</li>' for one in differences)}</ul>"


def compared_html(runs: Sequence[Finished], caption: str) -> str:
    """Return the table of predicted and measured sizes."""
    rows = []
    for run in runs:
        predictions = _judged(run)
        for layer, ends in run.measured().items():
            rows.append(
                (
                    run.run.scenario,
                    layer,
                    format_bytes(ends and ends[0]),
                    format_bytes(ends and ends[1]),
                    format_bytes(run.prediction.of(layer)) if run.prediction else "-",
                    predictions[layer],
                )
            )
    head = ("run", "layer", "before", "after", "you predicted", "your prediction")
    return table_html(head, rows, caption=caption)


def predictions_table(runs: Sequence[Finished]) -> pd.DataFrame:
    """Return the table that the figure *prediction* is made from.

    A prediction of another experiment than the recorded one has no row.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = [
        {
            "scenario": run.run.scenario,
            "layer": layer,
            "predicted_bytes": run.prediction.of(layer),
            "measured_bytes": ends[1] if ends else None,
        }
        for run in runs
        if run.prediction is not None and run.judged
        for layer, ends in run.measured().items()
    ]
    return pd.DataFrame(rows)


def prediction_html(runs: Sequence[Finished]) -> str:
    """Return the figure of predicted and measured sizes."""
    tables = {"predictions": predictions_table(runs)}
    return plot("prediction", [runs[0].run], tables=tables).to_html()


def figure_html(kind_name: str, recordings: Sequence[Run]) -> str:
    """Return a figure of runs, with its words."""
    return plot(kind_name, recordings).to_html()


def proof_html(recording: Run) -> str:
    """Return, for each bar, the console line that proves it."""
    rows = proofs(recording)
    head = ("bar", "size in bytes", "seconds", "console line", "what it says")
    return table_html(head, rows, caption="The console line behind each bar", code="what it says")


def proofs(recording: Run) -> list[tuple[str, str, str, str, str]]:
    """Return a row for each measurement of the root partition and filesystem, in time's order.

    Raises
    ------
    CloudlabError
        If the run has no sizes or no transcript.
    """
    run = RunSizes(recording.sizes)
    lines = recording.console
    found = []
    for layer in LAYERS:
        rows = run.of(layer).dropna(subset=["line"])
        # Of the samples in between, those that saw a change.
        changed = rows["size_bytes"].ne(rows["size_bytes"].shift())
        for row in records(rows[(rows["stage"] != "sample") | changed]):
            number = int(row.line)
            said = lines[number - 1].text[:_QUOTED] if number <= len(lines) else ""
            name = f"{layer} {row.device}, {row.stage}"
            found.append(
                (name, format_count(row.size_bytes), f"{row.time_s:.1f}", str(number), said)
            )
    return found


def export(finished: Finished, folder: Path) -> Path:
    """Write figures, their data and the run folder to a new folder below ``folder``; return it.

    Raises
    ------
    CloudlabError
        If it cannot be written.
    """
    recording = finished.run
    target = paths.free_folder(folder / recording.name)
    for kind_name in ("disk-map", "timeline"):
        figure = recording.plot(kind_name, size="slide")
        for form in ("svg", "png"):
            figure.save(target / f"{kind_name}.{form}")
    if finished.judged:
        predictions = {"predictions": predictions_table([finished])}
        figures.plot("prediction", predictions).save_data(target / "prediction.csv")
    try:
        shutil.copytree(recording.folder, target / "run", ignore=_MACHINE_FILES)
    except (OSError, shutil.Error) as error:
        raise CloudlabError(
            f"The run {recording.folder} could not be copied to {target}: {error}.",
            hint="Free some space there.",
        ) from error
    return target


def _judged(run: Finished) -> dict[str, str]:
    if not run.judged:
        why = "not judged: the recording is of other options" if run.prediction else "-"
        return dict.fromkeys(LAYERS, why)
    words = {}
    for row in records(prediction_data(predictions_table([run]))):
        if not is_known(row.error):
            words[row.layer] = "nothing to compare with"
        elif row.right:
            words[row.layer] = "right"
        else:
            words[row.layer] = f"{abs(row.error):.0%} too {'large' if row.error > 0 else 'small'}"
    return words


def _or_reason(make: Callable[[], str]) -> str:
    """Return a part of a result, or why it is not there: the rest is shown all the same."""
    try:
        return make()
    except CloudlabError as error:
        return f"<p><small>{safe(error.message)}</small></p>"
