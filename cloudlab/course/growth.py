"""What a user-data text switches on.

Sources: cc_growpart and cc_resizefs, the same from cloud-init 22.4 to 26.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloudlab.seed.check import Document, is_cloud_config, read_document

# How user-data names the root partition of the lab image.
_ROOT_NAMES = frozenset({"/", "/dev/vda1", "/dev/disk/by-label/cloudimg-rootfs"})
#: What cloud-init's is_false takes for false.
_FALSE = frozenset({"off", "0", "no", "false"})


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
    """Return which growth a user-data text switches on; cloud-init's defaults hold for the rest."""
    values = values_of(user_data)
    growpart = values.get("growpart", {})
    # As cc_growpart does, which honours the file only if the value means false.
    ignores = (
        isinstance(growpart, dict)
        and _word(growpart.get("ignore_growroot_disabled", False)) not in _FALSE
    )
    return Growth(
        kept_by=_keeps_partition(growpart),
        # cloud-init's translate_bool: any other word, even a misspelt one, means false.
        filesystem=_word(values.get("resize_rootfs", True))
        in {"true", "1", "on", "yes", "noblock"},
        ignores_growroot_disabled=ignores,
    )


def _keeps_partition(growpart: object) -> str:
    if not isinstance(growpart, dict):
        return "growpart has no keys below it, so cloud-init warns and skips it"
    mode = growpart.get("mode", "auto")
    if _word(mode) in _FALSE:
        return f"growpart's mode is {mode!r}"
    if mode not in {"auto", "growpart"}:
        return f"growpart's mode {mode!r} does not work on Linux, so cloud-init's module fails"
    devices = growpart.get("devices", ["/"])
    named = [devices] if isinstance(devices, str) else devices or []
    if not _ROOT_NAMES & set(map(str, named)):
        return "growpart's devices do not include the root partition"
    return ""


def _word(value: object) -> str:
    return str(value).strip().lower()
