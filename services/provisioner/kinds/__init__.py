"""The hands of a step: one file for each kind of outside system, what it does above what undoes it.

Promise: a kind turns a `Call` into one of the seven answers and raises for nothing the world may do. It keeps no state
between calls that matters; everything a repeat needs is in the call.
"""

from typing import Final, Protocol

from obstore.store import ObjectStore, from_url

from schemas.topics import AUDIT, named
from services.adapters.audit_trail import AuditTrail
from services.adapters.clock import now_us
from services.adapters.http import Client, resolve
from services.adapters.logs import Logger
from services.adapters.registry import usable
from services.adapters.settings import Settings, Unusable, required
from services.provisioner.caller import Hand
from services.provisioner.kinds.archive import Archive
from services.provisioner.kinds.http import Http
from services.provisioner.kinds.oauth import OAuth
from services.provisioner.kinds.outbound import Outbound
from services.provisioner.kinds.postgres import Postgres
from services.provisioner.kinds.subscription import Subscription

SECRET_OUTPUTS: Final = {
    "archive": frozenset[str](),
    "http": frozenset[str](),
    "oauth": frozenset({"access_token"}),
    "postgres": frozenset[str](),
    "subscription": frozenset[str](),
}
"""Kind to the names of its outputs that are sealed before they are stored."""

_SCAN_S: Final = 10.0


class Kind(Hand, Protocol):
    """One kind of outside system, for as long as a process lives."""

    async def close(self) -> None:
        """Let go of everything that is open."""


def build(settings: Settings, log: Logger) -> dict[str, Kind]:
    """Every kind by its name in the plan; nothing is connected yet. Call it on the event loop that will use them.

    Raises:
        Unusable: a setting that a kind needs is missing or cannot be used.
    """
    if settings.egress_map:
        log.warning("event URLs are replaced", hosts=sorted(settings.egress_map))
    client = Client(connections=settings.sagas_at_once)
    outbound = Outbound(client, resolve, allow=settings.egress_allow, egress_map=settings.egress_map)
    trail = AuditTrail(settings.kafka, named(AUDIT, settings.topic_prefix), timeout_s=_SCAN_S)
    database = settings.tenant_database_url or required(settings, "database_url")
    return {
        "archive": Archive(_store(settings), trail.of, now_us),
        "http": Http(outbound),
        "oauth": OAuth(outbound),
        "postgres": Postgres(usable("TENANT_DATABASE_URL", database), settings.system_calls_at_once),
        "subscription": Subscription(outbound),
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
