"""The course on the learner's disk, and in the wheel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from browser import PATIENCE_MS, chromium, wait_for
from playwright.sync_api import expect

from cloudlab.cli import main
from cloudlab.course import copy_course, course_source
from cloudlab.errors import CloudlabError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def source(tmp_path) -> Path:
    """A course of two files."""
    folder = tmp_path / "source"
    (folder / "solutions").mkdir(parents=True)
    (folder / "00-start.ipynb").write_text("first")
    (folder / "solutions" / "01.ipynb").write_text("solution")
    return folder


def test_the_clone_has_the_course():
    assert course_source() == ROOT / "notebooks"


def test_copies_everything_once(source, tmp_path):
    first = copy_course(tmp_path / "mine", source)
    assert first.written == ("00-start.ipynb", "solutions/01.ipynb")
    assert (tmp_path / "mine/solutions/01.ipynb").read_text() == "solution"
    again = copy_course(tmp_path / "mine", source)
    assert (again.written, again.kept) == ((), ())


def test_never_overwrites_work(source, tmp_path):
    mine = tmp_path / "mine"
    copy_course(mine, source)
    (mine / "00-start.ipynb").write_text("my work")
    (mine / "notes.txt").write_text("my notes")
    assert copy_course(mine, source).written == ()
    (source / "00-start.ipynb").write_text("new version")
    news = copy_course(mine, source)
    assert (news.written, news.kept) == ((), ("00-start.ipynb",))
    assert (mine / "00-start.ipynb").read_text() == "my work"
    assert (mine / "notes.txt").read_text() == "my notes"
    assert copy_course(mine, source).kept == (), "said once"


def test_updates_what_was_not_touched(source, tmp_path):
    mine = tmp_path / "mine"
    copy_course(mine, source)
    (source / "00-start.ipynb").write_text("new version")
    assert copy_course(mine, source).written == ("00-start.ipynb",)
    assert (mine / "00-start.ipynb").read_text() == "new version"


def test_a_file_that_was_there_before_is_kept(source, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "00-start.ipynb").write_text("somebody else's")
    assert copy_course(mine, source).kept == ("00-start.ipynb",)
    assert (mine / "00-start.ipynb").read_text() == "somebody else's"


def test_a_broken_record_costs_nothing(source, tmp_path):
    mine = tmp_path / "mine"
    copy_course(mine, source)
    (mine / ".cloudlab-course.json").write_text("[]")
    (mine / "00-start.ipynb").write_text("my work")
    copy_course(mine, source)
    assert (mine / "00-start.ipynb").read_text() == "my work"


def test_says_where_it_could_not_write(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CloudlabError, match="could not be created"):
        copy_course(tmp_path / "file", source)


def test_command_copies_the_course(tmp_path, capfd):
    assert main(["lab", "--folder", str(tmp_path / "mine"), "--copy-only"]) == 0
    assert "files were written" in " ".join(capfd.readouterr().err.split())
    assert list((tmp_path / "mine").glob("00-*.ipynb"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """What the wheel holds, out of the clone's reach."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir"]
    subprocess.run([*build, folder, ROOT], check=True)
    [path] = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def lab_command(installed: Path) -> list[str]:
    code = "import sys; from cloudlab.cli import main; sys.exit(main(sys.argv[1:]))"
    path = f"import sys; sys.path.insert(0, {str(installed)!r}); {code}"
    return [sys.executable, "-I", "-c", path, "lab"]


@pytest.mark.slow
def test_the_wheel_brings_the_course(wheel, tmp_path):
    mine = tmp_path / "mine"
    argv = [*lab_command(wheel), "--folder", mine, "--copy-only"]
    subprocess.run(argv, check=True, cwd=tmp_path)
    assert {one.name for one in mine.glob("*.ipynb")} == {
        one.name for one in (ROOT / "notebooks").glob("*.ipynb")
    }
    for name in ("common.js", "form.js", "pane.js", "look.css", "disk.css"):
        assert (wheel / "cloudlab" / "widgets" / name).is_file()


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
def test_the_wheel_opens_the_course(wheel, tmp_path):
    """``cloudlab lab`` of an installed wheel, down to the first notebook on the page."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        "--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
    ]  # fmt: skip
    argv = [*lab_command(wheel), "--folder", str(tmp_path / "mine"), "--", *options]
    env = {**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "CLOUDLAB_MODE": "replay"}
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for(f"{base}/api", server)
        with chromium() as browser:
            page = browser.new_page()
            page.goto(base, timeout=PATIENCE_MS)
            expect(page.get_by_role("heading", name="00. Start here")).to_be_visible()
    finally:
        server.terminate()
        server.wait(timeout=300)
