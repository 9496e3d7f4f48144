"""Checks of Kafka with the services' own KAFKA_CONFIG: the brokers, the rights, the topics, the backlogs, the clock."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from schemas.rights import Service
from schemas.times import instant
from schemas.topics import DESIRED, LEDGER_APP, OUTCOMES, RECEIVED, named
from services.adapters.kafka import reader
from services.adapters.kafka import topics as kafka_topics
from services.adapters.kafka.backlog import Backlog, backlog
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.reach import Reached, in_words, reach, refusal, unreachable_addresses
from services.adapters.kafka.rights import Cluster
from services.adapters.process.errors import Unusable
from services.cli.doctor.finding import CheckContext, Finding, fault, skipped, well
from services.provisioner.recovery import GROUP

CLOCK_OFF_S: Final = 5.0
"""Least difference in seconds that counts as a fault: ages, leases and the 90 s of the ingress depend on the clocks."""

LATE_S: Final = 60
"""Seconds after which a waiting record counts as a fault of its consumer."""

_ASK_S: Final = 5.0
"""Seconds for the answer to one request."""
_ALLOW: Final = "allow it with `kafka-acls`, or run `lifecycle doctor` as a principal that has it"


def reach_cluster(context: CheckContext) -> Reached:
    """Returns the description of the cluster; called once on behalf of all checks.

    Raises:
        KafkaError: Kafka does not serve us.
        Unusable: a setting of the connection has a fault.
    """
    if unusable := {"KAFKA_BOOTSTRAP_SERVERS", "KAFKA_CONFIG"} & context.unusable:
        raise Unusable(f"{', '.join(sorted(unusable))}: see `settings`")
    return reach(_quiet_config(context), prefix=context.settings.topic_prefix)


def brokers(context: CheckContext) -> Iterator[Finding]:
    """Checks the answer of every broker, and the use of KAFKA_CONFIG by the ledger's own consumer."""
    bootstrap = context.settings.kafka_bootstrap_servers
    if bootstrap is None:
        detail = f"{context.missing_text('KAFKA_BOOTSTRAP_SERVERS')}, and no `lifecycle up` runs in the state folder"
        yield fault("kafka", detail, "set it, or start `lifecycle up`")
        return
    if context.settings.kafka_config:
        # What the ledger's own consumer cannot use, librdkafka may. Faust takes long to import, so only where needed.
        from services.adapters.tables.credentials import credentials

        credentials(context.settings.kafka_config)
    try:
        found = context.cluster.result()
    except KafkaError as error:
        right = "correct KAFKA_CONFIG (security.protocol, sasl.*, ssl.*)"
        cure = right if refusal(error) else f"start it, or correct KAFKA_BOOTSTRAP_SERVERS; {right}"
        yield fault("kafka", f"{bootstrap}: {in_words(error)}", cure)
        return
    unreachable = unreachable_addresses(found.brokers.values())
    if unreachable:
        detail = "; ".join(f"{address}: {why}" for address, why in unreachable.items())
        yield fault("kafka", f"brokers that cannot be reached: {detail}", "start them, or correct advertised.listeners")
    else:
        count = len(found.brokers)
        yield well("kafka", f"{bootstrap}: {count} broker{'s' if count != 1 else ''}, every one answers")


def topics(context: CheckContext) -> Iterator[Finding]:
    """Checks the topics against the topic table, and each partition for a leader and enough in-sync replicas."""
    cluster, chosen = context.kafka(), context.settings
    try:
        plan = kafka_topics.plan(
            _quiet_config(context),
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
    if short := list(_unwritable_partitions(cluster)):
        cure = "start the brokers that are down, or give these partitions other replicas"
        found.append(fault("topics", "; ".join(short), cure))
    yield from found or [well("topics", "as the table says, every partition takes writes")]


def backlog_of_ledger(context: CheckContext) -> Iterator[Finding]:
    """Checks the ledger: members of the consumer group, and unread records."""
    prefix = context.settings.topic_prefix
    inputs = [named(RECEIVED, prefix), named(OUTCOMES, prefix)]
    yield _backlog(context, "ledger", prefix + LEDGER_APP, inputs)


def backlog_of_provisioner(context: CheckContext) -> Iterator[Finding]:
    """Checks the provisioner's intake: members of its consumer group, and unread records."""
    prefix = context.settings.topic_prefix
    yield _backlog(context, "provisioner", prefix + GROUP, [named(DESIRED, prefix)])


def clock(context: CheckContext) -> Iterator[Finding]:
    """Checks Kafka's clock by the newest deliveries: the broker's append time against our clock and `received_at`."""
    context.kafka()
    what = "clock of Kafka"
    try:
        newest = reader.last_per_partition(
            _quiet_config(context), named(RECEIVED, context.settings.topic_prefix), timeout_s=_ASK_S
        )
    except KafkaError as error:
        yield skipped(what, in_words(error), _ALLOW)
        return
    if not newest:
        yield skipped(what, "no delivery is there to compare with", "send one with `lifecycle send`, and look again")
        return
    # The broker stamps each record when it is appended, so a stamp in our future proves that its clock is ahead. A
    # clock that is behind shows only against the ingress, which wrote `received_at` before the append.
    ahead_s = (max(record.at_us for record in newest) - context.now_us()) / 1_000_000
    behind_s = min(_append_delay_s(record) for record in newest)
    if ahead_s > CLOCK_OFF_S:
        yield fault(what, f"at least {ahead_s:.0f} s ahead of this machine's", "keep all clocks with NTP or chrony")
    elif behind_s < -CLOCK_OFF_S:
        yield fault(what, f"{-behind_s:.0f} s behind that of the ingress", "keep all clocks with NTP or chrony")
    else:
        yield well(what, f"not ahead of this machine's, nor behind that of the ingress by {CLOCK_OFF_S:g} s")


def _append_delay_s(record: Any) -> float:
    """Returns the seconds between `received_at` of the ingress and the append; 0 without a usable `received_at`."""
    taken = record.headers.get("received_at")
    try:
        return (record.at_us - instant(taken)) / 1_000_000 if taken else 0.0
    except ValueError:
        return 0.0


def _unwritable_partitions(cluster: Reached) -> Iterator[str]:
    """Yields a sentence per topic with leaderless partitions, or with fewer in-sync replicas than a write needs."""
    for name, topic in sorted(cluster.topics.items()):
        partitions = topic.partitions.values()
        if leaderless := sum(part.leader < 0 for part in partitions):
            yield f"{name}: {leaderless} partitions without a leader"
        # As the topics are configured: one replica may be missing (min.insync.replicas is one less than the replicas,
        # at least 1).
        elif starved := sum(len(part.isrs) < max(1, len(part.replicas) - 1) for part in partitions):
            yield f"{name}: {starved} partitions with too few replicas in sync to take a write"


def _backlog(context: CheckContext, service: str, group: str, inputs: Sequence[str]) -> Finding:
    """Returns the finding for one consumer group."""
    cluster, what = context.kafka(), f"{service}'s backlog"
    there = {name: list(cluster.topics[name].partitions) for name in inputs if name in cluster.topics}
    if len(there) < len(inputs):
        return skipped(
            what, f"{', '.join(sorted(set(inputs) - there.keys()))}: no such topic", "lifecycle topics apply"
        )
    since_us = context.now_us() - LATE_S * 1_000_000
    try:
        found = backlog(_quiet_config(context), group, there, since_us=since_us, timeout_s=_ASK_S)
    except KafkaError as error:
        return skipped(what, in_words(error), _ALLOW)
    return _backlog_finding(what, service, group, found)


def _backlog_finding(what: str, service: str, group: str, found: Backlog) -> Finding:
    """Returns the finding for a group: never started, stopped, late, or well."""
    waits = f"{found.waiting} record{'s' if found.waiting != 1 else ''} not read yet"
    start = f"start `lifecycle {service}`; its log says why it ended"
    # No committed offset and no record: an installation that has not begun yet, which is no fault.
    if not found.members and not found.known and not found.waiting:
        return skipped(what, f"no {service} has ever been at work (group {group})", f"start `lifecycle {service}`")
    if not found.members:
        return fault(what, f"no {service} is at work (group {group}); {waits}", start)
    if found.late:
        detail = f"{found.late} records have waited longer than {LATE_S} s for {found.members} at work; {waits}"
        return fault(what, detail, f"`/readyz` and the log of the {service} say what it waits for")
    return well(what, f"{found.members} at work, {waits}")


def _quiet_config(context: CheckContext) -> dict[str, Any]:
    """Returns the connection settings with librdkafka's log off: an absent broker is a finding, not a log line."""
    return {**context.settings.kafka, "log_level": 0}


def rights(context: CheckContext) -> Iterator[Finding]:
    """Checks the rights of this principal against the needs of an operator's commands."""
    context.kafka()
    with Cluster(_quiet_config(context)) as cluster:
        missing = cluster.missing(Service.OPERATOR, context.settings.topic_prefix, _ASK_S)
    if missing:
        detail = f"the principal of KAFKA_CONFIG lacks {', '.join(map(str, missing))}"
        yield fault("rights", detail, "`lifecycle topics acls` prints the lines that give it")
    else:
        yield well("rights", "all that the commands of an operator need")
