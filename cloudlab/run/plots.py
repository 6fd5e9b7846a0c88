"""Figures of runs: which of a run's tables a kind of figure needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloudlab import figures
from cloudlab.errors import UsageError
from cloudlab.run.tables import options_frame, partitions_frame

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from cloudlab.figures import Plot
    from cloudlab.run.value import Run

_TABLES: dict[str, Callable[[Run], pd.DataFrame]] = {
    "sizes": lambda run: run.sizes,
    "stages": lambda run: run.stages,
    "extents": lambda run: run.extents,
    "options": lambda run: options_frame(run.record),
    "partitions": lambda run: partitions_frame(run.name, run.record.disk_after),
}


def plot(
    kind: str,
    runs: Sequence[Run],
    ax: Axes | None = None,
    *,
    tables: Mapping[str, pd.DataFrame] | None = None,
    **options: Any,
) -> Plot:
    """Return a figure of one or several runs.

    Parameters
    ----------
    kind : str
        A name of :data:`cloudlab.figures.KINDS`.
    runs : sequence of Run
    ax : Axes, optional
        Where to draw; by default a new figure.
    tables : mapping, optional
        Tables to use besides, or in place of, the runs' own: ``predictions``, for one.
    **options
        Those of :func:`cloudlab.figures.plot`, such as ``size`` and ``style``.

    Raises
    ------
    UsageError
        If there is no such kind, or it shows one run only.
    CloudlabError
        If a run lacks what the figure shows.

    Examples
    --------
    >>> runs = [cloudlab.recorded("default"), cloudlab.recorded("growpart-off")]
    >>> cloudlab.plot("scenarios", runs, style="dark").save("scenarios.svg")
    PosixPath('scenarios.svg')
    """
    import pandas as pd

    if kind not in figures.KINDS:
        raise UsageError(
            f"There is no figure of the kind {kind!r}.", hint=f"Kinds: {', '.join(figures.KINDS)}."
        )
    if figures.KINDS[kind].one_run and len(runs) != 1:
        raise UsageError(
            f"The figure {kind} shows one run; {len(runs)} were given.",
            hint="Draw one figure for each run, or all in one with the kind scenarios.",
        )
    frames = {
        name: pd.concat([_TABLES[name](run) for run in runs], ignore_index=True)
        for name in figures.KINDS[kind].tables
        if name in _TABLES
    }
    frames |= tables or {}
    options.setdefault("names", {run.name: run.scenario for run in runs})
    options.setdefault("settings", {run.name: _settings(run) for run in runs})
    return figures.plot(kind, frames, ax, **options)


def _settings(run: Run) -> str:
    """Return the growth options that were set, as YAML."""
    growpart, resize = run.options.growpart, run.options.resize_rootfs
    lines = [f"growpart: {{mode: '{growpart}'}}"] if growpart else []
    return "\n".join([*lines, *([f"resize_rootfs: {resize}"] if resize else [])])
