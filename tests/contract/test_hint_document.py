"""docs/connect-genesys.md matches the ingress: answers, names, numbers. tests/e2e/test_hints.py runs its commands."""

import json
import re
from pathlib import Path

from schemas import hint
from schemas.webhook import BODY_MAX_BYTES
from services.core.delivery.hint_rule import ACTIONS, judge_subject, judge_topic
from services.core.reconcile.recheck_schedule import RECHECK_EVERY_US
from services.ingress.http import answers
from services.ingress.recent import RECHECK_MAX, RECHECK_US
from tests.support.hints import HINT_PATH, envelope

TEXT = (Path(__file__).parents[2] / "docs" / "connect-genesys.md").read_text(encoding="utf-8")
KEY = "98765432-1234-5678-9abc-def012345678:a1b2c3d4-e5f6-7890-abcd-ef1234567890"


def test_exactly_the_answers_to_hints_are_documented() -> None:
    table = TEXT.split("| answer | when |")[1].split("\n\n")[0]
    cells = re.findall(r"^\| (\d[^|]+) \|", table, re.MULTILINE)
    statuses = {int(status) for cell in cells for status in re.findall(r"\b[2-5]\d\d\b", cell)}
    assert statuses == {answer.status for answer in (*answers.HINTS, answers.malformed("field", "rule"))}
    said = {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}
    good = {
        json.loads(answer.kept.rpartition(b"\r\n")[2])["status"] for answer in answers.HINTS if answer.status == 200
    }
    assert said == good


def test_the_documented_headers_path_and_actions_are_those_of_the_code() -> None:
    assert f"name `{hint.SECRET_HEADER}`" in TEXT
    assert f"`{hint.AUTHORIZATION}` is understood" in TEXT
    assert f"{hint.PATH}genesys-audit`" in TEXT
    assert HINT_PATH.startswith(hint.PATH)
    (named,) = re.findall(r"one of ([A-Z][A-Za-z, ]+);", TEXT)
    assert {action.casefold() for action in named.split(", ")} == ACTIONS


def test_the_documented_numbers_match_the_code() -> None:
    assert f"at most {BODY_MAX_BYTES // 1024} KiB" in TEXT
    assert f"more than {RECHECK_MAX:,} keys in {RECHECK_US // 60_000_000} minutes" in TEXT
    assert f"at most once in {RECHECK_EVERY_US // 60_000_000} minutes" in TEXT


def test_the_documented_pattern_selects_what_asks_a_recheck() -> None:
    (text,) = (one for one in re.findall(r"^```json\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) if '"source"' in one)
    pattern, event = json.loads(text), envelope(KEY)
    assert event["source"].startswith(pattern["source"][0]["prefix"])
    body = pattern["detail"]["eventBody"]
    found = hint.parse(json.dumps(event).encode())
    assert judge_topic(found.topic) is None
    assert judge_subject(hint.subject(found.event)) is None
    assert {name: [found.event[name]] for name in body} == body
