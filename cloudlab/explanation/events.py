"""What logs and programs say about growth, line by line, as typed events.

The words are those of cloud-init 0.7.9 to 26.x (cc_growpart.py, cc_resizefs.py, helpers.py,
ds-identify), growpart 0.27 to 0.34, Debian's and dracut's growroot, the kernel, systemd,
util-linux, e2fsprogs, xfsprogs, btrfs-progs, LVM, parted and gdisk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from cloudlab.explanation.evidence import Document, Line
from cloudlab.explanation.model import ON_PURPOSE, Source
from cloudlab.explanation.names import FIRST_DISK, disk_of, number_of, partition_name, short_name
from cloudlab.units import SECTOR_BYTES


class Kind(StrEnum):
    """What an event says."""

    CHANGED = "cloud-init's growpart changed a partition"
    TRIED = "cloud-init's growpart left an entry as it was"
    GROWPART_OFF = "growpart is off"
    UNLISTED = "cloud.cfg does not list growpart"
    LISTED = "cloud.cfg lists growpart"
    GROWROOT_MARKER = "/etc/growroot-disabled"
    MODE_UNKNOWN = "growpart's mode is unknown"
    GROWPART_MISSING = "no growpart program"
    NO_DEVICES = "growpart's list of devices is empty"
    GROWPART_BROKE = "cloud-init's growpart module or its command failed"
    PROGRAM = "what the growpart program printed"
    GREW = "a program says that it resized a partition"
    BLOCKED = "a script says that another partition follows root's"
    NOT_A_PARTITION = "growroot: root is not a partition"
    REPART = "systemd-repart grows a partition"
    REPART_DISK = "the disk that systemd-repart changes"
    REPART_FAILED = "systemd-repart failed"
    RESIZED = "cloud-init's resizefs ran its command"
    TOOK_LONG = "cloud-init's resizefs took so long that it resized something"
    FORKED = "cloud-init's resizefs started its command in the background"
    RESIZE_OFF = "resizefs is off"
    UNSUPPORTED = "cloud-init cannot resize this filesystem"
    RESIZE_FAILED = "a resize command failed"
    NO_DEVICE = "root's device has no such name"
    OVERLAY_ROOT = "root is an overlay"
    ROOT_IS = "cloud-init names root's device"
    ALREADY_RAN = "a module ran already"
    MODULE = "cloud-init runs a module"
    KERNEL = "the kernel grows a filesystem"
    KERNEL_ENDS = "the kernel says how large a filesystem became, whether it grew or not"
    TOOL = "a resize program grew a filesystem"
    TOOL_BEGINS = "a resize program begins, with the size that it sees or wants"
    TOOL_MISSING = "a program that resizing needs is not installed"
    IDLE = "a resize program found nothing to do"
    MARKED = "an ext4 filesystem is marked with errors"
    BLOCKS = "how many blocks a filesystem has"
    GROWFS = "systemd-growfs ran, whether it grew a filesystem or found it grown"
    SERVICE_ENDED = "a service that grows only root's filesystem ended well, whether it grew or not"
    GROWFS_LUKS = "systemd-growfs could not resize the encrypted device"
    VIRTUAL_SIZE = "a disk image's size, as the host sees it"
    MOUNTED = "the kernel mounted a filesystem"
    CAPACITY = "a disk's size changed"
    GPT_BACKUP = "the backup GPT is not at the disk's end"
    TABLE_BUSY = "the kernel keeps the old partition table"
    RESCANNED = "the kernel was made to read the table again"
    TABLE_EDITED = "a partitioning program wrote the table"
    TABLE_DRAFT = "a partitioning program changed a table that it has not written yet"
    LAYER = "a logical volume, encrypted device or array is to be resized, or was"
    MBR_LIMIT = "an MBR ends at 2 TiB"
    NO_SPACE = "no space left on device"
    BASIC = "systemd reached its basic target"
    LOGIN = "a login prompt"
    DISABLED = "cloud-init is disabled or did not start"
    RAN = "cloud-init ran"
    IGNORED = "cloud-init ignored user-data"
    COMMAND_LINE = "the kernel's command line, one for each boot"
    DOUBTFUL = "cloud-init complained about user-data"
    ONCE_PER_INSTANCE = "what runs once per instance ran already"
    GROWFS_STARTS = "systemd-growfs starts"
    GROWFS_ENDS = "systemd-growfs ended"


_ENTRY = r"'(?P<entry>[^']*)' "
# Other programs put their own name before "status".
_STATUS = r"(?:^[\s{\"]*|cloud-init |, \"|\]: )status\"?: \"?"
_TABLE = {
    Kind.CHANGED: _ENTRY + r"resized: changed \((?P<device>[^,)]+)(?:, (?P<number>\d+))?\)"
    r"(?: from (?P<old>\d+) to (?P<new>\d+))?",
    Kind.TRIED: _ENTRY + r"(?P<verb>NOCHANGE|SKIPPED|FAILED): (?P<why>.*)",
    Kind.TOOL_MISSING: r"(?:directory: b?'|Did not have |found but no |\b(?=\w+:?(?: command)? (?:not found|is req)))"
    r"(?P<program>resize2fs|xfs_growfs|btrfs|s[fg]disk)\b|no tools available to resize",
    Kind.GROWPART_OFF: r"growpart disabled: mode=",
    Kind.LISTED: r"^(?:\S*[:-])?\s*- \[?growpart(?:, \w+\])?\s*$",
    Kind.GROWROOT_MARKER: r"/etc/growroot-disabled exists",
    Kind.MODE_UNKNOWN: r"unknown resize mode|: mode (?:gpart|growfs) not available"
    r"|'growpart' in config was not a dict",
    Kind.GROWPART_MISSING: r"No resizers available|: mode growpart not available|growpart: (?:command )?not found|'growpart' not found"
    r"|cloud-(?:utils-growpart|guest-utils|utils) is not installed"
    r"|no packages found matching cloud-guest-utils|which: no growpart|If 'growpart' is not a typo",
    Kind.NO_DEVICES: r"growpart: empty device list",
    Kind.GROWPART_BROKE: r"Running module (?:cc_)?growpart .*failed|'growpart', \w*(?:Error|Exception)\("
    r"|Failed:? growpart (?:--dry-run )?(?:for )?\(?(?P<device>/dev/[^ ,)]+),? (?P<number>\d+)"
    r"|Failed: (?:gpart (?:recover|resize)|parted|service growfs)\b"
    r"|gce-disk-expand: (?:Unable to resize|Failed to resize partition|Fallback growpart also|No 'resizepart|couldn't)",
    Kind.NOT_A_PARTITION: r"growroot: (?P<device>/dev/\S+) is not a partition|expand: Root is not a partition",
    Kind.BLOCKED: r"Root partition is not final partition on disk|is not the last partition\. Don't know how",
    Kind.PROGRAM: r"(?<![\w'])(?P<verb>CHANGED|CHANGE|NOCHANGE): (?P<why>(?:disk=\S+ )?(?:partition|/dev/).*)"
    r"|(?<![\w'\[])(?P<failed>FAILED): (?P<cause>.*)"
    r"|(?P<no_tool>no tools available to resize disk)"
    r"|(?P<refused>must supply (?:disk and )?partition-number|unexpected output in sfdisk --version)"
    r"|GROWROOT: (?P<warning>WARNING: resize failed.*)",
    # Google's script names its failures only.
    Kind.GREW: r"(?:Resized partition (?=/dev/)|^(?=[a-z]+\d+(?:p\d+|s\d+[a-h]?|[a-h]) resized$)"
    r"|gce-disk-expand: Resizing (?=/dev/\S+ partition))(?P<device>\S+)(?: partition (?P<number>\d+))?",
    # In its table: offset, old and new size, and both again with units; a new partition's was 0.
    Kind.REPART: r"Growing existing partition (?P<number>\d+)"
    r"|(?P<device>/dev/\S+) +\d+ +(?P<old>[1-9]\d*) +(?P<new>\d+) +\S+ (?:→|->) ",
    Kind.REPART_DISK: r"Applying changes to (?P<device>/dev/\S+)",
    Kind.REPART_FAILED: r"systemd-repart\S*: (?P<why>(?!.*(?:ignoring|reread))Failed to .*|Can't fit requested.*)",
    Kind.RESIZED: r"Resized root filesystem \(type=(?P<fstype>[^,)]+)",
    # Where there is nothing to do it takes a fraction of a second.
    Kind.TOOK_LONG: r"Resizing took \d{2,}\.\d+ seconds",
    Kind.FORKED: r"Resizing \(via forking\) root filesystem \(type=(?P<fstype>[^,)]+)",
    Kind.RESIZE_OFF: r"Skipping module named \S*resizefs, resizing disabled",
    Kind.UNSUPPORTED: r"(?:Not resizing unknown|expand\S*: Unsupported) filesystem type (?P<fstype>[^\s,]+)",
    Kind.GROWFS: r'Successfully resized "(?P<mount>[^"]*)" to (?P<size>[\d.]+ ?[BKMGTP]?)',
    Kind.SERVICE_ENDED: r"google[_-]disk[_-]expand\S*: (?:Done\.|Succeeded|Deactivated succ)"
    r"|(?:resize2fs_once|resize-?root\w*)\.service: (?:Succeeded|Deactivated succ)"
    r"|systemd\[1\]: (?:Started|Finished) .*(?:Grow the root|Resize the root) filesystem",
    Kind.GROWFS_LUKS: r'Unable to resize underlying device of "(?P<mount>[^"]*)"|crypt_resize\(\) of \S+ failed',
    Kind.RESIZE_FAILED: r"Failed to resize filesystem \(cmd=|Running module (?:cc_)?resizefs .*failed"
    r"|'resizefs', \w*(?:Error|Exception)\("
    r'|Failed to resize "(?P<mount>[^"]*)" to [^:]*: (?P<why>.*)'
    r"|resize2fs: (?P<ext>(?!On-line resizing|\d).*)"
    r"|xfs_growfs: (?P<xfs>.*(?:fail|cannot|error|not ).*)"
    r"|unable to resize '(?P<path>[^']*)': (?P<btrfs>.*)"
    r"|systemd-growfs\S*: Failed to (?!resize)(?P<growfs>.*)"
    r"|EXT4-fs warning \(device (?P<on>[^)]+)\): .*(?:occurred during file system resize"
    r"|online resizing is not allowed)"
    r"|Calling (?:resize2fs|xfs_growfs|btrfs) .*failed:"
    r"|open: .* while opening /dev/(?!root\b)|[Pp]lease run 'e2fsck -f"
    r"|growfs\S*: (?P<locked>Nothing to read on input|No key available with this passphrase)"
    r"|(?:ignition-ostree-growfs|systemd-growfs@-|systemd-growfs-root|resize2fs_once"
    r"|resize-?root\w*|coreos-growpart)\.service: Failed with result"
    r"|Failed to start .*(?:Grow (?:root|Root|File System on /(?!\w))|Resize the root filesystem)",
    Kind.NO_DEVICE: r"[Dd]evice '(?P<device>[^']*)' (?:did not exist|not a block device)\S*.*cannot resize"
    r"|Unable to find device '(?P<lost>/dev/root)'|while opening (?P<absent>/dev/root)\b",
    Kind.OVERLAY_ROOT: r"Not attempting to resize devpath 'overlayroot'",
    Kind.ROOT_IS: r"resize_info: dev=(?P<device>\S+) mnt_point=/ ",
    Kind.ALREADY_RAN: r"config-(?:cc_)?(?P<module>growpart|resizefs) already ran",
    Kind.MODULE: r"Running module (?:cc_)?(?P<module>growpart|resizefs) \(<module",
    Kind.KERNEL: r"EXT[234]-fs \((?P<device>[^)]+)\): resizing filesystem from (?P<old>\d+) to (?P<new>\d+)"
    r"|BTRFS info \(device (?P<btrfs>[^ )]+).*: resize device .* from (?P<from>\d+) to (?P<to>\d+)",
    Kind.KERNEL_ENDS: r"EXT4-fs \((?P<device>[^)]+)\): resized filesystem to (?P<new>\d+)",
    Kind.VIRTUAL_SIZE: r"^virtual size: .*\((?P<bytes>\d+) bytes\)"
    r"|^(?:virtio|scsi|sata|ide)\d+: (?!.*media=cdrom).*\bsize=(?P<size>\d+[KMGT]?)",
    Kind.MARKED: r"EXT4-fs \((?P<device>[^)]+)\): warning: mounting fs with errors"
    r"|^Filesystem state: .*with errors",
    Kind.MOUNTED: r"EXT[234]-fs \((?P<device>[^)]+)\): mounted filesystem|XFS \((?P<xfs>[^)]+)\): Mounting V",
    Kind.TOOL: r"The filesystem on (?P<device>\S+) is now (?P<blocks>\d+) (?:\((?P<unit>\d+)k\) )?blocks"
    r"|data blocks changed from (?P<old>\d+) to (?P<new>\d+)",
    Kind.TOOL_BEGINS: r"Resizing the filesystem on (?P<device>\S+) to (?P<blocks>\d+) \((?P<unit>\d+)k\) blocks"
    r"|Resize '(?P<whole>/[^']*)' of '"
    r"|Resize device id \d+ \((?P<btrfs>/dev/\S+)\) from (?P<old>\S+) to (?P<new>\S+)",
    Kind.IDLE: r"The filesystem is already (?P<blocks>\d+) (?:\((?P<unit>\d+)k\) )?blocks long"
    r"|^data +=.*bsize=(?P<bsize>\d+) +blocks=(?P<count>\d+)|data size unchanged, skipping"
    r"|Skip resize filesystem type \S+ for /$",
    Kind.BLOCKS: r"^\s*Block count: +(?P<blocks>\d+)$",
    Kind.CAPACITY: r"(?P<device>[a-z][\w-]*): detected capacity change from (?P<old>[1-9]\d*) to (?P<new>\d+)"
    r"|\[(?P<disk>[a-z]\w+)\] new size: (?P<sectors>\d+) 512-byte",
    Kind.GPT_BACKUP: r"GPT: ?(?:Primary header thinks Alt\.|Alternate GPT) header (?:is )?not at the end"
    r"|backup GPT table is not on the end|PMBR size mismatch"
    r"|Not all of the space available to|secondary header's self-pointer indicates"
    r"|backup GPT table is not at the end|=> +\d+ +\d+ +(?P<near>\w+) +GPT .*\[CORRUPT\]",
    Kind.TABLE_BUSY: r"[Tt]he kernel (?:still uses the old|is still using the old)"
    r"|[Rr]e-?read(?:ing)? (?:the )?partition table\W? failed.*(?:busy|Invalid)"
    r"|Failed to reread partition table: .*(?:busy|Invalid)|unable to inform the kernel|old partition\(s\) will remain in use"
    r"|kernel failed to re-read the partition table|BLKPG: Device or resource busy"
    r"|Failed to (?:remove|add|update\w*) .*partition .*[Bb]usy|updating partition #\d+ failed",
    Kind.MBR_LIMIT: r"DOS partition table format cannot be used|MBR/dos partitioned disk is larger than 2TB"
    r"|exceeds the msdos-partition-table-imposed maximum",
    Kind.NO_SPACE: r"No space left on device",
    Kind.DISABLED: rf"[Cc]loud-init disabled by|cloud-init\S* is disabled via|{_STATUS}(?:disabled|not run|not started)\b"
    r"|boot_status_code\"?: \"?disabled|Disabled cloud-init \[|cloud-init: (?:command )?not found",
    Kind.RAN: r"Cloud-init v\. |Starting .*(?:cloud-init|Cloud-init)|\.py\[(?:DEBUG|INFO|WARNING)\]: "
    rf"|{_STATUS}(?:done|running|error|degraded)\b",
    # Raspberry Pi OS runs such a script instead of init, in the first boot only.
    Kind.COMMAND_LINE: r"Kernel command line: (?=.*\broot=(?P<root>\S+)|)"
    r"(?=.*\binit=(?P<script>\S*/(?:init_resize\.sh|firstboot))\b|)",
    Kind.BASIC: r"Reached target .*[Bb]asic",
    Kind.LOGIN: r"^[\w.-]+ login:",
    Kind.IGNORED: r"[Uu]nhandled (?:non-multipart|unknown content-type|.*userdata)|Failed loading yaml"
    r"|Failed at merging in cloud config|Unexpected failure parsing userdata",
    Kind.DOUBTFUL: r"Invalid cloud-config provided|failed schema validation",
    Kind.ONCE_PER_INSTANCE: r"already ran \(freq=once-per-instance\)",
    # Not every systemd lets growfs itself say what it did, but all say when it ran.
    Kind.GROWFS_STARTS: r"systemd\[1\]: Starting (?:systemd-growfs(?:-root|@-)\.|Grow File System on /\.)",
    Kind.GROWFS_ENDS: r"systemd\[1\]: Finished (?:systemd-growfs(?:-root|@-)\.|Grow File System on /\.)",
    Kind.TABLE_EDITED: r"(?P<wrote>The partition table has been altered|OK; writing new GUID|need to update /etc/fstab"
    r"|[$#] (?:sudo )?sgdisk .*(?:-n ?\d|--new))|The operation has completed succ"
    r"|^\w+ recovered$",
    Kind.RESCANNED: r"[#$] (?:sudo )?(?:partprobe|partx (?:-u|-a|--update)|kpartx -u|blockdev --rereadpt"
    r"|(?:systemctl |/sbin/)?reboot|shutdown -r|init 6)\b|closed by remote host"
    r"|^(?P<device>/dev/\S+): partition #(?P<number>\d+) resized",
    Kind.TABLE_DRAFT: r"^New situation|Created a new partition \d+ of type|Partition \d+ (?:has been|is) deleted"
    r"|Partition \d+ of type .* is set|Changed type of partition to '",
    Kind.LAYER: r"(?:Size of|Extending|Resizing) logical volume (?P<volume>\S+) (?:to|changed)"
    r"|Logical volume (?P<resized>\S+) successfully resized"
    r"|[#$] (?:sudo )?(?:lv(?:extend|resize)\b.*?\s(?P<wanted>/dev/\S+|[\w.+-]+/\S+)"
    r"|cryptsetup\b.* resize|mdadm\b.* (?:--grow|-G\b))|component size of \S+ (?:has been|unch)",
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _TABLE.items()}
_OF_RESIZE = {Kind.TOOL, Kind.IDLE, Kind.BLOCKS, Kind.RESIZE_FAILED}
# These say more than one thing.
_ALSO = {Kind.RAN, Kind.IGNORED, Kind.NO_SPACE, Kind.TOOL_MISSING}

#: A program at a shell's prompt, in a trace, in cloud-init's log or in user-data.
_GROWPART = re.compile(
    r"(?<!  - )growpart['\"]?,?(?P<options>(?: ['\"]?-[\w-]+['\"]?,?)*)"
    r" ['\"]?(?P<device>/dev/[\w/.+-]+)(?:['\"]?,? ['\"]?p?(?P<number>\d+)\b)?"
)
_RESIZE = re.compile(
    r"(?:^|[#$] |\+ |sudo )(?:sudo )?(?:resize2fs(?P<least> -M)?|xfs_growfs|btrfs filesystem resize)\b"
    r"(?!:| \d+\.).*?(?P<target>/\S*)?(?P<wanted> +\d+[sKMGT]?)?\s*$"
)
# What dumpe2fs, tune2fs and xfs_info are run on, and where that was mounted.
_DUMPED_ON = re.compile(
    r"(?:dumpe2fs|tune2fs|xfs_info) (?:-\w+ )*(?P<target>/\S*)|Last mounted on: +(?P<last>\S+)"
)
_OF_DISK = {
    Kind.GPT_BACKUP, Kind.TABLE_BUSY, Kind.MBR_LIMIT, Kind.TABLE_EDITED, Kind.TABLE_DRAFT,
}  # fmt: skip
# A path, or the kernel's list of a disk's partitions.
_DISK = re.compile(
    r"/dev/((?:[hsv]|xv)d[a-z]+|nvme\d+n\d+|mmcblk\d+|md\d+)"
    r"|(?:\]|kernel:|^) +([a-z]\w+): (?:[a-z]\w*\d(?:\s+|$))+$"
)
# What stands around growpart's output in a script's: the table's dump before, the resize after.
_DUMPED = re.compile(r"(?:sfdisk .*--dump|^device:) (/dev/\S+)|^(/dev/\S+) : start=")
_RESIZING = re.compile(
    r"(?:meta-data=|[Ff]ilesystem (?:on|at) |trying to open |e2fsck -f )(/dev/[\w/.-]+)"
    r"|^(/dev/\S+): \d+/\d+ files"
)
_AROUND_LINES = 12
_MOST_LINES = 200
_GROWFS_UNIT = re.compile(r"Grow File System on (?P<mount>/\S*?)\.*$")
_DEVICE = re.compile(r"/dev/(?!null)\w|\b(?:[hsv]|xv)d[a-z]\d*\b|\bnvme\d")
# The device in a failure's message; links such as /dev/root may point to any.
_FAILED_ON = re.compile(r"/dev/(?!root\b|block/|disk/)[\w/.-]+")
_UPTIME = re.compile(r"\[ *(\d+\.\d+)\]")
# Programs of the initramfs, and programs that grow nothing but root, by their names in logs.
_IN_INITRAMFS = re.compile(r"dracut-|initramfs|initcpio|ignition-ostree-growfs|gce-disk-expand")
_ROOT_SCRIPT = re.compile(
    r"GROWROOT|coreos-growpart|ignition-ostree-growfs|grow-?rootfs|resize2fs_once|g(?:oogle|ce)[_-]disk[_-]expand"
)
_NEAR_LINES = 40
# The file and the number that grep puts before a line.
_GREPPED = re.compile(r"^(?:/\S*[:-])?(?:\d+[:-])?")
#: How far apart lines of one traceback or one program's output may be.
NEAR_LINES = 80
#: How far apart lines may be of one program, or of a program and one that it called.
SOON_LINES = 12
_TRACEBACK_LINES = 60
# A lack of space for a program's own files: resize programs print the same of their device.
_NO_DIRECTORY = re.compile(r"(?:mkdir|mktemp)\b")
_NO_ROOM = re.compile(r"Errno 28|(?:mkdir|mktemp)\b")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a line says.

    Attributes
    ----------
    kind : Kind
    at : Line
    values : dict of str to str
        What the line names, by the groups of its pattern, or the command before it.
    """

    kind: Kind
    at: Line
    values: dict[str, str]

    def get(self, *names: str) -> str:
        """Return the first value that the line has; empty if it has none."""
        return next((self.values[name] for name in names if self.values.get(name)), "")

    @property
    def bytes_named(self) -> int:
        """The size that a resize program or the kernel names for a filesystem; 0 if none."""
        count, unit = self.get("blocks", "count", "new"), self.get("unit", "bsize")
        if self.get("btrfs") or not count.isdigit():
            return int(self.get("to") or 0)
        return int(count) * (int(unit) if self.get("bsize") else int(unit or 4) * 1024)

    @property
    def partition(self) -> str:
        """The partition that an event of growpart is about; empty if it names none."""
        device = short_name(self.get("device"))
        number = self.get("number")
        if not device:
            match = re.search(r"disk=(/dev/[^,\s]+), ptnum=(\d+)", self.at.text) or re.search(
                r"\((/dev/[^,\s)]+), (\d+)\)", self.at.text
            )
            if match is None:
                match = re.search(r"'(/dev/[^']+)'|\((/dev/[^,\s)]+)\)", self.get("why"))
                return short_name(match[1] or match[2]) if match else ""
            device, number = short_name(match[1]), match[2]
        if number and (block := re.fullmatch(r"block/(\d+):(\d+)", device)):
            if block[1] != "8":  # only SCSI's numbers are fixed
                return ""
            device = f"sd{chr(ord('a') + int(block[2]) // 16 % 26)}"
        return partition_name(device, number) if number else device

    @property
    def partition_sizes(self) -> tuple[int | None, int | None]:
        """The sizes that a partition had and has, in bytes, as growpart names them."""
        if self.get("old") and self.get("new"):
            return int(self.get("old")), int(self.get("new"))
        match = re.search(r"old: size=(\d+).*new: size=(\d+)", self.at.text)
        return (
            (int(match[1]) * SECTOR_BYTES, int(match[2]) * SECTOR_BYTES) if match else (None, None)
        )

    @property
    def failed(self) -> bool:
        """Whether the growpart program failed."""
        return bool(self.get("failed", "no_tool", "refused", "warning"))

    @property
    def idle(self) -> bool:
        """Whether the growpart program found nothing to do."""
        return self.get("verb") == "NOCHANGE"

    @property
    def larger(self) -> bool:
        """Whether a filesystem became larger, as far as the line or its command shows."""
        old, new = (int(self.get(*names) or 0) for names in (("old", "from"), ("new", "to")))
        return not self.get("wanted") and (new > old or not old)

    @property
    def in_initramfs(self) -> bool:
        """Whether a program of the initramfs wrote the line."""
        return bool(_IN_INITRAMFS.search(self.at.text))

    @property
    def of_root_script(self) -> bool:
        """Whether a program that grows nothing but root wrote the line."""
        return bool(_ROOT_SCRIPT.search(self.at.text))

    @property
    def uptime_s(self) -> float | None:
        """The kernel's clock, where the line shows it."""
        match = _UPTIME.search(self.at.text)
        return float(match[1]) if match else None


class EventLog:
    """What has events, in order."""

    events: list[Event]

    def last(self, *kinds: Kind) -> Event | None:
        """Return the last event of these kinds."""
        return next((one for one in reversed(self.events) if one.kind in kinds), None)

    def all(self, *kinds: Kind) -> list[Event]:
        """Return the events of these kinds, in order."""
        return [one for one in self.events if one.kind in kinds]

    @property
    def changes(self) -> list[Event]:
        """What says that growpart changed a partition, as it or cloud-init puts it."""
        found = self.all(Kind.CHANGED, Kind.PROGRAM)
        return [one for one in found if one.kind is Kind.CHANGED or one.get("verb") == "CHANGED"]

    def enlargements(self, disk: str) -> list[Event]:
        """Return what says that a disk became larger."""
        found = self.all(Kind.CAPACITY)
        return [one for one in found if one.larger and one.get("device", "disk") == disk]

    def rescanned_after(self, at: Line) -> int:
        """Return the order of the last rescan or reboot after a line, or else its own."""
        last = self.last(Kind.RESCANNED)
        return max(at.order, last.at.order if last else -1)

    def table_edits(self, mine: Callable[[Event], bool]) -> tuple[list[int], list[int]]:
        """Return the orders of changes by hand to a table: of those that were written, and others."""
        written: list[int] = []
        drafts: list[int] = []
        kinds = Kind.TABLE_DRAFT, Kind.TABLE_EDITED, Kind.TABLE_BUSY
        for one in filter(mine, self.all(*kinds)):
            if one.kind is Kind.TABLE_DRAFT:
                drafts.append(one.at.order)
            elif one.get("wrote") or (drafts and one.kind is Kind.TABLE_BUSY):
                written.append(drafts[-1] if drafts else one.at.order)
                drafts = []
        return written, drafts

    @property
    def named_roots(self) -> list[str]:
        """The devices that cloud-init names as root's, the last one first."""
        named = [short_name(one.get("device")) for one in reversed(self.all(Kind.ROOT_IS))]
        tried = [one for one in self.all(Kind.CHANGED, Kind.TRIED) if one.get("entry") == "/"]
        named += [one.partition for one in reversed(tried)]
        return [one for one in named if not one.startswith("disk/")]

    @property
    def likely_roots(self) -> list[str]:
        """What the kernel mounted from a mapping, or where a machine's root usually is."""
        mounted = [short_name(one.get("device", "xfs")) for one in self.all(Kind.MOUNTED)]
        disks = {one: disk_of(one) or one for one in mounted}
        return [one for one, disk in disks.items() if FIRST_DISK.fullmatch(disk) or "-" in disk]

    @property
    def silence(self) -> list[Event]:
        """The lines between which systemd would have started cloud-init, if it did not."""
        basic, login = self.last(Kind.BASIC), self.last(Kind.LOGIN)
        if basic and login and basic.at.file == login.at.file and not self.last(Kind.RAN):
            return [basic, login]
        return []

    @property
    def disabled(self) -> Event | None:
        """What says that cloud-init is disabled since it last ran, best of all why."""
        ran = self.last(Kind.RAN)
        found = [one for one in self.all(Kind.DISABLED) if not ran or one.at.order > ran.at.order]
        told = [one for one in found if ON_PURPOSE.search(one.at.text)]
        return next(reversed(told or found), None)

    def no_space_near(self, failure: Event) -> Event | None:
        """Return what says that no space was left: a traceback that follows, or a program before."""
        first = -NEAR_LINES if failure.kind in {Kind.PROGRAM, Kind.RESIZE_FAILED} else 0
        for event in self.all(Kind.NO_SPACE):
            lines = event.at.number - failure.at.number
            near = event.at.file == failure.at.file and first <= lines <= _TRACEBACK_LINES
            traced = failure.kind in {Kind.GROWPART_BROKE, Kind.RESIZE_FAILED} or lines == 0
            if near and (_NO_ROOM if traced else _NO_DIRECTORY).search(event.at.text):
                return event
        return None

    def limited_by_mbr(self, event: Event) -> bool:
        """Tell whether growpart warned right before that an MBR ends at 2 TiB."""
        return any(
            one.at.file == event.at.file and 0 <= event.at.number - one.at.number < 4  # noqa: PLR2004
            for one in self.all(Kind.MBR_LIMIT)
        )


def read_events(documents: Iterable[Document]) -> list[Event]:
    """Return all events, in order, and note in the documents what was recognised."""
    return [event for document in documents for event in _events(document)]


# A program, growpart or one that resizes -> the line that last showed its command in a shell or a
# log, and what the command names: what it prints names no device.
_Commands = dict[str, tuple[Line, dict[str, str]]]


def _note_command(commands: _Commands, line: Line) -> None:
    if command := _GROWPART.search(line.text):
        commands["growpart"] = line, {one: command[one] or "" for one in ("device", "number")}
    if command := _RESIZE.search(line.text):
        wanted = command["least"] or command["wanted"] or ""
        commands["resize"] = line, {"target": command["target"] or "", "wanted": wanted}
    if dumped := _DUMPED_ON.search(line.text):
        commands["resize"] = line, {"target": dumped["target"] or dumped["last"]}
    if unit := _GROWFS_UNIT.search(line.text):
        commands["growfs"] = line, unit.groupdict()
    if mounted := _PATTERNS[Kind.MOUNTED].search(line.text):
        name = mounted["device"] or mounted["xfs"]
        disk = disk_of(name) or ("" if name.startswith("dm-") else name)
        commands["mount"] = line, {"near": disk}
    if "meta-data=" in line.text:
        commands["resize"] = line, {"target": line.text.split("meta-data=")[1].split(" ")[0]}


def _events(document: Document) -> Iterator[Event]:
    commands: _Commands = {}
    for place, line in enumerate(document.lines):
        _note_command(commands, line)
        near = {
            program: named
            for program, (shown, named) in commands.items()
            if shown.file == line.file and line.number - shown.number <= _NEAR_LINES
        }
        for kind, pattern in _PATTERNS.items():
            match = pattern.search(line.text)
            if match is None or (
                kind is Kind.PROGRAM and not ("growpart" in near or _is_growpart(match, line.text))
            ):
                continue
            program = "growpart" if kind is Kind.PROGRAM else "resize" if kind in _OF_RESIZE else ""
            said = {k: v for k, v in match.groupdict().items() if v}
            program = "growfs" if "growfs" in said else program if program in near else ""
            values = near.get(program, {}) | said
            if kind is Kind.PROGRAM and not program:
                values = _around(document.lines, place) | values
            if kind is Kind.RESIZE_FAILED:
                values |= _failed_on(line.text, values, near.get("mount", {}))
            if kind in _OF_DISK and (disk := _disk_near(document.lines, place)):
                values = {"near": disk} | values
            source = "growpart's output" if kind is Kind.PROGRAM else str(source_of(line.text))
            document.kinds.add(source)
            yield Event(kind, line, values)
            if kind not in _ALSO:
                break
    yield from _unlisted(document)


def _unlisted(document: Document) -> Iterator[Event]:
    """Yield that cloud.cfg has growpart in a comment, or not in its list of the first modules."""
    listed: list[str] = []
    heading = shown = None
    for line in document.lines:
        text = _GREPPED.sub("", line.text)
        shown = line if "cloud.cfg" in line.text else shown
        near = shown is not None and line.number - shown.number <= _NEAR_LINES
        if re.match(r"\s*#[#\s]*- growpart\s*$", text) and (heading or near):
            yield Event(Kind.UNLISTED, line, {})
        if text.startswith("cloud_init_modules:"):
            listed, heading = [], line
        elif heading and (match := re.match(r"\s*- \[?([\w-]+)", text)):
            listed.append(match[1])
        elif heading and re.match(r"\w+:", text):
            if listed and "growpart" not in listed:
                yield Event(Kind.UNLISTED, heading, {})
            heading = None


def _failed_on(text: str, values: dict[str, str], mounted: dict[str, str]) -> dict[str, str]:
    """Return the device in a failure's message, or else the disk that was mounted just before."""
    if "(cmd=" in text:  # cloud-init resizes nothing but root
        return {"target": ""}
    if named := _FAILED_ON.search(text):
        return {"device": named[0]}
    if "on" in values:
        return {"device": values["on"]}
    return mounted if {"ext", "xfs"} & values.keys() and not values.get("target") else {}


def _first(pattern: re.Pattern[str], lines: Iterable[Line]) -> re.Match[str] | None:
    """Return the first match in these lines."""
    return next(filter(None, (pattern.search(line.text) for line in lines)), None)


def _around(lines: list[Line], place: int) -> dict[str, str]:
    """Return the partition that growpart's output is about, from the lines around it.

    ``alone`` is set if no line of the document names a device.
    """
    number = re.search(r"partition[= ](\d+)", lines[place].text)
    shown = _first(_DUMPED, reversed(lines[max(0, place - _AROUND_LINES) : place]))
    resized = _first(_RESIZING, lines[place + 1 : place + 1 + _AROUND_LINES])
    if number is None or (shown is None and resized is None):
        named = number is None or any(_DEVICE.search(one.text) for one in lines[:_MOST_LINES])
        return {} if named or len(lines) > _MOST_LINES else {"alone": "yes"}
    name = short_name(next(one for one in (shown or resized).groups() if one))  # type: ignore[union-attr]
    if shown is not None:
        return {"device": partition_name(disk_of(name) or name, number[1])}
    return {"device": name} if number_of(name) == number[1] else {}


def _disk_near(lines: list[Line], place: int) -> str:
    """Return the disk that a message without a name is about, from the lines around it."""
    before, after = lines[max(0, place - 6) : place], lines[place + 1 : place + 7]
    match = _first(_DISK, [lines[place], *reversed(before), *after])
    return (match[1] or match[2]) if match else ""


def _is_growpart(match: re.Match[str], text: str) -> bool:
    """Tell whether FAILED is growpart's word: other programs print it, too."""
    known = re.search(
        r"failed to |does not exist|unable to|Did not have|partition-number|pt_resize|lvm resize"
        r"|exclusive lock|sfdisk|sgdisk|must supply|not a block",
        match["cause"] or "",
    )
    said = match["verb"] or match["no_tool"] or match["refused"] or match["warning"] or known
    return bool(said) or "GROWROOT" in text


def source_of(text: str) -> Source:
    """Return what kind of log or output a line comes from."""
    if re.search(r"\.py\[[A-Z]+\]: ", text):
        return Source.CLOUD_INIT_LOG
    if re.search(r"systemd[\w-]*(?:\[\d+\])?: ", text):
        return Source.JOURNAL
    if _UPTIME.match(text) or " kernel: " in text:
        return Source.KERNEL_LOG
    if "cloud-init" in text.lower():
        return Source.CLOUD_INIT_LOG
    return Source.OUTPUT
