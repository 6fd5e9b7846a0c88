"""What a console said about sizes, as values and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloudlab.sizes.frames import GuestBlock, GuestDevice, Stage
from cloudlab.sizes.text import DfRow, LsblkRow


@dataclass(frozen=True, slots=True)
class Report:
    """One picture of the guest's disk.

    Attributes
    ----------
    stage : str or None
        ``before``, ``after`` or ``sample``; None for tables outside any block of frames.
    lsblk, df : tuple
        Rows in the order in which they were printed; either may be empty.
    lsblk_exact, df_exact : bool
        Whether all numbers of that table are exact rather than rounded.
    block : GuestBlock or None
        The frames it was made of; None for human tables.
    """

    stage: Stage | None
    lsblk: tuple[LsblkRow, ...]
    df: tuple[DfRow, ...]
    lsblk_exact: bool
    df_exact: bool
    block: GuestBlock | None = None

    @property
    def exact(self) -> bool:
        """Whether every number in it is exact."""
        return self.lsblk_exact and self.df_exact

    @property
    def line(self) -> int:
        """The first line of it in the transcript."""
        return min([row.line for row in self.lsblk] + [row.line for row in self.df])


@dataclass(frozen=True, slots=True)
class ParsedConsole:
    """All that a console log says about sizes.

    Attributes
    ----------
    reports : tuple of Report
        In order of appearance; of ``before``, ``after`` or no stage.
    samples : tuple of Report
        Those that were taken in between.
    blocks : tuple of GuestBlock
        Every block of frames, in order, unfinished ones too.
    damaged : int
        Frames that could not be read, of all blocks and of none.
    """

    reports: tuple[Report, ...]
    samples: tuple[Report, ...]
    blocks: tuple[GuestBlock, ...]
    damaged: int

    def block(self, stage: Stage) -> GuestBlock | None:
        """Return the best block of ``stage``: the last complete one, else the last, else None."""
        found = [block for block in self.blocks if block.stage == stage]
        return next((block for block in reversed(found) if block.complete), None) or (
            found[-1] if found else None
        )


def exact_report(block: GuestBlock) -> Report | None:
    """Return the report that a block's frames make; None if they hold no sizes."""

    def mountpoints(device: GuestDevice) -> tuple[str, ...]:
        return tuple(fs.mountpoint for fs in block.filesystems if fs.device == device.name)

    if not block.devices and not block.filesystems:
        return None
    return Report(
        stage=block.stage,
        lsblk=tuple(
            LsblkRow(device.name, device.size_bytes, device.type, mountpoints(device), device.line)
            for device in block.devices
        ),
        df=tuple(
            DfRow(
                fs.device if "/" in fs.device else f"/dev/{fs.device}",
                fs.size_bytes,
                fs.used_bytes,
                fs.available_bytes,
                fs.mountpoint,
                fs.line,
            )
            for fs in block.filesystems
        ),
        lsblk_exact=True,
        df_exact=True,
        block=block,
    )


def to_json(parsed: ParsedConsole) -> dict[str, Any]:
    """Return the reports as ``cloudlab parse --json`` prints them.

    Logs with frames have the further keys ``samples`` and ``blocks``.
    """
    answer: dict[str, Any] = {"reports": [_report_json(report) for report in parsed.reports]}
    if parsed.blocks or parsed.damaged:
        answer["samples"] = [_report_json(report) for report in parsed.samples]
        answer["blocks"] = [
            {
                "stage": block.stage,
                "line": block.line,
                "uptime_s": block.uptime_s,
                "unchanged_until_s": block.unchanged_until_s,
                "complete": block.complete,
                "ended": block.ended,
                "damaged": block.damaged,
                "facts": {fact.name: fact.value for fact in block.facts},
            }
            for block in parsed.blocks
        ]
    return answer


def _report_json(report: Report) -> dict[str, Any]:
    return {
        "stage": report.stage,
        "lsblk": [
            {
                "name": row.name,
                "size_bytes": row.size_bytes,
                "type": row.type,
                "mountpoints": list(row.mountpoints),
                "line": row.line,
            }
            for row in report.lsblk
        ],
        "df": [
            {
                "filesystem": row.filesystem,
                "size_bytes": row.size_bytes,
                "used_bytes": row.used_bytes,
                "available_bytes": row.available_bytes,
                "mountpoint": row.mountpoint,
                "line": row.line,
            }
            for row in report.df
        ],
        "exact": report.exact,
    }
