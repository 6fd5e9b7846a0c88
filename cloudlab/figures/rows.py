"""The plot that four of the figures are: named rows of horizontal bars with their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes

from cloudlab.figures.frame import (
    LINE,
    PLATE,
    Chip,
    Frame,
    Header,
    Ticks,
    spaced,
    text_width,
    wrap,
)
from cloudlab.figures.style import Look

_NAME_SHARE = 0.34


@dataclass(frozen=True)
class Bar:
    """Segments (start, end, look) on the axis, a value behind them, perhaps a diamond."""

    segments: Sequence[tuple[float, float, Look]]
    label: str
    mark: float | None = None

    @property
    def end(self) -> float:
        """How far to the right it reaches."""
        ends = [end for _, end, _ in self.segments]
        return max([*ends, self.mark] if self.mark is not None else ends)


@dataclass(frozen=True)
class Row:
    """A name and its bars, one below the other."""

    name: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Scale:
    """The horizontal axis: limits, ticks for a wished number, and whether it is logarithmic."""

    low: float
    high: float
    ticks: Callable[[int], Ticks]
    log: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies between the limits, 0 to 1."""
        import math

        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class _Plan:
    header: Header
    names: list[list[str]]
    left: float
    plot_width: float
    heights: list[float]
    ticks: Ticks = field(default=((), ()))
    height: float = 0.0


def draw_rows(
    ax: Axes | None,
    rows: Sequence[Row],
    scale: Scale,
    title: str,
    *,
    chips: Sequence[Chip] = (),
    note: Callable[[Sequence[float]], str] = lambda _: "",
) -> Axes:
    """Draw rows of bars; ``note`` is asked with the ticks that were chosen."""
    lines = sum(max(1, len(row.bars)) + 0.6 for row in rows)
    frame = Frame(ax, lines)
    plan = frame.fit(lambda: _plan(frame, rows, scale, title=title, chips=chips, note=note))
    right = frame.width - plan.left - plan.plot_width
    frame.place(plan.header, plan.left, right, frame.tick_room())
    frame.ax.set_xscale("log" if scale.log else "linear")
    frame.ax.set_xlim(scale.low, scale.high)
    frame.ax.set_ylim(frame.plot_height, 0)
    frame.x_axis(*plan.ticks)
    stretch = frame.plot_height / sum(plan.heights)
    top = 0.0
    for row, name, height in zip(rows, plan.names, plan.heights, strict=True):
        _draw_row(frame, row, name, scale, top=top, height=height * stretch)
        top += height * stretch
    return frame.ax


def _plan(
    frame: Frame,
    rows: Sequence[Row],
    scale: Scale,
    *,
    title: str,
    chips: Sequence[Chip],
    note: Callable[[Sequence[float]], str],
) -> _Plan:
    size = frame.size
    names = [wrap(row.name, _NAME_SHARE * frame.width, size, most=3) for row in rows]
    widest = max((text_width(line, size) for name in names for line in name), default=0.0)
    left = widest + 0.8 * size
    room = frame.width - left
    width = room
    for bar in (bar for row in rows for bar in row.bars):
        # The bar and the value behind it share the room.
        share = max(scale.share(bar.end), 1e-6)
        width = min(width, (room - text_width(bar.label, size) - (_gap(bar) + 0.3) * size) / share)

    ticks = spaced(scale.ticks, scale.share, max(width, 1.0), size * 0.9)
    if ticks[1]:
        half = text_width(ticks[1][-1], size * 0.9) / 2
        width = min(width, (room - half) / max(scale.share(ticks[0][-1]), 0.5))
    heights = [
        (max(len(name), len(row.bars)) * LINE + 0.5) * size
        for row, name in zip(rows, names, strict=True)
    ]
    header = frame.header(title, chips, note(ticks[0]))
    height = header.above + header.below + frame.tick_room() + sum(heights)
    return _Plan(header, names, left, width, heights, ticks, height)


def _draw_row(
    frame: Frame, row: Row, name: list[str], scale: Scale, *, top: float, height: float
) -> None:
    size, middle = frame.size, top + height / 2
    y = frame.top + middle - (len(name) - 1) * LINE * size / 2
    for number, line in enumerate(name):
        frame.text(frame.left - 0.8 * size, y + number * LINE * size, line, ha="right")
    thick = min((height - 0.4 * size) / max(1, len(row.bars)), 2.8 * size)
    first = middle - thick * len(row.bars) / 2
    for number, bar in enumerate(row.bars):
        center = first + (number + 0.5) * thick
        for start, end, how in bar.segments:
            if end <= start:
                continue
            corner = (max(start, scale.low), center - 0.43 * thick)
            frame.rectangle(
                corner, end - max(start, scale.low), 0.86 * thick, how, transform=frame.ax.transData
            )
        if bar.mark is not None:
            x = frame.left + scale.share(bar.mark) * frame.plot_width
            frame.diamond(x, frame.top + center, 0.6 * min(thick, 1.4 * size))
        x = frame.left + scale.share(bar.end) * frame.plot_width
        frame.text(x + _gap(bar) * size, frame.top + center, bar.label, bbox=PLATE)


def _gap(bar: Bar) -> float:
    return 1.0 if bar.mark is not None else 0.5
