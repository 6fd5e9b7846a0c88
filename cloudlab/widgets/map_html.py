"""The disk as bars of HTML: to scale, every part reachable by mouse and keyboard."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cloudlab.figures.data import records
from cloudlab.figures.style import STYLES
from cloudlab.figures.words import STATES
from cloudlab.units import format_bytes, format_count, is_known
from cloudlab.widgets.texts import safe, table_html

if TYPE_CHECKING:
    import pandas as pd

#: A part narrower than this would be seen by nobody.
_LEAST_PX = 5

STYLE = """<style>
.cloudlab-map { position: relative; height: 46px; margin: 2px 0 34px; background: #fff;
  border: 1px solid #5c5c5c; color: #111; font-size: 12px; }
.cloudlab-part { position: absolute; box-sizing: border-box; bottom: 0; overflow: visible;
  border: 1px solid; cursor: help; }
.cloudlab-part:hover, .cloudlab-part:focus { outline: 3px solid #56b4e9; z-index: 3; }
.cloudlab-says { display: none; position: absolute; top: calc(100% + 4px); padding: 2px 7px;
  background: #111; color: #fff; white-space: nowrap; z-index: 4; border-radius: 3px; }
.cloudlab-part:hover > .cloudlab-says, .cloudlab-part:focus > .cloudlab-says { display: block; }
.cloudlab-name { position: absolute; top: 1px; left: 4px; white-space: nowrap; overflow: hidden;
  max-width: calc(100% - 6px); pointer-events: none; }
.cloudlab-key { display: inline-block; width: 12px; height: 12px; border: 1px solid;
  margin: 0 4px 0 12px; vertical-align: -1px; }
@media (max-width: 820px) { .cloudlab-says { white-space: normal; min-width: 15rem; } }
</style>"""

#: Layer -> share of the bar's height, from the bottom: what lies inside is drawn lower.
_HEIGHTS = {"partition": 100, "unallocated": 100, "filesystem": 56, "used": 28}


def map_html(data: pd.DataFrame, *, title: str = "") -> str:
    """Return the states of :func:`cloudlab.figures.disk_map_data` as bars, and as a table.

    Parameters
    ----------
    data : DataFrame
    title : str
        What a single state is called, shown without the table.
    """
    whole = float((data["start_bytes"] + data["size_bytes"]).max())
    bars = []
    for state, rows in data.groupby("state", sort=False):
        deduced = "" if rows["measured"].all() else " (deduced)"
        name = title or STATES[str(state)] + deduced
        bars.append(f"<div><b>{safe(name)}</b></div>{_bar(rows, whole, name)}")
    key = "".join(
        f'<span class="cloudlab-key" style="{_fill(kind)}"></span>{kind}' for kind in _HEIGHTS
    )
    numbers = "" if title else _numbers(data)
    return f"{STYLE}<div>{''.join(bars)}<p>{key}</p>{numbers}</div>"


def _bar(rows: pd.DataFrame, whole: float, title: str) -> str:
    parts = []
    inside = rows[rows["kind"].isin(list(_HEIGHTS))]
    for row in records(inside.sort_values("start_bytes", kind="stable")):
        left, width = 100 * row.start_bytes / whole, 100 * row.size_bytes / whole
        says = describe(row)
        # What begins on the right half is told about towards the left.
        side = "right" if left > 50 else "left"  # noqa: PLR2004
        name = ""
        if row.kind in {"partition", "unallocated"}:
            device = str(row.device) if is_known(row.device) else "unallocated"
            name = f'<span class="cloudlab-name" aria-hidden="true">{safe(device)}</span>'
        parts.append(
            f'<span class="cloudlab-part" tabindex="0" role="img" aria-label="{safe(says)}" '
            f'style="left: {left:.4f}%; width: max({width:.4f}%, {_LEAST_PX}px); '
            f'height: {_HEIGHTS[row.kind]}%; {_fill(row.kind)}">{name if width > 5 else ""}'  # noqa: PLR2004
            f'<span class="cloudlab-says" style="{side}: 0" aria-hidden="true">{safe(says)}</span>'
            "</span>"
        )
    disk = format_bytes(rows.loc[rows["kind"] == "disk", "size_bytes"].iloc[0])
    label = safe(f"{title}: a disk of {disk}")
    return f'<div class="cloudlab-map" role="group" aria-label="{label}">{"".join(parts)}</div>'


def describe(row: Any) -> str:
    """Return what a part of the disk is, with all its bytes."""
    owner = row.device if row.kind == "partition" else row.mountpoint
    name = f"{row.kind} {owner}" if is_known(owner) else str(row.kind)
    end = int(row.start_bytes) + int(row.size_bytes)
    guessed = "" if bool(row.placed) else " (place not measured)"
    return (
        f"{name}: {format_bytes(row.size_bytes)} = {format_count(row.size_bytes)} bytes, "
        f"from byte {format_count(row.start_bytes)} to {format_count(end)}{guessed}"
    )


def _fill(kind: str) -> str:
    style = STYLES["light"]
    look = style.looks[kind]
    # What lies inside a partition must stand out from it.
    fill = style.pale if kind == "partition" else look.fill
    line = look.line if kind == "unallocated" else look.fill
    return f"background: {fill}; border-color: {line}"


def _numbers(data: pd.DataFrame) -> str:
    rows: Iterable[tuple[object, ...]] = (
        (state, row.kind, row.device if is_known(row.device) else "-",
         format_count(row.start_bytes), format_count(row.size_bytes))
        for state, group in itertools.groupby(records(data), key=lambda row: row.state)
        for row in group
        if is_known(row.size_bytes)
    )  # fmt: skip
    head = ("state", "what", "device", "from byte", "bytes")
    table = table_html(head, rows, caption="Everything on the disk, in bytes")
    return f"<details><summary>All numbers</summary>{table}</details>"
