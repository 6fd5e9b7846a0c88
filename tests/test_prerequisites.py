"""What is missing on a host, and the command that installs it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cloudlab import platforms, prerequisites, tools

REPOSITORY = Path(__file__).parent.parent

#: Makes root an ordinary user, but for the right to reach this Python wherever it lies.
AS_USER = ["setpriv", "--reuid=65534", *(f"--{kind}-caps=+dac_read_search,+dac_override"
           for kind in ("inh", "ambient"))] if os.geteuid() == 0 else []  # fmt: skip


@pytest.fixture
def open_folder():
    """A folder that an ordinary user may enter, too."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def bare_host(monkeypatch):
    """A host without any program of ours."""
    monkeypatch.setattr(tools, "which", lambda program: None)
    monkeypatch.setattr(prerequisites, "_is_there", lambda need: False)


@pytest.mark.parametrize("job", prerequisites.JOBS)
def test_debian_has_a_package_for_every_need(bare_host, job):
    packages, unknown = tools.packages_for(prerequisites.missing([job]), "apt")
    assert packages
    assert unknown == []


def test_every_package_exists_in_debian():
    """Asks apt itself, so that a misspelt package name does not wait for a fresh machine."""
    needs = [need for job in prerequisites.JOBS.values() for need in job]
    if sys.base_prefix != "/usr":
        # A Python that is not Debian's comes with it, and Debian may have none of its version.
        needs.remove("ensurepip")
    packages = sorted(tools.packages_for(needs, "apt")[0])
    # Not apt-cache show, which does not know packages that another one provides.
    install = ["apt-get", "install", "--simulate", "--no-install-recommends", *packages]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_root_and_sudo_the_exact_command_is_named(bare_host, monkeypatch, capsys):
    monkeypatch.setattr(tools, "package_manager", lambda: "apt")
    monkeypatch.setattr(prerequisites.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(prerequisites.shutil, "which", lambda program: None)
    assert prerequisites.main(["run"]) == 1
    said = capsys.readouterr().err
    assert "As root, run:\n  apt-get install -y --no-install-recommends" in said
    assert "qemu-utils" in said


def test_make_demo_names_what_is_missing_before_it_sets_anything_up(open_folder):
    """Run it as an ordinary user whose PATH has make, apt-get and Python, but neither sudo nor QEMU."""
    for name in ("Makefile", "pyproject.toml", "cloudlab"):
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, open_folder / name)
    programs = open_folder / "bin"
    programs.mkdir()
    for name in ("make", "sh", "apt-get", "setpriv"):
        (programs / name).symlink_to(shutil.which(name))
    # A shell starts what "command" precedes; make itself would look at the mode's bits only.
    python = f"command {Path(sys.executable).resolve()}"
    ran = subprocess.run(
        [*AS_USER, "make", "demo", f"PYTHON={python}"],
        cwd=open_folder,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "As root, run:" in ran.stderr, ran.stdout + ran.stderr
    command = re.search(r"As root, run:\n  apt-get install (.*)", ran.stderr)[1].split()
    assert {"qemu-system-x86", "qemu-utils", "mmdebstrap"} <= set(command)
    assert not (open_folder / ".venv").exists()


def test_other_systems_are_told_their_command(bare_host, monkeypatch, capsys):
    monkeypatch.setattr(tools, "package_manager", lambda: "brew")
    assert prerequisites.main(["run"]) == 1
    said = capsys.readouterr().err
    assert "brew install" in said
    assert "qemu" in said.partition("brew install")[2]


def test_a_mac_without_homebrew_is_told_to_install_it(bare_host, monkeypatch, capsys):
    monkeypatch.setattr(platforms, "is_macos", lambda: True)
    assert prerequisites.main(["run"]) == 1
    said = capsys.readouterr().err
    assert "https://brew.sh" in said
    assert "brew install" in said


@pytest.mark.parametrize("manager", ["dnf", "zypper", "pacman", "apk", "brew"])
def test_a_system_that_cannot_build_images_needs_nothing_for_it(
    bare_host, monkeypatch, capsys, manager
):
    monkeypatch.setattr(tools, "package_manager", lambda: manager)
    assert prerequisites.main(["run", "build"]) == 1
    said = capsys.readouterr().err
    assert "Images are built on Debian or Ubuntu" in said
    assert "qemu-img" in said or manager == "brew"
    assert not {"mtools", "e2fsprogs", "dosfstools"} & set(said.split())
    # Once the rest is installed, 'make demo' goes on, and fetches an image.
    monkeypatch.setattr(
        prerequisites, "_is_there", lambda need: need not in prerequisites.JOBS["build"]
    )
    assert prerequisites.main(["run", "build"]) == 0


def test_nothing_is_done_where_nothing_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(prerequisites, "_is_there", lambda need: True)
    monkeypatch.setattr(prerequisites.subprocess, "run", None)
    assert prerequisites.main(list(prerequisites.JOBS)) == 0
    assert capsys.readouterr().out == ""


def test_it_runs_without_anything_installed():
    """The Makefile calls it before the virtual environment exists."""
    code = "import sys; sys.path.insert(0, '.'); import cloudlab.prerequisites as p; print(p.JOBS)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert "qemu-img" in done.stdout
