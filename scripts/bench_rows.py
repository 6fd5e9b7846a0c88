"""What a benchmark yields, and how it is written down."""

from __future__ import annotations

import csv
import math
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import psutil

from cloudlab.units import MIB

#: Seconds between two looks at a process and its children.
_LOOK_S = 0.1


@dataclass(frozen=True)
class Row:
    """One measured thing: median, least and most of its repetitions.

    ``scale`` says of how much it was (runs, bytes ...), where rows differ in that alone.
    """

    benchmark: str
    what: str
    unit: str
    median: float
    least: float
    most: float
    repeats: int
    ratio: str = ""
    scale: float = 0.0


def row(
    benchmark: str,
    what: str,
    unit: str,
    values: Sequence[float],
    ratio: str = "",
    *,
    scale: float = 0.0,
) -> Row:
    """Return the row of a thing that was measured several times."""
    middle = statistics.median(values)
    return Row(benchmark, what, unit, middle, min(values), max(values), len(values), ratio, scale)


def ratio(values: Sequence[float], base: Sequence[float], of: str) -> str:
    """Return the ratio of two medians, in words."""
    return f"{statistics.median(values) / statistics.median(base):.2f} of {of}"


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
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
    return [
        row(benchmark, name, "s", values, ratio(values, times[first], first))
        for name, values in times.items()
    ]


@dataclass
class Use:
    """What a process and its children used.

    Attributes
    ----------
    own_bytes, qemu_bytes : int
        Most resident memory of one process that is QEMU, and of one that is not.
    written : dict
        Process number -> bytes that it had written when it was looked at last.
    """

    own_bytes: int = 0
    qemu_bytes: int = 0
    written: dict[int, int] = field(default_factory=dict)

    def look(self, owner: psutil.Process) -> None:
        """Look at a process and its children."""
        for process in [owner, *owner.children(recursive=True)]:
            try:
                with process.oneshot():
                    size = process.memory_info().rss
                    if process.name().startswith("qemu-system"):
                        self.qemu_bytes = max(self.qemu_bytes, size)
                    else:
                        self.own_bytes = max(self.own_bytes, size)
                    self.written[process.pid] = process.io_counters().write_bytes
            except psutil.Error:
                continue

    @property
    def written_bytes(self) -> int:
        """What all of them handed to the host's disks."""
        return sum(self.written.values())


@contextmanager
def watched(pid: int | None = None) -> Iterator[Use]:
    """Watch a process (by default this one) and its children while the block runs."""
    use, stop = Use(), threading.Event()
    owner = psutil.Process(pid)

    def watch() -> None:
        while not stop.wait(_LOOK_S):
            try:
                use.look(owner)
            except psutil.NoSuchProcess:
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield use
    finally:
        stop.set()
        thread.join()


def machine() -> str:
    """Return on what, and when, this is measured."""
    memory = psutil.virtual_memory().total >> 30
    kernel = f"{platform.system()} {platform.machine()}"
    return (
        f"{kernel}, {os.cpu_count()} cores, {memory} GiB of memory, Python "
        f"{platform.python_version()}, on {time.strftime('%Y-%m-%d')}"
    )


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as they are."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(one) for one in rows)


def cells(one: Row) -> list[str]:
    """Return a row as it is read."""
    numbers = [number_text(value) for value in (one.median, one.least, one.most)]
    return [one.benchmark, one.what, *numbers, one.unit, str(one.repeats), one.ratio]


HEAD = ("benchmark", "what", "median", "least", "most", "unit", "n", "ratio")


def number_text(value: float) -> str:
    """Return a number with three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown(rows: Sequence[Row], figure: str) -> str:
    """Return the page that the documentation shows."""
    lines = [
        "# Benchmarks",
        "",
        f"Measured by `make bench` on {machine()}. Seconds hold for that machine and hour; the",
        "ratios of neighbours, which ran in turns in one session, are what to compare.",
        "",
        f"![Where the time goes, by boot stage]({figure})",
        "",
        "| " + " | ".join(HEAD) + " |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    lines += ["| " + " | ".join(cells(one)) + " |" for one in rows]
    grown = growth(rows)
    if grown:
        lines += ["", "## How cost grows", "", *(f"- {one}" for one in grown)]
    return "\n".join(lines) + "\n"


#: A cost that grows with a power of the size between these is called linear.
_LINEAR = (0.85, 1.15)
_LEAST_ROWS = 3


def growth(rows: Sequence[Row]) -> list[str]:
    """Return for each cost that was measured at several sizes how it grows, in words.

    By the power n of the size that fits best (least squares over the logarithms).
    """
    series: dict[tuple[str, str], list[Row]] = {}
    for one in rows:
        if one.scale:
            name = one.what.rpartition(": ")[2]
            series.setdefault((one.benchmark, name), []).append(one)
    told = []
    for (benchmark, name), found in series.items():
        if len(found) < _LEAST_ROWS:
            continue
        sizes = [math.log(one.scale) for one in found]
        costs = [math.log(max(one.median, 1e-9)) for one in found]
        power = statistics.linear_regression(sizes, costs).slope
        kind = "below linear" if power < _LINEAR[0] else "linear"
        kind = "above linear" if power > _LINEAR[1] else kind
        whole, step = (
            f"{number_text(found[-1].scale / start.scale)} times the size costs "
            f"{number_text(found[-1].median / start.median)} times as much"
            for start in (found[0], found[-2])
        )
        told.append(
            f"{benchmark}, {name}: {whole} ({kind}, power {power:.2f}); in the last step, {step}."
        )
    return told


def mib(size_bytes: float) -> float:
    """Return bytes as MiB."""
    return size_bytes / MIB
