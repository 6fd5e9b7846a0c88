"""Cold and warm starts, with a guest that reads its seed within a second of emulation."""

import json
import os
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from guests import Then, guest_options, left_behind, make_guest, report, wait_until

from cloudlab import paths
from cloudlab.errors import (
    BootFailedError,
    CloudlabError,
    ConsoleClosedError,
    InterruptedRunError,
    SavedMachineError,
)
from cloudlab.image.cache import sha256_of
from cloudlab.image.choose import open_image
from cloudlab.lab import RunOptions, run_lab, run_many, saved, typical
from cloudlab.lab.options import GIB, Start
from cloudlab.machine import registry
from cloudlab.machine.config import Accel, Network
from cloudlab.recording import read_cast, read_run
from cloudlab.seed import GrowpartMode, Profile, SeedConfig

pytestmark = pytest.mark.usefixtures("own_cache")

LOCAL = "Starting cloud-init-local.service\r\n"


def guest(folder: Path, says: str = LOCAL, later: str | None = None, **options) -> RunOptions:
    """A guest that shows a stage, reads its seed, and reports."""
    path = make_guest(
        folder / "guest.img", says, Then.READ_SEED, report() if later is None else later
    )
    return RunOptions(image=open_image(path), accel=Accel.TCG, timeout_s=120, **options)


def started(run) -> tuple[str, str]:
    start = read_run(run.recording.folder).about["start"]
    return start["kind"], start["why"]


def saved_folders() -> list[Path]:
    return sorted(paths.saved_folder().glob("*"))


def test_the_first_run_saves_a_machine_and_the_second_starts_from_it(tmp_path):
    options = guest(tmp_path)
    first = run_lab(options, tmp_path / "first")
    kind, why = started(first)
    assert kind == "cold"
    assert why.startswith("no machine was saved yet; this one was, at ")
    [folder] = saved_folders()
    assert folder.stat().st_mode & 0o777 == 0o700

    second = run_lab(options, tmp_path / "second")
    about = read_run(tmp_path / "second").about
    assert about["start"]["kind"] == "warm"
    assert about["start"]["resumed_at_s"] == json.loads((folder / "saved.json").read_text())["at_s"]
    assert about["time_s"] > about["start"]["resumed_at_s"]
    assert "-incoming" in about["command"]
    assert "started warm" in second.recording.label
    # Everything that the saved machine had said is there, at its time, and nothing twice.
    one, two = ((tmp_path / run / "user-data").read_bytes() for run in ("first", "second"))
    assert one == two
    nonces = [read_run(tmp_path / run).nonce.encode() for run in ("first", "second")]
    one, two = ((tmp_path / run / "console.log").read_bytes() for run in ("first", "second"))
    assert nonces[0] in one
    assert one.replace(*nonces) == two
    numbers = ["stage", "layer", "device", "size_bytes", "used_bytes", "line"]
    here = [run.sizes()[run.sizes()["layer"] != "overlay_file"][numbers] for run in (first, second)]
    assert here[0].equals(here[1])
    times = [time_s for time_s, _ in read_cast(tmp_path / "second" / "console.cast")]
    assert times == sorted(times)
    assert times[-1] >= about["start"]["resumed_at_s"]
    for run in ("first", "second"):
        assert left_behind(tmp_path / run) == []


@pytest.mark.parametrize("disk_size_bytes", [3 * GIB, 20 * GIB, 2 << 40], ids=["3G", "20G", "2T"])
def test_each_warm_run_has_a_disk_of_its_own_size(tmp_path, disk_size_bytes):
    options = guest(tmp_path, keep_overlay=True)
    run_lab(options, tmp_path / "first")
    run = run_lab(replace(options, disk_size_bytes=disk_size_bytes), tmp_path / "second")
    assert started(run)[0] == "warm"
    info = ["qemu-img", "info", "--output=json", tmp_path / "second" / "overlay.qcow2"]
    told = json.loads(subprocess.run(info, check=True, capture_output=True).stdout)
    assert told["virtual-size"] == disk_size_bytes
    assert subprocess.run(["qemu-img", "check", "-q", info[-1]], check=False).returncode == 0


def test_each_warm_run_has_a_seed_of_its_own(tmp_path):
    options = guest(tmp_path)
    run_lab(options, tmp_path / "first")
    other = replace(options, seed=SeedConfig(growpart=GrowpartMode.OFF, hostname="other"))
    run = run_lab(other, tmp_path / "second")
    assert started(run)[0] == "warm"
    assert "mode: 'off'" in (tmp_path / "second" / "user-data").read_text()
    assert "other" in (tmp_path / "second" / "meta-data").read_text()


def test_side_by_side_one_saves_and_the_others_wait_for_it(tmp_path):
    options = guest(tmp_path)
    runs = run_many([(options, tmp_path / f"run-{number}") for number in range(4)])
    assert sorted(started(run)[0] for run in runs) == ["cold", "warm", "warm", "warm"]
    assert len(saved_folders()) == 1
    assert [run.error for run in runs] == [None] * 4


def test_a_run_is_stopped_while_it_is_restored(tmp_path):
    options = guest(tmp_path)
    run_lab(options, tmp_path / "first")
    stop = threading.Event()
    pids, errors = [], []

    def hang(event):
        if event.note == "launched":
            # A QEMU that stands still takes no state, and says nothing either.
            [machine] = registry.list_running()
            pids.append(machine.qemu_pid)
            os.kill(machine.qemu_pid, signal.SIGSTOP)
            threading.Timer(0.5, stop.set).start()

    def work():
        try:
            run_lab(options, tmp_path / "second", on_event=hang, cancel=stop)
        except CloudlabError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    ended = wait_until(lambda: not thread.is_alive())
    if not ended:
        os.kill(pids[0], signal.SIGKILL)
    thread.join()
    assert ended
    assert read_run(tmp_path / "second").about["outcome"] == "interrupted"
    assert read_run(tmp_path / "second").about["start"]["kind"] == "warm"
    assert isinstance(errors[0], InterruptedRunError)
    assert len(saved_folders()) == 1, "nothing was wrong with it"
    assert left_behind(tmp_path / "second") == []


ENDINGS = {
    "supervisor killed": lambda machine: os.kill(machine.supervisor_pid, signal.SIGKILL),
    "QEMU killed": lambda machine: os.kill(machine.qemu_pid, signal.SIGKILL),
    "stopped": registry.stop,
}


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_ending_a_machine_while_it_is_restored_spares_what_was_saved(tmp_path, end):
    options = guest(tmp_path)
    run_lab(options, tmp_path / "first")
    enders = []

    def hang(event):
        if event.note == "launched":
            [machine] = registry.list_running()
            os.kill(machine.qemu_pid, signal.SIGSTOP)
            enders.append(threading.Timer(0.5, end, [machine]))
            enders[0].start()

    with pytest.raises(ConsoleClosedError) as caught:
        run_lab(options, tmp_path / "second", on_event=hang)
    enders[0].join()
    words = "stopped from outside" if end is registry.stop else "killed from outside (signal 9)"
    assert words in caught.value.message
    about = read_run(tmp_path / "second").about
    assert about["outcome"] == "failed"
    assert words in about["error"]["text"]
    assert left_behind(tmp_path / "second") == []
    assert len(saved_folders()) == 1
    assert started(run_lab(options, tmp_path / "third"))[0] == "warm"


def test_what_cannot_be_read_now_is_not_taken_for_damaged():
    with saved.saving("key") as part:
        (part / "memory").write_bytes(b"x")
        saved.keep(part, "key", {})
    [folder] = saved_folders()
    memory = folder / "memory"
    memory.unlink()
    memory.symlink_to("memory")  # "Too many levels of symbolic links", for root as well
    with pytest.raises(SavedMachineError, match="cannot be read: Too many levels"):
        saved.find_saved("key")
    assert saved_folders() == [folder]


def damage(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a bit": lambda folder: damage(folder / "memory"),
    "cut": lambda folder: (folder / "disk.qcow2").chmod(0o600) or (folder / "disk.qcow2").write_bytes(b"QFI"),
    "lost file": lambda folder: (folder / "console.log").unlink(),
    "no record": lambda folder: (folder / "saved.json").write_text("{"),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_machine_is_not_restored_but_saved_anew(tmp_path, how):
    options = guest(tmp_path)
    run_lab(options, tmp_path / "first")
    how(saved_folders()[0])
    second = run_lab(options, tmp_path / "second")
    kind, why = started(second)
    assert kind == "cold"
    assert "is damaged" in why
    assert "it was deleted; this one was, at " in why
    assert started(run_lab(options, tmp_path / "third"))[0] == "warm"


def test_a_state_that_qemu_refuses_leads_to_a_cold_start(tmp_path):
    options = guest(tmp_path)
    run_lab(options, tmp_path / "first")
    [folder] = saved_folders()
    memory = folder / "memory"
    memory.chmod(0o600)
    memory.write_bytes(b"QEVM" + bytes(4096))
    record = json.loads((folder / "saved.json").read_text())
    record["files"]["memory"] = saved._fingerprint(memory)
    (folder / "saved.json").write_text(json.dumps(record))
    run = run_lab(options, tmp_path / "second")
    kind, why = started(run)
    assert kind == "cold"
    assert "could not be restored" in why
    assert run.recording.about["outcome"] == "done"
    assert saved_folders() == []
    assert left_behind(tmp_path / "second") == []


def test_whoever_waits_for_a_machine_that_never_comes_boots_cold(tmp_path):
    options = guest_options(tmp_path, LOCAL + "Kernel panic - not syncing: early")
    runs = run_many([(options, tmp_path / f"run-{number}") for number in range(2)], side_by_side=1)
    assert all(isinstance(run.error, BootFailedError) for run in runs)
    assert saved_folders() == []


def test_a_guest_that_reads_its_seed_before_cloud_init_is_not_saved(tmp_path):
    runs = [run_lab(guest(tmp_path, "nothing of note\r\n"), tmp_path / name) for name in "ab"]
    for run in runs:
        kind, why = started(run)
        assert kind == "cold"
        assert "the seed was read as early as in stage firmware" in why
    assert saved_folders() == []


def test_stop_while_a_machine_is_saved_leaves_nothing(tmp_path, monkeypatch):
    stop = threading.Event()

    def slowly(*_):
        stop.set()
        return real(*_)

    real = saved._fingerprint
    monkeypatch.setattr(saved, "_fingerprint", slowly)
    with pytest.raises(InterruptedRunError):
        run_lab(guest(tmp_path), tmp_path / "run", cancel=stop)
    assert read_run(tmp_path / "run").about["outcome"] == "interrupted"
    assert left_behind(tmp_path / "run") == []
    assert not list(paths.saved_folder().glob("*.part"))


COLD = {
    "asked for": ({"start": Start.COLD}, "asked for"),
    "no seed": ({"attach_seed": False}, "without a seed"),
    "network": ({"network": Network.USER}, "a clock that is right"),
    "full profile": ({"seed": SeedConfig(profile=Profile.FULL)}, "boots as a cloud does"),
}


@pytest.mark.parametrize(("options", "reason"), COLD.values(), ids=COLD)
def test_what_starts_cold_says_why(tmp_path, options, reason):
    for name in "ab":
        run = run_lab(guest(tmp_path, LOCAL + report(), **options), tmp_path / name)
        kind, why = started(run)
        assert kind == "cold"
        assert reason in why
    assert saved_folders() == []


def test_warm_when_asked_for_with_the_full_profile(tmp_path):
    options = guest(tmp_path, start=Start.WARM, seed=SeedConfig(profile=Profile.FULL))
    run_lab(options, tmp_path / "first")
    assert started(run_lab(options, tmp_path / "second"))[0] == "warm"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"memory_bytes": GIB // 2}, id="memory"),
        pytest.param({"cpus": 2}, id="cpus"),
    ],
)
def test_another_kind_of_machine_is_saved_on_its_own(tmp_path, change):
    options = guest(tmp_path)
    run_lab(options, tmp_path / "first")
    assert started(run_lab(replace(options, **change), tmp_path / "second"))[0] == "cold"
    assert len(saved_folders()) == 2


def test_a_changed_image_is_booted_afresh(tmp_path):
    run_lab(guest(tmp_path), tmp_path / "first")
    changed = guest(tmp_path, LOCAL + "a newer kernel\r\n")
    run = run_lab(changed, tmp_path / "second")
    assert started(run)[0] == "cold"
    assert b"a newer kernel" in (tmp_path / "second" / "console.log").read_bytes()


def test_an_image_with_another_time_and_the_same_hash_starts_warm(tmp_path):
    options = guest(tmp_path)
    image = replace(options.image, sha256=sha256_of(options.image.path))
    run_lab(replace(options, image=image), tmp_path / "first")
    os.utime(image.path, ns=(10**18, 10**18))
    second = run_lab(replace(options, image=image), tmp_path / "second")
    assert started(second)[0] == "warm"


def test_no_room_is_no_reason_to_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "LIMIT_BYTES", 1 << 20)
    run = run_lab(guest(tmp_path), tmp_path / "run")
    kind, why = started(run)
    assert kind == "cold"
    assert "more than may be kept" in why
    assert saved_folders() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_host_disk_that_fills_up_while_a_machine_is_saved_does_not_end_the_run(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(saved, "_RESERVE_BYTES", -(2 << 30))
    root = paths.make_folder(paths.saved_folder(), private=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", root], check=True)
    try:
        run = run_lab(guest(tmp_path), tmp_path / "run")
        kind, why = started(run)
        assert kind == "cold"
        assert why.startswith("no machine could be saved: ")
        assert "No space left" in why
        assert run.recording.about["outcome"] == "done"
        assert saved_folders() == []
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_the_machines_used_longest_ago_go_first(monkeypatch):
    monkeypatch.setattr(saved, "LIMIT_BYTES", 2500)
    for key in ("oldest", "middle", "newest"):
        with saved.saving(key) as part:
            (part / "memory").write_bytes(bytes(1000))
            saved.keep(part, key, {"at_s": 1.0, "console": [], "overlay_growth": []})
        if key == "middle":
            assert saved.find_saved("oldest") is not None, "which makes it the one used last"
    assert {path.name for path in saved_folders()} == {"oldest", "newest"}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a read-only folder needs root")
def test_a_machine_in_a_read_only_cache_is_found():
    with saved.saving("key") as part:
        saved.keep(part, "key", {})
    root = paths.saved_folder()
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        assert saved.find_saved("key") is not None
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_what_a_dead_process_left_is_swept():
    with subprocess.Popen(["true"]) as dead:
        pass
    assert not psutil.pid_exists(dead.pid)
    root = paths.make_folder(paths.saved_folder(), private=True)
    (root / f"key.{dead.pid}.part").mkdir()
    (root / "key.1.part").mkdir()
    with saved.saving("other"):
        assert {path.name for path in saved_folders()} >= {"key.1.part"}
        assert not (root / f"key.{dead.pid}.part").exists()


def test_a_record_of_another_machine_is_not_followed_out_of_its_folder(tmp_path):
    with saved.saving("key") as part:
        saved.keep(part, "key", {})
    record = saved_folders()[0] / "saved.json"
    record.write_text(json.dumps({"files": {"memory": [1, "0" * 64]}}))
    with pytest.raises(SavedMachineError, match="a file is missing"):
        saved.find_saved("key")
    assert saved_folders() == []


def test_the_typical_time_is_that_of_the_start_to_come(tmp_path):
    options = guest(tmp_path)
    assert typical.expected_s(options, Accel.TCG) == 70.0
    typical.remember(options, Accel.TCG, "cold", 60.0)
    assert typical.expected_s(options, Accel.TCG) == 60.0
    typical.remember(options, Accel.TCG, "warm", 20.0)
    assert typical.expected_s(options, Accel.TCG) == 20.0
    assert typical.expected_s(replace(options, start=Start.COLD), Accel.TCG) == 60.0
