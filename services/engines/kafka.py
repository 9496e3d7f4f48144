"""One Apache Kafka broker in KRaft mode: one process, with ports, settings, log and data in one folder.

Rule: the folder is the identity of the broker. After a stop, and after SIGKILL, a new start on the folder keeps the
ports, the cluster id and the data. The broker is ready when the port accepts connections and the metadata list a
broker.

A folder without the file `formatted` is new and is formatted first. The formatter's success is recorded last, by this
file, so an interrupted format is repeated.
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
"""Deadline of a start. A start takes two to four seconds on an idle machine; the rest is for a loaded machine."""

_FORMAT_S = 60

SETTINGS: dict[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    # Internal topics: the default of three replicas needs three brokers.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Topics come from `lifecycle topics apply`; a topic created by a typo would have wrong partitions and retention.
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # Short sessions, so that the group soon notices a lost worker: first for classic groups, then for KIP-848 groups.
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "1500",
    # After SIGKILL the controller admits the restarted broker only when its former session has expired: 9 s by default.
    # With 3 s the controller of a loaded machine has been seen to drop a live broker.
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.backoff.ms": "1000",
    # The default allocates 128 MiB of heap at start.
    "log.cleaner.dedupe.buffer.size": "2097152",
    # Kafka allocates an index file in full for each new segment: 10 MiB by default.
    "log.index.size.max.bytes": "1048576",
    "num.io.threads": "2",
    "num.network.threads": "2",
}

# At INFO the three loggers named below print all settings at each start, and hide the lines before an error.
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

# A small heap, the serial collector and the C1 compiler alone: for a quick start, at the price of throughput.
# -UsePerfData: no file in /tmp/hsperfdata_….
_JVM = (
    "-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData", "-Djava.awt.headless=true",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BrokerPorts:
    """TCP ports of a broker on 127.0.0.1.

    Attributes:
        clients: Port of the listener for clients and for the cluster's brokers.
        quorum: Port of the controller listener (KRaft).
    """

    clients: int
    quorum: int


@dataclass(slots=True)
class KafkaBroker:
    """A broker that the caller starts, and stops or kills.

    Attributes:
        folder: Folder of the broker: ports, settings, log and data.
        java: Java that runs the broker.
        jars: Class path of the broker.
        environ: Environment of this process; the broker gets the part that `child_process.bare` selects.
        ports: Ports of the broker. None takes the ports stored in the folder; a new folder gets free ports.
        settings: Broker settings that override those of this module. `controller.quorum.voters` and `node.id` make the
            broker a member of a cluster. Start the members of a cluster at the same time: no member answers before a
            majority runs.
        cluster_id: Identifier of the cluster, equal in all members; None generates a random identifier.
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
        """`host:port` for clients. The first use on a new folder chooses the ports; the folder must exist."""
        return f"{HOST}:{self._ports().clients}"

    @property
    def log_path(self) -> Path:
        """The file with the output of the broker and of the formatter."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """The broker's process id; None before the first start and after a stop."""
        return self._child.pid if self._child else None

    def poll(self) -> int | None:
        """Returns the exit status of an ended broker; None while the broker runs, before `start` and after `stop`."""
        return self._child.poll() if self._child else None

    def start(self) -> None:
        """Starts the broker and waits until the broker is ready; formats a new folder first.

        Does nothing if the broker runs already.

        Raises:
            StartError: The broker ended, or was not ready within `_READY_S` seconds, or the folder cannot be formatted.
        """
        if self._child and self._child.poll() is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_settings()
        self._format_once()
        self._child = self._run(child_class="kafka.Kafka", arguments=(self._file("server.properties"),))
        # The second condition, since `_is_ready` is True for an ended broker too.
        if not until(self._is_ready, _READY_S) or self.poll() is not None:
            self.kill()
            raise StartError(f"Kafka did not start in {self.folder}:\n{child_process.last_lines(self.log_path)}")

    def stop(self, timeout_s: float = 15) -> None:
        """Ends the broker by SIGTERM, and by SIGKILL after `timeout_s` seconds."""
        if self._child:
            self._child.stop(timeout_s)
        self._child = None

    def kill(self) -> None:
        """Ends the broker by SIGKILL, as a crash would."""
        if self._child:
            self._child.kill()
        self._child = None

    @property
    def _is_cluster_member(self) -> bool:
        """True if the settings name the static voters of a cluster."""
        return "controller.quorum.voters" in self.settings

    def _is_ready(self) -> bool:
        """True if the broker answers, or has ended: waiting for an ended broker is useless."""
        if self.poll() is not None:
            return True
        return answers(self._ports().clients) and kafka_answers(self.bootstrap)

    def _ports(self) -> BrokerPorts:
        """Returns the broker's ports; writes the ports of a new folder to `ports.json`."""
        if self.ports is None:
            stored = self._file("ports.json")
            if not stored.exists():
                stored.write_text(json.dumps(dict(zip(("clients", "quorum"), free_ports(2), strict=True))))
            self.ports = BrokerPorts(**json.loads(stored.read_text()))
        return self.ports

    def _write_settings(self) -> None:
        """Writes the settings of the broker and of its logging, at every start: ports and settings may have changed."""
        ports = self._ports()
        quorum = f"{HOST}:{ports.quorum}"
        # A broker without static voters is the only member of a dynamic quorum, formatted with --standalone.
        alone = {} if self._is_cluster_member else {"controller.quorum.bootstrap.servers": quorum}
        own = alone | {
            "listeners": f"PLAINTEXT://{HOST}:{ports.clients},CONTROLLER://{quorum}",
            "log.dirs": str(self._file("data")),
        }
        lines = (f"{name}={_escaped(value)}\n" for name, value in (SETTINGS | own | dict(self.settings)).items())
        self._file("server.properties").write_text("".join(lines))
        self._file("log4j2.properties").write_text(_LOGGING)

    def _format_once(self) -> None:
        """Formats the data folder unless the file `formatted` exists; removes the remains of an interrupted format.

        Raises:
            StartError: The formatter failed, or took longer than `_FORMAT_S` seconds.
        """
        mark = self._file("formatted")
        if mark.exists():
            return
        shutil.rmtree(self._file("data"), ignore_errors=True)
        cluster_id = self.cluster_id or base64.urlsafe_b64encode(secrets.token_bytes(16)).decode()[:22]
        quorum = () if self._is_cluster_member else ("--standalone",)
        # `--cluster-id=X` instead of `--cluster-id X`: one random identifier in 64 begins with a hyphen, and would be
        # parsed as an option.
        arguments = ("format", *quorum, f"--cluster-id={cluster_id}", "-c", self._file("server.properties"))
        formatter = self._run(child_class="kafka.tools.StorageTool", arguments=arguments)
        if formatter.wait(_FORMAT_S) != 0:
            formatter.kill()
            raise StartError(f"Kafka could not format {self._file('data')}:\n{child_process.last_lines(self.log_path)}")
        mark.write_text(cluster_id)

    def _run(self, *, child_class: str, arguments: Sequence[str | Path]) -> child_process.Child:
        """Starts a main class of Kafka in a Java process."""
        logging = f"-Dlog4j2.configurationFile={self._file('log4j2.properties')}"
        class_path = os.pathsep.join(str(jar) for jar in self.jars)
        return child_process.start(
            (self.java.path, *_JVM, logging, "-cp", class_path, child_class, *arguments),
            env=child_process.bare(self.environ),
            log_path=self.log_path,
            # Kafka recovers from a crash by itself. SIGTERM would begin an orderly shutdown that no process waits for.
            death_signal=signal.SIGKILL,
            cwd=self.folder,
        )

    def _file(self, name: str) -> Path:
        return self.folder.resolve() / name


def _escaped(value: str) -> str:
    """Returns a value as a Java properties file spells the value: a backslash begins an escape sequence."""
    return value.replace("\\", "\\\\")
