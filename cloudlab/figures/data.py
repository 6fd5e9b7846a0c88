"""The numbers behind each kind of figure: tables in, one table out, nothing drawn."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
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


def ordered(sizes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per thing and moment, exact where there is a choice, ordered by time."""
    require(sizes, _SIZES, "sizes")
    rows = sizes[sizes["size_bytes"].notna()].copy()
    # A console without marks prints its report when the boot is done.
    rows["stage"] = rows["stage"].astype("string").fillna("after")
    rows["_order"] = rows["stage"].map(_ORDER).astype("Float64").fillna(_ORDER["sample"])
    # Rounded and exact rows of one stage come from different console lines, so only the time
    # of samples separates moments.
    rows["_time"] = rows["time_s"].astype("Float64").where(rows["stage"] == "sample", 0.0)
    rows = rows.sort_values("exact", kind="stable", na_position="first")
    # A device may hold several mounted filesystems, but a partition is one thing.
    rows["_mount"] = rows["mountpoint"].where(rows["layer"] == "filesystem")
    keys = ["run", "stage", "_time", "layer", "device", "_mount"]
    rows = rows.drop_duplicates(keys, keep="last").sort_index()
    return rows.sort_values(["_order", "_time"], kind="stable", na_position="first")


class RunSizes:
    """The sizes of one run, with those of its root told from the rest.

    ``rows`` has one row per thing and moment, ordered by time, and a column ``role``: the layer
    where the row is about the image or overlay file, the disk that holds root, or the partition
    or filesystem of root; else NA.  ``disk``, ``root`` (what is mounted at /) and
    ``root_partition`` (below LVM or encryption the largest one) are devices or None,
    ``partitions`` those of the disk.  ``run`` names one run of a table that holds several.
    """

    def __init__(self, sizes: pd.DataFrame, run: str | None = None) -> None:
        rows = ordered(one_run(sizes, "sizes") if run is None else sizes[sizes["run"] == run])
        if rows.empty:
            raise CloudlabError("The sizes table holds no sizes, so there is nothing to draw.")

        def largest(these: pd.Series[bool]) -> list[str]:
            found = rows[these & device.notna()].sort_values("size_bytes", kind="stable")
            return list(dict.fromkeys(found["device"][::-1]))

        layer, device = rows["layer"], rows["device"]
        at_root = (layer == "filesystem") & (rows["mountpoint"] == "/").fillna(False)
        self.root: str | None = next(iter(device[at_root].dropna()[::-1]), None)
        # The host's row of the image has the image's name for a device.
        named = (layer == "virtual_disk") & device.notna() & (rows["stage"] != "image")
        disks = sorted(largest(named), key=lambda disk: not str(self.root).startswith(disk))
        self.disk: str | None = next(iter(disks), None)
        partitions = largest(layer == "partition")
        self.partitions = [one for one in partitions if one.startswith(self.disk or "")]
        roots = sorted(self.partitions, key=lambda one: one != self.root)
        self.root_partition: str | None = next(iter(roots), None)
        of_disk = (layer == "virtual_disk") & (~named | (device == self.disk).fillna(False))
        own = (layer == "partition") & (device == self.root_partition).fillna(False)
        keep = layer.str.endswith("_file") | of_disk | own | at_root
        self.rows = rows.assign(role=layer.where(keep))

    @property
    def whole_disk(self) -> bool:
        """Whether the root filesystem lies on the disk itself, without a partition."""
        return not self.partitions and self.root is not None and self.root == self.disk

    def of(self, role: str) -> pd.DataFrame:
        """Return the measurements of one role, ordered by time."""
        return self.rows[(self.rows["role"] == role).fillna(False)]

    def ends(self, role: str) -> tuple[int, int] | None:
        """Return the first and the last measured size in bytes, or None."""
        found = self.of(role)["size_bytes"]
        return (int(found.iloc[0]), int(found.iloc[-1])) if len(found) else None

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
    used = run.of("filesystem").dropna(subset=["used_bytes"])
    used = used.assign(layer="used", size_bytes=used["used_bytes"])
    others = run.rows[(run.rows["layer"] == "virtual_disk") & run.rows["role"].isna()]
    disks = others.assign(layer="other_disk").groupby("device", sort=False)
    roles = ("image_file", "overlay_file", "virtual_disk", *ROOT)
    rows = [
        (one["layer"].iloc[-1], one["device"].iloc[-1], *one["size_bytes"].iloc[[0, -1]])
        for one in (*map(run.of, roles), used, *(rows for _, rows in disks))
        if len(one)
    ]
    data = _frame(rows, "layer device first_bytes last_bytes")
    only_image = (run.of("virtual_disk")["stage"] == "image").all()
    return data.replace({"layer": {"virtual_disk": "image_disk"}}) if only_image else data


def scenarios_data(sizes: pd.DataFrame) -> pd.DataFrame:
    """Return first and last size of root partition and root filesystem of each run.

    Columns: ``run``, ``scenario``, ``layer`` (string: partition, filesystem),
    ``first_bytes``, ``last_bytes`` (Int64; NA where not measured), ``grew`` (boolean; NA where
    not measured), ``whole_disk`` (boolean: there is no partition), ``disk_bytes`` (Int64), in
    the runs' order.
    """
    rows = []
    for name in ordered(sizes).sort_index()["run"].drop_duplicates():
        run = RunSizes(sizes, str(name))
        scenario = next(iter(run.rows["scenario"].dropna()), "")
        disk = (run.ends("virtual_disk") or (pd.NA, pd.NA))[1]
        for role in ROOT:
            ends = run.ends(role) or (pd.NA, pd.NA)
            rows.append((name, scenario, role, *ends, run.grew(role), run.whole_disk, disk))
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
    layers = [run.of(layer) for layer in ("virtual_disk", *ROOT, "overlay_file")]
    timed = [one.sort_values("time_s", kind="stable").dropna(subset=["time_s"]) for one in layers]
    if not any(map(len, timed)):
        raise CloudlabError(
            "No size in the table has a time, so there is no timeline to draw.",
            hint="Only the table of a run has times; a parsed console log has none.",
        )
    boot = [stages_data(one_run(stages, "stages")).assign(layer="stage")] if len(stages) else []
    boot = [one.rename(columns={"start_s": "time_s"}) for one in boot]
    columns = "layer device stage time_s end_s size_bytes"
    return pd.concat([_frame(one, columns) for one in (*boot, *timed)], ignore_index=True)


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
    rows, volumes = run.rows, run.rows["layer"].isin(VOLUMES)
    here = {*run.partitions, run.disk, run.root, *rows.loc[volumes, "device"]} - {None}
    states = list(_states(rows[rows["device"].isin(here) & rows["layer"].isin(ROOT) | volumes]))
    if not states:
        raise CloudlabError(
            "No partition and no filesystem of the disk was measured, so there is no map of it.",
            hint="The console has no report of this run: see `cloudlab explain` for the reason.",
        )
    disks = run.of("virtual_disk")
    of_image = disks["stage"] == "image"
    then = int(next(iter(disks[of_image]["size_bytes"][::-1]), 0))
    blocks: list[tuple[Any, ...]] = []
    filled: dict[Any, int] = {}
    for state, measured, found in states:
        end = (found["start_bytes"] + found["size_bytes"]).fillna(0).max()
        state = "launch" if state == "image" and end > then > 0 else state  # noqa: PLW2901
        disk = then if state == "image" else _disk_at(disks[~of_image], found) or then
        blocks += [(state, measured, *block) for block in _blocks(run, found, disk, filled)]
    columns = "state measured kind device mountpoint start_bytes size_bytes extent_bytes placed"
    return _frame(blocks, columns)


def _disk_at(disks: pd.DataFrame, found: pd.DataFrame) -> int:
    """Return the disk's size in a state, as last or else first measured; 0 where it was not."""
    order = found["_order"].max()
    time = found[found["_order"] == order]["_time"].max()
    same = (disks["_order"] == order) & (disks["_time"] <= time).fillna(value=True)
    until = disks[(disks["_order"] < order) | same]
    return int(next(iter([*until["size_bytes"][::-1], *disks["size_bytes"]]), 0))


def _states(rows: pd.DataFrame) -> Iterator[tuple[str, bool, pd.DataFrame]]:
    """Yield the states of the disk: name, whether measured, and the latest row of each thing."""

    def latest(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.drop_duplicates(["layer", "device"], keep="last")

    def grew(now: pd.DataFrame, role: str) -> bool:
        sizes = [one.loc[(one["role"] == role).fillna(False), "size_bytes"] for one in (first, now)]
        return sizes[1].sum() - sizes[0].sum() >= LEAST_GAIN_BYTES

    first = rows.head(0)
    for stage in ("image", "before"):
        if (rows["stage"] == stage).any():
            first = latest(rows[rows["_order"] <= _ORDER[stage]])
            yield stage, True, first
    last = latest(rows)
    if (rows["_order"] <= _ORDER["before"]).all():
        return
    both = len(first) and grew(last, "partition") and grew(last, "filesystem")
    if both:
        early = rows[rows["_order"] <= _ORDER["sample"]].dropna(subset=["_time"])
        moments = [latest(early[early["_time"] <= time]) for time in early["_time"].unique()]
        between = [one for one in moments if grew(one, "partition") and not grew(one, "filesystem")]
        deduced = latest(pd.concat([last, first[first["layer"] == "filesystem"]]))
        yield "partition", bool(between), [deduced, *between][-1]
    yield "filesystem" if both else "after", True, last


def _blocks(
    run: RunSizes, found: pd.DataFrame, disk: int, filled: dict[Any, int]
) -> Iterator[tuple[Any, ...]]:
    """Yield the blocks of a state: kind, device, mount point, start, size, extent, placed.

    ``filled`` collects the extents of filesystems that filled their partition in a former state.
    """
    parts = found[found["layer"] == "partition"]
    known = run.rows[run.rows["layer"] == "partition"].dropna(subset=["start_bytes"])
    starts = dict(zip(known["device"], known["start_bytes"].astype(int), strict=True))
    placed = bool(parts["device"].isin(starts).all())
    if not placed:
        # Cloud images that grow have their root partition last.
        is_root = (parts["device"] == run.root_partition).fillna(False)
        parts = pd.concat([parts[~is_root], parts[is_root]])
        begin = parts["size_bytes"].cumsum() - parts["size_bytes"]
        starts = dict(zip(parts["device"], begin.astype(int), strict=True))
    rooms = {str(row.device): (starts[row.device], int(row.size_bytes)) for row in records(parts)}
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
    inside = found[found["layer"] == "filesystem"]
    volumes = [
        (row.layer, row.device, row.size_bytes) for row in records(found) if row.layer in VOLUMES
    ]
    names = {*rooms, run.disk, *(device for _, device, _ in volumes)}
    # Below LVM or encryption the table may hold no more than root's device.
    volumes += [("volume", one, pd.NA) for one in inside["device"] if rooms and one not in names]
    start, room = rooms.get(run.root_partition or "", (0, disk))
    taken = dict.fromkeys(VOLUMES, 0)
    for layer, device, size in volumes:
        extent = room - taken[layer] if pd.isna(size) else int(size)
        rooms[device] = start + taken[layer], extent
        taken[layer] += extent
        yield layer, device, None, rooms[device][0], size, extent, placed
    for row in records(inside):
        start, room = rooms.get(row.device, (0, disk))
        key, most = (row.device, row.size_bytes), row.size_bytes + room * _OVERHEAD
        if row.size_bytes <= room <= most:
            filled[key] = room
        extent = filled.get(key, row.size_bytes)
        yield "filesystem", row.device, row.mountpoint, start, row.size_bytes, extent, placed
        if is_known(row.used_bytes):
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
