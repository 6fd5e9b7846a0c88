"""Which machines run on this host, and what dead ones left behind.

Each machine has an entry, a JSON file that is locked as long as its owner, its guard or its
supervisor lives.  A lock that can be taken therefore means that all are dead, without
any guessing from process numbers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

import psutil

from cloudlab import paths, platforms
from cloudlab.errors import MachineError, ShutdownError
from cloudlab.machine import _supervisor
from cloudlab.tools import Deadline, clean_environment, now

#: Runs the supervisor without the packages of this Python, whose import would take its time.
_SUPERVISOR = (
    "import sys; sys.path.append(sys.argv.pop(1))\n"
    "from cloudlab.machine._supervisor import main; sys.exit(main())"
)
_PACKAGES = Path(__file__).parents[2]

_STOP_TIMEOUT_S = 5.0


class Entry(contextlib.AbstractContextManager["Entry"]):
    """A machine's place in the list, taken before the first of its files is written.

    A small process guards it: if its maker dies before QEMU has a supervisor, for example while
    the machine waits for its turn, the guard does what the supervisor would do.

    Parameters
    ----------
    name : str
        The machine's name.
    run_folder : Path
    cleanup : sequence of Path
        Files that only this machine uses; they go when it is over, whatever ended it.

    Raises
    ------
    CloudlabError
        If the list cannot be written to, or the guard cannot be started.
    """

    def __init__(self, name: str, *, run_folder: Path, cleanup: Sequence[Path] = ()) -> None:
        self.about: dict[str, Any] = {
            "name": name,
            "started": now(),
            "space": platforms.process_space(),
            "owner_pid": os.getpid(),
            "run_folder": str(run_folder),
            "cleanup": [str(path) for path in cleanup],
        }
        folder = paths.make_folder(paths.running_folder(), private=True)
        sweep()
        self.path = folder / f"{uuid.uuid4().hex[:8]}.json"
        part = self.path.with_suffix(".part")
        try:
            # It gets its name once it is locked: else a sweep would take it for a dead one's.
            self._file = _locked(part)
            json.dump(self.about, self._file)
            self._file.flush()
            part.rename(self.path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise MachineError(
                f"The list of running machines in {folder} cannot be written: {error.strerror}.",
                hint="Free some space there, or move CLOUDLAB_CACHE.",
            ) from error
        # The guard inherits the mask from its first moment: whoever ends all processes of a session
        # ends this one too, and then the guard has work to do.
        signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            self._guard = subprocess.Popen(
                self.supervisor_argv(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[self.fileno()],
                start_new_session=True,
                env=clean_environment(),
            )
        except OSError as error:
            self.path.unlink()
            self._file.close()
            raise MachineError(
                f"No process could be started to guard the machine: {error.strerror}.",
                hint="End other programs, or ask for a higher limit of processes (ulimit -u).",
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def supervisor_argv(self, **job: Any) -> list[str]:
        """Return the command of the supervisor that starts QEMU as ``job`` says, or of the guard.

        Both inherit the locked file, :meth:`fileno`.
        """
        job |= {"about": self.about, "entry": str(self.path), "entry_fd": self.fileno()}
        argv = [sys.executable, "-I", "-S", "-c", _SUPERVISOR, str(_PACKAGES)]
        return [*argv, json.dumps(job)]

    def fileno(self) -> int:
        """Return the number of the locked file."""
        return self._file.fileno()

    def dismiss_guard(self) -> None:
        """End the guard, because there is a supervisor or nothing left to guard; idempotent."""
        if self._guard.returncode is None:
            self._guard.communicate(b"end\n")

    def close(self) -> None:
        """Leave the list; idempotent."""
        self.path.unlink(missing_ok=True)
        self.dismiss_guard()
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class RunningMachine:
    """One machine of this user's, as its entry tells.

    Attributes
    ----------
    ident : str
        Short name for ``cloudlab stop``.
    name : str
        The run's name.
    started : str
        ISO 8601, UTC.
    owner_pid, supervisor_pid, qemu_pid : int
    run_folder : str
    """

    ident: str
    name: str
    started: str
    owner_pid: int
    supervisor_pid: int
    qemu_pid: int
    run_folder: str


def list_running() -> list[RunningMachine]:
    """Return the machines that run now, oldest first; sweeps up after dead ones."""
    sweep()
    found, space = [], platforms.process_space()
    for path in _entries():
        about = _read(path)
        # A home folder may be shared with hosts and containers whose processes cannot be seen here.
        # A machine that waits for its turn, or has just ended, has an entry as well.
        here = about.get("space", space) == space
        if here and psutil.pid_exists(about.get("qemu_pid") or -1):
            values = {one.name: about[one.name] for one in fields(RunningMachine)[1:]}
            found.append(RunningMachine(path.stem, **values))
    return sorted(found, key=lambda machine: machine.started)


def sweep() -> list[str]:
    """End what the dead left running, delete their leftovers; return their short names."""
    for part in paths.running_folder().glob("*.part"):
        _sweep_part(part)
    return [path.stem for path in _entries() if _sweep_if_dead(path)]


def stop(machine: RunningMachine) -> None:
    """End a machine from outside; its owner sees it as ended.

    Raises
    ------
    ShutdownError
        If it would not end, or belongs to another user.
    """
    with contextlib.suppress(ProcessLookupError):
        try:
            os.kill(machine.supervisor_pid, signal.SIGTERM)
        except PermissionError as error:
            raise ShutdownError(
                f"The machine {machine.name} belongs to another user; it was not stopped.",
                hint=f"Stop it as that user, or with: sudo kill {machine.supervisor_pid}",
            ) from error
    deadline = Deadline.after(_STOP_TIMEOUT_S)
    while psutil.pid_exists(machine.qemu_pid):
        if deadline.expired:
            raise ShutdownError(
                f"The machine {machine.name} did not end within {_STOP_TIMEOUT_S:g} s.",
                hint=f"Kill it with: kill -9 {machine.qemu_pid} {machine.supervisor_pid}",
            )
        time.sleep(0.05)


def _entries() -> Iterator[Path]:
    yield from sorted(paths.running_folder().glob("*.json"))


def _read(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    makes_sense = (
        isinstance(about, dict)
        and isinstance(about.get("cleanup", []), list)
        and type(about.get("qemu_pid", 0)) is int
        and about.get("qemu_pid", 0) >= 0
    )
    return about if makes_sense else {}


def _sweep_if_dead(path: Path) -> bool:
    try:
        with path.open("r+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            about = _read(path)
            _kill_orphan(about)
            _supervisor.clean(about)
            path.unlink(missing_ok=True)
    except OSError:
        # Alive, swept by somebody else, or not ours to sweep (read-only cache).
        return False
    return True


def _locked(part: Path) -> TextIO:
    """Make a file and lock it."""
    while True:
        stream = part.open("x", encoding="utf-8")
        fcntl.flock(stream, fcntl.LOCK_EX)
        if os.fstat(stream.fileno()).st_nlink:
            return stream
        # A sweep came between the two.
        stream.close()


def _sweep_part(part: Path) -> None:
    """Delete an entry that never got its name, because its maker died."""
    with contextlib.suppress(OSError), part.open("r+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink(missing_ok=True)


def _kill_orphan(about: dict[str, Any]) -> None:
    # Without a kernel's help, QEMU can outlive its supervisor (platforms.die_with_parent).  The
    # process number may have been reused, so it must be this run's QEMU.
    with contextlib.suppress(psutil.Error, KeyError):
        process = psutil.Process(about["qemu_pid"])
        if f"guest={about['name']}".replace(",", ",,") in process.cmdline():
            process.kill()
