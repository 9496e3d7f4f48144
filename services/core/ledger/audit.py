"""One line of the audit trail, and its MAC: identical to the byte whenever the same thing is said again.

Rule: the MAC covers every other field in canonical form, so whoever changes one is found; nothing that identifies a
person and no value of a configuration is ever put into a line.
"""

import hmac
from collections.abc import Iterable

from schemas import codec
from schemas.audit import Audit
from schemas.times import rfc3339
from schemas.values import Key
from services.core.ledger.identity import canonical, keyed


def line(*, line_id: str, key: Key, what: str, verdict: str, why: str, at_us: int, material: bytes) -> Audit:
    """Write one line.

    Args:
        line_id: Unique per thing said; equal for its repeats.
        key: `orgId:integrationId`.
        what: `delivery`, `observation`, `recheck`, `stage`, `step` or `retry`.
        verdict: What was decided, or what changed.
        why: Words of ours, never a value from outside.
        at_us: When it happened, from the record that caused it.
        material: The newest key of `material.audit`.
    """
    mac = _mac(material, line_id, key, what, verdict, why, at_us)
    return Audit(id=line_id, key=key, what=what, verdict=verdict, why=why, at=at_us, mac=mac)


def message(audit: Audit, service: str) -> codec.Message:
    """The line as a record for `lifecycle.audit`, written by `service`."""
    return codec.encode(audit, key=audit.key, ce_id=audit.id, source=f"/genesys-lifecycle/{service}", at_us=audit.at)


def genuine(audit: Audit, materials: Iterable[bytes]) -> bool:
    """Whether one of these keys wrote the line as it stands."""
    macs = [_mac(m, audit.id, audit.key, audit.what, audit.verdict, audit.why, audit.at) for m in materials]
    return any(hmac.compare_digest(mac.encode(), audit.mac.encode()) for mac in macs)


def _mac(material: bytes, line_id: str, key: Key, what: str, verdict: str, why: str, at_us: int) -> str:
    said = {"id": line_id, "key": key, "what": what, "verdict": verdict, "why": why, "at": rfc3339(at_us)}
    return keyed(material, canonical(said))
