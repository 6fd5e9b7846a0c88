"""A run on disk: its record is checked whole, written whole, and read as it was written."""

import contextlib
import copy
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from guests import make_guest
from hypothesis import given
from hypothesis import strategies as st

from cloudlab.course.cases import CASES
from cloudlab.errors import RecordingError
from cloudlab.image.cache import open_image
from cloudlab.run.options import Options
from cloudlab.run.record import (
    FORMAT,
    Outcome,
    Record,
    RecordedError,
    RecordedImage,
    RecordedNetwork,
    RecordedOptions,
    check_new_folder,
    claim_folder,
    read_record,
    record_from_json,
    write_record,
)
from cloudlab.run.value import Run, recorded, recording_names
from cloudlab.seed import GrowpartMode, ResizeRootfs, SeedConfig


def test_a_run_folder_is_its_owners_alone(tmp_path):
    folder = tmp_path / "runs" / "one"
    claim_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert read_record(folder).outcome == "running"


def at_once(count, act):
    """Call ``act(number)`` in so many threads at the same moment; return their results."""
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
        assert read_record(folder).outcome == "running"


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
    assert read_record(folder).outcome == "running"


def test_a_deep_tree_is_not_searched_for_runs(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "run.json").touch()
    with pytest.raises(RecordingError, match="already holds other files"):
        check_new_folder(tmp_path)
    with pytest.raises(RecordingError, match="The folder / already holds other files"):
        check_new_folder(Path("/"))


@pytest.mark.parametrize("name", ["run.json", "anything", "sub/run.json"])
def test_a_taken_folder_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x")
    what = "a run" if name.endswith("run.json") else "other files"
    with pytest.raises(RecordingError, match=f"already holds {what}; it was not touched"):
        check_new_folder(tmp_path)


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "in" / "it"):
        with pytest.raises(RecordingError, match="/file is a file, not a folder"):
            claim_folder(folder)


def test_a_run_comes_back_as_it_was_written(tmp_path):
    write_record(tmp_path, Record(name="ü", started="2026-11-22T10:00:00Z"))
    found = Run(tmp_path)
    assert found.name == "ü"
    assert json.loads((tmp_path / "run.json").read_bytes())["format"] == FORMAT
    assert found.label.startswith("booted here on 2026-11-22 with an unknown image")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", '{"format": 0}', '{"format": "1"}', "\x00", "[" * 100_000,
        '{"format": NaN}', '{"format": 1, "name": "\\ud800"}', '{"format": 1, "time_s": NaN}',
        '{"format": 1, "time_s": -1}', '{"format": 1, "time_s": 1e400}',
        f'{{"format": 1, "time_s": 1{"0" * 400}}}', '{"format": 1, "disk": 0}',
        '{"format": 1, "disk": []}', '{"format": 1, "disk_before": ""}',
        '{"format": 1, "disk": {"error": 1}}', '{"format": 1, "outcome": "well"}',
        '{"format": 1, "stages": [{"stage": "lunch", "start_s": 0, "end_s": 1}]}',
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_read(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RecordingError, match=r"run\.json") as caught:
        Run(tmp_path)
    assert caught.value.hint


def test_a_folder_without_run(tmp_path):
    with pytest.raises(RecordingError, match="is not a run folder"):
        Run(tmp_path / "none")


@pytest.mark.parametrize("name", recording_names())
def test_every_shipped_recording_opens_and_comes_back_as_it_was(name):
    record = recorded(name).record
    assert record_from_json(record.to_json()) == record
    assert record.name == name
    assert record.outcome is (Outcome.DONE if CASES[name].reads_seed else Outcome.FAILED)
    # A case that follows another boots its disk, which is a file without a hash.
    assert bool(record.image.sha256) is (CASES[name].follows is None)
    assert record.disk_before is not None
    assert record.disk_after is not None


def test_what_was_chosen_is_recorded(tmp_path):
    seed = SeedConfig(
        growpart=GrowpartMode.OFF, growpart_devices=("/", "/boot"), resize_rootfs=ResizeRootfs.FALSE
    )
    options = Options(
        open_image(make_guest(tmp_path / "disk.raw", "")), seed=seed, user_data="", cpus=2
    )
    assert RecordedOptions.of(options) == RecordedOptions(
        disk_size_bytes=20 << 30,
        growpart=GrowpartMode.OFF,
        growpart_devices=("/", "/boot"),
        resize_rootfs=ResizeRootfs.FALSE,
        own_user_data=True,
        memory_bytes=1 << 30,
        cpus=2,
        start=options.start,
    )


def full_record() -> Record:
    """A record that has a value in every field."""
    record = recorded("growpart-off").record
    partition = next(one for one in record.disk_after.partitions if one.filesystem)
    usage = {
        "free_bytes": 1,
        "total_bytes": 2,
        "last_mounted_at": datetime(2026, 11, 22, 10, tzinfo=UTC),
    }
    partition = replace(partition, filesystem=replace(partition.filesystem, **usage))
    disk = {"warnings": ("w",), "partitions": (partition,), "other_table": "LVM"}
    return replace(
        record,
        error=RecordedError("ConsoleTimeoutError", "It took too long."),
        warnings=("a warning",),
        took_s=12.5,
        options=replace(
            record.options,
            enlarge_to_bytes=30 << 30,
            growpart_devices=("/",),
            ignore_growroot_disabled=True,
            resize_rootfs=ResizeRootfs.NOBLOCK,
            firmware="bios",
        ),
        image=RecordedImage("n", "p", "s", "u", "d", "t", 1, 2),
        network=RecordedNetwork("b", "w"),
        nonce="0123456789012345",
        start=replace(record.start, key="k", resumed_at_s=1.5, saved="2026-11-22T10:00:00Z"),
        disk_before=replace(record.disk_before, **disk),
        disk_after=replace(record.disk_after, **disk),
    )


def places(value, path=()):
    """Return the path of each value inside a JSON value, and the value."""
    found = [(path, value)] if path else []
    inside = value if isinstance(value, dict) else {}
    inside = dict(enumerate(value)) if isinstance(value, list) else inside
    for key, inner in inside.items():
        found += places(inner, (*path, key))
    return found


DOCUMENT = record_from_json(full_record().to_json()).to_json()
#: What other versions of the layout's document added only for people.
DERIVED = {"type_name", "free_tail_bytes"}
PLACES = [
    (path, value)
    for path, value in places(DOCUMENT)
    if value is not None and not DERIVED & set(path)
]
WRONG = {
    str: [0, 1.5, True, [], ["x"], {}, {"x": 1}],
    bool: ["true", 1, 0.0, [], {}],
    int: ["1", 1.5, True, [], {}, -1, 1 << 70],
    float: ["1", True, [], {}, -1.0, float("nan"), float("inf"), 10**400],
    list: ["x", 1, True, {"0": "x"}, [None]],
    dict: ["x", 1, True, [1], [[]]],
}


def test_the_record_has_a_value_everywhere():
    assert [path for path, value in places(DOCUMENT) if value is None] == []


def with_value(path, value):
    """Return the document with another value at a place."""
    document = copy.deepcopy(DOCUMENT)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


@pytest.mark.parametrize("kind", WRONG)
def test_a_value_of_a_wrong_type_anywhere_is_refused(kind):
    tried = 0
    for path, value in PLACES:
        for wrong in WRONG[kind] if type(value) is kind else ():
            with pytest.raises(RecordingError) as caught:
                record_from_json(with_value(path, wrong))
            assert caught.value.hint
            tried += 1
    assert tried > 10


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([path for path, _ in PLACES]), ANY_JSON)
def test_any_value_anywhere_is_refused_or_kept(path, value):
    with contextlib.suppress(RecordingError):
        record = record_from_json(with_value(path, value))
        assert record_from_json(record.to_json()) == record


def test_keys_that_this_version_does_not_know_are_ignored():
    document = {**DOCUMENT, "disk_after": 1, "disk_error": [], "later": {"a": 1}}
    assert record_from_json(document) == record_from_json(DOCUMENT)


def test_a_run_of_an_older_version_lacks_what_came_later(tmp_path):
    about = recorded("default").record.to_json()
    for later in ("start", "took_s", "disk_before", "warnings", "network", "nonce"):
        del about[later]
    (tmp_path / "run.json").write_text(json.dumps(about))
    run = Run(tmp_path)
    assert run.took.startswith(f"{run.record.time_s:.1f} s, cold start")
    assert run.record.disk_before is None
    with pytest.raises(RecordingError, match="was not read before the boot"):
        run.layout("image")


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\x00b", "a\ud800b", "a\uffffb", "a\u202eb"])
def test_names_hold_nothing_that_acts(tmp_path, name):
    record = Record(name=name, scenario=name, image=RecordedImage(name=name))
    write_record(tmp_path, record)
    assert {record.name, record.scenario, record.image.name} == {"ab"}
    assert read_record(tmp_path) == record


def test_a_damaged_record_names_its_file_and_value(tmp_path):
    shutil.copytree(recorded("default").folder, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    about = json.loads(path.read_bytes())
    about["options"]["cpus"] = "many"
    path.write_text(json.dumps(about))
    with pytest.raises(RecordingError, match=r"run\.json cannot be used: .*options\.cpus"):
        Run(tmp_path / "run")


def test_every_option_is_recorded_but_those_that_are_left_out_on_purpose():
    chosen = {one.name for kind in (Options, SeedConfig) for one in fields(kind)}
    elsewhere = {"image", "seed", "scenario", "accel"}  # in the record, as other values
    in_files = {"user_data", "meta_data", "vendor_data", "network_config", "instance_id"}
    in_files |= {"extra_yaml", "bootcmd", "runcmd", "hostname", "report", "enlarge"}
    secret = {"users", "password_hash", "ssh_authorized_keys"}
    of_this_host = {"timeout_s", "check_user_data"}
    recorded = {one.name for one in fields(RecordedOptions)} - {"own_user_data"}
    left_out = elsewhere | in_files | secret | of_this_host
    assert chosen - recorded == left_out
    assert recorded <= chosen
