"""A user-data text as values and as places: what it holds, and where that stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

HEADER = "#cloud-config"

#: Clouds take 16 KiB (EC2) to 64 KiB, and PyYAML, cloud-init's reader, needs seconds for this much.
MAX_CHARACTERS = 256 * 1024
_MAX_DEPTH = 40
#: Aliases can make a short text stand for billions of values.
_MAX_VALUES = 100_000

#: What PyYAML's constructors raise on odd scalars such as ``2020-99-99`` or ``!!bool maybe``.
_CONSTRUCTOR_ERRORS = (ValueError, TypeError, AttributeError, LookupError, OverflowError)

#: Part of PyYAML's message -> plain words for what a learner most likely did.
_PLAIN_WORDS = {
    r"'\t'": "a tab: YAML is indented with spaces only",
    "mapping values are not allowed": "a second ': ' here, or a wrong indentation; "
    "if it belongs to the value, put the value in quotes",
    "expected <block end>": "the indentation does not fit the lines above",
    "could not find expected ':'": "a key without ': ' after it, here or in the line above",
    "could not determine a constructor": "a tag ('!...') that cloud-init does not know",
    "found unexpected end of stream": "a quote or bracket that is never closed",
    "undefined alias": "an alias ('*...') without its anchor ('&...')",
}

#: Keys and list positions from the top to a value.
YamlPath = tuple[str | int, ...]


class Severity(StrEnum):
    """error: cloud-init would refuse or ignore it; warning: it takes it, maybe not as meant."""

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
        In plain words, without the values themselves.
    severity : Severity
    """

    line: int
    column: int
    message: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


@dataclass(frozen=True)
class Document:
    """A text that holds keys with values.

    Attributes
    ----------
    value : dict
    root : yaml.Node or None
        None for an empty text.
    """

    value: dict[str, Any]
    root: yaml.Node | None = None

    def problem(
        self,
        path: YamlPath,
        message: str,
        severity: Severity = Severity.ERROR,
        *,
        key: bool = False,
    ) -> Problem:
        """Return a problem at the value under ``path``, or with ``key`` at its key."""
        if self.root is None:
            return Problem(1, 1, message, severity)
        name = node = self.root
        for step in path:
            following = _step(node, step)
            if following is None:
                break
            name, node = following
        return problem_at(name if key else node, message, severity)


def is_cloud_config(text: str) -> bool:
    """Tell whether cloud-init takes ``text`` for a cloud-config, by its first characters."""
    start = text.lower().lstrip()
    return start.startswith(HEADER) and not start.startswith((HEADER + "-a", HEADER + "-jsonp"))


def read_document(text: str) -> Document | Problem:  # noqa: PLR0911
    """Return what ``text`` holds, read as cloud-init reads it, or why it holds nothing."""
    if len(text) > MAX_CHARACTERS:
        return Problem(1, 1, f"{len(text)} characters are too many; {MAX_CHARACTERS} are taken")
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return Document({})
        _count_values(root, {}, 0)
        value = loader.construct_document(root)
    except yaml.YAMLError as error:
        return _yaml_problem(error, text)
    except RecursionError:
        return Problem(1, 1, "nested too deeply")
    except _CONSTRUCTOR_ERRORS:
        return Problem(1, 1, "a value looks like a date, number or tagged value, but is none")
    if isinstance(value, dict | None):
        return Document(value or {}, root)
    return problem_at(root, f"expected keys with values ('key: value'), found {kind_of(value)}")


def problem_at(node: yaml.Node, message: str, severity: Severity = Severity.ERROR) -> Problem:
    """Return a problem at ``node``."""
    return Problem(node.start_mark.line + 1, node.start_mark.column + 1, message, severity)


def child_nodes(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yield the keys, values and items directly below ``node``."""
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def kind_of(value: object) -> str:
    """Return what ``value`` is, in words that do not repeat it."""
    kinds = {dict: "keys with values", list: "a list", str: "text", bool: "true or false"}
    kinds |= {int: "a number", float: "a number", type(None): "nothing"}
    return kinds.get(type(value), "a date or other special value")


def _count_values(node: yaml.Node, counts: dict[int, int], depth: int) -> int:
    """Return how many values ``node`` stands for when every alias is followed."""
    if id(node) not in counts:
        if depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=node.start_mark)
        counts[id(node)] = _MAX_VALUES  # what contains itself is endless
        children = (_count_values(child, counts, depth + 1) for child in child_nodes(node))
        counts[id(node)] = 1 + sum(children)
    if counts[id(node)] >= _MAX_VALUES:
        problem = "too many values, or an alias that contains itself"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return counts[id(node)]


def _yaml_problem(error: yaml.YAMLError, text: str) -> Problem:
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return Problem(line, column, "a character that YAML does not allow")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or "this is not YAML")
    message = next((words for part, words in _PLAIN_WORDS.items() if part in problem), problem)
    if mark is None:
        return Problem(1, 1, message)
    return Problem(mark.line + 1, mark.column + 1, message)


def _step(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the key node and the value node one step below ``node``."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    if isinstance(node, yaml.MappingNode):
        # Of duplicate keys the last one counts.
        return next((pair for pair in reversed(node.value) if pair[0].value == step), None)
    return None
