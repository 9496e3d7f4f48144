"""Rights and backlogs on a cluster that has just started, before its group coordinators answer."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from schemas.rights import Resource, Service, rights
from services.adapters.kafka import topics
from services.adapters.kafka.rights import Cluster, RightsWatch
from services.adapters.process import logs
from services.adapters.process.environment import read
from services.adapters.process.settings import LedgerSettings
from tests.support.eventually import eventually_async
from tests.support.guarded_broker import guarded_broker
from tests.support.own_broker import own_broker

_ASKERS: Final = 6
_ASKS: Final = """
import sys, time
from services.adapters.kafka.backlog import backlog
until_s, n = time.monotonic() + 4, 0
while time.monotonic() < until_s:
    n += 1
    config = {"bootstrap.servers": sys.argv[1]}
    backlog(config, f"{sys.argv[2]}-{n}", {"lifecycle.received": [0]}, since_us=0, timeout_s=20)
"""


@pytest.mark.engines
@pytest.mark.timeout(120)
def test_a_cluster_whose_coordinators_never_answer_is_no_evidence_against_a_right(tmp_path: Path) -> None:
    # The topic of the groups' offsets cannot be made: it wants three brokers.
    with own_broker(tmp_path, **{"offsets.topic.replication.factor": "3"}) as broker:
        config = {"bootstrap.servers": broker.bootstrap}
        topics.apply(config, prefix="", partitions=1, replication=1)
        with Cluster(config) as cluster:
            assert cluster.missing(Service.LEDGER, "", 2.0) == ()


@pytest.mark.engines
@pytest.mark.timeout(120)
@pytest.mark.long
async def test_a_group_right_is_checked_once_a_silent_broker_answers(tmp_path: Path) -> None:
    given = [right for right in rights(Service.LEDGER, "") if right.resource is Resource.TOPIC]
    with guarded_broker(tmp_path, ["ledger"]) as guarded:
        topics.apply({"bootstrap.servers": guarded.plain}, prefix="", partitions=1, replication=1)
        guarded.allow("ledger", given)
        login = json.dumps(guarded.config("ledger"))
        environ = {"KAFKA_BOOTSTRAP_SERVERS": guarded.bootstrap, "KAFKA_CONFIG": login}
        watch = RightsWatch(read(environ, LedgerSettings), Service.LEDGER, logs.configure("test", "critical"))
        assert guarded.broker.pid is not None
        os.kill(guarded.broker.pid, signal.SIGSTOP)
        await watch.look_once()
        assert watch.fault == "", "that Kafka is away is reported by others"
        os.kill(guarded.broker.pid, signal.SIGCONT)
        await watch.look_once()
        assert "on group" in watch.fault


@pytest.mark.engines
@pytest.mark.timeout(120)
@pytest.mark.long
async def test_a_right_on_a_group_is_asked_for_again_after_a_coordinator_that_was_silent(tmp_path: Path) -> None:
    wanted = rights(Service.LEDGER, "")
    # The topic of the groups' offsets cannot be made, so no coordinator answers.
    with guarded_broker(tmp_path, ["ledger"], **{"offsets.topic.replication.factor": "3"}) as guarded:
        topics.apply({"bootstrap.servers": guarded.plain}, prefix="", partitions=1, replication=1)
        guarded.allow("ledger", wanted)
        login = json.dumps(guarded.config("ledger"))
        environ = {"KAFKA_BOOTSTRAP_SERVERS": guarded.bootstrap, "KAFKA_CONFIG": login}
        watch = RightsWatch(read(environ, LedgerSettings), Service.LEDGER, logs.configure("test", "critical"))

        async def fault() -> str:
            await watch.look_once()
            return watch.fault

        async def has_no_fault() -> bool:
            return await fault() == ""

        async def lacks_a_group() -> bool:
            return "on group" in await fault()

        await eventually_async(has_no_fault)  # rights take effect after a moment
        # Whom a broker refuses needs no coordinator for the answer.
        for right in wanted:
            if right.resource is Resource.GROUP:
                guarded.forbid("ledger", right)
        await eventually_async(lacks_a_group)


@pytest.mark.engines
@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_backlog_is_found_while_the_coordinators_of_a_fresh_cluster_load_their_groups(tmp_path: Path) -> None:
    with own_broker(tmp_path) as broker:
        topics.apply({"bootstrap.servers": broker.bootstrap}, prefix="", partitions=1, replication=1)
        askers = [
            subprocess.Popen([sys.executable, "-c", _ASKS, broker.bootstrap, f"g{number}"], stderr=subprocess.PIPE)
            for number in range(_ASKERS)
        ]
        ends = [(asker.communicate()[1].decode(), asker.returncode) for asker in askers]
    assert ends == [("", 0)] * _ASKERS
