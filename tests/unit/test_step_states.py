"""Every state and transition of a step reached by any order of answers, versions, crashes and recoveries."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product

import pytest
from pydantic import ValidationError

from schemas.saga import Journal, Life, OrphanCheck, Phase, Presence, StepLog, StepState, StepVerdict
from schemas.tenant import Desired
from services.core.saga.calls import Absent, Answer, Contradicted, Done, OperatorRefused, Refused, Retryable, Unknown
from services.core.saga.intents import begin, retried_journal
from services.core.saga.moves import Called, LookUp
from services.core.saga.next_move import Plans, next_move
from services.core.saga.pace import Pace
from services.core.saga.recovery import KnownOfKey, recovered
from services.core.saga.results import settle
from services.core.saga.step_transitions import IN_DOUBT, NOT_MADE, REPEATED, TO_REPEAT, TRANSITIONS
from tests.support.saga_world import DesiredVersions, plan

NOW_US = 1_790_000_000_000_000
STEP = '[[step]]\nname = "a"\nkind = "oauth"\nundo = "reverse"\nurl = "u"\nsize = "{configuration.size?}"\n'
PLANS, PACE = Plans(plan(STEP)), Pace()
ANSWERS: tuple[Answer, ...] = (
    Done(), Absent(), Retryable("r"), Refused("r"), Refused("r", partly=True), Unknown("r"), OperatorRefused("r"),
    Unknown("r", succeeded=True), Contradicted("r"), Contradicted("r", anothers=True),
)  # fmt: skip
LOOK_UPS: tuple[Answer, ...] = (
    Done(), Done(differs="size"), Absent(), Retryable("r"), Refused("r"), Unknown("r"), OperatorRefused("r"),
    Contradicted("r"),
)  # fmt: skip


@cache
def _versions() -> tuple[Desired, Desired, Desired, Desired]:
    """Two versions with different settings, the first one again, and an uninstall."""
    versions = DesiredVersions()
    return (
        versions.installed(size="1"),
        versions.installed(size="2"),
        versions.installed(size="1"),
        versions.uninstalled(),
    )


def _journals(log: StepLog) -> Iterator[tuple[Journal, Desired]]:
    """Every sort of journal with this log, each with a desired version that leaves the phase or ends it."""
    first, other, again, uninstalled = _versions()
    here = Life(generation=1, plan=PLANS.current.digest, tenant_id="acme", steps={"a": log})
    whole = here.model_copy(update={"last_applied": first})
    for life, phase in ((here, Phase.CREATING), (whole, Phase.UPDATING)):
        for target, reissue in product((first, other), ((), ("a",))):
            reissued = life.model_copy(update={"reissue": reissue})
            for desired in (target, again, uninstalled):
                yield Journal(phase=phase, generation=1, life=reissued, target=target), desired
    yield Journal(phase=Phase.COMPENSATING, generation=1, life=here, target=first), first
    yield Journal(phase=Phase.REMOVING, generation=1, life=whole, target=uninstalled), uninstalled
    yield Journal(generation=1, orphan_checks=(OrphanCheck(due_at=0, life=here),), target=uninstalled), uninstalled


def _logs(journal: Journal) -> Iterator[StepLog]:
    for life in (*(check.life for check in journal.orphan_checks), *([journal.life] if journal.life else [])):
        if "a" in life.steps:
            yield life.steps["a"]


def _without_numbers(log: StepLog) -> StepLog:
    """The log without what decides nothing, so that the walk ends."""
    by_itself = log.verdict in {StepVerdict.REFUSED, StepVerdict.CONTRADICTED}
    return StepLog(
        n=1, state=log.state, applied=log.applied,
        earlier_create_open=log.earlier_create_open, unverified=log.unverified,
        verb=log.verb if log.open else None, intended=log.intended if log.open else None,
        succeeded=log.open and log.succeeded, verdict=log.verdict if by_itself else StepVerdict.DONE,
        tries=min(log.tries, 1) if log.state in NOT_MADE else 0,
    )  # fmt: skip


@dataclass
class Walk:
    """Every log that is reached from a step never asked for."""

    reached: set[str] = field(default_factory=set)
    logs: list[StepLog] = field(default_factory=list)
    pairs: set[tuple[StepState, StepState]] = field(default_factory=set)
    """State before and after an intent or an answer."""

    def go(self) -> None:
        self._add(StepLog())
        for log in self.logs:
            settled: set[object] = set()
            for journal, desired in _journals(log):
                self._decide(log, journal, desired, settled)
                for known in (KnownOfKey(), KnownOfKey(seq=9, generation=1)) if journal.life else ():
                    for recovering in _logs(recovered(journal, desired, known, PLANS, NOW_US)):
                        self._add(recovering)
                for again in _logs(retried_journal(journal) or Journal()):
                    self._add(again)

    def _decide(self, log: StepLog, journal: Journal, desired: Desired, settled: set[object]) -> None:
        move = next_move(PLANS, journal, desired, NOW_US)
        begun, _ = begin(PLANS, journal, desired, move, NOW_US)
        for after in _logs(begun):
            self._add(after)
        sort = (repr(move), journal.life is None)
        if not isinstance(move, Called) or sort in settled:
            return
        settled.add(sort)
        (intended,) = _logs(begun)
        if not isinstance(move, LookUp):
            self.pairs.add((log.state, intended.state))
        for answer in LOOK_UPS if isinstance(move, LookUp) else ANSWERS:
            (after,) = _logs(settle(begun, move, answer, NOW_US, PACE))
            self.pairs.add((intended.state, after.state))
            self._add(after)

    def _add(self, log: StepLog) -> None:
        log = _without_numbers(log)
        key = repr(log)
        if key not in self.reached:
            self.reached.add(key)
            self.logs.append(log)


@pytest.fixture(scope="module", name="walk")
def _walk() -> Walk:
    walk = Walk()
    walk.go()
    return walk


@pytest.mark.long
def test_every_state_is_reached(walk: Walk) -> None:
    assert {log.state for log in walk.logs} == set(StepState)


@pytest.mark.long
def test_the_transition_table_lists_exactly_the_transitions_that_arise(walk: Walk) -> None:
    told = {pair for event in TRANSITIONS.values() for pair in event.items()}
    changed = {(before, after) for before, after in walk.pairs if before is not after}
    assert changed == {(before, after) for before, after in told if before is not after}


@pytest.mark.long
def test_an_intent_is_open_before_any_effect_and_never_of_an_absent_resource(walk: Walk) -> None:
    for log in walk.logs:
        assert not (log.open and log.presence is Presence.ABSENT)
        assert log.applied is None or log.state is StepState.PRESENT
        assert log.verb is not None or not log.open
    assert TO_REPEAT.isdisjoint(IN_DOUBT)
    assert REPEATED < IN_DOUBT
    assert {state for state in StepState if state not in NOT_MADE | IN_DOUBT | TO_REPEAT} == {StepState.PRESENT}


@pytest.mark.long
def test_a_log_is_written_with_the_fields_of_earlier_releases_and_read_without_its_state(walk: Walk) -> None:
    for log in walk.logs:
        written = json.loads(log.model_dump_json())
        assert StepLog.model_validate(written) == log
        del written["state"]
        assert StepLog.model_validate(written) == log


ROWS = [
    ('{"open": false, "read_back": false, "lost": false, "there": "absent"}', StepState.ABSENT),
    ('{"open": false, "read_back": false, "lost": true, "there": "absent"}', StepState.ABSENT),
    ('{"open": false, "read_back": false, "lost": false, "there": "asked"}', StepState.DENIED),
    ('{"open": false, "read_back": false, "lost": false, "there": "maybe"}', StepState.IN_DOUBT),
    ('{"open": false, "read_back": false, "lost": true, "there": "maybe"}', StepState.IN_DOUBT),
    ('{"open": false, "read_back": false, "lost": false, "there": "present"}', StepState.PRESENT),
    ('{"open": false, "read_back": false, "lost": true, "there": "present"}', StepState.PRESENT),
    ('{"open": true, "read_back": false, "lost": false, "there": "asked"}', StepState.PENDING_DENIED),
    ('{"open": true, "read_back": false, "lost": false, "there": "maybe"}', StepState.PENDING_IN_DOUBT),
    ('{"open": true, "read_back": false, "lost": false, "there": "present"}', StepState.PENDING_PRESENT),
    ('{"open": true, "read_back": true, "lost": false, "there": "maybe"}', StepState.TO_REPEAT_IN_DOUBT),
    ('{"open": true, "read_back": true, "lost": true, "there": "maybe"}', StepState.TO_REPEAT_IN_DOUBT),
    ('{"open": true, "read_back": true, "lost": false, "there": "present"}', StepState.TO_REPEAT_PRESENT),
    ('{"open": true, "read_back": true, "lost": true, "there": "present"}', StepState.TO_REPEAT_PRESENT),
    ('{"open": true, "read_back": false, "lost": true, "there": "maybe"}', StepState.REPEATED_IN_DOUBT),
    ('{"open": true, "read_back": false, "lost": true, "there": "present"}', StepState.REPEATED_PRESENT),
]


@pytest.mark.parametrize(("row", "state"), ROWS)
def test_a_row_of_an_earlier_release_has_its_state(row: str, state: StepState) -> None:
    assert StepLog.model_validate_json(row).state is state


def test_the_other_fields_of_an_earlier_release_are_read_and_written_under_their_names() -> None:
    row = json.loads("""{"generation": 1, "plan": "p", "tenant_id": "acme", "good": null, "steps": {"crm": {
        "n": 3, "verb": "create", "open": true, "read_back": false, "lost": false, "older": true, "doubted": true,
        "succeeded": true, "verdict": "unknown", "there": "asked", "former": {"id": "x"}, "tries": 2}}}""")
    life = Life.model_validate_json(json.dumps(row))
    log = life.steps["crm"]
    assert (log.earlier_create_open, log.unverified, log.previous_outputs) == (True, True, {"id": "x"})
    written = json.loads(life.model_dump_json())
    assert {name: written["steps"]["crm"][name] for name in row["steps"]["crm"]} == row["steps"]["crm"]
    assert written["steps"]["crm"]["state"] == "pending_denied"
    assert "good" in written
    assert "last_applied" not in written


def test_a_journal_is_stored_under_the_names_of_earlier_releases() -> None:
    log = StepLog(location="https://x", locations=("https://y",))
    ended = Life(generation=1, plan="p", tenant_id="acme", steps={"crm": log})
    journal = Journal(generation=1, phase_began_at=5, orphan_checks=(OrphanCheck(due_at=0, life=ended),))
    written = journal.model_dump_json()
    assert json.loads(written)["turned_at"] == "1970-01-01T00:00:00.000005Z"
    assert "phase_began_at" not in written
    assert len(json.loads(written)["sweeps"]) == 1
    assert '"place":"https://x","places":["https://y"]' in written
    assert Journal.model_validate_json(written) == journal


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"open": true, "there": "absent"}', "open=True, read_back=False, lost=False, there=absent"),
        ('{"open": true, "read_back": true, "there": "asked"}', "read_back=True, lost=False, there=asked"),
        ('{"open": true, "lost": true, "there": "asked"}', "read_back=False, lost=True, there=asked"),
        ('{"open": false, "read_back": true, "there": "present"}', "open=False, read_back=True"),
        ('{"open": true, "there": "gone"}', "'gone' is not a valid Presence"),
        ('{"state": "elsewhere"}', "state"),
    ],
)
def test_a_row_in_no_state_is_refused_in_words(row: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        StepLog.model_validate_json(row)
