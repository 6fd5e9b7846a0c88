"""A bootable disk from a root filesystem: partition table, LVM, EFI system partition, GRUB.

GRUB's installer and LVM's tools want block devices.  So GRUB's boot sector and core image are
put in place by hand, as ``grub-bios-setup`` does it, and the headers of a physical volume are
written by hand, too.  Sources of the latter: LVM2's lib/format_text/layout.h and
lib/label/label.h, and ``pvck --dump`` of volumes made by LVM itself.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from itertools import pairwise
from pathlib import Path

from cloudlab.errors import BuildError
from cloudlab.image.recipe import (
    LVM_DATA_BYTES,
    LVM_EXTENT_BYTES,
    LVM_GROUP,
    LVM_VOLUME,
    SECTOR_BYTES,
    Partition,
    Recipe,
)
from cloudlab.tools import run

GRUB_FOLDER = Path("/usr/lib/grub")

_COPY_TIMEOUT_S = 600.0

_BIOS_TARGET = "i386-pc"
_EFI_TARGETS = {"amd64": ("x86_64-efi", "BOOTX64.EFI"), "arm64": ("arm64-efi", "BOOTAA64.EFI")}
_MODULES = ("configfile", "linux", "normal", "part_gpt", "search", "search_label")
_FILESYSTEM_MODULES = {"ext4": "ext2", "btrfs": "btrfs", "xfs": "xfs"}

#: Its place on a disk without partitions; blocks of a file are not moved by growing.
_CORE_IN_TREE = "boot/grub/core.img"
_EXT4_BLOCK_BYTES = 4096

#: What the boot sector may fill; behind it lie the disk's signature and the partition table,
#: and at the end of the sector the mark without which a BIOS does not run it.
_BOOT_CODE_BYTES = 440
_BOOT_MARK_AT, _BOOT_MARK = 510, b"\x55\xaa"
#: Where in the boot sector the core image's first sector stands (64 bits).
_KERNEL_SECTOR_AT = 0x5C
#: Where in the core image's first sector the list of its other sectors ends; it grows
#: downwards in entries of start (64 bits), length (16 bits), memory segment (16 bits).
_BLOCKLIST_END = 0x200
_BLOCKLIST_ENTRY = struct.Struct("<QHH")

_LVM_METADATA_AT = 4096
_LVM_METADATA_BYTES = LVM_DATA_BYTES - _LVM_METADATA_AT
_LVM_MAGIC = b" LVM2 x[5A%r0N*>"


def grub_files(recipe: Recipe) -> tuple[str, ...]:
    """Return the files that show that GRUB is installed for all that the image boots by."""
    efi = _EFI_TARGETS[recipe.arch][0]
    files = {"bios": f"{_BIOS_TARGET}/boot.img", "uefi": f"{efi}/normal.mod"}
    return tuple(str(GRUB_FOLDER / files[each]) for each in recipe.firmware)


def make_disk(recipe: Recipe, root: Path, disk: Path, work: Path) -> None:
    """Write the new raw ``disk`` that boots the root filesystem in the file ``root``.

    Parameters
    ----------
    recipe : Recipe
    root : Path
        A filesystem as large as the layout's root partition.
    disk : Path
        Sparse; its apparent size is the image's virtual size.
    work : Path
        A folder for temporary files.
    """
    layout = recipe.layout
    with disk.open("wb") as stream:
        stream.truncate(layout.disk_bytes)
    if layout.partitions:
        run(["sfdisk", "--quiet", disk], stdin=layout.sfdisk_script())
    if layout.in_volume:
        size_bytes = layout.root.sectors * SECTOR_BYTES
        with disk.open("r+b") as stream:
            stream.seek(layout.root.offset_bytes)
            stream.write(volume_headers(recipe.name, size_bytes, root.stat().st_size))
    copy_data(root, disk, layout.root_offset_bytes)
    if layout.esp:
        _write_esp(recipe, layout.esp, disk, work)
    if "bios" in recipe.firmware:
        core = _bios_core(recipe, work)
        first_sector = layout.bios.start if layout.bios else _first_sector(disk, _CORE_IN_TREE)
        if layout.bios and len(core) > layout.bios.sectors * SECTOR_BYTES:
            raise BuildError(f"GRUB's core image of {len(core)} bytes does not fit its partition.")
        with disk.open("r+b") as stream:
            stream.write(boot_sector(first_sector))
            stream.seek(_BOOT_MARK_AT)
            stream.write(_BOOT_MARK)
            stream.seek(first_sector * SECTOR_BYTES)
            stream.write(linked_core(core, first_sector))


def copy_data(source: Path, target: Path, offset_bytes: int) -> None:
    """Copy ``source`` into ``target`` from ``offset_bytes`` on; holes and zeros stay holes."""
    argv = ["dd", f"if={source}", f"of={target}", "bs=64K", "status=none", "conv=notrunc,sparse"]
    run([*argv, "oflag=seek_bytes", f"seek={offset_bytes}"], timeout_s=_COPY_TIMEOUT_S)


def _core_image(recipe: Recipe, target: str, output: Path, *extra: str) -> bytes:
    """Have GRUB make its core image, which finds the root filesystem by its label."""
    start = output.with_suffix(".cfg")
    start.write_text(
        f"search --no-floppy --label --set=root {recipe.label}\nset prefix=($root)/boot/grub\n"
    )
    modules = [*_MODULES, _FILESYSTEM_MODULES[recipe.filesystem], *extra]
    if recipe.layout.in_volume:
        modules.append("lvm")
    options = ["-O", target, "-d", str(GRUB_FOLDER / target), "-p", "/boot/grub"]
    run(["grub-mkimage", *options, "-c", start, "-o", output, *modules])
    return output.read_bytes()


def _write_esp(recipe: Recipe, esp: Partition, disk: Path, work: Path) -> None:
    target, name = _EFI_TARGETS[recipe.arch]
    loader = work / name
    _core_image(recipe, target, loader)
    image = work / "esp.img"
    size_kib = str(esp.sectors * SECTOR_BYTES // 1024)
    # Clusters of one sector: with fewer, larger ones it would be too small for FAT32.
    run(["mkfs.vfat", "-C", "-F", "32", "-s", "1", "-n", "UEFI", image, size_kib])
    run(["mmd", "-i", image, "::/EFI", "::/EFI/BOOT"])
    run(["mcopy", "-i", image, loader, f"::/EFI/BOOT/{name}"])
    copy_data(image, disk, esp.offset_bytes)


def _bios_core(recipe: Recipe, work: Path) -> bytes:
    return _core_image(recipe, _BIOS_TARGET, work / "core.img", "biosdisk")


def reserve_core(recipe: Recipe, tree: Path, work: Path) -> None:
    """Put the core image into ``tree`` if no partition is reserved for it."""
    if not recipe.layout.partitions:
        (tree / _CORE_IN_TREE).write_bytes(_bios_core(recipe, work))


def _first_sector(ext4: Path, name: str) -> int:
    """Return the first sector of the file ``name``, which must not be fragmented."""
    listed = run(["debugfs", "-R", f"blocks /{name}", ext4]).stdout.split()
    blocks = [int(word) for word in listed]
    if blocks != list(range(blocks[0], blocks[0] + len(blocks))):
        raise BuildError(f"GRUB's core image is fragmented, in the blocks {' '.join(listed)}.")
    return blocks[0] * _EXT4_BLOCK_BYTES // SECTOR_BYTES


def boot_sector(core_sector: int) -> bytes:
    """Return the boot code that loads the sector ``core_sector``."""
    code = bytearray((GRUB_FOLDER / _BIOS_TARGET / "boot.img").read_bytes()[:_BOOT_CODE_BYTES])
    struct.pack_into("<Q", code, _KERNEL_SECTOR_AT, core_sector)
    return bytes(code)


def linked_core(core: bytes, first_sector: int) -> bytes:
    """Return the core image whose first sector says that the others follow it on the disk."""
    linked = bytearray(core)
    at = _BLOCKLIST_END - _BLOCKLIST_ENTRY.size
    _, length, segment = _BLOCKLIST_ENTRY.unpack_from(linked, at)
    _BLOCKLIST_ENTRY.pack_into(linked, at, first_sector + 1, length, segment)
    return bytes(linked)


def volume_headers(name: str, partition_bytes: int, volume_bytes: int) -> bytes:
    """Return the headers of a physical volume with one logical volume.

    Parameters
    ----------
    name : str
        The volumes' identifiers derive from it, so the same name gives the same bytes.
    partition_bytes : int
        The physical volume's size.
    volume_bytes : int
        The logical volume's size, a multiple of :data:`LVM_EXTENT_BYTES`; its data begins at
        :data:`LVM_DATA_BYTES`.
    """
    identity = {part: _identity(f"{name} {part}") for part in ("group", "device", "volume")}
    text = _lvm_metadata(identity, partition_bytes, volume_bytes).encode() + b"\0"
    # One area that is used, one entry of zeros that ends the list.
    place = struct.pack("<QQII16x", SECTOR_BYTES, len(text), _lvm_checksum(text), 0)
    areas = struct.pack("<16sIQQ", _LVM_MAGIC, 1, _LVM_METADATA_AT, _LVM_METADATA_BYTES) + place
    areas = areas.ljust(SECTOR_BYTES - 4, b"\0")

    lists = struct.pack("<QQ16xQQ16x", LVM_DATA_BYTES, 0, _LVM_METADATA_AT, _LVM_METADATA_BYTES)
    device = identity["device"].encode() + struct.pack("<Q", partition_bytes) + lists
    label = (struct.pack("<I8s", 32, b"LVM2 001") + device).ljust(SECTOR_BYTES - 20, b"\0")

    headers = bytearray(LVM_DATA_BYTES)
    struct.pack_into("<8sQI", headers, SECTOR_BYTES, b"LABELONE", 1, _lvm_checksum(label))
    headers[SECTOR_BYTES + 20 : 2 * SECTOR_BYTES] = label
    struct.pack_into("<I", headers, _LVM_METADATA_AT, _lvm_checksum(areas))
    headers[_LVM_METADATA_AT + 4 : _LVM_METADATA_AT + SECTOR_BYTES] = areas
    start = _LVM_METADATA_AT + SECTOR_BYTES
    headers[start : start + len(text)] = text
    return bytes(headers)


def _lvm_checksum(data: bytes) -> int:
    """Return LVM's CRC-32: the usual one with another start and no final inversion."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _identity(name: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, name).hex


def _dashed(identity: str) -> str:
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(identity[a:b] for a, b in pairwise(cuts))


def _lvm_metadata(identity: dict[str, str], partition_bytes: int, volume_bytes: int) -> str:
    extents = volume_bytes // LVM_EXTENT_BYTES
    assert extents * LVM_EXTENT_BYTES == volume_bytes
    return f"""\
{LVM_GROUP} {{
id = "{_dashed(identity["group"])}"
seqno = 1
format = "lvm2"
status = ["RESIZEABLE", "READ", "WRITE"]
flags = []
extent_size = {LVM_EXTENT_BYTES // SECTOR_BYTES}
max_lv = 0
max_pv = 0
metadata_copies = 0

physical_volumes {{
pv0 {{
id = "{_dashed(identity["device"])}"
status = ["ALLOCATABLE"]
flags = []
dev_size = {partition_bytes // SECTOR_BYTES}
pe_start = {LVM_DATA_BYTES // SECTOR_BYTES}
pe_count = {(partition_bytes - LVM_DATA_BYTES) // LVM_EXTENT_BYTES}
}}
}}

logical_volumes {{
{LVM_VOLUME} {{
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
