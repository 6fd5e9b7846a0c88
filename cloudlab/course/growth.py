"""What a user-data text switches on.

Sources: cc_growpart and cc_resizefs, the same from cloud-init 22.4 to 26.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloudlab.course.shell import UndecidedError
from cloudlab.seed import Severity, check_user_data
from cloudlab.seed.check import Document, is_cloud_config, read_document

# How user-data names the root partition of the lab image.
_ROOT_NAMES = frozenset({"/", "/dev/vda1", "/dev/disk/by-label/cloudimg-rootfs"})
#: The keys that list modules, and which of those that matter here the image's own lists hold.
_LISTS = {
    "cloud_init_modules": ["bootcmd", "growpart", "resizefs", "disk_setup", "mounts"],
    "cloud_config_modules": ["runcmd"],
    "cloud_final_modules": ["scripts_user"],
}
#: Key -> the modules that read it.
_READ_BY = {
    "bootcmd": ["bootcmd"],
    "fs_setup": ["disk_setup"],
    "mounts": ["mounts"],
    "runcmd": ["runcmd", "scripts_user"],
}
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


def values_used(user_data: str) -> dict[str, Any]:
    """Return the keys that cloud-init reads, without those of modules that its lists leave out."""
    values = values_of(user_data)
    return {
        key: value
        for key, value in values.items()
        if all(_runs(values, module) for module in _READ_BY.get(key, ()))
    }


def growth_of(user_data: str) -> Growth:
    """Return which growth a user-data text switches on; cloud-init's defaults hold for the rest.

    Raises
    ------
    UndecidedError
        For user-data that cloud-init accepts and that is no cloud-config, such as a template.
    """
    other = bool(user_data.strip()) and not is_cloud_config(user_data)
    if other and all(one.severity is Severity.WARNING for one in check_user_data(user_data)):
        raise UndecidedError("user-data that is no cloud-config")
    values = values_of(user_data)
    growpart = values.get("growpart", {})
    # As cc_growpart does, which honours the file only if the value means false.
    ignores = (
        isinstance(growpart, dict)
        and _word(growpart.get("ignore_growroot_disabled", False)) not in _FALSE
    )
    return Growth(
        kept_by=_keeps_partition(growpart)
        if _runs(values, "growpart")
        else "the lists of modules leave growpart out",
        # cloud-init's translate_bool: any other word, even a misspelt one, means false.
        filesystem=_word(values.get("resize_rootfs", True)) in {"true", "1", "on", "yes", "noblock"}
        and _runs(values, "resizefs"),
        ignores_growroot_disabled=ignores,
    )


def _runs(values: dict[str, Any], module: str) -> bool:
    """Return whether a boot runs a module: it is listed in the text, or in the image's own lists."""
    for stage, usual in _LISTS.items():
        listed = values.get(stage, usual)
        # A list of a module's name and its frequency stands for the module.
        for one in listed if isinstance(listed, list) else ():
            name = str(one[0] if isinstance(one, list) and one else one)
            if name.replace("-", "_").removeprefix("cc_") == module:
                return True
    return False


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
