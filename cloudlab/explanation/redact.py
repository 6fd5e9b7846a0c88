"""Copies of evidence without what names a machine: host names, addresses, keys, UUIDs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from cloudlab import paths
from cloudlab.console import printable
from cloudlab.errors import ParseError

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
_HOST_SOURCES = (
    re.compile(r"(?:^|[\[>])(?:[\w.-]+)@(?P<host>[\w-][\w.-]*)[: ~\]]", re.MULTILINE),
    re.compile(
        r"^\S{3,5}\.? +\d+ \d\d:\d\d:\d\d (?P<host>[\w-][\w.-]*) [\w@./-]+(?:\[\d+\])?:",
        re.MULTILINE,
    ),
    re.compile(
        r"^\d{4}-\d\d-\d\dT\S+ (?P<host>[A-Za-z][\w.-]*) [\w@./-]+(?:\[\d+\])?:", re.MULTILINE
    ),
    re.compile(r"(?m)^(?P<host>[\w-]+(?:\.[\w-]+)*) login:"),
    re.compile(
        r"(?:UNAME_NODENAME=|set hostname to |(?<![\w-])(?:local-)?hostname: ?)[\"']?(?P<host>[\w.-]+)"
    ),
    re.compile(r"(?m)^\s*\"?(?:fqdn|_HOSTNAME)\"?[:=] ?[\"']?(?P<host>[\w.-]+)"),
)
_COMMON_HOSTS = {"localhost", "localhost.localdomain", "debian", "ubuntu", "host", "root"}

#: A text is redacted as a whole, in memory.
_MOST_BYTES = 256 << 20


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
    texts = [(str(path), _read(path, stdin)) for path in files]
    redactor = Redactor()
    for _, text in texts:
        redactor.learn(text)
    for name, text in texts:
        if len(texts) > 1:
            streams.write(f"==> {printable(redactor.redact(Path(name).name))} <==\n")
        lines = redactor.redact(text).split("\n")
        streams.write("\n".join(map(printable, lines)).rstrip("\n") + "\n")


def _read(path: Path | str, stdin: IO[bytes]) -> str:
    try:
        with contextlib.nullcontext(stdin) if str(path) == "-" else Path(path).open("rb") as stream:
            raw = stream.read(_MOST_BYTES + 1)
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
    if len(raw) > _MOST_BYTES:
        raise ParseError(
            f"{path} is longer than {_MOST_BYTES >> 20} MiB, so it was not redacted.",
            hint="Select what is about the disk first, e.g. with journalctl -b or grep.",
        )
    return raw.decode("utf-8", "replace").replace("\r\n", "\n")
