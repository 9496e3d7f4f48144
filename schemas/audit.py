"""The record of the audit trail: keyed, equal to the byte on a replay, and proved by a MAC of its own.

The ledger writes a record per verdict and per change of stage, the provisioner a record per answered create, update or
delete. The program `lifecycle` writes a record per retry requested by an operator, and a record per key of an
operator's act by name.
"""

from typing import ClassVar

from pydantic import Field

from schemas.values import Instant, Key, Record


class OperatorAct(Record):
    """An act of an operator by name, about a set of keys; each key of the set has an audit record of the act."""

    by: str
    """Name of the operator, as given by the operator."""
    reason: str
    """The operator's reason; empty if none was given."""
    digest: str
    """Digest of exactly the set: 16 hex digits."""
    number: int
    """Number of the keys, or of the orphans, in the set."""
    expires_at: Instant | None = None
    """End of an approval or a refusal; null for an act without an end, as a refusal at the provisioner's brake."""


class Audit(Record):
    """A line of the audit trail. Two lines with an equal `id` are equal to the byte.

    The `id` of a verdict is `{topic}/{partition}/{offset}/{kind}`, after the position of the judged record. The `id` of
    a change of stage is `{key}/stage/{version}/{topic}/{offset}`: the version of the `lifecycle.tenants` record, and
    the position of the record behind the change. A call of the provisioner has `{key}/step/{number}`, an operator's
    retry `{key}/retry/{number}`, a request to remove orphans `{key}/orphans_removal/{number}`, an adoption or a release
    `{key}/{what}/{number}`. An approval or a refusal has `{key}/{what}/{digest}/{at}`.
    """

    ce_type: ClassVar[str] = "lifecycle.audit.v1"

    id: str
    key: Key
    what: str
    """Sort of line: `delivery`, `audited`, `observation`, `recheck` (a verdict of the ledger), `stage` (a change of
    stage), `step` (a call of the provisioner), `retry` (a request of an operator), or an act of an operator by name:
    `removal_approved`, `removal_refused`, `newcomer_approved`, `orphans_removal`, `adoption`, `release`."""
    verdict: str
    """The verdict (`new`, `duplicate`, …) or the change (`pending_install → active`)."""
    why: str
    """The reason in words of the program; never a value from outside."""
    act: OperatorAct | None = Field(default=None, exclude_if=lambda act: act is None)
    """The act of an operator by name; absent in every other record."""
    at: Instant
    """Log time of the judged record, or the time of the call or request."""
    mac: str
    """HMAC-SHA256 over the canonical JSON of the other fields, under `material.audit`."""
