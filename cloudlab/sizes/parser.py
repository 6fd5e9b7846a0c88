"""Sizes out of any console log, line by line, in memory bounded by what they say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from cloudlab.errors import ParseError, UsageError
from cloudlab.paths import expand, os_errors_as
from cloudlab.sizes.frames import BlockBuilder, Frame, FrameReader, GuestBlock, Stage
from cloudlab.sizes.lines import MAX_LINE_BYTES, MAX_ROW_CHARS, Listing, Unread, pieces, texts
from cloudlab.sizes.listings import TRIGGER, Place, begin_listing, may_begin
from cloudlab.sizes.report import ParsedConsole, Report, exact_report

#: What :func:`parse_console` reads from.
Source = BinaryIO | Path | bytes | bytearray | str | Iterable[bytes] | Iterable[str]

# A listing is over when nothing of it was seen for so many lines.
_MAX_GAP_LINES = 200
# A header's own rows follow at once, apart from kernel messages.
_MAX_GAP_LINES_BEFORE_ROWS = 20
# A line with these bytes may show other text than it holds.
_ODD_BYTES = bytes({*range(256)} - {*range(0x20, 0x7F), *b"\t\n\r"})
# Most lines of a log need no decoding, because they hold no frame's mark, whole or broken ...
_MARK = re.compile(
    rb"@(?:cloudlab |(?:%b)?[\[%b])"
    % (b"|".join(b"cloudlab"[:n] for n in range(1, 9)), re.escape(_ODD_BYTES))
)
# ... and begin no listing.
_OF_INTEREST = re.compile(_MARK.pattern + b"|" + TRIGGER.pattern.encode())
_COMMAND = re.compile(r"(?<![\w./-])df(?: |$)")
_NOT_TEXT = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffd]")
_MAX_NOT_TEXT_SHARE = 0.3


class ConsoleParser:
    """The incremental parser: feed it lines, ask for the result at any time.

    It does not raise, whatever the lines hold.

    Parameters
    ----------
    nonce : str, optional
        What every frame of this run carries; frames without it are ignored.

    Attributes
    ----------
    busy : bool
        Whether the next line matters, whatever it holds: a listing or a frame has begun.
    before : bytes
        The line before the next one; callers that skip lines set it.
    foreign : int
        How many frames were ignored.
    """

    def __init__(self, nonce: str | None = None) -> None:
        self.busy = False
        self.before = b""
        self.foreign = 0
        self._nonce = nonce
        self._frames = FrameReader()
        self._open: dict[Stage, BlockBuilder] = {}
        self._closed: list[GuestBlock] = []
        self._last_frame: Frame | None = None
        self._stray = 0
        self._recent_strays = 0
        self._reports: list[Report] = []
        self._unread: list[Unread] = []
        self._listing: Listing | None = None
        self._stage: Stage | None = None  # of the listing
        self._pairs = False  # whether a df that follows belongs to the last report
        self._command = ""
        self._gap = 0
        self._cut_row: tuple[str, int] | None = None

    def feed(self, line: bytes, line_number: int) -> GuestBlock | None:
        """Take the next line.

        Parameters
        ----------
        line : bytes
            With or without its end; only the first 64 KiB are read.
        line_number : int
            Its number in the transcript, from 1.

        Returns
        -------
        GuestBlock or None
            The block that this line ended, complete or not.
        """
        ended = None
        if self.busy or _next_of_interest(line, 0) < len(line):
            for text in texts(line):
                ended = self._take(text, line_number) or ended
            self.busy = self._frames.pending or self._listing is not None
        self.before = line
        return ended

    def frames_so_far(self, stage: Stage) -> int:
        """Return how many frames of the unfinished block of ``stage`` came; 0 if none is open."""
        block = self._open.get(stage)
        return block.next_number if block else 0

    def result(self) -> ParsedConsole:
        """Return what was read so far; more lines may follow."""
        self._keep_cut_row()
        blocks = [*self._closed, *(builder.freeze() for builder in self._open.values())]
        exact = [report for block in blocks if (report := exact_report(block))]
        listed = list(self._reports)
        self._put_listing(listed)
        reports = sorted([*listed, *exact], key=lambda report: report.line)
        unread = [*self._unread, *(self._listing.unread if self._listing else ())]
        return ParsedConsole(
            reports=tuple(report for report in reports if report.stage != "sample"),
            samples=tuple(report for report in reports if report.stage == "sample"),
            blocks=tuple(blocks),
            damaged=self._stray + sum(block.damaged for block in blocks),
            unread=tuple(sorted(unread, key=lambda one: one.line)),
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
            # A log of two consoles has every line twice.
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
            # The frames that were unreadable just before were this block's first ones.
            self._stray -= min(self._recent_strays, frame.number)
            block = self._open[stage] = BlockBuilder(stage, line_number)
        self._recent_strays = 0
        if stage != "sample":
            self._close_listing()
        if not block.add(frame, line_number):
            block.unread += 1
        return self._close_block(stage) if block.ended else None

    def _close_block(self, stage: Stage) -> GuestBlock | None:
        if stage != "sample":
            self._pairs = False
        builder = self._open.pop(stage, None)
        if builder is None:
            return None
        block = builder.freeze()
        self._closed.append(block)
        return block

    def _take_text(self, text: str, line_number: int) -> None:
        parts, listing = pieces(text), self._listing
        taken, missed = self._take_rows(listing, parts, line_number) if listing else (False, [])
        may_begin_here = not taken and TRIGGER.search(text)
        if may_begin_here and any(self._begin(part, line_number) for part in parts):
            return
        if listing is None:
            return
        for part in missed:
            listing.miss(part, line_number)
        self._gap = 0 if taken else self._gap + 1
        if not taken:
            self._note_command(text)
        limit = _MAX_GAP_LINES if listing.rows else _MAX_GAP_LINES_BEFORE_ROWS
        if listing.complete or self._gap > limit:
            self._close_listing()

    def _note_command(self, text: str) -> None:
        if _COMMAND.search(text):
            self._command = text

    def _begin(self, text: str, line_number: int) -> bool:
        """Begin a listing if the line does; tell whether it did."""
        *_, before = texts(self.before)
        self._note_command(before)
        listing = begin_listing(Place(text, line_number, before, self._command, self._listing))
        if listing is None:
            return False
        self._close_listing()
        if listing.tool == "df":
            self._command = ""
        self._stage = next((stage for stage in self._open if stage != "sample"), None)
        self._listing = listing
        if listing.complete:
            self._close_listing()
        return True

    def _take_rows(
        self, listing: Listing, parts: list[str], line_number: int
    ) -> tuple[bool, list[str]]:
        """Take the rows of a line: several if their ends were lost, half a one if cut.

        Returns
        -------
        bool, list of str
            Whether there was one, and the parts that are none.
        """
        head, *stamped = parts
        head_line = line_number
        if self._cut_row and (head or not stamped):
            row, row_line = self._cut_row
            whole = row + head
            two_rows = listing.is_row(row) and listing.is_row(head)
            if not two_rows and (stamped or listing.is_row(whole)):
                # A kernel message had broken into the row; here is the rest of it.
                head, head_line, self._cut_row = whole, row_line, None
            self._keep_cut_row()
        if not stamped:
            taken = listing.read(head, head_line)
            return taken, [] if taken else [head]
        missed = [part for part in stamped if not listing.read(part, line_number)]
        if head.strip() and len(head) <= MAX_ROW_CHARS:
            self._cut_row = head, head_line
        return len(missed) < len(stamped), missed

    def _keep_cut_row(self) -> None:
        if self._listing and self._cut_row and not self._listing.read(*self._cut_row):
            self._listing.miss(*self._cut_row)
        self._cut_row = None

    def _close_listing(self) -> None:
        self._keep_cut_row()
        if self._listing:
            self._put_listing(self._reports)
            self._unread += self._listing.unread
            if self._listing.rows:
                self._pairs = self._listing.tool == "lsblk"
        self._listing = None
        self._gap = 0

    def _put_listing(self, reports: list[Report]) -> None:
        """Put the open listing into reports: a df goes to the lsblk right before it."""
        listing = self._listing
        if listing is None or not listing.rows:
            return
        if self._pairs and listing.tool == "df":
            reports[-1] = replace(reports[-1], **listing.report())
        else:
            reports.append(Report(self._stage, **listing.report()))


def parse_console(source: Source, nonce: str | None = None) -> ParsedConsole:
    r"""Return every report of sizes in a console log.

    Parameters
    ----------
    source : binary file, Path, bytes, str, or iterable of these two
        The log; a Path names its file, an iterable gives pieces of it, cut anywhere, with their line ends.
        Lines are counted by their line feeds and read up to 64 KiB each.
    nonce : str, optional
        As of :class:`ConsoleParser`.

    Raises
    ------
    ParseError
        If it is empty, not text, or holds no sizes that could be read, or the file cannot be read.
    UsageError
        If it is none of these.

    Examples
    --------
    >>> text = "NAME MAJ:MIN RM SIZE RO TYPE MOUNTPOINT\nvda 252:0 0 20G 0 disk\n"
    >>> [report] = cloudlab.parse(text).reports
    >>> report.lsblk[0].size_bytes
    21474836480
    """
    parser = ConsoleParser(nonce)
    beginning = b""
    line_number = 1
    for lines in whole_lines(source):
        beginning += lines[: MAX_LINE_BYTES - len(beginning)]
        line_number = _feed_all(parser, lines, line_number)
    parsed = parser.result()
    if not parsed.reports and not parsed.samples:
        if isinstance(source, str) and os.path.isfile(source):  # noqa: PTH113 - of any text
            hint = f"To read the file: cloudlab.parse(Path({source!r}))"
            raise ParseError(f"The text {source!r} is a file's name, not a log.", hint=hint)
        raise _no_sizes(beginning, parsed)
    return parsed


def _feed_all(parser: ConsoleParser, lines: bytes, line_number: int) -> int:
    """Feed whole lines, skipping those that begin nothing; return the next line's number."""
    at = 0
    while at < len(lines):
        if not parser.busy:
            start = _next_of_interest(lines, at)
            if start > at:
                line_number += lines.count(b"\n", at, start)
                before = lines.rfind(b"\n", at, start - 1) + 1 or at
                parser.before = lines[before : min(start, before + MAX_LINE_BYTES)]
                at = start
                continue
        end = lines.find(b"\n", at) + 1 or len(lines)
        parser.feed(lines[at : min(end, at + MAX_LINE_BYTES)], line_number)
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
            line = lines[start : min(end, start + MAX_LINE_BYTES)]
            # Terminal sequences may stand within its words.
            if len(line.translate(None, _ODD_BYTES)) < len(line) or may_begin(line):
                return start
    return len(lines)


def whole_lines(source: Source, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """Yield a log in pieces that end with a line feed, all but the last one."""
    rest = b""
    for chunk in _chunks(source, chunk_bytes):
        data = rest + chunk
        end = data.rfind(b"\n") + 1
        if end:
            yield data[:end]
        # Of a line without end no more is kept than is read.
        rest = data[end : end + MAX_LINE_BYTES]
    if rest:
        yield rest


def _chunks(source: Source, size: int) -> Iterator[bytes]:
    if isinstance(source, Path):
        with os_errors_as(ParseError, f"{source} cannot be read"), expand(source).open("rb") as log:
            yield from _chunks(log, size)
        return
    if not isinstance(source, Iterable):
        raise _no_log(source)
    read = getattr(source, "read", None)
    chunks: Iterable[Any] = source
    if isinstance(source, str | bytes | bytearray):
        chunks = (source[at : at + size] for at in range(0, len(source), size))
    elif read is not None:
        chunks = iter(lambda: read(size) or None, None)
    for chunk in chunks:
        if not isinstance(chunk, str | bytes | bytearray | memoryview):
            raise _no_log(source)
        yield chunk.encode("utf-8", "replace") if isinstance(chunk, str) else bytes(chunk)


def _no_log(source: object) -> UsageError:
    return UsageError(
        f"A console log cannot be {source!r:.80}.",
        hint="Give a path, an open file, or the text itself.",
    )


def _no_sizes(beginning: bytes, parsed: ParsedConsole) -> ParseError:
    text = beginning.decode("utf-8", "replace")
    looked_for = (
        "Looked for lsblk (a table with the columns NAME, PATH or KNAME and SIZE, pairs, or JSON), "
        "df (Filesystem ... Mounted on), and cloudlab's own report"
    )
    if not text.strip("\0 \t\r\n"):
        return ParseError(
            f"The console log is empty. {looked_for}.",
            hint="Give the file that holds what the machine printed on its serial console.",
        )
    if len(_NOT_TEXT.findall(text)) > _MAX_NOT_TEXT_SHARE * len(text):
        return ParseError(
            f"The console log is not text: it begins with {beginning[:16]!r}. {looked_for}.",
            hint="If the log is compressed, unpack it first.",
        )
    if parsed.unread:
        lines = ", ".join(f"{one.line} ({one.text[:80]!r})" for one in parsed.unread[:3])
        return ParseError(
            f"No sizes could be read. Rows that were not understood: line {lines}. {looked_for}.",
            hint="Print the tables in English and with their headers: LC_ALL=C lsblk; LC_ALL=C df -h",
        )
    damaged = f"; it has {parsed.damaged} damaged frames" if parsed.damaged else ""
    return ParseError(
        f"The console log holds no sizes. {looked_for}{damaged}.",
        hint="Run 'lsblk; df -h' on the guest's console, e.g. from runcmd in its user-data.",
    )
