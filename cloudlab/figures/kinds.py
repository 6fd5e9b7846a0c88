"""The kinds of figures there are, by the name that the command line takes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of figure; ``plot``, ``alt`` and ``data`` take its tables in order.

    Attributes
    ----------
    name : str
    title : str
        What it shows, for lists and captions.
    tables : tuple of str
        The tables it is made from: ``sizes``, ``stages``, ``extents``, ``partitions``,
        ``predictions``.
    one_run : bool
        Whether it shows one run only, so that its functions take ``run=``.
    module, function : str
        Where its functions are; they are loaded on first use.
    """

    name: str
    title: str
    tables: tuple[str, ...]
    one_run: bool
    module: str
    function: str

    @property
    def plot(self) -> Callable[..., Any]:
        """``plot(*tables, ax=None, labels=None) -> Axes``."""
        return self._load(f"plot_{self.function}")

    @property
    def alt(self) -> Callable[..., str]:
        """``alt(*tables, labels=None) -> str``, the numbers in words."""
        return self._load(f"{self.function}_alt")

    @property
    def data(self) -> Callable[..., Any]:
        """``data(*tables) -> DataFrame``, the numbers behind the figure."""
        return self._load(f"{self.function}_data")

    def _load(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(
            importlib.import_module(f"cloudlab.figures.{self.module}"), name
        )
        return found


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("layers", "Sizes, layer by layer", ("sizes",), True, "layers", "layers"),
        Kind("disk-map", "The disk before and after", ("sizes",), True, "disk_map", "disk_map"),
        Kind(
            "scenarios", "Partition and filesystem by run", ("sizes",), False,
            "scenarios", "scenarios",
        ),
        Kind("timeline", "Growth over time", ("sizes", "stages"), True, "timeline", "timeline"),
        Kind(
            "overlay-map", "What the boot wrote", ("extents", "partitions"), True,
            "overlay", "overlay_map",
        ),
        Kind(
            "prediction", "Prediction and measurement", ("predictions",), False,
            "prediction", "prediction",
        ),
        Kind("stages", "Where the time went", ("stages",), False, "stages", "stages"),
    )
}  # fmt: skip
