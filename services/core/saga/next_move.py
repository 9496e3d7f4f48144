"""What a saga does next: a pure, total function of plan, journal, newest desired version and time.

Rule: what decides an order of calls is here, as two tables (what a new version does to a phase, how a phase moves) and
the two ways along a plan, up and down. Whoever calls the outside asks `next_move`, writes the move down (`saga_marks`),
makes the call, writes the answer down (`saga_answers`), and asks again.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

from schemas.saga import Journal, Life, Phase, Presence, StepLog, StepVerdict, Sweep
from schemas.tenant import Desired
from schemas.values import Json
from services.core.saga.calls import Verb, resource_name
from services.core.saga.moves import Called, Finish, GiveUp, Move, Observe, Run, Swept, Take, Undo, Wait
from services.core.saga.pace import Pace
from services.core.saga.plan import Plan, Step, UndoBy, schema_name
from services.core.saga.references import Facts, substitute, used_configuration
from services.core.unwell import GRACE

HELD_US: Final = 60_000_000
"""How long a version that another tenant stands in the way of waits before it is tried again."""

RETRYING: Final = "retrying"
"""Reason of a wait between two tries of a step."""

SYSTEM_AWAY: Final = "system_away"
"""Reason of a wait at the gate before a system that is away."""

SYSTEM_REFUSES: Final = "system_refuses"
"""Reason of a wait at the gate before a system of the operator's that refuses the operator's credentials or set-up."""

TROUBLE: Final = frozenset({RETRYING, SYSTEM_AWAY, SYSTEM_REFUSES})
"""Reasons of the waits during which a tenant may become unwell."""

_NEVER: Final = StepLog()
_NOT_THERE: Final = frozenset({Presence.ABSENT, Presence.ASKED})


@dataclass(frozen=True, slots=True)
class Plans:
    """The plan for new lives, and by digest every plan that a life still goes by.

    Attributes:
        current: For new lives.
        by_digest: The others.
        unusable: Plans of ended lives that cannot be carried out, and why: what those may have left waits for a remedy.
        pace: Of the waits.
    """

    current: Plan
    by_digest: Mapping[str, Plan] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)

    def of(self, life: Life) -> Plan:
        """The plan a life began with."""
        return self.by_digest.get(life.plan, self.current)

    def known(self, life: Life) -> Plan | None:
        """The same; None where it is not kept, or cannot be carried out."""
        return {self.current.digest: self.current, **self.by_digest}.get(life.plan)


TAKES: Final[Mapping[Phase, tuple[Phase | None, Phase]]] = {
    Phase.EMPTY: (Phase.CREATING, Phase.REMOVING),
    Phase.CREATING: (Phase.CREATING, Phase.REMOVING),
    Phase.ACTIVE: (Phase.UPDATING, Phase.REMOVING),
    Phase.UPDATING: (Phase.UPDATING, Phase.REMOVING),
    Phase.RESTORING: (Phase.UPDATING, Phase.REMOVING),
    Phase.COMPENSATING: (None, Phase.REMOVING),
    Phase.ROLLED_BACK: (Phase.CREATING, Phase.REMOVING),
    Phase.REMOVING: (None, Phase.REMOVING),
}
"""What a newer desired version does to a phase, installed and not; None: the phase ends first."""

Barred = Mapping[tuple[int, str], Wait]
"""By generation and step: calls that may not be made now, and what to do instead."""

NONE: Final[Barred] = {}
"""Every system may be called."""


def next_move(plans: Plans, journal: Journal, desired: Desired, now_us: int, barred: Barred = NONE) -> Move:
    """What to do next; the same for the same arguments, whoever asks.

    Args:
        plans: The plan for a new life, and those of the lives in the journal.
        journal: As last written.
        desired: The newest desired version of the key.
        now_us: Microseconds UTC.
        barred: Steps whose systems are away, or busy.
    """
    move = _take(journal, desired, now_us) or _unbarred(_WAYS[journal.phase](plans, journal, now_us), barred)
    if not isinstance(move, Wait):
        return move
    if move.reason == GRACE and desired.installed and _newer(journal, desired):
        return Take(Phase.UPDATING if journal.life and journal.life.good else Phase.CREATING, desired)
    return _sweep(plans, journal, now_us, _noticed(plans.pace, journal, move, now_us), barred)


def _noticed(pace: Pace, journal: Journal, wait: Wait, now_us: int) -> Wait:
    """Shortens a wait at a step to the moment at which the tenant becomes unwell."""
    if wait.until_us is None or wait.reason not in TROUBLE:
        return wait
    stands = journal.standstill
    unwell_us = (stands.since if stands and stands.step == wait.step else now_us) + pace.unwell_us
    return replace(wait, until_us=min(wait.until_us, unwell_us)) if now_us < unwell_us else wait


def _unbarred(move: Move, barred: Barred) -> Move:
    return barred.get((move.generation, move.step.name), move) if isinstance(move, Called) else move


def _newer(journal: Journal, desired: Desired) -> bool:
    return journal.target is None or desired.version > journal.target.version


def _take(journal: Journal, desired: Desired, now_us: int) -> Take | Wait | None:
    again = journal.phase is Phase.ROLLED_BACK and now_us >= journal.again_at
    if not again and not _newer(journal, desired):
        return None
    if journal.life is not None and _says_nothing(desired):
        return Wait(None, "install_unknown") if journal.phase is Phase.ACTIVE else None
    phase = TAKES[journal.phase][0 if desired.installed else 1]
    if phase is None:
        return None
    if phase is Phase.CREATING and journal.life is None:
        if desired.tenant_id is None:
            return Wait(now_us + HELD_US, "tenant_unknown")
        if journal.held and journal.held_version == desired.version and now_us < journal.held_until:
            return Wait(journal.held_until, journal.held)
    return Take(phase, desired)


def _says_nothing(desired: Desired) -> bool:
    """Neither an install nor an uninstall is known: absence of information never removes anything."""
    return not desired.installed and desired.installed_at is None and desired.uninstalled_at is None


def _rest(_: Plans, __: Journal, ___: int) -> Move:
    return Wait(None)


def _until_again(_: Plans, journal: Journal, __: int) -> Move:
    return Wait(journal.again_at)


def _up(plans: Plans, journal: Journal, now_us: int) -> Move:
    """Along the plan: what is not there is made, what differs is changed, what is in doubt is looked at."""
    life, wanted = journal.life, journal.target
    if life is None or wanted is None:
        return Finish()
    if journal.phase is Phase.RESTORING:
        wanted = life.good or wanted
    for step in plans.of(life).steps:
        move = _up_step(journal, life, step, wanted, now_us)
        if move is not None:
            return move
    return Finish()


def _up_step(journal: Journal, life: Life, step: Step, wanted: Desired, now_us: int) -> Move | None:  # noqa: PLR0911 - one line a case, in order
    log = life.steps.get(step.name, _NEVER)
    if log.verdict is StepVerdict.REFUSED:
        return GiveUp(step.name, StepVerdict.REFUSED, log.reason)
    if _outlasted(journal, step):
        return GiveUp(step.name, StepVerdict.EXHAUSTED, log.reason or "the system is away")
    if now_us < log.not_before:
        return Wait(log.not_before, RETRYING, step.name)
    if step.name in life.reissue and journal.phase is not Phase.RESTORING and log.there is not Presence.ABSENT:
        return _undo(life, step, log)
    inputs, intended, missing, place = wish(life, step, wanted)
    if _in_doubt(log) and not (log.open and log.verdict is StepVerdict.CONTRADICTED and log.intended != intended):
        # What contradicts itself is not asked again once something else is wanted: it may be elsewhere by then.
        return Observe(life.generation, step, log.n)
    if missing:
        return GiveUp(step.name, StepVerdict.REFUSED, f"missing: {', '.join(missing)}")
    if log.open and log.verb != Verb.DELETE and log.intended == intended:
        return Run(life.generation, step, Verb(log.verb or Verb.CREATE), log.n, inputs, intended, place)
    if log.there in _NOT_THERE or (log.open and log.verb == Verb.CREATE):
        return Run(life.generation, step, Verb.CREATE, log.n + 1, inputs, intended, place)
    if log.applied != intended:
        return Run(life.generation, step, Verb.UPDATE, log.n + 1, inputs, intended, place)
    return None


def _down(plans: Plans, journal: Journal, now_us: int) -> Move:
    """Against the plan: whatever was asked for is undone, the newest first."""
    life = journal.life
    if life is None:
        return Finish()
    for step in reversed(plans.of(life).steps):
        log = life.steps.get(step.name, _NEVER)
        if log.there is Presence.ABSENT or step.undo is UndoBy.NOTHING:
            continue
        if journal.phase is Phase.COMPENSATING and log.there is Presence.ASKED and log.tries:
            continue  # every answer said that nothing was made, and nobody answers now: the sweep looks again
        due_us = journal.turned_at + step.destroy_after_s * 1_000_000
        # Without a grace period there is none to wait for, nor to come back in, however far behind this clock is.
        if journal.phase is Phase.REMOVING and step.destroy_after_s and now_us < due_us:
            return Wait(due_us, GRACE, step.name)
        if now_us < log.not_before:
            return Wait(log.not_before, RETRYING, step.name)
        if log.doubted and not log.open:
            return Observe(life.generation, step, log.n)
        return _undo(life, step, log)
    return Finish()


_WAYS: Final[Mapping[Phase, Callable[[Plans, Journal, int], Move]]] = {
    Phase.EMPTY: _rest,
    Phase.CREATING: _up,
    Phase.ACTIVE: _rest,
    Phase.UPDATING: _up,
    Phase.RESTORING: _up,
    Phase.COMPENSATING: _down,
    Phase.ROLLED_BACK: _until_again,
    Phase.REMOVING: _down,
}


def _outlasted(journal: Journal, step: Step) -> bool:
    """True if a first provisioning has waited for a step's system for as long as the step may.

    An update never gives up: its tenant is active meanwhile, and a restoration would need the same system.
    """
    stands = journal.standstill
    if journal.phase is not Phase.CREATING or stands is None or stands.step != step.name or not stands.outage_since:
        return False
    return stands.outage_seen >= stands.outage_since + step.give_up_after_s * 1_000_000


def _in_doubt(log: StepLog) -> bool:
    return (log.open and not log.read_back) or (not log.open and log.there is Presence.MAYBE)


def _undo(life: Life, step: Step, log: StepLog) -> Move:
    if log.open and log.verb == Verb.DELETE:
        return Undo(life.generation, step, log.n) if log.read_back else Observe(life.generation, step, log.n)
    return Undo(life.generation, step, log.n + 1)


def _sweep(plans: Plans, journal: Journal, now_us: int, wait: Wait, barred: Barred) -> Move:
    """While there is nothing else to do: look ended lives up again."""
    for sweep in journal.sweeps:
        move = _unbarred(_sweep_life(plans, sweep, now_us), barred)
        if not isinstance(move, Wait):
            return move
        if wait.until_us is None or (move.until_us or 0) < wait.until_us:
            wait = Wait(move.until_us, wait.reason, wait.step)
    return wait


def _sweep_life(plans: Plans, sweep: Sweep, now_us: int) -> Move:
    if now_us < sweep.due_at:
        return Wait(sweep.due_at)
    if sweep.life.plan in plans.unusable:
        return Wait(now_us + HELD_US)
    for step in reversed(plans.of(sweep.life).steps):
        log = sweep.life.steps.get(step.name, _NEVER)
        if log.there in _NOT_THERE or step.undo is UndoBy.NOTHING:
            continue
        if now_us < log.not_before:
            return Wait(log.not_before)
        if _in_doubt(log):
            return Observe(sweep.life.generation, step, log.n)
        return _undo(sweep.life, step, log)
    return Swept(sweep.life.generation)


def facts(
    life: Life, key: str, step: Step, *, enabled: bool, configuration: Mapping[str, Any], outputs: Mapping[str, Json]
) -> Facts:
    """What the references in a step's settings are replaced with."""
    org, _, integration = key.partition(":")
    tenant = {
        "key": key,
        "id": life.tenant_id,
        "org": org,
        "integration": integration,
        "generation": life.generation,
        "name": resource_name(key, life.generation),
        "schema": schema_name(key, life.generation),
        "enabled": enabled,
    }
    return Facts(tenant, configuration, outputs, step.given)


def wish(life: Life, step: Step, wanted: Desired) -> tuple[Json, str, tuple[str, ...], str | None]:
    """What a step is to be given for a desired version.

    Returns:
        Its inputs, the hash of its settings with them, the names that are needed and missing, and its `url`.
    """
    configuration = used_configuration(step.settings, wanted.configuration)
    inputs: Json = {"configuration": configuration, "enabled": wanted.enabled}
    outputs = {name: log.outputs or log.former for name, log in life.steps.items()}
    given = facts(life, wanted.key, step, enabled=wanted.enabled, configuration=configuration, outputs=outputs)
    settings, missing = substitute(step.settings, given)
    text = json.dumps([settings, wanted.enabled], sort_keys=True, separators=(",", ":"))
    place = settings.get("url")
    return inputs, sha256(text.encode()).hexdigest(), missing, place if isinstance(place, str) else None
