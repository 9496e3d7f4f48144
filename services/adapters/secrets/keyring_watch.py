"""Polls the keyring file and keeps the newest valid keyring while the file is replaced, rewritten, broken or missing.

Rule: a caller gets a complete, valid keyring at every moment. An unusable file changes a metric and the log only.

Approach: `stat` of the path every half second; no signal is needed. A rename over the file, a write in place, and the
swap of a symbolic link above the file (Kubernetes changes mounted secrets this way) each change the result of `stat`.
The last of several quick changes is not missed, because each look reads the file until 2.5 s after a change.

Threads: `look` runs in a worker thread, `newest` on the event loop. The new value is assigned as a whole, so the loop
sees the old or the new one, never a mixture.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from schemas.keyring import Endpoint, HintEndpoint, Keyring
from services.adapters.process import metrics
from services.adapters.process.errors import Unusable
from services.adapters.process.file_identity import SETTLED_S, file_identity
from services.adapters.process.logs import Logger
from services.adapters.secrets.keyring import load

LOOK_S: Final = 0.5
"""Pause between two looks, seconds."""

_LOGGED_MAX: Final = 100
"""Greatest count of remembered faults: a file with a new fault at every look must not fill the memory."""

T = TypeVar("T")


class KeyringWatch(Generic[T]):
    """A value derived from the newest valid keyring."""

    def __init__(self, path: Path, use: Callable[[Keyring], T], log: Logger) -> None:
        """Read the file for the first time.

        Args:
            path: KEYRING_FILE.
            use: Derives the value from a keyring; raises Unusable if the keyring lacks a needed part.
            log: Logger for changes, and for each fault once until the file is valid again.

        Raises:
            Unusable: the file cannot be used.
        """
        self._path, self._use, self._log = path, use, log
        self._ring = load(path)
        self._newest = use(self._ring)
        # Equal to no file's, and not to that of a missing file either: the file may have changed or vanished since
        # `load`, so the first look reads again.
        self._identity: tuple[int, ...] | None = ()
        self._changed_at_s = 0.0
        self._fault = ""
        self._logged_faults: set[str] = set()
        metrics.KEYRING_EXPIRY.set_function(self._expiries)

    def newest(self) -> T:
        """Return the value of the newest valid keyring. Called for each request, so no file is touched here."""
        return self._newest

    def fault(self) -> str:
        """Return a note that the file cannot be used, without the cause; empty text while the file is in force."""
        return "the file cannot be used, the last good one is in force: the log says why" if self._fault else ""

    async def run(self) -> None:
        """Look every `LOOK_S` seconds, in a worker thread, until cancelled."""
        while True:
            await asyncio.to_thread(self.look, time.monotonic())
            await asyncio.sleep(LOOK_S)

    def look(self, now_s: float) -> None:
        """Look once; read the file if it has changed, may have changed unnoticed, or could not be used before.

        Args:
            now_s: Monotonic time, seconds.
        """
        # `stat` before the read: a change during the read shows at the next look. The reverse order would miss it.
        identity = file_identity(self._path)
        if identity != self._identity:
            self._identity, self._changed_at_s = identity, now_s
        elif not self._fault and now_s - self._changed_at_s > SETTLED_S:
            return
        try:
            ring = load(self._path)
            newest = self._newest if ring == self._ring else self._use(ring)
        except Unusable as unusable:
            self._reject(str(unusable))
        else:
            self._accept(ring, newest)

    def _expiries(self) -> dict[tuple[str, ...], float]:
        """Return the end of each previous secret in seconds since 1970, by endpoint; called at a scrape."""
        held: dict[str, Endpoint | HintEndpoint] = {**self._ring.endpoints, **self._ring.hints}
        return {
            (name,): endpoint.previous.not_after / 1_000_000
            for name, endpoint in held.items()
            if endpoint.previous is not None
        }

    def _accept(self, ring: Keyring, newest: T) -> None:
        """Put a valid keyring in force, and log a change or the end of a fault."""
        changed, mended = ring != self._ring, bool(self._fault)
        self._ring, self._newest, self._fault = ring, newest, ""
        self._logged_faults.clear()
        metrics.KEYRING_BROKEN.set(0)
        if changed:
            metrics.KEYRING_RELOADS.labels("taken").inc()
        if changed or mended:
            self._log.info("keyring taken", endpoints=_names(ring), changed=changed)

    def _reject(self, fault: str) -> None:
        """Keep the last valid keyring, and report the fault of the file."""
        metrics.KEYRING_BROKEN.set(1)
        if fault != self._fault:
            metrics.KEYRING_RELOADS.labels("broken").inc()
        self._fault = fault
        if fault in self._logged_faults:
            return
        if len(self._logged_faults) >= _LOGGED_MAX:
            self._logged_faults.clear()
        self._logged_faults.add(fault)
        self._log.error("keyring broken", why="; ".join(fault.splitlines()), kept=_names(self._ring))


def _names(ring: Keyring) -> list[str]:
    """Return the names of all endpoints."""
    return sorted([*ring.endpoints, *ring.hints])
