"""Which image a run uses, and why, in words that a learner can read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cloudlab import paths
from cloudlab.errors import DownloadError, ImageError, UsageError
from cloudlab.formats import detect_format, virtual_size_bytes
from cloudlab.image import mirror as mirrors
from cloudlab.image.cache import Image, cached_images, recall
from cloudlab.image.catalogue import check_arch, host_arch, load_catalogue
from cloudlab.image.fetch import fetch, find_cached
from cloudlab.image.progress import Progress
from cloudlab.image.recipe import make_recipe
from cloudlab.image.source import known_quirks
from cloudlab.image.trust import Trust
from cloudlab.image.web import PassingError, is_url, open_url, read_small
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
        If there is no such file, or it is no qcow2 or raw image.
    """
    path = paths.expand(path).absolute()
    if not path.is_file():
        raise ImageError(
            f"There is no image file {path}.",
            hint="'cloudlab images' lists what can be fetched by name.",
        )
    # Only the cache's records are believed: any file may have a .json of its own beside it.
    if path.parent.resolve() == paths.images_folder().resolve() and (known := recall(path.name)):
        return known
    kind = detect_format(path)
    status = path.stat()
    return Image(
        name=path.name,
        path=path,
        format=kind,
        arch=check_arch(arch),
        virtual_size_bytes=virtual_size_bytes(path, kind),
        file_size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sha256="",
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
    """Return the image that ``choice`` means, and why it is this one.

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
        Of a download; a builder has its own.
    cancel : threading.Event, optional

    Raises
    ------
    CloudlabError
        Whatever fetching, opening or building raises.

    Examples
    --------
    >>> image, reason = cloudlab.choose_image("debian-12-generic")
    """
    if choice == "auto":
        return _choose_any(check_arch(arch), mirror, builder, progress, cancel)
    if _means_path(choice):
        image = open_image(Path(choice), arch=arch)
        if image.origin == "file":
            quirks = known_quirks(image.name, load_catalogue())
            image = replace(image, details={"quirks": quirks})
        return image, "your own file"
    image = fetch(choice, arch=arch, mirror=mirror, progress=progress, cancel=cancel)
    kind = "the URL you gave" if is_url(choice) else "the one you named"
    return image, f"{kind} ({image.trust})"


def _means_path(choice: str) -> bool:
    """Return whether ``choice`` is a file; a bare word is one only if it is there."""
    if is_url(choice):
        return False
    path = paths.expand(choice)
    return os.sep in choice or choice.startswith((".", "~")) or path.is_file()


def _choose_any(
    arch: str,
    mirror: str | None,
    builder: Callable[[], Image] | None,
    progress: Progress | None,
    cancel: threading.Event | None,
) -> tuple[Image, str]:
    default, lab = load_catalogue().default, make_recipe(arch=arch).name
    # A lab image that is built to differ in one way must be asked for by name.
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
        name = _best_on_mirror(mirrors.mirror_url(mirror), (lab, default), arch)
        image = fetch(name, arch=arch, mirror=mirror, progress=progress, cancel=cancel)
        return image, f"from the mirror {mirror}"
    if _reachable(default, arch):
        image = fetch(default, arch=arch, progress=progress, cancel=cancel)
        return image, f"the course's default, from its publisher ({image.trust})"
    if arch != host_arch():
        raise UsageError(
            f"There is no {arch} image in the cache, and no publisher could be reached.",
            hint="An image can be built for this host's own architecture only.",
        )
    if builder is None:
        from cloudlab.image.build import build_image

        builder = build_image
    return builder(), "built here: none is in the cache and no publisher could be reached"


def _best_on_mirror(base: str, wishes: tuple[str, ...], arch: str) -> str:
    """Return the first wish that the mirror holds, else what it has for ``arch``."""
    index = f"{base}/{mirrors.INDEX}"
    offers = mirrors.parse_index(read_small(index, allow_http=True), index)
    held = [offer.image for offer in offers if offer.image.arch == arch]
    for wish in wishes:
        if any(mirrors.matches(image, wish, arch) for image in held):
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
    except (PassingError, DownloadError):
        return False
    return True
