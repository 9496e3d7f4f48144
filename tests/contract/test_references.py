"""References by number have a target: sections, invariants, rows of the time rule, hostile sequences, edge cases.

Rule: a number is looked up on the page that has it. A section of the specification is a heading there, an invariant an
item of its last section, a T or S number the first cell of a row, an edge case a heading of the guide's page. Links and
paths are the matter of `test_documents`.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.document_texts import TOP, Text, documents, plain, python, read, strings

SPECIFICATION: Final = "docs/specification.md"
NUMBERS: Final = "docs/reliability.md"
GUIDE: Final = "docs/guide.md"

SECTION, INVARIANT, EDGE_CASE = "section", "invariant", "edge case"

_N: Final = r"\d+(?:\.\d+)?"
_LIST: Final = rf"{_N}(?:(?:,|,?\s+(?:and|or|to)|\s*[\u2013-])\s*§?\s*{_N})*"
_NAMES: Final = {
    # between the word and the number may stand a link's target, a comma, and the word or the sign of a section
    SECTION: re.compile(
        rf"\bspec(?:ification)?(?:'s)?(?:\]\([^)]*\))?,?\s+(?:section\s+|§\s*)?({_N})"
        rf"|§\s*({_LIST})|\bsection\s+({_N})|\bsections\s+({_LIST})",
        re.IGNORECASE,
    ),
    INVARIANT: re.compile(rf"\binvariants?\s+({_LIST})", re.IGNORECASE),
    EDGE_CASE: re.compile(rf"\bedge\s+cases?\s+({_LIST})", re.IGNORECASE),
}
_LETTERED: Final = re.compile(r"\b([SF])(\d{1,2})\b|(?<=\s)(T)(\d{1,2})\b|\b(T)(\d{1,2})(?=[\s:.,;)|])")
"""A string that is nothing but a T and digits may be an hour of the day."""
_TEST: Final = re.compile(r"\btest_([stf])(\d{1,2})_")
_T_TABLE: Final = re.compile(r"\bT-table\b")
_OF_ANOTHER: Final = re.compile(r"(?:\bRFC\s+\d+|\d+\.\d+\.\d+)[^.;]{0,20}$")
"""What stands before the section of an RFC, or of a numbered version of another document."""


class Reference(NamedTuple):
    """A number, and the sort of place that it names: `section`, `invariant`, `edge case`, `S`, `T` or `F`."""

    sort: str
    number: str


def references(text: str) -> Iterator[Reference]:
    """Yields what a text refers to by number; line breaks count as spaces."""
    for sort, names in _NAMES.items():
        for found in names.finditer(text):
            if sort == SECTION and _OF_ANOTHER.search(text[: found.start()]):
                continue
            numbers = next(group for group in found.groups() if group)
            yield from (Reference(sort, number) for number in re.findall(_N, numbers))
    for found in _LETTERED.finditer(text):
        letter, number = (group for group in found.groups() if group)
        yield Reference(letter, number)
    yield from (Reference(found[1].upper(), found[2]) for found in _TEST.finditer(text))
    yield from (Reference("T", "1") for _ in _T_TABLE.finditer(text))


def texts() -> Iterator[Text]:
    """Yields whatever may refer to something: documents whole, and of a Python file strings, comments and tests."""
    for name in (*documents(), *plain()):
        yield Text(name, 1, read(name))
    for name in python("services/", "schemas/", "tests/"):
        if TOP / name == Path(__file__):
            continue
        yield from _joined(strings(name))
        named = re.findall(r"^ *(?:async )?def (test_\w+)", read(name), re.MULTILINE)
        yield Text(name, 1, "\n".join(named))


def _joined(found: tuple[Text, ...]) -> Iterator[Text]:
    """The same, comments on lines that follow each other being one text."""
    comments = [text for text in found if text.text.startswith("#")]
    yield from (text for text in found if not text.text.startswith("#"))
    for _, block in groupby(enumerate(comments), lambda numbered: numbered[1].line - numbered[0]):
        texts = [text for _, text in block]
        yield texts[0]._replace(text="\n".join(text.text.removeprefix("#") for text in texts))


@cache
def places() -> frozenset[Reference]:
    """Returns every place that has a number."""
    invariants = read(SPECIFICATION).split("\n## 9. ")[1]
    found = {
        SECTION: re.findall(rf"^##+ ({_N})\.? ", read(SPECIFICATION), re.MULTILINE),
        INVARIANT: re.findall(r"^(\d+)\. ", invariants, re.MULTILINE),
        EDGE_CASE: re.findall(r"^## Edge case (\d+)", read(GUIDE), re.MULTILINE),
    }
    rows = re.findall(r"^\| ([STF])(\d+) \|", read(NUMBERS), re.MULTILINE)
    numbered = {Reference(sort, number) for sort, numbers in found.items() for number in numbers}
    return frozenset(numbered | {Reference(*row) for row in rows})


def test_every_numbered_reference_has_a_target() -> None:
    wrong, sorts = list[str](), set[str]()
    for text in texts():
        for reference in references(text.text):
            sorts.add(reference.sort)
            if reference not in places():
                wrong.append(text.says(f"{reference.sort} {reference.number}"))
    assert sorts >= {SECTION, EDGE_CASE, "S", "T"}, "the instrument sees what is there"
    assert not wrong, "\n" + "\n".join(sorted(set(wrong)))


def test_the_pages_are_numbered_without_gaps() -> None:
    def numbers(sort: str) -> list[str]:
        return sorted((place.number for place in places() if place.sort == sort), key=float)

    assert numbers(SECTION) == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "8.1", "9"]
    assert numbers(INVARIANT) == [str(n) for n in range(1, 10)]
    assert numbers(EDGE_CASE) == ["1", "2", "3"]
    assert numbers("T") == [str(n) for n in range(1, 8)]
    assert numbers("S") == [str(n) for n in range(1, 23)]


@pytest.mark.parametrize(
    ("text", "sort"),
    [
        ("(spec, section {})", SECTION),
        ("as spec section {} says", SECTION),
        ("spec {}: what is answered", SECTION),
        ("Specification section {}", SECTION),
        ("(specification, section\n{})", SECTION),
        ("the specification's §{}", SECTION),
        ("[specification](specification.md), section {}", SECTION),
        ("Section {} says that", SECTION),
        ("see §{}", SECTION),
        ("by RFC 6749 it is so. Section {} says more", SECTION),
        ("holds invariant {}", INVARIANT),
        ("the guide's edge case {}", EDGE_CASE),
        ("the guide, edge\n    case {}", EDGE_CASE),
        ("sequence S{}", "S"),
        ("S{}: the same bytes", "S"),
        ("def test_s{}_the_same_bytes() -> None:", "S"),
        ("T{}: B is ahead", "T"),
        ("| T{} |", "T"),
        ("names T{}", "T"),
        ("fault F{}", "F"),
    ],
)
def test_a_reference_is_found_and_a_made_up_number_has_no_target(text: str, sort: str) -> None:
    for number in ("7", "42", "99"):
        assert list(references(text.format(number))) == [Reference(sort, number)]
    assert Reference(sort, "42") not in places()
    assert Reference(sort, "99") not in places()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sections 2, 5 and 42", [(SECTION, "2"), (SECTION, "5"), (SECTION, "42")]),
        ("section 8.1.", [(SECTION, "8.1")]),
        ("invariants 1 and 4", [(INVARIANT, "1"), (INVARIANT, "4")]),
        ("The sequences S1 to S12, S16", [("S", "1"), ("S", "12"), ("S", "16")]),
        ("the T-table", [("T", "1")]),
    ],
)
def test_lists_and_ranges_count_as_several_references(text: str, expected: list[tuple[str, str]]) -> None:
    assert list(references(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "RFC 6749 section 4.4",
        "RFC 2104, whose section 4 keeps the keyed states",
        "CloudEvents Kafka protocol\nbinding 1.0.2, section 3.2",
        "# noqa: S311 - not a secret",
        "2024-01-15T14:32:10Z",
        "T99",
        "PT6H",
        "f:{F}:{B}",
        "of the specification. 7 days",
        "a section of 3 rows",
    ],
)
def test_references_to_foreign_documents_are_ignored(text: str) -> None:
    assert list(references(text)) == []


def test_a_comment_over_two_lines_is_joined() -> None:
    lines = (Text("a.py", 1, "# as the specification, section"), Text("a.py", 2, "# 42 says"), Text("a.py", 9, "# S99"))
    assert [list(references(text.text)) for text in _joined(lines)] == [[(SECTION, "42")], [("S", "99")]]
