"""A real HTTP server on loopback that fails on purpose, one fault per request."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyServer(ThreadingHTTPServer):
    """Serves ``files`` with ranges; ``faults`` (handler -> None) answer the next requests instead."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, tls: ssl.SSLContext | None = None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.ranges = True
        self.flooded = 0
        self.faults: dict[str, deque] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.released = threading.Event()
        scheme = "http"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://localhost:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def put(self, path, data, etag='"1"'):
        self.files[path] = data
        self.etags[path] = etag
        return self.url + path

    def fail(self, path, *faults):
        self.faults[path] = deque(faults)

    def asked(self, path):
        return [headers for method, seen, headers in self.seen if (method, seen) == ("GET", path)]

    def handle_error(self, request, client_address):
        """Say nothing: clients that hang up are what these tests are about."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.released.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        faults = self.server.faults.get(self.path)
        if faults:
            fault = faults.popleft()
            if fault is not None:
                fault(self)
                self.hang_up()
                return
        self.answer()

    do_HEAD = do_GET  # noqa: N815

    def answer(self, *, send=None, declare=None):
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        etag, total = self.server.etags[self.path], len(data)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", etag) == etag
        start = int(wanted[1]) if wanted and same and self.server.ranges else 0
        if start and start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(declare or total - start))
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(OSError):
                self.wfile.write(data[start:] if send is None else data[start : start + send])

    def hang_up(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)


def cut(after):
    return lambda handler: handler.answer(send=after)


def declare(length):
    return lambda handler: handler.answer(send=length, declare=length)


def stall(after):
    def fault(handler):
        handler.answer(send=after)
        handler.wfile.flush()
        handler.server.released.wait(60)

    return fault


def drip(text, *, pause_s=0.05):
    """Send ``text``, a whole answer with its header, and go on with its last byte, slowly."""

    def fault(handler):
        handler.wfile.write(text)
        with contextlib.suppress(OSError):
            while not handler.server.released.wait(pause_s):
                handler.wfile.write(text[-1:])

    return fault


def flood(handler):
    """Send half a GiB of a file whose length is not said."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    block = bytes(510) + b"\x55\xaa" + bytes((1 << 20) - 512)
    with contextlib.suppress(OSError):
        for _ in range(512):
            handler.wfile.write(block)
            handler.server.flooded += len(block)


def status(code, **headers):
    def fault(handler):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def garbage(handler):
    handler.wfile.write(b"\x00\xffnot http at all\r\n\r\n" * 10)


class Proxy(ThreadingHTTPServer):
    """An HTTP proxy that keeps the request lines it saw."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.lines: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class _ProxyHandler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        self.server.lines.append(self.requestline)
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(far, self.connection), daemon=True)
            back.start()
            _pump(self.connection, far)
            back.join()

    def do_GET(self):
        self.server.lines.append(self.requestline)
        match = re.fullmatch(r"http://([^:/]+):(\d+)(/.*)", self.path)
        with socket.create_connection((match[1], int(match[2]))) as far:
            headers = "".join(
                f"{name}: {value}\r\n"
                for name, value in self.headers.items()
                if name.lower() != "connection"
            )
            far.sendall(f"GET {match[3]} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
            _pump(far, self.connection)


def _pump(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
