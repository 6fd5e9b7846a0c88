"""Scrubber: drag through a boot and see the disk at that moment."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from cloudlab.errors import CloudlabError
from cloudlab.html import escaped
from cloudlab.run.value import open_run
from cloudlab.units import format_bytes, format_seconds
from cloudlab.widgets.boot_part import console_html
from cloudlab.widgets.disk_map import disk_at, map_html, origin
from cloudlab.widgets.native import Form, Pane, button, field
from cloudlab.widgets.panel import AnyRun, Panel

if TYPE_CHECKING:
    import pandas as pd

_ON_DISK = ("virtual_disk", "partition", "filesystem")

#: Console lines that are shown of each moment.
_LINES = 8

_STEP_S = 0.1


class Scrubber(Panel):
    """A boot, second by second: stage, console, and the disk as it was last measured.

    Parameters
    ----------
    run : run

    Raises
    ------
    CloudlabError
        If the run has no sizes.
    """

    def __init__(self, run: AnyRun) -> None:
        self.recording = open_run(run)
        self._sizes = self.recording.sizes
        # What people read, without the report's frames.
        self._lines = self.recording.console.find()
        self._line_times = [line.time_s for line in self._lines]
        self._changes = change_times(self._sizes)
        self._scale_of, _ = disk_at(self._sizes, 0.0, self.recording.record.disk_before)
        took_s = self.recording.record.time_s or 0.0
        end_s = max([took_s, *self._line_times[-1:], *self._changes[-1:]])
        # Before the first measurement there is nothing to see.
        start_s = _just_after(self._changes[0]) if self._changes else 0.0
        self.slider = Form(
            "Moment",
            [
                field(
                    "time_s", "range", "Seconds since launch", start_s, min=0,
                    max=round(end_s + _STEP_S, 1), step=_STEP_S, unit="s",
                ),
                button("earlier", "Change before this"),
                button("later", "Change after this"),
            ],
        )  # fmt: skip
        self._moment = Pane(role="region", name="The disk at this moment")
        self._console = Pane(role="log", name="Console at this moment", look="console lines")
        super().__init__(self.slider, self._moment, self._console)
        self.slider.on_values(self._show)
        self.slider.on_press(earlier=lambda: self._leap(-1), later=lambda: self._leap(+1))
        self._show()
        self.keep(self._still())

    @property
    def time_s(self) -> float:
        """The moment that is shown, in seconds since launch; may be set."""
        return float(self.slider.values["time_s"])  # noqa: PD011 - a trait, no table

    @time_s.setter
    def time_s(self, time_s: float) -> None:
        self.slider.values = {"time_s": time_s}

    def _leap(self, direction: int) -> None:
        # A moment is shown to a tenth of a second, so it counts as passed once it is near.
        if direction > 0:
            ahead = [one for one in self._changes if one > self.time_s + _STEP_S / 2]
        else:
            ahead = [one for one in reversed(self._changes) if one < self.time_s - _STEP_S / 2]
        if ahead:
            self.time_s = _just_after(ahead[0])

    def _show(self) -> None:
        time_s = self.time_s
        data, how = disk_at(self._sizes, time_s, self.recording.record.disk_before)
        clock, stage = format_seconds(time_s), self.recording.stage_at(time_s)
        drawn = (
            ""
            if data is None
            else map_html(data, title=f"The disk at {clock}:", scale_of=self._scale_of)
        )
        self._moment.html = (
            f"<p><b>{clock}</b>, stage <b>{escaped(stage)}</b>; the overlay file takes up "
            f"{format_bytes(overlay_at(self._sizes, time_s))}<br>"
            f"<small>{escaped(how)}. {escaped(origin(self.recording))}.</small></p>{drawn}"
        )
        here = bisect.bisect_right(self._line_times, time_s)
        self._console.html = console_html(self._lines[max(0, here - _LINES) : here])

    def _still(self) -> str:
        try:
            return self.recording.plot("timeline").to_html()
        except CloudlabError as error:
            return f"<p>{escaped(error.message)}</p>"


def _just_after(time_s: float) -> float:
    return round(time_s + _STEP_S / 2, 1)


def change_times(sizes: pd.DataFrame) -> list[float]:
    """Return when the guest first saw each new size of a partition or filesystem, in seconds."""
    rows = sizes[sizes["layer"].isin(_ON_DISK) & sizes["exact"].fillna(False)]
    rows = rows.dropna(subset=["time_s"]).sort_values("time_s", kind="stable")
    before = rows.groupby(["layer", "device"], dropna=False)["size_bytes"].shift()
    changed = rows[before.ne(rows["size_bytes"]).fillna(True)]
    return sorted({float(one) for one in changed["time_s"]})


def overlay_at(sizes: pd.DataFrame, time_s: float) -> int | None:
    """Return what the overlay file took up on the host at a moment, in bytes."""
    rows = sizes[(sizes["layer"] == "overlay_file") & sizes["time_s"].le(time_s).fillna(False)]
    return int(rows["size_bytes"].iloc[-1]) if len(rows) else None
