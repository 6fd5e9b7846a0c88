"""What listings, tables and user-data say about a machine's storage, as typed facts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudlab.errors import ParseError
from cloudlab.explanation.evidence import Document, Line
from cloudlab.seed.check import Document as Yaml
from cloudlab.seed.check import is_cloud_config, read_document
from cloudlab.sizes import parse_size

_FSTYPE = re.compile(
    r"(?<![\w./-])(ext[234]|xfs|btrfs|vfat|f2fs|zfs_member|zfs|LVM2_member|crypto_LUKS|swap|ufs"
    r"|linux_raid_member|squashfs|overlay|bcachefs|ntfs|jfs|erofs|composefs|reiserfs|nilfs2)(?![\w-])"
)
_SIZE = r"<?([\d.]+ ?[BKMGTPkmgt]?i?B?)"
_USER_DATA_KEYS = frozenset(
    str.split(
        "growpart resize_rootfs runcmd bootcmd packages write_files users hostname chpasswd "
        "ssh_authorized_keys package_update package_upgrade disk_setup fs_setup mounts fqdn"
    )
)
_SECTOR_SIZE = re.compile(r"[Ss]ector[ -]size(?: \(logical(?:/physical)?\))?: (\d+)")
_LABEL = re.compile(r"(?:Disklabel type|Disk label type|Partition Table|label): (\w+)")
# A root prompt looks like a comment; in MIME a boundary follows.
_AFTER_USER_DATA = re.compile(
    r"--|# (?:lsblk|df|fdisk|growpart|cat|grep|pvs|vgs|lvs|dmesg|journalctl|cloud-init|parted)\b"
)
_PROMPT = re.compile(r"\[?[\w.-]+@[\w.-]+[^$#]{0,64}[$#] |[$#] \w")


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
    """

    name: str
    size_bytes: int | None
    type: str
    parent: str
    mounts: tuple[str, ...]
    fstype: str
    at: Line
    tolerance_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted filesystem; ``size_bytes`` as statfs counts, None where it is not shown."""

    source: str
    mountpoint: str
    at: Line
    size_bytes: int | None = None
    available_bytes: int | None = None
    fstype: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A partition in a table, in bytes; ``end_bytes`` is the first byte after it."""

    name: str
    start_bytes: int
    end_bytes: int
    type: str = ""

    @property
    def size_bytes(self) -> int:
        """Bytes from start to end."""
        return self.end_bytes - self.start_bytes


@dataclass
class Table:
    """A partition table as it is on the disk; what the kernel uses may differ."""

    disk: str
    at: Line
    size_bytes: int | None = None
    label: str = ""
    parts: list[Part] = field(default_factory=list)
    rounded: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """A row of pvs, vgs, lvs or zpool list: ``kind`` is pv, vg, lv or pool."""

    kind: str
    name: str
    group: str
    size_bytes: int
    free_bytes: int
    at: Line


@dataclass(frozen=True, slots=True)
class UserData:
    """The settings of a cloud-config that concern growth; ``valid`` if cloud-init reads it."""

    values: Mapping[str, Any]
    at: Line
    valid: bool


@dataclass
class Facts:
    """All facts of all documents, each list in order."""

    devices: list[Device] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    user_data: list[UserData] = field(default_factory=list)


def short_name(path: str) -> str:
    """Return a device's name without folders, as lsblk prints it; LVM's links become its names."""
    path = path.split("[", maxsplit=1)[0]
    name = path.removeprefix("/dev/").removeprefix("mapper/")
    if path.startswith("/dev/") and name.count("/") == 1 and not path.startswith("/dev/disk"):
        group, volume = name.split("/")
        if group not in {"md", "block", "zvol"}:
            return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"
    return name


def split_partition(name: str) -> tuple[str, str] | None:
    """Return the disk and the number that a partition's kernel name shows."""
    match = re.fullmatch(r"(.*\d)p(\d+)|((?:[hsv]|xv)d[a-z]+|das\w|mpath[a-z]+)(\d+)", name)
    return (match[1] or match[3], match[2] or match[4]) if match else None


def read_facts(documents: list[Document]) -> Facts:
    """Return all facts, in order, and note in the documents what was recognised."""
    facts = Facts()
    for document in documents:
        texts = {line.number: line for line in document.lines}
        at = document.lines[0] if document.lines else Line(document.name, 0, "")
        _read_listings(document, texts, facts)
        _read_layout(document, facts)
        before = _count(facts)
        facts.tables += _tables(document)
        facts.volumes += _volumes(document)
        facts.mounts += _mounts(document)
        facts.devices += _without_sizes(document)
        facts.user_data += _user_data(document, at)
        document.kinds |= {
            name for name, old, new in zip(_NAMES, before, _count(facts), strict=True) if new > old
        }
    return facts


_NAMES = ("partition table", "LVM or ZFS listing", "mounts", "lsblk", "user-data")


def _count(facts: Facts) -> tuple[int, ...]:
    lists: tuple[list[Any], ...] = (
        *(facts.tables, facts.volumes, facts.mounts, facts.devices, facts.user_data),
    )
    return tuple(len(one) for one in lists)


# ---- lsblk, df, /proc/partitions ----


def _read_listings(document: Document, texts: Mapping[int, Line], facts: Facts) -> None:
    reports = document.parsed.reports if document.parsed else ()
    details = _json_details(document) if reports else {}

    def place(line: int, text: str | None) -> Line:
        return texts.get(line) or Line(document.name, line, text or "")

    for report in reports:
        stack: list[tuple[int, str]] = []
        for row in report.lsblk:
            at = place(row.line, row.name)
            depth = at.text.find(row.name)
            while stack and stack[-1][0] >= depth:
                stack.pop()
            split = split_partition(row.name)
            parent = (stack[-1][1] if stack else "") or (split[0] if split else "")
            fstype = _FSTYPE.search(at.text, max(depth, 0) + len(row.name))
            known = details.get(row.name) or (parent, fstype[1] if fstype else "")
            stack.append((depth, row.name))
            kind = row.type or ("part" if split else "disk")
            tolerance = 0 if report.exact else _rounding(row.size_bytes)
            if at.text:  # else it is a hypervisor's
                facts.devices.append(
                    Device(
                        row.name,
                        row.size_bytes,
                        kind,
                        known[0],
                        row.mountpoints,
                        known[1],
                        at,
                        tolerance,
                    )
                )
                document.kinds.add("lsblk")
        for mount in report.df:
            at = place(mount.line, mount.filesystem)
            typed = _FSTYPE.search(at.text)
            document.kinds.add("df")
            if at.text and mount.mountpoint:
                sizes = mount.size_bytes, mount.available_bytes
                name, fstype_name = mount.filesystem or "", typed[1] if typed else ""
                facts.mounts.append(Mount(name, mount.mountpoint, at, *sizes, fstype_name))
    for line in document.lines:  # /proc/partitions counts in KiB
        if match := re.fullmatch(r"\s*\d+\s+\d+\s+(\d{4,})\s+([a-z][\w-]*)", line.text):
            split = split_partition(match[2])
            kind, parent = ("part", split[0]) if split else ("disk", "")
            facts.devices.append(Device(match[2], int(match[1]) << 10, kind, parent, (), "", line))
            document.kinds.add("/proc/partitions")


def _rounding(size_bytes: int) -> int:
    unit = 1
    while unit << 10 <= size_bytes:
        unit <<= 10
    return unit * 51 // 1000


def _json_objects(document: Document, key: str) -> Iterator[Any]:
    """Yield the values of JSON objects that have ``key`` first."""
    if not any(f'"{key}"' in line.text for line in document.lines):
        return
    text = "\n".join(line.text for line in document.lines)
    for match in re.finditer(r'\{\s*"' + key + '"', text):
        try:
            yield json.JSONDecoder().raw_decode(text, match.start())[0][key]
        except (ValueError, RecursionError, KeyError):
            continue


def _json_details(document: Document) -> dict[str, tuple[str, str]]:
    """Return parent and filesystem type by device, from ``lsblk -J``."""
    found: dict[str, tuple[str, str]] = {}

    def walk(devices: Any, parent: str, depth: int) -> None:
        for one in devices if isinstance(devices, list) and depth < 20 else ():  # noqa: PLR2004
            if isinstance(one, dict):
                name = short_name(str(one.get("name") or one.get("path") or ""))
                found[name] = parent, str(one.get("fstype") or "")
                walk(one.get("children"), name, depth + 1)

    for devices in _json_objects(document, "blockdevices"):
        walk(devices, "", 0)
    return found


def _without_sizes(document: Document) -> Iterator[Device]:
    """Yield the rows of ``lsblk -f``, which show filesystems and mount points only."""
    reading = False
    stack: list[tuple[int, str]] = []
    for line in document.lines:
        words = line.text.split()
        if "NAME" in words and "FSTYPE" in words and "SIZE" not in words:
            reading, stack = True, []
            continue
        match = re.match(r"[ │├└─|`-]*([A-Za-z][\w.+:-]*)", line.text)
        if not reading or match is None or _PROMPT.match(line.text):
            reading = False
            continue
        depth = match.start(1)
        while stack and stack[-1][0] >= depth:
            stack.pop()
        name = match[1]
        split = split_partition(name)
        fstype = _FSTYPE.search(line.text, match.end())
        mounts = tuple(word for word in words[1:] if word.startswith("/") or word == "[SWAP]")
        kind = "part" if split else ("disk" if depth == 0 else "dm")
        yield Device(
            name,
            None,
            kind,
            stack[-1][1] if stack else split[0] if split else "",
            mounts,
            fstype[1] if fstype else "",
            line,
        )
        stack.append((depth, name))


# ---- partition tables ----


def _read_layout(document: Document, facts: Facts) -> None:
    """Take what ``inspect`` read off a disk image, under the name of a virtual disk."""
    layout = document.layout
    if layout is None:
        return
    place = Line(document.name, 0, f"{layout.format}, {layout.virtual_size_bytes} bytes")
    table = Table("disk", place, layout.virtual_size_bytes, layout.table or "")
    facts.devices.append(Device("disk", layout.virtual_size_bytes, "disk", "", (), "", place))
    largest = max(layout.partitions, key=lambda one: one.size_bytes, default=None)
    for one in layout.partitions:
        name = f"disk{one.number}" if one.number is not None else "disk"
        filesystem = one.filesystem
        root = one is largest and filesystem is not None and filesystem.type != "swap"
        text = f"{name}: {one.size_bytes} bytes, {filesystem.type if filesystem else one.type}"
        at = place._replace(text=text)
        fstype = filesystem.type if filesystem else ""
        mounts = ("/",) if root and not fstype.endswith(("_member", "_LUKS")) else ()
        parent = "disk" if one.number is not None else ""
        kind = "part" if parent else "disk"
        facts.devices.append(Device(name, one.size_bytes, kind, parent, mounts, fstype, at))
        if one.number is not None:
            table.parts.append(Part(name, one.start_bytes, one.end_bytes, one.type_name))
        if mounts and filesystem and filesystem.size_bytes:
            facts.mounts.append(Mount(name, "/", at, filesystem.size_bytes, None, fstype))
    facts.tables.append(table)


def _tables(document: Document) -> Iterator[Table]:
    for value in _json_objects(document, "partitiontable"):
        if (found := _sfdisk_json(value, document.lines[0])) is not None:
            yield found
    table, sector = None, 512
    for line in document.lines:
        if match := _SECTOR_SIZE.search(line.text):
            sector = int(match[1])
        elif (begun := _new_table(line, sector)) is not None:
            table = begun
            yield begun
        elif match := _LABEL.match(line.text):
            if table is not None:
                table.label = {"msdos": "dos"}.get(match[1], match[1])
        elif (part := _part(line.text, sector, table)) is not None:
            split = split_partition(part.name)
            if table is None or (split and split[0] != table.disk):
                table = Table(split[0] if split else "", line)
                yield table
            table.parts.append(part)


def _new_table(line: Line, sector: int) -> Table | None:
    """Return the table that begins in a line of fdisk, sfdisk, sgdisk or parted."""
    if match := re.match(r"Disk (/dev/\S+): .*, (\d+) bytes", line.text):
        return Table(short_name(match[1]), line, int(match[2]))
    if match := re.match(r"Disk (/dev/\S+): (\d+) sectors", line.text):
        return Table(short_name(match[1]), line, int(match[2]) * sector)
    if match := re.match(r"Disk (/dev/\S+): ([\d.]+[kKMGTs]?i?B?)\s*$", line.text):
        size_bytes = _parted_size(match[2], sector)
        return Table(short_name(match[1]), line, size_bytes, rounded=not match[2].endswith("s"))
    if match := re.match(r"device: (/dev/\S+)", line.text):
        return Table(short_name(match[1]), line)
    return None


def _part(text: str, sector: int, table: Table | None) -> Part | None:
    """Return the partition that a row of fdisk, sfdisk, sgdisk or parted shows."""
    if match := re.match(r"(/dev/\S+)\s+\*?\s+(\d+)\s+(\d+)\s+\d+\+?\s+(.*)", text):
        start, end = int(match[2]), int(match[3])
        name = short_name(match[1])
        return Part(name, start * sector, (end + 1) * sector, match[4]) if end > start else None
    if match := re.match(r"(/dev/\S+) : start= *(\d+), size= *(\d+), (?:type|Id)= *(\S+)", text):
        start = int(match[2]) * sector
        return Part(short_name(match[1]), start, start + int(match[3]) * sector, match[4])
    if table is None:
        return None
    if match := re.match(r" {0,4}(\d+)\s+(\d+)\s+(\d+)\s+[\d.]+ [KMGT]iB\s+(.*)", text):
        end = (int(match[3]) + 1) * sector
        return Part(_number_name(table.disk, match[1]), int(match[2]) * sector, end, match[4])
    if match := re.match(r" {0,3}(\d+)\s+([\d.]+[kKMGT]?i?[Bs])\s+([\d.]+[kKMGT]?i?[Bs])\s", text):
        start, end = (_parted_size(match[n], sector) for n in (2, 3))
        name = _number_name(table.disk, match[1])
        return Part(name, start, end, text[match.end() :].strip()) if end > start else None
    return None


def _number_name(disk: str, number: str) -> str:
    return f"{disk}p{number}" if disk[-1:].isdigit() else f"{disk}{number}"


def _parted_size(text: str, sector: int) -> int:
    if text.endswith("s"):
        return int(float(text[:-1]) * sector)
    return _size(text.replace("kB", "KB"))


def _size(text: str) -> int:
    """Return bytes; LVM's letters are powers of 1024 in either case."""
    text = text.strip().lstrip("<")
    try:
        return parse_size(text[:-1] + text[-1].upper() if text[-1:].isalpha() else text)
    except ParseError:
        return 0


def _sfdisk_json(value: Any, at: Line) -> Table | None:
    try:
        sector = int(value.get("sectorsize", 512))
        disk = short_name(str(value["device"]))
        table = Table(disk, at, None, str(value.get("label", "")))
        for one in value.get("partitions", ()):
            start = int(one["start"]) * sector
            end = start + int(one["size"]) * sector
            table.parts.append(Part(short_name(one["node"]), start, end, str(one.get("type", ""))))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return table


# ---- LVM, ZFS ----


def _volumes(document: Document) -> Iterator[Volume]:
    group, size = "", 0
    for line in document.lines:
        text = line.text
        if match := re.match(r"\s+VG (Name|Size)\s+(.+)", text):  # vgdisplay
            group, size = (match[2], 0) if match[1] == "Name" else (group, _size(match[2]))
        elif match := re.match(rf"\s+Free +PE / Size\s+\d+ / {_SIZE}", text):
            yield Volume("vg", group, group, size, _size(match[1]), line)
        elif match := re.match(
            rf"\s+(/dev/\S+)\s+(\S+)\s+lvm2\s+\S+\s+{_SIZE}\s+{_SIZE}\s*$", text
        ):
            yield Volume(
                "pv", short_name(match[1]), match[2], _size(match[3]), _size(match[4]), line
            )
        elif match := re.match(
            rf"\s+(\S+)\s+\d+\s+\d+\s+\d+\s+[rwxpcs-]+z\S*\s+{_SIZE}\s+{_SIZE}\s*$", text
        ):
            yield Volume("vg", match[1], match[1], _size(match[2]), _size(match[3]), line)
        elif match := re.match(rf"\s+(\S+)\s+(\S+)\s+[-a-zA-Z]{{10}}\s+{_SIZE}(?:\s|$)", text):
            name = f"{match[2].replace('-', '--')}-{match[1].replace('-', '--')}"
            yield Volume("lv", name, match[2], _size(match[3]), 0, line)
        elif match := re.match(
            rf"(\S+)\s+{_SIZE}\s+{_SIZE}\s+{_SIZE}\s.*\b(?:ONLINE|DEGRADED)\b", text
        ):
            yield Volume("pool", match[1], match[1], _size(match[2]), _size(match[4]), line)


# ---- mounts, btrfs ----


def _mounts(document: Document) -> Iterator[Mount]:
    for line in document.lines:
        text = line.text
        match = (
            re.match(r"(?P<source>\S+) on / type (?P<type>\S+) \((?P<options>[^)]*)\)", text)
            or re.match(r"/\s+(?P<source>\S+)\s+(?P<type>[a-z]\w+)\s+(?P<options>r[wo]\b\S*)", text)
            or re.match(
                r"(?P<source>\S+)\s+/\s+(?P<type>[a-z]\w+)\s+(?P<options>\S+)\s+\d \d\s*$", text
            )
            or re.match(
                r"(?P<source>/dev/\S+)\s+(?P<type>[a-z]\w+)\s+(?P<options>r[wo](?:,\S*)?)\s*$", text
            )
        )
        if match:
            read_only = match["options"].split(",")[0] == "ro"
            yield Mount(match["source"], "/", line, None, None, match["type"], read_only)
        elif match := re.match(rf"\s*devid\s+\d+ size {_SIZE} used \S+ path (/dev/\S+)", text):
            yield Mount(match[2], "btrfs", line, _size(match[1]), None, "btrfs")


# ---- user-data ----


def _user_data(document: Document, first: Line) -> Iterator[UserData]:
    """Yield cloud-configs: a whole text, or what follows ``#cloud-config`` in a paste."""
    starts = [
        number
        for number, line in enumerate(document.lines)
        if line.text.lower().startswith("#cloud-config")
    ]
    for start in starts[:20]:
        lines: list[str] = []
        for line in document.lines[start : start + 2000]:
            prompt = _PROMPT.match(line.text) and not line.text.startswith("# ")
            if lines and (prompt or _AFTER_USER_DATA.match(line.text)):
                break
            lines.append(line.text)
        found = read_document("\n".join(lines))
        values = found.value if isinstance(found, Yaml) else {}
        yield UserData(values, document.lines[start], isinstance(found, Yaml))
    if not starts and 0 < len(document.lines) < 5000 and not document.kinds:  # noqa: PLR2004
        text = "\n".join(line.text for line in document.lines)
        found = read_document(text)
        if isinstance(found, Yaml) and _USER_DATA_KEYS & found.value.keys():
            yield UserData(found.value, first, is_cloud_config(text))
