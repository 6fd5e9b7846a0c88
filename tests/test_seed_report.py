"""The guest's report script, run for real by the shells that guests have."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from examples import few
from guests import wait_until

from cloudlab.seed import SeedConfig, build_seed, new_nonce, with_nonce
from cloudlab.sizes import check_sizes, parse_console

SCRIPT = Path(str(resources.files("cloudlab.seed") / "report.sh"))
#: A ``sleep`` for the script, which looks as often as in a guest, but sooner.
SHORT_SLEEP = "#!/bin/sh\nexec /bin/sleep 0.2"
FRAME = re.compile(r"@cloudlab ((before|after|sample) (\d+) (\{.*\})) (\d+)@")

#: A cloud-init.log of two boots: of the first one nothing may be told.
LOG = """\
2026-01-01 00:00:01,000 - util.py[DEBUG]: Cloud-init v. 22.4.2 running 'init-local' at Thu.
2026-01-01 00:00:02,000 - util.py[WARNING]: Failed loading yaml blob. From the first boot
2026-01-01 00:00:03,000 - cc_growpart.py[INFO]: '/' resized: from the first boot
2026-01-01 00:00:04,000 - handlers.py[DEBUG]: start: init-network/config-mounts: running
2026-01-01 00:00:05,000 - util.py[WARNING]: Running module mounts (<module 'a'>) failed
2026-01-02 00:00:01,000 - util.py[DEBUG]: Cloud-init v. 22.4.2 running 'init-local' at Fri.
2026-01-02 00:00:02,000 - stages.py[INFO]: Loaded datasource DataSourceNoCloud - [seed=/dev/vdb]
2026-01-02 00:00:03,000 - handlers.py[DEBUG]: start: init-network/config-bootcmd: running
2026-01-02 00:00:03,000 - handlers.py[DEBUG]: start: init-network/config-growpart: running
2026-01-02 00:00:04,000 - util.py[DEBUG]: Reading from /proc/mounts (quiet=False)
2026-01-02 00:00:05,000 - cc_growpart.py[DEBUG]: '/' NOCHANGE: "no" \\ gain\tat all é
2026-01-02 00:00:06,000 - cc_resizefs.py[DEBUG]: Resized root filesystem (type=ext4, val=True)
2026-01-02 00:00:07,000 - helpers.py[DEBUG]: config-runcmd already ran (freq=once-per-instance)
2026-01-02 00:00:08,000 - schema.py[WARNING]: Invalid cloud-config provided: growpart
2026-01-02 00:00:09,000 - main.py[DEBUG]: nothing to do with growth
2026-01-02 00:00:10,000 - handlers.py[DEBUG]: start: modules-config/config-set_passwords: running
"""

STATUS = {
    "v1": {
        "datasource": "DataSourceNoCloud",
        "init": {"errors": ['it\'s "broken"'], "recoverable_errors": {"WARNING": ["and warned"]}},
        "modules-final": {"errors": [], "recoverable_errors": {}},
    }
}


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n" if not str(text).endswith("\n") else str(text))


def add_disk(root: Path, name: str, sectors: int, parts: dict[str, tuple[int, int]]) -> None:
    write(root / f"sys/block/{name}/size", sectors)
    (root / f"sys/block/{name}/queue").mkdir()
    for number, (part, (start, size)) in enumerate(parts.items(), 1):
        folder = root / f"sys/block/{name}/{part}"
        write(folder / "partition", number)
        write(folder / "start", start)
        write(folder / "size", size)
        write(root / f"sys/dev/block/259:{number}/uevent", f"MAJOR=259\nDEVNAME={part}\n")


def escaped(path):
    """Return a path as the kernel writes it in mountinfo."""
    return str(path).replace(" ", "\\040")


@pytest.fixture
def guest(tmp_path) -> Iterator[Path]:
    """What sysfs, procfs and cloud-init's files look like in a guest."""
    root = tmp_path / "guest"
    add_disk(
        root, "nvme0n1", 41943040, {"nvme0n1p1": (227328, 4096000), "nvme0n1p14": (2048, 8192)}
    )
    for name, sectors in {"loop0": 9, "ram0": 9, "zram0": 9, "sr0": 0, "vdb": 160}.items():
        add_disk(root, name, sectors, {})
    dm = root / "sys/block/dm-0"
    write(dm / "size", 4000000)
    write(dm / "dm/name", "vg-root")
    write(dm / "dm/uuid", "LVM-abc")
    (dm / "slaves/nvme0n1p1").mkdir(parents=True)
    write(root / "sys/block/md0/size", 2000)
    write(root / "sys/block/md0/md/level", "raid1")
    (root / "sys/block/md0/slaves/vdb").mkdir(parents=True)
    write(root / "proc/uptime", "23.10 5.00")
    write(root / "proc/sys/kernel/osrelease", "6.1.0-cloud")
    spaced = tmp_path / "a disk"
    spaced.mkdir()
    write(
        root / "proc/self/mountinfo",
        "20 1 0:20 / /proc rw shared:1 - proc proc rw\n"
        "21 1 259:1 / / rw,relatime shared:2 - ext4 /dev/root rw\n"
        "22 1 259:1 /var /var rw shared:3 - ext4 /dev/root rw\n"
        "23 1 7:0 / /snap/core ro shared:4 - squashfs /dev/loop0 ro\n"
        f"24 1 0:40 /data {escaped(spaced)} rw - btrfs /dev/vdc rw\n",
    )
    write(
        root / "proc/kmsg.txt", "[   31.5] EXT4-fs (vda1): resizing filesystem from 1 to 2 blocks"
    )
    write(root / "etc/fstab", "# x-systemd.growfs\nUUID=1 / ext4 rw,x-systemd.growfs 0 1")
    write(root / "run/cloud-init/.instance-id", "iid-1")
    write(root / "run/cloud-init/status.json", json.dumps(STATUS, indent=1))
    write(root / "var/lib/cloud/instance/datasource", "DataSourceNoCloud: [seed=/dev/vdb]")
    write(root / "var/log/cloud-init.log", LOG)
    write(tmp_path / "short/sleep", SHORT_SLEEP)
    (tmp_path / "short/sleep").chmod(0o755)
    yield root
    end_watchers(root)


SHELLS = ["dash", "bash --posix", "busybox ash"]


@pytest.fixture(params=few(SHELLS, 3))
def shell(request, tmp_path) -> list[str]:
    """A shell; `make test-fast` takes only Debian's, but for a few tests."""
    return shell_words(request.param, tmp_path)


@pytest.fixture(params=SHELLS)
def each_shell(request, tmp_path) -> list[str]:
    """Each shell, also in `make test-fast`."""
    return shell_words(request.param, tmp_path)


def shell_words(name: str, tmp_path: Path) -> list[str]:
    """Start a shell; BusyBox's has its own awk, stat, df ... and no lsblk, as in Alpine."""
    words = name.split()
    if words[0] != "busybox":
        return words
    folder = tmp_path / "bin"
    folder.mkdir()
    applets = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True)
    for applet in {"busybox", *applets.stdout.split()} - {"lsblk"}:
        (folder / applet).symlink_to(shutil.which("busybox"))
    if not (folder / "cksum").exists():
        (folder / "cksum").symlink_to(shutil.which("cksum"))
    return ["env", f"PATH={folder}", *words]


def with_programs(shell: list[str], folder: Path) -> list[str]:
    """Start a shell that finds the programs of a folder first."""
    for program in folder.iterdir():
        program.chmod(0o755)
    path = shell[1].removeprefix("PATH=") if shell[0] == "env" else os.environ["PATH"]
    return ["env", f"PATH={folder}:{path}", *(shell[2:] if shell[0] == "env" else shell)]


def end_watchers(root: Path) -> None:
    """Let what the script left in the background see that all is over, and wait for it."""
    (root / "run/cloudlab/done").mkdir(parents=True, exist_ok=True)
    write(root / "run/cloud-init/result.json", "{}")
    mark = f"CLOUDLAB_ROOT={root}\0".encode()
    wait_for(lambda: not any(mark in of for of in environments()), "the watcher's end")


def environments() -> Iterator[bytes]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (process / "environ").read_bytes()


def environment(guest: Path) -> dict[str, str]:
    path = f"{guest.parent / 'short'}:{os.environ['PATH']}"
    return os.environ | {
        "CLOUDLAB_ROOT": str(guest), "CLOUDLAB_CONSOLE": str(console(guest)), "PATH": path
    }  # fmt: skip


def console(guest: Path) -> Path:
    return guest / "console"


def report(shell: list[str], guest: Path, *words: str) -> list[dict]:
    done = subprocess.run(
        [*shell, SCRIPT, *words], env=environment(guest), capture_output=True, text=True, check=True
    )
    assert done.stdout == done.stderr == ""
    return frames(guest)


def frames(guest: Path) -> list[dict]:
    return [json.loads(match[4]) for match in FRAME.finditer(console(guest).read_text("utf-8"))]


def test_every_frame_carries_the_runs_nonce(each_shell, guest, tmp_path):
    nonces = {new_nonce() for _ in range(3)}
    assert len(nonces) == 3
    nonce = min(nonces)
    script = tmp_path / "report.sh"
    script.write_text(with_nonce(build_seed(SeedConfig()), nonce).report_sh)
    for words in (["before", "sample"], ["after"]):
        argv = [*each_shell, str(script), *words]
        # As if another run's were in the environment.
        subprocess.run(argv, env=environment(guest) | {"nonce": "9" * 16}, check=True)
    parsed = parse_console(console(guest).read_bytes(), nonce)
    assert {block.stage for block in parsed.blocks} >= {"before", "sample", "after"}
    assert all(block.complete for block in parsed.blocks)
    marks = re.findall(rb"^@cloudlab .*@", console(guest).read_bytes(), re.MULTILINE)
    assert all(mark.endswith(f" {nonce}@".encode()) for mark in marks)


def of_kind(found: list[dict], kind: str) -> list[dict]:
    return [frame for frame in found if frame["kind"] == kind]


def facts(found: list[dict]) -> dict[str, str]:
    return {frame["name"]: frame["value"] for frame in of_kind(found, "fact")}


def test_block_devices_are_told_with_parents_in_bytes(shell, guest):
    found = of_kind(report(shell, guest, "after"), "block")
    assert [tuple(frame.values())[1:] for frame in found] == [
        ("vg-root", "lvm", "nvme0n1p1", 4000000 * 512, 0),
        ("md0", "raid1", "vdb", 2000 * 512, 0),
        ("nvme0n1", "disk", "", 20 * 2**30, 0),
        ("nvme0n1p1", "part", "nvme0n1", 4096000 * 512, 227328 * 512),
        ("nvme0n1p14", "part", "nvme0n1", 8192 * 512, 2048 * 512),
        ("vdb", "disk", "", 160 * 512, 0),
    ]


def test_filesystems_are_counted_as_df_does(each_shell, guest, tmp_path):
    before = os.statvfs("/")
    found = of_kind(report(each_shell, guest, "after"), "filesystem")
    after = os.statvfs("/")
    names = [(frame["device"], frame["mountpoint"], frame["fstype"]) for frame in found]
    assert names == [
        ("nvme0n1p1", "/", "ext4"),  # /dev/root, by its number
        ("vdc", str(tmp_path / "a disk"), "btrfs"),  # btrfs has a number of its own
    ]
    unit = after.f_frsize
    assert found[0]["size_bytes"] == after.f_blocks * unit
    # Others use this disk meanwhile; what the three numbers mean must still hold.
    free = found[0]["size_bytes"] - found[0]["used_bytes"]
    for value, *ends in (
        (free, before.f_bfree * unit, after.f_bfree * unit),
        (found[0]["available_bytes"], before.f_bavail * unit, after.f_bavail * unit),
    ):
        assert min(ends) - 2**31 < value < max(ends) + 2**31


def test_a_mount_that_cannot_be_opened_shifts_no_sizes(shell, guest, tmp_path):
    mounts = guest / "proc/self/mountinfo"
    lost = f"25 1 0:41 /gone {escaped(tmp_path)}/gone rw - btrfs /dev/vdd rw\n"
    last = f"26 1 0:42 / {escaped(guest)}/proc rw - ext4 /dev/vde rw\n"
    first = "19 1 0:19 / /dev/shm rw - ext4 /dev/vdf rw\n"
    mounts.write_text(first + lost + mounts.read_text() + last + lost.replace("vdd", "vdg"))
    found = of_kind(report(shell, guest, "after"), "filesystem")
    assert [frame["device"] for frame in found] == ["vdf", "nvme0n1p1", "vdc", "vde"]
    for frame in found:
        status = os.statvfs(frame["mountpoint"])
        assert frame["size_bytes"] == status.f_blocks * status.f_frsize


def test_the_kernels_own_name_of_the_root_volume_is_told(shell, guest):
    told = facts(report(shell, guest, "before"))
    assert (told["root_device"], told["root_kernel_name"]) == ("nvme0n1p1", "nvme0n1p1")
    write(guest / "sys/dev/block/253:3/uevent", "MAJOR=253\nDEVNAME=dm-3\n")
    write(guest / "sys/dev/block/253:3/dm/name", "lab-root")
    mounts = guest / "proc/self/mountinfo"
    write(mounts, "21 1 253:3 / / rw shared:2 - ext4 /dev/mapper/lab-root rw")
    told = facts(report(shell, guest, "after"))
    assert (told["root_device"], told["root_kernel_name"]) == ("lab-root", "dm-3")


def test_facts_say_who_may_have_grown_it(shell, guest):
    told = facts(report(shell, guest, "after"))
    assert told["kernel"] == "6.1.0-cloud"
    assert told["root_device"] == "nvme0n1p1"
    assert told["root_filesystem"] == "ext4"
    assert told["systemd_growfs"] == "yes"
    assert told["growroot_in_initramfs"] == told["growroot_disabled"] == "no"
    assert told["instance_id"] == "iid-1"
    assert told["datasource"] == "DataSourceNoCloud: [seed=/dev/vdb]"
    assert told["cloud_init"] == "22.4.2"
    assert told["user_data_valid"] == "warned"
    assert told["cloud_init_errors"] == 'it\'s "broken"; and warned'
    assert told["reported_by"] == "runcmd"
    assert told["modules"] == "init-network: bootcmd growpart; modules-config: set_passwords"


def test_a_module_that_failed_in_a_stage_that_still_runs_is_told(shell, guest):
    write(guest / "run/cloud-init/status.json", json.dumps({"v1": {}}, indent=1))
    assert facts(report(shell, guest, "after"))["cloud_init_errors"] == ""
    shutil.rmtree(guest / "run/cloudlab")
    console(guest).unlink()
    with (guest / "var/log/cloud-init.log").open("a") as log:
        for level in ("WARNING", "DEBUG"):
            log.write(f"date - util.py[{level}]: Running module bootcmd (<module 'b'>) failed\n")
    told = facts(report(shell, guest, "after"))
    assert told["cloud_init_errors"] == "the module bootcmd failed"


def test_growroot_and_the_lack_of_growfs_are_seen(shell, guest):
    write(guest / "usr/share/initramfs-tools/scripts/local-bottom/growroot", "#!/bin/sh")
    write(guest / "etc/growroot-disabled", "")
    write(guest / "etc/fstab", "UUID=1 / ext4 rw 0 1")
    told = facts(report(shell, guest, "after"))
    assert told["growroot_in_initramfs"] == told["growroot_disabled"] == "yes"
    assert told["systemd_growfs"] == "no"


def test_what_systemd_repart_did_is_told_even_in_a_long_growth(shell, guest, tmp_path):
    """Of a disk of terabytes the kernel says every ten seconds how far it has grown."""
    kernel = [f"[   {n}.8] EXT4-fs (vda1): resized to {n}12516608 blocks" for n in range(20, 60)]
    write(guest / "proc/kmsg.txt", "\n".join(kernel))
    write(guest / "etc/fstab", "UUID=1 / ext4 rw 0 1")
    told = [
        "[   12.9] debian systemd-repart[189]: Applying changes to /dev/vda.",
        "[   12.9] debian systemd-repart[189]: Growing existing partition 0.",
    ]
    table = "[   12.8] debian systemd-repart[189]: linux-generic 257aac74 0 50-root.conf 19.9G"
    lines = "\n".join([table, *told])
    write(tmp_path / "fakes/journalctl", f"#!/bin/sh\ncat << END\n{lines}\nEND")
    words = with_programs(shell, tmp_path / "fakes")
    logs = [one["text"] for one in of_kind(report(words, guest, "after"), "log")]
    assert not any(text.startswith("[") for text in logs), "nobody asked systemd to grow anything"
    shutil.rmtree(guest / "run/cloudlab")
    console(guest).unlink()
    write(guest / "etc/repart.d/50-root.conf", "[Partition]")
    logs = [one["text"] for one in of_kind(report(words, guest, "after"), "log")]
    assert [text for text in logs if text.startswith("[")] == told


def test_log_lines_of_this_boot_that_matter(shell, guest):
    found = report(shell, guest, "after")
    lines = [frame["text"].removeprefix("2026-01-02 00:00:0") for frame in of_kind(found, "log")]
    assert lines == [
        "[   31.5] EXT4-fs (vda1): resizing filesystem from 1 to 2 blocks",
        "8,000 - schema.py[WARNING]: Invalid cloud-config provided: growpart",
        "2,000 - stages.py[INFO]: Loaded datasource DataSourceNoCloud - [seed=/dev/vdb]",
        "5,000 - cc_growpart.py[DEBUG]: '/' NOCHANGE: \"no\" \\ gain at all ??",
        "6,000 - cc_resizefs.py[DEBUG]: Resized root filesystem (type=ext4, val=True)",
        "7,000 - helpers.py[DEBUG]: config-runcmd already ran (freq=once-per-instance)",
    ]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(
            "util.py[WARNING]: Failed loading yaml blob. Invalid format at line 3", id="yaml"
        ),
        pytest.param(
            "__init__.py[WARNING]: Unhandled non-multipart (text/x-not-multipart) userdata: 'b",
            id="header",
        ),
    ],
)
def test_user_data_that_was_ignored_is_told(shell, guest, line):
    with (guest / "var/log/cloud-init.log").open("a") as log:
        log.write(f"2026-01-02 00:00:10,000 - {line}\n")
    assert facts(report(shell, guest, "after"))["user_data_valid"] == "no"


def test_long_logs_are_capped(shell, guest):
    backslashes = "\\" * 3000
    with (guest / "var/log/cloud-init.log").open("a") as log:
        for number in range(500):
            log.write(f"date - cc_growpart.py[DEBUG]: {number} {'x' * 3000}\n")
            log.write(f"date - util.py[WARNING]: {number} {backslashes}\n")
    report(shell, guest, "after")
    lines = console(guest).read_text("utf-8").splitlines()
    assert max(map(len, lines)) < 2000
    assert len(of_kind(frames(guest), "log")) <= 44


def test_cksum_and_the_parser_agree_with_every_frame(shell, guest):
    report(shell, guest, "after")
    text = console(guest).read_text("utf-8")
    matches = list(FRAME.finditer(text))
    assert [int(match[3]) for match in matches] == list(range(len(matches)))
    for match in matches:
        done = subprocess.run(["cksum"], input=match[1].encode(), check=True, capture_output=True)
        assert done.stdout.split()[0].decode() == match[5]
    assert frames(guest)[0] == {"kind": "begin", "uptime_s": 23.1}
    assert frames(guest)[-1] == {"kind": "end", "frames": len(matches)}


def test_people_s_tables_come_with_the_frames(each_shell, guest):
    report(each_shell, guest, "after")
    parsed = parse_console(console(guest).read_bytes())
    (exact,) = [found for found in parsed.reports if found.exact]
    assert exact.block is not None
    assert exact.block.complete
    lines = console(guest).read_text("utf-8").splitlines()
    lsblk, df = lines.index("$ lsblk"), lines.index("$ df -h")
    assert lsblk < df
    assert "Filesystem" in lines[df + 1]
    if "busybox" in each_shell:
        assert lines[lsblk + 1] == "lsblk is not installed in this image"
    else:
        assert lines[lsblk + 1].startswith("NAME")


def test_this_machine_s_own_sizes_agree_with_lsblk_and_df(tmp_path):
    # Without CLOUDLAB_ROOT, as in a guest; the folder under /run is the script's own.
    work = Path("/run/cloudlab")
    if not os.access("/run", os.W_OK) or work.exists():
        pytest.skip("needs root and a machine without a report of its own")
    target = tmp_path / "console"
    try:
        subprocess.run(
            ["sh", SCRIPT, "after"], check=True, env={**os.environ, "CLOUDLAB_CONSOLE": str(target)}
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    parsed = parse_console(target.read_bytes())
    assert [found.exact for found in parsed.reports].count(True) == 1
    assert check_sizes(parsed) == []


def test_second_after_says_nothing(shell, guest):
    first = report(shell, guest, "after")
    assert report(shell, guest, "after") == first


def wait_for(condition, what: str) -> None:
    assert wait_until(condition), f"{what} did not come"


def test_watcher_reports_when_runcmd_does_not(shell, guest):
    before = report(shell, guest, "before")
    assert before[-1]["kind"] == "end"
    assert "reported_by" not in facts(before)
    write(guest / "run/cloud-init/result.json", json.dumps({"v1": {"errors": ["late"]}}, indent=1))
    wait_for(lambda: [f["kind"] for f in frames(guest)].count("end") == 2, "the watcher's report")
    told = facts(frames(guest)[len(before) :])
    assert told["reported_by"] == "watcher"
    assert told["cloud_init_errors"] == "late"


@pytest.mark.parametrize("state", ["active", "failed"])
def test_watcher_reports_when_the_last_stage_ended_without_a_result(guest, tmp_path, state):
    """A full disk has no room for result.json."""
    systemctl = tmp_path / "short/systemctl"
    write(systemctl, f'#!/bin/sh\ncat "{tmp_path}/state"')
    systemctl.chmod(0o755)
    (tmp_path / "state").write_text("activating\n")
    before = report(["dash"], guest, "before")
    time.sleep(1)
    assert len(frames(guest)) == len(before)
    (tmp_path / "state").write_text(f"{state}\n")
    wait_for(lambda: [f["kind"] for f in frames(guest)].count("end") == 2, "the watcher's report")
    assert facts(frames(guest)[len(before) :])["reported_by"] == "watcher"


def test_watcher_stays_silent_when_runcmd_reported(shell, guest):
    report(shell, guest, "before")
    both = report(shell, guest, "after")
    write(guest / "run/cloud-init/result.json", "{}")
    subprocess.run([*shell, SCRIPT, "watch"], env=environment(guest), check=True)
    assert frames(guest) == both


def test_watcher_reports_at_shutdown(shell, guest):
    # On a busy host the watcher may not have set its trap within the first times.
    for pause_s in (0.3, 3, 30):
        with subprocess.Popen([*shell, SCRIPT, "watch"], env=environment(guest)) as watcher:
            time.sleep(pause_s)
            watcher.send_signal(signal.SIGTERM)
        if watcher.returncode == 0:
            break
    assert watcher.returncode == 0
    assert facts(frames(guest))["reported_by"] == "watcher"


@pytest.mark.parametrize(
    ("mounted", "commands"),
    [
        pytest.param(
            "259:1 / / rw - ext4 /dev/root rw",
            ["growpart /dev/nvme0n1 1", "resize2fs /dev/nvme0n1p1"],
            id="ext4",
        ),
        pytest.param(
            "0:40 / / rw - btrfs /dev/nvme0n1p1 rw",
            ["growpart /dev/nvme0n1 1", "btrfs filesystem resize max /"],
            id="btrfs",
        ),
        # growpart runs pvresize; the volume itself is up to its owner.
        pytest.param(
            "253:0 / / rw - ext4 /dev/mapper/vg-root rw", ["growpart /dev/nvme0n1 1"], id="LVM"
        ),
        pytest.param("254:0 / / rw - xfs /dev/vdb rw", ["xfs_growfs /"], id="whole disk"),
    ],
)
def test_an_enlarged_disk_is_grown_by_hand(shell, guest, tmp_path, mounted, commands):
    block, fakes = guest / "sys/class/block", tmp_path / "fakes"
    block.mkdir(parents=True)
    fakes.mkdir()
    for name in ("nvme0n1/nvme0n1p1", "dm-0", "vdb"):
        (block / Path(name).name).symlink_to(guest / "sys/block" / name)
    below = guest / "sys/block/dm-0/slaves/nvme0n1p1"
    below.rmdir()
    below.symlink_to(guest / "sys/block/nvme0n1/nvme0n1p1")
    for number, name in {"253:0": "dm-0", "254:0": "vdb"}.items():
        write(guest / f"sys/dev/block/{number}/uevent", f"DEVNAME={name}")
    write(guest / "proc/self/mountinfo", f"21 1 {mounted}")
    for name in ("growpart", "resize2fs", "btrfs", "xfs_growfs"):
        write(fakes / name, "#!/bin/sh")
    write(fakes / "sleep", SHORT_SLEEP)
    words = with_programs(shell, fakes)
    write(console(guest), "")
    with subprocess.Popen([*words, SCRIPT, "enlarge"], env=environment(guest)) as asking:
        wait_for(lambda: "cloudlab: enlarge the disk" in console(guest).read_text(), "the request")
        for disk in ("nvme0n1", "vdb"):
            write(guest / f"sys/block/{disk}/size", 83886080)
    assert asking.returncode == 0
    assert re.findall(r"^# (.*)", console(guest).read_text(), re.MULTILINE) == commands


def test_sampler_reports_every_change_and_ends_with_after(shell, guest):
    report(shell, guest, "before", "sample")
    part = guest / "sys/block/nvme0n1/nvme0n1p1/size"

    def samples() -> list[str]:
        return re.findall(r'@cloudlab sample \d+ .*"nvme0n1p1".*?"size_bytes":(\d+),"start', text())

    def text() -> str:
        return console(guest).read_text("utf-8")

    wait_for(lambda: f"{4096000 * 512}" in samples(), "the first sample")
    write(part, 41943040 - 227328)
    wait_for(lambda: f"{(41943040 - 227328) * 512}" in samples(), "the second sample")
    report(shell, guest, "after")
    assert not (guest / "run/cloudlab/sampling").exists()
    parsed = parse_console(text().encode())
    assert len(parsed.samples) >= 2
    assert all(found.block is not None and found.block.complete for found in parsed.samples)
    # Nothing of the sampler comes after the report has begun.
    assert "@cloudlab sample" not in text()[text().index("@cloudlab after") :]


def test_samples_say_until_when_the_sizes_before_them_held(shell, guest):
    write(guest / "proc/uptime", "30.00 5.00")
    report(shell, guest, "before", "sample")

    def begins() -> list[dict]:
        found = [json.loads(match[4]) for match in FRAME.finditer(console(guest).read_text("utf-8"))
                 if match[2] == "sample"]  # fmt: skip
        return of_kind(found, "begin")

    wait_for(lambda: len(begins()) == 1, "the first sample")
    assert begins() == [{"kind": "begin", "uptime_s": 30.0}]
    # On a busy host the sampler may not have looked again within the first times.
    for number, pause_s in enumerate((1, 10, 60), 2):
        now_s = 29.5 + number
        write(guest / "proc/uptime", f"{now_s:.2f} 5.00")
        time.sleep(pause_s)
        write(guest / "sys/block/nvme0n1/nvme0n1p1/size", 41943040 - 227328 * number)
        wait_for(lambda number=number: len(begins()) == number, "the next sample")
        if begins()[-1]["unchanged_until_s"] == now_s:
            break
    assert begins()[-1] == {"kind": "begin", "uptime_s": now_s, "unchanged_until_s": now_s}


def test_the_sampler_ends_by_itself(shell, guest):
    report(shell, guest, "before", "sample")
    mark = guest / "run/cloudlab/sampling"
    wait_for(lambda: "@cloudlab sample" in console(guest).read_text("utf-8"), "the first sample")
    assert mark.exists()
    # Nothing changes but the time; the watcher stays.
    write(guest / "proc/uptime", "1000.00 5.00")
    wait_for(lambda: not mark.exists(), "the sampler's end")


def test_wrong_use_is_told(guest):
    done = subprocess.run(["sh", SCRIPT], env=environment(guest), capture_output=True, check=False)
    assert done.returncode == 2
    assert b"usage" in done.stderr


def test_shellcheck_finds_nothing():
    done = subprocess.run(
        ["shellcheck", "-s", "sh", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
