"""Who grew the root filesystem, or why nobody did.

Sizes are compared with their like only: a superblock counts the whole filesystem, statfs (and
so df) leaves out what the filesystem needs for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from cloudlab.explanation.model import (
    Evidence,
    Finding,
    Grower,
    Measure,
    Reason,
    Source,
    Statement,
    Subject,
    When,
)
from cloudlab.explanation.view import (
    BUILT_UNKNOWN,
    GROWFS_ENDS,
    GROWFS_STARTS,
    LEAST_GAIN_BYTES,
    View,
    device_evidence,
    filesystem_evidence,
    partition_evidence,
    uptime_of,
)
from cloudlab.sizes import Stage

# Source: cloudinit/config/cc_resizefs.py, handle and do_resize; the words are the same from
# 20.4 to 25.1.
_RESIZED = r"Resized root filesystem \(type="
_FORKED = r"Resizing \(via forking\) root filesystem"
_OFF = r"Skipping module named \S*resizefs, resizing disabled"
_FAILED = r"Failed to resize filesystem|module resizefs .* failed"
_UNKNOWN_KIND = r"Not resizing unknown filesystem type"
# What fills a partition and is no filesystem.
_CONTAINERS = ("_member", "_LUKS")


class _Sizes(NamedTuple):
    """The filesystem's size at two moments, by one measure."""

    old_bytes: int
    new_bytes: int
    evidence: tuple[Evidence, Evidence]
    measure: Measure

    @property
    def grown(self) -> bool:
        return self.new_bytes > self.old_bytes


def filesystem_statements(view: View) -> tuple[Statement, ...]:
    """Return one statement for each time the filesystem grew, or the one why it did not."""
    guest, disk = _by_guest(view), _by_superblock(view)
    early, late = tuple(_early(view, disk)), tuple(_late(view, guest))
    if early or late:
        return (*early, *late)
    if disk is not None and disk.grown:
        return (_unreported(view, disk),)
    sizes = guest or disk
    if sizes is None:
        missing = "Its size is known at one moment at most, so growth cannot be told."
        statement = _statement(view, None, (None, Grower.UNKNOWN, Reason.UNKNOWN))
        return (replace(statement, missing=(missing,)),)
    return (_not_grown(view, sizes),)


def _by_guest(view: View) -> _Sizes | None:
    """Return what statfs said before and after cloud-init's growth."""
    before, after = view.before, view.after
    if not (before and before.filesystem and after and after.filesystem):
        return None
    old, new = before.filesystem, after.filesystem
    evidence = (filesystem_evidence(old), filesystem_evidence(new))
    return _Sizes(old.size_bytes, new.size_bytes, evidence, Measure.STATFS)


def _by_superblock(view: View) -> _Sizes | None:
    """Return what the superblock said before and after the boot."""
    built = _superblock(view, "before the boot", view.disk_before)
    left = _superblock(view, "after the boot", view.disk_after)
    if built is None or left is None:
        return None
    return _Sizes(built[0], left[0], (built[1], left[1]), Measure.SUPERBLOCK)


def _superblock(view: View, moment: str, disk: Mapping[str, Any]) -> tuple[int, Evidence] | None:
    partition = view.on_disk(disk)
    filesystem = partition and partition["filesystem"]
    if not partition or not filesystem or filesystem["size_bytes"] is None:
        return None
    device = view.root_device()
    if filesystem["type"].endswith(_CONTAINERS) or (device and device.type not in {"part", "disk"}):
        return None  # the filesystem lies in a volume, which inspect does not look into
    size_bytes = int(filesystem["size_bytes"])
    number = partition["number"]
    place = "the whole disk" if number is None else f"partition {number}"
    text = f"{moment}: superblock of {filesystem['type']} on {place}, {size_bytes} bytes"
    return size_bytes, Evidence(Source.DISK, text)


def _early(view: View, disk: _Sizes | None) -> Iterator[Statement]:
    """Yield the growth that bootcmd found done already."""
    before = view.before
    if before is None or before.filesystem is None or before.block.uptime_s is None:
        return
    limit_s = before.block.uptime_s
    kernel = next(
        (line for line in view.resizings() if (uptime_of(line) or limit_s) < limit_s), None
    )
    built = _superblock(view, "before the boot", view.disk_before)
    larger = built is not None and before.filesystem.size_bytes > built[0]
    if kernel is None and not larger:
        return
    after = view.after and view.after.filesystem
    if after and after.size_bytes > before.filesystem.size_bytes:
        disk = None  # the superblock after the boot shows both growths together
    growfs = _growfs_around(view, kernel)
    yield _grown(view, disk, Grower.GROWFS if growfs else Grower.UNKNOWN, growfs, kernel)


def _late(view: View, guest: _Sizes | None) -> Iterator[Statement]:
    """Yield the growth between bootcmd and the last report."""
    if guest is None or not guest.grown:
        return
    limit_s = (view.before.block.uptime_s if view.before else None) or 0.0
    kernel = next((line for line in view.resizings() if (uptime_of(line) or 0.0) >= limit_s), None)
    resized = view.logged(_RESIZED) or view.logged(_FORKED)
    growfs = _growfs_around(view, kernel)
    if growfs:
        yield _grown(view, guest, Grower.GROWFS, growfs, kernel)
    elif resized:
        yield _grown(view, guest, Grower.RESIZEFS, [resized], kernel)
    else:
        yield _grown(view, guest, Grower.UNKNOWN, [], kernel)


def _unreported(view: View, disk: _Sizes) -> Statement:
    """State growth that shows on the disk and in no two reports: it may have come after them."""
    forked, after = view.logged(_FORKED), view.after
    if forked is None or after is None or _by_guest(view) is None:
        return _grown(view, disk, Grower.UNKNOWN, [], None)
    # What resizefs left running went on after the last report.
    limit_s = after.block.uptime_s
    said = (one for one in view.resizings() if (uptime_of(one) or 0.0) >= (limit_s or 0.0))
    statement = _grown(view, disk, Grower.RESIZEFS, [forked], next(said, None))
    return statement if statement.when else replace(statement, when=When(not_before_s=limit_s))


def _growfs_around(view: View, kernel: Evidence | None) -> list[Evidence]:
    """Return the lines between which systemd-growfs ran, if the kernel resized while it did."""
    start, end = view.logged(GROWFS_STARTS), view.logged(GROWFS_ENDS)
    moments = [uptime_of(line) if line else None for line in (start, kernel, end)]
    known = [moment for moment in moments if moment is not None]
    if start and end and len(known) == len(moments) and known == sorted(known):
        return [start, end]
    return []


def _grown(
    view: View,
    sizes: _Sizes | None,
    by: Grower,
    proofs: list[Evidence],
    kernel: Evidence | None,
) -> Statement:
    when = None
    if kernel is not None:
        when = view.when_said(kernel)
    elif sizes is not None and sizes.evidence[0].source is Source.REPORT:
        when = _first_seen(view, sizes)
    statement = _statement(view, sizes, (True, by, None), [kernel, *proofs])
    missing = "It grew, but no line of cloud-init.log or of systemd's journal says who did it."
    return replace(statement, when=when, missing=() if by is not Grower.UNKNOWN else (missing,))


def _first_seen(view: View, sizes: _Sizes) -> When | None:
    """Return when a report first showed it larger."""
    last = None
    for picture in view.pictures():
        if picture.filesystem is None:
            continue
        if picture.filesystem.size_bytes > sizes.old_bytes:
            return view.when_seen(picture.block, last)
        last = picture.block
    return None


def _not_grown(view: View, sizes: _Sizes) -> Statement:
    reason, proofs, lacking = _why_not(view)
    statement = _statement(view, sizes, (False, Grower.NOBODY, reason), proofs)
    missing = [] if view.disk_before else [BUILT_UNKNOWN]
    return replace(statement, missing=(*missing, *lacking))


def _why_not(view: View) -> tuple[Reason, list[Evidence | None], list[str]]:
    """Return the reason, its proofs, and what would have been needed besides."""
    if view.cloud_init_ran() is False:
        return Reason.NO_CLOUD_INIT, view.silence(), []
    if off := view.logged(_OFF):
        return Reason.RESIZE_ROOTFS_OFF, [off], []
    if failed := view.logged(_FAILED):
        full = view.no_space(failed)
        return Reason.FILESYSTEM_FULL if full else Reason.RESIZE_FAILED, [failed, full], []
    if unknown := view.logged(_UNKNOWN_KIND):
        return Reason.UNKNOWN_FILESYSTEM, [unknown], []
    return _why_no_gain(view)


def _why_no_gain(view: View) -> tuple[Reason, list[Evidence | None], list[str]]:
    """Return why it took nothing, though nothing kept resizefs from trying."""
    resized, forked = view.logged(_RESIZED), view.logged(_FORKED)
    tried = resized or forked
    if tried is None:
        return Reason.UNKNOWN, [], ["No line of cloud-init.log says why resizefs did nothing."]
    unfilled = Reason.IN_BACKGROUND if forked else Reason.UNKNOWN
    on_disk = _superblock(view, "after the boot", view.disk_after)
    partition = view.on_disk(view.disk_after)
    if on_disk is not None and partition is not None:
        proofs: list[Evidence | None] = [
            partition_evidence("after the boot", partition),
            on_disk[1],
            tried,
        ]
        left_bytes = int(partition["size_bytes"]) - on_disk[0]
        # A filesystem is made of blocks and groups of them, so some bytes may be left over.
        if left_bytes < LEAST_GAIN_BYTES:
            return Reason.FILLS_ITS_DEVICE, proofs, []
        return unfilled, proofs, [f"Nothing says why it left {left_bytes} bytes of its device."]
    before, after = (_root_bytes(view, stage) for stage in ("before", "after"))
    if forked or before is None or after is None or after[0] > before[0]:
        return unfilled, [tried], ["Its superblock was not read, so it may not fill its device."]
    lacking = (
        "Its superblock was not read. That it fills its device follows from the resize command, "
        "which did not fail and took nothing."
    )
    return Reason.FILLS_ITS_DEVICE, [before[1], after[1], tried], [lacking]


def _root_bytes(view: View, stage: Stage) -> tuple[int, Evidence] | None:
    """Return how large the guest said that the filesystem's own device was."""
    block = view.parsed.block(stage)
    device = next((one for one in block.devices if one.name == view.root), None) if block else None
    return (device.size_bytes, device_evidence(device)) if device else None


def _statement(
    view: View,
    sizes: _Sizes | None,
    finding: Finding,
    proofs: list[Evidence | None] | None = None,
) -> Statement:
    measured = sizes.evidence if sizes else ()
    grown, by, reason = finding
    return Statement(
        subject=Subject.FILESYSTEM,
        device=view.root,
        grown=grown,
        by=by,
        reason=reason,
        from_bytes=sizes.old_bytes if sizes else None,
        to_bytes=sizes.new_bytes if sizes else None,
        measure=sizes.measure if sizes else None,
        evidence=(*measured, *(one for one in proofs or () if one is not None)),
    )
