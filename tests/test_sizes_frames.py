"""The exact report: frames, what breaks into them, and what is said when they are lost."""

import io
import json
import re
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from console_text import GIB, MIB, block, cksum, device, disk_frames, filesystem, frame
from examples import examples, few_pairs
from hypothesis import example, given
from hypothesis import strategies as st

from cloudlab.sizes import ConsoleParser, GuestFact, GuestLog, parse_console, posix_cksum, to_json

DATA = Path(__file__).parent / "data"
KERNEL = "[   12.345678] EXT4-fs (vda1): resizing filesystem from 512000 to 5214203 blocks\r\n"
HUMAN = """\
NAME    MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
vda     254:0    0   20G  0 disk
├─vda1  254:1    0    2G  0 part /
├─vda14 254:14   0    4M  0 part
└─vda15 254:15   0  106M  0 part /boot/efi
vdb     254:16   0  366K  0 disk
Filesystem      Size  Used Avail Use% Mounted on
/dev/vda1       1.9G  700M  1.2G  38% /
"""


def feed(text, nonce=None):
    parser = ConsoleParser(nonce)
    ended = [parser.feed(line, n) for n, line in enumerate(text.encode().split(b"\n"), 1)]
    return parser.result(), [block for block in ended if block]


@given(st.binary(max_size=300))
def test_the_checksum_is_the_standards(data):
    assert posix_cksum(data) == cksum(data)


@pytest.mark.parametrize(
    "data", [b"", b"a", b"before 0 {}", pytest.param(bytes(range(256)) * 300, id="long")]
)
def test_the_checksum_is_the_real_programs(data):
    printed = subprocess.run(["cksum"], input=data, check=True, capture_output=True)
    assert posix_cksum(data) == int(printed.stdout.split()[0])


def test_a_block_is_read_with_its_lines():
    frames = [
        *disk_frames(2000 * MIB, 1900 * MIB),
        {"kind": "log", "text": 'a "quoted" @line@ \u00e9'},
        {"kind": "fact", "name": "cloud_init", "value": "22.4.2"},
        {"kind": "something new", "x": [1]},
    ]
    parsed, (ended,) = feed("boot\r\n" + block("before", *frames))
    (found,) = parsed.blocks
    assert found == ended
    assert (found.stage, found.line, found.uptime_s) == ("before", 2, 23.5)
    assert (found.ended, found.complete, found.damaged, parsed.damaged) == (True, True, 0, 0)
    assert [(d.name, d.parent, d.start_bytes, d.line) for d in found.devices][:2] == [
        ("vda", "", 0, 3),
        ("vda1", "vda", 111 * MIB, 4),
    ]
    assert found.filesystems[0].fstype == "ext4"
    assert found.logs == (GuestLog('a "quoted" @line@ é', 10),)
    assert found.facts == (GuestFact("cloud_init", "22.4.2", 11),)


def test_exact_and_human_tables_are_two_reports_of_a_stage():
    exact = disk_frames(2000 * MIB, 1900 * MIB)
    before, outside = HUMAN, HUMAN
    parsed, _ = feed(block("before", *exact, human=before) + outside)
    human, framed, later = parsed.reports
    assert [report.stage for report in parsed.reports] == ["before", "before", None]
    assert [report.exact for report in parsed.reports] == [False, True, False]
    assert [row.name for row in human.lsblk] == [row.name for row in framed.lsblk]
    assert framed.lsblk[1].mountpoints == ("/",)
    assert framed.df[0].filesystem == "/dev/vda1"
    assert later.df[0].size_bytes == human.df[0].size_bytes


def test_samples_are_kept_apart_and_may_come_between():
    lines = block("after", *disk_frames(20000 * MIB, 1900 * MIB), human=HUMAN).splitlines()
    samples = [block("sample", device("vda", "disk", "", n * GIB), uptime_s=n) for n in (1, 2, 3)]
    sample_lines = samples[0].splitlines()
    mixed = [*lines[:4], *sample_lines[:1], *lines[4:12], *sample_lines[1:], *lines[12:]]
    parsed, ended = feed("\r\n".join([*mixed, *samples[1:]]))
    assert [sample.lsblk[0].size_bytes for sample in parsed.samples] == [GIB, 2 * GIB, 3 * GIB]
    assert [block.uptime_s for block in ended] == [1, 23.5, 2, 3]
    assert parsed.damaged == 0
    assert [(report.stage, len(report.lsblk)) for report in parsed.reports] == [
        ("after", 5),
        ("after", 5),
    ]
    assert parsed.block("after").complete


NONCE = "0123456789012345"


def with_nonce(text, nonce=NONCE):
    return re.sub(r"(@cloudlab .*\d)@", rf"\1 {nonce}@", text)


def test_where_the_nonce_is_known_only_frames_with_it_count():
    old = block("before", *disk_frames(GIB, GIB))
    other = with_nonce(block("after", *disk_frames(3 * GIB, GIB)), "9" * 16)
    own = with_nonce(block("after", *disk_frames(2 * GIB, GIB)))
    parser = ConsoleParser(NONCE)
    for number, line in enumerate((old + own + other).encode().split(b"\n"), 1):
        parser.feed(line, number)
    parsed = parser.result()
    (found,) = parsed.blocks
    assert (found.stage, found.devices[1].size_bytes) == ("after", 2 * GIB)
    assert (parsed.damaged, parser.foreign) == (0, len(re.findall("@cloudlab", old + other)))
    parsed = parse_console(old + own + other)  # as of a log of any run
    assert [one.stage for one in parsed.blocks] == ["before", "after", "after"]


@pytest.mark.parametrize(("messages", "nonce"), few_pairs([1, 3], [None, NONCE], 2))
def test_a_kernel_message_at_any_byte_of_a_block_changes_nothing(messages, nonce):
    text = block("after", *disk_frames(20000 * MIB, 1900 * MIB))
    text = with_nonce(text) if nonce else text
    (whole,), _ = feed(text)[0].blocks, None
    for at in range(len(text) + 1):
        parsed, _ = feed(text[:at] + KERNEL * messages + text[at:], nonce)
        (found,) = parsed.blocks
        assert found.complete, text[:at]
        assert (found.devices[0].size_bytes, len(found.devices)) == (20 * GIB, 5)
        assert [fs.size_bytes for fs in found.filesystems] == [
            fs.size_bytes for fs in whole.filesystems
        ]


REAL = (DATA / "console-debian-11.log").read_bytes()


@cache
def real_report():
    return parse_console(REAL)


@examples(300)
@given(st.lists(st.integers(0, len(REAL)), max_size=4))
def test_a_real_boots_report_survives_kernel_messages(places):
    log = REAL
    for at in sorted(places, reverse=True):
        log = log[:at] + KERNEL.encode() + log[at:]
    expected = real_report()
    found = parse_console(log)
    assert found.damaged == 0
    for stage in "before", "after":
        true, block_ = expected.block(stage), found.block(stage)
        assert block_.complete
        for name in "devices", "filesystems", "logs", "facts":
            values = [replace(value, line=0) for value in getattr(true, name)]
            assert [replace(value, line=0) for value in getattr(block_, name)] == values


KERNEL_TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=40
) | st.sampled_from(["[    1.000000] again", "{}", "@", "12@", "[  OK  ]"])


@examples(300)
@given(
    text=st.text(max_size=60) | st.just("[   10.000001] EXT4-fs (vda1): resized"),
    breaks=st.lists(st.tuples(st.integers(0, 400), st.lists(KERNEL_TEXT, max_size=2)), max_size=2),
)
@example(text="[   10.000001] [   11.000001] 1@ ", breaks=[(50, ["[    1.000000] 1@"])])
def test_frames_are_recovered_exactly_or_called_damaged(text, breaks):
    original = frame("after", 3, kind="log", text=text)
    broken = original
    for at, messages in sorted(breaks, reverse=True):
        kernel = "".join(f"[   12.345678] {message}\r\n" for message in messages)
        broken = broken[: min(at, len(original))] + kernel + broken[min(at, len(original)) :]
    parsed, _ = feed(broken + "\r\n")
    found = [log.text for block in parsed.blocks for log in block.logs]
    assert found == [json.loads(json.dumps(text))]


@given(data=st.data())
def test_a_changed_byte_is_never_believed(data):
    text = block("after", *disk_frames(20000 * MIB, 1900 * MIB)).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.integers(1, 255))
    changed = bytearray(text)
    changed[at] ^= byte
    parser = ConsoleParser()
    for number, line in enumerate(bytes(changed).split(b"\n"), 1):
        parser.feed(line, number)
    honest, _ = feed(text.decode())
    (true_block,) = honest.blocks
    for found in parser.result().blocks:
        sizes = {(d.name, d.size_bytes, d.start_bytes) for d in found.devices}
        assert sizes <= {(d.name, d.size_bytes, d.start_bytes) for d in true_block.devices}
        if found.complete:
            # Only a line end, or what stands before a mark, can change unseen.
            assert len(found.devices) == len(true_block.devices)


@pytest.mark.parametrize(
    ("lost", "ended", "damaged", "uptime_s"),
    [(0, True, 1, None), (3, True, 1, 23.5), (8, False, 1, 23.5)],
    ids=["begin", "middle", "end"],
)
@pytest.mark.parametrize("how", ["overwritten", "missing"])
def test_a_lost_frame_is_counted(lost, ended, damaged, uptime_s, how):
    lines = block("after", *disk_frames(20000 * MIB, 1900 * MIB)).splitlines()
    if how == "missing":
        if not ended:
            damaged = 0
        del lines[lost]
    else:
        lines[lost] = lines[lost].replace('"', "'", 1)
    parsed, _ = feed("\r\n".join(lines))
    last = parsed.block("after")
    assert (last.ended, last.uptime_s, last.complete) == (ended, uptime_s, False)
    assert parsed.damaged == damaged
    assert parsed.reports[0].exact


def test_a_block_that_never_ends_is_there_but_not_complete():
    first = block("before", *disk_frames(2000 * MIB, 1900 * MIB)).splitlines()[:-2]
    parsed, ended = feed("\r\n".join([*first, block("after", *disk_frames(GIB, GIB))]))
    assert [(b.stage, b.complete, b.ended) for b in parsed.blocks] == [
        ("before", False, False),
        ("after", True, True),
    ]
    assert [b.stage for b in ended] == ["after"]


def test_a_guest_that_begins_its_report_anew_has_two():
    whole = block("before", *disk_frames(2000 * MIB, 1900 * MIB))
    parsed, ended = feed("\r\n".join([*whole.splitlines()[:-2], whole]))
    assert [(b.complete, b.line) for b in parsed.blocks] == [(False, 1), (True, 8)]
    assert ended == [parsed.blocks[1]]


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "block", "name": "vda"},
        device("vda", "disk", "", -1),
        device("vda", "disk", "", 2**63),
        device("vda", "disk", "", 1.5),
        device("vda", "disk", "", True),
        device("vda", "disk", None, 1),
        filesystem("vda", [], 1, 1),
        {"kind": "log", "text": 5},
        {"kind": "fact", "name": "x"},
        {"kind": "begin", "uptime_s": 10**400},
        {"kind": "begin", "uptime_s": "soon"},
        {"kind": "begin", "uptime_s": 1, "unchanged_until_s": "never"},
        {"kind": "begin", "uptime_s": float("nan")},
        {"kind": "end", "frames": 7},
    ],
    ids=str,
)
def test_a_frame_with_wrong_values_counts_as_damaged(values):
    text = frame("sample", 0, kind="begin", uptime_s=1) + "\n" + frame("sample", 1, **values) + "\n"
    parsed, _ = feed(text)
    assert parsed.damaged == 1
    assert not parsed.blocks[0].devices


@pytest.mark.parametrize(
    "text",
    ["[" * 9000 + "]" * 9000, "[" * 90_000 + "]" * 90_000, "1" * 9000, '["end"]', "1"],
    # Which depth a parser refuses depends on the Python.
    ids=["deep", "deeper", "long", "list", "number"],
)
def test_a_kind_that_is_no_text_or_breaks_parsers_is_only_damaged(text):
    body = f'after 0 {{"kind":{text}}}'
    parsed, _ = feed(f"@cloudlab {body} {cksum(body.encode())}@\n")
    assert parsed.damaged == 1
    assert not parsed.blocks


@pytest.mark.parametrize(
    "front", ["debian login: ", "\x1b[0m", "[   17.1] cloud-init[1163]: ", "\ufeff", "user@[ 1.5] "]
)
def test_what_stands_before_a_frame_does_not_matter(front):
    text = block("before", *disk_frames(2000 * MIB, 1900 * MIB))
    parsed, _ = feed("".join(f"{front}{line}\r\n" for line in text.splitlines()))
    assert parsed.blocks[0].complete


def test_two_consoles_in_one_log_are_one_block():
    text = block("before", *disk_frames(2000 * MIB, 1900 * MIB))
    doubled = "".join(f"{line}\r\n" * 2 for line in text.splitlines())
    parsed, ended = feed(doubled)
    assert len(parsed.blocks) == len(ended) == 1
    assert parsed.blocks[0].complete


def test_an_address_before_a_kernel_message_is_no_frame():
    parsed, _ = feed("mail root@[   12.345678] hello\r\nworld\r\n")
    assert parsed.damaged == 0


def test_all_forms_of_input_say_the_same(tmp_path):
    text = "é\r\n" * 40000 + block("before", *disk_frames(GIB, GIB), human=HUMAN)
    data = text.encode()
    path = tmp_path / "console.log"
    path.write_bytes(data)
    expected = parse_console(data)
    assert expected.reports[0].lsblk[0].line == 40003
    with path.open("rb") as binary, path.open(encoding="utf-8", newline="") as characters:
        others = [binary, characters, text, bytearray(data), io.BytesIO(data), iter(data.split())]
        others[-1] = (data[at : at + 7] for at in range(0, len(data), 7))
        assert [parse_console(source) for source in others] == [expected] * len(others)


def test_json_names_blocks_and_samples_beside_the_reports():
    text = block("before", {"kind": "fact", "name": "a", "value": "b"}, human=HUMAN)
    text += block("sample", device("vda", "disk", "", GIB))
    answer = json.loads(json.dumps(to_json(parse_console(text))))
    assert [report["stage"] for report in answer["reports"]] == ["before"]
    assert answer["samples"][0]["lsblk"] == [
        {"name": "vda", "size_bytes": GIB, "type": "disk", "mountpoints": [], "line": 13}
    ]
    assert [(b["stage"], b["complete"], b["facts"]) for b in answer["blocks"]] == [
        ("before", True, {"a": "b"}),
        ("sample", True, {}),
    ]


@pytest.mark.parametrize("until_s", [None, 22.25], ids=["older guest", "told"])
def test_a_sample_says_until_when_nothing_had_changed(until_s):
    told = {} if until_s is None else {"unchanged_until_s": until_s}
    lines = [
        frame("sample", 0, kind="begin", uptime_s=23.5, **told),
        frame("sample", 1, kind="end", frames=2),
    ]
    parser = ConsoleParser()
    for number, line in enumerate(lines, 1):
        parser.feed(line.encode(), number)
    [found] = parser.result().blocks
    assert (found.uptime_s, found.unchanged_until_s, found.complete) == (23.5, until_s, True)
