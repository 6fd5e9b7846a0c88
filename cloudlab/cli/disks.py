"""Commands about disks and seeds: inspect, seed; and the options that they share with run."""

from __future__ import annotations

import argparse
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from cloudlab import paths
from cloudlab.cli import terminal
from cloudlab.cli.images import print_path
from cloudlab.disk import Filesystem, Partition, inspect_disk
from cloudlab.errors import SeedError, UsageError
from cloudlab.seed import (
    GrowpartMode,
    Profile,
    ResizeRootfs,
    Seed,
    SeedConfig,
    User,
    parse_public_keys,
    write_seed,
)
from cloudlab.units import format_bytes

_Choice = TypeVar("_Choice", bound=StrEnum)

_COLUMNS = ("no", "start", "size", "type", "filesystem", "label", "its size", "free")
_RIGHT = "no,start,size,its size,free"


def inspect(args: argparse.Namespace) -> None:
    """Show what is on a disk without booting it."""
    layout = inspect_disk(args.disk, args.format)
    if args.json:
        terminal.print_json(layout.to_json())
        return
    size, used = format_bytes(layout.virtual_size_bytes), format_bytes(layout.disk_size_bytes)
    lines = [f"{layout.path}: {layout.format}, virtual size {size}, {used} on the host"]
    if layout.backing_file:
        lines.append(f"backing file: {layout.backing_file}")
    terminal.print_lines([*lines, f"partition table: {layout.table_title}"])
    if layout.partitions:
        terminal.print_table(_COLUMNS, list(map(_partition_cells, layout.partitions)), right=_RIGHT)
    lines = []
    if layout.table is not None:
        lines.append(f"free behind the last partition: {format_bytes(layout.free_tail_bytes)}")
    elif not layout.partitions and not layout.other_table:
        lines.append("The disk is blank where partition tables and filesystems start.")
    if layout.in_use:
        lines.append("A machine is writing to this disk, so this may be out of date.")
    terminal.print_lines([*lines, *(f"warning: {warning}" for warning in layout.warnings)])


def _partition_cells(partition: Partition) -> tuple[str, ...]:
    filesystem = partition.filesystem or Filesystem("")
    sizes = (filesystem.size_bytes, filesystem.free_bytes)
    return (
        "-" if partition.number is None else str(partition.number),
        format_bytes(partition.start_bytes),
        format_bytes(partition.size_bytes),
        partition.type_name,
        partition.content or "-",
        filesystem.label or "-",
        *("-" if size is None else format_bytes(size) for size in sizes),
    )


def seed(args: argparse.Namespace) -> None:
    """Write a seed ISO."""
    written = write_seed(
        args.output,
        seed_config(args, report=False, instance_id=args.instance_id),
        user_data=own_user_data(args),
        meta_data=own_meta_data(args),
        **other_texts(args),
        check=not args.no_check,
        overwrite=args.force,
    )
    say_problems(written)
    print_path(args.output)


def seed_config(
    args: argparse.Namespace, *, report: bool = True, instance_id: str | None = None
) -> SeedConfig:
    """Return the cloud-init options that the arguments make."""
    # A seed for somebody else's machine, and somebody's own user-data, run as a cloud would.
    lean = report and args.user_data is None
    return SeedConfig(
        growpart=one_of(GrowpartMode, args.growpart, "--growpart"),
        growpart_devices=tuple(args.growpart_device),
        ignore_growroot_disabled=args.ignore_growroot_disabled,
        resize_rootfs=one_of(ResizeRootfs, args.resize_rootfs, "--resize-rootfs"),
        bootcmd=tuple(args.bootcmd),
        runcmd=tuple(args.runcmd),
        hostname=args.hostname,
        users=tuple(User(name) for name in args.user),
        ssh_authorized_keys=tuple(key for path in args.ssh_key for key in _public_keys(path)),
        password_hash=paths.read_text(args.password_hash_file).strip()
        if args.password_hash_file
        else None,
        extra_yaml=paths.read_text(args.extra) if args.extra else "",
        profile=one_of(Profile, args.profile, "--profile")
        or (Profile.LEAN if lean else Profile.FULL),
        report=report,
        sampler=args.sampler,
        instance_id=instance_id,
    )


def _public_keys(path: Path) -> tuple[str, ...]:
    try:
        return parse_public_keys(paths.read_text(path))
    except SeedError as error:
        beside = path.with_name(f"{path.name}.pub")
        hint = f"The public key is in {beside}." if beside.is_file() else error.hint
        raise UsageError(f"{path}: {error.message} Nothing was done.", hint=hint) from error


def own_user_data(args: argparse.Namespace) -> str | None:
    """Return the learner's own user-data, refusing options that it would make idle."""
    if args.user_data is None:
        return None
    idle = [
        option
        for option, value in (
            ("--growpart", args.growpart),
            ("--resize-rootfs", args.resize_rootfs),
            ("--growpart-device", args.growpart_device),
            ("--ignore-growroot-disabled", args.ignore_growroot_disabled),
            ("--bootcmd", args.bootcmd),
            ("--runcmd", args.runcmd),
            ("--hostname", args.hostname),
            ("--user", args.user),
            ("--ssh-key", args.ssh_key),
            ("--password-hash-file", args.password_hash_file),
            ("--extra", args.extra),
        )
        if value
    ]
    if idle:
        raise UsageError(
            f"{', '.join(idle)} would have no effect beside --user-data; nothing was done.",
            hint="Write it into your user-data, or leave --user-data out.",
        )
    return paths.read_text(args.user_data)


def own_meta_data(args: argparse.Namespace) -> str | None:
    """Return the learner's own meta-data, refusing options that it would make idle."""
    if args.meta_data is None:
        return None
    values = (("--hostname", args.hostname), ("--instance-id", getattr(args, "instance_id", None)))
    idle = [option for option, value in values if value]
    if idle:
        raise UsageError(
            f"{', '.join(idle)} would have no effect beside --meta-data; nothing was done.",
            hint="Write it into your meta-data, or leave --meta-data out.",
        )
    return paths.read_text(args.meta_data)


def other_texts(args: argparse.Namespace) -> dict[str, str | None]:
    """Return the learner's own vendor-data and network-config, by their names as arguments."""
    return {
        name: paths.read_text(path) if path is not None else None
        for name, path in (
            ("vendor_data", args.vendor_data),
            ("network_config", args.network_config),
        )
    }


def say_problems(seed: Seed) -> None:
    """Say what may not be as the learner meant it, with line and column."""
    for problem in seed.problems:
        terminal.say(f"warning: {problem}")


def one_of(kind: type[_Choice], word: str | None, option: str) -> _Choice | None:
    """Return the choice called ``word``.

    Raises
    ------
    UsageError
        Naming what is accepted.
    """
    if word is None:
        return None
    try:
        return kind(word.lower())
    except ValueError:
        raise UsageError(
            f"{option} {word} is unknown; nothing was done.",
            hint=f"Choose one of: {', '.join(kind)}.",
        ) from None
