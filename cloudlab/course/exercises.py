"""The exercises of notebooks 0 to 4: reading disks, overlays, seeds and consoles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudlab.course.settings import growth_of, values_of
from cloudlab.course.verdict import UnansweredError, exercise, whole_number
from cloudlab.course.views import extents, layout, tables
from cloudlab.html import Page
from cloudlab.run.value import Moment, recorded
from cloudlab.seed import Problem, check_user_data
from cloudlab.seed.text import read_document

GIB = 1 << 30
CLUSTER_BYTES = 64 << 10

#: What the doctor said on a host that cannot boot yet.
BROKEN_HOST: dict[str, object] = {
    "checks": [
        {
            "name": "qemu-system-x86_64", "ok": True, "fix": "",
            "detail": "/usr/bin/qemu-system-x86_64: QEMU emulator version 7.2.22",
        },
        {
            "name": "qemu-img", "ok": False, "detail": "not found",
            "fix": "Install it with: sudo apt-get install --yes qemu-utils",
        },
        {
            "name": "accelerator", "ok": True, "fix": "",
            "detail": "tcg: software emulation, because /dev/kvm is not there",
        },
        {
            "name": "image", "ok": True, "fix": "",
            "detail": "none in the cache yet; the first run fetches or builds one",
        },
    ]
}  # fmt: skip

#: A text with three mistakes.  It should keep the partition and the filesystem as they are.
BROKEN_USER_DATA = """\
# cloud-config
growpart:
  mode: off
resize_rootfs: false
runcmd: lsblk
"""

#: Tables that a colleague took from three consoles, and what each was labelled with.
LABELS: dict[str, tuple[str, Moment, str]] = {
    "A": ("default", "before", "bootcmd"),
    "B": ("growpart-off", "after", "runcmd"),
    "C": ("default", "after", "bootcmd"),
}
_MOMENTS = {"bootcmd": "before", "runcmd": "after"}

_GIVEN_03_1 = """\
#cloud-config
growpart:
  mode: 'off'
"""
_GIVEN_ORDER = ["growpart", "resizefs", "bootcmd", "scripts_user", "runcmd"]


@exercise("00-1", right="The recording's label says it, and run.json says why it was chosen.")
def _accelerator(answer: Any) -> Iterator[str]:
    name = recorded("default").record.accelerator.name
    if str(answer).strip().lower() != name:
        yield f"The label of recorded('default') does not say {answer!r}. Read its last word."


@exercise("00-2", right="Read off the measurement, not guessed.")
def _longest_stage(answer: Any) -> Iterator[str]:
    took = {str(one.stage): one.end_s - one.start_s for one in recorded("default").record.stages}
    longest = max(took, key=took.__getitem__)
    if answer not in took:
        yield f"There is no stage {answer!r}. The stages are {', '.join(took)}."
    elif answer != longest:
        yield f"{answer} took {took[answer]:.1f} s, and another stage took {took[longest]:.1f} s."


@exercise("00-3", right="A failed check has a fix beside it; a missing image is no failure.")
def _broken_host(answer: Any) -> Iterator[str]:
    checks: Any = BROKEN_HOST["checks"]
    found = {one["name"]: one for one in checks}
    if answer not in found:
        yield f"There is no check {answer!r}. The checks are {', '.join(found)}."
    elif found[answer]["ok"]:
        yield f"The check {answer} passed: {found[answer]['detail']}."


@exercise("01-1", right="Root lies last, so all the space behind it can become its own.")
def _last_partition(answer: Any) -> Iterator[str]:
    frame = layout(recorded("default"))
    last = frame.sort_values("start_bytes")["number"].iloc[-1]
    if whole_number(answer) != last:
        yield (
            f"Partition {answer} is not the one with the greatest start_bytes. "
            "Numbers are names: they say nothing about the place."
        )


@exercise("01-2", right="Your function tells how far growpart could go, on three real disks.")
def _free_behind(answer: Any) -> Iterator[str]:
    disks: tuple[tuple[str, Moment], ...] = (
        ("default", "before"),
        ("default", "after"),
        ("wall", "after"),
    )
    for case, when in disks:
        run = recorded(case)
        frame, disk_bytes = layout(run, when), run.layout("before").virtual_size_bytes
        right = free_behind(frame, 1, disk_bytes)
        found = answer(frame.copy(), 1, disk_bytes)
        if found is ...:
            raise UnansweredError
        if found != right:
            yield f"For the disk of {case!r} {when} the boot it gives {found}, expected {right}."


def free_behind(frame: Any, number: int, disk_bytes: int) -> int:
    """Return the bytes between a partition's end and the next one's start, or the disk's end."""
    part = frame[frame["number"] == number].iloc[0]
    end = int(part["start_bytes"] + part["size_bytes"])
    behind = frame.loc[frame["start_bytes"] >= end, "start_bytes"]
    return int(behind.min() if len(behind) else disk_bytes) - end


@exercise("01-3", right="Space counts only right behind the partition. There, this disk has none.")
def _cannot_grow(answer: Any) -> Iterator[str]:
    # On a disk so large that only the image itself can be in the way.
    room = {
        case: free_behind(layout(recorded(case)), 1, 100 * GIB)
        for case in ("default", "disk-as-large-as-image", "not-last")
    }
    if answer not in room:
        yield f"Choose one of {', '.join(room)}."
    elif room[answer] > min(room.values()):
        yield f"On a disk of 100 GiB, root of {answer!r} has {room[answer]} free bytes behind it."


@exercise(
    "02-1",
    right="Whole clusters are copied. One byte costs 64 KiB, two can cost 128.",
    start=(1, 2),
)
def _cluster_cost(answer: Any) -> Iterator[str]:
    right = (written_bytes(5 * GIB, 1), written_bytes(CLUSTER_BYTES - 1, 2))
    if not isinstance(answer, tuple | list) or len(answer) != len(right):
        yield "Give two numbers of bytes: (first write, second write)."
        return
    for place, (mine, expected) in enumerate(zip(answer, right, strict=True), start=1):
        if whole_number(mine) != expected:
            yield (
                f"Write {place} does not take {mine} bytes of clusters. "
                f"Count the clusters of {CLUSTER_BYTES} bytes that it touches."
            )


def written_bytes(offset_bytes: int, length_bytes: int) -> int:
    """Return what a write takes in an overlay: every cluster that it touches, whole."""
    first = offset_bytes // CLUSTER_BYTES
    last = (offset_bytes + length_bytes - 1) // CLUSTER_BYTES
    return (last - first + 1) * CLUSTER_BYTES


@exercise("02-2", right="The image is paid for once. Each machine costs only what it wrote.")
def _how_many(answer: Any) -> Iterator[str]:
    run = recorded("default")
    image, overlay = run.image.file_size_bytes, run.record.overlay.end_bytes
    right = (100 * GIB - image) // overlay
    answer = whole_number(answer)
    if answer == 100 * GIB // overlay:
        yield "The base image takes room on the host, too. It is there once."
    elif answer == 100 * GIB // (image + overlay):
        yield "You count the base image once for each machine. All of them share one."
    elif answer != right:
        yield (
            f"Expected a whole number: (100 GiB - {image} bytes of image) // "
            f"{overlay} bytes of overlay."
        )


@exercise("02-3", right="Of the guest's writes, only clusters of kind data lie in the file.")
def _host_cost(answer: Any) -> Iterator[str]:
    for case in ("default", "growpart-off"):
        frame = extents(recorded(case))
        right = int(frame.loc[frame["kind"] == "data", "length_bytes"].sum())
        found = answer(frame.copy())
        if found == frame["length_bytes"].sum():
            raise UnansweredError
        if found != right:
            yield f"For {case!r} it gives {found} bytes, expected {right}."


@exercise(
    "03-1",
    right="growpart is left on, resizefs is off, and the text has no mistake.",
    start=_GIVEN_03_1,
)
def _keep_filesystem(answer: Any) -> Iterator[str]:
    yield from _problems(answer)
    growth = growth_of(answer)
    if not growth.partition:
        yield f"The partition should grow, but {growth.kept_by}."
    if growth.filesystem:
        yield "This lets the filesystem grow. It should stay as it is."


def _problems(user_data: str) -> list[str]:
    return [str(problem) for problem in check_user_data(user_data)]


@exercise(
    "03-2",
    right="An instance-id that the disk has not seen makes everything run again.",
    start="local-hostname: copy\n",
)
def _clone(answer: Any) -> Iterator[str]:
    import yaml

    used = yaml.safe_load(recorded("default").meta_data)
    document = read_document(str(answer))
    if isinstance(document, Problem):
        yield str(document)
    elif not document.value.get("instance-id"):
        yield "meta-data needs a line 'instance-id: ...'."
    elif document.value["instance-id"] == used["instance-id"]:
        yield f"{used['instance-id']} is the instance-id that this disk knows already."


@exercise(
    "03-3",
    right="All three mistakes are gone, and the text says what was meant.",
    start=BROKEN_USER_DATA,
)
def _mend_user_data(answer: Any) -> Iterator[str]:
    yield from _problems(answer)
    growth = growth_of(answer)
    if growth.partition or growth.filesystem:
        yield "The partition and the filesystem should both stay as they are."
    if not any("lsblk" in str(command) for command in values_of(answer).get("runcmd") or ()):
        yield "runcmd should still print lsblk."


@exercise("04-1", right="That is the moment of growth, in the kernel's own words.")
def _moment(answer: Any) -> Iterator[str]:
    lines = [line.raw for line in recorded("default").console]
    mark = b"resizing filesystem from"
    right = [number for number, line in enumerate(lines, 1) if mark in line]
    number = whole_number(answer)
    if number is None or not 1 <= number <= len(lines):
        yield f"Answer with the number of a line, from 1 to {len(lines)}."
    elif number not in right:
        text = lines[number - 1].decode(errors="replace").strip()[:60]
        yield f"Line {number} says {text!r}. Look for 'resizing filesystem'."


@exercise(
    "04-2",
    right="bootcmd sees the disk before growth, runcmd's script after it.",
    start=_GIVEN_ORDER,
)
def _order(answer: Any) -> Iterator[str]:
    values = values_of(recorded("default").user_data)
    right = [
        module
        for stage in ("init", "config", "final")
        for module in values[f"cloud_{stage}_modules"]
    ]
    if not isinstance(answer, list | tuple) or sorted(map(str, answer)) != sorted(right):
        yield f"Put exactly these in order: {', '.join(sorted(right))}."
    elif list(answer) != right:
        first = next(mine for mine, module in zip(answer, right, strict=True) if mine != module)
        yield f"{first} comes too early. The lists at the user-data's end are in cloud-init's order."


@exercise("04-3", right="bootcmd runs before growpart, so its table cannot show a grown disk.")
def _wrong_label(answer: Any) -> Iterator[str]:
    if answer not in LABELS:
        yield "Answer with A, B or C."
        return
    case, stage, label = LABELS[answer]
    if _MOMENTS[label] == stage:
        partition, filesystem = recorded(case).root_sizes(stage)
        yield (
            f"{answer} may well be from {label}: partition {partition} bytes and filesystem "
            f"{filesystem} bytes are what {label} saw in that boot."
        )


def labelled(letter: str) -> Page:
    """Return a table of :data:`LABELS` with the label that a colleague gave it."""
    case, stage, label = LABELS[letter]
    return Page(f"{letter}: printed by {label}\n{tables(recorded(case), stage)}")
