"""The tables of the specification match the code: topics, records and their fields, stages.

Rule: a table is compared cell by cell with what is built; a difference is mended where it is wrong.
"""

import re
from typing import Final

import pytest
from pydantic import BaseModel

from schemas.audit import Audit
from schemas.dead_letter import DeadLetter
from schemas.event import Event, Observed, Recheck
from schemas.outcome import Outcome
from schemas.seal import Seal
from schemas.tenant import Desired, Tenant
from schemas.topics import TOPICS, Topic
from services.core.delivery import timestamp_rule
from services.core.ledger.stage import TABLE
from tests.support.document_texts import TOP, read

PAGE: Final = "docs/specification.md"
DAY_MS: Final = 86_400_000

RECORDS: Final[dict[str, type[BaseModel]]] = {
    "event": Event,
    "desired": Desired,
    "outcome": Outcome,
    "tenant": Tenant,
    "observed": Observed,
    "recheck": Recheck,
    "audit": Audit,
    "seal": Seal,
    "dead letter": DeadLetter,
}


def table(first: str) -> list[tuple[str, ...]]:
    """Returns the rows of the table whose header begins with this cell."""
    lines = read(PAGE).split(f"\n| {first} |")[1].split("\n\n")[0].splitlines()
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines[2:]]


def cleanup(topic: Topic) -> str:
    if topic.retention_ms is None:
        return "compact"
    stamped = ", LogAppendTime" if topic.log_append_time else ""
    return f"delete, {topic.retention_ms // DAY_MS} d{stamped}"


def test_the_topics_match_the_topic_table() -> None:
    expected = [
        (
            f"`{topic.name}`",
            "key" if topic.keyed else "key or none",
            ", ".join(topic.writers),
            ", ".join(topic.readers),
            cleanup(topic),
        )
        for topic in TOPICS
        if not topic.name.endswith("-changelog")
    ]
    assert table("topic") == expected


def test_the_stages_match_the_stage_table() -> None:
    expected = [(row.desired, row.outcomes, "none" if row.stage is None else f"`{row.stage}`") for row in TABLE]
    assert table("desired") == expected


def test_every_record_is_in_the_record_table() -> None:
    assert [name for name, _ in table("record")] == list(RECORDS)


@pytest.mark.parametrize(("name", "told"), table("record"))
def test_the_record_table_lists_the_fields_of_each_model(name: str, told: str) -> None:
    fields = RECORDS[name].model_fields.items()
    expected = [field.alias or name for name, field in fields]
    bare = re.sub(r" ?\([^)]*\)", "", told.partition(";")[0])
    assert sorted(bare.split(", ")) == sorted(expected)


def test_the_horizon_is_25_minutes() -> None:
    assert timestamp_rule.HORIZON_US == 25 * 60 * 1_000_000
    assert "(25 min)" in read(PAGE)


def test_the_specification_links_every_decision() -> None:
    decisions = {path.name for path in (TOP / "docs/decisions").glob("0*.md")}
    linked = set(re.findall(r"\(decisions/([^)]+)\)", read(PAGE)))
    assert decisions == linked


def test_the_index_of_the_decisions_lists_each_by_its_title() -> None:
    folder = TOP / "docs/decisions"
    titles = {path.name: path.read_text(encoding="utf-8").splitlines()[0] for path in folder.glob("0*.md")}
    listed = re.findall(r"^- \[(\d{4})\]\(([^)]+)\): (.+)$", read("docs/decisions/README.md"), re.MULTILINE)
    assert {name: f"# {number}: {title}" for number, name, title in listed} == titles
