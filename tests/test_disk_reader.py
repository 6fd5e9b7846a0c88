"""Reading a disk through qemu-nbd: beside a machine, and leaving nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from disks import MIB, shown

from cloudlab import tools
from cloudlab.disk import check_safe, inspect_disk
from cloudlab.disk.reader import backing_chain, is_in_use, open_disk
from cloudlab.errors import (
    CloudlabError,
    DiskError,
    ToolNotFoundError,
    UnsafeImageError,
    UsageError,
)


@pytest.fixture
def qcow2(tmp_path):
    disk = tmp_path / "disk.qcow2"
    tools.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"])
    return disk


def servers(disk: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if (
            words.startswith(str(tools.find_tool("qemu-nbd")).encode())
            and str(disk).encode() in words
        ):
            found.append(int(entry.name))
    return found


def wait_until_gone(disk: Path) -> None:
    deadline = tools.Deadline.after(30)
    while servers(disk) and not deadline.expired:
        time.sleep(0.02)
    assert servers(disk) == []


def test_bytes_come_from_where_they_were_written(qcow2):
    writes = {0: 1, 12345: 2, 64 * MIB - 4096: 3}
    commands = [f"write -P {value} {offset} 4096" for offset, value in writes.items()]
    tools.run(["qemu-io", "-f", "qcow2", *(w for c in commands for w in ("-c", c)), qcow2])
    with open_disk(backing_chain(qcow2)) as reader:
        assert reader.size_bytes == 64 * MIB
        for offset, value in writes.items():
            assert reader.read(offset, 4096) == bytes([value]) * 4096
        assert reader.read(12344, 2) == b"\0\2"
        assert reader.read(64 * MIB - 10, 512) == bytes([3]) * 10
        assert reader.read(64 * MIB, 512) == b""


def test_a_disk_in_use_is_read_and_said_to_be_in_use(qcow2):
    writer = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", qcow2], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with writer:
        # The prompt shows that the disk is open and locked.
        assert writer.stdout.read(7) == b"qemu-io"
        during, text = inspect_disk(qcow2), shown(qcow2)
        writer.stdin.close()
        writer.stdout.read()
    after = inspect_disk(qcow2)
    assert during.in_use
    assert not after.in_use
    assert "out of date" in text
    assert "out of date" not in shown(qcow2)


@pytest.mark.parametrize("name", ["block.qcow2", "shared-write lock.qcow2"])
def test_a_disk_is_not_in_use_because_its_name_says_lock(name, qcow2):
    disk = qcow2.rename(qcow2.with_name(name))
    with disk.open("r+b") as stream:
        stream.seek(40)
        stream.write(b"\xff" * 8)  # QEMU cannot open it, and names it
    assert not is_in_use(backing_chain(disk)[0])


def test_a_feature_that_qemu_lacks_is_no_damage(qcow2):
    with qcow2.open("r+b") as stream:
        stream.seek(72)
        stream.write(b"\x80")
    with pytest.raises(DiskError, match="Unknown incompatible feature: 8000"):
        inspect_disk(qcow2)
    with pytest.raises(UnsafeImageError, match="Unknown incompatible feature: 8000") as caught:
        check_safe(qcow2)
    assert "damaged" not in caught.value.message
    assert "newer QEMU" in caught.value.hint


@pytest.mark.parametrize("name", ["foo", "", "QCOW2", ["raw"]])
def test_a_format_that_is_none_is_the_callers_mistake(name, qcow2):
    with pytest.raises(UsageError, match="format of a disk cannot be") as caught:
        inspect_disk(qcow2, name)
    assert "qcow2 or raw" in caught.value.hint


def test_no_server_outlives_its_block(qcow2):
    with open_disk(backing_chain(qcow2)):
        assert len(servers(qcow2)) == 1
    assert servers(qcow2) == []


def test_no_server_outlives_an_interrupt(qcow2):
    def interrupted() -> None:
        with open_disk(backing_chain(qcow2)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert servers(qcow2) == []


def test_no_server_outlives_a_killed_owner(qcow2):
    code = (
        "import sys, pathlib, time\n"
        "from cloudlab.disk.reader import backing_chain, open_disk\n"
        "with open_disk(backing_chain(pathlib.Path(sys.argv[1]))):\n"
        "    print('open', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, qcow2], stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"open\n"
        assert len(servers(qcow2)) == 1
        owner.send_signal(signal.SIGKILL)
    wait_until_gone(qcow2)


def test_a_server_that_dies_is_an_error(qcow2):
    with open_disk(backing_chain(qcow2)) as reader:
        (server,) = servers(qcow2)
        os.kill(server, signal.SIGKILL)
        wait_until_gone(qcow2)
        with pytest.raises(DiskError, match="qemu-nbd"):
            reader.read(0, 512)


LISTENS_AND_FAILS = """#!{python}
import socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[sys.argv.index("-k") + 1])
listening.listen()
connection, _ = listening.accept()
{answer}
sys.exit("Active L1 table offset invalid")
"""


@pytest.mark.parametrize("answer", ["", "connection.sendall(b'NBDMAGIC')"])
def test_why_the_server_breaks_off_is_said(answer, qcow2, tmp_path, monkeypatch):
    # qemu-nbd listens first and opens the disk then, so a client may be connected already.
    fake = tmp_path / "bin" / "qemu-nbd"
    fake.parent.mkdir()
    fake.write_text(LISTENS_AND_FAILS.format(python=sys.executable, answer=answer))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with (
        pytest.raises(DiskError, match=f"cannot open {qcow2}: Active L1 table offset invalid"),
        open_disk(backing_chain(qcow2)),
    ):
        pass


def test_a_disk_that_qemu_cannot_open_is_refused_with_its_reason(qcow2):
    with qcow2.open("r+b") as stream:
        stream.seek(40)
        stream.write(b"\xff" * 8)  # the offset of the L1 table
    for _ in range(5):
        with pytest.raises(DiskError, match="Active L1 table"), open_disk(backing_chain(qcow2)):
            pass


def test_damaged_clusters_are_an_error_that_names_the_place(qcow2):
    tools.run(["qemu-io", "-f", "qcow2", "-c", "write 0 1M", qcow2])
    with qcow2.open("r+b") as stream:
        stream.seek(40)
        l1_offset = int.from_bytes(stream.read(8), "big")
        stream.seek(l1_offset)
        stream.write(b"\x80\x00\x00\x00\x00\x00\x02\x00")
    with pytest.raises(DiskError, match="at byte 0"):
        inspect_disk(qcow2)


def write_head(path: Path, head: bytes) -> Path:
    path.write_bytes(head + bytes(MIB))
    return path


UNREADABLE = {
    "not-there": (lambda path: path, "No such file"),
    "folder": (lambda path: path.mkdir() or path, "neither a file nor a block device"),
    "fifo": (lambda path: os.mkfifo(path) or path, "neither a file nor a block device"),
    "link-to-itself": (lambda path: path.symlink_to(path) or path, "symbolic links"),
    "nul-in-name": (lambda path: Path(f"{path}\0"), "is no path"),
    "vmdk": (lambda path: write_head(path, b"KDMV"), "format vmdk"),
    "qcow-1": (lambda path: write_head(path, b"QFI\xfb\0\0\0\1"), "format qcow;"),
    "magic-only": (lambda path: path.write_bytes(b"QFI\xfb") and path, "cut off"),
    "version-9": (lambda path: write_head(path, b"QFI\xfb\0\0\0\x09"), "version 9"),
}


@pytest.mark.parametrize(("make", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_disk_is_told(tmp_path, make, message):
    with pytest.raises(CloudlabError, match=message):
        inspect_disk(make(tmp_path / "disk"))


def test_an_empty_file_is_an_empty_disk(tmp_path):
    (tmp_path / "disk").touch()
    layout = inspect_disk(tmp_path / "disk")
    assert (layout.virtual_size_bytes, layout.partitions) == (0, ())


def overlay_on(name: str, path: Path) -> Path:
    argv = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", name, path, "64M"]
    tools.run(argv)
    return path


@pytest.mark.parametrize(
    ("backing", "message"),
    [
        pytest.param("json:{'driver':'null-co'}", "opens only local files", id="json"),
        pytest.param("nbd://127.0.0.1:1/x", "opens only local files", id="nbd"),
        pytest.param("https://example.org/x", "opens only local files", id="https"),
        pytest.param("fat:rw:/etc", "opens only local files", id="vvfat"),
        pytest.param("missing.raw", "missing.raw could not be read", id="missing"),
        pytest.param("/dev/zero", "neither a file nor a block device", id="device"),
    ],
)
def test_backing_files_that_are_not_followed(tmp_path, backing, message):
    with pytest.raises(DiskError, match=message):
        inspect_disk(overlay_on(backing, tmp_path / "disk"))


def test_backing_files_in_a_circle(tmp_path):
    for name, backing in (("a", "b"), ("b", "c"), ("c", "./a")):
        argv = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing]
        tools.run([*argv, tmp_path / name, "64M"])
    with pytest.raises(DiskError, match="circular"):
        inspect_disk(tmp_path / "a")


def test_a_raw_disk_that_looks_like_qcow2_is_not_followed_when_named_raw(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(MIB))
    disk = overlay_on(str(secret), tmp_path / "disk")
    as_raw = inspect_disk(disk, "raw")
    assert (as_raw.format, as_raw.backing_file) == ("raw", None)
    assert as_raw.virtual_size_bytes == -(-disk.stat().st_size // 512) * 512


def test_a_missing_qemu_is_told(qcow2, monkeypatch):
    monkeypatch.setenv("PATH", str(qcow2.parent))
    monkeypatch.setattr(tools, "_SYSTEM_FOLDERS", ())
    with pytest.raises(ToolNotFoundError, match="qemu-img"):
        inspect_disk(qcow2)


def test_the_socket_has_a_short_path_where_temporary_files_have_long_ones(
    qcow2, tmp_path, monkeypatch
):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert inspect_disk(qcow2).format == "qcow2"


def test_no_qemu_nbd_outlives_an_owner_that_is_killed_before_it_connects(qcow2):
    # The owner never gets to connect: qemu-nbd would wait for its first client for ever.
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom cloudlab.disk import inspect_disk, reader\n"
        "reader._connect = lambda address: print(flush=True) if address.exists() else None\n"
        "inspect_disk(Path(sys.argv[1]), 'qcow2')"
    )
    argv = [sys.executable, "-c", script, str(qcow2)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        assert servers(qcow2)
        owner.kill()
    wait_until_gone(qcow2)
