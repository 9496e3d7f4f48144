"""Texts about registered webhooks: the differences, the question, the result; never a secret."""

import sys
import textwrap
from shutil import get_terminal_size
from typing import Any

import typer

from schemas.times import rfc3339
from schemas.values import Key
from services.adapters.process.clock import now_us
from services.cli import keyring_contents, show
from services.cli.exits import CommandError, Exit
from services.cli.webhook_apply import ApplyResult
from services.cli.webhook_registration import Found, Held, Registration
from services.cli.wording import counted, short_keys

_INDENT = "  "
_FIELD_WIDTH = 12


def plan_json(wanted: Registration, found: Found) -> dict[str, Any]:
    """Returns a plan as JSON."""
    return {
        "url": wanted.url,
        "endpoint": wanted.name,
        "webhooks": [
            {
                "key": held.key,
                "differs": held.comparison.differs,
                "bound": held.bound,
                "secret": held.comparison.standing.name.lower(),
                "fields": [
                    {"field": row.field, "held": row.held, "wanted": row.wanted, "differs": row.differs}
                    for row in held.comparison.rows
                ],
            }
            for held in found.read
        ],
        "unread": [{"scope": trouble.scope, "why": trouble.why} for trouble in found.troubles],
    }


def print_plan(wanted: Registration, found: Found) -> None:
    """Prints each integration with its differences, and the sum."""
    for held in found.read:
        _print_one(wanted, held)
    for trouble in found.troubles:
        _print("", f"{trouble.scope}: not read: {trouble.why}", "")
    differing = sum(held.comparison.differs or held.told for held in found.read)
    print(f"{counted(len(found.read), 'webhook')} read, {differing} to tell Genesys of")


def names(wanted: Registration, found: Found) -> dict[Key, str]:
    """Returns a name for each key that leaves room for a remark in a line of a terminal."""
    keys = [held.key for held in found.read]
    # Within one organisation the integration's id is enough, and is what --integration takes.
    return {key: key.partition(":")[2] for key in keys} if len(wanted.orgs) == 1 else short_keys(keys)


def confirm(count: int) -> None:
    """Asks on the terminal before Genesys is told.

    Raises:
        CommandError: standard input is no terminal (UNUSABLE), or the answer is no (REFUSED).
        KeyboardInterrupt: Ctrl-C or the end of input at the prompt.
    """
    if not sys.stdin.isatty():
        raise CommandError(Exit.UNUSABLE, "nobody is here to ask whether Genesys is to be told: say --yes")
    try:
        if not typer.confirm(f"Tell Genesys of {counted(count, 'webhook')}?", default=False, err=True):
            raise CommandError(Exit.REFUSED, "nothing was changed")
    except typer.Abort:
        # click turns Ctrl-C at a prompt into Abort; `main` expects KeyboardInterrupt and ends with 130.
        raise KeyboardInterrupt from None


def done_json(wanted: Registration, done: ApplyResult) -> dict[str, Any]:
    """Returns the result of `apply` as JSON."""
    after = wanted.with_ring(done.ring)
    results = {
        **dict.fromkeys(done.unchanged, ("unchanged", "")),
        **dict.fromkeys(done.registered, ("registered", "")),
        **{trouble.scope: ("failed", trouble.why) for trouble in done.troubles},
    }
    return {
        "url": wanted.url,
        "endpoint": wanted.name,
        "rotated": done.rotated,
        "fingerprint": after.fingerprint(after.endpoint.current.secret),
        "former_until": _former_until(after),
        "webhooks": [{"key": key, "result": word, "why": why} for key, (word, why) in sorted(results.items())],
    }


def print_done(wanted: Registration, done: ApplyResult) -> None:
    """Prints the result of `apply`, and what is left to do."""
    for trouble in done.troubles:
        _print("", f"{trouble.scope}: {trouble.why}", "")
    if not (done.registered or done.troubles):
        print("nothing to do")
        return
    after = wanted.with_ring(done.ring)
    name = after.fingerprint(after.endpoint.current.secret)
    print(f"{len(done.registered)} registered, {len(done.troubles)} failed; signed with the secret {name}")
    until = _former_until(after)
    if until and not done.troubles:
        show.say(f"The former secret counts until {until}, for retries that are signed with it.")
        if not wanted.whole:
            show.say(f"Apply to every other integration of the endpoint {wanted.name} before that, too.")


def _former_until(after: Registration) -> str | None:
    previous = after.endpoint.previous
    return rfc3339(previous.not_after) if previous and keyring_contents.counts(previous, now_us()) else None


def _print_one(wanted: Registration, held: Held) -> None:
    comparison = held.comparison
    differing = [row for row in comparison.rows if row.differs]
    if not differing:
        print(f"{held.key}\n{_INDENT}as it should be; secret: {comparison.rows[-1].held}")
    else:
        print(held.key)
    for row in differing:
        _print(f"{_INDENT}{row.field:<{_FIELD_WIDTH}}- ", row.held, " " * (len(_INDENT) + _FIELD_WIDTH + 2))
        _print(f"{_INDENT}{'':<{_FIELD_WIDTH}}+ ", row.wanted, " " * (len(_INDENT) + _FIELD_WIDTH + 2))
    if not held.bound:
        _print(_INDENT, f"the endpoint {wanted.name} may not speak for it: deliveries would be refused (403)", _INDENT)


def _print(head: str, text: str, further: str) -> None:
    """Prints a text behind its head, folded to the width of a terminal and whole in a pipe."""
    if not sys.stdout.isatty():
        print(head + text)
        return
    width = get_terminal_size().columns
    print(
        textwrap.fill(
            text,
            width,
            initial_indent=head,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
