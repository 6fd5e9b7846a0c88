"""What can be built (suites, variants, packages, layouts), and the disk of a layout that boots.

GRUB's installer and LVM's tools want block devices.  So GRUB's boot sector and core image are
put in place by hand, as ``grub-bios-setup`` does it, and the headers of a physical volume are
written by hand, too.  Sources of the latter: LVM2's lib/format_text/layout.h and
lib/label/label.h, and ``pvck --dump`` of volumes made by LVM itself.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Self, TypeVar

from cloudlab.errors import BuildError, UsageError, suggest
from cloudlab.formats import lvm_uuid
from cloudlab.tools import ARCHITECTURES, host_arch, run
from cloudlab.units import MIB, SECTOR_BYTES

_Choice = TypeVar("_Choice", bound=StrEnum)

#: Part of every image's name; raise it when the same options make an image that grows, boots or
#: measures differently.
REVISION = 2

_MIB_SECTORS = MIB // SECTOR_BYTES

#: The size of the root partition, as in Ubuntu's cloud images of the article's day.
ROOT_MIB = 2000

#: The names of volume group and logical volume, the extent's size, and where the data begins in
#: the physical volume, behind its headers.
LVM_GROUP, LVM_VOLUME = "lab", "root"
LVM_EXTENT_BYTES = 4 * MIB
LVM_DATA_BYTES = MIB


class Suite(StrEnum):
    """A Debian release; ``sid`` is unstable, which changes every day."""

    BULLSEYE = "bullseye"
    BOOKWORM = "bookworm"
    TRIXIE = "trixie"
    SID = "sid"


#: What is built unless another suite is named.
DEFAULT_SUITE = Suite.TRIXIE


class Filesystem(StrEnum):
    """The root filesystem."""

    EXT4 = "ext4"
    BTRFS = "btrfs"
    XFS = "xfs"


class Variant(StrEnum):
    """One way in which a published image may differ from the plain one; ``summary`` says how."""

    summary: str

    def __new__(cls, word: str, summary: str) -> Self:
        """Return the variant called ``word``."""
        variant = str.__new__(cls, word)
        variant._value_ = word
        variant.summary = summary
        return variant

    PLAIN = "plain", "like Ubuntu's image: cloud-init grows partition and filesystem"
    GROWROOT = "growroot", "cloud-initramfs-growroot grows the partition in the initramfs"
    GROWFS = "growfs", "systemd grows the filesystem (x-systemd.growfs in fstab)"
    REPART = "repart", "systemd grows partition and filesystem before cloud-init (systemd-repart)"
    NO_GROWPART = "no-growpart", "without the growpart program (cloud-guest-utils)"
    NOT_LAST = "not-last", "another partition lies behind the root partition"
    WHOLE_DISK = "whole-disk", "no partition table: the filesystem fills the disk (BIOS, ext4)"
    FULL = "full", "df shows 100%: only the root user can write some 16 MiB (ext4)"
    LVM = "lvm", "the root filesystem is on a logical volume"
    MBR = "mbr", "an MBR (dos) in place of a GPT, which ends at 2 TiB (BIOS)"


#: Variants that boot by BIOS only.
_BIOS_ONLY = (Variant.WHOLE_DISK, Variant.MBR)
#: Variants that only ext4 allows: it leaves room for a boot sector, and allocates blocks unwritten.
_EXT4_ONLY = (Variant.WHOLE_DISK, Variant.FULL)

_BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
_EFI_SYSTEM = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_LINUX_LVM = "E6D6D379-F507-44C2-A23C-238F2A3DF928"
_LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
_MBR_LINUX = "83"
#: Behind an MBR lie sectors that no partition uses.
_CORE_BEHIND_MBR = 1


@dataclass(frozen=True)
class Partition:
    """A partition: number, place in sectors of 512 bytes, and GPT type GUID."""

    number: int
    start: int
    sectors: int
    type: str

    @property
    def offset_bytes(self) -> int:
        """Where it begins, in bytes from the disk's start."""
        return self.start * SECTOR_BYTES


@dataclass(frozen=True)
class Layout:
    """Where each part of the disk is.

    ``label`` is the table's kind, as sfdisk calls it.  ``root`` holds the root filesystem, or with
    ``in_volume`` the physical volume that does; on a disk without a table it is the whole disk,
    with the number 0.  ``bios`` holds GRUB's core
    image, ``esp`` is the EFI system partition, ``behind`` a partition behind root.
    """

    root: Partition
    esp: Partition | None = None
    bios: Partition | None = None
    behind: Partition | None = None
    in_volume: bool = False
    label: str = "gpt"

    @property
    def root_offset_bytes(self) -> int:
        """Where the root filesystem begins on the disk."""
        return self.root.offset_bytes + (LVM_DATA_BYTES if self.in_volume else 0)

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions, ordered by position; none without a table."""
        order = (self.bios, self.esp, self.root, self.behind)
        return tuple(each for each in order if each is not None and each.number)

    @property
    def disk_bytes(self) -> int:
        """The disk's size: 1 MiB behind the last partition for the backup table."""
        if not self.partitions:
            return self.root.sectors * SECTOR_BYTES
        last = self.partitions[-1]
        return (last.start + last.sectors + _MIB_SECTORS) * SECTOR_BYTES

    def sfdisk_script(self) -> str:
        """Return what sfdisk reads to write this table."""
        lines = [
            f"{each.number} : start={each.start}, size={each.sectors}, type={each.type}"
            for each in self.partitions
        ]
        return "\n".join([f"label: {self.label}", "unit: sectors", "", *lines, ""])


@dataclass(frozen=True)
class Recipe:
    """Everything that determines what is in an image; ``arch`` is ``amd64`` or ``arm64``."""

    suite: Suite = DEFAULT_SUITE
    filesystem: Filesystem = Filesystem.EXT4
    variant: Variant = Variant.PLAIN
    arch: str = "amd64"

    def __post_init__(self) -> None:
        if self.variant in _EXT4_ONLY and self.filesystem is not Filesystem.EXT4:
            raise UsageError(
                f"The variant {self.variant} can be built with ext4 only, not {self.filesystem}.",
                hint="Use --filesystem ext4, or another --variant.",
            )
        if self.variant is Variant.REPART and self.suite is Suite.BULLSEYE:
            raise UsageError(
                f"The variant {self.variant} needs a newer suite than {self.suite}.",
                hint="Use --suite bookworm or a newer one, or another --variant.",
            )
        if self.variant in _BIOS_ONLY and self.arch != "amd64":
            raise UsageError(
                f"The variant {self.variant} boots by BIOS, which {self.arch} does not have.",
                hint="Use another --variant.",
            )

    @property
    def name(self) -> str:
        """The image's name in the cache, e.g. ``lab-trixie-ext4-r2.qcow2``."""
        variant = "" if self.variant is Variant.PLAIN else f"-{self.variant}"
        arch = "" if self.arch == "amd64" else f"-{self.arch}"
        return f"lab-{self.suite}-{self.filesystem}{variant}{arch}-r{REVISION}.qcow2"

    @property
    def label(self) -> str:
        """The root filesystem's label: Ubuntu's, except on xfs, which has room for 12 bytes."""
        return "cloudimg" if self.filesystem is Filesystem.XFS else "cloudimg-rootfs"

    @property
    def root_device(self) -> str:
        """What fstab and the kernel's command line call the root filesystem."""
        # The initramfs activates only volumes that are named.
        if self.variant is Variant.LVM:
            return f"/dev/mapper/{LVM_GROUP}-{LVM_VOLUME}"
        return f"LABEL={self.label}"

    @property
    def firmware(self) -> tuple[str, ...]:
        """Of ``bios`` and ``uefi``, what it boots by."""
        if self.variant in _BIOS_ONLY:
            return ("bios",)
        return ("bios", "uefi") if self.arch == "amd64" else ("uefi",)

    @property
    def is_foreign(self) -> bool:
        """Whether this host cannot run the image's programs without emulation."""
        return self.arch != host_arch()

    @property
    def grub_packages(self) -> tuple[str, ...]:
        """The packages with GRUB's modules."""
        bios = ("grub-pc-bin",) if "bios" in self.firmware else ()
        return (*bios, f"grub-efi-{self.arch}-bin") if "uefi" in self.firmware else bios

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages besides Debian's minimal base."""
        chosen = [*_PACKAGES, f"linux-image-cloud-{self.arch}"]
        if self.suite is not Suite.BULLSEYE:  # where it is part of systemd
            chosen.append("systemd-resolved")
        if self.variant is not Variant.NO_GROWPART:
            chosen.append("cloud-guest-utils")
        if self.variant is Variant.GROWROOT:
            chosen.append("cloud-initramfs-growroot")
        if self.variant is Variant.REPART and self.suite in {Suite.TRIXIE, Suite.SID}:
            chosen.append("systemd-repart")  # before that a part of systemd
        if self.variant is Variant.LVM:
            chosen.append("lvm2")
        chosen.append(_FILESYSTEM_PACKAGES[self.filesystem])
        return tuple(sorted(set(chosen)))

    @property
    def layout(self) -> Layout:
        """Ubuntu's layout: p14 BIOS boot 4 MiB, p15 ESP 106 MiB, p1 root physically last."""
        root_sectors = ROOT_MIB * _MIB_SECTORS
        if self.variant is Variant.WHOLE_DISK:
            return Layout(root=Partition(0, 0, root_sectors, ""))
        if self.variant is Variant.MBR:
            return Layout(root=Partition(1, _MIB_SECTORS, root_sectors, _MBR_LINUX), label="dos")
        at = _MIB_SECTORS
        bios = None
        if "bios" in self.firmware:
            bios = Partition(14, at, 4 * _MIB_SECTORS, _BIOS_BOOT)
            at += bios.sectors
        esp = Partition(15, at, 106 * _MIB_SECTORS, _EFI_SYSTEM)
        root = Partition(1, at + esp.sectors, root_sectors, _LINUX)
        if self.variant is Variant.LVM:
            # The volume has the usual size of the root partition; LVM's own data needs more.
            room = LVM_EXTENT_BYTES // SECTOR_BYTES
            root = replace(root, sectors=root_sectors + room, type=_LINUX_LVM)
        behind = None
        if self.variant is Variant.NOT_LAST:
            behind = Partition(2, root.start + root.sectors, 32 * _MIB_SECTORS, _LINUX)
        return Layout(
            root=root, esp=esp, bios=bios, behind=behind, in_volume=self.variant is Variant.LVM
        )


_PACKAGES = (
    "cloud-init", "dbus", "e2fsprogs", "fdisk", "gdisk", "initramfs-tools", "iproute2",
    "netplan.io", "openssh-server", "sudo", "systemd-sysv", "udev", "zstd",
)  # fmt: skip

_FILESYSTEM_PACKAGES = {
    Filesystem.EXT4: "e2fsprogs",
    Filesystem.BTRFS: "btrfs-progs",
    Filesystem.XFS: "xfsprogs",
}


def make_recipe(
    suite: str = DEFAULT_SUITE,
    filesystem: str = Filesystem.EXT4,
    variant: str = Variant.PLAIN,
    arch: str | None = None,
) -> Recipe:
    """Return the recipe with these names, by default for this host's architecture.

    Raises
    ------
    UsageError
        With what is accepted.
    BuildError
        If there is no recipe for this host's architecture.
    """
    arch = arch or host_arch()
    if arch not in ARCHITECTURES:
        raise BuildError(
            f"Images cannot be built for this host's architecture, {arch}, only for x86_64 and "
            "aarch64.",
            hint="Use a published image: 'cloudlab images' lists them.",
        )
    return Recipe(
        suite=_one_of(Suite, suite, "suite"),
        filesystem=_one_of(Filesystem, filesystem, "filesystem"),
        variant=_one_of(Variant, variant, "variant"),
        arch=arch,
    )


def _one_of(kind: type[_Choice], word: str, what: str) -> _Choice:
    try:
        return kind(word)
    except ValueError:
        hint = f"{suggest(word, kind)} Choose one of: {', '.join(kind)}.".strip()
        raise UsageError(f"There is no {what} {word!r} to build.", hint=hint) from None


# The disk of a recipe

GRUB_FOLDER = Path("/usr/lib/grub")
UNPACKED_GRUB = "grub"

_COPY_TIMEOUT_S = 600.0

_BIOS_TARGET = "i386-pc"
_EFI_TARGETS = {"amd64": ("x86_64-efi", "BOOTX64.EFI"), "arm64": ("arm64-efi", "BOOTAA64.EFI")}
_MODULES = ("configfile", "linux", "normal", "part_gpt", "part_msdos", "search", "search_label")
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


def _grub(recipe: Recipe, work: Path, target: str) -> Path:
    """Return the folder of GRUB's modules for ``target``.

    A host has those of its own architecture; for an image of another one they are unpacked
    below ``work``.
    """
    root = work / UNPACKED_GRUB if recipe.is_foreign else Path("/")
    return root / GRUB_FOLDER.relative_to("/") / target


def make_disk(recipe: Recipe, root: Path, disk: Path, work: Path) -> None:
    """Write the new raw ``disk`` that boots the root filesystem in the file ``root``.

    ``root`` is as large as the layout's root partition; ``disk`` is sparse, and its apparent size
    is the image's virtual size.  Temporary files lie in the folder ``work``.
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
        first_sector, room = _CORE_BEHIND_MBR, layout.root.start - _CORE_BEHIND_MBR
        if layout.bios:
            first_sector, room = layout.bios.start, layout.bios.sectors
        elif not layout.partitions:
            first_sector = _first_sector(disk, _CORE_IN_TREE)
        if layout.partitions and len(core) > room * SECTOR_BYTES:
            raise BuildError(f"GRUB's core image of {len(core):,} bytes does not fit its place.")
        with disk.open("r+b") as stream:
            code = _grub(recipe, work, _BIOS_TARGET) / "boot.img"
            stream.write(boot_sector(code.read_bytes(), first_sector))
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
    folder = _grub(recipe, output.parent, target)
    options = ["-O", target, "-d", str(folder), "-p", "/boot/grub"]
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


def boot_sector(boot_image: bytes, core_sector: int) -> bytes:
    """Return GRUB's boot code, which loads the sector ``core_sector``."""
    code = bytearray(boot_image[:_BOOT_CODE_BYTES])
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

    The volumes' identifiers derive from ``name``, so the same name gives the same bytes.
    ``volume_bytes``, the logical volume's size, is a multiple of :data:`LVM_EXTENT_BYTES`; its
    data begins at :data:`LVM_DATA_BYTES`.
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


def _lvm_metadata(identity: dict[str, str], partition_bytes: int, volume_bytes: int) -> str:
    extents = volume_bytes // LVM_EXTENT_BYTES
    assert extents * LVM_EXTENT_BYTES == volume_bytes
    return f"""\
{LVM_GROUP} {{
id = "{lvm_uuid(identity["group"])}"
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
id = "{lvm_uuid(identity["device"])}"
status = ["ALLOCATABLE"]
flags = []
dev_size = {partition_bytes // SECTOR_BYTES}
pe_start = {LVM_DATA_BYTES // SECTOR_BYTES}
pe_count = {(partition_bytes - LVM_DATA_BYTES) // LVM_EXTENT_BYTES}
}}
}}

logical_volumes {{
{LVM_VOLUME} {{
id = "{lvm_uuid(identity["volume"])}"
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
