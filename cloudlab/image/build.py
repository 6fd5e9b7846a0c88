"""``cloudlab build``: a cloud image made on this host from Debian packages.

Laid out like Ubuntu's cloud images, it replaces a published image where none can be
downloaded, and its variants show what published images do differently.

Programs that touch the image's files run as their root user: in mount and PID namespaces,
and for an ordinary user in a user namespace, where the image's users are taken from
/etc/subuid.  So files keep their owners, nothing outlives the build, and no loop device is
needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import filelock

from cloudlab import paths, platforms
from cloudlab.errors import BuildError, ToolFailedError, ToolNotFoundError, ToolTimeoutError
from cloudlab.image.cache import Image, Trust, recall, remember, sha256_of
from cloudlab.image.recipe import (
    DEFAULT_SUITE,
    ROOT_MIB,
    UNPACKED_GRUB,
    Filesystem,
    Recipe,
    Suite,
    Variant,
    grub_files,
    make_disk,
    make_recipe,
    reserve_core,
)
from cloudlab.tools import CPUS, check_arch, install_hint, now, run, which
from cloudlab.units import format_bytes

#: The most disk that a build takes, in bytes: 1.4 GiB were measured.
NEEDED_BYTES = 2 << 30

_TOOLS = ("grub-mkimage", "mcopy", "mkfs.vfat", "mmdebstrap", "qemu-img", "sfdisk", "setpriv")
_FILESYSTEM_TOOLS = {"ext4": "mke2fs", "btrfs": "mkfs.btrfs", "xfs": "mkfs.xfs"}
_STEPS = ("packages", "root filesystem", "boot loader", "compression", "checksum")
_FAILED_HINT = {
    "packages": "Packages come from the Debian mirror that this host's apt uses, else from "
    "deb.debian.org. Check the network, and http_proxy if there is a proxy."
}

#: What Debian signs its archive with.
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Debian's releases name the emulators differently, but not the files that register them.
BINFMT_FOLDER = Path("/usr/lib/binfmt.d")
_PACKAGES_TIMEOUT_S = 3600.0
_STEP_TIMEOUT_S = 600.0

#: Files that a server does not need.  dpkg in the image leaves them out as well, as in Debian's
#: slim containers.
_DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
#: What fills the root filesystem of the full variant, and the blocks it leaves free.  The
#: kernel keeps 4096 for itself; with no more than these cloud-init would not even start.
_FILLER = "var/lib/filler"
_LEFT_BLOCKS = 4096 + (16 << 20) // 4096

_SCHEMA = "usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json"


@dataclass(frozen=True)
class BuildStep:
    """How far a build is."""

    #: From 1 to ``count``; 0 while waiting for another build on this host.
    number: int
    count: int
    #: The step, in a word or two.
    title: str
    #: The last milestone that the running program reported, if any.
    detail: str = ""


Progress = Callable[[BuildStep], None]


def build_image(
    *,
    suite: str = DEFAULT_SUITE,
    filesystem: str = Filesystem.EXT4,
    variant: str = Variant.PLAIN,
    arch: str | None = None,
    output: Path | str | None = None,
    progress: Progress | None = None,
) -> Image:
    """Return the lab image of this recipe, from the cache or newly built (about a minute).

    Parameters
    ----------
    suite, filesystem, variant : str
        One of :class:`~cloudlab.image.recipe.Suite`, :class:`~cloudlab.image.recipe.Filesystem`
        and :class:`~cloudlab.image.recipe.Variant`.
    arch : str, optional
        ``amd64`` or ``arm64``; default: this host's.  Another one's packages are installed under
        user emulation, which takes some ten times as long.
    output : Path or str, optional
        Where to put a copy, which is then returned.
    progress : callable
        Called with each :class:`BuildStep`, sometimes from another thread.

    Raises
    ------
    UsageError
        For an unknown suite, filesystem, variant or architecture.
    ToolNotFoundError, BuildError, ToolError
        With what is missing; nothing is left behind.

    Examples
    --------
    >>> image = cloudlab.build(suite="bookworm", filesystem="btrfs")
    >>> run = cloudlab.boot(image=image)
    """
    recipe = make_recipe(suite, filesystem, variant, check_arch(arch))
    path = paths.expand(output).absolute() if output is not None else None
    image = recall(recipe.name)
    if path is None:
        return image or _build_alone(recipe, progress or (lambda _: None))
    problem = f"The image {path} could not be written"
    hint = "Choose another output, in a folder that exists."
    # The file is opened first, because a build takes a minute.
    with paths.os_errors_as(BuildError, problem, hint=hint), paths.whole_file(path) as part:
        with paths.os_errors_as(BuildError, "The image could not be built"):
            image = image or _build_alone(recipe, progress or (lambda _: None))
        shutil.copyfile(image.path, part)
    return replace(image, name=path.name, path=path, mtime_ns=path.stat().st_mtime_ns)


def _build_alone(recipe: Recipe, progress: Progress) -> Image:
    """Build, unless another process has built the same image meanwhile."""
    check_host(recipe)
    folder = paths.make_folder(paths.images_folder())
    lock = filelock.FileLock(folder / ".build.lock")
    try:
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            progress(BuildStep(0, len(_STEPS), "waiting for another build"))
            lock.acquire()
        if image := recall(recipe.name):
            return image
        as_root = as_tree_root()
        with _work_folder(folder, as_root) as work:
            return _Build(recipe, work, as_root, progress).run()
    except OSError as error:
        raise BuildError(
            f"The image could not be built in {folder}: {error.strerror or error}.",
            hint="Free some space there, or set CLOUDLAB_CACHE to a folder that you can write to.",
        ) from error
    finally:
        lock.release()


def check_host(recipe: Recipe) -> None:
    """Raise an error with what to do if this host cannot build ``recipe``."""
    if not platforms.is_linux():
        raise BuildError(
            "Images are built with Debian's tools, which run on Linux only.",
            hint="Fetch a published image ('cloudlab images' lists them), or build one on Linux "
            "with 'cloudlab build --output lab.qcow2' and copy it here.",
        )
    emulation = ("arch-test",) if recipe.is_foreign else ()
    programs = (*_TOOLS, _FILESYSTEM_TOOLS[recipe.filesystem], *emulation)
    files = (KEYRING, *(() if recipe.is_foreign else grub_files(recipe)))
    missing = [name for name in programs if which(name) is None]
    missing += [name for name in files if not Path(name).is_file()]
    if missing:
        raise ToolNotFoundError(
            f"Building an image needs {', '.join(missing)}, which this host does not have.",
            hint=install_hint(*missing),
        )
    if recipe.is_foreign and run(["arch-test", recipe.arch], check=False).returncode:
        registration = BINFMT_FOLDER / f"qemu-{CPUS[recipe.arch]}.conf"
        hint = install_hint(str(registration))
        if registration.exists():
            hint = (
                "As root: mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc; "
                f"cat {registration} > /proc/sys/fs/binfmt_misc/register"
            )
        raise BuildError(
            f"This host cannot run programs for {recipe.arch}, which installing its packages needs.",
            hint=hint,
        )


@contextmanager
def _work_folder(folder: Path, as_root: list[str]) -> Iterator[Path]:
    """Yield an empty folder in the cache and remove it, and first those of killed builds."""

    def remove(tree: Path) -> None:
        run([*as_root, "rm", "-rf", "--one-file-system", tree], timeout_s=_STEP_TIMEOUT_S)

    for left in folder.glob(".build-*"):
        remove(left)
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise BuildError(
            f"A build needs {format_bytes(NEEDED_BYTES)} in {folder}, where {format_bytes(free)} are "
            "free.",
            hint="Free some space, or set CLOUDLAB_CACHE to a folder on another disk.",
        )
    work = folder / f".build-{now().replace(':', '')}"
    work.mkdir()
    try:
        yield work
    finally:
        remove(work)


class _Build:
    """One build in an empty folder."""

    def __init__(self, recipe: Recipe, work: Path, as_root: list[str], progress: Progress) -> None:
        self._recipe, self._work, self._as_root = recipe, work, as_root
        self._progress = progress
        self._tree = work / "tree"
        self._seconds: dict[str, float] = {}

    def run(self) -> Image:
        """Build the image and put it into the cache, its record last."""
        recipe, work, tree = self._recipe, self._work, self._tree
        root, disk, packed = (work / name for name in ("root.raw", "disk.raw", "qcow2"))
        with self._step("packages") as on_line:
            install_packages(recipe, tree, self._as_root, on_line)
            if recipe.is_foreign:
                unpack_grub(recipe, work, self._as_root)
        with self._step("root filesystem"):
            configure(recipe, tree)
            reserve_core(recipe, tree, work)
            make_filesystem(recipe, tree, root, self._as_root)
        with self._step("boot loader"):
            make_disk(recipe, root, disk, work)
        with self._step("compression"):
            argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c"]
            argv += ["-o", "compression_type=zstd", "-W", "-m", "8"]
            run([*argv, disk, packed], timeout_s=_STEP_TIMEOUT_S)
        with self._step("checksum"):
            sha256 = sha256_of(packed)
        return self._store(packed, sha256)

    @contextmanager
    def _step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Report a step and how long it takes; yield what takes a program's lines."""
        step = BuildStep(_STEPS.index(title) + 1, len(_STEPS), title)
        self._progress(step)
        start = time.monotonic()

        def on_line(line: str) -> None:
            if line.startswith("I: "):  # mmdebstrap's own milestones, not its warnings
                self._progress(replace(step, detail=line.removeprefix("I: ")))

        try:
            yield on_line
        except ToolFailedError as error:
            # mmdebstrap and apt mark their errors; the first is the cause of those behind it.
            said = error.output.splitlines() or [error.message]
            cause = next((line[3:] for line in said if line.startswith("E: ")), said[-1])
            raise BuildError(
                f"The build failed at its step '{title}': {' '.join(cause.split())}",
                hint=_FAILED_HINT.get(title, "Check the free space of the cache and try again."),
            ) from error
        except ToolTimeoutError as error:
            raise BuildError(
                f"The build was stopped because its step '{title}' took too long.",
                hint="Try again when this host is less busy.",
            ) from error
        self._seconds[title] = round(time.monotonic() - start, 2)

    def _store(self, packed: Path, sha256: str) -> Image:
        recipe, tree = self._recipe, self._tree
        path = paths.images_folder() / recipe.name
        schema, schema_path = tree / _SCHEMA, None
        if schema.is_file():
            schema_path = path.with_name(f"{path.name}.schema.json")
            with paths.whole_file(schema_path) as part:
                shutil.copyfile(schema, part)
        packed.replace(path)
        query = ["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "--show"]
        listed = run([*query, "--showformat=${Package} ${Version}\\n"]).stdout
        packages = dict(line.split() for line in listed.splitlines())
        kernel = next((tree / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
        return remember(
            Image(
                name=path.name,
                path=path,
                format="qcow2",
                arch=recipe.arch,
                virtual_size_bytes=recipe.layout.disk_bytes,
                sha256=sha256,
                origin="built",
                source=f"Debian {recipe.suite} packages, {recipe.filesystem}, {recipe.variant}",
                date=now(),
                trust=Trust.BUILT.value,
                root_filesystem=recipe.filesystem,
                firmware=recipe.firmware,
                schema_path=schema_path,
                details={
                    "suite": recipe.suite.value,
                    "variant": recipe.variant.value,
                    "cloud_init": packages["cloud-init"],
                    "growpart": packages.get("cloud-guest-utils", ""),
                    "kernel": kernel,
                    "packages": len(packages),
                    "packages_sha256": hashlib.sha256(listed.encode()).hexdigest(),
                    "seconds": self._seconds,
                },
            )
        )


def as_tree_root() -> list[str]:
    """Return what stands before a program's name to make it the root user of the image's files.

    The kernel kills the program and its children with the caller, even one ended by SIGKILL.
    Raise a BuildError if this user is not root and may not make user namespaces.
    """
    dying_with_us = ["setpriv", "--pdeathsig", "KILL"]
    user = ["--map-root-user", "--map-auto"] if os.geteuid() else []
    unshare = ["unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    probe = run([*dying_with_us, *unshare, "true"], check=False)
    if probe.returncode == 0:
        return [*dying_with_us, *unshare]
    if not user:
        return dying_with_us  # a container's root who may not make namespaces
    hint = install_hint("newuidmap") if which("newuidmap") is None else "Build as root, with sudo."
    raise BuildError(
        "Building an image needs the root user, or a user namespace with the ID ranges that "
        f"/etc/subuid gives to this user: {probe.stderr.strip()}",
        hint=hint,
    )


def install_packages(
    recipe: Recipe, tree: Path, as_root: list[str], on_line: Callable[[str], None]
) -> None:
    """Install Debian's packages into the new folder ``tree``; temporary files lie beside it."""
    temporary = tree.with_name("tmp")
    temporary.mkdir()
    # An interrupted build is thrown away, so it need not survive a power cut: unsafe-io.
    options = [f"--dpkgopt={option}" for option in (*_DPKG_OPTIONS, "force-unsafe-io")]
    argv = _mmdebstrap(recipe, tree, recipe.packages, "--variant=minbase", *options)
    env = {"TMPDIR": str(temporary)}
    run([*as_root, *argv], env=env, timeout_s=_PACKAGES_TIMEOUT_S, on_line=on_line)


def unpack_grub(recipe: Recipe, work: Path, as_root: list[str]) -> None:
    """Unpack GRUB's modules for another architecture, which this host's packages do not have."""
    folder = work / UNPACKED_GRUB
    argv = _mmdebstrap(recipe, folder, recipe.grub_packages, "--variant=extract")
    run([*as_root, *argv], env={"TMPDIR": str(work / "tmp")}, timeout_s=_PACKAGES_TIMEOUT_S)


def _mmdebstrap(recipe: Recipe, tree: Path, packages: Iterable[str], *options: str) -> list[str]:
    argv = ["mmdebstrap", "--mode=root", "--format=directory", f"--keyring={KEYRING}", *options]
    argv += [f"--architectures={recipe.arch}", f"--include={','.join(packages)}"]
    if recipe.suite is Suite.SID:
        # Its index expires after a week; a mirror that has not been renewed since is no fault here.
        argv.append('--aptopt=Acquire::Check-Valid-Until "false"')
    mirror = debian_mirror()
    return [*argv, recipe.suite, str(tree), *([mirror] if mirror else [])]


def debian_mirror() -> str | None:
    """Return the mirror of Debian that this host's own apt uses, or None where it uses none."""
    if which("apt-get") is None:
        return None
    wanted = ["--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"]
    listed = run(["apt-get", "indextargets", *wanted], check=False).stdout
    found = re.search(r"^Debian Debian (https?://\S+)$", listed, re.MULTILINE)
    return found[1] if found else None


def configure(recipe: Recipe, tree: Path) -> None:
    """Turn the packages into a cloud image: write fstab and GRUB's menu, remove the identity."""
    growfs = ",x-systemd.growfs" if recipe.variant in {Variant.GROWFS, Variant.REPART} else ""
    fstab = f"{recipe.root_device}\t/\t{recipe.filesystem}\tdefaults{growfs}\t0 1\n"
    if recipe.layout.esp:
        # By default systemd waits 90 s for the device, then drops into emergency mode; under TCG
        # on a loaded host udev may need longer.
        fstab += "LABEL=UEFI\t/boot/efi\tvfat\tumask=0077,x-systemd.device-timeout=15min\t0 0\n"
        (tree / "boot/efi").mkdir(mode=0o700)
    (tree / "boot/grub").mkdir()
    texts = {
        "boot/grub/grub.cfg": _grub_menu(recipe),
        "etc/default/locale": "LANG=C.UTF-8\n",
        "etc/dpkg/dpkg.cfg.d/99mmdebstrap": "\n".join([*_DPKG_OPTIONS, ""]),
        "etc/fstab": fstab,
        "etc/hostname": "debian\n",
        "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n",
        "etc/machine-id": "",
    }
    if recipe.variant is Variant.REPART:
        # Root has the general type of Linux partitions, like that of Ubuntu's images.
        texts["etc/repart.d/50-root.conf"] = "[Partition]\nType=linux-generic\n"
    # The same patience for the serial console, without which there is no login prompt.
    console = "ttyS0" if recipe.arch == "amd64" else "ttyAMA0"
    drop_in = f"etc/systemd/system/dev-{console}.device.d/timeout.conf"
    texts[drop_in] = "[Unit]\nJobRunningTimeoutSec=15min\n"
    for name, text in texts.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)  # whatever this user's umask is
    if recipe.variant is Variant.FULL:
        (tree / _FILLER).touch()
    resolver = tree / "etc/resolv.conf"
    resolver.unlink(missing_ok=True)
    resolver.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    if recipe.suite is Suite.BULLSEYE:  # later a package that enables itself
        unit = "systemd-resolved.service"
        wanted = tree / "etc/systemd/system/multi-user.target.wants" / unit
        wanted.symlink_to(f"/lib/systemd/system/{unit}")
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()  # cloud-init makes new ones for every instance


def _grub_menu(recipe: Recipe) -> str:
    """Return grub.cfg: no menu to wait for, consoles on screen and serial line."""
    serial = "ttyS0,115200" if recipe.arch == "amd64" else "ttyAMA0"
    # The links in / follow the newest kernel, so an upgrade needs no new menu.
    return (
        "set timeout=0\n"
        'menuentry "Debian GNU/Linux" {\n'
        f"  linux /vmlinuz root={recipe.root_device} ro console=tty0 console={serial}\n"
        "  initrd /initrd.img\n"
        "}\n"
    )


def make_filesystem(recipe: Recipe, tree: Path, target: Path, as_root: list[str]) -> None:
    """Write ``tree`` as a filesystem of :data:`ROOT_MIB` into the new file ``target``."""
    with target.open("wb") as stream:
        stream.truncate(ROOT_MIB << 20)
    if recipe.filesystem is Filesystem.XFS:
        _make_xfs(recipe.label, tree, target, as_root)
    elif recipe.filesystem is Filesystem.BTRFS:
        argv = [*as_root, "mkfs.btrfs", "-q", "-f", "-L", recipe.label, "--rootdir"]
        run([*argv, tree, target], timeout_s=_STEP_TIMEOUT_S)
    else:
        _make_ext4(recipe.label, tree, target, as_root)
    if recipe.variant is Variant.FULL:
        _fill_ext4(target)


def _make_ext4(label: str, tree: Path, target: Path, as_root: list[str]) -> None:
    # Features are named one by one: what newer e2fsprogs add by default (orphan_file,
    # metadata_csum_seed) neither bookworm's GRUB nor bullseye's kernel can read.
    features = (
        "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
        "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
    )
    options = ["-O", features, "-b", "4096", "-I", "256", "-L", label]
    # One inode for 32 KiB instead of 16: inode tables then take 0.8% of the disk, and df
    # shows a grown 20 GiB disk to within 2%.
    argv = [*as_root, "mke2fs", "-q", "-F", "-t", "ext4", "-i", "32768", *options]
    run([*argv, "-d", tree, target], timeout_s=_STEP_TIMEOUT_S)


def _make_xfs(label: str, tree: Path, target: Path, as_root: list[str]) -> None:
    """Let mkfs.xfs fill the filesystem from a protofile: the only way without mounting it."""
    # mkfs.xfs cannot read names that begin like its own marks or hold a blank; Debian has
    # one, a cached copy of a configuration file.  Devices are the guest's kernel's business.
    odd = ["(", "-name", "[:$]*", "-o", "-name", "*[[:space:]]*", ")", "-prune"]
    entry = r"%d\t%y\t%m\t%U\t%G\t%P\t%l\0"
    find = [*as_root, "find", str(tree), *odd, "-o", "-type", "d,f,l", "-printf", entry]
    listing = run(find, timeout_s=_STEP_TIMEOUT_S).stdout
    prototype = target.with_suffix(".proto")
    prototype.write_text(xfs_prototype(listing, tree.name), encoding="utf-8")
    # What newer xfsprogs add by default, bookworm's GRUB and bullseye's kernel cannot read.
    argv = [*as_root, "mkfs.xfs", "-q", "-f", "-L", label, "-i", "nrext64=0"]
    # Names in the protofile begin at the tree's parent, whose own path may hold blanks.
    run([*argv, "-p", prototype, target], cwd=tree.parent, timeout_s=_STEP_TIMEOUT_S)


def xfs_prototype(listing: str, folder: str) -> str:
    """Return the protofile (``man mkfs.xfs``) of a listing made by find.

    It is depth first; per entry depth, type, octal mode, user, group, path, link target, with tabs
    between and NUL behind.  ``folder`` leads to the listed paths.
    """
    lines = ["cloudlab", "0 0"]
    inside = -1
    for entry in listing.rstrip("\0").split("\0"):
        depth, kind, octal, user, group, path, link = entry.split("\t")
        while inside >= int(depth):
            lines.append("$")
            inside -= 1
        mode = int(octal, 8)
        letters = ("-" if kind == "f" else kind) + "-u"[mode >> 11 & 1] + "-g"[mode >> 10 & 1]
        words = [path.rpartition("/")[2], f"{letters}{mode & 0o777:03o}", user, group]
        words += {"f": [f"{folder}/{path}"], "l": [link], "d": []}[kind]
        lines.append(" ".join(words).lstrip())
        inside += kind == "d"
    return "\n".join([*lines, *["$"] * (inside + 1), ""])


def _fill_ext4(target: Path) -> None:
    """Give the free blocks, but for those that cloud-init needs to start, to one file."""
    superblock = run(["dumpe2fs", "-h", target]).stdout
    found = re.search(r"^Free blocks:\s+(\d+)$", superblock, re.MULTILINE)
    assert found is not None
    last = int(found[1]) - _LEFT_BLOCKS - 1
    run(["debugfs", "-w", "-R", f"fallocate /{_FILLER} 0 {last}", target])
