"""Write-ahead half of the saga journal: each move is written into the journal before the move is made.

Rule: a worker calls `decide`, commits the returned turn, and only then makes the call. The intent of a call must be
durable first: after a crash an intent without an answer means "maybe done", while a call without an intent would leave
a resource with no owner. `services.core.saga.results` is the other half and writes the answer.

`decide` repeats `next_move` and `begin` until a call or a wait is due, and one commit carries every move without a
call (taking a version up, ending a phase, ending an orphan check) together with the intent of the next call. Journal
and outcomes of a turn belong to one commit: an outcome without the journal could be numbered twice (`seq`).

Progress is reported once, although a waiting saga is decided again and again. `journal.told` remembers the last report
about a wait as `version/phase/kind/step`; an equal report is not repeated. For waits in trouble the kind is one of
`_RANKS`, and the rank of a wait only rises: a saga may alternate between a wait at the gate and a wait between two
tries, and must not alternate between two reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.outcome import WORDS_MAX, Direction, Outcome, State
from schemas.saga import Failure, Journal, Life, OrphanCheck, Phase, Standstill, StepLog, StepState, StepVerdict
from schemas.tenant import Desired
from schemas.tenant_file import ToldTenant
from services.core.saga.calls import Verb
from services.core.saga.moves import Called, Finish, GiveUp, LookUp, Move, OrphanCheckDone, Run, TakeUp, Undo, Wait
from services.core.saga.next_move import (
    BEFORE_DESTRUCTION,
    HELD_US,
    NONE,
    OPERATOR_REFUSED,
    RELEASED,
    RETRYING,
    SYSTEM_AWAY,
    TROUBLE,
    Barred,
    Plans,
    is_released,
    next_move,
)
from services.core.saga.pace import Pace
from services.core.saga.plan import Plan
from services.core.saga.step_transitions import StepEvent, state_after
from services.core.unwell import HELD_REMOVALS, WAITING_FOR

ORPHAN_CHECK_AFTER_US: Final = 60_000_000
"""Microseconds from the end of a life to its orphan check, added to the longest time of one call: the last call
of a paused worker must have had its effect by then."""

AFTER_GIVE_UP: Final[Mapping[Phase, Phase]] = {
    Phase.CREATING: Phase.COMPENSATING,
    Phase.UPDATING: Phase.RESTORING,
}
"""The phase after a step was given up. A restoration has no entry: a restoration ends as if it had succeeded.

On the way down nothing is given up: a standing compensation or teardown goes on by itself."""

AFTER_FINISH: Final[Mapping[Phase, tuple[Phase, State]]] = {
    Phase.CREATING: (Phase.ACTIVE, State.DONE),
    Phase.UPDATING: (Phase.ACTIVE, State.DONE),
    Phase.RESTORING: (Phase.ACTIVE, State.DONE),
    Phase.COMPENSATING: (Phase.ROLLED_BACK, State.ROLLED_BACK),
    Phase.REMOVING: (Phase.EMPTY, State.DONE),
}
"""The phase and the state of the outcome after a phase has ended with success."""

UPDATE_REFUSED: Final = "update_refused"
"""Reason of an update that was refused: the tenant is active with the last good configuration."""

_UNSETTLED: Final = frozenset({
    StepVerdict.RETRYABLE, StepVerdict.UNKNOWN, StepVerdict.REFUSED, StepVerdict.OPERATOR_REFUSED,
    StepVerdict.CONTRADICTED,
})  # fmt: skip
"""Verdicts of a step that must be called again."""
_NEEDS_A_PERSON: Final = frozenset({StepVerdict.REFUSED, StepVerdict.CONTRADICTED})
"""Verdicts that time alone does not mend."""
_WAITS: Final = "waits"
_UNWELL: Final = "unwell"
_FOR_A_PERSON: Final = "parked"
_RANKS: Final = (_WAITS, _UNWELL, _FOR_A_PERSON)
"""Reports of a standing saga, the mildest first. A later wait at the same step never takes a stronger report back.
The words are stored in `journal.told`; `parked` is the stored word for a wait for a person."""
_SHOWN_AT_REST: Final = frozenset({*_RANKS[1:], *HELD_REMOVALS})
"""Reports after which the tenant is shown as standing."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The content of one commit, and the move after it.

    Attributes:
        journal: The journal to write, with the intent of `move`.
        move: The call to make after the commit, or the wait at the end of the turn.
        outcomes: Outcomes to publish from the outbox, numbered.
    """

    journal: Journal
    move: Called | Wait
    outcomes: tuple[Outcome, ...]


def decide(plans: Plans, journal: Journal, desired: Desired, now_us: int, barred: Barred = NONE) -> Turn:
    """Decides one turn: moves until a call or a wait is due.

    Args:
        plans: The plan for a new life, and the plans of the lives in the journal.
        journal: The journal as last written.
        desired: The newest desired version of the key.
        now_us: Microseconds UTC.
        barred: Calls turned away by the gates of their systems.
    """
    outcomes: list[Outcome] = []
    while True:
        move = next_move(plans, journal, desired, now_us, barred)
        journal, outcome = begin(plans, journal, desired, move, now_us)
        if outcome is not None:
            # Within one turn a later outcome replaces "working": work that began and ended without a call was never
            # under way for a reader.
            outcomes = [earlier for earlier in outcomes if earlier.state is not State.WORKING] + [outcome]
        if isinstance(move, Run | LookUp | Undo | Wait):
            break
    if outcomes and outcomes[-1].state is State.WORKING and outcomes[-1].step is None:
        # `begin` writes the outcome of a `TakeUp` before the first step of the new phase is known.
        outcomes[-1] = outcomes[-1].model_copy(update={"step": move.step if isinstance(move, Wait) else move.step.name})
    numbered = tuple(o.model_copy(update={"seq": journal.seq + i}) for i, o in enumerate(outcomes, 1))
    return Turn(journal.model_copy(update={"seq": journal.seq + len(outcomes)}), move, numbered)


def begin(  # noqa: PLR0911 - one case a move
    plans: Plans, journal: Journal, desired: Desired, move: Move, now_us: int
) -> tuple[Journal, Outcome | None]:
    """Writes a move into the journal, before the move is made.

    Returns:
        The journal with the move, and the outcome to publish or None. The outcome is not numbered yet (`seq` is 0).
    """
    match move:
        case TakeUp():
            return _begin_take_up(plans, journal, move, now_us)
        case Run() | Undo():
            return _report_progress(_intend(journal, move, now_us), desired, move, now_us)
        case LookUp():
            return journal, None  # a look-up changes nothing outside, so a crash leaves nothing in doubt
        case Wait() if move.reason in TROUBLE:
            return _begin_trouble(plans.pace, journal, desired, move, now_us)
        case Wait():
            return _begin_wait(journal, desired, move, now_us)
        case GiveUp():
            return _begin_give_up(plans, journal, desired, move, now_us)
        case Finish():
            return _begin_finish(plans, journal, desired, now_us)
        case OrphanCheckDone():
            left = tuple(check for check in journal.orphan_checks if check.life.generation != move.generation)
            return journal.model_copy(update={"orphan_checks": left}), None


def hold(journal: Journal, desired: Desired, reason: str, now_us: int) -> Journal:
    """Returns the journal with the desired version held for `HELD_US`, then to be tried again.

    Args:
        journal: The journal as last written.
        desired: The version to hold.
        reason: Published reason of the wait: `tenant_conflict`, for a tenantId bound to another organisation.
        now_us: Microseconds UTC.
    """
    return journal.model_copy(update={"held": reason, "held_version": desired.version, "held_until": now_us + HELD_US})


def completed(desired: Desired, told: ToldTenant | None) -> Desired:
    """Returns a desired version with what an operator tells; what an event has told counts first."""
    if told is None:
        return desired
    tenant_id, configuration = desired.tenant_id or told.tenant_id, desired.configuration or told.configuration
    return desired.model_copy(update={"tenant_id": tenant_id, "configuration": configuration})


def retried_journal(journal: Journal) -> Journal | None:
    """Returns the journal for an immediate retry (`lifecycle sagas retry`), or None without anything to retry.

    A rolled back or refused version is tried again, waits between tries end, and a compensation under way is followed
    by another provisioning at once.
    """
    life, phase = journal.life, journal.phase
    is_update_refused = phase is Phase.ACTIVE and life is not None and life.last_applied != journal.target
    if phase is Phase.ROLLED_BACK or is_update_refused:
        # Without a target every desired version is newer, so the next turn takes the version up again.
        return journal.model_copy(update={"target": None, "held_until": 0})
    if is_released(journal) and _told_kind(journal) == RELEASED:
        # An operator wants a life of its own beside the released one: the next generation, with names of its own.
        return journal.model_copy(update={"forgotten_at": 0})
    if journal.held:
        return journal.model_copy(update={"held_until": 0})
    if life is None or phase is Phase.ACTIVE:
        return None
    # A grace period is no wait of a step (it follows from `phase_began_at`), so a retry never shortens one.
    waiting = {name for name, log in life.steps.items() if log.not_before or log.verdict in _UNSETTLED}
    asks_again = phase is Phase.COMPENSATING and not journal.again_asked
    if not waiting and not asks_again:
        return None
    steps = {
        name: _without_wait(log).model_copy(update={"retried": True}) if name in waiting else log
        for name, log in life.steps.items()
    }
    change: dict[str, object] = {"life": life.model_copy(update={"steps": steps})}
    return journal.model_copy(update=change | ({"again_asked": True} if asks_again else {}))


def _outcome(
    journal: Journal, of: Desired, state: State, now_us: int, failure: Failure | None = None, reason: str | None = None
) -> Outcome:
    # A held version tears nothing down, whatever the phase is.
    down = journal.phase is Phase.REMOVING and state is not State.HELD
    return Outcome(
        key=of.key,
        seq=0,
        desired_version=of.version,
        tenant_id=journal.life.tenant_id if journal.life else None,
        generation=journal.generation,
        direction=Direction.DOWN if down else Direction.UP,
        state=state,
        step=failure.step if failure else None,
        error_class=failure.error_class if failure else None,
        reason=reason,
        at=now_us,
    )


def _begin_take_up(plans: Plans, journal: Journal, move: TakeUp, now_us: int) -> tuple[Journal, Outcome]:
    desired, phase = move.desired, move.phase
    change: dict[str, object] = {
        "phase": phase,
        "target": desired,
        "held": None,
        "failure": None,
        "again_asked": False,
        "told": None,
    }
    if (journal.phase is Phase.REMOVING) is not (phase is Phase.REMOVING):
        # A newer version of the same direction waits at the same step for the same outage: the time already waited
        # counts on.
        change["standstill"] = None
    if journal.target is None or desired.version > journal.target.version:
        change["rollbacks"] = 0
    if not journal.phase is phase is Phase.REMOVING:
        # A second uninstall during a teardown must not begin the grace period (`destroy_after`) anew.
        change |= {"phase_began_at": _began_us(journal, phase, now_us), "released_at": 0}
    change["remove_at"] = _remove_at(journal, desired, now_us) if phase is Phase.REMOVING else 0
    if phase is Phase.CREATING and journal.life is None:
        generation = journal.generation + 1
        change["generation"] = generation
        change["life"] = Life(
            generation=generation,
            plan=plans.current.digest,
            tenant_id=desired.tenant_id or "",
            issued_for=desired.installed_at or 0,
        )
    elif journal.life is not None:
        change["life"] = _restarted(journal.life, plans.of(journal.life), desired if desired.installed else None)
    taken_up = journal.model_copy(update=change)
    return taken_up, _outcome(taken_up, desired, State.WORKING, now_us)


def _began_us(journal: Journal, phase: Phase, now_us: int) -> int:
    """Returns the begin of a phase; of a teardown after every call of its life, whatever became of the clock since."""
    if phase is not Phase.REMOVING or journal.life is None:
        return now_us
    return max(now_us, *(log.at + 1 for log in journal.life.steps.values()), 0)


def _remove_at(journal: Journal, desired: Desired, now_us: int) -> int:
    """Returns the earliest time of the first delete; 0 for no wait, as for what a compensation was removing anyway."""
    if not desired.remove_after_s or journal.phase is Phase.COMPENSATING:
        return 0
    due_us = now_us + desired.remove_after_s * 1_000_000
    # A further uninstall may end the wait, and never begins it anew: deletes may have begun.
    return min(journal.remove_at, due_us) if journal.phase is Phase.REMOVING else due_us


def _restarted(life: Life, plan: Plan, desired: Desired | None) -> Life:
    """Returns the life at the start of a phase: no step waits, and tokens from before an uninstall are marked.

    Args:
        life: The life as last written.
        plan: The plan of the life.
        desired: The installed version taken up; None on the way down.
    """
    steps = {name: _without_wait(log) for name, log in life.steps.items()}
    change: dict[str, object] = {"steps": steps}
    if desired and desired.uninstalled_at is not None and desired.uninstalled_at > life.issued_for:
        change["issued_for"] = max(desired.installed_at or 0, desired.uninstalled_at)
        change["reissue"] = tuple(
            step.name
            for step in plan.steps
            if step.traits.reissued and steps.get(step.name, StepLog()).state is not StepState.ABSENT
        )
    return life.model_copy(update=change)


def _without_wait(log: StepLog) -> StepLog:
    # The intent stays open: a call without an answer is in doubt in every phase.
    verdict = StepVerdict.UNKNOWN if log.open else StepVerdict.DONE
    if log.open and log.verdict is StepVerdict.CONTRADICTED:
        # `next_move` treats a contradicted intent differently when other settings are wanted.
        verdict = log.verdict
    cleared = {"verdict": verdict, "tries": 0, "not_before": 0, "reason": "", "retried": False}
    return log.model_copy(update=cleared)


def _intend(journal: Journal, move: Run | Undo, now_us: int) -> Journal:
    """Returns the journal with the intent of a call: from this commit on, the step counts as maybe done."""
    log = log_of(journal, move)
    is_repeat = log.open and move.n == log.n
    begun = StepEvent.CHANGE_BEGUN if isinstance(move, Run) else StepEvent.DELETE_BEGUN
    event = StepEvent.REPEAT_BEGUN if is_repeat else begun
    change: dict[str, object] = {
        "n": move.n,
        "at": now_us,
        # A repeat begins anew, unless the system is at work on the first call: the time of the work counts on.
        "began_at": log.began_at if is_repeat and log.succeeded else now_us,
        "state": state_after(log.state, event),
        "applied": None,  # until the answer it is not known which settings are in force
    }
    if isinstance(move, Run):
        # An open create with other settings is superseded, and may still take effect: a resource found later may be
        # the older one, and is then updated (`earlier_create_open`).
        is_superseded = log.open and log.verb == Verb.CREATE and not is_repeat
        change["earlier_create_open"] = log.earlier_create_open or is_superseded
        change |= {"verb": move.verb.value, "inputs": move.inputs, "intended": move.intended}
        change["succeeded"] = log.succeeded and is_repeat
        # The former location stays in the list: a resource whose url has changed must be removed from there.
        change |= {"location": move.location, "locations": locations_of(log)}
    else:
        change |= {"verb": Verb.DELETE.value, "succeeded": log.succeeded and is_repeat}
    return with_log(journal, move, log.model_copy(update=change))


def _begin_wait(journal: Journal, desired: Desired, move: Wait, now_us: int) -> tuple[Journal, Outcome | None]:
    """Reports a held version, or a teardown that waits to destroy, once."""
    if not move.reason:
        return journal, None
    held = move.reason not in BEFORE_DESTRUCTION
    version = desired if held else journal.target or desired
    told = f"{version.version}/{journal.phase}/{move.reason}/{move.step}"
    if told == journal.told:
        return journal, None
    outcome = _outcome(journal, version, State.HELD if held else State.WORKING, now_us, reason=move.reason)
    return journal.model_copy(update={"told": told}), outcome.model_copy(update={"step": move.step})


def _begin_trouble(
    pace: Pace, journal: Journal, desired: Desired, move: Wait, now_us: int
) -> tuple[Journal, Outcome | None]:
    """Writes down that the saga stands at a step; reports the wait at its beginning and when the tenant is unwell."""
    version, step = journal.target or desired, move.step or ""
    stands = _standstill_of(journal, move, now_us)
    log = journal.life.steps.get(step) if journal.life else None
    needs_a_person = log is not None and log.verdict in _NEEDS_A_PERSON and move.reason == RETRYING
    unwell = now_us - stands.since >= pace.unwell_us
    rank = _FOR_A_PERSON if needs_a_person else _UNWELL if unwell else _WAITS
    rank = max(rank, _reported_rank(journal, version, step), key=_RANKS.index)
    told = f"{version.version}/{journal.phase}/{rank}/{step}"
    after = journal.model_copy(update={"standstill": stands, "told": told})
    # The beginning of a compensation was already reported by `GiveUp`, with the reason `compensating`.
    if told == journal.told or (rank == _WAITS and journal.phase is Phase.COMPENSATING):
        return after, None
    if journal.phase is Phase.COMPENSATING:
        reason = Phase.COMPENSATING.value
    elif needs_a_person and log is not None:
        reason = f"{step}_{log.verdict}"
    elif unwell:
        reason = f"{WAITING_FOR}{step}"
    else:
        reason = OPERATOR_REFUSED if log is not None and log.verdict is StepVerdict.OPERATOR_REFUSED else move.reason
    failed = journal.phase is Phase.REMOVING and (needs_a_person or unwell)
    outcome = _outcome(journal, version, State.FAILED if failed else State.WORKING, now_us, reason=reason)
    error_class = log.verdict.value if log and (log.open or log.tries) else None
    return after, outcome.model_copy(update={"step": step, "error_class": error_class})


def _reported_rank(journal: Journal, version: Desired, step: str) -> str:
    """Returns the rank already reported for this version, phase and step; the lowest rank if none was."""
    told_version, phase, rank, told_step = (journal.told or "///").split("/", 3)
    is_this_wait = (told_version, phase, told_step) == (str(version.version), journal.phase.value, step)
    return rank if is_this_wait and rank in _RANKS else _RANKS[0]


def is_at_rest(journal: Journal) -> bool:
    """True if the last report says that the saga has stood at a step for long, or waits for a person."""
    return _told_kind(journal) in _SHOWN_AT_REST


def _told_kind(journal: Journal) -> str:
    """Returns the kind of the last report about a wait; empty without one."""
    return "" if journal.told is None else journal.told.split("/")[2]


def _standstill_of(journal: Journal, move: Wait, now_us: int) -> Standstill:
    """Returns the standstill during a wait at a step.

    An open circuit is an outage seen now, or ends one (the system answers, and refuses the operator). A wait between
    two tries keeps the outage as the last answer left it.
    """
    stands = journal.standstill
    if stands is None or stands.step != move.step:
        stands = Standstill(step=move.step or "", since=now_us)
    if move.reason == SYSTEM_AWAY:
        return stands.model_copy(update={"outage_since": stands.outage_since or now_us, "outage_seen": now_us})
    return stands.model_copy(update={"outage_since": 0}) if move.reason == OPERATOR_REFUSED else stands


def _report_progress(
    journal: Journal, desired: Desired, move: Run | Undo, now_us: int
) -> tuple[Journal, Outcome | None]:
    """Reports that a saga shown as standing at a step has gone on to the next one."""
    if not is_at_rest(journal):
        return journal, None
    # While a standstill is recorded, the call is only another try. A call of an orphan check belongs to no life that is
    # shown.
    if journal.standstill is not None or life_of(journal, move) is not journal.life:
        return journal, None
    reason = Phase.COMPENSATING.value if journal.phase is Phase.COMPENSATING else None
    outcome = _outcome(journal, journal.target or desired, State.WORKING, now_us, reason=reason)
    change: dict[str, object] = {"told": None}
    if _told_kind(journal) in HELD_REMOVALS:
        change["released_at"] = now_us
    return journal.model_copy(update=change), outcome.model_copy(update={"step": move.step.name})


def _begin_give_up(
    plans: Plans, journal: Journal, desired: Desired, move: GiveUp, now_us: int
) -> tuple[Journal, Outcome]:
    if journal.phase is Phase.RESTORING:
        # A refused restoration ends here, and some steps may keep the refused settings: nothing is deleted because of
        # a refused update, and the next version tries again.
        return _begin_finish(plans, journal, desired, now_us)
    phase = AFTER_GIVE_UP[journal.phase]
    failure = Failure(step=move.step, error_class=move.error_class, reason=move.reason[:WORDS_MAX])
    life = journal.life and _restarted(journal.life, plans.of(journal.life), None)
    change = {"phase": phase, "failure": failure, "life": life, "standstill": None, "told": None}
    after = journal.model_copy(update=change)
    return after, _outcome(after, journal.target or desired, State.WORKING, now_us, failure, phase.value)


def _begin_finish(plans: Plans, journal: Journal, desired: Desired, now_us: int) -> tuple[Journal, Outcome]:
    phase, state = AFTER_FINISH[journal.phase]
    life = journal.life
    failure = journal.failure if journal.phase in {Phase.RESTORING, Phase.COMPENSATING} else None
    outcome = _outcome(journal, journal.target or desired, state, now_us, failure, _reason(journal))
    change: dict[str, object] = {
        "phase": phase,
        "standstill": None,
        "told": None,
        "phase_began_at": now_us,
        "released_at": 0,
    }
    if phase is Phase.ROLLED_BACK:
        seed = f"{journal.generation}/{journal.target.key if journal.target else ''}"
        wait_us = 0 if journal.again_asked else plans.pace.again_us(journal.rollbacks + 1, seed)
        if failure is not None and failure.error_class == StepVerdict.EXHAUSTED:
            # The compensation has just reached the systems, so the outage is over: no reason to wait for an hour.
            wait_us = min(wait_us, int(plans.pace.most_s * 1_000_000))
        change |= {"rollbacks": journal.rollbacks + 1, "again_at": now_us + wait_us, "again_asked": False}
    elif phase is Phase.ACTIVE:
        change["rollbacks"] = 0
    if phase in {Phase.EMPTY, Phase.ROLLED_BACK}:
        change["life"] = None
        # A life without any intent called no system, so there is nothing to look up again.
        if life is not None and any(log.n for log in life.steps.values()):
            change["orphan_checks"] = (*journal.orphan_checks, orphan_check_of(life, plans.of(life), now_us))
    elif life is not None and journal.phase is not Phase.RESTORING:
        change["life"] = life.model_copy(update={"last_applied": journal.target})
    return journal.model_copy(update=change), outcome


def _cause(failure: Failure | None) -> str | None:
    return f"{failure.step}_{failure.error_class}" if failure else None


def _reason(journal: Journal) -> str | None:
    if journal.phase is Phase.RESTORING:
        return UPDATE_REFUSED
    if journal.phase is Phase.COMPENSATING:
        return _cause(journal.failure)
    if journal.phase is Phase.REMOVING and journal.life is None and is_released(journal):
        # A recovery of an older registry reads here that the generation was released, and removes nothing of it.
        return RELEASED
    life, target = journal.life, journal.target
    if life and target and target.installed and target.tenant_id not in {None, life.tenant_id}:
        return "tenant_changed"
    return None


def orphan_check_of(life: Life, plan: Plan, now_us: int) -> OrphanCheck:
    """Returns the orphan check of an ended life: its steps in doubt, due after the longest possible call.

    Args:
        life: The ended life.
        plan: The plan of the life.
        now_us: Microseconds UTC, the end of the life.
    """
    # Fresh logs on purpose: verdicts and waits of the life must not delay the orphan check. The number `n` goes on, so
    # a delete of the orphan check never shares an idempotency key with a call of the life.
    looked_for = {
        step.name: StepLog(
            n=log.n,
            inputs=log.inputs,
            previous_outputs=log.outputs or log.previous_outputs,
            locations=locations_of(log),
            state=StepState.ABSENT if step.traits.left_behind_of(step.settings) else StepState.IN_DOUBT,
        )
        for step in plan.steps
        if (log := life.steps.get(step.name)) is not None
    }
    due_us = now_us + int(plan.longest_s * 1_000_000) + ORPHAN_CHECK_AFTER_US
    return OrphanCheck(
        due_at=due_us, life=life.model_copy(update={"steps": looked_for, "last_applied": None, "reissue": ()})
    )


def log_of(journal: Journal, move: Called) -> StepLog:
    """Returns the log of a call's step; an empty log before the step's first intent."""
    return life_of(journal, move).steps.get(move.step.name, StepLog())


def locations_of(log: StepLog) -> tuple[str, ...]:
    """Returns every `url` with a possible resource of a step, the newest last."""
    return tuple(dict.fromkeys((*log.locations, *([log.location] if log.location else []))))


def life_of(journal: Journal, move: Called) -> Life:
    """Returns the life of a call: the current life, or the ended life of an orphan check."""
    if journal.life is not None and journal.life.generation == move.generation:
        return journal.life
    return next(check.life for check in journal.orphan_checks if check.life.generation == move.generation)


def with_log(journal: Journal, move: Called, log: StepLog) -> Journal:
    """Returns the journal with a new log for the step of a call."""
    life = life_of(journal, move)
    changed = life.model_copy(update={"steps": {**life.steps, move.step.name: log}})
    if life is journal.life:
        return journal.model_copy(update={"life": changed})
    checks = tuple(s.model_copy(update={"life": changed}) if s.life is life else s for s in journal.orphan_checks)
    return journal.model_copy(update={"orphan_checks": checks})
