"""Which growth a user-data text asks cloud-init for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloudlab.seed.check import Document, is_cloud_config, read_document

TRUE_WORDS = frozenset({"true", "1", "on", "yes"})
FALSE_WORDS = frozenset({"off", "0", "no", "false"})
# Names of the root partition in the lab image.
_ROOT = frozenset({"/", "/dev/vda1"})


@dataclass(frozen=True)
class Growth:
    """Which growth a user-data text switches on.

    Attributes
    ----------
    kept_by : str
        Why growpart does not grow the root partition; empty if it does.
    filesystem : bool
        Whether resizefs grows the root filesystem.
    ignores_growroot_disabled : bool
        Whether growpart works even if ``/etc/growroot-disabled`` exists.
    """

    kept_by: str
    filesystem: bool
    ignores_growroot_disabled: bool

    @property
    def partition(self) -> bool:
        """Whether growpart grows the root partition."""
        return not self.kept_by


def values_of(user_data: str) -> dict[str, Any]:
    """Return the keys that cloud-init reads; none if it ignores the text."""
    if not is_cloud_config(user_data):
        return {}
    document = read_document(user_data)
    return document.value if isinstance(document, Document) else {}


def growth_of(user_data: str) -> Growth:
    """Return which growth a user-data text switches on; cloud-init's defaults hold for the rest.

    Source: cc_growpart and cc_resizefs, the same from cloud-init 22.4 to 26.2.
    """
    values = values_of(user_data)
    growpart = values.get("growpart", {})
    ignores = isinstance(growpart, dict) and growpart.get("ignore_growroot_disabled") is True
    return Growth(
        kept_by=_keeps_partition(growpart),
        # cloud-init's translate_bool: any other word, even a misspelt one, means false.
        filesystem=_word(values.get("resize_rootfs", True)) in {*TRUE_WORDS, "noblock"},
        ignores_growroot_disabled=ignores,
    )


def _keeps_partition(growpart: object) -> str:
    if not isinstance(growpart, dict):
        return "growpart has no keys below it, so cloud-init warns and skips it"
    mode = growpart.get("mode", "auto")
    if _word(mode) in FALSE_WORDS:
        return f"growpart's mode is {mode!r}"
    if mode not in {"auto", "growpart"}:
        return f"growpart's mode {mode!r} needs a tool that Linux does not have"
    devices = growpart.get("devices", ["/"])
    named = [devices] if isinstance(devices, str) else devices or []
    return (
        ""
        if _ROOT & set(map(str, named))
        else "growpart's devices do not include the root partition"
    )


def _word(value: object) -> str:
    return str(value).strip().lower()
