"""Derives the published records of a key from the ledger's rows: `desired`, the public view, and events.

Rule: a record is a function of the rows (an event: of the entry and the texts in the row), so publishing again writes
equal bytes. Only the restricted `desired` carries a whole configuration. Public records carry the published names
alone, and texts under these names lose user, query and fragment of every URL (`redacted`).
"""

from dataclasses import dataclass
from typing import NamedTuple

from jiter import from_json

from schemas import codec
from schemas.dead_letter import DeadLetterReason
from schemas.event import Event
from schemas.journal import Entry, Published, Registers
from schemas.rows import StageRow, TenantRow
from schemas.tenant import Desired, Tenant
from schemas.topics import DEAD_LETTERS, DESIRED, EVENTS, TENANTS, Topic
from schemas.values import Json
from services.core.dead_letters import dead_letter_of, origin_of_record
from services.core.ledger.identity import keyed
from services.core.ledger.journal import RecordPosition
from services.core.ledger.merge import is_removed_by_audits_alone, merged_state
from services.core.ledger.redaction import redacted
from services.core.ledger.stage import stage, tenant_ids

_LEDGER = "/genesys-lifecycle/ledger"


@dataclass(frozen=True, slots=True)
class ProjectionRules:
    """Keys and published names, fixed for the life of a ledger process.

    Attributes:
        identity: `material.identity`, the key of F.
        configuration: `material.configuration`, the key of `configuration_mac`.
        audit: The newest key of `material.audit`.
        published_names: Names of a configuration in public records (`PUBLISHED_NAMES`).
        removal_grace_s: Seconds that a teardown waits if audits alone assert the removal (`AUDIT_REMOVAL_GRACE_S`).
    """

    identity: bytes
    configuration: bytes
    audit: bytes
    published_names: tuple[str, ...]
    removal_grace_s: int


@dataclass(frozen=True, slots=True)
class Output:
    """A message with the destination topic."""

    topic: Topic
    message: codec.Message


class DesiredValues(NamedTuple):
    """The values of `desired`, in a form for comparison."""

    installed: bool
    enabled: bool
    digest: str | None
    tenant_id: str | None
    installed_at_us: int | None
    uninstalled_at_us: int | None
    by_audits_alone: bool
    """True for a removal that audits alone assert."""


def desired_values(now: Registers) -> DesiredValues:
    """Returns the desired values by the registers; a key not to be installed is neither enabled nor configured."""
    merged = merged_state(now)
    installed = merged.installed is True
    return DesiredValues(
        installed=installed,
        enabled=installed and merged.enabled is True,
        digest=merged.digest if installed else None,
        tenant_id=None if now.tenant is None else now.tenant.value,
        installed_at_us=None if now.installed is None else now.installed.at_us,
        uninstalled_at_us=None if now.uninstalled is None else now.uninstalled.at_us,
        by_audits_alone=is_removed_by_audits_alone(now),
    )


def desired(row: TenantRow, rules: ProjectionRules) -> tuple[Output, ...]:
    """Returns `desired` with the version of the last publication; nothing before the first event."""
    if not row.desired_version:
        return ()
    wanted = desired_values(row.now)
    record = Desired(
        key=row.key,
        version=row.desired_version,
        installed=wanted.installed,
        enabled=wanted.enabled,
        configuration=configuration(row, wanted.digest) or {},
        tenant_id=wanted.tenant_id,
        installed_at=wanted.installed_at_us,
        uninstalled_at=wanted.uninstalled_at_us,
        received_at=row.desired_at_us or None,
        remove_after_s=rules.removal_grace_s if wanted.by_audits_alone else None,
    )
    ce_id = f"{row.key}/desired/{row.desired_version}"
    message = codec.encode(record, key=row.key, ce_id=ce_id, source=_LEDGER, at_us=row.desired_at_us, trace=row.trace)
    return (Output(DESIRED, message),)


def tenant(row: TenantRow | None, last: StageRow | None, rules: ProjectionRules) -> tuple[Output, ...]:
    """Returns the public view of a key; nothing if both rows are None."""
    key = row.key if row is not None else last.key if last is not None else None
    if key is None:
        return ()
    row, last = row or TenantRow(key), last or StageRow(key)
    merged, (reached, reason), named = merged_state(row.now), stage(row, last), tenant_ids(row, last)
    whole = None if merged.digest is None else (row.texts or {}).get(merged.digest)
    record = Tenant(
        key=key,
        version=row.version + last.version,
        tenant_id=named.tenant_id,
        claimed_tenant_id=named.claimed,
        installed=merged.installed,
        enabled=merged.enabled,
        configuration=published_configuration(configuration(row, merged.digest), rules),
        configuration_mac=None if whole is None else keyed(rules.configuration, whole.encode()),
        stage=reached,
        reason=reason,
        flags=row.flags,
        revision=row.revision,
        generation=last.generation,
        recheck_at=row.recheck_at_us,
        event_at=row.desired_at_us or None,
        updated_at=max(row.updated_at_us, last.updated_at_us),
    )
    # The version is a sum, because a change of either row must raise the version.
    ce_id = f"{key}/tenant/{record.version}"
    at_us = record.updated_at
    return (Output(TENANTS, codec.encode(record, key=key, ce_id=ce_id, source=_LEDGER, at_us=at_us, trace=row.trace)),)


def event(row: TenantRow, entry: Entry, rules: ProjectionRules, *, at_us: int, trace: str | None) -> Output:
    """Returns an event with the content of the first publication, even if the entry changed afterwards.

    Args:
        row: The row with the text of the event's configuration.
        entry: An entry with a revision.
        rules: For the published names.
        at_us: Log time of the record behind the revision, microseconds UTC.
        trace: The `traceparent` of that record; None without a trace.
    """
    first = entry.first_published or Published(entry.event, entry.at_us, entry.tenant_id, entry.digest, entry.source)
    record = Event(
        key=row.key,
        uid=entry.uid,
        event=first.event,
        occurred_at=first.at_us,
        revision=entry.revision,
        tenant_id=first.tenant_id,
        source=first.source,
        configuration=published_configuration(configuration(row, first.digest), rules) or {},
    )
    ce_id = f"{row.key}/{entry.uid}"
    return Output(EVENTS, codec.encode(record, key=row.key, ce_id=ce_id, source=_LEDGER, at_us=at_us, trace=trace))


def dead_letter(
    key: str | None, reason: DeadLetterReason, detail: str, position: RecordPosition, raw: codec.Message | None
) -> Output:
    """Returns the dead letter of a refused record.

    Args:
        key: The key of the record.
        reason: The reason.
        detail: The field and the broken rule, never a value.
        position: The position of the record.
        raw: The untouched record; None for an empty one.
    """
    origin = origin_of_record(position.topic, position.partition, position.offset, position.log_time_us)
    raw = raw or codec.Message(None, b"", [])
    return Output(DEAD_LETTERS, dead_letter_of(origin, key, reason, detail, raw, source="ledger"))


def configuration(row: TenantRow, digest: str | None) -> Json | None:
    """Returns the whole configuration of a digest; None without a digest, or without a text in the row."""
    text = None if digest is None else (row.texts or {}).get(digest)
    if text is None:
        return None
    found: Json = from_json(text.encode())
    return found


def published_configuration(whole: Json | None, rules: ProjectionRules) -> Json | None:
    """Returns the published names of a configuration, with redacted URLs; None without a configuration."""
    if whole is None:
        return None
    return {name: redacted(whole[name]) for name in rules.published_names if name in whole}
