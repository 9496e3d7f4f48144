"""While Kafka is unreachable the log has JSON lines only, and each message of a library seldom."""

import asyncio
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from schemas.times import instant
from services.adapters.kafka import reader, topic_description, topics
from services.adapters.kafka.audit_trail import AuditTrail
from services.adapters.kafka.group_consumer import Consumer
from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.kafka.tenant_view import TenantView
from services.adapters.process.environment import read
from services.adapters.process.log_throttle import PAUSE_S
from services.adapters.process.settings import KafkaSettings
from services.cli import keyring_contents
from services.engines import child_process
from services.engines.ports import HOST, free_ports
from tests.support.eventually import eventually

NOWHERE = read({"KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:9"}, KafkaSettings).kafka
PLAN = dict.fromkeys(("MIDDLEWARE_URL", "SUBSCRIPTIONS_URL", "OAUTH_URL"), "http://127.0.0.1:9")


async def _group() -> None:
    consumer = Consumer(NOWHERE, topic="t", group="g", member=None, session_timeout_s=6)
    await consumer.batch(1, 0.5)
    await consumer.close()


async def _producer() -> None:
    await Producer(NOWHERE, linger_ms=0, timeout_ms=1_000).close(0.5)


async def _view() -> None:
    with closing(TenantView(NOWHERE, "")) as view:
        await asyncio.to_thread(view.catch_up, 0.5)


CLIENTS: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
    "group": _group,
    "producer": _producer,
    "view": _view,
    "follower": lambda: asyncio.to_thread(reader.follow, NOWHERE, ["t"], timeout_s=0.5),
    "last": lambda: asyncio.to_thread(reader.last_per_partition, NOWHERE, "t", timeout_s=0.5),
    "audit": lambda: AuditTrail(NOWHERE, "t", timeout_s=0.5).records_of("k", None),
    "description": lambda: asyncio.to_thread(topic_description.describe, NOWHERE, ["t"], 0.5),
    "plan": lambda: asyncio.to_thread(topics.plan, NOWHERE, prefix="", partitions=1, replication=1, timeout_s=0.5),
}


@pytest.mark.parametrize("client", CLIENTS)
async def test_kafka_clients_write_only_to_the_log(client: str, capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(KafkaError):
        await CLIENTS[client]()
    # Where another test of this process configured the log, its lines are JSON.
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if "rdkafka" in line and not line.startswith("{")] == []


@pytest.mark.engines
@pytest.mark.parametrize(
    ("service", "asked_again"),
    [("provisioner", "registry cannot be used"), pytest.param("reconciler", "waiting", marks=pytest.mark.long)],
)
def test_a_service_without_kafka_writes_few_json_lines(
    service: str, asked_again: str, database_url: str, tmp_path: Path
) -> None:
    keyring_contents.init(tmp_path / "keyring.json")
    environ = PLAN | {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{free_ports(1)[0]}",
        "DATABASE_URL": database_url,
        "KEYRING_FILE": str(tmp_path / "keyring.json"),
        "STATE_DIR": str(tmp_path / "state"),
        "OAUTH_CLIENT_SECRET": "canary",
    }
    log = tmp_path / "log"
    argv = (sys.executable, "-m", "services.cli.main", service)
    running = child_process.start(argv, env=environ, log_path=log, cwd=Path.cwd())
    try:
        eventually(lambda: asked_again in log.read_text(), 60)
    finally:
        running.kill()
    lines = log.read_text().splitlines()
    told = [json.loads(line) for line in lines]
    refused = defaultdict(list)
    for line in told:
        if "Connect to" in line["event"]:  # by message, whichever client and port it names
            refused[re.sub(r"[0-9]+", "", line["event"])].append(instant(line["at"]) / 1_000_000)
    assert refused
    pauses_s = [later - earlier for at_s in refused.values() for earlier, later in pairwise(at_s)]
    assert all(pause_s > PAUSE_S - 1 for pause_s in pauses_s), lines
