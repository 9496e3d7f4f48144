"""The words a saga and an outside system exchange: one `Call`, one of seven answers.

Rule: an answer says what is known, never what is hoped. A call whose effect cannot be known is `Unknown`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

_NAMESPACE = UUID("6f0b7f4e-6f1c-5b39-9d55-0f6f1a3f8a11")
"""Fixed for ever: idempotency keys must be equal over restarts and releases."""


class Verb(StrEnum):
    """What a call does to the resource that its name denotes."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a step owes an outside system.

    Attributes:
        step: Name of the step in the plan.
        kind: Its kind in the plan (`http`, `oauth`, `postgres`, `subscription`, `archive`).
        verb: What to do; READ looks up by name and changes nothing.
        key: `orgId:integrationId`.
        tenant_id: The recorded binding, never an event's.
        generation: Life of the key; part of every resource's name.
        epoch: Of the worker's lease: a system that saw a greater one refuses this call.
        idempotency_key: Equal only for a repeat of one intent.
        settings: The step's own settings of the plan, substituted.
        outputs: What the step returned when it was last done (secrets unsealed); empty before.
        enabled: The integration's flag: `http` sends it, `subscription` pauses by it.
        timeout_s: The whole call's.
        places: Every `url` where this life's resource may be by now; an update that is done left it at its own alone.
        repeats: True if this intent was called before and its answer was lost.
        own_credentials: True if no credential in `settings` comes from the tenant's configuration.
    """

    step: str
    kind: str
    verb: Verb
    key: str
    tenant_id: str
    generation: int
    epoch: int
    idempotency_key: str
    settings: Mapping[str, Any] = field(repr=False)  # both may hold secrets
    outputs: Mapping[str, Any] = field(repr=False)
    enabled: bool
    timeout_s: float
    places: tuple[str, ...] = ()
    repeats: bool = False
    own_credentials: bool = True


@dataclass(frozen=True, slots=True)
class Done:
    """It is so now (created, updated, already so, or found by READ).

    `differs` names the first field of a resource found by READ that is not as the newest create or update asked.
    """

    outputs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    differs: str | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """It does not exist (deleted, never was, or not found by READ)."""


@dataclass(frozen=True, slots=True)
class Retryable:
    """The same call may succeed later, and nothing is in doubt: it did nothing, or removed what would be removed again.

    `well` when the system is well and says no to this worker alone.
    """

    reason: str
    retry_after_s: float | None = None
    well: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The system judged these inputs and will not do this with them, however often it is asked.

    `heard` unless nobody was asked: such inputs are no system's business. `partly` when a part of what was asked is
    there all the same.
    """

    reason: str
    heard: bool = True
    partly: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """The call may or may not have had its effect: read back by name before it is repeated.

    `succeeded` when the system answered with success and did not show what it has now: that is no outage, so it never
    uses up the step's `give_up_after`.
    """

    reason: str
    retry_after_s: float | None = None
    succeeded: bool = False


@dataclass(frozen=True, slots=True)
class RefusedUs:
    """The operator's own credentials or set-up are refused: the tenant's inputs were not judged.

    No tenant is rolled back for it; the gate before that system closes for all tenants until it is put right. `remedy`
    says in one sentence what to do.
    """

    reason: str
    remedy: str = "put the credentials or the set-up of this system right"


@dataclass(frozen=True, slots=True)
class Contradicted:
    """The system answered with success, and what it shows is not ours, or is no resource at all.

    Nothing follows from that: nothing is undone, and nothing counts as absent. `reason` names the field. `anothers`
    when the answer says whose the resource is instead: then ours is not there under this name, if it never was made.
    """

    reason: str
    anothers: bool = False


Answer = Done | Absent | Retryable | Refused | Unknown | RefusedUs | Contradicted


def idempotency_key(key: str, generation: int, step: str, n: int) -> str:
    """The key of intent `n` of a step in one journal."""
    return str(uuid5(_NAMESPACE, f"{key}/{generation}/{step}/{n}"))


def resource_name(key: str, generation: int) -> str:
    """The name every outside resource of one life of a key carries: `{orgId}.{integrationId}.g{generation}`."""
    return f"{key.replace(':', '.')}.g{generation}"
