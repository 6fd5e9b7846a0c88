"""Which image a run uses, and why."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cloudlab import paths
from cloudlab.errors import DownloadError, ImageError, UsageError
from cloudlab.formats import detect_format, virtual_size_bytes
from cloudlab.image.cache import Image, cached_images, recall
from cloudlab.image.catalogue import check_arch, host_arch, load_catalogue
from cloudlab.image.fetch import fetch, find_cached, matches, mirror_url, read_index
from cloudlab.image.recipe import make_recipe
from cloudlab.image.trust import Trust
from cloudlab.image.web import Progress, Transfer, TransientError, is_url, open_url
from cloudlab.tools import now

#: Seconds within which a publisher has to answer for ``auto`` to fetch from it.
PROBE_TIMEOUT_S = 3.0


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
    try:
        status = path.stat()
    except OSError as error:
        raise ImageError(
            f"The image file {path} cannot be read: {paths.why_not(path, error)}.",
            hint="'cloudlab images' lists what can be fetched by name.",
        ) from error
    if not path.is_file():
        raise ImageError(f"{path} is not a file.", hint="Name a qcow2 or raw image file.")
    # Only records in the cache count: any file may have an unrelated .json beside it.
    if path.parent.resolve() == paths.images_folder().resolve() and (known := recall(path.name)):
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


def choose_image(
    choice: str = "auto",
    *,
    arch: str | None = None,
    mirror: str | None = None,
    builder: Callable[[], Image] | None = None,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> tuple[Image, str]:
    """Return the image that ``choice`` names, and why it is this one.

    ``auto`` takes, in this order: from the cache the plain lab image (it boots soonest),
    the catalogue's default, the newest other; from a mirror the same; the default from
    its publisher where the network reaches it; and else it builds the lab image.

    Parameters
    ----------
    choice : str
        ``auto``, a name of the catalogue, the cache or the mirror, a URL, or a path.
    arch : str, optional
        Default: this host's.
    mirror : str, optional
        Default: the variable ``CLOUDLAB_MIRROR``.
    builder : callable, optional
        Builds the lab image; default: :func:`cloudlab.image.build.build_image`.
    progress : callable, optional
        Called with the progress of a download.
    cancel : threading.Event, optional

    Raises
    ------
    CloudlabError
        As of fetching, opening or building.

    Examples
    --------
    >>> image, reason = cloudlab.choose_image("debian-12-generic")
    """
    if choice == "auto":
        return _automatic(arch, mirror, builder, progress, cancel)
    # A bare word is a file only if it is there.
    if not is_url(choice) and (
        os.sep in choice or choice.startswith((".", "~")) or Path(choice).is_file()
    ):
        image = open_image(Path(choice), arch=arch)
        if image.origin == "file":
            quirks = load_catalogue().quirks_of_file(image.name)
            image = replace(image, details={"quirks": quirks})
        return image, "your own file"
    image = fetch(choice, arch=arch, mirror=mirror, progress=progress, cancel=cancel)
    kind = "the URL you gave" if is_url(choice) else "the one you named"
    return image, f"{kind} ({image.trust})"


def _automatic(
    arch: str | None,
    mirror: str | None,
    builder: Callable[[], Image] | None,
    progress: Progress | None,
    cancel: threading.Event | None,
) -> tuple[Image, str]:
    arch = check_arch(arch)
    lab, default = make_recipe(arch=arch).name, load_catalogue().default
    # Variants of the lab image are used only where they are named.
    plain = (
        image
        for image in cached_images()
        if image.arch == arch and image.details.get("variant", "plain") == "plain"
    )
    for reason, found in (
        ("the lab image in the cache", find_cached(lab, arch)),
        ("the course's default, in the cache", find_cached(default, arch)),
        ("the newest image in the cache", next(plain, None)),
    ):
        if found is not None:
            return found, reason
    mirror = mirror or os.environ.get("CLOUDLAB_MIRROR")
    if mirror:
        name = _best_on_mirror(mirror_url(mirror), arch, lab, default)
        image = fetch(name, arch=arch, mirror=mirror, progress=progress, cancel=cancel)
        return image, f"from the mirror {mirror}"
    if _reachable(default, arch):
        image = fetch(default, arch=arch, progress=progress, cancel=cancel)
        return image, f"the course's default, from its publisher ({image.trust})"
    if arch != host_arch():
        raise UsageError(
            f"There is no {arch} image in the cache, and no publisher could be reached.",
            hint=f"Images are built for this host's architecture, {host_arch()}, only: use a "
            "network that reaches a publisher, a mirror (--mirror), or a file (--image PATH).",
        )
    from cloudlab.image.build import build_image

    return (
        builder or build_image
    )(), "built here: none is in the cache and no publisher could be reached"


def _best_on_mirror(base: str, arch: str, *wishes: str) -> str:
    """Return the first of ``wishes`` that the mirror holds, else its first image for ``arch``."""
    offers = read_index(base, Transfer(base))
    held = [offer.image for offer in offers if offer.image.arch == arch]
    for wish in wishes:
        if any(matches(image, wish, arch) for image in held):
            return wish
    return held[0].name if held else wishes[0]


def _reachable(name: str, arch: str) -> bool:
    """Return whether the publisher of ``name`` answers, asked once and briefly."""
    published = load_catalogue().images[name].get(arch)
    if published is None:
        return False
    url = published.checksum_url or published.url
    try:
        open_url(url, allow_http=True, timeout_s=PROBE_TIMEOUT_S, method="HEAD").close()
    except (TransientError, DownloadError):
        return False
    return True
