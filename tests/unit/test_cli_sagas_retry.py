"""The sentence of `lifecycle sagas retry` for each result of the registry."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

import pytest

from schemas.saga import Journal, Phase
from schemas.tenant import Desired
from services.adapters.registry.types import Claim, LeaseLost, NewerDesired, SagaRow, TenantTaken, Written
from services.cli.sagas import _retry

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
def test_each_result_of_a_retry_has_its_own_sentence(journal: Journal, result: object, said: str, writes: int) -> None:
    registry = OneSaga(journal, result)
    assert asyncio.run(_retry(cast("Any", registry), KEY, b"x" * 32)) == said
    assert len(registry.writes) == writes, "a lease still held is given back, and no other is touched"
    assert all(count == 0 for _, count in registry.writes[1:]), "no audit line is written twice"
