"""Where an image is to be taken from, and what proves it: decided before its first byte."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cloudlab.errors import ImageError
from cloudlab.image import mirror as mirrors
from cloudlab.image.catalogue import Catalogue, Published, load_catalogue
from cloudlab.image.trust import Digest, Trust, find_checksum, verify_signature
from cloudlab.image.web import is_url
from cloudlab.tools import host_arch


class Read(Protocol):
    """Gets a small file, e.g. :func:`~cloudlab.image.web.read_small`."""

    def __call__(self, url: str, *, allow_http: bool) -> bytes: ...  # noqa: D102


@dataclass(frozen=True)
class Source:
    """Where an image comes from, and what it has to be.

    Attributes
    ----------
    url : str
    arch : str
    stem : str
        What its name in the cache begins with.
    trust : Trust
    allow_http : bool
        Whether something better than TLS proves the bytes, so that plain http will do.
    expected : Digest or None
    format : str
        Empty where only the bytes can tell.
    root_filesystem : str
    firmware : tuple of str
    offer : Offer or None
        The mirror's record, if it comes from one.
    details : dict
        For the image's record.
    """

    url: str
    arch: str
    stem: str
    trust: Trust
    allow_http: bool
    expected: Digest | None = None
    format: str = ""
    root_filesystem: str = ""
    firmware: tuple[str, ...] = ("bios", "uefi")
    offer: mirrors.Offer | None = None
    details: dict[str, Any] = field(default_factory=dict)


def find_source(
    request: str,
    read: Read,
    *,
    arch: str | None = None,
    digest: Digest | None = None,
    mirror: str | None = None,
    catalogue: Catalogue | None = None,
) -> Source:
    """Return where to take ``request`` from: the mirror, its URL, or its publisher.

    Parameters
    ----------
    request : str
    read : callable
        Gets checksum files, signatures and indexes: ``read(url, allow_http=...)``.
    arch : str, optional
    digest : Digest, optional
        The user's own checksum, which goes before any other.
    mirror : str, optional
    catalogue : Catalogue, optional

    Raises
    ------
    UsageError, ImageError, DownloadError, ChecksumError, SignatureError
    """
    if mirror:
        base = mirrors.mirror_url(mirror)
        index = f"{base}/{mirrors.INDEX}"
        offers = mirrors.parse_index(read(index, allow_http=True), index)
        held = any(mirrors.matches(offer.image, request, arch) for offer in offers)
        if held or not is_url(request):
            offer = mirrors.choose_offer(offers, request, arch, base)
            return _from_mirror(offer, request, base, digest)
    known = catalogue or load_catalogue()
    if is_url(request):
        return _from_url(request, arch, digest, known)
    return _from_publisher(find_published(request, arch, known), digest, read)


def find_published(name: str, arch: str | None, catalogue: Catalogue) -> Published:
    """Return the catalogue's image called ``name``, if it is of use here.

    Raises
    ------
    UsageError, ImageError
    """
    published = catalogue.find(name, arch)
    if published.refused:
        raise ImageError(
            f"{name} is of no use here: {published.refused}",
            hint="'cloudlab images' lists those that are.",
        )
    return published


def _from_mirror(offer: mirrors.Offer, request: str, base: str, digest: Digest | None) -> Source:
    image = offer.image
    return Source(
        url=f"{base}/images/{image.name}",
        arch=image.arch,
        stem=image.name.removesuffix(f".{image.format}"),
        trust=Trust.PINNED if digest else Trust.MIRROR,
        allow_http=True,
        expected=digest or Digest("sha256", image.sha256),
        format=image.format,
        root_filesystem=image.root_filesystem,
        firmware=image.firmware,
        offer=offer,
        details={
            **image.details,
            "mirror": base,
            "mirror_trust": image.trust,
            "published_at": image.details.get("published_at", image.source),
            # Asked for by its file's name, it answers to that under any name of its own.
            "mirror_name": image.name if mirrors.named(image, request) else "",
        },
    )


def known_quirks(filename: str, catalogue: Catalogue) -> dict[str, str]:
    """Return what the catalogue knows about a file by its name, wherever that comes from.

    Raises
    ------
    ImageError
        If it is of no use here.
    """
    published = catalogue.recognise(filename)
    if published is None:
        return {}
    if published.refused:
        raise ImageError(
            f"{filename} is of no use here: by its name it is {published.title}. "
            f"{published.refused}",
            hint="If the name misleads, take a copy of the file under another name.",
        )
    quirks = dict(published.quirks)
    quirks.pop("checksums-not-tried", None)  # which is about the catalogue's own entry
    return quirks


def _from_url(url: str, arch: str | None, digest: Digest | None, catalogue: Catalogue) -> Source:
    filename = re.split(r"[?#]", url)[0].partition("://")[2].rpartition("/")[2]
    stem = Path(filename).stem
    # With nothing to verify by, https is no proof either, and the label says so.
    return Source(
        url=url,
        arch=arch or _arch_in(url),
        stem=re.sub(r"[^A-Za-z0-9._-]+", "-", stem)[:100].lstrip(".-_") or "image",
        trust=Trust.PINNED if digest else Trust.UNVERIFIED,
        allow_http=True,
        expected=digest,
        details={"requested": url, "quirks": known_quirks(filename, catalogue)},
    )


def _arch_in(url: str) -> str:
    words = re.split(r"[^a-z0-9_]+", url.lower())
    if {"arm64", "aarch64"} & set(words):
        return "arm64"
    return "amd64" if {"amd64", "x86_64"} & set(words) else host_arch()


def _from_publisher(published: Published, digest: Digest | None, read: Read) -> Source:
    details: dict[str, Any] = {
        "requested": published.name,
        "title": published.title,
        "layout": published.layout,
        "quirks": dict(published.quirks),
    }
    expected, trust = digest or published.pinned, published.trust
    signed = expected is not None
    if expected is not None:
        trust = Trust.PINNED
    elif published.checksum_url:
        expected = _published_checksum(published, read)
        signed = published.key is not None
        details["checksum_url"] = published.checksum_url
        details["signed_by"] = published.key.fingerprint if published.key else None
    return Source(
        url=published.url,
        arch=published.arch,
        stem=f"{published.name}-{published.arch}",
        trust=trust,
        allow_http=signed,
        expected=expected,
        format=published.format,
        root_filesystem=published.root_filesystem,
        firmware=published.firmware,
        details=details,
    )


def _published_checksum(published: Published, read: Read) -> Digest:
    signed = published.key is not None
    text = read(published.checksum_url, allow_http=signed)
    if published.key is not None:
        signature = None
        if published.signature_url:
            signature = read(published.signature_url, allow_http=True)
        text = verify_signature(text, published.key, signature)
    filename = published.url.rpartition("/")[2]
    return find_checksum(
        text.decode("utf-8", "replace"), published.style, published.algorithm, filename
    )
