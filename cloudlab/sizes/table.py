"""The sizes table: tidy, one row per measurement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab import paths
from cloudlab.errors import ParseError
from cloudlab.sizes.report import ParsedConsole, Report, device_of

if TYPE_CHECKING:
    import pandas as pd

#: Column -> pandas dtype, in the table's order.  All are nullable.
#:
#: =============  ========  =====================================================================
#: run            string    the run's name
#: scenario       string    the name of its set of options
#: stage          string    image (as it was before the boot, read by the host), before, after,
#:                          sample; NA where the console does not say
#: time_s         Float64   seconds since launch, or the guest's uptime
#: layer          string    image_file, virtual_disk, partition, filesystem, overlay_file
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
    disk with neither, is left out, as are optical and floppy drives.  Volumes of LVM, RAID and
    encryption are not partitions and have no row, but their filesystems have.

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


def write_sizes(frame: pd.DataFrame, path: Path) -> None:
    """Write a sizes table as CSV, whole or not at all."""
    with paths.whole_file(path) as part:
        frame.to_csv(part, columns=list(SIZES_COLUMNS), index=False, lineterminator="\n")


def read_sizes(path: Path) -> pd.DataFrame:
    """Read a sizes table that :func:`write_sizes` wrote, with its dtypes.

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
    if report.stage is None:
        return None
    around = [b for b in parsed.blocks if b.stage == report.stage and b.line <= report.line]
    return around[-1].uptime_s if around else None


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
        if device.type == "part" or device.name in disks:
            yield row(
                "partition" if device.type == "part" else "virtual_disk",
                "lsblk",
                device.line,
                device=device.name,
                mountpoint=min(device.mountpoints, default=None),
                size_bytes=device.size_bytes,
                exact=report.lsblk_exact,
                start_bytes=starts.get(device.line) if device.type == "part" else None,
            )
    for filesystem in report.df:
        name = device_of(filesystem, report)
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
