"""Checksum files and signatures: real keys made by gpg, judged by gpgv."""

import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openpgp import Gpg

from cloudlab.errors import ChecksumError, SignatureError, ToolNotFoundError, UsageError
from cloudlab.image.catalogue import (
    Digest,
    Key,
    find_checksum,
    judge_signature,
    load_catalogue,
    parse_checksums,
    parse_digest,
    verify_signature,
)

HASH = "5e3f0a" + "0" * 57 + "1"
OTHER = "b" * 64
SUMS = f"{HASH} *noble.img\n{OTHER} *other.img\n".encode()


@pytest.mark.parametrize(
    ("style", "algorithm", "text"),
    [
        ("binary", "sha256", f"{HASH} *a.img\n{OTHER} *b.img\n"),
        ("text", "sha256", f"# made today\n{HASH}  a.img\n{OTHER}  b.img\n"),
        ("text", "sha256", f"{HASH}  ./a.img\r\n"),
        ("bsd", "sha256", f"# a.img: 12 bytes\nSHA256 (a.img) = {HASH}\nSHA256 (b) = {OTHER}\n"),
        ("bsd", "sha256", f"MD5 (a.img) = {'0' * 32}\nSHA256 (a.img) = {HASH.upper()}\n"),
        ("bsd", "sha256", f"SHA512 (a.img) = {'0' * 128}\nSHA256(a.img)= {HASH}\n"),
        ("bare", "sha256", f"{HASH}\n"),
        ("text", "sha512", f"{OTHER}  a.img\n{HASH * 2}  a.img\n"),
    ],
    ids=["binary", "text", "dot-slash", "bsd", "bsd-upper", "bsd-tight", "bare", "sha512"],
)
def test_each_style_of_checksum_file(style, algorithm, text):
    expected = HASH if algorithm == "sha256" else HASH * 2
    assert find_checksum(text, style, algorithm, "a.img") == Digest(algorithm, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has 0 others"),
        (f"{OTHER} *a.img.manifest\n", "no sha256 hash for a.img; it has 1 others"),
        (f"{HASH[:-1]} *a.img\n", "it has 0 others"),
        (f"{HASH} *a.img\n{OTHER} *a.img\n", "2 different sha256 hashes"),
        ("<html>Log in</html>", "it has 0 others"),
    ],
    ids=["empty", "longer name", "short hash", "two hashes", "web page"],
)
def test_a_checksum_that_cannot_be_believed(text, message):
    with pytest.raises(ChecksumError, match=message):
        find_checksum(text, "binary", "sha256", "a.img")


names = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=30
).filter(
    lambda name: name.isprintable() and not name.startswith(("./", "*")) and name == name.strip()
)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
FORMS = {"binary": "{1} *{0}", "text": "{1}  {0}", "bsd": "SHA256 ({0}) = {1}"}


@given(st.sampled_from(sorted(FORMS)), st.dictionaries(names, hashes, max_size=5))
def test_checksum_files_come_back_as_written(style, sums):
    text = "\n".join(FORMS[style].format(*pair) for pair in sums.items())
    assert dict(parse_checksums(text, style, "sha256")) == sums


@given(hashes, st.sampled_from(["", "\n", "\r\n", " \n# made today\n"]))
def test_a_bare_checksum_comes_back_as_written(digits, end):
    text = digits + end
    assert parse_checksums(text, "bare", "sha256") == [("", digits)]
    assert find_checksum(text, "bare", "sha256", "any.img") == Digest("sha256", digits)


pieces = st.sampled_from(
    ["B" * 32, "c" * 64, "0" * 128, "  ", " *", "./", "a.img", "SHA256 (", "SHA512 (", ") = ", "\n"]
)


@given(
    st.lists(pieces | st.text(max_size=5)).map("".join),
    st.sampled_from([*FORMS, "bare"]),
    st.sampled_from(["sha256", "sha512"]),
)
@example(f"{'0' * 128}\n{'c' * 64}", "bare", "sha256")
def test_any_text_is_taken_for_a_checksum_file(text, style, algorithm):
    length = {"sha256": 64, "sha512": 128}[algorithm]
    for name, digits in parse_checksums(text, style, algorithm):
        assert len(digits) == length
        assert digits in text.lower()
        assert name in text


@pytest.mark.parametrize("text", [f"sha256:{HASH}", f" SHA256:{HASH.upper()}"])
def test_a_checksum_as_a_word(text):
    assert parse_digest(text) == Digest("sha256", HASH)


@pytest.mark.parametrize("text", ["", HASH, "md5:" + "0" * 32, f"sha256:{HASH}0", f"sha512:{HASH}"])
def test_no_checksum(text):
    with pytest.raises(UsageError, match="is not a checksum"):
        parse_digest(text)


@pytest.fixture(scope="module")
def gpg(tmp_path_factory):
    with Gpg(tmp_path_factory.mktemp("gpg") / "home") as gpg:
        yield gpg


@pytest.fixture(scope="module")
def key(gpg):
    return gpg.key("publisher")


def test_a_good_detached_signature(gpg, key):
    for options in ([], ["--armor"]):
        signature = gpg.sign(key, "--detach-sign", SUMS, *options)
        assert verify_signature(SUMS, key, signature) == SUMS


def test_a_good_clear_signature_gives_the_signed_text_only(gpg, key):
    message = gpg.sign(key, "--clear-sign", SUMS)
    assert verify_signature(message, key) == SUMS


@pytest.mark.parametrize("where", ["before", "after"])
def test_text_around_a_clear_signature_is_never_believed(where, gpg, key):
    message = gpg.sign(key, "--clear-sign", SUMS)
    forged = f"{OTHER} *noble.img\n".encode()
    message = forged + message if where == "before" else message + forged
    assert OTHER.encode() + b" *noble" not in verify_signature(message, key)


def test_an_armored_key_file(gpg, key, tmp_path):
    armored = tmp_path / "key.asc"
    armored.write_bytes(gpg("--armor", "--export", key.fingerprint))
    signature = gpg.sign(key, "--detach-sign", SUMS)
    assert verify_signature(SUMS, Key("k", armored, key.fingerprint), signature) == SUMS


def test_a_key_bound_by_sha1_counts_as_ubuntus_does(gpg):
    """The key of Ubuntu's cloud images is such a one, which Sequoia's policy refuses."""
    aged = gpg.key("aged", "--cert-digest-algo", "SHA1")
    packets = gpg("--list-packets", str(aged.file)).decode()
    assert "digest algo 2," in packets
    signature = gpg.sign(aged, "--detach-sign", SUMS)
    assert verify_signature(SUMS, aged, signature) == SUMS


def test_a_bad_signature(gpg, key):
    signature = gpg.sign(key, "--detach-sign", SUMS)
    with pytest.raises(SignatureError, match=r"^Bad signature: .* changed after publisher signed"):
        verify_signature(SUMS.replace(b"5e3f", b"5e3e"), key, signature)


def test_a_bad_clear_signature(gpg, key):
    message = gpg.sign(key, "--clear-sign", SUMS).replace(b"5e3f", b"5e3e")
    with pytest.raises(SignatureError, match=r"^Bad signature"):
        verify_signature(message, key)


def test_an_expired_key(gpg):
    # Made in the past by gpg's own clock, so that nothing waits here.
    expired = gpg.key("expired", "--faked-system-time", "20200101T000000", expiry="1d")
    signature = gpg.sign(expired, "--detach-sign", SUMS, "--faked-system-time", "20200101T010000")
    with pytest.raises(SignatureError, match=r"^Expired key: .* which expired on 2020-01-02"):
        verify_signature(SUMS, expired, signature)


def test_an_expired_signature(gpg):
    old = gpg.key("old", "--faked-system-time", "20200101T000000")
    options = ("--faked-system-time", "20200101T010000", "--default-sig-expire", "1d")
    signature = gpg.sign(old, "--detach-sign", SUMS, *options)
    with pytest.raises(SignatureError, match=r"^Expired signature"):
        verify_signature(SUMS, old, signature)


def test_a_revoked_key(gpg):
    revoked = gpg.key("revoked")
    signature = gpg.sign(revoked, "--detach-sign", SUMS)
    certificate = gpg.home / "openpgp-revocs.d" / f"{revoked.fingerprint}.rev"
    # gpg puts a colon before the armor, against accidents.
    gpg("--import", data=certificate.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
    revoked.file.write_bytes(gpg("--export", revoked.fingerprint))
    with pytest.raises(SignatureError, match=r"^Revoked key"):
        verify_signature(SUMS, revoked, signature)


def test_an_unknown_key(gpg, key):
    stranger = gpg.key("stranger")
    signature = gpg.sign(stranger, "--detach-sign", SUMS)
    with pytest.raises(SignatureError, match=f"^Unknown key: expected .*{key.fingerprint}"):
        verify_signature(SUMS, key, signature)


def test_another_key_of_the_same_file_does_not_count(gpg, key):
    neighbour = gpg.key("neighbour")
    both = gpg.home / "both.gpg"
    both.write_bytes(key.file.read_bytes() + neighbour.file.read_bytes())
    signature = gpg.sign(neighbour, "--detach-sign", SUMS)
    with pytest.raises(SignatureError, match=f"^Unknown key: .* by {neighbour.fingerprint}"):
        verify_signature(SUMS, Key("k", both, key.fingerprint), signature)


@pytest.mark.parametrize("signature", [b"", b"<html>", b"\x00" * 99], ids=["empty", "page", "nul"])
def test_no_signature(signature, key):
    with pytest.raises(SignatureError, match=r"^No signature"):
        verify_signature(SUMS, key, signature)


def test_no_clear_signature(key):
    with pytest.raises(SignatureError, match=r"^No signature"):
        verify_signature(SUMS, key)


def test_a_signature_over_a_broken_hash_is_refused(key):
    name = key.fingerprint
    valid = f"[GNUPG:] VALIDSIG {name} 2026-01-01 0 0 4 0 1 {{}} 00 {name}"
    status = ["[GNUPG:] NEWSIG", "[GNUPG:] GOODSIG 1 x"]
    judge_signature([*status, valid.format(10)], key)
    with pytest.raises(SignatureError, match=r"^Broken hash"):
        judge_signature([*status, valid.format(2)], key)


def test_a_damaged_key_file(key, tmp_path):
    file = tmp_path / "k.asc"
    file.write_text(
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n"
    )
    with pytest.raises(SignatureError, match="is damaged"):
        verify_signature(SUMS, Key("k", file, key.fingerprint), b"x")
    with pytest.raises(SignatureError, match="could not be read"):
        verify_signature(SUMS, Key("k", tmp_path / "none", key.fingerprint), b"x")


def test_without_gpgv_nothing_is_believed(key, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("cloudlab.tools._SYSTEM_FOLDERS", ())
    with pytest.raises(ToolNotFoundError, match="gpgv was not found"):
        verify_signature(SUMS, key, b"x")


@pytest.mark.parametrize(
    "shipped",
    {row.key.name: row.key for row in load_catalogue().rows() if row.key}.values(),
    ids=lambda shipped: shipped.name,
)
def test_every_shipped_key_is_the_one_that_is_named(shipped):
    """A file of another key, or one that gpgv does not read, would fail every fetch."""
    shown = subprocess.run(
        ["gpg", "--batch", "--with-colons", "--show-keys", str(shipped.file)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    primary = next(line.split(":") for line in shown if line.startswith("pub:"))
    fingerprint = next(line.split(":")[9] for line in shown if line.startswith("fpr:"))
    assert fingerprint == shipped.fingerprint
    assert primary[1] not in {"r", "e"}  # neither revoked nor expired
    assert "s" in primary[11].lower()  # may sign
