"""Comparison of a cluster's topics with the table of `schemas.topics`.

Rule: a topic with settings under which acknowledged records get lost, misplaced or misdated is wrong, and nothing may
be written to the topic. A setting that merely refuses records or keeps records longer is only reported.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from schemas.topics import Topic

# Theory. A producer's acknowledgement is worth no more than the topic: a compacted or short-lived `lifecycle.received`
# loses acknowledged events, a different partition count misplaces keys, and CreateTime gives the ledger a log time of
# the client's choice. Such faults pass unnoticed, so writing stops (`wrong`). A refused record is an error at its
# producer, who can act, so a refusing setting is no reason to stop (`notes`).


class TopicStatus(Protocol):
    """The state of a topic in a cluster."""

    @property
    def partitions(self) -> int:
        """Number of partitions."""

    @property
    def config(self) -> Mapping[str, str] | None:
        """Settings of the topic; None without the right to read settings."""

    @property
    def replicas(self) -> tuple[tuple[int, int], ...]:
        """For each partition: number of replicas in sync, and number of all replicas."""

    @property
    def leaderless(self) -> tuple[int, ...]:
        """Partitions without a leader."""

    @property
    def may_write(self) -> bool:
        """True if this principal has the right to write."""


@dataclass(frozen=True, slots=True)
class TopicVerdict:
    """The verdict on a set of topics.

    Attributes:
        wrong: By topic: the reason why nothing may be written.
        trouble: Reasons why at present no record can be written, although the settings are right; a sentence each.
        notes: Deviations without effect on writing; a sentence each.
    """

    wrong: Mapping[str, str] = field(default_factory=dict)
    trouble: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge(
    table: Mapping[str, Topic],
    states: Mapping[str, TopicStatus],
    partitions: int | None,
    *,
    vital: Collection[str] = (),
    silent: Mapping[tuple[str, int], str] = MappingProxyType({}),
) -> TopicVerdict:
    """Returns the verdict on the topics of `table`.

    An unwritable partition is only a note: the remaining partitions work, and the producer reports each failed record.
    A topic without the right to write is trouble, and so is a vital topic without a writable partition.

    Args:
        table: By full name: the expected rows.
        states: By full name: the state of each existing topic.
        partitions: Expected number of partitions of every topic; None expects the largest number among `states`.
        vital: Full names of the topics on which all work depends.
        silent: By topic and partition: the reason why the partition's leader does not answer.
    """
    count = partitions or max((state.partitions for state in states.values()), default=0)
    wrong: dict[str, str] = {}
    trouble: list[str] = []
    notes: list[str] = []
    for name, topic in table.items():
        state = states.get(name)
        if state is None:
            wrong[name] = f"{name}: no such topic; make it with `lifecycle topics apply`"
            continue
        if why := _wrong(topic, state, count):
            wrong[name] = f"{name} is not as the table says: {'; '.join(why)}; `lifecycle topics plan` says what to do"
        if not state.may_write:
            trouble.append(f"{name}: this principal may not write it; `lifecycle topics acls` lists the rights")
        closed = {number: why for (topic_name, number), why in silent.items() if topic_name == name}
        writable = set(range(state.partitions)) - set(state.leaderless) - set(_lagging(state)) - closed.keys()
        findings = trouble if name in vital and not writable else notes
        findings += [f"{name}: {text}" for text in _unwritable(state, closed)]
        notes += [f"{name}: {text}" for text in _notes(topic, state)]
    return TopicVerdict(wrong, tuple(trouble), tuple(notes))


def settings_fault(name: str, topic: Topic, state: TopicStatus) -> str:
    """Returns the fault of a topic apart from the partition count; empty text without a fault."""
    return judge({name: topic}, {name: state}, state.partitions).wrong.get(name, "")


def _wrong(topic: Topic, state: TopicStatus, count: int) -> list[str]:
    """Returns the deviations that forbid writing."""
    found = []
    if state.partitions != count:
        found.append(f"{_many(state.partitions)}, not {count}")
    config = {} if state.config is None else state.config
    for setting in ("cleanup.policy", "message.timestamp.type"):
        have, want = config.get(setting), topic.config[setting]
        # An unreadable setting is no fault here: `_notes` reports missing rights.
        if have is not None and have != want:
            found.append(f"{setting} is {have}, not {want}")
    kept = int(config.get("retention.ms", "-1"))  # -1 keeps records for ever
    if topic.retention_ms is not None and 0 <= kept < topic.retention_ms:
        found.append(f"retention.ms is {kept}, less than {topic.retention_ms}")
    return found


def _needed(state: TopicStatus) -> int:
    """Returns the number of in-sync replicas that a record with `acks=all` needs."""
    return int((state.config or {}).get("min.insync.replicas", "1"))


def _lagging(state: TopicStatus) -> list[int]:
    """Returns the partitions with fewer replicas in sync than a record needs."""
    # Kafka 4 caps `min.insync.replicas` at the number of replicas.
    return [
        number for number, (in_sync, replicas) in enumerate(state.replicas) if in_sync < min(_needed(state), replicas)
    ]


def _unwritable(state: TopicStatus, silent: Mapping[int, str]) -> list[str]:
    """Returns the reasons why partitions accept no record."""
    found = []
    if state.leaderless:
        found.append(f"no leader of partition {', '.join(map(str, state.leaderless))}")
    if lagging := _lagging(state):
        least = min(state.replicas[number][0] for number in lagging)
        found.append(f"{least} of {_needed(state)} needed replicas in sync (min.insync.replicas)")
    if silent:
        found.append(f"partition {', '.join(map(str, sorted(silent)))}: {silent[min(silent)]}")
    return found


def _notes(topic: Topic, state: TopicStatus) -> list[str]:
    """Returns the deviations that do not forbid writing."""
    if state.config is None:
        return ["its settings may not be read, so they are not compared with the table; grant DescribeConfigs"]
    have, want = int(state.config.get("max.message.bytes", "0")), int(topic.config["max.message.bytes"])
    return [f"max.message.bytes is {have}, less than {want}: larger records are refused"] if have < want else []


def _many(count: int) -> str:
    return "1 partition" if count == 1 else f"{count} partitions"
