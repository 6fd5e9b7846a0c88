"""The console: lines, boot stages of real systems, proofs of failure, what people may be shown."""

import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudlab.console import (
    LONGEST_LINE_BYTES,
    ORDER,
    TAIL_LINES,
    BootWatcher,
    ConsoleLine,
    LineSplitter,
    Stage,
    Transcript,
    printable,
)

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
        assert watcher.login_s == 7.0
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
    note = f"\n[cloudlab: {dropped} further bytes were not kept]\n".encode() if dropped else b""
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
