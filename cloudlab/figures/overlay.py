"""Figure *overlay map*: the disk as a grid of cells, the written ones by partition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from cloudlab.figures.labels import titled, words
from cloudlab.figures.style import SERIES
from cloudlab.figures.tables import pick_run, require
from cloudlab.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The kinds of extents whose bytes lie in the overlay itself.
WRITTEN = ("data", "written")
#: The owner of what lies in no partition: partition tables, gaps, the free tail.
OUTSIDE = "outside"


def overlay_map_data(
    extents: pd.DataFrame,
    partitions: pd.DataFrame,
    *,
    run: str | None = None,
    cell_bytes: int | None = None,
) -> pd.DataFrame:
    """Return how much was written in each cell of the disk, by partition.

    Parameters
    ----------
    extents : DataFrame
        ``start_bytes``, ``length_bytes`` (Int64), ``kind`` (string: ``data`` or ``written``
        where the bytes lie in the overlay; ``zero``, ``backing`` and others elsewhere) and
        perhaps ``run``; together they cover the disk.
    partitions : DataFrame
        ``device`` (or ``number``), ``start_bytes``, ``size_bytes`` and perhaps ``run``.
    run : str, optional
        Which run of the extents; needed where they hold several.
    cell_bytes : int, optional
        Bytes of a cell; None makes the whole disk one cell for each owner.

    Returns
    -------
    DataFrame
        ``cell`` (Int64, from 0), ``owner`` (string: a device, or ``outside``),
        ``written_bytes`` (Int64), only where something was written.
    """
    extents, partitions = _one_run(extents, partitions, run)
    written = extents[extents["kind"].isin(WRITTEN)]
    cell = cell_bytes or disk_bytes(extents, partitions)
    totals: dict[tuple[int, str], int] = {}
    regions = _regions(partitions)
    for start, length in zip(written["start_bytes"], written["length_bytes"], strict=True):
        end = int(start) + int(length)
        for left, right, owner in regions:
            position, stop = max(int(start), left), min(end, right)
            while position < stop:
                index = position // cell
                step = min(stop, (index + 1) * cell) - position
                totals[index, owner] = totals.get((index, owner), 0) + step
                position += step
    data = pd.DataFrame(
        [(index, owner, size) for (index, owner), size in sorted(totals.items())],
        columns=["cell", "owner", "written_bytes"],
    )
    return data.astype({"cell": "Int64", "owner": "string", "written_bytes": "Int64"})


def disk_bytes(extents: pd.DataFrame, partitions: pd.DataFrame) -> int:
    """Return where the last extent or partition ends, in bytes."""
    ends = [*(extents["start_bytes"] + extents["length_bytes"])]
    ends += [*(partitions["start_bytes"] + partitions["size_bytes"])]
    return max(1, int(max(ends)))


def overlay_map_alt(
    extents: pd.DataFrame,
    partitions: pd.DataFrame,
    *,
    run: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> str:
    """Return the figure's numbers in words."""
    say = words(labels)
    extents, partitions = _one_run(extents, partitions, run)
    totals = written_by_owner(extents, partitions)
    items = [f"{say.get(owner, owner)} {format_bytes(size)}" for owner, size in totals.items()]
    zeroed = zeroed_bytes(extents)
    form = say["overlay_alt" if not zeroed else "overlay_alt_zeros"]
    return form.format(
        disk=format_bytes(disk_bytes(extents, partitions)),
        written=format_bytes(sum(totals.values())),
        zeros=format_bytes(zeroed),
        items=", ".join(items),
    )


def zeroed_bytes(extents: pd.DataFrame) -> int:
    """Return the bytes that were overwritten with zeros, which take no room in the overlay."""
    return int(extents.loc[extents["kind"] == "zero", "length_bytes"].sum())


def written_by_owner(
    extents: pd.DataFrame, partitions: pd.DataFrame, run: str | None = None
) -> dict[str, int]:
    """Return bytes written by partition, in the disk's order, only where there are any."""
    extents, partitions = _one_run(extents, partitions, run)
    found = overlay_map_data(extents, partitions).groupby("owner")["written_bytes"].sum()
    owners = [name for _, _, name in sorted(_partitions(partitions))]
    return {owner: int(found[owner]) for owner in [*owners, OUTSIDE] if owner in found}


def plot_overlay_map(
    extents: pd.DataFrame,
    partitions: pd.DataFrame,
    ax: Axes | None = None,
    *,
    run: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Axes:
    """Draw the disk row by row as cells, each filled from below by the share that was written.

    Parameters
    ----------
    extents, partitions : DataFrame
        As for :func:`overlay_map_data`.
    ax : Axes, optional
        Where to draw; the figure keeps inside the place it has now.
    run : str, optional
        Which run of the extents; needed where they hold several.
    labels : mapping, optional
        See :func:`cloudlab.figures.labels.words`.
    """
    from cloudlab.figures.cells import draw_cells

    say = words(labels)
    extents, partitions = _one_run(extents, partitions, run)
    totals = written_by_owner(extents, partitions)
    disk = disk_bytes(extents, partitions)
    zeroed = zeroed_bytes(extents)
    form = say["overlay_title" if not zeroed else "overlay_title_zeros"]
    found = form.format(
        written=format_bytes(sum(totals.values())),
        disk=format_bytes(disk),
        zeros=format_bytes(zeroed),
    )
    title = titled(say, found)

    def cells(cell_bytes: int) -> pd.DataFrame:
        return overlay_map_data(extents, partitions, cell_bytes=cell_bytes)

    # A partition's look is its number's, whatever else was written.
    owners = [name for _, _, name in sorted(_partitions(partitions))]
    looks = {owner: SERIES[n % len(SERIES)] for n, owner in enumerate(owners)}
    borders = [left for left, _, _ in _regions(partitions)]
    return draw_cells(
        ax, cells, totals, disk=disk, looks=looks, borders=borders, title=title, say=say
    )


def _one_run(
    extents: pd.DataFrame, partitions: pd.DataFrame, run: str | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both tables' rows of one run; a disk need not have partitions."""
    require(extents, ("start_bytes", "length_bytes", "kind"), "extents")
    extents = pick_run(extents, run, "extents")
    if {"run"} <= set(extents.columns) & set(partitions.columns):
        partitions = partitions[partitions["run"].isin(extents["run"])]
    return extents, partitions


def _partitions(partitions: pd.DataFrame) -> list[tuple[int, int, str]]:
    name = "device" if "device" in partitions.columns else "number"
    return [
        (int(start), int(start) + int(size), str(device))
        for device, start, size in zip(
            partitions[name], partitions["start_bytes"], partitions["size_bytes"], strict=True
        )
    ]


def _regions(partitions: pd.DataFrame) -> list[tuple[int, int, str]]:
    """Return the disk cut at the partitions: (start, end, owner), without overlap."""
    regions, end = [], 0
    for start, stop, device in sorted(_partitions(partitions)):
        if start > end:
            regions.append((end, start, OUTSIDE))
        if stop > end:
            regions.append((max(start, end), stop, device))
        end = max(end, stop)
    return [*regions, (end, 1 << 63, OUTSIDE)]
