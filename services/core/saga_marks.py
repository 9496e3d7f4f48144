"""The mark before a move: a journal goes in, a journal with the move written down comes out, and perhaps an outcome.

Rule: `decide` is what a worker asks. It goes on by itself as far as no call is needed and returns one commit's worth.
The mark after a call is `services.core.saga_answers`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.outcome import WORDS_MAX, Direction, Outcome, State
from schemas.saga import Failure, Journal, Life, Phase, Presence, StepLog, Sweep, Verdict
from schemas.tenant import Desired
from services.core.calls import Verb
from services.core.moves import Called, Finish, GiveUp, Move, Observe, Run, Swept, Take, Undo, Wait
from services.core.plan import LEFT_BEHIND, REISSUED, Plan
from services.core.saga import GRACE, HELD_US, NONE, PARKED, Barred, Plans, next_move

SWEEP_AFTER_US: Final = 60_000_000
"""Beside the longest call: when a life that ended is looked up again (spec section 6)."""

FAILS: Final[Mapping[Phase, Phase]] = {
    Phase.CREATING: Phase.COMPENSATING,
    Phase.UPDATING: Phase.RESTORING,
    Phase.COMPENSATING: Phase.COMPENSATION_FAILED,
    Phase.REMOVING: Phase.REMOVAL_FAILED,
}
"""What a phase becomes when a step of it is given up; a restoration ends as if it had succeeded."""

ENDS: Final[Mapping[Phase, tuple[Phase, State]]] = {
    Phase.CREATING: (Phase.ACTIVE, State.DONE),
    Phase.UPDATING: (Phase.ACTIVE, State.DONE),
    Phase.RESTORING: (Phase.ACTIVE, State.DONE),
    Phase.COMPENSATING: (Phase.ROLLED_BACK, State.ROLLED_BACK),
    Phase.REMOVING: (Phase.EMPTY, State.DONE),
}
"""What a phase becomes, and what is said, when it has done all it had to."""

_OUR_OWN: Final = frozenset({GRACE, "retrying", "system_away"})
"""Reasons of waits that no other tenant, and no other version, stands behind."""

_LED_NOWHERE: Final = frozenset({Verdict.RETRYABLE, Verdict.UNKNOWN})
_DOWN: Final = frozenset({Phase.REMOVING, Phase.REMOVAL_FAILED})


@dataclass(frozen=True, slots=True)
class Turn:
    """One commit's worth: the journal to write, what to say, and then the call to make or the time to wait for."""

    journal: Journal
    move: Called | Wait
    outcomes: tuple[Outcome, ...]


def decide(plans: Plans, journal: Journal, desired: Desired, now_us: int, barred: Barred = NONE) -> Turn:
    """Go on until a call or a wait is due; the intent of that call is in the journal returned."""
    said: list[Outcome] = []
    while True:
        move = next_move(plans, journal, desired, now_us, barred)
        journal, outcome = begin(plans, journal, desired, move, now_us)
        if outcome is not None:
            # Work that ended in the same breath was never under way.
            said = [earlier for earlier in said if earlier.state is not State.WORKING] + [outcome]
        if isinstance(move, Run | Observe | Undo | Wait):
            break
    if said and said[-1].state is State.WORKING and said[-1].step is None:
        said[-1] = said[-1].model_copy(update={"step": move.step if isinstance(move, Wait) else move.step.name})
    numbered = tuple(o.model_copy(update={"seq": journal.seq + i}) for i, o in enumerate(said, 1))
    return Turn(journal.model_copy(update={"seq": journal.seq + len(said)}), move, numbered)


def begin(  # noqa: PLR0911 - one case a move
    plans: Plans, journal: Journal, desired: Desired, move: Move, now_us: int
) -> tuple[Journal, Outcome | None]:
    """Write a move down before it is made; the outcome, if one is to be said, has no number yet."""
    match move:
        case Take():
            return _begin_take(plans, journal, move, now_us)
        case Run() | Undo():
            return _intend(journal, move, now_us), None
        case Observe():
            return journal, None
        case Wait():
            return _begin_wait(journal, desired, move, now_us)
        case GiveUp():
            return _begin_give_up(plans, journal, desired, move, now_us)
        case Finish():
            return _begin_finish(plans, journal, desired, now_us)
        case Swept():
            left = tuple(sweep for sweep in journal.sweeps if sweep.life.generation != move.generation)
            return journal.model_copy(update={"sweeps": left}), None


def hold(journal: Journal, desired: Desired, reason: str, now_us: int) -> Journal:
    """Keep a version waiting for another tenant to give way."""
    return journal.model_copy(update={"held": reason, "held_version": desired.version, "held_until": now_us + HELD_US})


def redriven(journal: Journal) -> Journal | None:
    """The journal with which a saga begins its turn again, as an operator wishes; None where nothing is left to do.

    What is parked moves again, what was rolled back or refused is tried again, and what waits waits no longer.
    """
    life, phase = journal.life, journal.phase
    if phase in PARKED:
        return journal.model_copy(update={"seen": -1})
    refused = phase is Phase.ACTIVE and life is not None and life.good != journal.target
    if phase is Phase.ROLLED_BACK or refused:
        return journal.model_copy(update={"target": None, "held_until": 0})
    if journal.held:
        return journal.model_copy(update={"held_until": 0})
    if life is None or phase is Phase.ACTIVE:
        return None
    # No wish shortens a grace period.
    waits = {name for name, log in life.steps.items() if log.not_before or log.verdict in _LED_NOWHERE}
    if not waits:
        return None
    rested = {name: _rested(log) if name in waits else log for name, log in life.steps.items()}
    return journal.model_copy(update={"life": life.model_copy(update={"steps": rested})})


def _outcome(
    journal: Journal, of: Desired, state: State, now_us: int, failure: Failure | None = None, reason: str | None = None
) -> Outcome:
    down = journal.phase in _DOWN and state is not State.HELD
    return Outcome(
        key=of.key,
        seq=0,
        desired_version=of.version,
        generation=journal.generation,
        direction=Direction.DOWN if down else Direction.UP,
        state=state,
        step=failure.step if failure else None,
        error_class=failure.error_class if failure else None,
        reason=reason,
        at=now_us,
    )


def _begin_take(plans: Plans, journal: Journal, move: Take, now_us: int) -> tuple[Journal, Outcome]:
    desired, phase = move.desired, move.phase
    retargets = not (desired.installed and phase in {Phase.COMPENSATING, Phase.REMOVING})
    change: dict[str, object] = {"phase": phase, "seen": desired.version, "failure": None, "told": None}
    if phase is Phase.COMPENSATING:
        change["failure"] = journal.failure
    if retargets:
        change |= {"target": desired, "held": None}
    if not (journal.phase in _DOWN and phase in _DOWN):
        change["turned_at"] = now_us
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
        change["life"] = _again(
            journal.life, plans.of(journal.life), desired if desired.installed and retargets else None
        )
    taken = journal.model_copy(update=change)
    return taken, _outcome(taken, taken.target or desired, State.WORKING, now_us)


def _again(life: Life, plan: Plan, desired: Desired | None) -> Life:
    """A life at the start of another turn: its retries are whole again; tokens older than an uninstall are marked."""
    steps = {name: _rested(log) for name, log in life.steps.items()}
    change: dict[str, object] = {"steps": steps}
    if desired and desired.uninstalled_at is not None and desired.uninstalled_at > life.issued_for:
        change["issued_for"] = max(desired.installed_at or 0, desired.uninstalled_at)
        change["reissue"] = tuple(
            step.name
            for step in plan.steps
            if step.kind in REISSUED and steps.get(step.name, StepLog()).there is not Presence.ABSENT
        )
    return life.model_copy(update=change)


def _rested(log: StepLog) -> StepLog:
    verdict = Verdict.UNKNOWN if log.open else Verdict.DONE
    return log.model_copy(update={"verdict": verdict, "answers": 0, "silences": 0, "not_before": 0, "reason": ""})


def _intend(journal: Journal, move: Run | Undo, now_us: int) -> Journal:
    log = log_of(journal, move)
    change: dict[str, object] = {
        "n": move.n,
        "at": now_us,
        "open": True,
        "read_back": False,
        "lost": log.open and move.n == log.n,
        "applied": None,
    }
    if isinstance(move, Run):
        change["older"] = log.older or (log.open and log.verb == Verb.CREATE and move.n != log.n)
        change |= {"verb": move.verb.value, "inputs": move.inputs, "intended": move.intended}
        change |= {"place": move.place, "places": places_of(log)}
        if log.there is Presence.ABSENT:
            change["there"] = Presence.ASKED
    else:
        change["verb"] = Verb.DELETE.value
        if log.open and log.there is Presence.ASKED:
            change["there"] = Presence.MAYBE
    return with_log(journal, move, log.model_copy(update=change))


def _begin_wait(journal: Journal, desired: Desired, move: Wait, now_us: int) -> tuple[Journal, Outcome | None]:
    if not move.reason:
        return journal, None
    held = move.reason not in _OUR_OWN
    of = desired if held else journal.target or desired
    # Who finds out for the others whether a system is well again is turned away and retries by turns: said once.
    what = "waits" if move.reason in {"retrying", "system_away"} else move.reason
    told = f"{of.version}/{journal.phase}/{what}/{move.step}"
    if told == journal.told:
        return journal, None
    log = journal.life.steps.get(move.step or "") if journal.life else None
    said = _outcome(journal, of, State.HELD if held else State.WORKING, now_us, reason=move.reason)
    error_class = log.verdict.value if log and move.reason == "retrying" else None
    said = said.model_copy(update={"step": move.step, "error_class": error_class})
    return journal.model_copy(update={"told": told}), said


def _begin_give_up(
    plans: Plans, journal: Journal, desired: Desired, move: GiveUp, now_us: int
) -> tuple[Journal, Outcome]:
    if journal.phase is Phase.RESTORING:
        # It stays as it is, in part with the settings that were refused: the next version tries again.
        return _begin_finish(plans, journal, desired, now_us)
    phase = FAILS[journal.phase]
    failure = Failure(step=move.step, error_class=move.error_class, reason=move.reason[:WORDS_MAX])
    # Why it was to be undone is said in the end, also when undoing it took more than one turn.
    kept = journal.failure if journal.phase is Phase.COMPENSATING and journal.failure else failure
    life = journal.life and _again(journal.life, plans.of(journal.life), None)
    after = journal.model_copy(update={"phase": phase, "failure": kept, "life": life, "told": None})
    of = journal.target or desired
    if phase in PARKED:
        # A version that made it move again, and did not become its target, has no other answer.
        of = of.model_copy(update={"version": max(of.version, journal.seen)})
        return after, _outcome(after, of, State.FAILED, now_us, failure, _cause(failure))
    return after, _outcome(after, of, State.WORKING, now_us, failure, phase.value)


def _begin_finish(plans: Plans, journal: Journal, desired: Desired, now_us: int) -> tuple[Journal, Outcome]:
    phase, state = ENDS[journal.phase]
    life = journal.life
    failure = journal.failure if journal.phase in {Phase.RESTORING, Phase.COMPENSATING} else None
    said = _outcome(journal, journal.target or desired, state, now_us, failure, _reason(journal))
    change: dict[str, object] = {"phase": phase, "told": None, "turned_at": now_us}
    if phase in {Phase.EMPTY, Phase.ROLLED_BACK}:
        change["life"] = None
        if life is not None and any(log.n for log in life.steps.values()):
            change["sweeps"] = (*journal.sweeps, sweep_of(life, plans.of(life), now_us))
    elif life is not None and journal.phase is not Phase.RESTORING:
        change["life"] = life.model_copy(update={"good": journal.target})
    return journal.model_copy(update=change), said


def _cause(failure: Failure | None) -> str | None:
    return f"{failure.step}_{failure.error_class}" if failure else None


def _reason(journal: Journal) -> str | None:
    if journal.phase is Phase.RESTORING:
        return "update_refused"
    if journal.phase is Phase.COMPENSATING:
        return _cause(journal.failure)
    life, target = journal.life, journal.target
    if life and target and target.installed and target.tenant_id not in {None, life.tenant_id}:
        return "tenant_changed"
    return None


def sweep_of(life: Life, plan: Plan, now_us: int) -> Sweep:
    """What is to be looked up again of a life that is over; the plan is its own."""
    looked_for = {
        step.name: StepLog(
            n=log.n,
            inputs=log.inputs,
            former=log.outputs or log.former,
            places=places_of(log),
            there=Presence.ABSENT if step.kind in LEFT_BEHIND else Presence.MAYBE,
        )
        for step in plan.steps
        if (log := life.steps.get(step.name)) is not None
    }
    due_us = now_us + int(plan.longest_s * 1_000_000) + SWEEP_AFTER_US
    return Sweep(due_at=due_us, life=life.model_copy(update={"steps": looked_for, "good": None, "reissue": ()}))


def log_of(journal: Journal, move: Called) -> StepLog:
    """The marks of the step that a call is for."""
    return life_of(journal, move).steps.get(move.step.name, StepLog())


def places_of(log: StepLog) -> tuple[str, ...]:
    """Every place where a step's resource may be."""
    return tuple(dict.fromkeys((*log.places, *([log.place] if log.place else []))))


def life_of(journal: Journal, move: Called) -> Life:
    """The life a call belongs to: the one that is on, or one that is being looked up again."""
    if journal.life is not None and journal.life.generation == move.generation:
        return journal.life
    return next(sweep.life for sweep in journal.sweeps if sweep.life.generation == move.generation)


def with_log(journal: Journal, move: Called, log: StepLog) -> Journal:
    """The journal with these marks for the step that a call is for."""
    life = life_of(journal, move)
    changed = life.model_copy(update={"steps": {**life.steps, move.step.name: log}})
    if life is journal.life:
        return journal.model_copy(update={"life": changed})
    sweeps = tuple(s.model_copy(update={"life": changed}) if s.life is life else s for s in journal.sweeps)
    return journal.model_copy(update={"sweeps": sweeps})
