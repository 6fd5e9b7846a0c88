"""The exercises of notebook 7: volumes behind a small root."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from cloudlab.course.cases import CASES
from cloudlab.course.settings import Planned, planned_partitions, values_of
from cloudlab.course.verdict import UnansweredError, exercise
from cloudlab.run.options import DISK_SIZE_BYTES
from cloudlab.run.value import Run, recorded
from cloudlab.seed import check_user_data
from cloudlab.units import GIB

_NODE_STORAGE = CASES["node-storage"].user_data

#: The two partitions overlap, so sgdisk refuses both: root takes the whole disk.
BROKEN_STORAGE = str(_NODE_STORAGE).replace("--new=2:8GiB:+4GiB", "--new=2:8GiB:+8GiB")

_DISK_GIB = DISK_SIZE_BYTES // GIB
_DISCOVERY = "/mnt/disks/"
_VOLUMES = {2: "vol-a", 3: "vol-b"}
_GUARD = re.compile(r"(\[|\btest)\s+(!\s+)?-[eb]\s+/dev/vda[23]\b|cloud-init-per\s+(instance|once)")
_NEW_END = re.compile(r"--move-second-header|sgdisk\s+-e\b")


@exercise(
    "07-1",
    right="Root ends at 12 GiB, the volumes follow, nothing overlaps.",
    start=_NODE_STORAGE,
)
def _larger_root(answer: Any) -> Iterator[str]:
    yield from _wrong_in(answer)
    planned = {one.number: one for one in planned_partitions(answer)}
    if not planned.keys() >= _VOLUMES.keys():
        return
    first, last = (planned[number] for number in _VOLUMES)
    if first.start_gib != 12:  # noqa: PLR2004
        yield f"The wall stands at {first.start_gib} GiB, so root would end there."
    if first.size_gib != 4:  # noqa: PLR2004
        yield "vol-a should keep its 4 GiB."
    if last.size_gib is not None:
        yield "vol-b should reach to the disk's end: write 0 for its end."
    if last.start_gib > first.end_gib:
        yield f"The {last.start_gib - first.end_gib:.0f} GiB behind vol-a are nobody's."


@exercise(
    "07-3",
    right="Both partitions can be made, so root stops at the wall.",
    start=BROKEN_STORAGE,
)
def _mended(answer: Any) -> Iterator[str]:
    yield from _wrong_in(answer)


def _wrong_in(user_data: str) -> Iterator[str]:
    """Yield what keeps a text from giving a node two volumes in each of its boots."""
    yield from (str(problem) for problem in check_user_data(user_data))
    planned = planned_partitions(user_data)
    if [one.number for one in planned] != list(_VOLUMES):
        yield (
            "bootcmd should make partition 2 and behind it partition 3, each with "
            "sgdisk --new=NUMBER:START:+SIZE in whole GiB, or 0 for the disk's end."
        )
        return
    yield from _misplaced(planned)
    commands = " ".join(map(str, values_of(user_data).get("bootcmd") or ()))
    if not _GUARD.search(commands):
        yield (
            "bootcmd runs in each boot. In the second one the partitions are there, so "
            "sgdisk fails. Look first whether they are."
        )
    if not _NEW_END.search(commands):
        yield "The table still ends where the image did: sgdisk needs --move-second-header."
    if not re.search(r"\b(partx|partprobe)\b", commands):
        yield "The kernel is not told of new partitions on a disk in use: partx --add does that."
    yield from _unused(values_of(user_data))


def _misplaced(planned: list[Planned]) -> Iterator[str]:
    for one, following in pairwise(planned):
        if one.end_gib > following.start_gib:
            yield (
                f"Partition {one.number} reaches into partition {following.number}, so "
                "sgdisk refuses both, and root takes the whole disk."
            )
    for one in planned:
        # The second table takes the disk's last sectors.
        past_end = one.size_gib is not None and one.end_gib >= _DISK_GIB
        if one.start_gib >= _DISK_GIB or past_end:
            yield f"Partition {one.number} does not fit on a disk of {_DISK_GIB} GiB."


def _unused(values: dict[str, Any]) -> Iterator[str]:
    made = {entry.get("device"): entry for entry in values.get("fs_setup") or ()}
    mounts = {str(entry[0]): entry for entry in values.get("mounts") or () if entry}
    for number, volume in _VOLUMES.items():
        device = f"/dev/vda{number}"
        entry = made.get(device)
        if entry is None:
            yield f"{device} gets no filesystem."
            continue
        mount = mounts.get(device) or mounts.get(f"LABEL={entry.get('label')}")
        if mount is None:
            yield f"{device} is mounted nowhere."
        elif mount[1] != f"{_DISCOVERY}{volume}":
            yield f"{device} should be mounted at {_DISCOVERY}{volume}."
        elif len(mount) > 3 and "nofail" not in str(mount[3]):  # noqa: PLR2004
            yield f"Without nofail, a node whose {device} is missing does not come up."


@exercise("07-2", right="One volume for each mount point under the discovery folder, no more.")
def _volumes(answer: Any) -> Iterator[str]:
    for case in ("node-storage", "wall"):
        frame = mounted(recorded(case))
        rows = zip(frame["mountpoint"], frame["size_bytes"], strict=True)
        right = {point: int(size) for point, size in rows if point.startswith(_DISCOVERY)}
        found = answer(frame.copy())
        if found is ...:
            raise UnansweredError
        if found != right:
            yield f"For {case!r} it gives {found}, expected {right}."


def mounted(run: Run) -> Any:
    """Return what is mounted after the boot: ``device``, ``mountpoint``, ``size_bytes``."""
    table = run.sizes
    rows = (table["stage"] == "after") & (table["layer"] == "filesystem") & table["exact"]
    return table.loc[rows, ["device", "mountpoint", "size_bytes"]].reset_index(drop=True)
