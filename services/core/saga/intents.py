"""The mark before a move: a journal goes in, a journal with the move written down comes out, and perhaps an outcome.

Rule: `decide` is what a worker asks. It goes on by itself as far as no call is needed and returns one commit's worth.
The mark after a call is `services.core.saga.results`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.outcome import WORDS_MAX, Direction, Outcome, State
from schemas.saga import Failure, Journal, Life, Phase, Presence, Standstill, StepLog, StepVerdict, Sweep
from schemas.tenant import Desired
from services.core.saga.calls import Verb
from services.core.saga.moves import Called, Finish, GiveUp, Move, Observe, Run, Swept, Take, Undo, Wait
from services.core.saga.next_move import (
    HELD_US,
    NONE,
    RETRYING,
    SYSTEM_AWAY,
    SYSTEM_REFUSES,
    TROUBLE,
    Barred,
    Plans,
    next_move,
)
from services.core.saga.pace import Pace
from services.core.saga.plan import LEFT_BEHIND, REISSUED, Plan
from services.core.unwell import GRACE, WAITING_FOR

SWEEP_AFTER_US: Final = 60_000_000
"""Beside the longest call: when a life that ended is looked up again."""

FAILS: Final[Mapping[Phase, Phase]] = {
    Phase.CREATING: Phase.COMPENSATING,
    Phase.UPDATING: Phase.RESTORING,
}
"""What a phase becomes when a step of it is given up; a restoration ends as if it had succeeded.

Nothing is given up on the way down: a compensation or a teardown that stands goes on by itself."""

ENDS: Final[Mapping[Phase, tuple[Phase, State]]] = {
    Phase.CREATING: (Phase.ACTIVE, State.DONE),
    Phase.UPDATING: (Phase.ACTIVE, State.DONE),
    Phase.RESTORING: (Phase.ACTIVE, State.DONE),
    Phase.COMPENSATING: (Phase.ROLLED_BACK, State.ROLLED_BACK),
    Phase.REMOVING: (Phase.EMPTY, State.DONE),
}
"""What a phase becomes, and what is said, when it has done all it had to."""

_LED_NOWHERE: Final = frozenset({
    StepVerdict.RETRYABLE, StepVerdict.UNKNOWN, StepVerdict.REFUSED, StepVerdict.BLOCKED, StepVerdict.CONTRADICTED,
})  # fmt: skip
_FOR_A_PERSON: Final = frozenset({StepVerdict.REFUSED, StepVerdict.CONTRADICTED})
"""Answers that time alone does not mend."""
_RANKS: Final = ("waits", "unwell", "parked")
"""What is said of a saga that stands, the least first: a later wait of the same step never says less."""
_SHOWN_AT_REST: Final = frozenset(_RANKS[1:])


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
            return _on_again(_intend(journal, move, now_us), desired, move, now_us)
        case Observe():
            return journal, None
        case Wait() if move.reason in TROUBLE:
            return _begin_trouble(plans.pace, journal, desired, move, now_us)
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

    What was rolled back or refused is tried again, what waits waits no longer, and a compensation that is under way is
    followed by another provisioning at once.
    """
    life, phase = journal.life, journal.phase
    refused = phase is Phase.ACTIVE and life is not None and life.good != journal.target
    if phase is Phase.ROLLED_BACK or refused:
        return journal.model_copy(update={"target": None, "held_until": 0})
    if journal.held:
        return journal.model_copy(update={"held_until": 0})
    if life is None or phase is Phase.ACTIVE:
        return None
    # No wish shortens a grace period.
    waits = {name for name, log in life.steps.items() if log.not_before or log.verdict in _LED_NOWHERE}
    asks = phase is Phase.COMPENSATING and not journal.again_asked
    if not waits and not asks:
        return None
    rested = {name: _rested(log) if name in waits else log for name, log in life.steps.items()}
    change: dict[str, object] = {"life": life.model_copy(update={"steps": rested})}
    return journal.model_copy(update=change | ({"again_asked": True} if asks else {}))


def _outcome(
    journal: Journal, of: Desired, state: State, now_us: int, failure: Failure | None = None, reason: str | None = None
) -> Outcome:
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


def _begin_take(plans: Plans, journal: Journal, move: Take, now_us: int) -> tuple[Journal, Outcome]:
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
        change["standstill"] = None  # on the same way another version waits for the same step, and for as long
    if journal.target is None or desired.version > journal.target.version:
        change["rollbacks"] = 0
    if not journal.phase is phase is Phase.REMOVING:
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
        change["life"] = _again(journal.life, plans.of(journal.life), desired if desired.installed else None)
    taken = journal.model_copy(update=change)
    return taken, _outcome(taken, desired, State.WORKING, now_us)


def _again(life: Life, plan: Plan, desired: Desired | None) -> Life:
    """A life at the start of another turn: no step waits any more; tokens older than an uninstall are marked."""
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
    verdict = StepVerdict.UNKNOWN if log.open else StepVerdict.DONE
    if log.open and log.verdict is StepVerdict.CONTRADICTED:
        verdict = log.verdict
    return log.model_copy(update={"verdict": verdict, "tries": 0, "not_before": 0, "reason": ""})


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
        change["succeeded"] = log.succeeded and log.open and move.n == log.n
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
    held = move.reason != GRACE
    of = desired if held else journal.target or desired
    told = f"{of.version}/{journal.phase}/{move.reason}/{move.step}"
    if told == journal.told:
        return journal, None
    said = _outcome(journal, of, State.HELD if held else State.WORKING, now_us, reason=move.reason)
    return journal.model_copy(update={"told": told}), said.model_copy(update={"step": move.step})


def _begin_trouble(
    pace: Pace, journal: Journal, desired: Desired, move: Wait, now_us: int
) -> tuple[Journal, Outcome | None]:
    """Write down that the saga stands at a step, and say so once at its beginning and once when it is unwell."""
    of, step = journal.target or desired, move.step or ""
    stands = _standstill(journal, move, now_us)
    log = journal.life.steps.get(step) if journal.life else None
    parked = log is not None and log.verdict in _FOR_A_PERSON and move.reason == RETRYING
    unwell = now_us - stands.since >= pace.unwell_us
    # A wait at the gate and a wait between two tries take turns: said once.
    what = "parked" if parked else "unwell" if unwell else "waits"
    what = max(what, _said_of(journal, of, step), key=_RANKS.index)
    told = f"{of.version}/{journal.phase}/{what}/{step}"
    after = journal.model_copy(update={"standstill": stands, "told": told})
    # A compensation was said when it began.
    if told == journal.told or (what == "waits" and journal.phase is Phase.COMPENSATING):
        return after, None
    if journal.phase is Phase.COMPENSATING:
        reason = Phase.COMPENSATING.value
    elif parked and log is not None:
        reason = f"{step}_{log.verdict}"
    elif unwell:
        reason = f"{WAITING_FOR}{step}"
    else:
        reason = SYSTEM_REFUSES if log is not None and log.verdict is StepVerdict.BLOCKED else move.reason
    failed = journal.phase is Phase.REMOVING and (parked or unwell)
    said = _outcome(journal, of, State.FAILED if failed else State.WORKING, now_us, reason=reason)
    error_class = log.verdict.value if log and (log.open or log.tries) else None
    return after, said.model_copy(update={"step": step, "error_class": error_class})


def _said_of(journal: Journal, of: Desired, step: str) -> str:
    """Returns what was said of this wait already: answers of two sorts by turns must not be said by turns."""
    version, phase, what, at = (journal.told or "///").split("/", 3)
    of_this_wait = (version, phase, at) == (str(of.version), journal.phase.value, step)
    return what if of_this_wait and what in _RANKS else _RANKS[0]


def is_at_rest(journal: Journal) -> bool:
    """True if what was said last is that the saga stands at a step for long, or until a person acts."""
    return journal.told is not None and journal.told.split("/")[2] in _SHOWN_AT_REST


def _standstill(journal: Journal, move: Wait, now_us: int) -> Standstill:
    """Returns where the saga stands with this wait; what its last answer said of an outage stays."""
    stands = journal.standstill
    if stands is None or stands.step != move.step:
        stands = Standstill(step=move.step or "", since=now_us)
    if move.reason == SYSTEM_AWAY:
        return stands.model_copy(update={"outage_since": stands.outage_since or now_us, "outage_seen": now_us})
    return stands.model_copy(update={"outage_since": 0}) if move.reason == SYSTEM_REFUSES else stands


def _on_again(journal: Journal, desired: Desired, move: Run | Undo, now_us: int) -> tuple[Journal, Outcome | None]:
    """Say that a saga that was shown as standing at a step has gone on to another."""
    if not is_at_rest(journal):
        return journal, None
    if journal.standstill is not None or life_of(journal, move) is not journal.life:
        return journal, None
    reason = Phase.COMPENSATING.value if journal.phase is Phase.COMPENSATING else None
    said = _outcome(journal, journal.target or desired, State.WORKING, now_us, reason=reason)
    return journal.model_copy(update={"told": None}), said.model_copy(update={"step": move.step.name})


def _begin_give_up(
    plans: Plans, journal: Journal, desired: Desired, move: GiveUp, now_us: int
) -> tuple[Journal, Outcome]:
    if journal.phase is Phase.RESTORING:
        # It stays as it is, in part with the settings that were refused: the next version tries again.
        return _begin_finish(plans, journal, desired, now_us)
    phase = FAILS[journal.phase]
    failure = Failure(step=move.step, error_class=move.error_class, reason=move.reason[:WORDS_MAX])
    life = journal.life and _again(journal.life, plans.of(journal.life), None)
    change = {"phase": phase, "failure": failure, "life": life, "standstill": None, "told": None}
    after = journal.model_copy(update=change)
    return after, _outcome(after, journal.target or desired, State.WORKING, now_us, failure, phase.value)


def _begin_finish(plans: Plans, journal: Journal, desired: Desired, now_us: int) -> tuple[Journal, Outcome]:
    phase, state = ENDS[journal.phase]
    life = journal.life
    failure = journal.failure if journal.phase in {Phase.RESTORING, Phase.COMPENSATING} else None
    said = _outcome(journal, journal.target or desired, state, now_us, failure, _reason(journal))
    change: dict[str, object] = {"phase": phase, "standstill": None, "told": None, "turned_at": now_us}
    if phase is Phase.ROLLED_BACK:
        seed = f"{journal.generation}/{journal.target.key if journal.target else ''}"
        wait_us = 0 if journal.again_asked else plans.pace.again_us(journal.rollbacks + 1, seed)
        if failure is not None and failure.error_class == StepVerdict.EXHAUSTED:
            # The outage is over: what was given up for it was undone just now.
            wait_us = min(wait_us, int(plans.pace.most_s * 1_000_000))
        change |= {"rollbacks": journal.rollbacks + 1, "again_at": now_us + wait_us, "again_asked": False}
    elif phase is Phase.ACTIVE:
        change["rollbacks"] = 0
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
