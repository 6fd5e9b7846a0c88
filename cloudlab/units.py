"""Bytes and seconds as people read them; binary units, honestly named."""

from __future__ import annotations

import math
from typing import Any

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 256, 512)


def is_known(value: Any) -> bool:
    """Return whether ``value`` is a number, not None, NaN or pandas' NA."""
    try:
        return value is not None and bool(value == value)  # noqa: PLR0124  (NaN and NA differ)
    except TypeError:
        return False


def format_bytes(size_bytes: Any) -> str:
    """Return a size in the largest binary unit that keeps it at 1 or more.

    Whole numbers have no decimals (``4 MiB``), others one below 100 (``19.9 GiB``) and
    none above (``197 MiB``).  What is not a number is ``unknown``.

    Parameters
    ----------
    size_bytes : int, float or NA
        Bytes; may be negative (a difference).
    """
    if not is_known(size_bytes):
        return "unknown"
    size = abs(float(size_bytes))
    sign = "-" if size_bytes < 0 else ""
    power = 0
    while size >= 1024 and power < len(_UNITS) - 1:  # noqa: PLR2004
        size /= 1024
        power += 1
    digits = _digits(size)
    if f"{size:.{digits}f}" == "1024" and power < len(_UNITS) - 1:
        size, power, digits = 1.0, power + 1, 1
    return f"{sign}{size:.{digits}f} {_UNITS[power]}"


def _digits(size: float) -> int:
    return 0 if size == int(size) or round(size, 1) >= 100 else 1  # noqa: PLR2004


def format_tick(size_bytes: int) -> str:
    """Return a round size without rounding it further: ``0``, ``1.25 TiB``, ``512 GiB``."""
    power = min(int(math.log2(max(size_bytes, 1))) // 10, len(_UNITS) - 1)
    size = f"{size_bytes / (1 << 10 * power):.4g}"
    return f"{size} {_UNITS[power]}" if size_bytes else "0"


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
            if largest_bytes <= step * most:
                return list(range(0, int(largest_bytes) + 1, step))
    return [0]


def log_ticks(low_bytes: float, high_bytes: float, most: int) -> tuple[list[int], int]:
    """Return powers of two within the limits, at most ``most`` of them, and their ratio."""
    low, high = math.ceil(math.log2(low_bytes)), math.floor(math.log2(high_bytes))
    for step in (1, 2, 5, 10, 20, 30):
        powers = range(-(-low // step) * step, high + 1, step)
        if len(powers) <= max(1, most):
            break
    return [1 << power for power in powers], 1 << step


def second_ticks(largest_s: float, most: int) -> list[float]:
    """Return at most ``most`` + 1 evenly spaced round times from 0 up to ``largest_s``."""
    largest_s, most = max(largest_s, 1e-3), max(1, most)
    power = math.floor(math.log10(largest_s / most))
    for factor in (1, 2, 5, 10, 20, 50):
        step = factor * 10.0**power
        if largest_s <= step * most:
            break
    return [round(number * step, 6) for number in range(int(largest_s / step) + 1)]
