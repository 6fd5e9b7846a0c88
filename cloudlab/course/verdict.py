"""The answer to an answer: right, or what is off and why."""

from __future__ import annotations

import html
import importlib
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cloudlab.errors import CloudlabError, UsageError

#: Yields what is off in an answer, in sentences; nothing where it is right.
Check = Callable[[Any], Iterable[str]]

_HOMES = ("exercises", "more_exercises", "storage")
_GIVEN = "This is still what you were given. Change it, and run the cell again."
_HEADS = {True: "Right", False: "Not yet", None: "No answer yet"}
_COLOURS = {True: "#0a7d4f", False: "#b3541e", None: "#6b6b6b"}


@dataclass(frozen=True)
class Verdict:
    """What is to be said of an answer.

    Attributes
    ----------
    exercise : str
    right : bool or None
        None where there is no answer yet.
    words : tuple of str
        What is off and why, or why it is right.
    """

    exercise: str
    right: bool | None
    words: tuple[str, ...]

    def __repr__(self) -> str:
        head = f"{_HEADS[self.right]} ({self.exercise})"
        return "\n".join([head, *(f"  {words}" for words in self.words)])

    def _repr_html_(self) -> str:
        head = f"<strong>{_HEADS[self.right]}</strong> ({self.exercise})"
        below = "".join(f"<div>{html.escape(words)}</div>" for words in self.words)
        style = f"border-left: 4px solid {_COLOURS[self.right]}; padding: 0.3em 0.8em"
        return f'<div role="status" style="{style}">{head}{below}</div>'


class UnansweredError(Exception):
    """Raised by a check: the answer is still what the exercise began with."""


@dataclass(frozen=True)
class _Exercise:
    check: Check
    right: str
    start: Any


_EXERCISES: dict[str, _Exercise] = {}


def exercise(name: str, *, right: str, start: Any = None) -> Callable[[Check], Check]:
    """Make a function the check of an exercise.

    Parameters
    ----------
    name : str
        Notebook and number, e.g. ``05-1``.
    right : str
        What a right answer shows.
    start : object
        What the notebook begins with: no answer yet.
    """

    def enter(check_function: Check) -> Check:
        _EXERCISES[name] = _Exercise(check_function, right, start)
        return check_function

    return enter


def exercises() -> list[str]:
    """Return the names of all exercises, in their order."""
    for home in _HOMES:
        importlib.import_module(f"cloudlab.course.{home}")
    return sorted(_EXERCISES)


def check(name: str, answer: object = None) -> Verdict:
    """Say whether an answer is right, or what is off and why.

    Parameters
    ----------
    name : str
        Notebook and number, e.g. ``05-1``.
    answer : object
        What the exercise asks for; None, or what the notebook began with, where there is
        none yet.

    Raises
    ------
    UsageError
        For an exercise that the course does not have.
    """
    known = exercises()
    if name not in known:
        raise UsageError(f"There is no exercise {name!r}.", hint=f"There are {', '.join(known)}.")
    if answer is None:
        return Verdict(name, None, ("Put your answer in place of None and run the cell again.",))
    found = _EXERCISES[name]
    if type(answer) is type(found.start) and answer == found.start:
        return Verdict(name, None, (_GIVEN,))
    try:
        problems = tuple(found.check(answer))
    except UnansweredError:
        return Verdict(name, None, (_GIVEN,))
    except CloudlabError as error:
        problems = (error.message,)
    except Exception as error:  # noqa: BLE001 - a learner's function may raise anything
        problems = (f"The answer could not be checked: {type(error).__name__}: {error}.",)
    return Verdict(name, not problems, problems or (found.right,))


def whole_number(answer: Any) -> int | None:
    """Return an answer as a whole number, digits of a text included; None where it is none."""
    if isinstance(answer, bool):
        return None
    if isinstance(answer, str):
        text = answer.strip()
        return int(text) if text.isascii() and text.isdigit() else None
    if isinstance(answer, float) and answer.is_integer():
        return int(answer)
    try:
        return operator.index(answer)
    except TypeError:
        return None
