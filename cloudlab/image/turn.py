"""Whose turn it is: of several processes that want one file, one downloads and the others wait."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cloudlab.image.download import storing
from cloudlab.image.progress import Meter
from cloudlab.image.web import raise_cancelled

_POLL_S = 0.2


@contextlib.contextmanager
def turn(part: Path, meter: Meter, cancel: threading.Event | None) -> Iterator[None]:
    """Hold this host's one permission to write ``part``, showing how another one gets on.

    Parameters
    ----------
    part : Path
        The lock lies beside it as long as it is held or waited for.
    meter : Meter
        Is told how far the other process is.
    cancel : threading.Event, optional
        Ends the wait.

    Raises
    ------
    DownloadError
        If the lock cannot be made.
    InterruptedRunError
        If ``cancel`` was set.
    """
    lock = part.with_name(part.name.removesuffix(".part") + ".lock")
    while (handle := _try_lock(lock)) is None:
        if cancel is not None and cancel.is_set():
            raise_cancelled()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            sidecar = part.with_name(part.name + ".json")
            meter.total_bytes = json.loads(sidecar.read_text("utf-8"))["total_bytes"]
            meter.show(part.stat().st_size)
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _try_lock(lock: Path) -> int | None:
    """Return a descriptor that holds ``lock`` until it is closed, or None if another one does."""
    with storing(lock):
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its holder removes the file: whoever opened it before that holds a lock of nothing.
        if os.path.samestat(os.fstat(handle), lock.stat()):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None
