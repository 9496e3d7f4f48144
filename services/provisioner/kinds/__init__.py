"""Kinds: the code for each sort of outside system, one file per kind, with the creating calls above the undoing call.

Rule: a kind turns every `Call` into one of the seven answers of `services.core.saga.calls`. Failures of network,
system and input are answers; only a programming error raises. A kind may keep connections, never facts: everything
needed to repeat a call after a crash, in another process, is in the call. Idempotency comes from the resource's name
(key and generation) and the call's idempotency key.

A kind is a class in a file of its own: traits, `build`, and the calls. A new kind needs a file and a line in `KINDS`.
Contradicting traits, two kinds with equal names and a class without traits stop the import of this package.
"""

from collections.abc import Mapping
from typing import Final

from schemas.topics import AUDIT, named
from services.adapters.http_client import HttpClient, resolve
from services.adapters.kafka.audit_trail import AuditTrail
from services.adapters.process.clock import now_us
from services.adapters.process.logs import Logger
from services.adapters.process.settings import ProvisionerSettings
from services.core.saga.plan import Plan
from services.provisioner.kinds.archive import ArchiveKind
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.oauth import OAuthKind
from services.provisioner.kinds.outbound import Outbound
from services.provisioner.kinds.postgres import PostgresKind
from services.provisioner.kinds.python import PythonKind
from services.provisioner.kinds.rest import RestKind
from services.provisioner.kinds.script import ScriptKind
from services.provisioner.kinds.step_kind import Shared, StepKind, traits_of
from services.provisioner.kinds.subscription import SubscriptionKind

KINDS: Final[tuple[type[StepKind], ...]] = (
    ArchiveKind,
    HttpKind,
    OAuthKind,
    PostgresKind,
    PythonKind,
    RestKind,
    ScriptKind,
    SubscriptionKind,
)
"""All kinds of this release, in the order of docs/plan.md."""

TRAITS: Final = traits_of(KINDS)
"""Name of a kind in the plan to the kind's traits."""

_SCAN_S: Final = 10.0
"""Time limit of one scan of the audit trail."""


def build(settings: ProvisionerSettings, log: Logger) -> dict[str, StepKind]:
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
    shared = Shared(
        Outbound(client, resolve, allow=settings.egress_allow, egress_map=settings.egress_map),
        AuditTrail(settings.kafka, named(AUDIT, settings.topic_prefix), timeout_s=_SCAN_S),
        now_us,
        log,
    )
    return {kind.traits.name: kind.build(settings, shared) for kind in KINDS}


async def faults_of(built: Mapping[str, StepKind], plan: Plan) -> list[str]:
    """Returns one sentence for each fault of a plan that only the kinds can find: code that is missing or differs.

    Args:
        built: The kinds.
        plan: A checked plan.
    """
    python = built[PythonKind.traits.name]
    return await python.faults_of(plan) if isinstance(python, PythonKind) else []
