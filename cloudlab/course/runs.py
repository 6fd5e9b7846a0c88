"""A case of the course, booted here or played back, with a line that says which."""

from __future__ import annotations

import html
import json
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cloudlab.console import printable
from cloudlab.course.cases import CASES, case_options
from cloudlab.course.fetching import FetchView
from cloudlab.course.mode import mode, ready_line
from cloudlab.course.prediction import Prediction
from cloudlab.course.settings import growth_of, values_of
from cloudlab.errors import SeedError, UsageError
from cloudlab.html import Page, table_html
from cloudlab.image.cache import Image
from cloudlab.image.fetch import choose_image
from cloudlab.image.recipe import Recipe
from cloudlab.run.boot import boot_many, dated_folder
from cloudlab.run.display import register
from cloudlab.run.monitor import RunEvent
from cloudlab.run.options import Options
from cloudlab.run.value import Run, recorded
from cloudlab.seed import Severity, check_user_data
from cloudlab.tools import run as run_tool

_DOCTOR_TIMEOUT_S = 120.0
_SHOWN_EVERY_S = 0.5


def _say(text: str) -> None:
    """Display one line below the cell."""
    from IPython.display import display

    page = Page(text, f'<p style="font-style: italic">{html.escape(text)}</p>')
    display(page)  # type: ignore[no-untyped-call]


def boot(case: str, prediction: Prediction | None = None) -> Run:
    """Boot a case on this host, or play its recording back; as :func:`boot_all`."""
    [run] = boot_all([case] if prediction is None else {case: prediction})
    return run


def boot_all(cases: Iterable[str] | Mapping[str, Prediction]) -> list[Run]:
    """Boot cases on this host where that works, else play their recordings back; say which.

    Cases that need an image of their own, or another case's disk, are always played back:
    ``make gallery`` boots those.

    Parameters
    ----------
    cases : iterable of str, or mapping of str to Prediction
        With predictions only those cases are booted whose prediction is there.

    Raises
    ------
    UsageError
        For a case that nobody recorded.
    CloudlabError
        What kept a boot from its end.
    """
    register()
    cases = dict(cases) if isinstance(cases, Mapping) else dict.fromkeys(cases)
    live = [case for case in cases if _bootable(case)] if mode().live else []
    for case in [case for case in live if cases[case] == Prediction()]:
        live.remove(case)
        _say(f"{case} needs your prediction before it is booted. This is its recording.")
    booted = dict(zip(live, _boot(live), strict=True)) if live else {}
    for case in cases:
        if case not in booted:
            booted[case] = recorded(case)
            _say(f"{case}: {booted[case].label}")
    return [booted[case] for case in cases]


def _bootable(case: str) -> bool:
    found = CASES.get(case)
    return found is not None and found.recipe == Recipe() and found.follows is None


def boot_text(user_data: str) -> Run:
    """Boot a user-data text on this host, or play the recording with equivalent options.

    Raises
    ------
    SeedError
        If cloud-init would refuse or ignore the text.
    UsageError
        If recordings are played and none is equivalent.
    CloudlabError
        If the boot failed.
    """
    problems = [one for one in check_user_data(user_data) if one.severity is Severity.ERROR]
    if problems:
        raise SeedError(f"cloud-init would not take this text: {problems[0]}.")
    values, storage = values_of(user_data), values_of(str(CASES["node-storage"].user_data))
    growth = growth_of(user_data)
    case = _BY_GROWTH[growth.partition, growth.filesystem]
    if values == storage:
        case = "node-storage"
    if mode().live:
        options = replace(case_options(case, _choose_image()), user_data=user_data)
        [run] = _run({case: options})
        return run
    if case != "node-storage" and storage.keys() & values.keys():
        raise UsageError(
            "No recording uses this user-data, because it sets up disks.",
            hint="Boot it live: see notebook 00 for what your machine needs.",
        )
    _say("No recording uses this user-data. This is one with equivalent growth options:")
    return boot(case)


#: (partition grows, filesystem may grow) -> the recorded case with these options.
_BY_GROWTH = {
    (True, True): "default",
    (True, False): "resize-rootfs-false",
    (False, True): "growpart-off",
    (False, False): "both-off",
}


def _boot(cases: list[str]) -> list[Run]:
    image = _choose_image()
    return _run({case: case_options(case, image) for case in cases})


def _choose_image() -> Image:
    view = FetchView()
    image, reason = choose_image(progress=view)
    view.end(f"{image.name}: {reason}")
    return image


def _run(boots: Mapping[str, Options]) -> list[Run]:
    jobs = [
        (replace(options, keep_overlay=False), dated_folder(case))
        for case, options in boots.items()
    ]
    watcher = _Watcher()
    try:
        runs = boot_many(jobs, on_event=watcher, numbered=True)
    finally:
        watcher.end()
    for run in runs:
        if run.error is not None:
            raise run.error
        took_s = run.record.took_s or 0.0
        _say(f"{run.scenario}: booted here in {took_s:.0f} s, kept in runs/{run.name}")
    return runs


class _Watcher:
    """Shows each machine's time, stage and last line, two times a second at most."""

    def __init__(self) -> None:
        from IPython.display import display

        self._shown_s = 0.0
        self._last: dict[str, str] = {}
        preparing = Page("preparing")
        self._handle: Any = display(preparing, display_id=True)  # type: ignore[no-untyped-call]

    def __call__(self, event: RunEvent) -> None:
        if event.line is None:
            return
        last = printable(event.line.raw)[:80]
        self._last[event.run] = f"{event.run}  {event.time_s:.0f} s  {event.stage}  {last}"
        if time.monotonic() - self._shown_s >= _SHOWN_EVERY_S:
            self._shown_s = time.monotonic()
            self._handle.update(Page("\n".join(self._last.values())))

    def end(self) -> None:
        """Remove the progress; the lines at the end stay."""
        self._handle.update(Page(""))


def show_mode() -> Page:
    """Return whether the course boots machines here or plays recordings, and why."""
    choice = mode()
    return Page(f"{choice.mode}, because {choice.reason}")


def machine_check(report: dict[str, object] | None = None) -> Page:
    """Return what ``cloudlab doctor`` finds on this host, with a fix for each failure.

    The last line says in short whether this host is ready for a class, and how.

    Parameters
    ----------
    report : dict, optional
        The doctor's report of another host, as ``cloudlab doctor --json`` prints it.
    """
    ready = ready_line() if report is None else ""
    if report is None:
        doctor = [sys.executable, "-m", "cloudlab", "doctor", "--json"]
        report = json.loads(run_tool(doctor, check=False, timeout_s=_DOCTOR_TIMEOUT_S).stdout)
    checks: list[dict[str, object]] = report["checks"]  # type: ignore[assignment]
    rows = [
        ["ok" if one["ok"] else "FAILED", one["name"], _without_quote(one), one["fix"] or ""]
        for one in checks
    ]
    head = ("", "check", "what was found", "what to do")
    plain = "\n".join("  ".join(str(cell) for cell in row) for row in rows)
    quotes = [str(one["detail"]) for one in checks if one["detail"] != _without_quote(one)]
    details = "".join(
        f"<details><summary>What QEMU said</summary>{html.escape(printable(quote))}</details>"
        for quote in quotes
    )
    below = f"<p><strong>{html.escape(printable(ready))}</strong></p>" if ready else ""
    return Page(f"{plain}\n{ready}".strip(), table_html(head, rows) + details + below)


def _without_quote(one: dict[str, object]) -> str:
    """Return what a check found, without QEMU's own message, which is shown folded."""
    return re.sub(r"(cannot use \w+): .*", r"\1", str(one["detail"]), flags=re.DOTALL)
