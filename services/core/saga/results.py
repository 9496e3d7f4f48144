"""Second half of the saga journal: an answer of an outside system is written into the log of the step.

Rule: an answer changes the knowledge about one step and decides nothing; `services.core.saga.next_move` decides from
the new log. The effect of each class of answers to a create, update or delete:

    Done, Absent    settle the step
    Retryable       closes the intent; an outage unless `well`
    Unknown         keeps the intent open: read back by name, then repeated; an outage unless `succeeded`, and no try
                    while `pending`
    Refused         closes the intent; on the way up the step's phase ends
    OperatorRefused closes the intent and waits for the operator; no outage
    Contradicted    closes the intent and waits for a person; no outage

Only outages count towards the step's `give_up_after`.

Invariant: a repeated intent stays open after `Retryable`, `OperatorRefused` and `Contradicted`, because the first call
may have had its effect although the second did not.

Most functions return a dictionary of changed fields, to be merged into the log: a later `|` overrides an earlier one.
"""

from typing import Any, Final

from schemas.saga import Journal, Standstill, StepLog, StepState, StepVerdict
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
)
from services.core.saga.intents import log_of, with_log
from services.core.saga.moves import Called, LookUp, Run, Undo
from services.core.saga.next_move import HELD_US
from services.core.saga.pace import ASKED_MOST_S, Pace
from services.core.saga.step_transitions import REPEATED, StepEvent, state_after

WAITS_FOR: Final = "waiting for "
"""Start of the reason of a step whose system works on the call; the reason of the system follows."""

_NEEDS_A_PERSON: Final = frozenset({StepVerdict.REFUSED, StepVerdict.OPERATOR_REFUSED, StepVerdict.CONTRADICTED})
"""Verdicts after which the orphan check of an ended life tries again at the slow pace, because no tenant is left to
show the trouble on."""


def settle(journal: Journal, move: Called, answer: Answer, now_us: int, pace: Pace) -> Journal:
    """Returns the journal with the answer of a call.

    Args:
        journal: The journal with the move's intent.
        move: The call with this answer.
        answer: The answer; outputs declared secret must be sealed by now, since the journal is stored.
        now_us: Microseconds UTC.
        pace: Lengths of the waits.
    """
    log = log_of(journal, move)
    if isinstance(move, LookUp):
        is_recovering = log.unverified and not log.open
        change = _after_recovery_look_up(log, answer) if is_recovering else _after_look_up(log, answer)
    elif isinstance(move, Undo):
        change = _after_delete(log, answer)
    else:
        change = _after_change(log, answer)
    if isinstance(move, Run):
        change |= _locations_after_change(log, answer)
    after = log.model_copy(update={"at": now_us, "retried": False} | change)
    # The seed is stable over restarts and differs between tenants and steps, so their waits do not run in step.
    seed = f"{move.generation}/{move.step.name}/{after.n}/{journal.target.key if journal.target else ''}"
    after = _with_wait(after, answer, now_us, pace, seed)
    if not isinstance(move, LookUp):
        # Numbers the audit line of this answer; a look-up changes nothing outside and has no audit line.
        journal = journal.model_copy(update={"lines": journal.lines + 1})
    journal = _with_standstill(_without_reissue(journal, move, after), move, after, answer, now_us)
    return with_log(journal, move, _kept_in_orphan_check(journal, move, after, now_us))


def _after_change(log: StepLog, answer: Answer) -> dict[str, Any]:
    """Returns the changed fields after a create or an update."""
    match answer:
        case Done(outputs):
            settled = _settled(log, StepEvent.SHOWN, {**log.outputs, **outputs})
            # The answer may show the resource of an older create with other inputs. Without `applied` the next move is
            # an update with the newest settings.
            return settled | {"applied": None} if log.earlier_create_open else settled
        case Absent():
            # An update found no resource: the next move creates one.
            return _failed(log, StepVerdict.RETRYABLE, "absent") | _moved(log, StepEvent.GONE)
        case Refused(reason, _, partly):
            event = StepEvent.REFUSED_IN_PART if partly else StepEvent.REFUSED
            return _moved(log, event) | {"verdict": StepVerdict.REFUSED, "reason": reason}
        case Unknown(succeeded=True) if log.state in REPEATED and log.verdict is StepVerdict.CONTRADICTED:
            # The repeat was again a success that shows nothing. The contradiction stands until a look-up disproves it.
            return _failed(log, log.verdict, log.reason)
        case _:
            return _unsettled(log, answer)


def _locations_after_change(log: StepLog, answer: Answer) -> dict[str, Any]:
    """Returns the changed fields for the urls at which the resource may exist after a create or an update."""
    if isinstance(answer, Done):
        # The kind `http` answers `Done` only after it has removed the resource from every former url.
        return {"locations": ()}
    may_exist = log.state in REPEATED or isinstance(answer, Unknown) or (isinstance(answer, Refused) and answer.partly)
    return {} if may_exist else {"location": None}


def _after_delete(log: StepLog, answer: Answer) -> dict[str, Any]:
    """Returns the changed fields after a delete."""
    match answer:
        case Done() | Absent():
            return _settled(log, StepEvent.GONE, {})
        case Refused(reason):
            if log.state is StepState.PENDING_DENIED:
                # Every answer to the creates said that nothing was made. A system that refuses a create may refuse the
                # delete for the same reason (a wrong endpoint, say), and must not hold up the compensation for that.
                return _settled(log, StepEvent.GONE, {})
            return _failed(log, StepVerdict.REFUSED, reason) | _moved(log, StepEvent.REFUSED)
        case Contradicted(anothers=True) if log.state is StepState.PENDING_DENIED:
            # The name belongs to a foreign resource, and every answer so far said that ours was never made.
            return _settled(log, StepEvent.GONE, {})
        case _:
            return _unsettled(log, answer)


def _unsettled(log: StepLog, answer: Answer) -> dict[str, Any]:
    """Returns the changed fields after a create, update or delete whose answer settles nothing.

    Raises:
        AssertionError: the answer settles the step; the caller must handle such an answer.
    """
    match answer:
        case Unknown(pending=True):
            return _pending(log, answer) | {"succeeded": True}
        case Unknown(reason, succeeded=True, outputs=outputs) if log.verb != Verb.DELETE:
            change = _failed(log, StepVerdict.UNKNOWN, reason) | {"succeeded": True}
            return change | {"outputs": {**log.outputs, **outputs}}
        case Unknown(reason):
            return _failed(log, StepVerdict.UNKNOWN, reason)
        case OperatorRefused(reason):
            return _failed(log, StepVerdict.OPERATOR_REFUSED, reason) | _moved(log, StepEvent.ANSWERED)
        case Contradicted(reason):
            return _failed(log, StepVerdict.CONTRADICTED, reason) | _moved(log, StepEvent.ANSWERED)
        case Retryable(reason):
            return _failed(log, StepVerdict.RETRYABLE, reason) | _moved(log, StepEvent.ANSWERED)
    raise AssertionError(f"{type(answer).__name__} settles the step")


def _after_look_up(log: StepLog, answer: Answer) -> dict[str, Any]:  # noqa: PLR0911 - one line a case, in order
    """Returns the changed fields after a look-up by name, of a lost call or of a resource in doubt."""
    match answer:
        case Done():
            return _found(log, answer)
        case Absent() if log.open and log.verb == Verb.CREATE:
            # Not absent for good: the lost create may still be on its way. Its repeat carries the same idempotency key.
            return _failed(log, StepVerdict.UNKNOWN, log.reason) | _moved(log, StepEvent.LOOKED_UP)
        case Absent():
            return _settled(log, StepEvent.GONE, {})
        case Refused() if log.open:
            # The system refuses to show the resource, so only a repeat of the call can tell.
            return _failed(log, StepVerdict.UNKNOWN, log.reason) | _moved(log, StepEvent.LOOKED_UP)
        case Refused():
            # A resource in doubt that the system refuses to show counts as never made: an orphan check would never end.
            return _moved(log, StepEvent.HIDDEN)
        case OperatorRefused(reason):
            return _failed(log, StepVerdict.OPERATOR_REFUSED, reason)
        case Contradicted(reason):
            return _failed(log, StepVerdict.CONTRADICTED, reason)
        case Unknown(pending=True) if log.open:
            return _pending(log, answer)
        case Retryable(reason) | Unknown(reason):
            return _failed(log, StepVerdict.UNKNOWN if log.open else StepVerdict.RETRYABLE, reason)


def _found(log: StepLog, answer: Done) -> dict[str, Any]:
    """Returns the changed fields after a successful look-up."""
    outputs = {**log.outputs, **answer.outputs}
    if not log.open:
        return _moved(log, StepEvent.SHOWN) | {"outputs": outputs}
    settled = _settled(log, StepEvent.SHOWN, outputs)
    if log.verb == Verb.CREATE:
        # The resource may come from an older create, or have changed since: without `applied` the next move is an
        # update with the newest settings.
        return settled | {"applied": None} if log.earlier_create_open or answer.differs else settled
    was_success = log.verb == Verb.UPDATE and log.succeeded
    if was_success and not answer.differs:
        return settled
    # The existence of the resource proves neither a lost update nor a lost delete: the call is repeated. An update that
    # was answered with success although other values are in force is a contradiction.
    verdict = StepVerdict.CONTRADICTED if was_success else StepVerdict.UNKNOWN
    reason = f"{answer.differs} is not as it was asked" if was_success else log.reason
    return _failed(log, verdict, reason) | _moved(log, StepEvent.FOUND) | {"outputs": outputs}


def _after_recovery_look_up(log: StepLog, answer: Answer) -> dict[str, Any]:
    """Returns the changed fields after the look-up of a step put in doubt by a recovery.

    The resource may have existed for long, at any of the step's locations. So a refusal to show the resource must not
    be taken for absence here, as `_after_look_up` takes a refusal after a refused create.
    """
    match answer:
        case Done(outputs):
            found_at = {"unverified": False, "location": outputs.get("url", log.location), "locations": ()}
            return _after_look_up(log, answer) | found_at
        case Refused(reason):
            return _failed(log, StepVerdict.REFUSED, reason)
        case _:
            return _after_look_up(log, answer)


def _moved(log: StepLog, event: StepEvent) -> dict[str, Any]:
    """Returns the changed field of a step that goes to another state."""
    return {"state": state_after(log.state, event)}


def _settled(log: StepLog, event: StepEvent, outputs: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a step without any doubt: no open intent, no wait, and known settings and outputs.

    Args:
        log: The log before the answer.
        event: SHOWN or GONE.
        outputs: Outputs of the present resource; empty for an absent one.
    """
    present = event is StepEvent.SHOWN
    return {
        "state": state_after(log.state, event),
        "earlier_create_open": False,
        "unverified": False,
        "verdict": StepVerdict.DONE,
        "applied": log.intended if present else None,
        "outputs": outputs,
        # Later steps may refer to outputs of a deleted resource while they are deleted in turn.
        "previous_outputs": log.previous_outputs if present else log.outputs or log.previous_outputs,
        "succeeded": False,
        "tries": 0,
        "not_before": 0,
        "reason": "",
    }


def _failed(log: StepLog, verdict: StepVerdict, reason: str) -> dict[str, Any]:
    """Returns the changed fields after one more try without success."""
    return {"verdict": verdict, "reason": reason, "tries": log.tries + 1}


def _pending(log: StepLog, answer: Unknown) -> dict[str, Any]:
    """Returns the changed fields while the system works on a call: no try is counted, and the work's id is kept."""
    reason = f"{WAITS_FOR}{answer.reason}"
    return {"verdict": StepVerdict.UNKNOWN, "reason": reason, "outputs": {**log.outputs, **answer.outputs}}


def _with_wait(log: StepLog, answer: Answer, now_us: int, pace: Pace, seed: str) -> StepLog:
    """Returns the log with the wait before the step's next call."""
    # `Done` and `Absent` may leave tries behind, when a look-up only told how to repeat a lost call. The repeat follows
    # at once: the system has just answered.
    if isinstance(answer, Unknown) and answer.pending:
        # A steady pace, since the system is well: a growing wait would only delay the tenant.
        wait_s = min(answer.retry_after_s or pace.first_s, ASKED_MOST_S)
        return log.model_copy(update={"not_before": now_us + int(wait_s * 1_000_000)})
    if isinstance(answer, Done | Absent) or not log.tries:
        return log
    asked_s = answer.retry_after_s if isinstance(answer, Retryable | Unknown) else None
    if isinstance(answer, OperatorRefused):
        asked_s = pace.most_s  # only the operator ends this refusal, so a growing series of short waits is no use
    return log.model_copy(update={"not_before": now_us + pace.wait_us(log.tries, seed, asked_s)})


def _with_standstill(journal: Journal, move: Called, log: StepLog, answer: Answer, now_us: int) -> Journal:
    """Returns the journal with the standstill after an answer, and the times of its outage.

    Args:
        journal: The journal before the answer.
        move: The call with this answer; the call of an orphan check changes nothing.
        log: The step's log after the answer.
        answer: The answer.
        now_us: Microseconds UTC.
    """
    life, stands = journal.life, journal.standstill
    if life is None or life.generation != move.generation:
        return journal
    if not log.tries or log.verdict is StepVerdict.DONE:
        is_over = stands is not None and stands.step == move.step.name and not log.open
        return journal.model_copy(update={"standstill": None}) if is_over else journal
    if stands is None or stands.step != move.step.name:
        stands = Standstill(step=move.step.name, since=now_us)
    match answer:
        case Retryable(well=False) | Unknown(succeeded=False):
            outage = {"outage_since": stands.outage_since or now_us, "outage_seen": now_us}
        case OperatorRefused() | Contradicted() | Unknown():
            # The system answers, so there is no outage: `give_up_after` begins anew with the next one.
            outage = {"outage_since": 0}
        case _:
            outage = {"outage_since": 0} if log.verdict is StepVerdict.CONTRADICTED else {}
    return journal.model_copy(update={"standstill": stands.model_copy(update=outage)})


def _without_reissue(journal: Journal, move: Called, log: StepLog) -> Journal:
    """Returns the journal without the mark `reissue` of a deleted step: the next move creates the step anew."""
    life = journal.life
    if life is None or life.generation != move.generation or log.state is not StepState.ABSENT:
        return journal
    left = tuple(name for name in life.reissue if name != move.step.name)
    return journal.model_copy(update={"life": life.model_copy(update={"reissue": left})})


def _kept_in_orphan_check(journal: Journal, move: Called, log: StepLog, now_us: int) -> StepLog:
    """Returns the log of an orphan check's step with a refusal turned into a slow retry; other logs are unchanged.

    An orphan check has no tenant on which a refusal could be shown, so an orphan check tries for as long as the
    resource exists.
    """
    is_current = journal.life is not None and journal.life.generation == move.generation
    if is_current or log.verdict not in _NEEDS_A_PERSON:
        return log
    return log.model_copy(update={"verdict": StepVerdict.RETRYABLE, "tries": 0, "not_before": now_us + HELD_US})
