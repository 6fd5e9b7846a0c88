"""A class: learners' predictions and progress, one small JSON file each in one folder.

A file's name is a random number that only its learner's computer knows: nicknames may occur twice,
and over the network no learner can replace another's answer.  ``cloudlab share --class`` writes the
file for an HTTP PUT; in a shared folder the learner's own cloudlab writes it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import http.client
import os
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from cloudlab import paths
from cloudlab.console import printable
from cloudlab.course import checks
from cloudlab.course.cases import CASES
from cloudlab.course.prediction import FILLS, LAYERS, STAYS, Prediction
from cloudlab.course.runs import ready_line
from cloudlab.errors import CloudlabError, UsageError, suggest
from cloudlab.html import Page, table_html
from cloudlab.image.fetch import mirror_url
from cloudlab.image.share import KEPT, MOST_ANSWER_BYTES
from cloudlab.seed.config import typed
from cloudlab.sizes import parse_size
from cloudlab.units import lsblk_size

#: The variable with the class's address or folder.
VARIABLE = "CLOUDLAB_CLASS"
#: The most answers that a class takes.
MOST_LEARNERS = 500
#: Wrong answers in a row to one exercise that count as being stuck.
STUCK_AFTER = 3

_MOST_PREDICTED_BYTES = 1 << 50
_TIMEOUT_S = 5.0
_WIDEST_BAR = 16
_ANIMALS = "badger bear beaver crane falcon fox heron ibex lynx otter owl puffin seal tern wolf"
_SEAT = Path("runs") / "class.json"
_SENDING = threading.Lock()

_Exercise = Annotated[str, Meta(pattern=r"^\d\d-\d\Z")]


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a learner sends.

    ``ready`` is the last line of the machine check; ``predictions`` are by boot, ``passed`` are
    exercises; ``wrong`` counts the wrong answers in a row to the exercise ``trying``.  ``sha256`` is
    that of the learner's number and of all the rest, to notice an edited file; it is empty if the
    learner's list of passed exercises was edited, and in the files of earlier versions.
    """

    name: Annotated[str, Meta(min_length=1, max_length=24)]
    ready: Annotated[str, Meta(max_length=300)] = ""
    predictions: dict[str, Prediction] = {}
    passed: Annotated[list[_Exercise], Meta(max_length=100)] = []
    trying: _Exercise | None = None
    wrong: Annotated[int, Meta(ge=0, le=9999)] = 0
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


class Learner(msgspec.Struct, frozen=True):
    """A learner's row on the board of a class.

    ``name`` is unlike that of all others, ``changed_s`` the time of the last change, in seconds since
    1970, and ``file`` whether the answer is ``unchanged`` since it was sent, ``edited`` or
    ``not verified``.
    """

    name: str
    answer: Answer
    changed_s: float
    file: str

    @property
    def passed(self) -> list[str]:
        """The passed exercises, each once, without those that this version does not have."""
        return sorted(set(self.answer.passed) & set(checks.exercises()))

    @property
    def stuck_at(self) -> str:
        """The exercise at which the learner is stuck, or nothing."""
        return self.answer.trying or "" if self.answer.wrong >= STUCK_AFTER else ""


class _Seat(msgspec.Struct, frozen=True):
    """The learner's own copy of an answer, the learner's number, and where the answer goes."""

    learner: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    answer: Answer
    to: str = ""


def parse_answer(data: bytes) -> Answer:
    """Return a learner's answer.

    Raises
    ------
    UsageError, ParseError
        If it is too long, is not an :class:`Answer`, or predicts what cannot be.
    """
    if len(data) > MOST_ANSWER_BYTES:
        raise UsageError(f"The answer is longer than {MOST_ANSWER_BYTES >> 10} KiB.")
    try:
        answer = msgspec.json.decode(data, type=Answer)
        for case, prediction in answer.predictions.items():
            if case not in CASES:
                raise UsageError(
                    f"There is no boot called {case!r:.40}.", hint=suggest(case, CASES)
                )
            for layer in LAYERS:
                if _bar(prediction, layer)[0] > _MOST_PREDICTED_BYTES:
                    text = prediction.of(layer)
                    raise UsageError(f"The prediction {text!r:.40} for the {layer} is above 1 PiB.")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"This is not an answer to a class: {error}.") from error
    for text in (answer.name, answer.ready):
        if not text.isprintable() or text != text.strip():
            raise UsageError(f"{text!r:.60} has control characters, or blanks at an end.")
    return answer


def _bar(prediction: Prediction, layer: str) -> tuple[int, str]:
    """Return the place of a prediction in the order of sizes, and its words."""
    text = prediction.of(layer)
    if text in ("", STAYS, FILLS):
        return (_MOST_PREDICTED_BYTES if text == FILLS else 0), text
    size = lsblk_size(parse_size(text.replace(" ", "")))
    return parse_size(size), size


def keep_answer(folder: Path, learner: str, data: bytes) -> None:
    """Check an answer and put it into the class's folder, in place of the learner's earlier one.

    Raises
    ------
    UsageError, ParseError
        As of :func:`parse_answer`.
    CloudlabError
        If the class is full, or the folder cannot be written to.
    """
    answer, path = parse_answer(data), folder / f"{learner}.json"
    if path.is_symlink():
        # It could lead to any file that the instructor may write, and no answer is read through it.
        raise CloudlabError(f"{path} is a symbolic link.", hint="The instructor should delete it.")
    if not path.exists() and len(list(folder.glob("*.json"))) >= MOST_LEARNERS:
        raise CloudlabError(f"The class is full: it has {MOST_LEARNERS} answers.")
    _write(path, answer)


def _write(path: Path, value: Answer | _Seat) -> None:
    with paths.os_errors_as(CloudlabError, "The answer could not be written"):
        paths.write_whole(path, msgspec.json.encode(value))


def _sealed(learner: str, answer: Answer) -> Answer:
    unchanged = checks.is_unchanged()
    return replace(answer, sha256=_hash(learner, answer) if unchanged else "")


def _hash(learner: str, answer: Answer) -> str:
    # Defaults are omitted, so a field that a later version adds does not change it.
    text = msgspec.json.encode(replace(answer, sha256=""), order="sorted").decode()
    return checks.hash_of(learner, text)


def send_to_class(
    predictions: Mapping[str, Prediction] | None = None, *, name: str = "", to: str = ""
) -> Page:
    """Send predictions and progress to the instructor; without a class, do nothing.

    The answer is kept in ``runs/class.json``, too, so nothing is lost if the class is out of reach.
    A new answer replaces the one sent before.  From then on :func:`check` sends progress.

    Parameters
    ----------
    predictions : mapping of str to Prediction, optional
        By the boot's name, as for :func:`boot_all`.
    name : str, optional
        A nickname of at most 24 characters; default: the one used before, or an animal.
    to : str, optional
        The class's address or folder; default: ``CLOUDLAB_CLASS``, or the one used before.

    Raises
    ------
    UsageError, ParseError
        If the name or a prediction cannot be sent.

    Examples
    --------
    >>> course.send_to_class({"default": course.Prediction("fills", "stays")}, to="10.0.0.5:8765")
    Sent to 10.0.0.5:8765 as otter-4f: predictions for 1 boot, 0 passed exercises, and ...
    """
    seat = _read_seat(_SEAT)
    to = str(to or os.environ.get(VARIABLE, "") or (seat.to if seat else ""))
    if not to:
        return Page(
            "Nothing was sent: no class is set. If you are in one, use the instructor's address: "
            'course.send_to_class(mine, to="192.168.1.20:8765")'
        )
    if isinstance(predictions, Prediction):
        raise UsageError(
            "Say of which boot this is the prediction.", hint='Write {"default": mine}.'
        )
    given = predictions or {}
    if not isinstance(given, Mapping) or any(type(one) is not Prediction for one in given.values()):
        raise UsageError(
            f"{given!r:.60} is no dictionary of predictions.", hint='Write {"default": mine}.'
        )
    if seat is None:
        learner = secrets.token_hex(16)
        seat = _Seat(learner, Answer(f"{secrets.choice(_ANIMALS.split())}-{learner[:2]}"))
    new = {case: one for case, one in given.items() if one != Prediction()}
    # The home folder's name may be a person's.
    ready = printable(ready_line().replace(os.path.expanduser("~"), "~"))[:300].strip()  # noqa: PTH111
    answer = replace(
        seat.answer,
        name=typed("name", name, str) or seat.answer.name,
        ready=ready,
        predictions=seat.answer.predictions | new,
        passed=checks.passed(),
    )
    parse_answer(msgspec.json.encode(answer))
    seat = replace(seat, answer=_sealed(seat.learner, answer), to=to)
    try:
        paths.make_folder(_SEAT.parent)
        _write(_SEAT, seat)
        _deliver(seat)
    except CloudlabError as error:
        return Page(
            f"Not sent: {error}\nYour answer is kept in {_SEAT}. Run this cell again later, or "
            'with to="..." and another address, or a folder for the instructor to copy from.'
        )
    boots, exercises = len(answer.predictions), len(answer.passed)
    return Page(
        f"Sent to {to} as {answer.name}: predictions for {boots} boot{'s' * (boots != 1)}, "
        f"{exercises} passed exercise{'s' * (exercises != 1)}, and '{ready}'.\nFrom now on "
        "course.check sends your progress: passed exercises, and how many wrong answers came "
        f'before. name="..." changes your name; delete {_SEAT} to leave the class.'
    )


@functools.wraps(checks.check)
def check(name: str, answer: object = None) -> checks.Verdict:  # noqa: D103 (as there)
    found, seat = checks.check(name, answer), _read_seat(_SEAT)
    if seat is not None and found.right is not None:
        before = seat.answer.wrong if seat.answer.trying == name else 0
        progress = (None, 0) if found.right else (name, min(before + 1, 9999))
        told = replace(seat.answer, passed=checks.passed(), trying=progress[0], wrong=progress[1])
        with contextlib.suppress(CloudlabError):
            _write(_SEAT, replace(seat, answer=_sealed(seat.learner, told)))
        # A class that is out of reach must not delay the verdict.
        threading.Thread(target=_send_again, args=(_SEAT.absolute(),), daemon=True).start()
    return found


def _send_again(path: Path) -> None:
    # One after another, so that the newest answer arrives last.
    with _SENDING, contextlib.suppress(CloudlabError):
        if seat := _read_seat(path):
            _deliver(seat)


def _read_seat(path: Path) -> _Seat | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Seat)
    except (OSError, ValueError, CloudlabError):
        return None


def _deliver(seat: _Seat) -> None:
    """Bring an answer to the class; raise CloudlabError if it did not arrive."""
    data = msgspec.json.encode(seat.answer)
    if "://" in seat.to or re.fullmatch(r"(\[[\da-f:]+\]|[\w.-]+):\d+", seat.to):
        _put(mirror_url(seat.to), seat.learner, data)
    elif paths.expand(seat.to).is_dir():
        keep_answer(paths.expand(seat.to), seat.learner, data)
    else:
        hint = "Write an address like 192.168.1.20:8765, or name a folder that exists."
        raise UsageError(f"There is no folder {seat.to}.", hint=hint)


def _put(url: str, learner: str, data: bytes) -> None:
    try:
        parts = urlsplit(url)
        client = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        with contextlib.closing(client) as way:
            way.request("PUT", f"{parts.path}/class/{learner}", data)
            response = way.getresponse()
            status, said = response.status, printable(response.read(400))
    except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
        raise CloudlabError(
            f"{url} does not answer ({error}).",
            hint="Are you in the instructor's network, and is 'cloudlab share --class' running?",
        ) from error
    # A network's login page answers 200, too, but not with this word.
    if said != KEPT:
        refused = f"{url} refused the answer: {said}" if said and status in (400, 503) else ""
        raise CloudlabError(
            refused or f"{url} takes no answers ({status}).",
            hint="" if refused else "The instructor starts a class with: cloudlab share --class",
        )


def open_class(folder: str) -> Path:
    """Return the folder of a class, by default today's, which is created where it is missing.

    Raises
    ------
    CloudlabError
        If it cannot be.
    """
    day = dt.datetime.now().astimezone().date().isoformat()
    place = paths.expand(folder) if folder else paths.cache_folder() / "class" / day
    try:
        return paths.make_folder(place.absolute(), private=True)
    except CloudlabError as error:
        hint = "Choose another folder with --class." if folder else error.hint
        raise CloudlabError(error.message, hint=hint) from error


def room_predictions(folder: str | Path = "") -> Page:
    """Return histograms of the class's predictions, a table for each boot.

    Parameters
    ----------
    folder : path, optional
        The class's; default: the newest of ``cloudlab share --class``.

    Raises
    ------
    UsageError
        If there is no class.
    """
    room, problems = read_class(folder)
    tables = []
    for case, found in CASES.items():
        sent = (one.answer.predictions.get(case, Prediction()) for one in room)
        made = [one for one in sent if one != Prediction()]
        bars = Counter((_bar(one, layer), layer) for one in made for layer in LAYERS)
        scale = min(1, _WIDEST_BAR / max(bars.values(), default=1))
        rows = [
            [
                bar[1],
                *(f"{'█' * round(n * scale)} {n or ''}" for n in (bars[bar, x] for x in LAYERS)),
            ]
            for bar in sorted({bar for bar, _ in bars})
        ]
        caption = f"{found.title} ({case}): {len(made)} of {len(room)} learners"
        if rows:
            tables.append((caption, ("", *LAYERS), rows))
    return _page(room, problems, tables)


def room_board(folder: str | Path = "") -> Page:
    """Return how many learners passed each exercise, and all learners, those who are stuck first.

    A learner is stuck after three wrong answers in a row to one exercise.  Parameters and errors
    are those of :func:`room_predictions`.  ``cloudlab class`` shows the learners in a terminal.
    """
    room, problems = read_class(folder)
    passed = Counter(exercise for one in room for exercise in one.passed)
    books = sorted({exercise[:2] for exercise in checks.exercises()})
    counts = [[book, *(passed[f"{book}-{place}"] for place in (1, 2, 3))] for book in books]
    learners = [
        [
            one.name,
            len(one.passed),
            f"stuck at {one.stuck_at}" if one.stuck_at else one.answer.trying or "",
            one.answer.wrong,
            ago(one.changed_s),
            one.file,
            one.answer.ready,
        ]
        for one in room
    ]
    columns = ("learner", "passed", "trying", "wrong answers", "sent", "file", "machine check")
    exercises = ("notebook", "1 Tweak", "2 Extend", "3 Find the fault")
    tables = [("Passed", exercises, counts), ("Learners", columns, learners)]
    return _page(room, problems, tables)


def ago(moment_s: float) -> str:
    """Return how long ago a moment was, given in seconds since 1970."""
    passed_s = max(0.0, time.time() - moment_s)
    for unit_s, unit in ((86400, "days"), (3600, "h")):
        if passed_s >= 2 * unit_s:
            return f"{passed_s // unit_s:.0f} {unit} ago"
    return f"{passed_s // 60:.0f} min ago"


def _page(
    room: Sequence[Learner],
    problems: Sequence[str],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[object]]]],
) -> Page:
    head = "\n".join([f"learners: {len(room)}", *problems])
    lines = [head]
    for caption, columns, rows in tables:
        lines += [caption, *("  ".join(map(str, row)) for row in [columns, *rows])]
    shown = "".join(table_html(columns, rows, caption=caption) for caption, columns, rows in tables)
    side_by_side = "display: flex; flex-wrap: wrap; gap: 1em 3em; align-items: start"
    html = f'{Page(head)._repr_html_()}<div style="{side_by_side}">{shown}</div>'
    return Page("\n".join(lines), html)


def read_class(folder: str | Path) -> tuple[list[Learner], list[str]]:
    """Return the learners, those who are stuck first, and which files were left out and why.

    Parameters and errors are those of :func:`room_predictions`.
    """
    days = sorted((paths.cache_folder() / "class").glob("*-*-*"))
    place = paths.expand(folder) if folder else days[-1] if days else None
    # Not Path.is_dir, which raises for a name that is too long.
    if place is None or not os.path.isdir(place):  # noqa: PTH112
        raise UsageError(
            f"There is no folder {folder}." if folder else "There is no class on this computer.",
            hint="Begin one with 'cloudlab share --class', or name the folder that learners share.",
        )
    room, problems = {}, []
    for path in sorted(place.glob("*.json")):
        try:
            answer = _read_answer(path)
            file = "unchanged" if answer.sha256 == _hash(path.stem, answer) else "edited"
            file = file if answer.sha256 else "not verified"
            room[path.stem] = Learner(answer.name, answer, path.stat().st_mtime, file)
        except (CloudlabError, OSError) as error:
            problems.append(f"{path.name} was left out: {error}")
    names = Counter(one.name for one in room.values())
    for number, one in room.items():
        if names[one.name] > 1:
            room[number] = replace(one, name=f"{one.name} ({number[:4]})")
    return sorted(room.values(), key=lambda one: (-one.answer.wrong, one.name)), problems


def _read_answer(path: Path) -> Answer:
    # In a shared folder anything may have that name, such as a pipe, which never ends.
    if path.is_symlink() or not path.is_file():
        raise UsageError("it is not a plain file")
    with path.open("rb") as stream:
        return parse_answer(stream.read(MOST_ANSWER_BYTES + 1))
