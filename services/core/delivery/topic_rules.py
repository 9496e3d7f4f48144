"""Judges topics as a cluster has them against the table of `schemas.topics`: may deliveries be acknowledged into them?

Rule: a topic that would lose acknowledged records, or misplace or misdate them, is none. What only refuses a record, or
keeps it longer, is told and forbids nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from schemas.topics import Topic


class TopicStatus(Protocol):
    """One topic as a cluster has it."""

    @property
    def partitions(self) -> int:
        """How many."""

    @property
    def config(self) -> Mapping[str, str] | None:
        """Its settings; None where they may not be read."""

    @property
    def replicas(self) -> tuple[tuple[int, int], ...]:
        """Of each partition, how many are in sync, and how many there are."""

    @property
    def leaderless(self) -> tuple[int, ...]:
        """Partitions without a leader."""

    @property
    def may_write(self) -> bool:
        """False: this principal may not."""


@dataclass(frozen=True, slots=True)
class TopicVerdict:
    """What is to be said of some topics.

    Attributes:
        wrong: Topic to why nothing may be written to it.
        trouble: Why no record would be written now, though the topics are right; a sentence each.
        notes: What is not as it should be, and keeps no record from being written.
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
    """Compare some topics with the table.

    A part that takes no record is noted: the others take theirs, and a writer is told of each record. Trouble is what
    takes no record at all: a topic that may not be written, and a vital one without any partition that takes one.

    Args:
        table: Full name to row, of the topics asked about.
        states: Full name to what there is; a topic that is not there is absent.
        partitions: How many every topic has, where an operator says so; None: as many as the largest of them.
        vital: Full names of topics without which nothing works.
        silent: Topic and partition to why its leader does not answer.
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
        taking = set(range(state.partitions)) - set(state.leaderless) - set(_short(state)) - closed.keys()
        told = trouble if name in vital and not taking else notes
        told += [f"{name}: {text}" for text in _untaken(state, closed)]
        notes += [f"{name}: {text}" for text in _notes(topic, state)]
    return TopicVerdict(wrong, tuple(trouble), tuple(notes))


def settings_fault(name: str, topic: Topic, state: TopicStatus) -> str:
    """Returns what is wrong with one topic beside its partition count; empty text when nothing is."""
    return judge({name: topic}, {name: state}, state.partitions).wrong.get(name, "")


def _wrong(topic: Topic, state: TopicStatus, count: int) -> list[str]:
    found = []
    if state.partitions != count:
        found.append(f"{_many(state.partitions)}, not {count}")
    config = {} if state.config is None else state.config
    for setting in ("cleanup.policy", "message.timestamp.type"):
        have, want = config.get(setting), topic.config[setting]
        if have is not None and have != want:
            found.append(f"{setting} is {have}, not {want}")
    kept = int(config.get("retention.ms", "-1"))
    if topic.retention_ms is not None and 0 <= kept < topic.retention_ms:
        found.append(f"retention.ms is {kept}, less than {topic.retention_ms}")
    return found


def _needed(state: TopicStatus) -> int:
    return int((state.config or {}).get("min.insync.replicas", "1"))


def _short(state: TopicStatus) -> list[int]:
    """The partitions with fewer replicas in sync than a record needs."""
    return [
        number for number, (in_sync, there_are) in enumerate(state.replicas) if in_sync < min(_needed(state), there_are)
    ]


def _untaken(state: TopicStatus, silent: Mapping[int, str]) -> list[str]:
    """Why partitions take no record, in words."""
    found = []
    if state.leaderless:
        found.append(f"no leader of partition {', '.join(map(str, state.leaderless))}")
    if short := _short(state):
        least = min(state.replicas[number][0] for number in short)
        found.append(f"{least} of {_needed(state)} needed replicas in sync (min.insync.replicas)")
    if silent:
        found.append(f"partition {', '.join(map(str, sorted(silent)))}: {silent[min(silent)]}")
    return found


def _notes(topic: Topic, state: TopicStatus) -> list[str]:
    if state.config is None:
        return ["its settings may not be read, so they are not compared with the table; grant DescribeConfigs"]
    have, want = int(state.config.get("max.message.bytes", "0")), int(topic.config["max.message.bytes"])
    return [f"max.message.bytes is {have}, less than {want}: larger records are refused"] if have < want else []


def _many(count: int) -> str:
    return "1 partition" if count == 1 else f"{count} partitions"
