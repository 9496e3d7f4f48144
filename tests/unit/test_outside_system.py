"""A system is a step of the plan, and where the event names the URL, the step and the host."""

import pytest

from services.core.saga.calls import Call, Verb
from services.core.saga.outside_system import system_of
from services.provisioner.kinds import TRAITS


@pytest.mark.parametrize(
    ("kind", "verb", "settings", "locations", "system"),
    [
        ("http", Verb.CREATE, {"url": "https://acme.salesforce.com/x"}, (), "step acme.salesforce.com"),
        ("http", Verb.READ, {"url": "https://ACME.salesforce.com"}, (), "step acme.salesforce.com"),
        ("http", Verb.CREATE, {"url": "http://middleware:80/x", "url_from": "operator"}, (), "step"),
        ("http", Verb.UPDATE, {}, ("https://former.salesforce.com",), "step former.salesforce.com"),
        ("http", Verb.UPDATE, {}, (), None),
        ("http", Verb.CREATE, {"url": 7}, (), None),
        ("http", Verb.CREATE, {"url": "https://[half"}, (), None),
        ("postgres", Verb.CREATE, {}, (), "step"),
        ("archive", Verb.CREATE, {}, (), None),
        ("archive", Verb.DELETE, {}, (), "step"),
        ("oauth", Verb.UPDATE, {"url": "http://oauth", "url_from": "operator"}, (), None),
        ("oauth", Verb.CREATE, {"url": "http://oauth", "url_from": "operator"}, (), "step"),
    ],
)
def test_a_system_is_a_step_and_where_the_event_names_it_its_host(
    kind: str, verb: Verb, settings: dict[str, object], locations: tuple[str, ...], system: str | None
) -> None:
    asked = Call(
        "step", kind, verb, "o:i", "t", 1, 1, "i", settings, {}, enabled=True, timeout_s=1, locations=locations
    )
    assert system_of(asked, TRAITS[kind]) == system
