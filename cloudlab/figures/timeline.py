"""Figure *timeline*: the moments at which partition and filesystem jump."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from cloudlab.errors import CloudlabError
from cloudlab.figures.labels import titled, words
from cloudlab.figures.stages import stages_data
from cloudlab.figures.tables import LEAST_GAIN_BYTES, Run, growth_found, pick_run
from cloudlab.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LAYERS = ("partition", "filesystem", "overlay_file")


def timeline_data(
    sizes: pd.DataFrame, stages: pd.DataFrame | None = None, *, run: str | None = None
) -> pd.DataFrame:
    """Return the sizes over time of one run's partition, filesystem and overlay file.

    Parameters
    ----------
    sizes : DataFrame
        The tidy sizes table; rows without ``time_s`` are left out.
    stages : DataFrame, optional
        Not looked at: here for every figure's data to be asked for with its tables.
    run : str, optional
        Which run of it; needed where it holds several.

    Returns
    -------
    DataFrame
        ``layer``, ``device``, ``stage`` (string), ``time_s`` (Float64, seconds since the
        machine was started), ``size_bytes`` (Int64), by layer and time.  A ``sample`` was
        taken when the size changed; it may have changed any time before other rows.

    Raises
    ------
    CloudlabError
        If no size has a time.
    """
    del stages
    one = Run(sizes, run)
    parts = []
    for layer in _LAYERS:
        rows = one.of(layer)[["layer", "device", "stage", "time_s", "size_bytes"]]
        parts.append(rows.dropna(subset=["time_s"]).sort_values("time_s", kind="stable"))
    data = pd.concat(parts, ignore_index=True)
    if data.empty:
        raise CloudlabError(
            "No size in the table has a time, so there is no timeline to draw.",
            hint="Times come with a run's own table, not with a parsed text.",
        )
    return data.astype(
        dict.fromkeys(["layer", "device", "stage"], "string")
        | {"time_s": "Float64", "size_bytes": "Int64"}
    )


def jumps(data: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return when each layer first gained 1 MiB or more, from its timeline.

    The moment lies between two times in seconds; the same one twice where a sample tells
    it, which comes within a second or so of the growth.
    """
    found = {}
    for layer, rows in data.groupby("layer", sort=False):
        grown = rows[(rows["size_bytes"].diff() >= LEAST_GAIN_BYTES).fillna(False)]
        if len(grown):
            last = float(grown["time_s"].iloc[0])
            sampled = grown["stage"].iloc[0] == "sample"
            before = rows[rows["time_s"] < last]["time_s"]
            first = last if sampled or before.empty else float(before.iloc[-1])
            found[str(layer)] = (first, last)
    return found


def timeline_alt(
    sizes: pd.DataFrame,
    stages: pd.DataFrame | None = None,
    *,
    run: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> str:
    """Return the figure's numbers in words: each size and when it was first seen."""
    say = words(labels)
    data = timeline_data(sizes, run=run)
    items = []
    for layer, rows in data.groupby("layer", sort=False):
        new = rows[rows["size_bytes"].ne(rows["size_bytes"].shift()).fillna(True)]
        points = [
            say["timeline_alt_point"].format(size=format_bytes(size), time=format_seconds(time))
            for size, time in zip(new["size_bytes"], new["time_s"], strict=True)
        ]
        items.append(
            say["timeline_alt_line"].format(name=say[str(layer)], points=", ".join(points))
        )
    spans = boot_stages(stages, run)
    end = max([float(data["time_s"].max()), *(stop for _, _, stop in spans)])
    form = say["timeline_alt"]
    return form.format(end=format_seconds(end), items="; ".join(items))


def boot_stages(stages: pd.DataFrame | None, run: str | None) -> list[tuple[str, float, float]]:
    """Return the stages of one run as (name, start, end) in seconds."""
    if stages is None or stages.empty:
        return []
    data = stages_data(pick_run(stages, run, "stages"))
    columns = data[["stage", "start_s", "end_s"]].itertuples(index=False, name=None)
    return [(str(name), float(start), float(end)) for name, start, end in columns]


def plot_timeline(
    sizes: pd.DataFrame,
    stages: pd.DataFrame | None = None,
    ax: Axes | None = None,
    *,
    run: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Axes:
    """Draw sizes over time above the boot's stages.

    Parameters
    ----------
    sizes : DataFrame
        The tidy sizes table.
    stages : DataFrame, optional
        ``run``, ``scenario``, ``stage``, ``start_s``, ``end_s``: the shaded bands.
    ax : Axes, optional
        Where to draw; the figure keeps inside the place it has now.
    run : str, optional
        Which run of the tables; needed where they hold several.
    labels : mapping, optional
        See :func:`cloudlab.figures.labels.words`.
    """
    from cloudlab.figures.time_lines import draw_time_lines

    say = words(labels)
    data = timeline_data(sizes, run=run)
    spans = [(str(name), start, end) for name, start, end in boot_stages(stages, run)]
    one = Run(sizes, run)
    disk = (one.ends("virtual_disk") or (0, 0))[1]
    title = titled(say, _finding(data, one.whole_disk, say))
    return draw_time_lines(ax, data, spans, disk=disk, title=title, say=say)


def _finding(data: pd.DataFrame, whole_disk: bool, say: dict[str, str]) -> str:  # noqa: FBT001
    found = jumps(data)
    grew = {
        # Once is not enough to tell.
        layer: layer in found if (data["layer"] == layer).sum() > 1 else None
        for layer in ("partition", "filesystem")
    }
    which = growth_found(grew["partition"], grew["filesystem"], whole_disk=whole_disk)
    partition, filesystem = found.get("partition"), found.get("filesystem")
    if which == "both" and partition == filesystem:
        which = "same"
    return say[f"timeline_{which}"].format(
        partition=_moment(partition, say), filesystem=_moment(filesystem, say)
    )


def _moment(between: tuple[float, float] | None, say: dict[str, str]) -> str:
    if between is None:
        return ""
    first, last = between
    form = say["at" if first == last else "between"]
    return form.format(first=format_seconds(first), last=format_seconds(last))
