"""Drawing the disk map: one bar a state, all on one scale of bytes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from cloudlab.figures.disk_map import state_name
from cloudlab.figures.frame import (
    LINE,
    Chip,
    Flow,
    Frame,
    Header,
    Ticks,
    flow,
    spaced,
    text_width,
    wrap,
)
from cloudlab.figures.ruler import Ruler, ruler
from cloudlab.figures.style import FAINT, LOOKS, Look, look
from cloudlab.figures.tables import records
from cloudlab.units import byte_ticks, format_bytes, format_tick

_LEAST_WIDTH = 2.2
# The filesystem's own colour, paled: its tables and journal.
_REST = Look("#F7E0B0", "", LOOKS["filesystem"].line)
_NAME = 0.88


@dataclass(frozen=True)
class _Box:
    """A partition in a bar: its place in points, and its name where one fits."""

    device: str
    left: float
    width: float
    label: str = ""
    label_at: float = 0.0


@dataclass(frozen=True)
class _Group:
    """Partitions too narrow to be named inside, named together below the bar."""

    spans: list[tuple[float, float]]
    names: list[str]
    lines: list[str]
    text_left: float
    end: float


@dataclass(frozen=True)
class _Plan:
    header: Header
    ruler: Ruler
    captions: list[Flow]
    boxes: list[list[_Box]]
    groups: list[_Group]
    plot_width: float
    bar: float
    below: float
    height: float


def draw_disk_bars(ax: Axes | None, data: pd.DataFrame, title: str, say: dict[str, str]) -> Axes:
    """Draw what :func:`cloudlab.figures.disk_map.disk_map_data` returns."""
    states = [rows for _, rows in data.groupby("state", sort=False)]
    with look():
        frame = Frame(ax, 4.6 * len(states) + 3)
        plan = frame.fit(lambda: _plan(frame, states, title, say))
        frame.place(plan.header, *_sides(frame), plan.below + frame.tick_room())
        frame.ax.set_xlim(0, frame.plot_width)
        frame.ax.set_ylim(frame.plot_height, 0)
        places, names = _ticks(frame, _disk(data), plan.ruler)
        frame.x_axis([plan.ruler.at(place) for place in places], names)
        frame.ax.get_xticklabels()[0].set_horizontalalignment("left")
        frame.ax.tick_params(axis="x", pad=0.35 * frame.size + plan.below)
        frame.ax.spines["bottom"].set_visible(False)
        spare = frame.plot_height - plan.height + plan.header.above + plan.header.below
        spare = max(0.0, spare + plan.below + frame.tick_room()) / len(states)
        bar = min(plan.bar + 0.8 * spare, 10.0 * frame.size)
        gap = (spare - (bar - plan.bar)) * 0.9
        y = frame.top
        for rows, caption, boxes in zip(states, plan.captions, plan.boxes, strict=True):
            frame.chips(caption, 0, y)
            y += len(caption) * LINE * frame.size + 0.15 * frame.size
            _draw_bar(frame, rows, boxes, y, bar, scale=plan.ruler)
            last = y + bar
            y = last + 0.55 * frame.size + gap
        for group in plan.groups:
            _draw_group(frame, group, last)
        return frame.ax


def _disk(data: pd.DataFrame) -> float:
    ends = (data["start_bytes"] + data["size_bytes"]).max()
    return float(max(1, ends))


def _sides(frame: Frame) -> tuple[float, float]:
    # The last tick label stands half outside the plot.
    return 0.0, 1.9 * frame.size


def _ticks(frame: Frame, high: float, scale: Ruler) -> Ticks:
    def ticks(most: int) -> Ticks:
        places = byte_ticks(high, most)
        return places, [format_tick(place) for place in places]

    width = scale.points[-1]
    return spaced(ticks, lambda place: scale.at(place) / width, width, frame.size * 0.9)


def _plan(frame: Frame, states: Sequence[pd.DataFrame], title: str, say: dict[str, str]) -> _Plan:
    size = frame.size
    width = frame.width - sum(_sides(frame))
    high = max(_disk(rows) for rows in states)
    captions = [flow(_caption(rows, say), frame.width, size) for rows in states]
    spans = [
        (float(start), float(start + length))
        for rows in states
        for start, length in _pairs(rows[rows["kind"] == "partition"])
    ]
    scale, widened = ruler(high, width, spans, _LEAST_WIDTH)
    boxes = [_boxes(frame, rows, scale) for rows in states]
    notes = [say["widened_note"]] if widened else []
    if any(_beyond(rows) for rows in states):
        notes.append(say["rest_note"])
    if not all(bool(rows["placed"].all()) for rows in states):
        notes.append(say["order_note"])
    header = frame.header(title, note=" ".join(notes))
    groups = _groups([box for box in boxes[-1] if not box.label], states[-1], frame, width)
    lines = max((len(group.lines) for group in groups), default=0)
    below = (lines * LINE * _NAME + 0.7) * size if groups else 0.0
    bar = 1.7 * size
    height = header.above + header.below + below + frame.tick_room()
    height += sum((len(caption) * LINE + 0.7) * size + bar for caption in captions)
    return _Plan(header, scale, captions, boxes, groups, width, bar, below, height)


def _caption(rows: pd.DataFrame, say: dict[str, str]) -> list[Chip]:
    state = rows.iloc[0]
    chips = [Chip(state_name(state["state"], bool(state["measured"]), say), bold=True)]
    root = rows[rows["mountpoint"] == "/"]["device"]
    for kind in ("partition", "filesystem", "used", "unallocated"):
        found = rows[rows["kind"] == kind]
        if kind != "unallocated" and len(root):
            found = found[found["device"] == root.iloc[0]]
        elif kind == "partition":
            found = found.nlargest(1, "size_bytes")
        if len(found):
            text = f"{say[kind]} {format_bytes(found['size_bytes'].sum())}"
            chips.append(Chip(text, LOOKS[kind]))
    return chips


def _boxes(frame: Frame, rows: pd.DataFrame, scale: Ruler) -> list[_Box]:
    partitions = rows[rows["kind"] == "partition"]
    boxes = []
    for row in records(partitions):
        start, end = row.start_bytes, row.start_bytes + row.size_bytes
        left = scale.at(start)
        inside = rows[(rows["device"] == row.device) & rows["kind"].isin(["filesystem", "used"])]
        ends = sorted(scale.at(min(start + n, end)) for _, n in _pairs(inside))
        edges = [0.0, *(at - left for at in ends), scale.at(end) - left]
        label, at = _label(frame, str(row.device), row.size_bytes, edges)
        boxes.append(_Box(str(row.device), left, edges[-1], label, left + at))
    return boxes


def _beyond(rows: pd.DataFrame) -> list[Any]:
    """Return the filesystems that reach further than df says."""
    found = rows[rows["kind"] == "filesystem"]
    return records(found[(found["extent_bytes"] > found["size_bytes"]).fillna(False)])


def _pairs(rows: pd.DataFrame) -> list[tuple[int, int]]:
    return [(int(s), int(n)) for s, n in zip(rows["start_bytes"], rows["size_bytes"], strict=True)]


def _label(frame: Frame, device: str, size_bytes: int, edges: Sequence[float]) -> tuple[str, float]:
    """Return the longest name that fits between two edges inside a partition, and where."""
    size = frame.size
    for name in (f"{device} {format_bytes(size_bytes)}", device):
        for left, right in reversed(list(itertools.pairwise(edges))):
            if text_width(name, size * _NAME) + 0.9 * size <= right - left:
                return name, (left + right) / 2
    return "", 0.0


def _groups(boxes: Sequence[_Box], rows: pd.DataFrame, frame: Frame, width: float) -> list[_Group]:
    """Join neighbours until no name touches another."""
    partitions = rows[rows["kind"] == "partition"].set_index("device")["size_bytes"]
    groups: list[_Group] = []
    for box in boxes:
        # Each name stays on one line.
        name = f"{box.device} {format_bytes(partitions[box.device])}".replace(" ", "\u00a0")
        group = _group([(box.left, box.left + box.width)], [name], frame, width)
        while groups and groups[-1].end + frame.size > group.text_left:
            before = groups.pop()
            spans, names = [*before.spans, *group.spans], [*before.names, *group.names]
            group = _group(spans, names, frame, width)
        groups.append(group)
    return groups


def _group(
    spans: list[tuple[float, float]], names: list[str], frame: Frame, width: float
) -> _Group:
    size = frame.size * _NAME
    joined = [spans[0]]
    for left, right in spans[1:]:
        if left - joined[-1][1] < 0.5 * size:
            joined[-1] = (joined[-1][0], right)
        else:
            joined.append((left, right))
    room = width + _sides(frame)[1]
    lines = wrap(", ".join(names), room, size)
    widest = max(text_width(line, size) for line in lines)
    middle = (joined[0][0] + joined[-1][1]) / 2
    at = max(0.0, min(middle - widest / 2, room - widest))
    return _Group(joined, names, lines, at, at + widest)


def _draw_bar(
    frame: Frame, rows: pd.DataFrame, boxes: Sequence[_Box], y: float, bar: float, *, scale: Ruler
) -> None:
    disk = rows[rows["kind"] == "disk"].iloc[0]

    def draw(start: int, size: int, inset: float, how: Look) -> None:
        left, right = scale.at(start), scale.at(start + size)
        corner = (frame.left + left, y + inset * bar)
        frame.rectangle(corner, right - left, (1 - 2 * inset) * bar, how)

    draw(0, disk["size_bytes"], 0, LOOKS["unallocated"])
    for row in records(rows[rows["kind"] == "partition"]):
        draw(row.start_bytes, row.size_bytes, 0, LOOKS["partition"])
    narrow = {box.device for box in boxes if box.width < 3 * _LEAST_WIDTH}
    inside = rows[~rows["device"].isin(narrow)]
    for row in _beyond(inside):
        draw(row.start_bytes, row.extent_bytes, 0.16, _REST)
    for kind, inset in (("filesystem", 0.16), ("used", 0.34)):
        for row in records(inside[inside["kind"] == kind]):
            draw(row.start_bytes, row.size_bytes, inset, LOOKS[kind])
    middle = y + bar / 2
    for box in boxes:
        if box.label:
            _name(frame, frame.left + box.label_at, middle, box.label)


def _name(frame: Frame, x: float, y: float, text: str) -> None:
    plate: dict[str, Any] = {
        "boxstyle": "round,pad=0.22",
        "facecolor": "white",
        "edgecolor": "none",
    }
    frame.text(x, y, text, scale=_NAME, ha="center", bbox=plate, zorder=4)


def _draw_group(frame: Frame, group: _Group, y: float) -> None:
    size = frame.size
    top, bottom = y + 0.12 * size, y + 0.42 * size
    for span in group.spans:
        left, right = frame.left + span[0], frame.left + span[1]
        frame.ax.plot(
            [left, left, right, right], [top, bottom, bottom, top],
            transform=frame.points, color=FAINT, linewidth=0.07 * size, clip_on=False,
        )  # fmt: skip
    for number, line in enumerate(group.lines):
        middle = y + (0.6 + (number + 0.5) * LINE * _NAME) * size
        frame.text(frame.left + group.text_left, middle, line, scale=_NAME)
