"""The exact report: frames with checksums on the serial console, one per line.

::

    @cloudlab STAGE N JSON CRC NONCE@

STAGE is ``before``, ``after`` or ``sample``; N counts the frames of one block from 0;
JSON is one ASCII object; CRC is the POSIX ``cksum`` of the text ``STAGE N JSON``; NONCE is 16
digits that the run's seed gave the guest, or missing (in older recordings).
Kernel messages may interrupt a frame anywhere.  They are cut out again, and the CRC tells
whether the cuts were right; a frame that no cut repairs counts as damaged, never as a guess.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import dataclass, field, fields
from itertools import islice, product
from typing import Any, Literal

from cloudlab.sizes.lines import MAX_INT, STAMP

Stage = Literal["before", "after", "sample"]

_MARK = "@cloudlab "
_FRAME = re.compile(
    r"@cloudlab ((?P<stage>before|after|sample) (?P<number>\d{1,9}) (?P<json>\{.*\}))"
    r" (?P<crc>\d{1,10})(?: (?P<nonce>\d{16}))?@",
    re.ASCII,
)
# A mark that a kernel message interrupts.
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
        Its number in the block, from 0.
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
    """A fact that the guest reported about itself."""

    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class GuestBlock:
    """The contents of one block of frames.

    Attributes
    ----------
    stage : str
        ``before``, ``after`` or ``sample``.
    line : int
        The transcript's line on which the block's first readable frame begins.
    uptime_s : float or None
        The guest's uptime when the block began; None where that frame was lost.
    devices, filesystems, logs, facts : tuple
        Each with the line that proves it.
    ended : bool
        Whether the end frame was read.
    damaged : int
        Frames of this block that were unreadable or missing.
    unchanged_until_s : float or None
        Of a sample: the guest's uptime at which the sampler last found the previous sizes
        unchanged; None where the sample does not tell.
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
    """Assembles frames from lines and cuts out what interrupted them.

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
        """Whether a frame has begun that is not complete."""
        return bool(self._lines)

    def feed(self, text: str, line_number: int) -> tuple[Frame, int] | None:
        """Take the next line; return the frame that it completes and the line it began on."""
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
        """Return the frame in the lines if its CRC is right once each is cut before a stamp."""
        *broken, last = self._lines
        # Most frames come on a line of their own, whole.
        if not broken and (frame := _read_frame(last)):
            return frame
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
    if not isinstance(values.get("kind"), str):
        return None
    stage: Any = match["stage"]
    return Frame(stage, int(match["number"]), values, match["nonce"] or "")


# What each kind of frame becomes, and the values that it has: all fields but the line.
_KINDS = {
    kind: (what, [(one.name, str(one.type)) for one in fields(what)[:-1]])
    for kind, what in {
        "block": GuestDevice,
        "filesystem": GuestFilesystem,
        "log": GuestLog,
        "fact": GuestFact,
    }.items()
}


@dataclass(slots=True)
class BlockBuilder:
    """One block while its frames arrive."""

    stage: Stage
    line: int
    uptime_s: float | None = None
    unchanged_until_s: float | None = None
    next_number: int = 0
    ended: bool = False
    lost: int = 0
    unread: int = 0
    _found: dict[str, list[Any]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})

    def add(self, frame: Frame, line: int) -> bool:
        """Take a frame; return False if its values are not those of its kind."""
        try:
            self._take(frame, line)
        except (KeyError, TypeError, ValueError, OverflowError):
            return False
        self.lost += frame.number - self.next_number
        self.next_number = frame.number + 1
        self.unread = 0
        return True

    def freeze(self) -> GuestBlock:
        """Return what was read so far."""
        return GuestBlock(
            stage=self.stage,
            line=self.line,
            uptime_s=self.uptime_s,
            devices=tuple(self._found["block"]),
            filesystems=tuple(self._found["filesystem"]),
            logs=tuple(self._found["log"]),
            facts=tuple(self._found["fact"]),
            ended=self.ended,
            damaged=self.lost + self.unread,
            unchanged_until_s=self.unchanged_until_s,
        )

    def _take(self, frame: Frame, line: int) -> None:
        kind = frame.values.get("kind")
        if kind == "begin":
            self.uptime_s = _seconds(frame, "uptime_s")
            if "unchanged_until_s" in frame.values:  # of samples, and not of older guests
                self.unchanged_until_s = _seconds(frame, "unchanged_until_s")
        elif kind == "end":
            if _value(frame, "frames", "int") != frame.number + 1:
                raise ValueError
            self.ended = True
        elif isinstance(kind, str) and kind in _KINDS:
            what, names = _KINDS[kind]
            values = {name: _value(frame, name, type_) for name, type_ in names}
            self._found[kind].append(what(**values, line=line))
        # Other kinds, which a later guest script may have, are ignored.


def _value(frame: Frame, key: str, type_: str) -> Any:
    value = frame.values[key]
    if type_ == "int" and type(value) is int and 0 <= value <= MAX_INT:
        return value
    if type_ == "str" and isinstance(value, str):
        return value
    raise TypeError


def _seconds(frame: Frame, key: str) -> float:
    seconds = float(frame.values[key])
    if not math.isfinite(seconds):
        raise ValueError
    return seconds
