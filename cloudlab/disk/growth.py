"""How large a partition and its filesystem become, by the arithmetic of what grows them.

Sources: growpart of cloud-utils 0.31 to 0.34 (``resize_sfdisk``); the kernel's fs/ext4/super.c
(``count_overhead``) and fs/ext4/resize.c, xfs_fsops.c and fs/xfs/xfs_super.c; resize2fs of
e2fsprogs; systemd's src/repart/repart.c (``context_load_partition_table``).  The atlas of real
boots checks it.
"""

from __future__ import annotations

import shlex
import struct
from dataclasses import dataclass

from cloudlab.disk.filesystem import HEAD_BYTES, Filesystem
from cloudlab.disk.layout import DiskLayout
from cloudlab.disk.reader import backing_chain, open_disk
from cloudlab.disk.table import FIRST_LOGICAL, Partition
from cloudlab.errors import DiskError

#: growpart ignores a smaller gain (its option --fudge).
LEAST_GAIN_BYTES = 1 << 20
#: Sectors at a disk's end that growpart leaves to the second GPT, on a disk with an MBR, too.
_BACKUP_SECTORS = 33
#: Sectors that an MBR can count; growpart takes the number for the last one's.
_MBR_SECTORS = 1 << 32
#: growpart makes sizes whole MiB since this version.
WHOLE_MIB_SINCE = (0, 34)
#: systemd-repart's partitions end at multiples of this.
_REPART_GRAIN_BYTES = 4096

#: What the filesystems' drivers leave out at the end rather than make a group of it.
_LEAST_XFS_GROUP_BLOCKS, _LEAST_EXT_GROUP_BLOCKS = 64, 50

#: Of a block group, without the feature 64bit.
_EXT_DESCRIPTOR_BYTES = 32
_EXT_SPARSE_SUPER, _EXT_BIGALLOC = 0x1, 0x200  # ro_compat
_EXT_META_BG, _EXT_64BIT = 0x10, 0x80  # incompat
_EXT_SPARSE_SUPER2 = 0x200  # compat


@dataclass(frozen=True)
class Result:
    """A size in bytes, and how it comes about, in sentences."""

    size_bytes: int
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Root:
    """The root partition of an image, or the disk without a table, and what it holds.

    Attributes
    ----------
    layout : DiskLayout
    partition : Partition
    filesystem : Filesystem
    head : bytes
        The first bytes of the filesystem, with its superblock.
    """

    layout: DiskLayout
    partition: Partition
    filesystem: Filesystem
    head: bytes


def read_root(layout: DiskLayout) -> Root:
    """Return the root partition of an image: the largest with a filesystem or a volume.

    Raises
    ------
    DiskError
        If there is none, or it cannot be read.
    """
    found = [one for one in layout.partitions if one.filesystem is not None]
    if not found:
        raise DiskError(
            f"No filesystem was recognised in {layout.path.name}.",
            hint=f"See what it holds: cloudlab inspect {shlex.quote(str(layout.path))}",
        )
    partition = max(found, key=lambda one: one.size_bytes)
    with open_disk(backing_chain(layout.path, layout.format)) as reader:
        head = reader.read(partition.start_bytes, HEAD_BYTES)
    assert partition.filesystem is not None
    return Root(layout, partition, partition.filesystem, head)


def grown_partition(root: Root, disk_bytes: int, growpart: tuple[int, ...]) -> Result:
    """Return what growpart makes of the root partition on a disk of a size.

    Parameters
    ----------
    root : Root
    disk_bytes : int
    growpart : tuple of int
        Its version, such as ``(0, 33)``.
    """
    table, part = root.layout.table, root.partition
    sector = root.layout.sector_bytes
    sectors, start = disk_bytes // sector, part.start_bytes // sector
    steps = [f"The disk has {sectors:,} sectors of {sector:,} bytes."]
    behind = [one.start_bytes // sector for one in root.layout.partitions]
    end = min([one for one in behind if one >= part.end_bytes // sector], default=sectors) - 1
    if end < sectors - 1:
        steps.append(f"Another partition begins at sector {end + 1:,}.")
    if table == "dos" and end > _MBR_SECTORS:
        end = _MBR_SECTORS
        steps.append(
            "An MBR counts sectors with 32 bits: the last one that it can name ends at 2 TiB."
        )
    if end > sectors - _BACKUP_SECTORS:
        end = sectors - _BACKUP_SECTORS - 1
        steps.append(
            f"growpart leaves the last {_BACKUP_SECTORS:,} sectors to the second GPT: the partition "
            f"may end with sector {end:,}."
        )
    count = end - start + 1
    if growpart >= WHOLE_MIB_SINCE:
        count -= count % (LEAST_GAIN_BYTES // sector)
        steps.append("growpart rounds its size down to whole MiB.")
    size_bytes = count * sector
    if size_bytes - part.size_bytes < LEAST_GAIN_BYTES:
        gain = max(0, size_bytes - part.size_bytes)
        steps.append(
            f"It could gain {gain:,} bytes. growpart ignores less than 1 MiB, so the "
            "partition stays as it is."
        )
        return Result(part.size_bytes, tuple(steps))
    if why := _refusal(root, start + count):
        steps.append(f"{why}, so sfdisk refuses, and the partition stays as it is.")
        return Result(part.size_bytes, tuple(steps))
    steps.append(
        f"It begins with sector {start:,}, so it has {count:,} sectors: {size_bytes:,} bytes."
    )
    return Result(size_bytes, tuple(steps))


def _refusal(root: Root, end: int) -> str:
    """Return why an MBR cannot have the root partition end before sector ``end``; empty if it can.

    growpart never moves an extended partition's end, and sfdisk writes no logical partition that
    leaves it or covers the boot record that precedes another one.
    """
    part, others = root.partition, root.layout.partitions
    if root.layout.table == "dos" and end > _MBR_SECTORS:
        return "growpart asks for one sector more"
    if root.layout.table != "dos" or (part.number or 0) < FIRST_LOGICAL:
        return ""
    if any(
        one.number and one.number >= FIRST_LOGICAL and one.start_bytes >= part.end_bytes
        for one in others
    ):
        return "The next logical partition's boot record lies between the two"
    extended = max((one.end_bytes for one in others if one.container), default=0)
    if end * root.layout.sector_bytes <= extended:
        return ""
    last = extended // root.layout.sector_bytes - 1
    return f"A logical partition cannot leave its extended one, which ends with sector {last:,}"


def repartitioned(root: Root, disk_bytes: int) -> Result:
    """Return the size to which systemd-repart grows the last partition on a disk of ``disk_bytes``."""
    end_bytes = disk_bytes - _BACKUP_SECTORS * root.layout.sector_bytes
    end_bytes -= end_bytes % _REPART_GRAIN_BYTES
    size_bytes = max(end_bytes - root.partition.start_bytes, root.partition.size_bytes)
    step = (
        f"systemd-repart leaves the last {_BACKUP_SECTORS:,} sectors to the second GPT and ends the "
        f"partition at a multiple of {_REPART_GRAIN_BYTES:,} bytes: {size_bytes:,} bytes."
    )
    return Result(size_bytes, (step,))


def grown_filesystem(root: Root, device_bytes: int) -> Result | None:
    """Return the size that statfs, and so ``df``, reports once the filesystem fills its device.

    None for a filesystem, or a feature of one, whose arithmetic is not known here, and for a
    damaged superblock.
    """
    kind, found = root.filesystem.type, None
    if kind in {"ext2", "ext3", "ext4"}:
        geometry = _ext_geometry(root)
        found = None if geometry is None else _grown_ext(geometry, device_bytes)
    elif kind == "xfs":
        found = _grown_xfs(root.head, device_bytes)
    elif kind == "btrfs" and root.filesystem.devices == 1:
        found = _grown_btrfs(root.head, device_bytes)
    return found if found and 0 < found.size_bytes <= device_bytes else None


# ext4: https://docs.kernel.org/filesystems/ext4/super.html


@dataclass(frozen=True)
class _Ext:
    """What of an ext4's superblock decides its overhead; counts are blocks unless named."""

    block_bytes: int
    first: int
    per_group: int
    inode_table: int
    groups: int
    descriptors_per_block: int
    reserved: int
    journal: int
    sparse: bool


def _ext_geometry(root: Root) -> _Ext | None:
    block = root.head[1024:2048]
    compat, incompat, ro_compat = struct.unpack_from("<III", block, 92)
    if ro_compat & _EXT_BIGALLOC or incompat & _EXT_META_BG or compat & _EXT_SPARSE_SUPER2:
        return None
    (first, log_size) = struct.unpack_from("<II", block, 20)
    (per_group,) = struct.unpack_from("<I", block, 32)
    (inodes,) = struct.unpack_from("<I", block, 40)
    (inode_bytes,) = struct.unpack_from("<H", block, 88)
    (reserved,) = struct.unpack_from("<H", block, 0xCE)
    (descriptor_bytes,) = struct.unpack_from("<H", block, 0xFE)
    block_bytes = 1024 << log_size
    if not (incompat & _EXT_64BIT):
        descriptor_bytes = _EXT_DESCRIPTOR_BYTES
    if (
        not _EXT_DESCRIPTOR_BYTES <= descriptor_bytes <= block_bytes
        or not 0 < per_group <= 8 * block_bytes
    ):
        return None
    blocks = (root.filesystem.size_bytes or 0) // block_bytes
    # A copy of the journal's inode; its last two words are the size.
    high, low = struct.unpack_from("<II", block, 0x10C + 15 * 4)
    return _Ext(
        block_bytes=block_bytes,
        first=first,
        per_group=per_group,
        inode_table=-(-inodes * inode_bytes // block_bytes),
        groups=-(-(blocks - first) // per_group),
        descriptors_per_block=block_bytes // descriptor_bytes,
        reserved=reserved,
        journal=(high << 32 | low) // block_bytes,
        sparse=bool(ro_compat & _EXT_SPARSE_SUPER),
    )


def _grown_ext(ext: _Ext, device_bytes: int) -> Result:
    blocks = device_bytes // ext.block_bytes
    groups = -(-(blocks - ext.first) // ext.per_group)
    rest = (blocks - ext.first) % ext.per_group
    # Growing takes descriptor blocks from the reserve; beyond that come meta block groups.
    used = -(-ext.groups // ext.descriptors_per_block)
    kept = used + ext.reserved
    own, copies = 2 + ext.inode_table, 1 + kept
    counted = f"{blocks:,}, in {groups:,} groups"
    steps = [f"ext4 counts whole blocks of {ext.block_bytes:,} bytes: {counted}."]
    has_copy = _copies(ext, groups) > _copies(ext, groups - 1)
    least = own + (copies if has_copy else 0) + _LEAST_EXT_GROUP_BLOCKS
    if 0 < rest < least:
        blocks, groups = blocks - rest, groups - 1
        steps.append(f"The last group would have {rest} blocks, too few to be used.")
    with_copy = _copies(ext, groups)
    beyond = max(0, groups - kept * ext.descriptors_per_block)
    meta = 0
    if beyond:
        steps.append(
            f"The descriptors of {beyond:,} groups do not fit into the reserved "
            "blocks, so they lie in meta block groups."
        )
        within = _copies(ext, kept * ext.descriptors_per_block)
        meta = 3 * (beyond // ext.descriptors_per_block)
        meta += min(2, beyond % ext.descriptors_per_block)
        supers = within * copies + with_copy - within
    else:
        supers = with_copy * copies
    overhead = ext.first + groups * own + supers + meta + ext.journal
    size_bytes = (blocks - overhead) * ext.block_bytes
    steps.append(
        f"df leaves out {overhead:,} of them: {own} in each group for bitmaps and "
        f"inodes, {copies:,} in each of {with_copy:,} groups for a copy of the "
        f"superblock and the descriptors, {ext.journal:,} for the journal. "
        f"{size_bytes:,} bytes are left."
    )
    return Result(size_bytes, tuple(steps))


def _copies(ext: _Ext, groups: int) -> int:
    """Return in how many of the first groups a superblock is: 0, 1 and the powers of 3, 5 and 7."""
    if not ext.sparse:
        return groups
    count = min(groups, 2)
    for base in (3, 5, 7):
        power = base
        while power < groups:
            count, power = count + 1, power * base
    return count


# xfs: xfs_sb in the kernel's fs/xfs/libxfs/xfs_format.h; big endian


def _grown_xfs(head: bytes, device_bytes: int) -> Result | None:
    (block_bytes,) = struct.unpack_from(">I", head, 4)
    (log_start,) = struct.unpack_from(">Q", head, 48)
    (group_blocks,) = struct.unpack_from(">I", head, 84)
    (log_blocks,) = struct.unpack_from(">I", head, 96)
    if not block_bytes or not group_blocks:
        return None
    blocks = device_bytes // block_bytes
    steps = [f"xfs counts whole blocks of {block_bytes:,} bytes: {blocks:,}."]
    rest = blocks % group_blocks
    if 0 < rest < _LEAST_XFS_GROUP_BLOCKS:
        blocks -= rest
        steps.append(f"The last allocation group would have {rest} blocks, too few to be used.")
    log_blocks = log_blocks if log_start else 0
    size_bytes = (blocks - log_blocks) * block_bytes
    groups = -(-blocks // group_blocks)
    steps.append(
        f"df leaves out its log of {log_blocks:,} blocks: {size_bytes:,} "
        f"bytes are left, in {groups:,} allocation groups of "
        f"{group_blocks * block_bytes:,} bytes."
    )
    return Result(size_bytes, tuple(steps))


# btrfs: https://btrfs.readthedocs.io/en/latest/dev/On-disk-format.html


def _grown_btrfs(head: bytes, device_bytes: int) -> Result | None:
    (sector,) = struct.unpack_from("<I", head, 65536 + 0x90)
    if not sector:
        return None
    size_bytes = device_bytes // sector * sector
    step = f"btrfs counts all of its device, in sectors of {sector:,} bytes"
    return Result(size_bytes, (f"{step}: {size_bytes:,} bytes.",))
