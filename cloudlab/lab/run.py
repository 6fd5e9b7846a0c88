"""One run and many runs: from options to a run folder with a sizes table."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from cloudlab.console import ORDER
from cloudlab.errors import (
    BootFailedError,
    CloudlabError,
    ConsoleTimeoutError,
    InterruptedRunError,
    SavedMachineError,
)
from cloudlab.lab import typical
from cloudlab.lab.boot import BootLog, BootMonitor, OnEvent, RunEvent, ignore, unless_stopped
from cloudlab.lab.finish import finish
from cloudlab.lab.options import BOOT_TIMEOUT_S, SILENCE_TIMEOUT_S, RunOptions
from cloudlab.lab.prepare import PreparedRun, claim, prepare, prepare_cold
from cloudlab.lab.saved import forget
from cloudlab.lab.start import Plan, Starts, ended_from_outside, restore
from cloudlab.machine.process import Machine
from cloudlab.recording import Recording, write_run
from cloudlab.sizes import ConsoleParser

if TYPE_CHECKING:
    import pandas as pd

#: What QEMU needs beside the guest's memory.
_QEMU_OVERHEAD_BYTES = 200 << 20


@dataclass(frozen=True)
class Run:
    """A run that ended, well or not.

    Attributes
    ----------
    options : RunOptions
    recording : Recording
        The run folder.
    error : CloudlabError or None
        Why it did not come to its end.
    """

    options: RunOptions
    recording: Recording
    error: CloudlabError | None = None

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.recording.name

    def _repr_html_(self) -> str:
        from cloudlab.lab.report import run_html

        return run_html(self.recording)

    def sizes(self) -> pd.DataFrame:
        """Return the run's sizes table (see :data:`cloudlab.sizes.SIZES_COLUMNS`)."""
        from cloudlab.sizes import read_sizes

        return read_sizes(self.recording.sizes_csv)


def run_lab(
    options: RunOptions,
    folder: Path,
    *,
    on_event: OnEvent = ignore,
    cancel: threading.Event | None = None,
) -> Run:
    """Boot one machine and record it in ``folder``.

    Parameters
    ----------
    options : RunOptions
    folder : Path
        New or empty.
    on_event : callable
        Told every :class:`~cloudlab.lab.boot.RunEvent`, from another thread.
    cancel : threading.Event, optional
        Setting it ends the run within a second.

    Raises
    ------
    CloudlabError
        What kept the run from its end; what was recorded until then is kept.
    """
    [run] = run_many([(options, folder)], on_event=on_event, cancel=cancel)
    if run.error is not None:
        raise run.error
    return run


def run_many(
    jobs: Sequence[tuple[RunOptions, Path]],
    *,
    on_event: OnEvent = ignore,
    cancel: threading.Event | None = None,
    side_by_side: int | None = None,
    free: bool = False,
) -> list[Run]:
    """Boot several machines, as many at a time as cores and memory allow.

    With ``free``, a number goes behind the name of a folder that is there already.  A run that fails does not keep the others from going on; its error is in its
    :class:`Run`.  Ctrl-C ends all of them and is raised again once they are gone.

    Raises
    ------
    CloudlabError
        Where a run could not even be prepared; then none was started.
    """
    stop = cancel or threading.Event()
    with contextlib.ExitStack() as undo:
        prepared = []
        for options, wanted in jobs:
            folder = claim(wanted, undo, free=free)
            on_event(RunEvent(folder.name, 0.0, ORDER[0], note="preparing"))
            prepared.append(prepare(options, folder, undo))
        limit = side_by_side or how_many_side_by_side([options for options, _ in jobs])
        undo.pop_all()

    async def all_of_them() -> list[Run]:
        host = _Host(asyncio.Semaphore(limit), Starts(), on_event, stop)
        runs = await asyncio.gather(*(_run(job, host) for job in prepared), return_exceptions=True)
        for run in runs:
            if isinstance(run, BaseException):
                raise run
        return [run for run in runs if isinstance(run, Run)]

    return _drive(all_of_them, stop)


def how_many_side_by_side(options: Sequence[RunOptions]) -> int:
    """Return how many of these runs this host can carry at once."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    need = max((one.memory_bytes for one in options), default=1) + _QEMU_OVERHEAD_BYTES
    room = psutil.virtual_memory().available // need
    return int(max(1, min(len(options), cores or 1, room)))


@dataclass(frozen=True)
class _Host:
    """What the runs that go on side by side share."""

    slots: asyncio.Semaphore
    starts: Starts
    on_event: OnEvent
    stop: threading.Event


async def _run(job: PreparedRun, host: _Host) -> Run:
    try:
        return await _run_once(job, host)
    except SavedMachineError as error:
        why = error.message.rstrip(".")
    try:
        return await _run_once(await asyncio.to_thread(prepare_cold, job, why), host)
    except CloudlabError as error:
        words = {"kind": type(error).__name__, "text": str(error)}
        job.about.update(outcome="failed", error=words)
        with contextlib.suppress(CloudlabError):
            write_run(job.folder, job.about)
        return Run(job.options, Recording(job.folder, job.about), error)


async def _run_once(job: PreparedRun, host: _Host) -> Run:
    log = BootLog(ConsoleParser(job.about["nonce"]))
    error: BaseException | None = None
    async with Machine(job.machine, job.entry) as machine:
        try:
            plan = await host.starts.plan(job)
            async with host.slots:
                await _boot(job, plan, machine, log, host)
                # The slot is free once QEMU is gone.
                await machine.stop()
        except SavedMachineError:
            # Nothing of the run has happened yet.
            raise
        except BaseException as caught:  # noqa: BLE001 - recorded, then raised again
            error = caught
        finally:
            host.starts.over(job)
        await machine.stop()
        try:
            # In a thread of its own, because other machines of this loop go on.
            await asyncio.to_thread(finish, job, log, _outcome(error), error)
        except CloudlabError as problem:
            error = error or problem
    if not isinstance(error, CloudlabError | None):
        # Not the run failed but cloudlab, or who watches it: the others end as well.
        host.stop.set()
        raise error
    if error is None:
        kind = job.about["start"]["kind"]
        typical.remember(job.options, job.accel.accel, kind, log.took_s)
    host.on_event(RunEvent(job.folder.name, log.took_s, log.watcher.stage, note=_outcome(error)))
    return Run(job.options, Recording(job.folder, job.about), error)


async def _boot(job: PreparedRun, plan: Plan, machine: Machine, log: BootLog, host: _Host) -> None:
    name = job.folder.name
    accel = job.accel.accel
    monitor = BootMonitor(
        name,
        log,
        folder=job.folder,
        overlay=job.machine.overlay,
        timeout_s=job.options.timeout_s or BOOT_TIMEOUT_S[accel],
        silence_s=SILENCE_TIMEOUT_S[accel],
        on_event=host.on_event,
        cancel=host.stop,
        on_pause=plan.save,
    )
    if host.stop.is_set():
        raise InterruptedRunError(f"The run {name} was not started.")
    machine.config = plan.machine
    await unless_stopped(machine.launch(), host.stop, name)
    host.on_event(RunEvent(name, 0.0, ORDER[0], note="launched"))
    saved = plan.saved
    if saved is None:
        await monitor.follow(machine)
        return
    try:
        restored = restore(machine, saved, job.options.disk_size_bytes)
        past = await unless_stopped(restored, host.stop, name)
    except SavedMachineError:
        if not ended_from_outside(machine):
            raise
        # Whoever ended it does not want it booted again; the monitor reports how it ended.
        past = []
    log.overlay_growth += saved.overlay_growth()
    try:
        await monitor.follow(machine, past=past, past_s=saved.at_s)
    except (BootFailedError, ConsoleTimeoutError):
        # It may be the saved machine that does not go on; the next run boots from the start.
        forget(saved)
        raise


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "done"
    interrupted = isinstance(error, InterruptedRunError | asyncio.CancelledError)
    return "interrupted" if interrupted else "failed"


def _drive(work: Callable[[], Coroutine[Any, Any, list[Run]]], stop: threading.Event) -> list[Run]:
    """Run ``work`` on an event loop of its own thread; a notebook's thread has a loop already."""
    results: list[list[Run]] = []
    errors: list[BaseException] = []

    done = threading.Event()

    def body() -> None:
        try:
            results.append(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 - it is raised again by the caller's thread
            errors.append(error)
        finally:
            done.set()

    # A daemon, because an interpreter that exits shall not wait for a boot: the supervisors
    # see it go, end the machines and clean up.
    thread = threading.Thread(target=body, name="cloudlab-runs", daemon=True)
    try:
        thread.start()
        _wait_for(done)
    except BaseException:
        # Ctrl-C: the machines must be gone before anybody hears of it.
        stop.set()
        while thread.ident is not None and not done.is_set():
            with contextlib.suppress(KeyboardInterrupt):
                _wait_for(done)
        raise
    if errors:
        raise errors[0]
    return results[0]


def _wait_for(done: threading.Event) -> None:
    # Not Thread.join(): when Ctrl-C breaks into it, Python 3.11 takes the thread for ended.
    # With a timeout, because a wait without one cannot be interrupted everywhere.
    while not done.wait(0.5):
        pass
