"""Download one file: resume it, hash it while it arrives, leave free space, check the checksum."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import math
import re
import shutil
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cloudlab import paths
from cloudlab.errors import ChecksumError, DownloadError
from cloudlab.image.catalogue import Digest
from cloudlab.image.web import Response, Transfer, TransientError, broken, open_url, whole_number
from cloudlab.tools import Deadline
from cloudlab.units import format_bytes

#: What must stay free on the disk, in bytes.
SPARE_BYTES = 64 << 20

#: A server that sends less than this, in bytes per second over a time-out, has stalled.
SLOWEST_RATE = 1024

#: Measured with hashing on: 64 KiB and 1 MiB are slower.
_BLOCK_BYTES = 1 << 18
_MAKE_ROOM = "Free some space there, or set CLOUDLAB_CACHE to a folder on another disk."
#: How much arrives between two looks at the free space.
_LOOK_BYTES = 16 << 20


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an operating system error about writing ``path`` into a DownloadError with a remedy."""
    try:
        yield
    except OSError as error:
        hint = "Set CLOUDLAB_CACHE to a folder that you can write to."
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            hint = f"{_MAKE_ROOM} What has arrived is kept."
        raise DownloadError(
            f"{path} could not be written: {error.strerror or error}.", hint=hint
        ) from error


class Download:
    """A download into ``part``, which is kept after any failure so that it can be resumed.

    Parameters
    ----------
    url : str
    part : Path
        The incomplete file; a ``.json`` beside it says what it is a part of.
    transfer : Transfer
    expected : Digest, optional
        The checksum that the file must have.
    allow_http : bool
        Whether a plain http URL, or a redirect to one, is allowed.
    size_bytes : int, optional
        The size that was promised; no more is taken.

    Attributes
    ----------
    final_url : str
        Where the redirects led.
    """

    def __init__(
        self,
        url: str,
        part: Path,
        transfer: Transfer,
        *,
        expected: Digest | None = None,
        allow_http: bool,
        size_bytes: int | None = None,
    ) -> None:
        self.url = self.final_url = url
        self.part, self.sidecar = part, part.with_name(part.name + ".json")
        self._transfer, self._expected = transfer, expected
        self._allow_http, self._size_bytes = allow_http, size_bytes
        #: Whether bytes of an earlier call were used.
        self._resumed = False
        self._hashed = 0
        algorithms = {"sha256"} | ({expected.algorithm} if expected else set())
        self._hashes = {name: hashlib.new(name) for name in algorithms}

    def run(self) -> dict[str, str]:
        """Complete the part and return its hashes, by algorithm.

        Raises
        ------
        DownloadError
            If the bytes do not arrive or there is no room for them.
        ChecksumError
            If they are not the expected ones; the part is removed.
        InterruptedRunError
            If it was stopped.
        """
        expected = self._expected
        while True:
            self._resumed = self._kept()[0] > 0
            self._transfer.persist(self._once, self._size)
            self._transfer.show(self._size(), now=True)
            hashes = {name: digest.hexdigest() for name, digest in self._hashes.items()}
            if expected is None or hashes[expected.algorithm] == expected.hex:
                return hashes
            self.discard()
            if not self._resumed:
                break
            # What an earlier call had left was not of this file after all: once more, from zero.
            note = "what was kept is not of this file; starting from the beginning"
            self._transfer.show(0, note, now=True)
        raise ChecksumError(
            f"The checksum of {self.url} is wrong: expected {expected}, found "
            f"{expected.algorithm}:{hashes[expected.algorithm]}. The file was removed.",
            hint="If the publisher was just replacing it, try again in a few minutes. Otherwise "
            "something on the way changes files: try another network.",
        )

    def discard(self) -> None:
        """Remove the part and its sidecar."""
        self.part.unlink(missing_ok=True)
        self.sidecar.unlink(missing_ok=True)

    def _size(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.part.stat().st_size
        return 0

    def _kept(self) -> tuple[int, str, int | None]:
        """Return how many bytes can be resumed, their validator and the whole length."""
        try:
            known = json.loads(self.sidecar.read_text(encoding="utf-8"))
            validator, total = str(known["validator"]), known["total_bytes"]
            if known["url"] == self.url and validator and isinstance(total, int | None):
                return self._size(), validator, total
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, "", None

    def _once(self) -> None:
        offset, validator, total = self._kept()
        headers = {"Range": f"bytes={offset}-", "If-Range": validator} if offset else {}
        timeout_s = self._transfer.patience.timeout_s
        try:
            response = open_url(
                self.url, allow_http=self._allow_http, timeout_s=timeout_s, headers=headers
            )
        except DownloadError as error:
            if offset and self._is_complete(error, offset):
                return
            raise
        with response:
            offset, total = self._check_response(response, offset, total)
            self._transfer.total_bytes = total
            if offset == 0:
                self.discard()  # before its room is asked for
            self._check_room(offset, total)
            if offset == 0:
                self._write_sidecar(response, total)
            self._hash_up_to(offset)
            self._receive(response, total)

    def _is_complete(self, error: DownloadError, offset: int) -> bool:
        """Return whether the server says that the part is the whole file; if not, discard it."""
        cause = error.__cause__
        if not isinstance(cause, urllib.error.HTTPError) or cause.code != 416:  # noqa: PLR2004
            return False
        length = (cause.headers.get("Content-Range") or "").removeprefix("bytes */")
        if length == str(offset):
            self._transfer.total_bytes = offset
            self._hash_up_to(offset)
            return True
        self.discard()
        raise TransientError(f"{self.url} is shorter than what was kept of it") from error

    def _check_response(
        self, response: Response, offset: int, total: int | None
    ) -> tuple[int, int | None]:
        """Return where the server's bytes begin and how many to have in the end."""
        self.final_url = response.url
        if response.status != 206:  # noqa: PLR2004 (Partial Content)
            offset, total = 0, whole_number(response.headers.get("Content-Length", ""))
        else:
            spans = response.headers.get("Content-Range", "")
            match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", spans)
            first, last, length = (int(text) for text in match.groups()) if match else (0, 0, 0)
            if first != offset or not first <= last < length or total not in {None, length}:
                self.discard()
                raise TransientError(f"{self.url} sent another range than asked for: {spans!r}")
            total = length
        promised = self._size_bytes
        if promised is not None and total not in {None, promised}:
            raise DownloadError(
                f"{self.url} has {total:,} bytes, but {promised:,} were promised; it was not "
                "downloaded.",
                hint="If the file is being replaced on the server, try again in a moment.",
            )
        return offset, promised or total

    def _check_room(self, offset: int, total: int | None) -> None:
        free = shutil.disk_usage(self.part.parent).free
        needed = (total or offset) - offset + SPARE_BYTES
        if free < needed:
            raise DownloadError(
                f"{self._transfer.name} needs {format_bytes(needed)} in {self.part.parent}, where "
                f"{format_bytes(free)} are free; nothing more was downloaded.",
                hint=_MAKE_ROOM,
            )

    def _write_sidecar(self, response: Response, total: int | None) -> None:
        self._resumed = False
        etag = response.headers.get("ETag", "")
        # A weak ETag does not promise the same bytes.
        validator = "" if etag.startswith("W/") else etag
        validator = validator or response.headers.get("Last-Modified", "")
        record = {"url": self.url, "validator": validator, "total_bytes": total}
        with storing(self.sidecar):
            paths.write_whole(self.sidecar, json.dumps(record) + "\n")

    def _hash_up_to(self, offset: int) -> None:
        """Hash the first ``offset`` bytes, if they are not what has been hashed."""
        if self._hashed == offset:
            return
        self._hashes = {name: hashlib.new(name) for name in self._hashes}
        self._hashed = 0
        if offset:
            with self.part.open("rb") as stream:
                while block := stream.read(min(_BLOCK_BYTES, offset - self._hashed)):
                    self._hash(block)

    def _hash(self, block: bytes) -> None:
        for digest in self._hashes.values():
            digest.update(block)
        self._hashed += len(block)

    def _receive(self, response: Response, total: int | None) -> None:
        received = self._hashed
        with storing(self.part):
            stream = self.part.open("ab", buffering=0)
        hashing = None
        # hashlib works without Python's lock, so a second core helps.
        with stream, ThreadPoolExecutor(1) as hasher:
            for block in self._blocks(response, None if total is None else total - received):
                self._transfer.check_cancelled()
                with storing(self.part):
                    view = memoryview(block)
                    while view:
                        view = view[stream.write(view) :]
                if hashing:
                    hashing.result()
                hashing = hasher.submit(self._hash, block)
                received += len(block)
                self._transfer.show(received)
                if total is None and received % _LOOK_BYTES < len(block):
                    self._watch_room(received)
        if total is not None and received < total:
            raise TransientError(f"{self.url} broke off after {received:,} of {total:,} bytes")

    def _blocks(self, response: Response, left: int | None) -> Iterator[bytes]:
        """Yield what arrives, as it arrives, up to ``left`` bytes."""
        window_s = self._transfer.patience.timeout_s
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
                    raise TransientError(
                        f"{self.url} sends less than {SLOWEST_RATE:,} bytes a second"
                    )
        except (OSError, http.client.HTTPException) as error:
            raise broken(self.url, error) from error

    def _watch_room(self, received: int) -> None:
        """Stop a download of unknown length before it fills the disk."""
        if shutil.disk_usage(self.part.parent).free < SPARE_BYTES:
            self.discard()
            raise DownloadError(
                f"{self.url} does not say how long it is, and its first {format_bytes(received)} "
                f"nearly filled the disk of {self.part.parent}; they were removed.",
                hint=f"{_MAKE_ROOM} Or use an image whose size is known.",
            )
