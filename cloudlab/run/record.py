"""The record of a run: ``run.json`` as typed values, and the folder that holds it.

A run is a folder:

========================  =======================================================
``run.json``              this record; written first, and again at the end
``user-data``             what cloud-init was given
``meta-data``             likewise
``console.log``           the serial console's raw bytes
``console.cast``          the same with times, as asciicast v2
``sizes.csv``             the sizes table (:data:`cloudlab.sizes.SIZES_COLUMNS`)
``extents.csv``           where each part of the disk comes from
========================  =======================================================

A recording that ships with cloudlab is such a folder.  Nothing else in cloudlab reads or
writes ``run.json``; its types are checked here, so that no other code has to.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from cloudlab import paths
from cloudlab.console import Stage, printable
from cloudlab.disk import DiskLayout
from cloudlab.errors import CloudlabError, DiskError, RecordingError, ToolFailedError
from cloudlab.machine.config import Accel, Firmware, Network
from cloudlab.run.options import Options, Start
from cloudlab.seed import GrowpartMode, Profile, ResizeRootfs
from cloudlab.seed.iso import USER_DATA_FILE, VOLUME_ID

#: Version of the folder's layout; other versions are refused.
FORMAT = 1

_RUN_JSON = "run.json"

#: How often a folder is claimed that other runs create and remove at the same time.
_CLAIM_TRIES = 100
_NO_ROOM = "Free some space there, or choose another folder with --output."
_NO_FOLDER = "Choose a folder that exists and that you may write to."
_DAMAGED = "The file was changed after it was recorded; record the run again."

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, lt=1e9)]


class Outcome(StrEnum):
    """How far a run came."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class RecordedError:
    """Why a run did not finish: the error's class, and its message."""

    kind: str
    text: str


@dataclass(frozen=True)
class RecordedOptions:
    """What was chosen for a run; nothing secret is recorded.

    Attributes are those of :class:`~cloudlab.run.options.Options` and its seed;
    ``own_user_data`` says whether the user-data was given as text.
    """

    disk_size_bytes: Count = 0
    enlarge_to_bytes: Count | None = None
    growpart: GrowpartMode | None = None
    growpart_devices: tuple[str, ...] = ()
    ignore_growroot_disabled: bool | None = None
    resize_rootfs: ResizeRootfs | None = None
    profile: Profile = Profile.LEAN
    sampler: bool = False
    own_user_data: bool = False
    firmware: Firmware | None = None
    memory_bytes: Count = 0
    cpus: Count = 1
    network: Network = Network.NONE
    keep_overlay: bool = False
    attach_seed: bool = True
    seed_label: str = VOLUME_ID
    user_data_file: str = USER_DATA_FILE
    start: Start = Start.COLD

    @classmethod
    def of(cls, options: Options) -> RecordedOptions:
        """Return what is recorded of ``options``."""
        own = {"own_user_data": options.user_data is not None}
        chosen = vars(options.seed) | vars(options) | own
        return cls(**{field.name: chosen[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class RecordedImage:
    """The base image, as far as it names it for good; ``sha256`` is empty if not hashed."""

    name: str = "an unknown image"
    path: str = ""
    sha256: str = ""
    source: str = ""
    date: str = ""
    trust: str = ""
    file_size_bytes: Count = 0
    virtual_size_bytes: Count = 0

    def __post_init__(self) -> None:
        # As for Record.
        object.__setattr__(self, "name", printable(self.name))


@dataclass(frozen=True)
class RecordedStart:
    """How a run started: what was asked for, what was done, and why.

    ``resumed_at_s`` (seconds into the boot) and ``saved`` (date) are those of the snapshot
    that a warm run was resumed from; ``key`` names the snapshot that a cold run saved.
    """

    asked: Start = Start.COLD
    kind: Start = Start.COLD
    why: str = ""
    key: str | None = None
    resumed_at_s: Seconds | None = None
    saved: str | None = None


@dataclass(frozen=True)
class RecordedAccelerator:
    """The accelerator, and why this one."""

    name: Accel | None = None
    reason: str = ""


@dataclass(frozen=True)
class RecordedNetwork:
    """The backend of the guest's network, and what it exposes, as a sentence."""

    backend: str = ""
    warning: str = ""


@dataclass(frozen=True)
class Versions:
    """Versions of what made the run."""

    cloudlab: str = ""
    qemu: str = ""
    python: str = ""
    host: str = ""


@dataclass(frozen=True)
class StageTime:
    """A stage of the boot, in seconds since launch."""

    stage: Stage
    start_s: Seconds
    end_s: Seconds


@dataclass(frozen=True)
class ConsoleCounts:
    """How much the console wrote; ``dropped_bytes`` are beyond the transcript's cap."""

    lines: Count = 0
    bytes: Count = 0
    dropped_bytes: Count = 0


@dataclass(frozen=True)
class OverlaySizes:
    """What the overlay took up on the host before the launch and after the end."""

    start_bytes: Count = 0
    end_bytes: Count = 0


@dataclass(frozen=True)
class Record:
    """Everything that ``run.json`` holds."""

    #: The run's name, which is its folder's.
    name: str = ""
    scenario: str = ""
    #: ISO 8601, UTC.
    started: str = ""
    outcome: Outcome = Outcome.RUNNING
    error: RecordedError | None = None
    options: RecordedOptions = RecordedOptions()
    image: RecordedImage = RecordedImage()
    start: RecordedStart = RecordedStart()
    accelerator: RecordedAccelerator = RecordedAccelerator()
    #: None: the guest had no network.
    network: RecordedNetwork | None = None
    #: What each frame of the guest's report carries; None in older records.
    nonce: str | None = None
    versions: Versions = Versions()
    #: QEMU's argument list.
    command: tuple[str, ...] = ()
    #: What went wrong without ending the run.
    warnings: tuple[str, ...] = ()
    #: Seconds on the machine's clock, which a warm run shares with the boot it was saved in.
    time_s: Seconds | None = None
    #: Seconds from this run's launch to its end.
    took_s: Seconds | None = None
    stages: tuple[StageTime, ...] = ()
    console: ConsoleCounts = ConsoleCounts()
    overlay: OverlaySizes = OverlaySizes()
    #: The disk as the host read it, before the boot and after it; and why the second is missing.
    disk_before: DiskLayout | None = None
    disk_after: DiskLayout | None = None
    disk_error: str = ""

    def __post_init__(self) -> None:
        # They end up in figures, pages and terminals, and may come from a file's name.
        object.__setattr__(self, "name", printable(self.name))
        object.__setattr__(self, "scenario", printable(self.scenario))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON values that ``run.json`` holds."""
        # As JSON has it: to_builtins would leave tuples.
        plain = msgspec.json.decode(
            msgspec.json.encode(replace(self, disk_before=None, disk_after=None))
        )
        del plain["disk_after"], plain["disk_error"]
        plain["disk_before"] = self.disk_before and self.disk_before.to_json()
        plain["disk"] = self.disk_after.to_json() if self.disk_after else None
        if self.disk_error:
            plain["disk"] = {"error": self.disk_error}
        return {"format": FORMAT, **plain}


def record_from_json(data: Any) -> Record:
    """Return the record that parsed JSON holds.

    Raises
    ------
    RecordingError
        If it is of another version, or a value has the wrong type or is out of range.
    """
    found = data.get("format") if isinstance(data, dict) else type(data).__name__
    if found != FORMAT or found is True:
        raise RecordingError(
            f"it is of format {found}; this cloudlab reads format {FORMAT}",
            hint="Use the cloudlab that recorded it, or record the run again.",
        )
    # A run that has not ended, and versions before layouts were recorded, have none.
    before, after = data.get("disk_before"), data.get("disk")
    values = {key: value for key, value in data.items() if not key.startswith("disk")}
    if isinstance(after, dict) and "error" in after:
        values["disk_error"], after = after["error"], None
    try:
        return replace(
            msgspec.convert(values, Record),
            disk_before=None if before is None else DiskLayout.from_json(before),
            disk_after=None if after is None else DiskLayout.from_json(after),
        )
    except (msgspec.ValidationError, CloudlabError) as error:
        reason = error.message if isinstance(error, CloudlabError) else str(error)
        raise RecordingError(f"a value is not valid ({reason})", hint=_DAMAGED) from error


def read_record(folder: Path) -> Record:
    """Read the record of a run folder.

    Raises
    ------
    RecordingError
        If the folder is not a run folder, or its record is damaged.
    """
    path = folder / _RUN_JSON
    try:
        return record_from_json(msgspec.json.decode(path.read_bytes()))
    except PermissionError as error:
        raise RecordingError(
            f"{path} cannot be read: {error.strerror}.",
            hint="Read it as the user who recorded the run, or make the folder readable.",
        ) from error
    except OSError as error:
        # Not Path.is_symlink, which raises for a name that is too long.
        reason = paths.why_not(folder if os.path.islink(folder) else path, error)  # noqa: PTH114
        raise RecordingError(
            f"{folder} is not a run folder (no {_RUN_JSON}: {reason}).",
            hint="Name a folder that 'cloudlab run' or 'cloudlab demo' wrote, or a recording "
            "that ships with cloudlab.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path} is not JSON ({error}).", hint=_DAMAGED) from error
    except RecordingError as error:
        raise RecordingError(f"{path} cannot be used: {error.message}.", hint=error.hint) from error


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Raise :class:`RecordingError`, which begins with ``what``, where the host's disk fails."""
    try:
        yield
    except (OSError, DiskError) as caught:
        error = caught.__cause__ if isinstance(caught, DiskError) else caught
        if not isinstance(error, OSError):
            raise
        hint = _NO_ROOM if error.errno in {errno.ENOSPC, errno.EDQUOT} else _NO_FOLDER
        raise RecordingError(f"{what}: {error.strerror}.", hint=hint) from error
    except ToolFailedError as error:
        # qemu-img writes the overlay.
        full = os.strerror(errno.ENOSPC)
        if full not in error.output:
            raise
        raise RecordingError(f"{what}: {full}.", hint=_NO_ROOM) from error


def write_record(folder: Path, record: Record) -> None:
    """Write ``run.json``, whole or not at all.

    Raises
    ------
    RecordingError
        If the host's disk does not take it.
    """
    text = json.dumps(record.to_json(), indent=2, ensure_ascii=False)
    with writing(f"The run in {folder} could not be recorded"):
        paths.write_whole(folder / _RUN_JSON, text + "\n")


def check_new_folder(folder: Path) -> None:
    """Check that ``folder`` does not exist or is empty, so that nothing is overwritten.

    Raises
    ------
    RecordingError
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        file = next((path for path in (folder, *folder.parents) if os.path.isfile(path)), None)  # noqa: PTH113 (names that are too long)
        raise RecordingError(
            f"{file} is a file, not a folder; nothing was written."
            if file
            else f"The folder {folder} cannot be read: {error.strerror}.",
            hint="Choose a folder of your own with --output.",
        ) from error
    if names:
        # A demo's folder holds its runs one level down; no deeper, because this may be /.
        records = (os.path.join(folder, name, _RUN_JSON) for name in names)  # noqa: PTH118
        holds_run = _RUN_JSON in names or any(map(os.path.exists, records))
        raise RecordingError(
            f"The folder {folder} already holds {'a run' if holds_run else 'other files'}; "
            "it was not touched.",
            hint="Choose another folder with --output, or move this one away.",
        )


def claim_folder(folder: Path) -> None:
    """Make ``folder`` the folder of one new run, readable by its owner only.

    The run that creates ``run.json`` owns the folder, so of several runs that are given the
    same one, exactly one gets it.

    Raises
    ------
    RecordingError
        As :func:`check_new_folder`, or if the folder cannot be created or belongs to another
        user.
    """
    path = folder / _RUN_JSON
    reason = "another program keeps changing it"
    for _ in range(_CLAIM_TRIES):
        check_new_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with path.open("x", encoding="utf-8") as stream:
                json.dump(Record(name=folder.name).to_json(), stream)
            folder.chmod(0o700)
            if len(list(folder.iterdir())) == 1:
                return
            path.unlink(missing_ok=True)  # another program put a file into the folder meanwhile
        except (FileExistsError, FileNotFoundError) as error:
            # Another run took the folder, or removed the one that it had created.
            reason = str(error.strerror)
        except OSError as error:
            path.unlink(missing_ok=True)
            reason = str(error.strerror)
            break
    raise RecordingError(
        f"The folder {folder} cannot be used for a run: {reason}.",
        hint="Choose a folder of your own with --output.",
    )
