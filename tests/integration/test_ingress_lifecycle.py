"""The ingress starts, reports readiness, refuses while Kafka is unreachable, drains and ends."""

import contextlib
import json
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.rights import Operation, Service, rights
from schemas.topics import RECEIVED
from services.engines.ports import free_ports
from tests.support.eventually import eventually
from tests.support.guarded_broker import guarded_broker
from tests.support.ingress_process import Ingress, Line, Reply, body, head, ingress, key, make_topics, raw, request

pytestmark = pytest.mark.engines


def _checks(running: Ingress) -> dict[str, str]:
    found: dict[str, str] = running.get("/readyz").said["checks"]
    return found


def test_the_ingress_is_ready_once_the_topics_exist(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> None:
    with ingress(kafka_bootstrap, topic_prefix, tmp_path) as running:
        assert running.get("/livez").said == {"status": "live"}
        eventually(lambda: "lifecycle topics apply" in _checks(running)["kafka"])
        assert running.get("/readyz").status == 503
        assert running.post(body()).status == 503
        make_topics(kafka_bootstrap, topic_prefix)
        eventually(lambda: running.get("/readyz").status == 200)
        told = body()
        eventually(lambda: running.post(told).status == 200)
        assert running.get("/version").said["name"] == "genesys-lifecycle"


def test_the_ingress_starts_without_kafka_and_answers_503_with_retry_after(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with ingress(f"127.0.0.1:{port}", "x-", tmp_path) as running:
        reply = running.post(body())
        assert reply.status == 503
        assert int(reply.fields["retry-after"]) > 0
        assert running.post(body(event="upgraded")).status == 503, "parked is a promise too"
        assert running.post(body(), secret="x" * 32).status == 401, "a forger learns nothing of our troubles"
        assert running.get("/livez").status == 200
        eventually(lambda: _checks(running)["kafka"] not in {"ok", "not asked yet"})
        assert running.metric("lifecycle_ingress_answers_total", status="503", reason="kafka") == 2
        assert running.metric("lifecycle_ingress_dead_letters_total") == 0, "the letter was never written"
        assert eventually(lambda: running.logged("unwritten"))
        assert all(line.startswith("{") for line in running.lines), "what librdkafka says is a JSON line too"
        assert 1 <= sum("Connect to" in line for line in running.lines) <= 3, "and not twenty a second"
        running.process.terminate()
        assert running.process.wait(20) == 0


def test_an_unusable_configuration_reports_every_fault_at_once(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"endpoints": {"default": {"current": {"secret": "canary"}}}}))
    environment = {
        "KEYRING_FILE": str(bad),
        "KAFKA_BOOTSTRAP_SERVERS": "",
        "EGRESS_MAP": '{"a": "b"}',
        "HOST": "0.0.0.0",
    }
    with ingress("", "x-", tmp_path, **environment) as running:
        assert running.process.wait(20) == 78
        eventually(lambda: "EGRESS_MAP" in "".join(running.lines))
        told = "".join(running.lines)
    assert "KEYRING_FILE" in told
    assert "endpoints.default.current.secret" in told
    assert "KAFKA_BOOTSTRAP_SERVERS" in told
    assert "canary" not in told


def test_a_taken_port_ends_the_ingress_as_a_fault_of_the_configuration(kafka_bootstrap: str, tmp_path: Path) -> None:
    with (
        ingress(kafka_bootstrap, "x-", tmp_path) as first,
        ingress(kafka_bootstrap, "x-", tmp_path, PORT=str(first.port)) as second,
    ):
        assert second.process.wait(20) == 78
        assert eventually(lambda: "Address already in use" in "".join(second.lines))


def test_an_unknown_setting_of_librdkafka_is_named(kafka_bootstrap: str, tmp_path: Path) -> None:
    with ingress(kafka_bootstrap, "x-", tmp_path, KAFKA_CONFIG='{"no.such.setting": "1"}') as running:
        assert running.process.wait(20) == 78
        assert eventually(lambda: "KAFKA_CONFIG" in "".join(running.lines) and "no.such.setting" in str(running.lines))


def test_a_keyring_without_endpoints_is_unusable(kafka_bootstrap: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text('{"endpoints": {}}')
    with ingress(kafka_bootstrap, "x-", tmp_path, KEYRING_FILE=str(empty)) as running:
        assert running.process.wait(20) == 78


@pytest.mark.parametrize("ask", [signal.SIGTERM, signal.SIGINT])
def test_a_draining_ingress_takes_deliveries_and_then_ends(
    kafka_bootstrap: str, topic_prefix: str, tmp_path: Path, ask: signal.Signals
) -> None:
    make_topics(kafka_bootstrap, topic_prefix)
    with ingress(kafka_bootstrap, topic_prefix, tmp_path, DRAIN_S="2") as running:
        told = body()
        with contextlib.closing(Line(running.port)) as waiting:
            waiting.write(request(raw(body())))
            assert (waiting.reply() or Reply(0, {}, b"")).status == 200
            running.process.send_signal(ask)
            eventually(lambda: running.logged("draining"))
            assert running.get("/readyz").status == 503
            assert _checks(running)["draining"] == "draining"
            taken = running.post(told)
            assert taken.status == 200, "a balancer may not know yet"
            assert taken.fields["connection"] == "close", "the next one is for another"
            assert waiting.reply() is None, "an idle connection is closed"
        assert running.process.wait(20) == 0
        (ended,) = eventually(lambda: running.logged("stopped"))
        assert ended["unreported"] == 0
        assert any(record.key() == key(told).encode() for record in running.records(RECEIVED))
        with pytest.raises(ConnectionRefusedError):
            Line(running.port)


def test_every_delivery_answered_200_before_the_end_is_in_the_topic(
    kafka_bootstrap: str, topic_prefix: str, tmp_path: Path
) -> None:
    make_topics(kafka_bootstrap, topic_prefix)
    with ingress(kafka_bootstrap, topic_prefix, tmp_path) as running:
        accepted: list[str] = []
        statuses: set[int] = set()

        def send() -> None:
            with contextlib.suppress(OSError, AssertionError):
                while True:
                    told = body()
                    status = running.post(told).status
                    statuses.add(status)
                    if status == 200:
                        accepted.append(key(told))

        senders = [threading.Thread(target=send) for _ in range(4)]
        for sender in senders:
            sender.start()
        eventually(lambda: len(accepted) > 50)
        running.process.terminate()
        assert running.process.wait(20) == 0
        for sender in senders:
            sender.join()
        assert statuses == {200} or running.logged("unwritten"), "the end refuses nobody; a slow Kafka may"
        assert {record.key() for record in running.records(RECEIVED)} >= {name.encode() for name in accepted}


def test_a_half_sent_body_is_answered_during_shutdown(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> None:
    make_topics(kafka_bootstrap, topic_prefix)
    with ingress(kafka_bootstrap, topic_prefix, tmp_path) as running, contextlib.closing(Line(running.port)) as line:
        payload = raw(body())
        line.write(head(payload) + payload[:10])
        running.process.terminate()
        eventually(lambda: running.logged("draining"))
        eventually(lambda: _is_deaf(running.port))
        line.write(payload[10:])
        reply = line.reply()
        assert reply is not None
        assert (reply.status, reply.fields["connection"]) == (200, "close")
        assert running.process.wait(20) == 0


def test_a_half_sent_head_is_answered_during_shutdown(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> None:
    make_topics(kafka_bootstrap, topic_prefix)
    with ingress(kafka_bootstrap, topic_prefix, tmp_path) as running, contextlib.closing(Line(running.port)) as line:
        whole = request(raw(body()))
        line.write(whole[:30])
        running.process.terminate()
        eventually(lambda: running.logged("draining"))
        eventually(lambda: _is_deaf(running.port))
        line.write(whole[30:])
        reply = line.reply()
        assert reply is not None
        assert (reply.status, reply.fields["connection"]) == (200, "close")
        assert running.process.wait(20) == 0


@pytest.mark.timeout(120)
def test_a_delivery_that_is_under_way_when_the_producer_fails_for_good_is_still_answered(tmp_path: Path) -> None:
    with guarded_broker(tmp_path, ["ingress"]) as guarded:
        make_topics(guarded.plain, "")
        wanted = rights(Service.INGRESS)
        # A producer that may write nowhere at its start never writes; the process waits for the right all the same.
        guarded.allow("ingress", {replace(right, operation=Operation.DESCRIBE) for right in wanted})
        guarded.allow("ingress", [right for right in wanted if right.operation is not Operation.WRITE])
        login = json.dumps(guarded.config("ingress"))
        with ingress(guarded.bootstrap, "", tmp_path, KAFKA_CONFIG=login) as running:
            eventually(lambda: running.post(body()).status == 503 and "_FATAL" in str(running.logged("unwritten")))
            guarded.allow("ingress", wanted)
            replies: list[Reply | None] = []

            def has_ended() -> bool:
                try:
                    line = Line(running.port)
                except (ConnectionRefusedError, ConnectionResetError):  # the latter as listening ends
                    return True
                with contextlib.closing(line):
                    payload = raw(body())
                    line.write(head(payload) + payload[:10])
                    try:
                        running.post(body())  # accepted after the line, so that the line was accepted too
                    except (ConnectionRefusedError, ConnectionResetError):
                        return True  # the line may have come too late to be accepted: nobody owes it an answer
                    looks_until_s = time.monotonic() + 0.6
                    while not (is_deaf := _is_deaf(running.port)) and time.monotonic() < looks_until_s:
                        pass
                    line.write(payload[10:])
                    replies.append(line.reply())
                return is_deaf

            eventually(has_ended)
            # 408 where this machine was too slow to send the rest within the second that a body may take.
            assert {reply and reply.status for reply in replies} - {408} <= {503}
            assert running.process.wait(20) == 1


def _is_deaf(port: int) -> bool:
    """True if nothing listens there any more."""
    try:
        Line(port).close()
    except (ConnectionRefusedError, ConnectionResetError):  # the latter as listening ends
        return True
    return False
