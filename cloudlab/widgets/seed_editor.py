"""SeedEditor: user-data, checked as it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloudlab.html import escaped
from cloudlab.seed import Problem, check_user_data, load_schema
from cloudlab.widgets.native import Form, Pane, field
from cloudlab.widgets.panel import Panel


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
