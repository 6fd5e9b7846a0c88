"""Panels for notebooks; their callbacks only call :mod:`cloudlab.run`, :mod:`cloudlab.course` and figures.

=================  =========================================================
panel              shows
=================  =========================================================
GrowthLab          the disk before, during and after a boot: choose, predict, boot, compare
Console            one boot's console, booted here or played
DiskMap            what lies where on the disk, before and after a run
Scrubber           the disk at any moment of a boot
SeedEditor         user-data, checked as it is typed
Quiz               questions with feedback on every answer
RunningMachines    the machines that run on this host, with Stop
=================  =========================================================

Whatever can take a *run* takes a :class:`~cloudlab.run.value.Run`, the path of a run folder, or
the name of a shipped recording.

Importing this costs nothing: ipywidgets comes with the first panel used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Console": "boot_panels",
    "DiskMap": "disk_map",
    "GrowthLab": "boot_panels",
    "Question": "panel",
    "Quiz": "panel",
    "RunningMachines": "panel",
    "Scrubber": "disk_map",
    "SeedEditor": "panel",
}

__all__ = [*_HOME]  # noqa: PLE0604 - the names of the table


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"cloudlab.widgets.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
