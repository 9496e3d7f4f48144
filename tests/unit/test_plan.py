"""A plan is checked completely before a run, and its references are replaced exactly."""

from importlib.resources import files

import pytest

from services.core.saga.plan import BadPlan, UndoBy, parse, schema_name
from services.core.saga.plan_forms import duration_s
from services.core.saga.references import Facts, substitute, used_configuration
from services.provisioner.kinds import TRAITS

KINDS = {name: TRAITS[name] for name in ("http", "postgres")}
GOOD = '[[step]]\nname = "a"\nkind = "http"\nundo = "reverse"\n'


def _faults(text: str, **settings: str | None) -> tuple[str, ...]:
    with pytest.raises(BadPlan) as found:
        parse(text, kinds=KINDS, settings=settings)
    return found.value.faults


def test_a_step_has_defaults_for_all_but_name_kind_and_undo() -> None:
    (step,) = parse(GOOD, kinds=KINDS, settings={}).steps
    assert (step.give_up_after_s, step.timeout_s) == (6 * 3600, 10.0)
    assert (step.destroy_after_s, step.undo) == (0, UndoBy.REVERSE)


def test_keys_unknown_to_the_plan_are_settings_of_the_kind() -> None:
    (step,) = parse(GOOD + 'url = "x"\nbody = { b = [1, "{tenant.id}"] }\n', kinds=KINDS, settings={}).steps
    assert step.settings == {"url": "x", "body": {"b": [1, "{tenant.id}"]}}


def test_settings_of_the_installation_are_replaced_and_never_read_as_references() -> None:
    text = GOOD + 'url = "{settings.u}/x"\nsecret = "{settings.s}"'
    (step,) = parse(text, kinds=KINDS, settings={"u": "http://m", "s": "pa{ss}wor{tenant.id}d"}).steps
    settings, missing = substitute(step.settings, Facts({"id": "acme"}, {}, {}, step.given))
    assert (settings, missing) == ({"url": "http://m/x", "secret": "pa{ss}wor{tenant.id}d"}, ())
    assert "wor" not in repr(step), "a secret is not shown"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no [[step]]"),
        ("[[step", "not TOML"),
        (GOOD + GOOD, "used twice"),
        (GOOD.replace("http", "ftp"), "'ftp' is none of"),
        (GOOD.replace('undo = "reverse"', ""), "undo: must be"),
        (GOOD.replace('"a"', '"A b"'), "name: must be lower-case"),
        (GOOD + "give_up_after = 8", "give_up_after: must be an ISO 8601"),
        (GOOD + 'give_up_after = "P99999999W"', "at most P3660D"),
        (GOOD + 'timeout_s = "1"', "timeout_s: must be a number above 0"),
        (GOOD + 'destroy_after = "1 day"', "destroy_after: must be an ISO 8601"),
        (GOOD + 'destroy_after = "P99999999W"', "at most P3660D"),
        (GOOD + 'x = "{steps.b.id}"', "x: {steps.b.id}: no step has this name; put that step before this one"),
        (GOOD + 'x = "{steps.a.id}"', "x: {steps.a.id}: is an output of this step itself"),
        (GOOD + "x = { y = 2026-11-29 }", "x: has a date or time, which JSON does not have"),
        (GOOD + "x = [inf]", "x: has a number without an end, which JSON does not have"),
        (GOOD + 'x = "{tenant.secret}"', "tenant has"),
        (GOOD + 'x = "{settings.none}"', "no such setting"),
        (GOOD + 'x = "{settings.u}"', "U is missing"),
        (GOOD + 'x = "{environment.HOME}"', "references are to"),
    ],
    ids=lambda value: value[-40:] if isinstance(value, str) else None,
)
def test_a_fault_of_a_plan_is_named(text: str, fault: str) -> None:
    assert fault in "\n".join(_faults(text, u=None))


def test_all_faults_of_a_plan_are_named_at_once() -> None:
    text = GOOD.replace("http", "ftp") + GOOD.replace('undo = "reverse"', "") + '[[step]]\nname = "c"\n'
    assert len(_faults(text)) == 5


def test_an_optional_setting_of_the_installation_may_be_missing() -> None:
    (step,) = parse(GOOD + 'x = "{settings.u?}"', kinds=KINDS, settings={"u": None}).steps
    assert substitute(step.settings, Facts({}, {}, {}, step.given)) == ({}, ())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT0S", 0), ("P7D", 604_800), ("P1W", 604_800), ("PT1H30M", 5_400), ("P1DT1S", 86_401)],
)
def test_an_iso_8601_duration_is_parsed(text: str, seconds: int) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["P", "PT", "7D", "P1Y", "P1M", "PT1.5S", "-PT1S", ""])
def test_an_invalid_duration_is_refused(text: str) -> None:
    assert duration_s(text) is None


def _facts(**configuration: object) -> Facts:
    return Facts({"id": "acme", "enabled": True}, configuration, {"a": {"id": 7}})


def test_a_setting_of_one_reference_takes_the_value_with_its_type() -> None:
    settings, missing = substitute({"x": "{configuration.o}", "y": "{steps.a.id}"}, _facts(o={"deep": [1]}))
    assert (settings, missing) == ({"x": {"deep": [1]}, "y": 7}, ())


def test_a_reference_in_text_is_written_out() -> None:
    settings, _ = substitute({"x": "t-{tenant.id}-{steps.a.id}-{tenant.enabled}"}, _facts())
    assert settings == {"x": "t-acme-7-true"}


def test_a_reference_can_be_the_whole_configuration() -> None:
    settings, _ = substitute({"x": "{configuration}"}, _facts(a=1))
    assert settings == {"x": {"a": 1}}


def test_a_missing_optional_reference_is_left_out_or_empty_in_text() -> None:
    settings, missing = substitute({"x": "{configuration.no?}", "y": "<{configuration.no?}>", "z": 1}, _facts())
    assert (settings, missing) == ({"y": "<>", "z": 1}, ())


def test_a_missing_required_reference_is_named() -> None:
    _, missing = substitute({"x": "{configuration.no}", "y": ["{configuration.a.b}"]}, _facts(a=1))
    assert missing == ("configuration.no", "configuration.a.b")


def test_a_substituted_value_is_not_read_as_a_reference() -> None:
    settings, _ = substitute({"x": "{configuration.a}"}, _facts(a="{settings.secret}"))
    assert settings == {"x": "{settings.secret}"}


def test_only_the_configuration_names_of_a_step_are_its_inputs() -> None:
    settings = {"x": "{configuration.a.deep}", "y": ["{configuration.b?}"], "z": "{tenant.id}"}
    assert used_configuration(settings, {"a": {"deep": 1}, "b": 2, "c": 3}) == {"a": {"deep": 1}, "b": 2}


def test_a_schema_name_is_derived_and_contains_no_sender_text() -> None:
    first, second = schema_name("o:i", 1), schema_name("o:i", 2)
    assert first != second
    assert first.startswith("t_")
    assert len(first) == 34
    assert set(first[2:]) <= set("0123456789abcdef")


def test_the_shipped_plan_can_be_carried_out() -> None:
    text = files("services.provisioner").joinpath("plan.toml").read_text()
    names = ("middleware_url", "subscriptions_url", "oauth_url", "oauth_client_id", "oauth_client_secret")
    plan = parse(text, kinds=TRAITS, settings=dict.fromkeys(names, "x"))
    assert [step.name for step in plan.steps] == ["archive", "middleware", "crm", "schema", "subscriptions", "tokens"]
