"""Drawing the timeline: steps over shaded stages, named at their right ends.

The overlay file, a thousandth of the disk, has a strip of its own below, on its own axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from cloudlab.figures.frame import LINE, Frame, Header, Ticks, spaced, text_width
from cloudlab.figures.style import FAINT, GRID, LOOKS, families, look
from cloudlab.figures.tables import records
from cloudlab.units import byte_ticks, format_bytes, format_tick, second_ticks

_LINES: dict[str, dict[str, Any]] = {
    "partition": {"color": "#0072B2", "linewidth": 0.3},
    "filesystem": {"color": LOOKS["filesystem"].fill, "linewidth": 0.2, "linestyle": (0, (3, 1))},
    "overlay_file": {"color": "#009E73", "linewidth": 0.17, "linestyle": (0, (1, 1))},
}
_OVERLAY = "overlay_file"
_SMALL = 0.85
_KEY = 2.2

Span = tuple[str, float, float]


@dataclass(frozen=True)
class _Name:
    """A stage's name: in lines above its band, upright, or (neither) only in the note."""

    lines: list[str]
    upright: bool = False


@dataclass(frozen=True)
class _Plan:
    header: Header
    names: list[_Name]
    strip: float
    ticks: list[int]
    left: float
    right: float
    ends: list[tuple[str, str, str]]
    overlay: float
    plot_width: float
    height: float


@dataclass(frozen=True)
class _Scales:
    """The two axes in units of the upper one: the overlay file's lies below 0."""

    high: float
    overlay_high: float
    unit: float
    floor: float

    def of(self, layer: str, size: float) -> float:
        """Return where a size is drawn."""
        if layer != _OVERLAY:
            return size
        return self.floor + size / self.overlay_high * self.unit


def draw_time_lines(
    ax: Axes | None,
    data: pd.DataFrame,
    spans: Sequence[Span],
    *,
    disk: int,
    title: str,
    say: dict[str, str],
) -> Axes:
    """Draw what :func:`cloudlab.figures.timeline.timeline_data` returns over the stages."""
    large = data.loc[data["layer"] != _OVERLAY, "size_bytes"]
    high = float(max(1, disk, *large)) if len(large) else 0.0
    last = max([float(data["time_s"].max()), *(end for _, _, end in spans), 0.1])
    with look():
        frame = Frame(ax)
        plan = frame.fit(
            lambda: _plan(frame, data, spans, limits=(last, high), title=title, say=say)
        )
        frame.place(plan.header, plan.left, plan.right, _below(frame))
        axes = frame.ax
        axes.set_xlim(0, last)
        scales = _scales(frame, data, plan, high)
        # Room above the highest line for the stages' names.
        axes.set_ylim(scales.floor if plan.overlay else 0, scales.high)
        _bands(frame, spans, plan, last)
        _axes(frame, plan, scales, last, say=say)
        for layer, rows in data.groupby("layer", sort=False):
            _draw_line(frame, str(layer), rows, last, scales)
        _end_labels(frame, plan, data, scales)
        return axes


def _scales(frame: Frame, data: pd.DataFrame, plan: _Plan, high: float) -> _Scales:
    size = frame.size
    overlay = data.loc[data["layer"] == _OVERLAY, "size_bytes"]
    most = float(max(1, *overlay)) if len(overlay) else 1.0
    free = frame.plot_height - plan.strip - 0.4 * size
    if not high:
        # The overlay file is all there is.
        unit = most
        return _Scales(most * frame.plot_height / max(1.0, free), most, unit, 0.0)
    gap = 1.2 * size if plan.overlay else 0.0
    per_point = high / max(1.0, free - plan.overlay - gap)
    floor = -(plan.overlay + gap) * per_point
    top = high + (plan.strip + 0.4 * size) * per_point
    return _Scales(top, most, plan.overlay * per_point, floor)


def _plan(
    frame: Frame,
    data: pd.DataFrame,
    spans: Sequence[Span],
    *,
    limits: tuple[float, float],
    title: str,
    say: dict[str, str],
) -> _Plan:
    size = frame.size
    last, high = limits
    ticks = byte_ticks(high, 5) if high else []
    ends = [
        (str(layer), say[str(layer)], format_bytes(rows["size_bytes"].iloc[-1]))
        for layer, rows in data.groupby("layer", sort=False)
    ]
    strip = any(layer == _OVERLAY for layer, _, _ in ends)
    most = data.loc[data["layer"] == _OVERLAY, "size_bytes"].max() if strip else 0
    labels = [format_tick(tick) for tick in [*ticks, *_overlay_ticks(most)]]
    left = max(text_width(label, size * 0.9) for label in labels) + 0.6 * size
    texts = [text for _, name, value in ends for text in (name, value)]
    right = max(text_width(text, size) for text in texts) + (_KEY + 0.8) * size
    width = frame.width - left - right
    small = size * _SMALL
    names = [
        _name(name, (end - start) / last * width, small, frame.height) for name, start, end in spans
    ]
    hidden = [span[0] for span, name in zip(spans, names, strict=True) if not name.lines]
    note = say["narrow_note"].format(names=", ".join(hidden)) if hidden else ""
    header = frame.header(title, note=note)
    above = max((_room(name, small) for name in names), default=0.0)
    overlay = 2.6 * LINE * size if strip and high else 0.0
    lines = len(ends) - bool(overlay)
    least = max(lines * (2 * LINE + 0.5), len(ticks) * 1.2) * size
    height = header.above + header.below + _below(frame) + above + least + overlay + 1.6 * size
    return _Plan(header, names, above, ticks, left, right, ends, overlay, width, height)


def _name(name: str, room: float, size: float, height: float) -> _Name:
    """Write a stage's name where it fits: side by side, in lines, upright, or not at all."""
    for lines in ([name], name.split(" ")):
        if max(text_width(line, size) for line in lines) + 0.5 * size <= room:
            return _Name(lines)
    # A long one would take the plot's room.
    upright = room >= 1.15 * size and text_width(name, size) <= 0.22 * height
    return _Name([name] if upright else [], upright)


def _room(name: _Name, size: float) -> float:
    if name.upright:
        return text_width(name.lines[0], size) + 0.6 * size
    return len(name.lines) * LINE * size


def _below(frame: Frame) -> float:
    return frame.tick_room() + LINE * _SMALL * frame.size


def _bands(frame: Frame, spans: Sequence[Span], plan: _Plan, last: float) -> None:
    small = frame.size * _SMALL
    scale = frame.plot_width / last
    for number, ((_, start, end), name) in enumerate(zip(spans, plan.names, strict=True)):
        if number % 2 == 0:
            frame.ax.axvspan(start, end, color="#EDEDED", linewidth=0, zorder=0)
        x = frame.left + (start + end) / 2 * scale
        if name.upright:
            frame.ax.text(
                x, frame.top + 0.3 * small, name.lines[0], rotation=90, ha="center", va="top",
                fontsize=small, transform=frame.points, fontfamily=families(name.lines[0]),
            )  # fmt: skip
            continue
        for line, text in enumerate(name.lines):
            y = frame.top + (line + 0.5) * LINE * small
            frame.text(x, y, text, scale=_SMALL, ha="center")


def _overlay_ticks(most: float) -> list[int]:
    return byte_ticks(float(most), 2) if most else []


def _axes(frame: Frame, plan: _Plan, scales: _Scales, last: float, *, say: dict[str, str]) -> None:
    def ticks(most: int) -> Ticks:
        places = second_ticks(last, most)
        return places, [f"{place:g}" for place in places]

    width = frame.plot_width
    frame.x_axis(*spaced(ticks, lambda place: place / last, width, frame.size * 0.9))
    frame.ax.grid(visible=False, axis="x")
    own = any(layer == _OVERLAY for layer, _, _ in plan.ends)
    below = _overlay_ticks(scales.overlay_high) if own else []
    places = [*plan.ticks, *(scales.of(_OVERLAY, tick) for tick in below)]
    frame.ax.set_yticks(places, [format_tick(tick) for tick in [*plan.ticks, *below]])
    frame.ax.tick_params(
        axis="y", length=0, pad=0.4 * frame.size, labelsize=frame.size * 0.9, labelcolor=FAINT
    )
    frame.ax.grid(visible=True, axis="y", color=GRID, linewidth=0.7)
    y = frame.top + frame.plot_height + frame.tick_room() + 0.5 * LINE * _SMALL * frame.size
    middle = frame.left + frame.plot_width / 2
    frame.text(middle, y, say["since_launch"], scale=_SMALL, ha="center", color=FAINT)


def _draw_line(frame: Frame, layer: str, rows: pd.DataFrame, last: float, scales: _Scales) -> None:
    """Draw a step at a sample; where the moment is not known, a faint line between dots."""
    style = _LINES[layer] | {"linewidth": _LINES[layer]["linewidth"] * frame.size}
    size = 0.5 * frame.size
    times: list[float] = []
    values: list[float] = []
    for row in records(rows):
        time, value = float(row.time_s), scales.of(layer, float(row.size_bytes))
        if values and row.stage == "sample":
            times, values = [*times, time], [*values, values[-1]]
        elif values and value != values[-1]:
            frame.ax.plot(
                [times[-1], time], [values[-1], value], "o:", color=style["color"], alpha=0.6,
                linewidth=0.12 * frame.size, markersize=size, clip_on=False,
            )  # fmt: skip
            times, values = [*times, math.nan], [*values, math.nan]
        times, values = [*times, time], [*values, value]
    frame.ax.plot([*times, last], [*values, values[-1]], solid_capstyle="butt", zorder=3, **style)


def _end_labels(frame: Frame, plan: _Plan, data: pd.DataFrame, scales: _Scales) -> None:
    size = frame.size
    bottom, top_value = frame.ax.get_ylim()
    wanted = []
    for layer, name, value in plan.ends:
        size_bytes = float(data.loc[data["layer"] == layer, "size_bytes"].iloc[-1])
        share = (scales.of(layer, size_bytes) - bottom) / (top_value - bottom)
        y = frame.top + frame.plot_height * (1 - share)
        wanted.append((y, layer, name, value))
    wanted.sort(key=lambda item: item[0])
    places = apart(
        [y for y, *_ in wanted], (2 * LINE + 0.2) * size,
        frame.top + LINE * size, frame.top + frame.plot_height - LINE * size,
    )  # fmt: skip
    edge = frame.left + frame.plot_width
    for place, (y, layer, name, value) in zip(places, wanted, strict=True):
        style = _LINES[layer] | {"linewidth": _LINES[layer]["linewidth"] * size}
        # Thin and grey, lest the way to the name be read as a change of size.
        frame.ax.plot(
            [edge + 0.1 * size, edge + 0.7 * size], [y, place],
            transform=frame.points, clip_on=False, color="#999999", linewidth=0.06 * size,
        )  # fmt: skip
        frame.ax.plot(
            [edge + 0.7 * size, edge + _KEY * size], [place, place],
            transform=frame.points, clip_on=False, **style,
        )  # fmt: skip
        x = edge + (_KEY + 0.5) * size
        frame.text(x, place - LINE / 2 * size, name)
        frame.text(x, place + LINE / 2 * size, value, bold=True)


def apart(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Move sorted places as little as needed to be ``distance`` apart within the limits."""
    places: list[float] = []
    for place in wanted:
        least = places[-1] + distance if places else low
        places.append(max(place, least))
    limit = high
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], limit)
        limit = places[index] - distance
    return places
