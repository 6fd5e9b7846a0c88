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
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from cloudlab import paths
from cloudlab.console import Stage
from cloudlab.disk import DiskLayout, inspect_disk
from cloudlab.errors import CloudlabError, SnapshotError
from cloudlab.machine import snapshots
from cloudlab.machine.config import Accel, MachineConfig, Network, UefiFiles, qemu_argv
from cloudlab.machine.process import Machine
from cloudlab.machine.snapshots import Snapshot
from cloudlab.run.monitor import CONSOLE_CAP_BYTES, BootLog, OnPause, Written
from cloudlab.run.options import Start
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


@dataclass
class Plan:
    """How one run starts: from a snapshot, or cold, perhaps saving one when it is paused."""

    machine: MachineConfig
    #: For the record; a run that takes a snapshot says here how that went.
    start: RecordedStart
    snapshot: Snapshot | None = None
    save: OnPause | None = None


class Planner:
    """Plans the starts of runs that go on side by side.

    Of several that could share a snapshot that does not exist yet, one boots cold and takes
    it, and the others wait for it.
    """

    def __init__(self) -> None:
        self._savers: dict[str, asyncio.Event] = {}
        #: Run folder -> the event that the run sets when its snapshot was taken, or was not.
        self._saving: dict[Path, asyncio.Event] = {}

    async def plan(self, job: PreparedRun) -> Plan:
        """Return how a run starts; the files that it needs for that are in place.

        Raises
        ------
        SnapshotError
            If files of a snapshot could not be copied; the run must be prepared again.
        """
        if why := job.record.start.why or why_cold(job):
            return _cold(job, why)
        try:
            key = snapshots.snapshot_key(_machine_facts(job))
        except OSError as error:
            # QEMU cannot open it either, and its launch then fails with a message of its own.
            return _cold(job, f"{error.filename} cannot be read: {error.strerror}")
        first = key not in self._savers
        if first:
            # Before anything else is awaited: the others must find it.
            self._savers[key] = self._saving[job.folder] = asyncio.Event()
        else:
            await self._savers[key].wait()
        news = "there was no snapshot yet"
        try:
            snapshot = await asyncio.to_thread(snapshots.find_snapshot, key)
        except SnapshotError as error:
            snapshot, news = None, _reason(error)
        if snapshot is not None:
            self.over(job)
            return await asyncio.to_thread(_warm, job, snapshot)
        if not first:
            return _cold(job, "no snapshot could be taken to resume from")
        options = job.options
        try:
            snapshots.check_room(options.memory_bytes)
            if options.disk_size_bytes - options.image.virtual_size_bytes < _ROOM_TO_GROW_BYTES:
                raise SnapshotError("The disk is hardly larger than the image.")
        except (CloudlabError, OSError) as error:
            self.over(job)
            return _cold(job, f"no snapshot can be taken: {_reason(error)}")
        return self._plan_to_save(job, key, news)

    def over(self, job: PreparedRun) -> None:
        """Release the runs that wait for this run's snapshot, whether it was taken or not."""
        if job.folder in self._saving:
            self._saving[job.folder].set()

    def _plan_to_save(self, job: PreparedRun, key: str, news: str) -> Plan:
        async def save(machine: Machine, log: BootLog, at_s: float, console: Written) -> None:
            try:
                with snapshots.saving(key) as part:
                    _check_moment(log)
                    await snapshots.save_state(machine, part / "memory")
                    written = b"".join(chunk for _, chunk in console)
                    await asyncio.to_thread(_save_files, job, part, written)
                    await asyncio.to_thread(
                        snapshots.keep,
                        part,
                        key,
                        at_s=at_s,
                        disk_size_bytes=job.options.disk_size_bytes,
                        machine=_machine_facts(job),
                        console=[(time_s, len(chunk)) for time_s, chunk in console],
                        overlay_growth=log.overlay_growth,
                    )
                why = f"{news}; this run took one at {at_s:.1f} s"
            except (CloudlabError, OSError) as error:
                why = f"no snapshot could be taken: {_reason(error)}"
            plan.start = replace(plan.start, why=why)
            self.over(job)

        machine = replace(job.machine, pause_at_seed_byte=len(iso_head(_seed_bytes(job))))
        why = "the guest never read its seed"
        plan = Plan(machine, replace(job.record.start, kind=Start.COLD, key=key, why=why))
        plan.save = save
        return plan


def why_cold(job: PreparedRun) -> str:
    """Return why a run cannot or must not share a snapshot; empty if it can."""
    options, accel = job.options, job.machine.accel
    reasons = {
        "requested": options.start is Start.COLD,
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


async def resume(machine: Machine, snapshot: Snapshot, disk_size_bytes: int) -> Written:
    """Load a snapshot into a launched machine, with its own disk size, and let it run.

    Returned is what its guest had written before, with seconds since its own launch.  A
    snapshot that QEMU does not accept is deleted.

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
            # Since QEMU 10.0 a resumed machine's disks are inactive until it runs; that version
            # also brought the command that activates them earlier.
            known = {command["name"] for command in await machine.command("query-commands")}
            if "blockdev-set-active" in known:
                await machine.command("blockdev-set-active", node_name="disk", active=True)
            await machine.command("block_resize", node_name="disk", size=disk_size_bytes)
        await machine.command("cont")
    except (CloudlabError, OSError) as error:
        raise SnapshotError(f"The snapshot could not be resumed: {error}") from error
    return past


def ended_from_outside(machine: Machine) -> bool:
    """Return whether QEMU was ended by a signal or by cloudlab, rather than by an error."""
    end = machine.end
    return end is not None and (end.stopped or end.returncode < 0)


def expected_s(job: PreparedRun, kind: Start) -> float:
    """Return the median duration of the last runs of this image, profile and start, in seconds.

    Where none started warm yet, of those that started cold.
    """
    known = _durations()
    keys = [_duration_key(job, one) for one in (kind, Start.COLD)]
    times = next((known[key] for key in keys if known.get(key)), None)
    return median(times) if times else _FIRST_GUESS_S[job.machine.accel]


def remember_duration(job: PreparedRun, kind: Start, took_s: float) -> None:
    """Record how long a run took; a cache that cannot be written is no reason to fail."""
    known, key = _durations(), _duration_key(job, kind)
    known[key] = [*known.get(key, []), round(took_s, 1)][-_KEPT_DURATIONS:]
    with contextlib.suppress(CloudlabError, OSError):
        folder = paths.make_folder(paths.cache_folder())
        paths.write_whole(folder / "typical.json", json.dumps(known, indent=1))


def _duration_key(job: PreparedRun, kind: Start) -> str:
    return f"{job.options.image.name} {job.machine.accel} {job.options.seed.profile} {kind}"


def _durations() -> dict[str, list[float]]:
    try:
        text = (paths.cache_folder() / "typical.json").read_bytes()
        return msgspec.json.decode(text, type=dict[str, list[float]])
    except (OSError, ValueError):
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


def _reason(error: Exception) -> str:
    text = error.message if isinstance(error, CloudlabError) else str(error)
    return text.rstrip(".")


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


def _check_moment(log: BootLog) -> None:
    if log.watcher.stage is not Stage.CLOUD_INIT_LOCAL:
        raise SnapshotError(f"the guest read its seed as early as in stage {log.watcher.stage}")
    if log.bytes > CONSOLE_CAP_BYTES:
        raise SnapshotError("its console wrote too much")


def _save_files(job: PreparedRun, part: Path, console: bytes) -> None:
    disk = part / "disk.qcow2"
    shutil.copyfile(job.machine.overlay, disk)
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
