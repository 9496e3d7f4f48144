"""The saga journal of a key: intents, answers and the state of each step, stored beside the newest desired version.

Rule: a step is journalled before the call (the intent) and after the call (the outcome). A step with an intent counts
as maybe done until an answer settles the question. Records are frozen: the functions of `services.core.saga` return a
changed copy.
"""

from enum import StrEnum
from typing import Self

from pydantic import Field, field_validator, model_validator

from schemas.tenant import Desired
from schemas.values import Instant, Json, Record, TenantId

# Theory. A call to an outside system may take effect although the answer was lost, and a worker may die between call
# and answer. The journal therefore holds, per step, the most that may exist outside (`there`, `place`, `places`,
# `lost`, `older`, `doubted`). An answer may only narrow this set as far as the answer proves; a teardown calls every
# step and place in the set. A mark dropped too early leaves a resource behind with no record of it.


class Phase(StrEnum):
    """The task of a key's saga."""

    EMPTY = "empty"
    """Nothing exists: never provisioned, or torn down."""
    CREATING = "creating"
    """The first provisioning of a life."""
    ACTIVE = "active"
    """The resources match the newest answered version, or the last good version after a refused update."""
    UPDATING = "updating"
    RESTORING = "restoring"
    """The last good configuration is put back on the steps that a refused update touched."""
    COMPENSATING = "compensating"
    """A first provisioning failed: everything started is undone in reverse."""
    ROLLED_BACK = "rolled_back"
    """Compensated; nothing exists; a later version, or the time `again_at`, starts another life."""
    REMOVING = "removing"


_FORMER_PHASES = {"compensation_failed": Phase.COMPENSATING.value, "removal_failed": Phase.REMOVING.value}
"""Phases of earlier releases, which parked a failed saga. No saga is parked any more: the work continues."""

_OF_A_LIFE = frozenset({
    Phase.CREATING, Phase.ACTIVE, Phase.UPDATING, Phase.RESTORING,
    Phase.COMPENSATING,
})  # fmt: skip
"""Phases in which `Journal.life` must be set."""


class Presence(StrEnum):
    """Knowledge about the existence of a step's resource."""

    ABSENT = "absent"
    """Never asked for, or known to be gone."""
    ASKED = "asked"
    """Asked for, and every answer so far denied an effect."""
    MAYBE = "maybe"
    """Asked for, and no answer settles the question."""
    PRESENT = "present"
    """Known to exist."""


class StepVerdict(StrEnum):
    """The class of the newest answer to a step."""

    DONE = "done"
    RETRYABLE = "retryable"
    """The step is called again after a wait."""
    UNKNOWN = "unknown"
    """The effect of the call is unknown: the resource is looked up by name before the next call."""
    REFUSED = "refused"
    """The system refused. A create or update is not repeated in this turn; a teardown is tried again."""
    EXHAUSTED = "exhausted"
    """Of a create or update: the outage outlasted the step's `give_up_after`."""
    BLOCKED = "blocked"
    """The operator's own system refuses the operator's credentials or set-up; the step waits for a remedy."""
    CONTRADICTED = "contradicted"
    """The system answered with success but shows a different resource than requested; the step waits for a person."""


class StepLog(Record):
    """The record of a step in a life: the newest intent and outcome, and the knowledge about the resource."""

    n: int = 0
    """Number of intents so far (after a recovery a greater number); part of the newest intent's idempotency key."""
    verb: str | None = None
    """Verb of the newest intent: `create`, `update` or `delete`."""
    at: Instant = 0
    """Time of the newest intent or outcome."""
    open: bool = False
    """True if the newest intent has no known outcome: the call is under way, or the answer was lost."""
    read_back: bool = False
    """True if the open intent was looked up by name and is to be repeated with the same idempotency key."""
    lost: bool = False
    """True if the newest intent is repeated: even after a refused repetition the first call may have had an effect."""
    older: bool = False
    """True if an earlier create with different inputs may have had an effect."""
    doubted: bool = False
    """True after a recovery: the resource may exist at any of `places`, even if a system refuses to show a resource."""
    succeeded: bool = False
    """True if the newest create or update succeeded, but the answer does not show the present resource."""
    verdict: StepVerdict = StepVerdict.DONE
    """Class of the newest answer."""
    there: Presence = Presence.ABSENT
    """Knowledge about the resource."""
    inputs: Json = Field(default_factory=dict)
    """Inputs of the newest create or update: `configuration` (only the names in use by the step) and `enabled`."""
    intended: str | None = None
    """Hash of the settings and inputs of the newest create or update."""
    applied: str | None = None
    """Hash of the settings and inputs known to be in force; null while in doubt."""
    outputs: Json = Field(default_factory=dict)
    """Outputs of the system for the present resource; values declared secret are sealed."""
    former: Json = Field(default_factory=dict)
    """Outputs for a former resource; only later steps use these, when the later steps are undone."""
    place: str | None = None
    """The `url` of the newest create or update; null if the step has no URL, or if the call is known to have had no
    effect."""
    places: tuple[str, ...] = ()
    """Further URLs at which earlier calls may have made the resource; emptied once an answer proves `place` alone."""
    tries: int = 0
    """Calls of this turn without progress; the waits between calls grow with this number."""
    not_before: Instant = 0
    """Earliest time of the next call."""
    reason: str = ""
    """The reason why the newest answer was not `done`."""


class Life(Record):
    """A generation of a key: from before the first intent until the end of teardown or compensation."""

    generation: int
    plan: str
    """Digest of the plan at the start of the life; a life ends with the plan of its start."""
    tenant_id: TenantId
    """The tenantId of the binding; teardown uses this value, never the tenantId of an event."""
    steps: dict[str, StepLog] = Field(default_factory=dict)
    """The record of each step, by the step's name."""
    good: Desired | None = None
    """The last version applied in full."""
    issued_for: Instant = 0
    """`installed_at` of the version with the last issue of tokens."""
    reissue: tuple[str, ...] = ()
    """Steps to be undone and done again, because an `uninstalled` lay between two installs."""


class Sweep(Record):
    """An ended life, looked up again by name for resources of a call with a lost answer."""

    due_at: Instant
    """Time of the look-up."""
    life: Life


class Failure(Record):
    """The failure of a turn: the step and the class of the answer."""

    step: str
    """The failed step."""
    error_class: str
    """`refused` or `exhausted`."""
    reason: str
    """The reason in words of the program."""


class Standstill(Record):
    """The waiting step of a saga, from the first call or wait without progress until the step is done."""

    step: str
    """The waiting step."""
    since: Instant
    """Start of the wait; 15 minutes later the tenant is unwell."""
    outage_since: Instant = 0
    """Start of the outage for the step's `give_up_after`; 0 if the trouble is no outage of the step's system."""
    outage_seen: Instant = 0
    """Time of the last call during the outage; time without a call does not count towards `give_up_after`."""


class Journal(Record):
    """The state of a saga; with the plan and the newest desired version it determines the next move."""

    phase: Phase = Phase.EMPTY
    """The present task."""
    generation: int = 0
    """Generation of the newest life; 0 before the first."""
    life: Life | None = None
    """The present life; null if no life is in progress."""
    target: Desired | None = None
    """The desired version taken up last."""
    turned_at: Instant = 0
    """Start of the present phase; `destroy_after` counts from here."""
    failure: Failure | None = None
    """The failure behind a compensation or restoration."""
    standstill: Standstill | None = None
    """The waiting step of the present life; null while the saga makes progress."""
    rollbacks: int = 0
    """Compensations in a row without a newer version between; the waits between attempts grow with this number."""
    again_at: Instant = 0
    """Time of the next provisioning of a tenant after a rollback."""
    again_asked: bool = False
    """True if an operator asked, during a compensation, for another provisioning right after it."""
    held: str | None = None
    """The reason of the last hold; null before the first."""
    held_version: int = -1
    """The version of the last hold; -1 before the first."""
    held_until: Instant = 0
    """End of the wait of `held_version`; 0 for no wait."""
    told: str | None = None
    """The last published reason for waiting, so that an unchanged reason is published only once."""
    sweeps: tuple[Sweep, ...] = ()
    """Ended lives still to be looked up."""
    seq: int = 0
    """Number of outcomes so far; a recovery goes on at a greater number."""
    lines: int = 0
    """Number of audit lines so far (after a recovery a greater number): a line per call of a change, and per retry that
    an operator asks for."""

    @field_validator("phase", mode="before")
    @classmethod
    def _unparked(cls, phase: object) -> object:
        return _FORMER_PHASES.get(phase, phase) if isinstance(phase, str) else phase

    @model_validator(mode="after")
    def _has_its_life(self) -> Self:
        """Refuses a journal without the life of the phase: the saga would take every resource for absent."""
        if self.phase in _OF_A_LIFE and self.life is None:
            raise ValueError(f"{self.phase} without a life")
        return self
