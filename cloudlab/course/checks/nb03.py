"""Exercises of notebook 03: user-data and meta-data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cloudlab.course.checks import exercise, faults, yaml_text
from cloudlab.course.growth import growth_of, values_used
from cloudlab.course.node import Node
from cloudlab.course.shell import Shell, UndecidedError, script_of
from cloudlab.run.value import recorded
from cloudlab.seed import Problem, Severity, check_meta_data
from cloudlab.seed.check import read_document
from cloudlab.units import GIB

_GIVEN_03_1 = """\
#cloud-config
growpart:
  mode: 'off'
"""

#: A text with three mistakes.  It should keep the partition and the filesystem as they are.
BROKEN_USER_DATA = """\
# cloud-config
growpart:
  mode: off
resize_rootfs: false
runcmd: lsblk
"""
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


@exercise(
    "03-1",
    asks="a user-data text",
    right="growpart keeps its default, resizefs is off, and cloud-init accepts the text.",
    start=_GIVEN_03_1,
)
def _keep_filesystem(answer: Any) -> Iterator[str]:
    text = yaml_text(answer)
    yield from faults(text)
    growth, boot = growth_of(text), Node().boot(text)
    if not growth.partition:
        yield f"The partition should grow, but {growth.kept_by}."
    elif boot.root_partition_bytes < 19 * GIB:
        yield "The partition should grow, but with this bootcmd it keeps its size."
    if growth.filesystem:
        yield "With this text the filesystem grows. It should keep its size."


@exercise(
    "03-2",
    asks="a meta-data text",
    right="cloud-init has not seen this instance-id on this disk, so it treats the copy as new.",
    start="local-hostname: copy\n",
)
def _clone(answer: Any) -> Iterator[str]:
    meta_data = yaml_text(answer, header="")
    used, document = read_document(recorded("default").meta_data), read_document(meta_data)
    errors = [str(one) for one in check_meta_data(meta_data) if one.severity is Severity.ERROR]
    if errors or isinstance(document, Problem) or isinstance(used, Problem):
        yield from errors
        return
    instance_id = document.value.get("instance-id")
    if instance_id in (None, ""):
        yield "cloud-init recognises an instance by a key of meta-data. This text lacks it."
    elif str(instance_id) == str(used.value["instance-id"]):
        yield f"This disk was booted with {instance_id} before, so the copy is not a new instance."
    host = document.value.get("local-hostname", "copy")
    if not (isinstance(host, str | int) and _HOST_NAME.fullmatch(str(host))):
        yield f"{host!r} is not a host name: letters, digits, hyphens and dots are."


@exercise(
    "03-3",
    asks="a user-data text",
    right="All three mistakes are corrected: nothing grows, and lsblk runs.",
    start=BROKEN_USER_DATA,
)
def _correct_user_data(answer: Any) -> Iterator[str]:
    text = yaml_text(answer)
    yield from faults(text)
    growth, values = growth_of(text), values_used(text)
    if growth.partition:
        yield "With this text the partition grows. Partition and filesystem should keep their size."
    growpart = values.get("growpart")
    if isinstance(growpart, dict) and growpart.get("mode") is False:
        yield "YAML reads the value of mode as false, which cloud-init calls deprecated. Quote it."
    if not _runs_lsblk(values.get("runcmd")):
        yield "runcmd should still run lsblk."


def _runs_lsblk(runcmd: object) -> bool:
    called = []

    def command(argv: list[str], _: str) -> tuple[int, str]:
        called.append(argv[0])
        return 0, ""

    script = script_of(runcmd)
    try:
        Shell(command, lambda _: True, lambda _: None).run(script)
    except UndecidedError:
        return "lsblk" in script
    return "lsblk" in called
