"""Linux, macOS and WSL, each with its system calls faked at cloudlab.platforms only."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from guests import alive, wait_until

import cloudlab
from cloudlab import platforms, tools
from cloudlab.cli import hosts
from cloudlab.errors import BuildError
from cloudlab.image.build import check_host
from cloudlab.image.recipe import Recipe
from cloudlab.machine.config import Accel, MachineConfig
from cloudlab.machine.network import network_warning
from cloudlab.machine.process import other_user

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="uses Linux's pidfd or prctl")

WSL2 = "5.15.153.1-microsoft-standard-WSL2\n"
WSL1 = "4.4.0-19041-Microsoft\n"

#: As WSL2 mounts Windows drives and its own disk.
MOUNTS = (
    "/dev/sdc / ext4 rw,relatime,discard 0 0\n"
    "C:\\134 /mnt/c 9p rw,noatime,aname=drvfs;path=C:\\;uid=1000 0 0\n"
)

#: kqueue's waiting for the ends of processes, made of Linux's pidfd; and a host that is a Mac.
MAC = """
import os, runpy, select, sys, ctypes, subprocess

class kqueue:
    def control(self, changes, limit):
        waiting = select.poll()
        for pid in changes:
            waiting.register(os.pidfd_open(pid), select.POLLIN)
        return waiting.poll()

select.kqueue, select.kevent = kqueue, lambda pid, *_: pid
select.KQ_FILTER_PROC = select.KQ_EV_ADD = select.KQ_NOTE_EXIT = 0
sys.path.append({packages!r})
from cloudlab import platforms
platforms.SYSTEM = "darwin"
"""


@pytest.fixture
def macos(monkeypatch):
    """Make the host an Apple silicon Mac with a hypervisor; return its kernel's variables."""
    variables = {"kern.bootsessionuuid": "0E5B", "kern.hv_support": "1"}
    monkeypatch.setattr(platforms, "SYSTEM", "darwin")
    monkeypatch.setattr(platforms, "_sysctl", lambda name: variables.get(name, ""))
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("platform.mac_ver", lambda: ("15.5", ("", "", ""), "arm64"))
    return variables


@pytest.fixture
def wsl(monkeypatch):
    """Make the host WSL2; return the files of /proc that can be read."""
    files = {"/proc/sys/kernel/osrelease": WSL2, "/proc/self/mounts": MOUNTS}
    monkeypatch.setattr(platforms, "SYSTEM", "linux")
    monkeypatch.setattr(platforms, "_read", lambda path: files.get(path, ""))
    return files


@pytest.fixture(params=["linux", "darwin"])
def binder(request, tmp_path):
    """Start of an argument list that binds a program to its starter; its parts name tmp_path."""
    script = tmp_path / "bind.py"
    packages = str(Path(cloudlab.__file__).parents[1])
    system = MAC.format(packages=packages) if request.param == "darwin" else (
        f"import sys; sys.path.append({packages!r})\nfrom cloudlab import platforms\n"
    )  # fmt: skip
    script.write_text(f"{system}\nplatforms._main(*sys.argv[1:])\n")
    (tmp_path / "system.py").write_text(system)
    return [sys.executable, "-I", "-S", str(script)]


def left_of(folder):
    """Return processes whose command line names a folder."""
    found = psutil.process_iter(["pid", "cmdline"])
    return [one.pid for one in found if any(str(folder) in w for w in one.info["cmdline"] or ())]


@linux_only
def test_a_bound_program_is_killed_with_its_owner(binder, tmp_path):
    note = tmp_path / "pid"
    # It does not hear that it should end: only a kill ends it.
    shell = f"trap '' TERM HUP INT; echo $$ > '{note}.part'; mv '{note}.part' '{note}'; sleep 600 & wait"
    code = (
        "import os, subprocess, sys\n"
        "subprocess.run([*sys.argv[1:5], str(os.getpid()), *sys.argv[5:]], check=False)"
    )
    argv = [sys.executable, "-c", code, *binder, shutil.which("sh"), "-c", shell]
    with subprocess.Popen(argv, start_new_session=True) as owner:
        assert wait_until(note.exists)
        assert alive(int(note.read_text()))
        owner.kill()
    try:
        assert wait_until(lambda: not alive(int(note.read_text())))
        assert wait_until(lambda: left_of(tmp_path) == [])
    finally:
        os.killpg(owner.pid, signal.SIGKILL)  # the sleep


@linux_only
def test_nothing_is_left_of_a_bound_program_that_ended_itself(binder, tmp_path):
    argv = [*binder, str(os.getpid()), shutil.which("sh"), "-c", "cat; exit 3"]
    done = subprocess.run(argv, input="text", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "text", "")
    assert wait_until(lambda: left_of(tmp_path) == [])


@linux_only
def test_nothing_but_the_program_holds_what_it_inherited(binder):
    ours, theirs = socket.socketpair()
    code = "import os, sys, time; [os.close(int(n)) for n in sys.argv[1:]]; time.sleep(600)"
    closed = ["1", str(theirs.fileno())]
    argv = [*binder, str(os.getpid()), sys.executable, "-c", code, *closed]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()]
    ) as process:
        theirs.close()
        # So their end shows although the program lives on.
        ours.settimeout(60)
        assert ours.recv(1) == b""
        assert process.stdout.read() == b""
        assert process.poll() is None
        process.kill()
    ours.close()


@linux_only
def test_a_program_whose_owner_has_gone_is_not_started(binder):
    done = subprocess.run([*binder, "1", "/bin/echo", "hello"], capture_output=True, check=False)
    assert done.stdout == b""


@linux_only
def test_qemu_is_killed_with_its_supervisor(binder, tmp_path):
    entry = tmp_path / "entry.json"
    code = (tmp_path / "system.py").read_text() + (
        "\nfrom cloudlab.machine._supervisor import main\nsys.exit(main())"
    )
    with entry.open("w") as file:
        job = {
            "argv": ["/bin/sleep", "600"], "fds": [], "files": {}, "user": None,
            "entry": str(entry), "entry_fd": file.fileno(), "owner_pid": os.getpid(), "about": {},
        }  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            pass_fds=[file.fileno()],
        ) as supervisor:  # fmt: skip
            qemu_pid = json.loads(supervisor.stderr.readline())["qemu_pid"]
            assert alive(qemu_pid)
            supervisor.kill()
    assert wait_until(lambda: not alive(qemu_pid))


def test_this_host_is_described():
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in platforms.describe()
    assert os.uname().machine in platforms.describe()


def test_a_mac_is_described(macos, monkeypatch):
    monkeypatch.setattr(platforms, "in_conda", lambda: True)
    assert platforms.describe().startswith("macOS 15.5, arm64, Python ")
    assert platforms.describe().endswith(" of conda")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    macos["sysctl.proc_translated"] = "1"
    assert platforms.describe().startswith("macOS 15.5, x86_64 under Rosetta, ")


def test_an_intel_python_on_apple_silicon_gets_machines_of_the_processor(macos, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert tools.host_arch() == "amd64"
    macos["sysctl.proc_translated"] = "1"
    assert tools.host_arch() == "arm64"


@pytest.mark.parametrize(
    ("system", "release", "expected"),
    [
        ("linux", WSL2, "WSL2"),
        ("linux", WSL1, "WSL1"),
        ("linux", "6.1.0-37-amd64\n", ""),
        ("darwin", WSL2, ""),
    ],
)
def test_wsl_is_known_by_its_kernel(wsl, monkeypatch, system, release, expected):
    monkeypatch.setattr(platforms, "SYSTEM", system)
    wsl["/proc/sys/kernel/osrelease"] = release
    assert platforms.wsl() == expected


def test_wsl_is_described(wsl, monkeypatch):
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"PRETTY_NAME": "Ubuntu 24.04"})
    assert platforms.describe().startswith("Ubuntu 24.04 in WSL2, ")


def test_windows_drives_are_found(wsl):
    assert platforms.windows_drive("/mnt/c/Users/me/cache") == "/mnt/c"
    assert platforms.windows_drive("/mnt/c") == "/mnt/c"
    assert platforms.windows_drive("/mnt/cache") == ""
    assert platforms.windows_drive("/home/me/.cache/cloudlab") == ""
    wsl["/proc/sys/kernel/osrelease"] = "6.1.0-37-amd64\n"
    assert platforms.windows_drive("/mnt/c/shared") == "", "a virtual machine's shared folder"


def test_the_doctor_warns_of_a_cache_on_a_windows_drive(wsl, tmp_path, monkeypatch):
    drive = tmp_path / "my drive"
    monkeypatch.setenv("CLOUDLAB_CACHE", str(drive / "cache"))
    point = str(drive).replace(" ", "\\040")  # as the kernel writes it
    wsl["/proc/self/mounts"] += f"D:\\134 {point} 9p rw 0 0\n"
    cache = next(check for check in hosts._host_checks() if check.name == "cache")
    assert cache.ok, "it works"
    assert f"on the Windows drive {drive}" in cache.detail
    assert "CLOUDLAB_CACHE" in cache.fix


@pytest.mark.parametrize(
    ("device", "release", "expected"),
    [
        ("open", "", ("kvm", "")),
        ("closed", "", (None, "usermod -aG kvm")),
        ("missing", "", (None, "firmware settings")),
        ("missing", WSL2, (None, "nestedVirtualization=true under [wsl2] in %UserProfile%")),
    ],
)
def test_kvm(wsl, monkeypatch, device, release, expected):
    path = "/nowhere/kvm" if device == "missing" else "/dev/null"
    monkeypatch.setattr(platforms, "_KVM", path)
    monkeypatch.setattr(os, "access", lambda *_: device == "open")
    wsl["/proc/sys/kernel/osrelease"] = release
    name, why_not = platforms.hardware_accelerator()
    assert name == expected[0]
    assert expected[1] in why_not


def test_hvf(macos):
    assert platforms.hardware_accelerator() == ("hvf", "")
    macos["kern.hv_support"] = "0"
    assert "Hypervisor framework" in platforms.hardware_accelerator()[1]


def test_an_unknown_system_is_emulated_on(monkeypatch):
    monkeypatch.setattr(platforms, "SYSTEM", "freebsd14")
    assert platforms.hardware_accelerator() == (None, "cloudlab knows no accelerator for freebsd14")


def test_a_boot_of_the_host_has_a_name(macos, monkeypatch):
    assert platforms.boot_id() == "0E5B"
    macos.clear()
    assert platforms.boot_id() == "unknown"


@linux_only
def test_a_boot_of_this_host_has_a_name():
    assert len(platforms.boot_id()) == len("ce77b6e1-8a4e-4e39-a2a5-5d8b7a9e8f30")
    assert platforms.boot_id() == platforms.boot_id()


def test_processes_that_can_look_up_one_another_share_a_word(macos, monkeypatch):
    here = platforms.process_space()
    macos["kern.bootsessionuuid"] = "1F6C"
    assert here != platforms.process_space()
    macos.clear()
    nameless = platforms.process_space()
    monkeypatch.setattr("platform.node", lambda: "another.example")
    assert nameless != platforms.process_space()
    assert platforms.process_space().isalnum()


def test_cores_are_counted_with_and_without_affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert platforms.usable_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert platforms.usable_cores() == 8
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert platforms.usable_cores() == 1


def test_a_sockets_path_fits_on_macos_too(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T")
    assert platforms.socket_folder("cloudlab-12345678/nbd") is None
    monkeypatch.setattr(tempfile, "tempdir", "/" + 82 * "x")
    assert len(os.fsencode(f"{tempfile.gettempdir()}/cloudlab-12345678/nbd")) == 105
    assert platforms.socket_folder("cloudlab-12345678/nbd") == "/tmp"


def test_what_linux_alone_has_is_not_used_elsewhere(macos, tmp_path):
    with pytest.raises(BuildError, match="Linux only"):
        check_host(Recipe())
    assert "runs on Linux only" in network_warning("arm64")
    config = MachineConfig("a", "arm64", Accel.HVF, tmp_path / "overlay", None)
    assert other_user(config) is None


def test_python_of_python_org_gets_a_hint_about_its_certificates(macos, monkeypatch):
    assert "Install Certificates.command" in platforms.certificates_hint()
    monkeypatch.setattr(platforms, "SYSTEM", "linux")
    assert platforms.certificates_hint() == ""


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A host without package manager and QEMU; return a folder that which() looks in."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(tools, "_SYSTEM_FOLDERS", (str(tmp_path / "bin"),))
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(platforms, "in_conda", lambda: False)
    return tmp_path / "bin"


def has(folder, name):
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def test_homebrew_is_found_without_a_path_as_what_launchd_starts(bare, macos):
    assert tools.install_hint("qemu-img") == (
        "Install Homebrew (https://brew.sh), then run: brew install qemu"
    )
    has(bare, "brew")
    has(bare, "apt-get")
    assert tools.package_manager() == "brew"
    assert tools.install_hint("qemu-img") == "Install it with: brew install qemu"


def test_homebrew_and_its_tools_are_where_it_puts_them():
    assert {"/opt/homebrew/bin", "/usr/local/bin"} <= set(tools._SYSTEM_FOLDERS)


def test_conda_has_no_qemu_and_the_hint_says_so(bare, monkeypatch):
    monkeypatch.setattr(platforms, "SYSTEM", "linux")
    has(bare, "apt-get")
    assert "conda" not in tools.install_hint("qemu-img")
    monkeypatch.setattr(platforms, "in_conda", lambda: True)
    assert hosts._tool("qemu-img").fix.startswith("conda-forge has no QEMU that runs machines")
    assert "apt-get install" in hosts._tool("qemu-img").fix
    assert "conda" not in tools.install_hint("gpgv")


def test_conda_is_known_by_its_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    assert not platforms.in_conda()
    (tmp_path / "conda-meta").mkdir()
    assert platforms.in_conda()


MAC_CHECK = Path(__file__).with_name("mac-check.sh")


def test_shellcheck_finds_nothing_in_the_script_for_macs():
    argv = ["shellcheck", "-s", "sh", MAC_CHECK]
    assert subprocess.run(argv, capture_output=True, text=True, check=False).stdout == ""


@pytest.mark.vm
def test_the_script_for_macs_without_its_boots(own_cache, tmp_path):
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    env = {"HOME": str(home), "TMPDIR": str(temporary), "PYTHON": sys.executable,
           "PYTHONPATH": str(MAC_CHECK.parents[1])}  # fmt: skip
    done = subprocess.run(
        ["dash", MAC_CHECK, "--no-boot", "--output", "found.txt"],
        cwd=tmp_path, env={**os.environ, **env}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    said = (tmp_path / "found.txt").read_text()
    titles = re.findall(r"^== (.*) ==$", said, re.MULTILINE)
    assert titles == [
        "setup", "system", "Homebrew", "QEMU", "Python", "doctor", "lab", "replay", "boots", "end",
    ]  # fmt: skip
    assert "Traceback" not in said
    assert "$ sw_vers\n(not on this system)" in said or sys.platform == "darwin"
    found, _ = json.JSONDecoder().raw_decode(said, said.index('{\n  "checks"'))
    assert found["checks"][0]["detail"] == platforms.describe()
    assert "The course is in ~" not in said, "the folder of the script's own"
    assert str(home) not in said
    assert list(temporary.iterdir()) == []


def test_the_script_for_macs_refuses_what_it_does_not_know(tmp_path):
    done = subprocess.run(
        ["dash", MAC_CHECK, "--nosuch"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--no-boot" in done.stderr
    assert list(tmp_path.iterdir()) == []


#: QEMU's own descriptors (pc-bios/descriptors), as Homebrew installs them.
DESCRIPTORS = {
    "50-edk2-x86_64-secure": ("edk2-x86_64-secure-code.fd", "edk2-i386-vars.fd", "x86_64",
                              ["pc-q35-*"], ["acpi-s3", "requires-smm", "secure-boot"]),
    "60-edk2-aarch64": ("edk2-aarch64-code.fd", "edk2-arm-vars.fd", "aarch64",
                        ["virt-*"], ["verbose-static"]),
    "60-edk2-x86_64": ("edk2-x86_64-code.fd", "edk2-i386-vars.fd", "x86_64",
                       ["pc-i440fx-*", "pc-q35-*"], ["acpi-s3", "amd-sev", "verbose-dynamic"]),
}  # fmt: skip


def test_firmware_is_found_where_homebrew_has_it(tmp_path, monkeypatch):
    cellar, prefix = tmp_path / "Cellar/qemu/10.0.2_1/share/qemu", tmp_path / "share"
    (cellar / "firmware").mkdir(parents=True)
    prefix.mkdir()
    (prefix / "qemu").symlink_to(cellar)
    for name, (code, variables, cpu, machines, features) in DESCRIPTORS.items():
        files = zip(("executable", "nvram-template"), (code, variables), strict=True)
        mapping = {key: {"filename": str(cellar / file), "format": "raw"} for key, file in files}
        about = {
            "interface-types": ["uefi"],
            "mapping": {"device": "flash", **mapping},
            "targets": [{"architecture": cpu, "machines": machines}],
            "features": features,
        }
        (cellar / "firmware" / f"{name}.json").write_text(json.dumps(about))
        (cellar / code).touch()
        (cellar / variables).touch()
    assert "/opt/homebrew/share/qemu/firmware" in tools._FIRMWARE_FOLDERS
    monkeypatch.setattr(tools, "_FIRMWARE_FOLDERS", (str(prefix / "qemu/firmware"),))
    arm = (cellar / "edk2-aarch64-code.fd", cellar / "edk2-arm-vars.fd")
    intel = (cellar / "edk2-x86_64-code.fd", cellar / "edk2-i386-vars.fd")
    assert (tools.find_uefi("arm64"), tools.find_uefi("amd64")) == (arm, intel)
