"""Tables and superblocks that lie: a warning or our own error, and bounded work."""

import struct
import uuid
import zlib

import pytest
from disks import MIB, Bytes
from hypothesis import example, given
from hypothesis import strategies as st

from cloudlab import tools
from cloudlab.disk.filesystem import identify
from cloudlab.disk.layout import read_layout
from cloudlab.disk.reader import backing_chain, open_disk
from cloudlab.disk.table import read_table
from cloudlab.errors import CloudlabError
from cloudlab.formats import format_of, parse_qcow2_header

SECTORS = 8192
LINUX = uuid.UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4").bytes_le


def protective_mbr() -> bytes:
    entry = struct.pack("<B3xB3xII", 0, 0xEE, 1, SECTORS - 1)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def gpt(places: list[tuple[int, int]], **changed: int) -> bytes:
    """A disk with a GPT whose checksums are right, whatever it claims."""
    entries = b"".join(
        LINUX + uuid.uuid4().bytes_le + struct.pack("<QQQ72x", first, last, 0)
        for first, last in places
    ).ljust(128 * 128, b"\0")
    field = {"own": 1, "other": SECTORS - 1, "first": 34, "last": SECTORS - 34, "at": 2}
    field |= {"count": 128, "size": 128, "length": 92} | changed

    def header(own: int, other: int, at: int) -> bytes:
        crc = zlib.crc32(entries[: field["count"] * field["size"]])
        body = struct.pack(
            "<QQQQ16sQIII", own, other, field["first"], field["last"], LINUX, at,
            field["count"], field["size"], crc,
        )  # fmt: skip
        start = b"EFI PART\0\0\1\0" + struct.pack("<I", field["length"])
        crc = zlib.crc32((start + bytes(8) + body).ljust(field["length"], b"\0")[: field["length"]])
        return start + struct.pack("<I4x", crc) + body

    disk = bytearray(SECTORS * 512)
    disk[:512] = protective_mbr()
    first = header(field["own"], field["other"], field["at"])
    disk[512 : 512 + len(first)] = first
    disk[1024 : 1024 + len(entries)] = entries
    disk[-512 - len(entries) : -512] = entries
    second = header(SECTORS - 1, 1, SECTORS - 33)
    disk[-512 : len(disk) - 512 + len(second)] = second
    return bytes(disk)


TOP = 2**64 - 1
LIES = {
    "nothing-wrong": ([(2048, 4095), (4096, 6000)], [1, 2], []),
    "overlap": ([(2048, 5000), (4096, 6000)], [1, 2], ["Partitions 1 and 2 overlap"]),
    "one-inside-another": ([(2048, 6000), (3000, 4000)], [1, 2], ["1 and 2 overlap"]),
    "beyond-the-end": ([(2048, 9000)], [1], ["Partition 1 extends 414,208 bytes beyond"]),
    "wholly-beyond": ([(2**40, 2**41)], [1], ["Partition 1 extends"]),
    "last-before-first": ([(4096, 2048), (5000, 6000)], [2], ["Partition 1 was ignored"]),
    "zero": ([(2048, 2047)], [], ["has a size of 0 bytes"]),
    "all-ones": ([(TOP, TOP)], [], ["Partition 1 was ignored"]),
    "2^64-1-long": ([(0, TOP)], [], ["Partition 1 was ignored"]),
    "on-the-table": ([(1, 4000)], [1], ["Partition 1 overlaps the partition table"]),
}


@pytest.mark.parametrize(("places", "kept", "warnings"), LIES.values(), ids=LIES)
def test_lying_entries_are_told(places, kept, warnings):
    table, partitions, found = read_layout(Bytes(gpt(places)))
    assert table.kind == "gpt"
    assert [each.number for each in partitions] == kept
    assert len(found) == len(warnings)
    for part, warning in zip(warnings, found, strict=True):
        assert part in warning


HEADER_LIES = {
    "huge-table": {"count": 2**32 - 1},
    "huge-entries": {"size": 2**31},
    "tiny-entries": {"size": 8},
    "own-place-elsewhere": {"own": 5},
    "table-beyond-the-end": {"at": 2**63},
    "short-header": {"length": 20},
}


@pytest.mark.parametrize("changed", HEADER_LIES.values(), ids=HEADER_LIES)
def test_a_lying_first_header_gives_way_to_the_second(changed):
    reader = Bytes(gpt([(2048, 4095)], **changed))
    table, partitions, warnings = read_layout(reader)
    if {"count", "size", "length"} & changed.keys():
        # Both halves say so: what is left is the MBR.
        assert table.kind == "dos"
        assert "neither GPT header is valid" in warnings[0]
    else:
        assert [each.number for each in partitions] == [1]
        assert "primary GPT header is damaged" in warnings[0]
    assert reader.bytes_read < 4 * MIB


def test_two_halves_that_differ_are_told():
    disk = bytearray(gpt([(2048, 4095)]))
    other = gpt([(2048, 5000)])
    disk[-33 * 512 :] = other[-33 * 512 :]
    _, _, warnings = read_layout(Bytes(bytes(disk)))
    assert warnings == ["The primary and the backup GPT differ; the primary one was used."]


def test_a_damaged_list_of_partitions_gives_way_to_the_second():
    disk = bytearray(gpt([(2048, 4095)]))
    disk[1024 + 40] ^= 0xFF  # the partition's last sector
    _, (partition,), warnings = read_layout(Bytes(bytes(disk)))
    assert partition.size_bytes == 2048 * 512
    assert warnings == ["The primary GPT header is damaged; the backup was used."]


def ebr(*slots: tuple[int, int, int]) -> bytes:
    entries = b"".join(struct.pack("<B3xB3xII", 0, *slot) for slot in slots)
    return bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa"


def mbr_disk(sectors: dict[int, bytes]) -> bytes:
    disk = bytearray(SECTORS * 512)
    for at, sector in sectors.items():
        disk[at * 512 : at * 512 + 512] = sector
    return bytes(disk)


EXTENDED = ebr((0x05, 64, 4096))
CHAINS = {
    "to-itself": ({64: ebr((0x83, 1, 10), (0x05, 0, 10))}, [1, 5], "circular"),
    "back-and-forth": (
        {64: ebr((0x83, 1, 10), (0x05, 100, 9)), 164: ebr((0x83, 1, 10), (0x05, 0, 9))},
        [1, 5, 6],
        "circular",
    ),
    "without-signature": ({64: bytes(512)}, [1], "broken at byte 32,768"),
    "beyond-the-end": (
        {64: ebr((0x83, 1, 10), (0x05, 2**31, 9))},
        [1, 5],
        "broken at byte 1,099,511,660,544",
    ),
}


@pytest.mark.parametrize(("links", "numbers", "message"), CHAINS.values(), ids=CHAINS)
def test_broken_chains_of_logical_partitions_end(links, numbers, message):
    reader = Bytes(mbr_disk({0: EXTENDED, **links}))
    _, partitions, warnings = read_layout(reader)
    assert [each.number for each in partitions] == numbers
    assert any(message in warning for warning in warnings)
    assert reader.reads < 20


GARBAGE = (0x99, 2**31 - 1, 2**31 - 1)
RECORDS = {
    "beyond-all": ebr((0x83, 1, 10), (0x05, 200, 100), GARBAGE, (0x99, 1, 2**31)),
    "beyond-the-extended-one": ebr((0x83, 1, 10), (0x05, 200, 100), (0x99, 5000, 10)),
    "within": ebr((0x83, 1, 10), (0x05, 200, 100), (0x99, 300, 10), (0x99, 400, 0)),
    # Of garbage in the first two entries, versions of partx think differently.
    "link-last": ebr((0, 0, 0), (0x83, 1, 10), GARBAGE, (0x05, 200, 100)),
    "links": ebr((0x05, 200, 100), (0x83, 1, 10), (0x05, 2**31, 1)),
    "without-a-type": ebr((0, 1, 10), (0x05, 200, 100)),
}


@pytest.mark.parametrize("second", [(0x83, 95, 9), (0x83, 95, 5)], ids=["longer", "shorter"])
@pytest.mark.parametrize("first", RECORDS.values(), ids=RECORDS)
def test_logical_partitions_are_counted_as_linux_counts_them(tmp_path, first, second):
    # The second record has a place of 100 sectors, which its last entry keeps or leaves.
    records = {64: first, 264: ebr((0x83, 1, 10), (0, 0, 0), second)}
    disk = tmp_path / "disk"
    disk.write_bytes(mbr_disk({0: EXTENDED, **records}))
    done = tools.run(["partx", "-g", "-b", "-o", "NR,START,SIZE", "--show", disk])
    theirs = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    with open_disk(backing_chain(disk, "raw")) as reader:
        table = read_table(reader)
    ours = [[one.number, one.start_bytes // 512, one.size_bytes] for one in table.partitions]
    assert sorted(ours) == sorted(theirs)


def test_an_endless_chain_of_logical_partitions_is_cut():
    # Every sector of the disk is a record that names the next sector.
    link = {at: ebr((0x83, 1, 1), (0x05, at - 63, 1)) for at in range(64, 5000)}
    reader = Bytes(mbr_disk({0: EXTENDED, **link}))
    _, partitions, warnings = read_layout(reader)
    assert len(partitions) == 257
    assert any("too many links" in warning for warning in warnings)
    assert reader.reads < 1000


def test_a_second_extended_partition_is_told():
    disk = mbr_disk({0: ebr((0x05, 64, 100), (0x0F, 200, 100)), 64: ebr((0x83, 1, 10))})
    _, partitions, warnings = read_layout(Bytes(disk))
    assert [each.number for each in partitions] == [1, 5, 2]
    assert warnings == ["Partition 2 is a second extended partition; its contents were ignored."]


def test_a_filesystem_larger_than_its_partition_is_told(tmp_path):
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(8 * MIB)
    tools.run(["mke2fs", "-q", image])
    _, (whole,), warnings = read_layout(Bytes(image.read_bytes()[: 2 * MIB]))
    assert whole.filesystem.size_bytes == 8 * MIB
    assert warnings == ["The disk has a filesystem of 8,388,608 bytes, 6,291,456 more than fit."]


def test_a_mount_in_the_year_36000_is_no_mount(tmp_path):
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(8 * MIB)
    tools.run(["mke2fs", "-q", image])
    head = bytearray(image.read_bytes())
    head[1024 + 0x275] = 0xFF  # the upper byte of the time of the last mount
    _, (whole,), _ = read_layout(Bytes(bytes(head)))
    assert whole.filesystem.last_mounted_at is None


def test_a_filesystem_of_an_impossible_size_has_none():
    head = bytearray(MIB)
    head[65536 + 0x40 : 65536 + 0x48] = b"_BHRfS_M"
    head[65536 + 0x70 : 65536 + 0x78] = b"\xff" * 8
    _, (whole,), warnings = read_layout(Bytes(bytes(head)))
    assert (whole.filesystem.type, whole.filesystem.size_bytes) == ("btrfs", None)
    assert "impossible size" in warnings[0]


# Anything at all

u64 = st.integers(0, TOP)
MAGICS = {
    "mbr": (510, b"\x55\xaa"),
    "gpt": (512, b"EFI PART"),
    "ext": (1080, b"\x53\xef"),
    "xfs": (0, b"XFSB"),
    "btrfs": (65536 + 0x40, b"_BHRfS_M"),
    "fat": (0, b"\xeb\x3c\x90mkfs.fat\0\2\4\1\0\2\0\2\0\0\xf8"),
    "swap": (4086, b"SWAPSPACE2"),
    "luks": (0, b"LUKS\xba\xbe\0\2"),
    "lvm": (512, b"LABELONE" + bytes(16) + b"LVM2 001"),
    "iso": (32768, b"\x01CD001"),
}


@given(
    seed=st.randoms(use_true_random=False),
    magics=st.sets(st.sampled_from(sorted(MAGICS)), max_size=4),
    length=st.sampled_from([0, 100, 511, 512, 1500, 4096, 65000, 70000, 150_000]),
    patches=st.lists(st.tuples(st.integers(0, 70_000), st.binary(min_size=1, max_size=16))),
    noise=st.booleans(),
)
def test_any_bytes_are_understood_or_not_but_never_crash(seed, magics, length, patches, noise):
    data = bytearray(seed.randbytes(length) if noise else length)
    for at, raw in [MAGICS[name] for name in sorted(magics)] + patches:
        if at < length:
            data[at : at + len(raw)] = raw
    del data[length:]
    reader = Bytes(bytes(data), length)
    _, partitions, warnings = read_layout(reader)
    # Sentences, without anything that the disk says of itself.
    assert [text for text in warnings if not text.isprintable() or text[-1] != "."] == []
    assert all(0 < each.size_bytes < 2**63 for each in partitions) or length == 0
    identify(reader, 0, length)
    assert reader.reads < 2000


@given(places=st.lists(st.tuples(u64, u64), max_size=12), first=u64, last=u64, other=u64)
@example(places=[(TOP, 0)], first=TOP, last=0, other=TOP)
def test_any_gpt_is_read_in_bounded_work(places, first, last, other):
    reader = Bytes(gpt(places, first=first, last=last, other=other))
    table, partitions, _ = read_layout(reader)
    assert table.kind == "gpt"
    assert {each.number for each in partitions} <= set(range(1, len(places) + 1))
    assert list(partitions) == sorted(partitions, key=lambda each: each.start_bytes)
    assert reader.reads < 100


@given(
    slots=st.lists(
        st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
        max_size=4,
    ),
    links=st.dictionaries(
        st.integers(0, 40),
        st.lists(
            st.tuples(st.sampled_from([0x83, 0x05]), st.integers(0, 40), st.integers(0, 9)),
            max_size=4,
        ),
        max_size=20,
    ),
)
def test_any_mbr_is_read_in_bounded_work(slots, links):
    disk = mbr_disk({at: ebr(*each) for at, each in links.items()} | {0: ebr(*slots)})
    reader = Bytes(disk)
    table, _, _ = read_layout(reader)
    assert table is not None
    assert reader.reads < 2000


@given(
    st.binary(max_size=600),
    st.integers(0, 4),
    st.integers(0, 30),
    st.integers(0, 2**33),
)
def test_any_qcow2_header_is_read_or_refused(tail, version, bits, backing_at):
    head = b"QFI\xfb" + struct.pack(">IQII", version, backing_at, len(tail), bits) + tail
    assert format_of(head) == ("qcow" if version == 1 else "qcow2")
    try:
        parse_qcow2_header(head)
    except CloudlabError:
        return
    assert version in {2, 3}
    assert 9 <= bits <= 21
