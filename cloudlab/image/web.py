"""HTTP requests with retries, progress, and limits on what a server may send and how slowly.

The client is the standard library's: it follows redirects, takes proxies and certificates from
the environment, and was the fastest of those measured (urllib3 and httpx copy more).
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import http.client
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import cloudlab
from cloudlab import platforms
from cloudlab.errors import DownloadError, InterruptedRunError
from cloudlab.tools import Deadline
from cloudlab.units import format_bytes

_RETRIED_CODES = {408, 425, 429, 500, 502, 503, 504}
_REDIRECT_CODES = {301, 302, 303, 307, 308}
_PROGRESS_S = 0.1
_SMALL_BYTES = 4 << 20
_RESUME = "What has arrived is kept: the same command resumes the download."
_LOOK = "Try again later, or open the URL in a browser to see where it leads."
_CONNECT = "Check the network, and http_proxy and https_proxy if there is a proxy."

#: Seconds within which a server has to answer to count as reachable.
PROBE_TIMEOUT_S = 3.0

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How often and how long a transfer is retried."""

    #: Failures in a row, with less than a MiB received in between, before giving up.
    tries: int = 6
    #: The pause after the first failure, doubled after each; and the longest, also for Retry-After.
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0
    #: For connecting, for the whole of a response's header, and between one byte and the next.
    timeout_s: float = 30.0
    #: For the whole of a small file, such as an index, from the first try to the last.
    small_timeout_s: float = 180.0


PATIENT = Patience()


@dataclass(frozen=True)
class FetchProgress:
    """How far a transfer is."""

    #: What is fetched.
    name: str
    done_bytes: int
    #: None where the server does not say.
    total_bytes: int | None
    #: Bytes per second over the last seconds.
    rate: float
    #: Seconds to go at that rate, where it is known.
    left_s: float | None
    #: Whether another process of this host is downloading, and this one waits for it.
    waiting_for_other: bool = False
    #: What else is going on, e.g. why there is a pause.
    note: str = ""

    def words(self) -> str:
        """Return the progress, or the note, as one line for people."""
        if self.note:
            return self.note
        total = f" of {format_bytes(self.total_bytes)}" if self.total_bytes else ""
        left = f", {self.left_s:.0f} s left" if self.left_s is not None else ""
        who = "another process fetches it: " if self.waiting_for_other else ""
        rate = f", {format_bytes(int(self.rate))}/s" if self.rate else ""
        return f"{who}{format_bytes(self.done_bytes)}{total}{rate}{left}"


Progress = Callable[[FetchProgress], None]


class TransientError(Exception):
    """A failure that is worth another try, after ``wait_s`` if the server says so."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Response(http.client.HTTPResponse):
    """A response whose connection a timer ends, so that a trickle of bytes times out, too."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._socket = sock

    def begin(self) -> None:
        """Read the header, within the connection's time-out for the whole of it."""
        with self.limited(self._socket.gettimeout() or 0.0):
            super().begin()

    @contextlib.contextmanager
    def limited(self, timeout_s: float) -> Iterator[None]:
        """End the connection if the block takes longer.

        Raise a TimeoutError instead of the error that the ended connection causes in the block.
        """
        expired = threading.Event()

        def end() -> None:
            expired.set()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, http.client.HTTPException):
            if not expired.is_set():
                raise
        finally:
            timer.cancel()
        if expired.is_set():
            raise TimeoutError


class _Http(http.client.HTTPConnection):
    response_class = Response


class _Https(http.client.HTTPSConnection):
    response_class = Response


class _Handler(urllib.request.HTTPSHandler):
    """Opens http and https URLs."""

    http_request = urllib.request.HTTPSHandler.https_request

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Http, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Https, req, context=_tls(os.environ.get("SSL_CERT_FILE")))


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, *, allow_http: bool) -> None:
        self._allow_http = allow_http

    def http_error_302(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any
    ) -> Any:
        # Before urllib looks at it, whose messages do not say what is wrong with a redirect.
        location = headers.get("Location", "")
        try:
            if not location:
                raise DownloadError(
                    f"{req.full_url} answered {code} without a Location.", hint=_LOOK
                )
            if len(getattr(req, "redirect_dict", {})) >= self.max_redirections:
                raise DownloadError(
                    f"{req.full_url} is the end of more than {self.max_redirections} redirects.",
                    hint=_LOOK,
                )
            url = urllib.parse.urljoin(req.full_url, location)
            _check_scheme(url, allow_http=self._allow_http, origin=req.full_url)
            return super().http_error_302(req, fp, code, msg, headers)
        except (ValueError, http.client.InvalidURL) as error:
            raise DownloadError(
                f"{req.full_url} redirects to {location!r}, which is not a URL: {error}.",
                hint=_LOOK,
            ) from error
        finally:
            fp.close()

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


@functools.lru_cache(maxsize=1)
def _tls(_: str | None) -> ssl.SSLContext:
    """Return a context with this host's authorities, read once for each SSL_CERT_FILE."""
    return ssl.create_default_context()


def _check_scheme(url: str, *, allow_http: bool, origin: str = "") -> None:
    """Refuse a URL that is not https, or http where a checksum proves what arrives."""
    scheme = url.partition(":")[0].lower()
    what = f"{url} was refused ({origin} redirects to it)" if origin else f"{url} was refused"
    if scheme not in {"http", "https"}:
        raise DownloadError(
            f"{what}: cloudlab fetches from http and https only.",
            hint="Open the URL in a browser to see where it leads, or use another image.",
        )
    if scheme == "http" and not allow_http:
        raise DownloadError(
            f"{what}: anyone on the network can change what arrives over plain http, and no signed "
            "or pinned checksum would reveal it.",
            hint="Use an https URL, give the checksum with --checksum ALGO:HEX, or use a mirror "
            "that you trust.",
        )
    if not re.match(r"[^:]+://[^/?#]", url):
        raise DownloadError(f"{url!r} is not a URL: it names no host.")


def is_url(text: str) -> bool:
    """Return whether ``text`` is an http or https URL."""
    return text.lower().startswith(("http://", "https://"))


def open_url(
    url: str,
    *,
    allow_http: bool,
    timeout_s: float,
    headers: dict[str, str] | None = None,
    method: str = "GET",
) -> Response:
    """Open a URL once, following redirects.

    Raise a TransientError if another try may succeed, else a DownloadError; its ``__cause__`` is
    the :class:`urllib.error.HTTPError`, if there is one.
    """
    _check_scheme(url, allow_http=allow_http)
    opener = urllib.request.OpenerDirector()
    # Not build_opener(): it would open file: and ftp: URLs as well.
    for handler in (
        urllib.request.ProxyHandler(),
        _Handler(),
        _Redirects(allow_http=allow_http),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    sent = {"User-Agent": f"cloudlab/{cloudlab.__version__}", "Accept-Encoding": "identity"}
    sent |= headers or {}
    try:
        request = urllib.request.Request(url, headers=sent, method=method)  # noqa: S310 (checked)
        response: Response = opener.open(request, timeout=timeout_s)
    except (ValueError, http.client.InvalidURL) as error:
        raise DownloadError(f"{url!r} is not a URL: {error}.") from error
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _REDIRECT_CODES:
            raise DownloadError(
                f"{error.url} redirects in a circle.",
                hint=_LOOK,
            ) from error
        said = f"{error.url} answered {error.code} {error.reason}"
        if error.code in _RETRIED_CODES:
            raise TransientError(said, retry_after_s(error.headers.get("Retry-After"))) from error
        gone = "Publishers move and delete files: look at the URL's folder, or use another image."
        hint = "Open the URL in a browser to see what the server says."
        raise DownloadError(f"{said}.", hint=gone if error.code in {404, 410} else hint) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"The certificate of {url} is not valid: {error.reason.verify_message}.",
                hint="If a proxy opens TLS, name its authority's certificate in SSL_CERT_FILE. "
                "Python 3.13 and newer also refuse authorities whose certificate breaks RFC 5280, "
                "for example without key usage: ask for a corrected one. A wrong clock has the "
                f"same effect.{platforms.certificates_hint()}",
            ) from error
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise TransientError(f"{url} could not be reached: {reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise broken(url, error) from error
    return response


def answers(url: str) -> bool:
    """Return whether ``url`` can be fetched, asked once and briefly."""
    try:
        open_url(url, allow_http=True, timeout_s=PROBE_TIMEOUT_S, method="HEAD").close()
    except (TransientError, DownloadError):
        return False
    return True


def retry_after_s(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, or None."""
    if (seconds := whole_number((header or "").strip())) is not None:
        return float(seconds)
    with contextlib.suppress(ValueError, OverflowError):
        date = email.utils.parsedate_to_datetime(header or "")
        return max(0.0, date.timestamp() - time.time())
    return None


def whole_number(text: str) -> int | None:
    """Return the number of at most 18 digits that a header's text is, or None."""
    # To isdigit() alone, "²" is a digit too; int() refuses that, and thousands of digits.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None  # noqa: PLR2004


def broken(url: str, error: Exception) -> TransientError:
    """Return the error for a connection that broke."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        words = "nothing came for too long"
    return TransientError(f"{url} broke off: {words}")


class Transfer:
    """One fetch: its requests share progress, patience and the way to stop them.

    Parameters
    ----------
    name : str
        What is fetched, for messages.
    progress : callable, optional
        Called with :class:`FetchProgress`, ten times a second at most.
    patience : Patience
    cancel : threading.Event, optional
        Set by another thread to stop.
    clock : callable
        Seconds that only grow.

    Attributes
    ----------
    total_bytes : int or None
        How many bytes there will be, where the server says it.
    """

    def __init__(
        self,
        name: str,
        progress: Progress | None = None,
        *,
        patience: Patience = PATIENT,
        cancel: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.patience = patience
        self.total_bytes: int | None = None
        self._progress = progress
        self._cancel = cancel or threading.Event()
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=50)

    def show(
        self, done_bytes: int, note: str = "", *, now: bool = False, waiting: bool = False
    ) -> None:
        """Report that ``done_bytes`` are there; with ``now`` even if the last report is recent.

        ``waiting`` says that another process is downloading them.
        """
        moment = self._clock()
        due = now or not self._seen or moment - self._seen[-1][0] >= _PROGRESS_S
        if self._progress is None or not due:
            return
        if self._seen and done_bytes < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((moment, done_bytes))
        since, first = self._seen[0]
        span = moment - since
        rate = (done_bytes - first) / span if span > 0 else 0.0
        left = None
        if self.total_bytes is not None and rate > 0:
            left = max(0, self.total_bytes - done_bytes) / rate
        self._progress(
            FetchProgress(self.name, done_bytes, self.total_bytes, rate, left, waiting, note)
        )

    def check_cancelled(self) -> None:
        """Raise an :class:`~cloudlab.errors.InterruptedRunError` if another thread stops this."""
        if self._cancel.is_set():
            raise InterruptedRunError("The download was stopped.", hint=_RESUME)

    def persist(self, once: Callable[[], T], gained: Callable[[], int] = lambda: 0) -> T:
        """Call ``once`` again after each :class:`TransientError`, as long as patience allows.

        ``gained`` returns the bytes received so far; each further MiB resets the count of failures.
        """
        patience = self.patience
        failures, best = 0, gained()
        while True:
            try:
                return once()
            except TransientError as error:
                now = gained()
                failures = 1 if now >= best + (1 << 20) else failures + 1
                best = max(best, now)
                wait_s = min(patience.first_wait_s * 2 ** (failures - 1), patience.longest_wait_s)
                wait_s = max(wait_s, error.wait_s or 0.0)
                if failures >= patience.tries or wait_s > patience.longest_wait_s:
                    asked = f" The server asks to wait {wait_s:.0f} s." if error.wait_s else ""
                    answered = isinstance(error.__cause__, urllib.error.HTTPError)
                    raise DownloadError(
                        f"{error}. Given up after {failures} failed "
                        f"attempt{'s' * (failures > 1)}.{asked}",
                        hint=_RESUME if now else "Try again later." if answered else _CONNECT,
                    ) from error
                self.show(now, f"{error}; trying again in {wait_s:.0f} s", now=True)
            self._cancel.wait(wait_s)
            self.check_cancelled()

    def read_small(self, url: str, *, allow_http: bool) -> bytes:
        """Return the content of a small file, such as a checksum file.

        Raise a DownloadError if it does not arrive or is longer than 4 MiB, and an
        InterruptedRunError if it was stopped.
        """
        timeout_s, small_timeout_s = self.patience.timeout_s, self.patience.small_timeout_s
        deadline = Deadline.after(small_timeout_s)

        def once() -> bytes:
            data = bytearray()
            try:
                with (
                    open_url(url, allow_http=allow_http, timeout_s=timeout_s) as response,
                    response.limited(deadline.left_s),
                ):
                    while block := response.read1(_SMALL_BYTES + 1 - len(data)):
                        data += block
                        self.show(
                            0,
                            f"reading {url.rpartition('/')[2]}: {len(data):,} bytes so far",
                        )
                        self.check_cancelled()
                    total = whole_number(response.headers.get("Content-Length", ""))
            except (OSError, http.client.HTTPException) as error:
                if deadline.expired:
                    raise DownloadError(
                        f"{url} was not complete after {small_timeout_s:g} s.",
                        hint="The server or the network is very slow: try again later.",
                    ) from error
                raise broken(url, error) from error
            # A read with a limit takes the end of the connection for the end of the file.
            if total is not None and len(data) < min(total, _SMALL_BYTES + 1):
                raise TransientError(f"{url} broke off after {len(data):,} of {total:,} bytes")
            return bytes(data)

        data = self.persist(once)
        if len(data) > _SMALL_BYTES:
            raise DownloadError(
                f"{url} is longer than {_SMALL_BYTES:,} bytes, so it is not the small file that "
                "was expected there.",
                hint="Check the URL, in your catalogue or of the mirror.",
            )
        return data
