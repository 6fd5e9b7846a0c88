"""GrowthLab: choose, predict, boot, compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cloudlab.disk import parse_disk_size
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.image.cache import Image, cached_images
from cloudlab.image.recipe import make_recipe
from cloudlab.lab import RunOptions, scenario_name, typical
from cloudlab.machine.accel import choose_accel
from cloudlab.recording import dated_folder
from cloudlab.seed import GrowpartMode, Profile, ResizeRootfs, SeedConfig, to_user_data
from cloudlab.tools import host_arch
from cloudlab.units import GIB, format_bytes
from cloudlab.widgets.background import Outcome, Pace, live_job, replay_job
from cloudlab.widgets.boot_part import BootPart, Plan
from cloudlab.widgets.native import Form, Pane, button, field
from cloudlab.widgets.nearest import Match, Wish, nearest, playable
from cloudlab.widgets.panel import AnyRun, Panel, all_shipped, find_run
from cloudlab.widgets.results import (
    Finished,
    Prediction,
    differences_html,
    earlier_html,
    export,
    origin,
    result_html,
)
from cloudlab.widgets.texts import error_html, marked_html, safe

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
    field("devices", "text", "growpart: devices", group=_MORE, help="such as / or /dev/vda1"),
    field(
        "ignore_growroot", "checkbox", "growpart: ignore_growroot_disabled", False, group=_MORE
    ),
    field(
        "profile", "select", "Modules", Profile.LEAN.value, group=_MORE,
        choices=[("lean", "lean: what growth needs"), ("full", "full: as a cloud runs them")],
    ),
    field("bootcmd", "textarea", "bootcmd, a command a line", rows=2, group=_MORE,
          help="runs before the growth"),
    field("runcmd", "textarea", "runcmd, a command a line", rows=2, group=_MORE,
          help="runs after the growth"),
    field("extra", "textarea", "Further keys, as YAML", rows=3, group=_MORE),
)  # fmt: skip

_STEP_GIB = 0.1


class GrowthLab(Panel):
    """Flip an option, predict, boot, and see what grew.

    Live it boots cached images and records them below ``folder``; else it plays the
    recording that is nearest to the options, and says in what it differs.

    Parameters
    ----------
    image : str, optional
        The name of the image to begin with.
    folder : Path
        Where live runs are recorded, and below it exports.

    Attributes
    ----------
    finished : list of Finished
        The runs so far, with their predictions.
    """

    def __init__(self, *, image: str | None = None, folder: Path | str = "runs") -> None:
        self.finished: list[Finished] = []
        self._folder = Path(folder)
        self._recordings = playable(all_shipped())
        self._images: dict[str, Image] = {}
        self.options = Form("Options", _OPTIONS)
        self.prediction = Form(
            "Your prediction",
            [
                field(
                    layer, "range", f"After the boot the {layer} will be", None,
                    min=0, max=20.0, step=_STEP_GIB, unit="GiB", unset="not predicted yet",
                )
                for layer in ("partition", "filesystem")
            ],
        )  # fmt: skip
        self.exports = Form("Export", [button("export", "Export figures, data and run folder")])
        self._user_data = Pane(name="User-data", look="text", role="region")
        self._match_note = Pane(look="note", role="status")
        self._result = Pane(look="result", name="Result", role="region")
        self._exported = Pane(role="status")
        self._shown_user_data = "#cloud-config\n"
        self._shown_choices: dict[str, Any] = {}
        self.boot_part = BootPart(self._plan, self._switched)
        super().__init__(
            self.boot_part.source,
            self.options,
            self._user_data,
            self._match_note,
            self.prediction,
            self.boot_part.buttons,
            *self.boot_part.widgets,
            self._result,
            self.exports,
            self._exported,
        )
        self.options.on_values(self._changed)
        self.prediction.on_values(self._refresh_boot)
        self.exports.on_press(export=self._export)
        self.exports.change(export={"hidden": True})
        self._switched()
        if image is not None:
            self.choose(image=image)

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

    def predict(self, partition_gib: float, filesystem_gib: float) -> None:
        """Predict both sizes after the boot, in GiB; this unlocks Boot."""
        self.prediction.values = {"partition": partition_gib, "filesystem": filesystem_gib}

    def boot(self) -> None:
        """Press Boot."""
        self.boot_part.boot()

    def stop(self) -> None:
        """Press Stop."""
        self.boot_part.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the boot's end, for scripts; return whether it came."""
        return self.boot_part.wait(timeout_s)

    def close(self) -> None:
        """Stop what goes on and close the panel."""
        self.boot_part.stop()
        super().close()

    def add(self, run: AnyRun) -> None:
        """Put an earlier run beside the others, for comparison.

        Raises
        ------
        RecordingError
            If there is no such run.
        """
        self._show_result(Finished(find_run(run)))

    def seed_config(self) -> SeedConfig:
        """Return the options as cloudlab knows them.

        Raises
        ------
        CloudlabError
            If one cannot be understood.
        """
        values = self.options.values
        return SeedConfig(
            growpart=GrowpartMode(values["growpart"]) if values["growpart"] else None,
            growpart_devices=tuple(values["devices"].replace(",", " ").split()),
            ignore_growroot_disabled=True if values["ignore_growroot"] else None,
            resize_rootfs=ResizeRootfs(values["resize_rootfs"])
            if values["resize_rootfs"]
            else None,
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
        seed = self.seed_config()
        wish = Wish(
            image=str(self.options.values["image"]),
            disk_size_bytes=parse_disk_size(self.options.values["disk_size"]),
            user_data=to_user_data(seed),
            profile=seed.profile.value,
        )
        return nearest(wish, self._recordings)

    def _switched(self) -> None:
        if self.boot_part.live:
            self._images = {one.name: one for one in cached_images() if one.arch == host_arch()}
            known = set(self._images)
        else:
            known = {str(one.about["image"]["name"]) for one in self._recordings}
        plain = make_recipe().name
        names = sorted(known, key=lambda name: (name != plain, name))
        self.options.change(image={"choices": [(name, name) for name in names]})
        if self.options.values["image"] not in names:
            self.choose(image=names[0] if names else "")
        self._changed()

    def _changed(self) -> None:
        with self._lock:
            if self.options.values != self._shown_choices:
                # A prediction is about these options; others need one of their own.
                self.prediction.values = {"partition": None, "filesystem": None}
                self._shown_choices = dict(self.options.values)
            self._refresh()

    def _refresh(self) -> None:
        try:
            seed = self.seed_config()
            text = to_user_data(replace(seed, report=False, profile=Profile.FULL))
            whole = to_user_data(seed)
            disk_gib = parse_disk_size(self.options.values["disk_size"]) / GIB
            note = "" if self.boot_part.live else self._note(self.match())
        except CloudlabError as error:
            self._match_note.html = error_html(error)
            self.boot_part.unlock(unlocked=False, help="Correct the options first")
            return
        if text != self._shown_user_data or not self._user_data.html:
            self._user_data.html = (
                "<b>The user-data that these options make</b>"
                f"{marked_html(self._shown_user_data, text)}"
                "<details><summary>with what cloudlab adds to measure the disk</summary>"
                f"<pre>{safe(whole)}</pre></details>"
            )
            self._shown_user_data = text
        self._match_note.html = note
        limit = {"max": max(4.0, round(disk_gib * 1.1, 1))}
        self.prediction.change(partition=limit, filesystem=limit)
        self._refresh_boot()

    def _note(self, match: Match) -> str:
        if match.exact:
            return ""
        return (
            "<b>Nobody recorded this combination.</b> Boot plays the nearest recording, "
            f"which differs:{differences_html(match.differences)}"
        )

    def _refresh_boot(self) -> None:
        unlocked = None not in self.prediction.values.values()
        word = "Boot" if self.boot_part.live else "Boot (recorded)"
        self.boot_part.unlock(
            unlocked=unlocked,
            label=word if unlocked else f"{word}: predict first",
            help="" if unlocked else "Move both sliders to unlock Boot",
        )

    def _plan(self, live: bool, pace: Pace) -> Plan:  # noqa: FBT001
        # The options may be changed while the machine boots; the prediction was for these.
        prediction = self._prediction()
        if not live:
            match = self.match()
            recording = match.recording
            return Plan(
                replay_job(recording, pace),
                float(recording.about.get("time_s", 0.0)),
                origin(recording),
                lambda outcome: self._done(outcome, prediction, match.differences),
                plays=True,
            )
        seed = self.seed_config()
        image = self._images.get(str(self.options.values["image"]))
        if image is None:
            raise UsageError("No image is chosen.", hint="Run 'cloudlab build' first.")
        options = RunOptions(
            image=image,
            disk_size_bytes=parse_disk_size(self.options.values["disk_size"]),
            seed=replace(seed, sampler=True),
            scenario=scenario_name(seed),
        )
        accel = choose_accel(image.arch).accel
        disk = format_bytes(options.disk_size_bytes)
        return Plan(
            live_job(options, dated_folder(self._folder, options.scenario)),
            typical.expected_s(options, accel),
            f"Booting {image.name} with a disk of {disk} under {accel.value.upper()}",
            lambda outcome: self._done(outcome, prediction, ()),
        )

    def _done(
        self, outcome: Outcome, prediction: Prediction | None, differences: tuple[str, ...]
    ) -> None:
        recording = outcome.recording
        if recording is not None and recording.about.get("outcome") != "interrupted":
            self._show_result(Finished(recording, prediction, differences))

    def _prediction(self) -> Prediction | None:
        partition, filesystem = self.prediction.values.values()
        if partition is None or filesystem is None:
            return None
        return Prediction(round(partition * GIB), round(filesystem * GIB))

    def _show_result(self, finished: Finished) -> None:
        self.finished.append(finished)
        html = result_html(finished) + earlier_html(self.finished)
        self._result.html = html
        self.keep(html)
        self.exports.change(export={"hidden": False})

    def _export(self) -> None:
        try:
            folder = export(self.finished[-1], self._folder / "exports")
        except CloudlabError as error:
            self._exported.html = error_html(error)
            return
        self._exported.html = f"<p>Written to <code>{safe(folder)}</code>.</p>"


def _commands(text: str) -> tuple[str, ...]:
    return tuple(line for line in text.splitlines() if line.strip())
