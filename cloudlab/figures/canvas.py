"""Styles (sizes, colours, patterns, fonts), and the place that a figure takes in one of them.

Texts stand around the plot, the plot in the room that is left; three styles leave the caller's
settings of matplotlib alone.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from matplotlib import cycler  # type: ignore[attr-defined]
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.transforms import Affine2D, ScaledTranslation

from cloudlab.figures.data import VOLUMES

#: Larger and smaller type, in units of the type size.
LARGE, SMALL = 1.3, 0.85
SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"
#: Font -> what a viewer of an SVG without it should take; Verdana is as wide as DejaVu Sans.
FALLBACKS = {
    f"'{SANS}'": f"'{SANS}', Verdana, Geneva, sans-serif",
    f"'{MONO}'": f"'{MONO}', Menlo, Consolas, monospace",
}

# matplotlib's settings belong to the whole process, and widgets draw from several threads.
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Size:
    """Width in inches, type size in points, pixels per inch, and height where it is fixed."""

    width: float
    type_pt: float
    dpi: int
    height: float = 0.0


#: A column on a screen (800 pixels), a slide of 1600 x 900, and a column of a printed page.
SIZES = {
    "screen": Size(8.0, 10.0, 100),
    "slide": Size(16.0, 20.0, 100, 9.0),
    "page": Size(3.3, 6.8, 300),
}


@dataclass(frozen=True)
class Look:
    """How a thing is drawn: its fill, the colour of text on it and of its edge, a pattern."""

    fill: str
    text: str = "#FFFFFF"
    line: str = "#FFFFFF"
    hatch: str = ""

    @property
    def stroke(self) -> str:
        """The colour of a line or a dot, which have no pattern."""
        return self.line if self.hatch else self.fill


@dataclass(frozen=True)
class Style:
    """Colours of background, text, secondary text and grid, and how things look.

    ``pale`` fills the part of a partition outside its filesystem.  ``looks`` are by layer or
    kind of block, ``series`` for things without a look of their own: partitions by number, runs
    by order.  ``dashes`` are the patterns of lines, by layer.
    """

    paper: str
    ink: str
    faint: str
    grid: str
    pale: str
    looks: Mapping[str, Look]
    series: Sequence[Look]
    dashes: Mapping[str, Any]

    @contextlib.contextmanager
    def in_use(self, pt: float = 10.0) -> Iterator[None]:
        """Set matplotlib up for the block, whatever the caller uses elsewhere.

        ``pt`` is the size of type in points, which lines and distances follow.
        """
        tick = {"labelsize": SMALL * pt, "major.pad": 0.4 * pt, "major.size": 0}
        own = {
            "font.family": [SANS], "font.size": pt, "text.parse_math": False,
            "text.color": self.ink, "axes.edgecolor": self.grid, "axes.axisbelow": True,
            "axes.titlesize": LARGE * pt, "axes.titleweight": "bold",
            "axes.prop_cycle": cycler(color=[self.faint]), "axes.xmargin": 0, "axes.ymargin": 0,
            "axes.grid": True, "axes.grid.axis": "x", "grid.color": self.grid,
            "grid.linewidth": 0.06 * pt, "lines.linewidth": 0.07 * pt,
            "lines.markeredgewidth": 0.15 * pt, "lines.solid_capstyle": "butt",
            "patch.linewidth": 0.06 * pt, "hatch.linewidth": 0.06 * pt,
            # Text stays text: an editor can change it, and a search finds it.
            "svg.fonttype": "none", "svg.hashsalt": "cloudlab", "pdf.fonttype": 42,
            "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
            **{f"{axis}.{name}": tick[name] for axis in ("xtick", "ytick") for name in tick},
            "xtick.color": self.faint, "ytick.color": self.faint,
            "figure.facecolor": self.paper, "axes.facecolor": self.paper,
        }  # fmt: skip
        with _LOCK, matplotlib.style.context(["default", own]):
            yield


# Okabe and Ito's colours (matplotlib's sequence "okabe_ito"), which people tell apart whatever
# their colour vision; greys and hatches instead of them; and the colours of text on these.
_COLOURS = {
    "image_file": ("#CC79A7", "#FFFFFF", "xxxx"),
    "overlay_file": ("#009E73", "#E6E6E6", "...."),
    "partition": ("#0072B2", "#484848", ""),
    "volume": ("#56B4E9", "#B0B0B0", ""),
    "filesystem": ("#E69F00", "#E4E4E4", "////"),
    "used": ("#8F3F00", "#000000", ""),
}
_SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_GREYS = ("#555555", "#B8B8B8", "#888888", "#DEDEDE", "#A0A0A0", "#6E6E6E", "#F2F2F2")
_HATCHES = ("", "////", "....", "xxxx", "\\\\", "----", "++++")
_LIGHT_TEXT = ("partition", "overlay_file", "used")


def _style(
    paper: str, ink: str, faint: str, grid: str, pale: str, *, free: Look, grey: bool = False
) -> Style:
    line = "#6E6E6E" if grey else paper
    looks = {"unallocated": free}
    for kind, (colour, tone, hatch) in _COLOURS.items():
        text = "#FFFFFF" if kind in _LIGHT_TEXT and not hatch * grey else "#111111"
        looks[kind] = Look(tone if grey else colour, text, line, hatch * grey)
    looks |= dict.fromkeys(VOLUMES, looks["volume"])
    looks |= dict.fromkeys(("virtual_disk", "image_disk", "other_disk"), Look(faint, paper, line))
    series = [
        Look(tone if grey else colour, ink, line, hatch * grey)
        for colour, tone, hatch in zip(_SERIES, _GREYS, _HATCHES, strict=True)
    ]
    dashes = {"overlay_file": (0, (1, 1))} | ({"filesystem": (0, (4, 1.5))} if grey else {})
    return Style(paper, ink, faint, grid, pale, looks, series, dashes)


STYLES: Mapping[str, Style] = {
    "light": _style(
        "#FFFFFF", "#1A1A1A", "#595959", "#DDDDDD", "#D9E9F4",
        free=Look("#F3F3F3", "#595959", "#A6A6A6"),
    ),
    "dark": _style(
        "#16191D", "#F2F2F2", "#B4BAC2", "#3A4048", "#163A52",
        free=Look("#252A30", "#C3C9D0", "#6B737D"),
    ),
    "print": _style(
        "#FFFFFF", "#000000", "#404040", "#CFCFCF", "#F4F4F4",
        free=Look("#FFFFFF", "#000000", "#6E6E6E"), grey=True,
    ),
}  # fmt: skip

#: Distance of two lines of text, in units of the type size.
LINE = 1.3

# Type is measured large, where hinting does not matter; drawn small it is a little wider.
_RENDERER: Any = RendererAgg(1, 1, 72)  # type: ignore[no-untyped-call]
_MEASURE_PT, _HINTED = 100.0, 1.03
_SWATCH = 1.7
# The share of the place's width that a plot takes at least.
_LEAST_WIDTH = 0.25
# How often smaller type is tried where the place does not grow, and the least share of it.
_TRIES, _LEAST = 5, 0.5

#: A legend: texts behind a swatch, or behind a marker such as ``|``.
Legend = Sequence[tuple[str, Look] | tuple[str, Look, str]]


@functools.lru_cache(maxsize=16384)
def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of one line of text in points."""
    font = FontProperties(family=[SANS], size=_MEASURE_PT, weight="bold" if bold else "normal")
    width, _, _ = _RENDERER.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / _MEASURE_PT * _HINTED * size


def wrap(text: str, width: float, size: float, *, bold: bool = False) -> list[str]:
    """Break text into lines of at most ``width`` points; a number stays with its unit."""
    lines = [""]
    for word in re.sub(r"(\d) (?=(?:[KMGTPE]i)?B\b|s\b)", "\\1\u00a0", text).split(" "):
        # A word that is wider than a line is broken anywhere.
        wide = text_width(word, size, bold=bold) > width
        for piece in f" {word}" if wide else [f" {word}"]:
            if text_width((lines[-1] + piece).strip(" "), size, bold=bold) > width:
                lines.append("")
            lines[-1] += piece
    return [line.strip(" ") for line in lines if line.strip(" ")]


def draw_to_fit(
    ax: Axes | None, size: str, style: str, head: tuple[str, str, str],
    draw: Callable[[Canvas], None],
) -> Axes:  # fmt: skip
    """Draw in a new figure or the place of an Axes, in smaller type where that is too small.

    ``head`` is what stands above the plot: a headline, and below it a name and its settings.
    Returned are the Axes that hold the figure.
    """
    place: Any = None
    scale = shrink = 1.0
    if ax is not None:
        whole: Any = ax.get_figure(root=True)
        if whole.get_layout_engine() is not None:
            # The caller's layout decides on the places, which then stay.
            whole.draw_without_rendering()
            whole.set_layout_engine("none")
        place, box = ax.get_position(original=True), ax.get_window_extent()
        scale = min(box.width, 2 * box.height) / whole.dpi / SIZES[size].width
    for _ in range(_TRIES):
        pt = min(max(SIZES[size].type_pt * scale * shrink, 4.5), 26.0)
        with STYLES[style].in_use(pt):
            if ax is not None:
                ax.set_position(place)
                ax.clear()
            canvas = Canvas(ax, size, style, pt, head)
            draw(canvas)
        if canvas.fits >= 1 or shrink == _LEAST:
            break
        shrink = max(_LEAST, 0.98 * shrink * canvas.fits)
    return canvas.ax


class Canvas:
    """The place of one figure: all of a new one, or where an Axes of the caller is.

    A new figure is as high as its content.  ``pt`` is the type size in points; ``width`` and
    ``height`` are the place's, ``plot_width`` is the Axes' in points once :meth:`fit` was
    called, and ``fits`` is the share of the needed room that there was, at most 1.  ``paper``
    transforms points from the place's upper left corner, y downwards.  To be used within
    ``style.in_use()``.
    """

    def __init__(
        self, ax: Axes | None, size: str, style: str, pt: float, head: tuple[str, str, str]
    ) -> None:
        self.style: Style = STYLES[style]
        self.pt, self._size, self.own = pt, SIZES[size], ax is None
        self._pad = pad = self._size.type_pt if ax is None else 0.0
        if ax is None:
            shape = self._size.width, self._size.height or self._size.width
            ax = Figure(figsize=shape, dpi=self._size.dpi).add_axes((0, 0, 1, 1))
        self.ax = ax
        self.figure: Figure = ax.get_figure(root=True)  # type: ignore[assignment]
        place = ax.get_position(original=True)
        self._corner = place.x0, place.y1
        parent_width, parent_height = self._parent_size()
        self.width = place.width * parent_width - 2 * pad
        self.height = place.height * parent_height - 2 * pad
        self.plot_width, self.fits = self.width, 1.0
        self.paper = (
            Affine2D().translate(pad, pad).scale(1 / 72, -1 / 72)
            + self.figure.dpi_scale_trans
            + ScaledTranslation(place.x0, place.y1, ax.figure.transSubfigure)  # type: ignore[arg-type]
        )  # fmt: skip
        title, name, code = head
        self._title = wrap(title, self.width, pt * LARGE, bold=True)
        self._lines = [(line, False) for line in wrap(name, self.width, pt)]
        self._lines += [(line, True) for line in code.splitlines()]

    def look(self, layer: str) -> Look:
        """Return how a layer is drawn."""
        return self.style.looks.get(layer, self.style.looks["virtual_disk"])

    def faded(self, colour: str, share: float) -> str:
        """Return a colour of which only a share is left on the paper."""
        pairs = zip(to_rgb(colour), to_rgb(self.style.paper), strict=True)
        red, green, blue = (share * one + (1 - share) * other for one, other in pairs)
        return to_hex((red, green, blue))

    def _parent_size(self) -> tuple[float, float]:
        box, points = self.ax.figure.bbox, 72 / self.figure.dpi
        return box.width * points, box.height * points

    def fit(
        self, least: float, most: float, *, legend: Legend = (), notes: Sequence[str] = ()
    ) -> None:
        """Put the Axes, with all that was drawn at its sides, between the texts.

        The plot needs ``least`` points of height and can use ``most``.  The legend is drawn
        above it, the notes small below it.  matplotlib's constrained layout cannot do so for
        an Axes of the caller's figure, but its measuring can.
        """
        small, rows = SMALL * self.pt, self._flow(legend)
        foot = wrap(" ".join(notes), self.width, small)
        lines = len(self._title) * LARGE + len(self._lines) + 1.1 * len(rows)
        above = (lines * LINE + 0.7 * bool(lines)) * self.pt
        below = (len(foot) * LINE + 0.5 * bool(foot)) * small
        for _ in range(2):
            # How far ticks and annotations leave the Axes, in points.
            box, points = self.ax.get_window_extent(), 72 / self.figure.dpi
            tight = self.ax.get_tightbbox(for_layout_only=True) or box
            sides = box.x0 - tight.x0, tight.x1 - box.x1, tight.y1 - box.y1, box.y0 - tight.y0
            left, right, top, bottom = (max(0.0, side * points) for side in sides)
            needed = above + top + least + bottom + below
            fixed = self._size.height * 72 - 2 * self._pad if self._size.height else needed
            self.fits = min(1.0, ((fixed if self.own else self.height) + 0.5) / needed)
            if self.own:
                self.height = max(needed, fixed)
                self.figure.set_figheight((self.height + 2 * self._pad) / 72)
            self.plot_width = max(1.0, self.width - left - right)
            high = max(1.0, min(self.height - needed + least, most))
            wide_points, high_points = self._parent_size()
            x = self._corner[0] + (self._pad + left) / wide_points
            y = self._corner[1] - (self._pad + above + top + high) / high_points
            self.ax.set_position((x, y, self.plot_width / wide_points, high / high_points))
        self.fits = min(self.fits, self.plot_width / (_LEAST_WIDTH * self.width))
        self._draw_head(rows)
        for number, line in enumerate(foot):
            y = above + top + high + bottom + (0.5 + (number + 0.5) * LINE) * small
            self._write(0, y, line, scale=SMALL, color=self.style.faint)

    def _flow(self, legend: Legend) -> list[list[tuple[float, Any]]]:
        """Place the entries of a legend side by side in lines: (left, entry) by line."""
        rows: list[list[tuple[float, Any]]] = []
        right = self.width
        for entry in legend:
            wide = _SWATCH * self.pt + text_width(entry[0], self.pt)
            if not rows or right + wide > self.width:
                rows.append([])
                right = 0.0
            rows[-1].append((right, entry))
            right += wide + 1.3 * self.pt
        return rows

    def _draw_head(self, rows: list[list[tuple[float, Any]]]) -> None:
        size, y = self.pt, len(self._title) * LARGE * LINE * self.pt
        where: dict[str, Any] = {"transform": self.paper, "clip_on": False}
        if not self.own:
            # The caller's figure may have another colour than the text is made for.
            paper = Look(self.style.paper, line="none")
            self.rectangle((0, 0), self.width, self.height, paper, zorder=-1, **where)
        if self._title:
            # The Axes' own title, so that ax.get_title() and accessibility tools find it.
            title = self.ax.set_title("\n".join(self._title), loc="left", y=1.0, linespacing=1.12)
            title.set(transform=self.paper, position=(0, 0), verticalalignment="top")
        for line, mono in self._lines:
            scale = SMALL if mono else 1.0
            self._write(0, y + 0.65 * size, line, scale=scale, mono=mono, color=self.style.faint)
            y += LINE * size
        for row in rows:
            y += 1.1 * LINE * size
            for left, (text, look, *marker) in row:
                if marker:
                    at = left + 0.38 * _SWATCH * size
                    self.mark(at, y - 0.5 * size, marker[0], look, **where)
                else:
                    corner = left, y - 0.9 * size
                    self.rectangle(corner, 0.76 * _SWATCH * size, 0.8 * size, look, **where)
                self._write(left + _SWATCH * size, y - 0.5 * size, text)

    def _write(self, x: float, y: float, text: str, **more: Any) -> None:
        y += 0.36 * self.pt * more.get("scale", 1.0)
        self.label(x, y, text, transform=self.paper, va="baseline", **more)

    def label(
        self, x: float, y: float, text: str, *, offset: tuple[float, float] | None = None,
        scale: float = 1.0, bold: bool = False, mono: bool = False, **more: Any,
    ) -> None:  # fmt: skip
        """Write one line, its small letters centred on a point of the Axes.

        ``offset`` moves it by points; such a text may lie outside the Axes, which makes room.
        """
        options = {
            "fontsize": self.pt * scale, "fontweight": "bold" if bold else "normal",
            "fontfamily": [MONO if mono else SANS], "va": "center_baseline",
        } | more  # fmt: skip
        if offset is not None:
            options |= {"xytext": offset, "textcoords": "offset points", "annotation_clip": False}
            self.ax.annotate(text, (x, y), **options)
        else:
            self.ax.text(x, y, text, **options)

    def rectangle(
        self, corner: tuple[float, float], width: float, height: float, look: Look, **more: Any
    ) -> None:
        """Draw a rectangle, in units of the Axes or of ``transform``."""
        options = {"facecolor": look.fill, "edgecolor": look.line, "hatch": look.hatch or None}
        self.ax.add_patch(Rectangle(corner, width, height, **(options | more)))

    def mark(self, x: Any, y: Any, marker: str, look: Look, **more: Any) -> None:
        """Draw markers in a look's colour: ``|`` a tick, ``D`` hollow, others filled."""
        fill = self.style.paper if marker == "D" else look.stroke
        options: dict[str, Any] = {
            "markerfacecolor": fill, "markeredgecolor": look.stroke, "clip_on": False,
            "markersize": self.pt * (1.1 if marker == "|" else 0.75), "zorder": 3,
        }  # fmt: skip
        self.ax.plot(x, y, marker, **(options | more))
