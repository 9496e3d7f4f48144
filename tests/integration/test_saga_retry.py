"""An operator's retry on a real registry: which sagas it finds, what it writes, and when it refuses."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from schemas.audit import Audit
from schemas.codec import decode
from schemas.saga import Failure, Journal, Life, Phase, Standstill, StepLog, StepState, StepVerdict
from schemas.topics import AUDIT
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import OutboxRow
from services.core.ledger import audit
from services.core.saga.phase_groups import PhaseGroup
from services.core.saga.retry import RetryEnd, RetryResult
from services.operations import sagas
from tests.integration.test_provisioner_registry import desired, key
from tests.support.provisioner_process import untraced

MATERIAL = b"m" * 32
REFUSED = StepLog(n=1, state=StepState.PRESENT, verdict=StepVerdict.REFUSED, tries=2, not_before=9, reason="HTTP 422")
ROLLED_BACK = Journal(
    phase=Phase.ROLLED_BACK,
    generation=1,
    target=desired(key(1)),
    failure=Failure(step="crm", error_class="refused", reason="HTTP 422"),
)
STANDS = Journal(
    phase=Phase.REMOVING,
    generation=1,
    target=desired(key(2)),
    life=Life(generation=1, plan="p", tenant_id="acme", steps={"crm": REFUSED}),
    standstill=Standstill(step="crm", since=1),
    lines=4,
)
AT_REST = Journal(target=desired(key(3)))


def _registry(url: str, worker: str, lease_s: float = sagas.LEASE_S) -> Registry:
    return Registry(url, schema="lifecycle", lease_s=lease_s, worker=worker, on_unreadable=lambda *_: None)


@pytest.fixture
async def registry(database_url: str) -> AsyncIterator[Registry]:
    """Three sagas: rolled back, standing, at rest."""
    registry = _registry(database_url, "operator")
    await registry.start()
    await registry.store(untraced([desired(key(number)) for number in (1, 2, 3)]))
    journals = {key(1): ROLLED_BACK, key(2): STANDS, key(3): AT_REST}
    for claim in await registry.claim(3):
        await registry.write(claim, journals[claim.key], (), due_in_s=None, release=True)
    yield registry
    await registry.close()


async def _outbox(registry: Registry) -> list[OutboxRow]:
    found: list[OutboxRow] = []

    async def keep(rows: list[OutboxRow]) -> list[int]:
        found.extend(rows)
        return []

    await registry.drain(keep, 10)
    return found


async def test_without_keys_every_failed_saga_is_retried_with_an_audit_line(registry: Registry) -> None:
    failed = {row.key for row in await sagas.rows(registry, PhaseGroup.FAILED, 10)}
    assert failed == {key(1), key(2)}
    found = await sagas.retry_all(registry, [], MATERIAL)
    assert dict(found) == dict.fromkeys(failed, RetryResult(RetryEnd.TRIED))
    rows = {row.key: row for row in await _outbox(registry)}
    lines = {of: decode(Audit, row.value) for of, row in rows.items()}
    assert {of: (row.topic, row.seq) for of, row in rows.items()} == {key(1): (AUDIT.name, 1), key(2): (AUDIT.name, 5)}
    assert {of: line.id for of, line in lines.items()} == {key(1): f"{key(1)}/retry/1", key(2): f"{key(2)}/retry/5"}
    assert all(audit.is_genuine(line, [MATERIAL]) for line in lines.values())
    (row,) = await registry.sagas(key=key(2), limit=1)
    assert row.journal.life is not None
    assert (row.journal.lines, row.journal.life.steps["crm"].not_before, row.worker) == (5, 0, None)
    assert {claim.key for claim in await registry.claim(10)} == failed, "all are due now"


async def test_a_saga_at_rest_or_without_a_row_is_named_and_has_no_line(registry: Registry) -> None:
    found = await sagas.retry_all(registry, [key(3), key(9)], MATERIAL)
    assert found == [(key(3), RetryResult(RetryEnd.NOTHING)), (key(9), RetryResult(RetryEnd.NO_SAGA))]
    assert await _outbox(registry) == []


async def test_a_saga_of_another_worker_is_left_to_that_worker(registry: Registry, database_url: str) -> None:
    other = _registry(database_url, "worker", lease_s=60)
    await other.open()
    assert await other.claim_one(key(1)) is not None
    result = await sagas.retry(registry, key(1), MATERIAL)
    assert (result, result.text) == (RetryResult(RetryEnd.BUSY, "worker"), "worker is at it now")
    assert await _outbox(registry) == []
    await other.close()


async def test_a_row_of_another_release_is_named_with_its_fault(registry: Registry, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("UPDATE lifecycle.sagas SET journal = %s WHERE key = %s", ('{"phase": "paused"}', key(1)))
    result = await sagas.retry(registry, key(1), MATERIAL)
    assert (result.end, result.is_done) == (RetryEnd.UNREADABLE, False)
    assert result.text.startswith("its row cannot be read by this release: Journal: phase")


async def test_during_a_recovery_nothing_is_retried(registry: Registry) -> None:
    await registry.begin_recovery()
    with pytest.raises(sagas.RecoveryInProgress, match="the registry is being recovered"):
        await sagas.retry_all(registry, [key(1)], MATERIAL)
    assert await _outbox(registry) == []
