"""``cloudlab build``: a cloud image made on this host from Debian packages.

Laid out like Ubuntu's cloud images, it stands in for a published image where none can be
downloaded, and its variants show what published images do differently.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock

from cloudlab import paths
from cloudlab.errors import BuildError, ToolNotFoundError
from cloudlab.image import bootable, rootfs
from cloudlab.image.cache import Image, recall, remember, sha256_of
from cloudlab.image.recipe import Filesystem, Recipe, Suite, Variant, make_recipe
from cloudlab.tools import install_hint, now, run, which

#: What a build holds on the disk at its fullest, in bytes: measured 1.4 GiB, and some air.
NEEDED_BYTES = 2 << 30

_TOOLS = ("grub-mkimage", "mcopy", "mkfs.vfat", "mmdebstrap", "qemu-img", "sfdisk", "setpriv")
_FILESYSTEM_TOOLS = {
    Filesystem.EXT4: "mke2fs",
    Filesystem.BTRFS: "mkfs.btrfs",
    Filesystem.XFS: "mkfs.xfs",
}
_STEPS = ("packages", "root filesystem", "boot loader", "compression", "checksum")


@dataclass(frozen=True)
class BuildStep:
    """How far a build is.

    Attributes
    ----------
    number : int
        From 1 to ``count``; 0 while another build on this host is waited for.
    count : int
    title : str
        What is being done, in a word or two.
    detail : str
        The last milestone of the program at work, if it tells any.
    """

    number: int
    count: int
    title: str
    detail: str = ""


Progress = Callable[[BuildStep], None]


def _say_nothing(_: BuildStep) -> None:
    """Be the progress of a caller who wants none."""


def build_image(
    *,
    suite: str = Suite.BOOKWORM,
    filesystem: str = Filesystem.EXT4,
    variant: str = Variant.PLAIN,
    output: Path | None = None,
    progress: Progress | None = None,
) -> Image:
    """Return the lab image of this recipe, from the cache or newly built (about a minute).

    Parameters
    ----------
    suite : str
        ``bookworm``, ``trixie`` or ``bullseye``.
    filesystem : str
        ``ext4``, ``btrfs`` or ``xfs``.
    variant : str
        One of :class:`cloudlab.image.recipe.Variant`.
    output : Path, optional
        Where a copy goes; it is then what is returned.
    progress : callable
        Told each :class:`BuildStep`, now and then from another thread.

    Raises
    ------
    UsageError
        For a word that names nothing to build.
    ToolNotFoundError, BuildError, ToolError
        With what is missing; nothing is left behind.

    Examples
    --------
    >>> image = cloudlab.build(suite="trixie", filesystem="btrfs")
    >>> run = cloudlab.boot(image=image)
    """
    recipe = make_recipe(suite, filesystem, variant)
    image = recall(recipe.name) or _build_alone(recipe, progress or _say_nothing)
    if output is None:
        return image
    with paths.whole_file(output.absolute()) as part:
        shutil.copyfile(image.path, part)
    return replace(image, name=output.name, path=output.absolute())


def _build_alone(recipe: Recipe, progress: Progress) -> Image:
    """Build, unless the build that was waited for made the same image."""
    check_host(recipe)
    folder = paths.make_folder(paths.images_folder())
    lock = filelock.FileLock(folder / ".build.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        progress(BuildStep(0, len(_STEPS), "waiting for another build"))
        lock.acquire()
    try:
        if image := recall(recipe.name):
            return image
        as_root = rootfs.as_tree_root()
        with _work_folder(folder, as_root) as work:
            return _build(recipe, work, as_root, progress)
    except OSError as error:
        raise BuildError(f"The image could not be built: {error}.") from error
    finally:
        lock.release()


def check_host(recipe: Recipe) -> None:
    """Check that this host can build ``recipe``.

    Raises
    ------
    BuildError, ToolNotFoundError
        With what to do.
    """
    if not sys.platform.startswith("linux"):
        raise BuildError(
            "An image is built by Debian's own tools, which run on Linux; this is not Linux.",
            hint="Fetch a published image instead (cloudlab images lists them), or build on a "
            "Linux machine with 'cloudlab build --output lab.qcow2' and pass that file on.",
        )
    programs = (*_TOOLS, _FILESYSTEM_TOOLS[recipe.filesystem])
    files = (rootfs.KEYRING, *bootable.grub_files(recipe))
    missing = [name for name in programs if which(name) is None]
    missing += [name for name in files if not Path(name).is_file()]
    if missing:
        raise ToolNotFoundError(
            f"Building needs what was not found on this machine: {', '.join(missing)}.",
            hint=install_hint(*missing),
        )


@contextmanager
def _work_folder(folder: Path, as_root: list[str]) -> Iterator[Path]:
    """Yield an empty folder in the cache and remove it, and those of killed builds before."""
    for left in folder.glob(".build-*"):
        rootfs.remove_tree(left, as_root)
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise BuildError(
            f"A build needs {NEEDED_BYTES >> 20} MiB in {folder}, where {free >> 20} MiB are free.",
            hint="Make room, or move the cache with the variable CLOUDLAB_CACHE.",
        )
    work = folder / f".build-{now().replace(':', '')}"
    work.mkdir()
    try:
        yield work
    finally:
        rootfs.remove_tree(work, as_root)


@dataclass
class _Clock:
    """Tells the progress of steps and how long each took."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        step = BuildStep(_STEPS.index(title) + 1, len(_STEPS), title)
        self.progress(step)
        start = time.monotonic()

        def tell(line: str) -> None:
            if line.startswith("I: "):  # mmdebstrap's own milestones, not its warnings
                self.progress(replace(step, detail=line.removeprefix("I: ")))

        yield tell
        self.seconds[title] = round(time.monotonic() - start, 2)


def _build(recipe: Recipe, work: Path, as_root: list[str], progress: Progress) -> Image:
    clock = _Clock(progress)
    tree, root, disk, packed = (work / name for name in ("tree", "root.raw", "disk.raw", "qcow2"))
    with clock.step("packages") as on_line:
        rootfs.install_packages(recipe, tree, as_root, on_line)
    with clock.step("root filesystem"):
        rootfs.configure(recipe, tree)
        bootable.reserve_core(recipe, tree, work)
        rootfs.make_filesystem(recipe, tree, root, as_root)
    with clock.step("boot loader"):
        bootable.make_disk(recipe, root, disk, work)
    with clock.step("compression"):
        _compress(disk, packed)
    with clock.step("checksum"):
        sha256 = sha256_of(packed)
    return _store(recipe, tree, packed, sha256, clock.seconds)


def _compress(disk: Path, packed: Path) -> None:
    options = ["-o", "compression_type=zstd", "-W", "-m", "8"]
    run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", *options, disk, packed],
        timeout_s=600.0,
    )


def _store(
    recipe: Recipe, tree: Path, packed: Path, sha256: str, seconds: dict[str, float]
) -> Image:
    """Move the image into the cache, its record last."""
    path = paths.images_folder() / recipe.name
    schema = rootfs.schema_in(tree)
    schema_path = path.with_name(f"{path.name}.schema.json") if schema else None
    if schema and schema_path:
        with paths.whole_file(schema_path) as part:
            shutil.copyfile(schema, part)
    packed.replace(path)
    return remember(
        Image(
            name=path.name,
            path=path,
            format="qcow2",
            arch=recipe.arch,
            virtual_size_bytes=recipe.layout.disk_bytes,
            file_size_bytes=0,  # remember() takes size and time from the file
            mtime_ns=0,
            sha256=sha256,
            origin="built",
            source=f"Debian {recipe.suite} packages, {recipe.filesystem}, {recipe.variant}",
            date=now(),
            trust="built here",
            root_filesystem=recipe.filesystem,
            firmware=recipe.firmware,
            schema_path=schema_path,
            details=_details(recipe, tree, seconds),
        )
    )


def _details(recipe: Recipe, tree: Path, seconds: dict[str, float]) -> dict[str, Any]:
    packages = rootfs.installed_packages(tree)
    listed = "\n".join(f"{name} {version}" for name, version in sorted(packages.items()))
    kernel = next((tree / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
    return {
        "suite": recipe.suite.value,
        "variant": recipe.variant.value,
        "cloud_init": packages["cloud-init"],
        "kernel": kernel,
        "packages": len(packages),
        "packages_sha256": hashlib.sha256(listed.encode()).hexdigest(),
        "seconds": seconds,
    }
