"""The human tables: what lsblk and df print, and what consoles make of it."""

import json
import os
import random
import re
import subprocess
from pathlib import Path
from re import _constants, _parser

import pytest
from console_text import GIB, MIB
from hypothesis import given
from hypothesis import strategies as st

from cloudlab.errors import ParseError
from cloudlab.sizes import (
    ConsoleParser,
    frames,
    lines,
    listings,
    parse_console,
    parse_size,
    parser,
)
from cloudlab.sizes.report import df_range, lsblk_range
from cloudlab.tools import run

DATA = Path(__file__).parent / "data"
LSBLK = "NAME    MAJ:MIN RM  SIZE RO TYPE MOUNTPOINT\n"
LSBLK_NEW = "NAME    MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS\n"
DF = "Filesystem      Size  Used Avail Use% Mounted on\n"


def only_report(text):
    (report,) = parse_console(text).reports
    return report


def lsblk(text):
    return [
        (row.name, row.size_bytes, row.type, row.mountpoints) for row in only_report(text).lsblk
    ]


def df(text):
    return [
        (row.filesystem, row.size_bytes, row.used_bytes, row.available_bytes, row.mountpoint)
        for row in only_report(text).df
    ]


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("512B", 512),
        ("4096", 4096),
        ("366K", 366 * 1024),
        ("1024M", GIB),
        ("19.9G", 21367462298),
        ("19,9G", 21367462298),
        ("1.5T", 3 << 39),
        ("2P", 2 << 50),
        ("7E", 7 << 60),
        ("20GiB", 20 * GIB),
        ("20GB", 20 * 10**9),
        ("1k", 1024),
    ],
)
def test_a_size_is_read_in_binary_units(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    ["", "G", "abc", "-1G", "1.G", "1..2G", "20X", "8E", "1Y", "9" * 400, "1e3", "٣G", "1iB"],
)
def test_what_is_no_size_is_refused_by_name(text):
    with pytest.raises(ParseError) as caught:
        parse_size(text)
    assert repr(text[:40]) in str(caught.value)


def test_the_articles_console_is_one_report():
    report = only_report((DATA / "console-article.log").read_bytes())
    assert [
        (row.name, row.size_bytes, row.type, row.mountpoints, row.line) for row in report.lsblk
    ] == [
        ("fd0", 4096, "disk", (), 5),
        ("sr0", GIB, "rom", (), 6),
        ("vda", 20 * GIB, "disk", (), 7),
        ("vda1", 21367462298, "part", ("/",), 8),
        ("vda14", 4 * MIB, "part", (), 10),
        ("vda15", 106 * MIB, "part", ("/boot/efi",), 11),
        ("vdb", 366 * 1024, "disk", (), 12),
    ]
    assert [(row.filesystem, row.mountpoint, row.line) for row in report.df] == [
        ("udev", "/dev", 14),
        ("tmpfs", "/run", 15),
        ("/dev/vda1", "/", 16),
        ("/dev/vda15", "/boot/efi", 17),
    ]
    assert report.df[2].size_bytes == 20 * GIB
    assert report.stage is None
    assert not report.exact


def test_the_articles_glued_excerpts_are_two_reports():
    first, second = parse_console((DATA / "console-excerpt.log").read_bytes()).reports
    assert [row.size_bytes for row in (*first.lsblk, *second.lsblk)] == [21367462298, 2254857830]
    for report in first, second:
        (row,) = report.df
        assert (row.size_bytes, row.used_bytes, row.available_bytes) == (
            2 * GIB,
            1181116006,
            966 * MIB,
        )


PLAIN = (
    LSBLK + "vda     252:0    0   20G  0 disk \n"
    "├─vda1  252:1    0 19.9G  0 part /\n"
    "└─vda15 252:15   0  106M  0 part /boot/efi\n"
    + DF
    + "/dev/vda1        20G  1.1G   19G   6% /\n"
)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text, id="plain"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="crlf"),
        pytest.param(lambda text: text.replace("\n", "\r\r\n"), id="crcrlf"),
        pytest.param(lambda text: "debian login: " + text, id="login prompt"),
        pytest.param(lambda text: "\ufeff" + text, id="byte order mark"),
        pytest.param(lambda text: " ".join(text.split(" ")).replace("  ", " "), id="collapsed"),
        pytest.param(lambda text: text.replace(" ", "\u00a0"), id="no-break spaces"),
        pytest.param(lambda text: text.replace("├─", "|-").replace("└─", "`-"), id="ascii tree"),
        pytest.param(lambda text: text.replace("├─", "â”œâ”€"), id="wrongly decoded tree"),
        pytest.param(lambda text: text.replace("├─", "\udce2\udc94").replace("└", "?"), id="lost"),
        pytest.param(lambda text: text.replace("vda", "\x1b[1;32mvda\x1b[0m"), id="colours"),
        pytest.param(lambda text: text.replace("NAME", "\x1b[1mNAME\x1b[0m"), id="bold header"),
        pytest.param(
            lambda text: text.replace("\n", "\n[   17.5] random: crng init done\n"),
            id="kernel lines",
        ),
        pytest.param(lambda text: text.replace("\n", "\n[  OK  ] Reached target\n"), id="systemd"),
    ],
)
def test_what_a_console_does_to_a_table_changes_nothing(change):
    report = only_report(change(PLAIN))
    assert [(row.name, row.size_bytes, row.mountpoints) for row in report.lsblk] == [
        ("vda", 20 * GIB, ()),
        ("vda1", 21367462298, ("/",)),
        ("vda15", 106 * MIB, ("/boot/efi",)),
    ]
    assert [(row.filesystem, row.size_bytes, row.mountpoint) for row in report.df] == [
        ("/dev/vda1", 20 * GIB, "/")
    ]


@pytest.mark.parametrize(
    "prefix",
    [
        "[   17.143703] cloud-init[1163]: ",
        "[   17.143703][    T1] cloud-init[1163]: ",
        "[   17.143703] debian cloud-init[1163]: ",
        "cloud-init[1163]: ",
        "ci-info: ",
        "<6>[   17.143703] ",
        "Nov 22 10:11:12 debian cloud-init[1163]: ",
        "Nov  2 10:11:12.123456 my-host.example cloud-init[1163]: ",
        "2026-11-22T10:11:12.123456+00:00 debian cloud-init[1163]: ",
        "2026-11-22 10:11:12 debian runcmd: ",
        "debian login: ",
        "Nov 22 10:11:12 debian kernel: [   17.143703] cloud-init[1163]: ",
    ],
)
def test_log_prefixes_are_taken_off(prefix):
    wrapped = DF + "/dev/mapper/a-very-long-name\n               20G  1.1G   19G   6% /\n"
    text = (LSBLK_NEW + "vda1 252:1 0 19.9G 0 part /snap/x\n                      /\n") + wrapped
    text = "".join(prefix + line + "\n" for line in text.splitlines())
    assert lsblk(text) == [("vda1", 21367462298, "part", ("/snap/x", "/"))]
    assert df(text) == [
        ("/dev/mapper/a-very-long-name", 20 * GIB, 1181116006, 19 * GIB, "/"),
    ]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        pytest.param(
            LSBLK + "nvme0n1     259:0    0   20G  0 disk\n├─nvme0n1p1 259:1    0   8E  0 part\n"
            "└─nvme0n1p2 259:2    0   2P  0 part /\n",
            [("nvme0n1", 20 * GIB, "disk", ()), ("nvme0n1p2", 2 << 50, "part", ("/",))],
            id="nvme, and a size beyond any disk",
        ),
        pytest.param(
            LSBLK_NEW
            + "mmcblk0     179:0    0  7.5G  0 disk\n`-mmcblk0p1 179:1    0    8M  0 part [SWAP]\n",
            [("mmcblk0", 8053063680, "disk", ()), ("mmcblk0p1", 8 * MIB, "part", ("[SWAP]",))],
            id="mmc",
        ),
        pytest.param(
            LSBLK + "sda                8:0    0   3T  0 disk\n"
            "└─sda2             8:2    0   1K  0 part\n"
            "  ├─vg-root (dm-0) 253:0  0  10G  0 lvm   /\n"
            "  └─vg-a--b      253:1    0  10G  0 lvm\n"
            "    └─secret     253:2    0  10G  0 crypt /mnt/My Files\n"
            "sdb                8:16   0   3T  0 disk\n"
            "└─md127            9:127  0   3T  0 raid1 /data\n",
            [
                ("sda", 3 << 40, "disk", ()),
                ("sda2", 1024, "part", ()),
                ("vg-root", 10 * GIB, "lvm", ("/",)),
                ("vg-a--b", 10 * GIB, "lvm", ()),
                ("secret", 10 * GIB, "crypt", ("/mnt/My Files",)),
                ("sdb", 3 << 40, "disk", ()),
                ("md127", 3 << 40, "raid1", ("/data",)),
            ],
            id="lvm, crypt, raid, the old dm name",
        ),
        pytest.param(
            LSBLK_NEW + "vda     252:0    0   20G  0 disk \n"
            "└─vda1  252:1    0 19.9G  0 part /var/lib/my snap\n"
            "│                                /\n"
            "[   17.5] random: crng init done\n"
            "                                 /x\n"
            "/dev/vda1: clean, 123/456 files\n",
            [
                ("vda", 20 * GIB, "disk", ()),
                ("vda1", 21367462298, "part", ("/var/lib/my snap", "/", "/x")),
            ],
            id="several mount points",
        ),
        pytest.param(
            "NAME SIZE TYPE MOUNTPOINT\n/dev/vda 21474836480 disk\nis 12 far\n/dev/mapper/r 5 lvm /\\x20a\n",
            [("vda", 20 * GIB, "disk", ()), ("r", 5, "lvm", ("/ a",))],
            id="chosen columns, paths, escapes",
        ),
        pytest.param(
            "NAME FSTYPE SIZE MOUNTPOINT UUID TYPE\nvda 1G disk\nvda1 ext4 1M / 12ab-34cd part\n",
            [("vda", GIB, "disk", ()), ("vda1", MIB, "part", ("/",))],
            id="cells that may be empty",
        ),
    ],
)
def test_lsblk_of_every_kind(text, rows):
    assert lsblk(text) == rows


@pytest.mark.parametrize(
    ("text", "rows", "exact"),
    [
        pytest.param(
            "Filesystem     1K-blocks    Used Available Use% Mounted on\n"
            "/dev/vda1       20134592 1157248  18960960   6% /\n",
            [("/dev/vda1", 20134592 * 1024, 1157248 * 1024, 18960960 * 1024, "/")],
            True,
            id="df",
        ),
        pytest.param(
            "Filesystem     1024-blocks    Used Available Capacity Mounted on\n"
            "/dev/vda1         20134592 1157248  18960960       6% /\n",
            [("/dev/vda1", 20134592 * 1024, 1157248 * 1024, 18960960 * 1024, "/")],
            True,
            id="df -P",
        ),
        pytest.param(
            "Filesystem        1B-blocks       Used   Available Use% Mounted on\n"
            "/dev/vda1       20617822208 1185021952 19416023040   6% /mnt/a b\n",
            [("/dev/vda1", 20617822208, 1185021952, 19416023040, "/mnt/a b")],
            True,
            id="df -B1, a space",
        ),
        pytest.param(
            "Filesystem     512-blocks Used Available Capacity Mounted on\na 10 2 8 20% /\\040b\n",
            [("a", 5120, 1024, 4096, "/ b")],
            True,
            id="POSIX blocks, an escape",
        ),
        pytest.param(
            "Filesystem     Type  Size  Used Avail Use% Mounted on\n"
            "/dev/vda1      ext4   20G  1.1G   -1G   6% /\nnone none - - - - /proc\n",
            [("/dev/vda1", 20 * GIB, 1181116006, -GIB, "/")],
            False,
            id="df -hT, less than nothing left",
        ),
        pytest.param(
            "Filesystem 1M-blocks Used Available Use% Mounted on\n/dev/vda1 20M - 19M - /\n",
            [("/dev/vda1", 20 * MIB, None, 19 * MIB, "/")],
            False,
            id="df -BM",
        ),
        pytest.param(
            "Filesystem     1M-blocks  Used Available Use% Mounted on\n/dev/vda1 20 1 19 6% /\n",
            [("/dev/vda1", 20 * MIB, MIB, 19 * MIB, "/")],
            False,
            id="df -m",
        ),
        pytest.param(
            "Filesystem                Size      Used Available Use% Mounted on\n"
            "[    9.1] eth0: up\n"
            "/dev/disk/by-uuid/1b4d6d0a-0000-4c1c-9a9e-1b1b1b1b1b1b\n"
            "[    9.2] eth0: up\n"
            "                         19.6G      1.1G     18.5G   6% /\n",
            [
                (
                    "/dev/disk/by-uuid/1b4d6d0a-0000-4c1c-9a9e-1b1b1b1b1b1b",
                    21045339750,
                    1181116006,
                    19864223744,
                    "/",
                )
            ],
            False,
            id="busybox, wrapped",
        ),
    ],
)
def test_df_of_every_kind(text, rows, exact):
    assert df(text) == rows
    assert only_report(text).exact is exact


@pytest.mark.parametrize(
    "text",
    [
        "Filesystem     Inodes IUsed IFree IUse% Mounted on\n/dev/vda1 1 1 1 6% /\n",
        "NAME            FSTYPE LABEL UUID MOUNTPOINT\nvda1 ext4 / /\n",
        "NAME SIZE\nubuntu 19G\n",
        "NAME      TYPE      SIZE   USED PRIO\n/swapfile file 2G 0B -2\n",
        LSBLK + DF,
    ],
    ids=["df -i", "lsblk -f", "any program", "swapon", "headers only"],
)
def test_other_tables_are_no_sizes(text):
    with pytest.raises(ParseError, match="holds no sizes"):
        parse_console(text)


def test_tables_are_paired_in_order_of_appearance():
    lsblk_table, df_table = PLAIN.split(DF)
    df_table = DF + df_table
    reports = parse_console(df_table + lsblk_table + lsblk_table + df_table + df_table).reports
    assert [(bool(report.lsblk), bool(report.df)) for report in reports] == [
        (False, True),
        (True, False),
        (True, True),
        (False, True),
    ]


@pytest.mark.parametrize(("lines", "read"), [(150, True), (300, False)])
def test_a_table_ends_where_nothing_of_it_comes_any_more(lines, read):
    noise = "[   17.5] random: crng init done\n" * lines
    names = [row[0] for row in lsblk(PLAIN.split(DF)[0] + noise + "vdz 252:9 0 1G 0 disk\n")]
    assert names == ["vda", "vda1", "vda15", *(["vdz"] if read else [])]


@pytest.mark.parametrize("table", [LSBLK_NEW, DF], ids=["lsblk", "df"])
@given(data=st.data())
def test_a_row_that_the_kernel_broke_is_put_together_again(table, data):
    row = "/dev/vda1  20G  1.1G  19G  6% /boot/efi"
    if table is LSBLK_NEW:
        row = "├─vda1  252:1    0 19.9G  0 part /boot/efi"
    whole = parse_console(table + row + "\n").reports
    cuts = sorted(data.draw(st.sets(st.integers(1, len(row)), min_size=1, max_size=3)))
    parts = [row[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    message = "[   12.345678] random: crng init done\r\n"
    again = data.draw(st.integers(1, 3))
    assert parse_console(table + (message * again).join(parts) + "\r\nend\r\n").reports == whole


# ---- the real programs ----


def fake_sysfs(root, disks, mounts):
    """Lay out as much of /sys and /proc as lsblk --sysroot reads."""

    def node(folder, device, size_bytes, **files):
        folder.mkdir(parents=True)
        files |= {"dev": device, "size": size_bytes // 512, "ro": 0, "removable": 0}
        for name, value in files.items():
            (folder / name).write_text(f"{value}\n")
        (folder / "uevent").write_text(f"DEVNAME={folder.name}\n")
        link = root / "sys/dev/block" / device
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(folder, link.parent))

    (root / "sys/block").mkdir(parents=True)
    for major, (name, size_bytes, parts) in enumerate(disks, 240):
        folder = root / "sys/devices/virtual/block" / name
        node(folder, f"{major}:0", size_bytes)
        (root / "sys/block" / name).symlink_to(os.path.relpath(folder, root / "sys/block"))
        for number, (part, part_bytes) in enumerate(parts, 1):
            node(folder / part, f"{major}:{number}", part_bytes, partition=number, start=2048)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/swaps").write_text("")
    (root / "proc/self/mountinfo").write_text(
        "".join(
            f"{20 + n} 1 {device} / {point} rw - ext4 /dev/x rw\n"
            for n, (device, point) in enumerate(mounts)
        )
    )


def random_disks():
    rng = random.Random(20)
    disks = []
    for letter in "abcdefgh":
        parts = [
            (f"vd{letter}{n}", rng.randrange(1, 2 ** rng.randrange(2, 45)) * 512)
            for n in range(1, 9)
        ]
        disks.append((f"vd{letter}", rng.randrange(1, 2**52) * 512, parts))
    return disks


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--bytes"],
        ["--ascii"],
        ["--list"],
        ["--raw"],
        ["--paths", "--bytes"],
        ["--output", "NAME,MAJ:MIN,SIZE,TYPE,MOUNTPOINTS"],
        ["--output", "NAME,KNAME,RO,TYPE,SIZE,MOUNTPOINTS"],
    ],
    ids=" ".join,
)
def test_the_real_lsblk_is_read_as_its_own_json_says(tmp_path, options):
    fake_sysfs(
        tmp_path,
        random_disks(),
        [("240:1", "/"), ("240:1", "/var/my\\040snap"), ("241:3", "/home"), ("240:1", "/srv")],
    )
    env = {"LC_ALL": "C.UTF-8"}
    lsblk_argv = ["lsblk", "--sysroot", str(tmp_path)]
    flat = []

    def walk(devices):
        for device in devices:
            points = tuple(point for point in device["mountpoints"] if point)
            flat.append((device["name"], device["type"], device["size"], points))
            walk(device.get("children", []))

    walk(json.loads(run([*lsblk_argv, "--json", "--bytes"], env=env).stdout)["blockdevices"])
    assert len(flat) == 72
    report = only_report(run([*lsblk_argv, *options], env=env).stdout)
    assert [(row.name, row.type, row.mountpoints) for row in report.lsblk] == [
        (name, type_, points) for name, type_, _, points in flat
    ]
    assert report.exact is ("--bytes" in options)
    for row, (_, _, size_bytes, _) in zip(report.lsblk, flat, strict=True):
        least, largest = lsblk_range(row.size_bytes, exact=report.exact)
        assert least <= size_bytes <= largest


def test_df_of_this_machine_is_read_as_statvfs_says():
    # Other mounts come and go, and "/" need not be one, as in a chroot.
    report = only_report(run(["df", "-B1", "/dev"]).stdout)
    assert report.exact
    (row,) = report.df
    status = os.statvfs("/dev")
    assert row.size_bytes == status.f_blocks * status.f_frsize


@pytest.mark.parametrize("options", [[], ["-h"], ["-P"], ["-T"], ["-hT"], ["-k"], ["-m"], ["-BM"]])
def test_df_of_this_machine_in_every_form(options):
    # Other tests mount and unmount meanwhile.
    exact = {}
    printed = [run(["df", *words]).stdout for words in (["-B1", "-a"], options, ["-B1", "-a"])]
    for text in printed[::2]:
        exact |= {row.mountpoint: row for row in only_report(text).df}
    report = only_report(printed[1])
    assert report.df
    for row in report.df:
        assert row.filesystem == exact[row.mountpoint].filesystem
        if options not in (["-m"], ["-BM"]):
            least, largest = df_range(row.size_bytes, exact=report.exact)
            assert least <= exact[row.mountpoint].size_bytes <= largest


@pytest.mark.parametrize("ls", [["ls"], ["busybox", "ls"]], ids=["gnu", "busybox"])
def test_the_range_of_df_holds_for_its_rounding(tmp_path, ls):
    # In both projects df and ls print human sizes by the same function.
    rng = random.Random(21)
    sizes = [rng.randrange(1, 2 ** rng.randrange(1, 42)) for _ in range(400)]
    sizes += [
        step * 1024**power + edge
        for power in (1, 2, 3)
        for step in (1, 10, 1023)
        for edge in (-1, 0, 1)
    ]
    for size_bytes in sizes:
        with (tmp_path / str(size_bytes)).open("wb") as stream:
            stream.truncate(size_bytes)
    listing = run([*ls, "-l", "-h", str(tmp_path)]).stdout.splitlines()[1:]
    assert len(listing) == len(set(sizes))
    for line in listing:
        words = line.split()
        least, largest = df_range(parse_size(words[4]), exact=False)
        assert least <= int(words[-1]) <= largest, line


def old_lsblk_size(size_bytes):
    """As util-linux printed sizes up to 2.32 (Ubuntu 18.04 has 2.31): tenths of 1024ths."""
    power = max(n for n in range(7) if size_bytes >= 1024**n or n == 0)
    whole, rest = divmod(size_bytes, 1024**power)
    tenths = (rest // 1024 ** (power - 1) + 50) // 100 if rest else 0
    whole, tenths = (whole + 1, 0) if tenths == 10 else (whole, tenths)
    return f"{whole}.{tenths}{'BKMGTPE'[power]}" if tenths else f"{whole}{'BKMGTPE'[power]}"


@given(st.integers(0, 2**62))
def test_the_range_of_lsblk_holds_for_its_old_rounding(size_bytes):
    least, largest = lsblk_range(parse_size(old_lsblk_size(size_bytes)), exact=False)
    assert least <= size_bytes <= largest


def test_busybox_df_is_read():
    printed = subprocess.run(
        ["busybox", "df", "-h", "/dev"], check=True, capture_output=True, text=True
    ).stdout
    (row,) = only_report(printed).df
    status = os.statvfs("/dev")
    least, largest = df_range(row.size_bytes, exact=False)
    assert row.mountpoint in {"/dev", "/"}
    assert least <= status.f_blocks * status.f_frsize <= largest


def can_be_blank(name, value):
    """Tell whether one item of a parsed pattern may take a blank, and nothing but one."""
    if name is _constants.IN:
        negated = value[0][0] is _constants.NEGATE
        blank = any(
            one in {(_constants.LITERAL, 32), (_constants.CATEGORY, _constants.CATEGORY_SPACE)}
            or one == (_constants.CATEGORY, _constants.CATEGORY_NOT_WORD)
            or (one[0] is _constants.RANGE and one[1][0] <= 32 <= one[1][1])
            for one in value
        )
        not_space = (_constants.CATEGORY, _constants.CATEGORY_NOT_SPACE) in value
        return (negated and not blank) or (not negated and blank and not not_space)
    return (name, value) == (_constants.LITERAL, 32) or name in {
        _constants.ANY,
        _constants.NOT_LITERAL,
    }


def blank_repeats(items, run=0):
    """Return the most unbounded repeats in a row that may share a run of blanks, and the last."""
    most = run
    for name, value in items:
        if name in {_constants.MAX_REPEAT, _constants.MIN_REPEAT}:
            least, largest, inside = value
            looks = (_constants.ASSERT, _constants.ASSERT_NOT)
            blank = all(can_be_blank(*one) for one in inside if one[0] not in looks)
            most = max(most, blank_repeats(inside)[0])
            if blank and largest is _constants.MAXREPEAT:
                run += 1
            elif not blank and least:
                run = 0
        elif name is _constants.SUBPATTERN:
            inner, run = blank_repeats(value[3], run)
            most = max(most, inner)
        elif name is _constants.BRANCH:
            branches = [blank_repeats(branch, run) for branch in value[1]]
            most = max(most, *(one for one, _ in branches))
            run = max(last for _, last in branches)
        elif name not in {_constants.AT, _constants.ASSERT, _constants.ASSERT_NOT}:
            run = run if can_be_blank(name, value) else 0
        most = max(most, run)
    return most, run


def test_the_check_of_patterns_finds_what_it_is_for():
    assert blank_repeats(_parser.parse(r"(?:[\s│|]{2,}|[│|])\s*(/.*)"))[0] == 2
    assert blank_repeats(_parser.parse(r"(?:[\s│|]{2,}|[│|])(/.*)"))[0] == 1


@pytest.mark.parametrize("module", [lines, listings, parser, frames], ids=lambda one: one.__name__)
def test_no_pattern_has_two_repeats_that_take_blanks(module):
    # With two of them, the time for a line of blanks grows with the square of its length.
    patterns = [one for one in vars(module).values() if isinstance(one, re.Pattern)]
    assert patterns
    for pattern in patterns:
        assert blank_repeats(_parser.parse(pattern.pattern))[0] <= 1, pattern.pattern


def test_lines_of_blanks_are_read_past():
    blanks = (" " * 2000 + "x\n") * 50
    console = (
        "NAME   MAJ:MIN RM SIZE RO TYPE MOUNTPOINTS\n"
        "vda    254:0    0  20G  0 disk \n"
        "└─vda1 254:1    0  20G  0 part /\n"
        f"{blanks}"
    )
    (report,) = parse_console(console.encode()).reports
    assert report.lsblk[-1].mountpoints == ("/",)


ROW = "/dev/vda1 20G 1.1G 19G 6% /\n"


@pytest.mark.parametrize(
    "header",
    [
        "\x1b[1m" + DF.strip() + "\x1b[0m\n",
        DF.replace("Used", "Us\x1b[med"),
        DF.replace(" ", "\u00a0", 3),
        "host login: " + DF,
        "SIZE NAMES\r" + DF,
    ],
    ids=["colours", "colours inside", "no-break spaces", "login", "written over"],
)
def test_a_header_is_found_whatever_stands_between_its_letters(header):
    assert df("SIZE of nothing\nA Filesystem of none\n" + header + ROW) == [
        ("/dev/vda1", 20 * GIB, parse_size("1.1G"), 19 * GIB, "/")
    ]


@pytest.mark.parametrize(
    "line", ["Started SIZE me@cde.f", "A Filesystem check", "NAME=x SIZE", "me@example.org"]
)
def test_a_line_that_only_holds_a_headers_word_begins_nothing(line):
    parser = ConsoleParser()
    assert parser.feed(line.encode(), 1) is None
    assert not parser.busy


def test_a_header_without_rows_is_soon_forgotten_and_a_table_is_not():
    noise = "[   12.345678] the kernel says something\n"
    assert df(DF + 15 * noise + ROW)
    assert len(df(DF + ROW + 150 * noise + ROW.replace("vda1", "vda2"))) == 2
    parser = ConsoleParser()
    parser.feed(DF.encode(), 1)
    for number in range(2, 30):
        parser.feed(noise.encode(), number)
    assert not parser.busy
