"""Sizes: what ``lsblk``, ``df`` and the exact report on a console say, as typed values.

:mod:`~cloudlab.sizes.text` reads the human tables, :mod:`~cloudlab.sizes.frames` the exact
report, :mod:`~cloudlab.sizes.parser` whole logs, :mod:`~cloudlab.sizes.report` holds what
they say; :mod:`~cloudlab.sizes.table` makes the tidy table of it and
:mod:`~cloudlab.sizes.checks` tells whether the numbers agree.
"""

from cloudlab.sizes.checks import check_sizes
from cloudlab.sizes.frames import (
    GuestBlock,
    GuestDevice,
    GuestFact,
    GuestFilesystem,
    GuestLog,
    Stage,
    posix_cksum,
)
from cloudlab.sizes.parser import ConsoleParser, parse_console
from cloudlab.sizes.report import ParsedConsole, Report, to_json
from cloudlab.sizes.table import (
    SIZES_COLUMNS,
    console_sizes,
    empty_sizes,
    read_sizes,
    sizes_frame,
    write_sizes,
)
from cloudlab.sizes.text import DfRow, LsblkRow, parse_size

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
    "check_sizes",
    "console_sizes",
    "empty_sizes",
    "parse_console",
    "parse_size",
    "posix_cksum",
    "read_sizes",
    "sizes_frame",
    "to_json",
    "write_sizes",
]
