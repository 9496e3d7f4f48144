"""Output and exit status of `lifecycle reconcile`."""

from typing import Any

import pytest

from services.cli.exits import Exit
from services.cli.reconcile_text import print_run, status_of
from tests.support.terminal import COLUMNS

_MISSING = "organisation file: missing"
_UNREAD = {"key": "org:i", "action": "unread", "reason": "its configuration: HTTP 503", "read_at": None}

_HELD = {"org": "11111111-1111-4111-8111-111111111111", "newcomers": 9, "limit": 5, "approval": "0123456789abcdef"}


def found(*refusals: tuple[str, str], **changes: Any) -> dict[str, Any]:
    told = [{"scope": scope, "reason": reason} for scope, reason in refusals]
    return {
        "plan": [],
        "refusals": told,
        "read": [],
        "published": 0,
        "stopped": None,
        "held": [],
        "look_again_at": None,
    } | changes


def test_a_few_organisations_without_information_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    print_run(found(*((f"org-{n}", _MISSING) for n in range(10))))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"no information: org-0: {_MISSING}"
    assert len(lines) == 11


def test_many_organisations_without_information_are_counted_by_reason(capsys: pytest.CaptureFixture[str]) -> None:
    print_run(found(*((f"org-{n}", _MISSING) for n in range(10)), ("org-x", "login refused")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"no information: 10 times: {_MISSING}", "no information: once (org-x): login refused"]
    assert len(lines) == 3


def test_an_empty_plan_has_no_header(capsys: pytest.CaptureFixture[str]) -> None:
    print_run(found())
    assert capsys.readouterr().out.splitlines() == ["0 organisations read, 0 observations published"]


def test_unread_keys_are_named_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    print_run(found(plan=[_UNREAD]))
    lines = capsys.readouterr().out.splitlines()
    assert "its configuration: HTTP 503" in lines[1]
    assert lines[2] == "0 organisations read, 0 observations published, keys not read or not whole: 1"


def test_a_held_organisation_is_told_with_the_command_that_lets_it_in(capsys: pytest.CaptureFixture[str]) -> None:
    print_run(found(held=[_HELD]))
    said, _, command, _ = capsys.readouterr().out.splitlines()
    assert said.startswith(f"HELD: {_HELD['org']}: its first run would create 9 tenants")
    assert command.strip() == "lifecycle reconcile --now --org 11111111 --approve 0123456789abcdef"
    assert len(command) <= COLUMNS


@pytest.mark.parametrize(
    ("run", "status"),
    [
        (found(), Exit.OK),
        (found(("org-1", _MISSING)), Exit.OK),
        (found(("org-1", _MISSING), ("org-2", "organisation file: not JSON")), Exit.DEVIATION),
        (found(("org-1", "login refused")), Exit.DEVIATION),
        (found(("org-1", "login refused"), ("org-2:i", "not written: _MSG_TIMED_OUT")), Exit.UNREACHABLE),
        (found(stopped={"absent": 9, "limit": 5, "approval": None}), Exit.DEVIATION),
        (found(held=[_HELD]), Exit.DEVIATION),
        (found(plan=[_UNREAD]), Exit.DEVIATION),
        (found(plan=[_UNREAD | {"action": "wait"}]), Exit.OK),
    ],
    ids=[
        "well",
        "no credentials",
        "bad credentials",
        "not read",
        "not written",
        "brake",
        "held",
        "unread key",
        "waiting key",
    ],
)
def test_the_status_of_a_run_tells_unread_and_stopped_work(run: dict[str, Any], status: Exit) -> None:
    assert status_of(run) is status
