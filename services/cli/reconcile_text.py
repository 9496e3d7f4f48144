"""Prints the results of `lifecycle reconcile` for a person: the plan of a run, and the report of the three views.

Rule: a line fits a terminal of 80 columns, commands to copy included.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from schemas.times import instant
from services.adapters.process.clock import now_us
from services.cli.exits import Exit
from services.cli.options import PLACEHOLDER
from services.cli.wording import counted, short_keys
from services.operations.reconciliation import ReportScope

_NAMED_AT_MOST: Final = 10
"""Refusals listed one by one; a greater number is counted by reason, and `--json` lists all."""

_ORG_SHOWN: Final = 8
"""Characters of an organisation's id in a command to copy."""
_WIDTH: Final = 80


@dataclass(frozen=True, slots=True)
class Commands:
    """Formats the commands that rule on a set, within a line of a terminal.

    Attributes:
        scope: The scope in which the set was found: another scope has another set.
        operator: Name of the operator from the environment; None to print a place for the name.
    """

    scope: ReportScope
    operator: str | None

    def of(self, digest: str, org: str | None = None) -> tuple[str, str]:
        """Returns the commands that approve and refuse a set.

        Args:
            digest: Digest of the set.
            org: The organisation of the set; None for the set of the whole scope.
        """
        where = f" --org {org[:_ORG_SHOWN]}" if org else self._where
        return (
            f"lifecycle reconcile --now{where} --approve {digest}{self._by}",
            f"lifecycle reconcile{where} --refuse {digest}{self._by}",
        )

    def of_orphans(self, digest: str) -> str:
        """Returns the command that lets the orphans of the whole scope be removed."""
        return f"lifecycle reconcile{self._where} --remove-orphans {digest}{self._by}"

    @property
    def _where(self) -> str:
        if self.scope.keys is not None:
            return "".join(f" {short}" for short in short_keys(self.scope.keys).values())
        return "".join(f" --org {one[:_ORG_SHOWN]}" for one in self.scope.orgs or ())

    @property
    def _by(self) -> str:
        return "" if self.operator else f" --by {PLACEHOLDER}"

    def print_both(self, digest: str | None) -> None:
        """Prints the commands that approve and refuse the set of the whole scope."""
        if digest is None:
            _say("every absence must be seen twice first; then a digest names the removals", 2)
            return
        for command in self.of(digest):
            _print_command(command)


def print_act(found: dict[str, Any], commands: Commands) -> None:
    """Prints an operator's act for a person, and the run that an approval let go.

    Args:
        found: The act as JSON.
        commands: Formats commands.
    """
    if found["held_by"] == "orphans":
        _say(f"{found['ruling']} by {found['by']}: {counted(len(found['orphans']), 'orphan')} ({found['digest']})")
        for key, end in found["ends"].items():
            _say(f"{key}: {end}", 2)
        return
    what = "tenant" if found["held_by"] == "newcomers" else "removal"
    reached = len(found["keys"]) - len(found["missed"])
    _say(
        f"{found['ruling']} by {found['by']}: {counted(reached, what)} ({found['digest']}), until "
        f"{found['expires_at'] or 'an approval by KEY or a reinstall'}; recorded in the audit trail"
    )
    if missed := found["missed"]:
        _say(
            f"NOT {found['ruling']}: {counted(len(missed), 'removal')} of them. The provisioner has let them go "
            "meanwhile, or the integration was installed again. `lifecycle sagas show KEY` tells:"
        )
        for key in missed:
            _say(key, 2)
    if put_off := found.get("put_off"):
        _say(
            f"{counted(len(put_off), 'removal')} of them wait for the end of a grace period, {_ends(put_off)}: this "
            "approval has ended by then, and the provisioner holds them. Approve them again after it"
        )
    if "run" in found:
        print_run(found["run"], commands)


def print_run(found: dict[str, Any], commands: Commands) -> None:
    """Prints the report of a run for a person.

    Args:
        found: The report as JSON.
        commands: Formats commands.
    """
    from services.cli import show

    if found["plan"] and not show.shows_results():
        show.table(
            ("key", "action", "reason"), [(line["key"], line["action"], line["reason"]) for line in found["plan"]]
        )
    elif found["plan"]:
        print("\n".join(plan_lines(found["plan"])))
    for text in _refusal_lines(found["refusals"]):
        _say(f"no information: {text}")
    if found["stopped"]:
        stop = found["stopped"]
        _print_stop(stop, commands)
    _print_held(found["held"], commands)
    read, again, unread = len(found["read"]), found["look_again_at"], _unread(found)
    _say(
        f"{counted(read, 'organisation')} read, {counted(found['published'], 'observation')} published"
        + (f", keys not read or not whole: {unread}" if unread else "")
        # What the brake or a refusal keeps was seen twice already: another look changes nothing.
        + (f"; look again at {again}" if again and instant(again) > now_us() else "")
    )


def plan_lines(plan: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the plan of a run for a terminal: the key, and action and reason folded below.

    A row of a table does not fit: keys with equal beginnings are printed whole, 73 columns wide.

    Args:
        plan: The lines as JSON.
    """
    shown = short_keys([line["key"] for line in plan])
    for line in plan:
        yield shown[line["key"]]
        yield from _lines(": ".join(filter(None, (line["action"], line["reason"]))), 2)


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


def print_report(found: dict[str, Any], commands: Commands) -> None:
    """Prints the report of the three views for a person.

    Args:
        found: The report as JSON.
        commands: Formats commands.
    """
    from services.cli import show

    keys = [one["key"] for one in found["keys"]]
    shown = short_keys(keys) if show.shows_results() else {key: key for key in keys}
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
    _print_holds(found, commands)
    differing = len(found["keys"]) - sum(not one["differences"] for one in found["keys"])
    looked = ", resources looked up" if found["outside"]["looked"] else ""
    _say(f"{counted(differing, 'key')} with a difference, {found['agreeing']:,} without{looked}")


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
    is_held = found["brake"]["holds"] or found["held"] or found["held_removals"]["keys"]
    return Exit.DEVIATION if unread or differs or is_held or not found["outside"]["read"] else Exit.OK


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


def _print_holds(found: dict[str, Any], commands: Commands) -> None:
    """Prints every hold with the commands of an operator."""
    brake, held = found["brake"], found["held_removals"]
    if brake["holds"]:
        _print_stop(brake, commands)
    else:
        _say(f"brake: {brake['absent']} absent, at most {brake['limit']} go in one run")
    for one in found["refused"]:
        why = f", {one['reason']}" if one["reason"] else ""
        _say(f"refused by {one['by']} until {one['expires_at']}: {counted(len(one['keys']), 'removal')}{why}")
    if held["keys"]:
        refused = f", {held['refused']} of them refused" if held["refused"] else ""
        _say(f"STOPPED: the provisioner holds {counted(len(held['keys']), 'removal')}{refused}")
        if left_out := len(held["keys"]) - len(held["digest_keys"]):
            _say_left_out(left_out)
        if held["digest"] is not None:
            commands.print_both(held["digest"])
    if graced := found["in_grace"]:
        _say(
            f"{counted(len(graced), 'removal')} in a grace period, {_ends(graced)}: nothing is deleted before, and the "
            "brake is asked after it. An approval that is given before counts if it lasts until then"
        )
    _print_held(found["held"], commands)
    _print_orphans(found["orphans"], commands)


def _ends(graced: list[dict[str, str]]) -> str:
    """Returns the end of one grace period, or the first and the last of several, in words."""
    ends = sorted(one["until"] for one in graced)
    return f"until {ends[0]}" if ends[0] == ends[-1] else f"the first until {ends[0]}, the last until {ends[-1]}"


def _print_held(held: list[dict[str, Any]], commands: Commands) -> None:
    """Prints each organisation whose first comparison waits, with the command that lets it in."""
    for one in held:
        _say(
            f"HELD: {one['org']}: would create {counted(one['newcomers'], 'tenant')}, and at most {one['limit']} "
            "without an approval. Nothing of this organisation is published. Are all of them yours "
            "(integration_types)? Then:"
        )
        _print_command(commands.of(one["approval"], one["org"])[0])


def _print_orphans(orphans: dict[str, Any], commands: Commands) -> None:
    for one in orphans["resources"]:
        seen = "twice" if one["seen_twice"] else "once"
        stays = "" if one["removable"] else "; the registry does not know this life: remove it by hand"
        _say(f"orphan: {one['key']} generation {one['generation']}, {one['step']}")
        _say(f"seen {seen}, first {one['first_seen']}{stays}", 2)
    if orphans["digest"]:
        _print_command(commands.of_orphans(orphans["digest"]))


def _print_command(command: str) -> None:
    """Prints a command to copy: in one line, so that no line break is copied along."""
    print(f"  {command}" if len(command) <= _WIDTH - 2 else command)


def _print_stop(stop: dict[str, Any], commands: Commands) -> None:
    """Prints the brake of the reconciler, with the commands of an operator."""
    print(f"STOPPED: {counted(stop['absent'], 'tenant')} gone, at most {stop['limit']} may go in one run")
    if stop["refused"]:
        _say_left_out(stop["refused"])
    commands.print_both(stop["approval"])


def _say_left_out(refused: int) -> None:
    what = (
        "that was refused stays, and no digest names it"
        if refused == 1
        else "that were refused stay, and no digest names them"
    )
    _say(f"{counted(refused, 'removal')} {what}: to change that, `lifecycle reconcile --report KEY`", 2)


def _say(text: str, indent: int = 0) -> None:
    """Prints a text folded between words, further lines indented by two more columns."""
    print("\n".join(_lines(text, indent)))


def _lines(text: str, indent: int) -> list[str]:
    """Folds a text between words, further lines indented by two more columns."""
    from services.cli import show

    before, text = " " * indent, show.visible(text)
    return textwrap.wrap(text, _WIDTH, initial_indent=before, subsequent_indent=before + "  ", break_on_hyphens=False)
