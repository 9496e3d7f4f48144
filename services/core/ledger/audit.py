"""Builds and verifies lines of the audit trail; equal arguments give lines equal to the byte.

Rule: the MAC covers all remaining fields in canonical JSON, so a changed field is detected. No line contains a personal
datum of a tenant or a value of a configuration. An operator's act names the operator.
"""

import hmac
from collections.abc import Iterable
from typing import Any

from schemas import codec
from schemas.audit import Audit, OperatorAct
from schemas.times import rfc3339
from schemas.values import Key
from services.core.ledger.identity import canonical, keyed


def line(  # noqa: PLR0913 - the fields of a record, by name
    *,
    line_id: str,
    key: Key,
    what: str,
    verdict: str,
    why: str,
    at_us: int,
    material: bytes,
    act: OperatorAct | None = None,
) -> Audit:
    """Returns a line with its MAC.

    Args:
        line_id: Unique per decision or change, and equal in every repetition.
        key: `orgId:integrationId`.
        what: Sort of line (`Audit.what`).
        verdict: The decision or the change.
        why: The reason in words of the program, never a value from outside.
        at_us: Time of the decided record or change, microseconds UTC; not the time of writing, so a replay is equal.
        material: The newest key of `material.audit`.
        act: An act of an operator by name; None for any other line.
    """
    unproved = Audit(id=line_id, key=key, what=what, verdict=verdict, why=why, act=act, at=at_us, mac="")
    return unproved.model_copy(update={"mac": _mac(material, unproved)})


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
    macs = [_mac(material, audit) for material in materials]
    return any(hmac.compare_digest(mac.encode(), audit.mac.encode()) for mac in macs)


def _mac(material: bytes, audit: Audit) -> str:
    """Returns the MAC over the canonical JSON of all fields but the MAC itself, as hex."""
    # By name and not by `model_dump`: the ledger writes a line per delivery, and a dump costs several times as much.
    covered: dict[str, Any] = {
        "id": audit.id,
        "key": audit.key,
        "what": audit.what,
        "verdict": audit.verdict,
        "why": audit.why,
        "at": rfc3339(audit.at),
    }
    if audit.act is not None:
        covered["act"] = audit.act.model_dump(mode="json")
    return keyed(material, canonical(covered))
