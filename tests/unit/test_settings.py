"""What an environment becomes, and what is never shown of it."""

from services.adapters.settings import read


def test_no_secret_stands_in_the_repr() -> None:
    given = {
        "KAFKA_CONFIG": '{"sasl.password": "canary-1"}',
        "OAUTH_CLIENT_SECRET": "canary-2",
        "DATABASE_URL": "postgresql://u:canary-3@h/d",
        "TENANT_DATABASE_URL": "postgresql://u:canary-4@h/d",
    }
    settings = read(given)
    assert settings.kafka_config == {"sasl.password": "canary-1"}
    assert "canary" not in repr(settings) + str(settings)
