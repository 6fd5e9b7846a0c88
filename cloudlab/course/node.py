"""A model of a node: what boots with a user-data text do to its disk, volumes and mounts.

From the inside out: a GPT disk in sectors and what sgdisk does to it (:class:`Gpt`), the machine
(:class:`Node`).

Source: gptfdisk 1.0.9 and 1.0.10 (gptcl.cc, gpt.cc, support.cc).  Tests compare the model with
sgdisk itself and with real boots.
"""

from __future__ import annotations

import copy
import getopt
import posixpath
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from cloudlab.course.growth import growth_of, values_used
from cloudlab.course.shell import NOT_FOUND, Shell, UndecidedError, script_of
from cloudlab.disk import DiskLayout
from cloudlab.run.value import recorded
from cloudlab.units import SECTOR_BYTES

_FIRST_USABLE, _ENTRIES, _TABLE_SECTORS = 34, 128, 33
_DEFAULT_ALIGNMENT, _LEAST_ALIGNMENT = 2048, 8
_LETTERS = {
    "new": "n", "largest-new": "N", "delete": "d", "change-name": "c", "typecode": "t",
    "partition-guid": "u", "move-second-header": "e", "set-alignment": "a", "align-end": "I",
    "clear": "o", "zap": "z", "zap-all": "Z", "print": "p", "info": "i", "verify": "v",
    "pretend": "P", "disk-guid": "U", "randomize-guids": "G", "attributes": "A",
}  # fmt: skip
_WITH_VALUE = frozenset("AacdinNtuU")
_READS_ONLY = frozenset("piv")
SAVE_FAILED = 4

GROWROOT_DISABLED = "/etc/growroot-disabled"
_ROOT = 1
#: growpart ignores a gain of less than 1 MiB (its option --fudge).
_FUDGE_SECTORS = 2048
_DEVICE = re.compile(r"/(?:dev|sys/class/block|sys/block/vda)/(vda|vdb|vda([0-9]+))")
#: What the lab image can make (package e2fsprogs), from 104 KiB on (mkfs.ext4 1.47, measured).
_MAKES = ("ext2", "ext3", "ext4")
_LEAST_FILESYSTEM_BYTES = 104 << 10
#: What is in the image, or may be, and is not modelled.  Other paths are there once a script makes them.
_IMAGE_FOLDERS = re.compile(
    r"/(usr|s?bin|lib\w*|boot|proc|sys)(/|$)|/(dev|etc|home|media|mnt|opt|root|run|srv|tmp|var)/?$"
    r"|/dev/disk(/[\w-]+)?/?$|/var/\w+/?$|/var/lib/(apt|dpkg|systemd)(/|$)"
    r"|/var/lib/cloud(/(data|instances?|scripts|seed|sem)(/|$)|/?$)"
    r"|/run/(cloud-init|lock|systemd|udev)(/|$)|/etc/(cloud(/cloud\.cfg.*)?|default|systemd)/?$"
    r"|/etc/(fstab|group|host(name|s)|machine-id|os-release|passwd|ssh)(/|$)"
)
#: Stand for what a command prints and is not modelled: besides the names of devices, or with them.
_MORE, _UNKNOWN = "\0\n", "\1\n"
#: A pattern with the number of a partition finds names of devices only.
_DEVICE_PATTERN = re.compile(r"vda[\d(\[]")
_PARTX_SHORT = "abdglPrsuvn:o:S:t:"
_PARTX_LONG = [
    "add", "bytes", "delete", "noheadings", "list", "nr=", "output=", "pairs", "raw", "show",
    "sector-size=", "type=", "update", "verbose",
]  # fmt: skip
_HARMLESS = frozenset([
    "chmod", "chown", "date", "df", "dmesg", "findmnt", "free", "id", "logger", "mkdir", "modprobe",
    "sleep", "sync", "touch", "udevadm", "uname", "uptime",
])  # fmt: skip


@dataclass
class Part:
    """A partition: its first and last sector (both included), and its name."""

    first: int
    last: int
    name: str = ""

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return (self.last - self.first + 1) * SECTOR_BYTES


@dataclass
class Gpt:
    """A disk with its partition table.

    Attributes
    ----------
    sectors : int
        The disk's size.
    last_usable : int
        The last sector that the table lets partitions use.
    parts : dict of int to Part
        By number.
    """

    sectors: int
    last_usable: int
    parts: dict[int, Part]

    @classmethod
    def of(cls, layout: DiskLayout) -> Gpt:
        """Return the model of a disk that was inspected."""
        sectors = layout.virtual_size_bytes // SECTOR_BYTES
        backup = layout.gpt_backup.offset_bytes if layout.gpt_backup else None
        header = sectors - 1 if backup is None else backup // SECTOR_BYTES
        parts = {
            one.number: Part(one.start_bytes // SECTOR_BYTES, one.end_bytes // SECTOR_BYTES - 1)
            for one in layout.partitions
            if one.number is not None
        }
        return cls(sectors, header - _TABLE_SECTORS, parts)

    def room_until(self, number: int) -> int:
        """Return the last sector that growpart could let a partition reach."""
        behind = [one.first for one in self.parts.values() if one.first > self.parts[number].first]
        return min(behind, default=self.sectors - _TABLE_SECTORS) - 1

    def use_whole_disk(self) -> None:
        """Move the backup table to the disk's end."""
        self.last_usable = self.sectors - 1 - _TABLE_SECTORS

    def sgdisk(self, options: list[tuple[str, str]]) -> str:
        """Do what sgdisk does with these options; return why it refuses, or nothing.

        Raises
        ------
        UndecidedError
            For an option that is not modelled.
        """
        call = _Sgdisk(copy.deepcopy(self))
        for option, value in options:
            call.do(option, value)
        letters = {option for option, _ in options}
        if not call.refusal and not letters <= _READS_ONLY and "P" not in letters:
            self.parts = call.disk.parts
            self.use_whole_disk()  # saving always moves the backup table
        return call.refusal

    def is_free(self, first: int, last: int) -> bool:
        """Return whether all these sectors are usable and belong to no partition."""
        inside = _FIRST_USABLE <= first <= last <= self.last_usable
        return inside and all(last < one.first or first > one.last for one in self.parts.values())

    def last_in_free(self, start: int) -> int:
        """Return the last free sector of the block that holds ``start``."""
        behind = [one.first - 1 for one in self.parts.values() if one.first > start]
        return min([self.last_usable, *behind])

    def first_in_largest(self) -> int:
        """Return where the largest free block starts, 0 if there is none."""
        starts = [_FIRST_USABLE, *(one.last + 1 for one in self.parts.values())]
        blocks = [(self.last_in_free(one) - one, -one) for one in starts if self.is_free(one, one)]
        return -max(blocks)[1] if blocks else 0


def sgdisk_options(argv: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return sgdisk's options as pairs of letter and value, and its other words.

    Raises
    ------
    UndecidedError
        For an option that is not modelled.
    """
    short = "".join(letter + ":" * (letter in _WITH_VALUE) for letter in _LETTERS.values())
    long = [name + "=" * (letter in _WITH_VALUE) for name, letter in _LETTERS.items()]
    for word in argv:
        # getopt accepts abbreviated names, which sgdisk refuses.
        if word.startswith("--") and word[2:].partition("=")[0] not in _LETTERS:
            raise UndecidedError(f"sgdisk's option {word}")
    try:
        found, others = getopt.gnu_getopt(argv, short, long)
    except getopt.GetoptError as error:
        raise UndecidedError(f"sgdisk's option {error.opt}") from None
    options = [(_LETTERS.get(name[2:], name[1:]), value.removeprefix("=")) for name, value in found]
    return options, others


class _Sgdisk:
    """Carries out one call of sgdisk on a copy of the disk."""

    def __init__(self, disk: Gpt) -> None:
        self.disk, self.refusal = disk, ""
        self._new, self._align_end = 0, False
        self._alignment = _DEFAULT_ALIGNMENT
        for one in disk.parts.values():
            while one.first % self._alignment and self._alignment > _LEAST_ALIGNMENT:
                self._alignment //= 2

    def do(self, option: str, value: str) -> None:
        """Carry out one option."""
        fields = [*value.removeprefix(":").split(":"), "", ""]
        number = _whole(fields[0])
        match option:
            case "n" | "N":
                self._create(number, fields[1], fields[2])
            case "c" | "d" | "t" | "u":
                number = number or self._new * (option != "d")
                if number not in self.disk.parts:
                    self.refusal = self.refusal or f"there is no partition {number}"
                elif option == "d":
                    del self.disk.parts[number]
                elif option == "c":
                    self.disk.parts[number].name = fields[1]
            case "e":
                self.disk.use_whole_disk()
            case "a":
                self._alignment = max(1, number)
            case "I":
                self._align_end = True
            case "o" | "z" | "Z":
                self.disk.parts.clear()

    def _create(self, number: int, start: str, end: str) -> None:
        disk = self.disk
        free_numbers = (one for one in range(1, _ENTRIES + 2) if one not in disk.parts)
        number = self._new = number or next(free_numbers)
        low = self._aligned(disk.first_in_largest())
        high = disk.last_in_free(low)
        if self._align_end:
            high = self._aligned(high + 1) - 1
        first = self._position(start, low, high, low)
        last = self._position(end, first, high, high)
        first = self._aligned(first)
        if number in disk.parts or number > _ENTRIES:
            self.refusal = f"there is a partition {number} already"
        elif max(first, last) > disk.last_usable:
            self.refusal = (
                f"partition {number} would reach beyond the last sector that the table allows, "
                "which is just before the backup table"
            )
        elif last < first and last == high:
            self.refusal = (
                f"the default end of partition {number} is before its start: sgdisk takes the end "
                "of the largest block that is still free"
            )
        elif not disk.is_free(first, first) or not first <= last <= disk.last_in_free(first):
            self.refusal = f"partition {number} would overlap another partition"
        else:
            disk.parts[number] = Part(first, last)

    def _aligned(self, sector: int) -> int:
        earlier = sector // self._alignment * self._alignment
        later = earlier + self._alignment
        if sector == earlier:
            return sector
        if self.disk.is_free(earlier, sector - 1):
            return earlier
        return later if self.disk.is_free(sector + 1, later) else sector

    def _position(self, text: str, low: int, high: int, default: int) -> int:
        """Return the sector that a text means, 0 for one that means none (IeeeToInt)."""
        match = re.match(r" *([+-]?)([0-9]*)\s*(\S?)", text)
        assert match is not None
        sign, digits, suffix = match.groups()
        if not digits and suffix:
            return 0
        value = int(digits or 0)
        if value == 0:
            return default
        power = "KMGTPE".find(suffix.upper()) if suffix else -1
        if power == 0:
            value *= 1024 // SECTOR_BYTES
        elif power > 0:
            value <<= 10 * (power + 1) - 9
        if sign == "+":
            # The end counts from the start and includes it; a start counts from the default.
            at_end = 0 <= high - default < self._alignment
            return value + low - 1 if at_end else value + default
        return max(high - value, 0) if sign == "-" else value


def _whole(text: str) -> int:
    match = re.match(r"\s*\+?([0-9]+)", text)
    return int(match[1]) if match else 0


@dataclass
class Boot:
    """What one boot did.

    Attributes
    ----------
    status : int
        bootcmd's exit status; cloud-init logs an error where it is not 0.
    root_partition_bytes, root_filesystem_bytes : int
    mounts : dict of str to int
        Mount point -> number of the partition.
    problems : list of str
        What failed and why, as sentences.
    missing : list of str
        Programs that were called and are not in the lab image.
    """

    status: int = 0
    root_partition_bytes: int = 0
    root_filesystem_bytes: int = 0
    mounts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def tell(self, problem: str) -> None:
        """Keep a problem, once."""
        if problem not in self.problems:
            self.problems.append(problem)


class Node:
    """A machine with the lab image on a disk of 20 GiB, before its first boot.

    Parameters
    ----------
    files : iterable of str
        Paths that are in the image besides its usual ones.
    """

    def __init__(self, files: Iterable[str] = ()) -> None:
        self.disk = Gpt.of(recorded("default").layout("before"))
        self.files = set(files)
        #: Partition -> type and label of its filesystem.
        self.filesystems = {_ROOT: ("ext4", "root"), 15: ("vfat", "UEFI")}
        self._root_last = self.disk.parts[_ROOT].last
        self._devices: set[int] = set()
        self._fstab: list[list[Any]] = []
        self._once: set[str] = set()
        self._boot = Boot()
        self._is_first = True

    def boot(self, user_data: str) -> Boot:
        """Boot once, always as the same instance.

        Raises
        ------
        UndecidedError
            If the text holds a command or key that this model does not cover.
        """
        values, growth = values_used(user_data), growth_of(user_data)
        boot = self._boot = Boot()
        self._devices = set(self.disk.parts)
        self.files = {one for one in self.files if not one.startswith(("/run/", "/tmp/"))}  # noqa: S108
        boot.status = self._run(values.get("bootcmd"))
        disabled = GROWROOT_DISABLED in self.files and not growth.ignores_growroot_disabled
        root, room = self.disk.parts[_ROOT], self.disk.room_until(_ROOT)
        if growth.partition and not disabled and room - root.last >= _FUDGE_SECTORS:
            root.last = room
            self.disk.use_whole_disk()
        if growth.filesystem:
            self._root_last = root.last
        if self._is_first:
            for entry in _entries(values, "fs_setup", dict):
                self._fs_setup(entry)
            self._fstab = _entries(values, "mounts", list)
        for entry in self._fstab:
            self._mount(entry)
        if self._is_first:
            self._run(values.get("runcmd"))
        self._is_first = False
        boot.root_partition_bytes = root.size_bytes
        boot.root_filesystem_bytes = (self._root_last - root.first + 1) * 512
        return boot

    def _run(self, commands: object) -> int:
        script = script_of(commands)
        return Shell(self._command, self._exists, self._write).run(script)

    def _number(self, device: object) -> int | None:
        """Return the number of the partition that a device name stands for now."""
        kind, _, name = str(device).removeprefix("/dev/disk/").partition("/")
        if "=" in str(device):
            kind, _, name = str(device).partition("=")
        name = name.strip("\"'")
        if kind.lower() in {"by-label", "label"}:
            found = [one for one, (_, label) in self.filesystems.items() if label == name]
        elif kind.lower() in {"by-partlabel", "partlabel"}:
            found = [one for one, part in self.disk.parts.items() if name and part.name == name]
        elif kind.lower() in {"by-uuid", "uuid", "by-partuuid", "partuuid", "by-id", "by-path"}:
            raise UndecidedError(f"the device name {device}")
        else:
            match = _DEVICE.fullmatch(str(device) if "/" in str(device) else f"/dev/{device}")
            found = [int(match[2])] if match and match[2] else []
        return next((one for one in found if one in self._devices), None)

    def _exists(self, path: str) -> bool:
        match = _DEVICE.fullmatch(path)
        if (match and not match[2]) or path in self.files or path == "/":
            return True
        if not match and _IMAGE_FOLDERS.match(path):
            raise UndecidedError(f"whether {path} exists")
        return self._number(path) is not None

    def _write(self, path: str) -> None:
        if path.startswith("/etc/fstab") or _DEVICE.fullmatch(path):
            raise UndecidedError(f"writing to {path}")
        if path != "/dev/null":
            self.files.add(path)

    def _command(  # noqa: C901, PLR0912 - one branch for each command
        self, argv: list[str], stdin: str
    ) -> tuple[int, str]:
        name, *args = argv
        plain = [arg for arg in args if not arg.startswith("-")]
        status, output = 0, ""
        if name == "sgdisk":
            status, output = self._sgdisk(args)
        elif name == "partx":
            status, output = self._partx(args)
        elif name == "partprobe":
            self._boot.missing.append(name)
            status = NOT_FOUND
        elif name == "blkid":
            status, output = self._blkid(args)
        elif name in {"lsblk", "ls"}:
            status, output = self._look(name, args, plain)
        elif name in {"grep", "egrep"}:
            status, output = _grep(args, stdin, {"/proc/partitions": self._listing(" ")})
        elif name in {"rm", "unlink", "mv"}:
            self.files -= {one for one in self.files for arg in plain if fnmatchcase(one, arg)}
        elif name == "cloud-init-per" and len(args) > 2:  # noqa: PLR2004
            frequency, mark, *command = args
            if frequency == "always" or mark not in self._once:
                self._once.add(mark)
                status, output = self._command(command, stdin)
        elif name == "mount" and len(plain) == 2:  # noqa: PLR2004
            status = self._mount([*plain, "auto", "nofail"])
        elif name.startswith(("mkfs", "mke2fs")):
            words = " ".join(args)
            kind = name.partition(".")[2] or (re.search(r"-t ?(\w+)", words) or ["", "ext2"])[1]
            label = re.search(r"-L ?(\S+)", words)
            status = self._format(args[-1] if args else "", kind, label[1] if label else "")
        elif name == "tee":
            output = stdin
            for path in plain:
                self._write(path)
        elif name in _HARMLESS:
            output = _UNKNOWN
            self.files |= set(plain) if name in {"touch", "mkdir"} else set()
        else:
            raise UndecidedError(f"the command {name}")
        return status, output

    def _sgdisk(self, args: list[str]) -> tuple[int, str]:
        options, devices = sgdisk_options(args)
        if devices != ["/dev/vda"]:
            self._boot.tell(
                f"sgdisk works on {' '.join(devices) or 'no disk'}. Root's disk is /dev/vda."
            )
            return 2, ""
        if refusal := self.disk.sgdisk(options):
            self._boot.tell(f"sgdisk makes no partition: {refusal}.")
            return SAVE_FAILED, ""
        for number in self.filesystems.keys() - self.disk.parts.keys():
            del self.filesystems[number]
        return 0, _MORE

    def _partx(self, args: list[str]) -> tuple[int, str]:
        try:
            found, devices = getopt.gnu_getopt(args, _PARTX_SHORT, _PARTX_LONG)
        except getopt.GetoptError:
            return 1, ""
        given = dict(found)
        if "/dev/vda" not in devices:
            return 1, ""
        nr = re.fullmatch(r"([0-9]*)([:-]?)([0-9]*)", given.get("-n", given.get("--nr", ":")))
        if len(devices) > 1 or nr is None or given.keys() & {"-d", "--delete"}:
            raise UndecidedError(f"the command {shlex.join(['partx', *args])}")
        if not given.keys() & {"-a", "--add", "-u", "--update"}:
            return 0, _MORE
        numbers = set(self.disk.parts)
        low = int(nr[1] or 1)
        high = int(nr[3] or max(numbers)) if nr[2] else low
        numbers &= set(range(low, high + 1))
        # Adding fails for a partition that the kernel has already.
        fails = not given.keys() & {"-u", "--update"} and (numbers & self._devices or not numbers)
        self._devices |= numbers
        return (1 if fails else 0), ""

    def _blkid(self, args: list[str]) -> tuple[int, str]:
        match args:
            case ["-L", label, *_]:
                number = self._number(f"LABEL={label}")
                return (2, "") if number is None else (0, f"/dev/vda{number}\n")
            case [path] if not path.startswith("-"):
                found = self.filesystems.get(self._number(path) or 0)
                return (0, f'LABEL="{found[1]}" TYPE="{found[0]}"\n') if found else (2, "")
        raise UndecidedError(f"the command {shlex.join(['blkid', *args])}")

    def _look(self, name: str, args: list[str], plain: list[str]) -> tuple[int, str]:
        if any(set(path) & set("*?[") for path in plain):
            raise UndecidedError(f"the command {shlex.join([name, *args])}")
        if name == "ls" and plain == ["/dev"]:
            return 0, self._listing()
        if not all(self._exists(path) for path in plain if path.startswith("/")):
            return 2, ""
        if name == "ls":
            return 0, "\n".join(plain) + "\n" + _MORE
        columns = re.search(r"(?:^| )(?:-\w*o|--output)[= ]?(\S+)", " ".join(args))
        if columns and "NAME" not in columns[1].upper().split(","):
            return 0, _MORE
        is_tree = not re.search(r"(^| )(-\w*[lr]|--list|--raw)", " ".join(args))
        return 0, self._listing("└─" if is_tree else "")

    def _listing(self, before: str = "") -> str:
        """Return the devices, each with ``before`` before it; what else is printed is not modelled."""
        parts = (f"{before}vda{number}" for number in sorted(self._devices))
        return "\n".join(["vda", *parts]) + "\n" + _MORE

    def _fs_setup(self, entry: dict[str, Any]) -> None:
        device, partition = str(entry.get("device")), str(entry.get("partition", "any")).lower()
        if device.startswith("/dev/vda") and partition.isdigit():
            device += partition
        elif partition not in {"auto", "any", "none"} or device == "/dev/vda" or entry.get("cmd"):
            raise UndecidedError(f"fs_setup for {device} with partition: {partition}")
        kind, label = str(entry.get("filesystem")), str(entry.get("label") or "")
        found = self.filesystems.get(self._number(device) or 0)
        if not found or (found != (kind, label) and partition != "auto"):
            self._format(device, kind, label)

    def _format(self, device: str, kind: str, label: str) -> int:
        number = self._number(device)
        if number is None:
            match = _DEVICE.fullmatch(device)
            known = match and match[2] and int(match[2]) in self.disk.parts
            why = "the kernel was not told of the new partition" if known else "no such device"
            self._boot.tell(f"{device} cannot get a filesystem: {why}.")
        elif number == _ROOT or number in self._boot.mounts.values():
            self._boot.tell(f"{device} is in use and cannot get a new filesystem.")
        elif (size_bytes := self.disk.parts[number].size_bytes) < _LEAST_FILESYSTEM_BYTES:
            self._boot.tell(f"{device} has {size_bytes:,} bytes, too few for a filesystem.")
        elif kind not in _MAKES:
            self._boot.tell(f"The lab image cannot make a filesystem of the type {kind!r}.")
        else:
            if number in self.filesystems and not self._is_first:
                self._boot.tell(f"A later boot makes {device}'s filesystem anew: its data is lost.")
            self.filesystems[number] = (kind, label)
            return 0
        return 1

    def _mount(self, entry: list[Any]) -> int:
        fields = [str(one) for one in entry if one is not None]
        device, point, kind, options = [*fields, *("", "", "auto", "nofail")[len(fields) :]][:4]
        if not point.startswith("/"):
            return 1
        number = self._number(device)
        found = self.filesystems.get(number or 0)
        if number is None or found is None:
            self._boot.tell(f"{device} has no filesystem to mount at {point}.")
        elif kind not in {"auto", found[0]}:
            self._boot.tell(f"{device} has {found[0]}, so it cannot be mounted as {kind}.")
        else:
            if "nofail" not in options:
                self._boot.tell(
                    f"Without nofail, a node whose {device} is missing does not come up."
                )
            self._boot.mounts[posixpath.normpath(point)] = number
            self.files.add(posixpath.normpath(point))  # cloud-init creates the folder
            return 0
        return 1


def _entries(values: dict[str, Any], key: str, kind: type) -> list[Any]:
    found = values.get(key)
    return [one for one in found if isinstance(one, kind)] if isinstance(found, list) else []


def _grep(args: list[str], stdin: str, files: dict[str, str]) -> tuple[int, str]:
    options = "".join(arg[1:] for arg in args if arg.startswith("-"))
    pattern, *names = [arg for arg in args if not arg.startswith("-")] or [""]
    if set(options) - set("qwEiFs") or any(name not in files for name in names):
        raise UndecidedError(f"the command {shlex.join(['grep', *args])}")
    text = "".join(files[name] for name in names) if names else stdin
    pattern = re.escape(pattern) if "F" in options else pattern
    pattern = rf"\b(?:{pattern})\b" if "w" in options else pattern
    try:
        telling = re.compile(pattern, re.IGNORECASE * ("i" in options))
    except re.error:
        raise UndecidedError(f"the pattern {pattern!r}") from None
    lines = text.splitlines(keepends=True)
    marks = {_MORE, _UNKNOWN}.intersection(lines)
    found = [one for one in lines if one not in marks and telling.search(one.rstrip("\n"))]
    if not found and (_UNKNOWN in marks or (marks and not _DEVICE_PATTERN.search(pattern))):
        raise UndecidedError(f"what {pattern!r} finds in the output of that command")
    return (0 if found else 1), ("" if "q" in options else "".join([*found, *sorted(marks)]))
