"""One value for every run: what a known recording says through each of its members."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import cloudlab
from cloudlab.console import Stage
from cloudlab.errors import CloudlabError, RecordingError, UsageError
from cloudlab.machine.config import Accel
from cloudlab.run.display import distinct
from cloudlab.run.options import Start
from cloudlab.run.record import Outcome
from cloudlab.run.value import (
    RootSizes,
    Run,
    compare,
    compare_options,
    open_run,
    recorded,
    recording_names,
    recordings,
    recordings_folder,
)
from cloudlab.seed import GrowpartMode, Profile
from cloudlab.sizes import SIZES_COLUMNS

#: Of the lab image: its root partition and filesystem, and its disk.
PARTITION, FILESYSTEM, DISK = 2097152000, 2040913920, 2214592512
GROWN = RootSizes(21358427648, 21148409856)


@pytest.fixture(scope="module")
def off():
    return recorded("growpart-off")


@pytest.fixture
def copied(tmp_path):
    shutil.copytree(recorded("default").folder, tmp_path / "mine")
    return Run(tmp_path / "mine")


def test_what_was_booted_is_typed(off):
    assert (off.name, off.scenario) == ("growpart-off", "growpart-off")
    assert off.outcome is Outcome.DONE
    assert off.options.growpart is GrowpartMode.OFF
    assert off.options.profile is Profile.LEAN
    assert off.options.disk_size_bytes == 20 << 30
    assert off.image.name == "lab-trixie-ext4-r2.qcow2"
    assert off.image.virtual_size_bytes == DISK
    assert off.record.accelerator.name is Accel.TCG
    assert off.record.start.kind is Start.COLD
    assert off.error is None


def test_the_label_has_date_image_and_accelerator(off, copied):
    words = "on 2026-11-26 with lab-trixie-ext4-r2.qcow2 under TCG"
    assert off.is_recording
    assert off.label == f"recorded {words}"
    assert not copied.is_recording
    assert copied.label == f"booted here {words}"
    assert off.took == "50.2 s, cold start (requested)"
    assert off.label in repr(off)


def test_root_before_and_after(off):
    assert off.root_sizes("before") == RootSizes(PARTITION, FILESYSTEM)
    assert off.root_sizes("after") == RootSizes(PARTITION, FILESYSTEM)
    assert recorded("default").root_sizes("after") == GROWN
    # Without a report from the guest: what the host read off the disk.
    assert recorded("no-seed").root_sizes("before") == RootSizes(PARTITION, FILESYSTEM)
    assert recorded("no-seed").root_sizes("after") == RootSizes(PARTITION, FILESYSTEM)
    assert recorded("whole-disk").root_sizes("after").partition_bytes is None


@pytest.mark.parametrize("name", ["wrong-label", "wrong-file-name", "no-seed"])
def test_root_before_a_boot_that_reported_nothing_is_the_images(name):
    run = recorded(name)
    assert run.root_sizes("before") == RootSizes(PARTITION, FILESYSTEM)
    assert run.root_sizes("after") == (
        GROWN if name == "wrong-file-name" else run.root_sizes("before")
    )


def test_the_sizes_table_has_its_columns(off):
    assert list(off.sizes.columns) == list(SIZES_COLUMNS)
    assert set(off.sizes["run"]) == {"growpart-off"}
    assert set(off.sizes["layer"]) >= {"image_file", "partition", "filesystem", "overlay_file"}


def test_the_disk_at_three_moments(off):
    image, before, after = (off.layout(when) for when in ("image", "before", "after"))
    assert image.virtual_size_bytes == DISK
    assert before.virtual_size_bytes == after.virtual_size_bytes == 20 << 30
    root = [one for one in after.partitions if one.number == 1]
    assert [(one.start_bytes, one.size_bytes) for one in root] == [(116391936, PARTITION)]
    assert root[0].filesystem.type == "ext4"
    grown = [one for one in recorded("default").layout("after").partitions if one.number == 1]
    assert [one.size_bytes for one in grown] == [GROWN.partition_bytes]


def test_stages_and_modules_in_their_order(off):
    stages = list(off.stages["stage"])
    assert stages == [stage for stage in Stage if stage in stages]
    assert stages[-1] == "report"
    assert list(off.stages["end_s"])[:-1] == list(off.stages["start_s"])[1:]
    assert off.stage_at(0.0) is Stage.FIRMWARE
    assert off.stage_at(48.0) is Stage.CLOUD_INIT_INIT
    modules = list(off.modules["module"])
    assert modules.index("bootcmd") < modules.index("growpart") < modules.index("resizefs")
    assert set(off.modules["line"]) == {693}


def test_the_extents_cover_the_disk(off):
    assert off.extents["length_bytes"].sum() == 20 << 30
    ends = off.extents["start_bytes"] + off.extents["length_bytes"]
    assert list(ends)[:-1] == list(off.extents["start_bytes"])[1:]
    assert set(off.extents["kind"]) >= {"data", "backing", "empty"}


def test_console_lines_have_number_time_and_text(off):
    transcript = (off.folder / "console.log").read_bytes().split(b"\n")
    assert len(off.console) == off.record.console.lines == len(transcript) - 1
    line = off.console[100]
    assert (line.number, line.time_s) == (101, 4.087)
    assert line.raw == transcript[100].rstrip(b"\r")
    assert line.text.startswith("[    0.143334] rcu: Preemptible")
    assert line == off.console.find("Preemptible hierarchical")[0]


def test_the_guests_own_logs_name_the_line_that_brought_them(off):
    assert [line.number for line in off.logs] == list(range(694, 708))
    assert "DataSourceNoCloud" in off.logs[0].text


def test_what_the_tools_printed(off):
    before, after = off.tool_output("before"), off.tool_output("after")
    assert before[-1].number < after[0].number
    text = repr(recorded("default").tool_output("after"))
    assert "19.9G" in text
    assert len(recorded("no-seed").tool_output("after")) == 0


def test_the_texts_that_cloud_init_was_given(off):
    assert "mode: 'off'" in off.user_data
    assert "instance-id: iid-gallery-growpart-off" in off.meta_data
    assert off.text("no such file") == ""


def test_a_missing_file_is_named_when_it_is_needed(copied):
    for name, member in {
        "console.log": "console",
        "console.cast": "console",
        "sizes.csv": "sizes",
        "extents.csv": "extents",
    }.items():
        run = Run(copied.folder)
        (copied.folder / name).rename(copied.folder / "away")
        with pytest.raises(CloudlabError, match=name) as caught:
            getattr(run, member)
        assert caught.value.hint
        (copied.folder / "away").rename(copied.folder / name)
    (copied.folder / "user-data").unlink()
    assert Run(copied.folder).user_data == ""


def test_members_are_read_once(copied):
    console, sizes, explanation = copied.console, copied.sizes, copied.explain()
    shutil.rmtree(copied.folder)
    assert copied.console is console
    assert copied.sizes is sizes
    assert copied.explain() is explanation


def test_the_names_in_a_table_are_those_of_the_record(copied):
    path = copied.folder / "sizes.csv"
    path.write_text(path.read_text().replace("default,default,", 'x,"<\x01\x1b[31mred",'))
    assert set(copied.sizes["run"]) == set(copied.sizes["scenario"]) == {"default"}


def test_a_run_is_explained_drawn_and_reported(off, tmp_path):
    assert "growpart is switched off" in off.explain().to_text()
    drawn = off.plot("disk-map")
    assert "vda1" in drawn.alt
    assert drawn.save(tmp_path / "map.svg").read_bytes().startswith(b"<?xml")
    report = off.save_report(tmp_path / "report.html").read_text("utf-8")
    assert "growpart-off" in report
    assert report.count("<img") == 2
    assert off.label in off._repr_html_()


def test_a_figure_of_several_runs_needs_a_kind_for_them(off):
    both = [off, recorded("default")]
    assert {"growpart-off", "default"} <= set(cloudlab.plot("scenarios", both).data["run"])
    with pytest.raises(UsageError, match="disk-map shows one run; 2 were given"):
        cloudlab.plot("disk-map", both)
    with pytest.raises(UsageError, match="'pie'") as caught:
        off.plot("pie")
    assert "disk-map" in caught.value.hint


def test_runs_side_by_side(off, copied):
    table = compare(off, recorded("default"), copied)
    assert list(table.index) == ["growpart-off", "default", "default (mine)"]
    assert list(table.loc["default (mine)"]) == [
        PARTITION,
        GROWN.partition_bytes,
        FILESYSTEM,
        GROWN.filesystem_bytes,
    ]
    assert pd.isna(compare(recorded("whole-disk")).iloc[0, 1])
    options = compare_options(off, recorded("default"))
    assert options.loc["growpart", "growpart-off"] == "off"
    assert options.loc["growpart", "default"] is None


def test_a_run_is_called_by_its_scenario(copied):
    path = copied.folder / "run.json"
    for scenario, called in (("growth off", "growth off"), ("", "default")):
        about = json.loads(path.read_bytes()) | {"name": "default", "scenario": scenario}
        path.write_text(json.dumps(about))
        assert Run(copied.folder).scenario == called


def test_runs_of_one_name_stay_apart(copied, tmp_path):
    """As build/demo/default and the one of last week."""
    assert copied.name == recorded("default").name
    pair = recorded("default"), copied
    assert list(compare(*pair).index) == ["default", "default (mine)"]
    assert list(compare_options(*pair).columns) == ["default", "default (2)"]
    drawn = cloudlab.plot("scenarios", pair)
    assert list(drawn.data["run"].unique()) == ["default", "default (2)"]
    assert "default: partition" in drawn.alt
    assert "default (mine): partition" in drawn.alt
    stages = cloudlab.plot("stages", pair).data
    assert not stages.duplicated(["run", "stage"]).any()
    assert distinct(["a", "a", "a (2)", "a"]) == ["a", "a (2)", "a (2) (2)", "a (3)"]
    twice = shutil.copytree(copied.folder, tmp_path / "old" / "mine")
    assert compare(copied, twice).index[-1] == "default (mine) (2)"


def test_opening_a_run(copied, monkeypatch):
    assert open_run(copied) is copied
    assert open_run(copied.folder).folder == copied.folder
    assert open_run(str(copied.folder)).name == "default"
    assert open_run("growroot").folder == recordings_folder() / "growroot"
    # A run folder of the user's comes first, another folder of that name does not.
    monkeypatch.chdir(copied.folder.parent)
    Path("growroot").mkdir()
    assert open_run("growroot").is_recording
    copied.folder.rename("xfs")
    assert not open_run("xfs").is_recording


@pytest.mark.parametrize("name", ["nowhere", "", ".", "x" * 300, "a\x00b", "/dev/null", "\udcff"])
def test_what_is_no_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError if name in ("", "a\x00b") else RecordingError) as caught:
        open_run(name)
    assert caught.value.hint


def test_an_unknown_recording_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="'defualt'") as caught:
        recorded("defualt")
    assert "default" in caught.value.hint
    with pytest.raises(UsageError):
        recorded("../recordings/default")


def test_all_recordings_in_order_of_name():
    runs = recordings()
    assert [run.name for run in runs] == recording_names() == sorted(recording_names())
    assert all(run.is_recording for run in runs)
