"""What an environment becomes, and what is never shown of it."""

import pytest

from services.adapters.process.settings import read


def test_no_secret_stands_in_the_repr() -> None:
    given = {
        "KAFKA_CONFIG": '{"sasl.password": "canary-1"}',
        "OAUTH_CLIENT_SECRET": "canary-2",
        "DATABASE_URL": "postgresql://u:canary-3@h/d",
        "TENANT_DATABASE_URL": "postgresql://u:canary-4@h/d",
        "DATABASE_PASSWORD": "canary-5",
        "TENANT_DATABASE_PASSWORD": "canary-6",
    }
    settings = read(given)
    assert settings.kafka_config == {"sasl.password": "canary-1"}
    assert "canary" not in repr(settings) + str(settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "example.com"])
def test_replaced_urls_and_webhooks_from_other_machines_do_not_go_together(host: str) -> None:
    given = {"EGRESS_MAP": '{"*.salesforce.com": "http://127.0.0.1:9"}'}
    assert "EGRESS_MAP" in read({**given, "HOST": host}).egress_fault
    for own in ("127.0.0.1", "::1", "localhost"):
        assert read({**given, "HOST": own}).egress_fault == ""
    assert read({"HOST": host}).egress_fault == ""
