"""What values show of themselves in a notebook: a small table, with the figure that fits.

The rooms below figures know no figures, so their values have tables only.  ``%load_ext
cloudlab.lab.display`` lets a notebook show both; the course's own calls do the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cloudlab import figures
from cloudlab.console import printable
from cloudlab.disk import DiskLayout, Overlay, by_region, inspect_disk, overlay_map
from cloudlab.errors import CloudlabError
from cloudlab.explain import Explanation
from cloudlab.image.cache import Image
from cloudlab.recording import Recording

if TYPE_CHECKING:
    import pandas as pd


def load_ipython_extension(shell: Any) -> None:
    """Show values with their figure from now on; what ``%load_ext`` calls."""
    # A value of a run shows its figure by itself.
    shown: dict[type, Callable[[Any], str]] = {
        Recording: recording_html,
        Image: image_html,
        Overlay: overlay_html,
        DiskLayout: layout_html,
        Explanation: explanation_html,
    }
    formatter = shell.display_formatter.formatters["text/html"]
    for kind, show in shown.items():
        formatter.for_type(kind, show)


def register() -> None:
    """Do so in the notebook that runs this; anywhere else do nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        load_ipython_extension(shell)


def recording_html(recording: Recording) -> str:
    """Return a run as its disk map, its explanation and what was booted."""
    from cloudlab.lab.report import run_html

    return run_html(recording)


def layout_html(layout: DiskLayout) -> str:
    """Return a disk's partitions with their map."""
    return _layout_figure(layout) + layout._repr_html_()


def image_html(image: Image) -> str:
    """Return an image's record with the map of its disk, if that can still be read."""
    try:
        drawn = _layout_figure(inspect_disk(image.path, image.format))
    except CloudlabError:
        drawn = ""
    return drawn + image._repr_html_()


def overlay_html(overlay: Overlay) -> str:
    """Return an overlay's sizes with the map of what was written to it."""
    return _overlay_figure(overlay) + overlay._repr_html_()


def explanation_html(explanation: Explanation) -> str:
    """Return an explanation with what it says of sizes, before and after."""
    from cloudlab.sizes import sizes_frame

    rows = [
        {
            "run": "run",
            "scenario": "",
            "stage": stage,
            "layer": str(one.subject),
            "device": one.device or None,
            "mountpoint": "/",
            "size_bytes": size_bytes,
            "exact": True,
        }
        for one in explanation.statements
        for stage, size_bytes in (("before", one.from_bytes), ("after", one.to_bytes))
        if size_bytes is not None
    ]
    drawn = _figure("layers", {"sizes": sizes_frame(rows)}) if rows else ""
    return drawn + explanation._repr_html_()


def _layout_figure(layout: DiskLayout) -> str:
    from cloudlab.lab.table import layout_sizes

    if not layout.partitions:
        return ""
    # No boot lies before or after it.
    name = printable(layout.path.name)
    return _figure("disk-map", {"sizes": layout_sizes(layout)}, state=name)


def _overlay_figure(overlay: Overlay) -> str:
    from cloudlab.lab.table import extents_frame, partitions_frame

    try:
        layout = inspect_disk(overlay.path, "qcow2")
        extents = by_region(overlay_map(overlay.path), layout)
    except CloudlabError:
        return ""
    name = overlay.path.name
    tables = {
        "extents": extents_frame(name, extents),
        "partitions": partitions_frame(name, layout.to_json()),
    }
    return _figure("overlay-map", tables)


def _figure(kind: str, tables: Mapping[str, pd.DataFrame], *, state: str | None = None) -> str:
    try:
        return figures.plot(kind, tables, state=state).to_html()
    except CloudlabError:
        return ""  # the table beside it says what there is
