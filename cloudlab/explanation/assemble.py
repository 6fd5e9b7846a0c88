"""Explain evidence from any machine: read it, find root, apply the rules, say it in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cloudlab.console import printable
from cloudlab.explanation.events import Kind, read_events, source_of
from cloudlab.explanation.evidence import Document, Line
from cloudlab.explanation.facts import read_facts
from cloudlab.explanation.filesystem_rules import filesystem_verdict, layer_verdicts
from cloudlab.explanation.fixes import IGNORED_FIX, filesystem_fix, partition_fix
from cloudlab.explanation.machine import Machine, Verdict
from cloudlab.explanation.model import (
    Evidence,
    Note,
    NoteKind,
    Reason,
    Source,
    Statement,
    Subject,
)
from cloudlab.explanation.partition_rules import partition_verdict
from cloudlab.explanation.words import Explanation

_MOST_EVIDENCE = 6
_MOST_NAMES = 5


def explain_documents(documents: Sequence[Document]) -> Explanation:
    """Return what the documents show of root's partition, what lies on it, and its filesystem."""
    events, facts = read_events(documents), read_facts(list(documents))
    machine = Machine(facts, events)
    partition = partition_verdict(machine)
    filesystem = filesystem_verdict(machine, partition)
    statements = [
        _statement(
            Subject.PARTITION, machine.partition, partition, partition_fix(machine, partition)
        )
    ]
    for subject, device, verdict in layer_verdicts(machine):
        statements.append(_statement(Subject(subject), device, verdict, ""))
    statements.append(
        _statement(
            Subject.FILESYSTEM,
            machine.root or machine.zfs_dataset,
            filesystem,
            filesystem_fix(machine, filesystem, partition),
        )
    )
    ignored = {partition.reason, filesystem.reason} & {Reason.USER_DATA_IGNORED}
    if ignored:
        statements = [
            replace(one, fix=IGNORED_FIX) if one.reason is Reason.USER_DATA_IGNORED else one
            for one in statements
        ]
    return Explanation(tuple(statements), tuple(_notes(machine, documents)))


def _statement(subject: Subject, device: str, verdict: Verdict, fix: str) -> Statement:
    lines = list(dict.fromkeys(line for line in verdict.evidence if line.text))[:_MOST_EVIDENCE]
    return Statement(
        subject=subject,
        device=printable(device),
        grown=verdict.grown,
        by=verdict.by,
        reason=verdict.reason,
        from_bytes=verdict.from_bytes,
        to_bytes=verdict.to_bytes,
        evidence=tuple(_evidence(line) for line in lines),
        missing=tuple(f"Not shown yet; this would settle it: {one}" for one in verdict.missing),
        fix=fix or None,
    )


def _evidence(line: Line) -> Evidence:
    source = Source.DISK if line.number == 0 else source_of(line.text)
    text = printable(line.text)[:300]
    return Evidence(source, text, line.number or None, printable(line.file))


def _ignored(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more." if more > 0 else ".")


def _notes(machine: Machine, documents: Sequence[Document]) -> Iterator[Note]:
    ignored = machine.last(Kind.IGNORED)
    data = machine.user_data
    if ignored is not None:
        yield Note(NoteKind.USER_DATA_IGNORED, (_evidence(ignored.at),))
    elif data is not None and not data.valid:
        yield Note(NoteKind.USER_DATA_IGNORED, (_evidence(data.at),))
    for document in documents:
        if document.kinds:
            kinds = ", ".join(sorted(document.kinds))
            yield Note(NoteKind.RECOGNISED, (), f"{document.name}: {kinds}.")
        unread = document.parsed.unread if document.parsed else ()
        for one in unread[:3]:
            place = Evidence(Source.OUTPUT, one.text[:200], one.line, document.name)
            yield Note(NoteKind.UNREAD, (place,))
    if names := [one.name for one in documents if not one.kinds]:
        yield Note(NoteKind.NOT_RECOGNISED, (), _ignored(names))
