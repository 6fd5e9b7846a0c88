"""Disks: overlays over a base image, and what is on a disk, without booting it.

=============  ==========================================================
module         subject
=============  ==========================================================
reader         the backing chain; reading a virtual disk as a user
table          GPT and MBR; the names of other partition tables
filesystem     what a partition holds, by its superblock
layout         all of that in one value: ``inspect_disk``, ``DiskLayout``
overlay        checking a base image, creating and mapping overlays
growth         how large a partition and its filesystem become
=============  ==========================================================

What kind of file an image is belongs to :mod:`cloudlab.formats`.
"""

from cloudlab.disk.filesystem import Filesystem
from cloudlab.disk.layout import DiskLayout, inspect_disk
from cloudlab.disk.overlay import (
    Extent,
    Overlay,
    by_region,
    check_overlay_size,
    check_safe,
    create_overlay,
    overlay_map,
    parse_disk_size,
)
from cloudlab.disk.reader import allocated_bytes
from cloudlab.disk.table import GptBackup, Partition

__all__ = [
    "DiskLayout",
    "Extent",
    "Filesystem",
    "GptBackup",
    "Overlay",
    "Partition",
    "allocated_bytes",
    "by_region",
    "check_overlay_size",
    "check_safe",
    "create_overlay",
    "inspect_disk",
    "overlay_map",
    "parse_disk_size",
]
