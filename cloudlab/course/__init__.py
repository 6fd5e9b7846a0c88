"""What the notebooks call: boots, predictions, exercises and their checks.

==========  ===============================================================
module      owns
==========  ===============================================================
cases       the boots of the gallery: how each is made and what it must show
mode        whether machines are booted here or recordings are played
runs        booting a case of the course, or playing its recording
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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudlab.course.checks.nb00 import BROKEN_HOST
    from cloudlab.course.checks.nb03 import BROKEN_USER_DATA
    from cloudlab.course.checks.nb04 import labelled
    from cloudlab.course.checks.nb06 import DIAGNOSES, PATIENTS, evidence
    from cloudlab.course.checks.nb07 import BROKEN_STORAGE, NODE_STORAGE, mounted
    from cloudlab.course.disks import image_layout, iso_contents, try_overlay, write_seed
    from cloudlab.course.fetching import fetch
    from cloudlab.course.prediction import Prediction
    from cloudlab.course.questions import WHEN_IT_DOES_NOT_GROW
    from cloudlab.course.runs import boot, boot_all, boot_text, machine_check, show_mode
    from cloudlab.course.verdict import Verdict, check, progress

_HOMES = {
    "cloudlab.course.checks.nb00": ("BROKEN_HOST",),
    "cloudlab.course.checks.nb03": ("BROKEN_USER_DATA",),
    "cloudlab.course.checks.nb04": ("labelled",),
    "cloudlab.course.checks.nb06": ("DIAGNOSES", "PATIENTS", "evidence"),
    "cloudlab.course.checks.nb07": ("BROKEN_STORAGE", "NODE_STORAGE", "mounted"),
    "cloudlab.course.disks": ("image_layout", "iso_contents", "try_overlay", "write_seed"),
    "cloudlab.course.fetching": ("fetch",),
    "cloudlab.course.prediction": ("Prediction",),
    "cloudlab.course.questions": ("WHEN_IT_DOES_NOT_GROW",),
    "cloudlab.course.runs": ("boot", "boot_all", "boot_text", "machine_check", "show_mode"),
    "cloudlab.course.verdict": ("Verdict", "check", "progress"),
}  # fmt: skip

__all__ = [
    "BROKEN_HOST",
    "BROKEN_STORAGE",
    "BROKEN_USER_DATA",
    "DIAGNOSES",
    "NODE_STORAGE",
    "PATIENTS",
    "WHEN_IT_DOES_NOT_GROW",
    "Prediction",
    "Verdict",
    "boot",
    "boot_all",
    "boot_text",
    "check",
    "evidence",
    "fetch",
    "image_layout",
    "iso_contents",
    "labelled",
    "machine_check",
    "mounted",
    "progress",
    "show_mode",
    "try_overlay",
    "write_seed",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
