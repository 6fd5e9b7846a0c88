"""Whether the course boots real machines here or plays recordings, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.image.cache import cached_images
from cloudlab.machine.accel import choose_accel
from cloudlab.tools import find_tool, host_arch

VARIABLE = "CLOUDLAB_MODE"


class Mode(StrEnum):
    """Where runs come from."""

    LIVE = "live"
    REPLAY = "replay"


@dataclass(frozen=True)
class ModeChoice:
    """The mode, and why, in words for people."""

    mode: Mode
    reason: str

    @property
    def live(self) -> bool:
        """Whether real machines are booted."""
        return self.mode is Mode.LIVE


def mode() -> ModeChoice:
    """Return the mode that ``CLOUDLAB_MODE`` asks for, by default live where that works.

    Raises
    ------
    UsageError
        If the variable holds another word than live, replay or auto.
    """
    wish = os.environ.get(VARIABLE, "")
    # Looking for QEMU may take seconds, and who wants recordings need not have it.
    return decide_mode(wish, "" if wish == Mode.REPLAY else live_problem())


def decide_mode(wish: str, problem: str) -> ModeChoice:
    """Return the mode that follows from a wish and from what is in the way of live runs.

    Parameters
    ----------
    wish : str
        ``live``, ``replay``, or ``auto`` or empty for live where it works.
    problem : str
        What keeps this host from booting a machine; empty where nothing does.

    Raises
    ------
    UsageError
        For another wish.
    """
    if wish == Mode.REPLAY:
        return ModeChoice(Mode.REPLAY, f"{VARIABLE} asks for recordings")
    if wish not in {"", "auto", Mode.LIVE}:
        raise UsageError(
            f"{VARIABLE} is {wish!r}; expected live, replay or auto.",
            hint=f"Unset it with: unset {VARIABLE}",
        )
    if problem:
        asked = f"{VARIABLE} asks for live runs, but " if wish == Mode.LIVE else ""
        return ModeChoice(Mode.REPLAY, f"{asked}{problem}")
    return ModeChoice(Mode.LIVE, "QEMU and an image are here")


def live_problem() -> str:
    """Return what keeps this host from booting a machine, or nothing."""
    arch = host_arch()
    try:
        choose_accel(arch)
        find_tool("qemu-img")
    except CloudlabError as error:
        return " ".join(str(error).split())
    if not any(image.arch == arch for image in cached_images()):
        return "no image is in the cache: run 'cloudlab fetch' or 'cloudlab build' first"
    return ""


def ready_line() -> str:
    """Return one line that a learner reads out before a class: what runs here, and the image."""
    images = [image.name for image in cached_images() if image.arch == host_arch()]
    try:
        choice = mode()
        if choice.live:
            return f"ready: live under {choose_accel(host_arch()).accel.upper()}, image {images[0]}"
    except CloudlabError as error:
        return f"not ready: {error.message}"
    line = f"ready: recordings only, because {choice.reason}"
    if "no image" not in line:
        line += f"; image {images[0]}" if images else "; no image is in the cache"
    return line
