"""Seats for a class: one install script, and the recipes that run it.

No container engine runs where this is tested, so the recipes are read here; the script itself is
run by ``scripts/fresh-root.sh trixie seat`` in a new root filesystem.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

from cloudlab import tools
from cloudlab.cli import make_parser
from cloudlab.course.classroom import keep_answer, room_board

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "install-seat.sh"
DEVCONTAINER = ROOT / ".devcontainer" / "devcontainer.json"
DOCKERFILE = ROOT / ".binder" / "Dockerfile"
PAGE = ROOT / "docs" / "teaching-thirty.md"
RECIPES = (DEVCONTAINER, DOCKERFILE, PAGE)


def instructions(path=DOCKERFILE):
    """Return the instructions of a Dockerfile, each as its word and the rest."""
    text = path.read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


def fences(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_each_recipe_runs_the_one_script(recipe):
    assert SCRIPT.relative_to(ROOT).as_posix() in recipe.read_text()
    assert os.access(SCRIPT, os.X_OK)


@pytest.mark.parametrize("file", [SCRIPT, *RECIPES], ids=lambda path: path.name)
def test_the_packages_are_those_of_the_one_table(file):
    """Neither the script nor a recipe has a list of its own: apt gets Python, which reads the table."""
    asked = re.findall(r"(?:apt-get|apt) install ([^\n&|;]*)", file.read_text())
    named = {word for text in asked for word in text.split() if not word.startswith("-")}
    assert named <= {"python3"}
    every = {p for one in tools.PROGRAMS.values() if (p := one.packages.get("apt"))}
    assert every & set(re.findall(r"[\w.+-]+", file.read_text())) <= {"mount"}, "an English word"


def test_the_script_takes_jobs_that_the_table_has():
    jobs = re.findall(r"cloudlab\.prerequisites ([a-z ]+)", SCRIPT.read_text())
    known = {entry.partition("/")[0] for one in tools.PROGRAMS.values() for entry in one.jobs}
    assert {job for text in jobs for job in text.split()} == {"venv", "run"} <= known


def test_shellcheck_finds_nothing():
    argv = ["shellcheck", SCRIPT, ROOT / "scripts" / "fresh-root.sh"]
    found = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_a_root_that_was_interrupted_is_removed(tmp_path):
    root = tmp_path / "root"
    for name, does in {
        "mktemp": f"mkdir {root}; echo {root}",
        "apt-get": "",
        "mmdebstrap": "kill -TERM $PPID",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    argv = ["sh", ROOT / "scripts" / "fresh-root.sh", "trixie", "help"]
    assert subprocess.run(argv, env=env, check=False).returncode == 130
    assert not root.exists()


def test_an_ordinary_user_gets_an_answer_and_no_changes(tmp_path):
    drop = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    # The script's folder may be closed to that user.
    argv = [*drop, "sh", "-c", SCRIPT.read_text(), str(SCRIPT), str(tmp_path / "env")]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert f"Run it as root: sudo {SCRIPT}" in ran.stderr
    assert not (tmp_path / "env").exists()


def test_the_devcontainer_opens_the_course():
    about = json.loads(DEVCONTAINER.read_text())
    assert about["onCreateCommand"] == SCRIPT.relative_to(ROOT).as_posix()
    assert about["forwardPorts"] == [8888]
    assert list(about["portsAttributes"]) == ["8888"]
    # cloudlab's own parser takes what the command says.
    program, *arguments = shlex.split(about["postAttachCommand"])
    parsed = make_parser().parse_args(arguments)
    assert (program, parsed.jupyter) == ("cloudlab", ["--allow-root", "--no-browser"])


def test_the_dockerfile_makes_a_seat_that_binder_and_a_hub_start():
    known = instructions()
    [script] = [rest for word, rest in known if word == "RUN" and "install-seat.sh" in rest]
    copied = dict(known)["COPY"].split()[1]
    argv = shlex.split(script.partition("&&")[0])
    assert argv[0] == f"{copied}/{SCRIPT.relative_to(ROOT)}"
    assert (ROOT / Path(argv[0]).relative_to(copied)).exists()
    assert f"ENV PATH={argv[1]}/bin:${{PATH}}" in DOCKERFILE.read_text()
    # What repo2docker passes; the defaults are those of Zero to JupyterHub.
    arguments = [rest for word, rest in known if word == "ARG"]
    assert {"NB_USER=jovyan", "NB_UID=1000", "REQUIREMENT=notebook"} == set(arguments)
    words = [word for word, _ in known]
    assert words.index("USER") < words.index("WORKDIR"), "the learner owns the course's copy"
    assert known[-1] == ("CMD", '["jupyter", "lab", "--ip=0.0.0.0"]')


def test_a_built_environment_is_not_copied_into_the_container():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".venv", "build"} <= set(ignored)
    for name in ("scripts", "cloudlab", "notebooks", "constraints.txt", "pyproject.toml"):
        assert name not in ignored


def test_what_the_page_tells_to_set_can_be_parsed():
    for text in fences("yaml"):
        assert yaml.safe_load(text)
    for text in fences("python"):
        compile(text, str(PAGE), "exec")


def test_the_page_names_files_that_exist():
    named = set(
        re.findall(r"`((?:scripts|tests|\.binder|\.devcontainer)/[^` ]+)`", PAGE.read_text())
    )
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def as_user(number, act):
    """Return what a child process with that user number reports: "" or the error's name."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = ""
        try:
            os.setgroups([])
            os.setgid(number)
            os.setuid(number)
            act()
        except BaseException as error:  # noqa: BLE001 (told to the parent)
            said = type(error).__name__
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        return stream.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming other users needs root")
def test_learners_answer_in_a_folder_that_they_cannot_list():
    """The mode is the page's."""
    [mode] = re.findall(r"install -d -m (\d+) -o INSTRUCTOR /srv/class", PAGE.read_text())
    names = [number * 32 for number in "12"]
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        folder = Path(top) / "class"
        folder.mkdir()
        folder.chmod(int(mode, 8))

        def answer(name, who="otter"):
            return lambda: keep_answer(folder, name, json.dumps({"name": who}).encode())

        assert as_user(20_001, answer(names[0])) == ""
        assert as_user(20_002, answer(names[1], "lynx")) == ""
        assert as_user(20_001, answer(names[0], "heron")) == "", "again, with more progress"
        assert as_user(20_002, lambda: list(folder.iterdir())) == "PermissionError"
        assert as_user(20_002, answer(names[0], "wolf")) == "CloudlabError", "another's answer"
        board = str(room_board(folder))
    assert "learners: 2" in board
    assert {name for name in ("otter", "heron", "lynx", "wolf") if name in board} == {
        "heron", "lynx",
    }  # fmt: skip


def test_variables_of_the_page_are_cloudlabs():
    named = set(re.findall(r"CLOUDLAB_[A-Z]+", PAGE.read_text()))
    sources = "\n".join(path.read_text() for path in (ROOT / "cloudlab").rglob("*.py"))
    assert named
    assert {name for name in named if f'"{name}"' not in sources} == set()
