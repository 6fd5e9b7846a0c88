"""The serial console as a stream: lines, boot stages, proofs of failure, transcript."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

#: A line longer than this is cut for people; the transcript keeps it whole.
LONGEST_LINE_BYTES = 4096

#: The transcript's share of the host's disk; a flood beyond it is counted, not kept.
TRANSCRIPT_CAP_BYTES = 16 << 20

#: Lines of the console that an error shows.
TAIL_LINES = 12
_TAIL_WIDTH = 200


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
_STAGE_MARKS: tuple[tuple[Stage, re.Pattern[str]], ...] = (
    (Stage.KERNEL, re.compile(r"Linux version \d|^\[ {4}0\.000000\]|EFI stub: ")),
    (
        Stage.INITRAMFS,
        re.compile(
            r"Run /init as init process|Loading, please wait|systemd\[1\]: Running in initrd"
            r"|Welcome to .*[Ii]nitramfs|Mounting boot media"
        ),
    ),
    (
        Stage.INIT_SYSTEM,
        # GRUB welcomes as well, and so does the systemd of an initramfs.
        re.compile(r"^\s*Welcome to (?!GRUB)(?!.*[Ii]nitramfs)|OpenRC .* is starting"),
    ),
    (
        Stage.CLOUD_INIT_LOCAL,
        re.compile(r"Starting .*(cloud-init-(local|main)|pre-networking)|running 'init-local'"),
    ),
    (
        Stage.CLOUD_INIT_INIT,
        re.compile(
            r"Starting .*(cloud-init(-network)?\.service|metadata service crawler|cloud-init-netw)"
            r"|running 'init' at"
        ),
    ),
    (
        Stage.CLOUD_INIT_CONFIG,
        re.compile(
            r"Starting .*(cloud-config\.|Apply the settings|tings specified in cloud-config)"
            r"|running 'modules:config'"
        ),
    ),
    (
        Stage.CLOUD_INIT_FINAL,
        re.compile(
            r"Starting .*(cloud-final\.|Execute cloud user|user/final scripts)"
            r"|running 'modules:final'"
        ),
    ),
    (Stage.REPORT, re.compile(r"@cloudlab after 0 ")),
)

# What proves that a boot cannot come to its end, and what people are told.
_PROOFS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"Kernel panic - not syncing"),
        "the guest's kernel panicked",
        "The lines before the panic say why; more memory (--memory 2G) helps where it ran out.",
    ),
    (
        re.compile(r"No bootable device|No bootable option or device|Boot failed: not a bootable disk"),
        "the firmware found no boot loader on the disk",
        "Check with 'cloudlab inspect' that this is a disk image, and try the other --firmware.",
    ),
    (
        re.compile(r"^(grub rescue>|grub>)|Minimal BASH-like line editing|Entering rescue mode"),
        "the boot loader stopped at its prompt, because it did not find its files or the kernel",
        "The image is damaged or its partitions were changed; fetch or build it again.",
    ),
    (
        re.compile(r"[Ee]mergency mode|Give root password for maintenance|dracut-emergency"),
        "the guest's systemd stopped in emergency mode",
        "A filesystem or mount of the guest failed; the console's tail names it.",
    ),
    (
        re.compile(r"^\(initramfs\)|Gave up waiting for root|Dropping to a shell"),
        "the initramfs did not find the root filesystem",
        "The image's root filesystem is not where its boot loader says.",
    ),
    (
        re.compile(r"Datasource DataSourceNone|Used fallback datasource"),
        "cloud-init found no datasource, so it did not read the seed",
        "The seed needs the volume label cidata and the files user-data and meta-data.",
    ),
)  # fmt: skip

_LOGIN = re.compile(r"^\S+ login:")
# C0 and C1 control characters and escape sequences have no business on a reader's terminal.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(raw: bytes | str) -> str:
    """Return console text without anything that a terminal or a page would act on.

    Escape sequences, control characters and marks that turn the direction of text are
    removed, tabs become spaces.
    """
    text = raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else raw
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\t", "    "))).rstrip()


@dataclass(frozen=True)
class ConsoleLine:
    """One line of the console.

    Attributes
    ----------
    number : int
        Its number in the transcript, from 1.
    time_s : float
        Seconds from the machine's launch to the line's end, on the host's clock.
    raw : bytes
        Without its line end, cut at :data:`LONGEST_LINE_BYTES`.
    """

    number: int
    time_s: float
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
    line: int


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


class BootWatcher:
    """Follows a boot by its console: the stages it reached, and why it cannot go on.

    Attributes
    ----------
    stage : Stage
        The last stage that began.
    stages : dict
        Stage -> seconds from launch to its beginning.
    failure : Failure or None
    tail : tuple of str
        The last lines, made safe for people; a prompt that waits is one of them.
    login_s : float or None
        Seconds from launch to the first login prompt.
    """

    def __init__(self) -> None:
        self.stage = Stage.FIRMWARE
        self.stages: dict[Stage, float] = {Stage.FIRMWARE: 0.0}
        self.failure: Failure | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._unfinished = ""
        self.login_s: float | None = None

    def feed(self, line: ConsoleLine) -> Stage | None:
        """Take in a line; return the stage that it begins, if it does."""
        text = line.text
        if text:
            self._tail.append(text[:_TAIL_WIDTH])
        self._look_for_failure(text, line.number)
        self._look_for_login(text, line.time_s)
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
        self._look_for_failure(text, line.number)
        self._look_for_login(text, line.time_s)

    @property
    def tail(self) -> tuple[str, ...]:  # noqa: D102 - see the class
        lines = [*self._tail, self._unfinished]
        return tuple(line for line in lines if line)[-TAIL_LINES:]

    @property
    def cloud_init_seen(self) -> bool:
        """Whether any stage of cloud-init began."""
        return ORDER.index(self.stage) >= ORDER.index(Stage.CLOUD_INIT_LOCAL)

    def _look_for_login(self, text: str, time_s: float) -> None:
        if self.login_s is None and _LOGIN.search(text):
            self.login_s = time_s

    def _look_for_failure(self, text: str, number: int) -> None:
        if self.failure is not None:
            return
        for pattern, reason, hint in _PROOFS:
            if pattern.search(text):
                self.failure = Failure(reason, hint, number)
                return


_MARKS = dict(_STAGE_MARKS)


class Transcript:
    """The console's raw bytes in a file, up to a cap, ended by a note where it was reached.

    Attributes
    ----------
    dropped_bytes : int
        What came after the cap.
    """

    def __init__(self, path: Path, *, cap_bytes: int) -> None:
        self._stream: BinaryIO = path.open("wb")
        self._left = cap_bytes
        self.dropped_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append ``chunk`` as far as the cap allows."""
        kept = chunk[: self._left]
        if kept:
            self._stream.write(kept)
            self._stream.flush()
            self._left -= len(kept)
        self.dropped_bytes += len(chunk) - len(kept)

    def close(self) -> None:
        """Close the file; idempotent."""
        # What the disk would not take, write() has already said.
        with contextlib.suppress(OSError):
            if self.dropped_bytes and not self._stream.closed:
                note = f"\n[cloudlab: {self.dropped_bytes} further bytes were not kept]\n"
                self._stream.write(note.encode())
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
