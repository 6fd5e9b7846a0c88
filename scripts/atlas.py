"""Boot the atlas of growth: some 250 machines that differ in image, disk size and options.

    python scripts/atlas.py [--output build/atlas] [--parallel N] [--only PART... | --page-only]

Started again, it continues where it was stopped.  Rows of parts that are not booted are kept.  At
the end the table is written, a row per boot, with what it measured, who grew what, or why not,
and where that comes from; and ``docs/atlas.md``, which sums it up.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

import cloudlab
from cloudlab.explanation import Subject
from cloudlab.image.build import build_image
from cloudlab.image.recipe import Filesystem, Suite, Variant
from cloudlab.run.sweep import Sweep, SweepProgress, sweep
from cloudlab.run.tables import write_csv
from cloudlab.units import format_bytes, format_seconds

TABLE = Path(cloudlab.__file__).parent / "run" / "atlas.csv"
PAGE = Path(__file__).parents[1] / "docs" / "atlas.md"

_FILESYSTEMS = list(Filesystem)
_OPTIONS = {"growpart": ["auto", "off"], "resize_rootfs": ["true", "false"]}
#: From just above the image's 2112 MiB to 4 TiB; odd sizes end inside a block group.
_SIZES = ["2200M", "3G", "5G", "9999M", "20G", "77777M", "256G", "1T", "2T", "4T"]
_FEW_SIZES = ["2200M", "5001M", "20G", "300G", "3T"]

#: Around the gain of 1 MiB that growpart needs, a sector more or less.
_EDGES = [(2112 << 20) + 512 * sectors for sectors in (0, 32, 33, 34, 2047, 2048, 2049, 4096)]

#: Name -> what it combines, and whether only pairwise.
PARTS: dict[str, tuple[dict[str, Any], bool]] = {
    # The article's plane in full: its two options, on every filesystem and size.
    "trixie": (
        {"suite": [Suite.TRIXIE], "filesystem": _FILESYSTEMS, "disk_size": _SIZES, **_OPTIONS},
        False,
    ),
    "bookworm": (
        {"suite": [Suite.BOOKWORM], "filesystem": _FILESYSTEMS, "disk_size": _SIZES, **_OPTIONS},
        True,
    ),
    "variants": (
        {
            "filesystem": [Filesystem.EXT4, Filesystem.XFS],
            "variant": [
                Variant.GROWROOT, Variant.GROWFS, Variant.NO_GROWPART, Variant.NOT_LAST, Variant.LVM
            ],
            "disk_size": _FEW_SIZES,
            **_OPTIONS,
        },
        True,
    ),
    "whole-disk": (
        {"suite": [Suite.TRIXIE, Suite.BOOKWORM], "variant": [Variant.WHOLE_DISK],
         "disk_size": _FEW_SIZES, **_OPTIONS},
        True,
    ),
    "repart": (
        {"suite": [Suite.TRIXIE, Suite.BOOKWORM], "filesystem": _FILESYSTEMS,
         "variant": [Variant.REPART],
         "disk_size_bytes": [_EDGES[2], 5001 << 20, 20 << 30, 3 << 40], **_OPTIONS},
        True,
    ),
    "bullseye": ({"suite": [Suite.BULLSEYE], "disk_size": _SIZES, **_OPTIONS}, False),
    "edges": ({"disk_size_bytes": _EDGES}, False),
    # growpart 0.34, which rounds to whole MiB.
    "sid": (
        {"suite": [Suite.SID], "disk_size_bytes": [*_EDGES[2:6], 5001 << 20, 20 << 30, 1 << 40],
         **_OPTIONS},
        True,
    ),
}  # fmt: skip


def rows_of(done: Sweep) -> pd.DataFrame:
    """Return a part's rows of the table."""
    runs = {run.folder.name: run for run in done.runs}
    rows = []
    for cell in done.table.to_dict("records"):
        row: dict[str, Any] = {
            "suite": cell.get("suite", Suite.TRIXIE),
            "filesystem": cell.get("filesystem", Filesystem.EXT4),
            "variant": cell.get("variant", Variant.PLAIN),
        }
        run = runs.get(cell["run"])
        if run is None:
            rows.append({**row, "outcome": cell["outcome"], "reason": cell["reason"]})
            continue
        image = build_image(**{name: str(value) for name, value in row.items()})
        before, after = run.root_sizes("before"), run.root_sizes("after")
        row |= {
            "image": image.name,
            "disk_bytes": run.options.disk_size_bytes,
            "growpart": run.options.growpart or "auto",
            "resize_rootfs": run.options.resize_rootfs or "true",
            "outcome": str(run.outcome),
            "reason": cell["reason"],
            "partition_before_bytes": before.partition_bytes,
            "partition_bytes": after.partition_bytes,
            "filesystem_before_bytes": before.filesystem_bytes,
            "filesystem_bytes": after.filesystem_bytes,
        }
        for subject in (Subject.PARTITION, Subject.FILESYSTEM):
            [*_, statement] = run.explain().of(subject)
            row[f"{subject}_by"] = str(statement.by) if statement.grown else ""
            row[f"{subject}_reason"] = str(statement.reason or "")
        console = (run.folder / "console.log").read_bytes()
        row |= {
            "cloud_init": image.details["cloud_init"],
            "growpart_version": image.details["growpart"],
            "kernel": image.details["kernel"],
            "qemu": run.record.versions.qemu.split(" ")[3],
            "accelerator": run.record.accelerator.name,
            "start": run.record.start.kind,
            "took_s": run.record.took_s,
            "date": run.record.started,
            "image_sha256": image.sha256,
            "console_sha256": hashlib.sha256(console).hexdigest(),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def page(table: pd.DataFrame) -> str:
    """Return the atlas summed up, as Markdown."""
    done = table[table["outcome"] == "done"]
    first, *_, last = sorted(done["date"].str[:10])
    days = f"on {first}" if first == last else f"from {first} to {last}"
    accelerators = ", ".join(sorted(done["accelerator"].str.upper().unique()))
    head = f"""\
# The atlas of growth

{len(done)} boots {days}, of images that `cloudlab build` made, under {accelerators} with QEMU
{", ".join(sorted(done["qemu"].unique()))}. The whole table comes with cloudlab (`cl.atlas()`,
`cloudlab/run/atlas.csv`): what was booted, the sizes before and after, who grew what or why not, the
versions of cloud-init, growpart, kernel and QEMU, and the SHA-256 of image and console. `make atlas`
boots it again and writes table and page.

## Sizes after growth, in bytes

On Debian 13, with growpart and resizefs as they are by default. Filesystems as `df` counts them.
"""
    lines = [head]
    plane = done[done["part"] == "trixie"]
    grown = plane[(plane["growpart"] == "auto") & (plane["resize_rootfs"] == "true")]
    sizes = grown.pivot_table("filesystem_bytes", "disk_bytes", "filesystem", aggfunc="first")
    partitions = grown.groupby("disk_bytes")["partition_bytes"].first()
    lines += ["| disk | partition | ext4 | xfs | btrfs |", "| ---: " * 5 + "|"]
    for disk_bytes, row in sizes.iterrows():
        cells = [partitions[disk_bytes], *(row[name] for name in ("ext4", "xfs", "btrfs"))]
        words = " | ".join(f"{int(one):,}" for one in cells)
        lines.append(f"| {format_bytes(disk_bytes)} | {words} |")
    lines += ["", "## What grew, and what did not", ""]
    lines += ["| image | growpart | resize_rootfs | boots | partition | filesystem |"]
    lines += ["| --- | --- | --- | ---: | --- | --- |"]
    names = ["variant", "growpart", "resize_rootfs"]
    for (variant, *options), rows in done.groupby(names, sort=True):
        outcomes = [_outcomes(rows, subject) for subject in (Subject.PARTITION, Subject.FILESYSTEM)]
        lines.append(f"| {' | '.join([variant, *options, str(len(rows)), *outcomes])} |")
    return "\n".join(lines) + "\n"


def _outcomes(rows: pd.DataFrame, subject: str) -> str:
    """Return who grew it or why nobody did, the most frequent first, with how many boots."""
    by, reason = rows[f"{subject}_by"].fillna(""), rows[f"{subject}_reason"].fillna("")
    counts = by.where(by != "", "not grown: " + reason).value_counts()
    return ", ".join(
        f"{name} ({count})" if len(counts) > 1 else name for name, count in counts.items()
    )


def show(part: str, progress: SweepProgress) -> None:
    """Print how far a part is, in one line."""
    left = "" if progress.left_s is None else f", {format_seconds(progress.left_s)} left"
    failed = f", {progress.failed} failed" * bool(progress.failed)
    print(f"\r{part}: {progress.done} of {progress.total}{failed}{left}    ", end="", flush=True)


def main() -> None:
    """Boot what is left, and write the table and the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("build/atlas"))
    parser.add_argument("--parallel", type=int, help="runs at a time; default: as cores allow")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to boot"
    )
    chosen.add_argument("--page-only", action="store_true", help="write the page of the table")
    args = parser.parse_args()
    tables = dict(iter(cloudlab.atlas().groupby("part", sort=False)))
    for part in [] if args.page_only else args.only:
        values, pairwise = PARTS[part]
        done = sweep(
            args.output / part,
            pairwise=pairwise,
            parallel=args.parallel,
            on_progress=lambda progress, part=part: show(part, progress),
            timeout_s=1200.0,
            **values,
        )
        print()
        tables[part] = rows_of(done).assign(part=part)
    table = pd.concat([tables[part] for part in PARTS if part in tables], ignore_index=True)
    if not args.page_only:
        write_csv(table, TABLE)
    PAGE.write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    main()
