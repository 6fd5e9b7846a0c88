"""Partition tables, as fdisk, sfdisk, sgdisk, parted and gpart print them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from cloudlab.disk.growth import LEAST_GAIN_BYTES
from cloudlab.explanation.evidence import Document, Line
from cloudlab.explanation.names import (
    IMAGE_DISK,
    IMAGE_FILE,
    disk_of,
    partition_name,
    short_name,
    size_in,
)
from cloudlab.units import SECTOR_BYTES

#: A partition's start is aligned, and the table's copy takes some room.
ALIGNMENT_BYTES = 2 << 20

# The size of a disk, where sgdisk and parted count its sectors before they say how large those are.
_COUNTED = re.compile(r": (\d+)(?: sectors|s$)")
_LABEL = re.compile(
    r"(?:Disklabel type|Disk label type|Partition Table|label): (\w+)|[^/:\uff1a]+[:\uff1a] ?(gpt|(?:ms)?dos|loop)$"
)
# parted's heading in any language, and its only one where programs are to read it (-m).
_PARTED = re.compile(
    r"(?:\w+\s+)?(?P<disk>/dev/[^\s:\uff1a]+)\s?[:\uff1a]\s*(?P<size>[\d.,]+[kMGT]?i?[Bs])"
    r"(?:\s*$|:[\w-]*:(?P<sector>\d+):\d+:(?P<label>\w+):)"
)
# FreeBSD's "gpart show": a table's heading and its rows, in sectors.
_GPART = re.compile(
    r"=> +(?P<first>\d+) +(?P<count>\d+) +(?P<disk>\w+) +(?P<scheme>GPT|MBR|BSD) +"
    r"\((?P<size>[\d.]+[KMGTP])\)(?P<corrupt> +\[CORRUPT\])?"
)
_GPART_ROW = re.compile(
    r" +(\d+) +(\d+) +(\d+) +([a-z!][\w-]*) +(?:\[\w+\] +)?\([\d.]+[A-Z]?\)\s*$"
)
# Of fdisk and gdisk, where their input is not shown.
_OWN_PROMPT = re.compile(r"^(?:Expert c|C)ommand \([m?] for help\): ")
# In other languages fdisk's units show it, and parted's pair; fdisk's pairs may be of other sizes.
_SECTOR_SIZE = re.compile(
    r"[Ss]ector[ -]size(?: \(logical(?:/physical)?\))?: (\d+)"
    r"|[:\uff1a=] ?.*\b1 ?[*\u00d7] ?(\d+) ?=|\) ?[:\uff1a] ?(\d+)B/\d+B$"
)


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
    sector_bytes: int = SECTOR_BYTES


class Room(NamedTuple):
    """What lies behind the root partition.

    ``free_bytes`` is what it could take at once, ``disk_free_bytes`` what no partition of the
    disk takes; None where unknown.  ``behind`` is the next partition, if one keeps it from
    growing.
    """

    free_bytes: int | None
    disk_free_bytes: int | None
    behind: Part | None
    evidence: tuple[Line, ...]

    @property
    def some(self) -> bool | None:
        """Whether the disk has room that no partition takes; None if unknown."""
        return None if self.disk_free_bytes is None else self.disk_free_bytes > 0


def room_behind(table: Table, part: Part, disk_bytes: int, rows: Mapping[str, Line]) -> Room:
    """Return what lies behind a partition in its table, whose parts stand in these lines, if any."""
    disk_bytes = table.size_bytes or disk_bytes
    slack = ALIGNMENT_BYTES + (disk_bytes // 100 if table.rounded else 0)
    following = [one for one in table.parts if one.start_bytes > part.start_bytes]
    behind = min(following, key=lambda one: one.start_bytes, default=None)
    end = max(one.end_bytes for one in table.parts)
    free = (behind.start_bytes if behind else disk_bytes) - part.end_bytes
    blocked = behind is not None and free <= max(LEAST_GAIN_BYTES, slack // 2)
    listed = [rows[one.name] for one in (part, behind) if one and rows]
    return Room(
        free if free > slack else 0,
        disk_bytes - end if disk_bytes - end > slack else 0,
        behind if blocked else None,
        (table.at, *listed),
    )


def read_tables(document: Document) -> Iterator[Table]:
    """Yield the partition tables that a document shows."""
    for at, value in document.json_objects("partitiontable"):
        yield from filter(None, [_sfdisk_json(value, at)])
    table, sector, cylinder = None, SECTOR_BYTES, 0
    for line in document.without_plans():
        text = IMAGE_FILE.sub(f"/dev/{IMAGE_DISK}", line.text)
        cylinder = _cylinder_bytes(text, cylinder)
        if shown := _sector_bytes(text):
            sector = shown
            if table is not None and not table.parts:
                table.sector_bytes, counted = sector, _COUNTED.search(table.at.text)
                table.size_bytes = int(counted[1]) * sector if counted else table.size_bytes
        elif (begun := _new_table(text, line, table)) is not None:
            table, sector = begun, begun.sector_bytes
            yield begun
        elif match := _LABEL.match(text):
            if table is not None:
                label = match[1] or match[2]
                table.label = {"msdos": "dos"}.get(label, label)
        elif part := _part(text, sector, table, cylinder) or _gpart_row(text, table):
            disk = disk_of(part.name)
            if table is None or (disk and disk != table.disk):
                table = Table(disk, line)
                yield table
            table.rounded |= bool(cylinder)
            # "loop" is parted's word for a filesystem without a table.
            table.parts += [part] if table.label != "loop" else []


def _new_table(text: str, line: Line, before: Table | None) -> Table | None:
    """Return the table that begins in a line of fdisk, sfdisk, sgdisk or parted."""
    text = _OWN_PROMPT.sub("", text)
    if before is not None and text.startswith("New situation"):  # sfdisk shows the old one first
        return replace(before, at=line, parts=[], rounded=False)
    if match := re.match(r"\w+ (/dev/[^\s:\uff1a]+)\s?[:\uff1a].*?[,\uff0c]\s?(\d{6,})\s\w", text):
        return Table(short_name(match[1]), line, int(match[2]))
    if match := re.match(r"Disk (/dev/\S+): (\d+) sectors", text):
        return Table(short_name(match[1]), line, int(match[2]) * SECTOR_BYTES)
    if match := _PARTED.match(text):
        sector, label = int(match["sector"] or SECTOR_BYTES), match["label"] or ""
        about = line, _parted_size(match["size"], sector), label.removeprefix("ms")
        rounded = not re.fullmatch(r"\d+[Bs]", match["size"])
        return Table(short_name(match["disk"]), *about, rounded=rounded, sector_bytes=sector)
    if match := _GPART.match(text):
        return _gpart_table(match, line)
    match = re.match(r"device: (/dev/\S+)", text)
    return Table(short_name(match[1]), line) if match else None


def _gpart_table(shown: re.Match[str], line: Line) -> Table:
    """Return the table that a heading of ``gpart show`` begins, with the least size of its disk.

    The heading counts the table's sectors, and rounds the disk's size.
    """
    end = (int(shown["first"]) + int(shown["count"])) * SECTOR_BYTES
    unit = size_in("1" + shown["size"][-1])
    least = size_in(shown["size"]) - unit // (20 if "." in shown["size"] else 2)
    label = {"MBR": "dos"}.get(shown["scheme"], shown["scheme"].lower())
    return Table(shown["disk"], line, max(end, least) if shown["corrupt"] else end, label)


def _gpart_row(text: str, table: Table | None) -> Part | None:
    match = _GPART_ROW.match(text)
    if match is None or table is None:
        return None
    start, count = (int(match[n]) * SECTOR_BYTES for n in (1, 2))
    sign = {"dos": "s", "bsd": ""}.get(table.label, "p")
    index = match[3] if sign else chr(ord("a") + (int(match[3]) - 1) % 26)
    return Part(f"{table.disk}{sign}{index}", start, start + count, match[4])


def _part(text: str, sector: int, table: Table | None, cylinder: int) -> Part | None:
    """Return the partition that a row of fdisk, sfdisk, sgdisk or parted shows."""
    addresses = r"(?:\d+,\d+,\d+ +){0,2}"  # BusyBox's fdisk
    if match := re.match(rf"(/dev/\S+)\s+(?:\*\s+)?{addresses}(\d+)\s+(\d+)\s+\d+\+?\s+(.*)", text):
        start, end = int(match[2]), int(match[3])
        unit, first = cylinder or sector, 1 if cylinder else 0  # cylinders are counted from 1
        begin, stop = (start - first) * unit, (end + 1 - first) * unit
        return Part(short_name(match[1]), begin, stop, match[4]) if end > start else None
    if match := re.match(r"(/dev/\S+) : start= *(\d+), size= *(\d+), (?:type|Id)= *(\S+)", text):
        start = int(match[2]) * sector
        return Part(short_name(match[1]), start, start + int(match[3]) * sector, match[4])
    if table is None:
        return None
    if match := re.match(r" {0,5}(\d+)\s+(\d+)\s+(\d+)\s+[\d.]+ ?[KMGT](?:iB)?\s+(.*)", text):
        end = (int(match[3]) + 1) * sector
        return Part(partition_name(table.disk, match[1]), int(match[2]) * sector, end, match[4])
    size = r"(?:\s+|:)([\d.,]+[kKMGT]?i?[Bs])"
    if match := re.match(rf" {{0,3}}(\d+){size}{size}{size}(?![^\s:])", text):
        start, end, size_bytes = (_parted_size(match[n], sector) for n in (2, 3, 4))
        if not table.rounded:  # it is the last sector or byte
            end += _parted_size("1" + match[3][-1], sector)
        if end == start:  # both are rounded to one value
            end += size_bytes
        name = partition_name(table.disk, match[1])
        return Part(name, start, end, text[match.end() :].strip(":; ")) if end > start else None
    return None


def _sfdisk_json(value: Any, at: Line) -> Table | None:
    try:
        sector = int(value.get("sectorsize", SECTOR_BYTES))
        disk = short_name(str(value["device"]))
        table = Table(disk, at, None, str(value.get("label", "")))
        for one in value.get("partitions", ()):
            start = int(one["start"]) * sector
            end = start + int(one["size"]) * sector
            table.parts.append(Part(short_name(one["node"]), start, end, str(one.get("type", ""))))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return table


def _parted_size(text: str, sector: int) -> int:
    """Return bytes of a size of parted, which may count sectors of that many bytes."""
    if text.endswith("s"):
        return int(float(text[:-1]) * sector)
    return size_in(text.replace("kB", "KB"))


def _sector_bytes(text: str) -> int:
    """Return how large sectors are, as a line of fdisk, sgdisk or parted says; 0 if it does not."""
    match = _SECTOR_SIZE.search(text)
    return int(match[match.lastindex or 1]) if match else 0


def _cylinder_bytes(text: str, known: int) -> int:
    """Return the size of the cylinders in which an old fdisk counts; 0 if in sectors."""
    match = re.match(r"Units\s*[=:] (cylinders|sectors) of .*= (\d+) bytes", text)
    return known if match is None else int(match[2]) if match[1] == "cylinders" else 0
