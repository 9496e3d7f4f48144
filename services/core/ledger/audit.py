"""Builds and verifies lines of the audit trail; equal arguments give lines equal to the byte.

Rule: the MAC covers all remaining fields in canonical JSON, so a changed field is detected. No line contains a personal
datum or a value of a configuration.
"""

import hmac
from collections.abc import Iterable

from schemas import codec
from schemas.audit import Audit
from schemas.times import rfc3339
from schemas.values import Key
from services.core.ledger.identity import canonical, keyed


def line(*, line_id: str, key: Key, what: str, verdict: str, why: str, at_us: int, material: bytes) -> Audit:
    """Returns a line with its MAC.

    Args:
        line_id: Unique per decision or change, and equal in every repetition.
        key: `orgId:integrationId`.
        what: `delivery`, `audited`, `observation`, `recheck`, `stage`, `step` or `retry`.
        verdict: The decision or the change.
        why: The reason in words of the program, never a value from outside.
        at_us: Time of the decided record or change, microseconds UTC; not the time of writing, so a replay is equal.
        material: The newest key of `material.audit`.
    """
    mac = _mac(material, line_id, key, what, verdict, why, at_us)
    return Audit(id=line_id, key=key, what=what, verdict=verdict, why=why, at=at_us, mac=mac)


def message(audit: Audit, service: str, trace: str | None) -> codec.Message:
    """Returns a line as a message of `service` for the topic `lifecycle.audit`.

    Args:
        audit: The line.
        service: The writing service.
        trace: The `traceparent` of the cause; None without a trace. The MAC does not cover the header.
    """
    source = f"/genesys-lifecycle/{service}"
    return codec.encode(audit, key=audit.key, ce_id=audit.id, source=source, at_us=audit.at, trace=trace)


def is_genuine(audit: Audit, materials: Iterable[bytes]) -> bool:
    """True if the MAC of a line is correct under any of the keys."""
    # A list, not a generator: all MACs are computed before the first comparison.
    macs = [_mac(m, audit.id, audit.key, audit.what, audit.verdict, audit.why, audit.at) for m in materials]
    return any(hmac.compare_digest(mac.encode(), audit.mac.encode()) for mac in macs)


def _mac(material: bytes, line_id: str, key: Key, what: str, verdict: str, why: str, at_us: int) -> str:
    """Returns the MAC over the canonical JSON of the fields, as hex."""
    covered = {"id": line_id, "key": key, "what": what, "verdict": verdict, "why": why, "at": rfc3339(at_us)}
    return keyed(material, canonical(covered))
