"""What a guest prints, written down independently of the code that reads it."""

import json

GIB = 1 << 30
MIB = 1 << 20


def cksum(data):
    """The CRC of POSIX cksum, bit by bit as the standard defines it."""
    crc = 0
    length = len(data)
    while length:
        data += bytes([length & 0xFF])
        length >>= 8
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ 0x104C11DB7 if crc & 0x80000000 else crc << 1
    return crc ^ 0xFFFFFFFF


def frame(stage, number, **values):
    body = f"{stage} {number} {json.dumps(values, separators=(',', ':'))}"
    return f"@cloudlab {body} {cksum(body.encode('ascii'))}@"


def block(stage, *frames, uptime_s=23.5, human=""):
    """One whole block: begin, human tables, frames, end."""
    begin = frame(stage, 0, kind="begin", uptime_s=uptime_s)
    middle = [frame(stage, number, **values) for number, values in enumerate(frames, 1)]
    end = frame(stage, len(frames) + 1, kind="end", frames=len(frames) + 2)
    return "\r\n".join([begin, *human.splitlines(), *middle, end]) + "\r\n"


def device(name, type_, parent, size_bytes, start_bytes=0):
    return {
        "kind": "block",
        "name": name,
        "type": type_,
        "parent": parent,
        "size_bytes": size_bytes,
        "start_bytes": start_bytes,
    }


def filesystem(name, mountpoint, size_bytes, used_bytes, *, fstype="ext4"):
    return {
        "kind": "filesystem",
        "device": name,
        "mountpoint": mountpoint,
        "fstype": fstype,
        "size_bytes": size_bytes,
        "used_bytes": used_bytes,
        "available_bytes": size_bytes - used_bytes,
    }


def disk_frames(root_bytes, filesystem_bytes):
    """The lab image's disk of 20 GiB: root behind two small partitions, and the seed."""
    return [
        device("vda", "disk", "", 20 * GIB),
        device("vda1", "part", "vda", root_bytes, 111 * MIB),
        device("vda14", "part", "vda", 4 * MIB, 1 * MIB),
        device("vda15", "part", "vda", 106 * MIB, 5 * MIB),
        device("vdb", "disk", "", 374784),
        filesystem("vda1", "/", filesystem_bytes, 700 * MIB),
        filesystem("vda15", "/boot/efi", 105 * MIB, 6 * MIB, fstype="vfat"),
    ]
