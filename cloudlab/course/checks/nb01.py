"""Exercises of notebook 01: partitions by position, free space behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cloudlab.course.checks import UnansweredError, choice, exercise, whole_number, word
from cloudlab.run.value import Moment, recorded
from cloudlab.units import GIB

_DISKS: tuple[tuple[str, Moment], ...] = (
    ("default", "before"), ("default", "after"), ("wall", "after"),
    ("not-last", "before"), ("node-storage", "after"),
)  # fmt: skip


@exercise(
    "01-1",
    asks="a partition's number",
    right="The root partition is last, so it can take all the space behind it.",
)
def _last_partition(answer: Any) -> Iterator[str]:
    table = recorded("default").partitions("before")
    last = table.sort_values("start_bytes")["number"].iloc[-1]
    number = whole_number(answer) or whole_number(re.sub(r"^(/dev/)?vda", "", word(answer)))
    if number not in set(table["number"]):
        yield f"Answer with a partition's number: {', '.join(map(str, sorted(table['number'])))}."
    elif number != last:
        yield (
            f"Partition {number} does not have the greatest start_bytes. "
            "A partition's number does not say where the partition is."
        )


@exercise(
    "01-2",
    asks="a function",
    right="Your function gives the free space behind each partition of five real disks.",
)
def _free_behind(answer: Any) -> Iterator[str]:
    for case, when in _DISKS:
        run = recorded(case)
        table = run.partitions(when)
        for disk_bytes in (run.layout(when).virtual_size_bytes, 40 * GIB):
            for number in map(int, table["number"]):
                found = answer(table.copy(), number, disk_bytes)
                if found is ...:
                    raise UnansweredError
                right = free_behind(table, number, disk_bytes)
                if whole_number(found) != right:
                    part = table[table["number"] == number].iloc[0]
                    to_end = disk_bytes - part["start_bytes"] - part["size_bytes"]
                    why = (
                        "Another partition begins before the disk's end."
                        if whole_number(found) == to_end
                        else "Where does it end, and what comes next on the disk, by position?"
                    )
                    disk = f"Disk of {case!r} {when} the boot"
                    yield f"{disk}, partition {number}: {found} is wrong. {why}"
                    return


def free_behind(table: Any, number: int, disk_bytes: int) -> int:
    """Return the bytes between a partition's end and the next one's start, or the disk's end."""
    part = table[table["number"] == number].iloc[0]
    end = int(part["start_bytes"] + part["size_bytes"])
    behind = table.loc[table["start_bytes"] >= end, "start_bytes"]
    return int(behind.min() if len(behind) else disk_bytes) - end


@exercise(
    "01-3",
    asks="a recording's name",
    right="Only the space right behind a partition counts. This image has another partition there.",
)
def _cannot_grow(answer: Any) -> Iterator[str]:
    cases = ("default", "disk-as-large-as-image", "not-last")
    case = choice(answer, cases)
    if case is None:
        yield f"Choose one of {', '.join(cases)}."
    # On a disk of 100 GiB only the image itself can be in the way.
    elif (free := free_behind(recorded(case).partitions("before"), 1, 100 * GIB)) > GIB:
        yield (
            f"On a disk of 100 GiB, {case!r} would have {free:,} free bytes right behind its "
            "root partition."
        )
