"""Where cloudlab keeps things on this host.

The cache holds what can be made again (images, accelerator probes); the state
folder holds what describes running machines.  Both move with ``CLOUDLAB_CACHE``.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cloudlab.errors import CloudlabError


def cache_folder() -> Path:
    """Return the cache's absolute path: ``$CLOUDLAB_CACHE``, else the platform's place for caches."""
    chosen = os.environ.get("CLOUDLAB_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("cloudlab", appauthor=False))


def images_folder() -> Path:
    """Return where images lie in the cache, each beside its record (``NAME.json``)."""
    return cache_folder() / "images"


def snapshots_folder() -> Path:
    """Return where snapshots of machines are, from which runs start warm."""
    return cache_folder() / "snapshots"


def running_folder() -> Path:
    """Return where each running machine has its entry."""
    return cache_folder() / "running"


def make_folder(folder: Path, *, private: bool = False) -> Path:
    """Create ``folder`` with its parents and return it.

    Parameters
    ----------
    folder : Path
    private : bool
        Whether only its owner may look into it.

    Raises
    ------
    CloudlabError
        If it cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    except OSError as error:
        raise CloudlabError(
            f"The folder {folder} could not be created: {error.strerror}.",
            hint="Choose another place; the cache moves with the variable CLOUDLAB_CACHE.",
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CloudlabError(
            f"The folder {folder} cannot be written to.",
            hint="Choose another place; the cache moves with the variable CLOUDLAB_CACHE.",
        )
    return folder


@contextlib.contextmanager
def whole_file(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` if the block succeeds.

    A reader sees the old file or the whole new one, never half of it; when the
    block fails, nothing is left.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
