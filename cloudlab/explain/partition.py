"""Who grew the root partition, or why nobody did."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

from cloudlab.explain.model import (
    Evidence,
    Finding,
    Grower,
    Reason,
    Source,
    Statement,
    Subject,
    When,
)
from cloudlab.explain.view import BUILT_UNKNOWN, View, device_evidence
from cloudlab.sizes import GuestBlock

#: growpart's own limit: it ignores a smaller gain.
#: Source: growpart's option --fudge in cloud-utils, bin/growpart.
LEAST_GAIN_BYTES = 1 << 20

# What cloud-init's growpart says when it does not even try.  The words are the same from
# 20.4 to 25.1.  Source: cloudinit/config/cc_growpart.py, handle.
_GAVE_UP = (
    (r"growpart disabled: mode=", Reason.GROWPART_OFF),
    (r"growpart disabled: /etc/growroot-disabled exists", Reason.GROWROOT_DISABLED),
    (r"growpart unable to find resizer .*unknown resize mode", Reason.UNKNOWN_MODE),
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
        yield _on_disk(built, "before the boot")
    for picture in (view.before, view.after):
        if picture is not None and picture.partition is not None:
            part = picture.partition
            yield _Size(part.size_bytes, device_evidence(part), picture.block)
    if left is not None and view.after is None:
        yield _on_disk(left, "after the boot")


def _on_disk(partition: Mapping[str, Any], moment: str) -> _Size:
    size_bytes = int(partition["size_bytes"])
    text = f"{moment}: partition {partition['number']}, {size_bytes} bytes"
    return _Size(size_bytes, Evidence(Source.DISK, text))


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
    statement = _not_at_all(name, reason, evidence, sizes[-1].size_bytes)
    return replace(statement, missing=tuple(missing))


def _why_not(view: View, name: str) -> tuple[Reason, list[Evidence]]:
    """Return the reason; what cloud-init said comes before what the disk's layout shows."""
    if view.cloud_init_ran() is False:
        login = view.shown(r"login:")
        return Reason.NO_CLOUD_INIT, [login] if login else []
    for pattern, reason in _GAVE_UP:
        if said := view.logged(pattern):
            tool = view.fact("growpart_tool") if reason is Reason.NO_GROWPART_TOOL else None
            return reason, [said, *([tool] if tool else [])]
    device = view.root_device()
    if device is not None and device.type != "part":
        skipped = view.logged(_about(device.name, "SKIPPED|FAILED"))
        return Reason.LOGICAL_VOLUME, [device_evidence(device), *([skipped] if skipped else [])]
    failed = view.logged(_about(name, "FAILED|SKIPPED")) or view.shown(_BROKE_OFF)
    if failed:
        full = view.no_space(failed)
        reason = Reason.FILESYSTEM_FULL if full else Reason.GROWPART_FAILED
        return reason, [failed, *([full] if full else [])]
    unchanged = view.logged(_about(name, "NOCHANGE"))
    tried = view.logged(_TRIED)
    # A link in /dev/disk may well be the root partition's.
    if tried and not unchanged and "'/dev/disk/" not in tried.text:
        return Reason.NOT_ASKED, [tried]
    reason, proofs = _no_room(view)
    return reason, [*([unchanged] if unchanged else []), *proofs]


def _about(name: str, action: str) -> str:
    """Return the pattern of what growpart says of the root partition or volume ``name``."""
    entry = rf"(?:/|/dev/(?:mapper/)?{re.escape(name)})"
    return rf"cc_growpart\.py\[\w+\]: '{entry}' (?:{action}): "


def _no_room(view: View) -> tuple[Reason, list[Evidence]]:
    """Return what the disk's layout shows: cloud-init does not log why growpart did nothing."""
    picture = view.after or view.before
    if picture is None or picture.disk is None or picture.room_bytes is None:
        return Reason.UNKNOWN, []
    if picture.room_bytes >= LEAST_GAIN_BYTES:
        return Reason.UNKNOWN, []
    if picture.behind is not None:
        return Reason.WALL, [device_evidence(picture.behind)]
    proofs = [device_evidence(picture.disk)]
    if view.image_bytes is not None and picture.disk.size_bytes <= view.image_bytes:
        image = Evidence(Source.RUN, f"the image's virtual size: {view.image_bytes} bytes")
        return Reason.DISK_NOT_LARGER, [*proofs, image]
    return Reason.GAIN_BELOW_1_MIB, proofs


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
