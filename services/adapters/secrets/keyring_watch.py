"""Keeps the newest good keyring while its file is replaced, rewritten, broken or away.

Rule: whoever asks is handed a whole keyring at every moment: a file that cannot be used changes a metric and the log,
and nothing else. The file is looked at by its path, so nobody has to tell the process: a rename over it, a write in
place and the swap of a link above it (how Kubernetes changes a mounted secret) all change what `stat` says.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from schemas.keyring import Keyring
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.adapters.process.settings import Unusable
from services.adapters.secrets.keyring import load

LOOK_S: Final = 0.5
SETTLED_S: Final = 2.5
"""A file that changed is read again until it stood still for so long: two writes within one tick of a file system's
clock look like one, and the coarsest in use ticks every 2 s."""

_TOLD_MAX: Final = 100
"""Faults remembered at most: a file that breaks anew at every look must not fill the memory."""

T = TypeVar("T")


class KeyringWatch(Generic[T]):
    """What is wanted of a keyring, as the newest good file has it."""

    def __init__(self, path: Path, use: Callable[[Keyring], T], log: Logger) -> None:
        """Read the file for the first time.

        Args:
            path: KEYRING_FILE.
            use: Takes what is wanted; raises Unusable when this keyring has not got it.
            log: Where a change, and each fault once until it is mended, is told.

        Raises:
            Unusable: the file cannot be used.
        """
        self._path, self._use, self._log = path, use, log
        self._ring = load(path)
        self._newest = use(self._ring)
        self._identity: tuple[int, ...] | None = None
        self._moved_s = 0.0
        self._fault = ""
        self._told: set[str] = set()

    def newest(self) -> T:
        """What is in force now, replaced as a whole; asked once a request, so it only hands out."""
        return self._newest

    def fault(self) -> str:
        """What is wrong with the file, in a word; empty while it is in force."""
        return "the file cannot be used, the last good one is in force: the log says why" if self._fault else ""

    async def run(self) -> None:
        """Look again and again, beside the loop, until cancelled."""
        while True:
            await asyncio.to_thread(self.look, time.monotonic())
            await asyncio.sleep(LOOK_S)

    def look(self, now_s: float) -> None:
        """Look once; reads the file when it changed, may still change unseen, or could not be used before.

        Args:
            now_s: Seconds of a clock that never goes back.
        """
        identity = _identity(self._path)
        if identity != self._identity:
            self._identity, self._moved_s = identity, now_s
        elif not self._fault and now_s - self._moved_s > SETTLED_S:
            return
        try:
            ring = load(self._path)
            newest = self._newest if ring == self._ring else self._use(ring)
        except Unusable as unusable:
            self._keep(str(unusable))
        else:
            self._take(ring, newest)

    def _take(self, ring: Keyring, newest: T) -> None:
        changed, mended = ring != self._ring, bool(self._fault)
        self._ring, self._newest, self._fault = ring, newest, ""
        self._told.clear()
        metrics.KEYRING_BROKEN.set(0)
        if changed:
            metrics.KEYRING_RELOADS.labels("taken").inc()
        if changed or mended:
            self._log.info("keyring taken", endpoints=sorted(ring.endpoints), changed=changed)

    def _keep(self, fault: str) -> None:
        metrics.KEYRING_BROKEN.set(1)
        if fault != self._fault:
            metrics.KEYRING_RELOADS.labels("broken").inc()
        self._fault = fault
        if fault in self._told:
            return
        if len(self._told) >= _TOLD_MAX:
            self._told.clear()
        self._told.add(fault)
        self._log.error("keyring broken", faults=fault.splitlines(), kept=sorted(self._ring.endpoints))


def _identity(path: Path) -> tuple[int, ...] | None:
    """What tells one state of the file from the next, links followed; None when it cannot be had."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
