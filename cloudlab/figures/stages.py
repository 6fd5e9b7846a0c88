"""Figure *boot stages*: where the time went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from cloudlab.figures.labels import titled, words
from cloudlab.figures.style import SERIES
from cloudlab.figures.tables import records, require, run_names
from cloudlab.units import format_seconds, second_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def stages_data(stages: pd.DataFrame) -> pd.DataFrame:
    """Return the stages with their durations.

    Parameters
    ----------
    stages : DataFrame
        ``run``, ``scenario``, ``stage`` (string), ``start_s``, ``end_s`` (Float64, seconds
        since the machine was started; rows without an end are left out).

    Returns
    -------
    DataFrame
        The same columns and ``duration_s`` (Float64), by run and start.
    """
    columns = ["run", "scenario", "stage", "start_s", "end_s"]
    require(stages, tuple(columns), "stages")
    data = stages[columns].astype(
        dict.fromkeys(["run", "scenario", "stage"], "string")
        | dict.fromkeys(["start_s", "end_s"], "Float64")
    )
    data = data.dropna(subset=["start_s", "end_s"])
    require(data, tuple(columns), "stages")
    data["duration_s"] = data["end_s"] - data["start_s"]
    runs = {run: number for number, run in enumerate(data["run"].unique())}
    data["_run"] = data["run"].map(runs)
    data = data.sort_values(["_run", "start_s"], kind="stable").drop(columns="_run")
    return data.reset_index(drop=True)


def stages_alt(stages: pd.DataFrame, *, labels: Mapping[str, str] | None = None) -> str:
    """Return the figure's numbers in words."""
    say = words(labels)
    data = stages_data(stages)
    names = run_names(data)
    items = []
    for row in records(data):
        name = str(row.stage)
        items.append(
            say["stages_alt_row"].format(
                name=name if len(names) == 1 else f"{names[row.run]}, {name}",
                duration=format_seconds(row.duration_s),
                start=format_seconds(row.start_s),
                end=format_seconds(row.end_s),
            )
        )
    total = format_seconds(data["end_s"].max())
    return say["stages_alt"].format(total=total, items="; ".join(items))


def plot_stages(
    stages: pd.DataFrame, ax: Axes | None = None, *, labels: Mapping[str, str] | None = None
) -> Axes:
    """Draw each boot stage from its start to its end, one bar a run.

    Parameters
    ----------
    stages : DataFrame
        ``run``, ``scenario``, ``stage``, ``start_s``, ``end_s``.
    ax : Axes, optional
        Where to draw; the figure keeps inside the place it has now.
    labels : mapping, optional
        See :func:`cloudlab.figures.labels.words`.
    """
    from cloudlab.figures.frame import Chip
    from cloudlab.figures.rows import Bar, Row, Scale, draw_rows
    from cloudlab.figures.style import look

    say = words(labels)
    data = stages_data(stages)
    looks = {run: SERIES[number % len(SERIES)] for number, run in enumerate(data["run"].unique())}
    # A run that went on from a saved machine begins amid the others' stages.
    order = data.groupby("stage", sort=False)["start_s"].max().sort_values(kind="stable").index
    rows = [
        Row(
            str(stage),
            [
                Bar(
                    [(float(row.start_s), float(row.end_s), looks[row.run])],
                    format_seconds(row.duration_s),
                )
                for row in records(data[data["stage"] == stage])
            ],
        )
        for stage in order
    ]
    high = max(float(data["end_s"].max()), 0.1)

    def ticks(most: int) -> tuple[list[float], list[str]]:
        places = second_ticks(high, most)
        return places, [f"{place:g} s" if place else "0" for place in places]

    with look():
        names = run_names(data)
        chips = [Chip(names[run], looks[run]) for run in looks]
        return draw_rows(
            ax,
            rows,
            Scale(0, high, ticks),
            _title(data, say),
            chips=chips if len(chips) > 1 else [],
        )


def _title(data: pd.DataFrame, say: dict[str, str]) -> str:
    runs = data["run"].unique()
    mean = data.groupby("stage", sort=False)["duration_s"].sum() / len(runs)
    longest = str(mean.idxmax())
    form = say["stages_title" if len(runs) == 1 else "stages_many"]
    found = form.format(
        stage=longest,
        duration=format_seconds(mean[longest]),
        total=format_seconds(data["end_s"].max()),
    )
    return titled(say, found)
