"""Checks of Kafka, asked with KAFKA_CONFIG as every service asks: the cluster, the topics, the backlog, the clock."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from schemas.rights import Service
from schemas.times import instant
from schemas.topics import DESIRED, LEDGER_APP, OUTCOMES, RECEIVED, named
from services.adapters.kafka import reader
from services.adapters.kafka import topics as hands
from services.adapters.kafka.backlog import Backlog, backlog
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.reach import Reached, in_words, reach, refusal, unconnected
from services.adapters.kafka.rights import Cluster
from services.adapters.process.settings import Unusable
from services.cli.doctor.finding import CheckContext, Finding, fault, skipped, well
from services.provisioner.recovery import GROUP

CLOCK_OFF_S: Final = 5.0
"""Clocks further apart than this are not kept by anybody; ages, leases and the 90 s of the ingress hang on them."""

LATE_S: Final = 60
"""A record that waits longer than this is no passing matter."""

_ASK_S: Final = 5.0
_ALLOW: Final = "allow it with `kafka-acls`, or run `lifecycle doctor` as a principal that has it"


def reached(asked: CheckContext) -> Reached:
    """The cluster; asked once for all checks.

    Raises:
        KafkaError: it does not serve us.
        Unusable: the settings cannot be used.
    """
    if spoilt := {"KAFKA_BOOTSTRAP_SERVERS", "KAFKA_CONFIG"} & asked.unread:
        raise Unusable(f"{', '.join(sorted(spoilt))}: see `settings`")
    return reach(_config(asked), prefix=asked.settings.topic_prefix)


def answers(asked: CheckContext) -> Iterator[Finding]:
    """Every broker, by the settings of the services, and by those of the ledger's own consumer."""
    bootstrap = asked.settings.kafka_bootstrap_servers
    if bootstrap is None:
        told = f"{asked.absent('KAFKA_BOOTSTRAP_SERVERS')}, and no `lifecycle up` runs in the state folder"
        yield fault("kafka", told, "set it, or start `lifecycle up`")
        return
    if asked.settings.kafka_config:
        # What the ledger's own consumer cannot use, librdkafka may. Faust takes long to import, so only where needed.
        from services.adapters.tables.credentials import credentials

        credentials(asked.settings.kafka_config)
    try:
        found = asked.cluster.result()
    except KafkaError as error:
        right = "correct KAFKA_CONFIG (security.protocol, sasl.*, ssl.*)"
        cure = right if refusal(error) else f"start it, or correct KAFKA_BOOTSTRAP_SERVERS; {right}"
        yield fault("kafka", f"{bootstrap}: {in_words(error)}", cure)
        return
    closed = unconnected(found.brokers.values())
    if closed:
        told = "; ".join(f"{place}: {why}" for place, why in closed.items())
        yield fault("kafka", f"brokers that cannot be reached: {told}", "start them, or correct advertised.listeners")
    else:
        count = len(found.brokers)
        yield well("kafka", f"{bootstrap}: {count} broker{'s' if count != 1 else ''}, every one answers")


def topics(asked: CheckContext) -> Iterator[Finding]:
    """The topics as the table says, each with a leader and enough copies to take writes."""
    cluster, chosen = asked.kafka(), asked.settings
    try:
        plan = hands.plan(
            _config(asked),
            prefix=chosen.topic_prefix,
            partitions=chosen.topic_partitions,
            replication=chosen.topic_replication,
            timeout_s=_ASK_S,
        )
    except KafkaError as error:
        yield skipped("topics", in_words(error), _ALLOW)
        return
    found = []
    if plan.create:
        found.append(fault("topics", f"missing: {', '.join(plan.create)}", "lifecycle topics apply"))
    if plan.conflicts:
        cure = "set TOPIC_PARTITIONS to what the topics have; where they differ, make the topics again"
        found.append(fault("topics", "; ".join(plan.conflicts), cure))
    if plan.configure:
        cure = "`lifecycle topics plan` shows which; change them with kafka-configs"
        found.append(fault("topics", f"settings differ: {', '.join(plan.configure)}", cure))
    if short := list(_short(cluster)):
        cure = "start the brokers that are down, or give these partitions other replicas"
        found.append(fault("topics", "; ".join(short), cure))
    yield from found or [well("topics", "as the table says, every partition takes writes")]


def backlog_of_ledger(asked: CheckContext) -> Iterator[Finding]:
    """What the ledger has not read yet, and whether there is a ledger."""
    prefix = asked.settings.topic_prefix
    inputs = [named(RECEIVED, prefix), named(OUTCOMES, prefix)]
    yield _backlog(asked, "ledger", prefix + LEDGER_APP, inputs)


def backlog_of_provisioner(asked: CheckContext) -> Iterator[Finding]:
    """What the provisioner has not taken in yet, and whether there is a provisioner."""
    prefix = asked.settings.topic_prefix
    yield _backlog(asked, "provisioner", prefix + GROUP, [named(DESIRED, prefix)])


def clock(asked: CheckContext) -> Iterator[Finding]:
    """Kafka's clock, read off the newest deliveries: when they were appended, and when the ingress took them."""
    asked.kafka()
    what = "clock of Kafka"
    try:
        newest = reader.last(_config(asked), named(RECEIVED, asked.settings.topic_prefix), timeout_s=_ASK_S)
    except KafkaError as error:
        yield skipped(what, in_words(error), _ALLOW)
        return
    if not newest:
        yield skipped(what, "no delivery is there to compare with", "send one with `lifecycle send`, and look again")
        return
    ahead_s = (max(record.at_us for record in newest) - asked.now_us()) / 1_000_000
    behind_s = min(_taken_after_s(record) for record in newest)
    if ahead_s > CLOCK_OFF_S:
        yield fault(what, f"at least {ahead_s:.0f} s ahead of this machine's", "keep all clocks with NTP or chrony")
    elif behind_s < -CLOCK_OFF_S:
        yield fault(what, f"{-behind_s:.0f} s behind that of the ingress", "keep all clocks with NTP or chrony")
    else:
        yield well(what, f"not ahead of this machine's, nor behind that of the ingress by {CLOCK_OFF_S:g} s")


def _taken_after_s(record: Any) -> float:
    """How long after the ingress had it a delivery was appended; 0 where nobody says when that was."""
    taken = record.headers.get("received_at")
    try:
        return (record.at_us - instant(taken)) / 1_000_000 if taken else 0.0
    except ValueError:
        return 0.0


def _short(cluster: Reached) -> Iterator[str]:
    """Partitions without a leader, or with fewer copies in sync than a write needs."""
    for name, topic in sorted(cluster.topics.items()):
        partitions = topic.partitions.values()
        if leaderless := sum(part.leader < 0 for part in partitions):
            yield f"{name}: {leaderless} partitions without a leader"
        elif starved := sum(len(part.isrs) < max(1, len(part.replicas) - 1) for part in partitions):
            yield f"{name}: {starved} partitions with too few replicas in sync to take a write"


def _backlog(asked: CheckContext, service: str, group: str, inputs: Sequence[str]) -> Finding:

    cluster, what = asked.kafka(), f"{service}'s backlog"
    there = {name: list(cluster.topics[name].partitions) for name in inputs if name in cluster.topics}
    if len(there) < len(inputs):
        return skipped(
            what, f"{', '.join(sorted(set(inputs) - there.keys()))}: no such topic", "lifecycle topics apply"
        )
    since_us = asked.now_us() - LATE_S * 1_000_000
    try:
        found = backlog(_config(asked), group, there, since_us=since_us, timeout_s=_ASK_S)
    except KafkaError as error:
        return skipped(what, in_words(error), _ALLOW)
    return _judged(what, service, group, found)


def _judged(what: str, service: str, group: str, found: Backlog) -> Finding:
    waits = f"{found.waiting} record{'s' if found.waiting != 1 else ''} not read yet"
    start = f"start `lifecycle {service}`; its log says why it ended"
    if not found.members and not found.known and not found.waiting:
        return skipped(what, f"no {service} has ever been at work (group {group})", f"start `lifecycle {service}`")
    if not found.members:
        return fault(what, f"no {service} is at work (group {group}); {waits}", start)
    if found.late:
        told = f"{found.late} records have waited longer than {LATE_S} s for {found.members} at work; {waits}"
        return fault(what, told, f"`/readyz` and the log of the {service} say what it waits for")
    return well(what, f"{found.members} at work, {waits}")


def _config(asked: CheckContext) -> dict[str, Any]:
    """Quiet: a broker that is away is a finding, and no line of librdkafka's on the terminal."""
    return {**asked.settings.kafka, "log_level": 0}


def rights(asked: CheckContext) -> Iterator[Finding]:
    """The rights of this principal, against those that the commands of an operator need."""
    asked.kafka()
    with Cluster(_config(asked)) as cluster:
        missing = cluster.missing(Service.OPERATOR, asked.settings.topic_prefix, _ASK_S)
    if missing:
        told = f"the principal of KAFKA_CONFIG lacks {', '.join(map(str, missing))}"
        yield fault("rights", told, "`lifecycle topics acls` prints the lines that give it")
    else:
        yield well("rights", "all that the commands of an operator need")
