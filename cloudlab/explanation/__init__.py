"""Explain: what grew in a boot, by what and when, or why it did not, each claim with its evidence.

=============  ==========================================================
module         owns
=============  ==========================================================
model          what an explanation is made of
words          an explanation, in sentences for a terminal and for pages; texts of what helps
evidence       files, archives and pastes as lines; copies of them without names
events, facts  what lines say, and what listings and user-data say
tables         partition tables, and the room behind a partition
names          names of block devices and sizes, as programs write them
machine        one machine's storage, put together from them
verdicts       what a rule answers, and what would settle the rest
partition, filesystem
               the rules: whether it grew, by what, or why not
boot, measured one of cloudlab's own boots: its evidence, and the rules for exact sizes
fixes          the commands that help on one machine
=============  ==========================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from cloudlab.console import printable
from cloudlab.explanation.boot import Boot
from cloudlab.explanation.events import Kind, read_events, source_of
from cloudlab.explanation.evidence import Document, EvidenceSource, Line, read_evidence
from cloudlab.explanation.facts import read_facts
from cloudlab.explanation.filesystem import filesystem_verdict, layer_verdicts
from cloudlab.explanation.fixes import array_fix, filesystem_fix, partition_fix
from cloudlab.explanation.machine import Machine
from cloudlab.explanation.measured import boot_notes, filesystem_verdicts, partition_verdicts
from cloudlab.explanation.model import Evidence as Evidence
from cloudlab.explanation.model import Finding as Finding
from cloudlab.explanation.model import Grower as Grower
from cloudlab.explanation.model import Measure as Measure
from cloudlab.explanation.model import Note as Note
from cloudlab.explanation.model import NoteKind as NoteKind
from cloudlab.explanation.model import Reason as Reason
from cloudlab.explanation.model import Source as Source
from cloudlab.explanation.model import Statement as Statement
from cloudlab.explanation.model import Subject as Subject
from cloudlab.explanation.model import When as When
from cloudlab.explanation.partition import partition_verdict
from cloudlab.explanation.verdicts import Verdict, lines_of
from cloudlab.explanation.words import Explanation as Explanation
from cloudlab.sizes import ParsedConsole


def explain(
    parsed: ParsedConsole,
    *,
    console: Iterable[bytes] = (),
    disk_before: Mapping[str, Any] | None = None,
    disk_after: Mapping[str, Any] | None = None,
    image_bytes: int | None = None,
    stages: Sequence[Mapping[str, Any]] = (),
    times: Mapping[int, float] | None = None,
    user_data_faults: Sequence[tuple[int, str]] = (),
) -> Explanation:
    """Say who grew the root partition and filesystem, when, or why nobody did.

    Pure: the same evidence gives the same explanation.  What the evidence does not decide
    is called unknown, and the statement says what was missing.

    Parameters
    ----------
    parsed : ParsedConsole
        The sizes, facts and log lines that the guest reported.
    console : iterable of bytes
        The console's lines, all of them; they show what happened before cloud-init began.
    disk_before, disk_after : mapping, optional
        What ``cloudlab inspect --json`` prints of the disk before and after the boot.
    image_bytes : int, optional
        The image's virtual size.
    stages : sequence of mapping
        ``stage``, ``start_s``, ``end_s`` in seconds on the host's clock, as in ``run.json``.
    times : mapping of int to float, optional
        Console line -> seconds on the host's clock.
    user_data_faults : sequence of tuple
        Line of the user-data and what is wrong there, in words.
    """
    disks = disk_before or {}, disk_after or {}
    boot = Boot(parsed, console, *disks, image_bytes, stages, times or {}, user_data_faults)
    machine, partitions = boot.machine, partition_verdicts(boot)
    *_, last = partitions
    filesystems = filesystem_verdicts(boot, last)
    # What a later boot finds grown already is not wrong.
    right = filesystems[-1].grown
    statements = []
    for one in partitions:
        fix = "" if right else partition_fix(machine, one)
        statements.append(_statement(Subject.PARTITION, machine.partition, one, fix))
    for one in filesystems:
        fix = filesystem_fix(machine, one, last, statements[-1].fix or "")
        statements.append(_statement(Subject.FILESYSTEM, machine.root, one, fix))
    notes = (
        Note(kind, tuple(map(_evidence, lines_of(proofs))), detail)
        for kind, proofs, detail in boot_notes(boot, statements)
    )
    return Explanation(tuple(statements), tuple(notes))


def explain_files(sources: Iterable[EvidenceSource]) -> Explanation:
    """Say what grew the root partition and filesystem of any machine, or why nothing did.

    What the sources are is recognised by their content.  What they do not decide has ``grown``
    None, and the statement says which command would settle it.

    Parameters
    ----------
    sources : iterable of str or Path
        Logs, listings, user-data, folders, tar archives, disk images, ``-`` for standard input,
        or texts of several lines.

    Raises
    ------
    ParseError
        If a source cannot be read.
    """
    documents = read_evidence(sources)
    own = [one for one in documents if one.parsed and one.parsed.blocks]
    if len(own) == 1 == len(documents) and own[0].parsed is not None:
        # cloudlab's own report measures exactly.
        lines = [b""] * own[0].total_lines
        for line in own[0].lines:
            lines[line.number - 1] = line.text.encode()
        return replace(explain(own[0].parsed, console=lines), name=own[0].name)
    events = read_events(documents)
    machine = Machine(read_facts(documents), events)
    names = [one.name for one in documents]
    name = f"{names[0]} and {len(names) - 1} more" if names[1:] else "".join(names)
    statements = tuple(_statements(machine, _mounted_below(machine, documents)))
    return Explanation(statements, tuple(_notes(machine, documents)), name)


_MOST_EVIDENCE = 6
_MOST_NAMES = 5
_MOST_POINTS = 60  # lines with mount points of one device


def _mounted_below(machine: Machine, documents: Sequence[Document]) -> dict[Line, Line]:
    """Return, by the row of lsblk, the further line of it that shows the mount at ``/``."""
    mounted = (one.at for one in machine.facts.devices if "/" in one.mounts)
    rows = [at for at in mounted if "/" not in at.text.split()]
    lines = (line for one in documents for line in one.lines) if rows else ()
    points = [line for line in lines if re.fullmatch(r"[ │|]+/", line.text)]
    return {row: one for row in rows for one in points[::-1] if one.soon_after(row, _MOST_POINTS)}


def _statements(machine: Machine, below: Mapping[Line, Line]) -> Iterator[Statement]:
    partition = partition_verdict(machine)
    filesystem = filesystem_verdict(machine, partition)
    shown = partition_fix(machine, partition)
    yield _statement(Subject.PARTITION, machine.partition, partition, shown, below)
    for subject, device, verdict in layer_verdicts(machine):
        fix = array_fix(machine, device, verdict) if subject is Subject.RAID else ""
        yield _statement(subject, device, verdict, fix, below)
    root, fix = (
        machine.root or machine.zfs_dataset,
        filesystem_fix(machine, filesystem, partition, shown),
    )
    yield _statement(Subject.FILESYSTEM, root, filesystem, fix, below)


def _statement(
    subject: Subject,
    device: str,
    verdict: Verdict,
    fix: str,
    below: Mapping[Line, Line] = MappingProxyType({}),
) -> Statement:
    values = {one.name: getattr(verdict, one.name) for one in fields(verdict)}
    proofs = lines_of(each for at in verdict.evidence for each in (at, below.get(at)))
    values["evidence"] = tuple(map(_evidence, proofs[:_MOST_EVIDENCE]))
    values["missing"] = tuple(verdict.missing)
    return Statement(subject, printable(device), **values, fix=fix or None)


def _evidence(line: Line) -> Evidence:
    source = line.source or (Source.DISK if line.number == 0 else source_of(line.text))
    text = printable(line.text)[:300]
    return Evidence(source, text, line.number or None, printable(line.file) or None)


def _notes(machine: Machine, documents: Sequence[Document]) -> Iterator[Note]:
    ignored, data = machine.last(Kind.IGNORED), machine.user_data
    if ignored is not None:
        yield Note(NoteKind.USER_DATA_IGNORED, (_evidence(ignored.at),))
    elif data is not None and not data.valid:
        yield Note(NoteKind.USER_DATA_IGNORED, (_evidence(data.at),))
    shown = (one for one in machine.facts.mounts if one.mountpoint != "btrfs")
    others = [one.at for one in shown if re.match("/dev/(?!loop)", one.source)]
    if others and not (machine.root or machine.root_mounts or machine.zfs_dataset):
        yield Note(NoteKind.NOT_ROOT, (_evidence(others[0]),))
    hosts = {one.at.host for one in machine.sizes_of(machine.partition)} - {"", "localhost"}
    if len(hosts) > 1:
        yield Note(NoteKind.SEVERAL, (), ", ".join(sorted(hosts)) + ".")
    for document in documents:
        if document.kinds:
            kinds = ", ".join(sorted(document.kinds))
            yield Note(NoteKind.RECOGNISED, (), f"{document.name}: {kinds}.")
        unread = document.parsed.unread if document.parsed else ()
        for one in unread[:3]:
            place = Evidence(Source.OUTPUT, one.text[:200], one.line, document.name)
            yield Note(NoteKind.UNREAD, (place,))
    if names := [one.name for one in documents if not one.kinds]:
        more = len(names) - _MOST_NAMES
        rest = f" and {more} more." if more > 0 else "."
        yield Note(NoteKind.NOT_RECOGNISED, (), ", ".join(names[:_MOST_NAMES]) + rest)
