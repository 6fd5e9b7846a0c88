"""Real files to look at: an image of the learner's cache, an overlay on it, a seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab.course.views import layout, partitions_frame, say
from cloudlab.disk import allocated_bytes, create_overlay, inspect_disk
from cloudlab.errors import CloudlabError, SeedError
from cloudlab.html import Page
from cloudlab.image.cache import Image, cached_images
from cloudlab.run.options import DISK_SIZE_BYTES
from cloudlab.run.value import recorded
from cloudlab.tools import host_arch
from cloudlab.units import format_count

if TYPE_CHECKING:
    import pandas as pd

_NO_IMAGE = "No image is in your cache ('cloudlab fetch' or 'cloudlab build' brings one)"


def image_layout() -> pd.DataFrame:
    """Return the partitions of an image in the cache, else of the recorded one; say which.

    The columns are those of :func:`~cloudlab.course.layout`.
    """
    image = _image()
    if image is None:
        say(f"{_NO_IMAGE}: this is the recorded one.")
        return layout(recorded("default"))
    try:
        found = inspect_disk(image.path, image.format)
    except CloudlabError as error:
        say(f"{image.name} could not be read, so this is the recorded one. {error.message}")
        return layout(recorded("default"))
    say(f"Read just now from {image.name} in your cache.")
    return partitions_frame(found)


def try_overlay(path: Path | str = "my-overlay.qcow2") -> Page:
    """Make an overlay of 20 GiB on an image in the cache, and say what it takes on the host.

    One that is there already is made anew.
    """
    image = _image()
    if image is None:
        return Page(f"{_NO_IMAGE}: nothing was made.")
    target = Path(path)
    target.unlink(missing_ok=True)
    try:
        overlay = create_overlay(image.path, image.format, target, DISK_SIZE_BYTES)
    except CloudlabError as error:
        return Page(f"The overlay could not be made. {error.message}")
    return Page(
        f"{target}: {format_count(allocated_bytes(target))} bytes on the host\n"
        f"virtual size: {format_count(overlay.virtual_size_bytes)} bytes\n"
        f"backing file: {image.name}, {format_count(image.file_size_bytes)} bytes"
    )


def iso_contents(path: Path) -> Page:
    """Return the label of an ISO image and its files, each with its size.

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
