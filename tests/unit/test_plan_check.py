"""A key of a plan that no code would read is refused by step and key."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from services.adapters.process.errors import Unusable
from services.adapters.process.settings import Settings
from services.core.saga.kind_traits import KindTraits
from services.core.saga.plan import BadPlan, parse
from services.core.saga.plan_check import check
from services.core.saga.plan_keys import STEP
from services.provisioner import plan_page
from services.provisioner.kinds import KINDS, TRAITS
from services.provisioner.plans import PLAN_SETTINGS, plan_text

SETTINGS = dict.fromkeys(PLAN_SETTINGS, "https://x")
HTTP = '[[step]]\nname = "a"\nkind = "http"\nundo = "reverse"\n'
OAUTH = HTTP.replace("http", "oauth") + 'url = "https://o.example"\nclient_id = "i"\nclient_secret = "s"\n'
SUBSCRIPTION = HTTP.replace("http", "subscription") + 'url = "https://o.example"\n'
POSTGRES = HTTP.replace("http", "postgres")


def faults(text: str) -> tuple[str, ...]:
    with pytest.raises(BadPlan) as found:
        check(text, kinds=TRAITS, settings=SETTINGS)
    return found.value.faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (HTTP + "retries = 3", "step 1 (a): retries: no such key any more; give_up_after says now how long"),
        (
            HTTP + 'giveup_after = "PT1H"',
            "step 1 (a): giveup_after: no such key (did you mean give_up_after?); kind http",
        ),
        (HTTP + "retrys = 3", "step 1 (a): retrys: no such key; kind http has name, kind"),
        (HTTP + 'method = "POST"', "step 1 (a): method: no such key; kind http has name, kind, undo"),
        (HTTP + 'token = "t"', "step 1 (a): token: no such key; kind http has"),
        (HTTP + 'URL = "https://x"', "step 1 (a): URL: no such key (did you mean url?)"),
        (HTTP + 'topics = ["a"]', "(topics is a key of kind subscription)"),
        (POSTGRES + 'url = "https://x"', "(url is a key of kind http, oauth, rest, subscription)"),
        (
            HTTP + 'credentials = { client = "i", client_id = "i", client_secret = "s" }',
            "credentials.client: no such key",
        ),
        (HTTP + 'credentials = { client_id = "i" }', "credentials.client_secret: must be text, and is missing"),
        (HTTP + 'credentials = "i:s"', "credentials: must be a table, and is another text"),
        (HTTP + 'credentials = "{configuration.c}"', "credentials: must be a table"),
        (OAUTH.replace("client_id", "clientid"), "step 1 (a): client_id: must be text, and is missing"),
        (OAUTH.replace("client_id", "clientid"), "clientid: no such key (did you mean client_id?)"),
        (
            OAUTH.replace('url = "https://o.example"', ""),
            "url: must be an http or https URL without ? and #, and is missing",
        ),
        (HTTP + "url = 7", "url: must be an http or https URL without ? and #, and is a number"),
        (HTTP + 'url = "ftp://x"', "url: must be an http or https URL without ? and #, and is another text"),
        (HTTP + 'url = "middleware:80"', "url: must be an http or https URL"),
        (HTTP + 'url_from = "operater"', 'url_from: must be "event" or "operator"'),
        (HTTP + 'url_from = "{settings.oauth_url}"', 'url_from: must be "event" or "operator"'),
        (HTTP + 'url = "{configuration.u}"\nurl_from = "operator"', 'url_from: must be "event", since the url names'),
        (HTTP + 'path = ["x"]', "path: must be text that begins with / and has no ? and no #, and is a list"),
        (HTTP + 'body = "{configuration}"', "body: must be a table, and is a reference, which may not stand here"),
        (HTTP + 'body = { key = "x" }', "body.key: is a field of the contract"),
        (SUBSCRIPTION + 'topics = "a"', "topics: must be a list of text, and is another text"),
        (SUBSCRIPTION + "topics = [1]", "topics: must be a list of text, and is a list"),
        (HTTP + "give_up_after = true", "give_up_after: must be an ISO 8601 duration"),
        (HTTP + "timeout_s = true", "timeout_s: must be a number above 0, at most 60, and is a boolean"),
        (HTTP + "timeout_s = nan", "timeout_s: must be a number"),
        (HTTP + "destroy_after = 7", "destroy_after: must be an ISO 8601 duration"),
        (HTTP + "destroy_after = 2026-11-29", "destroy_after: must be an ISO 8601 duration"),
        (
            HTTP.replace('"http"', '"htp"'),
            "kind: 'htp' is none of archive, http, oauth, postgres, python, rest, script, subscription (did you",
        ),
        (HTTP + 'path = "{tenant.schemaa}"', "path: {tenant.schemaa}: tenant has"),
        (HTTP + 'path = "{tenant.schemaa}"', "did you mean schema?"),
        (HTTP + 'path = "{setings.oauth_url}"', "did you mean settings?"),
        (HTTP + 'path = "{settings.midleware_url}"', "no such setting (did you mean middleware_url?)"),
        (
            HTTP + HTTP.replace('"a"', '"b"') + 'path = "{steps.a.ident}"',
            "step 2 (b): path: {steps.a.ident}: no such output",
        ),
        (
            POSTGRES + HTTP.replace('"a"', '"b"') + 'path = "{steps.a.shema}"',
            "did you mean schema?); a has schema, role",
        ),
        (
            HTTP + HTTP.replace('"a"', '"b"') + 'body = { x = ["{steps.aa.id}"] }',
            "no step has this name (did you mean a?); earlier steps are a",
        ),
        (HTTP + 'path = "{ tenant.id }"', "path: { tenant.id }: not a reference; write {tenant.id}"),
        (HTTP.replace("[[step]]", "[[steps]]"), "steps: no such table (did you mean step?)"),
        ("version = 1\n" + HTTP, "version: no such table"),
    ],
    ids=lambda value: value[-45:] if isinstance(value, str) else None,
)
def test_a_plan_key_without_effect_is_refused(text: str, fault: str) -> None:
    assert fault in "\n".join(faults(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picky(KindTraits):
    def outputs_of(self, row: Mapping[str, Any]) -> Collection[str]:
        return ("id", str(row.get("path", "")).strip("/"))

    def secret_outputs_of(self, row: Mapping[str, Any]) -> frozenset[str]:
        return frozenset({str(row.get("path", "")).strip("/")})

    def step_faults(self, row: Mapping[str, Any]) -> Iterator[str]:
        if "body" not in row:
            yield "body.id: is missing; write body = { id = … }"


def test_a_kind_adds_faults_of_its_own_and_outputs_by_step() -> None:
    http = TRAITS["http"]
    kinds = {**TRAITS, "http": _Picky(**{field.name: getattr(http, field.name) for field in fields(KindTraits)})}
    first = HTTP + 'path = "/grant"\nurl_from = "operator"\n'
    url = '"https://o.example/{steps.a.grant}"'
    second = HTTP.replace('"a"', '"b"') + f'url_from = "operator"\nurl = {url}\nbody = {{ a = "{{steps.a.gran}}" }}\n'
    with pytest.raises(BadPlan) as found:
        check(first + second, kinds=kinds, settings=SETTINGS)
    assert list(found.value.faults) == [
        "step 1 (a): body.id: is missing; write body = { id = … }",
        "step 2 (b): url: {steps.a.grant} is a secret, and URLs reach logs; take it out and use credentials",
        "step 2 (b): body: {steps.a.gran}: no such output (did you mean grant?); a has id, grant",
    ]


_ODD = (
    "7", "nan", "true", '""', '"{"', '"{.}"', '"{steps.}"', '"{tenant}"', "[]", "[[]]", "[{}]", "{}", "{ a = {} }",
    "{ a = [1979-05-27] }", "07:32:00", '[1, "a"]', '"https://[::1"', '"https://[::1]:x/"', '"http://0x7f.1/"',
    '"https://{settings.oauth_url}@x/"', '"{configuration.a.b?}"', "{ path = 7, client_id = [], client_secret = {} }",
    '"' + "{a" * 2_000 + '"',
)  # fmt: skip


@pytest.mark.parametrize("kind", [*TRAITS, "none"])
def test_no_value_of_any_type_stops_the_check(kind: str) -> None:
    later = HTTP.replace('"a"', '"b"') + 'url_from = "operator"\nurl = "{steps.a.url}"\nbody = { x = "{steps.a.id}" }\n'
    keys = [*STEP, *(TRAITS[kind].keys if kind in TRAITS else ())]
    for key, value in product([key.name for key in keys], _ODD):
        row = {"name": '"a"', "kind": f'"{kind}"', "undo": '"reverse"'} | {key: value}
        text = "[[step]]\n" + "".join(f"{name} = {text}\n" for name, text in row.items())
        assert all("\n" not in fault for fault in faults(text + later))


def test_a_fault_of_a_key_with_a_line_break_is_one_line() -> None:
    (fault,) = faults(HTTP + '"a\\nb" = 1\n')
    assert fault.startswith(r"step 1 (a): a\nb: no such key")


def test_every_fault_is_named_once_in_the_order_of_steps() -> None:
    text = HTTP + "retrys = 3\nurl = 7\n" + OAUTH.replace('"a"', '"b"') + 'method = "GET"\nretries = 0\n'
    assert [fault.partition(":")[0] for fault in faults(text)] == ["step 1 (a)"] * 2 + ["step 2 (b)"] * 2


def test_no_fault_shows_a_value() -> None:
    text = HTTP + 'credentials = { client_id = 7, client_secret = ["canary"] }\nurl = "canary"\ntoken = "canary"\n'
    assert "canary" not in "\n".join(faults(text))


@pytest.mark.parametrize(
    "text",
    [
        HTTP,
        HTTP + 'url = "{configuration.u?}"\npath = "/p/{tenant.id}"\nbody = { a = 1, b = "{configuration}" }\n',
        HTTP + 'url = "https://{tenant.id}.example.com"\nurl_from = "operator"\n',
        HTTP + 'body = { template = "{}", json = "{\\"a\\": 1}" }\n',
        SUBSCRIPTION + 'topics = "{configuration.topics?}"\n',
        OAUTH + 'give_up_after = "PT1M"\ntimeout_s = 0.5\ndestroy_after = "P7D"\n',
        POSTGRES + HTTP.replace('"a"', '"b"') + 'body = { schema = "{steps.a.schema}" }\n',
    ],
)
def test_a_plan_that_can_be_carried_out_is_accepted(text: str) -> None:
    assert check(text, kinds=TRAITS, settings=SETTINGS) == parse(text, kinds=TRAITS, settings=SETTINGS)


def test_the_shipped_plan_has_no_key_without_effect() -> None:
    text = (files("services.provisioner") / "plan.toml").read_text(encoding="utf-8")
    assert len(check(text, kinds=TRAITS, settings=SETTINGS).steps) == 6


def test_a_stored_plan_is_accepted_with_unknown_keys() -> None:
    (step,) = parse(HTTP + "retrys = 3\n", kinds=TRAITS, settings={}).steps
    assert step.settings == {"retrys": 3}


def test_a_plan_file_is_named_with_its_faults(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(HTTP + "retrys = 3\nmethod = 1\n")
    with pytest.raises(Unusable) as found:
        plan_text(Settings.model_validate({"plan_file": plan}), TRAITS)
    told = str(found.value).splitlines()
    assert [line.startswith(f"PLAN_FILE: {plan}: step 1 (a): ") for line in told] == [True, True]


def test_every_kind_has_a_key_table_and_its_secret_outputs_are_outputs() -> None:
    assert list(TRAITS) == [kind.traits.name for kind in KINDS]
    assert all(kind.secret_outputs <= set(kind.outputs) for kind in TRAITS.values())


def test_no_key_of_a_kind_is_a_key_of_every_step() -> None:
    every = {key.name for key in STEP}
    assert not [name for name, kind in TRAITS.items() if every & {key.name for key in kind.keys}]


def test_the_plan_page_matches_the_key_tables() -> None:
    text = plan_page.page()
    assert all(f"`{key.name}`" in text for key in STEP)
    assert all(f"## Kind `{name}`" in text for name in TRAITS)
    assert plan_page.main(["--check"]) == 0, "run `make plan-page`"
