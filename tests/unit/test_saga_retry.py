"""The retry of a saga: what is decided before the commit, and what is said for each result of the registry."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

import pytest

from schemas.saga import Journal, Life, Phase, StepLog, StepVerdict
from schemas.saga_row import SagaRow
from schemas.tenant import Desired
from services.adapters.registry.types import Claim, LeaseLost, NewerDesired, TenantTaken, Written
from services.core.ledger import audit
from services.core.saga.retry import RetryEnd, RetryResult, decide_retry
from services.operations.sagas import retry

KEY = f"{UUID(int=1)}:{UUID(int=2)}"
DESIRED = Desired(
    key=KEY,
    version=3,
    installed=True,
    enabled=True,
    configuration={},
    tenant_id="tenant_acme",
    installed_at=1,
    uninstalled_at=None,
)
ROLLED_BACK = Journal(phase=Phase.ROLLED_BACK, generation=1, target=DESIRED)
EMPTY = Journal(target=DESIRED)


@dataclass
class OneSaga:
    """A registry with one saga, which gives one result to the first write."""

    journal: Journal
    result: object
    writes: list[tuple[Journal, int]] = field(default_factory=list)

    async def claim_one(self, key: str) -> Claim:
        return Claim(key, 1, DESIRED, self.journal, time.monotonic() + 5, 0)

    async def sagas(self, **_: Any) -> list[SagaRow]:
        return [SagaRow(KEY, 3, self.journal.phase, 1, None, None, None, None, 0.0, None, self.journal)]

    async def write(self, _: Claim, journal: Journal, messages: Any, **_options: Any) -> object:
        self.writes.append((journal, len(messages)))
        return self.result if len(self.writes) == 1 else Written()


@pytest.mark.parametrize(
    ("journal", "result", "said", "writes"),
    [
        (ROLLED_BACK, Written(), "tried again now", 1),
        (ROLLED_BACK, NewerDesired(written=True), "tried again now", 2),
        (ROLLED_BACK, NewerDesired(written=False), "a newer version came just now", 2),
        # Nothing was to be written, so the equal text in the registry proves nothing.
        (EMPTY, NewerDesired(written=True), "a newer version came just now", 2),
        (ROLLED_BACK, LeaseLost(), "its lease was lost just now: another worker is at it, or it is gone", 1),
        (ROLLED_BACK, TenantTaken(), "its tenantId is bound to another organisation", 2),
    ],
)
def test_each_result_has_its_own_true_sentence(journal: Journal, result: object, said: str, writes: int) -> None:
    registry = OneSaga(journal, result)
    assert asyncio.run(retry(cast("Any", registry), KEY, b"x" * 32)).text == said
    assert len(registry.writes) == writes, "a lease still held is given back, and no other is touched"
    assert all(count == 0 for _, count in registry.writes[1:]), "no audit line is written twice"


MATERIAL = b"x" * 32
REMOVING = Journal(
    phase=Phase.REMOVING,
    generation=1,
    target=DESIRED,
    life=Life(
        generation=1,
        plan="p",
        tenant_id="tenant_acme",
        steps={"crm": StepLog(n=1, verdict=StepVerdict.REFUSED, tries=3, not_before=9, reason="HTTP 422")},
    ),
    lines=4,
)


def row(journal: Journal, *, waits_for: str | None = None, why: str | None = None) -> SagaRow:
    return SagaRow(KEY, 3, journal.phase, 1, None, waits_for, why, None, 0.0, None, journal)


def test_a_retry_with_an_effect_ends_the_waits_and_has_the_next_audit_line() -> None:
    again = decide_retry(row(REMOVING), REMOVING, DESIRED, 7, MATERIAL)
    assert again.end is RetryEnd.TRIED
    assert again.journal.life is not None
    assert again.journal.life.steps["crm"].not_before == 0
    assert again.line is not None
    assert (again.journal.lines, again.line.id) == (5, f"{KEY}/retry/5")
    assert (again.line.why, again.line.at) == ("an operator's wish, while it was removing", 7)
    assert audit.is_genuine(again.line, [MATERIAL])


@pytest.mark.parametrize(
    ("of", "version", "end"),
    [
        (row(EMPTY), 3, RetryEnd.NOTHING),
        (row(EMPTY), 4, RetryEnd.TRIED),  # a newer version waits
        (row(Journal()), 3, RetryEnd.TRIED),  # no version was taken up yet
        (row(EMPTY, waits_for="crm"), 3, RetryEnd.TRIED),
        (row(EMPTY, why="stopped by KeyError"), 3, RetryEnd.TRIED),
        (row(EMPTY, why="grace"), 3, RetryEnd.IN_GRACE),
        (row(EMPTY, why="grace"), 4, RetryEnd.IN_GRACE),
    ],
)
def test_a_retry_without_work_changes_no_journal_and_has_no_line(of: SagaRow, version: int, end: RetryEnd) -> None:
    again = decide_retry(of, of.journal, DESIRED.model_copy(update={"version": version}), 7, MATERIAL)
    assert (again.journal, again.line, again.end) == (of.journal, None, end)


def test_every_end_has_words_and_two_of_them_are_as_asked() -> None:
    assert all(RetryResult(end).text for end in RetryEnd)
    assert {end for end in RetryEnd if RetryResult(end).is_done} == {RetryEnd.TRIED, RetryEnd.NOTHING}
    assert RetryResult(RetryEnd.BUSY, "worker {1}").text == "worker {1} is at it now"
