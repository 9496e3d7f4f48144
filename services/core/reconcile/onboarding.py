"""Guard of an organisation's first comparison: many new tenants at once wait for an operator's approval.

Problem: with the file of a new organisation, every integration already in this organisation looks like a lost install.
A missing or wrong `integration_types` would provision the integrations of foreign vendors, each with a database, a
grant and a subscription.

Approach: an organisation is held at its first comparison if more than `CREATE_MOST` tenants would be created. A held
organisation publishes nothing until an operator approves exactly these keys (docs/decisions/0037).

    state     comes from                                               next comparison
    unknown   no comparison yet                                        judged, unless the view has a tenant of it
    adopted   an operator's `lifecycle adopt`, before any comparison   judged, also with tenants in the view
    held      too many newcomers                                       judged again, with or without tenants in the view
    admitted  few newcomers, an approval, or tenants before the file   never judged again
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.genesys import Organisation, Reading
from schemas.values import Key
from services.core.reconcile.observed_state import is_installed
from services.core.reconcile.reconcile import Tenants, by_organisation, scope
from services.core.rulings import newcomers_digest

CREATE_MOST: Final = 5
"""Tenants that the first comparison of an organisation may create without an approval."""


class OrganisationState(StrEnum):
    """State of an organisation; no entry stands for an unknown organisation."""

    ADOPTED = "adopted"
    """Tenants were adopted, which proves nothing about the organisation's other integrations."""
    HELD = "held"
    ADMITTED = "admitted"


OrganisationStates = Mapping[str, OrganisationState]
"""Organisation id to state."""


@dataclass(frozen=True, slots=True)
class HeldOrganisation:
    """An organisation without an approval of its first comparison: nothing of the organisation is published.

    Attributes:
        org_id: Organisation id.
        keys: The tenants to create.
    """

    org_id: str
    keys: tuple[Key, ...]

    @property
    def newcomers(self) -> int:
        """Returns the number of tenants to create."""
        return len(self.keys)

    @property
    def approval(self) -> str:
        """Returns the text to approve exactly these tenants."""
        return newcomers_digest(self.keys)


def newcomers(reading: Reading, organisation: Organisation, tenants: Tenants) -> list[Key]:
    """Returns the keys to create as tenants after a reading, sorted.

    Every listed integration counts, also one without a readable configuration: the next run would create the tenant.

    Args:
        reading: A complete reading.
        organisation: The organisation's file.
        tenants: The view, or the tenants of this organisation.
    """
    return [
        key
        for key in scope(reading, organisation, tenants, None)
        if (entity := reading.integrations.get(key.partition(":")[2])) is not None
        and is_installed(entity)
        and not (key in tenants and tenants[key].installed)
    ]


def held_back(
    readings: Iterable[tuple[Reading, Organisation]], tenants: Tenants, admissions: OrganisationStates
) -> tuple[HeldOrganisation, ...]:
    """Returns the organisations to hold without an approval, in the order of the readings.

    Args:
        readings: Complete readings, each with the organisation's file.
        tenants: The view of all organisations.
        admissions: States after the earlier runs.
    """
    candidates = [pair for pair in readings if admissions.get(pair[0].org_id) is not OrganisationState.ADMITTED]
    if not candidates:
        return ()
    # Tenants by webhook prove that the organisation is at work. A tenant that arrives while the organisation is held
    # proves nothing: one changed integration must not let the rest in.
    own = by_organisation(tenants)
    with_tenants = {
        org_id for org_id, held in own.items() if any(tenant.installed is not None for tenant in held.values())
    }
    found = []
    for reading, organisation in candidates:
        if reading.org_id in with_tenants and reading.org_id not in admissions:
            continue
        keys = newcomers(reading, organisation, own.get(reading.org_id, {}))
        if len(keys) > CREATE_MOST:
            found.append(HeldOrganisation(reading.org_id, tuple(keys)))
    return tuple(found)


def after_adoption(admissions: OrganisationStates, orgs: Collection[str]) -> OrganisationStates:
    """Returns the states of the organisations before tenants of some are adopted.

    Args:
        admissions: States before the adoption.
        orgs: Organisations of the tenants.
    """
    return {**dict.fromkeys(orgs, OrganisationState.ADOPTED), **admissions}


def admissions_after(
    admissions: OrganisationStates, held: Collection[HeldOrganisation], published: Collection[str]
) -> OrganisationStates:
    """Returns the states of the organisations after a run.

    Args:
        admissions: States before the run.
        held: Organisations held by the run.
        published: Organisations read by the run, with every difference published. Under the brake, or after a failed
            write, an organisation is not among them, and is judged again.
    """
    waiting = {one.org_id: OrganisationState.HELD for one in held}
    return {**admissions, **dict.fromkeys(published, OrganisationState.ADMITTED), **waiting}
