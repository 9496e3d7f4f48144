"""Nothing is skipped in silence: a run ends by saying how many tests ran, and what could not run for want of what.

Rule: with LIFECYCLE_REQUIRE_ALL set, as in CI, a skipped test fails the run. `make test` loads it (`-p tests.skips`).
"""

import os
from collections import Counter
from typing import Any

import pytest

_RAN = ("passed", "failed", "error", "xfailed", "xpassed")
_REQUIRED = "LIFECYCLE_REQUIRE_ALL"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say it."""
    ran = sum(len(terminalreporter.stats.get(outcome, ())) for outcome in _RAN)
    reasons = _reasons(terminalreporter)
    terminalreporter.write_line(f"{ran} tests ran, {reasons.total()} could not")
    for reason, count in reasons.items():
        terminalreporter.write_line(f"  {count} could not run: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that had to be whole and was not."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    is_worker = hasattr(session.config, "workerinput")
    if os.environ.get(_REQUIRED) and not is_worker and reporter and _reasons(reporter) and session.exitstatus == 0:
        reporter.write_line(f"{_REQUIRED} is set, and tests were skipped")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _reasons(reporter: Any) -> Counter[str]:
    """The reasons for skipped tests, with their counts."""
    return Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reporter.stats.get("skipped", ()))
