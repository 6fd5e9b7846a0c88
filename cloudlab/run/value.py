"""The one value: a run, whether just booted, opened from a folder, or shipped as a recording."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from cloudlab import paths
from cloudlab.console import Console, ConsoleLine, LineSplitter, Stage, read_cast
from cloudlab.disk import DiskLayout
from cloudlab.errors import CloudlabError, RecordingError, UsageError, suggest
from cloudlab.run import tables
from cloudlab.run.display import distinct, plot, run_html, save_report, titles
from cloudlab.run.record import Outcome, Record, RecordedImage, RecordedOptions, read_record
from cloudlab.sizes import ConsoleParser, ParsedConsole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from cloudlab.explanation import Explanation
    from cloudlab.figures import Plot

#: Of a boot: before growth (bootcmd) and after it (runcmd).
Moment = Literal["before", "after"]


class RootSizes(NamedTuple):
    """Root partition and root filesystem in bytes; None where there is none, or not measured."""

    partition_bytes: int | None
    filesystem_bytes: int | None


class Run:
    """A run that ended, well or not.

    Everything it knows is read from its folder when it is first asked for, and kept.

    Parameters
    ----------
    folder : Path or str
        The run folder.
    record : Record, optional
        What its ``run.json`` holds, if it was read already.
    error : CloudlabError, optional
        Why it did not finish, if it was booted by this process.
    parsed : ParsedConsole, optional
        What its console reported, if it was parsed already.
    sizes : DataFrame, optional
        Its sizes table, if it was made already.

    Raises
    ------
    RecordingError
        If the folder is not a run folder.  Members raise it where a file is missing.

    Examples
    --------
    >>> run = cloudlab.open_run("runs/2026-11-25-101500-default")
    >>> run.root_sizes("after").partition_bytes
    21358427648
    >>> run.plot("disk-map").save("disk-map.svg")
    """

    def __init__(
        self,
        folder: Path | str,
        record: Record | None = None,
        *,
        error: CloudlabError | None = None,
        parsed: ParsedConsole | None = None,
        sizes: pd.DataFrame | None = None,
    ) -> None:
        # What is read later is found wherever the process goes meanwhile.
        self.folder = paths.expand(folder).absolute()
        self.record: Record = record or read_record(self.folder)
        self.error = error
        #: The run's name, which its folder had when it was recorded.
        self.name: str = self.record.name or self.folder.name
        #: What tables and figures call the run.
        self.scenario: str = self.record.scenario or self.name
        #: What was chosen.
        self.options: RecordedOptions = self.record.options
        #: The base image.
        self.image: RecordedImage = self.record.image
        #: How far it came.
        self.outcome: Outcome = self.record.outcome
        # A fresh run was parsed while it booted; cached properties take these as their values.
        if parsed is not None:
            self.__dict__["parsed"] = parsed
        if sizes is not None:
            self.__dict__["sizes"] = sizes

    def __repr__(self) -> str:
        return f"<cloudlab run {self.name}: {self.outcome}, {self.label}>"

    @property
    def is_recording(self) -> bool:
        """Whether it is a recording that ships with cloudlab."""
        return self.folder.parent == recordings_folder()

    @property
    def label(self) -> str:
        """Date, image and accelerator, to stand beside anything that is shown of the run."""
        accel, warm = self.record.accelerator.name, self.record.start.resumed_at_s is not None
        return (
            f"{'recorded' if self.is_recording else 'booted here'} on "
            f"{self.record.started[:10] or 'an unknown day'} with {self.image.name} under "
            f"{accel.upper() if accel else 'an unknown accelerator'}"
            f"{', warm start' if warm else ''}"
        )

    @property
    def took(self) -> str:
        """How long it took, how it started, and why so."""
        start = self.record.start
        took_s = self.record.took_s if self.record.took_s is not None else self.record.time_s
        seconds = "an unknown time" if took_s is None else f"{took_s:.1f} s"
        return f"{seconds}, {start.kind} start" + (f" ({start.why})" if start.why else "")

    @property
    def user_data(self) -> str:
        """The user-data that cloud-init was given; empty if the file is missing."""
        return self.text("user-data")

    @property
    def meta_data(self) -> str:
        """The meta-data likewise."""
        return self.text("meta-data")

    def text(self, name: str) -> str:
        """Return a text file of the run folder; empty if it is missing."""
        try:
            return (self.folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    @cached_property
    def sizes(self) -> pd.DataFrame:
        """The sizes table (:data:`cloudlab.sizes.SIZES_COLUMNS`), one row per measurement."""
        return tables.read_run_sizes(self.folder, self.record)

    @cached_property
    def stages(self) -> pd.DataFrame:
        """The boot's stages: ``run``, ``scenario``, ``stage``, ``start_s``, ``end_s``."""
        return tables.stages_frame(self.record)

    @cached_property
    def extents(self) -> pd.DataFrame:
        """Where each part of the disk comes from (:data:`~cloudlab.run.tables.EXTENTS_COLUMNS`)."""
        return tables.read_run_extents(self.folder, self.record)

    @cached_property
    def modules(self) -> pd.DataFrame:
        """The cloud-init modules that ran, in their order: ``stage``, ``module``, ``line``."""
        return tables.modules_frame(self.parsed)

    @cached_property
    def parsed(self) -> ParsedConsole:
        """What the console reported, each value with its line; it may have reported nothing."""
        parser = ConsoleParser(self.record.nonce)
        for number, line in enumerate(self._transcript.split(b"\n"), start=1):
            parser.feed(line, number)
        return parser.result()

    @cached_property
    def console(self) -> Console:
        """The console's lines with their numbers and times."""
        times, number, time_s = {}, 0, 0.0
        for time_s, text in read_cast(self.folder / "console.cast"):
            for _ in range(text.count("\n")):
                number += 1
                times[number] = time_s
        splitter = LineSplitter()
        lines = [*splitter.feed(self._transcript, time_s), splitter.unfinished(time_s)]
        if not lines[-1].raw:
            lines.pop()
        return Console(replace(line, time_s=times.get(line.number, time_s)) for line in lines)

    @cached_property
    def _transcript(self) -> bytes:
        path = self.folder / "console.log"
        incomplete = "The run folder is incomplete; record the run again."
        with paths.os_errors_as(RecordingError, f"{path} cannot be read", hint=incomplete):
            return path.read_bytes()

    @cached_property
    def logs(self) -> Console:
        """The lines of the guest's own logs, with the transcript's line that brought each."""
        return Console(
            ConsoleLine(log.line, 0.0, log.text.encode())
            for block in self.parsed.blocks
            for log in block.logs
        )

    def tool_output(self, when: Moment) -> Console:
        """Return what ``lsblk`` and ``df -h`` printed before or after growth."""
        _check_moment(when, "before", "after")
        marks = [f"@cloudlab {when} {number} ".encode() for number in (0, 1)]
        edges = [line.number for line in self.console if line.raw.startswith(tuple(marks))]
        if not edges:
            return Console(())
        return self.console.find("[$]|NAME|vd|Filesystem", first=edges[0], last=edges[-1])

    def layout(self, when: Literal["image", "before", "after"]) -> DiskLayout:
        """Return the partitions and filesystems of the disk, as the host read them.

        Parameters
        ----------
        when : str
            ``image``: as in the base image; ``before``: on the overlay, before the boot;
            ``after``: on the overlay, after the boot.

        Raises
        ------
        RecordingError
            If the disk was not read then, with the reason.
        UsageError
            For another word.
        """
        _check_moment(when, "image", "before", "after")
        layout = self.record.disk_after if when == "after" else self.record.disk_before
        if layout is None:
            moment = "before the boot"
            if when == "after":
                moment = f"after the boot: {self.record.disk_error}".removesuffix(": ")
            raise RecordingError(
                f"The disk of {self.name} was not read {moment}.",
                hint="Boot it again: a run that did not finish may leave its disk in any state, "
                "and older versions read it after the boot only.",
            )
        if when == "image":
            return replace(layout, virtual_size_bytes=self.image.virtual_size_bytes)
        return layout

    def partitions(self, when: Literal["image", "before", "after"]) -> pd.DataFrame:
        """Return :meth:`layout` as a table (:func:`~cloudlab.run.tables.layout_frame`)."""
        return tables.layout_frame(self.layout(when))

    def root_sizes(self, when: Moment) -> RootSizes:
        """Return root partition and root filesystem, as measured exactly.

        That is by the guest, or by the host where the guest reported nothing.
        """
        _check_moment(when, "before", "after")
        rows = self.sizes[(self.sizes["mountpoint"] == "/") & self.sizes["exact"]]
        # The host reads the disk before the launch, under the stage image.
        host = "image" if when == "before" and not (rows["stage"] == when).any() else when
        rows = rows[rows["stage"] == host]
        found = {
            str(layer): int(size_bytes)
            for layer, size_bytes in zip(rows["layer"], rows["size_bytes"], strict=True)
        }
        return RootSizes(found.get("partition"), found.get("filesystem"))

    def stage_at(self, time_s: float) -> Stage:
        """Return the boot stage at a moment, in seconds since launch."""
        begun = [one.stage for one in self.record.stages if one.start_s <= time_s]
        return begun[-1] if begun else Stage.FIRMWARE

    @cached_property
    def _explanation(self) -> Explanation:
        from cloudlab.explanation import explain
        from cloudlab.seed import Severity, check_user_data

        record, faults = self.record, []
        if self.options.attach_seed:
            faults = [
                (problem.line, problem.message)
                for problem in check_user_data(self.user_data)
                if problem.severity is Severity.ERROR or problem.unknown_key
            ]
        explanation = explain(
            self.parsed,
            console=[line.raw for line in self.console],
            disk_before=record.disk_before.to_json() if record.disk_before else None,
            disk_after=record.disk_after.to_json() if record.disk_after else None,
            image_bytes=self.image.virtual_size_bytes,
            stages=msgspec.to_builtins(record.stages),
            times={line.number: line.time_s for line in self.console},
            user_data_faults=faults,
        )
        return replace(explanation, name=self.name)

    def explain(self) -> Explanation:
        """Return what grew partition and filesystem, or why they did not grow, with evidence.

        Raises
        ------
        RecordingError
            If the transcript or its times cannot be read.
        """
        return self._explanation

    def plot(self, kind: str = "disk-map", ax: Axes | None = None, **options: Any) -> Plot:
        """Return a figure of this run; see :func:`~cloudlab.run.display.plot`."""
        return plot(kind, [self], ax, **options)

    def save_report(self, path: Path | str) -> Path:
        """Write the HTML report of this run; return its path."""
        return save_report([self], paths.expand(path))

    def _repr_html_(self) -> str:
        return run_html(self)


def _check_moment(when: str, *known: str) -> None:
    if when not in known:
        raise UsageError(
            f"There is no moment {when!r}.", hint=f"Choose one of: {', '.join(known)}."
        )


def compare(*runs: Run | Path | str) -> pd.DataFrame:
    """Return root partition and root filesystem before and after, in bytes, a row per run.

    Runs are given as to :func:`open_run`.  A row is named by its scenario, and also by its folder
    where two runs share a scenario.

    Examples
    --------
    >>> table = cloudlab.compare(cloudlab.recorded("default"), cloudlab.recorded("growpart-off"))
    >>> table["partition after"].to_list()
    [21358427648, 2097152000]
    """
    import pandas as pd

    rows: dict[str, tuple[int | None, ...]] = {}
    opened = [open_run(run) for run in runs]
    for run, name in zip(opened, titles(opened), strict=True):
        before, after = run.root_sizes("before"), run.root_sizes("after")
        rows[name] = (before[0], after[0], before[1], after[1])
    columns = ["partition before", "partition after", "filesystem before", "filesystem after"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype("Int64")
    return frame.rename_axis(columns="run")


def compare_options(*runs: Run | Path | str) -> pd.DataFrame:
    """Return what runs were made with: a row for each option, a column for each run.

    Runs are given as to :func:`open_run`.

    Examples
    --------
    >>> options = cloudlab.compare_options(*cloudlab.recordings())
    >>> str(options.loc["growpart", "growpart-off"])
    'off'
    """
    import pandas as pd

    opened = [open_run(run) for run in runs]
    columns = {
        name: {"image": run.image.name, **vars(run.options)}
        for run, name in zip(opened, distinct(run.name for run in opened), strict=True)
    }
    return pd.DataFrame(columns).rename_axis(columns="option")


def open_run(run: Run | Path | str) -> Run:
    """Return a run: itself, that of a folder, or a shipped recording by its name.

    Raises
    ------
    RecordingError
        If there is none, with the closest name of a recording.
    UsageError
        If it is no path.

    Examples
    --------
    >>> cloudlab.open_run("runs/2026-11-25-101500-default").name
    '2026-11-25-101500-default'
    >>> cloudlab.open_run("default").is_recording
    True
    """
    if isinstance(run, Run):
        return run
    folder, name, names = paths.expand(run), str(run), recording_names()
    # A run folder of the user's comes before a recording of the same name.
    if name in names and not (folder / "run.json").exists():
        return recorded(name)
    try:
        return Run(folder)
    except RecordingError as error:
        # Not Path.exists, which raises for a name that is too long.
        if os.path.exists(folder):  # noqa: PTH110
            raise
        hint = suggest(name, names) or f"Recordings: {', '.join(names)}."
        raise RecordingError(error.message, hint=hint) from error


def explain(*sources: Run | Path | str) -> Explanation:
    """Say what grew a machine's root partition and filesystem, or why nothing did.

    Parameters
    ----------
    *sources : Run, Path or str
        One run, run folder or recording; or evidence of any machine: logs, listings such as
        ``lsblk`` and ``df``, user-data, folders, tar archives, disk images, ``-`` for standard
        input, or texts of several lines.

    Raises
    ------
    ParseError
        If a source cannot be read.
    UsageError
        If there is none, or there are several runs.

    Examples
    --------
    >>> [str(one.reason) for one in cloudlab.explain("growpart-off").statements]
    ['growpart-off', 'fills-its-device']
    """
    from cloudlab.explanation import explain_files

    if not any(map(str, sources)):
        raise UsageError("There is nothing to explain.", hint="Name a file, a run or a recording.")
    runs = list(map(_run_of, sources))
    files: list[Path | str] = []
    for source, run in zip(sources, runs, strict=True):
        if run is None:
            files.append(source)  # type: ignore[arg-type]
        elif len(sources) == 1:
            return run.explain()
        else:
            names = ("console.log", "user-data")
            files += [path for name in names if (path := run.folder / name).exists()]
    if (count := len(runs) - runs.count(None)) > 1:
        raise UsageError(
            f"{count} runs were given, each of a machine of its own.",
            hint="Explain one after the other. In Python, cloudlab.compare() has their sizes.",
        )
    return explain_files(files)


def _run_of(source: Run | Path | str) -> Run | None:
    """Return the run that a source is; None if it is evidence of another kind."""
    if isinstance(source, Run):
        return source
    if not isinstance(source, str | Path):
        raise UsageError(
            f"There is nothing to explain in {source!r:.80}.",
            hint="Give runs, files or texts, each as an argument of its own.",
        )
    text = str(source)
    if text == "-" or "\n" in text:
        return None
    if text.startswith("~"):
        text = str(paths.expand(text))
    # Not Path.exists, which raises for a text that is too long for a path.
    is_run = os.path.exists(os.path.join(text, "run.json"))  # noqa: PTH110, PTH118
    named = text in recording_names() and not os.path.exists(text)  # noqa: PTH110
    return open_run(source) if is_run or named else None


def recorded(name: str) -> Run:
    """Return a recording that ships with cloudlab.

    Raises
    ------
    UsageError
        If there is none of that name.

    Examples
    --------
    >>> cloudlab.recorded("growpart-off").root_sizes("after").partition_bytes
    2097152000
    """
    names = recording_names()
    if name not in names:
        raise UsageError(
            f"There is no recording called {name!r}.",
            hint=suggest(name, names) or f"Recordings: {', '.join(names)}.",
        )
    return _shipped(name)


def _shipped(name: str) -> Run:
    return Run(recordings_folder() / name)


def recordings() -> list[Run]:
    """Return every recording that ships with cloudlab.

    Examples
    --------
    >>> "growpart-off" in [run.name for run in cloudlab.recordings()]
    True
    """
    return [_shipped(name) for name in recording_names()]


def recording_names() -> list[str]:
    """Return the names of the recordings that ship with cloudlab."""
    return [path.parent.name for path in sorted(recordings_folder().glob("*/run.json"))]


def recordings_folder() -> Path:
    """Return the folder of the recordings that ship with cloudlab."""
    return Path(str(resources.files("cloudlab").joinpath("recordings")))
