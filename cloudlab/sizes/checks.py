"""Do the numbers agree with each other, and with the rounded ones?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from cloudlab.sizes.report import ParsedConsole, Report
from cloudlab.sizes.table import device_of
from cloudlab.sizes.text import DfRow, LsblkRow


def check_sizes(parsed: ParsedConsole) -> list[str]:
    """Return what contradicts itself in a console's sizes, in words; nothing if all is well.

    Within a report a filesystem is at most as large as its partition and that as its disk;
    exact and rounded reports of one stage agree; from before to after nothing shrinks and
    the guest's uptime rises.
    Rounded numbers are taken as the ranges that :func:`lsblk_range` and :func:`df_range` give.
    """
    found = []
    for report in (*parsed.reports, *parsed.samples):
        found += [*_nesting(report), *_places(report)]
    for report in parsed.reports:
        for other in parsed.reports:
            if report.stage == other.stage is not None and report.exact and not other.exact:
                found += _agreement(report, other)
    found += _times(parsed)
    for exact in (True, False):
        stages = {"before", "after"}
        same = [r for r in parsed.reports if r.exact is exact and r.stage in stages]
        for before, after in pairwise(same):
            if (before.stage, after.stage) == ("before", "after"):
                found += _growth(before, after)
    return found


def lsblk_range(size_bytes: int, *, exact: bool) -> tuple[int, int]:
    """Return the least and the largest size that lsblk prints as ``size_bytes``.

    lsblk rounds to the nearest tenth of the largest unit that fits; versions up to 2.32
    counted tenths in 1024ths, which moves the edges by up to a fortieth of a unit.

    Source: util-linux, lib/strutils.c, size_to_human_string
    """
    if exact:
        return size_bytes, size_bytes
    slack = _unit(size_bytes) * 3 // 40
    return size_bytes - slack, size_bytes + slack


def df_range(size_bytes: int, *, exact: bool) -> tuple[int, int]:
    """Return the least and the largest size that df prints as ``size_bytes``.

    GNU df rounds up: to tenths below 10 units, to whole units from there.  BusyBox rounds
    to about the nearest tenth.

    Source: coreutils, lib/human.c (gnulib), human_ceiling; busybox, libbb/human_readable.c
    """
    unit = _unit(size_bytes)
    if exact or unit == 1:
        # Half of df's smallest usual unit is lost where a block is 512 bytes.
        return (size_bytes - 1023 if exact else size_bytes), size_bytes
    step = unit if size_bytes >= 10 * unit else -(-unit // 10)
    return size_bytes - step, size_bytes + unit * 3 // 40


def _unit(size_bytes: int) -> int:
    unit = 1
    while size_bytes >= 1024 * unit:
        unit *= 1024
    return unit


def _nesting(report: Report) -> Iterator[str]:
    ranges = {
        row.name: lsblk_range(row.size_bytes, exact=report.lsblk_exact) for row in report.lsblk
    }
    for filesystem in report.df:
        name = device_of(filesystem, report)
        least, _ = df_range(filesystem.size_bytes, exact=report.df_exact)
        if report.block:
            least = filesystem.size_bytes
        if name in ranges and least > ranges[name][1]:
            yield (
                f"{_where(report, filesystem)}: the filesystem on {filesystem.mountpoint} "
                f"({filesystem.size_bytes} bytes) is larger than its device {name}."
            )
    disk: LsblkRow | None = None
    for row in report.lsblk:
        if row.type == "disk":
            disk = row
        elif row.type == "part" and disk and ranges[row.name][0] > ranges[disk.name][1]:
            yield (
                f"{_where(report, row)}: the partition {row.name} ({row.size_bytes} bytes) "
                f"is larger than its disk {disk.name} ({disk.size_bytes} bytes)."
            )


def _places(report: Report) -> Iterator[str]:
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
    sizes = {row.name: row.size_bytes for row in exact.lsblk}
    for row in rounded.lsblk:
        least, largest = lsblk_range(row.size_bytes, exact=rounded.lsblk_exact)
        if row.name in sizes and not least <= sizes[row.name] <= largest:
            yield (
                f"{_where(rounded, row)}: lsblk shows {row.name} with {row.size_bytes} bytes, "
                f"the exact report with {sizes[row.name]}."
            )
    mounted = {row.mountpoint: row.size_bytes for row in exact.df}
    for row_ in rounded.df:
        least, largest = df_range(row_.size_bytes, exact=rounded.df_exact)
        if row_.mountpoint in mounted and not least <= mounted[row_.mountpoint] <= largest:
            yield (
                f"{_where(rounded, row_)}: df shows {row_.mountpoint} with {row_.size_bytes} "
                f"bytes, the exact report with {mounted[row_.mountpoint]}."
            )


def _growth(before: Report, after: Report) -> Iterator[str]:
    devices = {row.name: row.size_bytes for row in before.lsblk}
    for row in after.lsblk:
        if row.size_bytes < devices.get(row.name, 0):
            yield (
                f"{_where(after, row)}: {row.name} shrank from {devices[row.name]} "
                f"to {row.size_bytes} bytes."
            )
    filesystems = {row.mountpoint: row.size_bytes for row in before.df}
    for mounted in after.df:
        if mounted.size_bytes < filesystems.get(mounted.mountpoint, 0):
            yield (
                f"{_where(after, mounted)}: the filesystem on {mounted.mountpoint} shrank from "
                f"{filesystems[mounted.mountpoint]} to {mounted.size_bytes} bytes."
            )


def _times(parsed: ParsedConsole) -> Iterator[str]:
    latest_s = 0.0
    for block in sorted(parsed.blocks, key=lambda block: block.line):
        if block.stage == "before":  # after a reboot, uptime begins anew
            latest_s = 0.0
        if block.uptime_s is None:
            continue
        latest_s = max(latest_s, block.unchanged_until_s or 0.0)
        if block.uptime_s < latest_s:
            yield (
                f"line {block.line} ({block.stage}): the report was made at {block.uptime_s:.1f} s "
                f"of the guest's uptime, and before it {latest_s:.1f} s had passed already."
            )
        latest_s = max(latest_s, block.uptime_s)


def _where(report: Report, row: LsblkRow | DfRow) -> str:
    return f"line {row.line}" + (f" ({report.stage})" if report.stage else "")
