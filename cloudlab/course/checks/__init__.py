"""The exercises: answers in any reasonable form, feedback on them, progress.

The checks themselves are in one module for each notebook.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import operator
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloudlab import paths
from cloudlab.course.shell import UndecidedError
from cloudlab.errors import CloudlabError, ParseError, UsageError
from cloudlab.html import Page, escaped, table_html
from cloudlab.run.value import Run, recording_names
from cloudlab.seed import Problem, Severity, check_user_data
from cloudlab.seed.check import read_document
from cloudlab.sizes import parse_size

#: Yields what is wrong with an answer, in sentences; nothing if it is right.
Check = Callable[[Any], Iterable[str]]

_NOTEBOOKS = 10
#: A shell command as an item of a YAML list, whose first character has a meaning in YAML.
_COMMAND_ITEM = re.compile(r"\s*-\s+([\[{]).*[\]}]\s*[^\s#,\]}]")
_GIVEN = "This is still what the notebook began with. Change it, and run the cell again."
_FILE = "progress.json"


class Outcome(StrEnum):
    """The result of a check, as it is shown."""

    RIGHT = "Right"
    WRONG = "Not yet"
    UNANSWERED = "No answer yet"
    UNDECIDED = "Cannot tell"


_COLOURS = {Outcome.RIGHT: "#0a7d4f", Outcome.WRONG: "#b3541e"}


@dataclass(frozen=True)
class Verdict:
    """Feedback on an answer.

    Attributes
    ----------
    exercise : str
    outcome : Outcome
    words : tuple of str
        What is wrong and why, or why it is right.
    """

    exercise: str
    outcome: Outcome
    words: tuple[str, ...]

    @property
    def right(self) -> bool | None:
        """Whether the answer is right; None if there is none, or the check cannot tell."""
        return {Outcome.RIGHT: True, Outcome.WRONG: False}.get(self.outcome)

    def __repr__(self) -> str:
        head = f"{self.outcome} ({self.exercise})"
        return "\n".join([head, *(f"  {words}" for words in self.words)])

    def _repr_html_(self) -> str:
        head = f"<strong>{self.outcome}</strong> ({self.exercise})"
        below = "".join(f"<div>{escaped(words)}</div>" for words in self.words)
        colour = _COLOURS.get(self.outcome, "#6b6b6b")
        style = f"border-left: 4px solid {colour}; padding: 0.3em 0.8em"
        return f'<div role="status" style="{style}">{head}{below}</div>'


class UnansweredError(Exception):
    """Raised by a check: the answer is still what the exercise began with."""


@dataclass(frozen=True)
class _Exercise:
    check: Check
    asks: str
    right: str
    start: Any


_EXERCISES: dict[str, _Exercise] = {}


def exercise(name: str, *, asks: str, right: str, start: Any = None) -> Callable[[Check], Check]:
    """Register a function as the check of an exercise.

    Parameters
    ----------
    name : str
        Notebook and number, e.g. ``05-1``.
    asks : str
        What form of answer the exercise asks for, e.g. ``a line number``.
    right : str
        Why a right answer is right.
    start : object
        What the notebook begins with, which counts as no answer.
    """

    def enter(check_function: Check) -> Check:
        _EXERCISES[name] = _Exercise(check_function, asks, right, start)
        return check_function

    return enter


def exercises() -> list[str]:
    """Return the names of all exercises, in order."""
    for number in range(_NOTEBOOKS):
        importlib.import_module(f"{__name__}.nb{number:02}")
    return sorted(_EXERCISES)


def check(name: str, answer: object = None) -> Verdict:
    """Check an answer, and keep a right one in ``runs/progress.json``.

    Parameters
    ----------
    name : str
        Notebook and number, e.g. ``05-1``.
    answer : object
        What the exercise asks for; None, or what the notebook began with, is no answer.

    Raises
    ------
    UsageError
        For an exercise that the course does not have.

    Examples
    --------
    >>> course.check("05-1", {"resize_rootfs": False})
    Right (05-1)
      A recorded boot with these options shows it.
    """
    known = exercises()
    if name not in known:
        raise UsageError(f"There is no exercise {name!r}.", hint=f"There are {', '.join(known)}.")
    if answer is None:
        words = "Replace None by your answer, and run the cell again."
        return Verdict(name, Outcome.UNANSWERED, (words,))
    verdict = _judge(name, answer)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if verdict.right and hasattr(shell, "kernel"):
        _keep(name)
    return verdict


def _judge(name: str, answer: object) -> Verdict:
    found = _EXERCISES[name]
    if type(answer) is type(found.start) and answer == found.start:
        return Verdict(name, Outcome.UNANSWERED, (_GIVEN,))
    try:
        problems = tuple(found.check(answer))
    except UnansweredError:
        return Verdict(name, Outcome.UNANSWERED, (_GIVEN,))
    except UndecidedError as error:
        words = (
            f"This check does not cover {error}, so it cannot judge your answer. In live mode, "
            "boot it: course.boot_text(text). Or try a simpler form."
        )
        return Verdict(name, Outcome.UNDECIDED, (words,))
    except CloudlabError as error:
        problems = (error.message,)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a learner's function may raise anything
        if callable(answer):
            problems = (f"Your function raised {type(error).__name__}: {error}.",)
        else:
            kind = type(answer).__name__
            problems = (f"The exercise asks for {found.asks}, but this is of the type {kind}.",)
    return Verdict(name, Outcome.WRONG if problems else Outcome.RIGHT, problems or (found.right,))


def _keep(name: str) -> None:
    """Add an exercise to the progress file, if the folder can be written to."""
    with contextlib.suppress(CloudlabError, OSError):
        path, names = paths.make_folder(Path("runs")) / _FILE, sorted({*passed(), name})
        # A file that was edited does not become an unchanged one.
        found = {"passed": names, "sha256": hash_of(*names) if is_unchanged() else ""}
        paths.write_whole(path, json.dumps(found) + "\n")


def passed() -> list[str]:
    """Return the exercises that were passed in this folder, as ``runs/progress.json`` has them."""
    names, _ = _read_progress()
    return [name for name in exercises() if name in names]


def is_unchanged() -> bool:
    """Return whether ``runs/progress.json`` is as :func:`check` wrote it, or does not exist yet."""
    names, sha256 = _read_progress()
    return sha256 == hash_of(*names)


def hash_of(*texts: str) -> str:
    """Return the SHA-256 that is kept with results, to notice files that were edited later.

    It has no key: it detects accidents and casual edits, but proves nothing.
    """
    return hashlib.sha256("\n".join(("cloudlab", *texts)).encode()).hexdigest()


def _read_progress() -> tuple[list[str], str]:
    """Return the names and the hash in the progress file; earlier versions wrote no hash."""
    try:
        found = json.loads((Path("runs") / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [], hash_of()
    except (OSError, ValueError):
        return [], ""
    names = found.get("passed") if isinstance(found, dict) else found
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return [], ""
    return names, str(found.get("sha256", "")) if isinstance(found, dict) else ""


def progress() -> Page:
    """Return a table of the exercises: which were passed in this folder, and which were not."""
    done, names = set(passed()), exercises()
    rows = [
        [book, *("passed" if f"{book}-{place}" in done else "open" for place in (1, 2, 3))]
        for book in sorted({name[:2] for name in names})
    ]
    told = f"{len(done)} of {len(names)} exercises passed"
    plain = "\n".join([told, *("  ".join(row) for row in rows)])
    head = ("notebook", "1 Tweak", "2 Extend", "3 Find the fault")
    return Page(plain, table_html(head, rows, caption=told))


def word(answer: Any) -> str:
    """Return an answer as text without blanks and quotes around it."""
    if isinstance(answer, Run):
        return answer.scenario
    return str(single(answer)).strip().strip("\"'`").strip()


def choice(answer: Any, choices: Iterable[str]) -> str | None:
    """Return which choice an answer names; case, blanks, hyphens and underscores do not matter."""
    return {_folded(one): one for one in choices}.get(_folded(word(answer)))


def known_letter(letter: Any, letters: Iterable[str], what: str) -> str:
    """Return a letter as the course writes it; raise a UsageError for one that it does not have."""
    letters = list(letters)
    found = choice(letter, letters)
    if found is None:
        raise UsageError(f"There is no {what} {letter!r:.40}.", hint=f"Use {', '.join(letters)}.")
    return found


def words(answer: Any) -> list[str]:
    """Return a list of words: from any collection, or from text with commas or arrows.

    A table, or a column of numbers, has its words in the index.
    """
    kind = getattr(getattr(answer, "dtype", None), "kind", None)
    if hasattr(answer, "columns") or (hasattr(answer, "items") and kind in ("i", "u", "f")):
        answer = answer.index
    if isinstance(answer, str):
        return [word(one) for one in re.split(r"[,;\n]|->|→|>", answer) if word(one)]
    if isinstance(answer, Run) or not isinstance(answer, Iterable):
        return [word(answer)]
    return [word(one) for one in answer]


def whole_number(answer: Any) -> int | None:
    """Return a whole number, None if the answer is none.

    Bytes may be written as in ``65,536``, ``64K`` or ``64 KiB``; a line's number as ``line 643``.
    """
    answer = single(answer)
    answer = single(getattr(answer, "number", answer))
    if isinstance(answer, bool) or answer is None:
        return None
    if isinstance(answer, str):
        text = re.sub(r"(?<=\d)[,_ ](?=\d{3}(?!\d))", "", answer.strip().strip("\"'`"))
        text = re.sub(r"^((line|partition|number|#)[\s:]*)+", "", text, flags=re.IGNORECASE)
        text = re.sub(r"\s*bytes?\.?$", "", text, flags=re.IGNORECASE)
        try:
            return parse_size(text)
        except ParseError:
            return None
    if isinstance(answer, float):
        return int(answer) if answer.is_integer() else None
    try:
        return operator.index(answer)
    except TypeError:
        return None


def numbers(answer: Any) -> list[int | None]:
    """Return the whole numbers of a collection, or of text with several of them."""
    if isinstance(answer, str):
        # A comma before three digits may also separate thousands.
        split = r"[;/\n]|\band\b|,\s+|,(?!\d{3}(?!\d))|(?<=[A-Za-z]),|(?<=\d{4})[, ](?=\d)"
        answer = re.split(split, answer.strip("()[] "))
    if isinstance(answer, Mapping):
        answer = answer.values()
    return [whole_number(one) for one in answer] if isinstance(answer, Iterable) else []


def by_letter(answer: Any, letters: Iterable[str]) -> dict[str, Any]:
    """Return letter -> what an answer says of it.

    The answer is a mapping or Series, pairs, or a list in the order of ``letters``.
    """
    if hasattr(answer, "to_dict"):
        answer = answer.to_dict()
    if isinstance(answer, str):
        raise TypeError(answer)
    given = list(answer.items() if isinstance(answer, Mapping) else answer)
    if any(isinstance(one, str) or not isinstance(one, Sequence) for one in given):
        given = list(zip(letters, given, strict=False))
    return {word(letter).rstrip(": ")[-1:].upper(): one for letter, one in given}


def recordings_but(right: set[str], answer: Any, why_not: str) -> Iterator[str]:
    """Yield what is wrong in a list of recordings; ``why_not`` ends a sentence on a wrong one."""
    known = recording_names()
    mine = {choice(one, known) or one for one in words(answer)}
    for name in sorted(mine - right):
        yield f"In {name} {why_not}" if name in known else f"There is no recording called {name!r}."
    if missing := len(right - mine):
        yield f"{missing} of the list {'is' if missing == 1 else 'are'} missing."


def yaml_text(answer: Any, *, header: str = "#cloud-config\n") -> str:
    """Return a YAML text, by default user-data; keys with values become one, below ``header``."""
    if isinstance(answer, Mapping):
        import yaml

        return header + yaml.safe_dump(dict(answer), sort_keys=False)
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)


def faults(user_data_text: str) -> list[str]:
    """Return what cloud-init would refuse, ignore or trip over in a user-data text."""
    lines = user_data_text.splitlines()
    found = []
    for problem in check_user_data(user_data_text):
        item = _COMMAND_ITEM.match(lines[problem.line - 1] if problem.line <= len(lines) else "")
        if item and isinstance(read_document(user_data_text), Problem):
            kind = {"[": "a list", "{": "keys with values"}[item[1]]
            found.append(
                f"line {problem.line}: YAML reads an item that begins with {item[1]} as {kind}. "
                "Put the command in quotes, or below '- |'."
            )
        elif problem.severity is Severity.ERROR or problem.unknown_key:
            found.append(str(problem))
    return found


def _folded(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text.casefold()).strip(" .")


def single(answer: Any) -> Any:
    """Return the one value of an array, Series or collection of one; else the answer itself."""
    is_text = isinstance(answer, str | bytes)
    if isinstance(answer, Sequence | set | frozenset) and not is_text and len(answer) == 1:
        return next(iter(answer))
    if getattr(answer, "size", None) == 1 and hasattr(answer, "item"):
        return answer.item()
    return answer
