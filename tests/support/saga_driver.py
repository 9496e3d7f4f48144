"""Drives one saga as the runner does, through the real caller and kinds, without a registry; waits are jumped."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from schemas.outcome import Outcome
from schemas.saga import Journal
from schemas.tenant import Desired
from services.core.saga.calls import Answer, Call
from services.core.saga.intents import decide
from services.core.saga.moves import Called, Wait
from services.core.saga.next_move import Plans
from services.core.saga.pace import Pace
from services.core.saga.plan import parse
from services.core.saga.results import settle
from services.provisioner.caller import Caller
from services.provisioner.kinds import TRAITS


def plans(text: str) -> Plans:
    """The plan of a text, for every life."""
    return Plans(parse(text, kinds=TRAITS, settings={}))


@dataclass
class Saga:
    """Decides, calls and settles as the runner does; waits are jumped."""

    key: str
    caller: Caller
    plans: Plans
    journal: Journal = field(default_factory=Journal)
    now_us: int = 1_000_000
    until_us: int = 10**18
    """Waits beyond this are not waited for."""
    version: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    desired: Desired | None = None

    async def installed(
        self, endpoint: object, until: Callable[[Answer], bool] | None = None, *, enabled: bool = True
    ) -> None:
        """Install, or configure, with this endpoint."""
        values = {"installed": True, "enabled": enabled, "configuration": {"crmEndpoint": endpoint}}
        await self._take_up(until, **values, uninstalled_at=None)

    async def go_on(self) -> None:
        """Work on the newest version until nothing is due within the time."""
        assert self.desired is not None
        await self._work(self.desired, None)

    async def uninstalled(self, until: Callable[[Answer], bool] | None = None) -> None:
        """Uninstall, and wait for the orphan check."""
        await self._take_up(until, installed=False, configuration={}, uninstalled_at=self.now_us)

    async def _take_up(self, until: Callable[[Answer], bool] | None, **values: Any) -> None:
        self.version += 1
        same = {"key": self.key, "version": self.version, "enabled": True, "tenant_id": "acme", "installed_at": 1}
        self.desired = Desired.model_validate(same | values)
        await self._work(self.desired, until)

    async def _work(self, desired: Desired, until: Callable[[Answer], bool] | None) -> None:
        for _ in range(500):
            turn = decide(self.plans, self.journal, desired, self.now_us)
            self.journal = turn.journal
            self.outcomes += turn.outcomes
            if not isinstance(turn.move, Wait):
                if await self._call(turn.move, until):
                    return
            elif turn.move.until_us in {None, self.journal.again_at} or (turn.move.until_us or 0) > self.until_us:
                return
            else:
                self.now_us = max(self.now_us + 1, turn.move.until_us or 0)
        raise AssertionError(f"no rest: {self.journal}")

    async def _call(self, move: Called, until: Callable[[Answer], bool] | None) -> bool:
        prepared = self.caller.prepare(self.key, 1, self.journal, move, now_us=self.now_us)
        answer = await self.caller.call(prepared) if isinstance(prepared, Call) else prepared
        self.journal = settle(self.journal, move, answer, self.now_us, Pace())
        self.now_us += 1_000
        return until is not None and until(answer)

    @property
    def said(self) -> tuple[str, str, str | None]:
        """The newest outcome: direction, state, reason."""
        last = self.outcomes[-1]
        return last.direction.value, last.state.value, last.reason
