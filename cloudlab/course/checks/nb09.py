"""Exercises of notebook 09: sizes by arithmetic, other growers, the layer that is stuck."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cloudlab.course.checks import (
    UnansweredError,
    by_letter,
    exercise,
    recordings_but,
    whole_number,
    word,
)
from cloudlab.explanation import Grower
from cloudlab.run.predict import atlas
from cloudlab.run.value import recordings

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
    "D": (
        ("nothing", "none"),
        "Does any layer not fill the one below? df leaves out ext4's own tables.",
    ),
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
        disk = f"a disk of {int(disk_bytes):,} bytes"
        gain = "It is as it was" if right == table["partition_before_bytes"].iloc[0] else "It grew"
        yield f"For {disk} your function returns {mine:,}. {gain} in the boot."
        return


@exercise("09-2", asks="a list of names", right="Each of them says so, with the line behind it.")
def _growers(answer: Any) -> Iterator[str]:
    right = {
        run.name
        for run in recordings()
        if any(one.grown and one.by in _OTHERS for one in run.explain().statements)
    }
    why_not = "cloud-init grew all that grew, or the evidence does not show what did."
    yield from recordings_but(right, answer, why_not)


@exercise(
    "09-3",
    asks="a dictionary: machine -> program",
    right="The first layer from below that does not fill the one under it is the one to grow.",
    start=dict.fromkeys("ABCD"),
)
def _next(answer: Any) -> Iterator[str]:
    mine = by_letter(answer, _NEXT)
    for machine, (programs, hint) in _NEXT.items():
        # The first word of a command or a sentence, without the program's folder.
        given = mine.get(machine)
        command = "" if given is None else word(given).lower().removeprefix("sudo ").strip()
        [first, *_] = re.split(r"[^\w/-]", command)
        if first.rpartition("/")[2] not in programs:
            yield f"{machine}: {hint}"
