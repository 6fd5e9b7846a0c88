"""What the learner expects of a boot, and how far off it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudlab.errors import UsageError
from cloudlab.html import Page
from cloudlab.run.value import Run
from cloudlab.sizes import parse_size

if TYPE_CHECKING:
    import pandas as pd

    from cloudlab.figures import Plot


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

    def compare(self, run: Run) -> Page | Plot:
        """Return prediction and measurement side by side."""
        if not self.partition:
            return Page("You made no prediction. Make one for the next boot: it is how you learn.")
        return run.plot("prediction", tables={"predictions": self.table(run)}, size="slide")

    def table(self, run: Run) -> pd.DataFrame:
        """Return scenario, layer, predicted_bytes, measured_bytes."""
        import pandas as pd

        predicted = (parse_size(self.partition), parse_size(self.filesystem))
        rows = [
            {
                "scenario": run.scenario,
                "layer": layer,
                "predicted_bytes": guess,
                "measured_bytes": measured,
            }
            for layer, guess, measured in zip(
                ("partition", "filesystem"), predicted, run.root_sizes("after"), strict=True
            )
        ]
        return pd.DataFrame(rows).astype({"predicted_bytes": "Int64", "measured_bytes": "Int64"})
