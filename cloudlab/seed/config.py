"""The learner's choices as typed values, and the texts that cloud-init reads."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import uuid
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import resources
from typing import Any

import yaml

from cloudlab.errors import SeedError
from cloudlab.seed.check import check_meta_data, check_user_data
from cloudlab.seed.modules import lean_modules
from cloudlab.seed.text import Document, Problem, Severity, is_cloud_config, read_document

#: A command of bootcmd or runcmd: a line for the shell, or words that no shell touches.
Command = str | tuple[str, ...]

_REPORT_PATH = "/run/cloudlab-report.sh"
#: The seed is unmounted again so that lsblk and df show the machine as it would be without us.
_FETCH_REPORT = f"mount -o ro LABEL=cidata /mnt && cp /mnt/report.sh {_REPORT_PATH}; umount /mnt"

#: What cloud-init's set_passwords takes for a hash, in every version up to 26.2; it would
#: set anything else, ``$y$`` too, as a password in plain text.
_DEFAULT_USER_HASH = re.compile(r"\$(1|2a|2y|5|6)(\$[^$:\s]+){2,3}")
_ANY_HASH = re.compile(r"\$[0-9a-z]+(\$[^$:\s]+){2,4}|[!*]+")
_HOSTNAME = re.compile(
    r"(?=.{1,253}$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*"
)
#: A type and the key itself, which begins with the length of its type and so with AAAA;
#: options may stand before them, a comment behind.
_PUBLIC_KEY = re.compile(r"(?:^|.*\s)([a-z0-9][a-z0-9@.-]*)\s+(AAAA[A-Za-z0-9+/]+={0,2})(?:\s.*)?$")
_HASH_HINT = "Make a hash with: openssl passwd -6"


class GrowpartMode(StrEnum):
    """Who grows the partition (``growpart.mode``).

    Examples
    --------
    >>> cloudlab.boot(growpart="off").options.growpart
    <GrowpartMode.OFF: 'off'>
    """

    AUTO = "auto"
    GROWPART = "growpart"
    GPART = "gpart"
    OFF = "off"


class ResizeRootfs(StrEnum):
    """Whether the root filesystem grows (``resize_rootfs``); noblock: in the background.

    Examples
    --------
    >>> cloudlab.recorded("resize-rootfs-false").options.resize_rootfs
    <ResizeRootfs.FALSE: 'false'>
    """

    TRUE = "true"
    FALSE = "false"
    NOBLOCK = "noblock"


class Profile(StrEnum):
    """How much of cloud-init runs: what the options need, or all that a cloud runs."""

    LEAN = "lean"
    FULL = "full"


@dataclass(frozen=True)
class User:
    """One more user of the guest.

    Attributes
    ----------
    name : str
    password_hash : str or None
        As crypt(5) writes it (``$6$...``, ``$y$...``); None keeps the password locked.
    ssh_authorized_keys : tuple of str
        Lines of an authorized_keys file.
    sudo : bool
        Whether the user may become root without a password.
    """

    name: str
    password_hash: str | None = None
    ssh_authorized_keys: tuple[str, ...] = ()
    sudo: bool = True


@dataclass(frozen=True)
class SeedConfig:
    """What the learner chose.  What is None or empty is not written, so cloud-init's default holds.

    Attributes
    ----------
    growpart : GrowpartMode or None
    growpart_devices : tuple of str
        Mount points or ``/dev`` paths of the partitions to grow.
    ignore_growroot_disabled : bool or None
    resize_rootfs : ResizeRootfs or None
    bootcmd, runcmd : tuple of str or tuple
        Commands before and after the growth: shell lines, or tuples of words.
    users : tuple of User
        Beside the image's default user.
    password_hash : str or None
        For the image's default user.
    ssh_authorized_keys : tuple of str
        For the image's default user.
    hostname : str or None
    extra_yaml : str
        Any further keys of a cloud-config, as YAML.
    profile : Profile
    report : bool
        Whether the guest measures itself before and after the growth.
    sampler : bool
        Whether it also reports every change in between.
    instance_id : str or None
        None makes a fresh one; a used one makes cloud-init skip what runs once per instance.

    Examples
    --------
    >>> seed = cloudlab.SeedConfig(growpart=cloudlab.GrowpartMode.OFF, runcmd=("uptime",))
    >>> seed.growpart
    <GrowpartMode.OFF: 'off'>
    """

    growpart: GrowpartMode | None = None
    growpart_devices: tuple[str, ...] = ()
    ignore_growroot_disabled: bool | None = None
    resize_rootfs: ResizeRootfs | None = None
    bootcmd: tuple[Command, ...] = ()
    runcmd: tuple[Command, ...] = ()
    users: tuple[User, ...] = ()
    password_hash: str | None = None
    ssh_authorized_keys: tuple[str, ...] = ()
    hostname: str | None = None
    extra_yaml: str = ""
    profile: Profile = Profile.LEAN
    report: bool = True
    sampler: bool = False
    instance_id: str | None = None


@dataclass(frozen=True)
class Seed:
    """The seed's files as texts; None means that the seed lacks the file.

    ``problems`` are the warnings about what the learner wrote: errors are refused before.
    """

    user_data: str
    meta_data: str
    vendor_data: str | None = None
    network_config: str | None = None
    report_sh: str | None = None
    problems: tuple[Problem, ...] = ()

    def _repr_html_(self) -> str:
        from cloudlab.html import files_html

        return files_html({"user-data": self.user_data, "meta-data": self.meta_data})


def parse_public_keys(text: str) -> tuple[str, ...]:
    """Return the keys of a ``.pub`` or ``authorized_keys`` file, a line each, without comments.

    Raises
    ------
    SeedError
        If a line is not a public key, or there is none.  The message does not repeat the text,
        which may be secret.
    """
    lines = [line.strip() for line in text.splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if "PRIVATE KEY-----" in text:
        what = "This is a private key, which must not leave this host."
    elif not keys:
        what = "This holds no public key."
    elif not all(map(_is_public_key, keys)):
        number = next(
            n for n, line in enumerate(lines, 1) if line in keys and not _is_public_key(line)
        )
        what = f"Line {number} is not an SSH public key."
    else:
        return keys
    raise SeedError(
        what,
        hint="A public key begins with its type, such as ssh-ed25519; its file usually ends in .pub.",
    )


def _is_public_key(line: str) -> bool:
    match = _PUBLIC_KEY.fullmatch(line)
    if match is None:
        return False
    try:
        blob = base64.b64decode(match[2], validate=True)
    except binascii.Error:
        return False
    return blob[4 : 4 + int.from_bytes(blob[:4])] == match[1].encode()


def new_nonce() -> str:
    """Return 16 digits that no other run's report carries."""
    return f"{secrets.randbelow(10**16):016}"


def with_nonce(seed: Seed, nonce: str) -> Seed:
    """Return ``seed`` with a report whose every frame carries ``nonce``, if it has a report."""
    if seed.report_sh is None:
        return seed
    return replace(seed, report_sh=seed.report_sh.replace("\nnonce=\n", f"\nnonce={nonce}\n", 1))


def new_instance_id() -> str:
    """Return an instance-id that no run had before."""
    return f"iid-cloudlab-{uuid.uuid4()}"


def to_user_data(config: SeedConfig, schema: dict[str, Any] | None = None) -> str:
    """Return the user-data of ``config``: a cloud-config, with the report's commands if wanted.

    Parameters
    ----------
    config : SeedConfig
    schema : dict, optional
        cloud-init's own schema, from :func:`load_schema`, for the extra YAML.

    Raises
    ------
    SeedError
        If a value or the extra YAML is not what cloud-init takes.
    """
    return _user_data(config, schema, hostname=config.hostname is not None)


def build_seed(
    config: SeedConfig,
    schema: dict[str, Any] | None = None,
    meta_data: str | None = None,
    *,
    vendor_data: str | None = None,
    network_config: str | None = None,
) -> Seed:
    """Return the seed of ``config``; arguments and errors as of :func:`to_user_data`.

    Pure but for the instance-id, which is fresh where ``config`` does not set one.

    Parameters
    ----------
    config : SeedConfig
    schema : dict, optional
    meta_data : str, optional
        The whole of meta-data, instead of the instance-id and host name of ``config``.
    vendor_data, network_config : str, optional
        As of :func:`custom_seed`.
    """
    own_vendor_data, told_of_it = _own_vendor_data(vendor_data, schema, report=config.report)
    _check_network_config(network_config)
    own_meta_data, told = _own_meta_data(meta_data, config)
    hostname = config.hostname is not None or meta_data is not None
    if vendor_data is not None:
        # What it asks for may need any module.
        config = replace(config, profile=Profile.FULL)
    user_data = _user_data(config, schema, hostname=hostname)
    found = check_user_data(config.extra_yaml, schema, header=False)
    return Seed(
        user_data=user_data,
        meta_data=own_meta_data,
        vendor_data=own_vendor_data,
        network_config=network_config,
        report_sh=_report_script() if config.report else None,
        problems=(*found, *told, *told_of_it),
    )


def custom_seed(
    user_data: str,
    meta_data: str | None = None,
    *,
    report: bool = True,
    sampler: bool = False,
    profile: Profile = Profile.FULL,
    instance_id: str | None = None,
    vendor_data: str | None = None,
    network_config: str | None = None,
    check: bool = True,
    schema: dict[str, Any] | None = None,
) -> Seed:
    """Return the seed of a user-data text that somebody wrote.

    The report's commands are merged into a cloud-config: ours first in bootcmd, last in
    runcmd; comments go, values stay.  Any other text (a script, a MIME message, with
    ``check=False`` also a broken cloud-config) goes in byte for byte, and the
    report's commands travel in vendor-data, which cloud-init reads all the same.

    Parameters
    ----------
    user_data : str
    meta_data : str, optional
        The whole of meta-data; by default an instance-id and a host name.
    report, sampler, profile, instance_id
        As in :class:`SeedConfig`.
    vendor_data : str, optional
        What a cloud's vendor would add: a cloud-config whose keys user-data's take precedence of.
    network_config : str, optional
    check : bool
        Whether a text with errors is refused.
    schema : dict, optional
        cloud-init's own schema, from :func:`load_schema`.

    Raises
    ------
    SeedError
        With every error that :func:`check_user_data` and :func:`check_meta_data` found.
    """
    problems = _refuse(user_data, schema) if check else ()
    _check_network_config(network_config)
    text = user_data
    document = read_document(user_data) if is_cloud_config(user_data) else None
    mergeable = isinstance(document, Document) and _mergeable(document.value)
    own_vendor_data, told_of_it = _own_vendor_data(
        vendor_data, schema, report=report, carries=report and not mergeable, sampler=sampler
    )
    if isinstance(document, Document) and mergeable:
        cloud_config = _with_report(document.value, sampler) if report else document.value
        # What vendor-data asks for may need any module.
        if profile is Profile.LEAN and vendor_data is None:
            own_runcmd = bool(document.value.get("runcmd"))
            cloud_config = cloud_config | lean_modules(cloud_config, early_runcmd=not own_runcmd)
        if cloud_config != document.value:
            text = _emit(cloud_config)
    own_meta_data, told = _own_meta_data(
        meta_data, SeedConfig(instance_id=instance_id), check=check
    )
    return Seed(
        user_data=text,
        meta_data=own_meta_data,
        vendor_data=own_vendor_data,
        network_config=network_config,
        report_sh=_report_script() if report else None,
        problems=(*problems, *told, *told_of_it),
    )


def _own_vendor_data(
    text: str | None,
    schema: dict[str, Any] | None,
    *,
    report: bool,
    carries: bool = False,
    sampler: bool = False,
) -> tuple[str | None, tuple[Problem, ...]]:
    """Return the vendor-data and the warnings about it.

    With ``carries`` the report's commands go into it, else they are in user-data.
    """
    if text is None:
        return (_emit(_with_report({}, sampler)) if carries else None), ()
    told = _raise_errors(
        [
            replace(one, message=f"vendor-data: {one.message}")
            for one in check_user_data(text, schema)
        ],
        "cloud-init would not take this vendor-data:",
        "It is a cloud-config, as user-data is.",
    )
    document = read_document(text) if is_cloud_config(text) else None
    if not isinstance(document, Document):
        if carries:
            raise SeedError(
                "Beside user-data that is no cloud-config the report's commands travel in "
                "vendor-data, and this vendor-data is none either; nothing was done.",
                hint="Write the vendor-data as a cloud-config, or leave it out.",
            )
        return text, told
    if carries:
        return _emit(_with_report(document.value, sampler)), told
    # cloud-init takes a key from user-data where both have it, and does not join the lists.
    idle = [key for key in ("bootcmd", "runcmd") if report and document.value.get(key)]
    words = "vendor-data: no effect here, because the report's {} in user-data takes precedence"
    more = [document.problem((k,), words.format(k), Severity.WARNING, key=True) for k in idle]
    return text, (*told, *more)


def _check_network_config(text: str | None) -> None:
    problem = read_document(text) if text is not None else None
    if isinstance(problem, Problem):
        raise SeedError(
            f"cloud-init would not take this network-config:\n  {problem}",
            hint="It holds keys with values: version, and ethernets or config.",
        )


def _user_data(config: SeedConfig, schema: dict[str, Any] | None, *, hostname: bool) -> str:
    cloud_config = _with_extra(_typed_keys(config), config.extra_yaml, schema)
    own_runcmd = bool(cloud_config.get("runcmd"))
    if config.report:
        cloud_config = _with_report(cloud_config, config.sampler)
    if config.profile is Profile.LEAN:
        # What a learner wants to run finds the machine as a cloud would have it by then.
        cloud_config |= lean_modules(cloud_config, hostname=hostname, early_runcmd=not own_runcmd)
    return _emit(cloud_config)


def _typed_keys(config: SeedConfig) -> dict[str, Any]:
    growpart = {
        "mode": config.growpart and config.growpart.value,
        "devices": [_device(device) for device in config.growpart_devices] or None,
        "ignore_growroot_disabled": config.ignore_growroot_disabled,
    }
    resize: dict[ResizeRootfs | None, bool | str | None] = {
        None: None,
        ResizeRootfs.TRUE: True,
        ResizeRootfs.FALSE: False,
        ResizeRootfs.NOBLOCK: "noblock",
    }
    keys = {
        "growpart": _set_only(growpart) or None,
        "resize_rootfs": resize[config.resize_rootfs],
        "users": ["default", *map(_user, config.users)] if config.users else None,
        "password": _default_password(config.password_hash),
        # Else the password would have to be changed at the first login.
        "chpasswd": {"expire": False} if config.password_hash else None,
        "ssh_authorized_keys": _keys(config.ssh_authorized_keys) or None,
        "bootcmd": _commands(config.bootcmd),
        "runcmd": _commands(config.runcmd),
    }
    return _set_only(keys)


def _set_only(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None}


def _commands(commands: tuple[Command, ...]) -> list[str | list[str]] | None:
    return [list(line) if isinstance(line, tuple) else line for line in commands] or None


def _default_password(password_hash: str | None) -> str | None:
    if password_hash is not None and not _DEFAULT_USER_HASH.fullmatch(password_hash):
        raise SeedError(
            "The password of the default user must be a hash that cloud-init knows, as "
            "$6$SALT$HASH; plain text is not accepted, and cloud-init would take a $y$ hash "
            "for plain text.",
            hint=_HASH_HINT,
        )
    return password_hash


def _keys(keys: tuple[str, ...]) -> list[str]:
    return [key for text in keys for key in parse_public_keys(text)]


def _device(device: str) -> str:
    if not device.startswith("/"):
        raise SeedError(
            f"growpart takes mount points and /dev paths, found {device!r}.",
            hint="For example: / or /dev/vda1",
        )
    return device


def _user(user: User) -> dict[str, Any]:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user.name):
        raise SeedError(
            f"{user.name!r} is no user name: expected a lower-case letter, then letters, "
            "digits, - and _, 32 at most."
        )
    entry: dict[str, Any] = {"name": user.name, "shell": "/bin/sh"}
    if user.password_hash is not None:
        if not _ANY_HASH.fullmatch(user.password_hash):
            raise SeedError(
                f"The password of user {user.name} must be a hash as $6$SALT$HASH; plain text "
                "is not accepted.",
                hint=_HASH_HINT,
            )
        entry |= {"passwd": user.password_hash, "lock_passwd": False}
    if user.ssh_authorized_keys:
        entry["ssh_authorized_keys"] = _keys(user.ssh_authorized_keys)
    if user.sudo:
        entry["sudo"] = "ALL=(ALL) NOPASSWD:ALL"
    return entry


def _with_extra(
    keys: dict[str, Any], extra_yaml: str, schema: dict[str, Any] | None
) -> dict[str, Any]:
    _refuse(extra_yaml, schema, header=False)
    extra = read_document(extra_yaml)
    assert isinstance(extra, Document), "a text without errors holds keys with values"
    merged = dict(keys)
    for key, value in extra.value.items():
        if key in {"bootcmd", "runcmd"}:
            merged[key] = [*keys.get(key, ()), *(value or ())]
        elif key in keys:
            raise SeedError(
                f"The extra YAML sets {key!r}, and so does an option.",
                hint="Set it in one of the two places.",
            )
        else:
            merged[key] = value
    return merged


def _refuse(
    text: str, schema: dict[str, Any] | None, *, header: bool = True
) -> tuple[Problem, ...]:
    """Return the warnings; raise the errors."""
    return _raise_errors(
        check_user_data(text, schema, header=header),
        "cloud-init would not take this user-data:",
        "Correct it, or switch the check off to see what the guest makes of it.",
    )


def _own_meta_data(
    text: str | None, config: SeedConfig, *, check: bool = True
) -> tuple[str, tuple[Problem, ...]]:
    """Return the meta-data, somebody's own or ours, and the warnings about it."""
    if text is None:
        return _meta_data(config.instance_id, config.hostname), ()
    if not check:
        return text, ()
    told = _raise_errors(
        check_meta_data(text),
        "cloud-init would not take this meta-data:",
        "It holds keys with values, at least a line such as  instance-id: iid-mine-1",
    )
    return text, told


def _raise_errors(problems: list[Problem], message: str, hint: str) -> tuple[Problem, ...]:
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if errors:
        lines = "".join(f"\n  {problem}" for problem in errors)
        raise SeedError(message + lines, hint=hint)
    return tuple(problems)


def _mergeable(cloud_config: dict[str, Any]) -> bool:
    return all(isinstance(cloud_config.get(key) or [], list) for key in ("bootcmd", "runcmd"))


def _with_report(cloud_config: dict[str, Any], sampler: bool) -> dict[str, Any]:  # noqa: FBT001
    before = f"sh {_REPORT_PATH} before" + (" sample" if sampler else "")
    after = f"sh {_REPORT_PATH} after"
    others = {key: value for key, value in cloud_config.items() if key not in {"bootcmd", "runcmd"}}
    return {
        **others,
        "bootcmd": [_FETCH_REPORT, before, *(cloud_config.get("bootcmd") or ())],
        "runcmd": [*(cloud_config.get("runcmd") or ()), after],
    }


def _meta_data(instance_id: str | None, hostname: str | None) -> str:
    if hostname is not None and not _HOSTNAME.fullmatch(hostname):
        raise SeedError(
            f"{hostname!r} is no host name: expected letters, digits and -, parted by dots."
        )
    if instance_id is not None and not re.fullmatch(r"[\w.:-]{1,128}", instance_id, re.ASCII):
        raise SeedError(
            f"{instance_id!r} is no instance-id: expected up to 128 letters, digits, . : _ or -."
        )
    meta_data = {
        "instance-id": instance_id or new_instance_id(),
        "local-hostname": hostname or "cloudlab",
    }
    return _dump(meta_data)


def _emit(cloud_config: dict[str, Any]) -> str:
    return "#cloud-config\n" + (_dump(cloud_config) if cloud_config else "")


def _dump(values: dict[str, Any]) -> str:
    # cloud-init reads YAML 1.1 with this very library: so 'off' comes out quoted, for one.
    text = _dump_as(values, ascii_only=False)
    # PyYAML would write these line breaks of Unicode as they are, and read other ones back.
    if any(line_break in text for line_break in "\x85\u2028\u2029"):
        text = _dump_as(values, ascii_only=True)
    return text


def _dump_as(values: dict[str, Any], *, ascii_only: bool) -> str:
    try:
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=not ascii_only, width=1000)
    except (yaml.YAMLError, ValueError) as error:
        raise SeedError("A value cannot be written as YAML.") from error


def _report_script() -> str:
    return resources.files(__package__).joinpath("report.sh").read_text(encoding="utf-8")
