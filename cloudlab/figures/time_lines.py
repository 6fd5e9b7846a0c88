"""Drawing the timeline: steps over shaded stages, named at their right ends."""

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
_SMALL = 0.85
_KEY = 2.2

Span = tuple[str, float, float]


@dataclass(frozen=True)
class _Plan:
    header: Header
    strip: float
    upright: bool
    ticks: list[int]
    left: float
    right: float
    ends: list[tuple[str, str, str]]
    plot_width: float
    height: float


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
    high = float(max(1, disk, data["size_bytes"].max()))
    last = max([float(data["time_s"].max()), *(end for _, _, end in spans), 0.1])
    with look():
        frame = Frame(ax)
        plan = frame.fit(
            lambda: _plan(frame, data, spans, limits=(last, high), title=title, say=say)
        )
        frame.place(plan.header, plan.left, plan.right, frame.tick_room())
        axes = frame.ax
        axes.set_xlim(0, last)
        # Room above the highest line for the stages' names.
        free = max(1.0, frame.plot_height - plan.strip - 0.4 * frame.size)
        axes.set_ylim(0, high * frame.plot_height / free)
        _bands(frame, spans, plan, last)
        _axes(frame, plan, last)
        for layer, rows in data.groupby("layer", sort=False):
            _draw_line(frame, str(layer), rows, last)
        _end_labels(frame, plan, data)
        return axes


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
    ticks = byte_ticks(high, 5)
    left = max(text_width(format_tick(tick), size * 0.9) for tick in ticks) + 0.6 * size
    ends = [
        (str(layer), say[str(layer)], format_bytes(rows["size_bytes"].iloc[-1]))
        for layer, rows in data.groupby("layer", sort=False)
    ]
    texts = [text for _, name, value in ends for text in (name, value)]
    right = max(text_width(text, size) for text in texts) + (_KEY + 0.8) * size
    width = frame.width - left - right
    names = [(name, (end - start) / last * width) for name, start, end in spans]
    small = size * _SMALL
    upright = any(text_width(name, small) + 0.5 * small > room for name, room in names)
    hidden = [name for name, room in names if upright and room < 1.15 * small]
    strip = LINE * small if names else 0.0
    shown = [text_width(name, small) for name, _ in names if name not in hidden]
    if upright and shown:
        strip = max(shown) + 0.6 * small
    note = say["narrow_note"].format(names=", ".join(hidden)) if hidden else ""
    header = frame.header(title, note=note)
    least = max(len(ends) * 2 * LINE + 0.5 * (len(ends) - 1), len(ticks) * 1.2) * size
    height = header.above + header.below + frame.tick_room() + strip + least
    return _Plan(header, strip, upright, ticks, left, right, ends, width, height)


def _bands(frame: Frame, spans: Sequence[Span], plan: _Plan, last: float) -> None:
    small = frame.size * _SMALL
    scale = frame.plot_width / last
    for number, (name, start, end) in enumerate(spans):
        if number % 2 == 0:
            frame.ax.axvspan(start, end, color="#EDEDED", linewidth=0, zorder=0)
        x, room = frame.left + (start + end) / 2 * scale, (end - start) * scale
        if not plan.upright:
            frame.text(x, frame.top + LINE * small / 2, name, scale=_SMALL, ha="center")
        elif room >= 1.15 * small:
            frame.ax.text(
                x, frame.top + 0.3 * small, name, rotation=90, ha="center", va="top",
                fontsize=small, transform=frame.points, fontfamily=families(name),
            )  # fmt: skip


def _axes(frame: Frame, plan: _Plan, last: float) -> None:
    def ticks(most: int) -> Ticks:
        places = second_ticks(last, most)
        return places, [f"{place:g} s" if place else "0" for place in places]

    width = frame.plot_width
    frame.x_axis(*spaced(ticks, lambda place: place / last, width, frame.size * 0.9))
    frame.ax.grid(visible=False, axis="x")
    frame.ax.set_yticks(plan.ticks, [format_tick(tick) for tick in plan.ticks])
    frame.ax.tick_params(
        axis="y", length=0, pad=0.4 * frame.size, labelsize=frame.size * 0.9, labelcolor=FAINT
    )
    frame.ax.grid(visible=True, axis="y", color=GRID, linewidth=0.7)


def _draw_line(frame: Frame, layer: str, rows: pd.DataFrame, last: float) -> None:
    """Draw a step at a sample; where the moment is not known, a faint line between dots."""
    style = _LINES[layer] | {"linewidth": _LINES[layer]["linewidth"] * frame.size}
    size = 0.5 * frame.size
    times: list[float] = []
    values: list[float] = []
    for row in records(rows):
        time, value = float(row.time_s), float(row.size_bytes)
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


def _end_labels(frame: Frame, plan: _Plan, data: pd.DataFrame) -> None:
    size = frame.size
    _, top_value = frame.ax.get_ylim()
    wanted = []
    for layer, name, value in plan.ends:
        size_bytes = float(data.loc[data["layer"] == layer, "size_bytes"].iloc[-1])
        y = frame.top + frame.plot_height * (1 - size_bytes / top_value)
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
