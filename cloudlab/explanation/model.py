"""What an explanation is made of: statements, each with what proves it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Subject(StrEnum):
    """What a statement is about."""

    PARTITION = "partition"
    RAID = "raid"
    LUKS = "luks"
    PHYSICAL_VOLUME = "physical_volume"
    LOGICAL_VOLUME = "logical_volume"
    FILESYSTEM = "filesystem"


class Measure(StrEnum):
    """What counts a filesystem's size."""

    STATFS = "statfs"
    SUPERBLOCK = "superblock"


class Grower(StrEnum):
    """Who grew it."""

    GROWPART = "growpart"
    RESIZEFS = "resizefs"
    GROWROOT = "growroot"
    REPART = "systemd-repart"
    GROWFS = "systemd-growfs"
    INITRAMFS = "initramfs"
    OTHER = "other"
    NOBODY = "nobody"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why it did not grow, or no further."""

    GROWPART_OFF = "growpart-off"
    RESIZE_ROOTFS_OFF = "resize-rootfs-false"
    GROWROOT_DISABLED = "growroot-disabled"
    UNKNOWN_MODE = "growpart-mode-unknown"
    NO_GROWPART_TOOL = "growpart-missing"
    NOT_ASKED = "device-not-listed"
    DISK_NOT_LARGER = "disk-not-larger"
    GAIN_BELOW_1_MIB = "gain-too-small"
    WALL = "partition-behind"
    NO_PARTITION = "no-partition-table"
    LOGICAL_VOLUME = "logical-volume"
    ENCRYPTED = "encrypted"
    RAID = "raid"
    ZFS = "zfs"
    IMMUTABLE_ROOT = "immutable-root"
    FILLS_ITS_DEVICE = "fills-its-device"
    FILESYSTEM_FULL = "filesystem-full"
    GROWPART_FAILED = "growpart-failed"
    RESIZE_FAILED = "resize-failed"
    IN_BACKGROUND = "resize-in-background"
    UNKNOWN_FILESYSTEM = "filesystem-unsupported"
    NO_CLOUD_INIT = "cloud-init-did-not-run"
    MODULE_RAN = "module-already-ran"
    TABLE_BUSY = "table-busy"
    MBR_2_TIB = "mbr-2tib"
    GPT_BACKUP = "gpt-backup-misplaced"
    DEVICE_NOT_FOUND = "device-not-found"
    USER_DATA_IGNORED = "user-data-ignored"
    ENLARGED_SINCE = "disk-enlarged-since"
    UNKNOWN = "unknown"


class NoteKind(StrEnum):
    """What else decided the outcome, or how much is known of it."""

    USER_DATA_IGNORED = "user-data-ignored"
    USER_DATA_DOUBTFUL = "user-data doubtful"
    USER_DATA_FAULTS = "faults in the user-data"
    INSTANCE_KNOWN = "instance-id known"
    GROWFS_IDLE = "systemd-growfs idle"
    CLOUD_INIT_ERRORS = "cloud-init errors"
    DAMAGED = "report damaged"
    RECOGNISED = "recognised"
    NOT_RECOGNISED = "not recognised"
    UNREAD = "not understood"
    NOT_ROOT = "not root"
    SEVERAL = "several machines"


class Source(StrEnum):
    """Where a piece of evidence comes from."""

    CONSOLE = "console"
    CLOUD_INIT_LOG = "cloud-init.log"
    KERNEL_LOG = "kernel log"
    JOURNAL = "systemd's journal"
    REPORT = "guest's report"
    DISK = "bytes on disk"
    RUN = "run's record"
    USER_DATA = "user-data"
    OUTPUT = "output of a program"


#: What says that cloud-init is disabled by a file, on the kernel's command line or by a variable.
ON_PURPOSE = re.compile(
    r"(?i)disabled[- ]by[- ](?:/etc/cloud|marker|kernel|env)|disabled via|cloud-init\.disabled|init=disabled"
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that anybody can look up.

    Attributes
    ----------
    source : Source
    text : str
        Quoted, or for sizes the names and numbers that stand there.
    line : int or None
        The line on which it stands, from 1; None for what is in no transcript or file.
    file : str or None
        The file's name; None for a run's own transcript.
    """

    source: Source
    text: str
    line: int | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class When:
    """When it grew, as closely as it is known.

    Attributes
    ----------
    stage : str or None
        The boot stage, as in ``run.json``.
    guest_s : float or None
        The guest's uptime at which it was first seen grown, in seconds.
    not_before_s : float or None
        The guest's uptime until which it is known to have been as before.
    host_s : float or None
        Seconds from the machine's launch to ``guest_s``, on the host's clock.
    """

    stage: str | None = None
    guest_s: float | None = None
    not_before_s: float | None = None
    host_s: float | None = None


#: Whether it grew (None: the evidence does not decide), by whom, and why not or no further.
Finding = tuple[bool | None, Grower, Reason | None]


@dataclass(frozen=True, slots=True)
class Statement:
    """One claim about the root partition or the root filesystem.

    Attributes
    ----------
    subject : Subject
    device : str
        E.g. ``vda1``; empty where nothing names it.
    grown : bool or None
        None where the evidence does not decide it.
    by : Grower
    reason : Reason or None
        Why it did not grow; where ``grown``, why no further, or None if it grew all the way.
    from_bytes, to_bytes : int or None
        Its size before and after.
    measure : Measure or None
        What counted them; None for a partition.
    when : When or None
    evidence : tuple of Evidence
    missing : tuple of str
        What evidence would have been needed and is not there, in sentences.
    fix : str or None
        What to run on this machine, in order, one command or comment a line; None where nothing
        is wrong, or what would help is unknown.
    """

    subject: Subject
    device: str
    grown: bool | None
    by: Grower
    reason: Reason | None = None
    from_bytes: int | None = None
    to_bytes: int | None = None
    measure: Measure | None = None
    when: When | None = None
    evidence: tuple[Evidence, ...] = ()
    missing: tuple[str, ...] = ()
    fix: str | None = None

    @property
    def finding(self) -> Finding:
        """What two boots of the same options have in common."""
        return self.grown, self.by, self.reason


@dataclass(frozen=True, slots=True)
class Note:
    """Something besides that decided the outcome.

    ``detail`` is what this boot adds to the sentence of its kind; it may be empty.
    """

    kind: NoteKind
    evidence: tuple[Evidence, ...]
    detail: str = ""
