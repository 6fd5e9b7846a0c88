"""Commands about images and disks: images, fetch, build, verify, share, inspect."""

from __future__ import annotations

import argparse
import contextlib
import functools
import shlex
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from cloudlab.cli import terminal
from cloudlab.disk import Filesystem, Partition, inspect_disk
from cloudlab.errors import ImageError, UsageError, suggest
from cloudlab.image import cache
from cloudlab.image.build import build_image
from cloudlab.image.cache import Image
from cloudlab.image.catalogue import Published, load_catalogue
from cloudlab.image.fetch import choose_image, find_cached
from cloudlab.image.fetch import fetch as fetch_image
from cloudlab.image.recipe import Variant
from cloudlab.image.share import ShareServer, export_line, find_site, qr_text, raise_file_limit
from cloudlab.units import format_bytes


def images(args: argparse.Namespace) -> None:
    """List the catalogue and what else is in the cache."""
    catalogue = load_catalogue()
    rows = []
    for published in catalogue.rows():
        cached = find_cached(published.name, published.arch, catalogue=catalogue)
        about = {"refused": published.refused or None, "quirks": dict(published.quirks)}
        rows.append(_row(published, published.name, published.title, cached) | about)
    known = {row["cached"] for row in rows}
    rows += [
        _row(image, image.name, image.source, image)
        for image in cache.cached_images()
        if str(image.path) not in known
    ]
    if args.json:
        terminal.print_json(rows)
        return
    columns = ("name", "for", "root", "size", "integrity", "cached")
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    terminal.print_table(columns, [_cells(alike) for alike in by_name.values()], right="size")
    for name, alike in by_name.items():
        if alike[0]["refused"]:
            terminal.say(f"{name} cannot be used: {alike[0]['refused']}")


def _row(one: Published | Image, name: str, title: str, cached: Image | None) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "arch": one.arch,
        "size_bytes": cached.file_size_bytes if cached else None,
        "integrity": str(cached.trust if cached else one.trust),
        "root_filesystem": one.root_filesystem,
        "cached": str(cached.path) if cached else None,
        "refused": None,
        "quirks": {},
    }


def _cells(alike: list[dict[str, Any]]) -> list[str]:
    """Return the cells for one name, whatever architectures it is published for."""
    first = alike[0]
    integrity = ", ".join(dict.fromkeys(row["integrity"] for row in alike))
    return [
        first["name"],
        ", ".join(row["arch"] for row in alike),
        first["root_filesystem"],
        ", ".join(format_bytes(row["size_bytes"]) for row in alike if row["size_bytes"]),
        "cannot be used" if first["refused"] else integrity,
        ", ".join(row["arch"] for row in alike if row["cached"]),
    ]


def fetch(args: argparse.Namespace) -> None:
    """Print the path of the verified image."""
    with terminal.fetch_view() as show:
        image = fetch_image(
            args.image,
            checksum=args.checksum,
            mirror=args.mirror,
            refresh=args.refresh,
            arch=args.arch,
            progress=show,
        )
    terminal.say(f"{image.name}: {image.trust}, SHA-256 {image.sha256}")
    print_path(image.path)


def build(args: argparse.Namespace) -> None:
    """Build the image, or find it in the cache, and print its path."""
    if args.variant == "help":
        terminal.print_table(("variant", "the image"), [[one, one.summary] for one in Variant])
        return
    if args.output is not None:
        if args.output.is_dir():
            raise UsageError(
                f"{args.output} is a folder; --output names the file to write.",
                hint=f"Write for example: --output {args.output / 'lab.qcow2'}",
            )
        check_output(args.output)
    with terminal.build_view() as show:
        image = build_image(
            suite=args.suite,
            filesystem=args.filesystem,
            variant=args.variant,
            arch=args.arch,
            output=args.output,
            progress=show,
        )
    print_path(image.path)


def verify(args: argparse.Namespace) -> None:
    """Hash recorded images, changed ones too, and accept those that are what was recorded."""
    recorded = cache.recorded_names()
    # As everywhere, a name may stand without its suffix.
    by_name = {name.rpartition(".")[0]: name for name in recorded} | {n: n for n in recorded}
    for name in args.image:
        if name not in by_name:
            raise UsageError(
                f"The cache has no image called {name!r}.",
                hint=suggest(name, by_name, "'cloudlab images' lists the cached images."),
            )
    if not recorded:
        terminal.say("The cache has no image to verify.")
    bad = 0
    for name in dict.fromkeys(by_name[name] for name in args.image or recorded):
        try:
            image = cache.read_record(name)
            if image is not None:
                image = cache.verify(image)
        except ImageError as error:
            bad += 1
            terminal.say(str(error))
            continue
        if image is None:
            terminal.say(f"{name}: the image is gone; only its record is left.")
        else:
            terminal.OUT.print(f"ok  {name}  sha256 {image.sha256}")
    if bad:
        what = "image is" if bad == 1 else "images are"
        raise ImageError(
            f"{bad} cached {what} not what was recorded.",
            hint="Remove what is damaged, as said above, then fetch or build it again.",
        )


def share(args: argparse.Namespace) -> None:
    """Serve the cache and the site, and collect a class's answers if asked to, until Ctrl-C."""
    accept, folder, site = None, None, find_site(args.site)
    if args.class_folder is not None:
        from cloudlab.course import classroom

        folder = classroom.open_class(args.class_folder)
        accept = functools.partial(classroom.keep_answer, folder)
    raise_file_limit()
    with ShareServer(address=args.address, port=args.port, accept=accept, site=site) as server:
        rows = [
            [one.name, format_bytes(one.file_size_bytes), one.sha256] for one in server.images()
        ]
        terminal.print_table(("image", "size", "SHA-256"), rows, right="size")
        if not rows:
            terminal.say("The cache is empty: fetch or build an image in another terminal.")
        sys.stdout.write(qr_text(server.url))
        line = export_line(server.url, with_class=folder is not None)
        terminal.OUT.print(f"Learners type:  {line}")
        if site is None:
            terminal.say("No site: build it with 'make docs' in a clone, or name one with --site.")
        else:
            terminal.OUT.print(f"Learners open:  {server.url}/site/")
        if folder is not None:
            named = repr(str(folder)) if args.class_folder else ""
            terminal.OUT.print(f"Answers are kept in {folder}. Show them in a notebook with:")
            for name in ("room_predictions", "room_board"):
                terminal.OUT.print(f"  course.{name}({named})")
            where = f" {shlex.quote(str(folder))}" if args.class_folder else ""
            terminal.OUT.print(f"and in a terminal with:\n  cloudlab class{where}")
        terminal.OUT.print("Ctrl-C ends it.")
        threading.Event().wait()


_DISK_COLUMNS = ("no", "start", "size", "type", "filesystem", "label", "its size", "free")
_RIGHT = "no,start,size,its size,free"


def inspect(args: argparse.Namespace) -> None:
    """Show what is on a disk without booting it."""
    layout = inspect_disk(args.disk, args.format)
    if args.json:
        terminal.print_json(layout.to_json())
        return
    size, used = format_bytes(layout.virtual_size_bytes), format_bytes(layout.disk_size_bytes)
    lines = [f"{layout.path}: {layout.format}, virtual size {size}, {used} on the host"]
    if layout.backing_file:
        lines.append(f"backing file: {layout.backing_file}")
    terminal.print_lines([*lines, f"partition table: {layout.table_title}"])
    if layout.partitions:
        terminal.print_table(
            _DISK_COLUMNS, list(map(_partition_cells, layout.partitions)), right=_RIGHT
        )
    lines = []
    if layout.table is not None:
        lines.append(f"free behind the last partition: {format_bytes(layout.free_tail_bytes)}")
    elif not layout.partitions and not layout.other_table:
        lines.append("The disk is blank where partition tables and filesystems start.")
    if layout.in_use:
        lines.append("A machine is writing to this disk, so this may be out of date.")
    terminal.print_lines([*lines, *(f"warning: {warning}" for warning in layout.warnings)])


def _partition_cells(partition: Partition) -> tuple[str, ...]:
    filesystem = partition.filesystem or Filesystem("")
    sizes = (filesystem.size_bytes, filesystem.free_bytes)
    return (
        "-" if partition.number is None else str(partition.number),
        format_bytes(partition.start_bytes),
        format_bytes(partition.size_bytes),
        partition.type_name,
        partition.content or "-",
        filesystem.label or "-",
        *("-" if size is None else format_bytes(size) for size in sizes),
    )


def image_for(args: argparse.Namespace) -> Image:
    """Return the image that ``--image`` means, telling which and why."""
    with contextlib.ExitStack() as view:
        show = view.enter_context(terminal.fetch_view())

        def build_default() -> Image:
            view.close()  # a terminal has room for one live view
            with terminal.build_view() as show_build:
                return build_image(progress=show_build)

        image, reason = choose_image(
            args.image, arch=args.arch, mirror=args.mirror, builder=build_default, progress=show
        )
    terminal.say(f"Image: {image.name} ({format_bytes(image.file_size_bytes)}): {reason}.")
    return image


def check_output(path: Path) -> None:
    """Check that ``path``, which may not be there yet, can be written.

    Raises
    ------
    UsageError
        Before anything that takes time was done for it.
    """
    places = [path, *path.absolute().parents]
    folder = next(one for one in places if one.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".cloudlab-", dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: no file can be created in {folder} ({error.strerror}).",
            hint="Choose another place with --output.",
        ) from error


def print_path(path: Path) -> None:
    """Print a path as it is, for scripts: no wrapping, nothing taken out."""
    sys.stdout.write(f"{path}\n")
