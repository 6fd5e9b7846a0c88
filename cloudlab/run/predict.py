"""What a boot will make of a disk, without booting it: by arithmetic, and from the atlas.

The atlas is a table of real boots (``make atlas``), one row each.  The arithmetic is that of
:mod:`cloudlab.disk.growth`; a test compares it with every row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab.disk import check_overlay_size, inspect_disk
from cloudlab.disk.growth import Root, grown_filesystem, grown_partition, read_root, repartitioned
from cloudlab.html import escaped
from cloudlab.image.cache import Image
from cloudlab.image.recipe import Variant
from cloudlab.run.options import Options, make_options
from cloudlab.seed import GrowpartMode, ResizeRootfs, SeedConfig, to_user_data
from cloudlab.seed.iso import USER_DATA_FILE, VOLUME_ID
from cloudlab.units import TIB, format_bytes

if TYPE_CHECKING:
    import pandas as pd

#: growpart's version where an image does not name it: that of Debian 12 and 13, Ubuntu 22.04
#: and 24.04.
_USUAL_GROWPART = (0, 33)


@dataclass(frozen=True)
class Forecast:
    """What a boot will make of root's partition and filesystem.

    Attributes
    ----------
    partition_bytes : int or None
        None where there is no partition, or it is not known.
    filesystem_bytes : int or None
        As statfs and so ``df`` count it; None where it is not known.
    steps : tuple of str
        The arithmetic, in sentences.
    doubts : tuple of str
        What could make it wrong; empty where cloudlab is sure.

    Examples
    --------
    >>> forecast = cloudlab.predict(disk_size="20G", growpart="off")
    >>> forecast.partition_bytes, forecast.filesystem_bytes
    (2097152000, 2040913920)
    """

    partition_bytes: int | None
    filesystem_bytes: int | None
    steps: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def __str__(self) -> str:
        sizes = [
            f"{name}: {format_bytes(size)} ({size:,} bytes)"
            if size is not None
            else f"{name}: not known"
            for name, size in (
                ("partition", self.partition_bytes),
                ("filesystem", self.filesystem_bytes),
            )
        ]
        doubts = [f"Not sure: {one}" for one in self.doubts]
        return "\n".join([*sizes, *(f"  {one}" for one in self.steps), *doubts])

    def _repr_html_(self) -> str:
        return f"<pre>{escaped(str(self))}</pre>"


def predict(
    options: Options | None = None, *, image: Image | Path | str = "auto", **values: Any
) -> Forecast:
    """Return what a boot will make of root's partition and filesystem, and the arithmetic.

    Parameters
    ----------
    options : Options, optional
        What would be booted, but for ``image`` and ``values``.
    image, **values
        As for :func:`cloudlab.make_options`.

    Raises
    ------
    UsageError
        For a disk that is smaller than the image, and as :func:`cloudlab.make_options`.
    SeedError
        For options that no seed can be made of.
    CloudlabError
        If the image cannot be had or read.

    Examples
    --------
    >>> print(cloudlab.predict(disk_size="20G", resize_rootfs="false").steps[-1])
    resize_rootfs is false, so the filesystem keeps its size.
    """
    options = make_options(image, options, **values)
    to_user_data(options.seed)
    base = options.image
    check_overlay_size(base.path, base.format, options.disk_size_bytes)
    return forecast(options, read_root(inspect_disk(base.path, base.format)))


def forecast(options: Options, root: Root) -> Forecast:
    """Return what a boot will make of the root partition that was read from its image."""
    return _Forecaster(options, root).forecast()


class _Forecaster:
    """The decisions of a boot, in their order, each with its sentence."""

    def __init__(self, options: Options, root: Root) -> None:
        self._options, self._seed, self._root = options, options.seed, root
        self._variant = options.image.details.get("variant", "")
        self._steps: list[str] = []
        self._doubts: list[str] = []

    def forecast(self) -> Forecast:
        """Return the sizes after the boot."""
        options, seed, root = self._options, self._seed, self._root
        if not self._variant:
            self._doubts.append(
                "the image was not built by cloudlab; this holds for growpart "
                f"{'.'.join(map(str, _USUAL_GROWPART))} and a disk that only cloud-init grows."
            )
        if options.user_data is not None or options.vendor_data is not None or seed.extra_yaml:
            self._doubts.append(
                "texts of your own may change these options; they are not read here."
            )
        if seed.bootcmd:
            self._doubts.append("bootcmd may change the disk first.")
        if options.enlarge_to_bytes is not None:
            self._doubts.append("the disk is enlarged afterwards; this holds until then.")
        if seed.resize_rootfs is ResizeRootfs.NOBLOCK:
            self._doubts.append("noblock: the filesystem may still grow when it is measured.")
        partition = self._partition()
        return Forecast(
            partition if root.partition.number else None,
            self._filesystem(partition),
            tuple(self._steps),
            tuple(self._doubts),
        )

    @property
    def _runs(self) -> bool:
        """Whether cloud-init finds its seed."""
        names = self._options.seed_label.upper(), self._options.user_data_file
        return self._options.attach_seed and names == (VOLUME_ID.upper(), USER_DATA_FILE)

    def _partition(self) -> int:
        root, part = self._root, self._root.partition
        if root.partition.number is None:
            self._steps.append("The disk has no partition table, so there is no partition to grow.")
            return self._options.disk_size_bytes
        if self._variant == Variant.REPART:
            grown = repartitioned(root, self._options.disk_size_bytes)
            self._steps += grown.steps
            return grown.size_bytes
        if why := self._kept():
            self._steps.append(f"{why}, so the partition keeps its {part.size_bytes:,} bytes.")
            return part.size_bytes
        if self._variant == Variant.GROWROOT:
            self._steps.append(
                "The image's initramfs runs growpart, regardless of cloud-init's options."
            )
        grown = grown_partition(root, self._options.disk_size_bytes, self._growpart)
        self._steps += grown.steps
        return grown.size_bytes

    def _kept(self) -> str:
        """Return why growpart does not run for root; empty if it does."""
        devices, own = self._seed.growpart_devices, f"/dev/vda{self._root.partition.number}"
        on_lvm = self._root.filesystem.type == "LVM2_member"
        if self._variant == Variant.GROWROOT:
            return ""
        reasons = {
            "cloud-init does not find its seed": not self._runs,
            "growpart is off": self._seed.growpart is GrowpartMode.OFF,
            "Linux has no gpart": self._seed.growpart is GrowpartMode.GPART,
            "The image lacks growpart": self._variant == Variant.NO_GROWPART,
            "growpart.devices does not name it": devices and not {"/", own}.intersection(devices),
            "growpart skips a root on LVM": on_lvm and own not in devices,
        }
        return next((why for why, holds in reasons.items() if holds), "")

    @property
    def _growpart(self) -> tuple[int, ...]:
        match = re.match(r"(\d+)\.(\d+)", self._options.image.details.get("growpart", ""))
        return (int(match[1]), int(match[2])) if match else _USUAL_GROWPART

    def _filesystem(self, device_bytes: int) -> int | None:
        kept = self._root.filesystem.statfs_bytes
        if self._root.filesystem.type == "LVM2_member":
            self._doubts.append("the filesystem is on a logical volume, which is not read here.")
            return None
        if self._variant == Variant.REPART:
            self._steps.append("systemd-growfs fills it, regardless of cloud-init's options.")
            if self._options.disk_size_bytes >= TIB:
                self._doubts.append("systemd-growfs may still be at work when it is measured.")
        elif not self._runs or self._seed.resize_rootfs is ResizeRootfs.FALSE:
            why = "resize_rootfs is false" if self._runs else "cloud-init does not run"
            self._steps.append(f"{why}, so the filesystem keeps its size.")
            if kept is None and (
                now := grown_filesystem(self._root, self._root.partition.size_bytes)
            ):
                kept = now.size_bytes
            return kept
        grown = grown_filesystem(self._root, device_bytes)
        if grown is None:
            self._doubts.append(
                f"the arithmetic of this {self._root.filesystem.title} is not known."
            )
            return None
        self._steps += grown.steps
        return grown.size_bytes


@cache
def _read_atlas() -> pd.DataFrame:
    import pandas as pd

    path = resources.files("cloudlab.run").joinpath("atlas.csv")
    with path.open(encoding="utf-8") as file:
        table = pd.read_csv(file, keep_default_na=False, na_values=[""], dtype="string")
    for name in table.columns:
        if name.endswith("_bytes"):
            table[name] = pd.to_numeric(table[name]).astype("Int64")
    return table


def atlas() -> pd.DataFrame:
    """Return the atlas of growth: a row for each of its boots.

    ``image``, ``suite``, ``filesystem``, ``variant``, ``disk_bytes``, ``growpart``,
    ``resize_rootfs`` say what was booted; ``partition_before_bytes``, ``partition_bytes``,
    ``filesystem_before_bytes``, ``filesystem_bytes``, ``partition_by``, ``partition_reason``,
    ``filesystem_by`` and ``filesystem_reason`` what came of it; the rest, where that comes from.

    Examples
    --------
    >>> table = cloudlab.atlas()
    >>> int(table["disk_bytes"].max()) >> 40
    4
    """
    return _read_atlas().copy()


def measured(image: str, disk_bytes: int, seed: SeedConfig) -> pd.DataFrame:
    """Return the atlas's boots of an image, by its name, with that disk and growth options.

    There may be none, and there are none for options that the atlas does not vary.
    """
    table = atlas()
    varied = {"growpart", "resize_rootfs", "profile", "report", "sampler", "instance_id"}
    others = {name: value for name, value in vars(seed).items() if name not in varied}
    if others != {name: getattr(SeedConfig(), name) for name in others}:
        return table[:0]
    wanted = {
        "image": image,
        "growpart": seed.growpart or GrowpartMode.AUTO,
        "resize_rootfs": seed.resize_rootfs or ResizeRootfs.TRUE,
        "outcome": "done",
    }
    rows = (table["disk_bytes"] == disk_bytes).fillna(value=False)
    for name, value in wanted.items():
        rows &= (table[name] == str(value)).fillna(value=False)
    return table[rows]
