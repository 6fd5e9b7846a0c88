"""From bytes on a disk to points on paper, with what is too small to see drawn wider."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ruler:
    """A scale that is even but for stretches which are widened.

    All bars of a figure use the same one, so that what did not change looks the same in
    each of them.

    Attributes
    ----------
    places : sequence of float
        Bytes where the scale changes, rising, the first and the last being its ends.
    points : sequence of float
        Where each of them is drawn.
    """

    places: Sequence[float]
    points: Sequence[float]

    def at(self, place: float) -> float:
        """Return where a byte is drawn, in points from the ruler's left end."""
        index = bisect.bisect_right(self.places, place) - 1
        index = max(0, min(index, len(self.places) - 2))
        left, right = self.places[index], self.places[index + 1]
        low, high = self.points[index], self.points[index + 1]
        return low + (place - left) / (right - left) * (high - low)


def ruler(
    disk: float, width: float, spans: Iterable[tuple[float, float]], least: float
) -> tuple[Ruler, bool]:
    """Return the ruler on which each span is at least ``least`` points wide.

    Parameters
    ----------
    disk : float
        Bytes that the ruler is long.
    width : float
        Points that it takes.
    spans : iterable of (start, end)
        What is to be seen, in bytes.
    least : float
        Points; less where there are so many spans that they would take half the width.

    Returns
    -------
    ruler : Ruler
    widened : bool
        Whether any span is drawn wider than it is.
    """
    wanted = {(start, end) for start, end in spans if end > start}
    least = min(least, width / 2 / max(1, len(wanted)))
    small: set[tuple[float, float]] = set()
    found = Ruler((0.0, disk), (0.0, width))
    while True:
        # What the widened ones take makes others too small in turn.
        more = {(a, b) for a, b in wanted - small if found.at(b) - found.at(a) < least * (1 - 1e-9)}
        if not more:
            return found, bool(small)
        small |= more
        found = _stretched(disk, width, small, least)


def _stretched(
    disk: float, width: float, small: Iterable[tuple[float, float]], least: float
) -> Ruler:
    edges = sorted({0.0, disk, *(edge for span in small for edge in span)})
    wides: list[float | None] = []
    for left, right in itertools.pairwise(edges):
        shares = [
            (right - left) / (end - start) * least
            for start, end in small
            if start <= left and right <= end
        ]
        wides.append(max(shares) if shares else None)
    taken = sum(wide for wide in wides if wide is not None)
    free = sum(
        b - a for (a, b), wide in zip(itertools.pairwise(edges), wides, strict=True) if wide is None
    )
    scale = (width - taken) / free if free else 0.0
    points = [0.0]
    for (left, right), wide in zip(itertools.pairwise(edges), wides, strict=True):
        points.append(points[-1] + (wide if wide is not None else (right - left) * scale))
    return Ruler(edges, points)
