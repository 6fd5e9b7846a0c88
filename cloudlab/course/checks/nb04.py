"""Exercises of notebook 04: reading the console, the order of modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cloudlab.course.checks import choice, exercise, known_letter, whole_number, word, words
from cloudlab.course.growth import values_of
from cloudlab.html import Page
from cloudlab.run.value import Moment, recorded

#: Tables from three consoles, each with the label that a colleague gave it.
LABELS: dict[str, tuple[str, Moment, str]] = {
    "A": ("default", "before", "bootcmd"),
    "B": ("growpart-off", "after", "runcmd"),
    "C": ("default", "after", "bootcmd"),
}
_MOMENTS = {"bootcmd": "before", "runcmd": "after"}
_GIVEN_ORDER = ["growpart", "resizefs", "bootcmd", "scripts_user", "runcmd"]


@exercise(
    "04-1",
    asks="a line number",
    right="At this moment the root filesystem grows. The kernel itself says so.",
)
def _moment(answer: Any) -> Iterator[str]:
    console = recorded("default").console
    right = {line.number for line in console.find("EXT4-fs.* (resizing|resized) filesystem")}
    number = whole_number(answer)
    lines = {line.number: line.text for line in console}
    if number not in lines:
        yield f"Answer with the number of a line, from 1 to {max(lines)}."
    elif number not in right:
        yield (
            f"Line {number} says {lines[number].strip()[:60]!r}. That is not a message of the "
            "kernel about a filesystem that grows."
        )


@exercise(
    "04-2",
    asks="a list of modules",
    right="bootcmd sees the disk before growth, runcmd's script after it.",
    start=_GIVEN_ORDER,
)
def _order(answer: Any) -> Iterator[str]:
    values = values_of(recorded("default").user_data)
    right = [
        str(module)
        for stage in ("init", "config", "final")
        for module in values[f"cloud_{stage}_modules"]
    ]
    mine = [choice(one.removeprefix("cc_"), right) for one in words(answer)]
    if sorted(map(str, mine)) != sorted(right):
        yield f"Put exactly these in order: {', '.join(sorted(right))}."
    elif mine != right:
        first = next(one for one, module in zip(mine, right, strict=True) if one != module)
        yield f"{first} comes too early. The lists at the end of the user-data have the order."


@exercise(
    "04-3",
    asks="a letter",
    right="bootcmd runs before growpart, so its table cannot show a disk that has grown.",
)
def _wrong_label(answer: Any) -> Iterator[str]:
    text = word(answer)
    named = set(re.findall(r"\b[A-C]\b", text)) or {text.partition(":")[0].upper()}
    letter = named.pop()
    if named or letter not in LABELS:
        yield "Answer with A, B or C."
        return
    case, stage, label = LABELS[letter]
    if _MOMENTS[label] == stage:
        partition, filesystem = recorded(case).root_sizes(stage)
        yield (
            f"{letter} can be from {label}: in this boot {label} saw a partition of "
            f"{partition:,} bytes and a filesystem of {filesystem:,} bytes."
        )


def labelled(letter: str) -> Page:
    """Return a table of :data:`LABELS` with the label that a colleague gave it."""
    letter = known_letter(letter, LABELS, "table")
    case, stage, label = LABELS[letter]
    return Page(f"{letter}: printed by {label}\n{recorded(case).tool_output(stage)}")
