"""What a boot will make of a disk, by arithmetic, compared with the boots of the atlas."""

import gzip
import os
import re
import shlex
import struct
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import atlas as atlas_script
import pandas as pd
import pytest
from disks import Bytes, blank, partitioned

import cloudlab as cl
from cloudlab import tools
from cloudlab.disk import DiskLayout, Partition, inspect_disk
from cloudlab.disk.filesystem import Filesystem, identify
from cloudlab.disk.growth import Root, grown_filesystem, grown_partition, read_root
from cloudlab.errors import DiskError, UsageError
from cloudlab.image.cache import Image
from cloudlab.image.recipe import Variant, make_recipe
from cloudlab.run.options import make_options
from cloudlab.run.predict import atlas, forecast, measured
from cloudlab.seed import GrowpartMode, SeedConfig
from cloudlab.units import GIB, MIB, TIB

#: The superblocks of the lab images, the first 4 KiB of the filesystem, of btrfs 68 KiB.
HEADS = Path(__file__).parent / "data" / "heads"
START = 111 * MIB


@cache
def root_of(filesystem="ext4", variant="plain", suite="trixie"):
    """Return the root of a lab image, as inspect reads it."""
    recipe = make_recipe(suite, filesystem, variant, "amd64")
    head = gzip.decompress((HEADS / f"{filesystem}.gz").read_bytes())
    [found], _ = identify(Bytes(head, 2000 * MIB), 0, 2000 * MIB)
    if variant == Variant.LVM:
        found = Filesystem("LVM2_member")
    layout = recipe.layout
    parts = [
        Partition(one.number, one.offset_bytes, one.sectors * 512, one.type)
        for one in layout.partitions or (layout.root,)
    ]
    [root] = [one for one in parts if one.start_bytes == layout.root.offset_bytes]
    parts = [replace(one, number=one.number or None) for one in parts]
    root = replace(root, number=root.number or None, filesystem=found)
    table = layout.label if layout.partitions else None
    disk = DiskLayout(Path("x"), "qcow2", layout.disk_bytes, 0, None, table, tuple(parts))
    return Root(disk, root, found, head)


def options_of(variant="plain", growpart_version="0.33-1", **values):
    details = {"variant": variant, "growpart": growpart_version} if variant else {}
    image = Image(
        "lab.qcow2", Path("lab.qcow2"), "qcow2", "amd64", "built", "", "", details=details
    )
    return make_options(image, **values)


def told(variant="plain", filesystem="ext4", growpart_version="0.33-1", **values):
    return forecast(options_of(variant, growpart_version, **values), root_of(filesystem, variant))


DONE = atlas().query("outcome == 'done'")


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{row.part}-{row.Index}") for row in DONE.itertuples()]
)
def test_the_arithmetic_agrees_with_every_boot_of_the_atlas(row):
    root = root_of(row.filesystem, row.variant, row.suite)
    seed = {"growpart": row.growpart, "resize_rootfs": row.resize_rootfs}
    # An image without growpart has no version of it.
    version = "" if pd.isna(row.growpart_version) else row.growpart_version
    options = options_of(row.variant, version, disk_size_bytes=int(row.disk_bytes), **seed)
    found = forecast(options, root)
    if row.variant == Variant.LVM:  # what lies in the volume is not read
        assert (found.partition_bytes, found.filesystem_bytes) == (2004 * MIB, None)
        assert "logical volume" in " ".join(found.doubts)
        return
    whole = root.partition.number is None
    assert found.partition_bytes == (None if whole else row.partition_bytes)
    if row.variant == Variant.REPART and row.disk_bytes >= TIB:
        # Some were measured while systemd-growfs was at work, as the doubt says.
        assert found.filesystem_bytes >= row.filesystem_bytes
        assert "still be at work" in found.doubts[0]
        return
    assert found.filesystem_bytes == row.filesystem_bytes
    assert found.doubts == ()


def test_the_atlas_is_what_the_readme_says():
    assert len(DONE) >= 240
    assert DONE["disk_bytes"].max() == 4 * TIB
    assert DONE["console_sha256"].is_unique
    assert not DONE[["date", "qemu", "image_sha256", "kernel", "cloud_init"]].isna().any(axis=None)


def test_the_page_of_the_atlas_is_up_to_date():
    assert atlas_script.PAGE.read_text() == atlas_script.page(atlas())


def test_growpart_0_34_rounds_down_to_whole_mebibytes():
    root = root_of()
    old, new = (grown_partition(root, 20 * GIB, version) for version in ((0, 33), (0, 34)))
    assert old.size_bytes == 20 * GIB - START - 33 * 512
    assert new.size_bytes == 20 * GIB - START - MIB
    assert "whole MiB" in " ".join(new.steps)
    assert told(growpart_version="0.34-1").partition_bytes == new.size_bytes


def test_a_gain_below_one_mebibyte_is_ignored_by_each_version():
    root, disk_bytes = root_of(), 2112 * MIB + 33 * 512
    assert grown_partition(root, disk_bytes, (0, 33)).size_bytes == 2001 * MIB
    assert grown_partition(root, disk_bytes + MIB - 512, (0, 34)).size_bytes == 2001 * MIB
    assert grown_partition(root, disk_bytes - 512, (0, 34)).size_bytes == 2000 * MIB


def test_an_mbr_ends_at_2_tib():
    found = told("mbr", "ext4", disk_size="3T", growpart_version="0.34-1")
    assert found.partition_bytes == 2 * TIB - MIB
    assert "32 bits" in " ".join(found.steps)


def test_growpart_before_0_34_fails_on_an_mbr_beyond_2_tib():
    found = told("mbr", disk_size="3T")
    assert found.partition_bytes == 2000 * MIB
    assert "one sector more" in " ".join(found.steps)
    # As its recording shows; a disk of just 2 TiB is no trouble.
    assert cl.recorded("mbr").root_sizes("after").partition_bytes == 2000 * MIB
    assert told("mbr", disk_size="2T").partition_bytes == 2 * TIB - MIB - 33 * 512


@pytest.mark.parametrize(
    ("extended", "behind", "why"),
    [
        pytest.param(75776, "", "ends with sector 81,919", id="room behind"),
        pytest.param(157696, "", "163,806", id="enlarged before"),
        pytest.param(157600, "", "ends with sector 163,743", id="end kept for a GPT"),
        pytest.param(75776, "6: start=65536, size=4096", "boot record", id="logical one behind"),
        pytest.param(75776, "1: start=81920, size=2048", "73,728", id="primary one behind"),
        pytest.param(75776, "1: start=90112, size=2048", "81,919", id="primary one later"),
        pytest.param(43104, "1: start=49248, size=2048", "less than 1 MiB", id="full"),
    ],
)
def test_growpart_cannot_grow_a_logical_partition_beyond_its_extended_one(
    tmp_path, monkeypatch, extended, behind, why
):
    script = f"2: start=6144, size={extended}, type=5\n5: start=8192, size=40960\n{behind}\n"
    disk = partitioned(tmp_path / "disk", f"label: dos\n{script}", 80 * MIB)
    tools.run(["mkfs.ext4", "-q", "-F", "-E", f"offset={4 * MIB}", disk, "20M"])
    root = read_root(inspect_disk(disk))
    assert root.partition.number == 5
    old, new = (grown_partition(root, 80 * MIB, version) for version in ((0, 33), (0, 34)))
    monkeypatch.chdir(tmp_path)  # growpart takes no blank in a name
    tools.run(["growpart", disk.name, "5"], check=False)
    [size_bytes] = [one.size_bytes for one in inspect_disk(disk).partitions if one.number == 5]
    assert size_bytes in {old.size_bytes, new.size_bytes}
    assert why in " ".join(old.steps)


@pytest.mark.parametrize(
    ("variant", "values", "partition", "why"),
    [
        pytest.param("plain", {"growpart": "off"}, 2000 * MIB, "growpart is off", id="off"),
        pytest.param("plain", {"growpart": "gpart"}, 2000 * MIB, "no gpart", id="gpart"),
        pytest.param("plain", {"growpart_devices": ["/boot"]}, 2000 * MIB, "devices", id="other"),
        pytest.param("plain", {"attach_seed": False}, 2000 * MIB, "seed", id="no seed"),
        pytest.param("plain", {"seed_label": "OTHER"}, 2000 * MIB, "seed", id="wrong label"),
        pytest.param("no-growpart", {}, 2000 * MIB, "lacks growpart", id="no growpart"),
        pytest.param("lvm", {}, 2004 * MIB, "on LVM", id="LVM"),
        pytest.param("not-last", {}, 2000 * MIB, "Another partition", id="wall"),
    ],
)
def test_it_says_why_a_partition_keeps_its_size(variant, values, partition, why):
    found = told(variant, **values)
    assert found.partition_bytes == partition
    assert why in " ".join(found.steps)


def test_the_initramfs_grows_a_partition_whatever_cloud_init_does():
    assert told("growroot", growpart="off").partition_bytes == told().partition_bytes


def test_a_filesystem_on_the_whole_disk_grows_without_a_partition():
    found = told("whole-disk", disk_size="4G", growpart="off")
    assert found.partition_bytes is None
    assert found.filesystem_bytes == grown_filesystem(root_of(), 4 * GIB).size_bytes


@pytest.mark.parametrize(
    ("variant", "values", "doubt"),
    [
        pytest.param("", {}, "not built by cloudlab", id="published"),
        pytest.param("plain", {"bootcmd": ["true"]}, "bootcmd", id="bootcmd"),
        pytest.param("plain", {"user_data": "#cloud-config\n"}, "of your own", id="user-data"),
        pytest.param("plain", {"vendor_data": "#cloud-config\n"}, "of your own", id="vendor-data"),
        pytest.param("plain", {"extra_yaml": "users: []"}, "of your own", id="extra YAML"),
        pytest.param("plain", {"resize_rootfs": "noblock"}, "noblock", id="noblock"),
        pytest.param("plain", {"enlarge_to": "30G"}, "enlarged afterwards", id="enlarged"),
        pytest.param("repart", {"disk_size": "3T"}, "still be at work", id="growfs"),
    ],
)
def test_it_says_where_it_is_not_sure(variant, values, doubt):
    found = forecast(options_of(variant, **values), root_of())
    assert doubt in " ".join(found.doubts)
    assert f"Not sure: {found.doubts[0]}" in str(found)


def test_a_disk_without_a_filesystem_is_inspected_next(tmp_path):
    disk = partitioned(tmp_path / "my disk.raw", "label: gpt\nstart=2048\n", 8 * MIB)
    with pytest.raises(DiskError, match=r"No filesystem .* my disk\.raw") as caught:
        cl.predict(image=disk, disk_size="1G")
    assert shlex.split(caught.value.hint)[-3:] == ["cloudlab", "inspect", str(disk)]


def test_a_filesystem_whose_arithmetic_is_unknown_is_not_guessed():
    root = root_of()
    other = replace(root, filesystem=Filesystem("f2fs"))
    found = forecast(options_of(), other)
    assert found.filesystem_bytes is None
    assert "f2fs" in found.doubts[0]
    head = bytearray(root.head)
    head[1024 + 101] |= 0x2  # bigalloc
    assert grown_filesystem(replace(root, head=bytes(head)), 4 * GIB) is None


@pytest.mark.parametrize(
    ("filesystem", "at", "value"),
    [
        pytest.param("ext4", 1024 + 32, bytes(4), id="no blocks per group"),
        pytest.param("ext4", 1024 + 32, b"\xff" * 4, id="blocks per group"),
        pytest.param("ext4", 1024 + 0xFE, bytes(2), id="no descriptor"),
        pytest.param("ext4", 1024 + 0xFE, b"\xff" * 2, id="descriptor"),
        pytest.param("ext4", 1024 + 40, b"\xff" * 4, id="inodes"),
        pytest.param("ext4", 1024 + 0x10C + 15 * 4, b"\xff" * 4, id="journal"),
        pytest.param("xfs", 4, bytes(4), id="no block"),
        pytest.param("xfs", 84, bytes(4), id="no group"),
        pytest.param("xfs", 96, b"\xff" * 4, id="log"),
        pytest.param("btrfs", 65536 + 0x90, bytes(4), id="no sector"),
        pytest.param("btrfs", 65536 + 0x90, b"\xff" * 4, id="sector"),
    ],
)
def test_of_a_damaged_superblock_no_size_is_calculated(filesystem, at, value):
    root = root_of(filesystem)
    head = bytearray(root.head)
    head[at : at + len(value)] = value
    assert grown_filesystem(replace(root, head=bytes(head)), 3 * GIB) is None


def test_a_filesystem_of_many_small_groups_is_calculated_at_once():
    root = root_of()
    head = bytearray(root.head)
    struct.pack_into("<I", head, 1024 + 32, 4096)  # blocks per group
    struct.pack_into("<I", head, 1024 + 40, 256)  # inodes per group
    found = grown_filesystem(replace(root, head=bytes(head)), 1 << 60)
    assert "groups do not fit" in " ".join(found.steps)


def test_its_words_carry_the_arithmetic():
    text = str(told(disk_size="20G"))
    assert "partition: 19.9 GiB (21,358,427,648 bytes)" in text
    assert "160 groups" in text
    assert "21,148,409,856 bytes are left" in text


def test_a_small_last_group_is_left_out():
    ext4, xfs = root_of(), root_of("xfs")
    group = 128 * MIB
    assert "too few" in " ".join(grown_filesystem(ext4, 20 * group + 200 * 4096).steps)
    assert "too few" not in " ".join(grown_filesystem(ext4, 20 * group + 4000 * 4096).steps)
    unit = 500 * MIB
    assert "too few" in " ".join(grown_filesystem(xfs, 9 * unit + 63 * 4096).steps)
    assert "too few" not in " ".join(grown_filesystem(xfs, 9 * unit + 64 * 4096).steps)


def test_the_atlas_is_searched_by_image_disk_and_options():
    row = DONE[(DONE["growpart"] == "off") & (DONE["variant"] == "plain")].iloc[0]
    seed = SeedConfig(growpart=GrowpartMode.OFF, resize_rootfs=_resize(row))
    found = measured(row["image"], int(row["disk_bytes"]), seed)
    assert list(found["console_sha256"]) == [row["console_sha256"]]
    assert measured(row["image"], int(row["disk_bytes"]) + 512, seed).empty
    assert measured("other.qcow2", int(row["disk_bytes"]), seed).empty
    assert measured(row["image"], int(row["disk_bytes"]), replace(seed, bootcmd=("true",))).empty


def _resize(row):
    return make_options(options_of().image, resize_rootfs=row["resize_rootfs"]).seed.resize_rootfs


def test_a_disk_that_is_smaller_than_the_image_is_refused(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(bytes(8 * MIB))
    image = Image("raw", path, "raw", "amd64", "file", "", "")
    with pytest.raises(UsageError, match="smaller than the image"):
        cl.predict(image=image, disk_size="4M")


def df_bytes(disk):
    """Return what df will call the size of an ext4, counted from its groups."""
    argv, there = ["dumpe2fs", str(disk)], {"LC_ALL": "C"}
    shown = subprocess.run(argv, env=os.environ | there, capture_output=True, text=True, check=True)
    named = r"(?:superblock|Group descriptors|Reserved GDT blocks|bitmap|Inode table) at (\d+)(?:-(\d+))?"
    taken = sum(int(last or one) - int(one) + 1 for one, last in re.findall(named, shown.stdout))
    count, first, journal, size = (
        int(re.search(rf"{name}: +(\d+)", shown.stdout)[1])
        for name in ("Block count", "First block", "Total journal blocks", "Block size")
    )
    return (count - first - taken - journal) * size


@pytest.mark.parametrize(
    ("features", "block_bytes"),
    [
        ("64bit", 1024),
        ("64bit", 4096),
        ("^64bit", 4096),
        ("^64bit,^sparse_super,^resize_inode", 4096),
    ],
)
def test_the_arithmetic_agrees_with_resize2fs(features, block_bytes, tmp_path):
    disk = blank(tmp_path / "disk", GIB)
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(block_bytes), "-O", features, disk],
        check=True,
    )
    root = read_root(inspect_disk(disk))
    assert grown_filesystem(root, GIB).size_bytes == df_bytes(disk)
    os.truncate(disk, 3 * GIB)
    subprocess.run(["resize2fs", disk], capture_output=True, check=True)
    assert grown_filesystem(root, 3 * GIB).size_bytes == df_bytes(disk)
