"""What `inspect` says of contents that cloud images rarely have, and of what it does not know."""

import gzip
import lzma
import random
import struct

import pytest
from command import cloudlab
from disks import MIB, Bytes, blank, blkid, copy_into, partitioned, patched, shown

from cloudlab import tools
from cloudlab.disk import check_safe, inspect_disk
from cloudlab.disk.layout import read_layout
from cloudlab.errors import DiskError, UnsafeImageError

# Files of other formats


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw disk of 64 MiB with one partition of 20 MiB."""
    disk = tmp_path_factory.mktemp("raw") / "x.raw"
    return partitioned(disk, "label: gpt\nsize=20M,type=L\n", 64 * MIB)


def converted(*options):
    def make(raw, path):
        tools.run(["qemu-img", "convert", "-f", "raw", raw, "-O", *options, path])

    return make


def copied(*pieces):
    def make(raw, path):
        path.write_bytes(raw.read_bytes())
        patched(path, *pieces)

    return make


CLOOP = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
FOREIGN = {
    "vpc-fixed": ("vpc", converted("vpc", "-o", "subformat=fixed,force_size")),
    "vpc-dynamic": ("vpc", converted("vpc")),
    "parallels": ("parallels", converted("parallels")),
    "vmdk": ("vmdk", converted("vmdk")),
    "vdi": ("vdi", converted("vdi")),
    "vhdx": ("vhdx", converted("vhdx")),
    "qed": ("qed", converted("qed")),
    # QEMU reads these, but does not write them.
    "vpc-2003": ("vpc", copied((-511, b"conectix"))),
    "dmg": ("dmg", copied((-512, b"koly\0\0\0\4\0\0\2\0"))),
    "cloop": ("cloop", copied((0, CLOOP))),
    "bochs": ("bochs", copied((0, b"Bochs Virtual HD Image".ljust(32, b"\0") + b"Redolog\0"))),
    "gzip": ("gzip", lambda raw, path: path.write_bytes(gzip.compress(raw.read_bytes()[:MIB]))),
    "xz": ("xz", lambda raw, path: path.write_bytes(lzma.compress(raw.read_bytes()[:MIB]))),
    "zip": ("zip", lambda raw, path: path.write_bytes(b"PK\3\4" + bytes(MIB))),
}


@pytest.mark.parametrize(("name", "make"), FOREIGN.values(), ids=FOREIGN)
def test_files_of_another_format_are_refused_by_their_name(raw, tmp_path, name, make):
    path = tmp_path / "image"
    make(raw, path)
    for function, error in ((inspect_disk, DiskError), (check_safe, UnsafeImageError)):
        with pytest.raises(error, match=f"has the format {name};") as caught:
            function(path)
        hint = "Unpack it first" if name in {"gzip", "xz", "zip"} else f"convert -f {name} "
        assert hint in caught.value.hint


def test_a_fixed_vhd_may_be_read_as_raw_where_the_user_says_so(raw, tmp_path):
    converted("vpc", "-o", "subformat=fixed,force_size")(raw, tmp_path / "x.vhd")
    layout = inspect_disk(tmp_path / "x.vhd", "raw")
    assert layout.virtual_size_bytes == 64 * MIB + 512
    assert [each.size_bytes for each in layout.partitions] == [20 * MIB]


# Other filesystems and volumes


def holds(disk):
    """Return what the disk's only range holds, after checking that none of it is called free."""
    layout = inspect_disk(disk)
    (whole,) = layout.partitions
    assert (whole.number, whole.start_bytes, layout.table) == (None, 0, None)
    assert whole.size_bytes == layout.virtual_size_bytes
    assert layout.free_tail_bytes == 0
    assert "free behind" not in shown(disk)
    return whole


REAL = {
    "ntfs": (16, ["mkfs.ntfs", "-q", "-F", "FILE"]),
    "exfat": (16, ["mkfs.exfat", "FILE"]),
    "f2fs": (64, ["mkfs.f2fs", "-q", "FILE"]),
    "udf": (16, ["mkudffs", "FILE"]),
    "squashfs": (0, ["mksquashfs", "FOLDER", "FILE", "-noappend", "-quiet", "-no-progress"]),
    "erofs": (0, ["mkfs.erofs", "--quiet", "FILE", "FOLDER"]),
}


def made(name, tmp_path):
    size_mib, argv = REAL[name]
    folder, disk = tmp_path / "folder", tmp_path / "disk"
    folder.mkdir()
    (folder / "file").write_text("content " * 1000)
    places = {"FILE": str(blank(disk, size_mib * MIB)), "FOLDER": str(folder)}
    tools.run([places.get(word, word) for word in argv])
    return disk


@pytest.mark.parametrize("name", REAL)
def test_filesystems_of_other_systems_are_recognised(tmp_path, name):
    disk = made(name, tmp_path)
    assert blkid(disk, 0, disk.stat().st_size)["type"] == name
    assert holds(disk).filesystem.type == name
    size = -(-disk.stat().st_size // MIB) * MIB
    script = f"label: gpt\nstart=2048,size={size // 512}\n"
    table = partitioned(tmp_path / "table", script, size + 2 * MIB)
    copy_into(table, disk, MIB)
    (partition,) = inspect_disk(table).partitions
    assert (partition.number, partition.filesystem.type) == (1, name)


def md(offset, size_bytes, *, name=b"host:0"):
    """Return a superblock of Linux RAID, version 1.x, for this place on a device."""
    block = bytearray(256)
    struct.pack_into("<II", block, 0, 0xA92B4EFC, 1)
    block[16:32] = bytes(range(16))
    block[32 : 32 + len(name)] = name
    struct.pack_into("<QQQ", block, 128, 2048, size_bytes // 512 - 4096, offset // 512)
    # Newer versions of blkid verify the sum of all words.
    total = sum(struct.unpack("<64I", block))
    struct.pack_into("<I", block, 216, (total + (total >> 32)) & 0xFFFFFFFF)
    return bytes(block)


def md_old(kib):
    """Return a superblock of version 0.90."""
    return struct.pack("<9I", 0xA92B4EFC, 0, 90, 0, 0, 1, 0, 1, kib).ljust(4096, b"\0")


def xdr(text):
    return struct.pack(">I", len(text)) + text + bytes(-len(text) % 4)


def zfs_label(pool):
    """Return the first label of a ZFS device: names and values, and a ring of uberblocks."""
    values = [
        (b"version", 8, struct.pack(">Q", 5000)),
        (b"name", 9, xdr(pool)),
        (b"state", 8, struct.pack(">Q", 0)),
        (b"txg", 8, struct.pack(">Q", 4)),
        (b"pool_guid", 8, struct.pack(">Q", 42)),
        (b"guid", 8, struct.pack(">Q", 43)),
    ]
    pairs = b"\1\1\0\0" + struct.pack(">II", 0, 1)
    for name, kind, value in values:
        body = xdr(name) + struct.pack(">II", kind, 1) + value
        pairs += struct.pack(">II", len(body) + 8, 64) + body
    label = bytearray(256 << 10)
    label[16 << 10 : (16 << 10) + len(pairs)] = pairs
    for slot in range(128):
        struct.pack_into("<QQQQ", label, (128 + slot) << 10, 0x00BAB10C, 5000, slot + 1, 42)
    return bytes(label)


def apfs_superblock():
    """Return a container's superblock with its Fletcher checksum."""
    block = bytearray(4096)
    struct.pack_into("<QQHHHH", block, 8, 1, 1, 1, 0x8000, 0, 0)
    block[32:36] = b"NXSB"
    struct.pack_into("<IQ", block, 36, 4096, 16 * MIB // 4096)
    low = high = 0
    for (word,) in struct.iter_unpack("<I", block[8:]):
        low = (low + word) % 0xFFFFFFFF
        high = (high + low) % 0xFFFFFFFF
    first = 0xFFFFFFFF - (low + high) % 0xFFFFFFFF
    struct.pack_into("<II", block, 0, first, 0xFFFFFFFF - (low + first) % 0xFFFFFFFF)
    return bytes(block)


SIZE = 64 * MIB
#: Type -> the pieces of a superblock at their documented offsets.
DOCUMENTED = {
    "linux_raid_member-1.2": [(4096, md(4096, SIZE))],
    "linux_raid_member-1.1": [(0, md(0, SIZE))],
    "linux_raid_member-1.0": [(SIZE - 8192, md(SIZE - 8192, SIZE))],
    "linux_raid_member-0.90": [(SIZE - 65536, md_old(SIZE // 1024 - 64))],
    "isw_raid_member": [(SIZE - 1024, b"Intel Raid ISM Cfg Sig. 1.0.00")],
    "ddf_raid_member": [(SIZE - 512, b"\xde\x11\xde\x11")],
    "zfs_member": [(0, zfs_label(b"rpool"))],
    "apfs": [(0, apfs_superblock())],
    "BitLocker": [(0, b"\xeb\x58\x90-FVE-FS-")],
    "ReFS": [(0, b"\0\0\0ReFS\0")],
    "hfsplus": [(1024, b"H+\0\4")],
    "nilfs2": [(1024, b"\2\0\0\0\0\0\x34\x34")],
    "cramfs": [(0, b"\x45\x3d\xcd\x28")],
    "romfs": [(0, b"-rom1fs-")],
    "jfs": [(32768, b"JFS1\1\0\0\0")],
    "reiserfs": [(65536 + 52, b"ReIsEr2Fs")],
    "reiser4": [(65536, b"ReIsEr4")],
    "gfs2": [(65536, b"\x01\x16\x19\x70\0\0\0\1")],
    "ocfs2": [(8192, b"OCFSV2")],
    "ufs": [(65536 + 1372, b"\x19\x01\x54\x19")],
    "bcache": [(4104, struct.pack("<QQ", 8, 1)), (4120, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"))],
    "bcachefs": [(4120, bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef"))],
    "stratis": [(516, b"!Stra0tis\x86\xff\x02^Arh")],
    "vdo": [(0, b"dmvdo001")],
    "DM_verity_hash": [(0, b"verity\0\0")],
    "DM_integrity": [(0, b"integrt\0")],
    "DM_snapshot_cow": [(0, b"SnAp")],
    "ceph_bluestore": [(0, b"bluestore block device")],
    "oracleasm": [(32, b"ORCLDISK")],
    "ubi": [(0, b"UBI#")],
    "zonefs": [(0, b"SFOZ")],
    "swsuspend": [(4086, b"LINHIB0001")],
}  # fmt: skip
#: Of these the pieces are complete, so blkid must recognise them, too.
COMPLETE = ("linux_raid_member", "zfs_member", "apfs", "isw_raid_member")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_volumes_are_recognised_by_their_documented_superblocks(tmp_path, name):
    disk = patched(blank(tmp_path / "disk", SIZE), *DOCUMENTED[name])
    kind = name.split("-")[0]
    assert holds(disk).filesystem.type == kind
    witness = blkid(disk, 0, SIZE)["type"]
    assert witness == kind if kind in COMPLETE else witness in {kind, ""}


def test_a_member_of_an_array_tells_its_array(tmp_path):
    disk = patched(blank(tmp_path / "disk", SIZE), (4096, md(4096, SIZE)))
    member, witness = holds(disk).filesystem, blkid(disk, 0, SIZE)
    assert (member.label, member.uuid.replace("-", "")) == ("host:0", bytes(range(16)).hex())
    assert member.label == witness["label"]
    assert member.size_bytes == SIZE - MIB


def test_a_zfs_device_tells_its_pool(tmp_path):
    disk = patched(blank(tmp_path / "disk", SIZE), (0, zfs_label(b"rpool")))
    assert holds(disk).filesystem.label == "rpool" == blkid(disk, 0, SIZE)["label"]


def test_an_array_hides_the_filesystem_that_lies_in_it(tmp_path):
    disk = blank(tmp_path / "disk", SIZE)
    tools.run(["mke2fs", "-q", "-t", "ext4", disk, "60M"])
    patched(disk, *DOCUMENTED["linux_raid_member-1.0"])
    layout = inspect_disk(disk)
    assert layout.partitions[0].filesystem.type == "linux_raid_member"
    assert layout.warnings == ()


def test_the_last_partitions_array_does_not_hide_the_partition_table(tmp_path):
    disk = partitioned(tmp_path / "disk", "label: dos\nstart=1,type=fd\n", SIZE)
    patched(disk, *DOCUMENTED["linux_raid_member-0.90"])
    layout = inspect_disk(disk)
    # Its partition begins on the table, which is what a whole-disk filesystem's boot code does.
    assert (layout.table, [each.number for each in layout.partitions]) == ("dos", [1])


# btrfs with several devices


def test_one_of_several_btrfs_devices_shows_its_own_share(tmp_path):
    devices = [blank(tmp_path / name, 200 * MIB) for name in ("a.raw", "b.raw")]
    tools.run(["mkfs.btrfs", "-q", "-f", *devices])
    for disk in devices:
        filesystem = holds(disk).filesystem
        assert (filesystem.type, filesystem.devices) == ("btrfs", 2)
        assert filesystem.size_bytes == 209715200
        assert filesystem.total_bytes == 2 * 209715200
        assert (filesystem.free_bytes, filesystem.statfs_bytes) == (None, None)
        assert inspect_disk(disk).warnings == ()
        assert "btrfs, 1 of 2 devices" in shown(disk)


# What is damaged or not known


def whole_disk(*pieces, size_bytes=SIZE):
    data = bytearray(size_bytes)
    for offset, piece in pieces:
        data[offset : offset + len(piece)] = piece
    return read_layout(Bytes(bytes(data)))


ZEROED = {
    "btrfs": (65536 + 0x40, b"_BHRfS_M"),
    "ext2": (1024 + 56, b"\x53\xef"),
    "xfs": (0, b"XFSB"),
    "swap": (4086, b"SWAPSPACE2"),
    "iso9660": (32768, b"\x01CD001"),
}


@pytest.mark.parametrize("name", ZEROED)
def test_a_zeroed_superblock_is_damage_and_no_filesystem(name):
    table, (whole,), warnings = whole_disk(ZEROED[name])
    assert (table, whole.filesystem, whole.unknown_content) == (None, None, True)
    assert warnings == [f"The disk has the signature of {name}, but a damaged superblock."]


#: A filesystem of minix, which is not in the table, and what plain dm-crypt looks like.
UNKNOWN = {"minix": (1040, b"\x7f\x13\1\0"), "random": (0, random.Random(0).randbytes(MIB))}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_unknown_content_and_not_free_space(tmp_path, name):
    disk = patched(blank(tmp_path / "disk", 16 * MIB), UNKNOWN[name])
    whole = holds(disk)
    assert (whole.filesystem, whole.unknown_content) == (None, True)
    assert "unknown content" in shown(disk)
    with pytest.raises(UnsafeImageError, match="neither a partition table nor a filesystem"):
        check_safe(disk)


@pytest.mark.parametrize("offset", [0, 5000, 200_000, -1, -100_000])
def test_any_byte_where_signatures_are_makes_a_disk_not_blank(tmp_path, offset):
    disk = patched(blank(tmp_path / "disk", 16 * MIB), (offset, b"\1"))
    assert holds(disk).unknown_content


def test_a_partition_with_unknown_content_says_so(tmp_path):
    disk = partitioned(tmp_path / "disk", "label: gpt\nsize=16M\nsize=16M\n", SIZE)
    patched(disk, (MIB + 1040, b"\x7f\x13\1\0"))
    assert [each.unknown_content for each in inspect_disk(disk).partitions] == [True, False]
    assert shown(disk).count("unknown content") == 1


def test_a_boot_loader_is_not_called_unknown(tmp_path):
    bios_boot = "21686148-6449-6E6F-744E-656564454649"
    disk = partitioned(tmp_path / "disk", f"label: gpt\nsize=1M,type={bios_boot}\n", SIZE)
    patched(disk, (MIB, b"\x52\xe8\x28\x01"))
    (partition,) = inspect_disk(disk).partitions
    assert (partition.filesystem, partition.content) == (None, "boot loader")


# Other partition tables

DASD_VOL1 = b"\xe5\xd6\xd3\xf1"


def parted(*part):
    def make(disk, name):
        tools.run(["parted", "-s", disk, "mklabel", name, *part])

    return make


PRIMARY = ("mkpart", "primary", "8MiB", "24MiB")
OTHER = {
    "amiga": parted(),
    "atari": parted(*PRIMARY),
    "bsd": parted(),
    "mac": parted(),
    "sun": parted(),
    "sgi": lambda disk, _: tools.run(["sfdisk", "-q", disk], stdin="label: sgi\nsize=10M\n"),
    "aix": lambda disk, _: patched(disk, (0, b"\xc9\xc2\xd4\xc1")),
    "dasd": lambda disk, _: patched(disk, (2 * 4096, DASD_VOL1 * 2)),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_partition_tables_are_named(tmp_path, name):
    disk = blank(tmp_path / "disk", SIZE)
    OTHER[name](disk, name)
    layout = inspect_disk(disk)
    assert (layout.table, layout.other_table, layout.partitions) == (None, name, ())
    assert layout.free_tail_bytes == 0
    text = shown(disk)
    assert f"partition table: {name} (" in text
    assert "free" not in text
    argv = ["blkid", "-p", "-o", "value", "-s", "PTTYPE", disk]
    witness = tools.run(argv, check=False).stdout.strip()
    # Its version 2.38 does not know these, and wants more of a BSD label.
    assert witness == name or (witness == "" and name in {"amiga", "bsd", "dasd"})


def test_a_disk_of_the_first_case_is_refused_by_the_command_line(raw, tmp_path):
    """The words that a user sees for a fixed VHD."""
    converted("vpc", "-o", "subformat=fixed,force_size")(raw, tmp_path / "x.vhd")
    done = cloudlab("inspect", tmp_path / "x.vhd")
    assert (done.returncode, done.stdout) == (1, "")
    assert "x.vhd has the format vpc" in done.stderr
