"""Exercises of notebook 07: volumes behind a small root partition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cloudlab.course.cases import CASES
from cloudlab.course.checks import UnansweredError, exercise, faults, whole_number, yaml_text
from cloudlab.course.growth import growth_of
from cloudlab.course.node import Boot, Node
from cloudlab.run.value import Run, open_run, recorded
from cloudlab.units import GIB, SECTOR_BYTES, format_bytes, format_two

NODE_STORAGE = str(CASES["node-storage"].user_data)

#: The two partitions overlap, so sgdisk makes neither, and root takes the whole disk.
BROKEN_STORAGE = NODE_STORAGE.replace("--new=2:8GiB:+4GiB", "--new=2:8GiB:+8GiB")

_DISCOVERY = "/mnt/disks/"
_VOLUMES = ("/mnt/disks/vol-a", "/mnt/disks/vol-b")
#: Alignment and an end that is counted in may shift a border by this much.
_SLACK_SECTORS = 2 * 2048


@exercise(
    "07-1",
    asks="a user-data text",
    right="The root partition ends at 12 GiB, the volumes follow, and a second boot changes nothing. "
    "In live mode course.boot_text(text) proves it.",
    start=NODE_STORAGE,
)
def _larger_root(answer: Any) -> Iterator[str]:
    text = yaml_text(answer)
    node, first, problems = _node(text)
    yield from problems
    if problems:
        return
    disk = node.disk
    one, other = (disk.parts[first.mounts[point]] for point in _VOLUMES)
    if one.first - disk.parts[1].last > _SLACK_SECTORS:
        yield "Another partition lies between the root partition and vol-a."
    wall_bytes = (disk.parts[1].last + 1) * SECTOR_BYTES
    if abs(wall_bytes - 12 * GIB) > _SLACK_SECTORS * SECTOR_BYTES:
        yield f"The wall is at {format_bytes(wall_bytes)}: the root partition ends there."
    if abs(one.size_bytes - 4 * GIB) > _SLACK_SECTORS * SECTOR_BYTES:
        right, mine = format_two(4 * GIB, one.size_bytes)
        yield f"vol-a should keep its {right}; it has {mine}."
    if other.first < one.first:
        yield "vol-b should lie behind vol-a."
    elif other.first - one.last > _SLACK_SECTORS:
        unused = (other.first - one.last) * SECTOR_BYTES / GIB
        yield f"{unused:.1f} GiB lie between vol-a and vol-b."
    if disk.last_usable - other.last > _SLACK_SECTORS:
        unused = (disk.last_usable - other.last) * SECTOR_BYTES / GIB
        yield f"vol-b gets the rest of the disk, but {unused:.1f} GiB lie behind it."


@exercise(
    "07-3",
    asks="a user-data text",
    right="sgdisk makes both partitions, so the root partition stops at the wall. "
    "In live mode course.boot_text(text) proves it.",
    start=BROKEN_STORAGE,
)
def _corrected(answer: Any) -> Iterator[str]:
    yield from _node(yaml_text(answer))[2]


def _node(text: str) -> tuple[Node, Boot, list[str]]:
    """Boot a node twice in a model; return it, its first boot and what is wrong."""
    problems, growth, node = faults(text), growth_of(text), Node()
    small = node.disk.parts[1].size_bytes
    first = node.boot(text)
    layout = {number: (part.first, part.last) for number, part in node.disk.parts.items()}
    # The first thing that fails is the cause, the others are its consequences.
    if first.problems or first.status:
        missing = [
            f"The lab image has no {one}: the shell's status is 127." for one in first.missing
        ]
        problems += [*missing, *first.problems][:1]
    if not growth.partition:
        problems.append(f"The root partition should grow up to the wall, but {growth.kept_by}.")
    elif not growth.filesystem:
        problems.append("The root partition grows, but not its filesystem.")
    elif first.root_partition_bytes <= small and not problems:
        problems.append("The root partition does not grow: is the wall right behind it?")
    if not problems:
        problems += [f"Nothing is mounted at {one}." for one in _VOLUMES if one not in first.mounts]
    if len({first.mounts.get(one) for one in _VOLUMES}) < len(_VOLUMES) and not problems:
        problems.append("Both volumes are the same partition.")
    if first.status and not problems:
        problems.append(f"bootcmd fails with status {first.status}.")
    if not problems:
        second = node.boot(text)
        after = {number: (part.first, part.last) for number, part in node.disk.parts.items()}
        if second.status or after != layout or second.mounts != first.mounts:
            problems.append(
                "bootcmd runs in each boot. In the second boot the partitions exist already, "
                f"and it {'fails' if second.status else 'changes the disk'}: check for them first."
            )
        problems += [one for one in second.problems if "sgdisk" not in one]
    return node, first, problems


@exercise(
    "07-2",
    asks="a function",
    right="One volume for each mount point under the discovery folder, and no other.",
)
def _volumes(answer: Any) -> Iterator[str]:
    made_up = [
        ("/dev/vdc1", "/mnt/disks/data", 5 * GIB), ("/dev/vdc2", "/mnt/disks-old/a", GIB),
        ("/dev/vda1", "/", 8 * GIB),
    ]  # fmt: skip
    tables = {f"recording {case!r}": mounted(recorded(case)) for case in ("node-storage", "wall")}
    tables["a made-up table"] = pd.DataFrame(
        made_up, columns=["device", "mountpoint", "size_bytes"]
    )
    for name, table in tables.items():
        rows = zip(table["mountpoint"], table["size_bytes"], strict=True)
        right = {point: int(size) for point, size in rows if point.startswith(_DISCOVERY)}
        found = answer(table.copy())
        if found is ...:
            raise UnansweredError
        pairs = dict(found.items() if hasattr(found, "items") else found)
        mine = {str(point).rstrip("/"): whole_number(size) for point, size in pairs.items()}
        if mine.keys() != right.keys():
            yield (
                f"{name}: your function offers {sorted(mine) or 'nothing'}. Which mount points "
                f"are in the folder {_DISCOVERY}?"
            )
        elif mine != right:
            yield f"{name}: a capacity is wrong. Give size_bytes as the table has it, in bytes."


def mounted(run: Run) -> pd.DataFrame:
    """Return what is mounted after the boot: ``device``, ``mountpoint``, ``size_bytes``."""
    table = open_run(run).sizes
    rows = (table["stage"] == "after") & (table["layer"] == "filesystem") & table["exact"]
    return table.loc[rows, ["device", "mountpoint", "size_bytes"]].reset_index(drop=True)
