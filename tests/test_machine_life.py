"""QEMU ends when its owner ends, however it ends; real owners, real endings."""

import fcntl
import json
import os
import pty
import pwd
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from guests import (
    REAL_QEMU,
    alive,
    deaf_qemu,
    fake_qemu,
    guest_options,
    hear_ctrl_c,
    left_behind,
    report,
    wait_until,
)

from cloudlab.errors import (
    BootFailedError,
    CloudlabError,
    ConsoleTimeoutError,
    InterruptedRunError,
    MachineError,
)
from cloudlab.machine import registry
from cloudlab.machine.config import Firmware, Network
from cloudlab.machine.registry import Entry
from cloudlab.run.boot import boot
from cloudlab.run.options import Options
from cloudlab.run.value import Run

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("own_cache")]

TESTS = Path(__file__).parent

#: An owner that runs one machine in the background and says when it runs.
OWNER = """
    import os, sys, threading, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from cloudlab.image.cache import open_image
    from cloudlab.run.boot import boot, boot_many
    from cloudlab.run.options import Options, Start
    from cloudlab.machine.config import Accel

    options = Options(image=open_image(Path({image!r})), accel=Accel.TCG, timeout_s=600)
    launched = threading.Event()

    def watch(event):
        if event.line is not None and not launched.is_set():
            print("launched", flush=True)
            launched.set()

    def work():
        boot(options, Path({folder!r}), on_event=watch)

"""

#: Else one of two would wait for the machine that the other one saves.
COLD = "timeout_s=600, start=Start.COLD"

IN_BACKGROUND = """
    threading.Thread(target=work, daemon=True).start()
    launched.wait()
"""


def owner_script(tmp_path, folder, *parts):
    image = guest_options(tmp_path, "hm").image.path
    head = textwrap.dedent(OWNER).format(tests=str(TESTS), image=str(image), folder=str(folder))
    return head + "".join(textwrap.dedent(part) for part in parts)


def start_owner(script, **popen):
    popen = {"stdout": subprocess.PIPE, "preexec_fn": hear_ctrl_c, **popen}
    popen.setdefault("stderr", subprocess.DEVNULL)
    return subprocess.Popen([sys.executable, "-c", script], **popen)


def the_machine():
    [machine] = registry.list_running()
    return machine


def gone_and_clean(machine, folder):
    assert wait_until(lambda: not alive(machine.qemu_pid))
    assert wait_until(lambda: not alive(machine.supervisor_pid))
    assert left_behind(folder) == []
    record = Run(folder).record
    assert record.outcome == "interrupted"
    assert record.error.kind == "InterruptedRunError"
    assert (folder / "console.log").exists(), "what was recorded is kept"
    return True


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV], ids=lambda n: n.name
)
def test_the_owner_is_killed(tmp_path, number):
    folder = tmp_path / "run"
    script = owner_script(tmp_path, folder, IN_BACKGROUND, "time.sleep(600)")
    with start_owner(script) as owner:
        owner.stdout.readline()
        machine = the_machine()
        assert machine.owner_pid == owner.pid
        owner.send_signal(number)
        assert owner.wait() == -number
    assert gone_and_clean(machine, folder)


ENDINGS = {
    "exit": "sys.exit(3)",
    "exception": "1 / 0",
    "hard exit": "os._exit(1)",
    "end of script": "pass",
    "exec": "os.execv('/bin/true', ['/bin/true'])",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_the_owner_ends_by_itself(tmp_path, ending):
    folder = tmp_path / "run"
    script = owner_script(tmp_path, folder, IN_BACKGROUND, "sys.stdin.readline()\n", ending)
    with start_owner(script, stdin=subprocess.PIPE) as owner:
        owner.stdout.readline()
        machine = the_machine()
        owner.communicate(b"\n")
    assert gone_and_clean(machine, folder)


def test_the_owner_dies_while_its_child_holds_what_it_held(tmp_path):
    folder = tmp_path / "run"
    forking = """
        if (child := os.fork()) == 0:
            time.sleep(600)
        print(child, flush=True)
        time.sleep(600)
    """
    with start_owner(owner_script(tmp_path, folder, IN_BACKGROUND, forking)) as owner:
        owner.stdout.readline()
        child = int(owner.stdout.readline())
        machine = the_machine()
        try:
            owner.kill()
            owner.wait()
            assert wait_until(lambda: not alive(machine.qemu_pid))
            assert alive(child), "else this test proves nothing"
            assert gone_and_clean(machine, folder)
        finally:
            os.kill(child, signal.SIGKILL)


def in_terminal(script):
    """Start a script as the leader of a terminal of its own; return it and the terminal."""
    mine, its = pty.openpty()
    owner = start_owner(script, stdin=its, stderr=its, start_new_session=True, preexec_fn=_take_tty)
    os.close(its)
    return owner, mine


def _take_tty():
    import fcntl
    import termios

    hear_ctrl_c()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("foreground", [True, False], ids=["foreground", "background"])
def test_the_terminal_is_closed(tmp_path, foreground):
    folder = tmp_path / "run"
    rest = "work()\n" if foreground else textwrap.dedent(IN_BACKGROUND) + "time.sleep(600)\n"
    owner, terminal = in_terminal(owner_script(tmp_path, folder, rest))
    with owner:
        owner.stdout.readline()
        machine = the_machine()
        os.close(terminal)
        owner.wait()
    assert gone_and_clean(machine, folder)


def test_ctrl_c_in_a_terminal(tmp_path):
    folder = tmp_path / "run"
    owner, terminal = in_terminal(owner_script(tmp_path, folder, "work()"))
    with owner:
        owner.stdout.readline()
        machine = the_machine()
        os.write(terminal, b"\x03")
        assert owner.wait() != 0
        assert not alive(machine.qemu_pid), "the interrupt is heard of when QEMU is gone"
        assert not alive(machine.supervisor_pid)
    os.close(terminal)
    assert gone_and_clean(machine, folder)


def test_ctrl_c_again_and_again(tmp_path):
    folder = tmp_path / "run"
    with start_owner(owner_script(tmp_path, folder, "work()")) as owner:
        owner.stdout.readline()
        machine = the_machine()
        while owner.poll() is None:
            owner.send_signal(signal.SIGINT)
            time.sleep(0.05)
    assert gone_and_clean(machine, folder)


def test_ctrl_c_while_qemu_does_not_answer(tmp_path, monkeypatch):
    folder, note = tmp_path / "run", deaf_qemu(tmp_path, monkeypatch)
    with start_owner(owner_script(tmp_path, folder, "work()")) as owner:
        assert wait_until(note.exists)
        # Long before QEMU's time to answer is up: that would be a failed launch.
        owner.send_signal(signal.SIGINT)
        assert owner.wait() != 0
    assert not alive(int(note.read_text()))
    record = Run(folder).record
    assert (record.outcome, record.error.kind) == ("interrupted", "InterruptedRunError")
    assert not {path.name for path in folder.iterdir()} & {"overlay.qcow2", "seed.iso"}


def test_the_supervisor_and_then_the_owner_are_killed(tmp_path):
    folder = tmp_path / "run"
    script = owner_script(tmp_path, folder, IN_BACKGROUND, "time.sleep(600)")
    with start_owner(script) as owner:
        owner.stdout.readline()
        machine = the_machine()
        owner.send_signal(signal.SIGSTOP)
        os.kill(machine.supervisor_pid, signal.SIGKILL)
        assert wait_until(lambda: not alive(machine.qemu_pid)), "the kernel ends it"
        owner.kill()
    assert (folder / "overlay.qcow2").exists(), "nobody was left to delete it"
    assert registry.sweep() == [machine.ident]
    assert gone_and_clean(machine, folder)
    assert registry.sweep() == []


def test_a_run_that_waits_for_its_turn_is_cleaned_up_too(tmp_path):
    running, waiting = tmp_path / "a", tmp_path / "b"
    two = f"""
        jobs = [(options, Path({str(running)!r})), (options, Path({str(waiting)!r}))]
        boot_many(jobs, on_event=watch, parallel=1)
    """
    with start_owner(owner_script(tmp_path, running, two)) as owner:
        owner.stdout.readline()
        machine = the_machine()
        owner.kill()
    assert wait_until(lambda: not left_behind(waiting))
    assert Run(waiting).record.outcome == "interrupted"
    assert wait_until(lambda: not left_behind(running))
    assert gone_and_clean(machine, running)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def test_all_processes_of_an_owner_that_prepares_a_run_are_killed(tmp_path, number):
    left = tmp_path / "run" / "overlay.qcow2"
    script = f"""
import time
from pathlib import Path
from cloudlab.machine.registry import Entry
folder = Path({str(left.parent)!r})
folder.mkdir()
entry = Entry("cloudlab-new", run_folder=folder, cleanup=[Path({str(left)!r})])
Path({str(left)!r}).touch()
print(entry._guard.pid, flush=True)
time.sleep(600)
"""
    with start_owner(script) as owner:
        guard = int(owner.stdout.readline())
        assert left.name in left_behind(left.parent)
        if number != signal.SIGKILL:
            os.kill(guard, number)
        owner.send_signal(number)
    assert wait_until(lambda: not alive(guard))
    assert left_behind(left.parent) == []


def test_the_guard_of_a_machine_that_runs_is_gone(tmp_path):
    folder, guards = tmp_path / "run", []

    def watch(event):
        if event.note == "launched":
            guards.extend(
                process.pid
                for process in psutil.Process().children()
                if "_supervisor" in " ".join(process.cmdline())
            )

    boot(guest_options(tmp_path, report()), folder, on_event=watch)
    assert len(guards) == 1, "the supervisor"


def test_no_process_can_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_SUPERVISOR", "x" * (1 << 20))
    with pytest.raises(MachineError, match="No process could be started") as error:
        Entry("cloudlab-new", run_folder=tmp_path / "run")
    assert "ulimit -u" in error.value.hint
    assert left_behind(tmp_path / "run") == []


def test_the_next_start_sweeps(tmp_path):
    folder = tmp_path / "dead"
    folder.mkdir()
    left = folder / "overlay.qcow2"
    left.touch()
    script = f"""
import os, sys
from pathlib import Path
from cloudlab.machine.config import Network
from cloudlab.machine.registry import Entry
entry = Entry("cloudlab-dead", run_folder=Path({str(folder)!r}), cleanup=[Path({str(left)!r})])
entry._guard.kill()
entry._guard.wait()
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert left.exists()
    with Entry("cloudlab-next", run_folder=tmp_path / "next"):
        assert not left.exists()
    assert left_behind(folder) == []


def test_an_entry_whose_maker_died_over_it_is_swept(own_cache):
    folder = own_cache / "running"
    folder.mkdir()
    (folder / "dead.part").write_text('{"name": "clou')
    with (folder / "alive.part").open("w") as being_made:
        fcntl.flock(being_made, fcntl.LOCK_EX)
        registry.sweep()
        assert [path.name for path in folder.iterdir()] == ["alive.part"]
    registry.sweep()
    assert list(folder.iterdir()) == []


def test_an_entry_that_is_swept_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    real, swept = fcntl.flock, []

    def late(stream, how):
        # Another process sweeps between the file's making and its locking.
        if how == fcntl.LOCK_EX and not swept:
            code = "from cloudlab.machine import registry; registry.sweep()"
            subprocess.run([sys.executable, "-c", code], check=True)
            swept.append(not list(Path(stream.name).parent.iterdir()))
        return real(stream, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with Entry("cloudlab-late", run_folder=tmp_path) as entry:
        assert swept == [True]
        assert json.loads(entry.path.read_text())["name"] == "cloudlab-late"


def test_a_sweep_leaves_the_living_alone(tmp_path):
    left = tmp_path / "overlay.qcow2"
    left.touch()
    with Entry("cloudlab-alive", run_folder=tmp_path, cleanup=[left]) as entry:
        script = "from cloudlab.machine import registry; print(registry.sweep())"
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        assert done.stdout == b"[]\n"
        assert left.exists()
        assert entry.path.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"qemu_pid": "x"}', '{"qemu_pid": -1}', '{"cleanup": 3}']
)
def test_an_entry_that_makes_no_sense_is_swept(own_cache, text):
    folder = own_cache / "running"
    folder.mkdir(exist_ok=True)
    (folder / "odd.json").write_text(text)
    assert registry.list_running() == []
    assert list(folder.iterdir()) == []


def test_no_process_is_killed_for_having_a_dead_machines_number(own_cache):
    (own_cache / "running").mkdir()
    with subprocess.Popen(["sleep", "600"]) as innocent:
        entry = {"qemu_pid": innocent.pid, "name": "cloudlab-x", "run_folder": "/nowhere"}
        (own_cache / "running" / "old.json").write_text(json.dumps(entry))
        registry.sweep()
        assert alive(innocent.pid)
        innocent.kill()


@pytest.mark.parametrize("here", [True, False])
def test_machines_of_another_host_with_this_home_folder_are_not_listed(tmp_path, here):
    """Their numbers are those of other processes here, which a stop would end."""
    with Entry("cloudlab-x", run_folder=tmp_path) as entry:
        entry.about |= dict.fromkeys(("qemu_pid", "supervisor_pid"), os.getpid())
        entry.about |= {} if here else {"space": "elsewhere"}
        entry.path.write_text(json.dumps(entry.about))
        assert [one.name for one in registry.list_running()] == ["cloudlab-x"] * here
        assert entry.path.exists()


def test_ps_and_stop_from_another_process(tmp_path):
    folder = tmp_path / "run"
    cloudlab = [sys.executable, "-m", "cloudlab"]
    script = owner_script(tmp_path, folder, "work()")
    with start_owner(script, stderr=subprocess.PIPE) as owner:
        owner.stdout.readline()
        shown = subprocess.run([*cloudlab, "ps", "--json"], check=True, capture_output=True)
        [machine] = json.loads(shown.stdout)
        assert machine["run_folder"] == str(folder)
        assert machine["owner_pid"] == owner.pid
        ident = machine["ident"]
        subprocess.run([*cloudlab, "stop", ident], check=True, capture_output=True)
        assert not alive(machine["qemu_pid"])
        _, words = owner.communicate()
        assert b"The machine was stopped from outside" in words
    assert Run(folder).record.outcome == "failed"
    assert left_behind(folder) == []
    again = subprocess.run([*cloudlab, "stop", ident], check=False, capture_output=True)
    assert again.returncode == 2
    assert b"There is no running machine" in again.stderr
    empty = subprocess.run([*cloudlab, "ps"], check=True, capture_output=True)
    assert b"No machine is running" in empty.stderr


def test_stop_all_goes_on_past_a_machine_that_does_not_end(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    both = f"""
        jobs = [(options, Path({str(folders[0])!r})), (options, Path({str(folders[1])!r}))]
        def count(event):
            if event.note == "launched":
                print(event.run, flush=True)
        boot_many(jobs, on_event=count, parallel=2)
    """
    script = owner_script(tmp_path, folders[0], both).replace("timeout_s=600", COLD)
    with start_owner(script) as owner:
        for _ in folders:
            owner.stdout.readline()
        stubborn, other = registry.list_running()
        os.kill(stubborn.supervisor_pid, signal.SIGSTOP)
        argv = [sys.executable, "-m", "cloudlab", "stop", "--all"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert done.returncode == 1
        assert f"{stubborn.name} did not end" in done.stderr
        assert f"Stopped {other.name}." in done.stderr
        assert not alive(other.qemu_pid)
        owner.kill()
        os.kill(stubborn.supervisor_pid, signal.SIGCONT)
    assert wait_until(lambda: not alive(stubborn.qemu_pid))
    assert wait_until(lambda: not alive(stubborn.supervisor_pid))


def test_a_machine_with_a_network_listens_on_nothing(tmp_path):
    seen, stop = [], threading.Event()

    def look(event):
        if event.note == "launched":
            machine = the_machine()
            qemu = psutil.Process(machine.qemu_pid)
            assert "-netdev" in qemu.cmdline() or "-nic" in qemu.cmdline()
            seen.append(qemu.net_connections(kind="inet"))
            stop.set()

    with pytest.raises(CloudlabError):
        boot(
            guest_options(tmp_path, "hm", network=Network.USER),
            tmp_path / "run",
            on_event=look,
            cancel=stop,
        )
    assert seen == [[]]


def test_an_arm64_machine_starts(tmp_path):
    stop, said = threading.Event(), []

    def listen(event):
        if event.line is not None:
            said.append(event.line.text)
            stop.set()

    image = replace(guest_options(tmp_path, "hm").image, arch="arm64")
    with pytest.raises(InterruptedRunError):
        boot(Options(image), tmp_path / "run", on_event=listen, cancel=stop)
    assert "UEFI firmware" in said[0]
    assert "qemu-system-aarch64" in Run(tmp_path / "run").record.command[0]


def test_isolation_while_a_machine_runs(tmp_path, own_cache):
    folder = tmp_path / "run"
    secret = "$6$salt$0123456789abcdef"
    seen = {}

    def look(event):
        if event.note != "launched":
            return
        machine = the_machine()
        qemu = psutil.Process(machine.qemu_pid)
        seen["listening"] = [
            one for one in qemu.net_connections(kind="inet") if one.status == psutil.CONN_LISTEN
        ]
        seen["argv"] = qemu.cmdline() + psutil.Process(machine.supervisor_pid).cmdline()
        seen["modes"] = {
            path.name: path.stat().st_mode & 0o777
            for path in (folder, own_cache / "running", folder / "overlay.qcow2")
        }
        seen["sockets"] = [path for path in folder.rglob("*") if path.is_socket()]
        seen["seccomp"] = Path(f"/proc/{qemu.pid}/status").read_text()
        stop.set()

    stop = threading.Event()
    user_data = f"#cloud-config\npassword: {secret}\n"
    with pytest.raises(CloudlabError):
        boot(guest_options(tmp_path, "hm", user_data=user_data), folder, on_event=look, cancel=stop)
    assert seen["listening"] == []
    assert seen["sockets"] == []
    assert not [word for word in seen["argv"] if secret in word or "netdev" in word]
    assert seen["modes"] == {"run": 0o700, "running": 0o700, "overlay.qcow2": 0o600}
    assert "Seccomp:\t2" in seen["seccomp"]
    assert secret not in (folder / "run.json").read_text()


def test_a_notebooks_kernel(tmp_path):
    from jupyter_client.manager import KernelManager

    kernel = KernelManager(kernel_name="python3")
    kernel.start_kernel(env={**os.environ, "PYTHONPATH": str(TESTS)})
    try:
        folders = [tmp_path / name for name in ("restart", "kill")]
        machine = _launch_in(kernel, tmp_path, folders[0])
        kernel.interrupt_kernel()
        answer = _execute(kernel, "time.sleep(0.5); print(thread.is_alive())")
        assert answer == "True\n", "an interrupt meant for a cell is none of a run's business"
        assert alive(machine.qemu_pid)
        kernel.restart_kernel()
        assert gone_and_clean(machine, folders[0])
        machine = _launch_in(kernel, tmp_path, folders[1])
        kernel.signal_kernel(signal.SIGKILL)
        assert gone_and_clean(machine, folders[1])
    finally:
        kernel.shutdown_kernel(now=True)
        kernel.cleanup_resources()


def _launch_in(kernel, tmp_path, folder):
    script = owner_script(tmp_path, folder)
    script += "thread = threading.Thread(target=work, daemon=True); thread.start(); launched.wait()"
    assert "launched" in _execute(kernel, script)
    return the_machine()


def _execute(kernel, code):
    client = kernel.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        printed = []

        def note(message):
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        reply = client.execute_interactive(code, timeout=120, output_hook=note)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(printed)
    finally:
        client.stop_channels()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("firmware", Firmware)
def test_qemu_does_not_stay_root(firmware, tmp_path, own_cache):
    seen = {}

    def look(event):
        if event.note == "launched":
            [machine] = registry.list_running()
            qemu = psutil.Process(machine.qemu_pid)
            seen["uids"], seen["command"] = qemu.uids(), qemu.cmdline()
            seen["groups"] = Path(f"/proc/{qemu.pid}/status").read_text().split("Groups:")[1]

    run_options = guest_options(tmp_path, report(), firmware=firmware, timeout_s=5)
    if firmware is Firmware.BIOS:
        run = boot(run_options, tmp_path / "run", on_event=look)
        assert str(tmp_path / "run" / "overlay.qcow2") in " ".join(run.record.command)
    else:  # which does not boot this guest, and in newer versions soon says so
        with pytest.raises((BootFailedError, ConsoleTimeoutError)) as caught:
            boot(run_options, tmp_path / "run", on_event=look)
        timed_out = isinstance(caught.value, ConsoleTimeoutError)
        assert timed_out or "found no boot loader" in caught.value.message
    nobody = pwd.getpwnam("nobody").pw_uid
    assert set(seen["uids"]) == {nobody}
    assert seen["groups"].splitlines()[0].strip() == ""
    assert str(tmp_path) not in " ".join(seen["command"])
    assert tmp_path.stat().st_mode & 0o005 == 0, "so it could have opened nothing there"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_qemu_that_only_root_can_start_is_started(tmp_path, own_cache, monkeypatch):
    fake_qemu(tmp_path, monkeypatch, f'exec {REAL_QEMU} "$@"')
    (tmp_path / "bin").chmod(0o700)
    run = boot(guest_options(tmp_path, report()), tmp_path / "run")
    assert run.error is None
