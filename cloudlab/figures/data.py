"""The numbers behind each kind of figure: tables in, one table out, nothing drawn."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.units import alike, is_known

#: A smaller gain does not count as growth: growpart itself ignores less than 1 MiB.
LEAST_GAIN_BYTES = 1 << 20
#: Layers between a partition and its filesystem, from the outside in; ``volume`` is one of
#: which only the device is known.
VOLUMES = ("raid", "luks", "physical_volume", "logical_volume", "volume")
#: The kinds of blocks in a map of a disk, by a legend's order.
BLOCKS = ("partition", *VOLUMES, "filesystem", "used", "unallocated")
#: The owner of what lies in no partition: partition tables, gaps, the unallocated end.
OUTSIDE = "outside"

#: Of the root filesystem, from the outside in.
ROOT = ("partition", "filesystem")
_ORDER = {"image": 0, "before": 1, "sample": 2, "after": 3}
_SIZES = "run scenario stage time_s layer device mountpoint size_bytes used_bytes exact start_bytes"
# Of a partition's size: ext4's tables and journal take less unless configured otherwise.
_OVERHEAD = 0.05
# (layer, mountpoint) of the root filesystem, (layer, stage) of the image's disk.
_AT_ROOT, _OF_IMAGE = ("filesystem", "/"), ("virtual_disk", "image")


def require(frame: pd.DataFrame, columns: str, name: str) -> None:
    """Raise :class:`CloudlabError` unless a table has rows and these columns."""
    missing = [column for column in columns.split() if column not in frame.columns]
    if missing:
        raise CloudlabError(
            f"The {name} table lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}.",
            hint=f"It has: {', '.join(map(str, frame.columns)) or 'no columns'}.",
        )
    if frame.empty:
        raise CloudlabError(f"The {name} table has no rows, so there is nothing to draw.")


def one_run(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a table of a single run as it is; raise :class:`UsageError` for several runs."""
    runs = list(frame["run"].dropna().unique()) if "run" in frame.columns else []
    if len(runs) > 1:
        raise UsageError(
            f"This figure shows one run; the {name} table has {len(runs)} runs.",
            hint=f"Keep the rows of one of: {', '.join(map(str, runs))}",
        )
    return frame


def records(frame: pd.DataFrame) -> list[Any]:
    """Return the rows as named tuples."""
    return list(frame.itertuples())


def _measurements(sizes: pd.DataFrame) -> list[Any]:
    """Return one row per thing and moment, exact where there is a choice, ordered by time.

    Rows are named tuples with None for NA, and have ``line``, ``order``, that of the stages,
    ``moment``, and ``role``, still None.  Only the time of samples separates moments (-1 where it
    is not known): rounded and exact rows of another stage come from different console lines.
    Rows of one moment stand as in the table.
    """
    require(sizes, _SIZES, "sizes")
    table = sizes[sizes["size_bytes"].notna()].reindex(columns=[*_SIZES.split(), "line"])
    table = table.astype(object).where(table.notna(), None).assign(order=0, moment=0.0, role=None)
    found: dict[Any, tuple[int, int, Any]] = {}
    for number, row in enumerate(records(table)):
        # A console without marks prints its report when the boot is done.
        stage = "after" if row.stage is None else row.stage
        time_s = -1.0 if row.time_s is None else row.time_s
        moment = time_s if stage == "sample" else 0.0
        # A device may hold several mounted filesystems, but a partition is one thing.
        mount = row.mountpoint if row.layer == "filesystem" else None
        key = (row.run, stage, moment, row.layer, row.device, mount)
        rank = -1 if row.exact is None else bool(row.exact)
        if key not in found or rank >= found[key][0]:
            order = _ORDER.get(stage, _ORDER["sample"])
            found[key] = rank, number, row._replace(stage=stage, order=order, moment=moment)
    in_time = sorted(found.values(), key=lambda one: (one[2].order, one[2].moment, one[1]))
    return [row for *_, row in in_time]


class RunSizes:
    """The sizes of one run, with those of its root told from the rest.

    ``rows`` has one measurement per thing and moment, ordered by time.  Its ``role`` is its layer
    where it is of the image or overlay file, of the disk that holds root, or of the partition or
    filesystem of root; else None.  ``disk``, ``root`` (what is mounted at /) and
    ``root_partition`` (below LVM or encryption the largest one) are devices or None,
    ``partitions`` those of the disk.
    """

    def __init__(self, sizes: pd.DataFrame) -> None:
        rows = _measurements(one_run(sizes, "sizes"))
        if not rows:
            raise CloudlabError("The sizes table holds no sizes, so there is nothing to draw.")
        devices: dict[str, dict[str, None]] = {"virtual_disk": {}, "partition": {}}
        by_size = sorted(rows, key=lambda row: row.size_bytes)
        # The largest first, and of equals the one that was measured last.
        for row in by_size[::-1]:
            # The host's row of the image has the image's name for a device.
            named = row.device is not None and (row.layer, row.stage) != _OF_IMAGE
            if named and row.layer in devices:
                devices[row.layer][row.device] = None
        at_root = [row.device for row in rows if (row.layer, row.mountpoint) == _AT_ROOT]
        mounted = [device for device in at_root if device is not None]
        self.root: str | None = [None, *mounted][-1]
        self.disk = max(devices["virtual_disk"], key=str(self.root).startswith, default=None)
        self.partitions = [one for one in devices["partition"] if one.startswith(self.disk or "")]
        of_root = [one for one in self.partitions if one == self.root]
        self.root_partition = next(iter([*of_root, *self.partitions]), None)
        # The only disk may have no name; a partition without one is not known to be root's.
        own = {"virtual_disk": {None, self.disk}, "partition": {self.root_partition} - {None}}
        self.rows = [
            row._replace(role=row.layer)
            if str(row.layer).endswith("_file")
            or (row.layer, row.mountpoint) == _AT_ROOT
            or (row.layer, row.stage) == _OF_IMAGE
            or row.device in own.get(row.layer, ())
            else row
            for row in rows
        ]

    @property
    def whole_disk(self) -> bool:
        """Whether the root filesystem lies on the disk itself, without a partition."""
        return not self.partitions and self.root is not None and self.root == self.disk

    def of(self, role: str) -> list[Any]:
        """Return the measurements of one role, ordered by time."""
        return [row for row in self.rows if row.role == role]

    def ends(self, role: str) -> tuple[int, int] | None:
        """Return the first and the last measured size in bytes, or None."""
        found = self.of(role)
        return (int(found[0].size_bytes), int(found[-1].size_bytes)) if found else None

    def grew(self, role: str) -> bool | None:
        """Return whether 1 MiB or more was gained; None for fewer than two measurements."""
        first, last = self.ends(role) or (0, 0)
        return None if len(self.of(role)) < 2 else last - first >= LEAST_GAIN_BYTES  # noqa: PLR2004


def _frame(rows: Any, columns: str) -> pd.DataFrame:
    """Return rows or a table with these columns, whose types follow from their names."""
    kinds = {"bytes": "Int64", "cell": "Int64", "s": "Float64"}
    kinds |= dict.fromkeys(("grew", "whole_disk", "measured", "placed"), "boolean")
    names = columns.split()
    types = {one: kinds.get(one) or kinds.get(one.split("_")[-1], "string") for one in names}
    return pd.DataFrame(rows, columns=names).astype(types)


def layers_data(sizes: pd.DataFrame) -> pd.DataFrame:
    """Return first and last size of each layer of one run.

    Columns: ``layer``, ``device`` (string), ``first_bytes``, ``last_bytes`` (Int64), from the
    image file inwards.  ``used`` is the root filesystem's, ``other_disk`` such as the seed's;
    ``image_disk`` takes the place of ``virtual_disk`` where only the image's was measured.
    """
    run = RunSizes(sizes)
    layers = {role: run.of(role) for role in ("image_file", "overlay_file", "virtual_disk", *ROOT)}
    used = [row for row in layers["filesystem"] if row.used_bytes is not None]
    layers["used"] = [row._replace(size_bytes=row.used_bytes) for row in used]
    if all(row.stage == "image" for row in layers["virtual_disk"]):
        layers = {{"virtual_disk": "image_disk"}.get(one, one): layers[one] for one in layers}
    others: dict[Any, list[Any]] = {}
    for row in run.rows:
        if row.layer == "virtual_disk" and row.role is None:
            others.setdefault(row.device, []).append(row)
    rows = [
        (layer, one[-1].device, one[0].size_bytes, one[-1].size_bytes)
        for layer, one in (*layers.items(), *(("other_disk", one) for one in others.values()))
        if one
    ]
    return _frame(rows, "layer device first_bytes last_bytes")


def scenarios_data(sizes: pd.DataFrame) -> pd.DataFrame:
    """Return first and last size of root partition and root filesystem of each run.

    Columns: ``run``, ``scenario``, ``layer`` (string: partition, filesystem),
    ``first_bytes``, ``last_bytes`` (Int64; NA where not measured), ``grew`` (boolean; NA where
    not measured), ``whole_disk`` (boolean: there is no partition), ``disk_bytes`` (Int64), in
    the runs' order.
    """
    require(sizes, _SIZES, "sizes")
    rows = []
    for name, own in sizes[sizes["size_bytes"].notna()].groupby("run", sort=False):
        run = RunSizes(own)
        scenario = next((row.scenario for row in run.rows if row.scenario is not None), "")
        disk = (run.ends("virtual_disk") or (pd.NA, pd.NA))[1]
        for role in ROOT:
            ends = run.ends(role) or (pd.NA, pd.NA)
            rows.append((name, scenario, role, *ends, run.grew(role), run.whole_disk, disk))
    if not rows:
        raise CloudlabError("The sizes table holds no sizes of a run, so there is nothing to draw.")
    return _frame(rows, "run scenario layer first_bytes last_bytes grew whole_disk disk_bytes")


def growth_data(sizes: pd.DataFrame, options: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of :func:`scenarios_data` and ``setting``, ordered by setting and disk.

    ``options`` has a row per run: ``run``, ``disk_size_bytes``, and further columns of text.
    ``setting`` (string) has those that differ between the runs; ``disk_bytes`` is the chosen size
    of the disk.
    """
    require(options, "run disk_size_bytes", "options")
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
    groups = data.groupby("setting", sort=False)
    data = pd.concat([one.sort_values("disk_bytes", kind="stable") for _, one in groups])
    return data.dropna(subset=["disk_bytes"]).reset_index(drop=True)


#: Both kinds draw the same table.
matrix_data = growth_data


def prediction_data(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions with how far off each was.

    Columns: those given (``scenario``, ``layer``, ``predicted_bytes``, ``measured_bytes``,
    perhaps ``run``), ``error`` (Float64, predicted / measured - 1) and ``right`` (boolean, by
    :func:`cloudlab.units.alike`); both NA where one of the two sizes is not known.
    """
    columns = "scenario layer predicted_bytes measured_bytes"
    require(predictions, columns, "predictions")
    columns += " run" * ("run" in predictions.columns)
    data = _frame(predictions.reset_index(drop=True), columns)
    measured = data["measured_bytes"].astype("Float64")
    data["error"] = data["predicted_bytes"].astype("Float64") / measured.mask(measured == 0) - 1
    pairs = zip(data["predicted_bytes"], data["measured_bytes"], strict=True)
    right = [alike(int(a), int(b)) if is_known(a) and is_known(b) else pd.NA for a, b in pairs]
    data["right"] = pd.array(right, dtype="boolean")
    return data


def stages_data(stages: pd.DataFrame) -> pd.DataFrame:
    """Return the boot stages with their durations, by run and start.

    Columns: ``run``, ``scenario``, ``stage`` (string), ``start_s``, ``end_s``, ``duration_s``
    (Float64, seconds since launch); rows without an end are left out.
    """
    columns = "run scenario stage start_s end_s"
    require(stages, columns, "stages")
    data = _frame(stages, columns).dropna(subset=["start_s", "end_s"])
    require(data, columns, "stages")
    data["duration_s"] = data["end_s"] - data["start_s"]
    runs = data.groupby("run", sort=False, dropna=False)
    return pd.concat(
        [one.sort_values("start_s", kind="stable") for _, one in runs], ignore_index=True
    )


def timeline_data(sizes: pd.DataFrame, stages: pd.DataFrame) -> pd.DataFrame:
    """Return one run's boot stages, and the sizes of disk, partition, filesystem and overlay file.

    Columns: ``layer`` (string: stage or a layer of the sizes table), ``device``,
    ``stage`` (string: a boot stage's name, or of a size image, before, sample or after),
    ``time_s``, ``end_s`` (Float64, seconds since launch), ``size_bytes`` (Int64), by layer and
    time.  A ``sample`` was taken when the size changed; it may have changed any time before
    other rows.  Raises :class:`CloudlabError` if no size has a time.
    """
    run = RunSizes(sizes)
    timed = [
        (row.layer, row.device, row.stage, row.time_s, None, row.size_bytes)
        for layer in ("virtual_disk", *ROOT, "overlay_file")
        for row in sorted(run.of(layer), key=lambda row: row.time_s or 0.0)
        if row.time_s is not None
    ]
    if not timed:
        raise CloudlabError(
            "No size in the table has a time, so there is no timeline to draw.",
            hint="Only the table of a run has times; a parsed console log has none.",
        )
    boot = [stages_data(one_run(stages, "stages")).assign(layer="stage")] if len(stages) else []
    boot = [one.rename(columns={"start_s": "time_s"}) for one in boot]
    columns = "layer device stage time_s end_s size_bytes"
    return pd.concat([_frame(one, columns) for one in (*boot, timed)], ignore_index=True)


def jumps(data: pd.DataFrame) -> dict[str, list[tuple[float, float]]]:
    """Return when each layer of a timeline gained 1 MiB or more, perhaps several times.

    A growth lies between two times in seconds.  They are equal where one sample saw all of it,
    which happens within about a second; a filesystem may be seen in the middle of its growth,
    and then the samples that follow at once belong to the same one.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for layer, rows in data[data["layer"] != "stage"].groupby("layer", sort=False):
        rows = rows.reset_index(drop=True)  # noqa: PLW2901
        grown = rows.index[(rows["size_bytes"].diff() >= LEAST_GAIN_BYTES).fillna(False)]
        for at in grown:
            last = first = float(rows["time_s"][at])
            if rows["stage"][at] != "sample":
                first = float([last, *rows["time_s"][rows["time_s"] < last]][-1])
            steps = found.setdefault(str(layer), [])
            if steps and (at - 1 in grown or steps[-1][1] == last):
                first = steps.pop()[0]
            steps.append((first, last))
    return found


def overlay_map_data(
    extents: pd.DataFrame, partitions: pd.DataFrame, cell_bytes: int | None = None
) -> pd.DataFrame:
    """Return how much was written in each cell of the disk, by partition, ordered as on it.

    Columns: ``cell`` (Int64, from 0), ``owner`` (string: a device, or ``outside``),
    ``written_bytes`` (Int64), only where something was written.  Without ``cell_bytes`` the
    whole disk is one cell.  ``extents`` covers the disk: ``start_bytes``, ``length_bytes``,
    ``kind`` (``data`` or ``written`` where the bytes lie in the overlay).
    """
    regions = overlay_regions(extents, partitions)
    cell = cell_bytes or regions[-1][1]
    totals: Counter[tuple[int, str]] = Counter()
    # These bytes lie in the overlay itself.
    for one in records(extents[extents["kind"].isin(("data", "written"))]):
        for left, right, owner in regions:
            start = max(int(one.start_bytes), left)
            end = min(int(one.start_bytes + one.length_bytes), right)
            for index in range(start // cell, -(-end // cell)) if start < end else ():
                totals[index, owner] += min(end, (index + 1) * cell) - max(start, index * cell)
    rows = [(*key, totals[key]) for key in sorted(totals, key=lambda key: key[0])]
    return _frame(rows, "cell owner written_bytes")


def overlay_regions(extents: pd.DataFrame, partitions: pd.DataFrame) -> list[tuple[int, int, str]]:
    """Return the disk as (start, end, owner) in bytes, from 0 and without gaps."""
    require(extents, "start_bytes length_bytes kind", "extents")
    if not partitions.empty:
        require(partitions, "device start_bytes size_bytes", "partitions")
    one_run(extents, "extents")
    if {"run"} <= set(extents.columns) & set(partitions.columns):
        partitions = partitions[partitions["run"].isin(extents["run"])]
    regions: list[tuple[int, int, str]] = []
    end = 0
    for row in records(partitions.sort_values("start_bytes")):
        start, stop = int(row.start_bytes), int(row.start_bytes + row.size_bytes)
        if start > end:
            regions.append((end, start, OUTSIDE))
        if stop > end:
            regions.append((max(start, end), stop, str(row.device)))
        end = max(end, stop)
    disk = int((extents["start_bytes"] + extents["length_bytes"]).max())
    return [*regions, (end, max(1, disk), OUTSIDE)] if disk > end or not regions else regions


def disk_map_data(sizes: pd.DataFrame) -> pd.DataFrame:
    """Return what lies where on the disk in each state of one run.

    The state between the growth of partition and filesystem is taken from the samples; where
    they missed it, it is deduced (a filesystem never grows before its partition).  Raises
    :class:`CloudlabError` if neither a partition nor a filesystem was measured.

    Columns: ``state`` (image, launch, before, partition, filesystem or after; launch where the
    boot found another disk than the image's), ``measured`` (boolean: not deduced), ``kind``
    (disk, partition, one of :data:`VOLUMES`, filesystem, used, unallocated), ``device``,
    ``mountpoint`` (string), ``start_bytes``, ``size_bytes``, ``extent_bytes`` (Int64),
    ``placed`` (boolean: the start was measured).  A filesystem's size is df's, which leaves
    its own tables out; where only that little is missing, its extent is its partition's.
    """
    run = RunSizes(sizes)
    volumes = {row.device for row in run.rows if row.layer in VOLUMES}
    here = {*run.partitions, run.disk, run.root, *volumes} - {None}
    rows = [
        row
        for row in run.rows
        if row.layer in VOLUMES or (row.layer in ROOT and row.device in here)
    ]
    if not rows:
        raise CloudlabError(
            "No partition and no filesystem of the disk was measured, so there is no map of it.",
            hint="The console has no report of this run: see `cloudlab explain` for the reason.",
        )
    disks = [row for row in run.of("virtual_disk") if row.stage != "image"]
    of_image = [row.size_bytes for row in run.of("virtual_disk") if row.stage == "image"]
    then = [0, *of_image][-1]
    blocks: list[tuple[Any, ...]] = []
    filled: dict[Any, int] = {}
    for state, measured, found in _states(rows):
        ends = [row.start_bytes + row.size_bytes for row in found if row.start_bytes is not None]
        state = "launch" if state == "image" and max(ends, default=0) > then > 0 else state  # noqa: PLW2901
        # The disk's size as last, or else as first measured.
        now = max((row.order, row.moment) for row in found)
        until = [row for row in disks if (row.order, row.moment) <= now]
        last = [0, *(row.size_bytes for row in (*disks[:1], *until))][-1]
        disk = then if state == "image" else last or then
        blocks += [(state, measured, *block) for block in _blocks(run, found, disk, filled)]
    columns = "state measured kind device mountpoint start_bytes size_bytes extent_bytes placed"
    return _frame(blocks, columns)


def _states(rows: Sequence[Any]) -> Iterator[tuple[str, bool, list[Any]]]:
    """Yield the states of the disk: name, whether measured, and the latest row of each thing."""

    def latest(these: Iterable[Any]) -> list[Any]:
        found: dict[Any, Any] = {}
        for row in these:
            # Its place is that of its latest row: what was measured together stands together.
            found.pop((row.layer, row.device), None)
            found[row.layer, row.device] = row
        return list(found.values())

    def grew(now: Sequence[Any], role: str) -> bool:
        sizes = [sum(row.size_bytes for row in one if row.role == role) for one in (first, now)]
        return bool(sizes[1] - sizes[0] >= LEAST_GAIN_BYTES)

    first: list[Any] = []
    for stage in ("image", "before"):
        if any(row.stage == stage for row in rows):
            first = latest(row for row in rows if row.order <= _ORDER[stage])
            yield stage, True, first
    last = latest(rows)
    if all(row.order <= _ORDER["before"] for row in rows):
        return
    both = bool(first) and grew(last, "partition") and grew(last, "filesystem")
    if both:
        early = [row for row in rows if row.order <= _ORDER["sample"] and row.moment >= 0]
        times = dict.fromkeys(row.moment for row in early)
        moments = [latest(row for row in early if row.moment <= time) for time in times]
        between = [one for one in moments if grew(one, "partition") and not grew(one, "filesystem")]
        deduced = latest([*last, *(row for row in first if row.layer == "filesystem")])
        yield "partition", bool(between), [deduced, *between][-1]
    yield "filesystem" if both else "after", True, last


def _blocks(
    run: RunSizes, found: Sequence[Any], disk: int, filled: dict[Any, int]
) -> Iterator[tuple[Any, ...]]:
    """Yield the blocks of a state: kind, device, mount point, start, size, extent, placed.

    ``filled`` collects the extents of filesystems that filled their partition in a former state.
    """
    parts = [row for row in found if row.layer == "partition"]
    starts = {
        row.device: row.start_bytes
        for row in run.rows
        if row.layer == "partition" and row.start_bytes is not None
    }
    placed = all(row.device in starts for row in parts)
    if not placed:
        # Cloud images that grow have their root partition last.
        parts.sort(key=lambda row: row.device == run.root_partition)
        ends = itertools.accumulate(row.size_bytes for row in parts)
        starts = {row.device: end - row.size_bytes for row, end in zip(parts, ends, strict=True)}
    rooms = {str(row.device): (starts[row.device], row.size_bytes) for row in parts}
    rooms = dict(sorted(rooms.items(), key=lambda item: item[1]))
    end = max((start + size for start, size in rooms.values()), default=0)
    # Guessed places and rounded sizes may add up to more than the disk.
    disk = max(disk, end) if placed or not disk else disk
    yield "disk", run.disk, None, 0, disk, disk, placed
    # Less than that is alignment.
    least, end = min(LEAST_GAIN_BYTES, disk // 100), 0
    for start, size in [*rooms.values(), (disk, 0)] if rooms else []:
        if start - end > least:
            yield "unallocated", None, None, end, start - end, start - end, placed
        end = max(end, start + size)
    for device, (start, size) in rooms.items():
        yield "partition", device, None, start, size, size, placed
    inside = [row for row in found if row.layer == "filesystem"]
    volumes: list[tuple[str, Any, int | None]] = [
        (row.layer, row.device, row.size_bytes) for row in found if row.layer in VOLUMES
    ]
    names = {*rooms, run.disk, *(device for _, device, _ in volumes)}
    # Below LVM or encryption the table may hold no more than root's device.
    volumes += [("volume", row.device, None) for row in inside if rooms and row.device not in names]
    start, room = rooms.get(run.root_partition or "", (0, disk))
    taken = dict.fromkeys(VOLUMES, 0)
    for layer, device, volume in volumes:
        extent = room - taken[layer] if volume is None else volume
        rooms[str(device)] = start + taken[layer], extent
        yield layer, device, None, start + taken[layer], volume, extent, placed
        taken[layer] += extent
    for row in inside:
        start, room = rooms.get(str(row.device), (0, disk))
        key, most = (row.device, row.size_bytes), row.size_bytes + room * _OVERHEAD
        if row.size_bytes <= room <= most:
            filled[key] = room
        extent = filled.get(key, row.size_bytes)
        yield "filesystem", row.device, row.mountpoint, start, row.size_bytes, extent, placed
        if row.used_bytes is not None:
            yield "used", row.device, row.mountpoint, start, row.used_bytes, row.used_bytes, placed


def obstacle(data: pd.DataFrame) -> tuple[str, str, int] | None:
    """Return what ends the growth of the root partition in the last state of a disk map.

    The partition that begins right behind the root partition, the root partition, and the
    byte where they meet; None where unallocated space or nothing follows.
    """
    rows = records(data[(data["state"] == data["state"].iloc[-1]) & data["placed"]])
    roots = [row for row in rows if row.kind == "filesystem" and str(row.mountpoint) == "/"]
    parts = [row for row in rows if row.kind == "partition"]
    for root, own, other in itertools.product(roots, parts, parts):
        end = int(own.start_bytes + own.size_bytes)
        if own.start_bytes <= root.start_bytes < end <= other.start_bytes < end + LEAST_GAIN_BYTES:
            return str(other.device), str(own.device), end
    return None
