"""What a mirror in the classroom says it holds: written by its server, read by its clients."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudlab.errors import DownloadError, UsageError
from cloudlab.image.cache import Image, generation, image_from_json, is_sha256, sha256_of
from cloudlab.image.catalogue import host_arch
from cloudlab.image.web import is_url

#: Where the index lies on a mirror.
INDEX = "catalogue.json"

_VERSION = 1


@dataclass(frozen=True)
class Offer:
    """One image that a mirror holds.

    Attributes
    ----------
    image : Image
        The instructor's record; ``path`` and ``schema_path`` are names only.
    schema_sha256 : str
        Of the file ``image.schema_path``; empty where there is none.
    """

    image: Image
    schema_sha256: str = ""


def matches(image: Image, request: str, arch: str | None) -> bool:
    """Return whether ``request`` means this image.

    Parameters
    ----------
    image : Image
    request : str
        A catalogue name or URL as it was asked for, or the file's name, here or on the
        mirror it came from, with or without its suffix.
    arch : str or None
        None means any for a file's name or a URL, and this host's for a catalogue name.
    """
    if named(image, request) or named(image, request, str(image.details.get("mirror_name"))):
        return arch in {None, image.arch}
    wanted = arch if arch or is_url(request) else host_arch()
    return image.details.get("requested") == request and wanted in {None, image.arch}


def named(image: Image, request: str, name: str | None = None) -> bool:
    """Return whether ``request`` is the image's file name (or ``name``), or that without suffix."""
    name = name or image.name
    return request in {name, name.removesuffix("." + image.format)}


def shareable(image: Image) -> bool:
    """Return whether the image may be served: a plain file of the recorded name and hash."""
    plain = not image.path.is_symlink() and image.path.is_file()
    return plain and image.path.name == image.name and is_sha256(image.sha256)


def write_index(images: Iterable[Image]) -> str:
    """Return the index of ``images`` as JSON."""
    entries = []
    for image in images:
        record = image.to_json()
        schema = image.schema_path
        good = schema is not None and schema.is_file() and not schema.is_symlink()
        record["schema_path"] = schema.name if schema is not None and good else None
        record["schema_sha256"] = sha256_of(schema) if schema is not None and good else ""
        entries.append(record)
    return json.dumps({"cloudlab_mirror": _VERSION, "images": entries}, indent=1) + "\n"


def parse_index(data: bytes, source: str) -> list[Offer]:
    """Return what a mirror's index offers.

    Raises
    ------
    DownloadError
        If this is no such index, or an entry could not be right.
    """
    try:
        index = json.loads(data)
        return [_offer(record) for record in _entries(index)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DownloadError(
            f"{source} is not the index of a cloudlab mirror ({type(error).__name__}: {error}).",
            hint="CLOUDLAB_MIRROR and --mirror take the address that 'cloudlab share' shows; both "
            "sides need the same version of cloudlab.",
        ) from error


def _entries(index: dict[str, Any]) -> list[dict[str, Any]]:
    if index["cloudlab_mirror"] != _VERSION:
        raise ValueError(f"version {index['cloudlab_mirror']!r}")
    return list(index["images"])


def _offer(record: dict[str, Any]) -> Offer:
    image = image_from_json({**record, "mtime_ns": 0}, Path(record["name"]))
    # Beside an image, these are its record's and its schema's.
    if image.name.lower().endswith((".json", ".schema")):
        raise ValueError(f"the name {image.name!r} is not allowed")
    if not is_sha256(image.sha256) or not isinstance(record["schema_sha256"], str):
        raise ValueError("the value of sha256 or schema_sha256 is not allowed")
    return Offer(image, record["schema_sha256"])


def mirror_url(address: str) -> str:
    """Return a mirror's base URL for what a user writes: ``192.168.1.20:8765`` or a URL.

    Raises
    ------
    UsageError
    """
    url = address.strip().rstrip("/")
    url = url if "://" in url else f"http://{url}"
    if not re.fullmatch(r"https?://[\w.\-\[\]:]+(/[\w./~%-]*)?", url):
        raise UsageError(
            f"{address!r} is no mirror's address.",
            hint="It looks like http://192.168.1.20:8765, as 'cloudlab share' shows it.",
        )
    return url


def choose_offer(offers: list[Offer], request: str, arch: str | None, mirror: str) -> Offer:
    """Return the newest offer that ``request`` means.

    Raises
    ------
    DownloadError
        Naming what the mirror holds.
    """
    found = [offer for offer in offers if matches(offer.image, request, arch)]
    if found:
        return max(found, key=lambda offer: (generation(offer.image), offer.image.date))
    held = sorted({str(o.image.details.get("requested") or o.image.name) for o in offers})
    raise DownloadError(
        f"The mirror {mirror} does not hold {request} for {arch or host_arch()}; "
        f"it holds {', '.join(held) or 'nothing'}.",
        hint="Take one of those, or ask the instructor to fetch this one.",
    )
