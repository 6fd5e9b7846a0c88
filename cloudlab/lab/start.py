"""How a run starts: cold, from the firmware on, or warm, from a machine saved amid its boot.

Until cloud-init reads its seed, all boots of one image on one kind of machine are alike.  A
run that boots there is paused at the guest's first look into the seed's root directory, saved,
and goes on; later runs restore that machine with a copy of its disk, their own disk size and
their own seed.  What a run cannot share it boots cold, and its record says why.
"""

from __future__ import annotations

import asyncio
import platform
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloudlab import paths
from cloudlab.console import Stage
from cloudlab.disk import inspect_disk
from cloudlab.errors import CloudlabError, SavedMachineError
from cloudlab.lab.boot import CONSOLE_CAP_BYTES, BootLog, OnPause, Paused
from cloudlab.lab.options import RunOptions, Start
from cloudlab.lab.prepare import PreparedRun
from cloudlab.lab.saved import (
    SavedMachine,
    check_room,
    find_saved,
    forget,
    keep,
    saved_key,
    saving,
)
from cloudlab.machine.config import Accel, MachineConfig, Network, UefiFiles, qemu_argv
from cloudlab.machine.migration import load_state, save_state
from cloudlab.machine.process import Machine
from cloudlab.seed import Profile
from cloudlab.seed.iso import iso_head

#: A disk that is larger than its image by less could not show that something grew early.
_ROOM_TO_GROW_BYTES = 64 << 20


@dataclass(frozen=True)
class Plan:
    """How one run starts.

    Attributes
    ----------
    machine : MachineConfig
    saved : SavedMachine or None
        What it is restored from.
    save : callable or None
        Awaited with the machine when it has paused; saves it.
    """

    machine: MachineConfig
    saved: SavedMachine | None = None
    save: OnPause | None = None


class Starts:
    """Plans the starts of runs that go on side by side.

    Of several that could share a saved machine that is not there yet, one boots and saves it,
    and the others wait for it.
    """

    def __init__(self) -> None:
        self._savers: dict[str, asyncio.Event] = {}

    async def plan(self, job: PreparedRun) -> Plan:
        """Return how a run starts; what it needs for that is in place, and its record says why.

        Raises
        ------
        SavedMachineError
            If files of a saved machine could not be copied; the run must be prepared again.
        """
        start = job.about["start"]
        start["why"] = start["why"] or why_cold(job)
        if start["why"]:
            return Plan(job.machine)
        key = saved_key(_machine_facts(job))
        first = key not in self._savers
        if first:
            # Before anything else is awaited: the others must find it.
            self._savers[key] = asyncio.Event()
            start["key"] = key
        else:
            await self._savers[key].wait()
        saved, news = await asyncio.to_thread(_look_up, key)
        if saved is not None:
            self.over(job)
            return await asyncio.to_thread(_restoring, job, saved)
        if not first:
            start["why"] = "no machine could be saved to start from"
            return Plan(job.machine)
        try:
            check_room(job.options.memory_bytes)
            _check_disk(job.options)
        except (CloudlabError, OSError) as error:
            start["why"] = f"no machine can be saved: {_words(error)}"
            self.over(job)
            return Plan(job.machine)
        return self._saving(job, key, news)

    def over(self, job: PreparedRun) -> None:
        """Let those go on who wait for what this run would save, whether it did or not."""
        key = job.about["start"].get("key")
        if key in self._savers:
            self._savers[key].set()

    def _saving(self, job: PreparedRun, key: str, news: str) -> Plan:
        head = iso_head(_seed_bytes(job))
        start = job.about["start"]

        async def save(machine: Machine, log: BootLog, paused: Paused) -> None:
            try:
                await _save(job, key, machine, log, paused)
                start["why"] = f"{news}; this one was, at {paused.at_s:.1f} s"
            except (CloudlabError, OSError) as error:
                start["why"] = f"no machine could be saved: {_words(error)}"
            self.over(job)

        machine = replace(job.machine, pause_at_seed_byte=len(head))
        job.about["command"][1:] = qemu_argv(machine, qmp_fd=3)
        start["why"] = "the guest never looked into its seed"
        return Plan(machine, save=save)


def _look_up(key: str) -> tuple[SavedMachine | None, str]:
    """Return a saved machine, or why there is none."""
    try:
        return find_saved(key), "no machine was saved yet"
    except SavedMachineError as error:
        return None, _words(error)


def why_cold(job: PreparedRun) -> str:
    """Return why a run cannot or shall not share a saved machine; empty if it can."""
    options = job.options
    accel = job.accel.accel
    reasons = {
        "asked for": options.start is Start.COLD,
        "without a seed there is nothing to wait for": not options.attach_seed,
        # The guest's clock goes on from when it was saved, and TLS would not have that.
        "a machine with a network needs a clock that is right": options.network is not Network.NONE,
        "QEMU is not known to save a machine under hvf": accel is Accel.HVF,
    }
    if options.start is Start.AUTO:
        reasons |= {
            f"with {accel} a boot is short": accel is not Accel.TCG,
            "the full profile boots as a cloud does": options.seed.profile is Profile.FULL,
        }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _words(error: Exception) -> str:
    text = error.message if isinstance(error, CloudlabError) else str(error)
    return text.rstrip(".")


def _check_disk(options: RunOptions) -> None:
    image = options.image
    if options.disk_size_bytes - image.virtual_size_bytes < _ROOM_TO_GROW_BYTES:
        raise SavedMachineError("The disk is hardly larger than the image.")


async def restore(
    machine: Machine, saved: SavedMachine, disk_size_bytes: int
) -> list[tuple[float, bytes]]:
    """Restore a launched machine, with a disk of its own size, and let it run.

    Returns
    -------
    list of (float, bytes)
        What its guest had written before, with seconds since its own launch.

    Raises
    ------
    SavedMachineError
        If QEMU would not, or was ended meanwhile (see :func:`ended_from_outside`); nothing of
        the run has happened yet.  A state that QEMU refused is deleted.
    """
    try:
        await load_state(machine, saved.memory)
    except SavedMachineError:
        if not ended_from_outside(machine):
            forget(saved)
        raise
    try:
        past = list(saved.console())
        if disk_size_bytes != saved.about["disk_size_bytes"]:
            await machine.command("block_resize", node_name="disk", size=disk_size_bytes)
        await machine.command("cont")
    except (CloudlabError, OSError) as error:
        raise SavedMachineError(f"The saved machine could not be restored: {error}") from error
    return past


def ended_from_outside(machine: Machine) -> bool:
    """Return whether somebody ended QEMU, rather than QEMU itself with an error."""
    end = machine.end
    return end is not None and (end.stopped or end.returncode < 0)


def _machine_facts(job: PreparedRun) -> dict[str, Any]:
    """Return everything that the guest's memory depends on when it first looks into its seed."""
    image, machine = job.options.image, job.machine
    # Files have the same names in every run's facts, so that only what they are counts.
    uefi = None
    if machine.uefi is not None:
        uefi = UefiFiles(machine.uefi.code, Path("uefi-variables"))
    alike = replace(machine, name="saved", overlay=Path("disk"), seed=Path("seed"), uefi=uefi)
    return {
        # The disk's backing file is this path; a file of the user's own has no checksum.
        "image": [str(image.path), image.sha256 or _stamp(image.path)],
        "qemu": job.about["versions"]["qemu"],
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


def _restoring(job: PreparedRun, saved: SavedMachine) -> Plan:
    copies = {saved.disk: job.machine.overlay}
    if job.machine.uefi is not None:
        copies[saved.uefi_variables] = job.machine.uefi.variables
    try:
        for source, target in copies.items():
            with paths.whole_file(target, mode=0o600) as part:
                shutil.copyfile(source, part)
    except OSError as error:
        raise SavedMachineError(f"The saved machine could not be copied: {error}.") from error
    machine = replace(job.machine, incoming=True)
    date, at_s = saved.about["saved"], saved.at_s
    job.about["command"][1:] = qemu_argv(machine, qmp_fd=3)
    job.about["start"] |= {
        "kind": "warm",
        "why": f"restored {at_s:.1f} s into a boot that was saved at {date}",
        "resumed_at_s": at_s,
        "saved": date,
    }
    return Plan(machine, saved=saved)


async def _save(job: PreparedRun, key: str, machine: Machine, log: BootLog, paused: Paused) -> None:
    if log.watcher.stage is not Stage.CLOUD_INIT_LOCAL:
        raise SavedMachineError(f"the seed was read as early as in stage {log.watcher.stage}")
    if log.bytes > CONSOLE_CAP_BYTES:
        raise SavedMachineError("its console wrote too much")
    with saving(key) as part:
        await save_state(machine, part / "memory")
        await asyncio.to_thread(_save_files, job, part, paused)
        about = {
            "at_s": paused.at_s,
            "disk_size_bytes": job.options.disk_size_bytes,
            "machine": _machine_facts(job),
            "console": [[time_s, len(chunk)] for time_s, chunk in paused.console],
            "overlay_growth": log.overlay_growth,
        }
        await asyncio.to_thread(keep, part, key, about)


def _save_files(job: PreparedRun, part: Path, paused: Paused) -> None:
    disk = part / "disk.qcow2"
    shutil.copyfile(job.machine.overlay, disk)
    before, found = job.about["disk_before"], inspect_disk(disk, "qcow2").to_json()
    console = b"".join(chunk for _, chunk in paused.console)
    if _extents(before) != _extents(found) or b"resizing filesystem" in console:
        raise SavedMachineError("this image grows its disk before cloud-init reads the seed")
    if job.machine.uefi is not None:
        shutil.copyfile(job.machine.uefi.variables, part / "uefi-variables.fd")
    (part / "console.log").write_bytes(console)


def _extents(disk: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return place and size of each partition and the size of its filesystem: what can grow."""
    return [
        (one["start_bytes"], one["size_bytes"], (one["filesystem"] or {}).get("size_bytes"))
        for one in disk["partitions"]
    ]
