"""``make bench``: time and memory, side by side in one run.

Prints a table and writes ``build/bench/bench.csv``.  Absolute numbers hold for one machine
and one hour; ratios of neighbours in one run are what to compare.

    python tests/bench.py [NAME ...]      names: parse, import, seed, fetch, boots
"""

from __future__ import annotations

import argparse
import csv
import http.server
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import psutil

from cloudlab.cli import terminal
from cloudlab.image.build import build_image
from cloudlab.lab import RunOptions, article_runs, run_lab, run_many
from cloudlab.machine.accel import choose_accel
from cloudlab.seed import SeedConfig, build_seed, write_iso

HERE = Path(__file__).parent
MIB = 1 << 20

#: A real boot's console, put behind as many lines of no interest as the size asks for.
SAMPLE_LOG = "console-debian-11.log"


@dataclass(frozen=True)
class Row:
    """One measured thing: median, least and most of its repetitions."""

    benchmark: str
    what: str
    unit: str
    median: float
    least: float
    most: float
    repeats: int
    ratio: str = ""


def row(benchmark: str, what: str, unit: str, values: list[float], ratio: str = "") -> Row:
    return Row(
        benchmark,
        what,
        unit,
        statistics.median(values),
        min(values),
        max(values),
        len(values),
        ratio,
    )


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def side_by_side(
    benchmark: str, contestants: dict[str, Callable[[], object]], repeats: int
) -> list[Row]:
    """Time contestants in turns, A B A B, and give each one's ratio to the first."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, work in contestants.items():
            times[name].append(seconds(work))
    first = next(iter(times))
    base = statistics.median(times[first])
    return [
        row(benchmark, name, "s", values, f"{statistics.median(values) / base:.2f} of {first}")
        for name, values in times.items()
    ]


def bench_parse(folder: Path) -> Iterator[Row]:
    """Console logs of growing size: throughput, and memory that must not follow the size."""
    text = (HERE / "data" / SAMPLE_LOG).read_bytes()
    for size_mib in (1, 10, 100, 1000):
        log = folder / "console.log"
        with log.open("wb") as stream:
            filler = b"[   12.345678] systemd[1]: Started something of no interest here.\r\n" * 4096
            while stream.tell() < size_mib * MIB:
                stream.write(filler)
            stream.write(text)
        code = (
            "import resource, sys, time; from cloudlab.sizes import parse_console\n"
            "start = time.perf_counter()\n"
            "with open(sys.argv[1], 'rb') as stream: parse_console(stream)\n"
            "print(time.perf_counter() - start,"
            " resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        rates, peaks = [], []
        for _ in range(3 if size_mib <= 100 else 1):
            done = subprocess.run(
                [sys.executable, "-c", code, log], capture_output=True, text=True, check=True
            )
            took_s, peak_kib = map(float, done.stdout.split())
            rates.append(log.stat().st_size / MIB / took_s)
            peaks.append(peak_kib / 1024)
        log.unlink()
        yield row("parse", f"{size_mib} MiB log", "MiB/s", rates)
        yield row("parse", f"{size_mib} MiB log, peak memory", "MiB", peaks)


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
    size_mib = 1024
    disk = folder / "disk.raw"
    with disk.open("wb") as stream:
        for _ in range(size_mib):
            stream.write(os.urandom(MIB))
    code = (
        "import resource, sys\nfrom cloudlab.image.fetch import fetch\nfetch(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
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


def bench_boots(folder: Path) -> Iterator[Row]:
    """The article's steps, one run, and the demo's three, in turns on one image."""
    image = build_image()
    accel = choose_accel(image.arch).accel.value
    number = iter(range(1000))

    def article() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            script = ["sh", HERE / "article.sh", image.path, accel, place]
            subprocess.run(script, check=True, stdout=subprocess.DEVNULL)

    def one() -> None:
        run_lab(RunOptions(image), folder / f"run-{next(number)}")

    def three() -> None:
        jobs = [(run, folder / f"demo-{next(number)}") for run in article_runs(RunOptions(image))]
        assert all(run.error is None for run in run_many(jobs))

    own = psutil.Process()
    with _peak(own) as peaks:
        yield from side_by_side(
            "boots",
            {"the article's steps": article, "cloudlab run": one, "three scenarios": three},
            2,
        )
    yield row("boots", "cloudlab's own peak memory", "MiB", [peaks["own"] / MIB])
    yield row("boots", "one QEMU's peak memory", "MiB", [peaks["qemu"] / MIB])
    build = image.details["seconds"]
    whole = sum(build.values())
    yield row("build", "mmdebstrap", "s", [build["packages"]])
    yield row(
        "build", "whole image", "s", [whole], f"{whole / build['packages']:.2f} of mmdebstrap"
    )
    yield row("build", "qcow2", "MiB", [image.file_size_bytes / MIB])


@contextmanager
def _peak(own: psutil.Process) -> Iterator[dict[str, int]]:
    peaks = {"own": 0, "qemu": 0}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            peaks["own"] = max(peaks["own"], own.memory_info().rss)
            for child in own.children(recursive=True):
                try:
                    if child.name().startswith("qemu-system"):
                        peaks["qemu"] = max(peaks["qemu"], child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


BENCHMARKS = {
    "parse": bench_parse,
    "import": bench_import,
    "seed": bench_seed,
    "fetch": bench_fetch,
    "boots": bench_boots,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    args = parser.parse_args()
    unknown = set(args.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    args.output.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in args.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="cloudlab-bench-") as folder:
            rows += BENCHMARKS[name](Path(folder))
    with (args.output / "bench.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(one) for one in rows)
    memory = psutil.virtual_memory().total // (1 << 30)
    terminal.say(
        f"{platform.platform()}, {os.cpu_count()} cores, {memory} GiB, {time.strftime('%F %H:%M')}"
    )
    terminal.print_table(
        ("benchmark", "what", "median", "least", "most", "unit", "n", "ratio"),
        [
            [r.benchmark, r.what, f"{r.median:.2f}", f"{r.least:.2f}", f"{r.most:.2f}", r.unit,
             str(r.repeats), r.ratio]
            for r in rows
        ],
        right="median,least,most,n",
    )  # fmt: skip


if __name__ == "__main__":
    main()
