"""Audits that count as events, among webhooks and observations: order and repetition never matter."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.event import Observed
from schemas.hint import IntegrationAudit
from schemas.journal import Verdict
from schemas.rows import TenantRow
from schemas.webhook import Delivery
from services.core.ledger.decisions import receive
from services.core.ledger.identity import is_audited
from services.core.ledger.journal import RecordPosition
from services.core.ledger.merge import is_removed_by_audits_alone, merged_state
from tests.property.histories import CLOSE, attempts
from tests.support.deliveries import KEY, NOON_US, RULES, audited, observed
from tests.support.examples import examples

HALF_HOUR_MS = 30 * 60_000
Said = Delivery | IntegrationAudit | Observed

AUDITS = st.builds(
    lambda action, at, name: audited(action, at / 1000, name and f"{name}-{action}-{at}"),
    st.sampled_from(["Create", "Delete", "HardDelete", "Restore", "Enable", "Disable"]),
    CLOSE,
    st.sampled_from([None, "1", "2"]),
)
SIGHTS = st.builds(
    lambda at, **fields: observed(at // 1000, **fields),
    CLOSE,
    installed=st.booleans(),
    enabled=st.sampled_from([None, True, False]),
)
HISTORIES: st.SearchStrategy[list[Said]] = st.lists(
    st.one_of(AUDITS, AUDITS, attempts(CLOSE), SIGHTS), min_size=1, max_size=10
)


def heard(history: list[Said]) -> TenantRow:
    row: TenantRow | None = None
    for offset, record in enumerate(history):
        position = RecordPosition("received", 0, offset, NOON_US + HALF_HOUR_MS * 1000)
        decision = receive(row, None, record, position, RULES)
        row = decision.row if isinstance(decision.row, TenantRow) else row
    return row or TenantRow(KEY)


def essence(row: TenantRow) -> Any:
    """Everything that may not depend on order: not revisions, offsets and first verdicts."""
    entries = [(entry[:9], entry.verdict, sorted(variant[:4] for variant in entry.variants)) for entry in row.entries]
    return entries, row.now, row.flags, merged_state(row.now), is_removed_by_audits_alone(row.now)


@given(HISTORIES, st.data())
@settings(max_examples=examples(600), deadline=None)
def test_order_and_repetition_of_audits_webhooks_and_observations_never_matter(
    history: list[Said], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(history), max_size=6))
    shuffled = data.draw(st.permutations([*history, *again]))
    assert essence(heard(shuffled)) == essence(heard(history))


@given(HISTORIES)
@settings(max_examples=examples(300), deadline=None)
def test_an_audit_is_always_an_event_of_its_own(history: list[Said]) -> None:
    row = heard(history)
    told = {f"a:{record.audit_id}" for record in history if isinstance(record, IntegrationAudit)}
    counted = [entry for entry in row.entries if is_audited(entry.uid)]
    assert {entry.uid for entry in counted} == told
    assert all(entry.verdict is Verdict.NEW for entry in counted)


@given(HISTORIES)
@settings(max_examples=examples(300), deadline=None)
def test_a_removal_waits_exactly_if_without_its_audits_the_integration_would_be_installed(history: list[Said]) -> None:
    row = heard(history)
    removed = {entry.uid for entry in row.entries if is_audited(entry.uid) and entry.event.value == "uninstalled"}
    left = [one for one in history if not (isinstance(one, IntegrationAudit) and f"a:{one.audit_id}" in removed)]
    # A webhook may be ambiguous only because of an audit between: then no other verdict is compared.
    doubted = any(entry.verdict is Verdict.AMBIGUOUS for entry in row.entries)
    if not doubted and merged_state(row.now).installed is False:
        before = heard(left)
        verdicts = {entry.uid: entry.verdict for entry in row.entries}
        if all(verdicts[entry.uid] is entry.verdict for entry in before.entries):
            assert is_removed_by_audits_alone(row.now) is (merged_state(before.now).installed is True)
    else:
        assert doubted or not is_removed_by_audits_alone(row.now)
