"""What listings, tables and user-data say about a machine's storage, as typed facts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cloudlab.explanation.evidence import Document, Line
from cloudlab.explanation.names import (
    CONTAINERS,
    IMAGE,
    IMAGE_DISK,
    disk_of,
    fstype_in,
    rounding,
    short_name,
    size_in,
)
from cloudlab.explanation.tables import Part, Table, read_tables
from cloudlab.seed.check import Document as Yaml
from cloudlab.seed.check import is_cloud_config, read_document
from cloudlab.sizes.lines import PROMPT, words_below
from cloudlab.units import SECTOR_BYTES

_SIZE = r"<?[\d.]+ ?[BKMGTPkmgt]?i?B?"
_SIZED, _FREE = rf"\s+(?P<size>{_SIZE})", rf"\s+(?P<free>{_SIZE})"
_TESTED_LINES = 5  # of LVM's output where it changes nothing
_CHANGED = rf"changed from (?P<old>{_SIZE}) .* to{_SIZED} \("
# What pvdisplay, vgdisplay and lvdisplay say, a line each.
_DISPLAYED = re.compile(r"\s+([PVL][VGE] (?:Name|Size)|Free +PE(?: / Size)?)\s+(\S.*)")
# Rows of pvs, vgs, lvs and zpool list.
_VOLUMES = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("pv", rf"\s+(?P<name>/dev/\S+)\s+(?P<group>\S+)\s+lvm2\s+\S+{_SIZED}{_FREE}\s*$"),
        ("pv", r'\s+Physical volume "(?P<name>/dev/\S+)" changed'),
        ("vg", rf"\s+(?P<group>\S+)\s+\d+\s+\d+\s+\d+\s+[rwxpcs-]+z\S*{_SIZED}{_FREE}\s*$"),
        ("lv", rf"\s+(?P<name>\S+)\s+(?P<group>\S+)\s+[-a-zA-Z]{{10}}{_SIZED}(?:\s|$)"),
        ("lv", rf"\s+Size of logical volume (?P<group>[^/]+)/(?P<name>\S+) {_CHANGED}"),
        ("pool", rf"(?P<group>\S+){_SIZED}\s+{_SIZE}{_FREE}\s.*\b(?:ONLINE|DEGRADED)\b"),
    )
)
# What is mounted as root: rows of mount, findmnt, /proc/mounts, and findmnt -n.
_MOUNTS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<source>\S+) on / type (?P<type>\S+) \((?P<options>[^)]*)\)",
        r"/\s+(?P<source>\S+)\s+(?P<type>[a-z]\w+)\s+(?P<options>r[wo]\b\S*)",
        r"(?P<source>\S+)\s+/\s+(?P<type>[a-z]\w+)\s+(?P<options>\S+)\s+\d \d\s*$",
        r"(?P<source>/dev/\S+)\s+(?P<type>[a-z]\w+)\s+(?P<options>r[wo](?:,\S*)?)\s*$",
    )
)
_BTRFS_DEVICE = re.compile(rf"\s*devid\s+\d+ size ({_SIZE}) used \S+ path (/dev/\S+)")
_FINDMNT = re.compile(r"findmnt (?:.*\s)?(?:-\w*o|--output)[ =]?([A-Z][A-Z,%-]+)(?:\s+(/\S*))?\s*$")
_USER_DATA_KEYS = frozenset(
    str.split(
        "growpart resize_rootfs runcmd bootcmd packages write_files users hostname chpasswd "
        "ssh_authorized_keys package_update package_upgrade disk_setup fs_setup mounts fqdn"
    )
)
_PROMPT = re.compile(PROMPT + r" |[$#] \w")


@dataclass(frozen=True, slots=True)
class Device:
    """A block device, as a listing shows it at one moment.

    Attributes
    ----------
    name : str
        Without ``/dev/`` and ``mapper/``.
    size_bytes : int or None
    type : str
        disk, part, lvm, crypt, raid1 ...
    parent : str
        The device below it; empty where unknown.
    mounts : tuple of str
    fstype : str
    at : Line
    tolerance_bytes : int
        By how much rounding may have changed the size.
    start_bytes : int or None
        Where a partition begins on its disk; None where the listing does not show it.
    """

    name: str
    size_bytes: int | None
    type: str
    parent: str
    mounts: tuple[str, ...]
    fstype: str
    at: Line
    tolerance_bytes: int = 0
    start_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted filesystem; ``size_bytes`` as statfs counts, None where it is not shown.

    ``exact`` says that the size is its superblock's, all blocks included.
    """

    source: str
    mountpoint: str
    at: Line
    size_bytes: int | None = None
    available_bytes: int | None = None
    fstype: str = ""
    read_only: bool = False
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """A row of pvs, vgs, lvs or zpool list: ``kind`` is pv, vg, lv or pool.

    ``old_bytes`` is the size from which LVM says that it changed, else 0.
    """

    kind: str
    name: str
    group: str
    size_bytes: int
    free_bytes: int
    at: Line
    old_bytes: int = 0


@dataclass(frozen=True, slots=True)
class UserData:
    """The settings of a cloud-config that concern growth; ``valid`` if cloud-init reads it."""

    values: Mapping[str, Any]
    at: Line
    valid: bool


@dataclass
class Facts:
    """All facts of all documents, each list in order; ``images`` are tables of image files."""

    devices: list[Device] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    user_data: list[UserData] = field(default_factory=list)
    images: list[Table] = field(default_factory=list)

    @property
    def nameless(self) -> bool:
        """Whether no listing or table shows a device."""
        return not (self.devices or self.mounts or self.tables or self.volumes)

    def types_of(self, name: str) -> list[str]:
        """Return the types of a device's filesystem that btrfs and parted show."""
        shown = (one for one in self.mounts if one.mountpoint == "btrfs")
        types = [one.fstype for one in shown if short_name(one.source) == name != ""]
        parts = (part for table in self.tables for part in table.parts if part.name == name)
        return types + [fstype_in(one.type) for one in parts]


def read_facts(documents: list[Document]) -> Facts:
    """Return all facts, in order, and note in the documents what was recognised."""
    facts = Facts()
    readers: tuple[tuple[str, list[Any], Callable[[Document], Iterator[Any]]], ...] = (
        ("partition table", facts.tables, read_tables),
        ("LVM or ZFS listing", facts.volumes, _volumes),
        ("mounts", facts.mounts, _mounts),
        ("mounts", facts.mounts, _chosen_columns),
        ("lsblk", facts.devices, _without_sizes),
        ("user-data", facts.user_data, _user_data),
    )
    for document in documents:
        _read_listings(document, facts)
        _read_layout(document, facts)
        rows = list(_without_header(document, {one.at for one in facts.devices}))
        facts.devices += rows
        document.kinds |= {"lsblk"} if rows else set()
        found = [(kind, known, list(read(document))) for kind, known, read in readers]
        for kind, known, new in found:
            known.extend(new)
            document.kinds |= {kind} if new else set()
    for place, one in enumerate(facts.mounts):
        if IMAGE.fullmatch(one.source) or IMAGE.fullmatch(one.fstype):
            facts.mounts[place] = replace(one, size_bytes=None, available_bytes=None)
    facts.images = [one for one in facts.tables if one.disk == IMAGE_DISK]
    facts.tables = [one for one in facts.tables if one.disk != IMAGE_DISK]
    for shown in (facts.devices, facts.mounts, facts.tables):
        shown.sort(key=lambda one: one.at.order)
    return facts


# ---- lsblk, df, /proc/partitions ----


class _Tree:
    """Parents of devices, from how far their names are indented."""

    def __init__(self) -> None:
        self._above: list[tuple[int, str]] = []

    def parent(self, depth: int, name: str) -> str:
        """Return the device below which a name at this depth stands, else its own disk."""
        while self._above and self._above[-1][0] >= depth:
            self._above.pop()
        parent = self._above[-1][1] if self._above else disk_of(name)
        self._above.append((depth, name))
        return parent


def _read_listings(document: Document, facts: Facts) -> None:
    reports = document.parsed.reports if document.parsed else ()
    texts = {line.number: line for line in document.lines}
    for report in reports:
        tree, first = _Tree(), len(facts.devices)
        names = {"", *(row.name for row in report.lsblk)}
        for row in report.lsblk:
            at = texts.get(row.line) or Line(document.name, row.line, row.name)
            depth = at.text.find(row.name)
            parent, shown = tree.parent(depth, row.name), row.cells.get("PKNAME")
            parent = (
                parent if shown is None or short_name(shown) not in names else short_name(shown)
            )
            fstype = fstype_in(at.text, max(depth, 0) + len(row.name))
            fstype = row.cells.get("FSTYPE") or fstype
            kind = row.type or ("part" if disk_of(row.name) else "disk")
            tolerance = 0 if report.exact else rounding(row.size_bytes)
            # Xen may have no xvda below its xvda1.
            parent = "" if kind == "disk" and parent == disk_of(row.name) else parent
            about = row.name, row.size_bytes, kind, parent, row.mountpoints, fstype
            start = row.cells.get("START", "")  # the kernel counts it in 512 bytes on every disk
            start_bytes = int(start) * SECTOR_BYTES if start.isdigit() else None
            if at.text:  # else it is a hypervisor's
                facts.devices.append(Device(*about, at, tolerance, start_bytes))
                size, free = (row.cells.get(one, "") for one in ("FSSIZE", "FSAVAIL"))
                sizes = size_in(size) or None, size_in(free) if free else None
                for point in row.mountpoints if size else ():
                    facts.mounts.append(Mount(row.name, point, at, *sizes, fstype))
                document.kinds.add("lsblk")
        rows = facts.devices[first:]
        if any(disk_of(one.parent) == one.name for one in rows):  # lsblk -s: what is below follows
            below = {one.parent: one.name for one in rows}
            facts.devices[first:] = [replace(one, parent=below.get(one.name, "")) for one in rows]
        for mount in report.df:
            name = mount.filesystem or ""
            at = texts.get(mount.line) or Line(document.name, mount.line, name)
            document.kinds.add("df")
            if at.text and mount.mountpoint:
                sizes = mount.size_bytes, mount.available_bytes
                facts.mounts.append(Mount(name, mount.mountpoint, at, *sizes, fstype_in(at.text)))
    for line in document.lines:  # /proc/partitions counts in KiB
        if match := re.fullmatch(r"\s*\d+\s+\d+\s+(\d{4,})\s+([a-z][\w-]*)", line.text):
            disk = disk_of(match[2])
            about = match[2], int(match[1]) << 10, "part" if disk else "disk", disk, (), ""
            facts.devices.append(Device(*about, line))
            document.kinds.add("/proc/partitions")


def _without_sizes(document: Document) -> Iterator[Device]:
    """Yield the rows of ``lsblk -f`` and ``blkid``, which show filesystems and mount points only."""
    tree, header, row = None, "", None
    for line in document.lines:
        if match := re.match(r'(/dev/\S+): .*\bTYPE="(\w+)"', line.text):
            name = short_name(match[1])
            yield Device(name, None, "part" if disk_of(name) else "", "", (), match[2], line)
        words = line.text.split()
        below = words_below(header, "MOUNTPOINT", line.text)
        mounts = tuple(one for one in below if one.startswith("/") or one == "[SWAP]")
        if row and re.fullmatch(r"[ │|]+/\S*", line.text):  # one more mount point
            row = replace(row, mounts=row.mounts + mounts)
            continue
        yield from filter(None, [row])
        match, row = re.match(rf"[ │├└─|`-]*({_DEVICE})", line.text), None
        if "NAME" in words and "FSTYPE" in words and "SIZE" not in words:
            tree, header = _Tree(), line.text
            continue
        if tree is None or match is None or _PROMPT.match(line.text):
            tree = None
            continue
        name, depth = match[1], match.start(1)
        kind = "part" if disk_of(name) else ("disk" if depth == 0 else "dm")
        parent, fstype = tree.parent(depth, name), fstype_in(line.text, match.end())
        row = Device(name, None, kind, parent, mounts, fstype, line)
    yield from filter(None, [row])


# A multipath device's name may be a long number.
_DEVICE = r"(?:[A-Za-z]|\d\w{8})[\w.+:-]*"
_ROW = re.compile(
    rf"[ │├└─|`-]*(?P<name>{_DEVICE})\s+\d+:\d+\s+[01]\s+(?P<size>[\d.,]+[BKMGTP]?)\s+[01]\s+"
    r"(?P<type>disk|part|lvm|crypt|raid\d+|mpath|linear|md)(?:\s+(?P<mount>/\S*|\[SWAP\]))?\s*$"
)


def _without_header(document: Document, known: set[Line]) -> Iterator[Device]:
    """Yield rows of ``lsblk`` that were pasted without their header, and disks of FreeBSD's geom."""
    tree, geom = _Tree(), ""
    for line in document.lines:
        if match := re.match(r"(?:Geom name: )?(?!cd)([a-z]+\d+)$", line.text):
            geom = match[1]
        elif geom and (
            match := re.match(r"\s+(?:Mediasize: )?(\d+) +(?:\(|# mediasize in b)", line.text)
        ):
            yield Device(geom, int(match[1]), "disk", "", (), "", line)
            geom = ""
        match = _ROW.match(line.text)
        if match is None or line in known:
            tree = _Tree()
            continue
        name, size_bytes = match["name"], size_in(match["size"].replace(",", "."))
        about = tree.parent(match.start("name"), name), tuple(filter(None, [match["mount"]])), ""
        yield Device(name, size_bytes, match["type"], *about, line, rounding(size_bytes))


# ---- disk images ----


def _read_layout(document: Document, facts: Facts) -> None:
    """Take what ``inspect`` read off a disk image, under the name of a virtual disk."""
    layout = document.layout
    if layout is None:
        return
    place = Line(document.name, 0, f"{layout.format}, {layout.virtual_size_bytes:,} bytes")
    table = Table("disk", place, layout.virtual_size_bytes, layout.table or "")
    facts.devices.append(Device("disk", layout.virtual_size_bytes, "disk", "", (), "", place))
    largest = max(layout.partitions, key=lambda one: one.size_bytes, default=None)
    for one in layout.partitions:
        name = f"disk{one.number}" if one.number is not None else "disk"
        filesystem = one.filesystem
        text = f"{name}: {one.size_bytes:,} bytes, {filesystem.type if filesystem else one.type}"
        at = place._replace(text=text)
        fstype = filesystem.type if filesystem else ""
        no_root = fstype in {"", "swap"} or fstype.endswith(CONTAINERS)
        mounts = ("/",) if one is largest and not no_root else ()
        parent = "disk" if one.number is not None else ""
        kind = "part" if parent else "disk"
        facts.devices.append(Device(name, one.size_bytes, kind, parent, mounts, fstype, at))
        if one.number is not None:
            table.parts.append(Part(name, one.start_bytes, one.end_bytes, one.type_name))
        if mounts and filesystem and filesystem.size_bytes:
            facts.mounts.append(Mount(name, "/", at, filesystem.size_bytes, None, fstype))
    facts.tables.append(table)


# ---- LVM, ZFS ----


def _volumes(document: Document) -> Iterator[Volume]:
    shown, tested = defaultdict[str, str](str), -_TESTED_LINES
    for line in document.lines:
        tested = line.number if "TEST MODE" in line.text else tested
        if match := _DISPLAYED.match(line.text):
            key = " ".join(match[1].split())
            shown[key] = match[2]
            yield from _displayed(key, shown, line)
            continue
        for kind, pattern in _VOLUMES:
            match = pattern.match(line.text)
            if match and not ("old" in pattern.groupindex and line.number - tested < _TESTED_LINES):
                values = {"group": ""} | match.groupdict()
                name, holder = short_name(values.get("name", values["group"])), values["group"]
                if kind == "lv":
                    name = short_name(f"/dev/{holder}/{name}")
                sizes = [size_in(values.get(one, "")) for one in ("size", "free", "old")]
                yield Volume(kind, name, holder, sizes[0], sizes[1], line, sizes[2])
                break


def _displayed(key: str, shown: Mapping[str, str], at: Line) -> Iterator[Volume]:
    """Yield what pvdisplay, vgdisplay or lvdisplay has shown, at the line that ends it."""
    group = shown["VG Name"]
    if key == "LV Size":
        name = shown["LV Name"].rpartition("/")[2]  # an old lvdisplay has the path
        name = short_name(f"/dev/{group}/{name}")
        yield Volume("lv", name, group, size_in(shown[key]), 0, at)
    elif key == "Free PE":
        size_bytes = size_in(shown["PV Size"].partition("/")[0])
        free_bytes = int(shown[key]) * size_in(shown["PE Size"]) if shown[key].isdigit() else 0
        yield Volume("pv", short_name(shown["PV Name"]), group, size_bytes, free_bytes, at)
    elif key == "Free PE / Size":
        free_bytes = size_in(shown[key].partition("/")[2])
        yield Volume("vg", group, group, size_in(shown["VG Size"]), free_bytes, at)


# ---- mounts, btrfs ----


def _mounts(document: Document) -> Iterator[Mount]:
    point, resized = "", None
    for line in document.lines:
        match = next(filter(None, (one.match(line.text) for one in _MOUNTS)), None)
        if match is not None:
            read_only = match["options"].split(",")[0] == "ro"
            yield Mount(match["source"], "/", line, None, None, match["type"], read_only)
        elif match := re.search(r"Filesystem at (/dev/\S+) is mounted on /; ", line.text):
            yield Mount(match[1], "/", line)
        elif match := _BTRFS_DEVICE.match(line.text):
            yield Mount(match[2], "btrfs", line, size_in(match[1]), None, "btrfs")
        elif match := re.match(rf"\s+Device size:\s+({_SIZE})", line.text):
            yield Mount(point, "btrfs", line, size_in(match[1]), None, "btrfs")
        elif match := re.search(r"btrfs f\w* us\w* (?:-\w+ )*(/\S+)", line.text):
            point = match[1]  # another than /
        elif re.search(r"xfs_(?:growfs|info) (?:-\w+ )*/$", line.text):
            resized = line
        elif (
            resized
            and line.soon_after(resized, 2)  # mkfs.xfs prints such a line, too
            and (match := re.match(r"meta-data=(/dev/\S+)", line.text))
        ):
            yield Mount(match[1], "/", line, fstype="xfs")


def _chosen_columns(document: Document) -> Iterator[Mount]:
    """Yield root's rows of ``findmnt -o``, with or without its header."""
    columns: list[str] = []
    point = ""
    for line in document.lines:
        words = line.text.split()
        if command := _FINDMNT.search(line.text):
            columns, point = command[1].split(","), command[2] or ""
        elif not words or _PROMPT.match(line.text):
            columns = []
        elif columns and words[0] != columns[0]:
            values = defaultdict(str, {"TARGET": point} | dict(zip(columns, words, strict=False)))
            if (target := values["TARGET"]) in {"/", "/sysroot"}:
                about = target, line, size_in(values["SIZE"]) or None, None, values["FSTYPE"]
                yield Mount(values["SOURCE"], *about, values["OPTIONS"].startswith("ro"))


# ---- user-data ----


def _user_data(document: Document) -> Iterator[UserData]:
    """Yield cloud-configs: a whole text, or what follows ``#cloud-config`` in a paste."""
    lines, begun = document.lines, False
    for line, text in document.cloud_configs():
        found, begun = read_document(text), True
        yield UserData(
            found.value if isinstance(found, Yaml) else {}, line, isinstance(found, Yaml)
        )
    if not begun and 0 < len(lines) < 5000 and not document.kinds:  # noqa: PLR2004
        text = "\n".join(line.text for line in lines)
        found = read_document(text)
        if isinstance(found, Yaml) and _USER_DATA_KEYS & found.value.keys():
            yield UserData(found.value, lines[0], is_cloud_config(text))
