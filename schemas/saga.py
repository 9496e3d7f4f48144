"""The journal of one key: what was intended, what became of it, what follows; stored beside the newest desired version.

Rule: a step is written here before it is called and after. What has an intent counts as maybe done until an answer says
otherwise. Only `services.core.saga.next_move` changes a journal; it returns a new one.
"""

from enum import StrEnum
from typing import Self

from pydantic import Field, field_validator, model_validator

from schemas.tenant import Desired
from schemas.values import Instant, Json, Record, TenantId


class Phase(StrEnum):
    """What the saga of a key is about now."""

    EMPTY = "empty"
    """Nothing exists: never provisioned, or torn down."""
    CREATING = "creating"
    """The first provisioning of a life."""
    ACTIVE = "active"
    """Everything is as the newest answered version wants it, or as the last good one did."""
    UPDATING = "updating"
    RESTORING = "restoring"
    """The last good configuration is put back on the steps that a refused update touched."""
    COMPENSATING = "compensating"
    """A first provisioning failed: everything started is undone in reverse."""
    ROLLED_BACK = "rolled_back"
    """Compensated; nothing exists; a later version, or the time `again_at`, starts another life."""
    REMOVING = "removing"


_FORMER_PHASES = {"compensation_failed": Phase.COMPENSATING.value, "removal_failed": Phase.REMOVING.value}
"""Phases of journals that an earlier release parked: nothing is parked any more, so these go on where they stood."""

_OF_A_LIFE = frozenset({
    Phase.CREATING, Phase.ACTIVE, Phase.UPDATING, Phase.RESTORING,
    Phase.COMPENSATING,
})  # fmt: skip


class Presence(StrEnum):
    """What is known of a step's resource."""

    ABSENT = "absent"
    """Never asked for, or known to be gone."""
    ASKED = "asked"
    """Asked for, and every answer so far said that nothing was done."""
    MAYBE = "maybe"
    PRESENT = "present"


class StepVerdict(StrEnum):
    """The class of the newest answer to a step."""

    DONE = "done"
    RETRYABLE = "retryable"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    """On the way up the step is not called again in this turn; on the way down it is tried again."""
    EXHAUSTED = "exhausted"
    """On the way up: the outage outlasted the step's `give_up_after`."""
    BLOCKED = "blocked"
    """The operator's own system refuses the operator's credentials or set-up, and the step waits for a remedy."""
    CONTRADICTED = "contradicted"
    """The system answers with success and shows something else than was asked for: the step waits for a person."""


class StepLog(Record):
    """The marks of one step in one life: its newest intent and outcome, and what is known of the resource."""

    n: int = 0
    """Intents so far (a recovery goes on at a greater number); the idempotency key of the newest one names it."""
    verb: str | None = None
    """Of the newest intent: `create`, `update` or `delete`."""
    at: Instant = 0
    """When the newest mark was made."""
    open: bool = False
    """The newest intent has no known outcome: its call is under way, or was lost."""
    read_back: bool = False
    """The open intent was looked up by name and is to be called again with the same key."""
    lost: bool = False
    """The newest intent is being called again: whatever this answer says, the first call may have had its effect."""
    older: bool = False
    """A create before the newest one, with other inputs, may have had its effect."""
    doubted: bool = False
    """A recovery put it in doubt: it may be there for long, at any of its places, whoever refuses to show it."""
    succeeded: bool = False
    """The newest create or update was answered with success by an answer that does not show what is there now."""
    verdict: StepVerdict = StepVerdict.DONE
    there: Presence = Presence.ABSENT
    inputs: Json = Field(default_factory=dict)
    """`configuration` (only the names that the step uses) and `enabled`, as the newest create or update had them."""
    intended: str | None = None
    """Hash of the settings and inputs of the newest create or update."""
    applied: str | None = None
    """Hash of those known to be in force; none while that is in doubt."""
    outputs: Json = Field(default_factory=dict)
    """What the system answered for what is there now; values declared secret are sealed."""
    former: Json = Field(default_factory=dict)
    """What it answered for what was there before: later steps may name it when they are undone, and nothing else."""
    place: str | None = None
    """The `url` that the newest create or update named; none where it named none or is known to have done nothing."""
    places: tuple[str, ...] = ()
    """Where earlier ones may have put it as well: forgotten when an answer says that it is at `place` alone."""
    tries: int = 0
    """Calls of this turn that led nowhere; the waits between them grow with their number."""
    not_before: Instant = 0
    reason: str = ""
    """Why the newest answer was not done."""


class Life(Record):
    """One generation of a key: from before its first intent until its teardown or compensation ends."""

    generation: int
    plan: str
    """Digest of the plan it began with; it ends with the same one."""
    tenant_id: TenantId
    """The recorded binding."""
    steps: dict[str, StepLog] = Field(default_factory=dict)
    good: Desired | None = None
    """The version last applied whole."""
    issued_for: Instant = 0
    """`installed_at` for which tokens were issued last."""
    reissue: tuple[str, ...] = ()
    """Steps to be undone and done again: an `uninstalled` lay between two installs."""


class Sweep(Record):
    """A life that ended and is looked up again by name, for what a lost call may have left behind."""

    due_at: Instant
    life: Life


class Failure(Record):
    """Why a turn did not get where it was going."""

    step: str
    error_class: str
    """`refused` or `exhausted`."""
    reason: str


class Standstill(Record):
    """The step that a saga stands at, from the first call or wait that led nowhere until the step is done."""

    step: str
    since: Instant
    """From here on the time counts after which the tenant is unwell."""
    outage_since: Instant = 0
    """From here on the step's `give_up_after` counts; 0 while the trouble is no outage of the step's system."""
    outage_seen: Instant = 0
    """When the outage was seen last: time in which nobody asked counts for nothing."""


class Journal(Record):
    """Everything a worker needs, beside the plan and the newest desired version, to know the next move."""

    phase: Phase = Phase.EMPTY
    generation: int = 0
    """Of the newest life; 0 before the first."""
    life: Life | None = None
    """The life that is on, if any."""
    target: Desired | None = None
    """The version that was taken up last."""
    turned_at: Instant = 0
    """When the present phase began; `destroy_after` counts from here."""
    failure: Failure | None = None
    standstill: Standstill | None = None
    """Where the life that is on stands, if it does not move."""
    rollbacks: int = 0
    """Compensations in a row without a newer version between; the waits between them grow with their number."""
    again_at: Instant = 0
    """When a tenant that was rolled back is provisioned again by itself."""
    again_asked: bool = False
    """True if an operator asked, during a compensation, for another provisioning right after it."""
    held: str | None = None
    """Why the version `held_version` waits for another to change."""
    held_version: int = -1
    held_until: Instant = 0
    told: str | None = None
    """What was last said about waiting, so that it is said once."""
    sweeps: tuple[Sweep, ...] = ()
    seq: int = 0
    """Outcomes written so far; a recovery goes on at a greater number."""
    lines: int = 0
    """Audit lines, likewise: one for each answer that changed, or failed to change, something outside."""

    @field_validator("phase", mode="before")
    @classmethod
    def _unparked(cls, phase: object) -> object:
        return _FORMER_PHASES.get(phase, phase) if isinstance(phase, str) else phase

    @model_validator(mode="after")
    def _has_its_life(self) -> Self:
        """A row without the life that its phase is about would be answered as if there were nothing of it anywhere."""
        if self.phase in _OF_A_LIFE and self.life is None:
            raise ValueError(f"{self.phase} without a life")
        return self
