"""What the notebooks call, held against real tools and real boots."""

import json
import re
import subprocess

import pytest

from cloudlab.disk import create_overlay, overlay_map
from cloudlab.errors import ParseError, UsageError
from cloudlab.explain import Reason, Subject
from cloudlab.lab.cases import CASES
from cloudlab.lab.teaching import (
    Prediction,
    check,
    console,
    explain_run,
    layout,
    logs,
    machine_check,
    recorded,
    show,
    tables,
)
from cloudlab.lab.teaching.exercises import CLUSTER_BYTES, GIB, free_behind, written_bytes
from cloudlab.lab.teaching.settings import growth_of, planned_partitions
from cloudlab.lab.teaching.views import root_sizes
from cloudlab.recording import shipped_recordings

RECORDED = list(shipped_recordings())


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
    reasons = {one.subject: one.reason for one in explain_run(run).statements}
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
        ("#cloud-config\ngrowpart: 'off'\n", True, True),
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
    transcript = run.console_log.read_bytes().split(b"\n")
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
    assert "predicted 20 GiB, measured 2.0 GiB" in words
    assert "no prediction" in str(Prediction().compare(run))
    with pytest.raises(ParseError):
        Prediction("large", "2G").compare(run)


def test_a_picture_is_saved_with_its_words(tmp_path):
    picture = show("layers", recorded("default"))
    text = picture.save(tmp_path / "layers.svg").read_text(encoding="utf-8")
    assert "143 MiB" in text
    assert "<desc" in text


def test_sizes_of_root_are_the_guests_own():
    run = recorded("default")
    frames = re.findall(
        r'@cloudlab after \d+ (\{"kind":"(?:block|filesystem)".*\}) \d+@',
        run.console_log.read_text(encoding="utf-8", errors="replace"),
    )
    told = [json.loads(frame) for frame in frames]
    [partition] = [one["size_bytes"] for one in told if one.get("name") == "vda1"]
    [filesystem] = [one["size_bytes"] for one in told if one.get("mountpoint") == "/"]
    assert root_sizes(run, "after") == (partition, filesystem)


def test_what_a_host_says_cannot_become_markup():
    detail = "<img src=x onerror=alert(1)>"
    report = {"checks": [{"name": "disk", "ok": False, "detail": detail, "fix": detail}]}
    assert "<img" not in machine_check(report)._repr_html_()


def test_an_unknown_case_or_exercise_is_told():
    with pytest.raises(UsageError, match="Nobody recorded"):
        recorded("no such case")
    with pytest.raises(UsageError, match="no exercise"):
        check("99-1", 1)
