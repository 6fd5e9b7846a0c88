"""The commands that mend one machine, in order, with its own device names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from cloudlab.explanation.events import Kind
from cloudlab.explanation.facts import split_partition
from cloudlab.explanation.machine import Machine, Verdict
from cloudlab.explanation.model import Reason

# Only names that a shell takes as they are go into commands.
_PLAIN = re.compile(r"[\w./+:@%-]+")
# As fdisk, sfdisk and sgdisk name them.
_EXTENDED = re.compile(r"Extended|W95 Ext|^(?:0?[5f]|85)$")
_SWAP = re.compile(r"(?i)swap|^82(?:00)?\b|^0657FD6D")
_SAFE_FIRST = "# Take a snapshot or backup of the disk first."


def partition_fix(machine: Machine, verdict: Verdict) -> str:
    """Return what grows the partition and all that lies on it; empty if nothing is wrong."""
    if verdict.reason is Reason.USER_DATA_IGNORED:
        return _IGNORED_FIX
    if verdict.grown is not False:
        return ""
    return _text(_PARTITION.get(verdict.reason, _grow)(machine))


def filesystem_fix(machine: Machine, verdict: Verdict, partition: Verdict) -> str:
    """Return what grows the filesystem; empty if nothing is wrong."""
    if verdict.reason is Reason.USER_DATA_IGNORED:
        return _IGNORED_FIX
    if verdict.reason is Reason.IN_BACKGROUND:
        return _text(
            iter(["df -h /  # again after a while: it grows while it is in use", *_resize(machine)])
        )
    if verdict.grown is not False:
        return ""
    if verdict.reason in _FILESYSTEM:
        return _text(_FILESYSTEM[verdict.reason](machine))
    first = partition.grown is False and partition.reason is not Reason.NO_PARTITION
    above = ["# First the partition, as above; then:"] if first else []
    return _text(iter([*above, *_above_partition(machine)]))


def _text(steps: Iterator[str]) -> str:
    return "\n".join(dict.fromkeys(steps))


def _plain(name: str, otherwise: str) -> str:
    return name if name and _PLAIN.fullmatch(name) else otherwise


def _disk(machine: Machine) -> str:
    folder = "mapper/" if machine.disk.startswith("mpath") else ""
    return f"/dev/{folder}{_plain(machine.disk, 'DISK')}"


def _number(machine: Machine) -> str:
    return _plain(machine.number, "NUMBER")


def _partition(machine: Machine) -> str:
    return f"/dev/{_plain(machine.partition, 'PARTITION')}"


def _root(machine: Machine) -> str:
    mapped = machine.root.startswith("mpath")
    if (split_partition(machine.root) and not mapped) or machine.root in {machine.disk, ""}:
        return f"/dev/{_plain(machine.root, 'ROOT')}"
    if machine.root == "root" and not machine.stack[1:]:
        return _partition(machine) if machine.partition else "$(findmnt -no SOURCE /)"
    folder = "" if machine.root.startswith("md") else "mapper/"
    return f"/dev/{folder}{_plain(machine.root, 'ROOT')}"


def _resize(machine: Machine) -> list[str]:  # noqa: PLR0911 - one for each filesystem
    """Return the command that lets the root filesystem fill its device."""
    fstype, root = machine.fstype, _root(machine)
    point = "/" if "/" in _mounts(machine) or "/sysroot" not in _mounts(machine) else "/sysroot"
    if fstype.startswith("ext"):
        return [f"sudo resize2fs {root}"]
    if fstype == "xfs":
        return [f"sudo xfs_growfs {point}"]
    if fstype == "btrfs":
        return [f"sudo btrfs filesystem resize max {point}"]
    if fstype == "f2fs":
        return [
            "# f2fs grows only while it is not mounted: boot a rescue system with f2fs-tools, then",
            f"sudo resize.f2fs {root}",
        ]
    if fstype == "zfs":
        pool = _plain(machine.zfs_dataset.split("/")[0], "POOL")
        return [f"sudo zpool online -e {pool} {_plain(machine.partition, 'DEVICE')}"]
    if fstype == "bcachefs":
        return [f"sudo bcachefs device resize {root}"]
    return [
        "findmnt -no FSTYPE /",
        f"sudo resize2fs {root}  # if that is ext4",
        f"sudo xfs_growfs {point}  # if that is xfs",
    ]


def _mounts(machine: Machine) -> tuple[str, ...]:
    return machine.stack[0].mounts if machine.stack else ()


def _above_partition(machine: Machine) -> list[str]:
    """Return the commands for what lies between partition and filesystem, from below."""
    steps, grown = [], False
    holder = machine.partition or machine.disk
    names = [one.name for one in machine.stack]
    above = machine.stack[: names.index(holder)] if holder in names else machine.stack
    for device in reversed(above):
        if device.type == "crypt":
            steps.append(f"sudo cryptsetup resize {_plain(device.name, 'MAPPING')}")
            holder = f"mapper/{device.name}"
        elif device.type == "lvm" or (device.name == machine.root and _logical(machine)):
            steps.append(f"sudo pvresize /dev/{_plain(holder, 'PARTITION')}")
            steps.append(
                f"sudo lvextend -r -l +100%FREE /dev/mapper/{_plain(device.name, 'VOLUME')}"
            )
            grown = True
        elif device.type.startswith(("raid", "md", "linear")):
            steps.append("# The same with the array's other members; then:")
            steps.append(f"sudo mdadm --grow /dev/{_plain(device.name, 'ARRAY')} --size=max")
            holder = device.name
    return steps if grown else [*steps, *_resize(machine)]


def _logical(machine: Machine) -> bool:
    return any(one.kind == "lv" and one.name == machine.root for one in machine.facts.volumes)


def _grow(machine: Machine) -> Iterator[str]:
    disk, number = _disk(machine), _number(machine)
    if not machine.partition:
        yield "lsblk  # DISK and NUMBER are those of the root partition"
    yield f"sudo growpart --dry-run {disk} {number}  # check first: it must print CHANGE"
    yield f"sudo growpart {disk} {number}"
    yield from _above_partition(machine)


def _prevent(*lines: str) -> Iterator[str]:
    yield "# Next time, in user-data:"
    yield from (f"#   {line}" for line in ("#cloud-config", *lines))


def _and_prevent(*lines: str, first: tuple[str, ...] = ()) -> Callable[[Machine], Iterator[str]]:
    def steps(machine: Machine) -> Iterator[str]:
        yield from first
        yield from _grow(machine)
        yield from _prevent(*lines)

    return steps


def _not_larger(machine: Machine) -> Iterator[str]:
    if machine.last(Kind.CAPACITY):
        yield "# The kernel has seen the larger disk since. cloud-init grows it on the next boot:"
        yield "sudo reboot"
        yield "# or now, without a reboot:"
        yield from _grow(machine)
        return
    yield f"lsblk {_disk(machine)}  # check first: the size that the machine sees"
    yield "# On the host or in the cloud's console, enlarge the disk itself, e.g. one of:"
    yield "#   qemu-img resize DISK.qcow2 SIZE        (machine shut down)"
    yield f"#   virsh blockresize DOMAIN {_plain(machine.disk, 'DISK')} SIZE  (while it runs)"
    yield "# A reboot from inside keeps the old size: shut the machine down (power off), start it; then"
    yield from _grow(machine)


def _wall(machine: Machine) -> Iterator[str]:
    """Remove swap that lies behind root; anything else must be moved, not removed."""
    disk = _disk(machine)
    names = [one.name for one in machine.devices.values() if "[SWAP]" in one.mounts]
    behind = machine.room.behind
    table = machine.table
    extended = [one.name for one in (table.parts if table else ()) if _EXTENDED.search(one.type)]
    if table is not None:
        names += [one.name for one in table.parts if _SWAP.search(one.type)]
    swaps = [
        one for one in dict.fromkeys(names) if (split_partition(one) or ("",))[0] == machine.disk
    ]
    walls = [one for one in (*swaps, *(extended if swaps else ())) if _PLAIN.fullmatch(one)]
    if not swaps or (behind is not None and behind.name not in walls):
        name = _plain(behind.name if behind else "", "the partition behind root")
        yield f"sudo fdisk -l {disk}  # check first: what {name} holds"
        yield _SAFE_FIRST
        yield f"# Move {name} to the disk's end offline, e.g. with GParted from a rescue system; then"
        yield from _grow(machine)
        return
    yield _SAFE_FIRST
    yield f"sudo fdisk -l {disk}  # check first: only swap lies behind root"
    yield from (f"sudo swapoff /dev/{one}" for one in swaps)
    yield "sudo sed -i.bak '/\\sswap\\s/s/^/#/' /etc/fstab"
    numbers = [(split_partition(one) or ("", ""))[1] for one in walls]
    for number in sorted(filter(None, numbers), key=int, reverse=True):
        yield f"sudo sfdisk --delete {disk} {number}  # swap, or what holds it"
    yield from _grow(machine)
    yield "# Swap again, as a file:"
    yield "sudo fallocate -l 1G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile"
    yield "sudo swapon /swapfile && echo '/swapfile none swap sw 0 0' | sudo tee -a /etc/fstab"


def _not_listed(machine: Machine) -> Iterator[str]:
    if machine.room.behind is not None:
        yield from _wall(machine)
    else:
        yield from _grow(machine)
    yield from _prevent("growpart:", "  devices: [/]")


def _failed(machine: Machine) -> Iterator[str]:
    texts = " ".join(one.at.text for one in machine.events)
    if "no tools available" in texts or "sgdisk" in texts:
        yield "# The sfdisk here cannot resize this table; growpart needs sgdisk:"
        yield "sudo apt-get install gdisk  # or: sudo dnf install gdisk"
    if machine.last(Kind.TABLE_BUSY):
        yield "# The kernel did not take the new table, so growpart restored the old one. Unmount"
        yield f"# what uses {_disk(machine)}, or grow it early in the boot (growroot); then reboot."
    yield from _grow(machine)
    if machine.last(Kind.TABLE_BUSY):
        yield f"sudo partx --update {_disk(machine)}  # or: sudo partprobe; sudo reboot"


def _full(machine: Machine) -> Iterator[str]:
    yield "df -h / /tmp  # check first"
    yield "sudo journalctl --vacuum-size=50M; sudo apt-get clean  # free a few megabytes"
    yield "# growpart needs room for its temporary files; a tmpfs has it:"
    yield f"sudo env TMPDIR=/run growpart {_disk(machine)} {_number(machine)}"
    yield from _above_partition(machine)


def _layered(machine: Machine) -> Iterator[str]:
    if machine.room.some is False:
        yield from _above_partition(machine)
    else:
        yield from _grow(machine)
    if machine.partition and machine.kind_of_stack("lvm") and not machine.kind_of_stack("crypt"):
        volume = machine.kind_of_stack("lvm")
        yield from _prevent(
            "growpart:",
            f"  devices: [{_partition(machine)}]",
            "runcmd:",
            f"  - lvextend -r -l +100%FREE /dev/mapper/{_plain(volume.name if volume else '', 'VOLUME')}",
        )


def _immutable(machine: Machine) -> Iterator[str]:
    yield "findmnt -no SOURCE,FSTYPE,OPTIONS /  # check first: / is read-only by design"
    if "/sysroot" not in _mounts(machine) and machine.fstype in {"btrfs", ""}:
        yield "# btrfs grows through any writable mount of the same filesystem:"
        yield "sudo btrfs filesystem resize max /.snapshots  # or /var, /home"
    else:
        yield "# Grow it where the real filesystem is mounted:"
        yield "sudo mount -o remount,rw /sysroot"
        yield from _grow(machine) if machine.room.some else _above_partition(machine)


def _no_partition(machine: Machine) -> Iterator[str]:
    yield "# There is no partition to grow: once the disk is larger, only the filesystem has to."
    yield from _resize(machine)


def _backup(machine: Machine) -> Iterator[str]:
    yield _SAFE_FIRST
    yield f"sudo sgdisk -e {_disk(machine)}  # relocate the backup GPT to the disk's end"
    yield f"sudo partprobe {_disk(machine)}  # or reboot"
    yield from _grow(machine)


def _mbr(machine: Machine) -> Iterator[str]:
    yield _SAFE_FIRST
    yield "# Beyond 2 TiB the disk needs a GPT. From a rescue system:"
    yield f"sudo sgdisk --mbrtogpt {_disk(machine)}"
    yield "# A machine that boots by BIOS also needs a BIOS boot partition and grub-install again."
    yield from _grow(machine)


def _busy(machine: Machine) -> Iterator[str]:
    yield f"sudo partx --update {_disk(machine)}  # or: sudo partprobe {_disk(machine)}"
    yield f"lsblk {_disk(machine)}  # check: the new size; if it is still the old one: sudo reboot"
    yield from _above_partition(machine)


def _not_run(machine: Machine) -> Iterator[str]:
    yield "cloud-init status --long; cat /run/cloud-init/ds-identify.log  # check first"
    yield "# Give the machine a datasource, e.g. a NoCloud seed labelled cidata; on Proxmox a"
    yield "# cloud-init drive: qm set VMID --ide2 STORAGE:cloudinit. Then reboot, or by hand:"
    yield from _grow(machine)


def _ran(machine: Machine) -> Iterator[str]:
    yield "sudo rm -f /var/lib/cloud/sem/config_growpart.once /var/lib/cloud/sem/config_resizefs.once"
    yield from _grow(machine)
    yield "# In the image: list growpart and resizefs in cloud.cfg without 'once' (their frequency is"
    yield "# always), and run 'cloud-init clean' before a snapshot is taken."


def _lost(machine: Machine) -> Iterator[str]:
    yield "findmnt /; lsblk  # check first: which partition is mounted as /dev/root"
    yield from _grow(machine)
    yield "# Next time boot with an initramfs, or with root=UUID=... or root=LABEL=... on the kernel's"
    yield "# command line, or name the partition: growpart: {devices: [/dev/...]}"


def _missing(machine: Machine) -> Iterator[str]:
    yield "sudo apt-get install cloud-guest-utils  # RPM systems: dnf install cloud-utils-growpart"
    yield from _grow(machine)
    yield "# Next time put that package into the image: growpart runs before packages are installed."


_PARTITION: dict[Reason | None, Callable[[Machine], Iterator[str]]] = {
    Reason.GROWPART_OFF: _and_prevent("growpart:", "  mode: auto"),
    Reason.UNKNOWN_MODE: _and_prevent("growpart:", "  mode: auto"),
    Reason.GROWROOT_DISABLED: _and_prevent(
        "growpart:",
        "  mode: auto",
        "  ignore_growroot_disabled: true",
        first=("sudo rm /etc/growroot-disabled",),
    ),
    Reason.NO_GROWPART_TOOL: _missing,
    Reason.NOT_ASKED: _not_listed,
    Reason.DISK_NOT_LARGER: _not_larger,
    Reason.GAIN_BELOW_1_MIB: _not_larger,
    Reason.WALL: _wall,
    Reason.NO_PARTITION: _no_partition,
    Reason.LOGICAL_VOLUME: _layered,
    Reason.ENCRYPTED: _layered,
    Reason.IMMUTABLE_ROOT: _immutable,
    Reason.FILESYSTEM_FULL: _full,
    Reason.GROWPART_FAILED: _failed,
    Reason.NO_CLOUD_INIT: _not_run,
    Reason.MODULE_RAN: _ran,
    Reason.TABLE_BUSY: _busy,
    Reason.MBR_2_TIB: _mbr,
    Reason.GPT_BACKUP: _backup,
    Reason.DEVICE_NOT_FOUND: _lost,
}


def _resize_and_prevent(machine: Machine) -> Iterator[str]:
    yield from _above_partition(machine)
    yield from _prevent("resize_rootfs: true")


_FILESYSTEM: dict[Reason, Callable[[Machine], Iterator[str]]] = {
    Reason.IMMUTABLE_ROOT: _immutable,
    Reason.RESIZE_ROOTFS_OFF: _resize_and_prevent,
    Reason.TABLE_BUSY: _busy,
    Reason.FILESYSTEM_FULL: _full,
}


# What makes cloud-init read user-data that it ignored.
_IGNORED_FIX = (
    "# The first line of user-data must be exactly:\n#cloud-config\n"
    "cloud-init schema --config-file user-data  # check it; on the machine: --system"
)
