"""Finding UEFI firmware for a machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from cloudlab.errors import LaunchError
from cloudlab.machine.config import UefiFiles
from cloudlab.tools import install_argv, package_manager

#: Where distributions and Homebrew put the code and the empty variables, by architecture.
_PLACES: dict[str, tuple[tuple[str, str], ...]] = {
    "amd64": (
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
        ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
        ("/opt/homebrew/share/qemu/edk2-x86_64-code.fd", "/opt/homebrew/share/qemu/edk2-i386-vars.fd"),
        ("/usr/local/share/qemu/edk2-x86_64-code.fd", "/usr/local/share/qemu/edk2-i386-vars.fd"),
    ),
    "arm64": (
        ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
        ("/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"),
        ("/usr/share/qemu/aavmf-aarch64-code.bin", "/usr/share/qemu/aavmf-aarch64-vars.bin"),
        ("/opt/homebrew/share/qemu/edk2-aarch64-code.fd", "/opt/homebrew/share/qemu/edk2-arm-vars.fd"),
        ("/usr/local/share/qemu/edk2-aarch64-code.fd", "/usr/local/share/qemu/edk2-arm-vars.fd"),
    ),
}  # fmt: skip

_PACKAGES = {
    "amd64": {"apt": "ovmf", "dnf": "edk2-ovmf", "zypper": "qemu-ovmf-x86_64", "brew": "qemu"},
    "arm64": {"apt": "qemu-efi-aarch64", "dnf": "edk2-aarch64", "zypper": "qemu-uefi-aarch64", "brew": "qemu"},
}  # fmt: skip


def uefi_files(arch: str, variables: Path) -> UefiFiles:
    """Return the UEFI firmware for ``arch``, its variables freshly copied to ``variables``.

    Raises
    ------
    LaunchError
        With the command that installs the firmware.
    """
    for code, template in _PLACES.get(arch, ()):
        if Path(code).exists() and Path(template).exists():
            shutil.copyfile(template, variables)
            variables.chmod(0o600)
            return UefiFiles(Path(code), variables)
    manager = package_manager() or ""
    package = _PACKAGES.get(arch, {}).get(manager)
    argv = install_argv([package], manager) if package else None
    raise LaunchError(
        f"No UEFI firmware for {arch} was found on this machine; nothing was started.",
        hint=f"Install it with: {' '.join(argv)}" if argv else "Install OVMF (edk2).",
    )
