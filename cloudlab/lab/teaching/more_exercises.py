"""The exercises of notebooks 5 to 8: growth, its failures, node storage, fair comparisons."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import yaml

from cloudlab.explain import NoteKind, Reason
from cloudlab.lab.explained import explain_run
from cloudlab.lab.options import GIB
from cloudlab.lab.teaching.runs import recorded, recordings
from cloudlab.lab.teaching.settings import growth_of, planned_partitions, values_of
from cloudlab.lab.teaching.verdict import exercise
from cloudlab.lab.teaching.views import Page, parsed_console, root_sizes, transcript
from cloudlab.recording import Recording
from cloudlab.seed import SeedConfig, check_user_data
from cloudlab.sizes import read_sizes

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

#: Wipes its volumes whenever the node gets a new instance-id.
DANGEROUS_STORAGE = """\
#cloud-config
fs_setup:
  - {device: /dev/vda2, partition: none, filesystem: ext4, label: vol-a}
  - {device: /dev/vda3, partition: auto, filesystem: ext4, label: vol-b, overwrite: true}
mounts:
  - [/dev/vda2, /mnt/disks/vol-a, ext4, 'defaults,nofail']
  - [/dev/vda3, /mnt/disks/vol-b, ext4, 'defaults,nofail']
"""

_TELLING_FACTS = ("root_device", "growpart_tool", "growroot_disabled", "user_data_valid")
_TELLING_LINE = r"WARNING|Error|GROWROOT|resizing filesystem|cc_(growpart|resizefs)\.py\["
_TELLING = re.compile(r"cc_(growpart|resizefs)\.py\[|resizing filesystem|WARNING|ERROR")
_DISCOVERY = "/mnt/disks/"
# What says nothing about a boot's result.
_TECHNICAL = frozenset({"keep_overlay", "own_user_data"})
_ADDED = frozenset(
    {"bootcmd", "runcmd", "cloud_init_modules", "cloud_config_modules", "cloud_final_modules"}
)
_MODULE_LISTS = _ADDED - {"bootcmd", "runcmd"}


@exercise("05-1", right="A recorded boot with these options shows just that.")
def _options(answer: Any) -> Iterator[str]:
    if not isinstance(answer, SeedConfig):
        yield "Give a SeedConfig(...)."
        return
    wanted = {
        "growpart": answer.growpart and answer.growpart.value,
        "resize_rootfs": answer.resize_rootfs and answer.resize_rootfs.value,
    }
    plain = [recorded(name) for name in ("default", "growpart-off", "resize-rootfs-false",
                                         "both-off", "resize-rootfs-noblock")]  # fmt: skip
    same = [run for run in plain if wanted.items() <= run.about["options"].items()]
    if not same:
        yield f"Nobody recorded {wanted}. Leave the option out that keeps its default."
        return
    partition, filesystem = root_sizes(same[0], "after")
    assert partition is not None
    assert filesystem is not None
    if partition < 19 * GIB:
        yield f"With these options the partition ended at {partition / GIB:.2f} GiB."
    if filesystem > 3 * GIB:
        yield f"With these options the filesystem ended at {filesystem / GIB:.2f} GiB."


@exercise("05-2", right="Disk, minus what lies before root, minus the second table: measured so.")
def _thirty(answer: Any) -> Iterator[str]:
    measured, _ = root_sizes(recorded("second-boot-same-id"), "after")
    assert measured is not None
    off = int(answer) - measured
    if abs(off) >= _MIB:
        yield (
            f"A real disk of 30 GiB gave a partition of {measured} bytes; your answer is "
            f"{abs(off)} bytes too {'large' if off > 0 else 'small'}. "
            "What lies before root, and what behind it?"
        )


@exercise("05-3", right="resizefs did run. It found the filesystem as large as its partition.")
def _resizefs_ran(answer: Any) -> Iterator[str]:
    run = recorded("growpart-off")
    blocks = parsed_console(run).blocks
    right = [log.line for block in blocks for log in block.logs if "cc_resizefs.py" in log.text]
    if answer not in right:
        yield f"Line {answer} is not a line that cc_resizefs wrote. Search for 'cc_resizefs'."


def evidence(letter: str) -> Page:
    """Return what is known of a patient: settings, disk, sizes, and what the guest logged."""
    run = recorded(PATIENTS[letter])
    about = run.about
    lines = [f"Patient {letter}", "", "user-data:"]
    lines += [f"  {line}" for line in _own_user_data(run).splitlines()]
    lines += ["", f"disk: {about['options']['disk_size_bytes']} bytes; its partitions before:"]
    for one in about["disk_before"]["partitions"]:
        lines.append(
            f"  partition {one['number']}: start {one['start_bytes']}, {one['size_bytes']} bytes"
        )
    for moment in ("before", "after"):
        partition, filesystem = root_sizes(run, moment)
        lines.append(f"root {moment}: partition {partition}, filesystem {filesystem}")
    block = parsed_console(run).block("after")
    assert block is not None
    [free_bytes] = [one.available_bytes for one in block.filesystems if one.mountpoint == "/"]
    lines.append(f"free in root after: {free_bytes} bytes")
    meanwhile = [f"  line {number}: {line}" for number, line in transcript(run, _TELLING_LINE)]
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


def _own_user_data(run: Recording) -> str:
    """Return the text without what the course adds, and without what stands for the image's past.

    A bootcmd that breaks something is how a case gets an image that is broken.
    """
    text = (run.folder / "user-data").read_text(encoding="utf-8")
    values = values_of(text)
    if not values:
        # The case's own comment says what is wrong with it.
        return "\n".join(line for line in text.splitlines() if not line.startswith("# "))
    kept = {name: value for name, value in values.items() if name not in _ADDED}
    return "#cloud-config\n" + (yaml.safe_dump(kept, sort_keys=False) if kept else "")


def causes(run: Recording) -> set[str]:
    """Return what kept a disk from growing as it was meant to; consequences are left out."""
    explanation = explain_run(run)
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


@exercise("06-1", right="The explanation of the boot comes to the same.")
def _patient_a(answer: Any) -> Iterator[str]:
    yield from _diagnose("A", answer)


@exercise("06-2", right="Five of five. Each of them has happened to somebody in production.")
def _patients(answer: Any) -> Iterator[str]:
    for letter in list(PATIENTS)[1:]:
        if letter in answer:
            yield from _diagnose(letter, answer[letter])
        else:
            yield f"{letter} still waits for a diagnosis."


@exercise("06-3", right="growpart works although the file is there. The file need not go.")
def _heal(answer: Any) -> Iterator[str]:
    yield from (str(problem) for problem in check_user_data(answer))
    growth = growth_of(answer)
    if not (growth.partition and growth.filesystem):
        yield "This switches growth off. It should be on."
    if not growth.ignores_growroot_disabled:
        yield "growpart still obeys the file. Which key of growpart makes it ignore the file?"


@exercise("07-1", right="Root ends at 12 GiB, the volumes follow, nothing overlaps.")
def _larger_root(answer: Any) -> Iterator[str]:
    yield from (str(problem) for problem in check_user_data(answer))
    planned = planned_partitions(answer)
    if not planned:
        yield "bootcmd makes no partition with sgdisk --new=NUMBER:START:SIZE in whole GiB."
        return
    if planned[0].start_gib != 12:  # noqa: PLR2004
        yield f"The wall stands at {planned[0].start_gib} GiB, so root would end there."
    for one, following in pairwise(planned):
        if one.end_gib > following.start_gib:
            yield f"Partition {one.number} reaches into partition {following.number}."
    values = values_of(answer)
    made = {entry.get("device") for entry in values.get("fs_setup") or ()}
    mounted = {entry[0] for entry in values.get("mounts") or ()}
    for device in (f"/dev/vda{one.number}" for one in planned):
        if device not in made:
            yield f"{device} gets no filesystem."
        elif device not in mounted:
            yield f"{device} is mounted nowhere."


@exercise("07-2", right="One volume for each mount point under the discovery folder, no more.")
def _volumes(answer: Any) -> Iterator[str]:
    for case in ("node-storage", "wall"):
        frame = mounted(recorded(case))
        rows = zip(frame["mountpoint"], frame["size_bytes"], strict=True)
        right = {point: int(size) for point, size in rows if point.startswith(_DISCOVERY)}
        found = answer(frame.copy())
        if found != right:
            yield f"For {case!r} it gives {found}, expected {right}."


def mounted(run: Recording) -> Any:
    """Return what is mounted after the boot: ``device``, ``mountpoint``, ``size_bytes``."""
    table = read_sizes(run.sizes_csv)
    rows = (table["stage"] == "after") & (table["layer"] == "filesystem") & table["exact"]
    return table.loc[rows, ["device", "mountpoint", "size_bytes"]].reset_index(drop=True)


@exercise("07-3", right="A volume is made once and kept, whatever instance-id the node gets.")
def _keep_volumes(answer: Any) -> Iterator[str]:
    yield from (str(problem) for problem in check_user_data(answer))
    entries = values_of(answer).get("fs_setup") or []
    if {entry.get("device") for entry in entries} != {"/dev/vda2", "/dev/vda3"}:
        yield "There should still be a filesystem on /dev/vda2 and one on /dev/vda3."
    for entry in entries:
        device = entry.get("device")
        if entry.get("overwrite"):
            yield f"overwrite makes a new filesystem on {device}, whatever is there."
        if str(entry.get("partition", "any")).lower() == "none":
            yield f"With partition none, cloud-init does not look what is on {device}."
        if not entry.get("label"):
            yield f"Without a label, cloud-init cannot recognise its own filesystem on {device}."


def differences(one: Recording, other: Recording) -> set[str]:
    """Return in which options two runs differ; a fair comparison has one."""
    first, second = _told(one), _told(other)
    return {name for name in first | second if first.get(name) != second.get(name)}


def _told(run: Recording) -> dict[str, Any]:
    options = {
        name: value for name, value in run.about["options"].items() if name not in _TECHNICAL
    }
    user_data = values_of((run.folder / "user-data").read_text(encoding="utf-8"))
    keys = {
        name: value
        for name, value in user_data.items()
        if name not in {*_MODULE_LISTS, "growpart", "resize_rootfs"}
    }
    return {**options, **keys, "image": run.about["image"]["name"]}


@exercise("08-1", right="Only resize_rootfs differs, so only resize_rootfs can be the cause.")
def _fair_pair(answer: Any) -> Iterator[str]:
    first, second = answer
    if first == second:
        yield "Two different boots are needed."
        return
    found = differences(recorded(first), recorded(second))
    if found != {"resize_rootfs"}:
        yield f"{first} and {second} differ in {', '.join(sorted(found))}."


@exercise("08-2", right="Read off the measurements, not off the names.")
def _grown(answer: Any) -> Iterator[str]:
    right = {run.name for run in recordings() if (root_sizes(run, "after")[1] or 0) > 19 * GIB}
    for name in sorted(set(answer) - right):
        yield f"{name} does not belong there."
    missing = len(right - set(answer))
    if missing:
        yield f"{missing} more belong there."


@exercise("08-3", right="Two more things were changed, so this comparison proves nothing.")
def _unfair(answer: Any) -> Iterator[str]:
    found = differences(recorded("default"), recorded("second-boot-same-id"))
    for name in sorted(set(answer) - found):
        yield f"{name} is the same in both."
    missing = len(found - set(answer))
    if missing:
        yield f"{missing} more differ."
