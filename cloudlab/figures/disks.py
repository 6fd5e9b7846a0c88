"""Drawing disks: blocks to scale in each state, and a grid of the cells that were written."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from cloudlab.figures.canvas import LINE, SMALL, Canvas, Look, text_width
from cloudlab.figures.data import (
    BLOCKS,
    OUTSIDE,
    VOLUMES,
    obstacle,
    overlay_map_data,
    overlay_regions,
    records,
)
from cloudlab.figures.words import Given, block_texts, name_of, obstacle_text, written_by_owner
from cloudlab.units import byte_ticks, format_bytes, format_tick, is_round

# In units of the type size: the strips of a partition and of a volume, a filesystem with its
# gauge of what is used, the room beside a text, and a torn edge.
_STRIP, _ZONE, _GAUGE, _PAD, _TORN = 1.7, 2.2, 0.4, 0.45, 0.3
# The share of the width that small partitions may take.
_WIDENED = 0.7


def ruler(
    disk: float, width: float, least: Mapping[tuple[float, float], float]
) -> tuple[Any, Any, Any]:
    """Return a scale from bytes to points that widens what is too narrow for its name.

    ``disk`` bytes take ``width`` points, and each (start, end) of ``least`` its points or more.
    Returned are rising bytes, where these are drawn, and the points at which a widened stretch
    borders on one that is to scale.
    """
    edges = np.unique([0.0, disk, *itertools.chain(*least)])
    lengths = np.diff(edges)
    needs = np.zeros(len(lengths))
    for (start, end), wide in least.items():
        inside = (edges[:-1] >= start) & (edges[1:] <= end)
        # A damaged table may have a partition of no bytes: no edges lie inside.
        share = lengths / max(end - start, 1.0)
        needs = np.where(inside, np.maximum(needs, wide * share), needs)
    low, high = 0.0, width / disk
    while high - low > 1e-9 * high:
        scale = (low + high) / 2
        narrow = needs > lengths * scale
        shrunk = np.where(
            narrow, needs * min(1.0, _WIDENED * width / max(needs[narrow].sum(), 1e-9)), 0
        )
        points = np.maximum(lengths * scale * ~narrow, shrunk)
        low, high = (scale, high) if points.sum() < width else (low, scale)
    at = np.cumsum([0.0, *points]) * width / points.sum()
    # A gap for alignment is no stretch of its own.
    real = narrow | (lengths > disk / 500)
    borders = np.flatnonzero(np.diff(narrow[real].astype(int)))
    return edges, at, at[1:][real][borders]


class _Map:
    """The disk map's geometry: its scale, and the height of each kind of block."""

    def __init__(self, canvas: Canvas, data: pd.DataFrame) -> None:
        self.canvas, size = canvas, canvas.pt * SMALL
        self.disk = float(max(1, (data["start_bytes"] + data["extent_bytes"]).max()))
        least = {}
        self.strips = [kind for kind in ("partition", *VOLUMES) if (data["kind"] == kind).any()]
        for row in records(data[data["kind"] == [*self.strips, "filesystem"][0]]):
            wide = text_width(row.device, size, bold=True)
            wide = max(wide, text_width(format_bytes(row.size_bytes), size))
            start, end = float(row.start_bytes), float(row.start_bytes + row.size_bytes)
            least[start, end] = wide + (2 * _PAD + _TORN) * canvas.pt
        self.bytes, self.points, self.breaks = ruler(self.disk, canvas.width, least)
        self.height = (_STRIP * len(self.strips) + _ZONE) * canvas.pt
        #: Partitions that are too narrow for a name.
        self.unnamed: dict[str, None] = {}

    def at(self, place: float) -> float:
        """Return where a byte is drawn, in points from the left."""
        return float(np.interp(float(place), self.bytes, self.points))

    def span(self, row: Any) -> tuple[float, float]:
        """Return where a block is drawn, in points."""
        return self.at(row.start_bytes), self.at(row.start_bytes + row.extent_bytes)

    def block(self, row: Any, top: float, texts: Sequence[str], look: Look) -> bool:
        """Draw a block of a bar and the longest of its texts that fits, if any."""
        size, (left, right), y, high = self.canvas.pt, self.span(row), top, self.height
        if row.kind in self.strips:
            y, high = top + self.strips.index(row.kind) * _STRIP * size, _STRIP * size
        elif row.kind in ("filesystem", "used"):
            high = (_ZONE if row.kind == "filesystem" else _GAUGE) * size
            y = top + self.height - high
        self.canvas.rectangle((left, y), right - left, high, look)
        high -= _GAUGE * size if row.kind == "filesystem" else 0.0
        return self.write(texts, left, right, y + high / 2, look, bold=row.kind == "partition")

    def write(
        self, texts: Sequence[str], left: float, right: float, y: float, look: Look, **more: Any
    ) -> bool:
        """Write the longest of the texts that fits between two edges and no torn edge cuts."""
        size, torn = self.canvas.pt, [at for at in self.breaks if left - 1 <= at <= right + 1]
        plate = {"facecolor": look.fill, "linewidth": 0, "pad": 0.15 * size} if look.hatch else None
        for text, (start, stop) in itertools.product(
            texts, itertools.pairwise(sorted([left, right, *torn]))
        ):
            start += _PAD * size + _TORN * size * (start in torn)  # noqa: PLW2901
            stop -= (_PAD + _TORN * (stop in torn)) * size / 2  # noqa: PLW2901
            if text_width(text, size * SMALL, **more) <= stop - start:
                self.canvas.label(start, y, text, scale=SMALL, color=look.text, bbox=plate, **more)
                return True
        return False

    def tear(self, top: float, bottom: float, right: float) -> None:
        """Draw the scale's breaks as torn edges between two heights, up to the right."""
        size, style = self.canvas.pt, self.canvas.style
        y = np.linspace(top, bottom, 2 * max(1, round((bottom - top) / size)) + 1)
        for at in self.breaks[self.breaks < right + 1]:
            x = at + np.where(np.arange(len(y)) % 2, 0.1, -0.1) * size
            for colour, width in ((style.faint, _TORN), (style.paper, 0.6 * _TORN)):
                self.canvas.ax.plot(x, y, color=colour, linewidth=width * size, clip_on=False)


def draw_disk_map(canvas: Canvas, data: pd.DataFrame, given: Given) -> None:
    """Draw the disk in each state: partitions, below them volumes and filesystems in them."""
    size, style = canvas.pt, canvas.style
    shape, found, y = _Map(canvas, data), obstacle(data), 0.0
    for _, rows in data.groupby("state", sort=False):
        name, disk = given.state_name(rows), rows["size_bytes"].iloc[0]
        canvas.label(0, y + 0.7 * size, name, bold=True)
        left = text_width(name, size, bold=True) + 0.8 * size
        canvas.label(left, y + 0.7 * size, f"{format_bytes(disk)} disk", color=style.faint)
        y += 1.5 * size
        _draw_state(shape, rows, y)
        shape.tear(y - 0.15 * size, y + shape.height + 0.15 * size, shape.at(disk))
        y += shape.height + 0.85 * size
    if found:
        at, text = shape.at(found[2]), obstacle_text(found)
        left = canvas.width - text_width(text, size * SMALL, bold=True)
        canvas.mark(at, y - 0.35 * size, "^", Look(style.ink))
        left = min(max(0.0, at - (canvas.width - left) / 2), left)
        canvas.label(left, y + 0.8 * size, text, bold=True, scale=SMALL)
        y += 2.0 * size
    height = y - 0.4 * size
    canvas.ax.set(xlim=(0, canvas.width), ylim=(height, 0), yticks=[])
    _draw_axis(shape)
    kinds = [kind for kind in BLOCKS if (data["kind"] == kind).any()]
    legend = [(name_of(kind), canvas.look(kind)) for kind in kinds]
    inside = data[data["kind"] == "filesystem"]
    notes: dict[str, Any] = {
        "Torn edges: the scale changes, to make room for small partitions.": len(shape.breaks),
        f"Too narrow for a name: {', '.join(shape.unnamed)}.": shape.unnamed,
        "Sizes of filesystems are df's, without their own tables.": (
            inside["extent_bytes"] > inside["size_bytes"]
        ).any(),
        "Positions were not measured; the order is assumed.": not data["placed"].all(),
    }
    shown = [note for note, applies in notes.items() if applies]
    canvas.fit(height, height, legend=legend, notes=shown)


def _draw_state(shape: _Map, rows: pd.DataFrame, top: float) -> None:
    """Draw the blocks of one state, which the table has from the outside in."""
    canvas = shape.canvas
    pale = Look(canvas.style.pale, canvas.style.faint, canvas.look("partition").fill)
    blocks = records(rows)
    used = {row.device: row for row in blocks if row.kind == "used"}
    ends = [shape.span(row)[1] for row in blocks if row.kind == "filesystem"]
    for row in blocks:
        left, right = shape.span(row)
        look = canvas.look("unallocated" if row.kind == "disk" else row.kind)
        texts = block_texts(row, used.get(row.device))
        if row.kind == "partition":
            canvas.rectangle((left, top), right - left, shape.height, pale)
        named = shape.block(row, top, texts, look)
        if row.kind == "partition":
            if not named:
                shape.unnamed[texts[0]] = None
            bare = max([left, *(end for end in ends if left < end < right + 0.1)])
            middle = top + shape.height - (_ZONE + _GAUGE) * canvas.pt / 2
            outside = "outside the filesystem" if bare > left else format_bytes(row.size_bytes)
            shape.write([outside], bare, right, middle, pale)


def _draw_axis(shape: _Map) -> None:
    """Draw the axis of bytes, with the labels that do not touch each other."""
    canvas, size, places, last = shape.canvas, shape.canvas.pt, {}, -1e9
    for tick in byte_ticks(shape.disk, max(1, int(canvas.width / (7 * size)))):
        at, half = shape.at(tick), text_width(format_tick(tick), size * SMALL) / 2
        if min(max(at, half), canvas.width - half) - half > last + 0.8 * size:
            places[at] = format_tick(tick)
            last = max(at, half) + half
    canvas.ax.set_xticks(list(places), list(places.values()))
    canvas.ax.grid(visible=False)
    canvas.ax.tick_params(axis="x", length=0.3 * size, color=canvas.style.faint)
    for label, at in zip(canvas.ax.get_xticklabels(), places, strict=True):
        half = text_width(places[at], size * SMALL) / 2
        label.set(ha="left" if at < half else "right" if at > canvas.width - half else "center")


# A cell's side in its place, and the shares of it from which on it stands out more.
_CELL = 0.9
_DEPTHS = ((0.5, 1.0), (0.05, 0.75), (0.0, 0.5))


def draw_overlay_map(canvas: Canvas, data: pd.DataFrame, given: Given) -> None:
    """Draw the disk row by row as cells, darker the more of a cell was written."""
    size, style = canvas.pt, canvas.style
    tables = given.tables["extents"], given.tables["partitions"]
    regions = overlay_regions(*tables)
    disk, columns = regions[-1][1], 64
    while columns * 0.75 * size > canvas.width:
        columns //= 2
    # Cells are powers of two, so that a row is a round size, too.
    cell = max(4096, 1 << max(0, (disk // (columns * 20)).bit_length() - 1))
    rows, count = -(-disk // (cell * columns)), -(-disk // cell)
    high = min(1.6 * size, canvas.width / columns)
    canvas.ax.set(xlim=(0, columns), ylim=(rows, 0), xticks=[])
    canvas.ax.spines["bottom"].set_visible(False)
    step = 1 << max(0, int(np.ceil(np.log2(LINE * size / high))))
    while not all(is_round(row * columns * cell) for row in range(0, rows, step)):
        step *= 2
    named = range(0, rows, step)
    labels = [format_tick(row * columns * cell) for row in named]
    canvas.ax.set_yticks([row + 0.5 for row in named], labels)
    owners = dict.fromkeys(owner for _, _, owner in regions if owner != OUTSIDE)
    looks = {
        owner: Look(style.series[number % len(style.series)].fill)
        for number, owner in enumerate(owners)
    } | {OUTSIDE: Look(style.ink)}
    boxes = [Rectangle(_corner(number, columns), _CELL, _CELL) for number in range(count)]
    colours = [canvas.faded(style.grid, 0.4)] * count
    for number, group in overlay_map_data(*tables, cell).groupby("cell"):
        found, wide = records(group), _CELL / len(group)
        x, y = _corner(int(str(number)), columns)
        for part, row in enumerate(found):
            depth = next(depth for share, depth in _DEPTHS if row.written_bytes >= share * cell)
            boxes.append(Rectangle((x + part * wide, y), wide, _CELL))
            colours.append(canvas.faded(looks[row.owner].fill, depth))
    cells = PatchCollection(boxes, facecolors=colours, linewidth=0)
    canvas.ax.add_collection(cells, autolim=False)
    for border in sorted({round(start / cell) for start, _, _ in regions} - {0, count}):
        row, column = divmod(border, columns)
        end = min(columns, count - row * columns)
        canvas.ax.plot([0, column, column, end], [row + 1, row + 1, row, row], color=style.ink)
    legend = [(text, looks[owner]) for owner, text in written_by_owner(data).items()]
    strong = "brighter" if sum(to_rgb(style.paper)) < sum(to_rgb(style.ink)) else "darker"
    note = f"A cell is {format_tick(cell)}, a row {format_tick(cell * columns)}. The {strong}, the "
    note += "more of it was written. Lines: borders of partitions."
    canvas.fit(rows * high, rows * high * 1.2, legend=legend, notes=[note])


def _corner(cell: int, columns: int) -> tuple[float, float]:
    return cell % columns + (1 - _CELL) / 2, cell // columns + (1 - _CELL) / 2
