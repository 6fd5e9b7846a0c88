"""What the notebooks call, and the notebooks themselves, copied to the learner's own disk.

==========  ===============================================================
module      owns
==========  ===============================================================
cases       the boots of the gallery: how each is made and what it must show
runs        what reaches this host: boots or recordings, images, files, the doctor
classroom   predictions and progress of a class, in one folder
prediction  the learner's prediction, compared with the measurement
shell       interpreting a bootcmd
growth      what a user-data text switches on
node        a model of a node: what boots with a user-data text do to it
checks      answers, feedback, progress; the checks, one module for each notebook
==========  ===============================================================
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cloudlab import paths
from cloudlab.errors import CloudlabError

#: Name -> the module that has it; each module is imported when one of its names is first used.
_HOMES = {
    name: module
    for module, names in {
        "checks.nb00": ("BROKEN_HOST",),
        "checks.nb03": ("BROKEN_USER_DATA",),
        "checks.nb04": ("labelled",),
        "checks.nb06": ("DIAGNOSES", "PATIENTS", "WHEN_IT_DOES_NOT_GROW", "evidence"),
        "checks.nb07": ("BROKEN_STORAGE", "NODE_STORAGE", "mounted"),
        "checks.nb09": ("STUCK",),
        "classroom": ("check", "room_board", "room_predictions", "send_to_class"),
        "prediction": ("Prediction",),
        "runs": (
            "boot",
            "boot_all",
            "boot_text",
            "fetch",
            "image_layout",
            "iso_contents",
            "machine_check",
            "show_mode",
            "try_overlay",
        ),
        "checks": ("Verdict", "progress"),
    }.items()
    for name in names
}

#: What was copied, by its hash: a file that still has it was not touched by the learner.
_RECORD = ".cloudlab-course.json"

_IGNORED = {".ipynb_checkpoints", "__pycache__", "runs"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


@dataclass(frozen=True)
class CopiedCourse:
    """What copying the course did, by names relative to the folder.

    Attributes
    ----------
    folder : Path
    written : tuple of str
        New, or new versions of what the learner had not touched.
    kept : tuple of str
        The learner's own versions, of which cloudlab now has other ones.
    """

    folder: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]


def course_source() -> Path:
    """Return the folder of the course's notebooks: installed with the package, or the clone's.

    Raises
    ------
    CloudlabError
        If they are in neither place.
    """
    package = Path(str(resources.files("cloudlab")))
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if any(folder.glob("00-*.ipynb")):
            return folder
    raise CloudlabError(
        f"The course's notebooks are neither in {package} nor beside it.",
        hint="Install cloudlab from its wheel, or clone its repository as a whole.",
    )


def copy_course(folder: Path, source: Path | None = None) -> CopiedCourse:
    """Bring the course to ``folder``; what the learner changed there stays as it is.

    Parameters
    ----------
    folder : Path
    source : Path, optional
        Default: :func:`course_source`.

    Raises
    ------
    CloudlabError
        If the folder cannot be written to.
    """
    source = source or course_source()
    try:
        paths.make_folder(folder)
    except CloudlabError as error:
        raise CloudlabError(error.message, hint="Choose another folder with --folder.") from error
    record = _read_record(folder)
    written, kept = [], []
    try:
        for path in sorted(source.rglob("*")):
            place = path.relative_to(source)
            if not path.is_file() or _IGNORED & set(place.parts):
                continue
            name = place.as_posix()
            target = folder / name
            ours, theirs = _hash(path), _hash(target)
            if theirs is None or (theirs != ours and theirs == record.get(name)):
                target.parent.mkdir(parents=True, exist_ok=True)
                with paths.whole_file(target) as part:
                    shutil.copyfile(path, part)
                written.append(name)
                record[name] = str(ours)
            elif theirs != ours:
                # Their version of what we already gave them is no news to them.
                kept += [name] if record.get(name) != ours else []
                record[name] = str(ours)
        paths.write_whole(folder / _RECORD, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise CloudlabError(
            f"The course could not be copied to {folder}: {error.strerror}.",
            hint="Choose another folder with --folder.",
        ) from error
    return CopiedCourse(folder, tuple(written), tuple(kept))


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
