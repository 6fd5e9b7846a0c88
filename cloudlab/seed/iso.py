"""The seed as an ISO image, the same bytes for the same texts."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from cloudlab.errors import SeedError
from cloudlab.paths import whole_file
from cloudlab.seed.config import Seed

VOLUME_ID = "cidata"

#: The size of a seed, unless its files need more: what genisoimage makes of the article's.
#: One size for all, because a machine that was saved with a disk must find it of the same size.
SEED_BYTES = 183 * 2048

_SECTOR_BYTES = 2048
_FIRST_DESCRIPTOR = 16
_DESCRIPTOR_END = 255
_ROOT_RECORD = 156
_VOLUME_DATE = b"2000010100000000\0"
_RECORD_DATE = bytes((100, 1, 1, 0, 0, 0, 0))


def write_iso(seed: Seed, path: Path) -> Path:
    """Write ``seed`` as an ISO 9660 image with Rock Ridge and Joliet names; return ``path``.

    Only its owner may read it: it may hold password hashes.

    Raises
    ------
    SeedError
        If it cannot be written.
    """
    image = iso_bytes(seed)
    try:
        with whole_file(path, mode=0o600) as part:
            part.write_bytes(image)
    except OSError as error:
        raise SeedError(
            f"The seed {path} could not be written: {error.strerror}.",
            hint="Choose a folder that exists, can be written to and has room.",
        ) from error
    return path


def iso_bytes(seed: Seed) -> bytes:
    """Return the ISO image of ``seed``."""
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.new(
        interchange_level=3,
        joliet=3,
        rock_ridge="1.09",
        vol_ident=VOLUME_ID,
        app_ident_str="CLOUDLAB",
    )
    for name, text in _files(seed).items():
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
    """Return what lies before the root directory of a seed: descriptors, no names, no files.

    Two seeds with the same head differ in nothing that a guest knows before it mounts them.
    """
    sector, _ = _extent(image, _FIRST_DESCRIPTOR * _SECTOR_BYTES + _ROOT_RECORD)
    return image[: sector * _SECTOR_BYTES]


def read_iso(path: Path) -> Seed:
    """Return the texts that a seed image holds.

    Raises
    ------
    SeedError
        If ``path`` is not a seed.
    """
    import pycdlib
    from pycdlib.pycdlibexception import PyCdlibException

    iso = pycdlib.PyCdlib()
    texts: dict[str, str] = {}
    try:
        iso.open(str(path))
        try:
            for name in _FILE_NAMES.values():
                stream = io.BytesIO()
                try:
                    iso.get_file_from_iso_fp(stream, rr_path=f"/{name}")
                except PyCdlibException:
                    continue
                texts[name] = stream.getvalue().decode("utf-8", "replace")
        finally:
            iso.close()
    except (OSError, PyCdlibException) as error:
        raise SeedError(f"{path} cannot be read as a seed: {error}.") from error
    if not {"user-data", "meta-data"} <= set(texts):
        raise SeedError(f"{path} is no seed: it lacks user-data or meta-data.")
    found: dict[str, Any] = {
        field: texts[name] for field, name in _FILE_NAMES.items() if name in texts
    }
    return Seed(**found)


_FILE_NAMES = {
    field.name: "report.sh" if field.name == "report_sh" else field.name.replace("_", "-")
    for field in fields(Seed)
    if field.name != "problems"
}


def _files(seed: Seed) -> dict[str, str]:
    texts = {name: getattr(seed, field) for field, name in _FILE_NAMES.items()}
    return {name: text for name, text in texts.items() if text is not None}


def _fix_descriptors(image: bytearray) -> None:
    """Set the volume's size, and one fixed date for every time stamp.

    Places as of ECMA-119 8.4 and 9.1, and RRIP 4.1.6.
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
