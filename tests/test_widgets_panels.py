"""The panels without a browser: what Boot plays, when it may, what Stop does, what stays."""

from __future__ import annotations

import json
import os
import threading
import time

import nbformat
import pytest
from guests import wait_until
from nbclient import NotebookClient

from cloudlab.console import Stage
from cloudlab.course import Prediction
from cloudlab.errors import CloudlabError, RecordingError, UsageError
from cloudlab.machine import registry
from cloudlab.run.monitor import RunEvent
from cloudlab.run.value import Run, open_run, recorded
from cloudlab.units import format_bytes
from cloudlab.widgets import (
    Console,
    DiskMap,
    GrowthLab,
    Question,
    Quiz,
    RunningMachines,
    Scrubber,
    SeedEditor,
)
from cloudlab.widgets.boot import (
    BackgroundRun,
    Plan,
    Snapshot,
    replay_events,
    replay_job,
)
from cloudlab.widgets.disk_map import change_times

WATCHING = "cloudlab-machines"

#: Seconds that anything may take, on a busy machine; no pass condition.
PATIENCE_S = 300


@pytest.fixture(autouse=True)
def _replay(monkeypatch, tmp_path):
    monkeypatch.setenv("CLOUDLAB_MODE", "replay")
    monkeypatch.chdir(tmp_path)


def at_speed(panel, speed: str):
    form = panel.boot_form
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
    button = lab.boot_form
    assert button.state["boot"]["disabled"]
    lab.boot()
    assert not lab.running, "Boot is locked"
    lab.prediction_form.values = {**lab.prediction_form.values, "partition": "fills"}
    assert button.state["boot"]["disabled"], "one of two"
    lab.predict("fills", "19.6G")
    assert not button.state["boot"]["disabled"]
    lab.choose(growpart="off")
    assert button.state["boot"]["disabled"], "other options need another prediction"


def test_plays_compares_and_keeps():
    lab = at_speed(GrowthLab(), "100")
    assert "17.9 GiB unallocated" in lab._disk.html, "the disk is there before the boot"
    lab.predict("fills", "1G")
    lab.boot()
    assert not lab.boot_form.state["stop"]["disabled"]
    assert lab.wait(PATIENCE_S)
    [done] = lab.finished
    assert done.run.name == "default"
    assert done.prediction == Prediction("fills", "1G")
    assert "Recorded on" in lab._kept_html
    assert "<b>Filesystem grown</b>" in lab._kept_html
    assert lab._kept_html.count(">right<") == lab._kept_html.count(">wrong<") == 1
    assert "<b>Done</b>" in lab.stage.html
    assert lab.boot_form.state["stop"]["disabled"]
    assert "vda1 19.9 GiB" in lab._disk.html


def test_the_disk_changes_as_the_guest_measures_it():
    lab = GrowthLab()
    lab.predict("fills", "fills")
    plan = lab._plan()
    assert plan.usual_s == recorded("default").record.time_s
    blocks, shown = [], []
    for event in replay_events(recorded("default")):
        if event.block is not None:
            blocks.append(event.block)
            lab._watch(Snapshot(time_s=event.time_s, stage=event.stage, blocks=tuple(blocks)))
            shown.append(lab._disk.html)
    assert len(shown) >= 4
    assert "17.9 GiB unallocated" in shown[0]
    assert any("vda1 19.9 GiB" in one and ">1.9 GiB</span>" in one for one in shown), (
        "the partition grows first"
    )
    assert "/ 19.7 GiB" in shown[-1]


def test_an_older_result_says_so():
    lab = at_speed(GrowthLab(), "100")
    lab.add("default")
    assert not lab._stale.html
    assert "GiB unallocated" not in lab._disk.html
    at_speed(lab, "25")
    assert "GiB unallocated" not in lab._disk.html, "the speed is no option"
    at_speed(lab, "100")
    lab.choose(growpart="off")
    assert "other options" in lab._stale.html
    assert "17.9 GiB unallocated" in lab._disk.html, "the disk is that of the new options"
    lab.predict("stays", "stays")
    lab.boot()
    assert "earlier run" in lab._stale.html
    assert [one.run.name for one in lab.finished] == ["default", "growpart-off"], "this waits"
    assert not lab._stale.html
    assert lab._history.html.count("<li>") == 2


@pytest.mark.slow
def test_a_panel_shown_twice_keeps_its_last_state_in_both_places():
    first = (
        "from cloudlab.widgets import *\nquiz = Quiz([Question('Why?', {'so': ''}, 'so')])\nquiz"
    )
    cells = [nbformat.v4.new_code_cell(one) for one in (first, "quiz", "quiz.answer('so')")]
    book = NotebookClient(nbformat.v4.new_notebook(cells=cells)).execute()
    assert ["your answer: so" in json.dumps(cell.outputs) for cell in book.cells[:2]] == [True] * 2


def test_a_disk_smaller_than_the_image_is_refused_in_the_form():
    lab = GrowthLab()
    lab.predict("stays", "stays")
    lab.choose(disk_size="1G")
    image = format_bytes(recorded("default").image.virtual_size_bytes)
    assert f"A disk of 1.0 GiB is smaller than the image, which is a disk of {image}" in (
        lab._match_note.html
    )
    assert "2112M" in lab._match_note.html
    lab.choose(disk_size="2111M")
    assert "A disk of 2,213,543,936 bytes is smaller" in lab._match_note.html
    assert lab.boot_form.state["boot"]["disabled"]
    lab.predict("stays", "stays")
    assert lab.boot_form.state["boot"]["disabled"], "a prediction does not mend the options"


def test_a_combination_that_nobody_recorded_is_called_one():
    lab = at_speed(GrowthLab(), "100")
    lab.choose(disk_size="40G")
    assert "No recording has these options" in lab._match_note.html
    lab.predict("40G", "39G")
    lab.boot()
    lab.choose(disk_size="20G")  # what was booted counts, not what is chosen meanwhile
    assert lab.wait(PATIENCE_S)
    [done] = lab.finished
    assert done.differences == ("disk size: recorded with 20.0 GiB, you chose 40.0 GiB",)
    assert done.prediction == Prediction("40G", "39G")
    # The prediction was of another boot than the one that is shown.
    assert lab._kept_html.count("not judged: the recording has other options") == 2
    assert ">wrong<" not in lab._kept_html
    assert "differs from your options" in lab._kept_html
    assert "other options" in lab._stale.html


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
    lab.predict("20G", "20G")
    lab.choose(**option)
    assert said in lab._match_note.html
    assert lab.boot_form.state["boot"]["disabled"]


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
    assert "stopped" in console.problem.html
    assert "<b>Stopped</b>" in console.stage.html


def test_boot_pressed_twice_is_one_boot():
    console = at_speed(Console("default"), "1")
    console.boot()
    console.boot()
    assert len(boots()) == 2  # one boot and its writer
    console.close()
    assert console.wait(PATIENCE_S)


def test_what_fails_in_the_background_is_shown(caplog):
    ends = []

    def job(*_):
        raise RuntimeError("boom")

    run = BackgroundRun(job, show=lambda _: None, done=lambda *end: ends.append(end))
    run.start()
    assert run.wait(PATIENCE_S)
    [(_, error)] = ends
    assert "RuntimeError: boom" in str(error)
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

    run = BackgroundRun(job, show=show, done=lambda *_: threads.add(threading.get_ident()))
    run.start()
    assert run.wait(PATIENCE_S)
    assert len(threads) == 1
    assert len(shown) < 50
    assert len(shown[-1].lines) == 200
    assert shown[-1].lines[-1].number == 5000


def test_speed_can_be_changed_while_it_plays():
    speed = ["0.001"]
    recording = recorded("default")
    ends = []
    pace = lambda: float(speed[0])  # noqa: E731
    run = BackgroundRun(
        replay_job(recording, pace),
        show=lambda _: None,
        done=lambda *end: ends.append(end),
        pace=pace,
    )
    run.start()
    assert not run.wait(0.5)
    speed[0] = "100000"
    assert run.wait(PATIENCE_S)
    assert ends == [(recording, None)]


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
    assert console.boot_form.state["live"]["hidden"]
    assert console.boot_form.state["boot"]["label"] == "Play"
    assert not Console("default").boot_form.state["live"]["hidden"]


def test_going_live_in_vain_says_why(monkeypatch, tmp_path):
    console = Console("default")
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("cloudlab.tools._SYSTEM_FOLDERS", ())
    form = console.boot_form
    form.values = {**form.values, "live": True}
    assert not console.live
    assert "this host cannot boot" in form.state["live"]["help"]


def test_a_console_asks_for_a_prediction():
    screen = at_speed(Console("growpart-off", prediction=Prediction()), "100")
    assert screen.boot_form.state["boot"]["disabled"]
    assert "predict first" in screen.boot_form.state["boot"]["label"]
    screen.boot()
    assert not screen.running
    assert screen.run.name == "growpart-off"
    assert ("stays", "stay at 2.0 GiB") in screen.prediction_form.state["partition"]["choices"]
    screen.prediction_form.set(Prediction("stays", "2.0G"))
    assert not screen.boot_form.state["boot"]["disabled"]
    screen.boot()
    assert screen.run is screen.recording, "asking for the run waits for the boot"
    assert screen._outcome.html.count(">right<") == 2
    assert screen.prediction == Prediction("stays", "2.0G")
    free = Console("default", prediction=Prediction("3G", "3G"))
    assert not free.boot_form.state["boot"]["disabled"]


def test_a_console_leaves_its_last_lines_and_stages():
    console = at_speed(Console("default"), "100")
    assert "Nothing was booted" in console._kept_html
    console.boot()
    assert console.wait(PATIENCE_S)
    assert "Recorded on" in console._kept_html
    assert "cloud-init init" in console._kept_html
    assert "<pre>" in console._kept_html


def test_the_full_profile_was_recorded_too():
    lab = GrowthLab()
    lab.choose(profile="full")
    assert not lab.match().differences
    assert lab.match().recording.name == "as-in-a-cloud"


def test_scrubber_leaps_from_change_to_change():
    scrubber = Scrubber("default")
    first = change_times(scrubber.recording.sizes)[0]
    assert first < scrubber.time_s < first + 0.2, "it begins where there is something to see"
    assert "vda1" in scrubber._moment.html
    moments = [scrubber.time_s]
    for _ in range(10):
        scrubber._leap(+1)
        moments.append(scrubber.time_s)
    assert moments == sorted(moments)
    assert len(set(moments)) == len(scrubber._changes)
    assert scrubber.recording.stage_at(moments[-1]) in scrubber._moment.html
    for moment in sorted(set(moments[:-1]))[-2::-1]:
        scrubber._leap(-1)
        assert scrubber.time_s == moment
    assert "<b>Filesystem grown</b>" in scrubber._kept_html


def test_seed_editor_checks_what_is_typed():
    editor = SeedEditor("#cloud-config\n")
    assert editor.problems == []
    editor.form.values = {"text": "#cloud-config\ngrowpart:\n  mode: <b>\n"}
    assert [problem.line for problem in editor.problems] == [3]
    assert "line 3" in editor._problems.html
    assert "&lt;b&gt;" in editor._kept_html


def test_seed_editor_says_that_a_schema_cannot_be_applied(tmp_path):
    (tmp_path / "schema.json").write_text('{"properties": {"growpart": {"$ref": "#/nowhere"}}}')
    editor = SeedEditor("#cloud-config\n", schema=tmp_path / "schema.json")
    editor.form.values = {"text": "#cloud-config\ngrowpart: {mode: auto}\n"}
    assert "Not checked: " in editor._problems.html
    assert "nowhere" in editor._problems.html


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
    assert "Recorded on" in text
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

    console._plan = no
    console.boot()
    assert "later &lt;b&gt;" in console.problem.html
    assert not console.running


def test_what_went_wrong_in_a_recording_is_no_problem_of_its_replay():
    failed = Run(recorded("default").folder, error=CloudlabError("It did not boot."))
    ends = []
    for pace in (lambda: 1.0, None):
        run = BackgroundRun(
            lambda *_: failed, show=lambda _: None, done=lambda *end: ends.append(end), pace=pace
        )
        run.start()
        assert run.wait(PATIENCE_S)
    assert ends == [(failed, None), (failed, failed.error)]


def test_time_passes_between_events():
    hold = threading.Event()

    def job(on_event, cancel):
        on_event(RunEvent("r", 5.0, Stage.KERNEL, note="launched"))
        hold.wait(PATIENCE_S)

    run = BackgroundRun(job, show=lambda _: None, done=lambda *_: None, pace=lambda: 100.0)
    run.start()
    while run.snapshot().note != "launched":
        time.sleep(0.01)
    first = run.snapshot().time_s
    time.sleep(0.05)
    assert run.snapshot().time_s > first >= 5.0
    hold.set()
    assert run.wait(PATIENCE_S)


def test_a_live_boot_has_one_clock_and_says_when_it_is_slow():
    hold = threading.Event()
    shown: list[str] = []

    def job(on_event, cancel):
        note = "resuming from a snapshot"
        on_event(RunEvent("r", 0.0, Stage.FIRMWARE, note=note, expected_s=0.05))
        time.sleep(0.2)
        # A boot that loads a snapshot counts from there on.
        on_event(RunEvent("r", 0.01, Stage.CLOUD_INIT_LOCAL))
        hold.wait(PATIENCE_S)

    console = Console("default")
    console._plan = lambda: Plan(job, "a job", lambda _: None)
    console._watch = lambda now: shown.append((now.time_s, console.stage.html))
    console.boot()
    while not any("slower than usual" in text for _, text in shown):
        time.sleep(0.05)
    hold.set()
    assert console.wait(PATIENCE_S)
    times = [time_s for time_s, _ in shown]
    assert times == sorted(times)
    assert "<b>Failed</b> after" in console.stage.html


def test_a_live_boot_that_waits_for_a_slot_says_so_and_its_clock_stands():
    words = "waiting for the only slot for live boots"
    shown: list[str] = []
    launched = threading.Event()

    def job(on_event, cancel):
        on_event(RunEvent("r", 0.0, Stage.FIRMWARE, note=words))
        launched.wait(PATIENCE_S)
        on_event(RunEvent("r", 0.0, Stage.FIRMWARE, note="launched", expected_s=600.0))
        cancel.wait(PATIENCE_S)

    console = Console("default")
    console._plan = lambda: Plan(job, "a job", lambda _: None)
    console._watch = lambda now: shown.append((now.note, now.time_s, console.stage.html))
    console.boot()
    while not [one for one in shown if one[0] == words]:
        time.sleep(0.05)
    assert shown[-1] == (words, 0.0, f"<b>{words.capitalize()}</b>")
    launched.set()
    while shown[-1][1] == 0.0:
        time.sleep(0.05)
    assert shown[-1][0] == "launched"
    console.stop()
    assert console.wait(PATIENCE_S)
    assert console.stage.html.startswith("<b>Stopped</b>")


def test_running_machines_keeps_itself_up_to_date(monkeypatch, tmp_path):
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("cloudlab.widgets.panel._PERIOD_S", 0.05)
    panel = RunningMachines()
    assert "No machine is running" in panel._list.html
    entry = registry.Entry("one", run_folder=tmp_path)
    entry.about |= dict.fromkeys(("qemu_pid", "supervisor_pid"), os.getpid())
    entry.path.write_text(json.dumps(entry.about))
    assert wait_until(lambda: '<th scope="row"' in panel._list.html)
    assert str(tmp_path) in panel._list.html
    entry.close()
    assert wait_until(lambda: "No machine is running" in panel._list.html)
    panel.close()
    assert wait_until(lambda: not [t for t in threading.enumerate() if t.name == WATCHING])


def test_a_report_that_cannot_be_drawn_does_not_end_the_boot(caplog):
    lab = at_speed(GrowthLab(), "100")

    def fail(_):
        raise ValueError("no such disk")

    lab._watch = fail
    lab.predict("fills", "fills")
    lab.boot()
    assert lab.wait(PATIENCE_S)
    assert [one.run.name for one in lab.finished] == ["default"]
    assert "no such disk" in caplog.text
