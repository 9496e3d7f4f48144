"""What the world is told of a key: the records that follow from its rows, as they stand.

Rule: a record is a function of the rows alone (an event, of its entry alone), so writing it again writes the same
bytes. Configurations leave whole only in `desired`, which is restricted; elsewhere their published names alone, and
of a URL under such a name neither user, query nor fragment: that is where people keep passwords and tokens.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from jiter import from_json

from schemas import codec
from schemas.event import Event
from schemas.journal import Entry, Published, Registers
from schemas.rows import StageRow, TenantRow
from schemas.tenant import Desired, Tenant
from schemas.topics import DESIRED, EVENTS, TENANTS, Topic
from schemas.values import Json
from services.core.ledger.identity import keyed
from services.core.ledger.merge import view
from services.core.ledger.stage import names, stage

_SPACE: Final = re.compile(r"\s")
_WITHOUT_SCHEME: Final = re.compile(r"[?#].*|^[^?#]*@", re.DOTALL)
"""What a URL without its scheme may hide, as above."""

_LEDGER = "/genesys-lifecycle/ledger"


@dataclass(frozen=True, slots=True)
class ProjectionRules:
    """What the ledger is told once.

    Attributes:
        identity: `material.identity`, the key of F.
        configuration: `material.configuration`, the key of `configuration_mac`.
        audit: The newest key of `material.audit`.
        published_names: Names of a configuration that everybody may read.
    """

    identity: bytes
    configuration: bytes
    audit: bytes
    published_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """One record to send."""

    topic: Topic
    message: codec.Message


class Wish(NamedTuple):
    """The values of `desired`, for comparison."""

    installed: bool
    enabled: bool
    digest: str | None
    tenant_id: str | None
    installed_at_us: int | None
    uninstalled_at_us: int | None


def wish(now: Registers) -> Wish:
    """What the registers ask for; where nothing is to be there, it is neither enabled nor configured."""
    seen = view(now)
    there = seen.installed is True
    return Wish(
        installed=there,
        enabled=there and seen.enabled is True,
        digest=seen.digest if there else None,
        tenant_id=None if now.tenant is None else now.tenant.value,
        installed_at_us=None if now.installed is None else now.installed.at_us,
        uninstalled_at_us=None if now.uninstalled is None else now.uninstalled.at_us,
    )


def desired(row: TenantRow) -> tuple[Output, ...]:
    """The newest desired state, at the version it was last published at; nothing before the first event."""
    if not row.desired_version:
        return ()
    asked = wish(row.now)
    record = Desired(
        key=row.key,
        version=row.desired_version,
        installed=asked.installed,
        enabled=asked.enabled,
        configuration=configuration(row, asked.digest) or {},
        tenant_id=asked.tenant_id,
        installed_at=asked.installed_at_us,
        uninstalled_at=asked.uninstalled_at_us,
    )
    ce_id = f"{row.key}/desired/{row.desired_version}"
    extra = {} if row.trace is None else {"traceparent": row.trace}
    message = codec.encode(record, key=row.key, ce_id=ce_id, source=_LEDGER, at_us=row.desired_at_us, extra=extra)
    return (Output(DESIRED, message),)


def tenant(row: TenantRow | None, last: StageRow | None, rules: ProjectionRules) -> tuple[Output, ...]:
    """The public view of a key."""
    key = row.key if row is not None else last.key if last is not None else None
    if key is None:
        return ()
    row, last = row or TenantRow(key), last or StageRow(key)
    seen, (where, reason), named = view(row.now), stage(row, last), names(row, last)
    whole = None if seen.digest is None else (row.texts or {}).get(seen.digest)
    record = Tenant(
        key=key,
        version=row.version + last.version,
        tenant_id=named.tenant_id,
        claimed_tenant_id=named.claimed,
        installed=seen.installed,
        enabled=seen.enabled,
        configuration=published(configuration(row, seen.digest), rules),
        configuration_mac=None if whole is None else keyed(rules.configuration, whole.encode()),
        stage=where,
        reason=reason,
        flags=row.flags,
        revision=row.revision,
        generation=last.generation,
        recheck_at=row.recheck_at_us,
        updated_at=max(row.updated_at_us, last.updated_at_us),
    )
    ce_id = f"{key}/tenant/{record.version}"
    return (Output(TENANTS, codec.encode(record, key=key, ce_id=ce_id, source=_LEDGER, at_us=record.updated_at)),)


def event(row: TenantRow, entry: Entry, rules: ProjectionRules, *, at_us: int, extra: Mapping[str, str]) -> Output:
    """One event as it was, or is, told first.

    Args:
        row: Holds the configuration it refers to.
        entry: With a revision.
        rules: For the published names.
        at_us: Log time of the record at which the revision was given.
        extra: Headers of that record that ride along.
    """
    told = entry.told or Published(entry.event, entry.at_us, entry.tenant_id, entry.digest, entry.source)
    record = Event(
        key=row.key,
        uid=entry.uid,
        event=told.event,
        occurred_at=told.at_us,
        revision=entry.revision,
        tenant_id=told.tenant_id,
        source=told.source,
        configuration=published(configuration(row, told.digest), rules) or {},
    )
    ce_id = f"{row.key}/{entry.uid}"
    return Output(EVENTS, codec.encode(record, key=row.key, ce_id=ce_id, source=_LEDGER, at_us=at_us, extra=extra))


def configuration(row: TenantRow, digest: str | None) -> Json | None:
    """The whole configuration of a digest; None where none is known."""
    text = None if digest is None else (row.texts or {}).get(digest)
    if text is None:
        return None
    found: Json = from_json(text.encode())
    return found


def published(whole: Json | None, rules: ProjectionRules) -> Json | None:
    """The part of a configuration that everybody may read."""
    if whole is None:
        return None
    return {name: _harmless(whole[name]) for name in rules.published_names if name in whole}


def _harmless(value: Any) -> Any:
    """A value without what a URL may hide; text that looks like a URL and is none is not told at all."""
    if isinstance(value, dict):
        return {name: _harmless(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_harmless(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if "//" not in value:
        return value if _SPACE.search(value) else _WITHOUT_SCHEME.sub("", value)
    try:
        parts = urlsplit(value)
    except ValueError:
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
