"""What values show of themselves in a notebook: numbers that are right, and nothing that acts."""

import json
import shutil
import subprocess

import pytest
from browser import chromium
from guests import make_guest, report
from IPython.core.interactiveshell import InteractiveShell

from cloudlab.disk import create_overlay, inspect_disk
from cloudlab.html import files_html, table_html
from cloudlab.image.cache import open_image
from cloudlab.run.boot import boot
from cloudlab.run.options import Options
from cloudlab.run.value import Run, explain, recorded
from cloudlab.seed import GrowpartMode, SeedConfig, build_seed

#: The words of the first table's body whose letters are on more than one line.
BROKEN_WORDS = """() => [...document.querySelector("tbody").querySelectorAll("th, td")].flatMap(
  (cell) => [...cell.textContent.matchAll(/[\\w.]+/g)].filter(({ 0: word, index }) => {
    const range = document.createRange();
    range.setStart(cell.firstChild, index);
    range.setEnd(cell.firstChild, index + word.length);
    return range.getClientRects().length > 1;
  }).map(([word]) => word))"""


def test_tables_escape_what_they_hold():
    shown = table_html(("<script>", "b"), [("\x1b[31mred", "<img src=x>")], caption="a & b")
    assert "<script>" not in shown
    assert "<img" not in shown
    assert "\x1b" not in shown
    assert "a &amp; b" in shown


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("name", ["node-storage", "lvm-extended"])
def test_a_table_fits_a_narrow_notebook_without_breaking_words(name):
    table = recorded(name).explain()._repr_html_().partition("</table>")[0] + "</table>"
    # A path is as long as it is, and may be broken.
    path = table_html(("a", "b"), [("folder", "/x" * 200)])
    style = "<style>td, th { padding: .5em; font: 12px sans-serif }</style>"
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 560, "height": 600})
        page.set_content(f"<!doctype html>{style}{table}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") == 560
        assert page.evaluate(BROKEN_WORDS) == []


def test_files_escape_what_they_hold():
    assert "&lt;b&gt;" in files_html({"user-data": "<b>\n"})


def test_an_image_shows_sizes_and_trust(tmp_path, own_cache):
    image = open_image(make_guest(tmp_path / "guest <b>.raw", "hello"))
    shown = image._repr_html_()
    assert "2.0 GiB" in shown
    assert image.trust in shown
    assert "guest &lt;b&gt;.raw" in shown


def test_an_overlay_shows_claim_and_cost(tmp_path):
    base = tmp_path / "base.raw"
    subprocess.run(["truncate", "-s", "1G", base], check=True)
    shown = create_overlay(base, "raw", tmp_path / "o.qcow2", 20 << 30)._repr_html_()
    assert "20.0 GiB" in shown
    assert "KiB" in shown
    assert "base.raw" in shown


def test_a_layout_shows_its_partitions(tmp_path):
    disk = tmp_path / "disk.raw"
    subprocess.run(["truncate", "-s", "64M", disk], check=True)
    subprocess.run(["sfdisk", "-q", disk], input="label: gpt\nsize=8M\n", text=True, check=True)
    shown = inspect_disk(disk)._repr_html_()
    assert "8.0 MiB" in shown
    assert "64.0 MiB" in shown
    assert "gpt" in shown


def test_a_seed_shows_its_files():
    shown = build_seed(SeedConfig(growpart=GrowpartMode.OFF))._repr_html_()
    assert "mode: &#x27;off&#x27;" in shown
    assert "instance-id" in shown


@pytest.mark.vm
@pytest.mark.parametrize("fine", [True, False], ids=["done", "failed"])
def test_a_run_shows_figure_and_facts(tmp_path, own_cache, fine):
    image = open_image(make_guest(tmp_path / "g.raw", report() if fine else "hello"))
    folder = tmp_path / "run"
    if fine:
        shown = boot(Options(image), folder)._repr_html_()
        assert '<img alt="' in shown
        assert "cloudlab-explanation" in shown
    else:
        from cloudlab.run.boot import boot_many

        [run] = boot_many([(Options(image, timeout_s=3), folder)])
        shown = run._repr_html_()
        assert "failed" in shown
    assert "g.raw" in shown


@pytest.fixture
def shown():
    """What a notebook shows of a value as a page, once it loaded the extension."""
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "cloudlab")
    return lambda value: shell.display_formatter.format(value)[0]["text/html"]


def root_disk(folder):
    disk, part = folder / "disk <b>.raw", folder / "root"
    script = "label: gpt\nsize=8M\nsize=40M\n"
    subprocess.run(["truncate", "-s", "64M", disk], check=True)
    subprocess.run(["sfdisk", "-q", disk], input=script, text=True, check=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "<i>", part, "40M"], check=True)
    with disk.open("r+b") as stream:
        stream.seek(9 << 20)
        stream.write(part.read_bytes())
    return disk


def alt_of(page):
    assert page.count("<img") == 1
    return page.split('<img alt="')[1].split('"')[0]


def test_a_layout_shows_its_map_too(tmp_path, shown):
    page = shown(inspect_disk(root_disk(tmp_path)))
    assert "vda2 40.0 MiB" in alt_of(page)
    assert "filesystem /" in alt_of(page)
    assert "disk &lt;b&gt;.raw" in alt_of(page)
    assert page.endswith(inspect_disk(tmp_path / "disk <b>.raw")._repr_html_())
    assert "<b>" not in page


def test_an_empty_disk_shows_its_table_alone(tmp_path, shown):
    disk = tmp_path / "disk.raw"
    subprocess.run(["truncate", "-s", "64M", disk], check=True)
    assert "<img" not in shown(inspect_disk(disk))


def test_an_image_shows_its_map_too_while_it_is_there(tmp_path, own_cache, shown):
    disk = root_disk(tmp_path)
    image = open_image(disk)
    assert "vda2 40.0 MiB" in alt_of(shown(image))
    disk.unlink()
    assert shown(image) == image._repr_html_()


def test_an_overlay_shows_where_it_was_written_to(tmp_path, shown):
    overlay = create_overlay(root_disk(tmp_path), "raw", tmp_path / "o.qcow2", 1 << 30)
    write = ["qemu-io", "-f", "qcow2", "-c", "write 20M 1M", overlay.path]
    subprocess.run(write, check=True, capture_output=True)
    page = shown(overlay)
    assert "1.0 GiB" in alt_of(page)
    assert "vda2 1.0 MiB" in alt_of(page)


def test_a_recording_shows_figure_reasons_and_that_it_is_one(shown):
    recording = recorded("growroot")
    assert "recorded on" in recording._repr_html_()
    page = shown(recording)
    assert "vda1 19.9 GiB" in alt_of(page)
    assert "cloudlab-explanation" in page
    assert recording.label in page


def test_an_explanation_shows_table_and_figure(shown):
    explanation = recorded("growpart-off").explain()
    table = explanation._repr_html_()
    assert "<table>" in table
    assert "growpart-off" in table
    assert explanation.to_html() in table
    page = shown(explanation)
    assert "partition" in alt_of(page)
    assert "layer by layer: growpart-off" in page


def test_an_explanation_of_files_is_named_after_them(tmp_path, shown):
    lines = ["NAME SIZE TYPE MOUNTPOINT", "sda 20G disk", "sda1 10G part /", "sda1 19.9G part /"]
    (tmp_path / "lsblk.txt").write_text("\n".join([*lines[:3], "$ lsblk", *lines[:2], lines[3]]))
    (tmp_path / "poem.txt").write_text("Whose disk this is\n")
    found = explain(tmp_path / "lsblk.txt", tmp_path / "poem.txt")
    assert "layer by layer: lsblk.txt and 1 more" in shown(found)


def test_a_hostile_recording_is_only_shown(tmp_path, shown):
    shutil.copytree(recorded("default").folder, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    about = json.loads(path.read_text("utf-8"))
    about["scenario"] = about["name"] = "<script>alert(1)</script>"
    about["image"]["name"] = "\x1b]0;title\x07<img src=x>"
    path.write_text(json.dumps(about), "utf-8")
    page = shown(Run(tmp_path / "run"))
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page
