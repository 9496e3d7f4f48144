"""The mark after a call: what an answer of an outside system does to the journal of its step.

Rule: an answer changes what is known and nothing else. `Done` and `Absent` settle the step. `Retryable` leaves it as it
was, and `Unknown` leaves the intent open, to be read back by name; both use up the step's `give_up_after`, unless the
system answered with success. `Refused` ends the step's turn on the way up. `RefusedUs` and `Contradicted` wait for a
person and use up nothing.
"""

from typing import Any, Final

from schemas.saga import Journal, Presence, Standstill, StepLog, StepVerdict
from services.core.saga.calls import Absent, Answer, Contradicted, Done, Refused, RefusedUs, Retryable, Unknown, Verb
from services.core.saga.intents import log_of, with_log
from services.core.saga.moves import Called, Observe, Run, Undo
from services.core.saga.next_move import HELD_US
from services.core.saga.pace import Pace

_BY_HAND: Final = frozenset({StepVerdict.REFUSED, StepVerdict.BLOCKED, StepVerdict.CONTRADICTED})
"""Answers after which an ended life is looked up again at the slow pace: nobody is left to be told of them."""


def settle(journal: Journal, move: Called, answer: Answer, now_us: int, pace: Pace) -> Journal:
    """Write an answer down.

    Args:
        journal: With the move's intent in it.
        move: The call that was made.
        answer: Its outputs hold no open secret: what is declared secret was sealed before.
        now_us: Microseconds UTC.
        pace: Of waits.
    """
    log = log_of(journal, move)
    if isinstance(move, Observe):
        change = _found_again(log, answer) if log.doubted and not log.open else _seen(log, answer)
    elif isinstance(move, Undo):
        change = _undone(log, answer)
    else:
        change = _done(log, answer)
    if isinstance(move, Run):
        change |= _placed(log, answer)
    after = log.model_copy(update={"at": now_us} | change)
    seed = f"{move.generation}/{move.step.name}/{after.n}/{journal.target.key if journal.target else ''}"
    after = _paced(after, answer, now_us, pace, seed)
    if not isinstance(move, Observe):
        journal = journal.model_copy(update={"lines": journal.lines + 1})
    journal = _standing(_without_reissue(journal, move, after), move, after, answer, now_us)
    return with_log(journal, move, _kept_trying(journal, move, after, now_us))


def _done(log: StepLog, answer: Answer) -> dict[str, Any]:
    """After a create or an update."""
    match answer:
        case Done(outputs):
            settled = _settled(log, Presence.PRESENT, {**log.outputs, **outputs})
            # What an older create made may be what was found: it is given the newest settings.
            return settled | {"applied": None} if log.older else settled
        case Absent():
            # It was to be changed and is not there: the next move makes it.
            return _answered(log, StepVerdict.RETRYABLE, "absent") | {"open": False, "there": Presence.ABSENT}
        case Refused(reason, _, partly):
            there = Presence.MAYBE if partly and log.there is Presence.ASKED else log.there
            return {"open": False, "verdict": StepVerdict.REFUSED, "reason": reason, "there": there}
        case Unknown(succeeded=True) if log.lost and log.verdict is StepVerdict.CONTRADICTED:
            # Asked again, and answered with success again: what it shows is still not known to be otherwise.
            return _answered(log, log.verdict, log.reason) | {"read_back": False}
        case Unknown(succeeded=True):
            return _led_nowhere(log, answer) | {"succeeded": True}
        case _:
            return _led_nowhere(log, answer)


def _placed(log: StepLog, answer: Answer) -> dict[str, Any]:
    """Where it may be after a create or an update."""
    if isinstance(answer, Done):
        return {"places": ()}
    may_be_there = log.lost or isinstance(answer, Unknown) or (isinstance(answer, Refused) and answer.partly)
    return {} if may_be_there else {"place": None}


def _undone(log: StepLog, answer: Answer) -> dict[str, Any]:
    """After a delete."""
    match answer:
        case Done() | Absent():
            return _settled(log, Presence.ABSENT, {})
        case Refused(reason):
            if log.there is Presence.ASKED:
                # Whoever refuses to make a thing may refuse to remove it in the same words; it never was there.
                return _settled(log, Presence.ABSENT, {})
            return _answered(log, StepVerdict.REFUSED, reason) | {"open": False}
        case Contradicted(anothers=True) if log.there is Presence.ASKED:
            # The name is taken by somebody else's resource, and every answer so far said that ours was never made.
            return _settled(log, Presence.ABSENT, {})
        case _:
            return _led_nowhere(log, answer)


def _led_nowhere(log: StepLog, answer: Answer) -> dict[str, Any]:
    """After a create, an update or a delete that settles nothing: the same intent is repeated where it may be lost."""
    match answer:
        case Unknown(reason):
            return _answered(log, StepVerdict.UNKNOWN, reason) | {"read_back": False}
        case RefusedUs(reason):
            return _answered(log, StepVerdict.BLOCKED, reason) | {"open": log.lost, "read_back": log.lost}
        case Contradicted(reason):
            return _answered(log, StepVerdict.CONTRADICTED, reason) | {"open": log.lost, "read_back": log.lost}
        case Retryable(reason):
            return _answered(log, StepVerdict.RETRYABLE, reason) | {"open": log.lost, "read_back": log.lost}
    raise AssertionError(f"{type(answer).__name__} settles the step")


def _seen(log: StepLog, answer: Answer) -> dict[str, Any]:  # noqa: PLR0911 - one line a case, in order
    """After a look by name: of a lost call, or of something that may be there."""
    match answer:
        case Done():
            return _found(log, answer)
        case Absent() if log.open and log.verb == Verb.CREATE:
            return _answered(log, StepVerdict.UNKNOWN, log.reason) | {"read_back": True, "there": Presence.MAYBE}
        case Absent():
            return _settled(log, Presence.ABSENT, {})
        case Refused() if log.open:
            there = Presence.MAYBE if log.there is Presence.ASKED else log.there
            return _answered(log, StepVerdict.UNKNOWN, log.reason) | {"read_back": True, "there": there}
        case Refused():
            return {"there": Presence.ASKED}
        case RefusedUs(reason):
            return _answered(log, StepVerdict.BLOCKED, reason)
        case Contradicted(reason):
            return _answered(log, StepVerdict.CONTRADICTED, reason)
        case Retryable(reason) | Unknown(reason):
            return _answered(log, StepVerdict.UNKNOWN if log.open else StepVerdict.RETRYABLE, reason)


def _found(log: StepLog, answer: Done) -> dict[str, Any]:
    """After a look that shows our resource."""
    outputs = {**log.outputs, **answer.outputs}
    if not log.open:
        return {"there": Presence.PRESENT, "outputs": outputs}
    settled = _settled(log, Presence.PRESENT, outputs)
    if log.verb == Verb.CREATE:
        # It may come from an older create, or be changed since: the next move gives it the newest settings.
        return settled | {"applied": None} if log.older or answer.differs else settled
    contradicts = log.verb == Verb.UPDATE and log.succeeded
    if contradicts and not answer.differs:
        return settled
    verdict = StepVerdict.CONTRADICTED if contradicts else StepVerdict.UNKNOWN
    reason = f"{answer.differs} is not as it was asked" if contradicts else log.reason
    found: dict[str, Any] = {"read_back": True, "there": Presence.PRESENT, "outputs": outputs}
    return _answered(log, verdict, reason) | found


def _found_again(log: StepLog, answer: Answer) -> dict[str, Any]:
    """After a look at what may be there for long, at any of its places: a refusal to show it is none to have it."""
    match answer:
        case Done(outputs):
            alone = {"doubted": False, "place": outputs.get("url", log.place), "places": ()}
            return _seen(log, answer) | alone
        case Refused(reason):
            return _answered(log, StepVerdict.REFUSED, reason)
        case _:
            return _seen(log, answer)


def _settled(log: StepLog, there: Presence, outputs: dict[str, Any]) -> dict[str, Any]:
    present = there is Presence.PRESENT
    return {
        "open": False,
        "read_back": False,
        "lost": False,
        "older": False,
        "doubted": False,
        "verdict": StepVerdict.DONE,
        "there": there,
        "applied": log.intended if present else None,
        "outputs": outputs,
        "former": log.former if present else log.outputs or log.former,
        "succeeded": False,
        "tries": 0,
        "not_before": 0,
        "reason": "",
    }


def _answered(log: StepLog, verdict: StepVerdict, reason: str) -> dict[str, Any]:
    return {"verdict": verdict, "reason": reason, "tries": log.tries + 1}


def _paced(log: StepLog, answer: Answer, now_us: int, pace: Pace, seed: str) -> StepLog:
    """The step with the wait before its next call."""
    if isinstance(answer, Done | Absent) or not log.tries:
        return log
    asked_s = answer.retry_after_s if isinstance(answer, Retryable | Unknown) else None
    if isinstance(answer, RefusedUs):
        asked_s = pace.most_s  # no wait helps but a person's: whether that was done is asked once a minute
    return log.model_copy(update={"not_before": now_us + pace.wait_us(log.tries, seed, asked_s)})


def _standing(journal: Journal, move: Called, log: StepLog, answer: Answer, now_us: int) -> Journal:
    """The journal with where the life that is on stands after an answer, and since when its system is away."""
    life, stands = journal.life, journal.standstill
    if life is None or life.generation != move.generation:
        return journal
    if not log.tries or log.verdict is StepVerdict.DONE:
        moves_on = stands is not None and stands.step == move.step.name and not log.open
        return journal.model_copy(update={"standstill": None}) if moves_on else journal
    if stands is None or stands.step != move.step.name:
        stands = Standstill(step=move.step.name, since=now_us)
    match answer:
        case Retryable(well=False) | Unknown(succeeded=False):
            seen = {"outage_since": stands.outage_since or now_us, "outage_seen": now_us}
        case RefusedUs() | Contradicted() | Unknown():
            seen = {"outage_since": 0}
        case _:
            seen = {"outage_since": 0} if log.verdict is StepVerdict.CONTRADICTED else {}
    return journal.model_copy(update={"standstill": stands.model_copy(update=seen)})


def _without_reissue(journal: Journal, move: Called, log: StepLog) -> Journal:
    life = journal.life
    if life is None or life.generation != move.generation or log.there is not Presence.ABSENT:
        return journal
    left = tuple(name for name in life.reissue if name != move.step.name)
    return journal.model_copy(update={"life": life.model_copy(update={"reissue": left})})


def _kept_trying(journal: Journal, move: Called, log: StepLog, now_us: int) -> StepLog:
    """What appeared after a life ended is tried for as long as it is there: nobody is left to be told of a refusal."""
    is_on = journal.life is not None and journal.life.generation == move.generation
    if is_on or log.verdict not in _BY_HAND:
        return log
    return log.model_copy(update={"verdict": StepVerdict.RETRYABLE, "tries": 0, "not_before": now_us + HELD_US})
