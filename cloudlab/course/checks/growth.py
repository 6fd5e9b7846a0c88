"""Exercises of notebooks 04 to 06: the console, how a disk grows, why it did not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import yaml

from cloudlab.course.checks import (
    UnansweredError,
    choice,
    exercise,
    faults,
    whole_number,
    word,
    words,
    yaml_text,
)
from cloudlab.course.node import GROWROOT_DISABLED, Node, growth_of, values_of
from cloudlab.errors import UsageError
from cloudlab.explanation import NoteKind, Reason
from cloudlab.html import Page
from cloudlab.run.options import Options, typed_values
from cloudlab.run.value import Moment, Run, recorded
from cloudlab.seed import SeedConfig, to_user_data
from cloudlab.seed.modules import MODULE_KEYS
from cloudlab.sizes import GuestBlock
from cloudlab.units import GIB

# Notebook 04: reading the console, the order of modules

#: Exercise 04-3: tables from three consoles, each with the label that a colleague gave it.
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
        yield f"Line {number} says {lines[number].strip()[:60]!r}. That is not about a size."


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
    letter = word(answer)[:1].upper()
    if letter not in LABELS or word(answer)[1:2].isalnum():
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
    case, stage, label = LABELS[letter]
    return Page(f"{letter}: printed by {label}\n{recorded(case).tool_output(stage)}")


# Notebook 05: options, sizes in bytes, what a log proves

_MIB = 1 << 20
_DISK_BYTES = 30 * GIB


@exercise(
    "05-1",
    asks="options such as {'growpart': 'off'}",
    right="A recorded boot with these options shows it.",
    start={"growpart": "off"},
)
def _options(answer: Any) -> Iterator[str]:
    text = _text_of(answer)
    yield from faults(text)
    boot = Node().boot(text)
    if boot.root_partition_bytes < 19 * GIB:
        kept_by = growth_of(text).kept_by
        yield "With these options the partition keeps its size" + (kept_by and f": {kept_by}") + "."
    if boot.root_filesystem_bytes > 3 * GIB:
        yield "With these options the filesystem grows, too."
    elif growth_of(text).filesystem:
        yield "resizefs is not off: the filesystem would grow as soon as its partition does."


def _text_of(answer: Any) -> str:
    """Return the user-data of options, in any of the forms that cloudlab takes them in."""
    if isinstance(answer, Mapping) and not isinstance(answer.get("growpart"), Mapping):
        names = {one.name for one in fields(SeedConfig)}
        if unknown := sorted(set(map(str, answer)) - names):
            raise UsageError(f"Leave {', '.join(unknown)} out: growpart and resize_rootfs do.")
        answer = SeedConfig(**answer)
    seed = answer.seed if isinstance(answer, Options) else answer
    if not isinstance(seed, SeedConfig):
        return yaml_text(answer)
    # Python's booleans stand for YAML's off and false.
    growth = typed_values(growpart=seed.growpart, resize_rootfs=seed.resize_rootfs)
    return to_user_data(replace(seed, **growth, report=False, sampler=False))


@exercise(
    "05-2",
    asks="a number of bytes",
    right="From the partition's start to the backup table: a real disk of 30 GiB shows the same.",
)
def _thirty(answer: Any) -> Iterator[str]:
    measured, _ = recorded("second-boot-same-id").root_sizes("after")
    assert measured is not None
    start = int(recorded("default").partitions("before")["start_bytes"].iloc[-1])
    number = whole_number(answer)
    if number is None:
        yield "Answer with a whole number of bytes."
    elif number == _DISK_BYTES:
        yield "That is the whole disk. What lies before the root partition, and what behind it?"
    elif number == _DISK_BYTES - start:
        yield "The partition cannot reach the disk's very end: what is stored there?"
    elif number == measured + start:
        yield "The partition keeps its start. What lies before it?"
    # Since growpart 0.34 the size is rounded down to whole MiB.
    elif not measured - _MIB < number <= measured:
        yield (
            f"{number:,} bytes is too {'large' if number > measured else 'small'} for a disk of "
            f"{_DISK_BYTES:,} bytes. Take the partition's start from the table above, and the "
            "backup table's size from the text."
        )


@exercise(
    "05-3",
    asks="a line number",
    right="resizefs did run. The filesystem was as large as its partition, so nothing changed.",
)
def _resizefs_ran(answer: Any) -> Iterator[str]:
    logs = recorded("growpart-off").logs
    right = {line.number for line in logs.find(r"cc_resizefs\.py|resizefs.*(ran|running|took)")}
    number = whole_number(answer)
    if number is None:
        yield "Answer with the number of a line."
    elif number not in right:
        yield f"Line {number} does not show that resizefs ran. Which module writes the line you need?"


# Notebook 06: why a disk did not grow

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
_TELLING_LINE = r"WARNING|Error|GROWROOT|resizing filesystem|cc_(growpart|resizefs)\.py\["
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
    if hasattr(answer, "to_dict"):
        answer = answer.to_dict()
    pairs = answer.items() if isinstance(answer, Mapping) else zip(letters, answer, strict=False)
    given = {word(letter)[-1:].upper(): one for letter, one in pairs}
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
