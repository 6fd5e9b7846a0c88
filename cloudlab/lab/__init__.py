"""The lab: from options to a run, its folder, its sizes and its report."""

from cloudlab.lab.boot import RunEvent
from cloudlab.lab.options import SCENARIOS, RunOptions, article_runs, scenario_name
from cloudlab.lab.run import Run, how_many_side_by_side, run_lab, run_many

__all__ = [
    "SCENARIOS",
    "Run",
    "RunEvent",
    "RunOptions",
    "article_runs",
    "how_many_side_by_side",
    "run_lab",
    "run_many",
    "scenario_name",
]
