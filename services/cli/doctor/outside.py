"""Checks of the systems outside: those of the operator that the plan names, the archive, and Genesys.

Rule: a system is asked for nothing but an answer. Any HTTP status below 500 is one: what it may do for us is known only
to who calls it with an intent.
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
from services.core.url_redaction import shown, shown_in

_ASK_S: Final = 5.0
_LOGINS_AT_ONCE: Final = 8
_NAMED: Final = 3


def systems(asked: CheckContext) -> Iterator[Finding]:
    """Every URL of the operator's that the plan names, and those that stand for a region of Genesys."""
    chosen, urls = asked.settings, dict[str, str]()
    try:
        plan = read_plan(chosen)
    except (BadPlan, OSError, UnicodeDecodeError):
        yield skipped("operator's systems", "the plan cannot be read", "put right what the check `plan` says")
    else:
        for step in plan.steps:
            if step.settings.get("url_from") == "operator" and (url := _operators(step.settings["url"], step.given)):
                urls[f"step {step.name}"] = url
    for name in ("genesys_login_url", "genesys_api_url"):
        if url := getattr(chosen, name):
            urls[name.upper()] = url
    with ThreadPoolExecutor(max(1, min(8, len(urls)))) as pool:
        for (name, url), why in zip(urls.items(), pool.map(_why_not, urls.values()), strict=True):
            if why:
                yield fault(name, f"{shown(url)}: {why}", "start that system, or correct its URL (PLAN_FILE, settings)")
            else:
                yield well(name, f"{shown(url)} answers")


def archive(asked: CheckContext) -> Iterator[Finding]:
    """The object store of the audit archive."""
    chosen = asked.settings
    url = chosen.archive_url or (chosen.state_dir / "archive").absolute().as_uri()
    if url.startswith("file:"):
        yield _folder(Path(unquote(urlsplit(url).path)))
        return
    try:
        _look_into(url)
    except Exception as error:  # noqa: BLE001 - obstore raises many unrelated classes, each of them means no
        # The store's own words repeat the URL.
        told = shown_in((str(error).splitlines() or [type(error).__name__])[0])
        cure = "correct ARCHIVE_URL, the bucket, or the credentials that its store reads from the environment"
        yield fault("archive", f"ARCHIVE_URL: {told}", cure)
    else:
        yield well("archive", f"{shown(url)} answers")


def genesys(asked: CheckContext) -> Iterator[Finding]:
    """Log in for every organisation, and read what the reconciler would read."""
    known = organisations.load(asked.settings.orgs_dir).known
    if not known:
        yield skipped("Genesys", "no organisation has credentials here", "put a file for each into ORGS_DIR")
        return
    faults = {org_id: why for org_id, why in asyncio.run(_logins(asked, known)).items() if why}
    if faults:
        told = "; ".join(f"{org_id}: {why}" for org_id, why in list(faults.items())[:_NAMED])
        more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        cure = "correct id, secret and region in its file; the OAuth client needs integrations:integration:view"
        yield fault("Genesys", f"{len(faults)} of {counted(len(known), 'organisation')}: {told}{more}", cure)
    else:
        yield well("Genesys", f"{counted(len(known), 'organisation')}: each login works, each listing is whole")


async def _logins(asked: CheckContext, known: "dict[str, Organisation]") -> dict[str, str]:

    chosen, gate = asked.settings, asyncio.Semaphore(_LOGINS_AT_ONCE)
    async with connections() as http:

        async def one(organisation: Organisation) -> str:
            async with gate:
                try:
                    hosts = hosts_for(organisation, chosen.genesys_login_url, chosen.genesys_api_url)
                    await GenesysClient(organisation, hosts, http, now_us=asked.now_us).listing()
                except NoInformation as none:
                    return none.reason
            return ""

        told = await asyncio.gather(*(one(organisation) for organisation in known.values()))
    return dict(zip(known, told, strict=True))


def _operators(text: str, given: Mapping[str, Any]) -> str | None:
    """The URL of a step with the operator's settings in it; None where something of a tenant is in it too."""
    found, missing = substitute({"url": text}, Facts({}, {}, {}, given))
    return None if missing else str(found["url"])


def _why_not(url: str) -> str:
    """Why a system gives no answer; empty text when it does. Blocks."""
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


def _folder(path: Path) -> Finding:
    if path.is_dir():
        return well("archive", str(path))
    if path.exists():
        return fault("archive", f"{path} is no folder", "name a folder in ARCHIVE_URL")
    return skipped("archive", f"{path} is not there yet", "start `lifecycle provisioner`: it makes the folder")


def _look_into(url: str) -> None:
    """Ask an object store for one name.

    Raises:
        Exception: one of obstore's: it gives no answer, or refuses.
    """
    patience = {"connect_timeout": f"{_ASK_S:g}s", "timeout": f"{_ASK_S:g}s", "allow_http": True}
    store = from_url(url, client_options=patience, retry_config={"max_retries": 0})  # type: ignore[call-overload]
    if isinstance(store, HTTPStore):
        try:
            obstore.head(store, "lifecycle-doctor")
        except FileNotFoundError:
            return
    else:
        next(iter(obstore.list(store, chunk_size=1)), None)
