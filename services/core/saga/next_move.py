"""The next move of a saga: a pure, total function of plan, journal, newest desired version and time.

Problem: a worker may die between any two statements, and a call may lose its answer. After a crash another worker must
continue from the journal alone, without making a resource twice and without leaving one behind.

Approach: no code holds a position in the plan. Each turn recomputes the next move from the journal, beginning at the
first step; steps without work fall through. So a restart, a repeat and a newer desired version need no code of their
own. A turn is a cycle of four, and each commit happens before the effect that depends on it:

    1. `next_move` chooses a move from the journal
    2. `intents.begin` writes the move into the journal; the worker commits (the intent)
    3. the worker makes the call
    4. `results.settle` writes the answer into the journal; the worker commits with the next intent

Two tables decide: `AFTER_TAKE_UP` (the phase after a newer desired version) and `_WAYS` (the way of each phase: up
along the plan, down against the plan, or at rest).

Invariants:
- On the way up a step with an open intent is read back by name before another change of the step; `_up_step` marks the
  one exception. On the way down a delete follows at once: the orphan check removes whatever a late create makes.
- A call with a lost answer is repeated with the same number `n`, and so with the same idempotency key; any other call
  takes `n + 1`. Two calls with different inputs must never share a number, or a system would answer the second call
  with the result of the first.
- Absence of information removes nothing: a desired version without install and uninstall never starts a teardown.
- The function reads no clock and keeps no state: equal arguments give equal moves, in a worker and in a test.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

from schemas.saga import Journal, Life, OrphanCheck, Phase, StepLog, StepState, StepVerdict
from schemas.tenant import Desired
from schemas.values import Json
from services.core.saga.calls import Verb, resource_name
from services.core.saga.moves import Called, Finish, GiveUp, LookUp, Move, OrphanCheckDone, Run, TakeUp, Undo, Wait
from services.core.saga.pace import Pace
from services.core.saga.plan import Plan, Step, UndoBy, schema_name
from services.core.saga.references import Facts, substitute, used_configuration
from services.core.saga.step_transitions import IN_DOUBT, NOT_MADE, TO_REPEAT
from services.core.unwell import GRACE, HELD_REMOVALS

HELD_US: Final = 60_000_000
"""Microseconds that a held version (tenantId taken or unknown) waits before the next try."""

RETRYING: Final = "retrying"
"""Reason of a wait between two tries of a step."""

SYSTEM_AWAY: Final = "system_away"
"""Reason of a wait at an open circuit: the system has an outage."""

OPERATOR_REFUSED: Final = "system_refuses"
"""Reason of a wait at an open circuit: the operator's system refuses the operator's credentials or set-up."""

TROUBLE: Final = frozenset({RETRYING, SYSTEM_AWAY, OPERATOR_REFUSED})
"""Reasons of the waits during which a tenant may become unwell."""

RELEASED: Final = "released"
"""Reason of a held install of a key that an operator has released: the vendor's resources exist beside this system."""

BEFORE_DESTRUCTION: Final = frozenset({GRACE, *HELD_REMOVALS})
"""Reasons of the waits of a teardown during which a reinstall revives the life."""

_NO_LOG: Final = StepLog()
"""The log of a step without any intent."""


@dataclass(frozen=True, slots=True)
class Plans:
    """The plans of the lives in one journal, and the pace of the waits.

    A life is finished with the plan of its beginning, so a deployment may change the plan at any time.

    Attributes:
        current: Plan for new lives.
        by_digest: Former plans of the lives in the journal, by digest.
        unusable: Digest to fault of former plans that this release cannot carry out. The orphan check of such a life
            waits for a remedy.
        pace: Lengths of the waits.
    """

    current: Plan
    by_digest: Mapping[str, Plan] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)

    def of(self, life: Life) -> Plan:
        """Returns the plan of a life; the current plan if the life's own is not in `by_digest`."""
        return self.by_digest.get(life.plan, self.current)

    def known(self, life: Life) -> Plan | None:
        """Returns the plan of a life; None if the plan is not stored, or cannot be carried out."""
        return {self.current.digest: self.current, **self.by_digest}.get(life.plan)


AFTER_TAKE_UP: Final[Mapping[Phase, tuple[Phase | None, Phase]]] = {
    Phase.EMPTY: (Phase.CREATING, Phase.REMOVING),
    Phase.CREATING: (Phase.CREATING, Phase.REMOVING),
    Phase.ACTIVE: (Phase.UPDATING, Phase.REMOVING),
    Phase.UPDATING: (Phase.UPDATING, Phase.REMOVING),
    Phase.RESTORING: (Phase.UPDATING, Phase.REMOVING),
    Phase.COMPENSATING: (None, Phase.REMOVING),
    Phase.ROLLED_BACK: (Phase.CREATING, Phase.REMOVING),
    Phase.REMOVING: (None, Phase.REMOVING),
}
"""The phase after a newer desired version: for an installed one, and for an uninstalled one. None: a compensation or a
teardown that has begun ends before the next life; `next_move` has the exception for a teardown that still waits to
destroy."""

Barred = Mapping[tuple[int, str], Wait]
"""Generation and step to the wait that replaces the step's call, because a gate turned the call away."""

NONE: Final[Barred] = {}
"""No call is turned away: every system may be called."""


def next_move(plans: Plans, journal: Journal, desired: Desired, now_us: int, barred: Barred = NONE) -> Move:
    """Returns the next move of a saga.

    Args:
        plans: The plan for a new life, and the plans of the lives in the journal.
        journal: The journal as last written.
        desired: The newest desired version of the key.
        now_us: Microseconds UTC.
        barred: Calls turned away by the gates of their systems.
    """
    # A newer version comes first: the present phase may be working towards a state that nobody wants any more.
    move = _take_up(journal, desired, now_us) or _unless_barred(_WAYS[journal.phase](plans, journal, now_us), barred)
    if not isinstance(move, Wait):
        return move
    if move.reason in BEFORE_DESTRUCTION and is_reinstalled(journal, desired):
        # A reinstall during a grace period revives the life, though `AFTER_TAKE_UP` lets a teardown end first: the
        # generation goes on, undone steps are done again, and the resource in its grace period stays. A teardown held
        # before its first delete has undone nothing.
        return TakeUp(Phase.UPDATING if journal.life and journal.life.last_applied else Phase.CREATING, desired)
    # Only a saga with nothing else to do spends time on ended lives.
    return _check_orphans(plans, journal, now_us, _capped_at_unwell(plans.pace, journal, move, now_us), barred)


def _capped_at_unwell(pace: Pace, journal: Journal, wait: Wait, now_us: int) -> Wait:
    """Returns the wait, shortened to the moment at which the tenant becomes unwell, so that a turn reports it."""
    if wait.until_us is None or wait.reason not in TROUBLE:
        return wait
    stands = journal.standstill
    unwell_us = (stands.since if stands and stands.step == wait.step else now_us) + pace.unwell_us
    return replace(wait, until_us=min(wait.until_us, unwell_us)) if now_us < unwell_us else wait


def _unless_barred(move: Move, barred: Barred) -> Move:
    return barred.get((move.generation, move.step.name), move) if isinstance(move, Called) else move


def is_reinstalled(journal: Journal, desired: Desired) -> bool:
    """True if the newest desired version is installed, and was not taken up yet."""
    return desired.installed and _is_newer(journal, desired)


def _is_newer(journal: Journal, desired: Desired) -> bool:
    return journal.target is None or desired.version > journal.target.version


def _take_up(journal: Journal, desired: Desired, now_us: int) -> TakeUp | Wait | None:
    # A rolled back tenant takes up the version that failed once more, although the version is not newer.
    is_due_again = journal.phase is Phase.ROLLED_BACK and now_us >= journal.again_at
    if not is_due_again and not _is_newer(journal, desired):
        return None
    if journal.life is not None and _is_unknown(desired):
        return Wait(None, "install_unknown") if journal.phase is Phase.ACTIVE else None
    phase = AFTER_TAKE_UP[journal.phase][0 if desired.installed else 1]
    if phase is None or _is_before_adoption(journal, desired):
        return None
    is_first = phase is Phase.CREATING and journal.life is None
    return (_hold_before_life(journal, desired, now_us) if is_first else None) or TakeUp(phase, desired)


def _hold_before_life(journal: Journal, desired: Desired, now_us: int) -> Wait | None:
    """Returns the wait of an installed version that must not begin a life yet."""
    if is_released(journal) and (desired.uninstalled_at or 0) <= journal.forgotten_at:
        # Only an uninstall of another source than the release makes the next install a life of its own.
        return Wait(None, RELEASED)
    # A life keeps its tenantId until its end, so a life must not begin before the tenantId is known.
    if desired.tenant_id is None:
        return Wait(now_us + HELD_US, "tenant_unknown")
    if journal.held and journal.held_version == desired.version and now_us < journal.held_until:
        return Wait(journal.held_until, journal.held)
    return None


def is_released(journal: Journal) -> bool:
    """True if an operator has released the newest generation, and has not asked for a provisioning since."""
    return journal.forgotten_at > 0 and journal.generation in journal.forgotten


def _is_before_adoption(journal: Journal, desired: Desired) -> bool:
    """True for an uninstall older than the adoption of the life: the ledger has not been told of the adoption yet.

    The version that the ledger publishes once it was told has both, and the newer one counts.
    """
    life = journal.life
    return life is not None and not desired.installed and (desired.uninstalled_at or 0) < life.adopted_at


def _is_unknown(desired: Desired) -> bool:
    """True if neither an install nor an uninstall is known: absence of information never removes anything."""
    return not desired.installed and desired.installed_at is None and desired.uninstalled_at is None


def _rest(_: Plans, __: Journal, ___: int) -> Move:
    return Wait(None)


def _until_again(_: Plans, journal: Journal, __: int) -> Move:
    return Wait(journal.again_at)


def _up(plans: Plans, journal: Journal, now_us: int) -> Move:
    """Returns the next move along the plan, in the order of creation.

    A resource in doubt is looked up, a missing resource is created, and a resource with other settings is updated.
    """
    life, wanted = journal.life, journal.target
    if life is None or wanted is None:
        return Finish()
    if journal.phase is Phase.RESTORING:
        # A restoration is an update back to the last version that was applied as a whole.
        wanted = life.last_applied or wanted
    for step in plans.of(life).steps:
        move = _up_step(journal, life, step, wanted, now_us)
        if move is not None:
            return move
    return Finish()


def _up_step(journal: Journal, life: Life, step: Step, wanted: Desired, now_us: int) -> Move | None:  # noqa: PLR0911 - one line a case, in order
    # The order of these tests is the decision: a refusal ends the turn before any wait, a wait comes before any call,
    # and a look-up comes before any change.
    log = life.steps.get(step.name, _NO_LOG)
    if log.verdict is StepVerdict.REFUSED:
        return GiveUp(step.name, StepVerdict.REFUSED, log.reason)
    if _has_outlasted_outage(journal, step):
        return GiveUp(step.name, StepVerdict.EXHAUSTED, log.reason or "the system is away")
    if now_us < log.not_before:
        return Wait(log.not_before, RETRYING, step.name)
    if step.name in life.reissue and journal.phase is not Phase.RESTORING and log.state is not StepState.ABSENT:
        # Tokens from before an uninstall are revoked first; the next turn finds the step absent and issues new ones.
        return _undo(life, step, log)
    inputs, intended, missing, location = desired_inputs(life, step, wanted)
    if log.state in IN_DOUBT and not (
        log.open and log.verdict is StepVerdict.CONTRADICTED and log.intended != intended
    ):
        # The exception: a contradicted call is not read back when other settings are wanted by now. The new settings
        # may name another location, and a look-up there would prove nothing about the old call.
        return LookUp(life.generation, step, log.n)
    if missing:
        return GiveUp(step.name, StepVerdict.REFUSED, f"missing: {', '.join(missing)}")
    if log.state in TO_REPEAT and log.verb != Verb.DELETE and log.intended == intended:
        # The repeat of a lost call: equal settings, so the number and the idempotency key stay.
        return Run(life.generation, step, Verb(log.verb or Verb.CREATE), log.n, inputs, intended, location)
    if log.state in NOT_MADE or (log.open and log.verb == Verb.CREATE):
        # An open create with other settings is a new intent: the old key would fetch the answer of the old inputs.
        return Run(life.generation, step, Verb.CREATE, log.n + 1, inputs, intended, location)
    if log.applied != intended:
        return Run(life.generation, step, Verb.UPDATE, log.n + 1, inputs, intended, location)
    return None


def _down(plans: Plans, journal: Journal, now_us: int) -> Move:
    """Returns the next move against the plan: every step with an intent is undone, the last step first."""
    life = journal.life
    if life is None:
        return Finish()
    for step in reversed(plans.of(life).steps):
        log = life.steps.get(step.name, _NO_LOG)
        if log.state is StepState.ABSENT or step.undo is UndoBy.NOTHING:
            continue
        if journal.phase is Phase.COMPENSATING and log.state in NOT_MADE and log.tries:
            # Every answer said that nothing was made, and the delete found the system away. Waiting for a system that
            # was never reached would hold up the correction of a wrong endpoint; the orphan check looks again later.
            continue
        # `destroy_after_s` is tested although 0 would give `phase_began_at`: this clock may be behind the clock that
        # wrote `phase_began_at`, and a step without a grace period must neither wait nor be revived.
        graced_us = journal.phase_began_at + step.destroy_after_s * 1_000_000 if step.destroy_after_s else 0
        due_us = max(graced_us, journal.remove_at)
        if journal.phase is Phase.REMOVING and now_us < due_us:
            return Wait(due_us, GRACE, step.name)
        if now_us < log.not_before:
            return Wait(log.not_before, RETRYING, step.name)
        if log.unverified and not log.open:
            # After a recovery the resource may never have existed, or exist at several locations: look before deleting.
            return LookUp(life.generation, step, log.n)
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
"""The way of each phase; every phase has one."""


def _has_outlasted_outage(journal: Journal, step: Step) -> bool:
    """True if the outage at a step of a first provisioning has lasted for `give_up_after`.

    An update never gives up: the tenant stays active meanwhile, and a restoration would need the same system.
    """
    stands = journal.standstill
    if journal.phase is not Phase.CREATING or stands is None or stands.step != step.name or not stands.outage_since:
        return False
    # From the first to the last call that met the outage, and not until now: while the provisioner was down, no call
    # was made, and that time proves nothing about the system.
    return stands.outage_seen >= stands.outage_since + step.give_up_after_s * 1_000_000


def _undo(life: Life, step: Step, log: StepLog) -> Move:
    if log.open and log.verb == Verb.DELETE:
        # A lost delete is looked up first, then repeated with its own number.
        return (Undo if log.state in TO_REPEAT else LookUp)(life.generation, step, log.n)
    return Undo(life.generation, step, log.n + 1)


def _check_orphans(plans: Plans, journal: Journal, now_us: int, wait: Wait, barred: Barred) -> Move:
    """Returns the next move of the orphan checks: ended lives are looked up again while the saga itself waits.

    A paused worker may still send the last call of an ended life. The orphan check finds and removes the result.

    Args:
        plans: The plans of the lives.
        journal: The journal as last written.
        now_us: Microseconds UTC.
        wait: The wait of the saga itself; returned, perhaps shortened, if no orphan check is due.
        barred: Calls turned away by the gates of their systems.
    """
    for check in journal.orphan_checks:
        move = _unless_barred(_check_ended_life(plans, check, now_us), barred)
        if not isinstance(move, Wait):
            return move
        # Reason and step stay those of the saga: the wait of an orphan check is not shown as the tenant's.
        if wait.until_us is None or (move.until_us or 0) < wait.until_us:
            wait = Wait(move.until_us, wait.reason, wait.step)
    return wait


def _check_ended_life(plans: Plans, check: OrphanCheck, now_us: int) -> Move:
    if now_us < check.due_at:
        return Wait(check.due_at)
    if check.life.plan in plans.unusable:
        return Wait(now_us + HELD_US)
    for step in reversed(plans.of(check.life).steps):
        log = check.life.steps.get(step.name, _NO_LOG)
        if log.state in NOT_MADE or step.undo is UndoBy.NOTHING:
            continue
        if now_us < log.not_before:
            return Wait(log.not_before)
        if log.state in IN_DOUBT:
            return LookUp(check.life.generation, step, log.n)
        return _undo(check.life, step, log)
    return OrphanCheckDone(check.life.generation)


def facts(
    life: Life, key: str, step: Step, *, enabled: bool, configuration: Mapping[str, Any], outputs: Mapping[str, Json]
) -> Facts:
    """Returns the values for the references in a step's settings.

    Args:
        life: The life of the key, with generation and tenantId.
        key: `orgId:integrationId`.
        step: The step of the plan, with the operator's settings.
        enabled: The integration's flag.
        configuration: The tenant's configuration, or the part used by the step.
        outputs: Name of a step to the outputs of the step.
    """
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


def desired_inputs(life: Life, step: Step, wanted: Desired) -> tuple[Json, str, tuple[str, ...], str | None]:
    """Returns the inputs of a step for a desired version.

    Returns:
        The inputs, the hash of the step's settings with these inputs, the needed names without a value, and the `url`
        of the step (None if the step has none).
    """
    # Only the names used by the step count, so a change of any other name calls no system.
    configuration = used_configuration(step.settings, wanted.configuration)
    inputs: Json = {"configuration": configuration, "enabled": wanted.enabled}
    # Secret outputs are sealed in the journal. Sealing is deterministic (services/adapters/secrets/sealing.py), so the
    # hash changes only with the secret and an unchanged secret updates no later step.
    outputs = {name: log.outputs or log.previous_outputs for name, log in life.steps.items()}
    given = facts(life, wanted.key, step, enabled=wanted.enabled, configuration=configuration, outputs=outputs)
    settings, missing = substitute(step.settings, given)
    text = json.dumps([settings, wanted.enabled], sort_keys=True, separators=(",", ":"))
    location = settings.get("url")
    return inputs, sha256(text.encode()).hexdigest(), missing, location if isinstance(location, str) else None
