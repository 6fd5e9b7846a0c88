"""The serial console: lines with their times, boot stages, and the files they are kept in.

While a machine runs, :class:`LineSplitter` turns chunks into :class:`ConsoleLine`,
:class:`BootWatcher` follows the stages, :class:`Transcript` and :class:`CastWriter` write the
raw bytes and the same with times.  :class:`Console` holds the lines of a run that has ended.
"""

from __future__ import annotations

import codecs
import contextlib
import html
import json
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, TextIO, overload

import msgspec

from cloudlab import paths
from cloudlab.errors import RecordingError, UsageError

#: A line longer than this is cut for people; the transcript keeps it whole.
LONGEST_LINE_BYTES = 4096

#: The transcript's share of the host's disk; a flood beyond it is counted, not kept.
TRANSCRIPT_CAP_BYTES = 16 << 20

#: The same for the console with times.
CAST_CAP_BYTES = 16 << 20

#: What the guest writes within so many seconds is one event of the cast.
CAST_STEP_S = 0.02

#: Lines of the console that an error shows.
TAIL_LINES = 12
_TAIL_WIDTH = 200

#: Lines that a notebook shows of a console.
_SHOWN_LINES = 60

#: What a replay waits at most between two events.
_LONGEST_PAUSE_S = 5.0

#: How the exact report's lines begin, which people skip.
REPORT_MARK = b"@cloudlab "

_DAMAGED = "The file was changed after it was recorded; record the run again."


_HEADER = msgspec.json.Decoder(msgspec.defstruct("Header", [("version", Literal[2])]))
# No recording is longer than a year.
_EVENT = msgspec.json.Decoder(tuple[Annotated[float, msgspec.Meta(ge=0, le=366 * 86400)], str, str])


class Stage(StrEnum):
    """The stages of a boot, in their order; the value is what people read."""

    FIRMWARE = "firmware"
    KERNEL = "kernel"
    INITRAMFS = "initramfs"
    INIT_SYSTEM = "systemd"
    CLOUD_INIT_LOCAL = "cloud-init local"
    CLOUD_INIT_INIT = "cloud-init init"
    CLOUD_INIT_CONFIG = "cloud-init config"
    CLOUD_INIT_FINAL = "cloud-init final"
    REPORT = "report"


ORDER = tuple(Stage)

# What proves that a stage has begun, in lines made safe for people.  systemd's own status
# lines are preferred: they come before cloud-init's Python has started, which under
# emulation takes seconds.  systemd shortens them in the middle to fit 80 columns.
_STAGE_MARKS = {
    Stage.KERNEL: r"Linux version \d|^\[ {4}0\.000000\]|EFI stub: ",
    Stage.INITRAMFS: r"Run /init as init process|Loading, please wait"
    r"|systemd\[1\]: Running in initrd|Welcome to .*[Ii]nitramfs|Mounting boot media",
    # GRUB welcomes as well, and so does the systemd of an initramfs.
    Stage.INIT_SYSTEM: r"^\s*Welcome to (?!GRUB)(?!.*[Ii]nitramfs)|OpenRC .* is starting",
    Stage.CLOUD_INIT_LOCAL: r"Starting .*(cloud-init-(local|main)|pre-networking)"
    r"|running 'init-local'",
    Stage.CLOUD_INIT_INIT: r"Starting .*(cloud-init(-network)?\.service|metadata service crawler"
    r"|cloud-init-netw)|running 'init' at",
    Stage.CLOUD_INIT_CONFIG: r"Starting .*(cloud-config\.|Apply the settings"
    r"|tings specified in cloud-config)|running 'modules:config'",
    Stage.CLOUD_INIT_FINAL: r"Starting .*(cloud-final\.|Execute cloud user|user/final scripts)"
    r"|running 'modules:final'",
    Stage.REPORT: r"@cloudlab after 0 ",
}
_MARKS = {stage: re.compile(mark) for stage, mark in _STAGE_MARKS.items()}

# What proves that a boot cannot come to its end, and what people are told.  The last one is
# cloud-init's own message.
_PROOFS = (
    (
        r"Kernel panic - not syncing",
        "the guest's kernel panicked",
        (
            "The lines before the panic say why. More memory (--memory 2G) helps where it ran out, "
            "and one CPU (--cpus 1) where several are emulated."
        ),
    ),
    (
        (
            r"No bootable device|No bootable option or device|Boot failed: not a bootable disk"
            r"|^UEFI Interactive Shell"
        ),
        "the firmware found no boot loader on the disk",
        (
            "Check with 'cloudlab inspect' that this is a disk image, and try the other --firmware or "
            "--arch."
        ),
    ),
    (
        r"^(grub rescue>|grub>)|Minimal BASH-like line editing|Entering rescue mode",
        "the boot loader stopped at its prompt, because it did not find its files or the kernel",
        "The image is damaged or its partitions were changed; fetch or build it again.",
    ),
    (
        r"[Ee]mergency mode|Give root password for maintenance|dracut-emergency",
        "the guest's systemd stopped in emergency mode",
        (
            "Correct the filesystem or mount that the console's last lines name, in the image or in the "
            "user-data."
        ),
    ),
    (
        r"^\(initramfs\)|Gave up waiting for root|Dropping to a shell",
        "the initramfs did not find the root filesystem",
        "Look for the root filesystem with 'cloudlab inspect', or fetch or build the image again.",
    ),
    (
        r"Datasource DataSourceNone|Used fallback datasource",
        "cloud-init found no datasource, so it did not read the seed",
        (
            "Give the seed the volume label cidata and the files user-data and meta-data, and use an "
            "image whose datasource_list has NoCloud."
        ),
    ),
)

# A panic of the kernel may end a line that cloud-init began; a line of dmesg begins its output.
_BY_CLOUD_INIT = re.compile(
    r"\bcloud-init\[\d+\]: (?!\S.*\[ *\d+\.\d{6}\] Kernel panic - not syncing)"
)

# Where systemd gave up on the serial console's device, no login prompt comes.
_UP = re.compile(r"^\S+ login:|Reached target (?:multi-user\.target|Multi-User System)")
# C0 and C1 control characters and escape sequences have no business on a reader's terminal.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(raw: bytes | str) -> str:
    """Return console text without anything that a terminal or a page would act on.

    Escape sequences, control characters, marks that change the direction of text and what
    neither UTF-8 nor XML can hold are removed; tabs become spaces.
    """
    text = raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else raw
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\t", "    "))).rstrip()


@dataclass(frozen=True)
class ConsoleLine:
    """One line of the console."""

    #: Its number in the transcript, from 1.
    number: int
    #: Seconds from the machine's launch to the line's end, on the host's clock.
    time_s: float
    #: Without its line end, cut at :data:`LONGEST_LINE_BYTES`.
    raw: bytes

    @property
    def text(self) -> str:
        """The line made safe for people."""
        return printable(self.raw)


@dataclass(frozen=True)
class Failure:
    """A proof on the console that the boot cannot come to its end."""

    reason: str
    hint: str
    #: The line's number, and the seconds from the machine's launch to it.
    line: int
    time_s: float


class LineSplitter:
    """Turns chunks of bytes into numbered lines; memory does not grow with the line's length."""

    def __init__(self) -> None:
        self._rest = b""
        self._number = 0

    def feed(self, chunk: bytes, time_s: float) -> list[ConsoleLine]:
        """Return the lines that ``chunk`` completes."""
        *whole, rest = chunk.split(b"\n")
        lines = []
        for piece in whole:
            self._number += 1
            raw = (self._rest + piece)[:LONGEST_LINE_BYTES].rstrip(b"\r")
            lines.append(ConsoleLine(self._number, time_s, raw))
            self._rest = b""
        self._rest = (self._rest + rest)[:LONGEST_LINE_BYTES]
        return lines

    def unfinished(self, time_s: float) -> ConsoleLine:
        """Return what stands on the last line so far: a prompt has no line end."""
        return ConsoleLine(self._number + 1, time_s, self._rest)


class Console(Sequence[ConsoleLine]):
    """Lines of a run's console; a notebook shows them with their numbers.

    Parameters
    ----------
    lines : iterable of ConsoleLine
        In the order of their numbers.
    """

    def __init__(self, lines: Iterable[ConsoleLine]) -> None:
        self._lines = tuple(lines)

    @overload
    def __getitem__(self, index: int) -> ConsoleLine: ...

    @overload
    def __getitem__(self, index: slice) -> Console: ...

    def __getitem__(self, index: int | slice) -> ConsoleLine | Console:
        return Console(self._lines[index]) if isinstance(index, slice) else self._lines[index]

    def __len__(self) -> int:
        return len(self._lines)

    def find(
        self, pattern: str = "", *, first: int = 1, last: int | None = None, report: bool = False
    ) -> Console:
        """Return the lines in which a regular expression is found, without empty ones.

        ``first`` and ``last`` are the numbers of the first and the last line to look at;
        ``report`` says whether the lines of the exact report are among them.  Raises
        :class:`UsageError` if the pattern is not a regular expression.
        """
        try:
            wanted = re.compile(pattern)
            wanted.search("")
        except TypeError as error:
            hint = "Give it as text."
            raise UsageError(f"The pattern {pattern!r:.80} is no text.", hint=hint) from error
        except re.error as error:
            raise UsageError(
                f"The pattern {pattern!r} is not a regular expression: {error}.",
                hint="Put a backslash before characters such as ( and [ to find them as they are.",
            ) from error
        return Console(
            line
            for line in self._lines
            if first <= line.number
            and (last is None or line.number <= last)
            and (report or REPORT_MARK not in line.raw)
            and line.text
            and wanted.search(line.text)
        )

    def __repr__(self) -> str:
        shown = [f"{line.number:5}  {line.text}" for line in self._lines[:_SHOWN_LINES]]
        if len(self) > _SHOWN_LINES:
            shown.append(f"       ({len(self) - _SHOWN_LINES} more lines)")
        return "\n".join(shown) or "No line matches."

    def _repr_html_(self) -> str:
        # JupyterLab would break words anywhere.
        style = "white-space: pre-wrap; overflow-wrap: anywhere; word-break: normal"
        return f'<pre style="{style}">{html.escape(repr(self))}</pre>'


class BootWatcher:
    """Follows a boot by its console: the stages it reached, and why it cannot go on."""

    def __init__(self) -> None:
        #: The last stage that began.
        self.stage = Stage.FIRMWARE
        #: Stage -> seconds from launch to its beginning.
        self.stages: dict[Stage, float] = {Stage.FIRMWARE: 0.0}
        self.failure: Failure | None = None
        #: Seconds from launch to the first login prompt, or to systemd's multi-user target.
        self.up_s: float | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._unfinished = ""

    def feed(self, line: ConsoleLine) -> Stage | None:
        """Take in a line; return the stage that it begins, if it does."""
        text = line.text
        if text:
            self._tail.append(text[:_TAIL_WIDTH])
        self._look_at(text, line)
        for stage in ORDER[ORDER.index(self.stage) + 1 :]:
            if _MARKS[stage].search(text):
                self.stage = stage
                self.stages[stage] = line.time_s
                return stage
        return None

    def feed_unfinished(self, line: ConsoleLine) -> None:
        """Look at a line without an end: boot loaders and shells wait behind their prompt."""
        text = line.text
        self._unfinished = text[:_TAIL_WIDTH]
        self._look_at(text, line)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, made safe for people; a prompt that waits is one of them."""
        lines = [*self._tail, self._unfinished]
        return tuple(line for line in lines if line)[-TAIL_LINES:]

    @property
    def cloud_init_seen(self) -> bool:
        """Whether any stage of cloud-init began."""
        return ORDER.index(self.stage) >= ORDER.index(Stage.CLOUD_INIT_LOCAL)

    def _look_at(self, text: str, line: ConsoleLine) -> None:
        if self.up_s is None and _UP.search(text):
            self.up_s = line.time_s
        if self.failure is None:
            # What the user's commands print is shown as said by cloud-init, and proves nothing.
            proofs = _PROOFS[-1:] if _BY_CLOUD_INIT.search(text) else _PROOFS
            found = next((proof for proof in proofs if re.search(proof[0], text)), None)
            if found is not None:
                self.failure = Failure(*found[1:], line.number, line.time_s)


class Transcript(contextlib.AbstractContextManager["Transcript"]):
    """The console's raw bytes in a file, up to a cap, ended by a note where it was reached."""

    def __init__(self, path: Path, *, cap_bytes: int) -> None:
        self._stream: BinaryIO = path.open("wb")
        self._left = cap_bytes
        #: What came after the cap.
        self.dropped_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append ``chunk`` as far as the cap allows."""
        kept = chunk[: self._left]
        if kept:
            self._stream.write(kept)
            self._stream.flush()
            self._left -= len(kept)
        self.dropped_bytes += len(chunk) - len(kept)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; idempotent."""
        # What the disk would not take, write() has already said.
        with contextlib.suppress(OSError):
            if self.dropped_bytes and not self._stream.closed:
                note = f"\n[cloudlab: {self.dropped_bytes:,} further bytes were not kept]\n"
                self._stream.write(note.encode())
            self._stream.close()


class CastWriter(contextlib.AbstractContextManager["CastWriter"]):
    """Writes a console as asciicast v2 while it comes in, an event each :data:`CAST_STEP_S`.

    Source: https://docs.asciinema.org/manual/asciicast/v2/
    """

    def __init__(self, path: Path, *, title: str, cap_bytes: int = CAST_CAP_BYTES) -> None:
        self._stream: TextIO = path.open("w", encoding="utf-8", newline="\n")
        # A chunk may end in the middle of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._left = cap_bytes
        self._time_s = 0.0
        self._text: list[str] = []
        # asciicast needs a terminal's size; a serial console has none.
        header: dict[str, object] = {"version": 2, "width": 120, "height": 40}
        header |= {"timestamp": int(time.time()), "title": title}
        try:
            self._stream.write(json.dumps(header) + "\n")
            self._stream.flush()
        except OSError:
            self.close()
            raise

    def write(self, time_s: float, chunk: bytes) -> None:
        """Append what the console wrote at ``time_s`` seconds after launch."""
        if self._text and time_s - self._time_s >= CAST_STEP_S:
            self.flush()
        if not self._text:
            self._time_s = time_s
        self._text.append(self._decoder.decode(chunk))

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left and close the file; idempotent."""
        # write() has already raised what the disk would not take.
        with contextlib.suppress(OSError):
            if not self._stream.closed:
                self.flush()
        with contextlib.suppress(OSError):
            self._stream.close()

    def flush(self) -> None:
        """Write the event that is still collected; what comes next is another one."""
        text, self._text = "".join(self._text), []
        if not text or self._left < 0:
            return
        event = json.dumps([round(self._time_s, 3), "o", text])
        self._left -= len(event)
        if self._left < 0:
            note = "\r\n[cloudlab: the rest of the console was not kept]\r\n"
            event = json.dumps([round(self._time_s, 3), "o", note])
        # Written in one go, so that the file ends with a whole line if this process is killed.
        self._stream.write(event + "\n")
        self._stream.flush()


def read_cast(path: Path) -> Iterator[tuple[float, str]]:
    """Yield ``(seconds, text)`` for each output event of an asciicast v2 file.

    Raises
    ------
    RecordingError
        With the number of the line that is not as it should be.
    """
    incomplete = "The run folder is incomplete; record the run again."
    with paths.os_errors_as(RecordingError, f"{path} cannot be read", hint=incomplete):
        stream = path.open(encoding="utf-8", errors="replace")
    number = 0
    with stream:
        try:
            for number, line in enumerate(stream, start=1):
                if number == 1:
                    _HEADER.decode(line)
                elif line.strip():
                    time_s, kind, text = _EVENT.decode(line)
                    if kind == "o":
                        yield time_s, text
        except msgspec.ValidationError as error:
            if number == 1:
                raise RecordingError(
                    f"{path} is not an asciicast v2 file (no version in its header).",
                    hint="Name the console.cast of a run folder, or record the run again.",
                ) from error
            raise RecordingError(
                f"{path}, line {number}: not an asciicast event.", hint=_DAMAGED
            ) from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise RecordingError(
                f"{path}, line {number}: not JSON ({error}).", hint=_DAMAGED
            ) from error
        if number == 0:
            raise RecordingError(f"{path} is empty.", hint=_DAMAGED)


def play(path: Path, *, speed: float, first_line: int = 1) -> Iterator[str]:
    """Yield the text of an asciicast v2 file at its recorded pace.

    It plays ``speed`` times as fast as it was, from the line with the number ``first_line`` on;
    pauses are cut at five (played) seconds.
    """
    before_s, skip = 0.0, first_line - 1
    for at_s, event_text in read_cast(path):
        text = event_text
        if skip:
            *skipped, text = text.split("\n", skip)
            skip -= len(skipped)
            before_s = at_s
            if skip:
                continue
        pause_s = min((at_s - before_s) / speed, _LONGEST_PAUSE_S)
        before_s = at_s
        if pause_s > 0:
            time.sleep(pause_s)
        yield text
