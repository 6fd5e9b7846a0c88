"""The commands that explanations offer, for storage of each kind, and what they must not touch."""

import re

import pytest
from explained import (
    DF,
    GREW,
    RESIZED,
    ROOM,
    WHOLE,
    growpart,
    kept,
    only,
    resizefs,
    told,
)

import cloudlab as cl
from cloudlab.explanation import Grower, Reason, Statement, Subject
from cloudlab.explanation.events import read_events
from cloudlab.explanation.evidence import read_evidence
from cloudlab.explanation.facts import read_facts
from cloudlab.explanation.machine import Machine

SWAP_BEHIND = """\
Disk /dev/sda: 80 GiB, 85899345920 bytes, 167772160 sectors
Disklabel type: dos

Device     Boot    Start      End  Sectors  Size Id Type
/dev/sda1  *        2048 39061503 39059456 18.6G 83 Linux
/dev/sda2       39063550 {end} {count}  {size}  5 Extended
/dev/sda5       39063552 41060351  1996800  975M 82 Linux swap / Solaris
"""
SWAP_AND_HOME = SWAP_BEHIND.format(end=83884031, count=44820482, size="21.4G") + (
    "/dev/sda6       41062400 83884031 42821632 20.4G 83 Linux\n"
)
ONLY_SWAP = SWAP_BEHIND.format(end=41060351, count=1996802, size="975M")
LISTED_SWAP = """
# lsblk
NAME   MAJ:MIN RM  SIZE RO TYPE MOUNTPOINT
sda      8:0    0   80G  0 disk
├─sda1   8:1    0 18.6G  0 part /
├─sda2   8:2    0    1K  0 part
"""
TWO_SWAPS = """\
Disk /dev/sda: 60 GiB, 64424509440 bytes, 125829120 sectors
Disklabel type: gpt

Device        Start      End  Sectors Size Type
/dev/sda2   2099200 10487807  8388608   4G Linux swap
/dev/sda3  10487808 52430847 41943040  20G Linux filesystem
/dev/sda4  52430848 56625151  4194304   2G Linux swap

# lsblk
NAME   MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
sda      8:0    0   60G  0 disk
├─sda2   8:2    0    4G  0 part [SWAP]
├─sda3   8:3    0   20G  0 part /
└─sda4   8:4    0    2G  0 part [SWAP]
"""


@pytest.mark.parametrize(
    ("shown", "deleted"),
    [
        (ONLY_SWAP + LISTED_SWAP + "└─sda5   8:5    0  975M  0 part [SWAP]\n", ["5", "2"]),
        (
            SWAP_AND_HOME
            + LISTED_SWAP
            + "├─sda5   8:5    0  975M  0 part [SWAP]\n└─sda6   8:6    0 20.4G  0 part /home\n",
            [],
        ),
        (ONLY_SWAP + LISTED_SWAP + "└─sda5   8:5    0  975M  0 part /home\n", []),
        (
            ONLY_SWAP
            + LISTED_SWAP
            + "├─sda5   8:5    0  975M  0 part [SWAP]\n└─sda6   8:6    0 20.4G  0 part /home\n",
            [],
        ),
        (
            ONLY_SWAP
            + LISTED_SWAP
            + "└─sda5   8:5    0  975M  0 part\n  └─key  254:0    0  975M  0 crypt [SWAP]\n",
            [],
        ),
        (TWO_SWAPS, ["4"]),
        (TWO_SWAPS.replace("[SWAP]\n└─sda4   8:4    0    2G  0 part [SWAP]", "[SWAP]"), ["4"]),
        (TWO_SWAPS.replace("4194304   2G Linux swap", "4194304   2G Linux filesystem")
         .replace("2G  0 part [SWAP]", "2G  0 part /srv"), []),
    ],
    ids=[
        "alone", "home behind it", "another use", "not in the table", "encrypted", "one before root",
        "as typed", "data only",
    ],
)  # fmt: skip
def test_swap_is_deleted_only_if_nothing_else_lies_behind_root(shown, deleted):
    found = told(shown, Subject.PARTITION)
    assert found.reason is Reason.WALL
    assert re.findall(r"sfdisk --delete /dev/sda (\d+)", found.fix) == deleted
    assert ("swapoff" in found.fix) is bool(deleted)
    assert ("GParted" in found.fix) is not deleted


def test_swap_that_stays_stays_in_fstab():
    unlisted = TWO_SWAPS.partition("# lsblk")[0] + "# findmnt -n /\n/ /dev/sda3 ext4 rw,relatime\n"
    for shown in (TWO_SWAPS, unlisted):
        fix = told(shown, Subject.PARTITION).fix
        assert "sed -i" not in fix
        assert "lsblk -o NAME,UUID /dev/sda4\n" in fix


def test_a_swap_whose_deletion_renumbers_root_stays():
    rows = [
        "/dev/sda2        2048 41060351 41058304 19.6G  5 Extended",
        "/dev/sda5    39061567 41060351  1998785  976M 82 Linux swap / Solaris",
        "/dev/sda6        4096 39061503 39057408 18.6G 83 Linux\n",
    ]
    shown = (
        "\n".join([*ONLY_SWAP.splitlines()[:4], *rows]) + "\n# findmnt -n /\n/ /dev/sda6 ext4 rw\n"
    )
    found = told(shown, Subject.PARTITION)
    assert (found.device, found.reason) == ("sda6", Reason.WALL)
    assert "sfdisk --delete" not in found.fix


THIN_LSBLK = """\
NAME                   MAJ:MIN RM  SIZE RO TYPE MOUNTPOINT
vda                    252:0    0   80G  0 disk
└─vda2                 252:2    0   39G  0 part
  ├─my--vg-pool00_tmeta  253:0    0   32M  0 lvm
  │ └─my--vg-pool00-tpool 253:2   0 30.2G  0 lvm
  │   ├─my--vg-root      253:3    0 30.2G  0 lvm  /
  │   └─my--vg-pool00    253:4    0 30.2G  1 lvm
"""
THIN_LVS = """\
$ df -h /
Filesystem              Size  Used Avail Use% Mounted on
/dev/mapper/my--vg-root  30G   28G  1.9G  94% /
$ lvs
  LV     VG    Attr       LSize  Pool   Origin Data%  Meta%
  pool00 my-vg twi-aotz-- 30.21g                40.11  20.31
  root   my-vg Vwi-aotz-- 30.21g pool00         40.11
$ vgs
  VG    #PV #LV #SN Attr   VSize   VFree
  my-vg   1   2   0 wz--n- <79.00g 40.00g
"""


@pytest.mark.parametrize("shown", [THIN_LSBLK, THIN_LVS], ids=["lsblk", "lvs"])
def test_a_thin_volume_grows_by_a_size_after_its_pool(shown):
    found = cl.explain(shown)
    fixes = [one.fix for one in found.statements if one.fix]
    assert fixes
    for fix in fixes:
        extended = [line for line in fix.splitlines() if line.startswith("sudo lvextend")]
        assert [line.partition("  #")[0] for line in extended] == [
            "sudo lvextend -l +100%FREE my-vg/pool00",
            "sudo lvextend -r -L +SIZE /dev/mapper/my--vg-root",
        ]
        assert fix.count("pvresize") == 1
    if shown is THIN_LSBLK:
        assert fixes[0].endswith("#     - lvextend -l +100%FREE my-vg/pool00")


IN_LOGICAL = """\
NAME                  MAJ:MIN RM  SIZE RO TYPE MOUNTPOINT
sda                     8:0    0   60G  0 disk
├─sda1                  8:1    0  487M  0 part /boot
├─sda2                  8:2    0    1K  0 part
└─sda5                  8:5    0 19.5G  0 part
  ├─debian--vg-root   254:0    0 18.6G  0 lvm  /
  └─debian--vg-swap_1 254:1    0  976M  0 lvm  [SWAP]
"""
EXTENDED_TABLE = """\
Disk /dev/sda: 60 GiB, 64424509440 bytes, 125829120 sectors
Disklabel type: dos

Device     Boot   Start      End  Sectors  Size Id Type
/dev/sda1  *       2048   999423   997376  487M 83 Linux
/dev/sda3       1001470 41940991 40939522 19.5G  5 Extended
/dev/sda5       1001472 41940991 40939520 19.5G 8e Linux LVM

"""


@pytest.mark.parametrize(
    ("shown", "number"), [(IN_LOGICAL, 2), (EXTENDED_TABLE + IN_LOGICAL.replace("sda2", "sda3"), 3)]
)
def test_the_extended_partition_grows_before_the_logical_one_in_it(shown, number):
    fix = told(shown, Subject.PARTITION).fix
    commands = [one.partition("  #")[0] for one in fix.splitlines() if "growpart" in one][:3]
    assert commands == [
        f"sudo growpart /dev/sda {number}",
        "sudo growpart --dry-run /dev/sda 5",
        "sudo growpart /dev/sda 5",
    ]
    assert f"devices: [/dev/sda{number}, /dev/sda5]" in fix


@pytest.mark.parametrize(("fstype", "file"), [("ext4", "/swapfile"), ("btrfs", "/swap/swapfile")])
def test_a_swap_file_on_btrfs_is_not_copied_on_write(fstype, file):
    shown = TWO_SWAPS + f"\n# findmnt -no SOURCE,FSTYPE /\n/dev/sda3 {fstype}\n"
    fix = told(shown, Subject.PARTITION).fix
    assert f"fallocate -l 1G {file} " in fix
    assert ("chattr +C /swap/swapfile" in fix) is (fstype == "btrfs")
    assert "remove resume=" in fix


def test_a_btrfs_that_is_read_only_at_root_grows_through_another_mount():
    shown = """\
NAME   MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
vda    254:0    0   40G  0 disk
├─vda3 254:3    0   24G  0 part /home
│                               /.snapshots
│                               /
└─vda4 254:4    0    5G  0 part /var
# findmnt /
TARGET SOURCE                           FSTYPE OPTIONS
/      /dev/vda3[/@/.snapshots/3/snapshot] btrfs ro,relatime,subvolid=270
"""
    for fails in (
        "",
        "# btrfs filesystem resize max /\nERROR: unable to resize '/': Read-only file system\n",
    ):
        fixes = [one.fix for one in cl.explain(shown + fails).statements if one.fix]
        assert fixes
        for fix in fixes:
            assert "btrfs filesystem resize max /.snapshots" in fix
            assert "/var" not in fix


@pytest.mark.parametrize(("level", "grows"), [("raid0", False), ("linear", False), ("raid1", True)])
def test_an_array_without_redundancy_cannot_use_more_of_its_members(level, grows):
    shown = f"""\
NAME    MAJ:MIN RM  SIZE RO TYPE  MOUNTPOINTS
vda     259:0    0  200G  0 disk
└─vda2  259:3    0   99G  0 part
  └─md0   9:0    0   99G  0 {level} /
# df -h /
Filesystem      Size  Used Avail Use% Mounted on
/dev/md0         97G   60G   33G  66% /
"""
    fixes = "\n".join(filter(None, (one.fix for one in cl.explain(shown).statements)))
    assert ("sudo mdadm --grow /dev/md0 --size=max" in fixes) is grows
    assert ("restore" in fixes) is not grows
    assert ("sudo growpart" in fixes) is grows


def test_roots_own_device_of_a_btrfs_is_resized():
    shown = """\
Label: 'fedora'  uuid: 3f1c1a2b-aaaa-bbbb-cccc-1234567890ab
\tTotal devices 2 FS bytes used 14.20GiB
\tdevid    1 size 10.00GiB used 9.02GiB path /dev/vdb1
\tdevid    2 size 10.00GiB used 9.02GiB path /dev/vda1

"""
    for number, prefix in ((1, "2:"), (2, "")):
        text = shown.replace("devid    2", f"devid    {3 - number}") + ROOM
        text += "# findmnt -no SOURCE,FSTYPE /\n/dev/vda1 btrfs\n"
        assert (
            f"btrfs filesystem resize {prefix}max /\n" in told(text, Subject.PARTITION).fix + "\n"
        )


USUAL = ["resize2fs", "xfs_growfs", "btrfs filesystem resize"]
TYPED = {
    "btrfs filesystem resize max /": """\
# parted /dev/vda print
Disk /dev/vda: 21.5GB
Partition Table: gpt

Number  Start   End     Size    File system  Name  Flags
 1      1049kB  10.7GB  10.7GB  btrfs

""",
    "btrfs filesystem resize 2:max /": """\
# btrfs filesystem show /
\tdevid    2 size 10.00GiB used 9.02GiB path /dev/vda1

""",
    "xfs_growfs /": """\
# xfs_growfs /
meta-data=/dev/vda1              isize=512    agcount=4, agsize=655296 blks
data     =                       bsize=4096   blocks=2621184, imaxpct=25
data size unchanged, skipping
""",
}


@pytest.mark.parametrize(("command", "shown"), TYPED.items(), ids=["parted", "btrfs", "xfs"])
def test_a_filesystems_type_is_what_its_own_or_a_partitioning_program_says(command, shown):
    found = told(shown + ROOM.replace(" part /", " part /var"), Subject.PARTITION)
    assert ("vda1" in found.device) == ("meta-data=" in shown)
    found = told(shown + ROOM, Subject.PARTITION)
    assert f"sudo {command}" in found.fix.split("\n")
    assert "if that is" not in found.fix


@pytest.mark.parametrize(
    ("said", "commands"),
    [
        ("[    4.1] XFS (vda1): Mounting V5 Filesystem\n", ["xfs_growfs"]),
        ("[    4.1] EXT4-fs (vda1): mounted filesystem\n", ["resize2fs"]),
        ("[    4.1] EXT4-fs (vdb1): resizing filesystem from 1 to 2\n", USUAL),
        ("[    4.1] EXT4-fs (vdb1): mounted filesystem\n", USUAL),
        ("# xfs_growfs /\nxfs_growfs: / is not a mounted XFS filesystem\n", USUAL),
        ("# xfs_growfs /\n-bash: xfs_growfs: command not found\n", ["xfs_growfs"]),
        ("[    4.1] EXT4-fs (dm-1): resizing filesystem from 1 to 2\n", USUAL),
    ],
)
def test_the_type_is_the_kernels_for_root_and_not_that_of_a_program_that_refused_it(said, commands):
    fix = told(ROOM + said, Subject.PARTITION).fix
    assert [one for one in USUAL if f"sudo {one} " in fix] == commands


def test_the_kernels_mapping_is_the_root_volume_that_only_df_names():
    df = "Filesystem  1K-blocks  Used Available Use% Mounted on\n/dev/mapper/rhel-root {} / \n\n"
    row = df.replace("{}", "10218772 5000000 4600000  53%")
    documents = read_evidence([f"{row}[    4.1] EXT4-fs (dm-0): resizing filesystem from 1 to 2\n"])
    assert Machine(read_facts(documents), read_events(documents)).fstype == "ext4"


@pytest.mark.parametrize(
    "said",
    [
        "# xfs_growfs /\nmeta-data=/dev/vda1 isize=512\n# mkfs.xfs /dev/vdb\nmeta-data=/dev/vdb isize=512\n",
        "+ xfs_growfs /\nxfs_growfs: / is not a mounted XFS filesystem\nmeta-data=/dev/vdb isize=512\n",
        "# xfs_info /\nmeta-data=/dev/vda1 isize=512\n# xfs_growfs -D 9 /data\nmeta-data=/dev/vdb isize=5\n",
    ],
)
def test_what_other_programs_of_xfs_say_of_another_disk_is_not_taken_for_root(said):
    found = told(said + ROOM.replace(" part /", " part /var"), Subject.PARTITION)
    assert "vdb" not in f"{found.device} {found.fix}"


def test_all_usual_commands_are_named_where_the_type_is_unknown():
    found = told(ROOM, Subject.PARTITION)
    for command, rest in zip(USUAL, (" /dev/vda1", " /", " max /"), strict=True):
        assert f"sudo {command}{rest}  # if that is " in found.fix


ENLARGED_AGAIN = """\
{growpart}
{resizefs}
2026-12-22 22:28:24,731 - cc_growpart.py[DEBUG]: '/' NOCHANGE: no change necessary (/dev/vda, 1)
2026-12-22 22:28:25,121 - cc_resizefs.py[DEBUG]: Resized root filesystem (type=ext4, val=True)
$ lsblk
NAME    MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
vda     252:0    0 {disk:>4}  0 disk
├─vda1  252:1    0 19.9G  0 part /
├─vda15 252:15   0  106M  0 part /boot/efi
"""


@pytest.mark.parametrize(
    ("disk", "after", "reason"),
    [
        ("60G", "└─vda16 259:0    0  913M  0 part /boot\n", Reason.ENLARGED_SINCE),
        ("21G", "└─vda16 259:0    0  913M  0 part /boot\n", None),
        ("60G", "└─vda2  252:2    0    2G  0 part [SWAP]\n", None),
    ],
    ids=["enlarged", "as grown", "another partition may be behind root"],
)
def test_a_disk_that_was_enlarged_since_root_grew_has_room_again(disk, after, reason):
    found = cl.explain(ENLARGED_AGAIN.format(growpart=GREW, resizefs=RESIZED, disk=disk) + after)
    partition, filesystem = found.statements
    assert partition.finding == (True, Grower.GROWPART, reason)
    assert ("growpart /dev/vda 1" in (partition.fix or "")) is bool(reason)
    assert ("has had more room since" in found.to_text()) is bool(reason)
    assert filesystem.evidence[0].text == RESIZED


@pytest.mark.parametrize(
    ("said", "larger"),
    [
        ("sdb: detected capacity change from 209715200 to 419430400", False),
        ("loop2: detected capacity change from 79520 to 0", False),
        ("vda: detected capacity change from 83886080 to 41943040", False),
        ("vda: detected capacity change from 20971520 to 41943040", True),
        ("virtio_blk virtio2: [vda] new size: 41943040 512-byte logical blocks", True),
    ],
)
def test_only_roots_own_disk_that_became_larger_has_room(said, larger):
    log = growpart("'/' NOCHANGE: no change necessary (/dev/vda, 1)\n") + f"[ 9123.10] {said}\n"
    found = told(log + ROOM, Subject.PARTITION)
    assert found.finding == kept(Reason.DISK_NOT_LARGER if larger else None)
    assert ("has seen the larger disk" in found.fix) is larger
    cannot = "# growpart /dev/vda 1\nNOCHANGE: partition 1 is size 41940959. it cannot be grown\n"
    by_hand = told(f"{WHOLE}{cannot}[ 9123.10] {said}\n", Subject.PARTITION)
    if not larger:
        assert by_hand.reason is Reason.DISK_NOT_LARGER
        assert "qemu-img resize" in by_hand.fix


@pytest.mark.parametrize(
    ("root", "why", "logical"),
    [
        (
            "/dev/mapper/rhel-root",
            "Resizing mapped device (/dev/mapper/rhel-root) skipped as it is not encrypted.",
            True,
        ),
        (
            "/dev/mapper/ubuntu--vg-ubuntu--lv",
            "device_part_info(/dev/dm-0) failed: /dev/dm-0 not a partition",
            True,
        ),
        ("/dev/dm-0", "device_part_info(/dev/dm-0) failed: /dev/dm-0 not a partition", False),
        ("/dev/mapper/a-b", "device_part_info(/dev/dm-0) failed: /dev/dm-0 not a partition", False),
        (
            "/dev/mapper/mpatha-part2",
            "device_part_info(/dev/mapper/mpatha-part2) failed: not a partition",
            False,
        ),
        (
            "/dev/mapper/luks-root",
            "device_part_info(/dev/dm-0) failed: /dev/dm-0 not a partition",
            False,
        ),
    ],
)
def test_a_log_alone_names_a_logical_volume(root, why, logical):
    log = growpart(f"'/' SKIPPED: {why}\n") + resizefs(
        f"resize_info: dev={root} mnt_point=/ path=/\n"
    )
    found = cl.explain(log + RESIZED + "\n")
    partition = only(found, Subject.PARTITION)
    assert (partition.reason is Reason.LOGICAL_VOLUME) is logical
    for statement in (partition, only(found, Subject.FILESYSTEM)):
        assert ("sudo pvresize /dev/PARTITION\nsudo lvextend -r -l" in statement.fix) is logical
        assert statement.evidence


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ("-ash: growpart: not found", "apk add cloud-utils-growpart"),
        ("-bash: growpart: command not found", "apt-get install cloud-guest-utils"),
        ("package cloud-utils-growpart is not installed", "dnf install cloud-utils-growpart"),
        (
            "If 'growpart' is not a typo you can use command-not-found to lookup the package",
            "zypper install growpart",
        ),
    ],
    ids=["Alpine", "unknown", "Fedora", "openSUSE"],
)
def test_growpart_is_installed_as_the_distribution_does_it(said, first):
    found = told(f"# growpart /dev/vda 1\n{said}\n{ROOM}", Subject.PARTITION)
    assert found.reason is Reason.NO_GROWPART_TOOL
    assert found.fix.startswith(f"sudo {first}\n# elsewhere: ")
    for command in ("apt-get install", "dnf install", "zypper install", "apk add"):
        assert found.fix.count(command) == 1


def test_a_volume_without_growpart_also_needs_settings_next_time():
    missing = IN_LOGICAL + "# growpart /dev/sda 5\n-ash: growpart: not found\n"
    fix = told(missing, Subject.PARTITION).fix
    assert "devices: [/dev/sda2, /dev/sda5]" in fix


def test_every_package_manager_can_free_space():
    failed = (
        "# growpart /dev/vda 1\n"
        "mkdir: cannot create directory '/tmp/growpart.5Xq1Yo': No space left on device\n"
        "FAILED: failed to make temp dir\n"
    )
    fix = told(failed + ROOM, Subject.PARTITION).fix
    for command in ("apt-get clean", "dnf clean all", "zypper clean --all"):
        assert command in fix


def test_ext4_needs_a_feature_beyond_16_tib():
    said = "# resize2fs /dev/vda1\nresize2fs: New size too large to be expressed in 32 bits\n\n"
    shown = (
        WHOLE.replace("20G", "20T")
        + "# df -hT /\n"
        + DF.format(" 16T")
        .replace("Filesystem     ", "Filesystem Type")
        .replace("/dev/vda1  ", "/dev/vda1 ext4")
    )
    fix = told(said + shown, Subject.FILESYSTEM).fix
    assert fix.splitlines()[-1] == (
        "sudo e2fsck -f /dev/vda1 && sudo resize2fs -b /dev/vda1 && sudo resize2fs /dev/vda1"
    )


@pytest.mark.parametrize(("level", "grows"), [("raid1", True), ("raid5", True), ("raid0", False)])
def test_a_partitioned_array_grows_before_its_partition(level, grows):
    shown = f"""\
NAME      MAJ:MIN RM  SIZE RO TYPE  MOUNTPOINTS
vda       252:0    0   80G  0 disk
└─md127     9:127  0   40G  0 {level}
  ├─md127p1 259:0  0    1G  0 part  /boot
  └─md127p2 259:1  0   39G  0 part  /
"""
    array = told(shown, Subject.RAID)
    assert array.finding == kept(Reason.RAID)
    assert (array.fix.splitlines()[:3] == [
        "sudo mdadm --grow /dev/md127 --size=max",
        "sudo growpart --dry-run /dev/md127 2  # check first: it must print CHANGE",
        "sudo growpart /dev/md127 2",
    ]) is grows  # fmt: skip
    assert ("restore" in array.fix) is not grows


@pytest.mark.parametrize(
    ("status", "by", "remedy"),
    [
        (
            "detail:\nCloud-init disabled by /etc/cloud/cloud-init.disabled",
            "the file /etc/cloud/cloud-init.disabled",
            "sudo rm /etc/cloud/cloud-init.disabled\nsudo reboot",
        ),
        (
            "detail: Cloud-init disabled by kernel parameter cloud-init=disabled",
            "cloud-init=disabled",
            "/etc/default/grub",
        ),
        (
            "detail:\nCloud-init disabled by environment variable KERNEL_CMDLINE=cloud-init=disabled",
            "the variable KERNEL_CMDLINE",
            "/etc/systemd/system.conf",
        ),
        (
            '{\n  "boot_status_code": "disabled-by-marker-file",\n  "status": "disabled"\n}',
            "the file /etc/cloud/cloud-init.disabled",
            "sudo rm /etc/cloud/cloud-init.disabled\nsudo reboot",
        ),
        (
            " * cloud-init-local is disabled via /proc/cmdline.",
            "cloud-init=disabled",
            "/etc/default/grub",
        ),
        (
            "detail: Cloud-init disabled by cloud-init-generator",
            "",
            "datasource",
        ),
    ],
    ids=["file", "kernel", "environment", "JSON", "OpenRC", "generator"],
)
def test_cloud_init_that_is_disabled_on_purpose_needs_no_datasource(status, by, remedy):
    found = cl.explain(f"# cloud-init status --long\nstatus: disabled\n{status}\n{ROOM}")
    partition = only(found, Subject.PARTITION)
    assert partition.finding == kept(Reason.NO_CLOUD_INIT)
    assert found.to_text().count(f"is disabled on purpose, by {by}" if by else "found no seed") == 2
    assert ("on the kernel's command line." in found.to_text()) is by.startswith("cloud-init=")
    assert remedy in partition.fix
    places = "/etc/default/grub", "/etc/systemd/system.conf", "/etc/cloud/cloud-init.disabled"
    assert sum(one in partition.fix for one in places) == bool(by)
    assert ("datasource" in partition.fix) is not by
    assert "growpart /dev/vda 1" in partition.fix


def test_what_would_settle_it_works_on_old_systems_and_is_understood():
    missing = told("me@vm:~$ uname\n", Subject.PARTITION).missing[0]
    assert "lsblk -b -o NAME,TYPE,SIZE,FSTYPE,MOUNTPOINT; sudo fdisk -l" in missing
    shown = """\
$ lsblk -b -o NAME,TYPE,SIZE,FSTYPE,MOUNTPOINT
NAME   TYPE        SIZE FSTYPE MOUNTPOINT
vda    disk 21474836480
└─vda1 part 10737418240 ext4   /
"""
    assert told(shown, Subject.PARTITION).finding == kept(None)


def test_the_reason_of_a_volume_is_its_group():
    volume = "└─vda1 253:1 0 20G 0 part\n  └─vg-root 254:0 0 10G 0 lvm /\n"
    found = cl.explain(WHOLE.splitlines()[0] + "\nvda 253:0 0 20G 0 disk\n" + volume)
    words = {one.subject: cl.Explanation((one,)).to_text() for one in found.statements}
    assert "its volume group has free space" in words[Subject.LOGICAL_VOLUME]
    assert "its logical volume did not grow" in words[Subject.FILESYSTEM]
    assert "growpart" not in words[Subject.LOGICAL_VOLUME] + words[Subject.FILESYSTEM]
    held = Statement(Subject.PHYSICAL_VOLUME, "vda1", *kept(Reason.LOGICAL_VOLUME))
    assert "until pvresize runs" in cl.Explanation((held,)).to_text()


@pytest.mark.parametrize(
    ("rootfs", "both"), [("resize_rootfs: False", True), ("hostname: web", False)]
)
def test_both_settings_that_are_off_are_switched_on_next_time(rootfs, both):
    data = f"#cloud-config\ngrowpart:\n  mode: off\n{rootfs}\n$ lsblk\n"
    fix = told(data + ROOM, Subject.PARTITION).fix
    assert fix.endswith("#     mode: auto" + "\n#   resize_rootfs: true" * both)
    marker = growpart("/etc/growroot-disabled exists\n") + data + ROOM
    fix = told(marker, Subject.PARTITION).fix
    assert fix.endswith("ignore_growroot_disabled: true" + "\n#   resize_rootfs: true" * both)


def test_the_same_commands_are_printed_once():
    failed = (
        "# growpart /dev/vda 1\n"
        "mkdir: cannot create directory '/tmp/growpart.5Xq1Yo': No space left on device\n"
        "FAILED: failed to make temp dir\n"
    )
    partition, filesystem = cl.explain(failed + ROOM).statements
    assert "TMPDIR=/run growpart" in partition.fix
    assert filesystem.fix == "# The same as for the partition, above."


def test_without_a_table_only_what_may_lie_behind_root_is_named():
    [partition] = cl.recorded("not-last").explain().of(Subject.PARTITION)
    assert partition.reason is Reason.WALL
    assert "# Move vda2 to the disk's end offline" in partition.fix


_SECOND = "└─sda2   8:2    0   80G  0 part {}\n"
_TWO = """\
NAME   MAJ:MIN RM  SIZE RO TYPE MOUNTPOINT
sda      8:0    0  100G  0 disk
├─sda1   8:1    0   15G  0 part /
"""
_FDISK_82 = """\
Disk /dev/sda: 100 GiB, 107374182400 bytes, 209715200 sectors
Disklabel type: dos

Device     Boot    Start       End   Sectors Size Id Type
/dev/sda1           2048  31459327  31457280  15G 83 Linux
/dev/sda2       31459328 199231487 167772160  80G {}
"""
_PARTED = """\
Disk /dev/sda: 107GB
Sector size (logical/physical): 512B/512B
Partition Table: {}

Number  Start   End     Size    {}
 1      1049kB  16.1GB  16.1GB  {}
 2      16.1GB  98.5GB  82.4GB  {}

"""
_GPT_HEAD = "File system     Name  Flags"
#: What lies behind root, as listings show it -> whether it is swap that may be deleted.
BEHIND = {
    "type 82": (_TWO + _SECOND.format("") + _FDISK_82.format("82 Linux swap / Solaris"), True),
    "in use as swap": (_TWO + _SECOND.format("[SWAP]") + _FDISK_82.format("83 Linux"), True),
    "parted": (_TWO + _PARTED.format("gpt", _GPT_HEAD, "ext4", "linux-swap(v1)  swap  swap"), True),
    "82.4GB": (_TWO + _PARTED.format("gpt", _GPT_HEAD, "ext4", "ext4            home"), False),
    "a name": (_TWO + _PARTED.format("gpt", _GPT_HEAD, "ext4", "xfs             swap"), False),
    "a name in sgdisk": (
        _TWO + "Disk /dev/sda: 209715200 sectors, 100.0 GiB\nSector size (logical/physical): 512/512 bytes\n\n"
        "Number  Start (sector)    End (sector)  Size       Code  Name\n"
        "   1            2048        31459327   15.0 GiB    8300  root\n"
        "   2        31459328       199231487   80.0 GiB    8300  swap\n",
        False,
    ),
    "sgdisk's code": (
        _TWO + "Disk /dev/sda: 209715200 sectors, 100.0 GiB\nSector size (logical/physical): 512/512 bytes\n\n"
        "Number  Start (sector)    End (sector)  Size       Code  Name\n"
        "   1            2048        31459327   15.0 GiB    8300  root\n"
        "   2        31459328       199231487   80.0 GiB    8200  old\n",
        True,
    ),
    "of an MBR": (
        _TWO + _PARTED.format("msdos", "Type  File system", "primary  ext4", "primary  linux-swap(v1)"),
        True,
    ),
    "mounted, as df says": (
        _TWO + _SECOND.format("") + _FDISK_82.format("82 Linux swap / Solaris")
        + "Filesystem 1K-blocks Used Available Use% Mounted on\n"
        "/dev/sda1 15000000 1000000 13000000 8% /\n/dev/sda2 80000000 1000000 79000000 2% /srv\n",
        False,
    ),
    "LVM's, as pvs says": (
        _TWO + _SECOND.format("") + _FDISK_82.format("82 Linux swap / Solaris")
        + "  PV         VG   Fmt  Attr PSize  PFree\n  /dev/sda2  data lvm2 a--  79.99g 10.00g\n",
        False,
    ),
    "ext4, as lsblk -f said": (
        "NAME   FSTYPE LABEL UUID MOUNTPOINT\nsda\n├─sda1 ext4              /\n└─sda2 ext4\n\n"
        + _TWO + _SECOND.format("") + _FDISK_82.format("82 Linux swap / Solaris"),
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("shown", "swap"), BEHIND.values(), ids=BEHIND)
def test_a_partition_is_deleted_only_if_all_that_is_shown_of_it_is_swap(shown, swap):
    fix = told(shown, Subject.PARTITION).fix
    assert ("sfdisk --delete" in fix) == swap
    if swap:
        # Each waits for the one before, and the kernel must forget it before growpart.
        assert (
            "sudo blkid -t TYPE=swap /dev/sda2 && \\\n"
            "  sudo sfdisk --delete /dev/sda 2 && \\\n"
            "  sudo partx --delete --nr 2 /dev/sda\n"
        ) in fix
        assert "sed" not in fix


def test_an_encrypted_volume_grows_after_its_logical_volume():
    shown = """\
NAME              MAJ:MIN RM  SIZE RO TYPE  MOUNTPOINT
vda                 252:0    0   40G  0 disk
└─vda1              252:1    0   20G  0 part
  └─vg0-root        253:0    0   20G  0 lvm
    └─root_crypt    253:1    0   20G  0 crypt /
"""
    fix = told(shown, Subject.PARTITION).fix.splitlines()
    extend, resize = (
        next(n for n, line in enumerate(fix) if word in line)
        for word in ("lvextend", "cryptsetup resize root_crypt")
    )
    assert extend < resize
    assert any("resize2fs /dev/mapper/root_crypt" in line for line in fix[resize:])


@pytest.mark.parametrize("options", ["ro,relatime", "rw,relatime"])
def test_a_swap_file_goes_where_the_root_can_be_written(options):
    shown = _TWO + _SECOND.format("[SWAP]") + _FDISK_82.format("82 Linux swap / Solaris")
    shown += f"/dev/sda1 on / type btrfs ({options},space_cache=v2)\n"
    fix = told(shown, Subject.PARTITION).fix
    folder = "/var/swap" if options.startswith("ro") else "/swap"
    assert f"btrfs subvolume create {folder} " in fix


def test_fedoras_words_for_a_missing_growpart_name_its_package():
    shown = ROOM + "# growpart /dev/vda 1\nbash: growpart: command not found...\n"
    fix = told(shown, Subject.PARTITION).fix
    assert fix.startswith("sudo dnf install cloud-utils-growpart")


def test_a_multipath_device_grows_its_extended_partition_first():
    listed = "NAME  MAJ:MIN RM  SIZE RO TYPE  MOUNTPOINTS\nsda 8:0 0 40G 0 disk\n└─mpatha 253:0 0 40G 0 mpath\n"
    listed += "  ├─mpatha2 253:1 0 1K 0 part\n  └─mpatha5 253:2 0 10G 0 part /\n"
    fix = told(listed, Subject.PARTITION).fix
    assert (
        "sudo parted /dev/mapper/mpatha resizepart 2 100%\n"
        "sudo parted /dev/mapper/mpatha resizepart 5 100%\n"
    ) in fix


def test_a_disk_enlarged_since_growpart_ran_by_hand_does_not_wait_for_cloud_init():
    grew = "CHANGED: partition=1 start=2048 old: size=20969472 end=20971519 new: size=41940959 end=41943006\n"
    for shown, by_cloud_init in ((f"# growpart /dev/vda 1\n{grew}", False), (f"{GREW}\n", True)):
        found = told(shown + WHOLE.replace("  20G  0 disk", "  60G  0 disk"), Subject.PARTITION)
        assert found.reason is Reason.ENLARGED_SINCE
        assert "growpart /dev/vda 1" in found.fix
        assert ("cloud-init grows it on the next boot" in found.fix) is by_cloud_init


def test_a_root_of_which_only_the_link_is_shown_is_found_by_its_mount():
    shown = (
        '# blkid\n/dev/root: UUID="x" TYPE="ext4"\n# df -h /\n'
        "Filesystem      Size  Used Avail Use% Mounted on\n/dev/root       9.8G  1.2G  8.7G  18% /\n"
        "# resize2fs /dev/root\nresize2fs: Permission denied to resize filesystem\n"
    )
    assert told(shown, Subject.FILESYSTEM).fix == "sudo resize2fs $(findmnt -no SOURCE /)"


@pytest.mark.parametrize("failed", ["", "FAILED: "])
def test_growpart_that_does_not_read_sfdisks_language_is_run_in_english(failed):
    said = f"{failed}unexpected output in sfdisk --version [sfdisk von util-linux 2.34]\n"
    found = told(f"# growpart /dev/vda 1\n{said}{ROOM}", Subject.PARTITION)
    assert found.finding == kept(Reason.GROWPART_FAILED)
    assert found.fix.startswith("export LC_ALL=C  # ")
