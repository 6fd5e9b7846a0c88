"""What the notebooks call, held against real tools and real boots."""

import json
import re
import shutil
import subprocess

import pytest

from cloudlab.course import (
    Prediction,
    check,
    console,
    disks,
    layout,
    logs,
    machine_check,
    modules,
    runs,
    show,
    sizes,
    tables,
)
from cloudlab.course.cases import CASES
from cloudlab.course.exercises import CLUSTER_BYTES, GIB, free_behind, written_bytes
from cloudlab.course.mode import Mode, ModeChoice
from cloudlab.course.more_exercises import evidence
from cloudlab.course.settings import growth_of, planned_partitions
from cloudlab.course.storage import BROKEN_STORAGE
from cloudlab.disk import create_overlay, inspect_disk, overlay_map
from cloudlab.errors import ParseError, SeedError, UsageError
from cloudlab.explanation import Reason, Subject
from cloudlab.image.choose import open_image
from cloudlab.run.value import Run, recorded, recording_names
from cloudlab.seed import SeedConfig, build_seed, write_iso
from cloudlab.units import format_bytes

RECORDED = recording_names()


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


@pytest.mark.parametrize("case", RECORDED)
def test_what_a_text_switches_off_did_not_run_in_the_boot(case):
    run = recorded(case)
    growth = growth_of((run.folder / "user-data").read_text(encoding="utf-8"))
    reasons = {one.subject: one.reason for one in run.explain().statements}
    switched_off = reasons[Subject.PARTITION] is Reason.GROWPART_OFF
    assert growth.partition is not switched_off
    if reasons[Subject.FILESYSTEM] is Reason.RESIZE_ROOTFS_OFF:
        assert not growth.filesystem


@pytest.mark.parametrize(
    ("text", "partition", "filesystem"),
    [
        ("", True, True),
        ("#cloud-config\n", True, True),
        ("growpart: {mode: 'off'}\n", True, True),
        ("#cloud-config\ngrowpart: {mode: off}\n", False, True),
        ("#cloud-config\ngrowpart: {mode: 'OFF'}\n", False, True),
        ("#cloud-config\ngrowpart: 'off'\n", False, True),
        ("#cloud-config\ngrowpart:\nmode: auto\n", False, True),
        ("#cloud-config\ngrowpart: {mode: gpart}\n", False, True),
        ("#cloud-config\ngrowpart: {devices: [/boot]}\n", False, True),
        ("#cloud-config\ngrowpart: {devices: [/boot, /]}\n", True, True),
        ("#cloud-config\ngrowpart: {devices: []}\n", False, True),
        ("#cloud-config\nresize_rootfs: flase\n", True, False),
        ("#cloud-config\nresize_rootfs: noblock\n", True, True),
        ("#cloud-config\nresize_rootfs: 'no'\n", True, False),
        ("#cloud-config\nresize_rootfs: 'false\n", True, True),
    ],
)
def test_settings(text, partition, filesystem):
    growth = growth_of(text)
    assert (growth.partition, growth.filesystem) == (partition, filesystem)


def test_planned_partitions_are_those_of_the_disk_after_the_boot():
    planned = planned_partitions(CASES["node-storage"].user_data)
    disk = layout(recorded("node-storage"), "after").set_index("number")
    assert [one.number for one in planned] == [2, 3]
    for one in planned:
        assert disk.loc[one.number, "start_bytes"] == one.start_gib * GIB
    assert disk.loc[2, "size_bytes"] == planned[0].size_gib * GIB
    assert planned[1].size_gib is None
    # Root grew up to the wall, and no further.
    assert free_behind(layout(recorded("node-storage"), "after"), 1, 20 * GIB) == 0


@pytest.mark.parametrize("view", [console, logs], ids=["console", "logs"])
def test_a_line_number_leads_to_its_line(view):
    run = recorded("default")
    transcript = (run.folder / "console.log").read_bytes().split(b"\n")
    found = str(view(run, "resizing filesystem")).splitlines()
    assert found
    for line in found:
        number = int(line.split()[0])
        assert b"resizing filesystem" in transcript[number - 1]


def test_console_leaves_frames_out_unless_asked():
    run = recorded("default")
    assert "@cloudlab" not in str(console(run))
    assert "@cloudlab" in str(console(run, "@cloudlab", frames=True))


def test_tables_are_those_of_their_moment():
    run = recorded("default")
    assert re.search(r"vda1 .* 2G .*/$", str(tables(run, "before")), re.MULTILINE)
    assert re.search(r"vda1 .* 19\.9G .*/$", str(tables(run, "after")), re.MULTILINE)


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


def test_without_a_prediction_nothing_is_booted(monkeypatch):
    started = []
    monkeypatch.setattr(runs, "_boot", started.extend)
    monkeypatch.setattr(runs, "mode", lambda: ModeChoice(Mode.LIVE, ""))
    [run] = runs.boot_all({"default": Prediction()})
    assert run.folder == recorded("default").folder
    assert not started


def test_a_mended_text_is_played_as_what_it_means(monkeypatch):
    monkeypatch.setenv("CLOUDLAB_MODE", "replay")
    text = "#cloud-config\ngrowpart:\n  mode: 'off'\nresize_rootfs: false\n"
    assert runs.boot_text(text).name == "both-off"
    with pytest.raises(SeedError, match="line"):
        runs.boot_text("#cloud-config\ngrowpart: {mode: 'off\n")


def test_sgdisk_makes_all_the_partitions_of_the_broken_text_or_none(tmp_path):
    disk = tmp_path / "disk.raw"
    disk.touch()
    subprocess.run(["qemu-img", "resize", "-q", "-f", "raw", disk, "20G"], check=True)
    subprocess.run(["sgdisk", "--new=1:1MiB:+2000MiB", disk], check=True, capture_output=True)

    def carve(text):
        [line] = [one for one in text.splitlines() if "sgdisk" in one]
        argv = line.replace("/dev/vda", str(disk)).split()
        return subprocess.run(argv, check=False, capture_output=True).returncode

    def numbers():
        return [one.number for one in inspect_disk(disk, "raw").partitions]

    assert carve(BROKEN_STORAGE) == 4
    assert numbers() == [1]
    assert carve(CASES["node-storage"].user_data) == 0
    assert numbers() == [1, 2, 3]
    # Why bootcmd looks first whether they are there.
    assert carve(CASES["node-storage"].user_data) == 4


def test_two_runs_of_one_scenario_have_a_row_each(tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(recorded("default").folder, mine)
    table = sizes(recorded("default"), Run(mine))
    assert len(table) == 2


def test_patient_bs_text_has_the_lines_that_the_log_counts():
    shown = str(evidence("B")).split("user-data:\n")[1].splitlines()
    text = CASES["unclosed-quote"].user_data.splitlines()
    assert shown.index("  growpart:") == text.index("growpart:")
    assert "never closed" not in "\n".join(shown)


def test_modules_are_those_that_the_guest_told():
    run = recorded("as-in-a-cloud")
    log = (run.folder / "console.log").read_text("utf-8", "replace")
    told = re.search(r'"name":"modules","value":"([^"]+)"', log)[1]
    found = modules(run).groupby("stage", sort=False)["module"].agg(" ".join)
    assert [f"{stage}: {names}" for stage, names in found.items()] == told.split("; ")


def test_before_shows_nothing_of_the_boot():
    assert "19." not in show("layers", recorded("default"), only_before=True).alt


def test_real_files_are_looked_at(tmp_path, monkeypatch):
    base = tmp_path / "cache" / "images" / "own.qcow2"
    base.parent.mkdir(parents=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "64M"], check=True)
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "cache"))
    image = open_image(base)
    monkeypatch.setattr(disks, "cached_images", lambda: [image])
    assert f"virtual size: {20 * GIB:,}" in str(disks.try_overlay(tmp_path / "o.qcow2"))
    assert f"virtual size: {20 * GIB:,}" in str(disks.try_overlay(tmp_path / "o.qcow2"))
    monkeypatch.setattr(disks, "cached_images", list)
    assert "nothing was made" in str(disks.try_overlay(tmp_path / "none.qcow2"))
    assert disks.image_layout().equals(layout(recorded("default")))


def test_the_seed_is_listed(tmp_path):
    iso = write_iso(build_seed(SeedConfig(report=False)), tmp_path / "seed.iso")
    text = str(disks.iso_contents(iso))
    assert "label: cidata" in text
    assert {"meta-data", "user-data"} <= set(re.findall(r"^  (\S+):", text, re.MULTILINE))
    (tmp_path / "no.iso").write_bytes(b"no")
    with pytest.raises(SeedError, match="cannot be read"):
        disks.iso_contents(tmp_path / "no.iso")


def test_short_words_stay_whole_and_qemus_own_words_are_folded():
    detail = "tcg: software emulation, because QEMU cannot use kvm: qemu: Assertion `x' failed."
    checks = [{"name": "accelerator", "ok": True, "detail": detail, "fix": ""}]
    page = machine_check({"checks": checks})._repr_html_()
    assert re.search(r"<t[hd][^>]*nowrap[^>]*>ok</t", page)
    assert "Assertion" not in page.split("<details>")[0]
    assert "Assertion" in page


def test_a_picture_is_saved_with_its_words(tmp_path):
    picture = show("layers", recorded("default"))
    text = picture.save(tmp_path / "layers.svg").read_text(encoding="utf-8")
    image_bytes = recorded("default").record.image.file_size_bytes
    assert format_bytes(image_bytes) in text
    assert "<desc" in text


def test_sizes_of_root_are_the_guests_own():
    run = recorded("default")
    frames = re.findall(
        r'@cloudlab after \d+ (\{"kind":"(?:block|filesystem)".*\}) \d+@',
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


def test_an_unknown_case_or_exercise_is_told():
    with pytest.raises(UsageError, match="no recording called 'no such case'"):
        recorded("no such case")
    with pytest.raises(UsageError, match="no exercise"):
        check("99-1", 1)
