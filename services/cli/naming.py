"""Resolves an operator's name for a tenant: a key, a tenantId, an organisation, or the beginning of any of these.

Rule: an unknown name is refused with the nearest known names, an ambiguous name with the candidates. The program never
guesses.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.values import UUID_PATTERN, Key
from services.cli.exits import CommandError, Exit
from services.cli.options import nearest
from services.cli.wording import short_keys

if TYPE_CHECKING:
    from schemas.genesys import Organisation
    from schemas.tenant import Tenant
    from services.adapters.process.settings import Settings

_FULL_KEY: Final = re.compile(f"{UUID_PATTERN}:{UUID_PATTERN}", re.ASCII)
_SHOWN_AT_MOST: Final = 10
"""Candidates listed in an error; the rest is counted."""


@dataclass(frozen=True, slots=True)
class TenantName:
    """A tenant under the names known to an operator.

    Attributes:
        key: `orgId:integrationId`.
        name: The tenantId, bound or claimed; None if unknown.
        gone: True if the tenant is deprovisioned or has no stage; an existing tenant of an equal name has precedence.
    """

    key: Key
    name: str | None
    gone: bool


def is_full_key(given: str) -> bool:
    """True if `given` is a full key, usable without a list of tenants."""
    return _FULL_KEY.fullmatch(given.lower()) is not None


def keys_of(given: Iterable[str], settings: "Settings") -> list[Key]:
    """Resolves each name to its key, without duplicates, in order; reads the view only if a name is no full key.

    Raises:
        CommandError: as `resolve`; or Kafka does not serve us (UNREACHABLE, REFUSED).
    """
    names = list(given)
    known: list[TenantName] | None = None
    found: list[Key] = []
    for one in names:
        if is_full_key(one):
            found.append(one.lower())
        else:
            # The whole topic is read for a view, so it is read once, and only for a name that needs it.
            known = tenant_names(_read_view(settings)) if known is None else known
            found.append(resolve(one, known))
    return list(dict.fromkeys(found))


def organisations_of(given: Iterable[str], settings: "Settings") -> list[str]:
    """Resolves each id, beginning of an id, or name in a file to an organisation of the view or of the files.

    Raises:
        CommandError: as `organisation`; or Kafka does not serve us (UNREACHABLE, REFUSED).
    """
    from services.adapters.genesys import organisations

    files = organisations.load(settings.orgs_dir)
    known = {tenant.key.partition(":")[0] for tenant in _read_view(settings)} | files.known.keys() | files.faults.keys()
    ids = ids_by_name(files.known)
    return [organisation(ids.get(one, one), known) for one in given]


def ids_by_name(files: Mapping[str, "Organisation"]) -> dict[str, str]:
    """Returns the organisation id of each name that exactly one credentials file has.

    Args:
        files: Organisation id to the content of the file.
    """
    count = Counter(one.name for one in files.values())
    return {one.name: org_id for org_id, one in files.items() if one.name and count[one.name] == 1}


def tenant_names(tenants: "Iterable[Tenant]") -> list[TenantName]:
    """Returns the names of all tenants of a view."""
    from schemas.tenant import Stage

    gone = {None, Stage.DEPROVISIONED}

    # A tenantId held by another organisation is only claimed here; operators still call the tenant by that name.
    return [
        TenantName(tenant.key, tenant.tenant_id or tenant.claimed_tenant_id, tenant.stage in gone) for tenant in tenants
    ]


def resolve(given: str, known: Sequence[TenantName]) -> Key:
    """Returns the only key named by `given`.

    Args:
        given: A key, a tenantId, the id of an organisation or integration, or the beginning of any of these; also the
            beginnings of both ids of a key with a colon in between, as listings print short keys.
        known: All tenants.

    Raises:
        CommandError: no tenant matches (NOT_FOUND, with the nearest names), or several (UNUSABLE, with the candidates).
    """
    # An exact match has precedence: `acme` must stay usable beside `acme_globex`.
    for candidates in (_exact_matches(given, known), _prefix_matches(given, known)):
        # A tenantId is free again after a deprovisioning, so a gone tenant may have an equal name.
        existing = [one for one in candidates if not one.gone] or candidates
        if len(existing) == 1:
            return existing[0].key
        if existing:
            raise CommandError(
                Exit.UNUSABLE, f"KEY: {given!r} names {len(existing)} tenants:\n" + _candidates_text(existing, known)
            )
    words = [word for one in known for word in (one.name, one.key) if word]
    raise CommandError(Exit.NOT_FOUND, f"KEY: {given!r}: no such tenant{nearest(given, words)}")


def organisation(given: str, known: Collection[str], option: str = "--org") -> str:
    """Returns the only organisation of `known` named by an id or by the beginning of an id.

    Raises:
        CommandError: no organisation matches, or several do (UNUSABLE).
    """
    text = given.lower()
    if text in known:
        return text
    found = sorted(org for org in known if text and org.startswith(text))
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(found[:_SHOWN_AT_MOST])
        raise CommandError(
            Exit.UNUSABLE, f"{option}: {given!r} is the beginning of {len(found)} organisations: {shown}"
        )
    raise CommandError(Exit.UNUSABLE, f"{option}: {given!r}: no such organisation{nearest(given, known)}")


def _exact_matches(given: str, known: Sequence[TenantName]) -> list[TenantName]:
    """Returns the tenants with `given` as tenantId, key, organisation or integration."""
    text = given.lower()
    return [one for one in known if given == one.name or text in {one.key, *one.key.split(":")}]


def _prefix_matches(given: str, known: Sequence[TenantName]) -> list[TenantName]:
    """Returns the tenants with a name beginning with `given`, in any case of letters."""
    # Empty text, or colons alone, would be the beginning of every name.
    if not given.strip(":"):
        return []
    text = given.lower()
    org, colon, integration = text.partition(":")

    def begins(one: TenantName) -> bool:
        first, _, second = one.key.partition(":")
        if colon:
            return first.startswith(org) and second.startswith(integration)
        return first.startswith(text) or second.startswith(text) or (one.name or "").lower().startswith(text)

    return [one for one in known if begins(one)]


def _candidates_text(candidates: Sequence[TenantName], known: Sequence[TenantName]) -> str:
    """Returns a line per candidate, with short keys."""
    short = short_keys([one.key for one in known])
    lines = [f"  {short[one.key]}  {one.name or '(no tenantId)'}" for one in candidates[:_SHOWN_AT_MOST]]
    more = len(candidates) - len(lines)
    return "\n".join([*lines, *([f"  and {more} more"] if more > 0 else [])])


def _read_view(settings: "Settings") -> "list[Tenant]":
    """Returns all tenants of the view."""
    from services.adapters.kafka import tenant_view
    from services.cli import environment

    with environment.require_kafka(settings):
        return list(tenant_view.read(settings.kafka, settings.topic_prefix).values())
