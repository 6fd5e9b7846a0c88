"""A run on disk: written whole, read with care, played back."""

import contextlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudlab import recording
from cloudlab.errors import RecordingError
from cloudlab.recording import (
    CastWriter,
    claim_folder,
    play,
    read_cast,
    read_run,
    refuse_taken,
    write_run,
)

HEADER = json.dumps({"version": 2, "width": 80, "height": 24})


def cast(tmp_path, *lines: str) -> Path:
    path = tmp_path / "console.cast"
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


@given(st.lists(st.tuples(st.floats(0, 1e6), st.binary(max_size=50))))
def test_a_console_survives_the_round_trip(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("cast") / "console.cast"
    events.sort(key=lambda event: event[0])
    with CastWriter(path, title="<x> \u202e") as writer:
        for time_s, chunk in events:
            writer.write(time_s, chunk)
    text = "".join(text for _, text in read_cast(path))
    whole = b"".join(chunk for _, chunk in events)
    # A character that the end cut off is not played.
    assert whole.decode(errors="replace").startswith(text)
    assert len(whole.decode(errors="replace")) - len(text) <= 1
    times = [time_s for time_s, _ in read_cast(path)]
    assert times == sorted(times)


def test_a_cast_ends_with_a_whole_line_whatever_becomes_of_its_writer(tmp_path):
    writer = CastWriter(tmp_path / "console.cast", title="t")
    writer.write(0.5, b"said")
    assert list(read_cast(tmp_path / "console.cast")) == [(0.5, "said")]
    writer.close()
    writer.close()


def test_a_cast_is_cut_and_says_so(tmp_path):
    path = tmp_path / "console.cast"
    with CastWriter(path, title="t", cap_bytes=1000) as writer:
        for _ in range(1000):
            writer.write(1.0, b"\x00" * 50)
    assert path.stat().st_size < 1300
    *_, (_, last) = read_cast(path)
    assert "what came after this was not kept" in last


BAD_CASTS = {
    "no JSON": "{",
    "no list": "{}",
    "too short": "[1.0, 'o']",
    "text as time": '["1", "o", "x"]',
    "true as time": '[true, "o", "x"]',
    "NaN": '[NaN, "o", "x"]',
    "infinity": '[Infinity, "o", "x"]',
    "too large for a float": f'[1{"0" * 400}, "o", "x"]',
    "too many digits": f'[1{"0" * 9000}, "o", "x"]',
    "before the start": '[-1, "o", "x"]',
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("line", BAD_CASTS.values(), ids=BAD_CASTS)
def test_a_bad_event_is_named_by_its_line(tmp_path, line):
    with pytest.raises(RecordingError, match="line 3"):
        list(read_cast(cast(tmp_path, '[0, "o", "x"]', line)))


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"version": 1}', "\x00" * 100])
def test_a_file_that_is_no_cast(tmp_path, text):
    path = tmp_path / "console.cast"
    path.write_text(text)
    with pytest.raises(RecordingError):
        list(read_cast(path))


@given(st.binary(max_size=200))
def test_any_bytes_as_a_cast_are_an_error_of_ours_at_most(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cast") / "console.cast"
    path.write_bytes(HEADER.encode() + b"\n" + data)
    with contextlib.suppress(RecordingError):
        list(read_cast(path))


def test_events_of_other_kinds_are_left_out(tmp_path):
    path = cast(tmp_path, '[0, "i", "typed"]', "", '[1, "o", "shown"]', '[2, "m", "mark"]')
    assert list(read_cast(path)) == [(1.0, "shown")]


def test_playing_keeps_the_pace_but_for_long_pauses(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    path = cast(tmp_path, '[1, "o", "a"]', '[3, "o", "b"]', '[2, "o", "c"]', '[1000, "o", "d"]')
    assert "".join(play(path, speed=2.0, longest_pause_s=5.0)) == "abcd"
    assert slept == [0.5, 1.0, 5.0]


def test_a_run_folder_is_its_owners_alone(tmp_path):
    folder = tmp_path / "runs" / "one"
    claim_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert read_run(folder).about["outcome"] == "running"


def at_once(count, act):
    """Call ``act(number)`` in so many threads at the same moment; return what came of each."""
    start = threading.Barrier(count)

    def work(number):
        start.wait()
        try:
            return act(number)
        except RecordingError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


@pytest.mark.parametrize("exists", [True, False], ids=["empty folder", "no folder"])
def test_one_of_several_runs_gets_a_folder(tmp_path, exists):
    for turn in range(50):
        folder = tmp_path / str(turn)
        if exists:
            folder.mkdir()
        errors = [found for found in at_once(4, lambda _, here=folder: claim_folder(here)) if found]
        assert len(errors) == 3
        assert all("already holds a run; it was not touched" in str(error) for error in errors)
        assert read_run(folder).about["outcome"] == "running"


def test_a_folder_is_claimed_although_another_run_gives_it_up(tmp_path):
    folder = tmp_path / "run"
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            with contextlib.suppress(OSError):
                folder.mkdir()
                folder.rmdir()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    claim_folder(folder)
    over.set()
    thread.join()
    assert read_run(folder).about["outcome"] == "running"


def test_a_deep_tree_is_not_searched_for_runs(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "run.json").touch()
    with pytest.raises(RecordingError, match="already holds other files"):
        refuse_taken(tmp_path)
    with pytest.raises(RecordingError, match="The folder / already holds other files"):
        refuse_taken(recording.Path("/"))


@pytest.mark.parametrize("name", ["run.json", "anything", "sub/run.json"])
def test_a_taken_folder_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x")
    what = "a run" if name.endswith("run.json") else "other files"
    with pytest.raises(RecordingError, match=f"already holds {what}; it was not touched"):
        refuse_taken(tmp_path)


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match="is a file, not a folder"):
        claim_folder(tmp_path / "file")


def test_a_run_comes_back_as_it_was_written(tmp_path):
    write_run(tmp_path, {"name": "ü", "started": "2026-11-22T10:00:00Z", "stages": []})
    found = read_run(tmp_path)
    assert found.name == "ü"
    assert found.about["format"] == recording.FORMAT
    assert found.label.startswith("recorded on 2026-11-22 with an unknown image")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format": 0}', '{"format": "1"}', "\x00", "[" * 100_000]
)
def test_a_run_that_cannot_be_read(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RecordingError):
        read_run(tmp_path)


def test_a_folder_without_run(tmp_path):
    with pytest.raises(RecordingError, match="holds no run"):
        read_run(tmp_path / "none")
