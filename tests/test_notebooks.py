"""The course: every notebook and solution runs on recordings, and keeps its promises."""

import copy
import csv
import html
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import heads
import nbformat
import nbstripout
import pytest
import yaml
from browser import chromium
from nbclient import NotebookClient
from seeds import read_iso

from cloudlab.course.checks import exercises
from cloudlab.disk import inspect_disk
from cloudlab.run.value import Run, recorded
from cloudlab.seed import check_user_data
from cloudlab.units import format_bytes, lsblk_size

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SOLUTIONS = sorted(FOLDER.glob("solutions/*.ipynb"))
ALL = [*NOTEBOOKS, *SOLUTIONS]

#: Whose pages the course sends readers to.
KNOWN_HOSTS = {
    "docs.asciinema.org",
    "docs.cloud-init.io",
    "elastisys.com",
    "github.com",
    "kubernetes.io",
    "man7.org",
    "uefi.org",
    "www.qemu.org",
}

pytestmark = pytest.mark.xdist_group("notebooks")


#: What boots a machine, or plays a boot of it.
BOOTS = re.compile(r"\b(boot(_all|_text)?|Console)\(")


def each(paths):
    return pytest.mark.parametrize(
        "path", paths, ids=[str(path.relative_to(FOLDER).with_suffix("")) for path in paths]
    )


@cache
def read(path):
    return nbformat.read(path, as_version=4)


def markdown(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def run(path, folder, mode="replay", timeout_s=120, change=lambda source: source):
    book = copy.deepcopy(read(path))
    for cell in book.cells:
        cell.source = change(cell.source)
    before = os.environ.get("CLOUDLAB_MODE")
    os.environ["CLOUDLAB_MODE"] = mode
    try:
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(book, timeout=timeout_s, resources=resources).execute()
    finally:
        os.environ.pop("CLOUDLAB_MODE")
        if before is not None:
            os.environ["CLOUDLAB_MODE"] = before
    return book


@cache
def executed(path):
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        return run(path, folder)


def outputs(book):
    return [output for cell in book.cells for output in cell.get("outputs", ())]


def shown(output):
    """Return what a reader sees of an output, without its markup."""
    return str(output.get("data", {}).get("text/plain", output.get("text", "")))


def verdicts(book):
    return [
        match
        for output in outputs(book)
        for match in re.findall(
            r"^(Right|Not yet|No answer yet) \((\d\d-\d)\)", shown(output), re.MULTILINE
        )
    ]


# ------------------------------------------------------------------ what every run must show


@each(ALL)
def test_runs_on_recordings_without_an_error_or_a_warning(path):
    for output in outputs(executed(path)):
        assert output.output_type != "error", output
        assert output.get("name") != "stderr", output.text


@each(NOTEBOOKS)
def test_a_fresh_notebook_has_three_exercises_that_wait_for_an_answer(path):
    number = path.name[:2]
    expected = [("No answer yet", f"{number}-{place}") for place in (1, 2, 3)]
    assert verdicts(executed(path)) == expected


@pytest.mark.slow
def test_a_right_answer_is_kept_for_the_progress(tmp_path):
    [path] = [path for path in SOLUTIONS if path.name.startswith("01")]
    run(path, tmp_path)
    kept = json.loads((tmp_path / "runs" / "progress.json").read_text())
    assert kept["passed"] == ["01-1", "01-2", "01-3"]


@each(SOLUTIONS)
def test_every_solution_is_right(path):
    number = path.name[:2]
    assert verdicts(executed(path)) == [("Right", f"{number}-{place}") for place in (1, 2, 3)]


class _Images(HTMLParser):
    def __init__(self):
        super().__init__()
        self.alts = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))


@each(NOTEBOOKS)
def test_every_picture_says_its_numbers_in_words(path):
    parser = _Images()
    for output in outputs(executed(path)):
        data = output.get("data", {})
        parser.feed(str(data.get("text/html", "")))
        assert "image/png" not in data or "text/html" in data
    assert all(alt and re.search(r"\d", alt) for alt in parser.alts)
    assert not re.search(r"!\[\]\(", markdown(path))


@each(ALL)
def test_large_numbers_in_tables_have_separators(path):
    pages = [str(output.get("data", {}).get("text/html", "")) for output in outputs(executed(path))]
    assert re.findall(r"<t[dh][^>]*>\s*(\d{7,})\s*<", "".join(pages)) == []


def test_a_wrong_label_and_a_wrong_file_name_are_opposites():
    [path] = [path for path in NOTEBOOKS if path.name.startswith("03")]
    [table] = [text for text in map(shown, outputs(executed(path))) if "filesystem grew" in text]
    rows = [line.split()[-2:] for line in table.splitlines()[-2:]]
    assert rows == [["False", "False"], ["True", "True"]]


@each(NOTEBOOKS)
def test_no_table_lacks_a_value(path):
    pages = [str(output.get("data", {}).get("text/html", "")) for output in outputs(executed(path))]
    lacking = re.findall(r"<tr>(?:(?!</tr>).)*&lt;NA&gt;.*?</tr>", "".join(pages), re.DOTALL)
    assert lacking == []


def test_the_kinds_of_clusters_are_counted_over_the_whole_disk():
    [path] = [path for path in NOTEBOOKS if path.name.startswith("02")]
    recording = recorded("default")
    lines = (recording.folder / "extents.csv").read_text("utf-8").splitlines()
    sizes = {}
    for row in csv.DictReader(lines):
        sizes[row["kind"]] = sizes.get(row["kind"], 0) + int(row["length_bytes"])
    text = "\n".join(shown(output) for output in outputs(executed(path)))
    found = dict(re.findall(r"^(data|zero|backing|empty) +(\d+)$", text, re.MULTILINE))
    assert {kind: int(size) for kind, size in found.items()} == sizes
    assert sum(sizes.values()) == recording.layout("after").virtual_size_bytes


@each(NOTEBOOKS)
def test_what_is_played_back_says_so(path):
    text = "\n".join(shown(output) for output in outputs(executed(path)))
    source = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
    if BOOTS.search(source):
        assert re.search(r"[Rr]ecorded on 20\d\d-\d\d-\d\d with \S+ under \w+", text)
    assert "booted here" not in text


@pytest.mark.boots
@pytest.mark.usefixtures("lab_image")
def test_how_it_grows_runs_live(tmp_path):
    """The article's three results and the fourth combination, from machines booted here."""
    path = next(path for path in NOTEBOOKS if path.name.startswith("05"))

    def predict(source):
        return source.replace('partition="", filesystem=""', 'partition="3G", filesystem="3G"')

    book = run(path, tmp_path, mode="live", timeout_s=3000, change=predict)
    assert not [output for output in outputs(book) if output.output_type == "error"]
    runs = {folder.name[18:]: Run(folder) for folder in (tmp_path / "runs").iterdir()}
    assert set(runs) == set(book.metadata["cloudlab"]["boots"])
    grown = {name: one.root_sizes("after") for name, one in runs.items()}
    shipped = {name: recorded(name).root_sizes("after") for name in runs}
    assert grown == shipped
    assert sum("booted here" in shown(output) for output in outputs(book)) == len(runs)


# ------------------------------------------------------------------ what the files must be


@each(ALL)
def test_is_a_valid_notebook_without_outputs(path):
    book = read(path)
    nbformat.validate(book)
    assert (book.nbformat, book.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in book.cells}) == len(book.cells)


def test_nothing_is_left_to_strip(monkeypatch):
    monkeypatch.setattr("sys.argv", ["nbstripout", "--verify", *map(str, ALL)])
    monkeypatch.setattr("sys.stdin", None)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    # It exits where something is left.
    nbstripout.main()


@each(NOTEBOOKS)
def test_has_the_parts_that_a_learner_looks_for(path):
    text = markdown(path)
    number = path.name[:2]
    for part in (
        rf"^# {number}\. \S",
        r"^\*\*You will be able to\*\*$",
        r"^\*\*Before you start:\*\* \S",
        r"^\*\*Time:\*\* \d+ minutes for you\. For the machine: \S",
        r"^## Exercises$",
        rf"^### {number}-1 Tweak$",
        rf"^### {number}-2 Extend$",
        rf"^### {number}-3 Find the fault$",
        r"^## Key points$",
        r"^## Where to read on$",
    ):
        assert re.search(part, text, re.MULTILINE), part


@each(NOTEBOOKS)
def test_code_cells_are_short(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 12, cell.source


@each(NOTEBOOKS)
def test_asks_for_a_prediction_before_each_boot(path):
    predicted = False
    for cell in read(path).cells:
        if cell.cell_type != "code":
            continue
        predicted = predicted or "Prediction(" in cell.source
        if BOOTS.search(cell.source):
            assert predicted


@each(NOTEBOOKS)
def test_the_head_says_the_minutes_that_the_recorded_boots_took(path):
    book = read(path)
    meta = book.metadata["cloudlab"]
    assert f"{meta['people_minutes']} minutes for you" in book.cells[0].source
    if not meta.get("own_boots"):
        assert book.cells[0].source == heads.expected_head(book), "run: python scripts/heads.py"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(20, "less than a minute"), (57, "1 minute"), (89, "1 minute"), (95, "2 minutes")],
)
def test_minutes_are_those_that_people_plan_with(seconds, words):
    assert heads.minutes(seconds) == words


@each(NOTEBOOKS)
def test_names_the_article(path):
    text = markdown(path).split("## Where to read on")[1]
    title = "*Cloud under the hood: how do virtual images grow?*, Elastisys Tech Blog"
    assert f"[{title}](https://elastisys.com/how-do-virtual-images-grow/)" in text


@each(NOTEBOOKS)
def test_leads_on_to_another_page(path):
    last = read(path).cells[-1].source
    assert re.search(r"^\*\*Next:\*\* \[[^]]+\]\([\w-]+\.(ipynb|md)\)", last, re.MULTILINE)


#: What a notebook may import of cloudlab: its front door, the course and the panels.
FRONT_DOORS = re.compile(
    r"import cloudlab as cl|from cloudlab import course|from cloudlab\.widgets import [\w, ]+"
)


@each(ALL)
def test_imports_nothing_deeper_than_the_front_doors(path):
    lines = [
        line.strip()
        for cell in read(path).cells
        if cell.cell_type == "code"
        for line in cell.source.splitlines()
    ]
    imported = [line for line in lines if re.match(r"(from|import) cloudlab\b", line)]
    assert imported
    assert [line for line in imported if not FRONT_DOORS.fullmatch(line)] == []


PICTURES = sorted(FOLDER.glob("images/*.svg"))


def test_pictures_have_real_text_and_a_description():
    shown = {
        target
        for path in NOTEBOOKS
        for alt, target in re.findall(r"!\[([^]]*)\]\(([^)]+)\)", markdown(path))
        if len(alt) > 40
    }
    assert shown == {f"images/{path.name}" for path in PICTURES}
    for path in PICTURES:
        root = ET.parse(path).getroot()
        names = [one.tag.rpartition("}")[2] for one in root.iter()]
        assert root.get("role") == "img"
        assert names.count("title") == names.count("desc") == 1
        assert names.count("text") > 3


def steps_by_hand():
    return re.findall(
        r"^```sh\n(.*?)^```", markdown(FOLDER / "by-hand.md"), re.DOTALL | re.MULTILINE
    )


@pytest.mark.skipif(shutil.which("genisoimage") is None, reason="genisoimage is not here")
def test_the_steps_by_hand_make_an_overlay_and_a_seed(tmp_path):
    install, download, overlay, seed, boot = steps_by_hand()
    assert "apt-get install" in install
    assert "IMAGE=" in download
    assert boot.startswith("qemu-system-x86_64 ")
    subprocess.run(
        ["qemu-img", "create", "-qf", "qcow2", "i.qcow2", "2G"], cwd=tmp_path, check=True
    )
    script = f"set -e\nIMAGE=i.qcow2\n{overlay}\n{seed}"
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert inspect_disk(tmp_path / "disk.qcow2").virtual_size_bytes == 20 * 2**30
    seed = read_iso(tmp_path / "seed.iso")
    assert check_user_data(seed.user_data) == []
    assert seed.meta_data.startswith("instance-id: my-first-vm\n")
    for commented in ("growpart", "resize_rootfs"):
        assert f"\n#{commented}:" in seed.user_data


def test_nothing_gives_the_first_prediction_away():
    after = recorded("default").root_sizes("after")
    told = [form(size) for size in after for form in (str, "{:,}".format, format_bytes)]
    for path in NOTEBOOKS[:4]:
        # The check of this machine may well find 19.9 GiB of memory or disk available.
        cells = [cell for cell in executed(path).cells if "machine_check()" not in cell.source]
        for output in [output for cell in cells for output in cell.get("outputs", ())]:
            page = str(output.get("data", {})) + output.get("text", "")
            assert not [size for size in told if size in page], path.name


@each(NOTEBOOKS)
def test_a_line_of_code_fits_a_narrow_window(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert max(map(len, cell.source.splitlines())) <= 82, cell.source


@each([*ALL, *FOLDER.glob("*.md")])
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", markdown(path)):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https"
            assert parts.hostname in KNOWN_HOSTS, target
            continue
        there = path.parent / unquote(parts.path)
        assert there.exists(), target
        if parts.fragment:
            headings = re.findall(r"^#+ (.*)$", markdown(there), re.MULTILINE)
            assert parts.fragment in {heading.replace(" ", "-") for heading in headings}


# ------------------------------------------------------------------ checks of answers


def test_the_notebooks_have_every_exercise_and_no_other():
    asked = {
        name
        for path in NOTEBOOKS
        for name in re.findall(
            r'course\.check\("(\d\d-\d)"', json.dumps(read(path)).replace('\\"', '"')
        )
    }
    assert asked == set(exercises())


# ------------------------------------------------------------------ slides


@pytest.fixture(scope="module")
def slides():
    spec = importlib.util.spec_from_file_location("slides", FOLDER / "slides.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_slides_stand_alone(slides):
    page = slides.page_of(executed(path) for path in NOTEBOOKS)
    assert page.count("<section>") > 3 * len(NOTEBOOKS)
    # Nothing is fetched: neither scripts nor styles nor pictures.
    assert not re.search(r"<(script|link)\b|src=\"(?!data:)|@import|url\(", page)
    for path in NOTEBOOKS:
        assert re.match(r"# (.*)", read(path).cells[0].source)[1] in page
    assert page.count("<aside>") == page.count("<section>")


@pytest.mark.slow
@pytest.mark.browser
def test_a_printed_slide_shows_all_of_it_on_its_page(slides, tmp_path):
    text = slides.page_of(executed(path) for path in NOTEBOOKS)
    (tmp_path / "slides.html").write_text(text, encoding="utf-8")
    hidden = """(parts) => parts.filter((one) => one.scrollHeight > one.clientHeight + 1
      || one.scrollWidth > one.clientWidth + 1).map((one) => one.innerText.slice(0, 60))"""
    with chromium() as browser:
        # As wide as the printed page, 320 mm.
        page = browser.new_page(viewport={"width": 1209, "height": 854})
        page.goto((tmp_path / "slides.html").as_uri())
        page.emulate_media(media="print")
        assert page.locator("section, section > div").evaluate_all(hidden) == []
        pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.count(b"/Type /Page\n") == text.count("<section>")


def slide_cells(path):
    return [cell for cell in read(path).cells if "slideshow" in cell.metadata]


@each(NOTEBOOKS)
def test_every_slide_has_minutes_and_notes_of_its_own(path):
    notes = [cell.metadata["cloudlab"]["notes"] for cell in slide_cells(path)]
    assert len(set(notes)) == len(notes) > 2
    assert all(note.endswith((".", "?")) and len(note) < 400 for note in notes)


def test_the_slides_fit_into_the_guides_ninety_minutes():
    guide = markdown(FOLDER / "instructors-guide.md")
    parts = re.findall(
        r"^\| (\d+)\W(\d+) \| (0\d)(?: and (0\d))?\b",
        guide.partition("Forty-five")[0],
        re.MULTILINE,
    )
    assert [part[2] for part in parts] == ["00", "01", "03", "04", "05", "06", "07"]
    for start, end, *numbers in parts:
        minutes = sum(
            cell.metadata["cloudlab"]["minutes"]
            for path in NOTEBOOKS
            if path.name[:2] in numbers
            for cell in slide_cells(path)
        )
        assert 0 < minutes <= int(end) - int(start), numbers


def test_notes_are_below_their_slide_and_add_up(slides):
    def cell(**meta):
        meta = {"slideshow": {"slide_type": "slide"}, "cloudlab": meta}
        return nbformat.v4.new_markdown_cell("## A heading", metadata=meta)

    cells = [cell(minutes=1.5, notes="Say <this>."), cell(minutes=2, notes="And this.")]
    page = slides.page_of([nbformat.v4.new_notebook(cells=cells)] * 2)
    told = re.findall(r"</div><aside><strong>(.*?)</strong> (.*?)</aside></section>", page)
    first = ("1:30 min, 1:30 min in this notebook so far.", "Say &lt;this&gt;.")
    assert told == [first, ("2:00 min, 3:30 min in this notebook so far.", "And this.")] * 2


def test_the_handout_asks_for_the_four_boots_and_gives_no_result_away(slides):
    page = slides.handout()
    book = read(next(path for path in NOTEBOOKS if path.name.startswith("05")))
    boots = [recorded(case).options for case in book.metadata["cloudlab"]["boots"]]
    settings = [
        html.unescape(one) for one in re.findall(r"<th>\d</th><td><code>(.*?)<", page, re.DOTALL)
    ]
    assert [yaml.safe_load(one) for one in settings] == [
        {name: value for name, value in options.items() if value is not None} or "nothing set"
        for one in boots
        for options in [{
            "growpart": one.growpart and {"mode": str(one.growpart)},
            "resize_rootfs": one.resize_rootfs and yaml.safe_load(str(one.resize_rootfs)),
        }]
    ]  # fmt: skip
    partition, filesystem = recorded("default").root_sizes("after")
    assert lsblk_size(partition) not in page
    assert format_bytes(filesystem) not in page
    assert not re.search(r"<(script|link|img)\b|@import|url\(", page)


@pytest.mark.browser
def test_the_handout_is_one_page_of_a4(slides, tmp_path):
    (tmp_path / "handout.html").write_text(slides.handout(), encoding="utf-8")
    with chromium() as browser:
        page = browser.new_page()
        page.goto((tmp_path / "handout.html").as_uri())
        pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.count(b"/Type /Page\n") == 1
    assert re.search(rb"/MediaBox \[0 0 59[45](\.\d+)? 84[12]", pdf)
