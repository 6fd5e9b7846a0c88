"""Every error that cloudlab raises on purpose.

::

    CloudlabError
    ├── UsageError              an option or value that cannot be carried out
    ├── ImageError
    │   ├── DownloadError       the bytes did not arrive
    │   ├── ChecksumError       the bytes are not the published ones
    │   ├── SignatureError      no trusted key signed these checksums
    │   ├── UnsafeImageError    an image that could expose other files, or is unusable
    │   └── BuildError          the image could not be built
    ├── ToolError
    │   ├── ToolNotFoundError
    │   ├── ToolFailedError     carries argv, exit code and output
    │   └── ToolTimeoutError
    ├── DiskError               a partition table or filesystem that cannot be read
    ├── SeedError               user-data or meta-data that cloud-init would not take
    ├── MachineError
    │   ├── LaunchError         QEMU did not start
    │   ├── SnapshotError       a snapshot is damaged, or QEMU could not take or resume one
    │   └── ShutdownError       QEMU ended on its own, or would not end
    ├── ConsoleError            carries the last stage reached and the console's tail
    │   ├── BootFailedError     the console proves that the boot cannot finish
    │   ├── HostDiskError       the host's disk took no more, or failed
    │   ├── ConsoleTimeoutError
    │   └── ConsoleClosedError
    ├── ParseError              text that holds no sizes, or damaged ones
    ├── RecordingError          a run folder that cannot be written or read
    └── InterruptedRunError     the user stopped it

A message says what was expected, what was found and what was done about it;
``hint`` says what to do next.  Library code never exits the process: only
:mod:`cloudlab.cli` turns these into exit codes (:attr:`CloudlabError.exit_code`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class CloudlabError(Exception):
    """Root of the tree.

    Parameters
    ----------
    message : str
        What was expected, what was found, what was done about it.
    hint : str, optional
        What the reader can do now, as a sentence or a command.

    Examples
    --------
    >>> try:
    ...     cloudlab.recorded("nothing")
    ... except cloudlab.CloudlabError as error:
    ...     print(error.message)
    There is no recording called 'nothing'.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(CloudlabError):
    """An option or a value that nobody could carry out."""

    exit_code = 2


class ImageError(CloudlabError):
    """An image could not be had."""


class DownloadError(ImageError):
    """The bytes did not arrive."""


class ChecksumError(ImageError):
    """The bytes are not the published ones."""


class SignatureError(ImageError):
    """The checksums are not signed by whom they should be."""


class UnsafeImageError(ImageError):
    """The file has what no published cloud image has, so it is not opened."""


class BuildError(ImageError):
    """The image could not be built."""


class ToolError(CloudlabError):
    """An outside program let us down."""


class ToolNotFoundError(ToolError):
    """The program is not installed; the hint says how to install it."""


class ToolFailedError(ToolError):
    """The program ended with an error.

    Attributes
    ----------
    argv : tuple of str
    returncode : int
        Negative for a signal, as in :mod:`subprocess`.
    output : str
        The end of what it printed on standard error, or else on standard output.
    """

    def __init__(
        self, message: str, *, argv: Sequence[str], returncode: int, output: str, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output


class ToolTimeoutError(ToolError):
    """The program was ended because its time was up."""


class DiskError(CloudlabError):
    """A disk whose partition table or filesystem cannot be read, or that cannot be made."""


class SeedError(CloudlabError):
    """User-data or meta-data that cloud-init would not take."""


class MachineError(CloudlabError):
    """QEMU could not be used as asked."""


class LaunchError(MachineError):
    """QEMU did not start."""


class SnapshotError(MachineError):
    """A snapshot that is damaged, or that QEMU could not take or resume."""


class ShutdownError(MachineError):
    """QEMU ended on its own, or would not end."""


class ConsoleError(CloudlabError):
    """A boot that did not come to its end.

    Attributes
    ----------
    stage : str
        The last boot stage that the console showed.
    tail : tuple of str
        The last console lines, made safe for a terminal.
    """

    def __init__(
        self, message: str, *, stage: str = "", tail: Sequence[str] = (), hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.stage = stage
        self.tail = tuple(tail)

    def __str__(self) -> str:
        parts = [self.message]
        if self.stage:
            parts.append(f"Last stage reached: {self.stage}.")
        if self.tail:
            parts.append("The console's last lines:")
            parts.extend(f"  | {line}" for line in self.tail)
        if self.hint:
            parts.append(self.hint)
        return "\n".join(parts)


class BootFailedError(ConsoleError):
    """The console proves that the boot cannot finish."""


class HostDiskError(ConsoleError):
    """The host's disk would not take what the guest or its console wrote."""


class ConsoleTimeoutError(ConsoleError):
    """The report did not come before the deadline."""


class ConsoleClosedError(ConsoleError):
    """The console ended before the report was complete."""


class ParseError(CloudlabError):
    """Text that holds no sizes, or damaged ones."""


class RecordingError(CloudlabError):
    """A run folder that cannot be written or read."""


class InterruptedRunError(CloudlabError):
    """The user stopped the run; what was recorded is kept."""

    exit_code = 130


def suggest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a hint with the names of ``known`` that resemble a mistyped ``word``.

    ``otherwise`` is the hint where none does.
    """
    close = difflib.get_close_matches(word, list(known), n=3)
    if not close:
        return otherwise
    *others, last = close
    return f"Did you mean {', '.join(others)} or {last}?" if others else f"Did you mean {last}?"
