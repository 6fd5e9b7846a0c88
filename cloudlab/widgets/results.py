"""Which recording is nearest to the options, and what a run came to, as HTML with its evidence."""

from __future__ import annotations

import functools
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cloudlab import paths
from cloudlab.course.cases import CASES
from cloudlab.course.prediction import LAYERS, Prediction, ends
from cloudlab.errors import CloudlabError, RecordingError
from cloudlab.figures.data import RunSizes, disk_map_data
from cloudlab.figures.words import span, verdict
from cloudlab.html import escaped, table_html
from cloudlab.image.recipe import Recipe
from cloudlab.run.display import plot
from cloudlab.run.value import Run
from cloudlab.seed.check import HEADER, Problem, is_cloud_config, read_document
from cloudlab.seed.modules import MODULE_KEYS
from cloudlab.units import format_bytes, format_two
from cloudlab.widgets.disk_map import disk_at, map_html
from cloudlab.widgets.panel import or_reason, origin_html

#: Characters of a console line that are quoted.
_QUOTED = 160
#: Files of a machine, of no use without it.
_MACHINE_FILES = shutil.ignore_patterns("overlay.qcow2", "seed.iso", "uefi-variables.fd")

#: The command that cloudlab itself adds to user-data, besides its lists of modules.
_OWN_COMMAND = "cloudlab-report.sh"


@dataclass(frozen=True)
class Match:
    """A recording, and every difference between it and the options, in words."""

    recording: Run
    differences: tuple[str, ...]


def nearest(
    recordings: Iterable[Run],
    *,
    user_data: str,
    image: str,
    disk_size_bytes: int,
    enlarge_to_bytes: int | None = None,
    profile: str = "lean",
) -> Match:
    """Return the recording with the fewest differences.

    Of equals, the one with the user-data, the image, the default image, the nearest size.

    Parameters
    ----------
    recordings : iterable of Run
    user_data, image, profile : str
        What was chosen; the image by its name.
    disk_size_bytes, enlarge_to_bytes : int

    Raises
    ------
    RecordingError
        If there is none at all.
    """
    mine, matches, told = choices(user_data), [], "{}: recorded with {}, you chose {}".format
    for recording in recordings:
        theirs, size_bytes = choices(recording.user_data), recording.options.disk_size_bytes
        options = [
            told(key, theirs.get(key, "not set"), mine.get(key, "not set"))
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]
        pairs = {
            # Which modules run besides changes no size, so any other option counts more.
            "profile": (recording.options.profile, profile),
            "image": (recording.image.name, image),
            "disk size": _two_sizes(size_bytes, disk_size_bytes),
            "enlarged while it ran": [
                "not" if one is None else f"to {format_bytes(one)}"
                for one in (recording.options.enlarge_to_bytes, enlarge_to_bytes)
            ],
        }
        others = [told(name, *pair) for name, pair in pairs.items() if pair[0] != pair[1]]
        ratio = abs(math.log2(max(size_bytes, 1) / max(disk_size_bytes, 1)))
        unlike = recording.image.name != image, recording.image.name != Recipe().name
        rank = (len(options) + len(others), len(options), *unlike, ratio)
        matches.append((rank, Match(recording, (*options, *others))))
    if not matches:
        raise RecordingError(
            "No recordings are here, so nothing can be played.",
            hint="Install cloudlab anew, or boot a real machine.",
        )
    return min(matches, key=lambda ranked: ranked[0])[1]


def playable(recordings: Iterable[Run]) -> list[Run]:
    """Return the recordings of boots that follow from image, disk size and user-data alone.

    That leaves out boots that did not read their seed, and second boots of one disk.
    """
    others = {name for name, case in CASES.items() if case.follows or not case.reads_seed}
    return [one for one in recordings if one.name not in others]


# A panel compares with every recording at each change.
@functools.lru_cache(maxsize=256)
def choices(user_data: str) -> Mapping[str, str]:
    """Return what a user-data text sets, key by key, without what cloudlab adds.

    A text that is no cloud-config counts as one choice, the whole of it.
    """
    document = read_document(user_data)
    if isinstance(document, Problem) or not is_cloud_config(user_data or HEADER):
        return {"user-data": user_data.strip()}
    found: dict[str, str] = {}
    for key, value in document.value.items():
        if key in MODULE_KEYS:
            continue
        if isinstance(value, Mapping):
            found |= {f"{key}.{part}": _shown(one) for part, one in value.items()}
            continue
        kept = value
        if isinstance(value, list):
            kept = [one for one in value if _OWN_COMMAND not in str(one)]
        if kept not in ([], ""):
            found[str(key)] = _shown(kept)
    return found


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n...\n").strip()


def _two_sizes(first: int, second: int) -> Sequence[str]:
    """Return two sizes in words, in bytes where rounded ones would hardly differ."""
    if math.isclose(first, second, rel_tol=0.01):
        return f"{first:,} bytes", f"{second:,} bytes"
    return format_two(first, second)


@dataclass(frozen=True)
class Finished:
    """A run that came to its end in a panel.

    Attributes
    ----------
    run : Run
    prediction : Prediction or None
    differences : tuple of str
        In what the recording that was played is not what was asked for.
    in_atlas : str
        What the atlas has of that, in a sentence; empty if it has nothing.
    """

    run: Run
    prediction: Prediction | None = None
    differences: tuple[str, ...] = ()
    in_atlas: str = ""

    @property
    def judged(self) -> bool:
        """Whether there is a prediction, and of just the boot that is shown."""
        return self.prediction is not None and not self.differences


def result_html(finished: Finished) -> str:
    """Return the result of one run in words and tables; evidence leads to its console line."""
    run, error = finished.run, finished.run.record.error
    head = "The console line behind each size"
    parts = [f"<h3>Result: {escaped(run.scenario)}</h3>{origin_html(run)}"]
    if finished.differences:
        parts.append("<p><b>The recording differs from your options.</b></p>")
        parts.append(f"{items_html(finished.differences)}<p>{escaped(finished.in_atlas)}</p>")
    if error:
        parts.append(f"<p><b>The boot did not finish.</b></p><pre>{escaped(error.text)}</pre>")
    parts += [
        predicted_html(finished),
        or_reason(lambda: linked(run.explain().to_html())),
        or_reason(lambda: f"<details><summary>{head}</summary>{proof_html(run)}</details>"),
    ]
    return "".join(parts)


def still_html(runs: Sequence[Finished]) -> str:
    """Return what stays in a notebook of these runs: the last one in full, with its disk."""
    last = runs[-1]
    # As HTML, because a figure would stay white in a dark theme.
    drawn = or_reason(lambda: map_html(disk_map_data(last.run.sizes)))
    # Without the panel there is no console that evidence could lead to.
    result = re.sub(r"<button[^>]*>(.*?)</button>", r"\1", result_html(last))
    return result + drawn + (_all_runs(runs) if len(runs) > 1 else "")


def history_html(runs: Sequence[Finished]) -> str:
    """Return several runs side by side, the last one first; empty for fewer than two."""
    if len(runs) < 2:  # noqa: PLR2004
        return ""
    cards = [
        f"<li><b>{escaped(one.run.scenario)}</b> <small>{escaped(_settings(one.run))}</small>"
        f"{or_reason(lambda one=one: _picture(one.run))}</li>"  # type: ignore[misc]
        for one in reversed(runs)
    ]
    return (
        f'<h3>All runs so far</h3><ul class="cloudlab-cards">{"".join(cards)}</ul>{_all_runs(runs)}'
    )


def _settings(run: Run) -> str:
    """Return what the run was made with, in one line."""
    set_here = [f"{key}: {value}" for key, value in choices(run.user_data).items()]
    text = ", ".join([f"{format_bytes(run.options.disk_size_bytes)} disk", *set_here])
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]} ..."


def _picture(run: Run) -> str:
    data, _ = disk_at(run.sizes, float("inf"), None)
    return "" if data is None else map_html(data, title=run.scenario, small=True)


def _all_runs(runs: Sequence[Finished]) -> str:
    rows = [
        (
            one.run.scenario,
            *(
                span(*sizes, "{} to {}") if sizes else "not measured"
                for sizes in ends(one.run).values()
            ),
            *(_judgement(one, layer) for layer in LAYERS),
        )
        for one in runs
    ]
    head = ("run", *LAYERS, *(f"your prediction: {layer}" for layer in LAYERS))
    return table_html(head, rows, caption="All runs so far")


def predicted_html(finished: Finished) -> str:
    """Return the table of root's sizes before and after, and of the prediction."""
    rows = [
        (
            layer,
            *((format_bytes(one) for one in sizes) if sizes else ("not measured", "")),
            (finished.prediction.words(layer) if finished.prediction else "") or "-",
            _judgement(finished, layer),
        )
        for layer, sizes in ends(finished.run).items()
    ]
    head = ("layer", "before", "after", "you predicted", "verdict")
    return table_html(head, rows, caption="Predicted and measured")


def _judgement(finished: Finished, layer: str) -> str:
    if finished.prediction is None:
        return "-"
    if not finished.judged:
        return "not judged: the recording has other options"
    return verdict(finished.prediction.verdicts(finished.run)[layer])


def proof_html(run: Run) -> str:
    """Return a row for each measurement of root's partition and filesystem, in time's order."""
    lines = run.console
    sizes = RunSizes(run.sizes)
    found = []
    for layer in LAYERS:
        before = None
        for row in (one for one in sizes.of(layer) if one.line is not None):
            # Of the samples in between, those that saw a change.
            changed = row.size_bytes != before
            before, number = row.size_bytes, int(row.line)
            if row.stage == "sample" and not changed:
                continue
            said = lines[number - 1].text[:_QUOTED] if number <= len(lines) else ""
            name = f"{layer} {row.device}, {row.stage}"
            time_s = "" if row.time_s is None else f"{row.time_s:.1f}"
            found.append((name, f"{row.size_bytes:,}", time_s, f"line {number}", said))
    head = ("size of", "bytes", "seconds", "console", "what it says")
    return linked(table_html(head, found, code=("what it says",)))


def linked(text: str) -> str:
    """Return HTML in which the names of console lines, such as ``line 587``, lead to them."""
    button = r'\1<button type="button" class="cloudlab-line" data-line="\2">line \2</button>'
    return re.sub(r"(<li>|<td[^>]*>)line (\d+)\b", button, text)


def items_html(texts: Sequence[object]) -> str:
    """Return texts as a list."""
    return f"<ul>{''.join(f'<li>{escaped(one)}</li>' for one in texts)}</ul>"


def export(finished: Finished, folder: Path) -> Path:
    """Write figures, their data and the run folder to a new folder below ``folder``; return it.

    Raises
    ------
    CloudlabError
        If it cannot be written.
    """
    run = finished.run
    target = paths.free_folder(folder / run.name)
    for kind in ("disk-map", "timeline"):
        figure = run.plot(kind, size="slide")
        for form in ("svg", "png"):
            figure.save(target / f"{kind}.{form}")
    if finished.judged and finished.prediction is not None:
        tables = {"predictions": finished.prediction.table(run)}
        plot("prediction", [run], tables=tables).save_data(target / "prediction.csv")
    try:
        shutil.copytree(run.folder, target / "run", ignore=_MACHINE_FILES)
    except (OSError, shutil.Error) as error:
        raise CloudlabError(
            f"The run {run.folder} could not be copied to {target}: {error}.",
            hint="Free some space there.",
        ) from error
    return target
