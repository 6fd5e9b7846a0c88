"""How many machines run at a time for all users of one host, such as the seats of a JupyterHub.

``CLOUDLAB_SLOTS=/srv/cloudlab/slots:10`` allows ten.  All users can write to the folder.  A machine
holds a lock on one of the files ``slot-0`` to ``slot-9``; QEMU inherits the open file, so the slot is
taken until QEMU has ended, whatever ended it.  A boot that waits holds a lock on a ticket, whose
name starts with the time: the oldest ticket gets the next slot.  The kernel releases the locks of
a process that dies.  The limit is an agreement: it does not stop a user who unsets the variable.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudlab.errors import MachineError, UsageError

#: The variable with the folder and the number of slots.
VARIABLE = "CLOUDLAB_SLOTS"
#: The most slots that it may name.
MOST_SLOTS = 1000
#: How a note begins while a boot waits for a slot.
WAITING = "waiting for "

_EXAMPLE = "/srv/cloudlab/slots:10"
_TICKET = "waiting-"
#: Seconds between two looks at the queue, and more for each boot that is ahead.
_TICK_S, _TICK_AHEAD_S = 0.2, 0.02


@dataclass(frozen=True)
class Slots:
    """The slots of this host: a folder that all of its users can write to, and their number."""

    folder: Path
    count: int

    def files(self) -> Iterator[Path]:
        """Yield the file of each slot, which may not be there yet."""
        return (self.folder / f"slot-{number}" for number in range(self.count))

    def taken(self) -> int:
        """Return how many slots are taken at this moment."""
        return sum(map(_is_locked, self.files()))


def read_slots() -> Slots | None:
    """Return what ``CLOUDLAB_SLOTS`` sets; None where it is not set.

    Raises
    ------
    UsageError
        If its value cannot be used.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    name, _, number = text.rpartition(":")
    folder = Path(name)
    known = number.isascii() and number.isdecimal() and len(number) <= len(str(MOST_SLOTS))
    if not (known and 1 <= int(number) <= MOST_SLOTS and folder.is_absolute()):
        raise UsageError(
            f"{VARIABLE} is {text!r}; expected a folder's absolute path, a colon, and how many "
            f"machines may run at a time (1 to {MOST_SLOTS}).",
            hint=f"Set it alike for all users of this host, for example: {VARIABLE}={_EXAMPLE}",
        )
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        problem = "cannot be written to" if folder.is_dir() else "is not a folder"
        raise UsageError(
            f"{VARIABLE} is {text!r}, but {folder} {problem}.",
            hint=f"The administrator creates it with: sudo install -d -m 1777 '{folder}'",
        )
    return Slots(folder, int(number))


class Slot(contextlib.AbstractContextManager["Slot"]):
    """One slot, as a context manager; leaving the block returns it, after QEMU has ended.

    Parameters
    ----------
    slots : Slots or None
        None where there is no limit: then there is nothing to wait for.

    Attributes
    ----------
    descriptor : int or None
        The open file that QEMU inherits; None where there is no limit.
    """

    def __init__(self, slots: Slots | None) -> None:
        self.descriptor: int | None = None
        self._slots = slots
        self._ticket: tuple[Path, int] | None = None

    def __exit__(self, *_: object) -> None:
        self._leave_queue()
        held, self.descriptor = self.descriptor, None
        if held is not None:
            _release(held)

    async def wait(self, say: Callable[[str], None]) -> None:
        """Wait for a slot; ``say`` is called with the boot's place in the queue when that changes.

        Raises
        ------
        MachineError
            If the folder or a file in it cannot be used.
        """
        if self._slots is None:
            return
        said = ""
        try:
            self._queue(self._slots.folder)
            while (ahead := self._ahead()) or not self._take(self._slots):
                if said != (words := _words(self._slots.count, ahead)):
                    say(said := words)
                await asyncio.sleep(_TICK_S + _TICK_AHEAD_S * ahead)
            self._leave_queue()
        except OSError as error:
            folder = self._slots.folder
            raise MachineError(
                f"No slot could be taken: {error.filename or folder}: {error.strerror}.",
                hint=f"All users must be able to write to {folder} and to read what is in it.",
            ) from error

    def _queue(self, folder: Path) -> None:
        path = folder / f"{_TICKET}{time.time_ns():020}-{uuid.uuid4().hex[:8]}"
        ticket = _create_locked(path)
        assert ticket is not None
        self._ticket = path, ticket

    def _leave_queue(self) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            with contextlib.suppress(OSError):
                ticket[0].unlink()
            _release(ticket[1])

    def _ahead(self) -> int:
        """Return how many boots came earlier and still wait."""
        assert self._ticket is not None
        mine, count = self._ticket[0], 0
        for name in os.listdir(mine.parent):  # noqa: PTH208 (the names are enough)
            if name.startswith(_TICKET) and name < mine.name:
                ticket = mine.with_name(name)
                if _is_locked(ticket):
                    count += 1
                else:
                    # Its process died.  In a sticky folder only its user may delete it.
                    with contextlib.suppress(OSError):
                        ticket.unlink()
        return count

    def _take(self, slots: Slots) -> bool:
        for path in slots.files():
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                self.descriptor = _lock(path)
                return True
            if not path.exists() and (made := _create_locked(path)) is not None:
                self.descriptor = made
                return True
        return False


def _words(count: int, ahead: int) -> str:
    slot = "the only slot" if count == 1 else f"one of {count} slots"
    text = f"{WAITING}{slot} for live boots"
    if ahead:
        text += f"; {ahead} boot{'s wait' if ahead > 1 else ' waits'} before this one"
    return text


def _open(path: Path) -> int:
    # For reading, which is enough to lock it: the file may belong to another user.
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _lock(path: Path) -> int:
    """Return the locked file; raise BlockingIOError if another process has the lock."""
    file = _open(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return file


def _is_locked(path: Path) -> bool:
    try:
        file = _open(path)
    except OSError:
        return False
    try:
        # A shared lock: two processes that look at the same time do not disturb each other.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _create_locked(path: Path) -> int | None:
    """Create a file that all users can lock, and lock it; None if it exists.

    It gets its name only then: else another process could lock it first, or not open it yet.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    file = os.open(part, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(file, 0o644)
        fcntl.flock(file, fcntl.LOCK_EX)
        os.link(part, path)
    except FileExistsError:
        os.close(file)
        return None
    except OSError:
        os.close(file)
        raise
    finally:
        part.unlink()
    return file


def _release(file: int) -> None:
    # Explicitly: a child that this process forked may have the file open for longer.
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)
