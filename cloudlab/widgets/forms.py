"""Forms and panels that boot nothing: a prediction, a quiz, user-data, the running machines."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudlab.course.prediction import FILLS, LAYERS, STAYS, Prediction
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.html import escaped, table_html
from cloudlab.machine import registry
from cloudlab.seed import Problem, check_user_data, load_schema
from cloudlab.units import format_bytes
from cloudlab.widgets.panel import Form, Pane, Panel, button, error_html, field

_SIZE = "size"
#: Seconds between two looks at the registry of machines.
_PERIOD_S = 2.0


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
        items = "".join(
            f"<li><b>{one.severity.capitalize()}</b>, {escaped(one)}</li>" for one in self.problems
        )
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
