"""The open-loop sender: schedule, reading of answers, and fate of each delivery. No test measures time."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench import deliveries, openloop, schedule
from tests.bench.figures import BROKEN, UNANSWERED
from tests.bench.openloop import Answers, Plan, whole, word
from tests.bench.storms import summed

OK = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 19\r\n\r\n{"status":"queued"}'
LATER = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
NOW_US = 1_800_000_000_000_000


@contextlib.contextmanager
def server(answer: Callable[[int], bytes | None]) -> Iterator[int]:
    """Answers the n-th connection with `answer(n)` to every request; None closes it instead; empty says nothing."""

    def serve(line: socket.socket, number: int) -> None:
        with line, contextlib.suppress(ConnectionResetError):  # the sender's way to end
            read = b""
            while data := line.recv(65_536):
                read += data
                head, mark, body = read.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) if mark else 0
                if mark and len(body) >= length:
                    read = body[length:]
                    said = answer(number)
                    if said is None:
                        return
                    line.sendall(said)
                    if b"close" in said:
                        return

    def accept() -> None:
        for number in range(1_000):
            try:
                line, _ = listening.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(line, number)))
            threads[-1].start()

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()
    for thread in threads:
        thread.join()


def sent(port: int, folder: Path, count: int, connections: int, patience_s: float = 20.0) -> tuple[Plan, Answers]:
    file = folder / "deliveries.tsv"
    deliveries.write(file, count, NOW_US)
    plan = Plan(port, "/hook", str(file), connections, schedule.at_once(count, 0), patience_s)
    return plan, openloop.run(plan)


def said(answers: Answers) -> list[str]:
    return [answers.words[number] for number in answers.said]


def test_poisson_instants_ascend_within_their_span_at_the_given_rate() -> None:
    due_s = schedule.poisson(1_000, 20, seed=1)
    assert due_s == sorted(due_s)
    assert due_s[0] > 0
    assert due_s[-1] < 20
    assert len(due_s) == pytest.approx(20_000, rel=0.05)


def test_equal_seeds_give_equal_schedules() -> None:
    assert schedule.poisson(8, 5, seed=3) == schedule.poisson(8, 5, seed=3) != schedule.poisson(8, 5, seed=4)


def test_a_response_is_complete_with_its_last_byte() -> None:
    assert whole(OK)
    assert not any(whole(OK[:end]) for end in range(len(OK)))
    assert whole(LATER)


def test_an_answer_is_read_as_status_and_word() -> None:
    assert word(OK) == "200 queued"
    assert word(LATER) == "503"


def test_a_request_is_signed_timestamped_and_framed(tmp_path: Path) -> None:
    file = tmp_path / "deliveries.tsv"
    deliveries.write(file, 3, NOW_US)
    plan = Plan(1, "/hook", str(file), 1, [0.0, 0.0], 1.0)
    first, second = openloop.requests(plan, "2026-11-26T00:00:00Z")
    [(signature, raw), *_] = deliveries.prepare(3, NOW_US)
    head, _, body = first.partition(b"\r\n\r\n")
    assert body == raw
    assert head.startswith(b"POST /hook HTTP/1.1\r\n")
    for line in (
        f"X-Genesys-Signature: {signature}",
        f"Content-Length: {len(raw)}",
        "X-Genesys-Event-Timestamp: 2026-",
    ):
        assert f"\r\n{line}".encode() in head
    assert first != second


def test_every_delivery_is_answered_over_few_connections(tmp_path: Path) -> None:
    with server(lambda _: OK) as port:
        _, answers = sent(port, tmp_path, 50, 3)
    assert said(answers) == ["200 queued"] * 50
    assert min(answers.waited_us) > 0
    assert answers.lasted_s > 0


def test_a_connection_closed_after_its_answer_is_replaced(tmp_path: Path) -> None:
    with server(lambda number: LATER if number < 2 else OK) as port:
        _, answers = sent(port, tmp_path, 20, 2)
    assert sorted(said(answers)) == ["200 queued"] * 18 + ["503"] * 2


def test_a_connection_that_ends_without_an_answer_is_counted_as_broken(tmp_path: Path) -> None:
    with server(lambda number: None if number == 0 else OK) as port:
        _, answers = sent(port, tmp_path, 20, 2)
    assert sorted(said(answers)) == ["200 queued"] * 19 + [BROKEN]


def test_an_unanswered_delivery_counts_with_the_whole_wait(tmp_path: Path) -> None:
    with server(lambda number: b"" if number == 0 else OK) as port:
        plan, answers = sent(port, tmp_path, 20, 2, patience_s=0.3)
    assert sorted(said(answers)) == ["200 queued"] * 19 + [UNANSWERED]
    storm = summed(1, "x", "y", plan, answers, 0.0)
    assert storm.max_ms == pytest.approx(300)
    assert storm.said == {"200 queued": 19, UNANSWERED: 1}
