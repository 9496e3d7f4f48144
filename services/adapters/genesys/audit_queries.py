"""Reads the audits of the service `Integrations` of an organisation: the record of changes that Genesys keeps itself.

Two calls answer the same question. The realtime query answers at once and reaches 14 days back. The transaction query
reaches further; Genesys carries it out in the background, so its state is asked until it has ended.

Rules:
- Audits of a time span are read whole or `NoInformation` is raised: a missing audit would be a change never looked at.
- The audits are not filtered by entity type: a filter that names a type wrongly would look like silence.
- Both calls spend at most `AUDIT_SHARE` of the token's budget: the listing is worth more.

Sources: the API's models AuditRealtimeQueryRequest, AuditRealtimeQueryResultsResponse,
AuditQueryExecutionStatusResponse, AuditQueryExecutionResultsResponse and AuditLogMessage; permission
audits:audit:view.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas import genesys_audits
from schemas.genesys_audits import GenesysAudit
from schemas.times import rfc3339
from services.adapters.genesys.answers import NoInformation, date_us, shaped
from services.adapters.genesys.api_session import ApiRequest, ApiSession

AUDIT_SHARE: Final = 0.2
"""Part of the token's budget for audits: 60 of 300 requests a minute."""
REALTIME_US: Final = 14 * 86_400_000_000
"""Reach of the realtime query: 14 days."""
MANY: Final = 5_000
"""Most audits of one reading. More are asked for in shorter spans, so that trouble costs a part and not the whole."""
SHORTEST_US: Final = 1_800_000_000
"""A span of 30 minutes, twice the overlap of two spans, is read whatever its audits."""
_PAGE_SIZE: Final = 100
_PAGES_MAX: Final = 999
_RESULTS_MAX: Final = 200
"""Most answers with results of a transaction: four times the pages of `MANY`, where a page is full."""
_PATH: Final = "/api/v2/audits/query"
_SUBJECT: Final = "audits"
_ASK_S: Final = 1.0
"""Wait before the state of a transaction is asked; doubled up to `_ASK_MAX_S`."""
_ASK_MAX_S: Final = 8.0
_ASKS: Final = 12
_ENDED: Final = frozenset({"failed", "cancelled"})


class TooMany(NoInformation):
    """A span has more audits than `MANY`; the half of the span may have fewer."""


@dataclass(frozen=True, slots=True)
class AuditReading:
    """The audits of a time span.

    Attributes:
        audits: All audits of the span, each once.
        read_at_us: `Date` of the first answer, microseconds UTC by the clock of Genesys.
        odd: Number of audits without an id or an entity; such an audit names no integration.
    """

    audits: Sequence[GenesysAudit]
    read_at_us: int
    odd: int = 0


async def read_audits(session: ApiSession, begin_us: int, end_us: int, now_us: Callable[[], int]) -> AuditReading:
    """Read the audits of a time span, by the call that reaches so far back.

    Args:
        session: Requests of the organisation.
        begin_us: Begin of the span, microseconds UTC.
        end_us: End of the span, microseconds UTC.
        now_us: Our clock, microseconds UTC.

    Raises:
        NotPermitted: the organisation's client lacks the permission for audits.
        TooMany: the span has to be read in parts.
        NoInformation: a request failed, or the audits are incomplete.
    """
    asked = {
        "interval": f"{_millis(begin_us)}/{_millis(end_us + 999)}",
        "serviceName": genesys_audits.SERVICE,
        # In order of time: an audit that arrives during the reading then moves no earlier audit to another page.
        "sort": [{"name": "Timestamp", "sortOrder": "ascending"}],
    }
    most = MANY if end_us - begin_us > SHORTEST_US else None
    if now_us() - begin_us > REALTIME_US:
        return await _transaction(session, asked, now_us, most=most)
    return await _realtime(session, asked, now_us, most=most)


async def _realtime(
    session: ApiSession, asked: dict[str, Any], now_us: Callable[[], int], *, most: int | None
) -> AuditReading:
    found: dict[str, GenesysAudit] = {}
    odd, total, read_at_us = 0, None, 0
    for number in range(1, _PAGES_MAX + 1):
        body = {**asked, "pageNumber": number, "pageSize": _PAGE_SIZE}
        answer = await session.answer(ApiRequest(_SUBJECT, f"{_PATH}/realtime", body=body, share=AUDIT_SHARE))
        read_at_us = read_at_us or date_us(answer, now_us())
        page = shaped(genesys_audits.page, answer, _SUBJECT)
        if page.number != number or (total is not None and page.total != total):
            raise NoInformation(f"{_SUBJECT}: incomplete: they changed while they were read")
        total = page.total
        if most is not None and total > most:
            raise TooMany(f"{_SUBJECT}: {total} in one span, and {most} are read at most")
        found.update((audit.id, audit) for audit in page.audits)
        odd += page.odd
        if not (page.audits or page.odd) or len(found) + odd >= total:
            if len(found) + odd != total:
                raise NoInformation(f"{_SUBJECT}: incomplete: {len(found) + odd} of {total}")
            return AuditReading(tuple(found.values()), read_at_us, odd)
    raise NoInformation(f"{_SUBJECT}: the pages do not end")


async def _transaction(
    session: ApiSession, asked: dict[str, Any], now_us: Callable[[], int], *, most: int | None
) -> AuditReading:
    answer = await session.answer(ApiRequest(_SUBJECT, _PATH, body=asked, share=AUDIT_SHARE))
    read_at_us = date_us(answer, now_us())
    execution = shaped(genesys_audits.execution, answer, _SUBJECT)
    path, wait_s = f"{_PATH}/{execution.id}", _ASK_S
    for _ in range(_ASKS):
        # A state that this version does not know is no end: it is asked again.
        if execution.state == "succeeded":
            return await _results(session, path, read_at_us, most=most)
        if execution.state in _ENDED:
            break
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _ASK_MAX_S)
        execution = await session.read(genesys_audits.execution, ApiRequest(_SUBJECT, path, share=AUDIT_SHARE))
    raise NoInformation(f"{_SUBJECT}: the query ended without results: {execution.state}")


async def _results(session: ApiSession, path: str, read_at_us: int, *, most: int | None) -> AuditReading:
    found: dict[str, GenesysAudit] = {}
    odd, cursors = 0, set[str]()
    query: dict[str, str | int] = {"pageSize": _PAGE_SIZE}
    for _ in range(_RESULTS_MAX):
        request = ApiRequest(_SUBJECT, f"{path}/results", query, share=AUDIT_SHARE)
        results = await session.read(genesys_audits.results, request)
        found.update((audit.id, audit) for audit in results.audits)
        odd += results.odd
        if most is not None and len(found) + odd > most:
            raise TooMany(f"{_SUBJECT}: more than {most} in one span")
        if results.cursor is None:
            return AuditReading(tuple(found.values()), read_at_us, odd)
        if results.cursor in cursors:
            raise NoInformation(f"{_SUBJECT}: the results do not end: a cursor was answered twice")
        cursors.add(results.cursor)
        query = {"pageSize": _PAGE_SIZE, "cursor": results.cursor}
    raise NoInformation(f"{_SUBJECT}: the results do not end")


def _millis(at_us: int) -> str:
    """Return an instant as the API writes them, with milliseconds."""
    return f"{rfc3339(at_us)[:23]}Z"
