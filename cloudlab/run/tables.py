"""The tables of a run: what the host measured, what the guest reported, and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab import paths
from cloudlab.console import printable
from cloudlab.disk import DiskLayout, Extent, Partition
from cloudlab.errors import RecordingError
from cloudlab.run.record import Record
from cloudlab.sizes import ParsedConsole, console_sizes, read_sizes, sizes_frame

if TYPE_CHECKING:
    import pandas as pd

#: No size, time or line number is greater: figures must be able to add and multiply them.
_MOST = 1 << 60

#: What a displayed table has above its row numbers: screen readers need a word there.
_HEAD = "row"

#: Columns of ``extents.csv``.
EXTENTS_COLUMNS = ("run", "start_bytes", "length_bytes", "kind", "region")


def run_sizes(
    record: Record,
    parsed: ParsedConsole,
    *,
    times: Mapping[int, float],
    overlay_growth: Iterable[tuple[float, int]],
) -> pd.DataFrame:
    """Return the sizes table of a run (see :data:`cloudlab.sizes.SIZES_COLUMNS`).

    ``record`` is finished, with the disk before and after.  ``times`` has the seconds since
    launch of the report's console lines, ``overlay_growth`` the overlay's allocated bytes at
    seconds between launch and end.
    """
    import pandas as pd

    image, overlay = record.image, record.overlay
    file, disk = ("image_file", image.name), ("virtual_disk", image.name)
    written = ("overlay_file", "overlay.qcow2", "allocated blocks")
    rows = [
        ("image", 0.0, image.file_size_bytes, *file, "file size"),
        ("image", 0.0, image.virtual_size_bytes, *disk, "qemu-img info"),
        ("before", 0.0, overlay.start_bytes, *written),
        *(("sample", round(time_s, 3), size, *written) for time_s, size in overlay_growth),
        ("after", record.time_s or 0.0, overlay.end_bytes, *written),
    ]
    columns = ("stage", "time_s", "size_bytes", "layer", "device", "source")
    common = {"run": record.name, "scenario": record.scenario, "exact": True}
    host = sizes_frame(
        common | dict(zip(columns, (*row[:-1], f"host: {row[-1]}"), strict=True)) for row in rows
    )
    console = console_sizes(parsed, run=record.name, scenario=record.scenario, times=times)
    sizes = with_disk(pd.concat([host, console], ignore_index=True), record)
    return _of_run(sizes, record)


def with_disk(sizes: pd.DataFrame, record: Record) -> pd.DataFrame:
    """Return a run's sizes table with what the host read from its disk.

    What was on the disk before the boot has the stage ``image``; what the boot left has the
    stage ``after`` and is added only where the guest reported nothing.  Filesystem sizes are
    those that statfs gives in the guest, so that both may be compared.  Nothing is added where
    the host cannot read both root's partition and its filesystem, as on LVM, or where the table
    has such rows already.
    """
    import pandas as pd

    from_host = sizes["source"].str.startswith("host").fillna(False)
    on_disk = sizes["layer"].isin(["partition", "filesystem"])
    if sizes.empty or (from_host & on_disk).any():
        return sizes
    disks = {"image": record.disk_before}
    mounted = _first_filesystems(sizes[~from_host])
    if from_host.all():
        disks["after"] = record.disk_after
        mounted = _root_filesystem(record.disk_before)
    times = {"image": 0.0, "after": record.time_s}
    common = {"run": sizes["run"].iloc[0], "scenario": sizes["scenario"].iloc[0], "exact": True}
    rows = [
        common | {"stage": stage, "time_s": times[stage]} | row
        for stage, layout in disks.items()
        if layout is not None
        for row in _layout_rows(layout, mounted, stage)
    ]
    if not any((row["layer"], row.get("mountpoint")) == ("filesystem", "/") for row in rows):
        return sizes
    return pd.concat([sizes[from_host], sizes_frame(rows), sizes[~from_host]], ignore_index=True)


def layout_sizes(layout: DiskLayout) -> pd.DataFrame:
    """Return a disk that was not booted as a sizes table, at the stage ``after``.

    Nothing tells where its filesystems are mounted: the largest partition's is taken for the
    root filesystem, and the others have their type in place of a mount point.
    """
    types = {
        device_name(one.number): (one.filesystem.type, one.filesystem.size_bytes)
        for one in layout.partitions
        if one.filesystem is not None and one.filesystem.size_bytes is not None
    }
    mounted = types | _root_filesystem(layout)
    common = {"run": printable(layout.path.name), "scenario": "", "stage": "after", "exact": True}
    return sizes_frame(common | row for row in _layout_rows(layout, mounted, "after"))


def device_name(number: int | None) -> str:
    """Return a cloudlab guest's name for a partition of its disk; None is the whole disk."""
    return "vda" if number is None else f"vda{number}"


def extents_frame(run: str, extents: Iterable[Extent]) -> pd.DataFrame:
    """Return the table of a disk's extents (:data:`EXTENTS_COLUMNS`), which covers all of it."""
    return _frame(
        EXTENTS_COLUMNS,
        ((run, one.start_bytes, one.length_bytes, str(one.kind), one.region) for one in extents),
    )


def read_run_sizes(folder: Path, record: Record) -> pd.DataFrame:
    """Return the sizes table of a run folder, with what its record knows of the disk.

    Raises
    ------
    ParseError
        If the file is missing or damaged.
    RecordingError
        If a value is missing or out of range.
    """
    import numpy as np

    # What a cast warns of it then refuses.
    with np.errstate(invalid="ignore"):
        sizes = _of_run(read_sizes(folder / "sizes.csv"), record)
    problems = [
        f"{column} is missing in {int(sizes[column].isna().sum())} rows"
        for column in ("layer", "size_bytes", "exact", "source")
        if sizes[column].isna().any()
    ]
    for column in ("time_s", "size_bytes", "used_bytes", "start_bytes", "line"):
        known = sizes[column].dropna()
        wrong = known[~known.between(0, _MOST)]
        problems += [f"{column} is {value}, which is out of range" for value in wrong[:1]]
    if problems:
        raise RecordingError(
            f"{folder / 'sizes.csv'}: {problems[0]}.",
            hint="The file was changed after it was recorded; record the run again.",
        )
    # Runs of older versions lack the host's rows.
    return with_disk(sizes, record)


def read_run_extents(folder: Path, record: Record) -> pd.DataFrame:
    """Return the extents of a run folder (:data:`EXTENTS_COLUMNS`).

    Raises
    ------
    RecordingError
        If the file is missing or damaged.
    """
    import numpy as np
    import pandas as pd

    path = folder / "extents.csv"
    texts = dict.fromkeys(("run", "kind", "region"), "string")
    bytes_columns = ["start_bytes", "length_bytes"]
    try:
        with np.errstate(invalid="ignore"):
            extents = pd.read_csv(path, dtype=texts | dict.fromkeys(bytes_columns, "int64"))
        wrong = extents[bytes_columns].lt(0) | extents[bytes_columns].gt(_MOST)
        if wrong.any(axis=None):
            raise ValueError("a number of bytes is out of range")  # noqa: TRY301
        return _of_run(extents[list(EXTENTS_COLUMNS)], record)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise RecordingError(
            f"{path} cannot be read: {error}.",
            hint="The run folder is incomplete; record the run again.",
        ) from error


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    with paths.whole_file(path) as part:
        frame.to_csv(part, index=False, lineterminator="\n")


def partitions_frame(run: str, layout: DiskLayout | None) -> pd.DataFrame:
    """Return ``run``, ``device``, ``start_bytes``, ``size_bytes`` of each partition."""
    partitions = layout.partitions if layout else ()
    return _frame(
        ("run", "device", "start_bytes", "size_bytes"),
        ((run, device_name(one.number), one.start_bytes, one.size_bytes) for one in partitions),
    )


def options_frame(record: Record) -> pd.DataFrame:
    """Return one row: ``run``, ``image``, ``disk_size_bytes``, and other options as text."""
    import pandas as pd

    options = {
        name: "default" if one is None else str(one)
        for name, one in vars(record.options).items()
        # It changes nothing in the guest.
        if name != "keep_overlay"
    }
    known = {"run": record.name, "image": Path(record.image.name).stem}
    return pd.DataFrame([known | options | {"disk_size_bytes": record.options.disk_size_bytes}])


def layout_frame(layout: DiskLayout) -> pd.DataFrame:
    """Return the partitions of a disk, by position.

    Columns: ``number`` (Int64, missing for a filesystem on the whole disk), ``start_bytes``,
    ``size_bytes`` (int64), ``type``, ``filesystem`` (str), ``filesystem_bytes`` (Int64).
    """
    rows = []
    for one in layout.partitions:
        inside = (one.filesystem.type, one.filesystem.size_bytes) if one.filesystem else ("", None)
        rows.append((one.number, one.start_bytes, one.size_bytes, one.type_name, *inside))
    columns = ("number", "start_bytes", "size_bytes", "type", "filesystem", "filesystem_bytes")
    frame = _frame(columns, rows, head=_HEAD)
    return frame.astype({"number": "Int64", "filesystem_bytes": "Int64"})


def stages_frame(record: Record) -> pd.DataFrame:
    """Return ``run``, ``scenario``, ``stage``, ``start_s``, ``end_s`` (since launch)."""
    names = (record.name, record.scenario)
    rows = ((*names, str(one.stage), one.start_s, one.end_s) for one in record.stages)
    return _frame(("run", "scenario", "stage", "start_s", "end_s"), rows, head=_HEAD)


def modules_frame(parsed: ParsedConsole) -> pd.DataFrame:
    """Return ``stage``, ``module``, ``line``: which cloud-init modules ran, in their order.

    Empty where the guest did not report it; ``line`` is the transcript's line.
    """
    block = parsed.block("after")
    rows = (
        (stage.strip(), module, fact.line)
        for fact in (block.facts if block else ())
        if fact.name == "modules"
        for stage, _, modules in (part.partition(":") for part in fact.value.split(";"))
        for module in modules.split()
    )
    return _frame(("stage", "module", "line"), rows, head=_HEAD)


def _frame(
    columns: Sequence[str], rows: Iterable[tuple[Any, ...]], head: str | None = None
) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns)).rename_axis(columns=head)


def _of_run(table: pd.DataFrame, record: Record) -> pd.DataFrame:
    """Return a table that was read, under the names of its record, its texts made printable."""
    names = {"run": record.name, "scenario": record.scenario}
    texts = {
        str(name): column.map(printable, na_action="ignore")
        for name, column in table.items()
        if column.dtype == "string"
    }
    shared = {name: value for name, value in names.items() if name in table}
    return table.assign(**(texts | shared)).astype(table.dtypes.to_dict())


def _layout_rows(
    layout: DiskLayout, mounted: Mapping[str, tuple[str, int]], stage: str
) -> Iterator[dict[str, Any]]:
    if stage == "after" and layout.partitions:
        yield {
            "layer": "virtual_disk",
            "device": device_name(None),
            "size_bytes": layout.virtual_size_bytes,
            "source": "host: qemu-img info",
        }
    for one in layout.partitions:
        name = device_name(one.number)
        mountpoint, seen_bytes = mounted.get(name, (None, None))
        common = {"device": name, "mountpoint": mountpoint}
        if one.number is not None:
            yield common | {
                "layer": "partition",
                "size_bytes": one.size_bytes,
                "source": "host: partition table",
                "start_bytes": one.start_bytes,
            }
        size_bytes = _statfs_bytes(one)
        if size_bytes is not None and seen_bytes is not None:
            # A superblock may count more than statfs does in the guest; it counts less only
            # if the filesystem has grown until then.  After the boot it may have grown.
            yield common | {
                "layer": "filesystem",
                "size_bytes": size_bytes if stage == "after" else min(size_bytes, seen_bytes),
                "source": "host: superblock",
            }


def _statfs_bytes(partition: Partition) -> int | None:
    filesystem = partition.filesystem
    return None if filesystem is None else filesystem.statfs_bytes or filesystem.size_bytes


def _root_filesystem(layout: DiskLayout | None) -> dict[str, tuple[str, int]]:
    """Return the largest partition as the one mounted on ``/``, where no guest reported it."""
    partitions = layout.partitions if layout else ()
    root = max(partitions, key=lambda one: one.size_bytes, default=None)
    size_bytes = _statfs_bytes(root) if root else None
    # A member of LVM or RAID holds the root filesystem, but is not one.
    if not (root and root.filesystem and size_bytes) or root.filesystem.type.endswith("_member"):
        return {}
    return {device_name(root.number): ("/", size_bytes)}


def _first_filesystems(sizes: pd.DataFrame) -> dict[str, tuple[str, int]]:
    """Return device -> mount point and exact bytes, as the guest first reported them."""
    rows = sizes[(sizes["layer"] == "filesystem") & sizes["exact"].fillna(False)]
    rows = rows.dropna(subset=["device", "mountpoint", "size_bytes"]).drop_duplicates("device")
    columns = (rows[name] for name in ("device", "mountpoint", "size_bytes"))
    return {str(name): (str(place), int(size)) for name, place, size in zip(*columns, strict=True)}
