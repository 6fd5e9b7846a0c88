"""Fetching over real HTTP on loopback, with every fault that a network has."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import faulty_server as faulty
import pytest
from examples import few
from faulty_server import FaultyServer, Proxy
from openpgp import Gpg

from cloudlab.errors import (
    ChecksumError,
    CloudlabError,
    DownloadError,
    ImageError,
    InterruptedRunError,
    SignatureError,
    UsageError,
)
from cloudlab.image import cache
from cloudlab.image.cache import open_image, write_index
from cloudlab.image.catalogue import Key, load_catalogue
from cloudlab.image.fetch import choose_image, fetch, find_cached
from cloudlab.image.web import Patience, retry_after_s
from cloudlab.tools import host_arch

HASTY = Patience(tries=3, first_wait_s=0.01, longest_wait_s=5.0, timeout_s=20.0)
PATH = "/images/x-amd64.img"


@pytest.fixture(scope="session")
def disk(tmp_path_factory):
    """A real qcow2 image of some MiB, as bytes."""
    folder = tmp_path_factory.mktemp("disk")
    raw = bytearray(os.urandom(5 << 20))
    raw[510:512] = b"\x55\xaa"
    (folder / "raw").write_bytes(raw)
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "q"]
    subprocess.run(argv, check=True)
    return (folder / "q").read_bytes()


@pytest.fixture(scope="session")
def newer_disk(disk):
    return disk[:-4096] + os.urandom(4096)


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    """The cache's folder of images, empty."""
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "images"


@pytest.fixture
def server():
    with FaultyServer() as server:
        yield server


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def parts(images):
    return sorted(path.name for path in images.glob(".*.part*"))


def catalogue(tmp_path, url, **more):
    """A catalogue whose one image, ``x``, lies at ``url``."""
    entry = {"title": "X", "arch": {"amd64": "amd64"}, "url": url, "format": "qcow2", **more}
    keys = entry.pop("keys", {})
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps({"keys": keys, "images": {"x": entry}}), encoding="utf-8")
    return load_catalogue(path)


# What arrives, and what is recorded


def test_a_url_without_checksum_is_unverified_and_recorded(server, disk, images):
    url = server.put(PATH, disk)
    seen = []
    image = fetch(url, progress=seen.append, patience=HASTY)
    assert image.path.read_bytes() == disk
    assert image.trust == "unverified"
    assert image.source == url
    assert image.sha256 == hashlib.sha256(disk).hexdigest()
    assert image.virtual_size_bytes == 5 << 20
    assert image.format == "qcow2"
    assert image.arch == "amd64"
    assert image.origin == "fetched"
    assert cache.recall(image.name) == image
    assert parts(images) == []
    assert (seen[-1].done_bytes, seen[-1].total_bytes) == (len(disk), len(disk))


def test_a_cached_image_needs_no_server(disk):
    with FaultyServer() as server:
        url = server.put(PATH, disk)
        image = fetch(url, checksum=sha256(disk), patience=HASTY)
    assert fetch(url) == image
    assert fetch(url, checksum=sha256(disk)) == image
    assert fetch(image.name) == image
    assert fetch(image.name.removesuffix(".qcow2")) == image


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_checksum_of_ones_own(algorithm, server, disk):
    digest = hashlib.new(algorithm, disk).hexdigest()
    image = fetch(server.put(PATH, disk), checksum=f"{algorithm}:{digest}", patience=HASTY)
    assert image.trust == "pinned checksum"
    assert image.details["digests"][algorithm] == digest


def test_a_wrong_checksum_keeps_nothing(server, disk, images):
    url = server.put(PATH, disk)
    with pytest.raises(ChecksumError) as caught:
        fetch(url, checksum=sha256(b"other"), patience=HASTY)
    assert sha256(b"other") in caught.value.message
    assert sha256(disk) in caught.value.message
    assert parts(images) == []
    assert cache.cached_images() == []


def test_a_cached_image_of_another_checksum_will_not_do(server, disk, newer_disk):
    url = server.put(PATH, disk)
    fetch(url, patience=HASTY)
    server.put(PATH, newer_disk, '"2"')
    image = fetch(url, checksum=sha256(newer_disk), patience=HASTY)
    assert image.path.read_bytes() == newer_disk


@pytest.mark.parametrize(
    ("path", "arch"),
    [
        ("/foo_arm64.qcow2", "arm64"),
        ("/amd64-mirror/foo-arm64.img", "arm64"),
        ("/arm64/foo-x86_64.img", "amd64"),
        ("/OL9U4_aarch64-kvm.qcow2", "arm64"),
        ("/OL9U4_x86_64-kvm.qcow2", "amd64"),
        ("/for-amd64-and-AArch64.img", "arm64"),
        ("/arm64/disk.img", "arm64"),
        ("/disk.img?arch=arm64", "arm64"),
        ("/arm64v8.img", "arm64"),
        ("/farm64/x86_640.img", host_arch()),
    ],
)
def test_the_architecture_is_the_last_one_that_the_file_name_has(path, arch, server, disk):
    assert fetch(server.put(path, disk), patience=HASTY).arch == arch


def test_a_url_of_another_architecture_is_fetched_once(server, disk):
    foreign = "arm64" if host_arch() == "amd64" else "amd64"
    path = f"/images/x-{foreign}.img"
    image = fetch(server.put(path, disk), patience=HASTY)
    assert image.arch == foreign
    assert fetch(server.url + path, patience=HASTY) == image
    assert len(server.asked(path)) == 1


@pytest.mark.parametrize("change", ["url", "pinned hash", "both"])
def test_what_ones_own_catalogue_says_now_goes_before_what_was_cached(
    change, server, disk, newer_disk, tmp_path
):
    new = PATH if change == "pinned hash" else "/other/x-amd64.img"
    pin = {} if change == "url" else {"pinned": {"amd64": sha256(newer_disk)}}
    url = server.put(PATH, disk)
    known = catalogue(tmp_path, url, pinned={"amd64": sha256(disk)})
    assert fetch("x", catalogue=known, arch="amd64", patience=HASTY).path.read_bytes() == disk
    server.put(new, newer_disk, '"2"')
    pin = pin or {"pinned": {"amd64": sha256(newer_disk)}}
    known = catalogue(tmp_path, server.url + new, **pin)
    assert find_cached("x", "amd64", catalogue=known) is None
    image = fetch("x", catalogue=known, arch="amd64", patience=HASTY)
    assert image.path.read_bytes() == newer_disk
    assert fetch("x", catalogue=known, arch="amd64") == image
    assert len(server.asked(PATH)) + len(server.asked(new)) == (4 if new == PATH else 2)


def test_a_changed_image_is_said_to_be_changed_and_not_unknown(server, disk, images):
    image = fetch(server.put(PATH, disk), patience=HASTY)
    image.path.write_bytes(b"changed")
    for name in (image.name, image.name.removesuffix(".qcow2")):
        with pytest.raises(ChecksumError, match=r"was changed after it was recorded"):
            fetch(name)


def test_nothing_is_left_beside_an_image_or_after_a_name_that_is_unknown(server, disk, images):
    with pytest.raises(UsageError, match="no image called"):
        fetch("nosuch")
    assert not images.exists() or list(images.iterdir()) == []
    image = fetch(server.put(PATH, disk), patience=HASTY)
    assert {path.name for path in images.iterdir()} == {image.name, f"{image.name}.json"}


def test_a_cached_image_that_was_changed_is_fetched_again(server, disk):
    url = server.put(PATH, disk)
    image = fetch(url, patience=HASTY)
    image.path.write_bytes(b"changed")
    assert fetch(url, patience=HASTY).path.read_bytes() == disk


def test_a_url_without_a_host_is_refused_at_once(images):
    with pytest.raises(DownloadError, match="names no host"):
        fetch("http:///x.img", patience=Patience(tries=1))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<!DOCTYPE html><title>Log in</title>" * 99, "a web page"),
        (b"\x1f\x8b" + bytes(9999), "has the format gzip"),
        (b"KDMV" + bytes(9999), "has the format vmdk"),
        (b"", "neither qcow2 nor a raw disk"),
        (b"QFI\xfb" + bytes(9999), "cannot be used as a qcow2 image"),
    ],
    ids=["login portal", "gzip", "vmdk", "empty", "damaged"],
)
def test_what_is_no_disk_image(body, message, server, images):
    with pytest.raises(ImageError, match=message):
        fetch(server.put(PATH, body), patience=HASTY)
    assert parts(images) == []
    assert cache.cached_images() == []


def test_refresh_takes_a_newer_one_and_keeps_the_older(server, disk, newer_disk, tmp_path):
    checksums = {"url": server.url + "/SUMS", "algorithm": "sha256", "style": "text"}
    key, sign = _signer(tmp_path)
    with sign:
        for data in (disk, disk, newer_disk):
            server.put(PATH, data, f'"{len(server.seen)}"')
            sums = f"{hashlib.sha256(data).hexdigest()}  {PATH.rpartition('/')[2]}\n".encode()
            server.put("/SUMS", sums)
            server.put("/SUMS.gpg", sign.sign(key, "--detach-sign", sums))
            known = catalogue(
                tmp_path,
                server.url + PATH,
                checksums=checksums,
                signature={"style": "detached", "url": server.url + "/SUMS.gpg", "key": "k"},
                keys={"k": {"file": str(key.file), "fingerprint": key.fingerprint}},
            )
            image = fetch("x", catalogue=known, refresh=True, arch="amd64", patience=HASTY)
            assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert len(server.asked(PATH)) == 2  # the same one is not downloaded twice
    assert sorted(len(i.path.read_bytes()) for i in cache.cached_images()) == [len(disk)] * 2
    assert find_cached("x", "amd64").path.read_bytes() == newer_disk


def test_refresh_does_not_trust_the_clock(server, disk, newer_disk):
    url = server.put(PATH, disk)
    old = fetch(url, patience=HASTY)
    os.utime(old.path, (4e9, 4e9))
    cache.remember(dataclasses.replace(old, date="2099-01-01T00:00:00Z"))
    server.put(PATH, newer_disk, '"2"')
    image = fetch(url, refresh=True, patience=HASTY)
    assert image.path.read_bytes() == newer_disk
    assert fetch(url) == image
    server.put(PATH, disk, '"3"')
    assert fetch(url, refresh=True, patience=HASTY).path.read_bytes() == disk  # taken back
    assert fetch(url).path.read_bytes() == disk


@pytest.mark.parametrize("ending", ["", ".gpg"], ids=["checksums", "signature"])
@pytest.mark.parametrize("after", [0, 40])
def test_a_cut_small_file_is_asked_for_again(after, ending, server, disk, tmp_path):
    key, sign = _signer(tmp_path)
    sums = f"{hashlib.sha256(disk).hexdigest()}  {PATH.rpartition('/')[2]}\n".encode()
    with sign:
        server.put("/SUMS", sums)
        server.put("/SUMS.gpg", sign.sign(key, "--detach-sign", sums))
    known = catalogue(
        tmp_path,
        server.put(PATH, disk),
        checksums={"url": server.url + "/SUMS", "algorithm": "sha256", "style": "text"},
        signature={"style": "detached", "url": server.url + "/SUMS.gpg", "key": "k"},
        keys={"k": {"file": str(key.file), "fingerprint": key.fingerprint}},
    )
    server.fail("/SUMS" + ending, faulty.cut(after))
    assert fetch("x", catalogue=known, arch="amd64", patience=HASTY).trust == "signed"
    assert len(server.asked("/SUMS" + ending)) == 2


# Cuts, and going on after them


@pytest.mark.parametrize("after", [0, 1, 300_000, -1], ids=["at once", "1 byte", "300 kB", "last"])
def test_a_cut_is_resumed(after, server, disk):
    url = server.put(PATH, disk)
    after %= len(disk)
    server.fail(PATH, faulty.cut(after))
    image = fetch(url, checksum=sha256(disk), patience=HASTY)
    assert image.path.read_bytes() == disk
    second = server.asked(PATH)[1]
    assert second.get("Range") == (f"bytes={after}-" if after else None)
    assert second.get("If-Range") == ('"1"' if after else None)


def test_many_cuts_are_no_failure_as_long_as_a_mebibyte_comes(server, disk):
    url = server.put(PATH, disk)
    server.fail(PATH, *[faulty.cut(1 << 20)] * 4)
    assert HASTY.tries < 4
    assert fetch(url, checksum=sha256(disk), patience=HASTY).path.read_bytes() == disk


def kept_part(server, disk, images, after=2_000_000):
    """Have a fetch fail for good, so that its part is left; return what was asked."""
    url = server.put(PATH, disk)
    server.fail(PATH, faulty.cut(after))
    with pytest.raises(DownloadError, match="is kept"):
        fetch(url, patience=Patience(tries=1))
    assert any(name.endswith(".part") for name in parts(images))
    assert cache.cached_images() == []
    return url


def test_a_later_call_goes_on_where_an_earlier_one_ended(server, disk, images):
    url = kept_part(server, disk, images)
    image = fetch(url, patience=HASTY)
    assert image.path.read_bytes() == disk
    assert server.asked(PATH)[-1]["Range"] == "bytes=2000000-"
    assert image.sha256 == hashlib.sha256(disk).hexdigest()


def test_a_server_without_ranges_starts_over(server, disk, images):
    url = kept_part(server, disk, images)
    server.ranges = False
    assert fetch(url, patience=HASTY).path.read_bytes() == disk


def test_a_server_without_validators_starts_over(server, disk, images):
    server.put(PATH, disk)
    url = kept_part(server, disk, images)
    server.put(PATH, disk, "")
    sidecar = next(images.glob(".*.part.json"))
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "validator": ""}))
    assert fetch(url, patience=HASTY).path.read_bytes() == disk
    assert "Range" not in server.asked(PATH)[-1]


def test_a_weak_etag_is_no_validator(server, disk, images):
    server.put(PATH, disk, 'W/"1"')
    server.fail(PATH, faulty.cut(2_000_000))
    assert fetch(server.url + PATH, patience=HASTY).path.read_bytes() == disk
    assert "Range" not in server.asked(PATH)[-1]


def test_a_file_that_changed_meanwhile_starts_over(server, disk, newer_disk, images):
    url = kept_part(server, disk, images)
    server.put(PATH, newer_disk, '"2"')
    assert fetch(url, patience=HASTY).path.read_bytes() == newer_disk
    assert server.asked(PATH)[-1]["If-Range"] == '"1"'


def test_a_file_that_changes_between_two_cuts_starts_over(server, disk, newer_disk):
    url = server.put(PATH, disk)

    def change(handler):
        handler.answer(send=1_500_000)
        handler.server.put(PATH, newer_disk, '"2"')

    server.fail(PATH, change)
    assert fetch(url, checksum=sha256(newer_disk), patience=HASTY).path.read_bytes() == newer_disk


@pytest.mark.parametrize("extra", [1, 5000])
def test_a_part_longer_than_the_file_starts_over(extra, server, disk, images):
    url = kept_part(server, disk, images)
    part = next(images.glob(".*.part"))
    part.write_bytes(disk + bytes(extra))
    assert fetch(url, patience=HASTY).path.read_bytes() == disk


def test_a_part_that_was_complete_is_not_downloaded_again(server, disk, images):
    url = kept_part(server, disk, images)
    next(images.glob(".*.part")).write_bytes(disk)
    image = fetch(url, checksum=sha256(disk), patience=HASTY)
    assert image.path.read_bytes() == disk
    assert len(server.asked(PATH)) == 2


def test_a_part_with_wrong_bytes_is_thrown_away_and_fetched_anew(server, disk, images):
    url = kept_part(server, disk, images)
    part = next(images.glob(".*.part"))
    part.write_bytes(bytes(part.stat().st_size))
    assert fetch(url, checksum=sha256(disk), patience=HASTY).path.read_bytes() == disk


@pytest.mark.parametrize("rubbish", ["", "[]", "{", '{"url": 1}', "null"])
def test_a_damaged_sidecar_starts_over(rubbish, server, disk, images):
    url = kept_part(server, disk, images)
    next(images.glob(".*.part.json")).write_text(rubbish)
    assert fetch(url, patience=HASTY).path.read_bytes() == disk


def test_a_range_that_was_not_asked_for_starts_over(server, disk, images):
    url = kept_part(server, disk, images)

    def shifted(handler):
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 5-{len(disk) - 1}/{len(disk)}")
        handler.send_header("Content-Length", str(len(disk) - 5))
        handler.end_headers()
        handler.wfile.write(disk[5:])

    server.fail(PATH, shifted)
    assert fetch(url, patience=HASTY).path.read_bytes() == disk


@pytest.mark.parametrize(
    "span", ["1000-1000/50", "1000-999/5000", "1000-1000/1000", "1000-9999/5000"]
)
def test_a_range_that_ends_before_it_begins_starts_over(span, server, disk):
    def of_unknown_length(handler):
        handler.send_response(200)
        handler.send_header("ETag", '"1"')
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3e8\r\n" + disk[:1000] + b"\r\n")

    def impossible(handler):
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {span}")
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(bytes(2 << 20))

    url = server.put(PATH, disk)
    server.fail(PATH, of_unknown_length, impossible)
    image = fetch(url, checksum=sha256(disk), patience=HASTY)
    assert image.path.read_bytes() == disk
    assert [headers.get("Range") for headers in server.asked(PATH)] == [None, "bytes=1000-", None]


def test_a_length_that_is_too_short_is_found_by_the_checksum(server, disk, images):
    url = server.put(PATH, disk)
    server.fail(PATH, faulty.declare(1000))
    with pytest.raises(ChecksumError):
        fetch(url, checksum=sha256(disk), patience=HASTY)


def test_a_server_that_stalls_is_left_and_the_rest_fetched(server, disk):
    url = server.put(PATH, disk)
    server.fail(PATH, faulty.stall(1_000_000))
    notes = []
    image = fetch(
        url,
        checksum=sha256(disk),
        # A busy host may stall, too.
        patience=Patience(tries=100, first_wait_s=0.01, timeout_s=0.5),
        progress=lambda event: notes.append(event.note),
    )
    assert image.path.read_bytes() == disk
    assert any("nothing came for too long" in note for note in notes)


# Servers that never end


HEAD = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "status line": b"HTTP/1.1 200 O",
    "header": HEAD + b"Server: x",
    "chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n00",
    "body": HEAD + b"Connection: close\r\n\r\nx",
}


@pytest.mark.parametrize("text", DRIPS.values(), ids=DRIPS)
def test_an_image_that_drips_is_given_up(text, server):
    server.fail(PATH, *[faulty.drip(text)] * 2)
    with pytest.raises(DownloadError, match=r"x-amd64.img .*Given up after 2 failed"):
        fetch(server.url + PATH, patience=Patience(tries=2, first_wait_s=0.01, timeout_s=0.3))


@pytest.mark.parametrize("text", DRIPS.values(), ids=DRIPS)
@pytest.mark.parametrize("path", ["/catalogue.json", "/SUMS"])
def test_a_small_file_that_drips_is_given_up_and_shown_meanwhile(path, text, server, tmp_path):
    server.fail(path, *[faulty.drip(text)] * 9)
    sums = {"url": server.url + "/SUMS", "algorithm": "sha256", "style": "text"}
    known = catalogue(tmp_path, "https://localhost/x", checksums=sums)
    known = dataclasses.replace(known, images={"x": {"amd64": _signed_by_nobody(known)}})
    seen = []
    with pytest.raises(DownloadError, match=r"not complete after 0.6 s|Given up after"):
        fetch(
            "x",
            arch="amd64",
            catalogue=known,
            mirror=server.url if path == "/catalogue.json" else None,
            progress=lambda event: seen.append(event.words()),
            patience=Patience(tries=2, first_wait_s=0.01, timeout_s=0.3, small_timeout_s=0.6),
        )
    if text == DRIPS["body"]:
        assert f"reading {path[1:]}: 1 bytes so far" in seen


def _signed_by_nobody(known):
    """The catalogue's image with a key, so that its checksums may come over plain http."""
    published = known.find("x", "amd64")
    return dataclasses.replace(published, key=Key("k", Path("none"), "0" * 40))


def test_an_endless_file_stops_before_it_fills_the_disk(server, small_disk):
    place = small_disk("size=100m")
    server.fail(PATH, faulty.flood)
    with pytest.raises(DownloadError, match="does not say how long it is"):
        fetch(server.url + PATH, patience=HASTY)
    assert list((place / "images").iterdir()) == []
    assert server.flooded < 60 << 20


# Servers that say no


def test_busy_servers_are_asked_again_and_told_of(server, disk):
    url = server.put(PATH, disk)
    server.fail(PATH, faulty.status(503, Retry_After="0"), faulty.status(429))
    notes = []
    fetch(url, patience=HASTY, progress=lambda event: notes.append(event.note))
    assert any("answered 503" in note and "trying again" in note for note in notes)
    assert len(server.asked(PATH)) == 3


def test_retry_after_is_honoured(server, disk):
    url = server.put(PATH, disk)
    server.fail(PATH, faulty.status(503, Retry_After="1"))
    notes = []
    fetch(url, patience=HASTY, progress=lambda event: notes.append(event.note))
    assert any("trying again in 1 s" in note for note in notes)


def test_a_server_that_asks_for_too_much_patience(server, disk):
    url = server.put(PATH, disk)
    server.fail(PATH, faulty.status(503, Retry_After="9999"))
    with pytest.raises(DownloadError, match="asks to wait 9999 s") as caught:
        fetch(url, patience=HASTY)
    assert caught.value.hint == "Try again later."


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        (None, None),
        ("²", None),
        ("1" * 400, None),
        ("9" * 18, float("9" * 18)),
    ],
    ids=lambda value: str(value)[:12],
)
def test_the_forms_of_retry_after(header, seconds):
    assert retry_after_s(header) == seconds


@pytest.mark.parametrize("length", ["²", "9" * 5000], ids=["no digit", "5000 digits"])
def test_a_length_that_is_no_number_is_passed_over(length, server, disk):
    url = server.put(PATH, disk)

    def odd(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", length)
        handler.end_headers()
        handler.wfile.write(disk)

    server.fail(PATH, odd)
    assert fetch(url, checksum=sha256(disk), patience=HASTY).path.read_bytes() == disk


def test_patience_has_an_end(server, disk):
    url = server.put(PATH, disk)
    server.fail(PATH, *[faulty.status(503)] * 9)
    with pytest.raises(DownloadError, match=r"503.*Given up after 3 failed attempts"):
        fetch(url, patience=HASTY)
    assert len(server.asked(PATH)) == 3


def test_a_missing_file_is_not_asked_for_twice(server):
    with pytest.raises(DownloadError, match="answered 404"):
        fetch(server.url + PATH, patience=HASTY)
    assert len(server.asked(PATH)) == 1


def test_garbage_instead_of_http(server):
    server.fail(PATH, *[faulty.garbage] * 3)
    with pytest.raises(DownloadError, match="Given up after 3"):
        fetch(server.url + PATH, patience=HASTY)


def test_nobody_there():
    with FaultyServer() as server:
        url = server.url + PATH
    with pytest.raises(
        DownloadError, match=r"could not be reached: Connection refused\."
    ) as caught:
        fetch(url, patience=HASTY)
    assert "Check the network" in caught.value.hint


def test_redirects_are_followed_and_recorded(server, disk):
    url = server.put(PATH, disk)
    server.fail("/old", faulty.status(302, Location=url))
    image = fetch(server.url + "/old", patience=HASTY)
    assert image.path.read_bytes() == disk
    assert image.source == server.url + "/old"
    assert image.details["final_url"] == url


def test_many_redirects_are_not_called_a_circle(server, disk):
    for one in range(12):
        server.fail(f"/{one}", *[faulty.status(302, Location=f"/{one + 1}")] * 20)
    with pytest.raises(DownloadError, match=r"/10 is the end of more than 10 redirects"):
        fetch(f"{server.url}/0", patience=HASTY)
    server.put("/12", disk)
    assert fetch(f"{server.url}/2", patience=HASTY).path.read_bytes() == disk


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "x-amd64.img answered 302 without a Location"),
        ({"Location": "http://[::1/x"}, r"redirects to 'http://\[::1/x', which is not a URL: Inv"),
        ({"Location": "http://x:port/"}, r"redirects to 'http://x:port/', which is not a URL: non"),
        ({"Location": f"http://{'a' * 80}.x/"}, r"redirects to 'http://aa.*not a URL: .*too long"),
    ],
    ids=["none", "address", "port", "label"],
)
def test_a_redirect_to_nowhere_blames_the_server_that_sent_it(headers, words, server):
    server.fail(PATH, *[faulty.status(302, **headers)] * 3)
    with pytest.raises(DownloadError, match=words) as caught:
        fetch(server.url + PATH, patience=HASTY)
    assert f"{server.url}{PATH}" in caught.value.message


def test_redirects_in_a_circle(server):
    server.fail("/a", *[faulty.status(302, Location="/b")] * 20)
    server.fail("/b", *[faulty.status(302, Location="/a")] * 20)
    with pytest.raises(DownloadError, match="in a circle"):
        fetch(server.url + "/a", patience=HASTY)


def test_a_url_of_bytes_that_are_no_text_is_none():
    with pytest.raises(DownloadError, match="is not a URL"):
        fetch("http://127.0.0.1:9/\udce9.qcow2")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://localhost/x"])
def test_redirects_to_other_schemes_are_refused(target, server):
    server.fail(PATH, faulty.status(302, Location=target))
    with pytest.raises(DownloadError) as caught:
        fetch(server.url + PATH, patience=HASTY)
    assert caught.value.message == (
        f"{target} was refused ({server.url}{PATH} redirects to it): "
        "cloudlab fetches from http and https only."
    )


@pytest.mark.parametrize("url", ["http://", "http://a b/x.img", "http://[::1/x", "http://x:y/"])
def test_no_url(url):
    with pytest.raises(DownloadError):
        fetch(url, patience=Patience(tries=1))


# Who is believed


def _signer(tmp_path):
    gpg = Gpg(tmp_path / "gpg")
    return gpg.key("publisher"), gpg


@pytest.fixture
def signed(tmp_path, server, disk):
    """A published image with signed checksums, all of it over plain http."""
    key, gpg = _signer(tmp_path)
    sums = f"SHA256 (x-amd64.img) = {hashlib.sha256(disk).hexdigest()}\n".encode()
    server.put(PATH, disk)
    server.put("/SUMS", gpg.sign(key, "--clear-sign", sums))
    with gpg:
        yield catalogue(
            tmp_path,
            server.url + PATH,
            checksums={"url": server.url + "/SUMS", "algorithm": "sha256", "style": "bsd"},
            signature={"style": "clearsigned", "key": "k"},
            keys={"k": {"file": str(key.file), "fingerprint": key.fingerprint}},
        )


def test_signed_checksums_will_do_over_plain_http(signed, disk):
    image = fetch("x", catalogue=signed, arch="amd64", patience=HASTY)
    assert image.path.read_bytes() == disk
    assert image.trust == "signed"
    assert image.details["signed_by"] == signed.find("x", "amd64").key.fingerprint


def test_a_forged_checksum_file_stops_the_fetch(signed, server, newer_disk, disk):
    forged = server.files["/SUMS"].replace(
        hashlib.sha256(disk).hexdigest().encode(), hashlib.sha256(newer_disk).hexdigest().encode()
    )
    server.put("/SUMS", forged)
    server.put(PATH, newer_disk)
    with pytest.raises(SignatureError, match="Bad signature"):
        fetch("x", catalogue=signed, arch="amd64", patience=HASTY)
    assert server.asked(PATH) == []


def test_a_file_of_other_bytes_under_signed_checksums(signed, server, newer_disk):
    server.put(PATH, newer_disk)
    with pytest.raises(ChecksumError):
        fetch("x", catalogue=signed, arch="amd64", patience=HASTY)


@pytest.mark.parametrize("with_checksums", [True, False], ids=["unsigned checksums", "nothing"])
def test_plain_http_is_refused_where_nothing_better_proves_the_bytes(
    with_checksums, server, disk, tmp_path
):
    sums = {"url": server.url + "/SUMS", "algorithm": "sha256", "style": "text"}
    known = catalogue(
        tmp_path, server.put(PATH, disk), **({"checksums": sums} if with_checksums else {})
    )
    with pytest.raises(DownloadError, match="over plain http"):
        fetch("x", catalogue=known, arch="amd64", patience=HASTY)
    assert server.seen == []
    image = fetch("x", catalogue=known, arch="amd64", checksum=sha256(disk), patience=HASTY)
    assert image.trust == "pinned checksum"


def test_a_pinned_checksum_in_the_catalogue_will_do(server, disk, tmp_path):
    known = catalogue(tmp_path, server.put(PATH, disk), pinned={"amd64": sha256(disk)})
    assert fetch("x", catalogue=known, arch="amd64", patience=HASTY).trust == "pinned checksum"


def test_images_without_cloud_init_are_refused_with_the_reason(images):
    with pytest.raises(ImageError, match="holds no cloud-init"):
        fetch("cirros")
    assert not images.exists() or cache.cached_images() == []


@pytest.mark.parametrize("name", ["cirros-0.6.3-x86_64-disk.img", "debian-13-nocloud-amd64.qcow2"])
@pytest.mark.parametrize("how", ["URL", "path"])
def test_a_file_that_is_such_an_image_by_its_name_is_refused(how, name, server, disk, tmp_path):
    choice = server.put(f"/{name}", disk)
    if how == "path":
        (tmp_path / name).write_bytes(disk)
        choice = str(tmp_path / name)
    with pytest.raises(ImageError, match=r"hold.* no cloud-init"):
        choose_image(choice)
    assert server.seen == []


@pytest.mark.parametrize("how", ["URL", "path"])
def test_a_file_has_the_quirks_that_its_name_tells_of(how, server, disk, tmp_path):
    name = "AlmaLinux-10-GenericCloud-10.0-20250528.0.x86_64.qcow2"
    choice = server.put(f"/{name}", disk)
    if how == "path":
        (tmp_path / name).write_bytes(disk)
        choice = str(tmp_path / name)
    image, _ = choose_image(choice)
    assert list(image.details["quirks"]) == ["cpu-x86-64-v3"]


def test_a_name_that_does_not_exist():
    with pytest.raises(UsageError, match="Did you mean"):
        fetch("ubunto-24.04")


class Tls(NamedTuple):
    server: FaultyServer
    authority: Path


def _certify(key, certificate, *options):
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    argv += ["-nodes", "-days", "2", "-keyout", key, "-out", certificate]
    subprocess.run([*argv, *options], check=True, capture_output=True)


def _https_server(folder, extensions):
    """Return an https server, and the certificate of the made-up authority that vouches for it."""
    authority, key = folder / "ca.pem", folder / "ca.key"
    # Some versions of openssl have more extensions in their own configuration.
    config = folder / "openssl.cnf"
    config.write_text(f"[req]\ndistinguished_name=name\nx509_extensions=more\n[name]\n{extensions}")
    _certify(key, authority, "-subj", "/CN=A school", "-config", config)
    config.write_text(
        "[req]\ndistinguished_name=name\nx509_extensions=more\n[name]\n[more]\n"
        "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    by = ["-CA", authority, "-CAkey", key]
    certificate, own_key = folder / "server.pem", folder / "server.key"
    _certify(own_key, certificate, "-subj", "/CN=localhost", "-config", config, *by)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, own_key)
    return FaultyServer(context), authority


WITHOUT_KEY_USAGE = "[more]\nbasicConstraints=critical,CA:true\nsubjectKeyIdentifier=hash\n"


@pytest.fixture
def tls(tmp_path, monkeypatch):
    """An https server whose certificate a made-up authority vouches for."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    server, authority = _https_server(
        tmp_path, WITHOUT_KEY_USAGE + "keyUsage=critical,keyCertSign\n"
    )
    with server:
        yield Tls(server, authority)


def test_tls_of_an_authority_in_ssl_cert_file(tls, disk, monkeypatch, tmp_path):
    name = PATH.rpartition("/")[2]
    tls.server.put("/SUMS", f"{hashlib.sha512(disk).hexdigest()}  {name}\n".encode())
    known = catalogue(
        tmp_path,
        tls.server.put(PATH, disk),
        checksums={"url": tls.server.url + "/SUMS", "algorithm": "sha512", "style": "text"},
    )
    with pytest.raises(DownloadError, match=r"The certificate of .* is not valid"):
        fetch("x", catalogue=known, arch="amd64", patience=HASTY)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.authority))
    image = fetch("x", catalogue=known, arch="amd64", patience=HASTY)
    assert image.trust == "checksum over TLS"
    assert image.path.read_bytes() == disk


@pytest.mark.skipif(sys.version_info < (3, 13), reason="older Pythons accept it")
def test_an_authority_without_key_usage_is_refused_and_why(tmp_path, monkeypatch):
    server, authority = _https_server(tmp_path, WITHOUT_KEY_USAGE)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with server, pytest.raises(DownloadError, match="key usage") as caught:
        fetch(server.put(PATH, b""), checksum=sha256(b""), patience=HASTY)
    assert "RFC 5280, for example without key usage" in caught.value.hint


def test_a_redirect_from_https_to_http_is_refused(tls, server, disk, monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.authority))
    tls.server.fail(PATH, *[faulty.status(302, Location=server.put(PATH, disk))] * 2)
    known = catalogue(tmp_path, tls.server.url + PATH)
    with pytest.raises(DownloadError, match=r"redirects to it.*over plain http"):
        fetch("x", catalogue=known, arch="amd64", patience=HASTY)
    assert server.seen == []
    image = fetch("x", catalogue=known, arch="amd64", checksum=sha256(disk), patience=HASTY)
    assert image.path.read_bytes() == disk


def test_an_http_proxy(server, disk, monkeypatch):
    with Proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        url = server.put(PATH, disk)
        assert fetch(url, checksum=sha256(disk), patience=HASTY).path.read_bytes() == disk
        assert proxy.lines == [f"GET {url} HTTP/1.1"]


def test_an_https_connection_through_a_proxy(tls, disk, monkeypatch):
    with Proxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.authority))
        url = tls.server.put(PATH, disk)
        assert fetch(url, patience=HASTY).path.read_bytes() == disk
        assert [line.rpartition(" ")[0] for line in proxy.lines] == [
            f"CONNECT localhost:{tls.server.server_port}"
        ]


# Room, stopping, and company


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_room_is_looked_for_first(server, disk, images, monkeypatch):
    url = server.put(PATH, disk)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1 << 20))
    with pytest.raises(DownloadError, match=r"needs \d+\.\d MiB in .* where 1\.0 MiB are free"):
        fetch(url, patience=HASTY)
    assert not any(name.endswith(".part") for name in parts(images))


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """Return a function that puts the cache on a real, small filesystem of its own."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = []

    def mount(*options):
        argv = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", place]
        if os.geteuid() or subprocess.run(argv, check=False, capture_output=True).returncode:
            pytest.skip("only root may mount a small filesystem")
        mounted.append(place)
        monkeypatch.setenv("CLOUDLAB_CACHE", str(place))
        return place

    yield mount
    for one in reversed(mounted):
        subprocess.run(["umount", one], check=True)


def test_a_disk_that_fills_up_on_the_way(server, disk, small_disk):
    place = small_disk("size=100m")
    url = server.put(PATH, disk)

    def has_begun():
        # The sidecar's own temporary file may be gone before it is looked at.
        with contextlib.suppress(FileNotFoundError):
            return any(part.stat().st_size for part in (place / "images").glob(".*.part"))

    def fill(handler):
        """Send a part, take all the room there is, and send the rest."""
        handler.answer(send=2_000_000)
        while not has_begun():
            time.sleep(0.01)
        with (place / "filler").open("wb", buffering=0) as stream, contextlib.suppress(OSError):
            while stream.write(bytes(1 << 20)):
                pass
        handler.wfile.write(disk[2_000_000:])

    server.fail(PATH, fill)
    with pytest.raises(DownloadError, match=r"could not be written: No space left") as caught:
        fetch(url, patience=HASTY)
    assert "Free some space there" in caught.value.hint
    (place / "filler").unlink()
    assert fetch(url, patience=HASTY).path.read_bytes() == disk
    assert server.asked(PATH)[-1]["Range"].startswith("bytes=")


@pytest.mark.parametrize("files", range(2, 9))
def test_a_disk_that_takes_no_more_files(files, server, disk, small_disk):
    """Whichever file it is that cannot be made: the lock, the sidecar, the part, the record."""
    place = small_disk("size=100m", f"nr_inodes={files}")
    url = server.put(PATH, disk)
    said = []
    try:
        fetch(url, patience=HASTY)
    except CloudlabError as error:
        said.append(error)
    assert all("No space left" in error.message and error.hint for error in said)
    subprocess.run(["mount", "-o", "remount,nr_inodes=0", place], check=True)
    assert fetch(url, patience=HASTY).path.read_bytes() == disk
    assert sum("Range" not in asked for asked in server.asked(PATH)) <= 2


def test_the_room_of_a_part_that_is_of_no_use_counts_as_free(server, disk, small_disk):
    place = small_disk("size=110m")
    raw = bytes(510) + b"\x55\xaa" + bytes(40 << 20)
    url = kept_part(server, raw, place / "images", after=30 << 20)
    server.ranges = False
    assert fetch(url, patience=HASTY).path.read_bytes() == raw


def test_stopping_keeps_the_part(server, disk, images):
    url = server.put(PATH, disk)
    stop = threading.Event()
    with pytest.raises(InterruptedRunError):
        fetch(url, cancel=stop, progress=lambda _: stop.set(), patience=HASTY)
    assert any(name.endswith(".part") for name in parts(images))
    assert fetch(url, patience=HASTY).path.read_bytes() == disk


def test_stopping_ends_a_pause(server, disk):
    url = server.put(PATH, disk)
    server.fail(PATH, faulty.status(503, Retry_After="1000"))
    stop = threading.Event()
    patient = Patience(longest_wait_s=2000)
    with pytest.raises(InterruptedRunError):
        fetch(url, cancel=stop, progress=lambda _: stop.set(), patience=patient)


PROGRAM = """
import json, sys
from cloudlab.image.fetch import fetch
def show(event):
    print("waiting" if event.waiting_for_other else "loading", event.done_bytes, flush=True)
print("path", fetch(sys.argv[1], **json.loads(sys.argv[2]), progress=show).path, flush=True)
"""


def start(request, **options):
    argv = [sys.executable, "-c", PROGRAM, request, json.dumps(options)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_until(process, word):
    for line in process.stdout:
        if line.startswith(word):
            return line
    raise AssertionError(process.stderr.read())


def test_ctrl_c_keeps_the_part_and_the_next_call_goes_on(server, disk, images):
    url = server.put(PATH, disk)
    server.fail(PATH, faulty.stall(3_000_000))
    with start(url) as process:
        read_until(process, "loading")
        while next(images.glob(".*.part")).stat().st_size < 3_000_000:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert "KeyboardInterrupt" in errors
    kept = next(images.glob(".*.part")).stat().st_size
    assert kept == 3_000_000
    assert fetch(url, patience=HASTY).path.read_bytes() == disk
    assert server.asked(PATH)[-1]["Range"] == f"bytes={kept}-"


def test_one_process_downloads_and_the_others_wait_and_show_it(server, disk):
    url = server.put(PATH, disk)
    gate = held_back(server, PATH)
    with start(url) as first:
        read_until(first, "loading")
        others = [start(url) for _ in range(2)]
        for other in others:
            assert int(read_until(other, "waiting").split()[1]) > 0
        gate.set()
        paths = {read_until(process, "path") for process in (first, *others)}
        for process in (first, *others):
            process.communicate()
            assert process.returncode == 0
    assert len(paths) == 1
    assert Path(paths.pop().removeprefix("path").strip()).read_bytes() == disk
    assert len(server.asked(PATH)) == 2  # the held one and its rest


def held_back(server, path):
    """Have the next request for ``path`` stop on its way until the event that is returned."""
    gate = threading.Event()

    def held(handler):
        handler.answer(send=2_000_000)
        handler.wfile.flush()
        gate.wait(60)

    server.fail(path, held)
    return gate


@pytest.fixture
def spellings(request, server, disk, tmp_path, monkeypatch):
    """Return two ways to ask for one image, as request and options, and where it lies."""
    arch = host_arch()
    if request.param == "architecture":
        path = PATH
        known = tmp_path / "own.yaml"
        entry = {"title": "X", "arch": {arch: "a"}, "url": server.put(path, disk)}
        entry |= {"format": "qcow2", "pinned": {arch: sha256(disk)}}
        known.write_text(json.dumps({"images": {"x": entry}}))
        monkeypatch.setenv("CLOUDLAB_CATALOGUE", str(known))
        return ("x", {}), ("x", {"arch": arch}), path
    path = "/images/lab-x.qcow2"
    lab = cache.Image(
        name="lab-x.qcow2", path=Path("lab-x.qcow2"), format="qcow2", arch=arch,
        virtual_size_bytes=5 << 20, file_size_bytes=len(disk), mtime_ns=1,
        sha256=hashlib.sha256(disk).hexdigest(), origin="built", source="s", date="d", trust="t",
    )  # fmt: skip
    server.put(path, disk)
    server.put("/catalogue.json", write_index([lab]).encode())
    monkeypatch.setenv("CLOUDLAB_MIRROR", server.url)
    return ("lab-x", {}), ("lab-x.qcow2", {"arch": arch}), path


@pytest.mark.parametrize("spellings", few(["architecture", "suffix"], 2), indirect=True)
def test_two_ways_to_ask_for_one_image_are_one_download(spellings, server, disk):
    (one, options), (other, other_options), path = spellings
    gate = held_back(server, path)
    with start(one, **options) as first:
        read_until(first, "loading")
        with start(other, **other_options) as second:
            read_until(second, "waiting")
            gate.set()
            assert read_until(first, "path") == read_until(second, "path")
    assert len(server.asked(path)) == 2  # the held one and its rest


def test_who_waited_for_a_refresh_takes_what_it_brought(server, disk, newer_disk):
    old = fetch(server.put(PATH, disk), patience=HASTY)
    cache.remember(dataclasses.replace(old, date="2099-01-01T00:00:00Z"))
    url = server.put(PATH, newer_disk, '"2"')
    gate = held_back(server, PATH)
    with start(url, refresh=True) as first:
        read_until(first, "loading")
        with start(url, refresh=True) as second:
            read_until(second, "waiting")
            gate.set()
            assert read_until(first, "path") == read_until(second, "path")
    assert len(server.asked(PATH)) == 3  # the old one, the held one and its rest
    assert fetch(url).path.read_bytes() == newer_disk


def test_a_process_that_dies_leaves_no_lock(server, disk):
    url = server.put(PATH, disk)
    server.fail(PATH, faulty.stall(2_000_000))
    with start(url) as process:
        read_until(process, "loading")
        process.kill()
    assert fetch(url, patience=HASTY).path.read_bytes() == disk


# Files of one's own, and what auto chooses


def test_open_image_tells_the_format_by_the_bytes(tmp_path, disk):
    path = tmp_path / "mine.raw"  # the name lies
    path.write_bytes(disk)
    image = open_image(path)
    assert (image.format, image.origin, image.sha256) == ("qcow2", "file", "")
    assert image.virtual_size_bytes == 5 << 20
    raw = tmp_path / "raw.img"
    raw.write_bytes(bytes(510) + b"\x55\xaa" + bytes(1 << 20))
    assert open_image(raw).format == "raw"


LURES = {
    "backing file": (r"has a backing file \(", []),
    "data file": ("uses an external data file", ["data_file={secret}"]),
    "raw data file": ("uses an external data file", ["data_file={secret}", "data_file_raw=on"]),
    "encrypted": ("is encrypted", ["compat=1.1"]),
}


@pytest.fixture(params=LURES)
def lure(request, tmp_path):
    """A qcow2 image that needs something else, which is gone, and what is wrong with it."""
    message, options = LURES[request.param]
    path, secret = tmp_path / "lure.qcow2", tmp_path / "secret"
    secret.write_bytes(bytes(1 << 20))
    argv = ["qemu-img", "create", "-q", "-f", "qcow2"]
    for option in options:
        argv += ["-o", option.format(secret=secret)]
    argv += ["-b", secret, "-F", "raw"] if not options else []
    subprocess.run([*argv, path, "1M"], check=True)
    secret.unlink()
    if request.param == "encrypted":  # by its header: qemu-img needs seconds to make a key
        with path.open("r+b") as stream:
            stream.seek(32)
            stream.write((2).to_bytes(4, "big"))
    return path, message


def test_an_image_that_needs_another_file_is_never_shown_to_qemu(lure, tmp_path, monkeypatch):
    path, message = lure
    told = tmp_path / "told"
    tool = tmp_path / "bin" / "qemu-img"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ntouch '{told}'\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    with pytest.raises(ImageError, match=message):
        open_image(path)
    assert not told.exists()


def test_an_image_that_needs_another_file_is_not_fetched(lure, server, images):
    path, message = lure
    with pytest.raises(ImageError, match=message):
        fetch(server.put(PATH, path.read_bytes()), patience=HASTY)
    assert parts(images) == []
    assert cache.cached_images() == []


def test_open_image_of_a_cached_file_brings_its_record(server, disk):
    image = fetch(server.put(PATH, disk), patience=HASTY)
    assert open_image(image.path) == image


def test_open_image_believes_no_record_outside_the_cache(tmp_path, server, disk):
    image = fetch(server.put(PATH, disk), patience=HASTY)
    mine = tmp_path / image.name
    shutil.copy2(image.path, mine)
    shutil.copy2(f"{image.path}.json", f"{mine}.json")
    opened = open_image(mine)
    assert (opened.origin, opened.sha256, opened.details) == ("file", "", {})
    (tmp_path / f"{image.name}.json").write_text('{"a user\'s": "own"}')
    assert open_image(mine).path == mine


def test_open_image_of_a_cached_file_by_another_way(tmp_path, server, disk):
    image = fetch(server.put(PATH, disk), patience=HASTY)
    (tmp_path / "way").symlink_to(image.path.parent)
    assert open_image(tmp_path / "way" / image.name) == image


def test_open_image_says_why_there_is_no_file(tmp_path):
    with pytest.raises(ImageError, match=r"none\.img cannot be read: No such file"):
        open_image(tmp_path / "none.img")
    (tmp_path / "link.img").symlink_to("/nowhere.img")
    with pytest.raises(ImageError, match=r"a link that leads nowhere \(to /nowhere\.img\)"):
        open_image(tmp_path / "link.img")
    with pytest.raises(ImageError, match=f"{tmp_path} is not a file"):
        open_image(tmp_path)


def test_auto_takes_what_is_cached(server, disk):
    fetched = fetch(server.put(PATH, disk), patience=HASTY)
    assert choose_image(arch="amd64") == (fetched, "the newest image in the cache")


@pytest.fixture
def no_publisher(tmp_path, monkeypatch):
    """Make the catalogue's default one that nobody answers for."""
    with FaultyServer() as gone:
        url = gone.url
    known = tmp_path / "own.yaml"
    entry = {"title": "X", "arch": {"amd64": "a", "arm64": "b"}, "url": url, "format": "qcow2"}
    known.write_text(json.dumps({"default": "x", "images": {"x": entry}}))
    monkeypatch.setenv("CLOUDLAB_CATALOGUE", str(known))
    return tmp_path


@pytest.mark.parametrize(("variant", "taken"), [("plain", True), ("growroot", False), (None, True)])
def test_auto_takes_other_lab_images_if_they_are_plain(variant, taken, server, disk, no_publisher):
    image = fetch(server.put(PATH, disk), patience=HASTY)
    details = {"variant": variant} if variant else {}
    image = cache.remember(dataclasses.replace(image, details=details))
    built = no_publisher / "built.qcow2"
    built.write_bytes(disk)
    chosen, _ = choose_image(builder=lambda: open_image(built))
    assert (chosen == image) is taken


def test_auto_builds_where_nothing_is_cached_or_reached(no_publisher, disk):
    path = no_publisher / "built.qcow2"
    path.write_bytes(disk)
    image, reason = choose_image(builder=lambda: open_image(path))
    assert image.path == path
    assert "built here" in reason


def test_auto_fetches_the_default_where_its_publisher_answers(tls, tmp_path, disk, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.authority))
    known = tmp_path / "own.yaml"
    url = tls.server.put("/{arch}.qcow2".format(arch="a"), disk)
    entry = {"title": "X", "arch": {"amd64": "a", "arm64": "a"}, "url": url, "format": "qcow2"}
    known.write_text(json.dumps({"default": "x", "images": {"x": entry}}))
    monkeypatch.setenv("CLOUDLAB_CATALOGUE", str(known))
    # Else an image would be built instead, which takes minutes.
    image, reason = choose_image(builder=lambda: pytest.fail("the publisher was not asked"))
    assert image.path.read_bytes() == disk
    assert "from its publisher" in reason


@pytest.mark.parametrize("how", ["path", "tilde", "bare name", "Path"])
def test_a_path_is_told_from_a_name(how, tmp_path, disk, monkeypatch):
    path = tmp_path / "mine.qcow2"
    path.write_bytes(disk)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    choices = {"path": str(path), "tilde": "~/mine.qcow2", "bare name": "mine.qcow2", "Path": path}
    image, reason = choose_image(choices[how])
    assert image.path == path
    assert reason == "your own file"
    assert choose_image(image)[0] is image


@pytest.mark.parametrize("name", ["x" * 300, "x\0"], ids=["long", "zero"])
def test_what_can_be_no_file_is_looked_up_as_a_name(name):
    with pytest.raises(CloudlabError, match=r"no image called|no path"):
        choose_image(name)


def test_a_path_that_is_not_there_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=r"no-such\.img"):
        choose_image(Path("no-such.img"))
