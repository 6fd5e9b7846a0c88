"""Sizes, colours, patterns and fonts: three styles that leave the caller's settings alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        import matplotlib.style
        from matplotlib import cycler  # type: ignore[attr-defined]

        off, none = ("axes.spines.top", "axes.spines.right", "axes.spines.left"), ("xtick", "ytick")
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
            **dict.fromkeys(off, False),
            **dict.fromkeys([f"{axis}.labelsize" for axis in none], SMALL * pt),
            **dict.fromkeys([f"{axis}.major.pad" for axis in none], 0.4 * pt),
            **dict.fromkeys([f"{axis}.major.size" for axis in none], 0),
            **dict.fromkeys([f"{axis}.color" for axis in none], self.faint),
            **dict.fromkeys(("figure.facecolor", "axes.facecolor"), self.paper),
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
