"""Checks of a single organisation by real calls to Genesys, for `lifecycle orgs` and `lifecycle doctor --org`.

Rule: the checks go on as far as one answer needs no former one, and end with the listing that the reconciler itself
reads. Every fault has a remedy that names the place in Genesys or in the file.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from math import ceil
from typing import Final
from urllib.parse import urlsplit

import httpx2

from schemas import genesys
from schemas.genesys import Organisation, Strange
from services.adapters.genesys import organisations
from services.adapters.genesys.answers import CLOCK_OFF_US, NoInformation
from services.adapters.genesys.client import PAGE_SIZE, GenesysClient, Hosts, connections, hosts_for
from services.adapters.genesys.diagnostic_session import DiagnosticAnswer, DiagnosticSession, TokenRefused
from services.adapters.genesys.regions import DOMAINS
from services.adapters.process.settings import ReconcilerSettings
from services.cli.doctor.finding import Check, CheckContext, Finding, Health, fault, skipped, well
from services.cli.options import nearest
from services.cli.wording import counted

VIEW: Final = "integrations:integration:view"
AUDITS: Final = "audits:audit:view"
LIMIT_S: Final = 60.0
"""Time limit of the check of one organisation in `lifecycle doctor`."""

_REWRITE: Final = "`lifecycle orgs add ORG --replace` writes the file anew"
_ROLE: Final = f"in Genesys give the OAuth client a role with {VIEW}, in every division (Admin, Roles / Permissions)"
_TYPES_SHOWN: Final = 4


async def check_organisation(
    organisation: Organisation, settings: ReconcilerSettings, http: httpx2.AsyncClient, now_us: Callable[[], int]
) -> list[Finding]:
    """Asks Genesys about an organisation's file: region, login, organisation, clock, permissions and paging.

    Args:
        organisation: The organisation's file.
        settings: May name hosts in place of the region's hosts.
        http: HTTP client, from `connections`.
        now_us: Our clock, microseconds UTC.
    """
    try:
        hosts = hosts_for(organisation, settings.genesys_login_url, settings.genesys_api_url)
    except NoInformation:
        return [fault("region", region_fault(organisation.region), f"correct `region`: {_REWRITE}")]
    login = urlsplit(hosts.login_url).netloc
    try:
        session = await DiagnosticSession.log_in(organisation, hosts, http, now_us)
    except TokenRefused as refused:
        return [_refused_login(refused.status, login)]
    except NoInformation as none:
        cure = f"open the way to {login} (proxy, firewall, name server), and compare `region`"
        return [fault("login", f"{login} does not answer ({none.reason})", cure)]
    found = [well("login", f"{login} gives a token")]
    try:
        me = await session.ask("/api/v2/organizations/me")
        found += [_identity(me, organisation, login), _clock(me)]
        found += await _integrations(session)
        found.append(await _audits(session))
    except NoInformation as none:
        api = urlsplit(hosts.api_url).netloc
        found.append(fault("api", f"{api} does not answer ({none.reason})", f"open the way to {api}, and try again"))
    if not has_faults(found):
        found += await _whole_listing(organisation, hosts, http, now_us)
    return found


def has_faults(found: list[Finding]) -> bool:
    """True if any finding is a fault."""
    return any(finding.health is Health.FAULT for finding in found)


async def login_fault(
    organisation: Organisation, settings: ReconcilerSettings, http: httpx2.AsyncClient, now_us: Callable[[], int]
) -> str:
    """Returns why an organisation gets no token of its own; empty text for a valid token."""
    try:
        hosts = hosts_for(organisation, settings.genesys_login_url, settings.genesys_api_url)
        me = await (await DiagnosticSession.log_in(organisation, hosts, http, now_us)).ask("/api/v2/organizations/me")
    except TokenRefused as refused:
        return f"refused (HTTP {refused.status})"
    except NoInformation as none:
        return f"no answer ({none.reason})" if not none.reason.startswith("region") else "no such region"
    finding = _identity(me, organisation, "")
    return "" if finding.health is Health.WELL else finding.detail


def region_fault(region: str | None) -> str:
    """Returns the fault of a missing or unknown region in words, with the nearest regions."""
    if region is None:
        return "no region is given, and GENESYS_LOGIN_URL and GENESYS_API_URL name no hosts"
    names = [*DOMAINS, *DOMAINS.values()]
    near = nearest(region, names) or f"; there are {', '.join(DOMAINS.values())}"
    return f"{region!r} is no region of Genesys Cloud{near}"


def named_check(given: str) -> Check:
    """Returns the check of `lifecycle doctor --org` for an organisation.

    Args:
        given: Organisation id, the beginning of the id, or the name in the file.
    """
    return Check(f"Genesys {given[:8]}", partial(_findings_of, given), LIMIT_S)


def matches(given: str, known: dict[str, Organisation], broken: dict[str, str]) -> list[str]:
    """Returns the ids of the organisations named by an id, the beginning of an id, or the name in a file."""
    text, ids = given.lower(), {*known, *broken}
    if text in ids:
        return [text]
    labelled = [org_id for org_id, organisation in known.items() if organisation.name == given]
    return labelled or sorted(org_id for org_id in ids if text and org_id.startswith(text))


def _findings_of(given: str, context: CheckContext) -> Iterator[Finding]:
    folder = context.settings.orgs_dir
    found = organisations.load(folder)
    ids = matches(given, found.known, found.faults)
    if len(ids) != 1:
        what = f"{given!r} names {counted(len(ids), 'organisation')} of {folder}"
        yield fault(f"Genesys {given[:8]}", what, "`lifecycle orgs list` shows their ids")
        return
    subject = f"Genesys {ids[0][:8]}"
    if ids[0] in found.faults:
        yield fault(subject, f"{ids[0]}.json: {found.faults[ids[0]]}", _REWRITE)
        return

    async def findings() -> list[Finding]:
        async with connections() as http:
            return await check_organisation(found.known[ids[0]], context.settings, http, context.now_us)

    for finding in asyncio.run(findings()):
        yield Finding(f"{subject} {finding.what}", finding.health, finding.detail, finding.cure)


def _refused_login(status: int, login: str) -> Finding:
    """Returns the finding of a login without a token."""
    if status in {httpx2.codes.BAD_REQUEST, httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN}:
        detail = f"{login} refuses the client id or the secret (HTTP {status})"
        cure = (
            "compare both with Genesys (Admin, Integrations, OAuth; grant type Client Credentials), and `region`: "
            f"a client exists in one region alone. {_REWRITE}"
        )
        return fault("login", detail, cure)
    detail = f"{login} gives no token (HTTP {status})"
    return fault("login", detail, "this is no login of Genesys, or it is in trouble: compare `region`, try again later")


def _identity(me: DiagnosticAnswer, organisation: Organisation, login: str) -> Finding:
    """Returns the finding of the organisation behind the token."""
    what = "organisation"
    if me.status == httpx2.codes.FORBIDDEN:
        return fault(what, "the OAuth client has no right to ask for its own organisation", _ROLE)
    if me.status != httpx2.codes.OK:
        cure = f"{login} and the API are of different regions, or Genesys is in trouble: compare `region`, try again"
        return fault(what, f"the API does not take the token (HTTP {me.status})", cure)
    try:
        found = genesys.organisation_id(me.body)
    except Strange as strange:
        return fault(what, f"organizations/me: {strange}", "this is no API of Genesys: compare GENESYS_API_URL")
    if found != organisation.org_id:
        cure = f"use an OAuth client made in {organisation.org_id}, or write the file for {found}"
        return fault(what, f"the OAuth client belongs to {found}", cure)
    return well(what, f"the OAuth client belongs to {found}")


def _clock(me: DiagnosticAnswer) -> Finding:
    what, ahead_us = "clock", me.ahead_us
    if ahead_us is None:
        return fault(what, "the answer has no Date that can be read", "a proxy takes the header away: let it through")
    if abs(ahead_us) > CLOCK_OFF_US:
        side = "ahead of" if ahead_us > 0 else "behind"
        detail = f"this machine's clock is {abs(ahead_us) // 1_000_000} s {side} that of Genesys; 90 s are the limit"
        return fault(what, detail, "keep the clock with NTP or chrony: nothing that Genesys says counts meanwhile")
    # `Date` has whole seconds.
    return well(what, f"within {abs(ahead_us) // 1_000_000 + 1} s of that of Genesys")


async def _integrations(session: DiagnosticSession) -> list[Finding]:
    """Returns the findings of the permission to list integrations, of the types, and of paging."""
    what = "integrations"
    first = await session.ask("/api/v2/integrations", pageSize=PAGE_SIZE, pageNumber=1)
    if first.status == httpx2.codes.FORBIDDEN:
        return [fault(what, f"the OAuth client may not list integrations ({VIEW})", _ROLE)]
    if first.status != httpx2.codes.OK:
        return [fault(what, f"no listing (HTTP {first.status})", _retry(first.status))]
    try:
        page = genesys.page(first.body)
    except Strange as strange:
        return [fault(what, str(strange), "this is no API of Genesys: compare GENESYS_API_URL")]
    if not page.total:
        detail = "the listing is empty, which is never believed: no integration there, or none that the client may see"
        return [fault(what, detail, f"install one; or {_ROLE}")]
    return [well(what, f"the listing has {page.total}"), await _paging(session, page)]


async def _paging(session: DiagnosticSession, whole: genesys.Page) -> Finding:
    """Returns the finding of a listing in pages: two halves must be disjoint and add up to the whole."""
    what, size = "paging", ceil(whole.total / 2)
    if whole.total == 1 or size > PAGE_SIZE:
        return skipped(what, f"{whole.total} in the listing", "nothing to do: the comparison proves every page")
    seen: Counter[str] = Counter()
    for number in (1, 2):
        answer = await session.ask("/api/v2/integrations", pageSize=size, pageNumber=number)
        try:
            page = genesys.page(answer.body)
        except Strange:
            return fault(what, f"page {number}: HTTP {answer.status}", _retry(answer.status))
        if page.number != number:
            return fault(what, f"page {page.number} came for page {number}", "a cache or proxy in between: bypass it")
        seen.update(entity.id for entity in page.integrations)
        seen.update({f"odd {number} {place}": 1 for place in range(len(page.odd))})
    if len(seen) != whole.total or max(seen.values()) > 1:
        detail = f"two pages of {size} have {len(seen)} different integrations, and the listing has {whole.total}"
        return fault(what, detail, "run it again: it changed meanwhile, or a cache or proxy in between mixes the pages")
    return well(what, f"two pages of {size} add up")


async def _audits(session: DiagnosticSession) -> Finding:
    """Returns the finding of the permission to read audits, which is no need."""
    what = "audits"
    answer = await session.ask("/api/v2/audits/query/servicemapping")
    if answer.status == httpx2.codes.OK:
        return well(what, f"the OAuth client may read them ({AUDITS})")
    if answer.status == httpx2.codes.FORBIDDEN:
        cure = f"optional: add {AUDITS} to its role, and lost webhooks are found sooner than by the hourly comparison"
        return skipped(what, f"the OAuth client may not read them ({AUDITS})", cure)
    return skipped(what, f"no answer about them (HTTP {answer.status})", "optional: try again later")


async def _whole_listing(
    organisation: Organisation, hosts: Hosts, http: httpx2.AsyncClient, now_us: Callable[[], int]
) -> list[Finding]:
    """Returns the findings of the reconciler's own reading of the listing: complete, and which types are ours."""
    try:
        reading = await GenesysClient(organisation, hosts, http, now_us=now_us).listing()
    except NoInformation as none:
        cure = "`lifecycle orgs check` again; if it stays, a cache, proxy or role in between hides a part"
        return [fault("comparison", f"the listing proves nothing: {none.reason}", cure)]
    types = Counter(entity.type_id or "(no type)" for entity in reading.integrations.values())
    shown = ", ".join(f"{count} {name}" for name, count in types.most_common(_TYPES_SHOWN))
    more = f", and {len(types) - _TYPES_SHOWN} more types" if len(types) > _TYPES_SHOWN else ""
    listed = f"{shown}{more}"
    if not organisation.types:
        detail = f"integration_types is empty, so all are taken for yours: {listed}"
        return [_types(detail, "name yours: `lifecycle orgs add ORG --replace --integration-type TYPE`")]
    ours = {name: types[name] for name in sorted(organisation.types)}
    unknown = [name for name, count in ours.items() if not count]
    if unknown:
        near = nearest(unknown[0], types)
        detail = f"none is of the type {', '.join(unknown)}{near}; there are {listed}"
        return [_types(detail, "compare `integration_types`, or wait until the customer has installed one")]
    return [well("types", ", ".join(f"{count} {name}" for name, count in ours.items()) + " are compared")]


def _types(detail: str, cure: str) -> Finding:
    # No fault: an organisation before its first install, or a vendor's own test organisation, looks like this.
    return skipped("types", detail, cure)


def _retry(status: int) -> str:
    if status == httpx2.codes.TOO_MANY_REQUESTS:
        return "the requests of this OAuth client are used up for the minute: try again then"
    return "Genesys is in trouble, or a proxy answers for it: try again later"
