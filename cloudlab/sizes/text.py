"""The human tables: rows of ``lsblk`` and ``df`` in whatever a console made of them.

A table's header is turned into a pattern for its rows, so any order of columns is read
by the same code.  Rows are matched strictly: what lies between them (kernel messages,
other programs) is not a row and is passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cloudlab.errors import ParseError
from cloudlab.sizes.frames import MAX_INT, STAMP

#: No table has longer rows; longer lines are not looked at, which bounds the work per line.
MAX_ROW_CHARS = 2048

_POWERS = {letter: power for power, letter in enumerate("BKMGTPEZY")}
_SIZE = re.compile(
    r"(?P<whole>\d{1,24})(?:[.,](?P<part>\d{1,9}))?\s?(?P<unit>[BKMGTPEZYkmgt]?)(?P<si>i?B)?",
    re.ASCII,
)
# lsblk writes \x20, the kernel's own tables \040.
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})|\\([0-3][0-7]{2})")

# What loggers put in front of a line: times, host and program names, login prompts.
_PREFIX = re.compile(
    r"(?:\s*(?:"
    r"<\d{1,3}>"
    r"|\[ *\d{1,9}\.\d{1,9}\](?:\[ *[TC]\d{1,9}\])?"
    r"|[A-Z][a-z]{2} {1,2}\d{1,2} \d\d:\d\d:\d\d(?:\.\d{1,9})? [\w.-]{1,64}"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S{0,20} [\w.-]{1,64}"
    r"|[\w.-]{1,64}(?= [\w.@/-]{1,64}\[\d{1,9}\]:)"
    r"|[\w.@/-]{1,64}(?: login|\[\d{1,9}\])?:(?=\s|$)"
    r"))*",
    re.ASCII,
)
_TREE = r"[^A-Za-z0-9_/\[]*"
_DEVICE = r"[A-Za-z0-9_/][\w.+:@!/#\\-]*"
_NUMBER = r"-?\d{1,24}(?:[.,]\d{1,9})?[BKMGTPEZYkmgt]?(?:i?B)?|-"
_PERCENT = r"(?:\d+%|-)"

_LSBLK_COLUMNS = {
    "NAME": rf"(?P<name>{_DEVICE})(?: \(dm-\d+\))?",
    "KNAME": _DEVICE,
    "PATH": _DEVICE,
    "MAJ:MIN": r"\d+:\d+",
    "RM": r"[01]",
    "SIZE": r"(?P<size>\d+(?:[.,]\d+)?[BKMGTPEZY]?)",
    "RO": r"[01]",
    "ROTA": r"[01]",
    "TYPE": r"(?P<type>[a-z][\w-]*)",
}
# Without device numbers a row looks like other text, so its type must be a common one.
_COMMON_TYPE = r"(?P<type>disk|part|rom|loop|lvm|crypt|mpath|dm|md|linear|(?:dm)?raid\d*)"
# These cells may be empty.
_LSBLK_OPTIONAL = {
    "FSTYPE": r"[A-Za-z]\w*",
    "UUID": r"[0-9A-Fa-f]{4,}(?:-[0-9A-Fa-f]{4,})*",
    "MOUNTPOINT": r"(?P<mount>/\S*|\[\w+\])",
}
_LAST_MOUNT = r"(?P<mount>/.*|\[\w+\])"
_DF_COLUMNS = {
    "Type": r"\S+",
    "Size": rf"(?P<size>{_NUMBER})",
    "Used": rf"(?P<used>{_NUMBER})",
    "Avail": rf"(?P<available>{_NUMBER})",
    "Available": rf"(?P<available>{_NUMBER})",
    "Use%": _PERCENT,
    "Capacity": _PERCENT,
    "Inodes": r"\S+",
    "IUsed": r"\S+",
    "IFree": r"\S+",
    "IUse%": _PERCENT,
    "iused": r"\S+",
    "ifree": r"\S+",
    "%iused": _PERCENT,
    "File": r"\S+",
    "Mounted_on": r"(?P<mount>/.*)",
}
_HEADER = re.compile(r"(?<!\w)(?:NAME|Filesystem)\s")
_BLOCKS = re.compile(r"(\d{0,9})([kKMGTPE]?)(B?)-blocks")
# One repeat alone may take blanks: two of them would try every way to share a long run.
_CONTINUATION = re.compile(r"(?:[\s│|]{2,}|[│|]|(?=\S+$))(/.*|\[\w+\])")
# df moves on to the next line after a name that is longer than its column.
_LONG_NAME = re.compile(r"\s*(\S{20,})\s*")


@dataclass(frozen=True, slots=True)
class LsblkRow:
    """A row of ``lsblk``.

    Attributes
    ----------
    name : str
        Without tree and ``/dev/``, e.g. ``vda1``.
    size_bytes : int
    type : str
        disk, part, lvm, crypt, raid1, rom ...; empty where the table has no such column.
    mountpoints : tuple of str
    line : int
        The transcript's line, from 1.
    """

    name: str
    size_bytes: int
    type: str
    mountpoints: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class DfRow:
    """A row of ``df``.

    Attributes
    ----------
    filesystem : str
        As printed, e.g. ``/dev/vda1`` or ``tmpfs``.
    size_bytes : int
    used_bytes, available_bytes : int or None
        None where df prints ``-`` or the table has no such column.
    mountpoint : str
    line : int
        The transcript's line, from 1.
    """

    filesystem: str
    size_bytes: int
    used_bytes: int | None
    available_bytes: int | None
    mountpoint: str
    line: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What a header says about the rows below it.

    Attributes
    ----------
    tool : str
        ``lsblk`` or ``df``.
    row : re.Pattern
    tail : re.Pattern or None
        A df row whose first cell stands on the line before.
    unit_bytes : int or None
        What a number without a unit letter counts; None for df's human units.
    goes_on : bool
        Whether further mount points of a device follow on lines of their own.
    """

    tool: Literal["lsblk", "df"]
    row: re.Pattern[str]
    tail: re.Pattern[str] | None = None
    unit_bytes: int | None = 1
    goes_on: bool = False


def parse_size(text: str) -> int:
    """Return the bytes that lsblk or df mean by ``text``: ``19.9G``, ``366K``, ``512B``, ``4096``.

    K to Y are powers of 1024, as in both programs; ``GiB`` is the same, and ``GB`` is a
    power of 1000, as GNU programs print it.  Rounded text gives rounded bytes.

    Raises
    ------
    ParseError
        If it is no size, or more than 2**63 - 1 bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match["si"] and match["unit"] in {"", "B"}):
        raise ParseError(
            f"{text[:40]!r} is no size.",
            hint="A size is a number with an optional unit from B to Y, such as 19.9G or 366K.",
        )
    base = 1000 if match["si"] == "B" else 1024
    factor: int = base ** _POWERS[(match["unit"] or "B").upper()]
    part = match["part"] or ""
    # Whole numbers only: a float cannot hold every byte count.
    scale: int = 10 ** len(part)
    size_bytes = (int(match["whole"] + part) * factor * 2 + scale) // (2 * scale)
    if size_bytes > MAX_INT:
        raise ParseError(
            f"{text[:40]!r} is more than any disk holds.", hint="At most 2**63 - 1 bytes are read."
        )
    return size_bytes


def without_prefix(text: str) -> str:
    """Return the line without what a logger or a login prompt put in front of it."""
    match = _PREFIX.match(text)
    return text[match.end() :] if match else text


def find_header(text: str) -> Layout | None:
    """Return the layout if the line ends in the header of a table of sizes."""
    if len(text) > MAX_ROW_CHARS:
        return None
    start = _HEADER.search(text)
    if start is None:
        return None
    header = STAMP.split(text[start.start() :], maxsplit=1)[0]
    words = header.replace("Mounted on", "Mounted_on").split()
    # The article's own excerpt ends its header with a full stop.
    words[-1] = words[-1].rstrip(".")
    return _lsblk_layout(tuple(words)) if words[0] == "NAME" else _df_layout(tuple(words))


@lru_cache(maxsize=32)
def _lsblk_layout(words: tuple[str, ...]) -> Layout | None:
    columns = [word.replace("MOUNTPOINTS", "MOUNTPOINT") for word in words]
    known = _LSBLK_COLUMNS.keys() | _LSBLK_OPTIONAL.keys()
    tells = {"MAJ:MIN", "TYPE", "MOUNTPOINT"} & set(columns)
    if len(set(columns)) < len(words) or not known.issuperset(columns) or "SIZE" not in columns:
        return None
    if not tells:
        # NAME and SIZE alone head the tables of many other programs.
        return None
    pattern = _TREE + _LSBLK_COLUMNS["NAME"]
    for column in columns[1:]:
        if column == "MOUNTPOINT" and column == columns[-1]:
            pattern += rf"(?:\s+{_LAST_MOUNT})?"
        elif column in _LSBLK_OPTIONAL:
            pattern += rf"(?:\s+{_LSBLK_OPTIONAL[column]})?"
        elif column == "TYPE" and "MAJ:MIN" not in columns:
            pattern += rf"\s+{_COMMON_TYPE}"
        else:
            pattern += rf"\s+{_LSBLK_COLUMNS[column]}"
    row = re.compile(pattern + r"\s*", re.ASCII)
    return Layout("lsblk", row, goes_on=words[-1] == "MOUNTPOINTS")


@lru_cache(maxsize=32)
def _df_layout(words: tuple[str, ...]) -> Layout | None:
    unit_bytes: int | None = None
    columns = []
    for word in words[1:]:
        blocks = _BLOCKS.fullmatch(word)
        if blocks:
            count, letter, si = blocks.groups()
            base = 1000 if si and letter else 1024
            unit_bytes = int(count or 1) * base ** _POWERS[letter.upper() or "B"]
        columns.append("Size" if blocks else word)
    if len(set(columns)) < len(columns) or not _DF_COLUMNS.keys() >= set(columns):
        return None
    if not {"Size", "Mounted_on"} <= set(columns) or {"Avail", "Available"} <= set(columns):
        return None
    if columns[-1] != "Mounted_on":
        return None
    cells = r"\s+" + r"\s+".join(_DF_COLUMNS[column] for column in columns) + r"\s*"
    row = re.compile(r"\s*(?P<filesystem>\S+)" + cells, re.ASCII)
    return Layout("df", row, re.compile(cells, re.ASCII), unit_bytes)


class TableReader:
    """The rows of one table, read line by line.

    Attributes
    ----------
    layout : Layout
    lsblk, df : list
        Rows so far; one of the two stays empty.
    exact : bool
        Whether every size so far was printed in full.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.lsblk: list[LsblkRow] = []
        self.df: list[DfRow] = []
        self.exact = True
        self._first_cell: tuple[str, int] | None = None

    def read(self, text: str, line: int) -> bool:
        """Take the line in if it is a row or goes on with one; False if it is something else."""
        if len(text) > MAX_ROW_CHARS:
            return False
        body = without_prefix(text)
        try:
            if self.layout.tool == "lsblk":
                return self._read_lsblk(body, line)
            return self._read_df(body, line)
        except ParseError:
            return False

    def is_row(self, text: str) -> bool:
        """Whether the line is a whole row of this table."""
        body = without_prefix(text)
        return len(text) <= MAX_ROW_CHARS and self.layout.row.fullmatch(body) is not None

    def _read_lsblk(self, body: str, line: int) -> bool:
        match = self.layout.row.fullmatch(body)
        if match is None:
            return self.layout.goes_on and self._go_on(body)
        cells = match.groupdict()
        size = cells["size"]
        row = LsblkRow(
            name=_unescape(cells["name"].removeprefix("/dev/").removeprefix("mapper/")),
            size_bytes=parse_size(size),
            type=cells.get("type") or "",
            mountpoints=_mountpoints(cells.get("mount")),
            line=line,
        )
        self.exact &= size.isdigit()
        self.lsblk.append(row)
        return True

    def _go_on(self, body: str) -> bool:
        match = _CONTINUATION.fullmatch(body.rstrip())
        if match is None or not self.lsblk:
            return False
        last = self.lsblk[-1]
        self.lsblk[-1] = LsblkRow(
            last.name,
            last.size_bytes,
            last.type,
            last.mountpoints + _mountpoints(match[1]),
            last.line,
        )
        return True

    def _read_df(self, body: str, line: int) -> bool:
        assert self.layout.tail is not None
        match = self.layout.tail.fullmatch(" " + body) if self._first_cell else None
        if self._first_cell and match:
            (filesystem, line), self._first_cell = self._first_cell, None
        else:
            match = self.layout.row.fullmatch(body)
            if match is None:
                lone = _LONG_NAME.fullmatch(body)
                if lone:
                    self._first_cell = lone[1], line
                return False
            filesystem = match["filesystem"]
        cells = match.groupdict()
        size_bytes = self._df_number(cells["size"])
        if size_bytes is None:
            return False
        row = DfRow(
            filesystem=filesystem,
            size_bytes=size_bytes,
            used_bytes=self._df_number(cells.get("used")),
            available_bytes=self._df_number(cells.get("available")),
            mountpoint=_unescape(cells["mount"].rstrip()),
            line=line,
        )
        self._first_cell = None
        # statfs counts in blocks of 1 KiB or more, so 1K-blocks lose nothing.
        self.exact &= 1024 % (self.layout.unit_bytes or 1 << 20) == 0
        self.df.append(row)
        return True

    def _df_number(self, cell: str | None) -> int | None:
        if cell in {None, "-"}:
            return None
        assert cell is not None
        sign = -1 if cell.startswith("-") else 1
        digits = cell.lstrip("-")
        unit = (self.layout.unit_bytes or 1) if digits.isdigit() else 1
        number = parse_size(digits) * unit
        if number > MAX_INT:
            raise ParseError(f"{cell[:40]!r} is more than any disk holds.")
        return sign * number


def _mountpoints(cell: str | None) -> tuple[str, ...]:
    # lsblk --raw puts an escaped line feed between several.
    return tuple(_unescape(cell.rstrip()).split("\n")) if cell else ()


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    raw = _ESCAPE.sub(
        lambda match: bytes([int(match[1], 16) if match[1] else int(match[2], 8)]),
        text.encode("utf-8", "surrogatepass"),
    )
    return raw.decode("utf-8", "replace")
