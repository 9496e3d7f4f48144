"""What became of a desired version: written by the provisioner, folded into the stage by the ledger."""

from enum import StrEnum
from typing import ClassVar, Final

from pydantic import Field

from schemas.values import Instant, Key, Record, TenantId

WORDS_MAX: Final = 1_000
"""Characters of a word or a short cause: it rides along in the key's row and view."""


TENANT_CONFLICT: Final = "tenant_conflict"
"""Reason of a version that is held because its tenantId is bound to another organisation."""


class Direction(StrEnum):
    """Towards existence or away from it."""

    UP = "up"
    DOWN = "down"


class State(StrEnum):
    """How far the work for a desired version has come."""

    WORKING = "working"
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    HELD = "held"


class Outcome(Record):
    """One record per turn of a saga; `seq` orders them per key, whatever Kafka repeats."""

    ce_type: ClassVar[str] = "lifecycle.outcome.v1"

    key: Key
    seq: int
    """1, 2, 3 … per key; after the recovery of an older registry greater by far."""
    desired_version: int
    """The desired version answered."""
    tenant_id: TenantId | None = None
    """The tenantId that the life is bound to, whatever a later `installed` names; null where no life is on, and in
    records that are older than this field."""
    generation: int
    direction: Direction
    state: State
    step: str | None = Field(default=None, max_length=WORDS_MAX)
    """The step it stands at or failed at."""
    error_class: str | None = Field(default=None, alias="class", max_length=WORDS_MAX)
    """`refused`, `exhausted`, `blocked`, `contradicted`, …: the class of the last answer, never its text."""
    reason: str | None = Field(default=None, max_length=WORDS_MAX)
    """`retrying`, `system_away`, `system_refuses`, `waiting_for:STEP` (from 15 minutes on), `compensating`, `grace`,
    `tenant_conflict`, `tenant_unknown`, `tenant_changed`, `update_refused`, or the step and its last answer's class."""
    at: Instant
