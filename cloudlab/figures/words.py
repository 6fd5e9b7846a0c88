"""The text of each kind of figure: its headline and alternative text, in this order, and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cloudlab.figures.data import (
    OUTSIDE,
    ROOT,
    VOLUMES,
    RunSizes,
    jumps,
    obstacle,
    overlay_regions,
    records,
)
from cloudlab.units import format_bytes, format_seconds, is_known, printed_note

#: What layers of the tables are called, where their own name does not say it.
NAMES = {
    "image_disk": "virtual disk of the image",
    "other_disk": "disk",
    "raid": "RAID array",
    "luks": "LUKS volume",
    OUTSIDE: "outside partitions",
}
#: What the states of a disk are called.
STATES = {
    "image": "In the image",
    "launch": "Before the boot",
    "before": "Before growpart",
    "partition": "Partition grown",
    "filesystem": "Filesystem grown",
    "after": "After the boot",
}
#: Whether partition and filesystem grew -> what a headline says of the runs that had it.
OUTCOMES = {
    (True, True): "both grew",
    (True, False): "only the partition grew",
    (False, True): "only the filesystem grew",
    (False, False): "nothing grew",
    None: "growth was not measured",
}
_MOST_NAMED, _LONGEST_TITLE = 4, 110


@dataclass(frozen=True)
class Given:
    """A figure's tables, and how the caller names things: see :func:`cloudlab.figures.plot`."""

    tables: Mapping[str, pd.DataFrame]
    names: Mapping[str, str]
    settings: Mapping[str, str]
    state: str | None = None

    def run_names(self, frame: pd.DataFrame) -> dict[str, str]:
        """Return run -> name: the caller's, or its scenario, with the run where scenarios repeat."""
        if "run" not in frame.columns:
            return {}
        pairs = frame.drop_duplicates("run").reindex(columns=["run", "scenario"])
        pairs = pairs.astype("string").fillna("")
        pairs["again"] = pairs["scenario"].duplicated(keep=False) & (pairs["scenario"] != "")
        pairs["again"] &= pairs["scenario"] != pairs["run"]
        return {
            row.run: self.names.get(row.run)
            or (f"{row.scenario} ({row.run})" if row.again else row.scenario or row.run)
            for row in records(pairs)
        }

    def setting(self, run: str) -> str:
        """Return the settings of a run as YAML, which may be empty."""
        return self.settings.get(run, "").rstrip()

    def state_name(self, rows: pd.DataFrame) -> str:
        """Return the heading of a state of a disk map."""
        name = self.state or STATES[str(rows["state"].iloc[0])]
        return name if rows["measured"].all() else f"{name} (deduced)"


def name_of(layer: object, device: object = None) -> str:
    """Return what a layer of the tables is called, with its device where that is known."""
    name = NAMES.get(str(layer), str(layer).replace("_", " "))
    return f"{name} {device}" if is_known(device) else name


def span(
    first: object, last: object, form: str = "from {} to {}",
    printed: Callable[[Any], str] = format_bytes,
) -> str:  # fmt: skip
    """Return one size, or two where they differ as they are printed."""
    one, two = printed(first), printed(last)
    return one if one == two else form.format(one, two)


def _alt(what: str, items: Iterable[str]) -> str:
    return f"{what}. {'; '.join(items)}."


def _found(sizes: pd.DataFrame, fact: Callable[[RunSizes, str], tuple[str, str]]) -> str:
    """Return a headline on partition and filesystem of a run; ``fact`` has verb and rest of one."""
    run = RunSizes(sizes)
    partition, filesystem = (fact(run, role) for role in ROOT)
    if run.whole_disk:
        return f"The filesystem on the whole disk {' '.join(filesystem)}".strip()
    if partition == filesystem:
        return f"Partition and filesystem {' '.join(partition).replace('was', 'were')}".strip()
    second = filesystem[1] if partition[0] == filesystem[0] else " ".join(filesystem)
    return f"The partition {' '.join(partition).strip()}, the filesystem {second.strip()}"


def _growth(run: RunSizes, role: str) -> tuple[str, str]:
    verb, rest = {True: ("grew", "to"), False: ("stayed", "at"), None: ("had", "")}[run.grew(role)]
    ends = run.ends(role)
    return (verb, f"{rest} {format_bytes(ends[1])}".strip()) if ends else ("was not measured", "")


def _counted(groups: Mapping[str, Sequence[str]]) -> str:
    """Return a headline that counts the runs of each outcome."""
    total = sum(map(len, groups.values()))
    if len(groups) == 1:
        return "".join(groups).capitalize() + f" in all {total} runs" * (total > 1)
    counts = [f"{words} in {len(group)}" for words, group in groups.items()]
    return f"Of {total} runs, {', '.join(counts)}"


def layers_words(data: pd.DataFrame, _given: Given) -> tuple[str, str]:
    """Return the text of the sizes by layer."""
    items = [f"{layer_name(row)} {span(row.first_bytes, row.last_bytes)}" for row in records(data)]
    last = data.drop_duplicates("layer").set_index("layer")["last_bytes"].map(format_bytes)
    title = "Sizes, layer by layer"
    if {"image_file", "virtual_disk", "filesystem"} <= set(last.index):
        title = f"A {last['image_file']} image file, a {last['virtual_disk']} disk, a "
        title += f"{last['filesystem']} filesystem"
    return title, _alt("Sizes by layer", items)


def layer_name(row: Any) -> str:
    """Return what a row of a layers table is called."""
    own = {"filesystem": "/"} | dict.fromkeys(
        ("partition", "virtual_disk", "other_disk"), row.device
    )
    return name_of(row.layer, own.get(row.layer))


def disk_map_words(data: pd.DataFrame, given: Given) -> tuple[str, str]:
    """Return the text of the disk in its states."""
    items = []
    for _, rows in data.groupby("state", sort=False):
        parts = []
        for row in records(rows[rows["kind"] != "disk"]):
            mounted = row.kind in ("filesystem", "used")
            name = name_of(row.kind, row.mountpoint if mounted else row.device)
            size = [format_bytes(row.size_bytes)] if is_known(row.size_bytes) else []
            parts.append(" ".join([name, *size]))
        items.append(f"{given.state_name(rows)}: {', '.join(parts)}.")
    found = obstacle(data)
    items += [f"{obstacle_text(found)}."] if found else []
    disk = format_bytes(data.loc[data["kind"] == "disk", "size_bytes"].iloc[-1])
    alt = f"Map of a disk of {disk}, to scale. {' '.join(items)}"
    return _found(given.tables["sizes"], _growth), alt


def obstacle_text(found: tuple[str, str, int]) -> str:
    """Return what :func:`cloudlab.figures.data.obstacle` found, in words."""
    return f"{found[0]} begins where {found[1]} ends: {found[1]} has no room to grow"


def block_texts(row: Any, used: Any) -> list[str]:
    """Return the labels of a block in a disk map, from long to short; ``used`` is what fills it."""
    size = format_bytes(row.size_bytes)
    if row.kind == "filesystem":
        note = printed_note(row.size_bytes, "filesystem")
        short = f"{row.mountpoint if is_known(row.mountpoint) else 'filesystem'} {size}"
        full = f"{short}, {format_bytes(used.size_bytes)} used" if used else short
        return [*[f"{one} ({note})" for one in (full, short) if note], full, short, size]
    if row.kind in VOLUMES:
        name = name_of(row.kind, row.device)
        return [*[f"{name} {size}"] * is_known(row.size_bytes), name, row.device]
    partition = [f"{row.device} {size}", str(row.device)]
    texts = {"partition": partition, "unallocated": [f"{size} unallocated", size]}
    return texts.get(row.kind, [])


def scenarios_words(data: pd.DataFrame, given: Given) -> tuple[str, str]:
    """Return the text of the runs side by side."""
    names = {run: name or "this run" for run, name in given.run_names(data).items()}
    items = []
    for run, rows in data.groupby("run", sort=False):
        sizes = [
            f"{row.layer} {missing(row) or span(row.first_bytes, row.last_bytes)}"
            for row in records(rows)
        ]
        items.append(f"{names[str(run)]}: {', '.join(sizes)}")
    groups = {words: [names[run] for run in runs] for words, runs in outcomes(data).items()}
    title = _counted(groups)
    named = ", ".join(
        f"{words} with {' and '.join(f'“{name}”' for name in group)}"
        for words, group in groups.items()
    )
    if len(names) == 1:
        title = _found(given.tables["sizes"], _growth)
    elif len(groups) > 1 and len(names) <= _MOST_NAMED and len(named) <= _LONGEST_TITLE:
        title = named[0].upper() + named[1:]
    return title, _alt("Partition and filesystem", items)


def outcomes(data: pd.DataFrame) -> dict[str, list[str]]:
    """Return what a headline says of the growth -> the runs of a scenarios table that had it."""
    found: dict[str, list[str]] = {words: [] for words in OUTCOMES.values()}
    for run, rows in data.groupby("run", sort=False):
        grew = rows.set_index("layer")["grew"]
        partition, filesystem = (bool(grew.fillna(False)[role]) for role in ROOT)
        known = (partition, filesystem) if is_known(grew["filesystem"]) else None
        found[OUTCOMES[known]].append(str(run))
    return {words: runs for words, runs in found.items() if runs}


def missing(row: Any) -> str:
    """Return why a row of a scenarios table has no size; empty where it has one."""
    if is_known(row.last_bytes):
        return ""
    return "none" if row.whole_disk and row.layer == "partition" else "not measured"


def timeline_words(data: pd.DataFrame, given: Given) -> tuple[str, str]:
    """Return the text of the sizes over time."""
    items = []
    for layer, rows in data[data["layer"] != "stage"].groupby("layer", sort=False):
        new = rows[rows["size_bytes"].ne(rows["size_bytes"].shift()).fillna(True)]
        points = [
            f"{format_bytes(row.size_bytes)} at {format_seconds(row.time_s)}"
            for row in records(new)
        ]
        items.append(f"{name_of(layer)}: {', '.join(points)}")
    items += [
        f"{row.stage} from {format_seconds(row.time_s)} to {format_seconds(row.end_s)}"
        for row in records(data[data["layer"] == "stage"])
    ]
    grown = jumps(data)

    def fact(_run: RunSizes, role: str) -> tuple[str, str]:
        if role not in grown:
            # One measurement cannot tell.
            once = (data["layer"] == role).sum() < 2  # noqa: PLR2004
            return ("was not measured twice" if once else "did not grow", "")
        ends = [tuple(map(format_seconds, step)) for step in grown[role]]
        moments = [
            f"just before {last}" if first == last else f"between {first} and {last}"
            for first, last in ends
        ]
        return "grew", " and again ".join(moments)

    end = format_seconds(data[["time_s", "end_s"]].max().max())
    alt = _alt(f"Sizes over the {end} since launch", items)
    return _found(given.tables["sizes"], fact), alt


def overlay_map_words(data: pd.DataFrame, given: Given) -> tuple[str, str]:
    """Return the text of what the boot wrote."""
    extents = given.tables["extents"]
    disk = format_bytes(overlay_regions(extents, given.tables["partitions"])[-1][1])
    written = format_bytes(data["written_bytes"].sum())
    zeroed = int(extents.loc[extents["kind"] == "zero", "length_bytes"].sum())
    title = f"{written} written to a disk of {disk}"
    alt = f"Map of a disk of {disk} as a grid of cells; the boot wrote {written} of data"
    if zeroed:
        title += f", {format_bytes(zeroed)} zeroed"
        alt += f" and zeroed {format_bytes(zeroed)}, which takes no room in the overlay"
    return title, _alt(alt, written_by_owner(data).values())


def written_by_owner(data: pd.DataFrame) -> dict[str, str]:
    """Return owner -> how much was written to it, ordered as on the disk, outside last."""
    totals = data.groupby("owner", sort=False)["written_bytes"].sum()
    owners = sorted(map(str, totals.index), key=lambda owner: owner == OUTSIDE)
    return {owner: f"{name_of(owner)} {format_bytes(totals[owner])}" for owner in owners}


def prediction_words(data: pd.DataFrame, given: Given) -> tuple[str, str]:
    """Return the text of predicted and measured sizes."""
    items = [
        f"{name}, {row.layer}: predicted {compared(row)}, {verdict(row.right)}"
        for name, row in zip(prediction_names(data, given), records(data), strict=True)
    ]
    right = int(data["right"].fillna(False).sum())
    return f"{right} of {len(data)} predictions right", _alt("Predictions", items)


def prediction_names(data: pd.DataFrame, given: Given) -> list[str]:
    """Return the scenario of each prediction in words."""
    runs = data["run" if "run" in data.columns else "scenario"].astype(str)
    return [
        given.names.get(run, str(name)) for run, name in zip(runs, data["scenario"], strict=True)
    ]


def compared(row: Any) -> str:
    """Return the two sizes of a prediction, or the one that is known."""
    sizes = {"": row.predicted_bytes, "measured ": row.measured_bytes}
    return ", ".join(what + format_bytes(size) for what, size in sizes.items() if is_known(size))


def verdict(right: object) -> str:
    """Return whether a prediction was right, in words."""
    return "not measured" if not is_known(right) else "right" if right else "wrong"


def stages_words(data: pd.DataFrame, given: Given) -> tuple[str, str]:
    """Return the text of the boot stages."""
    names = given.run_names(data)
    items = [
        (f"{names[row.run]}, " if len(names) > 1 else "")
        + f"{row.stage}: {format_seconds(row.duration_s)}, from {format_seconds(row.start_s)} "
        f"to {format_seconds(row.end_s)}"
        for row in records(data)
    ]
    mean = data.groupby("stage", sort=False)["duration_s"].sum() / len(names)
    ends = data.groupby("run")["end_s"].max()
    title = f"{mean.idxmax()} took longest: {format_seconds(mean.max())} of {format_seconds(ends.max())}"
    if len(names) > 1:
        title = f"Boots of {span(ends.min(), ends.max(), '{} to {}', format_seconds)}"
    return title, _alt("Boot stages", items)


def growth_words(data: pd.DataFrame, _given: Given) -> tuple[str, str]:
    """Return the text of what grew, and of the sizes by setting and disk size."""
    groups = outcomes(data)
    found = {run: words for words, runs in groups.items() for run in runs}
    items = []
    for run, rows in data.groupby("run", sort=False):
        parts = [found[str(run)]]
        for row in records(rows):
            place = f"{row.setting} on a disk of {format_bytes(row.disk_bytes)}".strip()
            parts.append(f"{row.layer} {missing(row) or format_bytes(row.last_bytes)}")
        items.append(f"{place}: {', '.join(parts)}")
    return _counted(groups), _alt("Sizes by the disk's size", items)


matrix_words = growth_words
