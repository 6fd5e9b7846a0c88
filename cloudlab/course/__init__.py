"""What the notebooks call: boots, predictions, exercises and their checks.

==========  ===============================================================
module      owns
==========  ===============================================================
cases       the boots of the gallery: how each is made and what it must show
mode        whether machines are booted here or recordings are played
runs        booting a case of the course, or playing its recording
classroom   predictions and progress of a class, in one folder
prediction  the learner's prediction, compared with the measurement
disks       real files: an image of the cache, an overlay on it, a seed
notebooks   copying the notebooks to a folder of the learner's
questions   the questions of the quiz
fetching    fetching an image with a progress bar
settings    which growth a user-data text asks for
shell, gpt  interpreting a bootcmd; a GPT disk under sgdisk
node        a model of a node: what boots with a user-data text do to it
answers     learners' answers in one form
verdict     feedback on an answer, progress
checks      the exercises' checks, one module for each notebook
==========  ===============================================================
"""

from __future__ import annotations

import importlib
from typing import Any

#: Name -> the module that has it; each module is imported when one of its names is first used.
_HOMES = {
    name: module
    for module, names in {
        "checks.nb00": ("BROKEN_HOST",),
        "checks.nb03": ("BROKEN_USER_DATA",),
        "checks.nb04": ("labelled",),
        "checks.nb06": ("DIAGNOSES", "PATIENTS", "evidence"),
        "checks.nb07": ("BROKEN_STORAGE", "NODE_STORAGE", "mounted"),
        "classroom": ("check", "room_board", "room_predictions", "send_to_class"),
        "disks": ("image_layout", "iso_contents", "try_overlay"),
        "fetching": ("fetch",),
        "prediction": ("Prediction",),
        "questions": ("WHEN_IT_DOES_NOT_GROW",),
        "runs": ("boot", "boot_all", "boot_text", "machine_check", "show_mode"),
        "verdict": ("Verdict", "progress"),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
