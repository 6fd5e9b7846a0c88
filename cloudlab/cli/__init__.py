"""The command line: arguments, exit codes, tables for a terminal.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
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

_MACHINES = "; no machine is left running, and the recorded part is kept"
#: Command -> what Ctrl-C leaves behind.
_INTERRUPTED = {
    "run": _MACHINES,
    "demo": _MACHINES,
    "sweep": "; the finished runs are kept, and the same command continues",
    "fetch": "; the received part is kept, and the same command resumes the download",
    "build": "; the unfinished image was removed",
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
        # The reader of our output has gone; Python must not complain when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A file or folder of the user's has a fault that no room translates.
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
    """Open closed standard streams on the null device.

    Otherwise the next files get their numbers, and child processes use these as streams.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None and os.open(os.devnull, os.O_RDWR) == number:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    from cloudlab.console import printable

    # The reader may have gone; the exit code says the same.
    with contextlib.suppress(BrokenPipeError):
        for line in text.splitlines():
            sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()
