"""Figures of many runs that differ in disk size and settings: ``growth`` and ``matrix``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from cloudlab.figures.canvas import SMALL, Canvas, text_width, wrap
from cloudlab.figures.data import records, require, scenarios_data
from cloudlab.figures.words import OUTCOMES, Given, Words, missing, outcome
from cloudlab.units import format_bytes, format_tick

_LAYERS = ("partition", "filesystem")
_MARKERS = "osv^pX<>"
_NAME_SHARE, _MOST_TICKS = 0.4, 7


def growth_data(sizes: pd.DataFrame, options: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of ``scenarios_data`` and ``setting``, ordered by setting and disk.

    ``options`` has a row per run: ``run``, ``disk_size_bytes``, and further columns of text.
    ``setting`` (string) has those that differ between the runs; ``disk_bytes`` is the chosen size
    of the disk.
    """
    require(options, ("run", "disk_size_bytes"), "options")
    table = options.drop_duplicates("run").set_index("run")
    texts = table.drop(columns="disk_size_bytes").astype("string")
    varied = texts.loc[:, texts.ne(texts.iloc[0]).any()]
    labels = {name: f"{name} ".replace("_", " ").replace("image ", "") for name in map(str, varied)}
    data = scenarios_data(sizes)
    data["disk_bytes"] = data["run"].map(table["disk_size_bytes"]).astype("Int64")
    setting = [", ".join(map(str.__add__, labels.values(), row)) for row in varied.to_numpy()]
    data["setting"] = data["run"].map(dict(zip(table.index, setting, strict=True)))
    # Options are recorded without texts such as user-data; there, scenarios tell runs apart.
    if data.duplicated(["setting", "disk_bytes", "layer"]).any():
        data["setting"] = data["scenario"]
    data["setting"] = data["setting"].astype("string").fillna("")
    order = pd.Series(pd.factorize(data["setting"])[0], index=data.index)
    data = data.assign(_order=order).sort_values(["_order", "disk_bytes"], kind="stable")
    return data.drop(columns="_order").dropna(subset=["disk_bytes"]).reset_index(drop=True)


def growth_words(data: pd.DataFrame, given: Given) -> Words:
    """Return the text of what grew, and of the sizes by setting and disk size."""
    del given
    items, found = [], []
    for _, rows in data.groupby("run", sort=False):
        first = next(rows.itertuples())
        sizes = [
            f"{row.layer} {missing(row) or format_bytes(row.last_bytes)}" for row in records(rows)
        ]
        found.append(outcome(rows))
        place = f"{first.setting} on a disk of {format_bytes(first.disk_bytes)}".strip()
        items.append(f"{place}: {found[-1]}, {', '.join(sizes)}")
    counts = [f"{one} in {found.count(one)}" for one in OUTCOMES.values() if one in found]
    title = f"Of {len(found)} runs, {', '.join(counts)}"
    if len(counts) == 1:
        title = found[0][0].upper() + found[0][1:] + f" in all {len(found)} runs" * (len(found) > 1)
    return Words(title, f"Sizes by the disk's size. {'; '.join(items)}.")


matrix_data, matrix_words = growth_data, growth_words


def draw_growth(canvas: Canvas, data: pd.DataFrame, given: Given) -> None:
    """Draw the filesystem as a line per setting, the partition dotted, the disk as a diagonal."""
    del given
    size, ax = canvas.pt, canvas.ax
    disks = sorted({max(1.0, float(one)) for one in data["disk_bytes"]})
    sizes = [*disks, *data["last_bytes"].dropna().astype(float)]
    low, high = min(sizes), max(sizes)
    ax.plot(disks, disks, color=canvas.style.grid, linewidth=0.15 * size)
    legend: list[Any] = []
    groups = list(data.dropna(subset=["last_bytes"]).groupby("setting", sort=False))
    for number, (setting, rows) in enumerate(groups):
        series = canvas.style.series
        look, marker = series[number % len(series)], _MARKERS[number % len(_MARKERS)]
        # Later lines are narrower, so that those that coincide are seen.
        widths = {"partition": 0.1, "filesystem": 0.45 - 0.33 * number / len(groups)}
        for layer, points in rows.astype({"last_bytes": float}).groupby("layer"):
            ax.plot(
                points["disk_bytes"].astype(float), points["last_bytes"],
                ":" if layer == "partition" else "-",
                color=look.stroke, linewidth=widths[str(layer)] * size,
            )  # fmt: skip
            for row in records(points) if layer == "filesystem" else ():
                canvas.mark(float(row.disk_bytes), row.last_bytes, marker, look)
        name, *more = wrap(str(setting) or "filesystem", 0.9 * canvas.width, size)
        legend.append((name + "…" * bool(more), look, marker))
    ax.set(xscale="log", yscale="log", xlim=(disks[0] / 1.2, disks[-1] * 1.2))
    ax.set_ylim(low / 1.5, high * 1.3)
    ax.minorticks_off()
    powers = range(math.ceil(math.log2(low / 1.5)), math.ceil(math.log2(high)) + 1)
    ticks = [1 << power for power in powers][:: math.ceil(len(powers) / _MOST_TICKS)]
    ax.set_yticks(ticks, [format_tick(one) for one in ticks])
    ax.grid(visible=True, axis="y")
    span = math.log(disks[-1] / disks[0] * 1.44)
    _name_disks(canvas, disks, [math.log(one / disks[0] * 1.2) / span for one in disks], disks)
    note = "Across: the size of the disk. Dotted: the partition. Grey: the disk itself."
    canvas.fit(16 * size, 30 * size, legend=legend, notes=[note])


def draw_matrix(canvas: Canvas, data: pd.DataFrame, given: Given) -> None:
    """Draw a cell per setting and disk size: whether partition (left) and filesystem grew."""
    del given
    size, y = canvas.pt, 0.0
    disks = sorted({int(one) for one in data["disk_bytes"]})
    names: dict[float, str] = {}
    same = canvas.style.looks["unallocated"]
    for setting, rows in data.groupby("setting", sort=False):
        lines = wrap(str(setting), _NAME_SHARE * canvas.width, SMALL * size)
        high = max(1.5, 1.3 * len(lines)) * size
        for row in records(rows[rows["grew"].notna()]):
            x = disks.index(row.disk_bytes) + 0.04 + 0.46 * _LAYERS.index(row.layer)
            look = canvas.look(row.layer) if row.grew else same
            canvas.rectangle((x, y + 0.1 * size), 0.46, high - 0.2 * size, look)
        names[y + high / 2] = "\n".join(lines)
        y += high
    canvas.ax.set(xlim=(0, len(disks)), ylim=(y, 0))
    canvas.ax.set_yticks(list(names), list(names.values()))
    canvas.ax.grid(visible=False)
    places = [at + 0.5 for at in range(len(disks))]
    _name_disks(canvas, disks, [at / len(disks) for at in places], places)
    legend = [(f"{layer} grew", canvas.look(layer)) for layer in _LAYERS]
    notes = ["Across: the size of the disk."] + ["Empty: not measured."] * bool(
        data["grew"].isna().any()
    )
    canvas.fit(y, 1.5 * y, legend=[*legend, ("did not grow", same)], notes=notes)


def _name_disks(
    canvas: Canvas, disks: Sequence[float], shares: Sequence[float], places: Sequence[float]
) -> None:
    """Label the sizes of the disks for which the axis has room, given their shares of its width."""
    ticks, free = {}, -math.inf
    for disk, share, place in zip(disks, shares, places, strict=True):
        # Names at the left may leave only this much for the axis.
        middle = share * (0.95 - _NAME_SHARE) * canvas.width
        half = 0.55 * text_width(format_tick(int(disk)), SMALL * canvas.pt)
        if middle - half > free:
            ticks[place], free = format_tick(int(disk)), middle + half
    canvas.ax.set_xticks(list(ticks), list(ticks.values()))
