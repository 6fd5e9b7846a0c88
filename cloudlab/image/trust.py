"""Proof that an image is the published one: checksums and OpenPGP signatures.

gpgv, GnuPG's verifier, checks the signatures.  Sequoia (pysequoia) was tried first: its policy
has refused SHA-1 since 2023, and with it the self-signature of the key that signs every Ubuntu
cloud image, so it could verify none of them.  gpgv accepts that key; signatures made over SHA-1
or MD5 are refused here.
"""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from cloudlab.errors import ChecksumError, SignatureError, UsageError
from cloudlab.tools import run

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


class Trust(StrEnum):
    """What proves that an image is the published one."""

    SIGNED = "signed"
    TLS = "checksum over TLS"
    PINNED = "pinned checksum"
    MIRROR = "mirror's checksum"
    UNVERIFIED = "unverified"
    BUILT = "built here"


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


def parse_digest(text: str) -> Digest:
    """Return ``ALGORITHM:HEX`` as a value.

    Raises
    ------
    UsageError
        If it has another form or length.
    """
    algorithm, _, digits = text.strip().lower().partition(":")
    if not re.fullmatch(r"[0-9a-f]+", digits) or len(digits) != _HEX_DIGITS.get(algorithm):
        raise UsageError(
            f"{text!r} is not a checksum.",
            hint="Write sha256: and 64 hexadecimal digits, or sha512: and 128.",
        )
    return Digest(algorithm, digits)


def parse_checksums(text: str, style: str, algorithm: str) -> list[tuple[str, str]]:
    """Return the (file name, hash) pairs of a checksum file, in order.

    Lines of another form (comments, other hashes) are ignored.

    Parameters
    ----------
    text : str
    style : str
        ``binary`` (``HASH *FILE``) or ``text`` (``HASH  FILE``), either of which is read as
        both, ``bsd`` (``SHA256 (FILE) = HASH``) or ``bare`` (the hash alone: its name is empty).
    algorithm : str
        ``sha256`` or ``sha512``.
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
    """Return the checksum that a checksum file gives for ``filename``.

    Raises
    ------
    ChecksumError
        If it has none, or two that differ.
    """
    wanted = "" if style == "bare" else filename
    pairs = parse_checksums(text, style, algorithm)
    found = {digits for name, digits in pairs if name == wanted}
    if len(found) == 1:
        return Digest(algorithm, found.pop())
    if found:
        raise ChecksumError(
            f"The checksum file has {len(found)} different {algorithm} hashes for {filename}.",
            hint="Ask the publisher which one is right, and give it with --checksum ALGO:HEX.",
        )
    raise ChecksumError(
        f"The checksum file has no {algorithm} hash for {filename}; it has {len(pairs)} others.",
        hint="The publisher may have renamed the file: look at the URL's folder.",
    )


def verify_signature(signed: bytes, key: Key, signature: bytes | None = None) -> bytes:
    """Check an OpenPGP signature and return the text that it covers.

    Parameters
    ----------
    signed : bytes
        The text, or with ``signature`` left out a clear-signed message.
    key : Key
        Who has to have signed it.
    signature : bytes, optional
        A detached signature, armored or not.

    Raises
    ------
    SignatureError
        If the text was changed, the key or the signature is expired or revoked, another key
        signed, a broken hash was used, or there is no signature at all.
    ToolNotFoundError
        Without gpgv.
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
    """Check gpgv's status lines, which GnuPG's doc/DETAILS explains.

    Raises
    ------
    SignatureError
    """
    facts: dict[str, list[str]] = {}
    signers = []
    good = False
    for line in status:
        words = line.removeprefix("[GNUPG:] ").split()
        if not words:
            continue
        if words[0] == "NEWSIG":
            good = False
        elif words[0] == "GOODSIG":
            good = True
        elif words[0] == "VALIDSIG" and len(words) > 10:  # noqa: PLR2004 (DETAILS: VALIDSIG)
            if good and words[10] == key.fingerprint and words[8] in _GOOD_HASHES:
                return
            signers.append((words[10], words[8]))
        facts.setdefault(words[0], words[1:])
    raise SignatureError(
        _verdict(facts, signers, key),
        hint="Try again later or from another network, or give a checksum that you have from "
        "elsewhere with --checksum ALGO:HEX.",
    )


def _verdict(facts: dict[str, list[str]], signers: list[tuple[str, str]], key: Key) -> str:
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
    strangers = [signer for signer, _ in signers if signer != key.fingerprint]
    strangers += facts.get("NO_PUBKEY", [])[:1]
    if strangers:
        return f"Unknown key: expected {expected}, found one by {strangers[0]}."
    if signers:
        return f"Broken hash: {key.name}'s signature uses a hash that can be forged."
    return f"No signature: expected {expected}, found none that can be read."


def _dearmor(key: Key) -> bytes:
    """Return the key file's bytes without armor, which gpgv does not read."""
    try:
        with key.file.open("rb") as stream:
            data = stream.read(_KEY_LIMIT_BYTES)
    except OSError as error:
        raise SignatureError(
            f"The key {key.name} could not be read from {key.file}: {error.strerror}.",
            hint="Correct 'file' of this key in your catalogue.",
        ) from error
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
        raise SignatureError(
            f"The key file {key.file} is damaged: {error}.",
            hint="Export the publisher's key again, with gpg --export.",
        ) from error
