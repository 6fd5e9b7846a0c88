"""The exercises' checks: every right answer in any reasonable form, and no wrong one."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
import yaml

from cloudlab.course import check, checks
from cloudlab.course.cases import CASES
from cloudlab.course.checks import Outcome, exercises, passed, progress
from cloudlab.course.checks.nb01 import free_behind
from cloudlab.course.checks.nb03 import BROKEN_USER_DATA
from cloudlab.course.checks.nb06 import PATIENTS, evidence
from cloudlab.course.checks.nb07 import BROKEN_STORAGE, NODE_STORAGE
from cloudlab.errors import UsageError
from cloudlab.explanation import Reason
from cloudlab.run import value
from cloudlab.run.value import compare, compare_options, recorded, recordings
from cloudlab.seed import GrowpartMode, ResizeRootfs, SeedConfig

GIB = 2**30
KEPT = "#cloud-config\nresize_rootfs: false\n"
OFF = "#cloud-config\ngrowpart: {mode: 'off'}\n"
MARK = "/etc/growroot-disabled"
HEALED = "#cloud-config\ngrowpart: {ignore_growroot_disabled: true"
MADE = "--new=2:8GiB:+4GiB --new=3:12GiB:0"
MOVED = NODE_STORAGE.replace(MADE, "--new=3:16GiB:0 --new=2:12GiB:+4GiB")
GUARD = "[ -e /dev/vda2 ] || {"
DEFAULT = recorded("default")
TOOK = {str(one.stage): one.end_s - one.start_s for one in DEFAULT.record.stages}
LONGEST = max(TOOK, key=TOOK.get)
IMAGE_BYTES, OVERLAY_BYTES = DEFAULT.image.file_size_bytes, DEFAULT.record.overlay.end_bytes
MACHINES = (100 * GIB - IMAGE_BYTES) // OVERLAY_BYTES
ONE_IMAGE_EACH = 100 * GIB // (IMAGE_BYTES + OVERLAY_BYTES)
RESIZED = DEFAULT.console.find("resizing filesystem")[0].number
START = int(DEFAULT.partitions("before")["start_bytes"].iloc[-1])
ROOT_END = START + int(DEFAULT.partitions("before")["size_bytes"].iloc[-1])
THIRTY = 30 * GIB - START - 33 * 512
BEFORE = DEFAULT.partitions("before")
LOGS = recorded("growpart-off").logs
LOGGED = LOGS.find("cc_resizefs.*Resized root")[0].number
ORDER = ["bootcmd", "growpart", "resizefs", "runcmd", "scripts_user"]
SICK = {
    "B": "user-data ignored",
    "C": "growpart missing",
    "D": "partition behind",
    "E": "growroot-disabled",
    "F": "filesystem full",
}
RUNS = recordings()
LARGE = [run.name for run in RUNS if (run.root_sizes("after")[1] or 0) > 19 * GIB]
COMPARED = compare(*RUNS)["filesystem after"]
OPTIONS = compare_options(DEFAULT, recorded("second-boot-same-id"))
OTHERS = ["growfs-second-boot", "growroot", "lvm-extended", "repart", "while-running"]
NEXT = {"A": "growpart", "B": "resize2fs", "C": "lvextend", "D": "nothing"}


@pytest.fixture(scope="module", autouse=True)
def read_once():
    """Have the checks read each recording once, of which some go through all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(value, "_shipped", cache(value._shipped))
        yield


def by_loop(table, number, disk_bytes):
    rows = list(table.itertuples())
    at = next(at for at, row in enumerate(rows) if row.number == number)
    end = rows[at].start_bytes + rows[at].size_bytes
    return float((rows[at + 1].start_bytes if at + 1 < len(rows) else disk_bytes) - end)


def ignores_its_argument(table, number, disk_bytes):
    table = DEFAULT.partitions("before")
    return free_behind(table, number, disk_bytes)


def ignores_the_number(table, number, disk_bytes):
    return free_behind(table, 1, disk_bytes)


def ignores_the_disk(table, number, disk_bytes):
    return free_behind(table, number, 20 * GIB)


def data_bytes(table):
    return table.loc[table.kind == "data", "length_bytes"].sum()


def partition_bytes(disk_bytes):
    """Return what 09-1 asks for."""
    gain = disk_bytes - 33 * 512 - 116_391_936 - 2_097_152_000
    return 2_097_152_000 + (gain if gain >= 2**20 else 0)


def volumes(table):
    return table[table.mountpoint.str.startswith("/mnt/disks/")].set_index("mountpoint").size_bytes


def carve(line, guard=GUARD, text=NODE_STORAGE):
    """Return the storage text with other partitions, or another guard."""
    return text.replace(MADE, line).replace(GUARD, guard)


def told(command):
    """Return the storage text with another command that tells the kernel of the partitions."""
    assert "partx --add --nr 2:3 /dev/vda" in MOVED
    return MOVED.replace("partx --add --nr 2:3 /dev/vda", command)


RIGHT = {
    "00-1": ["tcg", "TCG ", "under TCG", DEFAULT.record.accelerator, "'tcg'", pd.Series(["tcg"]),
             pd.Series(["tcg"], name="kvm"), [DEFAULT.record.accelerator]],
    "00-2": [LONGEST, LONGEST.upper() + " ", LONGEST.removeprefix("cloud-init "),
             np.str_(LONGEST), pd.Series([LONGEST])],
    "00-3": ["qemu-img", "QEMU-img ", "qemu_img"],
    "01-1": [1, "1", "vda1", "/dev/vda1", np.int64(1), np.array([1]), "partition 1", 1.0,
             BEFORE.sort_values("start_bytes").tail(1), BEFORE.sort_values("start_bytes").iloc[-1],
             "#1", "partition number 1"],
    "01-2": [free_behind, by_loop, lambda *args: np.int64(free_behind(*args)),
             lambda *args: str(free_behind(*args))],
    "01-3": ["not-last", " Not_Last", "'not-last'", recorded("not-last")],
    "02-1": [(65536, 131072), [65536.0, 131072.0], np.array([65536, 131072]), ("64K", "128 KiB"),
             "65,536, 131,072", ("65536 bytes", "131072 B"), {"first": 65536, "second": 131072},
             "65536,131072", "64K,128K", "64 KiB and 128 KiB", "65_536, 131_072", "65536 131072",
             "64 KiB\n128 KiB", "65536/131072"],
    "02-2": [MACHINES, f"{MACHINES:,}", float(MACHINES), np.int64(MACHINES), f"{MACHINES} "],
    "02-3": [data_bytes, lambda table: int(data_bytes(table)),
             lambda table: table.groupby("kind").length_bytes.sum()["data"]],
    "03-1": [KEPT, f"{KEPT}growpart: {{mode: auto, devices: [/]}}\n", KEPT.upper().replace(
             "RESIZE_ROOTFS: FALSE", "resize_rootfs: false"), KEPT + "hostname: x\nntp: {}\n",
             {"resize_rootfs": False}, f"{KEPT}password: secret\n",
             "#cloud-config\ncloud_init_modules: [bootcmd, growpart]\n",
             f"{KEPT}bootcmd: [echo hi]\nruncmd: [lsblk, df -h, free | tee /dev/console]\n"],
    "03-2": ["instance-id: iid-2\n", "{instance-id: i-2, local-hostname: copy.example}",
             "instance-id: 42\n", {"instance-id": "x"}],
    "03-3": [f"{OFF}resize_rootfs: false\nruncmd: [lsblk]\n", f"{OFF}runcmd: [[lsblk, -f]]\n",
             f"{OFF}runcmd:\n  - [sh, -c, 'lsblk; df -h']\n",
             *(f"{OFF}runcmd: ['{one} lsblk']\n" for one in (
                 "env LC_ALL=C", "time", "exec", "nohup", "timeout 5", "eval", "sudo -n"))],
    "04-1": [RESIZED, str(RESIZED), f"line {RESIZED}", DEFAULT.console.find("resizing f")[0],
             DEFAULT.console.find("resizing f"), [DEFAULT.console.find("resizing f")[0]],
             f"Line: {RESIZED}"],
    "04-2": [ORDER, tuple(ORDER), "bootcmd, growpart, resizefs, runcmd, scripts_user",
             " -> ".join(ORDER), ["cc_bootcmd", *ORDER[1:4], "scripts-user"], pd.Series(ORDER)],
    "04-3": ["C", "c", " C ", "C: printed by bootcmd", "c: it has grown", ["C"], "label C", "(C)"],
    "05-1": [{"resize_rootfs": False}, {"resize_rootfs": "false", "growpart": "auto"},
             SeedConfig(resize_rootfs=False), SeedConfig(resize_rootfs=ResizeRootfs.FALSE), KEPT,
             SeedConfig(growpart=GrowpartMode.AUTO, resize_rootfs=ResizeRootfs.FALSE),
             SeedConfig(resize_rootfs=ResizeRootfs.FALSE, hostname="x")],
    "05-2": [THIRTY, f"{THIRTY:,}", float(THIRTY), np.int64(THIRTY), f"{THIRTY} B",
             THIRTY // 2**20 * 2**20, f"{THIRTY:_}", f"{THIRTY:,}".replace(",", " ")],
    "05-3": [LOGGED, str(LOGGED), f"line {LOGGED}", [LOGS.find("cc_resizefs.*Resized root")[0]],
             LOGS.find("cc_resizefs.*Resized root")],
    "06-1": ["disk not larger", "Disk not larger.", "gain too small", Reason.DISK_NOT_LARGER],
    "06-2": [SICK, {name.lower(): f" {one} " for name, one in SICK.items()}, [*SICK.values()],
             pd.Series(SICK), {**SICK, "C": "growpart_missing"}, list(SICK.items()),
             {f"Patient {name}:": one for name, one in SICK.items()}],
    "06-3": [f"{HEALED}}}\n", f"{HEALED}, devices: /}}\n",
             "#cloud-config\ngrowpart: {ignore_growroot_disabled: 'yes'}\n",
             "#cloud-config\ngrowpart: {ignore_growroot_disabled: 1, mode: auto}\n",
             f"{HEALED}, devices: [/dev/disk/by-label/cloudimg-rootfs]}}\n",
             "#cloud-config\nbootcmd: [rm -f /etc/growroot-disabled]\n",
             "#cloud-config\nbootcmd:\n  - [mv, /etc/growroot-disabled, /root]\n",
             f"#cloud-config\nbootcmd: ['[ ! -e {MARK} ] || unlink {MARK}']\n",
             "#cloud-config\nbootcmd: [rm /etc/growroot*]\n"],
    "07-1": [
        MOVED,
        MOVED.replace("[/dev/vda2,", "[LABEL=vol-a,").replace("[ -e", "[ -b"),
        MOVED.replace("[/dev/vda3,", "[/dev/disk/by-label/vol-b,").replace("ext4, 'd", "auto, 'd"),
        MOVED.replace(", ext4, 'defaults,nofail'", ""),
        MOVED.replace("/dev/vda2, partition: auto", "/dev/vda, partition: 2"),
        carve("-n 3:16G:0 -n 2:12G:+4G"),
        carve("--new=2:12GB:16GB --new=3:33556480:41943006"),
        carve("-n=2:25165824:33554431 -n 3:33554432:41943006"),
        carve("-n 0:16G:0 -c 0:vol-b -n 0:12G:+4096M -t 0:8300").replace(
            "device: /dev/vda2", "device: X").replace("device: /dev/vda3", "device: /dev/vda2"
            ).replace("device: X", "device: /dev/vda3").replace("[/dev/vda2", "[LABEL=vol-a"
            ).replace("[/dev/vda3", "[LABEL=vol-b").replace("vda2, partition: auto, filesystem: "
            "ext4, label: vol-a", "vda3, partition: auto, filesystem: ext4, label: vol-a"),
        carve("", "[ ! -e /dev/vda2 ] && {", MOVED).replace("    }\n", "    } || true\n"),
        carve("", "if ! lsblk -n /dev/vda | grep -q vda2; then", MOVED).replace("    }", "    fi"),
        carve("", "test -b /dev/vda2 && exit 0\n    {", MOVED),
        carve("", "[ -d /sys/block/vda/vda2 ] || {", MOVED),
        told("partx --add --nr 2-3 /dev/vda"),
        told("partx -an2:3 /dev/vda"),
        told("partprobe /dev/vda || partx -u /dev/vda"),
        carve("", "[ -d /mnt/disks/vol-a ] || {", MOVED),
        carve("", "ls /dev | grep -q vda2 || {", MOVED),
        carve("", "lsblk -no NAME | grep -q 'vda[2]' || {", MOVED),
        carve("", "grep -qw vda2 /proc/partitions || {", MOVED),
        carve("", "lsblk -ln | grep -q ^vda2 || {", MOVED),
        "\n".join(["#cloud-config", "bootcmd:",
                   "- [cloud-init-per, once, a, sgdisk, -e, -n, '3:16G:', -n, '2:12G:+4G', /dev/vda]",
                   "- [cloud-init-per, once, b, partx, -u, /dev/vda]",
                   MOVED[MOVED.index("fs_setup"):]]),
    ],
    "07-2": [volumes, lambda table: dict(volumes(table)), lambda table: {
             point + "/": int(size) for point, size in volumes(table).items()}],
    "07-3": [NODE_STORAGE, carve("-n 2:8G:+4G -n 3:12G:16G"), carve("-n 3:16G:0 -n 2:8G:+8G"),
             carve("--new=2:6GiB:+2GiB --new=3:8GiB:0")],
    "08-1": [["both-off", "growpart-off"], "default, resize-rootfs-false",
             (recorded("default"), recorded("resize-rootfs-false"))],
    "08-2": [LARGE, set(LARGE), ", ".join(LARGE), pd.Index(LARGE), np.array(LARGE),
             COMPARED.index[COMPARED > 19 * GIB], COMPARED[COMPARED > 19 * GIB],
             compare(*RUNS)[COMPARED > 19 * GIB]],
    "08-3": [["image", "disk_size_bytes", "keep_overlay"], {"image", "disk_size_bytes"},
             "image, disk_size_bytes", OPTIONS.index[OPTIONS.iloc[:, 0] != OPTIONS.iloc[:, 1]],
             np.array(["disk_size_bytes", "image"])],
    "09-1": [partition_bytes, lambda disk: float(partition_bytes(disk)),
             lambda disk: np.int64(partition_bytes(disk)), lambda disk: f"{partition_bytes(disk):,}",
             lambda disk: f"{partition_bytes(disk):_}"],
    "09-2": [OTHERS, set(OTHERS), ", ".join(OTHERS), pd.Index(OTHERS), [*map(recorded, OTHERS)]],
    "09-3": [NEXT, {name.lower(): command.upper() for name, command in NEXT.items()},
             {**NEXT, "A": "sudo growpart /dev/vda 1", "C": "lvresize -r -l +100%FREE /dev/vg0/root"},
             {**NEXT, "D": " Nothing "}, {**NEXT, "D": "none"}, {**NEXT, "D": "nothing."},
             {**NEXT, "A": "`growpart`"}, {**NEXT, "A": "growpart, then resize2fs"},
             {**NEXT, "A": "/usr/bin/growpart"}, {**NEXT, "A": ["growpart"]},
             {f"Machine {name}": one for name, one in NEXT.items()},
             {f"{name}:": one for name, one in NEXT.items()}, pd.Series(NEXT), [*NEXT.values()]],
}  # fmt: skip

WRONG = {
    "00-1": ["kvm", "not tcg but kvm", 3],
    "00-2": [min(TOOK, key=TOOK.get), "no such stage", ["kernel", "systemd"]],
    "00-3": ["image", "no such check", "qemu-utils"],
    "01-1": [14, 15, "root", "vda14", True, [1, 14], "the root partition", "1 or 14"],
    "01-2": [lambda table, number, disk_bytes: 0, lambda: 1, ignores_its_argument,
             ignores_the_number, ignores_the_disk, lambda *args: None, 3],
    "01-3": ["default", "disk-as-large-as-image", "no such image"],
    "02-1": [(1, 3), (65536, 65536), 65536, "64K", (65536, None), ("64K", "128")],
    "02-2": [100 * GIB // OVERLAY_BYTES, 0, 1.5, "many", MACHINES + 1, None or "", True,
             (100 * GIB - IMAGE_BYTES) / OVERLAY_BYTES,
             ONE_IMAGE_EACH, (100 * 10**9 - IMAGE_BYTES) // OVERLAY_BYTES],
    "02-3": [lambda table: 0, lambda table: data_bytes(DEFAULT.extents), lambda table: "many",
             lambda table: table[table.kind.isin(["data", "zero"])].length_bytes.sum()],
    "03-1": [
        "",
        "#cloud-config\ngrowpart: {mode: off}\n",
        "resize_rootfs: false\n",
        f"{KEPT}growpart: {{devices: [/boot]}}\n",
        f"{KEPT}growpart: {{devices: []}}\n",
        f"{KEPT}growpart: {{mode: gpart}}\n",
        f"{KEPT}growpart:\nmode: auto\n",
        f"{KEPT}keep_filesystem: true\n",
        f"{KEPT}growpart: {{mdoe: auto}}\n",
        "#cloud-config\nresize_rootfs: flase\n",
        f"{KEPT}bootcmd: [touch /etc/growroot-disabled]\n",
        f"{KEPT}cloud_init_modules: [bootcmd, resizefs]\n",
        3,
    ],
    "03-2": ["local-hostname: x\n", "instance-id: iid-gallery-default\n", "[1", "just text",
             "instance-id: [a]\n", "instance-id:\n", "instance-id: a\nlocal-hostname: {a: b}\n",
             "instance-id: a\n\tlocal-hostname: b\n", "Instance-ID: x\n",
             "instance-id: a\nlocal-hostname: my host!\n"],
    "03-3": ["#cloud-config\ngrowpart: {mode: off}\nresize_rootfs: false\nruncmd: [lsblk]\n",
             KEPT + "runcmd: [lsblk]\n", OFF, OFF + "runcmd: [echo lsblk]\n",
             OFF + "runcmd: lsblk\n", BROKEN_USER_DATA + "\n",
             OFF + "runcmd: [exec true; lsblk]\n", OFF + "runcmd: [command -v lsblk]\n",
             OFF + "runcmd: [lsblk]\ncloud_config_modules: []\n"],
    "04-1": [1, 10**9, 0, "six hundred", [1], 360],
    "04-2": [[], ["resizefs", "bootcmd", "growpart", "runcmd", "scripts_user"], 5, ORDER[:4]],
    "04-3": ["A", "B", "D", "", "Cloud", 3, "C or B", "C, B", "C/A", "c or b", ["A", "C"]],
    "05-1": [
        "resize_rootfs: false",
        SeedConfig(),
        {"resize_rootfs": False, "growpart": "off"},
        {"resize_rootfs": "nope"},
        {"size": 3},
        SeedConfig(growpart=False),
        SeedConfig(resize_rootfs=ResizeRootfs.NOBLOCK),
        SeedConfig(resize_rootfs=ResizeRootfs.FALSE, growpart_devices=("/boot",)),
        SeedConfig(resize_rootfs=ResizeRootfs.FALSE, bootcmd=("touch /etc/growroot-disabled",)),
        SeedConfig(resize_rootfs=ResizeRootfs.FALSE, growpart=GrowpartMode.GPART),
        5,
    ],
    "05-2": [30 * GIB, 20 * GIB, "30 GiB", "much", THIRTY + 33 * 512, THIRTY + START, [1, 2],
             THIRTY + 1, THIRTY - 1, THIRTY - 512, THIRTY - 33 * 512],
    "05-3": [1, "cc_resizefs", recorded, [1, 2], object()],
    "06-1": ["fills its device", "bad luck", "partition behind", 5, ["a", "b"]],
    "06-2": [{}, [], dict.fromkeys("BCDEF", "growpart-off"), [*SICK.values()][:4], 5, "disk",
             {**SICK, "C": "no"}],
    "06-3": [
        "#cloud-config\ngrowpart: {mode: growpart}\n",
        "growpart: {ignore_growroot_disabled: true}",
        "#cloud-config\ngrowpart: {ignore_growroot_disabled: 'No'}\n",
        f"{HEALED}, devices: [/boot]}}\n",
        f"{HEALED}}}\nresize_rootfs: false\n",
        "#cloud-config\nruncmd: [rm -f /etc/growroot-disabled]\n",
        "#cloud-config\nbootcmd: [echo rm -f /etc/growroot-disabled]\n",
        "#cloud-config\nbootcmd:\n  - '# rm -f /etc/growroot-disabled'\n",
        "#cloud-config\nbootcmd:\n  - 'false && rm -f /etc/growroot-disabled'\n",
        "#cloud-config\nbootcmd: [rm -f /etc/growroot-disabled, touch /etc/growroot-disabled]\n",
        "#cloud-config\nbootcmd: [rm -f /tmp/growroot-disabled]\n",
    ],
    "07-1": [
        "#cloud-config\nbootcmd: [sgdisk --new=2:12GiB:0 /dev/vda]\n",
        "#cloud-config\n",
        # By default sgdisk ends a partition where the largest free block ends: before the wall.
        carve("--new=2:12GiB:+4GiB --new=3:16GiB:0"),
        carve("--new=2:12GiB:+4GiB --new=3:12GiB:0"),
        # END is included, so partition 3 begins in the last sector of partition 2.
        carve("--new=2:12GiB:16GiB --new=3:16GiB:41943006"),
        MOVED.replace("  - {device: /dev/vda3", "  - {device: /dev/vda9"),
        MOVED.replace("  - [/dev/vda3", "  - [/dev/vda9"),
        carve("--new=2:12GiB:+1GiB --new=3:13GiB:+1GiB"),
        carve("--new=2:12GiB:+4GiB"),
        carve("--new=2:12GiB:+4GiB --new=3:40GiB:0"),
        carve("--new=2:12GiB:+2GiB --new=3:14GiB:41943006"),
        carve("--new=2:12GiB:+4GiB --new=3:17GiB:41943006"),
        carve("--new=2:12GiB:+4GiB --new=3:16GiB:19GiB"),
        carve("--new=2:12000:+4GiB --new=3:16GiB:0"),
        carve("", "{", MOVED),
        carve("", "[ -e /dev/vda2 ] && {", MOVED),
        carve("", "[ ! -e /dev/vda2 ] || {", MOVED),
        carve("", "[ -e /dev/vda ] || {", MOVED),
        MOVED.replace("      partx --add --nr 2:3 /dev/vda\n", ""),
        MOVED.replace("--nr 2:3", "--nr 2"),
        MOVED.replace("--move-second-header ", ""),
        MOVED.replace("      sgdisk", "      # sgdisk"),
        MOVED.replace("      sgdisk", "      echo sgdisk"),
        MOVED.replace("0 --new=2:12GiB:+4GiB /dev/vda", "0 --new=2:12GiB:+4GiB /dev/sda"),
        MOVED.replace("filesystem: ext4", "filesystem: ext5"),
        MOVED.replace("vol-a, ext4, 'd", "vol-a, xfs, 'd"),
        MOVED.replace(",nofail", ""),
        MOVED.replace("bootcmd:", "runcmd:"),
        MOVED + "growpart: {mode: 'off'}\n",
        MOVED + "resize_rootfs: false\n",
        MOVED.replace("      sgdisk", "      mkfs.ext4 /dev/vda1; sgdisk"),
        told("partprobe"),
        told("partprobe /dev/vda"),
        told("partx -u /dev/vda; partprobe"),
        told("partx --show /dev/vda"),
        told("partx -a /dev/vda"),
        # growpart grows the root partition up to the first partition behind it.
        carve("--new=2:12GiB:+4GiB --new=3:16GiB:0 --new=4:2200MiB:+1GiB"),
        # lsblk draws a tree, so no line begins with a partition's name.
        carve("", "lsblk | grep -q ^vda2 || {", MOVED),
        carve("", "sgdisk -p /dev/vda | grep -q vda2 || {", MOVED),
    ],
    "07-2": [lambda table: {}, lambda table: dict.fromkeys(table["mountpoint"], 1),
             lambda table: {"/mnt/disks/vol-a": 1}, dict,
             lambda table: dict(volumes(recorded("node-storage").sizes)),
             lambda table: dict(table[table.mountpoint.str.startswith("/mnt/disks")].set_index(
                 "mountpoint").size_bytes)],
    "07-3": [
        "#cloud-config\n",
        BROKEN_STORAGE + "\n",
        NODE_STORAGE[: NODE_STORAGE.index("mounts:")],
        NODE_STORAGE.replace(",nofail", ""),
        NODE_STORAGE.replace("/mnt/disks/vol-b", "/mnt/vol-b"),
        NODE_STORAGE.replace("2:8GiB", "2:1GiB"),
        NODE_STORAGE.replace("partx --add --nr 2:3", "partprobe"),
        BROKEN_STORAGE.replace("+8GiB", "+4"),
        BROKEN_STORAGE.replace("+8GiB", "+100K"),
        NODE_STORAGE.replace("label: vol-b", "label: vol-a").replace("[/dev/vda3", "[LABEL=vol-b"),
    ],
    "08-1": [
        ("default", "default"),
        "default",
        ("default", "resize-rootfs-noblock"),
        ("as-in-a-cloud", "resize-rootfs-false"),
        ("default", "no such recording"),
        5,
    ],
    "08-2": [[], ["growpart-off"], "default", [*LARGE, "growpart-off"], [*LARGE, "no such"], 5],
    "08-3": [["growpart"], [], "image", ["image", "disk_size_bytes", "cpus"], 5,
             ["image", "disk_size_bytes", "growpart"],
             ["image", "disk_size_bytes", "enlarge_to_bytes"]],
    "09-1": [lambda disk: disk, lambda disk: disk - 111 * 2**20, lambda: 1, 3, lambda disk: "many",
             lambda disk: disk - 33 * 512 - 111 * 2**20, lambda disk: partition_bytes(20 * GIB),
             lambda disk: partition_bytes(disk) // 2**20 * 2**20],
    "09-2": [[], ["growroot"], [*OTHERS, "default"], [*OTHERS, "no such"], 5],
    "09-3": [{}, {**NEXT, "A": "resize2fs"}, {**NEXT, "D": "resize2fs"}, {**NEXT, "D": None},
             {**NEXT, "C": "pvresize"}, ["growpart"], "growpart", 5, {**NEXT, "D": "nothingness"},
             {**NEXT, "A": "resize2fs growpart"}, {**NEXT, "D": ""}, {**NEXT, "D": float("nan")}],
}  # fmt: skip


def each(answers_by_name):
    return pytest.mark.parametrize(
        ("name", "answer"),
        [
            pytest.param(name, answer, id=f"{name}-{place}")
            for name, given in answers_by_name.items()
            for place, answer in enumerate(given)
        ],
    )


def test_every_exercise_has_answers_to_try():
    assert list(RIGHT) == list(WRONG) == exercises()


@each(RIGHT)
def test_a_right_answer_in_any_form_is_right(name, answer):
    verdict = check(name, answer)
    assert verdict.outcome is Outcome.RIGHT, verdict


@each(WRONG)
def test_a_wrong_answer_gets_a_reason(name, answer):
    verdict = check(name, answer)
    assert verdict.outcome is Outcome.WRONG, verdict
    assert all(verdict.words)
    # A learner's function may raise anything; the check of another answer may not.
    assert callable(answer) or "Error" not in str(verdict), verdict
    assert "Not yet" in verdict._repr_html_()


def raising(error):
    def answer(_):
        raise error

    return answer


def test_a_function_that_ends_python_is_a_wrong_answer_and_ctrl_c_none():
    assert "raised SystemExit: 3" in str(check("09-1", raising(SystemExit(3))))
    with pytest.raises(KeyboardInterrupt):
        check("09-1", raising(KeyboardInterrupt()))


#: What must not stand in the feedback on a wrong answer.
SOLUTIONS = {
    "02-1": ["65536 bytes of clusters", "131072"],
    "02-2": [str(MACHINES), "//"],
    "04-1": [str(RESIZED)],
    "05-2": [str(THIRTY), f"{THIRTY:,}", "33"],
    "05-3": [str(LOGGED)],
    "06-2": [*SICK.values()],
    "09-3": [*NEXT.values(), "none"],
}


@pytest.mark.parametrize("name", SOLUTIONS)
def test_feedback_does_not_give_the_solution(name):
    for answer in WRONG[name]:
        told = "\n".join(check(name, answer).words)
        asked = yaml.safe_dump(answer) if isinstance(answer, dict | list) else str(answer)
        assert not [one for one in SOLUTIONS[name] if one in told and one not in asked], told


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        # These lines are about sizes.
        ("04-1", 677, "not a message of the kernel about a filesystem that grows"),
        ("04-1", 685, "not a message of the kernel about a filesystem that grows"),
        ("01-1", "the root partition", "Answer with a partition's number"),
        ("01-1", "1 (root)", "Answer with a partition's number"),
        ("01-1", 14, "Partition 14 does not have the greatest start_bytes"),
        ("02-2", 100 * GIB // OVERLAY_BYTES, "The base image needs space on the host, too."),
        ("02-2", ONE_IMAGE_EACH, "You count the base image once for each machine."),
        ("02-2", (100 * 10**9 - IMAGE_BYTES) // OVERLAY_BYTES, "1 GiB is 2**30 bytes"),
        ("02-2", MACHINES + 1, "Answer with a whole number, rounded down"),
        ("09-2", ["growpart-off"], "In growpart-off cloud-init grew all that grew, or"),
        ("06-2", "user-data ignored", "of the type str"),
        ("09-3", "growpart", "of the type str"),
        ("07-1", "#cloud-config\nbootcmd:\n- [ -e /dev/vda2 ] || sgdisk -p /dev/vda\n",
         "line 3: YAML reads an item that begins with [ as a list. Put the command in quotes"),
        ("03-3", OFF + "runcmd:\n  - { true; } || lsblk\n",
         "line 4: YAML reads an item that begins with { as keys with values. Put"),
        ("03-3", OFF + "runcmd: [\n- 'a\n", "line 4, column"),
    ],
)  # fmt: skip
def test_feedback_is_true_of_the_answer(name, answer, words):
    assert words in str(check(name, answer))


BETWEEN = "Another partition lies between the root partition and vol-a."


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (carve("--new=3:17GiB:0 --new=4:12GiB:+1GiB --new=2:13GiB:+4GiB"), [BETWEEN]),
        (
            carve("--new=4:17GiB:0 --new=3:16GiB:+1GiB --new=2:12GiB:+4GiB"),
            ["vol-b gets the rest of the disk, but 3.0 GiB lie behind it."],
        ),
        (
            MOVED.replace("--new=2", "--new=4:16GiB:+1GiB --new=2").replace("3:16", "3:17"),
            ["1.0 GiB lie between vol-a and vol-b."],
        ),
        (
            MOVED.replace("[/dev/vda2", "[/dev/vda").replace("[/dev/vda3", "[/dev/vda2").replace(
                "[/dev/vda,", "[/dev/vda3,"),
            [
                BETWEEN,
                "vol-b should lie behind vol-a.",
                "vol-b gets the rest of the disk, but 4.0 GiB lie behind it.",
            ],
        ),
        (
            MOVED.replace("2:12GiB:+4GiB", f"2:{ROOT_END // 512}:+4GiB"),
            ["The root partition does not grow: is the wall right behind it?"],
        ),
        (MOVED.replace("[/dev/vda3", "[/dev/vda2"), ["Both volumes are the same partition."]),
    ],
    ids=["between", "behind", "between the volumes", "in another order", "no room", "one device"],
)  # fmt: skip
def test_only_what_is_wrong_with_the_volumes_is_said(change, told):
    assert [one.strip() for one in str(check("07-1", change)).splitlines()[1:]] == told


@pytest.mark.parametrize(
    "change",
    [
        MOVED.replace("sgdisk --", "sgdisk $(echo) --"),
        MOVED.replace("      sgdisk", "      parted /dev/vda print; sgdisk"),
        MOVED.replace("[/dev/vda2,", "[UUID=0000-0000,"),
        MOVED.replace("sgdisk --", "sgdisk --hybrid=1 --"),
        carve("", "sgdisk -i 2 /dev/vda | grep -q vol-a || {", MOVED),
        carve("", "sgdisk -p /dev/vda | grep -q '^ *2 ' || {", MOVED),
        carve("", "lsblk -f | grep vol-a || {", MOVED),
        carve("", "lsblk -no LABEL | grep -q vol-a || {", MOVED),
        carve("", "lsblk | grep vda | grep -q mnt || {", MOVED),
        carve("", "ls /dev/disk/by-label | grep -q vol-a || {", MOVED),
        carve("", "df | grep -q vda2 || {", MOVED),
        carve("", "{ lsblk -no SIZE; dmesg; } | grep -q vda2 || {", MOVED),
        carve("", "ls /dev/vda* | grep -q vda2 || {", MOVED),
        carve("", "[ ! -x /usr/sbin/sgdisk ] || {", MOVED),
        told("partx -d --nr 2:3 /dev/vda; partx -u /dev/vda"),
    ],
)
def test_what_the_model_does_not_cover_is_not_judged(change):
    verdict = check("07-1", change)
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.right is None
    assert "course.boot_text" in str(verdict)


@pytest.mark.parametrize("name", ["03-1", "03-3", "05-1", "06-3", "07-1", "07-3"])
def test_another_kind_of_user_data_is_not_judged(name):
    text = "## template: jinja\n#cloud-config\nresize_rootfs: false\n"
    assert check(name, text).outcome is Outcome.UNDECIDED


def test_a_program_that_the_image_lacks_is_named():
    for command in ("partprobe", "set -e; partprobe; partx -u /dev/vda"):
        assert "no partprobe" in str(check("07-1", told(command)))


def test_what_the_notebook_began_with_is_no_answer():
    given = {"02-1": (1, 2), "05-1": {"growpart": "off"}, "07-3": BROKEN_STORAGE, "08-3": None}
    for name, answer in given.items():
        assert check(name, answer).outcome is Outcome.UNANSWERED
    unfinished = {"01-2": lambda table, number, disk_bytes: ..., "07-2": lambda table: ...}
    for name, answer in unfinished.items():
        assert check(name, answer).outcome is Outcome.UNANSWERED


def test_an_answer_cannot_bring_markup_into_the_page():
    page = check("00-1", "<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in page


def test_an_exercise_that_does_not_exist_is_an_error():
    with pytest.raises(UsageError, match="no exercise"):
        check("99-1", 1)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("65,536", 65536), ("65_536", 65536), ("65 536", 65536), ("64K", 65536), ("64 KiB", 65536),
        ("32_095_845_888", 32095845888), ("32,095,845,888", 32095845888), ("1,0000", None),
        ("line 7", 7), (7.0, 7), (np.float64(7), 7), (np.array([7]), 7), (pd.Series([7]), 7),
        ("7.", None), (7.5, None), (True, None), (None, None), ("seven", None), ([1, 2], None),
    ],
)  # fmt: skip
def test_numbers_are_read_in_any_form(answer, number):
    assert checks.whole_number(answer) == number


# ------------------------------------------------------------------ progress


def test_progress_is_kept_in_a_file(tmp_path, monkeypatch):

    monkeypatch.chdir(tmp_path)
    assert passed() == []
    for name in ("05-1", "00-1", "05-1"):
        checks._keep(name)
    assert passed() == ["00-1", "05-1"]
    assert json.loads((tmp_path / "runs/progress.json").read_text())["passed"] == ["00-1", "05-1"]
    assert checks.is_unchanged()
    assert "2 of 30" in str(progress())
    assert progress()._repr_html_().count("passed</td>") == 2
    (tmp_path / "runs/progress.json").write_text("{")
    assert passed() == []


@pytest.mark.parametrize(
    "text",
    [
        '["00-1", "05-1"]',  # as earlier versions wrote it
        '{"passed": ["00-1", "05-1"]}',
        '{"passed": ["00-1", "05-1"], "sha256": "SHA256"}',
        '{"passed": ["00-1", "05-1"], "sha256": 5}',
    ],
)
def test_an_edited_file_counts_but_is_never_taken_for_an_unchanged_one(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checks.is_unchanged()
    checks._keep("00-1")
    path = tmp_path / "runs/progress.json"
    path.write_text(text.replace("SHA256", json.loads(path.read_text())["sha256"]))
    assert passed() == ["00-1", "05-1"]
    assert not checks.is_unchanged()
    checks._keep("05-2")
    assert passed() == ["00-1", "05-1", "05-2"]
    assert not checks.is_unchanged()


@pytest.mark.parametrize("text", ["{", "5", '{"passed": 5}', '{"passed": [5, {}]}', "null"])
def test_a_progress_file_that_makes_no_sense_counts_nothing(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/progress.json").write_text(text)
    assert passed() == []
    assert not checks.is_unchanged()


def test_progress_is_kept_only_in_a_notebook_and_where_that_is_possible(tmp_path, monkeypatch):

    monkeypatch.chdir(tmp_path)
    assert check("00-1", "tcg").right
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").write_text("a file")
    checks._keep("00-1")
    assert passed() == []


# ------------------------------------------------------------------ what learners are shown


def test_patient_bs_text_has_the_lines_that_the_log_counts():
    shown = str(evidence("B")).split("user-data:\n")[1].splitlines()
    text = CASES["unclosed-quote"].user_data.splitlines()
    assert shown.index("  growpart:") == text.index("growpart:")
    assert "never closed" not in "\n".join(shown)


@pytest.mark.parametrize("letter", PATIENTS)
def test_evidence_holds_what_a_diagnosis_needs(letter):
    run, shown = recorded(PATIENTS[letter]), evidence(letter)
    assert f"{run.image.virtual_size_bytes:,} bytes" in str(shown)
    assert f"{run.layout('before').virtual_size_bytes:,} bytes" in str(shown)
    # The logs are long: a page shows them folded.
    assert "growpart_tool" not in shown._repr_html_().split("<details>")[0]
    assert "growpart_tool" in shown._repr_html_()
    assert "Correctable Errors" not in str(shown)
    on_console = str(shown).split("on the console during the boot:\n")[1].split("\n\n")[0]
    assert (on_console == "  nothing about growth") is (letter in "ACDE")
