"""The disk as HTML, to scale: DiskMap, Scrubber, and the picture that they share with GrowthLab.

Its data, its scale, its texts and its colours are those of the figure *disk-map*.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from cloudlab.console import printable
from cloudlab.figures.canvas import STYLES
from cloudlab.figures.data import BLOCKS, VOLUMES, disk_map_data, obstacle, records
from cloudlab.figures.disks import ruler
from cloudlab.figures.words import STATES, block_texts, name_of, obstacle_text
from cloudlab.html import escaped, table_html
from cloudlab.run.tables import layout_sizes
from cloudlab.run.value import open_run
from cloudlab.units import (
    byte_ticks,
    format_bytes,
    format_seconds,
    format_tick,
    is_known,
)
from cloudlab.widgets.boot import console_html
from cloudlab.widgets.panel import (
    AnyRun,
    Form,
    Pane,
    Panel,
    button,
    field,
    or_reason,
    origin,
    origin_html,
)

if TYPE_CHECKING:
    import pandas as pd

    from cloudlab.disk import DiskLayout

#: What the picture is laid out for, in pixels; it shrinks to the page's width.
_WIDTH, _SMALL_WIDTH = 860.0, 440.0
#: A letter's width, the room beside a text, and the heights of strips, zone and gauge.
_LETTER, _PAD, _STRIP, _ZONE, _GAUGE = 6.6, 14, 20, 44, 7
_ON_DISK = ("virtual_disk", "partition", "filesystem", *VOLUMES)

#: Console lines that the Scrubber shows of each moment, and its step in seconds.
_LINES, _STEP_S = 8, 0.1


def _colours(theme: str) -> str:
    style = STYLES[theme]
    looks = {kind: style.looks[kind] for kind in BLOCKS}
    colours = {"pale": style.pale, "paper": style.paper, "ink": style.ink, "faint": style.faint}
    colours["edge"] = looks["unallocated"].line
    for kind, look in looks.items():
        colours |= {kind: look.fill, f"{kind}-text": look.text}
    return "; ".join(f"--{name}: {colour}" for name, colour in colours.items())


#: The picture's own style sheet, which must be with it wherever it is shown.
STYLE = (
    f"<style>.cloudlab-disk {{ {_colours('light')} }} "
    f':is([data-jp-theme-light="false"], [data-theme="dark"]) .cloudlab-disk '
    f"{{ {_colours('dark')} }}\n"
    f"{resources.files('cloudlab.widgets').joinpath('disk.css').read_text('utf-8')}</style>"
)


class DiskMap:
    """The disk to scale in each state of a run; each part tells its bytes on hover or focus.

    It needs no kernel: all of it is HTML, alive in a notebook that is opened again.

    Parameters
    ----------
    run : run
    only_before : bool
        Whether what the boot changed stays hidden.

    Raises
    ------
    CloudlabError
        If the run has no sizes.
    """

    def __init__(self, run: AnyRun, *, only_before: bool = False) -> None:
        self.recording = open_run(run)
        data = disk_map_data(self.recording.sizes)
        self.data = data[data["state"] == "before"] if only_before else data

    def _repr_html_(self) -> str:
        return origin_html(self.recording) + map_html(self.data)

    def __repr__(self) -> str:
        return f"<DiskMap of {self.recording.name}>"


def disk_at(
    sizes: pd.DataFrame, time_s: float, layout: DiskLayout | None
) -> tuple[pd.DataFrame | None, str]:
    """Return what lay on the disk at a moment, as far as it was measured, and how that is known.

    Parameters
    ----------
    sizes : DataFrame
        A sizes table.
    time_s : float
        Seconds since launch.
    layout : DiskLayout or None
        The disk as the host read it before the boot.
    """
    rows = sizes[sizes["layer"].isin(_ON_DISK) & (sizes["stage"] != "image")]
    rows = rows[rows["time_s"].le(time_s).fillna(False)]
    if rows.empty:
        if layout is None or not layout.partitions:
            return None, "Nothing was measured yet"
        return disk_map_data(layout_sizes(layout)), "As the host reads it off the image"
    # The exact row of a moment stands last; what was measured last still holds.
    rows = rows.sort_values(["time_s", "exact"], kind="stable")
    rows = rows.drop_duplicates(["layer", "device", "mountpoint"], keep="last")
    last = format_seconds(float(rows["time_s"].max()))
    return disk_map_data(rows.assign(stage="after")), f"Measured by the guest at {last}"


def map_html(
    data: pd.DataFrame,
    *,
    title: str = "",
    scale_of: pd.DataFrame | None = None,
    small: bool = False,
) -> str:
    """Return the states of :func:`cloudlab.figures.data.disk_map_data` as bars.

    Parameters
    ----------
    data : DataFrame
    title : str
        What a single state is called; without it all numbers follow as a table.
    scale_of : DataFrame, optional
        Data of the same disk whose scale is used, so that the picture does not jump.
    small : bool
        Whether to leave out scale, legend and notes, and what the keyboard reaches.
    """
    same = scale_of is not None and _disk_bytes(scale_of) == _disk_bytes(data)
    width = _SMALL_WIDTH if small else _WIDTH
    scale = _Scale(scale_of if scale_of is not None and same else data, width)
    bars = []
    for state, rows in data.groupby("state", sort=False):
        deduced = "" if rows["measured"].all() else " (deduced)"
        name = title or STATES[str(state)] + deduced
        disk = format_bytes(rows.loc[rows["kind"] == "disk", "size_bytes"].iloc[0])
        head = "" if small else f"<div><b>{escaped(name)}</b> {disk} disk</div>"
        bars.append(head + _bar(rows, scale, f"{name}: a disk of {disk}", small=small))
    below = "" if small else _below(data, scale) + ("" if title else _numbers(data))
    return f'{STYLE}<div class="cloudlab-disk">{"".join(bars)}{below}</div>'


class _Scale:
    """Bytes -> per cent of a width in pixels; ``breaks`` is where the scale changes."""

    def __init__(self, data: pd.DataFrame, width: float) -> None:
        least = {
            (float(row.start_bytes), float(row.start_bytes + row.size_bytes)): _PAD
            + _LETTER * max(len(str(row.device)), len(format_bytes(row.size_bytes)))
            for row in records(data[data["kind"] == "partition"])
        }
        edges, places, breaks = ruler(_disk_bytes(data), width, least)
        self.width, self._edges, self._places = width, edges, places * 100 / width
        self.breaks = [100 / width * float(at) for at in breaks]

    def at(self, place: Any) -> float:
        import numpy as np

        return float(np.interp(float(place), self._edges, self._places))


def _disk_bytes(data: pd.DataFrame) -> float:
    return float(max(1, (data["start_bytes"] + data["extent_bytes"]).max()))


def _bar(rows: pd.DataFrame, scale: _Scale, label: str, *, small: bool) -> str:
    strips = [kind for kind in ("partition", *VOLUMES) if (rows["kind"] == kind).any()]
    high = _STRIP * len(strips) + _ZONE
    # What lies inside is drawn after what is around it.
    order = {kind: number for number, kind in enumerate(("unallocated", *BLOCKS))}
    inside = rows.assign(order=rows["kind"].map(order)).dropna(subset=["order"])
    inside = inside.sort_values(["order", "start_bytes"], kind="stable")
    used = {row.device: row for row in records(inside[inside["kind"] == "used"])}
    end = scale.at(rows.loc[rows["kind"] == "disk", "size_bytes"].iloc[0])
    parts = [f'<span class="cloudlab-whole" style="width: {end:.3f}%"></span>']
    for row in records(inside):
        left, right = (scale.at(row.start_bytes + size) for size in (0, row.extent_bytes))
        top = _STRIP * (strips.index(row.kind) if row.kind in strips else len(strips))
        top = {"unallocated": 0, "used": high - _GAUGE}.get(row.kind, top)
        # A text stands in the widest part that no torn edge cuts.
        torn = [left, *(one for one in scale.breaks if left + 0.5 < one < right - 0.5), right]
        start, stop = max(itertools.pairwise(torn), key=lambda span: span[1] - span[0])
        text = _label(row, used, (stop - start) * scale.width / 100 - _PAD)
        indent = 100 * (start - left) / max(right - left, 1e-9)
        near = 6 if any(abs(one - start) < 0.5 for one in scale.breaks) else 0  # noqa: PLR2004
        says = escaped(describe(row))
        # What begins on the right half is described towards the left.
        side = "right" if left > 50 else "left"  # noqa: PLR2004
        fill = "pale" if row.kind == "partition" else row.kind
        name = "cloudlab-name" + " cloudlab-strip" * (row.kind == "partition")
        reach = "" if small else f'tabindex="0" role="img" aria-label="{says}" '
        parts.append(
            f'<span class="cloudlab-part" {reach}'
            f'data-key="{escaped(f"{row.kind} {row.device} {row.mountpoint}")}" '
            f'style="left: {left:.3f}%; width: max({right - left:.3f}%, 2px); top: {top}px; '
            f'bottom: 0; background: var(--{fill}); color: var(--{row.kind}-text)">'
            f'<span class="{name}" style="text-indent: calc({indent:.2f}% + {near}px)" '
            f'aria-hidden="true">{escaped(text)}</span>'
            f'<span class="cloudlab-says" style="{side}: 0" aria-hidden="true">{says}</span></span>'
        )
    parts += [
        f'<span class="cloudlab-tear" style="left: {one:.3f}%"></span>'
        for one in scale.breaks
        if one < end
    ]
    if small:
        label = "; ".join([label, *(describe(row) for row in records(inside))])
    role = f'role="{"img" if small else "group"}" aria-label="{escaped(label)}"'
    return f'<div class="cloudlab-map" style="height: {high}px" {role}>{"".join(parts)}</div>'


def _label(row: Any, used: Mapping[str, Any], room: float) -> str:
    """Return the longest text that fits a part of the disk; room is in pixels."""
    texts = block_texts(row, used.get(row.device))
    otherwise = str(row.device) if row.kind in ("partition", *VOLUMES) else ""
    return printable(next((text for text in texts if len(text) * _LETTER <= room), otherwise))


def _below(data: pd.DataFrame, scale: _Scale) -> str:
    """Return what stands below the bars: the scale, the legend, and what to know of both."""
    disk = _disk_bytes(data)
    ticks, last = "", -99.0
    for tick in byte_ticks(disk, 8):
        if scale.at(tick) - last > 9:  # noqa: PLR2004 - per cent; labels must not touch
            last = scale.at(tick)
            ticks += f'<span style="left: {last:.2f}%">{format_tick(tick)}</span>'
    key = "".join(
        f'<span class="cloudlab-key" style="background: var(--{kind})"></span>{name_of(kind)}'
        for kind in BLOCKS
        if (data["kind"] == kind).any()
    )
    found = obstacle(data)
    notes = [f"<b>{escaped(obstacle_text(found))}.</b>"] if found else []
    if scale.breaks:
        notes.append("Torn edges: the scale changes, to make room for small partitions.")
    if not data["placed"].all():
        notes.append("Positions were not measured; the order is assumed.")
    return f'<div class="cloudlab-ticks">{ticks}</div><p>{key}</p><p>{" ".join(notes)}</p>'


def describe(row: Any) -> str:
    """Return what a part of the disk is, with all its bytes."""
    owner = row.mountpoint if row.kind in ("filesystem", "used") else row.device
    name = name_of(row.kind, owner)
    if not is_known(row.size_bytes):
        return f"{name}: size not measured"
    end = int(row.start_bytes) + int(row.size_bytes)
    guessed = "" if bool(row.placed) else " (position not measured)"
    return (
        f"{name}: {format_bytes(row.size_bytes)} = {row.size_bytes:,} bytes, "
        f"from byte {row.start_bytes:,} to {end:,}{guessed}"
    )


def _numbers(data: pd.DataFrame) -> str:
    rows = [
        (row.state, row.kind, row.device if is_known(row.device) else "-",
         f"{row.start_bytes:,}", f"{row.size_bytes:,}")
        for row in records(data)
        if is_known(row.size_bytes)
    ]  # fmt: skip
    head = ("state", "what", "device", "from byte", "bytes")
    table = table_html(head, rows, caption="Everything on the disk, in bytes")
    return f"<details><summary>All numbers</summary>{table}</details>"


class Scrubber(Panel):
    """A boot, second by second: stage, console, and the disk as it was last measured.

    Parameters
    ----------
    run : run

    Raises
    ------
    CloudlabError
        If the run has no sizes.
    """

    def __init__(self, run: AnyRun) -> None:
        self.recording = open_run(run)
        self._sizes = self.recording.sizes
        # What people read, without the report's frames.
        self._lines = self.recording.console.find()
        self._line_times = [line.time_s for line in self._lines]
        changes = change_times(self._sizes)
        # The slider shows tenths of a second; the first one after a change shows it.
        self._changes = sorted({round(one + _STEP_S / 2, 1) for one in changes})
        self._scale_of, _ = disk_at(self._sizes, 0.0, self.recording.record.disk_before)
        took_s = self.recording.record.time_s or 0.0
        end_s = max([took_s, *self._line_times[-1:], *self._changes[-1:]])
        # Before the first measurement there is nothing to see.
        start_s = self._changes[0] if self._changes else 0.0
        self.slider = Form(
            "Moment",
            [
                field(
                    "time_s", "range", "Seconds since launch", start_s, min=0,
                    max=round(end_s + _STEP_S, 1), step=_STEP_S, unit="s",
                ),
                button("earlier", "Change before this"),
                button("later", "Change after this"),
            ],
        )  # fmt: skip
        self._moment = Pane(role="region", name="The disk at this moment")
        self._console = Pane(role="log", name="Console at this moment", look="console lines")
        super().__init__(self.slider, self._moment, self._console)
        self.slider.on_values(self._show)
        self.slider.on_press(earlier=lambda: self._leap(-1), later=lambda: self._leap(+1))
        self._show()
        self.keep(or_reason(lambda: map_html(disk_map_data(self.recording.sizes))))

    @property
    def time_s(self) -> float:
        """The moment that is shown, in seconds since launch; may be set."""
        return float(self.slider.values["time_s"])  # noqa: PD011 - a trait, no table

    @time_s.setter
    def time_s(self, time_s: float) -> None:
        self.slider.values = {"time_s": time_s}

    def _leap(self, direction: int) -> None:
        ahead = [one for one in self._changes[::direction] if (one - self.time_s) * direction > 0]
        if ahead:
            self.time_s = ahead[0]

    def _show(self) -> None:
        time_s = self.time_s
        data, how = disk_at(self._sizes, time_s, self.recording.record.disk_before)
        clock, stage = format_seconds(time_s), self.recording.stage_at(time_s)
        drawn = (
            ""
            if data is None
            else map_html(data, title=f"The disk at {clock}:", scale_of=self._scale_of)
        )
        self._moment.html = (
            f"<p><b>{clock}</b>, stage <b>{escaped(stage)}</b>; the overlay file takes up "
            f"{format_bytes(overlay_at(self._sizes, time_s))}<br>"
            f"<small>{escaped(how)}. {escaped(origin(self.recording))}.</small></p>{drawn}"
        )
        here = bisect.bisect_right(self._line_times, time_s)
        self._console.html = console_html(self._lines[max(0, here - _LINES) : here])


def change_times(sizes: pd.DataFrame) -> list[float]:
    """Return when the guest first saw each new size of a partition or filesystem, in seconds."""
    rows = sizes[sizes["layer"].isin(_ON_DISK) & sizes["exact"].fillna(False)]
    rows = rows.dropna(subset=["time_s"]).sort_values("time_s", kind="stable")
    before = rows.groupby(["layer", "device"], dropna=False)["size_bytes"].shift()
    changed = rows[before.ne(rows["size_bytes"]).fillna(True)]
    return sorted({float(one) for one in changed["time_s"]})


def overlay_at(sizes: pd.DataFrame, time_s: float) -> int | None:
    """Return what the overlay file took up on the host at a moment, in bytes."""
    rows = sizes[(sizes["layer"] == "overlay_file") & sizes["time_s"].le(time_s).fillna(False)]
    return int(rows["size_bytes"].iloc[-1]) if len(rows) else None
