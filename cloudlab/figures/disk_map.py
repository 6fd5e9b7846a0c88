"""Figure *disk map*: the disk to scale, before, in between and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from cloudlab.errors import CloudlabError
from cloudlab.figures.labels import titled, words
from cloudlab.figures.tables import LEAST_GAIN_BYTES, Growth, Run, records
from cloudlab.units import format_bytes, is_known

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Of a partition's size: ext4's tables and journal take less where nobody asked for more.
_LITTLE = 0.05


@dataclass
class State:
    """What lay on the disk at one moment, sizes in bytes by device."""

    name: str
    disk: int = 0
    measured: bool = True
    partitions: dict[str, int] = field(default_factory=dict)
    filesystems: dict[str, tuple[str, int, int | None]] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether anything was measured on the disk."""
        return bool(self.partitions or self.filesystems)

    def copy(self, name: str, *, measured: bool = True) -> State:
        """Return this state under another name."""
        return State(name, self.disk, measured, dict(self.partitions), dict(self.filesystems))


def disk_map_data(sizes: pd.DataFrame, *, run: str | None = None) -> pd.DataFrame:
    """Return what lies where on the disk in each state of one run.

    The state between the growth of partition and filesystem is taken from the samples;
    where they missed it, it follows from the others (a filesystem never grows before its
    partition) and is marked as not measured.

    Parameters
    ----------
    sizes : DataFrame
        The tidy sizes table.
    run : str, optional
        Which run of it; needed where it holds several.

    Returns
    -------
    DataFrame
        ``state`` (image, launch, before, partition, filesystem or after; launch where what
        the boot found was not the image's), ``measured`` (boolean),
        ``kind`` (disk, partition, filesystem, used, unallocated), ``device``,
        ``mountpoint`` (string), ``start_bytes``, ``size_bytes`` (Int64), ``placed`` (boolean:
        the start was measured), ``extent_bytes`` (Int64).  A filesystem's size is df's, which
        leaves its own tables and journal out; where only so little of its partition is
        missing, it may extend to the partition's end, else its extent is NA.

    Raises
    ------
    CloudlabError
        If neither a partition nor a filesystem of the disk was measured.
    """
    one = Run(sizes, run)
    rows: list[tuple[Any, ...]] = []
    states = _states(one)
    if not states:
        raise CloudlabError(
            "No partition and no filesystem of the disk was measured, so there is no map of it.",
            hint="The console has no report of this run: see `cloudlab explain` for the reason.",
        )
    for state in states:
        starts, placed = _starts(one, state)
        ends = _ends(one, state)
        # Guessed places and rounded sizes may add up to more than the disk.
        if placed or not state.disk:
            state.disk = max([state.disk, *ends])
        rows.append((state, "disk", one.disk, None, 0, state.disk, True))
        for device in sorted(state.partitions, key=starts.__getitem__):
            size, start = state.partitions[device], starts[device]
            rows.append((state, "partition", device, None, start, size, placed))
        for device, (mountpoint, size, used) in state.filesystems.items():
            start = starts.get(device, 0)
            extent = _extent(state, device)
            rows.append((state, "filesystem", device, mountpoint, start, size, placed, extent))
            if used is not None:
                rows.append((state, "used", device, mountpoint, start, used, placed))
        if state.partitions:
            for start, size in _gaps(state, starts):
                rows.append((state, "unallocated", None, None, start, size, placed))
    frame = pd.DataFrame(
        [(state.name, state.measured, *rest, *(pd.NA,) * (7 - len(rest))) for state, *rest in rows],
        columns=[
            "state", "measured", "kind", "device", "mountpoint",
            "start_bytes", "size_bytes", "placed", "extent_bytes",
        ],
    )  # fmt: skip
    return frame.astype(
        dict.fromkeys(["state", "kind", "device", "mountpoint"], "string")
        | dict.fromkeys(["measured", "placed"], "boolean")
        | dict.fromkeys(["start_bytes", "size_bytes", "extent_bytes"], "Int64")
    )


def disk_map_alt(
    sizes: pd.DataFrame, *, run: str | None = None, labels: Mapping[str, str] | None = None
) -> str:
    """Return the figure's numbers in words."""
    say = words(labels)
    data = disk_map_data(sizes, run=run)
    items = []
    for state, rows in data.groupby("state", sort=False):
        parts = []
        for row in records(rows[rows["kind"] != "disk"]):
            owner = row.device if row.kind == "partition" else row.mountpoint
            name = say[row.kind] + (f" {owner}" if is_known(owner) else "")
            parts.append(f"{name} {format_bytes(row.size_bytes)}")
        title = state_name(str(state), bool(rows["measured"].all()), say)
        items.append(say["disk_map_alt_state"].format(state=title, items=", ".join(parts)))
    disk = format_bytes(data.loc[data["kind"] == "disk", "size_bytes"].iloc[-1])
    return say["disk_map_alt"].format(disk=disk, items=" ".join(items))


def plot_disk_map(
    sizes: pd.DataFrame,
    ax: Axes | None = None,
    *,
    run: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Axes:
    """Draw the disk to scale in each of its states, one below the other.

    Parameters
    ----------
    sizes : DataFrame
        The tidy sizes table.
    ax : Axes, optional
        Where to draw; the figure keeps inside the place it has now.
    run : str, optional
        Which run of the table; needed where it holds several.
    labels : mapping, optional
        See :func:`cloudlab.figures.labels.words`.
    """
    from cloudlab.figures.disk_bars import draw_disk_bars

    say = words(labels)
    title = titled(say, growth_title(Run(sizes, run).growth(), say))
    return draw_disk_bars(ax, disk_map_data(sizes, run=run), title, say)


def growth_title(growth: Growth, say: Mapping[str, str]) -> str:
    """Return what happened to partition and filesystem, or their sizes where that is unknown."""
    key = f"grew_{growth.found}"
    if growth.found == "unknown":
        known = growth.partition is not None, growth.filesystem is not None
        one = {(True, True): "moment", (True, False): "partition", (False, False): "nothing"}
        key = f"one_{one.get(known, 'whole_disk' if growth.whole_disk else 'filesystem')}"
    return say[key].format(
        partition=format_bytes(growth.partition and growth.partition[1]),
        filesystem=format_bytes(growth.filesystem and growth.filesystem[1]),
    )


def state_name(state: str, measured: bool, say: dict[str, str]) -> str:  # noqa: FBT001
    """Return what a state is called in the figure."""
    return say[f"state_{state}"] + ("" if measured else f" {say['deduced']}")


def _states(run: Run) -> list[State]:
    image, before, after = (_snapshot(run, stage) for stage in ("image", "before", "after"))
    states = [state for state in (image, before) if state.known]
    if image.known and max(_ends(run, image), default=0) > image.disk > 0:
        image.name = "launch"
    first = states[-1] if states else before
    last, between = _sampled(run, first)
    if not after.known:
        after = last
    if not after.known:
        return states
    after.disk = after.disk or first.disk
    if states:
        after.partitions = first.partitions | after.partitions
        after.filesystems = first.filesystems | after.filesystems
        if _grew(run, first, after) == (True, True):
            after.name = "filesystem"
            if between is None:
                between = after.copy("partition", measured=False)
                between.filesystems |= first.filesystems
            states.append(between)
    for state in states:
        # From the launch on the disk is the overlay's.
        state.disk = state.disk if state.name == "image" else after.disk
    return [*states, after]


def _sampled(run: Run, first: State) -> tuple[State, State | None]:
    """Return the last state that the samples saw, and the one between the two growths."""
    rows = run.rows[run.rows["stage"] == "sample"]
    rows = rows[rows["layer"].isin(["partition", "filesystem"])]
    now, between = first.copy("after"), None
    for _, moment in rows.groupby("_time", sort=True, dropna=False):
        _apply(now, moment, run)
        if first.known and _grew(run, first, now) == (True, False):
            between = now.copy("partition")
    return (now if len(rows) else State("after")), between


def _snapshot(run: Run, stage: str) -> State:
    rows = run.rows[run.rows["stage"] == stage]
    state = State(stage)
    _apply(state, rows, run)
    disks = run.of("virtual_disk")
    if stage != "image" and (disks["stage"] != "image").any():
        disks = disks[disks["stage"] != "image"]
    here = disks[disks["stage"] == stage]["size_bytes"]
    if len(here):
        state.disk = int(here.iloc[-1])
    elif stage != "image" and len(disks):
        state.disk = int(disks["size_bytes"].iloc[-1])
    return state


def _apply(state: State, rows: pd.DataFrame, run: Run) -> None:
    for row in records(rows):
        if row.layer == "partition" and row.device in run.partitions:
            state.partitions[row.device] = int(row.size_bytes)
        elif row.layer == "filesystem" and is_known(row.device):
            # On LVM or an encrypted partition the filesystem is drawn where its volume lies.
            root = is_known(row.mountpoint) and row.mountpoint == "/"
            device = (run.root_partition or run.root) if root else row.device
            if device in run.partitions or device == run.disk or row.device == run.root:
                used = int(row.used_bytes) if is_known(row.used_bytes) else None
                where = str(row.mountpoint) if is_known(row.mountpoint) else ""
                state.filesystems[str(device)] = (where, int(row.size_bytes), used)


def _extent(state: State, device: str) -> int | None:
    """Return how far a filesystem of this size may reach in bytes, None where that is not known."""
    size, room = state.filesystems[device][1], state.partitions.get(device, state.disk)
    return room if size <= room <= size + room * _LITTLE else None


def _root(run: Run, state: State) -> tuple[int, int]:
    device = run.root_partition or run.root or ""
    filesystem = state.filesystems.get(device, ("", 0, None))[1]
    return state.partitions.get(device, 0), filesystem


def _grew(run: Run, first: State, last: State) -> tuple[bool, bool]:
    pairs = zip(_root(run, first), _root(run, last), strict=True)
    partition, filesystem = (end - start >= LEAST_GAIN_BYTES for start, end in pairs)
    return partition, filesystem


def _starts(run: Run, state: State) -> tuple[dict[str, int], bool]:
    """Return where each partition starts and whether that was measured."""
    rows = run.rows[run.rows["layer"] == "partition"].dropna(subset=["start_bytes"])
    known = {str(d): int(s) for d, s in zip(rows["device"], rows["start_bytes"], strict=True)}
    if all(device in known for device in state.partitions):
        return known, True
    # Cloud images that grow have their root at the end.
    names = sorted(state.partitions, key=lambda device: device == run.root_partition)
    starts, end = {}, 0
    for name in names:
        starts[name] = end
        end += state.partitions[name]
    return starts, False


def _ends(run: Run, state: State) -> list[int]:
    starts, _ = _starts(run, state)
    return [starts[device] + size for device, size in state.partitions.items()]


def _gaps(state: State, starts: dict[str, int]) -> list[tuple[int, int]]:
    """Return the unallocated stretches that are more than alignment, (start, size) each."""
    least = min(LEAST_GAIN_BYTES, state.disk // 100)
    gaps, end = [], 0
    for device in sorted(state.partitions, key=starts.__getitem__):
        if starts[device] - end > least:
            gaps.append((end, starts[device] - end))
        end = max(end, starts[device] + state.partitions[device])
    if state.disk - end > least:
        gaps.append((end, state.disk - end))
    return gaps
