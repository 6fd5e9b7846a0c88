"""Figure *prediction*: what a learner expected against what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from cloudlab.figures.labels import titled, words
from cloudlab.figures.style import LOOKS, Look
from cloudlab.figures.tables import records, require
from cloudlab.units import byte_ticks, format_bytes, format_tick, is_known

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A prediction this near to the measurement counts as right.
TOLERANCE = 0.05
_LETTERS = "BKMGTPE"


def is_right(predicted_bytes: int, measured_bytes: int) -> bool:
    """Return whether a predicted size counts as right.

    It does within :data:`TOLERANCE`, and where lsblk or df would print it like the measured
    one: ``2G`` is what lsblk says of 1.95 GiB, and ``2.0G`` what df says of 1.90 GiB.

    Parameters
    ----------
    predicted_bytes, measured_bytes : int
    """
    if predicted_bytes == measured_bytes:
        return True
    if measured_bytes > 0 and abs(predicted_bytes / measured_bytes - 1) <= TOLERANCE:
        return True
    # A text such as 1.1M stands for no whole byte, and df rounds up from there.
    return any(
        printed(guess) == printed(measured_bytes)
        for printed in (lsblk_text, df_text)
        for guess in (predicted_bytes, max(0, predicted_bytes - 1))
    )


def lsblk_text(size_bytes: int) -> str:
    """Return a size as lsblk prints it: to the nearest tenth, ``19.9G`` or ``2G``.

    Source: util-linux, lib/strutils.c, size_to_human_string
    """
    power = _power(size_bytes)
    tenths = (size_bytes * 10 * 2 + (1 << 10 * power)) // (2 << 10 * power)
    if tenths >= 10240 and power < len(_LETTERS) - 1:  # noqa: PLR2004
        tenths, power = 10, power + 1
    return (
        f"{tenths / 10:g}{_LETTERS[power]}" if tenths % 10 else f"{tenths // 10}{_LETTERS[power]}"
    )


def df_text(size_bytes: int) -> str:
    """Return a size as ``df -h`` prints it, rounded up: ``2.0G``, ``20G``.

    Source: coreutils, lib/human.c (gnulib), human_ceiling
    """
    power = _power(size_bytes)
    unit = 1 << 10 * power
    tenths = -(-size_bytes * 10 // unit)
    if power and tenths < 100:  # noqa: PLR2004
        return f"{tenths // 10}.{tenths % 10}{_LETTERS[power]}"
    whole = -(-size_bytes // unit)
    if whole >= 1024 and power < len(_LETTERS) - 1:  # noqa: PLR2004
        return f"1.0{_LETTERS[power + 1]}"
    return f"{whole}{_LETTERS[power] if power else ''}"


def _power(size_bytes: int) -> int:
    return min((max(size_bytes, 1).bit_length() - 1) // 10, len(_LETTERS) - 1)


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
        (boolean, by :func:`is_right`; NA where one of the two is not known).
    """
    columns = ["scenario", "layer", "predicted_bytes", "measured_bytes"]
    require(predictions, tuple(columns), "predictions")
    data = predictions[columns].astype(
        {"scenario": "string", "layer": "string"}
        | dict.fromkeys(["predicted_bytes", "measured_bytes"], "Int64")
    )
    measured = data["measured_bytes"].astype("Float64")
    data["error"] = data["predicted_bytes"].astype("Float64") / measured.mask(measured == 0) - 1
    pairs = zip(data["predicted_bytes"], data["measured_bytes"], strict=True)
    right = [is_right(int(a), int(b)) if is_known(a) and is_known(b) else pd.NA for a, b in pairs]
    data["right"] = pd.array(right, dtype="boolean")
    return data.reset_index(drop=True)


def prediction_alt(predictions: pd.DataFrame, *, labels: Mapping[str, str] | None = None) -> str:
    """Return the figure's numbers in words."""
    say = words(labels)
    items = [
        say["prediction_alt_row"].format(
            name=f"{row.scenario}, {say.get(row.layer, row.layer)}",
            predicted=format_bytes(row.predicted_bytes),
            measured=format_bytes(row.measured_bytes),
        )
        for row in records(prediction_data(predictions))
    ]
    return say["prediction_alt"].format(items="; ".join(items))


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
        See :func:`cloudlab.figures.labels.words`.
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
        rows.append(Row(str(scenario), bars))

    def ticks(most: int) -> tuple[list[int], list[str]]:
        places = byte_ticks(high, most)
        return places, [format_tick(place) for place in places]

    right = int(data["right"].fillna(False).sum())
    title = titled(say, say["prediction_title"].format(right=right, all=len(data)))
    with look():
        layers = data["layer"].drop_duplicates()
        chips = [Chip(say.get(layer, layer), _look(layer)) for layer in layers]
        chips.append(Chip(say["predicted"], DIAMOND))
        note = say["prediction_note"].format(percent=f"{TOLERANCE * 100:g}")
        scale = Scale(0, high, ticks)
        return draw_rows(ax, rows, scale, title, chips=chips, note=lambda _: note)


def _look(layer: str) -> Look:
    return LOOKS.get(layer, LOOKS["virtual_disk"])
