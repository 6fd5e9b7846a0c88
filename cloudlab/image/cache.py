"""Images on this host, and the cache, where each image lies beside the record of what it is.

``images/NAME`` is the image, ``images/NAME.json`` its record.  The image gets its final name
first and its record last, so an image without a record is left over from an interrupted fetch or
build and is not used.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cloudlab import paths
from cloudlab.errors import ChecksumError, ImageError
from cloudlab.tools import ARCHITECTURES
from cloudlab.units import format_bytes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

#: The fields of a record that are texts, and those that are counts.
_TEXTS = (
    "name", "format", "arch", "sha256", "origin", "source", "date", "trust", "root_filesystem",
)  # fmt: skip
_COUNTS = ("virtual_size_bytes", "file_size_bytes", "mtime_ns")


@dataclass(frozen=True)
class Image:
    """One image on this host.

    Attributes
    ----------
    name : str
        File name, e.g. ``lab-trixie-ext4-r2.qcow2``.
    path : Path
        Absolute.
    format : str
        ``qcow2`` or ``raw``, as qemu-img calls it.
    arch : str
        ``amd64`` or ``arm64``.
    origin : str
        ``built``, ``fetched`` or ``file``.
    source : str
        URL, or the build's recipe in words, or the user's path.
    trust : str
        One of :class:`~cloudlab.image.trust.Trust`.
    date : str
        When it was built or fetched, ISO 8601 in UTC.
    sha256 : str
        Lower-case hexadecimal; empty for a file of the user's own, which is not hashed.
    virtual_size_bytes, file_size_bytes : int
    mtime_ns : int
        With ``file_size_bytes``, the cheap check on use.
    root_filesystem : str
        ``ext4``, ``btrfs``, ``xfs``, or empty where unknown.
    firmware : tuple of str
        Of ``bios`` and ``uefi``, what it boots by.
    schema_path : Path or None
        cloud-init's own JSON schema of user-data, taken out of the image.
    details : dict
        Whatever else is worth keeping (suite, cloud-init version, checksum file ...).

    Examples
    --------
    >>> image = cloudlab.fetch("debian-12-generic")
    >>> image.trust
    'checksum over TLS'
    """

    name: str
    path: Path
    format: str
    arch: str
    origin: str
    source: str
    trust: str
    date: str = ""
    sha256: str = ""
    virtual_size_bytes: int = 0
    file_size_bytes: int = 0
    mtime_ns: int = 0
    root_filesystem: str = ""
    firmware: tuple[str, ...] = ("bios", "uefi")
    schema_path: Path | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def generation(self) -> int:
        """How many images of the same name this one has replaced, since clocks may be wrong."""
        return int(self.details.get("generation", 0))

    def _repr_html_(self) -> str:
        from cloudlab.html import table_html

        return table_html(
            ("image", self.name),
            [
                ("file", f"{format_bytes(self.file_size_bytes)}, {self.format}, {self.arch}"),
                ("virtual size", format_bytes(self.virtual_size_bytes)),
                ("root filesystem", self.root_filesystem or "unknown"),
                ("from", f"{self.source}, {self.date}"),
                ("trust", self.trust),
                ("SHA-256", self.sha256 or "not hashed"),
            ],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain values, paths as names beside the record."""
        record = asdict(self)
        record["path"] = self.path.name
        record["schema_path"] = self.schema_path.name if self.schema_path else None
        record["firmware"] = list(self.firmware)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any], path: Path) -> Image:
        """Return the image of a record, from this cache or from a mirror.

        Parameters
        ----------
        record : mapping
            As :meth:`to_json` makes it; other keys are ignored.
        path : Path
            Where the image is, whatever the record says.

        Raises
        ------
        ValueError, LookupError, TypeError, AttributeError
            If a value is missing or not allowed.
        """
        schema, details = record.get("schema_path"), record.get("details", {})
        quirks, digests = details.get("quirks", {}), details.get("digests", {})
        allowed = {
            **{key: isinstance(record[key], str) for key in _TEXTS},
            **{key: _is_count(record[key]) for key in _COUNTS},
            "name": _NAME.fullmatch(record["name"]),
            "format": record["format"] in {"qcow2", "raw"},
            "arch": record["arch"] in ARCHITECTURES.values(),
            "sha256": record["sha256"] == "" or is_sha256(record["sha256"]),
            "firmware": record["firmware"] and {"bios", "uefi"}.issuperset(record["firmware"]),
            "schema_path": schema is None or _NAME.fullmatch(schema),
            **{
                key: isinstance(details.get(key, ""), str)
                for key in ("requested", "published_at", "mirror_name", "variant")
            },
            "generation": _is_count(details.get("generation", 0)),
            "quirks": all(isinstance(text, str) for pair in quirks.items() for text in pair),
            "digests": all(isinstance(text, str) for pair in digests.items() for text in pair),
        }
        wrong = [key for key, holds in allowed.items() if not holds]
        if wrong:
            raise ValueError(f"the value of {', '.join(wrong)} is not allowed")
        return cls(
            path=path,
            schema_path=path.with_name(schema) if schema else None,
            firmware=tuple(record["firmware"]),
            details=dict(details),
            **{key: record[key] for key in (*_TEXTS, *_COUNTS)},
        )


def is_sha256(text: str) -> bool:
    """Return whether ``text`` is a SHA-256 in lower-case hexadecimal."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.lru_cache(64)
def _sha256_at(path: Path, _size_bytes: int, _mtime_ns: int) -> str:
    return sha256_of(path)


def remember(image: Image) -> Image:
    """Write the record of an image that already has its final name; return it as stored."""
    status = image.path.stat()
    image = replace(image, file_size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    with paths.whole_file(image.path.with_name(image.path.name + ".json")) as part:
        part.write_text(json.dumps(image.to_json(), indent=2) + "\n", encoding="utf-8")
    return image


def recall(name: str, folder: Path | None = None) -> Image | None:
    """Return the cached image called ``name``, or None where it is not (wholly) there.

    Raises
    ------
    ImageError
        If its record cannot be read.
    ChecksumError
        As of :func:`check_unchanged`.
    """
    recorded = read_record(name, folder)
    if recorded is None:
        return None
    image = check_unchanged(recorded)
    if image != recorded:
        # In a cache that cannot be written, the next process has to hash it again.
        with contextlib.suppress(OSError):
            remember(image)
    return image


def check_unchanged(image: Image) -> Image:
    """Return ``image``, if its file is still what was recorded, with the file's present time.

    Size and modification time tell it; where only the time differs, as after a copy, the hash.

    Raises
    ------
    ImageError
        If the file is gone.
    ChecksumError
        If it was changed.
    """
    try:
        status = image.path.stat()
        if (status.st_size, status.st_mtime_ns) == (image.file_size_bytes, image.mtime_ns):
            return image
        found = f"{status.st_size} bytes"
        if status.st_size == image.file_size_bytes:
            found = "the same size with another modification time"
            if image.sha256:
                sha256 = _sha256_at(image.path, status.st_size, status.st_mtime_ns)
                if sha256 == image.sha256:
                    return replace(image, mtime_ns=status.st_mtime_ns)
                found = f"the same size with the SHA-256 {sha256}"
    except OSError as error:
        raise ImageError(
            f"The image {image.path} cannot be read: {paths.why_not(image.path, error)}.",
            hint="'cloudlab images' lists what is there.",
        ) from error
    raise ChecksumError(
        f"The image {image.path} was changed after it was recorded on {image.date}: expected "
        f"{image.file_size_bytes} bytes, found {found}; it was not used.",
        hint="'cloudlab verify' hashes the cached images. If you changed this file yourself, look "
        "it up again; remove a damaged one.",
    )


def read_record(name: str, folder: Path | None = None) -> Image | None:
    """Return what is recorded of ``name``, unchecked; None where record or image is missing.

    Raises
    ------
    ImageError
        If the record cannot be read.
    """
    path = (folder or paths.images_folder()) / name
    record = path.with_name(name + ".json")
    try:
        image = Image.from_json(json.loads(record.read_text(encoding="utf-8")), path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ImageError(
            f"The record {record} cannot be read: {error.strerror}.",
            hint="Correct its permissions, or set CLOUDLAB_CACHE to another folder.",
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ImageError(
            f"The record {record} cannot be read: {error}.", hint=f"Remove it with: rm '{record}'"
        ) from error
    return image if image.path.is_file() else None


def recorded_names(folder: Path | None = None) -> list[str]:
    """Return the names of all records, sorted; their images may be gone or changed."""
    names = (path.name for path in (folder or paths.images_folder()).glob("*.json"))
    # A schema lies beside its image and is a JSON file as well.
    return sorted(
        name.removesuffix(".json")
        for name in names
        if not name.startswith(".") and not name.endswith(".schema.json")
    )


def cached_images(folder: Path | None = None) -> list[Image]:
    """Return every recorded image, newest first, without those that were changed."""
    found = []
    for name in recorded_names(folder):
        with contextlib.suppress(ImageError):
            found.append(recall(name, folder))
    images = [image for image in found if image is not None]
    return sorted(images, key=lambda image: image.mtime_ns, reverse=True)


def verify(image: Image) -> Image:
    """Hash the whole image and, if the hash is right, record the file's modification time.

    Raises
    ------
    ChecksumError
        With both hashes.
    """
    actual = sha256_of(image.path)
    if image.sha256 and actual != image.sha256:
        raise ChecksumError(
            f"The image {image.path} is not what was recorded on {image.date}: expected "
            f"SHA-256 {image.sha256}, found {actual}.",
            hint=f"Remove it with: rm '{image.path}'",
        )
    return image if image.path.stat().st_mtime_ns == image.mtime_ns else remember(image)
