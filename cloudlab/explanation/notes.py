"""What else decided the outcome, and how much is known of it."""

from __future__ import annotations

from collections.abc import Iterator

from cloudlab.explanation.model import (
    Evidence,
    Grower,
    Note,
    NoteKind,
    Reason,
    Source,
    Statement,
    Subject,
)
from cloudlab.explanation.view import GROWFS_ENDS, GROWFS_STARTS, View, uptime_of

# cloud-init says it more than once; the first of these also says where the text is broken.
_IGNORED = (
    r"Failed loading yaml",
    r"[Uu]nhandled .*userdata|Failed at merging in cloud config",
)
_DOUBTFUL = r"Invalid cloud-config provided|failed schema validation"
_ALREADY_RAN = r"already ran \(freq=once-per-instance\)"


def notes(view: View, statements: tuple[Statement, ...]) -> tuple[Note, ...]:
    """Return the notes on a boot, the weightiest first."""
    return tuple(
        Note(kind, tuple(one for one in evidence if one is not None), detail)
        for kind, evidence, detail in _found(view, statements)
    )


def _found(
    view: View, statements: tuple[Statement, ...]
) -> Iterator[tuple[NoteKind, list[Evidence | None], str]]:
    valid = view.fact("user_data_valid")
    faults: list[Evidence | None] = [
        Evidence(Source.USER_DATA, f"its line {line}: {words}")
        for line, words in view.user_data_faults
    ]
    if view.said("user_data_valid") == "no":
        yield NoteKind.USER_DATA_IGNORED, [valid, *map(view.logged, _IGNORED), *faults], ""
    elif view.said("user_data_valid") == "warned":
        yield NoteKind.USER_DATA_DOUBTFUL, [valid, view.logged(_DOUBTFUL), *faults], ""
    elif faults:
        yield NoteKind.USER_DATA_FAULTS, faults, ""
    if known := view.logged(_ALREADY_RAN):
        yield NoteKind.INSTANCE_KNOWN, [known, view.fact("instance_id")], ""
    growfs = view.said("systemd_growfs") == "yes"
    if growfs and not any(one.by is Grower.GROWFS for one in statements):
        ran = [view.logged(GROWFS_STARTS), view.logged(GROWFS_ENDS)]
        yield (
            NoteKind.GROWFS_IDLE,
            [view.fact("systemd_growfs"), *ran],
            _why_idle(ran[1], statements),
        )
    if view.said("cloud_init_errors"):
        yield NoteKind.CLOUD_INIT_ERRORS, [view.fact("cloud_init_errors")], ""
    if view.parsed.damaged:
        lost = Evidence(Source.RUN, f"{view.parsed.damaged} frames of the report could not be read")
        yield NoteKind.DAMAGED, [lost], ""


def _why_idle(end: Evidence | None, statements: tuple[Statement, ...]) -> str:
    """Return why systemd-growfs grew nothing, where its end and the partition's growth say it."""
    ended_s = uptime_of(end) if end else None
    for one in statements:
        if one.subject is Subject.FILESYSTEM and one.reason is Reason.FILLS_ITS_DEVICE:
            return "There was no room for it to take."
        if one.subject is Subject.PARTITION and one.grown and one.when and ended_s is not None:
            since_s = one.when.not_before_s or one.when.guest_s
            if since_s is not None and ended_s < since_s:
                return (
                    f"It had finished at {ended_s:.1f} s of guest time, when the partition had "
                    f"not grown yet: that came after {since_s:.1f} s."
                )
    return ""
