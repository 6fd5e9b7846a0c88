"""What people paste: tables of any tool and form, with prefixes, remarks, and gaps."""

import json
from pathlib import Path

import pytest
from console_text import GIB, MIB, block, disk_frames

from cloudlab.errors import ParseError
from cloudlab.sizes import check_sizes, parse_console, parse_size, to_json

PASTES = Path(__file__).parent / "data" / "pastes"
KIB = 1024
ROOT = ("vda1", 21367462298, "part", ("/",))
DISK = ("vda", 20 * GIB, "disk", ())


def read(text):
    """Return the lsblk and df rows of all reports, whether each is exact, and unread lines."""
    parsed = parse_console(text)
    lsblk = [
        (row.name, row.size_bytes, row.type, row.mountpoints)
        for report in parsed.reports
        for row in report.lsblk
    ]
    df = [
        (row.filesystem, row.size_bytes, row.used_bytes, row.mountpoint)
        for report in parsed.reports
        for row in report.df
    ]
    return lsblk, df, [report.exact for report in parsed.reports], [u.line for u in parsed.unread]


CASES = {
    "df-H-echo": (
        [],
        [
            ("tmpfs", 17_000_000_000, 369_000, "/run"),
            ("/dev/disk/by-label/root", 3_200_000_000, 3_100_000_000, "/"),
        ],
        [False],
    ),
    "df-thousands": ([], [("/dev/vda1", 2134 * KIB, 1157 * KIB, "/")], [True]),
    "df-hT-wrap": (
        [],
        [
            ("/dev/mapper/vg-root", 50 * GIB, parse_size("4.2G"), "/"),
            ("tmpfs", 939 * MIB, 0, "/dev/shm"),
        ],
        [False],
    ),
    "df-macos-h": (
        [],
        [("/dev/disk3s1s1", 59 * GIB, 10 * GIB, "/"), ("map auto_home", 0, 0, "/home")],
        [False],
    ),
    "df-german-beside-lsblk": (
        [DISK, ("vda1", 2 * GIB, "part", ("/",))],
        [("/dev/vda1", parse_size("1.9G"), parse_size("1.1G"), "/")],
        [False],
    ),
    "df-output-no-target": ([], [("/dev/vda1", 20 * GIB, parse_size("1.1G"), None)], [False]),
    "df-quoted": ([], [("/dev/sdb1", 100 * GIB, parse_size("1.5G"), "/data")], [False]),
    "lsblk-label": (
        [("vda", 20 * GIB, "", ()), ("vda1", 21367462298, "", ("/",))],
        [],
        [False],
    ),
    "lsblk-path-first": ([DISK, ("vda1", 19 * GIB, "part", ("/",))], [], [False]),
    "lsblk-J-b": ([DISK, ("vda1", 21358427648, "part", ("/",))], [], [True]),
    "lsblk-annotated": (
        [
            ("sda", 10 * GIB, "disk", ()),
            ("sda1", parse_size("9.9G"), "part", ("/",)),
            ("sdb", MIB, "disk", ()),
            ("sdc", parse_size("95.9M"), "disk", ()),
        ],
        [],
        [False],
    ),
    "prefix-github-actions": ([DISK, ROOT], [], [False]),
    "prefix-bracketed-time": ([DISK, ROOT], [], [False]),
}


def test_every_paste_has_its_right_answer():
    assert {path.stem for path in PASTES.iterdir()} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_paste_is_read_in_full(name):
    assert read((PASTES / f"{name}.txt").read_bytes()) == (*CASES[name], [])


LSBLK = [
    "NAME   MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS",
    "vda    252:0    0   20G  0 disk ",
    "└─vda1 252:1    0 19.9G  0 part /",
    "                                /var/snap",
]
DF = [
    "Filesystem      Size  Used Avail Use% Mounted on",
    "tmpfs           939M     0  939M   0% /dev/shm",
    "/dev/vda1        20G  1.1G   19G   6% /",
]
MOUNTED = ("vda1", 21367462298, "part", ("/", "/var/snap"))


@pytest.mark.parametrize(
    "prefix",
    [
        "> ",
        "> > ",
        "# ",
        "    ",
        "| ",
        "* ",
        "12: ",
        "[pod/node-1/shell] ",
        "web_1  | ",
        "17:15:3{n}  ",
        "[2026-08-21T17:15:3{n}.123Z] ",
        "[Fri Aug 21 17:15:3{n} 2026] ",
        "2026-08-21T17:15:3{n}.1234567Z ",
        "2026-08-21T17:15:3{n}.123456Z 00O ",
        "2026-08-21 17:15:3{n},123 - util.py[DEBUG]: ",
        "2026 Aug 21 17:15:3{n} host prog[{n}]: ",
        "Aug 21 2026 17:15:3{n} host prog[{n}]: ",
        "Aug 21 17:15:3{n} host cloud-init[90{n}]: ",
        "Aug 21 17:15:3{n} host kernel: [   1{n}.143703] cloud-init[1163]: ",
        "Août 21 17:15:3{n} höst prog[{n}]: ",
        "<{n}>[    {n}.143703] cloud-init[1163]: ",
        "[  {n}9.143703] cloud-init[1163]: ",
        "INFO     root:shell.py:{n} ",
        "step 3 (run/{n}): stdout: ",
        "ok: [host] => ",
    ],
)
def test_any_prefix_of_neighbouring_lines_is_stripped(prefix):
    text = "\n".join(prefix.replace("{n}", str(n)) + one for n, one in enumerate(LSBLK + DF))
    lsblk, df, exact, unread = read(text)
    assert lsblk == [DISK, MOUNTED]
    assert df == [
        ("tmpfs", 939 * MIB, 0, "/dev/shm"),
        ("/dev/vda1", 20 * GIB, parse_size("1.1G"), "/"),
    ]
    assert (exact, unread) == ([False], [])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("".join(f'        "{one}",\n' for one in LSBLK[:3]), id="list of strings"),
        pytest.param("".join(f"'{one}',\n" for one in LSBLK[:3]), id="single quotes"),
        pytest.param("".join(f"{one}|\n" for one in LSBLK[:3]), id="bar behind"),
        pytest.param("\n".join(LSBLK[:3]).replace(" ", "\u00a0"), id="no-break spaces"),
        pytest.param("\n".join(LSBLK[:3]).replace("└─", "`-"), id="ascii"),
        pytest.param("\n".join(LSBLK[:3]).replace("└─", "â””â”€"), id="wrongly decoded"),
        pytest.param("\n".join(LSBLK[:3]).replace("└─", "└─ "), id="blank in the tree"),
        pytest.param("\n".join(" ".join(one.split()) for one in LSBLK[:3]), id="collapsed"),
        pytest.param("\n".join("\t".join(one.split()) for one in LSBLK[:3]), id="tabs"),
        pytest.param("\n".join(f"{one}     " for one in LSBLK[:3]), id="blanks behind"),
        pytest.param("\n".join(one + "\n" for one in LSBLK[:3]), id="blank lines between"),
        pytest.param("```\n" + "\n".join(LSBLK[:3]) + "\n```", id="markdown"),
        pytest.param("root@vm:~# lsblk\n" + "\n".join(LSBLK[:3]) + "\nroot@vm:~# ", id="prompts"),
    ],
)
def test_what_pages_and_tools_make_of_a_table(text):
    assert read(text) == ([DISK, ROOT], [], [False], [])


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        pytest.param("NAME SIZE\nvda   20G\n└─vda1 19.9G\n", [("vda", ()), ("vda1", ())], id="two"),
        pytest.param(
            " SIZE NAME\n  20G vda\n19.9G └─vda1\n", [("vda", ()), ("vda1", ())], id="size first"
        ),
        pytest.param(
            "KNAME PKNAME   SIZE MOUNTPOINT TRAN   SERIAL\n"
            "vda            20G            virtio abc 20G x\n"
            "vda1  vda    19.9G /                 \n",
            [("vda", ()), ("vda1", ("/",))],
            id="PKNAME, TRAN, SERIAL",
        ),
        pytest.param(
            "NAME   START   SIZE MODEL           LABEL    PARTLABEL MOUNTPOINT\n"
            "vda             20G QEMU HARDDISK 2G                   \n"
            "└─vda1  2048  19.9G                 My Disk  p 1       /mnt/My Disk\n",
            [("vda", ()), ("vda1", ("/mnt/My Disk",))],
            id="cells of several words",
        ),
        pytest.param(
            "NAME   FSAVAIL   SIZE FSSIZE FSUSE%\nvda              20G              \n"
            "└─vda1   17.9G 19.9G  19.5G     3%\n",
            [("vda", ()), ("vda1", ())],
            id="sizes of the filesystem beside",
        ),
        pytest.param(
            "NAME  SIZE OWNER GROUP MODE\nvda    20G root  disk  brw-rw----\nvda1 19.9G root  disk  brw\n",
            [("vda", ()), ("vda1", ())],
            id="-m",
        ),
        pytest.param(
            "NAME   MAJ:MIN RM  SIZE RO TYPE NEW-COLUMN MOUNTPOINT\n"
            "vda    252:0    0   20G  0 disk x y        \n"
            "└─vda1 252:1    0 19.9G  0 part            /\n",
            [("vda", ()), ("vda1", ("/",))],
            id="a column of a later version",
        ),
        pytest.param(
            'NAME="vda" MAJ:MIN="252:0" SIZE="20G" TYPE="disk" MOUNTPOINTS=""\n'
            'NAME="vda1" SIZE="19.9G" TYPE="part" MOUNTPOINTS="/\\x0a/mnt/My\\x20Disk"\n',
            [("vda", ()), ("vda1", ("/", "/mnt/My Disk"))],
            id="pairs",
        ),
        pytest.param(
            '[    7.1] cloud-init[9]: SIZE="20G" PATH="/dev/vda"\n'
            '[    7.2] cloud-init[9]: SIZE="19.9G" PATH="/dev/vda1"\n',
            [("vda", ()), ("vda1", ())],
            id="pairs with a prefix",
        ),
        pytest.param(
            "NAME FSTYPE LABEL SIZE\nvda   20G\nvda1  root 19.9G\n",
            [("vda", ()), ("vda1", ())],
            id="raw with empty cells",
        ),
        pytest.param(
            "NAME MIN-IO SIZE RA MOUNTPOINTS\nvda  20G 128 \nvda1  19.9G 128 /\\x0a/a\\x20b\n",
            [("vda", ()), ("vda1", ("/", "/a b"))],
            id="raw with an empty number",
        ),
    ],
)
def test_lsblk_with_any_columns(text, rows):
    parsed = parse_console(text)
    (report,) = parsed.reports
    assert [(row.name, row.mountpoints) for row in report.lsblk] == rows
    assert [row.size_bytes for row in report.lsblk] == [20 * GIB, 21367462298]
    assert (report.exact, parsed.unread) == (False, ())


def test_pairs_begin_anew_with_the_first_device():
    once = 'NAME="vda" SIZE="20G" TYPE="disk"\nNAME="vda1" SIZE="2G" TYPE="part"\n'
    again = once.replace('"2G"', '"19.9G"')
    reports = parse_console(once + again).reports
    assert [[row.size_bytes for row in report.lsblk] for report in reports] == [
        [20 * GIB, 2 * GIB],
        [20 * GIB, 21367462298],
    ]


TREE = {
    "blockdevices": [
        {"name": "vda", "maj:min": "252:0", "size": "20G", "type": "disk", "mountpoints": [None]},
        {
            "name": "vdb",
            "size": "20G",
            "type": "disk",
            "mountpoint": None,
            "children": [
                {"name": "vdb1", "size": "19.9G", "type": "part", "mountpoint": '/a {"b": [1'},
                {"path": "/dev/mapper/x", "size": 5, "type": None, "mountpoints": ["/", "/y"]},
            ],
        },
    ]
}


@pytest.mark.parametrize("indent", [None, 3], ids=["one line", "many lines"])
@pytest.mark.parametrize("prefix", ["", "> ", "Aug 21 17:15:3{n} host cloud-init[9{n}]: "])
def test_json_is_read_with_the_line_of_each_device(indent, prefix):
    lines = ["$ lsblk -J", *json.dumps(TREE, indent=indent).splitlines(), "done"]
    text = "\n".join(prefix.replace("{n}", str(n)) + one for n, one in enumerate(lines))
    parsed = parse_console(text)
    (report,) = parsed.reports
    assert [(r.name, r.size_bytes, r.type, r.mountpoints) for r in report.lsblk] == [
        ("vda", 20 * GIB, "disk", ()),
        ("vdb", 20 * GIB, "disk", ()),
        ("vdb1", 21367462298, "part", ('/a {"b": [1',)),
        ("x", 5, "", ("/", "/y")),
    ]
    assert not report.exact
    assert not parsed.unread
    for row in report.lsblk:
        assert f"/{row.name}" in lines[row.line - 1] or f'"{row.name}"' in lines[row.line - 1]


def test_json_among_other_lines_is_read_and_a_df_belongs_to_it():
    lines = json.dumps(TREE, indent=3).splitlines()
    noise = "[   12.345678] random: crng init done"
    parsed = parse_console("\n".join([*lines[:7], noise, *lines[7:], *DF]))
    (report,) = parsed.reports
    assert (len(report.lsblk), len(report.df), parsed.unread) == (4, 2, ())


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TREE, indent=3)[:-40],
        json.dumps(TREE)[:-4],
        json.dumps(TREE, indent=3).replace('"size": 5,', '"size": 5'),
        '{"blockdevices": 5}',
        '{"blockdevices": [5]}',
        '{"blockdevices": [{"name": "a", "size": 1, "children": 7}]}',
        '{"blockdevices": [{"name": "a", "size": true}]}',
        '{"blockdevices": [{"name": "a", "size": "12 parsecs"}]}',
        '{"blockdevices": [{"size": 5}]}',
        '{"blockdevices": [' + '{"children": [' * 5000 + "]}" * 5000 + "]}",
        '{"blockdevices": [{"name": "a", "size": ' + "9" * 5000 + "}]}",
    ],
    ids=range(11),
)
def test_json_that_is_broken_is_reported(text):
    with pytest.raises(ParseError, match=r"line [12] "):
        parse_console(text)
    parsed = parse_console("\n".join(DF) + "\n" + text)
    assert [one.line for one in parsed.unread] in ([4], [5])


@pytest.mark.parametrize(
    ("text", "rows", "exact"),
    [
        pytest.param(
            "Filesystem      Size  Used Avail Use% Mounted on\n/dev/vda1  21G 1.2G 20G 6% /\n"
            "tmpfs 1.1M 4.1k 1.1M 1% /run\n",
            [
                ("/dev/vda1", 21_000_000_000, 1_200_000_000, "/"),
                ("tmpfs", 1_100_000, 4100, "/run"),
            ],
            False,
            id="a k shows -H for the rows before, too",
        ),
        *(
            pytest.param(
                f"{command}\n{text}Filesystem      Size  Used Avail Use% Mounted on\n"
                "/dev/vda1        22G  1.2G   20G   6% /\n",
                [("/dev/vda1", 22_000_000_000, 1_200_000_000, "/")],
                False,
                id=command,
            )
            for command, text in [
                ("+ df -H /", ""),
                ("$ df -hTH", ""),
                ("[core@node ~]$ df --si", ""),
                ("root@vm:/# lsblk && df -H", "\n".join(LSBLK) + "\n"),
            ]
        ),
        pytest.param(
            "$ df -H\n\n$ df -h\nFilesystem Size Used Avail Use% Mounted on\n/dev/vda1 22G 1M 20G 6% /\n",
            [("/dev/vda1", 22 * GIB, MIB, "/")],
            False,
            id="only the last command counts",
        ),
        pytest.param(
            "Filesystem    Size    Used   Avail Capacity  Mounted on\n"
            "/dev/vtbd0p3   20G    1.1G     17G     6%    /\ndevfs         1.0k    1.0k      0B   100%    /dev\n",
            [("/dev/vtbd0p3", 20 * GIB, parse_size("1.1G"), "/"), ("devfs", KIB, KIB, "/dev")],
            False,
            id="FreeBSD -h has a small k",
        ),
        pytest.param(
            "Filesystem   512-blocks     Used    Avail Capacity iused ifree %iused  Mounted on\n"
            "/dev/disk1s1  976490576 20000000 40000000    34%     488k 4.9G    0%   /\n"
            "map -hosts            0        0        0   100%        0    0  100%   /net\n",
            [("/dev/disk1s1", 976490576 * 512, 20000000 * 512, "/"), ("map -hosts", 0, 0, "/net")],
            True,
            id="macOS",
        ),
        pytest.param(
            "Filesystem  1K-blocks     Used    Avail %Cap Mounted on\n/dev/sd0a  20,134,592 1,157,248 18,960,960 6% /\n",
            [("/dev/sd0a", 20134592 * KIB, 1157248 * KIB, "/")],
            True,
            id="NetBSD, commas",
        ),
        pytest.param(
            "Filesystem 1B-blocks Used Available Use% Mounted on\n/dev/vda1 21.474.836.480 1\u2019024 5\u202f000 6% /\n",
            [("/dev/vda1", 20 * GIB, 1024, "/")],
            True,
            id="other thousands separators",
        ),
        pytest.param(
            "Filesystem       1KiB-blocks         Used    Available Use% Mounted on\n"
            "/dev/vda1        20134592KiB   1157248KiB  18960960KiB   6% /\n",
            [("/dev/vda1", 20134592 * KIB, 1157248 * KIB, "/")],
            True,
            id="-BKiB",
        ),
        pytest.param(
            "Filesystem     1MB-blocks   Used Available Use% Mounted on\n/dev/vda1 22548MB 1MB 9MB 6% /\n",
            [("/dev/vda1", 22_548_000_000, 1_000_000, "/")],
            False,
            id="-BMB",
        ),
        pytest.param(
            "Filesystem            kbytes    used   avail capacity  Mounted on\n/dev/dsk/c0 20134592 5 6 6% /\n",
            [("/dev/dsk/c0", 20134592 * KIB, 5 * KIB, "/")],
            True,
            id="kbytes",
        ),
        pytest.param(
            "Mounted on        Size  Used Type Filesystem\n/                  20G  1.1G ext4 /dev/vda1\n"
            "/mnt/My Disk       20G     - ext4 /dev/vdb\n",
            [
                ("/dev/vda1", 20 * GIB, parse_size("1.1G"), "/"),
                ("/dev/vdb", 20 * GIB, None, "/mnt/My Disk"),
            ],
            False,
            id="--output in another order",
        ),
        pytest.param(
            "Filesystem Type Inodes IUsed IFree IUse% 1K-blocks Used Avail Use% File Mounted on\n"
            "/dev/vda1 ext4 1310720 80000 1230720 7% 20134592 5 6 33% - /\n",
            [("/dev/vda1", 20134592 * KIB, 5 * KIB, "/")],
            True,
            id="--output",
        ),
        pytest.param(
            "Mounted on      1K-blocks\n/                20134592\n",
            [(None, 20134592 * KIB, None, "/")],
            True,
            id="--output=target,size",
        ),
        pytest.param(
            "Filesystem     1M-blocks\n/dev/vda1          19664\n",
            [("/dev/vda1", 19664 * MIB, None, None)],
            False,
            id="--output=source,size",
        ),
        pytest.param(
            "Filesystem      Size  Used Avail Use% Mounted on\n/dev/vda1        20G  1.1G   19G   6% / <-- full\n"
            "total            20G  1.1G   19G   6% -\n",
            [("/dev/vda1", 20 * GIB, parse_size("1.1G"), "/")],
            False,
            id="a remark, a sum",
        ),
        pytest.param(
            "Filesystem                         Size  Used Avail Use% Mounted\non\n"
            "/dev/mapper/ubuntu--vg-ubuntu--lv   20G  1.1G   19G   6%\n/\n"
            "/dev/mapper/ubuntu--vg-var\n 20G  1.1G   19G   6% /var\n"
            "rpool/ROOT/ubuntu\n                    20G  1.1G   19G   6% /z\n",
            [
                ("/dev/mapper/ubuntu--vg-ubuntu--lv", 20 * GIB, parse_size("1.1G"), "/"),
                ("/dev/mapper/ubuntu--vg-var", 20 * GIB, parse_size("1.1G"), "/var"),
                ("rpool/ROOT/ubuntu", 20 * GIB, parse_size("1.1G"), "/z"),
            ],
            False,
            id="wrapped anywhere",
        ),
        pytest.param(
            "Sys. de fichiers Taille Utilisé Dispo Uti% Monté sur\ntmpfs              939M       0  939M   0% /dev/shm\n",
            [("tmpfs", 939 * MIB, 0, "/dev/shm")],
            False,
            id="French",
        ),
        pytest.param(
            "Dateisystem    Typ      Größe Benutzt Verf. Verw% Eingehängt auf\n"
            "tmpfs          tmpfs     939M       0  939M    0% /dev/shm\n"
            "/dev/vda1      ext4       20G    1,1G   19G    6% /\n",
            [("tmpfs", 939 * MIB, 0, "/dev/shm"), ("/dev/vda1", 20 * GIB, parse_size("1.1G"), "/")],
            False,
            id="German with types",
        ),
        pytest.param(
            "$ df -hT | grep vda\n/dev/vda1      ext4   20G  1.1G   19G   6% /\n",
            [("/dev/vda1", 20 * GIB, parse_size("1.1G"), "/")],
            False,
            id="only the command says that there are types",
        ),
        pytest.param(
            "Sys. de fichiers 1K-blocks Utilisé Disponible Uti% Monté sur\n"
            "/dev/vda1         20134592 1153434   18981158   6% /\n",
            [("/dev/vda1", 20134592 << 10, 1153434 << 10, "/")],
            True,
            id="French with blocks",
        ),
        pytest.param(
            "S.ficheros     bloques de 1K Usados Disponibles Uso% Montado en\n"
            "/dev/vda1          20134592 1153434   18981158   6% /\n",
            [("/dev/vda1", 20134592 << 10, 1153434 << 10, "/")],
            True,
            id="Spanish with blocks",
        ),
        pytest.param(
            "Dateisystem    1K-Blöcke Benutzt Verfügbar Verw% Eingehängt auf\n"
            "/dev/vda1       20134592 1153434  18981158    6% /\n",
            [("/dev/vda1", 20134592 << 10, 1153434 << 10, "/")],
            True,
            id="German with blocks",
        ),
        pytest.param(
            "> 文件系统        大小  已用  可用 已用% 挂载点\n> /dev/vda1        20G  1.1G   19G    6% /\n".replace(
                "> ", ""
            ),
            [("/dev/vda1", 20 * GIB, parse_size("1.1G"), "/")],
            False,
            id="Chinese",
        ),
        pytest.param(
            "$ df -h / | tail -1\n/dev/vda1        20G  1.1G   19G   6% /\n",
            [("/dev/vda1", 20 * GIB, parse_size("1.1G"), "/")],
            False,
            id="no header but the command",
        ),
    ],
)
def test_df_of_any_tool_and_form(text, rows, exact):
    _, df, exacts, unread = read(text)
    assert df == rows
    assert (exacts, unread) == ([exact], [])


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        pytest.param([*LSBLK[:2], "...", *LSBLK[2:]], [3], id="rows left out of lsblk"),
        pytest.param([LSBLK[0], "[...]", *LSBLK[1:]], [2], id="rows left out at once"),
        pytest.param([*DF[:2], "…", DF[2]], [3], id="rows left out of df"),
        pytest.param(
            [*LSBLK[:2], "├─vda9 252:9    0 ??   0 part", *LSBLK[2:]], [3], id="a cell lost"
        ),
        pytest.param([*LSBLK[:2], "└─vda9 252:9    1      0 part"], [3], id="a number lost"),
        pytest.param([*LSBLK, "* vdb  252:16   0 95.9M  0 disk"], [5], id="marked"),
        pytest.param([*LSBLK, "├─vda9 252:9 0 9.9.9G 0 part /"], [5], id="not a number"),
        pytest.param([*LSBLK, "vdz 252:9 0 8E 0 disk"], [5], id="more than fits"),
        pytest.param(
            [*DF, "/dev/vda9        2O0G  1.1G   19G   6% /x"], [4], id="not a number in df"
        ),
        pytest.param(
            [*DF, "/dev/vda9       2,134 1,157   960  54% /x"], [4], id="blocks among units"
        ),
        pytest.param(
            [DF[0].replace("   Size", "1K-blocks"), f"/dev/vda1 {2**62} 1 2 6% /", *LSBLK],
            [2],
            id="more blocks than fit",
        ),
        pytest.param(
            ["NAME   SIZE  PHY-SEC", "vda    20G       512", "sr0             2048"],
            [3],
            id="another number below no size",
        ),
        pytest.param([*DF, "/dev/mapper/alone", "something else"], [4], id="its rest did not come"),
        pytest.param([*DF, "/dev/mapper/alone"], [4], id="its rest did not come at the end"),
        pytest.param(
            [
                DF[0].replace("   Size", "1.3kB-blocks"),
                "/dev/vda1 219248926 28851700 9 3% /",
                *LSBLK,
            ],
            [2],
            id="blocks of a rounded size",
        ),
        pytest.param(
            [*LSBLK, "Dateisystem Inodes IBenutzt IFrei IUse% Eingehängt auf", DF[2]],
            [6],
            id="inodes",
        ),
        pytest.param(
            [
                *LSBLK,
                "Dateisystem Blöcke Benutzt Verfügbar Verw% Eingehängt auf",
                "/dev/vda1 20134592 5 6 6% /",
            ],
            [6],
            id="blocks in German of unknown size",
        ),
        pytest.param([*LSBLK, "", DF[2]], [6], id="no header"),
        pytest.param(["$ df -ih", *LSBLK, "", DF[2]], [7], id="no header, of inodes"),
        pytest.param(
            [*LSBLK, "2026-08-21 Dateisystem Größe Ben. Verf. Verw% auf", f"2026-08-21 {DF[1]}"],
            [6],
            id="German behind a prefix",
        ),
    ],
)
def test_a_row_that_is_not_understood_is_reported(text, unread):
    parsed = parse_console("\n".join(text))
    assert [one.line for one in parsed.unread] == unread
    assert parsed.unread[0].text == text[unread[0] - 1].strip()
    assert all(row.size_bytes in {20 * GIB, 21367462298} for row in parsed.reports[0].lsblk)
    assert to_json(parsed)["unread"][0]["line"] == unread[0]


@pytest.mark.parametrize(
    "text",
    [
        [
            *DF,
            "Filesystem     Inodes IUsed IFree IUse% Mounted on",
            "/dev/vda1 131072 800 123072 7% /",
        ],
        [
            *DF,
            "$ df -ih",
            "Filesystem Inodes IUsed IFree IUse% Mounted on",
            "/dev/vda1 1.3M 80K 1.2M 7% /",
        ],
        [*LSBLK, "NAME   FSTYPE LABEL", "vda", "└─vda1 ext4   root"],
        [*LSBLK, "TARGET SOURCE FSTYPE", "/      /dev/vda1 ext4", "├─/sys sysfs sysfs"],
        [*LSBLK, "$ cat /proc/partitions", "252 0 20971520 vda"],
        [
            *LSBLK,
            "NAME SIZE ALLOC FREE CAP HEALTH",
            "rpool 20G 1G 19G 5% ONLINE",
            "  vda 20G 1G 19G - ONLINE",
        ],
        [*LSBLK, "PV         VG Fmt  Attr PSize   PFree", "/dev/vda3 vg lvm2 a--  198.00g    0"],
        [
            *LSBLK,
            "Device     Boot Start End Size Id Type",
            "/dev/vda1  * 2048 41943039 20G 83 Linux",
        ],
        [*LSBLK, "Disk /dev/vda: 20 GiB, 21474836480 bytes", "/dev/vda1 2048 41943039 20G Linux"],
        [*LSBLK, "NAME      TYPE      SIZE USED PRIO", "/dev/vda5 partition   2G   0B   -2"],
        [*DF, "/dev/vda1: clean, 123/456 files, 1/2 blocks", "/dev/vda1 on / type ext4 (rw)"],
        [*DF, "root@vm:~# cat /etc/fstab", "/dev/vda1 / ext4 defaults 0 1", "/dev/vda9 /x xfs"],
        [
            *DF,
            "Device     Start      End  Sectors  Size Type",
            "/dev/vda1  227328 41943006 41715679 19.9G Linux",
        ],
        [*LSBLK, "[   17.5] sda: sda1 sda2", "[  OK  ] Finished File System Check on /dev/vda1."],
        [*LSBLK, "/usr/lib/something", "  /not/a/mount/point"],
    ],
    ids=range(15),
)
def test_other_lines_are_neither_rows_nor_unread(text):
    lsblk, df, exact, unread = read("\n".join(text))
    assert (exact, unread) == ([False], [])
    assert lsblk in ([], [DISK, MOUNTED])
    assert [row[1] for row in df] in ([], [939 * MIB, 20 * GIB])
    assert lsblk or df


def test_df_in_powers_of_1000_agrees_with_an_exact_report():
    human = (
        "Filesystem      Size  Used Avail Use% Mounted on\r\n"
        "/dev/vda1        22G  734k   21G   4% /\r\n"
    )
    exact = disk_frames(20363 * MIB, 21_300_000_000)
    assert check_sizes(parse_console(block("after", *exact, human=human))) == []
    wrong = human.replace("22G", "23G")
    assert check_sizes(parse_console(block("after", *exact, human=wrong)))


def test_the_json_has_the_keys_that_users_rely_on():
    answer = json.loads(json.dumps(to_json(parse_console("\n".join([*DF, *LSBLK, *DF])))))
    assert answer.keys() == {"reports"}
    assert [list(report) for report in answer["reports"]] == [["stage", "lsblk", "df", "exact"]] * 2
    assert [(len(one["lsblk"]), len(one["df"])) for one in answer["reports"]] == [(0, 2), (2, 2)]
    last = answer["reports"][1]
    assert (last["stage"], last["exact"]) == (None, False)
    assert last["lsblk"][1] == {
        "name": "vda1",
        "size_bytes": 21367462298,
        "type": "part",
        "mountpoints": ["/", "/var/snap"],
        "line": 6,
    }
    assert last["df"][0] == {
        "filesystem": "tmpfs",
        "size_bytes": 939 * MIB,
        "used_bytes": 0,
        "available_bytes": 939 * MIB,
        "mountpoint": "/dev/shm",
        "line": 9,
    }


@pytest.mark.parametrize(
    "before",
    ["me@host ~ % df | tail -n 1", "The root disk was 97% full, 3 GB were left:", "100 % of 20 G:"],
)
def test_a_percent_sign_makes_no_heading_of_df(before):
    """Else these rows would count in blocks of 1 or 3 bytes."""
    row = "/dev/vda1 20134592 1153434 18981158 6% /\n"
    with pytest.raises(ParseError):
        parse_console(f"{before}\n{row}")


@pytest.mark.parametrize(
    ("heading", "unit"),
    [
        ("Dateisystem    1B-Blöcke Benutzt Verfügbar Verw% Eingehängt auf", 1),
        ("Sys. de fichiers blocs de 1B Utilisé Disponible Uti% Monté sur", 1),
        ("S. fitxers     blocs 1K En ús Lliures %Ús Muntat a", 1024),
        ("Fájlrendszer   1K-blokk Foglalt Szabad Fo.% Csatol. pont", 1024),
        ("Failų sistema  1K-blokai Naudojama Laisva Nd % Prijungta prie", 1024),
        ("system plików  1K-bl użyte dostępne %uż. zamont. na", 1024),
    ],
    ids=["de", "fr", "ca", "hu", "lt", "pl"],
)
def test_df_counts_blocks_in_other_languages(heading, unit):
    [report] = parse_console(f"{heading}\n/dev/vda1 20134592 1153434 18981158 6% /\n").reports
    assert [row.size_bytes for row in report.df] == [20134592 * unit]
