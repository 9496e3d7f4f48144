"""The ledger's functions agree with a plain model of the rules in every order and with every repetition."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.journal import Verdict
from schemas.rows import TenantRow
from schemas.webhook import Delivery
from services.core.ledger.identity import identify
from services.core.ledger.journal import RecordPosition, enter
from services.core.ledger.journal_compaction import age, recompute
from services.core.ledger.merge import merged_state
from tests.property.histories import HOUR, Arrival, arrivals, burst
from tests.property.model import ModelDelivery, ModelKey
from tests.support.deliveries import KEY, NOON_US, RULES
from tests.support.examples import examples


def said(delivery: Delivery) -> ModelDelivery:
    """A delivery in the words of the model, under the product's own uid and hash."""
    claim = identify(delivery, RULES.identity)[0]
    at = (delivery.at_us - NOON_US) // 1000
    return ModelDelivery(claim.event.value, at, claim.text or "", claim.uid, claim.f, claim.marked)


def fold(history: list[Arrival]) -> tuple[TenantRow, list[Verdict]]:
    row = TenantRow(KEY)
    verdicts: list[Verdict] = []
    for offset, (delivery, arrived) in enumerate(history):
        position = RecordPosition("received", 0, offset, NOON_US + arrived * 1000)
        entered = enter(row, identify(delivery, RULES.identity), position)
        row, verdicts = entered.row, [*verdicts, *entered.verdicts]
    return row, verdicts


def at_once(history: list[Delivery]) -> TenantRow:
    return fold([Arrival(delivery, 30 * 60_000) for delivery in history])[0]


def state(row: TenantRow) -> tuple[bool | None, bool | None, str | None, bool]:
    seen = merged_state(row.now)
    text = None if seen.digest is None else (row.texts or {})[seen.digest]
    return seen.installed, seen.enabled, text, bool(row.flags)


def essence(row: TenantRow) -> Any:
    """Everything about a row that may not depend on order: not revisions, offsets, first impressions."""
    entries = [(entry[:9], entry.verdict, sorted(variant[:4] for variant in entry.variants)) for entry in row.entries]
    return entries, row.now, row.flags, state(row)


@given(arrivals())
@settings(max_examples=examples(1200), deadline=None)
def test_days_of_history_end_as_the_model_says(history: list[Arrival]) -> None:
    world = ModelKey()
    late = []
    for delivery, arrived in history:
        late.append(not world.hear(said(delivery), arrived))
    row, verdicts = fold(history)
    assert [verdict is Verdict.LATE for verdict in verdicts] == late
    end = history[-1].arrived + 200 * HOUR
    for moment in (history[-1].arrived, end):
        world.age(moment)
        row, _ = age(row, len(history), NOON_US + moment * 1000, len(history))
        row = recompute(row)
        assert state(row) == world.state()
        assert row.folded_to == (None if world.folded_to is None else NOON_US + world.folded_to * 1000)
    assert row.entries == ()


@given(arrivals())
@settings(max_examples=examples(600), deadline=None)
def test_each_verdict_is_the_one_of_the_model(history: list[Arrival]) -> None:
    world, row = ModelKey(), TenantRow(KEY)
    for offset, (delivery, arrived) in enumerate(history):
        world.hear(said(delivery), arrived)
        before = row
        row = enter(
            row, identify(delivery, RULES.identity), RecordPosition("received", 0, offset, NOON_US + arrived * 1000)
        ).row
        if row is not before:
            assert {entry.uid: entry.verdict for entry in row.entries} == world.verdicts()
            assert state(row) == world.state()


@given(burst(), st.data())
@settings(max_examples=examples(300), deadline=None)
def test_neither_order_nor_repetition_changes_the_state(history: list[Delivery], data: st.DataObject) -> None:
    again = history + data.draw(st.lists(st.sampled_from(history), max_size=4))
    shuffled = data.draw(st.permutations(again))
    assert essence(at_once(shuffled)) == essence(at_once(history))


@given(burst(12), burst(12))
@settings(max_examples=examples(200), deadline=None)
def test_a_journal_only_grows_and_registers_never_go_back(first: list[Delivery], then: list[Delivery]) -> None:
    few, many = at_once(first), at_once(first + then)
    assert {entry.uid for entry in few.entries} <= {entry.uid for entry in many.entries}
    taus = {entry.uid: entry.at_us for entry in few.entries}
    assert all(entry.at_us <= taus.get(entry.uid, entry.at_us) for entry in many.entries)
