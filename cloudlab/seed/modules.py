"""Which of cloud-init's modules a run needs, for the lean profile.

A cloud runs some 45 modules; growing a disk takes five of them.  Under software
emulation every module left out is time won.  The lists keep cloud-init's own order
(``/etc/cloud/cloud.cfg``), which is the lesson: bootcmd comes before growpart and
resizefs, runcmd's script after them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ALWAYS = frozenset({"bootcmd", "growpart", "resizefs", "runcmd", "scripts_user"})

#: Stage -> module -> the user-data keys that it reads.  Names with underscores are
#: understood by every version (checked in 20.4, 22.4 and 25.1).
_STAGES: dict[str, dict[str, frozenset[str]]] = {
    "cloud_init_modules": {
        "bootcmd": frozenset({"bootcmd"}),
        "write_files": frozenset({"write_files"}),
        "growpart": frozenset({"growpart"}),
        "resizefs": frozenset({"resize_rootfs"}),
        "disk_setup": frozenset({"disk_setup", "fs_setup", "device_aliases"}),
        "mounts": frozenset({"mounts", "mount_default_fields", "swap"}),
        "set_hostname": frozenset({"hostname", "fqdn", "preserve_hostname"}),
        "update_hostname": frozenset({"hostname", "fqdn", "preserve_hostname"}),
        "update_etc_hosts": frozenset({"manage_etc_hosts"}),
        "users_groups": frozenset(
            {"users", "groups", "user", "password", "chpasswd", "ssh_authorized_keys"}
        ),
        "ssh": frozenset(
            {"ssh_authorized_keys", "ssh_keys", "ssh_deletekeys", "ssh_genkeytypes", "disable_root"}
        ),
    },
    "cloud_config_modules": {
        "locale": frozenset({"locale", "locale_configfile"}),
        "set_passwords": frozenset({"password", "chpasswd", "ssh_pwauth"}),
        "apt_configure": frozenset({"apt", "packages", "package_update", "package_upgrade"}),
        "timezone": frozenset({"timezone"}),
        "runcmd": frozenset({"runcmd"}),
    },
    "cloud_final_modules": {
        "package_update_upgrade_install": frozenset(
            {"packages", "package_update", "package_upgrade", "package_reboot_if_required"}
        ),
        "scripts_user": frozenset({"runcmd"}),
        "final_message": frozenset({"final_message"}),
        "power_state_change": frozenset({"power_state"}),
    },
}

#: Every user-data key whose module the lean lists know.
KNOWN_KEYS: frozenset[str] = frozenset(_STAGES).union(
    *(keys for modules in _STAGES.values() for keys in modules.values())
)


#: What carries out runcmd: written down in the config stage, run in the final one.
_RUNCMD = ("runcmd", "scripts_user")


def lean_modules(
    user_data: Mapping[str, Any], *, hostname: bool = False, early_runcmd: bool = False
) -> dict[str, list[str]]:
    """Return the module lists that honour every key of ``user_data`` and nothing more.

    Parameters
    ----------
    user_data : mapping
        The top level of a cloud-config.
    hostname : bool
        Whether meta-data carries a host name that the guest shall take.
    early_runcmd : bool
        Whether runcmd may be carried out at the end of the init stage, right after growth,
        where the config and final stages, which start Python twice more, have nothing else
        to do.  Not where ``noblock`` lets growth go on in the background.

    Returns
    -------
    dict
        Stage key (``cloud_init_modules`` ...) -> modules in cloud-init's order.  Empty
        where a key is not known here: then only the image's own full lists are sure
        to honour it.
    """
    keys = set(user_data)
    if not keys <= KNOWN_KEYS or _defers(user_data):
        return {}
    if hostname:
        keys.add("hostname")
    if _has_ssh_keys(user_data.get("users")):
        keys.add("ssh_authorized_keys")
    lists = {
        stage: [name for name, reads in modules.items() if name in _ALWAYS or reads & keys]
        for stage, modules in _STAGES.items()
        if stage not in keys
    }
    grown_by_then = user_data.get("resize_rootfs") != "noblock"
    only_runcmd = list(lists.values())[1:] == [[name] for name in _RUNCMD]
    if early_runcmd and grown_by_then and only_runcmd:
        first, *later = lists
        return {first: [*lists[first], *_RUNCMD], **{stage: [] for stage in later}}
    return lists


def _has_ssh_keys(users: object) -> bool:
    entries = users if isinstance(users, list) else [users]
    return any(
        isinstance(user, dict) and any("ssh" in str(key) for key in user) for user in entries
    )


def _defers(user_data: Mapping[str, Any]) -> bool:
    """Tell whether a file waits for the final stage, by a module that 20.4 does not have."""
    files = user_data.get("write_files")
    return isinstance(files, list) and any(
        isinstance(entry, dict) and entry.get("defer") for entry in files
    )
