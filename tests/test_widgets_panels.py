"""The panels without a browser: what Boot plays, when it may, what Stop does, what stays."""

from __future__ import annotations

import threading
import time

import pytest

from cloudlab.console import Stage
from cloudlab.course import Prediction
from cloudlab.errors import CloudlabError, RecordingError, UsageError
from cloudlab.figures import KINDS
from cloudlab.run.monitor import RunEvent
from cloudlab.run.value import Run, open_run, recorded
from cloudlab.units import GIB
from cloudlab.widgets import Console, DiskMap, GrowthLab, Question, Quiz, Scrubber, SeedEditor
from cloudlab.widgets.background import BackgroundRun, Outcome, replay_job

#: Seconds that anything may take, on a busy machine; no pass condition.
PATIENCE_S = 300


@pytest.fixture(autouse=True)
def _replay(monkeypatch, tmp_path):
    monkeypatch.setenv("CLOUDLAB_MODE", "replay")
    monkeypatch.chdir(tmp_path)


def at_speed(panel, speed: str):
    form = panel.boot_part.source
    form.values = {**form.values, "speed": speed}
    return panel


def boots() -> list[str]:
    return [
        one.name
        for one in threading.enumerate()
        if one.name in {"cloudlab-boot", "cloudlab-writer"}
    ]


def test_a_prediction_unlocks_boot():
    lab = at_speed(GrowthLab(), "100")
    button = lab.boot_part.buttons
    assert button.state["boot"]["disabled"]
    lab.boot()
    assert not lab.boot_part.running, "Boot is locked"
    lab.prediction.values = {"partition": 20.0, "filesystem": None}
    assert button.state["boot"]["disabled"], "one of two sliders"
    lab.predict(20.0, 19.6)
    assert not button.state["boot"]["disabled"]
    lab.choose(growpart="off")
    assert button.state["boot"]["disabled"], "other options need another prediction"


def test_plays_compares_and_keeps():
    lab = at_speed(GrowthLab(), "100")
    lab.predict(19.9, 1.0)
    lab.boot()
    assert not lab.boot_part.buttons.state["stop"]["disabled"]
    assert lab.wait(PATIENCE_S)
    [done] = lab.finished
    assert done.run.name == "default"
    assert done.prediction.partition_bytes == round(19.9 * GIB)
    assert done.measured()["partition"][1] > 19 * GIB
    assert "Recording: recorded on" in lab._kept_html
    assert "<td>right</td>" in lab._kept_html
    assert "Stage: <b>report</b> (done)" in lab.boot_part.stage.html
    assert lab.boot_part.buttons.state["stop"]["disabled"]


def test_a_combination_that_nobody_recorded_is_called_one():
    lab = at_speed(GrowthLab(), "100")
    lab.choose(disk_size="40G")
    assert "Nobody recorded this combination" in lab._match_note.html
    lab.predict(40.0, 39.0)
    lab.boot()
    lab.choose(disk_size="20G")  # what was booted counts, not what is chosen meanwhile
    assert lab.wait(PATIENCE_S)
    [done] = lab.finished
    assert done.differences == ("disk size: recorded with 20.0 GiB, you chose 40.0 GiB",)
    assert done.prediction.partition_bytes == 40 * GIB
    # The prediction was of another boot than the one that is shown.
    assert lab._kept_html.count("not judged: the recording is of other options") == 2
    assert "too large" not in lab._kept_html
    assert KINDS["prediction"].title not in lab._kept_html
    assert "not quite what you asked for" in lab._kept_html


@pytest.mark.parametrize(
    ("option", "said"),
    [
        pytest.param({"disk_size": "lots"}, "lots", id="disk size"),
        pytest.param({"extra": "a: ["}, "cloud-init would not accept", id="extra YAML"),
        pytest.param({"devices": "vda1"}, "growpart takes mount points", id="device"),
    ],
)
def test_wrong_options_lock_boot_and_say_why(option, said):
    lab = GrowthLab()
    lab.predict(20.0, 20.0)
    lab.choose(**option)
    assert said in lab._match_note.html
    assert lab.boot_part.buttons.state["boot"]["disabled"]


def test_marks_the_line_that_an_option_changes():
    lab = GrowthLab()
    lab.choose(growpart="off")
    assert "<mark>  mode: &#x27;off&#x27;</mark>" in lab._user_data.html
    lab.choose(resize_rootfs="false")
    assert "<mark>resize_rootfs: false</mark>" in lab._user_data.html
    assert lab._user_data.html.count("<mark>") == 1


def test_refuses_an_option_that_is_not_there():
    with pytest.raises(UsageError, match="no option growth"):
        GrowthLab().choose(growth="on")


def test_stop_ends_a_playback_and_no_thread_is_left():
    console = at_speed(Console("default"), "1")
    console.boot()
    assert boots()
    console.stop()
    assert console.wait(PATIENCE_S)
    assert not boots()
    assert console.recording is None
    assert "stopped" in console.boot_part.problem.html
    assert "(interrupted)" in console.boot_part.stage.html


def test_boot_pressed_twice_is_one_boot():
    console = at_speed(Console("default"), "1")
    console.boot()
    console.boot()
    assert len(boots()) == 2  # one boot and its writer
    console.close()
    assert console.wait(PATIENCE_S)


def test_what_fails_in_the_background_is_shown(caplog):
    ends: list[Outcome] = []

    def job(*_):
        raise RuntimeError("boom")

    run = BackgroundRun(job, show=lambda _: None, done=ends.append)
    run.start()
    assert run.wait(PATIENCE_S)
    assert "RuntimeError: boom" in str(ends[0].error)
    assert "boom" in caplog.text


def test_only_one_thread_writes_and_seldom():
    shown, threads = [], set()

    def show(snapshot):
        threads.add(threading.get_ident())
        shown.append(snapshot)

    def job(on_event, cancel):
        from cloudlab.console import ConsoleLine

        for number in range(1, 5001):
            line = ConsoleLine(number, 0.0, b"x")
            on_event(RunEvent("r", 0.0, Stage.KERNEL, line, note="launched"))
        return Outcome(None)

    run = BackgroundRun(job, show=show, done=lambda _: threads.add(threading.get_ident()))
    run.start()
    assert run.wait(PATIENCE_S)
    assert len(threads) == 1
    assert len(shown) < 50
    assert len(shown[-1].lines) == 200
    assert shown[-1].lines[-1].number == 5000


def test_speed_can_be_changed_while_it_plays():
    speed = ["0.001"]
    recording = recorded("default")
    ends: list[Outcome] = []
    pace = lambda: float(speed[0])  # noqa: E731
    run = BackgroundRun(
        replay_job(recording, pace), show=lambda _: None, done=ends.append, pace=pace
    )
    run.start()
    assert not run.wait(0.5)
    speed[0] = "100000"
    assert run.wait(PATIENCE_S)
    assert ends == [Outcome(recording)]


def test_a_run_is_found_by_what_names_it():
    folder = recorded("default").folder
    recording = Run(folder)
    assert {open_run(one).name for one in ("default", folder, str(folder), recording)} == {
        "default"
    }
    with pytest.raises(RecordingError, match="is not a run folder"):
        open_run("nowhere")


def test_a_plain_run_is_only_played():
    console = Console(recorded("default"))
    assert console.boot_part.source.state["live"]["hidden"]
    assert console.boot_part.buttons.state["boot"]["label"] == "Play"
    assert not Console("default").boot_part.source.state["live"]["hidden"]


def test_going_live_in_vain_says_why(monkeypatch, tmp_path):
    console = Console("default")
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("cloudlab.tools._SYSTEM_FOLDERS", ())
    form = console.boot_part.source
    form.values = {**form.values, "live": True}
    assert not console.boot_part.live
    assert "cannot go live" in form.state["live"]["help"]


def test_a_console_waits_for_a_prediction():
    locked = Console("default", prediction=Prediction())
    assert locked.boot_part.buttons.state["boot"]["disabled"]
    assert "predict first" in locked.boot_part.buttons.state["boot"]["label"]
    locked.boot()
    assert not locked.boot_part.running
    assert locked.run.name == "default"
    free = Console("default", prediction=Prediction("3G", "3G"))
    assert not free.boot_part.buttons.state["boot"]["disabled"]


def test_a_console_leaves_its_last_lines_and_stages():
    console = at_speed(Console("default"), "100")
    assert "Nothing was booted" in console._kept_html
    console.boot()
    assert console.wait(PATIENCE_S)
    assert "Recording: recorded on" in console._kept_html
    assert "cloud-init init" in console._kept_html
    assert "<pre>" in console._kept_html


def test_the_full_profile_was_recorded_too():
    lab = GrowthLab()
    lab.choose(profile="full")
    assert lab.match().exact
    assert lab.match().recording.name == "as-in-a-cloud"


def test_scrubber_leaps_from_change_to_change():
    scrubber = Scrubber("default")
    first = scrubber._changes[0]
    assert first < scrubber.time_s < first + 0.2, "it begins where there is something to see"
    assert "vda1" in scrubber._moment.html
    moments = [scrubber.time_s]
    for _ in range(10):
        scrubber._leap(+1)
        moments.append(scrubber.time_s)
    assert moments == sorted(moments)
    assert len(set(moments)) == len(scrubber._changes)
    assert scrubber.recording.stage_at(moments[-1]) in scrubber._moment.html
    scrubber._leap(-1)
    assert scrubber.time_s < moments[-1]
    assert "<figure>" in scrubber._kept_html


def test_seed_editor_checks_what_is_typed():
    editor = SeedEditor("#cloud-config\n")
    assert editor.problems == []
    editor.form.values = {"text": "#cloud-config\ngrowpart:\n  mode: <b>\n"}
    assert [problem.line for problem in editor.problems] == [3]
    assert "line 3" in editor._problems.html
    assert "&lt;b&gt;" in editor._kept_html


def test_quiz_answers_each_answer():
    quiz = Quiz([Question("Which first?", {"a": "Because.", "b": "No room yet."}, "a")])
    assert quiz.score == (0, 1)
    quiz.answer("b")
    assert quiz.form.state["q1"]["help"] == "Not quite. No room yet."
    quiz.answer("a")
    assert quiz.score == (1, 1)
    assert "Right. Because." in quiz._kept_html
    with pytest.raises(UsageError):
        Question("?", {"a": ""}, "b")


def test_disk_map_needs_no_kernel():
    before = DiskMap("default", only_before=True)._repr_html_()
    assert "19." not in before
    assert "vda1" in before
    text = DiskMap("default")._repr_html_()
    assert "Recording: recorded on" in text
    assert "widget" not in text


def test_an_export_that_fails_is_told(tmp_path):
    lab = at_speed(GrowthLab(folder=tmp_path / "runs"), "100")
    lab.add("default")
    (tmp_path / "runs").write_text("a file in the way")
    lab._export()
    assert "could not be created" in lab._exported.html
    (tmp_path / "runs").unlink()
    lab._export()
    assert "Written to" in lab._exported.html


def test_importing_widgets_costs_nothing():
    import subprocess
    import sys

    code = "import cloudlab.widgets, sys; print('ipywidgets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_errors_of_a_plan_are_shown():
    console = Console("default")

    def no(*_):
        raise CloudlabError("not now", hint="later <b>")

    console.boot_part._plan = no
    console.boot()
    assert "later &lt;b&gt;" in console.boot_part.problem.html
    assert not console.boot_part.running


def test_time_passes_between_events():
    hold = threading.Event()

    def job(on_event, cancel):
        on_event(RunEvent("r", 5.0, Stage.KERNEL, note="launched"))
        hold.wait(PATIENCE_S)
        return Outcome(None)

    run = BackgroundRun(job, show=lambda _: None, done=lambda _: None, pace=lambda: 100.0)
    run.start()
    while run.snapshot().note != "launched":
        time.sleep(0.01)
    first = run.snapshot().time_s
    time.sleep(0.05)
    assert run.snapshot().time_s > first >= 5.0
    hold.set()
    assert run.wait(PATIENCE_S)
