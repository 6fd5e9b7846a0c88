"""Real files to look at: an image of the learner's cache, an overlay on it, a seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab import paths
from cloudlab.disk import allocated_bytes, create_overlay, inspect_disk
from cloudlab.errors import CloudlabError, SeedError
from cloudlab.html import Page
from cloudlab.image.cache import Image, cached_images
from cloudlab.run.options import DISK_SIZE_BYTES
from cloudlab.run.tables import layout_frame
from cloudlab.run.value import recorded
from cloudlab.seed import SeedConfig, build_seed, write_iso
from cloudlab.tools import host_arch
from cloudlab.units import format_count

if TYPE_CHECKING:
    import pandas as pd

_NO_IMAGE = "There is no image in your cache ('cloudlab fetch' or 'cloudlab build' gets one)"


def image_layout() -> pd.DataFrame:
    """Return the partitions of an image in the cache, or of the recorded one; print which.

    The columns are those of :meth:`cloudlab.Run.partitions`.
    """
    image = _image()
    if image is None:
        print(f"{_NO_IMAGE}: this is the recorded one.")  # noqa: T201 - what a notebook shows
        return recorded("default").partitions("image")
    try:
        found = inspect_disk(image.path, image.format)
    except CloudlabError as error:
        print(f"{image.name} cannot be read: {error.message} This is the recorded one.")  # noqa: T201
        return recorded("default").partitions("image")
    print(f"Read just now from {image.name} in your cache.")  # noqa: T201
    return layout_frame(found)


def try_overlay(path: Path | str = "runs/my-overlay.qcow2") -> Page:
    """Create an overlay of 20 GiB on an image in the cache, and say what it takes on the host.

    An overlay that exists already is replaced.
    """
    image = _image()
    if image is None:
        return Page(f"{_NO_IMAGE}: no overlay was made.")
    target = Path(path)
    try:
        paths.make_folder(target.parent)
        target.unlink(missing_ok=True)
        overlay = create_overlay(image.path, image.format, target, DISK_SIZE_BYTES)
    except CloudlabError as error:
        return Page(f"The overlay could not be created. {error.message}")
    return Page(
        f"{target}: {format_count(allocated_bytes(target))} bytes on the host\n"
        f"virtual size: {format_count(overlay.virtual_size_bytes)} bytes\n"
        f"backing file: {image.name}, {format_count(image.file_size_bytes)} bytes"
    )


def write_seed(path: Path | str, **options: Any) -> Path:
    """Write a seed for any machine, without the course's own commands; return its path.

    Parameters
    ----------
    path : Path or str
        The ISO image; its folder is created.
    **options
        Fields of :class:`cloudlab.SeedConfig`, such as ``hostname``.

    Raises
    ------
    SeedError
        If an option is refused, or the file cannot be written.
    """
    target = Path(path)
    paths.make_folder(target.parent)
    return write_iso(build_seed(SeedConfig(report=False, **options)), target)


def iso_contents(path: Path) -> Page:
    """Return the label of an ISO image and its files with their sizes.

    Raises
    ------
    SeedError
        If it cannot be read.
    """
    import pycdlib
    from pycdlib.pycdlibexception import PyCdlibException

    iso: Any = pycdlib.PyCdlib()
    try:
        iso.open(str(path))
        try:
            label = iso.pvd.volume_identifier.decode("ascii", "replace").strip()
            files = [
                f"  {one.rock_ridge.name().decode('utf-8', 'replace')}: {one.data_length} bytes"
                for one in iso.list_children(rr_path="/")
                if one.is_file()
            ]
        finally:
            iso.close()
    except (OSError, PyCdlibException) as error:
        raise SeedError(f"{path} cannot be read as an ISO image: {error}.") from error
    return Page("\n".join([f"label: {label}", *files]))


def _image() -> Image | None:
    images = [one for one in cached_images() if one.arch == host_arch()]
    plain = [one for one in images if one.details.get("variant", "plain") == "plain"]
    return next(iter([*plain, *images]), None)
