"""What is on a disk: its partitions and their filesystems, without booting it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab.disk.chain import Layer, backing_chain, damage, disk_info
from cloudlab.disk.filesystem import Filesystem, identify
from cloudlab.disk.reader import Reader, Window, open_disk
from cloudlab.disk.table import SIZE_LIMIT_BYTES, Entry, GptBackup, Table, read_table
from cloudlab.errors import ToolTimeoutError
from cloudlab.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd

_CHECK_TIMEOUT_S = 10.0
_HEADINGS = ("no", "start", "size", "type", "filesystem", "label", "its size", "free")
_NUMERIC = frozenset({"no", "start", "size", "its size", "free"})

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


@dataclass(frozen=True)
class Partition:
    """A partition, or the whole disk where it has no partition table.

    Attributes
    ----------
    number : int or None
        As Linux numbers it; None for the whole disk.
    start_bytes, size_bytes : int
    type : str or None
        GPT: the type's GUID; MBR: the type in hexadecimal; None for the whole disk.
    name : str
        GPT only.
    bootable, container : bool
        As for :class:`cloudlab.disk.table.Entry`.
    filesystem : Filesystem or None
    """

    number: int | None
    start_bytes: int
    size_bytes: int
    type: str | None = None
    name: str = ""
    bootable: bool = False
    container: bool = False
    filesystem: Filesystem | None = None

    @property
    def end_bytes(self) -> int:
        """The first byte behind it."""
        return self.start_bytes + self.size_bytes

    @property
    def type_name(self) -> str:
        """The type as people call it."""
        return TYPE_NAMES.get(self.type or "", self.type or "whole disk")


@dataclass(frozen=True)
class DiskLayout:
    """A disk without booting it.

    Attributes
    ----------
    path : Path
    format : str
        ``qcow2`` or ``raw``.
    virtual_size_bytes : int
        The disk's size as a machine sees it.
    disk_size_bytes : int
        What the file takes up on the host.
    backing_file : str or None
    table : str or None
        ``gpt``, ``dos`` (an MBR) or None.
    partitions : tuple of Partition
        In order of their place on the disk.
    sector_bytes : int
        The unit that the table counts in.
    gpt_backup : GptBackup or None
        Where the second GPT header lies: the sign of a disk that was enlarged.
    in_use : bool
        A machine is writing to the disk: what is said here may be out of date.
    warnings : tuple of str
        What is wrong with the disk, in sentences.
    """

    path: Path
    format: str
    virtual_size_bytes: int
    disk_size_bytes: int
    backing_file: str | None
    table: str | None
    partitions: tuple[Partition, ...]
    sector_bytes: int = 512
    gpt_backup: GptBackup | None = None
    in_use: bool = False
    warnings: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        from cloudlab.html import table_html

        rows = [
            (
                "whole disk" if one.number is None else one.number,
                format_bytes(one.start_bytes),
                format_bytes(one.size_bytes),
                one.type_name or "",
                "" if one.filesystem is None else one.filesystem.type,
            )
            for one in self.partitions
        ]
        size = format_bytes(self.virtual_size_bytes)
        return table_html(
            ("partition", "starts at", "size", "kind", "filesystem"),
            rows,
            caption=f"{self.path.name}: {size}, table {self.table or 'none'}",
        )

    @property
    def free_tail_bytes(self) -> int:
        """Bytes between the last partition's end and the disk's end."""
        last = max((each.end_bytes for each in self.partitions), default=0)
        return max(0, self.virtual_size_bytes - last)

    @classmethod
    def from_json(cls, data: Any) -> DiskLayout:
        """Temporary."""
        import msgspec

        from cloudlab.errors import DiskError

        def check(value: Any) -> None:
            inside = value.values() if isinstance(value, dict) else value
            for one in inside if isinstance(value, dict | list) else ():
                check(one)
            if isinstance(value, int) and not 0 <= value < 1 << 63:
                raise TypeError(f"{value} is out of range")

        try:
            check(data)
            return msgspec.convert(data, cls, dec_hook=lambda kind, value: kind(value))
        except (msgspec.ValidationError, TypeError) as error:
            raise DiskError(str(error)) from error

    def to_json(self) -> dict[str, Any]:
        """Return what ``cloudlab inspect --json`` prints."""
        backup = self.gpt_backup
        return {
            "path": os.fspath(self.path),
            "virtual_size_bytes": self.virtual_size_bytes,
            "disk_size_bytes": self.disk_size_bytes,
            "format": self.format,
            "backing_file": self.backing_file,
            "table": self.table,
            "sector_bytes": self.sector_bytes,
            "gpt_backup": backup and {"place": backup.place, "offset_bytes": backup.offset_bytes},
            "free_tail_bytes": self.free_tail_bytes,
            "in_use": self.in_use,
            "partitions": [_partition_json(each) for each in self.partitions],
            "warnings": list(self.warnings),
        }


def _partition_json(partition: Partition) -> dict[str, Any]:
    return {
        "number": partition.number,
        "start_bytes": partition.start_bytes,
        "size_bytes": partition.size_bytes,
        "type": partition.type,
        "type_name": partition.type_name,
        "name": partition.name,
        "bootable": partition.bootable,
        "filesystem": partition.filesystem and _filesystem_json(partition.filesystem),
    }


def _filesystem_json(filesystem: Filesystem) -> dict[str, Any]:
    moment = filesystem.last_mounted_at
    return {
        "type": filesystem.type,
        "label": filesystem.label,
        "size_bytes": filesystem.size_bytes,
        "statfs_bytes": filesystem.statfs_bytes,
        "free_bytes": filesystem.free_bytes,
        "uuid": filesystem.uuid,
        "version": filesystem.version,
        "last_mounted_on": filesystem.last_mounted_on,
        "last_mounted_at": moment and moment.isoformat(),
    }


def inspect_disk(path: Path | str, format: str | None = None) -> DiskLayout:  # noqa: A002
    """Return what is on a qcow2 or raw disk, without root and without booting it.

    It may be called beside a running machine, and then says so (``in_use``).

    Parameters
    ----------
    path : Path or str
    format : str, optional
        ``qcow2`` or ``raw``; without it, the file's first bytes decide.  Give it for a raw
        disk that an untrusted guest wrote to: such a guest can make it look like qcow2.

    Raises
    ------
    DiskError
        If the disk cannot be opened or read.
    ToolNotFoundError, ToolTimeoutError
    """
    chain = backing_chain(Path(path), format)
    info = disk_info(chain[0].path, chain[0].format)
    with open_disk(chain) as reader:
        table, partitions, warnings = read_layout(reader)
    if info.corrupt:
        warnings.append("QEMU marked this image as corrupt.")
    if not info.in_use:
        # Beside a machine that is writing, everything looks damaged.
        warnings += _damages(chain)
    return DiskLayout(
        path=chain[0].path,
        format=info.format,
        virtual_size_bytes=info.virtual_size_bytes,
        disk_size_bytes=info.disk_size_bytes,
        backing_file=info.backing_file,
        table=table.kind if table else None,
        partitions=partitions,
        sector_bytes=table.sector_bytes if table else 512,
        gpt_backup=table.backup if table else None,
        in_use=info.in_use,
        warnings=tuple(warnings),
    )


def _damages(chain: tuple[Layer, ...]) -> Iterator[str]:
    for depth, layer in enumerate(chain):
        try:
            complaint = damage(chain[depth:], timeout_s=_CHECK_TIMEOUT_S)
        except ToolTimeoutError:
            complaint = f"not done within {_CHECK_TIMEOUT_S:g} s"
        if complaint:
            yield f"{layer.path} is damaged or cut off; qemu-img check: {complaint}"


def read_layout(reader: Reader) -> tuple[Table | None, tuple[Partition, ...], list[str]]:
    """Return a disk's table, its partitions with their filesystems, and warnings.

    A filesystem that fills the whole disk is one partition without number.
    """
    table = read_table(reader)
    if table is None or (table.kind == "dos" and (table.warnings or not table.entries)):
        # A filesystem's own boot code ends with the MBR's signature, too.
        warnings: list[str] = []
        whole = _with_filesystem(Entry(0, 0, reader.size_bytes, ""), reader, warnings)
        if whole.filesystem is not None:
            return None, (whole,), warnings
    if table is None:
        return None, (), []
    warnings = list(table.warnings)
    partitions = tuple(_with_filesystem(entry, reader, warnings) for entry in table.entries)
    return table, partitions, warnings


def _with_filesystem(entry: Entry, reader: Reader, warnings: list[str]) -> Partition:
    # An extended partition starts with a boot record that may look like anything.
    window = Window(reader, entry.start_bytes, entry.size_bytes)
    found = [] if entry.container else identify(window)
    filesystem = found[0] if found else None
    where = f"Partition {entry.number}" if entry.number else "The disk"
    if len(found) > 1:
        kinds = ", ".join(each.type for each in found)
        warnings.append(f"{where} has the signatures of {kinds}; the first was taken.")
    size_bytes = (filesystem and filesystem.size_bytes) or 0
    if filesystem and size_bytes > SIZE_LIMIT_BYTES:
        warnings.append(f"{where} holds a filesystem of an impossible size, {size_bytes} bytes.")
        filesystem = replace(filesystem, size_bytes=None, statfs_bytes=None, free_bytes=None)
    elif size_bytes > entry.size_bytes:
        warnings.append(
            f"{where} holds a filesystem of {size_bytes} bytes, "
            f"{size_bytes - entry.size_bytes} more than there is room for."
        )
    return Partition(
        number=entry.number or None,
        start_bytes=entry.start_bytes,
        size_bytes=entry.size_bytes,
        type=entry.type or None,
        name=entry.name,
        bootable=entry.bootable,
        container=entry.container,
        filesystem=filesystem,
    )


def layout_frame(layout: DiskLayout) -> pd.DataFrame:
    """Return one row per partition, in order of place.

    Columns: ``number`` (Int64, missing for the whole disk), ``start_bytes``, ``size_bytes``
    (int64), ``type``, ``name``, ``filesystem``, ``label`` (str), ``filesystem_bytes``,
    ``free_bytes`` (Int64, missing where unknown).
    """
    import pandas as pd

    nothing = Filesystem("")
    rows = [(each, each.filesystem or nothing) for each in layout.partitions]
    columns = {
        "number": pd.array([each.number for each, _ in rows], dtype="Int64"),
        "start_bytes": pd.array([each.start_bytes for each, _ in rows], dtype="int64"),
        "size_bytes": pd.array([each.size_bytes for each, _ in rows], dtype="int64"),
        "type": [each.type_name for each, _ in rows],
        "name": [each.name for each, _ in rows],
        "filesystem": [filesystem.type for _, filesystem in rows],
        "label": [filesystem.label for _, filesystem in rows],
        "filesystem_bytes": _optional(filesystem.size_bytes for _, filesystem in rows),
        "free_bytes": _optional(filesystem.free_bytes for _, filesystem in rows),
    }
    return pd.DataFrame(columns)


def describe(layout: DiskLayout) -> str:
    """Return a layout as a table for a terminal, with anything unprintable replaced."""
    size, used = format_bytes(layout.virtual_size_bytes), format_bytes(layout.disk_size_bytes)
    lines = [f"{layout.path}: {layout.format}, virtual size {size}, {used} on the host"]
    if layout.backing_file:
        lines.append(f"backing file: {layout.backing_file}")
    lines.append(f"partition table: {layout.table or 'none'}{_backup_words(layout)}")
    if layout.partitions:
        lines += ["", *_columns(layout)]
    lines += [f"free behind the last partition: {format_bytes(layout.free_tail_bytes)}"]
    if layout.in_use:
        lines.append("A machine is writing to this disk: what is said here may be out of date.")
    lines += [f"warning: {warning}" for warning in layout.warnings]
    return "\n".join(_printable(line) for line in lines)


def _backup_words(layout: DiskLayout) -> str:
    backup = layout.gpt_backup
    if backup is None or backup.place == "missing":
        return "" if backup is None else ", second header missing"
    if backup.place == "end":
        return ", second header at the end"
    old = format_bytes((backup.offset_bytes or 0) + layout.sector_bytes)
    return f", second header left at the old end ({old}): the disk was enlarged since"


def _columns(layout: DiskLayout) -> Iterator[str]:
    rows = [_HEADINGS, *map(_cells, layout.partitions)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if heading in _NUMERIC else cell.ljust(width)
            for heading, cell, width in zip(_HEADINGS, row, widths, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _cells(partition: Partition) -> tuple[str, ...]:
    filesystem = partition.filesystem or Filesystem("-")
    sizes = (filesystem.size_bytes, filesystem.free_bytes)
    return (
        "-" if partition.number is None else str(partition.number),
        format_bytes(partition.start_bytes),
        format_bytes(partition.size_bytes),
        partition.type_name,
        filesystem.version or filesystem.type,
        filesystem.label or "-",
        *("-" if size is None else format_bytes(size) for size in sizes),
    )


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _optional(sizes: Iterable[int | None]) -> pd.api.extensions.ExtensionArray:
    import pandas as pd

    return pd.array(list(sizes), dtype="Int64")
