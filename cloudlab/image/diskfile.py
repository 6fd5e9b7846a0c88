"""What a file is before anything opens it: its format by its first bytes, its virtual size."""

from __future__ import annotations

import json
from pathlib import Path

from cloudlab.errors import DiskError, ImageError, ToolFailedError
from cloudlab.formats import HEADER_BYTES, check_alone
from cloudlab.tools import run

_MAGIC = {
    b"QFI\xfb": "qcow2",
    b"KDMV": "VMDK",
    b"vhdxfile": "VHDX",
    b"conectix": "VHD",
    b"\x1f\x8b": "compressed by gzip",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"PK\x03\x04": "a zip archive",
}

# Where a raw disk, or a filesystem on a whole disk, has bytes that never differ.
_RAW_MARKS = (
    (510, b"\x55\xaa"),  # MBR, and with it every GPT
    (1024 + 56, b"\x53\xef"),  # ext2/3/4
    (0, b"XFSB"),
    (0x10040, b"_BHRfS_M"),  # btrfs
)


def detect_format(path: Path) -> str:
    """Return ``qcow2`` or ``raw``, judged by the file's own bytes.

    QEMU's own probing is not used: a guest that writes another format's first bytes to
    its raw disk could make it open any file of this host.

    Raises
    ------
    ImageError
        If it is neither.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(0x10048)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.") from error
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            if kind == "qcow2":
                return kind
            raise _no_image(path, kind)
    if any(start[at : at + len(mark)] == mark for at, mark in _RAW_MARKS):
        return "raw"
    if start.lstrip()[:200].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise _no_image(path, "a web page, as a server or a login portal sends instead of a file")
    raise _no_image(path, "neither qcow2 nor a raw disk with a partition table or filesystem")


def _no_image(path: Path, kind: str) -> ImageError:
    hint = "Unpack it first." if "compressed" in kind or "archive" in kind else ""
    return ImageError(
        f"{path.name} is no disk image: it is {kind}; it was not used.",
        hint=hint or "Expected is a qcow2 or raw image; qemu-img convert makes one of others.",
    )


def virtual_size_bytes(path: Path, kind: str) -> int:
    """Return the size in bytes of the disk that a guest would see.

    Raises
    ------
    ImageError
        If the file is damaged, not of the format ``kind``, or needs another file or a key.
    """
    if kind == "qcow2":
        # Before qemu-img: to tell the size, it would open the files that the header names.
        try:
            with path.open("rb") as stream:
                check_alone(path, stream.read(HEADER_BYTES))
        except DiskError as error:
            raise ImageError(
                f"{path.name} is no {kind} image that can be used: {error.message}"
            ) from error
    argv = ["qemu-img", "info", "--output=json", "-f", kind, str(path)]
    try:
        size: int = json.loads(run(argv).stdout)["virtual-size"]
    except ToolFailedError as error:
        raise ImageError(
            f"{path.name} is no {kind} image that can be used: {error.output}"
        ) from error
    return size
