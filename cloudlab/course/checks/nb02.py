"""Exercises of notebook 02: what writes cost in an overlay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cloudlab.course.checks import UnansweredError, exercise, numbers, whole_number
from cloudlab.run.value import recorded
from cloudlab.units import GIB

CLUSTER_BYTES = 64 << 10

_WRITES = ((5 * GIB, 1), (CLUSTER_BYTES - 1, 2))


@exercise(
    "02-1",
    asks="two numbers of bytes",
    right="Clusters are copied as a whole: one byte costs 64 KiB, two bytes can cost 128 KiB.",
    start=(1, 2),
)
def _cluster_cost(answer: Any) -> Iterator[str]:
    found = numbers(answer)
    if len(found) != len(_WRITES) or None in found:
        yield "Give two numbers of bytes: (first write, second write)."
        return
    for place, (mine, (offset, length)) in enumerate(zip(found, _WRITES, strict=True), start=1):
        if mine != written_bytes(offset, length):
            last = offset + length - 1
            yield (
                f"Write {place} does not cost {mine:,} bytes. It writes the bytes "
                f"{offset:,} to {last:,}: in which clusters of "
                f"{CLUSTER_BYTES:,} bytes are they?"
            )


def written_bytes(offset_bytes: int, length_bytes: int) -> int:
    """Return what a write takes in an empty overlay: each cluster that it touches, as a whole."""
    first = offset_bytes // CLUSTER_BYTES
    last = (offset_bytes + length_bytes - 1) // CLUSTER_BYTES
    return (last - first + 1) * CLUSTER_BYTES


@exercise(
    "02-2",
    asks="a whole number",
    right="The image is stored once. Each further machine costs only what it writes.",
)
def _how_many(answer: Any) -> Iterator[str]:
    run, host = recorded("default"), 100 * GIB
    image, overlay = run.image.file_size_bytes, run.record.overlay.end_bytes
    right, mine = (host - image) // overlay, whole_number(answer)
    if mine == right:
        return
    if mine == host // overlay:
        yield "The base image needs space on the host, too. It is there once."
    elif mine == host // (image + overlay):
        yield "You count the base image once for each machine. All of them share one."
    elif mine == (100 * 10**9 - image) // overlay:
        yield "1 GiB is 2**30 bytes, not 10**9."
    elif mine is None or mine == right + 1:
        yield "Answer with a whole number, rounded down: half a machine does not boot."
    else:
        yield (
            f"{mine} is {'too many' if mine > right else 'too few'}. Which bytes are stored once "
            "for all machines, and which once for each machine?"
        )


@exercise("02-3", asks="a function", right="Only clusters of the kind data take space in the file.")
def _host_cost(answer: Any) -> Iterator[str]:
    made_up = [("zero", 8), ("data", 1), ("backing", 4), ("data", 2), ("empty", 16)]
    tables = {case: recorded(case).extents for case in ("default", "growpart-off")}
    tables["a small example"] = pd.DataFrame(made_up, columns=["kind", "length_bytes"])
    for name, table in tables.items():
        taken = table.groupby("kind")["length_bytes"].sum()
        found = answer(table.copy())
        number = whole_number(found)
        if found is ... or number == taken.sum():
            raise UnansweredError
        if number != taken["data"]:
            which = "Do clusters that are marked zero take space in the file?"
            if number != taken["data"] + taken["zero"]:
                which = "Which kinds of clusters are stored in the overlay file?"
            shown = found if number is None else f"{number:,} bytes"
            yield f"{name}: {shown} is wrong. {which}"
            return
