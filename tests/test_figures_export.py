"""Figures as files: readable by others, described, the same bytes every time."""

from __future__ import annotations

import base64
import html
import io
import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree as ET

import figure_tables as tables
import matplotlib as mpl
import pandas as pd
import pytest
from examples import few
from PIL import Image

from cloudlab import figures
from cloudlab.errors import CloudlabError, UsageError

TITLE, ALT = 'Größe & "Form" <1>', "Partition 19.9 GiB; filesystem 1.9 GiB"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def plot():
    drawn = figures.plot("disk-map", {"sizes": tables.lab_run()}, size="page")
    return replace(drawn, title=TITLE, alt=ALT)


def test_svg_carries_title_and_description(plot, tmp_path):
    root = ET.fromstring(plot.save(tmp_path / "f.svg").read_text(encoding="utf-8"))
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")

    assert root.get("role") == "img"
    assert (title.text, desc.text) == (TITLE, ALT)
    assert root.get("aria-labelledby").split() == [title.get("id"), desc.get("id")]


@pytest.mark.parametrize("kind", few(figures.KINDS, 3))
def test_text_in_svg_is_text_in_a_font_with_fallbacks(kind):
    given = {
        "sizes": tables.lab_run(),
        "stages": tables.stages_table(),
        "extents": tables.extents_table(1 << 20, 2),
        "partitions": tables.partitions_table(1 << 20, 2),
        "predictions": tables.predictions_table(),
        "options": tables.options_table(),
    }
    plot = figures.plot(kind, given, settings={"one": "growpart: {mode: auto}"})
    root = ET.fromstring(plot.to_bytes("svg"))
    texts = {text.text: text.get("style") for text in root.iter(f"{SVG}text")}
    words = {part for text in plot.axes.texts for part in text.get_text().splitlines()}
    assert words <= set(texts) | {""}
    assert all(re.search("DejaVu Sans( Mono)?', [VM]", style) for style in texts.values())
    # Glyphs would be defined as paths and used.
    assert not any("DejaVu" in use.get("id", "") for use in root.iter(f"{SVG}path"))


def test_ids_in_an_svg_are_its_own_and_stable():
    one, two, again = (
        figures.plot("layers", {"sizes": tables.lab_run(scenario=name)}).to_bytes("svg").decode()
        for name in ("default", "other", "default")
    )
    assert one == again
    assert len(one) < 60_000
    assert re.findall('<title id="(.*?)"', one) != re.findall('<title id="(.*?)"', two)


def test_png_has_twice_its_size_and_its_words(plot, tmp_path):
    with Image.open(plot.save(tmp_path / "f.png")) as image:
        # 3.3 in at 300 pixels per inch
        assert image.width == 2 * 990
        assert (image.text["Title"], image.text["Description"]) == (TITLE, ALT)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_a_slide_is_1600_by_900():
    slide = figures.plot("layers", {"sizes": tables.lab_run()}, size="slide")
    with Image.open(io.BytesIO(slide.to_bytes("png"))) as image:
        assert image.size == (2 * 1600, 2 * 900)


def test_pdf_is_one_described_page(plot, tmp_path):
    named = replace(plot, title="Sizes", alt="The numbers")
    data = named.save(tmp_path / "f.pdf").read_bytes()
    assert data.startswith(b"%PDF-")
    assert data.count(b"/Type /Page ") == 1
    assert b"(Sizes)" in data
    assert b"(The numbers)" in data
    # 3.3 in, in points
    assert b"[ 0 0 237.6 " in data


def test_the_same_figure_gives_the_same_bytes():
    one, again = (figures.plot("scenarios", {"sizes": tables.three_runs()}) for _ in range(2))
    for form in ("png", "svg", "pdf"):
        assert one.to_bytes(form) == again.to_bytes(form), form


@pytest.mark.parametrize("style", ["light", "dark", "print"])
def test_a_style_holds_when_the_figure_is_saved(style, tmp_path):
    plot = figures.plot("layers", {"sizes": tables.lab_run()}, style=style)
    with Image.open(plot.save(tmp_path / "f.png")) as image:
        corner = image.convert("RGB").getpixel((0, 0))
        colours = image.convert("RGB").getcolors(1 << 20)
    assert corner == ((0x16, 0x19, 0x1D) if style == "dark" else (255, 255, 255))
    grey = all(red == green == blue for _, (red, green, blue) in colours)
    assert grey == (style == "print")


def test_a_users_savefig_settings_do_not_crop_it(plot):
    with mpl.rc_context({"savefig.bbox": "tight", "savefig.dpi": 10}):
        data = plot.to_bytes("png")
    with Image.open(io.BytesIO(data)) as image:
        assert image.width == 2 * 990


@pytest.mark.parametrize("name", ["f.jpg", "f", "f.svgz"])
def test_other_endings_are_refused(plot, tmp_path, name):
    with pytest.raises(UsageError) as caught:
        plot.save(tmp_path / name)
    assert ".svg" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error(plot, tmp_path):
    with pytest.raises(CloudlabError, match="could not be written"):
        plot.save(tmp_path / "none" / "f.svg")


def test_html_holds_picture_alternative_text_and_caption(plot):
    page = replace(plot, alt='a "quote" & more').to_html()
    root = ET.fromstring(page.replace('auto">', 'auto"/>'))
    image = root.find("img")

    assert image.get("alt") == 'a "quote" & more'
    assert image.get("width") == "317"
    assert root.find("figcaption").text == "The disk before and after: default"
    assert base64.b64decode(image.get("src").partition(",")[2]).startswith(b"<?xml")


def test_a_notebook_shows_it(plot):
    assert html.escape(plot.alt) in plot._repr_html_()


def test_data_is_written_as_csv(tmp_path):
    plot = figures.plot("layers", {"sizes": tables.lab_run()})
    read = pd.read_csv(plot.save_data(tmp_path / "layers.csv"))
    assert read["last_bytes"].tolist() == plot.data["last_bytes"].tolist()
    assert list(read.columns) == ["layer", "device", "first_bytes", "last_bytes"]


def test_importing_loads_neither_pandas_nor_matplotlib():
    code = (
        "import sys, cloudlab.figures as f; f.KINDS; f.plot;"
        "print([m for m in ('pandas', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_tables_alone_need_no_matplotlib_and_drawing_no_pyplot():
    code = (
        "import sys; sys.path.insert(0, 'tests'); import figure_tables as t; from cloudlab import "
        "figures as f; given = {'sizes': t.lab_run()}; f.KINDS['layers'].data(given);"
        "print('matplotlib' in sys.modules); [f.plot(k, given) for k in ('layers', 'disk-map')];"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(("style", "word"), [("light", "darker"), ("dark", "brighter")])
def test_the_overlay_map_says_how_more_looks_in_its_style(style, word):
    given = {
        "extents": tables.extents_table(1 << 20, 2),
        "partitions": tables.partitions_table(1 << 20, 2),
    }
    plot = figures.plot("overlay-map", given, style=style)
    assert f"The {word}," in " ".join(text.get_text() for text in plot.axes.texts)
