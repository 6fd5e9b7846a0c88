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
_UEFI_AMD64 = (
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    "/usr/share/qemu/edk2-x86_64-code.fd",
    "/opt/homebrew/share/qemu/edk2-x86_64-code.fd",
    "/usr/local/share/qemu/edk2-x86_64-code.fd",
)
_UEFI_ARM64 = (
    "/usr/share/AAVMF/AAVMF_CODE.fd",
    "/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw",
    "/opt/homebrew/share/qemu/edk2-aarch64-code.fd",
    "/usr/local/share/qemu/edk2-aarch64-code.fd",
)

#: Job -> the programs it needs (a tuple holds files of which one suffices).
JOBS: dict[str, tuple[str | tuple[str, ...], ...]] = {
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
        _UEFI_AMD64,
        _UEFI_ARM64,
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

#: What is no program of :data:`cloudlab.tools.PACKAGES` -> Debian's package.
_APT: dict[str, str] = {
    # The Python that runs this is the one that lacks it, and a host may have several.
    "ensurepip": f"python3.{sys.version_info.minor}-venv",
    "newuidmap": "uidmap",
    "/usr/lib/grub/i386-pc/boot.img": "grub-pc-bin",
    "/usr/lib/grub/x86_64-efi/normal.mod": "grub-efi-amd64-bin",
    "/usr/lib/grub/arm64-efi/normal.mod": "grub-efi-arm64-bin",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "isoinfo": "genisoimage",
    "xorriso": "xorriso",
    "curl": "curl",
    "gpg": "gnupg",
    "openssl": "openssl",
    "sgdisk": "gdisk",
    "mkfs.ntfs": "ntfs-3g",
    "mkfs.exfat": "exfatprogs",
    "mkfs.f2fs": "f2fs-tools",
    "mkfs.erofs": "erofs-utils",
    "mksquashfs": "squashfs-tools",
    "mkudffs": "udftools",
    "parted": "parted",
    "cryptsetup": "cryptsetup-bin",
    "pvcreate": "lvm2",
    "busybox": "busybox",
    "shellcheck": "shellcheck",
    "lsblk": "util-linux",
    "blkid": "util-linux",
    "dumpe2fs": "e2fsprogs",
    "ip": "iproute2",
    "mount": "mount",
    "growpart": "cloud-guest-utils",
    "chromium": "chromium",
    "bsdtar": "libarchive-tools",
    "dash": "dash",
    _UEFI_AMD64[0]: "ovmf",
    _UEFI_ARM64[0]: "qemu-efi-aarch64",
}


def missing(jobs: Sequence[str]) -> list[str]:
    """Return what the jobs need and this host lacks (of alternatives, the first)."""
    wanted = [need for job in jobs for need in JOBS[job]]
    return [
        need if isinstance(need, str) else need[0]
        for need in wanted
        if not any(_is_there(one) for one in ((need,) if isinstance(need, str) else need))
    ]


def _is_there(need: str) -> bool:
    if need == "ensurepip":
        return importlib.util.find_spec("ensurepip") is not None
    return Path(need).exists() if need.startswith("/") else tools.which(need) is not None


def packages_for(needs: Sequence[str], manager: str) -> tuple[list[str], list[str]]:
    """Return the packages that hold ``needs``, and those needs that no known package holds."""
    packages, unknown = set(), []
    for need in needs:
        package = tools.PACKAGES.get(need, {}).get(manager)
        if package is None and manager == "apt":
            package = _APT.get(need)
        if package is None:
            unknown.append(need)
        else:
            packages.add(package)
    return sorted(packages), unknown


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
