"""The timeline of a key: each record once, a cause before its effect, and nothing hidden behind a bad record."""

from collections.abc import Mapping

from schemas.audit import Audit, OperatorAct
from schemas.codec import dump
from schemas.event import Event
from schemas.outcome import Direction, Outcome, State
from schemas.stored import StoredRecord
from schemas.topics import AUDIT, EVENTS, OUTCOMES, Topic
from schemas.values import EventType, Record, Source
from services.core.timeline import TOPICS, TimelineEntry, timeline

KEY = "98765432-1234-5678-9abc-def012345678:a1b2c3d4-e5f6-7890-abcd-ef1234567890"
NOW = 1_705_329_130_000_000
NAMES: Mapping[str, Topic] = {f"x-{topic.name}": topic for topic in TOPICS}

EVENT = Event(
    key=KEY,
    uid="e:1",
    event=EventType.INSTALLED,
    occurred_at=NOW,
    revision=1,
    tenant_id="acme",
    source=Source.WEBHOOK,
    configuration={},
)


def audit(what: str, why: str = "", verdict: str = "v") -> Audit:
    return Audit(id=f"{KEY}/{what}/1", key=KEY, what=what, verdict=verdict, why=why, at=NOW, mac="")


def outcome(reason: str | None, step: str | None = None, error_class: str | None = None) -> Outcome:
    return Outcome.model_validate(
        {
            "key": KEY, "seq": 1, "desired_version": 1, "generation": 2, "direction": Direction.UP,
            "state": State.WORKING, "step": step, "class": error_class, "reason": reason, "at": NOW,
        }
    )  # fmt: skip


def stored(
    topic: Topic, record: Record | bytes | None, *, at_us: int = NOW, offset: int = 0, ce_id: str = ""
) -> StoredRecord:
    value = dump(record) if isinstance(record, Record) else record
    return StoredRecord(f"x-{topic.name}", 0, offset, at_us, KEY, value, {"ce_id": ce_id} if ce_id else {})


def told(*records: StoredRecord) -> list[TimelineEntry]:
    return timeline(records, NAMES)


def test_of_one_instant_a_cause_comes_before_its_effect_whatever_topic_was_read_first() -> None:
    found = told(
        stored(AUDIT, audit("stage")),
        stored(OUTCOMES, outcome(None)),
        stored(AUDIT, audit("step"), offset=1),
        stored(AUDIT, audit("retry"), offset=2),
        stored(AUDIT, audit("delivery"), offset=3),
        stored(EVENTS, EVENT),
    )
    assert [entry.what for entry in found] == ["event", "delivery", "retry", "step", "outcome", "stage"]


def test_time_counts_before_cause_and_the_log_before_nothing() -> None:
    found = told(
        stored(OUTCOMES, outcome(None), at_us=NOW - 1),
        stored(AUDIT, audit("step", "first")),
        stored(AUDIT, audit("step", "second"), offset=1),
        stored(EVENTS, EVENT, at_us=NOW + 1),
    )
    assert [(entry.what, entry.why) for entry in found[:3]] == [("outcome", ""), ("step", "first"), ("step", "second")]
    assert [entry.at_us for entry in found] == [NOW - 1, NOW, NOW, NOW + 1]


def test_a_record_published_twice_is_told_once_and_one_without_an_id_by_its_position() -> None:
    found = told(
        stored(EVENTS, EVENT, ce_id="e/1"),
        stored(EVENTS, EVENT, ce_id="e/1", offset=1, at_us=NOW + 1),
        stored(EVENTS, EVENT, offset=2),
        stored(EVENTS, EVENT, offset=3),
    )
    assert [(entry.id, entry.at_us) for entry in found] == [
        ("e/1", NOW),
        (f"x-{EVENTS.name}/0/2", NOW),
        (f"x-{EVENTS.name}/0/3", NOW),
    ]


def test_a_record_that_cannot_be_read_is_listed_and_hides_nothing() -> None:
    found = told(stored(OUTCOMES, b"{", offset=7), stored(EVENTS, None, offset=8), stored(EVENTS, EVENT))
    assert [entry.what for entry in found] == ["event", "unreadable", "unreadable"]
    assert [entry.which for entry in found[1:]] == [f"x-{OUTCOMES.name} 0/7", f"x-{EVENTS.name} 0/8"]
    assert all(entry.why.startswith("this release cannot read it: ") for entry in found[1:])


def test_each_sort_of_record_says_what_it_means() -> None:
    (event,) = told(stored(EVENTS, EVENT))
    assert (event.which, event.why) == (
        "installed (revision 1)",
        "webhook, tenantId acme, occurred 2024-01-15T14:32:10.000000Z",
    )
    (refused,) = told(stored(OUTCOMES, outcome("crm_refused HTTP 422", "crm", "refused")))
    assert (refused.which, refused.why) == ("up working (generation 2)", "crm: refused HTTP 422")
    (standing,) = told(stored(OUTCOMES, outcome("compensating", "crm", "exhausted")))
    assert standing.why == "crm: was away for longer than give_up_after; what was made is being removed again"
    (stage,) = told(stored(AUDIT, audit("stage", "retrying", "active → pending_install")))
    assert (stage.which, stage.why) == ("active → pending_install", "the last try failed; it is tried again")
    (step,) = told(stored(AUDIT, audit("step", "retrying")))
    assert step.why == "retrying", "only the reason of a stage is a word of the program"
    act = OperatorAct(by="Ada", reason="closed", digest="0123456789abcdef", number=6)
    (ruled,) = told(stored(AUDIT, audit("removal_approved", "held").model_copy(update={"act": act})))
    assert ruled.why == "held, by Ada, closed"
