"""Every kind of figure of every shipped recording, and the command that draws them."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from cloudlab import figures
from cloudlab.cli import main
from cloudlab.errors import CloudlabError
from cloudlab.run.plots import plot
from cloudlab.run.value import Run, recordings

RUNS = {run.name: run.folder for run in recordings()}
KINDS = [name for name, kind in figures.KINDS.items() if "predictions" not in kind.tables]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", RUNS)
def test_every_kind_draws_every_recording_or_says_why_not(name):
    run = Run(RUNS[name])
    on_disk = run.sizes["layer"].isin(["partition", "filesystem"]).any()
    for kind in KINDS:
        if kind == "disk-map" and not on_disk:
            with pytest.raises(CloudlabError, match="no map of it"):
                run.plot(kind)
            continue
        drawn = run.plot(kind, size="page")
        words = drawn.axes.get_title(loc="left") + drawn.alt
        assert "unknown" not in words
        assert len(drawn.data) > 0


def test_the_titles_of_all_recordings_together_add_up():
    drawn = plot("scenarios", recordings(), size="page")
    title = drawn.axes.get_title(loc="left").replace("\n", " ").replace(":", "").replace(",", "")
    all_runs, *counts = [int(word) for word in title.split() if word.isdigit()]
    assert all_runs == len(RUNS) == sum(counts)


def figure(*arguments):
    return main(["figure", *map(str, arguments)])


def test_help_lists_the_kinds_without_a_run(capsys):
    assert figure("--kind", "help") == 0
    assert set(figures.KINDS) <= set(capsys.readouterr().out.split())


def test_the_run_is_named_in_the_picture_and_its_title(tmp_path):
    path = tmp_path / "f.svg"
    assert figure(RUNS["default"], "--kind", "layers", "--output", path) == 0
    title = ET.fromstring(path.read_text(encoding="utf-8")).find(f"{SVG}title")
    assert title.text == "Sizes, layer by layer: default"


@pytest.mark.parametrize(("size", "pixels"), [("slide", (1600, 900)), ("page", (990, 810))])
def test_the_size_can_be_chosen(size, pixels, tmp_path):
    path = tmp_path / "f.png"
    assert figure(RUNS["default"], "--kind", "layers", "--size", size, "--output", path) == 0
    with Image.open(path) as image:
        assert image.size == pixels


def test_a_prediction_is_drawn_from_the_command_line(tmp_path):
    path, data = tmp_path / "f.svg", tmp_path / "f.csv"
    given = ("--kind", "prediction", "--predict", "19.9G,2G", "--output", path, "--data", data)
    assert figure(RUNS["default"], *given) == 0
    rows = data.read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[-1] for row in rows] == ["right", "True", "False"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kind", "prediction"], "--predict 19.9G,20G"),
        (["--kind", "layers", "--predict", "1G,1G"], "--predict 19.9G,20G"),
        (["--kind", "prediction", "--predict", "1G"], "two sizes"),
        (["--kind", "pie"], "disk-map"),
    ],
)
def test_wrong_usage_says_what_to_write(arguments, said, tmp_path, capsys):
    path = tmp_path / "f.svg"
    assert figure(RUNS["default"], "--output", path, *arguments) == 2
    assert said in capsys.readouterr().err
    assert not path.exists()


def test_a_run_and_an_output_are_asked_for(capsys):
    assert figure("--kind", "layers") == 2
    assert figure(RUNS["default"]) == 2
    assert "--output" in capsys.readouterr().err
