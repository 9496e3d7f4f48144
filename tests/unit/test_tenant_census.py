"""The public view counted: by stage and sort of reason, by flag, and the oldest of each unsettled stage."""

import random
from collections import Counter

import pytest

from schemas.tenant import Flag, Stage, Tenant
from services.core.reconcile.tenant_census import REASON_SORTS, UNSETTLED, TenantCensus, reason_sort

NOW_US = 1_000_000_000
REASONS = (None, "retrying", "waiting_for:crm", "grace", "crm_exhausted", "of a newer release")


def tenant(number: int, stage: Stage | None, reason: str | None = None, *flags: Flag, at_us: int = 0) -> Tenant:
    name = f"00000000-0000-4000-8000-{number:012d}"
    return Tenant(
        key=f"{name}:{name}", version=1, tenant_id=None, installed=None, enabled=None, configuration=None,
        configuration_mac=None, stage=stage, reason=reason, flags=flags, revision=0, generation=0, recheck_at=None,
        updated_at=at_us,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "sort"),
    [
        (None, ""),
        ("", ""),
        ("retrying", "retrying"),
        ("former_life", "former_life"),
        ("grace", "grace"),
        ("waiting_for:crm", "waiting_for"),
        ("waiting_for:tenant_conflict", "waiting_for"),
        ("crm_refused", "refused"),
        ("update_refused", "update_refused"),
        ("my_step_contradicted", "contradicted"),
        ("refused", "other"),
        ("a word of a newer release", "other"),
    ],
)
def test_a_reason_is_mapped_to_a_word_of_a_closed_set(reason: str | None, sort: str) -> None:
    assert reason_sort(reason) == sort
    assert sort in REASON_SORTS


def test_running_counts_equal_a_count_of_the_whole_view() -> None:
    chance, census, view = random.Random(7), TenantCensus(), dict[str, Tenant]()
    for _ in range(3_000):
        flags = chance.sample(list(Flag), chance.randrange(3))
        at_us, stage = chance.randrange(NOW_US), chance.choice([None, *Stage])
        after = tenant(chance.randrange(200), stage, chance.choice(REASONS), *flags, at_us=at_us)
        census.replace(view.get(after.key), after)
        view[after.key] = after
    now = view.values()
    assert Counter(census.by_stage()) == Counter((one.stage, reason_sort(one.reason)) for one in now)
    assert Counter(census.flagged()) == Counter(flag for one in now for flag in one.flags)
    for stage, age_s in census.oldest_s(NOW_US).items():
        times = [one.updated_at for one in now if one.stage is stage and one.reason != "grace"]
        assert age_s == (NOW_US - min(times)) / 1_000_000
    assert tuple(census.oldest_s(NOW_US)) == UNSETTLED


def test_the_oldest_leaves_out_active_tenants_and_grace_periods() -> None:
    census = TenantCensus()
    waits, active = tenant(1, Stage.PENDING_INSTALL, "retrying"), tenant(1, Stage.ACTIVE)
    census.replace(None, waits)
    census.replace(None, tenant(2, Stage.DEPROVISIONING, "grace"))
    assert census.oldest_s(NOW_US)[Stage.PENDING_INSTALL] == NOW_US / 1_000_000
    assert census.oldest_s(NOW_US)[Stage.DEPROVISIONING] == 0
    census.replace(waits, active)
    assert census.oldest_s(NOW_US)[Stage.PENDING_INSTALL] == 0
    assert census.by_stage()[Stage.PENDING_INSTALL, "retrying"] == 0, "a stage that is empty again shows 0"
