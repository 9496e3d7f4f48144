"""Resolves an operator's name for a tenant: a key, a tenantId, an organisation, or the beginning of one of these.

Rule: what names nothing is refused with what is nearest, what names several with the candidates; nothing is guessed.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.values import UUID_PATTERN, Key
from services.cli.exits import CommandError, Exit
from services.cli.options import nearest
from services.cli.wording import short_keys

if TYPE_CHECKING:
    from schemas.tenant import Tenant
    from services.adapters.process.settings import Settings

_WHOLE: Final = re.compile(f"{UUID_PATTERN}:{UUID_PATTERN}", re.ASCII)
_SHOWN_AT_MOST: Final = 10


@dataclass(frozen=True, slots=True)
class Named:
    """A tenant as an operator may call it.

    Attributes:
        key: `orgId:integrationId`.
        name: Its tenantId; None where none is known.
        gone: Nothing of it exists: of several with one name, the one that is there is meant.
    """

    key: Key
    name: str | None
    gone: bool


def is_whole(given: str) -> bool:
    """True if `given` is a whole key, which needs no list of tenants to be understood."""
    return _WHOLE.fullmatch(given.lower()) is not None


def keys_of(given: Iterable[str], settings: "Settings") -> list[Key]:
    """Resolves each name to its key, once each, in order; the view is read only where a name is no whole key.

    Raises:
        Failure: as `resolve`; or Kafka does not answer.
    """
    asked = list(given)
    known: list[Named] | None = None
    found: list[Key] = []
    for one in asked:
        if is_whole(one):
            found.append(one.lower())
        else:
            known = named(_view(settings)) if known is None else known
            found.append(resolve(one, known))
    return list(dict.fromkeys(found))


def organisations_of(given: Iterable[str], settings: "Settings") -> list[str]:
    """Resolves each name to an organisation of the view, or to one with a file of credentials.

    Raises:
        Failure: as `organisation`; or Kafka does not answer.
    """
    from services.adapters.genesys import organisations

    files = organisations.load(settings.orgs_dir)
    known = {tenant.key.partition(":")[0] for tenant in _view(settings)} | files.known.keys() | files.faults.keys()
    return [organisation(one, known) for one in given]


def named(tenants: "Iterable[Tenant]") -> list[Named]:
    """Converts a view to the names that operators may use."""
    from schemas.tenant import Stage

    gone = {None, Stage.DEPROVISIONED}

    # A name that another organisation holds is only claimed; operators call the tenant by it all the same.
    return [Named(tenant.key, tenant.tenant_id or tenant.claimed_tenant_id, tenant.stage in gone) for tenant in tenants]


def resolve(given: str, known: Sequence[Named]) -> Key:
    """Returns the one key that `given` names.

    Args:
        given: A key, a tenantId, an organisation's or integration's id, or the beginning of any of these; of a key also
            the beginnings of both its ids, with the colon between (as listings print them).
        known: Every tenant.

    Raises:
        Failure: it names none (NOT_FOUND, with what is nearest), or several (UNUSABLE, with the candidates).
    """
    for candidates in (_exactly(given, known), _beginning(given, known)):
        there = [one for one in candidates if not one.gone] or candidates
        if len(there) == 1:
            return there[0].key
        if there:
            raise CommandError(Exit.UNUSABLE, f"KEY: {given!r} names {len(there)} tenants:\n" + _listed(there, known))
    words = [word for one in known for word in (one.name, one.key) if word]
    raise CommandError(Exit.NOT_FOUND, f"KEY: {given!r}: no such tenant{nearest(given, words)}")


def organisation(given: str, known: Collection[str], option: str = "--org") -> str:
    """Returns the one organisation of `known` that an id, or its beginning, names.

    Raises:
        Failure: it names none, with what is nearest, or several, with the candidates.
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


def _exactly(given: str, known: Sequence[Named]) -> list[Named]:
    text = given.lower()
    return [one for one in known if given == one.name or text in {one.key, *one.key.split(":")}]


def _beginning(given: str, known: Sequence[Named]) -> list[Named]:
    if not given.strip(":"):
        return []
    text = given.lower()
    org, colon, integration = text.partition(":")

    def begins(one: Named) -> bool:
        first, _, second = one.key.partition(":")
        if colon:
            return first.startswith(org) and second.startswith(integration)
        return first.startswith(text) or second.startswith(text) or (one.name or "").lower().startswith(text)

    return [one for one in known if begins(one)]


def _listed(candidates: Sequence[Named], known: Sequence[Named]) -> str:
    short = short_keys([one.key for one in known])
    lines = [f"  {short[one.key]}  {one.name or '(no tenantId)'}" for one in candidates[:_SHOWN_AT_MOST]]
    more = len(candidates) - len(lines)
    return "\n".join([*lines, *([f"  and {more} more"] if more > 0 else [])])


def _view(settings: "Settings") -> "list[Tenant]":
    from services.adapters.kafka import tenant_view
    from services.cli import environment

    with environment.answering(settings):
        return list(tenant_view.read(settings.kafka, settings.topic_prefix).values())
