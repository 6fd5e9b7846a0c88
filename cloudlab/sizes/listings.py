"""What ``lsblk`` and ``df`` print, in every form that consoles and people hand on.

``lsblk`` as a tree, list, pairs or JSON with any columns; ``df`` of GNU, BusyBox, macOS and
the BSDs.  A reader for another tool is a class like these and an entry in :data:`BEGINNINGS`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from cloudlab.errors import ParseError
from cloudlab.sizes.lines import (
    MAX_INT,
    POWERS,
    STAMP,
    Column,
    Header,
    Listing,
    Unread,
    header_words,
    parse_size,
    prefix_pattern,
    unescape,
)

_ANY = re.compile(r".+")
# What people write behind a row.
_REMARK = re.compile(r"(?:<|#|←|\().*")
# A path ends before a remark such as "<--- root"; that of the root filesystem is one word.
_MOUNTPOINT = re.compile(r"/(?! )(?:(?! (?:<|#|←|-->)).)*|\[\w+\]")


@dataclass(frozen=True, slots=True)
class LsblkRow:
    """A row of ``lsblk``.

    Attributes
    ----------
    name : str
        Without tree and ``/dev/``, e.g. ``vda1``.
    size_bytes : int
    type : str
        disk, part, lvm, crypt, raid1, rom ...; empty where the listing does not have it.
    mountpoints : tuple of str
    line : int
        The transcript's line, from 1.
    cells : mapping of str to str
        What all columns hold, by their names; of JSON, PKNAME is the device around it.
    """

    name: str
    size_bytes: int
    type: str
    mountpoints: tuple[str, ...]
    line: int
    cells: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DfRow:
    """A row of ``df``.

    Attributes
    ----------
    filesystem : str or None
        As printed, e.g. ``/dev/vda1`` or ``tmpfs``; None where the table does not have it.
    size_bytes : int
    used_bytes, available_bytes : int or None
        None where df prints ``-`` or the table does not have them.
    mountpoint : str or None
        None where the table does not have it.
    line : int
        The transcript's line, from 1.
    """

    filesystem: str | None
    size_bytes: int
    used_bytes: int | None
    available_bytes: int | None
    mountpoint: str | None
    line: int


class Place(NamedTuple):
    """A line in which a listing may begin, and what is known there.

    ``before`` is the line before it, ``command`` the last line that shows a ``df`` command, and
    ``current`` the listing that is being read.
    """

    text: str
    line: int
    before: str = ""
    command: str = ""
    current: Listing | None = None


# ---- lsblk ----

_LSBLK_COLUMNS = frozenset(
    str.split(
        "ALIGNMENT DAX DISC-ALN DISC-GRAN DISC-MAX DISC-ZERO DISK-SEQ FSAVAIL FSROOTS FSSIZE "
        "FSTYPE FSUSED FSUSE% FSVER GROUP HCTL HOTPLUG ID ID-LINK KNAME LABEL LOG-SEC MAJ MAJ:MIN "
        "MIN MIN-IO MODE MODEL MOUNTPOINT MOUNTPOINTS MQ NAME OPT-IO OWNER PARTFLAGS PARTLABEL "
        "PARTN PARTTYPE PARTTYPENAME PARTUUID PATH PHY-SEC PKNAME PTTYPE PTUUID RA RAND REV RM RO "
        "ROTA RQ-SIZE SCHED SERIAL SIZE START STATE SUBSYSTEMS TRAN TYPE UUID VENDOR WSAME WWN "
        "ZONE-AMAX ZONE-APP ZONE-NR ZONE-OMAX ZONE-SZ ZONE-WGRAN ZONED"
    )
)
_NAMES = ("NAME", "PATH", "KNAME")
_OF_SEVERAL_LINES = {"FSROOTS", "MOUNTPOINTS"}
_OF_SEVERAL_WORDS = {
    *("LABEL", "MODEL", "MOUNTPOINT", "PARTLABEL", "PARTTYPENAME", "SERIAL", "VENDOR"),
    *_OF_SEVERAL_LINES,
}
_CAPITALS = re.compile(r"[A-Z][A-Z0-9:%_-]*")
# Any word but a tree's branches, in whatever a wrong decoding made of them, and dm numbers.
_CELL_WORD = re.compile(
    r"(?<![^ ])(?!(?:[^\x00-\x7f←→—\u2013]|[|`-])+(?: |$)|\?+ +\?|\(dm-\d+\))[^ ]+"
)
_DRAWN = re.compile(r"[│ ]*[├└]|[| ]*[|`]-")
_CELLS = {
    "MAJ:MIN": re.compile(r"\d+:\d+"),
    "SIZE": re.compile(r"\d+(?:[.,]\d+)?[BKMGTPEZY]?", re.ASCII),
    "START": re.compile(r"\d+", re.ASCII),
    "TYPE": re.compile(r"[a-z][\w-]*", re.ASCII),
    "MOUNTPOINT": _MOUNTPOINT,
    "MOUNTPOINTS": _MOUNTPOINT,
} | dict.fromkeys(_NAMES, re.compile(r"[^A-Za-z0-9_/\[]*([A-Za-z0-9_/][\w.+:@!/#\\-]*)", re.ASCII))
# Other programs have columns of these names, so without device numbers rows must be plain.
_COMMON_TYPE = re.compile(
    r"disk|part|rom|loop|lvm|crypt|mpath|dm|md|vdo|stratis|linear|(?:dm)?raid\d*"
)
_KERNEL_NAME = re.compile(
    r"/dev/\S+(?<!:)|(?:(?:[hsv]|xv|das)d[a-z]*|nvme\d+n|mmcblk|md|dm-|sr|fd|loop|zram|nbd|pmem)"
    r"(?:\d+(?:p\d+)?)?"
)
_PAIR = re.compile(r'\b([A-Z][A-Z0-9:%_-]{0,30})="((?:[^"\\]|\\.){0,1024})"')
_JSON_START = re.compile(r'\{?\s*("blockdevices"\s*:)')
_JSON_LINE = re.compile(r'\s*(?:[{}\[\]",:\d-]|null|true|false)')
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[{}\[\]]')
_MAX_JSON_CHARS = 1 << 20


class _Lsblk(Listing):
    """``lsblk`` as a table: a tree, a list, or raw."""

    tool = "lsblk"
    wraps = True
    hint = re.compile(r"(?<![^ ])\d[\d.,]*[BKMGTPEZY]?(?: |$)")

    def row(self, cells: Mapping[str, Any], line: int) -> LsblkRow:
        name = next((str(cells[one]) for one in _NAMES if cells.get(one)), "")
        size = cells.get("SIZE")
        if not name or isinstance(size, bool) or not isinstance(size, int | str):
            raise ParseError("The device has no name or no size.")
        mounts = cells.get("MOUNTPOINTS") or cells.get("MOUNTPOINT") or ""
        # lsblk --raw puts an escaped line feed between several; JSON has a list.
        points = mounts if isinstance(mounts, list) else unescape(str(mounts)).split("\n")
        return LsblkRow(
            name=unescape(name.removeprefix("/dev/").removeprefix("mapper/")),
            size_bytes=parse_size(str(size)),
            type=str(cells.get("TYPE") or ""),
            mountpoints=tuple(str(one) for one in points if one),
            line=line,
            cells={key: str(cell) for key, cell in cells.items() if cell is not None},
        )

    def accepts(self, cells: Mapping[str, re.Match[str]]) -> bool:
        if self.rows and not self.exact and cells["SIZE"][0].isdigit():
            return False  # the size is missing, and this is another number
        if "MAJ:MIN" in self.names:
            return True
        if "TYPE" in self.names:
            return bool(_COMMON_TYPE.fullmatch(cells["TYPE"][0]))
        name = next(cells[one] for one in _NAMES if one in cells)
        drawn = name.start(1) > name.start()
        below = cells["SIZE"].end() in {end for _, end in self.header.spans}
        return drawn or below or bool(_KERNEL_NAME.fullmatch(name[1]))

    def go_on(self, text: str) -> bool:
        """Take further mount points of the last device."""
        if "MOUNTPOINTS" not in self.names:
            return False
        columns, spans = self.header.columns, self.header.spans
        lines = [n for n, one in enumerate(columns) if one.name in _OF_SEVERAL_LINES]
        header = replace(
            self.header,
            columns=tuple(columns[n] for n in lines),
            spans=tuple(spans[n] for n in lines),
        )
        for body in header.bodies(text):
            indented = header.raw or lines[0] == 0 or body.startswith(("  ", "│", "|"))
            cells = header.cells(body) if indented else None
            if cells:
                point = cells["MOUNTPOINTS"][0] if "MOUNTPOINTS" in cells else ""
                points = [one for one in unescape(point).split("\n") if one]
                last = self.rows[-1]
                self.rows[-1] = replace(last, mountpoints=(*last.mountpoints, *points))
                return True
        return False

    def resembles(self, body: str, words: Sequence[str]) -> bool:
        sized = any(_CELLS["SIZE"].fullmatch(one) and one not in {"0", "1"} for one in words)
        named = any(map(_KERNEL_NAME.fullmatch, (words[0], words[-1])))
        numbered = "MAJ:MIN" in self.names and any(map(_CELLS["MAJ:MIN"].fullmatch, words[1:4]))
        drawn = _DRAWN.match(body) or (numbered and {"0", "1"} & set(words))
        return bool(drawn) or (sized and (numbered or named))


class _LsblkPairs(_Lsblk):
    """``lsblk -P``: lines of ``NAME="vda" SIZE="20G"``; the first device again begins anew."""

    def split(self, text: str) -> Iterator[Mapping[str, Any]]:
        cells = dict(_PAIR.findall(text)) if 'SIZE="' in text else {}
        again = bool(self.rows) and self.row(cells, 0).name == self.rows[0].name
        if "SIZE" in cells and not cells.keys().isdisjoint(_NAMES) and not again:
            yield cells


class _LsblkJson(_Lsblk):
    """``lsblk -J``: one JSON object over one or many lines."""

    def __init__(self, place: Place, start: re.Match[str]) -> None:
        super().__init__(Header(prefix=prefix_pattern(place.text[: start.start()])))
        self.unread = [Unread(self.tool, place.text.strip(), place.line)]  # until it is complete
        self._parts = ["{"]
        self._chars = 0
        self._depth = 1
        self._opened = False
        self._take(place.text[start.start(1) :], place.line)

    def miss(self, text: str, line: int) -> None:
        """Ignore what is not JSON."""

    def read(self, text: str, line: int) -> bool:
        body = next(self.header.bodies(text))
        if STAMP.match(body) or not _JSON_LINE.match(body):
            return False
        self._take(body, line)
        return True

    def _take(self, body: str, line: int) -> None:
        def mark(token: re.Match[str]) -> str:
            # Each object gets its line as the value of an empty key.
            if token[0][0] == '"':
                opened, self._opened = self._opened, False
                return f'"": {line}, {token[0]}' if opened else token[0]
            self._opened = token[0] == "{"
            self._depth += 1 if token[0] in "{[" else -1
            return token[0]

        self._parts.append(_JSON_TOKEN.sub(mark, body))
        self._chars += len(body)
        self.complete = self._depth <= 0 or self._chars > _MAX_JSON_CHARS
        if self.complete:
            with contextlib.suppress(
                ValueError, TypeError, KeyError, AttributeError, RecursionError
            ):
                tree, _ = json.JSONDecoder().raw_decode("".join(self._parts))
                devices = list(_flattened(tree["blockdevices"]))
                self.unread = []
                for device in devices:
                    self._add_device(device)

    def _add_device(self, device: Mapping[str, Any]) -> None:
        cells = {key.upper(): value for key, value in device.items()}
        try:
            if "SIZE" in cells:
                self.add(self.row(cells, cells.get("", 0)), cells)
        except ParseError:
            self.unread.append(Unread(self.tool, json.dumps(device)[:200], cells.get("", 0)))


def _flattened(devices: Sequence[dict[str, Any]], parent: str = "") -> Iterator[dict[str, Any]]:
    for device in devices:
        yield device | {"pkname": parent or device.get("pkname") or ""}
        name = next((str(device[one]) for one in ("name", "path", "kname") if device.get(one)), "")
        yield from _flattened(device.get("children") or [], name)


def _begin_pairs(place: Place) -> Listing | None:
    listing = _LsblkPairs(Header())
    return listing if 'SIZE="' in place.text and listing.read(place.text, place.line) else None


def _begin_json(place: Place) -> Listing | None:
    start = _JSON_START.search(place.text) if '"blockdevices"' in place.text else None
    return _LsblkJson(place, start) if start else None


def _begin_lsblk(place: Place) -> Listing | None:
    header = _lsblk_header(place.text) if "SIZE" in place.text else None
    return _Lsblk(header) if header else None


@lru_cache(maxsize=32)
def _lsblk_header(text: str) -> Header | None:
    words = header_words(text)
    # The article's own excerpt ends its header with a full stop.
    names = [word[0].removesuffix(".") for word in words]
    numbered = "MAJ:MIN" in names
    first = len(names)
    while first and (
        names[first - 1] in _LSBLK_COLUMNS or (numbered and _CAPITALS.fullmatch(names[first - 1]))
    ):
        first -= 1
    names = names[first:]
    if "SIZE" not in names or len(set(names)) < len(names) or set(names).isdisjoint(_NAMES):
        return None
    needed = {next(one for one in _NAMES if one in names), "MAJ:MIN", "RM", "RO", "SIZE", "TYPE"}
    columns = [
        Column(
            name,
            _CELLS.get(name, _ANY),
            optional=name not in needed,
            several=name in _OF_SEVERAL_WORDS or name not in _LSBLK_COLUMNS,
        )
        for name in names
    ]
    remark = _ANY if numbered or "TYPE" in names else _REMARK
    return Header.of(text, words[first:], columns, remark=remark, word=_CELL_WORD)


# ---- df ----

_NUMBER = re.compile(r"-?\d[\d.,'\u2019\u202f]*[A-Za-z]{0,3}|-")
_DF_COLUMNS = {
    one.name: one
    for one in (
        Column("FILESYSTEM", re.compile(r"(?=\S*\w)\S+(?: (?!/)\S*[^\s:])*"), several=True),
        Column("TYPE", re.compile(r"[A-Za-z][\w.+-]*|-")),
        Column("SIZE", _NUMBER),
        Column("USED", _NUMBER),
        Column("AVAILABLE", _NUMBER),
        Column("PERCENT", re.compile(r"\d+%|-")),
        Column("MOUNTPOINT", re.compile(_MOUNTPOINT.pattern + "|-"), several=True),
    )
}
_COLUMN_NAMES = {
    **{name.lower(): name for name in ("FILESYSTEM", "TYPE", "SIZE", "USED")},
    **dict.fromkeys(("avail", "available", "free"), "AVAILABLE"),
    **dict.fromkeys(("use%", "capacity", "%cap", "%used"), "PERCENT"),
    **dict.fromkeys(("mounted_on", "mounted"), "MOUNTPOINT"),
}
_NUMBERS = ("SIZE", "USED", "AVAILABLE")
_DF_ROW = tuple(replace(one, several=one.name == "MOUNTPOINT") for one in _DF_COLUMNS.values())
_INODE_COLUMNS = {"inodes", "iused", "ifree", "iuse%", "%iused", "file"}
# "Size" in the translations of GNU df.
_SIZE_ABROAD = frozenset(
    str.split(
        "Besar Boyut Cỡ Dim. Dimens Grando Grootte Größe Koko Maht Mida Méid Méret Saiz Storlek "
        "Størr Størrelse Taille Tam. Tamai Tamanho Tamaño Vel. Velikost Veličina Veľk rozm. "
        "Величина Памер Размер Розм Өлшемі サイズ 大小 容量 크기"
    )
)
# "Type" in them.
_TYPE_ABROAD = frozenset(
    str.split(
        "Kiểu Tip Tipas Tipe Tipo Tipus Típus Tür Tüüp Typ Type Tyyppi Vrsta Τύπος Тип "
        "タイプ 类型 類型 종류 형식"
    )
)
_BLOCKS = re.compile(r"(\d{0,9})([kKMGTPE]?)(iB|B)?(?:-blocks|bytes)")
# The same in translations: 1K-Blöcke, blocs de 1K.
_BLOCKS_ABROAD = re.compile(
    r"(?<!\S)(\d{1,9})(?=[kKMGTPEB-])([kKMGTPE]?)(iB|B)?(?:-[^\W\d]\S*)?(?!\S)"
)
# A prompt of zsh and a sentence have a percent sign, too.
_PERCENT_COLUMN = re.compile(r"(?:[^\W\d][. ]?%|(?<!\S)%[^\W\d]\S*)(?=\s+[^\W\d])")
_HUMAN = re.compile(r"\d{1,4}(?:[.,]\d{1,2})?[A-Za-z]{1,3}|\d{1,3}|10[0-2]\d")
_GROUPED = re.compile(r"(\d{1,3}(?:[.,'\u2019\u202f]\d{3})+|\d+)([A-Za-z]*)", re.ASCII)
_PERCENT_AND_PATH = re.compile(r" \d{1,3}% +/")
_PERCENT_BYTES = re.compile(rb"\d%[ \t]+/")
_COMMAND = re.compile(r"(?<![\w./-])df((?: +[^ ;|&]+)*)")
_LONG_OPTIONS = {"--si": "H", "--human-readable": "h", "--inodes": "i"}


class _Df(Listing):
    """``df`` in any of its forms.

    Parameters
    ----------
    header : Header
        Without columns where none is known; then lines like rows are unread.
    block_bytes : int or None
        What a number without a unit counts; 0 where the header does not say it exactly, None
        for human units.
    options : set of str
        Of the command, if it was echoed: ``H`` makes human units powers of 1000.
    gnu : bool
        Whether a lower-case k shows the same, as in GNU's df; the BSDs always print it so.
    """

    tool = "df"
    wraps = True

    def __init__(
        self, header: Header, block_bytes: int | None, options: frozenset[str], *, gnu: bool = False
    ) -> None:
        super().__init__(header)
        self.hint = re.compile(r"\d%| - ") if "PERCENT" in self.names else re.compile(r" -?\d")
        # statfs counts blocks of 1 KiB or more, but for a few small filesystems.
        self.exact = bool(block_bytes) and 1024 % (block_bytes or 1) == 0
        self._block_bytes = block_bytes
        self._base = 1000 if "H" in options else 1024
        self._cells: list[Mapping[str, str]] | None = [] if gnu else None

    def accepts(self, cells: Mapping[str, re.Match[str]]) -> bool:
        return bool({"PERCENT", "MOUNTPOINT"} & cells.keys()) or cells["FILESYSTEM"][0][0] == "/"

    def row(self, cells: Mapping[str, str], line: int) -> DfRow | None:
        if "SIZE" not in self.names:
            raise ParseError("This table does not show sizes.")  # but inodes
        size, used, available = (self._number(cells.get(one, "-")) for one in _NUMBERS)
        filesystem, point = cells.get("FILESYSTEM"), cells.get("MOUNTPOINT")
        if size is None or (filesystem == "total" and point in {None, "-"}):
            return None
        return DfRow(filesystem, size, used, available, point and unescape(point), line)

    def add(self, row: object, cells: Mapping[str, Any]) -> None:
        """Add a row; if it shows that units are powers of 1000, those before were so, too."""
        self.rows.append(row)
        if self._cells is not None:
            self._cells.append(cells)
            if any(cells.get(one, "").endswith("k") for one in _NUMBERS):
                self._base = 1000
                old = zip(self._cells, self.rows, strict=True)
                self.rows, self._cells = [self.row(one, row.line) for one, row in old], None

    def resembles(self, body: str, words: Sequence[str]) -> bool:
        del body
        if self.names and "SIZE" not in self.names:
            return False
        paths = [word.startswith("/") for word in words]
        percent = any(map(_DF_COLUMNS["PERCENT"].cell.fullmatch, words))
        device = words[0].startswith("/dev/") and not words[0].endswith(":")
        return (percent and any(paths)) or (device and len(words) != 2 and paths[-1])  # noqa: PLR2004

    def report(self) -> dict[str, Any]:
        """Return what it adds to a report."""
        return super().report() | {"df_base": self._base, "df_block_bytes": self._block_bytes}

    def _number(self, cell: str) -> int | None:
        if cell == "-":
            return None
        sign, digits = (-1, cell[1:]) if cell.startswith("-") else (1, cell)
        if self._block_bytes is None:
            # Neither 2,134 nor 2134: df chooses a unit that makes numbers smaller.
            if not _HUMAN.fullmatch(digits):
                raise ParseError(f"{cell[:40]!r} is not a size in human units.")
            return sign * parse_size(digits, base=self._base)
        grouped = _GROUPED.fullmatch(digits)
        if grouped is None or not self._block_bytes:
            raise ParseError(f"{cell[:40]!r} is not a number of blocks.")
        number = parse_size(re.sub(r"\D", "", grouped[1]) + grouped[2])
        number *= 1 if grouped[2] else self._block_bytes
        if number > MAX_INT:
            raise ParseError(f"{cell[:40]!r} is more than any disk holds.")
        return sign * number


def _options(command: str) -> frozenset[str]:
    """Return the option letters of a ``df`` command in a line."""
    found = _COMMAND.search(command)
    words = [word for word in found[1].split() if word.startswith("-")] if found else []
    return frozenset(
        "".join(_LONG_OPTIONS.get(one, "" if one[:2] == "--" else one) for one in words)
    )


def _begin_df(place: Place) -> Listing | None:
    if "Filesystem" not in place.text and "Mounted on" not in place.text:
        return None
    header, block_bytes = _df_header(place.text)
    gnu = "Use%" in place.text
    return _Df(header, block_bytes, _options(place.command), gnu=gnu) if header else None


def _block_bytes(blocks: re.Match[str] | None) -> int:
    """Return what a header says that a number counts; 0 if it does not say it exactly."""
    if blocks is None:
        return 0
    base = 1000 if blocks[3] == "B" and blocks[2] else 1024
    return int(blocks[1] or 1) * int(base ** POWERS[blocks[2].upper() or "B"])


@lru_cache(maxsize=32)
def _df_header(text: str) -> tuple[Header | None, int | None]:
    """Return the header of a df, of sizes or inodes, and what a number without a unit counts."""
    text = text.replace("Mounted on", "Mounted_on")
    words = header_words(text)
    names = [word[0].removesuffix(".") for word in words]
    first = next((n for n, one in enumerate(names) if one in {"Filesystem", "Mounted_on"}), None)
    block_bytes, columns = None, []
    for name in names[first:] if first is not None else ():
        known = _COLUMN_NAMES.get(name.lower(), "")
        if name.endswith(("-blocks", "kbytes")):
            known, block_bytes = "SIZE", _block_bytes(_BLOCKS.fullmatch(name))
        columns.append(_DF_COLUMNS.get(known) or Column(name.lower(), _ANY, optional=True))
    found = {column.name for column in columns}
    others = found - _DF_COLUMNS.keys() - _INODE_COLUMNS and "MOUNTPOINT" not in found
    counted = "SIZE" in found or not found.isdisjoint(_INODE_COLUMNS)
    if not counted or len(found) < max(len(columns), 2) or others:
        return None, None
    remark = _ANY if "PERCENT" in found else _REMARK
    return Header.of(text, words[first:], columns, remark=remark), block_bytes


def _begin_df_rows(place: Place) -> Listing | None:
    """Begin a ``df`` whose header is missing, or in a language other than English."""
    percent = None if isinstance(place.current, _Df) else _PERCENT_AND_PATH.search(place.text)
    numbers = place.text[: percent.start()].split()[-3:] if percent else []
    if len(numbers) < 3 or not all(map(_NUMBER.fullmatch, numbers)):  # noqa: PLR2004
        return None
    options = _options(place.command)
    # Without the word for size, these may be numbers of inodes, or blocks of any size.
    sized = not _SIZE_ABROAD.isdisjoint(place.before.split())
    percents = _PERCENT_COLUMN.search(place.before)
    counted = _BLOCKS_ABROAD.search(place.before, 0, percents.start()) if percents else None
    known = sized or counted or (not options.isdisjoint("hH") and "i" not in options)
    block_bytes = _block_bytes(counted) if counted else None
    typed = "T" in options or not _TYPE_ABROAD.isdisjoint(place.before.split())
    columns = [one for one in _DF_ROW if typed or one.name != "TYPE"] if known else ()
    listing = _Df(Header(tuple(columns), remark=_ANY), block_bytes, options)
    if not listing.read(place.text, place.line):
        listing.miss(place.text, place.line)
    return listing


#: What recognises the first line of a listing, or a row of one without a header.
BEGINNINGS: tuple[Callable[[Place], Listing | None], ...] = (
    _begin_pairs,
    _begin_json,
    _begin_lsblk,
    _begin_df,
    _begin_df_rows,
)

#: What a line must hold so that a listing may begin in it.
TRIGGER = re.compile(r'SIZE|Filesystem|Mounted on|"blockdevices"|%[ \t]+/')


def may_begin(line: bytes) -> bool:
    """Tell from a line's bytes, quickly, whether a listing can begin in it."""
    if b"SIZE" in line and (b"NAME" in line or b"PATH" in line):
        return True
    if b"Filesystem" in line or b"Mounted on" in line:
        return b"ize" in line or b"blocks" in line or b"nodes" in line or b"kbytes" in line
    return b'"blockdevices"' in line or bool(b"%" in line and _PERCENT_BYTES.search(line))


def begin_listing(place: Place) -> Listing | None:
    """Return the listing that begins at a place; a row that begins it is read already."""
    return next((listing for begin in BEGINNINGS if (listing := begin(place))), None)
