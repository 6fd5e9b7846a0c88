"""Fetching: a name or URL becomes a verified file in the cache.

::

    cached? -> one process at a time -> what must it be? -> download -> verify -> record

Nothing gets its final name before its checksum is known to be right.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloudlab import paths
from cloudlab.errors import ChecksumError, ImageError
from cloudlab.formats import detect_format, virtual_size_bytes
from cloudlab.image import mirror as mirrors
from cloudlab.image.cache import (
    Image,
    cached_images,
    generation,
    recall,
    recorded_names,
    remember,
    sha256_of,
)
from cloudlab.image.catalogue import Catalogue, Published, check_arch, load_catalogue
from cloudlab.image.download import Download, storing
from cloudlab.image.progress import Meter, Progress
from cloudlab.image.source import Read, Source, find_published, find_source
from cloudlab.image.trust import Digest, parse_digest
from cloudlab.image.turn import turn
from cloudlab.image.web import PATIENT, Patience, is_url, read_small
from cloudlab.tools import find_tool, now


def find_cached(
    request: str,
    arch: str | None = None,
    digest: Digest | None = None,
    catalogue: Catalogue | None = None,
) -> Image | None:
    """Return the newest cached image that ``request`` means, or None.

    What was fetched by a catalogue's name counts as long as it is what the catalogue means
    by it now: of that URL, and with the hash that it pins.

    Parameters
    ----------
    request : str
        A catalogue name, a URL that was fetched, or a cached file's name.
    arch : str, optional
        Default: this host's, or for a file's name or a URL any.
    digest : Digest, optional
        Only an image with this checksum will do, wherever it came from.
    catalogue : Catalogue, optional
        Default: :func:`~cloudlab.image.catalogue.load_catalogue`.
    """
    published: Published | None = None
    if digest is None and not is_url(request):
        known = catalogue or load_catalogue()
        published = known.images.get(request, {}).get(check_arch(arch))
    found = [
        image
        for image in _matching(request, arch)
        if (digest is None or _has(image, digest)) and _still_meant(image, published)
    ]
    # Of equals max() takes the first, which is the newest by its file.
    return max(
        found, key=lambda image: (generation(image), mirrors.named(image, request)), default=None
    )


def _matching(request: str, arch: str | None) -> list[Image]:
    return [image for image in cached_images() if mirrors.matches(image, request, arch)]


def _still_meant(image: Image, published: Published | None) -> bool:
    if published is None:
        return True
    if published.pinned is not None and not _has(image, published.pinned):
        return False
    if published.url in {image.source, image.details.get("published_at")}:
        return True
    # An instructor's word on a name goes before the shipped catalogue's, not before the user's.
    return "mirror" in image.details and not published.own


def _has(image: Image, digest: Digest) -> bool:
    digests = {"sha256": image.sha256, **image.details.get("digests", {})}
    return bool(digests.get(digest.algorithm) == digest.hex)


def fetch(
    name_or_url: str,
    *,
    checksum: str | None = None,
    mirror: str | None = None,
    refresh: bool = False,
    arch: str | None = None,
    catalogue: Catalogue | None = None,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    patience: Patience = PATIENT,
) -> Image:
    """Return an image from the cache, or from where it is published after verifying it.

    Parameters
    ----------
    name_or_url : str
        A name of the catalogue or the mirror, or a URL.
    checksum : str, optional
        ``sha256:HEX`` or ``sha512:HEX`` that the image must have; goes before any published.
    mirror : str, optional
        A classroom's ``cloudlab share``; default: the variable ``CLOUDLAB_MIRROR``.
    refresh : bool
        Whether to look for a newer one although one is cached.  Older ones stay.
    arch : str, optional
        ``amd64`` or ``arm64``; default: this host's.
    catalogue : Catalogue, optional
        Default: :func:`~cloudlab.image.catalogue.load_catalogue`.
    progress : callable, optional
        Called with :class:`~cloudlab.image.progress.FetchProgress`.
    cancel : threading.Event, optional
        Set from another thread to stop; what has arrived is kept, as with Ctrl-C.
    patience : Patience
        Tries, pauses and time-outs.

    Raises
    ------
    UsageError
        For a name or architecture that does not exist, or a malformed checksum.
    ImageError
        If it is refused (no cloud-init), or is no disk image.
    DownloadError, ChecksumError, SignatureError, ToolNotFoundError, InterruptedRunError

    Examples
    --------
    >>> image = cloudlab.fetch("ubuntu-24.04")
    >>> run = cloudlab.boot(image=image)
    """
    digest = parse_digest(checksum) if checksum else None
    arch = check_arch(arch) if arch else None
    known = catalogue or load_catalogue()
    before = find_cached(name_or_url, arch, digest, known)
    if before is not None and not refresh:
        return before
    find_tool("qemu-img")  # better missed now than after the download
    mirror = mirror or os.environ.get("CLOUDLAB_MIRROR")
    if not mirror and not is_url(name_or_url):
        _look_up(name_or_url, arch, known)
    folder = paths.make_folder(paths.images_folder())
    part = folder / f".{_slug(name_or_url, arch, known)}.part"
    with turn(part, Meter(name_or_url, progress, waiting=True), cancel):
        image = find_cached(name_or_url, arch, digest, known)
        if image is not None and (not refresh or image != before):
            return image  # another process fetched it while this one waited
        meter = Meter(name_or_url, progress)
        read = functools.partial(read_small, patience=patience, meter=meter, cancel=cancel)
        source = find_source(
            name_or_url, read, arch=arch, digest=digest, mirror=mirror, catalogue=known
        )
        matching = _matching(name_or_url, arch)
        for held in matching:
            if source.expected and _has(held, source.expected) and image in (None, held):
                return held  # nothing newer is published
        hashes, final_url = _download(source, part, meter, patience, cancel)
        replaces = 1 + max(map(generation, matching), default=-1)
        return _keep(source, part, hashes, {"final_url": final_url, "generation": replaces}, read)


def _look_up(name: str, arch: str | None, known: Catalogue) -> None:
    """Say what is wrong with a name before anything is made for it."""
    if name not in known.images:
        for recorded in recorded_names():
            if name in {recorded, recorded.rpartition(".")[0]}:
                recall(recorded)  # what is cached but was changed is not unknown: this says so
    find_published(name, arch, known)


def _slug(request: str, arch: str | None, known: Catalogue) -> str:
    """Return one file name for all the ways to ask for one image."""
    if is_url(request):
        which = request
    elif request in known.images:
        which = f"{request} {check_arch(arch)}"
    else:  # a file on the mirror
        which = request.removesuffix(".qcow2").removesuffix(".raw")
    words = re.sub(r"[^A-Za-z0-9.-]+", "-", which.rpartition("/")[2])[:60].strip(".-")
    return f"{words}-{hashlib.sha256(which.encode()).hexdigest()[:8]}"


def _download(
    source: Source, part: Path, meter: Meter, patience: Patience, cancel: threading.Event | None
) -> tuple[dict[str, str], str]:
    """Return the hashes of the complete part and the URL it really came from."""
    algorithms = {"sha256"} | ({source.expected.algorithm} if source.expected else set())
    while True:
        download = Download(
            source.url,
            part,
            algorithms=tuple(sorted(algorithms)),
            allow_http=source.allow_http,
            meter=meter,
            size_bytes=source.offer.image.file_size_bytes if source.offer else None,
            patience=patience,
            cancel=cancel,
        )
        hashes = download.run()
        if source.expected is None or hashes[source.expected.algorithm] == source.expected.hex:
            return hashes, download.final_url
        download.discard()
        if not download.resumed:
            break
        # What an earlier call had left was not of this file after all: once more, from zero.
        meter.show(0, "what was kept does not fit; starting from the beginning", now=True)
    raise ChecksumError(
        f"{source.url} is not what was promised: expected {source.expected}, found "
        f"{source.expected.algorithm}:{hashes[source.expected.algorithm]}; the file was removed.",
        hint="Either it was replaced while it was fetched (try again), or something between "
        "here and there changes files (try another network).",
    )


def _keep(
    source: Source, part: Path, hashes: dict[str, str], more: dict[str, Any], read: Read
) -> Image:
    """Give the verified part its final name and its record, with ``more`` in its details."""
    sidecar = part.with_name(part.name + ".json")
    try:
        kind = detect_format(part)
        size_bytes = virtual_size_bytes(part, source.format or kind)
    except ImageError as error:
        part.unlink(missing_ok=True)
        sidecar.unlink(missing_ok=True)
        raise ImageError(f"{source.url}: {error.message}", hint=error.hint) from error
    image = Image(
        name=_final_name(source, part.parent, hashes["sha256"], kind),
        path=part,
        format=source.format or kind,
        arch=source.arch,
        virtual_size_bytes=size_bytes,
        file_size_bytes=0,  # remember() measures the file
        mtime_ns=0,
        sha256=hashes["sha256"],
        origin="fetched",
        source=source.url,
        date=now(),
        trust=source.trust.value,
        root_filesystem=source.root_filesystem,
        firmware=source.firmware,
        details={**source.details, "digests": hashes, **more},
    )
    path = part.with_name(image.name)
    image = replace(image, path=path, schema_path=_fetch_schema(source, path, read))
    with storing(path):
        part.chmod(0o644)
        part.replace(path)
        try:
            image = remember(image)
        except OSError:
            path.replace(part)  # complete as it is, the next call need not download it again
            raise
    sidecar.unlink(missing_ok=True)
    return image


def _final_name(source: Source, folder: Path, sha256: str, kind: str) -> str:
    """Return the mirror's own name for an image where that is free, else one of its hash."""
    if source.offer is not None:
        path = folder / source.offer.image.name
        # Another file of that name is the learner's own, whatever the mirror calls its image.
        if not os.path.lexists(path) or (path.is_file() and sha256_of(path) == sha256):
            return path.name
    return f"{source.stem}-{sha256[:12]}.{source.format or kind}"


def _fetch_schema(source: Source, image: Path, read: Read) -> Path | None:
    """Fetch the schema that a mirror holds beside an image; without one, user-data go unchecked."""
    offer = source.offer
    if offer is None or offer.image.schema_path is None:
        return None
    url = f"{source.url.rpartition('/')[0]}/{offer.image.schema_path.name}"
    data = read(url, allow_http=True)
    found = hashlib.sha256(data).hexdigest()
    if found != offer.schema_sha256:
        raise ChecksumError(
            f"{url} is not what the mirror promised: expected {offer.schema_sha256}, found {found}."
        )
    # The mirror's name for it could be that of any file in this cache.
    path = image.with_name(f"{image.name}.schema.json")
    with storing(path), paths.whole_file(path) as file:
        file.write_bytes(data)
    return path
