"""The prose rule counts as documented, and a breach of each part is found."""

import re
from pathlib import Path

import pytest

from tests.prose_rules import Prose, ProseReading, breaches, main, prose_of

PLAIN = '"""Publishes records."""\n\n\ndef flush() -> None:\n    """Wait for the broker."""\n'


def test_words_questions_and_comments_are_counted() -> None:
    text = '"""Whether it is so."""\n# why\n\n\nclass A:\n    """Returns the record."""\n'
    assert prose_of(text) == Prose(words=7, indefinite=2, docstrings=2, questions=1, comments=1, lines=6)


def test_plain_prose_is_accepted() -> None:
    assert breaches(ProseReading({"a.py": prose_of(PLAIN)}, {"A": ["a.py"]}), {}) == []


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (ProseReading({"a.py": Prose(words=1000, indefinite=46, docstrings=100)}), "46 indefinite words"),
        (
            ProseReading({"a.py": Prose(words=1000, docstrings=100, questions=4)}),
            "4.0 % of docstrings begin",
        ),
        (
            ProseReading({"a.py": Prose(words=100, indefinite=8), "b.py": Prose(words=1000)}),
            "a.py: 80 indefinite words",
        ),
        (ProseReading({}, {"Row": ["a.py", "b.py"]}), "class Row is defined in a.py, b.py"),
    ],
)
def test_a_breach_of_each_rule_is_found(reading: ProseReading, words: str) -> None:
    (found,) = breaches(reading, {})
    assert words in found


def test_a_small_file_is_not_judged_by_itself() -> None:
    assert breaches(ProseReading({"a.py": Prose(words=59, indefinite=59), "b.py": Prose(words=5000)}), {}) == []


def test_an_exception_counts_only_while_it_is_needed() -> None:
    reading = ProseReading({}, {"Row": ["a.py", "b.py"]})
    assert breaches(reading, {"Row": "reason"}) == []
    assert breaches(reading, {"Row": "reason", "Gone": "reason"}) == ["class Gone is excepted and not defined twice"]


def test_no_comment_has_a_broken_wrap() -> None:
    broken = re.compile(r"^ *# {2,}\S+$", re.MULTILINE)
    root = Path(__file__).parents[2]
    files = [path for folder in ("schemas", "services", "tests", "deploy") for path in (root / folder).rglob("*.py")]
    assert len(files) > 100
    assert [str(path) for path in files if broken.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.slow  # `make check` says so as well
def test_the_product_keeps_the_rules() -> None:
    assert main([]) == 0
