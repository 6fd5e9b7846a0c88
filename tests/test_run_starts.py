"""Cold and warm starts, with a guest that reads its seed within a second of emulation."""

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from guests import Then, guest_options, left_behind, make_guest, report, wait_until
from pandas.testing import assert_frame_equal

from cloudlab import paths
from cloudlab.console import read_cast
from cloudlab.errors import (
    BootFailedError,
    CloudlabError,
    ConsoleClosedError,
    InterruptedRunError,
    UsageError,
)
from cloudlab.image.cache import open_image, sha256_of
from cloudlab.machine import registry, snapshots
from cloudlab.machine.config import Accel, Network
from cloudlab.run import prepare as prepared
from cloudlab.run.boot import boot, boot_many, dated_folder
from cloudlab.run.options import Options, Start
from cloudlab.run.prepare import prepare
from cloudlab.run.start import expected_s, remember_duration
from cloudlab.run.value import Run
from cloudlab.seed import GrowpartMode, Profile, SeedConfig
from cloudlab.units import GIB

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("own_cache")]

LOCAL = "Starting cloud-init-local.service\r\n"


def guest(folder: Path, says: str = LOCAL, later: str | None = None, **options) -> Options:
    """A guest that shows a stage, reads its seed, and reports."""
    path = make_guest(
        folder / "guest.img", says, Then.READ_SEED, report() if later is None else later
    )
    return Options(image=open_image(path), accel=Accel.TCG, timeout_s=120, **options)


def started(run) -> tuple[str, str]:
    start = Run(run.folder).record.start
    return start.kind, start.why


def snapshot_folders() -> list[Path]:
    return sorted(paths.snapshots_folder().glob("*"))


def test_the_first_run_saves_a_machine_and_the_second_starts_from_it(tmp_path):
    options = guest(tmp_path)
    first = boot(options, tmp_path / "first")
    kind, why = started(first)
    assert kind == "cold"
    assert why.startswith("there was no snapshot yet; this run took one at ")
    [folder] = snapshot_folders()
    assert folder.stat().st_mode & 0o777 == 0o700

    second = boot(options, tmp_path / "second")
    record = Run(tmp_path / "second").record
    assert record.start.kind == "warm"
    assert record.start.resumed_at_s == json.loads((folder / "snapshot.json").read_text())["at_s"]
    assert record.time_s > record.start.resumed_at_s
    assert "-incoming" in record.command
    assert "warm start" in second.label
    # Everything that the saved machine had said is there, at its time, and nothing twice.
    one, two = ((tmp_path / run / "user-data").read_bytes() for run in ("first", "second"))
    assert one == two
    nonces = [run.record.nonce.encode() for run in (first, second)]
    one, two = ((tmp_path / run / "console.log").read_bytes() for run in ("first", "second"))
    assert nonces[0] in one
    assert one.replace(*nonces) == two
    numbers = ["stage", "layer", "device", "size_bytes", "used_bytes", "line"]
    here = [run.sizes[run.sizes["layer"] != "overlay_file"][numbers] for run in (first, second)]
    assert here[0].equals(here[1])
    times = [time_s for time_s, _ in read_cast(tmp_path / "second" / "console.cast")]
    assert times == sorted(times)
    assert times[-1] >= round(record.start.resumed_at_s, 3), "times in a cast are so precise"
    for run in ("first", "second"):
        assert left_behind(tmp_path / run) == []


@pytest.mark.parametrize("disk_size_bytes", [3 * GIB, 20 * GIB, 2 << 40], ids=["3G", "20G", "2T"])
def test_each_warm_run_has_a_disk_of_its_own_size(tmp_path, disk_size_bytes):
    options = guest(tmp_path, keep_overlay=True)
    boot(options, tmp_path / "first")
    run = boot(replace(options, disk_size_bytes=disk_size_bytes), tmp_path / "second")
    assert started(run)[0] == "warm"
    info = ["qemu-img", "info", "--output=json", tmp_path / "second" / "overlay.qcow2"]
    told = json.loads(subprocess.run(info, check=True, capture_output=True).stdout)
    assert told["virtual-size"] == disk_size_bytes
    assert subprocess.run(["qemu-img", "check", "-q", info[-1]], check=False).returncode == 0


def test_each_warm_run_has_a_seed_of_its_own(tmp_path):
    options = guest(tmp_path)
    boot(options, tmp_path / "first")
    other = replace(options, seed=SeedConfig(growpart=GrowpartMode.OFF, hostname="other"))
    run = boot(other, tmp_path / "second")
    assert started(run)[0] == "warm"
    assert "mode: 'off'" in (tmp_path / "second" / "user-data").read_text()
    assert "other" in (tmp_path / "second" / "meta-data").read_text()


def test_side_by_side_one_saves_and_the_others_wait_for_it(tmp_path):
    options = guest(tmp_path)
    runs = boot_many([(options, tmp_path / f"run-{number}") for number in range(4)])
    assert sorted(started(run)[0] for run in runs) == ["cold", "warm", "warm", "warm"]
    assert len(snapshot_folders()) == 1
    assert [run.error for run in runs] == [None] * 4


def test_a_run_is_stopped_while_it_is_restored(tmp_path):
    options = guest(tmp_path)
    boot(options, tmp_path / "first")
    stop = threading.Event()
    pids, errors = [], []

    def hang(event):
        if event.note == "resuming from a snapshot":
            # A QEMU that stands still takes no state, and says nothing either.
            [machine] = registry.list_running()
            pids.append(machine.qemu_pid)
            os.kill(machine.qemu_pid, signal.SIGSTOP)
            threading.Timer(0.5, stop.set).start()

    def work():
        try:
            boot(options, tmp_path / "second", on_event=hang, cancel=stop)
        except CloudlabError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    ended = wait_until(lambda: not thread.is_alive())
    if not ended:
        os.kill(pids[0], signal.SIGKILL)
    thread.join()
    assert ended
    assert Run(tmp_path / "second").record.outcome == "interrupted"
    assert Run(tmp_path / "second").record.start.kind == "warm"
    assert isinstance(errors[0], InterruptedRunError)
    assert len(snapshot_folders()) == 1, "nothing was wrong with it"
    assert left_behind(tmp_path / "second") == []


ENDINGS = {
    "supervisor killed": lambda machine: os.kill(machine.supervisor_pid, signal.SIGKILL),
    "QEMU killed": lambda machine: os.kill(machine.qemu_pid, signal.SIGKILL),
    "stopped": registry.stop,
}


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_ending_a_machine_while_it_is_resumed_spares_its_snapshot(tmp_path, end):
    options = guest(tmp_path)
    boot(options, tmp_path / "first")
    enders = []

    def hang(event):
        if event.note == "resuming from a snapshot":
            [machine] = registry.list_running()
            os.kill(machine.qemu_pid, signal.SIGSTOP)
            enders.append(threading.Timer(0.5, end, [machine]))
            enders[0].start()

    with pytest.raises(ConsoleClosedError) as caught:
        boot(options, tmp_path / "second", on_event=hang)
    enders[0].join()
    words = "stopped from outside" if end is registry.stop else "killed from outside (signal 9)"
    assert words in caught.value.message
    record = Run(tmp_path / "second").record
    assert record.outcome == "failed"
    assert words in record.error.text
    assert left_behind(tmp_path / "second") == []
    assert len(snapshot_folders()) == 1
    assert started(boot(options, tmp_path / "third"))[0] == "warm"


def damage(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a bit": lambda folder: damage(folder / "memory"),
    "cut": lambda folder: (folder / "disk.qcow2").chmod(0o600) or (folder / "disk.qcow2").write_bytes(b"QFI"),
    "lost file": lambda folder: (folder / "console.log").unlink(),
    "no record": lambda folder: (folder / "snapshot.json").write_text("{"),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_machine_is_not_restored_but_saved_anew(tmp_path, how):
    options = guest(tmp_path)
    boot(options, tmp_path / "first")
    how(snapshot_folders()[0])
    second = boot(options, tmp_path / "second")
    kind, why = started(second)
    assert kind == "cold"
    assert "is damaged" in why
    assert "it was deleted; this run took one at " in why
    assert started(boot(options, tmp_path / "third"))[0] == "warm"


def test_an_image_with_another_time_and_the_same_hash_starts_warm(tmp_path):
    options = guest(tmp_path)
    image = replace(options.image, sha256=sha256_of(options.image.path))
    boot(replace(options, image=image), tmp_path / "first")
    os.utime(image.path, ns=(10**18, 10**18))
    second = boot(replace(options, image=image), tmp_path / "second")
    assert started(second)[0] == "warm"


def record_again(folder: Path) -> None:
    """Record a snapshot's files as they are now."""
    record = json.loads((folder / "snapshot.json").read_text())
    for name in record["files"]:
        record["files"][name] = asdict(snapshots._fingerprint(folder / name))
    (folder / "snapshot.json").write_text(json.dumps(record))


def test_a_disk_that_cannot_be_resized_leads_to_a_cold_start_and_the_snapshot_stays(tmp_path):
    options = guest(tmp_path)
    boot(options, tmp_path / "first")
    [folder] = snapshot_folders()
    disk = folder / "disk.qcow2"
    disk.chmod(0o600)
    # QEMU resizes no qcow2 of version 2 that has a snapshot.
    for command in (["snapshot", "-c", "here"], ["amend", "-q", "-o", "compat=0.10"]):
        subprocess.run(["qemu-img", *command, disk], check=True)
    record_again(folder)
    run = boot(replace(options, disk_size_bytes=30 * GIB), tmp_path / "second")
    kind, why = started(run)
    assert kind == "cold"
    assert "could not be resumed: QEMU refused block_resize" in why
    assert snapshot_folders() == [folder]
    assert started(boot(options, tmp_path / "third"))[0] == "warm"


def test_a_state_that_qemu_refuses_leads_to_a_cold_start(tmp_path):
    options = guest(tmp_path)
    boot(options, tmp_path / "first")
    [folder] = snapshot_folders()
    memory = folder / "memory"
    memory.chmod(0o600)
    memory.write_bytes(b"QEVM" + bytes(4096))
    record_again(folder)
    run = boot(options, tmp_path / "second")
    kind, why = started(run)
    assert kind == "cold"
    assert "could not be resumed" in why
    assert "\n" not in why
    assert run.record.outcome == "done"
    assert snapshot_folders() == []
    assert left_behind(tmp_path / "second") == []


def test_whoever_waits_for_a_machine_that_never_comes_boots_cold(tmp_path):
    options = guest_options(tmp_path, LOCAL + "Kernel panic - not syncing: early")
    runs = boot_many([(options, tmp_path / f"run-{number}") for number in range(2)], parallel=1)
    assert all(isinstance(run.error, BootFailedError) for run in runs)
    assert snapshot_folders() == []


def test_a_guest_that_reads_its_seed_before_cloud_init_is_not_saved(tmp_path):
    runs = [boot(guest(tmp_path, "nothing of note\r\n"), tmp_path / name) for name in "ab"]
    for run in runs:
        kind, why = started(run)
        assert kind == "cold"
        assert "the guest read its seed as early as in stage firmware" in why
    assert snapshot_folders() == []


def test_stop_while_a_machine_is_saved_leaves_nothing(tmp_path, monkeypatch):
    stop = threading.Event()

    def slowly(*_):
        stop.set()
        return real(*_)

    real = snapshots._fingerprint
    monkeypatch.setattr(snapshots, "_fingerprint", slowly)
    with pytest.raises(InterruptedRunError):
        boot(guest(tmp_path), tmp_path / "run", cancel=stop)
    assert Run(tmp_path / "run").record.outcome == "interrupted"
    assert left_behind(tmp_path / "run") == []
    assert not list(paths.snapshots_folder().glob("*.part"))


COLD = {
    "asked for": ({"start": Start.COLD}, "requested"),
    "no seed": ({"attach_seed": False}, "without a seed"),
    "network": ({"network": Network.USER}, "needs the right time"),
    "full profile": ({"seed": SeedConfig(profile=Profile.FULL)}, "boots as in a cloud"),
}


@pytest.mark.parametrize(("options", "reason"), COLD.values(), ids=COLD)
def test_what_starts_cold_says_why(tmp_path, options, reason):
    for name in "ab":
        run = boot(guest(tmp_path, LOCAL + report(), **options), tmp_path / name)
        kind, why = started(run)
        assert kind == "cold"
        assert reason in why
    assert snapshot_folders() == []


def test_warm_when_asked_for_with_the_full_profile(tmp_path):
    options = guest(tmp_path, start=Start.WARM, seed=SeedConfig(profile=Profile.FULL))
    boot(options, tmp_path / "first")
    assert started(boot(options, tmp_path / "second"))[0] == "warm"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"memory_bytes": GIB // 2}, id="memory"),
        pytest.param({"cpus": 2}, id="cpus"),
    ],
)
def test_another_kind_of_machine_is_saved_on_its_own(tmp_path, change):
    options = guest(tmp_path)
    boot(options, tmp_path / "first")
    assert started(boot(replace(options, **change), tmp_path / "second"))[0] == "cold"
    assert len(snapshot_folders()) == 2


def test_a_changed_image_is_booted_afresh(tmp_path):
    boot(guest(tmp_path), tmp_path / "first")
    changed = guest(tmp_path, LOCAL + "a newer kernel\r\n")
    run = boot(changed, tmp_path / "second")
    assert started(run)[0] == "cold"
    assert b"a newer kernel" in (tmp_path / "second" / "console.log").read_bytes()


def test_no_room_is_no_reason_to_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "LIMIT_BYTES", 1 << 20)
    run = boot(guest(tmp_path), tmp_path / "run")
    kind, why = started(run)
    assert kind == "cold"
    assert "more than may be kept" in why
    assert snapshot_folders() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_host_disk_that_fills_up_while_a_machine_is_saved_does_not_end_the_run(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(snapshots, "_RESERVE_BYTES", -(2 << 30))
    root = paths.make_folder(paths.snapshots_folder(), private=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", root], check=True)
    try:
        run = boot(guest(tmp_path), tmp_path / "run")
        kind, why = started(run)
        assert kind == "cold"
        assert why.startswith("no snapshot could be taken: ")
        assert "No space left" in why
        assert run.record.outcome == "done"
        assert snapshot_folders() == []
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_the_typical_time_is_that_of_the_start_to_come(tmp_path):
    options = guest(tmp_path)
    with contextlib.ExitStack() as undo:
        job = prepare(options, tmp_path / "run", undo)
        assert expected_s(job, Start.WARM) == expected_s(job, Start.COLD) == 70.0
        remember_duration(job, Start.COLD, 60.0)
        assert expected_s(job, Start.WARM) == 60.0
        remember_duration(job, Start.WARM, 20.0)
        remember_duration(job, Start.WARM, 24.0)
        assert expected_s(job, Start.WARM) == 22.0
        assert expected_s(job, Start.COLD) == 60.0


def test_damaged_durations_are_no_reason_to_fail(tmp_path):
    options = guest(tmp_path)
    for text in ("{", "[]", '{"a": 1}', '{"a": ["x"]}'):
        (paths.cache_folder() / "typical.json").write_text(text)
        with contextlib.ExitStack() as undo:
            assert expected_s(prepare(options, tmp_path / "run", undo), Start.COLD) == 70.0


def test_the_launch_says_how_long_it_usually_takes(tmp_path):
    events = []
    options = guest(tmp_path)
    boot(options, tmp_path / "first", on_event=events.append)
    boot(options, tmp_path / "second", on_event=events.append)
    told = [(event.note, event.expected_s) for event in events if event.expected_s]
    [(first, guess_s), (second, typical_s)] = told
    assert (first, guess_s) == ("launched", 70.0)
    assert second == "resuming from a snapshot"
    assert typical_s == pytest.approx(Run(tmp_path / "first").record.took_s, abs=0.06)


def test_a_boot_from_plain_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = guest(tmp_path, LOCAL).image
    run = boot(image=str(image.path), growpart="off", accel="tcg", start="cold", disk_size="3G")
    assert run.folder.parent == Path("runs").absolute()
    assert run.folder.name.endswith("-partition-kept")
    assert run.scenario == "partition kept"
    assert run.layout("after").virtual_size_bytes == 3 * GIB
    assert "mode: 'off'" in run.user_data
    again = boot(guest(tmp_path, LOCAL, start=Start.COLD), tmp_path / "again", cpus=2)
    assert again.options.cpus == 2
    with pytest.raises(UsageError, match="no option 'cpu'"):
        boot(image=image, cpu=2)


def test_a_fresh_run_is_the_run_that_is_read_back(tmp_path):
    fresh = boot(guest(tmp_path), tmp_path / "run")
    read = Run(tmp_path / "run")
    assert read.record == fresh.record
    assert_frame_equal(read.sizes, fresh.sizes)
    assert read.parsed == fresh.parsed
    assert read.root_sizes("after") == fresh.root_sizes("after") == (19 * GIB, 19 * GIB - (1 << 20))
    assert fresh.label.startswith("booted here on 20")


def test_a_new_runs_folder_is_named_by_its_second_and_scenario(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = dated_folder("a/b, c\x01").name
    assert re.fullmatch(r"20\d\d-\d\d-\d\d-\d{6}-a-b-c", name)
    for second in range(60):
        moment = datetime.now().astimezone() + timedelta(seconds=second)
        (tmp_path / "runs" / f"{moment:%Y-%m-%d-%H%M%S}-default").mkdir(parents=True, exist_ok=True)
    run = boot(guest(tmp_path))
    assert run.folder.name.endswith("-default-2")
    assert run.record.outcome == "done"


def test_the_seed_is_built_once_and_its_warnings_are_notes(tmp_path):
    events = []
    text = "#cloud-config\nresize_rootfs: true\nresize_rootfs: false\n"
    options = guest(tmp_path, user_data=text, meta_data="instance-id: i-1\n")
    with pytest.MonkeyPatch.context() as patch:
        built = []
        real = prepared.build_seed
        patch.setattr(prepared, "build_seed", lambda *a, **k: built.append(1) or real(*a, **k))
        boot(options, tmp_path / "run", on_event=events.append)
    assert len(built) == 1
    notes = [event.note for event in events if event.note]
    assert notes[0] == "preparing"
    assert "line 3, column 1" in notes[1]
    assert notes[2].startswith("accelerator: tcg (")
    assert [event.is_remark for event in events if event.note][:4] == [False, True, True, False]
    assert notes[-1] == "done"
