"""What kind of file an image is, decided from its first bytes, before QEMU opens it.

Letting QEMU guess is the classic trap: a guest that owns a *raw* disk can write a
qcow2 header to it, and the next ``qemu-img`` without ``-f`` follows the backing file
that the guest named.  Even ``qemu-img info`` follows an external data file in some
versions (CVE-2024-4467), so cloudlab reads the header itself first.

Source: https://www.qemu.org/docs/master/interop/qcow2.html
"""

# ruff: noqa: PLR2004 (offsets and magic numbers are what this module is about)

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from cloudlab.errors import DiskError, UnsafeImageError

#: The header, its extensions and the backing file's name lie in the first cluster,
#: and QEMU knows no cluster above 2 MiB.
HEADER_BYTES = 2 << 20

_QCOW2_MAGIC = b"QFI\xfb"
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_DATA_FILE = 0x44415441
_DIRTY, _CORRUPT, _EXTERNAL_DATA = 1 << 0, 1 << 1, 1 << 2
_NAME_LIMIT_BYTES = 1023

#: Offset, magic and name of what people take for a disk image.
_SIGNATURES = (
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (0, b"QED\0", "qed"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"BZh", "bzip2"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"PK\x03\x04", "zip"),
    (257, b"ustar", "tar"),
)


@dataclass(frozen=True)
class Qcow2Header:
    """What a qcow2 file says of itself.

    Attributes
    ----------
    version : int
        2 or 3.
    virtual_size_bytes, cluster_bytes : int
    backing_file, backing_format : str or None
        As written in the file.
    encrypted, external_data, dirty, corrupt : bool
        ``external_data``: the clusters lie in another file.
    """

    version: int
    virtual_size_bytes: int
    cluster_bytes: int
    backing_file: str | None = None
    backing_format: str | None = None
    encrypted: bool = False
    external_data: bool = False
    dirty: bool = False
    corrupt: bool = False


def detect_format(head: bytes) -> str:
    """Return the format that a file's first 512 bytes show, ``raw`` where they show none.

    The names are qemu-img's (``qcow2``, ``vmdk``, ``vdi`` ...), or those of an archive
    (``gzip``, ``xz``, ``tar`` ...).
    """
    if head.startswith(_QCOW2_MAGIC):
        return "qcow" if head[4:8] == b"\0\0\0\x01" else "qcow2"
    return next((name for at, magic, name in _SIGNATURES if head.startswith(magic, at)), "raw")


def parse_qcow2_header(head: bytes) -> Qcow2Header:
    """Read a qcow2 header.

    Parameters
    ----------
    head : bytes
        The file's first :data:`HEADER_BYTES`, or the whole file where it is shorter.

    Raises
    ------
    DiskError
        If this is no qcow2 header, or one that contradicts itself.
    """
    if len(head) < 72 or not head.startswith(_QCOW2_MAGIC):
        raise DiskError("This is not a qcow2 file: its header is not there or cut off.")
    version, backing_at, backing_length, cluster_bits, size, crypt = struct.unpack_from(
        ">IQIIQI", head, 4
    )
    if version not in {2, 3}:
        raise DiskError(f"The qcow2 header says version {version}; versions 2 and 3 exist.")
    if not 9 <= cluster_bits <= 21:
        raise DiskError(
            f"The qcow2 header says clusters of 2^{cluster_bits} bytes; 2^9 to 2^21 exist."
        )
    cluster = head[: 1 << cluster_bits]
    features, header_length = 0, 72
    if version == 3:
        if len(cluster) < 104:
            raise DiskError("The qcow2 header is cut off.")
        (features,) = struct.unpack_from(">Q", cluster, 72)
        (header_length,) = struct.unpack_from(">I", cluster, 100)
    if header_length > len(cluster):
        raise DiskError(f"The qcow2 header claims a length of {header_length} bytes.")
    extensions = _extensions(cluster, header_length, backing_at or len(cluster))
    backing_format = extensions.get(_EXTENSION_BACKING_FORMAT)
    return Qcow2Header(
        version=version,
        virtual_size_bytes=size,
        cluster_bytes=1 << cluster_bits,
        backing_file=_backing_name(cluster, backing_at, backing_length) if backing_at else None,
        backing_format=_text(backing_format) if backing_format is not None else None,
        encrypted=crypt != 0,
        external_data=bool(features & _EXTERNAL_DATA) or _EXTENSION_DATA_FILE in extensions,
        dirty=bool(features & _DIRTY),
        corrupt=bool(features & _CORRUPT),
    )


def check_alone(path: Path, head: bytes) -> None:
    """Make sure that a qcow2 file is whole by itself, before QEMU follows what it names.

    Parameters
    ----------
    path : Path
        For messages; it is not opened.
    head : bytes
        As for :func:`parse_qcow2_header`.

    Raises
    ------
    UnsafeImageError
        If it needs a backing or data file or a key, or QEMU marked it as corrupt.
    DiskError
        If this is no qcow2 header.
    """
    header = parse_qcow2_header(head)
    needs = (
        (header.backing_file is not None, f"is only the changes to {header.backing_file!r}"),
        (header.external_data, "keeps its data in another file"),
        (header.encrypted, "is encrypted"),
        (header.corrupt, "was marked as corrupt by QEMU"),
    )
    for true, what in needs:
        if true:
            raise UnsafeImageError(f"{path} {what}, as no cloud image does; it was not used.")


def _extensions(cluster: bytes, offset: int, end: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    end = min(end, len(cluster))
    while offset + 8 <= end:
        kind, length = struct.unpack_from(">II", cluster, offset)
        if kind == 0:
            break
        if length > end - offset - 8:
            raise DiskError("A qcow2 header extension reaches beyond its header.")
        found[kind] = cluster[offset + 8 : offset + 8 + length]
        offset += 8 + (length + 7) // 8 * 8
    return found


def _backing_name(cluster: bytes, offset: int, length: int) -> str:
    if length > _NAME_LIMIT_BYTES or offset + length > len(cluster):
        raise DiskError("The qcow2 header puts its backing file's name outside the header.")
    return _text(cluster[offset : offset + length])


def _text(raw: bytes) -> str:
    # File names are bytes; surrogateescape keeps any name usable by open().
    return raw.rstrip(b"\0").decode("utf-8", errors="surrogateescape")
