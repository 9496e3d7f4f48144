"""Parsers for the answers of the audit queries of the public Genesys Cloud API.

Rule: only the fields in use are parsed, as in `schemas.genesys`. An audit is a hint to look at an integration, never a
proof of a change, so an unknown action is kept as text, and an unreadable time is None.
Source: the API's models AuditLogMessage, AuditRealtimeQueryResultsResponse, AuditQueryExecutionStatusResponse and
AuditQueryExecutionResultsResponse.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from schemas.genesys import Strange, whole
from schemas.times import instant
from schemas.values import UUID_PATTERN

SERVICE: Final = "Integrations"
"""The audited service of integrations."""
ENTITY_TYPE: Final = "Integration"

_UUID: Final = re.compile(UUID_PATTERN, re.IGNORECASE | re.ASCII)
_TRANSACTION: Final = re.compile(r"[\w-]{1,100}", re.ASCII)


@dataclass(frozen=True, slots=True)
class GenesysAudit:
    """An audit about an entity.

    Attributes:
        id: Id of the audit.
        at_us: Time of the change, microseconds UTC; None if unreadable.
        action: The text of `action`, perhaps unknown to this version; empty if absent.
        entity_id: Lower-cased UUID of the entity.
        entity_type: The text of `entityType`; empty if absent.
    """

    id: str
    at_us: int | None
    action: str
    entity_id: str
    entity_type: str


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A page of the realtime query: its number from 1, the number of audits on all pages, and the audits.

    Attributes:
        number: Page number.
        total: Number of audits on all pages.
        audits: The audits about an entity with a UUID.
        odd: Number of all further audits.
    """

    number: int
    total: int
    audits: tuple[GenesysAudit, ...]
    odd: int


@dataclass(frozen=True, slots=True)
class AuditExecution:
    """A transaction query in the background.

    Attributes:
        id: Id of the transaction.
        state: State in lower case: queued, running, succeeded, failed, cancelled, or unknown to this version.
    """

    id: str
    state: str


@dataclass(frozen=True, slots=True)
class AuditResults:
    """Results of a transaction query.

    Attributes:
        audits: The audits about an entity with a UUID.
        odd: Number of all further audits.
        cursor: The cursor of the next results; None at the end.
    """

    audits: tuple[GenesysAudit, ...]
    odd: int
    cursor: str | None


def page(body: dict[str, Any]) -> AuditPage:
    """Returns a page of the realtime query.

    Raises:
        Strange: `pageNumber`, `total` or `entities` is missing or malformed.
    """
    number, total = whole(body.get("pageNumber")), whole(body.get("total"))
    if number is None or total is None:
        raise Strange("audits.pageNumber, audits.total: must be whole numbers")
    audits, odd = _audits(body)
    return AuditPage(number, total, audits, odd)


def execution(body: dict[str, Any]) -> AuditExecution:
    """Returns the state of a transaction query.

    Raises:
        Strange: `id` or `state` is missing or malformed.
    """
    identity, state = body.get("id"), body.get("state")
    if not isinstance(identity, str) or not _TRANSACTION.fullmatch(identity) or not isinstance(state, str):
        raise Strange("audits.id, audits.state: must be text")
    return AuditExecution(identity, state.lower())


def results(body: dict[str, Any]) -> AuditResults:
    """Returns results of a transaction query.

    Raises:
        Strange: `entities` is missing or malformed.
    """
    audits, odd = _audits(body)
    cursor = body.get("cursor")
    return AuditResults(audits, odd, cursor if isinstance(cursor, str) and cursor else None)


def _audits(body: dict[str, Any]) -> tuple[tuple[GenesysAudit, ...], int]:
    # A query without a match answers without `entities`, or with null.
    entities = body.get("entities", [])
    if entities is None:
        entities = []
    if not isinstance(entities, list):
        raise Strange("audits.entities: must be a list")
    found = [audit for audit in map(_audit, entities) if audit is not None]
    return tuple(found), len(entities) - len(found)


def _audit(body: Any) -> GenesysAudit | None:
    if not isinstance(body, dict):
        return None
    entity, identity, action, kind = (body.get(name) for name in ("entity", "id", "action", "entityType"))
    entity_id = entity.get("id") if isinstance(entity, dict) else None
    if not isinstance(identity, str) or not isinstance(entity_id, str) or not _UUID.fullmatch(entity_id):
        return None
    return GenesysAudit(
        id=identity,
        at_us=_instant(body.get("eventDate")),
        action=action if isinstance(action, str) else "",
        entity_id=entity_id.lower(),
        entity_type=kind if isinstance(kind, str) else "",
    )


def _instant(value: Any) -> int | None:
    try:
        return instant(value) if isinstance(value, str) else None
    except ValueError:
        return None
