"""Slots that all users of a host share: real processes that take them, wait, and die."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from command import cloudlab
from guests import (
    alive,
    guest_options,
    hear_ctrl_c,
    left_behind,
    make_guest,
    report,
    wait_until,
)

from cloudlab.cli import hosts
from cloudlab.errors import InterruptedRunError, MachineError, UsageError
from cloudlab.machine import registry
from cloudlab.machine.slots import MOST_SLOTS, Slot, Slots, read_slots
from cloudlab.run.boot import boot, boot_many
from cloudlab.run.options import Start
from cloudlab.run.value import Run

#: Takes a slot, says so and what it says meanwhile, and returns it at the end of its input.
TAKER = """
    import asyncio, os, subprocess, sys
    from cloudlab.machine.slots import Slot, read_slots

    async def main():
        with Slot(read_slots()) as slot:
            await slot.wait(lambda text: print(text, flush=True))
            {then}
            print("taken", flush=True)
            sys.stdin.readline()

    {first}
    asyncio.run(main())
"""

#: Only then: Python itself may be where no other user may read.
BECOME_NOBODY = "os.umask(0o077); os.setgroups([]); os.setgid(65534); os.setuid(65534)"
USERS = {"nobody": BECOME_NOBODY, "root": "os.umask(0o077)"}


@pytest.fixture
def folder():
    """A folder that all users can write to and reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="cloudlab-slots-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def take(folder, monkeypatch):
    """Start processes that take one of two slots; end what is left of them."""
    monkeypatch.setenv("CLOUDLAB_SLOTS", f"{folder}:2")
    with contextlib.ExitStack() as stack:

        def start(then="pass", first="pass"):
            process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(TAKER).format(then=then, first=first)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[1],
                preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - no other thread runs
            )
            stack.callback(end, process)
            return process

        yield start


def end(process):
    process.kill()
    process.communicate()


def said(process):
    return process.stdout.readline().strip()


def give_back(process):
    """Let a process return its slot and wait for its end."""
    process.communicate("\n")
    assert process.returncode == 0


def tickets(folder):
    return [path.name for path in folder.iterdir() if not path.name.startswith("slot-")]


WAITS = "waiting for one of 2 slots for live boots"


def test_without_the_variable_nothing_waits(monkeypatch):
    monkeypatch.delenv("CLOUDLAB_SLOTS", raising=False)
    assert read_slots() is None

    async def take():
        with Slot(None) as slot:
            await slot.wait(print)
            assert slot.descriptor is None

    asyncio.run(take())


def test_one_more_than_the_slots_waits_until_one_is_free(take, folder):
    first, second = take(), take()
    assert (said(first), said(second)) == ("taken", "taken")
    third = take()
    assert said(third) == WAITS
    assert read_slots().taken() == 2
    give_back(second)
    assert said(third) == "taken"
    assert tickets(folder) == []
    give_back(third)
    assert read_slots().taken() == 1


def test_the_first_to_wait_is_the_first_to_go_and_each_is_told_its_place(take, folder):
    holders = [take(), take()]
    assert [said(one) for one in holders] == ["taken"] * 2
    waiting = []
    for words in (
        WAITS,
        f"{WAITS}; 1 boot waits before this one",
        f"{WAITS}; 2 boots wait before this one",
    ):
        waiting.append(take())
        assert said(waiting[-1]) == words
    give_back(holders[0])
    assert said(waiting[0]) == "taken"
    assert said(waiting[1]) == WAITS
    assert said(waiting[2]) == f"{WAITS}; 1 boot waits before this one"
    give_back(waiting[0])
    assert said(waiting[1]) == "taken"
    assert said(waiting[2]) == WAITS
    give_back(holders[1])
    assert said(waiting[2]) == "taken"
    assert tickets(folder) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whoever_dies_frees_its_slot_and_its_place_in_the_queue(number, take, folder):
    first, second = take(), take()
    assert (said(first), said(second)) == ("taken", "taken")
    waiting = [take() for _ in range(2)]
    assert {said(one) for one in waiting} <= {WAITS, f"{WAITS}; 1 boot waits before this one"}
    last = take()
    assert said(last) == f"{WAITS}; 2 boots wait before this one"
    for one in waiting:
        one.send_signal(number)
        one.wait(timeout=300)
    # Read up to the word, because the two may be seen to die one after the other.
    assert WAITS in iter(lambda: said(last), "")
    first.kill()
    assert "taken" in iter(lambda: said(last), "")
    assert tickets(folder) == []


#: Starts a child that has the file of the slot, as QEMU has.
INHERIT = (
    "child = subprocess.Popen(['sleep', '600'], pass_fds=[slot.descriptor], "
    "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); print(child.pid)"
)


def test_a_slot_is_taken_as_long_as_the_machine_that_inherited_it_runs(take):
    owner = take(INHERIT)
    machine = psutil.Process(int(said(owner)))
    assert said(owner) == "taken"
    owner.kill()
    owner.wait(timeout=300)
    assert read_slots().taken() == 1
    machine.kill()
    assert wait_until(lambda: read_slots().taken() == 0)


def test_a_child_of_the_owner_does_not_keep_a_slot_that_was_returned(take):
    owner = take(INHERIT)
    child = psutil.Process(int(said(owner)))
    assert said(owner) == "taken"
    give_back(owner)
    assert alive(child.pid)
    assert read_slots().taken() == 0
    child.kill()


#: Takes a slot five times for longer than others look away, and prints from when to when.
HASTY = """
    import asyncio, time
    from cloudlab.machine.slots import Slot, read_slots

    async def once():
        with Slot(read_slots()) as slot:
            await slot.wait(lambda text: None)
            start = time.monotonic_ns()
            await asyncio.sleep(0.3)
            print(start, time.monotonic_ns(), flush=True)

    async def main():
        await asyncio.gather(*(once() for _ in range(5)))

    asyncio.run(main())
"""


def test_many_boots_of_many_users_never_exceed_the_slots_and_all_come_to_their_end(take, folder):
    holders = [take(), take()]
    assert [said(one) for one in holders] == ["taken"] * 2
    users = [take_five_times() for _ in range(6)]
    # Only when all wait: else the users may start so far apart that they never meet.
    assert wait_until(lambda: sum(name.startswith("waiting-") for name in tickets(folder)) == 30)
    for one in holders:
        give_back(one)
    lines = [line for user in users for line in user.communicate(timeout=300)[0].splitlines()]
    spans = [tuple(map(int, line.split())) for line in lines]
    assert len(spans) == 30
    assert max(sum(a <= moment < b for a, b in spans) for moment, _ in spans) <= 2
    assert sorted(path.name for path in folder.iterdir()) == ["slot-0", "slot-1"]


def take_five_times():
    argv = [sys.executable, "-c", textwrap.dedent(HASTY)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("users", [("nobody", "root"), ("root", "nobody")], ids="-".join)
def test_users_share_what_the_other_created_however_private_their_files_are(users, take, folder):
    first, second = (take(first=USERS[user]) for user in users)
    assert (said(first), said(second)) == ("taken", "taken"), first.stderr.read()
    third, fourth = (take(first=USERS[user]) for user in users)
    assert {said(third).partition(";")[0], said(fourth).partition(";")[0]} == {WAITS}
    third.kill()
    third.wait(timeout=300)
    give_back(first)
    assert "taken" in iter(lambda: said(fourth), "")
    assert read_slots().taken() == 2


BAD = ["10", ":10", "slots:10", "~/slots:10", "/tmp", "/tmp:", "/tmp:0", "/tmp:-1", "/tmp:1.5",
       "/tmp:ten", "/tmp:٣", f"/tmp:{MOST_SLOTS + 1}", "/tmp:" + "9" * 5000]  # fmt: skip


@pytest.mark.parametrize("value", BAD)
def test_a_value_that_makes_no_sense_is_refused_with_an_example(value, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_SLOTS", value)
    with pytest.raises(
        UsageError, match=r"CLOUDLAB_SLOTS is .*; expected a folder's absolute"
    ) as it:
        read_slots()
    assert it.value.hint.endswith("CLOUDLAB_SLOTS=/srv/cloudlab/slots:10")


def test_a_folder_with_a_colon_is_one(folder, monkeypatch):
    odd = folder / "a:b"
    odd.mkdir()
    monkeypatch.setenv("CLOUDLAB_SLOTS", f"{odd}:{MOST_SLOTS}")
    assert read_slots() == Slots(odd, MOST_SLOTS)


@pytest.mark.parametrize("place", ["absent", "file"])
def test_a_folder_that_is_none_is_refused_with_the_command_that_makes_it(
    place, folder, monkeypatch, tmp_path, own_cache
):
    (folder / "file").touch()
    image = make_guest(tmp_path / "guest.img", "hm")
    done = cloudlab(
        "run", "--image", image, cwd=tmp_path, env={"CLOUDLAB_SLOTS": f"{folder / place}:10"}
    )
    assert done.returncode == 2
    assert f"{folder / place} is not a folder" in done.stderr
    assert f"sudo install -d -m 1777 '{folder / place}'" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_one_cannot_write_to_is_refused(take, folder):
    folder.chmod(0o755)
    user = take(first=BECOME_NOBODY)
    _, words = user.communicate()
    assert f"{folder} cannot be written to" in words


def test_a_file_that_cannot_be_opened_ends_the_wait_with_its_name(folder, monkeypatch):
    (folder / "slot-0").symlink_to("slot-0")
    monkeypatch.setenv("CLOUDLAB_SLOTS", f"{folder}:1")

    async def take():
        with Slot(read_slots()) as slot:
            await slot.wait(print)

    with pytest.raises(MachineError, match=re.escape(f"No slot could be taken: {folder}/slot-0: ")):
        asyncio.run(take())
    assert tickets(folder) == []


def test_the_doctor_says_how_many_are_taken(take, folder, monkeypatch):
    taker = take()
    assert said(taker) == "taken"
    [check] = hosts._slots_check()
    assert (check.ok, check.detail) == (True, f"1 of 2 taken, for all users, in {folder}")
    monkeypatch.setenv("CLOUDLAB_SLOTS", "ten")
    [check] = hosts._slots_check()
    assert not check.ok
    assert "CLOUDLAB_SLOTS" in check.detail
    assert check.fix
    monkeypatch.delenv("CLOUDLAB_SLOTS")
    assert hosts._slots_check() == []


# Machines


@pytest.fixture
def one_slot(folder, monkeypatch, own_cache):
    monkeypatch.setenv("CLOUDLAB_SLOTS", f"{folder}:1")
    return folder


WAITS_FOR_ONE = "waiting for the only slot for live boots"


@pytest.mark.vm
def test_a_boot_waits_for_its_slot_and_returns_it(one_slot, tmp_path):
    notes, taken = [], []

    def watch(event):
        if event.note:
            notes.append(event.note)
            taken.append(read_slots().taken())
        if event.is_waiting:
            assert registry.list_running() == []
            mine.set()

    with holding_one() as mine:
        run = boot(guest_options(tmp_path, report()), tmp_path / "run", on_event=watch)
    assert run.outcome == "done"
    assert WAITS_FOR_ONE in notes
    assert notes.index(WAITS_FOR_ONE) < notes.index("launched")
    assert taken[notes.index("launched")] == 1
    assert read_slots().taken() == 0
    assert tickets(one_slot) == []


@contextlib.contextmanager
def holding_one():
    """Take a slot in another thread, until the event is set that this yields."""
    has_it, over = threading.Event(), threading.Event()

    async def hold():
        with Slot(read_slots()) as slot:
            await slot.wait(print)
            has_it.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    assert has_it.wait(300)
    try:
        yield over
    finally:
        over.set()
        thread.join()


@pytest.mark.vm
def test_a_boot_that_waits_can_be_stopped(one_slot, tmp_path):
    stop = threading.Event()

    def watch(event):
        if event.is_waiting:
            stop.set()

    with holding_one(), pytest.raises(InterruptedRunError, match="was stopped"):
        boot(guest_options(tmp_path, "hm"), tmp_path / "run", on_event=watch, cancel=stop)
    assert Run(tmp_path / "run").outcome == "interrupted"
    assert left_behind(tmp_path / "run") == []
    assert tickets(one_slot) == []


@pytest.mark.vm
def test_machines_of_one_process_take_a_slot_each(one_slot, tmp_path):
    running = []

    def watch(event):
        if event.note == "launched":
            running.append(len(registry.list_running()))

    options = replace(guest_options(tmp_path, report()), start=Start.COLD)
    jobs = [(options, tmp_path / f"run{number}") for number in range(3)]
    runs = boot_many(jobs, on_event=watch, parallel=3)
    assert [run.outcome for run in runs] == ["done"] * 3
    assert running == [1, 1, 1]
    assert read_slots().taken() == 0


def run_command(folder, *options):
    """Start a real ``cloudlab run``."""
    argv = [sys.executable, "-m", "cloudlab", "run", *options, "--output", folder]
    return subprocess.Popen(
        list(map(str, argv)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - no other thread runs
    )


@pytest.mark.vm
def test_a_killed_owner_frees_its_slot_for_one_that_waits(one_slot, tmp_path):
    image = make_guest(tmp_path / "guest.img", "hm")
    options = ("--image", image, "--start", "cold", "--timeout", "600")
    with run_command(tmp_path / "a", *options) as first:
        assert wait_until(registry.list_running)
        [machine] = registry.list_running()
        with run_command(tmp_path / "b", *options) as second:
            assert any(WAITS_FOR_ONE in line for line in second.stderr)
            first.kill()
            assert any("launched" in line for line in second.stderr)
            assert not alive(machine.qemu_pid)
            second.send_signal(signal.SIGINT)
            second.stderr.read()
        assert second.returncode == 130
        first.stderr.read()
    assert read_slots().taken() == 0
    assert tickets(one_slot) == []


@pytest.mark.vm
def test_ctrl_c_ends_a_command_that_waits(one_slot, tmp_path):
    image = make_guest(tmp_path / "guest.img", "hm")
    with holding_one(), run_command(tmp_path / "run", "--image", image) as command:
        assert any(WAITS_FOR_ONE in line for line in command.stderr)
        command.send_signal(signal.SIGINT)
        assert "interrupted" in command.stderr.read()
    assert command.returncode == 130
    assert left_behind(tmp_path / "run") == []
    assert tickets(one_slot) == []


@pytest.mark.vm
def test_nothing_is_left_of_a_command_that_is_killed_while_it_waits(one_slot, tmp_path):
    image, folder = make_guest(tmp_path / "guest.img", "hm"), tmp_path / "run"
    with holding_one(), run_command(folder, "--image", image) as command:
        assert any(WAITS_FOR_ONE in line for line in command.stderr)
        assert {"overlay.qcow2", "seed.iso"} <= {path.name for path in folder.iterdir()}
        command.kill()
        assert wait_until(lambda: not left_behind(folder))
    assert Run(folder).record.outcome == "interrupted"


@pytest.mark.boots
@pytest.mark.xdist_group("boots")
def test_two_real_boots_of_two_processes_take_turns(lab_image, one_slot, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_SHARED", str(lab_image.path.parents[1]))
    options = ("--image", lab_image.path)
    with (
        run_command(tmp_path / "a", *options) as first,
        run_command(tmp_path / "b", *options) as second,
    ):
        most, running = 0, [first, second]
        with (tmp_path / "said").open("w") as stream:
            readers = [
                threading.Thread(target=lambda one=one: stream.writelines(one.stderr))
                for one in running
            ]
            for reader in readers:
                reader.start()
            while any(one.poll() is None for one in running):
                most = max(most, len(registry.list_running()))
                time.sleep(0.2)
            for reader in readers:
                reader.join()
    assert [first.returncode, second.returncode] == [0, 0]
    assert most == 1
    assert (tmp_path / "said").read_text().count(WAITS_FOR_ONE) == 1
    for name in ("a", "b"):
        assert Run(tmp_path / name).outcome == "done"
    assert read_slots().taken() == 0
