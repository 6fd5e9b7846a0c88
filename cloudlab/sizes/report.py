"""What a console said about sizes, as values and as JSON, and whether it agrees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from cloudlab.sizes.frames import GuestBlock, GuestDevice, GuestFilesystem, Stage
from cloudlab.sizes.lines import Unread
from cloudlab.sizes.listings import DfRow, LsblkRow

# Block devices, but neither optical nor floppy drives nor files looped as disks.
_NO_DISKS = ("/dev/sr", "/dev/fd", "/dev/loop", "/dev/zram", "/dev/ram")


@dataclass(frozen=True, slots=True)
class Report:
    """One picture of the guest's disk.

    Attributes
    ----------
    stage : str or None
        ``before``, ``after`` or ``sample``; None for listings outside any block of frames.
    lsblk, df : tuple
        Rows in the order in which they were printed; either may be empty.
    lsblk_exact, df_exact : bool
        Whether all numbers of that listing are exact rather than rounded.
    df_base : int
        1000 where df's units are powers of 1000, else 1024.
    df_block_bytes : int or None
        The size that df rounded to; None where each number has its own unit.
    block : GuestBlock or None
        The frames it was made of; None for listings.
    """

    stage: Stage | None
    lsblk: tuple[LsblkRow, ...] = ()
    df: tuple[DfRow, ...] = ()
    lsblk_exact: bool = True
    df_exact: bool = True
    df_base: int = 1024
    df_block_bytes: int | None = None
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
        Frames that could not be read, within blocks and outside.
    unread : tuple of Unread
        Lines that look like rows of lsblk or df but were not understood.
    """

    reports: tuple[Report, ...]
    samples: tuple[Report, ...]
    blocks: tuple[GuestBlock, ...]
    damaged: int
    unread: tuple[Unread, ...] = ()

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
        block=block,
    )


def to_json(parsed: ParsedConsole) -> dict[str, Any]:
    """Return the reports as ``cloudlab parse --json`` prints them.

    Logs with frames have the further keys ``samples`` and ``blocks``; where rows were not
    understood there is a key ``unread``: tool, text and line of each.
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
    if parsed.unread:
        answer["unread"] = [asdict(one) for one in parsed.unread]
    return answer


def _report_json(report: Report) -> dict[str, Any]:
    return {
        "stage": report.stage,
        "lsblk": [asdict(row) | {"mountpoints": list(row.mountpoints)} for row in report.lsblk],
        "df": [asdict(row) for row in report.df],
        "exact": report.exact,
    }


def device_of(row: DfRow | GuestFilesystem, report: Report) -> str | None:
    """Return lsblk's name for the device of a df row; None if it is not a disk's."""
    name = row.filesystem if isinstance(row, DfRow) else f"/dev/{row.device}"
    # df may know the root's device by another name, such as /dev/root.
    mounted = {device.name for device in report.lsblk if row.mountpoint in device.mountpoints}
    if name is None:
        return min(mounted, default=None)
    if not name.startswith("/dev/") or name.startswith(_NO_DISKS):
        return None
    short = name.removeprefix("/dev/").removeprefix("mapper/")
    return short if short in mounted or not mounted else min(mounted)


# ---- do the numbers agree ----


class _Measure(NamedTuple):
    """A size in a report: what it is of, where it stands, and the range it was rounded from."""

    tool: str
    key: str | None
    size_bytes: int
    where: str
    least_bytes: int
    most_bytes: int


def check_sizes(parsed: ParsedConsole) -> list[str]:
    """Return the contradictions between a console's sizes, one sentence each.

    Within a report a filesystem is at most as large as its partition, and that as its disk;
    exact and rounded reports of one stage agree; from before to after nothing shrinks and
    the guest's uptime rises.
    Rounded numbers stand for the ranges that :func:`lsblk_range` and :func:`df_range` give.
    """
    found = []
    for report in (*parsed.reports, *parsed.samples):
        found += [*_nesting(report), *_ends(report)]
    for report in parsed.reports:
        for other in parsed.reports:
            if report.stage == other.stage is not None and report.exact and not other.exact:
                found += _agreement(report, other)
    found += _times(parsed)
    for exact in (True, False):
        same = [r for r in parsed.reports if r.exact is exact and r.stage in {"before", "after"}]
        for before, after in pairwise(same):
            if (before.stage, after.stage) == ("before", "after"):
                found += _shrinking(before, after)
    return found


def _times(parsed: ParsedConsole) -> Iterator[str]:
    latest_s = 0.0
    for block in sorted(parsed.blocks, key=lambda block: block.line):
        if block.stage == "before":  # after a reboot the uptime starts again
            latest_s = 0.0
        if block.uptime_s is None:
            continue
        latest_s = max(latest_s, block.unchanged_until_s or 0.0)
        if block.uptime_s < latest_s:
            yield (
                f"line {block.line} ({block.stage}): the report was made at {block.uptime_s:.1f} s "
                f"of the guest's uptime, after an earlier one at {latest_s:.1f} s."
            )
        latest_s = max(latest_s, block.uptime_s)


def lsblk_range(size_bytes: int, *, exact: bool) -> tuple[int, int]:
    """Return the least and the largest size that lsblk prints as ``size_bytes``.

    lsblk rounds to the nearest tenth of the largest unit that fits; versions up to 2.32
    counted tenths in 1024ths, which moves the edges by up to a fortieth of a unit.

    Source: util-linux, lib/strutils.c, size_to_human_string
    """
    slack = 0 if exact else _unit(size_bytes, 1024) * 3 // 40
    return size_bytes - slack, size_bytes + slack


def df_range(
    size_bytes: int, *, exact: bool, base: int = 1024, block_bytes: int | None = None
) -> tuple[int, int]:
    """Return the least and the largest size that df prints as ``size_bytes``.

    GNU df rounds up: to a whole block or, with human units, to tenths below 10 units and to
    whole units from there.  BusyBox and the BSDs round human units to about the nearest tenth
    and blocks down.

    Source: coreutils, lib/human.c (gnulib), human_ceiling; busybox, libbb/human_readable.c;
    FreeBSD, bin/df/df.c and lib/libutil/humanize_number.c
    """
    if exact or block_bytes:
        # Half of df's smallest usual unit is lost where a block is 512 bytes.
        block_bytes = max(block_bytes or 0, 1024)
        return size_bytes - block_bytes + 1, size_bytes + (0 if exact else block_bytes - 1)
    unit = _unit(size_bytes, base)
    if unit == 1:
        return size_bytes, size_bytes
    step = unit if size_bytes >= 10 * unit else -(-unit // 10)
    return size_bytes - step, size_bytes + unit * 3 // 40


def _unit(size_bytes: int, base: int) -> int:
    unit = 1
    while size_bytes >= base * unit:
        unit *= base
    return unit


def _measures(report: Report) -> Iterator[_Measure]:
    stage = f" ({report.stage})" if report.stage else ""
    for row in report.lsblk:
        ends = lsblk_range(row.size_bytes, exact=report.lsblk_exact)
        yield _Measure("lsblk", row.name, row.size_bytes, f"line {row.line}{stage}", *ends)
    for mount in report.df:
        size_bytes, key = mount.size_bytes, mount.mountpoint or mount.filesystem
        ends = df_range(
            size_bytes,
            exact=report.df_exact,
            base=report.df_base,
            block_bytes=report.df_block_bytes,
        )
        yield _Measure("df", key, size_bytes, f"line {mount.line}{stage}", *ends)


def _nesting(report: Report) -> Iterator[str]:
    measures = list(_measures(report))
    devices = {one.key: one for one in measures if one.tool == "lsblk"}
    for row, one in zip(report.df, measures[len(report.lsblk) :], strict=True):
        device = devices.get(device_of(row, report))
        least = one.size_bytes if report.block else one.least_bytes
        if device and least > device.most_bytes:
            yield (
                f"{one.where}: the filesystem on {one.key} ({one.size_bytes} bytes) is larger "
                f"than its device {device.key}."
            )
    disk: _Measure | None = None
    for part, one in zip(report.lsblk, measures, strict=False):
        if part.type == "disk":
            disk = one
        elif part.type == "part" and disk and one.least_bytes > disk.most_bytes:
            yield (
                f"{one.where}: the partition {one.key} ({one.size_bytes} bytes) is larger than "
                f"its disk {disk.key} ({disk.size_bytes} bytes)."
            )


def _ends(report: Report) -> Iterator[str]:
    devices = report.block.devices if report.block else ()
    sizes = {device.name: device.size_bytes for device in devices}
    for device in devices:
        end_bytes = device.start_bytes + device.size_bytes
        if device.parent in sizes and device.type == "part" and end_bytes > sizes[device.parent]:
            yield (
                f"line {device.line}: the partition {device.name} ends at byte {end_bytes}, "
                f"behind the end of its disk {device.parent}."
            )


def _agreement(exact: Report, rounded: Report) -> Iterator[str]:
    sizes = {(one.tool, one.key): one.size_bytes for one in _measures(exact)}
    for one in _measures(rounded):
        size_bytes = sizes.get((one.tool, one.key))
        if size_bytes is not None and not one.least_bytes <= size_bytes <= one.most_bytes:
            yield (
                f"{one.where}: {one.tool} shows {one.key} with {one.size_bytes} bytes, "
                f"the exact report with {size_bytes}."
            )


def _shrinking(before: Report, after: Report) -> Iterator[str]:
    units = (before.df_base, before.df_block_bytes) == (after.df_base, after.df_block_bytes)
    sizes = {(one.tool, one.key): one.size_bytes for one in _measures(before)}
    for one in _measures(after):
        size_bytes = sizes.get((one.tool, one.key), 0)
        if one.size_bytes < size_bytes and (units or one.tool == "lsblk"):
            what = one.key if one.tool == "lsblk" else f"the filesystem on {one.key}"
            yield f"{one.where}: {what} shrank from {size_bytes} to {one.size_bytes} bytes."
