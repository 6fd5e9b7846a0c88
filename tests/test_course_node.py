"""The model of a node, compared with sgdisk itself, with real boots, and with itself."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from cloudlab.course import check
from cloudlab.course.cases import CASES
from cloudlab.course.checks.nb07 import BROKEN_STORAGE, NODE_STORAGE
from cloudlab.course.growth import growth_of
from cloudlab.course.node import Gpt, Node, sgdisk_options
from cloudlab.course.shell import Shell, UndecidedError
from cloudlab.disk import inspect_disk
from cloudlab.explanation import Grower, Reason, Subject
from cloudlab.run.value import recorded, recording_names
from cloudlab.seed import to_user_data

GIB = 2**30
needs_sgdisk = pytest.mark.skipif(shutil.which("sgdisk") is None, reason="sgdisk is not here")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A disk with the lab image's table, enlarged to 20 GiB."""
    disk = tmp_path_factory.mktemp("sgdisk") / "image.raw"
    disk.touch()
    parts = ["--new=14:2048:10239", "--new=15:10240:227327", "--new=1:227328:4323327"]
    with disk.open("r+b") as file:
        file.truncate(2_214_592_512)
        subprocess.run(["sgdisk", *parts, disk], check=True, capture_output=True)
        file.truncate(20 * GIB)
    return disk


def real(image, argv):
    """Return what sgdisk itself makes of the disk: its status and the partitions."""
    disk = image.with_name("disk.raw")
    subprocess.run(["cp", "--sparse=always", image, disk], check=True)
    status = subprocess.run(["sgdisk", *argv, disk], check=False, capture_output=True).returncode
    found = {
        one.number: (one.start_bytes // 512, one.end_bytes // 512 - 1)
        for one in inspect_disk(disk, "raw").partitions
    }
    return status, found


def modelled(image, argv):
    disk = Gpt.of(inspect_disk(image, "raw"))
    options, _ = sgdisk_options(argv)
    status = 4 if disk.sgdisk(options) else 0
    return status, {number: (one.first, one.last) for number, one in disk.parts.items()}


SIZES = st.one_of(
    st.sampled_from(["0", "", "-0", "+0"]),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "+", "-"]),
        st.integers(1, 22),
        st.sampled_from(["G", "GiB", "GB", "g"]),
    ),
    st.builds("{}M".format, st.integers(1, 22_000)),
    st.builds("{}".format, st.integers(1, 42_000_000)),
)
NEW = st.builds("{}:{}:{}".format, st.sampled_from(["0", "2", "3", "1"]), SIZES, SIZES)


@needs_sgdisk
@examples(60)
@given(st.lists(NEW, min_size=1, max_size=3), st.booleans())
def test_the_model_does_what_sgdisk_does(image, new, moves):
    argv = ["-e"] * moves + [word for one in new for word in ("-n", one)]
    assert modelled(image, argv) == real(image, argv)


@needs_sgdisk
@pytest.mark.parametrize(
    "argv",
    [
        "--move-second-header --new=2:8GiB:+4GiB --new=3:12GiB:0",
        "--new=2:8GiB:+4GiB --move-second-header",
        # The largest free block ends before the wall, and with it the default end.
        "-e -n 2:12GiB:+4GiB -n 3:16GiB:0",
        "-e -n 3:16GiB:0 -n 2:12GiB:+4GiB",
        "-e -n 2:8GiB:+8GiB -n 3:12GiB:0",
        "-e -N 2",
        "-d 1 -n 1:227328:0",
        "-en 2:8G:+4G -c 2:vol-a -t 2:8300",
        "-e -a 1 -n 2:16777217:+1G",
        "-p",
    ],
)
def test_the_model_does_what_sgdisk_does_with_usual_commands(image, argv):
    assert modelled(image, argv.split()) == real(image, argv.split())


@pytest.mark.parametrize("case", ["default", "wall", "node-storage", "growpart-off", "both-off"])
def test_a_modelled_boot_ends_like_the_recorded_one(case):
    run, node = recorded(case), Node()
    boot = node.boot(text_of(case))
    assert boot.root_partition_bytes == run.root_sizes("after").partition_bytes
    after = run.partitions("after")
    found = {number: part.first * 512 for number, part in node.disk.parts.items()}
    assert found == dict(zip(after["number"], after["start_bytes"], strict=True))
    assert not boot.problems


def text_of(case):
    """Return a case's user-data without the guest's report, whose commands are not modelled."""
    seed = replace(CASES[case].seed, report=False, sampler=False)
    return CASES[case].user_data or to_user_data(seed)


def test_volumes_are_mounted_in_each_boot():
    node = Node()
    mounts = {"/mnt/disks/vol-a": 2, "/mnt/disks/vol-b": 3}
    for _ in range(3):
        boot = node.boot(NODE_STORAGE)
        assert boot.mounts == mounts
        assert boot.status == 0
        assert not boot.problems


def test_the_broken_text_has_no_volumes():
    boot = Node().boot(BROKEN_STORAGE)
    assert boot.mounts == {}
    assert boot.root_partition_bytes > 19 * GIB


# ------------------------------------------------------------------ equivalent texts

GUARDS = st.sampled_from(
    [
        ("[ -e /dev/vda2 ] || {", "}"),
        ("[ -b /dev/vda2 ] || {", "}"),
        ("test -e /dev/vda2 || {", "}"),
        ("test ! -e /dev/vda2 && {", "} || :"),
        ("if [ ! -e /dev/vda2 ]; then", "fi"),
        ("if ! lsblk -n | grep -q vda2; then", "fi"),
        ("if [ -e /dev/vda2 ]; then :; else", "fi"),
        ("for disk in /dev/vda; do [ -e ${disk}2 ] ||", "done"),
        ("{", "}"),
        ("[ -e /dev/vda2 ] && {", "}"),
        ("if false; then", "fi"),
    ]
)
START, LENGTH = 12 * GIB // 512, 4 * GIB // 512


@st.composite
def notations(draw):
    """Draw sgdisk options that make the same two partitions, in different words."""
    sector, length = draw(st.sampled_from([(START, LENGTH), (8 * GIB // 512, LENGTH)]))
    units = {"": 1, "K": 2, "M": 2048, "MiB": 2048, "G": GIB // 512, "GiB": GIB // 512}

    def size(sectors):
        return draw(st.sampled_from([f"{sectors // n}{u}" for u, n in units.items()]))

    def new(number, start, end):
        option = draw(st.sampled_from(["-n ", "-n", "--new=", "-n="]))
        return f"{option}{number}:{size(start)}:{end}"

    one = new(2, sector, draw(st.sampled_from([f"+{size(length)}", str(sector + length - 1)])))
    other = new(3, sector + length, "41943006")
    both = draw(st.permutations([one, other]))
    header = draw(st.sampled_from(["-e", "--move-second-header"]))
    return sector == START, f"{header} {' '.join(both)}"


@examples(150)
@given(notations(), GUARDS)
def test_equivalent_texts_get_equal_verdicts(notation, guard):
    at_twelve, options = notation
    opened, closed = guard
    text = NODE_STORAGE.replace(
        "--move-second-header --new=2:8GiB:+4GiB --new=3:12GiB:0", options
    ).replace("[ -e /dev/vda2 ] || {", opened)
    text = text.replace("    }\n", f"    {closed}\n")
    works = opened not in {"{", "[ -e /dev/vda2 ] && {", "if false; then"}
    if opened.startswith("for"):
        text = text.replace("] ||\n      sgdisk", "] || sgdisk").replace(
            "      partx --add --nr 2:3 /dev/vda", "      partx -u /dev/vda"
        )
        text = text.replace("||\n", "|| ")
    verdicts = [check("07-1", text).right, check("07-3", text).right]
    assert verdicts == [works and at_twelve, works], text


# ------------------------------------------------------------------ the shell


@pytest.mark.parametrize(
    ("script", "called"),
    [
        ("a && b || c", ["a", "b"]),
        ("no && b || c", ["no", "c"]),
        ("! no && b", ["no", "b"]),
        ("no; b # c\nd", ["no", "b", "d"]),
        ("set -e\nno\nb", ["no"]),
        ("set -e\nno || a\nb", ["no", "a", "b"]),
        ("if no; then a; elif b; then c; else d; fi", ["no", "b", "c"]),
        ("for x in 1 2; do a$x; done", ["a1", "a2"]),
        ("X=a; $X ${Y:-b}", ["a"]),
        ("a | b > /dev/null 2>&1", ["a", "b"]),
        ("(exit 3); a; exit 0; b", ["a"]),
        ("a; exit; b", ["a"]),
        ("'quoted name' x", ["quoted name"]),
        ("if a; then", []),
        ("a 'b", []),
        ("[ -e /there ] && a; [ -e /gone ] && b; [ x = y ] || c", ["a", "c"]),
        ("echo a", []),
        ("sh -c 'a; b'", ["a", "b"]),
        ("env LC_ALL=C a; env -i X=1 Y=2 b", ["a", "b"]),
        ("exec a; b", ["a"]),
        ("nohup a", ["a"]),
        ("timeout 5 a && b", ["a", "b"]),
        ("timeout 5 no || b", ["no", "b"]),
        ("eval 'a; X=b'; $X", ["a", "b"]),
        ("sudo -n a", ["a"]),
        ("sudo X=1 a; command a; nice a", ["a", "a", "a"]),
        ("env; exec; eval; sudo -n", []),
    ],
)
def test_a_script_calls_what_sh_would_call(script, called, tmp_path):
    found = []

    def command(argv, _):
        found.append(argv[0])
        return int(argv[0] == "no"), ""

    status = Shell(command, lambda path: path == "/there", lambda path: None).run(script)
    assert found == called
    # The same from a real shell, with functions in place of the commands.
    names = ["a", "b", "c", "d", "no", "a1", "a2"]
    log = tmp_path / "log"
    functions = "".join(
        f"{name}() {{ echo {name} >> '{log}'; return {int(name == 'no')}; }}\n" for name in names
    )
    # Functions are not known to programs, such as env and sh.
    if re.search(r"/there|quoted|sh -c|env|exec|nohup|timeout|sudo", script):
        return
    real = subprocess.run(["sh", "-c", functions + script], check=False, capture_output=True)
    told = log.read_text().split() if log.exists() else []
    # The commands of a pipe run side by side, in any order.
    assert (sorted(told) if " | " in script else told) == called
    assert (real.returncode == 0) is (status == 0)


@pytest.mark.parametrize(
    ("script", "status"),
    # As dash 0.5.12 ends them, and sudo(8): 1 for what it cannot execute.
    [
        ("exit 300", 44),
        ("sh -c 'exit 300'", 44),
        ("exit +5", 5),
        ("exit abc", 2),
        ("exit -1", 2),
        ("exit 1_0", 2),
        ("exit ''", 2),
        ("exit \uff12", 2),
        ("test 1 -eq 01", 0),
        ("test ' 5' -eq +5", 0),
        ("test 5 -ne 05", 1),
        ("test 1 = 01", 1),
        ("test 1_0 -eq 10", 2),
        ("test a -eq a", 2),
        ("sudo eval true", 1),
        ("env eval true", 127),
        ("nohup exit 3", 127),
        ("timeout 5 :", 127),
        ("nice exec true", 127),
        ("exec exit 3", 127),
        ("/bin/exit 3", 127),
        ("command eval true", 0),
        ("command exit 4", 4),
        ("env [ 1 = 1 ]", 0),
    ],
)
def test_a_script_ends_with_the_status_that_sh_gives(script, status):
    shell = Shell(lambda argv, _: (0, ""), lambda path: False, lambda path: None)
    assert shell.run(script) == status


@pytest.mark.parametrize(
    "path",
    ["/var", "/var/", "/var/lib", "/var/lib/cloud/instance", "/run", "/tmp", "/etc/fstab", "/root"],
)
def test_what_may_be_in_the_image_is_not_taken_for_missing(path):
    with pytest.raises(UndecidedError):
        Node().boot(f"#cloud-config\nbootcmd: ['[ -e {path} ] || exit 3']\n")


@pytest.mark.parametrize(
    "path", ["/var/lib/done", "/var/lib/cloud/done", "/etc/cloud/done", "/run/done", "/root/.done"]
)
def test_a_mark_of_the_script_itself_is_there_once_it_is_made(path):
    script = f"[ ! -e {path} ] || exit 3; touch {path}; [ -e {path} ] || exit 4; exit 5"
    assert Node().boot(f"#cloud-config\nbootcmd: ['{script}']\n").status == 5


# ------------------------------------------------------------------ what a text asks for


@pytest.mark.parametrize("case", [name for name in recording_names() if CASES[name].reads_seed])
def test_what_a_text_switches_off_did_not_run_in_the_boot(case):
    run = recorded(case)
    growth = growth_of(run.user_data)
    statements = run.explain().statements
    if any(one.by is Grower.REPART for one in statements):
        return  # systemd grew both, and does not read the text
    reasons = {one.subject: one.reason for one in statements}
    switched_off = reasons[Subject.PARTITION] is Reason.GROWPART_OFF
    assert growth.partition is not switched_off
    if reasons[Subject.FILESYSTEM] is Reason.RESIZE_ROOTFS_OFF:
        assert not growth.filesystem


@pytest.mark.parametrize(
    ("text", "partition", "filesystem"),
    [
        ("", True, True),
        ("#cloud-config\n", True, True),
        ("growpart: {mode: 'off'}\n", True, True),
        ("#cloud-config\ngrowpart: {mode: off}\n", False, True),
        ("#cloud-config\ngrowpart: {mode: 'OFF'}\n", False, True),
        ("#cloud-config\ngrowpart: {mode: 'no'}\n", False, True),
        ("#cloud-config\ngrowpart: 'off'\n", False, True),
        ("#cloud-config\ngrowpart:\nmode: auto\n", False, True),
        ("#cloud-config\ngrowpart: {mode: gpart}\n", False, True),
        ("#cloud-config\ngrowpart: {devices: [/boot]}\n", False, True),
        ("#cloud-config\ngrowpart: {devices: [/boot, /]}\n", True, True),
        ("#cloud-config\ngrowpart: {devices: []}\n", False, True),
        ("#cloud-config\nresize_rootfs: flase\n", True, False),
        ("#cloud-config\nresize_rootfs: noblock\n", True, True),
        ("#cloud-config\nresize_rootfs: 'no'\n", True, False),
        ("#cloud-config\nresize_rootfs: 'false\n", True, True),
        ("#cloud-config\ncloud_init_modules: [bootcmd, resizefs]\n", False, True),
        ("#cloud-config\ncloud_init_modules: [bootcmd, cc_growpart]\n", True, False),
        ("#cloud-config\ncloud_init_modules: []\n", False, False),
        ("#cloud-config\ncloud_init_modules:\n", False, False),
        (
            "#cloud-config\ncloud_init_modules: [growpart]\ncloud_final_modules: [[resizefs, always]]\n",
            True,
            True,
        ),
        ("#cloud-config\ncloud_config_modules: [runcmd]\n", True, True),
    ],
)
def test_settings(text, partition, filesystem):
    growth = growth_of(text)
    assert (growth.partition, growth.filesystem) == (partition, filesystem)


@pytest.mark.parametrize(
    ("lists", "mark", "mounted"),
    [
        ("", True, True),
        ("cloud_init_modules: [growpart, disk_setup, mounts]\n", False, True),
        ("cloud_init_modules: [bootcmd, mounts]\n", True, False),
        ("cloud_config_modules: []\n", True, True),
    ],
)
def test_a_boot_runs_the_listed_modules(lists, mark, mounted):
    text = f"#cloud-config\n{lists}bootcmd: [touch /mark]\nruncmd: [touch /ran]\n"
    text += "fs_setup: [{device: /dev/vda15, partition: none, filesystem: ext4, overwrite: true}]\n"
    text += 'mounts: [[/dev/vda15, /mnt/a, ext4, nofail, "0", "2"]]\n'
    node = Node()
    boot = node.boot(text)
    assert ("/mark" in node.files) is mark
    assert ("/mnt/a" in boot.mounts) is mounted
    assert ("/ran" in node.files) is ("cloud_config" not in lists)


@pytest.mark.parametrize(
    "text",
    [
        "## template: jinja\n#cloud-config\nresize_rootfs: false\n",
        "#!/bin/sh\nlsblk\n",
        "#cloud-config-archive\n- {type: text/cloud-config, content: 'resize_rootfs: false'}\n",
        "MIME-Version: 1.0\nContent-Type: text/cloud-config\n\nresize_rootfs: false\n",
    ],
)
def test_another_kind_of_user_data_is_not_judged(text):
    with pytest.raises(UndecidedError, match="user-data that is no cloud-config"):
        growth_of(text)
