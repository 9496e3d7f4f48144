"""A real HTTP server in a thread, whose answers a function gives."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

Written = tuple[int, dict[str, str], bytes]
"""Status, headers and content of an answer."""
_BODYLESS: Final = 204


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler, bytes], Written | None]) -> Iterator[str]:
    """A running server; yields its URL.

    Args:
        answer: Request and body to the answer; None ends the connection without one.
    """

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            written = answer(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))
            if written is None:
                self.close_connection = True
                return
            status, headers, content = written
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != _BODYLESS:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if status != _BODYLESS:
                self.wfile.write(content)

        do_PUT = do_GET = do_DELETE = do_POST = do_PATCH = _serve  # noqa: N815 - names of http.server

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
