"""What the notebooks call: boots, predictions, exercises and their checks.

==========  ===============================================================
module      owns
==========  ===============================================================
cases       the boots of the gallery: how each is made and what it must show
runs        what reaches this host: boots or recordings, images, files, the doctor
classroom   predictions and progress of a class, in one folder
prediction  the learner's prediction, compared with the measurement
notebooks   copying the notebooks to a folder of the learner's
shell       interpreting a bootcmd
node        a model of a node: what boots with a user-data text do to it
checks      answers, feedback, progress; the checks of three or four notebooks each
==========  ===============================================================
"""

from __future__ import annotations

import importlib
from typing import Any

#: Name -> the module that has it; each module is imported when one of its names is first used.
_HOMES = {
    name: module
    for module, names in {
        "checks.image": ("BROKEN_HOST", "BROKEN_USER_DATA"),
        "checks.growth": (
            "DIAGNOSES",
            "PATIENTS",
            "WHEN_IT_DOES_NOT_GROW",
            "evidence",
            "labelled",
        ),
        "checks.practice": ("BROKEN_STORAGE", "NODE_STORAGE", "STUCK", "mounted"),
        "classroom": ("check", "room_board", "room_predictions", "send_to_class"),
        "prediction": ("Prediction",),
        "runs": (
            "boot",
            "boot_all",
            "boot_text",
            "fetch",
            "image_layout",
            "iso_contents",
            "machine_check",
            "show_mode",
            "try_overlay",
        ),
        "checks": ("Verdict", "progress"),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
