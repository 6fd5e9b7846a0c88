"""Sizes: what ``lsblk``, ``df`` and the exact report on a console say, as typed values.

:mod:`~cloudlab.sizes.lines` prepares lines and splits tables, :mod:`~cloudlab.sizes.listings`
reads ``lsblk`` and ``df``, :mod:`~cloudlab.sizes.frames` the exact report, and
:mod:`~cloudlab.sizes.parser` whole logs; :mod:`~cloudlab.sizes.report` holds and compares
what they say, and has the tidy table of it.
"""

from cloudlab.sizes.frames import (
    GuestBlock,
    GuestDevice,
    GuestFact,
    GuestFilesystem,
    GuestLog,
    Stage,
    posix_cksum,
)
from cloudlab.sizes.lines import Unread
from cloudlab.sizes.listings import DfRow, LsblkRow, parse_size
from cloudlab.sizes.parser import ConsoleParser, parse_console
from cloudlab.sizes.report import (
    SIZES_COLUMNS,
    ParsedConsole,
    Report,
    check_sizes,
    console_sizes,
    read_sizes,
    sizes_frame,
    to_json,
)

__all__ = [
    "SIZES_COLUMNS",
    "ConsoleParser",
    "DfRow",
    "GuestBlock",
    "GuestDevice",
    "GuestFact",
    "GuestFilesystem",
    "GuestLog",
    "LsblkRow",
    "ParsedConsole",
    "Report",
    "Stage",
    "Unread",
    "check_sizes",
    "console_sizes",
    "parse_console",
    "parse_size",
    "posix_cksum",
    "read_sizes",
    "sizes_frame",
    "to_json",
]
