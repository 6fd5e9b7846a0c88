"""Evidence from any machine: files, archives, disk images and pastes as numbered, clean lines.

What a file is shows in its content; its name is used in quotations only.  Copies of evidence can
leave out what names a machine: host names, addresses, keys, UUIDs.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import sys
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

from cloudlab import paths
from cloudlab.console import printable
from cloudlab.disk import DiskLayout, inspect_disk
from cloudlab.errors import CloudlabError, ParseError
from cloudlab.explanation.model import Source
from cloudlab.formats import format_of, is_disk, read_ends
from cloudlab.sizes import ParsedConsole, parse_console
from cloudlab.sizes.lines import PROMPT, texts
from cloudlab.sizes.parser import whole_lines

#: A path, ``-`` for standard input, or a text of several lines.
EvidenceSource = str | Path

# All lines of a smaller file are kept.
_WHOLE_BYTES = 1 << 20
_CHUNK_BYTES = 4 << 20
_MOST_UTF16_BYTES = 1 << 26
_LONGEST_LINE = 2000
_MOST_LINES = 20_000
_MOST_MEMBERS = 2000
_MOST_BYTES = 1 << 30
# Of larger files: what a line holds that may be evidence, and headers of tables with their rows.
_WORDS = (
    b"growpart|resizefs|resizing filesystem|resized filesystem|resize device|GROWROOT|"
    b"growroot|CHANGED: |CHANGE: |FAILED: |resize2fs|xfs_growfs|GPT:|backup GPT|"
    b"capacity change|] new size:|blocks changed from|systemd-repart|Growing existing|"
    b'systemd-growfs|resized "/|resize "/|Cloud-init v. |loud-init disabled|status: |'
    b"Disabled cloud-init|status_code|No space left|userdata|Failed loading yaml|"
    b"already ran (freq|root filesystem|unknown filesystem|resize_info|not exist|"
    b"not a block|old partition|old table|DOS partition table|MBR/dos|meta-data=|"
    b" blocks=|#cloud-config|Reached target|login:|blocks long|volume group|partition table|"
    b"Resized partition|e2fsck -f|Nothing to read on input|logical volume|Applying changes|"
    b"Block count|gce-disk-expand|crypt_resize|underlying device|not the last partition|new partition|"
    b"file system resize|resizing is not|fs with errors|Skip resize|Physical volume|OK; writing|update /etc/fstab|partprobe|"
    b"Kernel command line|operation has completed|partition #"
).split(b"|")
_TABLES = (
    b"Disk /dev/|Device |Number  Start|label: |  PV |  VG |  LV |NAME |TARGET |"
    b'major minor|"blockdevices"|"partitiontable"|Personalities'
).split(b"|")
_ROWS_AFTER_HEADER = 40
_MOST_BROKEN = 100
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_PROMPT = re.compile(PROMPT + " ")
_SHELL = re.compile(PROMPT + r" |[$#] \w")
_CLOUD_CONFIG = re.compile("#cloud-config", re.IGNORECASE)
# A root prompt looks like a comment; in MIME a boundary follows.
_AFTER_USER_DATA = re.compile(
    r"--|# (?:lsblk|df|fdisk|growpart|cat|grep|pvs|vgs|lvs|dmesg|journalctl|cloud-init|parted)\b"
)
_HOST_COMMAND = re.compile(
    r"[$#] (?:sudo )?(?:virsh|qm|pvesm|qemu-img|VBoxManage|xl|xe|multipass|limactl|govc|incus|lxc) \w"
)
# What a hypervisor says of its guest's disk: qemu-img info, Proxmox's qm config.
_VIRTUAL_SIZE = re.compile(r"^virtual size: |^(?:virtio|scsi|sata|ide)\d+: .*\bsize=\d")
# What date prints in the locales C, en_US and en_GB.
_DATE = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) .*\b\d\d:\d\d:\d\d\b")
_ZONE = re.compile(r"(?!AM$|PM$)[A-Z]{2,5}|[+-]\d{2,4}")
_DATE_FORMATS = tuple(
    f"%a {day} {rest}"
    for day in ("%b %d", "%d %b")
    for rest in ("%H:%M:%S %Y", "%I:%M:%S %p %Y", "%Y %H:%M:%S", "%Y %I:%M:%S %p")
)
_MAIL = re.compile(r"(?:> ?)+")
_INDENT = re.compile(r" {4}")


class Line(NamedTuple):
    """A line of evidence, cleaned; ``order`` counts through all files, logs first.

    ``number`` is 0 for what stands on no line; without a ``source`` the text shows it.  ``host``
    is the one whose prompt came last before it, empty if none did.
    """

    file: str
    number: int
    text: str
    order: int = 0
    source: Source | None = None
    host: str = ""

    def same_machine(self, other: Line) -> bool:
        """Tell whether both are of one file, or below one host's prompts, and not of two hosts."""
        one_host = self.host == other.host != ""
        return (self.file == other.file or one_host) and not self.other_host(other)

    def before(self, other: Line) -> bool:
        """Tell whether it stands before another line of its file."""
        return self.file == other.file and self.order < other.order

    def soon_after(self, other: Line, lines: int) -> bool:
        """Tell whether it stands below another line of its file, by less than so many lines."""
        return self.file == other.file and 0 < self.number - other.number < lines

    def may_precede(self, other: Line) -> bool:
        """Tell whether it is of the same machine and may be older: two files have no order."""
        return self.same_machine(other) and (self.file != other.file or self.before(other))

    def other_host(self, other: Line) -> bool:
        """Tell whether both are below prompts, of different hosts."""
        return len({self.host, other.host, ""}) > 2  # noqa: PLR2004


@dataclass
class Document:
    """One file, member of an archive, or paste.

    Attributes
    ----------
    name : str
    lines : list of Line
        All of a small file; of a large one those that may be evidence.
    parsed : ParsedConsole or None
        What ``lsblk``, ``df`` and cloudlab's own report in it say.
    layout : DiskLayout or None
        Of a disk image.
    total_lines : int
    kinds : set of str
        What was recognised in it, in words; filled by the readers.
    """

    name: str
    lines: list[Line] = field(default_factory=list)
    parsed: ParsedConsole | None = None
    layout: DiskLayout | None = None
    total_lines: int = 0
    kinds: set[str] = field(default_factory=set)

    def json_objects(self, key: str) -> Iterator[tuple[Line, Any]]:
        """Yield the values of JSON objects that have ``key`` first, each with the key's line."""
        if not any(f'"{key}"' in line.text for line in self.lines):
            return
        text, broken = "\n".join(line.text for line in self.lines), 0
        for match in re.finditer(r'\{\s*"' + key + '"', text):
            try:
                value = json.JSONDecoder().raw_decode(text, match.start())[0][key]
                yield self.lines[text.count("\n", 0, match.end())], value
            except (ValueError, RecursionError, KeyError):
                broken += 1  # each may take as long as the text is
                if broken == _MOST_BROKEN:
                    return

    def without_plans(self) -> Iterator[Line]:
        """Yield the lines, but for the table that ``growpart --dry-run`` would write."""
        planned = False
        for line in self.lines:
            planned = line.text.startswith("# === new") or (planned and not _SHELL.match(line.text))
            if not planned:
                yield line

    def cloud_configs(self) -> Iterator[tuple[Line, str]]:
        """Yield where ``#cloud-config`` begins user-data in a paste, and its text."""
        starts = [n for n, line in enumerate(self.lines) if _CLOUD_CONFIG.match(line.text)]
        for start in starts[:20]:
            taken: list[str] = []
            for line in self.lines[start : start + 2000]:
                prompt = _SHELL.match(line.text) and not line.text.startswith("# ")
                if taken and (prompt or _AFTER_USER_DATA.match(line.text)):
                    break
                taken.append(line.text)
            yield self.lines[start], "\n".join(taken)

    @property
    def is_log(self) -> bool:
        """Whether it was written during a boot, so that what a shell shows came later."""
        head = "\n".join(line.text for line in self.lines[:40])
        return bool(re.search(r"\.py\[[A-Z]+\]: |^\[ *\d+\.\d+\] ", head, re.MULTILINE)) or (
            len(re.findall(r"^\w{3,5}\.? +\d+ \d\d:\d\d:\d\d ", head, re.MULTILINE)) > 1
        )

    @cached_property
    def date(self) -> datetime | None:
        """When a shell first ran ``date`` in it, on the machine's clock; None for a log."""
        if self.is_log:
            return None
        return next(filter(None, (_date_in(line.text) for line in self.lines)), None)


def _date_in(text: str) -> datetime | None:
    """Return what an English ``date`` printed on a line, without its time zone."""
    if not _DATE.match(text):
        return None
    words = [one for one in text.split() if not _ZONE.fullmatch(one)]
    for form in _DATE_FORMATS:
        with contextlib.suppress(ValueError):
            return datetime.strptime(" ".join(words), form)  # noqa: DTZ007
    return None


def read_evidence(sources: Iterable[EvidenceSource]) -> list[Document]:
    """Return what the sources hold, in the order in which it came about as far as that shows.

    Raises
    ------
    ParseError
        If a source cannot be read, or is empty.
    """
    documents = [one for source in sources for one in _read(source)]
    documents.sort(key=lambda one: not one.is_log)
    dated = [(one.date, place) for place, one in enumerate(documents) if one.date]
    in_time = [documents[place] for _, place in sorted(dated)]
    for (_, place), document in zip(dated, in_time, strict=True):
        documents[place] = document
    _leave_out_hosts(documents)
    order = 0
    for document in documents:
        for number, line in enumerate(document.lines):
            document.lines[number] = line._replace(order=order)
            order += 1
    return documents


def _leave_out_hosts(documents: list[Document]) -> None:
    """Blank what a hypervisor's own shell shows beside that of its guest.

    Its disks and root filesystem are not the machine's in question.
    """
    by_host: dict[str, list[tuple[Document, int]]] = {}
    hypervisors = set()
    for document in documents:
        host = ""
        for number, line in enumerate(document.lines):
            if prompt := _PROMPT.match(line.text):
                host = prompt[1]
                if _HOST_COMMAND.search(line.text):
                    hypervisors.add(host)
            document.lines[number] = line._replace(host=host)
            by_host.setdefault(host, []).append((document, number))
    if len(by_host) > len(hypervisors):
        for document, number in (place for host in hypervisors for place in by_host[host]):
            line = document.lines[number]
            if not _VIRTUAL_SIZE.search(line.text):
                document.lines[number] = line._replace(text="")


def _read(source: EvidenceSource) -> Iterator[Document]:
    if isinstance(source, str) and "\n" in source:
        yield _document("text", io.BytesIO(source.encode("utf-8", "replace")))
        return
    if str(source) == "-":
        with _spooled(sys.stdin.buffer) as copy:
            yield _document("standard input", copy)
        return
    path = paths.expand(source)
    try:
        if path.is_dir():
            for member in sorted(path.rglob("*"))[:_MOST_MEMBERS]:
                if member.is_file() and not member.is_symlink():
                    yield from _read_file(member, str(member.relative_to(path)))
            return
        yield from _read_file(path, path.name)
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = paths.why_not(path, error) if isinstance(error, OSError) else str(error)
        raise ParseError(
            f"{path} cannot be read: {reason}.",
            hint="Name files, folders, archives or run folders; - reads standard input.",
        ) from error


def _read_file(path: Path, name: str) -> Iterator[Document]:
    if not path.is_file():  # a pipe, such as <(journalctl -b)
        with path.open("rb") as stream, _spooled(stream) as copy:
            yield _document(name, copy)
        return
    ends = read_ends(path)
    kind = format_of(ends.head, ends.tail)
    if is_disk(kind, ends.head):
        document = Document(name, kinds={"disk image"})
        try:
            document.layout = inspect_disk(path)
        except CloudlabError as error:
            raise ParseError(f"{path} is a disk image: {error.message}", hint=error.hint) from error
        yield document
        return
    with path.open("rb") as stream:
        if kind == "tar" or tarfile.is_tarfile(stream):
            stream.seek(0)
            yield from _members(name, stream)
            return
        stream.seek(0)
        if kind == "gzip":
            with gzip.open(stream) as unpacked, _spooled(unpacked) as copy:
                yield _document(name, copy)
            return
        yield _document(name, stream)


def _spooled(stream: IO[bytes] | gzip.GzipFile) -> IO[bytes]:
    """Return what a stream holds, as a file that can be read twice; a large one is on disk."""
    copy = tempfile.SpooledTemporaryFile(_CHUNK_BYTES)  # noqa: SIM115 - the caller reads it
    size_bytes = 0
    while chunk := stream.read(1 << 20):
        size_bytes += copy.write(chunk)
        if size_bytes > _MOST_BYTES:
            copy.close()
            raise ParseError(
                f"The stream holds more than {_MOST_BYTES >> 20} MiB.",
                hint="Select what is about the disk first, e.g. with journalctl -b or grep.",
            )
    return copy


def _members(name: str, stream: IO[bytes]) -> Iterator[Document]:
    """Yield the files of an archive; nothing is written to the disk."""
    with tarfile.open(fileobj=stream) as archive:
        for count, member in enumerate(archive):
            if count >= _MOST_MEMBERS:
                return
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None and member.size <= _MOST_BYTES:
                yield _document(f"{name}:{member.name}", content)


def _document(name: str, stream: IO[bytes]) -> Document:
    document = Document(printable(name))
    start = stream.read(4)
    if start[:2] in {b"\xff\xfe", b"\xfe\xff"}:  # PowerShell writes UTF-16
        text = (start + stream.read(_MOST_UTF16_BYTES)).decode("utf-16", "replace")
        stream = io.BytesIO(text.encode())
    stream.seek(0)
    try:
        document.parsed = parse_console(stream)
    except ParseError:
        document.parsed = None
    size_bytes = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    found: Iterable[tuple[int, bytes]] = enumerate(stream, 1)
    if size_bytes > _WHOLE_BYTES:
        found = _telling_lines(stream)
    quoted = indented = 0
    last: deque[Line] = deque(maxlen=_MOST_LINES // 2)
    for number, raw in found:
        document.total_lines = max(document.total_lines, number)
        if raw.startswith(b'{"') and b'"MESSAGE"' in raw:
            raw = _journal_message(raw)  # noqa: PLW2901
        text = " ".join(piece for piece in texts(raw.rstrip(b"\r\n")[:_LONGEST_LINE]) if piece)
        line = Line(document.name, number, text.translate(_QUOTES).rstrip())
        # Of too many, the first and the last are kept.
        (document.lines if len(document.lines) < _MOST_LINES // 2 else last).append(line)
        quoted += line.text.startswith(">")
        indented += line.text.startswith("    ") or not line.text
    document.lines += last
    around = _MAIL if quoted * 2 > len(document.lines) else None
    around = _INDENT if indented == len(document.lines) else around
    if around is not None:
        document.lines = [
            line._replace(text=around.sub("", line.text, count=1)) for line in document.lines
        ]
    return document


def _journal_message(raw: bytes) -> bytes:
    """Return a line of ``journalctl -o json`` as ``journalctl`` prints it."""
    try:
        entry = json.loads(raw)
        message = entry["MESSAGE"]
        message = bytes(message) if isinstance(message, list) else str(message).encode()
        identifier = str(entry.get("SYSLOG_IDENTIFIER", "")).encode()
        return identifier + b": " + message
    except (ValueError, KeyError, TypeError, RecursionError):
        return raw


def _telling_lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a large file that may be evidence, without looking at each."""
    first = 1
    for data in whole_lines(stream, _CHUNK_BYTES):
        yield from _telling(data, first)
        first += data.count(b"\n")


def _telling(data: bytes, first: int) -> Iterator[tuple[int, bytes]]:
    starts: dict[int, int] = {}  # where a line begins -> how many more lines are kept
    for rows, words in ((0, _WORDS), (_ROWS_AFTER_HEADER, _TABLES)):
        for word in words:
            at = data.find(word)
            while at >= 0 and len(starts) < _MOST_LINES:
                start = data.rfind(b"\n", 0, at) + 1
                starts[start] = max(rows, starts.get(start, 0))
                at = data.find(b"\n", at)
                at = data.find(word, at) if at >= 0 else -1
    number, counted, done = first, 0, 0
    for start in sorted(starts):
        number += data.count(b"\n", counted, start)
        counted = start
        at, line = start, number
        for _ in range(starts[start] + 1):
            end = data.find(b"\n", at)
            end = len(data) if end < 0 else end
            if at >= done and at < len(data):
                yield line, data[at : min(end, at + _LONGEST_LINE)].rstrip(b"\r")
                done = end + 1
            at, line = end + 1, line + 1


# ---- copies without names ----

_HEX = r"[0-9a-fA-F]"
# Each distinct value gets a number of its own, so that what was equal stays equal.
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "key",
        re.compile(
            r"-----BEGIN [A-Z ]*(?:PRIVATE KEY|CERTIFICATE)-----.*?(?:-----END [A-Z ]+-----|\Z)"
            r"|(?<![\w/])(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-\S+|sk-\S+@openssh\.com) [\w+/=]+"
            r"|(?:SHA256:[\w+/]{43}=?|MD5:(?:[0-9a-f]{2}:){15}[0-9a-f]{2})"
            r"|\$(?:1|5|6|2[aby]|y|gy)\$[\w./$=,]+"
            r"|(?<![\w.])(?:AKIA|ASIA)[A-Z0-9]{16}|(?<![\w.])eyJ[\w-]{10,}\.[\w-]+\.[\w-]*"
            r"|(?<=[Bb]earer )[\w.~+/=-]{8,}",
            re.DOTALL,
        ),
    ),
    (
        "secret",
        re.compile(
            r"(?i)(?<![\w-])(?:(?:hashed_?)?passw(?:or)?d|passphrase|secret(?:_key)?|(?:api_?|access_?)?token"
            r"|private_key|client_secret|api_?key)[\"']?\s*[:=]\s*(?P<value>[^\s\"',]{3,}|\"[^\"\n]+\"|'[^'\n]+')"
        ),
    ),
    ("uuid", re.compile(rf"(?<!{_HEX}){_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}(?!{_HEX})")),
    (
        "uuid",
        re.compile(
            rf"(?<=UUID=)[\"']?{_HEX}{{4,8}}-{_HEX}{{2,4}}(?!\w)"
            rf"|(?<=[Ii]dentifier: )(?:0x)?{_HEX}{{8}}|(?<=label-id: )(?:0x)?{_HEX}{{8}}"
            r"|(?<!\w)\w{6}(?:-\w{4}){5}-\w{6}(?!\w)"
        ),
    ),
    ("mac", re.compile(rf"(?<![\w:]){_HEX}{{2}}(?::{_HEX}{{2}}){{5}}(?![\w:])")),
    ("mail", re.compile(r"(?<![\w.])[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}(?![\w.])")),
    (
        "address",
        re.compile(
            rf"(?<![\w:.])(?:{_HEX}{{1,4}}:){{2,7}}(?::?{_HEX}{{1,4}}|:)(?:::?{_HEX}{{1,4}})*(?![\w:])"
            rf"|(?<![\w:])(?:fe80|f[cd]\w\w|2\w{{3}})::?[{'0-9a-fA-F'}:]+"
        ),
    ),
    ("address", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")),
    (
        "instance",
        re.compile(r"(?<![\w-])(?:i-[0-9a-f]{8,17}|iid-[\w.-]+|vol-[0-9a-f]{8,17})(?![\w-])"),
    ),
    ("serial", re.compile(r"(?i)(?<=SERIAL=)\S+|(?<=serial number: )\S+")),
)
# What is the same on every machine.
_KEPT = re.compile(
    r"127\.0\.0\.\d+|0\.0\.0\.0|255\.255\.\d+\.\d+|::1?|169\.254\.169\.254|\d+:\d+:\d+"
    r"|(?:00:){5}00|(?:ff:){5}ff|root@localhost\S*"
)
_HOST_SOURCES = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"(?:^|[\[>])(?:[\w.-]+)@(?P<host>[\w-][\w.-]*)[: ~\]]",
        r"^\S{3,5}\.? +\d+ \d\d:\d\d:\d\d (?P<host>[\w-][\w.-]*) [\w@./-]+(?:\[\d+\])?:",
        r"^\d{4}-\d\d-\d\dT\S+ (?P<host>[A-Za-z][\w.-]*) [\w@./-]+(?:\[\d+\])?:",
        r"^(?P<host>[\w-]+(?:\.[\w-]+)*) login:",
        r"(?:UNAME_NODENAME=|set hostname to |(?<![\w-])(?:local-)?hostname: ?)[\"']?(?P<host>[\w.-]+)",
        r"^\s*\"?(?:fqdn|_HOSTNAME)\"?[:=] ?[\"']?(?P<host>[\w.-]+)",
    )
)
_COMMON_HOSTS = {"localhost", "localhost.localdomain", "debian", "ubuntu", "host", "root"}

# A text is redacted as a whole, in memory.
_MOST_REDACTED_BYTES = 256 << 20


class Redactor:
    """Replaces names, always the same one by the same."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._hosts: set[str] = set()

    def learn(self, text: str) -> None:
        """Note the host names that a text shows where a host name stands."""
        for pattern in _HOST_SOURCES:
            for match in pattern.finditer(text):
                host = match["host"].strip(".")
                if len(host) > 1 and host.lower() not in _COMMON_HOSTS and not host.isdigit():
                    self._hosts.add(host)

    def redact(self, text: str) -> str:
        """Return a text without names; lengths of columns may change."""
        for kind, pattern in _PATTERNS:
            text = pattern.sub(lambda match, kind=kind: self._replace(kind, match), text)  # type: ignore[misc]
        if self._hosts:
            longest_first = sorted(map(re.escape, self._hosts), key=len, reverse=True)
            hosts = re.compile(rf"(?<![\w/.-])(?:{'|'.join(longest_first)})(?![\w-])")
            text = hosts.sub(lambda match: self._name("host", match[0]), text)
        return text

    def _replace(self, kind: str, match: re.Match[str]) -> str:
        if kind == "secret":
            start, end = (at - match.start() for at in match.span("value"))
            return f"{match[0][:start]}REDACTED{match[0][end:]}"
        if kind in {"address", "mac"} and _KEPT.fullmatch(match[0]):
            return match[0]
        return self._name(kind, match[0])

    def _name(self, kind: str, value: str) -> str:
        known = self._names.get((kind, value))
        if known is None:
            number = 1 + sum(one == kind for one, _ in self._names)
            known = self._names[kind, value] = f"{kind.upper()}-{number}"
        return known


def redact_files(files: Iterable[Path | str], streams: IO[str], stdin: IO[bytes]) -> None:
    """Write the texts of files, with names replaced, to a stream, each below its own name.

    Raises
    ------
    ParseError
        If a file cannot be read or is not text.
    """
    texts = [(str(path), _text_of(path, stdin)) for path in files]
    redactor = Redactor()
    for _, text in texts:
        redactor.learn(text)
    for name, text in texts:
        if len(texts) > 1:
            streams.write(f"==> {printable(redactor.redact(Path(name).name))} <==\n")
        lines = redactor.redact(text).split("\n")
        streams.write("\n".join(map(printable, lines)).rstrip("\n") + "\n")


def _text_of(path: Path | str, stdin: IO[bytes]) -> str:
    try:
        with contextlib.nullcontext(stdin) if str(path) == "-" else Path(path).open("rb") as stream:
            raw = stream.read(_MOST_REDACTED_BYTES + 1)
    except OSError as error:
        raise ParseError(
            f"{path} cannot be read: {paths.why_not(Path(path), error)}.",
            hint="Name text files, or - for standard input.",
        ) from error
    if b"\0" in raw[:4096]:
        raise ParseError(
            f"{path} is not a text, so nothing in it can be redacted.",
            hint="Unpack archives first and name the files in them.",
        )
    if len(raw) > _MOST_REDACTED_BYTES:
        raise ParseError(
            f"{path} is longer than {_MOST_REDACTED_BYTES >> 20} MiB, so it was not redacted.",
            hint="Select what is about the disk first, e.g. with journalctl -b or grep.",
        )
    return raw.decode("utf-8", "replace").replace("\r\n", "\n")
