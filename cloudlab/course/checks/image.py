"""Exercises of notebooks 00 to 03: the machine check, partitions, overlays, user-data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from cloudlab.course.checks import (
    UnansweredError,
    choice,
    exercise,
    faults,
    numbers,
    whole_number,
    word,
    yaml_text,
)
from cloudlab.course.node import growth_of, values_of
from cloudlab.course.shell import Shell, UndecidedError, script_of
from cloudlab.run.value import Moment, recorded
from cloudlab.seed import Problem, Severity, check_meta_data
from cloudlab.seed.check import read_document
from cloudlab.units import GIB

# Notebook 00: labels, stages, the machine check

_ACCELERATORS = {"tcg": "tcg", "emulation": "tcg", "kvm": "kvm", "hvf": "hvf", "whpx": "whpx"}

_FOUND = (
    ("qemu-system-x86_64", True, "/usr/bin/qemu-system-x86_64: QEMU emulator version 7.2.22", ""),
    ("qemu-img", False, "not found", "Install it with: sudo apt-get install --yes qemu-utils"),
    ("accelerator", True, "tcg: software emulation, because /dev/kvm is not there", ""),
    ("image", True, "none in the cache yet; the first run fetches or builds one", ""),
)
#: What ``cloudlab doctor --json`` printed on a host that cannot boot yet.
BROKEN_HOST: dict[str, Any] = {
    "checks": [dict(zip(("name", "ok", "detail", "fix"), one, strict=True)) for one in _FOUND]
}


@exercise(
    "00-1",
    asks="the accelerator's name",
    right="The recording's label names it, and its run.json also says why it was chosen.",
)
def _accelerator(answer: Any) -> Iterator[str]:
    text = word(getattr(answer, "name", answer)).lower()
    named = {_ACCELERATORS[one] for one in re.findall(r"\w+", text) if one in _ACCELERATORS}
    if named != {str(recorded("default").record.accelerator.name)}:
        yield f"The label of recorded('default') does not say {word(answer)!r}. Read its last word."


@exercise(
    "00-2",
    asks="a stage's name",
    right="This stage has the largest difference between end_s and start_s.",
)
def _longest_stage(answer: Any) -> Iterator[str]:
    took = {str(one.stage): one.end_s - one.start_s for one in recorded("default").record.stages}
    short = {stage.removeprefix("cloud-init "): stage for stage in took}
    stage = choice(answer, took) or short.get(choice(answer, short) or "")
    if stage is None:
        yield f"There is no stage {word(answer)!r}. The stages are {', '.join(took)}."
    elif took[stage] < max(took.values()):
        yield f"{stage} took {took[stage]:.1f} s, and another stage took longer."


@exercise(
    "00-3",
    asks="a check's name",
    right="A failed check has a fix beside it. A missing image is no failure.",
)
def _broken_host(answer: Any) -> Iterator[str]:
    found = {one["name"]: one for one in BROKEN_HOST["checks"]}
    name = choice(answer, found)
    if name is None:
        yield f"There is no check {word(answer)!r}. The checks are {', '.join(found)}."
    elif found[name]["ok"]:
        yield f"The check {name} passed: {found[name]['detail']}."


# Notebook 01: partitions by position, free space behind them

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
    named = re.sub(r"^(/dev/)?vda", "", word(answer))
    if whole_number(answer) != last and whole_number(named) != last:
        yield (
            f"Partition {word(answer)} does not have the greatest start_bytes. "
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


# Notebook 02: what writes cost in an overlay

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
    if len(found) != len(_WRITES):
        yield "Give two numbers of bytes: (first write, second write)."
        return
    for place, (mine, (offset, length)) in enumerate(zip(found, _WRITES, strict=True), start=1):
        if mine != written_bytes(offset, length):
            last = offset + length - 1
            yield (
                f"Write {place} does not cost {mine} bytes. It writes the bytes {offset} to {last}: "
                f"in which clusters of {CLUSTER_BYTES} bytes are they?"
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
        if found is ... or whole_number(found) == taken.sum():
            raise UnansweredError
        if whole_number(found) != taken["data"]:
            which = "Do clusters that are marked zero take space in the file?"
            if whole_number(found) != taken["data"] + taken["zero"]:
                which = "Which kinds of clusters are stored in the overlay file?"
            yield f"{name}: {found} bytes is wrong. {which}"
            return


# Notebook 03: user-data and meta-data

_GROWPART_OFF = """\
#cloud-config
growpart:
  mode: 'off'
"""

#: A text with three mistakes.  It should keep the partition and the filesystem as they are.
BROKEN_USER_DATA = """\
# cloud-config
growpart:
  mode: off
resize_rootfs: false
runcmd: lsblk
"""
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


@exercise(
    "03-1",
    asks="a user-data text",
    right="growpart keeps its default, resizefs is off, and cloud-init accepts the text.",
    start=_GROWPART_OFF,
)
def _keep_filesystem(answer: Any) -> Iterator[str]:
    text = yaml_text(answer)
    yield from faults(text)
    growth = growth_of(text)
    if not growth.partition:
        yield f"The partition should grow, but {growth.kept_by}."
    if growth.filesystem:
        yield "With this text the filesystem grows. It should keep its size."


@exercise(
    "03-2",
    asks="a meta-data text",
    right="cloud-init has not seen this instance-id on this disk, so it treats the copy as new.",
    start="local-hostname: copy\n",
)
def _clone(answer: Any) -> Iterator[str]:
    meta_data = yaml_text(answer, header="")
    used, document = read_document(recorded("default").meta_data), read_document(meta_data)
    errors = [str(one) for one in check_meta_data(meta_data) if one.severity is Severity.ERROR]
    if errors or isinstance(document, Problem) or isinstance(used, Problem):
        yield from errors
        return
    instance_id = document.value.get("instance-id")
    if instance_id in (None, ""):
        yield "cloud-init recognises an instance by a key of meta-data. This text lacks it."
    elif str(instance_id) == str(used.value["instance-id"]):
        yield f"This disk was booted with {instance_id} before, so the copy is not a new instance."
    host = document.value.get("local-hostname", "copy")
    if not (isinstance(host, str | int) and _HOST_NAME.fullmatch(str(host))):
        yield f"{host!r} is not a host name: letters, digits, hyphens and dots are."


@exercise(
    "03-3",
    asks="a user-data text",
    right="All three mistakes are corrected: nothing grows, and lsblk runs.",
    start=BROKEN_USER_DATA,
)
def _correct_user_data(answer: Any) -> Iterator[str]:
    text = yaml_text(answer)
    yield from faults(text)
    values, growth = values_of(text), growth_of(text)
    if growth.partition:
        yield "With this text the partition grows. Partition and filesystem should keep their size."
    growpart = values.get("growpart")
    if isinstance(growpart, dict) and growpart.get("mode") is False:
        yield "YAML reads the value of mode as false, which cloud-init calls deprecated. Quote it."
    if not _runs_lsblk(values.get("runcmd")):
        yield "runcmd should still run lsblk."


def _runs_lsblk(runcmd: object) -> bool:
    called = []

    def command(argv: list[str], _: str) -> tuple[int, str]:
        called.append(argv[0])
        return 0, ""

    script = script_of(runcmd)
    try:
        Shell(command, lambda _: True, lambda _: None).run(script)
    except UndecidedError:
        return "lsblk" in script
    return "lsblk" in called
