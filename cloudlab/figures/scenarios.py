"""Figure *scenarios*: partition against filesystem, over any number of runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from cloudlab.figures.disk_map import growth_title
from cloudlab.figures.labels import titled, words
from cloudlab.figures.style import LOOKS
from cloudlab.figures.tables import Run, ordered, run_names
from cloudlab.units import byte_ticks, format_bytes, format_tick, is_known

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def scenarios_data(sizes: pd.DataFrame) -> pd.DataFrame:
    """Return first and last size of root partition and root filesystem of each run.

    Parameters
    ----------
    sizes : DataFrame
        The tidy sizes table, of any number of runs.

    Returns
    -------
    DataFrame
        ``run``, ``scenario``, ``layer`` (string: partition, filesystem), ``first_bytes``,
        ``last_bytes`` (Int64; NA where not measured or not there), ``grew`` (boolean; NA where
        it was not measured), in the runs' order.
    """
    rows = []
    for name in _names(sizes):
        run = Run(sizes, name)
        growth = run.growth()
        for layer, ends, grew in (
            ("partition", growth.partition, growth.partition_grew),
            ("filesystem", growth.filesystem, growth.filesystem_grew),
        ):
            first, last = ends or (pd.NA, pd.NA)
            rows.append((name, run.scenario, layer, first, last, grew))
    columns = ["run", "scenario", "layer", "first_bytes", "last_bytes", "grew"]
    return pd.DataFrame(rows, columns=columns).astype(
        dict.fromkeys(["run", "scenario", "layer"], "string")
        | {"first_bytes": "Int64", "last_bytes": "Int64", "grew": "boolean"}
    )


def scenarios_alt(sizes: pd.DataFrame, *, labels: Mapping[str, str] | None = None) -> str:
    """Return the figure's numbers in words."""
    say = words(labels)
    items = []
    for name, values in _by_run(sizes, scenarios_data(sizes), say):
        last = {layer: text for layer, _, text in values}
        items.append(say["scenarios_alt_run"].format(run=name, **last))
    return say["scenarios_alt"].format(items="; ".join(items))


def plot_scenarios(
    sizes: pd.DataFrame, ax: Axes | None = None, *, labels: Mapping[str, str] | None = None
) -> Axes:
    """Draw partition and filesystem of each run as bars side by side.

    Parameters
    ----------
    sizes : DataFrame
        The tidy sizes table.
    ax : Axes, optional
        Where to draw; the figure keeps inside the place it has now.
    labels : mapping, optional
        See :func:`cloudlab.figures.labels.words`.
    """
    from cloudlab.figures.frame import Chip
    from cloudlab.figures.rows import Bar, Row, Scale, draw_rows
    from cloudlab.figures.style import look

    say = words(labels)
    data = scenarios_data(sizes)
    disks = sizes.loc[sizes["layer"] == "virtual_disk", "size_bytes"]
    high = float(max(1, *data["last_bytes"].dropna(), *disks.dropna()))
    rows = [
        Row(
            name,
            [Bar([(0.0, float(size), LOOKS[layer])], text) for layer, size, text in values],
        )
        for name, values in _by_run(sizes, data, say)
    ]

    def ticks(most: int) -> tuple[list[int], list[str]]:
        places = byte_ticks(high, most)
        return places, [format_tick(place) for place in places]

    with look():
        chips = [Chip(say[layer], LOOKS[layer]) for layer in ("partition", "filesystem")]
        return draw_rows(ax, rows, Scale(0, high, ticks), _title(sizes, say), chips=chips)


def _by_run(
    sizes: pd.DataFrame, data: pd.DataFrame, say: dict[str, str]
) -> list[tuple[str, list[tuple[str, int, str]]]]:
    """Return each run's name and its (layer, last size, the same in words)."""
    names = run_names(data)
    found = []
    for run, rows in [(str(run), rows) for run, rows in data.groupby("run", sort=False)]:
        values = []
        for layer, size in zip(rows["layer"], rows["last_bytes"], strict=True):
            known = is_known(size)
            absent = layer == "partition" and not known and Run(sizes, run).whole_disk
            missing = say["no_partition" if absent else "unmeasured"]
            values.append(
                (layer, int(size) if known else 0, format_bytes(size) if known else missing)
            )
        name = names[run] or say["unnamed"]
        found.append((name, values))
    return found


def _title(sizes: pd.DataFrame, say: dict[str, str]) -> str:
    runs = [Run(sizes, name).growth() for name in _names(sizes)]
    if len(runs) == 1:
        return titled(say, growth_title(runs[0], say))
    counts = Counter(_count(growth.found) for growth in runs)
    parts = [
        say[f"count_{what}"].format(count=counts[what])
        for what in ("both", "partition", "filesystem", "none", "unknown")
        if counts[what]
    ]
    return titled(say, say["scenarios_title"].format(runs=len(runs), counts=", ".join(parts)))


def _count(found: str) -> str:
    """Return what a run counts as; a filesystem on the whole disk has no partition to grow."""
    known = {"whole_disk": "filesystem", "whole_disk_kept": "none"}
    return "unknown" if "alone" in found else known.get(found, found)


def _names(sizes: pd.DataFrame) -> list[str]:
    return [str(name) for name in ordered(sizes).sort_index()["run"].drop_duplicates()]
