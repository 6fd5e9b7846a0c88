"""The runner of short commands, on real processes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from guests import alive, wait_until

from cloudlab import tools
from cloudlab.errors import ToolError, ToolFailedError, ToolNotFoundError, ToolTimeoutError
from cloudlab.tools import Deadline, find_tool, find_uefi, install_argv, run


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "amd64"), ("AMD64", "amd64"), ("arm64", "arm64"), ("riscv64", "riscv64")],
)
def test_every_room_names_the_host_alike(monkeypatch, machine, arch):
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert tools.host_arch() == arch
    rooms = Path(tools.__file__).parent.rglob("*.py")
    found = [path.name for path in rooms if "def host_arch" in path.read_text()]
    assert found == ["tools.py"]


def gone(pid):
    return wait_until(lambda: not alive(pid))


def run_out_of_time(note, script, **options):
    """Run a shell's script that notes a process number until its time is up; return the number."""
    # On a busy host the first times may be up before the script has begun.
    for timeout_s in (0.5, 5, 50):
        with pytest.raises(ToolTimeoutError, match="did not end within"):
            run(["sh", "-c", script], timeout_s=timeout_s, **options)
        if note.exists() and (text := note.read_text().strip()):
            return int(text)
    raise AssertionError("the script did not begin")


def test_returns_what_was_printed():
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)


def test_a_failure_carries_code_and_words():
    with pytest.raises(ToolFailedError, match="exit code 4: too bad") as caught:
        run(["sh", "-c", "echo too bad >&2; exit 4"])
    assert caught.value.returncode == 4
    assert caught.value.output == "too bad"


def test_a_missing_program_comes_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(tools, "package_manager", lambda: "apt")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(tools, "_SYSTEM_FOLDERS", ())
    with pytest.raises(ToolNotFoundError, match=r"apt-get install .* qemu-utils"):
        find_tool("qemu-img")


@pytest.mark.parametrize(
    ("argv", "cwd", "kind", "words"),
    [
        pytest.param(["/no/such"], None, ToolNotFoundError, "No such file", id="missing"),
        pytest.param(["true"], "none", ToolError, r"No such file .*\(.*/none\)", id="folder"),
        pytest.param(["./file"], ".", ToolError, "Permission denied", id="not executable"),
        pytest.param(["true", "x" * 3_000_000], None, ToolError, "too long", id="long"),
    ],
)
def test_a_program_that_cannot_be_started(argv, cwd, kind, words, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ToolError, match=words) as caught:
        run(argv, cwd=tmp_path / cwd if cwd else None)
    assert type(caught.value) is kind
    assert ("Install" in caught.value.hint) is (kind is ToolNotFoundError)


def test_a_failed_command_can_be_pasted(tmp_path):
    folder = tmp_path / "it's here"
    for script, timeout_s in (("exit 3", 60), ("sleep 60", 0.3)):
        with pytest.raises((ToolFailedError, ToolTimeoutError)) as caught:
            run(["sh", "-c", script, str(folder)], timeout_s=timeout_s, grace_s=0)
        command = caught.value.hint.removeprefix("The command was: ")
        assert shlex.split(command)[1:] == ["-c", script, str(folder)]


def test_standard_input_is_empty_unless_given():
    assert run(["cat"]).stdout == ""
    assert run(["cat"], stdin="a text").stdout == "a text"


def test_the_locale_is_fixed(monkeypatch):
    monkeypatch.setenv("LC_MESSAGES", "de_DE.UTF-8")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    assert "LANG=C\n" in run(["env"]).stdout
    assert "LC_MESSAGES" not in run(["env"]).stdout


def test_a_timeout_ends_the_whole_family(tmp_path):
    note = tmp_path / "pid"
    assert gone(run_out_of_time(note, f"sleep 600 & echo $! > '{note}'; wait"))


def test_a_child_that_ignores_the_request_to_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "GRACE_S", 0.3)
    note = tmp_path / "pid"
    script = f"trap '' TERM; echo $$ > '{note}'; while :; do sleep 0.1; done"
    assert gone(run_out_of_time(note, script))


def test_a_child_without_grace_is_killed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "GRACE_S", 600.0)
    note, asked = tmp_path / "pid", tmp_path / "asked"
    script = f"trap 'touch \"{asked}\"' TERM; echo $$ > '{note}'; while :; do sleep 0.1; done"
    assert gone(run_out_of_time(note, script, grace_s=0))
    assert not asked.exists()


def test_a_bound_child_dies_with_its_owner(tmp_path):
    note = tmp_path / "pid"
    script = f"echo $$ > '{note}.part'; mv '{note}.part' '{note}'; exec sleep 600"
    # From a thread that is not the main one, as cloudlab's own runs do.
    code = (
        "import threading; from cloudlab.tools import run\n"
        f"threading.Thread(target=run, args=(['sh', '-c', {script!r}],),"
        " kwargs={'bound': True, 'timeout_s': 600}).start()\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code])
    assert wait_until(note.exists)
    owner.kill()
    owner.wait()
    assert gone(int(note.read_text()))


def test_a_bound_program_is_known_by_its_own_name(tmp_path):
    with pytest.raises(ToolTimeoutError, match=r"^sleep did not end"):
        run(["sleep", "600"], timeout_s=0.2, bound=True)
    done = run(["sh", "-c", "cat; exit 3"], stdin="a text", bound=True, check=False)
    assert (done.stdout, done.returncode) == ("a text", 3)


def test_standard_input_may_be_a_file(tmp_path):
    (tmp_path / "text").write_text("from a file")
    with (tmp_path / "text").open("rb") as stream:
        assert run(["cat"], stdin=stream).stdout == "from a file"


def test_an_interrupt_ends_the_program_too(tmp_path):
    note = tmp_path / "pid"
    code = f"from cloudlab.tools import run\nrun(['sh', '-c', 'sleep 1; echo $$ > \"{note}\"; sleep 60'])\n"
    owner = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    assert wait_until(lambda: note.exists() and note.read_text().strip())
    owner.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in owner.communicate()[1]
    assert gone(int(note.read_text()))


def test_lines_are_told_as_they_come(tmp_path):
    go = tmp_path / "go"
    seen = []
    first = threading.Event()

    def tell(line):
        seen.append(line)
        first.set()

    def release():
        # Only once the first line was told does the program go on to its second.
        assert first.wait(60)
        go.touch()

    thread = threading.Thread(target=release)
    thread.start()
    script = f"echo one >&2; while [ ! -e '{go}' ]; do sleep 0.02; done; echo two >&2; echo out"
    done = run(["sh", "-c", script], on_line=tell)
    thread.join()
    assert seen == ["one", "two"]
    assert (done.stdout, done.stderr) == ("out\n", "one\ntwo\n")


@pytest.mark.parametrize(
    ("manager", "uid", "expected"),
    [
        ("apt", 0, ["apt-get", "install", "-y", "--no-install-recommends", "x"]),
        ("apt", 1000, ["sudo", "apt-get", "install", "-y", "--no-install-recommends", "x"]),
        ("dnf", 1000, ["sudo", "dnf", "install", "-y", "x"]),
        ("pacman", 1000, ["sudo", "pacman", "-S", "--needed", "x"]),
        ("apk", 0, ["apk", "add", "x"]),
        ("brew", 501, ["brew", "install", "x"]),
    ],
    ids=["apt as root", "apt with sudo", "dnf", "pacman", "apk", "brew never with sudo"],
)
def test_install_command(monkeypatch, manager, uid, expected):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert install_argv(["x"], manager) == expected


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("pacman", "pacman -S --needed qemu-img"),
        ("apk", "apk add qemu-img"),
        ("dnf", "dnf install"),
    ],
)
def test_the_package_manager_of_each_distribution_is_found(
    monkeypatch, tmp_path, program, expected
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_SYSTEM_FOLDERS", ())
    assert tools.package_manager() is None
    assert "your system's package manager" in tools.install_hint("qemu-img")
    (tmp_path / program).symlink_to("/bin/true")
    assert tools.package_manager() == program
    assert expected in tools.install_hint("qemu-img")


@pytest.mark.parametrize("manager", ["dnf", "zypper", "pacman", "apk", "brew"])
def test_every_system_has_a_package_for_what_a_run_needs(manager):
    needs = [name for name, one in tools.PROGRAMS.items() if any("run" in j for j in one.jobs)]
    needs += ["uefi-amd64", "uefi-arm64"]
    packages, unknown = tools.packages_for(needs, manager)
    assert unknown == []
    assert packages


def test_deadline():
    assert Deadline.after(0).expired
    assert not Deadline.after(600).expired
    assert 0 < Deadline.after(600).left_s <= 600


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_this_hosts_firmware_is_found(arch):
    code, variables = find_uefi(arch)
    assert b"_FVH" in code.read_bytes(), "a UEFI firmware volume"
    assert variables.stat().st_size > 0


def firmware(folder, name, **changes):
    """Describe a firmware whose files exist; return its code and variables."""
    code, variables = folder / f"{name}.code", folder / f"{name}.vars"
    about = {
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": str(code), "format": changes.pop("format", "raw")},
            "nvram-template": {"filename": str(variables), "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
        "features": ["verbose-dynamic"],
    } | changes
    code.touch()
    variables.touch()
    (folder / f"{name}.json").write_text(json.dumps(about))
    return code, variables


def test_the_first_firmware_that_fits_is_taken(tmp_path, monkeypatch):
    own, system = tmp_path / "etc", tmp_path / "usr"
    monkeypatch.setattr(tools, "_FIRMWARE_FOLDERS", (str(own), str(system), "/nowhere"))
    own.mkdir()
    system.mkdir()
    assert find_uefi("amd64") is None
    (own / "10-broken.json").write_text("{")
    firmware(own, "20-secure", features=["secure-boot", "requires-smm"])
    firmware(own, "30-qcow2", format="qcow2")
    firmware(own, "31-microvm", targets=[{"architecture": "x86_64", "machines": ["microvm"]}])
    firmware(own, "32-arm", targets=[{"architecture": "aarch64", "machines": ["virt-*"]}])
    firmware(own, "33-memory", mapping={"device": "memory", "filename": "/f"})
    firmware(own, "34-deleted")[1].unlink()
    firmware(own, "35-null", targets=[{"architecture": "x86_64", "machines": [None]}])
    flash = {
        part: {"filename": "/" + "f" * 300, "format": "raw"}
        for part in ("executable", "nvram-template")
    }
    firmware(own, "36-long-name", mapping=flash)
    assert find_uefi("amd64") is None
    last = firmware(system, "60-plain")
    assert find_uefi("amd64") == last
    assert find_uefi("s390x") is None
    (own / "60-plain.json").touch()
    assert find_uefi("amd64") is None, "an empty file of the same name hides it"
    first = firmware(own, "40-mine")
    assert find_uefi("amd64") == first
