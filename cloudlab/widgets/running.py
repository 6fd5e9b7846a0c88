"""RunningMachines: what runs on this host, with Stop."""

from __future__ import annotations

import threading
import time
import weakref

from cloudlab.errors import CloudlabError
from cloudlab.html import escaped, table_html
from cloudlab.machine import registry
from cloudlab.widgets.boot_part import error_html
from cloudlab.widgets.native import Form, Pane, button, field
from cloudlab.widgets.panel import Panel

#: Seconds between two looks at the registry.
_PERIOD_S = 2.0


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
        shown.refresh()
        # No reference is held while waiting.
        del shown
        time.sleep(_PERIOD_S)
