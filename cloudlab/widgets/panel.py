"""What panels are made of: forms of native controls, panes of HTML, and what stays of a panel.

The panels that boot nothing are here, too: a quiz, user-data, the running machines.

ipywidgets' own controls will not do: JupyterLab takes arrow keys pressed in them for its
shortcuts, and its sliders have no name for a screen reader (ipywidgets 8.1, JupyterLab 4.6).
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from IPython import get_ipython
from IPython.display import HTML, display

from cloudlab.course.prediction import FILLS, LAYERS, STAYS, Prediction
from cloudlab.errors import CloudlabError, SeedError, UsageError
from cloudlab.html import escaped, table_html
from cloudlab.machine import registry
from cloudlab.run.value import Run
from cloudlab.seed import Problem, check_user_data, load_schema
from cloudlab.units import format_bytes

AnyRun = Run | Path | str

_GONE = (
    "The kernel of this panel is gone, so nothing here works any more. Run the cell again to "
    "get a new panel."
)
#: Cell -> the run of it that made panels last, and these panels.
_MADE: dict[str, tuple[str, list[weakref.ref[Panel]]]] = {}

#: The value of a prediction's choice for a size that is typed.
_SIZE = "size"
#: Seconds between two looks at the registry of machines.
_PERIOD_S = 2.0

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
        self._handle = display(self._still(), display_id=self._kept_id)  # type: ignore[no-untyped-call]
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


class PredictionForm(Form):
    """Both predictions: stays, fills, or another size, which is then typed."""

    def __init__(self) -> None:
        fields = []
        for layer in LAYERS:
            fields += [
                field(layer, "select", f"The {layer} will", choices=_choices(layer, "")),
                field(f"{layer}_size", "text", f"Size of the {layer}", help="such as 19.9G"),
            ]
        super().__init__("Your prediction: after the boot", fields)
        self.on_values(self._show)
        self._show()

    def about(self, sizes: Mapping[str, int]) -> None:
        """Name the sizes in bytes that the partition and the filesystem start from."""
        known = {layer: format_bytes(size_bytes) for layer, size_bytes in sizes.items()}
        self.change(**{one: {"choices": _choices(one, known.get(one, ""))} for one in LAYERS})

    def set(self, prediction: Prediction) -> None:
        """Fill in a prediction; an empty one empties the form."""
        values: dict[str, str] = {}
        for layer in LAYERS:
            text = prediction.of(layer)
            meant = text in ("", STAYS, FILLS)
            values |= {layer: text if meant else _SIZE, f"{layer}_size": "" if meant else text}
        self.values = values

    def prediction(self) -> Prediction:
        """Return the prediction; empty as long as half of it is missing.

        Raises
        ------
        CloudlabError
            If a size cannot be understood.
        """
        texts = {}
        for layer in LAYERS:
            chosen = str(self.values[layer])
            text = str(self.values[f"{layer}_size"]).strip() if chosen == _SIZE else chosen
            # Each half is checked, whether the other one is there or not.
            if text:
                Prediction(**{**dict.fromkeys(LAYERS, STAYS), layer: text})
            texts[layer] = text
        return Prediction(**texts) if all(texts.values()) else Prediction()

    def problem(self) -> str:
        """Return what is missing or wrong; empty if the prediction can be used."""
        try:
            return "" if self.prediction().partition else "Predict both to unlock Boot."
        except CloudlabError as error:
            return str(error)

    def _show(self) -> None:
        problem = self.problem()
        for layer in LAYERS:
            note = problem if f"for the {layer}" in problem else "such as 19.9G"
            self.change(**{f"{layer}_size": {"hidden": self.values[layer] != _SIZE, "help": note}})


def _choices(layer: str, size: str) -> list[tuple[str, str]]:
    room = "the disk" if layer == "partition" else "its partition"
    at = f" at {size}" if size else ""
    return [
        ("", "choose ..."), (STAYS, f"stay{at}"), (FILLS, f"fill {room}"),
        (_SIZE, "have another size"),
    ]  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question with its answers.

    Attributes
    ----------
    text : str
    answers : mapping of str to str
        Each answer, and the feedback on it.
    right : str
        The right one.

    Raises
    ------
    UsageError
        If the right answer is none of them.
    """

    text: str
    answers: Mapping[str, str]
    right: str

    def __post_init__(self) -> None:
        if self.right not in self.answers:
            raise UsageError(f"The right answer {self.right!r} is none of {list(self.answers)}.")

    def verdict(self, answer: str) -> str:
        """Return the feedback on an answer."""
        word = "Right." if answer == self.right else "Not quite."
        return f"{word} {self.answers[answer]}".strip()


class Quiz(Panel):
    """Questions with feedback at once.

    Parameters
    ----------
    questions : sequence of Question
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = list(questions)
        self.form = Form(
            "Questions",
            [
                field(
                    f"q{number}", "question", f"{number}. {one.text}", None,
                    choices=[(answer, answer) for answer in one.answers],
                )
                for number, one in enumerate(self.questions, start=1)
            ],
        )  # fmt: skip
        super().__init__(self.form)
        self.form.on_values(self._answer)
        self._answer()

    def answer(self, *answers: str) -> None:
        """Answer the first questions, as if by hand."""
        given = {f"q{number}": one for number, one in enumerate(answers, start=1)}
        self.form.values = {**self.form.values, **given}

    @property
    def score(self) -> tuple[int, int]:
        """How many answers are right, of how many questions."""
        pairs = zip(self.questions, self.form.values.values(), strict=True)
        return sum(given == one.right for one, given in pairs), len(self.questions)

    def _answer(self) -> None:
        still = []
        for (name, given), one in zip(self.form.values.items(), self.questions, strict=True):
            said = one.verdict(given) if given in one.answers else ""
            self.form.change(**{name: {"help": said}})
            answer = (
                f"your answer: {given}. {said}" if said else f"answers: {', '.join(one.answers)}"
            )
            still.append(f"<li>{escaped(one.text)}<br>{escaped(answer)}</li>")
        self.keep(f"<ol>{''.join(still)}</ol>")


class SeedEditor(Panel):
    """A text of user-data with the problems that cloud-init would have with it.

    Parameters
    ----------
    text : str
        What it begins with.
    schema : Path, optional
        cloud-init's own schema, such as an image's ``schema_path``.

    Raises
    ------
    SeedError
        If the schema cannot be read.
    """

    def __init__(self, text: str = "#cloud-config\n", *, schema: Path | None = None) -> None:
        self._schema: dict[str, Any] | None = load_schema(schema)
        rows = min(20, max(6, text.count("\n") + 2))
        self.form = Form("User-data", [field("text", "textarea", "User-data", text, rows=rows)])
        self._problems = Pane(role="status", name="Problems")
        super().__init__(self.form, self._problems)
        self.form.on_values(self._check)
        self._check()

    @property
    def text(self) -> str:
        """The text as it stands; may be set."""
        return str(self.form.values["text"])

    @text.setter
    def text(self, text: str) -> None:
        self.form.values = {"text": text}

    @property
    def problems(self) -> list[Problem]:
        """What is wrong in it, in the order of its lines."""
        return check_user_data(self.text, self._schema)

    def _check(self) -> None:
        try:
            items = "".join(
                f"<li><b>{one.severity.capitalize()}</b>, {escaped(one)}</li>"
                for one in self.problems
            )
        except SeedError as error:  # the schema of an image from elsewhere
            items = f"<li>Not checked: {escaped(error.message)}</li>"
        found = (
            f"<ul>{items}</ul>" if items else "<p>No problem found: cloud-init accepts this.</p>"
        )
        self._problems.html = found
        self.keep(f"<pre>{escaped(self.text)}</pre>{found}")


class RunningMachines(Panel):
    """The machines of this user that run now; it keeps itself up to date."""

    def __init__(self) -> None:
        self._machines: dict[str, registry.RunningMachine] = {}
        self._list = Pane(name="Running machines", role="status")
        self._said = Pane(role="status")
        self.form = Form(
            "Machines",
            [
                field("machine", "select", "Machine", choices=[]),
                button("stop", "Stop this machine"),
            ],
        )
        super().__init__(self._list, self.form, self._said)
        self.form.on_press(stop=self.stop)
        self.refresh()
        looker = threading.Thread(
            target=_look, args=(weakref.ref(self),), name="cloudlab-machines", daemon=True
        )
        looker.start()

    def refresh(self) -> None:
        """Look again, and show what changed."""
        with self._lock:
            machines = {one.ident: one for one in registry.list_running()}
            if machines == self._machines and self._list.html:
                return
            self._machines = machines
            choices = [(one.ident, f"{one.name} ({one.ident})") for one in machines.values()]
            none = not choices
            self.form.change(
                machine={"choices": choices, "hidden": none},
                stop={"disabled": none, "hidden": none},
            )
            if self.form.values["machine"] not in machines:
                self.form.values = {"machine": choices[0][0] if choices else ""}
            rows = [(m.name, m.started, m.qemu_pid, m.run_folder) for m in machines.values()]
            head = ("machine", "started", "QEMU process", "run folder")
            table = table_html(head, rows, caption="Machines that run now")
            self._list.html = "<p>No machine is running.</p>" if none else table
            self.keep(self._list.html)

    def stop(self) -> None:
        """Stop the machine that is chosen."""
        machine = self._machines.get(str(self.form.values["machine"]))
        if machine is None:
            return
        try:
            registry.stop(machine)
        except CloudlabError as error:
            self._said.html = error_html(error)
            return
        self._said.html = f"<p>Stopped {escaped(machine.name)}.</p>"
        self.refresh()


def _look(panel: weakref.ref[RunningMachines]) -> None:
    """Refresh a panel until it is closed or gone."""
    while (shown := panel()) is not None and not shown._closed:  # noqa: SLF001
        # A list that cannot be read now may be readable later.
        with contextlib.suppress(CloudlabError, OSError):
            shown.refresh()
        # No reference is held while waiting.
        del shown
        time.sleep(_PERIOD_S)
