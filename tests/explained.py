"""Explanations of small transcripts and pastes, for tests, and the words that programs say in them."""

from console_text import MIB

import cloudlab as cl
from cloudlab.explanation import Grower, Subject, explain
from cloudlab.sizes import ConsoleParser

#: A disk of 20 GiB with room behind root, without, and what df says of root.
ROOM = """\
NAME   MAJ:MIN RM SIZE RO TYPE MOUNTPOINTS
vda    253:0    0  20G  0 disk
└─vda1 253:1    0  10G  0 part /
"""
WHOLE = ROOM.replace("10G", "20G")
DF = "Filesystem      Size  Used Avail Use% Mounted on\n/dev/vda1        {}  1.2G  5.7G  18% /\n"

GREW = (
    "2026-11-22 22:28:24,731 - cc_growpart.py[INFO]: '/' resized: changed (/dev/vda, 1) "
    "from 2097152000 to 21358427648"
)
RESIZED = (
    "2026-11-22 22:28:25,121 - cc_resizefs.py[DEBUG]: Resized root filesystem (type=ext4, val=True)"
)


def growpart(words):
    return f"2026-11-22 22:28:24,731 - cc_growpart.py[DEBUG]: {words}"


def resizefs(words):
    return f"2026-11-22 22:28:25,121 - cc_resizefs.py[DEBUG]: {words}"


def log(text):
    return {"kind": "log", "text": text}


def explained(text, **evidence):
    lines = text.encode().split(b"\n")
    parser = ConsoleParser()
    for number, line in enumerate(lines, 1):
        parser.feed(line, number)
    return explain(parser.result(), console=lines, **evidence)


FORKED = resizefs("Resizing (via forking) root filesystem (type=ext4, val=noblock)")


def disk(partition_bytes, filesystem_bytes, *, kind="ext4", table="gpt"):
    """What inspect says of the lab image's root."""
    return {
        "table": table,
        "partitions": [
            {
                "number": 1,
                "start_bytes": 111 * MIB,
                "size_bytes": partition_bytes,
                "filesystem": {"type": kind, "size_bytes": filesystem_bytes},
            }
        ],
    }


def only(explanation, subject):
    [statement] = explanation.of(subject)
    return statement


def partition(text, **evidence):
    return only(explained(text, **evidence), Subject.PARTITION)


def told(text, subject):
    """The finding of evidence from any machine, with its device and its fix."""
    return only(cl.explain(f"{text}\n\n"), subject)


def kept(reason):
    return False, Grower.NOBODY, reason
