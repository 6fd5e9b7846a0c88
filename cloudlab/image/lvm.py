"""A physical volume with one logical volume, written without LVM's tools.

Those want block devices; the format is small.  Sources: LVM2's lib/format_text/layout.h,
lib/label/label.h and ``pvck --dump`` of volumes made by LVM itself.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from itertools import pairwise

#: Where the data begins in the physical volume; its headers lie before, in bytes.
DATA_OFFSET_BYTES = 1 << 20
#: The volume group's extent, in bytes.
EXTENT_BYTES = 4 << 20

GROUP = "lab"
VOLUME = "root"

_SECTOR_BYTES = 512
_METADATA_AT = 4096
_METADATA_BYTES = DATA_OFFSET_BYTES - _METADATA_AT
_MAGIC = b" LVM2 x[5A%r0N*>"


def volume_headers(name: str, partition_bytes: int, volume_bytes: int) -> bytes:
    """Return what stands before the data in a physical volume.

    Parameters
    ----------
    name : str
        What the volumes' identifiers are made of, so that the same name gives the same bytes.
    partition_bytes : int
        The physical volume's size.
    volume_bytes : int
        The logical volume's size, a multiple of :data:`EXTENT_BYTES`; its data begins at
        :data:`DATA_OFFSET_BYTES`.
    """
    identity = {part: _identity(f"{name} {part}") for part in ("group", "device", "volume")}
    text = _metadata(identity, partition_bytes, volume_bytes).encode() + b"\0"
    # One area that is used, one entry of zeros that ends the list.
    place = struct.pack("<QQII16x", _SECTOR_BYTES, len(text), _checksum(text), 0)
    areas = struct.pack("<16sIQQ", _MAGIC, 1, _METADATA_AT, _METADATA_BYTES) + place
    areas = areas.ljust(_SECTOR_BYTES - 4, b"\0")

    lists = struct.pack("<QQ16xQQ16x", DATA_OFFSET_BYTES, 0, _METADATA_AT, _METADATA_BYTES)
    device = identity["device"].encode() + struct.pack("<Q", partition_bytes) + lists
    label = (struct.pack("<I8s", 32, b"LVM2 001") + device).ljust(_SECTOR_BYTES - 20, b"\0")

    headers = bytearray(DATA_OFFSET_BYTES)
    struct.pack_into("<8sQI", headers, _SECTOR_BYTES, b"LABELONE", 1, _checksum(label))
    headers[_SECTOR_BYTES + 20 : 2 * _SECTOR_BYTES] = label
    struct.pack_into("<I", headers, _METADATA_AT, _checksum(areas))
    headers[_METADATA_AT + 4 : _METADATA_AT + _SECTOR_BYTES] = areas
    start = _METADATA_AT + _SECTOR_BYTES
    headers[start : start + len(text)] = text
    return bytes(headers)


def _checksum(data: bytes) -> int:
    """Return LVM's CRC-32: the usual one with another start and no final inversion."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _identity(name: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, name).hex


def _dashed(identity: str) -> str:
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(identity[a:b] for a, b in pairwise(cuts))


def _metadata(identity: dict[str, str], partition_bytes: int, volume_bytes: int) -> str:
    extents = volume_bytes // EXTENT_BYTES
    assert extents * EXTENT_BYTES == volume_bytes
    return f"""\
{GROUP} {{
id = "{_dashed(identity["group"])}"
seqno = 1
format = "lvm2"
status = ["RESIZEABLE", "READ", "WRITE"]
flags = []
extent_size = {EXTENT_BYTES // _SECTOR_BYTES}
max_lv = 0
max_pv = 0
metadata_copies = 0

physical_volumes {{
pv0 {{
id = "{_dashed(identity["device"])}"
status = ["ALLOCATABLE"]
flags = []
dev_size = {partition_bytes // _SECTOR_BYTES}
pe_start = {DATA_OFFSET_BYTES // _SECTOR_BYTES}
pe_count = {(partition_bytes - DATA_OFFSET_BYTES) // EXTENT_BYTES}
}}
}}

logical_volumes {{
{VOLUME} {{
id = "{_dashed(identity["volume"])}"
status = ["READ", "WRITE", "VISIBLE"]
flags = []
segment_count = 1
segment1 {{
start_extent = 0
extent_count = {extents}
type = "striped"
stripe_count = 1
stripes = ["pv0", 0]
}}
}}
}}
}}
contents = "Text Format Volume Group"
version = 1
description = "cloudlab"
creation_host = "cloudlab"
creation_time = 0
"""
