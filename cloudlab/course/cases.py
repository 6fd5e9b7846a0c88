"""The cases of the gallery: how each boot is made, what it teaches, what it must show."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloudlab.explanation import Finding, Grower, NoteKind, Reason
from cloudlab.image.cache import Image
from cloudlab.image.recipe import Filesystem, Recipe, Suite, Variant
from cloudlab.run.options import DISK_SIZE_BYTES, Options, Start
from cloudlab.seed import GrowpartMode, Profile, ResizeRootfs, SeedConfig
from cloudlab.seed.iso import USER_DATA_FILE, VOLUME_ID
from cloudlab.units import GIB, SECTOR_BYTES, TIB

_PLAIN = Recipe()
_BOOKWORM = Recipe(suite=Suite.BOOKWORM)
_NOTHING_SET = SeedConfig()
_IMAGE_BYTES = _PLAIN.layout.disk_bytes

#: The lab image ends 1 MiB behind root, of which the table's second copy takes 33 sectors.
#: With 32 sectors more, root could gain 2047: one less than growpart's threshold of 1 MiB.
_SHORT_OF_A_MIB_BYTES = _IMAGE_BYTES + 32 * SECTOR_BYTES

_WALL = "sgdisk --move-second-header --new=2:8GiB:+1GiB /dev/vda; partx --add --nr 2 /dev/vda"

_FILL = "cat /dev/zero > /filler || sync"

#: lvextend takes half of what is free; the rest stays for other volumes.
_EXTEND = "lvextend --resizefs --extents +50%FREE lab/root"

_UNCLOSED = """\
#cloud-config
# The quote that opens here is never closed.
growpart:
  mode: 'off
resize_rootfs: false
"""
_MISSPELT = """\
#cloud-config
growpat:
  mode: 'off'
"""

# bootcmd runs in every boot, so it checks first whether the partitions exist.
_NODE_STORAGE = """\
#cloud-config
bootcmd:
  - |
    [ -e /dev/vda2 ] || {
      sgdisk --move-second-header --new=2:8GiB:+4GiB --new=3:12GiB:0 /dev/vda
      partx --add --nr 2:3 /dev/vda
    }
fs_setup:
  - {device: /dev/vda2, partition: auto, filesystem: ext4, label: vol-a}
  - {device: /dev/vda3, partition: auto, filesystem: ext4, label: vol-b}
mounts:
  - [/dev/vda2, /mnt/disks/vol-a, ext4, 'defaults,nofail']
  - [/dev/vda3, /mnt/disks/vol-b, ext4, 'defaults,nofail']
"""

_GREW_BY_GROWPART: Finding = (True, Grower.GROWPART, None)
_GREW_BY_RESIZEFS: Finding = (True, Grower.RESIZEFS, None)


def _not(reason: Reason) -> Finding:
    return (False, Grower.NOBODY, reason)


@dataclass(frozen=True)
class Case:
    """One boot that teaches one thing.

    Attributes
    ----------
    title, teaches : str
        Its title, and what it shows, in one sentence.
    partition, filesystem : Finding
        What the explanation must find.
    notes : tuple of NoteKind
        What the explanation must note.
    recipe : Recipe
        The image, if it is not the plain one.
    disk_size_bytes : int
    enlarge_to_bytes : int or None
        The disk's size from the moment at which the guest asks for more; it then grows partition
        and filesystem a second time, by hand.
    seed : SeedConfig
    user_data : str or None
        A whole user-data, used even if it has mistakes.
    attach_seed, seed_label, user_data_file
        As in :class:`~cloudlab.run.options.Options`.
    follows : str or None
        The case whose disk this one boots again.
    """

    title: str
    teaches: str
    partition: Finding = _GREW_BY_GROWPART
    filesystem: Finding = _GREW_BY_RESIZEFS
    notes: tuple[NoteKind, ...] = ()
    recipe: Recipe = _PLAIN
    disk_size_bytes: int = DISK_SIZE_BYTES
    enlarge_to_bytes: int | None = None
    seed: SeedConfig = _NOTHING_SET
    user_data: str | None = None
    attach_seed: bool = True
    seed_label: str = VOLUME_ID
    user_data_file: str = USER_DATA_FILE
    follows: str | None = None

    @property
    def reads_seed(self) -> bool:
        """Whether cloud-init gets the seed."""
        names = (self.seed_label, self.user_data_file)
        return self.attach_seed and names == (VOLUME_ID, USER_DATA_FILE)


CASES: dict[str, Case] = {
    "default": Case(
        "nothing set",
        "Without any option cloud-init grows the partition, then the filesystem.",
    ),
    "as-in-a-cloud": Case(
        "all modules, as in a cloud",
        "Modules that growth does not need take time and do not change its sizes.",
        seed=SeedConfig(profile=Profile.FULL),
    ),
    "growpart-off": Case(
        "growpart off",
        "A filesystem cannot grow beyond its partition.",
        partition=_not(Reason.GROWPART_OFF),
        filesystem=_not(Reason.FILLS_ITS_DEVICE),
        seed=SeedConfig(growpart=GrowpartMode.OFF),
    ),
    "resize-rootfs-false": Case(
        "resize_rootfs false",
        "A partition can grow without its filesystem.",
        filesystem=_not(Reason.RESIZE_ROOTFS_OFF),
        seed=SeedConfig(resize_rootfs=ResizeRootfs.FALSE),
    ),
    "both-off": Case(
        "growpart off, resize_rootfs false",
        "With both off, partition and filesystem keep the image's sizes, however large the disk is.",
        partition=_not(Reason.GROWPART_OFF),
        filesystem=_not(Reason.RESIZE_ROOTFS_OFF),
        seed=SeedConfig(growpart=GrowpartMode.OFF, resize_rootfs=ResizeRootfs.FALSE),
    ),
    "resize-rootfs-noblock": Case(
        "resize_rootfs noblock",
        "The filesystem grows in the background while cloud-init goes on.",
        seed=SeedConfig(resize_rootfs=ResizeRootfs.NOBLOCK),
    ),
    "disk-as-large-as-image": Case(
        "a disk as large as the image",
        "Growth needs a disk that is larger than the image.",
        partition=_not(Reason.DISK_NOT_LARGER),
        filesystem=_not(Reason.FILLS_ITS_DEVICE),
        disk_size_bytes=_IMAGE_BYTES,
    ),
    "gain-below-1-mib": Case(
        "a gain below 1 MiB",
        "growpart ignores a gain of less than 1 MiB.",
        partition=_not(Reason.GAIN_BELOW_1_MIB),
        filesystem=_not(Reason.FILLS_ITS_DEVICE),
        disk_size_bytes=_SHORT_OF_A_MIB_BYTES,
    ),
    "growroot": Case(
        "an image with cloud-initramfs-growroot",
        "The initramfs can grow the partition before cloud-init starts.",
        partition=(True, Grower.GROWROOT, None),
        recipe=Recipe(variant=Variant.GROWROOT),
    ),
    "growroot-disabled": Case(
        "the file /etc/growroot-disabled",
        "A file in the image can switch growpart off.",
        partition=_not(Reason.GROWROOT_DISABLED),
        filesystem=_not(Reason.FILLS_ITS_DEVICE),
        seed=SeedConfig(bootcmd=("touch /etc/growroot-disabled",)),
    ),
    "growfs": Case(
        "x-systemd.growfs in fstab, first boot",
        "systemd grows the filesystem early: in the first boot that is before growpart.",
        filesystem=_not(Reason.RESIZE_ROOTFS_OFF),
        notes=(NoteKind.GROWFS_IDLE,),
        recipe=Recipe(variant=Variant.GROWFS),
        seed=SeedConfig(resize_rootfs=ResizeRootfs.FALSE),
    ),
    "growfs-second-boot": Case(
        "x-systemd.growfs in fstab, second boot",
        "In the next boot systemd finds a larger partition and fills it, regardless of cloud-init's options.",
        partition=_not(Reason.DISK_NOT_LARGER),
        filesystem=(True, Grower.GROWFS, None),
        seed=SeedConfig(resize_rootfs=ResizeRootfs.FALSE),
        follows="growfs",
    ),
    "repart": Case(
        "an image that systemd-repart and x-systemd.growfs grow",
        "systemd can grow both before cloud-init starts, regardless of cloud-init's options.",
        partition=(True, Grower.REPART, None),
        filesystem=(True, Grower.GROWFS, None),
        recipe=Recipe(variant=Variant.REPART),
        seed=SeedConfig(growpart=GrowpartMode.OFF, resize_rootfs=ResizeRootfs.FALSE),
    ),
    "no-growpart-tool": Case(
        "an image without the growpart tool",
        "Without the growpart tool cloud-init does not grow the partition, and only its log shows it.",
        partition=_not(Reason.NO_GROWPART_TOOL),
        filesystem=_not(Reason.FILLS_ITS_DEVICE),
        recipe=Recipe(variant=Variant.NO_GROWPART),
    ),
    "wall": Case(
        "a partition made by bootcmd behind root",
        "A partition grows up to the next one, and no further.",
        partition=(True, Grower.GROWPART, Reason.WALL),
        seed=SeedConfig(bootcmd=(_WALL,)),
    ),
    "not-last": Case(
        "root is not physically last",
        "Only the space right behind a partition can be added to it.",
        partition=_not(Reason.WALL),
        filesystem=_not(Reason.FILLS_ITS_DEVICE),
        recipe=Recipe(variant=Variant.NOT_LAST),
    ),
    "nearly-full": Case(
        "a root filesystem that df calls full",
        "The blocks reserved for the root user are enough to grow a filesystem that df shows as full.",
        recipe=Recipe(variant=Variant.FULL),
    ),
    "full": Case(
        "a root filesystem without a free block",
        "growpart needs some free space for its temporary files.",
        partition=_not(Reason.FILESYSTEM_FULL),
        filesystem=_not(Reason.FILLS_ITS_DEVICE),
        recipe=Recipe(variant=Variant.FULL),
        seed=SeedConfig(bootcmd=(_FILL,)),
    ),
    "xfs": Case(
        "root on xfs",
        "resizefs calls xfs_growfs for xfs.",
        recipe=Recipe(filesystem=Filesystem.XFS),
    ),
    "btrfs": Case(
        "root on btrfs",
        "resizefs calls 'btrfs filesystem resize' for btrfs.",
        recipe=Recipe(filesystem=Filesystem.BTRFS),
    ),
    "whole-disk": Case(
        "root on the whole disk",
        "Without a partition table growpart has nothing to do; resizefs grows the filesystem.",
        partition=_not(Reason.NO_PARTITION),
        recipe=Recipe(variant=Variant.WHOLE_DISK),
    ),
    "lvm": Case(
        "root on a logical volume",
        "growpart skips a root filesystem on LVM, unless growpart.devices names its partition.",
        partition=_not(Reason.LOGICAL_VOLUME),
        filesystem=_not(Reason.FILLS_ITS_DEVICE),
        recipe=Recipe(variant=Variant.LVM),
    ),
    "lvm-extended": Case(
        "a logical volume that is extended in the first boot",
        "With growpart.devices and one command of runcmd, a root filesystem on LVM grows, too.",
        filesystem=(True, Grower.OTHER, None),
        recipe=Recipe(variant=Variant.LVM),
        seed=SeedConfig(growpart_devices=("/dev/vda1",), runcmd=(_EXTEND,)),
    ),
    "while-running": Case(
        "a disk that is enlarged while the guest runs",
        "The kernel sees a larger disk at once; partition and filesystem wait for a command.",
        disk_size_bytes=10 * GIB,
        enlarge_to_bytes=20 * GIB,
    ),
    "mbr": Case(
        "an MBR on a disk of 3 TiB",
        "An MBR ends at 2 TiB, and growpart 0.33 fails on a larger disk: it asks for a sector too many.",
        partition=_not(Reason.MBR_2_TIB),
        filesystem=_not(Reason.FILLS_ITS_DEVICE),
        recipe=Recipe(variant=Variant.MBR),
        disk_size_bytes=3 * TIB,
    ),
    "xfs-large": Case(
        "xfs, grown to 1 TiB",
        "xfs keeps the size of its allocation groups: 524 times the size means 2,097 of them, not 4.",
        recipe=Recipe(filesystem=Filesystem.XFS),
        disk_size_bytes=TIB,
    ),
    "second-boot-same-id": Case(
        "a second boot with the same instance-id, after the disk was enlarged again",
        "growpart and resizefs run in every boot, runcmd once per instance-id.",
        notes=(NoteKind.INSTANCE_KNOWN,),
        disk_size_bytes=30 * GIB,
        seed=SeedConfig(instance_id="iid-gallery-default"),
        follows="default",
    ),
    "second-boot-fresh-id": Case(
        "a second boot with a fresh instance-id, after the disk was enlarged again",
        "With a fresh instance-id, modules that run once per instance run again.",
        disk_size_bytes=30 * GIB,
        follows="default",
    ),
    "no-seed": Case(
        "no seed",
        "Without a datasource cloud-init does not run, and nothing grows.",
        partition=_not(Reason.NO_CLOUD_INIT),
        filesystem=_not(Reason.NO_CLOUD_INIT),
        attach_seed=False,
    ),
    "wrong-label": Case(
        "a seed with another label",
        "cloud-init looks for the label cidata or CIDATA. With another it does not run, and nothing grows.",
        partition=_not(Reason.NO_CLOUD_INIT),
        filesystem=_not(Reason.NO_CLOUD_INIT),
        seed=SeedConfig(growpart=GrowpartMode.OFF),
        seed_label="CLOUDLAB",
    ),
    "wrong-file-name": Case(
        "a user-data called user-data.txt",
        "cloud-init rejects a seed without user-data and uses its defaults: everything grows.",
        # Nothing on the console says what grew them, and the report is in the rejected seed.
        partition=(True, Grower.UNKNOWN, None),
        filesystem=(True, Grower.UNKNOWN, None),
        seed=SeedConfig(growpart=GrowpartMode.OFF),
        user_data_file="user-data.txt",
    ),
    "unclosed-quote": Case(
        "user-data that is not YAML",
        "cloud-init ignores broken user-data as a whole and uses its defaults: everything grows.",
        notes=(NoteKind.USER_DATA_IGNORED, NoteKind.CLOUD_INIT_ERRORS),
        user_data=_UNCLOSED,
    ),
    "misspelt-key": Case(
        "user-data with a misspelt key",
        "cloud-init ignores an unknown key. 22.4 does so without a warning; since 23.4 it warns.",
        notes=(NoteKind.USER_DATA_DOUBTFUL, NoteKind.CLOUD_INIT_ERRORS),
        user_data=_MISSPELT,
    ),
    "node-storage": Case(
        "volumes behind a small root",
        "Partitions made before growpart runs keep root small and leave the rest for volumes.",
        partition=(True, Grower.GROWPART, Reason.WALL),
        user_data=_NODE_STORAGE,
    ),
    "arm64": Case(
        "nothing set, on arm64",
        "A machine with an ARM processor boots by UEFI only; its disk grows in the same way.",
        recipe=Recipe(arch="arm64"),
    ),
    "bookworm-default": Case(
        "nothing set, on Debian 12",
        "cloud-init 22.4 is four processes, 25.1 is one: both grow the disk in the same way.",
        recipe=_BOOKWORM,
    ),
    "bookworm-growpart-off": Case(
        "growpart off, on Debian 12",
        "growpart: off means the same to cloud-init 22.4.",
        partition=_not(Reason.GROWPART_OFF),
        filesystem=_not(Reason.FILLS_ITS_DEVICE),
        recipe=_BOOKWORM,
        seed=SeedConfig(growpart=GrowpartMode.OFF),
    ),
    "bookworm-resize-rootfs-false": Case(
        "resize_rootfs false, on Debian 12",
        "resize_rootfs: false means the same to cloud-init 22.4.",
        filesystem=_not(Reason.RESIZE_ROOTFS_OFF),
        recipe=_BOOKWORM,
        seed=SeedConfig(resize_rootfs=ResizeRootfs.FALSE),
    ),
}


def case_options(name: str, image: Image, start: Start = Start.AUTO) -> Options:
    """Return the options that a case boots with."""
    case = CASES[name]
    seed = replace(
        case.seed, sampler=True, instance_id=case.seed.instance_id or f"iid-gallery-{name}"
    )
    return Options(
        image=image,
        disk_size_bytes=case.disk_size_bytes,
        enlarge_to_bytes=case.enlarge_to_bytes,
        seed=seed,
        user_data=case.user_data,
        check_user_data=False,
        attach_seed=case.attach_seed,
        seed_label=case.seed_label,
        user_data_file=case.user_data_file,
        scenario=name,
        keep_overlay=any(other.follows == name for other in CASES.values()),
        start=start,
    )
