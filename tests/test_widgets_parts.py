"""The panels' pure parts: nearest recording, marked text, escaping, scores, moments."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest

from cloudlab.console import ConsoleLine, Stage
from cloudlab.course import Prediction
from cloudlab.course.cases import CASES
from cloudlab.course.prediction import ends
from cloudlab.errors import InterruptedRunError, RecordingError
from cloudlab.figures.data import disk_map_data, prediction_data
from cloudlab.html import table_html
from cloudlab.run.value import Run, recorded, recordings
from cloudlab.seed import GrowpartMode, Profile, SeedConfig, to_user_data
from cloudlab.units import GIB
from cloudlab.widgets.boot import console_html, replay_events
from cloudlab.widgets.boot_panels import marked_html
from cloudlab.widgets.disk_map import change_times, disk_at, map_html, overlay_at
from cloudlab.widgets.panel import PredictionForm, error_html
from cloudlab.widgets.results import (
    Finished,
    choices,
    export,
    history_html,
    linked,
    nearest,
    playable,
    predicted_html,
    proof_html,
    result_html,
    still_html,
)

PLAIN = "lab-trixie-ext4-r2.qcow2"
OFF = SeedConfig(growpart=GrowpartMode.OFF)
NOTHING_SET = SeedConfig()


@pytest.fixture(scope="module", name="recordings")
def _recordings():
    return playable(recordings())


@pytest.fixture(scope="module")
def default():
    return recorded("default")


@pytest.fixture(scope="module")
def sizes(default):
    return default.sizes


def wish(seed=NOTHING_SET, image=PLAIN, disk_size_bytes=20 * GIB) -> dict:
    return {
        "user_data": to_user_data(seed), "image": image, "disk_size_bytes": disk_size_bytes,
        "profile": seed.profile.value,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "name"),
    [
        pytest.param(SeedConfig(), "default", id="nothing set"),
        pytest.param(OFF, "growpart-off", id="growpart off"),
        pytest.param(CASES["wall"].seed, "wall", id="a wall made in bootcmd"),
    ],
)
def test_finds_what_was_recorded(recordings, seed, name):
    match = nearest(recordings, **wish(seed))
    assert (match.recording.name, match.differences) == (name, ())


@pytest.mark.parametrize(
    ("wished", "name", "differences"),
    [
        pytest.param(
            wish(SeedConfig(growpart=GrowpartMode.AUTO)),
            "default",
            ("growpart.mode: recorded with not set, you chose auto",),
            id="even what means the same was not recorded",
        ),
        pytest.param(
            wish(disk_size_bytes=40 * GIB),
            "default",
            ("disk size: recorded with 20.0 GiB, you chose 40.0 GiB",),
            id="another disk",
        ),
        pytest.param(
            wish(disk_size_bytes=20 * GIB + 512),
            "default",
            ("disk size: recorded with 21,474,836,480 bytes, you chose 21,474,836,992 bytes",),
            id="a size that rounds to the same",
        ),
        pytest.param(
            wish(OFF, image="other.qcow2"),
            "growpart-off",
            (f"image: recorded with {PLAIN}, you chose other.qcow2",),
            id="an image that nobody recorded",
        ),
        pytest.param(
            wish(replace(OFF, profile=Profile.FULL)),
            "growpart-off",
            ("profile: recorded with lean, you chose full",),
            id="more modules",
        ),
        pytest.param(
            wish(SeedConfig(runcmd=("echo hello",))),
            "default",
            ("runcmd: recorded with not set, you chose [echo hello]",),
            id="a command",
        ),
    ],
)
def test_says_how_the_nearest_differs(recordings, wished, name, differences):
    match = nearest(recordings, **wished)
    assert (match.recording.name, match.differences) == (name, differences)


def test_sizes_that_round_alike_are_told_apart():
    match = nearest([recorded("disk-as-large-as-image")], **wish(disk_size_bytes=2150 << 20))
    told = f"disk size: recorded with {2112 << 20:,} bytes, you chose {2150 << 20:,} bytes"
    assert match.differences == (told,)


def test_without_recordings_there_is_none():
    with pytest.raises(RecordingError, match="nothing can be played"):
        nearest([], **wish())


def test_second_boots_and_boots_without_a_seed_are_not_offered(recordings):
    offered = {one.name for one in recordings}
    assert "default" in offered
    assert not offered & {"second-boot-same-id", "growfs-second-boot", "no-seed"}


def test_choices_leave_out_what_cloudlab_adds(default):
    assert choices(default.user_data) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", {}, id="empty"),
        pytest.param("#cloud-config\n", {}, id="nothing set"),
        pytest.param("#!/bin/sh\n", {"user-data": "#!/bin/sh"}, id="a script"),
        pytest.param("#cloud-config\na: [\n", {"user-data": "#cloud-config\na: ["}, id="broken"),
        pytest.param("#cloud-config\nresize_rootfs: false\n", {"resize_rootfs": "false"}, id="key"),
    ],
)
def test_choices(text, expected):
    assert choices(text) == expected


@pytest.mark.parametrize(
    ("before", "after", "marked"),
    [
        pytest.param("a\nb", "a\nb", [], id="nothing"),
        pytest.param("a\nb", "a\nc", ["c"], id="changed"),
        pytest.param("a", "a\nb", ["b"], id="added"),
        pytest.param("a\nb", "a", [], id="removed"),
        pytest.param("", "<b>", ["&lt;b&gt;"], id="escaped"),
    ],
)
def test_marks_changed_lines(before, after, marked):
    text = marked_html(before, after)
    assert text.count("<mark>") == len(marked)
    for line in marked:
        assert f"<mark>{line}</mark> <b>&larr; changed</b>" in text


HOSTILE = b"\x1b[31m<script>alert(1)</script>\x07\xe2\x80\xaeevil"


def test_escapes_what_a_guest_prints():
    text = console_html([ConsoleLine(7, 1.0, HOSTILE)])
    assert "<i>    7</i> &lt;script&gt;alert(1)&lt;/script&gt;evil" in text
    assert 'data-number="7"' in text
    for harmful in ("<script", "\x1b", "\x07", "\u202e"):
        assert harmful not in text


def test_escapes_errors_and_tables():
    hostile = HOSTILE.decode()
    for text in (
        error_html(InterruptedRunError(hostile)),
        table_html([hostile, "b"], [(hostile, hostile)], caption=hostile, code=["b"]),
    ):
        assert "<script" not in text
        assert "&lt;script&gt;" in text


def test_a_replay_sends_the_lines_and_stages_of_its_day(default):
    events = list(replay_events(default))
    log = (default.folder / "console.log").read_bytes().split(b"\n")
    assert [event.line.number for event in events] == list(range(1, len(events) + 1))
    assert len(events) == default.record.console.lines
    assert [event.line.raw for event in events] == [line.rstrip(b"\r") for line in log[:-1]]
    for one in default.record.stages[1:]:
        first = next(event.time_s for event in events if event.stage is one.stage)
        assert one.start_s <= first < one.end_s


def test_scores_a_prediction_against_the_run(default):
    assert predicted_html(Finished(default, Prediction("fills", "fills"))).count(">right<") == 2
    text = predicted_html(Finished(default, Prediction("stays", "40G")))
    assert text.count(">wrong<") == 2
    assert "%" not in text
    assert "stays as it is" in text
    differs = ("disk size: recorded with 20.0 GiB, you chose 33.0 GiB",)
    other = predicted_html(Finished(default, Prediction("stays", "40G"), differs))
    assert other.count("not judged") == 2
    assert "wrong" not in other


@pytest.mark.parametrize("share", [0.5, 0.94, 0.96, 1.04, 1.06])
def test_the_verdict_is_that_of_the_figure(default, share):
    guesses = [f"{round(sizes[1] * share)}B" for sizes in ends(default).values()]
    prediction = Prediction(*guesses)
    right = prediction_data(prediction.table(default))["right"]
    assert list(prediction.verdicts(default).values()) == list(right)
    text = predicted_html(Finished(default, prediction))
    assert text.count(">right<") == right.sum()


@pytest.mark.parametrize(
    ("name", "partition", "filesystem", "right"),
    [
        pytest.param("default", "fills", "fills", True, id="both grew"),
        pytest.param("default", "stays", "stays", False, id="neither stayed"),
        pytest.param("resize-rootfs-false", "fills", "stays", True, id="filesystem kept"),
        pytest.param("growpart-off", "stays", "stays", True, id="both kept"),
        pytest.param("growpart-off", "stays", "fills", True, id="kept, and fills its partition"),
        pytest.param("growroot", "fills", "fills", True, id="grown before cloud-init ran"),
        pytest.param("growroot", "stays", "stays", False, id="smaller in the image"),
        pytest.param("xfs", "fills", "fills", True, id="another filesystem's overhead"),
        pytest.param("wall", "fills", "stays", False, id="a partition behind it"),
    ],
)
def test_a_prediction_is_judged_by_its_meaning(name, partition, filesystem, right):
    verdicts = Prediction(partition, filesystem).verdicts(recorded(name))
    assert verdicts == {"partition": right, "filesystem": right}


def test_a_prediction_form_asks_for_a_size_only_where_one_is_needed():
    form = PredictionForm()
    assert form.prediction() == Prediction()
    assert form.state["partition_size"]["hidden"]
    form.values = {**form.values, "partition": "size", "filesystem": "fills"}
    assert not form.state["partition_size"]["hidden"]
    assert form.prediction() == Prediction()
    form.values = {**form.values, "partition_size": "20"}
    assert "no unit" in form.problem()
    assert "no unit" in form.state["partition_size"]["help"]
    form.values = {**form.values, "partition_size": "20 GiB"}
    assert form.prediction() == Prediction("20 GiB", "fills")
    assert not form.problem()
    form.set(Prediction("19.9G", "stays"))
    assert form.prediction() == Prediction("19.9G", "stays")


def test_each_proof_quotes_its_console_line_and_leads_to_it(default):
    lines = default.console
    text = proof_html(default)
    numbers = [int(one) for one in re.findall(r'data-line="(\d+)"', text)]
    assert len(numbers) >= 4
    for number in numbers:
        said = lines[number - 1].text[:160]
        assert html.escape(said) in text
    for size in ends(default)["partition"]:
        assert f"{size:,}" in text


def test_a_proof_without_a_time_or_a_whole_line_number_has_its_line(default, monkeypatch):
    sizes = default.sizes
    bare = sizes.assign(time_s=sizes["time_s"].mask(sizes["stage"] == "after"))
    monkeypatch.setitem(vars(default), "sizes", bare.astype({"line": "float64"}))
    lines = re.findall(r'data-line="(\d+)"', proof_html(default))
    monkeypatch.setitem(vars(default), "sizes", sizes)
    assert lines == re.findall(r'data-line="(\d+)"', proof_html(default))


def test_evidence_leads_to_its_console_line():
    text = linked("<li>line 587, console: <code>line 3</code></li>")
    assert text.count("<button") == 1
    assert 'data-line="587">line 587</button>' in text


def test_a_result_says_that_it_is_recorded_and_what_differs(default):
    text = result_html(Finished(default, None, ("disk size: <recorded>",)))
    assert "Recorded on 2" in text
    assert "under TCG" in text
    assert "differs from your options" in text
    assert "disk size: &lt;recorded&gt;" in text
    kept = still_html([Finished(default)])
    assert "Filesystem grown" in kept
    assert "<img" not in kept, "a picture would stay white in a dark theme"


def test_a_result_without_sizes_says_why(tmp_path, default):
    import shutil

    shutil.copytree(default.folder, tmp_path / "run")
    (tmp_path / "run" / "sizes.csv").unlink()
    text = result_html(Finished(Run(tmp_path / "run"), Prediction("fills", "fills")))
    assert "cannot be read" in text
    assert "not measured" in text


def test_earlier_runs_stand_side_by_side(default):
    off = recorded("growpart-off")
    assert history_html([Finished(default)]) == ""
    text = history_html([Finished(default), Finished(off, Prediction("stays", "40G"))])
    assert text.count('cloudlab-map"') == 2
    assert text.index("growpart-off") < text.index("<b>default</b>")
    assert "wrong" in text
    assert "right" in text


def test_exports_figures_data_and_run(default, tmp_path):
    earlier = tmp_path / default.name
    earlier.mkdir()
    folder = export(Finished(default, Prediction("20G", "20G")), tmp_path)
    assert folder != earlier, "an export never overwrites one"
    names = {one.name for one in folder.iterdir()}
    assert names == {
        "disk-map.png", "disk-map.svg", "timeline.png", "timeline.svg", "prediction.csv", "run",
    }  # fmt: skip
    assert Run(folder / "run").record == default.record


def test_the_map_tells_every_byte(sizes):
    data = disk_map_data(sizes)
    text = map_html(data)
    parts = data[data["kind"] != "disk"]
    assert text.count('tabindex="0"') == len(parts)
    for size in parts["size_bytes"]:
        assert f"{int(size):,} bytes" in text


def test_the_disk_at_each_moment(default, sizes):
    changes = change_times(sizes)
    [first, *_, last] = changes

    def root(time_s: float, kind: str) -> int | None:
        data, _ = disk_at(sizes, time_s, default.layout("before"))
        rows = data[(data["kind"] == kind) & (data["device"] == "vda1")]
        return int(rows["size_bytes"].iloc[0]) if len(rows) else None

    built = {one.number: one.size_bytes for one in default.layout("before").partitions}
    grown = {one.number: one.size_bytes for one in default.layout("after").partitions}
    assert root(0.0, "partition") == built[1]
    assert root(last, "partition") == grown[1]
    between = [time_s for time_s in changes if root(time_s, "partition") == grown[1]]
    # The partition grows before the filesystem does.
    assert root(between[0], "filesystem") < 3 * GIB
    assert root(last, "filesystem") > 19 * GIB
    assert "host reads" in disk_at(sizes, first - 50, default.layout("before"))[1]
    assert disk_at(sizes, first - 50, None)[0] is None


def test_stage_and_overlay_at_a_moment(default, sizes):
    assert default.stage_at(0.0) is Stage.FIRMWARE
    assert default.stage_at(1e6) is Stage.REPORT
    assert overlay_at(sizes, 0.0) == default.record.overlay.start_bytes
    assert overlay_at(sizes, 1e6) == default.record.overlay.end_bytes


def test_the_console_ends_on_lsblk_and_df_with_its_report_folded(default):
    text = console_html(default.console)
    folded = re.findall(r"<details><summary>(\d+) lines of the exact report</summary>", text)
    frames = sum(b"@cloudlab " in line.raw for line in default.console)
    assert sum(map(int, folded)) == frames > 0
    outside = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert "@cloudlab" not in outside
    assert "/boot/efi" in outside[outside.rindex("Filesystem") :]
    assert "resizing filesystem" in "".join(re.findall(r"<mark>.*?</mark>", text))
    # Every line can be found by its number, folded ones too.
    assert text.count("data-number=") == len(default.console)


def test_the_picture_keeps_its_scale_while_the_disk_grows(default, sizes):
    start, _ = disk_at(sizes, 0.0, default.layout("before"))
    grown, _ = disk_at(sizes, 1e6, None)
    place = re.compile(r'data-key="partition vda1 [^"]*" style="left: ([\d.]+)%')
    before, after = map_html(start, title="x"), map_html(grown, title="x", scale_of=start)
    assert place.search(before)[1] == place.search(after)[1]
