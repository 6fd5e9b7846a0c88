"""What a rule answers: a verdict on one layer, what proves it, and what would settle the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cloudlab.explanation.events import Event
from cloudlab.explanation.evidence import Line
from cloudlab.explanation.facts import Device, Mount, UserData, Volume
from cloudlab.explanation.model import Grower, Measure, Reason, When
from cloudlab.explanation.tables import Table

#: Commands whose output settles what is open. Columns START and MOUNTPOINTS are newer than the
#: lsblk of Debian 11, Ubuntu 22.04 and RHEL 9; fdisk shows where partitions start.
LSBLK = "lsblk -b -o NAME,TYPE,SIZE,FSTYPE,MOUNTPOINT; sudo fdisk -l"
LOG = "grep -E 'growpart|resizefs|resiz' /var/log/cloud-init.log"
FDISK = "sudo fdisk -l"
DF = "df -B1 /"
DMESG = "sudo dmesg | grep -E 'GROWROOT|resiz|capacity|GPT'"

#: What proves something stands on a line.
Proof = Event | Line | Device | Mount | Table | UserData | Volume | None


@dataclass
class Verdict:
    """What is known of one layer; ``missing`` says in sentences what would settle the rest."""

    grown: bool | None = None
    by: Grower = Grower.UNKNOWN
    reason: Reason | None = None
    evidence: list[Line] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    from_bytes: int | None = None
    to_bytes: int | None = None
    measure: Measure | None = None
    when: When | None = None


def settled_by(*commands: str) -> list[str]:
    """Return that the output of these commands would settle what is open."""
    return [f"Not shown yet; this would settle it: {one}" for one in commands if one]


def lines_of(proofs: Iterable[Proof]) -> list[Line]:
    """Return each line that proves something, once."""
    lines = (one if isinstance(one, Line) else one.at for one in proofs if one is not None)
    return list(dict.fromkeys(line for line in lines if line.text))


def grown_by(
    by: Grower,
    *proofs: Proof,
    reason: Reason | None = None,
    sizes: tuple[int | None, int | None] = (None, None),
    missing: str = "",
) -> Verdict:
    """Return that it grew, by what, and why no further."""
    return Verdict(True, by, reason, lines_of(proofs), settled_by(missing), *sizes)


def not_grown(reason: Reason | None, *proofs: Proof, missing: str = "") -> Verdict:
    """Return that it did not grow, and why."""
    return Verdict(False, Grower.NOBODY, reason, lines_of(proofs), settled_by(missing))


def undecided(*missing: str, proofs: Iterable[Proof] = (), reason: Reason | None = None) -> Verdict:
    """Return that the evidence does not decide it, with what would."""
    return Verdict(None, Grower.UNKNOWN, reason, lines_of(proofs), settled_by(*missing))
