"""From a run folder to its explanation."""

from __future__ import annotations

from pathlib import Path

from cloudlab.errors import RecordingError
from cloudlab.explain import Explanation, explain
from cloudlab.recording import Recording, read_cast
from cloudlab.seed import Severity, check_user_data
from cloudlab.sizes import ConsoleParser


def explain_run(recording: Recording) -> Explanation:
    """Say who grew what in a recorded run, when, or why nobody did.

    Raises
    ------
    RecordingError
        If the console's transcript or its times cannot be read.
    """
    try:
        lines = recording.console_log.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordingError(
            f"{recording.console_log} cannot be read: {error.strerror}."
        ) from error
    parser = ConsoleParser(recording.nonce)
    for number, line in enumerate(lines, start=1):
        parser.feed(line, number)
    about = recording.about
    given = about.get("options", {}).get("attach_seed", True)
    return explain(
        parser.result(),
        console=lines,
        disk_before=about.get("disk_before"),
        disk_after=about.get("disk"),
        image_bytes=about.get("image", {}).get("virtual_size_bytes"),
        stages=recording.stages(),
        times=_line_times(recording),
        user_data_faults=_user_data_faults(recording.folder / "user-data") if given else (),
    )


def _user_data_faults(path: Path) -> list[tuple[int, str]]:
    """Return what cloud-init does not take as it was meant, as line and words."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []  # what is known without it is explained without it
    found = check_user_data(text)
    return [(one.line, one.message) for one in found if one.severity is Severity.ERROR]


def _line_times(recording: Recording) -> dict[int, float]:
    """Return when each console line was complete, in seconds since launch."""
    times = {}
    number = 0
    for time_s, text in read_cast(recording.folder / "console.cast"):
        for _ in range(text.count("\n")):
            number += 1
            times[number] = time_s
    return times
