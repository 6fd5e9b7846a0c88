"""Which of cloud-init's modules a run needs, for the lean profile.

An image's ``cloud.cfg`` lists up to 48 modules; growing a disk takes five of them, and the others
cost time under emulation.  The lists keep the order of ``cloud.cfg``: bootcmd runs before growpart
and resizefs, the script of runcmd after them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ALWAYS = {"bootcmd", "growpart", "resizefs", "runcmd", "scripts_user"}

#: Stage -> module -> the user-data keys that it reads.  Every version accepts names with
#: underscores (checked in 20.4, 22.4 and 25.1).
_STAGES: dict[str, dict[str, set[str]]] = {
    "cloud_init_modules": {
        "bootcmd": {"bootcmd"},
        "write_files": {"write_files"},
        "growpart": {"growpart"},
        "resizefs": {"resize_rootfs"},
        "disk_setup": {"disk_setup", "fs_setup", "device_aliases"},
        "mounts": {"mounts", "mount_default_fields", "swap"},
        "set_hostname": {"hostname", "fqdn", "preserve_hostname"},
        "update_hostname": {"hostname", "fqdn", "preserve_hostname"},
        "update_etc_hosts": {"manage_etc_hosts"},
        "users_groups": {"users", "groups", "user", "password", "chpasswd", "ssh_authorized_keys"},
        "ssh": {"ssh_authorized_keys", "ssh_keys", "ssh_deletekeys", "ssh_genkeytypes", "disable_root"},
    },
    "cloud_config_modules": {
        "locale": {"locale", "locale_configfile"},
        "set_passwords": {"password", "chpasswd", "ssh_pwauth"},
        "apt_configure": {"apt", "packages", "package_update", "package_upgrade"},
        "timezone": {"timezone"},
        "runcmd": {"runcmd"},
    },
    "cloud_final_modules": {
        "package_update_upgrade_install": {
            "packages", "package_update", "package_upgrade", "package_reboot_if_required",
        },
        "scripts_user": {"runcmd"},
        "final_message": {"final_message"},
        "power_state_change": {"power_state"},
    },
}  # fmt: skip

#: The keys of user-data that list modules, one for each stage.
MODULE_KEYS = frozenset(_STAGES)

_KNOWN_KEYS = set(_STAGES).union(
    *(keys for modules in _STAGES.values() for keys in modules.values())
)

#: The modules of runcmd: the first writes a script (config stage), the other runs it (final).
_RUNCMD = ("runcmd", "scripts_user")


def lean_modules(
    user_data: Mapping[str, Any], *, hostname: bool, early_runcmd: bool
) -> dict[str, list[str]]:
    """Return the modules that the keys of ``user_data`` need.

    Parameters
    ----------
    user_data : mapping
        The top level of a cloud-config.
    hostname : bool
        Whether the guest takes its host name from meta-data.
    early_runcmd : bool
        Whether runcmd may run right after growth, at the end of the init stage, where the config
        and final stages, each a start of Python, would run nothing else.  With ``noblock`` it
        never does, because growth then continues in the background.

    Returns
    -------
    dict
        Stage (``cloud_init_modules`` ...) -> modules in cloud-init's order.  Empty, so that the
        image's own lists are used, for a key that is not in the table above.
    """
    keys = set(user_data)
    files, users = user_data.get("write_files"), user_data.get("users")
    # A deferred file is written by another module, which 20.4 does not have.
    if not keys <= _KNOWN_KEYS or any(entry.get("defer") for entry in _mappings(files)):
        return {}
    if hostname:
        keys.add("hostname")
    if any("ssh" in str(key) for user in _mappings(users) for key in user):
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


def _mappings(values: object) -> list[Mapping[str, Any]]:
    items = values if isinstance(values, list) else [values]
    return [item for item in items if isinstance(item, dict)]
