"""Output and exit status of `lifecycle reconcile`."""

from typing import Any

import pytest

from services.cli.exits import Exit
from services.cli.reconcile import _show
from services.cli.reconcile_rulings import act_json
from services.cli.reconcile_text import Commands, plan_lines, print_act, print_report, print_run, status_of
from services.operations.reconciliation import ReportScope
from services.operations.rulings import BY_PROVISIONER, BY_RECONCILER, ActKind, Ruling, end_us
from tests.support.genesys_worlds import NOW_US
from tests.support.terminal import COLUMNS

_MISSING = "organisation file: missing"
_UNREAD = {"key": "org:i", "action": "unread", "reason": "its configuration: HTTP 503", "read_at": None}

_ORG = "11111111-1111-4111-8111-111111111111"
_HELD = {"org": _ORG, "newcomers": 9, "limit": 5, "approval": "0123456789abcdef", "refused": 0}


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


def print_run_of(run: dict[str, Any]) -> None:
    print_run(run, Commands(ReportScope(), None))


def test_a_few_organisations_without_information_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    print_run_of(found(*((f"org-{n}", _MISSING) for n in range(10))))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"no information: org-0: {_MISSING}"
    assert len(lines) == 11


def test_many_organisations_without_information_are_counted_by_reason(capsys: pytest.CaptureFixture[str]) -> None:
    print_run_of(found(*((f"org-{n}", _MISSING) for n in range(10)), ("org-x", "login refused")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"no information: 10 times: {_MISSING}", "no information: once (org-x): login refused"]
    assert len(lines) == 3


def test_an_empty_plan_has_no_header(capsys: pytest.CaptureFixture[str]) -> None:
    print_run_of(found())
    assert capsys.readouterr().out.splitlines() == ["0 organisations read, 0 observations published"]


def test_unread_keys_are_named_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    print_run_of(found(plan=[_UNREAD]))
    lines = capsys.readouterr().out.splitlines()
    assert "its configuration: HTTP 503" in lines[1]
    assert lines[2] == "0 organisations read, 0 observations published, keys not read or not whole: 1"


def test_a_plan_fits_a_terminal_where_keys_have_equal_beginnings() -> None:
    keys = [f"{_ORG}:a0000000-0000-4000-8000-{number:012}" for number in range(2)]
    reason = "Genesys has it, and the view was never told; the first comparison of a new organisation"
    said = list(plan_lines([{"key": key, "action": "installed", "reason": reason} for key in keys]))
    assert [line for line in said if not line.startswith(" ")] == keys
    assert " ".join(" ".join(said[1 : said.index(keys[1])]).split()) == f"installed: {reason}"
    assert max(map(len, said)) <= COLUMNS


@pytest.mark.parametrize(("at", "is_told"), [("2020-01-01T00:00:00Z", False), ("2999-01-01T00:00:00Z", True)])
def test_a_second_look_is_named_only_while_it_is_ahead(
    at: str, *, is_told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    print_run_of(found(look_again_at=at))
    assert ("look again at" in capsys.readouterr().out) is is_told


def test_a_held_organisation_is_told_with_the_command_that_lets_it_in(capsys: pytest.CaptureFixture[str]) -> None:
    print_run_of(found(held=[_HELD]))
    *said, command, _ = capsys.readouterr().out.splitlines()
    assert " ".join(" ".join(said).split()).startswith(f"HELD: {_ORG}: would create 9 tenants, and at most 5")
    assert all(len(line) <= COLUMNS for line in said)
    assert command.strip() == "lifecycle reconcile --now --org 11111111 --approve 0123456789abcdef --by YOU"
    assert len(command) <= COLUMNS


@pytest.mark.parametrize(
    "scope",
    [ReportScope(), ReportScope(orgs=[_ORG]), ReportScope(keys=[f"{_ORG}:{_ORG}"])],
    ids=["all", "organisation", "key"],
)
def test_commands_repeat_the_scope_and_fit_a_terminal(scope: ReportScope, capsys: pytest.CaptureFixture[str]) -> None:
    commands = Commands(scope, None)
    stop = {"absent": 9, "limit": 5, "approval": "0123456789abcdef", "refused": 0}
    print_run(found(stopped=stop), commands)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "STOPPED: 9 tenants gone, at most 5 may go in one run"
    assert [line.strip() for line in lines[1:3]] == list(commands.of("0123456789abcdef"))
    assert all(len(line) <= COLUMNS for line in [*lines, commands.of_orphans("0123456789abcdef")])
    assert all(word in lines[1] for word in ("--now", "--approve 0123456789abcdef", "--by YOU"))


def test_an_operator_known_by_the_environment_needs_no_name_in_commands() -> None:
    assert "--by" not in " ".join(Commands(ReportScope(), "Ada").of("0123456789abcdef"))


_RULING = Ruling("Ada", "", NOW_US, NOW_US + 3_600_000_000)


def test_a_refusal_at_the_provisioner_has_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    act = act_json("refused", "provisioner", "0123456789abcdef", [f"{_ORG}:1"], _RULING)
    assert act["expires_at"] is None
    print_act(act, Commands(ReportScope(), None))
    said = " ".join(capsys.readouterr().out.split())
    assert "(0123456789abcdef), until an approval by KEY or a reinstall; recorded in the audit trail" in said
    other = act_json("refused", "reconciler", "0123456789abcdef", [f"{_ORG}:1"], _RULING)
    print_act(other, Commands(ReportScope(), None))
    assert f"until {other['expires_at']};" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("kind", "why", "ends"),
    [
        (ActKind.REMOVAL_REFUSED, BY_PROVISIONER, False),
        (ActKind.REMOVAL_REFUSED, BY_RECONCILER, True),
        (ActKind.REMOVAL_APPROVED, BY_PROVISIONER, True),
    ],
)
def test_a_record_of_an_act_has_the_end_that_the_act_has(kind: ActKind, why: str, *, ends: bool) -> None:
    assert end_us(kind, why, _RULING) == (_RULING.expires_us if ends else None)


_GRACED = [
    {"key": f"{_ORG}:2", "until": "2026-05-02T10:00:00Z"},
    {"key": f"{_ORG}:1", "until": "2026-05-01T10:00:00Z"},
]


@pytest.mark.parametrize("verb", ["approved", "refused"])
def test_an_act_names_what_it_did_not_reach_and_ends_with_1(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    keys, commands = [f"{_ORG}:{n}" for n in range(8)], Commands(ReportScope(), None)
    act = act_json(verb, "provisioner", "0123456789abcdef", keys, _RULING, missed=keys[:3])
    assert _show(act, commands, as_json=False, named=False) is Exit.DEVIATION
    said = capsys.readouterr().out
    assert f"{verb} by Ada: 5 removals (0123456789abcdef)" in " ".join(said.split())
    assert f"NOT {verb}: 3 removals of them." in " ".join(said.split())
    assert [line.strip() for line in said.splitlines() if line.strip().startswith(_ORG)] == keys[:3]
    whole = act_json(verb, "provisioner", "0123456789abcdef", keys, _RULING)
    assert _show(whole, commands, as_json=False, named=False) is Exit.OK
    assert "NOT" not in capsys.readouterr().out


def test_an_approval_names_the_removals_that_wait_longer_than_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    act = act_json("approved", "reconciler", "0123456789abcdef", ["a", "b"], _RULING) | {"put_off": []}
    print_act(act, Commands(ReportScope(), None))
    assert "grace" not in capsys.readouterr().out
    print_act(act | {"put_off": _GRACED}, Commands(ReportScope(), None))
    said = capsys.readouterr().out
    assert all(len(line) <= COLUMNS for line in said.splitlines())
    assert (
        "2 removals of them wait for the end of a grace period, the first until 2026-05-01T10:00:00Z, the last until "
        "2026-05-02T10:00:00Z: this approval has ended by then" in " ".join(said.split())
    )


def report_of(**changes: Any) -> dict[str, Any]:
    return {
        "keys": [], "agreeing": 1, "unread": [], "refused": [], "held": [], "in_grace": [],
        "outside": {"read": True, "looked": False, "why": ""}, "brake": {"holds": False, "absent": 0, "limit": 5},
        "held_removals": {"digest": None, "digest_keys": [], "keys": [], "refused": 0},
        "orphans": {"digest": None, "resources": []},
        **changes,
    }  # fmt: skip


def test_a_report_says_that_no_digest_names_what_was_refused(capsys: pytest.CaptureFixture[str]) -> None:
    held = {"digest": "0123456789abcdef", "digest_keys": ["a"], "keys": ["a", "b", "c"], "refused": 2}
    stop = {"holds": True, "absent": 9, "limit": 5, "approval": "fedcba9876543210", "refused": 1}
    print_report(report_of(held_removals=held, brake=stop), Commands(ReportScope(), None))
    said = " ".join(capsys.readouterr().out.split())
    assert "holds 3 removals, 2 of them refused 2 removals that were refused stay, and no digest names them" in said
    assert "may go in one run 1 removal that was refused stays, and no digest names it" in said
    none = {"digest": None, "digest_keys": [], "keys": ["a"], "refused": 1}
    print_report(report_of(held_removals=none), Commands(ReportScope(), None))
    assert "--approve" not in capsys.readouterr().out
    named = held | {"digest_keys": held["keys"]}
    print_report(report_of(held_removals=named), Commands(ReportScope(keys=["a:1"]), None))
    assert "no digest names" not in capsys.readouterr().out


def test_a_report_names_the_end_of_a_grace_period(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report_of(in_grace=_GRACED[:1]), Commands(ReportScope(), None))
    said = " ".join(capsys.readouterr().out.split())
    assert "1 removal in a grace period, until 2026-05-02T10:00:00Z: nothing is deleted before" in said


@pytest.mark.parametrize(
    ("run", "status"),
    [
        (found(), Exit.OK),
        (found(("org-1", _MISSING)), Exit.OK),
        (found(("org-1", _MISSING), ("org-2", "organisation file: not JSON")), Exit.DEVIATION),
        (found(("org-1", "login refused")), Exit.DEVIATION),
        (found(("org-1", "login refused"), ("org-2:i", "not written: _MSG_TIMED_OUT")), Exit.UNREACHABLE),
        (found(stopped={"absent": 9, "limit": 5, "approval": None, "refused": 0}), Exit.DEVIATION),
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
