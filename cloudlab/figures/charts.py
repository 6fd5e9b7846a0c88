"""Drawing the figures with an axis of bytes or seconds: rows of bars and dots, and steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from cloudlab.figures import words
from cloudlab.figures.canvas import LINE, SMALL, Canvas, Look, text_width, wrap
from cloudlab.figures.data import ROOT, jumps, records
from cloudlab.figures.words import Given
from cloudlab.units import (
    TOLERANCE,
    byte_ticks,
    format_bytes,
    format_seconds,
    format_tick,
    printed_note,
    second_ticks,
)

# A bar and the room between rows, in units of the type size.
_BAR, _GAP = 1.3, 0.75
_NAME_SHARE, _SETTING_SHARE = 0.34, 0.4
_SIGNS = {"right": "✓ ", "wrong": "✗ "}
# More runs than these are sorted by what grew.
_MOST_UNSORTED = 6
_MARKERS, _MOST_TICKS = "osv^pX<>", 7
# Files smaller than this share of the scale are shown enlarged, too, from there on.
_SMALL_SHARE, _ENLARGED_FROM = 0.1, 0.16


@dataclass(frozen=True)
class Bar:
    """Parts (start, end, look) on the axis, a value behind them, perhaps a tick over them."""

    parts: Sequence[tuple[float, float, Look]]
    value: str
    note: str = ""
    tick: float | None = None

    @property
    def end(self) -> float:
        """Where the last part ends."""
        return max((end for _, end, _ in self.parts), default=0.0)


def _draw_bar(canvas: Canvas, bar: Bar, y: float) -> None:
    """Draw a bar whose centre is at ``y``, with its value behind it."""
    size = canvas.pt
    for start, end, look in bar.parts:
        corner = start, y - _BAR / 2 * size
        canvas.rectangle(corner, end - start, _BAR * size, look, edgecolor=look.stroke)
    if bar.tick is not None:
        canvas.mark(bar.tick, y, "|", Look(canvas.style.ink))
    behind = 0.5 * size
    canvas.label(bar.end, y, bar.value, offset=(behind, 0))
    behind += text_width(bar.value, size) + 0.5 * size
    canvas.label(bar.end, y, bar.note, offset=(behind, 0), scale=SMALL, color=canvas.style.faint)


def _draw_names(canvas: Canvas, lines: Sequence[str], y: float) -> None:
    """Write lines at the left of the Axes, centred on ``y``."""
    for number, line in enumerate(lines):
        down = (number - (len(lines) - 1) / 2) * LINE * canvas.pt
        canvas.label(0, y, line, offset=(-0.7 * canvas.pt, -down), ha="right")


def _draw_rows(canvas: Canvas, rows: Sequence[tuple[str, Sequence[Bar]]]) -> float:
    """Draw bars below each other, named at the left; return the points of height they need."""
    y = 0.0
    for name, bars in rows:
        lines = wrap(name, _NAME_SHARE * canvas.width, canvas.pt)
        high = max(len(lines) * LINE, len(bars) * _BAR * 1.15) * canvas.pt
        for number, bar in enumerate(bars):
            down = (number - (len(bars) - 1) / 2) * _BAR * 1.15 * canvas.pt
            _draw_bar(canvas, bar, y + high / 2 + down)
        _draw_names(canvas, lines, y + high / 2)
        y += high + _GAP * canvas.pt
    return y - 0.5 * _GAP * canvas.pt


def _byte_axis(canvas: Canvas, high: float, rows: float, share: float) -> None:
    """Set the scales of bytes and rows; the plot takes about this share of the place."""
    canvas.ax.set(xlim=(0, high), ylim=(rows, 0), yticks=[])
    ticks = byte_ticks(high, max(1, int(share * canvas.width / (6.5 * canvas.pt))))
    canvas.ax.set_xticks(ticks, [format_tick(tick) for tick in ticks])
    canvas.ax.get_xticklabels()[0].set_horizontalalignment("left")


def _seconds(canvas: Canvas, low: float, high: float, share: float) -> dict[float, str]:
    """Return round times between two -> labels, which have room in this share of the place."""
    step = second_ticks(high - low, max(1, int(share * canvas.width / (6 * canvas.pt))))[1]
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    times = [round(number * step, 6) for number in range(first, last + 1)]
    return {time: f"{time:g} s" for time in times}


def draw_layers(canvas: Canvas, data: pd.DataFrame, _given: Given) -> None:
    """Draw each layer's size on one scale from 0, and the small files enlarged beside it."""
    high = float(max(1, data[["first_bytes", "last_bytes"]].max().max()))

    def paler(look: Look) -> Look:
        return replace(look, fill=canvas.faded(look.fill, 0.5))

    small: list[tuple[str, Bar]] = []
    large: list[tuple[str, Bar]] = []
    for row in records(data):
        first, last, look = int(row.first_bytes), int(row.last_bytes), canvas.look(row.layer)
        parts = [(0.0, float(min(first, last)), look)]
        if last > first:
            parts.append((float(first), float(last), paler(look)))
        note = printed_note(last, row.layer) if row.layer in ROOT else ""
        file = row.layer.endswith("_file") or row.layer == "other_disk"
        rows = small if file and last < _SMALL_SHARE * high else large
        rows.append((words.layer_name(row), Bar(parts, words.span(first, last, "{} → {}"), note)))
    bare = [(name, replace(bar, value="")) for name, bar in small]
    height = _draw_rows(canvas, [(name, [bar]) for name, bar in (*bare, *large)])
    _byte_axis(canvas, high, height, 0.5)
    look = canvas.look("virtual_disk")
    grew = (data["first_bytes"] < data["last_bytes"]).any()
    legend = [("before", look), ("gained", paler(look))] if grew else []
    if small:
        at, faint = 0.5 * _BAR * canvas.pt, canvas.style.faint
        canvas.label(high, at, "enlarged", offset=(0.5 * canvas.pt, 0), scale=SMALL, color=faint)
    canvas.fit(height, height * 1.6, legend=legend)
    if small:
        _draw_enlarged(canvas, [bar for _, bar in small], high)


def _draw_enlarged(canvas: Canvas, bars: Sequence[Bar], high: float) -> None:
    """Draw the first rows once more in the room behind their bars, on a scale of their own."""
    size, left = canvas.pt, _ENLARGED_FROM * high
    step = (_BAR * 1.15 + _GAP) * size
    top, bottom = -0.3 * size, len(bars) * step - 0.45 * size
    most = max(bar.end for bar in bars)
    values = max(text_width(bar.value, size) for bar in bars) / canvas.plot_width * high
    factor = max(0.1 * high, high - left - values - 1.5 * size / canvas.plot_width * high) / most
    frame = Look(canvas.style.paper, line=canvas.style.grid)
    canvas.rectangle((left, top), high - left, bottom - top, frame, linewidth=0.1 * size)
    for y in (top, bottom):
        canvas.ax.plot([most, left], [y, y], color=canvas.style.grid)
    for number, bar in enumerate(bars):
        parts = [(left + a * factor, left + b * factor, look) for a, b, look in bar.parts]
        _draw_bar(canvas, replace(bar, parts=parts), (number + 0.5) * step - 0.5 * _GAP * size)


def draw_scenarios(canvas: Canvas, data: pd.DataFrame, given: Given) -> None:
    """Draw partition and filesystem of each run, a tick where they were before the boot."""
    size, looks, faint = canvas.pt, canvas.style.looks, canvas.style.faint
    names = given.run_names(data)
    runs = list(names)
    if len(runs) > _MOST_UNSORTED:
        runs = [run for group in words.outcomes(data).values() for run in group]
    y = 0.0
    for run in runs:
        for line in wrap(names[run] or "this run", canvas.width, size, bold=True):
            canvas.label(0, y + 0.6 * size, line, bold=True)
            y += LINE * size
        for line in given.setting(run).splitlines():
            canvas.label(0, y + 0.5 * size, line, mono=True, scale=SMALL, color=faint)
            y += LINE * SMALL * size
        for row in records(data[data["run"] == run]):
            absent, note = words.missing(row), printed_note(row.last_bytes, row.layer)
            parts = [] if absent else [(0.0, float(row.last_bytes), looks[row.layer])]
            value = f"{row.layer}: {absent}" if absent else format_bytes(row.last_bytes)
            tick = None if absent or pd.isna(row.grew) else float(row.first_bytes)
            _draw_bar(canvas, Bar(parts, value, note, tick), y + (_BAR / 2 + 0.1) * size)
            y += _BAR * 1.08 * size
        y += _GAP * size
    height = y - 0.4 * _GAP * size
    high = float(max(1, data[["disk_bytes", "last_bytes"]].max().fillna(0).max()))
    _byte_axis(canvas, high, height, 0.75)
    legend: list[Any] = [(layer, looks[layer]) for layer in ROOT]
    if data["grew"].notna().any():
        legend.append(("before the boot", Look(canvas.style.ink), "|"))
    canvas.fit(height, height * 1.7, legend=legend)


def draw_prediction(canvas: Canvas, data: pd.DataFrame, given: Given) -> None:
    """Draw predicted and measured sizes as dots on one axis, each pair with its verdict."""
    size, style = canvas.pt, canvas.style
    sizes = data[["predicted_bytes", "measured_bytes"]].astype(float)
    high = max(1.0, *sizes.max().fillna(0))
    step = (2 * LINE + 0.5) * size
    names = words.prediction_names(data, given)
    for number, (name, row) in enumerate(zip(names, records(data), strict=True)):
        y = (number + 0.5) * step
        lines = wrap(name or "this run", _NAME_SHARE * canvas.width, size)
        _draw_names(canvas, [lines[0] + "…" * (len(lines) > 1), words.name_of(row.layer)], y)
        # What was measured is drawn inside a prediction that came true; NaN is not drawn.
        predicted, measured = sizes.iloc[number]
        canvas.ax.plot([predicted, measured], [y, y], linewidth=0.15 * size)
        canvas.mark(predicted, y, "D", Look(style.ink), markersize=0.95 * size)
        canvas.mark(measured, y, "o", canvas.look(row.layer), markersize=0.55 * size)
        verdict = words.verdict(row.right)
        text = f"{_SIGNS.get(verdict, '')}{verdict}"
        canvas.label(high, y, text, bold=True, offset=(size, 0.6 * size))
        text, offset = words.compared(row), (size, -0.65 * size)
        canvas.label(high, y, text, offset=offset, scale=SMALL, color=style.faint)
    _byte_axis(canvas, high, len(data) * step, 0.4)
    legend: list[Any] = [("predicted", Look(style.ink), "D")]
    legend += [
        (f"{words.name_of(layer)}, measured", canvas.look(layer), "o")
        for layer in data["layer"].unique()
    ]
    note = f"Right: within {TOLERANCE:.0%}, or lsblk or df prints the same."
    canvas.fit(len(data) * step, len(data) * step * 1.5, legend=legend, notes=[note])


def draw_stages(canvas: Canvas, data: pd.DataFrame, given: Given) -> None:
    """Draw each boot stage from its start to its end, one bar for each run."""
    names = given.run_names(data)
    series = canvas.style.series
    looks = {run: series[number % len(series)] for number, run in enumerate(names)}
    # A run from a snapshot begins amid the others' stages.
    order = data.groupby("stage", sort=False)["start_s"].max().sort_values(kind="stable").index

    def bar(row: Any) -> Bar:
        return Bar([(row.start_s, row.end_s, looks[row.run])], format_seconds(row.duration_s))

    bars = {stage: list(map(bar, records(data[data["stage"] == stage]))) for stage in order}
    height = _draw_rows(canvas, list(bars.items()))
    high = max(float(data["end_s"].max()), 0.1)
    canvas.ax.set(xlim=(0, high), ylim=(height, 0), yticks=[])
    ticks = _seconds(canvas, 0.0, high, 0.5)
    canvas.ax.set_xticks(list(ticks), list(ticks.values()))
    canvas.fit(height, height * 1.6, legend=[(names[run], looks[run]) for run in looks])


# The lines of the growth, the wider one below.
_LINES = {"partition": 0.34, "filesystem": 0.17}


def draw_timeline(canvas: Canvas, data: pd.DataFrame, _given: Given) -> None:
    """Draw the whole boot with the overlay file's size, and below it the growth enlarged."""
    size, faint = canvas.pt, canvas.style.faint
    end = float(data[["time_s", "end_s"]].max().max())
    found = [(layer, one) for layer, steps in jumps(data).items() for one in steps]
    found = [(layer, ends) for layer, ends in found if layer in _LINES]
    moments = [time for _, ends in found for time in ends] or [0.0, end]
    pad = max(0.4 * (max(moments) - min(moments)), 0.01 * end)
    low, high = max(0.0, min(moments) - pad), min(end, max(moments) + pad)
    strip = _draw_strip(canvas, records(data[data["layer"] == "stage"]), end)
    base, overlay = strip + 5.2 * size, data[data["layer"] == "overlay_file"]
    scale = 2.8 * size / max([1.0, *overlay["size_bytes"].astype(float)])
    _draw_line(canvas, overlay, end, lambda value: base - scale * value)
    canvas.ax.plot([0, end], [base, base], color=canvas.style.grid)
    for tick, text in _seconds(canvas, 0.0, end, 0.6).items():
        canvas.label(tick, base + 0.9 * size, text, ha="center", scale=SMALL, color=faint)
    top = base + 6 * size
    height = top + 13 * size
    if found:
        for at, edge in ((low, 0.0), (high, end)):
            canvas.ax.plot([at, at, edge, edge], [strip, base + 1.7 * size, top - 1.9 * size, top])
    canvas.ax.set(xlim=(0, end), ylim=(height, 0), xticks=[], yticks=[])
    canvas.ax.spines["bottom"].set_visible(False)
    inner = copy.copy(canvas)
    inner.ax = canvas.ax.inset_axes((0, 0, 1, 1 - top / height), xlim=(low, high))
    for layer, ends in found:
        inner.ax.axvspan(*ends, color=canvas.look(layer).stroke, alpha=0.15, linewidth=0)
    _draw_growth(inner, data, (low, high), height - top)
    unsure = any(first != last for _, (first, last) in found)
    notes = ["Shaded: it grew at some time in there."] * unsure
    canvas.fit(height, height * 1.5, notes=notes)


def _draw_strip(canvas: Canvas, stages: Sequence[Any], end: float) -> float:
    """Draw a strip of boot stages below their names; return where it begins, in points."""
    size, style = canvas.pt, canvas.style
    # The plot takes more of the place than that.
    scale = 0.65 * canvas.width / end
    middles = [float(row.time_s + row.end_s) / 2 * scale for row in stages]
    ends: list[float] = []
    labels = []
    for row, middle, after in zip(stages, middles, [*middles[1:], math.inf], strict=False):
        wide = text_width(row.stage, size * SMALL)
        # The line down from the next name must not run through this one.
        left = min(middle - wide / 2, after - wide - 0.2 * size)
        tier = next((n for n, last in enumerate(ends) if last + 0.6 * size <= left), len(ends))
        ends[tier : tier + 1] = [left + wide]
        labels.append((tier, middle / scale, (left + wide / 2) / scale, row.stage))
    top = (len(ends) * LINE + 0.2) * size
    for number, row in enumerate(stages):
        look = Look(style.grid if number % 2 else style.faint, line=style.paper)
        canvas.rectangle((row.time_s, top), row.end_s - row.time_s, 1.3 * size, look)
    for tier, middle, at, name in labels:
        y = top - (tier + 0.7) * LINE * size
        canvas.ax.plot([middle, middle], [y + 0.5 * size, top])
        canvas.label(at, y, name, scale=SMALL, ha="center", offset=(0, 0))
    return top


def _draw_growth(
    canvas: Canvas, data: pd.DataFrame, window: tuple[float, float], height: float
) -> None:
    """Draw partition and filesystem as steps, up to the size of the disk."""
    layers = data["layer"].isin(["virtual_disk", *_LINES])
    high = 1.06 * max([1.0, *data.loc[layers, "size_bytes"].astype(float)])
    canvas.ax.set(ylim=(0, high), facecolor="none")
    times, sizes = _seconds(canvas, *window, 0.6), byte_ticks(high, 4)[1:]
    canvas.ax.set_xticks(list(times), list(times.values()))
    canvas.ax.set_yticks(sizes, [format_tick(one) for one in sizes])
    canvas.ax.grid(visible=False, axis="x")
    canvas.ax.grid(visible=True, axis="y")
    last = -math.inf
    disks = data[(data["layer"] == "virtual_disk") & (data["stage"] != "image")]
    enlarged = ["virtual_disk"] * bool((disks["size_bytes"].diff() > 0).any())
    for layer in (*reversed(_LINES), *enlarged):
        rows = disks if layer == "virtual_disk" else data[data["layer"] == layer]
        at = height / high * float(rows["size_bytes"].iloc[-1]) if len(rows) else 0.0
        # What is larger is named above what lies in it.
        last = max(at, last + 2.7 * canvas.pt)
        _draw_line(canvas, rows, window[1], float, last - at - 1.2 * canvas.pt)


def _draw_line(
    canvas: Canvas, rows: pd.DataFrame, end: float, place: Callable[[float], float],
    up: float = 0.0,
) -> None:  # fmt: skip
    """Draw the sizes of a layer as steps, and its name and last size behind its end."""
    if rows.empty:
        return
    layer, size = str(rows["layer"].iloc[0]), rows["size_bytes"].astype(float)
    width = _LINES.get(layer, 0.17)
    y = [place(one) for one in size]
    canvas.ax.plot(
        [*rows["time_s"].astype(float), end], [*y, y[-1]], drawstyle="steps-post",
        color=canvas.look(layer).stroke, linewidth=width * canvas.pt, zorder=3 - width,
        linestyle=canvas.style.dashes.get(layer, "-"), clip_on=place is float,
    )  # fmt: skip
    for text, down in ((words.name_of(layer), -0.6), (format_bytes(size.iloc[-1]), 0.65)):
        offset = 0.6 * canvas.pt, up - down * canvas.pt
        canvas.label(end, y[-1], text, bold=down > 0, scale=SMALL, offset=offset)


def draw_growth(canvas: Canvas, data: pd.DataFrame, _given: Given) -> None:
    """Draw the filesystem as a line per setting, the partition dotted, the disk as a diagonal."""
    size, ax = canvas.pt, canvas.ax
    disks = sorted({max(1.0, float(one)) for one in data["disk_bytes"]})
    sizes = [*disks, *data["last_bytes"].dropna().astype(float)]
    low, high = min(sizes), max(sizes)
    ax.plot(disks, disks, color=canvas.style.grid, linewidth=0.15 * size)
    legend: list[Any] = []
    groups = list(data.dropna(subset=["last_bytes"]).groupby("setting", sort=False))
    for number, (setting, rows) in enumerate(groups):
        series = canvas.style.series
        look, marker = series[number % len(series)], _MARKERS[number % len(_MARKERS)]
        # Later lines are narrower, so that those that coincide are seen.
        width = 0.45 - 0.33 * number / len(groups)
        for layer, line, wide in (("filesystem", "-", width), ("partition", ":", 0.1)):
            points = rows[rows["layer"] == layer][["disk_bytes", "last_bytes"]].astype(float)
            if points.empty:
                continue  # without a point, a line would count as one at the figure's corner
            x, y = points.to_numpy().T
            ax.plot(x, y, line, color=look.stroke, linewidth=wide * size)
            if layer == "filesystem":
                canvas.mark(x, y, marker, look)
        name, *more = wrap(str(setting) or "filesystem", 0.9 * canvas.width, size)
        legend.append((name + "…" * bool(more), look, marker))
    ax.set(xscale="log", yscale="log", xlim=(disks[0] / 1.2, disks[-1] * 1.2))
    ax.set_ylim(low / 1.5, high * 1.3)
    ax.minorticks_off()
    powers = range(math.ceil(math.log2(low / 1.5)), math.ceil(math.log2(high)) + 1)
    ticks = [1 << power for power in powers][:: math.ceil(len(powers) / _MOST_TICKS)]
    ax.set_yticks(ticks, [format_tick(one) for one in ticks])
    ax.grid(visible=True, axis="y")
    _name_disks(canvas, dict(zip(disks, disks, strict=True)))
    note = "Across: the size of the disk. Dotted: the partition. Grey: the disk itself."
    canvas.fit(16 * size, 30 * size, legend=legend, notes=[note])


def draw_matrix(canvas: Canvas, data: pd.DataFrame, _given: Given) -> None:
    """Draw a cell per setting and disk size: whether partition (left) and filesystem grew."""
    size, y = canvas.pt, 0.0
    disks = sorted({int(one) for one in data["disk_bytes"]})
    names: dict[float, str] = {}
    same = canvas.style.looks["unallocated"]
    for setting, rows in data.groupby("setting", sort=False):
        lines = wrap(str(setting), _SETTING_SHARE * canvas.width, SMALL * size)
        high = max(1.5, 1.3 * len(lines)) * size
        for row in records(rows[rows["grew"].notna()]):
            x = disks.index(row.disk_bytes) + 0.04 + 0.46 * ROOT.index(row.layer)
            look = canvas.look(row.layer) if row.grew else same
            canvas.rectangle((x, y + 0.1 * size), 0.46, high - 0.2 * size, look)
        names[y + high / 2] = "\n".join(lines)
        y += high
    canvas.ax.set(xlim=(0, len(disks)), ylim=(y, 0))
    canvas.ax.set_yticks(list(names), list(names.values()))
    canvas.ax.grid(visible=False)
    _name_disks(canvas, {at + 0.5: disk for at, disk in enumerate(disks)})
    legend = [(f"{layer} grew", canvas.look(layer)) for layer in ROOT]
    notes = ["Across: the size of the disk."] + ["Empty: not measured."] * bool(
        data["grew"].isna().any()
    )
    canvas.fit(y, 1.5 * y, legend=[*legend, ("did not grow", same)], notes=notes)


def _name_disks(canvas: Canvas, places: Mapping[float, float]) -> None:
    """Label the disks for which the axis has room, given place on it -> size in bytes."""
    ticks, free = {}, -math.inf
    share_of = canvas.ax.transScale + canvas.ax.transLimits
    for place, disk in places.items():
        # Names at the left may leave only this much for the axis.
        room = (0.95 - _SETTING_SHARE) * canvas.width
        middle = share_of.transform((place, 1.0))[0] * room
        half = 0.55 * text_width(format_tick(int(disk)), SMALL * canvas.pt)
        if middle - half > free:
            ticks[place], free = format_tick(int(disk)), middle + half
    canvas.ax.set_xticks(list(ticks), list(ticks.values()))
