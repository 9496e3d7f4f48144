"""Prints the results of `lifecycle reconcile` for a person: the plan of a run, and the report of the three views.

Rule: a line fits a terminal of 80 columns, commands to copy included.
"""

import textwrap
from collections.abc import Iterator
from typing import Any, Final

from services.cli.exits import Exit

_NAMED_AT_MOST: Final = 10
"""Refusals listed one by one; a greater number is counted by reason, and `--json` lists all."""

_ORG_SHOWN: Final = 8
"""Characters of an organisation's id in a command to copy."""
_WIDTH: Final = 80


def print_run(found: dict[str, Any]) -> None:
    """Prints the report of a run for a person.

    Args:
        found: The report as JSON.
    """
    from services.cli import show, wording

    if found["plan"]:
        keys = [line["key"] for line in found["plan"]]
        shown = wording.short_keys(keys) if show.shows_results() else {key: key for key in keys}
        rows = [(shown[line["key"]], line["action"], line["reason"]) for line in found["plan"]]
        show.table(("key", "action", "reason"), rows, whole=2)
    for text in _refusal_lines(found["refusals"]):
        print(f"no information: {text}")
    if found["stopped"]:
        stop = found["stopped"]
        print(_stopped_line(stop))
        if stop["approval"]:
            print(f"  {approval_command(stop['approval'])}")
    for one in found["held"]:
        new = wording.counted(one["newcomers"], "tenant")
        print(f"HELD: {one['org']}: its first run would create {new}, and at most {one['limit']} without an approval.")
        print("  Nothing of this organisation is published. Are all of them yours (integration_types)? Then:")
        # The beginning of the id keeps the command within a line of a terminal.
        print(f"  {approval_command(one['approval'], one['org'])}")
    read, again, unread = len(found["read"]), found["look_again_at"], _unread(found)
    print(
        f"{wording.counted(read, 'organisation')} read, {wording.counted(found['published'], 'observation')} published"
        + (f", keys not read or not whole: {unread}" if unread else "")
        + (f"; look again at {again}" if again else "")
    )


def status_of(found: dict[str, Any], *, named: bool = False) -> Exit:
    """Returns the exit status of a run.

    Args:
        found: The report as JSON.
        named: True if the operator named organisations or tenants. Then missing credentials are a deviation; without
            names, an organisation without credentials is not ours to read.
    """
    from services.reconciler.report import NO_CREDENTIALS, NOT_WRITTEN

    reasons = {refusal["reason"] for refusal in found["refusals"]} - (set() if named else {NO_CREDENTIALS})
    if any(reason.startswith(NOT_WRITTEN) for reason in reasons):
        return Exit.UNREACHABLE
    return Exit.DEVIATION if reasons or found["stopped"] or found["held"] or _unread(found) else Exit.OK


def _unread(found: dict[str, Any]) -> int:
    """Returns the number of keys not read, or not read whole."""
    return sum(line["action"] == "unread" for line in found["plan"])


def _refusal_lines(refusals: list[dict[str, str]]) -> Iterator[str]:
    """Yields each refusal with the scope; above `_NAMED_AT_MOST`, a line per reason with a count."""
    if len(refusals) <= _NAMED_AT_MOST:
        yield from (f"{one['scope']}: {one['reason']}" for one in refusals)
        return
    scopes: dict[str, list[str]] = {}
    for one in refusals:
        scopes.setdefault(one["reason"], []).append(one["scope"])
    for reason, of in scopes.items():
        yield f"once ({of[0]}): {reason}" if len(of) == 1 else f"{len(of)} times: {reason}"


def print_report(found: dict[str, Any]) -> None:
    """Prints the report of the three views for a person.

    Args:
        found: The report as JSON.
    """
    from services.cli import show, wording

    keys = [one["key"] for one in found["keys"]]
    shown = wording.short_keys(keys) if show.shows_results() else {key: key for key in keys}
    for one in _told_singly(found):
        print(shown[one["key"]])
        _say(_views_line(one), 2)
        for difference in one["differences"]:
            why = f" ({difference['why']})" if difference["why"] else ""
            _say(f"{difference['difference']}{why}: {difference['decision']} [{difference['by']}]", 2)
    for text in _refusal_lines([{"scope": one["org"], "reason": one["reason"]} for one in found["unread"]]):
        _say(f"no information: {text}")
    if not found["outside"]["read"]:
        _say(f"outside: not read: {found['outside']['why']}")
    _print_holds(found)
    differing = len(found["keys"]) - sum(not one["differences"] for one in found["keys"])
    looked = ", resources looked up" if found["outside"]["looked"] else ""
    _say(f"{wording.counted(differing, 'key')} with a difference, {found['agreeing']:,} without{looked}")


def report_status(found: dict[str, Any], *, named: bool) -> Exit:
    """Returns the exit status of a report: a deviation for any difference, hold or lack of information.

    Args:
        found: The report as JSON.
        named: As of `status_of`.
    """
    from services.reconciler.report import NO_CREDENTIALS

    unread = {one["reason"] for one in found["unread"]} - (set() if named else {NO_CREDENTIALS})
    differs = any(
        difference["by"] != "nobody" or named or NO_CREDENTIALS not in difference["why"]
        for one in found["keys"]
        for difference in one["differences"]
    )
    is_held = found["brake"]["holds"] or found["held"]
    return Exit.DEVIATION if unread or differs or is_held or not found["outside"]["read"] else Exit.OK


def approval_command(digest: str, org: str | None = None) -> str:
    """Returns the command that approves a set, within a line of a terminal."""
    of = f" --org {org[:_ORG_SHOWN]}" if org else ""
    return f"lifecycle reconcile --now{of} --approve {digest}"


def _told_singly(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the keys to print one by one; an unread organisation stands for its keys without other news."""
    unread = {one["org"]: one["reason"] for one in found["unread"]}
    for one in found["keys"]:
        told = unread.get(one["key"].partition(":")[0])
        if one["differences"] and all(difference["why"] == told for difference in one["differences"]):
            continue
        yield one


def _views_line(one: dict[str, Any]) -> str:
    desired, outside = one["desired"], one["outside"]
    flag = {True: ", enabled", False: ", disabled", None: ""}[desired["enabled"]]
    stage = f" ({desired['stage']})" if desired["stage"] else ""
    parts = [f"Genesys {one['genesys']['says']}", f"desired {desired['says']}{flag}{stage}"]
    if outside is not None:
        generation = f" (generation {outside['generation']})" if outside["generation"] else ""
        parts.append(f"outside {outside['shows']}{generation}")
    return "; ".join(parts)


def _print_holds(found: dict[str, Any]) -> None:
    """Prints every hold with the commands of an operator."""
    brake = found["brake"]
    if brake["holds"]:
        print(_stopped_line(brake))
        if brake["approval"]:
            print(f"  {approval_command(brake['approval'])}")
    else:
        _say(f"brake: {brake['absent']} absent, at most {brake['limit']} go in one run")
    for one in found["held"]:
        _say(f"HELD: {one['org']}: {one['newcomers']} new tenants wait for an approval")
        print(f"  {approval_command(one['approval'], one['org'])}")


def _stopped_line(stop: dict[str, Any]) -> str:
    from services.cli import wording

    return f"STOPPED: {wording.counted(stop['absent'], 'tenant')} gone, at most {stop['limit']} may go in one run"


def _say(text: str, indent: int = 0) -> None:
    """Prints a text folded between words, further lines indented by two more columns."""
    before = " " * indent
    for line in textwrap.wrap(
        text, _WIDTH, initial_indent=before, subsequent_indent=before + "  ", break_on_hyphens=False
    ):
        print(line)
