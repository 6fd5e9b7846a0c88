"""What a console said about sizes: as values, JSON and the tidy table, and whether it agrees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudlab.errors import ParseError
from cloudlab.sizes.frames import GuestBlock, GuestDevice, Stage
from cloudlab.sizes.lines import Unread
from cloudlab.sizes.listings import DfRow, LsblkRow

if TYPE_CHECKING:
    import pandas as pd

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


_LSBLK_KEYS = "name", "size_bytes", "type", "mountpoints", "line"


def _report_json(report: Report) -> dict[str, Any]:
    return {
        "stage": report.stage,
        "lsblk": [
            {name: getattr(row, name) for name in _LSBLK_KEYS}
            | {"mountpoints": list(row.mountpoints)}
            for row in report.lsblk
        ],
        "df": [asdict(row) for row in report.df],
        "exact": report.exact,
    }


def _device_of(row: DfRow, report: Report) -> str | None:
    """Return lsblk's name for the device of a df row; None if it is not a disk's."""
    name = row.filesystem
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
    slack = 0 if exact else largest_unit(size_bytes) * 3 // 40
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
    unit = largest_unit(size_bytes, base)
    if unit == 1:
        return size_bytes, size_bytes
    step = unit if size_bytes >= 10 * unit else -(-unit // 10)
    return size_bytes - step, size_bytes + unit * 3 // 40


def largest_unit(size_bytes: int, base: int = 1024) -> int:
    """Return the largest power of ``base`` that a size holds; 1 for less."""
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
        device = devices.get(_device_of(row, report))
        least = one.size_bytes if report.block else one.least_bytes
        if device and least > device.most_bytes:
            yield (
                f"{one.where}: the filesystem on {one.key} ({one.size_bytes:,} bytes) is larger "
                f"than its device {device.key}."
            )
    disk: _Measure | None = None
    for part, one in zip(report.lsblk, measures, strict=False):
        if part.type == "disk":
            disk = one
        elif part.type == "part" and disk and one.least_bytes > disk.most_bytes:
            yield (
                f"{one.where}: the partition {one.key} ({one.size_bytes:,} bytes) is larger than "
                f"its disk {disk.key} ({disk.size_bytes:,} bytes)."
            )


def _ends(report: Report) -> Iterator[str]:
    devices = report.block.devices if report.block else ()
    sizes = {device.name: device.size_bytes for device in devices}
    for device in devices:
        end_bytes = device.start_bytes + device.size_bytes
        if device.parent in sizes and device.type == "part" and end_bytes > sizes[device.parent]:
            yield (
                f"line {device.line}: the partition {device.name} ends at byte {end_bytes:,}, "
                f"behind the end of its disk {device.parent}."
            )


def _agreement(exact: Report, rounded: Report) -> Iterator[str]:
    sizes = {(one.tool, one.key): one.size_bytes for one in _measures(exact)}
    for one in _measures(rounded):
        size_bytes = sizes.get((one.tool, one.key))
        if size_bytes is not None and not one.least_bytes <= size_bytes <= one.most_bytes:
            yield (
                f"{one.where}: {one.tool} shows {one.key} with {one.size_bytes:,} bytes, "
                f"the exact report with {size_bytes:,}."
            )


def _shrinking(before: Report, after: Report) -> Iterator[str]:
    units = (before.df_base, before.df_block_bytes) == (after.df_base, after.df_block_bytes)
    sizes = {(one.tool, one.key): one.size_bytes for one in _measures(before)}
    for one in _measures(after):
        size_bytes = sizes.get((one.tool, one.key), 0)
        if one.size_bytes < size_bytes and (units or one.tool == "lsblk"):
            what = one.key if one.tool == "lsblk" else f"the filesystem on {one.key}"
            yield f"{one.where}: {what} shrank from {size_bytes:,} to {one.size_bytes:,} bytes."


# ---- the sizes table ----

#: Column -> pandas dtype, in the table's order.  All are nullable.
#:
#: =============  ========  =====================================================================
#: run            string    the run's name
#: scenario       string    the name of its set of options
#: stage          string    image (as it was before the boot, read by the host), before, after,
#:                          sample; NA where the console does not say
#: time_s         Float64   seconds since launch, or the guest's uptime
#: layer          string    image_file, virtual_disk, partition, logical_volume, luks, filesystem,
#:                          overlay_file
#: device         string    without /dev/, e.g. vda1
#: mountpoint     string    NA where nothing is mounted
#: size_bytes     Int64     bytes; of a filesystem as statfs, and so df, counts them
#: used_bytes     Int64     bytes, of filesystems and files
#: exact          boolean   False where the number came from rounded text such as 19.9G
#: source         string    host or console, and which tool, e.g. ``console: lsblk``
#: line           Int64     the transcript's line, from 1
#: start_bytes    Int64     where a partition starts on its disk, where known
#: =============  ========  =====================================================================
SIZES_COLUMNS: Mapping[str, str] = {
    "run": "string",
    "scenario": "string",
    "stage": "string",
    "time_s": "Float64",
    "layer": "string",
    "device": "string",
    "mountpoint": "string",
    "size_bytes": "Int64",
    "used_bytes": "Int64",
    "exact": "boolean",
    "source": "string",
    "line": "Int64",
    "start_bytes": "Int64",
}


def sizes_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a sizes table; missing values are NA.

    Raises
    ------
    ParseError
        If a row has a column that the table does not have.
    """
    import pandas as pd

    rows = list(rows)
    unknown = {name for row in rows for name in row} - SIZES_COLUMNS.keys()
    if unknown:
        raise ParseError(
            f"The sizes table has no column {', '.join(sorted(unknown))}.",
            hint=f"Its columns are {', '.join(SIZES_COLUMNS)}.",
        )
    return pd.DataFrame(
        {
            name: pd.Series([row.get(name) for row in rows], dtype=dtype)
            for name, dtype in SIZES_COLUMNS.items()
        }
    )


def console_sizes(
    parsed: ParsedConsole,
    *,
    run: str = "",
    scenario: str = "",
    times: Mapping[int, float] | None = None,
) -> pd.DataFrame:
    """Return a console's sizes as a sizes table.

    A *virtual_disk* is a disk with partitions or with the root filesystem; the seed, a small
    disk with neither, is left out, as are optical and floppy drives.

    Parameters
    ----------
    parsed : ParsedConsole
    run, scenario : str
        Values of these columns.
    times : mapping of int to float, optional
        Line -> seconds; lines without one get the guest's uptime from the block's first frame.
    """
    common = {"run": run, "scenario": scenario}
    reports = sorted((*parsed.reports, *parsed.samples), key=lambda report: report.line)
    return sizes_frame(
        common | row
        for report in reports
        for row in _report_rows(report, times or {}, _uptime(report, parsed))
    )


def read_sizes(path: Path) -> pd.DataFrame:
    """Read a sizes table from CSV, with its dtypes.

    Raises
    ------
    ParseError
        If the file is missing or not a sizes table.
    """
    import pandas as pd

    try:
        # As text first: pandas before 3 changes the last digit of many floats.
        dtypes = dict(SIZES_COLUMNS) | {"time_s": "string"}
        frame = pd.read_csv(path, dtype=dtypes, keep_default_na=False, na_values=[""])
        return frame[list(SIZES_COLUMNS)].astype(dict(SIZES_COLUMNS))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ParseError(
            f"The sizes table {path} cannot be read: {error}.",
            hint=f"Its columns are {', '.join(SIZES_COLUMNS)}. 'cloudlab parse' prints the sizes "
            "in the console log beside it.",
        ) from error


def _uptime(report: Report, parsed: ParsedConsole) -> float | None:
    if report.block:
        return report.block.uptime_s
    around = [b for b in parsed.blocks if b.stage == report.stage and b.line <= report.line]
    return around[-1].uptime_s if around else None


#: A device's type -> its layer.
_LAYERS = {"part": "partition", "lvm": "logical_volume", "crypt": "luks"}


def _report_rows(
    report: Report, times: Mapping[int, float], uptime_s: float | None
) -> Iterator[dict[str, Any]]:
    block = report.block
    starts = {device.line: device.start_bytes for device in block.devices} if block else {}
    disks = _virtual_disks(report)
    others = {row.name for row in report.lsblk if row.type in {"disk", "rom", "loop"}} - disks

    def row(layer: str, tool: str, line: int, **values: Any) -> dict[str, Any]:
        source = "console: exact" if block else f"console: {tool}"
        common = {"stage": report.stage, "time_s": times.get(line, uptime_s)}
        return common | {"layer": layer, "source": source, "line": line} | values

    for device in report.lsblk:
        layer = _LAYERS.get(device.type, "virtual_disk" if device.name in disks else "")
        if layer:
            yield row(
                layer,
                "lsblk",
                device.line,
                device=device.name,
                mountpoint=min(device.mountpoints, default=None),
                size_bytes=device.size_bytes,
                exact=report.lsblk_exact,
                start_bytes=starts.get(device.line) if device.type == "part" else None,
            )
    for filesystem in report.df:
        name = _device_of(filesystem, report)
        if name is not None and name not in others:
            yield row(
                "filesystem",
                "df",
                filesystem.line,
                device=name,
                mountpoint=filesystem.mountpoint,
                size_bytes=filesystem.size_bytes,
                used_bytes=filesystem.used_bytes,
                exact=report.df_exact,
            )


def _virtual_disks(report: Report) -> set[str]:
    disks = set()
    for row, following in zip_longest(report.lsblk, report.lsblk[1:]):
        if row.type != "disk":
            continue
        if report.block:
            has_parts = any(device.parent == row.name for device in report.block.devices)
        else:
            # lsblk prints a disk's partitions right below it.
            has_parts = following is not None and following.type not in {"disk", "rom", "loop"}
        if has_parts or "/" in row.mountpoints:
            disks.add(row.name)
    return disks
