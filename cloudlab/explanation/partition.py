"""Who grew the root partition, or why nobody did."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from cloudlab.explanation.model import (
    Evidence,
    Finding,
    Grower,
    Reason,
    Source,
    Statement,
    Subject,
    When,
)
from cloudlab.explanation.view import (
    BUILT_UNKNOWN,
    LEAST_GAIN_BYTES,
    Picture,
    View,
    device_evidence,
    partition_evidence,
)
from cloudlab.sizes import GuestBlock

# What cloud-init's growpart says when it does not even try.  The words are the same from
# 20.4 to 25.1.  Source: cloudinit/config/cc_growpart.py, handle.
_GAVE_UP = (
    (r"growpart disabled: mode=", Reason.GROWPART_OFF),
    (r"growpart disabled: /etc/growroot-disabled exists", Reason.GROWROOT_DISABLED),
    # These modes are for other systems than Linux, whatever tool the image has.
    (
        r"growpart unable to find resizer .*(?:unknown resize mode|mode (?:gpart|growfs) not)",
        Reason.UNKNOWN_MODE,
    ),
    (r"growpart unable to find resizer", Reason.NO_GROWPART_TOOL),
    (r"growpart: empty device list", Reason.NOT_ASKED),
)
_BROKE_OFF = r"Running module growpart .* failed"
# What it says at the end of each entry of growpart.devices that it tried.
_TRIED = r"cc_growpart\.py\[\w+\]: '[^']+' (?:resized|NOCHANGE|SKIPPED|FAILED): "


class _Size(NamedTuple):
    """The partition's size at one moment, and who says so.

    ``block`` is None where the host read it off the disk.
    """

    size_bytes: int
    evidence: Evidence
    block: GuestBlock | None = None


def partition_statements(view: View) -> tuple[Statement, ...]:
    """Return one statement for each time the partition grew, or the one why it did not."""
    device = view.root_device()
    if device is not None and device.type == "disk":
        skipped = view.logged(_about(device.name, "SKIPPED"))
        evidence = (device_evidence(device), *([skipped] if skipped else []))
        return (_not_at_all("", Reason.NO_PARTITION, evidence),)
    sizes = list(_sizes(view))
    name = next((one.partition.name for one in view.pictures() if one.partition), "")
    if len(sizes) < 2:  # noqa: PLR2004
        missing = "Its size is known at one moment at most, so growth cannot be told."
        known = tuple(one.evidence for one in sizes)
        return (_statement(name, (None, Grower.UNKNOWN, Reason.UNKNOWN), known, missing=missing),)
    grown = [
        _grown(view, name, old, new)
        for old, new in pairwise(sizes)
        if new.size_bytes > old.size_bytes
    ]
    return tuple(grown) or (_not_grown(view, name, sizes),)


def _sizes(view: View) -> Iterator[_Size]:
    """Yield the partition as it was built, before and after cloud-init's growth."""
    built, left = view.on_disk(view.disk_before), view.on_disk(view.disk_after)
    if built is not None:
        yield _Size(int(built["size_bytes"]), partition_evidence("before the boot", built))
    for picture in (view.before, view.after):
        if picture is not None and picture.partition is not None:
            part = picture.partition
            yield _Size(part.size_bytes, device_evidence(part), picture.block)
    if left is not None and view.after is None:
        yield _Size(int(left["size_bytes"]), partition_evidence("after the boot", left))


def _grown(view: View, name: str, old: _Size, new: _Size) -> Statement:
    """State who grew it from one size to the next, by what happened in between only."""
    early = new.block is not None and new.block.stage == "before"
    growpart = None if early else view.logged(_about(name, "resized"))
    growroot = view.shown(r"GROWROOT: CHANGED") if old.block is None else None
    by, when = Grower.UNKNOWN, _first_seen(view, old)
    if growpart:
        by = Grower.GROWPART
    elif growroot:
        by, when = Grower.GROWROOT, view.when_said(growroot)
    wall = None if early or view.after is None else view.after.behind
    proofs = [growpart or growroot, wall and device_evidence(wall)]
    evidence = (old.evidence, new.evidence, *(one for one in proofs if one))
    moment = "before bootcmd ran" if early else "after bootcmd ran"
    if view.before is None:
        moment = "during the boot"
    missing = f"It grew {moment}, but no line of the console or of cloud-init.log says by whom."
    return _statement(
        name, (True, by, Reason.WALL if wall else None), evidence,
        sizes=(old.size_bytes, new.size_bytes),
        when=when,
        missing=missing if by is Grower.UNKNOWN else "",
    )  # fmt: skip


def _first_seen(view: View, old: _Size) -> When | None:
    last = old.block
    for picture in view.pictures():
        if picture.partition is None:
            continue
        if picture.partition.size_bytes > old.size_bytes:
            return view.when_seen(picture.block, last)
        last = picture.block
    return None


def _not_grown(view: View, name: str, sizes: list[_Size]) -> Statement:
    reason, proofs = _why_not(view, name)
    evidence = (sizes[0].evidence, sizes[-1].evidence, *proofs)
    missing = [] if view.disk_before else [BUILT_UNKNOWN]
    if reason is Reason.UNKNOWN:
        missing.append("No line of cloud-init.log says why growpart did nothing.")
    if reason in {Reason.DISK_NOT_LARGER, Reason.GAIN_BELOW_1_MIB} and view.table is None:
        missing.append("Whether the disk has a GPT was not recorded; room for its copy is kept.")
    statement = _not_at_all(name, reason, evidence, sizes[-1].size_bytes)
    return replace(statement, missing=tuple(missing))


def _why_not(view: View, name: str) -> tuple[Reason, list[Evidence]]:
    """Return the reason; what cloud-init said comes before what the disk's layout shows."""
    if view.cloud_init_ran() is False:
        return Reason.NO_CLOUD_INIT, [one for one in view.silence() if one]
    for pattern, reason in _GAVE_UP:
        if said := view.logged(pattern):
            tool = view.fact("growpart_tool") if reason is Reason.NO_GROWPART_TOOL else None
            return reason, [said, *([tool] if tool else [])]
    return _why_in_vain(view, name)


def _why_in_vain(view: View, name: str) -> tuple[Reason, list[Evidence]]:
    """Return why growpart, which ran, did not grow it."""
    device = view.root_device()
    volume = device if device is not None and device.type != "part" else None
    about = volume.name if volume else name
    if failed := view.logged(_about(about, "FAILED")) or view.shown(_BROKE_OFF):
        full = view.no_space(failed)
        reason = Reason.FILESYSTEM_FULL if full else Reason.GROWPART_FAILED
        return reason, [failed, *([full] if full else [])]
    skipped = view.logged(_about(about, "SKIPPED"))
    if volume:
        proofs = [device_evidence(volume), *([skipped] if skipped else [])]
        return _volume_reason(volume.type, skipped=skipped is not None), proofs
    if skipped:
        return Reason.GROWPART_FAILED, [skipped]
    unchanged = view.logged(_about(name, "NOCHANGE"))
    tried = view.logged(_TRIED)
    # A link in /dev/disk may well be the root partition's.
    if tried and not unchanged and "'/dev/disk/" not in tried.text:
        return Reason.NOT_ASKED, [tried]
    reason, proofs = _no_room(view)
    return reason, [*([unchanged] if unchanged else []), *proofs]


def _volume_reason(kind: str, *, skipped: bool) -> Reason:
    """Return why growpart leaves a volume of this kind, in the words of ``lsblk``, alone."""
    if kind == "lvm":
        return Reason.LOGICAL_VOLUME
    if not skipped:
        return Reason.UNKNOWN
    if kind.startswith(("raid", "md", "linear")):
        return Reason.RAID
    return Reason.ENCRYPTED if kind == "crypt" else Reason.GROWPART_FAILED


def _about(name: str, action: str) -> str:
    """Return the pattern of what growpart says of the root partition or volume ``name``.

    The entry may be any path on it; then the message names the device itself.
    """
    split = re.fullmatch(r"(.*?\d)p(\d+)|(.*?\D)(\d+)", name)
    disk, number = (split[1] or split[3], split[2] or split[4]) if split else (name, "")
    device = rf"/dev/(?:mapper/)?{re.escape(name)}(?!\w)"
    if number:
        device += rf"|/dev/{re.escape(disk)}, (?:ptnum=)?{number}(?!\d)"
    return (
        rf"cc_growpart\.py\[\w+\]: "
        rf"(?:'(?:/|/dev/(?:mapper/)?{re.escape(name)})' (?:{action}): "
        rf"|'[^']+' (?:{action}): .*?(?:{device}))"
    )


def _no_room(view: View) -> tuple[Reason, list[Evidence]]:
    """Return what the disk's layout shows: cloud-init does not log why growpart did nothing."""
    picture = view.after or view.before
    if picture is None or picture.disk is None or picture.room_bytes is None:
        return Reason.UNKNOWN, []
    if picture.room_bytes >= LEAST_GAIN_BYTES:
        return Reason.UNKNOWN, []
    if picture.behind is not None:
        return Reason.WALL, [device_evidence(picture.behind)]
    proofs = [device_evidence(picture.disk), _room_evidence(picture)]
    if view.image_bytes is not None and picture.disk.size_bytes <= view.image_bytes:
        text = f"what the disk was made from: {view.image_bytes} bytes of virtual size"
        image = Evidence(Source.RUN, text)
        return Reason.DISK_NOT_LARGER, [*proofs, image]
    return Reason.GAIN_BELOW_1_MIB, proofs


def _room_evidence(picture: Picture) -> Evidence:
    """Return how the room behind the partition is reckoned, in bytes."""
    assert picture.partition is not None
    assert picture.disk is not None
    end_bytes = picture.partition.start_bytes + picture.partition.size_bytes
    behind_bytes = picture.disk.size_bytes - end_bytes
    kept = (
        f", less {picture.reserve_bytes} for the copy of the GPT" if picture.reserve_bytes else ""
    )
    text = f"behind {picture.partition.name}: {behind_bytes} bytes{kept}: {picture.room_bytes}"
    return Evidence(Source.REPORT, f"{text} to gain")


def _not_at_all(
    name: str,
    reason: Reason,
    evidence: tuple[Evidence, ...],
    size_bytes: int | None = None,
    missing: str = "",
) -> Statement:
    sizes = (size_bytes, size_bytes)
    return _statement(name, (False, Grower.NOBODY, reason), evidence, sizes=sizes, missing=missing)


def _statement(
    name: str,
    finding: Finding,
    evidence: tuple[Evidence, ...],
    *,
    sizes: tuple[int | None, int | None] = (None, None),
    when: When | None = None,
    missing: str = "",
) -> Statement:
    grown, by, reason = finding
    return Statement(
        subject=Subject.PARTITION,
        device=name,
        grown=grown,
        by=by,
        reason=reason,
        from_bytes=sizes[0],
        to_bytes=sizes[1],
        when=when,
        evidence=evidence,
        missing=(missing,) if missing else (),
    )
