"""What the notebooks call: boots, views of a run, predictions, exercises.

==============  ===========================================================
module          owns
==============  ===========================================================
cases           what each boot of the gallery is made of, and what must come out
mode            whether real machines are booted or recordings played
notebooks       copying the notebooks to a folder of the learner's
questions       the questions of the quizzes
fetching        an image from its publisher or a mirror, with a bar that moves
runs            a case of the course, booted here or played back
views           a run as pictures, tables and numbered console lines
prediction      what the learner expects, and how far off it was
disks           real files: an image of the cache, an overlay on it, a seed
settings        what cloud-init makes of a user-data text, as far as growth goes
verdict         the answer to an answer
exercises       the exercises of notebooks 0 to 4
more_exercises  those of notebooks 5, 6 and 8
storage         those of notebook 7
==============  ===========================================================
"""

from cloudlab.course.disks import image_layout, iso_contents, try_overlay
from cloudlab.course.fetching import fetch
from cloudlab.course.prediction import Prediction
from cloudlab.course.runs import (
    boot,
    boot_all,
    boot_text,
    machine_check,
)
from cloudlab.course.verdict import Verdict, check
from cloudlab.course.views import (
    console,
    explain_run,
    extents,
    file,
    layout,
    logs,
    modules,
    options,
    say,
    show,
    sizes,
    stages,
    tables,
)
from cloudlab.run.value import recorded, recordings

__all__ = [
    "Prediction",
    "Verdict",
    "boot",
    "boot_all",
    "boot_text",
    "check",
    "console",
    "explain_run",
    "extents",
    "fetch",
    "file",
    "image_layout",
    "iso_contents",
    "layout",
    "logs",
    "machine_check",
    "modules",
    "options",
    "recorded",
    "recordings",
    "say",
    "show",
    "sizes",
    "stages",
    "tables",
    "try_overlay",
]
