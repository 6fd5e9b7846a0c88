"""The root filesystem of a built image: Debian's packages in a folder, then in a filesystem.

Programs that touch the folder run as its root: in mount and PID namespaces, and for an
ordinary user in a user namespace where that user is root and the users of the image are
taken from /etc/subuid.  So files keep their owners, nothing outlives the build, and
no loop device is needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from cloudlab.errors import BuildError
from cloudlab.image.recipe import ROOT_MIB, Filesystem, Recipe, Suite, Variant
from cloudlab.tools import install_hint, run, which

#: What Debian signs its archive with.
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PACKAGES_TIMEOUT_S = 3600.0
_STEP_TIMEOUT_S = 600.0

#: What a server never reads.  dpkg in the image keeps to it, as in Debian's slim containers.
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

#: An interrupted build is thrown away, so it need not survive a power cut.
_UNSAFE = "force-unsafe-io"

_SCHEMA = "usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json"


def as_tree_root() -> list[str]:
    """Return the words before a program that make it the root user of the image's files.

    The program and all it starts are killed with the caller, even one ended by SIGKILL.

    Raises
    ------
    BuildError
        If this user is not root and may not make user namespaces.
    """
    on_our_death = ["setpriv", "--pdeathsig", "KILL"]
    user = ["--map-root-user", "--map-auto"] if os.geteuid() else []
    unshare = ["unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    probe = run([*on_our_death, *unshare, "true"], check=False)
    if probe.returncode == 0:
        return [*on_our_death, *unshare]
    if not user:
        return on_our_death  # a container's root who may not make namespaces
    hint = install_hint("newuidmap") if which("newuidmap") is None else "Build as root, with sudo."
    raise BuildError(
        "An image is built as root or in a user namespace with the ranges of /etc/subuid; "
        f"this user is not root and has no such namespace: {probe.stderr.strip()}",
        hint=hint,
    )


def install_packages(
    recipe: Recipe, tree: Path, as_root: list[str], on_line: Callable[[str], None]
) -> None:
    """Fill the new folder ``tree`` with Debian's packages; its temporary files go beside it."""
    temporary = tree.with_name("tmp")
    temporary.mkdir()
    options = [f"--dpkgopt={option}" for option in (*_DPKG_OPTIONS, _UNSAFE)]
    mirror = debian_mirror()
    run(
        [
            *as_root,
            "mmdebstrap",
            "--mode=root",
            "--format=directory",
            "--variant=minbase",
            f"--architectures={recipe.arch}",
            f"--include={','.join(recipe.packages)}",
            f"--keyring={KEYRING}",
            *options,
            recipe.suite,
            tree,
            *([mirror] if mirror else []),
        ],
        env={"TMPDIR": str(temporary)},
        timeout_s=_PACKAGES_TIMEOUT_S,
        on_line=on_line,
    )


def debian_mirror() -> str | None:
    """Return the mirror of Debian that this host's own apt uses, or None where it uses none."""
    if which("apt-get") is None:
        return None
    wanted = ["--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"]
    listed = run(["apt-get", "indextargets", *wanted], check=False).stdout
    found = re.search(r"^Debian Debian (https?://\S+)$", listed, re.MULTILINE)
    return found[1] if found else None


def configure(recipe: Recipe, tree: Path) -> None:
    """Write what makes a cloud image of the packages: fstab, GRUB's menu, no identity."""
    growfs = ",x-systemd.growfs" if recipe.variant is Variant.GROWFS else ""
    fstab = f"{recipe.root_device}\t/\t{recipe.filesystem}\tdefaults{growfs}\t0 1\n"
    if recipe.layout.esp:
        fstab += "LABEL=UEFI\t/boot/efi\tvfat\tumask=0077\t0 0\n"
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
    for name, text in texts.items():
        path = tree / name
        path.write_text(text)
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


def installed_packages(tree: Path) -> dict[str, str]:
    """Return name -> version of every package in ``tree``."""
    status = (tree / "var/lib/dpkg/status").read_text(encoding="utf-8")
    return dict(
        re.findall(r"^Package: (\S+)\n(?:\S.*\n| .*\n)*?Version: (\S+)$", status, re.MULTILINE)
    )


def schema_in(tree: Path) -> Path | None:
    """Return cloud-init's own JSON schema of user-data in ``tree``, where it ships one."""
    path = tree / _SCHEMA
    return path if path.is_file() else None


def make_filesystem(recipe: Recipe, tree: Path, target: Path, as_root: list[str]) -> None:
    """Write ``tree`` as a filesystem of :data:`ROOT_MIB` into the new file ``target``."""
    make = {
        Filesystem.EXT4: _make_ext4,
        Filesystem.BTRFS: _make_btrfs,
        Filesystem.XFS: _make_xfs,
    }[recipe.filesystem]
    with target.open("wb") as stream:
        stream.truncate(ROOT_MIB << 20)
    make(recipe.label, tree, target, as_root)
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


def _make_btrfs(label: str, tree: Path, target: Path, as_root: list[str]) -> None:
    argv = [*as_root, "mkfs.btrfs", "-q", "-f", "-L", label]
    run([*argv, "--rootdir", tree, target], timeout_s=_STEP_TIMEOUT_S)


def _make_xfs(label: str, tree: Path, target: Path, as_root: list[str]) -> None:
    """Let mkfs.xfs fill the filesystem from a protofile: the only way without mounting it."""
    # mkfs.xfs cannot read names that begin like its own marks or hold a blank; Debian has
    # one, a cached copy of a configuration file.  Devices are the guest's kernel's business.
    odd = ["(", "-name", "[:$]*", "-o", "-name", "*[[:space:]]*", ")", "-prune"]
    entry = r"%d\t%y\t%m\t%U\t%G\t%P\t%l\0"
    find = [*as_root, "find", str(tree), *odd, "-o", "-type", "d,f,l", "-printf", entry]
    listing = run(find, timeout_s=_STEP_TIMEOUT_S).stdout
    prototype = target.with_suffix(".proto")
    prototype.write_text(xfs_prototype(listing, tree.name))
    # What newer xfsprogs add by default, bookworm's GRUB and bullseye's kernel cannot read.
    argv = [*as_root, "mkfs.xfs", "-q", "-f", "-L", label, "-i", "nrext64=0"]
    # Names in the protofile begin at the tree's parent, whose own path may hold blanks.
    run([*argv, "-p", prototype, target], cwd=tree.parent, timeout_s=_STEP_TIMEOUT_S)


def xfs_prototype(listing: str, folder: str) -> str:
    """Return the protofile (``man mkfs.xfs``) of a listing made by find.

    Parameters
    ----------
    listing : str
        Depth first; per entry depth, type, octal mode, user, group, path, link target,
        with tabs between and NUL behind.
    folder : str
        What leads to the listed paths.
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


def remove_tree(folder: Path, as_root: list[str]) -> None:
    """Remove ``folder`` with all that it holds, whoever owns it."""
    run([*as_root, "rm", "-rf", "--one-file-system", folder], timeout_s=_STEP_TIMEOUT_S)
