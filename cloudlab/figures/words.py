"""The text of each kind of figure: its headline, its alternative text, and its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cloudlab.figures.data import (
    OUTSIDE,
    RunSizes,
    jumps,
    obstacle,
    overlay_regions,
    records,
    run_names,
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
        """Return run -> name of the runs in a table."""
        return {run: self.names.get(run, name) for run, name in run_names(frame).items()}

    def setting(self, run: str) -> str:
        """Return the settings of a run as YAML, which may be empty."""
        return self.settings.get(run, "").rstrip()

    def state_name(self, rows: pd.DataFrame) -> str:
        """Return the heading of a state of a disk map."""
        name = self.state or STATES[str(rows["state"].iloc[0])]
        return name if rows["measured"].all() else f"{name} (deduced)"


@dataclass(frozen=True)
class Words:
    """A figure's headline, and its numbers as text for people who do not see it."""

    title: str
    alt: str


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


def _found(partition: tuple[str, str], filesystem: tuple[str, str], *, whole_disk: bool) -> str:
    """Return a headline on partition and filesystem, of (verb, rest) each."""
    if whole_disk:
        return f"The filesystem on the whole disk {' '.join(filesystem)}".strip()
    if partition == filesystem:
        return f"Partition and filesystem {' '.join(partition).replace('was', 'were')}".strip()
    second = filesystem[1] if partition[0] == filesystem[0] else " ".join(filesystem)
    return f"The partition {' '.join(partition).strip()}, the filesystem {second.strip()}"


def _growth_title(run: RunSizes) -> str:
    verbs = {True: ("grew", "to"), False: ("stayed", "at"), None: ("had", "")}
    found = []
    for role in ("partition", "filesystem"):
        ends, (verb, rest) = run.ends(role), verbs[run.grew(role)]
        size = f"{rest} {format_bytes(ends and ends[1])}".strip()
        found.append((verb, size) if ends else ("was not measured", ""))
    return _found(*found, whole_disk=run.whole_disk)


def layers_words(data: pd.DataFrame, given: Given) -> Words:
    """Return the text of the sizes by layer."""
    del given
    items = [f"{layer_name(row)} {span(row.first_bytes, row.last_bytes)}" for row in records(data)]
    last = data.drop_duplicates("layer").set_index("layer")["last_bytes"].map(format_bytes)
    title = "Sizes, layer by layer"
    if {"image_file", "virtual_disk", "filesystem"} <= set(last.index):
        title = f"A {last['image_file']} image file, a {last['virtual_disk']} disk, a "
        title += f"{last['filesystem']} filesystem"
    return Words(title, _alt("Sizes by layer", items))


def layer_name(row: Any) -> str:
    """Return what a row of a layers table is called."""
    own = {"filesystem": "/"} | dict.fromkeys(
        ("partition", "virtual_disk", "other_disk"), row.device
    )
    return name_of(row.layer, own.get(row.layer))


def disk_map_words(data: pd.DataFrame, given: Given) -> Words:
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
    return Words(_growth_title(RunSizes(given.tables["sizes"])), alt)


def obstacle_text(found: tuple[str, str, int]) -> str:
    """Return what :func:`cloudlab.figures.data.obstacle` found, in words."""
    return f"{found[0]} begins where {found[1]} ends: {found[1]} has no room to grow"


def filesystem_texts(row: Any, used: Sequence[Any]) -> list[str]:
    """Return the labels of a filesystem's block in a disk map, from long to short."""
    size, note = format_bytes(row.size_bytes), printed_note(row.size_bytes, "filesystem")
    short = f"{row.mountpoint if is_known(row.mountpoint) else 'filesystem'} {size}"
    full = f"{short}, {format_bytes(used[0].size_bytes)} used" if used else short
    return [*[f"{one} ({note})" for one in (full, short) if note], full, short, size]


def scenarios_words(data: pd.DataFrame, given: Given) -> Words:
    """Return the text of the runs side by side."""
    names = given.run_names(data)
    items: list[str] = []
    groups: dict[str, list[str]] = {words: [] for words in OUTCOMES.values()}
    for run, rows in data.groupby("run", sort=False):
        name = names[str(run)] or "this run"
        sizes = [
            f"{row.layer} " + (missing(row) or span(row.first_bytes, row.last_bytes))
            for row in records(rows)
        ]
        items.append(f"{name}: {', '.join(sizes)}")
        groups[outcome(rows)].append(name)
    found = {words: group for words, group in groups.items() if group}
    title = f"Of {len(names)} runs, " + ", ".join(
        f"{words} in {len(group)}" for words, group in found.items()
    )
    named = ", ".join(
        f"{words} with {' and '.join(f'“{name}”' for name in group)}"
        for words, group in found.items()
    )
    if len(names) == 1:
        title = _growth_title(RunSizes(given.tables["sizes"]))
    elif len(found) == 1:
        title = f"{next(iter(found))} in all {len(names)} runs"
    elif len(names) <= _MOST_NAMED and len(named) <= _LONGEST_TITLE:
        title = named
    return Words(title[0].upper() + title[1:], _alt("Partition and filesystem", items))


def outcome(rows: pd.DataFrame) -> str:
    """Return what a headline says of the growth in one run, from its rows of a scenarios table."""
    grew = rows.set_index("layer")["grew"]
    if not is_known(grew["filesystem"]):
        return OUTCOMES[None]
    partition = is_known(grew["partition"]) and bool(grew["partition"])
    return OUTCOMES[partition, bool(grew["filesystem"])]


def missing(row: Any) -> str:
    """Return why a row of a scenarios table has no size; empty where it has one."""
    if is_known(row.last_bytes):
        return ""
    return "none" if row.whole_disk and row.layer == "partition" else "not measured"


def timeline_words(data: pd.DataFrame, given: Given) -> Words:
    """Return the text of the sizes over time."""
    items = []
    for layer, rows in data[data["layer"] != "stage"].groupby("layer", sort=False):
        new = rows[rows["size_bytes"].ne(rows["size_bytes"].shift()).fillna(True)]
        points = [
            f"{format_bytes(row.size_bytes)} at {format_seconds(row.time_s)}"
            for row in records(new)
        ]
        items.append(f"{name_of(layer)}: {', '.join(points)}")
    stages = records(data[data["layer"] == "stage"])
    items += [
        f"{row.stage} from {format_seconds(row.time_s)} to {format_seconds(row.end_s)}"
        for row in stages
    ]
    found, facts = jumps(data), []
    for layer in ("partition", "filesystem"):
        if layer in found:
            moments = []
            for first, last in (map(format_seconds, one) for one in found[layer]):
                moments.append(
                    f"just before {last}" if first == last else f"between {first} and {last}"
                )
            facts.append(("grew", " and again ".join(moments)))
        else:
            # One measurement cannot tell.
            once = (data["layer"] == layer).sum() < 2  # noqa: PLR2004
            facts.append(("was not measured twice" if once else "did not grow", ""))
    title = _found(facts[0], facts[1], whole_disk=RunSizes(given.tables["sizes"]).whole_disk)
    end = format_seconds(data[["time_s", "end_s"]].max().max())
    return Words(title, _alt(f"Sizes over the {end} since launch", items))


def overlay_map_words(data: pd.DataFrame, given: Given) -> Words:
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
    return Words(title, _alt(alt, written_by_owner(data).values()))


def written_by_owner(data: pd.DataFrame) -> dict[str, str]:
    """Return owner -> how much was written to it, ordered as on the disk, outside last."""
    totals = data.groupby("owner", sort=False)["written_bytes"].sum()
    owners = sorted(map(str, totals.index), key=lambda owner: owner == OUTSIDE)
    return {owner: f"{name_of(owner)} {format_bytes(totals[owner])}" for owner in owners}


def prediction_words(data: pd.DataFrame, given: Given) -> Words:
    """Return the text of predicted and measured sizes."""
    items = [
        f"{name}, {row.layer}: predicted {compared(row)}, {verdict(row.right)}"
        for name, row in zip(prediction_names(data, given), records(data), strict=True)
    ]
    right = int(data["right"].fillna(False).sum())
    return Words(f"{right} of {len(data)} predictions right", _alt("Predictions", items))


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


def stages_words(data: pd.DataFrame, given: Given) -> Words:
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
    return Words(title, _alt("Boot stages", items))
