"""Explain: who grew what in a boot, when, or why nobody did, each claim with its evidence.

=============  ==========================================================
module         owns
=============  ==========================================================
model          what an explanation is made of
view           the evidence of one of cloudlab's own boots, and how it is found
partition      the rules for the root partition
filesystem     the rules for the root filesystem
notes          what else decided the outcome
evidence       evidence from any machine: files, archives, pastes
events, facts  what its lines, and its listings and tables, say
machine        one machine's storage, put together from them
partition_rules, filesystem_rules
               the rules for any machine
fixes          the commands that mend it
assemble       from evidence to an explanation
redact         copies of evidence without names
words          an explanation, in sentences for a terminal and for pages
=============  ==========================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cloudlab.explanation.assemble import explain_documents
from cloudlab.explanation.evidence import EvidenceSource, read_evidence
from cloudlab.explanation.filesystem import filesystem_statements
from cloudlab.explanation.model import (
    Evidence,
    Finding,
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
from cloudlab.explanation.notes import notes
from cloudlab.explanation.partition import partition_statements
from cloudlab.explanation.view import View, telling_lines
from cloudlab.explanation.words import Explanation
from cloudlab.sizes import ParsedConsole

__all__ = [
    "Evidence",
    "Explanation",
    "Finding",
    "Grower",
    "Measure",
    "Note",
    "NoteKind",
    "Reason",
    "Source",
    "Statement",
    "Subject",
    "When",
    "explain",
    "explain_files",
]


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
    view = View(
        parsed=parsed,
        console=telling_lines(console),
        disk_before=disk_before or {},
        disk_after=disk_after or {},
        image_bytes=image_bytes,
        stages=stages,
        times=times or {},
        user_data_faults=user_data_faults,
    )
    statements = (*partition_statements(view), *filesystem_statements(view))
    return Explanation(statements, notes(view, statements))


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
        return explain(own[0].parsed, console=lines)
    return explain_documents(documents)
