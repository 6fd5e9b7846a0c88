"""Read user-data and meta-data, and find their problems before a guest does.

A cloud-config is validated against :file:`cloud-config.yaml`, which holds in depth what cloud-init
accepts for disks, growth and commands, and against the schema of the image's cloud-init if any.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import yaml

from cloudlab.errors import SeedError
from cloudlab.yamltext import (
    FirstKeyLoader,
    YamlFault,
    YamlPath,
    YamlText,
    load_jsonschema,
    node_place,
    read_yaml,
)

HEADER = "#cloud-config"

#: Clouds take 16 KiB (EC2) to 64 KiB, and PyYAML, cloud-init's reader, needs seconds for this much.
MAX_CHARACTERS = 256 * 1024

#: How other kinds of user-data begin (cloudinit/handlers/__init__.py).
_OTHER_KINDS = {
    "#!": "a script",
    "#include": "a list of URLs to include",
    "#part-handler": "a part handler",
    "#cloud-boothook": "a boothook",
    "#cloud-config-archive": "a cloud-config archive",
    "#cloud-config-jsonp": "a JSON patch",
    "## template: jinja": "a template",
}
#: A MIME message has this header in its first bytes (cloudinit/user_data.py).
_MIME_HEADER, _MIME_BYTES = b"mime-version:", 4096
_TEMPLATE_HEADER = re.compile(r"##\s*template:\s*jinja", re.IGNORECASE)

#: JSON schema's types in words.
_TYPES = {"object": "keys with values", "array": "a list", "string": "text", "null": "nothing"}
_TYPES |= {"boolean": "true or false", "integer": "a whole number", "number": "a number"}

_SCHEMA_HINT = "Fetch or build the image again."


class Severity(StrEnum):
    """error: cloud-init refuses, ignores or misreads it; warning: it may not do as meant."""

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
    """A text whose top level is a mapping, and the places of its values."""

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

    With ``first`` the first of duplicate keys counts; for cloud-init it is the last.
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


def load_schema(path: Path | None) -> dict[str, Any] | None:
    """Return cloud-init's schema from an image's ``schema_path``; None where there is none.

    Raise a SeedError if the file cannot be read or is not a JSON schema, down to its ``$defs``.
    """
    if path is None:
        return None
    load_jsonschema()
    from jsonschema import Draft4Validator, SchemaError

    try:
        schema = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        parts = msgspec.convert(schema.get("$defs", {}), dict[str, Any])
        for part in (schema, *parts.values()):
            Draft4Validator.check_schema(part)
    except (OSError, msgspec.MsgspecError, SchemaError) as error:
        reason = getattr(error, "message", None) or getattr(error, "strerror", None) or error
        raise SeedError(
            f"{path} is not a JSON schema of cloud-init: {reason}.",
            hint=_SCHEMA_HINT,
        ) from error
    return schema


def check_user_data(
    text: str, schema: dict[str, Any] | None = None, *, header: bool = True
) -> list[Problem]:
    """Return the problems of a user-data text, in the order of its lines.

    Parameters
    ----------
    text : str
        A whole user-data, or with ``header=False`` some keys of a cloud-config.
    schema : dict, optional
        The schema of the image's cloud-init, from :func:`load_schema`; without it only the keys
        about disks, growth, commands and passwords are checked in depth.
    header : bool
        Whether the first line must be ``#cloud-config``.

    Raises
    ------
    SeedError
        If the image's schema refers to what it does not hold.
    """
    found = list(_check_kind(text)) if header else []
    if header and not is_cloud_config(text):
        return found
    document = read_document(text)
    if isinstance(document, Problem):
        return sorted([*found, document])
    for path, node in document.text.duplicates:
        message = f"the key {path[-1]!r} appears twice; only the last one counts"
        found.append(Problem(*node_place(node), message, Severity.WARNING))
    own = set(_schema_problems(document, _own_schema(schema or {})))
    overridden = read_document(text, first=True) if document.text.duplicates else document
    if isinstance(overridden, Document):
        own |= set(_schema_problems(overridden, _own_schema(schema or {})))
    lines = {problem.line for problem in own}
    images = _schema_problems(document, schema) if schema is not None else ()
    return sorted([*found, *own, *{one for one in images if one.line not in lines}])


def check_meta_data(text: str) -> list[Problem]:
    """Return the problems of a meta-data text, in the order of its lines."""
    document = read_document(text)
    if isinstance(document, Problem):
        return [document]
    instance_id = document.value.get("instance-id")
    if instance_id in (None, ""):
        # The default of the NoCloud datasource; what ran once for it would not run again.
        message = "meta-data has no instance-id (add one), so cloud-init uses the id 'nocloud'"
        return [document.problem(("instance-id",), message, Severity.WARNING)]
    if isinstance(instance_id, dict | list):
        message = f"the instance-id must be text, found {kind_of(instance_id)}"
        return [document.problem(("instance-id",), message)]
    return []


def _check_kind(text: str) -> Iterator[Problem]:
    start = text.lower().lstrip()
    kind = next((kind for mark, kind in _OTHER_KINDS.items() if start.startswith(mark)), None)
    if kind is None and _MIME_HEADER in text.encode(errors="replace")[:_MIME_BYTES].lower():
        kind = "a MIME message"
    if is_cloud_config(text):
        if not text.startswith(HEADER):
            message = f"write {HEADER} at the very start, in lower case"
            yield Problem(1, 1, message, Severity.WARNING)
    elif not start:
        yield Problem(1, 1, "the text is empty, so the defaults apply", Severity.WARNING)
    elif kind is not None:
        message = f"this is {kind}; cloudlab checks cloud-configs only"
        yield Problem(1, 1, message, Severity.WARNING)
    elif text.startswith("\ufeff"):
        yield Problem(1, 1, f"a byte order mark precedes {HEADER}; save the file without one")
    else:
        message = f"the first line must be {HEADER}; without it cloud-init ignores the whole text"
        yield Problem(1, 1, message)
    marks = [at for at, line in enumerate(text.splitlines(), 1) if _TEMPLATE_HEADER.match(line)]
    if marks and marks[0] > 1 and (kind == "a template" or is_cloud_config(text)):
        message = "this line makes a template only as line 1; cloud-init will render nothing"
        yield Problem(marks[0], 1, message, Severity.WARNING)


@functools.cache
def _shipped_schema() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("cloud-config.yaml").read_text(encoding="utf-8")
    schema: dict[str, Any] = yaml.safe_load(text)
    return schema


def _own_schema(images: dict[str, Any]) -> dict[str, Any]:
    """Return the shipped schema, which also accepts every top-level key of the image's."""
    own = _shipped_schema()
    parts = [images, *images.get("$defs", {}).values()]
    known: dict[str, Any] = {key: {} for part in parts for key in part.get("properties", {})}
    return own | {"properties": known | own["properties"]}


def _schema_problems(document: Document, schema: dict[str, Any]) -> Iterator[Problem]:
    load_jsonschema()
    from jsonschema.exceptions import best_match

    for error in _schema_errors(_jsonable(document.value), schema):
        # Of several forms that a value may have, the nearest one explains most.
        closest = best_match([error])
        path = tuple(closest.absolute_path)
        if closest.validator == "additionalProperties":
            for key, remedy in _unknown_keys(closest):
                message = f"cloud-init ignores the unknown key {key!r}{remedy}"
                place = document.text.place((*path, key), key=True)
                yield Problem(*place, message, Severity.WARNING, unknown_key=True)
        elif isinstance(message := error.schema.get("message"), str):
            severity = Severity.WARNING
            if error.schema.get("severity") == "error":
                severity = Severity.ERROR
            words = message.replace("{found}", kind_of(error.instance))
            yield document.problem(tuple(error.absolute_path), words, severity)
        else:
            words = f"{'.'.join(map(str, path))}: {_broken_rule(closest)}".removeprefix(": ")
            yield document.problem(path, words, Severity.WARNING)


def _schema_errors(value: Any, schema: dict[str, Any]) -> list[Any]:
    """Return jsonschema's errors; raise a SeedError for a schema that cannot be applied."""
    from jsonschema import Draft4Validator, FormatChecker
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # Without a registry, jsonschema downloads what a $ref names, and a mirror may send the schema.
    validator = Draft4Validator(schema, registry=Registry(), format_checker=FormatChecker())
    try:
        return list(validator.iter_errors(value))
    except (Unresolvable, RecursionError, ValueError, re.error) as error:
        reason = "it refers to itself" if isinstance(error, RecursionError) else error
        raise SeedError(
            f"The image's schema of cloud-init cannot be used: {reason}.", hint=_SCHEMA_HINT
        ) from error


def _unknown_keys(error: Any) -> Iterator[tuple[str, str]]:
    """Yield each key that a mapping may not have, and a suggestion."""
    known, patterns = error.schema.get("properties", {}), error.schema.get("patternProperties", {})
    for key in error.instance:
        if key not in known and not any(re.search(pattern, key) for pattern in patterns):
            near = difflib.get_close_matches(key, known, 1, cutoff=0.65)
            yield key, f"; did you mean {near[0]!r}?" if near else ""


def _broken_rule(error: Any) -> str:
    wanted = error.validator_value
    match error.validator:
        case "type":
            names = wanted if isinstance(wanted, list) else [wanted]
            words = " or ".join(_TYPES[name] for name in names)
            return f"expected {words}, found {kind_of(error.instance)}"
        case "enum":
            return "expected " + " or ".join(json.dumps(choice) for choice in wanted)
        case "required":
            return f"lacks {' and '.join(name for name in wanted if name not in error.instance)}"
        case "anyOf" | "oneOf":
            return "has none of the forms that cloud-init accepts"
        case rule:
            return f"breaks the rule {rule} of cloud-init's schema: {json.dumps(wanted)[:80]}"


def _jsonable(value: object) -> Any:
    """Return ``value`` with JSON's types only, as the schema expects them."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_jsonable(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)
