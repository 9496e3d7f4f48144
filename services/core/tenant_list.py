"""Chooses and orders the tenants of a list for operators.

Rule: filters of different sorts are joined by "and", values of one filter by "or"; a filter without a value admits all.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from schemas.tenant import Tenant
from services.core.unwell import is_unwell, is_waiting


@dataclass(frozen=True, slots=True)
class TenantFilter:
    """Filters of a list.

    Attributes:
        stages: Stages to list.
        orgs: Ids of organisations to list.
        unchanged_us: Least time since the last change, microseconds; None admits every time.
        only_unwell: True lists unwell tenants alone.
    """

    stages: Collection[str] = ()
    orgs: Collection[str] = ()
    unchanged_us: int | None = None
    only_unwell: bool = False


@dataclass(frozen=True, slots=True)
class TenantList:
    """The chosen tenants.

    Attributes:
        tenants: The chosen tenants, by name; tenants without a tenantId come last.
        unwell: The unwell tenants among these.
        waiting: Number of tenants that wait and are not unwell yet, by all filters but `only_unwell`.
    """

    tenants: tuple[Tenant, ...]
    unwell: tuple[Tenant, ...]
    waiting: int


def filtered(tenants: Iterable[Tenant], chosen_by: TenantFilter, now_us: int) -> TenantList:
    """Returns the tenants that pass the filters.

    Args:
        tenants: All tenants of the view.
        chosen_by: The filters.
        now_us: The present time, microseconds UTC.
    """
    passing = [one for one in tenants if _passes(one, chosen_by, now_us)]
    # "~" sorts behind all ASCII letters.
    passing.sort(key=lambda one: (one.tenant_id or "~", one.key))
    unwell = tuple(one for one in passing if is_unwell(one, now_us))
    waiting = sum(is_waiting(one, now_us) for one in passing)
    return TenantList(unwell if chosen_by.only_unwell else tuple(passing), unwell, waiting)


def _passes(one: Tenant, chosen_by: TenantFilter, now_us: int) -> bool:
    """True if a tenant passes all filters but `only_unwell`."""
    return (
        (not chosen_by.stages or one.stage in chosen_by.stages)
        and (not chosen_by.orgs or one.key.partition(":")[0] in chosen_by.orgs)
        and (chosen_by.unchanged_us is None or now_us - one.updated_at >= chosen_by.unchanged_us)
    )
