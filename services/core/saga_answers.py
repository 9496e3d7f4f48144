"""The mark after a call: what an answer of an outside system does to the journal of its step.

Rule: an answer changes what is known and nothing else. `Done` and `Absent` settle; `Retryable` costs a try unless
nobody answered; `Refused` ends the step's turn; `Unknown` leaves the intent open, to be read back by name, and costs a
try when somebody did answer.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from schemas.saga import Journal, Presence, StepLog, Verdict
from services.core.calls import Absent, Answer, Done, Refused, Retryable, Unknown, Verb
from services.core.moves import Called, Observe, Run, Undo
from services.core.saga import HELD_US
from services.core.saga_marks import log_of, with_log


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait after an answer that led nowhere: doubled each time from the first, full jitter, a limit."""

    first_s: float = 1.0
    most_s: float = 60.0

    def wait_us(self, attempt: int, seed: str, asked_s: float | None) -> int:
        """The wait before attempt `attempt + 1`; `seed` decides the jitter, `asked_s` is what the system asked for."""
        jitter = int.from_bytes(sha256(f"{seed}/{attempt}".encode()).digest()[:4], "big") / 2**32
        wait_s = min(self.most_s, self.first_s * 2 ** min(attempt - 1, 16)) * jitter
        return int(min(self.most_s, max(wait_s, asked_s or 0.0)) * 1_000_000)


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
    if after.answers >= move.step.retries and after.verdict is not Verdict.REFUSED:
        after = after.model_copy(update={"verdict": Verdict.EXHAUSTED})
    if not isinstance(move, Observe):
        journal = journal.model_copy(update={"lines": journal.lines + 1})
    return with_log(_without_reissue(journal, move, after), move, _kept_trying(journal, move, after, now_us))


def _done(log: StepLog, answer: Answer) -> dict[str, Any]:
    """After a create or an update."""
    match answer:
        case Done(outputs):
            return _settled(log, Presence.PRESENT, {**log.outputs, **outputs})
        case Absent():
            # It was to be changed and is not there: the next move makes it.
            return _answered(log, Verdict.RETRYABLE, "absent") | {"open": False, "there": Presence.ABSENT}
        case Refused(reason):
            return {"open": False, "verdict": Verdict.REFUSED, "reason": reason}
        case Retryable(reason, _, silent):
            return _answered(log, Verdict.RETRYABLE, reason, silent=silent) | {"open": log.lost, "read_back": log.lost}
        case Unknown(reason, silent):
            return _answered(log, Verdict.UNKNOWN, reason, silent=silent) | {"read_back": False}


def _placed(log: StepLog, answer: Answer) -> dict[str, Any]:
    """Where it may be after a create or an update."""
    if isinstance(answer, Done):
        return {"places": ()}
    return {} if log.lost or isinstance(answer, Unknown) else {"place": None}


def _undone(log: StepLog, answer: Answer) -> dict[str, Any]:
    """After a delete."""
    match answer:
        case Done() | Absent():
            return _settled(log, Presence.ABSENT, {})
        case Refused(reason):
            if log.there is Presence.ASKED:
                # Whoever refuses to make a thing may refuse to remove it in the same words; it never was there.
                return _settled(log, Presence.ABSENT, {})
            return {"open": False, "verdict": Verdict.REFUSED, "reason": reason}
        case Retryable(reason, _, silent):
            return _answered(log, Verdict.RETRYABLE, reason, silent=silent) | {"open": log.lost, "read_back": log.lost}
        case Unknown(reason, silent):
            return _answered(log, Verdict.UNKNOWN, reason, silent=silent) | {"read_back": False}


def _seen(log: StepLog, answer: Answer) -> dict[str, Any]:  # noqa: PLR0911 - one line a case, in order
    """After a look by name: of a lost call, or of something that may be there."""
    match answer:
        case Done(outputs) if log.open and log.verb == Verb.CREATE:
            settled = _settled(log, Presence.PRESENT, {**log.outputs, **outputs})
            # Which of two creates it comes from is not to be seen: the next move gives it the newer one's settings.
            return settled | {"applied": None} if log.older else settled
        case Done(outputs):
            found: dict[str, Any] = {"there": Presence.PRESENT, "outputs": {**log.outputs, **outputs}}
            return _answered(log, Verdict.UNKNOWN, log.reason) | {"read_back": True} | found if log.open else found
        case Absent() if log.open and log.verb == Verb.CREATE:
            return _answered(log, Verdict.UNKNOWN, log.reason) | {"read_back": True, "there": Presence.MAYBE}
        case Absent():
            return _settled(log, Presence.ABSENT, {})
        case Refused() if log.open:
            there = Presence.MAYBE if log.there is Presence.ASKED else log.there
            return _answered(log, Verdict.UNKNOWN, log.reason) | {"read_back": True, "there": there}
        case Refused():
            return {"there": Presence.ASKED}
        case Retryable(reason, _, silent):
            return _answered(log, log.verdict, reason, silent=silent)
        case Unknown(reason, silent):
            return _answered(log, log.verdict, reason, silent=silent)


def _found_again(log: StepLog, answer: Answer) -> dict[str, Any]:
    """After a look at what may be there for long, at any of its places: a refusal to show it is none to have it."""
    match answer:
        case Done(outputs):
            alone = {"doubted": False, "place": outputs.get("url", log.place), "places": ()}
            return _seen(log, answer) | alone
        case Refused(reason):
            return {"verdict": Verdict.REFUSED, "reason": reason}
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
        "verdict": Verdict.DONE,
        "there": there,
        "applied": log.intended if present else None,
        "outputs": outputs,
        "former": log.former if present else log.outputs or log.former,
        "answers": 0,
        "silences": 0,
        "not_before": 0,
        "reason": "",
    }


def _answered(log: StepLog, verdict: Verdict, reason: str, *, silent: bool = False) -> dict[str, Any]:
    count = {"silences": log.silences + 1} if silent else {"answers": log.answers + 1}
    return {"verdict": verdict, "reason": reason} | count


def _paced(log: StepLog, answer: Answer, now_us: int, pace: Pace, seed: str) -> StepLog:
    if not isinstance(answer, Retryable | Unknown):
        return log
    asked_s = answer.retry_after_s if isinstance(answer, Retryable) else None
    wait_us = pace.wait_us(log.answers + log.silences, seed, asked_s)
    return log.model_copy(update={"not_before": now_us + wait_us})


def _without_reissue(journal: Journal, move: Called, log: StepLog) -> Journal:
    life = journal.life
    if life is None or life.generation != move.generation or log.there is not Presence.ABSENT:
        return journal
    left = tuple(name for name in life.reissue if name != move.step.name)
    return journal.model_copy(update={"life": life.model_copy(update={"reissue": left})})


def _kept_trying(journal: Journal, move: Called, log: StepLog, now_us: int) -> StepLog:
    """What appeared after a life ended is tried for as long as it is there: nobody is left to be told of a refusal."""
    is_on = journal.life is not None and journal.life.generation == move.generation
    if is_on or log.verdict not in {Verdict.REFUSED, Verdict.EXHAUSTED}:
        return log
    return log.model_copy(update={"verdict": Verdict.RETRYABLE, "answers": 0, "not_before": now_us + HELD_US})
