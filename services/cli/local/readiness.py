"""Probes the services of a local installation by `/readyz`, and the engines by a client of each protocol."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final

import httpx2

from services.cli.local.wiring import LocalPorts
from services.engines.readiness import kafka_answers, postgres_answers

_ASK_S: Final = 2.0
"""Seconds for the answer of one service or of Kafka."""


def unready_services(ports: LocalPorts, services: Iterable[str]) -> dict[str, str]:
    """Returns the fault of each unready service, by name."""
    # `trust_env=False`: the operator's HTTP proxy cannot reach this machine's loopback address.
    with httpx2.Client(timeout=_ASK_S, trust_env=False) as client:
        found = {service: _readiness_fault(client, f"{ports.base(service)}/readyz") for service in services}
    return {service: fault for service, fault in found.items() if fault}


def unresponsive_engines(environ: Mapping[str, str], engines: Collection[str]) -> dict[str, str]:
    """Returns the fault of each unresponsive engine, by name.

    Args:
        environ: The environment file of `up`, with the addresses of the engines.
        engines: The engines started by `up`: `kafka`, `postgres`.
    """
    found = {}
    kafka, database = environ.get("KAFKA_BOOTSTRAP_SERVERS"), environ.get("DATABASE_URL")
    if "kafka" in engines and kafka and not kafka_answers(kafka, _ASK_S):
        found["kafka"] = f"no broker answers at {kafka}"
    if "postgres" in engines and database and not postgres_answers(database):
        found["postgres"] = "no session opens"
    return found


def _readiness_fault(client: httpx2.Client, url: str) -> str:
    """Returns the failing checks of a `/readyz`; empty if the service is ready."""
    try:
        answer = client.get(url)
    except httpx2.TransportError as error:
        return f"no answer ({type(error).__name__})"
    if answer.status_code == httpx2.codes.OK:
        return ""
    with suppress(ValueError, KeyError, AttributeError):
        return ", ".join(f"{name}: {fault}" for name, fault in answer.json()["checks"].items() if fault != "ok")
    return f"status {answer.status_code}"
