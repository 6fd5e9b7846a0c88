"""Drawing the overlay map: rows of cells, filled from below by the share that was written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from cloudlab.figures.frame import LINE, Chip, Frame, Header, text_width
from cloudlab.figures.overlay import OUTSIDE
from cloudlab.figures.style import FAINT, INK, Look, look
from cloudlab.figures.tables import records
from cloudlab.units import KIB, format_bytes, format_tick

_EMPTY_LOOK = Look("#EFEFEF", "", "#EFEFEF")
# A cell's sides, in units of its place.
_SIDE = 0.9
_OUTSIDE = Look("#4D4D4D", "", "#000000")
_LEAST_CELL = 4 * KIB

# Left, upper edge, width and height, in cells.
_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Grid:
    """How the disk is cut into cells; ``wide`` and ``high`` are a cell's sides in points."""

    columns: int
    rows: int
    cell_bytes: int
    wide: float
    high: float


@dataclass(frozen=True)
class _Plan:
    header: Header
    grid: Grid
    left: float
    plot_width: float
    height: float


def choose_grid(disk: int, width: float, height: float, size: float) -> Grid:
    """Return the grid of round cells and rows that fills the room.

    Columns and bytes are powers of two, so that a row is a round size, too; a cell is
    nearly a square and about as large as a letter of ``size`` points.
    """
    best: tuple[float, Grid] | None = None
    for columns in (8, 16, 32, 64, 128):
        for power in range(int(math.log2(_LEAST_CELL)), 64):
            cell = 1 << power
            rows = -(-disk // (cell * columns))
            # A disk that ends early in the only row leaves the rest of it free.
            wide, high = width / columns, min(height / rows, 2 * width / columns)
            if rows <= disk // cell + 1 and min(wide, high) >= 0.3 * size:
                filled = rows * high / height
                letter = abs(math.log2(math.sqrt(wide * high) / (0.9 * size)))
                score = filled - 0.35 * letter - 0.3 * abs(math.log2(wide / high))
                if best is None or score > best[0]:
                    best = score, Grid(columns, rows, cell, wide, high)
            if rows == 1:
                break
    return best[1] if best else Grid(1, 1, disk, width, height)


def draw_cells(
    ax: Axes | None,
    cells: Callable[[int], pd.DataFrame],
    totals: dict[str, int],
    *,
    disk: int,
    looks: dict[str, Look],
    borders: Sequence[int],
    title: str,
    say: dict[str, str],
) -> Axes:
    """Draw the grid; ``cells`` gives overlay_map_data's table for a cell's size in bytes."""
    looks = looks | {OUTSIDE: _OUTSIDE}
    chips = [
        Chip(f"{say.get(owner, owner)} {format_bytes(size)}", looks[owner])
        for owner, size in totals.items()
    ]
    with look():
        frame = Frame(ax)
        plan = frame.fit(lambda: _plan(frame, chips, disk, title, say))
        grid = plan.grid
        frame.place(plan.header, plan.left, frame.width - plan.left - plan.plot_width, 0)
        frame.ax.set_xlim(0, grid.columns)
        frame.ax.set_ylim(frame.plot_height / grid.high, 0)
        frame.ax.set_xticks([])
        frame.ax.set_yticks([])
        frame.ax.spines["bottom"].set_visible(False)
        count = -(-disk // grid.cell_bytes)
        _rectangles(frame, [(*_corner(grid, n), _SIDE, _SIDE) for n in range(count)], _EMPTY_LOOK)
        _fill(frame, grid, cells(grid.cell_bytes), looks)
        _borders(frame, grid, borders, count)
        _row_names(frame, grid)
        return frame.ax


def _plan(frame: Frame, chips: list[Chip], disk: int, title: str, say: dict[str, str]) -> _Plan:
    size = frame.size
    left = text_width("1023 GiB", size * 0.85) + 0.6 * size
    width = frame.width - left
    grid = Grid(1, 1, disk, 0.0, 0.0)
    # The note says a cell's size, whose grid depends on the room the note leaves.
    for _ in range(2):
        note = say["cell_note"].format(
            cell=format_bytes(grid.cell_bytes), row=format_bytes(grid.cell_bytes * grid.columns)
        )
        header = frame.header(title, chips, note)
        room = frame.height - header.above - header.below - 0.3 * size
        grid = choose_grid(disk, width, max(room, size), size)
    height = header.above + header.below + 5 * size
    return _Plan(header, grid, left, width, height)


def _corner(grid: Grid, cell: int) -> tuple[float, float]:
    row, column = divmod(int(cell), grid.columns)
    return column + (1 - _SIDE) / 2, row + (1 - _SIDE) / 2


def _fill(frame: Frame, grid: Grid, data: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Draw the cells that were written to: pale side by side, and full from below by share."""
    pale: dict[str, list[_Box]] = {}
    full: dict[str, list[_Box]] = {}
    for cell in data["cell"].unique():
        rows = data[data["cell"] == cell]
        x, y = _corner(grid, int(cell))
        level = y + _SIDE
        for number, row in enumerate(records(rows)):
            wide = _SIDE / len(rows)
            pale.setdefault(row.owner, []).append((x + number * wide, y, wide, _SIDE))
            share = _SIDE * min(1.0, row.written_bytes / grid.cell_bytes)
            level -= share
            full.setdefault(row.owner, []).append((x, level, _SIDE, share))
    for owner, boxes in pale.items():
        how = looks[owner]
        _rectangles(frame, boxes, Look(_paled(how.fill), how.hatch, how.line), 0.05)
    for owner, boxes in full.items():
        _rectangles(frame, boxes, Look(looks[owner].fill, "", looks[owner].line))


def _paled(colour: str) -> str:
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(255 - (255 - part) * 0.35):02X}" for part in parts)


def _rectangles(frame: Frame, boxes: Sequence[_Box], how: Look, line: float = 0.0) -> None:
    collection = PatchCollection(
        [Rectangle((x, y), wide, high) for x, y, wide, high in boxes],
        facecolor=how.fill, edgecolor=how.line, hatch=how.hatch or None,
        linewidth=line * frame.size,
    )  # fmt: skip
    frame.ax.add_collection(collection, autolim=False)


def _borders(frame: Frame, grid: Grid, borders: Sequence[int], count: int) -> None:
    """Draw a line between the cells at each border, once where several round to one."""
    for cell in sorted({round(border / grid.cell_bytes) for border in borders}):
        if not 0 < cell < count:
            continue
        row, column = divmod(cell, grid.columns)
        end = min(grid.columns, count - row * grid.columns)
        frame.ax.plot(
            [0, column, column, end] if column else [0, end],
            [row + 1, row + 1, row, row] if column else [row, row],
            color=INK, linewidth=0.07 * frame.size, clip_on=False, zorder=3,
        )  # fmt: skip


def _row_names(frame: Frame, grid: Grid) -> None:
    every = 1
    while every * grid.high < LINE * frame.size:
        every *= 2
    for row in range(0, grid.rows, every):
        name = format_tick(row * grid.columns * grid.cell_bytes)
        y = frame.top + (row + 0.5) * grid.high
        frame.text(frame.left - 0.5 * frame.size, y, name, scale=0.85, ha="right", color=FAINT)
