"""Any input at all: only our errors, and work that grows no faster than the log."""

import sys

import pytest
from console_text import GIB, MIB, block, disk_frames
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from cloudlab.errors import ParseError
from cloudlab.sizes import (
    ConsoleParser,
    check_sizes,
    console_sizes,
    parse_console,
    parse_size,
    to_json,
)
from cloudlab.sizes.parser import whole_lines

HEADERS = [
    b"NAME   MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS\r\n",
    b"NAME FSTYPE SIZE UUID MOUNTPOINT\n",
    b"Filesystem 1K-blocks Used Available Use% Mounted on\n",
    b"Filesystem Type Size Used Avail Use% Mounted on\n",
    b"> PATH   SIZE LABEL MODEL NEW MAJ:MIN\n",
    b"Mounted on  Size Filesystem\n",
    "Dateisystem Größe Benutzt Verf. Verw% Eingehängt auf\n".encode(),
]
JSON = b'{"blockdevices": [\n{"name": "vda", "size": "20G", "children": [\n{"size": 5, "path": "/"}\n]}]}\n'
FRAGMENTS = [
    *HEADERS,
    *block("before", *disk_frames(GIB, GIB)).encode().splitlines(keepends=True),
    *block("after", *disk_frames(GIB, GIB)).encode().splitlines(keepends=True),
    "├─vda1  252:1    0 19.9G  0 part /\r\n".encode(),
    b"`-sda2 8:2 0 5 0 part [SWAP]\n",
    b"/dev/vda1 20G 1.1G 19G 6% /\n",
    b"/dev/vda1 - - -5 - /\\040\\xff\n",
    b"/dev/mapper/a-very-very-long-name\n",
    b"  20G 1.1G 19G 6% /\n",
    *JSON.splitlines(keepends=True),
    b'NAME="vda" SIZE="20G" MOUNTPOINTS="/\\x0a/x"\n',
    b"[   12.345678] x: > /dev/vda 20G root disk 8:1\n",
    b"$ df -H\n",
    b"root@vm:~# ls\n",
    b"...\n",
    b"20134592K",
    b"2,134 ",
    b"4k ",
    b"> ",
    b"          /srv\n",
    b"[   12.345678] random: crng init done\r\n",
    b"@cloudlab ",
    b"@cloud[   12.345678] text\r\n",
    b"@",
    b"12@",
    b"{",
    b"\x1b[1m",
    b"\x1b]0;title",
    b"\r",
    b"\n",
    b" ",
    b"9" * 30,
    b"99999999999999999999E",
]


@examples(400)
@given(st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=30), max_size=40).map(b"".join))
def test_any_bytes_give_reports_or_our_error(data):
    try:
        parsed = parse_console(data)
    except ParseError:
        return
    assert parsed.reports or parsed.samples
    # JSON alone may have several devices on a line.
    assert len(console_sizes(parsed)) <= data.count(b"\n") + 1 + data.count(b"{")
    assert all(one.text and one.line <= data.count(b"\n") + 1 for one in parsed.unread)
    to_json(parsed)
    check_sizes(parsed)


@given(st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=30), max_size=20), st.data())
def test_where_a_log_is_cut_into_pieces_does_not_matter(fragments, data):
    log = b"".join(fragments)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=5)))
    pieces = [log[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]

    def outcome(source):
        try:
            return to_json(parse_console(source))
        except ParseError as error:
            return str(error)

    assert outcome(pieces) == outcome(log)


@given(st.text(max_size=50))
def test_any_text_is_a_size_or_refused(text):
    try:
        size_bytes = parse_size(text)
    except ParseError:
        return
    assert 0 <= size_bytes < 2**63


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,11}", fullmatch=True)
POINTS = st.from_regex(r"/[a-z0-9/._-]{0,20}([a-z0-9] [a-z]{1,4})?", fullmatch=True)
SIZES = st.integers(0, 2**50)


@given(
    table=st.lists(st.tuples(NAMES, SIZES, SIZES, POINTS), min_size=1, max_size=8),
    noise=st.sampled_from(["", "[   12.5] random: crng init done\r\n", "\r\n"]),
    prefix=st.sampled_from(["", "[   17.1] cloud-init[1163]: "]),
)
def test_rendered_rows_are_read_back(table, noise, prefix):
    lines = ["NAME MAJ:MIN RM SIZE RO TYPE MOUNTPOINT"]
    lines += [f"├─{name} 8:1  0 {size} 0 part {point}" for name, size, _, point in table]
    lines += ["Filesystem  1B-blocks  Used  Available Use% Mounted on"]
    lines += [f"{name} {size}  {used}  {used} 5% {point}" for name, size, used, point in table]
    (report,) = parse_console("".join(f"{noise}{prefix}{line}\r\n" for line in lines)).reports
    assert report.exact
    assert [(row.name, row.size_bytes, row.mountpoints) for row in report.lsblk] == [
        (name, size, (point,)) for name, size, _, point in table
    ]
    assert [
        (row.filesystem, row.size_bytes, row.used_bytes, row.mountpoint) for row in report.df
    ] == list(table)


@st.composite
def aligned_tables(draw):
    """An lsblk with chosen columns, its cells below their names as libsmartcols puts them."""
    optional = draw(st.lists(st.sampled_from(sorted(OTHERS)), unique=True, max_size=5))
    names = draw(st.permutations(["NAME", "SIZE", *optional]))
    devices = draw(st.lists(st.tuples(NAMES, SIZES.filter(bool)), min_size=1, max_size=5))
    rows = []
    for name, size in devices:
        cells = {one: draw(st.sampled_from(["", *OTHERS[one]])) for one in optional}
        rows.append(cells | {"NAME": f"/dev/{name}", "SIZE": f"{size}"})
    widths = {one: max(len(one), *(len(row[one]) for row in rows)) for one in names}
    lines = [
        " ".join(
            row[one].rjust(widths[one]) if one in RIGHT else row[one].ljust(widths[one])
            for one in names
        )
        for row in [{one: one for one in names}, *rows]
    ]
    return "\n".join(lines), devices


OTHERS = {
    "FSTYPE": ["ext4", "LVM2_member"],
    "LABEL": ["root", "My 20G Disk", "12", "/x"],
    "MODEL": ["QEMU HARDDISK", "5 x 7"],
    "START": ["2048", "34"],
    "FSAVAIL": ["18.5G", "77"],
    "FSUSE%": ["5%"],
    "UUID": ["6A1C-9F20"],
    "SERIAL": ["1", "20G"],
}
RIGHT = {"SIZE", "START", "FSAVAIL", "FSUSE%"}


@examples(300)
@given(aligned_tables(), st.sampled_from(["", "> ", "[2026-08-21T17:15:34Z] "]))
def test_cells_are_found_below_their_columns_names(table, prefix):
    text, devices = table
    parsed = parse_console("".join(f"{prefix}{line}\n" for line in text.splitlines()))
    (report,) = parsed.reports
    assert [(row.name, row.size_bytes) for row in report.lsblk] == devices
    assert (report.exact, parsed.unread) == (True, ())


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (b"", "is empty"),
        (b"\0\0 \r\n", "is empty"),
        (bytes(range(256)) * 50, "is not text"),
        (b"\x1f\x8b\x08" + bytes(range(128, 256)) * 9, "is not text"),
        (b"Linux version 6.1\n" * 50, "holds no sizes"),
        (b"@cloudlab after 0 {} 1@\n", "1 damaged frames"),
    ],
    ids=["nothing", "blank", "binary", "compressed", "no table", "damaged"],
)
def test_a_log_without_sizes_says_what_was_looked_for(log, message):
    with pytest.raises(ParseError, match=message) as caught:
        parse_console(log)
    assert "Mounted on" in caught.value.message
    assert caught.value.hint


def test_a_line_without_end_is_survived():
    def flood():
        yield b"vda is busy "
        for _ in range(100):
            yield b"x" * MIB
        yield b"\nNAME SIZE TYPE\nvda 1G disk\n"

    (report,) = parse_console(flood()).reports
    assert report.lsblk[0].line == 3
    assert max(len(piece) for piece in whole_lines(flood())) < 2 * MIB


def test_headers_without_rows_are_not_kept():
    parser = ConsoleParser()
    for number in range(1, 1000):
        parser.feed(HEADERS[number % len(HEADERS)], number)
    assert len(parser._reports) <= 1
    assert not parser.result().reports


def steps(log):
    """How many lines of our code run for a log: a clock that no other process disturbs."""
    count = 0

    def trace(frame, event, _arg):
        nonlocal count
        if "cloudlab" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse_console(log)
    except ParseError:
        pass
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(b"@cloudlab before 0 {[ 1.2] \n" + b"1@[ 1.2]1@[ 1.2]\n" * 9, id="pending"),
        pytest.param(b"@[ 1.2] @[ 1.2] @[ 1.2]\n", id="half marks"),
        pytest.param(HEADERS[0] + b"vda[ 1.2] x\n" * 9, id="cut rows"),
        pytest.param(HEADERS[2] + b"/dev/mapper/a-very-long-name\n" * 9, id="wrapped"),
        pytest.param(b"".join(HEADERS), id="headers"),
        pytest.param(HEADERS[0] + b"vda 8:1 0 1G 0 disk\n" + b"     /x\n" * 9, id="mount points"),
        pytest.param(block("sample", *disk_frames(GIB, GIB)).encode(), id="samples"),
        pytest.param(b"@cloudlab \r" * 9 + b"\n", id="carriage returns"),
        pytest.param(JSON, id="json"),
        pytest.param(JSON[:60] + b'"a": [1,\n' * 9, id="json without end"),
        pytest.param(b'NAME="a" SIZE="1"\nNAME="b" SIZE="2"\n' * 5, id="pairs"),
        pytest.param(HEADERS[-1] + b"/dev/vda1 1,9G 1,1G 0,7G 60% /\n" * 9, id="german"),
        pytest.param(b"/dev/vda1 1,9G 1,1G 0,7G 60% /\n$ x\n" * 9, id="no header"),
        pytest.param(HEADERS[2] + b"/dev/vda1 1 1 6%\n/\n" * 9, id="wrapped behind"),
        pytest.param(HEADERS[2] + b"/dev/vda1 1 x 1 6% /\n" * 9, id="unread"),
        pytest.param(HEADERS[3] + b"a b 1G 1k 1G 6% /\n" * 9, id="powers of 1000"),
        pytest.param(b"x" * 30 + HEADERS[0] + b"vda 8:1 0 1G 0 disk\n", id="odd prefixes"),
    ],
)
def test_work_grows_no_faster_than_the_log(unit):
    small, large = steps(unit * 20), steps(unit * 80)
    assert small > 20
    assert large < 5 * small
