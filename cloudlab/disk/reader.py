"""Reading ranges of a virtual disk as an ordinary user, without mounting anything.

A raw disk is its file.  For qcow2, ``qemu-nbd`` serves the disk on a private Unix
socket and we speak NBD with it: every feature of the format (compression, backing
files, subclusters) is QEMU's to know, and the protocol is small and stable.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from cloudlab import tools
from cloudlab.disk.chain import Layer, qemu_filename
from cloudlab.errors import DiskError, ToolTimeoutError

_TIMEOUT_S = 30.0
_POLL_S = 0.005
_NEWSTYLE = b"NBDMAGICIHAVEOPT"
_FIXED_NEWSTYLE_NO_ZEROES = 3
_EXPORT_NAME = 1
_REQUEST, _REPLY = 0x25609513, 0x67446698
_READ = 0


class Reader(Protocol):
    """A disk whose bytes can be read."""

    @property
    def size_bytes(self) -> int:
        """The disk's virtual size."""

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, fewer beyond the end."""


class BytesReader:
    """A disk that lies in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, fewer beyond the end."""
        return self._data[offset : offset + length]


class Window:
    """A part of a disk, such as a partition, seen as a disk of its own."""

    def __init__(self, reader: Reader, start_bytes: int, size_bytes: int) -> None:
        self._reader = reader
        self._start_bytes = start_bytes
        self.size_bytes = max(0, min(size_bytes, reader.size_bytes - start_bytes))

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, fewer beyond the end."""
        length = min(length, self.size_bytes - offset)
        return self._reader.read(self._start_bytes + offset, length) if length > 0 else b""


class _FileReader:
    def __init__(self, handle: int) -> None:
        self._handle = handle
        # Seeking tells the size of block devices too.
        self.size_bytes = os.lseek(handle, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size_bytes - offset)
        if length <= 0:
            return b""
        try:
            return os.pread(self._handle, length, offset)
        except OSError as error:
            raise DiskError(f"The disk could not be read at byte {offset}: {error}.") from error


class _NbdReader:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        if self._receive(16) != _NEWSTYLE:
            raise DiskError("qemu-nbd did not greet as an NBD server does.")
        self._receive(2)
        self._send(struct.pack(">I8sII", _FIXED_NEWSTYLE_NO_ZEROES, b"IHAVEOPT", _EXPORT_NAME, 0))
        self.size_bytes: int = struct.unpack(">QH", self._receive(10))[0]

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size_bytes - offset)
        if length <= 0:
            return b""
        self._send(struct.pack(">IHHQQI", _REQUEST, 0, _READ, 0, offset, length))
        magic, error, _ = struct.unpack(">IIQ", self._receive(16))
        if magic != _REPLY:
            raise DiskError("qemu-nbd answered what is not NBD.")
        if error:
            raise DiskError(
                f"QEMU cannot read the disk at byte {offset}: {os.strerror(error)}.",
                hint="The image is damaged; qemu-img check says more.",
            )
        return self._receive(length)

    def _send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise DiskError(f"The connection to qemu-nbd failed: {error}.") from error

    def _receive(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            try:
                part = self._connection.recv(length - len(parts))
            except OSError as error:
                raise DiskError(f"The connection to qemu-nbd failed: {error}.") from error
            if not part:
                raise DiskError("qemu-nbd ended while the disk was being read.")
            parts += part
        return bytes(parts)


@contextlib.contextmanager
def open_disk(chain: tuple[Layer, ...]) -> Iterator[Reader]:
    """Open the disk that a backing chain makes, read-only, and close it again.

    It takes no lock, so it works beside a running machine; what that machine has not
    flushed yet is not seen.

    Parameters
    ----------
    chain : tuple of Layer
        From :func:`cloudlab.disk.chain.backing_chain`.

    Raises
    ------
    DiskError
        If it cannot be opened or read.
    ToolNotFoundError
        If it is qcow2 and qemu-nbd is not installed.
    """
    if chain[0].format == "raw":
        try:
            handle = os.open(chain[0].path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DiskError(f"{chain[0].path} could not be opened: {error.strerror}.") from error
        try:
            yield _FileReader(handle)
        finally:
            os.close(handle)
        return
    with (
        tempfile.TemporaryDirectory(prefix="cloudlab-") as folder,
        _served(chain, Path(folder)) as connection,
    ):
        yield _NbdReader(connection)


@contextlib.contextmanager
def _served(chain: tuple[Layer, ...], folder: Path) -> Iterator[socket.socket]:
    errors = folder / "errors"
    address = folder / "nbd"
    # Without --persistent, qemu-nbd ends with its only client, however that one ends; bound, it
    # also ends where that one dies before it has connected.
    program = str(tools.find_tool("qemu-nbd"))
    argv = [program, "--read-only", "-k", str(address), qemu_filename(chain)]
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            tools.bound_argv(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=tools.clean_environment(),
            start_new_session=True,
        )
    try:
        deadline = tools.Deadline.after(_TIMEOUT_S)
        while (connection := _connect(address)) is None:
            if process.poll() is not None:
                said = errors.read_text(encoding="utf-8", errors="replace").strip()
                raise DiskError(f"QEMU cannot open {chain[0].path}: {said}")
            if deadline.expired:
                raise ToolTimeoutError(f"qemu-nbd did not start within {_TIMEOUT_S:g} s.")
            time.sleep(_POLL_S)
        with connection:
            yield connection
    finally:
        process.terminate()
        try:
            process.wait(timeout=tools.GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _connect(address: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_TIMEOUT_S)
    try:
        connection.connect(str(address))
    except OSError as error:
        connection.close()
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return None
        raise DiskError(f"The connection to qemu-nbd failed: {error}.") from error
    return connection
