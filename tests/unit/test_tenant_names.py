"""The two tenantIds of a key: the bound one, and the one claimed by the newest `installed`."""

import json
from dataclasses import replace
from typing import Any

import pytest

from schemas import webhook
from schemas.codec import decode
from schemas.outcome import Direction, Outcome, State
from schemas.rows import StageRow, pack, unpack
from schemas.tenant import Stage, Tenant
from schemas.topics import TENANTS
from schemas.webhook import Delivery
from services.core.ledger.decisions import republish
from services.core.ledger.stage import with_outcome
from services.core.reconcile.observed_state import differences, look_at, observed
from services.core.saga.recovery import KnownOfKey, with_record
from tests.support.deliveries import KEY, RULES, body
from tests.support.genesys_worlds import MAC_KEY, key_of, organisation, reading, tenant
from tests.support.ledger_worker import MemoryLedger, values, view

UP, DOWN = Direction.UP, Direction.DOWN
DONE, WORKING, HELD, ROLLED_BACK = State.DONE, State.WORKING, State.HELD, State.ROLLED_BACK


def installed(at_s: float, tenant_id: str) -> Delivery:
    return webhook.delivery(body("installed", at_s, eventId=str(at_s)) | {"tenantId": tenant_id})


def gone(at_s: float, tenant_id: str) -> Delivery:
    return webhook.delivery(body("uninstalled", at_s, eventId=str(at_s)) | {"tenantId": tenant_id})


def named(worker: MemoryLedger) -> tuple[str | None, str | None]:
    shown = view(worker.decisions[-1])
    return shown["tenant_id"], shown["claimed_tenant_id"]


def active() -> MemoryLedger:
    """Installed and made under the tenantId `first`."""
    worker = MemoryLedger()
    worker.hear(installed(0, "first"))
    worker.told(1, UP, DONE, tenant_id="first")
    return worker


def test_an_unbound_key_shows_the_tenant_id_of_the_newest_install() -> None:
    worker = MemoryLedger()
    worker.hear(installed(0, "first"))
    assert named(worker) == ("first", None)
    worker.hear(installed(10, "second"))
    assert named(worker) == ("second", None)


def test_a_claimed_tenant_id_is_shown_beside_the_bound_one() -> None:
    worker = active()
    assert named(worker) == ("first", None)
    worker.hear(installed(10, "second"))
    assert named(worker) == ("first", "second")
    worker.told(2, UP, DONE, tenant_id="first", reason="tenant_changed")
    assert named(worker) == ("first", "second")
    assert view(worker.decisions[-1])["reason"] == "tenant_changed"


def test_an_install_with_the_bound_tenant_id_ends_the_claim() -> None:
    worker = active()
    worker.hear(installed(10, "second"))
    worker.told(2, UP, DONE, tenant_id="first", reason="tenant_changed")
    worker.hear(installed(20, "first"))
    worker.told(3, UP, DONE, tenant_id="first")
    assert named(worker) == ("first", None)
    assert view(worker.decisions[-1])["reason"] is None


def test_an_uninstall_and_an_install_bind_the_claimed_tenant_id() -> None:
    worker = active()
    worker.hear(installed(10, "second"))
    worker.hear(gone(20, "second"))
    assert named(worker) == ("first", None)
    worker.told(2, DOWN, WORKING, tenant_id="first")
    worker.told(3, DOWN, DONE, tenant_id="first")
    assert named(worker) == ("first", None)
    worker.hear(installed(30, "second"))
    assert named(worker) == ("second", None)
    worker.told(4, UP, DONE, tenant_id="second", generation=2)
    assert named(worker) == ("second", None)


def test_a_removed_tenant_keeps_its_bound_tenant_id() -> None:
    worker = active()
    worker.hear(installed(10, "second"))
    worker.hear(gone(20, "second"))
    worker.told(2, DOWN, DONE, tenant_id="first")
    # A version after that finds nothing to do, and no life.
    worker.told(3, DOWN, DONE)
    assert named(worker) == ("first", None)


def test_a_rolled_back_generation_binds_no_tenant_id() -> None:
    worker = MemoryLedger()
    worker.hear(installed(0, "first"))
    worker.told(1, UP, WORKING, tenant_id="first")
    worker.hear(installed(10, "second"))
    assert named(worker) == ("first", "second")
    worker.told(2, UP, ROLLED_BACK, tenant_id="first")
    assert named(worker) == ("second", None)


def test_a_tenant_id_of_another_organisation_is_claimed_and_not_bound() -> None:
    worker = MemoryLedger()
    worker.hear(installed(0, "taken"))
    worker.told(1, UP, HELD, reason="tenant_conflict", generation=0)
    assert named(worker) == (None, "taken")
    worker.told(2, UP, WORKING, tenant_id="taken")
    assert named(worker) == ("taken", None)


def test_a_replay_publishes_equal_bytes() -> None:
    worker = active()
    worker.hear(installed(10, "second"))
    first = worker.told(2, UP, DONE, tenant_id="first", reason="tenant_changed", offset=7)
    again = worker.told(2, UP, DONE, tenant_id="first", reason="tenant_changed", offset=7)
    assert [output.message for output in again.outputs] == [output.message for output in first.outputs]
    told = [output for output in republish(worker.row, worker.last, RULES) if output.topic is TENANTS]
    assert [output.message for output in told] == [o.message for o in again.outputs if o.topic is TENANTS]


OUTCOME: dict[str, Any] = {
    "key": KEY, "seq": 1, "desired_version": 1, "generation": 1, "direction": "up", "state": "done", "step": None,
    "class": None, "reason": None, "at": "2026-11-29T08:00:00Z",
}  # fmt: skip


def test_an_outcome_without_a_tenant_id_keeps_the_shown_tenant_id() -> None:
    outcome = decode(Outcome, json.dumps(OUTCOME).encode())
    assert outcome.tenant_id is None
    worker = MemoryLedger()
    worker.hear(installed(0, "first"))
    worker.told(1, UP, DONE)
    assert named(worker) == ("first", None)
    # The first outcome that tells it is enough.
    worker.hear(installed(10, "second"))
    worker.told(2, UP, DONE, tenant_id="first")
    assert named(worker) == ("first", "second")


def test_a_row_written_before_the_tenant_id_fields_is_read() -> None:
    row = with_outcome(StageRow(KEY, version=3), decode(Outcome, json.dumps(OUTCOME).encode()))
    packed = pack(row)
    older = packed.replace(b'"tenant_id":null,"bound":false,', b"")
    assert older != packed
    assert unpack(StageRow, older) == row
    newer = replace(row, tenant_id="first", bound=True)
    assert unpack(StageRow, pack(newer)) == newer


def test_a_tenant_record_written_before_the_claimed_field_is_read() -> None:
    worker = active()
    (shown,) = values(worker.decisions[-1], TENANTS)
    older = {name: value for name, value in shown.items() if name != "claimed_tenant_id"}
    assert decode(Tenant, json.dumps(older).encode()).claimed_tenant_id is None


def test_an_observation_repeats_the_claimed_tenant_id() -> None:
    shown = tenant(1, tenant_id="first", claimed_tenant_id="second", flags=("ambiguous",))
    look = look_at(key_of(1), reading({1: "ENABLED"}), organisation(), shown, None, MAC_KEY)
    assert observed(look, shown, differences(look, shown), asked=True).tenant_id == "second"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_recovery_binds_the_newest_generation_to_the_tenant_id_of_its_outcome(order: tuple[int, int]) -> None:
    outcome = Outcome(
        key=key_of(1), seq=9, desired_version=9, tenant_id="second", generation=2, direction=UP, state=WORKING, at=0
    )
    former = tenant(1, tenant_id="first", generation=1, stage=Stage.DEPROVISIONED)
    told = KnownOfKey()
    for number in order:
        told = with_record(told, (outcome, former)[number])
    assert (told.generation, told.tenant_id) == (2, "second")
