"""What the figures ask of the sizes table, without drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.units import is_known

#: Growth below this is none: growpart itself ignores a gain of less than 1 MiB.
LEAST_GAIN_BYTES = 1 << 20

_ORDER = {"image": 0, "before": 1, "sample": 2, "after": 3}
_SIZES = ("run", "scenario", "stage", "time_s", "layer", "device", "mountpoint", "size_bytes")


def require(frame: pd.DataFrame, columns: tuple[str, ...], name: str) -> None:
    """Check that a table has rows and the columns a figure needs.

    Raises
    ------
    CloudlabError
        Naming what is missing.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise CloudlabError(
            f"The {name} table lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}.",
            hint=f"It has: {', '.join(map(str, frame.columns)) or 'no columns'}.",
        )
    if frame.empty:
        raise CloudlabError(f"The {name} table has no rows, so there is nothing to draw.")


def ordered(sizes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per thing and moment, the exact one where there is one, in time's order."""
    require(sizes, _SIZES, "sizes")
    rows = sizes[sizes["size_bytes"].notna()].copy()
    if "used_bytes" not in rows:
        rows["used_bytes"] = pd.NA
    if "start_bytes" not in rows:
        rows["start_bytes"] = pd.NA
    # A console without marks prints its report when the boot is done.
    rows["stage"] = rows["stage"].astype("string").fillna("after")
    rows["_order"] = rows["stage"].map(_ORDER).astype("Float64").fillna(_ORDER["sample"])
    # Rounded and exact rows of one stage come from different console lines, so only samples
    # are told apart by their time.
    rows["_time"] = rows["time_s"].astype("Float64").where(rows["stage"] == "sample", 0.0)
    rows["_exact"] = rows["exact"].fillna(False).astype(bool) if "exact" in rows else True
    rows = rows.sort_values("_exact", kind="stable")
    # Only a filesystem is told apart by its mount point; a partition may have none yet.
    rows["_mount"] = rows["mountpoint"].where(rows["layer"] == "filesystem")
    keys = ["run", "stage", "_time", "layer", "device", "_mount"]
    rows = rows.drop_duplicates(keys, keep="last").sort_index()
    return rows.sort_values(["_order", "_time"], kind="stable", na_position="first")


def pick_run(frame: pd.DataFrame, run: str | None, name: str = "sizes") -> pd.DataFrame:
    """Return the rows of one run: ``run``, or the only one there is.

    Raises
    ------
    UsageError
        If there are several and none, or another, was named.
    """
    if "run" not in frame.columns:
        return frame
    runs = [str(value) for value in frame["run"].dropna().unique()]
    if run is None and len(runs) <= 1:
        return frame
    if run is None or run not in runs:
        found = f"{len(runs)} runs" if run is None else f"no run called {run!r}"
        raise UsageError(
            f"This figure shows one run; the {name} table has {found}.",
            hint=f"Name one of: {', '.join(runs)}",
        )
    return frame[frame["run"] == run]


@dataclass(frozen=True)
class Growth:
    """First and last size, in bytes or None, of a run's root partition and root filesystem.

    ``partition_grew`` and ``filesystem_grew`` say whether they gained at least 1 MiB; None
    where that was not measured, and for the partition of a filesystem on the whole disk.
    """

    partition: tuple[int, int] | None
    filesystem: tuple[int, int] | None
    partition_grew: bool | None
    filesystem_grew: bool | None
    whole_disk: bool = False

    @property
    def found(self) -> str:
        """What happened: ``both``, ``partition``, ``filesystem``, ``none``, or less is known.

        ``unknown`` stands for no growth measured at all, ``partition_alone`` and
        ``filesystem_alone`` (or ``_kept``) for one of the two only.
        """
        return growth_found(self.partition_grew, self.filesystem_grew, whole_disk=self.whole_disk)


def growth_found(
    partition: bool | None,  # noqa: FBT001
    filesystem: bool | None,  # noqa: FBT001
    *,
    whole_disk: bool = False,
) -> str:
    """Return the end of the label's key that says what grew; None is not measured."""
    if whole_disk and filesystem is not None:
        return "whole_disk" if filesystem else "whole_disk_kept"
    if partition is None and filesystem is None:
        return "unknown"
    if filesystem is None:
        return "partition_alone" if partition else "partition_alone_kept"
    if partition is None:
        return "filesystem_alone" if filesystem else "filesystem_alone_kept"
    both = {(True, True): "both", (True, False): "partition", (False, True): "filesystem"}
    return both.get((partition, filesystem), "none")


def gained(sizes: pd.Series[Any]) -> bool | None:
    """Return whether the last of several sizes is 1 MiB or more above the first.

    None where there are fewer than two.
    """
    if len(sizes) < 2:  # noqa: PLR2004
        return None
    return int(sizes.iloc[-1]) - int(sizes.iloc[0]) >= LEAST_GAIN_BYTES


class Run:
    """One run's measurements: which disk, which root, and what was measured when.

    Parameters
    ----------
    sizes : DataFrame
        The tidy sizes table.
    run : str, optional
        Which run of it; needed where it holds several.
    """

    def __init__(self, sizes: pd.DataFrame, run: str | None = None) -> None:
        self.rows = ordered(pick_run(sizes, run))
        if self.rows.empty:
            raise CloudlabError("The sizes table holds no sizes, so there is nothing to draw.")
        roots = self._of("filesystem")
        roots = roots[roots["mountpoint"] == "/"]
        self.root: str | None = _last(roots["device"])
        self.disk = self._main_disk()
        partitions = self._of("partition")
        self.partitions = [d for d in partitions["device"].dropna().unique() if self._on_disk(d)]
        #: The partition that holds /, or (LVM, encryption) the largest.
        self.root_partition: str | None = self.root if self.root in self.partitions else None
        if self.root_partition is None and self.partitions:
            here = partitions[partitions["device"].isin(self.partitions)]
            self.root_partition = str(here.nlargest(1, "size_bytes")["device"].iloc[0])

    @property
    def scenario(self) -> str:
        """The run's scenario, empty where it has none."""
        return _last(self.rows["scenario"]) or ""

    @property
    def other_disks(self) -> list[str]:
        """Devices of the other disks, such as the seed's."""
        disks = self._machine_disks()["device"].unique()
        return [str(device) for device in disks if device != self.disk]

    def of(self, layer: str, device: str | None = None) -> pd.DataFrame:
        """Return the measurements of one thing, in time's order.

        ``partition`` and ``filesystem`` without a device are the root's, ``virtual_disk``
        the disk that holds it, first as large as the image makes it.
        """
        rows = self._of(layer)
        if layer == "filesystem" and device is None:
            return rows[rows["mountpoint"] == "/"]
        if layer == "virtual_disk" and device is None:
            # What qemu-img tells has no device or the image's name.
            known = rows["device"].notna() & (rows["stage"] != "image")
            return rows[~known | (rows["device"] == self.disk).fillna(False)]
        if layer == "partition" and device is None:
            device = self.root_partition
        return rows if layer.endswith("_file") else rows[rows["device"] == device]

    def ends(self, layer: str, device: str | None = None) -> tuple[int, int] | None:
        """Return the first and the last measured size in bytes, or None."""
        found = self.of(layer, device)["size_bytes"]
        return (int(found.iloc[0]), int(found.iloc[-1])) if len(found) else None

    def growth(self) -> Growth:
        """Return what happened to partition and filesystem."""
        return Growth(
            self.ends("partition"),
            self.ends("filesystem"),
            gained(self.of("partition")["size_bytes"]),
            gained(self.of("filesystem")["size_bytes"]),
            self.whole_disk,
        )

    @property
    def whole_disk(self) -> bool:
        """Whether the root filesystem lies on the disk itself, without a partition."""
        return not self.partitions and self.root is not None and self.root == self.disk

    def _of(self, layer: str) -> pd.DataFrame:
        return self.rows[self.rows["layer"] == layer]

    def _on_disk(self, device: str) -> bool:
        return self.disk is None or device.startswith(self.disk)

    def _machine_disks(self) -> pd.DataFrame:
        disks = self._of("virtual_disk").dropna(subset=["device"])
        return disks[disks["stage"] != "image"]

    def _main_disk(self) -> str | None:
        disks = self._machine_disks()
        names = [str(name) for name in disks["device"].unique()]
        for name in names:
            if self.root is not None and self.root.startswith(name):
                return name
        return str(disks.nlargest(1, "size_bytes")["device"].iloc[0]) if names else None


def _last(values: pd.Series[Any]) -> str | None:
    known = values.dropna()
    return str(known.iloc[-1]) if len(known) else None


def records(frame: pd.DataFrame) -> list[Any]:
    """Return the rows as named tuples, whose fields are what the table's page says."""
    return list(frame.itertuples())


def run_names(frame: pd.DataFrame) -> dict[str, str]:
    """Return each run's name in a figure: its scenario, or both where scenarios repeat."""
    pairs = frame[["run", "scenario"]].drop_duplicates("run")
    counts = pairs["scenario"].value_counts()
    names = {}
    for run, scenario in zip(pairs["run"], pairs["scenario"], strict=True):
        if not is_known(scenario) or not scenario:
            names[str(run)] = str(run)
        else:
            names[str(run)] = str(scenario) if counts[scenario] == 1 else f"{scenario} ({run})"
    return names
