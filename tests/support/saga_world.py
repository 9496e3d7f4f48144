"""A small outside world, and a worker without a database: what every test of the saga's decisions drives.

The world keeps resources by step and generation, as real systems keep them by name, and answers each call as it is
told. It checks by itself that nothing is made before what it stands on, that nothing is removed before what stands on
it, and that one idempotency key never asks for two things.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from schemas.outcome import Outcome, State
from schemas.saga import Journal, Life, Phase
from schemas.tenant import Desired
from services.core.saga.calls import (
    Absent,
    Answer,
    Contradicted,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
    Verb,
    idempotency_key,
)
from services.core.saga.intents import Turn, decide, life_of, log_of, retried_journal
from services.core.saga.milestones import Converged, milestones
from services.core.saga.moves import Called, LookUp, Run, Wait
from services.core.saga.next_move import HELD_US, Plans, is_reinstalled
from services.core.saga.pace import Pace
from services.core.saga.plan import Plan, parse
from services.core.saga.removal import begins_destruction
from services.core.saga.results import settle
from services.core.unwell import REMOVAL_BRAKED
from services.provisioner.kinds import TRAITS

KEY = "11111111-1111-4111-8111-111111111111:22222222-2222-4222-8222-222222222222"
STEPS = ("archive", "middleware", "crm", "schema", "subscriptions", "tokens")
PLAN_TEXT = """
[[step]]
name = "archive"
kind = "archive"
undo = "reverse"
[[step]]
name = "middleware"
kind = "http"
undo = "reverse"
body = "{configuration.size?}"
[[step]]
name = "crm"
kind = "http"
undo = "reverse"
url = "{configuration.crmEndpoint}"
tenant = "{steps.middleware.id}"
bad = "{configuration.bad?}"
[[step]]
name = "schema"
kind = "postgres"
undo = "reverse"
bad = "{configuration.bad?}"
[[step]]
name = "subscriptions"
kind = "subscription"
undo = "reverse"
topics = "{configuration.topics?}"
bad = "{configuration.bad?}"
[[step]]
name = "tokens"
kind = "oauth"
undo = "reverse"
bad = "{configuration.bad?}"
"""
ENDS = frozenset({State.DONE, State.ROLLED_BACK, State.FAILED, State.HELD})


def plan(text: str = PLAN_TEXT) -> Plan:
    """The plan of these tests, shaped as the shipped one."""
    return parse(text, kinds=TRAITS, settings={})


class Mode(StrEnum):
    """The world's answer to one call."""

    WELL = "well"
    REFUSED = "refused"
    RETRYABLE = "retryable"
    SILENT = "silent"
    OPERATOR_REFUSED = "the operator is refused"
    CONTRADICTED = "shows something that is not ours"
    UNSHOWN = "done, and not shown"
    UNDER_WAY = "taken, and under way"
    LOST_WITH_EFFECT = "lost with effect"
    LOST_WITHOUT = "lost without effect"
    BROKEN = "answered in a way nobody foresaw"


@dataclass
class Resource:
    """A resource outside."""

    configuration: dict[str, Any]
    enabled: bool
    made_at: int
    idempotency_key: str

    def is_as(self, inputs: dict[str, Any]) -> bool:
        """True if it is as a create or an update with these inputs would leave it."""
        return (self.configuration, self.enabled) == (inputs.get("configuration", {}), inputs.get("enabled", True))


@dataclass
class OutsideSystems:
    """Systems by step.

    Attributes:
        modes: How the next calls are answered; when they are used up, well.
        decides: Overrides `modes` where it returns a mode.
    """

    modes: list[Mode] = field(default_factory=list)
    decides: Callable[[str, Verb], Mode | None] = lambda _, __: None
    there: dict[tuple[str, int], Resource] = field(default_factory=dict)
    calls: list[tuple[str, Verb, int, Mode]] = field(default_factory=list)
    blind: set[tuple[str, int]] = field(default_factory=set)
    """Places that the world once refused to show, or showed as somebody else's: a create there has to be taken twice,
    as the contract of each kind says."""
    outputs_given: list[dict[str, Any]] = field(default_factory=list)
    """What each call was told of what its step had answered, in the order of `calls` since it was emptied."""
    asked: dict[str, object] = field(default_factory=dict)
    """Idempotency key to what it asked for."""
    archived: int = 0

    def steps(self) -> list[str]:
        """Steps with something there, in the plan's order; one entry a resource."""
        return sorted((step for step, _ in self.there), key=STEPS.index)

    def made(self, verb: Verb) -> list[str]:
        """Steps called with this verb, in order of the calls."""
        return [step for step, called, _, _ in self.calls if called is verb]

    def call(self, step: str, verb: Verb, generation: int, inputs: dict[str, Any], idempotency: str) -> Answer:
        """Answer one call."""
        if verb is not Verb.READ:
            asked = (step, verb, generation, inputs if verb is not Verb.DELETE else None)
            assert self.asked.setdefault(idempotency, asked) == asked, f"one key for two things: {asked}"
        mode = self.decides(step, verb) or (self.modes.pop(0) if self.modes else Mode.WELL)
        self.calls.append((step, verb, generation, mode))
        if inputs.get("configuration", {}).get("bad") == step and verb in {Verb.CREATE, Verb.UPDATE}:
            mode = Mode.REFUSED
        if verb is Verb.READ and mode in {Mode.REFUSED, Mode.CONTRADICTED}:
            self.blind.add((step, generation))
        if mode is Mode.UNDER_WAY and verb is Verb.READ:
            return Unknown("not ready", 5.0, succeeded=True, pending=True)
        if mode in {Mode.WELL, Mode.LOST_WITH_EFFECT, Mode.UNSHOWN, Mode.UNDER_WAY}:
            answer = self._effect(step, verb, generation, inputs, idempotency)
            if mode is Mode.UNSHOWN and verb in {Verb.CREATE, Verb.UPDATE}:
                return Unknown("not shown", succeeded=True)
            if mode is Mode.UNDER_WAY:
                return Unknown("taken", 5.0, succeeded=True, pending=True, outputs={"job": f"{step}.{generation}"})
            return Unknown("lost") if mode is Mode.LOST_WITH_EFFECT else answer
        answers: dict[Mode, Answer] = {
            Mode.REFUSED: Refused("no"),
            Mode.RETRYABLE: Retryable("busy"),
            Mode.SILENT: Retryable("down"),
            Mode.OPERATOR_REFUSED: OperatorRefused("HTTP 401"),
            Mode.CONTRADICTED: Contradicted("generation is not ours", anothers=True),
            Mode.LOST_WITHOUT: Unknown("lost"),
            Mode.BROKEN: Unknown("TypeError"),
        }
        return answers[mode]

    def _effect(self, step: str, verb: Verb, generation: int, inputs: dict[str, Any], idempotency: str) -> Answer:
        resource = (step, generation)
        if verb is Verb.READ:
            found = self.there.get(resource)
            differs = None if found is None or found.is_as(inputs) else "enabled"
            return Absent() if found is None else Done({"id": f"{step}.{generation}"}, differs)
        if verb is Verb.DELETE:
            later = [s for s, g in self.there if g == generation and STEPS.index(s) > STEPS.index(step)]
            assert not later, f"{step} removed before {later}"
            self.archived += step == "archive"
            return Done() if self.there.pop(resource, None) else Absent()
        if verb is Verb.UPDATE and resource not in self.there:
            return Absent()
        if verb is Verb.CREATE:
            older = [s for s, g in self.there if g != generation]
            assert not older, f"{step} of generation {generation} made beside {older}"
            earlier = {s for s, g in self.there if g == generation}
            assert set(STEPS[: STEPS.index(step)]) <= earlier, f"{step} made without {earlier}"
        known = self.there.get(resource)
        if verb is Verb.CREATE and known is not None:
            assert known.idempotency_key == idempotency or resource in self.blind, f"{step} made twice"
            return Done({"id": f"{step}.{generation}"})
        made_at = known.made_at if known else len(self.calls)
        key = known.idempotency_key if known else idempotency
        self.there[resource] = Resource(inputs.get("configuration", {}), inputs["enabled"], made_at, key)
        return Done({"id": f"{step}.{generation}"})


@dataclass
class DesiredVersions:
    """The newest desired version, as a ledger would make it from events."""

    now: Desired = field(
        default_factory=lambda: Desired(
            key=KEY,
            version=0,
            installed=False,
            enabled=True,
            configuration={},
            tenant_id=None,
            installed_at=None,
            uninstalled_at=None,
        )
    )
    at_us: int = 1_000

    def change(self, **fields: Any) -> Desired:
        """Another version."""
        self.at_us += 10
        self.now = self.now.model_copy(update={"version": self.now.version + 1, "received_at": self.at_us} | fields)
        return self.now

    def installed(self, tenant_id: str | None = "acme", **configuration: Any) -> Desired:
        """`installed`."""
        given = {"crmEndpoint": "https://x.salesforce.com"} | configuration
        return self.change(
            installed=True,
            enabled=True,
            tenant_id=tenant_id,
            installed_at=self.at_us,
            configuration=given,
            remove_after_s=None,
        )

    def configured(self, **configuration: Any) -> Desired:
        """`configuration_updated`."""
        return self.change(configuration={"crmEndpoint": "https://x.salesforce.com"} | configuration)

    def switched(self, *, enabled: bool) -> Desired:
        """`enabled` or `disabled`."""
        return self.change(enabled=enabled)

    def uninstalled(self, remove_after_s: int | None = None) -> Desired:
        """`uninstalled`; nothing of the configuration is newer than it."""
        return self.change(
            installed=False,
            uninstalled_at=self.at_us,
            configuration={},
            enabled=True,
            remove_after_s=remove_after_s,
        )

    def reinstalled(self, **configuration: Any) -> Desired:
        """`uninstalled` and `installed`, seen as one version."""
        self.uninstalled()
        return self.installed(**configuration)


class Crash(Exception):
    """The worker is gone."""


@dataclass
class MemoryRunner:
    """Decides, commits, calls and settles as the runner does; what is committed survives a crash.

    Attributes:
        world: Whom it calls.
        desired: The newest version known.
        crashes: Numbers of the marks (commits and answers, counted together) right after which it is lost.
    """

    world: OutsideSystems
    desired: Desired
    plans: Plans = field(default_factory=lambda: Plans(plan()))
    crashes: frozenset[int] = frozenset()
    bars: list[bool] = field(default_factory=list)
    """Whether the system of the next call is away, once each; when they are used up, no system is."""
    holds: list[str] = field(default_factory=list)
    """Reasons for which the next first deletes of a teardown are held, once each."""
    first_deletes: int = 0
    """How often a first delete of a teardown was asked for, and let go."""
    retries_before: frozenset[int] = frozenset()
    """Numbers of commits before which an operator asks that it be tried again."""
    stored: str = Journal().model_dump_json()
    outcomes: list[Outcome] = field(default_factory=list)
    now_us: int = 1_000_000
    marks: int = 0
    pace: Pace = field(default_factory=Pace)
    until_us: int = 10**18
    """Waits beyond this are not waited for."""
    again: bool = False
    """True if what was rolled back is waited for until it is provisioned again by itself."""
    known: set[str] = field(default_factory=set)
    """Idempotency keys whose outcome is committed: never to be used again."""
    pending: tuple[Called, str] | None = None
    first_calls: list[int] = field(default_factory=list)
    """Versions whose first call was made."""
    converged: list[Converged] = field(default_factory=list)

    @property
    def journal(self) -> Journal:
        """As last committed."""
        return Journal.model_validate_json(self.stored)

    @property
    def phase(self) -> Phase:
        """Of the committed journal."""
        return self.journal.phase

    @property
    def last(self) -> Outcome:
        """The newest outcome."""
        return self.outcomes[-1]

    def run(self, versions: Iterable[tuple[int, Desired]] = (), at_most: int = 10_000) -> None:
        """Work until nothing is due any more, through crashes; a version arrives before the mark of its number."""
        coming = sorted(versions, key=lambda version: version[0])
        while True:
            try:
                self._drive(coming, at_most)
            except Crash:
                self.pending = None
                continue
            if not coming:
                return
            coming[0] = (self.marks, coming[0][1])

    def _drive(self, coming: list[tuple[int, Desired]], at_most: int) -> None:
        journal = self.journal
        while True:
            while coming and coming[0][0] <= self.marks:
                self.desired = coming.pop(0)[1]
            if self.marks in self.retries_before:
                journal = retried_journal(journal) or journal
            turn = self._decided(journal)
            met = milestones(self.plans, journal, turn)
            self.converged += met.converged
            self._commit(turn)
            if isinstance(turn.move, Wait):
                if turn.move.until_us is None or turn.move.until_us > self.until_us:
                    return
                rests = turn.journal.phase is Phase.ROLLED_BACK and turn.move.until_us == turn.journal.again_at
                if rests and not self.again:
                    return
                self.now_us = max(turn.move.until_us, self.now_us + 1)
                journal = self.journal
                if self.marks > at_most:
                    raise AssertionError(f"no rest in {at_most} marks: {journal.phase}, {self.world.calls[-20:]}")
                continue
            if met.first_call_since_us is not None:
                assert turn.journal.target is not None
                self.first_calls.append(turn.journal.target.version)
            answer = self._call(turn.journal, turn.move)
            self._mark()
            journal = settle(turn.journal, turn.move, answer, self.now_us, self.pace)

    def _decided(self, journal: Journal) -> Turn:
        barred: dict[tuple[int, str], Wait] = {}
        while True:
            turn = decide(self.plans, journal, self.desired, self.now_us, barred)
            move = turn.move
            if not isinstance(move, Wait) and begins_destruction(journal, turn.journal, move):
                back = is_reinstalled(turn.journal, self.desired)
                if back or self.holds:
                    reason = REMOVAL_BRAKED if back else self.holds.pop(0)
                    barred[move.generation, move.step.name] = Wait(self.now_us + HELD_US, reason, move.step.name)
                    continue
                self.first_deletes += 1
            if isinstance(move, Wait) or not (self.bars and self.bars.pop(0)):
                return turn
            barred[move.generation, move.step.name] = Wait(self.now_us + 5_000_000, "system_away", move.step.name)

    def _commit(self, turn: Turn) -> None:
        self.stored = turn.journal.model_dump_json()
        self.outcomes += turn.outcomes
        if self.pending is not None:
            move, key = self.pending
            of_life = {life.generation: life for life in _lives(turn.journal)}.get(move.generation)
            log = of_life.steps[move.step.name] if of_life and move.step.name in of_life.steps else None
            if log is None or not log.open or log.n != move.n:
                self.known.add(key)
            self.pending = None
        self._mark()

    def _mark(self) -> None:
        self.marks += 1
        self.now_us += 1_000
        if self.marks in self.crashes:
            raise Crash

    def _call(self, journal: Journal, move: Called) -> Answer:
        inputs = log_of(journal, move).inputs
        verb = Verb.READ if isinstance(move, LookUp) else move.verb if isinstance(move, Run) else Verb.DELETE
        key = idempotency_key(KEY, life_of(journal, move).generation, move.step.name, move.n)
        if verb is not Verb.READ:
            assert key not in self.known, f"{verb} {move.step.name} under a key whose outcome is known"
            self.pending = move, key
        self.world.outputs_given.append(log_of(journal, move).outputs)
        return self.world.call(move.step.name, verb, move.generation, inputs, key)


def _lives(journal: Journal) -> list[Life]:
    return [check.life for check in journal.orphan_checks] + ([journal.life] if journal.life else [])


def ends(outcomes: Sequence[Outcome]) -> list[tuple[int, str, str, str | None]]:
    """Version, direction, state and reason of each final outcome."""
    return [
        (said.desired_version, said.direction.value, said.state.value, said.reason)
        for said in outcomes
        if said.state in ENDS
    ]
