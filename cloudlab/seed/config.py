"""Typed options, and the texts of a seed that are made of them."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import yaml

from cloudlab.errors import SeedError, UsageError
from cloudlab.paths import read_text
from cloudlab.seed.check import (
    Document,
    Problem,
    Severity,
    check_meta_data,
    check_user_data,
    is_cloud_config,
    read_document,
)
from cloudlab.seed.modules import lean_modules

#: A command of bootcmd or runcmd: a line for the shell, or words that no shell touches.
Command = str | tuple[str, ...]

_REPORT_PATH = "/run/cloudlab-report.sh"
#: The seed is unmounted again so that lsblk and df show the machine as it would be without us.
_FETCH_REPORT = f"mount -o ro LABEL=cidata /mnt && cp /mnt/report.sh {_REPORT_PATH}; umount /mnt"

#: What cloud-init's set_passwords accepts as a hash, in every version up to 26.2; it would
#: set anything else, ``$y$`` too, as a password in plain text.
_DEFAULT_USER_HASH = re.compile(r"\$(1|2a|2y|5|6)(\$[^$:\s]+){2,3}")
_ANY_HASH = re.compile(r"\$[0-9a-z]+(\$[^$:\s]+){2,4}|[!*]+")
_HASH_HINT = "Make a hash with: openssl passwd -6"
_HOSTNAME = re.compile(
    r"(?=.{1,253}$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*"
)
#: A type and the key itself, which begins with the length of its type and so with AAAA;
#: options may precede them, a comment may follow.
_PUBLIC_KEY = re.compile(r"(?:^|.*\s)([a-z0-9][a-z0-9@.-]*)\s+(AAAA[A-Za-z0-9+/]+={0,2})(?:\s.*)?$")

#: Text -> what to do about its errors.
_HINTS = {
    "user-data": "Correct it, or switch the check off (--no-check) to see what the guest does.",
    "extra YAML": "Correct it: it holds keys of a cloud-config, without the first line.",
    "meta-data": "It holds keys with values, at least a line such as  instance-id: iid-mine-1",
    "vendor-data": "Write it as a cloud-config, like user-data.",
    "network-config": "It holds keys with values: version, and ethernets or config.",
}


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
    """Which modules run: those that the options need, or all that the image lists."""

    LEAN = "lean"
    FULL = "full"


#: Texts that may have several lines; a file of any other has one, and its end does not count.
_DOCUMENTS = {"user_data", "meta_data", "vendor_data", "network_config", "extra_yaml"}


def typed(name: str, value: Any, kind: Any) -> Any:
    """Return the value of an option as its type has it.

    A choice may be given as text such as ``off``, a number by numpy; a Path in place of a text is
    read.

    Raises
    ------
    UsageError
        For a value that the type does not have, with what it has.
    """
    choices = [one for one in (kind, *get_args(kind)) if one in StrEnum.__subclasses__()]
    if choices and value is not None:
        # YAML and Python call growpart's "off" and resize_rootfs's "false" False.
        word = "off" if name == "growpart" and str(value) == "False" else str(value).lower()
        try:
            return choices[0](word)
        except ValueError:
            raise UsageError(
                f"{name} has no value {value!r:.80}.",
                hint=f"Choose one of: {', '.join(choices[0])}.",
            ) from None
    given = value
    if isinstance(value, Path):
        value = read_text(value)
        value = value if name in _DOCUMENTS else value.strip()
    elif type(value).__module__ == "numpy":
        value = value.tolist()
    try:
        found = msgspec.convert(value, kind)
        if isinstance(value, str | list | tuple):
            # Text that is no UTF-8 cannot be written to a seed or a record.
            msgspec.json.encode(found)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise UsageError(
            f"{name} has no value {given!r:.80}.", hint=f"{str(error).replace('`', '')}."
        ) from error
    return found


@cache
def field_types(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name."""
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind)}


class Checked:
    """Base of dataclasses whose fields are converted by :func:`typed`."""

    def __post_init__(self) -> None:
        for name, kind in field_types(type(self)).items():  # type: ignore[arg-type]
            object.__setattr__(self, name, typed(name, getattr(self, name), kind))


@dataclass(frozen=True)
class User(Checked):
    """A user of the guest, besides the image's default user.

    Attributes
    ----------
    name : str
    password_hash : str or None
        As in crypt(5) (``$6$...``, ``$y$...``); None keeps the password locked.
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
class SeedConfig(Checked):
    """Cloud-init options.  For an option that is None or empty, cloud-init's default applies.

    Attributes
    ----------
    growpart : GrowpartMode or None
    growpart_devices : tuple of str
        Mount points or ``/dev`` paths of the partitions to grow.
    ignore_growroot_disabled : bool or None
    resize_rootfs : ResizeRootfs or None
    bootcmd, runcmd : tuple of str or tuple
        Commands before and after growth: shell lines, or tuples of words.
    users : tuple of User
        Besides the image's default user.
    password_hash : str or None
        For the image's default user.
    ssh_authorized_keys : tuple of str
        For the image's default user.
    hostname : str or None
    extra_yaml : str
        Further keys of a cloud-config, as YAML.
    profile : Profile
    report : bool
        Whether the guest measures its disks before and after growth.
    sampler : bool
        Whether it also reports every change in between.
    enlarge : bool
        Whether it asks the host for a larger disk at the end of the boot, and then grows
        partition and filesystem by hand.
    instance_id : str or None
        None makes a fresh one; with a used one cloud-init skips what runs once per instance.

    Raises
    ------
    UsageError
        For a value of another type; what a type has is taken in the forms of :func:`typed`.

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
    enlarge: bool = False
    instance_id: str | None = None


@dataclass(frozen=True)
class Seed:
    """The texts of a seed's files; None where the seed lacks the file.

    ``problems`` are the warnings about the texts that were given.
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
    """Return the keys of a ``.pub`` or ``authorized_keys`` file, one a line, without comments.

    Raises
    ------
    SeedError
        If a line is not a public key, or there is none.  The message does not repeat the text,
        which may be secret.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    keys = [(number, line) for number, line in lines if line and not line.startswith("#")]
    wrong = [number for number, line in keys if not _is_public_key(line)]
    if "PRIVATE KEY-----" in text:
        what = "This is a private key, which must not leave this host."
    elif wrong:
        what = f"Line {wrong[0]} is not an SSH public key."
    elif not keys:
        what = "This holds no public key."
    else:
        return tuple(line for _, line in keys)
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


def to_user_data(config: SeedConfig) -> str:
    """Return the user-data of ``config``; errors as of :func:`build_seed`."""
    return build_seed(config).user_data


def build_seed(
    config: SeedConfig | None = None,
    *,
    user_data: str | None = None,
    meta_data: str | None = None,
    vendor_data: str | None = None,
    network_config: str | None = None,
    check: bool = True,
    schema: dict[str, Any] | None = None,
) -> Seed:
    """Return the seed of options or of a user-data text.

    The report's commands are merged into a cloud-config: first in bootcmd, last in runcmd.  That
    drops the comments of ``user_data`` and keeps its values.  A ``user_data`` of another kind (a
    script, a MIME message, with ``check=False`` a broken cloud-config) stays as it is, and
    vendor-data carries the report's commands.

    Parameters
    ----------
    config : SeedConfig, optional
    user_data : str, optional
        A whole text; of ``config`` only ``report``, ``sampler``, ``enlarge``, ``profile`` and
        ``instance_id`` are used then.
    meta_data : str, optional
        A whole text, in place of the instance-id and host name of ``config``.
    vendor_data : str, optional
        A cloud-config, whose keys user-data overrides.  It makes the profile full.
    network_config : str, optional
    check : bool
        Whether a user-data or meta-data text with errors is refused.
    schema : dict, optional
        The schema of the image's cloud-init, from :func:`load_schema`.

    Raises
    ------
    SeedError
        If an option has no valid value, or with all errors that a text has.
    """
    config = config or SeedConfig()
    if user_data is not None:
        config = SeedConfig(
            profile=config.profile,
            report=config.report,
            sampler=config.sampler,
            enlarge=config.enlarge,
            instance_id=config.instance_id,
        )
    keys, problems = _cloud_config(config, user_data, schema, check=check)
    carries = config.report and keys is None
    own_vendor_data, found = _vendor_data(vendor_data, config, schema, carries=carries)
    text = user_data or ""
    if keys is not None:
        merged = _with_report(keys, config) if config.report else keys
        # What vendor-data configures may need any module.
        if config.profile is Profile.LEAN and vendor_data is None:
            merged = merged | lean_modules(
                merged,
                hostname=config.hostname is not None or meta_data is not None,
                # Commands of the user's own expect the machine as it is in the final stage.
                early_runcmd=not keys.get("runcmd"),
            )
        text = text if user_data is not None and merged == keys else _emit(merged)
    if network_config is not None:
        document = read_document(network_config)
        _refuse_errors("network-config", [document] if isinstance(document, Problem) else [])
    if meta_data is not None and check:
        problems += _refuse_errors("meta-data", check_meta_data(meta_data))
    report = resources.files(__package__).joinpath("report.sh").read_text(encoding="utf-8")
    return Seed(
        user_data=text,
        meta_data=_meta_data(config) if meta_data is None else meta_data,
        vendor_data=own_vendor_data,
        network_config=network_config,
        report_sh=report if config.report else None,
        problems=problems + found,
    )


def _cloud_config(
    config: SeedConfig, text: str | None, schema: dict[str, Any] | None, *, check: bool
) -> tuple[dict[str, Any] | None, tuple[Problem, ...]]:
    """Return the keys of user-data and the warnings; None for a text that takes no report."""
    if text is None:
        found = check_user_data(config.extra_yaml, schema, header=False)
        problems = _refuse_errors("extra YAML", found)
        return _with_extra(_typed_keys(config), config.extra_yaml), problems
    problems = _refuse_errors("user-data", check_user_data(text, schema)) if check else ()
    document = read_document(text) if is_cloud_config(text) else None
    if not isinstance(document, Document):
        return None, problems
    lists = [document.value.get(key) or [] for key in ("bootcmd", "runcmd")]
    return document.value if all(isinstance(one, list) for one in lists) else None, problems


def _vendor_data(
    text: str | None, config: SeedConfig, schema: dict[str, Any] | None, *, carries: bool
) -> tuple[str | None, tuple[Problem, ...]]:
    """Return the vendor-data and the warnings; it carries the report's commands, or user-data."""
    if text is None:
        return (_emit(_with_report({}, config)) if carries else None), ()
    found = _refuse_errors("vendor-data", check_user_data(text, schema))
    problems = tuple(replace(one, message=f"vendor-data: {one.message}") for one in found)
    document = read_document(text) if is_cloud_config(text) else None
    if isinstance(document, Document) and carries:
        return _emit(_with_report(document.value, config)), problems
    if carries:
        raise SeedError(
            "The report's commands need a cloud-config, but neither the user-data nor the "
            "vendor-data is one.",
            hint="Write the vendor-data as a cloud-config, or leave it out.",
        )
    if isinstance(document, Document) and config.report:
        # cloud-init takes a key from user-data where both have it, and does not join the lists.
        words = "vendor-data: no effect here, because the report's {} in user-data overrides it"
        problems += tuple(
            document.problem((key,), words.format(key), Severity.WARNING, key=True)
            for key in ("bootcmd", "runcmd")
            if document.value.get(key)
        )
    return text, problems


def _typed_keys(config: SeedConfig) -> dict[str, Any]:
    growpart = {
        "mode": config.growpart and config.growpart.value,
        "devices": [_device(device) for device in config.growpart_devices] or None,
        "ignore_growroot_disabled": config.ignore_growroot_disabled,
    }
    resize = {ResizeRootfs.TRUE: True, ResizeRootfs.FALSE: False, ResizeRootfs.NOBLOCK: "noblock"}
    return _set_only(
        {
            "growpart": _set_only(growpart) or None,
            "resize_rootfs": config.resize_rootfs and resize[config.resize_rootfs],
            "users": ["default", *map(_user, config.users)] if config.users else None,
            "password": _default_password(config.password_hash),
            # Else the password would have to be changed at the first login.
            "chpasswd": {"expire": False} if config.password_hash else None,
            "ssh_authorized_keys": _keys(config.ssh_authorized_keys) or None,
            "bootcmd": _commands(config.bootcmd),
            "runcmd": _commands(config.runcmd),
        }
    )


def _set_only(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None}


def _commands(commands: tuple[Command, ...]) -> list[str | list[str]] | None:
    return [list(line) if isinstance(line, tuple) else line for line in commands] or None


def _default_password(password_hash: str | None) -> str | None:
    if password_hash is not None and not _DEFAULT_USER_HASH.fullmatch(password_hash):
        raise SeedError(
            "The default user's password must be a hash that cloud-init recognizes, such as "
            "$6$SALT$HASH; cloud-init would set plain text or a $y$ hash as the password itself.",
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
            f"{user.name!r} is not a user name.",
            hint="Use up to 32 lower-case letters, digits, - and _, a letter first.",
        )
    entry: dict[str, Any] = {"name": user.name, "shell": "/bin/sh"}
    if user.password_hash is not None:
        if not _ANY_HASH.fullmatch(user.password_hash):
            raise SeedError(
                f"The password of user {user.name} must be a hash such as $6$SALT$HASH, "
                "not plain text.",
                hint=_HASH_HINT,
            )
        entry |= {"passwd": user.password_hash, "lock_passwd": False}
    if user.ssh_authorized_keys:
        entry["ssh_authorized_keys"] = _keys(user.ssh_authorized_keys)
    if user.sudo:
        entry["sudo"] = "ALL=(ALL) NOPASSWD:ALL"
    return entry


def _with_extra(keys: dict[str, Any], extra_yaml: str) -> dict[str, Any]:
    extra = read_document(extra_yaml)
    assert isinstance(extra, Document), "checked by the caller"
    merged = keys | extra.value
    for key in keys.keys() & extra.value.keys():
        if key not in {"bootcmd", "runcmd"}:
            raise SeedError(
                f"Both an option and the extra YAML set {key!r}.",
                hint="Set it in one of the two places.",
            )
        merged[key] = [*keys[key], *(extra.value[key] or ())]
    return merged


def _refuse_errors(name: str, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the warnings among the problems of the text ``name``; raise its errors."""
    problems = tuple(problems)
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if errors:
        lines = "".join(f"\n  {problem}" for problem in errors)
        raise SeedError(f"cloud-init would not accept this {name}:{lines}", hint=_HINTS[name])
    return problems


def _with_report(cloud_config: dict[str, Any], config: SeedConfig) -> dict[str, Any]:
    before = f"sh {_REPORT_PATH} before" + (" sample" if config.sampler else "")
    after = [f"sh {_REPORT_PATH} enlarge"] * config.enlarge + [f"sh {_REPORT_PATH} after"]
    others = {key: value for key, value in cloud_config.items() if key not in {"bootcmd", "runcmd"}}
    return {
        **others,
        "bootcmd": [_FETCH_REPORT, before, *(cloud_config.get("bootcmd") or ())],
        "runcmd": [*(cloud_config.get("runcmd") or ()), *after],
    }


def _meta_data(config: SeedConfig) -> str:
    hostname, instance_id = config.hostname, config.instance_id
    if hostname is not None and not _HOSTNAME.fullmatch(hostname):
        raise SeedError(
            f"{hostname!r} is not a host name.",
            hint="Use letters, digits and -, with dots between the parts.",
        )
    if instance_id is not None and not re.fullmatch(r"[\w.:-]{1,128}", instance_id, re.ASCII):
        raise SeedError(
            f"{instance_id!r} is not an instance-id.",
            hint="Use up to 128 letters, digits, dots, colons, _ and -.",
        )
    return _dump(
        {
            "instance-id": instance_id or new_instance_id(),
            "local-hostname": hostname or "cloudlab",
        }
    )


def _emit(cloud_config: dict[str, Any]) -> str:
    return "#cloud-config\n" + (_dump(cloud_config) if cloud_config else "")


def _dump(values: dict[str, Any]) -> str:
    try:
        # cloud-init reads YAML 1.1 with this very library: so 'off' comes out quoted, for one.
        text = yaml.safe_dump(values, sort_keys=False, width=1000, allow_unicode=True)
        # PyYAML would write these line breaks of Unicode as they are, and read other ones back.
        if any(line_break in text for line_break in "\x85\u2028\u2029"):
            text = yaml.safe_dump(values, sort_keys=False, width=1000)
    except (yaml.YAMLError, ValueError) as error:
        raise SeedError(
            "A value cannot be written as YAML.", hint="Use text, numbers, lists and dates."
        ) from error
    return text
