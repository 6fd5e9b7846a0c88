"""Every picture, from tables alone.

Each kind of figure has three functions: ``plot_KIND(tables, ax=None) -> Axes`` draws,
``KIND_alt`` says its numbers in words, ``KIND_data`` returns the table behind it;
:data:`KINDS` lists them.  :func:`save_figure` and :func:`to_html` export.

Importing this costs nothing: pandas and matplotlib come with the first function used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudlab.figures._shim import Plot, plot
    from cloudlab.figures.disk_map import disk_map_alt, disk_map_data, plot_disk_map
    from cloudlab.figures.export import figure_bytes, save_data, save_figure, to_html
    from cloudlab.figures.frame import SIZES, new_axes
    from cloudlab.figures.kinds import KINDS, Kind
    from cloudlab.figures.labels import LABELS
    from cloudlab.figures.layers import layers_alt, layers_data, plot_layers
    from cloudlab.figures.overlay import overlay_map_alt, overlay_map_data, plot_overlay_map
    from cloudlab.figures.prediction import (
        is_right,
        plot_prediction,
        prediction_alt,
        prediction_data,
    )
    from cloudlab.figures.scenarios import plot_scenarios, scenarios_alt, scenarios_data
    from cloudlab.figures.stages import plot_stages, stages_alt, stages_data
    from cloudlab.figures.timeline import plot_timeline, timeline_alt, timeline_data
    from cloudlab.units import format_bytes, format_seconds

_HOMES = {
    "disk_map": ("disk_map_alt", "disk_map_data", "plot_disk_map"),
    "export": ("figure_bytes", "save_data", "save_figure", "to_html"),
    "frame": ("SIZES", "new_axes"),
    "kinds": ("KINDS", "Kind"),
    "_shim": ("Plot", "plot"),
    "labels": ("LABELS",),
    "layers": ("layers_alt", "layers_data", "plot_layers"),
    "overlay": ("overlay_map_alt", "overlay_map_data", "plot_overlay_map"),
    "prediction": ("is_right", "plot_prediction", "prediction_alt", "prediction_data"),
    "scenarios": ("plot_scenarios", "scenarios_alt", "scenarios_data"),
    "stages": ("plot_stages", "stages_alt", "stages_data"),
    "timeline": ("plot_timeline", "timeline_alt", "timeline_data"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "KINDS",
    "LABELS",
    "SIZES",
    "Kind",
    "Plot",
    "disk_map_alt",
    "disk_map_data",
    "figure_bytes",
    "format_bytes",
    "format_seconds",
    "is_right",
    "layers_alt",
    "layers_data",
    "new_axes",
    "overlay_map_alt",
    "overlay_map_data",
    "plot",
    "plot_disk_map",
    "plot_layers",
    "plot_overlay_map",
    "plot_prediction",
    "plot_scenarios",
    "plot_stages",
    "plot_timeline",
    "prediction_alt",
    "prediction_data",
    "save_data",
    "save_figure",
    "scenarios_alt",
    "scenarios_data",
    "stages_alt",
    "stages_data",
    "timeline_alt",
    "timeline_data",
    "to_html",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("format_bytes", "format_seconds"):
        return getattr(importlib.import_module("cloudlab.units"), name)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"cloudlab.figures.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
