"""The console: lines, boot stages of real systems, proofs of failure, what people may be shown."""

import codecs
import contextlib
import gc
import json
import resource
import time
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudlab.console import (
    CAST_STEP_S,
    LONGEST_LINE_BYTES,
    ORDER,
    TAIL_LINES,
    BootWatcher,
    CastWriter,
    Console,
    ConsoleLine,
    LineSplitter,
    Stage,
    Transcript,
    play,
    printable,
    read_cast,
)
from cloudlab.errors import RecordingError, UsageError

DATA = Path(__file__).parent / "data"


def watch(log: bytes) -> tuple[BootWatcher, dict[str, str]]:
    """Return a watcher that saw ``log``, and the line that began each stage."""
    watcher, began = BootWatcher(), {}
    for line in LineSplitter().feed(log, 1.0):
        if stage := watcher.feed(line):
            began[stage.name] = line.text
    return watcher, began


# Transcripts of boots of the lab images; in brackets what the line must hold.
REAL = {
    "console-debian-11.log": {
        "KERNEL": "Linux version 5.10",
        "INITRAMFS": "Run /init",
        "INIT_SYSTEM": "Welcome to Debian GNU/Linux 11",
        "CLOUD_INIT_LOCAL": "Starting Initial cloud-init job (pre-networking)",
        "CLOUD_INIT_INIT": "(metadata service crawler)",
        "CLOUD_INIT_CONFIG": "Starting Apply the settings",
        "CLOUD_INIT_FINAL": "running 'modules:final'",
        "REPORT": "@cloudlab after 0",
    },
    "boot-debian-12.log": {
        "KERNEL": "Linux version 6.1",
        "INITRAMFS": "Run /init",
        "INIT_SYSTEM": "Welcome to Debian GNU/Linux 12",
        "CLOUD_INIT_LOCAL": "Starting cloud-init-local.",
        "CLOUD_INIT_INIT": "(metadata service crawler)",
        "CLOUD_INIT_CONFIG": "Starting cloud-config.serv",
        "CLOUD_INIT_FINAL": "running 'modules:final'",
        "REPORT": "@cloudlab after 0",
    },
    "boot-debian-13.log": {
        "KERNEL": "Linux version 6.12",
        "INITRAMFS": "Run /init",
        "INIT_SYSTEM": "Welcome to Debian GNU/Linux 13",
        "CLOUD_INIT_LOCAL": "Starting cloud-init-main.service",
        "CLOUD_INIT_INIT": "Starting cloud-init-network.service",
        "CLOUD_INIT_CONFIG": "Starting cloud-config.service",
        "CLOUD_INIT_FINAL": "Starting cloud-final.service",
        "REPORT": "@cloudlab after 0",
    },
}


@pytest.mark.parametrize(("name", "expected"), REAL.items(), ids=REAL)
def test_the_stages_of_real_boots(name, expected):
    watcher, began = watch((DATA / name).read_bytes())
    assert list(began) == list(expected)
    assert not [stage for stage, words in expected.items() if words not in began[stage]]
    assert watcher.failure is None
    assert list(watcher.stages) == list(ORDER)


#: Lines as these systems print them, put together from their documentation and issue trackers.
OTHERS = {
    "ubuntu": [
        (None, "\x1b[0;30;47mWelcome to GRUB!"),
        ("KERNEL", "EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path"),
        ("INITRAMFS", "[    1.337] Run /init as init process"),
        (None, "[    3.001] systemd[1]: systemd 255.4-1ubuntu8 running in system mode (+PAM)"),
        ("INIT_SYSTEM", "Welcome to \x1b[1mUbuntu 24.04 LTS\x1b[0m!"),
        ("CLOUD_INIT_LOCAL", "         Starting \x1b[0;1;39mcloud-init-local.service\x1b[0m - ..."),
        ("CLOUD_INIT_INIT", "[    9.5] cloud-init[601]: Cloud-init v. 24.1 running 'init' at Thu"),
        ("CLOUD_INIT_CONFIG", "         Starting \x1b[0;1;39mcloud-config.service\x1b[0m - ..."),
        ("CLOUD_INIT_FINAL", "         Starting \x1b[0;1;39mcloud-final.service\x1b[0m - ..."),
    ],
    "fedora": [
        ("KERNEL", "[    0.000000] Linux version 6.8.5-301.fc40.x86_64 (mockbuild@x) #1 SMP"),
        ("INITRAMFS", "[    1.3] Run /init as init process"),
        (None, "[    1.4] systemd[1]: systemd 255.4-1.fc40 running in system mode (+PAM)"),
        (None, "[    1.4] systemd[1]: Running in initrd."),
        (None, "Welcome to \x1b[0;34mFedora Linux 40 (Cloud Edition)\x1b[0m dracut-060 (Initramfs)!"),
        ("INIT_SYSTEM", "Welcome to \x1b[0;34mFedora Linux 40 (Cloud Edition)\x1b[0m!"),
        ("CLOUD_INIT_LOCAL", "         Starting \x1b[0;1;39mcloud-init-local.service\x1b[0m - Ini"),
    ],
    "alpine": [
        ("KERNEL", "[    0.000000] Linux version 6.6.31-0-virt (buildozer@build) #1 SMP"),
        ("INITRAMFS", "[    0.9] Run /init as init process"),
        ("INIT_SYSTEM", "   OpenRC 0.54 is starting up Linux 6.6.31-0-virt (x86_64)"),
        ("CLOUD_INIT_LOCAL", "Cloud-init v. 24.1.4 running 'init-local' at Wed, 22 May 2024"),
        ("CLOUD_INIT_INIT", "Cloud-init v. 24.1.4 running 'init' at Wed, 22 May 2024"),
        ("CLOUD_INIT_CONFIG", "Cloud-init v. 24.1.4 running 'modules:config' at Wed, 22 May"),
        ("CLOUD_INIT_FINAL", "Cloud-init v. 24.1.4 running 'modules:final' at Wed, 22 May"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("lines", OTHERS.values(), ids=OTHERS)
def test_the_stages_of_other_systems(lines):
    watcher = BootWatcher()
    for number, (expected, text) in enumerate(lines, start=1):
        stage = watcher.feed(ConsoleLine(number, float(number), text.encode() + b"\r"))
        assert (stage.name if stage else None) == expected, text


def test_a_login_prompt_is_seen_with_and_without_a_line_end():
    for prompt in (b"\r\x1b[?2004hcloudlab login: ", b"cloudlab login: [  200.84] clocksource\n"):
        watcher, splitter = BootWatcher(), LineSplitter()
        for line in splitter.feed(b"Debian GNU/Linux 12\n" + prompt, 7.0):
            watcher.feed(line)
        watcher.feed_unfinished(splitter.unfinished(7.0))
        assert watcher.up_s == 7.0
        assert not watcher.cloud_init_seen


def test_the_tail_is_short_and_ends_with_the_prompt():
    watcher, splitter = BootWatcher(), LineSplitter()
    for line in splitter.feed(b"".join(b"line %d\n\n" % n for n in range(50)) + b"grub> ", 1.0):
        watcher.feed(line)
    watcher.feed_unfinished(splitter.unfinished(1.0))
    assert len(watcher.tail) == TAIL_LINES
    assert watcher.tail[-2:] == ("line 49", "grub>")
    assert watcher.failure is not None
    assert watcher.failure.line == 101


def test_stages_never_go_back():
    watcher, began = watch(b"running 'modules:final'\n[    0.000000] Linux version 6.1\n")
    assert list(began) == ["CLOUD_INIT_FINAL"]
    assert watcher.stage is Stage.CLOUD_INIT_FINAL


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_lines_do_not_depend_on_how_the_stream_was_cut(data, cuts):
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    splitter, lines = LineSplitter(), []
    for start, end in pairwise(edges):
        lines += splitter.feed(data[start:end], 0.0)
    *whole, rest = data.split(b"\n")
    assert [line.raw for line in lines] == [line.rstrip(b"\r") for line in whole]
    assert [line.number for line in lines] == list(range(1, len(whole) + 1))
    assert splitter.unfinished(0.0).raw == rest


def test_a_line_without_end_does_not_fill_the_memory():
    splitter = LineSplitter()
    for _ in range(1000):
        assert splitter.feed(b"x" * 65536, 0.0) == []
    assert len(splitter.unfinished(0.0).raw) == LONGEST_LINE_BYTES
    [line] = splitter.feed(b"\n", 0.0)
    assert len(line.raw) == LONGEST_LINE_BYTES


@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.text(alphabet="\x1b\x9b[]();?0123mPX^_\\\x07\x08\r\n\tab\u202e\u2066"),
    )
)
def test_printable_text_acts_on_no_terminal(raw):
    shown = printable(raw)
    assert printable(shown) == shown
    for character in shown:
        assert unicodedata.category(character) != "Cc" or character == "\n"
        assert unicodedata.bidirectional(character) not in {
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[0;32m  OK  \x1b[0m] Started\r", "  OK  ] Started"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"a\tb", "a    b"),
        ("Gr\u00fc\u00dfe \u6587".encode(), "Gr\u00fc\u00dfe \u6587"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"\x1bPq payload \x1b\\x", "x"),
        (b"\x1b\x1b[31m[31m", "[31m"),
    ],
    ids=["colour", "title", "link", "tab", "letters", "no UTF-8", "device string", "nested"],
)
def test_printable_text(raw, shown):
    assert printable(raw) == shown


@given(st.lists(st.binary(max_size=40)), st.integers(0, 200))
def test_a_transcript_keeps_the_first_bytes_and_counts_the_rest(tmp_path_factory, chunks, cap):
    path = tmp_path_factory.mktemp("transcript") / "console.log"
    with Transcript(path, cap_bytes=cap) as transcript:
        for chunk in chunks:
            transcript.write(chunk)
    transcript.close()
    whole = b"".join(chunks)
    dropped = max(0, len(whole) - cap)
    assert transcript.dropped_bytes == dropped
    note = f"\n[cloudlab: {dropped:,} further bytes were not kept]\n".encode() if dropped else b""
    assert path.read_bytes() == whole[:cap] + note


def test_a_transcript_is_on_the_disk_at_once(tmp_path):
    with Transcript(tmp_path / "console.log", cap_bytes=100) as transcript:
        transcript.write(b"a line")
        assert (tmp_path / "console.log").read_bytes() == b"a line"


def test_a_full_disk_is_told_when_writing_and_not_again_when_closing():
    with (
        pytest.raises(OSError, match="No space left"),
        Transcript(Path("/dev/full"), cap_bytes=100) as transcript,
    ):
        transcript.write(b"a line")


LINES = Console(
    ConsoleLine(number, number / 10, raw)
    for number, raw in enumerate(
        [b"boot", b"", b"@cloudlab before 0 {} 2@", b"\x1b[31mvda1\x1b[0m 2G", b"vda1 20G <b>"], start=1
    )
)  # fmt: skip

FOUND = {
    "everything but empty lines and the report": ({}, [1, 4, 5]),
    "the report as well": ({"report": True}, [1, 3, 4, 5]),
    "a pattern": ({"pattern": "vda1"}, [4, 5]),
    "a pattern that an escape sequence would hide": ({"pattern": "^vda1 2G$"}, [4]),
    "from a line on": ({"first": 4}, [4, 5]),
    "up to a line": ({"last": 4}, [1, 4]),
    "nothing": ({"pattern": "xfs"}, []),
}


@pytest.mark.parametrize(("asked", "numbers"), FOUND.values(), ids=FOUND)
def test_console_find(asked, numbers):
    assert [line.number for line in LINES.find(**asked)] == numbers


def test_a_found_line_keeps_its_number_and_time():
    [line] = LINES.find("20G")
    assert (line.number, line.time_s) == (5, 0.5)
    assert repr(LINES.find("20G")) == "    5  vda1 20G <b>"
    assert "&lt;b&gt;" in LINES.find("20G")._repr_html_()
    assert repr(LINES.find("xfs")) == "No line matches."


def test_a_console_is_a_sequence_and_shows_its_beginning():
    long = Console(ConsoleLine(number, 0.0, b"line") for number in range(1, 101))
    assert [line.number for line in long[10:13]] == [11, 12, 13]
    assert isinstance(long[10:13], Console)
    assert long[-1].number == 100
    assert repr(long).splitlines()[-1].strip() == "(40 more lines)"


@pytest.mark.parametrize(
    ("line", "proves"),
    [
        ("cloud-init[512]: [    3.100000] systemd[1]: OnFailure= is emergency mode", False),
        ("cloud-init[512]: [    0.000000] Kernel panic - not syncing: quoted", False),
        ("You are in emergency mode. After logging in, type", True),
        ("[   10.1] cloud-init[500]: docs: how to leave emergency mode", False),
        ("[   10.1] cloud-init[500]: echo Kernel panic - not syncing", False),
        ("[   10.1] cloud-init[500]: ls: pa[   10.123456] Kernel panic - not syncing: x", True),
        (
            "[   10.1] cloud-init[500]: Cloud-init v. 22.4 finished. Datasource DataSourceNone.",
            True,
        ),
    ],
)
def test_what_the_users_commands_print_proves_no_failure(line, proves):
    watcher = BootWatcher()
    watcher.feed(ConsoleLine(1, 0.0, line.encode()))
    assert (watcher.failure is not None) == proves


def test_a_pattern_that_is_no_regular_expression_is_refused():
    with pytest.raises(UsageError, match=r"'\('"):
        LINES.find("(")
    with pytest.raises(UsageError, match="b'x' is no text"):
        LINES.find(b"x")


HEADER = json.dumps({"version": 2, "width": 80, "height": 24})


def write_cast(tmp_path, *lines: str) -> Path:
    path = tmp_path / "console.cast"
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


@example([(0.0, b"\xed\xa0")])
@given(st.lists(st.tuples(st.floats(0, 1e6), st.binary(max_size=50))))
def test_a_console_survives_the_round_trip(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("cast") / "console.cast"
    events.sort(key=lambda event: event[0])
    with CastWriter(path, title="<x> \u202e") as writer:
        for time_s, chunk in events:
            writer.write(time_s, chunk)
    text = "".join(text for _, text in read_cast(path))
    whole = b"".join(chunk for _, chunk in events)
    # A character that the end cut off is not played.
    assert text == codecs.getincrementaldecoder("utf-8")("replace").decode(whole)
    times = [time_s for time_s, _ in read_cast(path)]
    assert times == sorted(times)


@given(st.lists(st.tuples(st.floats(0, 1), st.text(min_size=1, max_size=5)), min_size=1))
def test_a_cast_has_an_event_for_each_20_ms_at_most(tmp_path_factory, written):
    written.sort(key=lambda one: one[0])
    path = tmp_path_factory.mktemp("cast") / "console.cast"
    with CastWriter(path, title="t") as writer:
        for time_s, text in written:
            writer.write(time_s, text.encode("utf-8", "replace"))
    events = list(read_cast(path))
    times = [time_s for time_s, _ in events]
    # Times are rounded to milliseconds.
    assert all(later - before >= CAST_STEP_S - 0.001001 for before, later in pairwise(times))
    assert set(times) <= {round(time_s, 3) for time_s, _ in written}


def test_what_comes_within_20_ms_is_one_event_at_the_time_of_its_first_piece(tmp_path):
    path = tmp_path / "console.cast"
    with CastWriter(path, title="t") as writer:
        for time_s, chunk in ((1.0, b"a"), (1.005, b"b"), (1.019, b"c"), (1.02, b"d"), (2.0, b"e")):
            writer.write(time_s, chunk)
    assert list(read_cast(path)) == [(1.0, "abc"), (1.02, "d"), (2.0, "e")]


def test_a_cast_ends_with_a_whole_line_whatever_becomes_of_its_writer(tmp_path):
    path = tmp_path / "console.cast"
    writer = CastWriter(path, title="t")
    writer.write(0.5, b"said")
    writer.flush()
    assert list(read_cast(path)) == [(0.5, "said")]
    writer.write(0.51, b"within ")
    writer.write(0.52, b"20 ms")
    assert list(read_cast(path)) == [(0.5, "said")]
    writer.write(0.6, b"later")
    assert list(read_cast(path)) == [(0.5, "said"), (0.51, "within 20 ms")]
    writer.close()
    writer.close()
    assert list(read_cast(path))[-1] == (0.6, "later")


def test_a_cast_is_cut_and_says_so(tmp_path):
    path = tmp_path / "console.cast"
    with CastWriter(path, title="t", cap_bytes=1000) as writer:
        for _ in range(1000):
            writer.write(1.0, b"\x00" * 50)
    assert path.stat().st_size < 1300
    *_, (_, last) = read_cast(path)
    assert "the rest of the console was not kept" in last


BAD_CASTS = {
    "no JSON": "{",
    "no list": "{}",
    "too short": "[1.0, 'o']",
    "text as time": '["1", "o", "x"]',
    "true as time": '[true, "o", "x"]',
    "NaN": '[NaN, "o", "x"]',
    "infinity": '[Infinity, "o", "x"]',
    "too large for a float": f'[1{"0" * 400}, "o", "x"]',
    "too many digits": f'[1{"0" * 9000}, "o", "x"]',
    "before the start": '[-1, "o", "x"]',
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("line", BAD_CASTS.values(), ids=BAD_CASTS)
def test_a_bad_event_is_named_by_its_line(tmp_path, line):
    with pytest.raises(RecordingError, match="line 3"):
        list(read_cast(write_cast(tmp_path, '[0, "o", "x"]', line)))


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"version": 1}', "\x00" * 100])
def test_a_file_that_is_no_cast(tmp_path, text):
    path = tmp_path / "console.cast"
    path.write_text(text)
    with pytest.raises(RecordingError):
        list(read_cast(path))


ANY_EVENTS = st.lists(
    st.tuples(st.floats() | st.integers(-9, 9), st.sampled_from("oi"), st.text()), max_size=3
).map(lambda events: "\n".join(map(json.dumps, events)).encode())


@given(st.binary(max_size=200) | ANY_EVENTS)
def test_any_bytes_as_a_cast_are_events_or_an_error_that_names_the_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cast") / "console.cast"
    path.write_bytes(HEADER.encode() + b"\n" + data)
    times, problem = [], "none in line 0"
    try:
        times = [time_s for time_s, _ in read_cast(path)]
    except RecordingError as error:
        problem = error.message
    assert "line " in problem
    assert all(0 <= time_s < float("inf") for time_s in times)


def test_events_of_other_kinds_are_left_out(tmp_path):
    path = write_cast(tmp_path, '[0, "i", "typed"]', "", '[1, "o", "shown"]', '[2, "m", "mark"]')
    assert list(read_cast(path)) == [(1.0, "shown")]


def test_playing_keeps_the_pace_but_for_long_pauses(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    path = write_cast(
        tmp_path, '[1, "o", "a"]', '[3, "o", "b"]', '[2, "o", "c"]', '[1000, "o", "d"]'
    )
    assert "".join(play(path, speed=2.0)) == "abcd"
    assert slept == [0.5, 1.0, 5.0]


@contextlib.contextmanager
def no_more_bytes(path):
    """Have the file not grow, as on a full disk; pytest's own files may, before and after."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_cast_on_a_full_disk_is_closed(tmp_path):
    writer = CastWriter(tmp_path / "c", title="t")
    with no_more_bytes(tmp_path / "c"):
        writer.write(0.0, b"x" * 100)
        writer.close()
    assert writer._stream.closed


def test_a_transcript_on_a_full_disk_is_closed(tmp_path):
    writer = Transcript(tmp_path / "t", cap_bytes=10)
    writer.write(b"x" * 100)
    with no_more_bytes(tmp_path / "t"):
        writer.close()
    assert writer._stream.closed


def test_a_cast_that_cannot_begin_leaves_no_open_file():
    with pytest.raises(OSError, match="No space left"):
        CastWriter(Path("/dev/full"), title="t")
    gc.collect()  # an open file would be told of here
