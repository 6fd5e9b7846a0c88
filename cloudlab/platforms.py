"""What Linux, macOS and WSL do differently; every other module asks here.

Run by its path with a process number and a program, it becomes that program, bound to the process
(:func:`bound_argv`).  Therefore it imports nothing of the package and little else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
from collections.abc import Sequence
from typing import Any

#: ``linux`` (also in WSL), ``darwin``, or another of Python's names.
SYSTEM = sys.platform

_KVM = "/dev/kvm"
_PR_SET_PDEATHSIG = 1

#: How Windows drives are mounted in WSL.
_WINDOWS_FILESYSTEMS = frozenset({"9p", "drvfs", "virtiofs"})

#: Bytes of a Unix socket's path, with the zero behind it: 104 on macOS, 108 on Linux.
_SOCKET_PATH_BYTES = 104


def is_linux() -> bool:
    """Return whether this is Linux: seccomp, passt, Debian's tools, QEMU as another user."""
    return SYSTEM == "linux"


def is_macos() -> bool:
    """Return whether this is macOS."""
    return SYSTEM == "darwin"


def wsl() -> str:
    """Return ``WSL1`` or ``WSL2``, or nothing where this is not Linux on Windows."""
    release = _read("/proc/sys/kernel/osrelease") if is_linux() else ""
    if "microsoft" not in release.lower():
        return ""
    return "WSL1" if "Microsoft" in release else "WSL2"


def windows_drive(folder: str) -> str:
    """Return where the Windows drive is mounted that holds ``folder`` in WSL; empty for others."""
    lines = _read("/proc/self/mounts").splitlines()
    mounts = [[one.replace("\\040", " ") for one in line.split()[1:3]] for line in lines]
    holding = [one for one in mounts if f"{folder}/".startswith(f"{one[0].rstrip('/')}/")]
    point, kind = max(holding, key=lambda one: len(one[0]), default=("", ""))
    return point if wsl() and kind in _WINDOWS_FILESYSTEMS else ""


def in_conda() -> bool:
    """Return whether this Python comes from conda."""
    return os.path.isdir(os.path.join(sys.base_prefix, "conda-meta"))  # noqa: PTH112, PTH118


def is_translated() -> bool:
    """Return whether this Python runs under Rosetta, where Apple silicon appears to be Intel."""
    return is_macos() and _sysctl("sysctl.proc_translated") == "1"


def describe() -> str:
    """Return system, processor and Python in a line, for people."""
    import platform

    system = platform.system()
    if is_macos():
        system = f"macOS {platform.mac_ver()[0]}"
    with contextlib.suppress(OSError, KeyError):
        system = platform.freedesktop_os_release()["PRETTY_NAME"] if is_linux() else system
    processor = f"{platform.machine()}{' under Rosetta' if is_translated() else ''}"
    python = f"Python {platform.python_version()}{' of conda' if in_conda() else ''}"
    return f"{system}{f' in {wsl()}' if wsl() else ''}, {processor}, {python}"


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def boot_id() -> str:
    """Return what changes with each boot of this host."""
    if is_macos():
        return _sysctl("kern.bootsessionuuid") or "unknown"
    return _read("/proc/sys/kernel/random/boot_id").strip() or "unknown"


def process_space() -> str:
    """Return a word that processes share that can look up one another by their numbers.

    It differs between hosts, between boots of one, and between containers.
    """
    import hashlib
    import platform

    # Not every container has a boot's name; its host name differs from that of others.
    parts = [platform.node() if boot_id() == "unknown" else boot_id()]
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def hardware_accelerator() -> tuple[str | None, str]:
    """Return QEMU's name for this system's hypervisor; or None, and why there is none to try."""
    if is_macos():
        lacking = "this Mac has no Hypervisor framework, as in most virtual machines"
        return (None, lacking) if _sysctl("kern.hv_support") == "0" else ("hvf", "")
    if not is_linux():
        return None, f"cloudlab knows no accelerator for {SYSTEM}"
    if not os.path.exists(_KVM):  # noqa: PTH110
        if wsl():
            return None, (
                "there is no /dev/kvm in WSL; WSL2 on Windows 11 has it with nestedVirtualization="
                "true under [wsl2] in %UserProfile%\\.wslconfig, after: wsl --shutdown"
            )
        return None, (
            "there is no /dev/kvm: virtualisation is off in the firmware settings, or this is "
            "a virtual machine without nested virtualisation"
        )
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return None, (
            "you may not open /dev/kvm; join its group with: sudo usermod -aG kvm $USER, "
            "then log in again and run: cloudlab doctor --refresh"
        )
    return "kvm", ""


def certificates_hint() -> str:
    """Return where else certificates may be missing, as the last sentence of a hint."""
    if not is_macos():
        return ""
    return " Python from python.org has no authorities until its Install Certificates.command ran."


def socket_folder(name: str) -> str | None:
    """Return in which folder a Unix socket's path ending in ``name`` is short enough.

    None means the usual folder for temporary files.
    """
    import tempfile

    path = os.fsencode(os.path.join(tempfile.gettempdir(), name))  # noqa: PTH118
    return None if len(path) < _SOCKET_PATH_BYTES else "/tmp"  # noqa: S108


def bound_argv(words: Sequence[str]) -> list[str]:
    """Return an argument list whose program dies with this process, even if that is killed.

    On Linux the kernel also ends the program with the thread that starts it.

    Parameters
    ----------
    words : sequence of str
        The program's path and its arguments.
    """
    # A process in between, because one with several threads should do nothing between its fork
    # and its exec.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *words]


def die_with_parent() -> None:
    """Let this process, and the program that it becomes, be killed when its parent ends.

    Linux has a call for that; a later change of user undoes it.  On macOS a child of this process
    waits for the end of either.
    """
    if is_linux():
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    kernel: Any = select
    parent, program = os.getppid(), os.getpid()
    if not hasattr(kernel, "kqueue") or os.fork():
        return
    try:
        # Whoever reads what the program writes waits for the last holder of its pipes.
        for name in os.listdir("/dev/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                os.close(int(name))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        ends = [
            kernel.kevent(pid, kernel.KQ_FILTER_PROC, kernel.KQ_EV_ADD, kernel.KQ_NOTE_EXIT)
            for pid in (parent, program)
        ]
        with contextlib.suppress(ProcessLookupError):  # one of them has ended already
            kernel.kqueue().control(ends, 1)
        if os.getppid() == program:
            os.kill(program, signal.SIGKILL)
    finally:
        os._exit(0)


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as stream:  # noqa: PTH123
        return stream.read()
    return ""


def _sysctl(name: str) -> str:
    """Return one of macOS's kernel variables; empty if there is none of that name."""
    import subprocess

    argv = ["/usr/sbin/sysctl", "-n", name]
    with contextlib.suppress(OSError):
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _main(owner: str, *words: str) -> None:
    die_with_parent()
    try:
        if os.getppid() == int(owner):
            os.execv(words[0], words)  # noqa: S606
    except OSError as error:
        sys.exit(f"{words[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
