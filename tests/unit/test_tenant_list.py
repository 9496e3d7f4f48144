"""Which tenants a list shows, and in which order."""

import pytest

from schemas.tenant import Stage, Tenant
from services.core.tenant_list import TenantFilter, filtered
from services.core.unwell import UNWELL_AFTER_US
from tests.support.genesys_worlds import NOW_US, tenant

ACTIVE = tenant(1, tenant_id="b")
FAILED = tenant(2, tenant_id="a", stage=Stage.PROVISIONING_ROLLED_BACK, reason="crm_refused")
WAITS = tenant(3, tenant_id="c", stage=Stage.PENDING_INSTALL, reason="retrying", updated_at=NOW_US)
NAMELESS = tenant(4, tenant_id=None, stage=None, updated_at=NOW_US + 1)
ALL = (NAMELESS, WAITS, ACTIVE, FAILED)


@pytest.mark.parametrize(
    ("chosen_by", "found"),
    [
        (TenantFilter(), (FAILED, ACTIVE, WAITS, NAMELESS)),
        (TenantFilter(stages={"active", "pending_install"}), (ACTIVE, WAITS)),
        (TenantFilter(orgs={FAILED.key.partition(":")[0]}, stages={"provisioning_rolled_back"}), (FAILED,)),
        (TenantFilter(orgs={"nobody"}), ()),
        (TenantFilter(unchanged_us=1), (FAILED, ACTIVE)),
        (TenantFilter(unchanged_us=0), (FAILED, ACTIVE, WAITS)),  # one is of the future
        (TenantFilter(only_unwell=True), (FAILED,)),
        (TenantFilter(stages={"active"}, only_unwell=True), ()),
    ],
)
def test_a_filter_admits_what_it_names_and_names_come_first(chosen_by: TenantFilter, found: tuple[Tenant, ...]) -> None:
    assert filtered(ALL, chosen_by, NOW_US).tenants == found


def test_a_list_knows_who_is_unwell_and_how_many_only_wait() -> None:
    assert (filtered(ALL, TenantFilter(), NOW_US).unwell, filtered(ALL, TenantFilter(), NOW_US).waiting) == (
        (FAILED,),
        1,
    )
    unwell = filtered(ALL, TenantFilter(only_unwell=True), NOW_US)
    assert (unwell.unwell, unwell.waiting) == ((FAILED,), 1)
    later = filtered(ALL, TenantFilter(), NOW_US + UNWELL_AFTER_US)
    assert (later.unwell, later.waiting) == ((FAILED, WAITS), 0)
