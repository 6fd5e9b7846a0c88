"""Lines of a console or of a paste, and listings in them whose header names their columns.

Cleaning, prefixes, the splitting of rows, sizes in cells, and what is left unread are here; a
reader for another tool is a subclass of :class:`Listing` with a header of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from cloudlab.errors import ParseError

#: What begins a kernel message, or a status line of systemd, wherever it breaks in.
STAMP = re.compile(r"\[(?: *\d{1,9}\.\d{1,9}|  OK  |FAILED|DEPEND)\]")

#: Of a longer line only this much is read.
MAX_LINE_BYTES = 65_536

#: No table has longer rows; longer lines are not parsed, which bounds the work per line.
MAX_ROW_CHARS = 4096

#: The largest number that an Int64 column holds.
MAX_INT = 2**63 - 1

# More of them are not a row of a table; they bound the work per line.
_MAX_COLUMNS = 80
_MAX_WORDS = 80
_MAX_CELL_WORDS = 8
_MAX_WAYS = 16
_TERMINAL = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"  # colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b]{0,512}(?:\x07|\x1b\\)?"  # titles, links
    r"|\x1b[ -/]{0,8}[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f\ufeff]"
)
_WORD = re.compile("[^ ]+")
_HEADER_WORD = re.compile(r"[^ \"',|]+")
_PREFIX_PART = re.compile(r"\w+|\s+|.", re.DOTALL)
#: A shell's prompt that names its host.
PROMPT = r"\[?[\w.-]+@([\w.-]+)[^$#]{0,64}[$#]"
# A command at a prompt or in a trace, and the first line of another listing.
_END = re.compile(
    rf"\s*(?:{PROMPT}|[\w.-]*[$#]|\++|PS [^>]{{1,64}}>)\s+\w"
    r"|\s*(?:NAME|TARGET|PV|VG|LV|Device|Disk|Model|Number)(?:[ :]|$)"
    r"|\s*(?:[A-Z][A-Z0-9:%_#-]*(?:\s+|$)){3,}$"
    r"|.*(?<!\w)Filesystem\s.*\sMounted on"
)
#: A size's unit -> the power of 1024 or 1000 that it stands for.
POWERS = {letter: power for power, letter in enumerate("BKMGTPEZY")}
_SIZE = re.compile(
    r"(?P<whole>\d{1,24})(?:[.,](?P<part>\d{1,9}))?\s?(?P<unit>[BKMGTPEZYkmgt]?)(?P<si>iB?|B)?",
    re.ASCII,
)
# lsblk writes \x20, the kernel's own tables \040.
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})|\\([0-3][0-7]{2})")
_ELISION = re.compile(r"\s*+[\[(<*-]*+\s*+(?:\.{3}|…|(?:snip|truncated|omitted)\b)", re.IGNORECASE)


def texts(line: bytes) -> Iterator[str]:
    """Yield a line without terminal sequences; several where carriage returns overwrote it."""
    for piece in line[:MAX_LINE_BYTES].splitlines() or [b""]:
        text = piece.decode("utf-8", "replace")
        if not text.isprintable():
            # Web pages separate a table's columns by no-break spaces.
            text = _TERMINAL.sub("", text).replace("\u00a0", " ").expandtabs()
        yield text


def pieces(text: str) -> list[str]:
    """Split a line before each kernel or systemd message; the first piece may be empty."""
    starts = [stamp.start() for stamp in STAMP.finditer(text)] if "[" in text else []
    return [text[a:b] for a, b in zip([0, *starts], [*starts, None], strict=True)]


def prefix_pattern(prefix: str) -> re.Pattern[str] | None:
    """Return a pattern for ``prefix`` with any numbers in it; None for blanks only.

    The prefixes of neighbouring lines differ in times and process numbers.
    """
    parts = _PREFIX_PART.findall(prefix.rstrip())
    patterns = [
        r"\s*+" if one.isspace() else r"\w++" if any(map(str.isdigit, one)) else re.escape(one)
        for one in parts
    ]
    return re.compile("".join(patterns)) if parts else None


def header_words(text: str) -> list[re.Match[str]]:
    """Return what may be the names of columns, without the quotes and commas around a line."""
    return list(_HEADER_WORD.finditer(text[:MAX_ROW_CHARS]))


def words_below(header: str, name: str, row: str) -> Iterator[str]:
    """Yield a row's words that begin below a column, from its name to the next column's."""
    starts = [word.start() - 1 for word in _WORD.finditer(header)] + [MAX_INT]
    for place, word in enumerate(_WORD.finditer(header)):
        if word[0].startswith(name):
            first, end = starts[place : place + 2]
            yield from (one[0] for one in _WORD.finditer(row) if first <= one.start() < end)


def parse_size(text: str, *, base: int = 1024) -> int:
    """Return the bytes that lsblk or df mean by ``text``: ``19.9G``, ``366K``, ``512B``, ``4096``.

    Rounded text gives rounded bytes.

    Parameters
    ----------
    text : str
        K to Y are powers of ``base``, ``Gi`` and ``GiB`` powers of 1024, and ``GB`` powers of
        1000, as GNU programs print them.
    base : int
        1000 for what ``df -H`` prints.

    Raises
    ------
    ParseError
        If it is not a size, or more than 2**63 - 1 bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    unit, si = (match["unit"], match["si"]) if match else ("", None)
    # Not a fraction of a byte, nor bytes with a prefix alone; but macOS has "0Bi".
    if match is None or (unit in {"", "B"} and (match["part"] or (si and unit + si != "Bi"))):
        raise ParseError(
            f"{text[:40]!r} is not a size.",
            hint="A size is a number with an optional unit from B to Y, such as 19.9G or 366K.",
        )
    part = match["part"] or ""
    factor: int = {None: base, "B": 1000}.get(si, 1024) ** POWERS[unit.upper() or "B"]
    # Whole numbers only: a float cannot hold every byte count.
    scale: int = 10 ** len(part)
    size_bytes = (int(match["whole"] + part) * factor * 2 + scale) // (2 * scale)
    if size_bytes > MAX_INT:
        raise ParseError(
            f"{text[:40]!r} is more than any disk holds.", hint="The limit is 2**63 - 1 bytes."
        )
    return size_bytes


def unescape(text: str) -> str:
    """Return a cell with the characters that lsblk, df or the kernel escaped."""
    if "\\" not in text:
        return text
    raw = _ESCAPE.sub(
        lambda match: bytes([int(match[1], 16) if match[1] else int(match[2], 8)]),
        text.encode("utf-8", "surrogatepass"),
    )
    return raw.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
    cell : re.Pattern
        Matches a whole cell; if it has a group, that is the cell's value.
    optional, several : bool
        Whether cells may be empty, and whether they may hold several words.
    """

    name: str
    cell: re.Pattern[str]
    optional: bool = False
    several: bool = False


# How many words were used -> the cheapest way there: its cost, and its cells.
_Ways = dict[int, tuple[int, tuple[tuple[Column, re.Match[str]], ...]]]


@dataclass(frozen=True, slots=True)
class Header:
    """The columns of a table, and what surrounds its rows.

    Attributes
    ----------
    columns : tuple of Column
        In their order on the line.
    spans : tuple of (int, int)
        Where the header names them, counted from the prefix's end.
    prefix : re.Pattern or None
        What loggers or quoting put before each line.
    suffix : str
        Characters that follow each line, such as quotes and commas.
    raw : bool
        Whether a single blank separates the names, and so may separate all cells.
    word : re.Pattern
        Matches a word that may belong to a cell.
    remark : re.Pattern
        Matches what people may have written behind a row.
    """

    columns: tuple[Column, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    prefix: re.Pattern[str] | None = None
    suffix: str = ""
    raw: bool = False
    word: re.Pattern[str] = _WORD
    remark: re.Pattern[str] = _WORD

    @classmethod
    def of(
        cls, text: str, names: Sequence[re.Match[str]], columns: Sequence[Column], **others: Any
    ) -> Header:
        """Return the header in a line, from the words that name its columns."""
        prefix = text[: names[0].start()]
        origin = len(prefix.rstrip())
        spans = tuple((name.start() - origin, name.end() - origin) for name in names)
        suffix = text[names[-1].end() :].strip(" .")
        raw = spans[0][0] == 0 and all(a + 1 == b for (_, a), (b, _) in pairwise(spans))
        return cls(tuple(columns), spans, prefix_pattern(prefix), suffix, raw, **others)

    def bodies(self, text: str) -> Iterator[str]:
        """Yield what a line may be without its prefix, the likeliest first."""
        text = text.rstrip(self.suffix + " ")
        match = self.prefix.match(text) if self.prefix else None
        if match:
            yield text[match.end() :]
        yield text
        # A login prompt or another program may precede a single row.
        _, colon, rest = text.rpartition(": ")
        if colon:
            yield rest

    def cells(self, body: str) -> dict[str, re.Match[str]] | None:
        """Split a row into its cells by column; None if the line is not a row of this table.

        Each word goes to one column, in order, and each cell must match its column's pattern.
        Where that leaves a choice, words go to the columns whose names they are below.
        """
        words = list(self.word.finditer(body))
        if not 0 < len(words) <= _MAX_WORDS or len(self.columns) > _MAX_COLUMNS:
            return None
        for raw in (True, False) if self.raw else (False,):
            if plain := self._plain_cells(words, raw=raw):
                return plain
        ways: _Ways = {0: (0, ())}
        for number, column in enumerate(self.columns):
            longer: _Ways = dict(ways) if column.optional else {}
            for used, (spent, cells) in ways.items():
                for end, cost, match in self._cells(number, words, used):
                    if end not in longer or spent + cost < longer[end][0]:
                        longer[end] = spent + cost, (*cells, (column, match))
            best = sorted(longer.items(), key=lambda way: (way[1][0], -way[0]))
            ways = dict(best[:_MAX_WAYS])
        used = max(ways, default=0)
        if used == 0 or not (
            used == len(words) or self.remark.fullmatch(body, words[used].start())
        ):
            return None
        return {column.name: match for column, match in ways[used][1]}

    def _plain_cells(
        self, words: Sequence[re.Match[str]], *, raw: bool
    ) -> dict[str, re.Match[str]] | None:
        """Split a row with one word below each name, as most have, or with one blank per cell."""
        found = {}
        for place, word in enumerate(words):
            text, (start, end) = word.string, word.span()
            number = text.count(" ", 0, start) if raw else place
            if number >= len(self.spans):
                return None
            first, stop = self.spans[number]
            match = self.columns[number].cell.fullmatch(text, start, end)
            if match is None or not (raw or (start < stop and end > first)):
                return None
            found[self.columns[number].name] = match
        return found if all(one.optional or one.name in found for one in self.columns) else None

    def _cells(
        self, number: int, words: Sequence[re.Match[str]], used: int
    ) -> Iterator[tuple[int, int, re.Match[str]]]:
        """Yield a column's possible cells: how many words are used then, the cost, the match."""
        column = self.columns[number]
        start, stop = self.spans[number] if self.spans else (0, MAX_INT)
        last = number + 1 >= len(self.spans)
        limit = MAX_INT if last else self.spans[number + 1][0]
        cost = 0
        for end in range(used, len(words) if last else min(len(words), used + _MAX_CELL_WORDS)):
            word = words[end]
            if end == used:
                cost = max(0, start + 1 - word.end(), word.start() + 1 - stop)
            elif not column.several or (not last and word.start() > words[end - 1].end() + 1):
                return  # only the last column's cells may hold wide gaps
            else:
                cost += max(0, word.end() - limit)
            match = column.cell.fullmatch(word.string, words[used].start(), word.end())
            if match:
                yield end + 1, cost, match


@dataclass(frozen=True, slots=True)
class Unread:
    """A line that looks like a row of a listing but was not understood.

    Attributes
    ----------
    tool : str
        Whose listing it seems to belong to: ``lsblk`` or ``df``.
    text : str
        Without terminal sequences.
    line : int
        The transcript's line, from 1.
    """

    tool: str
    text: str
    line: int


class Listing:
    """What one command printed, read line by line.

    Attributes
    ----------
    tool : str
    hint : re.Pattern
        Found in every row.
    wraps : bool
        Whether the tool breaks a row after a long first cell.
    rows : list
        What was read so far.
    unread : list of Unread
    exact : bool
        Whether every size was printed in full.
    complete : bool
        Whether no further line can belong to it.
    adjacent : bool
        Whether the line before was the header or a row.
    """

    tool: ClassVar[str]
    hint: re.Pattern[str] = re.compile("")
    wraps: ClassVar[bool] = False

    def __init__(self, header: Header) -> None:
        self.header = header
        self.names = {column.name for column in header.columns}
        self.rows: list[Any] = []
        self.unread: list[Unread] = []
        self.exact = True
        self.complete = False
        self.adjacent = True
        self._begun: Unread | None = None

    def row(self, cells: Mapping[str, Any], line: int) -> object | None:
        """Return a row; None if it is not one that counts, such as a sum.

        Raises
        ------
        ParseError
            If a cell does not make sense.
        """
        raise NotImplementedError

    def accepts(self, cells: Mapping[str, re.Match[str]]) -> bool:
        """Tell whether a line that splits into these cells is a row of this tool."""
        raise NotImplementedError

    def resembles(self, body: str, words: Sequence[str]) -> bool:
        """Tell whether a line that is not a row looks like one."""
        raise NotImplementedError

    def add(self, row: object, cells: Mapping[str, Any]) -> None:
        """Add a row."""
        self.exact &= str(cells["SIZE"]).isdigit()
        self.rows.append(row)

    def go_on(self, text: str) -> bool:
        """Take a line that goes on with the row above; return False if it does not."""
        del text
        return False

    def report(self) -> dict[str, Any]:
        """Return what it adds to a report, by the report's attributes."""
        return {self.tool: tuple(self.rows), f"{self.tool}_exact": self.exact}

    def split(self, text: str) -> Iterator[Mapping[str, Any]]:
        """Yield the cells that a line may hold, by column."""
        if len(text) <= MAX_ROW_CHARS and self.hint.search(text):
            for body in self.header.bodies(text):
                cells = self.header.cells(body)
                if cells and self.accepts(cells):
                    yield {name: one[one.lastindex or 0] for name, one in cells.items()}

    def is_row(self, text: str) -> bool:
        """Tell whether a line is a whole row."""
        return self._parse(text, 0) is not None

    def read(self, text: str, line: int) -> bool:
        """Take a row, or what goes on with one; return False if the line is neither."""
        begun, found = self._begun, self._parse(text, line)
        body = next(self.header.bodies(text)) if begun else ""
        if begun and (found is None or body.startswith("  ")):
            joined = self._parse(f"{begun.text} {body.lstrip()}", begun.line)
            found = joined or found
            if joined and self.unread and self.unread[-1] is begun:
                self.unread.pop()
        if found is None:
            return self.adjacent and bool(self.rows) and self.go_on(text)
        self.adjacent, self._begun = True, None
        if found[0] is not None:
            self.add(*found)
        return True

    def miss(self, text: str, line: int) -> None:
        """Take a line that is not a row, to report it if it looks like one."""
        body = next(self.header.bodies(text[:MAX_ROW_CHARS]))
        if STAMP.match(body):
            return
        words: list[str] = self.header.word.findall(body)
        likely = bool(words) and self.resembles(body, words)
        part = Unread(self.tool, body.strip(), line)
        if likely or (self.adjacent and _ELISION.match(body)):
            self.unread.append(part)
        # df breaks a line after a long name; terminals and mails break it anywhere.
        self._begun = part if self.wraps and (likely or len(words) == 1) else None
        self.adjacent &= likely
        self.complete = _END.match(body) is not None

    def _parse(self, text: str, line: int) -> tuple[object | None, Mapping[str, Any]] | None:
        """Return a row and its cells; None if the line is not one."""
        for cells in self.split(text):
            try:
                return self.row(cells, line), cells
            except ParseError:
                continue
        return None
