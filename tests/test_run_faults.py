"""What can go wrong in a run, caused for real: what the user is told, and that nothing stays."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path

import pytest
from console_text import GIB, block, device, disk_frames, filesystem
from guests import (
    KEPT,
    REAL_QEMU,
    Then,
    alive,
    fake_qemu,
    guest_options,
    left_behind,
    make_guest,
    report,
    wait_until,
)

from cloudlab import paths, tools
from cloudlab.console import read_cast
from cloudlab.errors import (
    BootFailedError,
    ChecksumError,
    CloudlabError,
    ConsoleClosedError,
    ConsoleTimeoutError,
    DiskError,
    HostDiskError,
    ImageError,
    InterruptedRunError,
    LaunchError,
    RecordingError,
    ToolFailedError,
    ToolNotFoundError,
    UsageError,
)
from cloudlab.image.cache import open_image
from cloudlab.machine import registry
from cloudlab.machine.config import Accel, Firmware
from cloudlab.machine.process import MachineEnd
from cloudlab.run import boot as boots
from cloudlab.run import monitor, options
from cloudlab.run import prepare as prepared
from cloudlab.run.boot import boot, boot_many
from cloudlab.run.display import save_demo
from cloudlab.run.options import Options
from cloudlab.run.record import Outcome, RecordedError, read_record
from cloudlab.run.value import Run

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("own_cache")]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@contextmanager
def small_disk(folder: Path, size: str, *, read_only=False):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        if read_only:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fail(kind, run_options, folder, **more):
    """Boot, expect an error, and expect that it is on record and that nothing else stays."""
    with pytest.raises(kind) as caught:
        boot(run_options, folder, **more)
    record = Run(folder).record
    assert record.outcome is Outcome.FAILED
    assert record.error == RecordedError(kind.__name__, str(caught.value))
    assert left_behind(folder) == []
    return caught.value


def once_launched(act):
    """Return an event handler that acts on the running machine, once, as somebody else would."""

    def handle(event):
        if event.note == "launched":
            [machine] = registry.list_running()
            act(machine)

    return handle


PROOFS = {
    "panic": ("[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs", "panicked"),
    "grub rescue": ("error: unknown filesystem.\r\ngrub rescue> ", "boot loader stopped"),
    "grub prompt": ("\x1b[2J\x1b[01;01H\x1b[0mgrub> ", "boot loader stopped"),
    "initramfs": ("Target filesystem doesn't have requested /sbin/init.\r\n(initramfs) ", "root"),
    "emergency": ("You are in emergency mode. After logging in, type", "emergency mode"),
    "uefi shell": ("UEFI Interactive Shell v2.2\r\nShell> ", "no boot loader"),
    "no datasource": ("Cloud-init v. 22.4 finished. Datasource DataSourceNone.", "no datasource"),
}


@pytest.mark.parametrize(("says", "reason"), PROOFS.values(), ids=PROOFS)
def test_a_boot_ends_early_once_the_console_proves_its_failure(tmp_path, says, reason):
    # The proof may be the last thing that the guest says, with no line end.
    error = fail(BootFailedError, guest_options(tmp_path, says), tmp_path / "run")
    assert reason in error.message
    assert error.stage == "firmware"
    assert error.tail[-1] == says.splitlines()[-1].rpartition("\x1b[0m")[2].rstrip()
    # A remedy is something that the user can do.
    assert re.search(
        r"--memory|--firmware|cloudlab inspect|fetch or build|Correct|Give", error.hint
    )


def test_a_disk_without_boot_loader(tmp_path):
    image = tmp_path / "data.img"
    subprocess.run(["/usr/sbin/mke2fs", "-q", "-t", "ext4", image, "16M"], check=True)
    run_options = replace(guest_options(tmp_path, ""), image=open_image(image))
    error = fail(BootFailedError, run_options, tmp_path / "run")
    assert "no boot loader" in error.message
    assert "No bootable device" in "\n".join(error.tail)


@pytest.mark.parametrize("how", [Then.RESET, Then.TRIPLE_FAULT], ids=lambda how: how.name.lower())
def test_a_guest_that_reboots_for_ever(tmp_path, how):
    error = fail(BootFailedError, guest_options(tmp_path, "once more", how), tmp_path / "run")
    assert "reboots in a loop (3 times" in error.message
    # Whether the firmware's next word is on the same line depends on when the end was seen.
    assert "once more" in "\n".join(error.tail)


def test_a_guest_that_powers_off(tmp_path):
    error = fail(ConsoleClosedError, guest_options(tmp_path, "bye", Then.POWER_OFF), tmp_path / "r")
    assert "powered off before its report was complete" in error.message
    assert error.tail[-1] == "bye"


def test_a_guest_that_falls_silent(tmp_path, monkeypatch):
    # On a busy host the firmware itself may be silent for longer than the first times.
    for silence_s in (2.0, 20.0, 60.0):
        monkeypatch.setitem(options.SILENCE_TIMEOUT_S, Accel.TCG, silence_s)
        error = fail(ConsoleTimeoutError, guest_options(tmp_path, "hm"), tmp_path / f"{silence_s}")
        assert f"has written nothing for {silence_s:g} s" in error.message
        if error.tail[-1:] == ("hm",):
            return
    pytest.fail(f"the guest was never heard: {error.tail}")


def test_a_guest_that_takes_too_long(tmp_path):
    error = fail(ConsoleTimeoutError, guest_options(tmp_path, "hm", timeout_s=2), tmp_path / "run")
    assert "did not come within 2 s" in error.message
    assert "--timeout" in error.hint


@pytest.mark.parametrize(
    "sign",
    [
        pytest.param("alpine login: ", id="login prompt"),
        # On a busy host systemd can give up on the serial console's device.
        pytest.param("[  OK  ] Reached target multi-user.target - Multi-User System.", id="target"),
        pytest.param("[  OK  ] Reached target Multi-User System.", id="target of systemd 247"),
    ],
)
def test_a_guest_that_came_up_without_cloud_init(tmp_path, monkeypatch, sign):
    monkeypatch.setattr(monitor, "UP_PATIENCE_S", 0.5)
    error = fail(BootFailedError, guest_options(tmp_path, sign), tmp_path / "run")
    assert "came up and cloud-init did not run" in error.message


ENDINGS = {
    "killed": (
        lambda machine: os.kill(machine.qemu_pid, signal.SIGKILL),
        "killed from outside (signal 9)",
    ),
    "terminated": (
        lambda machine: os.kill(machine.qemu_pid, signal.SIGTERM),
        "killed from outside",
    ),
    "stopped": (registry.stop, "stopped from outside"),
    "without supervisor": (
        lambda machine: os.kill(machine.supervisor_pid, signal.SIGKILL),
        "killed from outside (signal 9)",
    ),
}


@pytest.mark.parametrize(("act", "words"), ENDINGS.values(), ids=ENDINGS)
def test_qemu_ends_before_its_time(tmp_path, act, words):
    folder = tmp_path / "run"
    watch = once_launched(act)
    error = fail(ConsoleClosedError, guest_options(tmp_path, "hm"), folder, on_event=watch)
    assert words in error.message


def test_the_disk_is_still_read_when_qemu_was_killed(tmp_path):
    run_options = guest_options(tmp_path, "hm", keep_overlay=True)
    with pytest.raises(ConsoleClosedError):
        boot(
            run_options,
            tmp_path / "run",
            on_event=once_launched(lambda machine: os.kill(machine.qemu_pid, signal.SIGKILL)),
        )
    assert (tmp_path / "run" / "overlay.qcow2").exists(), "the user wanted to keep it"
    assert Run(tmp_path / "run").layout("after").virtual_size_bytes == 20 << 30


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [({"memory_bytes": 1 << 60}, "--memory"), ({"cpus": 100_000}, "--cpus")],
    ids=["memory", "cpus"],
)
def test_qemu_refuses_its_arguments(tmp_path, wrong, remedy):
    error = fail(LaunchError, guest_options(tmp_path, "", **wrong), tmp_path / "run")
    assert re.search(r"QEMU ended before the machine ran.*qemu-system-x86_64: ", error.message)
    assert remedy in error.hint
    assert "doctor" not in error.hint


def test_without_firmware_the_package_that_has_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "_FIRMWARE_FOLDERS", ())
    options = guest_options(tmp_path, "", firmware=Firmware.UEFI)
    with pytest.raises(LaunchError, match="No UEFI firmware for amd64") as caught:
        boot(options, tmp_path / "run")
    assert "apt-get install -y --no-install-recommends ovmf" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_too_little_memory(tmp_path):
    with pytest.raises(UsageError, match="64 MiB of memory would not boot") as caught:
        boot(guest_options(tmp_path, "", memory_bytes=64 << 20), tmp_path / "run")
    assert "256 MiB" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_qemu_is_not_installed(tmp_path, monkeypatch):
    run_options = guest_options(tmp_path, "")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("qemu-img", "qemu-io"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(ToolNotFoundError, match="qemu-system-x86_64 was not found"):
        boot(run_options, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@as_root
def test_the_host_disk_fills_up_while_the_guest_writes(tmp_path):
    with small_disk(tmp_path / "small", "16M") as disk:
        # The guest is never silent for long enough to be noticed otherwise.
        run_options = guest_options(tmp_path, "filling", Then.FILL_DISK)
        error = fail(HostDiskError, run_options, disk / "run")
        assert error.message.startswith("host disk full: the guest's write")
        assert error.tail[-1] == "filling"


@as_root
def test_the_host_disk_fills_up_with_the_console(tmp_path):
    with small_disk(tmp_path / "small", "1M") as disk:
        error = fail(HostDiskError, guest_options(tmp_path, "", Then.FLOOD), disk / "run")
        assert error.message.startswith("host disk full: the console could not be recorded")


@as_root
def test_the_host_disk_is_full_from_the_start(tmp_path):
    with small_disk(tmp_path / "small", "64k") as disk:
        with pytest.raises(CloudlabError, match=r"No space left on device"):
            boot(guest_options(tmp_path, ""), disk / "some" / "run")
        assert list(disk.iterdir()) == []


@as_root
def test_an_output_folder_that_cannot_be_written(tmp_path):
    with (
        small_disk(tmp_path / "small", "1M", read_only=True) as disk,
        pytest.raises(CloudlabError, match=r"cannot be used for a run: Read-only file system"),
    ):
        boot(guest_options(tmp_path, ""), disk / "run")


@as_root
def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    run_options = guest_options(tmp_path, "")
    with small_disk(tmp_path / "small", "1M", read_only=True) as disk:
        monkeypatch.setenv("CLOUDLAB_CACHE", str(disk))
        with pytest.raises(CloudlabError, match="could not be created") as caught:
            boot(run_options, tmp_path / "run")
    assert "CLOUDLAB_CACHE" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_not_touched(tmp_path):
    run_options = guest_options(tmp_path, report())
    boot(run_options, tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(RecordingError, match="already holds a run; it was not touched"):
        boot(run_options, tmp_path / "run")
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_of_two_runs_with_one_folder_one_is_refused_and_the_other_unharmed(tmp_path):
    run_options = guest_options(tmp_path, report(), keep_overlay=True)
    program = (
        "import sys; from pathlib import Path; from cloudlab.errors import RecordingError; "
        "from cloudlab.image.cache import open_image; "
        "from cloudlab.machine.config import Accel; from cloudlab.run.boot import boot; "
        "from cloudlab.run.options import Options\n"
        "options = Options(open_image(Path(sys.argv[1])), accel=Accel.TCG, keep_overlay=True)\n"
        "print('ready', flush=True); input()\n"
        "try: boot(options, Path(sys.argv[2])); print('done')\n"
        "except RecordingError as error: print(error.message)\n"
    )
    for turn in range(4):
        folder = tmp_path / f"run-{turn}"
        argv = [sys.executable, "-c", program, str(run_options.image.path), str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        runs = [subprocess.Popen(argv, **pipes) for _ in range(3)]
        for run in runs:
            assert run.stdout.readline() == "ready\n"
        for run in runs:
            run.stdin.write("\n")
            run.stdin.flush()
        said = sorted(run.communicate()[0] for run in runs)
        assert said[2] == "done\n"
        assert all("already holds a run; it was not touched" in one for one in said[:2])
        assert {path.name for path in folder.iterdir()} == KEPT | {"overlay.qcow2"}
        assert Run(folder).record.outcome == "done"
    assert not list(paths.running_folder().glob("*.json"))


def test_runs_in_the_same_second_get_folders_of_their_own(tmp_path):
    run_options = guest_options(tmp_path, report())
    folder = tmp_path / "runs" / "now"
    runs = boot_many([(run_options, folder)] * 3, numbered=True)
    assert [run.name for run in runs] == ["now", "now-2", "now-3"]
    assert [Run(folder.with_name(run.name)).record.outcome for run in runs] == ["done"] * 3
    with pytest.raises(UsageError):
        boot_many([(replace(run_options, disk_size_bytes=GIB), folder)], numbered=True)
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_a_folder_of_the_users_stays_when_a_run_cannot_be_prepared(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(UsageError, match="smaller than the image"):
        boot(guest_options(tmp_path, "", disk_size_bytes=1 << 30), mine)
    assert list(mine.iterdir()) == []
    assert left_behind(mine) == []


def test_folders_that_were_made_for_a_run_go_when_it_cannot_be_prepared(tmp_path):
    with pytest.raises(UsageError):
        boot(guest_options(tmp_path, "", disk_size_bytes=1 << 30), tmp_path / "a" / "b" / "run")
    assert not (tmp_path / "a").exists()


def test_one_run_that_cannot_be_prepared_takes_the_others_back(tmp_path):
    good = guest_options(tmp_path, report())
    bad = replace(good, disk_size_bytes=1 << 30)
    with pytest.raises(UsageError):
        boot_many([(good, tmp_path / "runs" / "good"), (bad, tmp_path / "runs" / "bad")])
    assert not (tmp_path / "runs").exists()
    assert left_behind(tmp_path / "runs") == []


def test_runs_that_cannot_begin_leave_nothing(tmp_path, monkeypatch):
    """As where the host has no thread left."""
    real = threading.Thread.start

    def start(thread):
        if thread.name == "cloudlab-runs":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="new thread"):
        boot(guest_options(tmp_path, report()), tmp_path / "runs" / "run")
    assert not registry.list_running()
    assert not (tmp_path / "runs").exists()


def test_a_run_whose_tables_cannot_be_written_failed(tmp_path):
    """A later look at it, such as a sweep's, must not take it for done."""
    in_the_way = once_launched(lambda _: (tmp_path / "run" / "sizes.csv").mkdir())
    error = fail(
        RecordingError, guest_options(tmp_path, report()), tmp_path / "run", on_event=in_the_way
    )
    assert "could not be recorded" in error.message
    assert "may write to" in error.hint


def test_one_run_that_fails_leaves_the_others_alone(tmp_path):
    good = guest_options(tmp_path, report())
    (tmp_path / "other").mkdir()
    bad = guest_options(tmp_path / "other", "Kernel panic - not syncing")
    jobs = [(bad, tmp_path / "bad"), (good, tmp_path / "good")]
    first, second = boot_many(jobs, parallel=2)
    assert isinstance(first.error, BootFailedError)
    assert second.error is None
    assert Run(tmp_path / "good").record.outcome == "done"


@pytest.mark.parametrize(
    "name",
    ["with space", "a,b", "guest=x,y=z", "ü ß 文", "quote\"s'", "back\\slash", "-dash", "%s"],
)
def test_folders_of_any_name(tmp_path, name):
    images = tmp_path / f"images {name}"
    images.mkdir()
    done = boot(guest_options(images, report()), tmp_path / name)
    assert done.record.outcome == "done"
    assert left_behind(tmp_path / name) == []


def test_a_folder_name_that_is_no_text(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        boot(guest_options(tmp_path, report()), folder)
    assert not folder.exists()


def test_the_overlay_is_deleted_by_somebody_else(tmp_path):
    folder = tmp_path / "run"
    error = fail(
        DiskError,
        guest_options(tmp_path, "hm"),
        folder,
        on_event=once_launched(lambda _: (folder / "overlay.qcow2").unlink()),
    )
    assert "overlay.qcow2" in error.message


def test_a_run_is_cancelled(tmp_path):
    cancel = threading.Event()
    watch = once_launched(lambda _: cancel.set())
    with pytest.raises(InterruptedRunError):
        boot(guest_options(tmp_path, "hm"), tmp_path / "run", on_event=watch, cancel=cancel)
    assert Run(tmp_path / "run").record.outcome == "interrupted"
    assert left_behind(tmp_path / "run") == []


def test_a_watcher_that_breaks_ends_the_runs(tmp_path):
    # From the start both: else the second would wait for the machine that the first one saves.
    first = guest_options(tmp_path, "hm", start=options.Start.COLD)
    seen = []

    def watch(event):
        seen.append(event)
        if event.note == "launched" and event.run == "two":
            raise ZeroDivisionError

    jobs = [(first, tmp_path / "one"), (first, tmp_path / "two")]
    with pytest.raises(ZeroDivisionError):
        boot_many(jobs, on_event=watch, parallel=2)
    outcomes = [Run(tmp_path / name).record.outcome for name in ("one", "two")]
    assert outcomes == ["interrupted", "failed"]
    assert left_behind(tmp_path / "one") + left_behind(tmp_path / "two") == []


def test_a_console_flood_is_cut_and_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "TRANSCRIPT_CAP_BYTES", 100_000)
    # On a busy host the guest may not write that much within the first times.
    for timeout_s in (4, 40, 110):
        run_options = guest_options(tmp_path, "", Then.FLOOD, timeout_s=timeout_s)
        folder = tmp_path / f"{timeout_s} s"
        fail(ConsoleTimeoutError, run_options, folder)
        record = Run(folder).record
        if dropped := record.console.dropped_bytes:
            break
    assert record.console.bytes == 100_000 + dropped
    log = (folder / "console.log").read_bytes()
    assert log[100_000:].decode() == f"\n[cloudlab: {dropped:,} further bytes were not kept]\n"
    [warning] = record.warnings
    assert f"the last {dropped:,} were not kept" in warning


class Flooding:
    """In a machine's place, a program that writes to its console as fast as it can."""

    def __init__(self, size_mib):
        self.events = deque()
        self._code = (
            f"import os\nfor _ in range({size_mib} * 64): os.write(1, (b'x' * 1023 + b'\\n') * 16)"
        )
        self._process = None

    async def read_console(self):
        if self._process is None:
            argv = (sys.executable, "-c", self._code)
            self._process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
        return await self._process.stdout.read(1 << 16)

    async def wait(self):
        return MachineEnd(await self._process.wait(), "")


def test_memory_does_not_follow_a_flood(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "TRANSCRIPT_CAP_BYTES", 1 << 20)
    (tmp_path / "overlay").touch()

    def peak_bytes(size_mib):
        log = monitor.BootLog()
        watching = monitor.BootMonitor(
            "flood", log, folder=tmp_path, overlay=tmp_path / "overlay", timeout_s=600,
            silence_s=600, on_event=monitor.ignore_events, cancel=threading.Event(),
        )  # fmt: skip
        tracemalloc.start()
        try:
            with pytest.raises(ConsoleClosedError):
                asyncio.run(watching.follow(Flooding(size_mib)))
            assert log.bytes == size_mib << 20
            assert log.dropped_bytes == (size_mib - 1) << 20
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(2)  # what is loaded and made once
    assert peak_bytes(64) - peak_bytes(2) < 4 << 20


def test_an_image_that_was_changed_after_it_was_looked_up(tmp_path):
    run_options = guest_options(tmp_path, report())
    with run_options.image.path.open("r+b") as image:
        image.write(b"\0")
    with pytest.raises(ChecksumError, match="found the same size with another modification time"):
        boot(run_options, tmp_path / "run")
    run_options.image.path.unlink()
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        boot(run_options, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _other(text, nonce):
    return re.sub(r"(@cloudlab .*})( \d+)@", rf"\1\2{nonce}@", text)


@pytest.mark.parametrize("nonce", ["", " 1234567890123456"], ids=["of old", "of another run"])
def test_the_report_of_another_run_is_not_believed(tmp_path, nonce):
    other = _other(
        block("before", *disk_frames(7 * GIB, 7 * GIB), uptime_s=120.0)
        + block("after", *disk_frames(8 * GIB, 8 * GIB), uptime_s=130.0),
        nonce,
    )
    path = tmp_path / "guest.img"
    make_guest(path, other, Then.HALT, tagged=False)
    run_options = Options(open_image(path), accel=Accel.TCG, timeout_s=3)
    error = fail(ConsoleTimeoutError, run_options, tmp_path / "alone")
    assert "did not come within 3 s" in error.message
    record = Run(tmp_path / "alone").record
    count = len(re.findall("@cloudlab", other))
    ignored = f"The console has {count} lines of another run's report"
    assert any(words.startswith(ignored) for words in record.warnings)

    own = _other(report(), "\x01")
    make_guest(path, own.replace("\r\n", f"\r\n{other}", 1), tagged=False)
    run_options = Options(open_image(path), accel=Accel.TCG, timeout_s=120)
    run = boot(run_options, tmp_path / "both")
    sizes = run.sizes.set_index(["stage", "layer", "device"])["size_bytes"]
    assert sizes["before", "partition", "vda1"] == 2 * GIB
    assert sizes["after", "partition", "vda1"] == 19 * GIB
    assert any(words.startswith(ignored) for words in run.record.warnings)
    assert not re.search(r"1[23]0\.0 s", run.explain().to_text())


def test_a_report_that_contradicts_the_disk_or_the_clock_is_told(tmp_path):
    run = boot(guest_options(tmp_path, report()), tmp_path / "run")
    told = "\n".join(run.record.warnings)
    size = (2 << 30) - (1 << 20)
    assert (
        f"vda1 starts at byte {111 << 20:,} with {19 * GIB:,} bytes; the partition table on its disk "
        f"says byte {1 << 20:,} and {size:,} bytes."
    ) in told
    assert re.search(
        r"\(after\) says 23\.5 s of uptime, but the machine had run for \d\.\d s", told
    )


def test_tables_without_end_are_not_collected(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "REPORTS_CAP_BYTES", 20_000)
    rows = "NAME MAJ:MIN RM SIZE RO TYPE MOUNTPOINT\r\n" + "vda 254:0 0 20G 0 disk\r\n" * 2000
    error = fail(BootFailedError, guest_options(tmp_path, rows), tmp_path / "run")
    assert "tables of sizes without end" in error.message


class _Tags(HTMLParser):
    """The names of all tags and attributes of a page."""

    def __init__(self):
        super().__init__()
        self.seen = set()
        self.attributes = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


HOSTILE = {
    "script": b"<script>alert(1)</script><img src=x onerror=alert(1)>",
    "escapes": b"\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1bP+q\x1b\\ \x9b5n \xe2\x80\xaeevil",
    # Byte 1 stands for the run's nonce in what a made guest says.
    "binary": bytes(byte for byte in range(256) if byte != 1) * 64,
    "wide": b"x" * 100_000,
    "markup": b"[bold red]rich[/bold red] </pre></html> {{ jinja }} %s",
}


@pytest.mark.parametrize("says", HOSTILE.values(), ids=HOSTILE)
def test_what_a_guest_prints_changes_nothing_but_its_transcript(tmp_path, says):
    fact = "<script>alert('fact')</script>"
    text = says + b"\r\n" + report(cloud_init_errors=fact).encode()
    lines = []
    done = boot(
        replace(guest_options(tmp_path, text), scenario="<script>alert('name')</script>"),
        tmp_path / "<b>run",
        on_event=lambda event: lines.append(event.line),
    )
    assert says in (done.folder / "console.log").read_bytes()
    assert done.sizes["size_bytes"].max() == 20 << 30
    played = "".join(text for _, text in read_cast(done.folder / "console.cast"))
    assert says.decode(errors="replace") in played
    shown = [line.text for line in lines if line]
    assert max(map(len, shown)) <= 4096
    assert all(character.isprintable() for text in shown for character in text)
    page = save_demo([done], tmp_path).read_text()
    tags = _Tags()
    tags.feed(page)
    assert tags.seen
    assert not tags.seen & {"script", "b", "iframe", "object"}
    assert not [name for name in tags.attributes if name.startswith("on")]
    assert "\x1b" not in page


def but_of_growth(run: Run) -> list[str]:
    """Return a run's warnings, but for those of a guest that only says that its disk has grown."""
    return [one for one in run.record.warnings if not one.startswith("The guest's report ")]


def test_the_guests_own_status_becomes_warnings(tmp_path):
    says = report(
        cloud_init_errors="('runcmd', ProcessExecutionError)",
        user_data_valid="no",
        reported_by="watcher",
    )
    done = boot(guest_options(tmp_path, says), tmp_path / "run")
    warnings = json.loads((tmp_path / "run" / "run.json").read_text())["warnings"]
    assert warnings == list(done.record.warnings)
    assert [warning[:30] for warning in but_of_growth(done)] == [
        "cloud-init reports errors: ('r",
        "cloud-init could not read the ",
        "The report was made before clo",
    ]


BROKEN_ENDS = {
    "text": lambda end: end.replace('"frames"', 'lab login: "frames"'),
    "mark": lambda end: end.replace("@cloudlab", "@cloud\r\nlab login: lab"),
    "half": lambda end: end[: len(end) // 2] + "[   30.123456] the kernel had to say this\r\n",
}


@pytest.mark.parametrize("broken", BROKEN_ENDS.values(), ids=BROKEN_ENDS)
def test_a_report_whose_end_is_damaged_ends_the_run(tmp_path, monkeypatch, broken):
    says = report(cloud_init_errors="")
    start = says.rindex("@cloudlab")
    # The guest halts then: without this the run would go on until its time is up, and fail.
    run_options = guest_options(tmp_path, says[:start] + broken(says[start:]), timeout_s=600)
    # On a busy host the guest may pause amid its report for longer than the first times.
    for patience_s in (1.0, 10.0, 60.0):
        monkeypatch.setattr(monitor, "REPORT_PATIENCE_S", patience_s)
        folder = tmp_path / f"{patience_s} s"
        done = boot(run_options, folder)
        assert done.record.outcome == "done"
        assert left_behind(folder) == []
        if done.sizes["size_bytes"].max() == 20 << 30:
            break
    assert but_of_growth(done) == ["1 line of the guest's report was lost."]
    assert done.sizes["size_bytes"].max() == 20 << 30


def test_sizes_that_contradict_each_other_are_warned_of(tmp_path):
    root = disk_frames(19 * GIB, 20 * GIB)
    done = boot(guest_options(tmp_path, block("after", *root)), tmp_path / "run")
    [warning] = but_of_growth(done)
    assert warning.startswith("Sizes contradict each other: line ")
    assert "is larger than its device vda1" in warning


def test_a_run_without_trouble_warns_of_nothing(tmp_path):
    frames = [
        device("vda", "disk", "", 20 * GIB),
        device("vda1", "part", "vda", (2 << 30) - (1 << 20), 1 << 20),
        filesystem("vda1", "/", GIB, 700 << 20),
    ]
    facts = {"cloud_init_errors": "", "user_data_valid": "yes", "reported_by": "runcmd"}
    said = [{"kind": "fact", "name": name, "value": value} for name, value in facts.items()]
    says = block("before", *frames, uptime_s=0) + block("after", *frames, *said, uptime_s=0)
    done = boot(guest_options(tmp_path, says), tmp_path / "run")
    assert done.record.warnings == ()
    assert done.record.outcome == "done"
    assert left_behind(tmp_path / "run") == []


def test_a_supervisor_that_hangs_does_not_keep_qemu_alive(tmp_path):
    pids = []
    cancel = threading.Event()

    def hang(machine):
        pids.append(machine.qemu_pid)
        os.kill(machine.supervisor_pid, signal.SIGSTOP)
        cancel.set()

    with pytest.raises(InterruptedRunError):
        boot(
            guest_options(tmp_path, "hm"),
            tmp_path / "run",
            on_event=once_launched(hang),
            cancel=cancel,
        )
    assert wait_until(lambda: not alive(pids[0]))
    assert left_behind(tmp_path / "run") == []


def test_the_hosts_clock_jumps(tmp_path, monkeypatch):
    jumps_s = cycle([0, 86_400, -86_400])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps_s))
    done = boot(guest_options(tmp_path, report(), timeout_s=600), tmp_path / "run")
    assert done.sizes["time_s"].max() < 600
    times = [time_s for time_s, _ in read_cast(tmp_path / "run" / "console.cast")]
    assert times == sorted(times)


def test_nothing_that_waits_asks_for_the_time_of_day():
    package = Path(monitor.__file__).parents[1]
    asking = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\btime\.time\(|from time import", path.read_text(encoding="utf-8"))
    }
    # An asciicast's header says when it was recorded; HTTP's Retry-After may be a date; the room's
    # board says how old an answer is.
    assert asking == {"console.py", "image/web.py", "course/classroom.py"}


def test_two_machines_of_one_image_do_not_meet(tmp_path):
    one = guest_options(tmp_path, report())
    make_guest(tmp_path / "again.img", report())
    before = (tmp_path / "guest.img").read_bytes()[:4096]
    runs = boot_many([(one, tmp_path / "a"), (one, tmp_path / "b")], parallel=2)
    assert [run.error for run in runs] == [None, None]
    assert (tmp_path / "guest.img").read_bytes()[:4096] == before


def test_a_folder_that_goes_before_its_console_is_recorded(tmp_path):
    folder = tmp_path / "run"
    taken = once_launched(lambda _: folder.rename(tmp_path / "away"))
    with pytest.raises(HostDiskError, match=r"No such file.*not be recorded") as caught:
        boot(guest_options(tmp_path, "hm"), folder, on_event=taken)
    assert "still there" in caught.value.hint
    assert not folder.exists()
    assert not registry.list_running()


def test_a_folder_that_goes_before_its_machine_is_launched(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run_options = guest_options(tmp_path, "hm")
    real = boots.prepare

    def then_away(*args):
        job = real(*args)
        folder.rename(tmp_path / "away")
        return job

    monkeypatch.setattr(boots, "prepare", then_away)
    with pytest.raises(LaunchError, match=r"No such file or directory") as caught:
        boot(run_options, folder)
    assert "still there" in caught.value.hint


def test_the_host_disk_is_too_full_for_the_overlay(tmp_path):
    run_options = guest_options(tmp_path, "")
    told = "qemu-img: run/.overlay: Could not write qcow2 header: No space left on device"

    def full(*_):
        raise ToolFailedError("qemu-img failed", returncode=1, output=told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "create_overlay", full)
        with pytest.raises(RecordingError, match="run: No space left on device") as caught:
            boot(run_options, tmp_path / "run")
    assert "--output" in caught.value.hint
    assert not (tmp_path / "run").exists()


LAUNCHES = {
    "killed": ("kill -9 $$", r"\(signal 9\): it said nothing", "out of memory"),
    "aborted": ("echo no luck >&2; kill -6 $$", r"\(signal 6\): no luck", "doctor"),
    "unreadable": ("echo 'Could not open x: Denied' >&2; exit 1", "Could not open x", "may use it"),
}


@pytest.mark.parametrize(("script", "words", "remedy"), LAUNCHES.values(), ids=LAUNCHES)
def test_a_qemu_that_ends_at_once(tmp_path, monkeypatch, script, words, remedy):
    run_options = guest_options(tmp_path, "")
    case = f'case "$*" in *qmp*) {script};; *) exec {REAL_QEMU} "$@";; esac'
    fake_qemu(tmp_path, monkeypatch, case)
    error = fail(LaunchError, run_options, tmp_path / "run")
    assert re.search(words, error.message)
    assert remedy in error.hint


def test_an_accelerator_that_does_not_work_may_be_left_out(tmp_path, monkeypatch):
    run_options = guest_options(tmp_path, "", start=options.Start.COLD)
    fake_qemu(
        tmp_path,
        monkeypatch,
        f'case "$*" in *qmp*) echo no kvm >&2; exit 1;; *) exec {REAL_QEMU} "$@";; esac',
    )
    error = fail(LaunchError, replace(run_options, accel=Accel.KVM), tmp_path / "run")
    assert "Leave out --accel" in error.hint


def test_firmware_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "find_uefi", lambda _: (tmp_path / "code", tmp_path))
    run_options = guest_options(tmp_path, "", firmware=Firmware.UEFI)
    with pytest.raises(LaunchError, match=f"variables in {tmp_path} cannot be read") as caught:
        boot(run_options, tmp_path / "run")
    assert "readable" in caught.value.hint
    assert not (tmp_path / "run").exists()


@as_root
def test_what_belongs_to_another_user(tmp_path):
    # In a child: this process could not become root again.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "run.json").chmod(0)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        # Whatever happens, the child must not go on with the tests.
        try:
            os.setresuid(*[65534] * 3)
            mine = registry.RunningMachine("a", "mine", "", 0, 1, 1, tmp_path)
            for act in (lambda: registry.stop(mine), lambda: read_record(tmp_path / "run")):
                with pytest.raises(CloudlabError) as caught:
                    act()
                said = f"{caught.type.__name__}: {caught.value}\n"
                os.write(writing, said.encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        text = stream.read()
    assert "ShutdownError: The machine mine belongs to another user; it was not stopped." in text
    assert "sudo kill 1" in text
    assert "run.json cannot be read: Permission denied.\nRead it as the user" in text
