"""``cloudlab share``: the cache, read-only, for a classroom without internet.

It serves an index, ``SHA256SUMS`` and, below ``images/``, exactly the files that a record
in the cache describes; whatever else lies there does not exist for it.
"""

from __future__ import annotations

import asyncio
import errno
import html
import io
import ipaddress
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from tornado import httpserver, web

from cloudlab import paths
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.image import mirror
from cloudlab.image.cache import Image, cached_images, sha256_of

#: The port that is tried first.
PORT = 8765


class ShareServer:
    """A running mirror, as a context manager; ending it twice is harmless.

    Parameters
    ----------
    address : str, optional
        The address of this host to listen on; default: the one that the local network
        sees.  ``0.0.0.0`` listens on all.
    port : int, optional
        Default: :data:`PORT`, or a free one if that is taken.
    folder : Path, optional
        Default: the cache's images.

    Attributes
    ----------
    url : str
        What learners put into ``CLOUDLAB_MIRROR``.

    Raises
    ------
    UsageError
        If the address is not this host's, or the port that was asked for is taken.
    CloudlabError
        If no address was given and this host seems to be on no network.
    """

    def __init__(
        self, *, address: str | None = None, port: int | None = None, folder: Path | None = None
    ) -> None:
        self._folder = folder or paths.images_folder()
        everywhere = address in {"0.0.0.0", "::"}  # noqa: S104
        shown = address if address and not everywhere else lan_address()
        self._socket = _listen(address or shown, port)
        shown = f"[{shown}]" if ":" in shown else shown
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="cloudlab-share", daemon=True
        )
        self._thread.start()
        self._ready.wait()

    def images(self) -> list[Image]:
        """Return what is served at this moment, newest first."""
        return served_images(self._folder)

    def close(self) -> None:
        """Stop serving; running downloads break off, and their clients can resume them."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def _serve(self) -> None:
        # A learner has nothing to say but a request line and headers.
        server = httpserver.HTTPServer(_application(self._folder), max_body_size=1)
        server.add_socket(self._socket)
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._stopped.wait()
        server.stop()
        await server.close_all_connections()


def served_images(folder: Path) -> list[Image]:
    """Return the cached images that may be served, newest first."""
    return [image for image in cached_images(folder) if mirror.shareable(image)]


def qr_text(url: str) -> str:
    """Return ``url`` as a QR code for a terminal."""
    import segno

    out = io.StringIO()
    segno.make_qr(url).terminal(out, border=2, compact=True)
    return out.getvalue()


def lan_address() -> str:
    """Return the address by which the local network knows this host.

    Raises
    ------
    CloudlabError
        If it seems to be on none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the kernel only picks the way to an address of no one (RFC 5737).
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            pass
    # A classroom's switch leads nowhere else; only the interfaces tell of it.
    if found := sorted(_own_addresses()):
        return found[0][-1]
    raise CloudlabError(
        "This host seems to be on no network, so learners could not reach it.",
        hint="Join the classroom's network, or say which address: --address 192.168.1.20.",
    )


def _own_addresses() -> Iterator[tuple[bool, bool, bool, str]]:
    """Yield this host's addresses behind what makes them the worse choice."""
    states = psutil.net_if_stats()
    for interface, entries in psutil.net_if_addrs().items():
        if interface not in states or not states[interface].isup:
            continue
        for entry in entries:
            if entry.family not in {socket.AF_INET, socket.AF_INET6}:
                continue
            address = ipaddress.ip_address(entry.address.partition("%")[0])
            # Of IPv6, an address of the link only means nothing without an interface's name.
            if address.is_loopback or (address.version == 6 and address.is_link_local):  # noqa: PLR2004
                continue
            inner = interface.startswith(("docker", "br-", "veth", "virbr", "podman", "cni"))
            yield inner, address.is_link_local, address.version == 6, str(address)  # noqa: PLR2004


def _listen(address: str, port: int | None) -> socket.socket:
    if port is not None and not 0 <= port <= 65535:  # noqa: PLR2004
        raise UsageError(f"{port} is no port: they go from 0 to 65535.")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listening = socket.create_server(
            (address, PORT if port is None else port),
            family=family,
            backlog=128,
            # "All addresses" are those of IPv4 as well: one of them is what learners are told.
            dualstack_ipv6=address == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        if port is None and error.errno == errno.EADDRINUSE:
            return _listen(address, 0)
        raise UsageError(
            f"{address} port {PORT if port is None else port} cannot be listened on: "
            f"{error.strerror}.",
            hint="Choose another --port, or an --address that this host has.",
        ) from error
    listening.setblocking(False)
    return listening


def _application(folder: Path) -> web.Application:
    return web.Application(
        [
            (r"/", _FrontPage, {"folder": folder}),
            (rf"/{mirror.INDEX}", _Index, {"folder": folder}),
            (r"/SHA256SUMS", _Checksums, {"folder": folder}),
            (r"/images/(.+)", _ImageFile, {"path": str(folder)}),
        ],
        # Refused requests are the clients' business, not a line on the instructor's screen.
        log_function=lambda _: None,
    )


class _Page(web.RequestHandler):
    def initialize(self, folder: Path) -> None:
        self.folder = folder

    def set_default_headers(self) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'")

    def head(self) -> None:
        self.get()


class _FrontPage(_Page):
    def get(self) -> None:
        rows = "".join(
            f'<li><a href="images/{image.name}">{image.name}</a> '
            f"({image.file_size_bytes / 1e6:.0f} MB, {html.escape(image.trust)})</li>"
            for image in served_images(self.folder)
        )
        address = html.escape(f"http://{self.request.host}")
        self.write(
            "<!doctype html><html lang=en><title>cloudlab mirror</title>"
            f"<h1>cloudlab mirror</h1><p>Before you start cloudlab, type:</p>"
            f"<pre>export CLOUDLAB_MIRROR={address}</pre><ul>{rows}</ul></html>"
        )


class _Index(_Page):
    def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.write(mirror.write_index(served_images(self.folder)))


class _Checksums(_Page):
    def get(self) -> None:
        self.set_header("Content-Type", "text/plain")
        for image in served_images(self.folder):
            self.write(f"{image.sha256} *{image.name}\n")


class _ImageFile(web.StaticFileHandler):
    """A recorded image, or the schema beside one; tornado serves it, with ranges."""

    _sha256 = ""

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        for image in served_images(Path(root)):
            schema = image.schema_path
            if self.path == image.name:
                self._sha256 = image.sha256
            elif schema is not None and self.path == schema.name and schema.is_file():
                self._sha256 = sha256_of(schema)
        if not self._sha256 or os.path.islink(absolute_path):  # noqa: PTH114 (tornado's words)
            raise web.HTTPError(404)
        # tornado knows no If-Range: whoever holds the start of another file gets this one whole.
        if self.request.headers.get("If-Range", self.compute_etag()) != self.compute_etag():
            self.request.headers.pop("Range", None)
        return super().validate_absolute_path(root, absolute_path)

    def compute_etag(self) -> str:
        return f'"{self._sha256}"'

    def get_content_type(self) -> str:
        return "application/octet-stream"

    def write_error(self, status_code: int, **_: Any) -> None:
        self.finish(f"{status_code}\n")
