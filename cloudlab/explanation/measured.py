"""One of cloudlab's own boots: measured exactly, so sizes say whether it grew, and when.

Who grew it, or what kept it from growing, follows from the same lines and by the same rules as on
any machine.  Sizes are compared with their like only: a superblock counts the whole filesystem,
statfs (and so df) leaves out what the filesystem needs for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

from cloudlab.disk.growth import LEAST_GAIN_BYTES
from cloudlab.explanation.boot import Boot, Size, device_line, device_of, line_of
from cloudlab.explanation.events import Event, Kind
from cloudlab.explanation.evidence import Line
from cloudlab.explanation.filesystem import said_causes as filesystem_causes
from cloudlab.explanation.machine import MBR_LIMIT_BYTES
from cloudlab.explanation.model import (
    Grower,
    Measure,
    NoteKind,
    Reason,
    Source,
    Statement,
    Subject,
    When,
)
from cloudlab.explanation.partition import concerns_root, repart_event, root_entries
from cloudlab.explanation.partition import said_causes as partition_causes
from cloudlab.explanation.verdicts import Proof, Verdict, lines_of, not_grown
from cloudlab.sizes import GuestBlock, GuestDevice

# What the second GPT takes at the disk's end: 32 sectors of entries and its header.
_GPT_TAIL_BYTES = 33 * 512
_NOT_TOLD = "Its size is known at one moment at most, so growth cannot be told."
_STILL_GROWING = "systemd-growfs had not ended when it was measured, so it may have grown further."
_BUILT_UNKNOWN = "How large it was before the boot was not recorded, so growth before bootcmd ran could go unseen."


class _Sizes(NamedTuple):
    """Sizes at two moments, by one measure: of a filesystem statfs or superblock."""

    old: Size
    new: Size
    measure: Measure | None = None

    @property
    def grown(self) -> bool:
        return self.new.size_bytes > self.old.size_bytes


# ---- the partition ----


def _behind(block: GuestBlock | None, name: str) -> GuestDevice | None:
    """Return the next partition behind one, on the same disk."""
    part = device_of(block, name)
    if block is None or part is None:
        return None
    end_bytes = part.start_bytes + part.size_bytes
    followers = (
        one
        for one in block.devices
        if (one.type, one.parent) == ("part", part.parent) and one.start_bytes >= end_bytes
    )
    return min(followers, key=lambda one: one.start_bytes, default=None)


def partition_verdicts(boot: Boot) -> list[Verdict]:
    """Return one verdict for each time the root partition grew, or the one why it did not."""
    machine = boot.machine
    if machine.stack and machine.stack[0].type == "disk":
        shown = machine.first_listed(machine.stack[0])
        skipped = root_entries(machine, "SKIPPED")[-1:]
        return [not_grown(Reason.NO_PARTITION, shown, *skipped)]
    built, left = boot.on_disk("before"), boot.on_disk("after")
    hand = boot.by_hand(Kind.PROGRAM)
    sizes = [built[1]] if built else []
    sizes += boot.moments(boot.partition, hand)
    if boot.after is None and left:
        sizes.append(left[1])
    if len(sizes) < 2:  # noqa: PLR2004
        return [_unknown(sizes)]
    grown = [
        _partition_growth(boot, old, new, hand)
        for old, new in pairwise(sizes)
        if new.size_bytes > old.size_bytes
    ]
    return grown or [_partition_kept(boot, sizes)]


def _unknown(sizes: Sequence[Size] = ()) -> Verdict:
    shown = [one.at for one in sizes]
    return Verdict(None, Grower.UNKNOWN, Reason.UNKNOWN, shown, [_NOT_TOLD])


def _partition_growth(boot: Boot, old: Size, new: Size, hand: Event | None) -> Verdict:
    """Say who grew it from one size to the next, by what happened in between only."""
    machine, early = boot.machine, new.block is not None and new.block.stage == "before"
    changed = [one for one in machine.all(Kind.CHANGED) if concerns_root(machine, one)]
    programs = machine.all(Kind.PROGRAM) if old.block is None else ()
    growroot = [one for one in programs if "GROWROOT: CHANGED" in one.at.text]
    repart = repart_event(machine) if old.block is None else None
    by_hand = hand and old.block and old.at.number < hand.at.number < new.at.number
    said = {
        Grower.OTHER: hand if by_hand else None,
        Grower.GROWPART: changed[-1] if changed and not early else None,
        Grower.GROWROOT: growroot[0] if growroot else None,
        Grower.REPART: repart,
    }
    by, event = next((one for one in said.items() if one[1]), (Grower.UNKNOWN, None))
    reason, limit = (None, None) if early else _limit(boot)
    verdict = Verdict(True, by, reason, lines_of([event, device_line(limit) if limit else None]))
    if event and by in {Grower.GROWROOT, Grower.REPART}:
        verdict.when = boot.when_said(event)
    else:
        verdict.when = boot.when_larger(map(boot.partition, boot.parsed.blocks), old)
    if event is None:
        moment = "before bootcmd ran" if early else "after bootcmd ran"
        moment = moment if boot.before else "during the boot"
        verdict.missing.append(
            f"It grew {moment}, but no line of the console, of systemd's journal or of "
            "cloud-init.log says by whom."
        )
    return _measured(verdict, _Sizes(old, new))


def _limit(boot: Boot) -> tuple[Reason | None, GuestDevice | None]:
    """Return why it grew no further, and the device that shows it."""
    part = device_of(boot.after, boot.machine.partition)
    disk = device_of(boot.after, part.parent) if part else None
    if behind := _behind(boot.after, boot.machine.partition):
        return Reason.WALL, behind
    if boot.table == "dos" and disk and disk.size_bytes - MBR_LIMIT_BYTES >= LEAST_GAIN_BYTES:
        return Reason.MBR_2_TIB, disk
    return None, None


def _partition_kept(boot: Boot, sizes: Sequence[Size]) -> Verdict:
    """Say why it did not grow: what the lines say comes before what the layout shows."""
    verdict = next(partition_causes(boot.machine), None) or _partition_layout(boot)
    if verdict.reason is Reason.GROWPART_FAILED and _limit(boot)[0] is Reason.MBR_2_TIB:
        # growpart before 0.34 asks for one sector more than an MBR can count, and sfdisk refuses.
        verdict = replace(verdict, reason=Reason.MBR_2_TIB)
    tool = boot.fact("growpart_tool") if verdict.reason is Reason.NO_GROWPART_TOOL else None
    missing = [] if boot.disk_before else [_BUILT_UNKNOWN]
    if verdict.reason is Reason.UNKNOWN:
        missing.append("No line of cloud-init.log says why growpart did nothing.")
    if verdict.reason in {Reason.DISK_NOT_LARGER, Reason.GAIN_BELOW_1_MIB} and boot.table is None:
        missing.append("Whether the disk has a GPT was not recorded; room for its copy is kept.")
    verdict = replace(verdict, reason=verdict.reason or Reason.UNKNOWN, missing=missing)
    verdict.evidence += [tool] if tool else []
    verdict = _measured(verdict, _Sizes(sizes[0], sizes[-1]))
    verdict.from_bytes = verdict.to_bytes
    return verdict


def _partition_layout(boot: Boot) -> Verdict:
    """Return what the disk's layout shows: cloud-init does not log why growpart did nothing."""
    machine, block = boot.machine, boot.after or boot.before
    root = machine.stack[0] if machine.stack else None
    if root is not None and root.name != machine.partition:
        failed = root_entries(machine, "FAILED")[-1:]
        reason = Reason.GROWPART_FAILED if failed else Reason.UNKNOWN
        reason = Reason.LOGICAL_VOLUME if root.type == "lvm" else reason
        return not_grown(reason, *failed, machine.first_listed(root))
    unchanged = root_entries(machine, "NOCHANGE")[-1:]
    part, behind = device_of(block, machine.partition), _behind(block, machine.partition)
    disk = device_of(block, part.parent) if part else None
    # The table of a disk that was not looked at is taken for what cloud images have.
    reserve_bytes = 0 if boot.table == "dos" else _GPT_TAIL_BYTES
    if part is not None and disk is not None:
        end_bytes = part.start_bytes + part.size_bytes
        limit_bytes = behind.start_bytes if behind else disk.size_bytes - reserve_bytes
        room_bytes = max(0, limit_bytes - end_bytes)
    if part is None or disk is None or room_bytes >= LEAST_GAIN_BYTES:
        return not_grown(Reason.UNKNOWN, *unchanged)
    if behind is not None:
        return not_grown(Reason.WALL, *unchanged, device_line(behind))
    kept = f", less {reserve_bytes:,} for the copy of the GPT" if reserve_bytes else ""
    reckoned = (
        f"behind {part.name}: {disk.size_bytes - end_bytes:,} bytes{kept}: {room_bytes:,} to gain"
    )
    shown: list[Proof] = [*unchanged, device_line(disk), line_of(Source.REPORT, reckoned)]
    if boot.image_bytes is not None and disk.size_bytes <= boot.image_bytes:
        made = f"what the disk was made from: {boot.image_bytes:,} bytes of virtual size"
        return not_grown(Reason.DISK_NOT_LARGER, *shown, line_of(Source.RUN, made))
    return not_grown(Reason.GAIN_BELOW_1_MIB, *shown)


# ---- the filesystem ----


def filesystem_verdicts(boot: Boot, partition: Verdict) -> list[Verdict]:
    """Return one verdict for each time the root filesystem grew, or the one why it did not."""
    guest = _pair(boot.filesystem(boot.before), boot.filesystem(boot.after), Measure.STATFS)
    disk = _pair(boot.superblock("before"), boot.superblock("after"), Measure.SUPERBLOCK)
    grown = [*_early(boot, disk), *_late(boot)]
    if grown:
        return grown
    if disk is not None and disk.grown:
        return [_unreported(boot, disk, reported=guest is not None)]
    sizes = guest or disk
    return [_filesystem_kept(boot, sizes, partition) if sizes else _unknown()]


def _pair(old: Size | None, new: Size | None, measure: Measure) -> _Sizes | None:
    return _Sizes(old, new, measure) if old and new else None


def _early(boot: Boot, disk: _Sizes | None) -> Iterator[Verdict]:
    """Yield the growth that bootcmd found done already."""
    before, after = boot.filesystem(boot.before), boot.filesystem(boot.after)
    limit_s = boot.before.uptime_s if boot.before else None
    if before is None or limit_s is None:
        return
    said = (one for one in boot.resizings() if (one.uptime_s or limit_s) < limit_s)
    kernel, built = next(said, None), boot.superblock("before")
    if kernel is None and not (built and before.size_bytes > built.size_bytes):
        return
    if after and after.size_bytes > before.size_bytes:
        disk = None  # the superblock after the boot shows both growths together
    growfs = _growfs_around(boot, kernel) if kernel else _growfs_before_bootcmd(boot)
    by = Grower.GROWFS if growfs else Grower.UNKNOWN
    yield _filesystem_growth(boot, disk, by, growfs, kernel)


def _late(boot: Boot) -> Iterator[Verdict]:
    """Yield the growth between bootcmd and the last report."""
    hand = boot.by_hand(Kind.TOOL, Kind.TOOL_BEGINS, Kind.LAYER)
    resized = boot.machine.last(Kind.RESIZED) or boot.machine.last(Kind.FORKED)
    for old, new in pairwise(boot.moments(boot.filesystem, hand)):
        sizes = _Sizes(old, new, Measure.STATFS)
        if old.block is None or not sizes.grown:
            continue
        limit_s = old.block.uptime_s or 0.0
        kernel = next((one for one in boot.resizings() if (one.uptime_s or 0.0) >= limit_s), None)
        growfs = _growfs_around(boot, kernel)
        by = Grower.GROWFS if growfs else Grower.RESIZEFS if resized else Grower.UNKNOWN
        proofs: list[Event | None] = [*growfs] or [resized]
        if hand is not None and old.at.number < hand.at.number < new.at.number:
            by, proofs = Grower.OTHER, [hand]
        yield _filesystem_growth(boot, sizes, by, proofs, kernel)


def _unreported(boot: Boot, disk: _Sizes, *, reported: bool) -> Verdict:
    """State growth that shows on the disk and in no two reports: it may have come after them."""
    forked, after = boot.machine.last(Kind.FORKED), boot.after
    # statfs leaves out XFS's log, so a small growth of it shows in superblocks only.
    if forked is None and (growfs := _growfs_before_bootcmd(boot)):
        return _filesystem_growth(boot, disk, Grower.GROWFS, growfs, None)
    if forked is None or after is None or not reported:
        return _filesystem_growth(boot, disk, Grower.UNKNOWN, [], None)
    # What resizefs left running went on after the last report.
    limit_s = after.uptime_s
    said = (one for one in boot.resizings() if (one.uptime_s or 0.0) >= (limit_s or 0.0))
    verdict = _filesystem_growth(boot, disk, Grower.RESIZEFS, [forked], next(said, None))
    verdict.when = verdict.when or When(not_before_s=limit_s)
    return verdict


def _growfs_around(boot: Boot, kernel: Event | None) -> list[Event]:
    """Return the events between which systemd-growfs ran, if the kernel resized while it did.

    The second one is missing while it still runs; the kernel may have said before bootcmd that it
    began.
    """
    start, end = boot.machine.last(Kind.GROWFS_STARTS), boot.machine.last(Kind.GROWFS_ENDS)
    if start and end is None:
        begun = kernel or next(boot.resizings(), None)
        since_s = start.uptime_s or 0.0
        failed = boot.machine.all(Kind.RESIZE_FAILED)  # by systemd-growfs, or by cloud-init
        failed = [one for one in failed if re.search(r"growfs|Grow ", one.at.text)]
        ends = boot.machine.all(Kind.KERNEL_ENDS) + failed
        over = any((one.uptime_s or 0.0) >= since_s for one in ends)
        return [start] if begun and since_s <= (begun.uptime_s or 0.0) and not over else []
    if start and end and kernel:
        known = [one.uptime_s for one in (start, kernel, end) if one.uptime_s is not None]
        if len(known) == 3 and known == sorted(known):  # noqa: PLR2004
            return [start, end]
    return []


def _growfs_before_bootcmd(boot: Boot) -> list[Event]:
    """Return start and end of systemd-growfs before bootcmd: XFS grows without a kernel message."""
    start, end = boot.machine.last(Kind.GROWFS_STARTS), boot.machine.last(Kind.GROWFS_ENDS)
    limit_s = boot.before.uptime_s if boot.before else None
    ended_s = end.uptime_s if end else None
    return [start, end] if start and end and (ended_s or 0.0) < (limit_s or 0.0) else []


def _filesystem_growth(
    boot: Boot,
    sizes: _Sizes | None,
    by: Grower,
    proofs: Sequence[Event | None],
    kernel: Event | None,
) -> Verdict:
    verdict = Verdict(True, by, None, [one.at for one in (kernel, *proofs) if one is not None])
    if by is Grower.UNKNOWN:
        verdict.missing.append(
            "It grew, but no line of cloud-init.log or of systemd's journal says who did it."
        )
    elif by is Grower.GROWFS and boot.machine.last(Kind.GROWFS_ENDS) is None:
        verdict.missing.append(_STILL_GROWING)
    if kernel is not None:
        verdict.when = boot.when_said(kernel)
    elif sizes is not None and sizes.old.block is not None:
        verdict.when = boot.when_larger(map(boot.filesystem, boot.parsed.blocks), sizes.old)
    return _measured(verdict, sizes)


def _measured(verdict: Verdict, sizes: _Sizes | None) -> Verdict:
    if sizes is None:
        return verdict
    old, new, measure = sizes
    return replace(
        verdict,
        evidence=[old.at, new.at, *verdict.evidence],
        from_bytes=old.size_bytes,
        to_bytes=new.size_bytes,
        measure=measure,
    )


def _filesystem_kept(boot: Boot, sizes: _Sizes, partition: Verdict) -> Verdict:
    found = next(filesystem_causes(boot.machine, partition, kept=True), None)
    verdict = found or _no_gain(boot)
    missing = [] if boot.disk_before else [_BUILT_UNKNOWN]
    return _measured(replace(verdict, missing=[*missing, *verdict.missing]), sizes)


def _no_gain(boot: Boot) -> Verdict:
    """Return why it took nothing, though nothing kept resizefs from trying."""
    resized, forked = boot.machine.last(Kind.RESIZED), boot.machine.last(Kind.FORKED)
    tried = resized or forked
    if tried is None:
        return _kept(Reason.UNKNOWN, [], "No line of cloud-init.log says why resizefs did nothing.")
    unfilled = Reason.IN_BACKGROUND if forked else Reason.UNKNOWN
    superblock, partition = boot.superblock("after"), boot.on_disk("after")
    if superblock is not None and partition is not None:
        proofs = [partition[1].at, superblock.at, tried.at]
        left_bytes = partition[1].size_bytes - superblock.size_bytes
        # A filesystem is made of blocks and groups of them, so some bytes may be left over.
        if left_bytes < LEAST_GAIN_BYTES:
            return _kept(Reason.FILLS_ITS_DEVICE, proofs)
        return _kept(
            unfilled,
            proofs,
            f"Nothing says why it left {left_bytes:,} bytes of its device.",
        )
    before, after = (device_of(block, boot.machine.root) for block in (boot.before, boot.after))
    if forked or before is None or after is None or after.size_bytes > before.size_bytes:
        lacking = "Its superblock was not read, so it may not fill its device."
        return _kept(unfilled, [tried.at], lacking)
    return _kept(
        Reason.FILLS_ITS_DEVICE,
        [device_line(before), device_line(after), tried.at],
        "Its superblock was not read. That it fills its device follows from the resize command, "
        "which did not fail and took nothing.",
    )


def _kept(reason: Reason, evidence: list[Line], *missing: str) -> Verdict:
    return Verdict(False, Grower.NOBODY, reason, evidence, list(missing))


# ---- notes ----


def boot_notes(
    boot: Boot, statements: Sequence[Statement]
) -> Iterator[tuple[NoteKind, list[Any], str]]:
    """Yield what else decided the outcome, the weightiest first: kind, evidence, detail."""
    machine, valid = boot.machine, boot.fact("user_data_valid")
    faults = [
        line_of(Source.USER_DATA, f"its line {line}: {words}")
        for line, words in boot.user_data_faults
    ]
    if boot.said("user_data_valid") == "no":
        ignored = machine.all(Kind.IGNORED)
        # cloud-init says it more than once; one of the lines also says where the text is broken.
        broken = [one for one in ignored if "Failed loading yaml" in one.at.text]
        others = [one for one in ignored if one not in broken]
        yield NoteKind.USER_DATA_IGNORED, [valid, *broken[-1:], *others[-1:], *faults], ""
    elif boot.said("user_data_valid") == "warned":
        yield NoteKind.USER_DATA_DOUBTFUL, [valid, machine.last(Kind.DOUBTFUL), *faults], ""
    elif faults:
        yield NoteKind.USER_DATA_FAULTS, faults, ""
    if known := machine.last(Kind.ONCE_PER_INSTANCE):
        yield NoteKind.INSTANCE_KNOWN, [known, boot.fact("instance_id")], ""
    growfs = boot.said("systemd_growfs") == "yes"
    grown = [one.by for one in statements if one.grown and one.subject is Subject.FILESYSTEM]
    if growfs and not {Grower.GROWFS, Grower.UNKNOWN}.intersection(grown):
        start, end = machine.last(Kind.GROWFS_STARTS), machine.last(Kind.GROWFS_ENDS)
        proofs = [boot.fact("systemd_growfs"), start, end]
        yield NoteKind.GROWFS_IDLE, proofs, _why_idle(end, statements)
    if boot.said("cloud_init_errors"):
        yield NoteKind.CLOUD_INIT_ERRORS, [boot.fact("cloud_init_errors")], ""
    if damaged := boot.parsed.damaged:
        lost = f"{damaged} frames of the report could not be read"
        yield NoteKind.DAMAGED, [line_of(Source.RUN, lost)], ""


def _why_idle(end: Event | None, statements: Sequence[Statement]) -> str:
    """Return why systemd-growfs grew nothing, where its end and the partition's growth say it."""
    ended_s = end.uptime_s if end else None
    for one in statements:
        if one.subject is Subject.FILESYSTEM and one.reason is Reason.FILLS_ITS_DEVICE:
            return "There was no room for it to take."
        if one.subject is Subject.PARTITION and one.grown and one.when and ended_s is not None:
            since_s = one.when.not_before_s or one.when.guest_s
            if since_s is not None and ended_s < since_s:
                return (
                    f"It had finished at {ended_s:.1f} s of guest time, when the partition had "
                    f"not grown yet: that came after {since_s:.1f} s."
                )
    return ""
