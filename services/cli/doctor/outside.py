"""Checks of the outside systems: the operator's systems in the plan, the archive, and Genesys.

Rule: a check asks a system only for an answer, and any HTTP status below 500 is an answer. The rights to carry out a
step cannot be checked without an intent.
"""

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx2
import obstore
from obstore.store import HTTPStore, from_url

from schemas.genesys import Organisation
from services.adapters.genesys import organisations
from services.adapters.genesys.answers import NoInformation
from services.adapters.genesys.client import GenesysClient, connections, hosts_for
from services.cli.doctor.finding import CheckContext, Finding, fault, skipped, well
from services.cli.doctor.this_machine import read_plan
from services.cli.wording import counted
from services.core.saga.plan import BadPlan
from services.core.saga.references import Facts, substitute
from services.core.url_redaction import redacted_text, redacted_url

_ASK_S: Final = 5.0
"""Seconds for the answer of one system."""
_LOGINS_AT_ONCE: Final = 8
_MOST_NAMED: Final = 3


def systems(context: CheckContext) -> Iterator[Finding]:
    """Checks every URL of an operator's system in the plan, and the URLs in place of a region of Genesys."""
    chosen, urls = context.settings, dict[str, str]()
    try:
        plan = read_plan(chosen)
    except (BadPlan, OSError, UnicodeDecodeError):
        yield skipped("operator's systems", "the plan cannot be read", "put right what the check `plan` says")
    else:
        for step in plan.steps:
            if step.settings.get("url_from") == "operator" and (url := _operator_url(step.settings["url"], step.given)):
                urls[f"step {step.name}"] = url
    for name in ("genesys_login_url", "genesys_api_url"):
        if url := getattr(chosen, name):
            urls[name.upper()] = url
    # A pool of at least one: ThreadPoolExecutor refuses 0 workers, and the plan may name no system.
    with ThreadPoolExecutor(max(1, min(8, len(urls)))) as pool:
        for (name, url), why in zip(urls.items(), pool.map(_http_fault, urls.values()), strict=True):
            if why:
                yield fault(
                    name, f"{redacted_url(url)}: {why}", "start that system, or correct its URL (PLAN_FILE, settings)"
                )
            else:
                yield well(name, f"{redacted_url(url)} answers")


def archive(context: CheckContext) -> Iterator[Finding]:
    """Checks the object store of the audit archive."""
    chosen = context.settings
    url = chosen.archive_url or (chosen.state_dir / "archive").absolute().as_uri()
    if url.startswith("file:"):
        yield _folder_finding(Path(unquote(urlsplit(url).path)))
        return
    try:
        _probe_store(url)
    except Exception as error:  # noqa: BLE001 - obstore raises many unrelated classes, each of them means no
        # The store's own words repeat the URL.
        detail = redacted_text((str(error).splitlines() or [type(error).__name__])[0])
        cure = "correct ARCHIVE_URL, the bucket, or the credentials that its store reads from the environment"
        yield fault("archive", f"ARCHIVE_URL: {detail}", cure)
    else:
        yield well("archive", f"{redacted_url(url)} answers")


def genesys(context: CheckContext) -> Iterator[Finding]:
    """Checks the login of every organisation by the reconciler's listing of integrations."""
    known = organisations.load(context.settings.orgs_dir).known
    if not known:
        yield skipped("Genesys", "no organisation has credentials here", "`lifecycle orgs add` writes a file for each")
        return
    faults = {org_id: why for org_id, why in asyncio.run(_logins(context, known)).items() if why}
    if faults:
        detail = "; ".join(f"{org_id}: {why}" for org_id, why in list(faults.items())[:_MOST_NAMED])
        more = f" and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
        cure = "`lifecycle orgs check ORG` says of each what to do"
        yield fault("Genesys", f"{len(faults)} of {counted(len(known), 'organisation')}: {detail}{more}", cure)
    else:
        yield well("Genesys", f"{counted(len(known), 'organisation')}: each login works, each listing is whole")


async def _logins(context: CheckContext, known: "dict[str, Organisation]") -> dict[str, str]:
    """Returns the fault of each organisation, by id; empty text for a whole listing."""
    chosen, gate = context.settings, asyncio.Semaphore(_LOGINS_AT_ONCE)
    async with connections() as http:

        async def one(organisation: Organisation) -> str:
            async with gate:
                try:
                    # A wrong region raises here, a refused login in the listing; both as NoInformation.
                    hosts = hosts_for(organisation, chosen.genesys_login_url, chosen.genesys_api_url)
                    await GenesysClient(organisation, hosts, http, now_us=context.now_us).listing()
                except NoInformation as none:
                    return none.reason
            return ""

        reasons = await asyncio.gather(*(one(organisation) for organisation in known.values()))
    return dict(zip(known, reasons, strict=True))


def _operator_url(text: str, given: Mapping[str, Any]) -> str | None:
    """Returns the URL of a step with the operator's settings filled in; None if the URL depends on a tenant as well."""
    found, missing = substitute({"url": text}, Facts({}, {}, {}, given))
    return None if missing else str(found["url"])


def _http_fault(url: str) -> str:
    """Returns the fault of a system that does not answer; empty text if the system answers. Blocks."""
    try:
        # To read the certificates of the world takes long, and plain HTTP needs none.
        tls = url.startswith("https:")
        with httpx2.Client(timeout=_ASK_S, trust_env=False, follow_redirects=False, verify=tls) as client:
            status = client.get(url).status_code
    except httpx2.TimeoutException:
        return f"no answer within {_ASK_S:g} s"
    except httpx2.ConnectError as error:
        why = str(error)
        return f"TLS fails: {why}" if "certificate" in why.lower() or "ssl" in why.lower() else "no connection opens"
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return f"no answer ({type(error).__name__})"
    return f"HTTP {status}" if status >= httpx2.codes.INTERNAL_SERVER_ERROR else ""


def _folder_finding(path: Path) -> Finding:
    """Returns the finding for an archive in a folder."""
    if path.is_dir():
        return well("archive", str(path))
    if path.exists():
        return fault("archive", f"{path} is no folder", "name a folder in ARCHIVE_URL")
    return skipped("archive", f"{path} is not there yet", "start `lifecycle provisioner`: it makes the folder")


def _probe_store(url: str) -> None:
    """Requests one name, or one page of a listing, from an object store.

    Raises:
        Exception: any class of obstore's: the store does not answer, or refuses.
    """
    # No retries: the check has a time limit of its own, and a retry would hide the first answer.
    patience = {"connect_timeout": f"{_ASK_S:g}s", "timeout": f"{_ASK_S:g}s", "allow_http": True}
    store = from_url(url, client_options=patience, retry_config={"max_retries": 0})  # type: ignore[call-overload]
    # An HTTP store has no listing; a missing name proves that the store answers.
    if isinstance(store, HTTPStore):
        try:
            obstore.head(store, "lifecycle-doctor")
        except FileNotFoundError:
            return
    else:
        next(iter(obstore.list(store, chunk_size=1)), None)
