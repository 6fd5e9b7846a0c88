"""Every shipped recording is explained as its case must be, from evidence that anybody can read."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from gallery import (
    _image,
    export_recording,
    main,
    modules_run,
    outcome,
    run_cases,
    unexpected,
)
from shipped import EACH_RECORDING, recorded

from cloudlab import tools
from cloudlab.course.cases import CASES, case_options
from cloudlab.explanation import Grower, Source, Subject
from cloudlab.run.boot import boot_many
from cloudlab.run.record import read_record, write_record
from cloudlab.run.value import Run, recording_names, recordings_folder
from cloudlab.sizes import check_sizes, parse_console, read_sizes

#: What may be shipped in all.
LIMIT_BYTES = 15_000_000


def test_every_case_has_its_recording_and_no_recording_is_without_a_case():
    assert set(recording_names()) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_case_comes_out_as_it_must(name):
    assert unexpected(name, recorded(name).explain()) == []


@EACH_RECORDING
def test_evidence_stands_on_the_line_that_it_names(name):
    recording = recorded(name)
    # Not read_text, which takes the console's carriage returns for line ends.
    lines = (
        (recording.folder / "console.log")
        .read_bytes()
        .decode("utf-8", errors="replace")
        .split("\n")
    )
    explanation = recording.explain()
    proofs = [
        proof for one in (*explanation.statements, *explanation.notes) for proof in one.evidence
    ]
    assert proofs
    for proof in proofs:
        if proof.line is not None:
            assert_stands(proof, lines[proof.line - 1])


def assert_stands(proof, line):
    """Read the line independently of the parser: its JSON, or its plain text."""
    frame = re.search(r"@cloudlab \w+ \d+ (\{.*\}) \d+(?: \d+)?@", line)
    if frame is None:
        assert proof.source is Source.CONSOLE
        assert proof.text in re.sub(r"\x1b\[[0-9;]*m|\r", "", line)
        return
    values = json.loads(frame[1])
    match values["kind"]:
        case "log":
            assert proof.text == values["text"]
        case "fact":
            # A quotation is cut at 300 characters.
            assert proof.text == f"{values['name']}: {values['value']}"[:300]
        case _:
            said = {str(one) for pair in values.items() for one in pair}
            said.add(values.get("device", values.get("name")))
            assert set(proof.text.split()) <= said


@EACH_RECORDING
def test_its_sizes_do_not_contradict_each_other(name):
    recording = recorded(name)
    if CASES[name].reads_seed:
        assert check_sizes(parse_console((recording.folder / "console.log").read_bytes())) == []
    assert not read_sizes(recording.folder / "sizes.csv").empty


@pytest.mark.parametrize("name", CASES)
def test_the_recording_tells_nothing_of_the_machine_that_made_it(name):
    folder = recorded(name).folder
    console = (folder / "console.log").read_text("utf-8", errors="replace")
    guest_paths = re.findall(r"/(?:root|home|tmp)/[^\s\"']*", console)
    for path in folder.iterdir():
        text = path.read_text("utf-8", errors="replace")
        host_paths = re.findall(r"/(?:root|home|tmp|work|Users)/[^\s\"']*", text)
        assert set(host_paths) <= set(guest_paths), path.name


def test_the_recordings_are_small_enough_to_ship():
    files = [path for path in recordings_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LIMIT_BYTES


def test_the_recordings_show_the_moment_of_growth():
    explanation = recorded("default").explain()
    [partition] = explanation.of(Subject.PARTITION)
    [filesystem] = explanation.of(Subject.FILESYSTEM)
    assert partition.when.stage == filesystem.when.stage == "cloud-init init"
    assert partition.when.not_before_s < partition.when.guest_s <= filesystem.when.guest_s


def test_growth_in_the_initramfs_is_seen_before_cloud_init():
    explanation = recorded("growroot").explain()
    [partition] = explanation.of(Subject.PARTITION)
    assert partition.when.stage == "initramfs"
    assert partition.by is Grower.GROWROOT


def test_the_partition_grew_up_to_the_wall():
    recording = recorded("wall")
    [partition] = recording.explain().of(Subject.PARTITION)
    [root] = [one for one in recording.layout("after").partitions if one.number == 1]
    assert root.start_bytes + partition.to_bytes == 8 << 30


def test_an_exported_recording_leaves_this_machine_behind(tmp_path):
    run, images, target = (tmp_path / name for name in ("run", "images", "shipped"))
    shutil.copytree(recorded("default").folder, run)
    record = read_record(run)
    disk = replace(
        record.disk_after, path=run / "overlay.qcow2", backing_file=str(images / "lab.qcow2")
    )
    write_record(
        run,
        replace(
            record,
            image=replace(record.image, path=str(images / "lab.qcow2")),
            disk_after=disk,
            command=(*record.command, f'{{"filename": "{run}/overlay.qcow2"}}'),
        ),
    )
    (run / "overlay.qcow2").touch()
    target.mkdir()
    (target / "left-over").touch()

    export_recording(Run(run), target)

    exported = Run(target)
    assert str(tmp_path) not in (target / "run.json").read_text("utf-8")
    assert exported.layout("after").path == Path("overlay.qcow2")
    assert exported.record.image.path == "lab.qcow2"
    assert exported.explain() == Run(run).explain()
    assert {path.name for path in target.iterdir()} == {
        path.name for path in recorded("default").folder.iterdir()
    }


def test_a_case_that_does_not_exist_is_refused(tmp_path, capsys):
    assert main(["default", "defualt", "--output", str(tmp_path)]) == 2
    assert "'defualt'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_old_boots_are_not_taken_for_fresh_ones(tmp_path, capsys):
    shutil.copytree(recorded("default").folder, tmp_path / "default")
    assert main(["default", "--output", str(tmp_path)]) == 1
    assert "already holds a run" in capsys.readouterr().err


def test_a_difference_is_told(capsys, tmp_path):
    """Recordings stand in for fresh boots, one under another's name."""
    for name, other in (("default", "default"), ("growpart-off", "default")):
        shutil.copytree(recorded(other).folder, tmp_path / name)
    kept = ["--output", str(tmp_path), "--resume"]
    assert main(["default", *kept]) == 0
    assert main(["default", "growpart-off", *kept]) == 1
    told = capsys.readouterr().out
    assert "FAIL growpart-off" in told
    assert "expected not grown by nobody (growpart-off), found grown by growpart" in told


#: Booted side by side, so that two of them at least start warm; the first one's disk is kept.
FRESH = ("default", "growpart-off", "wall")


@pytest.fixture(scope="module")
def fresh_runs(tmp_path_factory):
    runs = run_cases(FRESH, tmp_path_factory.mktemp("gallery"))
    assert [run.error for run in runs] == [None] * len(FRESH)
    return {run.name: run for run in runs}


@pytest.fixture(scope="module")
def fresh(fresh_runs):
    return fresh_runs["default"]


@pytest.mark.boots
@pytest.mark.xdist_group("boots")
def test_fresh_boots_cold_or_warm_come_out_as_the_cold_recordings(fresh_runs):
    kinds = [run.record.start.kind for run in fresh_runs.values()]
    assert kinds.count("warm") >= len(FRESH) - 1
    for name, run in fresh_runs.items():
        before = recorded(name)
        assert before.record.start.kind == "cold"
        assert run.console.find(r"\[ +OK +\]")
        assert not run.console.find(r"\[FAILED\]"), "a unit of the image failed"
        explanation = run.explain()
        assert unexpected(name, explanation) == []
        assert outcome(explanation) == outcome(before.explain())
        assert modules_run(run) == modules_run(before) != []


@pytest.mark.boots
@pytest.mark.xdist_group("boots")
def test_after_a_boot_the_disk_is_what_outside_tools_and_the_guest_say(fresh, tmp_path):
    ours = agree_with_outside_tools(
        fresh.folder / "overlay.qcow2", fresh.layout("after").to_json(), tmp_path / "after.raw"
    )
    guest = parse_console((fresh.folder / "console.log").read_bytes()).block("after")
    assert {
        int(one.name.removeprefix("vda")): (one.start_bytes, one.size_bytes)
        for one in guest.devices
        if one.parent == "vda"
    } == {number: (one["start_bytes"], one["size_bytes"]) for number, one in ours.items()}

    # Both filesystems, by the kernel's own statfs.
    assert {int(one.device.removeprefix("vda")): one.size_bytes for one in guest.filesystems} == {
        number: ours[number]["filesystem"]["statfs_bytes"] for number in (1, 15)
    }


@pytest.mark.boots
@pytest.mark.xdist_group("boots")
def test_before_a_boot_the_disk_is_what_outside_tools_and_the_guest_say(fresh, tmp_path):
    image = fresh.record.image.path
    ours = agree_with_outside_tools(
        image, fresh.layout("before").to_json(), tmp_path / "before.raw"
    )
    assert ours.keys() == {1, 14, 15}
    # bootcmd ran before anything grew.
    guest = parse_console((fresh.folder / "console.log").read_bytes()).block("before")
    assert {int(one.device.removeprefix("vda")): one.size_bytes for one in guest.filesystems} == {
        number: ours[number]["filesystem"]["statfs_bytes"] for number in (1, 15)
    }


#: Cases in which something did not grow that commands in the running guest can grow.  On a full
#: filesystem runcmd cannot write its script.
FIXABLE = ("growroot-disabled", "lvm", "mbr")


@pytest.mark.parametrize("name", ["growpart-off", "resize-rootfs-false"])
def test_the_commands_of_another_case_that_is_booted_include_these(name):
    these = commands_of(recorded(name).explain())
    assert these
    assert set(these) < set(commands_of(recorded("growroot-disabled").explain()))


@pytest.mark.boots
@pytest.mark.xdist_group("boots")
def test_the_commands_that_explain_offers_grow_the_disk_when_a_guest_runs_them(tmp_path):
    jobs = []
    for name in FIXABLE:
        options = case_options(name, _image(CASES[name], tmp_path))
        seed = replace(options.seed, runcmd=commands_of(recorded(name).explain()))
        jobs.append((replace(options, seed=seed, keep_overlay=False), tmp_path / name))
    for run in boot_many(jobs):
        assert run.error is None, run.name
        for subject in (Subject.PARTITION, Subject.FILESYSTEM):
            last = run.explain().of(subject)[-1]
            assert last.grown, (run.name, last)
            assert last.to_bytes > 19 << 30, (run.name, last)


def commands_of(explanation):
    """Return what a user would type, without the comments; cloud-init needs no sudo."""
    lines = [line for one in explanation.statements for line in (one.fix or "").splitlines()]
    commands = [line.partition("  #")[0].replace("sudo ", "") for line in lines]
    return tuple(dict.fromkeys(one for one in commands if one and not one.startswith("#")))


def agree_with_outside_tools(disk, inspected, raw):
    """Check what inspect said of a lab disk, and return its partitions by number."""
    tools.run(["qemu-img", "convert", "-O", "raw", disk, raw], timeout_s=300)
    ours = {one["number"]: one for one in inspected["partitions"]}
    theirs = json.loads(tools.run(["sfdisk", "--json", raw]).stdout)["partitiontable"]
    assert {number: (one["start_bytes"], one["size_bytes"]) for number, one in ours.items()} == {
        int(one["node"].removeprefix(str(raw))): (one["start"] * 512, one["size"] * 512)
        for one in theirs["partitions"]
    }
    for number, kind in ((1, "ext4"), (15, "vfat"), (14, None)):
        place = ["-O", str(ours[number]["start_bytes"]), "-S", str(ours[number]["size_bytes"])]
        said = tools.run(["blkid", "-p", "-o", "udev", *place, raw], check=False).stdout
        pairs = dict(line.split("=", 1) for line in said.splitlines())
        found = ours[number]["filesystem"]
        assert (found and found["type"]) == pairs.get("ID_FS_TYPE") == kind
        assert (found["uuid"] if found else None) == pairs.get("ID_FS_UUID")

    place = f"{raw}?offset={ours[1]['start_bytes']}"
    said = tools.run(["debugfs", "-c", "-R", "show_super_stats -h", place]).stdout
    blocks, unit = (
        int(re.search(rf"^{name}: +(\d+)", said, re.MULTILINE)[1])
        for name in ("Block count", "Block size")
    )
    filesystem = ours[1]["filesystem"]
    assert filesystem["size_bytes"] == blocks * unit <= ours[1]["size_bytes"]
    assert filesystem["statfs_bytes"] < filesystem["size_bytes"]
    return ours
