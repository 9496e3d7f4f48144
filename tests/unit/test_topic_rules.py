"""Topics of a cluster against the table: settings that forbid a record, that keep it out, and that are only noted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from schemas.topics import DEAD_LETTERS, RECEIVED
from services.adapters.kafka.topic_state import TopicCondition as State
from services.core.delivery.topic_rules import TopicVerdict, judge, settings_fault

TABLE = {"p-received": RECEIVED, "p-dead": DEAD_LETTERS}
RIGHT = {
    name: State(4, topic.config | {"min.insync.replicas": "2"}, ((3, 3),) * 4, (), may_write=True)
    for name, topic in TABLE.items()
}


def received(**config: str) -> dict[str, State]:
    known = RIGHT["p-received"]
    return RIGHT | {"p-received": replace(known, config={**(known.config or {}), **config})}


def test_topics_that_match_the_table_are_right() -> None:
    verdict = judge(TABLE, RIGHT, 4)
    assert (verdict.wrong, verdict.trouble, verdict.notes) == ({}, (), ())
    assert not judge(TABLE, RIGHT, None).wrong


def test_a_missing_topic_is_named_with_its_cure() -> None:
    (said,) = judge(TABLE, {"p-dead": RIGHT["p-dead"]}, None).wrong.values()
    assert said == "p-received: no such topic; make it with `lifecycle topics apply`"


@pytest.mark.parametrize("partitions", [None, 4])
def test_another_partition_count_is_wrong_against_the_other_topic_or_the_setting(partitions: int | None) -> None:
    states = RIGHT | {"p-received": replace(RIGHT["p-received"], partitions=1)}
    assert (
        "p-received is not as the table says: 1 partition, not 4"
        in judge(TABLE, states, partitions).wrong["p-received"]
    )


def test_the_partition_setting_counts_above_the_topics() -> None:
    assert set(judge(TABLE, RIGHT, 12).wrong) == set(TABLE)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("message.timestamp.type", "CreateTime"),
        ("retention.ms", "3600000"),
        ("retention.ms", "0"),
    ],
)
def test_a_setting_that_loses_or_misdates_deliveries_is_wrong(setting: str, value: str) -> None:
    verdict = judge(TABLE, received(**{setting: value}), None)
    assert list(verdict.wrong) == ["p-received"]
    assert f"{setting} is {value}" in verdict.wrong["p-received"]


@pytest.mark.parametrize(
    ("setting", "value"), [("retention.ms", "-1"), ("retention.ms", "99999999999"), ("max.message.bytes", "9999999")]
)
def test_a_longer_retention_or_larger_record_limit_is_right(setting: str, value: str) -> None:
    verdict = judge(TABLE, received(**{setting: value}), None)
    assert (verdict.wrong, verdict.notes) == ({}, ())


def test_a_smaller_record_limit_is_noted() -> None:
    verdict = judge(TABLE, received(**{"max.message.bytes": "5000"}), None)
    assert (verdict.wrong, len(verdict.notes)) == ({}, 1)


def test_unreadable_topic_settings_are_noted_with_the_missing_right() -> None:
    verdict = judge(TABLE, RIGHT | {"p-dead": replace(RIGHT["p-dead"], config=None)}, None)
    assert (verdict.wrong, verdict.trouble) == ({}, ())
    assert "DescribeConfigs" in verdict.notes[0]


def test_an_unwritable_topic_is_trouble() -> None:
    verdict = judge(TABLE, RIGHT | {"p-dead": replace(RIGHT["p-dead"], may_write=False)}, None, vital={"p-received"})
    assert not verdict.wrong
    assert "this principal may not write it" in verdict.trouble[0]


SILENT = {("p-received", number): "its leader does not answer" for number in range(4)}


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        ({"replicas": ((3, 3), (3, 3), (3, 3), (1, 3))}, {"replicas": ((1, 3),) * 4}, "1 of 2 needed replicas in sync"),
        ({"leaderless": (2, 3)}, {"leaderless": (0, 1, 2, 3)}, "no leader of partition"),
        ({}, {}, "its leader does not answer"),
    ],
)
def test_a_topic_that_takes_no_record_is_trouble_and_a_partial_loss_a_note(
    part: dict[str, Any], whole: dict[str, Any], said: str
) -> None:
    def judged(name: str, change: dict[str, Any], silent: Mapping[tuple[str, int], str]) -> TopicVerdict:
        there = RIGHT | {name: replace(RIGHT[name], **change)}
        return judge(TABLE, there, None, vital={"p-received"}, silent=silent)

    some = {} if part else {("p-received", 3): "its leader does not answer"}
    partly = judged("p-received", part, some)
    assert not partly.trouble
    assert said in partly.notes[0]
    wholly = judged("p-received", whole, {} if whole else SILENT)
    assert not wholly.notes
    assert said in wholly.trouble[0]
    dead = {("p-dead", number): "its leader does not answer" for number in range(4)}
    other = judged("p-dead", whole, {} if whole else dead)
    assert not other.trouble, "without dead letters deliveries are taken all the same"
    assert said in other.notes[0]


def test_partitions_failing_for_different_reasons_add_up_to_trouble() -> None:
    there = RIGHT | {"p-received": replace(RIGHT["p-received"], leaderless=(0,), replicas=((3, 3), (1, 3)) * 2)}
    silent = {("p-received", 2): "its leader does not answer"}
    assert judge(TABLE, there, None, vital={"p-received"}, silent=silent).trouble
    assert not judge(TABLE, there, None, vital={"p-received"}).trouble


def test_fewer_replicas_than_should_be_in_sync_are_enough_when_there_are_no_more() -> None:
    # A broker since Kafka 4.1 asks for no more than there are; one before refuses, and that is seen by the refusal.
    assert not judge(TABLE, RIGHT | {"p-dead": replace(RIGHT["p-dead"], replicas=((1, 1),))}, None).trouble


def test_the_settings_of_a_topic_are_judged_without_its_partition_count() -> None:
    assert not settings_fault("p-received", RECEIVED, replace(RIGHT["p-received"], partitions=1))
    wrong = received(**{"cleanup.policy": "compact"})["p-received"]
    assert "cleanup.policy is compact, not delete" in settings_fault("p-received", RECEIVED, wrong)
