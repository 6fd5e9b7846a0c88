"""The catalogue: which cloud images are published where, and what proves that they are genuine.

The data is in ``catalogue.yaml`` beside this module; a user's own file of the same form adds
entries or replaces whole ones.  Nothing here uses the network.

gpgv, GnuPG's verifier, checks the signatures.  Sequoia (pysequoia) was tried first: its policy
has refused SHA-1 since 2023, and with it the self-signature of the key that signs every Ubuntu
cloud image, so it could verify none of them.  gpgv accepts that key; signatures made over SHA-1
or MD5 are refused here.
"""

from __future__ import annotations

import base64
import binascii
import functools
import itertools
import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab import paths
from cloudlab.errors import ChecksumError, ImageError, SignatureError, UsageError, suggest
from cloudlab.image.cache import Trust
from cloudlab.tools import check_arch, run
from cloudlab.yamltext import (
    PlainLoader,
    YamlFault,
    YamlText,
    load_jsonschema,
    node_place,
    read_yaml,
)

if TYPE_CHECKING:
    import jsonschema

#: A catalogue may be longer than user-data; PyYAML, which is pure Python, needs seconds for this.
MAX_CHARACTERS = 1 << 20

#: Faults that are looked at; the most telling one of them is shown.
_MAX_FAULTS = 20

_WORD = re.compile(r"\{(\w*)\}")

_HEX_DIGITS = {"sha256": 64, "sha512": 128}
_KEY_LIMIT_BYTES = 4 << 20

#: The lines of a checksum file, by the catalogue's names of its forms.
_LINE = re.compile(r"\\?(?P<hex>[0-9a-fA-F]{64,128}) [ *](?P<name>.+)")
_LINES = {
    "binary": _LINE,
    "text": _LINE,
    "bsd": re.compile(r"(?P<algorithm>[A-Z0-9]{4,10}) ?\((?P<name>.+)\) ?= ?(?P<hex>[0-9a-fA-F]+)"),
    "bare": re.compile(r"(?P<name>)(?P<hex>[0-9a-fA-F]+)"),
}

# RFC 4880, section 9.4: SHA-2 only; 1 to 3 are MD5, SHA-1 and RIPEMD-160.
_GOOD_HASHES = {"8", "9", "10", "11", "12", "14"}


@dataclass(frozen=True)
class Digest:
    """A checksum: ``algorithm`` is sha256 or sha512, ``hex`` is lower case."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True)
class Key:
    """Who signs a publisher's checksums.

    ``file`` holds OpenPGP public keys, armored or not; ``fingerprint`` is that of the primary key
    whose signatures count, in upper-case hexadecimal.
    """

    name: str
    file: Path
    fingerprint: str


@dataclass(frozen=True)
class Published:
    """One image for one architecture (``amd64`` or ``arm64``), as its publisher offers it."""

    name: str
    title: str
    arch: str
    url: str
    #: ``qcow2`` or ``raw``.
    format: str
    #: The label of a fetched copy.
    trust: Trust
    #: The checksum that the catalogue itself gives.
    pinned: Digest | None = None
    #: The checksum file, its hash and its form; empty where there is none.
    checksum_url: str = ""
    algorithm: str = ""
    style: str = ""
    #: Of a detached signature.
    signature_url: str = ""
    #: Who signs the checksum file; None if it is not signed.
    key: Key | None = None
    root_filesystem: str = ""
    layout: str = ""
    firmware: tuple[str, ...] = ("bios", "uefi")
    #: Short name -> sentence.
    quirks: Mapping[str, str] = field(default_factory=dict)
    #: Why cloudlab cannot use it; empty for a usable image.
    refused: str = ""
    #: Words in lower case that are all in a file's name if it is this image or another issue of
    #: it.  Empty where such a file has no quirks.
    known_by: tuple[str, ...] = ()
    #: Whether the entry is from the user's own catalogue.
    own: bool = False

    def check_usable(self) -> None:
        """Raise an ImageError with the reason if cloudlab cannot use the image."""
        if self.refused:
            raise ImageError(
                f"cloudlab cannot use {self.name}: {self.refused}",
                hint="'cloudlab images' lists the images that it can use.",
            )


@dataclass(frozen=True)
class Catalogue:
    """All known published images, and the keys of their publishers."""

    #: Name -> architecture -> image.
    images: Mapping[str, Mapping[str, Published]] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    #: The image that ``auto`` fetches.
    default: str = ""

    def rows(self) -> list[Published]:
        """Return every image for every architecture, in the catalogue's order."""
        return [image for by_arch in self.images.values() for image in by_arch.values()]

    def recognise(self, filename: str) -> Published | None:
        """Return the image that a file is by its name, or another issue of it, or None."""
        name = filename.lower()
        known = (image for image in self.rows() if image.known_by)
        return next((one for one in known if all(word in name for word in one.known_by)), None)

    def quirks_of_file(self, filename: str) -> dict[str, str]:
        """Return the quirks of a file that is recognised by its name, wherever it comes from.

        Raise an ImageError if cloudlab cannot use it.
        """
        published = self.recognise(filename)
        if published is None:
            return {}
        if published.refused:
            raise ImageError(
                f"{filename} cannot be used, judging by its name: {published.refused}",
                hint="If it is another image, rename the file.",
            )
        # That quirk is about the catalogue's own entry.
        return {k: v for k, v in published.quirks.items() if k != "checksums-not-tried"}

    def find(self, name: str, arch: str | None = None) -> Published:
        """Return the image called ``name`` for ``arch``, by default this host's.

        Raise a UsageError if there is none of that name or architecture.
        """
        by_arch = self.images.get(name)
        if by_arch is None:
            raise _unknown(name, self.images)
        arch = check_arch(arch)
        if arch not in by_arch:
            raise UsageError(
                f"{name} is published for {' and '.join(by_arch)}, not for {arch}.",
                hint=f"Use --arch {next(iter(by_arch))}, or another image.",
            )
        return by_arch[arch]


def _unknown(name: str, known: Iterable[str]) -> UsageError:
    """Return the error for something that is no image's name."""
    if "://" in name:
        scheme = name.partition("://")[0]
        return UsageError(
            f"{name!r} cannot be fetched: cloudlab supports http and https, not {scheme}.",
            hint="Use an http or https URL, or download the file yourself and name its path "
            "with 'cloudlab run --image'.",
        )
    if "/" in name:
        return UsageError(
            f"{name!r} is a path, not the name of an image.",
            hint=f"A file need not be fetched: cloudlab run --image {shlex.quote(name)}",
        )
    if name.startswith("lab-"):
        hint = "Lab images are built with 'cloudlab build', or come from a mirror."
    else:
        hint = suggest(
            name,
            known,
            "'cloudlab images' lists the names; a URL works too, and for --image a file's path.",
        )
    return UsageError(f"The catalogue has no image called {name!r}.", hint=hint)


def load_catalogue(own: Path | None = None) -> Catalogue:
    """Return the catalogue, with the user's own entries.

    Parameters
    ----------
    own : Path, optional
        The user's file; default: the one in ``CLOUDLAB_CATALOGUE``, if any.

    Raises
    ------
    ImageError
        With file, line and key, if a file is not a catalogue.
    """
    chosen = str(own) if own else os.environ.get("CLOUDLAB_CATALOGUE", "")
    if not chosen:
        return _shipped()
    try:
        path = paths.expand(chosen)
        text = paths.read_text(path)
    except UsageError as error:
        raise ImageError(
            f"Your own catalogue cannot be used: {error.message}",
            hint="Set CLOUDLAB_CATALOGUE to another file, or unset it.",
        ) from error
    return parse_catalogue(text, path, base=_shipped())


@functools.cache
def _shipped() -> Catalogue:
    path = Path(str(resources.files("cloudlab.image") / "catalogue.yaml"))
    return parse_catalogue(path.read_text(encoding="utf-8"), path)


@functools.cache
def catalogue_schema() -> dict[str, Any]:
    """Return the JSON schema of a catalogue file."""
    text = (resources.files("cloudlab.image") / "catalogue.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@dataclass(frozen=True)
class Document:
    """A catalogue file's values, all of them dict, list and str, with their places."""

    path: Path
    value: Any
    text: YamlText

    def error(self, where: Sequence[str | int], message: str) -> ImageError:
        """Return the error that names the file, the line and the key."""
        line, _ = self.text.place(tuple(where), key=True)
        return _error(self.path, line, where, message)

    def validate(self, schema: Mapping[str, Any]) -> None:
        """Raise an ImageError with the most telling fault of the values, by a JSON schema."""
        load_jsonschema()
        import jsonschema

        # Faults are found one by one, each with a message as long as what it is about.
        found = jsonschema.Draft202012Validator(schema).iter_errors(self.value)
        faults = list(itertools.islice(found, _MAX_FAULTS))
        # A misspelled key explains the one that is missing.
        strange = [fault for fault in faults if fault.validator == "additionalProperties"]
        fault = jsonschema.exceptions.best_match(strange or faults)
        if fault is None:
            return
        where: list[str | int] = list(fault.absolute_path)
        # Only the message names a key that is not allowed: find its own line.
        if fault.validator == "additionalProperties" and isinstance(fault.instance, dict):
            rules = fault.schema
            allowed = re.compile("|".join(rules.get("patternProperties", {"(?!)": None})))
            where += [
                key
                for key in fault.instance
                if key not in rules["properties"] and not allowed.search(key)
            ][:1]
        elif "propertyNames" in fault.absolute_schema_path:
            where.append(str(fault.instance))
        raise self.error(where, _complaint(fault, where))


def _complaint(fault: jsonschema.ValidationError, where: Sequence[str | int]) -> str:
    """Return in plain words what is wrong with a value."""
    schema: Any = fault.schema
    instance: Any = fault.instance
    if fault.validator == "additionalProperties":
        names = ", ".join(schema["properties"])
        hint = suggest(str(where[-1]), schema["properties"], f"Known are {names}")
        return f"this key is unknown. {hint}"
    if fault.validator == "required":
        missing = next(key for key in schema["required"] if key not in instance)
        return f"the key {missing!r} is missing"
    if fault.validator == "dependentRequired":
        return "'signature' needs 'checksums', which it signs"
    return fault.message[:300] if fault.validator else "this key is not allowed here"


def read_document(text: str, path: Path) -> Document:
    """Return the values of a catalogue's text; it must be YAML without duplicate keys."""
    try:
        found = read_yaml(text, max_characters=MAX_CHARACTERS, loader=PlainLoader)
    except YamlFault as fault:
        raise _error(path, fault.line, (), fault.message) from fault
    for where, key in found.duplicates:
        raise _error(path, node_place(key)[0], where, "this key is there twice")
    return Document(path, {} if found.value is None else found.value, found)


def _error(path: Path, line: int, where: Sequence[str | int], words: str) -> ImageError:
    key = ".".join(map(str, where)) or "the whole file"
    return ImageError(
        f"{path}, line {line}, {key}: {words}" + ("" if words.endswith("?") else "."),
        hint="Correct that line; cloudlab's own catalogue.yaml shows the form.",
    )


def parse_catalogue(text: str, path: Path, base: Catalogue | None = None) -> Catalogue:
    """Return the catalogue that ``text`` adds to ``base``.

    Parameters
    ----------
    text : str
        YAML, see ``catalogue.schema.json``.
    path : Path
        The file's name, for messages and for the key files beside it.
    base : Catalogue, optional
        Whose entries are added to or replaced, and whose keys may be referred to.

    Raises
    ------
    ImageError
        With file, line and key.
    """
    document = read_document(text, path)
    if base is not None:
        # A test checks the shipped file against the schema: jsonschema is slow to load.
        document.validate(catalogue_schema())
    below = base or Catalogue()
    keys = dict(below.keys)
    for name, key in document.value.get("keys", {}).items():
        keys[name] = Key(name, path.parent / key["file"], key["fingerprint"])
    images = dict(below.images)
    for name, entry in document.value["images"].items():
        archs = {arch: _published(document, name, arch, keys) for arch in entry["arch"]}
        images[name] = {arch: replace(one, own=base is not None) for arch, one in archs.items()}
    default = document.value.get("default", below.default)
    if default and default not in images:
        raise document.error(("default",), f"there is no image called {default!r}")
    return Catalogue(images, keys, default)


def _published(document: Document, name: str, arch: str, keys: Mapping[str, Key]) -> Published:
    entry = document.value["images"][name]
    where = ("images", name)
    words = {**entry.get("values", {}), "arch": entry["arch"][arch]}

    def fill(pattern: str, *key: str) -> str:
        unknown = set(_WORD.findall(pattern)) - set(words)
        if unknown:
            problem = f"{{{min(unknown)}}} is none of: {', '.join(sorted(words))}"
            raise document.error((*where, *key), problem)
        return _WORD.sub(lambda match: words[match[1]], pattern)

    pinned = parse_digest(entry["pinned"][arch]) if arch in entry.get("pinned", {}) else None
    checksums = {} if pinned else entry.get("checksums", {})
    signature = entry.get("signature", {}) if checksums else {}
    if signature and signature["key"] not in keys:
        problem = f"there is no key called {signature['key']!r}"
        raise document.error((*where, "signature", "key"), problem)
    trust = Trust.SIGNED if signature else Trust.TLS if checksums else Trust.UNVERIFIED
    return Published(
        name=name,
        title=entry["title"],
        arch=arch,
        url=fill(entry["url"], "url"),
        format=entry["format"],
        trust=Trust.PINNED if pinned else trust,
        pinned=pinned,
        checksum_url=fill(checksums.get("url", ""), "checksums", "url"),
        algorithm=checksums.get("algorithm", ""),
        style=checksums.get("style", ""),
        signature_url=fill(signature.get("url", ""), "signature", "url"),
        key=keys[signature["key"]] if signature else None,
        root_filesystem=entry.get("root_filesystem", ""),
        layout=entry.get("layout", ""),
        firmware=("uefi",) if arch == "arm64" else tuple(entry.get("firmware", ("bios", "uefi"))),
        quirks=entry.get("quirks", {}),
        refused=entry.get("refused", ""),
        known_by=tuple(entry.get("known_by", ())),
    )


def parse_digest(text: str) -> Digest:
    """Return ``ALGORITHM:HEX`` as a value; raise a UsageError if it has another form or length."""
    algorithm, _, digits = str(text).strip().lower().partition(":")
    if not re.fullmatch(r"[0-9a-f]+", digits) or len(digits) != _HEX_DIGITS.get(algorithm):
        raise UsageError(
            f"{text!r:.200} is not a checksum.",
            hint="Write sha256: and 64 hexadecimal digits, or sha512: and 128.",
        )
    return Digest(algorithm, digits)


def parse_checksums(text: str, style: str, algorithm: str) -> list[tuple[str, str]]:
    """Return the (file name, hash) pairs of a checksum file, in order.

    Lines of another form (comments, other hashes) are ignored.  ``style`` is ``binary``
    (``HASH *FILE``) or ``text`` (``HASH  FILE``), either of which is read as both, ``bsd``
    (``SHA256 (FILE) = HASH``) or ``bare`` (the hash alone: its name is empty).
    """
    pairs = []
    for line in text.splitlines():
        match = _LINES[style].fullmatch(line.strip())
        if match is None or len(match["hex"]) != _HEX_DIGITS[algorithm]:
            continue
        if match.groupdict().get("algorithm", algorithm).lower() == algorithm:
            pairs.append((match["name"].removeprefix("./"), match["hex"].lower()))
    return pairs


def find_checksum(text: str, style: str, algorithm: str, filename: str) -> Digest:
    """Return the one checksum that a checksum file gives for ``filename``.

    Raise a ChecksumError if it has none, or two that differ.
    """
    wanted = "" if style == "bare" else filename
    pairs = parse_checksums(text, style, algorithm)
    found = {digits for name, digits in pairs if name == wanted}
    if len(found) > 1:
        raise ChecksumError(
            f"The checksum file has {len(found)} different {algorithm} hashes for {filename}.",
            hint="Ask the publisher which one is right, and give it with --checksum ALGO:HEX.",
        )
    if found:
        return Digest(algorithm, found.pop())
    raise ChecksumError(
        f"The checksum file has no {algorithm} hash for {filename}; it has {len(pairs)} others.",
        hint="The publisher may have renamed the file: look at the URL's folder.",
    )


def verify_signature(signed: bytes, key: Key, signature: bytes | None = None) -> bytes:
    """Check an OpenPGP signature by ``key`` and return the text that it covers.

    Parameters
    ----------
    signed : bytes
        The text, or with ``signature`` left out a clear-signed message.
    key : Key
    signature : bytes, optional
        A detached signature, armored or not.

    Raises
    ------
    SignatureError
        If the text was changed, the key or the signature is expired or revoked, another key
        signed, a broken hash was used, or there is no signature at all.
    """
    with tempfile.TemporaryDirectory(prefix="cloudlab-gpgv-") as name:
        folder = Path(name)
        (folder / "keys.gpg").write_bytes(_dearmor(key))
        (folder / "signed").write_bytes(signed)
        argv = ["gpgv", "--homedir", name, "--keyring", str(folder / "keys.gpg"), "--status-fd=1"]
        if signature is None:
            argv += ["--output", str(folder / "text"), str(folder / "signed")]
        else:
            (folder / "signature").write_bytes(signature)
            argv += [str(folder / "signature"), str(folder / "signed")]
        answer = run(argv, check=False)
        judge_signature(answer.stdout.splitlines(), key)
        return signed if signature is not None else (folder / "text").read_bytes()


def judge_signature(status: Iterable[str], key: Key) -> None:
    """Raise a SignatureError unless gpgv's status lines prove a good signature by ``key``.

    GnuPG's doc/DETAILS explains the lines.
    """
    facts: dict[str, list[str]] = {}
    signers = []
    good = False
    for line in status:
        word, *values = line.removeprefix("[GNUPG:] ").split() or [""]
        if word in {"NEWSIG", "GOODSIG"}:
            good = word == "GOODSIG"
        elif word == "VALIDSIG" and len(values) > 9:  # noqa: PLR2004 (DETAILS: VALIDSIG)
            if good and values[9] == key.fingerprint and values[7] in _GOOD_HASHES:
                return
            signers.append(values[9])
        facts.setdefault(word, values)
    raise SignatureError(
        _verdict(facts, signers, key),
        hint="Try again later or from another network, or give a checksum that you have from "
        "elsewhere with --checksum ALGO:HEX.",
    )


def _verdict(facts: dict[str, list[str]], signers: list[str], key: Key) -> str:
    expected = f"a signature by the key {key.name} ({key.fingerprint})"
    day = ""
    if (expired := facts.get("KEYEXPIRED", [""])[:1]) and expired[0].isdigit():
        day = f" on {datetime.fromtimestamp(int(expired[0]), UTC):%Y-%m-%d}"
    for word, verdict in (
        ("BADSIG", f"Bad signature: the checksums were changed after {key.name} signed them."),
        ("REVKEYSIG", f"Revoked key: expected {expected}, which its owner has revoked."),
        ("EXPKEYSIG", f"Expired key: expected {expected}, which expired{day}; the text matches."),
        ("EXPSIG", f"Expired signature: {key.name}'s signature of the checksums has expired."),
    ):
        if word in facts:
            return verdict
    strangers = [signer for signer in signers if signer != key.fingerprint]
    strangers += facts.get("NO_PUBKEY", [])[:1]
    if strangers:
        return f"Unknown key: expected {expected}, found one by {strangers[0]}."
    if signers:
        return f"Broken hash: {key.name}'s signature uses a hash that can be forged."
    return f"No signature: expected {expected}, found none that can be read."


def _dearmor(key: Key) -> bytes:
    """Return the key file's bytes without armor, which gpgv does not read."""
    problem = f"The key {key.name} could not be read from {key.file}"
    hint = "Correct 'file' of this key in your catalogue."
    with paths.os_errors_as(SignatureError, problem, hint=hint), key.file.open("rb") as stream:
        data = stream.read(_KEY_LIMIT_BYTES)
    if b"-----BEGIN PGP" not in data:
        return data
    blocks = re.findall(
        rb"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----",
        data.replace(b"\r\n", b"\n"),
        re.DOTALL,
    )
    try:
        # Armor is: headers, an empty line, base64, and a checksum line that begins with =.
        bodies = [block.partition(b"\n\n")[2].partition(b"\n=")[0] for block in blocks]
        return b"".join(base64.b64decode(body) for body in bodies)
    except binascii.Error as error:
        hint = "Export the publisher's key again, with gpg --export."
        raise SignatureError(f"The key file {key.file} is damaged: {error}.", hint=hint) from error
