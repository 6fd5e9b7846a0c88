"""Every kind of figure of every shipped recording, and the command that draws them."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from figure_tables import covered, cut, drawn_texts
from PIL import Image
from shipped import FEW, recorded

from cloudlab import figures
from cloudlab.cli import main
from cloudlab.figures.canvas import SIZES, STYLES
from cloudlab.run.display import plot
from cloudlab.run.value import recordings

RUNS = {run.name: run.folder for run in recordings()}
SVG = "{http://www.w3.org/2000/svg}"
# Over the recordings each kind gets every size and every style.
LOOKS = list(itertools.product(SIZES, STYLES))


def in_test_fast(name, kind):
    """Choose each kind once, over the few recordings."""
    return name in FEW and (sorted(FEW).index(name) + list(figures.KINDS).index(kind)) % 6 == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(*pair, marks=() if in_test_fast(*pair) else pytest.mark.slow)
        for pair in itertools.product(RUNS, figures.KINDS)
    ],
)
def test_every_kind_draws_every_recording(name, kind):
    run = recorded(name)
    measured = figures.KINDS["scenarios"].data({"sizes": run.sizes})
    predictions = pd.DataFrame(
        {
            "scenario": measured["scenario"],
            "layer": measured["layer"],
            "predicted_bytes": 20 << 30,
            "measured_bytes": measured["last_bytes"],
        }
    )
    number = list(figures.KINDS).index(kind) + list(RUNS).index(name)
    size, style = LOOKS[number % len(LOOKS)]
    drawn = plot(kind, [run], tables={"predictions": predictions}, size=size, style=style)
    texts = drawn_texts(drawn)
    assert cut(texts, drawn.figure.bbox) == []
    assert covered(texts) == []
    assert "unknown" not in drawn.title + drawn.alt
    assert len(drawn.data) > 0


def test_the_titles_of_all_recordings_together_add_up():
    title = plot("scenarios", recordings(), size="page").title.rpartition(": ")[2]
    all_runs, *counts = [int(word) for word in re.findall(r"\d+", title)]
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
    assert title.text == "default: A 129 MiB image file, a 20.0 GiB disk, a 19.7 GiB filesystem"


@pytest.mark.parametrize(("size", "pixels"), [("screen", 1600), ("slide", 3200), ("page", 1980)])
def test_size_and_style_can_be_chosen(size, pixels, tmp_path):
    path, given = tmp_path / "f.png", ("--size", size, "--style", "dark")
    assert figure(RUNS["default"], "--kind", "layers", *given, "--output", path) == 0
    with Image.open(path) as image:
        assert image.width == pixels
        assert max(image.convert("RGB").getpixel((0, 0))) < 64


def test_the_title_can_be_chosen_or_left_out(tmp_path):
    path = tmp_path / "f.svg"
    given = (RUNS["growpart-off"], "--kind", "disk-map", "--output", path)
    assert figure(*given, "--title", "My own words") == 0
    assert ">My own words</text>" in path.read_text(encoding="utf-8")
    assert figure(*given, "--title", "") == 0
    bare = path.read_text(encoding="utf-8")
    assert figure(*given) == 0
    whole = path.read_text(encoding="utf-8")
    assert "growpart: {mode: 'off'}" in whole
    assert len(re.findall("<text", whole)) == len(re.findall("<text", bare)) + 3


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


def test_a_run_is_asked_for(capsys):
    assert figure("--kind", "layers") == 2
    assert "a run folder or a recording" in capsys.readouterr().err
