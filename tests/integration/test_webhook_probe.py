"""A probe of a URL ends within the sender's patience, whatever answers there."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from services.adapters.process.clock import now_us
from services.adapters.webhook_probe import ProbeAnswer, ProbeSender, WayFault

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server of a single connection, which `answer` answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError), listening.accept()[0] as connection:
                connection.recv(65_536)
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive(), "the probe has closed the connection"


def probed(answer: Callable[[socket.socket], None]) -> ProbeAnswer:
    with answering(answer) as port, ProbeSender(now_us) as sender:
        return sender.send(f"http://127.0.0.1:{port}/", b"{}", {})


def test_an_answer_is_read_whole() -> None:
    body = b'{"status": "proved"}'
    found = probed(lambda to: to.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body))
    assert (found.status, found.said, found.fault) == (200, "proved", None)


def test_a_head_or_body_of_a_byte_at_a_time_is_a_time_out() -> None:
    for begin in (b"HTTP/1.1 200 OK\r\nx-slow: ", HEAD + b"content-length: 100000\r\n\r\n"):

        def drip(to: socket.socket, begin: bytes = begin) -> None:
            to.sendall(begin)
            while True:
                to.sendall(b" ")
                time.sleep(0.2)

        found = probed(drip)
        assert (found.status, found.fault, found.detail) == (0, WayFault.TIMEOUT, "no whole answer")
        assert found.took_s < 10


def test_a_body_without_end_is_cut_off() -> None:
    def pour(to: socket.socket) -> None:
        to.sendall(HEAD + b"\r\n")
        while True:
            to.sendall(b" " * 65_536)

    found = probed(pour)
    assert (found.fault, found.detail) == (WayFault.CUT, "the answer is too long")
