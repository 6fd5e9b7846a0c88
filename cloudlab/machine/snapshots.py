"""Snapshots: the state of paused machines, from which later runs start warm.

``snapshots/KEY/`` in the cache holds ``memory`` (QEMU's migration stream), ``disk.qcow2`` (what
the boot had written until then, over the same image), ``console.log``, ``uefi-variables.fd``
where there are any, and ``snapshot.json``.  KEY is a hash over everything that the machine
depends on, so that after any change there is no snapshot and a new one is taken.

The state goes through a pipe whose other end QEMU gets over QMP's socket: QEMU's sandbox lets
it start no program that would write or read a file, and it can migrate to a file by name only
since version 8.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from cloudlab import paths
from cloudlab.errors import MachineError, SnapshotError
from cloudlab.machine.process import Machine
from cloudlab.tools import Deadline, now
from cloudlab.units import format_bytes

#: Raised whenever the content of a snapshot, or how it is taken, changes.
FORMAT = 2

#: Snapshots together take no more than this; those used longest ago go first.
LIMIT_BYTES = 4 << 30

#: Seconds that writing or reading a state may take; on an idle host it takes less than one.
TIMEOUT_S = 120.0

#: What must stay free on the cache's disk after a snapshot was taken.
_RESERVE_BYTES = 1 << 30

_KEY_CHARACTERS = 24
_RECORD = "snapshot.json"

#: Seconds that QEMU's end may take to become known after its connection broke.
_END_S = 5.0

_TICK_S = 0.02
_PIPE_BYTES = 1 << 20
# QEMU's default bandwidth, made for networks, would take seconds.
_BYTES_PER_S = 100 << 30
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    """Size and SHA-256 of one of a snapshot's files."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class SnapshotRecord:
    """What ``snapshot.json`` holds.

    Attributes
    ----------
    saved : str
        When, ISO 8601, UTC.
    at_s : float
        Seconds that the machine had run.
    disk_size_bytes : int
    console : tuple of (float, int)
        Seconds since launch and bytes, of each piece of ``console.log``.
    overlay_growth : tuple of (float, int)
        Seconds since launch, the overlay's allocated bytes.
    machine : dict
        What the key was made of.
    files : dict
        Name -> size and hash.
    """

    saved: str
    at_s: float
    disk_size_bytes: int
    console: tuple[tuple[float, int], ...]
    overlay_growth: tuple[tuple[float, int], ...]
    machine: dict[str, Any]
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class Snapshot:
    """One snapshot."""

    folder: Path
    record: SnapshotRecord

    @property
    def memory(self) -> Path:
        """QEMU's migration stream."""
        return self.folder / "memory"

    @property
    def disk(self) -> Path:
        """The overlay as it was."""
        return self.folder / "disk.qcow2"

    @property
    def uefi_variables(self) -> Path:
        """The firmware's variables as they were, where there are any."""
        return self.folder / "uefi-variables.fd"

    def console(self) -> Iterator[tuple[float, bytes]]:
        """Yield what the guest had written, piece by piece, with seconds since the launch."""
        with (self.folder / "console.log").open("rb") as stream:
            for time_s, size_bytes in self.record.console:
                yield time_s, stream.read(size_bytes)


def snapshot_key(machine: Mapping[str, Any]) -> str:
    """Return the name of a snapshot.

    Parameters
    ----------
    machine : mapping
        Everything that the machine depends on, as JSON values.
    """
    text = json.dumps([FORMAT, machine], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_CHARACTERS]


def find_snapshot(key: str) -> Snapshot | None:
    """Return the snapshot called ``key``, its files verified in full; None if there is none.

    The user's own comes before the shared one.

    Raises
    ------
    SnapshotError
        If it cannot be read, or is damaged; then it was deleted, if this user may.
    """
    found = (_read(root / key) for root in paths.readable_folders(paths.snapshots_folder()))
    return next((snapshot for snapshot in found if snapshot), None)


def _read(folder: Path) -> Snapshot | None:
    try:
        record = msgspec.json.decode((folder / _RECORD).read_bytes(), type=SnapshotRecord)
        for name, known in record.files.items():
            if _fingerprint(folder / name) != known:
                raise ValueError(f"{name} has changed")  # noqa: TRY301
        # Its age, for the limit, counts from its last use; a read-only cache has no limit.
        with contextlib.suppress(OSError):
            os.utime(folder)
    except FileNotFoundError:
        if not folder.exists():
            return None
        reason = "a file is missing"
    except OSError as error:
        # This is about the host, such as too many open files, and not about the snapshot.
        raise SnapshotError(
            f"The snapshot in {folder} cannot be read: {error.strerror}."
        ) from error
    except (ValueError, RecursionError) as error:
        reason = str(error)
    else:
        return Snapshot(folder, record)
    shutil.rmtree(folder, ignore_errors=True)
    done = "could not be deleted" if folder.exists() else "was deleted"
    raise SnapshotError(f"The snapshot in {folder} is damaged ({reason}); it {done}.")


def check_room(memory_bytes: int) -> None:
    """Check that a snapshot of a machine with this much memory can be kept.

    Raises
    ------
    SnapshotError
    CloudlabError
        If the cache cannot be written to.
    """
    folder = paths.make_folder(paths.snapshots_folder(), private=True)
    free = shutil.disk_usage(folder).free
    if memory_bytes > LIMIT_BYTES:
        raise SnapshotError(
            f"Its memory of {format_bytes(memory_bytes)} is more than may be kept "
            f"({format_bytes(LIMIT_BYTES)})."
        )
    if free < memory_bytes + _RESERVE_BYTES:
        raise SnapshotError(f"Only {format_bytes(free)} are free in {folder}.")


def saving(key: str) -> AbstractContextManager[Path]:
    """Return a context manager for an empty folder for a snapshot's files; see :func:`keep`.

    Whatever is not kept when the block ends is deleted.
    """
    return paths.scratch_folder(paths.snapshots_folder(), key)


def keep(
    part: Path,
    key: str,
    *,
    at_s: float,
    disk_size_bytes: int,
    machine: Mapping[str, Any],
    console: Sequence[tuple[float, int]],
    overlay_growth: Sequence[tuple[float, int]],
) -> None:
    """Give a folder of :func:`saving` its final name, whole, and hold the limit.

    Parameters are those of :class:`SnapshotRecord`.
    """
    files = {}
    for path in sorted(part.iterdir()):
        path.chmod(0o400)
        files[path.name] = _fingerprint(path)
    record = SnapshotRecord(
        saved=now(),
        at_s=at_s,
        disk_size_bytes=disk_size_bytes,
        console=tuple(console),
        overlay_growth=tuple(overlay_growth),
        machine=dict(machine),
        files=files,
    )
    (part / _RECORD).write_bytes(msgspec.json.encode(record))
    # Another process may have taken the same snapshot meanwhile; then that one stays.
    with contextlib.suppress(OSError):
        part.rename(part.parent / key)
    # Another process may delete one meanwhile.
    with contextlib.suppress(OSError):
        _hold_limit(part.parent, spare=key)


def delete(snapshot: Snapshot) -> None:
    """Delete a snapshot."""
    shutil.rmtree(snapshot.folder, ignore_errors=True)


async def save_state(machine: Machine, path: Path) -> None:
    """Write memory and devices of a paused machine to ``path``; the machine stays paused.

    Raises
    ------
    SnapshotError
        With QEMU's words.
    OSError
        If the file cannot be written.
    """
    file = path.open("xb")
    ours, theirs = _pipe()
    copying = asyncio.ensure_future(asyncio.to_thread(_copy, ours, file))
    try:
        await _give(machine, theirs)
        await machine.command("migrate-set-parameters", max_bandwidth=_BYTES_PER_S)
        await machine.command("migrate", uri="fd:state")
        await _wait_until_done(machine)
    except MachineError as error:
        if copying.done():
            # The host's disk did not take it: this raises its error.
            await copying
        raise SnapshotError(f"The snapshot could not be taken: {error.message}") from error
    # The end of the pipe comes behind QEMU's last byte.
    await copying


async def load_state(machine: Machine, path: Path) -> None:
    """Read the state of a machine that was launched to wait for one; it is paused afterwards.

    Raises
    ------
    SnapshotError
        If QEMU does not take it; that QEMU has then ended.
    OSError
        If the file cannot be read.
    """
    file = path.open("rb")
    theirs, ours = _pipe()
    copying = asyncio.ensure_future(asyncio.to_thread(_copy, file, ours))
    try:
        await _give(machine, theirs)
        await machine.command("migrate-incoming", uri="fd:state")
        await _wait_until_done(machine)
    except MachineError as error:
        # A QEMU that refuses the state ends; its own words say more than the lost connection.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(machine.wait(), _END_S)
        told = machine.end.stderr.strip() if machine.end else ""
        words = "; ".join(told.splitlines()) or error.message
        raise SnapshotError(f"The snapshot could not be resumed: {words}") from error
    finally:
        # QEMU may end, or have all that it wants, before the file does.
        copying.add_done_callback(asyncio.Future.exception)


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reading, writing = os.pipe()
    # Linux's pipes hold 64 KiB, which makes QEMU wait more often than read.
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return os.fdopen(reading, "rb", buffering=0), os.fdopen(writing, "wb", buffering=0)


async def _give(machine: Machine, end: BinaryIO) -> None:
    """Hand one end of a pipe over to QEMU; ours of it is closed."""
    with end:
        machine.pass_file(end)
        await machine.command("getfd", fdname="state")


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    with source, target:
        shutil.copyfileobj(source, target, _COPY_BYTES)


async def _wait_until_done(machine: Machine) -> None:
    deadline = Deadline.after(TIMEOUT_S)
    while not deadline.expired:
        news = await machine.command("query-migrate")
        if news.get("status") == "completed":
            return
        if news.get("status") in {"failed", "cancelled"}:
            raise MachineError(news.get("error-desc", "QEMU gave no reason."))
        await asyncio.sleep(_TICK_S)
    raise MachineError(f"It took more than {TIMEOUT_S:g} s.")


def _fingerprint(path: Path) -> FileRecord:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileRecord(os.fstat(stream.fileno()).st_size, digest)


def _hold_limit(root: Path, *, spare: str) -> None:
    folders = [path for path in root.iterdir() if path.is_dir() and not path.suffix]
    folders.sort(key=lambda path: (path.name != spare, -path.stat().st_mtime))
    used = 0
    for folder in folders:
        used += sum(_file_size(path) for path in folder.iterdir())
        if used > LIMIT_BYTES:
            shutil.rmtree(folder, ignore_errors=True)


def _file_size(path: Path) -> int:
    # Another process may delete it meanwhile.
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0
