"""The exercises of notebooks 5, 6 and 8: growth, its failures, fair comparisons."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import yaml

from cloudlab.course.cases import CASES
from cloudlab.course.settings import growth_of, values_of
from cloudlab.course.verdict import exercise, whole_number
from cloudlab.explanation import NoteKind, Reason
from cloudlab.html import Page
from cloudlab.run.value import Run, recorded, recordings
from cloudlab.seed import GrowpartMode, ResizeRootfs, SeedConfig, check_user_data
from cloudlab.units import GIB

_MIB = 1 << 20

#: The bug hunt: letter -> case.
PATIENTS = {
    "A": "disk-as-large-as-image",
    "B": "unclosed-quote",
    "C": "no-growpart-tool",
    "D": "not-last",
    "E": "growroot-disabled",
    "F": "full",
}

#: What a patient can suffer from.
DIAGNOSES = tuple(
    str(one)
    for one in (
        Reason.GROWPART_OFF,
        Reason.RESIZE_ROOTFS_OFF,
        Reason.GROWROOT_DISABLED,
        Reason.NO_GROWPART_TOOL,
        Reason.DISK_NOT_LARGER,
        Reason.GAIN_BELOW_1_MIB,
        Reason.WALL,
        Reason.FILESYSTEM_FULL,
        Reason.NO_CLOUD_INIT,
        NoteKind.USER_DATA_IGNORED,
    )
)

_TELLING_FACTS = ("root_device", "growpart_tool", "growroot_disabled", "user_data_valid")
_TELLING_LINE = r"WARNING|Error|GROWROOT|resizing filesystem|cc_(growpart|resizefs)\.py\["
_TELLING = re.compile(r"cc_(growpart|resizefs)\.py\[|resizing filesystem|WARNING|ERROR")
# What says nothing about a boot's result.
_TECHNICAL = frozenset({"keep_overlay", "own_user_data", "start"})
# What growth does not depend on.
_BESIDE_GROWTH = frozenset({"hostname", "instance_id", "profile", "report", "sampler"})
_PLAIN = ("default", "growpart-off", "resize-rootfs-false", "both-off", "resize-rootfs-noblock")
_ADDED = frozenset(
    {"bootcmd", "runcmd", "cloud_init_modules", "cloud_config_modules", "cloud_final_modules"}
)
_MODULE_LISTS = _ADDED - {"bootcmd", "runcmd"}


@exercise(
    "05-1",
    right="A recorded boot with these options shows just that.",
    start=SeedConfig(growpart=GrowpartMode.OFF),
)
def _options(answer: Any) -> Iterator[str]:
    if not isinstance(answer, SeedConfig):
        yield "Give a SeedConfig(...)."
        return
    meant = _without_defaults(answer)
    case = next((name for name in _PLAIN if CASES[name].seed == meant), None)
    if case is None:
        besides = [
            one.name for one in fields(SeedConfig)
            if getattr(meant, one.name) != getattr(SeedConfig(), one.name)
        ]  # fmt: skip
        yield (
            f"Nobody recorded a boot with just this set: {', '.join(besides)}. "
            "One option is enough; leave the others out."
        )
        return
    partition, filesystem = recorded(case).root_sizes("after")
    assert partition is not None
    assert filesystem is not None
    if partition < 19 * GIB:
        yield f"With these options the partition ended at {partition / GIB:.2f} GiB."
    if filesystem > 3 * GIB:
        yield f"With these options the filesystem ended at {filesystem / GIB:.2f} GiB."


def _without_defaults(seed: SeedConfig) -> SeedConfig:
    """Return the options as if what cloud-init does anyway had not been said."""
    said: dict[str, Any] = {name: getattr(SeedConfig(), name) for name in _BESIDE_GROWTH}
    if seed.growpart is GrowpartMode.AUTO:
        said["growpart"] = None
    if seed.resize_rootfs is ResizeRootfs.TRUE:
        said["resize_rootfs"] = None
    if seed.growpart_devices == ("/",):
        said["growpart_devices"] = ()
    return replace(seed, **said)


@exercise("05-2", right="Disk, minus what lies before root, minus the second table: measured so.")
def _thirty(answer: Any) -> Iterator[str]:
    measured, _ = recorded("second-boot-same-id").root_sizes("after")
    assert measured is not None
    number = whole_number(answer)
    if number is None:
        yield "Answer with a whole number of bytes."
        return
    off = number - measured
    if abs(off) >= _MIB:
        yield (
            f"A real disk of 30 GiB gave a partition of {measured} bytes; your answer is "
            f"{abs(off)} bytes too {'large' if off > 0 else 'small'}. "
            "What lies before root, and what behind it?"
        )


@exercise("05-3", right="resizefs did run. It found the filesystem as large as its partition.")
def _resizefs_ran(answer: Any) -> Iterator[str]:
    run = recorded("growpart-off")
    blocks = run.parsed.blocks
    right = [log.line for block in blocks for log in block.logs if "cc_resizefs.py" in log.text]
    if whole_number(answer) not in right:
        yield f"Line {answer} is not a line that cc_resizefs wrote. Search for 'cc_resizefs'."


def evidence(letter: str) -> Page:
    """Return what is known of a patient: settings, disk, sizes, and what the guest logged."""
    run = recorded(PATIENTS[letter])
    lines = [f"Patient {letter}", "", "user-data:"]
    lines += [f"  {line}" for line in _own_user_data(run).splitlines()]
    lines += ["", f"disk: {run.options.disk_size_bytes} bytes; its partitions before:"]
    for one in run.layout("before").partitions:
        lines.append(f"  partition {one.number}: start {one.start_bytes}, {one.size_bytes} bytes")
    for moment in ("before", "after"):
        partition, filesystem = run.root_sizes(moment)
        lines.append(f"root {moment}: partition {partition}, filesystem {filesystem}")
    block = run.parsed.block("after")
    assert block is not None
    [free_bytes] = [one.available_bytes for one in block.filesystems if one.mountpoint == "/"]
    lines.append(f"free in root after: {free_bytes} bytes")
    meanwhile = [f"  line {line.number}: {line.text}" for line in run.console.find(_TELLING_LINE)]
    lines += ["", "what the console showed meanwhile:", *(meanwhile or ["  nothing to the point"])]
    lines += ["", "what the guest reported at the end:"]
    lines += [
        f"  line {fact.line}: {fact.name} = {fact.value}"
        for fact in block.facts
        # The recording's instance-id is the diagnosis.
        if fact.name in _TELLING_FACTS
    ]
    lines += [f"  line {log.line}: {log.text}" for log in block.logs if _TELLING.search(log.text)]
    return Page("\n".join(lines))


def _own_user_data(run: Run) -> str:
    """Return the text without what the course adds, and without what stands for the image's past.

    A bootcmd that breaks something is how a case gets an image that is broken.
    """
    text = run.user_data
    values = values_of(text)
    if not values:
        # The case's own comment says what is wrong with it.  Its line stays, as the log counts.
        return "\n".join("" if line.startswith("# ") else line for line in text.splitlines())
    kept = {name: value for name, value in values.items() if name not in _ADDED}
    return "#cloud-config\n" + (yaml.safe_dump(kept, sort_keys=False) if kept else "")


def causes(run: Run) -> set[str]:
    """Return what kept a disk from growing as it was meant to; consequences are left out."""
    explanation = run.explain()
    reasons = {one.reason for one in explanation.statements if one.reason is not None}
    notes = {note.kind for note in explanation.notes}
    return {str(one) for one in (reasons - {Reason.FILLS_ITS_DEVICE}) | notes}


def _diagnose(letter: str, answer: Any) -> Iterator[str]:
    if answer == Reason.FILLS_ITS_DEVICE:
        yield f"{letter}: that is a consequence. Why did the device not grow?"
    elif answer not in DIAGNOSES:
        yield f"{letter}: {answer!r} is none of DIAGNOSES."
    elif answer not in causes(recorded(PATIENTS[letter])):
        yield f"{letter}: the evidence does not show {answer!r}."


@exercise(
    "06-1", right="The explanation of the boot comes to the same.", start=str(Reason.GROWPART_OFF)
)
def _patient_a(answer: Any) -> Iterator[str]:
    yield from _diagnose("A", answer)


@exercise("06-2", right="Five of five.", start=dict.fromkeys("BCDEF"))
def _patients(answer: Any) -> Iterator[str]:
    for letter in list(PATIENTS)[1:]:
        if answer.get(letter) is not None:
            yield from _diagnose(letter, answer[letter])
        else:
            yield f"{letter} still waits for a diagnosis."


@exercise(
    "06-3",
    right="Nothing keeps growpart from its work any more, though the image is the same.",
    start="#cloud-config\ngrowpart:\n  mode: auto\n",
)
def _heal(answer: Any) -> Iterator[str]:
    yield from (str(problem) for problem in check_user_data(answer))
    growth = growth_of(answer)
    if not growth.partition:
        yield f"The partition should grow, but {growth.kept_by}."
    if not growth.filesystem:
        yield "This lets the filesystem stay as it is. It should grow."
    # bootcmd runs before growpart, so a file that it removes is gone by then.
    commands = " ".join(map(str, values_of(answer).get("bootcmd") or ()))
    removed = re.search(r"\b(rm|mv|unlink)\b.*/etc/growroot-disabled", commands)
    if not (growth.ignores_growroot_disabled or removed):
        yield "What the guest reported still keeps growpart from working. Which key of growpart helps?"


def differences(one: Run, other: Run) -> set[str]:
    """Return in which options two runs differ; a fair comparison has one."""
    first, second = _told(one), _told(other)
    return {name for name in first | second if first.get(name) != second.get(name)}


def _told(run: Run) -> dict[str, Any]:
    options = {name: value for name, value in vars(run.options).items() if name not in _TECHNICAL}
    user_data = values_of(run.user_data)
    keys = {
        name: value
        for name, value in user_data.items()
        if name not in {*_MODULE_LISTS, "growpart", "resize_rootfs"}
    }
    return {**options, **keys, "image": run.image.name}


@exercise(
    "08-1",
    right="Only resize_rootfs differs, and one of the two has it false.",
    start=("default", "both-off"),
)
def _fair_pair(answer: Any) -> Iterator[str]:
    if not isinstance(answer, tuple | list) or len(answer) != 2:  # noqa: PLR2004
        yield "Answer with two names of recordings."
        return
    first, second = answer
    if first == second:
        yield "Two different boots are needed."
        return
    runs = recorded(first), recorded(second)
    found = differences(*runs)
    if found != {"resize_rootfs"}:
        yield f"{first} and {second} differ in {', '.join(sorted(found))}."
    elif all(run.options.resize_rootfs != ResizeRootfs.FALSE for run in runs):
        yield "In neither of them resize_rootfs is false."


@exercise("08-2", right="Read off the measurements, not off the names.")
def _grown(answer: Any) -> Iterator[str]:
    right = {run.name for run in recordings() if (run.root_sizes("after")[1] or 0) > 19 * GIB}
    if isinstance(answer, str):
        yield "Answer with a list of names."
        return
    for name in sorted(set(answer) - right):
        yield f"{name} does not belong there."
    missing = len(right - set(answer))
    if missing:
        yield f"{missing} more belong there."


@exercise("08-3", right="Two more things were changed, so this comparison proves nothing.")
def _unfair(answer: Any) -> Iterator[str]:
    found = differences(recorded("default"), recorded("second-boot-same-id"))
    if isinstance(answer, str):
        yield "Answer with a list of names."
        return
    # What is kept of a run afterwards differs indeed, and changes nothing in it.
    for name in sorted(set(answer) - found - _TECHNICAL):
        yield f"{name} is the same in both."
    missing = len(found - set(answer))
    if missing:
        yield f"{missing} more differ."
