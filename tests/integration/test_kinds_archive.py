"""Kind `archive`: the real audit topic of a real Kafka, into a folder and over HTTP into the simulator."""

import asyncio
import gzip
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from obstore.store import from_url

from schemas.codec import Message
from schemas.times import rfc3339
from schemas.topics import AUDIT, named
from schemas.values import key_of
from services.adapters.kafka import topics
from services.adapters.kafka.audit_trail import AuditTrail
from services.adapters.kafka.producer import Producer
from services.adapters.process.clock import now_us
from services.core.saga.calls import Absent, Done, OperatorRefused, Refused, Retryable, Unknown, Verb
from services.provisioner.kinds.archive import ArchiveKind, pack
from tests.support.simulator_process import ORG, Outside, a_call, outside

PARTITIONS = 4
KEYS = [key_of(ORG, f"a1b2c3d4-e5f6-7890-abcd-{number:012d}") for number in range(40)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("outside")) as running:
        yield running


@pytest.fixture
async def trail(kafka_bootstrap: str, topic_prefix: str) -> AuditTrail:
    """An audit topic where each key has as many records as its number, in order."""
    config = {"bootstrap.servers": kafka_bootstrap}
    await asyncio.to_thread(lambda: topics.apply(config, prefix=topic_prefix, partitions=PARTITIONS, replication=1))
    producer = Producer(config, linger_ms=1, timeout_ms=10_000)
    topic = named(AUDIT, topic_prefix)
    for number, key in enumerate(KEYS):
        for line in range(number):
            producer.send(topic, Message(key.encode(), json.dumps({"key": key, "line": line}).encode()))
    await producer.flush()
    assert await producer.close(5) == 0
    return AuditTrail(config, topic, timeout_s=10)


async def test_the_audit_trail_of_a_key_is_complete_ordered_and_has_no_other_key(trail: AuditTrail) -> None:
    found = await trail.records_of(KEYS[7], None)
    assert [json.loads(line) for line in found] == [{"key": KEYS[7], "line": line} for line in range(7)]
    assert await trail.records_of(KEYS[0], None) == []


async def test_many_reads_of_the_audit_trail_at_once_all_succeed(trail: AuditTrail) -> None:
    found = await asyncio.gather(*(trail.records_of(key, None) for key in KEYS * 3))
    assert [len(lines) for lines in found] == list(range(len(KEYS))) * 3


async def test_an_audit_trail_can_begin_at_an_instant(trail: AuditTrail) -> None:
    an_hour_us = 3_600_000_000
    assert len(await trail.records_of(KEYS[5], now_us() - an_hour_us)) == 5
    assert await trail.records_of(KEYS[5], now_us() + an_hour_us) == []


async def test_undo_archives_the_trail_with_a_manifest_of_hashes(trail: AuditTrail, tmp_path: Path) -> None:
    archive = ArchiveKind(from_url(tmp_path.as_uri()), trail.records_of, now_us)
    key = KEYS[9]
    made = await archive.call(a_call(Verb.CREATE, key=key))
    assert isinstance(made, Done)
    assert list(tmp_path.rglob("*.*")) == []
    assert isinstance(await archive.call(a_call(Verb.READ, key=key, outputs=made.outputs)), Done)
    assert isinstance(await archive.call(a_call(Verb.DELETE, key=key, outputs=made.outputs)), Done)
    assert await archive.call(a_call(Verb.READ, key=key)) == Absent()
    folder = tmp_path / key.replace(":", "/") / "g1"
    text = (folder / "audit.jsonl.gz").read_bytes()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["records"] == 9
    assert manifest["key"] == key
    assert manifest["trail"]["sha256"] == hashlib.sha256(text).hexdigest()
    assert manifest["lines"]["sha256"] == hashlib.sha256(gzip.decompress(text)).hexdigest()
    assert [json.loads(line)["line"] for line in gzip.decompress(text).splitlines()] == list(range(9))


def test_equal_audit_lines_give_equal_archive_bytes() -> None:
    call = a_call(Verb.DELETE)
    assert pack([b"{}\n"], call, 1)[0] == pack([b"{}"], call, 2)[0]


async def _no_lines(_: str, __: int | None) -> list[bytes]:
    return []


async def test_a_later_generation_does_not_change_the_former_archive(world: Outside) -> None:
    archive = ArchiveKind(from_url(world.archive.as_uri(), mkdir=True), _no_lines, now_us)
    for generation in (1, 2):
        await archive.call(a_call(Verb.DELETE, key=KEYS[0], generation=generation))
    assert [row["generation"] for row in world.inventory("archive", KEYS[0])] == [1, 2]


@pytest.mark.parametrize(
    ("fault", "answer"), [("refuse", OperatorRefused), ("error", Unknown), ("down", Unknown), ("lost_answer", Unknown)]
)
async def test_a_failing_object_store_is_retryable_and_a_refusing_store_is_not(
    world: Outside, fault: str, answer: type[OperatorRefused | Unknown]
) -> None:
    key = key_of(ORG, f"a1b2c3d4-e5f6-7890-abcd-{secrets.token_hex(6)}")
    store = from_url(f"{world.url}/archive", client_options={"allow_http": True}, retry_config={"max_retries": 0})
    archive = ArchiveKind(store, _no_lines, now_us)
    world.fault("archive", fault, verb="create", times=1)
    assert isinstance(await archive.call(a_call(Verb.DELETE, key=key)), answer)
    assert isinstance(await archive.call(a_call(Verb.READ, key=key)), Done)
    assert isinstance(await archive.call(a_call(Verb.DELETE, key=key)), Done)
    assert await archive.call(a_call(Verb.READ, key=key)) == Absent()
    assert len(world.inventory("archive", key)) == 1


async def test_an_unreadable_audit_trail_archives_no_file(tmp_path: Path) -> None:
    away = AuditTrail({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, "none", timeout_s=0.5)
    archive = ArchiveKind(from_url(tmp_path.as_uri()), away.records_of, now_us)
    answer = await archive.call(a_call(Verb.DELETE))
    assert isinstance(answer, Retryable)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["../../etc:x", "a/b:c", "x", "🦄:b", ":"])
async def test_an_invalid_key_is_refused_and_writes_no_file(tmp_path: Path, key: str) -> None:
    archive = ArchiveKind(from_url(tmp_path.as_uri()), _no_lines, now_us)
    assert isinstance(await archive.call(a_call(Verb.DELETE, key=key)), Refused)
    assert list(tmp_path.iterdir()) == []


async def test_the_trail_is_read_from_a_day_before_the_generation_began(tmp_path: Path) -> None:
    asked: list[int | None] = []

    async def remember(_: str, since_us: int | None) -> list[bytes]:
        asked.append(since_us)
        return []

    audit_of: Callable[[str, int | None], Awaitable[list[bytes]]] = remember
    archive = ArchiveKind(from_url(tmp_path.as_uri()), audit_of, lambda: 10**15)
    await archive.call(a_call(Verb.DELETE, outputs={"since": rfc3339(10**15)}))
    await archive.call(a_call(Verb.DELETE))
    assert asked == [10**15 - 86_400_000_000, None]
