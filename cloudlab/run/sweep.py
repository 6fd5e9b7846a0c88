"""Sweeps: a grid of options becomes many runs, on this host or on workers elsewhere.

A cell of the grid is one run.  Its folder's name ends with a hash of all that the outcome depends
on, so a sweep that is started again in the same folder finds the finished runs and does the rest.
A worker sends its run's files back; it shares nothing with this host but the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from cloudlab import paths
from cloudlab.errors import CloudlabError, ImageError, InterruptedRunError, UsageError
from cloudlab.image.build import build_image
from cloudlab.image.cache import Image, check_unchanged
from cloudlab.image.fetch import choose_image, fetch
from cloudlab.image.recipe import make_recipe
from cloudlab.run import tables
from cloudlab.run.boot import boot_many, max_parallel
from cloudlab.run.display import plot
from cloudlab.run.options import Options, make_options, typed_values
from cloudlab.run.record import Outcome
from cloudlab.run.value import Run
from cloudlab.seed.config import typed
from cloudlab.sizes import sizes_frame

if TYPE_CHECKING:
    import pandas as pd

    from cloudlab.figures import Plot

#: A larger grid must be permitted.
MOST_RUNS = 500
#: Options that name an image to build, in place of ``image``.
BUILD_OPTIONS = ("suite", "filesystem", "variant")

_NO_IMAGE = Image("none", Path(), "raw", "amd64", "file", "", "")
_HASH_CHARACTERS, _NAME_CHARACTERS, _WORD_CHARACTERS = 12, 60, 30
_TICK_S, _CONNECT_S = 0.5, 10


@dataclass(frozen=True)
class Cell:
    """One run of a sweep, as it is sent to a worker.

    ``name`` is its folder's, and ``mirror`` the address of a ``cloudlab share`` from which a
    worker fetches the image.  A cell whose image could not be had is a ``failure``.
    """

    name: str
    options: Options
    mirror: str | None = None
    failure: str = ""


@dataclass(frozen=True)
class CellResult:
    """What a worker sends back: the files of its run folder, and why the run did not finish."""

    files: Mapping[str, bytes]
    reason: str = ""
    interrupted: bool = False


@dataclass(frozen=True)
class SweepProgress:
    """How many runs of a sweep have ended, now or earlier, and how many of them failed.

    ``left_s`` is the time left in seconds as estimated, None before the first run has ended.
    """

    total: int
    done: int
    failed: int = 0
    left_s: float | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep that ended.

    Attributes
    ----------
    folder : Path
        Holds a folder per run, ``sizes.csv`` and ``runs.csv``.
    runs : list of Run
        Those that were recorded, in the grid's order.
    table : DataFrame
        One row per cell: ``run``, a column per option that was given, ``outcome``, ``reason``.
    """

    folder: Path
    runs: list[Run]
    table: pd.DataFrame

    @property
    def sizes(self) -> pd.DataFrame:
        """The sizes tables of all runs in one (:data:`cloudlab.sizes.SIZES_COLUMNS`)."""
        import pandas as pd

        found = [sizes_frame([])]
        for run in self.runs:
            # What a failed run left of its table may be damaged.
            with contextlib.suppress(CloudlabError):
                found.append(run.sizes)
        return pd.concat(found[1:] or found, ignore_index=True)

    @property
    def failed(self) -> pd.DataFrame:
        """The rows of ``table`` whose run did not finish, with the reasons."""
        return self.table[self.table["outcome"] != Outcome.DONE]

    def plot(self, kind: str = "growth", **options: Any) -> Plot:
        """Return a figure of the runs, ``growth`` or ``matrix``; see :func:`cloudlab.plot`."""
        return plot(kind, self.runs, **options)

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False)


def sweep(
    folder: Path | str | None = None,
    *,
    pairwise: bool = False,
    most: int = MOST_RUNS,
    executor: futures.Executor | str | None = None,
    parallel: int | None = None,
    mirror: str | None = None,
    on_progress: Callable[[SweepProgress], None] = lambda _: None,
    cancel: threading.Event | None = None,
    **values: Any,
) -> Sweep:
    """Boot a machine for each combination of options, and keep a run folder of each.

    A sweep that was stopped continues when it is started again with the same folder: finished
    runs are not repeated, failed ones are.  A run that fails does not end the others.

    Parameters
    ----------
    folder : Path or str, optional
        Default: a folder in ``runs/``, the same one for the same grid.
    pairwise : bool
        Do a few runs in which each pair of values occurs, instead of the full grid.
    most : int
        Refuse to do more runs than this.
    executor : Executor or str, optional
        Where the runs go: a process pool, ``Client.get_executor()`` of Dask, or the address of a
        Dask scheduler, which needs the extra ``dask``.  Default: a pool on this host.
    parallel : int, optional
        How many runs of the default pool go on at a time; default: as cores and memory allow.
    mirror : str, optional
        Address of a ``cloudlab share``, for workers that do not have the image.
    on_progress : callable
        Called with :class:`SweepProgress` at least twice a second.
    cancel : threading.Event, optional
        Setting it ends the sweep.
    **values
        As for :func:`cloudlab.make_options`, and ``image``, or ``suite``, ``filesystem`` and
        ``variant`` of an image to build.  A list, range, set, iterator, array or Series has the
        values to combine.

    Raises
    ------
    UsageError
        For an unknown option or value, an option without values, and too many runs.
    CloudlabError
        If no image could be had.

    Examples
    --------
    >>> sweep = cloudlab.sweep(disk_size=["4G", "20G", "100G"], growpart=["auto", "off"])
    >>> sweep.plot("growth").save("growth.svg")
    PosixPath('growth.svg')
    """
    # Whether these can be used, before anything is built.
    max_parallel([], parallel)
    most = typed("most", most, int)
    if not (isinstance(executor, str | None) or hasattr(executor, "submit")):
        raise UsageError(
            f"Runs cannot be given to {executor!r:.80}.",
            hint="Give an Executor of concurrent.futures, or the address of a Dask scheduler.",
        )
    folder = None if folder is None else paths.expand(folder)
    rows = _grid(values, pairwise=pairwise, most=most)
    cells = _cells(rows, mirror, cancel)
    if folder is None:
        folder = Path("runs") / f"sweep-{_digest(sorted(_key(cell.name) for cell in cells))}"
    folder = paths.make_folder(paths.expand(folder).absolute())
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(filelock.FileLock(folder / ".lock", timeout=0))
        except filelock.Timeout:
            raise CloudlabError(
                f"Another sweep runs in {folder}.", hint="Wait for it, or choose another folder."
            ) from None
        if isinstance(executor, str):
            executor = stack.enter_context(_dask_executor(executor))
        work = _Work(folder, cells, on_progress, cancel or threading.Event())
        try:
            work.carry_out(executor, parallel)
        finally:
            found = work.collect(rows)
    return found


def run_cell(cell: Cell, cancel: threading.Event | None = None) -> CellResult:
    """Carry out one run on this host; this is what a worker executes.

    Errors become reasons, because not all of them can be sent to another process.
    """
    if cell.failure:
        return CellResult({}, cell.failure)
    try:
        with (
            paths.scratch_folder(paths.cache_folder() / "sweeps", "run") as work,
            _given_up(cancel) as stop,
        ):
            options = replace(
                cell.options, image=_image_here(cell.options.image, cell.mirror, stop)
            )
            [run] = boot_many([(options, work / cell.name)], cancel=stop)
            files = {path.name: path.read_bytes() for path in run.folder.iterdir()}
            return CellResult(files, str(run.error or ""), run.outcome is Outcome.INTERRUPTED)
    except (CloudlabError, OSError) as error:
        return CellResult({}, str(error), isinstance(error, InterruptedRunError))


@contextlib.contextmanager
def _given_up(cancel: threading.Event | None) -> Iterator[threading.Event | None]:
    """Yield the event that stops a run: ``cancel``, or on a worker of Dask an event of its own.

    That is set when the scheduler cancels the task, because the sweep was stopped or is gone.
    """
    distributed = sys.modules.get("distributed")
    try:
        worker = distributed.get_worker() if distributed and cancel is None else None
    except ValueError:  # not on a worker of Dask
        worker = None
    if worker is None:
        yield cancel
        return
    key, stop, over = worker.get_current_task(), threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(_TICK_S):
            task = worker.state.tasks.get(key)
            if task is None or task.state == "cancelled":
                stop.set()
                return

    threading.Thread(target=watch, name="cloudlab-given-up", daemon=True).start()
    try:
        yield stop
    finally:
        over.set()


class _Work:
    """The runs that a sweep has to do, and what became of them."""

    def __init__(
        self, folder: Path, cells: list[Cell], tell: Callable[..., None], cancel: threading.Event
    ) -> None:
        # There may be other words for the same run, in this grid or in an earlier one.
        known = {_key(path.name): path.name for path in folder.glob("[!.]*-*")}
        self.cells = [
            replace(cell, name=known.setdefault(_key(cell.name), cell.name)) for cell in cells
        ]
        wanted = {cell.name: cell for cell in self.cells}
        self.left = {name: cell for name, cell in wanted.items() if not _is_done(folder / name)}
        self.folder, self.tell, self.cancel = folder, tell, cancel
        self.reasons: dict[str, str] = {}
        self.total, self.due = len(wanted), len(self.left)
        self.started_s = self.last_s = time.monotonic()

    def carry_out(self, executor: futures.Executor | None, parallel: int | None) -> None:
        """Do all runs that are left, on this host if no executor is given or its processes die."""
        if executor is not None:
            # A pool of processes belongs to this host, and cannot be used again.
            with contextlib.suppress(BrokenProcessPool):
                self._follow(lambda cell: executor.submit(run_cell, cell))
        if self.left:
            workers = max_parallel([cell.options for cell in self.left.values()], parallel)
            with futures.ThreadPoolExecutor(workers, "cloudlab-sweep") as pool:
                self._follow(lambda cell: pool.submit(run_cell, cell, self.cancel))

    def _follow(self, submit: Callable[[Cell], futures.Future[CellResult]]) -> None:
        """Submit what is left, and keep each result as it arrives."""
        waiting = {submit(cell): name for name, cell in self.left.items()}
        try:
            while waiting and not self.cancel.is_set():
                self.tell(self._progress())
                ended, _ = futures.wait(waiting, _TICK_S, futures.FIRST_COMPLETED)
                for future in sorted(ended, key=_is_broken):
                    self._keep(waiting.pop(future), _result(future))
            self.tell(self._progress())
        except BrokenProcessPool:
            raise
        except BaseException:
            self.cancel.set()
            raise
        finally:
            for future in waiting:
                future.cancel()
        if self.cancel.is_set():
            raise InterruptedRunError(
                f"The sweep was stopped; {len(self.left)} of {self.total} runs are left.",
                hint=f"It continues when it is started again with the folder {self.folder}.",
            )

    def _keep(self, name: str, result: CellResult) -> None:
        """Write the folder of a run that has ended, whole or not at all."""
        if result.interrupted and self.cancel.is_set():
            return
        target, part = self.folder / name, self.folder / f".{name}.part"
        for old in (part, target):
            shutil.rmtree(old, ignore_errors=True)
        if result.files:
            part.mkdir(mode=0o700)
            for file, data in result.files.items():
                (part / Path(file).name).write_bytes(data)
            part.rename(target)
        del self.left[name]
        self.reasons |= {name: result.reason} if result.reason else {}
        self.last_s = time.monotonic()

    def _progress(self) -> SweepProgress:
        ended, left_s = self.due - len(self.left), None
        if ended:
            pace_s = (self.last_s - self.started_s) / ended
            left_s = max(0.0, pace_s * len(self.left) - (time.monotonic() - self.last_s))
        return SweepProgress(self.total, self.total - len(self.left), len(self.reasons), left_s)

    def collect(self, rows: list[dict[str, Any]]) -> Sweep:
        """Return what was done until now, and write its tables."""
        import pandas as pd

        lines, runs = [], {}
        for cell, row in zip(self.cells, rows, strict=True):
            reason = self.reasons.get(cell.name, "")
            outcome = Outcome.FAILED if reason else "not run"
            with contextlib.suppress(CloudlabError):
                runs[cell.name] = run = Run(self.folder / cell.name)
                outcome, reason = run.outcome, run.record.error.text if run.record.error else ""
            words = {name: _word(value) for name, value in row.items()}
            lines.append({"run": cell.name, **words, "outcome": str(outcome), "reason": reason})
        found = Sweep(self.folder, list(runs.values()), pd.DataFrame(lines))
        tables.write_csv(found.table, self.folder / "runs.csv")
        tables.write_csv(found.sizes, self.folder / "sizes.csv")
        return found


def _grid(values: Mapping[str, Any], *, pairwise: bool, most: int) -> list[dict[str, Any]]:
    """Return the combinations of values that a sweep runs, after checking each value."""
    axes = {name: _choices(one) for name, one in values.items()}
    for name, value in [(name, value) for name, choices in axes.items() for value in choices]:
        _check(name, value)
    empty = [name for name, choices in axes.items() if not choices]
    if empty or not axes:
        raise UsageError(
            f"{empty[0]} has no values." if empty else "There are no options to combine.",
            hint="Give values, such as disk_size=['10G', '20G'] (--disk-size 10G,20G).",
        )
    if "image" in axes and (built := set(axes).intersection(BUILD_OPTIONS)):
        raise UsageError(
            f"Both an image and its {', '.join(sorted(built))} were given.",
            hint="Name images, or say how to build them.",
        )
    *_, second, first = 1, *sorted(map(len, axes.values()))
    count = math.prod(map(len, axes.values()))
    rows: Any = itertools.product(*(range(len(choices)) for choices in axes.values()))
    # Of two options, the pairs are the full grid.
    if pairwise and len(axes) > 2 and first * second <= most:  # noqa: PLR2004
        import covertable

        rows = covertable.make([range(len(choices)) for choices in axes.values()])
        count = len(rows)
    if count > most:
        raise UsageError(
            f"This sweep has {count:,} runs; at most {most:,} are permitted.",
            hint=f"Give fewer values, use pairwise=True (--pairwise), or permit it with "
            f"most={count} (--most {count}).",
        )
    return [
        dict(zip(axes, map(list.__getitem__, axes.values(), row), strict=True))
        for row in sorted(rows)
    ]


def _choices(values: Any) -> list[Any]:
    """Return what is to be combined; text and tuples are one value, sets have an order here."""
    if isinstance(values, set | frozenset):
        return sorted(values, key=lambda one: (len(str(one)), str(one)))
    several = isinstance(values, list | range | Iterator) or getattr(values, "ndim", False)
    return [*values] if several else [values]


def _check(name: str, value: Any) -> None:
    """Raise :class:`UsageError` if there is no such option or value."""
    if name in BUILD_OPTIONS:
        make_recipe(**{name: str(value)})
    elif name == "image" and not isinstance(value, Image | Path | str):
        raise UsageError(
            f"The image cannot be {value!r:.80}.", hint="Give an Image, a name, a path or a URL."
        )
    elif name in ("base", "keep_overlay"):
        raise UsageError(f"A sweep does not take the option {name!r}.", hint="Leave it out.")
    elif name == "enlarge_to":
        typed_values(enlarge_to=value)  # whether it is larger depends on the cell's disk
    elif name != "image":
        make_options(_NO_IMAGE, **{name: value})


def _cells(
    rows: list[dict[str, Any]], mirror: str | None, cancel: threading.Event | None
) -> list[Cell]:
    """Return the cells of a grid; one whose image could not be had says why."""
    varied = [name for name in rows[0] if len({repr(row[name]) for row in rows}) > 1]
    images: dict[str, Image | CloudlabError] = {}
    cells = []
    for row in rows:
        picked = {name: row[name] for name in ("image", *BUILD_OPTIONS) if name in row}
        values = {name: value for name, value in row.items() if name not in picked}
        if (which := repr(picked)) not in images:
            try:
                images[which] = _image(picked, mirror, cancel)
            except InterruptedRunError:
                raise
            except CloudlabError as error:
                images[which] = error
        words = {name: _word(row[name]) for name in varied}
        label = ", ".join(f"{name.replace('_', ' ')} {word}" for name, word in words.items())
        image, failure = images[which], ""
        if isinstance(image, CloudlabError):
            image, failure = replace(_NO_IMAGE, name=which), str(image)
        options = make_options(image, **({"scenario": label} if label else {}) | values)
        facts = asdict(replace(options, image=_NO_IMAGE, scenario="", timeout_s=None))
        known = image.sha256 or (image.name, image.path, image.file_size_bytes, image.mtime_ns)
        slug = re.sub(r"[^\w.]+", "-", "-".join(words.values()))[:_NAME_CHARACTERS].strip("-.")
        cells.append(Cell(f"{slug or 'run'}-{_digest([known, facts])}", options, mirror, failure))
    if all(cell.failure for cell in cells):
        raise next(image for image in images.values() if isinstance(image, CloudlabError))
    return cells


def _image(picked: Mapping[str, Any], mirror: str | None, cancel: threading.Event | None) -> Image:
    if picked and "image" not in picked:
        words: dict[str, Any] = {name: str(value) for name, value in picked.items()}
        return build_image(**words)
    return choose_image(picked.get("image", "auto"), mirror=mirror, cancel=cancel)[0]


def _image_here(image: Image, mirror: str | None, cancel: threading.Event | None) -> Image:
    """Return the same image on this host: where it was, from the cache, or from a mirror."""
    try:
        return check_unchanged(image)
    except ImageError:
        if not image.sha256:
            raise
    try:
        checksum = f"sha256:{image.sha256}"
        return fetch(image.name, checksum=checksum, arch=image.arch, mirror=mirror, cancel=cancel)
    except UsageError as error:
        raise ImageError(
            f"{platform.node()} does not have the image {image.name}: {error.message}",
            hint="Run 'cloudlab share' where it is, and give its address as mirror= (--mirror).",
        ) from error


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]


def _key(name: str) -> str:
    return name.rpartition("-")[2]


def _word(value: Any) -> str:
    """Return a value of an option as names and tables show it."""
    if value is None:
        return "default"
    text = value.name if isinstance(value, Image | Path) else str(value)
    if not text.isprintable():
        return f"text {_digest(text)[:6]}"
    return text if len(text) <= _WORD_CHARACTERS else f"…{text[1 - _WORD_CHARACTERS :]}"


def _is_done(folder: Path) -> bool:
    with contextlib.suppress(CloudlabError):
        run = Run(folder)
        return run.outcome is Outcome.DONE and not run.sizes.empty
    return False


def _is_broken(future: futures.Future[CellResult]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenProcessPool)


def _result(future: futures.Future[CellResult]) -> CellResult:
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except (Exception, futures.CancelledError) as error:  # noqa: BLE001 - of any executor
        return CellResult({}, f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def _dask_executor(address: str) -> Iterator[futures.Executor]:
    try:
        from distributed import Client

        client = Client(address, timeout=_CONNECT_S)
    except ImportError:
        raise UsageError(
            "Dask is not installed.", hint="Install it with: pip install distributed"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"No Dask scheduler answers at {address}: {error}.",
            hint="Start one with 'dask scheduler', and workers with 'dask worker ADDRESS'.",
        ) from error
    with client:
        yield client.get_executor(pure=False)
