"""The saga journal of a key: intents, answers and the state of each step, stored beside the newest desired version.

Rule: a step is journalled before the call (the intent) and after the call (the outcome). A step with an intent counts
as maybe done until an answer settles the question. Records are frozen: the functions of `services.core.saga` return a
changed copy.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from schemas.tenant import Desired
from schemas.values import Instant, Json, Record, TenantId

# Theory. A call to an outside system may take effect although the answer was lost, and a worker may die between call
# and answer. The journal therefore holds, per step, the most that may exist outside (`state`, `location`, `locations`,
# `earlier_create_open`, `unverified`). An answer may only narrow this set as far as the answer proves; a teardown calls
# every step and location in the set. A mark dropped too early leaves a resource behind with no record of it.
#
# Compatibility. During a rolling upgrade workers of two releases take turns at a row, and a release reads an unknown
# field as absent. An earlier release would take a log without its own fields for a resource never made. So a log is
# written with `state` and with the fields of earlier releases, and renamed fields keep the former name in the journal
# (`alias`). An earlier release drops `state`; a log without `state` is read by the former fields.


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
"""Phases of earlier releases, which stopped a failed saga for good. No saga stops any more: the work continues."""

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


class StepState(StrEnum):
    """The state of a step: the newest intent, and the knowledge about the resource.

    A PENDING intent has no known outcome: the call is under way, or the answer was lost. A TO_REPEAT intent was looked
    up by name and is to be repeated with the same idempotency key. A REPEATED intent is pending once more: even a
    refusal of the repetition says nothing about the first call. In the other states no intent is open.

    `services.core.saga.step_transitions` has the transitions.
    """

    ABSENT = "absent"
    """Never asked for, or known to be gone."""
    DENIED = "denied"
    """Asked for, and every answer denied an effect."""
    IN_DOUBT = "in_doubt"
    """The resource may exist."""
    PRESENT = "present"
    PENDING_DENIED = "pending_denied"
    """An intent is pending, and every answer to earlier intents denied an effect."""
    PENDING_IN_DOUBT = "pending_in_doubt"
    PENDING_PRESENT = "pending_present"
    TO_REPEAT_IN_DOUBT = "read_back_in_doubt"
    """Stored under the name of earlier releases, as the next one."""
    TO_REPEAT_PRESENT = "read_back_present"
    REPEATED_IN_DOUBT = "repeated_in_doubt"
    REPEATED_PRESENT = "repeated_present"


class _Former(NamedTuple):
    """A state in the fields of earlier releases.

    Attributes:
        open: True if the newest intent has no known outcome.
        read_back: True if the open intent was looked up by name and is to be repeated.
        lost: True if the newest intent is repeated; without meaning in a step without a pending intent.
        there: Knowledge about the resource.
    """

    open: bool
    read_back: bool
    lost: bool
    there: Presence


_FORMER_FIELDS: Final[Mapping[StepState, _Former]] = {
    StepState.ABSENT: _Former(open=False, read_back=False, lost=False, there=Presence.ABSENT),
    StepState.DENIED: _Former(open=False, read_back=False, lost=False, there=Presence.ASKED),
    StepState.IN_DOUBT: _Former(open=False, read_back=False, lost=False, there=Presence.MAYBE),
    StepState.PRESENT: _Former(open=False, read_back=False, lost=False, there=Presence.PRESENT),
    StepState.PENDING_DENIED: _Former(open=True, read_back=False, lost=False, there=Presence.ASKED),
    StepState.PENDING_IN_DOUBT: _Former(open=True, read_back=False, lost=False, there=Presence.MAYBE),
    StepState.PENDING_PRESENT: _Former(open=True, read_back=False, lost=False, there=Presence.PRESENT),
    StepState.TO_REPEAT_IN_DOUBT: _Former(open=True, read_back=True, lost=False, there=Presence.MAYBE),
    StepState.TO_REPEAT_PRESENT: _Former(open=True, read_back=True, lost=False, there=Presence.PRESENT),
    StepState.REPEATED_IN_DOUBT: _Former(open=True, read_back=False, lost=True, there=Presence.MAYBE),
    StepState.REPEATED_PRESENT: _Former(open=True, read_back=False, lost=True, there=Presence.PRESENT),
}
"""Each state in the fields of earlier releases."""
_BY_FORMER_FIELDS: Final[Mapping[_Former, StepState]] = {former: state for state, former in _FORMER_FIELDS.items()}


def _state_of(former: Mapping[str, Any]) -> StepState:
    """Returns the state of a log that an earlier release wrote.

    Raises:
        ValueError: no release writes this combination of fields.
    """
    is_open, read_back = bool(former.get("open")), bool(former.get("read_back"))
    # Earlier releases kept `lost` in a closed or read back log, where no decision used the mark.
    lost = is_open and not read_back and bool(former.get("lost"))
    fields = _Former(is_open, read_back, lost, Presence(former.get("there", Presence.ABSENT)))
    if fields not in _BY_FORMER_FIELDS:
        told = ", ".join(f"{name}={value}" for name, value in fields._asdict().items())
        raise ValueError(f"no release writes a step with {told}")
    return _BY_FORMER_FIELDS[fields]


class StepVerdict(StrEnum):
    """The class of the newest answer to a step."""

    DONE = "done"
    RETRYABLE = "retryable"
    """The step is called again after a wait."""
    UNKNOWN = "unknown"
    """The effect of the call is unknown: the resource is looked up by name before the next call."""
    REFUSED = "refused"
    """The system refused. A create or update is not repeated in this phase; a teardown is tried again."""
    EXHAUSTED = "exhausted"
    """Of a create or update: the outage outlasted the step's `give_up_after`."""
    OPERATOR_REFUSED = "blocked"
    """The operator's own system refuses the operator's credentials or set-up; the step waits for a remedy."""
    CONTRADICTED = "contradicted"
    """The system answered with success but shows a different resource than requested; the step waits for a person."""


class StepLog(Record):
    """The record of a step in a life: the newest intent and outcome, and the knowledge about the resource.

    `verdict`, `unverified`, `earlier_create_open` and `succeeded` are facts beside the state: each of these may hold in
    most of the states, and `state` would have a member for each pair.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    n: int = 0
    """Number of intents so far (after a recovery a greater number); part of the newest intent's idempotency key."""
    verb: str | None = None
    """Verb of the newest intent: `create`, `update` or `delete`."""
    at: Instant = 0
    """Time of the newest intent or outcome."""
    began_at: Instant = 0
    """Time of the newest intent; a repeat after a success keeps the time of the work under way."""
    state: StepState = StepState.ABSENT
    """The newest intent and the knowledge about the resource."""
    earlier_create_open: bool = Field(default=False, alias="older")
    """True if an earlier create with different inputs may have had an effect."""
    unverified: bool = Field(default=False, alias="doubted")
    """True after a recovery: the resource may exist at any of `locations`, even if a system refuses to show it."""
    succeeded: bool = False
    """True if the newest create or update succeeded, but the answer does not show the present resource."""
    verdict: StepVerdict = StepVerdict.DONE
    """Class of the newest answer."""
    inputs: Json = Field(default_factory=dict)
    """Inputs of the newest create or update: `configuration` (only the names in use by the step) and `enabled`."""
    intended: str | None = None
    """Hash of the settings and inputs of the newest create or update."""
    applied: str | None = None
    """Hash of the settings and inputs known to be in force; null while in doubt."""
    outputs: Json = Field(default_factory=dict)
    """Outputs of the system for the present resource; values declared secret are sealed."""
    previous_outputs: Json = Field(default_factory=dict, alias="former")
    """Outputs for a former resource; only later steps use these, when the later steps are undone."""
    location: str | None = Field(default=None, alias="place")
    """The `url` of the newest create or update; null if the step has no URL, or if the call is known to have had no
    effect."""
    locations: tuple[str, ...] = Field(default=(), alias="places")
    """Further URLs at which earlier calls may have made the resource; emptied when an answer proves `location`."""
    tries: int = 0
    """Calls of this phase without progress; the waits between calls grow with this number."""
    not_before: Instant = 0
    """Earliest time of the next call."""
    reason: str = ""
    """The reason why the newest answer was not `done`."""
    retried: bool = False
    """True if an operator asked for a retry since the newest answer."""

    @property
    def open(self) -> bool:
        """True if the newest intent has no known outcome: the call is under way, or the answer was lost."""
        return _FORMER_FIELDS[self.state].open

    @property
    def presence(self) -> Presence:
        """The knowledge about the resource."""
        return _FORMER_FIELDS[self.state].there

    @model_validator(mode="before")
    @classmethod
    def _with_state(cls, stored: Any) -> Any:
        if not isinstance(stored, dict) or "state" in stored:
            return stored
        return {**stored, "state": _state_of(stored)}

    @model_serializer(mode="wrap")
    def _with_former_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**handler(self), **_FORMER_FIELDS[self.state]._asdict()}


class Life(Record):
    """A generation of a key: from before the first intent until the end of teardown or compensation."""

    model_config = ConfigDict(serialize_by_alias=True)

    generation: int
    plan: str
    """Digest of the plan at the start of the life; a life ends with the plan of its start."""
    tenant_id: TenantId
    """The tenantId of the binding; teardown uses this value, never the tenantId of an event."""
    steps: dict[str, StepLog] = Field(default_factory=dict)
    """The record of each step, by the step's name."""
    last_applied: Desired | None = Field(default=None, alias="good")
    """The last version applied in full."""
    issued_for: Instant = 0
    """`installed_at` of the version with the last issue of tokens."""
    reissue: tuple[str, ...] = ()
    """Steps to be undone and done again, because an `uninstalled` lay between two installs."""
    adopted_at: Instant = 0
    """Time of the vendor's file that told of this life (`lifecycle adopt`); 0 for a life that the provisioner made. The
    ledger is told of an install at this time, so an older uninstall says nothing about the life."""


class OrphanCheck(Record):
    """An ended life, looked up again by name for resources of a call with a lost answer."""

    due_at: Instant
    """Time of the look-up."""
    life: Life


class Failure(Record):
    """The failure of a phase: the step and the class of the answer."""

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

    model_config = ConfigDict(serialize_by_alias=True)

    phase: Phase = Phase.EMPTY
    """The present task."""
    generation: int = 0
    """Generation of the newest life; 0 before the first."""
    life: Life | None = None
    """The present life; null if no life is in progress."""
    target: Desired | None = None
    """The desired version taken up last."""
    phase_began_at: Instant = Field(default=0, alias="turned_at")
    """Start of the present phase; `destroy_after` counts from here."""
    remove_at: Instant = 0
    """Earliest time of the first delete of a teardown; 0 for no wait. From `Desired.remove_after_s`."""
    released_at: Instant = 0
    """Time of the first delete of a teardown that was held before; 0 for any other."""
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
    orphan_checks: tuple[OrphanCheck, ...] = Field(default=(), alias="sweeps")
    """Ended lives still to be looked up."""
    forgotten: tuple[int, ...] = ()
    """Generations that an operator released (`lifecycle adopt --release`): their resources are nobody's orphans."""
    forgotten_at: Instant = 0
    """Time of the newest release, and of the `uninstalled` that the ledger is told of it; 0 before the first."""
    seq: int = 0
    """Number of outcomes so far; a recovery goes on at a greater number."""
    lines: int = 0
    """Number of audit lines so far (after a recovery a greater number): a line per call of a change, and per retry that
    an operator asks for."""

    @field_validator("phase", mode="before")
    @classmethod
    def _in_present_phase(cls, phase: object) -> object:
        return _FORMER_PHASES.get(phase, phase) if isinstance(phase, str) else phase

    @model_validator(mode="after")
    def _has_its_life(self) -> Self:
        """Refuses a journal without the life of the phase: the saga would take every resource for absent."""
        if self.phase in _OF_A_LIFE and self.life is None:
            raise ValueError(f"{self.phase} without a life")
        return self
