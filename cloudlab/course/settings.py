"""What cloud-init makes of a user-data text, as far as growth goes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from cloudlab.seed.text import Document, is_cloud_config, read_document

_NEW_PARTITION = re.compile(r"--new=(\d+):(\d+)GiB:(?:\+(\d+)GiB|0)")
_TRUE = frozenset({"true", "1", "on", "yes"})
_FALSE = frozenset({"off", "0", "no", "false"})
# What the lab image's root goes by.
_ROOT = frozenset({"/", "/dev/vda1"})


@dataclass(frozen=True)
class Growth:
    """What is switched on.

    Attributes
    ----------
    kept_by : str
        What of the text keeps growpart from root's partition; empty where nothing does.
    filesystem : bool
        Whether resizefs is asked to work.
    ignores_growroot_disabled : bool
        Whether growpart works although ``/etc/growroot-disabled`` is there.
    """

    kept_by: str
    filesystem: bool
    ignores_growroot_disabled: bool

    @property
    def partition(self) -> bool:
        """Whether growpart is asked to grow root's partition."""
        return not self.kept_by


def values_of(user_data: str) -> dict[str, Any]:
    """Return what cloud-init reads; nothing where it would leave the text out."""
    if not is_cloud_config(user_data):
        return {}
    document = read_document(user_data)
    return document.value if isinstance(document, Document) else {}


def growth_of(user_data: str) -> Growth:
    """Return what a user-data text switches on; what it does not say is cloud-init's default.

    Source: cc_growpart and cc_resizefs of cloud-init 22.4.
    """
    values = values_of(user_data)
    growpart = values.get("growpart", {})
    ignores = isinstance(growpart, dict) and growpart.get("ignore_growroot_disabled") is True
    return Growth(
        kept_by=_keeps_partition(growpart),
        # What is no word for true switches resizefs off, a misspelt one as well.
        filesystem=_word(values.get("resize_rootfs", True)) in {*_TRUE, "noblock"},
        ignores_growroot_disabled=ignores,
    )


def _keeps_partition(growpart: object) -> str:
    if not isinstance(growpart, dict):
        return "growpart has no keys of its own, so cloud-init leaves it with a warning"
    mode = growpart.get("mode", "auto")
    if _word(mode) in _FALSE:
        return f"growpart's mode is {mode!r}"
    if mode not in {"auto", "growpart"}:
        return f"on Linux there is no tool for growpart's mode {mode!r}"
    devices = growpart.get("devices", ["/"])
    named = [devices] if isinstance(devices, str) else devices or []
    return "" if _ROOT & set(map(str, named)) else "root is not among growpart's devices"


def _word(value: object) -> str:
    return str(value).strip().lower()


@dataclass(frozen=True)
class Planned:
    """A partition that a bootcmd makes with ``sgdisk --new=NUMBER:START:END``, in GiB."""

    number: int
    start_gib: int
    size_gib: int | None

    @property
    def end_gib(self) -> float:
        """Where it ends; infinity for the disk's end."""
        return float("inf") if self.size_gib is None else self.start_gib + self.size_gib


def planned_partitions(user_data: str) -> list[Planned]:
    """Return the partitions that bootcmd makes, by place; only whole GiB are understood."""
    text = yaml.safe_dump(values_of(user_data).get("bootcmd", []), width=10_000)
    found = [
        Planned(int(number), int(start), int(size) if size else None)
        for number, start, size in _NEW_PARTITION.findall(text)
    ]
    return sorted(found, key=lambda one: one.start_gib)
