"""Exercises of notebook 06: why a disk did not grow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from cloudlab.course.checks import (
    UnansweredError,
    by_letter,
    choice,
    exercise,
    faults,
    known_letter,
    word,
    yaml_text,
)
from cloudlab.course.growth import growth_of, values_of
from cloudlab.course.node import GROWROOT_DISABLED, Node
from cloudlab.explanation import NoteKind, Reason
from cloudlab.html import Page
from cloudlab.run.value import Run, recorded
from cloudlab.seed.modules import MODULE_KEYS
from cloudlab.sizes import GuestBlock
from cloudlab.units import GIB

#: The bug hunt: letter -> case.
PATIENTS = {
    "A": "disk-as-large-as-image",
    "B": "unclosed-quote",
    "C": "no-growpart-tool",
    "D": "not-last",
    "E": "growroot-disabled",
    "F": "full",
}

#: The possible diagnoses.
DIAGNOSES = tuple(
    map(str, [
        Reason.GROWPART_OFF, Reason.RESIZE_ROOTFS_OFF, Reason.GROWROOT_DISABLED,
        Reason.NO_GROWPART_TOOL, Reason.DISK_NOT_LARGER, Reason.GAIN_BELOW_1_MIB, Reason.WALL,
        Reason.FILESYSTEM_FULL, Reason.NO_CLOUD_INIT, NoteKind.USER_DATA_IGNORED,
    ])
)  # fmt: skip
# A disk as large as the image leaves a gain of less than 1 MiB: no evidence tells them apart.
_SAME_EVIDENCE = {str(Reason.DISK_NOT_LARGER): {str(Reason.GAIN_BELOW_1_MIB)}}

_TELLING_FACTS = ("root_device", "growpart_tool", "growroot_disabled", "user_data_valid")
_TELLING_LINE = r"WARNING|Error\b|GROWROOT|resizing filesystem|cc_(growpart|resizefs)\.py\["
_TELLING = re.compile(r"cc_(growpart|resizefs)\.py\[|resizing filesystem|WARNING|ERROR")
_ADDED = MODULE_KEYS | {"bootcmd", "runcmd"}

#: The quiz: question, what is said to each answer, and the right one.
WHEN_IT_DOES_NOT_GROW: tuple[tuple[str, dict[str, str], str], ...] = (
    (
        "growpart is off and the disk is large. What does resize_rootfs: true do?",
        {
            "The filesystem fills the disk.": "It cannot grow beyond its partition.",
            "resizefs runs and finds nothing to do.": "The filesystem fills its partition already.",
            "resizefs is skipped.": "Its log says that it ran: see exercise 05-3.",
        },
        "resizefs runs and finds nothing to do.",
    ),
    (
        "The user-data switches growth off, yet everything grew. What do you look at first?",
        {
            "Whether cloud-init could read the user-data.": "What it cannot read it leaves out, "
            "and then its defaults hold.",
            "Whether the disk is larger than the image.": "It was, or nothing could have grown.",
            "Whether the growpart tool is there.": "Something grew the partition.",
        },
        "Whether cloud-init could read the user-data.",
    ),
    (
        "A grown disk is enlarged and booted again with the same instance-id. What happens?",
        {
            "Nothing: growth happens once per instance.": "runcmd runs once per instance.",
            "It grows again.": "growpart and resizefs run in every boot.",
        },
        "It grows again.",
    ),
    (
        "Another partition begins where root ends. The disk has 18 GiB of free space behind both.",
        {
            "growpart moves the other partition.": "growpart moves no data.",
            "Root keeps its size.": "Only space right behind a partition can be added to it.",
        },
        "Root keeps its size.",
    ),
)


def evidence(letter: str) -> Page:
    """Return the evidence about a patient: the disk before and after, user-data, folded logs."""
    letter = known_letter(letter, PATIENTS, "patient")
    run = recorded(PATIENTS[letter])
    name = f"Patient {letter}"
    figure = run.plot("disk-map", names={run.name: name}, settings={})
    lines = [name, "", "user-data:"]
    lines += [f"  {line}" for line in _own_user_data(run).splitlines()]
    before = run.layout("before")
    lines += ["", f"image: a disk of {run.image.virtual_size_bytes:,} bytes"]
    lines += [f"disk:  {before.virtual_size_bytes:,} bytes; its partitions before the boot:"]
    lines += [
        f"  partition {one.number}: start {one.start_bytes:,}, {one.size_bytes:,} bytes"
        for one in before.partitions
    ]
    for when in ("before", "after"):
        partition, filesystem = run.root_sizes(when)
        lines.append(
            f"root {when} the boot: partition {partition:,}, filesystem {filesystem:,} bytes"
        )
    block = run.parsed.block("after")
    assert block is not None
    [free_bytes] = [one.available_bytes for one in block.filesystems if one.mountpoint == "/"]
    lines.append(f"free in the root filesystem after the boot: {free_bytes:,} bytes")
    # The recording's instance-id would give the diagnosis away.
    log = "\n".join(_log_of(run, block)).replace(f"gallery-{run.name}", f"patient-{letter.lower()}")
    texts = Page("\n".join(lines))
    folded = f"<summary>Console and logs of patient {letter}</summary>{Page(log)._repr_html_()}"
    return Page(
        f"{texts}\n\n{log}",
        f"{figure._repr_html_()}{texts._repr_html_()}<details>{folded}</details>",
    )


def _log_of(run: Run, block: GuestBlock) -> list[str]:
    shown = [f"  line {line.number}: {line.text}" for line in run.console.find(_TELLING_LINE)]
    facts = [
        f"  line {fact.line}: {fact.name} = {fact.value}"
        for fact in block.facts
        if fact.name in _TELLING_FACTS
    ]
    logs = [f"  line {one.line}: {one.text}" for one in block.logs if _TELLING.search(one.text)]
    head = "on the console during the boot:"
    return [
        head, *(shown or ["  nothing about growth"]), "", "reported by the guest at the end:",
        *facts, *logs,
    ]  # fmt: skip


def _own_user_data(run: Run) -> str:
    """Return the user-data without what the course adds, and without what stands for the image.

    Some cases break the image with a bootcmd.
    """
    text = run.user_data
    values = values_of(text)
    if not values:
        # The case's own comment says what is wrong.  Its line stays, because the log counts lines.
        return "\n".join("" if line.startswith("# ") else line for line in text.splitlines())
    kept = {name: value for name, value in values.items() if name not in _ADDED}
    return "#cloud-config\n" + (yaml.safe_dump(kept, sort_keys=False) if kept else "")


def causes(run: Run) -> set[str]:
    """Return what kept a disk from growing as intended; consequences are left out."""
    explanation = run.explain()
    reasons = {one.reason for one in explanation.statements if one.reason is not None}
    found = {str(one) for one in reasons - {Reason.FILLS_ITS_DEVICE}}
    found |= {str(note.kind) for note in explanation.notes}
    return found.union(*(_SAME_EVIDENCE.get(one, ()) for one in found))


def _diagnose(letter: str, answer: Any) -> Iterator[str]:
    diagnosis = choice(answer, [*DIAGNOSES, str(Reason.FILLS_ITS_DEVICE)])
    if diagnosis == Reason.FILLS_ITS_DEVICE:
        yield f"{letter}: that is a consequence. Why did the partition not grow?"
    elif diagnosis is None:
        yield f"{letter}: {word(answer)!r} is not in DIAGNOSES."
    elif diagnosis not in causes(recorded(PATIENTS[letter])):
        yield f"{letter}: the evidence does not show {diagnosis!r}. Which line would prove it?"


@exercise(
    "06-1",
    asks="a diagnosis",
    right="cloudlab's explanation of this boot comes to the same conclusion.",
)
def _patient_a(answer: Any) -> Iterator[str]:
    if choice(answer, DIAGNOSES) == Reason.GROWPART_OFF:
        raise UnansweredError  # what the notebook begins with
    yield from _diagnose("A", answer)


@exercise(
    "06-2",
    asks="a diagnosis for each of B to F",
    right="Five of five.",
    start=dict.fromkeys("BCDEF"),
)
def _patients(answer: Any) -> Iterator[str]:
    letters = list(PATIENTS)[1:]
    given = by_letter(answer, letters)
    for letter in letters:
        if given.get(letter) in (None, ""):
            yield f"{letter} still needs a diagnosis."
        else:
            yield from _diagnose(letter, given[letter])


@exercise(
    "06-3",
    asks="a user-data text",
    right="With this text growpart works on the same image.",
    start="#cloud-config\ngrowpart:\n  mode: auto\n",
)
def _heal(answer: Any) -> Iterator[str]:
    text = yaml_text(answer)
    yield from faults(text)
    growth = growth_of(text)
    boot = Node(files=[GROWROOT_DISABLED]).boot(text)
    if not growth.partition:
        yield f"The partition should grow, but {growth.kept_by}."
    elif boot.root_partition_bytes < 19 * GIB:
        yield (
            "When growpart starts, what the guest reported still keeps it from working. "
            "Which key of growpart, or which earlier command, helps?"
        )
    if not growth.filesystem:
        yield "With this text the filesystem keeps its size. It should grow."
