"""The player: a page that plays the shipped recordings in a browser, without a kernel.

``python scripts/player.py FOLDER`` writes the page of ``docs/player`` and its data to FOLDER, which
any static web server can serve.  Every number and every drawing on the page is made here, from
what ``cl.recorded`` returns.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cloudlab.course.cases import CASES
from cloudlab.course.prediction import FILLS, LAYERS, STAYS, Prediction, ends
from cloudlab.figures import plot
from cloudlab.figures.canvas import STYLES, Look
from cloudlab.figures.data import LEAST_GAIN_BYTES, RunSizes
from cloudlab.figures.words import STATES, verdict
from cloudlab.run.tables import layout_sizes
from cloudlab.run.value import Run, recorded, recording_names
from cloudlab.seed import GrowpartMode, ResizeRootfs, SeedConfig, to_user_data
from cloudlab.units import alike, format_bytes, format_seconds, is_known
from cloudlab.widgets.results import choices, nearest, playable

PAGE = Path(__file__).parents[1] / "docs" / "player"
#: The options that the page offers; the first of each is cloud-init's default, which is not set.
GROWPART = (GrowpartMode.AUTO, GrowpartMode.OFF)
RESIZE_ROOTFS = (ResizeRootfs.TRUE, ResizeRootfs.FALSE, ResizeRootfs.NOBLOCK)
#: Sizes of a figure: for a wide page and for a phone.
WIDTHS = {"wide": "screen", "narrow": "page"}
#: The figures' style whose colours are variables of the page's style sheet.
VARIABLES = "variables"


def main(folder: Path) -> None:
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for former in data.glob("*.json.gz"):
        former.unlink()
    colours = add_style()
    (folder / "colours.css").write_text(colours_css(colours))
    names = [name for name in CASES if name in recording_names()]
    for name in names:
        text = json.dumps(recording(recorded(name), colours), separators=(",", ":"))
        (data / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    index = {
        "cases": [{"name": name, "title": CASES[name].title} for name in names],
        "combinations": combinations(names),
    }
    (data / "index.json").write_text(json.dumps(index))


def add_style() -> dict[str, tuple[str, str, str]]:
    """Add a style of placeholder colours; return each with its name, light and dark colour."""
    light, dark, found = STYLES["light"], STYLES["dark"], {}

    def variable(name: str, *colours: str) -> str:
        placeholder = f"#fe{len(found):04x}"
        found[placeholder] = (name, *colours)
        return placeholder

    own = {
        name: variable(name, getattr(light, name), getattr(dark, name))
        for name in ("paper", "ink", "faint", "grid", "pale")
    }
    looks = {}
    for kind, look in light.looks.items():
        other = dark.looks[kind]
        looks[kind] = Look(
            variable(kind, look.fill, other.fill),
            variable(f"{kind}-text", look.text, other.text),
            variable(f"{kind}-line", look.line, other.line),
        )
    STYLES[VARIABLES] = replace(light, **own, looks=looks)  # type: ignore[index]
    return found


def colours_css(colours: dict[str, tuple[str, str, str]]) -> str:
    light, dark = (
        "".join(f"--{one[0]}:{one[number]};" for one in colours.values()) for number in (1, 2)
    )
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    )


def combinations(names: list[str]) -> dict[str, dict[str, Any]]:
    """Return "growpart/resize_rootfs" -> the recording, or the nearest one and how it differs."""
    plain, found = recorded("default"), {}
    runs = playable([recorded(name) for name in names])
    for growpart in GROWPART:
        for resize_rootfs in RESIZE_ROOTFS:
            seed = SeedConfig(
                growpart=None if growpart is GROWPART[0] else growpart,
                resize_rootfs=None if resize_rootfs is RESIZE_ROOTFS[0] else resize_rootfs,
            )
            match = nearest(
                runs,
                user_data=to_user_data(seed),
                image=plain.image.name,
                disk_size_bytes=plain.options.disk_size_bytes,
            )
            found[f"{growpart}/{resize_rootfs}"] = {
                "name": match.recording.name,
                "differences": match.differences,
            }
    return found


def recording(run: Run, colours: dict[str, tuple[str, str, str]]) -> dict[str, Any]:
    """Return what the page shows of a recording."""
    case, record, explanation = CASES[run.name], run.record, run.explain()
    stated = (*explanation.statements, *explanation.notes)
    return {
        "title": case.title,
        "teaches": case.teaches,
        "label": run.label,
        "disk": format_bytes(run.options.disk_size_bytes),
        "settings": "\n".join(f"{key}: {value}" for key, value in choices(run.user_data).items()),
        "error": record.error.text if record.error else "",
        "end_s": record.time_s or run.console[-1].time_s,
        "stages": [[str(one.stage), one.start_s] for one in record.stages],
        "layers": {layer: measured(run, layer) for layer in LAYERS},
        "moments": list(moments(run, colours)),
        "explanation": linked(explanation.to_html()),
        "cited": sorted({one.line for part in stated for one in part.evidence if one.line}),
        "times": [round(line.time_s, 2) for line in run.console],
        "lines": [line.text for line in run.console],
    }


def measured(run: Run, layer: str) -> dict[str, Any]:
    """Return the sizes of a layer, and which predictions of it are right."""
    found = ends(run)[layer]
    verdicts = {
        meaning: verdict(Prediction(meaning, meaning).verdicts(run)[layer])
        for meaning in (STAYS, FILLS)
    }
    if found is None:
        return {"verdicts": verdicts}
    # alike() accepts one range of sizes, with the measured size in it.
    lowest, highest = edge(found[1], 0), edge(found[1], 2 * found[1])
    return {
        "verdicts": verdicts,
        "bytes": found,
        "texts": [format_bytes(size_bytes) for size_bytes in found],
        "right_bytes": [lowest, highest],
    }


def edge(right: int, wrong: int) -> int:
    """Return the prediction nearest to ``wrong`` that counts as right."""
    measured_bytes = right
    while abs(right - wrong) > 1:
        middle = (right + wrong) // 2
        right, wrong = (middle, wrong) if alike(middle, measured_bytes) else (right, middle)
    return right


def moments(run: Run, colours: dict[str, tuple[str, str, str]]) -> Iterator[dict[str, Any]]:
    """Yield the disk before the boot and at each change that was measured, drawn and in words."""
    before = run.record.disk_before
    states = []
    if before is not None and before.partitions:
        states.append((0.0, layout_sizes(before)))
    exact = run.sizes[run.sizes["exact"] & (run.sizes["stage"] != "image")]
    exact = exact[~exact["layer"].str.endswith("_file")].dropna(subset=["time_s"])
    former = None
    for time_s in report_times(run, exact):
        rows = exact[exact["time_s"] <= time_s].sort_values("time_s", kind="stable")
        rows = rows.drop_duplicates(["layer", "device", "mountpoint"], keep="last")
        shown = set(zip(rows["layer"], rows["device"], rows["size_bytes"], strict=True))
        if shown != former:
            states.append((time_s, rows.assign(stage="after")))
        former = shown
    known: dict[str, int] = {}
    for time_s, sizes in states:
        now = {layer: found[1] for layer in LAYERS if (found := RunSizes(sizes).ends(layer))}
        grown = [
            layer for layer in now if now[layer] - known.get(layer, now[layer]) >= LEAST_GAIN_BYTES
        ]
        known |= now
        head = f"Measured at {format_seconds(time_s)}" if time_s else STATES["launch"]
        name = f"{' and '.join(grown).capitalize()} grown" if grown else ""
        drawings = {
            width: drawing(sizes, name or head, size, colours) for width, size in WIDTHS.items()
        }
        found = ", ".join(f"{layer} {format_bytes(size)}" for layer, size in now.items())
        said = f"{f'{name}. ' * bool(name)}{head}: {found or 'root was not measured'}."
        yield {"time_s": time_s, "said": said, **drawings}


def report_times(run: Run, exact: pd.DataFrame) -> list[float]:
    """Return when each report of the guest was complete, and when the host read the disk."""
    found = set(exact.loc[exact["line"].isna() & (exact["time_s"] > 0), "time_s"])
    for block in run.parsed.blocks:
        lines = [one.line for one in (*block.devices, *block.filesystems)]
        found |= {exact.loc[exact["line"].isin(lines), "time_s"].max()}
    return sorted(float(time_s) for time_s in found if is_known(time_s))


def drawing(
    sizes: pd.DataFrame, heading: str, size: str, colours: dict[str, tuple[str, str, str]]
) -> str:
    """Return the figure disk-map of one state as SVG, its colours variables of the page."""
    drawn = plot(
        "disk-map", {"sizes": sizes}, size=size, style=VARIABLES, state=heading, title=False
    )
    svg = replace(drawn, title=heading).to_bytes("svg").decode()
    svg = svg[svg.index("<svg") :]
    # Its own style sheet would hold for the whole page, whose style sheet has the same rule.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|\n *", "", svg, flags=re.DOTALL)
    return re.sub(r"#fe[0-9a-f]{4}", lambda found: f"var(--{colours[found[0]][0]})", svg)


def linked(text: str) -> str:
    """Return an explanation whose evidence links to the lines of the console."""
    return re.sub(r"<li>line (\d+)(?=, (?!user-data))", r'<li><a href="#line-\1">line \1</a>', text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
