"""DiskMap: what lies where on the disk, before and after a run."""

from __future__ import annotations

from cloudlab.figures.data import disk_map_data
from cloudlab.run.value import open_run
from cloudlab.widgets.map_html import map_html
from cloudlab.widgets.panel import AnyRun
from cloudlab.widgets.results import origin
from cloudlab.widgets.texts import safe


class DiskMap:
    """The disk to scale in each state of a run; hovering or focusing a part tells its bytes.

    It needs no kernel: all of it is HTML, alive in a notebook that is opened again.

    Parameters
    ----------
    run : run
    only_before : bool
        Whether what the boot made of it stays hidden.

    Raises
    ------
    CloudlabError
        If the run has no sizes.
    """

    def __init__(self, run: AnyRun, *, only_before: bool = False) -> None:
        self.recording = open_run(run)
        data = disk_map_data(self.recording.sizes)
        self.data = data[data["state"] == "before"] if only_before else data

    def _repr_html_(self) -> str:
        return f"<p><small>{safe(origin(self.recording))}</small></p>{map_html(self.data)}"

    def __repr__(self) -> str:
        return f"<DiskMap of {self.recording.name}>"
