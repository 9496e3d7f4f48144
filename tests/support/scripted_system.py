"""A system that answers as a test tells it, over real HTTP: it keeps one resource a path."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

PAGE: Final = b"<!doctype html><title>Sign in</title>"
HTML: Final = {"Content-Type": "text/html"}
TEXT: Final = {"Content-Type": "text/plain"}
JSON: Final = {"Content-Type": "application/json"}

Written = tuple[int, dict[str, str], bytes]
Says = Callable[[dict[str, Any] | None], Written]


def shows(body: Any, status: int = 200) -> Written:
    """An answer in JSON."""
    return status, JSON, json.dumps(body).encode()


@dataclass
class System:
    """A system that keeps resources by path.

    Attributes:
        says: Method to how it answers, given the resource as it is now; well where it says nothing else.
        deaf: Methods that have no effect.
        calls: Methods, in order of arrival.
        traces: The header `traceparent` of each call; None where a call had none.
    """

    url: str = ""
    says: dict[str, Says] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    there: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    traces: list[str | None] = field(default_factory=list)

    def answer(self, method: str, path: str, body: bytes) -> Written:
        """Take effect, unless deaf, and answer."""
        self.calls.append(method)
        was_there = path in self.there
        if method == "PUT" and method not in self.deaf:
            self.there[path] = json.loads(body)
        row = self.there.get(path)
        if method == "DELETE" and method not in self.deaf:
            self.there.pop(path, None)
        if method in self.says:
            return self.says[method](row)
        if method == "PUT" or row is not None:
            return (204, {}, b"") if method == "DELETE" else shows(row, 200 if was_there else 201)
        return shows({"error": "not_found"}, 404)

    @property
    def enabled(self) -> list[bool]:
        """Of each resource there is."""
        return [row["enabled"] for row in self.there.values()]


@contextmanager
def answering() -> Iterator[System]:
    """A running system."""
    found = System()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            found.traces.append(self.headers.get("traceparent"))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, content = found.answer(self.command, self.path, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if status != 204:
                self.wfile.write(content)

        do_PUT = do_GET = do_DELETE = do_POST = _serve  # noqa: N815 - names of http.server

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()
