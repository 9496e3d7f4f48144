"""Settings from an environment, section by section, and the parts that are never shown."""

import pytest

from services.adapters.process.environment import read
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import (
    SECTIONS,
    IngressSettings,
    LedgerSettings,
    ProvisionerSettings,
    ReconcilerSettings,
    Settings,
    readers,
)
from services.cli.local.wiring import SERVICES


def test_the_repr_of_settings_contains_no_secret() -> None:
    given = {
        "KAFKA_CONFIG": '{"sasl.password": "canary-1"}',
        "OAUTH_CLIENT_SECRET": "canary-2",
        "DATABASE_URL": "postgresql://u:canary-3@h/d",
        "TENANT_DATABASE_URL": "postgresql://u:canary-4@h/d",
        "DATABASE_PASSWORD": "canary-5",
        "TENANT_DATABASE_PASSWORD": "canary-6",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:canary-7@collector:4318",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces?key=canary-8",
    }
    settings = read(given, Settings)
    assert settings.kafka_config == {"sasl.password": "canary-1"}
    assert "canary" not in repr(settings) + str(settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "example.com"])
def test_an_egress_map_and_a_public_ingress_are_refused_together(host: str) -> None:
    given = {"EGRESS_MAP": '{"*.salesforce.com": "http://127.0.0.1:9"}'}
    assert "EGRESS_MAP" in read({**given, "HOST": host}, Settings).egress_fault
    for own in ("127.0.0.1", "::1", "localhost"):
        assert read({**given, "HOST": own}, Settings).egress_fault == ""
    assert read({"HOST": host}, Settings).egress_fault == ""


def test_a_section_holds_the_fields_of_its_service_alone() -> None:
    given = {"DATABASE_URL": "postgresql://u:canary@h/d", "OAUTH_CLIENT_SECRET": "canary", "ACK_TIMEOUT_S": "0.5"}
    found = read(given, IngressSettings)
    assert found.ack_timeout_s == 0.5
    for section in (IngressSettings, LedgerSettings, ReconcilerSettings):
        held = read(given, section)
        assert not hasattr(held, "database_url")
        assert "canary" not in str(vars(held))
    assert "canary" in read(given, ProvisionerSettings).oauth_client_secret


@pytest.mark.parametrize(
    ("name", "text", "stopped"),
    [
        ("RETRY_FIRST_S", "soon", {"provisioner"}),
        ("TENANT_DATABASE_URL", "postgresql://u:a@b@h/d", {"provisioner"}),
        ("DATABASE_URL", "postgresql://u:a@b@h/d", {"provisioner", "simulator"}),
        ("ACK_TIMEOUT_S", "9", {"ingress"}),
        ("EGRESS_MAP", "{", {"ingress", "provisioner"}),
        ("KAFKA_CONFIG", '{"acks": "1"}', {"ingress", "hints", "ledger", "provisioner", "reconciler"}),
        ("HINTS_SQS_QUEUE_URL", "hints", {"hints"}),
        ("TOPIC_PARTITIONS", "0", {"ingress", "hints"}),
        ("LOG_LEVEL", "loud", set(SECTIONS)),
        ("TOPIC_REPLICATION", "0", set()),
    ],
)
def test_a_fault_stops_the_services_that_read_the_variable_and_no_other(
    name: str, text: str, stopped: set[str]
) -> None:
    assert set(readers(name.lower())) == stopped
    for service, section in SECTIONS.items():
        if service in stopped:
            with pytest.raises(Unusable, match=f"^{name}: "):
                read({name: text}, section)
        else:
            read({name: text}, section)
    with pytest.raises(Unusable, match=f"^{name}: "):
        read({name: text}, Settings)


def test_the_settings_of_a_command_are_those_of_all_services() -> None:
    assert all(section.model_fields.keys() <= Settings.model_fields.keys() for section in SECTIONS.values())
    assert SECTIONS.keys() == {*SERVICES, "hints"}, "the reader of hints is no part of `lifecycle up`"
