"""Commands about disks and seeds: inspect, seed; and the seed options shared with run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cloudlab import paths
from cloudlab.cli import terminal
from cloudlab.cli.images import print_path
from cloudlab.disk import Filesystem, Partition, inspect_disk
from cloudlab.errors import SeedError, UsageError
from cloudlab.seed import (
    GrowpartMode,
    Profile,
    ResizeRootfs,
    SeedConfig,
    User,
    parse_public_keys,
    write_seed,
)
from cloudlab.units import format_bytes

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
        **own_texts(args),
        check=not args.no_check,
        overwrite=args.force,
    )
    for problem in written.problems:
        terminal.say(f"warning: {problem}")
    print_path(args.output)


def seed_config(
    args: argparse.Namespace, *, report: bool = True, instance_id: str | None = None
) -> SeedConfig:
    """Return the cloud-init options that the arguments make."""
    # A seed for another machine, and the user's own user-data, run as a cloud would.
    lean = report and args.user_data is None
    password_file = args.password_hash_file
    return SeedConfig(
        growpart=GrowpartMode(args.growpart) if args.growpart else None,
        growpart_devices=tuple(args.growpart_device),
        ignore_growroot_disabled=args.ignore_growroot_disabled or None,
        resize_rootfs=ResizeRootfs(args.resize_rootfs) if args.resize_rootfs else None,
        bootcmd=tuple(args.bootcmd),
        runcmd=tuple(args.runcmd),
        hostname=args.hostname,
        users=tuple(User(name) for name in args.user),
        ssh_authorized_keys=tuple(key for path in args.ssh_key for key in _public_keys(path)),
        password_hash=paths.read_text(password_file).strip() if password_file else None,
        extra_yaml=paths.read_text(args.extra) if args.extra else "",
        profile=Profile(args.profile or (Profile.LEAN if lean else Profile.FULL)),
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


#: File of the user's own -> the options that have no effect beside it.
_REPLACED = {
    "user_data": (
        "growpart",
        "resize_rootfs",
        "growpart_device",
        "ignore_growroot_disabled",
        "bootcmd",
        "runcmd",
        "hostname",
        "user",
        "ssh_key",
        "password_hash_file",
        "extra",
    ),
    "meta_data": ("hostname", "instance_id"),
    "vendor_data": (),
    "network_config": (),
}


def own_texts(args: argparse.Namespace) -> dict[str, Any]:
    """Return the user's own user-data, meta-data, vendor-data and network-config, by argument.

    Raises
    ------
    UsageError
        If another option would have no effect beside one of them.
    """
    texts: dict[str, Any] = {}
    for name, options in _REPLACED.items():
        path = getattr(args, name)
        replaced = [_option(one) for one in options if getattr(args, one, None)]
        if path is not None and replaced:
            raise UsageError(
                f"{', '.join(replaced)} would have no effect beside {_option(name)}; "
                "nothing was done.",
                hint=f"Write it into your {name.replace('_', '-')}, or leave {_option(name)} out.",
            )
        texts[name] = None if path is None else paths.read_text(path)
    return texts


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
