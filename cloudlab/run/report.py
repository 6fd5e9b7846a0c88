"""Runs as HTML: the rich display of one, and the report page of one or several."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from cloudlab import paths
from cloudlab.errors import CloudlabError
from cloudlab.html import escaped, table_html
from cloudlab.run.plots import plot
from cloudlab.run.record import Outcome
from cloudlab.run.tables import write_csv
from cloudlab.sizes import check_sizes
from cloudlab.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd

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


def save_report(runs: Sequence[Run], path: Path) -> Path:
    """Write the report page of runs, in their order; return its path.

    Raises
    ------
    CloudlabError
        If a run lacks what the page shows, or the page cannot be written.
    """
    return _save_page(path, runs, [_map(run) for run in runs], _together(runs))


def save_demo(runs: Sequence[Run], folder: Path) -> Path:
    """Write ``sizes.csv``, the figures and ``report.html`` of runs; return the page's path.

    Parameters
    ----------
    runs : sequence of Run
        In the order in which they are shown.
    folder : Path
        Holds the run folders already.
    """
    import pandas as pd

    write_csv(pd.concat([run.sizes for run in runs], ignore_index=True), folder / "sizes.csv")
    # Each figure is laid out once, for its files and for the page.
    maps, together = [_map(run) for run in runs], _together(runs)
    named = {f"disk-map-{run.folder.name}": figure for run, figure in zip(runs, maps, strict=True)}
    for name, figure in {**named, "scenarios": together}.items():
        for form in ("png", "svg"):
            figure.save(folder / f"{name}.{form}")
    return _save_page(folder / "report.html", runs, maps, together)


def _map(run: Run) -> Plot:
    return run.plot("disk-map", size="slide")


def _together(runs: Sequence[Run]) -> Plot:
    return plot("scenarios", runs, size="slide")


def _save_page(path: Path, runs: Sequence[Run], maps: Sequence[Plot], together: Plot) -> Path:
    page = resources.files("cloudlab.run").joinpath("report.html.in").read_text("utf-8")
    problems = [f"{run.name}: {problem}" for run in runs for problem in check_sizes(run.parsed)]
    sections = [_run_section(run, figure) for run, figure in zip(runs, maps, strict=True)]
    for name, text in {
        "facts": table_html(("", ""), _facts(runs)),
        "scenarios": together.to_html(),
        "table": _sizes_table(runs),
        "article": escaped(ARTICLE_TITLE),
        "checks": _items(problems or [_CONSISTENT]),
        "runs": "".join(sections),
    }.items():
        page = page.replace(f"<!-- {name} -->", text)
    try:
        with paths.whole_file(path) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CloudlabError(
            f"The report {path} could not be written: {error.strerror}.",
            hint="Free some space there, or choose another folder with --output.",
        ) from error
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
        return f"{size_bytes:,} bytes".replace(",", "\u202f")
    return format_bytes(size_bytes)
