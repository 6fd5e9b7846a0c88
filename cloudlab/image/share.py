"""``cloudlab share``: serve the image cache, read-only, to a classroom without internet.

The server offers an index, ``SHA256SUMS`` and, below ``images/``, exactly the files that a
record in the cache describes.  Below ``site/`` it offers a folder of web pages, if it has one.  The
number of connections is limited, and idle ones are closed.
With ``--class`` it also takes one small answer from each learner, and shows none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import html
import io
import ipaddress
import logging
import os
import resource
import socket
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
from tornado import httpserver, web
from tornado.iostream import IOStream, StreamClosedError

from cloudlab import paths
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.image.cache import (
    INDEX,
    Image,
    cached_images,
    is_plain,
    is_sha256,
    sha256_of,
    write_index,
)
from cloudlab.units import format_bytes

#: The port that is tried first.
PORT = 8765

#: Seconds within which a connection must send its request, and between two pieces of the
#: response that it takes.
REQUEST_TIMEOUT_S = 30.0
STALL_TIMEOUT_S = 60.0

#: Seconds within which it must do so where all connections are taken.
FULL_TIMEOUT_S = 2.0

#: The longest answer of a learner to the class, and the server's reply once it is kept.
MOST_ANSWER_BYTES = 16 << 10
KEPT = "kept"

#: The most connections at one time, where the limit on open files allows as many: a class opens its
#: pages all at once, and each browser has up to six connections.
MOST_CONNECTIONS = 2000

#: Keeps the answer (bytes) of the learner with a number (hexadecimal digits).
Accept = Callable[[str, bytes], None]

#: What a folder of the site shows.
_DEFAULT_PAGE = "index.html"

#: How interfaces are called that lead to containers, virtual machines or a tunnel.
_INNER_NETWORKS = (
    "docker", "br-", "veth", "virbr", "podman", "cni", "bridge", "vmenet", "utun",
)  # fmt: skip

_LOG = logging.getLogger(__name__)

#: Open files that are not connections or the files that these download.
_OTHER_FILES = 64
#: Seconds to wait for a connection to end where no more files can be opened, or be accepted.
_PAUSE_S, _MOMENT_S = 0.2, 0.01
#: Connections that the kernel holds until they are accepted.
_BACKLOG = 2048


class ShareServer(contextlib.AbstractContextManager["ShareServer"]):
    """A running mirror, as a context manager; ending it twice is harmless.

    Parameters
    ----------
    address : str, optional
        The address of this host to listen on; default: the one that the local network
        uses for it.  ``0.0.0.0`` listens on all.
    port : int, optional
        Default: :data:`PORT`, or a free one if that is taken.
    folder : Path, optional
        Default: the cache's images.
    accept : callable, optional
        Keeps a learner's answer, given the learner's number and the bytes; raises
        :class:`CloudlabError` for one that it refuses.  Default: no answers are taken.
    site : Path, optional
        A folder of web pages to serve below ``/site/``; see :func:`find_site`.

    Attributes
    ----------
    url : str
        The value for the learners' ``CLOUDLAB_MIRROR``.

    Raises
    ------
    UsageError
        If the address is not this host's, or the given port is taken.
    CloudlabError
        If no address was given and this host is on no network, or no more files can be opened.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        port: int | None = None,
        folder: Path | None = None,
        accept: Accept | None = None,
        site: Path | None = None,
    ) -> None:
        self._accept, self._site = accept, site
        self._folder = folder or paths.images_folder()
        everywhere = address in {"0.0.0.0", "::"}  # noqa: S104
        shown = address if address and not everywhere else lan_address()
        self._socket = _listen(address or shown, port)
        shown = f"[{shown}]" if ":" in shown else shown
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="cloudlab-share", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            # Where no file can be opened, glibc aborts if Python ends before its threads.
            self._thread.join()
            self._socket.close()
            hint = "Close other programs, or raise the limit on open files: ulimit -n 4096"
            with paths.os_errors_as(CloudlabError, "The server could not start", hint=hint):
                raise self._failure

    def images(self) -> list[Image]:
        """Return the images that are served at this moment, newest first."""
        return served_images(self._folder)

    def close(self) -> None:
        """Stop serving; running downloads break off, and their clients can resume them."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve())
        except Exception as error:
            if self._ready.is_set():
                raise
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        server = _Server(self._folder, self._accept, self._site)
        self._loop = asyncio.get_running_loop()
        accepting = asyncio.ensure_future(server.accept(self._socket))
        self._ready.set()
        with _escaped_logs():
            await self._stopped.wait()
            accepting.cancel()
            self._socket.close()
            await server.close_all_connections()


class _Server(httpserver.HTTPServer):
    """An HTTP server with a limit; a new connection replaces one that sends no request."""

    def initialize(  # type: ignore[override]
        self, folder: Path, accept: Accept | None, site: Path | None
    ) -> None:
        #: Connections without a request, oldest first, and when they were accepted.
        self._waiting: dict[IOStream, float] = {}
        self._busy: set[IOStream] = set()
        self._room = asyncio.Event()
        answers = [(r"/class/([0-9a-f]{32})", _Answer, {"accept": accept})] if accept else []
        options = {"path": str(site), "default_filename": _DEFAULT_PAGE}
        pages = [(r"/site(|/.*)", _SiteFile, options)] if site else []
        application = web.Application(
            [
                *answers,
                *pages,
                (rf"/(|{INDEX}|SHA256SUMS)", _Page),
                (r"/images/(.+)", _ImageFile, {"path": str(folder)}),
            ],
            default_handler_class=_NotFound,
            folder=folder,
            with_class=accept is not None,
            site=site,
            begin=self._begin,
            # Requests are not logged: they would cover the address on the instructor's screen.
            log_function=lambda _: None,
        )
        super().initialize(
            application,
            # One request each, so that a connection either waits for its request or is busy.
            no_keep_alive=True,
            idle_connection_timeout=REQUEST_TIMEOUT_S,
            body_timeout=REQUEST_TIMEOUT_S,
            max_body_size=MOST_ANSWER_BYTES if accept else 1,
        )

    async def accept(self, listening: socket.socket) -> None:
        """Accept connections for ever, up to the limit at one time."""
        loop, most = asyncio.get_running_loop(), _most_connections()
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
            except OSError as error:  # or the client has gone
                if error.errno in {errno.EMFILE, errno.ENFILE} and self._waiting:
                    self._drop(next(iter(self._waiting))).close()
                await asyncio.sleep(_PAUSE_S)
                continue
            while len(self._busy) >= most:
                self._room.clear()
                await self._room.wait()
            while len(self._waiting) + len(self._busy) >= most:
                await self._drop_idle()
            stream = IOStream(connection)
            self._waiting[stream] = loop.time()
            self.handle_stream(stream, address)

    async def _drop_idle(self) -> None:
        """Drop the oldest connection without a request, or wait a moment if it is a new one."""
        if self._waiting:
            oldest, since_s = next(iter(self._waiting.items()))
            if asyncio.get_running_loop().time() - since_s >= FULL_TIMEOUT_S:
                self._drop(oldest).close()
                return
        await asyncio.sleep(_MOMENT_S)

    def on_close(self, server_conn: Any) -> None:
        self._drop(server_conn.stream)
        super().on_close(server_conn)

    def _begin(self, stream: IOStream) -> None:
        """Note that the request of a connection has arrived."""
        if stream in self._waiting:
            del self._waiting[stream]
            self._busy.add(stream)

    def _drop(self, stream: IOStream) -> IOStream:
        self._waiting.pop(stream, None)
        self._busy.discard(stream)
        self._room.set()
        return stream


def _most_connections() -> int:
    """Return how many connections the limit on open files allows; a download has two files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(4, (files - _OTHER_FILES) // 2))


def raise_file_limit() -> None:
    """Let this process open as many files as :data:`MOST_CONNECTIONS` need, if it may."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS + _OTHER_FILES
    if files == resource.RLIM_INFINITY or files >= wanted:
        return
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    # macOS has a lower limit of its own.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))


def _escape(text: str) -> str:
    return text.encode("unicode_escape").decode()


@contextlib.contextmanager
def _escaped_logs() -> Iterator[None]:
    """Escape what clients send, such as control sequences, in the messages that tornado logs."""

    def escape(record: logging.LogRecord) -> bool:
        record.msg, record.args = _escape(record.getMessage()), ()
        return True

    with contextlib.ExitStack() as stack:
        for logger in (logging.getLogger(f"tornado.{name}") for name in ("general", "access")):
            logger.addFilter(escape)
            stack.callback(logger.removeFilter, escape)
        yield


def find_site(folder: Path | None = None) -> Path | None:
    """Return the folder of web pages to serve: by default what ``make docs`` built, if it did.

    Raises
    ------
    UsageError
        If ``folder`` has no ``index.html``.
    """
    place = folder or Path(__file__).parents[2] / "build" / "docs"
    if (place / _DEFAULT_PAGE).is_file():
        return place.absolute()
    if folder is None:
        return None
    raise UsageError(
        f"{folder} is not a site: there is no file {place / _DEFAULT_PAGE}.",
        hint="'make docs' in a clone of cloudlab builds the site in build/docs.",
    )


def served_images(folder: Path) -> list[Image]:
    """Return the cached images that may be served, newest first.

    Each is a plain file of the recorded name, with a recorded hash.
    """
    return [
        image
        for image in cached_images(folder)
        if is_plain(image.path) and image.path.name == image.name and is_sha256(image.sha256)
    ]


def export_line(url: str, *, with_class: bool) -> str:
    """Return what learners type in a shell before they start cloudlab."""
    names = ("CLOUDLAB_MIRROR", "CLOUDLAB_CLASS") if with_class else ("CLOUDLAB_MIRROR",)
    return " ".join(["export", *(f"{name}={url}" for name in names)])


def qr_text(url: str) -> str:
    """Return ``url`` as a QR code for a terminal."""
    import segno

    out = io.StringIO()
    segno.make_qr(url).terminal(out, border=2, compact=True)
    return out.getvalue()


def lan_address() -> str:
    """Return this host's address in the local network; a CloudlabError if it is on none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the kernel only chooses a route to an unused address (RFC 5737).
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            pass
    # Without a default route, as on a classroom's switch, only the interfaces show the address.
    if found := sorted(_own_addresses()):
        return found[0][-1]
    raise CloudlabError(
        "This host is on no network, so learners cannot reach it.",
        hint="Join the classroom's network, or name an address of this host, for example "
        "--address 192.168.1.20.",
    )


def _own_addresses() -> Iterator[tuple[bool, bool, bool, str]]:
    """Yield this host's addresses, each behind the reasons against it, for sorting."""
    states = psutil.net_if_stats()
    for interface, entries in psutil.net_if_addrs().items():
        if interface not in states or not states[interface].isup:
            continue
        for entry in entries:
            if entry.family not in {socket.AF_INET, socket.AF_INET6}:
                continue
            address = ipaddress.ip_address(entry.address.partition("%")[0])
            # A link-local IPv6 address means nothing without the interface's name.
            if address.is_loopback or (address.version == 6 and address.is_link_local):  # noqa: PLR2004
                continue
            inner = interface.startswith(_INNER_NETWORKS)
            yield inner, address.is_link_local, address.version == 6, str(address)  # noqa: PLR2004


def _listen(address: str, port: int | None) -> socket.socket:
    if port is not None and not 0 <= port <= 65535:  # noqa: PLR2004
        raise UsageError(f"{port} is not a port.", hint="Ports are 0 to 65535; 0 means a free one.")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listening = socket.create_server(
            (address, PORT if port is None else port),
            family=family,
            backlog=_BACKLOG,
            # "All addresses" includes those of IPv4, one of which is shown to the learners.
            dualstack_ipv6=address == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        if port is None and error.errno == errno.EADDRINUSE:
            return _listen(address, 0)
        hint = "Leave out --address, or use one of this host's addresses."
        if error.errno == errno.EADDRINUSE:
            hint = "Choose another --port, or leave it out for a free one."
        elif error.errno == errno.EACCES:
            hint = "Choose a --port above 1023: only the root user may use the others."
        # Python puts the address behind the system's words.
        reason = str(error.strerror).partition(" (while")[0]
        raise UsageError(
            f"Cannot listen on {address} port {PORT if port is None else port}: {reason}.",
            hint=hint,
        ) from error
    listening.setblocking(False)
    return listening


class _Handler(web.RequestHandler):
    """What all handlers share: clients cannot print on this terminal, and stalled ones are cut."""

    def prepare(self) -> None:
        self.settings["begin"](self._stream)

    @property
    def _stream(self) -> IOStream:
        connection: Any = self.request.connection
        return connection.stream  # type: ignore[no-any-return]

    def flush(self, include_footers: bool = False) -> asyncio.Future[None]:  # noqa: FBT001, FBT002
        flushed = asyncio.ensure_future(self._flushed(super().flush(include_footers), self._stream))
        flushed.add_done_callback(lambda done: done.cancelled() or done.exception())
        return flushed

    @staticmethod
    async def _flushed(written: asyncio.Future[None], stream: IOStream) -> None:
        await asyncio.wait({written}, timeout=STALL_TIMEOUT_S)
        if not written.done():
            stream.close()
            raise StreamClosedError
        await written

    def log_exception(self, _: Any, value: BaseException | None, __: Any) -> None:
        # Refused requests and full hosts are answered, not logged: clients could flood the log.
        if not isinstance(value, web.HTTPError | OSError):
            lines = "".join(traceback.format_exception(value)).splitlines()
            _LOG.error("%s", "\n".join(map(_escape, lines)))

    def write_error(self, status_code: int, **_: Any) -> None:
        self.finish(f"{status_code}\n")


class _NotFound(_Handler):
    def prepare(self) -> None:
        super().prepare()
        raise web.HTTPError(404)


class _Page(_Handler):
    """The front page, the index and the checksums of the images that are there now."""

    def get(self, name: str) -> None:
        images = served_images(self.settings["folder"])
        if name == INDEX:
            kind, text = "application/json", write_index(images)
        elif name == "SHA256SUMS":
            sums = (f"{image.sha256} *{image.name}\n" for image in images)
            kind, text = "text/plain", "".join(sums)
        else:
            kind, text = "text/html", _front_page(images, self.request.host, self.settings)
        self.set_header("Content-Type", f"{kind}; charset=UTF-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'")
        self.write(text)

    head = get


class _Answer(_Handler):
    """A learner's answer; a PUT, which no page of another site can send."""

    def initialize(self, accept: Accept) -> None:
        self._accept = accept

    def put(self, learner: str) -> None:
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        try:
            self._accept(learner, self.request.body)
        except CloudlabError as error:
            self.set_status(503 if type(error) is CloudlabError else 400)
            self.finish(error.message)
        else:
            self.finish(KEPT)


def _front_page(images: list[Image], host: str, settings: dict[str, Any]) -> str:
    rows = "".join(
        f'<li><a href="images/{image.name}">{image.name}</a> '
        f"({format_bytes(image.file_size_bytes)}, {html.escape(image.trust)})</li>"
        for image in images
    )
    links = ""
    if site := settings["site"]:
        links = '<p>Without installing anything: <a href="site/">the course and its pages</a>'
        if (site / "player" / _DEFAULT_PAGE).is_file():
            links += ', <a href="site/player/">boots to watch in the browser</a>'
    line = export_line(f"http://{host}", with_class=settings["with_class"])
    return (
        '<!doctype html><html lang=en><meta name=viewport content="width=device-width">'
        f"<title>cloudlab mirror</title><main><h1>cloudlab mirror</h1>{links}"
        f"<p>Before you start cloudlab, type:</p><p><code>{html.escape(line)}</code></p>"
        f"<ul>{rows}</ul></main></html>"
    )


class _ImageFile(_Handler, web.StaticFileHandler):
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


class _SiteFile(_Handler, web.StaticFileHandler):
    """A file of the site; nothing hidden, and no link that leads out of the folder."""

    def parse_url_path(self, url_path: str) -> str:
        return url_path[1:]

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        if "\0" in self.path or _is_hidden(self.path.split("/")):
            raise web.HTTPError(404)
        self._check(root, absolute_path)
        # For a folder this is its default page, or None where the client is sent to "folder/".
        found = super().validate_absolute_path(root, absolute_path)
        if found is not None:
            self._check(root, found)
        return found

    @staticmethod
    def _check(root: str, path: str) -> None:
        # tornado before 6.5.9 follows links out of the folder.
        place, target = (Path(os.path.realpath(one)) for one in (root, path))
        if not target.is_relative_to(place) or _is_hidden(target.relative_to(place).parts):
            raise web.HTTPError(404)

    def compute_etag(self) -> str:
        # Not of the content, which tornado hashes once: the site may be built again meanwhile.
        assert self.absolute_path is not None
        stat = Path(self.absolute_path).stat()
        return f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'

    def set_extra_headers(self, _: str) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")


def _is_hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith(".") for part in parts)
