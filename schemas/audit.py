"""The audit trail: one record per verdict and per change of stage, keyed, identical on replay, each with its MAC."""

from typing import ClassVar

from schemas.values import Instant, Key, Record


class Audit(Record):
    """One line of the trail. Repeats by `id` are equal to the byte.

    `id` is `{topic}/{partition}/{offset}/{kind}` for a verdict; for a change of stage
    `{key}/stage/{version}/{topic}/{offset}`, the version of the `lifecycle.tenants` record and what caused it; and
    `{key}/step/{number}`, `{key}/retry/{number}` for a call of the provisioner and an operator's wish to try again.
    """

    ce_type: ClassVar[str] = "lifecycle.audit.v1"

    id: str
    key: Key
    what: str
    """`delivery`, `observation`, `recheck` (ledger, a verdict), `stage` (ledger, a change), `step` (provisioner) or
    `retry` (an operator)."""
    verdict: str
    """The verdict (`new`, `duplicate`, …) or the change (`pending_install → active`)."""
    why: str
    at: Instant
    mac: str
    """HMAC-SHA256 over the canonical JSON of the other fields, under `material.audit`."""
