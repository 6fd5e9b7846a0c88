"""A run on disk, and playing it back.

A run is a folder:

========================  =======================================================
``run.json``              options, image and its hash, accelerator and why, versions,
                          stage times, outcome; written first and again at the end
``user-data``             what cloud-init was given, as it was given
``meta-data``             likewise
``console.log``           the serial console's raw bytes
``console.cast``          the same with times, as asciicast v2 (asciinema plays it)
``sizes.csv``             the sizes table
========================  =======================================================

A recording that is shipped with cloudlab is such a folder.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from cloudlab import paths
from cloudlab.errors import RecordingError

#: Version of the folder's layout; readers refuse others.
FORMAT = 1

_CAST_VERSION = 2

#: How often a folder is claimed that other runs create and remove at the same time.
_CLAIM_TRIES = 100

#: asciicast knows a terminal's size; a serial console has none, so one is chosen.
_CAST_SIZE = (120, 40)

#: A year; no recording is longer.
_LONGEST_S = 366 * 86400.0

#: The cast's share of the host's disk; what comes after it is in no file.
CAST_CAP_BYTES = 16 << 20


def recordings_folder() -> Path:
    """Return the folder of the recordings that come with cloudlab."""
    return Path(str(resources.files("cloudlab").joinpath("recordings")))


def shipped_recordings() -> dict[str, Path]:
    """Return the run folders that come with cloudlab, by the name of their case."""
    return {one.parent.name: one.parent for one in sorted(recordings_folder().glob("*/run.json"))}


def dated_folder(parent: Path, name: str) -> Path:
    """Return the usual place of a run: below ``parent``, called after the moment and ``name``."""
    moment = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    return parent / f"{moment}-{name.replace(' ', '-').replace(',', '')}"


def refuse_taken(folder: Path) -> None:
    """Check that ``folder`` is new or empty, so that nothing is overwritten.

    Raises
    ------
    RecordingError
        If it holds a run already, or anything else.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise RecordingError(
            f"{folder} is a file, not a folder; nothing was written.",
            hint="Choose a folder with --output.",
        ) from None
    except OSError as error:
        raise RecordingError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    if names:
        # A demo's folder holds its runs one level down; no deeper, because this may be /.
        records = (os.path.join(folder, name, "run.json") for name in names)  # noqa: PTH118
        runs = "run.json" in names or any(map(os.path.exists, records))
        raise RecordingError(
            f"The folder {folder} already holds {'a run' if runs else 'other files'}; "
            "it was not touched.",
            hint="Choose another folder with --output, or move this one away.",
        )


def claim_folder(folder: Path) -> None:
    """Make ``folder`` the place of one new run, readable by its owner only.

    The run that creates ``run.json`` owns the folder, so of several runs that are given the
    same one, exactly one gets it.

    Raises
    ------
    RecordingError
        As of :func:`refuse_taken`, or if the folder belongs to somebody else.
    CloudlabError
        If it cannot be created.
    """
    record = folder / "run.json"
    for _ in range(_CLAIM_TRIES):
        refuse_taken(folder)
        paths.make_folder(folder, private=True)
        try:
            with record.open("x", encoding="utf-8") as stream:
                json.dump({"format": FORMAT, "name": folder.name, "outcome": "running"}, stream)
            folder.chmod(0o700)
            if len(list(folder.iterdir())) == 1:
                return
        except (FileExistsError, FileNotFoundError):
            continue  # another run took the folder, or removed the one that it had made
        except OSError as error:
            record.unlink(missing_ok=True)
            raise RecordingError(
                f"The folder {folder} cannot be used for a run: {error.strerror}.",
                hint="Choose a folder of your own with --output.",
            ) from error
        record.unlink()  # something else came to lie in the folder meanwhile
    raise RecordingError(
        f"The folder {folder} could not be claimed: other programs keep changing it.",
        hint="Choose another folder with --output.",
    )


def write_run(folder: Path, about: dict[str, Any]) -> None:
    """Write ``run.json``, whole or not at all."""
    try:
        with paths.whole_file(folder / "run.json") as part:
            text = json.dumps({"format": FORMAT, **about}, indent=2, ensure_ascii=False)
            part.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise RecordingError(
            f"The run in {folder} could not be recorded: {error.strerror}.",
            hint="Free some space, or choose another folder with --output.",
        ) from error


@dataclass(frozen=True)
class Recording:
    """A run folder that was read.

    Attributes
    ----------
    folder : Path
    about : dict
        What ``run.json`` holds.
    """

    folder: Path
    about: dict[str, Any]

    def _repr_html_(self) -> str:
        from cloudlab.markup import table_html

        about = self.about
        rows = [
            ("outcome", about.get("outcome", "unknown")),
            ("scenario", about.get("scenario", "")),
            ("image", about.get("image", {}).get("name", "unknown")),
            ("accelerator", about.get("accelerator", {}).get("name", "unknown")),
            ("took", self.took),
            ("this is", f"a run {self.label}"),
            ("folder", self.folder),
        ]
        return table_html(("run", self.name), rows)

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.about.get("name", self.folder.name))

    @property
    def took(self) -> str:
        """How long it took, how it started and why so."""
        # Runs of before there were warm starts do not say it.
        took_s = self.about.get("took_s", self.about.get("time_s"))
        seconds = "an unknown number of" if took_s is None else f"{float(took_s):.1f}"
        start = self.about.get("start", {})
        why = f": {start['why']}" if start.get("why") else ""
        return f"{seconds} s, {start.get('kind', 'cold')} start{why}"

    @property
    def label(self) -> str:
        """What must stand beside anything played back: that it is a recording, and of what."""
        image = self.about.get("image", {})
        accel = self.about.get("accelerator", {})
        warm = self.about.get("start", {}).get("kind") == "warm"
        return (
            f"recorded on {str(self.about.get('started', 'an unknown day'))[:10]} with "
            f"{image.get('name', 'an unknown image')} under "
            f"{str(accel.get('name', 'an unknown accelerator')).upper()}"
            f"{', started warm' if warm else ''}"
        )

    @property
    def console_log(self) -> Path:
        """The transcript."""
        return self.folder / "console.log"

    @property
    def sizes_csv(self) -> Path:
        """The sizes table."""
        return self.folder / "sizes.csv"

    @property
    def nonce(self) -> str | None:
        """What every frame of the guest's report carries; None in older recordings."""
        nonce = self.about.get("nonce")
        return nonce if isinstance(nonce, str) else None

    def stages(self) -> list[dict[str, Any]]:
        """Return ``[{"stage", "start_s", "end_s"}, ...]`` in order."""
        return list(self.about.get("stages", []))


def read_run(folder: Path) -> Recording:
    """Read a run folder.

    Raises
    ------
    RecordingError
        If it is none, or of another format.
    """
    try:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordingError(
            f"{folder} holds no run: run.json cannot be read ({error.strerror}).",
            hint="Name a folder that 'cloudlab run' or 'cloudlab demo' wrote.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecordingError(
            f"{folder / 'run.json'} is no JSON: {error}.",
            hint="The run was damaged after it was recorded; record it again.",
        ) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else type(about).__name__
        raise RecordingError(
            f"{folder / 'run.json'} is of format {found}; this cloudlab reads {FORMAT}.",
            hint="Use the cloudlab that recorded it, or record it again.",
        )
    return Recording(folder, about)


class CastWriter:
    """Writes a console as asciicast v2 while it comes in."""

    def __init__(self, path: Path, *, title: str, cap_bytes: int = CAST_CAP_BYTES) -> None:
        self._stream: TextIO = path.open("w", encoding="utf-8", newline="\n")
        # A chunk may end in the middle of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._left = cap_bytes
        self._cut = False
        width, height = _CAST_SIZE
        header = {
            "version": _CAST_VERSION,
            "width": width,
            "height": height,
            "timestamp": int(time.time()),
            "title": title,
        }
        self._stream.write(json.dumps(header) + "\n")

    def write(self, time_s: float, chunk: bytes) -> None:
        """Append what the console wrote at ``time_s`` seconds after launch."""
        text = self._decoder.decode(chunk)
        if not text or self._cut:
            return
        event = json.dumps([round(time_s, 3), "o", text])
        self._left -= len(event)
        if self._left < 0:
            self._cut = True
            note = "\r\n[cloudlab: what came after this was not kept]\r\n"
            event = json.dumps([round(time_s, 3), "o", note])
        self._stream.write(event + "\n")
        # Whatever becomes of this process, the file ends with a whole line.
        self._stream.flush()

    def close(self) -> None:
        """Close the file; idempotent."""
        # What the disk would not take, write() has already said.
        with contextlib.suppress(OSError):
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_cast(path: Path) -> Iterator[tuple[float, str]]:
    """Yield ``(seconds, text)`` for each output event of an asciicast v2 file.

    Raises
    ------
    RecordingError
        With the number of the line that is not as it should be.
    """
    try:
        stream = path.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror}.") from error
    with stream:
        header = _json_line(path, 1, stream.readline())
        if not isinstance(header, dict) or header.get("version") != _CAST_VERSION:
            raise RecordingError(f"{path} is no asciicast v2 file: its first line says so nowhere.")
        for number, line in enumerate(stream, start=2):
            if not line.strip():
                continue
            event = _json_line(path, number, line)
            match event:
                case [int() | float() as at_s, str() as kind, str() as text] if _is_time(at_s):
                    if kind == "o":
                        yield float(at_s), text
                case _:
                    raise RecordingError(f"{path}, line {number}: no asciicast event.")


def _is_time(at_s: float) -> bool:
    # JSON as Python reads it has NaN, infinity and integers that no float can hold.
    return not isinstance(at_s, bool) and 0 <= at_s <= _LONGEST_S


def _json_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path}, line {number}: no JSON ({error}).") from error


def play(path: Path, *, speed: float = 1.0, longest_pause_s: float = 5.0) -> Iterator[str]:
    """Yield the console's text at its recorded pace.

    Parameters
    ----------
    path : Path
        An asciicast v2 file.
    speed : float
        How many times as fast as it was.
    longest_pause_s : float
        Pauses are cut at this many (played) seconds.
    """
    before_s = 0.0
    for at_s, text in read_cast(path):
        pause_s = min((at_s - before_s) / speed, longest_pause_s)
        before_s = at_s
        if pause_s > 0:
            time.sleep(pause_s)
        yield text
