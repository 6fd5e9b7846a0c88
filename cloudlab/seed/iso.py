"""The seed as an ISO image, the same bytes for the same texts."""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from cloudlab.errors import SeedError, UsageError
from cloudlab.paths import expand, os_errors_as, write_whole
from cloudlab.seed.config import Profile, Seed, SeedConfig, build_seed, typed

#: What cloud-init's NoCloud datasource looks for: the volume's label, and a file.
VOLUME_ID = "cidata"
USER_DATA_FILE = "user-data"

#: The size of a seed whose files fit: what genisoimage makes of the article's.  It is the same
#: for all, because a snapshot resumes only with disks of the size they had.
SEED_BYTES = 183 * 2048

_SECTOR_BYTES = 2048
_FIRST_DESCRIPTOR = 16
_DESCRIPTOR_END = 255
_ROOT_RECORD = 156
_VOLUME_DATE = b"2000010100000000\0"
_RECORD_DATE = bytes((100, 1, 1, 0, 0, 0, 0))


def write_seed(
    path: Path | str,
    config: SeedConfig | None = None,
    *,
    user_data: Path | str | None = None,
    meta_data: Path | str | None = None,
    vendor_data: Path | str | None = None,
    network_config: Path | str | None = None,
    check: bool = True,
    overwrite: bool = False,
) -> Seed:
    r"""Build a seed and write it as an ISO image that any machine with cloud-init can use.

    Parameters
    ----------
    path : Path or str
    config : SeedConfig, optional
        By default, options without cloudlab's report, with the full profile.
    user_data, meta_data, vendor_data, network_config : str or Path, optional
        As of :func:`build_seed`; a Path is read.
    check : bool
        As of :func:`build_seed`.
    overwrite : bool
        Whether an existing file is replaced.

    Returns
    -------
    Seed
        With the warnings about the given texts as its ``problems``.

    Raises
    ------
    SeedError
        If an option or a text is not valid, ``path`` exists, or it cannot be written.
    UsageError
        If an argument has another type, or a file of a text cannot be read.

    Examples
    --------
    >>> seed = cloudlab.write_seed("seed.iso", user_data="#cloud-config\nresize_rootfs: false\n")
    >>> seed.problems
    ()
    """
    path = expand(path)
    if os.path.lexists(path) and not overwrite:
        raise SeedError(
            f"{path} exists; nothing was written.",
            hint="Choose another name, or replace it with --force (in Python, overwrite=True).",
        )
    if not isinstance(config, SeedConfig | None):
        raise UsageError(
            f"The options of a seed cannot be {config!r:.80}.",
            hint="Give a SeedConfig; a text has a name: user_data=...",
        )
    texts = {
        "user_data": user_data,
        "meta_data": meta_data,
        "vendor_data": vendor_data,
        "network_config": network_config,
    }
    seed = build_seed(
        config or SeedConfig(report=False, profile=Profile.FULL),
        **{name: typed(name, text, str | None) for name, text in texts.items()},
        check=check,
    )
    write_iso(seed, path)
    return seed


def write_iso(
    seed: Seed,
    path: Path,
    *,
    label: str = VOLUME_ID,
    user_data_file: str = USER_DATA_FILE,
) -> Path:
    """Write ``seed`` as an ISO 9660 image with Rock Ridge and Joliet names; return ``path``.

    Only its owner may read it: it may hold password hashes.  Another ``label`` or
    ``user_data_file`` makes a seed that cloud-init does not accept, to show what happens then.

    Raises
    ------
    SeedError
        If it cannot be written, or the label or the name does not fit into an ISO image.
    """
    image = iso_bytes(seed, label, user_data_file)
    hint = "Choose a path in a writable folder with free space."
    with os_errors_as(SeedError, f"The seed {path} could not be written", hint=hint):
        write_whole(path, image, mode=0o600)
    return path


def iso_bytes(seed: Seed, label: str = VOLUME_ID, user_data_file: str = USER_DATA_FILE) -> bytes:
    """Return the ISO image of ``seed``; see :func:`write_iso`."""
    import pycdlib

    # Joliet holds 16 characters of the label, ISO 9660 30 of a name.
    if not re.fullmatch(r"[\w-]{1,16}", label, re.ASCII):
        raise SeedError(
            f"The seed's label {label!r} does not fit into an ISO image.",
            hint="Use at most 16 letters, digits, - and _; cloud-init needs 'cidata'.",
        )
    others = {"meta-data", "vendor-data", "network-config", "report.sh"}
    pattern = r"(?=.{1,30}$)[\w-]+(\.\w+)?"
    if not re.fullmatch(pattern, user_data_file, re.ASCII) or user_data_file in others:
        raise SeedError(
            f"The user-data cannot have the name {user_data_file!r} in the seed.",
            hint="Use letters, digits, - and _, at most one dot, and at most 30 characters.",
        )
    iso = pycdlib.PyCdlib()
    iso.new(
        interchange_level=3,
        joliet=3,
        rock_ridge="1.09",
        vol_ident=label,
        app_ident_str="CLOUDLAB",
    )
    texts = {
        user_data_file: seed.user_data,
        "meta-data": seed.meta_data,
        "vendor-data": seed.vendor_data,
        "network-config": seed.network_config,
        "report.sh": seed.report_sh,
    }
    for name, text in texts.items():
        if text is None:
            continue
        data = text.encode("utf-8", "surrogatepass")
        iso_name = name.upper().replace("-", "_")
        iso_name = f"/{iso_name if '.' in iso_name else iso_name + '.'};1"
        iso.add_fp(io.BytesIO(data), len(data), iso_name, rr_name=name, joliet_path=f"/{name}")
    stream = io.BytesIO()
    iso.write_fp(stream)
    iso.close()
    image = bytearray(stream.getvalue())
    image += bytes(max(0, SEED_BYTES - len(image)))
    _fix_descriptors(image)
    return bytes(image)


def iso_head(image: bytes) -> bytes:
    """Return the part of a seed before its root directory: descriptors, no names, no files.

    A guest cannot tell two seeds with the same head apart before it mounts them.
    """
    sector, _ = _extent(image, _FIRST_DESCRIPTOR * _SECTOR_BYTES + _ROOT_RECORD)
    return image[: sector * _SECTOR_BYTES]


def _fix_descriptors(image: bytearray) -> None:
    """Set the volume's size, and one fixed date for every time stamp.

    The offsets are those of ECMA-119 8.4 and 9.1, and RRIP 4.1.6.
    """
    descriptor = _FIRST_DESCRIPTOR * _SECTOR_BYTES
    sectors = len(image) // _SECTOR_BYTES
    while image[descriptor] != _DESCRIPTOR_END:
        struct.pack_into("<I", image, descriptor + 80, sectors)
        struct.pack_into(">I", image, descriptor + 84, sectors)
        # Creation and modification; then, past expiration, "effective".
        image[descriptor + 813 : descriptor + 847] = _VOLUME_DATE * 2
        image[descriptor + 864 : descriptor + 881] = _VOLUME_DATE
        root = descriptor + _ROOT_RECORD
        image[root + 18 : root + 25] = _RECORD_DATE
        sector, size_bytes = _extent(image, root)
        for record in _records(image, sector * _SECTOR_BYTES, size_bytes):
            image[record + 18 : record + 25] = _RECORD_DATE
            _fix_rock_ridge(image, record)
        descriptor += _SECTOR_BYTES


def _extent(image: bytes | bytearray, record: int) -> tuple[int, int]:
    sector, size_bytes = struct.unpack_from("<I4xI", image, record + 2)
    return sector, size_bytes


def _records(image: bytearray, start: int, size_bytes: int) -> Iterator[int]:
    at = start
    while at < start + size_bytes:
        if image[at]:
            yield at
            at += image[at]
        else:
            at += _SECTOR_BYTES - at % _SECTOR_BYTES


def _fix_rock_ridge(image: bytearray, record: int) -> None:
    name_bytes = image[record + 32]
    at = record + 33 + name_bytes + (name_bytes + 1) % 2
    end = record + image[record]
    while at < end - 3 and image[at + 2]:
        if image[at : at + 2] == b"TF":
            dates = range(at + 5, at + image[at + 2], len(_RECORD_DATE))
            for date in dates:
                image[date : date + 7] = _RECORD_DATE
        at += image[at + 2]
