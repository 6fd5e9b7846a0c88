"""The host's own rows of a run's tables: what lay on the disk before and after the boot."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from shipped import EACH_RECORDING, recorded

from cloudlab.disk import DiskLayout, Extent, Filesystem, Partition
from cloudlab.explanation import Subject
from cloudlab.figures.data import RunSizes
from cloudlab.run.record import Record
from cloudlab.run.tables import extents_frame, read_run_extents, with_disk, write_csv
from cloudlab.run.value import Run
from cloudlab.sizes import read_sizes, sizes_frame


def built(recording):
    sizes = recording.sizes
    return sizes[(sizes["stage"] == "image") & sizes["layer"].isin(["partition", "filesystem"])]


@EACH_RECORDING
def test_figures_say_of_growth_what_the_explanation_says(name):
    recording = recorded(name)
    explanation = recording.explain()
    sizes = RunSizes(recording.sizes)
    partition, filesystem = (
        any(one.grown for one in explanation.of(subject))
        for subject in (Subject.PARTITION, Subject.FILESYSTEM)
    )
    assert sizes.grew("filesystem") is filesystem
    assert sizes.whole_disk == (name == "whole-disk")
    assert sizes.grew("partition") is (None if sizes.whole_disk else partition)


def test_the_disk_before_the_boot_is_in_the_table():
    rows = built(recorded("growroot"))
    root = rows[rows["mountpoint"] == "/"].set_index("layer")
    assert root.loc["partition", "size_bytes"] == 2000 << 20
    assert root.loc["partition", "start_bytes"] == 111 << 20
    assert root.loc["partition", "source"] == "host: partition table"
    assert root.loc["filesystem", "source"] == "host: superblock"
    assert rows["exact"].all()
    assert rows["line"].isna().all()


def test_rows_that_are_there_are_not_added_again():
    recording = recorded("growroot")
    once = recording.sizes
    pd.testing.assert_frame_equal(with_disk(once, recording.record), once)


@pytest.mark.parametrize("missing", ["disk_before", "a partition's filesystem"])
def test_a_run_without_a_known_disk_keeps_its_table(tmp_path, missing):
    shutil.copytree(recorded("default").folder, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    about = json.loads(path.read_text("utf-8"))
    if missing == "disk_before":
        del about["disk_before"]
    else:
        for one in about["disk_before"]["partitions"]:
            one["filesystem"] = None
    path.write_text(json.dumps(about), "utf-8")
    recording = Run(tmp_path / "run")
    expected = read_sizes(recording.folder / "sizes.csv")
    pd.testing.assert_frame_equal(recording.sizes, expected)


def test_a_silent_guest_leaves_the_host_to_tell(tmp_path):
    """Two rows of a boot without any report, its disk as inspect says it."""
    filesystem = Filesystem("ext4", size_bytes=2 << 30, statfs_bytes=1900 << 20)
    root = Partition(1, 1 << 20, 2 << 30, filesystem=filesystem)
    disk = DiskLayout(Path("disk"), "qcow2", 20 << 30, 1 << 20, None, "gpt", (root,))
    overlay = {"run": "r", "stage": "before", "layer": "overlay_file", "source": "host: blocks"}
    record = Record(disk_before=disk, disk_after=disk, time_s=9.0)
    sizes = with_disk(sizes_frame([overlay]), record)
    run = RunSizes(sizes)
    assert run.ends("partition") == (2 << 30, 2 << 30)
    assert run.ends("filesystem") == (1900 << 20, 1900 << 20)
    assert (run.grew("partition"), run.grew("filesystem")) == (False, False)


def test_the_extents_cover_the_disk(tmp_path):
    extents = [
        Extent(0, 1 << 16, "data", "table"),
        Extent(1 << 16, 20 << 30, "backing", "1"),
    ]
    write_csv(extents_frame("r", extents), tmp_path / "extents.csv")
    found = read_run_extents(tmp_path, Record(name="r"))
    assert found["length_bytes"].sum() == (20 << 30) + (1 << 16)
    assert list(found["kind"]) == ["data", "backing"]
