"""The scan of the log calls: what it finds, and what it refuses."""

from pathlib import Path

import pytest

from tests.log_lines import LogLine, Unscannable, breaches, scan


def scanned(folder: Path, text: str, path: str = "services/ledger/main.py") -> list[LogLine]:
    file = folder / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return list(scan(folder))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('log.info("stage", key=k)', [("stage", "info", ("key",))]),
        ('self._log.exception("broken")', [("broken", "error", ())]),
        ('self.ledger.log.error("task ended", task=t, exc_info=e)', [("task ended", "error", ("task",))]),
        ('(log.error if bad else log.info)("outcome", why=w)', [
            ("outcome", "error", ("why",)), ("outcome", "info", ("why",)),
        ]),
        ('write = log.warning if bad else log.info\nwrite("line", key=k)', [
            ("line", "warning", ("key",)), ("line", "info", ("key",)),
        ]),
        ('self._sampled("refused", "why", status=1, **_named(r))', [
            ("refused", "warning", ("count", "key", "reason", "status", "trace_id")),
        ]),
        ("def spool(self, event, **fields):\n    self._log.warning(event, **fields)", []),
        ('math.log(3)\nlogging.info("x")', []),
    ],
)  # fmt: skip
def test_every_form_of_a_log_call_is_found(
    tmp_path: Path, text: str, found: list[tuple[str, str, tuple[str, ...]]]
) -> None:
    assert scanned(tmp_path, text) == [LogLine("ledger", *one) for one in found]


@pytest.mark.parametrize("text", ['log.info(f"spool {event}")', 'log.info("run", **counts)', "log.info(event)"])
def test_a_line_that_cannot_be_known_from_the_code_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Unscannable, match=r"services/ledger/main.py:1"):
        scanned(tmp_path, text)


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("services/adapters/tables/recovery.py", "ledger"),
        ("services/adapters/kafka/rights.py", "every service"),
        ("services/provisioner/kinds/http.py", "provisioner"),
    ],
)
def test_an_adapters_line_is_its_services(tmp_path: Path, path: str, service: str) -> None:
    assert [line.service for line in scanned(tmp_path, 'log.info("stage")', path)] == [service]


def test_an_adapters_line_of_no_known_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unscannable, match="which service writes it"):
        scanned(tmp_path, 'log.info("stage")', "services/adapters/http_client.py")


def test_a_word_without_a_meaning_and_a_meaning_without_a_word_are_breaches(tmp_path: Path) -> None:
    lines = scanned(tmp_path, 'log.info("something new", fault=why)')
    found = list(breaches(lines))
    assert "event 'something new' of the code has no meaning in tests/log_lines.py" in found
    assert "field 'fault' of the code has no meaning in tests/log_lines.py" in found
    assert "field 'why' of tests/log_lines.py is in no log call" in found


def test_the_lines_of_this_house_have_their_meanings() -> None:
    assert list(breaches(list(scan()))) == []
