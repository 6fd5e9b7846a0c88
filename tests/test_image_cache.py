"""The cache on its own: what counts as an image, and what ``cloudlab verify`` says of one."""

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import subprocess

import pytest
from command import cloudlab

from cloudlab import platforms
from cloudlab.errors import ChecksumError, ImageError
from cloudlab.image import cache

needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a read-only folder needs root")

DATA = bytes(510) + b"\x55\xaa" + bytes(4096)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "images"
    folder.mkdir(parents=True)
    return folder


def remember(folder, name="a.raw", data=DATA):
    path = folder / name
    path.write_bytes(data)
    schema = folder / f"{name}.schema.json"
    schema.write_text("{}")
    return cache.remember(
        cache.Image(
            name=name, path=path, format="raw", arch="amd64", virtual_size_bytes=len(data),
            file_size_bytes=0, mtime_ns=0, sha256=hashlib.sha256(data).hexdigest(),
            origin="built", source="a test", date="2026-11-22T00:00:00Z", trust="built here",
            schema_path=schema,
        )
    )  # fmt: skip


def verify(*names):
    return cloudlab("verify", *names)


@pytest.mark.parametrize("named", [True, False], ids=["named", "all"])
@pytest.mark.parametrize("change", ["other size", "other time", "neither"])
def test_verify_finds_a_damaged_image_with_both_hashes(change, named, folder):
    remember(folder, "good.raw")
    image = remember(folder)
    damaged = DATA[:-1] + (b"??" if change == "other size" else b"?")
    image.path.write_bytes(damaged)
    if change == "neither":
        os.utime(image.path, ns=(image.mtime_ns, image.mtime_ns))
    else:
        os.utime(image.path, ns=(image.mtime_ns + 10**9, image.mtime_ns + 10**9))
    done = verify(*(["a.raw"] if named else []))
    said = "".join(done.stderr.split())
    assert done.returncode == 1, done.stderr
    assert image.sha256 in said
    assert hashlib.sha256(damaged).hexdigest() in said
    assert ("ok  good.raw" in done.stdout) is not named
    assert [one.name for one in cache.cached_images() if one.name == "a.raw"] == (
        ["a.raw"] if change == "neither" else []
    ), "a damaged image must not be accepted"


def copied(folder, monkeypatch):
    """Return a copy of the cache whose files have other modification times, in use."""
    copy = folder.parent.parent / "copy" / "images"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    for path in copy.iterdir():
        os.utime(path, ns=(10**18, 10**18))
    monkeypatch.setenv("CLOUDLAB_CACHE", str(copy.parent))
    return copy


def test_a_copied_cache_is_hashed_once_and_used(folder, monkeypatch):
    images = [remember(folder), remember(folder, "b.raw", DATA * 2)]
    copy = copied(folder, monkeypatch)
    found = {image.name: image for image in cache.cached_images()}
    assert set(found) == {"a.raw", "b.raw"}
    for image in images:
        assert found[image.name].mtime_ns == 10**18
        assert found[image.name].schema_path == copy / f"{image.name}.schema.json"
        assert cache.read_record(image.name) == found[image.name], "so it is not hashed again"


@contextlib.contextmanager
def read_only(folder):
    """Mount ``folder`` read-only on itself; root may write to any other."""
    if subprocess.run(["mount", "--bind", folder, folder], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@needs_mount
def test_a_copied_cache_that_cannot_be_written_is_used(folder, monkeypatch):
    remember(folder)
    with read_only(copied(folder, monkeypatch)):
        assert [image.name for image in cache.cached_images()] == ["a.raw"]


@needs_mount
def test_verify_goes_on_in_a_cache_that_cannot_be_written(folder, monkeypatch):
    names = [remember(folder, name).name for name in ("a.raw", "b.raw")]
    copy = copied(folder, monkeypatch)
    with read_only(copy):
        done = verify()
    assert done.returncode == 0, done.stderr
    assert re.findall(r"ok  (\S+)", done.stdout) == names


def test_a_shared_cache_is_read_after_the_learners_own(folder, tmp_path, monkeypatch):
    shared = tmp_path / "shared" / "images"
    shared.mkdir(parents=True)
    theirs = remember(shared, "a.raw"), remember(shared, "b.raw", DATA * 2)
    ours = remember(folder, "a.raw", DATA * 3)
    assert cache.cached_images() == [ours]
    monkeypatch.setenv("CLOUDLAB_SHARED", str(shared.parent))
    assert cache.recorded_names() == ["a.raw", "b.raw"]
    assert {image.path for image in cache.cached_images()} == {ours.path, theirs[1].path}
    assert cache.recall("a.raw") == ours
    assert cache.open_image(theirs[0].path) == theirs[0], "which is not the one of the same name"


def test_without_a_record_in_the_own_cache_the_shared_image_is_used(folder, tmp_path, monkeypatch):
    (folder / "a.raw").write_bytes(DATA[:100])  # what an interrupted fetch may leave
    (tmp_path / "shared" / "images").mkdir(parents=True)
    theirs = remember(tmp_path / "shared" / "images")
    monkeypatch.setenv("CLOUDLAB_SHARED", str(tmp_path / "shared"))
    assert cache.recall("a.raw") == theirs


@pytest.mark.parametrize("broken", ["image", "record", "both"])
def test_a_broken_copy_of_ones_own_does_not_hide_the_shared_image(
    broken, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("CLOUDLAB_SHARED", str(tmp_path / "shared"))
    (tmp_path / "shared" / "images").mkdir(parents=True)
    theirs = remember(tmp_path / "shared" / "images")
    ours = remember(folder)
    if broken != "record":
        ours.path.write_bytes(DATA[:100])
    if broken != "image":
        ours.path.with_name("a.raw.json").write_text("{")
    assert cache.recall("a.raw") == theirs
    assert cache.cached_images() == [theirs]
    # Opened by its path, and verified, it is the broken one.
    with pytest.raises(ImageError, match=re.escape(str(ours.path))):
        cache.open_image(ours.path)
    assert str(ours.path) in "".join(verify().stderr.split())
    theirs.path.write_bytes(DATA[:100])
    with pytest.raises(ImageError, match=re.escape(str(ours.path))):
        cache.recall("a.raw")


def test_a_copy_with_other_bytes_is_refused_with_its_hash(folder, monkeypatch):
    remember(folder)
    copy = copied(folder, monkeypatch)
    other = DATA[:-1] + b"?"
    (copy / "a.raw").write_bytes(other)
    with pytest.raises(ChecksumError, match=hashlib.sha256(other).hexdigest()):
        cache.recall("a.raw")
    assert cache.cached_images() == []
    (copy / "a.raw").write_bytes(DATA + b"?")
    with pytest.raises(
        ChecksumError, match=f"expected {len(DATA):,} bytes, found {len(DATA) + 1:,} b"
    ):
        cache.recall("a.raw")


def test_verify_accepts_a_cache_that_was_copied(folder, monkeypatch):
    remember(folder)
    copied(folder, monkeypatch)
    done = verify()
    assert done.returncode == 0, done.stderr
    assert cache.read_record("a.raw").mtime_ns == 10**18


def test_verify_counts_a_record_that_cannot_be_read(folder):
    remember(folder)
    (folder / "b.raw").write_bytes(DATA)
    (folder / "b.raw.json").write_text("{")
    done = verify()
    assert done.returncode == 1
    assert "b.raw.jsoncannotberead" in "".join(done.stderr.split())
    assert "ok  a.raw" in done.stdout


@pytest.mark.skipif(not platforms.is_linux(), reason="needs a file that root cannot read")
def test_verify_goes_on_after_an_image_that_cannot_be_read(folder):
    remember(folder).path.unlink()
    (folder / "a.raw").symlink_to("/proc/self/mem")
    remember(folder, "b.raw")
    done = verify()
    assert done.returncode == 1
    assert "a.raw cannot be read" in " ".join(done.stderr.split())
    assert "ok  b.raw" in done.stdout


def test_a_hint_to_remove_a_file_is_a_command_for_any_folder(tmp_path):
    folder = tmp_path / "it's my cache"
    folder.mkdir()
    image = remember(folder)
    image.path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(ChecksumError) as caught:
        cache.verify(image)
    assert shlex.split(caught.value.hint)[-2:] == ["rm", str(image.path)]
    record = folder / "a.raw.json"
    record.write_text("{")
    with pytest.raises(ImageError) as caught:
        cache.recall("a.raw", folder)
    assert shlex.split(caught.value.hint)[-2:] == ["rm", str(record)]


def test_verify_passes_over_what_was_removed(folder):
    remember(folder).path.unlink()
    assert verify().returncode == 0


def test_a_verified_image_keeps_its_place_among_the_others(folder):
    old, new = remember(folder), remember(folder, "b.raw")
    os.utime(old.path, ns=(10**18, 10**18))
    cache.verify(old)
    assert [image.name for image in cache.cached_images()] == [new.name, old.name]


def test_a_schema_is_no_record(folder):
    image = remember(folder)
    # Even where something of that name makes it look like one.
    remember(folder, "a.raw.schema")
    assert cache.cached_images() == [image]
    assert cache.recorded_names() == ["a.raw"]


def test_a_cache_that_is_a_file_holds_no_image(tmp_path):
    (tmp_path / "file").touch()
    assert cache.recall("a.raw", tmp_path / "file") is None
