"""The guest's network: passt where it works, else QEMU's own user-mode network.

Both give the guest outgoing connections and let nobody in, without privileges.  QEMU's own
(slirp) maps the gateway's address to the host's loopback address, with no option against it,
so the guest reaches databases, notebooks and whatever else listens there.  passt can leave
that mapping out.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import tempfile

from cloudlab import platforms
from cloudlab.errors import LaunchError
from cloudlab.machine.config import qemu_program
from cloudlab.tools import clean_environment, find_tool, install_hint, run, which

#: What the guest asks for names; passt passes it on to this host's resolver, even to one that
#: listens on the loopback address.
DNS_ADDRESS = "169.254.1.1"

_OPTIONS = ("--foreground", "--quiet", "--ipv4-only", "--no-map-gw", "--dns-forward", DNS_ADDRESS)

_REINSTALL = "Update passt or install it again, or use --network none."

#: Seconds that passt may take to set itself up, and to end after QEMU.
_START_S = 10.0
_END_S = 2.0


def network_warning(arch: str) -> str:
    """Return what the user should know about the network that guests of ``arch`` get here.

    Empty if passt can be started; otherwise the guest gets QEMU's user-mode network.
    """
    if not platforms.is_linux():
        why = "passt, which would prevent that, runs on Linux only."
    elif which("passt") is None:
        why = f"passt, which would prevent that, is not installed. {install_hint('passt')}"
    elif "\nstream\n" not in run([qemu_program(arch), "-netdev", "help"]).stdout:
        why = "passt, which would prevent that, needs QEMU 7.2 or newer."
    else:
        try:
            Passt().close()
        except LaunchError as error:
            why = (
                f"passt, which would prevent that, does not work here. {error.message} {error.hint}"
            )
        else:
            return ""
    return (
        "The guest reaches services that listen on this host's loopback address, such as "
        f"databases and notebooks: {why}"
    )


class Passt(contextlib.AbstractContextManager["Passt"]):
    """A running passt, which ends when QEMU closes its end of the socket.

    Attributes
    ----------
    socket : socket.socket
        QEMU's end; closed here once QEMU has inherited it.

    Raises
    ------
    LaunchError
        With passt's own words.
    """

    def __init__(self) -> None:
        passt = find_tool("passt")
        self.socket, theirs = socket.socketpair()
        reading, writing = os.pipe()
        with contextlib.ExitStack() as stack, tempfile.TemporaryFile() as words:
            stack.callback(os.close, reading)
            # Where root starts it, passt is "nobody" by the time it opens this.
            os.fchmod(writing, 0o622)
            options = ["--fd", str(theirs.fileno()), "--pid", f"/dev/fd/{writing}", *_OPTIONS]
            try:
                self._process = subprocess.Popen(
                    [passt, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=words,
                    pass_fds=(theirs.fileno(), writing),
                    env=clean_environment(),
                    start_new_session=True,
                )
            except OSError as error:
                self.socket.close()
                raise LaunchError(
                    f"{passt} did not start: {error.strerror}.", hint=_REINSTALL
                ) from error
            finally:
                theirs.close()
                os.close(writing)
            # It writes its number once it is set up; the pipe ends if it fails before.
            ready, _, _ = select.select([reading], [], [], _START_S)
            if ready and os.read(reading, 32):
                return
            self.close()
            words.seek(0)
            said = words.read().decode(errors="replace").strip().splitlines()
            raise LaunchError(
                f"passt did not start: {said[-1].rstrip('.') if said else 'it said nothing'}.",
                hint=_REINSTALL,
            )

    def close(self) -> None:
        """End passt and wait for its end; idempotent."""
        self.socket.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __exit__(self, *_: object) -> None:
        self.close()
