"""What the notebooks call: boots, views of a run, predictions, exercises.

==============  ===========================================================
module          owns
==============  ===========================================================
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

from cloudlab.lab.explained import explain_run
from cloudlab.lab.teaching.disks import image_layout, iso_contents, try_overlay
from cloudlab.lab.teaching.fetching import fetch
from cloudlab.lab.teaching.prediction import Prediction
from cloudlab.lab.teaching.runs import (
    boot,
    boot_all,
    boot_text,
    machine_check,
    recorded,
    recordings,
)
from cloudlab.lab.teaching.verdict import Verdict, check
from cloudlab.lab.teaching.views import (
    console,
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
