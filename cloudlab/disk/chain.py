"""An image and the files it stands on, and what qemu-img says of it.

Every layer's format is given to QEMU explicitly, down to the last backing file.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudlab import tools
from cloudlab.errors import DiskError, ToolFailedError
from cloudlab.formats import HEADER_BYTES, Qcow2Header, detect_format, parse_qcow2_header

#: More layers than anybody stacks on purpose.
_LAYER_LIMIT = 32
_INFO_TIMEOUT_S = 30.0
#: qemu-img check: 0 is fine, 3 means leaked clusters, which waste space and harm nothing.
_CHECK_FINE = frozenset({0, 3})
_COMPLAINT_CHARACTERS = 500
_PROTOCOL = re.compile(r"[^/]*:")


@dataclass(frozen=True)
class Layer:
    """One file of a backing chain.

    Attributes
    ----------
    path : Path
        Absolute.
    format : str
        ``qcow2`` or ``raw``.
    header : Qcow2Header or None
        None for raw.
    """

    path: Path
    format: str
    header: Qcow2Header | None = None


@dataclass(frozen=True)
class DiskInfo:
    """What ``qemu-img info`` says of an image.

    Attributes
    ----------
    path : Path
    format : str
        ``qcow2`` or ``raw``.
    virtual_size_bytes : int
        The disk's size as a machine sees it.
    disk_size_bytes : int
        What the file takes up on the host.
    backing_file, backing_format : str or None
    cluster_bytes : int or None
        None for raw.
    compression : str or None
        ``zlib`` or ``zstd``, the kind used for compressed clusters; None for raw.
    corrupt : bool
        QEMU found it corrupt once and marked it.
    in_use : bool
        A machine is writing to it (seen by QEMU's lock, which Linux has and macOS has not).
    """

    path: Path
    format: str
    virtual_size_bytes: int
    disk_size_bytes: int
    backing_file: str | None = None
    backing_format: str | None = None
    cluster_bytes: int | None = None
    compression: str | None = None
    corrupt: bool = False
    in_use: bool = False


def read_head(path: Path, length: int = HEADER_BYTES) -> bytes:
    """Return the first bytes of a disk, fewer where it is shorter.

    Raises
    ------
    DiskError
        If it is not there, may not be read, or is neither a file nor a block device.
    """
    try:
        mode = path.stat().st_mode
        # Opening a FIFO would wait for somebody to write to it.
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise DiskError(f"{path} is neither a file nor a block device, so it was not read.")
        with path.open("rb") as stream:
            return stream.read(length)
    except OSError as error:
        raise DiskError(f"The disk {path} could not be read: {error.strerror}.") from error
    except ValueError as error:
        raise DiskError(f"The disk {path!s:.200} could not be read: {error}.") from error


def backing_chain(path: Path, format: str | None = None) -> tuple[Layer, ...]:  # noqa: A002
    """Return the layers of an image, itself first, as its headers name them.

    Parameters
    ----------
    path : Path
    format : str, optional
        ``qcow2`` or ``raw``; without it, the first bytes decide.  Give it for a raw disk
        that an untrusted guest wrote to.

    Raises
    ------
    DiskError
        If a layer cannot be read, is of another format or encrypted, keeps its data in
        another file, is named by a URL, or the chain comes back to itself.
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
                f"{current} names {name!r} as its backing file; cloudlab opens only files."
            )
        current, declared = current.parent / name, layer.header.backing_format
    raise DiskError(
        f"The backing files of {path} go in a circle or are more than {_LAYER_LIMIT}; "
        "the disk was not opened."
    )


def _read_layer(path: Path, declared: str | None) -> Layer:
    head = read_head(path)
    found = declared or detect_format(head)
    if found == "raw":
        return Layer(path, "raw")
    if found != "qcow2":
        raise DiskError(
            f"{path} is of the format {found}; cloudlab reads qcow2 and raw.",
            hint=f"qemu-img can convert disks: qemu-img convert -f {found} -O qcow2 ...",
        )
    try:
        header = parse_qcow2_header(head)
    except DiskError as error:
        raise DiskError(f"{path} could not be read. {error.message}") from error
    if header.encrypted:
        raise DiskError(f"{path} is encrypted, so its contents cannot be shown.")
    if header.external_data:
        raise DiskError(f"{path} keeps its data in another file, which cloudlab does not open.")
    return Layer(path, "qcow2", header)


def qemu_filename(chain: tuple[Layer, ...]) -> str:
    """Return a chain as the one argument that lets QEMU open it without any guessing.

    It opens the disk beside a running machine, without taking locks.
    """
    node: dict[str, Any] | None = None
    for layer in reversed(chain):
        file = {"driver": "file", "filename": str(layer.path)}
        node = {"driver": layer.format, "file": file} | (
            {"backing": node} if layer.format == "qcow2" else {}
        )
    assert node is not None
    return "json:" + json.dumps(node | {"read-only": True, "force-share": True})


def damage(chain: tuple[Layer, ...], *, timeout_s: float) -> str:
    """Return what ``qemu-img check`` finds wrong with a chain's first layer, or nothing.

    A file that was cut off otherwise reads as zeros without any error.

    Raises
    ------
    ToolNotFoundError, ToolTimeoutError
    """
    if chain[0].format == "raw":
        return ""
    argv = ["qemu-img", "check", "-q", qemu_filename(chain)]
    done = tools.run(argv, timeout_s=timeout_s, check=False)
    if done.returncode in _CHECK_FINE:
        return ""
    return (done.stderr.strip() or done.stdout.strip())[:_COMPLAINT_CHARACTERS]


def disk_info(path: Path, format: str | None = None) -> DiskInfo:  # noqa: A002
    """Return what ``qemu-img info`` says of an image, also while a machine runs on it.

    Parameters
    ----------
    path : Path
    format : str, optional
        As for :func:`backing_chain`.

    Raises
    ------
    DiskError
        If it is no disk that cloudlab opens; see :func:`backing_chain`.
    ToolNotFoundError, ToolTimeoutError
    """
    layer = _read_layer(Path(os.path.abspath(path)), format)  # noqa: PTH100
    argv = ["qemu-img", "info", "-f", layer.format, "--output=json", str(layer.path)]
    try:
        done = tools.run(argv, timeout_s=_INFO_TIMEOUT_S, check=False)
        in_use = done.returncode != 0 and "lock" in done.stderr
        if done.returncode != 0:
            done = tools.run([*argv, "-U"], timeout_s=_INFO_TIMEOUT_S)
        return _parse_info(layer.path, json.loads(done.stdout), in_use=in_use)
    except ToolFailedError as error:
        raise DiskError(f"QEMU cannot open {path}: {error.output}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DiskError(f"qemu-img's answer for {path} was not understood: {error!r}.") from error


def _parse_info(path: Path, answer: dict[str, Any], *, in_use: bool) -> DiskInfo:
    special = answer.get("format-specific", {}).get("data", {})
    return DiskInfo(
        path=path,
        format=answer["format"],
        virtual_size_bytes=int(answer["virtual-size"]),
        disk_size_bytes=int(answer.get("actual-size", 0)),
        backing_file=answer.get("full-backing-filename", answer.get("backing-filename")),
        backing_format=answer.get("backing-filename-format"),
        cluster_bytes=answer.get("cluster-size"),
        compression=special.get("compression-type"),
        corrupt=bool(special.get("corrupt", False)),
        in_use=in_use,
    )
