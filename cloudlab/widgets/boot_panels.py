"""The panels that boot machines or play recordings: GrowthLab and Console."""

from __future__ import annotations

import difflib
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets

from cloudlab.course.cases import CASES, case_options
from cloudlab.course.prediction import LAYERS, Prediction, ends
from cloudlab.disk import DiskLayout, inspect_disk, parse_disk_size
from cloudlab.errors import CloudlabError, ImageError, UsageError
from cloudlab.figures.data import disk_map_data, records
from cloudlab.figures.words import Given, disk_map_words
from cloudlab.html import escaped, table_html
from cloudlab.image.cache import Image, cached_images, recall
from cloudlab.image.recipe import make_recipe
from cloudlab.run.monitor import ENLARGE_LINE, ENLARGE_PATIENCE_S
from cloudlab.run.options import Options, scenario_name
from cloudlab.run.predict import measured
from cloudlab.run.tables import layout_sizes
from cloudlab.run.value import Run, open_run, recordings
from cloudlab.seed import GrowpartMode, Profile, ResizeRootfs, SeedConfig, to_user_data
from cloudlab.sizes import ParsedConsole, console_sizes
from cloudlab.sizes.report import exact_report
from cloudlab.tools import host_arch
from cloudlab.units import format_bytes, format_seconds, format_two, is_known
from cloudlab.widgets.boot import LINES, BootPanel, Plan, Snapshot, console_html
from cloudlab.widgets.disk_map import disk_at, map_html
from cloudlab.widgets.panel import (
    AnyRun,
    Form,
    Pane,
    button,
    error_html,
    field,
    origin,
    origin_html,
)
from cloudlab.widgets.results import (
    Finished,
    Match,
    export,
    history_html,
    items_html,
    nearest,
    playable,
    predicted_html,
    result_html,
    still_html,
)

_NOT_SET = ("", "not set")
_MORE = "More options"

_OPTIONS = (
    field("image", "select", "Image", choices=[]),
    field("disk_size", "text", "Disk size", "20G", help="such as 20G or 2112M"),
    field(
        "growpart", "select", "growpart: mode",
        choices=[_NOT_SET, *((one.value, one.value) for one in GrowpartMode)],
        help="grows the partition",
    ),
    field(
        "resize_rootfs", "select", "resize_rootfs",
        choices=[_NOT_SET, *((one.value, one.value) for one in ResizeRootfs)],
        help="grows the filesystem",
    ),
    field("enlarge_to", "text", "Enlarge the disk while it runs, to", group=_MORE,
          help="such as 40G; a live boot waits for you to press a button, then the guest grows both layers"),
    field("devices", "text", "growpart: devices", group=_MORE, help="such as / or /dev/vda1"),
    field(
        "ignore_growroot", "checkbox", "growpart: ignore_growroot_disabled", False, group=_MORE
    ),
    field(
        "profile", "select", "Modules", Profile.LEAN.value, group=_MORE,
        choices=[("lean", "lean: what growth needs"), ("full", "full: as in a cloud")],
    ),
    field("bootcmd", "textarea", "bootcmd, one command per line", rows=2, group=_MORE,
          help="runs before the growth"),
    field("runcmd", "textarea", "runcmd, one command per line", rows=2, group=_MORE,
          help="runs after the growth"),
    field("extra", "textarea", "Further keys, as YAML", rows=3, group=_MORE),
)  # fmt: skip


class GrowthLab(BootPanel):
    """Flip an option, predict, boot, and watch the disk grow.

    Live it boots cached images and records them below ``folder``; else it plays the
    recording that is nearest to the options, and says in what it differs.

    Parameters
    ----------
    image : str, optional
        The name of the image to begin with.
    folder : Path
        Where live runs are recorded, and below it exports.
    """

    #: Whether an option cannot be understood.
    _faulty = False

    def __init__(self, *, image: str | None = None, folder: Path | str = "runs") -> None:
        super().__init__(folder, asks=True, fold="closed")
        self._finished: list[Finished] = []
        self._recordings = playable(recordings())
        self._images: dict[str, Image] = {}
        self._layouts: dict[str, DiskLayout | None] = {}
        #: The map's data of the disk before the boot, whose scale holds during it.
        self._scale_of: Any = None
        self._measured = 0
        self.options = Form("Options", _OPTIONS)
        self.enlarging = Form(
            "Enlarging", [button("enlarge", "Enlarge the disk now", primary=True)]
        )
        self._enlarging_note = Pane(role="status")
        #: Set by that button; None unless a live boot goes on that waits for it.
        self._enlarge: threading.Event | None = None
        self.exports = Form("Export", [button("export", "Export figures, data and run folder")])
        self._disk = Pane(name="The disk", look="disk", role="region")
        self._user_data = Pane(name="User-data", role="region")
        self._match_note = Pane(look="note", role="status")
        self._stale = Pane(look="note", role="status")
        self._result = Pane(look="result", name="Result", role="region")
        self._history = Pane(look="result", name="All runs so far", role="region")
        self._exported = Pane(role="status")
        self._shown_user_data = "#cloud-config\n"
        self._shown_choices: dict[str, Any] = {}
        columns = ipywidgets.Box(
            [
                ipywidgets.VBox(
                    [self.options, self._match_note, self.prediction_form, self.boot_form,
                     self.enlarging, self._enlarging_note, self.problem, self.stage, self.progress]
                ),
                ipywidgets.VBox([self._stale, self._result, self._user_data]),
            ]
        ).add_class("cloudlab-columns")  # fmt: skip
        self.fill(self._disk, columns, self.console, self._history, self.exports, self._exported)
        self.options.on_values(self._changed)
        self.enlarging.on_press(enlarge=self.enlarge)
        self.enlarging.change(enlarge={"hidden": True})
        self.exports.on_press(export=self._export)
        self.exports.change(export={"hidden": True})
        self._switched()
        self.keep(self._disk.html)
        if image is not None:
            self.choose(image=image)

    @property
    def finished(self) -> list[Finished]:
        """The runs so far, with their predictions; while a boot goes on, waits for its end.

        It does not wait for the button that enlarges the disk: that is pressed then.
        """
        self.enlarge()
        self.settle()
        return self._finished

    def choose(self, **values: Any) -> None:
        """Set options as if they were typed: ``growpart="off"``, ``disk_size="40G"`` ...

        Raises
        ------
        UsageError
            For an option that is not there.
        """
        unknown = values.keys() - self.options.values.keys()
        if unknown:
            raise UsageError(
                f"GrowthLab has no option {', '.join(sorted(unknown))}.",
                hint=f"Its options are {', '.join(self.options.values)}.",
            )
        self.options.values = {**self.options.values, **values}

    def predict(self, partition: str, filesystem: str) -> None:
        """Predict the boot as :class:`~cloudlab.course.Prediction` does; this unlocks Boot."""
        self.prediction_form.set(Prediction(partition, filesystem))

    def enlarge(self) -> None:
        """Press "Enlarge the disk now"; without a live boot that has a size for it, nothing happens."""
        with self._lock:
            if self._enlarge is not None:
                self._enlarge.set()

    def add(self, run: AnyRun) -> None:
        """Put an earlier run beside the others, for comparison.

        Raises
        ------
        RecordingError
            If there is no such run.
        """
        finished = Finished(open_run(run))
        self.show_console(finished.run.console)
        self._show_result(finished)

    def seed_config(self) -> SeedConfig:
        """Return the options as a seed's configuration.

        Raises
        ------
        CloudlabError
            If one cannot be understood.
        """
        values = self.options.values
        resize = values["resize_rootfs"]
        return SeedConfig(
            growpart=GrowpartMode(values["growpart"]) if values["growpart"] else None,
            growpart_devices=tuple(values["devices"].replace(",", " ").split()),
            ignore_growroot_disabled=True if values["ignore_growroot"] else None,
            resize_rootfs=ResizeRootfs(resize) if resize else None,
            bootcmd=_commands(values["bootcmd"]),
            runcmd=_commands(values["runcmd"]),
            extra_yaml=values["extra"],
            profile=Profile(values["profile"]),
        )

    def match(self) -> Match:
        """Return the recording that is nearest to the options.

        Raises
        ------
        CloudlabError
            If an option cannot be understood, or no recordings are there.
        """
        seed, values = self.seed_config(), self.options.values
        return nearest(
            self._recordings,
            user_data=to_user_data(seed),
            image=values["image"],
            disk_size_bytes=parse_disk_size(values["disk_size"]),
            enlarge_to_bytes=self._enlarge_to(),
            profile=seed.profile.value,
        )

    def _enlarge_to(self) -> int | None:
        text = str(self.options.values["enlarge_to"]).strip()
        return parse_disk_size(text, "size to enlarge the disk to") if text else None

    def _switched(self) -> None:
        if self.live:
            self._images = {one.name: one for one in cached_images() if one.arch == host_arch()}
            known = set(self._images)
        else:
            known = {one.image.name for one in self._recordings}
        plain = make_recipe().name
        names = sorted(known, key=lambda name: (name != plain, name))
        self.options.change(image={"choices": [(name, name) for name in names]})
        if self.options.values["image"] not in names:
            self.choose(image=names[0] if names else "")
        self._changed()

    def _changed(self) -> None:
        with self._lock:
            chosen = {**self.options.values, "live": self.live}
            if chosen == self._shown_choices:
                return
            # A prediction is about these options; others need one of their own.
            self._shown_choices = chosen
            self.prediction_form.set(Prediction())
            self._mark_stale("The result below belongs to other options than these.")
            self._refresh()

    def _mark_stale(self, why: str) -> None:
        self._stale.html = f"<b>{escaped(why)}</b>" if self._result.html and why else ""

    def _refresh(self) -> None:
        try:
            seed = self.seed_config()
            whole = to_user_data(seed)
            text = to_user_data(replace(seed, report=False, profile=Profile.FULL))
            match = None if self.live else self.match()
            layout = self._layout(match)
        except CloudlabError as error:
            self._match_note.html, self._faulty = error_html(error), True
            self._show_buttons()
            return
        if text != self._shown_user_data or not self._user_data.html:
            self._user_data.html = (
                f"<b>The user-data of these options</b>{marked_html(self._shown_user_data, text)}"
                "<details><summary>with what cloudlab adds to measure the disk</summary>"
                f"<pre>{escaped(whole)}</pre></details>"
            )
            self._shown_user_data = text
        note = "<b>No recording has these options.</b> Boot plays the nearest one, which differs:"
        differs = match.differences if match else ()
        self._match_note.html = note + items_html(differs) if differs else ""
        self._faulty = False
        if not self.running:
            self._show_start(layout)
        self._show_buttons()

    def _in_atlas(self) -> str:
        """Return what a boot of the atlas with just these options measured, if there is one."""
        values = self.options.values
        if self._enlarge_to() is not None:
            return ""
        disk_bytes = parse_disk_size(values["disk_size"])
        for row in records(measured(str(values["image"]), disk_bytes, self.seed_config())):
            sizes = [(layer, getattr(row, f"{layer}_bytes")) for layer in LAYERS]
            words = [
                f"{layer} {format_bytes(int(size))}" for layer, size in sizes if is_known(size)
            ]
            return (
                f"The atlas has a boot with your options, of {row.date[:10]}: {', '.join(words)}."
            )
        return ""

    def _missing(self) -> tuple[str, str]:
        return ("correct the options", "") if self._faulty else super()._missing()

    def _layout(self, match: Match | None) -> DiskLayout | None:
        """Return the disk before the boot: what the image holds, on a disk of the chosen size.

        None where the host cannot read it, which is no reason not to boot.
        """
        size_bytes = parse_disk_size(self.options.values["disk_size"])
        image = match.recording.image if match else self._image()
        if size_bytes < image.virtual_size_bytes:
            disk, needed = format_two(size_bytes, image.virtual_size_bytes)
            raise UsageError(
                f"A disk of {disk} is smaller than the image, which is a disk of {needed}.",
                hint=f"Choose at least {-(-image.virtual_size_bytes >> 20)}M.",
            )
        layout = match.recording.record.disk_before if match else self._read(self._image())
        return layout and replace(layout, virtual_size_bytes=size_bytes)

    def _read(self, image: Image) -> DiskLayout | None:
        if image.name not in self._layouts:
            try:
                self._layouts[image.name] = inspect_disk(image.path, image.format)
            except CloudlabError:
                self._layouts[image.name] = None
        return self._layouts[image.name]

    def _image(self) -> Image:
        image = self._images.get(str(self.options.values["image"]))
        if image is None:
            raise UsageError("No image is chosen.", hint="Run 'cloudlab build' first.")
        return image

    def _show_start(self, layout: DiskLayout | None) -> None:
        self._scale_of, self._measured = None, 0
        if layout is None or not layout.partitions:
            self._disk.html = "<p>The disk is drawn once the guest has measured it.</p>"
            return
        root = layout_sizes(layout)
        self._scale_of = disk_map_data(root)
        self._disk.html = map_html(self._scale_of, title="Before the boot:")
        root = root[root["mountpoint"] == "/"]
        self.prediction_form.about(dict(zip(root["layer"], root["size_bytes"], strict=True)))

    def _watch(self, now: Snapshot) -> None:
        """Show the disk as the guest has measured it so far in a boot."""
        if any(line.raw.rstrip() == ENLARGE_LINE for line in now.lines):
            self._show_enlarging()
        if len(now.blocks) == self._measured:
            return
        self._measured = len(now.blocks)
        reports = tuple(filter(None, map(exact_report, now.blocks[-1:])))
        sizes = console_sizes(ParsedConsole(reports, (), now.blocks[-1:], 0))
        data, _ = disk_at(sizes, float("inf"), None)
        if data is not None:
            title = f"At {format_seconds(now.time_s)}, {now.stage}:"
            self._disk.html = map_html(data, title=title, scale_of=self._scale_of)

    def _show_enlarging(self) -> None:
        with self._lock:
            if self._enlarge is None:
                return
            pressed, patience = self._enlarge.is_set(), format_seconds(ENLARGE_PATIENCE_S)
            note = f"The guest waits for a larger disk, {patience} at most."
            if pressed:
                note = "The guest now grows partition and filesystem."
            self.enlarging.change(enlarge={"hidden": False, "disabled": pressed})
            self._enlarging_note.html = note

    def _hide_enlarging(self) -> None:
        with self._lock:
            self._enlarge = None
            self.enlarging.change(enlarge={"hidden": True})
            self._enlarging_note.html = ""

    def _plan(self) -> Plan:
        # The options may be changed while the machine boots; the prediction was for these.
        prediction, chosen = self.prediction, dict(self.options.values)
        self._hide_enlarging()
        match = None if self.live else self.match()
        in_atlas = self._in_atlas() if match and match.differences else ""

        def done(run: Run | None) -> None:
            self._hide_enlarging()
            if run is None:
                self._mark_stale("The result below is that of an earlier run.")
                return
            differences = match.differences if match else ()
            self._show_result(Finished(run, prediction, differences, in_atlas))
            if chosen != self.options.values:
                self._mark_stale("The result below belongs to other options than these.")

        if match is not None:
            plan, layout = self._playing(match.recording, done), match.recording.record.disk_before
        else:
            seed = self.seed_config()
            options = Options(
                image=self._image(),
                disk_size_bytes=parse_disk_size(chosen["disk_size"]),
                enlarge_to_bytes=self._enlarge_to(),
                seed=replace(seed, sampler=True),
                scenario=scenario_name(seed),
            )
            if options.enlarge_to_bytes is not None:
                self._enlarge = threading.Event()
            plan, layout = self._booting(options, done, self._enlarge), self._layout(None)
        self._show_start(layout)
        self._mark_stale("The result below is that of an earlier run; a boot goes on.")
        return plan

    def _show_result(self, finished: Finished) -> None:
        self._finished.append(finished)
        run = finished.run
        self._result.html = result_html(finished)
        self._stale.html = ""
        self.keep(still_html(self._finished))
        self._history.html = history_html(self._finished)
        self.exports.change(export={"hidden": False})
        data, _ = disk_at(run.sizes, float("inf"), None)
        if data is not None:
            found, _ = disk_map_words(data, Given({"sizes": run.sizes}, {}, {}, "after"))
            self._disk.html = map_html(data, title=f"{found}.", scale_of=self._scale_of)

    def _export(self) -> None:
        try:
            folder = export(self._finished[-1], self._folder / "exports")
        except CloudlabError as error:
            self._exported.html = error_html(error)
            return
        self._exported.html = f"<p>Written to <code>{escaped(folder)}</code>.</p>"


def marked_html(before: str, after: str) -> str:
    """Return a text whose lines that were not in ``before`` are marked, by more than colour."""
    lines = [
        f"<mark>{escaped(line[2:])}</mark> <b>&larr; changed</b>"
        if line.startswith("+")
        else escaped(line[2:])
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
        if line.startswith(("+", " "))
    ]
    return "<pre>" + "\n".join(lines) + "</pre>"


def _commands(text: str) -> tuple[str, ...]:
    return tuple(line for line in text.splitlines() if line.strip())


class Console(BootPanel):
    """A boot's serial console with its stages, as it comes.

    Parameters
    ----------
    run : run or str
        A run to play; or the name of a case of the gallery, which live is booted here.
    prediction : Prediction, optional
        What the learner expects of it; with an empty one the panel asks, and Boot is locked
        until there is an answer.
    folder : Path
        Where live runs are recorded.

    Attributes
    ----------
    recording : Run or None
        The last run that came to its end.
    """

    def __init__(
        self,
        run: AnyRun = "default",
        *,
        prediction: Prediction | None = None,
        folder: Path | str = "runs",
    ) -> None:
        self.recording: Run | None = None
        self._shipped = open_run(run)
        self._case = run if isinstance(run, str) and run in CASES else None
        super().__init__(folder, asks=prediction is not None, only_plays=self._case is None)
        self._outcome = Pane(look="result", name="Result", role="region")
        if prediction is not None:
            first = {layer: sizes[0] for layer, sizes in ends(self._shipped).items() if sizes}
            self.prediction_form.about(first)
            self.prediction_form.set(prediction)
        asking = [self.prediction_form] if self._asks else []
        self.fill(
            *asking, self.boot_form, self.problem, self.stage, self.progress, self.console,
            self._outcome,
        )  # fmt: skip
        self.keep("<p>Nothing was booted or played here yet.</p>")

    @property
    def run(self) -> Run:
        """The last run that came to its end here; until then the shipped recording.

        While a boot goes on, this waits for its end.
        """
        self.settle()
        return self.recording or self._shipped

    @property
    def origin(self) -> str:
        """Where :attr:`run` comes from, in words."""
        return origin(self.run)

    def _plan(self) -> Plan:
        # The prediction that holds now is compared with the run.
        prediction = self.prediction if self._asks else None

        def done(run: Run | None) -> None:
            if run is None:
                return
            self.recording = run
            if prediction is not None:
                self._outcome.html = predicted_html(Finished(run, prediction))
            last = console_html(run.console[-LINES:])
            stages = [
                (one.stage, format_seconds(one.start_s), format_seconds(one.end_s))
                for one in run.record.stages
            ]
            table = table_html(("stage", "from", "to"), stages, caption="The boot's stages")
            self.keep(f"{origin_html(run)}{table}{last}{self._outcome.html}")

        if self.live:
            return self._booting(self._options(), done)
        return self._playing(self._shipped, done)

    def _options(self) -> Options:
        assert self._case is not None, "a run that is only played has no live switch"
        if CASES[self._case].follows is not None:
            raise UsageError(
                "This run can only be played.", hint="Switch live off and press Boot again."
            )
        recipe = CASES[self._case].recipe
        name = make_recipe(recipe.suite, recipe.filesystem, recipe.variant).name
        image = recall(name)
        if image is None:
            raise ImageError(
                f"The image {name} is not in the cache.",
                hint=f"Build it with: cloudlab build --filesystem {recipe.filesystem} "
                f"--variant {recipe.variant}",
            )
        return case_options(self._case, image)
