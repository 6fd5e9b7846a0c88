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

from cloudlab import platforms, tools


def _jobs() -> dict[str, list[str]]:
    arch = "arm64" if tools.host_arch() == "arm64" else "amd64"
    # An ordinary user builds in a user namespace, with several user numbers.
    conditions = {"", arch} | ({"user"} if os.geteuid() else set())
    found: dict[str, list[str]] = {}
    for name, program in tools.PROGRAMS.items():
        for entry in program.jobs:
            job, _, condition = entry.partition("/")
            if job != "-" and condition in conditions:
                found.setdefault(job, []).append(name)
    return found


#: Job -> what it needs, by the names of :data:`cloudlab.tools.PROGRAMS`.
JOBS = _jobs()


def missing(jobs: Sequence[str]) -> list[str]:
    """Return what the jobs need and this host lacks."""
    return [need for job in jobs for need in JOBS[job] if not _is_there(need)]


def _is_there(need: str) -> bool:
    if need == "ensurepip":
        return importlib.util.find_spec("ensurepip") is not None
    if need.startswith("uefi-"):
        return tools.find_uefi(need.removeprefix("uefi-")) is not None
    return Path(need).exists() if need.startswith("/") else tools.which(need) is not None


def main(jobs: Sequence[str]) -> int:
    """Install what the jobs need; return an exit code."""
    manager = tools.package_manager()
    if "build" in jobs and tools.packages_for(missing(["build"]), manager)[1]:
        print("Images are built on Debian or Ubuntu; elsewhere fetch one.", file=sys.stderr)
        jobs = [job for job in jobs if job != "build"]
    needs = missing(jobs)
    if not needs:
        return 0
    packages, unknown = tools.packages_for(needs, manager)
    argv = tools.install_argv(packages, manager) if packages else None
    if not manager and platforms.is_macos():
        print(tools.install_hint(*needs), file=sys.stderr)
        return 1
    if unknown:
        print(f"No known package provides: {', '.join(unknown)}", file=sys.stderr)
    if argv is None:
        # Only Debian has all that the tests need.
        return 0 if all(need in JOBS["test"] for need in unknown) else 1
    can_be_root = os.geteuid() == 0 or shutil.which("sudo") is not None
    if manager == "apt" and can_be_root:
        print(f"Installing: {' '.join(packages)}", flush=True)
        update = [*argv[: argv.index("apt-get")], "apt-get", "update", "-qq"]
        # Old package lists name packages that the mirror no longer has.
        subprocess.run(update, check=False)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run(argv, check=False, env=quiet).returncode == 0:
            return 0
    print(f"cloudlab needs packages that are not installed: {' '.join(packages)}", file=sys.stderr)
    if manager != "brew" and not can_be_root:
        argv.remove("sudo")
        print(f"As root, run:\n  {' '.join(argv)}", file=sys.stderr)
    else:
        print(f"Install them with:\n  {' '.join(argv)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
