"""Where cloudlab keeps things on this host: files and folders of the cache, which are made whole.

The cache holds what can be made again (images, snapshots, accelerator probes) and the entries of
running machines.  It moves with ``CLOUDLAB_CACHE``.  ``CLOUDLAB_SHARED`` is a second one, from
which the users of a host only read: its images and snapshots.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import itertools
import os
import select
import shutil
import stat
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

from cloudlab import platforms
from cloudlab.errors import CloudlabError, UsageError

#: The longest text that a user may name as a file: user-data, keys, a catalogue.
TEXT_LIMIT_BYTES = 1 << 20

#: How long a pipe that something has open may stay silent, in seconds.
PIPE_SILENCE_S = 60.0

#: Seconds after which a folder of another host's or container's process counts as left behind.
_LEFT_AFTER_S = 86400.0

_TEXT = "Name a text file in UTF-8."


def cache_folder() -> Path:
    """Return the cache's absolute path: ``$CLOUDLAB_CACHE``, else the platform's place for caches.

    Raise a CloudlabError if that is in the home folder of a user who has none.
    """
    chosen = os.environ.get("CLOUDLAB_CACHE")
    if chosen:
        return expand(chosen).absolute()
    import platformdirs

    try:
        folder = Path(platformdirs.user_cache_dir("cloudlab", appauthor=False))
    except RuntimeError:
        folder = Path("~")
    if folder.parts[0] == "~":  # as older versions of platformdirs leave it
        raise CloudlabError(
            "This user has no home folder, and the variable HOME is not set.",
            hint="Set CLOUDLAB_CACHE to a folder for the cache, or HOME to yours.",
        )
    return folder


def images_folder() -> Path:
    """Return where images lie in the cache, each beside its record (``NAME.json``)."""
    return cache_folder() / "images"


def snapshots_folder() -> Path:
    """Return where snapshots of machines are, from which runs start warm."""
    return cache_folder() / "snapshots"


def running_folder() -> Path:
    """Return where each running machine has its entry."""
    return cache_folder() / "running"


def readable_folders(own: Path) -> list[Path]:
    """Return a folder of the cache, and the one of the same name in ``$CLOUDLAB_SHARED``, if set."""
    shared = os.environ.get("CLOUDLAB_SHARED")
    return [own, expand(shared).absolute() / own.name] if shared else [own]


def expand(path: str | Path) -> Path:
    """Return ``path`` with a leading ``~`` or ``~user`` replaced by that home folder.

    Raise a UsageError if there is no such user, or it is no path.
    """
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise UsageError(
            f"{path!r:.80} is no path.", hint="Give the path of a file or folder, as text."
        )
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0].removeprefix("~")
        why = f"there is no user {user}" if user else "this user has none, and HOME is not set"
        raise UsageError(
            f"{path} has no home folder to start from: {why}.",
            hint=f"Write the whole path, or ./{path} for a folder of that name.",
        ) from None


def is_utf8(path: Path) -> bool:
    """Return whether a path is UTF-8, as it has to be in JSON, in which QEMU takes file names."""
    return str(path).encode(errors="replace").decode() == str(path)


def read_text(path: Path) -> str:
    """Return the text of a file that a user named.

    A pipe is read to its end, so that ``<(command)`` works in a shell.  Of a gzip file it is the
    unpacked text: cloud-init unpacks user-data as well.

    Raise a UsageError if it cannot be read or unpacked, is longer than :data:`TEXT_LIMIT_BYTES`,
    is not UTF-8, or is a pipe that nothing writes to.
    """
    data = bytearray()
    with (
        os_errors_as(UsageError, f"{path} cannot be read", hint=_TEXT),
        open(path, "rb", buffering=0, opener=_open_at_once) as stream,
    ):
        while len(data) <= TEXT_LIMIT_BYTES and (block := stream.read(1 << 16)) != b"":
            if block is not None:
                data += block
            elif not select.select([stream], [], [], PIPE_SILENCE_S)[0]:
                raise UsageError(
                    f"{path} is a pipe that nothing has written to for a minute.", hint=_TEXT
                )
        is_pipe = not stream.seekable()
    if is_pipe and not data:
        raise UsageError(f"{path} is a pipe that nothing writes to.", hint=_TEXT)
    text = _unpacked(path, bytes(data))
    if len(text) > TEXT_LIMIT_BYTES:
        raise UsageError(
            f"{path} is longer than {TEXT_LIMIT_BYTES >> 20} MiB, so it was not read to its end.",
            hint=_TEXT,
        )
    try:
        # As a text file is read everywhere else.
        return text.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}.", hint=_TEXT) from error


def _open_at_once(name: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a named pipe waits until something writes to it.
    return os.open(name, flags | os.O_NONBLOCK)


def _unpacked(path: Path, data: bytes) -> bytes:
    if not data.startswith(b"\x1f\x8b") or len(data) > TEXT_LIMIT_BYTES:
        return data
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(data)).read(TEXT_LIMIT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is damaged gzip data: {error}.", hint=_TEXT) from error


@contextlib.contextmanager
def os_errors_as(kind: type[CloudlabError], problem: str, *, hint: str = "") -> Iterator[None]:
    """Raise an error of ours in place of an OSError: the problem, a colon, and the reason."""
    try:
        yield
    except OSError as error:
        # Python names the file, a descriptor's number, or nothing.
        path = Path(error.filename) if isinstance(error.filename, str) else Path()
        raise kind(f"{problem}: {why_not(path, error)}.", hint=hint) from error


def why_not(path: Path, error: OSError) -> str:
    """Return in words why ``path`` could not be opened or listed.

    The system calls a link that leads nowhere a missing file, while its user sees it there.
    """
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return f"it is a link that leads nowhere (to {os.readlink(path)})"  # noqa: PTH115 (as text)
    return error.strerror or str(error)


def make_folder(folder: Path, *, private: bool = False) -> Path:
    """Create ``folder`` with its parents and return it; ``private`` is for its owner only.

    Raise a CloudlabError if it cannot be created or written to.
    """
    problem = ""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    except OSError as error:
        problem = f"could not be created: {error.strerror}"
    if not problem and not os.access(folder, os.W_OK | os.X_OK):
        problem = "cannot be written to"
    if problem:
        hint = "Choose another folder."
        with contextlib.suppress(CloudlabError):
            if folder.absolute().is_relative_to(cache_folder()):
                hint = "Set CLOUDLAB_CACHE to a folder that you can write to."
        raise CloudlabError(f"The folder {folder} {problem}.", hint=hint)
    return folder


def free_folder(folder: Path) -> Path:
    """Create ``folder``, or with a number behind its name the first that is not there.

    Of several processes that ask for the same name, each gets a folder of its own.
    """
    make_folder(folder.parent)
    for number in itertools.count(1):
        free = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        with contextlib.suppress(FileExistsError):
            free.mkdir(mode=0o700)
            return free
    raise AssertionError


@contextlib.contextmanager
def scratch_folder(root: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder in ``root``; what is still there when the block ends is deleted.

    What processes left there that died before that is deleted as well, after a day if they ran
    on another host or in another container.
    """
    owner = f"{platforms.process_space()}.{os.getpid()}"
    part = make_folder(root, private=True) / f"{name}.{uuid.uuid4().hex}.{owner}.part"
    # Those of this host first, which may be what fills its disk.
    _sweep_scratch(root, 0.0)
    part.mkdir(mode=0o700)
    try:
        # By the clock of the file server, which may be another host's.
        _sweep_scratch(root, part.stat().st_mtime)
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sweep_scratch(root: Path, now_s: float) -> None:
    for left in root.glob("*.part"):
        if _is_left_behind(left, now_s):
            shutil.rmtree(left, ignore_errors=True)


def _is_left_behind(folder: Path, now_s: float) -> bool:
    """Return whether the process that made a scratch folder is gone, as far as this one can see."""
    import psutil

    space, _, pid = folder.stem.rpartition(".")
    if space.endswith(f".{platforms.process_space()}") and pid.isdigit():
        return not psutil.pid_exists(int(pid))
    with contextlib.suppress(OSError):
        return now_s - folder.stat().st_mtime > _LEFT_AFTER_S
    return False


@contextlib.contextmanager
def whole_file(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` if the block succeeds.

    A reader sees the old file or the whole new one, never half of it; when the
    block fails, nothing is left.  A symbolic link stays one, and its target is replaced.

    Raise an OSError if ``path`` is a folder, device, pipe or socket, or cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    target = path.resolve() if path.is_symlink() else path
    prefix = f".{target.name}."
    try:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=target.parent)
        os.close(handle)
        part = Path(name)
        try:
            yield part
            part.chmod(mode)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        # The temporary file has a random name, which says nothing to the user.
        if isinstance(error.filename, str) and Path(error.filename).name.startswith(prefix):
            error.filename = str(path)
        raise


def write_whole(path: Path, data: str | bytes, *, mode: int = 0o644) -> None:
    """Write a small file, text in UTF-8, as :func:`whole_file` does."""
    with whole_file(path, mode=mode) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
