"""What all panels share: what stays when they are gone, and which panel replaces which."""

from __future__ import annotations

import threading
import uuid
import weakref
from pathlib import Path
from typing import Any

import ipywidgets
from IPython import get_ipython
from IPython.display import HTML, display

from cloudlab.run.value import Run
from cloudlab.widgets.native import Pane

AnyRun = Run | Path | str


_GONE = (
    "The kernel of this panel is gone, so nothing here works any more. Run the cell again to "
    "get a new panel."
)


class Panel:
    """A panel of widgets, with a static result beside it.

    Widgets are dead in a notebook that is opened again; so what they showed last comes before
    them as plain HTML, hidden while they live.  Running a cell again closes the panels that the
    same cell made before.

    Parameters
    ----------
    *parts : Widget
        From top to bottom.
    """

    def __init__(self, *parts: ipywidgets.Widget) -> None:
        self._kept_id = f"cloudlab-kept-{uuid.uuid4().hex[:12]}"
        hider = f"<style>#{self._kept_id} {{ display: none }}</style>"
        self._box = ipywidgets.VBox([Pane(html=hider, look="gone", name=_GONE), *parts])
        self._box.add_class("cloudlab-panel")
        self._kept_html = ""
        self._handle: Any = None
        self._closed = False
        # Callbacks may come from several threads (JupyterLab's subshells).
        self._lock = threading.RLock()
        _CELLS.take_over(self)

    def keep(self, html: str) -> None:
        """Replace what stays in the notebook when the panel is gone."""
        self._kept_html = html
        if self._handle is not None:
            self._handle.update(_html(self._kept()))

    def close(self) -> None:
        """End what the panel has going on, and the panel; idempotent."""
        self._closed = True
        self._box.close()

    def _kept(self) -> str:
        # A panel that is not there leaves "model not found", a widget output without elements.
        dead = f".jp-OutputArea-child:has(#{self._kept_id}) + .jp-OutputArea-child"
        return (
            f'<div id="{self._kept_id}"><style>{dead} .jupyter-widgets:not(:has(*)) '
            "{ display: none }</style>"
            "<p><small>What this panel showed last. Run the cell to use it again.</small></p>"
            f"{self._kept_html}</div>"
        )

    def _ipython_display_(self) -> None:
        self._handle = _display(_html(self._kept()), display_id=True)
        _display(self._box)


class _Cells:
    """Which panels each cell made when it ran last."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[str, list[weakref.ref[Panel]]]] = {}

    def take_over(self, panel: Panel) -> None:
        """Note a new panel, and close what its cell had made in an earlier run."""
        cell, execution = _running_cell()
        if not cell:
            return
        before, panels = self._made.get(cell, (execution, []))
        if before != execution:
            for former in panels:
                if (old := former()) is not None:
                    old.close()
            panels = []
        self._made[cell] = (execution, [*panels, weakref.ref(panel)])


def _display(shown: Any, **options: Any) -> Any:
    show: Any = display  # untyped
    return show(shown, **options)


def _html(text: str) -> Any:
    make: Any = HTML  # untyped
    return make(text)


def _running_cell() -> tuple[str, str]:
    """Return the id of the cell that is run, and of this run; empty outside of notebooks."""
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return "", ""
    parent = kernel.get_parent("shell") or {}
    cell = parent.get("metadata", {}).get("cellId", "")
    return str(cell or ""), str(parent.get("header", {}).get("msg_id", ""))


_CELLS = _Cells()
