"""What is decided of an adoption: the journal, the looks, the release, and every line of the file."""

import json
from functools import reduce

import pytest

from schemas.audit import OperatorAct
from schemas.saga import Journal, Phase, StepState
from schemas.tenant import Desired
from services.core.ledger.audit import is_genuine
from services.core.saga.adoption import (
    AdoptionBase,
    Differing,
    LookedLife,
    ReleaseEnd,
    StepFinding,
    StepSight,
    act_line,
    adopted_journal,
    adoption_observed,
    after_look,
    awaits_ledger,
    decide_release,
    is_adoptable_again,
    left_text,
    release_observed,
    told_desired,
    told_life,
    with_told_step,
    without_resource,
)
from services.core.saga.adoption_file import LINE_MOST, parse_file
from services.core.saga.calls import Absent, Answer, Done, Retryable, Verb
from services.core.saga.ended_lives import ended_lives, is_over
from services.core.saga.intents import retried_journal
from services.core.saga.recovery import KnownOfKey, recovered, with_record
from tests.support.adopted_saga import BASE, CRM, adopted, line, looked, versions, world
from tests.support.saga_world import KEY, STEPS, DesiredVersions, MemoryRunner, OutsideSystems, ends, plan

MATERIAL = b"m" * 32


def test_an_adopted_tenant_becomes_active_in_generation_1_without_a_call() -> None:
    runner = adopted(world())
    runner.run()
    assert runner.outcomes == [], "the row is due for nothing before the ledger is told"
    runner.desired = versions().installed()
    runner.run()
    assert (runner.phase, runner.journal.generation, ends(runner.outcomes)) == (
        Phase.ACTIVE, 1, [(1, "up", "done", None)],
    )  # fmt: skip
    assert runner.world.calls == []


def test_a_later_uninstall_removes_exactly_what_was_adopted() -> None:
    runner, told = adopted(world()), versions()
    runner.desired = told.installed()
    runner.run()
    runner.desired = told.uninstalled()
    runner.run()
    assert runner.world.made(Verb.DELETE) == list(reversed(STEPS))
    assert (runner.world.there, runner.world.made(Verb.CREATE), runner.first_deletes) == ({}, [], 1)


def test_a_change_of_the_configuration_updates_what_was_adopted() -> None:
    runner, told = adopted(world()), versions()
    runner.desired = told.installed()
    runner.run()
    runner.desired = told.configured(size="9")
    runner.run()
    assert runner.world.made(Verb.UPDATE) == ["middleware"]
    assert runner.world.made(Verb.CREATE) == []


def test_an_uninstall_from_before_the_file_waits_until_the_ledger_was_told() -> None:
    """The registry is written first: an old uninstall that comes in between must not remove anything."""
    runner, told = adopted(world()), DesiredVersions(at_us=BASE.told_us - 100)
    runner.desired = told.uninstalled()
    runner.run()
    assert (runner.phase, runner.world.calls, runner.outcomes) == (Phase.ACTIVE, [], [])
    told.at_us = BASE.told_us
    runner.desired = told.installed()
    runner.run()
    assert (runner.phase, runner.last.state) == (Phase.ACTIVE, "done")
    # The life has tokens from after that uninstall: nothing is issued anew.
    assert runner.world.calls == []


def test_an_uninstall_from_after_the_file_counts_at_once() -> None:
    runner, told = adopted(world()), DesiredVersions(at_us=BASE.told_us + 100)
    runner.desired = told.uninstalled()
    runner.run()
    assert (runner.phase, runner.world.there) == (Phase.EMPTY, {})


@pytest.mark.parametrize(
    ("answer", "sight", "detail", "fits"),
    [
        (Done(), StepSight.FOUND, "", (True, True)),
        (Done({"id": "m-1"}), StepSight.FOUND, "", (True, True)),
        (Done({}, "enabled"), StepSight.DIFFERS, "enabled", (False, True)),
        (Done({"id": "m-2"}), StepSight.DIFFERS, "id", (False, True)),
        (Absent(), StepSight.MISSING, "", (False, False)),
        (Retryable("HTTP 503"), StepSight.UNREAD, "HTTP 503", (False, False)),
        ("not asked", StepSight.UNREAD, "not asked", (False, False)),
    ],
)
def test_a_look_tells_found_differs_missing_and_not_read(
    answer: Answer | str, sight: StepSight, detail: str, fits: tuple[bool, bool]
) -> None:
    step, told = plan().steps[1], told_desired(line(), BASE)
    life = with_told_step(told_life(plan(), told, BASE), step, told, {"id": "m-1"}, BASE).life
    after, finding = after_look(life, step, answer, Differing.KEEP)
    assert finding == StepFinding("middleware", sight, detail)
    found = LookedLife(after, (finding,))
    assert (found.fits(Differing.LEAVE), found.fits(Differing.KEEP)) == fits
    assert (after.steps["middleware"].state is StepState.PRESENT) == fits[1]
    if isinstance(answer, Done):
        assert after.steps["middleware"].outputs == {"id": "m-1", **answer.outputs}, "the word of the system counts"


def test_a_step_without_a_url_keeps_nothing_and_is_not_looked_up() -> None:
    step, told = plan().steps[2], told_desired(line(), BASE)
    optional = plan(_OPTIONAL_URL).steps[0]
    assert with_told_step(told_life(plan(), told, BASE), step, told, {}, BASE).needs_look
    without = told_desired(line(configuration={}), BASE)
    needed = with_told_step(told_life(plan(), without, BASE), step, without, {}, BASE)
    assert needed.missing == ("configuration.crmEndpoint", "steps.middleware.id"), "nothing can be looked up"
    in_doubt = with_told_step(told_life(plan(), without, BASE), optional, without, {}, BASE)
    assert (in_doubt.needs_look, in_doubt.missing) == (False, ())
    life, finding = without_resource(in_doubt.life, optional)
    log = life.steps["crm"]
    assert (finding.sight, log.state, log.applied) == (StepSight.FOUND, StepState.PRESENT, log.intended)


_OPTIONAL_URL = """
[[step]]
name = "crm"
kind = "http"
undo = "reverse"
url = "{configuration.crmEndpoint?}"
"""


@pytest.mark.parametrize(("differing", "updated"), [(Differing.KEEP, []), (Differing.UPDATE, ["middleware"])])
def test_a_resource_that_differs_is_kept_or_updated_as_the_operator_says(
    differing: Differing, updated: list[str]
) -> None:
    runner = adopted(world(), line(configuration=CRM | {"size": "2"}), differing=differing)
    runner.desired = versions().installed(size="2")
    runner.run()
    assert (runner.phase, runner.world.made(Verb.UPDATE)) == (Phase.ACTIVE, updated)
    assert runner.world.made(Verb.CREATE) == runner.world.made(Verb.DELETE) == []


def test_the_ledger_is_told_the_same_in_every_repetition() -> None:
    tenant = line(enabled=False)
    runner = adopted(world(), tenant)
    said = adoption_observed(tenant, runner.journal)
    assert (said.key, said.tenant_id, said.read_at, said.installed, said.enabled, said.configuration) == (
        KEY, "acme", BASE.told_us, True, False, CRM,
    )  # fmt: skip
    assert awaits_ledger(runner.journal)
    before = DesiredVersions(at_us=BASE.told_us - 1)
    runner.desired = before.installed(size="1")
    runner.run()
    assert awaits_ledger(runner.journal), "an install from before the file is no word of the ledger about the file"
    assert adoption_observed(tenant, runner.journal) == said
    runner.desired = DesiredVersions(at_us=BASE.told_us, now=runner.desired).installed()
    runner.run()
    assert not awaits_ledger(runner.journal)
    assert not awaits_ledger(Journal())


def test_a_number_in_another_spelling_is_no_change() -> None:
    assert told_desired(line(configuration={"size": 1.0}), BASE).configuration == {"size": 1}
    assert str(told_desired(line(configuration={"size": 1.0}), BASE).configuration["size"]) == "1"


def released() -> tuple[MemoryRunner, DesiredVersions]:
    """A saga that was adopted, became active, and was released; the ledger was told."""
    runner, told = adopted(world()), versions()
    runner.desired = told.installed()
    runner.run()
    decided = decide_release(runner.journal, runner.desired, runner.now_us)
    assert decided.end is ReleaseEnd.RELEASED
    runner.stored = decided.journal.model_dump_json()
    told.at_us = decided.journal.forgotten_at
    runner.desired = told.uninstalled()
    runner.run()
    return runner, told


def test_a_release_forgets_without_removing() -> None:
    runner, _ = released()
    assert (runner.phase, runner.world.calls, runner.journal.life) == (Phase.EMPTY, [], None)
    assert ends(runner.outcomes)[-1] == (2, "down", "done", "released")
    assert runner.world.steps() == list(STEPS)
    assert (is_over(runner.journal, 1), ended_lives(runner.journal, plan(), KEY)) == (False, []), "nobody's orphans"
    assert runner.journal.orphan_checks == ()
    said = release_observed(runner.journal, KEY)
    assert (said.installed, said.read_at, said.cause) == (False, runner.journal.forgotten_at, "release")
    again = decide_release(runner.journal, runner.desired, runner.now_us + 1)
    assert (again.end, again.journal) == (ReleaseEnd.AGAIN, runner.journal)


def test_a_life_that_was_made_here_is_not_released() -> None:
    runner = MemoryRunner(OutsideSystems(), DesiredVersions().installed())
    assert decide_release(Journal(), runner.desired, 1).end is ReleaseEnd.NOT_ADOPTED
    runner.run()
    decided = decide_release(runner.journal, runner.desired, runner.now_us)
    assert (decided.end, decided.journal) == (ReleaseEnd.NOT_ADOPTED, runner.journal)


def test_an_install_after_a_release_makes_nothing_beside_the_vendor_s_resources() -> None:
    runner, told = released()
    runner.desired = told.installed()
    runner.run()
    assert ends(runner.outcomes)[-1] == (3, "up", "held", "released")
    assert (runner.world.calls, runner.phase) == ([], Phase.EMPTY)
    retried = retried_journal(runner.journal)
    assert retried is not None, "an operator may want it"
    runner.world.there.clear()
    runner.stored = retried.model_dump_json()
    runner.run()
    assert (runner.phase, runner.journal.generation) == (Phase.ACTIVE, 2)


def test_a_customer_who_uninstalls_and_installs_after_a_release_has_a_life_of_its_own() -> None:
    runner, told = released()
    told.at_us += 100
    told.uninstalled()
    runner.world.there.clear()
    runner.desired = told.installed()
    runner.run()
    assert (runner.phase, runner.journal.generation) == (Phase.ACTIVE, 2)


def test_a_released_tenant_is_adopted_again_in_its_generation() -> None:
    runner, told = released()
    used = {step: log.n for step, log in adopted(world()).journal.life.steps.items()}  # type: ignore[union-attr]
    assert is_adoptable_again(runner.journal, runner.desired)
    now_us = runner.now_us + 10_000_000
    base = AdoptionBase(1, runner.desired.version, runner.journal.forgotten_at + 1, now_us)
    found = looked(runner.world, line(), base=base)
    runner.world.calls.clear()
    runner.stored = adopted_journal(runner.journal, found.life, now_us).model_dump_json()
    runner.now_us = now_us
    runner.run()
    assert (runner.phase, runner.world.calls) == (Phase.ACTIVE, []), "the uninstall of the release is answered"
    # The uninstall of the release comes once more, late.
    runner.desired = told.change()
    runner.run()
    assert (runner.phase, runner.world.calls) == (Phase.ACTIVE, [])
    told.at_us = base.told_us
    runner.desired = told.installed()
    runner.run()
    assert (runner.phase, runner.last.state, runner.journal.generation) == (Phase.ACTIVE, "done", 1)
    assert runner.world.made(Verb.CREATE) == runner.world.made(Verb.UPDATE) == []
    life = runner.journal.life
    assert life is not None
    assert all(log.n > used[step] for step, log in life.steps.items()), "no idempotency key is used twice"
    assert (runner.journal.forgotten, runner.journal.forgotten_at) == ((), 0)


def test_a_released_tenant_that_a_customer_uninstalled_since_is_not_adopted_again() -> None:
    runner, told = released()
    told.at_us += 100
    runner.desired = told.uninstalled()
    runner.run()
    assert not is_adoptable_again(runner.journal, runner.desired)


def test_a_release_ends_a_teardown_that_the_brake_holds() -> None:
    runner, told = adopted(world()), versions()
    runner.desired = told.installed()
    runner.run()
    runner.holds, runner.until_us = ["removal_braked"], runner.now_us + 1_000
    runner.desired = told.uninstalled()
    runner.run()
    assert (runner.phase, runner.world.calls) == (Phase.REMOVING, [])
    decided = decide_release(runner.journal, runner.desired, runner.now_us)
    assert decided.end is ReleaseEnd.RELEASED
    runner.stored = decided.journal.model_dump_json()
    runner.run()
    assert (runner.phase, runner.world.calls) == (Phase.EMPTY, [])


def test_a_registry_from_before_a_release_removes_nothing_of_the_vendor() -> None:
    """A backup has the adopted life; Kafka says that it was released."""
    before = adopted(world())
    told = versions()
    before.desired = told.installed()
    before.run()
    after, _ = released()
    known = with_record(reduce(with_record, after.outcomes, KnownOfKey()), after.desired)
    assert known.released
    before.stored = recovered(before.journal, after.desired, known, before.plans, 10**15).model_dump_json()
    before.desired = after.desired
    before.run()
    assert (before.phase, before.world.calls, before.journal.orphan_checks) == (Phase.EMPTY, [], ())
    assert (before.journal.forgotten, before.journal.life) == ((1,), None)


def test_the_act_is_recorded_with_name_and_reason() -> None:
    act = OperatorAct(by="Ada", reason="migration", digest="0123456789abcdef", number=2)
    journal = adopted(world()).journal
    said = act_line(journal, KEY, "adoption", 1, act, 7, MATERIAL)
    assert (said.id, said.what, said.verdict, said.act) == (f"{KEY}/adoption/1", "adoption", "adopted", act)
    assert is_genuine(said, [MATERIAL])


def test_what_is_wrong_is_told_by_step() -> None:
    found = [
        StepFinding("middleware", StepSight.FOUND),
        StepFinding("crm", StepSight.MISSING),
        StepFinding("schema", StepSight.UNREAD, "HTTP 503"),
    ]
    assert left_text(found) == "crm missing, schema not read (HTTP 503)"


# The file


def parsed(*lines: object) -> list[tuple[int, str]]:
    """The bad lines of a file."""
    raw = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines]
    return [(bad.number, bad.why) for bad in parse_file(raw, plan()).bad]


GOOD = {"key": KEY, "tenantId": "acme"}


def test_a_good_file_has_every_tenant_by_the_number_of_its_line() -> None:
    other = {**GOOD, "key": KEY.replace("2222", "aaaa").upper(), "steps": {"crm": {"id": "c-1"}}, "enabled": False}
    found = parse_file([json.dumps(GOOD).encode(), b"\n", json.dumps(other).encode()], plan())
    assert [(number, one.key) for number, one in found.tenants.items()] == [(1, KEY), (3, other["key"].lower())]  # type: ignore[attr-defined]
    assert (found.tenants[1].enabled, found.tenants[1].configuration, found.bad) == (True, {}, [])


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"{", "the line must be strict UTF-8 JSON"),
        (b'{"key": 1, "key": 2}', "the line has a duplicate key"),
        (b"[]", "the line must be a JSON object"),
        ({"tenantId": "acme"}, "key: is missing"),
        ({**GOOD, "key": "acme"}, "key: must be orgId:integrationId, two UUIDs"),
        ({"key": KEY}, "tenantId: is missing"),
        ({**GOOD, "tenantId": "canary canary"}, "tenantId: must be 1 to 128 letters, digits, dots, dashes and"),
        ({**GOOD, "configuration": "canary"}, "configuration: must be an object"),
        ({**GOOD, "enabled": "canary"}, "enabled: must be true or false"),
        ({**GOOD, "steps": {"crm": "canary"}}, "steps: must be an object of objects: the name of"),
        ({**GOOD, "tenant_id": "canary"}, "no field 'tenant_id' (did you mean tenantId?)"),
        ({**GOOD, "canary canary": 1}, "no field of this name"),
        ({**GOOD, "steps": {"cmr": {}}}, "steps: the plan has no step 'cmr' (did you mean crm?)"),
        ({**GOOD, "steps": {"crm": {"ident": "canary"}}}, "steps.crm: no output 'ident'; there are id, url"),
        (b" " * LINE_MOST + b"{}", "longer than 256 KiB"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_by_its_number_and_quotes_no_value(bad: object, why: str) -> None:
    ((number, said),) = parsed({**GOOD, "key": KEY.replace("2222", "3333")}, bad)
    assert (number, "canary" in said) == (2, False)
    assert said.startswith(why)


def test_a_key_that_stands_twice_is_named_with_its_first_line() -> None:
    assert parsed(GOOD, b"", GOOD) == [(3, "key: stands in line 1 already")]


def test_the_desired_version_of_an_adoption_is_older_than_every_version_of_the_ledger() -> None:
    told = told_desired(line(), BASE)
    assert isinstance(told, Desired)
    assert (told.version, told.installed, told.installed_at, told.uninstalled_at) == (0, True, BASE.told_us, None)
