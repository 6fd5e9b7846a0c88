"""Exercises of notebook 00: labels, stages, the machine check."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cloudlab.course.checks import choice, exercise, single, word
from cloudlab.run.value import recorded

_ACCELERATORS = {"tcg": "tcg", "emulation": "tcg", "kvm": "kvm", "hvf": "hvf", "whpx": "whpx"}

_FOUND = (
    ("qemu-system-x86_64", True, "/usr/bin/qemu-system-x86_64: QEMU emulator version 7.2.22", ""),
    ("qemu-img", False, "not found", "Install it with: sudo apt-get install --yes qemu-utils"),
    ("accelerator", True, "tcg: software emulation, because /dev/kvm is not there", ""),
    ("image", True, "none in the cache yet; the first run fetches or builds one", ""),
)
#: What ``cloudlab doctor --json`` printed on a host that cannot boot yet.
BROKEN_HOST: dict[str, Any] = {
    "checks": [dict(zip(("name", "ok", "detail", "fix"), one, strict=True)) for one in _FOUND]
}


@exercise(
    "00-1",
    asks="the accelerator's name",
    right="The recording's label names it, and its run.json also says why it was chosen.",
)
def _accelerator(answer: Any) -> Iterator[str]:
    answer = single(answer)
    text = word(getattr(answer, "name", answer)).lower()
    named = {_ACCELERATORS[one] for one in re.findall(r"\w+", text) if one in _ACCELERATORS}
    if named != {str(recorded("default").record.accelerator.name)}:
        yield f"The label of recorded('default') does not say {word(answer)!r}. Read its last word."


@exercise(
    "00-2",
    asks="a stage's name",
    right="This stage has the largest difference between end_s and start_s.",
)
def _longest_stage(answer: Any) -> Iterator[str]:
    took = {str(one.stage): one.end_s - one.start_s for one in recorded("default").record.stages}
    short = {stage.removeprefix("cloud-init "): stage for stage in took}
    stage = choice(answer, took) or short.get(choice(answer, short) or "")
    if stage is None:
        yield f"There is no stage {word(answer)!r}. The stages are {', '.join(took)}."
    elif took[stage] < max(took.values()):
        yield f"{stage} took {took[stage]:.1f} s, and another stage took longer."


@exercise(
    "00-3",
    asks="a check's name",
    right="A failed check has a fix beside it. A missing image is no failure.",
)
def _broken_host(answer: Any) -> Iterator[str]:
    found = {one["name"]: one for one in BROKEN_HOST["checks"]}
    name = choice(answer, found)
    if name is None:
        yield f"There is no check {word(answer)!r}. The checks are {', '.join(found)}."
    elif found[name]["ok"]:
        yield f"The check {name} passed: {found[name]['detail']}."
