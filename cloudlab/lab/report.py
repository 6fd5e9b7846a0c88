"""What a demo or a run leaves for people: figures, one table, and a page that holds them all."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from cloudlab import figures, paths
from cloudlab.console import printable
from cloudlab.lab.display import plotted
from cloudlab.lab.explained import explain_run
from cloudlab.lab.table import tables_of
from cloudlab.markup import safe_text, table_html
from cloudlab.recording import Recording
from cloudlab.sizes import check_sizes, parse_console, write_sizes
from cloudlab.units import format_bytes

#: A figure's axes, its title, and its numbers in words.
_Plot = tuple[Any, str, str]

#: The article's own numbers: scenario -> partition by lsblk, filesystem by df.
ARTICLE = {
    "default": ("19.9G", "fills the partition"),
    "filesystem kept": ("19.9G", "2.0G"),
    "partition kept": ("2.1G", "2.0G"),
}
ARTICLE_TITLE = "Cloud under the hood: how do virtual images grow? (Elastisys Tech Blog)"


def draw_run(recording: Recording) -> Path:
    """Draw the disk map of a run into its folder as PNG and SVG; return the SVG's path."""
    return _save(_plotted("disk-map", [recording]), recording.folder / "disk-map.svg")


def run_html(recording: Recording) -> str:
    """Return a run for a notebook: its disk map, the explanation, and what was booted."""
    facts = recording._repr_html_()
    if recording.about.get("outcome") != "done":
        return facts
    return _figure(_plotted("disk-map", [recording])) + explain_run(recording).to_html() + facts


def write_demo(recordings: Sequence[Recording], folder: Path) -> Path:
    """Write ``sizes.csv``, the figures and ``report.html`` of several runs; return the page's path.

    Parameters
    ----------
    recordings : sequence of Recording
        In the order in which they are shown.
    folder : Path
        Holds the run folders already.
    """
    sizes = tables_of(recordings)["sizes"]
    write_sizes(sizes, folder / "sizes.csv")
    # Each is laid out once, for its files and for the page.
    maps = [_plotted("disk-map", [one]) for one in recordings]
    together = _plotted("scenarios", recordings)
    for recording, plot in zip(recordings, maps, strict=True):
        _save(plot, folder / f"disk-map-{recording.folder.name}.svg")
    _save(together, folder / "scenarios.svg")
    page = folder / "report.html"
    with paths.whole_file(page) as part:
        part.write_text(_page(recordings, sizes, maps, together), encoding="utf-8")
    return page


def _save(plot: _Plot, path: Path) -> Path:
    axes, title, alt = plot
    for form in (".png", ".svg"):
        figures.save_figure(axes, path.with_suffix(form), title=title, alt=alt)
    return path


def _plotted(kind_name: str, recordings: Sequence[Recording]) -> _Plot:
    names = ", ".join(str(one.about.get("scenario", one.name)) for one in recordings)
    return plotted(kind_name, tables_of(recordings), names)


def _page(
    recordings: Sequence[Recording], sizes: Any, maps: Sequence[_Plot], together: _Plot
) -> str:
    template = resources.files("cloudlab.lab").joinpath("report.html.in").read_text("utf-8")
    image = recordings[0].about["image"]
    accel = recordings[0].about["accelerator"]
    problems = [problem for one in recordings for problem in _problems(one)]
    parts = {
        "facts": table_html(
            ("", ""),
            [
                ("image", f"{image['name']}, {_sizes_of(image)}"),
                ("SHA-256", image["sha256"] or "not hashed"),
                ("from", f"{image['source']}, {image['date']}, {image['trust']}"),
                ("accelerator", f"{accel['name']}: {accel['reason']}"),
                ("QEMU", recordings[0].about["versions"]["qemu"]),
                ("booted", recordings[0].about["started"]),
                *((f"{one.name} took", one.took) for one in recordings),
            ],
        ),
        "scenarios": _figure(together),
        "table": _sizes_table(recordings, sizes),
        "article": html.escape(ARTICLE_TITLE),
        "checks": "".join(f"<li>{html.escape(printable(one))}</li>" for one in problems)
        or "<li>Every exact number agrees with its rounded one; no filesystem is larger than its "
        "partition, no partition larger than its disk, and nothing shrank.</li>",
        "runs": "".join(
            _run_section(one, sizes, plot) for one, plot in zip(recordings, maps, strict=True)
        ),
    }  # fmt: skip
    for name, text in parts.items():
        template = template.replace(f"<!-- {name} -->", text)
    return template


def _problems(recording: Recording) -> list[str]:
    with recording.console_log.open("rb") as stream:
        return [
            f"{recording.name}: {one}"
            for one in check_sizes(parse_console(stream, recording.nonce))
        ]


def _sizes_of(image: dict[str, Any]) -> str:
    as_file = format_bytes(image["file_size_bytes"])
    return f"{as_file} as a file, {format_bytes(image['virtual_size_bytes'])} as a disk"


def _figure(plot: _Plot) -> str:
    axes, title, alt = plot
    return figures.to_html(axes, title=title, alt=alt)


def _run_section(recording: Recording, sizes: Any, plot: _Plot) -> str:
    mine = sizes[sizes["run"] == recording.name]
    lines = sorted({int(line) for line in _root_rows(mine)["line"].dropna()})
    text = "\n".join(f"{number:>6}  {line}" for number, line in _console_lines(recording, lines))
    explanation = explain_run(recording).to_html()
    user_data = (recording.folder / "user-data").read_text(encoding="utf-8", errors="replace")
    scenario = html.escape(str(recording.about["scenario"]))
    return (
        f"<section><h2>{scenario}</h2>{_figure(plot)}"
        f"{_warnings(recording)}<h3>Who did it, and how that shows</h3>{explanation}"
        f"<h3>What cloud-init was given</h3><pre>{safe_text(user_data)}</pre>"
        f"<h3>The console lines that prove it</h3><pre>{html.escape(text)}</pre></section>"
    )


def _warnings(recording: Recording) -> str:
    found = recording.about.get("warnings", ())
    items = "".join(f"<li>{safe_text(str(one))}</li>" for one in found)
    return f"<h3>What did not go well</h3><ul>{items}</ul>" if items else ""


def _root_rows(sizes: Any) -> Any:
    """Return the rows about the root partition and filesystem, rounded and exact."""
    root = sizes[(sizes["layer"] == "filesystem") & (sizes["mountpoint"] == "/")]
    devices = set(root["device"].dropna())
    wanted = (sizes["layer"] == "partition") & sizes["device"].isin(devices)
    return sizes[(wanted | sizes.index.isin(root.index)) & sizes["stage"].isin(["before", "after"])]


def _console_lines(recording: Recording, numbers: Iterable[int]) -> list[tuple[int, str]]:
    wanted = set(numbers)
    found = []
    with recording.console_log.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            if number in wanted:
                found.append((number, printable(raw)[:200]))
    return found


def _sizes_table(recordings: Sequence[Recording], sizes: Any) -> str:
    rows = []
    for recording in recordings:
        root = _root_rows(sizes[sizes["run"] == recording.name])
        scenario = str(recording.about["scenario"])
        for layer, article in zip(
            ("partition", "filesystem"), ARTICLE.get(scenario, ("-", "-")), strict=True
        ):
            cells = [scenario, layer]
            for stage in ("before", "after"):
                here = root[(root["layer"] == layer) & (root["stage"] == stage)]
                cells += [_one_size(here[~here["exact"]]), _one_size(here[here["exact"]])]
            rows.append((*cells, article))
    head = ("scenario", "layer", "before", "exactly", "after", "exactly", "in the article")
    return table_html(head, rows)


def _one_size(rows: Any) -> str:
    if rows.empty:
        return "-"
    size_bytes = int(rows["size_bytes"].iloc[0])
    exact = bool(rows["exact"].iloc[0])
    return f"{size_bytes:,} bytes".replace(",", "\u202f") if exact else format_bytes(size_bytes)
