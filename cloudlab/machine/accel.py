"""Which accelerator really works here, found out by running guest code.

That ``/dev/kvm`` exists, may be opened and lets QEMU start proves nothing: there are
hosts where the guest then hangs, or crawls at a fraction of software emulation's speed.
So a guest of a few instructions is run under a short deadline.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cloudlab import paths, platforms
from cloudlab.errors import CloudlabError, ToolFailedError, ToolTimeoutError
from cloudlab.machine.config import Accel, cpu_model, qemu_program, sandbox_argv
from cloudlab.tools import find_tool, host_arch, run

#: Seconds that a hardware accelerator gets to run the probe; it needs about 0.2.
PROBE_TIMEOUT_S = 4.0

#: Software emulation is slower and may find a busy host; it is the last resort.
TCG_PROBE_TIMEOUT_S = 30.0

#: A hardware accelerator that takes this many times as long as emulation is of no use.
SLOWER_THAN_TCG = 3.0

# A boot sector: the firmware must run, interrupts must arrive (two timer ticks, waited
# for with HLT), then it leaves through QEMU's isa-debug-exit device.
_BOOT_SECTOR = bytes.fromhex(
    "31c0"      # xor ax, ax
    "8ed8"      # mov ds, ax
    "fb"        # sti
    "a06c04"    # mov al, [0x46c]      the BIOS's tick counter
    "88c3"      # mov bl, al
    "80c302"    # add bl, 2
    "f4"        # wait: hlt
    "a06c04"    # mov al, [0x46c]
    "38d8"      # cmp al, bl
    "75f8"      # jne wait
    "ba0105"    # mov dx, 0x501
    "b010"      # mov al, 0x10
    "ee"        # out dx, al           QEMU exits with 0x10 * 2 + 1
    "f4ebfd"    # hlt; jmp $-1
)  # fmt: skip
_X86_EXIT_CODE = 0x10 * 2 + 1

# PSCI's SYSTEM_OFF by hypervisor call: QEMU ends with 0.
_ARM_CODE = bytes.fromhex(
    "00018052"  # mov  w0, #8
    "0080b072"  # movk w0, #0x8400, lsl #16
    "020000d4"  # hvc  #0
    "00000014"  # b    .
)  # fmt: skip
# Memory starts at 0x4000_0000, with a mebibyte that the device tree takes.  QEMU's loader device
# writes the code there, four bytes at a time: a file would be opened twice, and on macOS two
# openings of /dev/stdin share one position.
_ARM_LOAD_ADDRESS = 0x4020_0000


@dataclass(frozen=True)
class AccelChoice:
    """The accelerator that runs guest code here, and why this one.

    Attributes
    ----------
    accel : Accel
    reason : str
        In words, for people.
    sandbox : bool
        Whether this QEMU takes the seccomp options.
    """

    accel: Accel
    reason: str
    sandbox: bool


def choose_accel(arch: str | None = None, *, refresh: bool = False) -> AccelChoice:
    """Return the accelerator for guests of ``arch``; probed once per boot of the host.

    Parameters
    ----------
    arch : str, optional
        ``amd64`` or ``arm64``; the host's by default.
    refresh : bool
        Whether to probe again.

    Raises
    ------
    ToolNotFoundError
        If QEMU is not installed.
    CloudlabError
        If not even software emulation runs guest code.
    """
    arch = arch or host_arch()
    qemu = find_tool(qemu_program(arch))
    record = paths.cache_folder() / f"accelerator-{arch}.json"
    key = _probe_key(qemu)
    if not refresh:
        known = _recall(record, key)
        if known is not None:
            return known
    choice = _probe(arch)
    # A cache that cannot be written only means probing again.
    with contextlib.suppress(CloudlabError, OSError):
        paths.make_folder(record.parent)
        paths.write_whole(record, json.dumps({"key": key, **asdict(choice)}))
    return choice


def probe(arch: str, accel: Accel, *, sandbox: bool = True) -> float:
    """Run a few instructions of guest code and return how many seconds it took.

    Raises
    ------
    ToolTimeoutError
        If the code did not come to its end in time: the accelerator hangs.
    ToolFailedError
        If QEMU refused, with its words.
    """
    timeout_s = TCG_PROBE_TIMEOUT_S if accel is Accel.TCG else PROBE_TIMEOUT_S
    # A file without a name, so that nothing stays of it even if this process is killed.
    with tempfile.TemporaryFile(prefix="cloudlab-probe-") as code:
        if arch == "amd64":
            sector = _BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa"
            code.write(sector.ljust(1 << 20, b"\0"))
            machine = [
                "-machine", "pc,graphics=off",
                "-drive", "file=/dev/stdin,format=raw,if=ide",
                "-device", "isa-debug-exit,iobase=0x501,iosize=1",
            ]  # fmt: skip
        else:
            machine = ["-machine", "virt"]
            for at in range(0, len(_ARM_CODE), 4):
                word = int.from_bytes(_ARM_CODE[at : at + 4], "little")
                place = f"loader,addr={_ARM_LOAD_ADDRESS + at:#x}"
                machine += ["-device", f"{place},data={word:#x},data-len=4"]
            machine += ["-device", f"loader,addr={_ARM_LOAD_ADDRESS:#x},cpu-num=0"]
        code.seek(0)
        argv = [
            qemu_program(arch), "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-m", "64M", "-accel", str(accel), "-cpu", cpu_model(accel, arch),
            *machine, *(sandbox_argv() if sandbox else []),
        ]  # fmt: skip
        started = time.monotonic()
        # A QEMU that hangs in the kernel does not hear that it is asked to end.
        try:
            done = run(argv, timeout_s=timeout_s, check=False, stdin=code, grace_s=0, bound=True)
        except ToolTimeoutError as error:
            raise ToolTimeoutError(
                f"QEMU with the accelerator {accel} did not run a few instructions within "
                f"{timeout_s:g} s; it was ended.",
                hint="Try again when this host is less busy; 'cloudlab doctor --refresh' checks it.",
            ) from error
        took_s = time.monotonic() - started
    if done.returncode != (_X86_EXIT_CODE if arch == "amd64" else 0):
        raise ToolFailedError(
            f"QEMU with the accelerator {accel} ended with {done.returncode} before the guest "
            f"code did: {done.stderr.strip() or 'it said nothing'}.",
            returncode=done.returncode,
            output=done.stderr.strip(),
            hint="Update QEMU or install it again, then run: cloudlab doctor --refresh",
        )
    return took_s


def _probe(arch: str) -> AccelChoice:
    sandbox = True
    try:
        tcg_s = probe(arch, Accel.TCG)
    except ToolFailedError:
        # Not every QEMU was built with seccomp (none is on macOS).
        sandbox = False
        tcg_s = probe(arch, Accel.TCG, sandbox=False)
    hardware, why_not = _candidate(arch)
    if hardware is None:
        return AccelChoice(Accel.TCG, f"software emulation, because {why_not}", sandbox)
    try:
        took_s = probe(arch, hardware, sandbox=sandbox)
    except ToolTimeoutError:
        why_not = f"under {hardware} guest code did not run within {PROBE_TIMEOUT_S:g} s"
    except ToolFailedError as error:
        why_not = f"QEMU cannot use {hardware}: {_complaint(error.output) or error.message}"
    else:
        if took_s <= max(SLOWER_THAN_TCG * tcg_s, 1.0):
            return AccelChoice(hardware, f"guest code ran under it in {took_s:.2f} s", sandbox)
        why_not = (
            f"{hardware} took {took_s:.1f} s for guest code that emulation ran in {tcg_s:.2f} s"
        )
    return AccelChoice(Accel.TCG, f"software emulation, because {why_not}", sandbox)


def _complaint(output: str) -> str:
    """Return what QEMU complains of first, without its own name and what an abort adds."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    found = next((line for line in lines if "error:" in line), lines[0] if lines else "")
    return re.sub(r"^\S*qemu-system-\S+: |\berror: ", "", found).rstrip(".")


def _candidate(arch: str) -> tuple[Accel | None, str]:
    if arch != host_arch():
        return None, f"the guest is {arch} and this host is {host_arch()}"
    name, why_not = platforms.hardware_accelerator()
    return Accel(name) if name else None, why_not


def _probe_key(qemu: Path) -> dict[str, object]:
    """Return what the answer depends on: this boot of the host, QEMU, the hypervisor to try."""
    return {
        "boot": platforms.boot_id(),
        "qemu": str(qemu),
        "qemu_mtime_ns": qemu.stat().st_mtime_ns,
        "hardware": platforms.hardware_accelerator()[0],
    }


def _recall(record: Path, key: dict[str, object]) -> AccelChoice | None:
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["key"] != key:
            return None
        return AccelChoice(Accel(known["accel"]), str(known["reason"]), bool(known["sandbox"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
