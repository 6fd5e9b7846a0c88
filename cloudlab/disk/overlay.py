"""Overlays: the thin disk over a base image, and what a boot wrote to it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudlab import paths, tools
from cloudlab.disk.chain import backing_chain, disk_info, qemu_filename
from cloudlab.disk.layout import DiskLayout
from cloudlab.disk.safety import SIZE_LIMIT_BYTES
from cloudlab.errors import DiskError, ToolFailedError, UsageError
from cloudlab.units import format_bytes

_UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,12})\s*([MGT])(?:iB?)?", re.IGNORECASE | re.ASCII)
_SECTOR_BYTES = 512
_MAP_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Overlay:
    """A qcow2 file that holds only what differs from its base image.

    Attributes
    ----------
    path, base : Path
        Absolute.
    base_format : str
    virtual_size_bytes : int
        The disk's size as the machine sees it.
    """

    path: Path
    base: Path
    base_format: str
    virtual_size_bytes: int

    def _repr_html_(self) -> str:
        from cloudlab.markup import table_html

        return table_html(
            ("overlay", self.path.name),
            [
                ("claims", format_bytes(self.virtual_size_bytes)),
                ("takes on the host", format_bytes(allocated_bytes(self.path))),
                ("backing file", f"{self.base} ({self.base_format})"),
            ],
        )


@dataclass(frozen=True)
class Extent:
    """A stretch of the virtual disk whose clusters come from one place.

    Attributes
    ----------
    start_bytes, length_bytes : int
        On the virtual disk.
    kind : str
        ``data``, written to this overlay; ``zero``, overwritten with zeros here;
        ``backing``, still the base image's; ``empty``, never written by anybody.
    region : str
        The partition's number, ``disk`` where there is no table, ``table`` before the first
        partition, ``gap`` between two, ``tail`` behind the last; empty before
        :func:`by_region` told it.
    """

    start_bytes: int
    length_bytes: int
    kind: str
    region: str = ""

    @property
    def end_bytes(self) -> int:
        """The first byte behind it."""
        return self.start_bytes + self.length_bytes


@dataclass(frozen=True)
class Written:
    """What an overlay holds of one region of the disk.

    Attributes
    ----------
    region : str
        As for :class:`Extent`.
    data_bytes : int
        These lie in the overlay file.
    zero_bytes : int
        Overwritten with zeros, which the file only notes: a growing ext4 does it a lot.
    """

    region: str
    data_bytes: int
    zero_bytes: int


def parse_disk_size(text: str, what: str = "disk size") -> int:
    """Return a size such as ``20G`` in bytes; ``what`` names it in messages.

    Raises
    ------
    UsageError
        Unless it is a whole number with M, G or T (or MiB, GiB, TiB) up to 16T.
    """
    match = _SIZE.fullmatch(text.strip())
    size_bytes = int(match[1]) * _UNITS[match[2].upper()] if match else 0
    if 0 < size_bytes <= SIZE_LIMIT_BYTES:
        return size_bytes
    decimal = re.fullmatch(r"([0-9]+)\s*([KMGT])B", text.strip(), re.IGNORECASE | re.ASCII)
    if size_bytes:
        limit = f"{SIZE_LIMIT_BYTES >> 40}T"
        raise UsageError(
            f"The {what} {text!r:.80} is over the limit of {limit}.",
            hint=f"Choose at most {limit}.",
        )
    hint = "Accepted are whole numbers with M, G or T up to 16T, such as 512M, 20G or 20GiB."
    if decimal:
        hint = f"cloudlab counts in binary units: write {decimal[1]}{decimal[2].upper()}. {hint}"
    raise UsageError(f"The {what} {text!r:.80} was not understood.", hint=hint)


def create_overlay(base: Path, base_format: str, overlay: Path, size_bytes: int) -> Overlay:
    """Create a qcow2 overlay over a base image, whole or not at all.

    Parameters
    ----------
    base : Path
        Recorded in the overlay by its absolute path.
    base_format : str
        ``qcow2`` or ``raw``; recorded too, so that QEMU never guesses.
    overlay : Path
        A file that is not there yet; only its owner may read it.
    size_bytes : int
        The virtual size, a multiple of 512, at least the base image's.

    Raises
    ------
    UsageError
        If the size is smaller than the base image or no multiple of 512.
    DiskError
        If the base image cannot be read, or something lies at ``overlay`` already.
    ToolNotFoundError, ToolFailedError, ToolTimeoutError
    """
    info = disk_info(base, base_format)
    if size_bytes < info.virtual_size_bytes:
        raise UsageError(
            f"A disk of {size_bytes} bytes is smaller than the image {base}, which has a virtual "
            f"size of {info.virtual_size_bytes} bytes; no disk was made.",
            hint=f"Choose at least {-(-info.virtual_size_bytes >> 20)}M.",
        )
    if size_bytes % _SECTOR_BYTES:
        raise UsageError(f"A disk of {size_bytes} bytes does not consist of 512-byte sectors.")
    target = Path(os.path.abspath(overlay))  # noqa: PTH100 (a link stays one)
    if target.exists():
        raise DiskError(f"{target} is there already and was left alone.")
    paths.make_folder(target.parent)
    with paths.whole_file(target, mode=0o600) as part:
        backing = ("-F", base_format, "-b", info.path)
        tools.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, part, str(size_bytes)])
    return Overlay(target, info.path, base_format, size_bytes)


def allocated_bytes(path: Path) -> int:
    """Return what a file takes up on the host now: an overlay's growth while a machine runs.

    Raises
    ------
    DiskError
        If the file is not there.
    """
    try:
        # st_blocks counts 512 bytes everywhere, whatever the filesystem's block size.
        return path.stat().st_blocks * 512
    except OSError as error:
        raise DiskError(f"{path} could not be looked at: {error.strerror}.") from error


def overlay_map(overlay: Path) -> list[Extent]:
    """Return where each part of a qcow2 overlay's virtual disk comes from, in order.

    What a boot wrote has the kinds ``data`` and ``zero``.  It is counted in clusters (64 KiB
    by default): a small write makes its whole cluster the overlay's.

    Raises
    ------
    DiskError
        If it cannot be read.
    ToolNotFoundError, ToolTimeoutError
    """
    argv = ["qemu-img", "map", "--output=json", qemu_filename(backing_chain(overlay, "qcow2"))]
    try:
        rows = json.loads(tools.run(argv, timeout_s=_MAP_TIMEOUT_S).stdout)
        extents = [Extent(int(row["start"]), int(row["length"]), _kind(row)) for row in rows]
    except ToolFailedError as error:
        raise DiskError(f"QEMU cannot read {overlay}: {error.output}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DiskError(f"qemu-img's map of {overlay} was not understood: {error!r}.") from error
    return list(_merged(extents))


def _kind(row: dict[str, object]) -> str:
    if not row["present"]:
        return "empty"
    if row["depth"] != 0:
        return "backing"
    return "zero" if row["zero"] else "data"


def _merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    last: Extent | None = None
    for extent in extents:
        same = last is not None and (last.kind, last.region) == (extent.kind, extent.region)
        if last is not None and same and last.end_bytes == extent.start_bytes:
            length = last.length_bytes + extent.length_bytes
            last = Extent(last.start_bytes, length, last.kind, last.region)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last


def by_region(extents: Iterable[Extent], layout: DiskLayout) -> list[Extent]:
    """Return the extents cut at the borders of the partitions, each with its region."""
    regions = _regions(layout)
    cut, place = [], 0
    for extent in extents:
        start = extent.start_bytes
        while start < extent.end_bytes:
            while place + 1 < len(regions) and regions[place + 1][0] <= start:
                place += 1
            border = regions[place + 1][0] if place + 1 < len(regions) else extent.end_bytes
            end = min(border, extent.end_bytes)
            cut.append(Extent(start, end - start, extent.kind, regions[place][1]))
            start = end
    return cut


def _regions(layout: DiskLayout) -> list[tuple[int, str]]:
    """Return where each region starts; where partitions overlap, the earlier one rules."""
    if layout.table is None:
        return [(0, "disk")]
    regions, at = [(0, "table")], 0
    for each in layout.partitions:
        if each.container or each.end_bytes <= at:
            continue
        if each.start_bytes > at and regions[-1][1] != "table":
            regions.append((at, "gap"))
        regions.append((max(at, each.start_bytes), str(each.number)))
        at = each.end_bytes
    return [*regions, (at, "tail")] if at else regions


def written_by_partition(extents: Iterable[Extent], layout: DiskLayout) -> list[Written]:
    """Return what an overlay holds of each region of the disk, in order of place.

    Parameters
    ----------
    extents : iterable of Extent
        From :func:`overlay_map`.
    layout : DiskLayout
        Of the same overlay, after the boot.
    """
    names = list(dict.fromkeys(name for _, name in _regions(layout)))
    totals = {(name, kind): 0 for name in names for kind in ("data", "zero")}
    for extent in by_region(extents, layout):
        if extent.kind in {"data", "zero"}:
            totals[extent.region, extent.kind] += extent.length_bytes
    return [Written(name, totals[name, "data"], totals[name, "zero"]) for name in names]
