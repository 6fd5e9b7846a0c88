"""What a partition holds, told from its superblock.

Each ``_name`` function looks for one kind in the first :data:`HEAD_BYTES` and returns
None where it is not there.  Type names are those of ``blkid``.
"""

# ruff: noqa: PLR2004 (offsets and magic numbers are what this module is about)

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from cloudlab.disk.reader import Reader

#: Reaches behind btrfs's superblock at 64 KiB and the longest swap page.
HEAD_BYTES = 68 << 10


@dataclass(frozen=True)
class Filesystem:
    """A filesystem, or what stands in its place: swap, LVM, LUKS.

    Attributes
    ----------
    type : str
        As blkid calls it: ``ext4``, ``xfs``, ``btrfs``, ``vfat``, ``swap``,
        ``LVM2_member``, ``crypto_LUKS``, ``iso9660`` ...
    label, uuid : str
        Empty where there is none.
    size_bytes : int or None
        What its superblock says, whatever the partition's size; None where it does not say.
        ``df`` shows less: see ``statfs_bytes``.
    statfs_bytes : int or None
        What statfs, and so ``df``, will give as its size once it is mounted: without the
        filesystem's own tables and journal.  None where the superblock does not say.
    free_bytes : int or None
        As its superblock says; a mounted filesystem updates that only now and then.
    version : str
        ``FAT16``, ``LUKS2`` and the like.
    last_mounted_on : str
        ext only: the last mount point.
    last_mounted_at : datetime or None
        ext only, UTC.
    """

    type: str
    label: str = ""
    uuid: str = ""
    size_bytes: int | None = None
    statfs_bytes: int | None = None
    free_bytes: int | None = None
    version: str = ""
    last_mounted_on: str = ""
    last_mounted_at: datetime | None = None

    @property
    def used_bytes(self) -> int | None:
        """Size less free bytes; None where one is not known."""
        if self.size_bytes is None or self.free_bytes is None:
            return None
        return self.size_bytes - self.free_bytes


def identify(reader: Reader) -> list[Filesystem]:
    """Return every filesystem whose signature is there, the ruling one first.

    More than one means that an old signature was not wiped (or that somebody wants to
    be misunderstood); none, that nothing known is there.
    """
    head = reader.read(0, HEAD_BYTES)
    found = [probe(head) for probe in _PROBES]
    return [each for each in (*found, _fat(head, reader)) if each is not None]


# ext2/3/4: https://docs.kernel.org/filesystems/ext4/super.html

_EXT_HAS_JOURNAL = 0x4
_EXT_JOURNAL_DEVICE = 0x8
_EXT_64BIT = 0x80
_EXT_BIGALLOC = 0x200
#: What ext3 knew; anything else makes it ext4, as in blkid.
_EXT3_INCOMPAT = 0x2 | 0x4 | 0x10
_EXT3_RO_COMPAT = 0x1 | 0x2 | 0x4


def _ext(head: bytes) -> Filesystem | None:
    block = head[1024:2048]
    if len(block) < 1024 or block[56:58] != b"\x53\xef":
        return None
    blocks, _, free = struct.unpack_from("<III", block, 4)
    log_size, log_cluster = struct.unpack_from("<II", block, 24)
    (mounted_at,) = struct.unpack_from("<I", block, 44)
    compat, incompat, ro_compat = struct.unpack_from("<III", block, 92)
    if log_size > 6 or blocks == 0:
        return None
    if incompat & _EXT_64BIT:
        blocks |= struct.unpack_from("<I", block, 0x150)[0] << 32
        free |= struct.unpack_from("<I", block, 0x158)[0] << 32
    # Since 2018 the kernel keeps the time's upper byte apart.
    mounted_at |= block[0x275] << 32
    block_bytes = 1024 << log_size
    # Counted in clusters; 0 where an older mke2fs left it to the kernel.
    (overhead,) = struct.unpack_from("<I", block, 0x248)
    overhead *= 1024 << (log_cluster & 31 if ro_compat & _EXT_BIGALLOC else log_size)
    if incompat & _EXT_JOURNAL_DEVICE:
        kind = "jbd"
    elif incompat & ~_EXT3_INCOMPAT or ro_compat & ~_EXT3_RO_COMPAT:
        kind = "ext4"
    else:
        kind = "ext3" if compat & _EXT_HAS_JOURNAL else "ext2"
    return Filesystem(
        kind,
        label=_text(block[120:136]),
        uuid=_uuid(block[104:120]),
        size_bytes=blocks * block_bytes,
        statfs_bytes=blocks * block_bytes - overhead
        if 0 < overhead < blocks * block_bytes
        else None,
        free_bytes=min(free, blocks) * block_bytes,
        last_mounted_on=_text(block[136:200]),
        last_mounted_at=_moment(mounted_at),
    )


# xfs: xfs_sb in the kernel's fs/xfs/libxfs/xfs_format.h; big endian


def _xfs(head: bytes) -> Filesystem | None:
    if len(head) < 512 or not head.startswith(b"XFSB"):
        return None
    block_bytes, blocks = struct.unpack_from(">IQ", head, 4)
    (free,) = struct.unpack_from(">Q", head, 144)
    (log_start,) = struct.unpack_from(">Q", head, 48)
    (log_blocks,) = struct.unpack_from(">I", head, 96)
    if block_bytes not in {1 << bits for bits in range(9, 17)}:
        return None
    return Filesystem(
        "xfs",
        label=_text(head[108:120]),
        uuid=_uuid(head[32:48]),
        size_bytes=blocks * block_bytes,
        # A log on another device takes nothing here.
        statfs_bytes=max(0, blocks - (log_blocks if log_start else 0)) * block_bytes,
        free_bytes=min(free, blocks) * block_bytes,
    )


# btrfs: https://btrfs.readthedocs.io/en/latest/dev/On-disk-format.html


def _btrfs(head: bytes) -> Filesystem | None:
    block = head[65536 : 65536 + 4096]
    if len(block) < 4096 or block[0x40:0x48] != b"_BHRfS_M":
        return None
    total, used = struct.unpack_from("<QQ", block, 0x70)
    (devices,) = struct.unpack_from("<Q", block, 0x88)
    return Filesystem(
        "btrfs",
        label=_text(block[0x12B:0x22B]),
        uuid=_uuid(block[0x20:0x30]),
        size_bytes=total,
        # Of several devices it depends on the profile, which stands elsewhere.
        statfs_bytes=total if devices == 1 else None,
        free_bytes=max(0, total - used),
    )


def _swap(head: bytes) -> Filesystem | None:
    for page_bytes in (4096, 8192, 16384, 65536):
        if head[page_bytes - 10 : page_bytes] == b"SWAPSPACE2":
            order = "<" if head[1024:1028] == b"\x01\0\0\0" else ">"
            (last_page,) = struct.unpack_from(f"{order}I", head, 1028)
            return Filesystem(
                "swap",
                label=_text(head[1052:1068]),
                uuid=_uuid(head[1036:1052]),
                size_bytes=(last_page + 1) * page_bytes,
            )
    return None


# LVM2: lib/format_text/layout.h in lvm2; the label may be in any of the first four sectors


def _lvm(head: bytes) -> Filesystem | None:
    for at in range(0, 2048, 512):
        label = head[at : at + 512]
        if len(label) < 512 or label[:8] != b"LABELONE" or label[24:32] != b"LVM2 001":
            continue
        (offset,) = struct.unpack_from("<I", label, 20)
        if offset > 512 - 40:
            continue
        raw = label[offset : offset + 32].decode("ascii", errors="replace")
        cuts = (0, 6, 10, 14, 18, 22, 26, 32)
        return Filesystem(
            "LVM2_member",
            uuid="-".join(raw[a:b] for a, b in pairwise(cuts)),
            size_bytes=struct.unpack_from("<Q", label, offset + 32)[0],
        )
    return None


def _luks(head: bytes) -> Filesystem | None:
    if len(head) < 512 or not head.startswith(b"LUKS\xba\xbe"):
        return None
    (version,) = struct.unpack_from(">H", head, 6)
    label = _text(head[24:72]) if version == 2 else ""
    return Filesystem(
        "crypto_LUKS", label=label, uuid=_text(head[168:208]), version=f"LUKS{version}"
    )


def _iso(head: bytes) -> Filesystem | None:
    block = head[32768 : 32768 + 2048]
    if len(block) < 2048 or block[:6] != b"\x01CD001":
        return None
    (blocks,) = struct.unpack_from("<I", block, 80)
    (block_bytes,) = struct.unpack_from("<H", block, 128)
    return Filesystem(
        "iso9660", label=_text(block[40:72]).rstrip(), size_bytes=blocks * block_bytes
    )


#: Containers rule over what lies in them, as in blkid.
_PROBES: tuple[Callable[[bytes], Filesystem | None], ...] = (
    _luks,
    _lvm,
    _ext,
    _xfs,
    _btrfs,
    _swap,
    _iso,
)


# FAT: Microsoft's 'FAT: General Overview of On-Disk Format' (fatgen103)

_FAT_VOLUME_ID = 0x08
_FAT_LONG_NAME = 0x0F


def _fat(head: bytes, reader: Reader) -> Filesystem | None:
    if len(head) < 512 or head[510:512] != b"\x55\xaa" or head[0] not in {0xEB, 0xE9}:
        return None
    sector, per_cluster, reserved, copies, root_entries, small_total = struct.unpack_from(
        "<HBHBHH", head, 11
    )
    small_fat, big_total = struct.unpack_from("<H8xI", head, 22)
    (big_fat,) = struct.unpack_from("<I", head, 36)
    total, fat = small_total or big_total, small_fat or big_fat
    powers = {1 << bits for bits in range(13)}
    if sector not in powers or sector < 512 or per_cluster not in powers:
        return None
    if head[21] not in {0xF0, *range(0xF8, 0x100)} or not (reserved and copies and total and fat):
        return None
    root_at = reserved + copies * fat
    data_at = root_at + (root_entries * 32 + sector - 1) // sector
    clusters = (total - data_at) // per_cluster
    if clusters < 0:
        return None
    bits = 32 if not small_fat else 12 if clusters < 4085 else 16
    tail = 64 if bits == 32 else 36
    if bits == 32:
        (root_cluster,) = struct.unpack_from("<I", head, 44)
        root_at = data_at + max(0, root_cluster - 2) * per_cluster
    length = per_cluster * sector if bits == 32 else root_entries * 32
    serial, boot_label = struct.unpack_from("<I11s", head, tail + 3)
    label = _fat_label(reader.read(root_at * sector, length))
    return Filesystem(
        "vfat",
        label=label or _fat_text(boot_label),
        uuid=f"{serial >> 16:04X}-{serial & 0xFFFF:04X}",
        size_bytes=total * sector,
        statfs_bytes=clusters * per_cluster * sector,
        version=f"FAT{bits}",
    )


def _fat_label(directory: bytes) -> str:
    for at in range(0, len(directory) - 31, 32):
        first, flags = directory[at], directory[at + 11]
        if first == 0:
            break
        if first != 0xE5 and flags & _FAT_VOLUME_ID and flags & _FAT_LONG_NAME != _FAT_LONG_NAME:
            return _fat_text(directory[at : at + 11])
    return ""


def _fat_text(raw: bytes) -> str:
    text = _text(raw).rstrip()
    return "" if text == "NO NAME" else text


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", errors="replace")


def _moment(seconds: int) -> datetime | None:
    # 0 is 'never'; damaged superblocks name years that datetime does not know.
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < 1 << 37 else None


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw)) if any(raw) else ""
