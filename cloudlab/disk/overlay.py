"""The disk of a machine: check a base image, create an overlay on it, map what was written."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloudlab import paths, tools
from cloudlab.disk.layout import DiskLayout, read_disk
from cloudlab.disk.reader import Layer, allocated_bytes, backing_chain, damage, qemu_filename
from cloudlab.errors import DiskError, ToolFailedError, UnsafeImageError, UsageError
from cloudlab.formats import check_format, format_of, read_ends, virtual_size_bytes
from cloudlab.units import GIB, MIB, SECTOR_BYTES, TIB, format_bytes, format_two

#: Published images have virtual sizes of a few GiB; ext4 with 4 KiB blocks ends here.
SIZE_LIMIT_BYTES = 16 << 40

_OTHER_PATH = "Choose another path, or make room there."
_OTHER_IMAGE = "Use a cloud image; 'cloudlab images' lists some."

_UNITS = {"M": MIB, "G": GIB, "T": TIB}
_SIZE = re.compile(r"([0-9]{1,12})\s*([MGT])(?:iB?)?", re.IGNORECASE | re.ASCII)
_CHECK_TIMEOUT_S = 120.0
_MAP_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Overlay:
    """A qcow2 file that stores only what differs from its base image.

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
        from cloudlab.html import table_html

        return table_html(
            ("overlay", self.path.name),
            [
                ("virtual size", format_bytes(self.virtual_size_bytes)),
                ("disk size on the host", format_bytes(allocated_bytes(self.path))),
                ("backing file", f"{self.base} ({self.base_format})"),
            ],
        )


@dataclass(frozen=True)
class Extent:
    """A range of the virtual disk whose clusters come from one place.

    Attributes
    ----------
    start_bytes, length_bytes : int
        On the virtual disk.
    kind : str
        ``data``, stored in this overlay; ``zero``, zero clusters of this overlay, which come
        from discard or write-zeroes and take no space (ordinary writes of zeros are ``data``);
        ``backing``, read from the base image; ``empty``, stored nowhere, reads as zeros.
    region : str
        The partition's number, ``disk`` where there is no table, ``table`` before the first
        partition, ``gap`` between two, ``tail`` after the last; empty before
        :func:`by_region` sets it.
    """

    start_bytes: int
    length_bytes: int
    kind: str
    region: str = ""

    @property
    def end_bytes(self) -> int:
        """The offset of the first byte after it."""
        return self.start_bytes + self.length_bytes


def parse_disk_size(text: str, what: str = "disk size") -> int:
    """Return a size such as ``20G`` in bytes.

    Parameters
    ----------
    text : str
    what : str
        Names the size in messages.

    Raises
    ------
    UsageError
        Unless it is a whole number with M, G or T (or MiB, GiB, TiB) up to 16T.
    """
    hint = "Accepted are whole numbers with M, G or T up to 16T, such as 512M, 20G or 20GiB."
    size_bytes = _size_of(text)
    if 0 < size_bytes <= SIZE_LIMIT_BYTES:
        return size_bytes
    if size_bytes:
        limit = f"{SIZE_LIMIT_BYTES >> 40}T"
        raise UsageError(
            f"The {what} {text!r:.80} is over the limit of {limit}.",
            hint=f"Choose at most {limit}.",
        )
    binary = re.sub(r"(?<=[MGT])B$", "", text.strip().upper())
    if 0 < _size_of(binary) <= SIZE_LIMIT_BYTES:
        hint = f"cloudlab counts in binary units: write {binary.replace(' ', '')}. {hint}"
    raise UsageError(f"The {what} {text!r:.80} was not understood.", hint=hint)


def _size_of(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    return int(match[1]) * _UNITS[match[2].upper()] if match else 0


def check_safe(path: Path, expected_format: str | None = None) -> DiskLayout:
    """Return the layout of a base image, after checking that it may be used.

    The file's own header is read first, so that QEMU never opens what that header names.
    One call checks and inspects the image, so the caller need not inspect it again.

    Parameters
    ----------
    path : Path
    expected_format : str, optional
        ``qcow2`` or ``raw``, where the catalogue or the user gives it.

    Raises
    ------
    UnsafeImageError
        If it needs a backing or data file, is encrypted, has another format, is too
        large, damaged or cut off, or is a raw file that is not a disk.
    DiskError
        If it cannot be read.
    ToolNotFoundError, ToolTimeoutError
    """
    head, tail, _ = read_ends(path)
    found = check_format(path, format_of(head, tail), expected_format)
    size_bytes = virtual_size_bytes(path, found)
    if not 0 < size_bytes <= SIZE_LIMIT_BYTES:
        raise UnsafeImageError(
            f"{path} has a virtual size of {size_bytes:,} bytes; cloudlab uses images from 1 byte "
            "to 16 TiB, and cloud images have a few GiB.",
            hint=_OTHER_IMAGE,
        )
    try:
        chain = backing_chain(path, found)
        complaint = damage(chain, timeout_s=_CHECK_TIMEOUT_S)
        if complaint:
            raise UnsafeImageError(
                f"{path} is damaged or cut off; qemu-img check: {complaint}",
                hint="Fetch or build it again.",
            )
        layout = read_disk(chain)
    except DiskError as error:
        raise UnsafeImageError(
            f"{path} cannot be used. {error.message}", hint=error.hint
        ) from error
    _check_bootable(layout)
    return layout


def _check_bootable(layout: DiskLayout) -> None:
    kinds = {each.filesystem.type for each in layout.partitions if each.filesystem}
    if layout.table is None and not kinds:
        raise UnsafeImageError(
            f"{layout.path} has neither a partition table nor a filesystem that cloudlab knows, "
            "so it cannot be booted.",
            hint=_OTHER_IMAGE,
        )
    if layout.table is None and "crypto_LUKS" in kinds:
        raise UnsafeImageError(
            f"{layout.path} is encrypted; cloudlab cannot use it.", hint=_OTHER_IMAGE
        )
    last = max((each.end_bytes for each in layout.partitions), default=0)
    if last > layout.virtual_size_bytes:
        raise UnsafeImageError(
            f"{layout.path} is cut off: its last partition ends at byte "
            f"{last:,}, the disk at byte {layout.virtual_size_bytes:,}.",
            hint="Fetch or build it again.",
        )


def create_overlay(base: Path, base_format: str, overlay: Path, size_bytes: int) -> Overlay:
    """Create a qcow2 overlay over a base image, whole or not at all.

    Parameters
    ----------
    base : Path
        Stored in the overlay as an absolute path.
    base_format : str
        ``qcow2`` or ``raw``; stored too, so that QEMU never guesses.
    overlay : Path
        A file that does not exist yet; only its owner may read it.
    size_bytes : int
        The virtual size, a multiple of 512 and at least the base image's.

    Raises
    ------
    UsageError
        If the size is smaller than the base image or not a multiple of 512.
    DiskError
        If the base image cannot be read, or ``overlay`` exists already or cannot be created.
    ToolNotFoundError, ToolFailedError, ToolTimeoutError
    """
    layer = check_overlay_size(base, base_format, size_bytes)
    target = Path(os.path.abspath(overlay))  # noqa: PTH100 (a link stays a link)
    backing = ("-F", base_format, "-b", layer.path)
    with paths.os_errors_as(DiskError, f"The overlay {target} cannot be created", hint=_OTHER_PATH):
        if target.exists():
            raise DiskError(f"{target} exists already.", hint="Choose another path, or delete it.")
        paths.make_folder(target.parent)
        with paths.whole_file(target, mode=0o600) as part:
            tools.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, part, str(size_bytes)])
    return Overlay(target, layer.path, base_format, size_bytes)


def check_overlay_size(base: Path, base_format: str, size_bytes: int) -> Layer:
    """Return the base image, after a check that an overlay of that size can be put over it.

    Raises
    ------
    UsageError
        If the size is smaller than the base image or not a multiple of 512.
    DiskError
        If the base image cannot be read.
    """
    layer = backing_chain(base, base_format)[0]
    if size_bytes < layer.virtual_size_bytes:
        disk, needed = format_two(size_bytes, layer.virtual_size_bytes)
        raise UsageError(
            f"A disk of {disk} is smaller than the image {base}, which has a virtual size of "
            f"{needed}.",
            hint=f"Choose at least {-(-layer.virtual_size_bytes >> 20)}M.",
        )
    if size_bytes % SECTOR_BYTES:
        raise UsageError(
            f"A disk of {size_bytes:,} bytes is not a whole number of 512-byte sectors.",
            hint=f"Choose {-(-size_bytes >> 20)}M.",
        )
    return layer


def overlay_map(overlay: Path) -> list[Extent]:
    """Return where each part of a qcow2 overlay's virtual disk comes from, in order.

    The extents cover the whole disk and are counted in clusters (64 KiB by default): a
    small write stores its whole cluster in the overlay.

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
        raise DiskError(f"The map of {overlay} from qemu-img is not valid: {error!r}.") from error
    merged = []
    for kind, group in itertools.groupby(extents, key=lambda each: each.kind):
        parts = list(group)
        length = parts[-1].end_bytes - parts[0].start_bytes
        merged.append(Extent(parts[0].start_bytes, length, kind))
    return merged


def _kind(row: dict[str, object]) -> str:
    if not row["present"]:
        return "empty"
    if row["depth"] != 0:
        return "backing"
    return "zero" if row["zero"] else "data"


def by_region(extents: Iterable[Extent], layout: DiskLayout) -> list[Extent]:
    """Return the extents cut at the boundaries of the partitions, each with its region."""
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
    """Return where each region starts; where partitions overlap, the earlier one wins."""
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
