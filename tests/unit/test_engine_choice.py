"""The choice of an engine follows from the environment alone, and its text contains no secret."""

import pytest

from services.engines import EngineError, choose
from services.engines.choice import EngineSource
from services.engines.ports import answers, free_ports, is_free

URL = "postgresql://admin:s3cret@db.example/lifecycle"


@pytest.mark.parametrize(
    ("environ", "kafka", "postgres"),
    [
        ({}, EngineSource.PACKAGES, EngineSource.PACKAGES),
        ({"KAFKA_BOOTSTRAP_SERVERS": "k:9092"}, EngineSource.NAMED, EngineSource.PACKAGES),
        ({"DATABASE_URL": URL}, EngineSource.PACKAGES, EngineSource.NAMED),
        ({"LIFECYCLE_ENGINES": "docker"}, EngineSource.DOCKER, EngineSource.DOCKER),
        ({"LIFECYCLE_ENGINES": "docker", "DATABASE_URL": URL}, EngineSource.DOCKER, EngineSource.NAMED),
        ({"LIFECYCLE_ENGINES": "", "KAFKA_BOOTSTRAP_SERVERS": ""}, EngineSource.PACKAGES, EngineSource.PACKAGES),
    ],
    ids=["nothing", "kafka-named", "database-named", "docker", "docker-and-named", "empty"],
)
def test_a_named_server_comes_first_then_docker_then_packages(
    environ: dict[str, str], kafka: EngineSource, postgres: EngineSource
) -> None:
    choice = choose(environ)
    assert (choice.kafka, choice.postgres) == (kafka, postgres)


def test_an_unknown_engine_is_refused_by_name() -> None:
    with pytest.raises(EngineError, match="LIFECYCLE_ENGINES is 'podman'"):
        choose({"LIFECYCLE_ENGINES": "podman"})


def test_a_described_choice_contains_no_password() -> None:
    assert "s3cret" not in str(choose({"DATABASE_URL": URL}))


def test_free_ports_differ_and_lie_below_the_ephemeral_range() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < 32_768
    assert all(is_free(port) and not answers(port) for port in ports)
