"""A process with a spool, for tests that kill it or betray its disk: it says what it is told, a line each.

`keep` appends records and reads them back; `drain` adopts what was left behind. It speaks by `writev`, so that a test
may delay or fail every `write`.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from schemas.codec import Message
from schemas.spooled import Spooled
from services.adapters.spool import FolderInUse, Spool, SpoolError, abandoned_folders

_SIZES = (0, 30, 700, 5_000)
_TICK_S = 0.002


def record(number: int, size_bytes: int | None = None) -> Spooled:
    """Another one for each number, and always the same."""
    size_bytes = _SIZES[number % len(_SIZES)] if size_bytes is None else size_bytes
    value = (b"%d," % number * size_bytes)[:size_bytes]
    headers = [("ce_id", b"%d" % number), ("received_at", b"\xff")]
    return Spooled("lifecycle.received", Message(b"org:%d" % (number % 7), value, headers), number)


def said(part: str, *, until: str = "done", under: Sequence[str] = (), **arguments: Any) -> list[str]:
    """Run a part of the subject, perhaps under a tracer, kill it when it says `until`, and give all that it said.

    A subject that hangs may hold the interpreter's lock: so it is a process, and killed after a minute.
    """
    command = [*under, sys.executable, "-m", "tests.faults.spool_subject", json.dumps([part, arguments])]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        kill = partial(os.killpg, process.pid, signal.SIGKILL)
        deadline = threading.Timer(60, kill)
        deadline.start()
        for line in process.stdout or ():
            lines.append(line.strip())
            if lines[-1] == until:
                kill()
        deadline.cancel()
    return lines


def numbers(lines: Iterable[str], word: str) -> list[int]:
    """The numbers on lines with this word."""
    return [int(line.split()[1]) for line in lines if line.startswith(f"{word} ")]


def say(*words: object) -> None:
    os.writev(1, [" ".join(map(str, words)).encode() + b"\n"])


async def keep(parent: str, records: int, in_flight: int, size_bytes: int | None = None, most: int = 10**9) -> None:
    """Append records until all are kept or one is refused, say what can be read, and wait to be killed.

    Beyond `most` the oldest are deleted.
    """
    spool = await Spool.open(Path(parent), partial(say, "closed"))
    say("open", spool.path)
    late = Lateness()
    coming = iter(range(1, records + 1))
    over = asyncio.Event()

    def append() -> None:
        if (number := next(coming, None)) is not None and not spool.closed:
            spool.append(record(number, size_bytes), partial(report, number))

    def report(number: int, kept: bool) -> None:  # noqa: FBT001 - a report's one word
        say("kept" if kept else "refused", number)
        spool.delete([number - most])
        append()
        if not spool.waiting:
            over.set()

    for _ in range(in_flight):
        append()
    await over.wait()
    if spool.closed:
        spool.append(record(0), lambda kept: say("later", int(kept)))
    say("late_ms", await late.worst_ms())
    await read_back(spool)
    say("done")
    await asyncio.Event().wait()


async def drain(parent: str) -> None:
    """Adopt what was left behind, as far as nobody else does, say what is in it, and part with it."""
    for folder in abandoned_folders(Path(parent)):
        try:
            spool = await Spool.adopt(folder, partial(say, "closed"))
        except FolderInUse:
            continue
        except SpoolError as error:
            say("refused", type(error).__name__)
            continue
        say("damaged", spool.damaged)
        await read_back(spool)
        await spool.end()
    say("done")


async def read_back(spool: Spool) -> None:
    while found := await spool.oldest(100, 1 << 20):
        for _, kept in found:
            of = kept.received_us
            say("read" if kept == record(of, len(kept.message.value)) else "changed", of)
        spool.delete(number for number, _ in found)


class Lateness:
    """Delay of the loop, and of a thread beside it."""

    def __init__(self) -> None:
        self._worst_s = 0.0
        self._over = False
        self._task = asyncio.create_task(self._in_loop())
        self._thread = threading.Thread(target=self._beside)
        self._thread.start()

    async def worst_ms(self) -> int:
        self._over = True
        await self._task
        self._thread.join()
        return round(self._worst_s * 1000)

    async def _in_loop(self) -> None:
        while not self._over:
            began = time.monotonic()
            await asyncio.sleep(_TICK_S)
            self._served(began)

    def _beside(self) -> None:
        while not self._over:
            began = time.monotonic()
            time.sleep(_TICK_S)
            self._served(began)

    def _served(self, began: float) -> None:
        self._worst_s = max(self._worst_s, time.monotonic() - began - _TICK_S)


if __name__ == "__main__":
    _part, _arguments = json.loads(sys.argv[1])
    asyncio.run(keep(**_arguments) if _part == "keep" else drain(**_arguments))
