"""Fetching: a name or a URL becomes a verified image in the cache; and which image a run uses.

::

    cached? -> one process at a time -> where from, and what must it be? -> download -> verify

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock

from cloudlab import paths
from cloudlab.errors import ChecksumError, DownloadError, ImageError, UsageError
from cloudlab.formats import check_format, detect_format, virtual_size_bytes
from cloudlab.image import cache, web
from cloudlab.image.cache import Image, Offer, Trust
from cloudlab.image.catalogue import (
    Catalogue,
    Digest,
    Published,
    find_checksum,
    load_catalogue,
    parse_digest,
    verify_signature,
)
from cloudlab.image.download import Download, storing
from cloudlab.image.recipe import make_recipe
from cloudlab.image.web import PATIENT, Patience, Progress, Transfer, is_url
from cloudlab.tools import ARCHITECTURES, check_arch, host_arch, now

_MIRROR_HINT = (
    "Set CLOUDLAB_MIRROR or --mirror to the address that 'cloudlab share' shows on the "
    "instructor's host, and use the same version of cloudlab on both."
)

#: An architecture in a file's name: foo_arm64.qcow2, OL9U4_x86_64-kvm.qcow2.
_ARCH = re.compile(rf"(?<![a-z])(?:{'|'.join(ARCHITECTURES)})(?!\d)")

#: Seconds between two looks at another process's download.
_POLL_S = 0.2


@dataclass(frozen=True)
class _Source:
    """Where an image comes from, and what it has to be."""

    url: str
    #: What its record will say; the final name begins with the name, the format may be empty.
    image: Image
    expected: Digest | None
    #: Whether something better than TLS proves the bytes, so that plain http is enough.
    allow_http: bool
    schema_sha256: str = ""


def find_cached(
    request: str,
    arch: str | None = None,
    digest: Digest | None = None,
    catalogue: Catalogue | None = None,
) -> Image | None:
    """Return the newest cached image that ``request`` names, or None.

    An image that was fetched by a catalogue's name counts as long as the catalogue still has
    that URL under the name, and that hash if it pins one.

    Parameters
    ----------
    request : str
        A catalogue name, a URL that was fetched, or a cached file's name.
    arch : str, optional
        Default: this host's, or for a file's name or a URL any.
    digest : Digest, optional
        Only an image with this checksum counts, wherever it came from.
    catalogue : Catalogue, optional
    """
    published: Published | None = None
    if digest is None and not is_url(request):
        known = catalogue or load_catalogue()
        published = known.images.get(request, {}).get(check_arch(arch))
    found = [
        image
        for image in cache.cached_images()
        if matches(image, request, arch)
        and (digest is None or _has(image, digest))
        and _still_published(image, published)
    ]
    # Of equals max() takes the first, which is the newest by its file.
    return max(found, key=lambda image: (image.generation, image.is_named(request)), default=None)


def matches(image: Image, request: str, arch: str | None) -> bool:
    """Return whether ``request`` names this image.

    It may be a catalogue name or URL as it was asked for, or the file's name, here or on the
    mirror it came from, with or without its suffix.  ``arch`` None means any for a file's name or
    a URL, and this host's for a catalogue name.
    """
    if image.is_named(request) or image.is_named(request, image.details.get("mirror_name", "")):
        return arch in {None, image.arch}
    wanted = arch if arch or is_url(request) else host_arch()
    return image.details.get("requested") == request and wanted in {None, image.arch}


def _still_published(image: Image, published: Published | None) -> bool:
    if published is None:
        return True
    if published.pinned is not None and not _has(image, published.pinned):
        return False
    if published.url in {image.source, image.details.get("published_at")}:
        return True
    # A mirror overrides the shipped catalogue's entry of a name, but not the user's own.
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
        ``sha256:HEX`` or ``sha512:HEX`` that the image must have; overrides any published.
    mirror : str, optional
        A classroom's ``cloudlab share``; default: the variable ``CLOUDLAB_MIRROR``.
    refresh : bool
        Whether to look for a newer one although one is cached.  Older ones stay.
    arch : str, optional
        ``amd64`` or ``arm64``; default: this host's.
    catalogue : Catalogue, optional
        Default: :func:`~cloudlab.image.catalogue.load_catalogue`.
    progress : callable, optional
        Called with :class:`~cloudlab.image.web.FetchProgress`.
    cancel : threading.Event, optional
        Set from another thread to stop; what has arrived is kept, as with Ctrl-C.
    patience : Patience
        Tries, pauses and time-outs.

    Raises
    ------
    UsageError
        For an unknown name or architecture, or a malformed checksum.
    ImageError
        If it is refused (no cloud-init), or is not a disk image.
    DownloadError, ChecksumError, SignatureError, ToolNotFoundError, InterruptedRunError

    Examples
    --------
    >>> image = cloudlab.fetch("ubuntu-24.04")
    >>> run = cloudlab.boot(image=image)
    """
    if not isinstance(name_or_url, str) or not name_or_url.strip():
        raise UsageError(
            f"There is nothing to fetch by {name_or_url!r:.80}.",
            hint="Give a name or a URL; cloudlab.choose_image() opens a file.",
        )
    digest = parse_digest(checksum) if checksum is not None else None
    arch = check_arch(arch) if arch is not None else None
    known = catalogue or load_catalogue()
    before = find_cached(name_or_url, arch, digest, known)
    if before is not None and not refresh:
        return before
    mirror = mirror or os.environ.get("CLOUDLAB_MIRROR")
    if not mirror and not is_url(name_or_url):
        _check_name(name_or_url, arch, known)
    part = paths.make_folder(paths.images_folder()) / f".{_slug(name_or_url, arch, known)}.part"
    transfer = Transfer(name_or_url, progress, patience=patience, cancel=cancel)
    with _lock(part, transfer):
        image = find_cached(name_or_url, arch, digest, known)
        if image is not None and (not refresh or image != before):
            return image  # another process fetched it while this one waited
        source = _find_source(transfer, arch, digest, mirror, known)
        matching = [one for one in cache.cached_images() if matches(one, name_or_url, arch)]
        for held in matching:
            if source.expected and _has(held, source.expected) and image in (None, held):
                return held  # nothing newer is published
        generation = 1 + max((one.generation for one in matching), default=-1)
        return _download(transfer, source, part, generation)


def _check_name(name: str, arch: str | None, known: Catalogue) -> None:
    """Raise the error for a name that cannot be fetched, before a file is created for it."""
    if name not in known.images:
        for recorded in cache.recorded_names():
            if name in {recorded, recorded.rpartition(".")[0]}:
                cache.recall(recorded)  # raises the error for a cached image that was changed
    known.find(name, arch).check_usable()


def _slug(request: str, arch: str | None, known: Catalogue) -> str:
    """Return a file name that is the same for every way to name one image."""
    if is_url(request):
        which = request
    elif request in known.images:
        which = f"{request} {check_arch(arch)}"
    else:  # a file on the mirror
        which = request.removesuffix(".qcow2").removesuffix(".raw")
    words = re.sub(r"[^A-Za-z0-9.-]+", "-", which.rpartition("/")[2])[:60].strip(".-")
    return f"{words}-{hashlib.sha256(which.encode(errors='surrogatepass')).hexdigest()[:8]}"


@contextlib.contextmanager
def _lock(part: Path, transfer: Transfer) -> Iterator[None]:
    """Hold this host's one lock on ``part``; while another process does, show its progress."""
    path = paths.make_folder(paths.cache_folder() / "locks") / part.name.strip(".")
    lock = filelock.FileLock(path)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_POLL_S)
        except filelock.Timeout:
            transfer.check_cancelled()
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                sidecar = part.with_name(part.name + ".json")
                transfer.total_bytes = json.loads(sidecar.read_text("utf-8"))["total_bytes"]
                transfer.show(part.stat().st_size, waiting=True)
        except OSError:
            with storing(path):
                raise
    try:
        yield
    finally:
        lock.release()


def _find_source(
    transfer: Transfer,
    arch: str | None,
    digest: Digest | None,
    mirror: str | None,
    known: Catalogue,
) -> _Source:
    """Return where to take the image from: the mirror, its URL, or its publisher.

    ``digest``, the user's own, overrides any other.
    """
    request = transfer.name
    if mirror:
        base = mirror_url(mirror)
        offers = read_index(base, transfer)
        held = any(matches(offer.image, request, arch) for offer in offers)
        if held or not is_url(request):
            return _from_mirror(choose_offer(offers, request, arch, base), request, base, digest)
    if is_url(request):
        return _from_url(request, arch, digest, known)
    published = known.find(request, arch)
    published.check_usable()
    return _from_publisher(transfer, published, digest)


def _from_publisher(transfer: Transfer, published: Published, digest: Digest | None) -> _Source:
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
        signed = published.key is not None
        expected = _published_checksum(transfer, published)
        details["checksum_url"] = published.checksum_url
        details["signed_by"] = published.key.fingerprint if published.key else None
    name = f"{published.name}-{published.arch}"
    image = Image(
        name,
        Path(name),
        published.format,
        published.arch,
        origin="fetched",
        source=published.url,
        trust=trust.value,
        root_filesystem=published.root_filesystem,
        firmware=published.firmware,
        details=details,
    )
    return _Source(published.url, image, expected, allow_http=signed)


def _published_checksum(transfer: Transfer, published: Published) -> Digest:
    key = published.key
    data = transfer.read_small(published.checksum_url, allow_http=key is not None)
    if key is not None:
        signature = None
        if published.signature_url:
            signature = transfer.read_small(published.signature_url, allow_http=True)
        data = verify_signature(data, key, signature)
    filename = published.url.rpartition("/")[2]
    text = data.decode("utf-8", "replace")
    return find_checksum(text, published.style, published.algorithm, filename)


def _download(transfer: Transfer, source: _Source, part: Path, generation: int) -> Image:
    """Download the image, check it, and give it its final name and its record."""
    download = Download(
        source.url,
        part,
        transfer,
        expected=source.expected,
        allow_http=source.allow_http,
        size_bytes=source.image.file_size_bytes or None,
    )
    digests = download.run()
    try:
        kind = check_format(part, detect_format(part), source.image.format or None)
        size_bytes = virtual_size_bytes(part, kind)
    except ImageError as error:
        download.discard()
        message = error.message.replace(str(part), source.url).replace(part.name, source.url)
        raise ImageError(message, hint=error.hint) from error
    path = part.with_name(_final_name(source, part.parent, digests["sha256"], kind))
    more = {"digests": digests, "final_url": download.final_url, "generation": generation}
    image = replace(
        source.image,
        name=path.name,
        path=path,
        format=kind,
        virtual_size_bytes=size_bytes,
        sha256=digests["sha256"],
        date=now(),
        schema_path=_fetch_schema(transfer, source, path),
        details={**source.image.details, **more},
    )
    with storing(path):
        part.chmod(0o644)
        part.replace(path)
        try:
            image = cache.remember(image)
        except OSError:
            path.replace(part)  # complete as it is, the next call need not download it again
            raise
    download.discard()
    return image


def _fetch_schema(transfer: Transfer, source: _Source, image: Path) -> Path | None:
    """Fetch the schema beside a mirror's image; without one, user-data is hardly checked."""
    if source.image.schema_path is None:
        return None
    url = f"{source.url.rpartition('/')[0]}/{source.image.schema_path.name}"
    data = transfer.read_small(url, allow_http=True)
    found = hashlib.sha256(data).hexdigest()
    if found != source.schema_sha256:
        raise ChecksumError(
            f"The checksum of {url} is wrong: the mirror's index has "
            f"sha256:{source.schema_sha256}, found sha256:{found}.",
            hint="Tell the instructor: on the mirror, 'cloudlab share' has to be started again.",
        )
    # The mirror's name for it could be that of any file in this cache.
    path = image.with_name(f"{image.name}.schema.json")
    with storing(path):
        paths.write_whole(path, data)
    return path


def _from_mirror(offer: Offer, request: str, base: str, digest: Digest | None) -> _Source:
    image = offer.image
    url = f"{base}/images/{image.name}"
    details = {
        **image.details,
        "mirror": base,
        "mirror_trust": image.trust,
        "published_at": image.details.get("published_at", image.source),
        # An image that is requested by its file's name keeps answering to it.
        "mirror_name": image.name if image.is_named(request) else "",
    }
    record = replace(
        image,
        name=image.name.removesuffix(f".{image.format}"),
        origin="fetched",
        source=url,
        trust=(Trust.PINNED if digest else Trust.MIRROR).value,
        details=details,
    )
    expected = digest or Digest("sha256", image.sha256)
    return _Source(url, record, expected, allow_http=True, schema_sha256=offer.schema_sha256)


def _from_url(url: str, arch: str | None, digest: Digest | None, known: Catalogue) -> _Source:
    filename = re.split(r"[?#]", url)[0].partition("://")[2].rpartition("/")[2]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(filename).stem)[:100].lstrip(".-_") or "image"
    # A mirror may be named after an architecture, too: the file's name says it better.
    named = [_ARCH.findall(text.lower()) for text in (filename, url)]
    arch = arch or check_arch(next((found[-1] for found in named if found), None))
    # Without a checksum, https proves nothing about the file, and the label says so.
    trust = (Trust.PINNED if digest else Trust.UNVERIFIED).value
    details = {"requested": url, "quirks": known.quirks_of_file(filename)}
    image = Image(stem, Path(stem), "", arch, "fetched", url, trust, details=details)
    return _Source(url, image, digest, allow_http=True)


def _final_name(source: _Source, folder: Path, sha256: str, kind: str) -> str:
    """Return the mirror's own name for an image where that is free, else one with its hash."""
    if "mirror" in source.image.details:
        path = folder / source.url.rpartition("/")[2]
        # Another file of that name is the learner's own, whatever the mirror calls its image.
        if not os.path.lexists(path) or (path.is_file() and cache.sha256_of(path) == sha256):
            return path.name
    return f"{source.image.name}-{sha256[:12]}.{kind}"


def read_index(base: str, transfer: Transfer) -> list[Offer]:
    """Return what the mirror with this base URL offers; a DownloadError says if it is none."""
    url = f"{base}/{cache.INDEX}"
    try:
        return cache.parse_index(transfer.read_small(url, allow_http=True), url)
    except DownloadError as error:
        raise DownloadError(
            f"The mirror {base} cannot be used: {error.message}", hint=_MIRROR_HINT
        ) from error


def mirror_url(address: str) -> str:
    """Return a mirror's base URL for what a user writes: ``192.168.1.20:8765`` or a URL."""
    url = str(address).strip().rstrip("/")
    url = url if "://" in url else f"http://{url}"
    if not re.fullmatch(r"https?://[\w.\-\[\]:]+(/[\w./~%-]*)?", url):
        raise UsageError(
            f"{address!r:.200} is not the address of a mirror.",
            hint="Write it as 'cloudlab share' shows it, for example http://192.168.1.20:8765.",
        )
    return url


def choose_offer(offers: list[Offer], request: str, arch: str | None, mirror: str) -> Offer:
    """Return the newest offer that ``request`` names; a DownloadError says what there is."""
    found = [offer for offer in offers if matches(offer.image, request, arch)]
    if found:
        return max(found, key=lambda offer: (offer.image.generation, offer.image.date))
    held = sorted({str(o.image.details.get("requested") or o.image.name) for o in offers})
    raise DownloadError(
        f"The mirror {mirror} does not hold {request} for {arch or host_arch()}; "
        f"it holds {', '.join(held) or 'nothing'}.",
        hint="Use one of those, or ask the instructor to fetch this one.",
    )


def choose_image(
    choice: Image | Path | str = "auto",
    *,
    arch: str | None = None,
    mirror: str | None = None,
    builder: Callable[[], Image] | None = None,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    patience: Patience = PATIENT,
) -> tuple[Image, str]:
    """Return the image that ``choice`` names, and why it is this one.

    ``auto`` takes, in this order: from the cache the plain lab image (it boots soonest),
    the catalogue's default, the newest other; from a mirror the same; the default from
    its publisher where the network reaches it; and else it builds the lab image.

    Parameters
    ----------
    choice : Image, Path or str
        An image, which is returned as it is, a file, or ``auto``, a name of the catalogue, the
        cache or the mirror, a URL, or a path.
    arch : str, optional
        Default: this host's.
    mirror : str, optional
        Default: the variable ``CLOUDLAB_MIRROR``.
    builder : callable, optional
        Builds the lab image; default: :func:`cloudlab.image.build.build_image`.
    progress : callable, optional
        Called with the progress of a download.
    cancel : threading.Event, optional
    patience : Patience

    Raises
    ------
    CloudlabError
        As of fetching, opening or building.

    Examples
    --------
    >>> image, reason = cloudlab.choose_image("debian-12-generic")
    """
    if isinstance(choice, Image):
        return choice, "the image you gave"
    if not isinstance(choice, str | Path):
        raise UsageError(
            f"The image cannot be {choice!r:.80}.", hint="Give an Image, a name, a path or a URL."
        )
    fetch_one = functools.partial(
        fetch, arch=arch, mirror=mirror, progress=progress, cancel=cancel, patience=patience
    )
    if choice == "auto":
        index = Transfer("the mirror's index", progress, patience=patience, cancel=cancel)
        return _automatic(check_arch(arch), mirror, builder, fetch_one, index)
    # A bare word is a file only if it is there.  Path.is_file() raises for a long one.
    if isinstance(choice, Path) or (
        not is_url(choice)
        and (os.sep in choice or choice.startswith((".", "~")) or os.path.isfile(choice))  # noqa: PTH113
    ):
        image = cache.open_image(Path(choice), arch=arch)
        if image.origin == "file":
            quirks = load_catalogue().quirks_of_file(image.name)
            image = replace(image, details={"quirks": quirks})
        return image, "your own file"
    image = fetch_one(choice)
    kind = "the URL you gave" if is_url(choice) else "the one you named"
    return image, f"{kind} ({image.trust})"


def _automatic(
    arch: str,
    mirror: str | None,
    builder: Callable[[], Image] | None,
    fetch_one: Callable[[str], Image],
    index: Transfer,
) -> tuple[Image, str]:
    if found := cached_choice(arch):
        return found
    default = load_catalogue().default
    if mirror := mirror or os.environ.get("CLOUDLAB_MIRROR"):
        name = _best_on_mirror(
            mirror_url(mirror), index, arch, make_recipe(arch=arch).name, default
        )
        return fetch_one(name), f"from the mirror {mirror}"
    if _reachable(default, arch):
        image = fetch_one(default)
        return image, f"the course's default, from its publisher ({image.trust})"
    if arch != host_arch():
        raise UsageError(
            f"There is no {arch} image in the cache, and no publisher could be reached.",
            hint=f"Build one on Debian or Ubuntu (cloudlab build --arch {arch}), or use a network "
            "that reaches a publisher, a mirror (--mirror), or a file (--image PATH).",
        )
    from cloudlab.image.build import build_image

    image = (builder or build_image)()
    return image, "built here: none is in the cache and no publisher could be reached"


def cached_choice(arch: str) -> tuple[Image, str] | None:
    """Return the image in the cache that ``auto`` takes, and why; None if it holds no such one."""
    plain = (image for image in cache.cached_images() if _is_automatic(image, arch))
    for reason, found in (
        ("the lab image in the cache", find_cached(make_recipe(arch=arch).name, arch)),
        ("the course's default, in the cache", find_cached(load_catalogue().default, arch)),
        ("the newest image in the cache", next(plain, None)),
    ):
        if found is not None:
            return found, reason
    return None


def _is_automatic(image: Image, arch: str) -> bool:
    """Return whether ``auto`` may take an image: variants of the lab image have to be named."""
    return image.arch == arch and image.details.get("variant", "plain") == "plain"


def _best_on_mirror(base: str, index: Transfer, arch: str, *wishes: str) -> str:
    """Return the first of ``wishes`` that the mirror holds, else its first image for ``auto``."""
    held = [one.image for one in read_index(base, index) if _is_automatic(one.image, arch)]
    for wish in wishes:
        if any(matches(image, wish, arch) for image in held):
            return wish
    return held[0].name if held else wishes[0]


def _reachable(name: str, arch: str) -> bool:
    """Return whether the publisher of ``name`` answers, asked once and briefly."""
    published = load_catalogue().images[name].get(arch)
    return published is not None and web.answers(published.checksum_url or published.url)
