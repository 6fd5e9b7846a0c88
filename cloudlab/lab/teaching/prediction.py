"""What the learner expects of a boot, and how far off it was."""

from __future__ import annotations

from dataclasses import dataclass

from cloudlab import figures
from cloudlab.errors import UsageError
from cloudlab.lab.teaching.views import Page, Picture, root_sizes
from cloudlab.recording import Recording
from cloudlab.sizes import parse_size


@dataclass(frozen=True)
class Prediction:
    """What root's partition and filesystem will be after a boot, as lsblk and df write sizes.

    Attributes
    ----------
    partition, filesystem : str
        Such as ``19.9G``; empty where no prediction was made.

    Raises
    ------
    ParseError
        If one of them is no size.
    UsageError
        If only one of them is there.
    """

    partition: str = ""
    filesystem: str = ""

    def __post_init__(self) -> None:
        # Said here, so that nobody waits for a boot to hear of it.
        for text in filter(None, (self.partition, self.filesystem)):
            parse_size(text)
        if bool(self.partition) != bool(self.filesystem):
            raise UsageError(
                "Half of the prediction is missing: partition and filesystem are needed.",
                hint='Write both, such as Prediction(partition="3G", filesystem="1.5G").',
            )

    def compare(self, run: Recording) -> Page:
        """Return prediction and measurement side by side."""
        import pandas as pd

        if not self.partition:
            return Page("You made no prediction. Make one for the next boot: it is how you learn.")
        predicted = (parse_size(self.partition), parse_size(self.filesystem))
        rows = [
            {
                "scenario": str(run.about.get("scenario", run.name)),
                "layer": layer,
                "predicted_bytes": guess,
                "measured_bytes": measured,
            }
            for layer, guess, measured in zip(
                ("partition", "filesystem"), predicted, root_sizes(run, "after"), strict=True
            )
        ]
        frame = pd.DataFrame(rows).astype({"predicted_bytes": "Int64", "measured_bytes": "Int64"})
        return Picture(figures.plot("prediction", {"predictions": frame}))
