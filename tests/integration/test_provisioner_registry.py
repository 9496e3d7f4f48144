"""The registry on a real PostgreSQL: leases, epochs, bindings and the outbox hold for concurrent writers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import structlog
from psycopg import sql
from structlog.testing import LogCapture

from schemas.codec import Unreadable
from schemas.saga import Journal, Life, Standstill
from schemas.tenant import Desired
from schemas.topics import AUDIT, OUTCOMES
from services.adapters.postgres.url import usable
from services.adapters.process import metrics
from services.adapters.process.errors import Unusable
from services.adapters.registry.registry import SCHEMA, Registry, RegistryAway
from services.adapters.registry.types import (
    Arrival,
    Claim,
    Counted,
    LeaseLost,
    NewerDesired,
    OutboxMessage,
    OutboxRow,
    RemovalRules,
    TenantTaken,
    Waiting,
    Written,
)
from services.provisioner.census import CensusWatch
from services.provisioner.registry_guard import RegistryGuard
from tests.support.eventually import eventually_async
from tests.support.provisioner_process import shut, untraced
from tests.support.unreadable import unexpected

LEASE_S = 1.0


def key(number: int, org: int = 1) -> str:
    """A key of organisation `org`."""
    return f"00000000-0000-4000-8000-{org:012x}:00000000-0000-4000-9000-{number:012x}"


def desired(of: str, version: int = 1, **fields: object) -> Desired:
    """An installed version."""
    given = {
        "key": of, "version": version, "installed": True, "enabled": True, "configuration": {"nul": "\0"},
        "tenant_id": "acme", "installed_at": 1, "uninstalled_at": None,
    }  # fmt: skip
    return Desired.model_validate(given | fields)


def alive(tenant_id: str = "acme") -> Journal:
    """A journal with a life that goes by a tenantId."""
    return Journal(generation=1, life=Life(generation=1, plan="p", tenant_id=tenant_id))


def said(seq: int, topic: str = OUTCOMES.name) -> OutboxMessage:
    """Something to be published."""
    return OutboxMessage(topic, seq, b"{}")


def gauge(name: str, **labels: str) -> float:
    """The value of a gauge of the provisioner."""
    return metrics.PROVISIONER.registry.get_sample_value(f"lifecycle_provisioner_{name}", labels) or 0.0


@pytest.fixture
async def registry(database_url: str) -> AsyncIterator[Registry]:
    opened = Registry(database_url, schema="lifecycle", lease_s=LEASE_S, worker="one", on_unreadable=unexpected)
    await opened.start()
    yield opened
    await opened.close()


@pytest.fixture
async def other(registry: Registry, database_url: str) -> AsyncIterator[Registry]:
    opened = Registry(database_url, schema="lifecycle", lease_s=LEASE_S, worker="two", on_unreadable=unexpected)
    await opened.start()
    yield opened
    await opened.close()


async def _claim(registry: Registry, of: str) -> Claim:
    await registry.store(untraced([desired(of)]))
    (claim,) = await registry.claim(10)
    return claim


async def test_many_registries_can_start_at_once_on_an_empty_database(database_url: str) -> None:
    starting = [
        Registry(database_url, schema="lifecycle", lease_s=LEASE_S, worker=str(n), on_unreadable=unexpected)
        for n in range(4)
    ]
    await asyncio.gather(*(one.start() for one in starting))
    assert all([await one.is_empty() for one in starting])
    for one in starting:
        await one.close()


async def test_a_migration_does_not_wait_long_for_the_lock_of_a_table_in_use(
    registry: Registry, database_url: str
) -> None:
    newer = Registry(database_url, schema="lifecycle", lease_s=LEASE_S, worker="two", on_unreadable=unexpected)
    with psycopg.connect(database_url) as session:
        session.execute("DELETE FROM lifecycle.migrations WHERE name = '0008_traces.sql'")
        session.execute("ALTER TABLE lifecycle.sagas DROP trace, DROP trace_version, DROP open_calls")
        session.execute("ALTER TABLE lifecycle.outbox DROP trace")
        session.commit()
        session.execute("SELECT FROM lifecycle.sagas")  # the transaction stays open, and holds the weakest lock
        async with asyncio.timeout(8):
            with pytest.raises(RegistryAway, match="lock timeout"):
                await newer.start()
    await newer.start()
    assert (await _claim(newer, key(1))).open_calls == {}
    await newer.close()


async def test_only_the_newest_version_of_a_batch_is_stored_and_no_older_one(registry: Registry) -> None:
    assert await registry.store(untraced([desired(key(1), 3), desired(key(1), 5), desired(key(1), 4)])) == 1
    assert await registry.store(untraced([desired(key(1), 5), desired(key(1), 2)])) == 0
    (claim,) = await registry.claim(10)
    assert claim.desired == desired(key(1), 5)
    assert not await registry.is_empty()


async def test_a_row_is_claimed_again_only_after_its_lease_has_ended(registry: Registry, other: Registry) -> None:
    first = await _claim(registry, key(1))
    assert await other.claim(10) == []
    (second,) = await eventually_async(lambda: other.claim(10))
    assert second.epoch == first.epoch + 1
    assert isinstance(await registry.write(first, Journal(seq=9), (), due_in_s=None, release=True), LeaseLost)
    assert isinstance(await other.write(second, Journal(seq=1), (), due_in_s=None, release=True), Written)


async def test_epochs_of_a_recreated_registry_exceed_those_of_the_former(registry: Registry, database_url: str) -> None:
    before = await _claim(registry, key(1))
    for _ in range(3):
        await registry.write(before, Journal(), (), due_in_s=0, release=True)
        (before,) = await registry.claim(1)
    assert before.epoch >= time.time() - 600
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("DROP SCHEMA lifecycle CASCADE")
    anew = Registry(database_url, schema="lifecycle", lease_s=LEASE_S, worker="one", on_unreadable=unexpected)

    async def a_second_later() -> bool:
        return time.time() >= before.epoch + 1

    assert await eventually_async(a_second_later)
    await anew.start()
    assert (await _claim(anew, key(1))).epoch > before.epoch
    await anew.close()


async def test_a_renewed_lease_stays_held(registry: Registry, other: Registry) -> None:
    claim = await _claim(registry, key(1))
    began = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < began + 2 * LEASE_S:
        await registry.renew([claim])
        assert await other.claim(10) == []
    assert claim.is_held()


async def test_a_lost_lease_is_not_renewed(registry: Registry, other: Registry) -> None:
    claim = await _claim(registry, key(1))
    await eventually_async(lambda: other.claim(10))
    await registry.renew([claim])
    assert not claim.is_held()


async def test_a_lease_ends_for_its_holder_before_another_worker_can_claim_it(
    registry: Registry, other: Registry
) -> None:
    claim = await _claim(registry, key(1))
    await eventually_async(lambda: other.claim(10))
    assert not claim.is_held()


async def test_two_workers_never_claim_the_same_row(registry: Registry, other: Registry) -> None:
    await registry.store(untraced([desired(key(number)) for number in range(60)]))
    claims = await asyncio.gather(*(one.claim(10) for one in (registry, other) * 3))
    keys = [claim.key for batch in claims for claim in batch]
    assert len(keys) == len(set(keys)) == 60


async def test_organisations_take_turns_in_a_claim(registry: Registry) -> None:
    await registry.store(untraced([desired(key(number)) for number in range(300)]))
    await registry.store(untraced([desired(key(number, org=number)) for number in range(2, 6)]))
    claims = await registry.claim(8)
    assert [claim.key.partition(":")[0] for claim in claims].count(key(1).partition(":")[0]) == 4
    assert {claim.key for claim in claims} >= {key(number, org=number) for number in range(2, 6)}


async def test_leases_of_one_organisation_are_limited(database_url: str, registry: Registry) -> None:
    narrow = Registry(
        database_url, schema="lifecycle", lease_s=LEASE_S, worker="three", on_unreadable=unexpected, org_limit=3
    )
    await narrow.start()
    await registry.store(untraced([desired(key(number)) for number in range(9)] + [desired(key(1, org=2))]))
    first = await narrow.claim(9)
    assert len(first) == 4
    assert await narrow.claim(9) == []
    await narrow.write(first[0], Journal(), (), due_in_s=None, release=True)
    assert len(await narrow.claim(9)) == 1
    await narrow.close()


async def test_sagas_waiting_for_a_system_become_due_when_it_is_well(registry: Registry) -> None:
    await registry.store(untraced([desired(key(number)) for number in range(3)]))
    waits = ("crm", "crm", "tokens")
    for claim, system in zip(await registry.claim(3), waits, strict=True):
        await registry.write(claim, Journal(), (), due_in_s=60, release=True, waiting=Waiting(system))
    assert await registry.claim(3) == []
    assert await registry.wake("crm") == 2
    assert len(await registry.claim(3)) == 2
    assert await registry.wake("crm") == 0, "they are being driven"


async def test_a_census_counts_the_whole_registry(registry: Registry, other: Registry) -> None:
    nothing = await registry.census(0)
    assert (nothing.sagas, nothing.unwell, nothing.outbox) == ({}, {}, Counted())
    await registry.store(untraced([desired(key(number)) for number in range(7)]))
    assert (await registry.census(0)).sagas.keys() == {"due"}
    rests, retries, other_retries, conflict, stands, running = await registry.claim(6)
    now_us = running.now_us()
    retrying = Waiting(because="retrying", since_us=now_us - 90_000_000)
    await registry.write(rests, Journal(), (said(1),), due_in_s=None, release=True, waiting=Waiting(because="rest"))
    await registry.write(retries, Journal(), (), due_in_s=60, release=True, waiting=retrying)
    await registry.write(other_retries, Journal(), (), due_in_s=60, release=True, waiting=Waiting(because="retrying"))
    await registry.write(conflict, Journal(), (), due_in_s=60, release=True, waiting=Waiting(because="tenant_conflict"))
    stood = Journal(standstill=Standstill(step="crm", since=now_us - 60_000_000))
    await registry.write(stands, stood, (), due_in_s=60, release=True, waiting=Waiting(because="system_away"))
    found = await other.census(30)
    assert {why: counted.number for why, counted in found.sagas.items()} == {
        "due": 1, "running": 1, "retrying": 2, "tenant_conflict": 1, "system_away": 1, "rest": 1,
    }  # fmt: skip
    assert 89 < found.sagas["retrying"].oldest_s < 120
    assert found.sagas["tenant_conflict"].oldest_s < 30
    assert (found.unwell, found.outbox.number) == ({"crm": 1}, 1)
    assert 0 <= found.outbox.oldest_s < 30
    assert (await other.census(120)).unwell == {}


async def test_a_census_shows_since_when_a_row_is_due_that_nobody_claims_while_others_are_driven(
    registry: Registry, database_url: str
) -> None:
    assert (await registry.census(0)).oldest_due_s == 0
    await registry.store(untraced([desired(key(number)) for number in range(5)]))
    with psycopg.connect(database_url) as session:
        session.execute("UPDATE lifecycle.sagas SET due_at = due_at - interval '1 h' WHERE key = %s", (key(3),))
        session.commit()
        # An operator's session that was left in the middle of a transaction: every claim skips the row.
        session.execute("SELECT FROM lifecycle.sagas WHERE key = %s FOR UPDATE", (key(3),))
        claims = await registry.claim(10)
        assert {claim.key for claim in claims} == {key(number) for number in (0, 1, 2, 4)}
        first = (await registry.census(0)).oldest_due_s
        assert 3600 <= time.time() - first < 3660
        for claim in claims:
            await registry.write(claim, Journal(), (), due_in_s=0, release=True)
        assert len(await registry.claim(10)) == 4
        assert (await registry.census(0)).oldest_due_s == first, "it is the same row"
    assert [claim.key for claim in await registry.claim(10)] == [key(3)]
    assert (await registry.census(0)).oldest_due_s == 0


async def test_a_row_of_an_earlier_release_is_counted_by_its_phase(registry: Registry, database_url: str) -> None:
    phases = ("active", "active", "rolled_back", "removing", "updating", "removing")
    await registry.store(untraced([desired(key(number)) for number in range(len(phases))]))
    with psycopg.connect(database_url, autocommit=True) as session:
        for number, phase in enumerate(phases):
            session.execute(
                "UPDATE lifecycle.sagas SET phase = %s, due_at = clock_timestamp() + interval '1 h' WHERE key = %s",
                (phase, key(number)),
            )
        session.execute("UPDATE lifecycle.sagas SET due_at = NULL WHERE key = %s", (key(0),))
        session.execute(
            "UPDATE lifecycle.sagas SET stands_at = 'crm', stands_since = clock_timestamp() - interval '90 s'"
            " WHERE phase = 'updating'"
        )
        session.execute("UPDATE lifecycle.sagas SET why = 'grace' WHERE key = %s", (key(5),))
    found = (await registry.census(30)).sagas
    assert {why: counted.number for why, counted in found.items()} == {
        "rest": 2, "rolled_back": 1, "retrying": 2, "grace": 1,
    }  # fmt: skip
    assert 89 < found["retrying"].oldest_s < 120


async def test_the_word_of_another_turn_that_a_worker_of_an_earlier_release_leaves_is_not_counted(
    registry: Registry, database_url: str
) -> None:
    claim, conflict = await _claim(registry, key(1)), Waiting(because="tenant_conflict", since_us=1_000_000)
    await registry.write(claim, Journal(), (), due_in_s=60, release=True, waiting=conflict)
    assert (await registry.census(0)).sagas.keys() == {"tenant_conflict"}
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("UPDATE lifecycle.sagas SET epoch = epoch + 1, phase = 'removing'")
    found = (await registry.census(0)).sagas
    assert found == {"retrying": Counted(1, 0.0)}
    again = await registry.claim_one(key(1))
    assert again is not None
    await registry.write(again, Journal(), (), due_in_s=60, release=True, waiting=Waiting(because="tenant_conflict"))
    assert (await registry.census(0)).sagas["tenant_conflict"].oldest_s < 30


async def test_a_census_that_fails_is_told_of_once_and_leaves_its_age(registry: Registry, database_url: str) -> None:
    told = LogCapture()
    every = structlog.make_filtering_bound_logger(0)
    log = structlog.wrap_logger(structlog.PrintLogger(), processors=[told], wrapper_class=every)
    watch = CensusWatch(registry, 900, RemovalRules(5, 2, 3600), log)
    await registry.store(untraced([desired(key(1))]))
    await watch.take()
    counted_at = gauge("census_timestamp_seconds")
    assert counted_at > time.time() - 60
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("ALTER TABLE lifecycle.outbox RENAME TO elsewhere")
        for _ in range(2):
            await watch.take()
        assert gauge("census_timestamp_seconds") == counted_at
        session.execute("ALTER TABLE lifecycle.elsewhere RENAME TO outbox")
    for _ in range(2):
        await watch.take()
    assert [line["event"] for line in told.entries] == ["census failed", "census succeeds again"]
    assert gauge("census_timestamp_seconds") > counted_at
    assert gauge("sagas", why="due") == 1
    assert counted_at - 60 < gauge("oldest_due_timestamp_seconds") <= time.time() + 1


async def test_a_saga_stands_since_the_first_write_of_its_word(registry: Registry) -> None:
    claim, conflict = await _claim(registry, key(1)), Waiting(because="tenant_conflict")
    await registry.write(claim, Journal(), (), due_in_s=60, release=True, waiting=conflict)

    async def a_second_later() -> float:
        again = await registry.claim_one(key(1))
        assert again is not None
        await registry.write(again, Journal(), (), due_in_s=60, release=True, waiting=conflict)
        return max(0, (await registry.census(0)).sagas["tenant_conflict"].oldest_s - 1)

    assert await eventually_async(a_second_later)


async def test_a_saga_that_stops_again_after_a_call_stands_since_the_first_stop(
    registry: Registry, database_url: str
) -> None:
    claim, stopped = await _claim(registry, key(1)), Waiting(because="stopped")
    await registry.write(claim, Journal(), (), due_in_s=60, release=True, waiting=stopped)
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("UPDATE lifecycle.sagas SET waits_since = waits_since - interval '60 s'")
    for waiting, since_s in ((stopped, 60), (Waiting(because="rest"), 0), (stopped, 0)):
        again = await registry.claim_one(key(1))
        assert again is not None
        await registry.write(again, Journal(seq=1), (), due_in_s=0, release=False)
        await registry.write(again, Journal(seq=2), (), due_in_s=60, release=True, waiting=waiting)
        found = (await registry.census(0)).sagas
        assert found.keys() == {waiting.because}
        assert since_s <= found[waiting.because or ""].oldest_s < since_s + 30


async def test_a_lease_goes_by_the_clock_of_the_database(registry: Registry, database_url: str) -> None:
    claim = await _claim(registry, key(1))
    assert await registry.claim_one(key(1)) is None
    with psycopg.connect(database_url, autocommit=True) as session:
        between_us = claim.now_us()
        ((at_us,),) = session.execute("SELECT (1e6 * extract(epoch FROM clock_timestamp()))::bigint").fetchall()
        assert between_us - 1_000_000 < at_us < claim.now_us() + 1_000_000
    claim.skew_us += 86_400_000_000
    assert claim.now_us() - at_us > 86_000_000_000, "its own clock is not asked"


async def test_the_largest_integer_is_refused_as_an_epoch(registry: Registry, database_url: str) -> None:
    await registry.store(untraced([desired(key(1))]))
    with psycopg.connect(database_url, autocommit=True) as session, pytest.raises(psycopg.errors.CheckViolation):
        session.execute("UPDATE lifecycle.sagas SET epoch = 9223372036854775807")


async def test_after_a_lost_connection_the_registry_is_proved_current_again(
    registry: Registry, database_url: str, database_admin_url: str
) -> None:
    asked, faults = list[int](), [""]

    async def prove(_: Callable[[str], None]) -> str:
        asked.append(registry.losses)
        return faults[0]

    registry_guard = RegistryGuard(registry, prove, structlog.get_logger())

    async def claims_one() -> bool:
        return len(await registry_guard.claim(1)) == 1

    async def is_older() -> bool:
        assert await registry_guard.claim(1) == []
        return registry_guard.fault == "older"

    await registry.store(untraced([desired(key(number)) for number in range(4)]))
    assert [await claims_one(), await claims_one()] == [True, True]
    assert len(asked) == 1
    with shut(database_admin_url, database_url):
        pass  # every connection has ended
    assert await eventually_async(claims_one)
    assert len(asked) >= 2, "once for each connection that ended, at most"
    faults[0] = "older"
    with shut(database_admin_url, database_url):
        pass
    assert await eventually_async(is_older)
    assert not registry_guard.is_proved()


async def test_a_connection_lost_during_the_proof_makes_the_proof_void(
    registry: Registry, database_url: str, database_admin_url: str
) -> None:
    asked = list[int]()

    async def reads() -> bool:
        try:
            await registry.sagas(limit=1)
        except RegistryAway:
            return False
        return True

    async def prove(_: Callable[[str], None]) -> str:
        asked.append(registry.losses)
        if len(asked) == 1:
            with shut(database_admin_url, database_url):
                pass  # every connection has ended
            assert await eventually_async(reads)
        return ""

    registry_guard = RegistryGuard(registry, prove, structlog.get_logger())
    await registry.store(untraced([desired(key(1))]))
    assert await registry_guard.claim(1) == []
    assert registry.losses > asked[0]
    assert len(await registry_guard.claim(1)) == 1
    assert len(asked) == 2


@asynccontextmanager
async def silenced(host: str, port: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Yields the port of a relay to a server, and an event during which the relay passes nothing on."""
    silent, writers = asyncio.Event(), list[asyncio.StreamWriter]()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while sent := await reader.read(65_536):
                while silent.is_set():
                    await asyncio.sleep(0.05)
                writer.write(sent)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near = await asyncio.open_connection(host, port)
        writers.extend((writer, near[1]))
        await asyncio.gather(pump(reader, near[1]), pump(near[0], writer))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], silent
    for writer in writers:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def test_a_server_that_stops_answering_in_the_middle_counts_as_away(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped server ends nothing by its own limits, and its kernel goes on acknowledging: only our timer sees it."""
    session = Registry._session
    monkeypatch.setattr(Registry, "_session", lambda registry, _=0.0: session(registry, 1.0))
    parts = urlsplit(database_url)
    async with silenced(parts.hostname or "", parts.port or 5432) as (port, silent):
        url = urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{port}")))
        registry = Registry(url, schema=SCHEMA, lease_s=LEASE_S, worker="one", on_unreadable=unexpected)
        await registry.start()
        assert await registry.claim(1) == []
        before = registry.losses
        silent.set()
        with pytest.raises(RegistryAway, match="no answer within 1 s"):
            await registry.claim(1)
        assert registry.losses > before, "what is behind the next connection has to be proved"
        silent.clear()
        assert await registry.claim(1) == []
        await registry.close()


async def test_a_row_can_be_leased_by_key_before_it_is_due(registry: Registry, other: Registry) -> None:
    claim = await _claim(registry, key(1))
    await registry.write(claim, Journal(), (), due_in_s=None, release=True)
    mine = await other.claim_one(key(1))
    assert mine is not None
    assert mine.epoch == claim.epoch + 1
    assert await registry.claim_one(key(1)) is None
    assert await registry.claim_one(key(2)) is None
    (row,) = await registry.sagas(key=key(1), limit=5)
    assert (row.worker, row.due_s, row.phase) == ("two", None, "empty")
    assert await registry.sagas(phases=["active"], limit=5) == []


async def test_a_registry_without_its_tables_counts_as_unreachable(database_url: str) -> None:
    bare = Registry(database_url, schema="elsewhere", lease_s=LEASE_S, worker="one", on_unreadable=unexpected)
    await bare.open()
    with pytest.raises(RegistryAway, match="start a provisioner"):
        await bare.claim(1)
    await bare.close()


async def test_a_write_for_an_older_version_is_refused_after_a_newer_one(registry: Registry) -> None:
    claim = await _claim(registry, key(1))
    await registry.store(untraced([desired(key(1), 2)]))
    result = await registry.write(claim, alive(), (said(1),), due_in_s=0, release=False)
    assert result == NewerDesired(written=False)
    assert claim.desired.version == 2
    assert isinstance(await registry.write(claim, Journal(), (), due_in_s=0, release=True), Written)
    (again,) = await registry.claim(10)
    assert again.journal == Journal()
    assert await registry.drain(_nobody, 10) == (0, 0)


async def test_a_new_version_makes_a_resting_saga_due(registry: Registry) -> None:
    claim = await _claim(registry, key(1))
    await registry.write(claim, Journal(), (), due_in_s=None, release=True)
    assert await registry.claim(10) == []
    await registry.store(untraced([desired(key(1), 2)]))
    assert [again.key for again in await registry.claim(10)] == [key(1)]


async def test_another_organisation_can_take_a_tenant_only_after_its_last_generation_ends(registry: Registry) -> None:
    first, second = key(1, org=1), key(2, org=1)
    foreign = key(3, org=2)
    mine = await _claim(registry, first)
    assert isinstance(await registry.write(mine, alive(), (), due_in_s=None, release=False), Written)
    sibling = await _claim(registry, second)
    assert isinstance(await registry.write(sibling, alive(), (), due_in_s=None, release=False), Written)
    theirs = await _claim(registry, foreign)
    assert isinstance(await registry.write(theirs, alive(), (), due_in_s=None, release=False), TenantTaken)
    await registry.write(mine, Journal(), (), due_in_s=None, release=False)
    assert isinstance(await registry.write(theirs, alive(), (), due_in_s=None, release=False), TenantTaken)
    await registry.write(sibling, Journal(), (), due_in_s=None, release=False)
    assert isinstance(await registry.write(theirs, alive(), (), due_in_s=None, release=False), Written)


async def test_of_many_organisations_that_claim_a_tenant_at_once_one_gets_it(
    registry: Registry, other: Registry
) -> None:
    await registry.store(untraced([desired(key(1, org=org)) for org in range(20)]))
    claims = await registry.claim(20)
    results = await asyncio.gather(
        *(
            (registry, other)[n % 2].write(claim, alive(), (), due_in_s=None, release=False)
            for n, claim in enumerate(claims)
        )
    )
    assert sum(isinstance(result, Written) for result in results) == 1


async def test_outcomes_leave_the_outbox_in_order_and_only_when_acknowledged(registry: Registry) -> None:
    claim = await _claim(registry, key(1))
    await registry.write(claim, Journal(), (said(1, AUDIT.name), said(1)), due_in_s=0, release=False)
    await registry.write(claim, Journal(), (said(2),), due_in_s=0, release=False)
    seen: list[tuple[str, int]] = []

    async def first_only(rows: list[OutboxRow]) -> list[int]:
        seen.extend((row.topic, row.seq) for row in rows)
        return [rows[0].id]

    assert await registry.drain(first_only, 10) == (3, 1)
    assert await registry.drain(first_only, 10) == (2, 1)
    first, *rest = [(AUDIT.name, 1), (OUTCOMES.name, 1), (OUTCOMES.name, 2)]
    assert seen == [first, *rest, *rest]


async def test_one_process_at_a_time_empties_the_outbox(registry: Registry, other: Registry) -> None:
    claim = await _claim(registry, key(1))
    await registry.write(claim, Journal(), (said(1),), due_in_s=0, release=False)
    found: list[tuple[int, int]] = []

    async def meanwhile(rows: list[OutboxRow]) -> list[int]:
        found.append(await other.drain(_nobody, 10))
        return [row.id for row in rows]

    assert await registry.drain(meanwhile, 10) == (1, 1)
    assert found == [(0, 0)]


async def test_the_trace_of_a_version_goes_with_the_claim_and_with_what_leaves(registry: Registry) -> None:
    traces = [f"00-{'a' * 32}-{digit * 16}-01" for digit in "123"]
    await registry.store([Arrival(desired(key(1), version), traces[version - 1]) for version in (2, 1)])
    (claim,) = await registry.claim(10)
    assert (claim.trace, claim.open_calls) == (traces[1], {})
    claim.open_calls["crm g1"] = traces[2]
    await registry.write(claim, Journal(seq=1), (said(1),), due_in_s=0, release=False)
    await registry.store([Arrival(desired(key(1), 3), None)])
    assert isinstance(await registry.write(claim, Journal(seq=2), (said(2),), due_in_s=0, release=False), NewerDesired)
    assert claim.trace is None
    await registry.write(claim, Journal(seq=2), (said(2),), due_in_s=0, release=True)
    (again,) = await registry.claim(10)
    assert (again.trace, again.open_calls) == (None, {"crm g1": traces[2]})
    left: list[str | None] = []

    async def look(rows: list[OutboxRow]) -> list[int]:
        left.extend(row.trace for row in rows)
        return [row.id for row in rows]

    await registry.drain(look, 10)
    assert left == [traces[1], None]


async def test_the_trace_of_another_version_that_an_intake_of_an_earlier_release_leaves_is_not_used(
    registry: Registry, database_url: str
) -> None:
    trace = f"00-{'a' * 32}-{'1' * 16}-01"
    await registry.store([Arrival(desired(key(1)), trace)])
    (claim,) = await registry.claim(10)
    assert claim.trace == trace
    with psycopg.connect(database_url, autocommit=True) as session:
        newer = desired(key(1), 2).model_dump_json()
        session.execute("UPDATE lifecycle.sagas SET desired = %s, desired_version = 2", (newer,))
    result = await registry.write(claim, Journal(seq=1), (said(1),), due_in_s=0, release=False)
    assert result == NewerDesired(written=False)
    assert not claim.trace
    await registry.write(claim, Journal(seq=1), (said(1),), due_in_s=0, release=True)
    (again,) = await registry.claim(10)
    assert again.trace is None
    await registry.write(again, Journal(seq=1), (), due_in_s=0, release=True)
    one = await registry.claim_one(key(1))
    assert one is not None
    assert one.trace is None

    async def untraced_rows(rows: list[OutboxRow]) -> list[int]:
        return [row.id for row in rows if row.trace is None]

    assert await registry.drain(untraced_rows, 10) == (1, 1)


async def test_an_unreadable_trace_in_a_row_counts_as_absent(registry: Registry, database_url: str) -> None:
    trace = f"00-{'a' * 32}-{'1' * 16}-01"
    await registry.store([Arrival(desired(key(1)), trace)])
    edits = [("", '{"crm g1": ""}'), ("00-abc", "[]"), (trace[:-1] + "\n", f'{{"crm g1": 7, "tokens g1": "{trace}"}}')]
    for text, calls in edits:
        with psycopg.connect(database_url, autocommit=True) as session:
            session.execute("UPDATE lifecycle.sagas SET trace = %s, open_calls = %s", (text, calls))
        (claim,) = await registry.claim(10)
        assert claim.trace is None
        assert set(claim.open_calls.values()) <= {trace}
        await registry.store([Arrival(desired(key(1), claim.desired.version + 1), trace)])
        with psycopg.connect(database_url, autocommit=True) as session:
            session.execute("UPDATE lifecycle.sagas SET trace = %s", (text,))
        await registry.write(claim, Journal(seq=1), (), due_in_s=0, release=False)
        assert claim.trace is None
        await registry.write(claim, Journal(seq=1), (said(claim.epoch),), due_in_s=0, release=True)
    left: list[str | None] = []

    async def look(rows: list[OutboxRow]) -> list[int]:
        left.extend(row.trace for row in rows)
        return [row.id for row in rows]

    await registry.drain(look, 10)
    assert left == [None] * len(edits)


async def test_the_open_calls_of_a_turn_that_is_not_committed_are_not_noted(registry: Registry) -> None:
    first, second = (f"00-{'a' * 32}-{digit * 16}-01" for digit in "12")
    claim = await _claim(registry, key(1))
    await registry.write(claim, Journal(seq=1), (), due_in_s=0, release=False, open_calls={"crm g1": first})
    assert claim.open_calls == {"crm g1": first}
    await registry.store(untraced([desired(key(1), 2)]))
    calls = {"crm g1": second}
    result = await registry.write(claim, Journal(seq=2), (), due_in_s=0, release=False, open_calls=calls)
    assert result == NewerDesired(written=False)
    assert claim.open_calls == {"crm g1": first}
    await registry.write(claim, Journal(seq=3), (), due_in_s=0, release=True)
    assert [again.open_calls for again in await registry.claim(10)] == [{"crm g1": first}]


async def test_a_turn_written_twice_after_a_lost_commit_answer_repeats_no_outcome(registry: Registry) -> None:
    claim = await _claim(registry, key(1))
    for _ in range(2):
        await registry.write(claim, Journal(seq=1), (said(1),), due_in_s=0, release=False)
    assert await registry.drain(_all, 10) == (1, 1)


async def test_a_turn_with_a_lost_commit_answer_counts_as_written_despite_a_newer_version(
    registry: Registry,
) -> None:
    claim = await _claim(registry, key(1))
    before = claim.journal
    assert isinstance(await registry.write(claim, Journal(seq=1), (said(1),), due_in_s=0, release=False), Written)
    claim.journal = before
    await registry.store(untraced([desired(key(1), 2)]))
    assert await registry.write(claim, Journal(seq=1), (said(1),), due_in_s=0, release=False) == NewerDesired(
        written=True
    )
    assert claim.journal == Journal(seq=1)
    assert claim.desired.version == 2


async def test_an_unreadable_row_is_reported_and_blocks_no_other_row(database_url: str) -> None:
    told: list[tuple[str, str]] = []
    registry = Registry(
        database_url,
        schema="lifecycle",
        lease_s=LEASE_S,
        worker="one",
        on_unreadable=lambda of, why: told.append((of, why)),
    )
    await registry.start()
    await registry.store(untraced([desired(key(number)) for number in range(1, 5)]))
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("UPDATE lifecycle.sagas SET journal = %s WHERE key = %s", ('{"phase": "paused"}', key(2)))
        session.execute("UPDATE lifecycle.sagas SET journal = %s WHERE key = %s", ('{"phase": "active"}', key(4)))
        session.execute("UPDATE lifecycle.sagas SET desired = %s WHERE key = %s", ('{"version": "canary"}', key(3)))
    assert [claim.key for claim in await registry.claim(10)] == [key(1)]
    assert {of for of, _ in told} == {key(2), key(3), key(4)}
    assert "canary" not in str(told)
    assert (await registry.census(0)).sagas["stopped"].number == 3
    with psycopg.connect(database_url, autocommit=True) as session:
        waiting = session.execute(
            "SELECT key, lease_until, due_at > clock_timestamp() + interval '30 s' FROM lifecycle.sagas"
            " WHERE lease_until IS NULL ORDER BY key"
        )
        assert waiting.fetchall() == [(key(2), None, True), (key(3), None, True), (key(4), None, True)]
        session.execute(
            "UPDATE lifecycle.sagas SET due_at = clock_timestamp(), waits_since = waits_since - interval '60 s'"
            " WHERE key = %s",
            (key(2),),
        )
        assert await registry.claim(10) == []
        stopped = (await registry.census(900)).sagas["stopped"]
        assert stopped.number == 3
        assert 60 <= stopped.oldest_s < 90
        session.execute("UPDATE lifecycle.sagas SET journal = '{}' WHERE key = %s", (key(2),))
    await registry.store(untraced([desired(key(2), 2)]))
    assert [claim.key for claim in await registry.claim(10)] == [key(2)]
    await registry.close()


async def test_a_row_that_cannot_be_read_is_not_held_by_who_asked_for_it_alone(
    registry: Registry, database_url: str
) -> None:
    await registry.store(untraced([desired(key(1))]))
    with psycopg.connect(database_url, autocommit=True) as session:
        query = "SELECT due_at, lease_until FROM lifecycle.sagas"
        ((due_at, _),) = session.execute(query).fetchall()
        session.execute("UPDATE lifecycle.sagas SET journal = %s", ('{"phase": "paused"}',))
        with pytest.raises(Unreadable):
            await registry.claim_one(key(1))
        assert session.execute(query).fetchall() == [(due_at, None)]
        session.execute("UPDATE lifecycle.sagas SET journal = '{}'")
    assert await registry.claim_one(key(1)) is not None


async def test_a_read_only_database_counts_as_unreachable_until_it_accepts_writes(
    registry: Registry, database_url: str, database_admin_url: str
) -> None:
    claim = await _claim(registry, key(1))
    with _read_only(database_admin_url, database_url):
        for _ in range(2):  # the first may be told of the connection that ended
            with pytest.raises(RegistryAway):
                await registry.write(claim, alive(), (), due_in_s=None, release=False)
        with pytest.raises(RegistryAway, match="read-only"):
            await Registry(
                database_url, schema="another", lease_s=LEASE_S, worker="two", on_unreadable=unexpected
            ).start()

    async def stored() -> bool:
        try:
            return await registry.store(untraced([desired(key(2))])) == 1
        except RegistryAway:
            return False

    # The connections of that time are not kept: the same address may lead to another server by now.
    assert await eventually_async(stored)


@contextmanager
def _read_only(admin_url: str, database_url: str) -> Iterator[None]:
    name = database_url.rpartition("/")[2]
    with psycopg.connect(admin_url, autocommit=True) as session:
        alter = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
        session.execute(alter.format(sql.Identifier(name), sql.SQL("on")))
        session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        yield
        session.execute(alter.format(sql.Identifier(name), sql.SQL("off")))


async def test_an_unreachable_database_raises_registry_away() -> None:
    nobody = Registry(
        "postgresql://lifecycle@127.0.0.1:1/none",
        schema="lifecycle",
        lease_s=LEASE_S,
        worker="one",
        on_unreadable=unexpected,
    )
    with pytest.raises(RegistryAway):
        await nobody.start()


async def _nobody(_: list[OutboxRow]) -> list[int]:
    return []


async def _all(rows: list[OutboxRow]) -> list[int]:
    return [row.id for row in rows]


def test_an_unparsable_database_url_is_reported_without_its_password() -> None:
    with pytest.raises(Unusable, match=r"DATABASE_URL: .*percent-encode") as told:
        usable("DATABASE_URL", "postgresql://u:canary%zz@h/d")
    assert "canary" not in str(told.value)
    assert usable("DATABASE_URL", "postgresql://u:can%40ary@h/d")
