"""One of cloudlab's own boots: measured exactly, so sizes say whether it grew, and when.

Who grew it, or what kept it from growing, follows from the same lines and by the same rules as on
any machine.  Sizes are compared with their like only: a superblock counts the whole filesystem,
statfs (and so df) leaves out what the filesystem needs for itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from cloudlab.console import LONGEST_LINE_BYTES, printable
from cloudlab.explanation.events import Event, Kind, read_events
from cloudlab.explanation.evidence import Document, Line
from cloudlab.explanation.facts import Device, Facts, Mount
from cloudlab.explanation.filesystem import said_causes as filesystem_causes
from cloudlab.explanation.machine import LEAST_GAIN_BYTES, Machine
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
from cloudlab.explanation.partition import concerns_root, root_entries
from cloudlab.explanation.partition import said_causes as partition_causes
from cloudlab.explanation.verdicts import Proof, Verdict, not_grown
from cloudlab.sizes import GuestBlock, GuestDevice, GuestFilesystem, ParsedConsole

# What the second GPT takes at the disk's end: 32 sectors of entries and its header.
_GPT_TAIL_BYTES = 33 * 512
# Lines of the console that say who grew what, or that cloud-init was not there.  cloud-init puts
# its warnings there, and all it has to say where its log cannot be written.
_TELLING = re.compile(
    rb"GROWROOT: |resizing filesystem|resize device |login: ?$|Starting .*cloud-init"
    rb"|Cloud-init v\. |Reached target .*[Bb]asic"
    rb"|cc_growpart\.py\[|cc_resizefs\.py\[|Running module (?:growpart|resizefs) .* failed"
    rb"|Failed to resize filesystem|OSError: \[Errno 28\] No space left on device"
)
# What fills a partition and is no filesystem.
_CONTAINERS = ("_member", "_LUKS")
_NOT_TOLD = "Its size is known at one moment at most, so growth cannot be told."
_BUILT_UNKNOWN = "How large it was before the boot was not recorded, so growth before bootcmd ran could go unseen."


class _Size(NamedTuple):
    """A size at one moment, and who says so; ``block`` is None where the host read the disk."""

    size_bytes: int
    at: Line
    block: GuestBlock | None = None


class _Sizes(NamedTuple):
    """Sizes at two moments, by one measure: of a filesystem statfs or superblock."""

    old: _Size
    new: _Size
    measure: Measure | None = None

    @property
    def grown(self) -> bool:
        return self.new.size_bytes > self.old.size_bytes


@dataclass(frozen=True)
class Boot:
    """The evidence of one boot; the attributes are the parameters of ``explain``."""

    parsed: ParsedConsole
    console: Iterable[bytes]
    disk_before: Mapping[str, Any]
    disk_after: Mapping[str, Any]
    image_bytes: int | None
    stages: Sequence[Mapping[str, Any]]
    times: Mapping[int, float]
    user_data_faults: Sequence[tuple[int, str]]

    @cached_property
    def machine(self) -> Machine:
        """What the lines say, the console's before those of the guest's logs, and the devices."""
        lines = [
            _line(Source.CONSOLE, printable(raw[:LONGEST_LINE_BYTES])[:300], number)
            for number, raw in enumerate(self.console, start=1)
            if _TELLING.search(raw.rstrip()) and b"@cloudlab " not in raw
        ]
        lines += [Line("", one.line, one.text) for one in (self.after.logs if self.after else ())]
        lines = [line._replace(order=order) for order, line in enumerate(lines)]
        facts = Facts()
        for block in self.parsed.blocks:
            for one in block.devices:
                here = [each for each in block.filesystems if each.device == one.name]
                mounts, fstype = [each.mountpoint for each in here], [each.fstype for each in here]
                about = one.name, one.size_bytes, one.type, one.parent, tuple(mounts)
                facts.devices.append(Device(*about, "".join(fstype[:1]), _device_line(one)))
            for each in block.filesystems:
                sizes = each.size_bytes, each.available_bytes
                place = each.device, each.mountpoint, _filesystem_line(each)
                facts.mounts.append(Mount(*place, *sizes, each.fstype))
        events = read_events([Document("", lines)])
        stages = [str(one["stage"]) for one in self.stages]
        # cloud-init starts the report.
        if self.parsed.blocks or any(one.startswith("cloud-init") for one in stages):
            events.append(Event(Kind.RAN, Line("", 0, ""), {}))
        return Machine(facts, events)

    @property
    def before(self) -> GuestBlock | None:
        """The report from bootcmd."""
        return self.parsed.block("before")

    @property
    def after(self) -> GuestBlock | None:
        """The report from cloud-init's end."""
        return self.parsed.block("after")

    @property
    def table(self) -> str | None:
        """The kind of the disk's partition table, ``gpt`` or ``dos``; None where unknown."""
        return self.disk_after.get("table") or self.disk_before.get("table")

    def fact(self, name: str) -> Line | None:
        """Return a fact of the last report that has it, as ``name: value``."""
        for block in (self.after, self.before):
            for one in block.facts if block else ():
                if one.name == name:
                    return _line(Source.REPORT, f"{name}: {one.value}", one.line)
        return None

    def said(self, name: str) -> str:
        """Return a fact's value; empty where no report has it."""
        found = self.fact(name)
        return found.text.removeprefix(f"{name}: ") if found else ""

    def partition(self, block: GuestBlock | None) -> _Size | None:
        """Return the root partition as a report measured it."""
        found = _device(block, self.machine.partition)
        return _Size(found.size_bytes, _device_line(found), block) if found else None

    def filesystem(self, block: GuestBlock | None) -> _Size | None:
        """Return the root filesystem as a report measured it."""
        for one in block.filesystems if block else ():
            if one.mountpoint == "/":
                return _Size(one.size_bytes, _filesystem_line(one), block)
        return None

    def on_disk(self, moment: str) -> tuple[Mapping[str, Any], _Size] | None:
        """Return what the host read of root's partition ``before`` or ``after`` the boot.

        It is the largest one if no report names it.
        """
        disk = self.disk_before if moment == "before" else self.disk_after
        parts, machine = list(disk.get("partitions", ())), self.machine
        holder = machine.partition or next((d.name for d in machine.stack if d.type == "disk"), "")
        if holder:
            number = re.search(r"\d+$", machine.partition)
            wanted = int(number[0]) if number else None
            found = next((one for one in parts if one["number"] == wanted), None)
        else:
            found = max(parts, key=lambda one: one["size_bytes"], default=None)
        if found is None:
            return None
        text = f"{moment} the boot: {_place(found)}, {found['size_bytes']} bytes"
        return found, _Size(int(found["size_bytes"]), _line(Source.DISK, text))

    def superblock(self, moment: str) -> _Size | None:
        """Return the root filesystem as its superblock counted it ``before`` or ``after``."""
        read = self.on_disk(moment)
        filesystem = read and read[0]["filesystem"]
        if read is None or not filesystem or filesystem["size_bytes"] is None:
            return None
        in_volume = self.machine.stack and self.machine.stack[0].type not in {"part", "disk"}
        if filesystem["type"].endswith(_CONTAINERS) or in_volume:
            return None  # inspect does not look into volumes
        size_bytes = int(filesystem["size_bytes"])
        text = f"superblock of {filesystem['type']} on {_place(read[0])}, {size_bytes} bytes"
        return _Size(size_bytes, _line(Source.DISK, f"{moment} the boot: {text}"))

    def resizings(self) -> Iterator[Event]:
        """Yield when the kernel grew the root filesystem, by its own words.

        The console's line is preferred to the same one in the guest's log: it came at its time.
        """
        machine, seen = self.machine, set()
        others = ("part", "disk", "rom", "md", "raid", "linear")
        names = {machine.root, self.said("root_kernel_name")} - {""}
        mapped = {one.name for one in machine.facts.devices if not one.type.startswith(others)}
        if len(names) == 1 and mapped == {machine.root}:
            names.add("dm-0")  # the only mapping is the first
        for event in machine.all(Kind.KERNEL):
            # systemd-growfs asks for a size even where it is the old one, and the kernel says so.
            grew = int(event.get("new", "to")) > int(event.get("old", "from"))
            said = event.uptime_s, *event.values.values()
            if grew and event.get("device", "btrfs") in names and said not in seen:
                seen.add(said)
                yield event

    def when_said(self, event: Event) -> When:
        """Return when something happened that a line told at its time."""
        host_s = self.times.get(event.at.number) if event.at.source is Source.CONSOLE else None
        return When(self._stage_at(host_s), event.uptime_s, host_s=host_s)

    def when_larger(self, sizes: Iterable[_Size | None], old: _Size) -> When | None:
        """Return when a report first showed a larger size than ``old``."""
        timed = [one for one in sizes if one and one.block and one.block.uptime_s is not None]
        last = old.block
        for one in sorted(timed, key=lambda one: one.block.uptime_s):  # type: ignore[union-attr,arg-type,return-value]
            if one.size_bytes > old.size_bytes and one.block is not None:
                return self._when_seen(one.block, last)
            last = one.block
        return None

    def _when_seen(self, block: GuestBlock, last: GuestBlock | None) -> When:
        """Return when something happened that ``block`` was the first to show, ``last`` not yet."""
        not_before_s = last.uptime_s if last else None
        # The sampler says until when it saw what its last block showed.  Where a block was
        # lost, that may not be what the last one here shows.
        if block.unchanged_until_s is not None and not self.parsed.damaged:
            known = [one for one in (not_before_s, block.unchanged_until_s) if one is not None]
            not_before_s = min(max(known), block.uptime_s or max(known))
        host_s = self.times.get(block.line)
        stage = self._stage_at(host_s)
        if (not_before_s or 0.0) > (block.uptime_s or math.inf):
            # The reports contradict each other, so neither tells the time.
            return When(stage, None, None, host_s)
        if last is None or self._stage_at(self.times.get(last.line)) != stage:
            stage = None  # it may have happened in either
        return When(stage, block.uptime_s, not_before_s, host_s)

    def _stage_at(self, host_s: float | None) -> str | None:
        for one in self.stages if host_s is not None else ():
            if float(one["start_s"]) <= host_s < float(one["end_s"]):  # type: ignore[operator]
                return str(one["stage"])
        return None


def _device(block: GuestBlock | None, name: str) -> GuestDevice | None:
    return next((one for one in (block.devices if block else ()) if one.name == name), None)


def _behind(block: GuestBlock | None, name: str) -> GuestDevice | None:
    """Return the next partition behind one, on the same disk."""
    part = _device(block, name)
    if block is None or part is None:
        return None
    end_bytes = part.start_bytes + part.size_bytes
    followers = (
        one
        for one in block.devices
        if (one.type, one.parent) == ("part", part.parent) and one.start_bytes >= end_bytes
    )
    return min(followers, key=lambda one: one.start_bytes, default=None)


def _line(source: Source, text: str, number: int = 0) -> Line:
    return Line("", number, text, 0, source)


def _device_line(one: GuestDevice) -> Line:
    text = f"{one.name} size_bytes {one.size_bytes} start_bytes {one.start_bytes}"
    return _line(Source.REPORT, text, one.line)


def _filesystem_line(one: GuestFilesystem) -> Line:
    text = f"{one.device} {one.fstype} size_bytes {one.size_bytes}"
    return _line(Source.REPORT, text, one.line)


def _place(partition: Mapping[str, Any]) -> str:
    number = partition["number"]
    return "the whole disk" if number is None else f"partition {number}"


# ---- the partition ----


def partition_verdicts(boot: Boot) -> list[Verdict]:
    """Return one verdict for each time the root partition grew, or the one why it did not."""
    machine = boot.machine
    if machine.stack and machine.stack[0].type == "disk":
        shown = machine.first_listed(machine.stack[0])
        skipped = root_entries(machine, "SKIPPED")[-1:]
        return [not_grown(Reason.NO_PARTITION, shown, *skipped)]
    built, left = boot.on_disk("before"), boot.on_disk("after")
    measured = [built and built[1], boot.partition(boot.before), boot.partition(boot.after)]
    if boot.after is None:
        measured.append(left and left[1])
    sizes = [one for one in measured if one is not None]
    if len(sizes) < 2:  # noqa: PLR2004
        return [_unknown(sizes)]
    grown = [
        _partition_growth(boot, old, new)
        for old, new in pairwise(sizes)
        if new.size_bytes > old.size_bytes
    ]
    return grown or [_partition_kept(boot, sizes)]


def _unknown(sizes: Sequence[_Size] = ()) -> Verdict:
    shown = [one.at for one in sizes]
    return Verdict(None, Grower.UNKNOWN, Reason.UNKNOWN, shown, [_NOT_TOLD])


def _partition_growth(boot: Boot, old: _Size, new: _Size) -> Verdict:
    """Say who grew it from one size to the next, by what happened in between only."""
    machine, early = boot.machine, new.block is not None and new.block.stage == "before"
    changed = [one for one in machine.all(Kind.CHANGED) if concerns_root(machine, one)]
    programs = machine.all(Kind.PROGRAM) if old.block is None else ()
    growroot = [one for one in programs if "GROWROOT: CHANGED" in one.at.text][:1]
    wall = None if early else _behind(boot.after, machine.partition)
    verdict = Verdict(True, Grower.UNKNOWN, Reason.WALL if wall else None)
    verdict.when = boot.when_larger(map(boot.partition, boot.parsed.blocks), old)
    if changed and not early:
        verdict.by = Grower.GROWPART
        verdict.evidence.append(changed[-1].at)
    elif growroot:
        verdict.by, verdict.when = Grower.GROWROOT, boot.when_said(growroot[0])
        verdict.evidence.append(growroot[0].at)
    else:
        moment = "before bootcmd ran" if early else "after bootcmd ran"
        moment = moment if boot.before else "during the boot"
        verdict.missing.append(
            f"It grew {moment}, but no line of the console or of cloud-init.log says by whom."
        )
    verdict.evidence += [_device_line(wall)] if wall else []
    return _measured(verdict, _Sizes(old, new))


def _partition_kept(boot: Boot, sizes: Sequence[_Size]) -> Verdict:
    """Say why it did not grow: what the lines say comes before what the layout shows."""
    verdict = next(partition_causes(boot.machine), None) or _partition_layout(boot)
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
    part, behind = _device(block, machine.partition), _behind(block, machine.partition)
    disk = _device(block, part.parent) if part else None
    # The table of a disk that was not looked at is taken for what cloud images have.
    reserve_bytes = 0 if boot.table == "dos" else _GPT_TAIL_BYTES
    if part is not None and disk is not None:
        end_bytes = part.start_bytes + part.size_bytes
        limit_bytes = behind.start_bytes if behind else disk.size_bytes - reserve_bytes
        room_bytes = max(0, limit_bytes - end_bytes)
    if part is None or disk is None or room_bytes >= LEAST_GAIN_BYTES:
        return not_grown(Reason.UNKNOWN, *unchanged)
    if behind is not None:
        return not_grown(Reason.WALL, *unchanged, _device_line(behind))
    kept = f", less {reserve_bytes} for the copy of the GPT" if reserve_bytes else ""
    reckoned = (
        f"behind {part.name}: {disk.size_bytes - end_bytes} bytes{kept}: {room_bytes} to gain"
    )
    shown: list[Proof] = [*unchanged, _device_line(disk), _line(Source.REPORT, reckoned)]
    if boot.image_bytes is not None and disk.size_bytes <= boot.image_bytes:
        made = f"what the disk was made from: {boot.image_bytes} bytes of virtual size"
        return not_grown(Reason.DISK_NOT_LARGER, *shown, _line(Source.RUN, made))
    return not_grown(Reason.GAIN_BELOW_1_MIB, *shown)


# ---- the filesystem ----


def filesystem_verdicts(boot: Boot, partition: Verdict) -> list[Verdict]:
    """Return one verdict for each time the root filesystem grew, or the one why it did not."""
    guest = _pair(boot.filesystem(boot.before), boot.filesystem(boot.after), Measure.STATFS)
    disk = _pair(boot.superblock("before"), boot.superblock("after"), Measure.SUPERBLOCK)
    grown = [*_early(boot, disk), *_late(boot, guest)]
    if grown:
        return grown
    if disk is not None and disk.grown:
        return [_unreported(boot, disk, reported=guest is not None)]
    sizes = guest or disk
    return [_filesystem_kept(boot, sizes, partition) if sizes else _unknown()]


def _pair(old: _Size | None, new: _Size | None, measure: Measure) -> _Sizes | None:
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
    growfs = _growfs_around(boot, kernel)
    by = Grower.GROWFS if growfs else Grower.UNKNOWN
    yield _filesystem_growth(boot, disk, by, growfs, kernel)


def _late(boot: Boot, guest: _Sizes | None) -> Iterator[Verdict]:
    """Yield the growth between bootcmd and the last report."""
    if guest is None or not guest.grown:
        return
    limit_s = (boot.before.uptime_s if boot.before else None) or 0.0
    kernel = next((one for one in boot.resizings() if (one.uptime_s or 0.0) >= limit_s), None)
    resized = boot.machine.last(Kind.RESIZED) or boot.machine.last(Kind.FORKED)
    growfs = _growfs_around(boot, kernel)
    by = Grower.GROWFS if growfs else Grower.RESIZEFS if resized else Grower.UNKNOWN
    yield _filesystem_growth(boot, guest, by, growfs or [resized], kernel)


def _unreported(boot: Boot, disk: _Sizes, *, reported: bool) -> Verdict:
    """State growth that shows on the disk and in no two reports: it may have come after them."""
    forked, after = boot.machine.last(Kind.FORKED), boot.after
    if forked is None or after is None or not reported:
        return _filesystem_growth(boot, disk, Grower.UNKNOWN, [], None)
    # What resizefs left running went on after the last report.
    limit_s = after.uptime_s
    said = (one for one in boot.resizings() if (one.uptime_s or 0.0) >= (limit_s or 0.0))
    verdict = _filesystem_growth(boot, disk, Grower.RESIZEFS, [forked], next(said, None))
    verdict.when = verdict.when or When(not_before_s=limit_s)
    return verdict


def _growfs_around(boot: Boot, kernel: Event | None) -> list[Event]:
    """Return the events between which systemd-growfs ran, if the kernel resized while it did."""
    start, end = boot.machine.last(Kind.GROWFS_STARTS), boot.machine.last(Kind.GROWFS_ENDS)
    if start and end and kernel:
        known = [one.uptime_s for one in (start, kernel, end) if one.uptime_s is not None]
        if len(known) == 3 and known == sorted(known):  # noqa: PLR2004
            return [start, end]
    return []


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
            unfilled, proofs, f"Nothing says why it left {left_bytes} bytes of its device."
        )
    before, after = (_device(block, boot.machine.root) for block in (boot.before, boot.after))
    if forked or before is None or after is None or after.size_bytes > before.size_bytes:
        lacking = "Its superblock was not read, so it may not fill its device."
        return _kept(unfilled, [tried.at], lacking)
    return _kept(
        Reason.FILLS_ITS_DEVICE,
        [_device_line(before), _device_line(after), tried.at],
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
        _line(Source.USER_DATA, f"its line {line}: {words}")
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
    if growfs and not any(one.by is Grower.GROWFS for one in statements):
        start, end = machine.last(Kind.GROWFS_STARTS), machine.last(Kind.GROWFS_ENDS)
        proofs = [boot.fact("systemd_growfs"), start, end]
        yield NoteKind.GROWFS_IDLE, proofs, _why_idle(end, statements)
    if boot.said("cloud_init_errors"):
        yield NoteKind.CLOUD_INIT_ERRORS, [boot.fact("cloud_init_errors")], ""
    if damaged := boot.parsed.damaged:
        lost = f"{damaged} frames of the report could not be read"
        yield NoteKind.DAMAGED, [_line(Source.RUN, lost)], ""


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
