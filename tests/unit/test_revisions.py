"""Revisions are 1, 2, 3 …, given once per uid, borrowed by an older twin, never taken back."""

from tests.support.deliveries import at, delivery
from tests.support.ledger_worker import MemoryLedger, events, verdicts


def uid(worker: MemoryLedger, seconds: float) -> str:
    """The uid of the nameless event at that time."""
    return next(entry.uid for entry in worker.tenant.entries if entry.at_us == at(seconds))


def test_an_older_twin_borrows_and_no_second_record_is_written() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("enabled", 600))
    older = worker.hear(delivery("enabled", 0))
    assert (verdicts(older), events(older)) == ([("delivery", "new")], [])
    assert worker.entry(uid(worker, 600)).verdict == "absorbed"
    assert worker.entry(uid(worker, 0)).borrowed == 1
    assert worker.tenant.revision == 1


def test_a_freed_restamp_keeps_its_revision_and_the_older_twin_gets_the_next() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("enabled", 600))
    worker.hear(delivery("enabled", 0))
    freeing = worker.hear(delivery("disabled", 300))
    assert events(freeing) == [(uid(worker, 0), 2), (uid(worker, 300), 3)]
    assert worker.entry(uid(worker, 600)).revision == 1
    assert [entry.borrowed for entry in worker.tenant.entries] == [0, 0, 0]


def test_several_freed_events_are_published_in_the_order_of_their_versions() -> None:
    worker = MemoryLedger()
    for second in (0, 400, 800):
        worker.hear(delivery("enabled", second))
    assert worker.tenant.revision == 1
    worker.hear(delivery("disabled", 500, eventId="b"))
    assert worker.tenant.revision == 3
    freeing = worker.hear(delivery("disabled", 100, eventId="a"))
    assert events(freeing) == [("e:a", 4), (uid(worker, 400), 5)]


def test_an_absorbed_event_freed_by_a_lowered_time_is_published_then() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("enabled", 0))
    worker.hear(delivery("disabled", 900, eventId="b"))
    absorbed = worker.hear(delivery("enabled", 600))
    assert (verdicts(absorbed), events(absorbed)) == ([("delivery", "absorbed")], [])
    freeing = worker.hear(delivery("disabled", 300, eventId="b"))
    assert verdicts(freeing) == [("delivery", "duplicate")]
    assert events(freeing) == [(uid(worker, 600), 3)]
    replayed = worker.hear(delivery("disabled", 300, eventId="b"), offset=3)
    assert events(replayed) == [(uid(worker, 600), 3)]
    assert events(worker.hear(delivery("enabled", 600), offset=2)) == []


def test_an_unmarked_delivery_publishes_the_ambiguous_event() -> None:
    worker = MemoryLedger()
    for event, second in (("enabled", 0), ("disabled", 1)):
        worker.hear(delivery(event, second))
    assert verdicts(worker.hear(delivery("enabled", 2, retryCount=1))) == [("delivery", "ambiguous")]
    cleared = worker.hear(delivery("enabled", 2))
    assert events(cleared) == [(uid(worker, 2), 3)]
    assert worker.tenant.flags == ()


def test_a_published_event_that_turns_ambiguous_keeps_its_revision() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", -60))
    worker.hear(delivery("enabled", 100, retryCount=1))
    doubt = worker.hear(delivery("disabled", 50))
    assert events(doubt) == [(uid(worker, 50), 3)]
    assert worker.entry(uid(worker, 100)).verdict == "ambiguous"
    assert worker.entry(uid(worker, 100)).revision == 2
    assert worker.tenant.flags == ("ambiguous",)


def test_of_several_published_restamps_the_older_borrows_the_first_revision() -> None:
    worker = MemoryLedger()
    for second in (1000, 2600, 1800, 0):
        worker.hear(delivery("enabled", second))
    assert worker.tenant.revision == 2
    assert [(entry.revision, entry.borrowed) for entry in worker.tenant.entries] == [(0, 1), (1, 0), (0, 0), (2, 0)]
