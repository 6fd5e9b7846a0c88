"""A user-data text as values with their positions, and the problems found in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from cloudlab.yamltext import FirstKeyLoader, YamlFault, YamlPath, YamlText, read_yaml

HEADER = "#cloud-config"

#: Clouds take 16 KiB (EC2) to 64 KiB, and PyYAML, cloud-init's reader, needs seconds for this much.
MAX_CHARACTERS = 256 * 1024


class Severity(StrEnum):
    """error: cloud-init refuses it, ignores it or fails on it; warning: it may not do as meant."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong in a text.

    Attributes
    ----------
    line, column : int
        From 1.
    message : str
        Names keys, but never repeats values: they may be passwords.
    severity : Severity
    unknown_key : bool
        Whether cloud-init ignores a key because it does not know it.
    """

    line: int
    column: int
    message: str
    severity: Severity = Severity.ERROR
    unknown_key: bool = False

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


@dataclass(frozen=True)
class Document:
    """A text whose top level is a mapping.

    Attributes
    ----------
    value : dict
    text : YamlText
    """

    value: dict[str, Any]
    text: YamlText

    def problem(
        self,
        path: YamlPath,
        message: str,
        severity: Severity = Severity.ERROR,
        *,
        key: bool = False,
    ) -> Problem:
        """Return a problem at the value under ``path``, or with ``key`` at its key."""
        return Problem(*self.text.place(path, key=key), message, severity)


def is_cloud_config(text: str) -> bool:
    """Return whether cloud-init takes ``text`` for a cloud-config, judged by its first line."""
    start = text.lower().lstrip()
    return start.startswith(HEADER) and not start.startswith((HEADER + "-a", HEADER + "-jsonp"))


def read_document(text: str, *, first: bool = False) -> Document | Problem:
    """Return the mapping that ``text`` holds, or what is wrong with it.

    Parameters
    ----------
    text : str
    first : bool
        Take the first of duplicate keys; cloud-init takes the last.
    """
    loader = FirstKeyLoader if first else yaml.SafeLoader
    try:
        found = read_yaml(text, max_characters=MAX_CHARACTERS, loader=loader)
    except YamlFault as fault:
        return Problem(fault.line, fault.column, fault.message)
    if isinstance(found.value, dict | None):
        return Document(found.value or {}, found)
    message = f"expected keys with values ('key: value'), found {kind_of(found.value)}"
    return Problem(*found.place(()), message)


def kind_of(value: object) -> str:
    """Return the kind of a value in words, without the value itself."""
    kinds = {dict: "keys with values", list: "a list", str: "text", bool: "true or false"}
    kinds |= {int: "a number", float: "a number", type(None): "nothing"}
    return kinds.get(type(value), "a date or other special value")
