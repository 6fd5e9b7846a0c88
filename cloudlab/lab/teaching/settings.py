"""What cloud-init makes of a user-data text, as far as growth goes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from cloudlab.seed.text import Document, is_cloud_config, read_document

_NEW_PARTITION = re.compile(r"--new=(\d+):(\d+)GiB:(?:\+(\d+)GiB|0)")
_GIB = 1 << 30


@dataclass(frozen=True)
class Growth:
    """What is switched on.

    Attributes
    ----------
    partition, filesystem : bool
        Whether growpart and resizefs are asked to work.
    ignores_growroot_disabled : bool
        Whether growpart works although ``/etc/growroot-disabled`` is there.
    """

    partition: bool
    filesystem: bool
    ignores_growroot_disabled: bool


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
    growpart = values.get("growpart")
    if not isinstance(growpart, dict):
        growpart = {}
    return Growth(
        partition=not _is_false(growpart.get("mode", "auto")),
        filesystem=not _is_false(values.get("resize_rootfs", True)),
        ignores_growroot_disabled=growpart.get("ignore_growroot_disabled") is True,
    )


def _is_false(value: object) -> bool:
    return str(value).strip().lower() in {"off", "0", "no", "false"}


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
