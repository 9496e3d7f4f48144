"""Decisions of the saga as stories: the calls, their order, and the outcomes."""

import json
from dataclasses import replace
from itertools import cycle, pairwise
from typing import Any

import pytest

from schemas.saga import Journal, Phase
from services.core.saga.calls import Answer, Done, Verb
from services.core.saga.intents import decide, hold, retried_journal
from services.core.saga.moves import TakeUp, Wait
from services.core.saga.next_move import Plans, next_move
from services.core.saga.pace import Pace
from services.core.saga.plan import Plan
from tests.support.saga_world import (
    KEY,
    PLAN_TEXT,
    STEPS,
    DesiredVersions,
    MemoryRunner,
    Mode,
    OutsideSystems,
    Resource,
    ends,
    plan,
)

ABSENT_STEPS = tuple(reversed(STEPS))
SIX_HOURS_US = 6 * 3_600 * 10**6
LONG_US = SIX_HOURS_US + 3_600 * 10**6
UNWELL_US = 900 * 10**6
TROUBLES = (Mode.RETRYABLE, Mode.REFUSED, Mode.OPERATOR_REFUSED, Mode.CONTRADICTED)


def _active(world: OutsideSystems, versions: DesiredVersions, **more: object) -> MemoryRunner:
    worker = MemoryRunner(world, versions.installed(), **more)  # type: ignore[arg-type]  # fields of the worker
    worker.run()
    world.calls.clear()
    world.outputs_given.clear()
    return worker


def test_a_first_install_makes_every_step_in_the_plans_order() -> None:
    world = OutsideSystems()
    worker = MemoryRunner(world, DesiredVersions().installed())
    worker.run()
    assert world.made(Verb.CREATE) == list(STEPS)
    assert len(world.calls) == len(STEPS)
    assert ends(worker.outcomes) == [(1, "up", "done", None)]
    assert worker.outcomes[0].state.value == "working"
    assert (worker.outcomes[0].generation, worker.outcomes[0].step) == (1, "archive")


def test_teardown_is_the_reverse_and_ends_with_the_archive() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.run([(0, versions.uninstalled())])
    assert world.made(Verb.DELETE) == list(ABSENT_STEPS)
    assert ends(worker.outcomes)[-1] == (2, "down", "done", None)
    assert world.archived == 1


def test_an_ended_generation_is_looked_up_again_by_name_a_minute_later() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.run([(0, versions.uninstalled())])
    assert world.made(Verb.READ) == [step for step in ABSENT_STEPS if step != "archive"]
    ended_us = worker.last.at
    assert worker.now_us >= ended_us + 70_000_000


def test_a_resource_that_appears_after_the_end_is_removed() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, until_us=60_000_000)
    late = world.there["crm", 1]
    worker.run([(0, versions.uninstalled())])
    assert world.there == {}
    world.there["crm", 1] = late
    worker.until_us = 10**18
    worker.run()
    assert world.there == {}
    assert worker.journal.orphan_checks == ()


def test_a_late_resource_is_removed_even_if_the_removal_is_refused_for_a_while() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, until_us=60_000_000)
    late = world.there["crm", 1]
    worker.run([(0, versions.uninstalled())])
    world.there["crm", 1] = late
    refusals = iter([Mode.REFUSED] * 3)
    world.decides = lambda s, v: next(refusals, None) if (s, v) == ("crm", Verb.DELETE) else None
    worker.until_us = 10**18
    began_us = worker.now_us
    worker.run()
    assert worker.now_us > began_us + 3 * 60_000_000
    assert world.there == {}
    assert worker.phase is Phase.EMPTY
    assert worker.journal.orphan_checks == ()


def test_a_refused_look_up_ends_the_orphan_check() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    world.decides = lambda _, v: Mode.REFUSED if v is Verb.READ else None
    worker.run([(0, versions.uninstalled())])
    assert len(world.made(Verb.READ)) == len(STEPS) - 1
    assert worker.journal.orphan_checks == ()


def test_a_call_that_fails_for_ever_is_given_up_after_give_up_after() -> None:
    world = OutsideSystems(decides=lambda s, v: Mode.BROKEN if (s, v) == ("crm", Verb.CREATE) else None)
    worker = MemoryRunner(world, DesiredVersions().installed())
    worker.run()
    assert worker.now_us > SIX_HOURS_US
    assert world.there == {}
    assert ends(worker.outcomes)[-1] == (1, "up", "rolled_back", "crm_exhausted")


def test_a_vanished_resource_is_made_again_by_an_update() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    del world.there["middleware", 1]
    worker.run([(0, versions.configured(size="2"))])
    assert [verb for _, verb, _, _ in world.calls] == ["update", "create"]
    assert world.there["middleware", 1].configuration == {"size": "2"}


def test_a_doubtful_step_of_a_revived_generation_is_read_and_updated() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    plans = Plans(plan(PLAN_TEXT.replace('kind = "http"', 'kind = "http"\ndestroy_after = "P1D"')))
    worker = _active(world, versions, plans=plans, until_us=3600 * 10**6)
    world.modes = [Mode.WELL, Mode.LOST_WITHOUT, Mode.SILENT]
    worker.run([(0, versions.uninstalled()), (6, versions.installed())])
    assert world.steps() == list(STEPS)
    assert ends(worker.outcomes)[-1] == (3, "up", "done", None)


def test_an_uninstall_before_any_install_makes_no_call_and_has_an_outcome() -> None:
    world = OutsideSystems()
    worker = MemoryRunner(world, DesiredVersions().uninstalled())
    worker.run()
    assert world.calls == []
    assert [(o.desired_version, o.generation, o.direction, o.state) for o in worker.outcomes] == [
        (1, 0, "down", "done")
    ]


def test_every_version_has_an_outcome_even_without_a_change() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.run([(0, versions.change())])
    assert world.calls == []
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)


def test_an_update_calls_only_the_steps_whose_settings_changed() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.run([(0, versions.configured(topics="calls"))])
    assert [(step, verb) for step, verb, _, _ in world.calls] == [("subscriptions", Verb.UPDATE)]
    assert worker.journal.generation == 1


def test_disabling_updates_every_step_and_deletes_none() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.run([(0, versions.switched(enabled=False))])
    assert world.made(Verb.UPDATE) == list(STEPS)
    assert world.made(Verb.DELETE) == []
    assert not any(resource.enabled for resource in world.there.values())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("mode", [Mode.REFUSED, Mode.RETRYABLE])
def test_a_first_provisioning_that_fails_at_any_step_leaves_no_resource(step: str, mode: Mode) -> None:
    world = OutsideSystems(decides=lambda s, v: mode if s == step and v is Verb.CREATE else None)
    worker = MemoryRunner(world, DesiredVersions().installed())
    worker.run()
    assert world.there == {}
    assert ends(worker.outcomes)[-1][1:3] == ("up", "rolled_back")
    assert (worker.last.step, worker.last.error_class) == (
        step,
        "refused" if mode is Mode.REFUSED else "exhausted",
    )
    assert world.made(Verb.DELETE) == list(reversed(STEPS[: STEPS.index(step) + 1]))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("mode", TROUBLES)
def test_a_blocked_compensation_is_shown_as_a_waiting_install_and_continues(step: str, mode: Mode) -> None:
    failing = {"on": True}
    world, versions = OutsideSystems(), DesiredVersions()
    world.decides = lambda s, v: (
        Mode.REFUSED
        if (s, v) == ("tokens", Verb.CREATE)
        else mode
        if failing["on"] and (s, v) == (step, Verb.DELETE)
        else None
    )
    worker = MemoryRunner(world, versions.installed(), until_us=2 * 3_600 * 10**6)
    if step != "tokens":  # that one was never made, as every answer said: the orphan check looks again
        worker.run()
        assert worker.phase is Phase.COMPENSATING
        assert {(o.direction, o.state) for o in worker.outcomes} == {("up", "working")}
        assert worker.last.reason == "compensating"
        assert worker.journal.standstill is not None
        assert worker.journal.standstill.step == step
    failing["on"] = False
    worker.until_us = 10**18
    worker.run()
    assert world.there == {}
    assert ends(worker.outcomes) == [(1, "up", "rolled_back", "tokens_refused")]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("mode", TROUBLES)
def test_a_blocked_teardown_is_reported_as_failed_and_continues(step: str, mode: Mode) -> None:
    failing = {"on": True}
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    world.decides = lambda s, v: mode if failing["on"] and (s, v) == (step, Verb.DELETE) else None
    worker.until_us = worker.now_us + 2 * 3_600 * 10**6
    worker.run([(0, versions.uninstalled())])
    waits = mode in {Mode.RETRYABLE, Mode.OPERATOR_REFUSED}
    reason = f"waiting_for:{step}" if waits else f"{step}_{worker.last.error_class}"
    assert ends(worker.outcomes)[-1] == (2, "down", "failed", reason)
    failed = worker.last.at - worker.journal.phase_began_at
    assert failed >= UNWELL_US if waits else failed < UNWELL_US
    failing["on"] = False
    worker.until_us = 10**18
    worker.run()
    assert world.there == {}
    assert ends(worker.outcomes)[-1] == (2, "down", "done", None)


def test_a_reinstall_waits_for_a_blocked_teardown_and_begins_the_next_generation() -> None:
    failing = {"on": True}
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    world.decides = lambda s, v: Mode.REFUSED if failing["on"] and (s, v) == ("schema", Verb.DELETE) else None
    worker.until_us = worker.now_us + 60_000_000
    worker.run([(0, versions.uninstalled())])
    worker.run([(0, versions.installed())])
    assert worker.phase is Phase.REMOVING
    failing["on"] = False
    worker.until_us = 10**18
    worker.run()
    assert ends(worker.outcomes)[-2:] == [(2, "down", "done", None), (3, "up", "done", None)]
    assert {generation for _, generation in world.there} == {2}


@pytest.mark.parametrize("former", ["removal_failed", "compensation_failed"])
def test_a_journal_parked_by_an_earlier_release_continues(former: str) -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    if former == "removal_failed":
        worker = _active(world, versions, until_us=60_000_000)
        world.decides = lambda s, v: Mode.REFUSED if (s, v) == ("schema", Verb.DELETE) else None
        worker.run([(0, versions.uninstalled())])
    else:
        world.decides = lambda s, v: Mode.REFUSED if (s, v) == ("schema", Verb.DELETE) else None
        worker = MemoryRunner(world, versions.installed(bad="tokens"), until_us=60_000_000)
        worker.run()
    stored = json.loads(worker.stored)
    assert stored["phase"] in {"removing", "compensating"}
    worker.stored = json.dumps(stored | {"phase": former, "seen": 2})
    world.decides = lambda _, __: None
    worker.until_us = 10**18
    worker.run()
    assert world.there == {}
    assert worker.last.state.value == ("done" if former == "removal_failed" else "rolled_back")


def test_a_clock_behind_makes_no_grace_period() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    world.decides = lambda s, v: Mode.SILENT if (s, v) == ("schema", Verb.DELETE) else None
    worker.until_us = worker.now_us
    worker.run([(0, versions.uninstalled())])
    assert worker.phase is Phase.REMOVING
    move = next_move(worker.plans, worker.journal, versions.installed(), worker.journal.phase_began_at - 1_000_000)
    assert not isinstance(move, TakeUp)


def test_an_ended_generation_with_an_unusable_plan_blocks_no_new_install() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, until_us=60_000_000)
    worker.run([(0, versions.uninstalled())])
    (check,) = worker.journal.orphan_checks
    now = plan(PLAN_TEXT + "# of another release\n")
    worker.plans = Plans(now, unusable={check.life.plan: "no such kind"})
    worker.until_us = check.due_at + 10 * 60_000_000
    asked = len(world.calls)
    worker.run([(0, versions.installed())])
    assert ends(worker.outcomes)[-1] == (versions.now.version, "up", "done", None)
    assert len(world.calls) == asked + len(STEPS)
    assert [left.life.plan for left in worker.journal.orphan_checks] == [check.life.plan]
    worker.plans, worker.until_us = Plans(now, {check.life.plan: plan()}), 10**18
    worker.run()
    assert worker.journal.orphan_checks == ()


def test_a_step_that_refuses_create_and_delete_is_rolled_back() -> None:
    world = OutsideSystems(decides=lambda s, _: Mode.REFUSED if s == "crm" else None)
    worker = MemoryRunner(world, DesiredVersions().installed())
    worker.run()
    assert world.there == {}
    assert ends(worker.outcomes)[-1] == (1, "up", "rolled_back", "crm_refused")


def test_a_corrected_configuration_retries_a_rolled_back_tenant_in_the_next_generation() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = MemoryRunner(world, versions.installed(bad="crm"))
    worker.run()
    assert worker.phase is Phase.ROLLED_BACK
    worker.run([(0, versions.configured())])
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)
    assert {generation for _, generation in world.there} == {2}


@pytest.mark.parametrize("step", STEPS[2:])
def test_a_refused_update_restores_the_last_good_configuration_and_deletes_nothing(step: str) -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.run([(0, versions.configured(bad=step, topics="calls", size="2"))])
    assert world.steps() == list(STEPS)
    assert world.made(Verb.DELETE) == []
    assert not any("bad" in resource.configuration for resource in world.there.values())
    assert not any({"topics", "size"} & resource.configuration.keys() for resource in world.there.values())
    assert ends(worker.outcomes)[-1] == (2, "up", "done", "update_refused")
    assert (worker.last.step, worker.last.error_class) == (step, "refused")


def test_a_failed_restoration_deletes_no_step_and_the_next_version_mends_it() -> None:
    failing = {"on": True}
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    world.decides = lambda s, v: Mode.REFUSED if failing["on"] and (s, v) == ("crm", Verb.UPDATE) else None
    worker.run([(0, versions.configured(bad="none"))])
    assert ends(worker.outcomes)[-1] == (2, "up", "done", "update_refused")
    assert world.steps() == list(STEPS)
    failing["on"] = False
    worker.run([(0, versions.configured(bad="still none"))])
    assert world.there["crm", 1].configuration["bad"] == "still none"


def test_a_failed_restoration_is_mended_by_the_good_configuration() -> None:
    failing = {"on": True}
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    world.decides = lambda s, v: Mode.REFUSED if failing["on"] and (s, v) == ("crm", Verb.UPDATE) else None
    worker.run([(0, versions.configured(bad="none"))])
    failing["on"] = False
    world.calls.clear()
    worker.run([(0, versions.configured())])
    assert world.made(Verb.UPDATE) == ["crm"]


def test_tokens_whose_revocation_is_refused_stay_until_the_next_version_revokes_them() -> None:
    failing = {"on": True}
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    world.decides = lambda s, v: Mode.REFUSED if failing["on"] and (s, v) == ("tokens", Verb.DELETE) else None
    worker.run([(0, versions.reinstalled())])
    assert ends(worker.outcomes)[-1] == (3, "up", "done", "update_refused")
    assert [(step, verb) for step, verb, _, _ in world.calls] == [("tokens", Verb.DELETE), ("tokens", Verb.UPDATE)]
    failing["on"] = False
    world.calls.clear()
    worker.run([(0, versions.configured())])
    assert [(step, verb) for step, verb, _, _ in world.calls] == [("tokens", Verb.DELETE), ("tokens", Verb.CREATE)]


def test_a_step_in_doubt_is_not_absent_because_its_removal_is_refused() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    world.decides = lambda s, v: {
        ("crm", Verb.CREATE): Mode.LOST_WITH_EFFECT,
        ("crm", Verb.READ): Mode.SILENT,
        ("crm", Verb.DELETE): Mode.REFUSED,
    }.get((s, v))
    worker = MemoryRunner(world, versions.installed(), crashes=frozenset({6}), until_us=3_600 * 10**6)
    worker.run([(6, versions.uninstalled())])
    assert world.made(Verb.CREATE)[-1] == "crm"
    assert worker.phase is Phase.REMOVING
    assert worker.last.state.value == "failed"


@pytest.mark.parametrize("read", [Mode.REFUSED, Mode.WELL])
def test_a_refused_repeat_leaves_the_first_call_in_doubt(read: Mode) -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    tried: list[str] = []

    def decides(step: str, verb: Verb) -> Mode | None:
        if step != "crm":
            return None
        tried.append(verb)
        if verb is Verb.CREATE:
            return Mode.LOST_WITHOUT if len(tried) == 1 else Mode.REFUSED
        return read if verb is Verb.READ else Mode.REFUSED

    world.decides = decides
    worker = MemoryRunner(world, versions.installed(), until_us=3_600 * 10**6)
    worker.run()
    assert tried[:4] == ["create", "read", "create", "delete"]
    assert set(tried[4:]) == {"delete"}
    assert worker.phase is Phase.COMPENSATING


def test_a_retryable_repeat_keeps_its_idempotency_key() -> None:
    world = OutsideSystems(modes=[Mode.WELL, Mode.LOST_WITHOUT, Mode.WELL, Mode.RETRYABLE])
    worker = MemoryRunner(world, DesiredVersions().installed())
    worker.run()
    assert [step for step, *_ in world.calls[1:6]] == ["middleware"] * 4 + ["crm"]
    assert worker.journal.life is not None
    assert worker.journal.life.steps["middleware"].n == 1


def test_a_resource_made_late_by_an_older_create_gets_the_newer_settings() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = MemoryRunner(world, versions.installed(size="old"), until_us=2_000_000)
    world.modes = [Mode.WELL, Mode.LOST_WITHOUT, Mode.WELL, Mode.SILENT]
    worker.run()
    world.modes = [Mode.LOST_WITHOUT]
    late = Resource({"size": "old"}, enabled=True, made_at=0, idempotency_key="late")

    def decides(step: str, verb: Verb) -> Mode | None:
        if (step, verb) == ("middleware", Verb.READ):
            world.there["middleware", 1] = late
        return None

    world.decides = decides
    worker.until_us = 10**18
    worker.run([(0, versions.configured(size="new"))])
    assert world.there["middleware", 1].configuration == {"size": "new"}
    assert [verb for step, verb, _, _ in world.calls if step == "middleware"][-3:] == ["create", "read", "update"]


def test_a_missing_configuration_value_is_refused_by_name_before_any_call() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = MemoryRunner(world, versions.installed().model_copy(update={"configuration": {}}))
    worker.run()
    assert "crm" not in [step for step, *_ in world.calls]
    assert worker.journal.failure is not None
    assert worker.journal.failure.reason == "missing: configuration.crmEndpoint"
    assert world.there == {}


def test_an_uninstall_between_two_installs_reissues_the_tokens_only() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.run([(0, versions.reinstalled())])
    assert [(step, verb) for step, verb, _, _ in world.calls] == [("tokens", Verb.DELETE), ("tokens", Verb.CREATE)]
    assert ends(worker.outcomes)[-1] == (3, "up", "done", None)
    assert worker.journal.generation == 1
    worker.run([(0, versions.installed())])
    assert len(world.calls) == 2


def test_a_late_uninstall_between_two_installs_reissues_the_tokens_once() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    between_us = versions.at_us + 5
    worker.run([(0, versions.installed())])
    assert world.calls == []
    worker.run([(0, versions.change(uninstalled_at=between_us)), (1, versions.change(uninstalled_at=between_us + 1))])
    assert [(step, verb) for step, verb, _, _ in world.calls] == [("tokens", Verb.DELETE), ("tokens", Verb.CREATE)]


def test_an_uninstall_older_than_the_provisioned_install_makes_no_call() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.run([(0, versions.change(uninstalled_at=1))])
    assert world.calls == []


@pytest.mark.parametrize("after", range(1, 2 * len(STEPS) + 2))
def test_an_uninstall_at_any_point_of_a_provisioning_removes_every_begun_step(after: int) -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    installed = versions.installed()
    worker = MemoryRunner(world, installed)
    worker.run([(after, versions.uninstalled())])
    assert world.there == {}
    assert ends(worker.outcomes)[-1] == (2, "down", "done", None)
    started = world.made(Verb.CREATE)
    assert world.made(Verb.DELETE)[: len(started)] == list(reversed(started))


@pytest.mark.parametrize("after", range(2 * len(STEPS) + 2))
def test_a_reinstall_at_any_point_of_a_teardown_waits_for_its_end(after: int) -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.marks = 0
    worker.run([(0, versions.uninstalled()), (1 + after, versions.installed())])
    assert world.steps() == list(STEPS)
    assert {generation for _, generation in world.there} == {2}
    assert world.made(Verb.DELETE)[: len(STEPS)] == list(ABSENT_STEPS)


def _with_grace(duration: str) -> Plans:
    return Plans(plan(PLAN_TEXT.replace('kind = "postgres"', f'kind = "postgres"\ndestroy_after = "{duration}"')))


def test_a_teardown_waits_for_destroy_after_with_reason_grace() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, plans=_with_grace("P1D"), until_us=3600 * 10**6)
    worker.run([(0, versions.uninstalled())])
    assert world.steps() == ["archive", "middleware", "crm", "schema"]
    assert (worker.last.state, worker.last.direction, worker.last.reason, worker.last.step) == (
        "working",
        "down",
        "grace",
        "schema",
    )
    worker.until_us = 10**18
    worker.run()
    assert world.there == {}
    assert worker.now_us > 86_400 * 10**6


def test_another_uninstall_does_not_restart_the_grace_period() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, plans=_with_grace("P1D"), until_us=3600 * 10**6)
    worker.run([(0, versions.uninstalled())])
    worker.now_us += 80_000 * 10**6
    worker.until_us = 90_000 * 10**6
    worker.run([(0, versions.uninstalled())])
    assert world.there == {}


def test_a_reinstall_within_the_grace_period_keeps_the_generation() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, plans=_with_grace("P1D"), until_us=3600 * 10**6)
    worker.run([(0, versions.uninstalled())])
    made_at = world.there["schema", 1].made_at
    world.calls.clear()
    worker.run([(0, versions.installed())])
    assert world.made(Verb.CREATE) == ["subscriptions", "tokens"]
    assert world.there["schema", 1].made_at == made_at
    assert ends(worker.outcomes)[-1] == (3, "up", "done", None)
    assert (worker.last.generation, worker.phase) == (1, Phase.ACTIVE)


DAY_S = 86_400


def test_a_removal_that_audits_alone_assert_waits_before_the_first_step() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, until_us=3600 * 10**6)
    worker.run([(0, versions.uninstalled(remove_after_s=DAY_S))])
    assert world.made(Verb.DELETE) == []
    assert world.steps() == list(STEPS)
    last = worker.last
    assert (last.state, last.direction, last.reason, last.step) == ("working", "down", "grace", "tokens")
    worker.until_us = 10**18
    worker.run()
    assert world.there == {}
    assert worker.now_us > DAY_S * 10**6


def test_a_reinstall_within_the_wait_revives_the_tenant_and_removes_no_resource_but_the_tokens() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, until_us=3600 * 10**6)
    worker.run([(0, versions.uninstalled(remove_after_s=DAY_S)), (10**6, versions.installed())])
    assert set(world.made(Verb.DELETE)) <= {"tokens"}, "an uninstall lay between: tokens are issued anew"
    assert world.steps() == list(STEPS)
    assert (worker.last.generation, worker.phase) == (1, Phase.ACTIVE)
    assert worker.journal.remove_at == 0


def test_a_removal_of_another_source_ends_the_wait() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, until_us=3600 * 10**6)
    worker.run([(0, versions.uninstalled(remove_after_s=DAY_S)), (10**6, versions.uninstalled())])
    assert world.there == {}


def test_a_further_audit_neither_begins_the_wait_anew_nor_stops_a_teardown_under_way() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, until_us=3600 * 10**6)
    worker.run([(0, versions.uninstalled(remove_after_s=DAY_S))])
    worker.now_us += 80_000 * 10**6
    worker.until_us = 90_000 * 10**6
    worker.run([(0, versions.uninstalled(remove_after_s=DAY_S))])
    assert world.there == {}
    again = OutsideSystems()
    worker = _active(again, versions, until_us=3600 * 10**6)
    worker.marks = 0
    worker.run([(0, versions.uninstalled()), (5, versions.uninstalled(remove_after_s=DAY_S))])
    assert again.there == {}


def test_what_a_compensation_removes_waits_for_no_audit() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    world.decides = lambda step, verb: Mode.CONTRADICTED if (step, verb) == ("crm", Verb.DELETE) else None
    worker = MemoryRunner(world, versions.installed(bad="schema"), until_us=600 * 10**6)
    worker.run()
    assert worker.phase is Phase.COMPENSATING
    world.decides = lambda _, __: None
    worker.run([(0, versions.uninstalled(remove_after_s=DAY_S))])
    assert world.there == {}
    assert worker.journal.phase.value == "empty"


def test_a_refusal_after_a_revival_deletes_no_resource() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, plans=_with_grace("P1D"), until_us=3600 * 10**6)
    worker.run([(0, versions.uninstalled()), (10**6, versions.installed(bad="subscriptions"))])
    assert world.steps() == list(STEPS)
    assert ends(worker.outcomes)[-1] == (3, "up", "done", "update_refused")


def test_a_lost_answer_with_an_effect_is_read_back_and_not_repeated() -> None:
    world = OutsideSystems(modes=[Mode.WELL, Mode.LOST_WITH_EFFECT])
    worker = MemoryRunner(world, DesiredVersions().installed())
    worker.run()
    assert [(step, verb) for step, verb, _, _ in world.calls[:4]] == [
        ("archive", Verb.CREATE),
        ("middleware", Verb.CREATE),
        ("middleware", Verb.READ),
        ("crm", Verb.CREATE),
    ]


def test_a_lost_call_is_repeated_with_the_same_key() -> None:
    world = OutsideSystems(modes=[Mode.WELL, Mode.LOST_WITHOUT])
    worker = MemoryRunner(world, DesiredVersions().installed())
    worker.run()
    assert [(step, verb) for step, verb, _, _ in world.calls[1:4]] == [
        ("middleware", Verb.CREATE),
        ("middleware", Verb.READ),
        ("middleware", Verb.CREATE),
    ]
    assert worker.journal.life is not None
    assert worker.journal.life.steps["middleware"].n == 1


def test_a_lost_removal_is_read_back_and_repeated_with_the_same_key() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    world.modes = [Mode.LOST_WITHOUT, Mode.WELL]
    worker.until_us = worker.now_us + 60_000_000
    worker.run([(0, versions.uninstalled())])
    assert [(step, verb) for step, verb, _, _ in world.calls[:3]] == [
        ("tokens", Verb.DELETE),
        ("tokens", Verb.READ),
        ("tokens", Verb.DELETE),
    ]
    assert worker.journal.orphan_checks[0].life.steps["tokens"].n == 2


def test_a_retry_after_an_answer_is_a_new_intent() -> None:
    world = OutsideSystems(modes=[Mode.WELL, Mode.RETRYABLE])
    worker = MemoryRunner(world, DesiredVersions().installed())
    worker.run()
    assert worker.journal.life is not None
    assert worker.journal.life.steps["middleware"].n == 2


@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.RETRYABLE, Mode.LOST_WITHOUT, Mode.BROKEN])
def test_an_outage_shorter_than_give_up_after_rolls_no_tenant_back(mode: Mode) -> None:
    world = OutsideSystems(modes=[Mode.WELL] + [mode] * 200)
    worker = MemoryRunner(world, DesiredVersions().installed())
    worker.run()
    assert worker.phase is Phase.ACTIVE
    assert ends(worker.outcomes) == [(1, "up", "done", None)]


@pytest.mark.parametrize("step", STEPS)
def test_an_outage_of_give_up_after_ends_in_a_compensation(step: str) -> None:
    text = PLAN_TEXT.replace('undo = "reverse"', 'undo = "reverse"\ngive_up_after = "PT30M"')
    world = OutsideSystems(decides=lambda s, v: Mode.RETRYABLE if (s, v) == (step, Verb.CREATE) else None)
    worker = MemoryRunner(world, DesiredVersions().installed(), plans=Plans(plan(text)))
    worker.run()
    assert ends(worker.outcomes) == [(1, "up", "rolled_back", f"{step}_exhausted")]
    assert 1_800 * 10**6 <= worker.last.at - 1_000_000 < 2_000 * 10**6
    assert world.there == {}


def test_a_wait_at_the_gate_counts_as_an_outage() -> None:
    text = PLAN_TEXT.replace('undo = "reverse"', 'undo = "reverse"\ngive_up_after = "PT1M"')
    worker = MemoryRunner(
        OutsideSystems(), DesiredVersions().installed(), plans=Plans(plan(text)), bars=[False] + [True] * 40
    )
    worker.run()
    assert ends(worker.outcomes) == [(1, "up", "rolled_back", "middleware_exhausted")]


def test_time_without_a_call_does_not_count_towards_give_up_after() -> None:
    world = OutsideSystems(modes=[Mode.WELL, Mode.RETRYABLE])
    worker = MemoryRunner(world, DesiredVersions().installed(), until_us=1_000_000)
    worker.run()
    worker.now_us += LONG_US
    worker.until_us = 10**18
    worker.run()
    assert ends(worker.outcomes) == [(1, "up", "done", None)]


def test_new_versions_do_not_restart_the_standstill() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    world.decides = lambda s, v: Mode.RETRYABLE if (s, v) == ("crm", Verb.UPDATE) else None
    began_us = worker.now_us
    for minutes in range(9, 60, 9):
        worker.until_us = began_us + minutes * 60 * 10**6
        worker.run([(0, versions.switched(enabled=bool(minutes % 2)))])
    assert worker.last.reason == "waiting_for:crm"
    assert worker.journal.standstill is not None
    assert worker.journal.standstill.since < began_us + 20 * 60 * 10**6


def test_a_new_version_is_provisioned_after_a_compensation_during_an_outage() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    dead = {"on": True}
    world.decides = lambda s, _: Mode.RETRYABLE if s == "crm" and dead["on"] else None
    worker = MemoryRunner(world, versions.installed(), until_us=LONG_US)
    worker.run()
    assert ends(worker.outcomes)[0] == (1, "up", "rolled_back", "crm_exhausted")
    dead["on"] = False
    worker.until_us = worker.now_us + 600 * 10**6
    worker.run([(0, versions.configured(size="2"))])
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)


def test_an_install_given_up_for_an_outage_is_retried_soon_after_it() -> None:
    text = PLAN_TEXT.replace('undo = "reverse"', 'undo = "reverse"\ngive_up_after = "PT1H"')
    dead = {"on": True}
    world = OutsideSystems(
        decides=lambda s, v: Mode.RETRYABLE if dead["on"] and (s, v) == ("crm", Verb.CREATE) else None
    )
    worker = MemoryRunner(
        world, DesiredVersions().installed(), plans=Plans(plan(text)), again=True, until_us=3_700 * 10**6
    )
    worker.run()
    rolled_us = next(said.at for said in worker.outcomes if said.state.value == "rolled_back")
    dead["on"] = False
    worker.until_us = 10**18
    worker.run()
    assert worker.last.state.value == "done"
    assert worker.last.at - rolled_us < 200 * 10**6


def test_a_contradicted_create_is_dropped_once_an_uninstall_is_desired() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    world.decides = lambda s, v: {
        ("middleware", Verb.CREATE): Mode.LOST_WITHOUT,
        ("middleware", Verb.READ): Mode.CONTRADICTED,
    }.get((s, v))
    worker = MemoryRunner(world, versions.installed(), until_us=600 * 10**6)
    worker.run()
    assert worker.last.reason == "middleware_contradicted"
    world.calls.clear()
    world.decides = lambda s, v: Mode.CONTRADICTED if (s, v) == ("middleware", Verb.READ) else None
    worker.until_us = 10**18
    worker.run([(0, versions.configured(size="2"))])
    assert next(verb for step, verb, *_ in world.calls if step == "middleware") is Verb.CREATE
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)


def test_alternating_answers_are_not_reported_alternately() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    turns = cycle([Mode.REFUSED, Mode.RETRYABLE])
    world.decides = lambda s, v: next(turns) if (s, v) == ("crm", Verb.DELETE) else None
    worker.until_us = worker.now_us + 7_200 * 10**6
    said = len(worker.outcomes)
    worker.run([(0, versions.uninstalled())])
    assert [(o.state, o.reason) for o in worker.outcomes[said:]] == [("working", None), ("failed", "crm_refused")]


def test_an_update_is_neither_given_up_nor_restored_for_an_outage() -> None:
    failing = {"on": True}
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    world.decides = lambda s, v: Mode.RETRYABLE if failing["on"] and (s, v) == ("crm", Verb.UPDATE) else None
    worker.until_us = worker.now_us + LONG_US
    worker.run([(0, versions.switched(enabled=False))])
    assert worker.phase is Phase.UPDATING
    assert (worker.last.state, worker.last.reason, worker.last.step) == ("working", "waiting_for:crm", "crm")
    failing["on"] = False
    worker.until_us = 10**18
    worker.run()
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)
    assert not any(resource.enabled for resource in world.there.values())


@pytest.mark.parametrize("step", STEPS)
def test_a_refusal_of_the_operators_credentials_never_rolls_a_tenant_back(step: str) -> None:
    failing = {"on": True}
    world = OutsideSystems(decides=lambda s, _: Mode.OPERATOR_REFUSED if failing["on"] and s == step else None)
    worker = MemoryRunner(world, DesiredVersions().installed(), until_us=LONG_US)
    worker.run()
    assert worker.phase is Phase.CREATING
    assert ends(worker.outcomes) == []
    assert [said.reason for said in worker.outcomes] == [None, "system_refuses", f"waiting_for:{step}"]
    gaps = len(world.calls) / (LONG_US / 60_000_000)
    assert gaps < 1.1, "about one call a minute"
    failing["on"] = False
    worker.until_us = 10**18
    worker.run()
    assert ends(worker.outcomes) == [(1, "up", "done", None)]


@pytest.mark.parametrize("verb", [Verb.CREATE, Verb.UPDATE, Verb.DELETE])
@pytest.mark.parametrize("mode", [Mode.CONTRADICTED, Mode.UNSHOWN])
def test_a_success_without_our_resource_is_contradicted_and_undoes_no_step(mode: Mode, verb: Verb) -> None:
    failing = {"on": True}
    world, versions = OutsideSystems(), DesiredVersions()
    verbs = {verb, Verb.READ} if mode is Mode.CONTRADICTED else {verb}
    world.decides = lambda s, v: mode if failing["on"] and s == "middleware" and v in verbs else None
    worker = MemoryRunner(world, versions.installed(), until_us=LONG_US)
    failing["on"] = verb is Verb.CREATE
    if verb is not Verb.CREATE:
        worker.run()
        worker.desired = versions.uninstalled() if verb is Verb.DELETE else versions.configured(size="2")
        failing["on"] = True
        worker.until_us = worker.now_us + LONG_US
    worker.run()
    if mode is Mode.CONTRADICTED:
        assert (worker.last.reason, worker.last.error_class) == ("middleware_contradicted", "contradicted")
        assert "rolled_back" not in {said.state.value for said in worker.outcomes}
        failing["on"] = False
        worker.until_us = 10**18
        worker.run()
    assert ends(worker.outcomes)[-1] == (worker.desired.version, "down" if verb is Verb.DELETE else "up", "done", None)
    assert world.steps() == ([] if verb is Verb.DELETE else list(STEPS))


def test_a_change_read_back_with_another_value_waits_and_names_the_field() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    real = world._effect

    def effect(step: str, verb: Verb, generation: int, inputs: dict[str, Any], idempotency: str) -> Answer:
        if (step, verb) == ("middleware", Verb.UPDATE):
            return Done()
        return real(step, verb, generation, inputs, idempotency)

    world._effect = effect  # type: ignore[method-assign]
    world.decides = lambda s, v: Mode.UNSHOWN if (s, v) == ("middleware", Verb.UPDATE) else None
    worker.until_us = worker.now_us + LONG_US
    worker.run([(0, versions.switched(enabled=False))])
    assert worker.phase is Phase.UPDATING
    assert worker.last.reason == "middleware_contradicted"
    assert worker.journal.life is not None
    assert worker.journal.life.steps["middleware"].reason == "enabled is not as it was asked"
    world._effect = real  # type: ignore[method-assign]
    worker.until_us = 10**18
    worker.run()
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)


def test_a_tenant_waiting_a_quarter_of_an_hour_is_unwell_until_it_continues() -> None:
    world = OutsideSystems(decides=lambda s, _: Mode.RETRYABLE if s == "crm" else None)
    worker = MemoryRunner(world, DesiredVersions().installed(), until_us=3_600 * 10**6)
    worker.run()
    said = [(o.reason, o.step) for o in worker.outcomes]
    assert said == [(None, "archive"), ("retrying", "crm"), ("waiting_for:crm", "crm")]
    assert 0 <= worker.last.at - worker.outcomes[1].at - UNWELL_US < 2_000_000
    world.decides = lambda s, _: Mode.RETRYABLE if s == "tokens" else None
    worker.until_us = worker.now_us + 120 * 10**6
    worker.run()
    assert [(o.reason, o.step) for o in worker.outcomes[3:]] == [(None, "schema"), ("retrying", "tokens")]


def test_a_rolled_back_install_is_retried_after_an_hour_doubling_to_a_day() -> None:
    refusals = iter([Mode.REFUSED] * 7)
    world = OutsideSystems(decides=lambda s, v: next(refusals, None) if (s, v) == ("crm", Verb.CREATE) else None)
    worker = MemoryRunner(world, DesiredVersions().installed(), again=True)
    worker.run()
    rolled = [said.at for said in worker.outcomes if said.state.value == "rolled_back"]
    hours = [round((later - earlier) / 3_600_000_000) for earlier, later in pairwise([*rolled, worker.last.at])]
    assert hours == [1, 2, 4, 8, 16, 24, 24]
    assert ends(worker.outcomes)[-1] == (1, "up", "done", None)
    assert worker.journal.generation == 8
    assert worker.journal.rollbacks == 0


def test_a_retry_during_a_compensation_leads_to_an_active_tenant() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    refusals = iter([Mode.REFUSED])
    world.decides = lambda s, v: (
        next(refusals, None)
        if (s, v) == ("tokens", Verb.CREATE)
        else Mode.SILENT
        if (s, v) == ("crm", Verb.DELETE)
        else None
    )
    worker = MemoryRunner(world, versions.installed(), until_us=600 * 10**6)
    worker.run()
    assert worker.phase is Phase.COMPENSATING
    world.decides = lambda _, __: None
    again = retried_journal(worker.journal)
    assert again is not None
    worker.stored, worker.until_us = again.model_dump_json(), worker.now_us + 60 * 10**6
    worker.run()
    assert worker.journal.phase.value == "active"
    assert ends(worker.outcomes) == [(1, "up", "rolled_back", "tokens_refused"), (1, "up", "done", None)]


def test_waits_have_full_jitter_and_respect_retry_after() -> None:
    pace = Pace(first_s=1.0, most_s=60.0)
    waits = [pace.wait_us(3, str(seed), None) for seed in range(200)]
    assert min(waits) < 1_000_000
    assert 3_000_000 < max(waits) <= 4_000_000
    assert pace.wait_us(1, "x", 7.0) == 7_000_000
    assert pace.wait_us(1, "x", 600.0) == 600_000_000
    assert pace.wait_us(1, "x", 7_000.0) == 3_600_000_000


def test_retrying_is_reported_once_with_its_step() -> None:
    world = OutsideSystems(modes=[Mode.WELL] + [Mode.RETRYABLE] * 3)
    worker = MemoryRunner(world, DesiredVersions().installed())
    worker.run()
    said = [(o.step, o.error_class) for o in worker.outcomes if o.reason == "retrying"]
    assert said == [("middleware", "retryable")]


def test_an_install_without_a_tenant_id_is_held_until_it_is_known() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = MemoryRunner(world, versions.installed(tenant_id=None), until_us=2_000_000)
    worker.run()
    assert world.calls == []
    assert ends(worker.outcomes) == [(1, "up", "held", "tenant_unknown")]
    worker.run([(0, versions.installed())])
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)


def test_a_held_version_is_retried_after_a_minute_and_reported_once() -> None:
    desired = DesiredVersions().installed()
    journal = hold(Journal(), desired, "tenant_conflict", 1_000)
    turn = decide(Plans(plan()), journal, desired, 2_000)
    assert turn.move == Wait(60_001_000, "tenant_conflict")
    assert [(o.state, o.reason, o.direction) for o in turn.outcomes] == [("held", "tenant_conflict", "up")]
    assert turn.outcomes[0].tenant_id is None
    again = decide(Plans(plan()), turn.journal, desired, 3_000)
    assert again.outcomes == ()
    assert not isinstance(next_move(Plans(plan()), turn.journal, desired, 60_002_000), Wait)


def test_an_uninstall_of_a_held_tenant_ends_with_no_call() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = MemoryRunner(world, versions.installed(tenant_id=None), until_us=2_000_000)
    worker.run([(0, versions.uninstalled())])
    assert world.calls == []
    assert ends(worker.outcomes)[-1] == (2, "down", "done", None)


def test_another_tenant_id_for_a_bound_key_makes_no_call_and_is_reported() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.run([(0, versions.change(tenant_id="other"))])
    assert world.calls == []
    assert ends(worker.outcomes)[-1] == (2, "up", "done", "tenant_changed")
    assert {outcome.tenant_id for outcome in worker.outcomes} == {"acme"}
    assert worker.journal.life is not None
    assert worker.journal.life.tenant_id == "acme"


def test_a_generation_is_removed_with_the_plan_that_made_it() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    old = worker.plans.current
    shorter = plan(PLAN_TEXT[: PLAN_TEXT.rindex("[[step]]")])
    worker.plans = Plans(shorter, {old.digest: old})
    worker.run([(0, versions.uninstalled()), (10**6, versions.installed())])
    assert world.made(Verb.DELETE) == list(ABSENT_STEPS)
    assert world.steps() == list(STEPS[:-1])


def test_a_step_with_nothing_to_undo_is_left() -> None:
    text = PLAN_TEXT.replace('kind = "subscription"\nundo = "reverse"', 'kind = "subscription"\nundo = "nothing"')
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions, plans=Plans(plan(text)))
    world.there.pop(("subscriptions", 1))
    worker.run([(0, versions.uninstalled())])
    assert world.made(Verb.DELETE) == [step for step in ABSENT_STEPS if step != "subscriptions"]
    assert worker.phase is Phase.EMPTY


def test_skipped_versions_are_answered_by_the_outcome_of_the_newest() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    first = versions.installed()
    versions.configured(size="2")
    worker = MemoryRunner(world, first)
    worker.run([(3, versions.configured(size="3"))])
    assert ends(worker.outcomes) == [(3, "up", "done", None)]
    assert world.there["middleware", 1].configuration == {"size": "3"}


@pytest.mark.parametrize("lost", range(1, 30))
def test_a_worker_killed_between_any_two_marks_changes_no_result(lost: int) -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = MemoryRunner(world, versions.installed(), crashes=frozenset({lost, lost + 2}))
    worker.run()
    assert world.steps() == list(STEPS)
    worker.run([(0, versions.uninstalled())])
    assert world.there == {}


def test_the_same_arguments_give_the_same_move() -> None:
    desired, plans = DesiredVersions().installed(), Plans(plan())
    assert next_move(plans, Journal(), desired, 5) == next_move(plans, Journal(), desired, 5)
    assert replace(plans, current=_one_step()).current.digest != plans.current.digest


def _one_step() -> Plan:
    return plan('[[step]]\nname = "a"\nkind = "http"\nundo = "nothing"')


def test_outcomes_name_the_key() -> None:
    worker = MemoryRunner(OutsideSystems(), DesiredVersions().installed())
    worker.run()
    assert {said.key for said in worker.outcomes} == {KEY}


def test_an_answer_about_a_removed_token_does_not_count_for_its_successor() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    world.modes = [Mode.WELL, Mode.LOST_WITH_EFFECT]
    worker.marks = 0
    worker.run([(0, versions.reinstalled()), (4, versions.uninstalled())])
    assert [(step, verb) for step, verb, _, _ in world.calls[:3]] == [
        ("tokens", Verb.DELETE),
        ("tokens", Verb.CREATE),
        ("tokens", Verb.DELETE),
    ]
    assert world.outputs_given[:3] == [{"id": "tokens.1"}, {}, {}]


def test_a_closed_gate_uses_no_try_and_leaves_no_doubt() -> None:
    world, worker = (
        OutsideSystems(),
        MemoryRunner(OutsideSystems(), DesiredVersions().installed(), bars=[False, False, *[True] * 20]),
    )
    worker.world = world
    worker.run()
    assert world.made(Verb.CREATE) == list(STEPS)
    assert len(world.calls) == len(STEPS)
    assert [said.reason for said in worker.outcomes] == [None, "system_away", None], "said once"
    life = worker.journal.life
    assert life is not None
    assert {log.n for log in life.steps.values()} == {1}


def test_an_uninstall_removes_the_steps_before_an_unreachable_system() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.desired = versions.uninstalled()
    worker.bars, worker.until_us = [False] * 2 + [True] * 1_000, worker.now_us + 60_000_000
    worker.run()
    assert world.made(Verb.DELETE) == ["tokens", "subscriptions"]
    worker.bars, worker.until_us = [], 10**18
    worker.run()
    assert world.there == {}
    assert worker.last.state.value == "done"


@pytest.mark.parametrize("verb", [Verb.CREATE, Verb.DELETE])
def test_a_given_up_step_is_done_after_an_operators_retry(verb: Verb) -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = MemoryRunner(world, versions.installed())
    if verb is Verb.DELETE:
        worker.run()
        worker.desired = versions.uninstalled()
    world.decides = lambda step, called: Mode.REFUSED if (step, called) == ("schema", verb) else None
    worker.until_us = worker.now_us + 60_000_000
    worker.run()
    assert worker.phase is (Phase.ROLLED_BACK if verb is Verb.CREATE else Phase.REMOVING)
    worker.until_us = 10**18
    world.decides = lambda _, __: None
    again = retried_journal(worker.journal)
    assert again is not None
    worker.stored = again.model_dump_json()
    worker.run()
    assert worker.last.state.value == "done"
    assert worker.last.desired_version == worker.desired.version
    assert world.steps() == (list(STEPS) if verb is Verb.CREATE else [])


def test_a_refused_update_is_retried_on_an_operators_request() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.desired = versions.configured(size="2")
    world.decides = lambda step, called: Mode.REFUSED if (step, called) == ("middleware", Verb.UPDATE) else None
    worker.run()
    assert worker.last.reason == "update_refused"
    world.decides = lambda _, __: None
    again = retried_journal(worker.journal)
    assert again is not None
    worker.stored = again.model_dump_json()
    worker.run()
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)
    assert world.there["middleware", 1].configuration == {"size": "2"}


def test_a_saga_at_its_desired_state_has_nothing_to_retry() -> None:
    worker = _active(OutsideSystems(), versions := DesiredVersions())
    assert retried_journal(worker.journal) is None
    worker.desired = versions.uninstalled()
    worker.run()
    assert retried_journal(worker.journal) is None


def test_a_version_without_install_or_uninstall_is_held_and_removes_no_step() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = _active(world, versions)
    worker.desired = versions.change(installed=False, installed_at=None, uninstalled_at=None, configuration={})
    worker.run()
    assert world.calls == []
    assert worker.phase is Phase.ACTIVE
    assert ends(worker.outcomes)[-1] == (2, "up", "held", "install_unknown")
    worker.desired = versions.uninstalled()
    worker.run()
    assert world.there == {}
