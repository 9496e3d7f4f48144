"""Kind `subscription`: one event subscription, made, paused, resumed and deleted by our REST contract.

Settings: `url`, `url_from`, `topics`. The integration's flag decides whether events flow: disabled pauses and
deletes nothing.
"""

from dataclasses import replace

from services.core.saga.calls import Answer, Call
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.outbound import Outbound


class SubscriptionKind:
    """A named resource whose body says what flows, and whether it does."""

    def __init__(self, outbound: Outbound) -> None:
        self._resource = HttpKind(outbound)

    async def call(self, call: Call) -> Answer:
        """Carry one call out."""
        body = {"topics": call.settings.get("topics", []), "state": "active" if call.enabled else "paused"}
        return await self._resource.call(replace(call, settings={**call.settings, "body": body}))

    async def close(self) -> None:
        """As its resource."""
        await self._resource.close()
