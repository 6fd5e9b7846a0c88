"""One file on its way: resumed after any cut, hashed as it comes.

The part file is kept whatever happens, with a sidecar that says what it is a part of.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import math
import os
import queue
import re
import shutil
import threading
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

from cloudlab import paths
from cloudlab.errors import DownloadError
from cloudlab.image.progress import Meter
from cloudlab.image.web import (
    PATIENT,
    PassingError,
    Patience,
    Response,
    in_words,
    open_url,
    persist,
    raise_cancelled,
    whole_number,
)
from cloudlab.tools import Deadline
from cloudlab.units import format_bytes

#: What must stay free on the disk, in bytes.
SPARE_BYTES = 64 << 20

#: A server that sends less than this, in bytes per second over a time-out, has stalled.
SLOWEST_RATE = 1024

# Measured with hashing on: 64 KiB and 1 MiB are slower.
_BLOCK_BYTES = 1 << 18
_BACKLOG = 8
#: How much arrives between two looks at the free space.
_LOOK_BYTES = 16 << 20


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what keeps ``path`` from being written into an error that says what to do.

    Raises
    ------
    DownloadError
    """
    try:
        yield
    except OSError as error:
        hint = "Choose a place that you may write to with the variable CLOUDLAB_CACHE."
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            hint = "Make room there, or move the cache with the variable CLOUDLAB_CACHE; what has "
            hint += "arrived is kept."
        raise DownloadError(
            f"{path} could not be written: {error.strerror or error}.", hint=hint
        ) from error


class Download:
    """One file on its way into ``part``.

    Parameters
    ----------
    url : str
    part : Path
        Where the bytes are gathered; a ``.json`` beside it says what they are a part of.
    algorithms : tuple of str
        Hashes to compute on the way.
    allow_http : bool
        Whether a plain http URL, or a redirect to one, will do.
    meter : Meter
    size_bytes : int, optional
        The size that was promised; no more is taken.
    patience : Patience
    cancel : threading.Event, optional
        Set by another thread to stop; the part is kept.

    Attributes
    ----------
    resumed : bool
        Whether bytes of an earlier call were used.
    final_url : str
        Where the redirects led.
    """

    def __init__(
        self,
        url: str,
        part: Path,
        *,
        algorithms: tuple[str, ...],
        allow_http: bool,
        meter: Meter,
        size_bytes: int | None = None,
        patience: Patience = PATIENT,
        cancel: threading.Event | None = None,
    ) -> None:
        self.url = url
        self.part = part
        self.sidecar = part.with_name(part.name + ".json")
        self.resumed = False
        self.final_url = url
        self._algorithms = algorithms
        self._allow_http = allow_http
        self._meter = meter
        self._size_bytes = size_bytes
        self._patience = patience
        self._cancel = cancel
        self._hashed = 0
        self._hashes = {name: hashlib.new(name) for name in algorithms}

    def run(self) -> dict[str, str]:
        """Bring the part to its end and return its hashes, by algorithm.

        Raises
        ------
        DownloadError
            If the bytes do not arrive or there is no room for them.
        InterruptedRunError
            If ``cancel`` was set.
        """
        self.resumed = self._kept()[0] > 0
        persist(
            self._once,
            patience=self._patience,
            meter=self._meter,
            gained=self._size,
            cancel=self._cancel,
        )
        self._meter.show(self._size(), now=True)
        return {name: digest.hexdigest() for name, digest in self._hashes.items()}

    def discard(self) -> None:
        """Remove the part and what belongs to it."""
        self.part.unlink(missing_ok=True)
        self.sidecar.unlink(missing_ok=True)

    def _size(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.part.stat().st_size
        return 0

    def _kept(self) -> tuple[int, str, int | None]:
        """Return how many bytes may be built on, their validator and the whole length."""
        size = self._size()
        try:
            known = json.loads(self.sidecar.read_text(encoding="utf-8"))
            validator, total = str(known["validator"]), known["total_bytes"]
            if known["url"] != self.url or not validator or not isinstance(total, int | None):
                return 0, "", None
        except (OSError, ValueError, KeyError, TypeError):
            return 0, "", None
        return size, validator, total

    def _once(self) -> None:
        offset, validator, total = self._kept()
        headers = {"Range": f"bytes={offset}-", "If-Range": validator} if offset else {}
        try:
            response = open_url(
                self.url,
                allow_http=self._allow_http,
                timeout_s=self._patience.timeout_s,
                headers=headers,
            )
        except DownloadError as error:
            if offset and self._out_of_range(error, offset):
                return
            raise
        with response:
            offset, total = self._judge(response, offset, total)
            total = self._promised(total)
            self._meter.total_bytes = total
            if offset == 0:
                self.discard()  # before its room is asked for
            self._check_room(offset, total)
            if offset == 0:
                self._start_over(response, total)
            self._hash_up_to(offset)
            self._receive(response, total)

    def _out_of_range(self, error: DownloadError, offset: int) -> bool:
        """Return whether the part is already the whole file; if not, see that it starts over."""
        cause = error.__cause__
        if not isinstance(cause, urllib.error.HTTPError) or cause.code != 416:  # noqa: PLR2004
            return False
        length = (cause.headers.get("Content-Range") or "").removeprefix("bytes */")
        if length == str(offset):
            self._meter.total_bytes = offset
            self._hash_up_to(offset)
            return True
        self.discard()
        raise PassingError(f"{self.url} is shorter than what was kept of it") from error

    def _judge(self, response: Response, offset: int, total: int | None) -> tuple[int, int | None]:
        """Return where the server's bytes begin and how long the whole file is."""
        self.final_url = response.url
        if response.status != 206:  # noqa: PLR2004 (Partial Content)
            return 0, whole_number(response.headers.get("Content-Length", ""))
        spans = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", spans)
        if not match or int(match[1]) != offset or (total not in {None, int(match[3])}):
            self.discard()
            raise PassingError(f"{self.url} answered with another range than asked: {spans!r}")
        return offset, int(match[3])

    def _promised(self, total: int | None) -> int | None:
        """Return how many bytes to take, of what the server says and of what was promised."""
        if self._size_bytes is None or total in {None, self._size_bytes}:
            return self._size_bytes or total
        raise DownloadError(
            f"{self.url} has {total} bytes, but {self._size_bytes} were promised; it was not "
            "downloaded.",
            hint="If the file is being replaced on the server, try again in a moment.",
        )

    def _check_room(self, offset: int, total: int | None) -> None:
        free = shutil.disk_usage(self.part.parent).free
        needed = (total or offset) - offset + SPARE_BYTES
        if free < needed:
            raise DownloadError(
                f"{self._meter.name} needs {needed / 1e6:.0f} MB in {self.part.parent}, where "
                f"{free / 1e6:.0f} MB are free; nothing more was downloaded.",
                hint="Make room there, or move the cache with the variable CLOUDLAB_CACHE.",
            )

    def _start_over(self, response: Response, total: int | None) -> None:
        self.resumed = False
        etag = response.headers.get("ETag", "")
        # A weak ETag does not promise the same bytes.
        validator = "" if etag.startswith("W/") else etag
        validator = validator or response.headers.get("Last-Modified", "")
        with storing(self.sidecar), paths.whole_file(self.sidecar) as file:
            file.write_text(
                json.dumps({"url": self.url, "validator": validator, "total_bytes": total}) + "\n",
                encoding="utf-8",
            )

    def _hash_up_to(self, offset: int) -> None:
        """Bring the hashes to ``offset``: bytes that an earlier process left are read again."""
        if self._hashed == offset:
            return
        self._hashes = {name: hashlib.new(name) for name in self._algorithms}
        self._hashed = 0
        if offset == 0:
            return
        with self.part.open("rb") as stream:
            while block := stream.read(min(_BLOCK_BYTES, offset - self._hashed)):
                self._add(block)

    def _add(self, block: bytes) -> None:
        for digest in self._hashes.values():
            digest.update(block)
        self._hashed += len(block)

    def _receive(self, response: Response, total: int | None) -> None:
        received = self._hashed
        with storing(self.part):
            stream = self.part.open("ab", buffering=0)
        with stream, self._hashing() as add:
            for block in self._blocks(response, None if total is None else total - received):
                if self._cancel is not None and self._cancel.is_set():
                    raise_cancelled()
                self._write(stream.fileno(), memoryview(block))
                add(block)
                received += len(block)
                self._meter.show(received)
                if total is None and received % _LOOK_BYTES < len(block):
                    self._watch_room(received)
        if total is not None and received < total:
            raise PassingError(f"{self.url} broke off after {received} of {total} bytes")

    def _blocks(self, response: Response, left: int | None) -> Iterator[bytes]:
        """Yield what arrives, as it arrives, up to ``left`` bytes."""
        window_s = self._patience.timeout_s
        least = math.ceil(SLOWEST_RATE * window_s)
        try:
            while left != 0:
                window, arrived = Deadline.after(window_s), 0
                with response.limited(2 * window_s):
                    while left != 0 and not window.expired:
                        most = _BLOCK_BYTES if left is None else min(_BLOCK_BYTES, left)
                        block = response.read1(most)
                        if not block:
                            return
                        yield block
                        arrived += len(block)
                        left = None if left is None else left - len(block)
                if left != 0 and arrived < least:
                    raise PassingError(f"{self.url} sends less than {SLOWEST_RATE} bytes a second")
        except (OSError, http.client.HTTPException) as error:
            raise PassingError(f"{self.url} broke off: {in_words(error)}") from error

    def _watch_room(self, received: int) -> None:
        """Stop a download of unknown length before it fills the disk."""
        if shutil.disk_usage(self.part.parent).free >= SPARE_BYTES:
            return
        self.discard()
        raise DownloadError(
            f"{self.url} does not say how long it is, and its first {format_bytes(received)} "
            f"nearly filled the disk of {self.part.parent}; they were removed.",
            hint="Make room there, move the cache with the variable CLOUDLAB_CACHE, or take an "
            "image whose size is known.",
        )

    @contextlib.contextmanager
    def _hashing(self) -> Iterator[Callable[[bytes], None]]:
        """Hash in a thread: hashlib works without Python's lock, so that a second core helps."""
        blocks: queue.Queue[bytes] = queue.Queue(_BACKLOG)

        def work() -> None:
            while block := blocks.get():
                self._add(block)

        worker = threading.Thread(target=work, name="cloudlab-hash", daemon=True)
        worker.start()
        try:
            yield blocks.put
        finally:
            blocks.put(b"")
            worker.join()

    def _write(self, descriptor: int, block: memoryview) -> None:
        with storing(self.part):
            while block:
                block = block[os.write(descriptor, block) :]
