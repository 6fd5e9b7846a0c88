"""Explain: who grew what in a boot, when, or why nobody did, each claim with its evidence.

=============  ==========================================================
module         owns
=============  ==========================================================
model          what an explanation is made of
view           the evidence of one boot, and how it is found
partition      the rules for the root partition
filesystem     the rules for the root filesystem
notes          what else decided the outcome
words          sentences, for a terminal and for pages
=============  ==========================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cloudlab.explanation.filesystem import filesystem_statements
from cloudlab.explanation.model import (
    Evidence,
    Explanation,
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
