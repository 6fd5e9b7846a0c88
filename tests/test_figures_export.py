"""Figures as files: readable by others, described, the same bytes every time."""

from __future__ import annotations

import base64
import io
import logging
import subprocess
import sys
from xml.etree import ElementTree as ET

import figure_tables as tables
import matplotlib as mpl
import pandas as pd
import pytest
from PIL import Image

from cloudlab import figures
from cloudlab.errors import CloudlabError, UsageError

TITLE, ALT = 'Größe & "Form" <1>', "Partition 19.9 GiB; ファイルシステム 1.9 GiB"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def ax():
    return figures.plot_disk_map(tables.lab_run(), figures.new_axes("page"))


def test_svg_carries_title_and_description(ax, tmp_path):
    path = figures.save_figure(ax, tmp_path / "f.svg", title=TITLE, alt=ALT)
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")

    assert root.get("role") == "img"
    assert (title.text, desc.text) == (TITLE, ALT)
    assert root.get("aria-labelledby").split() == [title.get("id"), desc.get("id")]
    assert len(root.findall(f".//{SVG}path")) > 100


def test_png_has_the_size_and_its_words(ax, tmp_path):
    path = figures.save_figure(ax, tmp_path / "f.png", title=TITLE, alt=ALT)
    with Image.open(path) as image:
        assert image.size == (990, 810)
        assert (image.text["Title"], image.text["Description"]) == (TITLE, ALT)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    figures.save_figure(ax, path, title=TITLE, alt=ALT, dpi=100)
    with Image.open(path) as image:
        assert image.size == (330, 270)


def test_a_slide_is_1600_by_900(tmp_path):
    ax = figures.plot_layers(tables.lab_run(), figures.new_axes("slide"))
    with Image.open(figures.save_figure(ax, tmp_path / "f.png", title="", alt="")) as image:
        assert image.size == (1600, 900)


def test_pdf_is_one_described_page(ax, tmp_path):
    data = figures.save_figure(
        ax, tmp_path / "f.pdf", title="Sizes", alt="The numbers"
    ).read_bytes()
    assert data.startswith(b"%PDF-")
    assert data.count(b"/Type /Page ") == 1
    assert b"(Sizes)" in data
    assert b"(The numbers)" in data
    # 3.3 in x 2.7 in, in points
    assert b"237.6 194.4" in data


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_same_figure_gives_the_same_bytes(form):
    def data():
        ax = figures.plot_scenarios(tables.three_runs())
        return figures.figure_bytes(ax, form, title=TITLE, alt=ALT)

    assert data() == data()


def test_a_users_savefig_settings_do_not_crop_it(ax):
    import matplotlib as mpl

    with mpl.rc_context({"savefig.bbox": "tight", "savefig.dpi": 10}):
        data = figures.figure_bytes(ax, "png", title="", alt="")
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (990, 810)


@pytest.mark.parametrize("name", ["f.jpg", "f", "f.svgz"])
def test_other_endings_are_refused(ax, tmp_path, name):
    with pytest.raises(UsageError) as caught:
        figures.save_figure(ax, tmp_path / name, title="", alt="")
    assert ".svg" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error(ax, tmp_path):
    with pytest.raises(CloudlabError, match="could not be written"):
        figures.save_figure(ax, tmp_path / "none" / "f.svg", title="", alt="")


@pytest.mark.parametrize(("form", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_html_holds_picture_alternative_text_and_caption(ax, form, start):
    page = figures.to_html(ax, title=TITLE, alt='a "quote" & more', form=form)
    root = ET.fromstring(page.replace('auto">', 'auto"/>'))
    image = root.find("img")

    assert image.get("alt") == 'a "quote" & more'
    assert root.find("figcaption").text == TITLE
    assert base64.b64decode(image.get("src").partition(",")[2]).startswith(start)
    assert "<figcaption" not in figures.to_html(ax, title=TITLE, alt="", caption="")


def test_data_is_written_as_csv(tmp_path):
    data = figures.layers_data(tables.lab_run())
    path = figures.save_data(data, tmp_path / "layers.csv")
    read = pd.read_csv(path).astype({"layer": "string", "device": "string"})
    assert read["last_bytes"].tolist() == data["last_bytes"].tolist()
    assert list(read.columns) == ["layer", "device", "first_bytes", "last_bytes"]


def test_characters_without_a_font_are_told_once_and_raise_nothing(tmp_path, caplog):
    # Linear B, which neither DejaVu Sans nor a Japanese font has.
    ax = figures.plot_layers(tables.lab_run(), labels={"name": "Disk \U00010000\U00010001"})
    with caplog.at_level(logging.WARNING, logger="cloudlab.figures"):
        figures.save_figure(ax, tmp_path / "f.png", title="", alt="")
    told = [r.getMessage() for r in caplog.records if r.name == "cloudlab.figures"]
    assert len(told) == 1
    assert "\U00010000\U00010001" in told[0]
    # A font that is installed now is not in the list that matplotlib keeps.
    assert f"delete {mpl.get_cachedir()}" in told[0]


def test_importing_loads_neither_pandas_nor_matplotlib():
    code = (
        "import sys, cloudlab.figures as f; f.KINDS; f.format_bytes;"
        "print([m for m in ('pandas', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_tables_alone_need_no_matplotlib_and_drawing_no_pyplot():
    code = (
        "import sys; sys.path.insert(0, 'tests'); import figure_tables as t; from cloudlab import "
        "figures as f; f.layers_alt(t.lab_run()); print('matplotlib' in sys.modules);"
        "[k.plot for k in f.KINDS.values()]; f.plot_layers(t.lab_run());"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_every_name_that_is_offered_is_there():
    for name in figures.__all__:
        assert getattr(figures, name) is not None
    with pytest.raises(AttributeError, match="plot_nothing"):
        _ = figures.plot_nothing
