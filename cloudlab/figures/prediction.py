"""Figure *prediction*: what a learner expected against what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from cloudlab.figures.labels import words
from cloudlab.figures.style import LOOKS, Look
from cloudlab.figures.tables import records, require
from cloudlab.units import byte_ticks, format_bytes, format_tick, is_known

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A prediction this near to the measurement counts as right.
TOLERANCE = 0.05


def prediction_data(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions with how far off each was.

    Parameters
    ----------
    predictions : DataFrame
        ``scenario``, ``layer`` (string), ``predicted_bytes``, ``measured_bytes`` (Int64,
        NA where there is none).

    Returns
    -------
    DataFrame
        The same columns, ``error`` (Float64, predicted / measured - 1) and ``right``
        (boolean: within :data:`TOLERANCE`).
    """
    columns = ["scenario", "layer", "predicted_bytes", "measured_bytes"]
    require(predictions, tuple(columns), "predictions")
    data = predictions[columns].astype(
        {"scenario": "string", "layer": "string"}
        | dict.fromkeys(["predicted_bytes", "measured_bytes"], "Int64")
    )
    measured = data["measured_bytes"].astype("Float64")
    data["error"] = data["predicted_bytes"].astype("Float64") / measured.mask(measured == 0) - 1
    data["right"] = (data["error"].abs() <= TOLERANCE).astype("boolean")
    return data.reset_index(drop=True)


def prediction_alt(predictions: pd.DataFrame, *, labels: Mapping[str, str] | None = None) -> str:
    """Return the figure's numbers in words."""
    say = words(labels)
    items = [
        say["prediction_alt_row"].format(
            name=f"{_scenario(row.scenario, say)}, {say.get(row.layer, row.layer)}",
            predicted=format_bytes(row.predicted_bytes),
            measured=format_bytes(row.measured_bytes),
        )
        for row in records(prediction_data(predictions))
    ]
    return say.get("alt") or say["prediction_alt"].format(items="; ".join(items))


def plot_prediction(
    predictions: pd.DataFrame, ax: Axes | None = None, *, labels: Mapping[str, str] | None = None
) -> Axes:
    """Draw the measured sizes as bars and the predicted ones as diamonds.

    Parameters
    ----------
    predictions : DataFrame
        ``scenario``, ``layer``, ``predicted_bytes``, ``measured_bytes``.
    ax : Axes, optional
        Where to draw; the figure keeps inside the place it has now.
    labels : mapping, optional
        Other words for those of :data:`cloudlab.figures.labels.LABELS`.
    """
    from cloudlab.figures.frame import DIAMOND, Chip
    from cloudlab.figures.rows import Bar, Row, Scale, draw_rows
    from cloudlab.figures.style import look

    say = words(labels)
    data = prediction_data(predictions)
    high = float(max(1, *data[["predicted_bytes", "measured_bytes"]].fillna(0).max()))
    rows = []
    for scenario, group in data.groupby("scenario", sort=False):
        bars = []
        for row in records(group):
            measured = float(row.measured_bytes) if is_known(row.measured_bytes) else 0.0
            predicted = float(row.predicted_bytes) if is_known(row.predicted_bytes) else None
            value = say["prediction_value"].format(
                measured=format_bytes(row.measured_bytes),
                predicted=format_bytes(row.predicted_bytes),
            )
            bars.append(Bar([(0.0, measured, _look(row.layer))], value, predicted))
        rows.append(Row(_scenario(scenario, say), bars))

    def ticks(most: int) -> tuple[list[int], list[str]]:
        places = byte_ticks(high, most)
        return places, [format_tick(place) for place in places]

    title = say.get("title") or say["prediction_title"].format(
        right=int(data["right"].fillna(False).sum()), all=len(data), tolerance=f"{TOLERANCE:.0%}"
    )
    with look():
        layers = data["layer"].drop_duplicates()
        chips = [Chip(say.get(layer, layer), _look(layer)) for layer in layers]
        chips.append(Chip(say["predicted"], DIAMOND))
        return draw_rows(ax, rows, Scale(0, high, ticks), title, chips=chips)


def _look(layer: str) -> Look:
    return LOOKS.get(layer, LOOKS["virtual_disk"])


def _scenario(name: object, say: dict[str, str]) -> str:
    return say.get(f"scenario_{name}", str(name))
