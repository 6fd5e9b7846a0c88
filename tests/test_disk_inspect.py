"""What `inspect` says, against sfdisk, debugfs, xfs_db, btrfs, fsck.fat and blkid."""

import itertools
import json
import os
import re
import struct
from pathlib import Path

import pytest
from disks import MIB, blank, blkid, copy_into, partitioned, patched, shown

from cloudlab import tools
from cloudlab.disk import DiskLayout, inspect_disk
from cloudlab.disk.reader import backing_chain
from cloudlab.errors import DiskError

#: Laid out as Ubuntu does it: the root partition has number 1 and comes last.
UBUNTU = """label: gpt
14 : start=2048, size=8192, type=21686148-6449-6E6F-744E-656564454649
15 : size=217088, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="ESP (é)"
1 : type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, attrs=LegacyBIOSBootable
"""
MBR = """label: dos
start=2048, size=20480, type=83, bootable
start=24576, size=20480, type=82
start=47104, type=f
start=49152, size=4096, type=83
start=57344, size=8192, type=8e
start=69632, size=2048, type=c
"""
TABLES = {
    "ubuntu": UBUNTU,
    "gpt-long-table": "label: gpt\ntable-length: 256\n" + ",1M\n" * 40,
    "gpt-empty": "label: gpt\n",
    "mbr-logical": MBR,
    "mbr-empty-logical-chain": "label: dos\n,1M,83\n,,E\n",
    "mbr-one": "label: dos\n,,83,*\n",
    "mbr-empty": "label: dos\n",
}


def sfdisk_rows(disk: Path) -> tuple[str, list[tuple]]:
    table = json.loads(tools.run(["sfdisk", "--json", disk]).stdout)["partitiontable"]
    unit = table["sectorsize"]
    rows = [
        (
            int(re.search(r"(\d+)$", row["node"])[1]),
            row["start"] * unit,
            row["size"] * unit,
            row["type"],
            row.get("bootable", False) or "LegacyBIOSBootable" in row.get("attrs", ""),
            row.get("name", ""),
        )
        for row in table.get("partitions", [])
    ]
    return table["label"], sorted(rows, key=lambda row: row[1])


def our_rows(layout: DiskLayout) -> list[tuple]:
    return [
        (each.number, each.start_bytes, each.size_bytes, each.type, each.bootable, each.name)
        for each in layout.partitions
    ]


@pytest.mark.parametrize("script", TABLES.values(), ids=TABLES)
def test_tables_agree_with_sfdisk(tmp_path, script):
    disk = partitioned(tmp_path / "disk.raw", script, 400 * MIB)
    layout = inspect_disk(disk)
    kind, rows = sfdisk_rows(disk)
    assert layout.table == kind
    assert our_rows(layout) == rows
    assert layout.warnings == ()
    assert layout.free_tail_bytes == 400 * MIB - max((row[1] + row[2] for row in rows), default=0)
    if kind == "gpt":
        assert layout.gpt_backup.place == "end"
        assert layout.gpt_backup.offset_bytes == 400 * MIB - 512


def test_a_gpt_in_sectors_of_4096_bytes_agrees_with_fdisk(tmp_path):
    disk = blank(tmp_path / "disk.raw", 400 * MIB)
    keys = "g\nn\n1\n256\n+50M\nn\n2\n\n\nt\n1\n1\nw\n"
    fdisk = ["fdisk", "--sector-size", "4096"]
    tools.run([*fdisk, disk], stdin=keys)
    text = tools.run([*fdisk, "-l", "-o", "Device,Start,Sectors,Type-UUID", disk]).stdout
    rows = re.findall(r"disk\.raw(\d+)\s+(\d+)\s+(\d+)\s+(\S+)", text)
    layout = inspect_disk(disk)
    assert (layout.table, layout.sector_bytes, layout.warnings) == ("gpt", 4096, ())
    assert len(rows) == 2
    assert [row[:4] for row in our_rows(layout)] == [
        (int(number), int(start) * 4096, int(size) * 4096, kind)
        for number, start, size, kind in rows
    ]
    assert layout.gpt_backup.offset_bytes == 400 * MIB - 4096


@pytest.fixture(scope="module")
def ubuntu(tmp_path_factory):
    """A raw disk with a FAT and an ext4 filesystem inside partitions."""
    folder = tmp_path_factory.mktemp("ubuntu")
    disk = partitioned(folder / "disk.raw", UBUNTU, 400 * MIB)
    _, (_, esp, root) = sfdisk_rows(disk)
    tools.run(["mkfs.vfat", "-n", "UEFI", blank(folder / "esp", esp[2])])
    tools.run(["mke2fs", "-q", "-t", "ext4", "-L", "cloudimg", blank(folder / "root", 200 * MIB)])
    copy_into(disk, folder / "esp", esp[1])
    copy_into(disk, folder / "root", root[1])
    return disk


FORMATS = {
    "qcow2": ["-O", "qcow2"],
    "zlib": ["-O", "qcow2", "-c"],
    "zstd": ["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
    "version-2": ["-O", "qcow2", "-o", "compat=0.10"],
    "small-clusters": ["-O", "qcow2", "-o", "cluster_size=512"],
    "subclusters": ["-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k"],
}


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_every_kind_of_qcow2_shows_the_same_disk(ubuntu, tmp_path, options):
    disk = tmp_path / "disk.img"
    tools.run(["qemu-img", "convert", "-f", "raw", *options, ubuntu, disk])
    # The host allocates the file's blocks when it writes them back.
    with disk.open("rb+") as stream:
        os.fsync(stream.fileno())
    layout, raw = inspect_disk(disk), inspect_disk(ubuntu)
    assert (layout.format, raw.format) == ("qcow2", "raw")
    assert layout.partitions == raw.partitions
    assert layout.gpt_backup == raw.gpt_backup
    assert layout.virtual_size_bytes == raw.virtual_size_bytes == 400 * MIB
    assert layout.disk_size_bytes == disk.stat().st_blocks * 512


@pytest.mark.parametrize("base_format", ["raw", "qcow2"])
def test_a_backing_chain_is_followed(ubuntu, tmp_path, base_format):
    folder = tmp_path / "a folder, 100 % ü:{}"
    folder.mkdir()
    base, middle, top = (folder / name for name in ("base", "middle", "top"))
    tools.run(["qemu-img", "convert", "-f", "raw", "-O", base_format, ubuntu, base])
    for disk, backing, kind in ((middle, base, base_format), (top, middle, "qcow2")):
        tools.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", backing.name, disk])
    layout = inspect_disk(top)
    assert [layer.path for layer in backing_chain(top)] == [top, middle, base]
    assert layout.partitions == inspect_disk(ubuntu).partitions
    assert layout.backing_file == str(middle)


def test_enlarging_leaves_the_second_header_behind_until_growpart_writes_the_table(
    ubuntu, tmp_path, monkeypatch
):
    disk = tmp_path / "disk.raw"
    tools.run(["cp", "--sparse=always", ubuntu, disk])
    before = inspect_disk(disk)
    tools.run(["qemu-img", "resize", "-q", "-f", "raw", disk, "1G"])

    enlarged = inspect_disk(disk)
    assert our_rows(enlarged) == sfdisk_rows(disk)[1]
    assert enlarged.partitions == before.partitions
    assert (enlarged.gpt_backup.place, enlarged.gpt_backup.offset_bytes) == (
        "old end",
        400 * MIB - 512,
    )
    assert "left at the old end (400 MiB)" in shown(disk)

    monkeypatch.chdir(tmp_path)  # growpart takes no blank in a name
    tools.run(["growpart", "--update=off", disk.name, "1"])
    grown = inspect_disk(disk)
    assert our_rows(grown) == sfdisk_rows(disk)[1]
    assert grown.gpt_backup.place == "end"
    root = grown.partitions[-1]
    assert root.size_bytes > before.partitions[-1].size_bytes + 600 * MIB
    assert root.filesystem == before.partitions[-1].filesystem

    room = f"{root.size_bytes >> 10}K"
    tools.run(["resize2fs", f"{disk}?offset={root.start_bytes}", room])
    resized = inspect_disk(disk).partitions[-1].filesystem
    assert root.size_bytes - 4096 < resized.size_bytes <= root.size_bytes
    assert resized.size_bytes == debugfs(disk, root.start_bytes)["size"]


def test_a_shrunk_disk_lost_its_second_header(ubuntu, tmp_path):
    disk = tmp_path / "disk.raw"
    tools.run(["cp", "--sparse=always", ubuntu, disk])
    os.truncate(disk, 300 * MIB)
    layout = inspect_disk(disk)
    assert (layout.gpt_backup.place, layout.gpt_backup.offset_bytes) == ("missing", None)
    text = " ".join(layout.warnings)
    assert "beyond the end of the disk" in text
    assert "made for a larger disk" in text


@pytest.mark.parametrize("size", [66_000, 200_000, 400_000, 600_000, 900_000])
def test_a_qcow2_file_that_was_cut_off_is_an_error_or_a_warning(ubuntu, tmp_path, size):
    disk = tmp_path / "disk.qcow2"
    tools.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", ubuntu, disk])
    assert disk.stat().st_size > MIB
    os.truncate(disk, size)
    try:
        warnings = inspect_disk(disk).warnings
    except DiskError as error:
        warnings = (error.message,)
    assert any(re.search(r"cut off|cannot (open|read)", warning) for warning in warnings)


@pytest.mark.parametrize("half", ["first", "second"])
def test_either_half_of_a_gpt_is_enough(ubuntu, tmp_path, half):
    disk = tmp_path / "disk.raw"
    tools.run(["cp", "--sparse=always", ubuntu, disk])
    with disk.open("r+b") as stream:
        stream.seek(512 + 40 if half == "first" else 400 * MIB - 512 + 40)
        stream.write(b"\xff")
    layout = inspect_disk(disk)
    assert our_rows(layout) == our_rows(inspect_disk(ubuntu))
    assert any("GPT header is damaged" in warning for warning in layout.warnings)


# Filesystems


def debugfs(disk: Path, offset: int) -> dict:
    # dumpe2fs prints the same, but 1.47.2 takes no offset.
    text = tools.run(
        ["debugfs", "-c", "-R", "show_super_stats -h", f"{disk}?offset={offset}"]
    ).stdout
    field = dict(re.findall(r"^(.+?):\s+(.*)$", text, re.MULTILINE))
    block = int(field["Block size"])
    size, overhead = int(field["Block count"]) * block, field.get("Overhead clusters")
    return {
        "size": size,
        "statfs": size - int(overhead) * block if overhead else None,
        "free": int(field["Free blocks"]) * block,
        "mounted": field["Last mounted on"].replace("<not available>", ""),
    }


def xfs_db(disk: Path, offset: int) -> dict:
    # xfs_db cannot start at an offset.
    part = disk.with_suffix(".part")
    with disk.open("rb") as source, part.open("wb") as target:
        source.seek(offset)
        target.write(source.read(64 * MIB))
        target.truncate(400 * MIB)
    text = tools.run(["xfs_db", "-r", "-c", "sb 0", "-c", "print", part]).stdout
    field = dict(re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE))
    block = int(field["blocksize"])
    blocks = int(field["dblocks"])
    return {
        "size": blocks * block,
        "statfs": (blocks - int(field["logblocks"])) * block,
        "free": int(field["fdblocks"]) * block,
    }


def btrfs_super(disk: Path, offset: int) -> dict:
    part = disk.with_suffix(".part")
    with disk.open("rb") as source, part.open("wb") as target:
        source.seek(offset)
        target.write(source.read(MIB))
    text = tools.run(["btrfs", "inspect-internal", "dump-super", part]).stdout
    field = dict(re.findall(r"^(\w+)\s+(.*)$", text, re.MULTILINE))
    total = int(field["total_bytes"])
    return {"size": total, "statfs": total, "free": total - int(field["bytes_used"])}


def fsck_fat(disk: Path, offset: int) -> dict:
    part = disk.with_suffix(".part")
    with disk.open("rb") as source, part.open("wb") as target:
        source.seek(offset)
        target.write(source.read(400 * MIB))
    text = tools.run(["fsck.fat", "-v", "-n", part], check=False).stdout
    sector = int(re.search(r"(\d+) bytes per logical sector", text)[1])
    cluster = int(re.search(r"(\d+) bytes per cluster", text)[1])
    return {
        "size": int(re.search(r"(\d+) sectors total", text)[1]) * sector,
        "statfs": int(re.search(r"(\d+) clusters", text)[1]) * cluster,
        "free": None,
    }


def nothing(disk: Path, offset: int) -> dict:
    return {}


LUKS = ["cryptsetup", "-q", "luksFormat", "--type"]
EXT = ["mke2fs", "-q", "-L", "data"]
FILESYSTEMS = {
    "ext2": ([*EXT, "-t", "ext2"], 50, debugfs),
    "ext2-1k": ([*EXT, "-t", "ext2", "-b", "1024"], 5, debugfs),
    "ext3": ([*EXT, "-t", "ext3"], 50, debugfs),
    "ext4": ([*EXT, "-t", "ext4"], 50, debugfs),
    "ext4-odd-size": ([*EXT, "-t", "ext4", "-b", "4096", "FILE", "12345"], 60, debugfs),
    "ext4-32bit": ([*EXT, "-t", "ext4", "-O", "^64bit,^metadata_csum"], 50, debugfs),
    "ext4-no-journal": ([*EXT, "-t", "ext4", "-O", "^has_journal"], 50, debugfs),
    "ext4-mounted": ([*EXT, "-t", "ext4", "-M", "/srv/ü"], 50, debugfs),
    "xfs": (["mkfs.xfs", "-q", "-L", "twelve-chars"], 320, xfs_db),
    "xfs-1k": (["mkfs.xfs", "-q", "-b", "size=1024"], 320, xfs_db),
    "btrfs": (["mkfs.btrfs", "-q", "-L", "a long label ü"], 150, btrfs_super),
    "btrfs-mixed": (["mkfs.btrfs", "-q", "--mixed"], 40, btrfs_super),
    "fat12": (["mkfs.vfat", "-F", "12", "-n", "TWELVE"], 4, fsck_fat),
    "fat16": (["mkfs.vfat", "-F", "16"], 60, fsck_fat),
    "fat32": (["mkfs.vfat", "-F", "32", "-n", "ESP"], 106, fsck_fat),
    "fat32-4k-sectors": (["mkfs.vfat", "-F", "32", "-S", "4096", "-n", "ESP"], 300, fsck_fat),
    "swap": (["mkswap", "-L", "swap"], 20, nothing),
    "swap-64k": (["mkswap", "-p", "65536"], 20, nothing),
    "luks1": (
        [*LUKS, "luks1", "--pbkdf-force-iterations=1000", "FILE"],
        20,
        nothing,
    ),
    "luks2": (
        [*LUKS, "luks2", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--label=me", "FILE"],
        20,
        nothing,
    ),
}


def made(name: str, folder: Path) -> Path:
    argv, size_mib, _ = FILESYSTEMS[name]
    image = blank(folder / "filesystem", size_mib * MIB)
    words = [image if word == "FILE" else word for word in argv]
    tools.run(words if image in words else [*words, image], stdin="password\n")
    return image


#: Each type once, without its variants.
TYPES = {"ext2", "ext3", "ext4", "xfs", "btrfs", "fat12", "fat16", "fat32", "swap", "luks2"}
PLACES = [(name, "partition") for name in TYPES] + [("ext4", "whole-disk"), ("fat32", "whole-disk")]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        pytest.param(*pair, marks=() if pair in PLACES else pytest.mark.slow)
        for pair in itertools.product(FILESYSTEMS, ["partition", "whole-disk"])
    ],
)
def test_filesystems_agree_with_their_own_tools(tmp_path, name, place):
    image = made(name, tmp_path)
    size, disk, offset = image.stat().st_size, image, 0
    if place == "partition":
        disk, offset = tmp_path / "disk.raw", MIB
        partitioned(disk, f"label: gpt\nsize={size // 512}\n", size + 2 * MIB)
        copy_into(disk, image, offset)
    layout = inspect_disk(disk)
    (partition,) = layout.partitions
    assert (partition.number, layout.table) == ((1, "gpt") if offset else (None, None))
    assert (partition.start_bytes, partition.size_bytes) == (offset, size)
    assert layout.warnings == ()

    filesystem, witness = partition.filesystem, blkid(disk, offset, size)
    assert filesystem.type == witness["type"]
    assert filesystem.label == witness["label"]
    assert filesystem.uuid == witness["uuid"]
    if filesystem.version:
        assert filesystem.version.removeprefix("LUKS") == witness["version"]
    ours = {
        "size": filesystem.size_bytes,
        "statfs": filesystem.statfs_bytes,
        "free": filesystem.free_bytes,
        "mounted": filesystem.last_mounted_on,
    }
    own = FILESYSTEMS[name][2](disk, offset)
    assert {key: ours[key] for key in own} == own
    if filesystem.type == "swap":
        assert filesystem.size_bytes == size


def test_the_label_of_a_fat32_is_in_the_root_directory_wherever_that_begins(tmp_path):
    image = made("fat32", tmp_path)
    content = image.read_bytes()
    sector, per_cluster, reserved, copies = struct.unpack_from("<HBHB", content, 11)
    (fat,) = struct.unpack_from("<I", content, 36)
    cluster, start = per_cluster * sector, (reserved + copies * fat) * sector
    patched(
        image,
        (44, struct.pack("<I", 5)),
        (71, b"OLD LABEL  "),
        (reserved * sector + 5 * 4, b"\xff\xff\xff\x0f"),
        (start, bytes(cluster)),
        (start + 3 * cluster, content[start : start + cluster]),
    )
    (partition,) = inspect_disk(image).partitions
    assert partition.filesystem.label == blkid(image, 0, len(content))["label"] == "ESP"


#: The second sector of a 64 MiB loop device after `pvcreate` of lvm2 2.03.16, which
#: writes only to block devices; the rest of the sector is zero.
LVM_SECTOR = bytes.fromhex(
    "4c4142454c4f4e45010000000000000017e9cedb200000004c564d3220303031"
    "64354f635853473366593246713377454c6f76676f563048335a3650327a4b54"
    "0000000400000000000010000000000000000000000000000000000000000000"
    "0000000000000000001000000000000000f00f00000000000000000000000000"
    "000000000000000002"
)


def test_an_lvm_volume_agrees_with_blkid(tmp_path):
    disk = blank(tmp_path / "disk.raw", 64 * MIB)
    with disk.open("r+b") as stream:
        stream.seek(512)
        stream.write(LVM_SECTOR)
    (partition,) = inspect_disk(disk).partitions
    witness = blkid(disk, 0, 64 * MIB)
    assert (partition.filesystem.type, partition.filesystem.uuid) == (
        witness["type"],
        witness["uuid"],
    )
    assert partition.filesystem.size_bytes == 64 * MIB


def test_a_fat_label_is_the_one_in_the_root_folder(tmp_path):
    disk = made("fat32", tmp_path)
    with disk.open("r+b") as stream:
        stream.seek(71)
        stream.write(b"BOOT SECTOR")
    (partition,) = inspect_disk(disk).partitions
    assert partition.filesystem.label == blkid(disk, 0, disk.stat().st_size)["label"] == "ESP"


def test_the_last_mount_is_read(tmp_path):
    disk = made("ext4", tmp_path)
    for field, value in (("mtime", "@1700000000"), ("last_mounted", "/srv")):
        tools.run(["debugfs", "-w", "-R", f"set_super_value {field} {value}", disk])
    filesystem = inspect_disk(disk).partitions[0].filesystem
    assert filesystem.last_mounted_at.isoformat() == "2023-11-14T22:13:20+00:00"
    assert filesystem.last_mounted_on == "/srv" == debugfs(disk, 0)["mounted"]


def test_two_signatures_are_a_warning(tmp_path):
    disk = blank(tmp_path / "disk.raw", 150 * MIB)
    tools.run(["mkfs.btrfs", "-q", disk])
    image = made("ext2-1k", tmp_path)
    with disk.open("r+b") as stream:
        stream.write(image.read_bytes()[: 8 * 1024])
    layout = inspect_disk(disk)
    assert "ext2, btrfs" in layout.warnings[0]


def test_an_empty_disk_holds_nothing(tmp_path):
    layout = inspect_disk(blank(tmp_path / "disk.raw", 10 * MIB))
    assert (layout.table, layout.partitions, layout.warnings) == (None, (), ())
    assert layout.free_tail_bytes == 10 * MIB
    assert "partition table: none" in shown(tmp_path / "disk.raw")


# The public shapes


def test_json_has_the_agreed_keys(ubuntu):
    answer = json.loads(json.dumps(inspect_disk(ubuntu).to_json()))
    assert {
        key: answer[key] for key in ("virtual_size_bytes", "format", "backing_file", "table")
    } == {
        "virtual_size_bytes": 400 * MIB,
        "format": "raw",
        "backing_file": None,
        "table": "gpt",
    }
    assert answer["disk_size_bytes"] == ubuntu.stat().st_blocks * 512
    assert [each["number"] for each in answer["partitions"]] == [14, 15, 1]
    root = answer["partitions"][2]
    assert {"number", "start_bytes", "size_bytes", "type", "filesystem"} <= root.keys()
    assert {key: root["filesystem"][key] for key in ("type", "label", "size_bytes")} == {
        "type": "ext4",
        "label": "cloudimg",
        "size_bytes": 200 * MIB,
    }
    assert answer["partitions"][0]["filesystem"] is None


def test_a_hostile_label_cannot_drive_the_terminal(tmp_path):
    disk = blank(tmp_path / "disk.raw", 10 * MIB)
    tools.run(["mke2fs", "-q", "-L", "\x1b[31mred\x07\u202e", disk])
    text = shown(disk)
    assert "red" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
