"""What must be installed on this host for which job, and installing it where that is allowed.

Run as ``python -m cloudlab.prerequisites JOB...`` by the Makefile; needs nothing outside the
standard library, because it also installs what a virtual environment needs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cloudlab import tools

_ARM = tools.host_arch() == "arm64"
_QEMU = "qemu-system-aarch64" if _ARM else "qemu-system-x86_64"
_GRUB_FILES = (
    ("/usr/lib/grub/arm64-efi/normal.mod",)
    if _ARM
    else ("/usr/lib/grub/i386-pc/boot.img", "/usr/lib/grub/x86_64-efi/normal.mod")
)
# An ordinary user builds in a user namespace, with several user numbers.
_NAMESPACE = () if os.geteuid() == 0 else ("newuidmap",)

#: Job -> what it needs, by the names of :data:`cloudlab.tools.PACKAGES`.
JOBS: dict[str, tuple[str, ...]] = {
    "venv": ("ensurepip",),
    "run": (_QEMU, "qemu-img", "qemu-nbd", "gpgv"),
    "build": (
        "mmdebstrap",
        "mke2fs",
        "mkfs.vfat",
        "mcopy",
        "sfdisk",
        "grub-mkimage",
        *_GRUB_FILES,
        *_NAMESPACE,
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    ),
    # Guests of both architectures start in tests, whatever the host's own is.
    "test": (
        "qemu-system-x86_64",
        "qemu-system-aarch64",
        "uefi-amd64",
        "uefi-arm64",
        "isoinfo",
        "xorriso",
        "curl",
        "gpg",
        "openssl",
        "sgdisk",
        "mkfs.btrfs",
        "mkfs.xfs",
        "mkfs.ntfs",
        "mkfs.exfat",
        "mkfs.f2fs",
        "mkfs.erofs",
        "mksquashfs",
        "mkudffs",
        "parted",
        "cryptsetup",
        "pvcreate",
        "busybox",
        "shellcheck",
        "lsblk",
        "growpart",
        "chromium",
        "bsdtar",
        "dash",
        "blkid",
        "dumpe2fs",
        "ip",
        "mount",
    ),
}


def missing(jobs: Sequence[str]) -> list[str]:
    """Return what the jobs need and this host lacks."""
    return [need for job in jobs for need in JOBS[job] if not _is_there(need)]


def _is_there(need: str) -> bool:
    if need == "ensurepip":
        return importlib.util.find_spec("ensurepip") is not None
    if need.startswith("uefi-"):
        return tools.find_uefi(need.removeprefix("uefi-")) is not None
    return Path(need).exists() if need.startswith("/") else tools.which(need) is not None


def packages_for(needs: Sequence[str], manager: str) -> tuple[list[str], list[str]]:
    """Return the packages that hold ``needs``, and those needs that no known package holds."""
    found = {need: tools.PACKAGES.get(need, {}).get(manager) for need in needs}
    packages = sorted({package for package in found.values() if package is not None})
    return packages, [need for need, package in found.items() if package is None]


def main(jobs: Sequence[str]) -> int:
    """Install what the jobs need; return an exit code."""
    needs = missing(jobs)
    if not needs:
        return 0
    manager = tools.package_manager()
    packages, unknown = packages_for(needs, manager or "")
    argv = tools.install_argv(packages, manager) if packages else None
    if unknown:
        print(f"No known package provides: {', '.join(unknown)}", file=sys.stderr)
        if "build" in jobs and sys.platform != "linux":
            print("Images are built on Debian or Ubuntu; elsewhere fetch one.", file=sys.stderr)
    if argv is None:
        return 0 if _can_go_on(unknown) else 1
    can_be_root = os.geteuid() == 0 or shutil.which("sudo") is not None
    if manager == "apt" and can_be_root:
        print(f"Installing: {' '.join(packages)}", flush=True)
        update = [*argv[: argv.index("apt-get")], "apt-get", "update", "-qq"]
        # Old package lists name packages that the mirror no longer has.
        subprocess.run(update, check=False)
        if subprocess.run(argv, check=False, env=_quiet()).returncode == 0:
            return 0
    print(f"cloudlab needs packages that are not installed: {' '.join(packages)}", file=sys.stderr)
    if manager != "brew" and not can_be_root:
        argv.remove("sudo")
        print(f"As root, run:\n  {' '.join(argv)}", file=sys.stderr)
    else:
        print(f"Install them with:\n  {' '.join(argv)}", file=sys.stderr)
    return 1


def _can_go_on(unknown: Sequence[str]) -> bool:
    # Only Debian has what building needs; a published image does as well.
    return all(need in JOBS["build"] or need in JOBS["test"] for need in unknown)


def _quiet() -> dict[str, str]:
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
