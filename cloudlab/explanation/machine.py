"""One machine's storage, put together from facts and events: root, what it lies on, and room."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property

from cloudlab.disk.table import FIRST_LOGICAL
from cloudlab.explanation.events import Event, EventLog, Kind
from cloudlab.explanation.evidence import Line
from cloudlab.explanation.facts import Device, Facts, Mount, UserData
from cloudlab.explanation.model import Reason
from cloudlab.explanation.names import (
    FIRST_DISK,
    FREEBSD_DISK,
    IMAGE_DISK,
    VOLUME_NAME,
    WHOLE_DISK,
    disk_of,
    number_of,
    partition_name,
    short_name,
    size_in,
)
from cloudlab.explanation.tables import ALIGNMENT_BYTES, Part, Room, Table, room_behind
from cloudlab.units import SECTOR_BYTES

#: What YAML and cloud-init read as false.
OFF_WORDS = {"off", "false", "no", "0"}

#: The last byte that an MBR with sectors of 512 bytes reaches.
MBR_LIMIT_BYTES = 2**32 * SECTOR_BYTES
# Cloud images number what lies before root from 14 or 127.
_EARLY_NUMBERS = 14
_LEAST_ROOT_BYTES = 128 << 20
# The kernel shows only the two sectors of an extended partition that have its own table.
_EXTENDED_BYTES = 1024
# ext4 and XFS keep some of their device for themselves.
_FULL, _NOT_FULL = 0.90, 0.80
# Of all blocks, where lsblk may have rounded the device's size.
_EXACT = 0.98, 0.94
_IMMUTABLE = ("composefs", "overlay", "overlayroot")
_NO_DEVICE = (*_IMMUTABLE, "root")


@dataclass
class Machine(EventLog):
    """What the evidence says about one machine."""

    facts: Facts
    events: list[Event]
    devices: dict[str, Device] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for device in self.facts.devices:
            newer, known = device, self.devices.get(device.name)
            if known is not None and device.size_bytes is None:
                newer = _completed(known, device, "type", "parent", "mounts", "fstype")
            elif known is not None and known.parent and not disk_of(device.name):
                # Of an array's devices the first is as good as any.
                newer = _completed(replace(device, parent=known.parent), known, "mounts", "fstype")
            if known is not None and not newer.fstype:  # of the last listing that has the column
                newer = replace(newer, fstype=known.fstype)
            self.devices[device.name] = newer
        for volume in self.facts.volumes:  # what lvextend says is newer than an earlier listing
            size_bytes, at = volume.size_bytes, volume.at
            known = self.devices.get(volume.name) if volume.kind == "lv" else None
            if known is not None and known.at.order < at.order and size_bytes:
                self.devices[known.name] = replace(known, size_bytes=size_bytes, at=at)

    def about_root(self, event: Event) -> bool:
        """Tell whether an event is about root's disk, or names none."""
        near = event.get("near")
        if near and not self.disk:
            return bool(FIRST_DISK.fullmatch(near))
        return not near or near in {self.disk, self.partition, self.root}

    # ---- root ----

    def is_root(self, name: str) -> bool:
        """Tell whether a device's name is root's, or may be where root's is unknown."""
        name = short_name(name)
        if name in {self.root, "root", ""}:
            return True
        if self.root:
            return self.is_mapping(name)
        usual = FIRST_DISK.fullmatch(disk_of(name) or name)
        return bool(usual or re.search(r"root|ubuntu--lv$|^dm-0$", name))

    @property
    def grew_on_partition(self) -> list[Event]:
        """What says that a root filesystem with no layer below it grew: its partition was larger."""
        if self.root not in {"", self.partition}:
            return []
        found = (one for one in self.all(Kind.KERNEL, Kind.TOOL) if one.larger)
        names = ((one, one.get("device", "btrfs", "target")) for one in found)
        mine = [one for one, name in names if name and (name == "/" or self.is_root(name))]
        return mine + self.all(Kind.TOOK_LONG)  # cloud-init resizes nothing but root

    @cached_property
    def root_mounts(self) -> list[Mount]:
        """What shows the root filesystem as mounted, in order."""
        return [one for one in self.facts.mounts if one.mountpoint in {"/", "/sysroot"}]

    @cached_property
    def root(self) -> str:
        """The device that the root filesystem lies on, as lsblk names it; empty if unknown."""
        if self.zfs_dataset:
            return ""
        known = self.devices.values()
        listed = [one.name for point in ("/", "/sysroot") for one in known if point in one.mounts]
        sources = [self._mapping(one) for one in reversed(self.root_mounts)]
        sources = [one for one in sources if one and one != "composefs"]
        real = [
            one
            for one in sources
            if one in self.devices or disk_of(one) or WHOLE_DISK.fullmatch(one)
        ]
        named = [one for one in self.named_roots if one not in _NO_DEVICE]
        volumes = [one for one in sources if "-" in one and not one.startswith("disk/")]
        over = {*sources} & {"overlay", "overlayroot"}  # e.g. in a rescue system
        largest = self._largest_partition() if self.root_mounts and not over else ""
        shown = next((one for one in self.root_mounts if one.size_bytes), None)
        fills = self._fills(shown, self.size_of(largest))
        if fills is False or (fills is None and largest not in self.devices):
            largest = ""
        mounted = [*self.likely_roots, *(one for one in self.devices if one == "root")]
        found = (*listed, *real, *volumes, *named, largest, *mounted)
        return next((one for one in found if one), "")

    def _mapping(self, mount: Mount) -> str:
        """Return what is mounted; for the kernel's dm-0 its mapping, if only one has that size."""
        name, size_bytes = short_name(mount.source), mount.size_bytes or 0
        if not re.fullmatch(r"dm-\d+", name):
            return name
        mapped = [one for one in self.devices.values() if one.type in {"lvm", "crypt"}]
        numbered = [one for one in mapped if re.search(rf" 25\d:{name[3:]} ", one.at.text)]
        sizes = {one.name: one.size_bytes or 0 for one in numbered or mapped}
        fit = [one for one, size in sizes.items() if numbered or _FULL * size <= size_bytes <= size]
        return fit[0] if len(fit) == 1 else name

    @property
    def zfs_dataset(self) -> str:
        """The ZFS dataset that is mounted as root; empty if it is none."""
        for mount in self.root_mounts:
            if mount.fstype == "zfs" or re.fullmatch(r"[A-Za-z]\w*/ROOT(?:/.*)?", mount.source):
                return mount.source
        for event in self.all(Kind.TRIED):
            match = re.match(r"stat of '((?:\w+/|\w*pool|z)[^':]*)' failed", event.get("why"))
            if match and event.get("entry") == "/":
                return match[1]
        return ""

    @property
    def sealed(self) -> Device | Mount | None:
        """Root as an image that cannot be written: by its filesystem, or as dm-verity's mapping."""
        device = self.stack[0] if self.stack else None
        if device is not None and device.type == "part":
            names = {device.name, "root"}
            mounts = [one for one in self.root_mounts if short_name(one.source) in names]
            shown: tuple[Device | Mount, ...] = (*reversed(mounts), device)
            return next((one for one in shown if one.fstype in {"erofs", "squashfs"}), None)
        if device is None or device.type == "disk":
            return None
        return device if re.search(r" \d+:\d+ +[01] +\S+ +1 ", device.at.text) else None

    @property
    def immutable_source(self) -> Mount | Event | Device | None:
        """Where root is shown to be an image or overlay that cannot grow."""
        if self.sealed:
            return self.sealed
        for mount in self.root_mounts:
            if short_name(mount.source) in _IMMUTABLE or (
                mount.read_only and mount.fstype in {"btrfs", "erofs", "squashfs"}
            ):
                return mount
        for event in self.all(Kind.TRIED, Kind.OVERLAY_ROOT, Kind.NO_DEVICE):
            if event.kind is Kind.OVERLAY_ROOT or any(
                f"'{one}'" in event.at.text for one in _IMMUTABLE
            ):
                return event
        return None

    @property
    def plain_root(self) -> bool:
        """Whether root is an ordinary filesystem, so that it is read-only only for now."""
        kinds = [one.fstype for one in self.root_mounts if one.fstype]
        failures = [one for one in self.all(Kind.RESIZE_FAILED) if one.get("mount") in {"", "/"}]
        said = any(re.search(r"\(ext\d\)|\(xfs\)|resize2fs: ", one.at.text) for one in failures)
        plain = any(one.startswith("ext") or one == "xfs" for one in kinds)
        return (plain or (said and not kinds)) and self.immutable_source is None

    def _largest_partition(self) -> str:
        parts = [one for one in self.devices.values() if one.type == "part" and one.size_bytes]
        sizes = {one.name: one.size_bytes or 0 for one in parts}
        tables = () if sizes else self.facts.tables
        if tables:
            sizes = {one.name: one.size_bytes for table in tables for one in table.parts}
        if len({one.disk for one in tables}) > 1:  # the only one that root fills, disks included
            shown = max((one.size_bytes or 0 for one in self.root_mounts), default=0)
            sizes |= {one.disk: one.size_bytes or 0 for one in tables if not one.parts}
            sizes = {name: size for name, size in sizes.items() if _FULL * size <= shown <= size}
            sizes = sizes if len(sizes) == 1 else {}
        return max(sizes, key=lambda name: sizes[name], default="")

    @cached_property
    def stack(self) -> list[Device]:
        """The devices from root's own down to the disk, as far as they are known."""
        found: list[Device] = []
        name = self.root
        while name and all(one.name != name for one in found):
            disk = disk_of(name)
            kind = "part" if disk else "disk" if WHOLE_DISK.fullmatch(name) else ""
            device = self.devices.get(name) or Device(name, None, kind, disk, (), "", _NOWHERE)
            if volume := self._in_table(device):
                device = replace(device, parent=volume, type="lvm")
            elif not device.type and (parent := self._volume_parent(device)):
                locked = parent in self.devices and self.devices[parent].fstype == "crypto_LUKS"
                device = replace(device, parent=parent, type="crypt" if locked else "lvm")
            elif not device.type and VOLUME_NAME.fullmatch(name) and self._says_volume(name):
                device = replace(device, type="lvm")
            found.append(device)
            below = device.parent or self._volume_parent(device) or disk
            name = below if device.type != "disk" else ""
        return found

    def _says_volume(self, name: str) -> bool:
        """Tell whether GROUP-VOLUME is no LUKS device: only LVM doubles dashes, or by cloud-init."""
        plain = any("as it is not encrypted" in one.at.text for one in self.all(Kind.TRIED))
        return "--" in name or plain

    def _volume_parent(self, device: Device) -> str:
        """Return the physical volume of a logical one, where lsblk does not show it."""
        held = [one for one in self.facts.volumes if one.kind == "pv"]
        groups = {one.group: one.name for one in held}
        shown = {one.group for one in self.facts.volumes if one.kind == "vg"}
        if [*groups] == [""] and len(shown) == len({one.name for one in held}) == 1:
            groups = {shown.pop(): groups[""]}  # pvresize names no group
        for group, volume in groups.items():
            if group and device.name.startswith(group.replace("-", "--") + "-"):
                return volume
        usual = {one for one in groups.values() if FIRST_DISK.fullmatch(disk_of(one))}
        logical = any((one.kind, one.name) == ("lv", device.name) for one in self.facts.volumes)
        if [*groups] == [""] and not device.type:  # what was resized by hand above pvresize's
            tools = self.all(Kind.IDLE, Kind.TOOL)
            logical |= any(short_name(one.get("device", "target")) == device.name for one in tools)
        if logical and len(groups) == len(usual) == 1:
            return usual.pop()
        if device.type in {"lvm", "crypt", ""} and not disk_of(device.name):
            holders = [
                one.name
                for one in self.devices.values()
                if one.fstype in {"LVM2_member", "crypto_LUKS"} and one.name != device.name
            ]
            return holders[0] if len(holders) == 1 and device.at is not _NOWHERE else ""
        return ""

    def _in_table(self, device: Device) -> str:
        """Return the partition of the only table that must hold a logical volume."""
        volume = device.type == "lvm" or (not device.type and "-" in device.name)
        known = device.parent or disk_of(device.name) or self._volume_parent(device)
        tables = [table for table in self.facts.tables if table.parts]
        if not volume or known or len({table.disk for table in tables}) != 1:
            return ""
        parts = tables[-1].parts
        typed = [one.name for one in parts if re.search(r"(?i)\blvm\b|^0?8e\b", one.type)]
        half = sum(one.size_bytes for one in parts) // 2
        large = [
            one.name for one in parts if "Linux filesystem" in one.type and one.size_bytes > half
        ]
        return typed[0] if len(typed) == 1 else next(iter([] if typed else large), "")

    @cached_property
    def partition(self) -> str:
        """The partition that root lies on, at whatever depth; empty if unknown or none."""
        for device in self.stack:
            if device.type == "part" or (disk_of(device.name) and device.type != "disk"):
                return device.name
        if self.zfs_dataset and self.may_hold_root(largest := self._largest_partition()):
            return largest
        if self.root:
            return ""
        changed = [
            one.partition
            for one in self.all(Kind.CHANGED, Kind.PROGRAM, Kind.GREW, Kind.GROWPART_BROKE)
            if one.get("entry") in {"", one.partition, f"/dev/{one.partition}"}
            and self.may_hold_root(one.partition)
        ]
        return next((one for one in changed if one), "")

    def may_hold_root(self, partition: str) -> bool:
        """Tell whether a partition is where root usually is, and large enough."""
        small = 0 < (self.size_of(partition) or 0) < _LEAST_ROOT_BYTES
        return bool(FIRST_DISK.fullmatch(disk_of(partition))) and not small

    @property
    def freebsd(self) -> bool:
        """Whether disks have FreeBSD's names."""
        paths = (re.search(r"/dev/(\w+)", one.at.text) for one in self.all(Kind.TRIED))
        names = (*self.devices, self.partition, *(match[1] for match in paths if match))
        return any(FREEBSD_DISK.match(one) for one in names)

    @property
    def disk(self) -> str:
        """The disk of the partition."""
        if disk := disk_of(self.partition):
            return disk
        whole = [one.name for one in self.stack if one.type == "disk"]
        if whole or self.partition:
            return whole[0] if whole else ""
        disks = {one.disk for one in self.facts.tables} | {
            one.name for one in self.devices.values() if one.type == "disk" and one.size_bytes
        }
        only = disks.pop() if len(disks) == 1 else ""
        return only if FIRST_DISK.fullmatch(only) or only == "disk" else ""

    @property
    def number(self) -> str:
        """The partition's number."""
        return number_of(self.partition)

    def first_listed(self, device: Device | None) -> Device | None:
        """Return a device as the first listing with its size shows it."""
        sized = self.sizes_of(device.name) if device else []
        return sized[0] if sized else device

    def kind_of_stack(self, *kinds: str) -> Device | None:
        """Return the first device between root and its disk whose type begins so."""
        return next((one for one in self.stack if one.type.startswith(kinds)), None)

    def is_mapping(self, name: str) -> bool:
        """Tell whether a kernel's name such as dm-0 may be that of root's mapping."""
        plain = WHOLE_DISK.fullmatch(disk_of(self.root) or self.root)  # as no mapping is called
        if plain or not self.stack or not re.fullmatch(r"dm-\d+", name):
            return False
        shown = re.search(r" 25\d:(\d+) ", self.stack[0].at.text)
        return shown is None or name == f"dm-{shown[1]}"

    @property
    def raid(self) -> Device | None:
        """The array that root lies on."""
        for device in self.stack:
            if device.type.startswith(("raid", "md", "linear")) or re.match(r"md\d", device.name):
                return device
        return None

    # ---- sizes ----

    def size_of(self, name: str) -> int | None:
        """Return a device's size as the kernel, or else the table on the disk, has it."""
        device = self.devices.get(name)
        if device is not None and device.size_bytes is not None:
            return device.size_bytes
        for table in reversed(self.facts.tables):
            if table.disk == name and table.size_bytes:
                return table.size_bytes
            for part in table.parts:
                if part.name == name:
                    return part.size_bytes
        volumes = [one for one in self.facts.volumes if (one.kind, one.name) == ("lv", name)]
        return volumes[-1].size_bytes if volumes else None

    def sizes_of(self, name: str) -> list[Device]:
        """Return what listings show of a device, in order."""
        return [one for one in self.facts.devices if one.name == name and one.size_bytes]

    @cached_property
    def written(self) -> int:
        """The order of the last event that changed root's partition in the table; -1 if none did."""
        changed = self.changes + self.all(Kind.GREW)
        orders = [one.at.order for one in changed if one.partition == self.partition]
        return max((*self._edits[0], *orders), default=-1)

    @cached_property
    def _edits(self) -> tuple[list[int], list[int]]:
        """The orders of changes by hand to root's table: of those that were written, and of others."""
        return self.table_edits(self.about_root)

    def outdated(self, shown: Line) -> bool:
        """Tell whether a line shows root's partition as it was before it changed."""
        return shown.number > 0 and shown.order < self.written

    @property
    def tabled(self) -> list[Device]:
        """Root's partition as tables show it, in order; three digits are exact to 1%."""
        return [
            Device(part.name, part.size_bytes, "part", table.disk, (), "", table.at, slack)
            for table in self.facts.tables
            for part in table.parts
            for slack in [part.end_bytes // 50 if table.rounded else 0]
            if part.name == self.partition
        ]

    @property
    def in_image(self) -> Device | None:
        """Root's partition in a listing of the image file that the disk was made from.

        It is its image's if another partition has the same size in both.
        """
        for table in reversed(self.facts.images):
            parts = {one.name.removeprefix(IMAGE_DISK): one for one in table.parts}
            root = parts.pop(self.number, None)
            for number, one in parts.items():
                beside = self.devices.get(partition_name(self.disk, number))
                listed = (beside and beside.size_bytes) or 0
                if root and beside and abs(listed - one.size_bytes) <= beside.tolerance_bytes:
                    return Device(root.name, root.size_bytes, "part", "", (), "", table.at)
        return None

    @cached_property
    def table(self) -> Table | None:
        """The newest partition table that has root's partition, unless it was changed since."""
        found = [
            one
            for one in self.facts.tables
            if one.disk == self.disk and any(part.name == self.partition for part in one.parts)
        ]
        draft = min(self._edits[1], default=1 << 62)
        found = [one for one in found if one.at.order < draft and not self.outdated(one.at)]
        exact = [one for one in found if not one.rounded]
        return next(reversed(exact or found), None) or self._listed_table

    @cached_property
    def _listed_table(self) -> Table | None:
        """What the column START of lsblk shows of the table, where it has all partitions."""
        disk, listed = self.devices.get(self.disk), self._listed_parts
        slack = max((one.tolerance_bytes for one in listed), default=0)
        if disk is None or slack > (disk.size_bytes or 0) // 100:
            return None
        table = Table(disk.name, disk.at, rounded=slack > 0)
        for one in listed:
            if one.start_bytes is None:
                return None
            kind = "Extended" if one.size_bytes == _EXTENDED_BYTES else one.fstype
            end_bytes = one.start_bytes + (one.size_bytes or 0)
            if kind == "Extended":  # it reaches at least to the end of what is in it
                logical = (one for one in listed if int(number_of(one.name) or 0) >= FIRST_LOGICAL)
                ends = ((one.start_bytes or 0) + (one.size_bytes or 0) for one in logical)
                end_bytes = max([end_bytes, *ends])
            table.parts.append(Part(one.name, one.start_bytes, end_bytes, kind))
        return table

    @property
    def _listed_parts(self) -> list[Device]:
        """The partitions of root's disk in listings; none where a size is missing or outdated."""
        found = [one for one in self.devices.values() if disk_of(one.name) == self.disk != ""]
        known = all(one.size_bytes is not None and not self.outdated(one.at) for one in found)
        return found if known else []

    @property
    def part(self) -> Part | None:
        """Root's partition in that table."""
        parts = self.table.parts if self.table else ()
        return next((one for one in parts if one.name == self.partition), None)

    @property
    def label(self) -> str:
        """``gpt``, ``dos`` or empty."""
        labels = [one.label for one in self.facts.tables if one.disk == self.disk and one.label]
        return labels[-1] if labels else ""

    @property
    def mbr_limit_bytes(self) -> int:
        """The last byte that an MBR on root's disk reaches: it counts sectors in 32 bits."""
        sizes = [one.sector_bytes for one in self.facts.tables if one.disk == self.disk]
        return MBR_LIMIT_BYTES // SECTOR_BYTES * (sizes[-1] if sizes else SECTOR_BYTES)

    @cached_property
    def room(self) -> Room:
        """What lies behind the root partition."""
        table, part = self.table, self.part
        disk_bytes = self.size_of(self.disk)
        if table is None or part is None or disk_bytes is None:
            return self._listed_room(disk_bytes)
        shown = self.devices.values() if table is self._listed_table else ()
        lines = {one.name: one.at for one in shown}
        return room_behind(table, part, disk_bytes, lines)

    def may_follow(self, name: str) -> bool:
        """Tell whether a partition may lie behind root's, by its number."""
        number = number_of(name) if disk_of(name) == self.disk and self.number else ""
        return bool(number) and int(self.number) < int(number) < _EARLY_NUMBERS

    @property
    def followed(self) -> bool:
        """Whether another partition may lie behind root's."""
        return self.room.behind is not None or any(map(self.may_follow, self.devices))

    def has_room_after(self, size_bytes: int) -> bool:
        """Tell whether root is of that size and known to have room right behind it."""
        now, free = self.size_of(self.partition) or 0, self.room.free_bytes
        followed = any(map(self.may_follow, self.devices)) if free is None else not free
        return abs(now - size_bytes) < now * 0.02 and bool(self.room.some) and not followed

    def _listed_room(self, disk_bytes: int | None) -> Room:
        disk, parts = self.devices.get(self.disk), self._listed_parts
        if disk_bytes is None or disk is None or not parts or disk.size_bytes is None:
            return Room(None, None, None, ())
        free = disk_bytes - sum(one.size_bytes or 0 for one in parts)
        tolerance = disk.tolerance_bytes + sum(one.tolerance_bytes for one in parts)
        # Without starts, what lies between partitions looks like room behind them.
        slack = max(4 * ALIGNMENT_BYTES, disk_bytes // 100)
        free = free if free > tolerance + slack else 0
        part = self.devices.get(self.partition)
        if free and part is None and self.partition:
            return Room(None, None, None, ())
        shown = (disk.at, part.at) if part else (disk.at,)
        return Room(None if free else 0, free, None, shown)

    # ---- the filesystem ----

    @property
    def fstype(self) -> str:
        """The root filesystem's type; empty if unknown."""
        names = ["zfs"] if self.zfs_dataset else [one.fstype for one in reversed(self.root_mounts)]
        names += [self.devices[self.root].fstype] if self.root in self.devices else []
        names += self.facts.types_of(self.root)
        said = self.all(Kind.RESIZED, Kind.FORKED, Kind.UNSUPPORTED)
        names += [one.get("fstype") for one in said]
        counted = (one for one in self.all(Kind.BLOCKS) if one.get("target"))  # by tune2fs
        names += ["ext4" for one in counted if short_name(one.get("target")) in {"/", self.root}]
        for one in self.all(Kind.KERNEL, Kind.MOUNTED):
            if self.is_root(one.get("device", "btrfs", "xfs")):
                names.append("xfs" if one.get("xfs") else "btrfs" if one.get("btrfs") else "ext4")
        names += ["xfs" for one in self.events if re.search("xfs_growfs(?!.*is not)", one.at.text)]
        return next((one for one in names if one and one not in _IMMUTABLE), "")

    @cached_property
    def filesystem(self) -> Mount | None:
        """The newest measurement of the root filesystem's size."""
        sized = [one for one in self.root_mounts if one.size_bytes]
        if self.fstype == "btrfs":
            counted = (one for one in self.facts.mounts if one.mountpoint == "btrfs")
            sized += [one for one in counted if short_name(one.source) in {"", self.root}]
        for event in self.all(Kind.GROWFS):
            if event.get("mount") in {"/", "/sysroot"}:
                sized.append(Mount(self.root, "/", event.at, size_in(event.get("size"))))
        for event in self.all(Kind.IDLE, Kind.TOOL, Kind.BLOCKS):
            target = short_name(event.get("target", "device"))
            mine = {"/", self.root, self.partition}
            mine |= set() if event.get("count") or event.kind is Kind.BLOCKS else {""}
            if event.bytes_named and self.root and target in mine:
                sized.append(Mount(self.root, "/", event.at, event.bytes_named, exact=True))
        return max(sized, key=lambda one: one.at.order, default=None)

    def shown_after(self, at: Line, least_bytes: float) -> bool:
        """Tell whether the root filesystem is larger than that later in a line's own file."""
        larger = (one.at for one in self.root_mounts if (one.size_bytes or 0) > least_bytes)
        return any(one.file == at.file and one.order > at.order for one in larger)

    def fills(self, device_bytes: int | None) -> bool | None:
        """Tell whether the root filesystem fills a device of that size; None if undecided."""
        return self._fills(self.filesystem, device_bytes)

    @staticmethod
    def _fills(mount: Mount | None, device_bytes: int | None) -> bool | None:
        if mount is None or not mount.size_bytes or not device_bytes:
            return None
        share = mount.size_bytes / device_bytes
        full, not_full = _EXACT if mount.exact else (_FULL, _NOT_FULL)
        return True if share >= full else False if share < not_full else None

    @property
    def user_data(self) -> UserData | None:
        """The user-data, the last one if there are several."""
        return self.facts.user_data[-1] if self.facts.user_data else None

    def switched_off(self, *path: str) -> bool:
        """Tell whether user-data sets a value to no, whether cloud-init reads it or not."""
        value: object = self.user_data.values if self.user_data else None
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return str(value).lower() in OFF_WORDS

    @property
    def wished(self) -> bool:
        """Whether user-data lists root's partition for growpart, or a link that may be to it."""
        settings = self.user_data.values.get("growpart") if self.user_data else None
        devices = settings.get("devices") if isinstance(settings, dict) else None
        devices = [devices] if isinstance(devices, str) else devices
        for entry in map(str, devices if isinstance(devices, list) else ()):
            name = short_name(entry)
            named = disk_of(name) or name in self.devices or not entry.startswith("/dev/")
            if entry == "/" or name in {self.partition, self.root} or not named:
                return True
        return False

    def despite(self, *path: str) -> Reason | None:
        """Return why something grew that user-data switched off."""
        ignored = self.last(Kind.IGNORED) or (self.user_data and not self.user_data.valid)
        return Reason.USER_DATA_IGNORED if ignored and self.switched_off(*path) else None


_NOWHERE = Line("", 0, "")


def _completed(device: Device, other: Device, *names: str) -> Device:
    """Return a device with missing values filled in from another listing."""
    return replace(device, **{one: getattr(device, one) or getattr(other, one) for one in names})
