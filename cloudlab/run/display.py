"""Runs and other values as people see them: figures, HTML in notebooks, the report page.

``%load_ext cloudlab`` lets a notebook show a value below the room of figures, such as an image or
an overlay, with the figure that fits; the course's own calls do the same.  A
:class:`~cloudlab.run.value.Run` displays its figure by itself.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab import figures, paths
from cloudlab.console import printable
from cloudlab.disk import DiskLayout, Overlay, by_region, inspect_disk, overlay_map
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.html import escaped, table_html
from cloudlab.image.cache import Image
from cloudlab.run.record import Outcome, Record, writing
from cloudlab.run.tables import (
    extents_frame,
    layout_sizes,
    options_frame,
    partitions_frame,
    write_csv,
)
from cloudlab.sizes import check_sizes, sizes_frame
from cloudlab.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from cloudlab.explanation import Explanation
    from cloudlab.figures import Plot
    from cloudlab.run.value import Run

#: The article's own numbers: scenario -> partition by lsblk, filesystem by df.
ARTICLE = {
    "default": ("19.9G", "fills the partition"),
    "filesystem kept": ("19.9G", "2.0G"),
    "partition kept": ("2.1G", "2.0G"),
}
ARTICLE_TITLE = "Cloud under the hood: how do virtual images grow? (Elastisys Tech Blog)"

#: Characters of a console line that a report quotes.
_QUOTED = 200

_CONSISTENT = (
    "Every exact number agrees with its rounded one; no filesystem is larger than its partition, "
    "no partition larger than its disk, and nothing shrank."
)


_TABLES: dict[str, Callable[[Run], pd.DataFrame]] = {
    "sizes": lambda run: run.sizes,
    "stages": lambda run: run.stages,
    "extents": lambda run: run.extents,
    "options": lambda run: options_frame(run.record),
    "partitions": lambda run: partitions_frame(run.name, run.record.disk_after),
}


def distinct(names: Iterable[str]) -> list[str]:
    """Return names of which each occurs once: the second of a name gets a number behind it."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        forms = itertools.chain([name], numbered)
        found.append(next(one for one in forms if one not in found))
    return found


def titles(runs: Sequence[Run]) -> list[str]:
    """Return what tables and figures call each of several runs: its scenario, or also its folder."""
    count = Counter(run.scenario for run in runs)
    return distinct(
        f"{run.scenario} ({run.folder.name})"
        if count[run.scenario] > 1 and run.folder.name != run.scenario
        else run.scenario
        for run in runs
    )


def plot(
    kind: str,
    runs: Run | Iterable[Run],
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
    runs : Run or iterable of Run
    ax : Axes, optional
        Where to draw; by default a new figure.
    tables : mapping, optional
        Tables to use besides, or in place of, the runs' own: ``predictions``, for one.
    **options
        Those of :func:`cloudlab.figures.plot`, such as ``size`` and ``style``.

    Raises
    ------
    UsageError
        If there is no such kind, or it shows one run only, or no run was given.
    CloudlabError
        If a run lacks what the figure shows.

    Examples
    --------
    >>> runs = [cloudlab.recorded("default"), cloudlab.recorded("growpart-off")]
    >>> cloudlab.plot("scenarios", runs, style="dark").save("scenarios.svg")
    PosixPath('scenarios.svg')
    """
    import pandas as pd

    wanted = figures.find_kind(kind)
    found = [*runs] if isinstance(runs, Iterable) and not isinstance(runs, str) else [runs]
    for run in found:
        if not isinstance(getattr(run, "record", None), Record):
            named = isinstance(run, str | Path)
            hint = (
                f"Open it first: cloudlab.open_run({str(run)!r:.80})." if named else "Give a Run."
            )
            raise UsageError(f"{run!r:.80} is no run.", hint=hint)
    if not found:
        raise UsageError("No run was given to draw.", hint="Give a run, or several as a list.")
    if wanted.one_run and len(found) > 1:
        raise UsageError(
            f"The figure {kind} shows one run; {len(found)} were given.",
            hint="Draw one figure for each run, or all in one with the kind scenarios.",
        )
    names = distinct(run.name for run in found)
    frames = {}
    for table in filter(_TABLES.__contains__, wanted.tables):
        parts = [_TABLES[table](run) for run in found]
        # Two runs of one name may lie in different folders.
        for number, (run, name) in enumerate(zip(found, names, strict=True)):
            if name != run.name:
                parts[number] = parts[number].assign(run=name)
        frames[table] = pd.concat(parts, ignore_index=True)
    frames |= tables or {}
    options.setdefault("names", dict(zip(names, titles(found), strict=True)))
    options.setdefault("settings", dict(zip(names, map(_settings, found), strict=True)))
    return figures.plot(kind, frames, ax, **options)


def _settings(run: Run) -> str:
    """Return the growth options that were set, as YAML."""
    growpart, resize = run.options.growpart, run.options.resize_rootfs
    lines = [f"growpart: {{mode: '{growpart}'}}"] if growpart else []
    return "\n".join([*lines, *([f"resize_rootfs: {resize}"] if resize else [])])


def run_html(run: Run) -> str:
    """Return a run for a notebook: its disk map, the explanation, and what was booted."""
    parts = []
    if run.outcome is Outcome.DONE:
        parts = [run.plot("disk-map", size="slide").to_html(), run.explain().to_html()]
    rows = [
        ("outcome", run.outcome),
        ("scenario", run.scenario),
        ("image", run.image.name),
        ("accelerator", run.record.accelerator.name or "unknown"),
        ("took", run.took),
        ("this run was", run.label),
        ("folder", run.folder),
    ]
    return "".join([*parts, table_html(("run", run.name), rows)])


def save_demo(runs: Sequence[Run], folder: Path) -> Path:
    """Write ``sizes.csv``, the figures and ``report.html`` of runs; return the page's path.

    ``folder`` holds the run folders already.
    """
    import pandas as pd

    write_csv(pd.concat([run.sizes for run in runs], ignore_index=True), folder / "sizes.csv")
    # Each figure is laid out once, for its files and for the page.
    shown = _page_figures(runs)
    names = [*(f"disk-map-{run.folder.name}" for run in runs), "scenarios"]
    for name, figure in zip(names, shown, strict=True):
        for form in ("png", "svg"):
            figure.save(folder / f"{name}.{form}")
    return save_report(runs, folder / "report.html", shown)


def _page_figures(runs: Sequence[Run]) -> list[Plot]:
    """Return the disk map of each run, and all runs in one figure."""
    maps = [run.plot("disk-map", size="slide") for run in runs]
    return [*maps, plot("scenarios", runs, size="slide")]


def save_report(runs: Sequence[Run], path: Path, shown: Sequence[Plot] = ()) -> Path:
    """Write the report page of runs, in their order; return its path.

    ``shown`` are the page's figures, if they were drawn already.

    Raises
    ------
    CloudlabError
        If a run lacks what the page shows, or the page cannot be written.
    """
    *maps, together = shown or _page_figures(runs)
    page = resources.files("cloudlab.run").joinpath("report.html.in").read_text("utf-8")
    problems = [f"{run.name}: {problem}" for run in runs for problem in check_sizes(run.parsed)]
    for name, text in {
        "facts": table_html(("", ""), _facts(runs)),
        "scenarios": together.to_html(),
        "table": _sizes_table(runs),
        "article": escaped(ARTICLE_TITLE),
        "checks": _items(problems or [_CONSISTENT]),
        "runs": "".join(map(_run_section, runs, maps)),
    }.items():
        page = page.replace(f"<!-- {name} -->", text)
    with writing(f"The report {path} could not be written"):
        paths.write_whole(path, page)
    return path


def _facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    first = runs[0]
    image, accel = first.image, first.record.accelerator
    as_file, as_disk = format_bytes(image.file_size_bytes), format_bytes(image.virtual_size_bytes)
    return [
        ("image", f"{image.name}, {as_file} as a file, {as_disk} as a disk"),
        ("SHA-256", image.sha256 or "not hashed"),
        ("source", f"{image.source}, {image.date}, {image.trust}"),
        ("accelerator", f"{accel.name or 'unknown'}: {accel.reason}"),
        ("QEMU", first.record.versions.qemu),
        ("booted", first.record.started),
        *((f"{run.name} took", run.took) for run in runs),
    ]


def _run_section(run: Run, figure: Plot) -> str:
    warnings = run.record.warnings
    numbers = sorted({int(line) for line in _root_rows(run)["line"].dropna()})
    lines = [line for line in run.console if line.number in set(numbers)]
    quoted = "\n".join(f"{line.number:>6}  {line.text[:_QUOTED]}" for line in lines)
    return (
        f"<section><h2>{escaped(run.scenario)}</h2>{figure.to_html()}"
        + (f"<h3>Warnings</h3><ul>{_items(warnings)}</ul>" if warnings else "")
        + f"<h3>What grew it, and the evidence</h3>{run.explain().to_html()}"
        f"<h3>What cloud-init was given</h3><pre>{escaped(run.user_data)}</pre>"
        f"<h3>The console lines behind the numbers</h3><pre>{escaped(quoted)}</pre></section>"
    )


def _items(texts: Sequence[str]) -> str:
    return "".join(f"<li>{escaped(text)}</li>" for text in texts)


def _root_rows(run: Run) -> pd.DataFrame:
    """Return the rows about the root partition and filesystem, rounded and exact."""
    sizes = run.sizes
    root = sizes[(sizes["layer"] == "filesystem") & (sizes["mountpoint"] == "/")]
    partitions = (sizes["layer"] == "partition") & sizes["device"].isin(root["device"].dropna())
    return sizes[
        (partitions | sizes.index.isin(root.index)) & sizes["stage"].isin(["before", "after"])
    ]


def _sizes_table(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        root = _root_rows(run)
        quoted = ARTICLE.get(run.scenario, ("-", "-"))
        for layer, article in zip(("partition", "filesystem"), quoted, strict=True):
            cells = []
            for stage in ("before", "after"):
                here = root[(root["layer"] == layer) & (root["stage"] == stage)]
                cells += [_one_size(here[~here["exact"]]), _one_size(here[here["exact"]])]
            rows.append((run.scenario, layer, *cells, article))
    head = ("scenario", "layer", "before", "exactly", "after", "exactly", "in the article")
    return table_html(head, rows)


def _one_size(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "-"
    size_bytes = int(rows["size_bytes"].iloc[0])
    if bool(rows["exact"].iloc[0]):
        return f"{size_bytes:,} bytes"
    return format_bytes(size_bytes)


def load_ipython_extension(shell: Any) -> None:
    """Register the displays; what ``%load_ext`` calls."""
    from cloudlab.explanation import Explanation

    shown: dict[type, Callable[[Any], str]] = {
        Image: _image_figure,
        Overlay: _overlay_figure,
        DiskLayout: _layout_figure,
        Explanation: _explanation_figure,
    }
    formatter = shell.display_formatter.formatters["text/html"]
    for kind, figure in shown.items():
        formatter.for_type(kind, lambda value, figure=figure: figure(value) + value._repr_html_())


def register() -> None:
    """Register the displays in the notebook that runs this code, if any."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        load_ipython_extension(shell)


def _layout_figure(layout: DiskLayout) -> str:
    if not layout.partitions:
        return ""
    # No boot lies before or after it.
    state = printable(layout.path.name)
    return _figure("disk-map", {"sizes": layout_sizes(layout)}, state=state)


def _image_figure(image: Image) -> str:
    try:
        return _layout_figure(inspect_disk(image.path, image.format))
    except CloudlabError:
        return ""


def _overlay_figure(overlay: Overlay) -> str:
    try:
        layout = inspect_disk(overlay.path, "qcow2")
        extents = by_region(overlay_map(overlay.path), layout)
    except CloudlabError:
        return ""
    name = printable(overlay.path.name)
    tables = {
        "extents": extents_frame(name, extents),
        "partitions": partitions_frame(name, layout),
    }
    return _figure("overlay-map", tables)


def _explanation_figure(explanation: Explanation) -> str:
    """Draw what an explanation says of sizes, before and after."""
    rows = [
        {
            "run": printable(explanation.name),
            "scenario": "",
            "stage": stage,
            "layer": str(one.subject),
            "device": one.device or None,
            "mountpoint": "/",
            "size_bytes": size_bytes,
            "exact": True,
        }
        for one in explanation.statements
        for stage, size_bytes in (("before", one.from_bytes), ("after", one.to_bytes))
        if size_bytes is not None
    ]
    return _figure("layers", {"sizes": sizes_frame(rows)}) if rows else ""


def _figure(kind: str, tables: Mapping[str, pd.DataFrame], **options: Any) -> str:
    try:
        return figures.plot(kind, tables, **options).to_html()
    except CloudlabError:
        return ""  # the table beside it says what there is
