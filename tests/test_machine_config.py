"""QEMU's command line as a pure function, and the accelerator as this host really has it."""

import json
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from guests import REAL_QEMU, alive, fake_qemu, wait_until

from cloudlab.errors import LaunchError, ToolFailedError, ToolTimeoutError, UsageError
from cloudlab.machine import accel as accels
from cloudlab.machine.accel import AccelChoice, choose_accel, probe
from cloudlab.machine.config import (
    Accel,
    MachineConfig,
    Network,
    UefiFiles,
    qemu_argv,
    qemu_program,
)
from cloudlab.tools import host_arch

CONFIG = MachineConfig(
    name="cloudlab-run",
    arch="amd64",
    accel=Accel.TCG,
    overlay=Path("/runs/a, b/overlay.qcow2"),
    seed=Path("/runs/a, b/seed.iso"),
)


def blockdevs(argv):
    found = [json.loads(argv[at + 1]) for at, word in enumerate(argv) if word == "-blockdev"]
    return {node["node-name"]: node for node in found}


def test_formats_are_always_given_and_the_seed_is_read_only():
    nodes = blockdevs(qemu_argv(CONFIG, qmp_fd=7))
    assert nodes["disk"]["driver"] == "qcow2"
    assert nodes["disk"]["file"]["filename"] == "/runs/a, b/overlay.qcow2"
    assert nodes["seed"]["driver"] == "raw"
    assert nodes["seed"]["read-only"] is True


def test_a_machine_without_seed_has_one_disk():
    assert list(blockdevs(qemu_argv(replace(CONFIG, seed=None), qmp_fd=7))) == ["disk"]


def test_there_is_no_network_unless_asked_for():
    argv = qemu_argv(CONFIG, qmp_fd=7)
    assert "-nodefaults" in argv
    assert not [word for word in argv if "net" in word]


def test_the_user_network_lets_nobody_in():
    argv = qemu_argv(replace(CONFIG, network=Network.USER), qmp_fd=7)
    [netdev] = [argv[at + 1] for at, word in enumerate(argv) if word == "-netdev"]
    assert netdev.startswith("user,")
    assert "hostfwd" not in netdev
    assert "guestfwd" not in netdev


def test_passts_network_is_a_socket():
    config = replace(CONFIG, network=Network.USER, passt=True)
    argv = qemu_argv(config, qmp_fd=7, net_fd=8)
    [netdev] = [argv[at + 1] for at, word in enumerate(argv) if word == "-netdev"]
    assert netdev == "stream,id=net,addr.type=fd,addr.str=8"


def test_the_backing_file_and_its_format_are_named():
    config = replace(CONFIG, base=(Path("/images/base.raw"), "raw"))
    backing = blockdevs(qemu_argv(config, qmp_fd=7))["disk"]["backing"]
    assert (backing["driver"], backing["read-only"]) == ("raw", True)
    assert backing["file"]["filename"] == "/images/base.raw"


def test_every_file_may_be_a_descriptor():
    uefi = UefiFiles(Path("/code.fd"), Path("/vars.fd"))
    config = replace(CONFIG, base=(Path("/base.raw"), "raw"), uefi=uefi, pause_at_seed_byte=512)
    assert list(config.files().values()) == [True, False, False, False, True]
    names = {path: f"/dev/fdset/{number}" for number, path in enumerate(config.files(), 1)}
    words = " ".join(qemu_argv(config, qmp_fd=7, names=names))
    assert not [path for path in config.files() if str(path) in words]
    assert all(name in words for name in names.values())


@pytest.mark.parametrize("network", Network)
def test_nothing_listens(network):
    argv = qemu_argv(replace(CONFIG, network=network), qmp_fd=7)
    assert [argv[at + 1] for at, word in enumerate(argv) if word == "-chardev"] == [
        "stdio,id=console,signal=off",
        "socket,id=qmp,fd=7",
    ]
    assert not {"-vnc", "-spice", "-gdb", "-s", "-qmp", "-incoming"} & set(argv)
    parts = [part for word in argv for part in word.split(",")]
    listening = ("server", "tcp:", "udp:", "unix:", "telnet:", "host=", "port=", "path=", "vnc=")
    assert [part for part in parts if part.startswith(listening)] == []


@pytest.mark.parametrize("sandbox", [True, False])
def test_the_sandbox_is_on_where_qemu_has_one(sandbox):
    argv = qemu_argv(replace(CONFIG, sandbox=sandbox), qmp_fd=7)
    assert ("-sandbox" in argv) is sandbox
    if sandbox:
        assert "spawn=deny" in argv[argv.index("-sandbox") + 1]


@pytest.mark.parametrize("accel", Accel)
def test_the_cpu_fits_the_accelerator(accel):
    argv = qemu_argv(replace(CONFIG, accel=accel), qmp_fd=7)
    assert argv[argv.index("-accel") + 1] == accel
    assert argv[argv.index("-cpu") + 1] == ("max,cx16=off" if accel is Accel.TCG else "host")


def test_commas_in_names_are_no_separators():
    uefi = UefiFiles(Path("/f,w/code.fd"), Path("/f,w/vars.fd"))
    argv = qemu_argv(replace(CONFIG, name="a,b=c", uefi=uefi), qmp_fd=7)
    assert "guest=a,,b=c" in argv
    drives = [argv[at + 1] for at, word in enumerate(argv) if word == "-drive"]
    assert [drive.partition("file=")[2] for drive in drives] == ["/f,,w/code.fd", "/f,,w/vars.fd"]
    assert ["readonly=on" in drive for drive in drives] == [True, False]


def test_what_could_not_boot_is_refused():
    with pytest.raises(UsageError, match="64 MiB of memory"):
        replace(CONFIG, memory_bytes=64 << 20)
    with pytest.raises(UsageError, match="cannot have 0 CPUs"):
        replace(CONFIG, cpus=0)
    with pytest.raises(LaunchError, match="no machine for the architecture 's390x'"):
        qemu_program("s390x")


@pytest.mark.vm
@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_emulation_runs_guest_code_here(arch):
    assert probe(arch, Accel.TCG) > 0


@pytest.mark.vm
def test_the_choice_is_remembered_until_what_it_depends_on_changes(own_cache, monkeypatch):
    first = choose_accel()
    record = own_cache / f"accelerator-{host_arch()}.json"
    known = json.loads(record.read_text())
    record.write_text(json.dumps({**known, "reason": "as remembered"}))
    assert choose_accel() == replace(first, reason="as remembered")
    record.write_text(json.dumps({**known, "reason": "as remembered", "key": {"boot": "other"}}))
    assert choose_accel() != replace(first, reason="as remembered")


@pytest.mark.vm
@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": null}', "\x00"])
def test_a_damaged_record_is_probed_again(own_cache, monkeypatch, text):
    monkeypatch.setattr(accels, "PROBE_TIMEOUT_S", 0.5)
    record = own_cache / f"accelerator-{host_arch()}.json"
    record.write_text(text)
    assert isinstance(choose_accel(), AccelChoice)
    assert json.loads(record.read_text())["accel"]


@pytest.fixture
def kvm(monkeypatch):
    """Make the host one with a /dev/kvm that may be opened."""
    monkeypatch.setattr(accels, "_candidate", lambda _: (Accel.KVM, ""))


#: Where a host has no KVM that works, emulation plays its part.
AS_TCG = (
    f"exec {REAL_QEMU} $(echo \"$@\" | sed 's/-accel kvm -cpu host/-accel tcg -cpu max,cx16=off/')"
)

HANGS = "sleep 600"

KVMS = {
    "hangs": (HANGS, "guest code did not run within"),
    "refuses": ("echo no such luck >&2; exit 1", "QEMU cannot use kvm: no such luck"),
    "exits": ("exit 0", "QEMU cannot use kvm"),
    "aborts": (
        "printf '%s\\n' 'qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69' 'abort' >&2; exit 1",
        "QEMU cannot use kvm: failed to set MSR 0x10a to 0x69",
    ),
    "crawls": (f"sleep 1.5; {AS_TCG}", "for guest code that emulation ran in"),
}


@pytest.mark.vm
@pytest.mark.usefixtures("own_cache", "kvm")
@pytest.mark.parametrize(("script", "why"), KVMS.values(), ids=KVMS)
def test_a_kvm_that_is_there_and_does_not_work(tmp_path, monkeypatch, script, why):
    monkeypatch.setattr(accels, "PROBE_TIMEOUT_S", 1.0 if script == HANGS else 60.0)
    monkeypatch.setattr(accels, "SLOWER_THAN_TCG", 0.1)
    case = f'case "$*" in *"-accel kvm"*) {script};; *) exec {REAL_QEMU} "$@";; esac'
    fake_qemu(tmp_path, monkeypatch, case)
    choice = choose_accel("amd64", refresh=True)
    assert choice.accel is Accel.TCG
    assert why in choice.reason


@pytest.mark.vm
def test_a_kvm_that_works_is_taken(own_cache, tmp_path, monkeypatch, kvm):
    fake_qemu(tmp_path, monkeypatch, AS_TCG)
    monkeypatch.setattr(accels, "PROBE_TIMEOUT_S", 60.0)
    monkeypatch.setattr(accels, "SLOWER_THAN_TCG", 1000.0)
    assert choose_accel("amd64", refresh=True).accel is Accel.KVM


@pytest.mark.vm
def test_a_qemu_without_seccomp(own_cache, tmp_path, monkeypatch):
    fake_qemu(
        tmp_path,
        monkeypatch,
        f'case "$*" in *-sandbox*) echo "-sandbox: no seccomp" >&2; exit 1;; esac; exec {REAL_QEMU} "$@"',
    )
    monkeypatch.setattr(accels, "_candidate", lambda _: (None, "this test wants none"))
    choice = choose_accel("amd64", refresh=True)
    assert choice == AccelChoice(Accel.TCG, "software emulation, because this test wants none", sandbox=False)  # fmt: skip


def test_a_qemu_that_runs_nothing_at_all(own_cache, tmp_path, monkeypatch):
    fake_qemu(tmp_path, monkeypatch, "echo broken >&2; exit 1")
    with pytest.raises(ToolFailedError, match="before the guest code did: broken") as caught:
        choose_accel("amd64", refresh=True)
    assert "install it again" in caught.value.hint


def test_a_qemu_that_is_no_program(own_cache, tmp_path, monkeypatch):
    fake_qemu(tmp_path, monkeypatch, "")
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.write_bytes(b"\0\1")
    with pytest.raises(ToolFailedError) as caught:
        choose_accel("amd64", refresh=True)
    assert f"{program} cannot be started: Exec format error." in caught.value.message
    assert "Traceback" not in caught.value.message


def test_a_probe_that_hangs_is_ended(tmp_path, monkeypatch):
    fake_qemu(tmp_path, monkeypatch, "exec sleep 600")
    monkeypatch.setattr(accels, "TCG_PROBE_TIMEOUT_S", 0.5)
    with pytest.raises(ToolTimeoutError, match=r"tcg did not run .* within 0\.5 s") as caught:
        probe("amd64", Accel.TCG)
    assert "less busy" in caught.value.hint


@pytest.mark.vm
@pytest.mark.usefixtures("own_cache", "kvm")
def test_a_kvm_that_does_not_end_when_asked_to_is_killed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(accels, "PROBE_TIMEOUT_S", 1.0)
    asked = tmp_path / "asked"
    hangs = f"trap 'touch {asked}' TERM; while :; do sleep 0.1; done"
    case = f'case "$*" in *"-accel kvm"*) {hangs};; *) exec {REAL_QEMU} "$@";; esac'
    fake_qemu(tmp_path, monkeypatch, case)
    assert choose_accel("amd64", refresh=True).accel is Accel.TCG
    assert not asked.exists(), "else it would have had five more seconds"


def test_a_probe_ends_with_its_owner_and_leaves_nothing(tmp_path, monkeypatch):
    note, temporary = tmp_path / "pid", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    hangs = f"echo $$ > '{note}.part'; mv '{note}.part' '{note}'; exec sleep 600"
    fake_qemu(tmp_path, monkeypatch, hangs)
    code = "from cloudlab.machine.accel import *; probe('amd64', Accel.TCG)"
    with subprocess.Popen([sys.executable, "-c", code]) as owner:
        assert wait_until(note.exists)
        owner.kill()
    assert wait_until(lambda: not alive(int(note.read_text())))
    assert list(temporary.iterdir()) == []


def test_the_probe_for_arm_needs_no_file(tmp_path, monkeypatch):
    """On macOS, QEMU would find the end of a file that it opened before as /dev/stdin."""
    note = tmp_path / "argv"
    fake_qemu(tmp_path, monkeypatch, f'echo "$@" > "{note}"')
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.rename(program.with_name("qemu-system-aarch64"))
    assert probe("arm64", Accel.TCG) > 0
    argv = note.read_text()
    assert "/dev/stdin" not in argv
    loaded = [int(word, 16) for word in re.findall("data=(0x[0-9a-f]+),data-len=4", argv)]
    assert struct.pack("<4I", *loaded) == accels._ARM_CODE


def test_an_image_for_newer_cpus_gets_cmpxchg16b():
    argv = qemu_argv(replace(CONFIG, accel=Accel.TCG, cx16=True), qmp_fd=7)
    assert argv[argv.index("-cpu") + 1] == "max"
