"""How cost grows: with runs, with the disk, with partitions."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from bench_rows import Row, mib, row, seconds, watched

from cloudlab import figures
from cloudlab.disk import DiskLayout, inspect_disk
from cloudlab.image.build import build_image
from cloudlab.units import GIB

_RUNS = (1, 2, 4, 8, 16)
_DISKS = {"3 GiB": 3 * GIB, "20 GiB": 20 * GIB, "200 GiB": 200 * GIB, "2 TiB": 2 << 40,
          "8 TiB": 8 << 40}  # fmt: skip
_PARTITIONS = (1, 4, 16, 64, 128)

# In a process of its own, so that memory is that of these runs alone.
_RUN_MANY = """
import json, sys
from pathlib import Path
from cloudlab.image.cache import open_image
from cloudlab.run.boot import boot_many
from cloudlab.run.options import Options
image, folder, sizes = open_image(Path(sys.argv[1])), Path(sys.argv[2]), json.loads(sys.argv[3])
runs = boot_many([(Options(image, disk_size_bytes=size), folder / str(number))
                 for number, size in enumerate(sizes)])
assert all(run.error is None for run in runs), [run.error for run in runs]
print(json.dumps([run.record.to_json() for run in runs]))
"""


def _run_many(folder: Path, sizes: list[int]) -> tuple[float, float, list[dict]]:
    """Return seconds, peak memory in MiB, and the records."""
    argv = [sys.executable, "-c", _RUN_MANY, build_image().path, folder, json.dumps(sizes)]
    started = time.perf_counter()
    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
        watched(process.pid) as use,
    ):
        said, _ = process.communicate()
    took_s = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{len(sizes)} runs failed with exit code {process.returncode}")
    return took_s, mib(use.own_bytes), json.loads(said)


def bench_runs(folder: Path) -> Iterator[Row]:
    """1 to 16 warm runs, as many at a time as cores and memory allow."""
    _run_many(folder / "saver", [20 * GIB])
    first_s = 0.0
    for count in _RUNS:
        place = folder / f"runs-{count}"
        took_s, memory_mib, _ = _run_many(place, [20 * GIB] * count)
        first_s = first_s or took_s
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        note = f"{took_s / count / first_s:.2f} of one run, for each"
        yield row("runs", f"{count}: time", "s", [took_s], note, scale=count)
        yield row("runs", f"{count}: cloudlab's memory", "MiB", [memory_mib], scale=count)
        yield row("runs", f"{count}: run folders", "KiB", [size / 1024], scale=count)


def bench_disks(folder: Path) -> Iterator[Row]:
    """A warm run on disks of 3 GiB to 8 TiB."""
    for name, size_bytes in _DISKS.items():
        _, _, [about] = _run_many(folder / name.replace(" ", "-"), [size_bytes])
        start = f"a {about['start']['kind']} run"
        end_mib = mib(about["overlay"]["end_bytes"])
        yield row("disk", f"{name}: {start}", "s", [about["took_s"]], scale=size_bytes)
        yield row("disk", f"{name}: overlay at the end", "MiB", [end_mib], scale=size_bytes)


def bench_partitions(folder: Path) -> Iterator[Row]:
    """Reading and drawing disks of 1 to 128 partitions."""
    for count in _PARTITIONS:
        disk = folder / f"disk-{count}.raw"
        with disk.open("wb") as stream:
            stream.truncate(4 * GIB)
        lines = "label: gpt\n" + "size=16MiB\n" * count
        subprocess.run(["sfdisk", "-q", disk], input=lines, text=True, check=True)
        inspected = [seconds(lambda disk=disk: inspect_disk(disk, "raw")) for _ in range(5)]
        yield row("partitions", f"{count}: inspect", "s", inspected, scale=count)
        sizes = _sizes_of(inspect_disk(disk, "raw"))
        drawn = seconds(
            lambda sizes=sizes: figures.plot("disk-map", {"sizes": sizes}, size="slide")
        )
        yield row("partitions", f"{count}: draw the disk map", "s", [drawn], scale=count)


def _sizes_of(layout: DiskLayout) -> pd.DataFrame:
    from cloudlab.sizes import sizes_frame

    common = {"run": "disk", "scenario": "partitions", "exact": True, "source": "host"}
    disk = {**common, "layer": "virtual_disk", "device": "vda",
            "size_bytes": layout.virtual_size_bytes, "start_bytes": 0}  # fmt: skip
    parts = [
        {**common, "layer": "partition", "device": f"vda{one.number}",
         "size_bytes": one.size_bytes, "start_bytes": one.start_bytes}
        for one in layout.partitions
    ]  # fmt: skip
    return sizes_frame([{**one, "stage": stage} for stage in ("before", "after")
                        for one in (disk, *parts)])  # fmt: skip
