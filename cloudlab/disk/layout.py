"""Inspect a disk without booting it: its partitions, their filesystems, what is unknown."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cloudlab.disk.filesystem import identify
from cloudlab.disk.reader import (
    Layer,
    Reader,
    allocated_bytes,
    backing_chain,
    damage,
    is_in_use,
    open_disk,
)
from cloudlab.disk.table import (
    IMPOSSIBLE_BYTES,
    GptBackup,
    Partition,
    Table,
    other_table,
    read_table,
)
from cloudlab.errors import DiskError, ToolTimeoutError, UsageError
from cloudlab.paths import expand
from cloudlab.units import format_bytes

_CHECK_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class DiskLayout:
    """What a disk holds, read without booting it.

    Attributes
    ----------
    path : Path
    format : str
        ``qcow2`` or ``raw``.
    virtual_size_bytes : int
        The disk's size as a machine sees it.
    disk_size_bytes : int
        Bytes that the file takes up on the host.
    backing_file : str or None
    table : str or None
        ``gpt``, ``dos`` (an MBR) or None.
    partitions : tuple of Partition
        By position on the disk.
    sector_bytes : int
        The unit of the partition table.
    gpt_backup : GptBackup or None
        Where the backup GPT header is: it shows whether the disk was enlarged.
    in_use : bool
        A machine is writing to the disk, so this may be out of date.
    warnings : tuple of str
        Faults of the disk, as sentences.
    other_table : str or None
        The name of a partition table that cloudlab does not read (``sun``, ``bsd`` ...).

    Examples
    --------
    >>> layout = cloudlab.recorded("default").layout("after")
    >>> layout.table, layout.virtual_size_bytes
    ('gpt', 21474836480)
    >>> [(part.number, part.size_bytes) for part in layout.partitions]
    [(14, 4194304), (15, 111149056), (1, 21358427648)]
    """

    path: Path
    format: Literal["qcow2", "raw"]
    virtual_size_bytes: int
    disk_size_bytes: int
    backing_file: str | None
    table: Literal["gpt", "dos"] | None
    partitions: tuple[Partition, ...]
    sector_bytes: int = 512
    gpt_backup: GptBackup | None = None
    in_use: bool = False
    warnings: tuple[str, ...] = ()
    other_table: str | None = None

    @property
    def free_tail_bytes(self) -> int:
        """Bytes between the last partition's end and the disk's end."""
        if self.other_table:
            return 0
        last = max((each.end_bytes for each in self.partitions), default=0)
        return max(0, self.virtual_size_bytes - last)

    @property
    def table_title(self) -> str:
        """The partition table for people, with where its backup header is."""
        if self.other_table:
            return f"{self.other_table} (cloudlab reads only GPT and MBR)"
        backup = self.gpt_backup
        if backup is None:
            return self.table or "none"
        if backup.place == "old end":
            old = format_bytes((backup.offset_bytes or 0) + self.sector_bytes)
            return f"gpt, backup header left at the old end ({old}): the disk was enlarged since"
        return "gpt, backup header " + ("missing" if backup.place == "missing" else "at the end")

    def to_json(self) -> dict[str, Any]:
        """Return the layout as ``cloudlab inspect --json`` prints it and ``run.json`` stores it."""
        document = dataclasses.asdict(self)
        document |= {
            "path": os.fspath(self.path),
            "free_tail_bytes": self.free_tail_bytes,
            "warnings": list(self.warnings),
            "partitions": list(document["partitions"]),
        }
        for each, row in zip(self.partitions, document["partitions"], strict=True):
            row["type_name"] = each.type_name
            if each.filesystem is not None and each.filesystem.last_mounted_at is not None:
                mounted_at = each.filesystem.last_mounted_at.isoformat()
                row["filesystem"]["last_mounted_at"] = mounted_at
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> DiskLayout:
        """Return the layout that :meth:`to_json` wrote, also by an older version.

        Unknown keys are ignored.

        Raises
        ------
        DiskError
            If a key is missing, has another type, or a number is out of range.
        """
        import msgspec

        try:
            layout = msgspec.convert(document, cls, dec_hook=_decode_path)
            _check_range(layout)
        except (msgspec.ValidationError, ValueError) as error:
            raise DiskError(
                f"The record of a disk is not valid: {error}.",
                hint="The file was changed or damaged after cloudlab wrote it.",
            ) from error
        return layout

    def _repr_html_(self) -> str:
        from cloudlab.html import table_html

        rows = []
        for each in self.partitions:
            place = (format_bytes(each.start_bytes), format_bytes(each.size_bytes))
            rows.append((each.number or "whole disk", *place, each.type_name, each.content))
        size = format_bytes(self.virtual_size_bytes)
        return table_html(
            ("partition", "starts at", "size", "type", "filesystem"),
            rows,
            caption=f"{self.path.name}: {size}, partition table: {self.table_title}",
        )


def _decode_path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `str`, got `{type(value).__name__}`")


def _check_range(value: object) -> None:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check_range(getattr(value, field.name))
    elif isinstance(value, tuple):
        for each in value:
            _check_range(each)
    elif isinstance(value, int) and not 0 <= value <= IMPOSSIBLE_BYTES:
        raise ValueError(f"{value} is out of range")


def inspect_disk(
    path: Path | str,
    format: str | None = None,  # noqa: A002
    *,
    check_backing: bool = True,
) -> DiskLayout:
    """Return the layout of a qcow2 or raw disk, without root and without booting it.

    A disk in use by a running machine can be inspected too; ``in_use`` says so.

    Parameters
    ----------
    path : Path or str
    format : str, optional
        ``qcow2`` or ``raw``; None detects it from the file's own bytes.  Give it for a raw
        disk that an untrusted guest wrote to: such a guest can make it look like qcow2.
    check_backing : bool
        Whether ``qemu-img check`` is run on the backing files too; False where
        :func:`~cloudlab.disk.check_safe` has done so.

    Raises
    ------
    UsageError
        If the format is another one.
    DiskError
        If the disk cannot be opened or read.
    ToolNotFoundError, ToolTimeoutError

    Examples
    --------
    >>> layout = cloudlab.inspect("disk.qcow2")
    >>> layout.partitions[-1].filesystem.type
    'ext4'
    """
    if format not in (None, "qcow2", "raw"):
        raise UsageError(
            f"The format of a disk cannot be {format!r:.80}.",
            hint="Give qcow2 or raw, or leave it out.",
        )
    chain = backing_chain(expand(path), format)
    in_use = is_in_use(chain[0])
    # While a machine is writing, its disk always looks damaged.
    depths = range(0 if in_use else len(chain) if check_backing else 1)
    return read_disk(chain, in_use=in_use, faults=_damages(chain, depths))


def _damages(chain: tuple[Layer, ...], depths: Iterable[int]) -> Iterator[str]:
    if chain[0].header is not None and chain[0].header.corrupt:
        yield "QEMU marked this image as corrupt."
    for depth in depths:
        try:
            complaint = damage(chain[depth:], timeout_s=_CHECK_TIMEOUT_S)
        except ToolTimeoutError:
            complaint = f"not finished after {_CHECK_TIMEOUT_S:g} s"
        if complaint:
            yield f"{chain[depth].path} is damaged or cut off; qemu-img check: {complaint}"


def read_disk(
    chain: tuple[Layer, ...], *, in_use: bool = False, faults: Iterable[str] = ()
) -> DiskLayout:
    """Return the layout of a disk whose image files have been checked.

    Parameters
    ----------
    chain : tuple of Layer
    in_use : bool
    faults : iterable of str
        Of the image files; they become warnings.

    Raises
    ------
    DiskError
        If the disk cannot be read.
    ToolNotFoundError, ToolTimeoutError
    """
    with open_disk(chain) as reader:
        table, partitions, warnings = read_layout(reader)
        known = table is not None or any(each.filesystem for each in partitions)
        other = None if known else other_table(reader)
    return DiskLayout(
        path=chain[0].path,
        format=chain[0].format,
        virtual_size_bytes=chain[0].virtual_size_bytes,
        disk_size_bytes=allocated_bytes(chain[0].path),
        backing_file=str(chain[1].path) if len(chain) > 1 else None,
        table=table.kind if table else None,
        partitions=() if other else partitions,
        sector_bytes=table.sector_bytes if table else 512,
        gpt_backup=table.backup if table else None,
        in_use=in_use,
        warnings=(*warnings, *faults),
        other_table=other,
    )


def read_layout(reader: Reader) -> tuple[Table | None, tuple[Partition, ...], list[str]]:
    """Return a disk's GPT or MBR, its partitions with their filesystems, and warnings.

    A filesystem on the whole disk, or data that nothing explains, is one partition without
    a number.
    """
    table = read_table(reader)
    if table is None or (table.kind == "dos" and (table.warnings or not table.partitions)):
        # The boot code of a filesystem ends with the MBR's signature, too.
        warnings: list[str] = []
        whole = _with_filesystem(Partition(None, 0, reader.size_bytes), reader, warnings)
        if whole.filesystem is not None and not (
            # An array's superblock at the end of the disk may be the last partition's.
            table and table.partitions and whole.filesystem.type.endswith("_raid_member")
        ):
            return None, (whole,), warnings
        if table is None:
            return None, (whole,) if whole.unknown_content else (), warnings
    warnings = list(table.warnings)
    partitions = tuple(_with_filesystem(each, reader, warnings) for each in table.partitions)
    return table, partitions, warnings


def _with_filesystem(partition: Partition, reader: Reader, warnings: list[str]) -> Partition:
    if partition.container:
        # It starts with a boot record that may look like anything.
        return partition
    signatures, blank = identify(reader, partition.start_bytes, partition.size_bytes)
    where = f"Partition {partition.number}" if partition.number else "The disk"
    found = [each for each in signatures if each.size_bytes != 0]
    warnings += [
        f"{where} has the signature of {each.type}, but a damaged superblock."
        for each in signatures
        if each not in found
    ]
    if not found:
        return replace(partition, unknown_content=not blank)
    if len(found) > 1:
        kinds = ", ".join(each.type for each in found)
        warnings.append(f"{where} has the signatures of {kinds}; the first one was used.")
    filesystem, size_bytes = found[0], found[0].size_bytes or 0
    if size_bytes > IMPOSSIBLE_BYTES:
        warnings.append(f"{where} has a filesystem of an impossible size, {size_bytes:,} bytes.")
        filesystem = replace(filesystem, size_bytes=None, statfs_bytes=None, free_bytes=None)
    elif size_bytes > partition.size_bytes:
        warnings.append(
            f"{where} has a filesystem of {size_bytes:,} bytes, "
            f"{size_bytes - partition.size_bytes:,} more than fit."
        )
    return replace(partition, filesystem=filesystem)
