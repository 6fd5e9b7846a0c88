"""Recognise what a partition holds by its superblock.

The filesystems and volumes of cloud images are read in full (size, label, free space); of
others, :data:`_SIGNATURES` recognises the type.  Type names are those of ``blkid``.  libblkid
is the best-kept source of signatures, but exists on Linux only, so its offsets are listed
here; the tests compare them with ``blkid`` and with the filesystems' own tools.

Sources, besides those named at each function: util-linux 2.42, libblkid/src/superblocks;
the kernel's include/uapi/linux/magic.h.
"""

# ruff: noqa: PLR2004 (offsets and magic numbers are the subject of this module)

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cloudlab.disk.reader import Reader
from cloudlab.formats import lvm_uuid

#: Covers btrfs's superblock at 64 KiB, the largest swap page and ZFS's first label.
HEAD_BYTES = 256 << 10
#: Covers the superblocks that Linux RAID keeps at the end, aligned to 64 KiB.
TAIL_BYTES = 128 << 10


@dataclass(frozen=True)
class Filesystem:
    """A filesystem, or what takes its place: swap, LVM, LUKS, RAID.

    Attributes
    ----------
    type : str
        As in blkid: ``ext4``, ``xfs``, ``btrfs``, ``vfat``, ``swap``, ``LVM2_member``,
        ``crypto_LUKS``, ``linux_raid_member`` ...
    label, uuid : str
        Empty where there is none, or cloudlab does not read it.
    size_bytes : int or None
        The size in the superblock, which may differ from the partition's; of a btrfs with
        several devices, this device's share.  None where it is not known.
    statfs_bytes : int or None
        The size that statfs, and so ``df``, reports once it is mounted; ext4 and XFS leave
        out their own tables and journal, btrfs does not.  None where it is not known.
    free_bytes : int or None
        As in the superblock, which a mounted filesystem updates only now and then.
    version : str
        ``FAT16``, ``LUKS2`` and the like.
    last_mounted_on : str
        ext only: the last mount point.
    last_mounted_at : datetime or None
        ext only, UTC.
    devices : int
        The number of devices that the filesystem spans.
    total_bytes : int or None
        The size of all devices together, where there are several.
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
    devices: int = 1
    total_bytes: int | None = None

    @property
    def title(self) -> str:
        """The type for people, with the version or the number of devices."""
        if self.devices > 1:
            return f"{self.type}, 1 of {self.devices} devices"
        return self.version or self.type


def identify(reader: Reader, start_bytes: int, size_bytes: int) -> tuple[list[Filesystem], bool]:
    """Return what a range of a disk, such as a partition, holds, and whether it is blank.

    That is a filesystem for each signature, the one in effect first; a size of 0 means a damaged
    superblock, more than one that an older signature was not wiped.  Members of an array hide what
    lies inside it, as in blkid.  A blank range has only zeros where signatures are looked for.
    """
    size_bytes = max(0, min(size_bytes, reader.size_bytes - start_bytes))
    head = reader.read(start_bytes, min(HEAD_BYTES, size_bytes))
    tail_at = max(0, size_bytes - TAIL_BYTES)
    tail = reader.read(start_bytes + tail_at, size_bytes - tail_at)
    member = _raid(head, tail, size_bytes)
    if member is not None:
        return [member], False
    found = [probe(head) for probe in _PROBES]
    found.append(_fat(head, reader, start_bytes, size_bytes))
    found += [Filesystem(name) for at, magic, name in _SIGNATURES if head.startswith(magic, at)]
    # any() would look at each byte on its own, which takes a hundred times as long.
    blank = head == bytes(len(head)) and tail == bytes(len(tail))
    return [each for each in found if each is not None], blank


# ext2/3/4: https://docs.kernel.org/filesystems/ext4/super.html

_EXT_HAS_JOURNAL = 0x4
_EXT_JOURNAL_DEVICE = 0x8
_EXT_64BIT = 0x80
_EXT_BIGALLOC = 0x200
#: The features of ext3; any other makes it ext4, as in blkid.
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
    if log_size > 6:
        return None
    if incompat & _EXT_64BIT:
        blocks |= struct.unpack_from("<I", block, 0x150)[0] << 32
        free |= struct.unpack_from("<I", block, 0x158)[0] << 32
    # Since 2018 the kernel stores the upper byte of the time separately.
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
    size_bytes = blocks * block_bytes
    return Filesystem(
        kind,
        label=_text(block[120:136]),
        uuid=_uuid(block[104:120]),
        size_bytes=size_bytes,
        statfs_bytes=size_bytes - overhead if 0 < overhead < size_bytes else None,
        free_bytes=min(free, blocks) * block_bytes,
        last_mounted_on=_text(block[136:200]),
        # 0 means never; damaged superblocks hold years beyond the range of datetime.
        last_mounted_at=datetime.fromtimestamp(mounted_at, UTC)
        if 0 < mounted_at < 1 << 37
        else None,
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
        blocks = 0
    return Filesystem(
        "xfs",
        label=_text(head[108:120]),
        uuid=_uuid(head[32:48]),
        size_bytes=blocks * block_bytes,
        # A log on another device takes no space here.
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
    label, fsid = _text(block[0x12B:0x22B]), _uuid(block[0x20:0x30])
    if 1 < devices < 1 << 16:
        (share,) = struct.unpack_from("<Q", block, 0xC9 + 8)
        # What statfs reports for several devices depends on their profile, stored elsewhere.
        return Filesystem(
            "btrfs", label, fsid, size_bytes=share, devices=devices, total_bytes=total
        )
    statfs_bytes = total if devices == 1 else None
    free_bytes = max(0, total - used)
    return Filesystem("btrfs", label, fsid, total, statfs_bytes, free_bytes)


# swap: the kernel's include/linux/swap.h; a hibernated machine's image has its own magic


def _swap(head: bytes) -> Filesystem | None:
    for page_bytes in (4096, 8192, 16384, 32768, 65536):
        magic = head[page_bytes - 10 : page_bytes]
        if magic in {b"LINHIB0001", b"S1SUSPEND\0"}:
            return Filesystem("swsuspend")
        if magic == b"SWAPSPACE2":
            order = "<" if head[1024:1028] == b"\x01\0\0\0" else ">"
            version, last_page = struct.unpack_from(f"{order}II", head, 1024)
            known = version == 1 and last_page > 0
            return Filesystem(
                "swap",
                label=_text(head[1052:1068]),
                uuid=_uuid(head[1036:1052]),
                size_bytes=(last_page + 1) * page_bytes if known else 0,
            )
    return None


# LVM2: lib/format_text/layout.h in lvm2; the label may be in any of the first four sectors


def _lvm(head: bytes) -> Filesystem | None:
    for at in range(0, 2048, 512):
        label = head[at : at + 512]
        if len(label) < 512 or label[:8] != b"LABELONE" or label[24:32] != b"LVM2 001":
            continue
        (offset,) = struct.unpack_from("<I", label, 20)
        if not 32 <= offset <= 512 - 40:
            continue
        raw = label[offset : offset + 32].decode("ascii", errors="replace")
        return Filesystem(
            "LVM2_member",
            uuid=lvm_uuid(raw),
            size_bytes=struct.unpack_from("<Q", label, offset + 32)[0] or None,
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


# ISO 9660 and UDF: ECMA-119 and ECMA-167; UDF images may carry an ISO 9660 tree as well


def _optical(head: bytes) -> Filesystem | None:
    identifiers = [head[at + 1 : at + 6] for at in range(32768, 65536, 2048)]
    if {b"NSR02", b"NSR03"} & set(identifiers):
        return Filesystem("udf")
    block = head[32768 : 32768 + 2048]
    if len(block) < 2048 or block[:6] != b"\x01CD001":
        return None
    (blocks,) = struct.unpack_from("<I", block, 80)
    (block_bytes,) = struct.unpack_from("<H", block, 128)
    return Filesystem(
        "iso9660", label=_text(block[40:72]).rstrip(), size_bytes=blocks * block_bytes
    )


# ZFS: 'ZFS On-Disk Specification', chapter 1: a label has a list of names and values in XDR
# at 16 KiB and a ring of uberblocks from 128 KiB on

_ZFS_LIST_HEADS = (b"\1\0\0\0", b"\1\1\0\0")
_ZFS_UBERBLOCKS = (b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c")
#: The pool's name: its key, the type 'string', one element, the length in 4 bytes.
_ZFS_NAME = re.compile(rb"\0\0\0\x04name\0\0\0\x09\0\0\0\x01\0\0(..)", re.DOTALL)


def _zfs(head: bytes) -> Filesystem | None:
    pairs, ring = head[16 << 10 : 128 << 10], head[128 << 10 :]
    has_list = pairs.startswith(_ZFS_LIST_HEADS) and b"guid" in pairs
    slots = range(0, len(ring), 1024)
    if not has_list and not any(ring.startswith(_ZFS_UBERBLOCKS, at) for at in slots):
        return None
    name = _ZFS_NAME.search(pairs)
    length = int.from_bytes(name[1], "big") if name else 0
    return Filesystem("zfs_member", label=_text(pairs[name.end() :][:length]) if name else "")


#: Containers come before what lies in them, as in blkid.
_PROBES: tuple[Callable[[bytes], Filesystem | None], ...]
_PROBES = (_luks, _lvm, _ext, _xfs, _btrfs, _swap, _optical, _zfs)


# FAT: Microsoft's 'FAT: General Overview of On-Disk Format' (fatgen103)

_FAT_VOLUME_ID = 0x08
_FAT_LONG_NAME = 0x0F


def _fat(head: bytes, reader: Reader, start_bytes: int, size_bytes: int) -> Filesystem | None:
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
    length = min(length, size_bytes - root_at * sector)
    serial, boot_label = struct.unpack_from("<I11s", head, tail + 3)
    label = _fat_label(reader.read(start_bytes + root_at * sector, length))
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


# Linux RAID: the kernel's include/uapi/linux/raid/md_p.h (0.90 and 1.0 at the end, 1.1 and
# 1.2 at the start); Intel's and SNIA's formats at the end, as mdadm's super-intel.c and
# super-ddf.c write them

_MD_MAGIC = 0xA92B4EFC


def _raid(head: bytes, tail: bytes, size_bytes: int) -> Filesystem | None:
    def at(offset: int, length: int) -> bytes:
        place = offset - (size_bytes - len(tail))
        return tail[place : place + length] if place >= 0 else b""

    old = at((size_bytes & ~0xFFFF) - 0x10000, 64)
    if old[:4] in {_MD_MAGIC.to_bytes(4, order) for order in ("little", "big")}:
        return Filesystem("linux_raid_member")
    end = (size_bytes & ~0xFFF) - 0x2000
    for offset, block in ((end, at(end, 256)), (0, head[:256]), (4096, head[4096:4352])):
        if len(block) == 256 and struct.unpack_from("<II", block) == (_MD_MAGIC, 1):
            start, length, own = struct.unpack_from("<QQQ", block, 128)
            if own == offset // 512:
                used = (start + length) * 512 if length else None
                name, array = _text(block[32:64]), _uuid(block[16:32])
                return Filesystem("linux_raid_member", name, array, size_bytes=used)
    if at((size_bytes // 512 - 2) * 512, 24) == b"Intel Raid ISM Cfg Sig. ":
        return Filesystem("isw_raid_member")
    if at((size_bytes // 512 - 1) * 512, 4) == b"\xde\x11\xde\x11":
        return Filesystem("ddf_raid_member")
    return None


# Everything else: the type only

#: Offset, magic and type.  Magics of two bytes are left out: they would name random data.
_SIGNATURES = (
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (3, b"-FVE-FS-", "BitLocker"),
    (0, b"\0\0\0ReFS\0", "ReFS"),
    (32, b"NXSB", "apfs"),
    (1024, b"H+\0\4", "hfsplus"),
    (1024, b"HX\0\5", "hfsplus"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (1024, b"\2\0\0\0\0\0\x34\x34", "nilfs2"),
    (0, b"hsqs", "squashfs"),
    (0, b"\x45\x3d\xcd\x28", "cramfs"),
    (0, b"-rom1fs-", "romfs"),
    (32768, b"JFS1", "jfs"),
    (65536 + 52, b"ReIsEr", "reiserfs"),
    (65536, b"ReIsEr4", "reiser4"),
    (65536, b"\x01\x16\x19\x70\0\0\0\1", "gfs2"),
    *((at, b"OCFSV2", "ocfs2") for at in (1024, 2048, 4096, 8192)),
    (8192 + 1372, b"\x54\x19\x01\0", "ufs"),
    (65536 + 1372, b"\x19\x01\x54\x19", "ufs"),
    (4096 + 24, bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef"), "bcachefs"),
    (4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"), "bcache"),
    (512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh", "stratis"),
    (0, b"dmvdo001", "vdo"),
    (0, b"verity\0\0", "DM_verity_hash"),
    (0, b"integrt\0", "DM_integrity"),
    (0, b"SnAp", "DM_snapshot_cow"),
    (0, b"bluestore block device", "ceph_bluestore"),
    (32, b"ORCLDISK", "oracleasm"),
    (0, b"UBI#", "ubi"),
    (0, b"SFOZ", "zonefs"),
)


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", errors="replace")


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw)) if any(raw) else ""
