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
_LOOK = _HERE.joinpath("look.css").read_text("utf-8")


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

    _esm = _HERE.joinpath("form.js").read_text("utf-8")
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

    Attributes
    ----------
    html : str
    name, role : str
        For screen readers.
    look : str
        ``text``, ``console`` or ``note``.
    scrolls : bool
        Whether it scrolls on its own and stays at its end.
    """

    _esm = _HERE.joinpath("pane.js").read_text("utf-8")
    _css = _LOOK
    html = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    role = traitlets.Unicode().tag(sync=True)
    look = traitlets.Unicode("text").tag(sync=True)
    scrolls = traitlets.Bool(default_value=False).tag(sync=True)


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
        Its first value; a range may start at None, unset.
    group : str
        The fold that it is in.
    **more
        ``choices`` of (value, label); ``rows``; ``min``, ``max``, ``step``, ``unit``, ``unset``.
    """
    return {
        "name": name,
        "kind": kind,
        "label": label,
        "value": value,
        "help": help,
        "group": group,
        **more,
    }


def button(name: str, label: str, *, help: str = "", primary: bool = False) -> dict[str, Any]:  # noqa: A002
    """Return a button."""
    return {
        "name": name,
        "kind": "button",
        "label": label,
        "help": help,
        "primary": primary,
        "group": "",
    }
