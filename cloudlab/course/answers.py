"""Learners' answers in one form, whatever form they were given in."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cloudlab.errors import ParseError
from cloudlab.run.value import Run
from cloudlab.seed import Severity, check_user_data
from cloudlab.sizes import parse_size


def word(answer: Any) -> str:
    """Return an answer as text without blanks and quotes around it."""
    if isinstance(answer, Run):
        return answer.scenario
    single = _single(answer)
    return str(single).strip().strip("\"'`").strip()


def choice(answer: Any, choices: Iterable[str]) -> str | None:
    """Return which choice an answer names; case, blanks, hyphens and underscores do not matter."""
    return {_folded(one): one for one in choices}.get(_folded(word(answer)))


def words(answer: Any) -> list[str]:
    """Return a list of words: from any collection, or from text with commas or arrows."""
    if isinstance(answer, str):
        return [word(one) for one in re.split(r"[,;\n]|->|→|>", answer) if word(one)]
    if isinstance(answer, Run) or not isinstance(answer, Iterable):
        return [word(answer)]
    return [word(one) for one in answer]


def whole_number(answer: Any) -> int | None:
    """Return a whole number, None if the answer is none.

    Bytes may be written as in ``65,536``, ``64K`` or ``64 KiB``; a line's number as ``line 643``.
    """
    answer = getattr(answer, "number", _single(answer))
    if isinstance(answer, bool) or answer is None:
        return None
    if isinstance(answer, str):
        text = re.sub(r"(?<=\d)[,_ ](?=\d{3}\b)", "", answer.strip().strip("\"'`"))
        text = re.sub(r"^(line|partition|number)\s*", "", text, flags=re.IGNORECASE)
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
        answer = re.split(r"[;/]|,\s+|,(?!\d{3})", answer.strip("()[] "))
    if isinstance(answer, Mapping):
        answer = answer.values()
    return [whole_number(one) for one in answer] if isinstance(answer, Iterable) else []


def text(answer: Any, *, header: str = "") -> str:
    """Return a YAML text; keys with values become one, below ``header``."""
    if isinstance(answer, Mapping):
        import yaml

        return header + yaml.safe_dump(dict(answer), sort_keys=False)
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)


def user_data(answer: Any) -> str:
    """Return a user-data text."""
    return text(answer, header="#cloud-config\n")


def faults(user_data_text: str) -> list[str]:
    """Return what cloud-init would refuse, ignore or trip over in a user-data text."""
    return [
        str(problem)
        for problem in check_user_data(user_data_text)
        if problem.severity is Severity.ERROR or problem.unknown_key
    ]


def _folded(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text.casefold()).strip(" .")


def _single(answer: Any) -> Any:
    """Return the one value of an array, Series or list of one; else the answer itself."""
    if isinstance(answer, list | tuple | set | frozenset) and len(answer) == 1:
        return next(iter(answer))
    if getattr(answer, "size", None) == 1 and hasattr(answer, "item"):
        return answer.item()
    return answer
