"""YAML texts as values whose lines are known, read within limits.

A hostile text can neither hang the reader nor fill memory: its length, its depth and the number
of values that it stands for, with every alias followed, are bounded.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

# What jsonschema would compile grammars from, if it is installed.
_IRI_SYNTAX = "rfc3987_syntax"

_MAX_DEPTH = 40
_MAX_VALUES = 100_000

#: What PyYAML's constructors raise on odd scalars such as ``2020-99-99`` or ``!!bool maybe``.
_CONSTRUCTOR_ERRORS = (ValueError, TypeError, AttributeError, LookupError, OverflowError)

#: Part of PyYAML's message -> plain words for the most likely cause.
_PLAIN_WORDS = {
    r"'\t'": "a tab: YAML is indented with spaces only",
    "mapping values are not allowed": "a second ': ' here, or a wrong indentation; "
    "if it belongs to the value, put the value in quotes",
    "expected <block end>": "the indentation does not fit the lines above",
    "could not find expected ':'": "a key without ': ' after it, here or in the line above",
    "could not determine a constructor": "an unknown tag ('!...')",
    "found unexpected end of stream": "a quote or bracket that is never closed",
    "expected ',' or": "a missing comma, or a bracket that is never closed",
    "cannot start any token": "a value that must be in quotes because of its first character",
    "unhashable key": "a key that is a list or a mapping, perhaps '{{ ... }}' without quotes",
    "undefined alias": "an alias ('*...') without its anchor ('&...')",
    "second occurrence": "an anchor ('&...') that is defined twice",
    "another document": "a second document ('---'), though only one is allowed",
    "expected chomping": "text beside '|' or '>': it must start on the next line; "
    "a command with '||' must be in quotes",
    "expected a comment": "text beside '|' or '>': it must start on the next line",
    "unknown escape": "a backslash that double quotes do not allow; use single quotes",
}

#: Keys and list positions from the top to a value.
YamlPath = tuple[str | int, ...]


def load_jsonschema() -> None:
    """Import jsonschema without its check of IRIs, which no schema here has.

    JupyterLab brings the package for that check, whose grammars take over a second to compile
    whenever jsonschema is imported.
    """
    hide = _IRI_SYNTAX not in sys.modules
    if hide:
        sys.modules[_IRI_SYNTAX] = None  # type: ignore[assignment]
    try:
        importlib.import_module("jsonschema")
    finally:
        if hide:
            del sys.modules[_IRI_SYNTAX]


class YamlFault(ValueError):  # noqa: N818 (it is turned into an error of the caller's)
    """What is wrong in a text, in plain words without its values, and where (from 1)."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line, self.column, self.message = line, column, message


class PlainLoader(yaml.SafeLoader):
    """Reads every scalar as text: ``version: 18.04`` stays ``18.04``, also with a tag ``!!float``."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's way)
        first: [pair for pair in pairs if pair[0] == "tag:yaml.org,2002:merge"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = yaml.SafeLoader.yaml_constructors | {
        f"tag:yaml.org,2002:{kind}": yaml.SafeLoader.construct_yaml_str
        for kind in ("null", "bool", "int", "float", "binary", "timestamp")
    }


class FirstKeyLoader(yaml.SafeLoader):
    """Takes the first of duplicate keys; every other reader takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping whose keys are in the reverse order of the text."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        node.value.reverse()
        return node


@dataclass(frozen=True)
class YamlText:
    """A text that was read; ``value`` and ``root`` are None for an empty one."""

    value: Any
    root: yaml.Node | None = None
    #: Keys that their mapping has already, of which the last one counts.
    duplicates: tuple[tuple[YamlPath, yaml.ScalarNode], ...] = ()

    def place(self, path: YamlPath, *, key: bool = False) -> tuple[int, int]:
        """Return line and column of the value under ``path``, or with ``key`` of its key.

        Of a path that leads nowhere, its last part that is there counts.
        """
        name = node = self.root
        for step in path:
            following = _step(node, step) if node else None
            if following is None:
                break
            name, node = following
        return node_place(name if key else node)


def node_place(node: yaml.Node | None) -> tuple[int, int]:
    """Return a node's line and column, from 1."""
    return (node.start_mark.line + 1, node.start_mark.column + 1) if node else (1, 1)


def read_yaml(
    text: str, *, max_characters: int, loader: type[yaml.SafeLoader] = yaml.SafeLoader
) -> YamlText:
    """Return what ``text`` holds; raise a YamlFault if it is not YAML, or more than is allowed.

    ``loader`` is PyYAML's, :class:`PlainLoader` or :class:`FirstKeyLoader`.
    """
    if len(text) > max_characters:
        words = f"the text has {len(text)} characters; at most {max_characters} are allowed"
        raise YamlFault(1, 1, words)
    root = None
    try:
        reader = loader(text)
        root = reader.get_single_node()
        if root is None:
            return YamlText(None)
        _count_values(root, {}, 0)
        # Before the values are made, which puts the keys of a merge (<<) into the mapping.
        duplicates = tuple(_duplicates(root))
        return YamlText(reader.construct_document(root), root, duplicates)
    except yaml.YAMLError as error:
        raise _fault(error, text) from error
    except RecursionError:
        raise YamlFault(1, 1, "nested too deeply") from None
    except _CONSTRUCTOR_ERRORS as error:
        words = "this looks like a date, a number or a tagged value, but is not a valid one"
        raise YamlFault(*node_place(_broken_scalar(root, loader(""))), words) from error


def _broken_scalar(node: yaml.Node | None, reader: yaml.SafeLoader) -> yaml.Node | None:
    """Return the first scalar that PyYAML cannot construct, whose error has no position."""
    if isinstance(node, yaml.ScalarNode):
        try:
            reader.construct_object(node)
        except _CONSTRUCTOR_ERRORS:
            return node
    found = (_broken_scalar(child, reader) for child in _children(node))
    return next((one for one in found if one is not None), None)


def _count_values(node: yaml.Node, counts: dict[int, int], depth: int) -> int:
    """Return how many values ``node`` stands for when every alias is followed."""
    if id(node) not in counts:
        if depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=node.start_mark)
        counts[id(node)] = _MAX_VALUES  # what contains itself is endless
        children = (_count_values(child, counts, depth + 1) for child in _children(node))
        counts[id(node)] = 1 + sum(children)
    if counts[id(node)] >= _MAX_VALUES:
        problem = "too many values, or an alias that contains itself"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return counts[id(node)]


def _children(node: yaml.Node | None) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _duplicates(root: yaml.Node) -> Iterator[tuple[YamlPath, yaml.ScalarNode]]:
    todo: list[tuple[YamlPath, yaml.Node]] = [((), root)]
    seen = set()
    while todo:
        path, node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += [((*path, at), item) for at, item in enumerate(node.value)]
        keys = set()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            todo += [(path, key), ((*path, str(key.value)), value)]
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    yield (*path, key.value), key
                keys.add(key.value)


def _fault(error: yaml.YAMLError, text: str) -> YamlFault:
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return YamlFault(line, column, "a character that YAML does not allow")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or "this is not YAML")
    message = next((words for part, words in _PLAIN_WORDS.items() if part in problem), problem)
    if mark is None:
        return YamlFault(1, 1, message)
    return YamlFault(mark.line + 1, mark.column + 1, message)


def _step(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the key node and the value node one step below ``node``."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    if isinstance(node, yaml.MappingNode):
        # Of duplicate keys the last one counts.
        return next((pair for pair in reversed(node.value) if pair[0].value == step), None)
    return None
