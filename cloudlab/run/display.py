"""Rich display of values below the room of figures: their table with the figure that fits.

``%load_ext cloudlab`` registers it in a notebook; the course's own calls do the same.  A
:class:`~cloudlab.run.value.Run` displays its figure by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cloudlab import figures
from cloudlab.console import printable
from cloudlab.disk import DiskLayout, Overlay, by_region, inspect_disk, overlay_map
from cloudlab.errors import CloudlabError
from cloudlab.explanation import Explanation
from cloudlab.image.cache import Image
from cloudlab.run.tables import extents_frame, layout_sizes, partitions_frame

if TYPE_CHECKING:
    import pandas as pd


def load_ipython_extension(shell: Any) -> None:
    """Register the displays; what ``%load_ext`` calls."""
    shown: dict[type, Callable[[Any], str]] = {
        Image: image_html,
        Overlay: overlay_html,
        DiskLayout: layout_html,
        Explanation: explanation_html,
    }
    formatter = shell.display_formatter.formatters["text/html"]
    for kind, show in shown.items():
        formatter.for_type(kind, show)


def register() -> None:
    """Register the displays in the notebook that runs this code, if any."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        load_ipython_extension(shell)


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
            "run": printable(explanation.name),
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
    if not layout.partitions:
        return ""
    name = printable(layout.path.name)
    # No boot lies before or after it.
    return _figure("disk-map", {"sizes": layout_sizes(layout)}, state=name)


def _overlay_figure(overlay: Overlay) -> str:
    try:
        layout = inspect_disk(overlay.path, "qcow2")
        extents = by_region(overlay_map(overlay.path), layout)
    except CloudlabError:
        return ""
    name = printable(overlay.path.name)
    tables = {
        "extents": extents_frame(name, extents),
        "partitions": partitions_frame(name, layout),
    }
    return _figure("overlay-map", tables)


def _figure(kind: str, tables: Mapping[str, pd.DataFrame], **options: Any) -> str:
    try:
        return figures.plot(kind, tables, **options).to_html()
    except CloudlabError:
        return ""  # the table beside it says what there is
