"""Is this file what a cloud image is?  Asked before a machine is built on it."""

from __future__ import annotations

from pathlib import Path

from cloudlab.disk.chain import DiskInfo, backing_chain, damage, disk_info, read_head
from cloudlab.disk.layout import DiskLayout, inspect_disk
from cloudlab.errors import DiskError, UnsafeImageError
from cloudlab.formats import check_alone, detect_format

#: Published images have virtual sizes of a few GiB; ext4 with 4 KiB blocks ends here.
SIZE_LIMIT_BYTES = 16 << 40

_CHECK_TIMEOUT_S = 120.0
_ARCHIVES = frozenset({"gzip", "xz", "bzip2", "zstd", "zip", "tar"})


def check_safe(path: Path, expected_format: str | None = None) -> DiskInfo:
    """Return what qemu-img says of a base image, after making sure that it may be used.

    The file's own header is read first, so that QEMU never opens what that header names.

    Parameters
    ----------
    path : Path
    expected_format : str, optional
        ``qcow2`` or ``raw``, where the catalogue or the user says it.

    Raises
    ------
    UnsafeImageError
        If it needs a backing or data file, is encrypted, of another format, absurdly
        large, damaged or cut off, or a raw file that holds no disk.
    DiskError
        If it cannot be read.
    ToolNotFoundError, ToolTimeoutError
    """
    head = read_head(path)
    found = detect_format(head)
    if found not in {"qcow2", "raw"} or found != (expected_format or found):
        wanted = expected_format or "qcow2 or raw"
        raise UnsafeImageError(
            f"{path} is a file of the format {found}, expected {wanted}; it was not used.",
            hint="Unpack it first." if found in _ARCHIVES else "",
        )
    try:
        if found == "qcow2":
            check_alone(path, head)
        info = disk_info(path, found)
        if not 0 < info.virtual_size_bytes <= SIZE_LIMIT_BYTES:
            raise UnsafeImageError(
                f"{path} claims a virtual size of {info.virtual_size_bytes} bytes; cloud images "
                f"have a few GiB, and cloudlab uses none above 16 TiB. It was not used."
            )
        _check_clusters(info)
        _check_contents(inspect_disk(path, found))
    except DiskError as error:
        raise UnsafeImageError(f"{path} was not used. {error.message}", hint=error.hint) from error
    return info


def _check_clusters(info: DiskInfo) -> None:
    complaint = damage(backing_chain(info.path, info.format), timeout_s=_CHECK_TIMEOUT_S)
    if complaint:
        raise UnsafeImageError(
            f"{info.path} is damaged or cut off; it was not used. qemu-img check: {complaint}",
            hint="Fetch or build it again.",
        )


def _check_contents(layout: DiskLayout) -> None:
    kinds = {each.filesystem.type for each in layout.partitions if each.filesystem}
    if layout.table is None and not layout.partitions:
        raise UnsafeImageError(
            f"{layout.path} holds neither a partition table nor a filesystem, "
            "so it is no disk to boot from; it was not used."
        )
    if layout.table is None and "crypto_LUKS" in kinds:
        raise UnsafeImageError(f"{layout.path} is encrypted; it was not used.")
    last = max((each.end_bytes for each in layout.partitions), default=0)
    if last > layout.virtual_size_bytes:
        raise UnsafeImageError(
            f"{layout.path} is cut off: its last partition ends at byte {last}, the disk at "
            f"byte {layout.virtual_size_bytes}; it was not used.",
            hint="Fetch or build it again.",
        )
