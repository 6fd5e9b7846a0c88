"""What is wrong in a user-data text, told before the guest finds out a minute later.

An error is what cloud-init would refuse, ignore or trip over; a warning is what it takes,
but perhaps not as meant.  Values are never repeated in a message: they may be passwords.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from cloudlab.errors import SeedError
from cloudlab.seed.modules import KNOWN_KEYS
from cloudlab.seed.text import (
    HEADER,
    Document,
    Problem,
    Severity,
    is_cloud_config,
    kind_of,
    read_document,
)
from cloudlab.yamltext import YamlPath, node_place

#: How cloud-init tells other kinds of user-data (cloudinit/handlers/__init__.py).
_OTHER_KINDS = {
    "#!": "a script",
    "#include": "a list of addresses to include",
    "#part-handler": "a part handler",
    "#cloud-boothook": "a boothook",
    "#cloud-config-archive": "an archive",
    "#cloud-config-jsonp": "a JSON patch",
    "## template: jinja": "a template",
    "mime-version:": "a MIME message",
    "content-type: multipart": "a MIME message",
}


def load_schema(path: Path | None) -> dict[str, Any] | None:
    """Return cloud-init's schema from an image's ``schema_path``; None where there is none.

    Raises
    ------
    SeedError
        If the file cannot be read or is no JSON schema.
    """
    if path is None:
        return None
    from jsonschema import Draft4Validator, SchemaError

    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(schema, dict):
            raise SeedError(f"{path} is not cloud-init's JSON schema: expected an object.")
        Draft4Validator.check_schema(schema)
    except (OSError, ValueError, SchemaError) as error:
        raise SeedError(f"{path} is not cloud-init's JSON schema: {error}.") from error
    return schema


def check_user_data(
    text: str, schema: dict[str, Any] | None = None, *, header: bool = True
) -> list[Problem]:
    """Return what is wrong in ``text``, in the order of its lines.

    Parameters
    ----------
    text : str
        A whole user-data, or with ``header=False`` some keys of one.
    schema : dict, optional
        cloud-init's own schema, from :func:`load_schema`; without it only the keys
        about growth and commands are checked thoroughly.
    header : bool
        Whether the first line must be ``#cloud-config``.
    """
    found = _check_header(text) if header else []
    if header and not is_cloud_config(text):
        return found
    document = read_document(text)
    if isinstance(document, Problem):
        return sorted([*found, document])
    own = [*_growth_traps(document), *_command_traps(document)]
    found += [*own, *_duplicates(document), *_plain_passwords(document)]
    found += _unknown_keys(document, schema or {})
    if schema is not None:
        told = {problem.line for problem in own}
        found += [p for p in _schema_problems(document, schema) if p.line not in told]
    return sorted(set(found))


def check_meta_data(text: str) -> list[Problem]:
    """Return what is wrong in a meta-data text, in the order of its lines."""
    document = read_document(text)
    if isinstance(document, Problem):
        return [document]
    instance_id = document.value.get("instance-id")
    if instance_id in (None, ""):
        # NoCloud's own default; what ran once for it would not run again.
        message = "meta-data has no instance-id, so cloud-init calls this instance 'nocloud'"
        return [document.problem(("instance-id",), message, Severity.WARNING)]
    if isinstance(instance_id, dict | list):
        message = f"the instance-id must be text, found {kind_of(instance_id)}"
        return [document.problem(("instance-id",), message)]
    return []


def _check_header(text: str) -> list[Problem]:
    severity = Severity.WARNING
    start = text.lower().lstrip()
    kind = next((kind for mark, kind in _OTHER_KINDS.items() if start.startswith(mark)), None)
    if text.startswith(HEADER) and is_cloud_config(text):
        return []
    if is_cloud_config(text):
        message = f"write {HEADER} at the very start, in lower case"
    elif not start:
        message = "the text is empty: every default holds"
    elif kind is not None:
        message = f"this is {kind}, not a cloud-config: it goes in as it is, unchecked"
    else:
        severity = Severity.ERROR
        message = f"the first line must be {HEADER}: without it cloud-init ignores the whole text"
        if text.startswith("\ufeff"):
            message = f"an invisible byte order mark stands before the first line {HEADER}"
    return [Problem(1, 1, message, severity)]


def _growth_traps(document: Document) -> Iterator[Problem]:
    growpart = document.value.get("growpart", {})
    if not isinstance(growpart, dict):
        yield document.problem(
            ("growpart",),
            f"growpart holds keys such as mode, found {kind_of(growpart)}; to switch it off "
            "write growpart: {mode: 'off'}",
        )
    elif growpart.get("mode", "auto") is False:
        yield document.problem(
            ("growpart", "mode"),
            "an unquoted off, no or false is a YAML boolean: it works, but is deprecated; "
            "write mode: 'off'",
            Severity.WARNING,
        )
    elif growpart.get("mode", "auto") not in ("auto", "growpart", "gpart", "off"):
        yield document.problem(
            ("growpart", "mode"), "the mode must be auto, growpart, gpart or 'off'"
        )
    if document.value.get("resize_rootfs", True) not in (True, False, "noblock"):
        yield document.problem(("resize_rootfs",), "it must be true, false or noblock")


def _command_traps(document: Document) -> Iterator[Problem]:
    for name in ("bootcmd", "runcmd"):
        commands = document.value.get(name) or []
        if not isinstance(commands, list):
            message = f"{name} must be a list ('- COMMAND'), found {kind_of(commands)}"
            yield document.problem((name,), message)
            continue
        for position, command in enumerate(commands):
            if isinstance(command, dict):
                message = "a ': ' made keys of this command; put the whole command in quotes"
                yield document.problem((name, position), message)
            elif not isinstance(command, str | list | None):
                message = f"a command is text or a list of words, found {kind_of(command)}"
                yield document.problem((name, position), message)


def _duplicates(document: Document) -> Iterator[Problem]:
    for _, key in document.text.duplicates:
        message = f"the key {key.value!r} stands here twice; only the last one counts"
        yield Problem(*node_place(key), message, Severity.WARNING)


def _plain_passwords(document: Document) -> Iterator[Problem]:
    message = "a password in plain text stays readable in the seed; openssl passwd -6 makes a hash"
    for path, password in _passwords(document.value):
        if password is not None and not str(password).startswith(("$", "!", "*")):
            yield document.problem(path, message, Severity.WARNING)


def _passwords(cloud_config: dict[str, Any]) -> Iterator[tuple[YamlPath, object]]:
    """Yield every password with its place, but for those that cloud-init makes up itself."""
    yield ("password",), cloud_config.get("password")
    users, user = cloud_config.get("users"), cloud_config.get("user")
    places: list[tuple[YamlPath, object]] = [(("user",), user)]
    places += [(("users", at), one) for at, one in enumerate(users if _is_list(users) else ())]
    for path, one in places:
        for key in ("plain_text_passwd", "passwd", "hashed_passwd"):
            if isinstance(one, dict) and key in one:
                # A hash in plain_text_passwd would be taken for the password itself.
                yield (*path, key), "" if key == "plain_text_passwd" else one[key]
    chpasswd = cloud_config.get("chpasswd")
    if not isinstance(chpasswd, dict):
        return
    listed, made_up = chpasswd.get("list"), {"R", "RANDOM"}
    lines = listed.splitlines() if isinstance(listed, str) else listed
    for at, line in enumerate(lines if _is_list(lines) else ()):
        password = str(line).partition(":")[2].strip()
        if password and password not in made_up:
            yield ("chpasswd", "list", *(() if isinstance(listed, str) else (at,))), password
    entries = chpasswd.get("users")
    for at, entry in enumerate(entries if _is_list(entries) else ()):
        if isinstance(entry, dict) and entry.get("type") != "RANDOM":
            given = entry.get("password")
            plain = given is not None and entry.get("type") == "text"
            yield ("chpasswd", "users", at, "password"), "" if plain else given


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _unknown_keys(document: Document, schema: dict[str, Any]) -> Iterator[Problem]:
    known = KNOWN_KEYS.union(
        schema.get("properties", {}),
        *(part.get("properties", {}) for part in schema.get("$defs", {}).values()),
    )
    for key in document.value:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key), known, 1, cutoff=0.8)
        if near:
            message = f"unknown key {key!r}; did you mean {near[0]!r}?"
            yield document.problem((key,), message, key=True)
        elif schema:
            message = f"the image's cloud-init does not know the key {key!r}"
            yield document.problem((key,), message, Severity.WARNING, key=True)


def _schema_problems(document: Document, schema: dict[str, Any]) -> Iterator[Problem]:
    from jsonschema import Draft4Validator
    from jsonschema.exceptions import best_match

    for error in Draft4Validator(schema).iter_errors(_jsonable(document.value)):
        # Of several forms that a value may have, the one that nearly fits tells most.
        closest = best_match([error])
        path = tuple(closest.absolute_path)
        if path:  # unknown keys at the top are told by their names above
            rule = _broken_rule(closest)
            # The guest only warns of these; a misspelt key, though, does nothing at all.
            severity = Severity.ERROR if "did you mean" in rule else Severity.WARNING
            yield document.problem(path, f"{'.'.join(map(str, path))}: {rule}", severity)


def _broken_rule(error: Any) -> str:
    wanted = error.validator_value
    match error.validator:
        case "type":
            names = wanted if isinstance(wanted, list) else [wanted]
            return f"expected {' or '.join(names)}, found {kind_of(error.instance)}"
        case "enum":
            return "expected " + " or ".join(json.dumps(choice) for choice in wanted)
        case "required":
            return f"lacks {' and '.join(name for name in wanted if name not in error.instance)}"
        case "additionalProperties":
            known = error.schema.get("properties", {})
            unknown = [key for key in error.instance if key not in known]
            near = difflib.get_close_matches(unknown[0], known, 1) if unknown else []
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return f"unknown key {', '.join(map(repr, unknown))}{hint}"
        case "anyOf" | "oneOf":
            return "none of the forms that cloud-init takes"
        case rule:
            return f"breaks cloud-init's rule {rule}: {json.dumps(wanted)[:80]}"


def _jsonable(value: object) -> Any:
    """Return ``value`` with JSON's types only, as the schema expects them."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_jsonable(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)
