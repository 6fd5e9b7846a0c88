"""Laying out one figure on a given Axes, in points, so that no text is cut or covered.

A figure takes the place (*slot*) that its Axes has when it is drawn and keeps inside
it: title and chips on top, the note at the bottom, names and values at the sides, the
Axes itself in what is left.  Texts are measured before they are placed; where they
do not fit, the whole figure is laid out again in smaller type.
"""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeVar

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.transforms import Affine2D, ScaledTranslation

from cloudlab.figures.style import FAINT, GRID, INK, Look, families, look, quiet

#: Width and height in inches and dots per inch: a slide of 1600 x 900, half a page, a screen.
SIZES = {"screen": (8.0, 4.5, 150), "slide": (16.0, 9.0, 100), "page": (3.3, 2.7, 300)}

#: Distance of two lines of text, in units of its size.
LINE = 1.3
_TITLE = 1.22
_NOTE = 0.85
_SWATCH = 1.5
_SMALLEST = 2.0
# Points below which nobody reads type on paper, its smaller notes included.
_LEAST_TYPE = 5.4
# The figures that new_axes made, which may be made higher.
_OURS: weakref.WeakSet[Figure] = weakref.WeakSet()
# Type is measured large, where hinting does not matter; drawn small it is a little wider.
_MEASURE_PT = 100.0
_HINTED = 1.03


def font_size(width_in: float, height_in: float) -> float:
    """Return the size in points that reads well in a figure of this size."""
    return min(23.0, max(6.0, 3.6 + 1.15 * min(width_in, height_in * 16 / 9)))


def new_axes(size: str = "screen", *, height_in: float | None = None) -> Axes:
    """Return the Axes of a new figure, all of it but a margin.

    What is drawn there makes the figure higher where its type would get too small to read.

    Parameters
    ----------
    size : str
        ``screen``, ``slide`` (1600 x 900 pixels) or ``page`` (half a page's width).
    height_in : float, optional
        Inches, in place of the size's own height.
    """
    width, height, dpi = SIZES[size]
    height = height_in or height
    with look():
        figure = Figure(figsize=(width, height), dpi=dpi)
        margin = font_size(width, SIZES[size][1]) * 0.8 / 72
        x, y = margin / width, margin / height
        _OURS.add(figure)
        return figure.add_axes((x, y, 1 - 2 * x, 1 - 2 * y))


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of one line of text in points."""
    return _width(text, bold=bold) * size


@functools.lru_cache(maxsize=16384)
def _width(text: str, *, bold: bool) -> float:
    weight = "bold" if bold else "normal"
    font = FontProperties(family=families(text), size=_MEASURE_PT, weight=weight)
    with quiet():
        width, _, _ = _measure().get_text_width_height_descent(text, font, ismath=False)
    return float(width) / _MEASURE_PT * _HINTED


@functools.cache
def _measure() -> Any:
    return RendererAgg(1, 1, 72)  # type: ignore[no-untyped-call]


def wrap(text: str, width: float, size: float, *, bold: bool = False, most: int = 99) -> list[str]:
    """Break text into lines of at most ``width`` points, the last one cut with an ellipsis.

    A number stays with its unit; a word that is wider than a line (Japanese has no
    spaces) is broken inside.
    """
    glued = re.sub(r"(\d) (?=(?:[KMGTPE]i)?B(?![A-Za-z])|s(?![A-Za-z]))", "\\1\u00a0", text)
    lines: list[str] = [""]
    for word in glued.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if text_width(longer, size, bold=bold) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for piece in re.findall(r"[\d.]+\u00a0[A-Za-z]+|.", word):
            if lines[-1] and text_width(lines[-1] + piece, size, bold=bold) > width:
                lines.append("")
            lines[-1] += piece
    if len(lines) > most:
        last = lines[most - 1]
        while last and text_width(last + "…", size, bold=bold) > width:
            last = last[:-1]
        lines = [*lines[: most - 1], last + "…"]
    return lines


#: The look that stands for a mark on a bar instead of an area.
DIAMOND = Look("#FFFFFF", "diamond")


@dataclass(frozen=True)
class Chip:
    """A word of the legend, after a swatch of what it names."""

    text: str
    look: Look | None = None
    bold: bool = False

    def width(self, size: float) -> float:
        """Return the width in points."""
        return self.text_at(size) + text_width(self.text, size, bold=self.bold)

    def text_at(self, size: float) -> float:
        """Return where the text begins, in points from the chip's left."""
        return (_SWATCH + 0.4) * size if self.look else 0.0


#: Places on an axis and their labels.
Ticks = tuple[Sequence[float], Sequence[str]]

#: What a text stands on, lest grid lines or hatches run through it.
PLATE: dict[str, Any] = {
    "boxstyle": "round,pad=0.15",
    "facecolor": "white",
    "edgecolor": "none",
}

Flow = list[list[tuple[float, Chip]]]


def flow(chips: Sequence[Chip], width: float, size: float) -> Flow:
    """Place chips side by side in lines of at most ``width`` points: (left, chip) by line."""
    lines: Flow = []
    right = width
    for chip in chips:
        wide = chip.width(size)
        if wide > width:
            cut = wrap(chip.text, width - chip.text_at(size), size, bold=chip.bold, most=1)
            chip = Chip(cut[0], chip.look, chip.bold)  # noqa: PLW2901
        if not lines or right + wide > width:
            lines.append([])
            right = 0.0
        lines[-1].append((right, chip))
        right += wide + 1.2 * size
    return lines


@dataclass(frozen=True)
class Header:
    """The lines above and below a plot, wrapped, with their heights in points."""

    title: list[str]
    chips: Flow
    note: list[str]
    above: float
    below: float


class Plan(Protocol):
    """A layout tried at one type size."""

    @property
    def height(self) -> float:
        """Points it needs, all in all."""

    @property
    def plot_width(self) -> float:
        """Points that are left for the plot, side to side."""


PlanT = TypeVar("PlanT", bound=Plan)


class Frame:
    """The slot of a figure and how it is divided.

    Parameters
    ----------
    ax : Axes or None
        Where to draw; None makes a new figure.
    lines : float
        Lines of text that the plot will stack, which a new figure makes room for.

    Attributes
    ----------
    size : float
        Type size in points.
    width, height : float
        The slot, in points.
    points : Transform
        Points from the slot's upper left corner, y downwards.
    """

    def __init__(self, ax: Axes | None, lines: float = 0) -> None:
        if ax is None:
            ax = new_axes(height_in=max(SIZES["screen"][1], (lines * LINE * 12.5 + 130) / 72))
        self.ax = ax
        self._take_place()
        self.size = font_size(self.width / 72, self.height / 72)

    def _take_place(self) -> None:
        self._corner = self.ax.get_position(original=True)
        figure = self.ax.figure
        slot = self._corner.transformed(figure.transSubfigure)
        dpi = figure.dpi
        self.width, self.height = slot.width / dpi * 72, slot.height / dpi * 72
        self.points = (
            Affine2D().scale(1 / 72, -1 / 72)
            + figure.dpi_scale_trans
            + ScaledTranslation(self._corner.x0, self._corner.y1, figure.transSubfigure)  # type: ignore[arg-type]
        )

    def fit(self, plan: Callable[[], PlanT]) -> PlanT:
        """Return the plan at the largest type size at which it fits the slot.

        A figure made by :func:`new_axes` grows in height before its type gets too small
        to read; one of the caller's keeps its size.
        """
        least = max(_LEAST_TYPE, 0.6 * self.size)
        while True:
            tried = plan()
            wide = tried.plot_width >= 0.2 * self.width
            if (wide and tried.height <= self.height) or self.size <= _SMALLEST:
                return tried
            if wide and self.size * 0.95 < least and self.ax.figure in _OURS:
                self._grow(tried.height - self.height)
                return plan()
            self.size *= 0.95

    def _grow(self, points: float) -> None:
        """Make the figure higher, its margins as they were."""
        figure = self.ax.figure
        assert isinstance(figure, Figure)
        high = float(figure.get_figheight())
        higher = high + (points + 0.5) / 72
        corner = self._corner
        y = corner.y0 * high / higher
        figure.set_figheight(higher)
        self.ax.set_position((corner.x0, y, corner.width, 1 - 2 * y))
        self._take_place()

    def header(self, title: str, chips: Sequence[Chip] = (), note: str = "") -> Header:
        """Wrap what stands above and below the plot."""
        size = self.size
        titles = wrap(title, self.width, size * _TITLE, bold=True) if title else []
        lines = flow(chips, self.width, size)
        # Letters take whole pixels, so that small ones may come out wider than measured.
        pixels = size * _NOTE * self.ax.figure.dpi / 72
        notes = wrap(note, (1 - 0.5 / pixels) * self.width, size * _NOTE) if note else []
        above = len(titles) * LINE * _TITLE * size + len(lines) * LINE * size
        below = (len(notes) * LINE + 0.4) * _NOTE * size if notes else 0.0
        return Header(titles, lines, notes, above + (0.5 * size if above else 0), below)

    def place(self, header: Header, left: float, right: float, bottom: float) -> None:
        """Draw the header and put the Axes into the room that is left.

        ``left``, ``right`` and ``bottom`` are points kept free beside the plot and
        between it and the note.
        """
        size = self.size
        self.left, self.top = left, header.above
        self.plot_width = max(1.0, self.width - left - right)
        self.plot_height = max(1.0, self.height - header.above - header.below - bottom)
        corner = self._corner
        to_x, to_y = corner.width / self.width, corner.height / self.height
        self.ax.set_position(
            (
                corner.x0 + left * to_x,
                corner.y0 + (header.below + bottom) * to_y,
                self.plot_width * to_x,
                self.plot_height * to_y,
            )
        )
        if header.title:
            self._title(header.title)
        y = len(header.title) * LINE * _TITLE * size
        self.chips(header.chips, 0, y)
        for number, line in enumerate(reversed(header.note)):
            y = self.height - (number + 0.5) * LINE * _NOTE * size
            self.text(0, y, line, scale=_NOTE, color=FAINT)

    def _title(self, lines: list[str]) -> None:
        # The Axes' own title, so that ax.get_title() and accessibility tools find it.
        size, text = self.size * _TITLE, "\n".join(lines)
        title = self.ax.set_title(
            text, loc="left", y=1.0, fontsize=size, fontweight="bold",
            fontfamily=families(text), linespacing=1.12,
        )  # fmt: skip
        title.set_transform(self.points)
        title.set_position((0, 0.1 * size))
        title.set_verticalalignment("top")
        self.ax._autotitlepos = False  # type: ignore[attr-defined]  # noqa: SLF001

    def text(
        self, x: float, y: float, text: str, *, scale: float = 1.0, bold: bool = False, **more: Any
    ) -> None:
        """Write one line, its small letters centred on a point of the slot."""
        size = self.size * scale
        options: dict[str, Any] = {"transform": self.points, "va": "baseline", "color": INK}
        options |= {"fontsize": size, "fontweight": "bold" if bold else "normal"}
        # Centred by the baseline: boxes of lines with and without descenders differ.
        y += 0.36 * size
        self.ax.text(x, y, text, fontfamily=families(text), **(options | more))

    def chips(self, lines: Flow, x: float, y: float) -> None:
        """Draw chips from a point of the slot downwards."""
        size = self.size
        for number, line in enumerate(lines):
            middle = y + (number + 0.5) * LINE * size
            for left, chip in line:
                if chip.look is DIAMOND:
                    self.diamond(x + left + _SWATCH / 2 * size, middle, 0.75 * size)
                elif chip.look:
                    corner = (x + left, middle - 0.42 * size)
                    self.rectangle(corner, _SWATCH * size, 0.84 * size, chip.look)
                at = x + left + chip.text_at(size)
                self.text(at, middle, chip.text, bold=chip.bold, bbox=PLATE)

    def rectangle(
        self, corner: tuple[float, float], width: float, height: float, how: Look, **more: Any
    ) -> None:
        """Draw a rectangle in points of the slot (or elsewhere, with ``transform``)."""
        options = how.patch(transform=self.points, clip_on=False) | more
        # Hatches repeat by the inch: on a large figure fewer lines say the same.
        kept = max(1, round(len(how.hatch) * min(1.0, 9 / self.size)))
        options["hatch"] = how.hatch[:kept] or None
        self.ax.add_patch(Rectangle(corner, width, height, **options))

    def diamond(self, x: float, y: float, size: float) -> None:
        """Draw a diamond at a point of the slot."""
        self.ax.plot(
            [x], [y], "D", transform=self.points, markersize=size, color="white",
            markeredgecolor=INK, markeredgewidth=0.12 * self.size, clip_on=False,
        )  # fmt: skip

    def x_axis(self, ticks: Sequence[float], labels: Sequence[str]) -> None:
        """Draw the horizontal axis: labels below, a faint grid line at each."""
        self.ax.set_xticks(list(ticks), list(labels))
        self.ax.set_xticks([], minor=True)
        self.ax.tick_params(
            axis="x", length=0, pad=0.35 * self.size, labelsize=self.size * 0.9, labelcolor=FAINT
        )
        self.ax.grid(visible=True, axis="x", color=GRID, linewidth=0.7)
        self.ax.set_yticks([])

    def tick_room(self) -> float:
        """Return the points the tick labels take below the plot."""
        return 1.65 * self.size


def spaced(
    ticks: Callable[[int], Ticks], share: Callable[[float], float], width: float, size: float
) -> Ticks:
    """Return the most ticks whose labels stay apart on an axis of ``width`` points.

    ``ticks`` gives places and labels for a wished number, ``share`` where a place lies on
    the axis, 0 to 1.
    """
    for most in range(8, 1, -1):
        places, labels = ticks(most)
        edges = [
            (share(place) * width, text_width(label, size) / 2 + 0.5 * size)
            for place, label in zip(places, labels, strict=True)
        ]
        if all(b - a >= half + next_half for (a, half), (b, next_half) in pairwise(edges)):
            return places, labels
    return ticks(1)
