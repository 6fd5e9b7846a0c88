"""Fetching: a name or URL becomes a verified file in the cache.

::

    cached? -> one process at a time -> what must it be? -> download -> verify -> record

Nothing gets its final name before its checksum is known to be right.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import filelock

from cloudlab import paths
from cloudlab.errors import ChecksumError, ImageError
from cloudlab.image import mirror as mirrors
from cloudlab.image.cache import Image, cached_images, remember
from cloudlab.image.catalogue import Catalogue, check_arch
from cloudlab.image.diskfile import detect_format, virtual_size_bytes
from cloudlab.image.download import Download
from cloudlab.image.progress import Meter, Progress
from cloudlab.image.source import Read, Source, find_source
from cloudlab.image.trust import Digest, parse_digest
from cloudlab.image.web import PATIENT, Patience, raise_cancelled, read_small
from cloudlab.tools import find_tool, now

_POLL_S = 0.2


def find_cached(
    request: str, arch: str | None = None, digest: Digest | None = None
) -> Image | None:
    """Return the newest cached image that ``request`` means, or None.

    Parameters
    ----------
    request : str
        A catalogue name, a URL that was fetched, or a cached file's name.
    arch : str, optional
        Default: this host's, or for a file's name any.
    digest : Digest, optional
        Only an image with this checksum will do.
    """
    for image in cached_images():
        if mirrors.matches(image, request, arch) and (digest is None or _has(image, digest)):
            return image
    return None


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
    """
    digest = parse_digest(checksum) if checksum else None
    arch = check_arch(arch) if arch else None
    if not refresh and (image := find_cached(name_or_url, arch, digest)) is not None:
        return image
    find_tool("qemu-img")  # better missed now than after the download
    mirror = mirror or os.environ.get("CLOUDLAB_MIRROR")
    folder = paths.make_folder(paths.images_folder())
    part = folder / f".{_slug(name_or_url, arch)}.part"
    began = now()
    with _turn(part, Meter(name_or_url, progress, waiting=True), cancel):
        image = find_cached(name_or_url, arch, digest)
        if image is not None and (not refresh or image.date > began):
            return image  # another process fetched it while this one waited
        meter = Meter(name_or_url, progress)
        read = functools.partial(read_small, patience=patience, meter=meter, cancel=cancel)
        source = find_source(
            name_or_url, read, arch=arch, digest=digest, mirror=mirror, catalogue=catalogue
        )
        if image is not None and source.expected is not None and _has(image, source.expected):
            return image  # nothing newer is published
        hashes, final_url = _download(source, part, meter, patience, cancel)
        return _keep(source, part, hashes, final_url, read)


def _slug(request: str, arch: str | None) -> str:
    words = re.sub(r"[^A-Za-z0-9.-]+", "-", request.rpartition("/")[2])[:60].strip(".-")
    return f"{words}-{hashlib.sha256(f'{request} {arch}'.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def _turn(part: Path, meter: Meter, cancel: threading.Event | None) -> Iterator[None]:
    """Hold this host's one permission to write ``part``, showing how another one gets on."""
    lock = filelock.FileLock(part.with_name(part.name.removesuffix(".part") + ".lock"))
    while True:
        try:
            lock.acquire(timeout=_POLL_S)
            break
        except filelock.Timeout:
            if cancel is not None and cancel.is_set():
                raise_cancelled()
            with contextlib.suppress(OSError, ValueError, KeyError):
                sidecar = part.with_name(part.name + ".json")
                meter.total_bytes = json.loads(sidecar.read_text("utf-8"))["total_bytes"]
                meter.show(part.stat().st_size)
    try:
        yield
    finally:
        lock.release()


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


def _keep(source: Source, part: Path, hashes: dict[str, str], final_url: str, read: Read) -> Image:
    """Give the verified part its final name and its record."""
    sidecar = part.with_name(part.name + ".json")
    try:
        kind = detect_format(part)
        size_bytes = virtual_size_bytes(part, source.format or kind)
    except ImageError as error:
        part.unlink(missing_ok=True)
        sidecar.unlink(missing_ok=True)
        raise ImageError(f"{source.url}: {error.message}", hint=error.hint) from error
    name = f"{source.stem}-{hashes['sha256'][:12]}.{source.format or kind}"
    if source.offer is not None:
        name = source.offer.image.name
    path = part.with_name(name)
    schema = _fetch_schema(source, path, read)
    part.chmod(0o644)
    part.replace(path)
    sidecar.unlink(missing_ok=True)
    return remember(
        Image(
            name=name,
            path=path,
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
            schema_path=schema,
            details={**source.details, "digests": hashes, "final_url": final_url},
        )
    )


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
    with paths.whole_file(path) as file:
        file.write_bytes(data)
    return path
