"""Asks the services of a local installation whether they are ready, and its engines whether they answer."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final

import httpx2

from services.cli.local.wiring import LocalPorts
from services.engines.readiness import kafka_answers, postgres_answers

_ASK_S: Final = 2.0


def unready(ports: LocalPorts, services: Iterable[str]) -> dict[str, str]:
    """Returns the fault of each service that is not ready."""
    with httpx2.Client(timeout=_ASK_S, trust_env=False) as client:
        found = {service: _ask(client, f"{ports.base(service)}/readyz") for service in services}
    return {service: fault for service, fault in found.items() if fault}


def silent(environ: Mapping[str, str], engines: Collection[str]) -> dict[str, str]:
    """Returns the engines that do not answer, by name, with what was tried.

    Args:
        environ: What `up` left for commands.
        engines: Those that `up` started: `kafka`, `postgres`.
    """
    found = {}
    kafka, database = environ.get("KAFKA_BOOTSTRAP_SERVERS"), environ.get("DATABASE_URL")
    if "kafka" in engines and kafka and not kafka_answers(kafka, _ASK_S):
        found["kafka"] = f"no broker answers at {kafka}"
    if "postgres" in engines and database and not postgres_answers(database):
        found["postgres"] = "no session opens"
    return found


def _ask(client: httpx2.Client, url: str) -> str:
    """Returns what a `/readyz` reports as missing; empty when nothing is."""
    try:
        answer = client.get(url)
    except httpx2.TransportError as error:
        return f"no answer ({type(error).__name__})"
    if answer.status_code == httpx2.codes.OK:
        return ""
    with suppress(ValueError, KeyError, AttributeError):
        return ", ".join(f"{name}: {fault}" for name, fault in answer.json()["checks"].items() if fault != "ok")
    return f"status {answer.status_code}"
