"""Disks: overlays over a base image, and what is on a disk without booting it.

=============  ==========================================================
module         owns
=============  ==========================================================
formats        what kind of file this is; the qcow2 header
chain          an image with its backing files; ``qemu-img info``
reader         reading ranges of a virtual disk as an ordinary user
table          GPT and MBR
filesystem     what a partition holds, told from its superblock
layout         all of that together: ``inspect_disk``
safety         may this image be used?  ``check_safe``
overlay        making overlays, and what a boot wrote to them
=============  ==========================================================
"""

from cloudlab.disk.chain import DiskInfo, disk_info
from cloudlab.disk.filesystem import Filesystem
from cloudlab.disk.layout import DiskLayout, Partition, describe, inspect_disk, layout_frame
from cloudlab.disk.overlay import (
    Extent,
    Overlay,
    Written,
    allocated_bytes,
    by_region,
    create_overlay,
    overlay_map,
    parse_disk_size,
    written_by_partition,
)
from cloudlab.disk.safety import check_safe
from cloudlab.disk.table import GptBackup

__all__ = [
    "DiskInfo",
    "DiskLayout",
    "Extent",
    "Filesystem",
    "GptBackup",
    "Overlay",
    "Partition",
    "Written",
    "allocated_bytes",
    "by_region",
    "check_safe",
    "create_overlay",
    "describe",
    "disk_info",
    "inspect_disk",
    "layout_frame",
    "overlay_map",
    "parse_disk_size",
    "written_by_partition",
]
