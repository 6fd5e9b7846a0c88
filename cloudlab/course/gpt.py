"""A model of a GPT disk and of what sgdisk does to it, in sectors.

Source: gptfdisk 1.0.9 (gptcl.cc, gpt.cc, support.cc); tests compare it with sgdisk itself.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

from cloudlab.course.shell import UndecidedError
from cloudlab.disk import DiskLayout

SECTOR_BYTES = 512
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
    options, others, words = [], [], iter(argv)
    for word in words:
        if not word.startswith("-"):
            others.append(word)
            continue
        if word.startswith("--"):
            name, joined, value = word[2:].partition("=")
            letters = _LETTERS.get(name, "?")
        else:
            at = next((at for at, one in enumerate(word) if one in _WITH_VALUE), len(word))
            letters, value = word[1 : at + 1], word[at + 1 :].removeprefix("=")
            joined = value
        for letter in letters:
            if letter not in _LETTERS.values():
                raise UndecidedError(f"sgdisk's option {word}")
            if letter in _WITH_VALUE and not joined:
                value = next(words, "")
            options.append((letter, value if letter in _WITH_VALUE else ""))
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
            case "n":
                self._create(number, fields[1], fields[2])
            case "N":
                self._create(number, "", "")
            case "c" | "d" | "t" | "u":
                self._change(option, number or self._new * (option != "d"), fields[1])
            case "e":
                self.disk.use_whole_disk()
            case "a":
                self._alignment = max(1, number)
            case "I":
                self._align_end = True
            case "o" | "z" | "Z":
                self.disk.parts.clear()

    def _change(self, option: str, number: int, name: str) -> None:
        part = self.disk.parts.get(number)
        if part is None:
            self.refusal = self.refusal or f"there is no partition {number}"
        elif option == "d":
            del self.disk.parts[number]
        elif option == "c":
            part.name = name

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
        match = re.match(r" *([+-]?)(\d*)\s*(\S?)", text)
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
    match = re.match(r"\s*\+?(\d+)", text)
    return int(match[1]) if match else 0
