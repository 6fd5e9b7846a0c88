"""The pages of docs/ name what exists."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
import yaml

import cloudlab
from cloudlab import tools

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = sorted(
    path.stem
    for path in (ROOT / "cloudlab").iterdir()
    if (path.suffix == ".py" or (path / "__init__.py").exists()) and not path.stem.startswith("__")
)


def test_the_architecture_page_names_files_that_exist():
    named = set(re.findall(r"`((?:cloudlab|tests|notebooks|scripts)/[^` ]*)`", ARCHITECTURE))
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_architecture_page_names_functions_that_exist():
    named = set(re.findall(rf"`((?:{'|'.join(ROOMS)})\.\w+(?:\.\w+)?)`", ARCHITECTURE))
    named -= {"run.json", "console.log", "console.cast", "sizes.csv"}
    assert named
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(f"cloudlab.{module}"), attribute), name


def test_the_architecture_page_names_tables_that_exist():
    named = set(re.findall(r"`(_?[A-Z]{3,})`", ARCHITECTURE))
    assert named
    sources = "\n".join(path.read_text() for path in (ROOT / "cloudlab").rglob("*.py"))
    assert [name for name in named if not re.search(rf"^{name}\b", sources, re.MULTILINE)] == []


def test_the_architecture_page_has_every_room():
    table = ARCHITECTURE.partition("| room |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", table))
    assert named >= set(ROOMS) - {"prerequisites"}


PLATFORMS = (ROOT / "docs" / "platforms.md").read_text()


@pytest.mark.parametrize("manager", ["apt", "dnf", "zypper", "pacman", "apk", "brew"])
def test_the_platforms_page_has_the_packages_that_are_installed(manager, monkeypatch):
    monkeypatch.setattr(tools.os, "geteuid", lambda: 1000)
    jobs = {"run", "run/amd64"}
    needs = [name for name, program in tools.PROGRAMS.items() if jobs & set(program.jobs)]
    packages, unknown = tools.packages_for(needs, manager)
    assert unknown == []
    assert f"| `{' '.join(tools.install_argv(packages, manager))}` |" in PLATFORMS


def test_the_platforms_page_names_what_exists():
    named = set(re.findall(r"`((?:tests|scripts)/[^` ]*)`", PLATFORMS))
    assert {path for path in named if not (ROOT / path).exists()} == set()
    targets = set(re.findall(r"\bmake ([\w-]+)", PLATFORMS))
    made = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= made
    assert "docs/platforms.md" in (ROOT / "README.md").read_text()


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == cloudlab.__version__


def test_the_workflow_runs_what_there_is():
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]
    for command in [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]:
        program, *words = command.split()
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words) <= set(targets) if program == "make" else (ROOT / program).is_file()


def test_the_api_reference_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text()
    found = re.findall(r"auto(?:function|class|exception):: (?:cloudlab\.)?(\w+)", page)
    assert set(cloudlab.__all__) <= set(found)


def test_every_public_name_has_an_example():
    names = cloudlab.__all__
    assert [name for name in names if ">>> " not in getattr(cloudlab, name).__doc__] == []


#: Their examples boot, download, build or open files that the reader has.
NEED_MORE = {
    "GrowpartMode", "Image", "Options", "Run", "boot", "boot_many", "build", "choose_image", "fetch",
    "inspect", "make_options", "open_run", "sweep",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(cloudlab.__all__) - NEED_MORE))
def test_an_example_gives_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value, told = getattr(cloudlab, name), []
    runner = doctest.DocTestRunner(verbose=False)
    [example] = doctest.DocTestFinder(recurse=False).find(
        value, name, globs={"cloudlab": cloudlab}, module=False
    )
    assert runner.run(example, out=told.append).failed == 0, "".join(told)
