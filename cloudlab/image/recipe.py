"""What can be built: suites, variants, packages and layouts, as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self, TypeVar

from cloudlab.errors import BuildError, UsageError, suggest
from cloudlab.tools import ARCHITECTURES, host_arch

_Choice = TypeVar("_Choice", bound=StrEnum)

#: Part of every image's name; raise it when the same options make an image that grows, boots or
#: measures differently.
REVISION = 2

SECTOR_BYTES = 512
_MIB_SECTORS = 2048

#: The size of the root partition, as in Ubuntu's cloud images of the article's day.
ROOT_MIB = 2000

#: The names of volume group and logical volume, the extent's size, and where the data begins in
#: the physical volume, behind its headers.
LVM_GROUP, LVM_VOLUME = "lab", "root"
LVM_EXTENT_BYTES = 4 << 20
LVM_DATA_BYTES = 1 << 20


class Suite(StrEnum):
    """A Debian release."""

    BULLSEYE = "bullseye"
    BOOKWORM = "bookworm"
    TRIXIE = "trixie"


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
    NO_GROWPART = "no-growpart", "without the growpart program (cloud-guest-utils)"
    NOT_LAST = "not-last", "another partition lies behind the root partition"
    WHOLE_DISK = "whole-disk", "no partition table: the filesystem fills the disk (BIOS, ext4)"
    FULL = "full", "df shows 100%: only the root user can write some 16 MiB (ext4)"
    LVM = "lvm", "the root filesystem is on a logical volume"


#: Variants that only ext4 allows: it leaves room for a boot sector, and allocates blocks unwritten.
_EXT4_ONLY = (Variant.WHOLE_DISK, Variant.FULL)

_BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
_EFI_SYSTEM = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_LINUX_LVM = "E6D6D379-F507-44C2-A23C-238F2A3DF928"
_LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


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

    ``root`` holds the root filesystem, or with ``in_volume`` the physical volume that does; on a
    disk without a table it is the whole disk, with the number 0.  ``bios`` holds GRUB's core
    image, ``esp`` is the EFI system partition, ``behind`` a partition behind root.
    """

    root: Partition
    esp: Partition | None = None
    bios: Partition | None = None
    behind: Partition | None = None
    in_volume: bool = False

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
        return "\n".join(["label: gpt", "unit: sectors", "", *lines, ""])


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
        if self.variant is Variant.WHOLE_DISK and self.arch != "amd64":
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
        if self.variant is Variant.WHOLE_DISK:
            return ("bios",)
        return ("bios", "uefi") if self.arch == "amd64" else ("uefi",)

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
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "fdisk",
    "gdisk",
    "initramfs-tools",
    "iproute2",
    "netplan.io",
    "openssh-server",
    "sudo",
    "systemd-sysv",
    "udev",
    "zstd",
)

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
