"""The evidence of the demo and the fault tests: gaps, contradictions and repeats in the public topics."""

from dataclasses import replace

from schemas.audit import Audit
from schemas.codec import dump
from schemas.event import Event
from schemas.stored import StoredRecord
from schemas.tenant import Stage, Tenant
from schemas.topics import AUDIT, EVENTS, TENANTS, Topic
from schemas.values import EventType, Record, Source
from services.cli.demo.view import PublicRecords
from tests.support.sealed_trail import SealedTrail

KEY = "98765432-1234-5678-9abc-def012345678:a1b2c3d4-e5f6-7890-abcd-ef1234567890"


def kept(topic: Topic, record: Record | None, at_us: int = 0) -> StoredRecord:
    return StoredRecord("x-" + topic.name, 0, 0, at_us, KEY, None if record is None else dump(record), {})


def event(revision: int, uid: str = "e:1") -> StoredRecord:
    made = Event(
        key=KEY,
        uid=uid,
        event=EventType.INSTALLED,
        occurred_at=0,
        revision=revision,
        tenant_id="t",
        source=Source.WEBHOOK,
        configuration={},
    )
    return kept(EVENTS, made)


def tenant(version: int, stage: Stage, revision: int = 1, at_us: int = 0) -> StoredRecord:
    made = Tenant(
        key=KEY,
        version=version,
        tenant_id="t",
        installed=True,
        enabled=True,
        configuration={},
        configuration_mac=None,
        stage=stage,
        reason=None,
        flags=(),
        revision=revision,
        generation=1,
        recheck_at=None,
        updated_at=0,
    )
    return kept(TENANTS, made, at_us)


def told(*records: StoredRecord) -> PublicRecords:
    found = PublicRecords("x-")
    for record in records:
        found.fold(record)
    return found


def test_revisions_from_one_have_no_gap_despite_repeats() -> None:
    seen = told(event(2, "e:2"), event(1), event(2, "e:2"), tenant(3, Stage.ACTIVE, revision=2))
    assert seen.gaps(KEY) == ""
    assert seen.contradictions == []


def test_a_missing_revision_is_a_gap() -> None:
    assert told(event(1), event(3, "e:3")).gaps(KEY) == "revisions [1, 3] are not 1, 2, 3 …"
    assert told(event(2, "e:2")).gaps(KEY)


def test_an_event_missing_from_the_tenant_view_is_a_gap() -> None:
    assert "revision 1, the events at 2" in told(event(1), event(2, "e:2"), tenant(1, Stage.ACTIVE)).gaps(KEY)


def test_one_revision_for_two_events_is_a_contradiction() -> None:
    assert told(event(1, "e:1"), event(1, "e:2")).contradictions == [f"{KEY}: revision 1 is e:1 and e:2"]


def test_the_greatest_version_of_a_tenant_counts_and_each_change_is_kept_once() -> None:
    seen = told(
        tenant(1, Stage.PENDING_INSTALL, at_us=10),
        tenant(3, Stage.ACTIVE, at_us=20),
        tenant(2, Stage.PENDING_INSTALL, at_us=30),
        tenant(4, Stage.ACTIVE, at_us=40),
        kept(TENANTS, None),
    )
    assert (seen.tenants[KEY].version, seen.tenants[KEY].stage) == (4, Stage.ACTIVE)
    assert [(change.at_us, change.stage) for change in seen.changes[KEY]] == [
        (10, Stage.PENDING_INSTALL),
        (20, Stage.ACTIVE),
    ]


def test_a_repeated_line_of_the_audit_trail_is_counted_once() -> None:
    line = Audit(id="x/0/1/delivery", key=KEY, what="delivery", verdict="absorbed", why="", at=0, mac="")
    assert told(kept(AUDIT, line), kept(AUDIT, line)).verdicts[KEY] == {"absorbed": 1}


def test_a_seal_in_the_audit_trail_is_passed_over() -> None:
    trail = SealedTrail()
    trail.write()
    trail.seal()
    records = [replace(record, topic="x-" + record.topic) for record in trail.records]
    assert told(*records).verdicts == {KEY: {"pending_install → active": 1}}
