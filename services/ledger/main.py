"""Wires the ledger: settings, key material, one producer, the two tables, the two agents, health."""

import asyncio
import json
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.keyring import Keyring, Material
from schemas.topics import LEDGER_APP, OUTCOMES, RECEIVED, TOPICS, Table, changelog, named
from services.adapters import clock, health, keyring, logs, metrics
from services.adapters.alone import alone
from services.adapters.kafka import Producer
from services.adapters.logs import Logger
from services.adapters.settings import Settings, Unusable, required
from services.adapters.tables.app import Config, DurableApp, create_app
from services.adapters.tables.exits import noted, noting
from services.adapters.tables.warm import warm
from services.adapters.tables.worker import run
from services.adapters.topic_description import Described, describe, stamped_by_broker
from services.core.ledger import Rules
from services.ledger.agents import Ledger, Patience
from services.ledger.handover import Handover
from services.ledger.watching import watch

_CHANGELOGS: Final = "changelogs.json"
_LINGER_MS: Final = 5
"""Batches across events; a commit waits that much longer, and nobody else."""

_DELIVERY_TIMEOUT_MS: Final = 60_000
"""Outlives a restart of a broker; then the worker ends and its successor writes again."""

_CLOSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one start of the ledger does beside its work.

    Attributes:
        republish: Say desired and tenants of every key again, once, for each partition taken over.
        accept_loss: Go on where records are gone unread, and ask Genesys about every key of their partitions.
        recover_only: Bring the local copies of the tables up to date and end.
    """

    republish: bool = False
    accept_loss: bool = False
    recover_only: bool = False


def main(settings: Settings, wanted: Wanted) -> int:
    """Run until SIGTERM or SIGINT; the statuses of `services.adapters.tables.exits` are how it ends otherwise.

    Args:
        settings: Of the process.
        wanted: Beside its work.

    Raises:
        Unusable: with every fault of the environment.
        KafkaError: no broker answers.
    """
    log = logs.configure("ledger", settings.log_level)
    ring, material = _usable(settings)
    with alone(_folder(settings), "STATE_DIR"):
        asyncio.run(_warm(settings, log) if wanted.recover_only else _serve(settings, log, ring, material, wanted))
    return 0


def _usable(settings: Settings) -> tuple[Keyring, Material]:
    """The keyring and its key material, once everything was checked."""
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


async def _serve(settings: Settings, log: Logger, ring: Keyring, material: Material, wanted: Wanted) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    topics = await asyncio.to_thread(_topics, settings)
    _same_changelogs(_folder(settings), topics)
    producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_DELIVERY_TIMEOUT_MS)
    metrics.LEDGER_UNACKNOWLEDGED.set_function(lambda: producer.unacknowledged)
    app = create_app(_config(settings, topics[RECEIVED.name].partitions, wanted), producer)
    ledger = Ledger(
        app=app,
        tenants=app.durable_table(Table.TENANTS),
        stages=app.durable_table(Table.STAGES),
        rules=_rules(settings, material),
        restamps={name: endpoint.restamps for name, endpoint in ring.endpoints.items()},
        incarnations={topic.name: topics[topic.name].identity for topic in (RECEIVED, OUTCOMES)},
        prefix=settings.topic_prefix,
        log=log,
        patience={topic.name: Patience(settings.unreadable_in_a_row) for topic in (RECEIVED, OUTCOMES)},
    )
    watch(app, clock.now_us, noted(_folder(settings)))
    app.taken = Handover(ledger, clock.now_us, whole=wanted.republish).taken
    app.read(
        {
            named(RECEIVED, settings.topic_prefix): ledger.reads_received,
            named(OUTCOMES, settings.topic_prefix): ledger.reads_outcomes,
        }
    )
    async with health.serve(_checks(app), host=settings.host, port=settings.metrics_port) as port:
        log.info("ledger starts", metrics_port=port, partitions=topics[RECEIVED.name].partitions)
        await run(app, stop)
    await producer.close(_CLOSE_S)
    log.info("ledger stopped")


def _topics(settings: Settings) -> Mapping[str, Described]:
    """Every topic as the cluster has it, by its name without the prefix."""
    names = {named(topic, settings.topic_prefix): topic.name for topic in TOPICS}
    found = {names[name]: topic for name, topic in describe(settings.kafka, names).items()}
    missing = sorted(set(names.values()) - set(found))
    if missing:
        raise Unusable("\n".join(f"{name}: no such topic; make it with `lifecycle topics apply`" for name in missing))
    inputs = (RECEIVED, OUTCOMES, *(changelog(table) for table in Table))
    counts = {topic.name: found[topic.name].partitions for topic in inputs}
    if len(set(counts.values())) > 1:
        raise Unusable("\n".join(f"{name}: {count} partitions; all need one count" for name, count in counts.items()))
    received = named(RECEIVED, settings.topic_prefix)
    if not stamped_by_broker(settings.kafka, received):
        # Ages are counted in log time: under the senders' clocks nothing, or everything, would be old.
        raise Unusable(f"{received}: message.timestamp.type is not LogAppendTime; set it with `kafka-configs`")
    return found


def _same_changelogs(folder: Path, topics: Mapping[str, Described]) -> None:
    """Compare the changelogs with those that the local copies were read from, and note them.

    A copy that is ahead of a topic made anew is told by that; one that the topic has outgrown would pass for it.

    Raises:
        Unusable: one was made anew.
    """
    found = {changelog(table).name: topics[changelog(table).name].identity for table in Table}
    file = folder / _CHANGELOGS
    try:
        known: dict[str, str] = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    anew = [name for name, identity in found.items() if identity and known.get(name, identity) != identity]
    if anew:
        cure = f"remove {folder} to begin with the topic as it is now, if that was on purpose"
        raise Unusable(
            "\n".join(f"{name}: was made anew since the local copy was read from it; {cure}" for name in anew)
        )
    file.write_text(json.dumps(found))


async def _warm(settings: Settings, log: Logger) -> None:
    """Read the changelogs into the local copies, as far as they go now; takes no partition from anybody."""
    topics = await asyncio.to_thread(_topics, settings)
    _same_changelogs(_folder(settings), topics)
    partitions = topics[RECEIVED.name].partitions
    producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_DELIVERY_TIMEOUT_MS)
    app = create_app(_config(settings, partitions, Wanted()), producer)
    tables = [app.durable_table(table) for table in Table]
    await asyncio.to_thread(warm, tables, settings.kafka, partitions, log)
    await producer.close(_CLOSE_S)


def _config(settings: Settings, partitions: int, wanted: Wanted) -> Config:
    return Config(
        app_id=settings.topic_prefix + LEDGER_APP,
        brokers=str(settings.kafka["bootstrap.servers"]),
        partitions=partitions,
        folder=_folder(settings),
        commit_interval_s=settings.commit_interval_s,
        session_timeout_s=settings.session_timeout_s,
        security=settings.kafka_config,
        standby_replicas=settings.standby_replicas,
        accept_loss=wanted.accept_loss,
        end=noting(_folder(settings)),
    )


def _folder(settings: Settings) -> Path:
    return settings.state_dir / "ledger"


def _rules(settings: Settings, material: Material) -> Rules:
    return Rules(
        identity=keyring.raw(material.identity),
        configuration=keyring.raw(material.configuration),
        audit=keyring.raw(material.audit[0]),
        published_names=settings.published_names,
    )


def _checks(app: DurableApp) -> Callable[[], Mapping[str, str]]:
    def checks() -> Mapping[str, str]:
        ready = app.tables.actives_ready and not app.rebalancing
        return {"tables": "" if ready else "not recovered yet, or being shared out anew"}

    return checks
