"""The engines restart on their folder, die with their parent, and name the remedy when none can run."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from services import engines
from services.engines import Durability, Engine, EngineError, jars, java
from services.engines.kafka import BrokerPorts, KafkaBroker
from services.engines.ports import HOST, free_ports
from services.engines.postgres import PostgresServer
from tests.support.eventually import eventually

pytestmark = pytest.mark.engines

_PARENT = """
import os, sys, time
from functools import partial
from pathlib import Path
from services import engines
with engines.running(Path(sys.argv[1]), os.environ) as had:
    print(had.kafka.pid, had.postgres.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    files = jars.fetch(jars.pinned(), jars.cache_folder(os.environ))
    broker = KafkaBroker(tmp_path / "kafka", java.find(os.environ), files, os.environ)
    yield broker
    broker.stop()


@pytest.fixture(params=Durability)
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path / "postgres", os.environ, request.param)
    yield server
    server.stop()
    server.remove()


def make_topic(bootstrap: str, topic: str, replicas: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, replicas)])[topic].result(30)


def write(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    producer.produce(topic, value, b"key")
    assert producer.flush(30) == 0


def read_first(bootstrap: str, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    record = consumer.poll(30)
    consumer.close()
    return record.value() if record else None


def is_gone(pid: int) -> bool:
    """True if a process ended; an unreaped one (state Z) did."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_a_record_written_to_kafka_is_read_back(kafka_bootstrap: str, topic_prefix: str) -> None:
    make_topic(kafka_bootstrap, f"{topic_prefix}echo")
    write(kafka_bootstrap, f"{topic_prefix}echo", b"value")
    assert read_first(kafka_bootstrap, f"{topic_prefix}echo") == b"value"


def test_each_test_has_a_database_of_its_own(database_url: str) -> None:
    with psycopg.connect(database_url) as session:
        session.execute("CREATE TABLE alone (id int)")
        major = "SELECT current_setting('server_version_num')::int / 10000"
        assert session.execute(major).fetchone() == (18,)


@pytest.mark.long
def test_kafka_restarts_on_its_folder_after_kill_9(broker: KafkaBroker) -> None:
    broker.start()
    before = broker.bootstrap
    make_topic(before, "kept")
    write(before, "kept", b"acknowledged")
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    assert eventually(lambda: broker.poll() is not None)
    broker.start()
    assert broker.bootstrap == before
    assert read_first(before, "kept") == b"acknowledged"


def test_postgres_restarts_on_its_folder_after_kill_9(server: PostgresServer) -> None:
    server.start()
    before = server.url
    with psycopg.connect(before) as session:
        session.execute("CREATE TABLE kept AS SELECT 'committed' AS word")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert eventually(lambda: server.poll() is not None)
    server.start()
    assert server.url == before
    with psycopg.connect(before) as session:
        assert session.execute("SELECT word FROM kept").fetchone() == ("committed",)


def test_kafka_and_postgres_die_with_their_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, tmp_path], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.stdout.close()
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    for pid in pids:
        eventually(partial(is_gone, pid))


def test_postgres_runs_unprivileged_below_an_unreadable_folder(server: PostgresServer, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    before = [stat.S_IMODE(folder.stat().st_mode) for folder in tmp_path.parents]
    server.start()
    assert Path(f"/proc/{server.pid}").stat().st_uid != 0
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in tmp_path.parents] == before
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_postgres_requires_its_password_and_keeps_it_in_private_files(server: PostgresServer) -> None:
    server.start()
    address, password = server.url.rpartition("@")[2], server.url.split(":")[2].partition("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://lifecycle:wrong@{address}")
    for file in (path for path in server.folder.rglob("*") if path.is_file()):
        if password in file.read_text(errors="replace"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_vanished_postgres_data_are_made_anew_only_if_not_durable(server: PostgresServer) -> None:
    server.start()
    before = server.url.rpartition("@")[2]
    server.stop()
    shutil.rmtree(server.home)
    if server.durability is Durability.DURABLE:
        with pytest.raises(EngineError, match="are gone"):
            server.start()
    else:
        server.start()
        assert server.url.rpartition("@")[2] == before


def test_a_state_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with engines.running(Path("state"), os.environ, wanted=(Engine.POSTGRES,)) as had:
        assert had.postgres is not None
        assert had.postgres.home.is_absolute()
    had.postgres.remove()


def test_a_taken_port_is_named_in_the_error(server: PostgresServer) -> None:
    server.port = free_ports(1)[0]
    server.start()
    second = PostgresServer(server.folder.with_name("second"), os.environ, port=server.port)
    with pytest.raises(EngineError, match=str(server.port)):
        second.start()
    second.remove()


@pytest.mark.long
def test_three_brokers_make_one_cluster(broker: KafkaBroker) -> None:
    ports = free_ports(6)
    voters = ",".join(f"{node}@{HOST}:{ports[node + 2]}" for node in (1, 2, 3))
    members = [
        KafkaBroker(
            broker.folder / str(node),
            broker.java,
            broker.jars,
            os.environ,
            BrokerPorts(clients=ports[node - 1], quorum=ports[node + 2]),
            {"node.id": str(node), "controller.quorum.voters": voters, "offsets.topic.replication.factor": "3"},
            cluster_id="bGlmZWN5Y2xlLWNsdXN0ZQ",
        )
        for node in (1, 2, 3)
    ]
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(KafkaBroker.start, members))
        make_topic(members[0].bootstrap, "replicated", replicas=3)
        write(members[0].bootstrap, "replicated", b"thrice")
        members[0].kill()
        assert read_first(members[2].bootstrap, "replicated") == b"thrice"
    finally:
        for member in members:
            member.kill()


def test_servers_named_in_the_environment_are_used_and_no_engine_starts(tmp_path: Path) -> None:
    named = {"KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092", "DATABASE_URL": "postgresql://db.example/lifecycle"}
    with engines.running(tmp_path, named) as had:
        assert (had.kafka, had.postgres) == (None, None)
        assert had.kafka_bootstrap == named["KAFKA_BOOTSTRAP_SERVERS"]
        assert had.database_url == named["DATABASE_URL"]
        assert "KAFKA_BOOTSTRAP_SERVERS" in had.chosen
    assert list(tmp_path.iterdir()) == []


def test_docker_without_a_daemon_says_what_to_do(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from services import engines\n"
    script += "with engines.running(Path(sys.argv[1]), {'LIFECYCLE_ENGINES': 'docker'}): pass"
    environ = os.environ | {"DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, env=environ, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "Start a Docker engine" in done.stderr) == (1, True)
