"""What the notebooks call that reaches this host: boots or recordings, images, files, the doctor."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab import paths
from cloudlab.console import printable
from cloudlab.course.cases import CASES, case_options
from cloudlab.course.growth import growth_of, values_of
from cloudlab.course.prediction import Prediction
from cloudlab.course.shell import UndecidedError
from cloudlab.disk import allocated_bytes, create_overlay, inspect_disk
from cloudlab.errors import CloudlabError, DiskError, SeedError, UsageError
from cloudlab.html import Page, escaped, table_html
from cloudlab.image.cache import Image
from cloudlab.image.fetch import cached_choice, choose_image
from cloudlab.image.fetch import fetch as fetch_image
from cloudlab.image.recipe import Recipe
from cloudlab.image.web import FetchProgress
from cloudlab.machine.accel import choose_accel
from cloudlab.run.boot import boot_many, dated_folder
from cloudlab.run.display import register
from cloudlab.run.monitor import RunEvent
from cloudlab.run.options import DISK_SIZE_BYTES, Options
from cloudlab.run.tables import layout_frame
from cloudlab.run.value import Run, recorded
from cloudlab.seed import Severity, check_user_data
from cloudlab.seed.config import typed
from cloudlab.tools import find_tool, host_arch
from cloudlab.tools import run as run_tool

if TYPE_CHECKING:
    import pandas as pd

_VARIABLE = "CLOUDLAB_MODE"

_DOCTOR_TIMEOUT_S = 120.0
_SHOWN_EVERY_S = 0.5
_NO_IMAGE = "There is no image in your cache ('cloudlab fetch' or 'cloudlab build' gets one)"

#: (partition grows, filesystem may grow) -> the recorded case with these options.
_BY_GROWTH = {
    (True, True): "default", (True, False): "resize-rootfs-false",
    (False, True): "growpart-off", (False, False): "both-off",
}  # fmt: skip


@dataclass(frozen=True)
class Mode:
    """Whether real machines are booted or recordings are played, and why, in words for people."""

    live: bool
    reason: str


def mode(wish: str | None = None, problem: str | None = None) -> Mode:
    """Return whether the course boots machines: by default where that works.

    Parameters
    ----------
    wish : str, optional
        ``live``, ``replay``, or ``auto`` or empty for live where it works. Default: the variable
        ``CLOUDLAB_MODE``.
    problem : str, optional
        What keeps a host from booting a machine; empty where nothing does. Default: what keeps
        this host from it.

    Raises
    ------
    UsageError
        For another wish.
    """
    wish = os.environ.get(_VARIABLE, "") if wish is None else wish
    if wish == "replay":
        return Mode(live=False, reason=f"{_VARIABLE} asks for recordings")
    if wish not in {"", "auto", "live"}:
        raise UsageError(
            f"{_VARIABLE} is {wish!r}; expected live, replay or auto.",
            hint=f"Unset it with: unset {_VARIABLE}",
        )
    # Looking for QEMU may take seconds, and replaying does not need it.
    problem = live_problem() if problem is None else problem
    if problem:
        asked = f"{_VARIABLE} asks for live runs, but " if wish == "live" else ""
        return Mode(live=False, reason=f"{asked}{problem}")
    return Mode(live=True, reason="QEMU and an image are here")


def live_problem() -> str:
    """Return what keeps this host from booting a machine, or nothing."""
    try:
        choose_accel(host_arch())
        find_tool("qemu-img")
        if _image() is None:
            return "no image is in the cache: run 'cloudlab fetch' or 'cloudlab build' first"
    except CloudlabError as error:
        return " ".join(str(error).split())
    return ""


def ready_line() -> str:
    """Return one line that a learner reads out before a class: what runs here, and the image."""
    try:
        image, choice = _image(), mode()
        name = f"image {image.name}" if image is not None else "no image is in the cache"
        if choice.live:
            return f"ready: live under {choose_accel(host_arch()).accel.upper()}, {name}"
    except CloudlabError as error:
        return f"not ready: {error.message}"
    line = f"ready: recordings only, because {choice.reason}"
    return line if "no image" in line else f"{line}; {name}"


class _CellOutput:
    """One output below the running cell, created by the first page and replaced by the next."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, page: Page) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(page, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(page)


def _say(text: str) -> None:
    _CellOutput().show(Page(text, f'<p style="font-style: italic">{escaped(text)}</p>'))


class FetchView(_CellOutput):
    """Shows a download in the cell that waits for it: a bar, the rate and the time left."""

    def __call__(self, news: FetchProgress) -> None:
        """Show how far a download is; nothing appears for an image that is in the cache."""
        text = printable(f"{news.name}: {news.words()}")
        # Without a length, a bar that has no value shows that something is going on.
        value = f' value="{news.done_bytes}" max="{news.total_bytes}"' if news.total_bytes else ""
        said = escaped(text)
        bar = f'<progress aria-label="{said}" style="width: 20em"{value}></progress>'
        self.show(Page(text, f'<p style="font-family: monospace">{bar}<br>{said}</p>'))

    def end(self, line: str) -> None:
        """Leave one line where the bar was, if there was one."""
        if self._handle is not None:
            self.show(Page(line))


class _Watcher(_CellOutput):
    """Shows each machine's time, stage and last line, two times a second at most."""

    def __init__(self) -> None:
        super().__init__()
        self._shown_s = 0.0
        self._last: dict[str, str] = {}
        self.show(Page("preparing"))

    def __call__(self, event: RunEvent) -> None:
        if event.is_waiting:
            text = event.note
        elif event.line is not None:
            text = f"{event.time_s:.0f} s  {event.stage}  {printable(event.line.raw)[:80]}"
        else:
            return
        self._last[event.run] = f"{event.run}  {text}"
        if event.is_waiting or time.monotonic() - self._shown_s >= _SHOWN_EVERY_S:
            self._shown_s = time.monotonic()
            self.show(Page("\n".join(self._last.values())))


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
    if isinstance(cases, str) or not isinstance(cases, Iterable):
        raise UsageError(f"{cases!r:.60} is no list of boots.", hint='Write boot_all(["default"]).')
    cases = dict(cases) if isinstance(cases, Mapping) else dict.fromkeys(map(str, cases))
    own = [case for case in cases if case in CASES and CASES[case].recipe == Recipe()]
    live = [case for case in own if CASES[case].follows is None] if mode().live else []
    for case in [case for case in live if cases[case] == Prediction()]:
        live.remove(case)
        _say(f"{case} needs your prediction before it is booted. This is its recording.")
    booted = dict(zip(live, _boot(live), strict=True)) if live else {}
    for case in cases:
        if case not in booted:
            booted[case] = recorded(case)
            _say(f"{case}: {booted[case].label}")
    return [booted[case] for case in cases]


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
    user_data = typed("user_data", user_data, str)
    problems = [one for one in check_user_data(user_data) if one.severity is Severity.ERROR]
    if problems:
        raise SeedError(f"cloud-init would not take this text: {problems[0]}.")
    values, storage = values_of(user_data), values_of(str(CASES["node-storage"].user_data))
    case, why_none = "node-storage", ""
    if values != storage:
        why_none = "it sets up disks" if storage.keys() & values.keys() else ""
        try:
            growth = growth_of(user_data)
            case = _BY_GROWTH[growth.partition, growth.filesystem]
        except UndecidedError:
            case, why_none = "default", "it is no cloud-config"
    if mode().live:
        options = replace(case_options(case, _choose_image()), user_data=user_data)
        [run] = _run({case: options})
        return run
    if why_none:
        raise UsageError(
            f"No recording uses this user-data, because {why_none}.",
            hint="Boot it live: see notebook 00 for what your machine needs.",
        )
    _say("No recording uses this user-data. This is one with equivalent growth options:")
    return boot(case)


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
        watcher.show(Page(""))
    for run in runs:
        if run.error is not None:
            raise run.error
        took_s = run.record.took_s or 0.0
        _say(f"{run.scenario}: booted here in {took_s:.0f} s, kept in runs/{run.name}")
    return runs


def fetch(name_or_url: str, *, mirror: str | None = None, refresh: bool = False) -> Image:
    """Return an image from the cache, or fetch it, showing the progress below the cell.

    Parameters
    ----------
    name_or_url : str
        A name that ``cloudlab images`` lists or the mirror holds, or a URL.
    mirror : str, optional
        A classroom's ``cloudlab share``; default: the variable ``CLOUDLAB_MIRROR``.
    refresh : bool
        Whether to look for a newer one although one is cached.

    Raises
    ------
    CloudlabError
        As :func:`cloudlab.image.fetch.fetch`; after the Interrupt button the same call goes
        on where this one was.
    """
    view = FetchView()
    outcome = "not fetched"
    try:
        image = fetch_image(name_or_url, mirror=mirror, refresh=refresh, progress=view)
        outcome = f"{image.trust}, SHA-256 {image.sha256}"
    finally:
        view.end(printable(f"{name_or_url}: {outcome}"))
    return image


def image_layout() -> pd.DataFrame:
    """Return the partitions of an image in the cache, or of the recorded one; print which.

    The columns are those of :meth:`cloudlab.Run.partitions`.
    """
    image, found, said = _image(), None, f"{_NO_IMAGE}: this is the recorded one."
    if image is not None:
        try:
            found = layout_frame(inspect_disk(image.path, image.format))
            said = f"Read just now from {image.name} in your cache."
        except CloudlabError as error:
            said = f"{image.name} cannot be read: {error.message} This is the recorded one."
    print(said)  # noqa: T201 - what a notebook shows
    return recorded("default").partitions("image") if found is None else found


def try_overlay(path: Path | str = "runs/my-overlay.qcow2") -> Page:
    """Create an overlay of 20 GiB on an image in the cache, and say what it takes on the host.

    An overlay that exists already is replaced.
    """
    image = _image()
    if image is None:
        return Page(f"{_NO_IMAGE}: no overlay was made.")
    try:
        target = paths.expand(path)
        with paths.os_errors_as(DiskError, f"{target} cannot be replaced"):
            target.unlink(missing_ok=True)
        overlay = create_overlay(image.path, image.format, target, DISK_SIZE_BYTES)
    except CloudlabError as error:
        return Page(f"The overlay could not be created. {error.message}")
    return Page(
        f"{target}: {allocated_bytes(target):,} bytes on the host\n"
        f"virtual size: {overlay.virtual_size_bytes:,} bytes\n"
        f"backing file: {image.name}, {image.file_size_bytes:,} bytes"
    )


def iso_contents(path: Path | str) -> Page:
    """Return the label of an ISO image and its files with their sizes.

    Raises
    ------
    SeedError
        If it cannot be read.
    """
    import pycdlib
    from pycdlib.pycdlibexception import PyCdlibException

    iso: Any = pycdlib.PyCdlib()
    path = paths.expand(path)
    try:
        iso.open(str(path))
        try:
            label = iso.pvd.volume_identifier.decode("ascii", "replace").strip()
            files = [
                f"  {one.rock_ridge.name().decode('utf-8', 'replace')}: {one.data_length:,} bytes"
                for one in iso.list_children(rr_path="/")
                if one.is_file()
            ]
        finally:
            iso.close()
    except (OSError, PyCdlibException) as error:
        raise SeedError(f"{path} cannot be read as an ISO image: {error}.") from error
    return Page("\n".join([f"label: {label}", *files]))


def _image() -> Image | None:
    """Return the image in the cache that a boot takes, if there is one."""
    choice = cached_choice(host_arch())
    return choice[0] if choice else None


def show_mode() -> Page:
    """Return whether the course boots machines here or plays recordings, and why."""
    choice = mode()
    return Page(f"{'live' if choice.live else 'replay'}, because {choice.reason}")


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
    try:
        checks: list[dict[str, object]] = report["checks"]  # type: ignore[assignment]
        rows = [
            ["ok" if one["ok"] else "FAILED", one["name"], _without_quote(one), one["fix"] or ""]
            for one in checks
        ]
    except (KeyError, TypeError):
        raise UsageError(
            f"{report!r:.60} is no report of 'cloudlab doctor --json'.",
            hint="Read the report with json.loads.",
        ) from None
    head = ("", "check", "what was found", "what to do")
    plain = "\n".join("  ".join(str(cell) for cell in row) for row in rows)
    quotes = [str(one["detail"]) for one in checks if one["detail"] != _without_quote(one)]
    details = "".join(
        f"<details><summary>What QEMU said</summary>{escaped(quote)}</details>" for quote in quotes
    )
    below = f"<p><strong>{escaped(ready)}</strong></p>" if ready else ""
    return Page(f"{plain}\n{ready}".strip(), table_html(head, rows) + details + below)


def _without_quote(one: dict[str, object]) -> str:
    """Return what a check found, without QEMU's own message, which is shown folded."""
    return re.sub(r"(cannot use \w+): .*", r"\1", str(one["detail"]), flags=re.DOTALL)
