"""Everything that can be evidence, gathered from where it stands and found again by rules."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudlab.console import LONGEST_LINE_BYTES, printable
from cloudlab.explanation.model import Evidence, Source, When
from cloudlab.sizes import GuestBlock, GuestDevice, GuestFilesystem, ParsedConsole

#: What the second GPT takes at the disk's end: 32 sectors of entries and its header.
GPT_TAIL_BYTES = 33 * 512

#: growpart's own limit: it ignores a smaller gain.
#: Source: growpart's option --fudge in cloud-utils, bin/growpart.
LEAST_GAIN_BYTES = 1 << 20

# Not every systemd lets growfs itself say what it did, but all say when it ran.
GROWFS_STARTS = r"systemd\[1\]: Starting systemd-growfs"
GROWFS_ENDS = r"systemd\[1\]: Finished systemd-growfs"

#: What a statement lacks that knows nothing of the time before bootcmd.
BUILT_UNKNOWN = "How large it was before the boot was not recorded, so growth before bootcmd ran could go unseen."

_STAMP = re.compile(r"\[ *(\d+\.\d+)\]")
_CLOUD_INIT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - ")
# Lines of the console itself that say who grew what, or that cloud-init was not there.
# cloud-init puts its warnings there, and all it has to say where its log cannot be written.
_TELLING = re.compile(
    rb"GROWROOT: |resizing filesystem|resize device |login: ?$|Starting .*cloud-init"
    rb"|Cloud-init v\. |Reached target .*[Bb]asic"
    rb"|cc_growpart\.py\[|cc_resizefs\.py\[|Running module (?:growpart|resizefs) .* failed"
    rb"|Failed to resize filesystem|OSError: \[Errno 28\] No space left on device"
)
_NO_SPACE = "OSError: [Errno 28] No space left on device"
_TRACEBACK_LINES = 60
_RESIZING = re.compile(
    r"EXT[234]-fs \((?P<ext>[^)]+)\): resizing filesystem from (?P<ext_old>\d+) to (?P<ext_new>\d+)"
    r"|BTRFS info \(device (?P<btrfs>[^ )]+).*: resize device .* from (?P<btrfs_old>\d+) to (?P<btrfs_new>\d+)"
)


@dataclass(frozen=True, slots=True)
class Picture:
    """The root partition and filesystem at one moment, as the guest measured them."""

    block: GuestBlock
    partition: GuestDevice | None
    filesystem: GuestFilesystem | None
    reserve_bytes: int

    @property
    def disk(self) -> GuestDevice | None:
        """The disk that holds the partition."""
        name = self.partition.parent if self.partition else ""
        return next((one for one in self.block.devices if one.name == name), None)

    @property
    def behind(self) -> GuestDevice | None:
        """The next partition behind root's on the same disk."""
        part = self.partition
        if part is None:
            return None
        end_bytes = part.start_bytes + part.size_bytes
        followers = (
            one
            for one in self.block.devices
            if (one.type, one.parent) == ("part", part.parent) and one.start_bytes >= end_bytes
        )
        return min(followers, key=lambda one: one.start_bytes, default=None)

    @property
    def room_bytes(self) -> int | None:
        """How much the partition could gain before the next one, or the second table, begins."""
        if self.partition is None or self.disk is None:
            return None
        end_bytes = self.disk.size_bytes - self.reserve_bytes
        limit = self.behind.start_bytes if self.behind else end_bytes
        return max(0, limit - self.partition.start_bytes - self.partition.size_bytes)


@dataclass(frozen=True)
class View:
    """The evidence of one boot.

    Attributes
    ----------
    parsed : ParsedConsole
    console : tuple of Evidence
        Telling lines of the console itself.
    disk_before, disk_after : mapping
        What ``inspect`` said of the disk before and after the boot; empty where unknown.
    image_bytes : int or None
        The image's virtual size.
    stages : sequence of mapping
        ``stage``, ``start_s``, ``end_s`` on the host's clock.
    times : mapping
        Transcript line -> seconds on the host's clock.
    user_data_faults : sequence of tuple
        Line of the user-data and what is wrong there.
    """

    parsed: ParsedConsole
    console: tuple[Evidence, ...]
    disk_before: Mapping[str, Any]
    disk_after: Mapping[str, Any]
    image_bytes: int | None
    stages: Sequence[Mapping[str, Any]]
    times: Mapping[int, float]
    user_data_faults: Sequence[tuple[int, str]] = ()

    @property
    def table(self) -> str | None:
        """The kind of the disk's partition table, ``gpt`` or ``dos``; None where unknown."""
        return self.disk_after.get("table") or self.disk_before.get("table")

    @property
    def before(self) -> Picture | None:
        """The picture from bootcmd."""
        return self._picture(self.parsed.block("before"))

    @property
    def after(self) -> Picture | None:
        """The picture from cloud-init's end."""
        return self._picture(self.parsed.block("after"))

    def pictures(self) -> list[Picture]:
        """Return what was measured, in the order of the guest's clock."""
        found = [self._picture(block) for block in self.parsed.blocks]
        timed = [one for one in found if one is not None and one.block.uptime_s is not None]
        return sorted(timed, key=lambda one: one.block.uptime_s or 0.0)

    @property
    def root(self) -> str:
        """The device that the root filesystem lies on, e.g. ``vda1``; empty where unknown."""
        return next(
            (
                filesystem.device
                for block in self.parsed.blocks
                for filesystem in block.filesystems
                if filesystem.mountpoint == "/"
            ),
            "",
        )

    def root_device(self) -> GuestDevice | None:
        """Return the root filesystem's own device: a partition, a volume or a disk."""
        return next(
            (
                device
                for block in self.parsed.blocks
                for device in block.devices
                if device.name == self.root
            ),
            None,
        )

    def fact(self, name: str) -> Evidence | None:
        """Return a fact of the last report that has it, as ``name: value``."""
        for picture in (self.after, self.before):
            for fact in picture.block.facts if picture else ():
                if fact.name == name:
                    return Evidence(Source.REPORT, f"{name}: {fact.value}", fact.line)
        return None

    def said(self, name: str) -> str:
        """Return a fact's value; empty where nobody told it."""
        found = self.fact(name)
        return found.text.removeprefix(f"{name}: ") if found else ""

    def logged(self, pattern: str) -> Evidence | None:
        """Return the last line that ``pattern`` is found in, of the guest's logs or the console."""
        lines = (*reversed(self.log), *reversed(self.console))
        return next((one for one in lines if re.search(pattern, one.text)), None)

    def shown(self, pattern: str) -> Evidence | None:
        """Return the first telling console line that ``pattern`` is found in."""
        return next((one for one in self.console if re.search(pattern, one.text)), None)

    def no_space(self, failure: Evidence) -> Evidence | None:
        """Return the console line at the end of a failure's traceback, if it says: no space."""
        first = failure.line or 0
        traceback = range(first, first + _TRACEBACK_LINES)
        ends = (one for one in self.console if one.line in traceback and _NO_SPACE in one.text)
        return next(ends, None)

    @property
    def log(self) -> tuple[Evidence, ...]:
        """The lines that the guest handed over of its logs."""
        block = self.parsed.block("after")
        return tuple(
            Evidence(_log_source(log.text), log.text, log.line)
            for log in (block.logs if block else ())
        )

    def resizings(self) -> Iterator[Evidence]:
        """Yield when the kernel grew the root filesystem, by its own words.

        The console's line is preferred to the same one in the guest's log: it came at its time.
        """
        seen = set()
        for line in (*self.console, *self.log):
            match = _RESIZING.search(line.text)
            if match is None or (match["ext"] or match["btrfs"]) not in self._kernel_names():
                continue
            kind = "ext" if match["ext"] else "btrfs"
            # systemd-growfs asks for a size even where it is the old one, and the kernel says so.
            grew = int(match[f"{kind}_new"]) > int(match[f"{kind}_old"])
            said = (uptime_of(line), match[0])
            if grew and said not in seen:
                seen.add(said)
                yield line

    def when_said(self, line: Evidence) -> When:
        """Return when something happened that a line told at its time."""
        host_s = self.times.get(line.line) if line.source is Source.CONSOLE and line.line else None
        return When(stage=self._stage_at(host_s), guest_s=uptime_of(line), host_s=host_s)

    def when_seen(self, block: GuestBlock, last: GuestBlock | None) -> When:
        """Return when something happened that ``block`` was the first to show.

        Parameters
        ----------
        block : GuestBlock
        last : GuestBlock or None
            The last one that did not show it yet.
        """
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

    def on_disk(self, disk: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return what ``inspect`` says of the root partition; of the largest if nobody named it."""
        partitions = list(disk.get("partitions", ()))
        holder = self._holder(self.root_device())
        if holder is not None:
            number = re.search(r"\d+$", holder.name) if holder.type == "part" else None
            wanted = int(number[0]) if number else None
            return next((one for one in partitions if one["number"] == wanted), None)
        return max(partitions, key=lambda one: one["size_bytes"], default=None)

    def cloud_init_ran(self) -> bool | None:
        """Tell whether cloud-init began; None where nothing shows it.

        That it is not named tells something only of a console on which systemd names what it
        starts.
        """
        if self.parsed.blocks or any(
            str(one["stage"]).startswith("cloud-init") for one in self.stages
        ):
            return True
        if self.shown(r"Starting .*cloud-init|Cloud-init v\. "):
            return True
        return None if None in self.silence() else False

    def silence(self) -> list[Evidence | None]:
        """Return the console lines between which cloud-init would have been named."""
        return [self.shown(r"Reached target .*[Bb]asic"), self.shown(r"login:")]

    def _picture(self, block: GuestBlock | None) -> Picture | None:
        if block is None:
            return None
        filesystem = next((one for one in block.filesystems if one.mountpoint == "/"), None)
        device = next((one for one in block.devices if one.name == self.root), None)
        holder = self._holder(device, block)
        partition = holder if holder and holder.type == "part" else None
        # The table of a disk that was not looked at is taken for what cloud images have.
        reserve_bytes = 0 if self.table == "dos" else GPT_TAIL_BYTES
        return Picture(block, partition, filesystem, reserve_bytes)

    def _holder(
        self, device: GuestDevice | None, block: GuestBlock | None = None
    ) -> GuestDevice | None:
        """Return the partition or disk below a volume."""
        blocks = self.parsed.blocks if block is None else (block,)
        devices = {one.name: one for each in blocks for one in each.devices}
        for _ in devices:  # no longer than there are devices, whatever a guest says
            if device is None or device.type in {"part", "disk"}:
                return device
            device = devices.get(device.parent)
        return None

    def _kernel_names(self) -> set[str]:
        """Return what the kernel may call the root device in its messages."""
        names = {self.root, self.said("root_kernel_name")} - {""}
        if len(names) == 1 and self._mapped_devices() == {self.root}:
            names.add("dm-0")  # the only mapping is the first
        return names

    def _mapped_devices(self) -> set[str]:
        others = ("part", "disk", "rom", "md", "raid", "linear")
        devices = {one for block in self.parsed.blocks for one in block.devices}
        return {one.name for one in devices if not one.type.startswith(others)}

    def _stage_at(self, host_s: float | None) -> str | None:
        if host_s is None:
            return None
        return next(
            (
                str(one["stage"])
                for one in self.stages
                if float(one["start_s"]) <= host_s < float(one["end_s"])
            ),
            None,
        )


def uptime_of(line: Evidence) -> float | None:
    """Return the guest's uptime that a line of the kernel or the journal begins with."""
    match = _STAMP.search(line.text)
    return float(match[1]) if match else None


def telling_lines(console: Iterable[bytes]) -> tuple[Evidence, ...]:
    """Return the console's lines that say something about growth, numbered from 1."""
    return tuple(
        Evidence(Source.CONSOLE, printable(raw[:LONGEST_LINE_BYTES])[:300], number)
        for number, raw in enumerate(console, start=1)
        if _TELLING.search(raw.rstrip()) and b"@cloudlab " not in raw
    )


def device_evidence(device: GuestDevice) -> Evidence:
    """Return what the guest measured of a device."""
    text = f"{device.name} size_bytes {device.size_bytes} start_bytes {device.start_bytes}"
    return Evidence(Source.REPORT, text, device.line)


def filesystem_evidence(filesystem: GuestFilesystem) -> Evidence:
    """Return what the guest measured of a filesystem."""
    text = f"{filesystem.device} {filesystem.fstype} size_bytes {filesystem.size_bytes}"
    return Evidence(Source.REPORT, text, filesystem.line)


def partition_evidence(moment: str, partition: Mapping[str, Any]) -> Evidence:
    """Return what the host read off the disk of a partition, or of a disk without any."""
    number = partition["number"]
    name = "the whole disk" if number is None else f"partition {number}"
    return Evidence(Source.DISK, f"{moment}: {name}, {partition['size_bytes']} bytes")


def _log_source(text: str) -> Source:
    if _CLOUD_INIT_LINE.match(text):
        return Source.CLOUD_INIT_LOG
    return Source.JOURNAL if "systemd" in text else Source.KERNEL_LOG
