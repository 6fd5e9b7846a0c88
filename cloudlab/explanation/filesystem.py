"""The rules for any machine's root filesystem, and for the layers below it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cloudlab.explanation.events import NEAR_LINES, SOON_LINES, Event, Kind, source_of
from cloudlab.explanation.evidence import Line
from cloudlab.explanation.facts import Device, Mount, Volume
from cloudlab.explanation.machine import Machine
from cloudlab.explanation.model import Grower, Reason, Source, Subject
from cloudlab.explanation.names import short_name, size_in
from cloudlab.explanation.verdicts import (
    DF,
    DMESG,
    LOG,
    LSBLK,
    Proof,
    Verdict,
    grown_by,
    not_grown,
    undecided,
)

_SHORT = 0.95
# By more than the units and the rounding of df differ.
_MORE = 1.11
_LATE_S = 3600  # cloud-init has ended by then
_BOOT = re.compile(r"reboot|shutdown|init 6|closed by")
# What cc_resizefs.py does not resize, and what mostly grows only while it is not mounted.
_NOT_BY_CLOUD_INIT = {"f2fs", "reiserfs", "jfs", "nilfs2", "ntfs", "exfat", "vfat"}
# A volume group keeps little for itself, a filesystem of its volume somewhat more.
_NOT_ALL = 0.88


def filesystem_verdict(machine: Machine, partition: Verdict) -> Verdict:
    """Say whether the root filesystem grew, by what, or why not."""
    return (
        _filesystem_growth(machine, partition)
        or _growth_beside(machine, partition)
        or next(_filesystem_causes(machine, partition), None)
        or _filesystem_by_size(machine, partition)
    )


def _filesystem_growth(machine: Machine, partition: Verdict) -> Verdict | None:
    resized = _resized_by_module(machine, None)
    done = [one for one in machine.all(Kind.GROWFS) if one.get("mount") in {"/", "/sysroot"}]
    for event in reversed(machine.all(Kind.KERNEL)):
        old, new = int(event.get("old", "from")), int(event.get("new", "to"))
        ends = (one for one in machine.all(Kind.KERNEL_ENDS) if one.at.order > event.at.order)
        ends = (one for one in ends if one.get("device") == event.get("device"))
        new = next((int(one.get("new")) for one in ends), new)
        mine = machine.is_root(event.get("device", "btrfs"))
        if new <= old or not mine or _as_before(machine, event):
            continue
        unit, resized = 4096 if event.get("device") else 1, _resized_by_module(machine, event.at)
        reason, sizes = machine.despite("resize_rootfs"), (old * unit, new * unit)
        by = _grower_of_kernel(machine, event, sizes, done)
        return grown_by(by, event, resized, *done, reason=reason, sizes=sizes)
    below = _volume_behind(machine) or _mapping_behind(machine)
    # growfs prints the same where there was nothing to grow, as before cloud-init grows anything.
    logged = any(source_of(one.text) is Source.CLOUD_INIT_LOG for one in partition.evidence[:1])
    if resized and partition.by is Grower.GROWPART and logged:
        done = []
    if done and partition.grown and not below and _fills(machine, partition) is not False:
        return grown_by(Grower.GROWFS, done[-1])
    for event in reversed(machine.all(Kind.TOOL)):
        smaller = event.get("old") and int(event.get("new")) <= int(event.get("old"))
        listed = (one for one in machine.sizes_of(machine.root) if one.at.order < event.at.order)
        least = max((one.size_bytes or 0 for one in listed), default=0) * _SHORT
        # It may have shrunk to the size that was asked for.
        smaller = smaller or _as_before(machine, event)
        if smaller or event.get("wanted") or (event.get("blocks") and event.bytes_named < least):
            continue
        target = event.get("device", "target")
        known = short_name(target) == machine.partition or bool(machine.root)
        mine = bool(target) and known and machine.is_root(target)
        if target == "/" or mine or event.of_root_script:
            return grown_by(_grower(event, _resized_by_module(machine, event.at)), event)
    service = machine.last(Kind.SERVICE_ENDED)
    early = partition.by in {Grower.INITRAMFS, Grower.GROWROOT, Grower.REPART}
    if service and early and resized is None and _fills(machine, partition):
        return grown_by(Grower.OTHER, service, machine.filesystem)
    resized_later = _resized_by_btrfs(machine) or _resized_after_growth(machine, partition)
    return resized_later or _growth_in_df(machine)


def _resized_by_module(machine: Machine, since: Line | None) -> Event | None:
    """Return what says that resizefs ran: first after a line of its log, else last of all."""
    said = machine.all(Kind.RESIZED)
    later = (one for one in said if since is not None and since.before(one.at))
    return next(later, None) or machine.last(Kind.RESIZED) or machine.last(Kind.FORKED)


def _grower(event: Event, resized: Event | None) -> Grower:
    """Return who ran the program that grew it: the initramfs, cloud-init or something else."""
    if event.in_initramfs:
        return Grower.INITRAMFS
    if resized is None or resized.at.file != event.at.file:
        return Grower.OTHER
    lines = resized.at.order - event.at.order
    lines = abs(lines) if resized.kind is Kind.FORKED else lines
    return Grower.RESIZEFS if 0 < lines < NEAR_LINES else Grower.OTHER


def _grower_of_kernel(
    machine: Machine, kernel: Event, sizes: tuple[int, int], done: list[Event]
) -> Grower:
    """Return who made the kernel grow it: a program that names the sizes says so best."""
    resized = _resized_by_module(machine, kernel.at)
    for one in machine.all(Kind.TOOL, Kind.TOOL_BEGINS):
        near = one.at.file == kernel.at.file and abs(one.at.number - kernel.at.number) < SOON_LINES
        began = abs(size_in(one.get("old")) - sizes[0]) < sizes[0] * 0.02 and one.get("btrfs")
        ended = one.kind is Kind.TOOL and one.bytes_named == sizes[1]
        if not machine.is_root(one.get("device", "btrfs", "target")):
            continue
        if began or ended or (near and one.in_initramfs):
            return _grower(one, resized)
    if (kernel.uptime_s or 0) > _LATE_S:
        return Grower.UNKNOWN
    if done and resized:
        mine = any(_said_by_growfs(machine, kernel, one, sizes[1]) for one in done)
        return Grower.GROWFS if mine else Grower.UNKNOWN
    if done:
        return Grower.GROWFS
    module = resized or _within_cloud_init(machine, kernel)
    return Grower.RESIZEFS if module else Grower.UNKNOWN


def _as_before(machine: Machine, event: Event) -> bool:
    """Tell whether something later shows the size from which a filesystem is said to have grown."""
    old, mount = int(event.get("old", "from") or 0), machine.filesystem
    old *= 1 if event.get("from") else 4096
    later = mount is not None and mount.at.order > event.at.order
    later = later and not machine.shown_after(event.at, old * 1.02)
    return later and 0 < (mount.size_bytes or 0) < old * 1.02  # type: ignore[union-attr]


def _growth_in_df(machine: Machine) -> Verdict | None:
    """Return that ``df`` shows more later."""
    sized = [one for one in machine.root_mounts if one.size_bytes]
    if not sized or (sized[-1].size_bytes or 0) < (sized[0].size_bytes or 0) * _MORE:
        return None
    old, new = sized[0], sized[-1]
    if old.source != new.source or not old.at.same_machine(new.at):
        return None
    return grown_by(Grower.UNKNOWN, old, new, sizes=(old.size_bytes, new.size_bytes), missing=LOG)


def _resized_by_btrfs(machine: Machine) -> Verdict | None:
    """Return that ``btrfs filesystem resize`` grew it: what is mounted is larger than before."""
    mount = machine.filesystem
    for event in reversed(machine.all(Kind.TOOL_BEGINS)):
        old, new = size_in(event.get("old")), size_in(event.get("new"))
        later = mount if mount and mount.at.order > event.at.order else None
        reached = (later.size_bytes if later else new) or 0
        if old and reached > old * 1.05 and machine.is_root(event.get("btrfs")):
            by = Grower.INITRAMFS if event.in_initramfs else Grower.OTHER
            return grown_by(by, event, later, sizes=(old, None))
    return None


def _within_cloud_init(machine: Machine, event: Event) -> bool:
    """Tell whether cloud-init was running on the same console, so that it is what resized."""
    runs = [one for one in machine.all(Kind.RAN) if one.at.file == event.at.file]
    changed = machine.all(Kind.CHANGED)  # resizefs follows growpart at once
    runs += [one for one in changed if event.at.soon_after(one.at, SOON_LINES)]
    roots = (one for one in machine.events if one.get("mount") in {"", "/", "/sysroot"})
    growfs = any("systemd-growfs" in one.at.text for one in roots)
    return any(one.at.number < event.at.number for one in runs) and not growfs


def _said_by_growfs(machine: Machine, kernel: Event, done: Event, size_bytes: int) -> bool:
    """Tell whether systemd-growfs names what the kernel just grew to, before cloud-init ran."""
    soon = done.at.soon_after(kernel.at, SOON_LINES)
    before = not any(
        one.at.file == kernel.at.file and one.at.number < kernel.at.number
        for one in machine.all(Kind.RAN)
        if ".py[DEBUG]" not in one.at.text  # of its log, which no console shows
    )
    return soon and before and abs(size_in(done.get("size")) - size_bytes) < size_bytes * 0.02


def _resized_after_growth(machine: Machine, partition: Verdict) -> Verdict | None:
    """Return that resizefs grew it: its command took long, or the device was larger by then."""
    event = _resized_by_module(machine, next(iter(partition.evidence), None))
    resized = event if event and event.kind is Kind.RESIZED else None
    long = machine.last(Kind.TOOK_LONG)
    module = partition.by in {Grower.GROWPART, Grower.GROWROOT, Grower.REPART}
    if event is None or not ((partition.grown and module) or (resized and long)):
        return None
    later = bool(partition.evidence) and partition.evidence[0].order > event.at.order
    if partition.by is Grower.GROWPART and later:
        return None  # the partition grew after resizefs had run; the initramfs comes before
    fills = _fills(machine, partition)
    behind = _volume_behind(machine) or _mapping_behind(machine)
    if fills is False or (fills is None and not resized) or behind:
        return None
    followed = any("resized encrypted volume" in one.at.text for one in machine.events)
    if machine.root not in {machine.partition, ""} and not fills and not followed:
        return None  # what lies between need not have grown
    reason = machine.despite("resize_rootfs")
    return grown_by(Grower.RESIZEFS, event, long, machine.filesystem, reason=reason)


def _fills(machine: Machine, partition: Verdict, otherwise: int | None = None) -> bool | None:
    """Tell whether it fills its device, as listed or as growth left it; None if undecided."""
    listed, mount = machine.devices.get(machine.root), machine.filesystem
    if mount is None or _earlier(mount, partition) or _outdated(machine, mount):
        return None
    size_bytes = machine.size_of(machine.root)
    if machine.root == machine.partition:
        if listed is None or _earlier(listed, partition):
            size_bytes = partition.to_bytes or size_bytes
        size_bytes = size_bytes or otherwise
    return machine.fills(size_bytes)


def _outdated(machine: Machine, mount: Mount) -> bool:
    """Tell whether the filesystem or its device may have been resized since it was measured."""
    listed = machine.devices.get(machine.root)
    since = [one for one in machine.events if one.at.order > mount.at.order]
    if any(one.kind is Kind.TOOL_BEGINS and one.get("whole") == "/" for one in since):
        return True
    boots = (one for one in since if one.kind is Kind.RESCANNED and _BOOT.search(one.at.text))
    if listed is None or any(one.at.order < listed.at.order for one in boots):
        return listed is not None
    layered = machine.root not in {machine.partition, machine.disk}
    return layered and _resized_since(machine, listed)


def _earlier(shown: Device | Mount, partition: Verdict) -> bool:
    """Tell whether something was measured before the partition grew, or on another host."""
    at = next(iter(partition.evidence), shown.at)
    # A log describes the boot, wherever it was pasted.
    by_hand = bool(partition.grown) and source_of(at.text) is Source.OUTPUT
    seen = [one for one in partition.evidence[1:] if one.file == shown.at.file]
    before = shown.at.order < min(one.order for one in (at, *seen))
    return by_hand and (before or shown.at.other_host(at))


def _mapping_behind(machine: Machine) -> tuple[Proof, ...]:
    """Return what shows that an encrypted device or an array did not follow what is below it."""
    for event in machine.all(Kind.TRIED):
        if event.get("verb") == "SKIPPED" and "ncryption key" in event.get("why"):
            return (event,)
    for device in (machine.kind_of_stack("crypt"), machine.raid):
        if device and _short(machine, device):
            return (device,)
    listed = machine.size_of(machine.root) if machine.kind_of_stack("crypt") else None
    kept = None if listed else machine.last(Kind.GROWFS_LUKS)
    return (kept,) if kept and kept.get("mount") in {"", "/", "/sysroot"} else ()


def _filesystem_causes(machine: Machine, partition: Verdict) -> Iterator[Verdict]:
    """Yield what kept it from growing, as logs and user-data say it, the strongest first."""
    yield from said_causes(machine, partition)
    if forked := machine.last(Kind.FORKED):
        if partition.grown is False and _fills(machine, partition) is not False:
            yield not_grown(Reason.FILLS_ITS_DEVICE, forked, machine.filesystem)
        yield undecided(DF, proofs=(forked, machine.filesystem), reason=Reason.IN_BACKGROUND)
    if partition.reason is Reason.FILESYSTEM_FULL:
        yield not_grown(Reason.FILESYSTEM_FULL, *partition.evidence)
    # What user-data asks for, where no log says whether cloud-init followed it.
    data, mount = machine.user_data, machine.filesystem
    trusted = data and data.valid and not machine.last(Kind.IGNORED, Kind.MODULE)
    off = trusted and machine.switched_off("resize_rootfs")
    if off and mount and _fills(machine, partition) is False:
        yield not_grown(Reason.RESIZE_ROOTFS_OFF, data, mount, missing=LOG)


def said_causes(machine: Machine, partition: Verdict, *, kept: bool = False) -> Iterator[Verdict]:
    """Yield what cloud-init and the resize programs say kept it from growing.

    ``kept`` says that measurements show that it did not grow.
    """
    if kept and machine.silence:
        yield not_grown(Reason.NO_CLOUD_INIT, *machine.silence)
    fills = not kept and _fills(machine, partition)
    if machine.zfs_dataset and partition.grown is False:
        yield not_grown(Reason.ZFS, *partition.evidence)
    if partition.reason is Reason.NO_CLOUD_INIT and not kept:
        yield not_grown(Reason.NO_CLOUD_INIT, *partition.evidence, machine.filesystem)
    ran = [one for one in machine.all(Kind.ALREADY_RAN) if one.get("module") == "resizefs"]
    for reason, event in (
        (Reason.MODULE_RAN, ran[0] if ran else None),
        (Reason.RESIZE_ROOTFS_OFF, machine.last(Kind.RESIZE_OFF)),
    ):
        if event is not None and partition.grown is None and fills:
            yield undecided(DMESG, proofs=(event, machine.filesystem))
        elif event is not None:
            yield not_grown(reason, event)
    for kind, reason in (
        (Kind.UNSUPPORTED, Reason.UNKNOWN_FILESYSTEM),
        (Kind.NO_DEVICE, Reason.DEVICE_NOT_FOUND),
        (Kind.OVERLAY_ROOT, Reason.IMMUTABLE_ROOT),
    ):
        if said := machine.last(kind):
            overlaid = said.get("fstype") in {"overlay", "composefs", "erofs", "squashfs"}
            immutable = overlaid or machine.immutable_source is not None
            yield not_grown(Reason.IMMUTABLE_ROOT if immutable else reason, said)
    yield from _resize_failures(machine, fills=fills)


def _resize_failures(machine: Machine, *, fills: bool | None) -> Iterator[Verdict]:
    tried = machine.all(Kind.RESIZED, Kind.TOOL, Kind.KERNEL)
    since = max((one.at.order for one in tried if _of_root(machine, one)), default=-1)
    failures = [
        one
        for one in machine.all(Kind.RESIZE_FAILED)
        if one.at.order > since and one.get("mount", "path") in {"", "/", "/sysroot"}
    ]
    for event in reversed(failures):
        if not _of_root(machine, event):
            continue
        near, on_image = machine.no_space_near(event), bool(machine.root_mounts)
        full = machine.filesystem is not None and machine.filesystem.available_bytes == 0
        read_only = any(
            "Read-only file system" in one.at.text
            and abs(one.at.order - event.at.order) < NEAR_LINES
            for one in failures
        )
        read_only = read_only and not machine.plain_root
        if near or ("No space left" in event.at.text and full):
            yield not_grown(Reason.FILESYSTEM_FULL, event, near)
        elif any(one.get("locked") for one in failures) and machine.kind_of_stack("crypt"):
            yield not_grown(Reason.ENCRYPTED, *failures)
        elif read_only or (machine.immutable_source and not event.get("device")):
            yield not_grown(Reason.IMMUTABLE_ROOT, event, machine.immutable_source)
        elif fills is False or (machine.filesystem is None and (machine.root or not on_image)):
            yield not_grown(Reason.RESIZE_FAILED, event)
        else:
            yield undecided(DMESG, proofs=(event, machine.filesystem), reason=Reason.RESIZE_FAILED)


def _of_root(machine: Machine, event: Event) -> bool:
    """Tell whether a resize program's message is about root's device, or names none."""
    device = event.get("device", "target")
    return machine.is_root(device) if device not in {"", "/"} else machine.about_root(event)


def _volume_behind(machine: Machine) -> tuple[Proof, ...]:
    """Return what shows that a logical volume takes less than lies below it; empty if it does not."""
    volume = next((one for one in machine.stack if one.type == "lvm"), None)
    name = volume.name if volume else machine.root
    volumes = machine.facts.volumes
    groups = {one.group for one in volumes if one.kind == "lv" and one.name == name}
    touched = _touched(machine, name)
    if (volume is None and not groups) or touched > machine.written:
        return ()  # what its group has left is on purpose
    for one in volumes:
        extended = [each for each in volumes if "changed from" in each.at.text]
        if any(each.group == one.group and each.at.order > one.at.order for each in extended):
            continue  # the room that it shows was used since
        mine = one.group in groups or name.startswith(one.group.replace("-", "--") + "-")
        if one.kind in {"pv", "vg"} and mine and one.free_bytes >= (64 << 20):
            return (one,)
    if volume is None:
        return ()
    below = next((one for one in machine.stack if one.name == volume.parent), None)
    below_bytes, mount = machine.size_of(volume.parent), machine.filesystem
    if below is None or not below_bytes:
        return ()
    if not volume.size_bytes:
        short = mount is not None and (mount.size_bytes or below_bytes) < below_bytes * _NOT_ALL
        return (mount, machine.table) if short and machine.table else ()
    volumes_there = [one for one in machine.devices.values() if one.type == "lvm"]
    siblings = [one for one in volumes_there if one.parent in {volume.parent, ""}]
    free = below_bytes - sum(one.size_bytes or 0 for one in siblings)
    slack = below.tolerance_bytes + sum(one.tolerance_bytes for one in siblings) + (64 << 20)
    return (volume, below if below.size_bytes else machine.table) if free > slack else ()


def _volume_full(machine: Machine, volume: Device) -> bool:
    """Tell whether what lies below root's logical volume is shown, where that has no room left."""
    for one in machine.facts.volumes:
        mine = volume.name.startswith(one.group.replace("-", "--") + "-")
        if one.kind in {"pv", "vg"} and one.size_bytes and mine:
            return True
    below = machine.size_of(volume.parent) or 0
    beside = (one for one in machine.devices.values() if one.parent == volume.parent)
    return 0 < below * 0.98 < sum(one.size_bytes or 0 for one in beside)


def _held_back(machine: Machine) -> Verdict | None:
    """Return that a layer below did not follow its own device."""
    if behind := _volume_behind(machine):
        return not_grown(Reason.LOGICAL_VOLUME, *behind, machine.filesystem)
    if not (locked := _mapping_behind(machine)):
        return None
    reason = Reason.RAID if locked[0] is machine.raid else Reason.ENCRYPTED
    if isinstance(locked[0], Event) and locked[0].kind is Kind.GROWFS_LUKS:
        # It may have been opened after the partition grew, and so be as large.
        return undecided(LSBLK, proofs=(*locked, machine.filesystem), reason=reason)
    return not_grown(reason, *locked, machine.filesystem)


def _filesystem_by_size(  # noqa: PLR0911 - a list of answers, the surest first
    machine: Machine, partition: Verdict
) -> Verdict:
    """Return what sizes alone show."""
    fills = _fills(machine, partition, partition.from_bytes)
    if machine.sealed:
        return not_grown(Reason.IMMUTABLE_ROOT, machine.sealed, machine.filesystem)
    if fills is not False and (held := _held_back(machine)):
        return held
    if machine.zfs_dataset:
        disk, pool = machine.devices.get(machine.disk), machine.filesystem
        if disk and disk.size_bytes and pool and (pool.size_bytes or 0) < disk.size_bytes // 2:
            return not_grown(Reason.ZFS, pool, disk, missing="zpool list; zpool status")
        return undecided("zpool list; zpool status", proofs=[pool])
    if partition.reason is Reason.TABLE_BUSY:
        return not_grown(Reason.TABLE_BUSY, *partition.evidence, machine.filesystem)
    below = _below_kept_partition(machine, partition, fills=fills)
    if partition.grown is False and (kept := next(below, None)):
        return kept
    if fills is False:
        device = machine.devices.get(machine.root)
        reason = Reason.UNKNOWN_FILESYSTEM if machine.fstype in _NOT_BY_CLOUD_INIT else None
        return not_grown(reason, machine.filesystem, device, missing=LOG)
    mount = _measured(machine, partition)
    if mount and partition.to_bytes and (mount.size_bytes or 0) < partition.to_bytes * 0.8:
        volume = machine.kind_of_stack("lvm")
        return not_grown(Reason.LOGICAL_VOLUME if volume else None, mount, missing=LOG)
    return _idle_once(machine, partition) or _open(machine)


def _idle_once(machine: Machine, partition: Verdict) -> Verdict | None:
    """Return that a program of the first boot found nothing to do on a root as images have it.

    Images are cut to what they hold and a little more; a root that grew before has more to spare.
    """
    found = [one for one in machine.all(Kind.IDLE) if "resize2fs_once" in one.at.text]
    mount, unknown = machine.filesystem, partition.grown is None and machine.room.some is None
    if not found or not unknown or not mount or not mount.size_bytes:
        return None
    small = mount.available_bytes is not None and mount.available_bytes < mount.size_bytes // 8
    proofs = found[-1], mount
    return not_grown(Reason.FILLS_ITS_DEVICE, *proofs, missing=LSBLK) if small else None


def _measured(machine: Machine, partition: Verdict) -> Mount | None:
    """Return the filesystem's size since its partition grew from one known size to another."""
    mount = machine.filesystem
    if not mount or not partition.from_bytes or not partition.to_bytes:
        return None
    return None if _earlier(mount, partition) or _outdated(machine, mount) else mount


def _growth_beside(machine: Machine, partition: Verdict) -> Verdict | None:
    """Return that it is larger than its partition was, whatever logs say kept it from growing."""
    mount = _measured(machine, partition)
    if mount and partition.grown and (mount.size_bytes or 0) > (partition.from_bytes or 0) * _MORE:
        return grown_by(Grower.UNKNOWN, mount, missing=LOG)
    return None


def _open(machine: Machine) -> Verdict:
    """Return that nothing decides it, with what would."""
    lacking = LSBLK if machine.size_of(machine.root) is None else ""
    failed = [one for one in machine.all(Kind.RESIZE_FAILED) if one.get("device", "near")]
    if failed and not machine.root:  # its device may or may not be root's
        return undecided(LSBLK, proofs=failed[-1:], reason=Reason.RESIZE_FAILED)
    return undecided(lacking if machine.filesystem else DF, LOG, proofs=[machine.filesystem])


def _below_kept_partition(
    machine: Machine, partition: Verdict, *, fills: bool | None
) -> Iterator[Verdict]:
    """Yield that it takes all of a device that cannot have grown, as its partition did not."""
    volume = machine.kind_of_stack("lvm")
    resized = machine.last(Kind.RESIZED)
    idle = next((one for one in machine.all(Kind.IDLE)[::-1] if _of_root(machine, one)), None)
    layers = [one for one in machine.stack if one.type.startswith(tuple(_LAYERS))]
    if any(_touched(machine, one.name) >= 0 or _layer_growth(machine, one) for one in layers):
        return  # they had room of their own
    if volume and fills is not False:
        full = partition.reason is not Reason.LOGICAL_VOLUME and _volume_full(machine, volume)
        reason = Reason.FILLS_ITS_DEVICE if full else Reason.LOGICAL_VOLUME
        below = partition.evidence if not volume.at.number else ()
        yield not_grown(reason, volume, *below, machine.filesystem)
    layered = machine.kind_of_stack("crypt")
    if fills or (fills is None and (resized or (idle and not layered))):
        yield not_grown(Reason.FILLS_ITS_DEVICE, resized or idle, machine.filesystem)
    unknown = fills is None and not machine.size_of(machine.root)
    mapped = machine.root not in {machine.partition, ""} or partition.reason is Reason.NO_PARTITION
    if unknown and machine.filesystem and partition.reason and not mapped:
        # Nothing shows another device than the one that did not grow.
        yield not_grown(Reason.FILLS_ITS_DEVICE, machine.filesystem, missing=LSBLK)


# ---- the layers between ----

_LAYERS = {
    "lvm": (Subject.LOGICAL_VOLUME, Reason.LOGICAL_VOLUME),
    "crypt": (Subject.LUKS, Reason.ENCRYPTED),
    **dict.fromkeys(("raid", "md"), (Subject.RAID, Reason.RAID)),
}


def layer_verdicts(machine: Machine) -> Iterator[tuple[Subject, str, Verdict]]:
    """Yield subject, device and verdict of each layer between the partition and the filesystem."""
    for device in reversed(machine.stack):
        kind = next((one for one in _LAYERS if device.type.startswith(one)), None)
        if kind is None or device.name == machine.partition:
            continue
        subject, reason = _LAYERS[kind]
        volumes = machine.facts.volumes
        held = [one for one in volumes if (one.kind, one.name) == ("pv", device.parent)]
        if subject is not Subject.LOGICAL_VOLUME:
            behind: tuple[Proof, ...] = (device,) if _short(machine, device) else ()
            open_ = undecided(DMESG, proofs=[device])
        else:
            if held:
                yield Subject.PHYSICAL_VOLUME, device.parent, _held_verdict(machine, held)
            behind, open_ = _volume_behind(machine), undecided("sudo vgs; sudo lvs")
        kept = not_grown(reason, *behind) if behind else None
        yield subject, device.name, kept or _layer_growth(machine, device) or open_


def _held_verdict(machine: Machine, held: list[Volume]) -> Verdict:
    """Return whether a physical volume grew, from what pvs shows and pvresize says."""
    sized = [one for one in held if one.size_bytes]
    if not sized or sized[-1] is not held[-1]:  # pvresize says "changed" whether it grew or not
        return undecided("sudo pvs", proofs=held[-1:])
    first, last = sized[0], sized[-1]
    if last.size_bytes > first.size_bytes * 1.02 and first.at.same_machine(last.at):
        return grown_by(Grower.UNKNOWN, first, last, sizes=(first.size_bytes, last.size_bytes))
    below = _size_beside(machine, last.name, last.at)
    if last.at.order > machine.written and last.size_bytes < below * _SHORT:
        return not_grown(Reason.LOGICAL_VOLUME, last)
    return undecided(DMESG, proofs=[last])


def _layer_growth(machine: Machine, device: Device) -> Verdict | None:
    """Return that LVM, the kernel or two listings say that a layer became larger."""
    said = [one for one in machine.facts.volumes if one.name == device.name and one.old_bytes]
    sizes = machine.sizes_of(device.name)
    if said and any(
        one.at.order > said[-1].at.order and (one.size_bytes or 0) < said[-1].size_bytes * _SHORT
        for one in (() if machine.shown_after(said[-1].at, said[-1].old_bytes * 1.02) else sizes)
    ):
        return None  # of another machine or time
    if said and said[-1].size_bytes > said[-1].old_bytes:
        by = Grower.OTHER if source_of(said[-1].at.text) is Source.OUTPUT else Grower.UNKNOWN
        return grown_by(by, said[-1], sizes=(said[-1].old_bytes, said[-1].size_bytes))
    if event := _capacity(machine, device):
        return grown_by(Grower.UNKNOWN, event)
    old, new = (sizes[0], sizes[-1]) if sizes and not said else (device, device)
    slack = old.tolerance_bytes + new.tolerance_bytes
    if (new.size_bytes or 0) - (old.size_bytes or 0) <= slack or not old.at.same_machine(new.at):
        return None
    return grown_by(Grower.UNKNOWN, old, new, sizes=(old.size_bytes, new.size_bytes))


def _capacity(machine: Machine, device: Device) -> Event | None:
    """Return what the kernel says of an array that became larger."""
    said = [one for one in machine.all(Kind.CAPACITY) if one.get("device") == device.name]
    said = said if device.type.startswith(("raid", "md")) else []
    return next((one for one in said[::-1] if int(one.get("new")) > int(one.get("old"))), None)


def _resized_since(machine: Machine, device: Device) -> bool:
    """Tell whether a layer was resized since it was listed, or was to be."""
    event, said = _capacity(machine, device), "changed from" in device.at.text
    last = max(_touched(machine, device.name), event.at.order if event else -1)
    return last > device.at.order and not said


def _touched(machine: Machine, name: str) -> int:
    """Return the order of the last line that says that a layer is resized or was; -1 if none."""
    orders = [-1]
    for event in machine.all(Kind.LAYER):
        volume = event.get("volume", "resized", "wanted").strip("\"'")
        known = short_name(volume if volume.startswith("/") else f"/dev/{volume}")
        short = "/" not in volume and name.endswith(f"-{volume}")
        orders += [event.at.order] if short or known == name or not volume else []
    return max(orders)


def _size_beside(machine: Machine, name: str, at: Line) -> int:
    """Return a device's size in the listing that is nearest to a line; 0 if unknown."""
    sizes = machine.sizes_of(name)
    nearest = min(sizes, key=lambda one: abs(one.at.order - at.order), default=None)
    return (nearest.size_bytes if nearest else machine.size_of(name)) or 0


def _short(machine: Machine, device: Device) -> bool:
    """Tell whether a device is shown smaller than what is below it, and nothing resized it since."""
    below, mount = _size_beside(machine, device.parent, device.at), machine.filesystem
    # What is larger than the listing came after it.
    after = mount is not None and (mount.size_bytes or 0) > (device.size_bytes or 0)
    after = after or _resized_since(machine, device)
    return not after and 0 < (device.size_bytes or 0) < below * _SHORT
