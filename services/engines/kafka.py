"""One Apache Kafka broker in KRaft mode, as one process with everything it owns in one folder.

Rule: the folder is the broker. Stopped, killed or killed -9, it starts again on the same folder, under the same ports
and with the same data. Ready means that the port answers and the metadata names a broker.
"""

import base64
import json
import os
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.engines import child_process
from services.engines.errors import StartError
from services.engines.java import Java
from services.engines.ports import HOST, answers, free_ports
from services.engines.readiness import kafka_answers, until

_READY_S = 90
"""Two to four seconds on a quiet machine; this much on one that is busy with everything else."""

_FORMAT_S = 60

SETTINGS: dict[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Topics come from `lifecycle topics apply`; one made by a typo would have wrong partitions and retention.
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # Short sessions, so that the loss of a worker is noticed soon: of classic groups, then of KIP-848 groups.
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "1500",
    # The controller takes a broker back after kill -9 only when its former session is over: 9 s by default. With 3 s a
    # machine that is busy with everything else was seen to lose a broker that lives.
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.backoff.ms": "1000",
    # The default allocates 128 MiB of heap at start.
    "log.cleaner.dedupe.buffer.size": "2097152",
    "log.index.size.max.bytes": "1048576",
    "num.io.threads": "2",
    "num.network.threads": "2",
}

_LOGGING = """\
rootLogger.level=INFO
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c{1} %m%n
rootLogger.appenderRef.out.ref=out
logger.settings.name=org.apache.kafka.common.config
logger.settings.level=WARN
logger.server.name=org.apache.kafka.server.config
logger.server.level=WARN
logger.kafka.name=kafka.server.KafkaConfig
logger.kafka.level=WARN
"""

_JVM = (
    "-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData", "-Djava.awt.headless=true",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BrokerPorts:
    """Where the broker listens for clients, and for the quorum."""

    clients: int
    quorum: int


@dataclass(slots=True)
class KafkaBroker:
    """A broker; `start` it, and `stop` or `kill` it.

    Attributes:
        folder: Everything it owns: settings, ports, log, data.
        java: What runs it.
        jars: What is run.
        environ: Our environment; it sees the bare part.
        ports: None keeps those of the folder, or chooses free ones for a new folder.
        settings: Broker settings that differ from this module's. With `controller.quorum.voters` and a `node.id` it is
            a member of a cluster: start its members at the same time, none answers before a majority is there.
        cluster_id: What all members of a cluster share; None makes one up.
    """

    folder: Path
    java: Java
    jars: Sequence[Path]
    environ: Mapping[str, str]
    ports: BrokerPorts | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    cluster_id: str | None = None
    _child: child_process.Child | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients; known once it was started."""
        return f"{HOST}:{self._ports().clients}"

    @property
    def log_path(self) -> Path:
        """Where broker and formatter write."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """The broker's process id; None before the first start and after a stop."""
        return self._child.pid if self._child else None

    def poll(self) -> int | None:
        """The exit status of a broker that ended; None while it runs, or when it was never started."""
        return self._child.poll() if self._child else None

    def start(self) -> None:
        """Start and wait until it answers; formats the folder first when it is new.

        Raises:
            StartError: It ended, or did not answer in time.
        """
        if self._child and self._child.poll() is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_settings()
        self._format_once()
        self._child = self._run(child_class="kafka.Kafka", arguments=(self._file("server.properties"),))
        if not until(self._is_ready, _READY_S) or self.poll() is not None:
            self.kill()
            raise StartError(f"Kafka did not start in {self.folder}:\n{child_process.last_lines(self.log_path)}")

    def stop(self, timeout_s: float = 15) -> None:
        """Ask it to end, and kill it when it does not."""
        if self._child:
            self._child.stop(timeout_s)
        self._child = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self._child:
            self._child.kill()
        self._child = None

    @property
    def _is_member(self) -> bool:
        return "controller.quorum.voters" in self.settings

    def _is_ready(self) -> bool:
        """True also when it ended: then there is nothing to wait for."""
        if self.poll() is not None:
            return True
        return answers(self._ports().clients) and kafka_answers(self.bootstrap)

    def _ports(self) -> BrokerPorts:
        if self.ports is None:
            stored = self._file("ports.json")
            if not stored.exists():
                stored.write_text(json.dumps(dict(zip(("clients", "quorum"), free_ports(2), strict=True))))
            self.ports = BrokerPorts(**json.loads(stored.read_text()))
        return self.ports

    def _write_settings(self) -> None:
        ports = self._ports()
        quorum = f"{HOST}:{ports.quorum}"
        alone = {} if self._is_member else {"controller.quorum.bootstrap.servers": quorum}
        own = alone | {
            "listeners": f"PLAINTEXT://{HOST}:{ports.clients},CONTROLLER://{quorum}",
            "log.dirs": str(self._file("data")),
        }
        lines = (f"{name}={_escaped(value)}\n" for name, value in (SETTINGS | own | dict(self.settings)).items())
        self._file("server.properties").write_text("".join(lines))
        self._file("log4j2.properties").write_text(_LOGGING)

    def _format_once(self) -> None:
        """Format the data folder; the mark is written last, so a format that was cut short is done again."""
        mark = self._file("formatted")
        if mark.exists():
            return
        shutil.rmtree(self._file("data"), ignore_errors=True)
        cluster_id = self.cluster_id or base64.urlsafe_b64encode(secrets.token_bytes(16)).decode()[:22]
        quorum = () if self._is_member else ("--standalone",)
        # With `=`: one identifier in 64 begins with a hyphen.
        arguments = ("format", *quorum, f"--cluster-id={cluster_id}", "-c", self._file("server.properties"))
        formatter = self._run(child_class="kafka.tools.StorageTool", arguments=arguments)
        if formatter.wait(_FORMAT_S) != 0:
            formatter.kill()
            raise StartError(f"Kafka could not format {self._file('data')}:\n{child_process.last_lines(self.log_path)}")
        mark.write_text(cluster_id)

    def _run(self, *, child_class: str, arguments: Sequence[str | Path]) -> child_process.Child:
        logging = f"-Dlog4j2.configurationFile={self._file('log4j2.properties')}"
        class_path = os.pathsep.join(str(jar) for jar in self.jars)
        return child_process.start(
            (self.java.path, *_JVM, logging, "-cp", class_path, child_class, *arguments),
            env=child_process.bare(self.environ),
            log_path=self.log_path,
            # It recovers from a crash on its own, and a process that only has to die should not need to think.
            death_signal=signal.SIGKILL,
            cwd=self.folder,
        )

    def _file(self, name: str) -> Path:
        return self.folder.resolve() / name


def _escaped(value: str) -> str:
    """A value of a Java properties file."""
    return value.replace("\\", "\\\\")
