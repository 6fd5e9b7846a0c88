"""The command line: arguments, exit codes, tables for a terminal.

Exit codes: 0 done, 1 it failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from cloudlab.errors import CloudlabError

INTERRUPTED = 130

_MACHINES = "; no machine is left running, and what was recorded is kept"
#: Command -> what Ctrl-C leaves behind.
_INTERRUPTED = {
    "run": _MACHINES,
    "demo": _MACHINES,
    "fetch": "; what has arrived is kept, and the same command resumes the download",
    "build": "; what was built so far was removed",
    "share": "; the images are no longer served",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code."""
    from cloudlab.cli.arguments import make_parser

    _open_what_is_closed()
    args = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        args.carry_out(args)
    except CloudlabError as error:
        _say(f"cloudlab: {error}")
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output went away; closing it again must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # What no room foresaw: a file or folder of the user's that is not as it should be.
        where = f"{error.filename}: " if error.filename else ""
        _say(f"cloudlab: {where}{error.strerror or error}.")
        return 1
    except KeyboardInterrupt:
        _say(f"cloudlab: interrupted{_INTERRUPTED.get(args.command, '')}.")
        return INTERRUPTED
    return 0


def entry_point() -> None:
    """Run the command line and exit; the console script."""
    sys.exit(main())


def _open_what_is_closed() -> None:
    """Let standard streams that are closed lead nowhere.

    Else the next files and sockets get their numbers, and children take them for streams.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None and os.open(os.devnull, os.O_RDWR) == number:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    from cloudlab.console import printable

    # Who would read it may have left; the exit code says the same.
    with contextlib.suppress(BrokenPipeError):
        for line in text.splitlines():
            sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()
