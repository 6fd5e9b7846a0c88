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

from cloudlab.disk.filesystem import Filesystem as Filesystem
from cloudlab.disk.layout import DiskLayout as DiskLayout
from cloudlab.disk.layout import inspect_disk as inspect_disk
from cloudlab.disk.overlay import Extent as Extent
from cloudlab.disk.overlay import Overlay as Overlay
from cloudlab.disk.overlay import by_region as by_region
from cloudlab.disk.overlay import check_overlay_size as check_overlay_size
from cloudlab.disk.overlay import check_safe as check_safe
from cloudlab.disk.overlay import create_overlay as create_overlay
from cloudlab.disk.overlay import overlay_map as overlay_map
from cloudlab.disk.overlay import parse_disk_size as parse_disk_size
from cloudlab.disk.reader import allocated_bytes as allocated_bytes
from cloudlab.disk.table import GptBackup as GptBackup
from cloudlab.disk.table import Partition as Partition
