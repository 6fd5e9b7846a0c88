"""What else decided the outcome, and how much is known of it."""

from __future__ import annotations

from collections.abc import Iterator

from cloudlab.explain.model import Evidence, Grower, Note, NoteKind, Source, Statement
from cloudlab.explain.view import View

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
        Note(kind, tuple(one for one in evidence if one is not None))
        for kind, evidence in _found(view, statements)
    )


def _found(
    view: View, statements: tuple[Statement, ...]
) -> Iterator[tuple[NoteKind, list[Evidence | None]]]:
    valid = view.fact("user_data_valid")
    if view.said("user_data_valid") == "no":
        yield NoteKind.USER_DATA_IGNORED, [valid, *map(view.logged, _IGNORED)]
    elif view.said("user_data_valid") == "warned":
        yield NoteKind.USER_DATA_DOUBTFUL, [valid, view.logged(_DOUBTFUL)]
    if known := view.logged(_ALREADY_RAN):
        yield NoteKind.INSTANCE_KNOWN, [known, view.fact("instance_id")]
    growfs = view.said("systemd_growfs") == "yes"
    if growfs and not any(one.by is Grower.GROWFS for one in statements):
        yield NoteKind.GROWFS_IDLE, [view.fact("systemd_growfs"), view.logged("systemd-growfs")]
    if view.said("cloud_init_errors"):
        yield NoteKind.CLOUD_INIT_ERRORS, [view.fact("cloud_init_errors")]
    if view.parsed.damaged:
        lost = Evidence(Source.RUN, f"{view.parsed.damaged} frames of the report could not be read")
        yield NoteKind.DAMAGED, [lost]
