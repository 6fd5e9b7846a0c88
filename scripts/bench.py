"""``make bench``: time and memory, side by side in one run.

Prints a table and writes it to ``build/bench`` as ``bench.csv`` and ``benchmarks.md``, with a
figure.  Absolute numbers hold for one machine and one hour; ratios of neighbours in one run
are what to compare.

    python scripts/bench.py [NAME ...]
"""

from __future__ import annotations

import argparse
import http.server
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from bench_boots import bench_boots, bench_shapes
from bench_growth import bench_disks, bench_partitions, bench_runs
from bench_panel import bench_panel
from bench_rows import (
    HEAD,
    Row,
    cells,
    machine,
    markdown,
    mib,
    row,
    side_by_side,
    write_csv,
)
from distributed import Client, LocalCluster

from cloudlab.cli import terminal
from cloudlab.image.build import build_image
from cloudlab.run.boot import boot, boot_many
from cloudlab.run.options import make_options
from cloudlab.run.sweep import sweep
from cloudlab.seed import SeedConfig, build_seed, write_iso

SAMPLES = Path(__file__).parents[1] / "tests" / "data"
MIB = 1 << 20

#: A process's most resident memory; what getrusage says includes its parent's.
_PEAK_KIB = "open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]"

#: A real boot's console, put behind as many lines of no interest as the size asks for.
SAMPLE_LOG = "console-debian-11.log"


def bench_parse(folder: Path) -> Iterator[Row]:
    """Console logs: throughput, and memory that must not follow the size."""
    sample = (SAMPLES / SAMPLE_LOG).read_bytes()
    boring = b"[   12.345678] systemd[1]: Started something of no interest here.\r\n"
    tempting = b"[   12.345678] systemd[1]: Started SIZE of me@cde.f on a Filesystem.\r\n"
    header = b"Filesystem      Size  Used Avail Use% Mounted on\r\n"
    logs = [(f"{size} MiB log", size, boring * 4096) for size in (1, 10, 100, 1000)]
    # Lines that look like the beginning of something cost more than those that do not.
    logs += [
        ("a real boot, repeated", 10, sample),
        ("lines with a header's words", 10, tempting * 4096),
        ("headers without tables", 10, (header + boring * 200) * 20),
    ]
    code = (
        "import sys, time; from cloudlab.sizes import parse_console\n"
        "start = time.perf_counter()\n"
        "with open(sys.argv[1], 'rb') as stream: parse_console(stream)\n"
        f"print(time.perf_counter() - start, {_PEAK_KIB})"
    )
    for name, size_mib, filler in logs:
        log = folder / "console.log"
        with log.open("wb") as stream:
            while stream.tell() < size_mib * MIB:
                stream.write(filler)
            stream.write(sample)
        rates, peaks = [], []
        for _ in range(3 if size_mib <= 100 else 1):
            done = subprocess.run(
                [sys.executable, "-c", code, log], capture_output=True, text=True, check=True
            )
            took_s, peak_kib = map(float, done.stdout.split())
            rates.append(log.stat().st_size / MIB / took_s)
            peaks.append(peak_kib / 1024)
        log.unlink()
        yield row("parse", f"{name}: throughput", "MiB/s", rates)
        scale = size_mib if filler.startswith(boring) else 0.0
        took_s = [size_mib / rate for rate in rates]
        yield row("parse", f"{name}: time", "s", took_s, scale=scale)
        yield row("parse", f"{name}: peak memory", "MiB", peaks, scale=scale)


def bench_explain(folder: Path) -> Iterator[Row]:
    """Logs of other machines, 100 MiB: much that is of no interest, and the same boot repeated."""
    case = SAMPLES / "strangers" / "43-eks-al2023-healthy"
    boot = (case / "cloud-init.log").read_bytes()
    boring = b"2025-06-03 14:02:18,466 - util.py[DEBUG]: Read 3333 bytes from /proc/811/mountinfo\n"
    code = (
        "import sys, time, cloudlab\n"
        "start = time.perf_counter()\n"
        "cloudlab.explain(sys.argv[1])\n"
        f"print(time.perf_counter() - start, {_PEAK_KIB})"
    )
    for name, filler in (("one boot in 100 MiB", boring * 4096), ("a boot, repeated", boot)):
        log = folder / "cloud-init.log"
        with log.open("wb") as stream:
            while stream.tell() < 100 * MIB:
                stream.write(filler)
            stream.write(boot)
        argv = [sys.executable, "-c", code, log]
        done = [subprocess.run(argv, capture_output=True, text=True, check=True) for _ in range(3)]
        log.unlink()
        found = [one.stdout.split() for one in done]
        yield row("explain", f"{name}: time", "s", [float(took_s) for took_s, _ in found])
        peaks = [float(peak_kib) / 1024 for _, peak_kib in found]
        yield row("explain", f"{name}: peak memory", "MiB", peaks)


def bench_import(folder: Path) -> Iterator[Row]:
    """Start-up: what a learner waits for before anything happens."""
    run = partial(subprocess.run, check=True, capture_output=True)
    yield from side_by_side(
        "start-up",
        {
            "python -c pass": lambda: run([sys.executable, "-c", "pass"]),
            "import cloudlab": lambda: run([sys.executable, "-c", "import cloudlab"]),
            "cloudlab --help": lambda: run([sys.executable, "-m", "cloudlab", "--help"]),
        },
        15,
    )


def bench_seed(folder: Path) -> Iterator[Row]:
    """The seed ISO against the tools that others use for it."""
    seed = build_seed(SeedConfig(report=False))
    source = folder / "seed"
    source.mkdir()
    (source / "user-data").write_text(seed.user_data)
    (source / "meta-data").write_text(seed.meta_data)
    files = [source / "user-data", source / "meta-data"]
    genisoimage = ["genisoimage", "-quiet", "-output", folder / "g.iso", "-volid", "cidata",
                   "-joliet", "-rock", *files]  # fmt: skip
    xorriso = ["xorriso", "-as", "mkisofs", "-quiet", "-o", folder / "x.iso", "-V", "cidata",
               "-J", "-R", *files]  # fmt: skip
    run = partial(subprocess.run, check=True, capture_output=True)
    yield from side_by_side(
        "seed",
        {
            "genisoimage": lambda: run(genisoimage),
            "xorriso": lambda: run(xorriso),
            "cloudlab (in process)": lambda: write_iso(seed, folder / "c.iso"),
        },
        9,
    )


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def bench_fetch(folder: Path) -> Iterator[Row]:
    """A download with hashing against curl without, on loopback."""
    size_mib = int(os.environ.get("CLOUDLAB_BENCH_FETCH_MIB", "1024"))
    disk = folder / "disk.raw"
    with disk.open("wb") as stream:
        for _ in range(size_mib):
            stream.write(os.urandom(MIB))
        stream.seek(510)  # what makes it a disk: nothing else is kept
        stream.write(b"\x55\xaa")
    code = (
        "import sys\nfrom cloudlab.image.fetch import fetch\nfetch(sys.argv[1])\n"
        f"print({_PEAK_KIB})"
    )
    peaks: list[float] = []

    def ours(url: str) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            done = subprocess.run(
                [sys.executable, "-c", code, url],
                env={**os.environ, "CLOUDLAB_CACHE": cache},
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            peaks.append(float(done.stdout) / 1024)

    with served(folder) as base:
        url = f"{base}/{disk.name}"
        curl = ["curl", "-sS", "-o", folder / "curl.raw", url]
        yield from side_by_side(
            f"fetch {size_mib} MiB",
            {"curl": lambda: subprocess.run(curl, check=True), "cloudlab fetch": lambda: ours(url)},
            3,
        )
    yield row("fetch", "cloudlab fetch, peak memory", "MiB", peaks)
    disk.unlink()


def bench_build(folder: Path) -> Iterator[Row]:
    """The image in the cache, as it was built: against its own mmdebstrap step."""
    image = build_image()
    took_s = image.details["seconds"]
    whole_s = sum(took_s.values())
    yield row("build", "mmdebstrap", "s", [took_s["packages"]])
    words = f"{whole_s / took_s['packages']:.2f} of mmdebstrap"
    yield row("build", "whole image", "s", [whole_s], words)
    yield row("build", "qcow2", "MiB", [mib(image.file_size_bytes)])


def bench_sweep(folder: Path) -> Iterator[Row]:
    """Warm runs by the number at a time, alone, as a sweep, and as a sweep on Dask's workers."""
    image = build_image()
    sizes = [f"{size}G" for size in (4, 6, 8, 10)]
    # Takes the snapshot, if there is none yet.
    boot(image=image, folder=folder / "first", disk_size="20G")
    for workers in (1, 2):

        def boots(there: Path, workers: int = workers) -> None:
            jobs = [(make_options(image, disk_size=size), there / size) for size in sizes]
            boot_many(jobs, parallel=workers)

        def alone(there: Path, workers: int = workers) -> None:
            sweep(there, image=image, disk_size=sizes, parallel=workers)

        with dask_workers(workers) as executor:

            def by_dask(there: Path, executor: Executor = executor) -> None:
                sweep(there, image=image, disk_size=sizes, executor=executor)

            ways = {"boots": boots, "a sweep": alone, "a sweep by Dask": by_dask}
            times: dict[str, list[float]] = {name: [] for name in ways}
            # In turns, because the machine is not equally fast all the time.
            for turn in range(3):
                for number, (name, way) in enumerate(ways.items()):
                    start_s = time.perf_counter()
                    way(folder / f"{workers}-{turn}-{number}")
                    times[name].append(time.perf_counter() - start_s)
        for name, took in times.items():
            ratio = f"{median(took) / median(times['boots']):.2f} of the boots' time"
            per_minute = [60 * len(sizes) / took_s for took_s in took]
            yield row("sweep", f"{name}, {workers} at a time", "runs/min", per_minute, ratio)


@contextmanager
def dask_workers(count: int) -> Iterator[Executor]:
    """Yield the executor of a scheduler and so many workers, each a process with one thread."""
    with (
        LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor(pure=False)


BENCHMARKS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "parse": bench_parse,
    "explain": bench_explain,
    "import": bench_import,
    "seed": bench_seed,
    "fetch": bench_fetch,
    "build": bench_build,
    "boots": bench_boots,
    "shapes": bench_shapes,
    "sweep": bench_sweep,
    "panel": bench_panel,
    "runs": bench_runs,
    "disks": bench_disks,
    "partitions": bench_partitions,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=3, help="of boots in turns; default 3")
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    args = parser.parse_args()
    unknown = set(args.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    args.output.mkdir(parents=True, exist_ok=True)
    figure = args.output / "benchmarks.svg"
    benchmarks = {**BENCHMARKS, "boots": partial(bench_boots, rounds=args.rounds, figure=figure)}
    rows: list[Row] = []
    for name in args.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="cloudlab-bench-") as folder:
            for one in benchmarks[name](Path(folder)):
                rows.append(one)
                sys.stderr.write(f"{' '.join(cells(one))}\n")
                # What was measured is kept, whatever becomes of the rest.
                write_csv(rows, args.output / "bench.csv")
        (args.output / "benchmarks.md").write_text(markdown(rows, figure.name))
    terminal.say(machine())
    terminal.print_table(HEAD, [cells(one) for one in rows], right="median,least,most,n")


if __name__ == "__main__":
    main()
