"""The vocabulary between a saga and an outside system: one `Call` goes out, one of seven answer classes comes back.

Rule: an answer states facts about the resource, never a guess. A call with an uncertain effect is `Unknown`. The saga
decides from the class of the answer and its flags; the reasons are for logs and people.

The answer classes differ in two questions: may the call have had an effect, and must the saga repeat the call?

    Done, Absent    the state of the resource is known: the step is settled
    Retryable       no lasting effect, usually an outage: repeat after a wait
    Unknown         perhaps an effect: read the resource back by name, then repeat with the same idempotency key
    Refused         the system judged the tenant's inputs: compensate, or restore the last good configuration
    OperatorRefused the operator's own credentials or set-up are refused: wait for the operator, roll nothing back
    Contradicted    a success with contents other than asked for: wait for a person, roll nothing back

An outage must never be reported as `Refused`, because a refusal rolls a tenant back (docs/decisions/0033).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

_NAMESPACE = UUID("6f0b7f4e-6f1c-5b39-9d55-0f6f1a3f8a11")
"""Never change this value: idempotency keys must stay equal over restarts and releases."""


class Verb(StrEnum):
    """Effect of a call on the named resource."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    READ = "read"


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a step to an outside system.

    Attributes:
        step: Name of the step in the plan.
        kind: Name of the step's kind; selects the code for the call.
        verb: The wanted effect; READ looks the resource up by name and changes nothing.
        key: `orgId:integrationId`.
        tenant_id: The recorded binding of the life, never the tenantId of an event.
        generation: Generation of the key; part of every resource's name.
        epoch: Fencing token of the worker's lease: a system refuses the call after a call with a greater epoch.
        idempotency_key: Equal only for a repeat of one intent.
        settings: The step's own settings of the plan, references replaced.
        outputs: The outputs of the step's last `Done` (secrets unsealed); empty before the first.
        enabled: The integration's flag: `http` sends the flag, `subscription` pauses by it.
        timeout_s: Seconds for the whole call.
        locations: Every `url` with a possible resource of this life. After a successful update the resource exists at
            the `url` of the update alone.
        repeats: True if this intent was called before and the answer was lost.
        own_credentials: True if no credential in `settings` comes from the tenant's configuration.
        open_verb: Verb of the open intent, also during a look-up of the intent; None without an open intent.
        succeeded: True if the open intent was answered with success and is not finished: work is under way.
        age_s: Seconds since the open intent was written down; a repeat after a success counts on.
        earlier_create_open: True if an earlier create with different inputs may have had an effect.
        retried: True if an operator asked for a retry since the newest answer: the answer to a question that only a
            person can decide.
        is_held: True while the worker's lease lasts. A kind whose system knows no epoch asks before every change, so a
            worker that was stopped for long sends nothing.
    """

    step: str
    kind: str
    verb: Verb
    key: str
    tenant_id: str
    generation: int
    epoch: int
    idempotency_key: str
    # Settings and outputs may hold secrets, and a repr ends in logs and tracebacks.
    settings: Mapping[str, Any] = field(repr=False)
    outputs: Mapping[str, Any] = field(repr=False)
    enabled: bool
    timeout_s: float
    locations: tuple[str, ...] = ()
    repeats: bool = False
    own_credentials: bool = True
    open_verb: Verb | None = None
    succeeded: bool = False
    age_s: float = 0.0
    earlier_create_open: bool = False
    retried: bool = False
    is_held: Callable[[], bool] = field(default=_always, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Done:
    """The resource is as the call asked (created, updated, already so), or READ found the resource.

    Attributes:
        outputs: Values from the system's answer, for references of later steps.
        differs: After READ, the name of the first field with another value than the newest create or update asked for;
            None if every shown field agrees.
    """

    outputs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    differs: str | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """The resource does not exist (deleted, never made, or not found by READ)."""


@dataclass(frozen=True, slots=True)
class Retryable:
    """The call failed without a lasting effect, and a repeat may succeed later.

    The call did nothing, or a delete removed only a part: repeating the delete removes the rest.

    Attributes:
        reason: Short text for logs and the journal.
        retry_after_s: Seconds of wait asked for by the system (`Retry-After`), or None.
        well: True if the system works and turned only this worker away (a stale epoch). Such a refusal is no outage,
            and the circuit breaker counts the answer as a good one.
    """

    reason: str
    retry_after_s: float | None = None
    well: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The system judged the tenant's inputs and rejects the inputs, and a repeat with equal inputs is useless.

    Attributes:
        reason: Short text for logs and the journal.
        heard: True if a system answered. False if the call was rejected before any request was sent (a forbidden
            URL, say): the answer proves nothing about the health of the system.
        partly: True if a part of the resource exists in spite of the refusal and must be undone.
    """

    reason: str
    heard: bool = True
    partly: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """The call may or may not have had an effect: the saga reads the resource back by name before a repeat.

    Attributes:
        reason: Short text for logs and the journal.
        retry_after_s: Seconds of wait asked for by the system (`Retry-After`), or None.
        succeeded: True if the system answered with success but did not show the resource. A success is no outage
            and never uses up the step's `give_up_after`.
        pending: True if the system works on the call: the look-up follows after `retry_after_s` and counts no try.
        outputs: After a success, values needed by the look-up (the id of a job, say).
    """

    reason: str
    retry_after_s: float | None = None
    succeeded: bool = False
    pending: bool = False
    outputs: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class OperatorRefused:
    """The system refused the operator's own credentials or set-up; the tenant's inputs were not judged.

    No tenant is rolled back. After refusals of two tenants in a row the circuit of the system opens: all tenants wait
    until the operator has acted.

    Attributes:
        reason: Short text for logs and the journal.
        remedy: One sentence for the operator: how to end the refusal.
    """

    reason: str
    remedy: str = "put the credentials or the set-up of this system right"


@dataclass(frozen=True, slots=True)
class Contradicted:
    """The system answered with success, and the body shows a foreign resource or no resource at all.

    The saga draws no conclusion: nothing is undone, and nothing counts as absent. The saga waits for a person.

    Attributes:
        reason: Names the contradicting field.
        anothers: True if the answer names another owner of the resource. If every earlier answer said that ours was
            never made, ours does not exist under this name.
    """

    reason: str
    anothers: bool = False


Answer = Done | Absent | Retryable | Refused | Unknown | OperatorRefused | Contradicted


def answer_word(answer: Answer) -> str:
    """Returns the word for an answer in metrics, spans and audit lines."""
    return "operator_refused" if isinstance(answer, OperatorRefused) else type(answer).__name__.lower()


def idempotency_key(key: str, generation: int, step: str, n: int) -> str:
    """Returns the idempotency key of intent `n` of a step, for one generation of one saga key."""
    return str(uuid5(_NAMESPACE, f"{key}/{generation}/{step}/{n}"))


def resource_name(key: str, generation: int) -> str:
    """Returns the name of every outside resource of one generation: `{orgId}.{integrationId}.g{generation}`."""
    return f"{key.replace(':', '.')}.g{generation}"
