"""Recognise what kind of file a disk image is, before QEMU opens it.

QEMU must never guess the format: a guest that owns a *raw* disk can write a qcow2
header to it, and the next ``qemu-img`` without ``-f`` opens the backing file that the
guest named.  Even ``qemu-img info`` follows an external data file in some versions
(CVE-2024-4467), so cloudlab reads the header itself first.

Sources: https://www.qemu.org/docs/master/interop/qcow2.html; the ``bdrv_probe``
functions in QEMU's block/*.c; Microsoft's VHD specification (a fixed VHD has only a
footer); Apple's UDIF trailer ("koly").
"""

# ruff: noqa: PLR2004 (offsets and magic numbers are the subject of this module)

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from cloudlab import paths
from cloudlab.errors import DiskError, ImageError, UnsafeImageError
from cloudlab.units import SECTOR_BYTES

#: A qcow2 header, its extensions and the backing file's name lie in the first cluster,
#: and QEMU accepts no cluster above 2 MiB.
HEADER_BYTES = 2 << 20

_TAIL_BYTES = 512
_QCOW2_MAGIC = b"QFI\xfb"
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_DATA_FILE = 0x44415441
_CORRUPT, _EXTERNAL_DATA = 1 << 1, 1 << 2
_NAME_LIMIT_BYTES = 1023

#: What to do about an image that contradicts itself.
DAMAGED = "The file is damaged or cut off; copy, fetch or build it again."

#: Offset (below 0: from the end of the file), magic and name of other formats.
_SIGNATURES = (
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (-512, b"conectix", "vpc"),
    (-511, b"conectix", "vpc"),  # written by Virtual PC before 2004
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (-512, b"koly", "dmg"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
    (0, b"Bochs Virtual HD Image\0", "bochs"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"BZh", "bzip2"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"\x04\x22\x4d\x18", "lz4"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (257, b"ustar", "tar"),
)
_ARCHIVES = frozenset({"gzip", "xz", "bzip2", "zstd", "lz4", "zip", "7z", "tar"})

#: Bytes that every bootable raw disk, or a filesystem on a whole disk, has in their place.
_RAW_MARKS = (
    (510, b"\x55\xaa"),  # MBR, and with it nearly every GPT
    (512, b"EFI PART"),
    (1024 + 56, b"\x53\xef"),  # ext2/3/4
    (0, b"XFSB"),
    (0x10040, b"_BHRfS_M"),  # btrfs
)
_WEB_PAGE = (b"<!doctype html", b"<html", b"<?xml")


@dataclass(frozen=True)
class Qcow2Header:
    """The fields of a qcow2 header that decide how a file may be opened."""

    virtual_size_bytes: int
    #: As written in the file.
    backing_file: str | None = None
    backing_format: str | None = None
    encrypted: bool = False
    #: The clusters lie in another file.
    external_data: bool = False
    corrupt: bool = False


class Ends(NamedTuple):
    """The bytes of a file that show its format, and its size."""

    head: bytes
    tail: bytes
    size_bytes: int


def format_of(head: bytes, tail: bytes = b"") -> str:
    """Return the format that a file's own bytes show, ``raw`` where they show none.

    The names are qemu-img's (``qcow2``, ``vmdk``, ``vdi`` ...), or those of an archive
    (``gzip``, ``xz``, ``tar`` ...).

    Parameters
    ----------
    head, tail : bytes
        The file's first and last 512 bytes, or more of them.
    """
    if head.startswith(_QCOW2_MAGIC):
        return "qcow" if head[4:8] == b"\0\0\0\x01" else "qcow2"
    for at, magic, name in _SIGNATURES:
        place = at if at >= 0 else len(tail) + at
        if place >= 0 and (head if at >= 0 else tail).startswith(magic, place):
            return name
    return "raw"


def read_ends(path: Path) -> Ends:
    """Return a file's first :data:`HEADER_BYTES`, its last 512 bytes and its size.

    Raise a DiskError if it cannot be read, or is neither a file nor a block device.
    """
    try:
        mode = path.stat().st_mode
        # Opening a FIFO would wait for a writer.
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise DiskError(
                f"{path} is neither a file nor a block device.", hint="Name a disk image."
            )
        with path.open("rb") as stream:
            head = stream.read(HEADER_BYTES)
            # Seeking works for block devices too, whose st_size is 0.
            size_bytes = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size_bytes - _TAIL_BYTES))
            return Ends(head, stream.read(_TAIL_BYTES), size_bytes)
    except OSError as error:
        raise DiskError(
            f"The disk {path} could not be read: {paths.why_not(path, error)}.",
            hint="Name a disk image or a block device that you may read.",
        ) from error
    except ValueError as error:
        raise DiskError(f"The disk {path!s:.200} could not be read: {error}.") from error


def check_format(path: Path, found: str, expected: str | None = None) -> str:
    """Return ``found`` if it is ``qcow2`` or ``raw``, and the ``expected`` format if one is given.

    ``path`` is for the message of the UnsafeImageError; it is not opened.
    """
    if found in {"qcow2", "raw"} and found == (expected or found):
        return found
    hint = f"Convert it first: qemu-img convert -f {found} -O qcow2 OLD NEW"
    if found in _ARCHIVES:
        hint = "Unpack it first."
    elif expected is not None:
        hint = ""
    accepted = expected or "qcow2 and raw"
    raise UnsafeImageError(
        f"{path} has the format {found}; cloudlab accepts only {accepted} here.", hint=hint
    )


def is_disk(kind: str, head: bytes) -> bool:
    """Tell whether a file of this format, which begins with ``head``, can be a disk."""
    marked = any(head.startswith(mark, at) for at, mark in _RAW_MARKS)
    return kind == "qcow2" or (kind == "raw" and marked)


def detect_format(path: Path) -> str:
    """Return ``qcow2`` or ``raw`` for a file that should be a disk image.

    Raise an ImageError if it cannot be read or is something else.
    """
    try:
        head, tail, _ = read_ends(path)
    except DiskError as error:
        raise ImageError(error.message, hint=error.hint) from error
    found = check_format(path, format_of(head, tail))
    if is_disk(found, head):
        return found
    if head.lstrip()[:200].lower().startswith(_WEB_PAGE):
        raise ImageError(
            f"{path.name} is not a disk image but a web page, which servers and login portals "
            "send instead of a file.",
            hint="Open the URL in a browser to see what the server says.",
        )
    raise ImageError(
        f"{path.name} is not a disk image: it is neither qcow2 nor a raw disk with a partition "
        "table or filesystem.",
        hint="Use a qcow2 or raw image; qemu-img convert turns other formats into one.",
    )


def virtual_size_bytes(path: Path, kind: str) -> int:
    """Return the size in bytes of the disk that a guest would see, without starting QEMU.

    Raise an UnsafeImageError if the file is damaged, not of the format ``kind``, or needs another
    file or a key.
    """
    try:
        ends = read_ends(path)
        if kind == "raw":
            return whole_sectors(ends.size_bytes)
        header = parse_qcow2_header(ends.head)
    except DiskError as error:
        raise UnsafeImageError(
            f"{path} cannot be used as a {kind} image: {error.message}",
            hint=error.hint or DAMAGED,
        ) from error
    check_standalone(path, header)
    return header.virtual_size_bytes


def whole_sectors(size_bytes: int) -> int:
    """Return a size rounded up to sectors of 512 bytes, as QEMU presents a raw file."""
    return -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES


def check_standalone(path: Path, header: Qcow2Header) -> None:
    """Refuse a qcow2 file that needs other files or a key, before QEMU opens it.

    Raise an UnsafeImageError if it has a backing file, an external data file or a key, or if QEMU
    marked it as corrupt.  ``path`` is for the message; it is not opened.
    """
    flatten = "qemu-img convert -f qcow2 -O qcow2 OLD NEW"
    problem = hint = ""
    if header.backing_file is not None:
        problem = (
            f"has a backing file ({header.backing_file}). cloudlab refuses images with a backing "
            "file, because they can expose other files on this host."
        )
        hint = f"If you trust it, flatten it: {flatten}"
    elif header.external_data:
        problem = (
            "uses an external data file. cloudlab refuses such images, because they can expose "
            "other files on this host."
        )
        hint = f"If you trust it, make one file of it: {flatten}"
    elif header.encrypted:
        problem = "is encrypted; cloudlab cannot use it."
        hint = "Make an unencrypted copy with qemu-img convert and the image's secret."
    elif header.corrupt:
        problem, hint = "was marked as corrupt by QEMU.", "Fetch or build the image again."
    if problem:
        raise UnsafeImageError(f"{path} {problem}", hint=hint)


def parse_qcow2_header(head: bytes) -> Qcow2Header:
    """Read a qcow2 header; raise a DiskError if this is none, or it contradicts itself.

    ``head`` is the file's first :data:`HEADER_BYTES`, or the whole file where it is shorter.
    """
    if len(head) < 72 or not head.startswith(_QCOW2_MAGIC):
        raise DiskError("This is not a qcow2 file: its header is missing or cut off.")
    version, backing_at, backing_length, cluster_bits, size, crypt = struct.unpack_from(
        ">IQIIQI", head, 4
    )
    if version not in {2, 3}:
        raise DiskError(f"The qcow2 header has version {version}; only 2 and 3 exist.")
    if not 9 <= cluster_bits <= 21:
        raise DiskError(
            f"The qcow2 header has clusters of 2^{cluster_bits} bytes; 2^9 to 2^21 are possible."
        )
    cluster = head[: 1 << cluster_bits]
    features, header_length = 0, 72
    if version == 3:
        if len(cluster) < 104:
            raise DiskError("The qcow2 header is cut off.")
        (features,) = struct.unpack_from(">Q", cluster, 72)
        (header_length,) = struct.unpack_from(">I", cluster, 100)
    if header_length > len(cluster):
        raise DiskError(f"The qcow2 header has an impossible length, {header_length:,} bytes.")
    extensions = _extensions(cluster, header_length, backing_at or len(cluster))
    backing_format = extensions.get(_EXTENSION_BACKING_FORMAT)
    return Qcow2Header(
        virtual_size_bytes=size,
        backing_file=_backing_name(cluster, backing_at, backing_length) if backing_at else None,
        backing_format=_text(backing_format) if backing_format is not None else None,
        encrypted=crypt != 0,
        external_data=bool(features & _EXTERNAL_DATA) or _EXTENSION_DATA_FILE in extensions,
        corrupt=bool(features & _CORRUPT),
    )


def _extensions(cluster: bytes, offset: int, end: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    end = min(end, len(cluster))
    while offset + 8 <= end:
        kind, length = struct.unpack_from(">II", cluster, offset)
        if kind == 0:
            break
        if length > end - offset - 8:
            raise DiskError("A qcow2 header extension reaches beyond the header.")
        found[kind] = cluster[offset + 8 : offset + 8 + length]
        offset += 8 + (length + 7) // 8 * 8
    return found


def _backing_name(cluster: bytes, offset: int, length: int) -> str:
    if length > _NAME_LIMIT_BYTES or offset + length > len(cluster):
        raise DiskError("The qcow2 header has its backing file's name outside the header.")
    return _text(cluster[offset : offset + length])


def lvm_uuid(text: str) -> str:
    """Return the 32 characters of an LVM identity as LVM's tools print them."""
    return "-".join(text[a:b] for a, b in pairwise((0, 6, 10, 14, 18, 22, 26, 32)))


def _text(raw: bytes) -> str:
    # File names are bytes; surrogateescape keeps any name usable by open().
    return raw.rstrip(b"\0").decode("utf-8", errors="surrogateescape")
