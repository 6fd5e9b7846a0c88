"""Colours, hatches and fonts: one look for all figures, set for a block only."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

INK = "#1A1A1A"
FAINT = "#5C5C5C"
GRID = "#D9D9D9"

#: Fonts with Japanese glyphs, the first two installed ones are fallbacks for DejaVu Sans.
CJK_FAMILIES = (
    "Noto Sans CJK JP",
    "Noto Sans JP",
    "Source Han Sans JP",
    "IPAexGothic",
    "IPAPGothic",
    "IPAGothic",
    "VL PGothic",
    "TakaoPGothic",
    "Hiragino Sans",
    "Hiragino Kaku Gothic ProN",
    "Yu Gothic",
    "Meiryo",
    "MS Gothic",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
)


# matplotlib's settings and Python's warning filters belong to the whole process, and
# widgets draw from several threads.
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Look:
    """How one thing is filled: readable in colour by its fill, without by its hatch."""

    fill: str
    hatch: str = ""
    line: str = INK

    def patch(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of a matplotlib patch."""
        return {
            "facecolor": self.fill,
            "hatch": self.hatch or None,
            "edgecolor": self.line,
            "linewidth": 0.6,
        } | more


# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), partly as tints under a hatch.
LOOKS = {
    "image_file": Look("#CC79A7", "..", "#6E2C52"),
    "overlay_file": Look("#009E73", "xxx", "#00402F"),
    "virtual_disk": Look("#E3E3E3", "", "#5C5C5C"),
    "partition": Look("#BFE0F4", "///", "#0072B2"),
    "filesystem": Look("#E69F00", "\\\\\\", "#8A5F00"),
    "used": Look("#A84300", "", "#5E2600"),
    "unallocated": Look("#FFFFFF", "", "#8C8C8C"),
}

_HATCHES = ("", "////", "\\\\\\\\", "xxxx", "....", "----", "||||", "++++", "oooo")
_FILLS = (
    ("#0072B2", "#00324E"),
    ("#E69F00", "#6B4A00"),
    ("#009E73", "#00402F"),
    ("#CC79A7", "#6E2C52"),
    ("#56B4E9", "#17567D"),
    ("#D55E00", "#5E2900"),
    ("#F0E442", "#6F6800"),
)

#: For things without a look of their own: partitions by number, runs by order.  Two of the
#: same hatch differ in lightness, so that they differ in black and white, too.
SERIES = tuple(
    Look(_FILLS[number % len(_FILLS)][0], _HATCHES[hatch], _FILLS[number % len(_FILLS)][1])
    for number, hatch in enumerate((0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 0, 7, 1, 2, 8, 2, 4, 6, 5, 3, 0))
)


LATIN = "DejaVu Sans"
_FIRST_CJK = "\u2e80"


def families(text: str) -> list[str]:
    """Return the font families that a text takes its glyphs from, best first."""
    return [LATIN, *_installed_cjk()] if max(text, default="") >= _FIRST_CJK else [LATIN]


@functools.cache
def _installed_cjk() -> list[str]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return [name for name in CJK_FAMILIES if name in installed][:2]


@contextlib.contextmanager
def look() -> Iterator[None]:
    """Set the figures' style for the block, whatever style the caller uses elsewhere."""
    import matplotlib.style

    own = {
        "font.family": [LATIN],
        "text.usetex": False,
        "text.parse_math": False,
        "text.color": INK,
        "axes.edgecolor": GRID,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "xtick.color": FAINT,
        "ytick.color": INK,
        "hatch.linewidth": 0.7,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
    }
    with _LOCK, matplotlib.style.context(["default", own]):
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep matplotlib from telling, text by text, what a fallback font lacks.

    A glyph that no font has is drawn as a box, which save_figure reports once; a
    bold that a Japanese font lacks is drawn in its regular weight.
    """
    log = logging.getLogger("matplotlib.font_manager")
    with _LOCK:
        level = log.level
        log.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Glyph .* missing")
                yield
        finally:
            log.setLevel(level)
