"""The outcome of a desired version: written by the provisioner, folded into the tenant's stage by the ledger."""

from enum import StrEnum
from typing import ClassVar, Final

from pydantic import Field

from schemas.values import Instant, Key, Record, TenantId

WORDS_MAX: Final = 1_000
"""Greatest length of step, class and reason, in characters: the ledger copies these texts into row and view."""


TENANT_CONFLICT: Final = "tenant_conflict"
"""Reason of a held version: the tenantId is bound to a different organisation."""


class Direction(StrEnum):
    """Direction of the work: `up` creates or updates resources, `down` removes the resources."""

    UP = "up"
    DOWN = "down"


class State(StrEnum):
    """Progress of the work for a desired version."""

    WORKING = "working"
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    HELD = "held"


class Outcome(Record):
    """The progress of a saga. Per key, `seq` orders the outcomes, so readers may ignore repeated or older records."""

    ce_type: ClassVar[str] = "lifecycle.outcome.v1"

    key: Key
    seq: int
    """1, 2, 3 … per key; after the recovery of an older registry the sequence goes on with a far greater number."""
    desired_version: int
    """The desired version that this outcome answers."""
    tenant_id: TenantId | None = None
    """The tenantId of the life's binding, even if a later `installed` names a different tenantId. Null without a life,
    and in records from before this field."""
    generation: int
    direction: Direction
    state: State
    step: str | None = Field(default=None, max_length=WORDS_MAX)
    """The step at which the saga waits or failed."""
    error_class: str | None = Field(default=None, alias="class", max_length=WORDS_MAX)
    """Class of the last answer (`refused`, `exhausted`, `blocked`, `contradicted`, …), never the text of the answer."""
    reason: str | None = Field(default=None, max_length=WORDS_MAX)
    """`retrying`, `system_away`, `system_refuses`, `waiting_for:STEP` (from 15 minutes on), `compensating`, `grace`,
    `tenant_conflict`, `tenant_unknown`, `tenant_changed`, `released`, `update_refused`, or the step and the class of
    its last answer."""
    at: Instant
