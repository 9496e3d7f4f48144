"""Hints from an SQS queue: the records written, the messages deleted and those that stay, through every trouble."""

import json
import os
import random
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import confluent_kafka
import pytest

from schemas.event import Recheck
from schemas.times import instant
from schemas.topics import RECEIVED, named
from services.adapters.process.clock import now_us
from services.adapters.process.environment import read
from services.adapters.process.settings import Settings
from services.adapters.sqs import region_of
from services.cli.doctor.finding import CheckContext, Health
from services.cli.doctor.hint_queue import hint_queue as check
from services.core.delivery.hint_rule import read_after_us
from services.engines.ports import free_ports
from services.ingress.hints_queue import POLLS_AT_ONCE, VISIBLE_S
from tests.faults.chaos import own_broker
from tests.support.eventually import eventually
from tests.support.hint_queue import HintQueue, HintsProcess, hint_queue, moto, reader
from tests.support.hints import envelope
from tests.support.ingress_process import HINT_ACCOUNT, ORG, Reader, headers_of, make_topics

pytestmark = [pytest.mark.engines]

DELETED = ("written", "duplicate", "ignored_entity", "ignored_action")
NARROW = {"HINTS_SQS_ORGS": ORG.upper(), "HINTS_SQS_ACCOUNTS": HINT_ACCOUNT}
SLOWLY_S = 90.0
"""Seconds for some hundred messages, on a busy machine."""


@pytest.fixture(scope="module")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with moto(tmp_path_factory.mktemp("moto")) as port:
        yield port


@pytest.fixture
def queue(amazon: int) -> Iterator[HintQueue]:
    with hint_queue(amazon) as made:
        yield made


@pytest.fixture
def prefix(kafka_bootstrap: str) -> str:
    made = f"t{secrets.token_hex(5)}-"
    make_topics(kafka_bootstrap, made)
    return made


def new_key(org_id: str = ORG) -> str:
    return f"{org_id}:{uuid4()}"


def written(bootstrap: str, prefix: str) -> "list[confluent_kafka.Message]":
    with closing(Reader(bootstrap, named(RECEIVED, prefix))) as topic:
        return list(topic.read())


def ids(bootstrap: str, prefix: str) -> Counter[str]:
    """How often each `ce_id` was written."""
    return Counter(headers_of(record)["ce_id"] for record in written(bootstrap, prefix))


def counted(running: HintsProcess, name: str, least: float, **labels: str) -> bool:
    return running.metric(name, **labels) >= least


def counts_receipts(running: HintsProcess, queue: HintQueue, result: str, bodies: set[str]) -> bool:
    receipts = sum(body in bodies for body in queue.front.received().values())
    return receipts >= len(bodies) and running.metric("messages_total", result=result) == receipts


def told_by(running: HintsProcess, words: str) -> bool:
    return words in running.check("queue")


def ce_id(whole: dict[str, Any]) -> str:
    event, org_id = whole["detail"]["eventBody"], whole["source"].split("/")[3]
    return f"{org_id}:{event['entity']['id']}/hint/{event['id']}"


def test_every_audit_is_written_and_deleted_and_nothing_that_is_refused_is_lost(
    kafka_bootstrap: str, prefix: str, queue: HintQueue, tmp_path: Path
) -> None:
    audits = [envelope(new_key(), action) for action in ("Create", "Enable", "Delete") for _ in range(40)]
    repeated = [audit | {"id": str(uuid4())} for audit in audits[:20]]
    silent = [envelope(new_key(), entityType="OAuthClient", serviceName="PeoplePermissions") for _ in range(15)]
    silent += [envelope(new_key(), "View") for _ in range(10)]
    foreign = [envelope(new_key(str(uuid4()))) for _ in range(10)]
    foreign += [envelope(new_key()) | {"account": "000000000000"} for _ in range(5)]
    garbage = [
        "{",
        "no JSON é",
        '{"source": 1}',
        "[" * 2000,
        json.dumps(envelope(new_key(), eventTime="yesterday")),
    ] * 4
    bodies = [*map(json.dumps, [*audits, *silent, *foreign]), *garbage]
    random.Random(7).shuffle(bodies)
    assert len(bodies) + len(repeated) == 200
    queue.send(bodies)
    with reader(kafka_bootstrap, prefix, tmp_path, queue.environ | NARROW) as running:
        refused = len(foreign) + len(garbage)
        eventually(lambda: sum(queue.counts()) == refused, SLOWLY_S)
        # Only now, so that no two receipts of an audit are in hand at once.
        queue.send([*map(json.dumps, repeated)])
        eventually(lambda: running.metric("messages_total", result="duplicate") == len(repeated), SLOWLY_S)
        eventually(lambda: sum(queue.counts()) == refused, SLOWLY_S)
        assert ids(kafka_bootstrap, prefix) == dict.fromkeys(map(ce_id, audits), 1)
        assert Counter(queue.front.deleted()) == Counter(map(json.dumps, [*audits, *repeated, *silent]))
        taken = {result: running.metric("messages_total", result=result) for result in DELETED}
        assert taken == {"written": 120, "duplicate": 20, "ignored_entity": 15, "ignored_action": 10}
        texts = {"unbound": {*map(json.dumps, foreign)}, "malformed": {*garbage}}
        for result, bodies_of in texts.items():
            # What stays is shown again after 30 s, and counts at each receipt.
            eventually(partial(counts_receipts, running, queue, result, bodies_of))
        assert running.metric("written_seconds_count") == len(audits)
        eventually(lambda: running.metric("in_hand_messages") == 0)
        left = running.logged("message left in the queue")
        assert sorted(line["reason"] for line in left) == ["malformed", "unbound"], "one line a minute for each reason"
        assert running.end() == 0
        assert "canary" not in "".join(running.lines)
    (first,) = [
        record for record in written(kafka_bootstrap, prefix) if headers_of(record)["ce_id"] == ce_id(audits[0])
    ]
    event = audits[0]["detail"]["eventBody"]
    key, at_us = ce_id(audits[0]).partition("/")[0], read_after_us(instant(event["eventTime"]))
    assert Recheck.model_validate_json(first.value() or b"") == Recheck(key=key, reason="hint_create", at=at_us)
    assert (headers_of(first)["ce_type"], first.key()) == (Recheck.ce_type, key.encode())


def test_a_refused_message_is_moved_by_the_redrive_policy_and_stays_hidden_for_longer_until_then(
    kafka_bootstrap: str, prefix: str, amazon: int, tmp_path: Path
) -> None:
    with hint_queue(amazon) as dead:
        arn = dead.client.get_queue_attributes(QueueUrl=dead.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
        with (
            hint_queue(amazon, RedrivePolicy=policy) as queue,
            reader(kafka_bootstrap, prefix, tmp_path, queue.environ) as running,
        ):
            good = envelope(new_key())
            queue.send(["rubbish", json.dumps(good)])
            for seen in (1, 2):
                eventually(partial(counted, running, "messages_total", seen, result="malformed"))
                eventually(lambda: running.metric("in_hand_messages") == 0)
                queue.time_passes()
            eventually(lambda: dead.counts() == (1, 0))
            assert queue.counts() == (0, 0)
            (moved,) = dead.client.receive_message(QueueUrl=dead.url)["Messages"]
            assert moved["Body"] == "rubbish"
            hidden = [
                entry["VisibilityTimeout"]
                for asked, _ in queue.front.of("ChangeMessageVisibilityBatch")
                for entry in asked["Entries"]
            ]
            assert hidden == [30, 60]
            assert ids(kafka_bootstrap, prefix) == {ce_id(good): 1}
            assert running.logged("queue without a dead-letter queue") == []


def test_a_kill_between_the_write_and_the_deletion_repeats_the_record_and_loses_nothing(
    kafka_bootstrap: str, prefix: str, queue: HintQueue, tmp_path: Path
) -> None:
    audits = [envelope(new_key()) for _ in range(8)]
    queue.front.held.add("DeleteMessageBatch")
    queue.send([*map(json.dumps, audits)])
    expected = dict.fromkeys(map(ce_id, audits), 1)
    with reader(kafka_bootstrap, prefix, tmp_path, queue.environ) as running:
        eventually(lambda: queue.front.waiting and ids(kafka_bootstrap, prefix) == expected)
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
    queue.front.release()
    assert queue.counts() == (0, len(audits)), "nothing was deleted"
    queue.time_passes()
    with reader(kafka_bootstrap, prefix, tmp_path, queue.environ) as running:
        eventually(lambda: queue.counts() == (0, 0))
        assert ids(kafka_bootstrap, prefix) == dict.fromkeys(expected, 2), "the same ids, which the ledger knows"
        assert running.end() == 0


@pytest.mark.long
@pytest.mark.timeout(300)
def test_while_kafka_stands_still_nothing_is_deleted_and_nothing_is_received_twice(
    amazon: int, topic_prefix: str, tmp_path: Path
) -> None:
    with own_broker(tmp_path / "broker") as broker, hint_queue(amazon) as queue:
        make_topics(broker.bootstrap, topic_prefix)
        with reader(broker.bootstrap, topic_prefix, tmp_path, queue.environ) as running:
            eventually(running.is_ready)
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                audits = [envelope(new_key()) for _ in range(60)]
                queue.send([*map(json.dumps, audits)])
                eventually(lambda: running.check("kafka") not in {"", "ok"})
                assert queue.front.deleted() == []
                assert sum(queue.counts()) == len(audits)
                assert 0 < running.metric("in_hand_messages") <= 40
                # A third of the visibility timeout later what is in hand is kept.
                kept = eventually(lambda: queue.front.of("ChangeMessageVisibilityBatch"), 60)
                assert {entry["VisibilityTimeout"] for asked, _ in kept for entry in asked["Entries"]} == {VISIBLE_S}
                assert queue.front.deleted() == []
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            eventually(lambda: queue.counts() == (0, 0), 60)
            assert set(ids(broker.bootstrap, topic_prefix)) == set(map(ce_id, audits))
            assert Counter(queue.front.received().values()) == Counter(map(json.dumps, audits)), "each received once"
            assert running.end() == 0


def test_without_the_topic_nothing_is_received(
    kafka_bootstrap: str, topic_prefix: str, queue: HintQueue, tmp_path: Path
) -> None:
    audit = envelope(new_key())
    queue.tell(audit)
    with reader(kafka_bootstrap, topic_prefix, tmp_path, queue.environ) as running:
        eventually(lambda: running.check("kafka") not in {"", "ok", "not asked yet"})
        assert queue.front.received() == {}
        make_topics(kafka_bootstrap, topic_prefix)
        eventually(lambda: queue.counts() == (0, 0))
        assert ids(kafka_bootstrap, topic_prefix) == {ce_id(audit): 1}


REFUSALS = [
    (400, "ExpiredToken", "renew them"),
    (403, "InvalidClientTokenId", "AWS does not know the credentials"),
    (403, "SignatureDoesNotMatch", "keep the clock with NTP"),
    (403, "AccessDeniedException", "lack a right on the queue"),
    (400, "KmsAccessDenied", "lack a right on the queue"),
    (400, "ThrottlingException", "more slowly"),
    (400, "QueueDoesNotExist", "correct HINTS_SQS_QUEUE_URL"),
    (500, "InternalFailure", "made again"),
]
"""Status and code of an answer, and words of the remedy."""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_refusal_of_amazon_is_told_once_with_a_remedy_and_work_goes_on_after_it(
    kafka_bootstrap: str, prefix: str, queue: HintQueue, tmp_path: Path
) -> None:
    audits = [envelope(new_key()) for _ in REFUSALS]
    with reader(kafka_bootstrap, prefix, tmp_path, queue.environ) as running:
        eventually(running.is_ready)
        for audit, (status, code, remedy) in zip(audits, REFUSALS, strict=True):
            before = running.metric("queue_faults_total", kind="receive")
            queue.front.refusing["ReceiveMessage"] = (status, code)
            eventually(partial(told_by, running, code))
            assert remedy in running.check("queue")
            queue.tell(audit)
            eventually(partial(counted, running, "queue_faults_total", before + 5, kind="receive"))
            queue.front.refusing.clear()
            eventually(lambda: queue.counts() == (0, 0))
            eventually(running.is_ready)
        told = [line["why"] for line in running.logged("queue fails")]
        assert len(told) == len(REFUSALS), "each once, whatever the number of calls"
        assert len(running.logged("queue answers")) == len(REFUSALS) + 1
        assert ids(kafka_bootstrap, prefix) == dict.fromkeys(map(ce_id, audits), 1)
        assert running.end() == 0
        assert "canary-aws-secret" not in "".join(running.lines)


def test_a_deletion_that_fails_is_made_again_and_writes_no_second_record(
    kafka_bootstrap: str, prefix: str, queue: HintQueue, tmp_path: Path
) -> None:
    audit = envelope(new_key())
    queue.front.refusing["DeleteMessageBatch"] = (503, "ServiceUnavailable")
    queue.tell(audit)
    with reader(kafka_bootstrap, prefix, tmp_path, queue.environ) as running:
        eventually(lambda: "delete messages" in running.check("queue"))
        queue.front.refusing.clear()
        eventually(lambda: queue.counts() == (0, 0))
        eventually(running.is_ready)
        assert ids(kafka_bootstrap, prefix) == {ce_id(audit): 1}


def test_a_missing_right_to_read_attributes_stops_nothing(
    kafka_bootstrap: str, prefix: str, queue: HintQueue, tmp_path: Path
) -> None:
    queue.front.refusing["GetQueueAttributes"] = (403, "AccessDenied")
    queue.tell(envelope(new_key()))
    with reader(kafka_bootstrap, prefix, tmp_path, queue.environ) as running:
        eventually(lambda: queue.counts() == (0, 0))
        eventually(running.is_ready)
        (told,) = running.logged("queue fails")
        assert "read attributes: AccessDenied" in told["why"]


def test_credentials_that_appear_later_are_taken_and_an_unreached_queue_is_told(
    kafka_bootstrap: str, prefix: str, queue: HintQueue, tmp_path: Path
) -> None:
    without = {name: text for name, text in queue.environ.items() if not name.endswith(("_ID", "_KEY"))}
    with reader(kafka_bootstrap, prefix, tmp_path, without) as running:
        eventually(lambda: "no credentials of AWS are found; give the process a role" in running.check("queue"))
        folder = tmp_path / ".aws"
        folder.mkdir()
        (folder / "credentials").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
        eventually(running.is_ready, 60)
    (nobody,) = free_ports(1)
    nowhere = queue.environ | {"AWS_ENDPOINT_URL_SQS": f"http://127.0.0.1:{nobody}"}
    with reader(kafka_bootstrap, prefix, tmp_path, nowhere) as running:
        eventually(lambda: "not reached (EndpointConnectionError)" in running.check("queue"))
        assert running.end() == 0


def test_sigterm_waits_for_no_long_poll(kafka_bootstrap: str, prefix: str, queue: HintQueue, tmp_path: Path) -> None:
    with reader(kafka_bootstrap, prefix, tmp_path, queue.environ) as running:
        eventually(running.is_ready)
        # From now on no poll is answered at all.
        queue.front.held.add("ReceiveMessage")
        eventually(lambda: len(queue.front.waiting) == POLLS_AT_ONCE)
        assert running.end() == 0
        assert len(running.logged("stopped")) == 1


def test_sigterm_gives_back_what_is_in_hand(
    kafka_bootstrap: str, prefix: str, queue: HintQueue, tmp_path: Path
) -> None:
    queue.front.held.add("DeleteMessageBatch")
    with reader(kafka_bootstrap, prefix, tmp_path, queue.environ) as running:
        eventually(running.is_ready)
        audits = [envelope(new_key()) for _ in range(5)]
        queue.send([*map(json.dumps, audits)])
        eventually(lambda: queue.front.waiting)
        assert running.end() == 0
        eventually(lambda: queue.counts() == (len(audits), 0))


@pytest.mark.slow
def test_an_unusable_configuration_is_refused_with_its_remedy(tmp_path: Path, amazon: int) -> None:
    absent = tmp_path / "absent" / "boto3"
    absent.mkdir(parents=True)
    (absent / "__init__.py").write_text("raise ModuleNotFoundError('boto3')\n")
    given = {
        "HINTS_SQS_QUEUE_URL": f"http://127.0.0.1:{amazon}/123456789012/hints",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    no_boto = {"PYTHONPATH": os.pathsep.join([str(absent.parent), os.environ.get("PYTHONPATH", "")])}
    for environ, words in (
        ({}, "HINTS_SQS_QUEUE_URL: missing"),
        ({"HINTS_SQS_QUEUE_URL": "hints"}, "HINTS_SQS_QUEUE_URL: "),
        (given, "HINTS_SQS_REGION: not set, and HINTS_SQS_QUEUE_URL names no region"),
        (given | {"HINTS_SQS_REGION": "Ireland"}, "HINTS_SQS_REGION: "),
        (given | no_boto, "boto3 is not installed; install 'genesys-lifecycle[sqs]'"),
    ):
        with reader("127.0.0.1:9", "x-", tmp_path, environ) as running:
            assert running.process.wait(60) == 2, words
        assert running.lines[0].startswith(f"lifecycle: {words}"), running.lines


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/hints", "eu-west-1"),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/123456789012/hints", "us-gov-west-1"),
        ("https://vpce-0a.sqs.us-east-1.vpce.amazonaws.com/123456789012/hints", "us-east-1"),
        ("https://sqs.ap-southeast-2.api.aws/123456789012/hints", "ap-southeast-2"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/hints", "cn-north-1"),
        ("https://eu-central-1.queue.amazonaws.com/123456789012/hints", "eu-central-1"),
        ("http://127.0.0.1:9324/000000000000/us-east-1.amazonaws.com", None),
        ("https://proxy-one-1.example.com/123456789012/hints", None),
    ],
)
def test_the_region_is_read_from_the_host_of_amazons_urls_alone(url: str, region: str | None) -> None:
    assert region_of(url) == region


class TestDoctor:
    @pytest.fixture(autouse=True)
    def _credentials(self, monkeypatch: pytest.MonkeyPatch, queue: HintQueue) -> None:
        for name, text in queue.environ.items():
            monkeypatch.setenv(name, text)

    def found(self, environ: dict[str, str]) -> list[tuple[Health, str, str]]:
        context = CheckContext(read(environ, Settings), {}, "", now_us)
        return [(one.health, one.detail, one.cure) for one in check(context)]

    def test_a_queue_as_documented_is_well(self, queue: HintQueue) -> None:
        arn = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["QueueArn"])["Attributes"]
        good = {
            "RedrivePolicy": json.dumps({"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": 5}),
            "Policy": json.dumps({"Statement": [{"Principal": {"Service": "events.amazonaws.com"}}]}),
        }
        queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes=good)
        queue.send(["one", "two"])
        ((health, detail, _),) = self.found(queue.environ)
        assert health is Health.WELL
        assert "about 2 waiting, 0 received" in detail
        assert queue.front.received() == {}, "a receipt would count towards the dead-letter queue"

    def test_a_queue_without_redrive_policy_policy_and_retention_has_three_faults(self, queue: HintQueue) -> None:
        queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"MessageRetentionPeriod": "600"})
        found = self.found(queue.environ)
        assert [health for health, _, _ in found] == [Health.FAULT] * 3
        assert [words in detail for words, (_, detail, _) in zip(
            ("no dead-letter queue", "10 minutes only", "lets no rule"), found, strict=True
        )] == [True] * 3  # fmt: skip
        assert all(cure for _, _, cure in found)

    def test_an_absent_queue_a_refusal_and_no_queue_are_told(self, queue: HintQueue) -> None:
        ((health, detail, cure),) = self.found(queue.environ | {"HINTS_SQS_QUEUE_URL": queue.url + "x"})
        assert (health, cure) == (
            Health.FAULT,
            "there is no such queue: correct HINTS_SQS_QUEUE_URL or HINTS_SQS_REGION",
        )
        queue.front.refusing["GetQueueAttributes"] = (403, "AccessDenied")
        ((health, detail, cure),) = self.found(queue.environ)
        assert (health, "AccessDenied (403)" in detail) == (Health.FAULT, True)
        assert "docs/connect-genesys.md" in cure
        assert self.found({}) == []
