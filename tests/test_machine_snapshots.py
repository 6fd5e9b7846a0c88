"""Snapshots in the cache: found whole or not at all, the ones used longest ago deleted first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloudlab import paths
from cloudlab.errors import SnapshotError
from cloudlab.machine import snapshots
from cloudlab.machine.snapshots import find_snapshot

pytestmark = pytest.mark.usefixtures("own_cache")


def folders():
    return sorted(paths.snapshots_folder().glob("*"))


def keep(part, key):
    snapshots.keep(
        part, key, at_s=1.5, disk_size_bytes=20 << 30, machine={"cpus": 1},
        console=[(0.5, 3), (1.0, 4)], overlay_growth=[(1.0, 4096)],
    )  # fmt: skip


def test_a_snapshot_comes_back_as_it_was_kept():
    with snapshots.saving("key") as part:
        (part / "console.log").write_bytes(b"onetwo!")
        keep(part, "key")
    snapshot = find_snapshot("key")
    assert list(snapshot.console()) == [(0.5, b"one"), (1.0, b"two!")]
    record = snapshot.record
    assert (record.at_s, record.disk_size_bytes, record.machine) == (1.5, 20 << 30, {"cpus": 1})
    assert record.overlay_growth == ((1.0, 4096),)
    assert find_snapshot("another key") is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"files": {}}', "[" * 100_000, '{"at_s": NaN}'],
)
def test_a_damaged_record_is_deleted_with_its_snapshot(text):
    with snapshots.saving("key") as part:
        keep(part, "key")
    (folders()[0] / "snapshot.json").write_text(text)
    with pytest.raises(SnapshotError, match="is damaged"):
        find_snapshot("key")
    assert folders() == []


WRONG = [
    (field, wrong)
    for field in ("at_s", "console", "disk_size_bytes", "files", "machine")
    for wrong in ("x", 1.5, None, [[1]], {"x": 1})
    if (field, wrong) not in [("at_s", 1.5), ("machine", {"x": 1})]
]


@pytest.mark.parametrize(("field", "wrong"), WRONG)
def test_a_record_with_a_wrong_type_is_deleted(field, wrong):
    with snapshots.saving("key") as part:
        keep(part, "key")
    path = folders()[0] / "snapshot.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, field: wrong}))
    with pytest.raises(SnapshotError, match="is damaged"):
        find_snapshot("key")


def test_the_machines_used_longest_ago_go_first(monkeypatch):
    monkeypatch.setattr(snapshots, "LIMIT_BYTES", 3500)
    for key in ("oldest", "middle", "newest"):
        with snapshots.saving(key) as part:
            (part / "memory").write_bytes(bytes(1000))
            keep(part, key)
        if key == "middle":
            assert find_snapshot("oldest") is not None, "which makes it the one used last"
    assert {path.name for path in folders()} == {"oldest", "newest"}


def test_a_snapshot_that_cannot_be_read_now_is_not_deleted():
    with snapshots.saving("key") as part:
        (part / "memory").write_bytes(b"x")
        keep(part, "key")
    [folder] = folders()
    memory = folder / "memory"
    memory.unlink()
    memory.symlink_to("memory")  # "Too many levels of symbolic links", for root as well
    with pytest.raises(SnapshotError, match="cannot be read: Too many levels"):
        find_snapshot("key")
    assert folders() == [folder]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a read-only folder needs root")
def test_a_machine_in_a_read_only_cache_is_found():
    with snapshots.saving("key") as part:
        keep(part, "key")
    root = paths.snapshots_folder()
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        assert find_snapshot("key") is not None
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_a_shared_snapshot_is_found_and_a_new_one_is_the_learners_own(tmp_path, monkeypatch):
    with snapshots.saving("theirs") as part:
        keep(part, "theirs")
    shared = paths.cache_folder()
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "own"))
    assert find_snapshot("theirs") is None
    monkeypatch.setenv("CLOUDLAB_SHARED", str(shared))
    assert find_snapshot("theirs").folder == shared / "snapshots" / "theirs"
    with snapshots.saving("ours") as part:
        keep(part, "ours")
    assert [one.name for one in folders()] == ["ours"]
    assert find_snapshot("ours").folder == tmp_path / "own" / "snapshots" / "ours"
    assert not (shared / "snapshots" / "ours").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a read-only folder needs root")
def test_a_damaged_snapshot_in_a_read_only_cache_stays(tmp_path, monkeypatch):
    with snapshots.saving("key") as part:
        keep(part, "key")
    [folder] = folders()
    (folder / "snapshot.json").write_text("{")
    root = paths.cache_folder()
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("CLOUDLAB_SHARED", str(root))
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        with pytest.raises(SnapshotError, match=r"is damaged .*; it could not be deleted"):
            find_snapshot("key")
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_what_a_dead_process_left_is_swept():
    code = (
        "import os\nfrom cloudlab.machine import snapshots\n"
        "with snapshots.saving('key') as part: print(part, flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left = Path(done.stdout.strip())
    assert left.exists()
    with snapshots.saving("other"):
        assert not left.exists()


def test_a_record_of_another_machine_is_not_followed_out_of_its_folder(tmp_path):
    with snapshots.saving("key") as part:
        keep(part, "key")
    record = folders()[0] / "snapshot.json"
    about = json.loads(record.read_text())
    about["files"]["memory"] = {"size_bytes": 1, "sha256": "0" * 64}
    record.write_text(json.dumps(about))
    with pytest.raises(SnapshotError, match="a file is missing"):
        find_snapshot("key")
    assert folders() == []
