"""Outside programs: finding them, saying how to install them, running them briefly.

Long-lived QEMU belongs to :mod:`cloudlab.machine`; everything else that cloudlab
starts goes through :func:`run`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from cloudlab import platforms
from cloudlab.errors import (
    ToolError,
    ToolFailedError,
    ToolNotFoundError,
    ToolTimeoutError,
    UsageError,
)

#: How long a program that was told to end may take before it is killed, in seconds.
GRACE_S = 5.0

#: Folders that hold system tools although an ordinary user's PATH may lack them.
_SYSTEM_FOLDERS = (
    "/usr/sbin",
    "/sbin",
    "/usr/local/sbin",
    # Of Homebrew and MacPorts; what launchd or a desktop starts lacks them.
    "/usr/local/bin",
    "/opt/homebrew/bin",
    "/opt/homebrew/sbin",
    "/opt/local/bin",
    "/opt/homebrew/opt/e2fsprogs/sbin",
    "/usr/local/opt/e2fsprogs/sbin",
)

#: What installs packages, by package manager, in the order of precedence.
_INSTALL = {
    "apt": ("apt-get", "install", "-y", "--no-install-recommends"),
    "dnf": ("dnf", "install", "-y"),
    "zypper": ("zypper", "install", "-y"),
    "pacman": ("pacman", "-S", "--needed"),
    "apk": ("apk", "add"),
    "brew": ("brew", "install"),
}

#: Where descriptors of firmware lie, by precedence.
_FIRMWARE_FOLDERS = (
    "/etc/qemu/firmware",
    "/usr/share/qemu/firmware",
    "/opt/homebrew/share/qemu/firmware",
    "/usr/local/share/qemu/firmware",
    "/opt/local/share/qemu/firmware",
)

#: What programs and people call the architectures of our images -> what Debian calls them.
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
#: Debian's names of these -> the kernel's and QEMU's.
CPUS = {"amd64": "x86_64", "arm64": "aarch64"}


class Program(NamedTuple):
    """A row of :file:`programs.txt`: the jobs that need it, and its package by package manager."""

    jobs: list[str]
    packages: dict[str, str]


def _read_programs() -> dict[str, Program]:
    # The Python that runs this is the one that lacks ensurepip, and a host may have several.
    python = f"python3.{sys.version_info.minor}"
    text = Path(__file__).with_name("programs.txt").read_text("utf-8").format(python=python)
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {
        name: Program(
            jobs.split(","),
            {manager: p for manager, p in zip(_INSTALL, packages, strict=True) if p != "-"},
        )
        for name, jobs, *packages in rows
    }


#: Program, file by its absolute path, or UEFI firmware by ``uefi-ARCH`` -> who needs and has it.
PROGRAMS = _read_programs()


@dataclass(frozen=True)
class Deadline:
    """A point in monotonic time, made once per wait and handed down.

    Parameters
    ----------
    at_s : float
        Value of :func:`time.monotonic` at which time is up.
    """

    at_s: float

    @classmethod
    def after(cls, timeout_s: float) -> Deadline:
        """Return the deadline ``timeout_s`` seconds from now."""
        return cls(time.monotonic() + timeout_s)

    @property
    def left_s(self) -> float:
        """Seconds that are left, never below 0."""
        return max(0.0, self.at_s - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether time is up."""
        return self.left_s == 0.0


def now() -> str:
    """Return the present moment as ISO 8601 in UTC, to the second, for records and people."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def host_arch() -> str:
    """Return this host's architecture in Debian's words; one we have no images for, in its own."""
    machine = "arm64" if platforms.is_translated() else platform.machine().lower()
    return ARCHITECTURES.get(machine, machine)


def check_arch(arch: str | None) -> str:
    """Return ``amd64`` or ``arm64`` for either's usual names; this host's for None."""
    if arch is None:
        return host_arch()
    if str(arch).lower() not in ARCHITECTURES:
        raise UsageError(
            f"The architecture {arch!r} is not supported.", hint="Choose amd64 or arm64."
        )
    return ARCHITECTURES[arch.lower()]


def package_manager() -> str | None:
    """Return which package manager this host has, of those that :file:`programs.txt` knows."""
    names = ["brew"] if platforms.is_macos() else _INSTALL
    return next((name for name in names if which(_INSTALL[name][0])), None)


def install_argv(packages: Sequence[str], manager: str | None) -> list[str] | None:
    """Return the command that installs ``packages``, with sudo where it is needed.

    None without a package manager.
    """
    if manager is None:
        return None
    sudo = ["sudo"] if manager != "brew" and os.geteuid() != 0 else []
    return [*sudo, *_INSTALL[manager], *packages]


def packages_for(programs: Iterable[str], manager: str | None) -> tuple[list[str], list[str]]:
    """Return the packages that have ``programs``, and those programs without a known package."""
    known = {name: PROGRAMS[name].packages for name in programs if name in PROGRAMS}
    found = {name: known.get(name, {}).get(manager or "") for name in programs}
    packages = {package for package in found.values() if package}
    return sorted(packages), [name for name, package in found.items() if not package]


def install_hint(*programs: str) -> str:
    """Return what to do to install ``programs`` on this host: the command, if it is known."""
    manager = package_manager()
    needs_brew = platforms.is_macos() and manager is None
    packages, _ = packages_for(programs, "brew" if needs_brew else manager)
    argv = install_argv(packages, "brew" if needs_brew else manager) if packages else None
    hint = f"Install {', '.join(programs)} with your system's package manager."
    if argv is not None:
        start = "Install Homebrew (https://brew.sh), then run" if needs_brew else "Install it with"
        hint = f"{start}: {' '.join(argv)}"
    if platforms.in_conda() and any(name.startswith("qemu-") for name in programs):
        hint = f"conda-forge has no QEMU that runs machines; use the system's. {hint}"
    return hint


def which(program: str) -> Path | None:
    """Return the path of ``program``, looking in the system folders too, or None."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS])
    found = shutil.which(program, path=path)
    return Path(found) if found else None


def find_tool(program: str) -> Path:
    """Return the path of ``program``.

    Raises
    ------
    ToolNotFoundError
        With the command that installs it on this host.
    """
    found = which(program)
    if found is None:
        raise ToolNotFoundError(
            f"The program {program} was not found on this machine.", hint=install_hint(program)
        )
    return found


def find_uefi(arch: str) -> tuple[Path, Path] | None:
    """Return UEFI firmware for ``arch`` and the template of its variables, or None.

    Each firmware comes with a descriptor (QEMU's ``docs/interop/firmware.json``); of those that
    fit, the first by name is meant to be preferred.  One with Secure Boot is not taken: it
    starts signed boot loaders only, or needs a machine that is made for it.
    """
    cpu = CPUS.get(arch)
    found: dict[str, Path] = {}
    for folder in _FIRMWARE_FOLDERS:
        for path in Path(folder).glob("*.json"):
            found.setdefault(path.name, path)
    for _, path in sorted(found.items()):
        try:
            about = json.loads(path.read_bytes())
            machines = [
                machine
                for target in about["targets"]
                if target["architecture"] == cpu
                for machine in target["machines"]
            ]
            flash = [about["mapping"][part] for part in ("executable", "nvram-template")]
            files = [Path(one["filename"]) for one in flash]
            is_raw = all(one["format"] == "raw" for one in flash)
            is_secure = "secure-boot" in about["features"]
            is_ours = any(machine.startswith(("pc-q35-", "virt-")) for machine in machines)
            fits = is_ours and is_raw and not is_secure and all(file.exists() for file in files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # of a firmware that is loaded in another way, or of a future kind
        if fits:
            return files[0], files[1]
    return None


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with a fixed locale and a PATH that finds system tools."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("LC_")}
    env.update(LC_ALL="C", LANG="C", LANGUAGE="C")
    env["PATH"] = os.pathsep.join([env.get("PATH", os.defpath), *_SYSTEM_FOLDERS])
    env.update(extra or {})
    return env


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float = 60.0,
    check: bool = True,
    stdin: str | bytes | BinaryIO | None = None,
    grace_s: float | None = None,
    bound: bool = False,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it printed.

    The program gets a fixed locale, an empty standard input unless ``stdin`` is
    given, and a process group of its own that is ended as a whole (first asked,
    after :data:`GRACE_S` killed, then reaped) when time is up or when anything,
    Ctrl-C included, takes this call off its course.

    Parameters
    ----------
    argv : sequence of str or path
        The program (found by :func:`find_tool` unless it has a slash) and its arguments.
    timeout_s : float
        Seconds it may take.
    check : bool
        Whether an exit code other than 0 is an error.
    stdin : str, bytes or open file, optional
        What it reads.
    grace_s : float, optional
        Instead of :data:`GRACE_S`; 0 kills at once.
    bound : bool
        Whether it dies with this process even if that is killed.
    cwd : Path, optional
        Where it runs.
    env : mapping, optional
        Environment variables on top of :func:`clean_environment`.
    on_line : callable, optional
        Called from another thread with each line of standard error, as it comes.

    Raises
    ------
    ToolNotFoundError, ToolFailedError, ToolTimeoutError
    ToolError
        If the program is there but cannot be started.
    """
    words = [os.fspath(word) for word in argv]
    if "/" not in words[0]:
        words[0] = str(find_tool(words[0]))
    data = stdin.encode() if isinstance(stdin, str) else stdin
    source = subprocess.PIPE if isinstance(data, bytes) else data or subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            platforms.bound_argv(words) if bound else words,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=clean_environment(env),
            start_new_session=True,
        )
    except OSError as error:
        problem = f"{words[0]} could not be started: {error.strerror}"
        if isinstance(error, FileNotFoundError) and error.filename == words[0]:
            hint = install_hint(Path(words[0]).name)
            raise ToolNotFoundError(f"{problem}.", hint=hint) from error
        about = f" ({error.filename})" if error.filename not in {None, words[0]} else ""
        raise ToolError(
            f"{problem}{about}.", hint=f"The command was: {shlex.join(words)}"
        ) from error
    try:
        text = data if isinstance(data, bytes) else None
        stdout, stderr = _collect(process, text, timeout_s, on_line)
    except subprocess.TimeoutExpired:
        _end_group(process, grace_s)
        raise ToolTimeoutError(
            f"{Path(words[0]).name} did not end within {timeout_s:g} s and was stopped.",
            hint=f"The command was: {shlex.join(words)}",
        ) from None
    except BaseException:
        _end_group(process, grace_s)
        raise
    if check and process.returncode != 0:
        output = (stderr.strip() or stdout.strip())[-2000:]
        raise ToolFailedError(
            f"{Path(words[0]).name} failed with exit code {process.returncode}: {output}",
            returncode=process.returncode,
            output=output,
            hint=f"The command was: {shlex.join(words)}",
        )
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


def _collect(
    process: subprocess.Popen[bytes],
    data: bytes | None,
    timeout_s: float,
    on_line: Callable[[str], None] | None,
) -> tuple[str, str]:
    if on_line is None:
        out, err = process.communicate(data, timeout=timeout_s)
        return out.decode(errors="replace"), err.decode(errors="replace")
    assert process.stderr is not None
    kept: list[str] = []
    reader = threading.Thread(target=_tee, args=(process.stderr, kept, on_line), daemon=True)
    # communicate() must not read the stream that the thread reads.
    process.stderr = None
    reader.start()
    out, _ = process.communicate(data, timeout=timeout_s)
    reader.join(timeout=GRACE_S)
    return out.decode(errors="replace"), "".join(kept)


def _tee(stream: IO[bytes], kept: list[str], on_line: Callable[[str], None]) -> None:
    with stream:
        for raw in stream:
            line = raw.decode(errors="replace")
            kept.append(line)
            on_line(line.rstrip("\r\n"))


def _end_group(process: subprocess.Popen[bytes], grace_s: float | None) -> None:
    grace_s = GRACE_S if grace_s is None else grace_s
    if grace_s:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace_s)
    # Where the group's leader is gone, its children, if it left any, go too.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
