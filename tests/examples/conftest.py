"""A web site on loopback for the example plugins, and the path of the plugins."""

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

Reply = tuple[int, dict[str, str], bytes]
Page = Callable[[str, BaseHTTPRequestHandler], Reply]


@dataclass
class Site:
    """A server. `pages` answer by path, `requests` records every request, `max_running` the concurrency."""

    origin: str = ""
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    max_running: int = 0
    running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, path: str, body: bytes | str = b"ok", status: int = 200, **headers: str) -> None:
        """Adds a page with a fixed answer."""
        data = body.encode() if isinstance(body, str) else body
        self.pages[path] = lambda method, request: (status, headers, data)

    def answer(self, method: str, request: BaseHTTPRequestHandler) -> Reply:
        """Returns the reply to a request and records the request."""
        with self.lock:
            self.requests.append((method, request.path))
            self.running += 1
            self.max_running = max(self.max_running, self.running)
        try:
            page = self.pages.get(request.path) or self.pages.get("*")
            return page(method, request) if page is not None else (404, {}, b"")
        finally:
            with self.lock:
                self.running -= 1


@pytest.fixture
def site() -> Iterator[Site]:
    """Starts a server on 127.0.0.1, on a free port."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            status, headers, body = site.answer(self.command, self)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD" and status != 304:
                self.wfile.write(body)

        do_GET = do_HEAD = _serve

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            # A client may close the connection after its answer; any other error is a fault of the test.
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)  # type: ignore[arg-type]

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.origin = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def examples() -> Path:
    """The folder of the example plugins."""
    return EXAMPLES
