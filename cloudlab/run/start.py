"""How a run starts: cold, from the firmware, or warm, from a snapshot taken during a boot.

Until cloud-init reads its seed, all boots of one image on one kind of machine are alike.  The
first run is paused at the guest's first access to the seed's root directory, a snapshot is
taken, and the run continues; later runs resume from that snapshot with a copy of its disk, a
disk size and a seed of their own.  A run that cannot share a snapshot boots cold, and its
record says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from cloudlab import paths
from cloudlab.console import Stage
from cloudlab.disk import DiskLayout, inspect_disk
from cloudlab.errors import CloudlabError, SnapshotError
from cloudlab.machine import snapshots
from cloudlab.machine.config import Accel, MachineConfig, Network, UefiFiles, qemu_argv
from cloudlab.machine.process import Machine
from cloudlab.machine.snapshots import Snapshot
from cloudlab.run.monitor import CONSOLE_CAP_BYTES, BootLog, OnPause, Paused
from cloudlab.run.options import Options, Start
from cloudlab.run.prepare import PreparedRun
from cloudlab.run.record import RecordedStart
from cloudlab.seed import Profile
from cloudlab.seed.iso import iso_head

#: If the disk is larger than the image by less, growth before the seed could not be noticed.
_ROOM_TO_GROW_BYTES = 64 << 20

#: Seconds to the report where nothing was measured on this host yet: with hardware
#: acceleration, and under emulation as measured on two cores.
_FIRST_GUESS_S = {Accel.KVM: 15.0, Accel.HVF: 15.0, Accel.TCG: 70.0}
_KEPT_DURATIONS = 9


@dataclass(frozen=True)
class Plan:
    """How one run starts.

    Attributes
    ----------
    machine : MachineConfig
    start : RecordedStart
        For the record; a cold run completes it when its snapshot was taken.
    snapshot : Snapshot or None
        What it resumes from.
    save : callable or None
        Takes a snapshot of the paused machine.
    """

    machine: MachineConfig
    start: RecordedStart
    snapshot: Snapshot | None = None
    save: OnPause | None = None

    def command(self, prepared: Sequence[str]) -> tuple[str, ...]:
        """Return QEMU's argument list, for the record."""
        return (prepared[0], *qemu_argv(self.machine, qmp_fd=3))


class Planner:
    """Plans the starts of runs that go on side by side.

    Of several that could share a snapshot that does not exist yet, one boots cold and takes
    it, and the others wait for it.
    """

    def __init__(self) -> None:
        self._savers: dict[str, asyncio.Event] = {}
        #: Run folder -> the key of the snapshot that this run takes.
        self._keys: dict[Path, str] = {}
        #: Run folder -> why no snapshot was taken, or that it was.
        self.news: dict[Path, str] = {}

    async def plan(self, job: PreparedRun) -> Plan:
        """Return how a run starts; the files that it needs for that are in place.

        Raises
        ------
        SnapshotError
            If files of a snapshot could not be copied; the run must be prepared again.
        """
        why = job.record.start.why or why_cold(job)
        if why:
            return _cold(job, why)
        key = snapshots.snapshot_key(_machine_facts(job))
        first = key not in self._savers
        if first:
            # Before anything else is awaited: the others must find it.
            self._savers[key] = asyncio.Event()
            self._keys[job.folder] = key
        else:
            await self._savers[key].wait()
        snapshot, news = await asyncio.to_thread(_find, key)
        if snapshot is not None:
            self.over(job)
            return await asyncio.to_thread(_warm, job, snapshot)
        if not first:
            return _cold(job, "no snapshot could be taken to resume from")
        try:
            snapshots.check_room(job.options.memory_bytes)
            _check_disk(job.options)
        except (CloudlabError, OSError) as error:
            self.over(job)
            return _cold(job, f"no snapshot can be taken: {_reason(error)}")
        return self._saving(job, key, news)

    def over(self, job: PreparedRun) -> None:
        """Release the runs that wait for this run's snapshot, whether it was taken or not."""
        key = self._keys.get(job.folder)
        if key is not None:
            self._savers[key].set()

    def _saving(self, job: PreparedRun, key: str, news: str) -> Plan:
        async def save(machine: Machine, log: BootLog, paused: Paused) -> None:
            try:
                await _save(job, key, machine, log, paused)
                self.news[job.folder] = f"{news}; this run took one at {paused.at_s:.1f} s"
            except (CloudlabError, OSError) as error:
                self.news[job.folder] = f"no snapshot could be taken: {_reason(error)}"
            self.over(job)

        machine = replace(job.machine, pause_at_seed_byte=len(iso_head(_seed_bytes(job))))
        self.news[job.folder] = "the guest never read its seed"
        start = replace(job.record.start, kind=Start.COLD, key=key)
        return Plan(machine, start, save=save)


def why_cold(job: PreparedRun) -> str:
    """Return why a run cannot or must not share a snapshot; empty if it can."""
    options, accel = job.options, job.accel.accel
    reasons = {
        "cold start requested": options.start is Start.COLD,
        "without a seed there is no moment to take a snapshot": not options.attach_seed,
        # The guest's clock goes on from the snapshot's time, which TLS would not accept.
        "a machine with a network needs the right time": options.network is not Network.NONE,
        "snapshots are not tested under HVF": accel is Accel.HVF,
    }
    if options.start is Start.AUTO:
        reasons |= {
            f"under {accel.upper()} a boot is short": accel is not Accel.TCG,
            "the full profile boots as in a cloud": options.seed.profile is Profile.FULL,
        }
    return next((reason for reason, holds in reasons.items() if holds), "")


async def resume(
    machine: Machine, snapshot: Snapshot, disk_size_bytes: int
) -> list[tuple[float, bytes]]:
    """Load a snapshot into a launched machine, with its own disk size, and let it run.

    A snapshot that QEMU does not accept is deleted.

    Returns
    -------
    list of (float, bytes)
        What its guest had written before, with seconds since its own launch.

    Raises
    ------
    SnapshotError
        If QEMU does not accept it, or was ended meanwhile (see :func:`ended_from_outside`);
        nothing of the run has happened yet.
    """
    try:
        await snapshots.load_state(machine, snapshot.memory)
    except SnapshotError:
        if not ended_from_outside(machine):
            snapshots.delete(snapshot)
        raise
    except OSError as error:
        raise SnapshotError(f"The snapshot could not be read: {error}") from error
    try:
        past = list(snapshot.console())
        if disk_size_bytes != snapshot.record.disk_size_bytes:
            await _resize_disk(machine, disk_size_bytes)
        await machine.command("cont")
    except (CloudlabError, OSError) as error:
        raise SnapshotError(f"The snapshot could not be resumed: {error}") from error
    return past


def ended_from_outside(machine: Machine) -> bool:
    """Return whether QEMU was ended by a signal or by cloudlab, rather than by an error."""
    end = machine.end
    return end is not None and (end.stopped or end.returncode < 0)


async def _resize_disk(machine: Machine, size_bytes: int) -> None:
    """Resize the disk of a machine that was resumed and is still paused."""
    # Since QEMU 10.0 a resumed machine's disks are inactive until it runs; that version also
    # brought the command that activates them earlier.
    known = {command["name"] for command in await machine.command("query-commands")}
    if "blockdev-set-active" in known:
        await machine.command("blockdev-set-active", node_name="disk", active=True)
    await machine.command("block_resize", node_name="disk", size=size_bytes)


def expected_s(job: PreparedRun, kind: Start) -> float:
    """Return the median duration of the last runs of this image, profile and start, in seconds.

    Where none started warm yet, of those that started cold.
    """
    known = _durations()
    keys = [_duration_key(job, one) for one in dict.fromkeys((kind, Start.COLD))]
    times = next((known[key] for key in keys if known.get(key)), None)
    return median(times) if times else _FIRST_GUESS_S[job.accel.accel]


def remember_duration(job: PreparedRun, kind: Start, took_s: float) -> None:
    """Record how long a run took; a cache that cannot be written is no reason to fail."""
    known, key = _durations(), _duration_key(job, kind)
    known[key] = [*known.get(key, []), round(took_s, 1)][-_KEPT_DURATIONS:]
    with (
        contextlib.suppress(CloudlabError, OSError),
        paths.whole_file(paths.make_folder(paths.cache_folder()) / "typical.json") as part,
    ):
        part.write_text(json.dumps(known, indent=1), encoding="utf-8")


def _duration_key(job: PreparedRun, kind: Start) -> str:
    return f"{job.options.image.name} {job.accel.accel} {job.options.seed.profile} {kind}"


def _durations() -> dict[str, list[float]]:
    try:
        known = json.loads((paths.cache_folder() / "typical.json").read_text(encoding="utf-8"))
        return {str(key): [float(time_s) for time_s in times] for key, times in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _cold(job: PreparedRun, why: str) -> Plan:
    return Plan(job.machine, replace(job.record.start, kind=Start.COLD, why=why))


def _warm(job: PreparedRun, snapshot: Snapshot) -> Plan:
    copies = {snapshot.disk: job.machine.overlay}
    if job.machine.uefi is not None:
        copies[snapshot.uefi_variables] = job.machine.uefi.variables
    try:
        for source, target in copies.items():
            with paths.whole_file(target, mode=0o600) as part:
                shutil.copyfile(source, part)
    except OSError as error:
        raise SnapshotError(f"The snapshot's files could not be copied: {error}.") from error
    record = snapshot.record
    start = replace(
        job.record.start,
        kind=Start.WARM,
        why=f"resumed from a snapshot taken {record.at_s:.1f} s into a boot on {record.saved}",
        resumed_at_s=record.at_s,
        saved=record.saved,
    )
    return Plan(replace(job.machine, incoming=True), start, snapshot=snapshot)


def _find(key: str) -> tuple[Snapshot | None, str]:
    """Return a snapshot, or why there is none."""
    try:
        return snapshots.find_snapshot(key), "there was no snapshot yet"
    except SnapshotError as error:
        return None, _reason(error)


def _reason(error: Exception) -> str:
    text = error.message if isinstance(error, CloudlabError) else str(error)
    return text.rstrip(".")


def _check_disk(options: Options) -> None:
    if options.disk_size_bytes - options.image.virtual_size_bytes < _ROOM_TO_GROW_BYTES:
        raise SnapshotError("The disk is hardly larger than the image.")


def _machine_facts(job: PreparedRun) -> dict[str, Any]:
    """Return everything that the guest's memory depends on when it first reads its seed."""
    image, machine = job.options.image, job.machine
    # Files have the same names in every run's facts, so that only their content counts.
    uefi = None
    if machine.uefi is not None:
        uefi = UefiFiles(machine.uefi.code, Path("uefi-variables"))
    alike = replace(machine, name="saved", overlay=Path("disk"), seed=Path("seed"), uefi=uefi)
    return {
        # The disk's backing file is this path; a file of the user's has no checksum.
        "image": [str(image.path), image.sha256 or _stamp(image.path)],
        "qemu": job.record.versions.qemu,
        "command": qemu_argv(alike, qmp_fd=0),
        "firmware": _stamp(machine.uefi.code) if machine.uefi else None,
        # With hardware acceleration the guest sees the host's own CPU.
        "host": [platform.node(), platform.release(), platform.processor()]
        if machine.accel is not Accel.TCG
        else platform.machine(),
        "seed": iso_head(_seed_bytes(job)).hex(),
    }


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _seed_bytes(job: PreparedRun) -> bytes:
    assert job.machine.seed is not None
    return job.machine.seed.read_bytes()


async def _save(job: PreparedRun, key: str, machine: Machine, log: BootLog, paused: Paused) -> None:
    if log.watcher.stage is not Stage.CLOUD_INIT_LOCAL:
        raise SnapshotError(f"the guest read its seed as early as in stage {log.watcher.stage}")
    if log.bytes > CONSOLE_CAP_BYTES:
        raise SnapshotError("its console wrote too much")
    with snapshots.saving(key) as part:
        await snapshots.save_state(machine, part / "memory")
        await asyncio.to_thread(_save_files, job, part, paused)
        await asyncio.to_thread(
            snapshots.keep,
            part,
            key,
            at_s=paused.at_s,
            disk_size_bytes=job.options.disk_size_bytes,
            machine=_machine_facts(job),
            console=[(time_s, len(chunk)) for time_s, chunk in paused.console],
            overlay_growth=log.overlay_growth,
        )


def _save_files(job: PreparedRun, part: Path, paused: Paused) -> None:
    disk = part / "disk.qcow2"
    shutil.copyfile(job.machine.overlay, disk)
    console = b"".join(chunk for _, chunk in paused.console)
    assert job.record.disk_before is not None
    grown = _extents(job.record.disk_before) != _extents(inspect_disk(disk, "qcow2"))
    if grown or b"resizing filesystem" in console:
        raise SnapshotError("this image grows its disk before cloud-init reads the seed")
    if job.machine.uefi is not None:
        shutil.copyfile(job.machine.uefi.variables, part / "uefi-variables.fd")
    (part / "console.log").write_bytes(console)


def _extents(layout: DiskLayout) -> list[tuple[int | None, ...]]:
    """Return start and size of each partition and the size of its filesystem: what can grow."""
    return [
        (one.start_bytes, one.size_bytes, one.filesystem.size_bytes if one.filesystem else None)
        for one in layout.partitions
    ]
