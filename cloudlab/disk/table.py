"""Partition tables: GPT with both headers, MBR with logical partitions, or none.

Everything here takes a :class:`~cloudlab.disk.reader.Reader` and returns values; what a
hostile table says costs bounded work and ends as a warning.

Sources: UEFI specification 2.10, chapter 5 (GPT); the MBR as Linux reads it.
"""

# ruff: noqa: PLR2004 (offsets and magic numbers are what this module is about)

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cloudlab.disk.reader import Reader
from cloudlab.errors import DiskError

SECTOR_BYTES = 512
_GPT_SECTOR_SIZES = (512, 4096)
#: 128 entries of 128 bytes are usual; this allows 64 times as many.
_ENTRIES_LIMIT_BYTES = 1 << 20
_LOGICAL_LIMIT = 256
_LINK_LIMIT = 512
#: Above this, a size is no disk's but a mistake or an attack (and no table's int64).
SIZE_LIMIT_BYTES = 1 << 62

_BOOT_SIGNATURE = b"\x55\xaa"
_EXTENDED_TYPES = frozenset({0x05, 0x0F, 0x85})
_PROTECTIVE_TYPE = 0xEE
_UNUSED_GUID = bytes(16)


@dataclass(frozen=True)
class Entry:
    """One entry of a partition table.

    Attributes
    ----------
    number : int
        As Linux numbers it; logical partitions of an MBR begin with 5.
    start_bytes, size_bytes : int
    type : str
        GPT: the type's GUID in capitals; MBR: the type in hexadecimal (``83``).
    name : str
        GPT only.
    bootable : bool
        MBR: the active flag; GPT: the 'legacy BIOS bootable' attribute.
    container : bool
        An extended partition, which only holds logical ones.
    """

    number: int
    start_bytes: int
    size_bytes: int
    type: str
    name: str = ""
    bootable: bool = False
    container: bool = False

    @property
    def end_bytes(self) -> int:
        """The first byte behind the partition."""
        return self.start_bytes + self.size_bytes


@dataclass(frozen=True)
class GptBackup:
    """Where the second GPT header lies.

    Attributes
    ----------
    place : str
        ``end`` of the disk, where it belongs; ``old end``, left behind when the disk was
        enlarged, until somebody writes the table again; ``missing``, damaged or cut off.
    offset_bytes : int or None
        The header's own place; None where it is missing.
    """

    place: str
    offset_bytes: int | None


@dataclass(frozen=True)
class Table:
    """A partition table.

    Attributes
    ----------
    kind : str
        ``gpt`` or ``dos`` (an MBR), as sfdisk calls them.
    sector_bytes : int
    entries : tuple of Entry
        In order of their place on the disk.
    backup : GptBackup or None
        None for an MBR.
    warnings : tuple of str
    """

    kind: str
    sector_bytes: int
    entries: tuple[Entry, ...]
    backup: GptBackup | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class GptHeader:
    """One GPT header whose checksum is right; places are in sectors."""

    own_lba: int
    other_lba: int
    first_usable_lba: int
    last_usable_lba: int
    disk_guid: str
    entries_lba: int
    entry_count: int
    entry_bytes: int
    entries_crc: int


def read_table(reader: Reader) -> Table | None:
    """Return the disk's partition table, or None where there is none.

    A boot sector's signature is also what a file system's own boot code carries, so an
    MBR counts only if its entries could be ones; see :func:`parse_mbr`.
    """
    sector = reader.read(0, SECTOR_BYTES)
    entries = parse_mbr(sector)
    if entries is None:
        return None
    problems: list[str] = []
    if any(entry.type == f"{_PROTECTIVE_TYPE:x}" for entry in entries):
        for sector_bytes in _GPT_SECTOR_SIZES:
            gpt, found = _read_gpt(reader, sector_bytes)
            if gpt is not None:
                return gpt
            problems += found
        problems.append("The MBR announces a GPT, but neither of its headers is readable.")
    logical, found = _read_logical(reader, entries)
    kept, odd = _check_places([*entries, *logical], reader.size_bytes, first_usable=SECTOR_BYTES)
    return Table("dos", SECTOR_BYTES, kept, warnings=(*problems, *found, *odd))


def parse_mbr(sector: bytes) -> list[Entry] | None:
    """Return the used primary entries of a boot sector, or None where it is no MBR."""
    if len(sector) < SECTOR_BYTES or sector[510:512] != _BOOT_SIGNATURE:
        return None
    entries = []
    for number, (flag, kind, start, count) in enumerate(_mbr_slots(sector), 1):
        if flag not in {0, 0x80}:
            return None
        if kind:
            entries.append(_mbr_entry(number, flag, kind, start, count))
    return entries


def _mbr_slots(sector: bytes) -> Iterator[tuple[int, int, int, int]]:
    for at in range(446, 510, 16):
        yield struct.unpack_from("<B3xB3xII", sector, at)


def _mbr_entry(number: int, flag: int, kind: int, start: int, count: int) -> Entry:
    return Entry(
        number,
        start * SECTOR_BYTES,
        count * SECTOR_BYTES,
        type=f"{kind:x}",
        bootable=flag == 0x80,
        container=kind in _EXTENDED_TYPES,
    )


def _read_logical(reader: Reader, primary: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """Follow the chain of extended boot records, each of which names the next."""
    containers = [entry for entry in primary if entry.container]
    warnings = [
        f"Partition {entry.number} is a second extended partition; it was not looked into."
        for entry in containers[1:]
    ]
    if not containers:
        return [], warnings
    base = at = containers[0].start_bytes
    found: list[Entry] = []
    seen: set[int] = set()
    while at not in seen and len(seen) < _LINK_LIMIT and len(found) < _LOGICAL_LIMIT:
        seen.add(at)
        sector = reader.read(at, SECTOR_BYTES)
        if len(sector) < SECTOR_BYTES or sector[510:512] != _BOOT_SIGNATURE:
            warnings.append(f"The chain of logical partitions breaks off at byte {at}.")
            return found, warnings
        link = None
        for flag, kind, start, count in _mbr_slots(sector):
            if kind in _EXTENDED_TYPES and count:
                link = link or base + start * SECTOR_BYTES
            elif kind and count:
                entry = _mbr_entry(5 + len(found), flag, kind, start, count)
                found.append(replace(entry, start_bytes=at + entry.start_bytes))
        if link is None:
            return found, warnings
        at = link
    warnings.append("The chain of logical partitions comes back to itself or does not end.")
    return found, warnings


def _read_gpt(reader: Reader, sector_bytes: int) -> tuple[Table | None, list[str]]:
    last_lba = reader.size_bytes // sector_bytes - 1
    warnings: list[str] = []
    primary = _read_half(reader, sector_bytes, 1)
    if primary is None:
        backup = _read_half(reader, sector_bytes, last_lba)
        if backup is None:
            return None, warnings
        header, entries = backup
        place = GptBackup("end", last_lba * sector_bytes)
        warnings.append("The first GPT header is damaged; the second one was read.")
    else:
        header, entries = primary
        place, found = _find_backup(reader, sector_bytes, header, last_lba)
        warnings += found
    if header.last_usable_lba > last_lba:
        warnings.append(
            "The table was made for a larger disk: its last usable sector is "
            f"{header.last_usable_lba}, the disk's last sector is {last_lba}."
        )
    kept, odd = _check_places(
        entries, reader.size_bytes, first_usable=header.first_usable_lba * sector_bytes
    )
    return Table("gpt", sector_bytes, kept, place, (*warnings, *odd)), []


def _read_half(reader: Reader, sector_bytes: int, lba: int) -> tuple[GptHeader, list[Entry]] | None:
    """Return the header at ``lba`` with its entries, if both have the right checksums."""
    if lba < 1:
        return None
    try:
        header = parse_gpt_header(reader.read(lba * sector_bytes, sector_bytes))
    except DiskError:
        return None
    length = header.entry_count * header.entry_bytes
    if header.own_lba != lba or length > _ENTRIES_LIMIT_BYTES:
        return None
    raw = reader.read(header.entries_lba * sector_bytes, length)
    if len(raw) != length or zlib.crc32(raw) != header.entries_crc:
        return None
    return header, parse_gpt_entries(raw, header.entry_bytes, sector_bytes)


def _find_backup(
    reader: Reader, sector_bytes: int, header: GptHeader, last_lba: int
) -> tuple[GptBackup, list[str]]:
    half = _read_half(reader, sector_bytes, header.other_lba)
    if half is None:
        cut = header.other_lba > last_lba
        return GptBackup("missing", None), [
            "The second GPT header is "
            + ("beyond the end of the disk." if cut else "damaged; the first one was read.")
        ]
    other = half[0]
    warnings = []
    if (other.disk_guid, other.entries_crc) != (header.disk_guid, header.entries_crc):
        warnings.append("The two halves of the GPT differ; the first one was read.")
    place = "end" if header.other_lba == last_lba else "old end"
    return GptBackup(place, header.other_lba * sector_bytes), warnings


def parse_gpt_header(sector: bytes) -> GptHeader:
    """Read a GPT header.

    Raises
    ------
    DiskError
        If this is none, its checksum is wrong, or its entries are of an impossible size.
    """
    if len(sector) < 92 or not sector.startswith(b"EFI PART"):
        raise DiskError("There is no GPT header here.")
    length, crc = struct.unpack_from("<II", sector, 12)
    if not 92 <= length <= len(sector):
        raise DiskError(f"The GPT header claims a length of {length} bytes.")
    if zlib.crc32(sector[:16] + bytes(4) + sector[20:length]) != crc:
        raise DiskError("The GPT header's checksum is wrong.")
    own, other, first, last, guid, entries, count, size, entries_crc = struct.unpack_from(
        "<QQQQ16sQIII", sector, 24
    )
    if size < 128 or size % 8:
        raise DiskError(f"The GPT header claims entries of {size} bytes.")
    return GptHeader(own, other, first, last, _guid(guid), entries, count, size, entries_crc)


def parse_gpt_entries(raw: bytes, entry_bytes: int, sector_bytes: int) -> list[Entry]:
    """Return the used ones among GPT entries, numbered by their slots."""
    entries = []
    for number, at in enumerate(range(0, len(raw) - 127, entry_bytes), 1):
        kind, first, last, attributes, name = struct.unpack_from("<16s16xQQQ72s", raw, at)
        if kind == _UNUSED_GUID:
            continue
        entries.append(
            Entry(
                number,
                first * sector_bytes,
                # The last sector belongs to the partition; a table may claim it lies before the first.
                max(0, last + 1 - first) * sector_bytes,
                type=_guid(kind),
                name=name.decode("utf-16-le", errors="replace").split("\0")[0],
                bootable=bool(attributes & 4),
            )
        )
    return entries


def _guid(raw: bytes) -> str:
    return str(uuid.UUID(bytes_le=raw)).upper()


def _check_places(
    entries: Iterable[Entry], disk_bytes: int, *, first_usable: int
) -> tuple[tuple[Entry, ...], list[str]]:
    """Sort entries by place; leave out the impossible ones and warn of the wrong ones."""
    kept: list[Entry] = []
    warnings: list[str] = []
    for entry in entries:
        if entry.size_bytes == 0 or entry.end_bytes > SIZE_LIMIT_BYTES:
            warnings.append(
                f"Partition {entry.number} was left out: it starts at byte {entry.start_bytes} "
                f"and claims {entry.size_bytes} bytes."
            )
            continue
        if entry.end_bytes > disk_bytes:
            beyond = entry.end_bytes - disk_bytes
            warnings.append(
                f"Partition {entry.number} reaches {beyond} bytes beyond the end of the disk."
            )
        if entry.start_bytes < first_usable and entry.type != f"{_PROTECTIVE_TYPE:x}":
            warnings.append(f"Partition {entry.number} overlaps the partition table.")
        kept.append(entry)
    kept.sort(key=lambda entry: (entry.start_bytes, -entry.size_bytes, entry.number))
    return tuple(kept), warnings + _overlaps(kept)


def _overlaps(ordered: Iterable[Entry]) -> list[str]:
    warnings = []
    widest: Entry | None = None
    for entry in ordered:
        if entry.container:
            continue
        if widest is not None and entry.start_bytes < widest.end_bytes:
            warnings.append(f"Partitions {widest.number} and {entry.number} overlap.")
        if widest is None or entry.end_bytes > widest.end_bytes:
            widest = entry
    return warnings
