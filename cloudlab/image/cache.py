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
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from cloudlab import paths
from cloudlab.errors import ChecksumError, DownloadError, ImageError
from cloudlab.formats import detect_format, virtual_size_bytes
from cloudlab.tools import ARCHITECTURES, check_arch, now
from cloudlab.units import format_bytes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

#: What :meth:`Image.from_json` and json raise on a text that is no record.
_BAD_RECORD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)

#: Where a mirror's index lies, and the version of its form.
INDEX = "catalogue.json"
INDEX_VERSION = 1

#: Keys of a record's ``details`` that are texts, if they are there, and that hold pairs of texts.
_DETAIL_TEXTS = ("requested", "published_at", "mirror_name", "variant")
_DETAIL_PAIRS = ("quirks", "digests")


class Trust(StrEnum):
    """What proves that an image is the published one."""

    SIGNED = "signed"
    TLS = "checksum over TLS"
    PINNED = "pinned checksum"
    MIRROR = "mirror's checksum"
    UNVERIFIED = "unverified"
    BUILT = "built here"


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
        One of :class:`Trust`.
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

    def is_named(self, request: str, name: str | None = None) -> bool:
        """Return whether ``request`` is a name, by default its file's, with or without suffix."""
        name = self.name if name is None else name
        return bool(name) and request in {name, name.removesuffix(f".{self.format}")}

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
        """Return the image of a record, from this cache or from a mirror; other keys are ignored.

        ``path`` is where the image is, whatever the record says.  Raise a ValueError, LookupError,
        TypeError or AttributeError if a value is missing or not allowed.
        """
        schema, details = record.get("schema_path"), record.get("details", {})
        # The types of fields are texts themselves in this module.
        texts = {f.name: record[f.name] for f in fields(cls) if f.type == "str"}
        counts = {f.name: record[f.name] for f in fields(cls) if f.type == "int"}
        pairs = {key: details.get(key, {}).items() for key in _DETAIL_PAIRS}
        allowed = {
            **{key: isinstance(value, str) for key, value in texts.items()},
            **{key: _is_count(value) for key, value in counts.items()},
            "name": _NAME.fullmatch(record["name"]),
            "format": record["format"] in {"qcow2", "raw"},
            "arch": record["arch"] in ARCHITECTURES.values(),
            "sha256": record["sha256"] == "" or is_sha256(record["sha256"]),
            "firmware": record["firmware"] and {"bios", "uefi"}.issuperset(record["firmware"]),
            "schema_path": schema is None or _NAME.fullmatch(schema),
            **{key: isinstance(details.get(key, ""), str) for key in _DETAIL_TEXTS},
            **{key: all(isinstance(t, str) for p in pairs[key] for t in p) for key in pairs},
            "generation": _is_count(details.get("generation", 0)),
        }
        wrong = [key for key, holds in allowed.items() if not holds]
        if wrong:
            raise ValueError(f"the value of {', '.join(wrong)} is not allowed")
        return cls(
            path=path,
            schema_path=path.with_name(schema) if schema else None,
            firmware=tuple(record["firmware"]),
            details=dict(details),
            **texts,
            **counts,
        )


class Offer(NamedTuple):
    """An image that a mirror holds.

    ``image`` is the instructor's record, whose paths are names only; ``schema_sha256`` is that of
    the file ``image.schema_path``, and empty where there is none.
    """

    image: Image
    schema_sha256: str


def parse_index(data: bytes, source: str) -> list[Offer]:
    """Return what a mirror's index offers; raise a DownloadError if ``data`` is none.

    ``source`` is its URL, for the message.
    """
    try:
        index = json.loads(data)
        if index["cloudlab_mirror"] != INDEX_VERSION:
            raise ValueError(f"version {index['cloudlab_mirror']!r}")
        return [_offer(record) for record in index["images"]]
    except _BAD_RECORD as error:
        raise DownloadError(
            f"{source} is not the index of a cloudlab mirror ({type(error).__name__}: {error})."
        ) from error


def _offer(record: dict[str, Any]) -> Offer:
    image = Image.from_json({**record, "mtime_ns": 0}, Path(record["name"]))
    # Beside an image, these are its record's and its schema's.
    if image.name.lower().endswith((".json", ".schema")):
        raise ValueError(f"the name {image.name!r} is not allowed")
    if not is_sha256(image.sha256) or not isinstance(record["schema_sha256"], str):
        raise ValueError("the value of sha256 or schema_sha256 is not allowed")
    return Offer(image, record["schema_sha256"])


def write_index(images: Iterable[Image]) -> str:
    """Return the index of ``images`` as JSON, for :func:`parse_index`."""
    entries = []
    for image in images:
        schema = image.schema_path
        schema = schema if schema and is_plain(schema) else None
        digest = sha256_of(schema) if schema else ""
        record = replace(image, schema_path=schema).to_json()
        entries.append(record | {"schema_sha256": digest})
    return json.dumps({"cloudlab_mirror": INDEX_VERSION, "images": entries}, indent=1) + "\n"


def is_plain(path: Path) -> bool:
    """Return whether ``path`` is a file and no link; nothing else is served to others."""
    return path.is_file() and not path.is_symlink()


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
    record = image.path.with_name(image.path.name + ".json")
    paths.write_whole(record, json.dumps(image.to_json(), indent=2) + "\n")
    return image


def recall(name: str, folder: Path | None = None) -> Image | None:
    """Return the cached image called ``name``, or None where it is not (wholly) there.

    Without a ``folder`` it is the user's own cache, then the shared one; the first image that is
    what was recorded counts.  Raise the first ImageError if there is only one whose record cannot
    be read, or as of :func:`check_unchanged`.
    """
    problems = []
    for one in [folder] if folder else paths.readable_folders(paths.images_folder()):
        try:
            if (recorded := read_record(name, one)) is None:
                continue
            image = check_unchanged(recorded)
        except ImageError as error:
            problems.append(error)
            continue
        if image != recorded:
            _remember_if_writable(image)
        return image
    if problems:
        raise problems[0]
    return None


def _remember_if_writable(image: Image) -> None:
    # In a cache that cannot be written, the next process has to hash it again.
    with contextlib.suppress(OSError):
        remember(image)


def check_unchanged(image: Image) -> Image:
    """Return ``image``, if its file is still what was recorded, with the file's present time.

    Size and modification time tell it; where only the time differs, as after a copy, the hash.
    Raise an ImageError if the file is gone, a ChecksumError if it was changed.
    """
    hint = "'cloudlab images' lists what is there."
    with paths.os_errors_as(ImageError, f"The image {image.path} cannot be read", hint=hint):
        status = image.path.stat()
        if (status.st_size, status.st_mtime_ns) == (image.file_size_bytes, image.mtime_ns):
            return image
        found = f"{status.st_size:,} bytes"
        if status.st_size == image.file_size_bytes:
            found = "the same size with another modification time"
            if image.sha256:
                sha256 = _sha256_at(image.path, status.st_size, status.st_mtime_ns)
                if sha256 == image.sha256:
                    return replace(image, mtime_ns=status.st_mtime_ns)
                found = f"the same size with the SHA-256 {sha256}"
    raise ChecksumError(
        f"The image {image.path} was changed after it was recorded on {image.date}: expected "
        f"{image.file_size_bytes:,} bytes, found {found}; it was not used.",
        hint="'cloudlab verify' hashes the cached images. If you changed this file yourself, look "
        "it up again; remove a damaged one.",
    )


def read_record(name: str, folder: Path | None = None) -> Image | None:
    """Return what is recorded of ``name``, unchecked; None where record or image is missing.

    Here and below, without a ``folder`` it is the user's own cache, then the shared one.  Raise an
    ImageError if the record cannot be read.
    """
    if folder is None:
        found = (read_record(name, one) for one in paths.readable_folders(paths.images_folder()))
        return next((image for image in found if image), None)
    path = folder / name
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
    except _BAD_RECORD as error:
        raise ImageError(
            f"The record {record} cannot be read: {error}.", hint=_removal(record)
        ) from error
    return image if image.path.is_file() else None


def _removal(path: Path) -> str:
    return f"Remove it with: rm {shlex.quote(str(path))}"


def recorded_names(folder: Path | None = None) -> list[str]:
    """Return the names of all records, sorted; their images may be gone or changed."""
    folders = [folder] if folder else paths.readable_folders(paths.images_folder())
    names = {path.name for one in folders for path in one.glob("*.json")}
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


def open_image(path: Path, *, arch: str | None = None) -> Image:
    """Return a file of the user's own as an image; it is not copied and not hashed.

    Parameters
    ----------
    path : Path
        A cached image is returned with its record.
    arch : str, optional
        Default: this host's.

    Raises
    ------
    ImageError
        If there is no such file, or it is not a qcow2 or raw image.
    """
    path = paths.expand(path).absolute()
    hint = "'cloudlab images' lists what can be fetched by name."
    with paths.os_errors_as(ImageError, f"The image file {path} cannot be read", hint=hint):
        status = path.stat()
    if not path.is_file():
        raise ImageError(f"{path} is not a file.", hint="Name a qcow2 or raw image file.")
    # Only records in the cache count: any file may have an unrelated .json beside it.
    for cache in paths.readable_folders(paths.images_folder()):
        if cache.resolve() == path.parent.resolve() and (known := recall(path.name, cache)):
            return known
    kind = detect_format(path)
    return Image(
        name=path.name,
        path=path,
        format=kind,
        arch=check_arch(arch),
        virtual_size_bytes=virtual_size_bytes(path, kind),
        file_size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        origin="file",
        source=str(path),
        date=now(),
        trust=Trust.UNVERIFIED.value,
    )


def verify(image: Image) -> Image:
    """Hash the whole image and, if the hash is right, record the file's modification time.

    Raise a ChecksumError with both hashes if it is wrong, an ImageError if it cannot be read.
    """
    hint = "Correct its permissions, or copy it anew."
    with paths.os_errors_as(ImageError, f"The image {image.path} cannot be read", hint=hint):
        actual, status = sha256_of(image.path), image.path.stat()
    if image.sha256 and actual != image.sha256:
        raise ChecksumError(
            f"The image {image.path} is not what was recorded on {image.date}: expected "
            f"SHA-256 {image.sha256}, found {actual}.",
            hint=_removal(image.path),
        )
    found = replace(image, file_size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    if found != image:
        _remember_if_writable(found)
    return found
