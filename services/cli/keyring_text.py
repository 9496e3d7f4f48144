"""Texts about a keyring: ages, fingerprints, bindings of endpoints; never a secret."""

import sys
from pathlib import Path
from typing import Any

import typer

from schemas.keyring import Authority, Endpoint, HintEndpoint, Keyring
from schemas.times import instant, rfc3339
from services.adapters.secrets.keyring import raw
from services.cli import keyring_contents, show, wording
from services.cli.exits import CommandError, Exit


def endpoint_json(name: str, keyring: Keyring, now_us: int) -> dict[str, Any]:
    """Returns an endpoint of either sort as JSON, without secrets."""
    endpoint, material = keyring_contents.held(keyring, name), keyring.material
    key = None if material is None else raw(material.identity)
    previous, made_at = endpoint.previous, endpoint.current.made_at
    return {
        "endpoint": name,
        "takes": "hints" if isinstance(endpoint, HintEndpoint) else "webhooks",
        "orgs": endpoint.orgs,
        **_bounds(endpoint),
        "made_at": None if made_at is None else rfc3339(made_at),
        "fingerprint": keyring_contents.fingerprint(key, raw(endpoint.current.secret)),
        "previous": previous
        and {
            "not_after": rfc3339(previous.not_after),
            "counts": keyring_contents.counts(previous, now_us),
            "fingerprint": keyring_contents.fingerprint(key, raw(previous.secret)),
        },
    }


def _bounds(endpoint: Endpoint | HintEndpoint) -> dict[str, Any]:
    """Returns the fields of one sort of endpoints alone."""
    if isinstance(endpoint, HintEndpoint):
        return {"accounts": endpoint.accounts, "authority": endpoint.authority.value}
    return {"integrations": endpoint.integrations, "restamps": endpoint.restamps}


def previous_text(previous: dict[str, Any] | None) -> str:
    """Returns the state of a previous secret in words."""
    if previous is None:
        return "none"
    return f"{'counts until' if previous['counts'] else 'expired'} {previous['not_after']}"


def print_endpoints(found: list[dict[str, Any]], now_us: int) -> None:
    """Prints a line per endpoint."""
    show.listing(
        ("endpoint", "takes", "secret", "age", "restamps"),
        [
            show.ListingRow(
                cells=(
                    one["endpoint"],
                    one["takes"],
                    one["fingerprint"] or "-",
                    "unknown" if one["made_at"] is None else wording.span(now_us - instant(one["made_at"])),
                    {True: "yes", False: "no", None: "-"}[one.get("restamps")],
                ),
                note="; ".join(_notes(one)),
            )
            for one in found
        ],
    )
    if any(one["fingerprint"] is None for one in found):
        show.say("no fingerprints: they are keyed with `material`, which this file has not")


def confirm(where: Path, name: str, keyring: Keyring) -> None:
    """Asks on the terminal for the removal of an endpoint.

    Raises:
        CommandError: standard input is no terminal (UNUSABLE), or the answer is no (REFUSED).
        KeyboardInterrupt: Ctrl-C or the end of input at the prompt.
    """
    if not sys.stdin.isatty():
        raise CommandError(Exit.UNUSABLE, f"removing {name!r} cannot be undone, and nobody is here to ask: say --yes")
    endpoint = keyring_contents.held(keyring, name)
    whom = ", ".join(_bound(endpoint.orgs, "organisation"))
    what = "hints" if isinstance(endpoint, HintEndpoint) else "deliveries"
    show.say(f"{where}: {what} to {name!r} ({whom}) will be refused; its secrets cannot be had back.")
    try:
        if not typer.confirm(f"Remove {name!r}?", default=False, err=True):
            raise CommandError(Exit.REFUSED, "nothing was removed")
    except typer.Abort:
        # click turns Ctrl-C at a prompt into Abort; `main` expects KeyboardInterrupt and ends with 130.
        raise KeyboardInterrupt from None


def _notes(one: dict[str, Any]) -> list[str]:
    """Returns the notes on an endpoint: the bindings, and the state of the previous secret."""
    previous = one["previous"]
    shown = ["audits count as events"] if one.get("authority") == Authority.EVENT else []
    shown += _bound(one["orgs"], "organisation")
    shown += _bound(one["accounts"], "AWS account") if "accounts" in one else _bound(one["integrations"], "integration")
    if previous is not None:
        named = f" {previous['fingerprint']}" if previous["fingerprint"] else ""
        shown.append(f"previous secret{named} {previous_text(previous)}")
    return shown


def _bound(names: tuple[str, ...], what: str) -> list[str]:
    """Returns a binding in words, as a list with a single text."""
    return [f"any {what}"] if "*" in names else [f"{what} {' '.join(names)}"]
