"""A model of a node: what boots with a user-data text do to its disk, volumes and mounts."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from cloudlab.course.gpt import SAVE_FAILED, Gpt, sgdisk_options
from cloudlab.course.settings import growth_of, values_of
from cloudlab.course.shell import Shell, UndecidedError, script_of
from cloudlab.run.value import recorded

GROWROOT_DISABLED = "/etc/growroot-disabled"

_ROOT = 1
#: growpart ignores a gain of less than 1 MiB (its option --fudge).
_FUDGE_SECTORS = 2048
_DEVICE = re.compile(r"/(?:dev|sys/class/block|sys/block/vda)/(vda|vdb|vda(\d+))")
#: What the lab image can make (package e2fsprogs).
_MAKES = ("ext2", "ext3", "ext4")
_HARMLESS = frozenset(
    ["chmod", "chown", "date", "logger", "mkdir", "modprobe", "sleep", "sync", "touch", "udevadm"]
)


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
    """

    status: int = 0
    root_partition_bytes: int = 0
    root_filesystem_bytes: int = 0
    mounts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

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
        values, growth = values_of(user_data), growth_of(user_data)
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
        if match and not match[2]:
            return True
        return path in self.files or path == "/" or self._number(path) is not None

    def _write(self, path: str) -> None:
        if path.startswith("/etc/fstab") or _DEVICE.fullmatch(path):
            raise UndecidedError(f"writing to {path}")
        if path != "/dev/null":
            self.files.add(path)

    def _command(  # noqa: C901 - one branch for each command
        self, argv: list[str], stdin: str
    ) -> tuple[int, str]:
        name, *args = argv
        plain = [arg for arg in args if not arg.startswith("-")]
        status, output = 0, ""
        if name == "sgdisk":
            status, output = self._sgdisk(args)
        elif name in {"partx", "partprobe"}:
            status = self._tell_kernel(name, args)
        elif name in {"lsblk", "blkid", "ls", "cat"}:
            status, output = self._look(name, args, plain)
        elif name in {"grep", "egrep"}:
            status, output = _grep(args, stdin, {"/proc/partitions": self._listing()})
        elif name in {"rm", "unlink", "mv"}:
            gone = {one for one in self.files for arg in plain if fnmatchcase(one, arg)}
            self.files -= gone
        elif name == "cloud-init-per" and len(args) > 2:  # noqa: PLR2004
            frequency, mark, *command = args
            if frequency == "always" or mark not in self._once:
                self._once.add(mark)
                status, output = self._command(command, stdin)
        elif name == "mount" and len(plain) == 2:  # noqa: PLR2004
            status = self._mount([*plain, "auto", "nofail"])
        elif name.startswith(("mkfs", "mke2fs")):
            status = self._mkfs(name, args)
        elif name in _HARMLESS:
            self.files |= set(plain) if name == "touch" else set()
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
        self.filesystems = {
            number: one for number, one in self.filesystems.items() if number in self.disk.parts
        }
        return 0, self._listing()

    def _tell_kernel(self, name: str, args: list[str]) -> int:
        words = " ".join(args)
        if "/dev/vda" not in args:
            return 1
        numbers = set(self.disk.parts)
        if name == "partx":
            if re.search(r"(^| )(-[dls]|--(delete|list|show))\b", words):
                return 0
            if match := re.search(r"(?:--nr|-n)[= ]?(\d*)(?::(\d*))?", words):
                low = int(match[1] or 1)
                high = int(match[2] or max(numbers)) if ":" in match[0] else low
                numbers &= set(range(low, high + 1))
            adds = re.search(r"(^| )(-[vu]*a|--add)\b", words)
            if adds and (numbers & self._devices or not numbers):
                self._devices |= numbers
                return 1
        self._devices |= numbers
        return 0

    def _look(self, name: str, args: list[str], plain: list[str]) -> tuple[int, str]:
        if name == "blkid" and args[:1] == ["-L"] and len(args) > 1:
            number = self._number(f"LABEL={args[1]}")
            return (2, "") if number is None else (0, f"/dev/vda{number}\n")
        if name == "blkid" and args == plain and len(plain) == 1:
            found = self.filesystems.get(self._number(plain[0]) or 0)
            return (0, f'LABEL="{found[1]}" TYPE="{found[0]}"\n') if found else (2, "")
        if name in {"blkid", "cat"}:
            raise UndecidedError(f"the command {shlex.join([name, *args])}")
        if all(self._exists(path) for path in plain if path.startswith("/")):
            return 0, "\n".join(plain) + "\n" if name == "ls" else self._listing()
        return 2, ""

    def _listing(self) -> str:
        return "\n".join(["vda", *(f"vda{number}" for number in sorted(self._devices))]) + "\n"

    def _mkfs(self, name: str, args: list[str]) -> int:
        words = " ".join(args)
        kind = name.partition(".")[2] or (re.search(r"-t ?(\w+)", words) or ["", "ext2"])[1]
        label = re.search(r"-L ?(\S+)", words)
        return self._format(args[-1] if args else "", kind, label[1] if label else "")

    def _fs_setup(self, entry: dict[str, Any]) -> None:
        device, partition = str(entry.get("device")), str(entry.get("partition", "any")).lower()
        if device.startswith("/dev/vda") and partition.isdigit():
            device += partition
        elif partition not in {"auto", "any", "none"} or device == "/dev/vda" or entry.get("cmd"):
            raise UndecidedError(f"fs_setup for {device} with partition: {partition}")
        kind, label = str(entry.get("filesystem")), str(entry.get("label") or "")
        found = self.filesystems.get(self._number(device) or 0)
        if found and (found == (kind, label) or partition == "auto"):
            return
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
        found = [
            line
            for line in text.splitlines()
            if re.search(pattern, line, re.IGNORECASE * ("i" in options))
        ]
    except re.error:
        raise UndecidedError(f"the pattern {pattern!r}") from None
    return (0 if found else 1), ("" if "q" in options else "\n".join(found) + "\n")
