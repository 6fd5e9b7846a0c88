"""Booting: one run or many, from options to run folders with their sizes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import re
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from datetime import datetime
from numbers import Integral
from pathlib import Path
from typing import Any

import psutil

from cloudlab import platforms
from cloudlab.console import printable
from cloudlab.disk import DiskLayout, Extent, allocated_bytes, by_region, inspect_disk, overlay_map
from cloudlab.errors import (
    BootFailedError,
    CloudlabError,
    ConsoleTimeoutError,
    InterruptedRunError,
    RecordingError,
    SnapshotError,
    UsageError,
)
from cloudlab.image.cache import Image
from cloudlab.machine import snapshots
from cloudlab.machine.config import qemu_argv
from cloudlab.machine.process import Machine
from cloudlab.machine.slots import Slot, Slots, read_slots
from cloudlab.run import tables
from cloudlab.run.monitor import (
    AFTER_STOP,
    BootLog,
    BootMonitor,
    OnEvent,
    RunEvent,
    ignore_events,
    unless_stopped,
)
from cloudlab.run.options import BOOT_TIMEOUT_S, SILENCE_TIMEOUT_S, Options, make_options
from cloudlab.run.prepare import PreparedRun, claim, prepare, prepare_cold
from cloudlab.run.record import (
    ConsoleCounts,
    Outcome,
    OverlaySizes,
    Record,
    RecordedError,
    StageTime,
    write_record,
    writing,
)
from cloudlab.run.start import (
    Plan,
    Planner,
    ended_from_outside,
    expected_s,
    remember_duration,
    resume,
)
from cloudlab.run.value import Run
from cloudlab.sizes import ConsoleParser, ParsedConsole, check_sizes

#: What QEMU needs beside the guest's memory.
_QEMU_OVERHEAD_BYTES = 200 << 20

#: How far a guest's clock may be ahead of the host's, in seconds.
CLOCK_SLACK_S = 5.0

_EXTENDED_BYTES = 1024
_LONGEST_NAME = 100


def boot(
    options: Options | None = None,
    folder: Path | str | None = None,
    *,
    image: Image | Path | str = "auto",
    on_event: OnEvent = ignore_events,
    cancel: threading.Event | None = None,
    **values: Any,
) -> Run:
    """Boot one machine and record it.

    Parameters
    ----------
    options : Options, optional
        Everything that the outcome depends on, but for ``image`` and ``values``.
    folder : Path or str, optional
        New or empty; by default :func:`dated_folder`.
    image, **values
        As for :func:`~cloudlab.run.options.make_options`.
    on_event : callable
        Called with every :class:`~cloudlab.run.monitor.RunEvent`, from another thread.
    cancel : threading.Event, optional
        Setting it ends the run within a second.

    Raises
    ------
    CloudlabError
        Why the run did not finish; what was recorded until then is kept.

    Examples
    --------
    >>> run = cloudlab.boot(growpart="off", disk_size="30G")
    >>> run.root_sizes("after").partition_bytes
    2097152000
    """
    options = make_options(image, options, cancel=cancel, **values)
    jobs = [(options, folder or dated_folder(options.scenario))]
    [run] = boot_many(jobs, on_event=on_event, cancel=cancel, numbered=folder is None)
    if run.error is not None:
        raise run.error
    return run


def boot_many(
    jobs: Iterable[tuple[Options, Path | str]],
    *,
    on_event: OnEvent = ignore_events,
    cancel: threading.Event | None = None,
    enlarge: threading.Event | None = None,
    parallel: int | None = None,
    numbered: bool = False,
) -> list[Run]:
    """Boot several machines, as many at a time as cores, memory and ``CLOUDLAB_SLOTS`` allow.

    A run that fails does not end the others; its error is in its :class:`Run`.  Ctrl-C ends
    all of them and is raised again once they are gone.

    Parameters
    ----------
    jobs : iterable of (Options, Path or str)
        Options and run folder of each.
    on_event, cancel
        As for :func:`boot`.
    enlarge : threading.Event, optional
        Setting it enlarges the disks whose options say so, once their guests ask for it. After
        :data:`~cloudlab.run.monitor.ENLARGE_PATIENCE_S` seconds it is set for them. Without it they
        are enlarged at once.
    parallel : int, optional
        How many machines run at a time.
    numbered : bool
        Append a number to the name of a run folder that exists, instead of refusing it.

    Raises
    ------
    UsageError
        If a job is another thing, or ``parallel`` less than 1.
    CloudlabError
        If a run could not be prepared; then none was started.

    Examples
    --------
    >>> image, _ = cloudlab.choose_image()
    >>> sizes = ("10G", "20G", "40G")
    >>> jobs = [(cloudlab.make_options(image, disk_size=size), Path("runs") / size) for size in sizes]
    >>> cloudlab.compare(*cloudlab.boot_many(jobs))
    """
    stop, shared = cancel or threading.Event(), read_slots()
    pairs = [*jobs] if isinstance(jobs, Iterable) else [jobs]
    for pair in pairs:
        a_pair = isinstance(pair, tuple | list) and len(pair) == 2  # noqa: PLR2004
        if not a_pair or not isinstance(pair[0], Options):
            hint = "Give pairs: Options, such as of make_options(), and a run folder."
            raise UsageError(f"This cannot be booted: {pair!r:.80}.", hint=hint)
    limit = max_parallel([options for options, _ in pairs], parallel)
    prepared: list[PreparedRun] = []
    with contextlib.ExitStack() as undo:

        async def run_all() -> list[Run]:
            host = _Host(asyncio.Semaphore(limit), shared, Planner(), on_event, stop, enlarge)
            # From here on each run ends by itself.
            undo.pop_all()
            runs = await asyncio.gather(
                *(_run(job, host) for job in prepared), return_exceptions=True
            )
            for run in runs:
                if isinstance(run, BaseException):
                    raise run
            return [run for run in runs if isinstance(run, Run)]

        for options, wanted in pairs:
            folder = claim(wanted, undo, numbered=numbered)
            prepared.append(prepare(options, folder, undo, on_event))
        return _drive(run_all, stop)


def max_parallel(options: Sequence[Options], wanted: int | None) -> int:
    """Return how many of these runs go on at the same time: as wanted, or as this host can carry.

    The second assumes that no other user boots a machine; :mod:`cloudlab.machine.slots` limits
    all users together.  Raise :class:`UsageError` unless ``wanted`` is a number of machines.
    """
    if wanted is not None:
        if not isinstance(wanted, Integral) or wanted < 1:
            raise UsageError(
                f"{wanted!r:.80} machines cannot run at a time.", hint="Choose 1 or more."
            )
        return int(wanted)
    need = max((one.memory_bytes for one in options), default=1) + _QEMU_OVERHEAD_BYTES
    room = psutil.virtual_memory().available // need
    return int(max(1, min(len(options), platforms.usable_cores(), room)))


def dated_folder(scenario: str, parent: Path = Path("runs")) -> Path:
    """Return the folder of a new run, named by the present second and its scenario."""
    second = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    words = re.sub(r"[^\w.-]+", "-", scenario).strip("-")
    return parent / f"{second}-{words[:_LONGEST_NAME] or 'run'}"


@dataclass(frozen=True)
class _Host:
    """What the runs that go on side by side share."""

    limit: asyncio.Semaphore
    #: Shared with the other users of the host.
    slots: Slots | None
    planner: Planner
    on_event: OnEvent
    stop: threading.Event
    enlarge: threading.Event | None


async def _run(job: PreparedRun, host: _Host) -> Run:
    try:
        return await _run_once(job, host)
    except SnapshotError as error:
        why = error.message.rstrip(".")
    try:
        return await _run_once(await asyncio.to_thread(prepare_cold, job, why), host)
    except CloudlabError as error:
        failure = RecordedError(type(error).__name__, str(error))
        record = replace(job.record, outcome=Outcome.FAILED, error=failure)
        with contextlib.suppress(CloudlabError):
            write_record(job.folder, record)
        return Run(job.folder, record, error=error)


async def _run_once(job: PreparedRun, host: _Host) -> Run:
    log = BootLog(ConsoleParser(job.record.nonce))
    plan = Plan(job.machine, job.record.start)
    error: BaseException | None = None

    def say(text: str) -> None:
        host.on_event(RunEvent(job.folder.name, note=text))

    async with Machine(job.machine, job.entry) as machine:
        try:
            plan = await host.planner.plan(job)
            async with host.limit:
                with Slot(host.slots) as slot:
                    try:
                        await unless_stopped(slot.wait(say), host.stop, job.folder.name)
                        machine.slot = slot.descriptor
                        await _boot(job, plan, machine, log, host)
                    finally:
                        # The slot is free once QEMU is gone.
                        await machine.stop()
        except SnapshotError:
            # Nothing of the run has happened yet.
            raise
        except BaseException as caught:  # noqa: BLE001 - recorded, then raised again
            error = caught
        finally:
            host.planner.over(job)
        await machine.stop()
        command = (job.record.command[0], *qemu_argv(plan.machine, qmp_fd=3))
        job = replace(job, record=replace(job.record, start=plan.start, command=command))
        # In a thread of its own, because other machines of this loop go on.
        run = await asyncio.to_thread(_finish, job, log, error)
    if not isinstance(error, CloudlabError | None):
        # Not the run failed but cloudlab or its caller: the other runs end as well.
        host.stop.set()
        raise error
    if run.error is None and job.options.enlarge_to_bytes is None:  # the user may have waited
        remember_duration(job, plan.start.kind, log.took_s)
    host.on_event(RunEvent(run.name, log.took_s, log.watcher.stage, note=run.outcome))
    return run


async def _boot(job: PreparedRun, plan: Plan, machine: Machine, log: BootLog, host: _Host) -> None:
    name, accel = job.folder.name, job.machine.accel
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
        enlarge_to_bytes=job.options.enlarge_to_bytes,
        enlarge=host.enlarge,
    )
    if host.stop.is_set():
        raise InterruptedRunError(f"The run {name} was not started.", hint=AFTER_STOP)
    machine.config = plan.machine
    await unless_stopped(machine.launch(), host.stop, name)
    # The run's tables and figures need what takes a second to load, and the guest longer to boot.
    load = functools.partial(importlib.import_module, "cloudlab.figures.canvas")
    threading.Thread(target=load, daemon=True).start()
    snapshot = plan.snapshot
    note = "launched" if snapshot is None else "resuming from a snapshot"
    typical_s = expected_s(job, plan.start.kind)
    host.on_event(RunEvent(name, note=note, expected_s=typical_s))
    if snapshot is None:
        await monitor.follow(machine)
        return
    try:
        resumed = resume(machine, snapshot, job.options.disk_size_bytes)
        past = await unless_stopped(resumed, host.stop, name)
    except SnapshotError:
        if not ended_from_outside(machine):
            raise
        # It was stopped on purpose and must not be booted again; the monitor says how it ended.
        past = []
    log.overlay_growth += snapshot.record.overlay_growth
    try:
        await monitor.follow(machine, past=past, past_s=snapshot.record.at_s)
    except (BootFailedError, ConsoleTimeoutError):
        # The snapshot may be the cause; the next run boots cold.
        snapshots.delete(snapshot)
        raise


def _finish(job: PreparedRun, log: BootLog, error: BaseException | None) -> Run:
    """Record how a run ended, and delete the files that only its machine used."""
    parsed = log.parser.result()
    interrupted = isinstance(error, InterruptedRunError | asyncio.CancelledError)
    ended = Outcome.INTERRUPTED if interrupted else Outcome.FAILED
    end_bytes, extents, record = _read_disk(job)
    # First of all: where the host's disk is full, this makes room for the record.
    for path in job.leftovers:
        path.unlink(missing_ok=True)
    record = replace(
        record,
        outcome=Outcome.DONE if error is None else ended,
        error=None if error is None else RecordedError(type(error).__name__, str(error)),
        warnings=(
            *([record.network.warning] if record.network and record.network.warning else []),
            *_warnings(parsed, log),
            *(_contradictions(parsed, log, record.disk_after) if error is None else ()),
        ),
        time_s=round(log.time_s, 3),
        took_s=round(log.took_s, 3),
        stages=_stage_times(log),
        console=ConsoleCounts(log.lines, log.bytes, log.dropped_bytes),
        overlay=OverlaySizes(record.overlay.start_bytes, end_bytes),
    )
    sizes = tables.run_sizes(record, parsed, times=log.times, overlay_growth=log.overlay_growth)
    known = error if isinstance(error, CloudlabError) else None
    try:
        with writing(f"The run in {job.folder} could not be recorded"):
            tables.write_csv(sizes, job.folder / "sizes.csv")
            frame = tables.extents_frame(record.name, extents)
            tables.write_csv(frame, job.folder / "extents.csv")
    except RecordingError as problem:
        if error is None:
            failure = RecordedError(type(problem).__name__, str(problem))
            record = replace(record, outcome=Outcome.FAILED, error=failure)
        known = known or problem
    try:
        write_record(job.folder, record)
    except RecordingError as problem:
        known = known or problem
    return Run(job.folder, record, error=known, parsed=parsed, sizes=sizes)


def _warnings(parsed: ParsedConsole, log: BootLog) -> list[str]:
    """Return what went wrong without ending the run, from the guest's report."""
    found = []
    block = parsed.block("after")
    facts = {fact.name: printable(fact.value) for fact in block.facts} if block else {}
    if facts.get("cloud_init_errors"):
        found.append(f"cloud-init reports errors: {facts['cloud_init_errors']}")
    if facts.get("user_data_valid") == "no":
        found.append("cloud-init could not read the user-data, so none of it took effect.")
    if facts.get("user_data_valid") == "warned":
        found.append("cloud-init warned about the user-data; see its log on the console.")
    if facts.get("reported_by") == "watcher":
        # The watcher also reports when systemd ends it because a stage failed.
        found.append("The report was made before cloud-init had run the user-data's runcmd.")
    if block is not None and not block.complete:
        # A broken mark is not counted, but the missing end is one line.
        lines = f"{block.damaged} lines" if block.damaged > 1 else "1 line"
        verb = "were" if block.damaged > 1 else "was"
        found.append(f"{lines} of the guest's report {verb} lost.")
    found += [f"Sizes contradict each other: {problem}" for problem in check_sizes(parsed)]
    if log.parser.foreign:
        found.append(
            f"The console has {log.parser.foreign} lines of another run's report; "
            "they were ignored."
        )
    if log.dropped_bytes:
        found.append(
            f"The console wrote {log.bytes:,} bytes; the last {log.dropped_bytes:,} were not kept."
        )
    return found


def _contradictions(parsed: ParsedConsole, log: BootLog, layout: DiskLayout | None) -> list[str]:
    """Return where the guest's report contradicts the host: its clock and the disk itself."""
    found = [
        f"The guest's report ({block.stage}) says {block.uptime_s:.1f} s of uptime, but the "
        f"machine had run for {log.times[block.line]:.1f} s only."
        for block in parsed.blocks
        if block.uptime_s is not None
        and block.line in log.times
        and block.uptime_s > log.times[block.line] + CLOCK_SLACK_S
    ]
    if layout is None:
        return found
    table = {
        tables.device_name(one.number): (one.start_bytes, one.size_bytes)
        for one in layout.partitions
        if one.number is not None
    }
    table[tables.device_name(None)] = (0, layout.virtual_size_bytes)
    after = parsed.block("after")
    for device in after.devices if after else ():
        measured = (device.start_bytes, device.size_bytes)
        # Of an extended partition the kernel shows two sectors.
        if device.size_bytes > _EXTENDED_BYTES and table.get(device.name, measured) != measured:
            start_bytes, size_bytes = table[device.name]
            found.append(
                f"The guest's report says that {device.name} starts at byte {device.start_bytes:,} "
                f"with {device.size_bytes:,} bytes; the partition table on its disk says byte "
                f"{start_bytes:,} and {size_bytes:,} bytes."
            )
    return found


def _read_disk(job: PreparedRun) -> tuple[int, list[Extent], Record]:
    """Return the overlay's allocated bytes, its extents, and the record with the disk's layout."""
    overlay, record = job.machine.overlay, job.record
    end_bytes = record.overlay.start_bytes
    try:
        end_bytes = allocated_bytes(overlay)
        layout = inspect_disk(overlay, "qcow2")
        extents = by_region(overlay_map(overlay), layout)
        return end_bytes, extents, replace(record, disk_after=layout)
    except CloudlabError as problem:
        # A guest may leave its disk in any state; the run's own result is still valid.
        return end_bytes, [], replace(record, disk_error=problem.message)


def _stage_times(log: BootLog) -> tuple[StageTime, ...]:
    # Stages are only ever entered in their order.
    begun = list(log.watcher.stages.items())
    ends = [start_s for _, start_s in begun[1:]] + [log.time_s]
    return tuple(
        StageTime(stage, round(start_s, 3), round(end_s, 3))
        for (stage, start_s), end_s in zip(begun, ends, strict=True)
    )


def _drive(work: Callable[[], Coroutine[Any, Any, list[Run]]], stop: threading.Event) -> list[Run]:
    """Run ``work`` on an event loop in its own thread; a notebook's thread has a loop already."""
    done: Future[list[Run]] = Future()

    def body() -> None:
        try:
            done.set_result(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            done.set_exception(error)

    # A daemon, because an interpreter that exits must not wait for a boot: the supervisors
    # notice, end the machines and clean up.
    thread = threading.Thread(target=body, name="cloudlab-runs", daemon=True)
    try:
        thread.start()
        _wait_for(done)
    except BaseException:
        # Ctrl-C: it is raised again only when the machines are gone.
        stop.set()
        while thread.ident is not None and not done.done():
            with contextlib.suppress(KeyboardInterrupt):
                _wait_for(done)
        raise
    return done.result()


def _wait_for(done: Future[list[Run]]) -> None:
    # Not Thread.join(): when Ctrl-C interrupts it, Python 3.11 takes the thread for ended.
    # With a timeout, because a wait without one cannot be interrupted on every platform.
    while not done.done():
        wait([done], timeout=0.5)
