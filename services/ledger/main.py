"""Wires the ledger process: settings, key material, one producer, two tables, two agents, health.

A local copy of a table is valid only for the changelog from which it was read, and an offset only for its topic. Before
the first event the process therefore checks rights, topics, partition counts and the identity of the changelogs, and
refuses to start on a mismatch. While at work, the process watches the input topics, and ends when a topic is made anew
or grows (docs/decisions/0018). Every such end has its own exit status (services/adapters/tables/exits.py), and a
supervisor starts the ledger again.
"""

import asyncio
import json
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from schemas.keyring import Keyring, Material
from schemas.rights import Service
from schemas.topics import LEDGER_APP, OUTCOMES, RECEIVED, TOPICS, Table, changelog, named
from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.kafka.reach import reach
from services.adapters.kafka.rights import Cluster, RightsWatch
from services.adapters.kafka.topic_description import TopicIdentity, describe
from services.adapters.kafka.topic_state import TopicWatcher
from services.adapters.process import clock, health, logs, metrics, open_files, tracing
from services.adapters.process.errors import Unusable
from services.adapters.process.folder_lock import locked_folder
from services.adapters.process.logs import Logger
from services.adapters.process.settings import LedgerSettings, required
from services.adapters.secrets import keyring
from services.adapters.tables.app import FILES_PER_TABLE, Config, DurableApp, create_app
from services.adapters.tables.exits import WorkerExit, load_ends, record_end
from services.adapters.tables.offline_recovery import recover_offline
from services.adapters.tables.recovery import WARNING
from services.adapters.tables.worker import run
from services.core.delivery.topic_rules import settings_fault
from services.core.ledger.projections import ProjectionRules
from services.ledger.agents import Ledger, PoisonLimit
from services.ledger.gauges import register
from services.ledger.handover import Handover

_TOPICS_FILE: Final = "topics.json"
_TOPICS_LOOK_S: Final = 10.0
_TIMEOUT_S: Final = 10.0
_COUNT_REMEDY: Final = (
    "With another count keys change their partition, lose their rows and begin anew: make the topics again with the "
    "former count"
)
_LINGER_MS: Final = 5
"""Batches records across events; only a commit waits that much longer."""

_DELIVERY_TIMEOUT_MS: Final = 60_000
"""Longer than the restart of a broker. Beyond, the worker ends, and the next start writes the records again."""

_CLOSE_S: Final = 5.0
_OTHER_FILES: Final = 256
"""Open files beside those of the tables: brokers, logs, libraries."""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """Options of one start of the ledger.

    Attributes:
        republish: True to write desired and tenants of every key again, once, for each partition taken over.
        accept_loss: True to go on where records are gone unread, and to re-check every key of their partitions.
        recover_only: True to bring the local copies of the tables up to date and end.
    """

    republish: bool = False
    accept_loss: bool = False
    recover_only: bool = False


def main(settings: LedgerSettings, options: StartOptions) -> int:
    """Runs the ledger until SIGTERM or SIGINT.

    Args:
        settings: Settings of the process.
        options: Options of this start.

    Returns:
        Exit status 0. Every other end of the process has a status of `services.adapters.tables.exits`.

    Raises:
        Unusable: names every fault of the environment.
        KafkaError: no broker answers.
    """
    log = logs.configure("ledger", settings.log_level)
    ring, material = _usable(settings)
    with tracing.exporting("ledger", settings), locked_folder(_folder(settings), "STATE_DIR"):
        asyncio.run(_recover(settings, log) if options.recover_only else _serve(settings, log, ring, material, options))
    return 0


def _usable(settings: LedgerSettings) -> tuple[Keyring, Material]:
    """Returns the keyring and the key material, after checking the whole environment.

    Raises:
        Unusable: names every fault of the environment.
    """
    faults: list[str] = []
    try:
        required(settings, "kafka_bootstrap_servers")
    except Unusable as unusable:
        faults.append(str(unusable))
    try:
        found = keyring.load(settings.keyring_file), keyring.material(settings.keyring_file)
    except Unusable as unusable:
        faults.append(str(unusable))
    if faults:
        raise Unusable("\n".join(faults))
    return found


async def _serve(
    settings: LedgerSettings, log: Logger, ring: Keyring, material: Material, options: StartOptions
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    topics = await asyncio.to_thread(_described_topics, settings)
    _check_changelogs(_folder(settings), topics)
    _raise_file_limit(topics[RECEIVED.name].partitions, log)
    producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_DELIVERY_TIMEOUT_MS)
    metrics.LEDGER_UNACKNOWLEDGED.set_function(lambda: producer.unacknowledged)
    app = create_app(_config(settings, topics[RECEIVED.name].partitions, options), producer)
    ledger = Ledger(
        app=app,
        tenants=app.durable_table(Table.TENANTS),
        stages=app.durable_table(Table.STAGES),
        rules=_rules(settings, material),
        restamps={name: endpoint.restamps for name, endpoint in ring.endpoints.items()},
        incarnations={topic.name: topics[topic.name].identity for topic in (RECEIVED, OUTCOMES)},
        prefix=settings.topic_prefix,
        log=log,
        poison_limits={topic.name: PoisonLimit(settings.unreadable_in_a_row) for topic in (RECEIVED, OUTCOMES)},
    )
    register(app, clock.now_us, load_ends(_folder(settings)))
    app.on_takeover = Handover(ledger, clock.now_us, whole=options.republish).on_takeover
    app.bind_agents(
        {
            named(RECEIVED, settings.topic_prefix): ledger.reads_received,
            named(OUTCOMES, settings.topic_prefix): ledger.reads_outcomes,
        }
    )
    rights = RightsWatch(settings, Service.LEDGER, log)
    async with health.serve("ledger", _checks(app, rights), host=settings.host, port=settings.metrics_port) as port:
        log.info("started", port=port, partitions=topics[RECEIVED.name].partitions)
        topics_watch = asyncio.create_task(_watch_topics(settings, topics, app), name="topics")
        topics_watch.add_done_callback(partial(_must_not_end, app))
        rights_watch = asyncio.create_task(rights.run(producer), name="rights")
        await run(app, stop)
        topics_watch.cancel()
        rights_watch.cancel()
    await producer.close(_CLOSE_S)
    log.info("stopped")


def _described_topics(settings: LedgerSettings) -> Mapping[str, TopicIdentity]:
    """Returns every topic as the cluster has it, by name without the prefix, after checking all of them. Blocks.

    Raises:
        Unusable: a topic is missing, has a different partition count, or has wrong settings.
        KafkaError: no broker answers, or a right is missing.
    """
    # First, since its errors are sentences for an operator: who does not answer, or refuses the login.
    reach(settings.kafka, prefix=settings.topic_prefix)
    with Cluster(settings.kafka) as cluster:
        cluster.require(Service.LEDGER, settings.topic_prefix)
    names = {named(topic, settings.topic_prefix): topic.name for topic in TOPICS}
    found = {names[name]: topic for name, topic in describe(settings.kafka, names).items()}
    missing = sorted(set(names.values()) - set(found))
    if missing:
        raise Unusable("\n".join(f"{name}: no such topic; make it with `lifecycle topics apply`" for name in missing))
    # A key has the same partition number in all of these topics: its row is where its records are.
    inputs = (RECEIVED, OUTCOMES, *(changelog(table) for table in Table))
    counts = {topic.name: found[topic.name].partitions for topic in inputs}
    if len(set(counts.values())) > 1:
        faults = (
            *(f"{name}: {count} partitions" for name, count in counts.items()),
            "all of these need one count",
            _COUNT_REMEDY,
        )
        raise Unusable("\n".join(faults))
    outcomes = named(OUTCOMES, settings.topic_prefix)
    with TopicWatcher(settings.kafka, list(names), timeout_s=_TIMEOUT_S, only_read={outcomes}) as watcher:
        states = watcher.look()
    table = {named(topic, settings.topic_prefix): topic for topic in TOPICS}
    if wrong := [why for name, state in states.items() if (why := settings_fault(name, table[name], state))]:
        raise Unusable("\n".join(wrong))
    received = named(RECEIVED, settings.topic_prefix)
    if states[received].config is None:
        # Entries age by log time. Under CreateTime they would age by the clocks of the producers.
        raise Unusable(f"{received}: its settings may not be read (message.timestamp.type); grant DescribeConfigs")
    return found


def _check_changelogs(folder: Path, topics: Mapping[str, TopicIdentity]) -> None:
    """Compares identity and partition count of the changelogs with those noted at the last start, and notes them.

    Recovery detects a local copy that is ahead of its changelog. A changelog made anew may have grown longer than the
    copy, though, and only its identity shows that the copy was read from a different topic.

    Raises:
        Unusable: a changelog was made anew, or the partition count has changed.
    """
    found = {changelog(table).name: topics[changelog(table).name].identity for table in Table}
    count, file = topics[RECEIVED.name].partitions, folder / _TOPICS_FILE
    try:
        noted_before = json.loads(file.read_text())
        known, count_before = dict(noted_before["changelogs"]), int(noted_before["partitions"])
    except (OSError, ValueError, KeyError, TypeError):
        # No note: a new folder, or an operator removed the file to accept restored topics (docs/decisions/0018).
        known, count_before = {}, count
    fault = f"is not the topic that {folder} was read from: that is another installation's, or the topic was made anew"
    changed = [name for name, identity in found.items() if identity and known.get(name, identity) != identity]
    faults = [f"{name}: {fault}. {WARNING}" for name in changed]
    if count != count_before:
        faults.append(f"{RECEIVED.name}: {count} partitions, and {count_before} before. {_COUNT_REMEDY}")
    if faults:
        raise Unusable("\n".join(faults))
    file.write_text(json.dumps({"changelogs": found, "partitions": count}))


async def _watch_topics(settings: LedgerSettings, topics: Mapping[str, TopicIdentity], app: DurableApp) -> None:
    """Ends the process when an input topic is made anew or grows: offsets and partitions would mean other records."""
    inputs = {named(topic, settings.topic_prefix): topics[topic.name] for topic in (RECEIVED, OUTCOMES)}
    while True:
        await asyncio.sleep(_TOPICS_LOOK_S)
        try:
            found = await asyncio.to_thread(describe, settings.kafka, inputs)
        except KafkaError:
            continue  # no answer is no evidence
        for name, before in inputs.items():
            now = found.get(name, before)
            if now.identity != before.identity:
                cure = f"set the group {app.conf.id} back to its beginning: to read again changes nothing"
                app.end(
                    WorkerExit.LOSS, f"{name} was made anew while it was read, and records of it may be unread; {cure}"
                )
            if now.partitions != before.partitions:
                app.end(
                    WorkerExit.LOSS,
                    f"{name}: {now.partitions} partitions, and {before.partitions} before. {_COUNT_REMEDY}",
                )


def _must_not_end(app: DurableApp, task: "asyncio.Task[None]") -> None:
    """Ends the process when a watch ends by itself: without the watch, a topic made anew would go unnoticed."""
    if not task.cancelled():
        app.end(WorkerExit.UNEXPECTED, f"the watch of {task.get_name()} ended: {task.exception()!r}")


async def _recover(settings: LedgerSettings, log: Logger) -> None:
    """Reads the changelogs to their present ends into the local copies, without joining the consumer group."""
    topics = await asyncio.to_thread(_described_topics, settings)
    _check_changelogs(_folder(settings), topics)
    partitions = topics[RECEIVED.name].partitions
    _raise_file_limit(partitions, log)
    producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_DELIVERY_TIMEOUT_MS)
    app = create_app(_config(settings, partitions, StartOptions()), producer)
    tables = [app.durable_table(table) for table in Table]
    await asyncio.to_thread(recover_offline, tables, settings.kafka, partitions, log)
    await producer.close(_CLOSE_S)


def _raise_file_limit(partitions: int, log: Logger) -> None:
    """Raises the limit of open files for the tables of all partitions, which the last running worker holds alone."""
    if missing := open_files.raise_limit(_OTHER_FILES + partitions * len(Table) * FILES_PER_TABLE):
        log.warning("too few files", partitions=partitions, why=missing)


def _config(settings: LedgerSettings, partitions: int, options: StartOptions) -> Config:
    return Config(
        app_id=settings.topic_prefix + LEDGER_APP,
        brokers=str(settings.kafka["bootstrap.servers"]),
        partitions=partitions,
        folder=_folder(settings),
        commit_interval_s=settings.commit_interval_s,
        session_timeout_s=settings.session_timeout_s,
        security=settings.kafka_config,
        standby_replicas=settings.standby_replicas,
        accept_loss=options.accept_loss,
        end=record_end(_folder(settings)),
    )


def _folder(settings: LedgerSettings) -> Path:
    return settings.state_dir / "ledger"


def _rules(settings: LedgerSettings, material: Material) -> ProjectionRules:
    return ProjectionRules(
        identity=keyring.raw(material.identity),
        configuration=keyring.raw(material.configuration),
        audit=keyring.raw(material.audit[0]),
        published_names=settings.published_names,
        removal_grace_s=settings.audit_removal_grace_s,
    )


def _checks(app: DurableApp, rights: RightsWatch) -> Callable[[], Mapping[str, str]]:
    def checks() -> Mapping[str, str]:
        ready = app.tables.actives_ready and not app.rebalancing
        tables = "" if ready else "not recovered yet, or being shared out anew"
        return {"tables": tables, "rights": rights.fault}

    return checks
