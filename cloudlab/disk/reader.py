"""Open a virtual disk as an ordinary user: its backing chain and its bytes.

The format of every layer is given to QEMU explicitly, down to the last backing file.
A raw disk is read as a file.  For qcow2, ``qemu-nbd`` serves the disk on a private Unix
socket and cloudlab speaks NBD with it: QEMU handles every feature of the format
(compression, backing files, subclusters), and the protocol is small and stable.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

from cloudlab import paths, platforms, tools
from cloudlab.errors import DiskError, ToolTimeoutError, UnsafeImageError
from cloudlab.formats import (
    DAMAGED,
    Qcow2Header,
    check_format,
    check_standalone,
    format_of,
    parse_qcow2_header,
    read_ends,
    whole_sectors,
)

#: Longer chains are a mistake or an attack.
_LAYER_LIMIT = 32
_TIMEOUT_S = 30.0
_POLL_S = 0.005
#: qemu-img check: 0 is fine, 3 means leaked clusters, which only waste space.
_CHECK_FINE = frozenset({0, 3})
_COMPLAINT_CHARACTERS = 500
#: What QEMU says of a file that another one writes to: Failed to get shared "write" lock.
_LOCKED = re.compile(r'Failed to get (?:shared )?"[a-z ]+" lock')
_UNSUPPORTED = "Unsupported qcow2 feature(s): "
_PROTOCOL = re.compile(r"[^/]*:")

_NEWSTYLE = b"NBDMAGICIHAVEOPT"
_FIXED_NEWSTYLE_NO_ZEROES = 3
_EXPORT_NAME = 1
_REQUEST, _REPLY = 0x25609513, 0x67446698
_READ = 0


@dataclass(frozen=True)
class Layer:
    """One file of a backing chain.

    Attributes
    ----------
    path : Path
        Absolute.
    format : str
        ``qcow2`` or ``raw``.
    virtual_size_bytes : int
        The disk's size as a machine sees it.
    header : Qcow2Header or None
        None for raw.
    """

    path: Path
    format: Literal["qcow2", "raw"]
    virtual_size_bytes: int
    header: Qcow2Header | None = None


def backing_chain(path: Path, format: str | None = None) -> tuple[Layer, ...]:  # noqa: A002
    """Return the layers of an image, itself first, as its headers name them.

    Parameters
    ----------
    path : Path
    format : str, optional
        ``qcow2`` or ``raw``; None detects it from the file's own bytes.  Give it for a raw
        disk that an untrusted guest wrote to.

    Raises
    ------
    DiskError
        If a layer cannot be read, has another format, is encrypted, uses an external data
        file or is named by a URL, or if the chain is circular.
    """
    layers: list[Layer] = []
    current, declared = Path(os.path.abspath(path)), format  # noqa: PTH100 (links stay as named)
    while len(layers) < _LAYER_LIMIT:
        layer = _read_layer(current, declared)
        layers.append(layer)
        if layer.header is None or layer.header.backing_file is None:
            return tuple(layers)
        name = layer.header.backing_file
        if _PROTOCOL.match(name):
            raise DiskError(
                f"{current} has the backing file {name!r}; cloudlab opens only local files.",
                hint="Make one local file of it: qemu-img convert -O qcow2 OLD NEW",
            )
        current, declared = current.parent / name, layer.header.backing_format
    raise DiskError(
        f"The backing chain of {path} is circular or longer than {_LAYER_LIMIT} files.",
        hint="qemu-img rebase -u corrects the backing file that an overlay names.",
    )


def _read_layer(path: Path, declared: str | None) -> Layer:
    head, tail, size_bytes = read_ends(path)
    try:
        if check_format(path, declared or format_of(head, tail)) == "raw":
            return Layer(path, "raw", whole_sectors(size_bytes))
        header = parse_qcow2_header(head)
        # A backing file is fine here, because this function checks it as well.
        check_standalone(path, replace(header, backing_file=None, corrupt=False))
    except UnsafeImageError as error:
        raise DiskError(error.message, hint=error.hint) from error
    except DiskError as error:
        raise DiskError(f"{path} could not be read. {error.message}", hint=DAMAGED) from error
    return Layer(path, "qcow2", header.virtual_size_bytes, header)


def allocated_bytes(path: Path) -> int:
    """Return the bytes that a file takes up on the host, also while a machine runs on it.

    Raises
    ------
    DiskError
        If the file does not exist.
    """
    hint = "Check that no other program has moved or deleted it, then try again."
    with paths.os_errors_as(DiskError, f"The size of {path} could not be read", hint=hint):
        # st_blocks counts 512 bytes everywhere, whatever the filesystem's block size.
        return path.stat().st_blocks * 512


def is_in_use(layer: Layer) -> bool:
    """Return whether a machine is writing to an image (by QEMU's lock, which macOS lacks).

    Raises
    ------
    ToolNotFoundError, ToolTimeoutError
    """
    argv = ["qemu-img", "info", "-f", layer.format, str(layer.path)]
    done = tools.run(argv, timeout_s=_TIMEOUT_S, check=False)
    return done.returncode != 0 and _LOCKED.search(done.stderr) is not None


def qemu_filename(chain: tuple[Layer, ...]) -> str:
    """Return a chain as the one argument with which QEMU opens it without any guessing.

    QEMU opens the disk beside a running machine, without taking locks.  Raise a DiskError if a
    file's name is not UTF-8, as JSON has to be.
    """
    node: dict[str, Any] | None = None
    for layer in reversed(chain):
        if not paths.is_utf8(layer.path):
            raise DiskError(
                f"QEMU cannot open {os.fsencode(layer.path)!r}: the name is not UTF-8.",
                hint="Rename the file or its folder.",
            )
        file = {"driver": "file", "filename": str(layer.path)}
        node = {"driver": layer.format, "file": file} | (
            {"backing": node} if layer.format == "qcow2" else {}
        )
    assert node is not None
    return "json:" + json.dumps(node | {"read-only": True, "force-share": True})


def damage(chain: tuple[Layer, ...], *, timeout_s: float) -> str:
    """Return what ``qemu-img check`` finds wrong with a chain's first layer; empty if nothing.

    A qcow2 file that was cut off otherwise reads as zeros without any error.

    Raises
    ------
    DiskError
        If this QEMU lacks a feature of the image, which says nothing of its state.
    ToolNotFoundError, ToolTimeoutError
    """
    if chain[0].format == "raw":
        return ""
    argv = ["qemu-img", "check", "-q", qemu_filename(chain)]
    done = tools.run(argv, timeout_s=timeout_s, check=False)
    if done.returncode in _CHECK_FINE:
        return ""
    _, unsupported, feature = done.stderr.strip().partition(_UNSUPPORTED)
    if unsupported:
        raise DiskError(
            f"QEMU does not support a feature of {chain[0].path}: {feature}.",
            hint="Install a newer QEMU, or use an image that older ones can open.",
        )
    return (done.stderr.strip() or done.stdout.strip())[:_COMPLAINT_CHARACTERS]


class Reader:
    """A disk whose bytes can be read.

    Attributes
    ----------
    size_bytes : int
        The disk's virtual size.
    """

    size_bytes: int

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, fewer beyond the end."""
        length = min(length, self.size_bytes - offset)
        return self._read(offset, length) if length > 0 else b""

    def _read(self, offset: int, length: int) -> bytes:
        raise NotImplementedError


class _FileReader(Reader):
    def __init__(self, file: FileIO) -> None:
        self._file = file
        # Seeking works for block devices too, whose st_size is 0.
        self.size_bytes = file.seek(0, os.SEEK_END)

    def _read(self, offset: int, length: int) -> bytes:
        with paths.os_errors_as(DiskError, f"The disk could not be read at byte {offset:,}"):
            return os.pread(self._file.fileno(), length, offset)


class _NbdReader(Reader):
    def __init__(self, connection: socket.socket, answers: BinaryIO) -> None:
        self._connection, self._answers = connection, answers
        if self._exchange(b"", 18)[:16] != _NEWSTYLE:
            raise DiskError("qemu-nbd did not send the greeting of an NBD server.")
        choice = struct.pack(">I8sII", _FIXED_NEWSTYLE_NO_ZEROES, b"IHAVEOPT", _EXPORT_NAME, 0)
        self.size_bytes: int = struct.unpack(">QH", self._exchange(choice, 10))[0]

    def _read(self, offset: int, length: int) -> bytes:
        request = struct.pack(">IHHQQI", _REQUEST, 0, _READ, 0, offset, length)
        magic, error, _ = struct.unpack(">IIQ", self._exchange(request, 16))
        if magic != _REPLY:
            raise DiskError("qemu-nbd sent a reply that is not NBD.")
        if error:
            raise DiskError(
                f"QEMU cannot read the disk at byte {offset:,}: {os.strerror(error)}.",
                hint="The image is damaged; qemu-img check shows where.",
            )
        return self._exchange(b"", length)

    def _exchange(self, data: bytes, length: int) -> bytes:
        """Send ``data``, if any, and return the next ``length`` bytes that arrive."""
        with paths.os_errors_as(DiskError, "The connection to qemu-nbd failed"):
            self._connection.sendall(data)
            answer = self._answers.read(length)
        if len(answer) < length:
            raise DiskError("qemu-nbd ended while the disk was being read.")
        return answer


@contextlib.contextmanager
def open_disk(chain: tuple[Layer, ...]) -> Iterator[Reader]:
    """Open a backing chain as one disk, read-only, and close it again.

    No lock is taken, so this works beside a running machine; writes that the machine has
    not flushed yet are missing.

    Parameters
    ----------
    chain : tuple of Layer
        From :func:`backing_chain`.

    Raises
    ------
    DiskError
        If the disk cannot be opened or read.
    ToolNotFoundError
        If it is qcow2 and qemu-nbd is not installed.
    """
    if chain[0].format == "raw":
        with paths.os_errors_as(DiskError, f"{chain[0].path} could not be opened"):
            file = FileIO(chain[0].path)
        with file:
            yield _FileReader(file)
        return
    with (
        tempfile.TemporaryDirectory(
            prefix="cloudlab-", dir=platforms.socket_folder("cloudlab-12345678/nbd")
        ) as folder,
        _served(chain, Path(folder)) as reader,
    ):
        yield reader


@contextlib.contextmanager
def _served(chain: tuple[Layer, ...], folder: Path) -> Iterator[_NbdReader]:
    errors = folder / "errors"
    address = folder / "nbd"
    # Without --persistent, qemu-nbd exits when its only client disconnects; bound to this
    # process, it also exits if this process dies before it connects.
    program = str(tools.find_tool("qemu-nbd"))
    argv = [program, "--read-only", "-k", str(address), qemu_filename(chain)]
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            platforms.bound_argv(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=tools.clean_environment(),
            start_new_session=True,
        )
    try:
        deadline = tools.Deadline.after(_TIMEOUT_S)
        while (connection := _connect(address)) is None and process.poll() is None:
            if deadline.expired:
                raise ToolTimeoutError(f"qemu-nbd did not start within {_TIMEOUT_S:g} s.")
            time.sleep(_POLL_S)
        if connection is None:
            raise _refusal(chain, errors)
        with connection, connection.makefile("rb") as answers:
            try:
                reader = _NbdReader(connection, answers)
            except DiskError:
                # It listens before it opens the disk, and breaks off if it cannot.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=tools.GRACE_S)
                    raise _refusal(chain, errors) from None
                raise
            yield reader
    finally:
        process.terminate()
        try:
            process.wait(timeout=tools.GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _refusal(chain: tuple[Layer, ...], errors: Path) -> DiskError:
    output = errors.read_text(encoding="utf-8", errors="replace").strip()
    return DiskError(f"QEMU cannot open {chain[0].path}: {output}")


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
