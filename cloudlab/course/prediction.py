"""What the learner expects of a boot, by meaning or as a size, and whether it came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudlab.errors import CloudlabError, ParseError, UsageError
from cloudlab.html import Page
from cloudlab.run.value import Run
from cloudlab.sizes import parse_size
from cloudlab.units import alike

if TYPE_CHECKING:
    import pandas as pd

    from cloudlab.figures import Plot

LAYERS = ("partition", "filesystem")

#: Predictions by meaning.
STAYS, FILLS = "stays", "fills"


@dataclass(frozen=True)
class Prediction:
    """What root's partition and filesystem will be after a boot.

    Attributes
    ----------
    partition, filesystem : str
        ``stays`` (as in the image), ``fills`` (the partition the disk, the filesystem its
        partition), or a size as lsblk and df write it, such as ``19.9G``; empty where no
        prediction was made.

    Raises
    ------
    ParseError
        If one of them is neither a size nor one of the two words.
    UsageError
        If a size has no unit, or only one of them is there.

    Examples
    --------
    >>> Prediction("fills", "stays").verdicts(cloudlab.recorded("resize-rootfs-false"))
    {'partition': True, 'filesystem': True}
    """

    partition: str = ""
    filesystem: str = ""

    def __post_init__(self) -> None:
        # Checked here, so that a wrong entry does not cost a boot.
        for layer in LAYERS:
            text = self.of(layer)
            if not isinstance(text, str):
                raise UsageError(
                    f"The prediction {text!r:.60} for the {layer} is not text.",
                    hint=f'Write a size such as "19.9G", with quotes, or {STAYS!r} or {FILLS!r}.',
                )
            if text.strip().replace(".", "", 1).isdecimal():
                raise UsageError(
                    f"The prediction {text!r} for the {layer} has no unit.",
                    hint=f"Write {text.strip()}G or {text.strip()}M, or {STAYS!r} or {FILLS!r}.",
                )
            if text and text not in (STAYS, FILLS):
                try:
                    parse_size(text.replace(" ", ""))
                except ParseError as error:
                    raise ParseError(
                        f"The prediction {text!r:.60} for the {layer} is not a size.",
                        hint=f"Write a size such as 19.9G, or {STAYS!r} or {FILLS!r}.",
                    ) from error
        if bool(self.partition) != bool(self.filesystem):
            raise UsageError(
                "Half of the prediction is missing: partition and filesystem are needed.",
                hint='Write both, such as Prediction(partition="3G", filesystem="1.5G").',
            )

    def of(self, layer: str) -> str:
        """Return what is predicted of ``partition`` or ``filesystem``."""
        return self.partition if layer == "partition" else self.filesystem

    def words(self, layer: str) -> str:
        """Return the prediction for a layer in words; empty where none was made."""
        room = "the disk" if layer == "partition" else "its partition"
        return {STAYS: "stays as it is", FILLS: f"fills {room}"}.get(self.of(layer), self.of(layer))

    def bytes(self, layer: str, run: Run) -> int | None:
        """Return the size predicted for a run; None if it follows from a size that is unknown."""
        from cloudlab.figures.data import RunSizes

        text, found = self.of(layer), ends(run)
        if text == STAYS:
            sizes = found[layer]
            return sizes[0] if sizes else None
        if text != FILLS:
            return parse_size(text.replace(" ", ""))
        partition = found["partition"]
        disk_bytes = run.options.enlarge_to_bytes or run.options.disk_size_bytes
        if layer == "filesystem":
            return partition[1] if partition else disk_bytes
        if partition is None:
            return None
        starts = [row.start_bytes for row in RunSizes(run.sizes).of("partition")]
        start = next((one for one in reversed(starts) if one is not None), None)
        return None if start is None else disk_bytes - start

    def verdicts(self, run: Run) -> dict[str, bool | None]:
        """Return layer -> whether the prediction was right; None where that is not known."""
        return {
            layer: alike(guess, sizes[1]) if sizes and guess is not None else None
            for layer, sizes in ends(run).items()
            for guess in [self.bytes(layer, run)]
        }

    def compare(self, run: Run) -> Page | Plot:
        """Return prediction and measurement side by side."""
        if not self.partition:
            return Page("There is no prediction here. One chosen in a panel is compared there.")
        if not isinstance(run, Run):
            raise UsageError(f"{run!r:.60} is no run.", hint='Write cl.recorded("default").')
        return run.plot("prediction", tables={"predictions": self.table(run)})

    def table(self, run: Run) -> pd.DataFrame:
        """Return run, scenario, layer, predicted_bytes, measured_bytes."""
        import pandas as pd

        rows = [
            {
                "run": run.name,
                "scenario": run.scenario,
                "layer": layer,
                "predicted_bytes": self.bytes(layer, run),
                "measured_bytes": sizes and sizes[1],
            }
            for layer, sizes in ends(run).items()
        ]
        return pd.DataFrame(rows).astype({"predicted_bytes": "Int64", "measured_bytes": "Int64"})


def ends(run: Run) -> dict[str, tuple[int, int] | None]:
    """Return root's partition and filesystem -> first and last size in bytes, where measured."""
    from cloudlab.figures.data import RunSizes

    try:
        sizes = RunSizes(run.sizes)
    except CloudlabError:
        return dict.fromkeys(LAYERS)
    return {layer: sizes.ends(layer) for layer in LAYERS}
