"""Quiz: questions with feedback on every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudlab.errors import UsageError
from cloudlab.html import escaped
from cloudlab.widgets.native import Form, field
from cloudlab.widgets.panel import Panel


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
