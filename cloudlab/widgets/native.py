"""The two parts that every panel is made of: a form of native controls, and a pane of HTML.

ipywidgets' own controls will not do: JupyterLab takes arrow keys pressed in them for its
shortcuts, and its sliders have no name for a screen reader (ipywidgets 8.1, JupyterLab 4.6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import anywidget
import traitlets

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
