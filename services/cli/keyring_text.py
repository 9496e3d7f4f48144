"""Texts about a keyring: ages, fingerprints, bindings of endpoints; never a secret."""

import sys
from pathlib import Path
from typing import Any

import typer

from schemas.keyring import Keyring
from schemas.times import instant, rfc3339
from services.adapters.secrets.keyring import raw
from services.cli import keyring_contents, show, wording
from services.cli.exits import CommandError, Exit


def told(name: str, held: Keyring, now_us: int) -> dict[str, Any]:
    """Returns an endpoint as JSON, without its secrets."""
    endpoint, material = held.endpoints[name], held.material
    key = None if material is None else raw(material.identity)
    former, made_at = endpoint.previous, endpoint.current.made_at
    return {
        "endpoint": name,
        "orgs": endpoint.orgs,
        "integrations": endpoint.integrations,
        "restamps": endpoint.restamps,
        "made_at": None if made_at is None else rfc3339(made_at),
        "fingerprint": keyring_contents.fingerprint(key, raw(endpoint.current.secret)),
        "previous": former
        and {
            "not_after": rfc3339(former.not_after),
            "counts": keyring_contents.counts(former, now_us),
            "fingerprint": keyring_contents.fingerprint(key, raw(former.secret)),
        },
    }


def former(previous: dict[str, Any] | None) -> str:
    """Formats the state of a previous secret."""
    if previous is None:
        return "none"
    return f"{'counts until' if previous['counts'] else 'expired'} {previous['not_after']}"


def listing(found: list[dict[str, Any]], now_us: int) -> None:
    """Prints the endpoints."""
    show.listing(
        ("endpoint", "secret", "age", "restamps"),
        [
            show.ListingRow(
                cells=(
                    one["endpoint"],
                    one["fingerprint"] or "-",
                    "unknown" if one["made_at"] is None else wording.span(now_us - instant(one["made_at"])),
                    "yes" if one["restamps"] else "no",
                ),
                note="; ".join(_notes(one)),
            )
            for one in found
        ],
    )
    if any(one["fingerprint"] is None for one in found):
        show.say("no fingerprints: they are keyed with `material`, which this file has not")


def confirm(where: Path, name: str, held: Keyring) -> None:
    """Ask on a terminal whether an endpoint may go.

    Raises:
        Failure: nobody is there to ask (UNUSABLE), or the answer is no (REFUSED).
    """
    if not sys.stdin.isatty():
        raise CommandError(Exit.UNUSABLE, f"removing {name!r} cannot be undone, and nobody is here to ask: say --yes")
    whom = ", ".join(_bound(held.endpoints[name].orgs, "organisation"))
    show.say(f"{where}: deliveries to {name!r} ({whom}) will be refused; its secrets cannot be had back.")
    try:
        if not typer.confirm(f"Remove {name!r}?", default=False, err=True):
            raise CommandError(Exit.REFUSED, "nothing was removed")
    except typer.Abort:
        raise KeyboardInterrupt from None


def _notes(one: dict[str, Any]) -> list[str]:
    previous = one["previous"]
    shown = [*_bound(one["orgs"], "organisation"), *_bound(one["integrations"], "integration")]
    if previous is not None:
        named = f" {previous['fingerprint']}" if previous["fingerprint"] else ""
        shown.append(f"previous secret{named} {former(previous)}")
    return shown


def _bound(names: tuple[str, ...], what: str) -> list[str]:
    return [f"any {what}"] if "*" in names else [f"{what} {' '.join(names)}"]
