"""Guards the registry: no saga is claimed before the registry is known to be as new as its published outcomes.

Problem: a registry restored from a backup, or a standby that lagged, would give numbers, epochs and generations out a
second time (docs/decisions/0021). Approach: a proof (`recovery.Recovery.prove`) compares the registry with Kafka
before the first claim. A proof belongs to the connections it was made with, since the next connection may lead to
another server: `Registry.losses` counts lost connections, and each new count requires a new proof.
"""

from collections.abc import Awaitable, Callable

from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.adapters.registry.registry import Registry, RegistryAway
from services.adapters.registry.types import Claim

Prove = Callable[[Callable[[str], None]], Awaitable[str]]
"""Returns why nothing may be claimed, or empty text. The argument takes the progress of a long proof, as a sentence for
`/readyz`."""


class RegistryGuard:
    """The proof of one process about its registry."""

    def __init__(self, registry: Registry, prove: Prove, log: Logger) -> None:
        """Begins unproved.

        Args:
            registry: Started registry.
            prove: Called before a claim without a valid proof.
            log: Logger of the service.
        """
        self._registry, self._prove, self._log = registry, prove, log
        self._proved_at = -1  # `Registry.losses` at the last proof; counts begin at 0, so -1 matches none
        self.fault = "not asked yet"
        """Reason why the registry cannot be used; empty text if the registry is usable."""

    def is_proved(self) -> bool:
        """True if the registry was proved and no connection to the registry was lost since."""
        return self._proved_at == self._registry.losses

    async def claim(self, limit: int) -> list[Claim]:
        """Leases at most `limit` due rows; returns none and sets `fault` if the registry cannot be used."""
        claims: list[Claim] = []
        try:
            # Read before the proof: a connection lost during the proof makes the proof void.
            losses = self._registry.losses
            fault = "" if self.is_proved() else await self._prove(self.note_fault)
            if not fault:
                self._proved_at = losses
                # Void after a loss during the proof: the next call proves again.
                claims = await self._registry.claim(limit) if self.is_proved() else []
        except RegistryAway as error:
            fault = str(error)
        self.note_fault(fault)
        return claims

    def note_fault(self, fault: str) -> None:
        """Stores the fault for `/readyz`, logs a new fault once and sets the metric; empty text clears the fault."""
        if fault and fault != self.fault:
            self._log.warning("registry cannot be used", why=fault)
        self.fault = fault
        metrics.PROVISIONER_REGISTRY_UP.set(0 if fault else 1)
