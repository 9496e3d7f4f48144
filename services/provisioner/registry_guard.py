"""Whether the registry may be used: it answers, and it is no older than what was said from it.

Rule: nothing is claimed before that is known, and it is asked again whenever a connection was lost, since the next one
may lead to another server.
"""

from collections.abc import Awaitable, Callable

from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.adapters.registry.registry import Registry, RegistryAway
from services.adapters.registry.types import Claim


class RegistryGuard:
    """Of the registry, as one process knows it."""

    def __init__(self, registry: Registry, log: Logger) -> None:
        """Know nothing yet."""
        self._registry, self._log = registry, log
        self._proved_at = -1
        self.fault = "not asked yet"
        """Why the registry cannot be used; empty text when it is well."""
        self.prove: Callable[[], Awaitable[str]] = _nothing_wrong
        """Asked before a claim that nothing vouches for: why nothing may be claimed, if so."""

    def is_proved(self) -> bool:
        """Whether the registry, on the server that it is asked at, is no older than what was said from it."""
        return self._proved_at == self._registry.losses

    async def claim(self, limit: int) -> list[Claim]:
        """Lease due rows; none, and a fault, where the registry cannot be used."""
        claims: list[Claim] = []
        try:
            losses = self._registry.losses
            fault = "" if self.is_proved() else await self.prove()
            if not fault:
                self._proved_at = losses
                claims = await self._registry.claim(limit)
        except RegistryAway as error:
            fault = str(error)
        self.note(fault)
        return claims

    def note(self, fault: str) -> None:
        """Keep what is wrong; empty text when all is well."""
        if fault and fault != self.fault:
            self._log.warning("registry cannot be used", why=fault)
        self.fault = fault
        metrics.REGISTRY_UP.set(0 if fault else 1)


async def _nothing_wrong() -> str:
    return ""
