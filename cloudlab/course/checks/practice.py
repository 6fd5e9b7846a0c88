"""Exercises of notebooks 07 to 09: volumes of a node, fair comparisons, other disks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from cloudlab.course.cases import CASES
from cloudlab.course.checks import (
    UnansweredError,
    choice,
    exercise,
    faults,
    whole_number,
    words,
    yaml_text,
)
from cloudlab.course.node import SECTOR_BYTES, Boot, Node, growth_of, values_of
from cloudlab.explanation import Grower
from cloudlab.run.predict import atlas
from cloudlab.run.value import Run, recorded, recording_names, recordings
from cloudlab.seed import ResizeRootfs
from cloudlab.seed.modules import MODULE_KEYS
from cloudlab.units import GIB, format_count

# Notebook 07: volumes behind a small root partition

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
    if abs(one.first * SECTOR_BYTES - 12 * GIB) > _SLACK_SECTORS * SECTOR_BYTES:
        yield f"The wall is at {one.first * SECTOR_BYTES / GIB:.1f} GiB: the root partition ends there."
    if abs(one.size_bytes - 4 * GIB) > _SLACK_SECTORS * SECTOR_BYTES:
        yield f"vol-a should keep its 4 GiB; it has {one.size_bytes / GIB:.1f}."
    if other.first < one.first:
        yield "vol-b should lie behind vol-a."
    elif other.first - one.last > _SLACK_SECTORS:
        unused = (other.first - one.last) * SECTOR_BYTES / GIB
        yield f"{unused:.1f} GiB behind vol-a are in no partition."
    if disk.last_usable - other.last > _SLACK_SECTORS:
        unused = (disk.last_usable - other.last) * SECTOR_BYTES / GIB
        yield f"vol-b gets the rest of the disk, but {unused:.1f} GiB behind it are in no partition."


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
    problems += first.problems[:1]
    if not growth.partition:
        problems.append(f"The root partition should grow up to the wall, but {growth.kept_by}.")
    elif not growth.filesystem:
        problems.append("The root partition grows, but not its filesystem.")
    elif first.root_partition_bytes <= small and not problems:
        problems.append("The root partition cannot grow: the wall is right behind it.")
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
    table = run.sizes
    rows = (table["stage"] == "after") & (table["layer"] == "filesystem") & table["exact"]
    return table.loc[rows, ["device", "mountpoint", "size_bytes"]].reset_index(drop=True)


# Notebook 08: fair comparisons

# What does not change a boot's result.
_TECHNICAL = frozenset({"keep_overlay", "own_user_data", "start"})
_LISTED_BY_RUN = MODULE_KEYS | {"growpart", "resize_rootfs"}


def differences(one: Run, other: Run) -> set[str]:
    """Return in which options two runs differ; a fair comparison has one."""
    first, second = _chosen(one), _chosen(other)
    return {name for name in first | second if first.get(name) != second.get(name)}


def _chosen(run: Run) -> dict[str, Any]:
    options = {name: value for name, value in vars(run.options).items() if name not in _TECHNICAL}
    values = values_of(run.user_data).items()
    keys = {name: value for name, value in values if name not in _LISTED_BY_RUN}
    return {**options, **keys, "image": run.image.name}


@exercise(
    "08-1",
    asks="two names of recordings",
    right="Only resize_rootfs differs, and in one of the two it is false.",
    start=("default", "both-off"),
)
def _fair_pair(answer: Any) -> Iterator[str]:
    names = recording_names()
    pair = [choice(one, names) or one for one in words(answer)]
    if len(pair) != 2:  # noqa: PLR2004
        yield "Answer with two names of recordings."
        return
    if pair[0] == pair[1]:
        yield "Choose two different boots."
        return
    runs = [recorded(name) for name in pair]
    found = differences(*runs)
    if found != {"resize_rootfs"}:
        yield f"{pair[0]} and {pair[1]} differ in {', '.join(sorted(found))}."
    elif all(run.options.resize_rootfs != ResizeRootfs.FALSE for run in runs):
        yield "In neither of them resize_rootfs is false."


@exercise(
    "08-2", asks="a list of names", right="Taken from the measurements, not guessed from names."
)
def _grown(answer: Any) -> Iterator[str]:
    sizes = {run.name: run.root_sizes("after").filesystem_bytes or 0 for run in recordings()}
    right = {name for name, size_bytes in sizes.items() if size_bytes > 19 * GIB}
    yield from _compared(answer, right, "the root filesystem did not end above 19 GiB.")


def _compared(answer: Any, right: set[str], why_not: str) -> Iterator[str]:
    """Yield what is wrong in a list of recordings; ``why_not`` ends a sentence on a wrong one."""
    known = recording_names()
    mine = {choice(one, known) or one for one in words(answer)}
    for name in sorted(mine - right):
        yield f"In {name} {why_not}" if name in known else f"There is no recording called {name!r}."
    if missing := len(right - mine):
        yield f"{missing} of the list {'is' if missing == 1 else 'are'} missing."


@exercise(
    "08-3",
    asks="a list of names",
    right="Two more things were changed, so this comparison proves nothing.",
)
def _unfair(answer: Any) -> Iterator[str]:
    one, other = recorded("default"), recorded("second-boot-same-id")
    found, options = differences(one, other), vars(one.options)
    # In pandas, None differs from None.
    same = {name for name, value in options.items() if value is None}
    mine = {choice(name, [*options, *found]) or name for name in words(answer)}
    for name in sorted(mine - found - _TECHNICAL - same):
        yield f"{name} is the same in both, or no option."
    if missing := len(found - mine):
        yield f"{missing} more {'differs' if missing == 1 else 'differ'}."


# Notebook 09: sizes by arithmetic, other growers, the layer that is stuck

_OTHERS = frozenset({Grower.GROWROOT, Grower.GROWFS, Grower.REPART, Grower.INITRAMFS, Grower.OTHER})

#: Four machines whose disk was enlarged to 40 GiB.
STUCK = """\
A  NAME           MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
   vda            254:0    0   40G  0 disk
   └─vda1         254:1    0   20G  0 part /
   Filesystem     Size  Used Avail Use% Mounted on
   /dev/vda1       20G  5.1G   14G  28% /

B  NAME           MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
   sda              8:0    0   40G  0 disk
   └─sda1           8:1    0   40G  0 part /
   Filesystem     Size  Used Avail Use% Mounted on
   /dev/sda1       20G  9.8G  9.0G  53% /

C  NAME           MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
   vda            254:0    0   40G  0 disk
   └─vda1         254:1    0   40G  0 part
     └─vg0-root   253:0    0   18G  0 lvm  /
   PV         VG  Fmt  Attr PSize   PFree
   /dev/vda1  vg0 lvm2 a--  <40.00g <22.00g

D  NAME           MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
   vda            254:0    0   40G  0 disk
   └─vda1         254:1    0   40G  0 part /
   Filesystem     Size  Used Avail Use% Mounted on
   /dev/vda1       39G  5.1G   33G  14% /
"""
#: Machine -> the programs that may come next, and why.
_NEXT = {
    "A": (("growpart",), "The filesystem fills its partition. What does the partition fill?"),
    "B": (("resize2fs",), "The partition fills the disk. Compare the filesystem with it."),
    "C": (("lvextend", "lvresize"), "pvs shows free space in the group. Which layer gets it?"),
    "D": (("nothing",), "Does any layer not fill the one below? df leaves out ext4's own tables."),
}


@exercise(
    "09-1",
    asks="a function that takes the disk's size and returns the partition's, in bytes",
    right="It agrees with every boot of the atlas, to the byte.",
)
def _partition(answer: Any) -> Iterator[str]:
    table = atlas()
    plain = (
        (table["variant"] == "plain") & (table["growpart"] == "auto") & (table["suite"] != "sid")
    )
    table = table[plain & (table["outcome"] == "done")].drop_duplicates("disk_bytes")
    for disk_bytes, right in zip(table["disk_bytes"], table["partition_bytes"], strict=True):
        given = answer(int(disk_bytes))
        if given is ...:
            raise UnansweredError
        if (mine := whole_number(given)) is None:
            yield "The function must return a whole number of bytes."
            return
        if mine == right:
            continue
        disk = f"a disk of {format_count(int(disk_bytes))} bytes"
        gain = "It is as it was" if right == table["partition_before_bytes"].iloc[0] else "It grew"
        yield f"For {disk} your function returns {format_count(mine)}. {gain} in the boot."
        return


@exercise("09-2", asks="a list of names", right="Each of them says so, with the line behind it.")
def _growers(answer: Any) -> Iterator[str]:
    right = {
        run.name
        for run in recordings()
        if any(one.grown and one.by in _OTHERS for one in run.explain().statements)
    }
    yield from _compared(answer, right, "only cloud-init grew something, or nobody knows who did.")


@exercise(
    "09-3",
    asks="a dictionary: machine -> program",
    right="The first layer from below that does not fill the one under it is the one to grow.",
    start=dict.fromkeys("ABCD"),
)
def _next(answer: Any) -> Iterator[str]:
    if not isinstance(answer, Mapping):
        yield "Answer with a dictionary, such as {'A': 'growpart'}."
        return
    mine = {str(name).strip().upper(): answer[name] for name in answer}
    for machine, (programs, hint) in _NEXT.items():
        said = str(mine.get(machine) or "").strip().lower().removeprefix("sudo ").split(" ")[0]
        if said not in programs:
            yield f"{machine}: {hint}"
