"""Registers webhooks, and rotates their secret without a refused delivery.

The order of a rotation:
1. The keyring gets the new secret as current, and the old one stays valid until an instant.
2. Probes under the new secret are sent until a row of them is proved by the ingresses behind the URL.
3. Genesys is told the new secret, integration by integration.
4. The old secret stays in the keyring until the instant, for retries under the old secret.

After each step a delivery is proved under the old and under the new secret. The command also resumes a failed rotation,
and makes no further secret then: a second one would cut off the first.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from schemas.times import rfc3339
from schemas.values import Key
from services.adapters.process.clock import now_us
from services.cli import keyring_contents, keyring_file
from services.cli.exits import CommandError, Exit
from services.cli.show import say
from services.cli.webhook_findings import await_proof
from services.cli.webhook_registration import Found, Held, Registration, Trouble
from services.core.registration import OVERLAP_LEAST_US, RotationStart, Row, SecretStanding, rotation_start

if TYPE_CHECKING:
    from schemas.keyring import Keyring
    from schemas.values import Json


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """The result of `apply`.

    Attributes:
        ring: The keyring afterwards.
        rotated: True if this command made a new secret.
        unchanged: Keys without a difference.
        registered: Keys registered now, and shown by Genesys without a difference.
        troubles: Keys with a failed registration.
    """

    ring: "Keyring"
    rotated: bool
    unchanged: tuple[Key, ...]
    registered: tuple[Key, ...]
    troubles: tuple[Trouble, ...]

    @property
    def status(self) -> Exit:
        """The exit status: the gravest of the troubles."""
        return max((trouble.status for trouble in self.troubles), default=Exit.OK)


def require_whole(wanted: Registration, found: Found) -> None:
    """Refuses every change while a webhook could not be read, or the endpoint would refuse the deliveries.

    Raises:
        CommandError: the unread webhooks, or the unbound keys.
    """
    if found.troubles:
        lines = [f"{trouble.scope}: Genesys: {trouble.why}" for trouble in found.troubles]
        raise CommandError(found.status(differs=False), "\n".join([*lines, "nothing was changed"]))
    if unbound := [held.key for held in found.read if not held.bound]:
        lines = [f"{key}: the endpoint {wanted.name} may not speak for it (403)" for key in unbound]
        cure = "nothing was changed; add the ids to `orgs` or `integrations` of the endpoint in KEYRING_FILE"
        raise CommandError(Exit.REFUSED, "\n".join([*lines, cure]))


def rotation(wanted: Registration, found: Found) -> RotationStart:
    """Decides how the rotation begins.

    Raises:
        CommandError: the last rotation is complete, and the former secret still counts (REFUSED).
    """
    previous = wanted.endpoint.previous
    start = rotation_start(
        [held.comparison.standing for held in found.read],
        previous_counts=keyring_contents.counts(previous, now_us()),
    )
    if start is RotationStart.TOO_EARLY and previous is not None:
        raise CommandError(
            Exit.REFUSED,
            f"{wanted.name}: its last rotation is complete, and its former secret counts until"
            f" {rfc3339(previous.not_after)}; rotate after that, or cut it off: `lifecycle keyring rotate"
            f" {wanted.name} --yes`, then `lifecycle webhook apply`",
        )
    return start


def changes(found: Found, start: RotationStart | None, *, again: bool) -> Found:
    """Returns the reading with `told` set for each webhook to register.

    Args:
        found: A reading without troubles.
        start: How a rotation begins; None without one.
        again: True to register every webhook.
    """
    every = again or start is RotationStart.FRESH

    def is_told(held: Held) -> bool:
        # A rotation is resumed also where Genesys does not show which secret it has.
        resumed = start is RotationStart.RESUMED and held.comparison.standing is not SecretStanding.CURRENT
        return every or resumed or held.comparison.differs

    read = [replace(held, told=is_told(held)) for held in found.read]
    if start is RotationStart.FRESH:
        read = [replace(held, comparison=replace(held.comparison, rows=_fresh(held.comparison.rows))) for held in read]
    return Found(tuple(read))


def apply(
    wanted: Registration, found: Found, start: RotationStart | None, overlap_us: int, wait_s: float | None
) -> ApplyResult:
    """Rotates where asked, awaits the proof of the secret, and tells Genesys.

    Args:
        wanted: URL, endpoint and organisations.
        found: The result of `changes`.
        start: How a rotation begins; None without one.
        overlap_us: How long a rotated secret stays valid.
        wait_s: How long the ingress may take to prove the secret; None sends no probe.

    Raises:
        CommandError: the keyring could not be changed, or the ingress does not prove the secret.
    """
    told = [held.key for held in found.read if held.told]
    unchanged = tuple(held.key for held in found.read if not held.told)
    if not told:
        return ApplyResult(wanted.ring, rotated=False, unchanged=unchanged, registered=(), troubles=())
    # Genesys signs with the former secret until the proof is there, and retries come after that.
    least_us = OVERLAP_LEAST_US + int((wait_s or 0.0) * 1_000_000)
    wanted = wanted.with_ring(_prepare(wanted, start, max(overlap_us, least_us), least_us))
    with _naming_next_step(wanted):
        if wait_s is not None:
            await_proof(wanted, told[0], wait_s)
        held, troubles = asyncio.run(wanted.register(told))
    for key, comparison in held:
        if comparison.differs:
            fields = ", ".join(row.field for row in comparison.rows if row.differs)
            troubles.append(Trouble(key, f"was told, and holds other values all the same: {fields}", Exit.DEVIATION))
    done = ApplyResult(
        wanted.ring,
        start is RotationStart.FRESH,
        unchanged,
        tuple(sorted(key for key, comparison in held if not comparison.differs)),
        tuple(troubles),
    )
    if troubles:
        say(_next_step(wanted))
    return done


def _fresh(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(replace(row, wanted="a fresh secret", differs=True) if row.field == "secret" else row for row in rows)


def _prepare(wanted: Registration, start: RotationStart | None, overlap_us: int, former_us: int) -> "Keyring":
    """Makes the secret of a fresh rotation; else extends a former secret's life to the length of wait and retries.

    Args:
        wanted: URL, endpoint and organisations.
        start: How a rotation begins; None without one.
        overlap_us: Life of the former secret of a fresh rotation, microseconds.
        former_us: Least life of the former secret of an earlier rotation, microseconds.

    Raises:
        CommandError: the endpoint was changed meanwhile (REFUSED), or the file cannot be replaced.
    """
    now, path, name = now_us(), wanted.settings.keyring_file, wanted.name
    if start is RotationStart.FRESH:

        def rotate(content: "Json", before: "Keyring") -> None:
            endpoint = before.endpoints.get(name)
            if endpoint != wanted.endpoint:
                raise CommandError(Exit.REFUSED, f"{path}: {name} was changed meanwhile; nothing was changed by this")
            content["endpoints"][name] = keyring_contents.rotated(content["endpoints"][name], now, overlap_us)

        return keyring_file.change(path, rotate)
    previous = wanted.endpoint.previous
    least_us = now + former_us
    if previous is None or not keyring_contents.counts(previous, now) or previous.not_after >= least_us:
        return wanted.ring

    def extend(content: "Json", before: "Keyring") -> None:
        if before.endpoints.get(name) == wanted.endpoint:
            content["endpoints"][name]["previous"]["not_after"] = rfc3339(least_us)

    return keyring_file.change(path, extend)


@contextmanager
def _naming_next_step(wanted: Registration) -> Iterator[None]:
    """Adds the standing of the secrets and the next step to an error, and prints both after Ctrl-C.

    Raises:
        CommandError: the error of the body, with the next step.
    """
    try:
        yield
    except CommandError as error:
        raise CommandError(error.status, f"{error}\n{_next_step(wanted)}") from None
    except BaseException:
        say(_next_step(wanted))
        raise


def _next_step(wanted: Registration) -> str:
    previous = wanted.endpoint.previous
    if previous is None or not keyring_contents.counts(previous, now_us()):
        return "Put right what is named here, then run the same command again."
    return (
        f"Both secrets count until {rfc3339(previous.not_after)}: no delivery is refused until then.\n"
        "Put right what is named here, then run the same command: it goes on and makes no further secret."
    )
