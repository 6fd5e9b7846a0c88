"""Drawing the overlay map: rows of cells whose fill is the share that was written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from cloudlab.figures.frame import LINE, Chip, Frame, Header, text_width
from cloudlab.figures.overlay import OUTSIDE
from cloudlab.figures.style import FAINT, SERIES, Look, look
from cloudlab.units import KIB, format_bytes, format_tick

_EMPTY = "#E9E9E9"
_OUTSIDE = Look("#4D4D4D", "", "#000000")
_LEAST_CELL = 4 * KIB


@dataclass(frozen=True)
class Grid:
    """How the disk is cut into cells; all sizes but ``side`` (points) in bytes and cells."""

    columns: int
    rows: int
    cell_bytes: int
    side: float


@dataclass(frozen=True)
class _Plan:
    header: Header
    grid: Grid
    left: float
    plot_width: float
    height: float


def choose_grid(disk: int, width: float, height: float, size: float) -> Grid:
    """Return the grid of round cells and rows that fills the room best.

    Columns and bytes are powers of two, so that a row is a round size, too; a cell is
    about as large as a letter of ``size`` points.
    """
    best: tuple[float, Grid] | None = None
    for columns in (8, 16, 32, 64, 128):
        for power in range(int(math.log2(_LEAST_CELL)), 64):
            cell = 1 << power
            rows = -(-disk // (cell * columns))
            side = min(width / columns, height / rows)
            if rows > disk // cell + 1 or side < 0.3 * size:
                continue
            filled = columns * rows * side * side / (width * height)
            score = filled - 0.35 * abs(math.log2(side / (0.9 * size)))
            if best is None or score > best[0]:
                best = score, Grid(columns, rows, cell, side)
            if rows == 1:
                break
    return best[1] if best else Grid(1, 1, disk, min(width, height))


def draw_cells(
    ax: Axes | None,
    cells: Callable[[int], pd.DataFrame],
    totals: dict[str, int],
    *,
    disk: int,
    title: str,
    say: dict[str, str],
) -> Axes:
    """Draw the grid; ``cells`` gives overlay_map_data's table for a cell's size in bytes."""
    looks = {owner: SERIES[n % len(SERIES)] for n, owner in enumerate(totals)}
    looks[OUTSIDE] = _OUTSIDE
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
        frame.ax.set_ylim(frame.plot_height / grid.side, 0)
        frame.ax.set_xticks([])
        frame.ax.set_yticks([])
        frame.ax.spines["bottom"].set_visible(False)
        count = -(-disk // grid.cell_bytes)
        _squares(frame, grid, [(n, 1.0) for n in range(count)], Look(_EMPTY, "", _EMPTY))
        data = cells(grid.cell_bytes)
        # A cell that two partitions share is coloured by the one that wrote more.
        data = data.sort_values("written_bytes").drop_duplicates("cell", keep="last")
        for owner, rows in data.groupby("owner"):
            shares = [float(size) / grid.cell_bytes for size in rows["written_bytes"]]
            _squares(frame, grid, list(zip(rows["cell"], shares, strict=True)), looks[str(owner)])
        _row_names(frame, grid)
        return frame.ax


def _plan(frame: Frame, chips: list[Chip], disk: int, title: str, say: dict[str, str]) -> _Plan:
    size = frame.size
    left = text_width("1023 GiB", size * 0.85) + 0.6 * size
    grid = Grid(1, 1, disk, 0.0)
    # The note says a cell's size, whose grid depends on the room the note leaves.
    for _ in range(2):
        note = say["cell_note"].format(
            cell=format_bytes(grid.cell_bytes), row=format_bytes(grid.cell_bytes * grid.columns)
        )
        header = frame.header(title, chips, note)
        room = frame.height - header.above - header.below - 0.3 * size
        grid = choose_grid(disk, frame.width - left, max(room, size), size)
    height = header.above + header.below + 5 * size
    return _Plan(header, grid, left, min(grid.columns * grid.side, frame.width - left), height)


def _squares(frame: Frame, grid: Grid, cells: list[tuple[int, float]], how: Look) -> None:
    patches = []
    for cell, share in cells:
        row, column = divmod(int(cell), grid.columns)
        # Area says the share; what was touched at all stays visible.
        side = 0.9 * max(min(share, 1.0) ** 0.5, 0.3)
        corner = (column + (1 - side) / 2, row + (1 - side) / 2)
        patches.append(Rectangle(corner, side, side))
    collection = PatchCollection(
        patches, facecolor=how.fill, edgecolor=how.line, hatch=how.hatch or None, linewidth=0
    )
    frame.ax.add_collection(collection, autolim=False)


def _row_names(frame: Frame, grid: Grid) -> None:
    every = 1
    while every * grid.side < LINE * frame.size:
        every *= 2
    for row in range(0, grid.rows, every):
        name = format_tick(row * grid.columns * grid.cell_bytes)
        y = frame.top + (row + 0.5) * grid.side
        frame.text(frame.left - 0.5 * frame.size, y, name, scale=0.85, ha="right", color=FAINT)
