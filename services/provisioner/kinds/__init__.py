"""Kinds: the code for each sort of outside system, one file per kind, with the creating calls above the undoing call.

Rule: a kind turns every `Call` into one of the seven answers of `services.core.saga.calls`. Failures of network,
system and input are answers; only a programming error raises. A kind may keep connections, never facts: everything
needed to repeat a call after a crash, in another process, is in the call. Idempotency comes from the resource's name
(key and generation) and the call's idempotency key.
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
"""Kind to the names of outputs that are sealed before the journal is stored."""

_SCAN_S: Final = 10.0
"""Time limit of one scan of the audit trail."""


class StepKind(StepHandler, Protocol):
    """Step handler of one kind, shared by all sagas of a process."""

    async def close(self) -> None:
        """Closes the connections; safe to call for kinds that share a client."""


def build(settings: Settings, log: Logger) -> dict[str, StepKind]:
    """Returns every kind by its name in the plan, not connected yet. Call on the event loop that will use the kinds.

    Args:
        settings: Settings of the process.
        log: Logger of the service.

    Raises:
        Unusable: a setting needed by a kind is missing or cannot be used.
    """
    if settings.egress_map:
        log.warning("event URLs are replaced", hosts=sorted(settings.egress_map))
    client = HttpClient(connections=settings.sagas_at_once)
    outbound = Outbound(client, resolve, allow=settings.egress_allow, egress_map=settings.egress_map)
    trail = AuditTrail(settings.kafka, named(AUDIT, settings.topic_prefix), timeout_s=_SCAN_S)
    # Without a database of their own, tenants' schemas lie beside the registry's.
    database = settings.tenant_database_url or required(settings, "database_url")
    return {
        "archive": ArchiveKind(_store(settings), trail.of, now_us),
        "http": HttpKind(outbound),
        "oauth": OAuthKind(outbound),
        "postgres": PostgresKind(usable("TENANT_DATABASE_URL", database), settings.system_calls_at_once),
        "subscription": SubscriptionKind(outbound),
    }


def _store(settings: Settings) -> ObjectStore:
    """Returns the object store of the archive; a missing folder of a `file:` URL is made.

    Raises:
        Unusable: ARCHIVE_URL cannot be used.
    """
    url = settings.archive_url or (settings.state_dir / "archive").absolute().as_uri()
    try:
        if url.startswith("file:"):
            return from_url(url, mkdir=True)
        # No retries in the client: the saga retries, with waits and a record in the journal. Plain http is allowed
        # for an object store on the operator's own network; the URL never comes from an event.
        return from_url(url, client_options={"allow_http": True}, retry_config={"max_retries": 0})
    except Exception as error:  # noqa: BLE001 - obstore raises several unrelated classes for a URL it cannot use
        raise Unusable(f"ARCHIVE_URL: {error}") from None
