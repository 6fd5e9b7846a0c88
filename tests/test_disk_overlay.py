"""Making overlays, and seeing what was written to them."""

import json
import os
import re
import shutil
from itertools import pairwise

import pytest

from cloudlab import tools
from cloudlab.disk import (
    Extent,
    allocated_bytes,
    by_region,
    check_safe,
    create_overlay,
    inspect_disk,
    overlay_map,
    parse_disk_size,
)
from cloudlab.errors import (
    CloudlabError,
    DiskError,
    RecordingError,
    ToolFailedError,
    UnsafeImageError,
    UsageError,
)
from cloudlab.run.record import writing

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20G", 20 * GIB),
        ("512M", 512 * MIB),
        ("2T", 2048 * GIB),
        ("20GiB", 20 * GIB),
        ("20Gi", 20 * GIB),
        ("20g", 20 * GIB),
        ("20 GiB", 20 * GIB),
        (" 1G ", GIB),
        ("16T", 16 << 40),
    ],
)
def test_disk_sizes(text, size):
    assert parse_disk_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "20",
        "-1G",
        "0",
        "0G",
        "abc",
        "",
        "G",
        "1.5G",
        "20 G B",
        "9" * 5000 + "G",
        "\u0662\u0660G",
        "1K",
    ],
)
def test_what_is_no_disk_size_says_what_is(text):
    with pytest.raises(UsageError, match="Accepted are whole numbers with M, G or T"):
        parse_disk_size(text)


@pytest.mark.parametrize("text", ["17T", "16385G", "999999999999T"])
def test_a_size_over_the_limit_is_refused_for_that_reason(text):
    with pytest.raises(
        UsageError, match=f"memory size '{text}' is over the limit of 16T"
    ) as caught:
        parse_disk_size(text, "memory size")
    assert "16T" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "write"),
    [
        ("20GB", "20G"),
        ("20 gb", "20G"),
        ("16TB", "16T"),
        ("20KB", None),
        ("20GIBB", None),
        ("20GBB", None),
        ("0GB", None),
        ("17TB", None),
        ("2 0GB", None),
        ("9" * 5000 + "GB", None),
    ],
    ids=lambda value: str(value)[:8],
)
def test_decimal_units_are_explained_if_binary_ones_would_do(text, write):
    with pytest.raises(UsageError) as caught:
        parse_disk_size(text)
    found = re.search(r"binary units: write (\w+)\.", caught.value.hint)
    assert (found and found[1]) == write


UBUNTU = """label: gpt
14 : start=2048, size=8192
15 : size=20480
1 : start=40960
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    raw = folder / "disk.raw"
    with raw.open("wb") as stream:
        stream.truncate(100 * MIB)
    tools.run(["sfdisk", "-q", raw], stdin=UBUNTU)
    qcow2 = folder / "base, with 100% ü:.qcow2"
    tools.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2])
    return qcow2


def qemu_info(path):
    argv = ["qemu-img", "info", "-f", "qcow2", "--output=json", path]
    return json.loads(tools.run(argv).stdout)


def test_an_overlay_names_its_base_and_both_formats(base, tmp_path, monkeypatch):
    monkeypatch.chdir(base.parent)
    made = create_overlay(base.relative_to(base.parent), "qcow2", tmp_path / "new" / "o", 20 * GIB)
    assert (made.path, made.base, made.virtual_size_bytes) == (
        tmp_path / "new" / "o",
        base,
        20 * GIB,
    )
    info = qemu_info(made.path)
    assert (info["backing-filename"], info["backing-filename-format"]) == (str(base), "qcow2")
    assert (info["format"], info["virtual-size"]) == ("qcow2", 20 * GIB)
    assert made.path.stat().st_mode & 0o777 == 0o600
    tools.run(["qemu-img", "check", "-q", "-f", "qcow2", made.path])


def test_a_raw_base_stays_raw_even_where_it_begins_as_qcow2_does(tmp_path):
    raw = tmp_path / "disk.raw"
    tools.run(["qemu-img", "create", "-q", "-f", "qcow2", raw, "1G"])
    made = create_overlay(raw, "raw", tmp_path / "overlay", GIB)
    assert qemu_info(made.path)["backing-filename-format"] == "raw"
    assert inspect_disk(made.path).virtual_size_bytes == GIB


def test_as_large_as_the_image_is_large_enough(base, tmp_path):
    made = create_overlay(base, "qcow2", tmp_path / "overlay", 100 * MIB)
    assert qemu_info(made.path)["virtual-size"] == 100 * MIB


REFUSED = {
    "smaller": (100 * MIB - 512, UsageError, "104,857,088 bytes is smaller.*104,857,600 bytes"),
    "no-sectors": (100 * MIB + 1, UsageError, "512-byte sectors"),
    "too-large-for-qemu": (1 << 64, ToolFailedError, "qemu-img failed"),
}


@pytest.mark.parametrize(("size", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_sizes_leave_nothing(base, tmp_path, size, error, message):
    with pytest.raises(error, match=message):
        create_overlay(base, "qcow2", tmp_path / "overlay", size)
    assert list(tmp_path.iterdir()) == []


def test_the_hint_names_a_size_that_is_accepted(base, tmp_path):
    with pytest.raises(UsageError) as caught:
        create_overlay(base, "qcow2", tmp_path / "overlay", MIB)
    size = parse_disk_size(caught.value.hint.removeprefix("Choose at least ").rstrip("."))
    assert create_overlay(base, "qcow2", tmp_path / "overlay", size).virtual_size_bytes == size


def test_what_is_there_is_left_alone(base, tmp_path):
    (tmp_path / "overlay").write_text("mine")
    with pytest.raises(DiskError, match="exists already"):
        create_overlay(base, "qcow2", tmp_path / "overlay", GIB)
    assert (tmp_path / "overlay").read_text() == "mine"


@pytest.mark.parametrize("kind", ["missing", "of-another-format"])
def test_a_base_that_cannot_be_opened_leaves_nothing(base, tmp_path, kind):
    wrong = tmp_path / "missing" if kind == "missing" else tmp_path / "raw"
    if kind == "of-another-format":
        wrong.write_bytes(bytes(MIB))
    with pytest.raises(DiskError):
        create_overlay(wrong, "qcow2", tmp_path / "overlay", GIB)
    assert not (tmp_path / "overlay").exists()


def test_a_folder_that_cannot_be_made_is_told(base, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CloudlabError, match="could not be created"):
        create_overlay(base, "qcow2", tmp_path / "file" / "overlay", GIB)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("x" * 300, "File name too long"),
        ("loop", "Too many levels"),
        ("loop/x", "could not be created"),
    ],
)
def test_an_overlay_that_cannot_be_created_is_told_with_a_remedy(base, tmp_path, name, why):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CloudlabError, match=why) as caught:
        create_overlay(base, "qcow2", tmp_path / name, GIB)
    assert "Choose another" in caught.value.hint


def test_a_run_whose_overlay_cannot_be_created_names_its_own_remedy(base, tmp_path):
    with (
        pytest.raises(RecordingError, match="Nothing was started: File name too long") as caught,
        writing("Nothing was started"),
    ):
        create_overlay(base, "qcow2", tmp_path / ("x" * 300), GIB)
    assert "Choose a folder" in caught.value.hint


def test_a_name_that_qemu_cannot_take_is_not_called_damaged(base, tmp_path):
    odd = tmp_path / os.fsdecode(b"im\xff.qcow2")
    try:
        shutil.copy(base, odd)
    except OSError:
        pytest.skip("this filesystem has UTF-8 names only")
    with pytest.raises(UnsafeImageError, match="the name is not UTF-8") as caught:
        check_safe(odd)
    assert "Rename" in caught.value.hint
    with pytest.raises(DiskError, match="the name is not UTF-8"):
        inspect_disk(odd)


# What was written

WRITES = (
    "write -P 1 1M 64k",  # the first partition
    "write -P 1 1114112 100",  # a small write takes its cluster
    "write -P 1 6M 128k",  # the second
    "write -z 20M 1M",  # the third, zeros
    "write -P 1 500M 2M",  # behind what the image had
)


@pytest.fixture
def used(base, tmp_path):
    made = create_overlay(base, "qcow2", tmp_path / "overlay", GIB)
    before = allocated_bytes(made.path)
    tools.run(["qemu-io", "-f", "qcow2", *(w for c in WRITES for w in ("-c", c)), made.path])
    assert allocated_bytes(made.path) >= before + 2 * MIB
    return made.path


def test_the_map_shows_what_was_written(used):
    extents = overlay_map(used)
    assert extents[0].start_bytes == 0
    assert extents[-1].end_bytes == GIB
    assert all(a.end_bytes == b.start_bytes for a, b in pairwise(extents))
    assert [each for each in extents if each.kind in {"data", "zero"}] == [
        Extent(1 * MIB, 128 * KIB, "data"),
        Extent(6 * MIB, 128 * KIB, "data"),
        Extent(20 * MIB, 1 * MIB, "zero"),
        Extent(500 * MIB, 2 * MIB, "data"),
    ]
    # The partition table is still the image's.
    assert extents[0].kind == "backing"


def by_region_and_kind(extents, layout):
    totals = {}
    for each in by_region(extents, layout):
        key = each.region, each.kind
        totals[key] = totals.get(key, 0) + each.length_bytes
    return totals


def test_what_was_written_is_counted_by_partition(used):
    totals = by_region_and_kind(overlay_map(used), inspect_disk(used))
    assert list(dict.fromkeys(region for region, _ in totals)) == [
        "table",
        "14",
        "15",
        "gap",
        "1",
        "tail",
    ]
    assert {key: size for key, size in totals.items() if key[1] in {"data", "zero"}} == {
        ("14", "data"): 128 * KIB,
        ("15", "data"): 128 * KIB,
        ("1", "zero"): 1 * MIB,
        ("tail", "data"): 2 * MIB,
    }


@pytest.mark.parametrize(
    ("command", "kind"),
    [("write -P 0 30M 1M", "data"), ("write -z 30M 1M", "zero"), ("discard 30M 1M", "zero")],
    ids=["zeros written", "write-zeroes", "discard"],
)
def test_zero_clusters_come_from_discard_and_write_zeroes_only(tmp_path, command, kind):
    base = tmp_path / "base.raw"
    base.write_bytes(b"x" * 64 * MIB)
    made = create_overlay(base, "raw", tmp_path / "overlay", GIB)
    argv = ["qemu-io", "-f", "qcow2", "-d", "unmap", "-c", command, made.path]
    tools.run(argv)
    sizes = {}
    for each in overlay_map(made.path):
        sizes[each.kind] = sizes.get(each.kind, 0) + each.length_bytes
    assert sizes == {"backing": 63 * MIB, kind: 1 * MIB, "empty": GIB - 64 * MIB}


def test_regions_cut_extents_at_the_borders(used):
    layout = inspect_disk(used)
    whole = [Extent(0, GIB, "data")]
    cut = by_region(whole, layout)
    assert sum(each.length_bytes for each in cut) == GIB
    sizes = {each.region: each.length_bytes for each in cut}
    by_number = {str(each.number): each.size_bytes for each in layout.partitions}
    assert {name: sizes[name] for name in by_number} == by_number
    assert sizes["tail"] == layout.free_tail_bytes
    assert by_region_and_kind(whole, layout) == {(name, "data"): sizes[name] for name in sizes}


def test_logical_partitions_rule_inside_their_extended_one(tmp_path):
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as stream:
        stream.truncate(100 * MIB)
    script = "label: dos\nstart=2048,size=2048\nstart=8192,type=5\nstart=10240,size=2048\n"
    tools.run(["sfdisk", "-q", raw], stdin=script)
    sizes = by_region_and_kind([Extent(0, 100 * MIB, "zero")], inspect_disk(raw))
    assert sizes == {
        ("table", "zero"): MIB,
        ("1", "zero"): MIB,
        ("gap", "zero"): 3 * MIB,
        ("5", "zero"): MIB,
        ("tail", "zero"): 94 * MIB,
    }


def test_without_a_table_the_whole_disk_is_one_region(base, tmp_path):
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as stream:
        stream.truncate(MIB)
    layout = inspect_disk(raw)
    assert by_region([Extent(0, MIB, "data")], layout) == [Extent(0, MIB, "data", "disk")]


def test_a_map_of_what_is_no_overlay_is_an_error(tmp_path):
    (tmp_path / "raw").write_bytes(bytes(MIB))
    with pytest.raises(DiskError, match="not a qcow2 file"):
        overlay_map(tmp_path / "raw")
    with pytest.raises(DiskError, match="No such file"):
        allocated_bytes(tmp_path / "missing")
