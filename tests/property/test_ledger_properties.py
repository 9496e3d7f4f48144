"""Published records of the ledger: revisions without gaps, and byte-identical records after a crash anywhere."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec
from schemas.journal import Verdict
from schemas.outcome import Direction, Outcome, State
from schemas.rows import StageRow, TenantRow, pack, unpack
from schemas.topics import AUDIT, DEAD_LETTERS, DESIRED, EVENTS, TENANTS
from services.core.ledger.decisions import Decision, receive, receive_outcome
from services.core.ledger.journal import RecordPosition
from services.core.ledger.projections import Output
from tests.property.histories import Record, topics
from tests.support.deliveries import KEY, NOON_US, RULES
from tests.support.examples import examples

OF_THE_RECORD = (EVENTS, AUDIT, DEAD_LETTERS)
OF_THE_KEY = (DESIRED, TENANTS)


@dataclass(frozen=True)
class WorkerRun:
    """Work of one worker over a stretch of the topic: the row after each offset, and the records of each offset."""

    rows: list[TenantRow | None]
    decisions: list[Decision]


def work(
    records: Sequence[Record], row: TenantRow | None = None, start: int = 0, commits: Sequence[int] | None = None
) -> WorkerRun:
    """Process from `start`; `commits` says per offset what is committed by then, None that nobody knows."""
    rows, decisions = [], []
    for offset in range(start, len(records)):
        committed = None if commits is None else commits[offset]
        record, arrived = records[offset]
        trace = f"00-{offset:032x}-{offset:016x}-01"
        position = RecordPosition("lifecycle.received", 3, offset, NOON_US + arrived * 1000, committed, trace=trace)
        raw = codec.Message(None, b"raw %d" % offset, [("traceparent", trace.encode())])
        decision = receive(row, None, record, position, RULES, raw=raw)
        if isinstance(decision.row, TenantRow):
            row = unpack(TenantRow, pack(decision.row))
            assert row == decision.row
        rows.append(row)
        decisions.append(decision)
    return WorkerRun(rows, decisions)


def sent(outputs: Sequence[Output], topics_: Sequence[object]) -> list[codec.Message]:
    return [output.message for output in outputs if output.topic in topics_]


def settled(row: TenantRow | None) -> TenantRow | None:
    """The row without what it keeps for replays alone."""
    return None if row is None else replace(row, parted=(), folded_offset=0, moves=(), texts=None)


def schedules(length: int) -> st.SearchStrategy[list[int]]:
    """Committed offsets at the processing of each offset: never ahead, never back."""
    lags = st.lists(st.integers(1, length), min_size=length, max_size=length)
    return lags.map(lambda behind: list(accumulate((max(o - lag, -1) for o, lag in enumerate(behind)), max)))


@given(topics())
@settings(max_examples=examples(400), deadline=None)
def test_revisions_are_1_2_3_without_gaps_and_belong_to_one_uid(records: list[Record]) -> None:
    run = work(records)
    told = [json.loads(message.value) for d in run.decisions for message in sent(d.outputs, [EVENTS])]
    assert [event["revision"] for event in told] == list(range(1, len(told) + 1))
    final = run.rows[-1]
    if final is not None:
        assert final.revision == len(told)
        shown = Counter(revision for e in final.entries for revision in (e.revision, e.borrowed) if revision)
        borrowed = {e.borrowed for e in final.entries if e.borrowed}
        assert all(count == 1 or revision in borrowed for revision, count in shown.items())
        new = [e for e in final.entries if e.verdict is Verdict.NEW]
        assert all(bool(e.revision) != bool(e.borrowed) for e in new)
        # Two events that count never show one revision.
        assert len({e.revision or e.borrowed for e in new}) == len(new)


@given(topics(), st.data())
@settings(max_examples=examples(500), deadline=None)
def test_after_a_crash_anywhere_the_same_records_are_sent_to_the_byte(
    records: list[Record], data: st.DataObject
) -> None:
    last = len(records) - 1
    durable = data.draw(st.integers(0, last))
    committed = data.draw(st.integers(-1, durable - 1))
    first = work(records, commits=[min(committed, offset - 1) for offset in range(len(records))])
    again = work(records, first.rows[durable], committed + 1, [committed] * len(records))
    for offset in range(committed + 1, last + 1):
        then, now = first.decisions[offset], again.decisions[offset - committed - 1]
        assert sent(now.outputs, OF_THE_RECORD) == sent(then.outputs, OF_THE_RECORD)
        assert now.verdict == then.verdict
        if offset > durable:
            assert sent(now.outputs, OF_THE_KEY) == sent(then.outputs, OF_THE_KEY)
        elif now.row is not None:
            known = [m for d in first.decisions[: durable + 1] for m in sent(d.outputs, OF_THE_KEY)]
            assert all(message in known for message in sent(now.outputs, OF_THE_KEY))
            row = first.rows[durable]
            assert row is not None
            assert pack(now.row) == pack(row)
    assert settled(again.rows[-1]) == settled(first.rows[-1])


@given(topics(), st.data())
@settings(max_examples=examples(200), deadline=None)
def test_the_time_of_a_commit_changes_no_published_record(records: list[Record], data: st.DataObject) -> None:
    one = work(records, commits=data.draw(schedules(len(records))))
    two = work(records, commits=data.draw(schedules(len(records))))
    nobody_knows = work(records)
    for a, b, c in zip(one.decisions, two.decisions, nobody_knows.decisions, strict=True):
        assert a.outputs == b.outputs == c.outputs
    assert settled(one.rows[-1]) == settled(two.rows[-1]) == settled(nobody_knows.rows[-1])


@given(topics())
@settings(max_examples=examples(200), deadline=None)
def test_versions_only_rise_and_only_with_a_change(records: list[Record]) -> None:
    run = work(records)
    version = 0
    for offset, decision in enumerate(run.decisions):
        row = run.rows[offset]
        if decision.row is None:
            assert (row.version if row is not None else 0) == version
        else:
            assert decision.row.version == max(offset, version + 1)
            version = decision.row.version
        views = [json.loads(message.value)["version"] for message in sent(decision.outputs, [TENANTS])]
        assert views == ([] if decision.row is None else [version])


OUTCOMES_OF_A_KEY = st.lists(
    st.builds(
        Outcome,
        key=st.just(KEY),
        seq=st.integers(1, 8),
        desired_version=st.integers(0, 8),
        generation=st.integers(1, 2),
        direction=st.sampled_from(Direction),
        state=st.sampled_from(State),
        at=st.just(NOON_US),
    ),
    max_size=8,
)


def audited(records: Sequence[Record], outcomes: Sequence[Outcome], turns: Sequence[bool]) -> dict[str, bytes]:
    """The lines of stage changes by id, of one worker that met the two topics in this order."""
    row: TenantRow | None = None
    last: StageRow | None = None
    lines: dict[str, bytes] = {}
    deliveries, answers = iter(enumerate(records)), iter(enumerate(outcomes))
    for is_delivery in (*turns, *([True] * len(records)), *([False] * len(outcomes))):
        if is_delivery and (one := next(deliveries, None)) is not None:
            offset, (record, arrived) = one
            position = RecordPosition("lifecycle.received", 3, offset, NOON_US + arrived * 1000)
            decision = receive(row, last, record, position, RULES)
            row = decision.row if isinstance(decision.row, TenantRow) else row
        elif not is_delivery and (other := next(answers, None)) is not None:
            offset, outcome = other
            decision = receive_outcome(
                row, last, outcome, RecordPosition("lifecycle.outcomes", 3, offset, NOON_US + offset), RULES
            )
            last = decision.row if isinstance(decision.row, StageRow) else last
        else:
            continue
        for output in decision.outputs:
            said = json.loads(output.message.value)
            if output.topic is AUDIT and said["what"] == "stage":
                assert lines.setdefault(said["id"], output.message.value) == output.message.value
    return lines


@given(topics(), OUTCOMES_OF_A_KEY, st.lists(st.booleans(), max_size=16), st.lists(st.booleans(), max_size=16))
@settings(max_examples=examples(300), deadline=None)
def test_two_workers_with_different_topic_orders_publish_no_two_audit_lines_under_one_id(
    records: list[Record], outcomes: list[Outcome], one: list[bool], other: list[bool]
) -> None:
    first, second = audited(records, outcomes, one), audited(records, outcomes, other)
    assert {name: line for name, line in first.items() if name in second} == {
        name: line for name, line in second.items() if name in first
    }
