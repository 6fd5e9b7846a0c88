"""Format sizes and durations: binary units, one precision, and what lsblk and df print."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
#: What QEMU, LVM and nearly all partition tables count in.
SECTOR_BYTES = 512
#: A prediction this near to the measurement counts as right.
TOLERANCE = 0.05
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_LETTERS = "BKMGTPE"
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 256, 512)


def is_known(value: Any) -> bool:
    """Return whether ``value`` is a number, not None, NaN or pandas' NA."""
    try:
        return value is not None and bool(value == value)  # noqa: PLR0124  (NaN and NA differ)
    except TypeError:
        return False


def format_bytes(size_bytes: Any) -> str:
    """Return a size in the largest binary unit that keeps it at 1 or more: ``19.9 GiB``.

    This is the one form of a size in cloudlab, rounded to the nearest: one decimal below 100,
    whole numbers included (``20.0 GiB``, ``4.0 MiB``), none from 100 on (``197 MiB``), none
    for bytes.  What is not a number is ``unknown``.

    Parameters
    ----------
    size_bytes : int, float or NA
        Bytes; may be negative (a difference).
    """
    if not is_known(size_bytes) or math.isinf(size_bytes):
        return "unknown"
    size = abs(float(size_bytes))
    sign = "-" if round(size_bytes) < 0 else ""
    power = 0
    while size >= 1024 and power < len(_UNITS) - 1:  # noqa: PLR2004
        size /= 1024
        power += 1
    if round(size) >= 1024 and power < len(_UNITS) - 1:  # noqa: PLR2004
        size, power = 1.0, power + 1
    digits = 1 if power and round(size, 1) < 100 else 0  # noqa: PLR2004
    return f"{sign}{size:.{digits}f} {_UNITS[power]}"


def format_two(first_bytes: int, second_bytes: int) -> tuple[str, str]:
    """Return two sizes to compare: as :func:`format_bytes`, in bytes where that is the same text."""
    first, second = format_bytes(first_bytes), format_bytes(second_bytes)
    if first == second:
        return f"{first_bytes:,} bytes", f"{second_bytes:,} bytes"
    return first, second


def lsblk_size(size_bytes: int) -> str:
    """Return a size as lsblk prints it, rounded to the nearest tenth: ``19.9G`` or ``2G``.

    Source: util-linux, lib/strutils.c, size_to_human_string
    """
    # lsblk chooses the unit before it rounds, so a GiB less a byte is 1024M.
    power = _power(size_bytes)
    tenths = (size_bytes * 10 * 2 + (1 << 10 * power)) // (2 << 10 * power)
    number = f"{tenths / 10:g}" if tenths % 10 else str(tenths // 10)
    return number + _LETTERS[power]


def df_size(size_bytes: int) -> str:
    """Return a size as ``df -h`` prints it, rounded up: ``2.0G``, ``20G``.

    Source: coreutils, lib/human.c (gnulib), human_ceiling
    """
    power = _power(size_bytes)
    unit = 1 << 10 * power
    tenths = -(-size_bytes * 10 // unit)
    if power and tenths < 100:  # noqa: PLR2004
        return f"{tenths // 10}.{tenths % 10}{_LETTERS[power]}"
    whole = -(-size_bytes // unit)
    if whole >= 1024 and power < len(_LETTERS) - 1:  # noqa: PLR2004
        return f"1.0{_LETTERS[power + 1]}"
    return f"{whole}{_LETTERS[power] if power else ''}"


def printed_note(size_bytes: Any, layer: str) -> str:
    """Return what the guest's tool prints for a size where its number is another than ours.

    The layer ``filesystem`` is what df prints, any other what lsblk prints.  The note is such as
    ``df prints 20G``; it is empty where the tool prints the number of :func:`format_bytes`, and for
    NA.
    """
    if not is_known(size_bytes):
        return ""
    tool, text = ("df", df_size) if layer == "filesystem" else ("lsblk", lsblk_size)
    ours, printed = format_bytes(size_bytes), text(int(size_bytes))
    number, unit = ours.split(" ")
    alike = float(printed.rstrip(_LETTERS)) == float(number)
    return "" if alike and (unit == "B" or printed[-1] == unit[0]) else f"{tool} prints {printed}"


def alike(predicted_bytes: int, measured_bytes: int) -> bool:
    """Return whether a predicted size is right, as close as the tools' output lets one see.

    It is within :data:`TOLERANCE`, and where lsblk or df prints it like the measured one:
    lsblk prints ``2G`` for 1.95 GiB, df prints ``2.0G`` for 1.90 GiB.
    """
    if predicted_bytes == measured_bytes:
        return True
    if measured_bytes > 0 and abs(predicted_bytes / measured_bytes - 1) <= TOLERANCE:
        return True
    # A text such as 1.1M stands for no whole byte, and df rounds up from there.
    return any(
        printed(guess) == printed(measured_bytes)
        for printed in (lsblk_size, df_size)
        for guess in (predicted_bytes, max(0, predicted_bytes - 1))
    )


def _power(size_bytes: int) -> int:
    return min((max(size_bytes, 1).bit_length() - 1) // 10, len(_LETTERS) - 1)


def format_tick(size_bytes: int) -> str:
    """Return a round size in its shortest form, others as :func:`format_bytes`: ``512 GiB``."""
    power = _power(size_bytes)
    if not is_round(size_bytes):
        return format_bytes(size_bytes)
    return f"{size_bytes / (1 << 10 * power):g} {_UNITS[power]}" if size_bytes else "0"


def is_round(size_bytes: int) -> bool:
    """Return whether :func:`format_bytes` shows a size exactly."""
    unit = 1 << 10 * _power(size_bytes)
    return size_bytes * (10 if size_bytes < 100 * unit else 1) % unit == 0


def format_seconds(time_s: Any) -> str:
    """Return a duration such as ``0.4 s`` or ``41 s``; what is not a number is ``unknown``."""
    if not is_known(time_s):
        return "unknown"
    return f"{time_s:.1f} s" if abs(time_s) < 99.95 else f"{time_s:.0f} s"  # noqa: PLR2004


def byte_ticks(largest_bytes: float, most: int) -> list[int]:
    """Return at most ``most`` + 1 evenly spaced round sizes from 0 up to ``largest_bytes``."""
    most = max(1, most)
    for power in range(len(_UNITS)):
        for factor in _STEPS:
            step = factor << 10 * power
            ticks = range(0, int(largest_bytes) + 1, step)
            if largest_bytes <= step * most and all(is_round(tick) for tick in ticks):
                return list(ticks)
    return [0]


def second_ticks(largest_s: float, most: int) -> list[float]:
    """Return at most ``most`` + 1 evenly spaced round times from 0 up to ``largest_s``."""
    largest_s, most = max(largest_s, 1e-3), max(1, most)
    power = math.floor(math.log10(largest_s / most))
    for factor in (1, 2, 5, 10, 20, 50):
        step = factor * 10.0**power
        if largest_s <= step * most:
            break
    if step > largest_s:
        # Two ticks have room: the other is the largest number of one digit.  A logarithm would
        # take 999999.9999999999 for a million.
        unit = 10.0 ** Decimal(float(largest_s)).adjusted()
        step = largest_s // unit * unit
    return [round(number * step, 6) for number in range(int(largest_s / step) + 1)]
