"""Evidence from other people's machines: each case has the right answer beside it."""

import gzip
import io
import json
import subprocess
import tarfile
from functools import cache

import pytest
import scoreboard
from command import cloudlab
from examples import examples, few
from hypothesis import given
from hypothesis import strategies as st

import cloudlab as cl
from cloudlab.errors import ParseError
from cloudlab.explanation import Grower, NoteKind, Reason, Source, Subject
from cloudlab.explanation.evidence import redact_files

CASES = scoreboard.case_folders()
FIRST_ROUND = scoreboard.ROUNDS[0].folder
LSBLK = """\
NAME   MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
sda      8:0    0   20G  0 disk
├─sda1   8:1    0   10G  0 part /
└─sda15  8:15   0  106M  0 part /boot/efi
"""


def files_of(case):
    return sorted(path for path in case.iterdir() if path.name != "truth.json")


def only(explanation, subject):
    [statement] = explanation.of(subject)
    return statement


def partition(*sources):
    return only(cl.explain(*sources), Subject.PARTITION)


def root_filesystem(*sources):
    return only(cl.explain(*sources), Subject.FILESYSTEM)


@cache
def explained(case):
    """Explain a case as it is, to compare changed copies with."""
    return cl.explain(*files_of(case))


score = cache(scoreboard.score)
#: One process explains each case once.
SCORED = pytest.mark.xdist_group("scoreboard")


@SCORED
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_and_so_is_the_fix(case):
    found = score(case)
    assert set(found.verdicts.values()) == {"right"}, found.answers
    assert found.fixed


#: A sixth in `make test-fast`.
A_CASE = pytest.mark.parametrize("case", few(CASES, 6), ids=lambda case: case.name)


@A_CASE
def test_evidence_stands_in_the_file_and_line_that_it_names(case):
    for statement in explained(case).statements:
        for one in statement.evidence:
            line = (case / one.file).read_text().split("\n")[one.line - 1].replace("\u00a0", " ")
            assert one.text.removeprefix("> ").split()[:3] == line.removeprefix("> ").split()[:3]


@SCORED
def test_the_scoreboard_is_up_to_date():
    scores = {case.name: score(case) for case in CASES}
    assert scoreboard.PAGE.read_text() == scoreboard.page(scores)


def crlf(content):
    return content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def around(before, after=b""):
    def change(content):
        return b"\n".join(before + line + after for line in content.split(b"\n"))

    return change


def typographic(content):
    return content.replace(b"'", "\u2019".encode()).replace(b'"', "\u201d".encode())


def journal_json(content):
    return b"\n".join(
        json.dumps({"MESSAGE": line.decode(), "SYSLOG_IDENTIFIER": "cloud-init"}).encode()
        for line in content.split(b"\n")
    )


@pytest.mark.parametrize(
    ("change", "only_logs"),
    [
        pytest.param(crlf, False, id="CRLF"),
        pytest.param(around(b"> "), False, id="quoted mail"),
        pytest.param(around(b"    "), False, id="indented"),
        pytest.param(around(b"\x1b[0;32m", b"\x1b[0m"), False, id="ANSI"),
        pytest.param(typographic, True, id="typographic quotes"),
        pytest.param(around(b"Nov 02 08:31:14 box cloud-init[731]: "), True, id="journal"),
        pytest.param(around(b"2025-11-02T08:31:14+0000 box cloud-init[731]: "), True, id="ISO"),
        pytest.param(journal_json, True, id="journalctl -o json"),
    ],
)
@pytest.mark.parametrize("case", few(CASES[::5], 4), ids=lambda case: case.name)
def test_what_surrounds_the_lines_changes_nothing(case, change, only_logs, tmp_path):
    changed = []
    for path in files_of(case):
        content = path.read_bytes()
        logs = path.name == "cloud-init.log" or not only_logs
        data = path.name == "user-data.txt" and change is not crlf
        (tmp_path / path.name).write_bytes(change(content) if logs and not data else content)
        changed.append(tmp_path / path.name)
    plain = [one.finding for one in explained(case).statements]
    assert [one.finding for one in cl.explain(*changed).statements] == plain


@A_CASE
def test_one_paste_one_archive_and_any_order_give_the_same_answer(case, tmp_path):
    files = files_of(case)
    # In a paste, user-data without its first line cannot be told from other YAML.
    expected = [one.finding[:2] for one in explained(case).statements]
    # A file of its own has no time, but what one paste shows further down came later.
    in_time = json.loads((case / "truth.json").read_text()).get("order")
    shown = [case / name for name in in_time] if in_time else files
    prompts = (b"$ cat %b\n%b\n" % (p.name.encode(), p.read_bytes()) for p in shown)
    (tmp_path / "paste.txt").write_bytes(b"".join(prompts))
    archive = tmp_path / "cloud-init.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in files:
            tar.add(path, f"cloud-init-logs-2026/{path.name}")
    for sources in ([tmp_path / "paste.txt"], [archive], files[::-1]):
        assert [one.finding[:2] for one in cl.explain(*sources).statements] == expected


def test_texts_gzip_and_utf_16_are_read(tmp_path):
    text = "$ sudo growpart /dev/sda 1\nFAILED: failed to get a resizer for id ''\n" + LSBLK
    expected = (False, Grower.NOBODY, Reason.GROWPART_FAILED)
    assert partition(text).finding == expected
    (tmp_path / "a").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "b").write_text(text, encoding="utf-16")
    for name in "ab":
        assert partition(tmp_path / name).finding == expected


def test_a_disk_image_is_evidence(tmp_path):
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as stream:
        stream.truncate(64 << 20)
    subprocess.run(["sfdisk", "-q", disk], input="label: gpt\nsize=20M\n", text=True, check=True)
    part = tmp_path / "part"
    with part.open("wb") as stream:
        stream.truncate(20 << 20)
    subprocess.run(["mkfs.ext4", "-q", part], check=True)
    with disk.open("r+b") as stream:
        stream.seek(1 << 20)
        stream.write(part.read_bytes())
    found = partition(disk)
    assert (found.grown, found.reason) == (False, None)
    assert found.evidence[0].source is Source.DISK
    assert found.evidence[0].file == "disk.raw"


@pytest.mark.parametrize(
    "command", [["mkfs.ext4", "-q"], ["mkfs.xfs", "-q"], ["mkfs.btrfs", "-q"]], ids=" ".join
)
def test_a_filesystem_on_a_whole_disk_is_a_disk_image(tmp_path, command):
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as stream:
        stream.truncate(320 << 20)
    subprocess.run([*command, disk], check=True)
    [note] = cl.explain(disk).notes
    assert (note.kind, note.detail) == (NoteKind.RECOGNISED, "disk.raw: disk image.")


def test_what_was_recognised_is_said_and_what_was_ignored(tmp_path):
    (tmp_path / "poem.txt").write_text("Whose disk this is I think I know.\n")
    (tmp_path / "lsblk.txt").write_text(LSBLK)
    notes = cl.explain(tmp_path / "poem.txt", tmp_path / "lsblk.txt").notes
    assert {note.kind: note.detail for note in notes} == {
        NoteKind.NOT_RECOGNISED: "poem.txt.",
        NoteKind.RECOGNISED: "lsblk.txt: lsblk.",
    }


@pytest.mark.parametrize(
    ("point", "noted"),
    [("/data", True), ("/", False), ("/etc/hosts\n/dev/vda1 9G 1G 8G 9% /", False)],
)
def test_a_filesystem_that_is_not_root_is_not_explained_and_named_as_such(point, noted):
    df = "Filesystem      Size  Used Avail Use% Mounted on\ntmpfs           1.0G     0  1.0G   0% /run\n"
    notes = cl.explain(f"{df}/dev/vdb1       100G   96G  4.9G  96% {point}\n\n").notes
    named = [one.evidence[0].line for one in notes if one.kind is NoteKind.NOT_ROOT]
    assert named == ([3] if noted else [])


@pytest.mark.parametrize(
    ("hosts", "noted"),
    [(("web1", "web2"), ["web1, web2."]), (("web1", "web1"), []), (("localhost", "web1"), [])],
)
def test_hosts_that_show_one_partition_each_may_be_several_machines(hosts, noted):
    listing = "[root@{} ~]# lsblk\n" + LSBLK
    notes = cl.explain("\n".join(map(listing.format, hosts))).notes
    assert [one.detail for one in notes if one.kind is NoteKind.SEVERAL] == noted


def test_nothing_but_a_poem_is_undecided_and_says_what_would_help():
    for statement in cl.explain("Whose disk this is\nI think I know.\n").statements:
        assert statement.grown is None
        assert statement.fix is None
        assert any("lsblk" in one or "df" in one for one in statement.missing)


@pytest.mark.parametrize("name", ["no-such-file", "folder-without-anything/x"])
def test_a_source_that_is_not_there_is_refused(name, tmp_path):
    with pytest.raises(ParseError) as refused:
        cl.explain(tmp_path / name)
    assert name in str(refused.value)


def test_recordings_and_run_folders_are_explained_as_before():
    run = cl.recorded("growpart-off")
    assert cl.explain("growpart-off") == cl.explain(run.folder) == run.explain()
    findings = [one.finding[:2] for one in cl.explain(run.folder / "console.log").statements]
    assert findings == [one.finding[:2] for one in run.explain().statements]


def test_the_contract_of_json():
    [part, filesystem] = cl.explain(LSBLK).to_json()["statements"]
    assert set(part) >= {
        *("subject", "device", "grown", "by", "reason", "from_bytes", "to_bytes"),
        *("evidence", "missing", "fix", "words"),
    }
    assert (part["subject"], part["device"], part["grown"]) == ("partition", "sda1", False)
    assert part["by"] is None
    assert part["reason"] is None
    assert set(part["evidence"][0]) >= {"source", "file", "line", "text"}
    assert filesystem["grown"] is None


def test_hostile_names_stay_out_of_commands_and_off_the_terminal():
    text = LSBLK.replace("sda1 ", "sda$(reboot)1 ") + "\x1b]52;c;aGk=\x07\n"
    for statement in cl.explain(text).statements:
        assert "$(reboot)" not in (statement.fix or "")
    assert "\x1b" not in cl.explain(text).to_text()


def test_a_line_almost_like_the_kernels_list_of_partitions_is_read_at_once():
    text = LSBLK + "backup GPT table is not on the end\n sdb: " + "a1" * 100 + "!\n"
    assert partition(text).reason is Reason.GPT_BACKUP


def test_the_command_line_reads_files_recordings_and_standard_input(tmp_path):
    (tmp_path / "lsblk.txt").write_text(LSBLK)
    told = cloudlab("explain", tmp_path / "lsblk.txt")
    assert "lsblk.txt, line 3" in told.stdout
    assert "sudo growpart /dev/sda 1" in told.stdout
    assert (
        json.loads(cloudlab("explain", "--json", "-", stdin=LSBLK).stdout)["statements"][0]["grown"]
        is False
    )
    assert "growpart is switched off" in cloudlab("explain", "growpart-off").stdout
    missing = cloudlab("explain", "nowhere.log")
    assert missing.returncode == 1
    assert "nowhere.log" in missing.stderr


SECRETS = """\
Nov 02 08:31:12 db7.corp.example systemd[1]: Starting cloud-init
root@db7:~# ip address
    inet 192.0.2.77/24 scope global ens3
    inet6 2001:db8:77::12/64 scope global
    link/ether 52:54:00:aa:bb:cc brd ff:ff:ff:ff:ff:ff
root=UUID=7d1c2b3a-0000-4aaa-8bbb-123456789abc /dev/sda1: UUID="7d1c2b3a-0000-4aaa-8bbb-123456789abc"
ssh_authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHH me@laptop]
password: hunter22
passwd: $6$salt$KjhgfdsaKjhgfdsaKjhgfdsa/
2026-01-01 08:00:00,100 - cc_growpart.py[INFO]: '/' resized: changed (/dev/vda, 1) from 2097152000 to 21358427648
"""


def test_redaction_takes_names_and_leaves_what_explains():
    told = cloudlab("explain", "--redact", "-", stdin=SECRETS).stdout
    for secret in (
        "db7",
        "192.0.2.77",
        "2001:db8",
        "52:54:00",
        "7d1c2b3a",
        "AAAAC3",
        "hunter22",
        "$6$",
    ):
        assert secret not in told
    assert told.count("UUID-1") == 2
    assert "'/' resized: changed (/dev/vda, 1) from 2097152000 to 21358427648" in told
    assert told.count("\n") == SECRETS.count("\n")


@A_CASE
def test_a_redacted_copy_is_explained_alike(case, tmp_path):
    copies = []
    for path in files_of(case):
        stream = io.StringIO()
        redact_files([path], stream, io.BytesIO())
        (tmp_path / path.name).write_text(stream.getvalue())
        copies.append(tmp_path / path.name)
    plain = [one.finding for one in explained(case).statements]
    assert [one.finding for one in cl.explain(*copies).statements] == plain


@pytest.mark.parametrize(
    ("source", "words"), [("/dev/zero", "not a text"), ("link", "a link that leads nowhere")]
)
def test_what_cannot_be_redacted_is_refused(source, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(ParseError, match=words) as caught:
        redact_files([source], io.StringIO(), io.BytesIO())
    assert caught.value.hint


def test_a_redacted_archive_is_refused(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(__file__, "x")
    (tmp_path / "a.tar").write_bytes(stream.getvalue())
    told = cloudlab("explain", "--redact", tmp_path / "a.tar")
    assert told.returncode == 1
    assert "Unpack" in told.stderr


def test_the_readme_shows_what_is_printed():
    readme = (scoreboard.ROOT / "README.md").read_text()
    told = cl.explain(FIRST_ROUND / "53-oke-growpart-by-hand" / "session.txt").to_text()
    assert told in readme


LINES = [
    line
    for case in CASES
    for path in files_of(case)
    for line in path.read_text().split("\n")
    if len(line) < 300
]


@examples(60)
@given(st.lists(st.sampled_from(LINES) | st.text(max_size=60), max_size=60))
def test_any_lines_in_any_order_are_explained_without_harm(lines):
    explanation = cl.explain("\n".join(lines) + "\n\n")
    document = json.loads(json.dumps(explanation.to_json()))
    assert {one["subject"] for one in document["statements"]} >= {"partition", "filesystem"}
    assert explanation.to_text().replace("\n", "").isprintable()
    for one in document["statements"]:
        assert one["grown"] is not None or one["missing"]
        assert one["grown"] is not False or one["reason"] or one["missing"] or one["evidence"]


@examples(60)
@given(st.sampled_from(CASES), st.data())
def test_evidence_that_ends_early_is_explained_too(case, data):
    texts = [path.read_text() for path in files_of(case)]
    cut = [text[: data.draw(st.integers(0, len(text)))] + "\n\n" for text in texts]
    for statement in cl.explain(*cut).statements:
        assert statement.fix is None or statement.grown is not True or statement.reason


def test_a_large_log_is_read_in_one_pass_without_keeping_it(tmp_path):
    case = FIRST_ROUND / "43-eks-al2023-healthy"
    noise = b"".join(
        b"2025-06-03 14:02:18,466 - util.py[DEBUG]: Read %d bytes\n" % n for n in range(40_000)
    )
    log = tmp_path / "cloud-init.log"
    log.write_bytes(noise + (case / "cloud-init.log").read_bytes() + noise)
    statement = partition(log)
    assert statement.finding == (True, Grower.GROWPART, None)
    assert statement.evidence[0].line == 40_015


MULTIPATH = """\
# lsblk
NAME        MAJ:MIN RM  SIZE RO TYPE  MOUNTPOINT
sda           8:0    0  100G  0 disk
└─mpatha    253:0    0  100G  0 mpath
  ├─mpatha1 253:1    0    1G  0 part  /boot
  └─mpatha2 253:2    0   39G  0 part  /
2025-03-04 05:06:07,112 - cc_growpart.py[DEBUG]: '/' SKIPPED: Resizing mapped device (/dev/mapper/mpatha2) skipped as it is not encrypted.
"""


def test_a_mapped_device_that_is_no_volume_is_not_called_one():
    found = partition(MULTIPATH)
    assert (found.grown, found.reason) == (False, None)
    assert "parted /dev/mapper/mpatha resizepart 2 100%" in found.fix


IGNITION = """\
[    8.1] ignition-ostree-growfs[701]: CHANGED: partition=4 start=1050624 old: size=4257792 end=5308415 new: size=19920863 end=20971486
[    8.9] ignition-ostree-growfs[733]: meta-data=/dev/vda4              isize=512    agcount=4
[    8.9] ignition-ostree-growfs[733]: data blocks changed from 532224 to 2490107
[    9.2] XFS (vda4): Mounting V5 Filesystem
"""


def test_growth_in_another_initramfs_is_told_apart_from_growroot():
    found = cl.explain(IGNITION)
    assert [one.finding[:2] for one in found.statements] == [(True, Grower.INITRAMFS)] * 2


def test_a_hypervisors_own_disks_are_left_out():
    host = "root@pve:~# qm resize 100 scsi0 +80G\nroot@pve:~# lsblk\n" + LSBLK.replace("20G", "90G")
    guest = "me@vm:~$ lsblk\n" + LSBLK.replace("10G", "19.9G")
    assert partition(host + guest).grown is None
    assert partition(guest.replace("19.9G", "10G") + host).evidence[0].line == 3


GROWN = (
    "CHANGED: partition={} start=2048 old: size=4192256 end=4194303 new: size=41940959 end=41943006"
)


@pytest.mark.parametrize(
    ("text", "grown", "device"),
    [
        pytest.param(
            GROWN.format(1) + "\nresize2fs: Bad magic number in super-block while trying to open"
            " /dev/nvme0n1p1\n\n",
            (True, Grower.GROWPART, None),
            "nvme0n1p1",
            id="a resize after it",
        ),
        pytest.param(
            "## sfdisk --unit=S --dump /dev/vda\n" + GROWN.format(2) + "\n\n",
            (True, Grower.GROWPART, None),
            "vda2",
            id="the table's dump before it",
        ),
        pytest.param(
            GROWN.format(1) + "\nmeta-data=/dev/sdc1   isize=512\n\n",
            (None, Grower.UNKNOWN, None),
            "",
            id="a data disk",
        ),
        pytest.param(
            GROWN.format(1) + "\nThe filesystem on /dev/vda2 is now 5242619 (4k) blocks long.\n\n",
            (None, Grower.UNKNOWN, None),
            "",
            id="another partition",
        ),
        pytest.param(GROWN.format(1) + "\n\n", (True, Grower.GROWPART, None), "", id="no device"),
        pytest.param(
            "WARNING: MBR/dos partitioned disk is larger than 2TB. Additional space will go unused.\n"
            + GROWN.format(1)
            + "\n\n",
            (True, Grower.GROWPART, Reason.MBR_2_TIB),
            "",
            id="as far as an MBR reaches",
        ),
        pytest.param(
            "NOCHANGE: partition 2 could only be grown by -33 [fudge=2048]\n\n",
            (False, Grower.NOBODY, Reason.DISK_NOT_LARGER),
            "",
            id="beyond the disk's last usable sector",
        ),
        pytest.param(
            "Script loc-05-grow-rootfs output: FAILED: /dev/roo: does not exist\n\n",
            (False, Grower.NOBODY, Reason.DEVICE_NOT_FOUND),
            "",
            id="a name cut from /dev/root",
        ),
        pytest.param(
            "util.py[WARNING]: Failed: gpart recover /dev/vda\n\n",
            (False, Grower.NOBODY, Reason.GROWPART_FAILED),
            "",
            id="another resizer",
        ),
        pytest.param(
            "util.py[WARNING]: Failed growpart --dry-run for (/dev/block/8:16, 4)\n\n",
            (None, Grower.UNKNOWN, None),
            "",
            id="sdb by its number",
        ),
        pytest.param(
            "systemd-repart[99]: Can't fit requested partitions into available free space (0B), refusing.\n\n",
            (False, Grower.NOBODY, None),
            "",
            id="systemd-repart",
        ),
    ],
)
def test_growparts_output_is_about_the_partition_that_stands_around_it(text, grown, device):
    found = partition(text)
    assert (found.finding, found.device) == (grown, device)


BLKPG = GROWN.format(1) + "\nBLKPG: Device or resource busy\nerror adding partition 1\n"


@pytest.mark.parametrize(
    ("after", "finding"),
    [
        ("", (False, Reason.TABLE_BUSY)),
        (
            "Resizing the filesystem on /dev/vda1 to 524032 (4k) blocks.\n",
            (False, Reason.TABLE_BUSY),
        ),
        ("Resizing the filesystem on /dev/vda1 to 5242619 (4k) blocks.\n", (True, None)),
        ("The filesystem is already 5242619 (4k) blocks long.  Nothing to do!\n", (True, None)),
    ],
)
def test_a_busy_table_is_believed_until_something_sees_the_new_size(after, finding):
    found = partition("# growpart /dev/vda 1\n" + BLKPG + after + "\n\n")
    assert (found.grown, found.reason) == finding


def test_rows_of_lsblk_without_the_header_are_read():
    rows = LSBLK.split("\n", 1)[1]
    assert partition("me@vm:~$ lsblk\n" + rows).finding == partition(LSBLK).finding
    volume = rows.replace("part /\n", "part\n  └─vg-root 253:0    0    8G  0 lvm  /\n")
    assert root_filesystem(volume).finding == (False, Grower.NOBODY, Reason.LOGICAL_VOLUME)


CYLINDERS = """\
Disk /dev/sda: 21.5 GB, 21474836480 bytes
255 heads, 63 sectors/track, 2610 cylinders
Units = cylinders of 16065 * 512 = 8225280 bytes

   Device Boot      Start         End      Blocks   Id  System
/dev/sda1   *           1          64      512000   83  Linux
Partition 1 does not end on cylinder boundary.
/dev/sda2              64        {}    {}   8e  Linux LVM

Filesystem            Size  Used Avail Use% Mounted on
/dev/mapper/vg-root   {}  1.2G  6.0G  17% /
"""


def test_old_fdisk_counts_in_cylinders():
    small = cl.explain(CYLINDERS.format(1306, 9973760, "8.9G"))
    assert only(small, Subject.PARTITION).finding == (False, Grower.NOBODY, Reason.LOGICAL_VOLUME)
    large = cl.explain(CYLINDERS.format(2611, 20458496, "8.9G"))
    assert only(large, Subject.PARTITION).grown is None
    volume = only(large, Subject.FILESYSTEM)
    assert volume.finding == (False, Grower.NOBODY, Reason.LOGICAL_VOLUME)
    assert "pvresize /dev/sda2" in volume.fix
    assert "lvextend -r -l +100%FREE /dev/mapper/vg-root" in volume.fix
    assert root_filesystem(CYLINDERS.format(2611, 20458496, "19.2G")).grown is None


BY_LABEL = """\
Disk /dev/vda: 100 GiB, 107374182400 bytes, 209715200 sectors

Device     Boot Start     End Sectors Size Id Type
/dev/vda1        2048 4194303 4192256   2G 83 Linux

Filesystem               1M-blocks  Used Available Use% Mounted on
/dev/disk/by-label/root       {}   765      1100  42% /
"""


def test_a_root_by_label_is_the_partition_that_it_fills():
    assert partition(BY_LABEL.format(1983)).device == "vda1"
    assert partition(BY_LABEL.format(900)).device == ""
    second = BY_LABEL.format(1983).replace(
        "Filesystem", "Disk /dev/vdb: 2 GiB, 2147483648 bytes\n\nFilesystem"
    )
    assert partition(second).device == ""


READ_ONLY = """\
systemd-growfs[840]: Failed to resize "/" to 1894400 blocks ({0}): Read-only file system
# mount | grep ' / '
/dev/vda1 on / type {0} (ro,relatime)
"""


def test_an_ordinary_root_that_is_read_only_for_now_is_not_immutable():
    found = root_filesystem(READ_ONLY.format("ext4"))
    assert found.finding == (False, Grower.NOBODY, Reason.RESIZE_FAILED)
    assert "mount -o remount,rw /" in found.fix
    found = root_filesystem(READ_ONLY.format("btrfs"))
    assert found.finding == (False, Grower.NOBODY, Reason.IMMUTABLE_ROOT)


BTRFS = """\
box ~ # btrfs filesystem resize max /
Resize device id 1 (/dev/vda2) from 3.09GiB to max
box ~ # df -h
Filesystem      Size  Used Avail Use% Mounted on
/dev/vda2       {}  2.3G   12G  17% /
"""


def test_btrfs_grew_if_what_is_mounted_is_larger_afterwards():
    assert root_filesystem(BTRFS.format("15G")).finding == (True, Grower.OTHER, None)
    assert root_filesystem(BTRFS.format("3.1G")).grown is None


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ('systemd-growfs[111]: Failed to open "/dev/block/179:2": No such file or directory', ""),
        ("open: No such file or directory while opening /dev/sda2", ""),
        ("systemd[1]: ignition-ostree-growfs.service: Failed with result 'exit-code'.", ""),
        ("FileNotFoundError: [Errno 2] No such file or directory: b'resize2fs'", "e2fsprogs"),
        ("resize-root.sh[7]: xfs_growfs: command not found", "xfsprogs"),
    ],
)
def test_a_resize_that_failed_is_told_by_what_its_program_says(line, fix):
    failed = "util.py[WARNING]: Failed to resize filesystem (cmd=('resize2fs', '/dev/sda2'))\n"
    text = (failed if "FileNotFound" in line else "") + line + "\n\n"
    found = root_filesystem(text)
    assert found.finding == (False, Grower.NOBODY, Reason.RESIZE_FAILED)
    assert fix in found.fix
    assert partition(text).grown is None


def test_what_may_lie_behind_root_is_named_before_the_commands():
    behind = LSBLK + "└─sda2    8:2    0    5G  0 part /home\n"
    assert "sda2" in partition(behind).fix
    assert "sda15" not in partition(LSBLK).fix


def test_freebsd_gets_its_own_commands():
    log = (
        "cc_growpart.py[DEBUG]: '/' SKIPPED: device_part_info(/dev/da0a) failed: Invalid value\n\n"
    )
    fix = partition(log).fix
    assert "gpart resize" in fix
    assert "growfs" in fix
    assert "growpart" not in fix


#: What may be said of another disk than root's, as programs say it.
ANOTHER_DISK = """\
# fdisk /dev/sdz
The partition table has been altered.
Calling ioctl() to re-read partition table.
Re-reading the partition table failed.: Device or resource busy
The kernel still uses the old table. The new table will be used at the next reboot.

# growpart /dev/sdz 1
CHANGED: partition=1 start=2048 old: size=41940992 end=41943039 new: size=104855519 end=104857566

# growpart /dev/sdz 1
FAILED: failed to get a resizer for format ''

# growpart /dev/sdz 1
WARNING: MBR/dos partitioned disk is larger than 2TB. Additional space will go unused.
NOCHANGE: partition 1 is size 4294965247. it cannot be grown

# resize2fs /dev/sdz1
resize2fs 1.47.0 (5-Feb-2023)
Filesystem at /dev/sdz1 is mounted on /data; on-line resizing required
old_desc_blocks = 3, new_desc_blocks = 7
The filesystem on /dev/sdz1 is now 13106939 (4k) blocks long.

# resize2fs /dev/sdz1
resize2fs 1.47.0 (5-Feb-2023)
The filesystem is already 13106939 (4k) blocks long.  Nothing to do!

# resize2fs /dev/sdz1
resize2fs 1.47.0 (5-Feb-2023)
Please run 'e2fsck -f /dev/sdz1' first.

# xfs_growfs /data
meta-data=/dev/sdz1              isize=512    agcount=4, agsize=1310656 blks
data     =                       bsize=4096   blocks=5242624, imaxpct=25
data blocks changed from 5242624 to 13106939

# xfs_growfs /data
xfs_growfs: /data is not a mounted XFS filesystem

# btrfs filesystem resize max /data
Resize device id 1 (/dev/sdz1) from 10.00GiB to max
ERROR: unable to resize '/data': Read-only file system

[ 9999.123456] EXT4-fs (sdz1): resizing filesystem from 2621440 to 5242880 blocks
[ 9999.223456] sdz: detected capacity change from 10737418240 to 21474836480

# fdisk -l /dev/sdz
GPT PMBR size mismatch (20971519 != 41943039) will be corrected by write.
The backup GPT table is not on the end of the device.
Disk /dev/sdz: 20 GiB, 21474836480 bytes, 41943040 sectors
Disklabel type: gpt

systemd-growfs[1]: Failed to resize "/data" to 1894400 blocks (ext4): No space left on device
systemd[1]: Failed to start Grow File System on /data.

systemd-repart[2]: Applying changes to /dev/sdz.
systemd-repart[2]: Growing existing partition 1.

  Size of logical volume vgz/data changed from 10.00 GiB (2560 extents) to 30.00 GiB (7680 extents).

/dev/sdz1: UUID="x" TYPE="ext4"

# sgdisk -e /dev/sdz
The operation has completed successfully.
"""


def claims_no_more(case, noise):
    """Assert that a case's answer is the same, or left open, with more text beside its files."""
    plain = explained(case).statements
    found = cl.explain(*files_of(case), f"{noise}\n\n").statements
    assert [one.subject for one in found] == [one.subject for one in plain]
    for one, known in zip(found, plain, strict=True):
        assert one.grown is None or one.finding == known.finding, noise


@A_CASE
def test_what_is_said_of_another_disk_changes_no_claim(case):
    claims_no_more(case, ANOTHER_DISK)


@pytest.mark.parametrize("case", few(CASES, 60), ids=lambda case: case.name)
def test_nothing_of_it_alone_changes_a_claim(case):
    for noise in ANOTHER_DISK.split("\n\n"):
        claims_no_more(case, noise)


@pytest.mark.parametrize(
    "shown",
    [
        "\tdevid    1 size 4.00GiB used 1.50GiB path /dev/vda2\n\n",
        (
            "cc_growpart.py[DEBUG]: '/' SKIPPED: stat of 'zroot/ROOT/default' failed: [Errno 2]\n"
            "Filesystem     1K-blocks  Used Available Use% Mounted on\n"
            "/dev/vda15        106832  6186    100646   6% /boot/efi\n"
        ),
    ],
)
def test_a_btrfs_that_may_be_root_and_a_root_on_zfs_are_not_called_mounted_elsewhere(shown):
    assert NoteKind.NOT_ROOT not in {one.kind for one in cl.explain(shown).notes}
