"""The exact report: checked frames on the serial console, one a line.

::

    @cloudlab STAGE N JSON CRC NONCE@

STAGE is ``before``, ``after`` or ``sample``; N counts the frames of one block from 0;
JSON is one ASCII object; CRC is what POSIX ``cksum`` says of the text ``STAGE N JSON``;
NONCE is 16 digits that the run's seed gave the guest, or missing (in old recordings).
The kernel may break into a frame anywhere with messages of its own.  They are taken out
again, and the CRC says whether that was done rightly; a frame that no cutting repairs is
counted as damaged and never guessed.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any, Literal

Stage = Literal["before", "after", "sample"]

#: What begins a kernel message, or a status line of systemd, wherever it breaks in.
STAMP = re.compile(r"\[(?: *\d{1,9}\.\d{1,9}|  OK  |FAILED|DEPEND)\]")

#: The largest number a table's Int64 column holds.
MAX_INT = 2**63 - 1

_MARK = "@cloudlab "
_FRAME = re.compile(
    r"@cloudlab ((?P<stage>before|after|sample) (?P<number>\d{1,9}) (?P<json>\{.*\}))"
    r" (?P<crc>\d{1,10})(?: (?P<nonce>\d{16}))?@",
    re.ASCII,
)
# A mark whose rest comes after a kernel message.
_BROKEN_MARK = re.compile("|".join(f"{_MARK[:n]}(?={STAMP.pattern})" for n in range(1, len(_MARK))))
_END = re.compile(r"(?:^|\d)@", re.ASCII)
_MAX_FRAME_CHARS = 16_384
_MAX_FRAME_LINES = 256
_MAX_TRIES = 128

_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def posix_cksum(data: bytes) -> int:
    """Return the CRC that the POSIX program ``cksum`` prints for ``data``.

    zlib computes the same polynomial with the bits of every byte the other way round.

    Source: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/cksum.html
    """
    length = len(data).to_bytes((len(data).bit_length() + 7) // 8, "little")
    mirrored = zlib.crc32((data + length).translate(_REVERSED_BITS), 0xFFFFFFFF)
    return int(f"{mirrored:032b}"[::-1], 2)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame whose CRC was right.

    Attributes
    ----------
    stage : str
    number : int
        Its place in the block, from 0.
    values : dict
        The JSON object.
    nonce : str
        Empty where there is none.
    """

    stage: Stage
    number: int
    values: dict[str, Any]
    nonce: str = ""


@dataclass(frozen=True, slots=True)
class GuestDevice:
    """A block device, in bytes; ``parent`` is empty and ``start_bytes`` 0 for a disk."""

    name: str
    type: str
    parent: str
    size_bytes: int
    start_bytes: int
    line: int


@dataclass(frozen=True, slots=True)
class GuestFilesystem:
    """A mounted filesystem, in bytes as statfs counts them."""

    device: str
    mountpoint: str
    fstype: str
    size_bytes: int
    used_bytes: int
    available_bytes: int
    line: int


@dataclass(frozen=True, slots=True)
class GuestLog:
    """A line of the guest's own logs."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class GuestFact:
    """Something the guest said about itself."""

    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class GuestBlock:
    """What one block of frames said.

    Attributes
    ----------
    stage : str
        ``before``, ``after`` or ``sample``.
    line : int
        The transcript's line on which the block's first readable frame begins.
    uptime_s : float or None
        The guest's uptime at the block's begin; None where that frame was lost.
    unchanged_until_s : float or None
        Of a sample: the guest's uptime at which the sampler last found the sizes as they had
        been; None where it did not say.
    devices, filesystems, logs, facts : tuple
        Each with the line that proves it.
    ended : bool
        Whether the end frame was read.
    damaged : int
        Frames of this block that came but could not be read, or did not come.
    """

    stage: Stage
    line: int
    uptime_s: float | None
    devices: tuple[GuestDevice, ...]
    filesystems: tuple[GuestFilesystem, ...]
    logs: tuple[GuestLog, ...]
    facts: tuple[GuestFact, ...]
    ended: bool
    damaged: int
    unchanged_until_s: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every frame from begin to end was read."""
        return self.ended and self.damaged == 0


class FrameReader:
    """Puts frames together from lines, with what broke into them taken out.

    Attributes
    ----------
    unreadable : int
        Frames given up so far.
    """

    def __init__(self) -> None:
        self.unreadable = 0
        self._lines: list[str] = []
        self._line_number = 0
        self._tries = 0
        self._chars = 0

    @property
    def pending(self) -> bool:
        """Whether a frame has begun whose end has not come."""
        return bool(self._lines)

    def feed(self, text: str, line_number: int) -> tuple[Frame, int] | None:
        """Take the next line; return the frame it completes and the line that one began on."""
        if self._lines:
            frame = self._go_on(text)
            if frame is not None:
                return frame, self._line_number
            if self._lines and _MARK not in text:
                return None
            self._give_up()
        start = text.find(_MARK)
        if start < 0:
            broken = _BROKEN_MARK.search(text)
            if broken is None:
                return None
            start = broken.start()
        self._line_number, self._tries, self._chars = line_number, 0, 0
        frame = self._go_on(text[start:])
        return (frame, line_number) if frame is not None else None

    def _go_on(self, text: str) -> Frame | None:
        self._lines.append(text)
        self._chars += len(text)
        frame = self._assemble()
        if frame is not None:
            self._lines = []
        elif (
            STAMP.search(text) is None
            or len(self._lines) >= _MAX_FRAME_LINES
            or self._chars > _MAX_FRAME_CHARS
            or self._tries >= _MAX_TRIES
        ):
            self._give_up()
        return frame

    def _assemble(self) -> Frame | None:
        """Return the frame in the lines, each cut before one of its stamps, if a CRC agrees."""
        *broken, last = self._lines
        ends = [last[: end.end()] for end in _END.finditer(last)]
        if not ends:
            return None
        # The frame's own text may hold stamps as well, so every one is tried in turn.
        cuts = [[line[: stamp.start()] for stamp in STAMP.finditer(line)] for line in broken]
        for parts in islice(product(*cuts, ends), _MAX_TRIES - self._tries):
            self._tries += 1
            frame = _read_frame("".join(parts))
            if frame is not None:
                return frame
        return None

    def _give_up(self) -> None:
        # An "@" before a kernel message may be anything; a real frame leaves a gap in N.
        self.unreadable += bool(self._lines) and _MARK in self._lines[0]
        self._lines = []


def _read_frame(text: str) -> Frame | None:
    match = _FRAME.fullmatch(text)
    if match is None or not text.isascii():
        return None
    if posix_cksum(match[1].encode("ascii")) != int(match["crc"]):
        return None
    try:
        values = json.loads(match["json"])
    except (ValueError, RecursionError):
        return None
    stage: Any = match["stage"]
    return Frame(stage, int(match["number"]), values, match["nonce"] or "")


@dataclass(slots=True)
class BlockBuilder:
    """One block while its frames come in."""

    stage: Stage
    line: int
    uptime_s: float | None = None
    unchanged_until_s: float | None = None
    next_number: int = 0
    ended: bool = False
    lost: int = 0
    unread: int = 0
    _devices: list[GuestDevice] = field(default_factory=list)
    _filesystems: list[GuestFilesystem] = field(default_factory=list)
    _logs: list[GuestLog] = field(default_factory=list)
    _facts: list[GuestFact] = field(default_factory=list)

    def add(self, frame: Frame, line: int) -> bool:
        """Take a frame in; False if its values are not what its kind says."""
        try:
            self._take(frame, line)
        except (KeyError, TypeError, ValueError, OverflowError):
            return False
        self.lost += frame.number - self.next_number
        self.next_number = frame.number + 1
        self.unread = 0
        return True

    def freeze(self) -> GuestBlock:
        """Return what the block says by now."""
        return GuestBlock(
            stage=self.stage,
            line=self.line,
            uptime_s=self.uptime_s,
            devices=tuple(self._devices),
            filesystems=tuple(self._filesystems),
            logs=tuple(self._logs),
            facts=tuple(self._facts),
            ended=self.ended,
            damaged=self.lost + self.unread,
            unchanged_until_s=self.unchanged_until_s,
        )

    def _take(self, frame: Frame, line: int) -> None:
        match frame.values.get("kind"):
            case "begin":
                self.uptime_s = _seconds(frame, "uptime_s")
                if "unchanged_until_s" in frame.values:  # of samples, and not of older guests
                    self.unchanged_until_s = _seconds(frame, "unchanged_until_s")
            case "block":
                self._devices.append(
                    GuestDevice(
                        name=_text(frame, "name"),
                        type=_text(frame, "type"),
                        parent=_text(frame, "parent"),
                        size_bytes=_count(frame, "size_bytes"),
                        start_bytes=_count(frame, "start_bytes"),
                        line=line,
                    )
                )
            case "filesystem":
                self._filesystems.append(
                    GuestFilesystem(
                        device=_text(frame, "device"),
                        mountpoint=_text(frame, "mountpoint"),
                        fstype=_text(frame, "fstype"),
                        size_bytes=_count(frame, "size_bytes"),
                        used_bytes=_count(frame, "used_bytes"),
                        available_bytes=_count(frame, "available_bytes"),
                        line=line,
                    )
                )
            case "log":
                self._logs.append(GuestLog(_text(frame, "text"), line))
            case "fact":
                self._facts.append(GuestFact(_text(frame, "name"), _text(frame, "value"), line))
            case "end":
                if _count(frame, "frames") != frame.number + 1:
                    raise ValueError
                self.ended = True
            case _:
                # A kind that a later guest script invents is read over.
                pass


def _text(frame: Frame, key: str) -> str:
    value = frame.values[key]
    if not isinstance(value, str):
        raise TypeError
    return value


def _seconds(frame: Frame, key: str) -> float:
    seconds = float(frame.values[key])
    if not math.isfinite(seconds):
        raise ValueError
    return seconds


def _count(frame: Frame, key: str) -> int:
    value = frame.values[key]
    if type(value) is not int or not 0 <= value <= MAX_INT:
        raise TypeError
    return value
