"""Guests without an operating system: disk images whose boot sector does what a test needs.

The firmware reaches them within a fraction of a second, even in emulation.
"""

import contextlib
import re
import shutil
import signal
import struct
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import psutil
from console_text import GIB, block, disk_frames

from cloudlab import paths
from cloudlab.image.cache import open_image
from cloudlab.machine.config import Accel
from cloudlab.run.options import Options
from cloudlab.seed import SeedConfig, build_seed
from cloudlab.seed.iso import iso_bytes, iso_head
from cloudlab.tools import Deadline

#: What a run leaves in its folder.
KEPT = {
    "console.cast", "console.log", "extents.csv", "meta-data", "run.json", "sizes.csv", "user-data",
}  # fmt: skip

_SECTOR = 512
_LEAST_SECTORS = 2048
_IMAGE_BYTES = 2 << 30
#: Where a seed's root directory begins.
_SEED_ROOT_SECTOR = len(iso_head(iso_bytes(build_seed(SeedConfig())))) // _SECTOR

# Real mode, at 0x7c00.  Prints what the sectors from 1 on hold (two bytes of count, then
# text, each) on the serial port, then falls into one of the endings below.  In place of a
# byte 1 it prints the nonce of report.sh, which it finds in the seed by "#!/b", if there is one.
_PRINT = bytes.fromhex(
    "31c0 8ed8 8ec0 8ed0"  # xor ax, ax; mov ds, es, ss, ax
    "bc007c fc fbf4f4"     # mov sp, 0x7c00; cld; sti; hlt; hlt    the firmware ends its line
    "8816b07d"             # mov [0x7db0], dl      the disk that it was booted from
    "bea07d b442"          # next: mov si, 0x7da0; mov ah, 0x42
    "8a16b07d cd13"        # mov dl, [0x7db0]; int 0x13
    "ff06a87d"             # inc word [0x7da8]     the packet's sector number
    "be0080 ad 89c1 e357"  # mov si, 0x8000; lodsw; mov cx, ax; jcxz ending
    "ac 3c01 7418 e80400"  # char: lodsb; cmp al, 1; je nonce; call put
    "e2f6 ebdd"            # more: loop char; jmp next
    "88c3"                 # put: mov bl, al
    "bafd03 ec a820 74fb"  # wait: mov dx, 0x3fd; in al, dx; test al, 0x20; jz wait
    "88d8 baf803 ee c3"    # mov al, bl; mov dx, 0x3f8; out dx, al; ret
    "60 66c706787d {0}"    # nonce: pusha; mov dword [0x7d78], the sector behind the root's
    "be707d b442 b281"     # scan: mov si, 0x7d70; mov ah, 0x42; mov dl, 0x81
    "cd13 7222"            # int 0x13; jc over
    "668306787d04"         # add dword [0x7d78], 4
    "66813e0090 23212f62"  # cmp dword [0x9000], "#!/b"
    "75e4 be1090"          # jne scan; mov si, 0x9010
    "b020 e8c1ff b91000"   # mov al, " "; call put; mov cx, 16
    "ac e8baff e2fa"       # digit: lodsb; call put; loop digit
    "61 ebb1"              # over: popa; jmp more
    .replace("{0}", struct.pack("<I", _SEED_ROOT_SECTOR + 4).hex())
)  # fmt: skip
_HALT = bytes.fromhex("fa f4 ebfc")  # cli; hlt; jmp $-2


class Then(Enum):
    """What the guest does after its last word."""

    HALT = _HALT
    POWER_OFF = bytes.fromhex("ba0406 b80020 ef") + _HALT  # mov dx, 0x604; mov ax, 0x2000; out
    RESET = bytes.fromhex("b0fe e664") + _HALT  # mov al, 0xfe; out 0x64, al
    TRIPLE_FAULT = bytes.fromhex("0f011eb47d cc") + _HALT  # lidt [0x7db4] (empty); int3
    #: For ever every byte from 0 to 255, one line feed among them, as fast as it can.
    FLOOD = bytes.fromhex(
        "bafd03 ec a820 74fb"     # mov dx, 0x3fd; in al, dx; test al, 0x20; jz $-3
        "baf803 fec3 88d8 ee"     # mov dx, 0x3f8; inc bl; mov al, bl; out dx, al
        "ebee"                    # jmp $-16
    )  # fmt: skip
    #: Reads the seed where its root directory begins, says what it has to say later, then halts.
    READ_SEED = bytes.fromhex(
        "fe06b17d 803eb17d02 730c"  # inc byte [0x7db1]; cmp byte [0x7db1], 2; jae halt
        "be807d b442 b281 cd13"     # mov si, 0x7d80; mov ah, 0x42; mov dl, 0x81; int 0x13
        "e97bff"                    # jmp next
    ) + _HALT  # fmt: skip
    #: Writes the disk full, 32 KiB at a time, as fast as it can.
    FILL_DISK = bytes.fromhex(
        "be907d b80043 8a16b07d cd13"  # mov si, 0x7d90; mov ax, 0x4300; mov dl, ..; int 0x13
        "668306987d40 ebec"            # add dword [0x7d98], 64; jmp $-18
    )  # fmt: skip


def make_guest(
    path: Path,
    says: bytes | str,
    then: Then = Then.HALT,
    later: bytes | str = b"",
    *,
    tagged: bool = True,
) -> Path:
    """Write a raw disk image that says ``says`` on its serial port, then does ``then``.

    With ``tagged``, the frames of a report that have no nonce get that of the seed.
    """
    pieces = [*_pieces(b"\r\n", says, tagged), *_pieces(b"", later, tagged)]
    sectors = b"".join(
        (struct.pack("<H", len(piece)) + piece).ljust(_SECTOR, b"\0") for piece in pieces
    )
    code = bytearray((_PRINT + then.value).ljust(_SECTOR, b"\0"))
    # Packets of the BIOS's extended disk calls: size, sectors, offset, segment, first sector.
    code[0x170:0x180] = struct.pack("<BBHHHQ", 16, 0, 1, 0x9000, 0, 0)
    code[0x190:0x1A0] = struct.pack("<BBHHHQ", 16, 0, 64, 0, 0x1000, _LEAST_SECTORS)
    code[0x180:0x190] = struct.pack("<BBHHHQ", 16, 0, 1, 0, 0x1000, _SEED_ROOT_SECTOR)
    code[0x1A0:0x1B0] = struct.pack("<BBHHHQ", 16, 0, 1, 0x8000, 0, 1)
    # A disk without a partition is none that cloudlab would boot.
    kind, count = 0x83, _IMAGE_BYTES // _SECTOR - _LEAST_SECTORS
    code[0x1BE:0x1CE] = struct.pack("<8BII", 0x80, *[0] * 3, kind, *[0] * 3, _LEAST_SECTORS, count)
    code[0x1FE:] = b"\x55\xaa"
    with path.open("wb") as image:
        image.write(code + sectors)
        image.truncate(_IMAGE_BYTES)
    return path


def _pieces(start: bytes, says: bytes | str, tagged: bool) -> list[bytes]:
    text = start + (says.encode() if isinstance(says, str) else says)
    if tagged:
        text = re.sub(rb"(@cloudlab .*} \d+)@", b"\\1\x01@", text)
    return [text[at : at + _SECTOR - 2] for at in range(0, len(text), _SECTOR - 2)] + [b""]


def report(**facts: str) -> str:
    """Return what a guest prints whose disk grew from 2 GiB to 20 GiB."""
    said = [{"kind": "fact", "name": name, "value": value} for name, value in facts.items()]
    before = block("before", *disk_frames(2 * GIB, 2 * GIB - (1 << 20)))
    return before + block("after", *disk_frames(19 * GIB, 19 * GIB - (1 << 20)), *said)


def guest_options(folder: Path, says: bytes | str, then: Then = Then.HALT, **options) -> Options:
    """Return what ``boot`` needs to boot such a guest under emulation, with its image made."""
    image = open_image(make_guest(folder / "guest.img", says, then))
    return Options(image=image, accel=Accel.TCG, **{"timeout_s": 120, **options})


REAL_QEMU = shutil.which("qemu-system-x86_64")


def fake_qemu(tmp_path: Path, monkeypatch, script: str) -> None:
    """Put a program in QEMU's place that fails as some QEMUs do."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def deaf_qemu(tmp_path: Path, monkeypatch) -> Path:
    """Put a program in QEMU's place that never answers on QMP and does not end when asked to.

    Returns the file in which it writes its process number.  The accelerator is still found out.
    """
    note = tmp_path / "pid"
    deaf = f"trap '' TERM; echo $$ > '{note}.part'; mv '{note}.part' '{note}'; exec sleep 600"
    fake_qemu(
        tmp_path, monkeypatch, f'case "$*" in *qmp*) {deaf};; *) exec {REAL_QEMU} "$@";; esac'
    )
    return note


def alive(pid: int) -> bool:
    """Return whether the process is there and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def hear_ctrl_c() -> None:
    """Let a child hear it even where the tests run in the background of a script."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_until(happened: Callable[[], bool]) -> bool:
    """Wait for something that must happen; False after a time that is no pass condition."""
    deadline = Deadline.after(300)
    while not (done := happened()) and not deadline.expired:
        time.sleep(0.02)
    return done


def left_behind(folder: Path) -> list[str]:
    """Return what a run in ``folder`` must not leave: its machine's files, entries, processes."""
    found = [path.name for path in folder.glob("*") if path.name not in KEPT]
    found += [path.name for path in paths.running_folder().glob("*")]
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if not any("qemu" in word for word in words):
            continue
        with contextlib.suppress(psutil.Error):
            # Root's QEMU gets its files open, so its command does not name them.
            words += [file.path for file in process.open_files()]
        if any(str(folder) in word for word in words):
            found.append(" ".join(words))
    return found
