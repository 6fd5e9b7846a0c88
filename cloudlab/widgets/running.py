"""RunningMachines: what runs on this host, with Stop."""

from __future__ import annotations

from cloudlab.errors import CloudlabError
from cloudlab.machine import registry
from cloudlab.widgets.native import Form, Pane, button, field
from cloudlab.widgets.panel import Panel
from cloudlab.widgets.texts import error_html, safe, table_html


class RunningMachines(Panel):
    """The machines of this user that run now; looked up when it is shown and on Refresh."""

    def __init__(self) -> None:
        self._machines: dict[str, registry.RunningMachine] = {}
        self._list = Pane(name="Running machines", role="status")
        self.form = Form(
            "Machines",
            [
                field("machine", "select", "Machine", choices=[]),
                button("stop", "Stop this machine"),
                button("refresh", "Refresh"),
            ],
        )
        super().__init__(self._list, self.form)
        self.form.on_press(stop=self.stop, refresh=self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Look again."""
        with self._lock:
            self._machines = {one.ident: one for one in registry.list_running()}
            choices = [(one.ident, f"{one.name} ({one.ident})") for one in self._machines.values()]
            none = not choices
            self.form.change(
                machine={"choices": choices, "hidden": none},
                stop={"disabled": none, "hidden": none},
            )
            if self.form.values["machine"] not in self._machines:
                self.form.values = {"machine": choices[0][0] if choices else ""}
            rows = [(m.name, m.started, m.qemu_pid, m.run_folder) for m in self._machines.values()]
            head = ("machine", "started", "QEMU", "run folder")
            self._list.html = (
                "<p>No machine is running.</p>"
                if none
                else table_html(head, rows, caption="Machines that run now")
            )
            self.keep(self._list.html)

    def stop(self) -> None:
        """Stop the machine that is chosen."""
        machine = self._machines.get(str(self.form.values["machine"]))
        try:
            if machine is not None:
                registry.stop(machine)
        except CloudlabError as error:
            self._list.html = error_html(error)
            return
        self.refresh()
        if machine is not None:
            self._list.html = f"<p>Stopped {safe(machine.name)}.</p>{self._list.html}"
