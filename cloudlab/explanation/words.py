"""An explanation, in sentences for a terminal and for pages, and the texts of what helps."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from cloudlab.console import printable
from cloudlab.explanation.model import (
    ON_PURPOSE,
    Evidence,
    Grower,
    Measure,
    Note,
    NoteKind,
    Reason,
    Source,
    Statement,
    Subject,
    When,
)
from cloudlab.html import table_html
from cloudlab.units import format_bytes, format_two

_GROWERS = {
    Grower.GROWPART: "cloud-init's growpart",
    Grower.RESIZEFS: "cloud-init's resizefs",
    Grower.GROWROOT: "growroot in the initramfs, before cloud-init began",
    Grower.GROWFS: "systemd-growfs",
    Grower.REPART: "systemd-repart",
    Grower.INITRAMFS: "the initramfs",
    Grower.OTHER: "another program",
}

_REASONS = {
    Reason.GROWPART_OFF: "growpart is switched off (growpart: mode: 'off', or cloud.cfg does not "
    "list it)",
    Reason.RESIZE_ROOTFS_OFF: "resizing is switched off (resize_rootfs: false)",
    Reason.GROWROOT_DISABLED: "the file /etc/growroot-disabled keeps growpart from running",
    Reason.UNKNOWN_MODE: "growpart.mode is not a mode that cloud-init knows, or one that this "
    "system does not have",
    Reason.NO_GROWPART_TOOL: "the image has no growpart program",
    Reason.NOT_ASKED: "growpart.devices does not name it",
    Reason.DISK_NOT_LARGER: "the disk is no larger than what it was made from, so there is too "
    "little room to grow",
    Reason.GAIN_BELOW_1_MIB: "there is less than 1 MiB to gain, which growpart ignores",
    Reason.WALL: "another partition begins right behind it",
    Reason.NO_PARTITION: "the filesystem lies on the whole disk, so there is no partition to grow",
    Reason.LOGICAL_VOLUME: "root is a logical volume; growpart grows the partition below it only "
    "if growpart.devices lists it, and then runs pvresize; run lvextend yourself",
    Reason.ENCRYPTED: "root lies on an encrypted device, which growpart does not grow",
    Reason.RAID: "root lies on a RAID array, which growpart does not grow",
    Reason.ZFS: "root is a ZFS dataset, which growpart cannot map to a partition",
    Reason.IMMUTABLE_ROOT: "the root filesystem is mounted read-only, and growing it through '/' "
    "fails",
    Reason.FILLS_ITS_DEVICE: "it already fills its device, which did not grow (cloud-init writes "
    "'Resized' even then)",
    Reason.IN_BACKGROUND: "its resizing was started in the background (resize_rootfs: noblock), "
    "and nothing shows that it ended",
    Reason.FILESYSTEM_FULL: "the root filesystem is full, and growing needs a little room to work",
    Reason.GROWPART_FAILED: "growpart could not grow it",
    Reason.RESIZE_FAILED: "the resize command failed",
    Reason.UNKNOWN_FILESYSTEM: "cloud-init cannot grow this kind of filesystem",
    Reason.NO_CLOUD_INIT: "cloud-init did not run: it found no seed, or the image has none",
    Reason.MODULE_RAN: "the module is configured to run once, and its semaphore says that it ran "
    "already",
    Reason.TABLE_BUSY: "the kernel still uses the old partition table, because the disk is in use",
    Reason.MBR_2_TIB: "an MBR partition table ends at 2 TiB, with sectors of 512 bytes",
    Reason.GPT_BACKUP: "the backup of the GPT is not at the end of the disk, so the table ends "
    "where the smaller disk did",
    Reason.DEVICE_NOT_FOUND: "the device that is mounted as root has no such name in /dev",
    Reason.USER_DATA_IGNORED: "cloud-init ignored the user-data and used its defaults",
    Reason.ENLARGED_SINCE: "the disk has had more room since, and nothing has grown root again",
    Reason.UNKNOWN: "the evidence does not say why",
}

# What LOGICAL_VOLUME says of another subject than the partition.
_OF_VOLUMES = {
    Subject.PHYSICAL_VOLUME: "it is smaller than the partition that it lies on, until pvresize runs",
    Subject.LOGICAL_VOLUME: "its volume group has free space that it does not use, or will have it "
    "after pvresize; run lvextend yourself",
    Subject.FILESYSTEM: "its logical volume did not grow; run lvextend yourself",
}

_NOTES = {
    NoteKind.USER_DATA_IGNORED: "cloud-init could not read the user-data and went on without it: "
    "its defaults were used.",
    NoteKind.USER_DATA_DOUBTFUL: "cloud-init warned that the user-data does not follow its schema. "
    "Unknown keys have no effect.",
    NoteKind.USER_DATA_FAULTS: "The user-data has faults that cloud-init does not warn about. "
    "Unknown keys have no effect.",
    NoteKind.INSTANCE_KNOWN: "This instance-id was seen before: what runs once per instance, such "
    "as runcmd, was left out. growpart and resizefs run on every boot.",
    NoteKind.GROWFS_IDLE: "fstab asks systemd to grow the filesystem, too, but systemd-growfs "
    "grew nothing in this boot.",
    NoteKind.CLOUD_INIT_ERRORS: "cloud-init reports errors.",
    NoteKind.RECOGNISED: "Read",
    NoteKind.NOT_RECOGNISED: "Ignored, because nothing in it was recognised:",
    NoteKind.UNREAD: "A row was not understood.",
    NoteKind.NOT_ROOT: "Only the root filesystem is explained, and none is shown. This one is mounted "
    "elsewhere.",
    NoteKind.SEVERAL: "These hosts may be several machines; explain each by itself:",
    NoteKind.DAMAGED: "Part of the guest's report was lost, so some evidence may be missing.",
}

# What helps, a command or comment a line.  {disk} and other words in braces are the machine's names;
# a line in angle brackets stands for steps that depend on the machine, which fixes adds.
SAFE_FIRST = "# Take a snapshot or backup of the disk first."

_NEXT_TIME = "# Next time, in user-data:\n    #   #cloud-config"
_GROWPART_ON = f"""
    <grow>
    {_NEXT_TIME}
    #   growpart:
    #     mode: auto
"""
MODE_AUTO = f"{_GROWPART_ON}    <rootfs on>"
# While cloud.cfg does not list the module, no setting of growpart in user-data has an effect.
UNLISTED = """
    <grow>
    # Next time: in the image's /etc/cloud/cloud.cfg, list both modules:
    #   cloud_init_modules:
    #     - growpart
    #     - resizefs
"""
_BUSY = """
    sudo partx --update {disk}  # or: sudo partprobe {disk}
    lsblk {disk}  # check: the new size; if it is still the old one: sudo reboot
    <above>
"""
_IMMUTABLE = """
    findmnt -no SOURCE,FSTYPE,OPTIONS /  # check first: / is read-only by design
    <writable>
"""
_FULL = """
    df -h / /tmp  # check first
    sudo journalctl --vacuum-size=50M  # free a few megabytes; so does the package manager:
    sudo apt-get clean  # Fedora, RHEL: dnf clean all; openSUSE, SLES: zypper clean --all
    # growpart needs room for its temporary files; a tmpfs has it:
    sudo env TMPDIR=/run growpart {disk} {number}
    <above>
"""
NOT_LARGER = """
    lsblk {disk}  # check first: the size that the machine sees
    # On the host or in the cloud's console, enlarge the disk itself, e.g. one of:
    #   qemu-img resize DISK.qcow2 SIZE        (machine shut down)
    #   virsh blockresize DOMAIN {disk_name} SIZE  (while it runs)
    <rescan>
    # A reboot from inside keeps the old size: shut the machine down (power off), start it; then
    <grow>
"""
LARGER_SINCE = """
    # The kernel has seen the larger disk since. cloud-init grows it on the next boot:
    sudo reboot
    # or now, without a reboot:
    <grow>
"""
_IGNORED = """
    # The first line of user-data must be exactly:
    #cloud-config
    cloud-init schema --config-file user-data  # check it; on the machine: --system
"""
DISABLED = """
    # cloud-init is disabled on purpose. To grow it without cloud-init:
    <grow>
    # Or let it run on the next boot, in which it configures the machine as a new one if its
    # instance-id is new:
    <enable>
"""
PARTITION_FIXES = {
    Reason.USER_DATA_IGNORED: _IGNORED,
    Reason.GROWPART_OFF: MODE_AUTO,
    Reason.UNKNOWN_MODE: MODE_AUTO,
    Reason.GROWROOT_DISABLED: f"""
    sudo rm /etc/growroot-disabled
    {_GROWPART_ON.strip()}
    #     ignore_growroot_disabled: true
    <rootfs on>
    """,
    Reason.NO_GROWPART_TOOL: """
    <install growpart>
    <grow>
    # Next time put that package into the image: growpart runs before packages are installed.
    <next time>
    """,
    Reason.NOT_ASKED: f"""
    <grow>
    {_NEXT_TIME}
    #   growpart:
    #     devices: [/]
    <rootfs on>
    """,
    Reason.DISK_NOT_LARGER: NOT_LARGER,
    Reason.ENLARGED_SINCE: LARGER_SINCE,
    Reason.GAIN_BELOW_1_MIB: NOT_LARGER,
    Reason.WALL: "<wall>",
    Reason.NO_PARTITION: """
    # There is no partition to grow: once the disk is larger, only the filesystem has to.
    <resize>
    """,
    Reason.LOGICAL_VOLUME: "<layered>",
    Reason.ENCRYPTED: "<layered>",
    Reason.IMMUTABLE_ROOT: _IMMUTABLE,
    Reason.FILESYSTEM_FULL: _FULL,
    Reason.GROWPART_FAILED: "<failed>",
    Reason.NO_CLOUD_INIT: """
    cloud-init status --long; cat /run/cloud-init/ds-identify.log  # check first
    # Give the machine a datasource, e.g. a NoCloud seed labelled cidata; on Proxmox a
    # cloud-init drive: qm set VMID --ide2 STORAGE:cloudinit. Then reboot, or by hand:
    <grow>
    """,
    Reason.MODULE_RAN: """
    sudo rm -f /var/lib/cloud/sem/config_growpart.once /var/lib/cloud/sem/config_resizefs.once
    <grow>
    # In the image: list growpart and resizefs in cloud.cfg without 'once' (their frequency is
    # always), and run 'cloud-init clean' before a snapshot is taken.
    """,
    Reason.TABLE_BUSY: _BUSY,
    Reason.MBR_2_TIB: f"""
    {SAFE_FIRST}
    <to the end of the MBR>
    # Beyond 2 TiB the disk needs a GPT, made in a rescue system: sgdisk --mbrtogpt {{disk}}
    # A machine that boots by BIOS then also needs a BIOS boot partition and grub-install again.
    """,
    Reason.GPT_BACKUP: f"""
    {SAFE_FIRST}
    sudo sgdisk -e {{disk}}  # relocate the backup GPT to the disk's end
    sudo partprobe {{disk}}  # or reboot
    <grow>
    """,
    Reason.DEVICE_NOT_FOUND: """
    findmnt /; lsblk  # check first: which partition is mounted as /dev/root
    <grow>
    # Next time boot with an initramfs, or with root=UUID=... or root=LABEL=... on the kernel's
    # command line, or name the partition: growpart: {devices: [/dev/...]}
    """,
}
FILESYSTEM_FIXES = {
    Reason.USER_DATA_IGNORED: _IGNORED,
    Reason.IN_BACKGROUND: """
    df -h /  # again after a while: it grows while it is in use
    <resize>
    """,
    Reason.IMMUTABLE_ROOT: _IMMUTABLE,
    Reason.RESIZE_ROOTFS_OFF: f"""
    <above>
    {_NEXT_TIME}
    #   resize_rootfs: true
    """,
    Reason.TABLE_BUSY: _BUSY,
    Reason.FILESYSTEM_FULL: _FULL,
}

_SUBJECTS = {
    Subject.RAID: "RAID array",
    Subject.LUKS: "encrypted device",
    Subject.PHYSICAL_VOLUME: "physical volume",
    Subject.LOGICAL_VOLUME: "logical volume",
}

_COUNTED = {Measure.STATFS: " as df counts", Measure.SUPERBLOCK: " as its superblock counts"}

_COLUMNS = (
    "",
    "grew",
    "before",
    "after",
    "counted by",
    "grown by",
    "when",
    "why not, or no further",
)

# In narrower terminals sentences are left to the terminal.
_NARROWEST = 40

_MEASURES = (
    "df shows what statfs counts: ext4 leaves out its own tables and its journal, XFS only its log, "
    "btrfs nothing. The superblock counts the whole filesystem, which may end before its device does."
)


@dataclass(frozen=True)
class Explanation:
    """Who grew the root partition and the root filesystem, when, or why nobody did.

    A subject has one statement, or one for each time it grew.

    Attributes
    ----------
    statements : tuple of Statement
        About the partition first.
    notes : tuple of Note
    name : str
        Of the run, or of the files; it may be empty.

    Examples
    --------
    >>> explanation = cloudlab.recorded("growpart-off").explain()
    >>> [(str(one.subject), one.device, one.grown) for one in explanation.statements]
    [('partition', 'vda1', False), ('filesystem', 'vda1', False)]
    """

    statements: tuple[Statement, ...]
    notes: tuple[Note, ...] = ()
    name: str = field(default="", compare=False)

    def of(self, subject: Subject) -> tuple[Statement, ...]:
        """Return the statements about ``subject``."""
        return tuple(one for one in self.statements if one.subject is subject)

    def to_text(self, width: int | None = None) -> str:
        """Return sentences, each with its evidence and the commands that help below.

        Sentences are wrapped at ``width`` columns, without it or in a narrow terminal they are
        one line each; quoted lines and commands never are wrapped.
        """
        lines = []
        for words, missing, evidence, fix in self._paragraphs():
            lines += _wrapped(words, width, "")
            for one in missing:
                lines += _wrapped(f"missing: {printable(one)}", width, "  ")
            lines += [f"  {_place(one)}: {printable(one.text)}" for one in evidence]
            lines += ["  to fix it:", *(f"    {printable(one)}" for one in fix)] if fix else []
        return "\n".join(lines)

    def to_html(self) -> str:
        """Return the explanation as a fragment of a page, everything the guest said escaped."""
        items = []
        for words, missing, evidence, fix in self._paragraphs():
            rows = [f"missing: {html.escape(printable(one))}" for one in missing]
            rows += [
                f"{html.escape(_place(one))}: <code>{html.escape(printable(one.text))}</code>"
                for one in evidence
            ]
            items.append(f"<p>{html.escape(words)}</p>")
            items += ["<ul>", *(f"<li>{one}</li>" for one in rows), "</ul>"] if rows else []
            if fix:
                commands = html.escape(printable("\n".join(fix)))
                style = "white-space: pre-wrap; overflow-wrap: anywhere"
                items.append(
                    "<details><summary>To fix it</summary>"
                    f'<pre style="{style}">{commands}</pre></details>'
                )
        return f'<div class="cloudlab-explanation">{"".join(items)}</div>'

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain values, with its sentences.

        Where it is unknown what grew it, or why it did not grow, ``by`` and ``reason`` are None.
        """
        undecided = {Grower.NOBODY, Grower.UNKNOWN, Reason.UNKNOWN}
        return {
            "statements": [
                {
                    **asdict(one),
                    "by": None if one.by in undecided else one.by,
                    "reason": None if one.reason in undecided else one.reason,
                    "words": sentence(one),
                }
                for one in self.statements
            ],
            "notes": [{**asdict(note), "words": note_sentence(note)} for note in self.notes],
        }

    def _repr_html_(self) -> str:
        rows = []
        for one in self.statements:
            grown = {True: "yes", False: "no", None: "unknown"}[one.grown]
            sizes = [_size(size) if size else "" for size in (one.from_bytes, one.to_bytes)]
            when, why = _moment(one.when).removeprefix(", "), str(one.reason or "")
            what = f"{one.subject} {one.device}".rstrip()
            rows.append((what, grown, *sizes, one.measure or "", one.by, when, why))
        return table_html(_COLUMNS, rows) + self.to_html()

    def _paragraphs(self) -> Iterator[tuple[str, tuple[str, ...], tuple[Evidence, ...], list[str]]]:
        """Yield sentences, each with what is missing, its evidence, and commands."""
        for one in self.statements:
            yield sentence(one), one.missing, one.evidence, (one.fix or "").splitlines()
        if any(one.measure is not None for one in self.statements):
            yield _MEASURES, (), (), []
        for note in self.notes:
            yield note_sentence(note), (), note.evidence, []


def sentence(one: Statement) -> str:
    """Return a statement in words, which nothing in it can make a terminal act on."""
    return printable(_sentence(one))


def _sentence(one: Statement) -> str:
    subject = _SUBJECTS.get(one.subject, str(one.subject))
    name = f"The {'root ' if one.device == '' else ''}{subject} {one.device}".rstrip()
    if one.subject is Subject.FILESYSTEM:
        name = f"The root filesystem on {one.device}" if one.device else "The root filesystem"
    if one.grown is None:
        why = f": {_reason(one)}" if one.reason else ""
        why = "" if one.reason is Reason.UNKNOWN else why
        return f"Whether {name[0].lower()}{name[1:]} grew is not known{why}."
    if one.grown:
        who = (
            f"by {_grower(one)}"
            if one.by in _GROWERS
            else "but the evidence does not say what grew it"
        )
        limit = f" It went no further: {_reason(one)}." if one.reason else ""
        if one.reason is Reason.USER_DATA_IGNORED:
            limit = f" The user-data asked for something else, but {_reason(one)}."
        elif one.reason is Reason.ENLARGED_SINCE:
            limit = f" But {_reason(one)}."
        sizes = _growth(one) if one.to_bytes else ""
        return f"{name} grew{sizes}, {who}{_moment(one.when)}.{limit}"
    reason = _reason(one)
    if one.reason is Reason.NO_PARTITION:
        return f"No partition grew: {reason}."
    kept = f" and kept its {_size(one.from_bytes)}{_counted(one)}" if one.from_bytes else ""
    return f"{name} did not grow{kept}: {reason}."


def _reason(one: Statement) -> str:
    reason = one.reason or Reason.UNKNOWN
    said = [at.text for at in one.evidence if ON_PURPOSE.search(at.text)]
    if reason is Reason.NO_CLOUD_INIT and said:
        marker = "marker" in said[0] or "cloud-init.disabled" in said[0]
        by = "cloud-init=disabled on the kernel's command line"
        by = "the variable KERNEL_CMDLINE" if "environment" in said[0] else by
        by = "the file /etc/cloud/cloud-init.disabled" if marker else by
        return f"cloud-init is disabled on purpose, by {by}"
    other = _OF_VOLUMES.get(one.subject) if reason is Reason.LOGICAL_VOLUME else None
    return other or _REASONS[reason]


def _grower(one: Statement) -> str:
    by_hand = {evidence.source for evidence in one.evidence} == {Source.OUTPUT}
    return "growpart" if one.by is Grower.GROWPART and by_hand else _GROWERS[one.by]


def note_sentence(note: Note) -> str:
    """Return a note in words."""
    return printable(" ".join(filter(None, (_NOTES[note.kind], note.detail))))


def _wrapped(text: str, width: int | None, indent: str) -> list[str]:
    if width is None or width < _NARROWEST:
        return [indent + text]
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  " * bool(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _place(evidence: Evidence) -> str:
    file = f"{evidence.file}, " if evidence.file else ""
    line = "" if evidence.line is None else f"line {evidence.line}, "
    return f"{file}{line}{evidence.source}"


def _moment(when: When | None) -> str:
    if when is None:
        return ""
    parts = []
    if when.stage:
        parts.append(f"in the stage {when.stage}")
    if when.guest_s is not None and when.not_before_s is not None:
        parts.append(f"between {when.not_before_s:.1f} and {when.guest_s:.1f} s of guest time")
    elif when.not_before_s is not None:
        parts.append(f"after {when.not_before_s:.1f} s of guest time")
    elif when.guest_s is not None:
        parts.append(f"at {when.guest_s:.1f} s of guest time")
    elif when.host_s is not None:
        parts.append(f"{when.host_s:.1f} s after launch")
    return f", {', '.join(parts)}" if parts else ""


def _size(size_bytes: int | None) -> str:
    return "an unknown size" if size_bytes is None else format_bytes(size_bytes)


def _counted(one: Statement) -> str:
    return _COUNTED[one.measure] if one.measure else ""


def _growth(one: Statement) -> str:
    before, after = _size(one.from_bytes), _size(one.to_bytes)
    if one.from_bytes is not None and one.to_bytes is not None:
        before, after = format_two(one.from_bytes, one.to_bytes)
    return f" from {before} to {after}{_counted(one)}"
