"""Every error that cloudlab raises on purpose.

A message says what was expected, what was found and what was done about it; ``hint`` says what
to do next.  Library code never exits the process: only :mod:`cloudlab.cli` turns these into exit
codes (:attr:`CloudlabError.exit_code`).
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
    """An option or value that cannot be carried out."""

    exit_code = 2


class ImageError(CloudlabError):
    """An image that cannot be fetched, built or used."""


class DownloadError(ImageError):
    """The bytes did not arrive."""


class ChecksumError(ImageError):
    """The bytes are not the published ones."""


class SignatureError(ImageError):
    """No trusted key signed the checksums."""


class UnsafeImageError(ImageError):
    """An image that could expose other files on this host, or is unusable; it is not opened."""


class BuildError(ImageError):
    """The image could not be built."""


class ToolError(CloudlabError):
    """An outside program is missing or failed."""


class ToolNotFoundError(ToolError):
    """The program is not installed; the hint says how to install it."""


class ToolFailedError(ToolError):
    """The program ended with an error.

    Attributes
    ----------
    returncode : int
        Negative for a signal, as in :mod:`subprocess`.
    output : str
        The end of what it printed on standard error, or else on standard output.
    """

    def __init__(self, message: str, *, returncode: int, output: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.returncode, self.output = returncode, output


class ToolTimeoutError(ToolError):
    """The program did not end in time and was stopped."""


class DiskError(CloudlabError):
    """A disk whose partition table or filesystem cannot be read, or that cannot be made."""


class SeedError(CloudlabError):
    """User-data or meta-data that cloud-init would not accept."""


class MachineError(CloudlabError):
    """QEMU failed, or could not do what was asked."""


class LaunchError(MachineError):
    """QEMU did not start."""


class SnapshotError(MachineError):
    """A snapshot that is damaged, or that QEMU could not take or resume."""


class ShutdownError(MachineError):
    """QEMU ended on its own, or would not end."""


class ConsoleError(CloudlabError):
    """A boot that did not finish.

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
    """The host's disk is full or failed, so writes of the guest or its console were lost."""


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
    close = difflib.get_close_matches(str(word), list(known), n=3)
    if not close:
        return otherwise
    *others, last = close
    return f"Did you mean {', '.join(others)} or {last}?" if others else f"Did you mean {last}?"
