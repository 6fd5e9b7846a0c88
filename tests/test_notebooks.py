"""The course: every notebook and solution runs on recordings, and keeps its promises."""

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import heads
import nbformat
import pytest
from nbclient import NotebookClient

from cloudlab.course import check
from cloudlab.course.cases import CASES
from cloudlab.course.storage import BROKEN_STORAGE
from cloudlab.course.verdict import exercises
from cloudlab.run.value import Run, recorded
from cloudlab.seed import GrowpartMode, ResizeRootfs, SeedConfig
from cloudlab.units import format_bytes

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SOLUTIONS = sorted(FOLDER.glob("solutions/*.ipynb"))
ALL = [*NOTEBOOKS, *SOLUTIONS]

#: Whose pages the course sends readers to.
KNOWN_HOSTS = {
    "cloudinit.readthedocs.io",
    "docs.asciinema.org",
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


def read(path):
    return nbformat.read(path, as_version=4)


def markdown(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def run(path, folder, mode="replay", timeout_s=120, change=lambda source: source):
    book = read(path)
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
        assert re.search(r"recorded on 20\d\d-\d\d-\d\d with \S+ under \w+", text)
    assert "booted here" not in text


@pytest.mark.boots
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


def test_nothing_is_left_to_strip():
    subprocess.run(
        [sys.executable, "-m", "nbstripout", "--verify", *map(str, ALL)],
        check=True,
        capture_output=True,
    )


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
    assert "*Cloud under the hood: how do virtual images grow?*, Elastisys Tech Blog" in text


def test_nothing_gives_the_first_prediction_away():
    after = recorded("default").root_sizes("after")
    told = [f"{size:,}" for size in after] + [format_bytes(size) for size in after]
    for path in NOTEBOOKS[:4]:
        # The check of this machine may well find 19.9 GiB of memory or disk available.
        cells = [cell for cell in executed(path).cells if cell.source != "machine_check()"]
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
        for name in re.findall(r'check\("(\d\d-\d)"', json.dumps(read(path)).replace('\\"', '"'))
    }
    assert asked == set(exercises())


NODE = CASES["node-storage"].user_data
MOVED = NODE.replace("--new=3:12GiB", "--new=3:16GiB").replace("--new=2:8GiB", "--new=2:12GiB")

KEPT = "#cloud-config\nresize_rootfs: false\n"
HEALED = "#cloud-config\ngrowpart: {ignore_growroot_disabled: true"


def shortest_stage():
    took = {str(one.stage): one.end_s - one.start_s for one in recorded("default").record.stages}
    return min(took, key=took.get)


WRONG = {
    "00-1": ["kvm"],
    "00-2": [shortest_stage(), "no such stage"],
    "00-3": ["image", "no such check"],
    "01-1": [14, 15, "root"],
    "01-2": [lambda table, number, disk_bytes: 0, lambda: 1],
    "01-3": ["default", "disk-as-large-as-image", "no such image"],
    "02-1": [(1, 3), (65536, 65536), 65536],
    "02-2": [100 * 2**30 // recorded("default").record.overlay.end_bytes, 0, 1.5, "many"],
    "02-3": [lambda table: 0],
    "03-1": [
        "",
        "#cloud-config\ngrowpart: {mode: off}\n",
        "resize_rootfs: false\n",
        f"{KEPT}growpart: {{devices: [/boot]}}\n",
        f"{KEPT}growpart: {{devices: []}}\n",
        f"{KEPT}growpart: {{mode: gpart}}\n",
        f"{KEPT}growpart:\nmode: auto\n",
    ],
    "03-2": ["local-hostname: x\n", "instance-id: iid-gallery-default\n", "[1"],
    "03-3": ["#cloud-config\ngrowpart: {mode: off}\nresize_rootfs: false\nruncmd: [lsblk]\n"],
    "04-1": [1, 10**9, 0, "six hundred", [1]],
    "04-2": [[], ["resizefs", "bootcmd", "growpart", "runcmd", "scripts_user"]],
    "04-3": ["A", "B", "D"],
    "05-1": [
        "resize_rootfs: false",
        SeedConfig(),
        SeedConfig(resize_rootfs=ResizeRootfs.FALSE, growpart_devices=("/boot",)),
        SeedConfig(resize_rootfs=ResizeRootfs.FALSE, bootcmd=("touch /etc/growroot-disabled",)),
        SeedConfig(resize_rootfs=ResizeRootfs.FALSE, growpart=GrowpartMode.GPART),
    ],
    "05-2": [30 * 2**30, 20 * 2**30, "30 GiB"],
    "05-3": [1, "cc_resizefs"],
    "06-1": ["fills-its-device", "bad luck"],
    "06-2": [{}, dict.fromkeys("BCDEF", "growpart-off")],
    "06-3": [
        "#cloud-config\ngrowpart: {mode: growpart}\n",
        "growpart: {ignore_growroot_disabled: true}",
        f"{HEALED}, devices: [/boot]}}\n",
        f"{HEALED}}}\nresize_rootfs: false\n",
        "#cloud-config\nruncmd: [rm -f /etc/growroot-disabled]\n",
    ],
    "07-1": [
        "#cloud-config\nbootcmd: [sgdisk --new=2:12GiB:0 /dev/vda]\n",
        "#cloud-config\n",
        NODE.replace("--new=2:8GiB", "--new=2:12GiB"),
        MOVED.replace("  - {device: /dev/vda3", "  - {device: /dev/vda9"),
        MOVED.replace("  - [/dev/vda3", "  - [/dev/vda9"),
        MOVED.replace("+4GiB", "+1GiB").replace("3:16GiB:0", "3:13GiB:+1GiB"),
        MOVED.replace(" --new=3:16GiB:0", ""),
        MOVED.replace("3:16GiB", "3:40GiB"),
        MOVED.replace("3:16GiB:0", "3:16GiB:+4GiB"),
        MOVED.replace("3:16GiB", "3:17GiB"),
        MOVED.replace("[ -e /dev/vda2 ] || ", ""),
        MOVED.replace("      partx --add --nr 2:3 /dev/vda\n", ""),
        MOVED.replace("--move-second-header ", ""),
    ],
    "07-2": [lambda table: {}, lambda table: dict.fromkeys(table["mountpoint"], 1)],
    "07-3": [
        "#cloud-config\n",
        BROKEN_STORAGE + "\n",
        NODE[: NODE.index("mounts:")],
        NODE.replace(",nofail", ""),
        NODE.replace("/mnt/disks/vol-b", "/mnt/vol-b"),
    ],
    "08-1": [
        ("default", "default"),
        "default",
        ("default", "resize-rootfs-noblock"),
        ("as-in-a-cloud", "resize-rootfs-false"),
    ],
    "08-2": [[], ["growpart-off"], "default"],
    "08-3": [["growpart"], [], "image"],
}

#: Other right answers than the solutions'.
RIGHT = {
    "01-1": ["1"],
    "03-1": [f"{KEPT}growpart: {{mode: auto, devices: [/]}}\n"],
    "05-1": [SeedConfig(growpart=GrowpartMode.AUTO, resize_rootfs=ResizeRootfs.FALSE)],
    "06-3": [
        "#cloud-config\nbootcmd: [rm -f /etc/growroot-disabled]\n",
        f"{HEALED}, devices: /}}\n",
    ],
    "07-1": [MOVED.replace("[/dev/vda2,", "[LABEL=vol-a,").replace("[ -e", "[ -b")],
    "07-3": [NODE, NODE.replace("3:12GiB", "3:16GiB").replace("2:8GiB:+4GiB", "2:8GiB:+8GiB")],
    "08-1": [["both-off", "growpart-off"]],
    "08-3": [["image", "disk_size_bytes", "keep_overlay"], {"image", "disk_size_bytes"}],
}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        pytest.param(name, answer, id=f"{name}-{place}")
        for name, answers in RIGHT.items()
        for place, answer in enumerate(answers)
    ],
)
def test_a_right_answer_in_other_words_is_right(name, answer):
    verdict = check(name, answer)
    assert verdict.right, verdict


def test_the_number_of_a_line_may_be_digits_of_a_text():
    lines = (recorded("default").folder / "console.log").read_bytes().split(b"\n")
    number = next(n for n, line in enumerate(lines, 1) if b"resizing filesystem from" in line)
    assert check("04-1", str(number)).right
    assert "Answer with the number of a line" in str(check("04-1", "no number"))


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        pytest.param(name, answer, id=f"{name}-{place}")
        for name, answers in WRONG.items()
        for place, answer in enumerate(answers)
    ],
)
def test_a_wrong_answer_hears_what_is_off(name, answer):
    verdict = check(name, answer)
    assert verdict.right is False
    assert all(verdict.words)
    # Calling a learner's function may fail in any way; reading another answer may not.
    assert callable(answer) or "could not be checked" not in str(verdict), verdict
    assert "Not yet" in verdict._repr_html_()


def test_every_exercise_has_wrong_answers_to_try():
    assert set(WRONG) == set(exercises())


def test_an_answer_cannot_bring_markup_into_the_page():
    page = check("00-1", "<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in page


# ------------------------------------------------------------------ slides


def test_slides_stand_alone():
    spec = importlib.util.spec_from_file_location("slides", FOLDER / "slides.py")
    slides = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slides)
    page = slides.page_of(executed(path) for path in NOTEBOOKS)
    assert page.count("<section>") > 3 * len(NOTEBOOKS)
    # Nothing is fetched: neither scripts nor styles nor pictures.
    assert not re.search(r"<(script|link)\b|src=\"(?!data:)|@import|url\(", page)
    for path in NOTEBOOKS:
        assert re.match(r"# (.*)", read(path).cells[0].source)[1] in page
