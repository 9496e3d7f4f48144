"""Bad descriptions of a foreign API: each has one clear sentence with step, key and remedy."""

from collections.abc import Iterator
from typing import Any

import pytest

from services.core.rest.traits import KEYS, RestTraits
from services.core.saga.kind_traits import SystemBy
from services.core.saga.plan import BadPlan, Plan
from services.core.saga.plan_check import check
from services.provisioner.kinds import TRAITS

REST = RestTraits(
    name="rest",
    meaning="",
    keys=KEYS,
    outputs=(),
    secret_outputs=frozenset(),
    credentials=frozenset({"auth"}),
    system=SystemBy.URL,
    silent_verbs=frozenset(),
    reissued=False,
    left_behind=False,
)

GOOD = """
[[step]]
name = "account"
kind = "rest"
undo = "reverse"
url = "https://api.example.com/v1"
url_from = "operator"
outputs = { id = "body.id", location = "headers.location" }
secret_outputs = []
headers = { Accept = "application/json" }

[step.auth]
type = "client_credentials"
token_url = "/oauth/token"
client_id = "{settings.client}"
client_secret = "{secrets.crm_secret}"

[step.create]
path = "/tenants"
body = { name = "{tenant.id}", ref = "{tenant.name}" }

[step.read]
path = "/tenants/{resource.id}"

[step.find]
path = "/tenants"
query = { ref = "{tenant.name}" }
items = "body.items"
match = { ref = "{tenant.name}" }
next = "body.next"

[step.update]
path = "/tenants/{resource.id}"
body = { enabled = "{tenant.enabled}" }

[step.delete]
path = "/tenants/{resource.id}"
absent = [409]

[[step]]
name = "after"
kind = "rest"
undo = "nothing"
idempotent = "name"
url = "https://api.example.com/v1"
url_from = "operator"
create = { method = "PUT", path = "/seen/{tenant.name}", body = { id = "{steps.account.id}" } }
"""

FIND = GOOD[GOOD.index("[step.find]") : GOOD.index("[step.update]")]
CREATE = GOOD[GOOD.index("[step.create]") : GOOD.index("[step.read]")]
DELETE = GOOD[GOOD.index("[step.delete]") : GOOD.index('[[step]]\nname = "after"')]
TOP = 'outputs = { id = "body.id"'


def _checked(text: str) -> Plan:
    return check(text, kinds={"rest": REST}, settings={"client": "us"})


def test_a_whole_description_has_no_faults() -> None:
    assert [step.name for step in _checked(GOOD).steps] == ["account", "after"]


def _bad() -> Iterator[Any]:
    for told, wanted, fault in (
        ('kind = "rest"', 'kind = "rst"', "kind: 'rst' is none of rest (did you mean rest?)"),
        ('url = "https://api.example.com/v1"\nurl_from = "operator"\noutputs', "outputs", "url: must be an http or"),
        ('"https://api.example.com/v1"', '"api.example.com"', "url: must be an http or https URL, and is another text"),
        ("headers = {", "header = {", "header: no such key (did you mean headers?); kind rest has name"),
        ('headers = { Accept = "application/json" }', "headers = 3", "headers: must be a table, and is a number"),
        (TOP, "poll_s = 0\n" + TOP, "poll_s: must be a number above 0, at most 600, and is a number"),
        (TOP, 'ready_within = "10 min"\n' + TOP, "ready_within: must be an ISO 8601 duration"),
        (TOP, 'ready_within = "P2D"\n' + TOP, "ready_within: must be an ISO 8601 duration"),
        (TOP, 'idempotent = "maybe"\n' + TOP, 'idempotent: must be "no" or "key" or "name", and is another text'),
        (TOP, 'redirects = "all"\n' + TOP, 'redirects: must be "refuse" or "same_origin"'),
        (TOP, "max_per_second = -1\n" + TOP, "max_per_second: must be a number above 0"),
        (TOP, 'outputs = { id = "body.[" ', "outputs.id: no JMESPath expression"),
        (TOP, "outputs = { id = 7 ", "outputs.id: must be a JMESPath expression in quotes"),
        (TOP, 'outputs = { id = "lenght(body.id)" ', "outputs.id: no JMESPath function lenght (did you mean length?)"),
        (TOP, 'outputs = { id = "body.{tenant.id}" ', "outputs.id: a JMESPath expression takes no references"),
        (TOP, 'ready = "body.state = 1"\n' + TOP, "ready: no JMESPath expression"),
        ('"body.items"', '"body.items["', "find.items: no JMESPath expression"),
        ('next = "body.next"', 'next = "body..next"', "find.next: no JMESPath expression"),
        ("match = { ref =", 'match = { "ref[" =', "find.match.ref[: no JMESPath expression"),
        (FIND, "", "find: is missing, and a repeated create may make a second resource; describe a search"),
        ('path = "/tenants"\nquery', 'pth = "/tenants"\nquery', "find.pth: no such key (did you mean path?)"),
        (TOP, 'unknown = "hold"\n' + TOP, 'unknown: "hold" and find exclude each other'),
        (TOP, 'unknown = "wait"\n' + TOP, 'unknown: must be "find" or "hold"'),
        (TOP, 'idempotent = "key"\n' + TOP, "idempotency_header: is missing"),
        (CREATE, "", "create: is missing; describe the request that makes the resource"),
        (DELETE, "", 'delete: is missing; describe the request that removes the resource, or say undo = "nothing"'),
        ('path = "/seen/{tenant.name}"', 'path = "/seen"', 'create: idempotent = "name" needs a name of ours'),
        ('match = { ref = "{tenant.name}" }', 'match = { ref = "{tenant.id}" }', "find.match: must compare a field"),
        ('match = { ref = "{tenant.name}" }\n', "", "find.match: must be a table, and is missing"),
        ('next = "body.next"', 'next = "body.next"\npage = "page"', "find.page: next and page exclude each other"),
        ('next = "body.next"', 'cursor = "after"', "find.cursor: cursor (a parameter) and cursor_from"),
        ('next = "body.next"', 'pages_from = "2"', 'find.pages_from: must be "0" or "1"'),
        ("{resource.id}", "{resource.uid}", "{resource.uid}: no such output of this step; add uid to"),
        ("secret_outputs = []", 'secret_outputs = ["token"]', "secret_outputs: token is no output"),
        ("query = { ref", 'query = { key = "{secrets.crm_key}", ref', "find.query: a secret does not belong"),
        ('/v1"\nurl_from = "operator"\noutputs', '/{secrets.x}"\nurl_from = "operator"\noutputs', "url: a secret"),
        ('path = "/tenants"\nbody', 'path = "/tenants/{resource.id}"\nbody', "create.path: names the resource, which"),
        ('path = "/tenants"\nquery', 'path = "tenants"\nquery', "find.path: must begin with /"),
        ('path = "/tenants"\nbody', 'method = "put"\npath = "/tenants"\nbody', "create.method: must be GET, POST"),
        ('path = "/tenants"\nbody', 'path = "/tenants"\nform = { a = "b" }\nbody', "create.form: body and form"),
        ('path = "/tenants"\nbody', 'path = "/tenants"\nmethod = "GET"\nbody', "create.body: a GET has no body"),
        ("absent = [409]", "absent = [409]\nretry = [409]", "delete.retry: status 409 is in absent too"),
        ("absent = [409]", "absent = [4090]", "delete.absent: must be a list of HTTP statuses from 200 to 599"),
        ("absent = [409]", 'absent = ["409"]', "delete.absent: must be a list of HTTP statuses"),
        ("absent = [409]", "gone = [409]", "delete.gone: no such key (did you mean done?); delete has method, path"),
        ('[step.read]\npath = "/tenants/{resource.id}"', "[step.read]", "read: names no resource"),
        (TOP, 'failed = "body.bad"\n' + TOP, "failed: needs ready beside it"),
        ("[step.find]", '[step.job]\npath = "/jobs/{resource.id}"\n[step.find]', "job: needs ready"),
        ("[step.find]", '[step.job]\npath = "/jobs/1"\n[step.find]', "job.path: names no job"),
        ('type = "client_credentials"', 'type = "oauth"', 'auth.type: must be "bearer" or "basic" or "header"'),
        ('client_id = "{settings.client}"\n', "", "auth.client_id: is missing; auth of type"),
        ('type = "client_credentials"', 'type = "bearer"\ntoken = "{secrets.a}"', "auth.client_id: not used by"),
        ('url_from = "operator"\noutputs', "outputs", "url_from: {secrets.…} are the operator's"),
        ('"https://api.example.com/v1"', '"http://api.example.com/v1"', "url: sends in clear text to a host outside"),
        ("https://api.example.com/v1", "https://api.example.com/v1?a=b", "url: is a base URL without a query"),
        ("{settings.client}", "{settings.cliet}", "no such setting (did you mean client?)"),
        ("{steps.account.id}", "{steps.account.ident}", "no such output; account has id, location"),
        ("{steps.account.id}", "{steps.acount.id}", "no step has this name (did you mean account?)"),
        ("{tenant.id}", "{tenat.id}", "references are to tenant, configuration, steps, settings"),
        ("{tenant.id}", "{ tenant.id }", "{ tenant.id }: not a reference; write {tenant.id}"),
    ):  # fmt: skip
        yield pytest.param(told, wanted, fault, id=fault[:60])


@pytest.mark.parametrize(("told", "wanted", "fault"), list(_bad()))
def test_a_bad_description_is_refused_with_step_key_and_remedy(told: str, wanted: str, fault: str) -> None:
    assert told in GOOD
    with pytest.raises(BadPlan) as found:
        _checked(GOOD.replace(told, wanted))
    assert any(fault in line and line.startswith("step ") for line in found.value.faults), found.value.faults


def test_an_other_kind_knows_no_secrets() -> None:
    text = '[[step]]\nname = "a"\nkind = "http"\nundo = "reverse"\nurl = "https://x"\npath = "{secrets.a}"\n'
    with pytest.raises(BadPlan, match=r"\{secrets.a\}: a step of kind http knows no such reference"):
        check(text, kinds=TRAITS, settings={})
