"""The hands of a step: one file for each kind of outside system, what it does above what undoes it.

Promise: a kind turns a `Call` into one of the seven answers and raises for nothing the world may do. It keeps no state
between calls that matters; everything a repeat needs is in the call.
"""

from typing import Final, Protocol

from obstore.store import ObjectStore, from_url

from schemas.topics import AUDIT, named
from services.adapters.http_client import HttpClient, resolve
from services.adapters.kafka.audit_trail import AuditTrail
from services.adapters.process.clock import now_us
from services.adapters.process.logs import Logger
from services.adapters.process.settings import Settings, Unusable, required
from services.adapters.registry.registry import usable
from services.provisioner.caller import StepHandler
from services.provisioner.kinds.archive import ArchiveKind
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.oauth import OAuthKind
from services.provisioner.kinds.outbound import Outbound
from services.provisioner.kinds.postgres import PostgresKind
from services.provisioner.kinds.subscription import SubscriptionKind

SECRET_OUTPUTS: Final = {
    "archive": frozenset[str](),
    "http": frozenset[str](),
    "oauth": frozenset({"access_token"}),
    "postgres": frozenset[str](),
    "subscription": frozenset[str](),
}
"""Kind to the names of its outputs that are sealed before they are stored."""

_SCAN_S: Final = 10.0


class StepKind(StepHandler, Protocol):
    """One kind of outside system, for as long as a process lives."""

    async def close(self) -> None:
        """Let go of everything that is open."""


def build(settings: Settings, log: Logger) -> dict[str, StepKind]:
    """Every kind by its name in the plan; nothing is connected yet. Call it on the event loop that will use them.

    Raises:
        Unusable: a setting that a kind needs is missing or cannot be used.
    """
    if settings.egress_map:
        log.warning("event URLs are replaced", hosts=sorted(settings.egress_map))
    client = HttpClient(connections=settings.sagas_at_once)
    outbound = Outbound(client, resolve, allow=settings.egress_allow, egress_map=settings.egress_map)
    trail = AuditTrail(settings.kafka, named(AUDIT, settings.topic_prefix), timeout_s=_SCAN_S)
    database = settings.tenant_database_url or required(settings, "database_url")
    return {
        "archive": ArchiveKind(_store(settings), trail.of, now_us),
        "http": HttpKind(outbound),
        "oauth": OAuthKind(outbound),
        "postgres": PostgresKind(usable("TENANT_DATABASE_URL", database), settings.system_calls_at_once),
        "subscription": SubscriptionKind(outbound),
    }


def _store(settings: Settings) -> ObjectStore:
    """The archive's object store; a folder is made when it is missing.

    Raises:
        Unusable: the URL names none.
    """
    url = settings.archive_url or (settings.state_dir / "archive").absolute().as_uri()
    try:
        if url.startswith("file:"):
            return from_url(url, mkdir=True)
        # The saga is what tries again; plain http is for a store beside us, whose URL the operator set.
        return from_url(url, client_options={"allow_http": True}, retry_config={"max_retries": 0})
    except Exception as error:  # noqa: BLE001 - obstore raises several unrelated classes for a URL it cannot use
        raise Unusable(f"ARCHIVE_URL: {error}") from None
