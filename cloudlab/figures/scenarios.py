"""Figure *scenarios*: partition against filesystem, over any number of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from cloudlab.figures.labels import words
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
        ``last_bytes`` (Int64; NA where not measured), ``grew`` (boolean), in the runs' order.
    """
    rows = []
    for name in ordered(sizes).sort_index()["run"].drop_duplicates():
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
    for name, values in _by_run(scenarios_data(sizes), say):
        last = {layer: format_bytes(value) for layer, value in values.items()}
        items.append(say["scenarios_alt_run"].format(run=name, **last))
    return say.get("alt") or say["scenarios_alt"].format(items="; ".join(items))


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
        Other words for those of :data:`cloudlab.figures.labels.LABELS`.
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
            [
                Bar([(0.0, float(value), LOOKS[layer])], format_bytes(value))
                for layer, value in values.items()
                if is_known(value)
            ],
        )
        for name, values in _by_run(data, say)
    ]

    def ticks(most: int) -> tuple[list[int], list[str]]:
        places = byte_ticks(high, most)
        return places, [format_tick(place) for place in places]

    with look():
        chips = [Chip(say[layer], LOOKS[layer]) for layer in ("partition", "filesystem")]
        return draw_rows(ax, rows, Scale(0, high, ticks), _title(data, say), chips=chips)


def _by_run(data: pd.DataFrame, say: dict[str, str]) -> list[tuple[str, dict[str, int]]]:
    names = run_names(data)
    return [
        (
            say.get(f"scenario_{names[run]}", names[run]) or say["unnamed"],
            dict(zip(rows["layer"], rows["last_bytes"], strict=True)),
        )
        for run, rows in [(str(run), rows) for run, rows in data.groupby("run", sort=False)]
    ]


def _title(data: pd.DataFrame, say: dict[str, str]) -> str:
    if "title" in say:
        return say["title"]
    grew = data.pivot_table(
        index="run", columns="layer", values="grew", aggfunc="first", sort=False
    ).astype(bool)
    if len(grew) == 1:
        last = dict(zip(data["layer"], map(format_bytes, data["last_bytes"]), strict=True))
        return say["one_moment"].format(**last)
    partition, filesystem = grew["partition"], grew["filesystem"]
    return say["scenarios_title"].format(
        runs=len(grew),
        both=int((partition & filesystem).sum()),
        partition=int((partition & ~filesystem).sum()),
        none=int((~partition & ~filesystem).sum()),
    )
