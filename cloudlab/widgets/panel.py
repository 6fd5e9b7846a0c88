"""What every panel is made of: forms of native controls, panes of HTML, and what stays of it.

ipywidgets' own controls will not do: JupyterLab takes arrow keys pressed in them for its
shortcuts, and its sliders have no name for a screen reader (ipywidgets 8.1, JupyterLab 4.6).
"""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from IPython import get_ipython
from IPython.display import HTML, display

from cloudlab.errors import CloudlabError
from cloudlab.html import escaped
from cloudlab.run.value import Run

AnyRun = Run | Path | str

_GONE = (
    "The kernel of this panel is gone, so nothing here works any more. Run the cell again to "
    "get a new panel."
)
#: Cell -> the run of it that made panels last, and these panels.
_MADE: dict[str, tuple[str, list[weakref.ref[Panel]]]] = {}

_HERE = resources.files("cloudlab.widgets")
_LOOK, _COMMON, _FORM, _PANE = (
    _HERE.joinpath(name).read_text("utf-8")
    for name in ("look.css", "common.js", "form.js", "pane.js")
)


class Form(anywidget.AnyWidget):
    """Named native controls.

    Attributes
    ----------
    label : str
        What the group is called.
    fields : list of dict
        As :func:`field` and :func:`button` make them; fixed once it is shown.
    values : dict
        Name -> value.
    state : dict
        Name -> what is different now: ``disabled``, ``hidden``, ``label``, ``help``,
        ``max``, ``choices``.
    """

    _esm = _COMMON + _FORM
    _css = _LOOK
    label = traitlets.Unicode().tag(sync=True)
    fields: traitlets.List[Any] = traitlets.List().tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, label: str, fields: Sequence[dict[str, Any]]) -> None:
        super().__init__(
            label=label,
            fields=list(fields),
            values={one["name"]: one["value"] for one in fields if "value" in one},
        )

    def change(self, **changes: dict[str, Any]) -> None:
        """Change what is different about some controls; what is not named stays."""
        new = {name: {**self.state.get(name, {}), **change} for name, change in changes.items()}
        self.state = {**self.state, **new}

    def on_values(self, react: Callable[[], None]) -> None:
        """Call ``react`` after each change of a value."""
        self.observe(lambda _: react(), "values")

    def on_press(self, **buttons: Callable[[], None]) -> None:
        """Call a button's function when it is pressed."""

        def react(_: Any, message: Any, __: Any) -> None:
            name = message.get("press") if isinstance(message, dict) else None
            # A button that looks dead may have been pressed before it did.
            if name in buttons and not self.state.get(name, {}).get("disabled"):
                buttons[name]()

        self.on_msg(react)


class Pane(anywidget.AnyWidget):
    """A part of the page whose HTML changes; what goes in must be escaped already.

    Parts with ``data-key`` move from their former place; a button with ``data-line`` shows and
    marks the part of the same panel with that ``data-number``, such as a console line.

    Attributes
    ----------
    html : str
    name, role : str
        For screen readers.
    look : str
        ``text``, ``note``, ``disk``, ``result``; ``console`` scrolls and stays at its end;
        ``gone`` shows its name once the kernel is gone.
    folds : str
        ``open`` or ``closed`` for a fold with ``summary`` (HTML) as its head; else empty.
    """

    _esm = _COMMON + _PANE
    _css = _LOOK
    html = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    role = traitlets.Unicode().tag(sync=True)
    look = traitlets.Unicode("text").tag(sync=True)
    folds = traitlets.Unicode().tag(sync=True)
    summary = traitlets.Unicode().tag(sync=True)


def field(
    name: str,
    kind: str,
    label: str,
    value: Any = "",
    *,
    help: str = "",  # noqa: A002 - what it is called in forms
    group: str = "",
    **more: Any,
) -> dict[str, Any]:
    """Return a control.

    Parameters
    ----------
    name : str
    kind : str
        ``select``, ``text``, ``textarea``, ``checkbox``, ``range`` or ``question``.
    label, help : str
    value : Any
        Its first value.
    group : str
        The fold that it is in.
    **more
        ``choices`` of (value, label); ``rows``; ``min``, ``max``, ``step``, ``unit``.
    """
    own = {"name": name, "kind": kind, "label": label, "value": value, "help": help}
    return {**own, "group": group, **more}


def button(name: str, label: str, *, primary: bool = False) -> dict[str, Any]:
    """Return a button."""
    own = {"name": name, "kind": "button", "label": label, "help": "", "group": ""}
    return {**own, "primary": primary}


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
        self._gone = Pane(html=hider, look="gone", name=_GONE)
        self._box = ipywidgets.VBox().add_class("cloudlab-panel")
        self._kept_html = ""
        self._handle: Any = None
        self._closed = False
        # Callbacks may come from several threads (JupyterLab's subshells).
        self._lock = threading.RLock()
        self.fill(*parts)
        _take_over(self)

    def fill(self, *parts: ipywidgets.Widget) -> None:
        """Put other parts in the panel, from top to bottom."""
        self._box.children = (self._gone, *parts)

    def keep(self, html: str) -> None:
        """Replace what stays in the notebook when the panel is gone."""
        self._kept_html = html
        if self._handle is not None:
            self._handle.update(self._still())

    def close(self) -> None:
        """End what the panel has going on, and the panel; idempotent."""
        self._closed = True
        self._box.close()

    def _still(self) -> Any:
        # A panel that is not there leaves "model not found", a widget output without elements.
        dead = f".jp-OutputArea-child:has(#{self._kept_id}) + .jp-OutputArea-child"
        return HTML(  # type: ignore[no-untyped-call]
            f'<div id="{self._kept_id}"><style>{dead} .jupyter-widgets:not(:has(*)) '
            "{ display: none }</style>"
            "<p><small>What this panel showed last. Run the cell to use it again.</small></p>"
            f"{self._kept_html}</div>"
        )

    def _ipython_display_(self) -> None:
        self._handle = display(self._still(), display_id=True)  # type: ignore[no-untyped-call]
        display(self._box)  # type: ignore[no-untyped-call]


def _take_over(panel: Panel) -> None:
    """Note a new panel, and close those that the same cell had made in an earlier run."""
    kernel = getattr(get_ipython(), "kernel", None)
    parent = (kernel.get_parent("shell") if kernel else None) or {}
    cell = parent.get("metadata", {}).get("cellId")
    if not cell:
        return
    execution = str(parent.get("header", {}).get("msg_id", ""))
    before, panels = _MADE.get(cell, (execution, []))
    if before != execution:
        for former in panels:
            if (old := former()) is not None:
                old.close()
        panels = []
    _MADE[cell] = (execution, [*panels, weakref.ref(panel)])


def origin(run: Run) -> str:
    """Return where a run comes from, as a sentence's beginning."""
    return run.label[:1].upper() + run.label[1:]


def origin_html(run: Run) -> str:
    """Return where a run comes from as a line in small print."""
    return f"<p><small>{escaped(origin(run))}</small></p>"


def or_reason(make: Callable[[], str]) -> str:
    """Return a part of a result, or why it is not there: the rest is shown all the same."""
    try:
        return make()
    except CloudlabError as error:
        return f"<p><small>{escaped(error.message)}</small></p>"


def error_html(error: CloudlabError) -> str:
    """Return an error and what to do about it."""
    hint = f"<br>{escaped(error.hint)}" if error.hint else ""
    return f"<p><b>{escaped(error.message)}</b>{hint}</p>"
