"""YAML whose every value knows its line.

Plainer than YAML at large, so that a hostile file can neither hang nor surprise: every
scalar is text as written (``version: 18.04`` stays ``18.04``), tags mean nothing, and
an alias serves only to take over a mapping with ``<<``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudlab.errors import ImageError

#: Values a file may hold with everything taken over counted, against files that double
#: themselves over and over.
MAX_VALUES = 50_000

#: Characters a file may hold: the parser is pure Python.
MAX_CHARACTERS = 1 << 20

#: Faults that are looked at; the most telling one of them is shown.
MAX_FAULTS = 20

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A file's content.

    Attributes
    ----------
    path : Path
    data : Any
        dict, list and str.
    lines : dict
        Key path -> line, from 1.
    """

    path: Path
    data: Any
    lines: Mapping[KeyPath, int]

    def error(self, where: Sequence[str | int], message: str) -> ImageError:
        """Return the error that says file, line, key and ``message``."""
        known = tuple(where)
        while known not in self.lines and known:
            known = known[:-1]
        key = ".".join(str(part) for part in where) or "the whole file"
        return ImageError(
            f"{self.path}, line {self.lines.get(known, 1)}, {key}: {message}.",
            hint="Correct that line; the shipped catalogue.yaml shows the form.",
        )

    def validate(self, schema: Mapping[str, Any]) -> None:
        """Hold the content against a JSON schema.

        Raises
        ------
        ImageError
            With file, line and key of the most telling fault.
        """
        import jsonschema

        # Faults are found one by one, each with a message as long as what it is about.
        found = jsonschema.Draft202012Validator(schema).iter_errors(self.data)
        faults = list(itertools.islice(found, MAX_FAULTS))
        # A key that is spelled wrong explains the one that is missing.
        strange = [fault for fault in faults if fault.validator == "additionalProperties"]
        fault = jsonschema.exceptions.best_match(strange or faults)
        if fault is None:
            return
        where = list(fault.absolute_path)
        # Faulty keys are named by the message only: find their own lines.
        if fault.validator == "additionalProperties" and isinstance(fault.instance, dict):
            where += [key for key in fault.instance if _strange(key, fault.schema)][:1]
        elif "propertyNames" in fault.absolute_schema_path:
            where.append(str(fault.instance))
        raise self.error(where, fault.message[:300])


def _strange(key: str, schema: Mapping[str, Any]) -> bool:
    """Return whether an object of this schema may not have that key."""
    patterns = schema.get("patternProperties", {})
    return key not in schema["properties"] and not any(re.search(one, key) for one in patterns)


def parse(text: str, path: Path) -> Document:
    """Return the content of a YAML file.

    Raises
    ------
    ImageError
        With file and line.
    """
    import yaml

    if len(text) > MAX_CHARACTERS:
        raise Document(path, None, {}).error((), f"more than {MAX_CHARACTERS} characters")
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        lines: dict[KeyPath, int] = {}
        data = _Reader(path, lines).value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        lines = {(): mark.line + 1 if mark else 1}
        raise Document(path, None, lines).error((), error.problem or "not YAML") from error
    except (yaml.YAMLError, ValueError) as error:
        raise Document(path, None, {}).error((), f"not YAML: {error}") from error
    except RecursionError:
        raise Document(path, None, {}).error((), "nested too deeply") from None
    return Document(path, data, lines)


class _Reader:
    def __init__(self, path: Path, lines: dict[KeyPath, int]) -> None:
        self._path = path
        self._lines = lines
        self._values = 0
        self._seen: set[int] = set()

    def value(self, node: Any, where: KeyPath, *, merged: bool = False) -> Any:
        import yaml

        if node is None:
            return {}
        self._values += 1
        line = node.start_mark.line + 1
        self._lines[where] = line
        if self._values > MAX_VALUES:
            raise self._error(line, where, f"more than {MAX_VALUES} values")
        if not merged and not isinstance(node, yaml.ScalarNode):
            if id(node) in self._seen:
                raise self._error(line, where, "an alias may only follow <<")
            self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where, merged=merged)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.value(item, (*where, index), merged=merged)
                for index, item in enumerate(node.value)
            ]
        return node.value

    def _mapping(self, node: Any, where: KeyPath, *, merged: bool) -> dict[str, Any]:
        import yaml

        written = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(line, where, "a key must be text")
            if key.value in written:
                raise self._error(line, (*where, key.value), "this key is there twice")
            written.add(key.value)
        result: dict[str, Any] = {}
        # What is taken over comes first, so that the mapping's own keys and lines win.
        for key, value in sorted(node.value, key=lambda pair: pair[0].value != "<<"):
            line = key.start_mark.line + 1
            if key.value != "<<":
                result[key.value] = self.value(value, (*where, key.value), merged=merged)
                self._lines[(*where, key.value)] = line
            elif isinstance(value, yaml.MappingNode):
                result.update(self.value(value, where, merged=True))
                self._lines[where] = node.start_mark.line + 1
            else:
                raise self._error(line, where, "<< takes one mapping")
        return result

    def _error(self, line: int, where: KeyPath, message: str) -> ImageError:
        return Document(self._path, None, {where: line}).error(where, message)
