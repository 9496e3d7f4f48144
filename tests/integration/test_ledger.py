"""The ledger as a process on a real broker: its input, its output, and that repeated input gives equal output."""

import json
import secrets
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from hashlib import sha256
from itertools import permutations
from pathlib import Path
from typing import Any

import httpx2
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without `as`
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from schemas import webhook
from schemas.codec import Message
from schemas.event import Observed, Recheck
from schemas.outcome import Direction, Outcome, State
from schemas.topics import (
    AUDIT,
    DEAD_LETTERS,
    DESIRED,
    EVENTS,
    OUTCOMES,
    RECEIVED,
    TENANTS,
    Table,
    Topic,
    changelog,
    named,
)
from services.adapters.kafka import topics
from services.adapters.tables.app import FILES_PER_TABLE
from services.adapters.tables.exits import WorkerExit
from services.cli.exits import Exit as CliExit
from services.engines import child_process
from tests.faults import records
from tests.support.eventually import eventually
from tests.support.ledger_process import PARTITIONS, LedgerBench, Out, body, new_key, now_us
from tests.support.transactions import Copier

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

OUTPUTS = (EVENTS, DESIRED, TENANTS, AUDIT, DEAD_LETTERS)


@pytest.fixture(scope="module")
def running(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LedgerBench, str]]:
    """One ledger for the tests that only write to it, each under keys of its own."""
    prefix, folder = f"t{secrets.token_hex(5)}-", tmp_path_factory.mktemp("ledger")
    shared = LedgerBench(kafka_bootstrap, prefix, folder, {"steady": {"restamps": False}})
    with shared.ledger() as url:
        yield shared, url


@pytest.fixture
def bench(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> LedgerBench:
    return LedgerBench(kafka_bootstrap, topic_prefix, tmp_path)


def outcome(
    key: str, seq: int, version: int, state: State = State.DONE, direction: Direction = Direction.UP
) -> Outcome:
    return Outcome(
        key=key, seq=seq, desired_version=version, generation=1, direction=direction, state=state, at=now_us()
    )


def verdicts(bench: LedgerBench, key: str) -> list[str]:
    return [line.said["verdict"] for line in bench.out(AUDIT, key) if line.said["what"] != "stage"]


def test_a_delivery_becomes_event_desired_tenant_and_audit_and_its_outcome_a_stage(
    running: tuple[LedgerBench, str],
) -> None:
    bench, url = running
    key = new_key()
    raw = body(key)
    bench.receive(raw, key)
    bench.receive(raw, key)
    eventually(lambda: verdicts(bench, key) == ["new", "duplicate"])
    (event,), (desired,) = bench.out(EVENTS, key), bench.out(DESIRED, key)
    assert (event.said["revision"], event.said["event"]) == (1, "installed")
    assert event.said["configuration"] == {"crmEndpoint": "https://acme.salesforce.com"}
    assert event.ce_id == f"{key}/{event.said['uid']}"
    assert desired.said["configuration"]["secretName"] == "hush"
    assert [tenant.said["stage"] for tenant in bench.out(TENANTS, key)] == ["pending_install"]
    bench.conclude(outcome(key, 1, desired.said["version"]))
    eventually(lambda: [tenant.said["stage"] for tenant in bench.out(TENANTS, key)][-1] == "active")
    first, last = bench.out(TENANTS, key)
    assert last.said["version"] > first.said["version"]
    changes = [line.said["verdict"] for line in bench.out(AUDIT, key) if line.said["what"] == "stage"]
    assert changes == ["none → pending_install", "pending_install → active"]
    metrics = httpx2.get(f"{url}/metrics", timeout=5).text
    assert 'lifecycle_ledger_records_total{kind="delivery",verdict="duplicate"}' in metrics
    assert 'lifecycle_ledger_events_total{event="installed"}' in metrics
    assert 'lifecycle_ledger_stage_changes_total{stage="active"} 1.0' in metrics


def test_observations_and_rechecks_are_read_from_the_received_topic(running: tuple[LedgerBench, str]) -> None:
    bench, _ = running
    key = new_key()
    org, _, integration = key.partition(":")
    seen = Observed(
        orgId=org,
        integrationId=integration,
        read_at=now_us() // 1_000_000 * 1_000_000 - 10_000_000,
        installed=True,
        enabled=True,
        configuration={"syncInterval": "PT5M"},
        cause="hourly",
    )
    bench.tell(seen, key)
    eventually(lambda: [e.said["revision"] for e in bench.out(EVENTS, key)] == [1, 2, 3])
    bench.tell(Recheck(key=key, reason="asked", at=now_us()), key)
    eventually(lambda: verdicts(bench, key) == ["new", "asked"])
    eventually(lambda: bench.out(TENANTS, key)[-1].said["recheck_at"] is not None)


def test_an_unreadable_record_becomes_one_dead_letter_and_the_partition_moves_on(
    running: tuple[LedgerBench, str],
) -> None:
    bench, _ = running
    key, other = new_key(), new_key()
    assert not bench.out(DEAD_LETTERS)
    for raw in (b"{", body(key, orgId="no uuid"), body(key, configuration={"syncInterval": "often"})):
        bench.receive(raw, key)
    bench.receive(body(key, event="exploded"), key)
    bench.receive(body(key), key, kind="lifecycle.unknown.v1")
    bench.receive(b"{}", key, kind=Observed.ce_type)
    org, _, integration = key.partition(":")
    beyond = f'{{"orgId":"{org}","integrationId":"{integration}","read_at":{10**20},"installed":true,"cause":"x"}}'
    bench.receive(beyond.encode(), key, kind=Observed.ce_type)
    bench.receive(body(other), key)
    bench.receive(None, key)
    bench.receive(body(key), "not a key")
    bench.receive(body(key), key)
    eventually(lambda: verdicts(bench, key) == ["new"])
    eventually(lambda: len(bench.out(DEAD_LETTERS)) == 10)
    letters = bench.out(DEAD_LETTERS)
    reasons = [letter.said["reason"] for letter in letters]
    assert sorted(reasons) == ["malformed"] * 4 + ["unknown_event"] + ["unreadable"] * 5
    assert len({letter.said["id"] for letter in letters}) == 10
    assert {letter.key for letter in letters} == {key, None}
    assert not bench.out(EVENTS, other)
    assert all("acme" not in letter.said["detail"] for letter in letters)


def test_a_retry_mark_is_ignored_for_a_sender_that_keeps_its_timestamps(
    running: tuple[LedgerBench, str],
) -> None:
    bench, _ = running
    moment = now_us()
    marked = {"metadata": {"retryCount": 1}}
    for endpoint, verdict in (("default", "ambiguous"), ("steady", "new")):
        key = new_key()
        bench.receive(body(key, "uninstalled", moment - 60_000_000), key, endpoint=endpoint)
        bench.receive(body(key, "installed", moment, **marked), key, endpoint=endpoint)
        eventually(lambda key=key, verdict=verdict: verdicts(bench, key) == ["new", verdict])  # type: ignore[misc]


def test_offsets_set_back_repeat_identical_records(bench: LedgerBench) -> None:
    keys = [new_key() for _ in range(4)]
    with bench.ledger():
        for number, key in enumerate(keys):
            start = now_us()
            for step, event in enumerate(
                ("installed", "configuration_updated", "disabled", "enabled")[: 1 + number % 4]
            ):
                bench.receive(body(key, event, start + step), key)
                bench.receive(body(key, event, start + step), key)
        bench.receive(b"{", keys[0])
        eventually(lambda: {record.key for record in bench.out(DESIRED)} == set(keys))
        for record in bench.out(DESIRED):
            assert record.key is not None
            bench.conclude(outcome(record.key, record.said["version"] + 1, record.said["version"]))
        bench.drained()
    before = {topic.name: bench.out(topic) for topic in OUTPUTS}
    bench.set_back()
    with bench.ledger():
        bench.drained()
    for topic in OUTPUTS:
        again = bench.out(topic)[len(before[topic.name]) :]
        assert newest(bench.out(topic)) == newest(before[topic.name]), topic.name
        if topic in {EVENTS, AUDIT, DEAD_LETTERS}:
            assert _as_set(again) <= _as_set(before[topic.name]), topic.name
    assert _as_set(bench.out(EVENTS)) == _as_set(before[EVENTS.name])


def newest(records: list[Out]) -> dict[str, bytes]:
    """The greatest version of each key, or each record by its id where there is no version."""
    found: dict[str, tuple[int, bytes]] = {}
    for record in records:
        name = record.key if "version" in record.said else record.ce_id
        version = record.said.get("version", 0)
        if version >= found.get(str(name), (-1, b""))[0]:
            found[str(name)] = (version, record.value)
    return {name: value for name, (_, value) in found.items()}


def _as_set(records: list[Out]) -> set[tuple[str, bytes]]:
    return {(record.ce_id, record.value) for record in records}


def test_a_takeover_republishes_recent_keys_and_every_key_on_request(bench: LedgerBench) -> None:
    key = new_key()

    def said(topic: Topic) -> list[tuple[str, bytes]]:
        return [(record.ce_id, record.value) for record in bench.out(topic, key)]

    with bench.ledger():
        bench.receive(body(key), key)
        eventually(lambda: len(said(TENANTS)) == 1)
    with bench.ledger(disk="empty"):
        eventually(lambda: len(said(TENANTS)) == 2)
    with bench.ledger("--republish"):
        eventually(lambda: len(said(TENANTS)) == 3)
    for topic in (TENANTS, DESIRED):
        assert len(said(topic)) == 3
        assert len(set(said(topic))) == 1
    assert len(said(EVENTS)) == 1


def test_accepted_loss_continues_and_rechecks_every_key(bench: LedgerBench) -> None:
    key, other = new_key(), new_key()
    with bench.ledger():
        for told in (key, other):
            bench.receive(body(told), told)
        bench.drained()
    bench.receive(body(key, "disabled"), key)
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    partitions = [TopicPartition(named(RECEIVED, bench.prefix), number, -1) for number in range(PARTITIONS)]
    for future in admin.delete_records(partitions).values():
        future.result(30)
    refused = bench.start()
    assert refused.wait(60) == WorkerExit.LOSS
    assert "--accept-loss" in child_process.last_lines(refused.log_path)
    with bench.ledger("--accept-loss"):
        eventually(lambda: bench.out(TENANTS, key)[-1].said["recheck_at"])
        bench.drained()
    asked = [out for out in bench.out(RECEIVED) if out.headers["ce_type"] == Recheck.ce_type]
    (partition,) = {out.said["reason"] for out in asked}
    assert partition == "records_lost"
    assert key in {out.key for out in asked}
    with bench.ledger():
        bench.drained()  # it goes on from there without being asked again


@pytest.mark.long
def test_all_720_orders_of_a_history_end_in_one_state(bench: LedgerBench) -> None:
    a, b = {"crmEndpoint": "https://a.salesforce.com"}, {"crmEndpoint": "https://b.salesforce.com"}
    start_us = now_us() - 200_000_000
    history = [
        ("installed", 0, a),
        ("configuration_updated", 5, b),
        ("installed", 60, a),
        ("disabled", 70, a),
        ("uninstalled", 100, a),
        ("installed", 200, b),
    ]
    orders = {new_key(): order for order in permutations(history)}
    with bench.ledger():
        bench.receive_all(
            (key, body(key, event, start_us + seconds * 1_000_000, configuration=configuration))
            for key, order in orders.items()
            for event, seconds, configuration in order
        )
        bench.drained()
    newest = {str(out.key): out.said for out in bench.out(TENANTS)}
    assert set(newest) == set(orders)
    names = ("tenant_id", "installed", "enabled", "configuration", "stage", "reason", "flags", "recheck_at")
    ends = {json.dumps([view[name] for name in names]) for view in newest.values()}
    assert ends == {json.dumps(["tenant_acme_corp", True, True, b, "pending_install", None, [], None])}
    given: dict[str, set[tuple[int, bytes]]] = {key: set() for key in orders}
    for out in bench.out(EVENTS):
        given[str(out.key)].add((out.said["revision"], out.value))
    for told in given.values():
        assert sorted(revision for revision, _ in told) == list(range(1, len(told) + 1))


def test_a_release_that_can_read_no_record_ends_after_few_dead_letters(bench: LedgerBench) -> None:
    key = new_key()
    for number in range(7):
        bench.receive(b"{}", key, kind=f"lifecycle.unheard-of.v{number}")
    ended = bench.start(UNREADABLE_IN_A_ROW="5")
    assert ended.wait(60) == WorkerExit.POISON
    assert "5 records in a row could not be read, nor lifecycle.received" in child_process.last_lines(ended.log_path)
    assert len({letter.ce_id for letter in bench.out(DEAD_LETTERS)}) <= 5
    with bench.ledger() as url:  # within its patience the same records pass
        bench.drained()
        assert len({letter.ce_id for letter in bench.out(DEAD_LETTERS)}) == 7
        assert _metric(url, 'lifecycle_ledger_ends_total{reason="poison"}') == 1


def test_a_scrape_says_lag_journal_and_rebalances(bench: LedgerBench) -> None:
    key = new_key()
    bench.receive(body(key), key)
    with bench.ledger() as url:
        bench.drained()
        names = [
            f'lifecycle_ledger_lag_records{{partition="{number}",topic="{named(topic, bench.prefix)}"}}'
            for number in range(PARTITIONS)
            for topic in (RECEIVED, OUTCOMES)
        ]
        assert [_metric(url, name) for name in names] == [0] * len(names)
        assert _metric(url, "lifecycle_ledger_recovering_records") == 0
        assert _metric(url, "lifecycle_ledger_rebalances_total") >= 1
        assert _metric(url, "lifecycle_ledger_journal_entries_count") == 1
        assert _metric(url, "lifecycle_ledger_published_seconds_count") == 1
        assert 0 < _metric(url, "lifecycle_ledger_published_seconds_sum") < 60
        assert _metric(url, 'lifecycle_ready_check{check="tables"}') == 1
        assert _metric(url, "lifecycle_ledger_unacknowledged") == 0


@pytest.mark.long
def test_a_disk_is_recovered_beside_a_running_ledger(bench: LedgerBench) -> None:
    keys = [new_key() for _ in range(5)]

    def recovered() -> list[int]:
        before = len(_lines(bench.folder / "ledger.log", "recovered"))
        warming = bench.start("--recover-only", disk="warm")
        assert warming.wait(60) == 0, child_process.last_lines(warming.log_path)
        return [line["records"] for line in _lines(bench.folder / "ledger.log", "recovered")[before:]]

    with bench.ledger():
        for key in keys:
            bench.receive(body(key), key)
        bench.drained()
        assert sum(recovered()) == len(keys)
        assert recovered() == [0] * (2 * PARTITIONS)
        assert len(_lines(bench.folder / "ledger.log", "partition taken over")) == PARTITIONS, "nobody lost a partition"
        for flags in ((), ("--recover-only",)):
            second = bench.start(*flags)
            assert second.wait(60) == CliExit.UNUSABLE
            assert "STATE_DIR: another `lifecycle` runs in" in child_process.last_lines(second.log_path)
    before = len(bench.out(TENANTS))
    with bench.ledger(disk="warm"):
        bench.receive(body(keys[0], "disabled"), keys[0])
        eventually(lambda: bench.out(TENANTS, keys[0])[-1].said["enabled"] is False)
    assert len(bench.out(TENANTS)) > before


@pytest.mark.long
def test_a_recreated_changelog_ends_a_ledger_with_a_copy_of_the_former_one(bench: LedgerBench) -> None:
    key = new_key()
    with bench.ledger():
        bench.receive(body(key), key)
        bench.drained()
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    name = named(changelog(Table.TENANTS), bench.prefix)
    for deleted in admin.delete_topics([name]).values():
        deleted.result(30)
    eventually(lambda: name not in admin.list_topics(timeout=10).topics)
    topics.apply({"bootstrap.servers": bench.bootstrap}, prefix=bench.prefix, partitions=PARTITIONS, replication=1)
    again = bench.start()
    assert again.wait(60) == CliExit.UNUSABLE
    assert "ledger-tenants-changelog: is not the topic that" in child_process.last_lines(again.log_path)
    with bench.ledger(disk="another"):
        bench.receive(body(key), key)


@pytest.mark.long
def test_a_recreated_input_topic_ends_the_running_ledger(bench: LedgerBench) -> None:
    key = new_key()
    worker = bench.start()
    bench.receive(body(key), key)
    bench.drained()
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    name = named(RECEIVED, bench.prefix)
    for deleted in admin.delete_topics([name]).values():
        deleted.result(30)
    eventually(lambda: name not in admin.list_topics(timeout=10).topics)
    topics.apply({"bootstrap.servers": bench.bootstrap}, prefix=bench.prefix, partitions=PARTITIONS, replication=1)
    bench.receive_all((key, body(key)) for key in [new_key() for _ in range(100)])
    assert worker.wait(60) == WorkerExit.LOSS
    # A rebalance may come first, and find the committed offset beyond a log that is still short.
    last = child_process.last_lines(worker.log_path, 1)
    assert f"{name} was made anew while it was read" in last or "is outside the log" in last


def test_topics_with_added_partitions_are_refused_with_a_remedy(bench: LedgerBench) -> None:
    with bench.ledger():
        bench.drained()
    grown = [named(one, bench.prefix) for one in (RECEIVED, OUTCOMES, *(changelog(table) for table in Table))]
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    for raised in admin.create_partitions([NewPartitions(name, PARTITIONS + 2) for name in grown]).values():
        raised.result(30)
    again = bench.start()
    assert again.wait(60) == CliExit.UNUSABLE
    assert "lifecycle.received: 6 partitions, and 4 before" in child_process.last_lines(again.log_path)


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_a_delivery_of_every_compression_is_read(running: tuple[LedgerBench, str], codec: str) -> None:
    bench, _ = running
    key = new_key()
    producer = records.producer(bench.bootstrap, compression=codec)
    headers: list[tuple[str, Any]] = [("ce_type", webhook.CE_TYPE.encode()), ("endpoint", b"default")]
    producer.produce(named(RECEIVED, bench.prefix), value=body(key), key=key.encode(), headers=headers)
    assert producer.flush(30) == 0
    eventually(lambda: len(bench.out(EVENTS, key)) == 1)


def test_a_transaction_marker_is_no_gap(bench: LedgerBench) -> None:
    keys = [new_key() for _ in range(3)]
    headers: list[tuple[str, Any]] = [("ce_type", webhook.CE_TYPE.encode()), ("endpoint", b"default")]
    writer = Producer({
        "bootstrap.servers": bench.bootstrap, "transactional.id": bench.prefix, "partitioner": "murmur2_random",
    })  # fmt: skip
    writer.init_transactions(30)
    with bench.ledger():
        for event in ("installed", "disabled", "enabled"):
            writer.begin_transaction()
            for key in keys:
                raw = body(key, event)
                writer.produce(named(RECEIVED, bench.prefix), value=raw, key=key.encode(), headers=headers)
            writer.commit_transaction(30)
        eventually(lambda: all(len(bench.out(EVENTS, key)) == 3 for key in keys))


@pytest.mark.long
def test_changelogs_that_end_in_transaction_markers_are_recovered(bench: LedgerBench) -> None:
    key = new_key()
    with bench.ledger():
        bench.receive(body(key), key)
        bench.drained()
    copier = Copier(bench.bootstrap, bench.prefix)
    whole = [(number, Message(b"k", b"no row")) for number in range(PARTITIONS)]
    for table in Table:
        copier.abort(named(changelog(table), bench.prefix), whole)
    for disk in ("state", "lost"):
        warming = bench.start("--recover-only", disk=disk)
        assert warming.wait(60) == 0, child_process.last_lines(warming.log_path)
    for disk, event in (("third", "disabled"), ("lost", "enabled")):
        with bench.ledger(disk=disk):
            bench.receive(body(key, event), key)
            bench.drained()
    assert [out.said["revision"] for out in bench.out(EVENTS, key)] == [1, 2, 3]


@pytest.mark.long
def test_a_ledger_raises_its_file_limit_and_reports_a_limit_that_is_too_low(bench: LedgerBench) -> None:
    key = new_key()
    needed = 256 + PARTITIONS * 2 * FILES_PER_TABLE
    command = (sys.executable, "-m", "services.cli.main", "ledger")
    for number, (soft, hard) in enumerate(((100, 4096), (needed - 1, needed - 1))):
        limited = ("sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh", *command)
        worker = bench.start(command=limited)
        try:
            bench.receive(body(key, ("installed", "disabled")[number]), key)
            eventually(lambda count=number + 1: len(bench.out(EVENTS, key)) == count, 60)  # type: ignore[misc]
        finally:
            assert worker.stop(30) == 0, child_process.last_lines(worker.log_path)
        told = _lines(bench.folder / "ledger.log", "too few files")
        assert len(told) == number
    assert f"{needed} open files may be needed, and {needed - 1} are allowed" in told[0]["why"]


def test_a_record_in_a_wrong_partition_goes_to_dead_letters(running: tuple[LedgerBench, str]) -> None:
    bench, _ = running
    key = new_key()
    producer = records.producer(bench.bootstrap)
    headers: list[tuple[str, Any]] = [("ce_type", webhook.CE_TYPE.encode()), ("endpoint", b"default")]
    for partition in range(PARTITIONS):
        producer.produce(
            named(RECEIVED, bench.prefix), value=body(key), key=key.encode(), headers=headers, partition=partition
        )
    assert producer.flush(30) == 0
    letters = eventually(lambda: found if len(found := bench.out(DEAD_LETTERS, key)) == PARTITIONS - 1 else None)
    assert letters is not None
    assert {letter.said["reason"] for letter in letters} == {"misplaced"}
    eventually(lambda: len(bench.out(EVENTS, key)) == 1)


def test_a_dead_letter_of_an_oversized_record_has_its_beginning_and_hash(
    running: tuple[LedgerBench, str],
) -> None:
    bench, _ = running
    key, raw = new_key(), b"{" + b"x" * 1_800_000
    bench.receive(raw, key, traceparent="\xff" * 50_000)
    letter = eventually(lambda: next(iter(bench.out(DEAD_LETTERS, key)), None))
    assert letter is not None
    assert f"of {len(raw)} bytes, sha256 {sha256(raw).hexdigest()}" in letter.said["detail"]
    assert b64decode(letter.said["body_base64"]) == raw[:1_048_576]
    bench.receive(body(key), key)
    eventually(lambda: len(bench.out(EVENTS, key)) == 1)


@pytest.mark.long
def test_a_standby_has_every_row_before_it_takes_over(bench: LedgerBench) -> None:
    keys = [new_key() for _ in range(20)]
    log = bench.folder / "ledger.log"

    def missing() -> int:
        before = len(_lines(log, "recovered"))
        warming = bench.start("--recover-only", disk="second")
        assert warming.wait(60) == 0
        return sum(int(line["records"]) for line in _lines(log, "recovered")[before:])

    def taken() -> int:
        return len(_lines(log, "partition taken over"))

    both = [bench.start(disk="first", STANDBY_REPLICAS="1")]
    try:
        eventually(lambda: taken() == PARTITIONS, 60)
        both.append(bench.start(disk="second", STANDBY_REPLICAS="1"))
        eventually(lambda: taken() == PARTITIONS + PARTITIONS // 2, 60)
        bench.receive_all((key, body(key)) for key in keys)
        bench.drained()
        time.sleep(2)  # a copy follows within a moment
    finally:
        for worker in both:
            worker.kill()
    assert missing() == 0, "though half of the partitions were never its own"
    with bench.ledger(disk="second"):
        bench.receive_all((key, body(key, "disabled")) for key in keys)
        bench.drained()
    assert {out.key for out in bench.out(TENANTS) if out.said["enabled"] is False} == set(keys)
    assert {out.said["revision"] for out in bench.out(EVENTS)} == {1, 2}


def test_missing_topics_and_key_material_are_named_at_start(
    kafka_bootstrap: str, topic_prefix: str, tmp_path: Path
) -> None:
    bench = LedgerBench(kafka_bootstrap, topic_prefix, tmp_path)
    nowhere = bench.start(TOPIC_PREFIX=f"{topic_prefix}nowhere-")
    assert nowhere.wait(60) == 2
    assert "lifecycle.received: no such topic" in child_process.last_lines(nowhere.log_path)
    (tmp_path / "keyring.json").write_text('{"endpoints": {}}')
    keyless = bench.start()
    assert keyless.wait(60) == 2
    assert "material: missing" in child_process.last_lines(keyless.log_path)
    bare = bench.start(KAFKA_BOOTSTRAP_SERVERS="")
    assert bare.wait(60) == 2
    told = child_process.last_lines(bare.log_path)
    assert "KAFKA_BOOTSTRAP_SERVERS: missing" in told
    assert "material: missing" in told


def test_a_topic_with_sender_timestamps_is_refused_at_start(bench: LedgerBench) -> None:
    name = named(RECEIVED, bench.prefix)
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    entry = ConfigEntry("message.timestamp.type", "CreateTime", incremental_operation=AlterConfigOpType.SET)
    (done,) = admin.incremental_alter_configs(
        [ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])]
    ).values()
    done.result(30)
    worker = bench.start()
    assert worker.wait(60) == 2
    assert f"{name} is not as the table says: message.timestamp.type is CreateTime" in child_process.last_lines(
        worker.log_path
    )


def _metric(url: str, name: str) -> float:
    lines = dict(line.rsplit(" ", 1) for line in httpx2.get(f"{url}/metrics").text.splitlines() if line[0] != "#")
    return float(lines[name])


def _lines(log: Path, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if line.get("event") == event]
