"""A row of the registry's table of sagas, as read for operators."""

from dataclasses import dataclass

from schemas.saga import Journal


@dataclass(frozen=True, slots=True)
class SagaRow:
    """A saga as stored in the registry.

    Attributes:
        key: `orgId:integrationId`.
        desired_version: The newest stored version.
        phase: The journal's phase.
        generation: Generation of the newest life.
        tenant_id: The bound tenantId; None if no life is current.
        waits_for: The outside system that the saga waits for, if that system is away.
        why: The reason for waiting, if the journal does not give the reason.
        due_s: The next due time, seconds since 1970; None: due only when a newer version is stored.
        changed_s: Time of the last write, seconds since 1970.
        worker: The worker with a valid lease; None if there is none.
        journal: The journal as last written.
    """

    key: str
    desired_version: int
    phase: str
    generation: int
    tenant_id: str | None
    waits_for: str | None
    why: str | None
    due_s: float | None
    changed_s: float
    worker: str | None
    journal: Journal
