"""What values show of themselves in a notebook: numbers that are right, and nothing that acts."""

import subprocess

import pytest
from guests import make_guest, report

from cloudlab.disk import create_overlay, inspect_disk
from cloudlab.image.choose import open_image
from cloudlab.lab import RunOptions, run_lab
from cloudlab.markup import files_html, table_html
from cloudlab.seed import GrowpartMode, SeedConfig, build_seed


def test_tables_escape_what_they_hold():
    shown = table_html(("<script>", "b"), [("\x1b[31mred", "<img src=x>")], caption="a & b")
    assert "<script>" not in shown
    assert "<img" not in shown
    assert "\x1b" not in shown
    assert "a &amp; b" in shown


def test_files_escape_what_they_hold():
    assert "&lt;b&gt;" in files_html({"user-data": "<b>\n"})


def test_an_image_shows_sizes_and_trust(tmp_path, own_cache):
    image = open_image(make_guest(tmp_path / "guest <b>.raw", "hello"))
    shown = image._repr_html_()
    assert "2 GiB" in shown
    assert image.trust in shown
    assert "guest &lt;b&gt;.raw" in shown


def test_an_overlay_shows_claim_and_cost(tmp_path):
    base = tmp_path / "base.raw"
    subprocess.run(["truncate", "-s", "1G", base], check=True)
    shown = create_overlay(base, "raw", tmp_path / "o.qcow2", 20 << 30)._repr_html_()
    assert "20 GiB" in shown
    assert "KiB" in shown
    assert "base.raw" in shown


def test_a_layout_shows_its_partitions(tmp_path):
    disk = tmp_path / "disk.raw"
    subprocess.run(["truncate", "-s", "64M", disk], check=True)
    subprocess.run(["sfdisk", "-q", disk], input="label: gpt\nsize=8M\n", text=True, check=True)
    shown = inspect_disk(disk)._repr_html_()
    assert "8 MiB" in shown
    assert "64 MiB" in shown
    assert "gpt" in shown


def test_a_seed_shows_its_files():
    shown = build_seed(SeedConfig(growpart=GrowpartMode.OFF))._repr_html_()
    assert "mode: &#x27;off&#x27;" in shown
    assert "instance-id" in shown


@pytest.mark.parametrize("fine", [True, False], ids=["done", "failed"])
def test_a_run_shows_figure_and_facts(tmp_path, own_cache, fine):
    image = open_image(make_guest(tmp_path / "g.raw", report() if fine else "hello"))
    folder = tmp_path / "run"
    if fine:
        shown = run_lab(RunOptions(image), folder)._repr_html_()
        assert '<img alt="' in shown
        assert "cloudlab-explanation" in shown
    else:
        from cloudlab.lab import run_many

        [run] = run_many([(RunOptions(image, timeout_s=3), folder)])
        shown = run._repr_html_()
        assert "failed" in shown
    assert "g.raw" in shown
