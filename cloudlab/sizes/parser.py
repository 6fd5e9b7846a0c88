"""Sizes out of any console log, line by line, in memory bounded by the reports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

from cloudlab.errors import ParseError
from cloudlab.sizes.frames import (
    STAMP,
    BlockBuilder,
    Frame,
    FrameReader,
    GuestBlock,
    Stage,
)
from cloudlab.sizes.report import ParsedConsole, Report, exact_report
from cloudlab.sizes.text import (
    MAX_ROW_CHARS,
    TableReader,
    find_header,
    without_prefix,
)

#: What :func:`parse_console` reads from.
Source = BinaryIO | bytes | bytearray | str | Iterable[bytes] | Iterable[str]

_CHUNK_BYTES = 1 << 20
_MAX_LINE_BYTES = 65_536
# A table is over when nothing of it was seen for so many lines.
_MAX_GAP_LINES = 200
# A header's own rows follow at once, but for what the kernel has to say.
_MAX_GAP_LINES_BEFORE_ROWS = 20
# What a terminal or a page makes of these bytes may be other text than they are.
_ODD_BYTES = bytes({*range(256)} - {*range(0x20, 0x7F), *b"\t\n\r"})
# Most lines of a log begin nothing and need no decoding: no frame's mark, whole or broken ...
_MARK = re.compile(
    rb"@(?:cloudlab |(?:%b)?[\[%b])"
    % (b"|".join(b"cloudlab"[:n] for n in range(1, 9)), re.escape(_ODD_BYTES))
)
_OF_INTEREST = re.compile(_MARK.pattern + rb"|SIZE|Filesystem")
# ... and no header.
_HEADER_START = re.compile(rb"\b(?:NAME|Filesystem)\s")
_NOT_TEXT = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffd]")
_MAX_NOT_TEXT_SHARE = 0.3
_TERMINAL = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"  # colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b]{0,512}(?:\x07|\x1b\\)?"  # titles
    r"|\x1b[ -/]{0,8}[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f]"
)


@dataclass(slots=True)
class _Draft:
    """Human tables that belong together."""

    stage: Stage | None
    tables: dict[Literal["lsblk", "df"], TableReader] = field(default_factory=dict)

    def freeze(self) -> Report | None:
        lsblk, df = self.tables.get("lsblk"), self.tables.get("df")
        report = Report(
            self.stage,
            tuple(lsblk.lsblk) if lsblk else (),
            tuple(df.df) if df else (),
            lsblk is None or lsblk.exact,
            df is None or df.exact,
        )
        return report if report.lsblk or report.df else None


class ConsoleParser:
    """The incremental parser: feed it lines, ask it for what they said.

    It never raises, whatever it is fed.

    Parameters
    ----------
    nonce : str, optional
        What every frame of this run carries; frames without it are ignored.

    Attributes
    ----------
    busy : bool
        Whether the next line matters, whatever it says: a table or a frame has begun.
    foreign : int
        How many frames were ignored.
    """

    def __init__(self, nonce: str | None = None) -> None:
        self.busy = False
        self.foreign = 0
        self._nonce = nonce
        self._frames = FrameReader()
        self._open: dict[Stage, BlockBuilder] = {}
        self._closed: list[GuestBlock] = []
        self._last_frame: Frame | None = None
        self._stray = 0
        self._recent_strays = 0
        self._drafts: list[_Draft] = []
        self._draft: _Draft | None = None
        self._table: TableReader | None = None
        self._gap = 0
        self._cut_row: tuple[str, int] | None = None

    def feed(self, line: bytes, line_number: int) -> GuestBlock | None:
        """Take the next line.

        Parameters
        ----------
        line : bytes
            With or without its end; only the first 64 KiB are looked at.
        line_number : int
            Its number in the transcript, from 1.

        Returns
        -------
        GuestBlock or None
            The block that this line ended, complete or not.
        """
        if not self.busy and _next_of_interest(line, 0) == len(line):
            return None
        ended = None
        # A terminal line may have been written over after a lone carriage return.
        for piece in line[:_MAX_LINE_BYTES].splitlines() or [b""]:
            # Web pages keep a table's columns apart with no-break spaces.
            text = _TERMINAL.sub("", piece.decode("utf-8", "replace")).replace("\u00a0", " ")
            ended = self._take(text, line_number) or ended
        self.busy = self._frames.pending or self._table is not None
        return ended

    def frames_so_far(self, stage: Stage) -> int:
        """Return how far the block of ``stage`` came whose end is still missing; 0 for none."""
        block = self._open.get(stage)
        return block.next_number if block else 0

    def result(self) -> ParsedConsole:
        """Return what was read by now; more lines may follow."""
        self._keep_cut_row()
        blocks = [*self._closed, *(builder.freeze() for builder in self._open.values())]
        found = [draft.freeze() for draft in self._drafts] + [exact_report(b) for b in blocks]
        reports = sorted((report for report in found if report), key=lambda report: report.line)
        return ParsedConsole(
            reports=tuple(report for report in reports if report.stage != "sample"),
            samples=tuple(report for report in reports if report.stage == "sample"),
            blocks=tuple(blocks),
            damaged=self._stray + sum(block.damaged for block in blocks),
        )

    def _take(self, text: str, line_number: int) -> GuestBlock | None:
        unreadable = self._frames.unreadable
        done = self._frames.feed(text, line_number)
        lost = self._frames.unreadable - unreadable
        if lost and self._open:
            self._open[next(reversed(self._open))].unread += lost
        else:
            self._stray += lost
            self._recent_strays += lost
        if done is not None:
            if self._nonce in {None, done[0].nonce}:
                return self._take_frame(*done)
            self.foreign += 1
            return None
        if not self._frames.pending:
            self._take_text(text, line_number)
        return None

    def _take_frame(self, frame: Frame, line_number: int) -> GuestBlock | None:
        if frame == self._last_frame:
            # Two consoles in one log say everything twice.
            return None
        self._last_frame = frame
        stage = frame.stage
        block = self._open.get(stage)
        if block is not None and frame.number < block.next_number:
            self._close_block(stage)
            block = None
        if block is None:
            if stage != "sample":
                # Samples are taken beside the two reports, which never overlap each other.
                self._close_block("before")
                self._close_block("after")
            # What could not be read just before were this block's first frames.
            self._stray -= min(self._recent_strays, frame.number)
            block = self._open[stage] = BlockBuilder(stage, line_number)
        self._recent_strays = 0
        if stage != "sample":
            self._close_table()
        if not block.add(frame, line_number):
            block.unread += 1
        return self._close_block(stage) if block.ended else None

    def _close_block(self, stage: Stage) -> GuestBlock | None:
        if stage != "sample":
            self._draft = None
        builder = self._open.pop(stage, None)
        if builder is None:
            return None
        block = builder.freeze()
        self._closed.append(block)
        return block

    def _take_text(self, text: str, line_number: int) -> None:
        layout = find_header(text)
        if layout is not None:
            self._close_table()
            draft = self._draft
            if draft is None or layout.tool == "lsblk" or "df" in draft.tables:
                if draft is not None and draft.freeze() is None:
                    self._drafts.remove(draft)
                stage = next((stage for stage in self._open if stage != "sample"), None)
                draft = self._draft = _Draft(stage)
                self._drafts.append(draft)
            self._table = draft.tables[layout.tool] = TableReader(layout)
        elif self._table is not None:
            self._gap = 0 if self._take_row(self._table, text, line_number) else self._gap + 1
            rows = self._table.lsblk or self._table.df
            if self._gap > (_MAX_GAP_LINES if rows else _MAX_GAP_LINES_BEFORE_ROWS):
                self._close_table()

    def _take_row(self, table: TableReader, text: str, line_number: int) -> bool:
        """Take in the rows of a line: several if their ends were lost, half a one if cut."""
        stamps = [stamp.start() for stamp in STAMP.finditer(text)]
        head = text[: stamps[0]] if stamps else text
        head_line = line_number
        if self._cut_row and (head or not stamps):
            row, row_line = self._cut_row
            whole = row + head
            two_rows = table.is_row(row) and table.is_row(head)
            if not two_rows and (stamps or table.is_row(whole)):
                # A kernel message had broken into the row; here is the rest of it.
                head, head_line, self._cut_row = whole, row_line, None
            self._keep_cut_row()
        if not stamps:
            return table.read(head, head_line)
        pieces = [text[a:b] for a, b in zip(stamps, [*stamps[1:], None], strict=True)]
        found = [table.read(piece, line_number) for piece in pieces]
        if without_prefix(head).strip() and len(head) <= MAX_ROW_CHARS:
            self._cut_row = head, head_line
        return any(found)

    def _keep_cut_row(self) -> None:
        if self._table and self._cut_row:
            self._table.read(*self._cut_row)
        self._cut_row = None

    def _close_table(self) -> None:
        self._keep_cut_row()
        self._table = None
        self._gap = 0


def parse_console(source: Source, nonce: str | None = None) -> ParsedConsole:
    """Return every report of sizes in a console log.

    Parameters
    ----------
    source : binary file, bytes, str, or iterable of either
        The log; an iterable gives pieces of it, cut anywhere, with their line ends.
        Lines are counted by their line feeds and read up to 64 KiB each.
    nonce : str, optional
        As of :class:`ConsoleParser`.

    Raises
    ------
    ParseError
        If it is empty, not text, or holds no table of sizes.
    """
    parser = ConsoleParser(nonce)
    beginning = b""
    line_number = 1
    for lines in _whole_lines(source):
        beginning += lines[: _MAX_LINE_BYTES - len(beginning)]
        line_number = _feed_all(parser, lines, line_number)
    parsed = parser.result()
    if not parsed.reports and not parsed.samples:
        raise _no_sizes(beginning, parsed)
    return parsed


def _feed_all(parser: ConsoleParser, lines: bytes, line_number: int) -> int:
    """Feed whole lines, leaping over those that begin nothing; return the next line's number."""
    at = 0
    while at < len(lines):
        if not parser.busy:
            start = _next_of_interest(lines, at)
            if start > at:
                line_number += lines.count(b"\n", at, start)
                at = start
                continue
        end = lines.find(b"\n", at) + 1 or len(lines)
        parser.feed(lines[at : min(end, at + _MAX_LINE_BYTES)], line_number)
        line_number += 1
        at = end
    return line_number


def _next_of_interest(lines: bytes, at: int) -> int:
    """Return where the next line starts that may begin something, or the end of ``lines``."""
    end = at
    for found in _OF_INTEREST.finditer(lines, at):
        place = found.start()
        if lines.startswith(b"@", place):
            return lines.rfind(b"\n", at, place) + 1 or at
        if place >= end:
            start = lines.rfind(b"\n", at, place) + 1 or at
            end = lines.find(b"\n", place) + 1 or len(lines)
            if _may_be_header(lines[start : min(end, start + _MAX_LINE_BYTES)]):
                return start
    return len(lines)


def _may_be_header(line: bytes) -> bool:
    """Whether a line with one of a header's words can be one; told from its bytes, quickly."""
    if len(line.translate(None, _ODD_BYTES)) < len(line):
        return True
    if b"NAME" not in line and b"Filesystem" not in line:
        return False
    start = _HEADER_START.search(line)
    return start is not None and any(
        line.find(word, start.end()) > 0 for word in (b"SIZE", b"Mounted")
    )


def _whole_lines(source: Source) -> Iterator[bytes]:
    """Yield the log in pieces that end with a line feed, all but the last one."""
    rest = b""
    for chunk in _chunks(source):
        data = rest + chunk
        end = data.rfind(b"\n") + 1
        if end:
            yield data[:end]
        # Of a line without end no more is kept than is looked at.
        rest = data[end : end + _MAX_LINE_BYTES]
    if rest:
        yield rest


def _chunks(source: Source) -> Iterator[bytes]:
    if isinstance(source, str | bytes | bytearray):
        for at in range(0, len(source), _CHUNK_BYTES):
            yield _as_bytes(source[at : at + _CHUNK_BYTES])
        return
    read = getattr(source, "read", None)
    pieces: Iterable[Any] = source if read is None else _reads(read)
    for piece in pieces:
        yield _as_bytes(piece)


def _reads(read: Any) -> Iterator[bytes | str]:
    while piece := read(_CHUNK_BYTES):
        yield piece


def _as_bytes(piece: str | bytes | bytearray) -> bytes:
    return piece.encode("utf-8", "replace") if isinstance(piece, str) else bytes(piece)


def _no_sizes(beginning: bytes, parsed: ParsedConsole) -> ParseError:
    text = beginning.decode("utf-8", "replace")
    looked_for = (
        "Looked for the header of lsblk (NAME ... SIZE ...) or of df (Filesystem ... Mounted on) "
        "with rows below it, and for cloudlab's own report"
    )
    if not text.strip("\0 \t\r\n"):
        return ParseError(
            f"The console log is empty. {looked_for}.",
            hint="Give the file that holds what the machine printed on its serial console.",
        )
    if len(_NOT_TEXT.findall(text)) > _MAX_NOT_TEXT_SHARE * len(text):
        return ParseError(
            f"This is not the text of a console: it begins with {beginning[:16]!r}. {looked_for}.",
            hint="If the log is compressed, unpack it first.",
        )
    damaged = f"; {parsed.damaged} damaged frames of it were found" if parsed.damaged else ""
    return ParseError(
        f"No table of sizes was found in the console log. {looked_for}{damaged}.",
        hint="Let the guest run 'lsblk; df -h' on its console, e.g. from runcmd in its user-data.",
    )
