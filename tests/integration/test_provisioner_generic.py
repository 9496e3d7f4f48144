"""The shipped plan under the generic saga faults: each step in turn is interrupted, contradicted or lost.

Every test does one thing to every step, a tenant for each, all at once; then inventory, PostgreSQL and journal must
agree, with nothing left behind and nothing there twice (`tests.support.provisioner_stage.exists`). Single refusals,
passing errors and lost answers are in test_provisioner_outside.py.

`LIFECYCLE_ALL_MARKS=1` lets the worker die at every mark of its journal, one after the other, instead of at a few:
a quarter of an hour on an idle machine.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from schemas.outcome import Direction, Outcome, State
from schemas.tenant import Desired
from tests.support.eventually import eventually
from tests.support.provisioner_process import desired, end, gone
from tests.support.provisioner_stage import (
    PATHS,
    SHIPPED,
    STEPS,
    SYSTEMS,
    Stage,
    becomes,
    calls,
    comment,
    comment_of,
    done,
    ended,
    exists,
    failed,
    journal,
    make,
    remove,
    remove_role,
    restored,
    rolled_back,
    staged,
    told,
)

ENDINGS: Final = (None, "lost_answer", "error", "refuse")
"""What becomes of a call that is under way when the desired state changes: it is done, or one of these faults."""
UNDER_WAY_S: Final = 3.0
"""Less than any call may take, and far more than a version needs to reach the registry."""
DYING: Final = ("tests.support.provisioner_dying",)
ALL_MARKS: Final = bool(os.environ.get("LIFECYCLE_ALL_MARKS"))
DEATHS_A_TEST: Final = 10
"""So that a test is over before its first tenant is looked up again by name, which makes marks as well."""


class Chapter(NamedTuple):
    """One desired version, how it is to end, and whom it meets.

    Attributes:
        desired_of: The version of a key.
        life: The generation that exists afterwards, if any.
        refused: System and verb of the calls that are refused meanwhile, if any.
    """

    desired_of: Callable[[str], Desired]
    life: int | None
    check: Callable[[Outcome], bool] = done
    refused: tuple[str, str] | None = None


class Story(NamedTuple):
    """History of a tenant, and the number of worker deaths meanwhile.

    Attributes:
        commits: Of its journal: one before each call, and one at the end of each chapter.
        some: Which of all deaths are died when not all are.
    """

    chapters: tuple[Chapter, ...]
    commits: int
    some: slice

    @property
    def deaths(self) -> list[tuple[int, str]]:
        """Number and kind of each mark at which a worker may die."""
        counts = {"before": self.commits, "after": self.commits, "returned": self.commits - len(self.chapters)}
        return sorted((at, when) for when, count in counts.items() for at in range(1, count + 1))


STORIES: Final = {
    "as desired": Story(
        (
            Chapter(partial(desired, version=1), 1),
            Chapter(partial(desired, version=2, enabled=False), 1),
            Chapter(partial(gone, version=3), None),
        ),
        commits=7 + 7 + 7,
        some=slice(0, None, 8),
    ),
    "refused": Story(
        (
            Chapter(partial(desired, version=1), None, rolled_back, ("tokens", "create")),
            Chapter(partial(desired, version=2), 2),
            Chapter(partial(desired, version=3, enabled=False), 2, restored, ("subscriptions", "update")),
            Chapter(partial(gone, version=4), None),
        ),
        commits=13 + 7 + 11 + 7,
        some=slice(29, None, 29),
    ),
}


class TenantCase(NamedTuple):
    """One tenant, and the call of its that something happens to."""

    key: str
    system: str
    verb: str
    fault: str | None = None

    def strike(self, stage: Stage, fault: str | None, **more: Any) -> None:
        """Set a fault for this call; undoing the archive's step is a writing to the archive."""
        if fault is not None:
            verb = "create" if self.system == "archive" else self.verb
            stage.world.fault(self.system, fault, verb=verb, key=self.key, **more)

    def is_under_way(self, stage: Stage) -> bool:
        """True if the intent of this call is committed, and no answer is."""
        life = journal(stage, self.key).life
        log = life.steps.get(STEPS[self.system]) if life else None
        return log is not None and log.open and log.verb == self.verb


@pytest.fixture
def stage(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Stage]:
    with staged(kafka_bootstrap, topic_prefix, database_url, tmp_path) as made:
        yield made


def _cases(stage: Stage, *kinds: tuple[str, str, str | None]) -> list[TenantCase]:
    keys = stage.keys(len(kinds))
    return [TenantCase(of, system, verb, fault) for of, (system, verb, fault) in zip(keys, kinds, strict=True)]


def _keys(cases: list[TenantCase]) -> list[str]:
    return [case.key for case in cases]


def _change_while_under_way(stage: Stage, cases: list[TenantCase], versions: Mapping[str, Desired]) -> None:
    """Publish another version for each tenant as soon as its call is under way."""
    for case in cases:
        eventually(lambda: case.is_under_way(stage))  # noqa: B023 - called at once
        stage.scene.publish_desired([versions[case.key]])


def _may_update(system: str) -> bool:
    """Nothing of a configuration is in a token, so its update calls nobody."""
    return system != "tokens"


def test_an_uninstall_during_each_create_and_update_leaves_no_resource(stage: Stage) -> None:
    cases = _cases(
        stage,
        *(
            (system, verb, fault)
            for system in SYSTEMS
            for verb in ("create", "update")
            for fault in ENDINGS
            if verb == "create" or _may_update(system)
        ),
    )
    updates = [case.key for case in cases if case.verb == "update"]
    stage.scene.start()
    stage.scene.publish_desired([desired(of, 1) for of in updates])
    ended(stage, updates, 1)
    for case in cases:
        case.strike(stage, "slow", seconds=UNDER_WAY_S, times=1)
        case.strike(stage, case.fault, times=1)
    stage.scene.publish_desired([desired(case.key, 2, enabled=case.verb == "create") for case in cases])
    _change_while_under_way(stage, cases, {case.key: gone(case.key, 3) for case in cases})
    ended(stage, _keys(cases), 3)
    exists(stage, dict.fromkeys(_keys(cases)))
    for case in cases:
        made = calls(stage, case.key)
        reached = {call["system"] for call in made if call["verb"] == case.verb and call["system"] in SYSTEMS}
        assert reached == set(SYSTEMS[: SYSTEMS.index(case.system) + 1]), case
        removed = [SYSTEMS.index(call["system"]) for call in made if call["verb"] == "delete"]
        assert removed == sorted(removed, reverse=True), case


@pytest.mark.long
def test_a_reinstall_waits_for_each_delete_and_begins_the_next_generation(stage: Stage) -> None:
    cases = _cases(stage, *((system, "delete", fault) for system in reversed(STEPS) for fault in ENDINGS))
    keys = _keys(cases)
    # The archive's refusal is one of the operator's own system: it is asked again after the longest wait.
    stage.scene.start(RETRY_MOST_S="2")
    stage.scene.publish_desired([desired(of, 1) for of in keys])
    ended(stage, keys, 1)
    for case in cases:
        case.strike(stage, "slow", seconds=UNDER_WAY_S, times=1)
        case.strike(stage, case.fault, times=1)
    stage.scene.publish_desired([gone(of, 2) for of in keys])
    _change_while_under_way(stage, cases, {of: desired(of, 3, uninstalled_at=2) for of in keys})
    ended(stage, keys, 3)
    exists(stage, dict.fromkeys(keys, 2))
    for of in keys:
        generations = [call["generation"] for call in calls(stage, of)]
        assert generations == sorted(generations), "the first life was not over when the second began"
    stage.scene.publish_desired([gone(of, 4) for of in keys])
    ended(stage, keys, 4)
    exists(stage, dict.fromkeys(keys))


def test_a_resource_removed_by_others_counts_as_removed(stage: Stage) -> None:
    cases = _cases(stage, *((system, "delete", None) for system in SYSTEMS))
    *_, without_role, all_gone = keys = stage.keys(len(cases) + 2)
    stage.scene.start()
    stage.scene.publish_desired([desired(of, 1) for of in keys])
    ended(stage, keys, 1)
    for of, system, *_ in cases:
        remove(stage, system, of, owner=of)
    remove(stage, "schemas", without_role, owner=without_role)
    for system in SYSTEMS:
        remove(stage, system, all_gone, owner=all_gone)
    for of in (without_role, all_gone):
        remove_role(stage, of)
    before = {of: len(calls(stage, of)) for of in keys}
    stage.scene.publish_desired([gone(of, 2) for of in keys])
    ended(stage, keys, 2)
    exists(stage, dict.fromkeys(keys))
    for of, system, *_ in cases:
        said = {call["system"]: call["outcome"] for call in calls(stage, of)[before[of] :]}
        # A token is looked up by its name before it is revoked.
        assert said.pop(system, "absent") == "absent"
        assert set(said) == {"archive", *SYSTEMS} - {system}
        assert set(said.values()) == {"done"}


def test_an_existing_resource_of_the_same_generation_is_adopted(stage: Stage) -> None:
    cases = _cases(stage, *((system, "create", fault) for system in SYSTEMS for fault in (None, "lost_answer", "down")))
    for case in cases:
        make(stage, case.system, case.key, owner=case.key)
        _heard(case).strike(stage, case.fault, times=1)
    stage.scene.start()
    stage.scene.publish_desired([desired(of, 1, enabled=False) for of in _keys(cases)])
    ended(stage, _keys(cases), 1)
    exists(stage, dict.fromkeys(_keys(cases), 1))
    for case in cases:
        # After a silence it is looked at, and counts as what was asked for.
        assert case.fault == "down" or not any(told(stage, system, case.key)["enabled"] for system in PATHS), case
    stage.scene.publish_desired([gone(of, 2) for of in _keys(cases)])
    ended(stage, _keys(cases), 2)
    exists(stage, dict.fromkeys(_keys(cases)))


def test_a_strangers_resource_is_refused_and_kept(stage: Stage) -> None:
    cases, owners = _owned_by_strangers(stage, tuple(PATHS), None)
    stage.scene.start()
    stage.scene.publish_desired([desired(of, 1) for of in _keys(cases)])
    ended(stage, _keys(cases), 1, rolled_back)
    assert all(stage.world.inventory(case.system, owners[case.key]) for case in cases)
    stage.scene.publish_desired([desired(of, 2) for of in _keys(cases)])
    ended(stage, _keys(cases), 2)
    stage.scene.publish_desired([gone(of, 3) for of in _keys(cases)])
    ended(stage, _keys(cases), 3)
    assert all(stage.world.inventory(case.system, owners[case.key]) for case in cases)
    for case in cases:
        remove(stage, case.system, case.key, owner=owners[case.key])
    exists(stage, dict.fromkeys(_keys(cases)))


@pytest.mark.parametrize(("systems", "fault"), [(tuple(PATHS), "down"), (("schemas",), None), (("schemas",), "down")])
def test_an_install_waits_until_a_strangers_resource_is_gone(
    stage: Stage, systems: tuple[str, ...], fault: str | None
) -> None:
    cases, owners = _owned_by_strangers(stage, systems, fault)
    stage.scene.start(RETRY_MOST_S="1")
    stage.scene.publish_desired([desired(of, 1) for of in _keys(cases)])
    for case in cases:
        of, reason = case.key, f"{STEPS[case.system]}_contradicted"
        eventually(lambda: reason in {said.reason for said in stage.scene.outcomes(of)})  # noqa: B023 - called at once
        assert stage.world.inventory(case.system, owners[of])
        remove(stage, case.system, of, owner=owners[of])
    ended(stage, _keys(cases), 1)
    exists(stage, dict.fromkeys(_keys(cases), 1))
    stage.scene.publish_desired([gone(of, 2) for of in _keys(cases)])
    ended(stage, _keys(cases), 2)
    exists(stage, dict.fromkeys(_keys(cases)))


def test_an_uninstall_leaves_a_strangers_schema(stage: Stage) -> None:
    (case,), owners = _owned_by_strangers(stage, ("schemas",), None)
    stage.scene.start(RETRY_MOST_S="1")
    stage.scene.publish_desired([desired(case.key, 1)])
    eventually(lambda: "schema_contradicted" in {said.reason for said in stage.scene.outcomes(case.key)})
    stage.scene.publish_desired([gone(case.key, 2)])
    ended(stage, [case.key], 2)
    assert stage.world.inventory("schemas", owners[case.key])
    remove(stage, "schemas", case.key, owner=owners[case.key])
    exists(stage, {case.key: None})


@pytest.mark.parametrize("words", ["", "of the customer", comment_of("another")])
def test_a_schema_with_a_changed_comment_is_contradicted_and_its_tenant_stays_disabled(
    stage: Stage, words: str
) -> None:
    (of,) = stage.keys(1)
    stage.scene.start(RETRY_MOST_S="1")
    stage.scene.publish_desired([desired(of, 1)])
    ended(stage, [of], 1)
    comment(stage, of, words)
    stage.scene.publish_desired([desired(of, 2, enabled=False)])
    eventually(lambda: "schema_contradicted" in {said.reason for said in stage.scene.outcomes(of)})
    assert [told(stage, system, of)["enabled"] for system in ("middleware", "crm")] == [False, False]
    comment(stage, of, comment_of(of))
    ended(stage, [of], 2)
    assert [told(stage, system, of)["enabled"] for system in PATHS] == [False] * 3
    stage.scene.publish_desired([gone(of, 3)])
    ended(stage, [of], 3)
    exists(stage, {of: None})


def _owned_by_strangers(
    stage: Stage, systems: tuple[str, ...], fault: str | None
) -> tuple[list[TenantCase], dict[str, str]]:
    """A tenant for each system, whose resource there is somebody else's already, and whose those are."""
    cases = _cases(stage, *((system, "create", fault) for system in systems))
    owners = dict(zip(_keys(cases), stage.keys(2 * len(cases))[len(cases) :], strict=True))
    for case in cases:
        make(stage, case.system, case.key, owner=owners[case.key])
        _heard(case).strike(stage, case.fault, times=1)
    return cases, owners


def _heard(case: TenantCase) -> TenantCase:
    """A create as the system hears it that has the resource already: where a name is put, it is an update."""
    return case._replace(verb="update") if case.system in PATHS else case


def test_systems_without_idempotency_that_lose_answers_make_no_resource_twice(stage: Stage) -> None:
    kinds = [(s, v, n) for s in STEPS for v in ("create", "update", "delete") for n in (1, 2)]
    kinds = [(s, v, n) for s, v, n in kinds if s in SYSTEMS or v == "delete"]
    cases = _cases(stage, *((system, verb, "lost_answer") for system, verb, _ in kinds))
    *_, everything = keys = stage.keys(len(cases) + 1)
    for system in STEPS:
        stage.world.fault(system, "ignore_idempotency")

    def strike(during: str) -> None:
        for case, (_, verb, times) in zip(cases, kinds, strict=True):
            if verb == during:
                case.strike(stage, case.fault, times=times)
        for system in SYSTEMS:
            TenantCase(everything, system, during).strike(stage, "lost_answer", times=1)

    stage.scene.start()
    strike("create")
    stage.scene.publish_desired([desired(of, 1) for of in keys])
    ended(stage, keys, 1)
    exists(stage, dict.fromkeys(keys, 1))
    strike("update")
    stage.scene.publish_desired([desired(of, 2, enabled=False) for of in keys])
    ended(stage, keys, 2)
    exists(stage, dict.fromkeys(keys, 1))
    strike("delete")
    stage.scene.publish_desired([gone(of, 3) for of in keys])
    ended(stage, keys, 3)
    exists(stage, dict.fromkeys(keys))
    lost = {(call["system"], call["verb"]) for of in keys for call in calls(stage, of) if call["outcome"] == "lost"}
    assert lost == {
        (s, v) for s in SYSTEMS for v in ("create", "update", "delete") if v != "update" or _may_update(s)
    } | {("archive", "create")}


def test_a_refused_create_is_compensated_a_refused_update_restored_and_a_refused_delete_waits(stage: Stage) -> None:
    cases = _cases(
        stage,
        *((system, "create", "refuse") for system in SYSTEMS),
        *((system, "update", "refuse") for system in SYSTEMS if _may_update(system)),
        *((system, "delete", "refuse") for system in (*SYSTEMS, "archive")),
    )
    creates, updates, deletes = ([c for c in cases if c.verb == verb] for verb in ("create", "update", "delete"))
    others = [*_keys(updates), *_keys(deletes)]
    for case in cases:
        case.strike(stage, case.fault, **({} if case.verb == "delete" else {"times": 1}))
    stage.scene.start(UNWELL_AFTER_S="2", RETRY_MOST_S="1")
    stage.scene.publish_desired([desired(of, 1) for of in _keys(cases)])
    ended(stage, others, 1)
    stage.scene.publish_desired([desired(of, 2, enabled=False) for of in _keys(updates)])
    stage.scene.publish_desired([gone(of, 2) for of in _keys(deletes)])
    ended(stage, _keys(creates), 1, rolled_back)
    ended(stage, _keys(updates), 2, restored)
    for case in updates:
        assert not [call for call in calls(stage, case.key) if call["verb"] == "delete"]
        assert all(told(stage, system, case.key)["enabled"] is True for system in PATHS), case
    ended(stage, _keys(deletes), 2, failed)
    for case in deletes:
        undone = SYSTEMS[SYSTEMS.index(case.system) + 1 :] if case.system in SYSTEMS else SYSTEMS
        assert not any(stage.world.inventory(system, case.key) for system in undone), case
    stage.world.heal()
    becomes(stage, _keys(deletes), 2)

    stage.scene.publish_desired([desired(of, 3, uninstalled_at=2) for of in _keys(cases)])
    ended(stage, _keys(cases), 3)
    exists(
        stage, dict.fromkeys(_keys(creates), 2) | dict.fromkeys(_keys(updates), 1) | dict.fromkeys(_keys(deletes), 2)
    )
    stage.scene.publish_desired([gone(of, 4) for of in _keys(cases)])
    ended(stage, _keys(cases), 4)
    exists(stage, dict.fromkeys(_keys(cases)))


def test_an_outage_at_any_step_rolls_no_tenant_back(stage: Stage) -> None:
    cases = _cases(
        stage,
        *((system, "create", "error") for system in SYSTEMS),
        *((system, "update", "error") for system in SYSTEMS if _may_update(system)),
        *((system, "delete", "error") for system in (*SYSTEMS, "archive")),
    )
    creates, updates, deletes = ([c for c in cases if c.verb == verb] for verb in ("create", "update", "delete"))
    for case in cases:
        case.strike(stage, case.fault)
    stage.scene.start(UNWELL_AFTER_S="2", RETRY_FIRST_S="0.1", RETRY_MOST_S="1")
    stage.scene.publish_desired([desired(of, 1) for of in _keys(cases)])
    ended(stage, [*_keys(updates), *_keys(deletes)], 1)
    stage.scene.publish_desired([desired(of, 2, enabled=False) for of in _keys(updates)])
    stage.scene.publish_desired([gone(of, 2) for of in _keys(deletes)])
    for case in cases:
        of, reason = case.key, f"waiting_for:{STEPS[case.system]}"
        eventually(lambda: reason in {said.reason for said in stage.scene.outcomes(of)})  # noqa: B023 - called at once
    stage.world.heal()
    becomes(stage, _keys(creates), 1)
    becomes(stage, [*_keys(updates), *_keys(deletes)], 2)
    exists(
        stage,
        dict.fromkeys([*_keys(creates), *_keys(updates)], 1) | dict.fromkeys(_keys(deletes)),
    )
    ends = [
        said.state for said in stage.scene.said if said.state is State.ROLLED_BACK or said.reason == "update_refused"
    ]
    assert ends == []
    stage.scene.publish_desired([gone(of, 3) for of in _keys(cases)])
    ended(stage, _keys(cases), 3)
    exists(stage, dict.fromkeys(_keys(cases)))


def test_a_blocked_compensation_waits_and_continues_without_help(stage: Stage) -> None:
    kinds = [(system, "delete", fault) for system in STEPS if system != "tokens" for fault in ("refuse", "lost_answer")]
    cases = _cases(stage, *kinds)
    for case in cases:
        TenantCase(case.key, "tokens", "create").strike(stage, "refuse", times=1)
        case.strike(stage, case.fault, **({"times": 1} if case.fault == "lost_answer" else {}))
    stage.scene.start(RETRY_MOST_S="1", UNWELL_AFTER_S="2")
    stage.scene.publish_desired([desired(of, 1) for of in _keys(cases)])
    ended(stage, [case.key for case in cases if case.fault == "lost_answer"], 1, rolled_back)
    for case in cases:
        if case.fault == "refuse":
            said = eventually(partial(_stands, stage, case))
            assert said is not None
            assert (said.state, said.direction, said.reason) == (State.WORKING, Direction.UP, "compensating")
            assert case.system == "archive" or stage.world.inventory(case.system, case.key), case
    stage.world.heal()
    ended(stage, _keys(cases), 1, rolled_back)
    exists(stage, dict.fromkeys(_keys(cases)))


def _stands(stage: Stage, case: TenantCase) -> Outcome | None:
    """The newest outcome of a compensation that stands at the step of a case."""
    said = stage.scene.outcomes(case.key)
    return said[-1] if said and said[-1].step == STEPS[case.system] and said[-1].error_class is not None else None


def _deaths() -> Iterator[Any]:
    for name, story in STORIES.items():
        deaths = story.deaths if ALL_MARKS else story.deaths[story.some]
        for first in range(0, len(deaths), DEATHS_A_TEST):
            some = deaths[first : first + DEATHS_A_TEST]
            yield pytest.param(story, some, id=f"{name}, {some[0][0]} to {some[-1][0]}")


@pytest.mark.long
@pytest.mark.parametrize(("story", "deaths"), list(_deaths()))
def test_a_worker_killed_between_any_two_marks_loses_and_repeats_no_effect(
    stage: Stage, story: Story, deaths: list[tuple[int, str]]
) -> None:
    undisturbed, *keys = stage.keys(1 + len(deaths))
    assert not _killed(stage, story, undisturbed, story.commits + 1, "before"), "more marks than the story says"
    intents = _intents(stage, undisturbed)
    for of, (at, when) in zip(keys, deaths, strict=True):
        assert _killed(stage, story, of, at, when), f"no worker died {when} mark {at}"
        assert _intents(stage, of) == intents, f"{when} mark {at}: another intent, or one less"


def _killed(stage: Stage, story: Story, of: str, at: int, when: str) -> bool:
    """Tell a story with a worker that dies, and the shipped one after it; whether the first did die."""
    scene = stage.scene
    scene.program = DYING
    # A port of its own makes a process the same member of its group again.
    fixed_port = {"METRICS_PORT": str(scene.port)}
    first = worker = scene.start(DIES=when, DIES_AT=str(at), **fixed_port)
    for chapter in story.chapters:
        stage.world.heal()
        if chapter.refused:
            system, verb = chapter.refused
            stage.world.fault(system, "refuse", verb=verb, key=of)
        version = chapter.desired_of(of)
        scene.publish_desired([version])
        eventually(lambda: worker.poll() is not None or _has_ended(stage, version))  # noqa: B023 - called at once
        if worker.poll() is not None:
            scene.program = SHIPPED
            worker = scene.start(**fixed_port)
        assert chapter.check(scene.ended(of, version.version)), (when, at, stage.world.calls(of))
        if worker is not first or chapter is story.chapters[-1]:
            exists(stage, {**dict.fromkeys(_known(stage)), of: chapter.life})
    assert end(worker) == 0
    return first.returncode == -signal.SIGKILL


def _known(stage: Stage) -> list[str]:
    return [of for (of,) in stage.scene.rows("SELECT key FROM lifecycle.sagas")]


def _intents(stage: Stage, of: str) -> Counter[tuple[int, str, str]]:
    """The number of different intents at each system, by generation and verb."""
    names = ("generation", "system", "verb")
    different = {(*(call[name] for name in names), call["idempotency_key"]) for call in calls(stage, of)}
    return Counter((generation, system, verb) for generation, system, verb, _ in different)


def _has_ended(stage: Stage, version: Desired) -> bool:
    said = stage.scene.outcomes(version.key)
    return any(one.desired_version == version.version and one.state is not State.WORKING for one in said)
