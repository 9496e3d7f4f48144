"""The last look before a teardown destroys: the brake on removals, then the confirmation by Genesys.

Rule: both are asked before the intent of the first delete, so a teardown that is turned away has begun nothing, and
before the gate of the system, so that a slow answer holds no slot (docs/decisions/0041).
"""

import time
from dataclasses import dataclass
from typing import Final

from services.adapters.registry.registry import Registry
from services.adapters.registry.types import Removal, RemovalRules, RemovalVerdict, Unconfirmed
from services.core.saga.removal import GenesysSays, held_by
from services.core.unwell import GENESYS_SAYS_INSTALLED, GENESYS_UNREAD, REMOVAL_BRAKED, REMOVAL_REFUSED
from services.provisioner.confirmation import Confirmation, NotAsked

_HELD_S: Final = 60.0
"""Seconds after which a held removal asks again; an approval makes it due at once."""
_CROWDED_S: Final = 2.0
"""Seconds after which a removal asks again that found enough questions to Genesys under way."""
_ASK_FIRST_S: Final = 10.0
_ASK_MOST_S: Final = 300.0
"""First and longest wait of a removal that Genesys has not confirmed; the waits double with the time gone by."""
_LIMIT_S: Final = 10.0
"""Seconds for which the limit is used again: it counts the whole registry."""


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A removal that must not begin now.

    Attributes:
        reason: Reason of the wait; empty for a moment's wait.
        wait_s: Seconds after which the removal asks again.
    """

    reason: str
    wait_s: float


class RemovalGate:
    """Asks for the removals of one worker. Use from one event loop."""

    def __init__(
        self, registry: Registry, rules: RemovalRules, confirmation: Confirmation | None, *, needs_answer: bool = False
    ) -> None:
        """Prepares the gate.

        Args:
            registry: Counts the removals of all workers.
            rules: Limits of the brake.
            confirmation: Asks Genesys; None to ask nobody.
            needs_answer: True to hold a removal about which Genesys gives no information.
        """
        self._registry, self._rules, self._confirmation = registry, rules, confirmation
        self._needs_answer = needs_answer
        self._limit, self._limit_until_s = 0, 0.0

    async def enter(self, removal: Removal, epoch: int) -> TurnedAway | None:
        """Asks for a removal; returns None if its first delete may begin.

        Args:
            removal: The teardown.
            epoch: The epoch of the worker's lease.

        Raises:
            RegistryAway: the registry does not answer or refuses.
        """
        verdict = await self._registry.admit_removal(
            removal, epoch, limit=await self._present_limit(), window_s=self._rules.window_s
        )
        if verdict is not RemovalVerdict.ADMITTED:
            return TurnedAway(REMOVAL_REFUSED if verdict is RemovalVerdict.REFUSED else REMOVAL_BRAKED, _HELD_S)
        if self._confirmation is None:
            return None
        answer = await self._confirmation.ask(removal.key)
        if answer is NotAsked.CROWDED:
            return TurnedAway("", _CROWDED_S)
        says = answer if isinstance(answer, GenesysSays) else None
        held = held_by(
            says, is_contradicted=await self._is_contradicted(says, removal), needs_answer=self._needs_answer
        )
        if held is None:
            await self._registry.note_unconfirmed(removal, None)
            return None
        installed = held is GenesysSays.INSTALLED
        why = Unconfirmed.INSTALLED if installed else Unconfirmed.UNREAD
        waited_s = await self._registry.note_unconfirmed(removal, why)
        wait_s = min(_ASK_MOST_S, max(_ASK_FIRST_S, waited_s))
        return TurnedAway(GENESYS_SAYS_INSTALLED if installed else GENESYS_UNREAD, wait_s)

    async def _is_contradicted(self, says: GenesysSays | None, removal: Removal) -> bool:
        # An answer of Genesys decides by itself, and costs no further question to the registry.
        return says in {None, GenesysSays.UNREAD} and await self._registry.is_contradicted(removal)

    async def _present_limit(self) -> int:
        if time.monotonic() >= self._limit_until_s:
            self._limit = await self._registry.removal_limit(self._rules)
            self._limit_until_s = time.monotonic() + _LIMIT_S
        return self._limit
