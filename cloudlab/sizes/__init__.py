"""Sizes: what ``lsblk``, ``df`` and the exact report on a console say, as typed values.

:mod:`~cloudlab.sizes.lines` prepares lines and splits tables, :mod:`~cloudlab.sizes.listings`
reads ``lsblk`` and ``df``, :mod:`~cloudlab.sizes.frames` the exact report, and
:mod:`~cloudlab.sizes.parser` whole logs; :mod:`~cloudlab.sizes.report` holds and compares
what they say, and has the tidy table of it.
"""

from cloudlab.sizes.frames import GuestBlock as GuestBlock
from cloudlab.sizes.frames import GuestDevice as GuestDevice
from cloudlab.sizes.frames import GuestFact as GuestFact
from cloudlab.sizes.frames import GuestFilesystem as GuestFilesystem
from cloudlab.sizes.frames import GuestLog as GuestLog
from cloudlab.sizes.frames import Stage as Stage
from cloudlab.sizes.frames import posix_cksum as posix_cksum
from cloudlab.sizes.lines import Unread as Unread
from cloudlab.sizes.lines import parse_size as parse_size
from cloudlab.sizes.listings import DfRow as DfRow
from cloudlab.sizes.listings import LsblkRow as LsblkRow
from cloudlab.sizes.parser import ConsoleParser as ConsoleParser
from cloudlab.sizes.parser import parse_console as parse_console
from cloudlab.sizes.report import SIZES_COLUMNS as SIZES_COLUMNS
from cloudlab.sizes.report import ParsedConsole as ParsedConsole
from cloudlab.sizes.report import Report as Report
from cloudlab.sizes.report import check_sizes as check_sizes
from cloudlab.sizes.report import console_sizes as console_sizes
from cloudlab.sizes.report import read_sizes as read_sizes
from cloudlab.sizes.report import sizes_frame as sizes_frame
from cloudlab.sizes.report import to_json as to_json
