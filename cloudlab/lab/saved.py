"""Machines saved on their way through a boot, from which others start warm.

``saved/KEY/`` in the cache holds ``memory`` (QEMU's migration stream), ``disk.qcow2`` (what
the boot had written until then, over the same image), ``console.log`` and
``uefi-variables.fd`` where there are any, and ``saved.json``, which says what the machine was,
when each piece of console came, and each file's hash.  KEY is a hash over everything that the
machine depends on, so that a change of any of it finds nothing and saves a new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cloudlab import paths
from cloudlab.errors import SavedMachineError
from cloudlab.tools import now
from cloudlab.units import format_bytes

#: Raised whenever what is saved, or how, changes.
FORMAT = 1

#: Saved machines together take no more than this; those used longest ago go first.
LIMIT_BYTES = 4 << 30

#: What must stay free on the cache's disk after a machine was saved.
_RESERVE_BYTES = 1 << 30

_KEY_CHARACTERS = 24
_RECORD = "saved.json"


@dataclass(frozen=True)
class SavedMachine:
    """One saved machine.

    Attributes
    ----------
    folder : Path
    about : dict
        ``saved`` (date), ``at_s`` (seconds after its launch), ``disk_size_bytes``, ``console``
        (list of [seconds, bytes]), ``overlay_growth`` (list of [seconds, bytes]), ``machine``
        (what the key was made of), ``files`` (name -> size and hash).
    """

    folder: Path
    about: dict[str, Any]

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

    @property
    def at_s(self) -> float:
        """Seconds that the machine had run."""
        return float(self.about["at_s"])

    def overlay_growth(self) -> list[tuple[float, int]]:
        """Return the overlay's allocated bytes as they grew, with seconds since the launch."""
        return [(float(time_s), int(size)) for time_s, size in self.about["overlay_growth"]]

    def console(self) -> Iterator[tuple[float, bytes]]:
        """Yield what the guest had written, piece by piece, with seconds since the launch."""
        with (self.folder / "console.log").open("rb") as stream:
            for time_s, size_bytes in self.about["console"]:
                yield float(time_s), stream.read(size_bytes)


def saved_key(machine: Mapping[str, Any]) -> str:
    """Return the name under which a machine is saved.

    Parameters
    ----------
    machine : mapping
        Everything that it depends on, as JSON values.
    """
    text = json.dumps([FORMAT, machine], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_CHARACTERS]


def find_saved(key: str) -> SavedMachine | None:
    """Return the machine saved under ``key``, its files checked in full; None if there is none.

    Raises
    ------
    SavedMachineError
        If it cannot be read, or is damaged; then it was deleted.
    """
    folder = paths.saved_folder() / key
    try:
        about = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        for name, known in about["files"].items():
            found = _fingerprint(folder / name)
            if found != known:
                raise ValueError(f"{name} is not as it was saved")  # noqa: TRY301
        # Its age, for the limit, is the time since its last use; a read-only cache has no limit.
        with contextlib.suppress(OSError):
            os.utime(folder)
    except FileNotFoundError:
        if not folder.exists():
            return None
        reason = "a file is missing"
    except OSError as error:
        # This says something about the host, such as too many open files, not about the files.
        raise SavedMachineError(
            f"The saved machine in {folder} cannot be read: {error.strerror}."
        ) from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        reason = str(error)
    else:
        return SavedMachine(folder, about)
    shutil.rmtree(folder, ignore_errors=True)
    raise SavedMachineError(f"The saved machine in {folder} is damaged ({reason}); it was deleted.")


def check_room(memory_bytes: int) -> None:
    """Check that a machine with this much memory can be saved.

    Raises
    ------
    SavedMachineError
    CloudlabError
        If the cache cannot be written to.
    """
    folder = paths.make_folder(paths.saved_folder(), private=True)
    free = shutil.disk_usage(folder).free
    if memory_bytes > LIMIT_BYTES:
        raise SavedMachineError(
            f"Its memory of {format_bytes(memory_bytes)} is more than may be kept "
            f"({format_bytes(LIMIT_BYTES)})."
        )
    if free < memory_bytes + _RESERVE_BYTES:
        raise SavedMachineError(f"Only {format_bytes(free)} are free in {folder}.")


@contextlib.contextmanager
def saving(key: str) -> Iterator[Path]:
    """Yield an empty folder for a machine's files; see :func:`keep`.

    Whatever is not kept when the block ends is deleted.
    """
    root = paths.make_folder(paths.saved_folder(), private=True)
    _sweep(root)
    part = root / f"{key}.{uuid.uuid4().hex}.{os.getpid()}.part"
    part.mkdir(mode=0o700)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def keep(part: Path, key: str, about: Mapping[str, Any]) -> None:
    """Give a folder of :func:`saving` its final name, whole, and hold the limit.

    Parameters
    ----------
    part : Path
    key : str
    about : mapping
        As in :class:`SavedMachine`, but for ``files`` and ``saved``.
    """
    files = {}
    for path in sorted(part.iterdir()):
        path.chmod(0o400)
        files[path.name] = _fingerprint(path)
    record = {**about, "saved": now(), "files": files}
    (part / _RECORD).write_text(json.dumps(record), encoding="utf-8")
    # Another process may have saved the same one meanwhile; then that one stays.
    with contextlib.suppress(OSError):
        part.rename(part.parent / key)
    _hold_limit(part.parent, spare=key)


def forget(saved: SavedMachine) -> None:
    """Delete a saved machine."""
    shutil.rmtree(saved.folder, ignore_errors=True)


def _fingerprint(path: Path) -> list[Any]:
    with path.open("rb") as stream:
        return [
            os.fstat(stream.fileno()).st_size,
            hashlib.file_digest(stream, "sha256").hexdigest(),
        ]


def _hold_limit(root: Path, *, spare: str) -> None:
    folders = [path for path in root.iterdir() if path.is_dir() and not path.suffix]
    folders.sort(key=lambda path: (path.name != spare, -path.stat().st_mtime))
    used = 0
    for folder in folders:
        used += sum(_allocated(path) for path in folder.iterdir())
        if used > LIMIT_BYTES:
            shutil.rmtree(folder, ignore_errors=True)


def _allocated(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _sweep(root: Path) -> None:
    """Delete what processes that died while saving left behind."""
    for part in _parts(root.glob("*.part")):
        shutil.rmtree(part, ignore_errors=True)


def _parts(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        owner = folder.stem.rpartition(".")[2]
        if not owner.isdigit() or not psutil.pid_exists(int(owner)):
            yield folder
