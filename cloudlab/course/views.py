"""Small views that the notebooks share."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from cloudlab.console import Console
from cloudlab.html import Page
from cloudlab.run.plots import plot
from cloudlab.run.value import Moment, Run, compare, compare_options

if TYPE_CHECKING:
    import pandas as pd

    from cloudlab.disk import DiskLayout
    from cloudlab.explanation import Explanation
    from cloudlab.figures import Plot

sizes = compare
options = compare_options


def say(text: str) -> None:
    """Display one line, as a page where there is one."""
    from IPython.display import display

    page = Page(text, f'<p style="font-style: italic">{html.escape(text)}</p>')
    display(page)  # type: ignore[no-untyped-call]


def show(kind: str, *runs: Run, only_before: bool = False) -> Plot:
    """Return a figure of one or several runs; ``only_before`` hides what the boot changed."""
    tables = {}
    if only_before:
        [run] = runs
        tables["sizes"] = run.sizes[run.sizes["stage"].isin(["image", "before"])]
    return plot(kind, runs, tables=tables, size="slide")


def console(
    run: Run, pattern: str = "", *, first: int = 1, last: int | None = None, frames: bool = False
) -> Console:
    """Return lines of a run's console."""
    return run.console.find(pattern, first=first, last=last, report=frames)


def logs(run: Run, pattern: str = "") -> Console:
    """Return lines of the guest's own logs."""
    return run.logs.find(pattern)


def tables(run: Run, moment: Moment) -> Console:
    """Return what lsblk and df printed."""
    return run.tool_output(moment)


def modules(run: Run) -> pd.DataFrame:
    """Return which modules cloud-init ran."""
    return run.modules


def file(run: Run, name: str) -> Page:
    """Return a text file of a run's folder, such as ``user-data``."""
    return Page(run.text(name))


def layout(run: Run, when: Moment = "before") -> pd.DataFrame:
    """Return the partitions of a run's disk as the host read them, in order of position."""
    return partitions_frame(run.layout(when))


def partitions_frame(disk: DiskLayout) -> pd.DataFrame:
    """Return the table of :func:`layout`."""
    from cloudlab.run.tables import layout_frame

    return layout_frame(disk).rename_axis(columns="row")


def extents(run: Run) -> pd.DataFrame:
    """Return where the boot wrote."""
    return run.extents.drop(columns="run")


def stages(run: Run) -> pd.DataFrame:
    """Return the boot's stages."""
    return run.stages[["stage", "start_s", "end_s"]].rename_axis(columns="row")


def explain_run(run: Run) -> Explanation:
    """Return the explanation of a run."""
    return run.explain()
