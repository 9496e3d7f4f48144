"""What the saga decides, told as stories: whom it calls, in which order, and what it says in the end."""

from dataclasses import replace

import pytest

from schemas.saga import Journal, Phase
from services.core.calls import Verb
from services.core.moves import Take, Wait
from services.core.plan import Plan
from services.core.saga import Plans, next_move
from services.core.saga_answers import Pace
from services.core.saga_marks import decide, hold, redriven
from tests.saga_world import KEY, PLAN_TEXT, STEPS, Mode, Resource, Wishes, Worker, World, ends, plan

ABSENT_STEPS = tuple(reversed(STEPS))


def _active(world: World, wishes: Wishes, **more: object) -> Worker:
    worker = Worker(world, wishes.installed(), **more)  # type: ignore[arg-type]  # fields of the worker
    worker.run()
    world.calls.clear()
    world.outputs_given.clear()
    return worker


def test_a_first_install_makes_everything_in_the_plans_order() -> None:
    world = World()
    worker = Worker(world, Wishes().installed())
    worker.run()
    assert world.made(Verb.CREATE) == list(STEPS)
    assert len(world.calls) == len(STEPS)
    assert ends(worker.outcomes) == [(1, "up", "done", None)]
    assert worker.outcomes[0].state.value == "working"
    assert (worker.outcomes[0].generation, worker.outcomes[0].step) == (1, "archive")


def test_teardown_is_the_reverse_and_ends_with_the_archive() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.run([(0, wishes.uninstalled())])
    assert world.made(Verb.DELETE) == list(ABSENT_STEPS)
    assert ends(worker.outcomes)[-1] == (2, "down", "done", None)
    assert world.archived == 1


def test_what_ended_is_looked_up_again_by_name_one_call_and_a_minute_later() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.run([(0, wishes.uninstalled())])
    assert world.made(Verb.READ) == [step for step in ABSENT_STEPS if step != "archive"]
    ended_us = worker.last.at
    assert worker.now_us >= ended_us + 70_000_000


def test_what_appeared_after_the_end_is_removed() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes, until_us=60_000_000)
    late = world.there["crm", 1]
    worker.run([(0, wishes.uninstalled())])
    assert world.there == {}
    world.there["crm", 1] = late
    worker.until_us = 10**18
    worker.run()
    assert world.there == {}
    assert worker.journal.sweeps == ()


def test_what_appeared_late_is_removed_even_if_that_is_refused_for_a_while() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes, until_us=60_000_000)
    late = world.there["crm", 1]
    worker.run([(0, wishes.uninstalled())])
    world.there["crm", 1] = late
    refusals = iter([Mode.REFUSED] * 3)
    world.decides = lambda s, v: next(refusals, None) if (s, v) == ("crm", Verb.DELETE) else None
    worker.until_us = 10**18
    began_us = worker.now_us
    worker.run()
    assert worker.now_us > began_us + 3 * 60_000_000
    assert world.there == {}
    assert worker.phase is Phase.EMPTY
    assert worker.journal.sweeps == ()


def test_what_cannot_be_looked_up_is_not_looked_for_for_ever() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    world.decides = lambda _, v: Mode.REFUSED if v is Verb.READ else None
    worker.run([(0, wishes.uninstalled())])
    assert len(world.made(Verb.READ)) == len(STEPS) - 1
    assert worker.journal.sweeps == ()


def test_a_call_that_breaks_for_ever_costs_its_tries_and_is_given_up() -> None:
    world = World(decides=lambda step, _: Mode.BROKEN if step == "crm" else None)
    worker = Worker(world, Wishes().installed())
    worker.run()
    assert worker.phase is Phase.COMPENSATION_FAILED
    assert ends(worker.outcomes)[-1] == (1, "up", "failed", "crm_exhausted")


def test_what_vanished_outside_is_made_again_by_an_update() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    del world.there["middleware", 1]
    worker.run([(0, wishes.configured(size="2"))])
    assert [verb for _, verb, _, _ in world.calls] == ["update", "create"]
    assert world.there["middleware", 1].configuration == {"size": "2"}


def test_what_was_in_doubt_when_a_reinstall_revived_it_is_looked_at_and_given_its_settings() -> None:
    world, wishes = World(), Wishes()
    plans = Plans(plan(PLAN_TEXT.replace('kind = "http"', 'kind = "http"\ndestroy_after = "P1D"')))
    worker = _active(world, wishes, plans=plans, until_us=3600 * 10**6)
    world.modes = [Mode.WELL, Mode.LOST_WITHOUT, Mode.SILENT]
    worker.run([(0, wishes.uninstalled()), (6, wishes.installed())])
    assert world.steps() == list(STEPS)
    assert ends(worker.outcomes)[-1] == (3, "up", "done", None)


def test_uninstall_before_any_install_calls_nobody_and_is_answered() -> None:
    world = World()
    worker = Worker(world, Wishes().uninstalled())
    worker.run()
    assert world.calls == []
    assert [(o.desired_version, o.generation, o.direction, o.state) for o in worker.outcomes] == [
        (1, 0, "down", "done")
    ]


def test_every_version_is_answered_also_when_nothing_is_to_be_done() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.run([(0, wishes.change())])
    assert world.calls == []
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)


def test_an_update_calls_only_the_steps_whose_settings_changed() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.run([(0, wishes.configured(topics="calls"))])
    assert [(step, verb) for step, verb, _, _ in world.calls] == [("subscriptions", Verb.UPDATE)]
    assert worker.journal.generation == 1


def test_disabling_reaches_every_step_and_deletes_nothing() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.run([(0, wishes.switched(enabled=False))])
    assert world.made(Verb.UPDATE) == list(STEPS)
    assert world.made(Verb.DELETE) == []
    assert not any(resource.enabled for resource in world.there.values())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("mode", [Mode.REFUSED, Mode.RETRYABLE])
def test_a_first_provisioning_that_fails_at_any_step_leaves_nothing(step: str, mode: Mode) -> None:
    world = World(decides=lambda s, v: mode if s == step and v is Verb.CREATE else None)
    worker = Worker(world, Wishes().installed())
    worker.run()
    assert world.there == {}
    assert ends(worker.outcomes)[-1][1:3] == ("up", "rolled_back")
    assert (worker.last.step, worker.last.error_class) == (
        step,
        "refused" if mode is Mode.REFUSED else "exhausted",
    )
    assert world.made(Verb.DELETE) == list(reversed(STEPS[: STEPS.index(step) + 1]))


@pytest.mark.parametrize("step", STEPS)
def test_a_compensation_that_keeps_failing_is_parked_and_a_newer_version_finishes_it(step: str) -> None:
    failing = {"on": True}
    world, wishes = World(), Wishes()
    world.decides = lambda s, v: (
        Mode.RETRYABLE if failing["on"] and (s, v) in {("tokens", Verb.CREATE), (step, Verb.DELETE)} else None
    )
    worker = Worker(world, wishes.installed())
    worker.run()
    assert worker.phase is Phase.COMPENSATION_FAILED
    assert ends(worker.outcomes)[-1] == (1, "up", "failed", f"{step}_exhausted")
    failing["on"] = False
    worker.run([(0, wishes.configured())])
    assert world.steps() == list(STEPS)
    assert ends(worker.outcomes)[-2:] == [(1, "up", "rolled_back", "tokens_exhausted"), (2, "up", "done", None)]
    assert worker.journal.generation == 2


@pytest.mark.parametrize("step", STEPS)
def test_a_teardown_that_keeps_failing_is_parked_and_a_newer_version_finishes_it(step: str) -> None:
    failing = {"on": True}
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    world.decides = lambda s, v: Mode.RETRYABLE if failing["on"] and (s, v) == (step, Verb.DELETE) else None
    worker.run([(0, wishes.uninstalled())])
    assert ends(worker.outcomes)[-1] == (2, "down", "failed", f"{step}_exhausted")
    failing["on"] = False
    worker.run([(0, wishes.change())])
    assert world.there == {}
    assert ends(worker.outcomes)[-1] == (3, "down", "done", None)


def test_a_reinstall_wakes_a_parked_teardown_which_ends_before_the_next_life() -> None:
    failing = {"on": True}
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    world.decides = lambda s, v: Mode.REFUSED if failing["on"] and (s, v) == ("schema", Verb.DELETE) else None
    worker.run([(0, wishes.uninstalled())])
    failing["on"] = False
    worker.run([(0, wishes.installed())])
    assert ends(worker.outcomes)[-2:] == [(2, "down", "done", None), (3, "up", "done", None)]
    assert {generation for _, generation in world.there} == {2}


def test_a_parked_saga_moves_once_for_each_newer_version() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    world.decides = lambda s, v: Mode.REFUSED if (s, v) == ("schema", Verb.DELETE) else None
    worker.run([(0, wishes.uninstalled())])
    asked = len(world.calls)
    worker.run([(0, wishes.installed())])
    assert len(world.calls) == asked + 1
    worker.run()
    assert len(world.calls) == asked + 1


@pytest.mark.parametrize("parked", [Phase.REMOVAL_FAILED, Phase.COMPENSATION_FAILED])
def test_a_version_that_a_parked_saga_took_up_in_vain_is_answered(parked: Phase) -> None:
    world, wishes = World(), Wishes()
    world.decides = lambda s, v: Mode.REFUSED if (s, v) == ("schema", Verb.DELETE) else None
    if parked is Phase.REMOVAL_FAILED:
        worker = _active(world, wishes)
        worker.run([(0, wishes.uninstalled())])
    else:
        worker = Worker(world, wishes.installed(bad="tokens"))
        worker.run()
    assert worker.phase is parked
    worker.run([(0, wishes.installed())])
    assert worker.phase is parked
    assert ends(worker.outcomes)[-1][0] == wishes.now.version
    world.decides = lambda _, __: None
    worker.run([(0, wishes.configured())])
    assert ends(worker.outcomes)[-1] == (wishes.now.version, "up", "done", None)


def test_without_a_grace_period_no_clock_that_is_behind_makes_one() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    world.decides = lambda s, v: Mode.SILENT if (s, v) == ("schema", Verb.DELETE) else None
    worker.until_us = worker.now_us
    worker.run([(0, wishes.uninstalled())])
    assert worker.phase is Phase.REMOVING
    move = next_move(worker.plans, worker.journal, wishes.installed(), worker.journal.turned_at - 1_000_000)
    assert not isinstance(move, Take)


def test_an_ended_life_whose_plan_cannot_be_carried_out_stands_in_nobodys_way() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes, until_us=60_000_000)
    worker.run([(0, wishes.uninstalled())])
    (sweep,) = worker.journal.sweeps
    now = plan(PLAN_TEXT + "# of another release\n")
    worker.plans = Plans(now, unusable={sweep.life.plan: "no such kind"})
    worker.until_us = sweep.due_at + 10 * 60_000_000
    asked = len(world.calls)
    worker.run([(0, wishes.installed())])
    assert ends(worker.outcomes)[-1] == (wishes.now.version, "up", "done", None)
    assert len(world.calls) == asked + len(STEPS)
    assert [left.life.plan for left in worker.journal.sweeps] == [sweep.life.plan]
    worker.plans, worker.until_us = Plans(now, {sweep.life.plan: plan()}), 10**18
    worker.run()
    assert worker.journal.sweeps == ()


def test_what_refuses_to_be_made_may_refuse_to_be_removed_in_the_same_words() -> None:
    world = World(decides=lambda s, _: Mode.REFUSED if s == "crm" else None)
    worker = Worker(world, Wishes().installed())
    worker.run()
    assert world.there == {}
    assert ends(worker.outcomes)[-1] == (1, "up", "rolled_back", "crm_refused")


def test_a_corrected_configuration_retries_a_rolled_back_tenant_in_another_generation() -> None:
    world, wishes = World(), Wishes()
    worker = Worker(world, wishes.installed(bad="crm"))
    worker.run()
    assert worker.phase is Phase.ROLLED_BACK
    worker.run([(0, wishes.configured())])
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)
    assert {generation for _, generation in world.there} == {2}


@pytest.mark.parametrize("step", STEPS[2:])
def test_a_refused_update_restores_the_last_good_configuration_and_deletes_nothing(step: str) -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.run([(0, wishes.configured(bad=step, topics="calls", size="2"))])
    assert world.steps() == list(STEPS)
    assert world.made(Verb.DELETE) == []
    assert not any("bad" in resource.configuration for resource in world.there.values())
    assert not any({"topics", "size"} & resource.configuration.keys() for resource in world.there.values())
    assert ends(worker.outcomes)[-1] == (2, "up", "done", "update_refused")
    assert (worker.last.step, worker.last.error_class) == (step, "refused")


def test_a_restoration_that_fails_too_deletes_nothing_and_the_next_version_mends_it() -> None:
    failing = {"on": True}
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    world.decides = lambda s, v: Mode.REFUSED if failing["on"] and (s, v) == ("crm", Verb.UPDATE) else None
    worker.run([(0, wishes.configured(bad="none"))])
    assert ends(worker.outcomes)[-1] == (2, "up", "done", "update_refused")
    assert world.steps() == list(STEPS)
    failing["on"] = False
    worker.run([(0, wishes.configured(bad="still none"))])
    assert world.there["crm", 1].configuration["bad"] == "still none"


def test_a_restoration_that_failed_is_made_good_by_the_good_configuration_itself() -> None:
    failing = {"on": True}
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    world.decides = lambda s, v: Mode.REFUSED if failing["on"] and (s, v) == ("crm", Verb.UPDATE) else None
    worker.run([(0, wishes.configured(bad="none"))])
    failing["on"] = False
    world.calls.clear()
    worker.run([(0, wishes.configured())])
    assert world.made(Verb.UPDATE) == ["crm"]


def test_tokens_whose_revocation_is_refused_stay_until_the_next_version_revokes_them() -> None:
    failing = {"on": True}
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    world.decides = lambda s, v: Mode.REFUSED if failing["on"] and (s, v) == ("tokens", Verb.DELETE) else None
    worker.run([(0, wishes.reinstalled())])
    assert ends(worker.outcomes)[-1] == (3, "up", "done", "update_refused")
    assert [(step, verb) for step, verb, _, _ in world.calls] == [("tokens", Verb.DELETE), ("tokens", Verb.UPDATE)]
    failing["on"] = False
    world.calls.clear()
    worker.run([(0, wishes.configured())])
    assert [(step, verb) for step, verb, _, _ in world.calls] == [("tokens", Verb.DELETE), ("tokens", Verb.CREATE)]


def test_what_was_lost_is_never_taken_for_absent_because_its_removal_is_refused() -> None:
    world, wishes = World(), Wishes()
    world.decides = lambda s, v: {
        ("crm", Verb.CREATE): Mode.LOST_WITH_EFFECT,
        ("crm", Verb.READ): Mode.SILENT,
        ("crm", Verb.DELETE): Mode.REFUSED,
    }.get((s, v))
    worker = Worker(world, wishes.installed(), crashes=frozenset({6}))
    worker.run([(6, wishes.uninstalled())])
    assert world.made(Verb.CREATE)[-1] == "crm"
    assert worker.phase is Phase.REMOVAL_FAILED


@pytest.mark.parametrize("read", [Mode.REFUSED, Mode.WELL])
def test_a_repeat_that_is_refused_leaves_the_first_call_in_doubt(read: Mode) -> None:
    world, wishes = World(), Wishes()
    tried: list[str] = []

    def decides(step: str, verb: Verb) -> Mode | None:
        if step != "crm":
            return None
        tried.append(verb)
        if verb is Verb.CREATE:
            return Mode.LOST_WITHOUT if len(tried) == 1 else Mode.REFUSED
        return read if verb is Verb.READ else Mode.REFUSED

    world.decides = decides
    worker = Worker(world, wishes.installed())
    worker.run()
    assert tried == ["create", "read", "create", "delete"]
    assert worker.phase is Phase.COMPENSATION_FAILED


def test_a_repeat_that_may_be_tried_again_keeps_its_key() -> None:
    world = World(modes=[Mode.WELL, Mode.LOST_WITHOUT, Mode.WELL, Mode.RETRYABLE])
    worker = Worker(world, Wishes().installed())
    worker.run()
    assert [step for step, *_ in world.calls[1:6]] == ["middleware"] * 4 + ["crm"]
    assert worker.journal.life is not None
    assert worker.journal.life.steps["middleware"].n == 1


def test_what_a_lost_older_create_made_late_is_given_the_newer_settings() -> None:
    world, wishes = World(), Wishes()
    worker = Worker(world, wishes.installed(size="old"), until_us=2_000_000)
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
    worker.run([(0, wishes.configured(size="new"))])
    assert world.there["middleware", 1].configuration == {"size": "new"}
    assert [verb for step, verb, _, _ in world.calls if step == "middleware"][-3:] == ["create", "read", "update"]


def test_a_missing_configuration_value_is_refused_by_name_before_anyone_is_asked() -> None:
    world, wishes = World(), Wishes()
    worker = Worker(world, wishes.installed().model_copy(update={"configuration": {}}))
    worker.run()
    assert "crm" not in [step for step, *_ in world.calls]
    assert worker.journal.failure is not None
    assert worker.journal.failure.reason == "missing: configuration.crmEndpoint"
    assert world.there == {}


def test_an_uninstall_between_two_installs_issues_the_tokens_anew_and_changes_nothing_else() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.run([(0, wishes.reinstalled())])
    assert [(step, verb) for step, verb, _, _ in world.calls] == [("tokens", Verb.DELETE), ("tokens", Verb.CREATE)]
    assert ends(worker.outcomes)[-1] == (3, "up", "done", None)
    assert worker.journal.generation == 1
    worker.run([(0, wishes.installed())])
    assert len(world.calls) == 2


def test_an_uninstall_that_arrives_late_between_two_installs_issues_the_tokens_anew_once() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    between_us = wishes.at_us + 5
    worker.run([(0, wishes.installed())])
    assert world.calls == []
    worker.run([(0, wishes.change(uninstalled_at=between_us)), (1, wishes.change(uninstalled_at=between_us + 1))])
    assert [(step, verb) for step, verb, _, _ in world.calls] == [("tokens", Verb.DELETE), ("tokens", Verb.CREATE)]


def test_an_uninstall_older_than_the_install_that_was_provisioned_changes_nothing() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.run([(0, wishes.change(uninstalled_at=1))])
    assert world.calls == []


@pytest.mark.parametrize("after", range(1, 2 * len(STEPS) + 2))
def test_uninstall_at_any_point_of_a_provisioning_tears_down_what_was_maybe_done(after: int) -> None:
    world, wishes = World(), Wishes()
    installed = wishes.installed()
    worker = Worker(world, installed)
    worker.run([(after, wishes.uninstalled())])
    assert world.there == {}
    assert ends(worker.outcomes)[-1] == (2, "down", "done", None)
    started = world.made(Verb.CREATE)
    assert world.made(Verb.DELETE)[: len(started)] == list(reversed(started))


@pytest.mark.parametrize("after", range(2 * len(STEPS) + 2))
def test_a_reinstall_at_any_point_of_a_teardown_waits_for_its_end(after: int) -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.marks = 0
    worker.run([(0, wishes.uninstalled()), (1 + after, wishes.installed())])
    assert world.steps() == list(STEPS)
    assert {generation for _, generation in world.there} == {2}
    assert world.made(Verb.DELETE)[: len(STEPS)] == list(ABSENT_STEPS)


def _with_grace(duration: str) -> Plans:
    return Plans(plan(PLAN_TEXT.replace('kind = "postgres"', f'kind = "postgres"\ndestroy_after = "{duration}"')))


def test_teardown_waits_for_destroy_after_and_says_grace() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes, plans=_with_grace("P1D"), until_us=3600 * 10**6)
    worker.run([(0, wishes.uninstalled())])
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


def test_another_uninstall_does_not_begin_the_grace_anew() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes, plans=_with_grace("P1D"), until_us=3600 * 10**6)
    worker.run([(0, wishes.uninstalled())])
    worker.now_us += 80_000 * 10**6
    worker.until_us = 90_000 * 10**6
    worker.run([(0, wishes.uninstalled())])
    assert world.there == {}


def test_a_reinstall_within_the_grace_goes_on_with_the_generation() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes, plans=_with_grace("P1D"), until_us=3600 * 10**6)
    worker.run([(0, wishes.uninstalled())])
    made_at = world.there["schema", 1].made_at
    world.calls.clear()
    worker.run([(0, wishes.installed())])
    assert world.made(Verb.CREATE) == ["subscriptions", "tokens"]
    assert world.there["schema", 1].made_at == made_at
    assert ends(worker.outcomes)[-1] == (3, "up", "done", None)
    assert (worker.last.generation, worker.phase) == (1, Phase.ACTIVE)


def test_a_refusal_after_a_revival_destroys_nothing() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes, plans=_with_grace("P1D"), until_us=3600 * 10**6)
    worker.run([(0, wishes.uninstalled()), (10**6, wishes.installed(bad="subscriptions"))])
    assert world.steps() == list(STEPS)
    assert ends(worker.outcomes)[-1] == (3, "up", "done", "update_refused")


def test_a_lost_answer_is_read_back_and_not_repeated_when_it_had_its_effect() -> None:
    world = World(modes=[Mode.WELL, Mode.LOST_WITH_EFFECT])
    worker = Worker(world, Wishes().installed())
    worker.run()
    assert [(step, verb) for step, verb, _, _ in world.calls[:4]] == [
        ("archive", Verb.CREATE),
        ("middleware", Verb.CREATE),
        ("middleware", Verb.READ),
        ("crm", Verb.CREATE),
    ]


def test_a_lost_call_is_repeated_with_the_same_key() -> None:
    world = World(modes=[Mode.WELL, Mode.LOST_WITHOUT])
    worker = Worker(world, Wishes().installed())
    worker.run()
    assert [(step, verb) for step, verb, _, _ in world.calls[1:4]] == [
        ("middleware", Verb.CREATE),
        ("middleware", Verb.READ),
        ("middleware", Verb.CREATE),
    ]
    assert worker.journal.life is not None
    assert worker.journal.life.steps["middleware"].n == 1


def test_a_lost_removal_is_read_back_and_repeated_with_the_same_key() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    world.modes = [Mode.LOST_WITHOUT, Mode.WELL]
    worker.until_us = worker.now_us + 60_000_000
    worker.run([(0, wishes.uninstalled())])
    assert [(step, verb) for step, verb, _, _ in world.calls[:3]] == [
        ("tokens", Verb.DELETE),
        ("tokens", Verb.READ),
        ("tokens", Verb.DELETE),
    ]
    assert worker.journal.sweeps[0].life.steps["tokens"].n == 2


def test_a_call_that_is_answered_and_may_be_tried_again_is_another_intent() -> None:
    world = World(modes=[Mode.WELL, Mode.RETRYABLE])
    worker = Worker(world, Wishes().installed())
    worker.run()
    assert worker.journal.life is not None
    assert worker.journal.life.steps["middleware"].n == 2


def test_silence_costs_no_try_and_no_wait_is_longer_than_a_minute() -> None:
    world = World(modes=[Mode.WELL] + [Mode.SILENT] * 200)
    worker = Worker(world, Wishes().installed())
    worker.run()
    assert worker.phase is Phase.ACTIVE
    assert worker.now_us < 201 * 61 * 10**6


def test_eight_answers_that_lead_nowhere_exhaust_a_step() -> None:
    world = World(modes=[Mode.WELL] + [Mode.RETRYABLE] * 7)
    worker = Worker(world, Wishes().installed())
    worker.run()
    assert worker.phase is Phase.ACTIVE
    world = World(modes=[Mode.WELL] + [Mode.RETRYABLE] * 8)
    worker = Worker(world, Wishes().installed())
    worker.run()
    assert worker.phase is Phase.ROLLED_BACK


def test_waits_have_full_jitter_and_do_what_the_system_asks() -> None:
    pace = Pace(first_s=1.0, most_s=60.0)
    waits = [pace.wait_us(3, str(seed), None) for seed in range(200)]
    assert min(waits) < 1_000_000
    assert 3_000_000 < max(waits) <= 4_000_000
    assert pace.wait_us(1, "x", 7.0) == 7_000_000
    assert pace.wait_us(1, "x", 7_000.0) == 60_000_000


def test_retrying_is_said_once_a_turn_with_the_step() -> None:
    world = World(modes=[Mode.WELL] + [Mode.RETRYABLE] * 3)
    worker = Worker(world, Wishes().installed())
    worker.run()
    said = [(o.step, o.error_class) for o in worker.outcomes if o.reason == "retrying"]
    assert said == [("middleware", "retryable")]


def test_a_tenant_that_is_not_known_is_held_until_it_is() -> None:
    world, wishes = World(), Wishes()
    worker = Worker(world, wishes.installed(tenant_id=None), until_us=2_000_000)
    worker.run()
    assert world.calls == []
    assert ends(worker.outcomes) == [(1, "up", "held", "tenant_unknown")]
    worker.run([(0, wishes.installed())])
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)


def test_a_held_version_is_tried_again_after_a_minute_and_said_once() -> None:
    desired = Wishes().installed()
    journal = hold(Journal(), desired, "tenant_conflict", 1_000)
    turn = decide(Plans(plan()), journal, desired, 2_000)
    assert turn.move == Wait(60_001_000, "tenant_conflict")
    assert [(o.state, o.reason, o.direction) for o in turn.outcomes] == [("held", "tenant_conflict", "up")]
    again = decide(Plans(plan()), turn.journal, desired, 3_000)
    assert again.outcomes == ()
    assert not isinstance(next_move(Plans(plan()), turn.journal, desired, 60_002_000), Wait)


def test_an_uninstall_of_a_held_tenant_ends_with_no_call() -> None:
    world, wishes = World(), Wishes()
    worker = Worker(world, wishes.installed(tenant_id=None), until_us=2_000_000)
    worker.run([(0, wishes.uninstalled())])
    assert world.calls == []
    assert ends(worker.outcomes)[-1] == (2, "down", "done", None)


def test_another_tenant_id_for_a_bound_key_changes_nothing_and_is_said() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.run([(0, wishes.change(tenant_id="other"))])
    assert world.calls == []
    assert ends(worker.outcomes)[-1] == (2, "up", "done", "tenant_changed")
    assert worker.journal.life is not None
    assert worker.journal.life.tenant_id == "acme"


def test_a_life_is_finished_with_the_plan_it_began_with() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    old = worker.plans.current
    shorter = plan(PLAN_TEXT[: PLAN_TEXT.rindex("[[step]]")])
    worker.plans = Plans(shorter, {old.digest: old})
    worker.run([(0, wishes.uninstalled()), (10**6, wishes.installed())])
    assert world.made(Verb.DELETE) == list(ABSENT_STEPS)
    assert world.steps() == list(STEPS[:-1])


def test_a_step_with_nothing_to_undo_is_left() -> None:
    text = PLAN_TEXT.replace('kind = "subscription"\nundo = "reverse"', 'kind = "subscription"\nundo = "nothing"')
    world, wishes = World(), Wishes()
    worker = _active(world, wishes, plans=Plans(plan(text)))
    world.there.pop(("subscriptions", 1))
    worker.run([(0, wishes.uninstalled())])
    assert world.made(Verb.DELETE) == [step for step in ABSENT_STEPS if step != "subscriptions"]
    assert worker.phase is Phase.EMPTY


def test_versions_that_were_skipped_are_answered_by_the_newest() -> None:
    world, wishes = World(), Wishes()
    first = wishes.installed()
    wishes.configured(size="2")
    worker = Worker(world, first)
    worker.run([(3, wishes.configured(size="3"))])
    assert ends(worker.outcomes) == [(3, "up", "done", None)]
    assert world.there["middleware", 1].configuration == {"size": "3"}


@pytest.mark.parametrize("lost", range(1, 30))
def test_a_worker_may_be_lost_between_any_two_marks(lost: int) -> None:
    world, wishes = World(), Wishes()
    worker = Worker(world, wishes.installed(), crashes=frozenset({lost, lost + 2}))
    worker.run()
    assert world.steps() == list(STEPS)
    worker.run([(0, wishes.uninstalled())])
    assert world.there == {}


def test_the_same_arguments_give_the_same_move() -> None:
    desired, plans = Wishes().installed(), Plans(plan())
    assert next_move(plans, Journal(), desired, 5) == next_move(plans, Journal(), desired, 5)
    assert replace(plans, current=_one_step()).current.digest != plans.current.digest


def _one_step() -> Plan:
    return plan('[[step]]\nname = "a"\nkind = "http"\nundo = "nothing"')


def test_outcomes_name_the_key() -> None:
    worker = Worker(World(), Wishes().installed())
    worker.run()
    assert {said.key for said in worker.outcomes} == {KEY}


def test_what_was_answered_for_a_thing_that_is_gone_is_not_taken_for_its_successors() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    world.modes = [Mode.WELL, Mode.LOST_WITH_EFFECT]
    worker.marks = 0
    worker.run([(0, wishes.reinstalled()), (4, wishes.uninstalled())])
    assert [(step, verb) for step, verb, _, _ in world.calls[:3]] == [
        ("tokens", Verb.DELETE),
        ("tokens", Verb.CREATE),
        ("tokens", Verb.DELETE),
    ]
    assert world.outputs_given[:3] == [{"id": "tokens.1"}, {}, {}]


def test_a_system_that_is_away_costs_no_try_and_leaves_nothing_in_doubt() -> None:
    world, worker = World(), Worker(World(), Wishes().installed(), bars=[False, False, *[True] * 20])
    worker.world = world
    worker.run()
    assert world.made(Verb.CREATE) == list(STEPS)
    assert len(world.calls) == len(STEPS)
    assert [said.reason for said in worker.outcomes] == [None, "system_away", None], "said once"
    life = worker.journal.life
    assert life is not None
    assert {log.n for log in life.steps.values()} == {1}


def test_while_one_system_is_away_an_uninstall_takes_the_others_down() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.desired = wishes.uninstalled()
    worker.bars, worker.until_us = [False] * 2 + [True] * 1_000, worker.now_us + 60_000_000
    worker.run()
    assert world.made(Verb.DELETE) == ["tokens", "subscriptions"]
    worker.bars, worker.until_us = [], 10**18
    worker.run()
    assert world.there == {}
    assert worker.last.state.value == "done"


@pytest.mark.parametrize("verb", [Verb.CREATE, Verb.DELETE])
def test_what_was_given_up_is_done_when_an_operator_wishes_it_again(verb: Verb) -> None:
    world, wishes = World(), Wishes()
    worker = Worker(world, wishes.installed())
    if verb is Verb.DELETE:
        worker.run()
        worker.desired = wishes.uninstalled()
    world.decides = lambda step, called: Mode.REFUSED if (step, called) == ("schema", verb) else None
    worker.run()
    assert worker.phase is (Phase.ROLLED_BACK if verb is Verb.CREATE else Phase.REMOVAL_FAILED)
    world.decides = lambda _, __: None
    again = redriven(worker.journal)
    assert again is not None
    worker.stored = again.model_dump_json()
    worker.run()
    assert worker.last.state.value == "done"
    assert worker.last.desired_version == worker.desired.version
    assert world.steps() == (list(STEPS) if verb is Verb.CREATE else [])


def test_a_refused_update_is_tried_again_when_an_operator_wishes_it() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.desired = wishes.configured(size="2")
    world.decides = lambda step, called: Mode.REFUSED if (step, called) == ("middleware", Verb.UPDATE) else None
    worker.run()
    assert worker.last.reason == "update_refused"
    world.decides = lambda _, __: None
    again = redriven(worker.journal)
    assert again is not None
    worker.stored = again.model_dump_json()
    worker.run()
    assert ends(worker.outcomes)[-1] == (2, "up", "done", None)
    assert world.there["middleware", 1].configuration == {"size": "2"}


def test_there_is_nothing_to_try_again_where_all_is_as_wished() -> None:
    worker = _active(World(), wishes := Wishes())
    assert redriven(worker.journal) is None
    worker.desired = wishes.uninstalled()
    worker.run()
    assert redriven(worker.journal) is None


def test_a_version_that_knows_of_neither_install_nor_uninstall_removes_nothing() -> None:
    world, wishes = World(), Wishes()
    worker = _active(world, wishes)
    worker.desired = wishes.change(installed=False, installed_at=None, uninstalled_at=None, configuration={})
    worker.run()
    assert world.calls == []
    assert worker.phase is Phase.ACTIVE
    assert ends(worker.outcomes)[-1] == (2, "up", "held", "install_unknown")
    worker.desired = wishes.uninstalled()
    worker.run()
    assert world.there == {}
