"""Exercises of notebook 05: options, sizes in bytes, what a log proves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from cloudlab.course.checks import exercise, faults, whole_number, yaml_text
from cloudlab.course.growth import growth_of
from cloudlab.course.node import Node
from cloudlab.errors import UsageError
from cloudlab.run.options import Options, typed_values
from cloudlab.run.value import recorded
from cloudlab.seed import SeedConfig, to_user_data
from cloudlab.units import GIB

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
    elif number not in (measured, measured // _MIB * _MIB):
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
