"""Names of block devices and filesystems, and sizes, as programs write them."""

from __future__ import annotations

import re

from cloudlab.errors import ParseError
from cloudlab.sizes import parse_size
from cloudlab.sizes.report import largest_unit

_PARTITION_NAME = re.compile(
    r"(.*\d)p(\d+)|((?:[hsv]|xv)d[a-z]+|das\w|mpath[a-z]+|\d\w{8,}(?=-part))(?:-part)?(\d+)"
    r"|((?:a?da|vtbd|nda|nvd|xbd)\d+(?:s\d+(?=[a-h]))?)(?:s(\d+)|([a-h]))"  # FreeBSD: MBR, BSD
)

#: Where a machine's root disk usually is.
FIRST_DISK = re.compile(r"(?:[hsv]|xv)da|nvme0n1|mmcblk0|(?:a?da|vtbd|nda|nvd|xbd)0")
#: A disk of FreeBSD.
FREEBSD_DISK = re.compile(r"(?:a?da|vtbd|nda|nvd|xbd)\d")
#: Names that are a disk's, not a partition's.
WHOLE_DISK = re.compile(r"(?:[hsv]|xv)d[a-z]+|nvme\d+n\d+|mmcblk\d+")

_FSTYPE = re.compile(
    r"(?<![\w./-])(ext[234]|xfs|btrfs|vfat|f2fs|zfs_member|zfs|LVM2_member|crypto_LUKS|swap|ufs"
    r"|linux_raid_member|squashfs|overlay|bcachefs|ntfs|jfs|erofs|composefs|reiserfs|nilfs2|exfat)(?![\w-])"
)
#: Ends of the types of what fills a partition and is no filesystem.
CONTAINERS = ("_member", "_LUKS")

#: A logical volume may be named so by device mapper, GROUP-VOLUME, with dashes in either doubled;
#: encrypted, multipath and live devices usually have other names.
VOLUME_NAME = re.compile(
    r"(?!dm-|luks-|crypt|dm_crypt|mpath|live-)(?:[\w.+]|--)+-(?!part\d+$)(?:[\w.+]|--)+"
)

#: Sources and types of images and of layers over them: their size is none of a partition's.
IMAGE = re.compile(
    r"composefs|overlay\w*|aufs|squashfs|erofs|iso9660|tmpfs|ramfs|airootfs|LiveOS_rootfs"
    r"|/cow|/dev/loop\d+"
)

#: A disk's image as a file, in listings of its table.
IMAGE_FILE = re.compile(r"(?<!\S)(?:\S*/)?[\w.+-]+\.(?:img|raw|wic)(?=p?\d*[\s:])")
#: The name under which the table of such a file is kept.
IMAGE_DISK = "image"


def short_name(path: str) -> str:
    """Return a device's name without folders, as lsblk prints it; LVM's links become its names."""
    path = path.split("[", maxsplit=1)[0]
    name = path.removeprefix("/dev/").removeprefix("mapper/")
    if path.startswith("/dev/") and name.count("/") == 1 and not path.startswith("/dev/disk"):
        group, volume = name.split("/")
        if group not in {"md", "block", "zvol"}:
            return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"
    return name


def disk_of(name: str) -> str:
    """Return the disk that a partition's kernel name shows; empty if it is no partition's."""
    match = _PARTITION_NAME.fullmatch(name)
    return (match[1] or match[3] or match[5]) if match else ""


def number_of(name: str) -> str:
    """Return the number that a partition's kernel name shows; empty if it is no partition's."""
    match = _PARTITION_NAME.fullmatch(name)
    if match and match[7]:
        return str(ord(match[7]) - ord("a") + 1)
    return (match[2] or match[4] or match[6]) if match else ""


def partition_name(disk: str, number: str) -> str:
    """Return the kernel's name of a disk's partition."""
    return f"{disk}p{number}" if disk[-1:].isdigit() else f"{disk}{number}"


def size_in(text: str) -> int:
    """Return bytes; LVM's letters are powers of 1024 in either case."""
    text = text.strip().lstrip("<")
    try:
        return parse_size(text[:-1] + text[-1].upper() if text[-1:].isalpha() else text)
    except ParseError:
        return 0


def rounding(size_bytes: int) -> int:
    """Return by how much a size of a listing with one decimal may differ from the device's."""
    return largest_unit(size_bytes) * 51 // 1000


def fstype_in(text: str, start: int = 0) -> str:
    """Return the first filesystem's type that a text names; empty if none."""
    match = _FSTYPE.search(text, start)
    return match[1] if match else ""
