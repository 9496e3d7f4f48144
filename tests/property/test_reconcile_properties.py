"""Any answers of Genesys in any order of runs: no tenant is removed without information, and agreement is silent."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.event import Observed
from schemas.removal import REMOVE_LEAST
from schemas.tenant import Stage, Tenant
from schemas.values import Key
from services.core.reconcile.observed_state import released
from services.core.reconcile.reconcile import Memory, ReconcilePlan, Sight, Tenants, compare, remember
from tests.support.genesys_worlds import (
    AMBIGUOUS,
    CLIENT,
    HOUR_US,
    LOOK_US,
    MAC_KEY,
    NOW_US,
    configuration_mac,
    key_of,
    organisation,
    reading,
    rules,
    tenant,
    view,
)

GONE = "404"
SILENT = "no answer by id"
PRESENT = ("ENABLED", "DISABLED", "RESTORED")
NUMBERS = range(4)

worlds = st.fixed_dictionaries(
    dict.fromkeys(NUMBERS, st.sampled_from((*PRESENT, "DELETED", "HIBERNATED", GONE, SILENT)))
)
harmless = st.fixed_dictionaries(dict.fromkeys(NUMBERS, st.sampled_from((*PRESENT, "HIBERNATED", SILENT))))
tenants = st.lists(
    st.builds(
        tenant,
        st.sampled_from(NUMBERS),
        installed=st.sampled_from((True, True, True, False, None)),
        enabled=st.sampled_from((True, False, None)),
        flags=st.sampled_from(((), AMBIGUOUS)),
        recheck_at=st.sampled_from((None, NOW_US - HOUR_US)),
        updated_at=st.integers(NOW_US - 2 * LOOK_US, NOW_US),
    ),
    max_size=4,
).map(lambda found: view(*found))
waits = st.integers(1, 2 * LOOK_US)

World = dict[int, str]


@dataclass(frozen=True)
class Ran:
    """One run of a history."""

    now_us: int
    world: World
    plan: ReconcilePlan


def run(world: World, tenants: Tenants, memory: Memory, now_us: int) -> ReconcilePlan:
    listed = {n: state for n, state in world.items() if state not in (GONE, SILENT)}
    absent = tuple(n for n, state in world.items() if state == GONE)
    return compare([(reading(listed, absent=absent, at_us=now_us), organisation())], tenants, memory, rules(now_us))


def history(steps: list[tuple[World, int]], tenants: Tenants) -> list[Ran]:
    """Runs one after another, the view standing still (nobody folds), every client knowing everybody at first."""
    memory: dict[Key, Sight] = {key_of(number): Sight(seen_by=CLIENT) for number in NUMBERS}
    now_us, ran = NOW_US, []
    for world, wait_us in steps:
        now_us += wait_us
        plan = run(world, tenants, memory, now_us)
        memory |= plan.memory
        ran.append(Ran(now_us, world, plan))
    return ran


def removed(plan: ReconcilePlan) -> set[Key]:
    return {line.key for line in plan.lines if line.observed is not None and not line.observed.installed}


@settings(deadline=None)
@given(st.lists(st.tuples(harmless, waits), max_size=6), tenants)
def test_no_tenant_is_removed_without_a_seen_absence(steps: list[tuple[World, int]], tenants: Tenants) -> None:
    assert not set().union(*(removed(ran.plan) for ran in history(steps, tenants)))


@settings(deadline=None)
@given(st.lists(st.tuples(worlds, waits), max_size=6), tenants)
def test_no_tenant_is_removed_by_credentials_that_never_saw_it(
    steps: list[tuple[World, int]], tenants: Tenants
) -> None:
    blind: list[tuple[World, int]] = [
        ({n: GONE if s in ("DELETED", *PRESENT) else s for n, s in world.items()}, wait_us) for world, wait_us in steps
    ]
    memory: dict[Key, Sight] = {}
    now_us = NOW_US
    for world, wait_us in blind:
        now_us += wait_us
        plan = run({n: s for n, s in world.items() if s != "HIBERNATED"}, tenants, memory, now_us)
        memory |= plan.memory
        assert not removed(plan)


@settings(deadline=None)
@given(st.lists(st.tuples(worlds, waits), min_size=2, max_size=8), tenants)
def test_a_removal_needs_two_absences_a_second_look_apart(steps: list[tuple[World, int]], tenants: Tenants) -> None:
    ran = history(steps, tenants)
    for at_run, last in enumerate(ran):
        for key in removed(last.plan):
            number = next(n for n in NUMBERS if key_of(n) == key)
            first = [
                at
                for at in range(at_run)
                if ran[at].world[number] in ("DELETED", GONE)
                and last.now_us - ran[at].now_us >= LOOK_US
                and all(between.world[number] not in (*PRESENT, "HIBERNATED") for between in ran[at:at_run])
            ]
            assert first, (key, [one.world[number] for one in ran])


@settings(deadline=None)
@given(worlds, tenants)
def test_a_plan_depends_on_its_arguments_only(world: World, tenants: Tenants) -> None:
    memory = {key_of(number): Sight(seen_by=CLIENT) for number in NUMBERS}
    first = run(world, tenants, memory, NOW_US)
    assert run(world, tenants, memory, NOW_US) == first
    again = run(world, tenants, {**memory, **first.memory}, NOW_US)
    assert (again.lines, again.memory) == (first.lines, first.memory)


@settings(deadline=None)
@given(worlds, tenants, st.sampled_from((CLIENT, None)))
def test_a_plan_without_the_configurations_that_agree_is_the_same(
    world: World, tenants: Tenants, seen_by: str | None
) -> None:
    memory = {key_of(number): Sight(seen_by) for number in NUMBERS}
    told = reading({n: s for n, s in world.items() if s not in (GONE, SILENT)})
    left = released(told, organisation(), tenants, MAC_KEY)
    with_all, without = (compare([(one, organisation())], tenants, memory, rules()) for one in (told, left))
    assert (without.lines, without.memory) == (with_all.lines, with_all.memory)
    looks = {key: replace(look, configuration=None) for key, look in with_all.looks.items()}
    assert {key: replace(look, configuration=None) for key, look in without.looks.items()} == looks


@settings(deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(NUMBERS, st.sampled_from(("ENABLED", "DISABLED")))), st.integers(0, HOUR_US))
def test_a_world_that_agrees_gives_an_empty_plan(world: World, age_us: int) -> None:
    agreeing = view(*(tenant(n, enabled=s == "ENABLED", updated_at=NOW_US - age_us) for n, s in world.items()))
    plan = run(world, agreeing, {}, NOW_US)
    assert (plan.lines, plan.stopped) == ((), None)


@settings(deadline=None)
@given(worlds, tenants)
def test_a_folded_observation_agrees_in_the_next_run(world: World, before: Tenants) -> None:
    memory: dict[Key, Sight] = {key_of(number): Sight(seen_by=CLIENT) for number in NUMBERS}
    now_us, after = NOW_US, dict(before)
    for _ in range(3):  # a first look, a second, and one that finds nothing more
        plan = run(world, after, memory, now_us)
        memory |= plan.memory
        for line in plan.lines:
            if line.observed is not None:
                after[line.key] = folded(after.get(line.key), line.observed, now_us + 1)
                memory[line.key] = remember(memory[line.key], line.observed)
        now_us += 2 * LOOK_US
    last = run(world, after, memory, now_us)
    assert not [line for line in last.lines if line.observed is not None]


def folded(known: Tenant | None, observed: Observed, at_us: int) -> Tenant:
    """The ledger's row after an observation newer than all its events."""
    start = known or tenant(0, key=observed.key, stage=Stage.PENDING_INSTALL, enabled=None, configuration_mac=None)
    fresh = observed.installed and not (known and known.installed)
    enabled = observed.enabled if observed.enabled is not None else (None if fresh else start.enabled)
    mac = start.configuration_mac
    if observed.configuration is not None:
        mac = configuration_mac(observed.configuration)
    changes = {"installed": observed.installed, "enabled": enabled, "configuration_mac": mac}
    return start.model_copy(update={**changes, "flags": (), "recheck_at": None, "updated_at": at_us})


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 20))
def test_no_run_removes_more_than_the_brake_allows(gone: int, here: int) -> None:
    world = {**dict.fromkeys(range(gone), GONE), **dict.fromkeys(range(gone, gone + here), "ENABLED")}
    everybody = view(*(tenant(n) for n in world))
    memory: dict[Key, Sight] = {key: Sight(seen_by=CLIENT) for key in everybody}
    first = run(world, everybody, memory, NOW_US)
    second = run(world, everybody, {**memory, **first.memory}, NOW_US + LOOK_US)
    assert len(removed(second)) == gone
    assert (second.stopped is None) == (gone <= REMOVE_LEAST)
