"""What a machine is made of, and the QEMU command line that follows from it."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloudlab.errors import LaunchError, UsageError
from cloudlab.units import MIB, SECTOR_BYTES

#: The lab image was seen to boot and to report with this much.
LEAST_MEMORY_BYTES = 256 * MIB


class Accel(StrEnum):
    """How the guest's instructions are executed."""

    KVM = "kvm"
    HVF = "hvf"
    TCG = "tcg"


class Firmware(StrEnum):
    """What the machine starts with."""

    BIOS = "bios"
    UEFI = "uefi"


class Network(StrEnum):
    """What the guest can reach: nothing, or (``user``) outgoing connections only."""

    NONE = "none"
    USER = "user"


@dataclass(frozen=True)
class UefiFiles:
    """The UEFI firmware: its code, and the copy of its variables that belongs to one machine."""

    code: Path
    variables: Path


@dataclass(frozen=True)
class MachineConfig:
    """Everything that QEMU's command line follows from.

    Attributes
    ----------
    name : str
        Shown by ``cloudlab ps`` and in QEMU's process title.
    arch : str
        ``amd64`` or ``arm64``.
    accel : Accel
    overlay : Path
        The disk, a qcow2 file.
    base : tuple of Path and str, or None
        The overlay's backing file and its format; None leaves them to the overlay's header.
    seed : Path or None
        The seed ISO, attached as a read-only virtio-blk disk: Debian's *genericcloud*
        kernels have no driver for a CD-ROM.
    memory_bytes : int
    cpus : int
    cx16 : bool
        Whether an emulated amd64 CPU has CMPXCHG16B, which x86-64-v2 asks for.
    uefi : UefiFiles or None
        None boots by BIOS (amd64 only).
    network : Network
    passt : bool
        Whether the network is passt's, at the other end of a socket; else it is QEMU's own.
    sandbox : bool
        Whether this QEMU was built with seccomp.
    incoming : bool
        Whether QEMU waits for a saved state instead of starting the firmware.
    pause_at_seed_byte : int or None
        The guest's first reading of this byte of the seed pauses the machine.
    """

    name: str
    arch: str
    accel: Accel
    overlay: Path
    seed: Path | None
    base: tuple[Path, str] | None = None
    memory_bytes: int = 1024 * MIB
    cpus: int = 1
    cx16: bool = False
    uefi: UefiFiles | None = None
    network: Network = Network.NONE
    passt: bool = False
    sandbox: bool = True
    incoming: bool = False
    pause_at_seed_byte: int | None = None

    def __post_init__(self) -> None:
        check_shape(self.memory_bytes, self.cpus)

    def files(self) -> dict[Path, bool]:
        """Return the files that QEMU opens, and whether it writes to them."""
        found = {self.overlay: True}
        if self.base is not None:
            found[self.base[0]] = False
        if self.seed is not None:
            found[self.seed] = False
        if self.uefi is not None:
            found |= {self.uefi.code: False, self.uefi.variables: True}
        return found


def check_shape(memory_bytes: int, cpus: int) -> None:
    """Check that a machine of this shape can boot at all.

    Raises
    ------
    UsageError
        With what is accepted.
    """
    if memory_bytes < LEAST_MEMORY_BYTES:
        raise UsageError(
            f"A machine with {memory_bytes // MIB} MiB of memory would not boot; "
            "nothing was started.",
            hint=f"Give it at least {LEAST_MEMORY_BYTES // MIB} MiB, e.g. --memory 1G.",
        )
    if cpus < 1:
        raise UsageError(
            f"A machine cannot have {cpus} CPUs; nothing was started.",
            hint="Give it at least one, e.g. --cpus 1.",
        )


#: Architecture -> QEMU's program and machine type.
_TARGETS = {
    "amd64": ("qemu-system-x86_64", "q35,graphics=off"),
    "arm64": ("qemu-system-aarch64", "virt"),
}


def qemu_program(arch: str) -> str:
    """Return the QEMU program for ``amd64`` or ``arm64``.

    Raises
    ------
    LaunchError
        For any other architecture.
    """
    try:
        return _TARGETS[arch][0]
    except KeyError:
        raise LaunchError(
            f"cloudlab has no machine for the architecture {arch!r}; nothing was started.",
            hint="Choose an amd64 or arm64 image.",
        ) from None


def sandbox_argv() -> list[str]:
    """Return the options that take from QEMU what it never needs once it runs (seccomp)."""
    denied = ("obsolete", "elevateprivileges", "spawn", "resourcecontrol")
    return ["-sandbox", ",".join(["on", *(f"{what}=deny" for what in denied)])]


def cpu_model(accel: Accel, arch: str, *, cx16: bool = False) -> str:
    """Return the CPU model: the host's own, or all that software emulation knows."""
    if accel is not Accel.TCG:
        return "host"
    # Debian 13's kernel faults at random under QEMU 7.2's emulation, where its allocator uses
    # CMPXCHG16B; without it the allocator takes another way.  An image that asks for
    # x86-64-v2 or later would not start without it.
    return "max,cx16=off" if arch == "amd64" and not cx16 else "max"


def qemu_argv(
    config: MachineConfig,
    *,
    qmp_fd: int,
    net_fd: int = 0,
    names: Mapping[Path, str] | None = None,
) -> list[str]:
    """Return QEMU's argument list without the program itself; pure.

    The serial console is QEMU's standard output; QMP is spoken over the inherited
    socket ``qmp_fd``, so nothing listens anywhere and no socket lies in any folder.

    Parameters
    ----------
    config : MachineConfig
    qmp_fd, net_fd : int
        Numbers of the connected Unix sockets that QEMU inherits; ``net_fd`` is passt's.
    names : mapping, optional
        File -> what QEMU opens instead, for a QEMU that gets its files as descriptors.
    """
    names = {path: str(path) for path in config.files()} | dict(names or {})
    machine = _TARGETS[config.arch][1]
    argv = [
        # A comma in a key=value option is written twice.
        "-name", f"guest={_twice(config.name)}",
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        "-machine", machine,
        "-accel", str(config.accel),
        "-cpu", cpu_model(config.accel, config.arch, cx16=config.cx16),
        "-smp", str(config.cpus),
        "-m", f"{config.memory_bytes // MIB}M",
    ]  # fmt: skip
    if config.sandbox:
        argv += sandbox_argv()
    argv += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    argv += ["-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control"]
    # Without entropy a guest may wait for its random number generator.
    argv += ["-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng"]
    if config.uefi is not None:
        argv += _firmware_argv(names[config.uefi.code], names[config.uefi.variables])
    argv += _disk_argv("disk", _overlay_node(config, names), "bootindex=0")
    if config.seed is not None:
        argv += _seed_argv(names[config.seed], config.pause_at_seed_byte)
    if config.network is Network.USER:
        netdev = f"stream,id=net,addr.type=fd,addr.str={net_fd}"
        argv += ["-netdev", netdev if config.passt else "user,id=net,ipv6=off"]
        argv += ["-device", "virtio-net-pci,netdev=net,romfile="]
    if config.incoming:
        argv += ["-S", "-incoming", "defer"]
    return argv


def _twice(value: str) -> str:
    return value.replace(",", ",,")


def _firmware_argv(code: str, variables: str) -> list[str]:
    argv = []
    for unit, (name, read_only) in enumerate(((code, "on"), (variables, "off"))):
        drive = f"if=pflash,unit={unit},format=raw,readonly={read_only},file={_twice(name)}"
        argv += ["-drive", drive]
    return argv


def _overlay_node(config: MachineConfig, names: Mapping[Path, str]) -> dict[str, Any]:
    node: dict[str, Any] = {
        "driver": "qcow2",
        # The overlay lives no longer than its machine: no need to wait for the host's disk.
        "cache": {"no-flush": True},
        "discard": "unmap",
        "file": {"driver": "file", "filename": names[config.overlay], "discard": "unmap"},
    }
    if config.base is not None:
        path, kind = config.base
        file = {"driver": "file", "filename": names[path], "read-only": True}
        node["backing"] = {"driver": kind, "read-only": True, "file": file}
    return node


def _seed_argv(seed: str, pause_at_byte: int | None) -> list[str]:
    file: dict[str, Any] = {"driver": "file", "filename": seed, "read-only": True}
    device = []
    if pause_at_byte is not None:
        # A read that fails, once, and that QEMU answers by stopping the machine: when it goes
        # on, the same read is done again and the guest has noticed nothing.
        failing = {"event": "none", "iotype": "read", "sector": pause_at_byte // SECTOR_BYTES,
                   "once": True, "immediately": True, "errno": errno.EIO}  # fmt: skip
        file = {"driver": "blkdebug", "read-only": True, "image": file, "inject-error": [failing]}
        device = ["rerror=stop"]
    return _disk_argv("seed", {"driver": "raw", "read-only": True, "file": file}, *device)


def _disk_argv(node: str, blockdev: dict[str, Any], *device: str) -> list[str]:
    return [
        "-blockdev",
        # JSON takes any file name, key=value options do not.
        json.dumps({"node-name": node, **blockdev}, ensure_ascii=False),
        "-device",
        ",".join([f"virtio-blk-pci,id={node},drive={node}", *device]),
    ]
