"""One of each record, for tests of what holds for all of them."""

from schemas.audit import Audit
from schemas.dead_letter import DeadLetter
from schemas.event import Event, Observed, Recheck
from schemas.outcome import Direction, Outcome, State
from schemas.seal import Seal
from schemas.tenant import Desired, Flag, Stage, Tenant
from schemas.values import EventType, Record, Source

KEY = "98765432-1234-5678-9abc-def012345678:a1b2c3d4-e5f6-7890-abcd-ef1234567890"
_ORG, _INTEGRATION = KEY.split(":")
_AT = 1_705_329_130_000_000

SAMPLES: tuple[Record, ...] = (
    Event(
        key=KEY, uid="e:1", event=EventType.INSTALLED, occurred_at=_AT, revision=1, tenant_id="acme",
        source=Source.WEBHOOK, configuration={"syncInterval": "PT5M"},
    ),
    Observed(orgId=_ORG, integrationId=_INTEGRATION, read_at=_AT, installed=True, enabled=False, cause="hourly"),
    Recheck(key=KEY, reason="stale", at=_AT),
    Desired(
        key=KEY, version=3, installed=True, enabled=True, configuration={}, tenant_id=None, installed_at=_AT,
        uninstalled_at=None,
    ),
    Outcome.model_validate({
        "key": KEY, "seq": 1, "desired_version": 3, "generation": 1, "direction": Direction.UP,
        "state": State.FAILED, "step": "crm", "class": "refused", "reason": None, "at": _AT,
    }),
    Tenant(
        key=KEY, version=4, tenant_id="acme", installed=True, enabled=None, configuration=None, configuration_mac=None,
        stage=Stage.ACTIVE, reason=None, flags=(Flag.TIE,), revision=1, generation=1, recheck_at=None, updated_at=_AT,
    ),
    Audit(id="t/0/1/delivery", key=KEY, what="delivery", verdict="new", why="", at=_AT, mac="00"),
    Seal(
        partition=0, number=2, first=5, next=9, count=3, macs="00", former="00", first_at=_AT, former_at=_AT, at=_AT,
        mac="00",
    ),
    DeadLetter(
        id="ingress/1", key=None, reason="malformed", detail="body: must be a JSON object", origin="ingress", at=_AT,
        headers={}, body_base64="W10=",
    ),
)  # fmt: skip
