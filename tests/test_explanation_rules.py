"""What evidence of any machine proves, and what it does not."""

import re

import pytest
from explained import (
    DF,
    FORKED,
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
from cloudlab.explanation import Grower, Reason, Subject

OPEN = (None, Grower.UNKNOWN, None)
BUSY = "Re-reading the partition table failed.: Device or resource busy\n"
KEPT = "The kernel still uses the old table. The new table will be used at the next reboot.\n"
FDISK = """\
Disk /dev/vda: 20 GiB, 21474836480 bytes, 41943040 sectors
Disklabel type: dos

Device     Boot Start      End  Sectors Size Id Type
/dev/vda1        2048 41943039 41940992  20G 83 Linux

"""


class TestWhatAMessageDoesNotProve:
    """A message may be about another device, another time, or without consequence."""

    @pytest.mark.parametrize(
        ("before", "after", "finding"),
        [
            pytest.param(DF.format("20G"), "", OPEN, id="the filesystem reaches the end"),
            pytest.param("", WHOLE, OPEN, id="a listing after it shows all"),
            pytest.param(DF.format("9.8G"), "", kept(Reason.TABLE_BUSY), id="the filesystem ends"),
            pytest.param("", ROOM, kept(Reason.TABLE_BUSY), id="the listing after it is old"),
            pytest.param("", "", kept(Reason.TABLE_BUSY), id="nothing else"),
        ],
    )
    def test_a_busy_table_matters_only_if_the_kernel_uses_less(self, before, after, finding):
        assert told(before + FDISK + BUSY + KEPT + after, Subject.PARTITION).finding == finding

    @pytest.mark.parametrize(
        "line",
        [
            pytest.param("# fdisk /dev/vdb\n" + BUSY, id="a busy table"),
            pytest.param(
                "Disk /dev/vdb: 3 TiB\nGPT PMBR size mismatch (1 != 2)", id="a backup GPT"
            ),
            pytest.param(
                "[    9.9] EXT4-fs (vdb1): resizing filesystem from 1 to 2", id="a kernel's"
            ),
            pytest.param("xfs_growfs: /dev/vdb1 is not a mounted XFS filesystem", id="XFS"),
            pytest.param("resize2fs: Device or resource busy while opening /dev/vdb1", id="ext4"),
            pytest.param("Resized partition /dev/vdb1", id="a script's"),
            pytest.param(
                "[    9.9] XFS (vdb1): Mounting V5 Filesystem\n"
                "[   10.1] init: xfs_growfs: XFS_IOC_FSGROWFSDATA xfsctl failed: Invalid argument",
                id="what was mounted before it",
            ),
        ],
    )
    def test_another_disk_is_not_roots(self, line):
        for statement in cl.explain(f"{line}\n\n").statements:
            assert (statement.grown, statement.by) == OPEN[:2]

    def test_a_resize_that_found_no_space_does_not_mean_a_full_filesystem(self):
        failed = "# resize2fs /dev/vda1\nresize2fs: No space left on device While checking for on-line resizing support\n"
        found = told(DF.format("9.8G") + WHOLE + failed, Subject.FILESYSTEM)
        assert found.finding == kept(Reason.RESIZE_FAILED)
        full = DF.format("9.8G").replace("5.7G", "   0")
        found = told(full + WHOLE + failed, Subject.FILESYSTEM)
        assert found.finding == kept(Reason.FILESYSTEM_FULL)

    def test_a_program_without_space_has_no_part_in_growparts_failure(self):
        docker = "docker: write /var/lib/docker/tmp/x: No space left on device\n"
        failed = "# growpart /dev/vda 1\nFAILED: failed to get a resizer for id ''\n"
        found = told(ROOM + docker + failed, Subject.PARTITION)
        assert found.finding == kept(Reason.GROWPART_FAILED)

    @pytest.mark.parametrize(
        "earlier",
        [
            growpart("growpart disabled: mode=off"),
            growpart("growpart unable to find resizer for 'auto': No resizers available"),
            "-bash: growpart: command not found",
            "2026-11-22 22:28:24,731 - helpers.py[DEBUG]: config-growpart already ran (freq=once)",
        ],
    )
    def test_what_kept_growpart_earlier_does_not_once_it_has_run(self, earlier):
        later = "# growpart /dev/vda 1\nFAILED: failed to get a resizer for id ''\n"
        found = told(f"{earlier}\n{ROOM}{later}", Subject.PARTITION)
        assert found.finding == kept(Reason.GROWPART_FAILED)

    def test_a_backup_gpt_that_was_moved_is_not_misplaced(self):
        misplaced = "Warning! The secondary header's self-pointer indicates that it doesn't reside at the end\n"
        assert told(ROOM + misplaced, Subject.PARTITION).finding == kept(Reason.GPT_BACKUP)
        moved = misplaced + "# sgdisk -e /dev/vda\nThe operation has completed successfully.\n"
        assert told(ROOM + moved, Subject.PARTITION).finding == kept(None)

    def test_a_resize_that_failed_and_then_worked_is_no_failure(self):
        failed = "2026-11-22 22:28:25,121 - util.py[WARNING]: Failed to resize filesystem (cmd=('resize2fs', '/dev/vda1'))"
        assert told(failed, Subject.FILESYSTEM).finding == kept(Reason.RESIZE_FAILED)
        assert told(f"{failed}\n{RESIZED}", Subject.FILESYSTEM).finding == OPEN

    def test_nothing_to_do_on_another_device_says_nothing_of_root(self):
        idle = "# resize2fs /dev/vdb1\nThe filesystem is already 524032 (4k) blocks long.  Nothing to do!\n"
        assert told(ROOM + idle, Subject.FILESYSTEM).grown is None

    def test_an_mbr_does_not_limit_a_small_disk(self):
        warning = "parted: partition length of 6442450944 sectors exceeds the msdos-partition-table-imposed maximum of 4294967295"
        assert told(ROOM + warning, Subject.PARTITION).reason is None


@pytest.mark.parametrize(
    ("said", "package"),
    [
        ("FAILED: sfdisk not found", "fdisk"),
        ("sfdisk is required for resizing dos/MBR partition table.\nFAILED: failed to g", "fdisk"),
        ("FAILED: Did not have sfdisk or sgdisk in PATH.", "fdisk"),
        ("FAILED: GPT partition found but no sgdisk", "gdisk"),
        ("no tools available to resize disk with 'gpt'\nFAILED: failed to get a resizer", "gdisk"),
    ],
)
def test_the_package_that_growpart_lacks_is_named(said, package):
    found = told(f"# growpart /dev/vda 1\n{said}\n{ROOM}", Subject.PARTITION)
    assert found.finding == kept(Reason.GROWPART_FAILED)
    assert f"apt-get install {package}\n" in found.fix


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("growpart /dev/vda p1", "FAILED: partition-number must be a number"),
        ("growpart /dev/vda /dev/vda1", "FAILED: partition-number must be a number"),
        ("growpart /dev/vda", "must supply partition-number"),
        ("growpart /dev/vda1", "must supply partition-number"),
        ("growpart /dev/vda1 1", "FAILED: failed to get start and end for /dev/vda11 in /dev/vda1"),
    ],
)
def test_growpart_with_wrong_arguments_failed_on_the_disk_that_they_name(command, said):
    found = told(f"# {command}\n{said}\n{ROOM}", Subject.PARTITION)
    assert found.finding == kept(Reason.GROWPART_FAILED)
    assert "sudo growpart /dev/vda 1" in found.fix


SWAP = """\
  16777176   2097152    3  freebsd-swap  (1.0G)
  18874328   6291456       - free -  (3.0G)"""
GPART = """\
=>      40  {1}  da0  GPT  (12G){0}
        40      1024    1  freebsd-boot  (512K)
      1064  16776112    2  freebsd-ufs  (8.0G)
{2}
"""


@pytest.mark.parametrize(
    ("table", "finding"),
    [
        (GPART.format(" [CORRUPT]", 16777136, ""), kept(Reason.GPT_BACKUP)),
        (
            GPART.format(" [CORRUPT]", 16777136, "da0 recovered")
            + GPART.format("", 25165744, "  16777176   8388608       - free -  (4.0G)"),
            kept(None),
        ),
        (
            GPART.format("", 25165744, SWAP),
            kept(Reason.WALL),
        ),
        (GPART.format("", 16777136, "").replace("12G", "8.0G"), OPEN),
    ],
    ids=["corrupt", "recovered", "swap behind", "whole"],
)
def test_freebsds_gpart_shows_a_table(table, finding):
    df = "Filesystem    Size    Used   Avail Capacity  Mounted on\n/dev/da0p2    7.7G    2.4G    4.7G    34%    /\n"
    found = told(table + df, Subject.PARTITION)
    assert (found.finding, found.device) == (finding, "da0p2")
    if finding[0] is False:
        assert "gpart resize -i 2 da0" in found.fix


def test_a_script_that_resized_roots_partition_grew_it():
    text = (
        "extend-filesystems[9]: Resized partition /dev/vda9\n"
        "extend-filesystems[9]: Filesystem at /dev/vda9 is mounted on /; on-line resizing required\n"
    )
    found = told(text, Subject.PARTITION)
    assert (found.finding, found.device) == ((True, Grower.OTHER, None), "vda9")


def test_a_resize_that_wants_a_check_first_failed():
    text = "Please run 'e2fsck -f /dev/{}' first.\n"
    found = told(text.format("vda2"), Subject.FILESYSTEM)
    assert found.finding == kept(Reason.RESIZE_FAILED)
    assert "e2fsck -f /dev/vda2" in found.fix
    found = told(text.format("sdb1"), Subject.FILESYSTEM)
    assert found.finding == (None, Grower.UNKNOWN, Reason.RESIZE_FAILED)
    assert "e2fsck -f /dev/sdb1" in found.fix
    assert told(ROOM + text.format("sdb1"), Subject.FILESYSTEM).finding == OPEN


LOCKED = """\
ignition-ostree-growfs[7]: CHANGED: partition=4 start=2048 old: size=4192256 end=4194304 new: size=41940959 end=41943007
ignition-ostree-growfs[8]: Nothing to read on input.
systemd[1]: ignition-ostree-growfs.service: Failed with result 'exit-code'.
/dev/vda4: UUID="x" TYPE="{}"
/dev/mapper/root: LABEL="root" TYPE="xfs"
"""


def test_an_encrypted_device_that_got_no_key_did_not_follow():
    found = told(LOCKED.format("crypto_LUKS"), Subject.FILESYSTEM)
    assert found.finding == kept(Reason.ENCRYPTED)
    assert "cryptsetup resize root" in found.fix
    assert told(LOCKED.format("crypto_LUKS"), Subject.PARTITION).grown is True


@pytest.mark.parametrize(
    ("first", "last", "grown"),
    [("2.4T", "3.6T", True), ("2.4T", "2.5T", None), ("3.6T", "2.4T", None)],
)
def test_df_that_shows_more_later_shows_growth(first, last, grown):
    shown = "root@box:~# df -h\n" + DF.format(first) + "root@box:~# df -h\n" + DF.format(last)
    assert told(shown, Subject.FILESYSTEM).finding == (grown, Grower.UNKNOWN, None)
    two = shown.replace("root@box", "root@other", 1)
    assert told(two, Subject.FILESYSTEM).grown is None


@pytest.mark.parametrize(
    ("disk", "path"),
    [
        ("sda", "/sys/class/block/sda/device/rescan"),
        ("nvme0n1p", "/sys/class/nvme/nvme0/rescan_controller"),
        ("vda", ""),
    ],
)
def test_a_disk_that_was_enlarged_while_in_use_is_rescanned(disk, path):
    said = f"# growpart /dev/{disk.rstrip('p')} 1\nNOCHANGE: partition 1 is size 41940992. it cannot be grown\n"
    listing = WHOLE.replace("vda1", f"{disk}1").replace("vda ", f"{disk.rstrip('p')} ")
    found = told(said + listing, Subject.PARTITION)
    assert found.finding == kept(Reason.DISK_NOT_LARGER)
    assert (path or "shut the machine down") in found.fix
    assert ("rescan" in found.fix) is bool(path)


REPART = "systemd-repart[143]: Applying changes to /dev/{}.\nsystemd-repart[143]: Growing existing partition 2.\n"


@pytest.mark.parametrize(
    ("disk", "after", "finding"),
    [
        ("vda", "", (True, Grower.REPART, None)),
        ("sdb", "", OPEN),
        (
            "vda",
            "systemd-repart[143]: Failed to reread partition table: Device or resource busy\n",
            kept(Reason.TABLE_BUSY),
        ),
        (
            "vda",
            "systemd-repart[143]: Failed to write partition table: Input/output error\n",
            kept(None),
        ),
    ],
)
def test_systemd_repart_grew_what_it_then_wrote_to_roots_disk(disk, after, finding):
    assert told(REPART.format(disk) + after, Subject.PARTITION).finding == finding


def test_in_a_rescue_system_the_overlay_is_not_the_disks_root():
    overlay = "Filesystem      Size  Used Avail Use% Mounted on\noverlay         1.9G   51M  1.9G   3% /\n"
    text = overlay + "# resize2fs /dev/sda1\nPlease run 'e2fsck -f /dev/sda1' first.\n"
    found = told(text, Subject.FILESYSTEM)
    assert found.finding == (None, Grower.UNKNOWN, Reason.RESIZE_FAILED)
    text = overlay + "xfs_growfs: / is not a mounted XFS filesystem\n"
    assert told(text, Subject.FILESYSTEM).finding == kept(Reason.IMMUTABLE_ROOT)


VERITY = """\
NAME      MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
sda         8:0    0  100G  0 disk
├─sda1      8:1    0  5.8G  0 part /var
└─sda3      8:3    0    2G  0 part
  └─vroot 254:0    0  1.2G  {} dm   /
"""


def test_a_root_whose_device_is_read_only_does_not_grow():
    explanation = cl.explain(VERITY.format(1))
    assert {one.finding for one in explanation.statements} == {kept(Reason.IMMUTABLE_ROOT)}
    assert "growpart" not in "".join(one.fix for one in explanation.statements)
    assert told(VERITY.format(0), Subject.PARTITION).finding == kept(None)
    skipped = growpart(
        "'/' SKIPPED: device_part_info(/dev/dm-0) failed: /dev/dm-0 not a partition\n"
    )
    for read_only, reason in ((1, Reason.IMMUTABLE_ROOT), (0, None)):
        found = told(skipped + VERITY.format(read_only), Subject.PARTITION)
        assert found.finding == kept(reason)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("status: disabled", Reason.NO_CLOUD_INIT),
        ('{"status": "not run"}', Reason.NO_CLOUD_INIT),
        ("SELinux status: disabled", None),
        ("firewalld status: not run", None),
    ],
)
def test_only_cloud_inits_own_status_is_its_status(status, reason):
    assert told(f"{status}\n{ROOM}", Subject.PARTITION).finding == kept(reason)


@pytest.mark.parametrize(
    ("disk", "label", "part"),
    [
        (
            "Disque /dev/vda : 60 GiB, 64424509440 octets, 125829120 secteurs",
            "Type d'étiquette de disque : dos",
            "Périphérique Amorçage    Début      Fin Secteurs Taille Id Type",
        ),
        (
            "Festplatte /dev/vda: 60 GiB, 64424509440 Bytes, 125829120 Sektoren",
            "Festplattenbezeichnungstyp: dos",
            "Gerät      Boot   Anfang      Ende  Sektoren Größe Kn Typ",
        ),
        (
            "Disk /dev/vda\uff1a60 GiB\uff0c64424509440 字节\uff0c125829120 个扇区",
            "磁盘标签类型\uff1ados",
            "设备       启动    起点     末尾     扇区   大小 Id 类型",
        ),
    ],
    ids=["French", "German", "Chinese"],
)
def test_fdisk_is_read_in_other_languages(disk, label, part):
    rows = "/dev/vda1    *            2048 39942143 39940096    19G 83 Linux\n{}"
    table = f"{disk}\n{label}\n\n{part}\n{rows}\n" + DF.format("19G")
    assert told(table.format(""), Subject.PARTITION).finding == kept(None)
    swap = "/dev/vda2         39942144 41940991  1998848   975M 82 partition d'échange Linux\n"
    walled = told(table.format(swap), Subject.PARTITION)
    assert walled.finding == kept(Reason.WALL)
    assert "swapoff /dev/vda2" in walled.fix


SGDISK = """\
# sgdisk -p /dev/vda
Disk /dev/vda: 13107200 sectors, 50.0 GiB
Sector size (logical/physical): {0}/{0} bytes

Number  Start (sector)    End (sector)  Size       Code  Name
   1             256         2621434   10.0 GiB    8300
"""
PARTED = """\
# parted /dev/vda unit s print
Disk /dev/vda: 13107200s
Sector size (logical/physical): {0}B/{0}B
Partition Table: gpt

Number  Start    End       Size      File system  Name  Flags
 1      256s     2621434s  2621179s  xfs
"""


@pytest.mark.parametrize("table", [SGDISK, PARTED], ids=["sgdisk", "parted"])
@pytest.mark.parametrize("sector", [512, 4096])
def test_a_disk_is_as_large_as_its_sectors(table, sector):
    other = "Disk /dev/vdb: 9 sectors, 36.0 KiB\nSector size (logical/physical): {0}/{0} bytes\n"
    shown = other.format(4608 - sector) + table.format(sector) + DF.format("10G")
    assert told(shown, Subject.PARTITION).finding == kept(None)


PARTED_TABLES = {
    "German": """\
Modell: Virtio Block Device (virtblk)
Festplatte  /dev/vda:  42,9GB
Sektorgröße (logisch/physisch): 512B/512B
Partitionstabelle: gpt
Disk-Flags:

Nummer  Anfang  Ende    Größe   Dateisystem     Name     Flags
        17,4kB  1049kB  1031kB  Freier Platz
 1      1049kB  10,7GB  10,7GB  ext4            p.lxroot
        10,7GB  42,9GB  32,2GB  Freier Platz
""",
    "for programs": """\
BYT;
/dev/vda:42949672960B:virtblk:512:512:gpt:Virtio Block Device:;
1:1048576B:10737418239B:10736369664B:ext4::;
""",
    "BusyBox": """\
Disk /dev/vda: 40 GB, 42949672960 bytes, 83886080 sectors
Units: sectors of 1 * 512 = 512 bytes

Device  Boot StartCHS    EndCHS        StartLBA     EndLBA    Sectors  Size Id Type
/dev/vda1 *  2,0,33      611,8,40          2048   20971519   20969472 9.9G 83 Linux
""",
    "BusyBox's GPT": """\
Disk /dev/vda: 83886080 sectors, 40.0G
Logical sector size: 512
Partition table holds up to 128 entries

Number  Start (sector)    End (sector)  Size Name
     1            2048        20971519 9.9G Linux filesystem
""",
}


@pytest.mark.parametrize("shown", PARTED_TABLES.values(), ids=PARTED_TABLES)
def test_a_table_is_read_in_the_form_that_a_program_gives_it(shown):
    assert told(f"# \n{shown}\n" + DF.format("9.8G"), Subject.PARTITION).finding == kept(None)
    full = told(
        f"# \n{shown}\n".replace("42", "10").replace("83886080", "20971520"), Subject.PARTITION
    )
    assert full.finding == OPEN


LONG_NAMES = """\
# fdisk -l /dev/nvme0n1
Disk /dev/nvme0n1: 40 GiB, 42949672960 bytes, 83886080 sectors
Units: sectors of 1 * 512 = 512 bytes
Disklabel type: gpt

Device           Start      End  Sectors  Size Type
/dev/nvme0n1p1    2048   206847   204800  100M EFI System
/dev/nvme0n1p2  206848  2254847  2048000 1000M Linux extended boot
/dev/nvme0n1p3 2254848 20969471 18714624  8.9G Linux filesystem
"""


def test_a_long_name_has_one_space_before_the_largest_start_in_fdisks_table():
    df = DF.format("8.9G").replace("vda1", "nvme0n1p3")
    found = told(f"{LONG_NAMES}\n{df}", Subject.PARTITION)
    assert (found.device, found.finding) == ("nvme0n1p3", kept(None))
    assert "sudo growpart /dev/nvme0n1 3" in found.fix


def test_a_partition_that_ends_where_it_begins_by_parteds_rounding_is_behind_root():
    rows = " 1      1049kB  539GB  539GB  primary  ext4\n 2      539GB   539GB  512MB  primary\n"
    shown = "# parted /dev/vda print\nDisk /dev/vda: 623GB\nPartition Table: msdos\n\n"
    found = told(shown + rows + "\n" + DF.format("494G"), Subject.PARTITION)
    assert found.finding == kept(Reason.WALL)
    assert "what is on vda2" in found.fix


@pytest.mark.parametrize("unit", ["s", "B"])
def test_the_end_that_parted_prints_is_the_last_of_the_partition(unit):
    by = 512 if unit == "s" else 1
    disk, start, size = 21474836480, 1048576, 10737418240
    row = f" 1      {start // by}{unit}  {(start + size) // by - 1}{unit}  {size // by}{unit}  ext4"
    shown = (
        f"# parted /dev/vda unit {unit} print\nDisk /dev/vda: {disk // by}{unit}\n"
        f"Partition Table: gpt\n\nNumber  Start  End  Size  File system  Name  Flags\n{row}\n\n"
        f"# lsblk -b\nNAME   MAJ:MIN RM        SIZE RO TYPE MOUNTPOINTS\n"
        f"vda    253:0    0 {disk}  0 disk\n└─vda1 253:1    0 {size}  0 part /\n"
    )
    assert told(shown, Subject.PARTITION).finding == kept(None)


def test_parted_shows_a_filesystem_as_if_it_had_a_table():
    shown = """\
Disk /dev/sda: 64.4GB
Partition Table: msdos

Number  Start   End     Size    Type     File system  Flags
 1      1049kB  1075MB  1074MB  primary  xfs          boot
 2      1075MB  42.9GB  41.9GB  primary               lvm

Disk /dev/mapper/centos-root: 37.6GB
Partition Table: loop

Number  Start  End     Size    File system  Flags
 1      0.00B  37.6GB  37.6GB  xfs

"""
    df = DF.format("35G").replace("/dev/vda1 ", "/dev/mapper/centos-root ")
    found = told(shown + df, Subject.PARTITION)
    assert (found.device, found.finding) == ("sda2", kept(Reason.LOGICAL_VOLUME))


@pytest.mark.parametrize(
    "units",
    [
        "Einheiten: Sektoren von 1 * 4096 = 4096 Bytes",
        "Unités : secteur de 1 \u00d7 4096 = 4096 octets",
    ],
)
def test_fdisk_shows_the_sector_in_its_units_in_other_languages(units):
    table = (
        f"Festplatte /dev/vda: 50 GiB, 53687091200 Bytes, 13107200 Sektoren\n{units}\n"
        "E/A-Größe (minimal/optimal): 512 Bytes / 512 Bytes\n/dev/vda1  *  256 2621439 2621184 10G 83 Linux\n"
    )
    assert told(table + DF.format("10G"), Subject.FILESYSTEM).reason is Reason.FILLS_ITS_DEVICE
    assert told(table + DF.format("5.0G"), Subject.FILESYSTEM).finding == kept(None)


@pytest.mark.parametrize(
    ("sector", "finding"), [(512, kept(Reason.MBR_2_TIB)), (4096, kept(None))], ids=str
)
def test_an_mbr_reaches_as_far_as_its_sectors(sector, finding):
    end, disk_bytes = (2 << 40) // sector - 1, 3 << 40
    table = (
        f"Disk /dev/vda: 3 TiB, {disk_bytes} bytes, {disk_bytes // sector} sectors\n"
        f"Sector size (logical/physical): {sector} bytes / {sector} bytes\nDisklabel type: dos\n"
        f"\nDevice     Boot Start       End   Sectors Size Id Type\n"
        f"/dev/vda1  *      256 {end} {end - 255}   2T 83 Linux\n"
    )
    assert told(table + DF.format("2.0T"), Subject.PARTITION).finding == finding


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_partition_at_the_end_of_an_mbr_is_written_in_sectors_of_512_bytes_only(sector):
    last, disk_bytes = 2**32 - 1, 2**33 * sector
    table = (
        f"Disk /dev/vda: x TiB, {disk_bytes} bytes, {2**33} sectors\n"
        f"Sector size (logical/physical): {sector} bytes / {sector} bytes\nDisklabel type: dos\n"
        f"\nDevice     Boot Start       End   Sectors Size Id Type\n"
        f"/dev/vda1  *      256 {last} {last - 255}   xT 83 Linux\n"
    )
    found = told(table + DF.format("9T"), Subject.PARTITION)
    assert found.finding == kept(Reason.MBR_2_TIB)
    assert ("sfdisk" in found.fix) == (sector == 512)
    assert "sgdisk --mbrtogpt /dev/vda" in found.fix


def test_what_was_measured_before_its_device_grew_says_nothing_of_later():
    grew = "# growpart /dev/vda 1\nCHANGED: partition=1 start=2048 old: size=20969472 end=20971519 new: size=41940959 end=41943006\n"
    failed = "# resize2fs /dev/vda1\nresize2fs: Bad magic number in super-block while trying to open /dev/vda1\n"
    small = DF.format("9.8G")
    for text in (small + grew, small + grew + WHOLE):
        assert told(text, Subject.FILESYSTEM).grown is None
    found = told(ROOM + grew + failed + small, Subject.FILESYSTEM)
    assert found.finding == kept(Reason.RESIZE_FAILED)


@pytest.mark.parametrize(
    ("shown", "grown"),
    [
        (
            "  Size of logical volume vg0/root changed from 10.00 GiB (2560 extents) to 30.00 GiB (7680 extents).\n",
            False,
        ),
        ("  root vg0    -wi-ao----  30.00g\n", False),
        ("  root vg0    -wi-ao----  10.00g\n", None),
    ],
)
def test_a_logical_volume_has_the_size_that_lvm_says(shown, grown):
    df = "Filesystem            Size  Used Avail Use% Mounted on\n/dev/mapper/vg0-root  9.8G  9.1G  170M  99% /\n"
    found = told(shown + df, Subject.FILESYSTEM)
    assert found.finding == (kept(None) if grown is False else OPEN)
    if grown is False:
        assert "lvextend" not in found.fix
        assert "resize2fs /dev/mapper/vg0-root" in found.fix


ARRAY = """\
NAME      MAJ:MIN RM  SIZE RO TYPE  MOUNTPOINTS
sda         8:0    0  480G  0 disk
└─sda3      8:3    0  479G  0 part
  └─md2     9:2    0 {} 0 raid1 /
Filesystem      Size  Used Avail Use% Mounted on
/dev/md2         {}   18G  1.0G  95% /
"""


def test_a_filesystem_that_fills_an_array_waits_for_it():
    found = told(ARRAY.format(" 20G", "20G"), Subject.FILESYSTEM)
    assert found.finding == kept(Reason.RAID)
    assert "mdadm --grow /dev/md2 --size=max" in found.fix
    assert told(ARRAY.format("479G", "470G"), Subject.FILESYSTEM).grown is None


@pytest.mark.parametrize(
    "size",
    ["    Device size:\t\t   5.00GiB", "\tdevid    1 size 5.00GiB used 3.30GiB path /dev/vda4"],
)
def test_btrfs_says_how_large_it_is(size):
    root = "vda4 252:4    0 {} 0 part /\n"
    head = "NAME MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS\nvda  252:0    0   40G  0 disk\n"
    said = "/dev/vda4 on / type btrfs (rw,relatime)\nOverall:\n" + size + "\n"
    found = told(head + root.format("38.9G") + said, Subject.FILESYSTEM)
    assert found.finding == kept(None)
    found = told(head + root.format("  5G") + said, Subject.FILESYSTEM)
    assert found.finding == kept(Reason.FILLS_ITS_DEVICE)


TWO_VOLUMES = """\
NAME         MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
sda            8:0    0   50G  0 disk
└─sda2         8:2    0   49G  0 part
  ├─vg0-root 253:1    0   10G  0 lvm  /
  └─vg0-var  253:0    0   20G  0 lvm  /var
[  991.2] EXT4-fs (dm-{}): resizing filesystem from 2621440 to 5242880 blocks
"""


@pytest.mark.parametrize(("number", "grown"), [(1, True), (0, False)])
def test_the_kernels_name_of_a_volume_is_that_of_its_number(number, grown):
    assert told(TWO_VOLUMES.format(number), Subject.FILESYSTEM).grown is grown


def test_a_module_that_ran_once_may_have_grown_what_is_whole():
    once = "2026-11-22 22:28:24,731 - helpers.py[DEBUG]: config-resizefs already ran (freq=once)\n"
    assert told(once + WHOLE + DF.format("20G"), Subject.FILESYSTEM).finding == OPEN
    assert told(once + WHOLE + DF.format("9.8G"), Subject.FILESYSTEM).finding == kept(
        Reason.MODULE_RAN
    )


def test_a_zfs_root_lies_on_the_tables_largest_partition():
    text = (
        GPART.format("", 25165744, "  16777176   8388608       - free -  (4.0G)")
        + "Filesystem            Size    Used   Avail Capacity  Mounted on\n"
        + "zroot/ROOT/default    4.1G    2.0G    2.1G    49%    /\n"
    )
    found = told(text, Subject.PARTITION)
    assert (found.finding, found.device) == (kept(Reason.ZFS), "da0p2")
    assert "gpart resize -i 2 da0" in found.fix
    assert told(text, Subject.FILESYSTEM).finding == kept(Reason.ZFS)


def test_wrong_arguments_on_the_first_disk_are_about_root():
    said = '"cmd": ["growpart", "/dev/{}", "/dev/mapper/vg-root"], "stdout": "FAILED: partition-number must be a number"'
    assert told(said.format("vda"), Subject.PARTITION).finding == kept(Reason.GROWPART_FAILED)
    assert told(said.format("vdb"), Subject.PARTITION).finding == OPEN


@pytest.mark.parametrize(
    ("line", "subject", "finding"),
    [
        ("Resized partition /dev/vda9", Subject.PARTITION, (True, Grower.OTHER, None)),
        ("Please run 'e2fsck -f /dev/vda1' first.", Subject.FILESYSTEM, kept(Reason.RESIZE_FAILED)),
        (BUSY.strip(), Subject.PARTITION, kept(Reason.TABLE_BUSY)),
        (REPART.format("vda").strip(), Subject.PARTITION, (True, Grower.REPART, None)),
        (
            "gce-disk-expand: Resizing /dev/sda partition 1 with parted.",
            Subject.PARTITION,
            (True, Grower.INITRAMFS, None),
        ),
    ],
)
def test_telling_lines_are_found_in_large_files(line, subject, finding):
    noise = "systemd[1]: Started something that has nothing to do with disks.\n" * 20_000
    assert told(f"{noise}{line}\n{noise}", subject).finding == finding


def test_a_filesystem_that_grew_after_a_busy_table_shows_that_the_kernel_took_it():
    busy = "# resize-rootfs /dev/vda3\n" + BUSY + KEPT
    grew = (
        "Filesystem at /dev/vda3 is mounted on /; on-line resizing required\n"
        "The filesystem on /dev/{} is now 931328 (4k) blocks long.\n"
    )
    assert told(busy + grew.format("vda3"), Subject.PARTITION).finding == OPEN
    found = told(busy + grew.format("vda2"), Subject.PARTITION)
    assert found.finding == kept(Reason.TABLE_BUSY)


def test_cloud_init_that_was_disabled_before_it_ran_did_run():
    disabled = "cloud-init[300]: cloud-init disabled by /etc/cloud/cloud-init.disabled\n"
    ran = "cloud-init[310]: Cloud-init v. 23.1.2 running 'init'\n"
    assert told(ran + disabled, Subject.PARTITION).finding == kept(Reason.NO_CLOUD_INIT)
    assert told(disabled + ran, Subject.PARTITION).finding == OPEN


def test_another_modules_lack_of_space_is_not_growparts():
    failed = growpart("'/' FAILED: failed to resize: disk=/dev/vda, ptnum=1: Unexpected error")
    said = f"{failed}\nStdout: FAILED: {{}}\nStderr: {{}}\nOSError: [Errno 28] No space left on device\n"
    found = told(said.format("failed to get a resizer", "-"), Subject.PARTITION)
    assert found.finding == kept(Reason.GROWPART_FAILED)
    full = "mkdir: cannot create directory: No space left on device"
    found = told(said.format("failed to make temp dir", full), Subject.PARTITION)
    assert found.finding == kept(Reason.FILESYSTEM_FULL)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        pytest.param(
            "util.py[WARNING]: Failed to resize filesystem (cmd=('resize2fs', '/dev/mapper/vg0-lv_os'))",
            kept(Reason.RESIZE_FAILED),
            id="cloud-init's own",
        ),
        pytest.param(
            "[    2.1] EXT4-fs (vda16): mounted filesystem\nresize2fs: Permission denied to resize filesystem",
            kept(Reason.RESIZE_FAILED),
            id="/boot was mounted before",
        ),
        pytest.param(
            "[    2.1] XFS (dm-1): Mounting V5 Filesystem\nxfs_growfs: XFS_IOC_FSGROWFSDATA xfsctl failed: Invalid",
            kept(Reason.RESIZE_FAILED),
            id="a mapping was mounted before",
        ),
        pytest.param(
            "[    2.1] EXT4-fs (vdb): mounted filesystem\nresize2fs: Permission denied to resize filesystem",
            (None, Grower.UNKNOWN, Reason.RESIZE_FAILED),
            id="another disk was mounted before",
        ),
    ],
)
def test_whose_failure_it_is_shows_in_what_it_names(text, finding):
    assert told(text, Subject.FILESYSTEM).finding == finding


GROWN = "CHANGED: partition=1 start=2048 old: size=20969472 end=20971519 new: size=41940959 end=41943006\n"
BY_HAND = "# growpart /dev/vda 1\n" + GROWN
HALF = FDISK.replace("41943039 41940992  20G", "20971519 20969472  10G")
DRAFT = "Command (m for help): Created a new partition 1 of type 'Linux' and of size 20 GiB.\n"
WRITTEN = "Command (m for help): The partition table has been altered.\nSyncing disks.\n\n"
MOVED = "OK; writing new GUID partition table (GPT) to /dev/vda.\n"
PARTED = "Information: You may need to update /etc/fstab.\n\n"
ON_VDA1 = "# findmnt -n /\n/ /dev/vda1 ext4 rw,relatime\n"
BY_EDIT = (True, Grower.OTHER, None)


class TestATableThatWasEdited:
    """What was shown before root's partition was changed says nothing of what it is now."""

    @pytest.mark.parametrize(
        ("text", "finding"),
        [
            pytest.param(HALF + DRAFT + WRITTEN + ON_VDA1, OPEN, id="fdisk, nothing after"),
            pytest.param(HALF + DRAFT + WRITTEN + WHOLE, BY_EDIT, id="fdisk, lsblk after"),
            pytest.param(HALF + DRAFT + KEPT + ROOM, kept(Reason.TABLE_BUSY), id="kernel's is old"),
            pytest.param(ROOM + MOVED, OPEN, id="gdisk, nothing after"),
            pytest.param(ROOM + MOVED + WHOLE, BY_EDIT, id="gdisk, lsblk after"),
            pytest.param(ROOM + PARTED, OPEN, id="parted, nothing after"),
            pytest.param(ROOM + PARTED + FDISK, OPEN, id="parted, the table after"),
            pytest.param(ROOM + "# sgdisk -d 1 -n 1:2048:0 /dev/vda\n", OPEN, id="sgdisk"),
            pytest.param(ROOM + HALF + DRAFT + FDISK + ROOM, kept(None), id="fdisk without w"),
            pytest.param(ROOM + "# growpart -N /dev/vda 1\n", kept(None), id="nothing was edited"),
            pytest.param(
                ROOM + "# growpart /dev/vda 1\nFAILED: failed to resize\n" + PARTED,
                OPEN,
                id="growpart failed before",
            ),
            pytest.param(
                HALF + BY_HAND + "NOCHANGE: partition 1 could only be grown by 33 [fudge=2048]\n",
                (True, Grower.GROWPART, None),
                id="growpart, then growpart again",
            ),
        ],
    )
    def test_is_read_anew(self, text, finding):
        assert told(text, Subject.PARTITION).finding == finding

    @pytest.mark.parametrize(
        "later", ["# reboot\n", "# partprobe /dev/vda\n", "# kpartx -u /dev/vda\n"]
    )
    def test_a_busy_kernel_may_have_it_after_a_rescan(self, later):
        edited = HALF + DRAFT + BUSY + KEPT
        assert told(edited, Subject.PARTITION).finding == kept(Reason.TABLE_BUSY)
        assert told(edited + later, Subject.PARTITION).finding == OPEN
        assert told(edited + later + WHOLE, Subject.PARTITION).finding[0] is True
        assert told(edited + later + ROOM, Subject.PARTITION).finding == kept(Reason.TABLE_BUSY)

    def test_what_a_program_prints_at_its_own_prompt_is_a_table_of_its_own(self):
        shown = f"{HALF}{DRAFT}Command (m for help): {FDISK}{BUSY}{KEPT}{DF.format('9.8G')}"
        assert told(shown, Subject.PARTITION).finding == kept(Reason.TABLE_BUSY)


def test_listings_of_which_the_later_is_smaller_leave_open_which_is_newer():
    assert told(WHOLE + ROOM, Subject.PARTITION).finding == OPEN


def test_two_hosts_are_not_one_machine():
    text = f"root@a:~# growpart /dev/vda 1\n{GROWN}root@b:~# lsblk\n{ROOM}root@b:~# df -h /\n"
    assert told(text + DF.format("9.8G"), Subject.PARTITION).grown is True
    assert told(text + DF.format("9.8G"), Subject.FILESYSTEM).grown is None


@pytest.mark.parametrize(
    "listing",
    [
        pytest.param(ROOM.replace("20G", "10G"), id="the whole disk is smaller than it grew to"),
        pytest.param(ROOM.replace("vda", "xvda"), id="root has another name"),
    ],
)
def test_growth_that_cannot_be_of_the_listed_machine_leaves_it_open(listing):
    grew = growpart("'/' resized: changed (/dev/vda, 1) from 10736369664 to 21472771584")
    assert told(f"{grew}\n{ROOM}", Subject.PARTITION).finding == kept(Reason.TABLE_BUSY)
    assert told(f"{grew}\n{listing}", Subject.PARTITION).finding == OPEN


GROWFS = 'systemd-growfs[9]: Successfully resized "/" to {}G bytes.\n'
NO_KEY = """\
systemd-growfs[9]: crypt_resize() of /dev/vda3 failed: Operation not permitted
systemd-growfs[9]: Unable to resize underlying device of "/", proceeding anyway: Operation not permitted
"""
MAPPED = """\
NAME     MAJ:MIN RM SIZE RO TYPE  MOUNTPOINTS
vda      253:0    0  40G  0 disk
└─vda3   253:3    0  39G  0 part
  └─root 252:0    0  {}G  0 {} /
"""


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        pytest.param(GROWFS.format(19), OPEN, id="nothing shows that the partition grew"),
        pytest.param(
            REPART.format("vda") + GROWFS.format(19), (True, Grower.GROWFS, None), id="it grew"
        ),
        pytest.param(
            REPART.format("vda") + NO_KEY + GROWFS.format(9) + MAPPED.format(" 9", "crypt"),
            kept(Reason.ENCRYPTED),
            id="the mapping is smaller",
        ),
        pytest.param(
            REPART.format("vda") + NO_KEY + GROWFS.format(38) + MAPPED.format(39, "crypt"),
            (True, Grower.GROWFS, None),
            id="the mapping was opened later",
        ),
        pytest.param(
            REPART.format("vda") + NO_KEY + GROWFS.format(9),
            (None, Grower.UNKNOWN, Reason.ENCRYPTED),
            id="how large the mapping is is not shown",
        ),
        pytest.param(
            REPART.format("vda") + GROWFS.format(9) + MAPPED.format(" 9", "lvm"),
            kept(Reason.LOGICAL_VOLUME),
            id="the volume is smaller",
        ),
        pytest.param(
            REPART.format("vda")
            + GROWFS.format(9)
            + ROOM.replace("vda1", "vda3").replace("10G", "20G"),
            kept(None),
            id="the device is larger than what it resized to",
        ),
    ],
)
def test_growfs_says_the_same_where_it_grew_nothing(text, finding):
    assert told(text, Subject.FILESYSTEM).finding == finding


def test_repart_counts_partitions_from_0():
    assert told(REPART.format("vda") + WHOLE, Subject.PARTITION).finding == OPEN
    third = WHOLE.replace("vda1", "vda3")
    assert told(REPART.format("vda") + third, Subject.PARTITION).finding == (
        True,
        Grower.REPART,
        None,
    )


@pytest.mark.parametrize(
    ("said", "finding"),
    [
        (
            "# resize2fs /dev/vda1 8G\nThe filesystem on /dev/vda1 is now 2097152 (4k) blocks long.\n",
            OPEN,
        ),
        (
            "# resize2fs -M /dev/vda1\nThe filesystem on /dev/vda1 is now 524288 (4k) blocks long.\n",
            OPEN,
        ),
        ("The filesystem on /dev/vda1 is now 2097152 (4k) blocks long.\n", kept(None)),
        ("The filesystem on /dev/vda1 is now 5242619 (4k) blocks long.\n", BY_EDIT),
    ],
)
def test_a_filesystem_may_have_shrunk_to_a_size_that_was_asked_for(said, finding):
    found = told(WHOLE + said, Subject.FILESYSTEM)
    assert found.grown is not True if finding[0] is not True else found.finding == finding


def test_a_resize_that_the_kernel_began_may_have_ended_where_it_was():
    begun = "[ 3.0] EXT4-fs (vda1): resizing filesystem from 2621184 to 5242619 blocks\n"
    failed = (
        "[ 3.1] EXT4-fs warning (device vda1): ext4_resize_fs:2089: error (-28) occurred during"
        " file system resize\n[ 3.2] EXT4-fs (vda1): resized filesystem to 2621184\n"
    )
    assert told(begun + WHOLE, Subject.FILESYSTEM).grown is True
    found = told(begun + failed + WHOLE + DF.format("9.8G"), Subject.FILESYSTEM)
    assert found.finding == kept(Reason.RESIZE_FAILED)


@pytest.mark.parametrize(
    "grew",
    [
        "[ 3.0] EXT4-fs (vda1): resizing filesystem from 2621184 to 5242619 blocks\n",
        "# xfs_growfs /\ndata blocks changed from 2621184 to 5242619\n",
    ],
)
def test_a_filesystem_that_is_as_before_has_not_grown(grew):
    assert told(WHOLE + grew + DF.format("20G"), Subject.FILESYSTEM).grown is True
    assert told(WHOLE + grew + DF.format("9.8G"), Subject.FILESYSTEM).finding == kept(None)


def test_a_boot_that_found_nothing_to_grow_may_not_have_been_the_first():
    said = "NOCHANGE: partition 1 is size 41940959. it cannot be grown\n"
    assert told(f"GROWROOT: {said}{WHOLE}", Subject.PARTITION).finding == OPEN
    found = told(f"# growpart /dev/vda 1\n{said}{WHOLE}", Subject.PARTITION)
    assert found.finding == kept(Reason.DISK_NOT_LARGER)


def test_resizefs_did_not_grow_what_growpart_made_room_for_later():
    assert told(BY_HAND + RESIZED, Subject.FILESYSTEM).by is Grower.RESIZEFS
    assert told(f"{RESIZED}\n{BY_HAND}", Subject.FILESYSTEM).finding == OPEN


def test_a_resize_by_hand_is_not_cloud_inits():
    grew = "# resize2fs /dev/vda1\nThe filesystem on /dev/vda1 is now 5242619 (4k) blocks long.\n"
    assert told(f"{RESIZED}\n{WHOLE}{grew}", Subject.FILESYSTEM).finding == BY_EDIT


def test_lvextend_is_newer_than_an_earlier_listing():
    volume = MAPPED.replace("root 252", "vg-root 252").format(10, "lvm")
    larger = "  Size of logical volume vg/root changed from 10.00 GiB (2560 extents) to 38.99 GiB (9982 extents).\n"
    df = DF.format("9.8G").replace("/dev/vda1 ", "/dev/mapper/vg-root ")
    assert told(volume + df, Subject.FILESYSTEM).finding == kept(Reason.LOGICAL_VOLUME)
    assert told(volume + larger + df, Subject.FILESYSTEM).finding == kept(None)
    vgs = "  VG #PV #LV #SN Attr   VSize  VFree\n  vg   1   1   0 wz--n- 39.00g 29.00g\n"
    df = df.replace("9.8G", " 39G")
    assert told(volume + larger + vgs + df, Subject.FILESYSTEM).grown is None
    whole = volume.replace("40G", "39G")
    assert told(whole + vgs + larger + df, Subject.FILESYSTEM).grown is None


@pytest.mark.parametrize(("disk", "device"), [("vda", "vda3"), ("vdb", "")])
def test_pvresize_names_the_partition_of_a_volume_on_the_first_disk(disk, device):
    text = (
        f'  Physical volume "/dev/{disk}3" changed\n'
        "  Size of logical volume rhel/root changed from 35.41 GiB (9065 extents) to 55.41 GiB (14185 extents).\n"
        f"# growpart /dev/{disk} 3\n{GROWN.replace('partition=1', 'partition=3')}"
        "/dev/mapper/rhel-root on / type xfs (rw)\n"
    )
    found = told(text, Subject.PARTITION)
    assert (found.grown, found.device) == (True if device else None, device)


DISPLAYED = """\
  --- Logical volume ---
  LV Path                /dev/ubuntu-vg/ubuntu-lv
  LV Name                ubuntu-lv
  VG Name                ubuntu-vg
  LV Size                <29.00 GiB

  --- Physical volume ---
  PV Name               /dev/sda3
  VG Name               ubuntu-vg
  PV Size               <58.00 GiB / not usable 0
  PE Size               4.00 MiB
  Total PE              14847
  Free PE               {}
"""
ON_UBUNTU_LV = DF.format("29G").replace("/dev/vda1 ", "/dev/mapper/ubuntu--vg-ubuntu--lv ")


@pytest.mark.parametrize(("free", "finding"), [(7424, kept(Reason.LOGICAL_VOLUME)), (0, OPEN)])
def test_pvdisplay_shows_what_a_volume_may_still_take(free, finding):
    found = cl.explain(DISPLAYED.format(free) + ON_UBUNTU_LV)
    assert [one.device for one in found.statements[:2]] == ["sda3", "sda3"]
    assert found.statements[-1].finding == finding
    assert "lvextend" in str(found.statements[-1].fix) or not free


def test_a_volume_resized_by_hand_right_after_pvresize_lies_on_what_that_names():
    resized = "# resize2fs /dev/mapper/{}\nThe filesystem is already 2568192 (4k) blocks long.  Nothing to do!\n"
    for volume, joined in (("vg-root", True), ("vg-home", False)):
        text = BY_PVRESIZE + resized.format(volume) + ON_VG
        assert told(text, Subject.PARTITION).grown is (True if joined else None)
        found = told(text, Subject.FILESYSTEM)
        assert found.finding == (kept(Reason.LOGICAL_VOLUME) if joined else OPEN)


@pytest.mark.parametrize(
    ("rows", "device"),
    [
        ("  └─vg-root   9.5G lvm\n", "vg-root"),
        ("  ├─vg-root   9.5G lvm\n  └─vg-var    9.6G lvm\n", "dm-0"),
        ("  ├─vg-root   9.5G lvm\n  └─vg-var    5.0G lvm\n", "vg-root"),
        ("  ├─vg-var    5.0G lvm\n  └─vg-tmp   20.0G lvm\n", "dm-0"),
    ],
)
def test_the_kernels_name_in_df_is_that_of_the_only_volume_that_it_fills(rows, device):
    listed = f"NAME           SIZE TYPE\nsda             40G disk\n└─sda2        39.5G part\n{rows}"
    found = told(DF.format("9.3G").replace("vda1", "dm-0") + "\n" + listed, Subject.FILESYSTEM)
    assert found.device == device


DRY_RUN = """\
# growpart --dry-run /dev/vda 1
CHANGE: partition=1 start=2048 old: size=4384735 end=4386782 new: size=83884032 end=83886079
# === old sfdisk -d ===
label: gpt
device: /dev/vda

/dev/vda1 : start=        2048, size=     4384735, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
# === new sfdisk -d ===
label: gpt
device: /dev/vda

/dev/vda1 : start=        2048, size=    83884032, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
root@vm:~# df -h /
"""


def test_what_growpart_would_change_has_not_grown():
    text = DRY_RUN + DF.format("2.0G")
    found = told(text, Subject.PARTITION)
    assert found.finding == kept(None)
    assert "sudo growpart /dev/vda 1" in found.fix
    assert told(text, Subject.FILESYSTEM).finding == kept(Reason.FILLS_ITS_DEVICE)
    grew = (
        text
        + "root@vm:~# growpart /dev/vda 1\n"
        + DRY_RUN.splitlines()[1].replace("CHANGE", "CHANGED")
    )
    assert told(grew, Subject.PARTITION).by is Grower.GROWPART


def test_tune2fs_shows_that_a_filesystem_is_ext():
    blocks = "# tune2fs -l /dev/vda1\nBlock count:              2559744\n"
    assert "xfs_growfs" not in told(WHOLE + blocks, Subject.FILESYSTEM).fix


def test_a_volume_is_one_of_the_group_that_its_name_begins_with():
    pvs = "  PV         VG      Fmt  Attr PSize   PFree\n  /dev/sda2  vg_main lvm2 a--  <63.00g 27.00g\n"
    df = DF.format("32G").replace("/dev/vda1 ", "/dev/mapper/vg_main-lv_root ")
    found = told(pvs + df, Subject.FILESYSTEM)
    assert found.finding == kept(Reason.LOGICAL_VOLUME)
    assert "lvextend -r -l +100%FREE /dev/mapper/vg_main-lv_root" in found.fix


GCE = "Mar 19 07:41:08 vm kernel: gce-disk-expand: {}\n"
MOUNT = "[ 2.1] EXT4-fs (sda1): mounted filesystem\n"


@pytest.mark.parametrize(
    ("said", "finding"),
    [
        (["Resizing /dev/sda partition 1 with parted."], (True, Grower.INITRAMFS, None)),
        (
            [
                "Resizing /dev/sda partition 1 with parted.",
                "Unable to resize /dev/sda1: Error: busy",
            ],
            kept(Reason.GROWPART_FAILED),
        ),
        (["Root partition is not final partition on disk. Not resizing."], kept(Reason.WALL)),
        (["Root is not a partition, skipping partition resize."], kept(Reason.NO_PARTITION)),
        (["Disk /dev/sda1 doesn't need resizing"], OPEN),
    ],
)
def test_googles_script_in_the_initramfs(said, finding):
    assert told("".join(map(GCE.format, said)) + MOUNT, Subject.PARTITION).finding == finding


def test_raspberry_pis_script_names_a_partition_behind():
    said = "/dev/mmcblk0p2 is not the last partition. Don't know how to expand\n"
    assert told(said, Subject.PARTITION).finding == kept(Reason.WALL)


@pytest.mark.parametrize("program", ["coreos-growpart[902]", "google_disk_expand[331]"])
def test_a_service_that_grows_nothing_but_root_grew_root(program):
    said = f"{program}: data blocks changed from 2020096 to 4117243\n"
    assert told(said, Subject.FILESYSTEM).finding == BY_EDIT


BSD = """\
=>       0  62914560  da0  {}  (30G)
         0  41943040    1  {}  (20G)
  41943040  20971520       - free -  (10G)

Filesystem    Size    Used   Avail Capacity  Mounted on
/dev/{}        19G    2.6G     15G    15%    /
"""


@pytest.mark.parametrize(
    ("scheme", "kind", "name"), [("BSD", "freebsd-ufs", "da0a"), ("MBR", "freebsd", "da0s1")]
)
def test_freebsds_labels_and_slices(scheme, kind, name):
    found = told(BSD.format(scheme, kind, name), Subject.PARTITION)
    assert (found.finding, found.device) == (kept(None), name)
    assert "gpart resize -i 1 da0" in found.fix
    assert "gpart recover" not in found.fix
    resized = f"root@bsd:~ # gpart resize -i 1 da0\n{name} resized\n"
    assert told(BSD.format(scheme, kind, name) + resized, Subject.PARTITION).finding == BY_EDIT


@pytest.mark.parametrize(("size_bytes", "shown", "finding"), [
    (2361393152, "2252M", kept(Reason.DISK_NOT_LARGER)),
    (21474836480, "20G", OPEN),
    (21474836480, "2252M", OPEN),
])  # fmt: skip
def test_a_disk_has_its_images_size_only_if_nobody_chooses_such_a_size(size_bytes, shown, finding):
    idle = growpart("'/' NOCHANGE: no change necessary (/dev/vda, 1)")
    host = f"root@pve:~# qm config 235\nvirtio0: local:235/vm-235-disk-0.qcow2,size={shown}\n"
    listed = f"user@vm:~$ lsblk -b\nNAME SIZE TYPE MOUNTPOINTS\nvda {size_bytes} disk\n└─vda1 {size_bytes - (1 << 20)} part /\n"
    assert told(f"{idle}\n{host}{listed}", Subject.PARTITION).finding == finding


@pytest.mark.parametrize("disk", ["mpatha", "3600140508f7c0a6b7a84f0aa2c3f8d11"])
@pytest.mark.parametrize("size", ["20G", "40G"])
def test_a_partition_of_a_multipath_device_lies_on_that(disk, size):
    path = (
        f"sd{{}}           8:0    0   40G  0 disk\n└─{disk} 253:0    0   40G  0 mpath\n"
        f"  ├─{disk}-part1  253:1    0    1M  0 part\n  └─{disk}-part2  253:2    0 {size}  0 part  /\n"
    )
    listed = "NAME  MAJ:MIN RM  SIZE RO TYPE  MOUNTPOINTS\n" + path.format("a") + path.format("b")
    found = told(listed, Subject.PARTITION)
    assert found.device == f"{disk}-part2"
    assert found.finding == (kept(None) if size == "20G" else OPEN)
    if size == "20G":
        # growpart resolves the name to /dev/dm-N, of which no table names a partition.
        assert "sudo growpart" not in found.fix
        assert f"parted /dev/mapper/{disk} resizepart 2 100%" in found.fix
        assert f"resize2fs /dev/mapper/{disk}-part2" in found.fix
    grew = f"# growpart /dev/mapper/{disk} 2\nCHANGED: partition=2 start=4096 old: size=20971520 end=20975616"
    grew += " new: size=83881984 end=83886079\n"
    assert told(grew + listed.replace("20G", "40G"), Subject.PARTITION).by is Grower.GROWPART


@pytest.mark.parametrize(("kind", "reason"), [("disk", Reason.NO_PARTITION), ("part", None)])
def test_a_disk_may_have_a_partitions_name(kind, reason):
    rows = f"xvda1 202:1    0   20G  0 {kind} /\nxvda2 202:2    0  0.5G  0 {kind} [SWAP]\n"
    found = told("NAME  MAJ:MIN RM  SIZE RO TYPE MOUNTPOINT\n" + rows, Subject.PARTITION)
    assert found.reason is reason
    assert "growpart" not in str(found.fix)


LABELLED = """\
NAME          FSTYPE LABEL UUID                                 MOUNTPOINT
nvme1n1
├─nvme1n1p1   xfs    /     2fb60c6e-7c4f-4e88-b1a5-a1b2c3d4e5f6
└─nvme1n1p128
nvme0n1
└─nvme0n1p1   ext4   root  3fb60c6e-7c4f-4e88-b1a5-a1b2c3d4e5f6 /
"""
SUBVOLUMES = """\
NAME   FSTYPE FSVER LABEL UUID                                 FSAVAIL FSUSE% MOUNTPOINTS
vda
├─vda1
└─vda2 btrfs        ROOT  a0b1c2d3-1111-2222-3333-444455556666    5,9G    64% /var
                                                                              /
"""


@pytest.mark.parametrize(
    ("listed", "root"),
    [
        (LABELLED, "nvme0n1p1"),
        ("NAME        MOUNTPOINT FSTYPE LABEL\nvda\n├─vda1                 ext4   /\n└─vda2      /          ext4   root\n", "vda2"),
        ("NAME   FSTYPE LABEL\nvda\n└─vda1 ext4   /\n", ""),
        (SUBVOLUMES, "vda2"),
    ],
    ids=["before the UUID", "behind the mount points", "without mount points", "a further line"],
)  # fmt: skip
def test_a_label_is_no_mount_point(listed, root):
    assert told(f"$ lsblk -f\n{listed}$ uptime\n", Subject.PARTITION).device == root


@pytest.mark.parametrize(
    ("size", "finding"), [("19,2G", kept(None)), ("78.6G", OPEN), ("     ", OPEN)]
)
def test_lsblk_may_show_the_filesystems_size_beside_its_partitions(size, finding):
    listed = (
        "NAME    FSTYPE   SIZE FSSIZE FSUSED FSAVAIL MOUNTPOINT\nsda               80G\n"
        f"├─sda1  ext4    79.9G  {size}   5.1G   13.2G /\n└─sda15 vfat     124M 123.7M  11.8M  111.9M /boot/efi\n"
    )
    found = told(listed, Subject.FILESYSTEM)
    assert found.finding == finding
    assert ("df -B1" in str(found.missing)) == (not size.strip())


@pytest.mark.parametrize("tree", "│ ")
def test_the_line_that_shows_the_mount_at_root_is_quoted_too(tree):
    rows = ROOM.replace("part /", "part /var")
    further = tree + " " * 30
    text = f"{rows}{further}/home\n{further}/\n"
    quoted = told(text, Subject.PARTITION).evidence
    assert [one.line for one in quoted] == [2, 3, 5]
    assert told(f"{text}$ mount\n{further}/\n", Subject.PARTITION).evidence == quoted


def test_lsblk_breaks_a_row_after_a_long_name():
    rows = (
        "  └─dm_crypt-0\n              253:0    0 928.4G  0 crypt\n"
        "    └─ubuntu--vg-ubuntu--lv\n              253:1    0   100G  0 lvm   /\n"
    )
    head = (
        "NAME          MAJ:MIN RM   SIZE RO TYPE  MOUNTPOINTS\n"
        "nvme0n1       259:0    0 931.5G  0 disk\n└─nvme0n1p3   259:3    0 928.5G  0 part\n"
    )
    found = cl.explain(head + rows)
    assert [one.device for one in found.statements] == [
        "nvme0n1p3", "dm_crypt-0", "ubuntu--vg-ubuntu--lv", "ubuntu--vg-ubuntu--lv",
    ]  # fmt: skip
    assert found.statements[-1].finding == kept(Reason.LOGICAL_VOLUME)


STARTS = """\
$ lsblk -b -o NAME,TYPE,SIZE,START,FSTYPE,MOUNTPOINTS
NAME   TYPE        SIZE    START FSTYPE MOUNTPOINTS
vda    disk 42949672960
├─vda1 part 20434649088     2048 ext4   /
"""


@pytest.mark.parametrize(
    ("behind", "finding"),
    [
        ("└─vda2 part  1022361600 39915520 swap   [SWAP]\n", kept(Reason.WALL)),
        ("└─vda2 part  1022361600 79915520 swap   [SWAP]\n", kept(None)),
        ("└─vda14 part      1022976       34\n", kept(None)),
        ("├─vda2 part        1024 39915518\n└─vda5 part 1022361600 39915520 swap [SWAP]\n", kept(Reason.WALL)),
    ],
    ids=["right behind it", "at the end", "before it", "in an extended one"],
)  # fmt: skip
def test_what_lies_behind_root_shows_in_lsblks_column_of_starts(behind, finding):
    for said in ("", "NOCHANGE: partition 1 is size 39911424. it cannot be grown\n"):
        found = told(f"$ growpart /dev/vda 1\n{said}{STARTS}{behind}", Subject.PARTITION)
        assert found.finding == finding
        assert ("swapoff" in found.fix) == (finding == kept(Reason.WALL))
        assert "begin behind it?" not in found.fix


def test_a_start_that_only_some_partitions_have_shows_no_room():
    found = told(STARTS + "└─vda2 part  1022361600          swap   [SWAP]\n", Subject.PARTITION)
    assert found.finding == kept(None)
    assert "does vda2 begin behind it?" in found.fix


def test_the_swap_behind_root_is_removed_whatever_kept_it_from_growing():
    swap = "/dev/vda2    20971520 23068671  2097152   1G 82 Linux swap / Solaris\n"
    walled = HALF.rstrip() + "\n" + swap + "\n" + ON_VDA1
    for said in ("-bash: growpart: command not found\n", growpart("growpart disabled: mode=off\n")):
        assert "swapoff /dev/vda2" in told(walled + said, Subject.PARTITION).fix


def test_a_gpt_warning_is_about_the_disk_that_the_kernel_names_next():
    said = "kernel: GPT:Primary header thinks Alt. header is not at the end of the disk.\nkernel:  {0}: {0}1\n"
    assert told(ROOM + said.format("vda"), Subject.PARTITION).finding == kept(Reason.GPT_BACKUP)
    assert told(ROOM + said.format("vdb"), Subject.PARTITION).finding == kept(None)


ON_LVM = """\
NAME          MAJ:MIN RM SIZE RO TYPE MOUNTPOINTS
sda             8:0    0  40G  0 disk
└─sda2          8:2    0  39G  0 part
  └─vg-root   253:0    0  19G  0 lvm  /
"""
VGS = "  VG #PV #LV #SN Attr   VSize  VFree\n  vg   1   1   0 wz--n- <39.00g 10.00g\n"
PVS = "  PV         VG Fmt  Attr PSize   PFree\n  /dev/sda2  vg lvm2 a--  <{0}.00g {1}.00g\n"
LV_GREW = (
    "  Size of logical volume vg/{} changed from {}.00 GiB (1 extents) to {}.00 GiB (2 extents).\n"
    "  Logical volume vg/{} successfully resized.\n"
)
PV_CHANGED = '  Physical volume "/dev/sda2" changed\n'


@pytest.mark.parametrize(
    ("said", "grown"),
    [
        ("", False),
        (LV_GREW.format("root", 19, 29, "root"), True),
        (LV_GREW.format("var", 5, 10, "var"), False),
        (LV_GREW.format("root", 29, 19, "root"), None),
        ("  Extending logical volume root to 29.00 GiB\n", None),
        ("  Logical volume root successfully resized\n", None),
        ("# lvextend -L 29G /dev/vg/root\n", None),
        ("# lvextend -L 29G vg/var\n", False),
    ],
)
def test_what_lvm_says_of_roots_volume_outweighs_the_room_in_its_group(said, grown):
    assert told(ON_LVM + said + VGS, Subject.LOGICAL_VOLUME).grown is grown


def test_the_room_that_a_group_had_may_be_used_by_another_volume_since():
    listed = ON_LVM + "  └─vg-var    253:1    0  10G  0 lvm  /var\n" + VGS
    assert told(listed, Subject.LOGICAL_VOLUME).finding == kept(Reason.LOGICAL_VOLUME)
    used = LV_GREW.format("var", 10, 20, "var")
    assert told(listed + used, Subject.LOGICAL_VOLUME).finding == OPEN


def test_a_volume_that_is_listed_larger_later_grew():
    filled = ON_LVM.replace("19G", "39G")
    found = told(ON_LVM + filled, Subject.LOGICAL_VOLUME)
    assert found.finding == (True, Grower.UNKNOWN, None)
    assert (found.from_bytes, found.to_bytes) == (19 << 30, 39 << 30)
    assert told(filled + filled, Subject.LOGICAL_VOLUME).finding == OPEN


@pytest.mark.parametrize(
    ("shown", "grown"),
    [
        (ON_LVM + PVS.format(19, 0), False),
        (PVS.format(19, 0) + ON_LVM + PV_CHANGED, None),
        (ON_LVM.replace("39G", "19G") + PVS.format(19, 0) + ON_LVM, None),
        (ON_LVM + PVS.format(19, 0) + PV_CHANGED + PVS.format(39, 20), True),
    ],
)
def test_a_physical_volume_is_compared_with_what_is_shown_beside_it(shown, grown):
    assert told(shown, Subject.PHYSICAL_VOLUME).grown is grown


@pytest.mark.parametrize(
    ("kind", "said", "grown"),
    [
        ("crypt", "", False),
        ("crypt", "# cryptsetup resize root\n", None),
        ("raid1", "# mdadm --grow /dev/root --size=max\n", None),
        ("raid1", "mdadm: component size of /dev/root has been set to 40894464K\n", None),
        ("raid1", "[ 9.1] root: detected capacity change from 19923968 to 40894464\n", True),
    ],
)
def test_what_resized_a_layer_since_leaves_its_listed_size_open(kind, said, grown):
    subject = {"crypt": Subject.LUKS, "raid1": Subject.RAID}[kind]
    listed = MAPPED.format(10, kind)
    assert told(listed + said, subject).grown is grown
    if said:
        df = DF.format("9.8G").replace("/dev/vda1 ", "/dev/mapper/root ")
        assert told(listed + said + df, Subject.FILESYSTEM).reason is None


BLOCKS = "# dumpe2fs -h /dev/{} 2>/dev/null | grep -i block\nBlock count:              {}\n"


@pytest.mark.parametrize(
    ("shown", "grown"),
    [
        (BLOCKS.format("vda1", 4 << 20), False),
        (BLOCKS.format("vda1", 5 << 20), None),
        (BLOCKS.format("vdb1", 4 << 20), None),
        ("Last mounted on:          /home\nBlock count:              4194304\n", None),
        ("Last mounted on:          /\nBlock count:              4194304\n", False),
    ],
)
def test_a_count_of_blocks_decides_what_df_leaves_open(shown, grown):
    assert told(WHOLE + shown, Subject.FILESYSTEM).grown is grown


@pytest.mark.parametrize(
    ("fstype", "command"),
    [
        ("reiserfs", "resize_reiserfs /dev/vda1"),
        ("jfs", "mount -o remount,resize /"),
        ("nilfs2", "nilfs-resize /dev/vda1"),
        ("bcachefs", "bcachefs device resize /dev/vda1"),
        ("exfat", "exfat cannot grow"),
    ],
)
def test_the_fix_for_filesystems_that_cloud_init_does_not_resize(fstype, command):
    said = f"cc_resizefs.py[WARNING]: Not resizing unknown filesystem type {fstype} for /\n"
    assert command in told(WHOLE + said, Subject.FILESYSTEM).fix


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        (
            "stat of '/dev/disk/by-partuuid/7c1e-01' failed: [Errno 2] No such file",
            "device-not-found",
        ),
        ("stat of '/dev/vda1' failed: [Errno 13] Permission denied", "growpart-failed"),
        ("stat of 'tmpfs' failed: [Errno 2] No such file or directory", "device-not-found"),
        ("stat of '10.0.0.1:/srv' failed: [Errno 2] No such file or directory", "device-not-found"),
        ("stat of 'rpool/ROOT/ubuntu' failed: [Errno 2] No such file or directory", "zfs"),
        ("stat of 'composefs' failed: [Errno 2] No such file or directory", "immutable-root"),
        ("unable to convert to device: Unable to find device '/dev/root'", "device-not-found"),
        ("device_part_info(/dev/vda1) failed: /dev/vda1 had no syspath", "device-not-found"),
        ("device_part_info(/dev/vda) failed: /dev/vda not a partition", "no-partition-table"),
        ("device_part_info(/dev/mapper/a-b) failed: /dev/mapper/a-b not a partition", None),
    ],
)
def test_why_cloud_init_skipped_root(why, reason):
    assert told(growpart(f"'/' SKIPPED: {why}\n"), Subject.PARTITION).reason == reason


@pytest.mark.parametrize(
    ("device", "reason"), [("composefs", "immutable-root"), ("/dev/vdz1", "device-not-found")]
)
def test_a_device_that_resizefs_does_not_find_may_be_that_of_an_image(device, reason):
    said = f"Device '{device}' did not exist. cannot resize: dev={device} mnt_point=/ path=/"
    assert told(resizefs(said), Subject.FILESYSTEM).reason == reason


def test_a_partition_that_grew_may_be_the_one_below_a_mapping_that_was_skipped():
    why = "Resizing mapped device (/dev/mapper/rhel-root) skipped as it is not encrypted."
    skipped = growpart(f"'/' SKIPPED: {why}")
    grew = GREW.replace("'/'", "'/dev/vda2'").replace("vda, 1", "vda2")
    assert told(skipped, Subject.PARTITION).finding == kept(Reason.LOGICAL_VOLUME)
    found = told(f"{grew}\n{skipped}\n{RESIZED}", Subject.PARTITION)
    assert found.finding == OPEN
    assert [one.line for one in found.evidence] == [1, 2]
    assert told(f"{grew}\n{skipped}\n{RESIZED}", Subject.FILESYSTEM).finding == OPEN
    listed = ON_LVM.replace("sda", "vda").replace("vg-root", "rhel-root")
    assert told(f"{grew}\n{skipped}\n{listed}", Subject.PARTITION).grown


@pytest.mark.parametrize(
    "shown",
    [
        ON_LVM
        + "  TEST MODE: Metadata will NOT be updated.\n"
        + LV_GREW.format("root", 19, 39, "root"),
        "The wiki says:\n" + LV_GREW.format("root", 10, 39, "root") + ON_LVM,
    ],
    ids=["a dry run", "somebody else's"],
)
def test_what_lvm_only_tried_or_said_elsewhere_has_not_grown_roots_volume(shown):
    assert told(shown, Subject.LOGICAL_VOLUME).grown is None


REBOOT = "# reboot\n"


@pytest.mark.parametrize(
    "shown",
    [
        DF.format("9.8G") + REBOOT + WHOLE,
        BLOCKS.format("vda1", 4 << 20) + REBOOT + WHOLE,
        ROOM + DF.format("9.8G") + REBOOT + WHOLE,
        WHOLE
        + "/dev/vda1 on / type btrfs (rw)\n    devid    1 size 9.00GiB used 4.52GiB path /dev/vda1\nResize '/' of 'max'\n",
        WHOLE
        + "/dev/vda1 on / type btrfs (rw)\n# btrfs filesystem usage /home\n    Device size:   9.00GiB\n",
        WHOLE + "# xfs_info /home\ndata     =       bsize=4096   blocks=1310720, imaxpct=25\n",
    ],
)
def test_a_size_of_another_time_or_filesystem_decides_nothing(shown):
    assert told(shown, Subject.FILESYSTEM).grown is None
    assert told(WHOLE + DF.format("9.8G"), Subject.FILESYSTEM).finding == kept(None)


def test_growpart_that_finds_the_old_size_contradicts_its_success():
    changed = "CHANGED: partition=1 start=2048 old: size=20969472 end=20971519 new: size=41940959 end=41943006\n"
    same = "# growpart /dev/vda 1\nNOCHANGE: partition 1 is size 20969472. it cannot be grown\n"
    assert told(f"# growpart /dev/vda 1\n{changed}{same}", Subject.PARTITION).grown is None


def test_lsblk_may_list_what_is_below_a_device_under_it():
    shown = (
        "NAME        MAJ:MIN RM SIZE RO TYPE MOUNTPOINTS\n"
        "vg-root     253:0    0  10G  0 lvm   /\n└─sda2        8:2    0  39G  0 part\n"
        "  └─sda       8:0    0  40G  0 disk\nsda1          8:1    0   1G  0 part  /boot\n"
        "└─sda         8:0    0  40G  0 disk\n"
    )
    found = cl.explain(shown)
    assert [one.device for one in found.statements] == ["sda2", "vg-root", "vg-root"]
    assert found.statements[1].finding == kept(Reason.LOGICAL_VOLUME)


IMAGE = "Filesystem      Size  Used Avail Use% Mounted on\n{:<16}8.4M  8.4M     0 100% /\n"
BY_IGNITION = (
    "ignition-ostree-growfs[9]: meta-data=/dev/vda1  isize=512  agcount=4, agsize=622526 blks\n"
    "ignition-ostree-growfs[9]: data blocks changed from 2621184 to 5242619\n"
)
ON_IMAGE = WHOLE.replace(" part /", " part /var")


@pytest.mark.parametrize("source", ["composefs", "overlay", "overlayroot", "tmpfs", "/dev/loop0"])
def test_the_size_of_an_image_on_root_says_nothing_of_roots_filesystem(source):
    found = told(BY_IGNITION + WHOLE + IMAGE.format(source), Subject.FILESYSTEM)
    assert found.finding == (True, Grower.INITRAMFS, None)
    assert told(WHOLE + IMAGE.format(source), Subject.FILESYSTEM).finding == OPEN
    assert told(WHOLE + IMAGE.format("/dev/vda1"), Subject.FILESYSTEM).finding == kept(None)


@pytest.mark.parametrize(
    ("shown", "finding"),
    [
        ("# findmnt -no SOURCE,FSTYPE,SIZE /\n/dev/vda1[/@] btrfs 9.8G\n", kept(None)),
        ("# findmnt -o SOURCE,SIZE /\nSOURCE    SIZE\n/dev/vda1 9.8G\n", kept(None)),
        ("# findmnt --output=TARGET,SIZE,SOURCE\n/ 9.8G /dev/vda1\n", kept(None)),
        ("# findmnt -no SOURCE,SIZE /sysroot\n/dev/vda1 9.8G\n", kept(None)),
        ("# findmnt -no SOURCE,SIZE /home\n/dev/vdb1 9.8G\n", OPEN),
        ("# findmnt -no SOURCE,FSTYPE,SIZE /\ncomposefs overlay 8.4M\n", OPEN),
        (
            "# findmnt -no SOURCE,FSTYPE,SIZE /\n/dev/vda1 squashfs 8.4M\n",
            kept(Reason.IMMUTABLE_ROOT),
        ),
        ("# findmnt -no SOURCE,SIZE /\n\n/dev/vda1 9.8G\n", OPEN),
    ],
)
def test_findmnt_is_read_by_the_columns_that_were_chosen(shown, finding):
    assert told(WHOLE + shown, Subject.FILESYSTEM).finding == finding


KERNEL_GREW = "[ 4.5] EXT4-fs (vda1): resizing filesystem from 2621184 to 5242619 blocks\n"
BY_GROWFS = '[ 4.8] systemd-growfs[9]: Successfully resized "/" to {}G bytes.\n'


@pytest.mark.parametrize(
    ("said", "by"),
    [
        (KERNEL_GREW + BY_GROWFS.format(20), Grower.GROWFS),
        (KERNEL_GREW + BY_GROWFS.format(15), Grower.UNKNOWN),
        (BY_GROWFS.format(20) + KERNEL_GREW, Grower.UNKNOWN),
        (KERNEL_GREW + 20 * "[ 4.6] \n" + BY_GROWFS.format(20), Grower.UNKNOWN),
        ("[ 4.1] Cloud-init v. 24.1\n" + KERNEL_GREW + BY_GROWFS.format(20), Grower.UNKNOWN),
    ],
)
def test_growfs_that_names_the_kernels_new_size_right_after_it_grew_it(said, by):
    assert told(f"{said}\n{RESIZED}\n{WHOLE}", Subject.FILESYSTEM).by is by


BY_PVRESIZE = (
    "# growpart /dev/sda 3\n"
    "CHANGED: partition=3 start=2048 old: size=20969472 end=20971519 new: size=41940959 end=41943006\n"
    '# pvresize /dev/sda3\n  Physical volume "/dev/sda3" changed\n'
)
ON_VG = DF.format("9.8G").replace("/dev/vda1 ", "/dev/mapper/vg-root ")


@pytest.mark.parametrize(
    ("before", "joined"),
    [
        (VGS, True),
        ("", False),
        (VGS + VGS.replace("vg   1", "data 1"), False),
        (VGS.replace("vg   1", "data 1"), False),
        (VGS + '  Physical volume "/dev/sdb" changed\n', False),
    ],
)
def test_the_only_group_shown_lies_on_the_only_volume_that_was_resized(before, joined):
    partition = told(before + BY_PVRESIZE + ON_VG, Subject.PARTITION)
    filesystem = told(before + BY_PVRESIZE + ON_VG, Subject.FILESYSTEM)
    assert (partition.grown, partition.device) == ((True, "sda3") if joined else (None, ""))
    if joined:
        assert filesystem.finding == kept(Reason.LOGICAL_VOLUME)
        assert "lvextend -r -l +100%FREE /dev/mapper/vg-root" in filesystem.fix


@pytest.mark.parametrize(
    ("fstype", "free", "offered"),
    [("btrfs", 20, True), ("xfs", 20, False), ("ext4", 20, False), ("btrfs", 0, False)],
)
def test_btrfs_can_take_the_room_behind_another_partition(fstype, free, offered):
    end = 40 + free
    shown = (
        f"Disk /dev/vda: {end}.0GiB\nPartition Table: gpt\n\n"
        "Number  Start    End      Size     File system  Name  Flags\n"
        " 1      0.00GiB  20.0GiB  20.0GiB\n 2      20.0GiB  40.0GiB  20.0GiB\n\n"
        f"# findmnt -no SOURCE,FSTYPE /\n/dev/vda1 {fstype}\n"
    )
    found = told(shown, Subject.PARTITION)
    assert found.reason is (Reason.WALL if free else None)
    assert ("btrfs device add /dev/NEW /" in (found.fix or "")) is offered


@pytest.mark.parametrize(
    ("mounts", "point"), [("/var", "/var"), ("/sysroot", "/sysroot"), ("", "/sysroot")]
)
def test_a_root_behind_an_image_is_grown_where_it_is_mounted(mounts, point):
    skipped = growpart("'/' SKIPPED: stat of 'composefs' failed: [Errno 2] No such file\n")
    listed = ROOM.replace(" part /", f" part {mounts}")
    shown = 'composefs on / type overlay (ro)\n/dev/vda1: UUID="1" TYPE="xfs"\n'
    found = told(skipped + listed + shown, Subject.PARTITION)
    assert (found.device, found.reason) == ("vda1", Reason.IMMUTABLE_ROOT)
    assert f"remount,rw {point}\n" in found.fix
    assert "growpart /dev/vda 1" in found.fix


@pytest.mark.parametrize(
    ("said", "checked"),
    [
        (
            "[ 2.6] EXT4-fs (vda1): warning: mounting fs with errors, running e2fsck is recommended",
            True,
        ),
        (
            "[ 9.8] EXT4-fs warning (device vda1): ext4_resize_begin:72: There are errors in the filesystem, so online resizing is not allowed",
            True,
        ),
        ("Filesystem state:         clean with errors", True),
        ("Filesystem state:         clean", False),
        (
            "[ 2.6] EXT4-fs (vdb1): warning: mounting fs with errors, running e2fsck is recommended",
            False,
        ),
    ],
)
def test_a_filesystem_that_is_marked_with_errors_is_checked_first(said, checked):
    failed = "resize2fs: Permission denied to resize filesystem\n"
    found = told(f"{said}\n# resize2fs /dev/vda1\n{failed}{WHOLE}", Subject.FILESYSTEM)
    assert found.reason is Reason.RESIZE_FAILED
    assert ("e2fsck -f /dev/vda1" in (found.fix or "")) is checked


KIWI = """\
Jun 18 08:02:12 h dracut-pre-mount[446]: The operation has completed successfully.
Jun 18 08:02:14 h kernel:  {0}: {0}1
Jun 18 08:02:16 h kernel: BTRFS info (device {0}1): resize device /dev/{0}1 (devid 1) from 1501560832 to 21473787904
Jun 18 08:02:16 h dracut-pre-mount[548]: Resize device id 1 (/dev/{0}1) from 1.40GiB to max
"""
BY_INITRAMFS = (True, Grower.INITRAMFS, None)
IDLE = "# growpart /dev/vda 1\nNOCHANGE: partition 1 is size 41940959. it cannot be grown\n"


def test_an_initramfs_that_writes_the_table_and_then_resizes_root_grew_both():
    found = cl.explain(KIWI.format("vda") + WHOLE + IDLE)
    assert {one.finding for one in found.statements} == {BY_INITRAMFS}
    data = KIWI.format("vdb") + WHOLE
    assert {one.finding for one in cl.explain(data).statements} == {OPEN}
    moved, *rest = KIWI.format("vda").splitlines(keepends=True)
    assert told(moved + WHOLE, Subject.PARTITION).finding == OPEN
    resized = "".join(rest) + WHOLE
    assert told(resized, Subject.PARTITION).finding == OPEN
    assert told(resized, Subject.FILESYSTEM).finding == BY_INITRAMFS


BOOTED = "Apr 04 10:41:31 pi kernel: Kernel command line: root=PARTUUID={}-01 rootwait{}\n"
SCRIPT = " init=/usr/lib/raspi-config/init_resize.sh"


@pytest.mark.parametrize(
    ("first", "second", "shown", "finding"),
    [
        (("3f1a6c02", SCRIPT), ("9be40d17", ""), WHOLE, BY_EDIT),
        (("3f1a6c02", SCRIPT), ("3f1a6c02", ""), WHOLE, OPEN),
        (("3f1a6c02", SCRIPT), ("9be40d17", SCRIPT), WHOLE, OPEN),
        (("3f1a6c02", " init=/sbin/init"), ("9be40d17", ""), WHOLE, OPEN),
        (("3f1a6c02", SCRIPT), ("9be40d17", ""), ROOM, kept(None)),
    ],
)
def test_raspberry_pis_script_that_ran_instead_of_init_grew_root(first, second, shown, finding):
    text = BOOTED.format(*first) + BOOTED.format(*second) + shown
    assert told(text, Subject.PARTITION).finding == finding


@pytest.mark.parametrize(
    "before",
    [
        KERNEL_GREW,
        "# resize2fs /dev/vda1\nThe filesystem on /dev/vda1 is now 5242619 (4k) blocks long.\n",
        "# growpart /dev/vda 1\nFAILED: failed to get a resizer for id ''\n",
        "[ 900.1] vda: detected capacity change from 20971520 to 41943040\n",
    ],
)
def test_a_partition_that_was_once_smaller_than_its_disk_was_grown_before(before):
    assert told(before + IDLE + WHOLE, Subject.PARTITION).finding == OPEN
    another = before.replace("vda", "vdb")
    found = told(another + IDLE + WHOLE, Subject.PARTITION)
    assert found.finding == kept(Reason.DISK_NOT_LARGER)


@pytest.mark.parametrize("said", ["# growpart /dev/vda 1\n", "GROWROOT: "])
def test_growpart_says_the_same_of_what_it_grew_before(said):
    text = said + "NOCHANGE: partition 1 could only be grown by 33 [fudge=2048]\n"
    assert told(text, Subject.PARTITION).finding == OPEN


def test_a_failure_is_not_the_last_word_where_growpart_then_finds_nothing_to_do():
    by_hand = "# growpart /dev/vda 1\nFAILED: failed to get a resizer for id ''\n"
    module = growpart("'/' FAILED: failed to resize: disk=/dev/vda, ptnum=1: Unexpected error\n")
    for failed in (by_hand, module):
        assert told(failed, Subject.PARTITION).finding == kept(Reason.GROWPART_FAILED)
        assert told(failed + IDLE, Subject.PARTITION).finding == OPEN
        assert told(failed + IDLE + WHOLE, Subject.PARTITION).finding == OPEN


def test_a_filesystem_that_grew_had_a_larger_partition_whatever_kept_growpart_off():
    off = growpart("growpart disabled: mode=off\n")
    assert told(off + KERNEL_GREW, Subject.PARTITION).finding == OPEN
    assert told(off + ROOM, Subject.PARTITION).finding == kept(Reason.GROWPART_OFF)


VAR = growpart("'/var' resized: changed (/dev/vda, {}) from 2147483648 to 5368709120\n")
THREE = """\
Disk /dev/vda: 20 GiB, 21474836480 bytes, 41943040 sectors
Disklabel type: dos

/dev/vda1  *        2048 29360127 29358080  14G 83 Linux
/dev/vda2       29360128 31457279  2097152   1G 82 Linux swap / Solaris
/dev/vda3       31457280 41943039 10485760   5G 83 Linux
"""


@pytest.mark.parametrize(
    ("grew", "data", "root", "finding"),
    [
        (3, "", 1, kept(Reason.NOT_ASKED)),
        (3, "#cloud-config\ngrowpart:\n  devices: [/, /var]\n", 1, OPEN),
        (1, "", 3, OPEN),
    ],
    ids=["behind root", "root is listed", "before root"],
)
def test_a_disk_that_another_partition_filled_was_not_filled_by_root(grew, data, root, finding):
    text = f"{VAR.format(grew)}{THREE}# findmnt -n /\n/ /dev/vda{root} ext4 rw,relatime\n"
    found = only(cl.explain(*filter(None, (f"{text}\n", data))), Subject.PARTITION)
    assert found.finding == finding


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("devices: [/var]", Reason.NOT_ASKED),
        ("devices: /", None),
        ("devices: [/dev/disk/by-label/root]", None),
        ("devices: [/dev/vda1]", None),
        ("devices: 5", Reason.NOT_ASKED),
        ("mode: gpart", Reason.UNKNOWN_MODE),
    ],
)
def test_what_user_data_lists_may_be_root_by_a_link(settings, reason):
    data = f"#cloud-config\ngrowpart:\n  {settings}\n"
    found = only(cl.explain(data, ROOM), Subject.PARTITION)
    assert found.finding == kept(reason)


def test_a_table_shown_after_a_listing_may_have_been_written_since(tmp_path):
    assert told(FDISK + ROOM, Subject.PARTITION).finding == kept(Reason.TABLE_BUSY)
    assert told(FDISK + ROOM + DF.format("20G"), Subject.PARTITION).finding == OPEN
    assert told(ROOM + FDISK, Subject.PARTITION).finding == OPEN
    for name, text in {"a": FDISK, "b": ROOM}.items():
        (tmp_path / name).write_text(text)
    found = cl.explain(tmp_path / "a", tmp_path / "b")
    assert only(found, Subject.PARTITION).finding == OPEN


CHANGED = GREW.replace("from 2097152000 to 21358427648", "from 10736369664 to 21472771584") + "\n"
BY_UNKNOWN = (True, Grower.UNKNOWN, None)


@pytest.mark.parametrize(
    "said",
    [
        resizefs("Skipping module named resizefs, resizing disabled\n"),
        resizefs("Device '/dev/root' did not exist. cannot resize: dev=/dev/root\n"),
        resizefs("Not resizing unknown filesystem type reiserfs for /\n"),
    ],
)
def test_a_filesystem_larger_than_its_partition_was_has_grown_whatever_cloud_init_says(said):
    text = CHANGED + said + WHOLE
    assert told(text + DF.format("20G"), Subject.FILESYSTEM).finding == BY_UNKNOWN
    assert told(text + DF.format("9.8G"), Subject.FILESYSTEM).grown is False
    assert told(text + DF.format(" 11G"), Subject.FILESYSTEM).grown is False  # df rounds up


def test_a_resize_in_the_background_may_not_have_filled_the_device_yet():
    text = growpart("growpart disabled: mode=off\n") + FORKED + "\n" + ROOM
    assert told(text + DF.format("9.8G"), Subject.FILESYSTEM).reason is Reason.FILLS_ITS_DEVICE
    found = told(text + DF.format("5.0G"), Subject.FILESYSTEM)
    assert found.finding == (None, Grower.UNKNOWN, Reason.IN_BACKGROUND)


def test_systemd_growfs_runs_before_cloud_init_grows_the_partition():
    assert told(GROWFS.format(19) + CHANGED + RESIZED, Subject.FILESYSTEM).by is Grower.RESIZEFS
    by_repart = REPART.format("vda") + GROWFS.format(19) + RESIZED
    assert told(by_repart, Subject.FILESYSTEM).by is Grower.GROWFS


@pytest.mark.parametrize(
    ("kernel", "tool", "by"),
    [
        (KERNEL_GREW, "", Grower.RESIZEFS),
        (KERNEL_GREW.replace(" 4.5", "86400.0"), "", Grower.UNKNOWN),
        (KERNEL_GREW, "# resize2fs /dev/vda1\n{}", Grower.OTHER),
        (KERNEL_GREW, "dracut-pre-mount[5]: {}", Grower.INITRAMFS),
        ("", "resize2fs_once[5]: {}", Grower.OTHER),
    ],
)
def test_cloud_inits_word_that_it_resized_does_not_say_that_it_grew(kernel, tool, by):
    tool = tool.format("The filesystem on /dev/vda1 is now 5242619 (4k) blocks long.\n")
    found = cl.explain(f"{RESIZED}\n\n", f"{kernel}{tool}{WHOLE}\n")
    assert only(found, Subject.FILESYSTEM).by is by


SERVICE = "google_disk_expand[7]: Checking if filesystem on /dev/vda1 needs resizing\n{}"
DONE = "google_disk_expand[7]: Done.\n"
EXPANDED = "[ 2.1] gce-disk-expand: Resizing /dev/vda partition 1 with parted.\n"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (EXPANDED + SERVICE.format(DONE) + WHOLE + DF.format("20G"), BY_EDIT),
        (EXPANDED + SERVICE.format(DONE) + WHOLE + DF.format("9.8G"), kept(None)),
        (EXPANDED + SERVICE.format("") + WHOLE + DF.format("20G"), OPEN),
        (SERVICE.format(DONE) + WHOLE + DF.format("20G"), OPEN),
        (RESIZED + "\n" + EXPANDED + SERVICE.format(DONE) + WHOLE + DF.format("20G"), OPEN),
    ],
    ids=["fills it", "does not", "did not end", "no partition grew", "cloud-init resized, too"],
)
def test_a_service_that_ended_well_grew_what_the_initramfs_made_room_for(text, finding):
    assert told(text, Subject.FILESYSTEM).finding == finding


OFF = growpart("growpart disabled: mode=off\n")
TOOK = "2026-11-22 22:28:24,731 - util.py[DEBUG]: Resizing took {} seconds\n"


def test_what_the_kernel_grows_right_after_growpart_is_grown_by_resizefs():
    kernel = "May 04 07:12:04 vm kernel: EXT4-fs (vda1): resizing filesystem from 512000 to 5214459 blocks"
    for lines, by in ((1, Grower.RESIZEFS), (50, Grower.UNKNOWN)):
        journal = f"May 04 07:12:04 vm cloud-init[612]: {GREW}" + "\n" * lines + kernel
        assert told(journal, Subject.FILESYSTEM).by is by


def test_the_boot_that_grew_the_partition_grew_the_filesystem_not_a_later_one():
    later = growpart("'/' NOCHANGE: no change necessary (/dev/vda, 1)") + f"\n{RESIZED}\n"
    for kernel in (
        "",
        "[   21.0] EXT4-fs (vda1): resizing filesystem from 512000 to 5214459 blocks\n",
    ):
        found = told(f"{GREW}\n{kernel}{RESIZED}\n{later * 50}{WHOLE}", Subject.FILESYSTEM)
        assert (found.grown, found.by) == (True, Grower.RESIZEFS)
        assert [one.line for one in found.evidence][:2] == ([2, 3] if kernel else [2])


def test_a_resize_that_took_long_found_a_larger_partition():
    long, short = (OFF + TOOK.format(one) + RESIZED + "\n" for one in ("19.418", "0.018"))
    for shown in ("", WHOLE, ROOM):
        found = cl.explain(long + shown)
        assert only(found, Subject.PARTITION).finding == OPEN
        assert only(found, Subject.FILESYSTEM).finding == (True, Grower.RESIZEFS, None)
    assert told(short + ROOM, Subject.PARTITION).finding == kept(Reason.GROWPART_OFF)
    assert told(short + WHOLE, Subject.FILESYSTEM).finding == OPEN
    small = long + ROOM + DF.format("4.0G")
    assert told(small, Subject.FILESYSTEM).finding == kept(None)


IMAGE_FILE = """\
me@desk:~$ fdisk -l ./server-arm64.img
Disk ./server-arm64.img: 3.5 GiB, 3759144960 bytes, 7342080 sectors

Device              Boot   Start     End Sectors Size Id Type
./server-arm64.img1 *       2048  526335  524288 256M  c W95 FAT32 (LBA)
./server-arm64.img2      1050624 7342079 6291456   3G 83 Linux

"""
ON_CARD = """\
pi@pi:~$ lsblk
NAME        MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
mmcblk0     179:0    0 59.5G  0 disk
├─mmcblk0p1 179:1    0  256M  0 part /boot
└─mmcblk0p2 179:2    0 {:>5} 0 part /
"""


@pytest.mark.parametrize(
    ("size", "finding"),
    [
        ("59G", BY_UNKNOWN),
        ("30G", BY_UNKNOWN),
        ("3G", kept(Reason.GROWPART_OFF)),
        ("2G", kept(Reason.GROWPART_OFF)),
    ],
)
def test_a_partition_larger_than_in_its_image_has_grown_whatever_is_switched_off(size, finding):
    shown = ON_CARD.format(size)
    assert told(OFF + IMAGE_FILE + shown, Subject.PARTITION).finding == finding
    another = shown.replace("256M", "512M")
    assert told(OFF + IMAGE_FILE + another, Subject.PARTITION).grown is not True


ONCE = "resize2fs_once[4]: The filesystem is already 672256 (4k) blocks long.  Nothing to do!\n"
PACKED = "Filesystem Size Used Avail Use% Mounted on\n/dev/vda1 {} 2.1G {} 90% /\n"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (ONCE + PACKED.format("2.5G", "239M"), kept(Reason.FILLS_ITS_DEVICE)),
        (ONCE + PACKED.format("59G", "54G"), OPEN),
        (ONCE, OPEN),
        (ONCE + WHOLE + PACKED.format("20G", "2G"), OPEN),
        (ONCE.split(": ", 1)[1] + PACKED.format("2.5G", "239M"), OPEN),
    ],
    ids=["as in an image", "as on a card", "no size", "the disk is full", "by hand"],
)
def test_what_runs_in_the_first_boot_and_finds_nothing_to_do_has_grown_nothing(text, finding):
    assert told(text, Subject.FILESYSTEM).finding == finding


CONFIG = """\
# cat /etc/cloud/cloud.cfg
cloud_init_modules:
 - bootcmd
{} - ssh

cloud_config_modules:
"""
BY_CONFIG = kept(Reason.GROWPART_OFF)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (CONFIG.format("# - growpart\n") + ROOM, BY_CONFIG),
        (CONFIG.format("") + ROOM, BY_CONFIG),
        ("# grep growpart /etc/cloud/cloud.cfg\n# - growpart\n" + ROOM, BY_CONFIG),
        ("# grep -n -A9 init_modules /etc/cloud/cloud.cfg\n35-# - growpart\n" + ROOM, BY_CONFIG),
        (CONFIG.format(" - growpart\n") + ROOM, kept(None)),
        (CONFIG.format("# - growpart\n - [growpart, always]\n") + ROOM, kept(None)),
        (CONFIG.format("").split("\n\n")[0] + "\n" + ROOM, kept(None)),
        ("#cloud-config\n# - growpart\nhostname: a\n\n" + ROOM, kept(None)),
        (CONFIG.format("# - growpart\n") + WHOLE, OPEN),
    ],
    ids=[
        "comment",
        "gone",
        "grep",
        "grep -n",
        "listed",
        "listed again",
        "cut",
        "user-data",
        "full disk",
    ],
)
def test_cloud_cfg_without_growpart_switches_it_off(text, finding):
    assert told(text, Subject.PARTITION).finding == finding


def test_a_module_that_cloud_cfg_does_not_list_is_listed_there():
    unlisted = told(CONFIG.format("# - growpart\n") + ROOM, Subject.PARTITION)
    assert re.search(r"cloud_init_modules:\n# +- growpart\n# +- resizefs$", unlisted.fix)
    assert "mode: auto" not in unlisted.fix
    off = growpart("growpart disabled: mode=off\n")
    for switched_off in (off + ROOM, off + CONFIG.format("# - growpart\n") + ROOM):
        assert "mode: auto" in told(switched_off, Subject.PARTITION).fix


SFDISK = """\
root@pi:~# sfdisk --no-reread -fN1 /dev/vda
Disk /dev/vda: 20 GiB, 21474836480 bytes, 41943040 sectors

Old situation:

Device     Boot Start      End  Sectors Size Id Type
/dev/vda1        2048 20971519 20969472  10G 83 Linux

New situation:

Device     Boot Start      End  Sectors Size Id Type
/dev/vda1        2048 41943039 41940992  20G 83 Linux

"""
AFTER_SFDISK = "root@pi:~# lsblk\n" + WHOLE


@pytest.mark.parametrize(
    ("first", "second", "finding"),
    [
        (SFDISK + WRITTEN + BUSY + KEPT, AFTER_SFDISK, BY_EDIT),
        (AFTER_SFDISK, SFDISK + WRITTEN + BUSY + KEPT, BY_EDIT),
        (SFDISK + WRITTEN + BUSY + KEPT, "root@pi:~# lsblk\n" + ROOM, kept(Reason.TABLE_BUSY)),
        (SFDISK + WRITTEN, "root@other:~# lsblk\n" + WHOLE, OPEN),
        (SFDISK, "root@pi:~# lsblk\n" + ROOM, kept(None)),
    ],
    ids=["later", "in a file before", "kernel's is old", "another host", "not written"],
)
def test_sfdisk_shows_the_table_before_and_after(first, second, finding, tmp_path):
    for name, text in {"a": first, "b": second}.items():
        (tmp_path / name).write_text(text)
    found = cl.explain(tmp_path / "a", tmp_path / "b")
    assert only(found, Subject.PARTITION).finding == finding


def test_f2fs_is_none_that_cloud_init_resizes():
    shown = WHOLE + DF.format("9.8G").replace("/dev/vda1 ", "/dev/vda1 f2fs ").replace(
        "Filesystem ", "Filesystem Type "
    )
    assert told(shown, Subject.FILESYSTEM).finding == kept(Reason.UNKNOWN_FILESYSTEM)
    assert told(shown.replace("f2fs", "ext4"), Subject.FILESYSTEM).finding == kept(None)


VOLUMES = """\
# growpart /dev/sda 2
NOCHANGE: partition 2 is size 39843840. it cannot be grown
NAME        MAJ:MIN RM SIZE RO TYPE MOUNTPOINTS
sda           8:0    0  20G  0 disk
├─sda1        8:1    0   1G  0 part /boot
└─sda2        8:2    0  19G  0 part
  ├─vg-root 253:0    0 {:>3}G  0 lvm  /
  └─vg-var  253:1    0   2G  0 lvm  /var
"""


def test_the_reason_is_the_lowest_layers_that_has_nothing_to_give():
    found = cl.explain(VOLUMES.format(17))
    assert only(found, Subject.PARTITION).finding == kept(Reason.DISK_NOT_LARGER)
    assert only(found, Subject.FILESYSTEM).finding == kept(Reason.FILLS_ITS_DEVICE)
    room = told(VOLUMES.format(9), Subject.FILESYSTEM)
    assert room.finding == kept(Reason.LOGICAL_VOLUME)


CANNOT_FIT = "systemd-repart[5]: Can't fit requested partitions into available free space (0B)\n"
TWO_PARTITIONS = """\
# sfdisk -d /dev/vda
label: gpt
device: /dev/vda

/dev/vda1 : start=        2048, size=    20971520, type=0FC63DAF
/dev/vda2 : start=    20973568, size=     2097152, type=0FC63DAF
"""
MISPLACED = "GPT PMBR size mismatch (20971519 != 41943039) will be corrected by write.\n"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (CANNOT_FIT + "# fdisk -l /dev/vda\n" + MISPLACED + ROOM, kept(Reason.GPT_BACKUP)),
        (CANNOT_FIT + "# fdisk -l /dev/vdb\n" + MISPLACED + ROOM, kept(None)),
        (CANNOT_FIT + ROOM, kept(None)),
        (CANNOT_FIT + WHOLE, OPEN),
        (CANNOT_FIT + ROOM + TWO_PARTITIONS, kept(Reason.WALL)),
    ],
)
def test_systemd_repart_finds_no_room_before_the_gpts_backup(text, finding):
    assert told(text, Subject.PARTITION).finding == finding


def test_a_filesystem_that_does_not_fill_its_partition_was_made_for_a_smaller_one():
    full = kept(Reason.DISK_NOT_LARGER)
    assert told(IDLE + WHOLE + DF.format("20G"), Subject.PARTITION).finding == full
    assert told(IDLE + WHOLE + DF.format("9.8G"), Subject.PARTITION).finding == OPEN
    kernel = "[ 1.7] GPT:20971519 != 41943039\n[ 1.7] GPT:Primary header thinks Alt. header is not at the end of the disk.\n[ 1.8]  {0}: {0}1\n"
    assert told(kernel.format("vda") + IDLE + WHOLE, Subject.PARTITION).finding == OPEN
    assert told(kernel.format("vdb") + IDLE + WHOLE, Subject.PARTITION).finding == full


def test_that_cloud_init_is_disabled_now_says_nothing_of_an_earlier_boot():
    status = "# cloud-init status\nstatus: disabled\n"
    for shown in ("", DF.format("9.8G"), WHOLE):
        assert told(status + shown, Subject.PARTITION).finding == OPEN
    assert told(status + ROOM, Subject.PARTITION).finding == kept(Reason.NO_CLOUD_INIT)


def test_a_partition_that_a_script_saw_behind_root_may_be_gone():
    said = "/dev/vda1 is not the last partition. Don't know how to expand\n"
    assert told(said + WHOLE, Subject.PARTITION).finding == OPEN
    assert told(said + ROOM, Subject.PARTITION).finding == kept(Reason.WALL)
    behind = ROOM + "└─vda2 253:2    0  10G  0 part /data\n"
    assert told(said + behind, Subject.PARTITION).finding == kept(Reason.WALL)


def test_files_in_another_order_tell_the_same(tmp_path):
    log = "root@vm:~# growpart /dev/vda 1\n" + GROWN + "root@vm:~# df\n" + DF.format("20G")
    for name, text in {"a": log, "b": "root@vm:~# lsblk\n" + ROOM}.items():
        (tmp_path / name).write_text(text)
    for names in ("ab", "ba"):
        found = cl.explain(*(tmp_path / name for name in names))
        assert only(found, Subject.PARTITION).finding == (True, Grower.GROWPART, None)
    (tmp_path / "a").write_text(log.replace("  20G ", "  9.8G "))
    found = cl.explain(tmp_path / "a", tmp_path / "b")
    assert only(found, Subject.PARTITION).finding == kept(Reason.TABLE_BUSY)


def test_cloud_inits_log_before_a_console_in_one_paste_is_not_before_it_in_time():
    console = KERNEL_GREW + BY_GROWFS.format(20)
    debug = resizefs("Running module resizefs (<module 'cc_resizefs'>)\n") + RESIZED + "\n"
    ran = "[ 3.9] cloud-init[99]: Cloud-init v. 24.1 running 'init'\n"
    assert told(debug + console, Subject.FILESYSTEM).by is Grower.GROWFS
    assert told(debug + ran + console, Subject.FILESYSTEM).by is Grower.UNKNOWN


ENLARGED = "The filesystem on /dev/vda1 is now {} (4k) blocks long.\n"
REBOOT = "root@pi:~# reboot\n"


@pytest.mark.parametrize(
    ("later", "grown", "by"),
    [
        (f"root@pi:~# journalctl\n{ENLARGED.format(5242619)}", True, Grower.OTHER),
        (f"root@b:~# journalctl\n{ENLARGED.format(5242619)}", None, Grower.UNKNOWN),
        (ENLARGED.format(5242619), None, Grower.UNKNOWN),
        (f"root@pi:~# journalctl\n{ENLARGED.format(2621184)}", None, Grower.UNKNOWN),
        (
            f"root@pi:~# journalctl\n{ENLARGED.format(5242619).replace('vda', 'vdb')}",
            None,
            Grower.UNKNOWN,
        ),
    ],
    ids=["larger", "another host", "no host", "as before", "another disk"],
)
def test_a_filesystem_is_no_larger_than_its_partition(later, grown, by, tmp_path):
    first = "root@pi:~# fdisk /dev/vda\n" + HALF + DRAFT + WRITTEN + BUSY + KEPT + REBOOT
    (tmp_path / "a").write_text("root@pi:~# lsblk\n" + ROOM + first)
    (tmp_path / "b").write_text(later)
    found = only(cl.explain(tmp_path / "a", tmp_path / "b"), Subject.PARTITION)
    assert (found.grown, found.by) == (grown, by)


def test_what_is_listed_after_a_filesystem_grew_is_not_what_it_was_before():
    grew = "# resize2fs /dev/vda1\n" + ENLARGED.format(5242619)
    assert told(ROOM + grew, Subject.PARTITION).finding == BY_UNKNOWN
    assert told(grew + ROOM, Subject.PARTITION).grown is not True


TAKEN = "/dev/vda: partition #{} resized\n"
REFUSED = "partx: /dev/vda: updating partition #1 failed: Device or resource busy\n"


@pytest.mark.parametrize(
    ("log", "listing", "finding"),
    [
        (SFDISK + WRITTEN + TAKEN.format(1), WHOLE, BY_EDIT),
        (SFDISK + WRITTEN + TAKEN.format(1) + REFUSED, WHOLE, OPEN),
        (SFDISK + WRITTEN + TAKEN.format(2), WHOLE, OPEN),
        (SFDISK + TAKEN.format(1), ROOM, kept(None)),
        (SFDISK + WRITTEN + TAKEN.format(1), ROOM, OPEN),
        (SFDISK.replace("20971519 20969472  10G", "41943039 41940992  20G") + WRITTEN, WHOLE, OPEN),
    ],
    ids=["taken", "refused", "another partition", "not written", "smaller elsewhere", "as before"],
)
def test_the_kernel_takes_the_new_table_from_partx(log, listing, finding, tmp_path):
    (tmp_path / "a").write_text(log.split("\n", 1)[1])
    (tmp_path / "b").write_text("root@pi:~# lsblk\n" + listing)
    found = only(cl.explain(tmp_path / "a", tmp_path / "b"), Subject.PARTITION)
    assert found.finding == finding


ROUNDED = """\
# parted /dev/vda print
Disk /dev/vda: 21.5GB
Partition Table: gpt

Number  Start   End     Size    File system  Name  Flags
 1      1049kB  {}  {}  ext4

"""


@pytest.mark.parametrize(
    ("end", "edited", "finding"),
    [
        ("10.7GB", PARTED, BY_EDIT),
        ("10.7GB", "", BY_UNKNOWN),
        ("21.4GB", PARTED, OPEN),
    ],
)
def test_a_rounded_table_shows_growth_that_is_more_than_its_rounding(end, edited, finding):
    shown = "# parted /dev/vda resizepart 1 100%\n" + edited + WHOLE
    assert told(ROUNDED.format(end, end) + shown, Subject.PARTITION).finding == finding


DATED = "me@vm:~$ date; lsblk\n{}\n{}"


@pytest.mark.parametrize(
    ("small", "large", "finding"),
    [
        ("Mon Jun  3 08:14:29 UTC 2024", "Mon Jun  3 16:52:10 UTC 2024", BY_UNKNOWN),
        ("Mon 03 Jun 2024 08:14:29 AM UTC", "Mon 03 Jun 2024 04:52:10 PM UTC", BY_UNKNOWN),
        ("Mon  3 Jun 08:14:29 BST 2024", "Tue  4 Jun 07:00:00 BST 2024", BY_UNKNOWN),
        ("Mon Jun  3 16:52:10 UTC 2024", "Mon Jun  3 08:14:29 UTC 2024", OPEN),
        ("", "", OPEN),
        ("Mon Jun 33 08:14:29 UTC 2024", "Mon Jun  3 16:52:10 UTC 2024", OPEN),
    ],
    ids=["C", "en_US", "en_GB", "the larger one first", "no dates", "no such day"],
)
def test_files_are_in_the_order_of_the_dates_that_they_show(small, large, finding, tmp_path):
    (tmp_path / "a").write_text(DATED.format(large, WHOLE))
    (tmp_path / "b").write_text(DATED.format(small, ROOM))
    found = cl.explain(tmp_path / "a", tmp_path / "b")
    assert only(found, Subject.PARTITION).finding == finding


@pytest.mark.parametrize(
    ("mounted", "reason"),
    [
        ("/dev/root on / type erofs (ro,relatime)", Reason.IMMUTABLE_ROOT),
        ("/dev/vda1 on / type squashfs (ro)", Reason.IMMUTABLE_ROOT),
        ("/dev/root on / type ext4 (ro,relatime)", None),
        ("/dev/loop0 on / type squashfs (ro)", None),
        ("/dev/vda1 on /rom type squashfs (ro)", None),
    ],
)
def test_a_root_that_is_an_image_on_a_partition_does_not_grow(mounted, reason):
    said = f"# mount\n{mounted}\n\n"
    finding = kept(reason) if reason else OPEN
    followed = cl.explain(ROOM + "└─vda2 253:2    0  10G  0 part /data\n" + said)
    assert {one.finding for one in followed.statements} == {finding}
    last = cl.explain(WHOLE + said)
    assert only(last, Subject.PARTITION).finding == OPEN
    assert only(last, Subject.FILESYSTEM).finding == finding


REPART_TABLE = """\
systemd-repart[5]: root-x86-64 root 4f2f 0 50.conf /dev/vda1 1048576 {} 10G {} 20G
systemd-repart[5]: {} /dev/vda.
systemd-repart[5]: {}
"""
BY_REPART = (True, Grower.REPART, None)
LARGER, APPLIED = "10736369664 21473771008", "Applying changes to"


@pytest.mark.parametrize(
    ("sizes", "arrow", "applied", "end", "finding"),
    [
        (LARGER, "→", APPLIED, "All done.", BY_REPART),
        (LARGER, "->", APPLIED, "All done.", BY_REPART),
        (LARGER, "→", "Refusing to repartition", "", OPEN),
        ("0 21473771008", "→", APPLIED, "All done.", OPEN),
        ("10736369664 10736369664", "0 10737418240 0B →", APPLIED, "All done.", OPEN),
        (LARGER, "→", APPLIED, "Failed to write partition table: I/O error", None),
        (LARGER, "→", f"{APPLIED} /dev/vdb, not", "All done.", OPEN),
    ],
    ids=["grown", "ASCII", "dry run", "new", "padding", "failed", "another disk"],
)
def test_the_table_of_systemd_repart_shows_what_grows(sizes, arrow, applied, end, finding):
    found = told(REPART_TABLE.format(sizes, arrow, applied, end) + WHOLE, Subject.PARTITION)
    assert found.grown is not True if finding is None else found.finding == finding


def test_what_another_program_grew_may_have_been_left_with_room():
    rows = (
        ROOM.replace("10G  0 part", " 5G  0 part") + "# parted /dev/vda resizepart 1 10G\n" + PARTED
    )
    assert told(rows + ROOM, Subject.PARTITION).finding == BY_EDIT


LV_PATH = "/dev/mapper/ubuntu--vg-ubuntu--lv"


@pytest.mark.parametrize(
    ("root", "finding"),
    [("/dev/vda3", (True, Grower.RESIZEFS, None)), (LV_PATH, OPEN)],
    ids=["on the partition", "on a volume"],
)
def test_resizefs_below_a_volume_had_nothing_to_grow_unless_that_grew(root, finding):
    log = growpart("'/dev/vda3' resized: changed (/dev/vda, 3) from 10737418240 to 41874857472\n")
    log += resizefs(f"resize_info: dev={root} mnt_point=/ path=/\n") + RESIZED
    held = "  PV         VG        Fmt  Attr PSize   PFree\n  /dev/vda3  ubuntu-vg lvm2 a--  <39.00g    0\n"
    found = told(f"{log}\n$ sudo pvs\n{held}", Subject.FILESYSTEM)
    assert (found.finding, found.device) == (finding, root.rpartition("/")[2])


@pytest.mark.parametrize(
    ("setting", "reason"), [("false", Reason.RESIZE_ROOTFS_OFF), ("true", None)]
)
def test_a_filesystem_that_is_small_as_user_data_has_it_was_not_resized(setting, reason):
    data = f"#cloud-config\nresize_rootfs: {setting}\n$ lsblk\n"
    found = told(data + WHOLE + DF.format("9.8G"), Subject.FILESYSTEM)
    assert found.finding == kept(reason)


WHOLE_OF_60 = WHOLE.replace("  20G  0 disk", "  60G  0 disk")


@pytest.mark.parametrize(
    ("later", "finding"),
    [
        ("growpart disabled: mode=off", kept(Reason.GROWPART_OFF)),
        (
            "No 'growpart' entry in cfg.  Using default",
            (True, Grower.GROWPART, Reason.ENLARGED_SINCE),
        ),
    ],
)
def test_what_a_later_boot_says_keeps_root_from_the_room_it_has_again(later, finding):
    second = growpart(later).replace("2026-11", "2026-12")
    assert told(f"{GREW}\n{second}\n{WHOLE_OF_60}", Subject.PARTITION).finding == finding


def test_growth_below_the_rounding_of_a_listing_is_not_taken_back():
    slight = "/dev/vda, 1) from 10700000000 to 10800000000"
    log = growpart(f"'/' resized: changed ({slight}\n")
    ten = ROOM.replace("20G", "10G")
    assert told(log + ten, Subject.PARTITION).finding == (True, Grower.GROWPART, None)
    unsized = growpart("'/' resized: changed (/dev/vda, 1)\n")
    assert told(unsized + ten, Subject.PARTITION).finding == (True, Grower.GROWPART, None)


def test_an_mbr_keeps_nothing_from_growing_that_ends_long_before_2_tib():
    table = (
        "Disk /dev/vda: 3 TiB, 3298534883328 bytes, 6442450944 sectors\nDisklabel type: dos\n\n"
        "Device     Boot Start      End  Sectors Size Id Type\n"
        "/dev/vda1  *     2048 20971519 20969472  10G 83 Linux\n"
    )
    assert told(table + DF.format("9.8G"), Subject.PARTITION).finding == kept(None)


@pytest.mark.parametrize(
    ("free", "reason"), [("   0", "filesystem-full"), ("5.7G", "growpart-failed")]
)
def test_growpart_that_made_no_temporary_folder_lacked_room_if_root_is_full(free, reason):
    failed = "# growpart /dev/vda 1\nFAILED: failed to make temp dir\n"
    found = told(failed + ROOM + DF.format("9.8G").replace("5.7G", free), Subject.PARTITION)
    assert (found.grown, found.reason) == (False, reason)


def test_what_a_listing_without_root_leaves_free_may_be_roots():
    part = "└─vda15 252:15   0  106M  0 part /boot/efi\n"
    listed = WHOLE.replace("└─vda1 253:1    0  20G  0 part /\n", part)
    for text in (listed + DF.format("9.8G"), listed + DF.format("20G")):
        assert told(text, Subject.PARTITION).finding == OPEN
