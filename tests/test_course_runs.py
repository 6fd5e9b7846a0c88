"""What the notebooks call, held against real tools and real boots."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from guests import make_guest

from cloudlab import course
from cloudlab.course import Prediction, machine_check, runs
from cloudlab.course.cases import CASES
from cloudlab.course.checks.nb02 import CLUSTER_BYTES, GIB, written_bytes
from cloudlab.disk import create_overlay, overlay_map
from cloudlab.errors import ParseError, SeedError, UsageError
from cloudlab.image.cache import open_image, remember, sha256_of
from cloudlab.run.value import Run, compare, recorded
from cloudlab.seed import write_seed
from cloudlab.units import format_bytes


@pytest.mark.parametrize(
    ("offset_bytes", "length_bytes"),
    [(5 * GIB, 1), (CLUSTER_BYTES - 1, 2), (0, CLUSTER_BYTES), (3 * CLUSTER_BYTES + 5, 200_000)],
    ids=["one byte", "over a border", "a whole cluster", "several"],
)
def test_a_write_costs_what_qemu_allocates(tmp_path, offset_bytes, length_bytes):
    base = tmp_path / "base.raw"
    base.touch()
    subprocess.run(["qemu-img", "resize", "-q", "-f", "raw", base, "2G"], check=True)
    overlay = create_overlay(base, "raw", tmp_path / "overlay.qcow2", 20 * GIB)
    write = f"write {offset_bytes} {length_bytes}"
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", write, overlay.path], check=True, capture_output=True
    )
    taken = sum(one.length_bytes for one in overlay_map(overlay.path) if one.kind == "data")
    assert written_bytes(offset_bytes, length_bytes) == taken


@pytest.mark.parametrize("view", ["console", "logs"])
def test_a_line_number_leads_to_its_line(view):
    run = recorded("default")
    transcript = (run.folder / "console.log").read_bytes().split(b"\n")
    found = str(getattr(run, view).find("resizing filesystem")).splitlines()
    assert found
    for line in found:
        number = int(line.split()[0])
        assert b"resizing filesystem" in transcript[number - 1]


def test_console_leaves_frames_out_unless_asked():
    run = recorded("default")
    assert "@cloudlab" not in str(run.console.find())
    assert "@cloudlab" in str(run.console.find("@cloudlab", report=True))


def test_tables_are_those_of_their_moment():
    run = recorded("default")
    assert re.search(r"vda1 .* 2G .*/$", str(run.tool_output("before")), re.MULTILINE)
    assert re.search(r"vda1 .* 19\.9G .*/$", str(run.tool_output("after")), re.MULTILINE)


def test_prediction_says_both_numbers():
    run = recorded("growpart-off")
    words = str(Prediction("20G", "2G").compare(run))
    assert "predicted 20.0 GiB, measured 2.0 GiB" in words
    assert "no prediction" in str(Prediction().compare(run))


def test_a_prediction_is_checked_before_a_boot():
    with pytest.raises(ParseError, match="'twenty'"):
        Prediction("twenty", "2G")
    with pytest.raises(UsageError, match="'20' for the partition has no unit"):
        Prediction("20", "2")
    with pytest.raises(UsageError, match="Half of the prediction"):
        Prediction(partition="2G")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Prediction(20, 1.5), "The prediction 20 for the partition is not text"),
        (lambda: Prediction("20G", None), "The prediction None for the filesystem is not text"),
        (lambda: Prediction("20G", b"1G"), "for the filesystem is not text"),
        (lambda: Prediction("20G", "1G").compare("default"), "'default' is no run"),
        (lambda: runs.boot_text({"resize_rootfs": False}), "user_data"),
        (lambda: runs.boot_text(b"#cloud-config\n"), "user_data"),
        (lambda: runs.boot_text(None), "user_data"),
        (lambda: runs.boot_all(Prediction()), "no list of boots"),
        (lambda: runs.boot_all("default"), "no list of boots"),
        (lambda: course.send_to_class([Prediction("3G", "3G")], to="x"), "predictions"),
        (lambda: course.send_to_class("x", to="x"), "predictions"),
        (lambda: course.send_to_class({"default": "3G"}, to="x"), "predictions"),
        (lambda: course.send_to_class(name="\udcff", to="x"), "name has no value"),
        (lambda: course.room_board("x" * 300), "no folder xxx"),
        (lambda: course.boot(["default"]), "'default'"),
        (lambda: course.mounted(3), "3 is no path"),
        (lambda: course.iso_contents("a\0b"), "is no path"),
        (lambda: course.evidence("Z"), "There is no patient 'Z'"),
        (lambda: course.evidence(5), "There is no patient 5"),
        (lambda: course.labelled("Z"), "There is no table 'Z'"),
        (lambda: course.labelled(None), "There is no table None"),
        (lambda: machine_check({}), "no report of 'cloudlab doctor --json'"),
        (lambda: machine_check("x"), "no report of 'cloudlab doctor --json'"),
        (lambda: machine_check({"checks": [{}]}), "no report of 'cloudlab doctor --json'"),
    ],
)
def test_a_wrong_argument_is_told(call, words, monkeypatch, tmp_path):
    monkeypatch.setenv("CLOUDLAB_MODE", "replay")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words) as caught:
        call()
    assert caught.value.hint


def test_letters_may_be_small():
    assert str(course.evidence("a")) == str(course.evidence("A"))
    assert str(course.labelled("b")) == str(course.labelled("B"))


def test_a_template_has_no_recording_and_boots_live(monkeypatch, tmp_path):
    text, booted = "## template: jinja\n#cloud-config\nresize_rootfs: false\n", []
    monkeypatch.setenv("CLOUDLAB_MODE", "replay")
    with pytest.raises(UsageError, match="No recording uses this user-data"):
        runs.boot_text(text)
    monkeypatch.setattr(runs, "mode", lambda: runs.Mode(live=True, reason=""))
    image = make_guest(tmp_path / "image.raw", "")
    monkeypatch.setattr(runs, "_choose_image", lambda: open_image(image))
    monkeypatch.setattr(runs, "_run", lambda jobs: [booted.append(jobs)])
    runs.boot_text(text)
    [[options]] = [job.values() for job in booted]
    assert options.user_data == text


def test_without_a_prediction_nothing_is_booted(monkeypatch):
    started = []
    monkeypatch.setattr(runs, "_boot", started.extend)
    monkeypatch.setattr(runs, "mode", lambda: runs.Mode(live=True, reason=""))
    [run] = runs.boot_all({"default": Prediction()})
    assert run.folder == recorded("default").folder
    assert not started


def test_a_mended_text_is_played_as_what_it_means(monkeypatch):
    monkeypatch.setenv("CLOUDLAB_MODE", "replay")
    text = "#cloud-config\ngrowpart:\n  mode: 'off'\nresize_rootfs: false\n"
    assert runs.boot_text(text).name == "both-off"
    storage = CASES["node-storage"].user_data
    assert runs.boot_text(storage + "# the same\n").name == "node-storage"
    with pytest.raises(UsageError, match="sets up disks"):
        runs.boot_text(storage.replace("8GiB", "9GiB"))
    with pytest.raises(SeedError, match="line"):
        runs.boot_text("#cloud-config\ngrowpart: {mode: 'off\n")


def test_two_runs_of_one_scenario_have_a_row_each(tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(recorded("default").folder, mine)
    table = compare(recorded("default"), Run(mine))
    assert len(table) == 2


def test_modules_are_those_that_the_guest_told():
    run = recorded("as-in-a-cloud")
    log = (run.folder / "console.log").read_text("utf-8", "replace")
    told = re.search(r'"name":"modules","value":"([^"]+)"', log)[1]
    found = run.modules.groupby("stage", sort=False)["module"].agg(" ".join)
    assert [f"{stage}: {names}" for stage, names in found.items()] == told.split("; ")


def test_before_shows_nothing_of_the_boot():
    run = recorded("default")
    before = run.sizes[run.sizes["stage"].isin(["image", "before"])]
    assert "19." not in run.plot("layers", tables={"sizes": before}).alt


def test_real_files_are_looked_at(tmp_path, monkeypatch):
    base = tmp_path / "cache" / "images" / "own.qcow2"
    base.parent.mkdir(parents=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "64M"], check=True)
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "cache"))
    remember(replace(open_image(base), sha256=sha256_of(base)))
    assert f"virtual size: {20 * GIB:,}" in str(runs.try_overlay(tmp_path / "o.qcow2"))
    assert f"virtual size: {20 * GIB:,}" in str(runs.try_overlay(tmp_path / "o.qcow2"))
    # What "auto" does not take is not shown either.
    remember(replace(open_image(base), details={"variant": "lvm"}))
    assert "no overlay was made" in str(runs.try_overlay(tmp_path / "none.qcow2"))
    assert runs.image_layout().equals(recorded("default").partitions("image"))


@pytest.mark.parametrize("path", [3, "", "a\0b", ".", "x" * 300])
def test_an_overlay_that_cannot_be_tried_is_said(path, tmp_path, monkeypatch):
    base = tmp_path / "images" / "own.qcow2"
    base.parent.mkdir()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "64M"], check=True)
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    remember(replace(open_image(base), sha256=sha256_of(base)))
    assert "The overlay could not be created." in str(runs.try_overlay(path))


def test_the_seed_is_listed(tmp_path):
    iso = tmp_path / "seed.iso"
    write_seed(iso)
    text = str(runs.iso_contents(iso))
    assert "label: cidata" in text
    assert {"meta-data", "user-data"} <= set(re.findall(r"^  (\S+):", text, re.MULTILINE))
    (tmp_path / "no.iso").write_bytes(b"no")
    with pytest.raises(SeedError, match="cannot be read"):
        runs.iso_contents(tmp_path / "no.iso")


def test_short_words_stay_whole_and_qemus_own_words_are_folded():
    detail = "tcg: software emulation, because QEMU cannot use kvm: qemu: Assertion `x' failed."
    checks = [{"name": "accelerator", "ok": True, "detail": detail, "fix": ""}]
    page = machine_check({"checks": checks})._repr_html_()
    assert re.search(r"<t[hd][^>]*nowrap[^>]*>ok</t", page)
    assert "Assertion" not in page.split("<details>")[0]
    assert "Assertion" in page


def test_a_picture_is_saved_with_its_words(tmp_path):
    picture = recorded("default").plot("layers")
    text = picture.save(tmp_path / "layers.svg").read_text(encoding="utf-8")
    image_bytes = recorded("default").record.image.file_size_bytes
    assert format_bytes(image_bytes) in text
    assert "<desc" in text


def test_sizes_of_root_are_the_guests_own():
    run = recorded("default")
    frames = re.findall(
        r'@cloudlab after \d+ (\{"kind":"(?:block|filesystem)".*\}) \d+ \d+@',
        (run.folder / "console.log").read_text(encoding="utf-8", errors="replace"),
    )
    told = [json.loads(frame) for frame in frames]
    [partition] = [one["size_bytes"] for one in told if one.get("name") == "vda1"]
    [filesystem] = [one["size_bytes"] for one in told if one.get("mountpoint") == "/"]
    assert run.root_sizes("after") == (partition, filesystem)


def test_what_a_host_says_cannot_become_markup():
    detail = "<img src=x onerror=alert(1)>"
    report = {"checks": [{"name": "disk", "ok": False, "detail": detail, "fix": detail}]}
    assert "<img" not in machine_check(report)._repr_html_()


def test_an_unknown_case_is_told():
    with pytest.raises(UsageError, match="no recording called 'no such case'"):
        recorded("no such case")
