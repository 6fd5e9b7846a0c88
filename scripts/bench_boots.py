"""Boots, in turns: the article's own steps, and what cloudlab makes of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Self

from bench_rows import Row, Use, mib, ratio, row, watched

from cloudlab import figures, paths
from cloudlab.console import ORDER, BootWatcher, LineSplitter
from cloudlab.image.build import build_image
from cloudlab.image.cache import open_image
from cloudlab.machine.accel import choose_accel
from cloudlab.machine.config import Firmware
from cloudlab.run.boot import boot
from cloudlab.run.options import Options, Start
from cloudlab.units import GIB

HERE = Path(__file__).parent

#: The article's three user-data texts.
_ARTICLE = ("", "resize_rootfs: false", "growpart: {mode: 'off'}")

#: What each round boots, in this order, so that no contestant always comes first.
_ONE = "the article's steps"
_THREE = "the article's steps, three times"
_FULL = "cloudlab run --profile full --start cold"
_COLD = "cloudlab run --start cold"
_WARM = "cloudlab run"
_DEMO_COLD = "cloudlab demo, nothing saved"
_DEMO_WARM = "cloudlab demo"

_Stages = list[tuple[str, float, float]]


class Rounds:
    """Several rounds of boots, and what they took.

    Attributes
    ----------
    times_s : dict
        Contestant -> seconds, one number a round (three for the article's one run).
    use : dict
        Contestant -> what it used in its last round.
    stages : dict
        Contestant -> stage -> seconds, one number a boot.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = build_image()
        self.accel = choose_accel(self.image.arch).accel.value
        self.times_s: dict[str, list[float]] = defaultdict(list)
        self.use: dict[str, Use] = {}
        self.stages: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.run_folders: list[Path] = []
        self._number = 0
        # A cache of its own: what is saved in it comes and goes.
        self.cache = folder / "cache"
        shutil.copytree(paths.images_folder(), self.cache / "images")
        for record in paths.cache_folder().glob("accelerator-*.json"):
            shutil.copy2(record, self.cache)

    def go(self) -> None:
        """Boot everything once."""
        three_s = self._article(_ARTICLE[0])
        shutil.rmtree(self.cache / "snapshots", ignore_errors=True)
        self._cloudlab(_DEMO_COLD, "demo")
        three_s += self._article(_ARTICLE[1])
        self._cloudlab(_FULL, "run", "--profile", "full", "--start", "cold")
        self._cloudlab(_COLD, "run", "--start", "cold")
        three_s += self._article(_ARTICLE[2])
        self._cloudlab(_WARM, "run")
        self._cloudlab(_DEMO_WARM, "demo")
        self.times_s[_THREE].append(three_s)

    def _article(self, extra: str) -> float:
        self._number += 1
        place = self.folder / f"article-{self._number}"
        place.mkdir()
        argv = ["sh", HERE / "article.sh", self.image.path, self.accel, place, extra]
        with _Follower(place / "console.log") as follower:
            took_s = self._watch(_ONE, argv)
        self._note(_ONE, follower.stages(took_s))
        shutil.rmtree(place)
        return took_s

    def _cloudlab(self, name: str, command: str, *options: str) -> None:
        self._number += 1
        folder = self.folder / f"{command}-{self._number}"
        argv = [sys.executable, "-m", "cloudlab", command, *options, "--output", folder]
        argv += ["--image", self.cache / "images" / self.image.path.name]
        self._watch(name, argv)
        for run in sorted(folder.rglob("run.json")):
            about = json.loads(run.read_text())
            resumed_s = about["start"]["resumed_at_s"] or 0.0
            self._note(name, [
                (one["stage"], max(one["start_s"], resumed_s) - resumed_s, one["end_s"] - resumed_s)
                for one in about["stages"] if one["end_s"] > resumed_s
            ])  # fmt: skip
            self.run_folders.append(run.parent)

    def _watch(self, name: str, argv: list[Any]) -> float:
        started = time.perf_counter()
        env = {**os.environ, "CLOUDLAB_CACHE": str(self.cache)}
        with (
            (self.folder / "log").open("wb") as log,
            subprocess.Popen(argv, stdout=log, stderr=log, env=env) as process,
            watched(process.pid) as use,
        ):
            process.wait()
        took_s = time.perf_counter() - started
        if process.returncode:
            sys.stderr.write((self.folder / "log").read_text(errors="replace"))
            raise SystemExit(f"{name} failed with exit code {process.returncode}")
        self.times_s[name].append(took_s)
        self.use[name] = use
        return took_s

    def _note(self, name: str, stages: _Stages) -> None:
        for stage, start_s, end_s in stages:
            self.stages[name][stage].append(end_s - start_s)


class _Follower(threading.Thread):
    """Follows a console log that grows, and notes when each boot stage began."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self._log = log
        self._over = threading.Event()
        self._watcher = BootWatcher()
        self._started_s = time.perf_counter()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        splitter, at = LineSplitter(), 0
        while not self._over.wait(0.05):
            if not self._log.exists():
                continue
            with self._log.open("rb") as stream:
                stream.seek(at)
                chunk = stream.read()
            at += len(chunk)
            for line in splitter.feed(chunk, time.perf_counter() - self._started_s):
                self._watcher.feed(line)

    def stages(self, end_s: float) -> _Stages:
        begun = sorted(self._watcher.stages.items(), key=lambda item: item[1])
        ends = [start_s for _, start_s in begun[1:]] + [end_s]
        return [
            (stage.value, start_s, end) for (stage, start_s), end in zip(begun, ends, strict=True)
        ]


def bench_boots(folder: Path, *, rounds: int = 3, figure: Path | None = None) -> Iterator[Row]:
    """The article's steps against cloudlab's, in turns on one image and accelerator."""
    measured = Rounds(folder)
    for _ in range(rounds):
        measured.go()
    times_s = measured.times_s
    for name, base in {
        _ONE: _ONE, _FULL: _ONE, _COLD: _ONE, _WARM: _ONE,
        _THREE: _THREE, _DEMO_COLD: _THREE, _DEMO_WARM: _THREE,
    }.items():  # fmt: skip
        words = ratio(times_s[name], times_s[base], base)
        yield row("boots", name, "s", times_s[name], words)
    for name in (_ONE, _COLD, _WARM, _DEMO_WARM):
        use = measured.use[name]
        yield row("memory", f"{name}: one QEMU", "MiB", [mib(use.qemu_bytes)])
        if name != _ONE:
            yield row("memory", f"{name}: cloudlab itself", "MiB", [mib(use.own_bytes)])
        yield row("written", name, "MiB", [mib(use.written_bytes)])
    sizes = [sum(f.stat().st_size for f in run.iterdir()) for run in measured.run_folders]
    yield row("run folder", "without figures and overlay, at most 1 MiB", "KiB",
              [size / 1024 for size in _without_figures(measured.run_folders, sizes)])  # fmt: skip
    for name in (_ONE, _FULL, _COLD, _WARM):
        for stage in ORDER:
            if found := measured.stages[name].get(stage.value):
                yield row(f"stages of {name}", stage.value, "s", found)
    if figure is not None:
        _draw(measured, figure)


def _without_figures(folders: list[Path], sizes: list[int]) -> list[int]:
    drawn = [sum(f.stat().st_size for f in run.glob("disk-map.*")) for run in folders]
    return [size - less for size, less in zip(sizes, drawn, strict=True)]


def _draw(measured: Rounds, path: Path) -> None:
    import pandas as pd

    rows = []
    for name in (_ONE, _FULL, _COLD, _WARM):
        at_s = 0.0
        for stage in ORDER:
            if found := measured.stages[name].get(stage.value):
                end_s = at_s + median(found)
                rows.append({"run": name, "scenario": name, "stage": stage.value,
                             "start_s": at_s, "end_s": end_s})  # fmt: skip
                at_s = end_s
    figures.plot("stages", {"stages": pd.DataFrame(rows)}, size="slide").save(path)


#: What a cold lean boot could be made of instead: what differs, by name.
_SHAPES: dict[str, dict[str, Any]] = {
    "1 CPU, 1 GiB, BIOS": {},
    "2 CPUs": {"cpus": 2},
    "512 MiB": {"memory_bytes": GIB // 2},
    "2 GiB": {"memory_bytes": 2 * GIB},
    "UEFI": {"firmware": Firmware.UEFI},
    "1 CPU, 1 GiB, BIOS, again": {},
}


def bench_shapes(folder: Path) -> Iterator[Row]:
    """What the machine's shape does to a cold lean boot, stage by stage; one boot each."""
    base = Options(open_image(build_image().path), start=Start.COLD)
    first_s = 0.0
    for number, (name, change) in enumerate(_SHAPES.items()):
        run = boot(replace(base, **change), folder / f"shape-{number}")
        took_s = run.record.took_s or 0.0
        first_s = first_s or took_s
        slowest = sorted(run.record.stages, key=lambda one: one.start_s - one.end_s)[:3]
        words = ", ".join(f"{one.stage} {one.end_s - one.start_s:.1f}" for one in slowest)
        yield row("machine's shape", f"{name} ({words})", "s", [took_s],
                  f"{took_s / first_s:.2f} of the first")  # fmt: skip
