"""Read partition tables: GPT with both headers, MBR with logical partitions; name others.

Every function takes a :class:`~cloudlab.disk.reader.Reader` and returns values; a hostile
table costs bounded work and results in warnings.

Sources: UEFI specification 2.10, chapter 5 (GPT); the MBR as Linux reads it; for other
tables the kernel's block/partitions and util-linux 2.42, libblkid/src/partitions.
"""

# ruff: noqa: PLR2004 (offsets and magic numbers are the subject of this module)

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from cloudlab.disk.filesystem import Filesystem
from cloudlab.disk.reader import Reader
from cloudlab.units import SECTOR_BYTES

_GPT_SECTOR_SIZES = (512, 4096)
#: 128 entries of 128 bytes are usual; this allows 64 times as many.
_ENTRIES_LIMIT_BYTES = 1 << 20
_LOGICAL_LIMIT = 256
_LINK_LIMIT = 512
#: Larger offsets and sizes are a mistake or an attack, and overflow the int64 of a DataFrame.
IMPOSSIBLE_BYTES = 1 << 62

_BOOT_SIGNATURE = b"\x55\xaa"
#: The MBR types of extended partitions.
EXTENDED_TYPES = frozenset({"5", "f", "85"})
#: Logical partitions are numbered from this.
FIRST_LOGICAL = 5
_PROTECTIVE_TYPE = "ee"
_UNUSED_GUID = bytes(16)

#: Partition types by GPT GUID or MBR number, as people call them.
TYPE_NAMES = {
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B": "EFI System",
    "21686148-6449-6E6F-744E-656564454649": "BIOS boot",
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4": "Linux filesystem",
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709": "Linux root (x86-64)",
    "B921B045-1DF0-41C3-AF44-4C6F280D3FAE": "Linux root (ARM-64)",
    "BC13C2FF-59E6-4262-A352-B275FD6F7172": "Linux extended boot",
    "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F": "Linux swap",
    "E6D6D379-F507-44C2-A23C-238F2A3DF928": "Linux LVM",
    "933AC7E1-2EB4-4F13-B844-0E14E2AEF915": "Linux home",
    "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7": "Microsoft basic data",
    "9E1A2D38-C612-4316-AA26-8B49521E5A8B": "PowerPC PReP boot",
    "5": "Extended",
    "f": "Extended (LBA)",
    "85": "Linux extended",
    "83": "Linux",
    "82": "Linux swap",
    "8e": "Linux LVM",
    "fd": "Linux RAID",
    "1": "FAT12",
    "4": "FAT16 <32M",
    "6": "FAT16",
    "e": "FAT16 (LBA)",
    "b": "FAT32",
    "c": "FAT32 (LBA)",
    "7": "NTFS or exFAT",
    "ef": "EFI System",
    "ee": "GPT protective",
}


#: Partitions without a filesystem, to which boot loaders are written as they are.
_BOOT_LOADER_TYPES = frozenset(
    {"21686148-6449-6E6F-744E-656564454649", "9E1A2D38-C612-4316-AA26-8B49521E5A8B"}
)


@dataclass(frozen=True)
class Partition:
    """A partition, or the whole disk where it has no partition table.

    Attributes
    ----------
    number : int or None
        As Linux numbers it (logical partitions of an MBR start at 5); None for the whole disk.
    start_bytes, size_bytes : int
    type : str or None
        GPT: the type GUID; MBR: the type in hexadecimal; None for the whole disk.
    name : str
        GPT only.
    bootable : bool
        MBR: the active flag; GPT: the 'legacy BIOS bootable' attribute.
    filesystem : Filesystem or None
    unknown_content : bool
        It holds data, but none that cloudlab recognises; then ``filesystem`` is None.
    """

    number: int | None
    start_bytes: int
    size_bytes: int
    type: str | None = None
    name: str = ""
    bootable: bool = False
    filesystem: Filesystem | None = None
    unknown_content: bool = False

    @property
    def end_bytes(self) -> int:
        """The offset of the first byte after it."""
        return self.start_bytes + self.size_bytes

    @property
    def type_name(self) -> str:
        """The type for people."""
        return TYPE_NAMES.get(self.type or "", self.type or "whole disk")

    @property
    def container(self) -> bool:
        """Whether this is an extended partition, which only holds logical ones."""
        return self.type in EXTENDED_TYPES

    @property
    def content(self) -> str:
        """What it holds, for people: a filesystem, a boot loader, ``unknown content`` or empty."""
        if self.filesystem is not None:
            return self.filesystem.title
        if not self.unknown_content:
            return ""
        return "boot loader" if self.type in _BOOT_LOADER_TYPES else "unknown content"


@dataclass(frozen=True)
class GptBackup:
    """Where the backup GPT header is.

    Attributes
    ----------
    place : str
        ``end`` of the disk, as specified; ``old end``, where it stays after the disk was
        enlarged until a tool rewrites the table; ``missing`` if it is damaged or cut off.
    offset_bytes : int or None
        Of the backup header; None where it is missing.
    """

    place: Literal["end", "old end", "missing"]
    offset_bytes: int | None


@dataclass(frozen=True)
class Table:
    """A partition table.

    Attributes
    ----------
    kind : str
        ``gpt`` or ``dos`` (an MBR), the names that sfdisk uses.
    sector_bytes : int
    partitions : tuple of Partition
        By position on the disk, without their filesystems.
    backup : GptBackup or None
        None for an MBR.
    warnings : tuple of str
    """

    kind: Literal["gpt", "dos"]
    sector_bytes: int
    partitions: tuple[Partition, ...]
    backup: GptBackup | None = None
    warnings: tuple[str, ...] = ()


class GptHeader(NamedTuple):
    """A GPT header with a valid checksum; positions are in sectors."""

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
    """Return the disk's GPT or MBR, or None where there is neither.

    The boot code of a filesystem ends with the MBR's signature as well, so an MBR counts
    only if its entries are plausible; see :func:`parse_mbr`.
    """
    sector = reader.read(0, SECTOR_BYTES)
    entries = parse_mbr(sector)
    if entries is None:
        return None
    warnings: list[str] = []
    if any(entry.type == _PROTECTIVE_TYPE for entry in entries):
        for sector_bytes in _GPT_SECTOR_SIZES:
            if gpt := _read_gpt(reader, sector_bytes):
                return gpt
        warnings.append("The MBR announces a GPT, but neither GPT header is valid.")
    entries += _read_logical(reader, entries, warnings)
    kept = _check_positions(entries, reader.size_bytes, SECTOR_BYTES, warnings)
    return Table("dos", SECTOR_BYTES, kept, warnings=tuple(warnings))


def parse_mbr(sector: bytes) -> list[Partition] | None:
    """Return the primary entries in use of a boot sector, or None if it is not an MBR."""
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


def _mbr_entry(number: int, flag: int, kind: int, start: int, count: int) -> Partition:
    return Partition(
        number,
        start * SECTOR_BYTES,
        count * SECTOR_BYTES,
        type=f"{kind:x}",
        bootable=flag == 0x80,
    )


def _read_logical(
    reader: Reader, primary: Iterable[Partition], warnings: list[str]
) -> list[Partition]:
    """Follow the chain of extended boot records, each of which points to the next."""
    containers = [entry for entry in primary if entry.container]
    if not containers:
        return []
    warnings += [
        f"Partition {entry.number} is a second extended partition; its contents were ignored."
        for entry in containers[1:]
    ]
    outer = containers[0]
    at, record_bytes = outer.start_bytes, outer.size_bytes
    found: list[Partition] = []
    seen: set[int] = set()
    while at not in seen and len(seen) < _LINK_LIMIT and len(found) < _LOGICAL_LIMIT:
        seen.add(at)
        sector = reader.read(at, SECTOR_BYTES)
        if len(sector) < SECTOR_BYTES or sector[510:512] != _BOOT_SIGNATURE:
            warnings.append(f"The chain of logical partitions is broken at byte {at:,}.")
            return found
        link = None
        for slot, values in enumerate(_mbr_slots(sector)):
            entry = _mbr_entry(FIRST_LOGICAL + len(found), *values)
            placed = replace(entry, start_bytes=at + entry.start_bytes)
            is_inside = entry.end_bytes <= record_bytes and placed.end_bytes <= outer.end_bytes
            if entry.container and entry.size_bytes:
                link = link or entry
            # As the kernel does: the last two entries may be garbage.
            elif entry.size_bytes and (slot < 2 or is_inside):
                found.append(placed)
        if link is None:
            return found
        at, record_bytes = outer.start_bytes + link.start_bytes, link.size_bytes
    warnings.append("The chain of logical partitions is circular or has too many links.")
    return found


def _read_gpt(reader: Reader, sector_bytes: int) -> Table | None:
    last_lba = reader.size_bytes // sector_bytes - 1
    warnings: list[str] = []
    if primary := _read_half(reader, sector_bytes, 1):
        header, entries = primary
        place = _find_backup(reader, sector_bytes, header, last_lba, warnings)
    elif backup := _read_half(reader, sector_bytes, last_lba):
        header, entries = backup
        place = GptBackup("end", last_lba * sector_bytes)
        warnings.append("The primary GPT header is damaged; the backup was used.")
    else:
        return None
    if header.last_usable_lba > last_lba:
        warnings.append(
            "The partition table was made for a larger disk: its last usable sector is "
            f"{header.last_usable_lba}, the disk's last sector is {last_lba}."
        )
    first_usable = header.first_usable_lba * sector_bytes
    kept = _check_positions(entries, reader.size_bytes, first_usable, warnings)
    return Table("gpt", sector_bytes, kept, place, tuple(warnings))


def _read_half(
    reader: Reader, sector_bytes: int, lba: int
) -> tuple[GptHeader, list[Partition]] | None:
    """Return the header at ``lba`` with its entries, if both checksums are valid."""
    if lba < 1:
        return None
    header = parse_gpt_header(reader.read(lba * sector_bytes, sector_bytes))
    if header is None or header.own_lba != lba:
        return None
    length = header.entry_count * header.entry_bytes
    if length > _ENTRIES_LIMIT_BYTES:
        return None
    raw = reader.read(header.entries_lba * sector_bytes, length)
    if len(raw) != length or zlib.crc32(raw) != header.entries_crc:
        return None
    return header, parse_gpt_entries(raw, header.entry_bytes, sector_bytes)


def _find_backup(
    reader: Reader, sector_bytes: int, header: GptHeader, last_lba: int, warnings: list[str]
) -> GptBackup:
    half = _read_half(reader, sector_bytes, header.other_lba)
    if half is None:
        cut = header.other_lba > last_lba
        why = "beyond the end of the disk." if cut else "damaged; the primary one was used."
        warnings.append(f"The backup GPT header is {why}")
        return GptBackup("missing", None)
    if (half[0].disk_guid, half[0].entries_crc) != (header.disk_guid, header.entries_crc):
        warnings.append("The primary and the backup GPT differ; the primary one was used.")
    place: Literal["end", "old end"] = "end" if header.other_lba == last_lba else "old end"
    return GptBackup(place, header.other_lba * sector_bytes)


def parse_gpt_header(sector: bytes) -> GptHeader | None:
    """Return a GPT header, or None if there is none or it is damaged."""
    if len(sector) < 92 or not sector.startswith(b"EFI PART"):
        return None
    length, crc = struct.unpack_from("<II", sector, 12)
    if not 92 <= length <= len(sector):
        return None
    if zlib.crc32(sector[:16] + bytes(4) + sector[20:length]) != crc:
        return None
    own, other, first, last, guid, *entries = struct.unpack_from("<QQQQ16sQIII", sector, 24)
    header = GptHeader(own, other, first, last, _guid(guid), *entries)
    return None if header.entry_bytes < 128 or header.entry_bytes % 8 else header


def parse_gpt_entries(raw: bytes, entry_bytes: int, sector_bytes: int) -> list[Partition]:
    """Return the GPT entries in use, numbered by their slots."""
    entries = []
    for number, at in enumerate(range(0, len(raw) - 127, entry_bytes), 1):
        kind, first, last, attributes, name = struct.unpack_from("<16s16xQQQ72s", raw, at)
        if kind == _UNUSED_GUID:
            continue
        entries.append(
            Partition(
                number,
                first * sector_bytes,
                # The last sector is part of the partition; a damaged table has it before the first.
                max(0, last + 1 - first) * sector_bytes,
                type=_guid(kind),
                name=name.decode("utf-16-le", errors="replace").split("\0")[0],
                bootable=bool(attributes & 4),
            )
        )
    return entries


def _guid(raw: bytes) -> str:
    return str(uuid.UUID(bytes_le=raw)).upper()


def _check_positions(
    entries: Iterable[Partition], disk_bytes: int, first_usable: int, warnings: list[str]
) -> tuple[Partition, ...]:
    """Sort entries by position; drop impossible ones and warn about wrong ones."""
    kept: list[Partition] = []
    for entry in entries:
        if entry.size_bytes == 0 or entry.end_bytes > IMPOSSIBLE_BYTES:
            warnings.append(
                f"Partition {entry.number} was ignored: it starts at byte {entry.start_bytes:,} "
                f"and has a size of {entry.size_bytes:,} bytes."
            )
            continue
        if entry.end_bytes > disk_bytes:
            beyond = entry.end_bytes - disk_bytes
            warnings.append(
                f"Partition {entry.number} extends {beyond:,} bytes beyond the end of the disk."
            )
        if entry.start_bytes < first_usable and entry.type != _PROTECTIVE_TYPE:
            warnings.append(f"Partition {entry.number} overlaps the partition table.")
        kept.append(entry)
    kept.sort(key=lambda entry: (entry.start_bytes, -entry.size_bytes, entry.number or 0))
    widest: Partition | None = None
    for entry in kept:
        if entry.container:
            continue
        if widest is not None and entry.start_bytes < widest.end_bytes:
            warnings.append(f"Partitions {widest.number} and {entry.number} overlap.")
        if widest is None or entry.end_bytes > widest.end_bytes:
            widest = entry
    return tuple(kept)


# Other tables, which cloudlab names but does not read

#: Offset, magic and the name that blkid or parted uses.
_OTHER_TABLES = (
    (0, b"\xc9\xc2\xd4\xc1", "aix"),
    (0, b"\x0b\xe5\xa9\x41", "sgi"),
    *((at, b"\x57\x45\x56\x82", "bsd") for at in (512, 64, 128)),
    *((at * SECTOR_BYTES, b"RDSK", "amiga") for at in range(16)),
)
#: LNX1 and CMS1 at the start of the third block, VOL1 after a key of 4 bytes; in EBCDIC.
_DASD_LABELS = ((0, b"\xd3\xd5\xe7\xf1"), (0, b"\xc3\xd4\xe2\xf1"), (4, b"\xe5\xd6\xd3\xf1"))
_DASD_BLOCK_SIZES = (512, 1024, 2048, 4096)
_BSD_MAGIC2_AT = 132


def other_table(reader: Reader) -> str | None:
    """Return the name of a partition table other than GPT and MBR, or None."""
    head = reader.read(0, 16 * SECTOR_BYTES)
    for at, magic, name in _OTHER_TABLES:
        # A BSD disk label repeats its magic.
        again = at + _BSD_MAGIC2_AT if name == "bsd" else at
        if head.startswith(magic, at) and head.startswith(magic, again):
            return name
    if head[508:510] == b"\xda\xbe" and not _sun_checksum(head[:SECTOR_BYTES]):
        return "sun"
    (mac_block_bytes,) = struct.unpack_from(">H", head.ljust(4, b"\0"), 2)
    if head.startswith(b"ER") and head[mac_block_bytes:][:2] in {b"PM", b"TS"}:
        return "mac"
    for block_bytes in _DASD_BLOCK_SIZES:
        label = reader.read(2 * block_bytes, 8)
        if any(label.startswith(magic, at) for at, magic in _DASD_LABELS):
            return "dasd"
    return "atari" if _is_atari(head[:SECTOR_BYTES], reader.size_bytes // SECTOR_BYTES) else None


def _sun_checksum(sector: bytes) -> int:
    found = 0
    for (word,) in struct.iter_unpack(">H", sector):
        found ^= word
    return found


def _is_atari(sector: bytes, sectors: int) -> bool:
    """Return whether a root sector, which has no magic, describes a partition on this disk."""
    if len(sector) < SECTOR_BYTES:
        return False
    (disk,) = struct.unpack_from(">I", sector, 0x1C2)
    if not 2 <= disk <= sectors:
        return False
    return any(
        flags & 1 and name.isalnum() and name.isascii() and 0 < start < start + size <= disk
        for flags, name, start, size in struct.iter_unpack(">B3sII", sector[0x1C6:0x1F6])
    )
