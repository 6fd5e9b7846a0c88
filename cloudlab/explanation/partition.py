"""The rules for any machine's root partition: whether it grew, by what, or why not.

A rule answers only what its evidence decides.  Growth that a program reported comes first, then
what kept it from growing, as logs say it, then what the layout shows; otherwise the answer is
None, with the command that would settle it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from cloudlab.explanation.events import NEAR_LINES, SOON_LINES, Event, Kind, source_of
from cloudlab.explanation.facts import Device
from cloudlab.explanation.machine import OFF_WORDS, Machine
from cloudlab.explanation.model import Grower, Reason, Source
from cloudlab.explanation.names import FIRST_DISK, disk_of, number_of, short_name, size_in
from cloudlab.explanation.verdicts import (
    DMESG,
    FDISK,
    LOG,
    LSBLK,
    Verdict,
    grown_by,
    not_grown,
    undecided,
)
from cloudlab.units import SECTOR_BYTES

_BOOTED_S = 60  # a later change of the disk's size came after growpart


def partition_verdict(machine: Machine) -> Verdict:
    """Say whether the root partition grew, by what, or why not."""
    if grown := _growth(machine):
        return _since(machine, grown) or grown
    return next(_causes(machine), None) or next(_layouts(machine))


def _since(machine: Machine, grown: Verdict) -> Verdict | None:
    """Return what kept it from growing again, where the disk has room and a later log says why."""
    if not grown.grown or grown.by is Grower.UNKNOWN or not machine.room.some or not grown.evidence:
        return None
    last = grown.evidence[0]
    later = (one for one in machine.events if one.at.order > last.order)
    # Of the same run, "/" was skipped because its partition is another entry.
    events = [
        one
        for one in later
        if one.get("verb") != "SKIPPED" or not one.at.soon_after(last, SOON_LINES)
    ]
    found = next(_log_causes(Machine(machine.facts, events)), None)
    if found is not None and found.reason and found.grown is False:
        return found
    whole = grown.by in {Grower.GROWPART, Grower.GROWROOT} and not grown.reason
    if not whole or not machine.has_room_after(grown.to_bytes or 0):
        return None
    shown = [*grown.evidence, *machine.room.evidence]
    return replace(grown, reason=Reason.ENLARGED_SINCE, evidence=shown)


def concerns_root(machine: Machine, event: Event) -> bool:
    """Tell whether an event of growpart is about root's partition."""
    if (event.kind is Kind.PROGRAM and event.of_root_script) or event.get("entry") == "/":
        return True
    name = event.partition
    if name and machine.partition:
        named = short_name(event.get("device"))  # wrong arguments may name the partition
        whole = named == machine.disk and not event.get("number")
        same = (disk_of(name), number_of(name)) == (machine.disk, machine.number)  # of multipath
        return whole or same or bool({name, named} & {machine.partition, machine.root})
    if name:
        # Of an entry such as /var it is not known whether it is root's.
        direct = event.get("entry") in {"", f"/dev/{name}"}
        usual = machine.may_hold_root(name) or bool(FIRST_DISK.fullmatch(name))
        return direct and usual and not machine.root and not machine.zfs_dataset
    number = re.search(r"partition[= ](\d+)", event.at.text)
    if event.get("alone") and machine.facts.nameless:
        return True  # growpart's own words are all that there is
    return bool(number and machine.number and number[1] == machine.number)


def root_entries(machine: Machine, verb: str) -> list[Event]:
    """Return what cloud-init's growpart did with root's partition: SKIPPED, NOCHANGE, FAILED."""
    tried = (one for one in machine.all(Kind.TRIED) if one.get("verb") == verb)
    return [one for one in tried if concerns_root(machine, one)]


def _growth(machine: Machine) -> Verdict | None:
    """Return growth that a program reported and no later evidence takes back."""
    changed = [one for one in machine.changes if concerns_root(machine, one)]
    if changed:
        event = changed[-1]
        growroot = re.search(r"(?i)growroot", event.at.text)
        by = Grower.INITRAMFS if event.in_initramfs else Grower.GROWPART
        by = Grower.GROWROOT if growroot else by
        old, new = event.partition_sizes
        last = [one for one in machine.sizes_of(machine.partition) if not machine.outdated(one.at)]
        limit = Reason.MBR_2_TIB if machine.limited_by_mbr(event) else None
        reason = machine.despite("growpart", "mode") or limit
        verdict = grown_by(by, event, *last[-1:], reason=reason, sizes=(old, new))
        return _stale(machine, event, old, new) or verdict
    broke = machine.last(Kind.GROWPART_BROKE)
    for event in reversed(machine.all(Kind.GREW)):
        mine = event.partition in {machine.partition, machine.root}
        if mine and not (broke and broke.at.order > event.at.order):
            return grown_by(Grower.INITRAMFS if event.in_initramfs else Grower.OTHER, event)
    if repart := repart_event(machine):
        return grown_by(Grower.REPART, repart)
    early = _growth_in_initramfs(machine) or _growth_by_init(machine)
    return early or _growth_in_listings(machine)


def repart_event(machine: Machine) -> Event | None:
    """Return the event by which systemd-repart grew root's partition, if nothing failed later."""
    disk = machine.disk
    for event in reversed(machine.all(Kind.REPART)):
        row, at, disks = event.partition, event.at, machine.all(Kind.REPART_DISK)
        soon = [one for one in disks if one.at.soon_after(at, SOON_LINES)]
        # The table is printed before, even if nothing is applied then.
        disks = soon if row else [one for one in disks if one.at.order < at.order]
        named = short_name(disks[-1].get("device").strip(".")) if disks else "" if row else disk
        failures = [one for one in machine.all(Kind.TABLE_BUSY) if machine.about_root(one)]
        failures += machine.all(Kind.REPART_FAILED)
        failed = any(one.at.order > event.at.order for one in failures)
        mine = named == disk if disk else not named or FIRST_DISK.fullmatch(named)
        # systemd-repart counts from 0.
        number = "" if row else str(int(event.get("number")) + 1)
        roots = row == machine.partition and event.larger if row else machine.number in {"", number}
        if mine and roots and not failed:
            return event
    return None


def _growth_in_initramfs(machine: Machine) -> Verdict | None:
    """Return that the initramfs wrote root's table and then grew the filesystem, as KIWI's does.

    Either alone shows no growth: a table is also written to move its backup.
    """
    tools = [one for one in machine.all(Kind.TOOL, Kind.TOOL_BEGINS) if one.in_initramfs]
    for event in reversed(machine.all(Kind.TABLE_EDITED)):
        early = [one for one in tools if one.at.file == event.at.file]
        if not event.in_initramfs or not machine.about_root(event) or machine.room.some:
            continue
        for grew in machine.grew_on_partition:
            by_it = any(abs(one.at.number - grew.at.number) < SOON_LINES for one in early)
            if by_it and grew.at.soon_after(event.at, NEAR_LINES):
                return grown_by(Grower.INITRAMFS, event, grew)
    return None


def _growth_by_init(machine: Machine) -> Verdict | None:
    """Return that Raspberry Pi OS's script grew it, which the first boot ran instead of init.

    It is gone from the next boot's command line even if it failed, but changes the disk's
    identifier, by which root is named there, only once it has grown root.
    """
    for first, second in pairwise(machine.all(Kind.COMMAND_LINE)):
        ran = first.get("script") and not second.get("script")
        names = {first.get("root"), second.get("root")}
        if ran and len(names - {""}) > 1 and first.at.same_machine(second.at):
            whole = machine.room.some is False
            return grown_by(Grower.OTHER, first, second, *machine.room.evidence) if whole else None
    return None


def _stale(machine: Machine, event: Event, old: int | None, new: int | None) -> Verdict | None:
    """Return that the kernel kept the old table, where later evidence shows the old size."""
    since = machine.rescanned_after(event.at)
    later = [one for one in machine.sizes_of(machine.partition) if one.at.order > since]
    if source_of(event.at.text) is Source.OUTPUT:  # a log may have been shown on another host
        later = [one for one in later if not one.at.other_host(event.at)]
    if not old or not new or new < old * 1.02:
        return None
    for one in _attempts(machine):  # growpart itself finds the old size again
        same = re.match(r"partition \d+ is size (\d+)\.", one.get("why"))
        if (
            same
            and one.at.order > event.at.order
            and int(same[1]) * SECTOR_BYTES < (old + new) // 2
        ):
            return undecided(LSBLK, proofs=(event, one))
    seen = [one.size_bytes or 0 for one in later[-1:]]
    if machine.shown_after(event.at, (old + new) // 2):
        return None
    busy = machine.last(Kind.TABLE_BUSY) if later else _busy_after(machine, event)
    if not later:
        tools = machine.all(Kind.TOOL, Kind.TOOL_BEGINS, Kind.IDLE, Kind.KERNEL)
        mine = {"", "/", machine.root, machine.partition}
        tools = [one for one in tools if short_name(one.get("device", "target")) in mine]
        seen = [one.bytes_named for one in tools if one.at.order > event.at.order]
    if (not later and busy is None) or any(size > (old + new) // 2 for size in seen):
        return None
    named, disk_bytes = event.partition, machine.size_of(machine.disk) or new
    if named not in {"", machine.partition} or disk_bytes < new * 0.98:
        # It happened in another boot, or on another machine.
        return undecided(LSBLK, proofs=(event, *later[-1:]))
    return not_grown(Reason.TABLE_BUSY, event, *later[-1:], busy)


def _busy_after(machine: Machine, event: Event) -> Event | None:
    """Return what says, soon after growpart, that the kernel did not take root's table."""
    for one in machine.all(Kind.TABLE_BUSY):
        soon = one.at.soon_after(event.at, NEAR_LINES + 1)
        if soon and machine.about_root(one) and machine.rescanned_after(one.at) == one.at.order:
            return one
    return None


def _growth_in_listings(machine: Machine) -> Verdict | None:
    """Return that the kernel uses more of the disk than an earlier listing or table shows."""
    sizes, image = machine.sizes_of(machine.partition), machine.in_image
    for new in (*sizes[-1:], *_implied(machine)):
        earlier = [one for one in (*sizes[:1], *machine.tabled) if one.at.may_precede(new.at)]
        # The order of two files is not known; partitions do not shrink.
        earlier.sort(key=lambda one: (one.size_bytes or 0, one.at.order))
        for old in filter(None, (*earlier[:1], image)):
            old_bytes, new_bytes = old.size_bytes or 0, new.size_bytes or 0
            slack = old.tolerance_bytes + new.tolerance_bytes
            if new_bytes - old_bytes <= slack:
                continue
            edits = [one.at for one in machine.all(Kind.TABLE_EDITED) if machine.about_root(one)]
            between = [at for at in edits if old.at.order < at.order and at.may_precede(new.at)]
            by = Grower.OTHER if between else Grower.UNKNOWN
            larger = [one for one in sizes[-1:] if (one.size_bytes or 0) - old_bytes > slack]
            if old is image:  # which is listed on another host
                return grown_by(Grower.UNKNOWN, new, old, sizes=(old_bytes, new_bytes))
            return grown_by(by, old, *between[-1:], new, *larger, sizes=(old_bytes, new_bytes))
    return None


def _implied(machine: Machine) -> Iterator[Device]:
    """Yield how large root's partition is at least to the kernel, by other things than listings.

    A filesystem is no larger than its partition, and partx gives the kernel the table's size.
    """
    name, table, part = machine.partition, machine.table, machine.part
    shown = [(one.at, one.bytes_named) for one in machine.grew_on_partition if machine.root == name]
    if table and part:
        busy = [one.at for one in machine.all(Kind.TABLE_BUSY)]
        told = (one.at for one in machine.all(Kind.RESCANNED) if one.partition == name)
        told = (at for at in told if table.at.before(at) and not any(map(at.before, busy)))
        shown += [(at, part.size_bytes) for at in told]
    listed = machine.sizes_of(name)
    for at, size_bytes in shown:
        smaller = (one for one in listed if (one.size_bytes or 0) < size_bytes * 0.98)
        if all(one.at.may_precede(at) for one in smaller):
            yield Device(name, size_bytes, "part", machine.disk, (), "", at, size_bytes // 50)


def _causes(machine: Machine) -> Iterator[Verdict]:
    """Yield what logs say kept it from growing; if it fills its disk, they decide nothing.

    A disk that another partition filled was not filled by root's.  A filesystem that grew found
    its partition larger, so that may have grown, too.
    """
    found = [
        one for one in _log_causes(machine) if not any(map(machine.outdated, one.evidence[:1]))
    ]
    if not found:
        return
    may_have = machine.room.some is False and not _taken(machine)
    may_have |= bool(machine.grew_on_partition)
    sure = found[0].reason in {
        Reason.DISK_NOT_LARGER, Reason.NO_PARTITION, Reason.TABLE_BUSY, Reason.MBR_2_TIB,
    }  # fmt: skip
    sure |= found[0].reason is Reason.WALL and machine.followed
    # A later status says nothing of earlier boots; what was said during one does.
    during = (re.search(r"\[\d+\]: |^\[ *\d+\.\d+\]|login:", one.text) for one in found[0].evidence)
    later = found[0].reason is Reason.NO_CLOUD_INIT and not any(during)
    if may_have and not sure:
        yield undecided(DMESG, proofs=(*found[0].evidence, *machine.room.evidence))
    elif later and machine.room.some is None:
        yield undecided(LSBLK, proofs=found[0].evidence)
    yield from found


def _taken(machine: Machine) -> bool:
    """Tell whether growpart gave the disk's room to a partition that lies behind root's."""
    part, parts = machine.part, machine.table.parts if machine.table else []
    behind = {one.name for one in parts if part and one.start_bytes > part.start_bytes}
    return any(one.partition in behind for one in machine.changes)


def _log_causes(machine: Machine) -> Iterator[Verdict]:
    yield from said_causes(machine)
    yield from _busy(machine)
    if event := machine.last(Kind.NOT_A_PARTITION):
        yield not_grown(Reason.NO_PARTITION, event)
    yield from _unchanged(machine)
    yield from _unlisted(machine)
    yield from _wishes(machine)


def _attempts(machine: Machine) -> list[Event]:
    return [one for one in machine.all(Kind.PROGRAM) if concerns_root(machine, one)]


def said_causes(machine: Machine) -> Iterator[Verdict]:
    """Yield what cloud-init and growpart themselves say kept root's partition from growing."""
    disabled, silence = machine.disabled, machine.silence
    ran = machine.last(Kind.MODULE, Kind.CHANGED, Kind.TRIED)
    attempts = _attempts(machine)
    if (disabled or silence) and not ran and not attempts:
        yield not_grown(Reason.NO_CLOUD_INIT, *([disabled] if disabled else silence))
    failed = next((one for one in reversed(attempts) if one.failed), None)
    if machine.raid is not None and (failed or ran):
        yield not_grown(Reason.RAID, failed or ran, machine.raid)
    tried = [*attempts, *(one for one in machine.all(Kind.TRIED) if concerns_root(machine, one))]
    last = max((one.at.order for one in tried if one.get("verb") != "CHANGE"), default=-1)
    for kind, reason in (
        (Kind.GROWPART_OFF, Reason.GROWPART_OFF),
        (Kind.MODE_UNKNOWN, Reason.UNKNOWN_MODE),
        (Kind.GROWPART_MISSING, Reason.NO_GROWPART_TOOL),
        (Kind.GROWROOT_MARKER, Reason.GROWROOT_DISABLED),
        (Kind.NO_DEVICES, Reason.NOT_ASKED),
        (Kind.BLOCKED, Reason.WALL),
        (Kind.ALREADY_RAN, Reason.MODULE_RAN),
    ):
        said = [one for one in machine.all(kind) if one.get("module") in {"", "growpart"}]
        if said and said[-1].at.order > last:  # else it ran later
            yield not_grown(reason, said[-1])
    yield from _failures(machine, failed)
    if event := machine.last(Kind.REPART_FAILED):
        why, backup = event.get("why"), _misplaced_backup(machine)
        lost, no_room = "backing device" in why, why.startswith("Can't fit")
        if no_room and backup:
            yield not_grown(Reason.GPT_BACKUP, event, backup)
        elif no_room and machine.room.behind:
            yield not_grown(Reason.WALL, event, *machine.room.evidence)
        else:
            yield not_grown(Reason.DEVICE_NOT_FOUND if lost else None, event)
    yield from _skipped(machine)
    yield from _other_entries(machine)


def _failures(machine: Machine, failed: Event | None) -> Iterator[Verdict]:
    """Yield that growpart failed, for want of space or otherwise, on root or on a wrong disk."""
    module = [
        one
        for one in machine.all(Kind.GROWPART_BROKE, Kind.TRIED)
        if one.get("verb") in {"", "FAILED"}
        # The partition below an encrypted device is an entry of its own.
        and "encrypted device" not in one.get("why")
        and (not one.partition or concerns_root(machine, one))
    ]
    event = failed or (module[0] if module else None)
    idle = [one for one in (*_attempts(machine), *root_entries(machine, "NOCHANGE")) if one.idle]
    if event is not None and not any(one.at.order > event.at.order for one in idle):
        full = machine.no_space_near(event)
        filesystem = machine.filesystem
        vague = re.search(r"temp|Running module", event.at.text)
        if full is None and vague and filesystem and filesystem.available_bytes == 0:
            yield not_grown(Reason.FILESYSTEM_FULL, event, filesystem)
        lost = re.fullmatch(r"/dev/roo\w*: does not exist", event.get("cause"))
        reason = Reason.DEVICE_NOT_FOUND if lost else Reason.GROWPART_FAILED
        yield not_grown(Reason.FILESYSTEM_FULL if full else reason, event, full)
    for other in [] if machine.last(Kind.CHANGED, Kind.TRIED) else machine.all(Kind.PROGRAM):
        named = re.search(r"/dev/[\w/-]+", other.at.text)
        device = other.partition or short_name(named[0] if named else "")
        disk = disk_of(device) or device
        used = any(
            disk in {one.parent, disk_of(one.name)} or (one.mounts and one.name == disk)
            for one in machine.devices.values()
        )
        shown = disk in machine.devices or "does not exist" in other.at.text
        wrong = machine.root and disk and disk != machine.disk and shown and not used
        if other.failed and wrong:
            yield not_grown(Reason.GROWPART_FAILED, other, machine.devices.get(machine.partition))


def _skipped(machine: Machine) -> Iterator[Verdict]:
    """Yield why cloud-init's growpart skipped root."""
    for event in root_entries(machine, "SKIPPED"):
        why, top = event.get("why"), machine.kind_of_stack("lvm", "crypt")
        if machine.immutable_source:
            yield not_grown(Reason.IMMUTABLE_ROOT, event, machine.immutable_source)
        elif machine.zfs_dataset:
            yield not_grown(Reason.ZFS, event)
        elif re.search(
            r"stat of|unable to convert|not a block device|no syspath|[Nn]o.such|not found", why
        ):
            listed = machine.size_of(event.partition) is not None
            listed = listed or bool(re.search(r"Errno (?!2\b)", why))
            yield not_grown(Reason.GROWPART_FAILED if listed else Reason.DEVICE_NOT_FOUND, event)
        elif "apped device" in why and not machine.partition and machine.changes:
            # The partition that grew may be the one below the mapping.
            yield undecided(LSBLK, proofs=(machine.changes[-1], event))
        elif "apped device" in why:
            known = machine.root not in machine.devices or machine.kind_of_stack("lvm")
            reason = Reason.LOGICAL_VOLUME if known else None  # e.g. multipath
            reason = Reason.ENCRYPTED if top and top.type == "crypt" else reason
            yield not_grown(reason, machine.first_listed(top), event)
        elif machine.raid:
            yield not_grown(Reason.RAID, event, machine.raid)
        elif "device_part_info" in why or "not a partition" in why:
            whole = machine.stack and machine.stack[0].type == "disk"
            reason = Reason.NO_PARTITION if whole else Reason.GROWPART_FAILED
            reason = None if re.search(r"/dev/(?:mapper/|dm-)", why) else reason
            reason = (_layer_reason(machine) if top else None) or reason
            yield not_grown(reason, machine.first_listed(top), event)


def _other_entries(machine: Machine) -> Iterator[Verdict]:
    """Yield that growpart was run for other entries than root's."""
    tried = machine.all(Kind.CHANGED, Kind.TRIED)
    links = any(one.get("entry").startswith("/dev/disk/") for one in tried)
    about_root = any(concerns_root(machine, one) for one in tried) or machine.wished
    if tried and machine.partition and not about_root and not links:
        yield not_grown(Reason.NOT_ASKED, tried[-1], machine.user_data)


def _busy(machine: Machine) -> Iterator[Verdict]:
    sizes = machine.sizes_of(machine.partition)
    for busy in reversed(machine.all(Kind.TABLE_BUSY)):
        since = machine.rescanned_after(busy.at)
        # The order of two files is not known.
        shown = [one for one in sizes if one.at.order > since or one.at.file != busy.at.file]
        open_ = since > busy.at.order and not shown
        if machine.about_root(busy) and not open_ and not _in_use(machine, busy, shown):
            yield not_grown(Reason.TABLE_BUSY, busy, *shown[-1:])
    # Whatever is listed before a table may have been changed since.
    table, part, last = machine.table, machine.part, sizes[-1] if sizes else None
    later = table and last and last.at.order > table.at.order and last.at.same_machine(table.at)
    if table and part and not table.rounded and last and later and not machine.outdated(last.at):
        known = (last.size_bytes or 0) + last.tolerance_bytes
        used = machine.root == machine.partition and machine.fills(part.size_bytes)
        if part.size_bytes > known * 1.05 and not used:
            yield not_grown(Reason.TABLE_BUSY, table, last)


def _in_use(machine: Machine, busy: Event, shown: list[Device]) -> bool:
    """Tell whether the kernel is seen to use all that the newest table gives root."""
    part, grew = machine.part, machine.last(Kind.TOOL, Kind.KERNEL)
    later = grew is not None and grew.at.order > busy.at.order
    if grew and later and short_name(grew.get("device", "target")) in {machine.root, "/"}:
        return True
    if part is None:
        return bool(shown) and machine.room.some is False
    if shown:
        return (shown[-1].size_bytes or 0) + shown[-1].tolerance_bytes > part.size_bytes * 0.98
    return machine.root == machine.partition and machine.fills(part.size_bytes) is True


def _unchanged(machine: Machine) -> Iterator[Verdict]:
    """Yield why growpart found nothing to do: it does not say so itself."""
    found = [one for one in _attempts(machine) if one.idle]
    by_hand = [one for one in found if not one.of_root_script]
    by_module = [*root_entries(machine, "NOCHANGE"), *(one for one in found if one.of_root_script)]
    if not by_hand and not by_module:
        return
    event, room = (by_hand or by_module)[-1], machine.room
    since = [one for one in machine.enlargements(machine.disk) if (one.uptime_s or 0) > _BOOTED_S]
    enlarged = next(iter(since), None)
    gap = re.search(r"could only be grown by|fudge=", event.at.text)
    ends = room.some is False
    smaller = enlarged is not None or _was_smaller(machine, event)
    if limit := _mbr_limit(machine):
        yield limit
    elif "could only be grown by -" in event.at.text:  # it reaches into the backup GPT's room
        yield not_grown(Reason.DISK_NOT_LARGER, event, *room.evidence)
    elif room.behind is not None or (gap and room.some):
        yield not_grown(Reason.WALL, event, *room.evidence)
    elif ends and not smaller and (by_hand or _has_images_size(machine)):
        yield not_grown(Reason.DISK_NOT_LARGER, event, *room.evidence)
    elif enlarged is not None and not by_hand and not ends:
        yield not_grown(Reason.DISK_NOT_LARGER, event, enlarged)
    elif room.some:
        yield not_grown(None, event, *room.evidence, missing=FDISK)
    else:
        # Whether something grew it before that log began is not shown.
        yield undecided(LSBLK if room.some is None else DMESG, proofs=(event, *room.evidence))


def _was_smaller(machine: Machine, event: Event) -> bool:
    """Tell whether root once ended before its disk did, so that something grew it since.

    A filesystem grows only where its device was larger, one that does not fill its device was made
    for a smaller one, and growpart fails only where it tried.
    """
    failed = [one for one in _attempts(machine) if one.failed]
    failed += [*root_entries(machine, "FAILED"), *machine.all(Kind.GROWPART_BROKE)]
    earlier = any(one.at.order < event.at.order for one in failed)
    plain = machine.root == machine.partition
    outgrown = plain and machine.fills(machine.size_of(machine.root)) is False
    # The kernel compares the GPT's end with the disk's at each boot.
    backups = filter(machine.about_root, machine.all(Kind.GPT_BACKUP))
    moved = any("GPT:" in one.at.text for one in backups)
    return earlier or outgrown or moved or bool(machine.grew_on_partition)


def _has_images_size(machine: Machine) -> bool:
    """Tell whether the host gives the disk the size that it has, and one that nobody asks for.

    A size in whole GiB may be that of an image, or one to which an earlier boot grew it.
    """
    shown, disk_bytes = machine.all(Kind.VIRTUAL_SIZE), machine.size_of(machine.disk) or 0
    sizes = (int(one.get("bytes") or size_in(one.get("size"))) for one in shown)
    return any(abs(size - disk_bytes) < size // 50 and size % (1 << 29) for size in sizes)


def _unlisted(machine: Machine) -> Iterator[Verdict]:
    """Yield that cloud.cfg has no growpart module, where none ran and the disk has room."""
    ran = machine.all(Kind.MODULE, Kind.CHANGED, Kind.TRIED, Kind.LISTED) + _attempts(machine)
    ran = [one for one in ran if one.get("module") != "resizefs"]
    if (event := machine.last(Kind.UNLISTED)) and machine.room.some and not ran:
        yield not_grown(Reason.GROWPART_OFF, event, *machine.room.evidence)


def _wishes(machine: Machine) -> Iterator[Verdict]:
    """Yield what user-data asks for, where no log says whether cloud-init followed it."""
    data = machine.user_data
    if data is None or not data.valid or machine.last(Kind.IGNORED, Kind.MODULE, Kind.DISABLED):
        return
    settings = data.values.get("growpart")
    if not isinstance(settings, dict) or not machine.room.some:
        return
    mode = settings.get("mode", "auto")
    known = {"auto", "growpart"} | ({"gpart", "growfs"} if machine.freebsd else set())
    if str(mode).lower() in OFF_WORDS:
        yield not_grown(Reason.GROWPART_OFF, data, *machine.room.evidence, missing=LOG)
    elif str(mode) not in known:
        yield not_grown(Reason.UNKNOWN_MODE, data, *machine.room.evidence, missing=LOG)
    elif "devices" in settings and not machine.wished:
        yield not_grown(Reason.NOT_ASKED, data, *machine.room.evidence, missing=LOG)


def _mbr_limit(machine: Machine) -> Verdict | None:
    said = machine.last(Kind.MBR_LIMIT)
    limited = said is not None and any(map(machine.limited_by_mbr, machine.changes))
    events = [] if limited else list(filter(machine.about_root, machine.all(Kind.MBR_LIMIT)))
    event, part = next(reversed(events), None), machine.part
    disk_bytes, limit_bytes = machine.size_of(machine.disk) or 0, machine.mbr_limit_bytes
    if event is None and machine.label != "dos":
        return None
    if disk_bytes <= limit_bytes and (disk_bytes or event is None):
        return None
    if event is not None or (part and part.end_bytes > limit_bytes * 0.99):
        return not_grown(Reason.MBR_2_TIB, event, machine.table)
    return None


def _misplaced_backup(machine: Machine) -> Event | None:
    """Return what says that the backup GPT is misplaced; a program that writes the table moves it."""
    mine = [one for one in machine.events if machine.about_root(one)]
    written = max((one.at.order for one in mine if one.kind is Kind.TABLE_EDITED), default=-1)
    found = [one for one in mine if one.kind is Kind.GPT_BACKUP]
    if machine.room.some is None:  # the kernel looks before anything has grown
        found = [one for one in found if "GPT:" not in one.at.text]
    return found[-1] if found and found[-1].at.order > written else None


def _contradictions(machine: Machine) -> Iterator[Verdict]:
    """Yield that it is open which of two listings is newer: partitions do not shrink by themselves."""
    sizes = machine.sizes_of(machine.partition)
    first = max(sizes, key=lambda one: one.size_bytes or 0, default=None)
    if first and (first.size_bytes or 0) > (sizes[-1].size_bytes or 0) * 1.02:
        yield undecided(LSBLK, proofs=(first, sizes[-1]))


def _layouts(machine: Machine) -> Iterator[Verdict]:
    """Yield what the layout alone shows, the surest first."""
    room = machine.room
    layered = machine.root != machine.partition
    # Of an image that has its disk's end to itself, only the rest may have been enlarged.
    if machine.sealed and (layered or room.some or machine.followed):
        yield not_grown(Reason.IMMUTABLE_ROOT, machine.sealed)
    yield from _contradictions(machine)
    backup = _misplaced_backup(machine)
    if limit := _mbr_limit(machine):
        yield limit
    if machine.root and not machine.partition and machine.stack[0].type == "disk":
        yield not_grown(Reason.NO_PARTITION, machine.stack[0])
    if room.some is False:
        yield undecided(DMESG, LOG, proofs=room.evidence)
    if room.some is None and backup is None:
        would = [one for one in _attempts(machine) if one.get("verb") == "CHANGE"]  # --dry-run
        yield not_grown(None, would[-1], missing=LOG) if would else undecided(LSBLK, LOG)
    layer, listed = _layer_reason(machine), [one for one in machine.stack if one.at.number]
    if layer in {Reason.RAID, Reason.ZFS}:
        yield not_grown(layer, *listed, *room.evidence, missing=LOG)
    if backup is not None and room.behind is None:
        yield not_grown(Reason.GPT_BACKUP, backup, *room.evidence)
    if room.behind is not None:
        yield not_grown(Reason.WALL, *room.evidence)
    if layer is not None:
        yield not_grown(layer, *listed, *room.evidence, missing=LOG)
    yield not_grown(None, *room.evidence, missing=LOG)


def _layer_reason(machine: Machine) -> Reason | None:
    """Return what lies between root and its partition, the lowest layer."""
    if machine.zfs_dataset:
        return Reason.ZFS
    if machine.raid:
        return Reason.RAID
    reasons = {"crypt": Reason.ENCRYPTED, "lvm": Reason.LOGICAL_VOLUME}
    return next((reasons[one.type] for one in reversed(machine.stack) if one.type in reasons), None)
