"""The evidence of one of cloudlab's own boots: reports, the disk as the host read it, lines."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from cloudlab.console import LONGEST_LINE_BYTES, printable
from cloudlab.explanation.events import Event, Kind, read_events
from cloudlab.explanation.evidence import Document, Line
from cloudlab.explanation.facts import Device, Facts, Mount
from cloudlab.explanation.machine import Machine
from cloudlab.explanation.model import Source, When
from cloudlab.explanation.names import CONTAINERS
from cloudlab.sizes import GuestBlock, GuestDevice, GuestFilesystem, ParsedConsole

# Lines of the console that say who grew what, or that cloud-init was not there.  cloud-init puts
# its warnings there, and all it has to say where its log cannot be written.
_TELLING = re.compile(
    rb"GROWROOT: |resizing filesystem|resize device |login: ?$|Starting .*cloud-init"
    rb"|Cloud-init v\. |Reached target .*[Bb]asic"
    rb"|cc_growpart\.py\[|cc_resizefs\.py\[|Running module (?:growpart|resizefs) .* failed"
    rb"|Failed to resize filesystem|OSError: \[Errno 28\] No space left on device"
    # What somebody or runcmd ran, and what came of it.
    rb"|^# (?:growpart|resize2fs|xfs_growfs|btrfs filesystem resize) "
    rb"|(?:^|cloud-init\[\d+\]: ) *(?:CHANGED: partition=|The filesystem on \S+ is now"
    rb"|data blocks changed from|Resize device id |Size of logical volume)"
)


class Size(NamedTuple):
    """A size at one moment, and who says so; ``block`` is None where the host read the disk."""

    size_bytes: int
    at: Line
    block: GuestBlock | None = None


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
            line_of(Source.CONSOLE, printable(raw[:LONGEST_LINE_BYTES])[:300], number)
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
                facts.devices.append(Device(*about, "".join(fstype[:1]), device_line(one)))
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
                    return line_of(Source.REPORT, f"{name}: {one.value}", one.line)
        return None

    def said(self, name: str) -> str:
        """Return a fact's value; empty where no report has it."""
        found = self.fact(name)
        return found.text.removeprefix(f"{name}: ") if found else ""

    def partition(self, block: GuestBlock | None) -> Size | None:
        """Return the root partition as a report measured it."""
        found = device_of(block, self.machine.partition)
        return Size(found.size_bytes, device_line(found), block) if found else None

    def filesystem(self, block: GuestBlock | None) -> Size | None:
        """Return the root filesystem as a report measured it."""
        for one in block.filesystems if block else ():
            if one.mountpoint == "/":
                return Size(one.size_bytes, _filesystem_line(one), block)
        return None

    def on_disk(self, moment: str) -> tuple[Mapping[str, Any], Size] | None:
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
        text = f"{moment} the boot: {_place(found)}, {found['size_bytes']:,} bytes"
        return found, Size(int(found["size_bytes"]), line_of(Source.DISK, text))

    def superblock(self, moment: str) -> Size | None:
        """Return the root filesystem as its superblock counted it ``before`` or ``after``."""
        read = self.on_disk(moment)
        filesystem = read and read[0]["filesystem"]
        if read is None or not filesystem or filesystem["size_bytes"] is None:
            return None
        in_volume = self.machine.stack and self.machine.stack[0].type not in {"part", "disk"}
        if filesystem["type"].endswith(CONTAINERS) or in_volume:
            return None  # inspect does not look into volumes
        size_bytes = int(filesystem["size_bytes"])
        text = f"superblock of {filesystem['type']} on {_place(read[0])}, {size_bytes:,} bytes"
        return Size(size_bytes, line_of(Source.DISK, f"{moment} the boot: {text}"))

    def by_hand(self, *kinds: Kind) -> Event | None:
        """Return the first success of a program that somebody ran, as the console shows it."""
        for event in self.machine.all(*kinds):
            done = event.kind is not Kind.PROGRAM or event.get("verb") == "CHANGED"
            if done and event.at.source is Source.CONSOLE and "GROWROOT" not in event.at.text:
                return event
        return None

    def moments(
        self, size_of: Callable[[GuestBlock], Size | None], hand: Event | None
    ) -> list[Size]:
        """Return a size before growth, before what was done by hand, and after all of it."""
        earlier = [one for one in self.parsed.blocks if hand and one.line < hand.at.number]
        blocks = [self.before, *earlier[-1:], self.after]
        sizes = [size_of(one) for one in blocks if one is not None]
        return [one for one in sizes if one is not None]

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

    def when_larger(self, sizes: Iterable[Size | None], old: Size) -> When | None:
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


def device_of(block: GuestBlock | None, name: str) -> GuestDevice | None:
    """Return a device of a report."""
    return next((one for one in (block.devices if block else ()) if one.name == name), None)


def line_of(source: Source, text: str, number: int = 0) -> Line:
    """Return a line of evidence; 0 for what is in no transcript."""
    return Line("", number, text, 0, source)


def device_line(one: GuestDevice) -> Line:
    """Return what a report says of a device, with its line."""
    text = f"{one.name} size_bytes {one.size_bytes} start_bytes {one.start_bytes}"
    return line_of(Source.REPORT, text, one.line)


def _filesystem_line(one: GuestFilesystem) -> Line:
    text = f"{one.device} {one.fstype} size_bytes {one.size_bytes}"
    return line_of(Source.REPORT, text, one.line)


def _place(partition: Mapping[str, Any]) -> str:
    number = partition["number"]
    return "the whole disk" if number is None else f"partition {number}"
