"""The catalogue: which cloud images are published where, and how they are verified.

The data is in ``catalogue.yaml`` beside this module; a user's own file of the same form adds
entries or replaces whole ones.  Nothing here uses the network.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab import paths
from cloudlab.errors import ImageError, UsageError, suggest
from cloudlab.image.trust import Digest, Key, Trust, parse_digest
from cloudlab.tools import ARCHITECTURES
from cloudlab.tools import host_arch as host_arch  # noqa: PLC0414  (choose and mirror ask here)
from cloudlab.yamltext import PlainLoader, YamlFault, YamlText, node_place, read_yaml

if TYPE_CHECKING:
    import jsonschema

#: A catalogue may be longer than user-data; PyYAML, which is pure Python, needs seconds for this.
MAX_CHARACTERS = 1 << 20

#: Faults that are looked at; the most telling one of them is shown.
_MAX_FAULTS = 20

_WORD = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Published:
    """One image for one architecture, as its publisher offers it.

    Attributes
    ----------
    name, title : str
    arch : str
        ``amd64`` or ``arm64``.
    url : str
    format : str
        ``qcow2`` or ``raw``.
    trust : Trust
        The label of a fetched copy.
    pinned : Digest or None
        The checksum that the catalogue itself gives.
    checksum_url, algorithm, style : str
        The checksum file, its hash and its form; empty where there is none.
    signature_url : str
        Of a detached signature.
    key : Key or None
        Who signs the checksum file; None if it is not signed.
    root_filesystem, layout : str
    firmware : tuple of str
        Of ``bios`` and ``uefi``, what it boots by.
    quirks : dict
        Short name -> sentence.
    refused : str
        Why cloudlab cannot use it; empty for a usable image.
    known_by : tuple of str
        Words in lower case that are all in a file's name if it is this image or another issue
        of it.  Empty where such a file has no quirks.
    own : bool
        Whether the entry is from the user's own catalogue.
    """

    name: str
    title: str
    arch: str
    url: str
    format: str
    trust: Trust
    pinned: Digest | None = None
    checksum_url: str = ""
    algorithm: str = ""
    style: str = ""
    signature_url: str = ""
    key: Key | None = None
    root_filesystem: str = ""
    layout: str = ""
    firmware: tuple[str, ...] = ("bios", "uefi")
    quirks: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""
    known_by: tuple[str, ...] = ()
    own: bool = False

    def check_usable(self) -> None:
        """Check that cloudlab can use the image.

        Raises
        ------
        ImageError
            With the reason.
        """
        if self.refused:
            raise ImageError(
                f"cloudlab cannot use {self.name}: {self.refused}",
                hint="'cloudlab images' lists the images that it can use.",
            )


@dataclass(frozen=True)
class Catalogue:
    """All known published images.

    Attributes
    ----------
    images : dict
        Name -> architecture -> :class:`Published`.
    default : str
        The image that ``auto`` fetches.
    """

    images: Mapping[str, Mapping[str, Published]]
    default: str

    def rows(self) -> list[Published]:
        """Return every image for every architecture, in the catalogue's order."""
        return [image for by_arch in self.images.values() for image in by_arch.values()]

    def recognise(self, filename: str) -> Published | None:
        """Return the image that a file is by its name, or None."""
        name = filename.lower()
        for image in self.rows():
            if image.known_by and all(word in name for word in image.known_by):
                return image
        return None

    def quirks_of_file(self, filename: str) -> dict[str, str]:
        """Return the quirks of a file that is recognised by its name, wherever it comes from.

        Raises
        ------
        ImageError
            If cloudlab cannot use it.
        """
        published = self.recognise(filename)
        if published is None:
            return {}
        if published.refused:
            raise ImageError(
                f"cloudlab cannot use {filename}: by its name it is {published.title}. "
                f"{published.refused}",
                hint="If it is another image, rename the file.",
            )
        # That quirk is about the catalogue's own entry.
        return {k: v for k, v in published.quirks.items() if k != "checksums-not-tried"}

    def find(self, name: str, arch: str | None = None) -> Published:
        """Return the image called ``name`` for ``arch``, by default this host's.

        Raises
        ------
        UsageError
            If there is none of that name or architecture.
        """
        by_arch = self.images.get(name)
        if by_arch is None:
            raise _unknown(name, self.images)
        arch = check_arch(arch)
        if arch not in by_arch:
            raise UsageError(
                f"{name} is published for {' and '.join(by_arch)}, not for {arch}.",
                hint=f"Use --arch {next(iter(by_arch))}, or another image.",
            )
        return by_arch[arch]


def _unknown(name: str, known: Iterable[str]) -> UsageError:
    """Return the error for something that is no image's name."""
    if "://" in name:
        scheme = name.partition("://")[0]
        return UsageError(
            f"{name!r} cannot be fetched: cloudlab supports http and https, not {scheme}.",
            hint="Use an http or https URL, or download the file yourself and name its path "
            "with 'cloudlab run --image'.",
        )
    if "/" in name:
        return UsageError(
            f"{name!r} is a path, not the name of an image.",
            hint=f"A file need not be fetched: cloudlab run --image {shlex.quote(name)}",
        )
    if name.startswith("lab-"):
        hint = "Lab images are built with 'cloudlab build', or come from a mirror."
    else:
        hint = suggest(
            name,
            known,
            "'cloudlab images' lists the names; a URL works too, and for --image a file's path.",
        )
    return UsageError(f"The catalogue has no image called {name!r}.", hint=hint)


def check_arch(arch: str | None) -> str:
    """Return ``amd64`` or ``arm64`` for either's usual names; this host's for None."""
    if arch is None:
        return host_arch()
    if arch.lower() not in ARCHITECTURES:
        raise UsageError(
            f"The architecture {arch!r} is not supported.", hint="Choose amd64 or arm64."
        )
    return ARCHITECTURES[arch.lower()]


def load_catalogue(own: Path | None = None) -> Catalogue:
    """Return the catalogue, with the user's own entries.

    Parameters
    ----------
    own : Path, optional
        The user's file; default: the one in ``CLOUDLAB_CATALOGUE``, if any.

    Raises
    ------
    ImageError
        With file, line and key, if a file is not a catalogue.
    """
    shipped = _shipped()
    chosen = str(own) if own else os.environ.get("CLOUDLAB_CATALOGUE", "")
    if not chosen:
        return shipped[0]
    try:
        path = paths.expand(chosen)
        text = paths.read_text(path)
    except UsageError as error:
        raise ImageError(
            f"Your own catalogue cannot be used: {error.message}",
            hint="Set CLOUDLAB_CATALOGUE to another file, or unset it.",
        ) from error
    return parse_catalogue(text, path, base=shipped)[0]


@functools.cache
def _shipped() -> tuple[Catalogue, dict[str, Key]]:
    path = Path(str(resources.files("cloudlab.image") / "catalogue.yaml"))
    return parse_catalogue(path.read_text(encoding="utf-8"), path)


@functools.cache
def catalogue_schema() -> dict[str, Any]:
    """Return the JSON schema of a catalogue file."""
    text = (resources.files("cloudlab.image") / "catalogue.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@dataclass(frozen=True)
class Document:
    """A catalogue file's values, all of them dict, list and str, with their places."""

    path: Path
    value: Any
    text: YamlText

    def error(self, where: Sequence[str | int], message: str) -> ImageError:
        """Return the error that names the file, the line and the key."""
        line, _ = self.text.place(tuple(where), key=True)
        return _error(self.path, line, where, message)

    def validate(self, schema: Mapping[str, Any]) -> None:
        """Check the values against a JSON schema.

        Raises
        ------
        ImageError
            With file, line and key of the most telling fault.
        """
        import jsonschema

        # Faults are found one by one, each with a message as long as what it is about.
        found = jsonschema.Draft202012Validator(schema).iter_errors(self.value)
        faults = list(itertools.islice(found, _MAX_FAULTS))
        # A misspelled key explains the one that is missing.
        strange = [fault for fault in faults if fault.validator == "additionalProperties"]
        fault = jsonschema.exceptions.best_match(strange or faults)
        if fault is None:
            return
        where: list[str | int] = list(fault.absolute_path)
        # Only the message names a key that is not allowed: find its own line.
        if fault.validator == "additionalProperties" and isinstance(fault.instance, dict):
            rules = fault.schema
            allowed = re.compile("|".join(rules.get("patternProperties", {"(?!)": None})))
            where += [
                key
                for key in fault.instance
                if key not in rules["properties"] and not allowed.search(key)
            ][:1]
        elif "propertyNames" in fault.absolute_schema_path:
            where.append(str(fault.instance))
        raise self.error(where, _complaint(fault, where))


def _complaint(fault: jsonschema.ValidationError, where: Sequence[str | int]) -> str:
    """Return in plain words what is wrong with a value."""
    schema: Any = fault.schema
    instance: Any = fault.instance
    if fault.validator == "additionalProperties":
        names = ", ".join(schema["properties"])
        hint = suggest(str(where[-1]), schema["properties"], f"Known are {names}")
        return f"this key is unknown. {hint}"
    if fault.validator == "required":
        return (
            f"the key {next(key for key in schema['required'] if key not in instance)!r} is missing"
        )
    if fault.validator == "dependentRequired":
        return "'signature' needs 'checksums', which it signs"
    return fault.message[:300] if fault.validator else "this key is not allowed here"


def read_document(text: str, path: Path) -> Document:
    """Return the values of a catalogue's text.

    Raises
    ------
    ImageError
        With file and line, if it is not YAML or has a key twice.
    """
    try:
        found = read_yaml(text, max_characters=MAX_CHARACTERS, loader=PlainLoader)
    except YamlFault as fault:
        raise _error(path, fault.line, (), fault.message) from fault
    for where, key in found.duplicates:
        raise _error(path, node_place(key)[0], where, "this key is there twice")
    return Document(path, {} if found.value is None else found.value, found)


def _error(path: Path, line: int, where: Sequence[str | int], words: str) -> ImageError:
    key = ".".join(map(str, where)) or "the whole file"
    return ImageError(
        f"{path}, line {line}, {key}: {words}" + ("" if words.endswith("?") else "."),
        hint="Correct that line; cloudlab's own catalogue.yaml shows the form.",
    )


def parse_catalogue(
    text: str, path: Path, base: tuple[Catalogue, dict[str, Key]] | None = None
) -> tuple[Catalogue, dict[str, Key]]:
    """Return a catalogue, on top of ``base``, and the signing keys that it may refer to.

    Parameters
    ----------
    text : str
        YAML, see ``catalogue.schema.json``.
    path : Path
        The file's name, for messages and for the key files beside it.
    base : tuple, optional
        The result of this function for the catalogue that this one extends.

    Raises
    ------
    ImageError
        With file, line and key.
    """
    document = read_document(text, path)
    if base is not None:
        # A test checks the shipped file against the schema: jsonschema is slow to load.
        document.validate(catalogue_schema())
    below, keys = base or (Catalogue({}, ""), {})
    keys = dict(keys)
    for name, key in document.value.get("keys", {}).items():
        keys[name] = Key(name, path.parent / key["file"], key["fingerprint"])
    images = dict(below.images)
    for name, entry in document.value["images"].items():
        images[name] = {
            arch: _published(document, name, arch, keys, own=base is not None)
            for arch in entry["arch"]
        }
    default = document.value.get("default", below.default)
    if default and default not in images:
        raise document.error(("default",), f"there is no image called {default!r}")
    return Catalogue(images, default), keys


def _published(
    document: Document, name: str, arch: str, keys: dict[str, Key], *, own: bool
) -> Published:
    entry = document.value["images"][name]
    where = ("images", name)
    words = {**entry.get("values", {}), "arch": entry["arch"][arch]}

    def fill(pattern: str, *key: str) -> str:
        unknown = set(_WORD.findall(pattern)) - set(words)
        if unknown:
            problem = f"{{{min(unknown)}}} is none of: {', '.join(sorted(words))}"
            raise document.error((*where, *key), problem)
        return _WORD.sub(lambda match: words[match[1]], pattern)

    pinned = parse_digest(entry["pinned"][arch]) if arch in entry.get("pinned", {}) else None
    checksums = {} if pinned else entry.get("checksums", {})
    signature = entry.get("signature", {}) if checksums else {}
    if signature and signature["key"] not in keys:
        problem = f"there is no key called {signature['key']!r}"
        raise document.error((*where, "signature", "key"), problem)
    trust = Trust.SIGNED if signature else Trust.TLS if checksums else Trust.UNVERIFIED
    return Published(
        name=name,
        title=entry["title"],
        arch=arch,
        url=fill(entry["url"], "url"),
        format=entry["format"],
        trust=Trust.PINNED if pinned else trust,
        pinned=pinned,
        checksum_url=fill(checksums.get("url", ""), "checksums", "url"),
        algorithm=checksums.get("algorithm", ""),
        style=checksums.get("style", ""),
        signature_url=fill(signature.get("url", ""), "signature", "url"),
        key=keys[signature["key"]] if signature else None,
        root_filesystem=entry.get("root_filesystem", ""),
        layout=entry.get("layout", ""),
        firmware=("uefi",) if arch == "arm64" else tuple(entry.get("firmware", ("bios", "uefi"))),
        quirks=entry.get("quirks", {}),
        refused=entry.get("refused", ""),
        known_by=tuple(entry.get("known_by", ())),
        own=own,
    )
