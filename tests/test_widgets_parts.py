"""The panels' pure parts: nearest recording, marked text, escaping, scores, moments."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudlab.console import ConsoleLine, Stage
from cloudlab.course.cases import CASES
from cloudlab.errors import InterruptedRunError, RecordingError
from cloudlab.figures.data import prediction_data
from cloudlab.run.value import Run, recorded, recordings
from cloudlab.seed import GrowpartMode, Profile, SeedConfig, to_user_data
from cloudlab.units import GIB
from cloudlab.widgets.background import replay_events
from cloudlab.widgets.map_html import map_html
from cloudlab.widgets.nearest import Wish, choices, nearest, playable
from cloudlab.widgets.results import (
    Finished,
    Prediction,
    compared_html,
    earlier_html,
    export,
    predictions_table,
    proofs,
    result_html,
)
from cloudlab.widgets.scrubber import change_times, disk_at, overlay_at
from cloudlab.widgets.texts import console_html, error_html, marked_html, table_html

PLAIN = "lab-bookworm-ext4-r1.qcow2"
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


def wish(seed=NOTHING_SET, image=PLAIN, disk_size_bytes=20 * GIB) -> Wish:
    return Wish(image, disk_size_bytes, to_user_data(seed), seed.profile.value)


@pytest.mark.parametrize(
    ("seed", "name"),
    [
        pytest.param(SeedConfig(), "default", id="nothing set"),
        pytest.param(OFF, "growpart-off", id="growpart off"),
        pytest.param(CASES["wall"].seed, "wall", id="a wall made in bootcmd"),
    ],
)
def test_finds_what_was_recorded(recordings, seed, name):
    match = nearest(wish(seed), recordings)
    assert (match.recording.name, match.differences) == (name, ())
    assert match.exact


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
            ("disk size: recorded with 21474836480 bytes, you chose 21474836992 bytes",),
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
    match = nearest(wished, recordings)
    assert (match.recording.name, match.differences) == (name, differences)
    assert not match.exact


def test_without_recordings_there_is_none():
    with pytest.raises(RecordingError, match="nothing can be played"):
        nearest(wish(), [])


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
    for harmful in ("<script", "\x1b", "\x07", "\u202e"):
        assert harmful not in text


def test_escapes_errors_and_tables():
    hostile = HOSTILE.decode()
    for text in (
        error_html(InterruptedRunError(hostile)),
        table_html([hostile, "b"], [(hostile, hostile)], caption=hostile, code="b"),
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
    measured = Finished(default).measured()
    right = Prediction(measured["partition"][1], measured["filesystem"][1])
    wrong = Prediction(measured["partition"][1] // 2, measured["filesystem"][1] * 2)
    assert compared_html([Finished(default, right)], "").count("<td>right</td>") == 2
    text = compared_html([Finished(default, wrong)], "")
    assert "50% too small" in text
    assert "100% too large" in text
    other = Finished(default, wrong, ("disk size: recorded with 20.0 GiB, you chose 33.0 GiB",))
    assert compared_html([other], "").count("not judged") == 2
    assert "too small" not in compared_html([other], "")
    table = predictions_table([Finished(default, right), other])
    assert list(table["predicted_bytes"]) == list(table["measured_bytes"])


@pytest.mark.parametrize("share", [0.5, 0.94, 0.96, 1.04, 1.06])
def test_the_verdict_is_that_of_the_figure(default, share):
    measured = Finished(default).measured()
    sizes = [round(measured[layer][1] * share) for layer in ("partition", "filesystem")]
    run = Finished(default, Prediction(*sizes))
    right = prediction_data(predictions_table([run]))["right"]
    assert compared_html([run], "").count("<td>right</td>") == right.sum()


def test_each_proof_quotes_its_console_line(default):
    log = (default.folder / "console.log").read_bytes().split(b"\n")
    rows = proofs(default)
    assert {row[0] for row in rows} >= {"partition vda1, before", "filesystem vda1, after"}
    for _, size, _, line, said in rows:
        assert size.replace(",", "").encode() in log[int(line) - 1]
        assert log[int(line) - 1].decode().startswith(said)


def test_a_result_says_that_it_is_recorded_and_what_differs(default):
    text = result_html(Finished(default, None, ("disk size: <recorded>",)))
    assert "Recording: recorded on 2" in text
    assert "under TCG" in text
    assert "not quite what you asked for" in text
    assert "disk size: &lt;recorded&gt;" in text
    assert "<img alt=" in text


def test_a_result_without_sizes_says_why(tmp_path, default):
    import shutil

    shutil.copytree(default.folder, tmp_path / "run")
    (tmp_path / "run" / "sizes.csv").unlink()
    text = result_html(Finished(Run(tmp_path / "run")))
    assert "cannot be read" in text
    assert "Why" in text


def test_earlier_runs_stand_side_by_side(default):
    off = recorded("growpart-off")
    assert earlier_html([Finished(default)]) == ""
    both = earlier_html([Finished(default), Finished(off)])
    assert both.count("<figure>") == 1
    assert "growpart-off" in both
    assert "<figure>" not in earlier_html([Finished(default), Finished(default)])


def test_exports_figures_data_and_run(default, tmp_path):
    prediction = Prediction(20 * GIB, 20 * GIB)
    first = export(Finished(default, prediction), tmp_path)
    second = export(Finished(default, prediction), tmp_path)
    assert first != second, "an export never overwrites one"
    names = {one.name for one in first.iterdir()}
    assert names == {
        "disk-map.png", "disk-map.svg", "timeline.png", "timeline.svg", "prediction.csv", "run",
    }  # fmt: skip
    assert Run(first / "run").record == default.record


def test_the_map_tells_every_byte(sizes):
    from cloudlab.figures.data import disk_map_data

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
        data, _ = disk_at(default, sizes, time_s)
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
    assert "host read" in disk_at(default, sizes, first - 50)[1]


def test_stage_and_overlay_at_a_moment(default, sizes):
    assert default.stage_at(0.0) is Stage.FIRMWARE
    assert default.stage_at(1e6) is Stage.REPORT
    assert overlay_at(sizes, 0.0) == default.record.overlay.start_bytes
    assert overlay_at(sizes, 1e6) == default.record.overlay.end_bytes
