"""Exercises of notebook 08: fair comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudlab.course.checks import choice, exercise, recordings_but, words
from cloudlab.course.growth import values_of
from cloudlab.run.value import Run, recorded, recording_names, recordings
from cloudlab.seed import ResizeRootfs
from cloudlab.seed.modules import MODULE_KEYS
from cloudlab.units import GIB

# What does not change a boot's result.
_TECHNICAL = frozenset({"keep_overlay", "own_user_data", "start"})
_LISTED_BY_RUN = MODULE_KEYS | {"growpart", "resize_rootfs"}


def differences(one: Run, other: Run) -> set[str]:
    """Return in which options two runs differ; a fair comparison has one."""
    first, second = _chosen(one), _chosen(other)
    return {name for name in first | second if first.get(name) != second.get(name)}


def _chosen(run: Run) -> dict[str, Any]:
    options = {name: value for name, value in vars(run.options).items() if name not in _TECHNICAL}
    values = values_of(run.user_data).items()
    keys = {name: value for name, value in values if name not in _LISTED_BY_RUN}
    return {**options, **keys, "image": run.image.name}


@exercise(
    "08-1",
    asks="two names of recordings",
    right="Only resize_rootfs differs, and in one of the two it is false.",
    start=("default", "both-off"),
)
def _fair_pair(answer: Any) -> Iterator[str]:
    names = recording_names()
    pair = [choice(one, names) or one for one in words(answer)]
    if len(pair) != 2:  # noqa: PLR2004
        yield "Answer with two names of recordings."
        return
    if pair[0] == pair[1]:
        yield "Choose two different boots."
        return
    runs = [recorded(name) for name in pair]
    found = differences(*runs)
    if found != {"resize_rootfs"}:
        yield f"{pair[0]} and {pair[1]} differ in {', '.join(sorted(found))}."
    elif all(run.options.resize_rootfs != ResizeRootfs.FALSE for run in runs):
        yield "In neither of them resize_rootfs is false."


@exercise(
    "08-2", asks="a list of names", right="Taken from the measurements, not guessed from names."
)
def _grown(answer: Any) -> Iterator[str]:
    found = {run.name: run.root_sizes("after").filesystem_bytes or 0 for run in recordings()}
    right = {name for name, size_bytes in found.items() if size_bytes > 19 * GIB}
    yield from recordings_but(right, answer, "the root filesystem did not end above 19 GiB.")


@exercise(
    "08-3",
    asks="a list of names",
    right="Two more things were changed, so this comparison proves nothing.",
)
def _unfair(answer: Any) -> Iterator[str]:
    one, other = recorded("default"), recorded("second-boot-same-id")
    found, options = differences(one, other), vars(one.options)
    # In pandas None differs from None, so a filter of the table has all of these.
    unset = {name for name, value in options.items() if value is None}
    mine = {choice(name, [*options, *found]) or name for name in words(answer)}
    for name in sorted(mine - found - _TECHNICAL - (unset if unset <= mine else set())):
        yield f"{name} is the same in both, or no option."
    if missing := len(found - mine):
        yield f"{missing} more {'differs' if missing == 1 else 'differ'}."
