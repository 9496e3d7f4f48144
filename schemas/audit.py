"""The record of the audit trail: keyed, equal to the byte on a replay, and proved by a MAC of its own.

The ledger writes a record per verdict and per change of stage, the provisioner a record per answered create, update or
delete, and the program `lifecycle` a record per retry requested by an operator.
"""

from typing import ClassVar

from schemas.values import Instant, Key, Record


class Audit(Record):
    """A line of the audit trail. Two lines with an equal `id` are equal to the byte.

    The `id` of a verdict is `{topic}/{partition}/{offset}/{kind}`, after the position of the judged record. The `id` of
    a change of stage is `{key}/stage/{version}/{topic}/{offset}`: the version of the `lifecycle.tenants` record, and
    the position of the record behind the change. A call of the provisioner has `{key}/step/{number}`, an operator's
    retry `{key}/retry/{number}`.
    """

    ce_type: ClassVar[str] = "lifecycle.audit.v1"

    id: str
    key: Key
    what: str
    """Sort of line: `delivery`, `audited`, `observation`, `recheck` (a verdict of the ledger), `stage` (a change of
    stage), `step` (a call of the provisioner) or `retry` (a request of an operator)."""
    verdict: str
    """The verdict (`new`, `duplicate`, …) or the change (`pending_install → active`)."""
    why: str
    """The reason in words of the program; never a value from outside."""
    at: Instant
    """Log time of the judged record, or the time of the call or request."""
    mac: str
    """HMAC-SHA256 over the canonical JSON of the other fields, under `material.audit`."""
