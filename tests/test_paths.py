"""Files that appear whole or not at all, and folders that can be written to."""

import contextlib
import errno
import gzip
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from cloudlab import paths, platforms
from cloudlab.cli import main
from cloudlab.errors import CloudlabError, DiskError, UsageError

ROOT_OF_LINUX = platforms.is_linux() and os.geteuid() == 0


def test_the_cache_moves_with_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "c"))
    assert paths.images_folder() == tmp_path / "c" / "images"


def test_a_whole_file_replaces_the_old_one(tmp_path):
    target = tmp_path / "f"
    target.write_text("old")
    with paths.whole_file(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "f"
    target.write_text("old")

    def fail():
        with paths.whole_file(target) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("text", ["old", None], ids=["to a file", "to nothing"])
def test_a_link_stays_one_and_its_target_is_written(text, tmp_path):
    target, link = tmp_path / "elsewhere" / "f", tmp_path / "link"
    target.parent.mkdir()
    if text is not None:
        target.write_text(text)
    link.symlink_to("elsewhere/f")
    paths.write_whole(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "it is not a regular file"),
        (os.mkdir, "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/null"), "it is not a regular file"),
        (lambda path: path.symlink_to("gone/f"), "No such file or directory"),
    ],
    ids=["pipe", "folder", "loop", "device", "link into nowhere"],
)
def test_what_is_no_regular_file_is_not_replaced(make, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(path := paths.Path("f"))
    kind = path.lstat().st_mode
    with pytest.raises(OSError, match=words) as caught, paths.whole_file(path):
        pytest.fail("the block ran")
    assert caught.value.filename == "f"
    assert path.lstat().st_mode == kind
    assert [one.name for one in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("place", ["gone/f", "file/f"])
def test_an_error_names_the_file_and_not_the_temporary_one(place, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"/f'$") as caught:
        paths.write_whole(tmp_path / place, "text")
    assert caught.value.filename == str(tmp_path / place)


def test_a_full_disk_is_reported_for_the_file(tmp_path):
    def fill():
        with paths.whole_file(tmp_path / "f") as part:
            raise OSError(errno.ENOSPC, "No space left on device", str(part))

    with pytest.raises(OSError, match="No space") as caught:
        fill()
    assert caught.value.filename == str(tmp_path / "f")


@pytest.mark.parametrize(
    "command",
    ["seed f --force", "figure default --output f.svg", "figure default --data f"],
)
def test_a_command_refuses_to_write_over_a_pipe(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = command.split()[-1] if "figure" in command else "f"
    os.mkfifo(name)
    assert main(command.split()) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert f"{name} could not be written: it is not a regular file. Choose a" in told
    assert paths.Path(name).is_fifo()


def test_a_small_file_is_written_whole(tmp_path):
    paths.write_whole(tmp_path / "text", "grün\n", mode=0o600)
    paths.write_whole(tmp_path / "bytes", b"\0")
    assert (tmp_path / "text").read_bytes() == "grün\n".encode()
    assert (tmp_path / "text").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "bytes").read_bytes() == b"\0"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none", "No such file or directory"),
        ("link", r"it is a link that leads nowhere \(to nowhere\)"),
        # Here the error names a descriptor's number.
        ("folder", "Is a directory"),
    ],
)
def test_an_error_of_the_system_becomes_one_of_ours(name, reason, tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    hint = "Name a file."
    with (
        pytest.raises(DiskError, match=f"^It cannot be read: {reason}\\.\nName") as caught,
        paths.os_errors_as(DiskError, "It cannot be read", hint=hint),
        open(os.open(tmp_path / name, os.O_RDONLY)),  # noqa: PTH123 (a descriptor)
    ):
        pass
    assert caught.value.hint == hint
    assert isinstance(caught.value.__cause__, OSError)


def test_a_private_folder_is_its_owners(tmp_path):
    folder = paths.make_folder(tmp_path / "a" / "b", private=True)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CloudlabError, match="Not a directory") as caught:
        paths.make_folder(tmp_path / "file" / "sub")
    assert caught.value.hint == "Choose another folder."


def test_a_folder_of_the_cache_that_cannot_be_made_names_what_moves_the_cache(
    tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(CloudlabError, match="Set CLOUDLAB_CACHE"):
        paths.make_folder(paths.images_folder())


@pytest.mark.parametrize("way", ["cache", "path"])
def test_a_home_folder_of_nobody_is_a_usage_error(way, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_CACHE", "~nouser/x")
    with pytest.raises(UsageError, match="no user nouser") as caught:
        paths.cache_folder() if way == "cache" else paths.expand("~nouser/x")
    assert "./~nouser/x" in caught.value.hint


@pytest.mark.skipif(not ROOT_OF_LINUX, reason="becoming a user without a name needs root")
def test_a_user_without_a_home_folder_is_told_what_to_set(tmp_path):
    code = """
import os
from cloudlab import paths
from cloudlab.errors import CloudlabError
import platformdirs
os.setuid(54321)
for ask in (paths.images_folder, lambda: paths.expand("~/x"), lambda: paths.expand("~nouser/x")):
    try:
        print(ask())
    except CloudlabError as error:
        print(type(error).__name__, str(error).replace("\\n", " "))
"""
    homes = {"HOME", "XDG_CACHE_HOME", "CLOUDLAB_CACHE"}
    env = {name: value for name, value in os.environ.items() if name not in homes}
    for chosen in ({}, {"CLOUDLAB_CACHE": "/srv/c"}):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=env | chosen,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        cache, own, other = done.stdout.splitlines()
        expected = "CloudlabError This user has no home folder.*Set CLOUDLAB_CACHE .*or HOME"
        assert re.match("/srv/c/images" if chosen else expected, cache)
        assert re.match(
            r"UsageError ~/x has no home folder.*: this user has none, .*whole path", own
        )
        assert "there is no user nouser." in other


def test_a_text_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"\xc3\xa4" * (paths.TEXT_LIMIT_BYTES // 2))
    assert len(paths.read_text(path)) == paths.TEXT_LIMIT_BYTES // 2
    path.write_bytes(bytes(paths.TEXT_LIMIT_BYTES + 1))
    with pytest.raises(UsageError, match="longer than 1 MiB"):
        paths.read_text(path)


def test_a_gzip_file_is_unpacked_up_to_the_limit(tmp_path):
    path = tmp_path / "f.gz"
    path.write_bytes(gzip.compress(b"#cloud-config\r\n"))
    assert paths.read_text(path) == "#cloud-config\n"
    path.write_bytes(gzip.compress(bytes(1 << 20)) * 512)
    with pytest.raises(UsageError, match="longer than 1 MiB"):
        paths.read_text(path)


@pytest.mark.parametrize("cut", [2, 12, 25, -3], ids=str)
def test_a_damaged_gzip_file_is_refused(cut, tmp_path):
    (tmp_path / "f.gz").write_bytes(gzip.compress(b"#cloud-config\nruncmd: []\n")[:cut])
    with pytest.raises(UsageError, match="damaged gzip"):
        paths.read_text(tmp_path / "f.gz")


def test_an_endless_device_is_not_read_to_its_end():
    with pytest.raises(UsageError, match="longer than 1 MiB"):
        paths.read_text(paths.Path("/dev/zero"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "a pipe that nothing writes to"),
        (os.mkdir, "Is a directory"),
        (lambda path: path.write_bytes(b"\xff"), "not UTF-8"),
        (lambda path: None, "No such file"),
        (lambda path: path.symlink_to("gone"), r"a link that leads nowhere \(to gone\)"),
    ],
    ids=["pipe", "folder", "bytes", "nothing", "link"],
)
def test_what_is_not_a_text_file(make, words, tmp_path):
    make(tmp_path / "f")
    open_files = psutil.Process().num_fds()
    with pytest.raises(UsageError, match=words) as caught:
        paths.read_text(tmp_path / "f")
    assert caught.value.hint
    assert psutil.Process().num_fds() == open_files


@pytest.mark.parametrize("command", ["inspect", "parse", "explain"])
def test_a_link_that_leads_nowhere_is_called_one(command, tmp_path, capsys):
    (tmp_path / "link").symlink_to("/gone")
    assert main([command, str(tmp_path / "link")]) != 0
    told = " ".join(capsys.readouterr().err.split())
    assert "a link that leads nowhere (to /gone)" in told


def test_a_pipe_with_a_silent_writer_ends_the_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PIPE_SILENCE_S", 0.1)
    reader, writer = os.pipe()
    with pytest.raises(UsageError, match="nothing has written to for"):
        paths.read_text(paths.Path(f"/dev/fd/{reader}"))
    os.close(reader)
    os.close(writer)


def test_a_pipe_is_read_to_its_end():
    reader, writer = os.pipe()

    def write():
        for _ in range(3):
            os.write(writer, b"some text\n" * 100)
        os.close(writer)

    threading.Timer(0.2, write).start()
    assert paths.read_text(paths.Path(f"/dev/fd/{reader}")) == "some text\n" * 300
    os.close(reader)


def test_each_gets_a_free_folder_of_its_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: paths.free_folder(tmp_path / "a" / "run"), range(40)))
    assert {path.name for path in got} == {"run", *(f"run-{number}" for number in range(2, 41))}
    assert all(path.is_dir() for path in got)


HOLD = """
import sys
from pathlib import Path
from cloudlab import paths
with paths.scratch_folder(Path(sys.argv[1]), "run") as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held(root):
    """Yield the scratch folder of another process, and the process."""
    argv, pipe = [sys.executable, "-c", HOLD, str(root)], subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        yield Path(process.stdout.readline().strip()), process


def test_a_scratch_folder_is_deleted_with_its_process(tmp_path):
    with held(tmp_path) as (folder, process):
        with paths.scratch_folder(tmp_path, "run"):
            assert folder.is_dir()
        process.kill()
        process.wait()
        with paths.scratch_folder(tmp_path, "run") as own:
            assert list(tmp_path.iterdir()) == [own]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not ROOT_OF_LINUX, reason="a namespace of processes needs root on Linux")
def test_a_scratch_folder_of_another_container_stays(tmp_path):
    container = ["unshare", "--fork", "--pid", "--mount-proc"]
    if subprocess.run([*container, "true"], check=False).returncode:
        pytest.skip("this root may not make namespaces")
    with held(tmp_path) as (folder, _):
        argv = [*container, sys.executable, "-c", HOLD, str(tmp_path)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("owner", ["a-host-12.1", "a-host-12.99999999", "99999999", "x"])
@pytest.mark.parametrize(("age_s", "is_left"), [(3600, False), (90000, True)])
def test_a_scratch_folder_of_an_unknown_process_is_deleted_after_a_day(
    owner, age_s, is_left, tmp_path
):
    left = tmp_path / f"run.0.{owner}.part"
    left.mkdir()
    then = time.time() - age_s
    os.utime(left, (then, then))
    with paths.scratch_folder(tmp_path, "run"):
        assert left.exists() != is_left


@pytest.mark.skipif(not ROOT_OF_LINUX, reason="mounting a small disk needs root on Linux")
def test_what_a_dead_process_left_is_deleted_where_it_fills_the_disk(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=20", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        left = tmp_path / f"run.0.{platforms.process_space()}.99999999.part"
        left.mkdir()
        with contextlib.suppress(OSError):
            for number in range(20):
                (left / str(number)).touch()
        with paths.scratch_folder(tmp_path, "run") as own:
            assert list(tmp_path.iterdir()) == [own]
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
