"""The commands that help on one machine, in order, with its own device names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from textwrap import dedent

from cloudlab.disk.table import FIRST_LOGICAL
from cloudlab.explanation.events import Event, Kind
from cloudlab.explanation.facts import Device
from cloudlab.explanation.machine import MBR_LIMIT_BYTES, Machine
from cloudlab.explanation.model import ON_PURPOSE, Reason
from cloudlab.explanation.names import disk_of, number_of, short_name
from cloudlab.explanation.tables import Part
from cloudlab.explanation.verdicts import Verdict
from cloudlab.explanation.words import (
    DISABLED,
    FILESYSTEM_FIXES,
    LARGER_SINCE,
    MODE_AUTO,
    NOT_LARGER,
    PARTITION_FIXES,
    SAFE_FIRST,
    UNLISTED,
)

_OWN_TABLE_BYTES = 4096
# How families of distributions install a package, and their words for a program that is missing.
_INSTALLERS = (
    ("apt-get install", r"cloud-guest-utils"),
    ("dnf install", r"cloud-utils-growpart|not found\.\.\."),
    ("zypper install", r"is not a typo"),
    ("apk add", r"-ash: "),
)
# Their packages with a program that growing needs.
_PACKAGES = {
    "growpart": ("cloud-guest-utils", "cloud-utils-growpart", "growpart", "cloud-utils-growpart"),
    "resize2fs": ("e2fsprogs", "e2fsprogs", "e2fsprogs", "e2fsprogs-extra"),
    "xfs_growfs": ("xfsprogs", "xfsprogs", "xfsprogs", "xfsprogs-extra"),
    "btrfs": ("btrfs-progs", "btrfs-progs", "btrfsprogs", "btrfs-progs"),
    "sfdisk": ("fdisk", "util-linux", "util-linux", "sfdisk"),
    "sgdisk": ("gdisk", "gdisk", "gptfdisk", "sgdisk"),
}
# Only names that a shell takes as they are go into commands.
_PLAIN = re.compile(r"[\w./+:@%-]+")
# Filesystems that keep their size.
_FIXED = ("exfat", "vfat", "erofs", "squashfs", "minix", "udf", "iso9660")
# As fdisk, sfdisk and sgdisk name them.
_EXTENDED = re.compile(
    r"Extended|\bextended\b(?! boot)|W95 Ext|^(?:[\d.,]+[KMGT] +)?(?:0?[5f]|85)(?: |$)"
)
# Not by a name that people gave: parted and sgdisk show that behind the type.
_SWAP = re.compile(
    r"(?i)^swap$|^(?!(?!8200)[\dA-F]{4}(?: |$))(?:[\d.,]+\+?(?:[KMGT]i?B?|[Bs])?[ :]+)?"
    r"(?:(?:prim|log)\w+ +)?(?:82(?:00)?(?=[ ,]|$)|(?:linux|freebsd)[ -]swap|0657FD6D)"
)
# Hidden layers of a thin pool in a volume group; a dash within a name is doubled.
_THIN_POOL = re.compile(r"((?:[^-]|--)+)-((?:[^-]|--)+?)(?:-tpool|_t(?:meta|data))")
_MARKED = re.compile(r"with errors|errors in the filesystem")
_EVEN_IF_GROWN = {Reason.USER_DATA_IGNORED, Reason.MBR_2_TIB, Reason.ENLARGED_SINCE}
_NOT_ONLY_IF_KEPT = {Reason.USER_DATA_IGNORED, Reason.IN_BACKGROUND, Reason.RESIZE_FAILED}


def partition_fix(machine: Machine, verdict: Verdict) -> str:
    """Return what grows the partition and all that lies on it; empty if nothing is wrong."""
    if verdict.grown is not False and verdict.reason not in _EVEN_IF_GROWN:
        return ""
    if fixed := _fixed_array(machine):
        return fixed
    template = PARTITION_FIXES.get(verdict.reason or Reason.UNKNOWN, "<grow>")
    unlisted = machine.last(Kind.UNLISTED)
    if template is NOT_LARGER and machine.enlargements(machine.disk):
        template = LARGER_SINCE
    elif verdict.reason is Reason.NO_CLOUD_INIT and _disabled_by(machine):
        template = DISABLED
    elif template is LARGER_SINCE and not machine.last(Kind.CHANGED):
        template = "<grow>"  # cloud-init is not known to run here
    elif template is MODE_AUTO and unlisted and unlisted.at in verdict.evidence:
        template = UNLISTED
    elif machine.freebsd and verdict.reason is Reason.GPT_BACKUP:  # gpart recovers it
        template = "<grow>"
    return _text(machine, template)


def filesystem_fix(machine: Machine, verdict: Verdict, partition: Verdict, shown: str) -> str:
    """Return what grows the filesystem, briefly if it is what is shown above; empty if all is well."""
    fix = _filesystem_fix(machine, verdict, partition)
    return "# The same as for the partition, above." if fix and fix == shown else fix


def _filesystem_fix(machine: Machine, verdict: Verdict, partition: Verdict) -> str:
    if verdict.grown is not False and verdict.reason not in _NOT_ONLY_IF_KEPT:
        return ""
    first = partition.grown is False and partition.reason is not Reason.NO_PARTITION
    steps = ["# First the partition, as above; then:"] if first else []
    steps += ["<before resize>"] if verdict.reason is Reason.RESIZE_FAILED else []
    short = not first and machine.fills(machine.size_of(machine.root)) is False
    if not short and (fixed := _fixed_array(machine)):
        return fixed
    above = "\n".join([*steps, "<resize>" if short else "<above>"])
    return _text(machine, FILESYSTEM_FIXES.get(verdict.reason or Reason.UNKNOWN, above))


def array_fix(machine: Machine, name: str, verdict: Verdict) -> str:
    """Return what grows an array whose partition root is on, and all above; empty if no such."""
    device = machine.devices.get(name)
    if verdict.grown is not False or device is None or device.name != machine.disk:
        return ""
    return _fixed(device) or _text(
        machine, f"sudo mdadm --grow /dev/{_plain(name, 'ARRAY')} --size=max\n<grow>"
    )


def _text(machine: Machine, template: str) -> str:
    return "\n".join(dict.fromkeys(_filled(machine, dedent(template).strip().splitlines())))


def _filled(machine: Machine, lines: Iterable[str]) -> Iterator[str]:
    names = {
        "{disk}": _disk(machine),
        "{disk_name}": _plain(machine.disk, "DISK"),
        "{number}": _plain(machine.number, "NUMBER"),
        "{partition}": _plain(machine.partition, "PARTITION"),
    }
    for line in lines:
        if steps := _STEPS.get(line):
            yield from _filled(machine, steps(machine))
        else:
            yield re.sub(r"\{\w+\}", lambda match: names.get(match[0], match[0]), line)


def _plain(name: str, otherwise: str) -> str:
    return name if name and _PLAIN.fullmatch(name) else otherwise


def _disk(machine: Machine) -> str:
    folder = "mapper/" if _on_multipath(machine) else ""
    return f"/dev/{folder}{_plain(machine.disk, 'DISK')}"


def _on_multipath(machine: Machine) -> bool:
    disk = machine.devices.get(machine.disk)
    return machine.disk.startswith("mpath") or (disk is not None and disk.type == "mpath")


def _partition(machine: Machine) -> str:
    folder = "mapper/" if _on_multipath(machine) else ""
    return f"/dev/{folder}{_plain(machine.partition, 'PARTITION')}"


def _root(machine: Machine) -> str:
    mapped = _on_multipath(machine) and machine.root == machine.partition
    if (disk_of(machine.root) and not mapped) or machine.root in {machine.disk, ""}:
        return f"/dev/{_plain(machine.root, 'ROOT')}"
    if machine.root == "root" and not machine.stack[1:]:
        return "$(findmnt -no SOURCE /)"
    folder = "" if re.match(r"(?:md|bcache|drbd|nbd)\d", machine.root) else "mapper/"
    return f"/dev/{folder}{_plain(machine.root, 'ROOT')}"


def _mounts(machine: Machine) -> tuple[str, ...]:
    return machine.stack[0].mounts if machine.stack else ()


def _point(machine: Machine) -> str:
    """Return where the root filesystem is mounted, preferably as root."""
    shown = [one for one in machine.root_mounts if short_name(one.source) == machine.root]
    points = (*(one.mountpoint for one in shown), *_mounts(machine))
    known = (one for one in ("/", "/sysroot", *points) if one in points and _PLAIN.fullmatch(one))
    return next(known, "/")


# ---- steps that depend on the machine ----


def _resize(machine: Machine) -> list[str]:
    """Return the command that lets the root filesystem fill its device."""
    root, point, fstype = _root(machine), _point(machine), machine.fstype
    pool = _plain(machine.zfs_dataset.split("/")[0], "POOL")
    commands = {
        "ext": _resize_ext(machine, root),
        "xfs": [f"sudo xfs_growfs {point}"],
        "btrfs": [_resize_btrfs(machine)],
        "f2fs": [
            "# f2fs grows only while it is not mounted: boot a rescue system with f2fs-tools, then",
            f"sudo resize.f2fs {root}",
        ],
        "zfs": [f"sudo zpool online -e {pool} {_plain(machine.partition, 'DEVICE')}"],
        "ufs": ["sudo growfs -y /"],
        "bcachefs": [f"sudo bcachefs device resize {root}"],
        "reiserfs": [f"sudo resize_reiserfs {root}"],
        "jfs": [f"sudo mount -o remount,resize {point}"],
        "nilfs2": [f"sudo nilfs-resize {root}"],
        "ntfs": [f"sudo ntfsresize {root}  # while it is not mounted"],
    }
    if fstype in _FIXED:
        return [f"# {fstype} cannot grow: copy its files to a larger filesystem."]
    if machine.freebsd:
        grown = commands["zfs" if fstype == "zfs" else "ufs"]
        return [*(() if machine.partition else _gpart(machine)), *grown]
    return commands.get("ext" if fstype.startswith("ext") else fstype) or [
        "findmnt -no FSTYPE /",
        f"sudo resize2fs {root}  # if that is ext4",
        f"sudo xfs_growfs {point}  # if that is xfs",
        f"{_resize_btrfs(machine)}  # if that is btrfs",
    ]


def _resize_ext(machine: Machine, root: str) -> list[str]:
    failures = (one for one in machine.all(Kind.RESIZE_FAILED) if "in 32 bits" in one.at.text)
    if not any(machine.is_root(one.get("device", "target")) for one in failures):
        return [f"sudo resize2fs {root}"]
    return [
        "# ext4 ends at 16 TiB without its feature 64bit, which it gets only while it is not mounted:",
        "# boot a rescue system, then",
        f"sudo e2fsck -f {root} && sudo resize2fs -b {root} && sudo resize2fs {root}",
    ]


def _resize_btrfs(machine: Machine, *, read_only: bool = False) -> str:
    """Return the command for root's own device of a btrfs, through a mount that is writable."""
    rows = (one for one in machine.facts.mounts if one.mountpoint == "btrfs")
    mine = (one.at.text for one in rows if short_name(one.source) == machine.root)
    found = [row.split()[1] for row in mine if row.split()[:1] == ["devid"]]
    device = f"{found[-1]}:" if found and found[-1] != "1" else ""
    point, unsure = _point(machine), ""
    if point == "/" and (read_only or machine.immutable_source is not None):
        shown = [one for one in _mounts(machine) if one != "/" and _PLAIN.fullmatch(one)]
        usual = [one for one in ("/.snapshots", "/var", "/home") if one in shown]
        point = next(iter((*usual, *shown)), "/.snapshots")
        unsure = "" if shown else "  # or /var, /home"
    return f"sudo btrfs filesystem resize {device}max {point}{unsure}"


def _layers(machine: Machine) -> list[Device]:
    """Return what lies between the root filesystem and its partition, from above."""
    holder, names = machine.partition or machine.disk, [one.name for one in machine.stack]
    return machine.stack[: names.index(holder)] if holder in names else machine.stack


def _fixed_array(machine: Machine) -> str:
    """Return what to do about an array on root's partition that cannot grow; empty if it can."""
    return next(filter(None, map(_fixed, _layers(machine))), "")


def _fixed(device: Device) -> str:
    if device.type not in {"raid0", "linear"}:
        return ""
    return (
        f"# mdadm cannot make a {device.type} array use more of its members (--grow --size=max):\n"
        "# back up the data, create a new array on larger members and restore."
    )


def _above(machine: Machine) -> list[str]:
    """Return the commands for what lies between partition and filesystem, from below."""
    steps: list[str] = []
    grown, holder = False, machine.partition or machine.disk
    holder = f"mapper/{holder}" if _on_multipath(machine) else holder
    logical = any(one.kind == "lv" and one.name == machine.root for one in machine.facts.volumes)
    for device in reversed(_layers(machine)):
        if device.type == "crypt":
            steps.append(f"sudo cryptsetup resize {_plain(device.name, 'MAPPING')}")
            grown, holder = False, f"mapper/{device.name}"
        elif device.type == "lvm" or (device.name == machine.root and logical):
            if not _THIN_POOL.fullmatch(device.name):
                steps.append(f"sudo pvresize /dev/{_plain(holder, 'PARTITION')}")
                steps += _lvextend(machine, device.name)
            grown = True
        elif device.type.startswith(("raid", "md", "linear")):
            steps.append("# Let the array's other members grow likewise; then:")
            steps.append(f"sudo mdadm --grow /dev/{_plain(device.name, 'ARRAY')} --size=max")
            holder = device.name
    return steps if grown else [*steps, *_resize(machine)]


def _lvextend(machine: Machine, volume: str) -> list[str]:
    """Return how a logical volume takes its group's room; a thin one only takes its pool's."""
    path = f"/dev/mapper/{_plain(volume, 'VOLUME')}"
    pool = _thin_pool(machine, volume)
    if not pool:
        return [f"sudo lvextend -r -l +100%FREE {path}"]
    return [
        f"sudo lvextend -l +100%FREE {pool}  # the thin pool",
        f"sudo lvextend -r -L +SIZE {path}  # a thin volume: SIZE is at most what its pool gained",
    ]


def _thin_pool(machine: Machine, volume: str) -> str:
    """Return the thin pool of root's volume as GROUP/POOL; empty if it has none."""
    for layer in filter(None, (_THIN_POOL.fullmatch(one.name) for one in machine.stack)):
        names = [one.replace("--", "-") for one in layer.groups()]
        return _plain("/".join(names), "GROUP/POOL")
    rows = [one for one in machine.facts.volumes if (one.kind, one.name) == ("lv", volume)]
    for one in reversed(rows):
        if match := re.search(r"\sV[-\w]{9}\s+\S+\s+([\w.+-]+)", one.at.text):
            return _plain(f"{one.group}/{match[1]}", "GROUP/POOL")
    return ""


def _gpart(machine: Machine) -> list[str]:
    """Return FreeBSD's commands for the partition."""
    disk = _plain(machine.disk, "DISK")
    recover = [f"sudo gpart recover {disk}  # moves the backup GPT to the disk's end"]
    return [
        "gpart show  # check first: root's partition must be the last one; its number is the index",
        *(recover if machine.label in {"gpt", ""} else ()),
        f"sudo gpart resize -i {_plain(machine.number, 'NUMBER')} {disk}",
    ]


def _grow(machine: Machine) -> Iterator[str]:
    if machine.freebsd:
        yield from (*_gpart(machine), "<above>")
        return
    if not machine.partition:
        yield "lsblk  # DISK, NUMBER and PARTITION are those of the partition that root lies on"
    if machine.last(Kind.REPART_FAILED):
        yield "sudo systemd-repart --dry-run=yes  # check first: what it would do now"
        yield "sudo systemd-repart --dry-run=no  # or, without its configuration:"
    after = [one for one in machine.devices if machine.may_follow(one)]
    if machine.table is None and after:
        name = _plain(after[0], "another partition")
        yield f"sudo fdisk -l {{disk}}  # check first: does {name} begin behind it?"
    if _on_multipath(machine):
        yield "# growpart does not know the partitions of multipath devices. If parted asks: Fix"
        yield "sudo multipathd resize map {disk_name}"
        for number in filter(None, (number_of(_extended(machine)), "{number}")):
            yield f"sudo parted {{disk}} resizepart {number} 100%"
        yield "sudo kpartx -u {disk}"
        yield "<above>"
        return
    if holder := _extended(machine):
        yield f"sudo growpart {{disk}} {number_of(holder)}  # the extended partition that contains it"
    yield "sudo growpart --dry-run {disk} {number}  # check first: it must print CHANGE"
    yield "sudo growpart {disk} {number}"
    yield "<above>"


def _to_the_end_of_the_mbr(machine: Machine) -> Iterator[str]:
    if machine.mbr_limit_bytes > MBR_LIMIT_BYTES:  # where sfdisk and the kernel count differently
        yield "# The partition cannot reach further: an MBR counts sectors in 32 bits."
        return
    yield "# As far as an MBR goes, 2 TiB; growpart before 0.34 asks for one sector more, and fails:"
    yield "start=$(cat /sys/class/block/{partition}/start)"
    yield 'echo "$start, $((4294967296 - start))" | sudo sfdisk --no-reread -N {number} {disk}'
    yield "sudo partx --update {disk}"
    yield "<above>"


def _extended(machine: Machine) -> str:
    """Return the extended partition that holds root's; empty if that is no logical one.

    To the kernel an extended partition has the size of its own table only.
    """
    root, parts = machine.part, machine.table.parts if machine.table else []
    if int(machine.number or 0) < FIRST_LOGICAL or machine.label == "gpt":
        return ""
    for one in parts:
        around = root is not None and one.start_bytes < root.start_bytes < one.end_bytes
        if around and _EXTENDED.search(one.type):
            return one.name
    listed = [one for one in machine.devices.values() if disk_of(one.name) == machine.disk]
    small = (one.name for one in listed if 0 < (one.size_bytes or 0) <= _OWN_TABLE_BYTES)
    return next(small, "")


def _installation(program: str, missing: Event | None) -> Iterator[str]:
    """Yield how to install a program, first as on the distribution whose words the message has."""
    said, packages = missing.at.text if missing else "", _PACKAGES[program]
    commands = [f"{how} {package}" for (how, _), package in zip(_INSTALLERS, packages, strict=True)]
    known = [place for place, (_, words) in enumerate(_INSTALLERS) if re.search(words, said)]
    yield f"sudo {commands.pop(known[0] if known else 0)}"
    yield f"# elsewhere: {'; '.join(commands)}"


def _before_resize(machine: Machine) -> Iterator[str]:
    """Yield what the resize program that failed needs."""
    yield from _install(machine, "resize2fs", "xfs_growfs", "btrfs")
    failures = machine.all(Kind.RESIZE_FAILED)
    checks = [one.get("device") for one in failures if "e2fsck -f" in one.at.text]
    for device in (one for one in checks[-1:] if _PLAIN.fullmatch(one)):
        yield "# Only while it is not mounted, e.g. in a rescue system:"
        yield f"sudo e2fsck -f {device} && sudo resize2fs {device}"
    marked = [one for one in (*machine.all(Kind.MARKED), *failures) if _MARKED.search(one.at.text)]
    if any(one.get("device") in {"", machine.root} for one in marked) and not checks:
        yield "# It is marked with errors, which must be repaired first. In a rescue system:"
        yield f"sudo e2fsck -f {_root(machine)}"
    if machine.plain_root and any("Read-only file system" in one.at.text for one in failures):
        yield "sudo mount -o remount,rw /  # an ordinary filesystem grows only while it is writable"


def _install(machine: Machine, *programs: str) -> Iterator[str]:
    """Yield how to install the first of these programs that is missing."""
    for event in machine.all(Kind.TOOL_MISSING):
        name = event.get("program") or "sgdisk"
        if name in programs:
            yield from _installation(name, event)
            yield "# Next time put that package into the image."
            return


def _rescan(machine: Machine) -> Iterator[str]:
    """Yield how to rescan a disk; virtio reports a new size without it."""
    disk = _plain(machine.disk, "")
    controller = re.fullmatch(r"(nvme\d+)n\d+", disk)
    path = f"block/{disk}/device/rescan" if re.fullmatch(r"sd[a-z]+", disk) else ""
    path = f"nvme/{controller[1]}/rescan_controller" if controller else path
    if path:
        yield f"echo 1 | sudo tee /sys/class/{path}  # if it was enlarged while the machine runs"


def _is_swap(machine: Machine, part: Part) -> bool:
    """Tell whether a partition is swap by its type or its use, and nothing shows another use."""
    facts = machine.facts
    shown = [one for one in facts.devices if one.name == part.name]  # in every listing
    mounts = {point for one in shown for point in one.mounts}
    mounts |= {one.mountpoint for one in facts.mounts if short_name(one.source) == part.name}
    fstypes = {one.fstype for one in shown} - {""}
    swap = _SWAP.search(part.type) or "[SWAP]" in mounts or "swap" in fstypes
    used: object = mounts - {"[SWAP]"} or fstypes - {"swap"}
    used = used or any(one.parent == part.name for one in facts.devices)
    used = used or any((one.kind, one.name) == ("pv", part.name) for one in facts.volumes)
    return bool(swap and not used and _PLAIN.fullmatch(part.name))


def _behind_root(machine: Machine) -> tuple[list[str], list[str], list[str]]:
    """Return what lies behind root: swap, what must be deleted with it, and all names.

    There is no swap to delete if anything else lies there, or may.
    """
    root, parts = machine.part, machine.table.parts if machine.table else []
    if root is None:
        return [], [], list(filter(machine.may_follow, machine.devices))
    behind = [one for one in parts if one.start_bytes > root.start_bytes]
    swaps = [one for one in behind if _is_swap(machine, one)]
    holders = [
        one
        for one in behind
        if _EXTENDED.search(one.type)
        and any(one.start_bytes <= swap.start_bytes < one.end_bytes for swap in swaps)
    ]
    names, known = [one.name for one in behind], {one.name for one in parts}
    deleted = [one.name for one in (*swaps, *holders)]
    # Deleting a logical partition renumbers those after it.
    last = max((int(number_of(one) or 0) for one in known - {*deleted}), default=0)
    numbers = [int(number_of(one) or 0) for one in deleted]
    logical = machine.label != "gpt" and any(FIRST_LOGICAL <= one < last for one in numbers)
    unknown = [one for one in machine.devices if disk_of(one) == machine.disk and one not in known]
    if logical or unknown or len(deleted) < len(behind):
        return [], [], [*names, *unknown]
    return [one.name for one in swaps], deleted, names


def _wall(machine: Machine) -> Iterator[str]:
    """Remove swap that lies behind root; anything else must be moved, not removed."""
    swaps, deleted, names = _behind_root(machine)
    if not swaps or machine.table is None:
        shown = (_plain(one, "another partition") for one in names)
        name = ", ".join(shown) or "the partition behind root"
        yield f"sudo fdisk -l {{disk}}  # check first: what is on {name}"
        yield SAFE_FIRST
        yield f"# Move {name} to the disk's end offline, e.g. with GParted from a rescue system; then"
        yield "<growpart>"
        if machine.fstype == "btrfs" and machine.root == machine.partition and machine.room.some:
            yield f"# Or leave {name} there: btrfs can take a second partition, of the free room, too:"
            yield "echo ', +' | sudo sfdisk --append --no-reread {disk}"
            yield "sudo partx --update {disk}; lsblk {disk}  # NEW is the new partition"
            yield f"sudo btrfs device add /dev/NEW {_point(machine)}"
        return
    if machine.freebsd:
        yield from (f"sudo swapoff /dev/{one}" for one in swaps)
        yield from (f"sudo gpart delete -i {number_of(one)} {{disk_name}}  # swap" for one in swaps)
        yield "<growpart>"
        return
    yield SAFE_FIRST
    yield "sudo fdisk -l {disk}  # check first: only swap lies behind root"
    devices = [f"/dev/{'mapper/' if _on_multipath(machine) else ''}{one}" for one in swaps]
    yield from (f"sudo swapoff {one}" for one in devices)
    yield f"# In /etc/fstab, comment out the entry of {', '.join(swaps)}, by path or UUID:"
    yield f"lsblk -o NAME,UUID {' '.join(devices)}"
    yield "# Delete it, if it is swap. The kernel must forget it as well, before growpart:"
    steps = [f"sudo blkid -t TYPE=swap {one}" for one in devices]
    for number in sorted(map(number_of, deleted), key=int, reverse=True):
        steps += [f"sudo sfdisk --delete {{disk}} {number}"]
        if not _on_multipath(machine):  # there kpartx makes it forgotten
            steps += [f"sudo partx --delete --nr {number} {{disk}}"]
    yield from " && \\\n  ".join(steps).splitlines()
    yield "<growpart>"
    yield "# The next boot may wait for the old swap, to resume from it: remove resume= from the kernel's"
    yield "# command line and /etc/initramfs-tools/conf.d/resume, then run update-grub and"
    yield "# update-initramfs -u (Fedora: grubby --update-kernel=ALL --remove-args=resume; dracut -f)."
    yield from _swap_file(machine)


def _swap_file(machine: Machine) -> Iterator[str]:
    """Yield how to make a swap file, which btrfs must neither copy on write nor snapshot."""
    file = "/swapfile"
    if machine.fstype == "btrfs":
        folder = "/var/swap" if any(one.read_only for one in machine.root_mounts) else "/swap"
        file = f"{folder}/swapfile"
        yield "# Swap again, as a file in its own subvolume, so that snapshots leave it out:"
        yield f"sudo btrfs subvolume create {folder} && sudo truncate -s 0 {file}"
        yield f"sudo chattr +C {file}  # a swap file on btrfs must not be copy-on-write"
    else:
        yield "# Swap again, as a file:"
    yield f"sudo fallocate -l 1G {file} && sudo chmod 600 {file} && sudo mkswap {file}"
    yield f"sudo swapon {file} && echo '{file} none swap sw 0 0' | sudo tee -a /etc/fstab"


def _failed(machine: Machine) -> Iterator[str]:
    yield from _install(machine, "sfdisk", "sgdisk")
    if any("unexpected output in sfdisk" in one.at.text for one in machine.events):
        yield "export LC_ALL=C  # growpart reads sfdisk's English output"
    busy = machine.last(Kind.TABLE_BUSY)
    if busy:
        yield "# The kernel did not take the new table, so growpart restored the old one. Unmount"
        yield "# what uses {disk}, or grow it early in the boot (growroot); then reboot."
    yield "<grow>"
    if busy:
        yield "sudo partx --update {disk}  # or: sudo partprobe; sudo reboot"


def _layered(machine: Machine) -> Iterator[str]:
    yield "<above>" if machine.room.some is False else "<grow>"
    yield "<next time>"


def _disabled_by(machine: Machine) -> str:
    return " ".join(
        one.at.text for one in machine.all(Kind.DISABLED) if ON_PURPOSE.search(one.at.text)
    )


def _enable(machine: Machine) -> Iterator[str]:
    """Yield how to remove what disables cloud-init."""
    said = _disabled_by(machine).lower()
    if "environment" in said:  # its variable has the name KERNEL_CMDLINE
        yield "# Remove KERNEL_CMDLINE=cloud-init=disabled, e.g. from /etc/systemd/system.conf"
    elif re.search(r"kernel|cmdline|init=disabled", said):
        yield "# Remove cloud-init=disabled from the kernel's command line, in /etc/default/grub; then"
        yield "# update-grub (Fedora, RHEL: grubby --update-kernel=ALL --remove-args=cloud-init=disabled)"
    if re.search(r"marker|\.disabled", said):
        yield "sudo rm /etc/cloud/cloud-init.disabled"
    yield "sudo reboot"


def _rootfs_on(machine: Machine) -> Iterator[str]:
    if machine.switched_off("resize_rootfs") or machine.last(Kind.RESIZE_OFF):
        yield "#   resize_rootfs: true"


def _next_time(machine: Machine) -> Iterator[str]:
    """Yield what grows a logical volume and all below it, in user-data."""
    volume, mapped = machine.kind_of_stack("lvm"), _on_multipath(machine)
    if machine.partition and volume and not mapped and not machine.kind_of_stack("crypt"):
        yield "# Next time, in user-data:"
        yield "#   #cloud-config"
        yield "#   growpart:"
        holder = _extended(machine)
        devices = [f"/dev/{holder}", _partition(machine)] if holder else [_partition(machine)]
        yield f"#     devices: [{', '.join(devices)}]"
        yield "#   runcmd:"
        for command in _lvextend(machine, volume.name):
            if "+SIZE" not in command:
                yield f"#     - {command.removeprefix('sudo ').partition('  #')[0]}"


def _writable(machine: Machine) -> Iterator[str]:
    if machine.sealed:
        yield "# A verified image keeps its size; data is on other partitions:"
        yield "lsblk -o NAME,SIZE,RO,MOUNTPOINT {disk}"
    elif "/sysroot" not in _mounts(machine) and machine.fstype in {"btrfs", ""}:
        yield "# btrfs grows through any writable mount of the same filesystem:"
        yield _resize_btrfs(machine, read_only=True)
    else:
        yield "# Grow it where the real filesystem is mounted:"
        point = _point(machine)
        yield f"sudo mount -o remount,rw {point if point != '/' else '/sysroot'}"
        yield "<grow>" if machine.room.some else "<above>"


_STEPS: Mapping[str, Callable[[Machine], Iterable[str]]] = {
    "<resize>": _resize,
    "<before resize>": _before_resize,
    "<above>": _above,
    "<grow>": lambda machine: _wall(machine) if machine.room.behind else _grow(machine),
    "<growpart>": _grow,
    "<wall>": _wall,
    "<failed>": _failed,
    "<layered>": _layered,
    "<next time>": _next_time,
    "<enable>": _enable,
    "<to the end of the MBR>": _to_the_end_of_the_mbr,
    "<rootfs on>": _rootfs_on,
    "<rescan>": _rescan,
    "<install growpart>": lambda of: _installation("growpart", of.last(Kind.GROWPART_MISSING)),
    "<writable>": _writable,
}
