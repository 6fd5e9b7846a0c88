"""The tables of runs: what the host measured, what the guest's console said, and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab import paths
from cloudlab.disk import DiskLayout, Extent
from cloudlab.errors import RecordingError
from cloudlab.lab.boot import BootLog
from cloudlab.lab.options import RunOptions
from cloudlab.recording import Recording
from cloudlab.sizes import console_sizes, read_sizes, sizes_frame

if TYPE_CHECKING:
    import pandas as pd


def run_sizes(
    run: str,
    options: RunOptions,
    log: BootLog,
    overlay_sizes: tuple[int, int],
    about: Mapping[str, Any],
) -> pd.DataFrame:
    """Return the sizes table of one run.

    Parameters
    ----------
    run : str
    options : RunOptions
    log : BootLog
    overlay_sizes : tuple of int
        The overlay file's allocated bytes before the launch and after the end.
    about : mapping
        What ``run.json`` holds, the disk before and after the boot among it.
    """
    import pandas as pd

    image = options.image
    common = {"run": run, "scenario": options.scenario, "exact": True}
    rows: list[dict[str, Any]] = [
        {
            **common,
            "stage": "image",
            "time_s": 0.0,
            "layer": layer,
            "device": device,
            "size_bytes": size_bytes,
            "source": source,
        }
        for layer, device, size_bytes, source in (
            ("image_file", image.name, image.file_size_bytes, "host: file size"),
            ("virtual_disk", image.name, image.virtual_size_bytes, "host: qemu-img info"),
        )
    ]
    growth = [(0.0, overlay_sizes[0]), *log.overlay_growth, (log.time_s, overlay_sizes[-1])]
    for number, (time_s, size_bytes) in enumerate(growth):
        ends = {0: "before", len(growth) - 1: "after"}
        rows.append(
            {
                **common,
                "stage": ends.get(number, "sample"),
                "time_s": round(time_s, 3),
                "layer": "overlay_file",
                "device": "overlay.qcow2",
                "size_bytes": size_bytes,
                "source": "host: allocated blocks",
            }
        )
    console = console_sizes(
        log.parser.result(), run=run, scenario=options.scenario, times=log.clock
    )
    sizes = pd.concat([sizes_frame(rows), console], ignore_index=True)
    return with_disk(sizes, about)


def with_disk(sizes: pd.DataFrame, about: Mapping[str, Any]) -> pd.DataFrame:
    """Return the sizes table of one run with what the host read off its disk.

    What lay there before the boot has the stage ``image``; what the boot left has the stage
    ``after`` and is added only where the guest reported nothing.  Filesystems are counted as
    the guest counts them, by statfs, so that both may be compared.  Nothing is added where the
    host cannot read both root's partition and its filesystem, as on LVM.

    Parameters
    ----------
    sizes : DataFrame
        Returned as it is where it has such rows already.
    about : mapping
        What ``run.json`` holds, of which ``disk_before``, ``disk`` and ``time_s`` are used.
    """
    import pandas as pd

    of_host = sizes["source"].str.startswith("host").fillna(False)
    on_disk = sizes["layer"].isin(["partition", "filesystem"])
    if sizes.empty or (of_host & on_disk).any():
        return sizes
    disks = {"image": about.get("disk_before") or {}}
    mounted = _first_filesystems(sizes[~of_host])
    if of_host.all():
        disks["after"] = about.get("disk") or {}
        mounted = _largest(disks["image"])
    times = {"image": 0.0, "after": about.get("time_s")}
    common = {"run": sizes["run"].iloc[0], "scenario": sizes["scenario"].iloc[0], "exact": True}
    rows = [
        common | {"stage": stage, "time_s": times[stage]} | row
        for stage, disk in disks.items()
        for row in _disk_rows(disk, mounted, stage)
    ]
    if not any((row["layer"], row.get("mountpoint")) == ("filesystem", "/") for row in rows):
        return sizes
    return pd.concat([sizes[of_host], sizes_frame(rows), sizes[~of_host]], ignore_index=True)


def _disk_rows(
    disk: Mapping[str, Any], mounted: Mapping[str, tuple[str, int]], stage: str
) -> Iterator[dict[str, Any]]:
    if stage == "after" and disk.get("partitions"):
        yield {
            "layer": "virtual_disk",
            "device": device_name(None),
            "size_bytes": disk["virtual_size_bytes"],
            "source": "host: qemu-img info",
        }
    for one in disk.get("partitions", ()):
        name = device_name(one["number"])
        mountpoint, seen_bytes = mounted.get(name, (None, None))
        if one["number"] is not None:
            yield {
                "layer": "partition",
                "device": name,
                "mountpoint": mountpoint,
                "size_bytes": one["size_bytes"],
                "source": "host: partition table",
                "start_bytes": one["start_bytes"],
            }
        filesystem = one["filesystem"] or {}
        size_bytes = filesystem.get("statfs_bytes") or filesystem.get("size_bytes")
        if size_bytes is not None and seen_bytes is not None:
            # What the superblock says may be more than what statfs then does; it is less only
            # if the filesystem grew until then.
            size_bytes = min(size_bytes, seen_bytes)
            yield {
                "layer": "filesystem",
                "device": name,
                "mountpoint": mountpoint,
                "size_bytes": size_bytes,
                "source": "host: superblock",
            }


def _largest(disk: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return the device that must be root's where no guest said so, as if it were mounted."""
    root = max(disk.get("partitions", ()), key=lambda one: one["size_bytes"], default=None)
    filesystem = (root and root["filesystem"]) or {}
    size_bytes = filesystem.get("statfs_bytes") or filesystem.get("size_bytes")
    # LVM's and RAID's members hold root's filesystem and are none.
    if root is None or size_bytes is None or filesystem["type"].endswith("_member"):
        return {}
    return {device_name(root["number"]): ("/", size_bytes)}


def _first_filesystems(sizes: pd.DataFrame) -> dict[str, tuple[str, int]]:
    """Return device -> mount point and exact bytes, as the guest first said them."""
    rows = sizes[(sizes["layer"] == "filesystem") & sizes["exact"].fillna(False)]
    rows = rows.dropna(subset=["device", "mountpoint", "size_bytes"]).drop_duplicates("device")
    columns = (rows[name] for name in ("device", "mountpoint", "size_bytes"))
    return {str(name): (str(place), int(size)) for name, place, size in zip(*columns, strict=True)}


def device_name(number: int | None) -> str:
    """Return what a guest of ours calls a partition of its disk; None is the disk itself."""
    return "vda" if number is None else f"vda{number}"


def layout_sizes(layout: DiskLayout) -> pd.DataFrame:
    """Return a disk that nobody booted as a sizes table.

    Where its filesystems are mounted is not known: the largest partition's is taken for root's,
    and the others have their kind in the place of a mount point.
    """
    disk = layout.to_json()
    kinds = {
        device_name(one.number): (one.filesystem.type, one.filesystem.size_bytes)
        for one in layout.partitions
        if one.filesystem is not None and one.filesystem.size_bytes is not None
    }
    common = {"run": layout.path.name, "scenario": "", "stage": "after", "exact": True}
    return sizes_frame(common | row for row in _disk_rows(disk, kinds | _largest(disk), "after"))


def write_extents(run: str, extents: Iterable[Extent], path: Path) -> None:
    """Write where each part of the disk comes from, as CSV."""
    with paths.whole_file(path) as part:
        extents_frame(run, extents).to_csv(part, index=False, lineterminator="\n")


def extents_frame(run: str, extents: Iterable[Extent]) -> pd.DataFrame:
    """Return run, start_bytes, length_bytes, kind, region of each part of the disk.

    The rows cover the whole disk, so that it can be drawn from them alone.
    """
    import pandas as pd

    rows = [
        {
            "run": run,
            "start_bytes": one.start_bytes,
            "length_bytes": one.length_bytes,
            "kind": one.kind,
            "region": one.region,
        }
        for one in extents
    ]
    return pd.DataFrame(rows, columns=["run", "start_bytes", "length_bytes", "kind", "region"])


def partitions_frame(run: str, disk: Mapping[str, Any]) -> pd.DataFrame:
    """Return run, device, start_bytes, size_bytes of what ``inspect`` says of a disk."""
    import pandas as pd

    rows = [
        {
            "run": run,
            "device": device_name(one["number"]),
            "start_bytes": one["start_bytes"],
            "size_bytes": one["size_bytes"],
        }
        for one in disk.get("partitions", [])
    ]
    return pd.DataFrame(rows, columns=["run", "device", "start_bytes", "size_bytes"])


def tables_of(recordings: Sequence[Recording]) -> dict[str, pd.DataFrame]:
    """Return the tables that figures are made from, of one or several runs.

    ``sizes`` (see :data:`cloudlab.sizes.SIZES_COLUMNS`); ``stages``: run, scenario, stage,
    start_s, end_s; ``extents``: run, start_bytes, length_bytes, kind, region;
    ``partitions``: run, device, start_bytes, size_bytes, as the host read them off the
    disk after the run.  Times in seconds since launch.

    Raises
    ------
    RecordingError, ParseError
        Where a run folder lacks a table.
    """
    import pandas as pd

    stages, partitions, extents, sizes = [], [], [], []
    for recording in recordings:
        common = {"run": recording.name, "scenario": str(recording.about.get("scenario", ""))}
        # Runs of older versions do not have the host's rows in their table.
        sizes.append(with_disk(read_sizes(recording.sizes_csv), recording.about))
        stages += [{**common, **stage} for stage in recording.stages()]
        partitions.append(partitions_frame(recording.name, recording.about.get("disk", {})))
        path = recording.folder / "extents.csv"
        try:
            extents.append(pd.read_csv(path))
        except (OSError, ValueError) as error:
            raise RecordingError(f"{path} cannot be read: {error}.") from error
    return {
        "sizes": pd.concat(sizes, ignore_index=True),
        "stages": pd.DataFrame(stages),
        "partitions": pd.concat(partitions, ignore_index=True),
        "extents": pd.concat(extents, ignore_index=True),
    }
