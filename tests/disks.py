"""Disks for tests, made by real tools, and what other programs say of them."""

import argparse
import contextlib
import io
import os
import re
from pathlib import Path

from cloudlab import tools
from cloudlab.cli.images import inspect

MIB = 1 << 20


class Bytes:
    """A disk in memory that counts what is read of it; zeros follow its bytes."""

    def __init__(self, data: bytes, size_bytes: int | None = None) -> None:
        self._data = data
        self.size_bytes = len(data) if size_bytes is None else size_bytes
        self.reads = self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        length = max(0, min(length, self.size_bytes - offset))
        chunk = self._data[offset : offset + length].ljust(length, b"\0")
        self.bytes_read += len(chunk)
        return chunk


def blank(path: Path, size: int) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


def partitioned(path: Path, script: str, size: int) -> Path:
    blank(path, size)
    tools.run(["sfdisk", "-q", path], stdin=script)
    return path


def copy_into(disk: Path, part: Path, offset: int) -> None:
    with part.open("rb") as source, disk.open("r+b") as target:
        while chunk := source.read(MIB):
            if chunk != bytes(len(chunk)):
                target.seek(offset + source.tell() - len(chunk))
                target.write(chunk)
        # The host allocates a file's blocks when it writes them back.
        os.fsync(target.fileno())


def patched(path: Path, *pieces: tuple[int, bytes]) -> Path:
    with path.open("r+b") as stream:
        for offset, data in pieces:
            stream.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
            stream.write(data)
    return path


def blkid(disk: Path, offset: int, size: int) -> dict[str, str]:
    argv = ["blkid", "-p", "-o", "udev", "-O", str(offset), "-S", str(size), disk]
    pairs = dict(line.split("=", 1) for line in tools.run(argv, check=False).stdout.splitlines())
    label = pairs.get("ID_FS_LABEL_ENC", "").encode()
    return {
        "type": pairs.get("ID_FS_TYPE", ""),
        "label": re.sub(rb"\\x(..)", lambda hit: bytes.fromhex(hit[1].decode()), label).decode(),
        "uuid": pairs.get("ID_FS_UUID", ""),
        "version": pairs.get("ID_FS_VERSION", ""),
    }


def shown(disk: Path) -> str:
    """Return what `cloudlab inspect` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        inspect(argparse.Namespace(disk=disk, format=None, json=False))
    return printed.getvalue()
