"""Learners' answers in one form, whatever form they were given in."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cloudlab.course.settings import values_of
from cloudlab.errors import ParseError
from cloudlab.run.value import Run
from cloudlab.seed import Severity, check_user_data
from cloudlab.sizes import parse_size

#: The top-level keys of cloud-init 22.4 and 25.1 (config/schemas/schema-cloud-config-v1.json).
_KEYS = set(
    """
    allow_public_ssh_keys ansible apk_repos apt apt_pipelining apt_reboot_if_required apt_update
    apt_upgrade authkey_hash autoinstall bootcmd byobu_by_default ca-certs ca_certs chef chpasswd
    cloud_config_modules cloud_final_modules cloud_init_modules create_hostname_file
    device_aliases disable_ec2_metadata disable_root disable_root_opts disk_setup drivers fan
    final_message fqdn fs_setup groups growpart grub-dpkg grub_dpkg hostname keyboard landscape
    launch-index locale locale_configfile lxd manage_etc_hosts manage_resolv_conf mcollective
    merge_how merge_type migrate mount_default_fields mounts no_ssh_fingerprints ntp output
    package_reboot_if_required package_update package_upgrade packages password phone_home
    power_state prefer_fqdn_over_hostname preserve_hostname puppet random_seed reporting
    resize_rootfs resolv_conf rh_subscription rsyslog runcmd salt_minion snap spacewalk ssh
    ssh_authorized_keys ssh_deletekeys ssh_fp_console_blacklist ssh_genkeytypes ssh_import_id
    ssh_key_console_blacklist ssh_keys ssh_publish_hostkeys ssh_pwauth ssh_quiet_keygen swap
    system_info timezone ubuntu_advantage ubuntu_pro updates user users vendor_data version
    wireguard write_files yum_repo_dir yum_repos zypper
    """.split()  # noqa: SIM905 - a list literal would be as long as the rest
)
_GROWPART_KEYS = ("mode", "devices", "ignore_growroot_disabled")


def word(answer: Any) -> str:
    """Return an answer as text without blanks and quotes around it."""
    if isinstance(answer, Run):
        return answer.scenario
    single = _single(answer)
    return str(single).strip().strip("\"'`").strip()


def choice(answer: Any, choices: Iterable[str]) -> str | None:
    """Return which choice an answer names; case, blanks, hyphens and underscores do not matter."""
    return {_folded(one): one for one in choices}.get(_folded(word(answer)))


def words(answer: Any) -> list[str]:
    """Return a list of words: from any collection, or from text with commas or arrows."""
    if isinstance(answer, str):
        return [word(one) for one in re.split(r"[,;\n]|->|→|>", answer) if word(one)]
    if isinstance(answer, Run) or not isinstance(answer, Iterable):
        return [word(answer)]
    return [word(one) for one in answer]


def whole_number(answer: Any) -> int | None:
    """Return a whole number, None if the answer is none.

    Bytes may be written as in ``65,536``, ``64K`` or ``64 KiB``; a line's number as ``line 643``.
    """
    answer = getattr(answer, "number", _single(answer))
    if isinstance(answer, bool) or answer is None:
        return None
    if isinstance(answer, str):
        text = re.sub(r"(?<=\d)[,_ ](?=\d{3}\b)", "", answer.strip().strip("\"'`"))
        text = re.sub(r"^(line|partition|number)\s*", "", text, flags=re.IGNORECASE)
        text = re.sub(r"\s*bytes?\.?$", "", text, flags=re.IGNORECASE)
        try:
            return parse_size(text)
        except ParseError:
            return None
    if isinstance(answer, float):
        return int(answer) if answer.is_integer() else None
    try:
        return operator.index(answer)
    except TypeError:
        return None


def numbers(answer: Any) -> list[int | None]:
    """Return the whole numbers of a collection, or of text with several of them."""
    if isinstance(answer, str):
        answer = re.split(r"[;/]|,\s+|,(?!\d{3})", answer.strip("()[] "))
    if isinstance(answer, Mapping):
        answer = answer.values()
    return [whole_number(one) for one in answer] if isinstance(answer, Iterable) else []


def text(answer: Any, *, header: str = "") -> str:
    """Return a YAML text; keys with values become one, below ``header``."""
    if isinstance(answer, Mapping):
        import yaml

        return header + yaml.safe_dump(dict(answer), sort_keys=False)
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)


def user_data(answer: Any) -> str:
    """Return a user-data text."""
    return text(answer, header="#cloud-config\n")


def faults(user_data_text: str) -> list[str]:
    """Return what cloud-init would refuse, ignore or trip over in a user-data text."""
    found = [str(one) for one in check_user_data(user_data_text) if one.severity is Severity.ERROR]
    values = values_of(user_data_text)
    growpart = values.get("growpart")
    inner = growpart if isinstance(growpart, dict) else {}
    unknown = [str(key) for key in values if key not in _KEYS]
    unknown += [f"growpart.{key}" for key in inner if key not in _GROWPART_KEYS]
    return found + [
        f"cloud-init has no key {key!r}."
        for key in unknown
        if not any(key.rpartition(".")[2] in one for one in found)
    ]


def _folded(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text.casefold()).strip(" .")


def _single(answer: Any) -> Any:
    """Return the one value of an array, Series or list of one; else the answer itself."""
    if isinstance(answer, list | tuple | set | frozenset) and len(answer) == 1:
        return next(iter(answer))
    if getattr(answer, "size", None) == 1 and hasattr(answer, "item"):
        return answer.item()
    return answer
