"""Runs one program for one call: input, output up to a limit, standard error by lines, and the end in one value.

Rule: a program never outlives its call. The launcher (`launcher.py`) ends the program; this side gives signs of life,
and closes the pipe to end the program early. A launcher that was killed itself leaves its process group to this side.

Rule: the program sees the environment, the input and the working folder given here and nothing of this process.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Final

_LAUNCHER: Final = Path(__file__).with_name("launcher.py")
_PREFIX: Final = "call-"
_SLACK_S: Final = 0.6
"""Seconds after the time limit in which the launcher is to report; then its process group is killed from here."""
_DRAIN_S: Final = 0.3
"""Seconds for the rest of the output after the end of every process."""
_REAP_S: Final = 4.0
"""Seconds for the end of a launcher whose pipe was closed: the longest grace period, and the kill."""
_GRACE_MOST_S: Final = 2.0
_CHUNK: Final = 65_536
_LINE_MOST: Final = 8_192
"""Bytes of a line of standard error; the rest of a longer line is dropped."""


class ProgramEnd(StrEnum):
    """The way in which a program ended."""

    EXITED = "exited"
    """By itself, with an exit status."""
    SIGNALLED = "signalled"
    """By a signal that was not sent from here."""
    TIMED_OUT = "timed_out"
    """The time limit was over, and the program was ended."""
    TOO_MUCH = "too_much"
    """The output was over its limit, and the program was ended."""
    NOT_STARTED = "not_started"
    """The program could not be executed; nothing ran."""
    UNABLE = "unable"
    """This machine gave no working folder or no process; nothing ran."""
    LATE = "late"
    """This process stood still between the call and the program; nothing ran."""
    LOST = "lost"
    """Unknown: the launcher was killed, or did not report in time."""


_REPORTED: Final = frozenset(ProgramEnd) - {ProgramEnd.TOO_MUCH, ProgramEnd.LOST, ProgramEnd.UNABLE}
"""Ends that the launcher reports."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program and the limits of its run.

    Attributes:
        argv: Program and arguments; a program without a slash is looked up on the PATH of `environment`.
        input: Text for standard input.
        environment: The whole environment. The working folder is put in as HOME and TMPDIR where both are missing.
        timeout_s: Seconds from the call to the death of the last process. SIGTERM is sent before, by a quarter of the
            time, at most 2 s.
        output_most: Bytes of standard output.
    """

    argv: tuple[str, ...]
    input: str = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    timeout_s: float
    output_most: int


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """The end of a program.

    Attributes:
        end: The way in which the program ended.
        status: Exit status, or the number of the signal; 0 in any further case.
        output: Standard output, cut at the limit.
        why: Reason of a program that could not be executed.
    """

    end: ProgramEnd
    status: int = 0
    output: bytes = field(default=b"", repr=False)
    why: str = ""


class _Launched:
    """A started launcher with its pipes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        result, told = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", str(_LAUNCHER), str(told)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(told,),
                env={},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(result)
            raise
        finally:
            os.close(told)
        self.result = os.fdopen(result, "rb", 0)
        self.control: asyncio.WriteTransport | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._unread = [self.process.stdout, self.process.stderr, self.result]

    async def reader(self, pipe: IO[bytes] | None) -> asyncio.StreamReader:
        """Returns a reader of a pipe of the launcher."""
        reader = asyncio.StreamReader(limit=_CHUNK)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        self._transports.append(transport)
        self._unread.remove(pipe)  # the transport closes it
        return reader

    def hang_up(self) -> None:
        """Closes the pipe to the launcher, which ends the program."""
        if self.control is not None:
            self.control.close()
        elif self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()

    def close(self) -> None:
        """Closes every pipe."""
        self.hang_up()
        for part in (*self._transports, *self._unread):
            if part is not None:
                part.close()

    def kill(self) -> None:
        """Kills the process group of the launcher; only before `process.poll` has seen its end."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


class Programs:
    """Runs programs, each in a working folder of its own. Use from one event loop."""

    def __init__(self, folder: Path, silence_s: float) -> None:
        """Prepares the runs; the folder is made with the first one.

        Args:
            folder: Folder of the working folders.
            silence_s: Seconds without a sign of life of this process after which a program is ended: less than a lease
                lasts, so that no program of a stopped worker runs beside one of its successor.
        """
        self._folder, self._silence_s = folder, silence_s
        self._ending: set[asyncio.Task[None]] = set()

    async def run(
        self, program: Program, on_line: Callable[[bytes], None], *, may_act: Callable[[], bool] = lambda: True
    ) -> ProgramResult:
        """Runs a program to its end; a cancellation ends the program too.

        Args:
            program: The program.
            on_line: Called with every line of standard error, without its end; a long line is cut.
            may_act: True while the program may run. Nothing is started without, and no sign of life is given.
        """
        begun_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        # The start blocks the loop for about a millisecond. In a thread it could outlive a cancellation.
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            launched = _Launched(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._folder.absolute())))
        except OSError as error:
            return ProgramResult(ProgramEnd.UNABLE, why=error.strerror or type(error).__name__)
        try:
            return await self._watch(launched, program, begun_s, on_line, may_act)
        finally:
            launched.hang_up()
            task = asyncio.create_task(_ended(launched), name="end of a program")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Waits for the end of the programs whose calls were cancelled."""
        if self._ending:
            await asyncio.wait(self._ending)

    async def _watch(
        self,
        launched: _Launched,
        program: Program,
        begun_s: float,
        on_line: Callable[[bytes], None],
        may_act: Callable[[], bool],
    ) -> ProgramResult:
        loop, process = asyncio.get_running_loop(), launched.process
        launched.control, _ = await loop.connect_write_pipe(asyncio.Protocol, process.stdin)
        # The last look before the program. A stop between this line and the start is noticed by the launcher.
        if not may_act():
            return ProgramResult(ProgramEnd.LATE)
        launched.control.write(self._order(launched, program, begun_s))
        output, errors, result = [
            await launched.reader(pipe) for pipe in (process.stdout, process.stderr, launched.result)
        ]
        reading = asyncio.create_task(_read(output, program.output_most, launched.hang_up), name="output")
        lines = asyncio.create_task(_lines(errors, on_line), name="lines")
        signs = asyncio.create_task(self._give_signs(launched.control, may_act), name="signs of life")
        try:
            left_s = begun_s + program.timeout_s + _SLACK_S - time.clock_gettime(time.CLOCK_BOOTTIME)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, left_s)):
                    told = json.loads(await result.readline() or b"{}")
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_DRAIN_S):
                            await asyncio.wait({reading, lines})
                    return _result(told, reading)
            return ProgramResult(ProgramEnd.LOST)
        finally:
            for task in (reading, lines, signs):
                task.cancel()

    def _order(self, launched: _Launched, program: Program, begun_s: float) -> bytes:
        grace_s = min(_GRACE_MOST_S, program.timeout_s / 4)
        folder = str(launched.folder)
        order = {
            "argv": program.argv,
            "input": program.input,
            "environment": {"HOME": folder, "TMPDIR": folder, **program.environment},
            "folder": folder,
            "begun_s": begun_s,
            "end_s": begun_s + program.timeout_s - grace_s,
            "grace_s": grace_s,
            "silence_s": self._silence_s,
        }
        return json.dumps(order).encode() + b"\n"

    async def _give_signs(self, control: asyncio.WriteTransport, may_act: Callable[[], bool]) -> None:
        while True:
            await asyncio.sleep(self._silence_s / 4)
            if may_act() and not control.is_closing():
                control.write(b".")


def _result(told: Mapping[str, Any], reading: "asyncio.Task[tuple[bytes, bool]]") -> ProgramResult:
    output, is_too_much = reading.result() if reading.done() else (b"", False)
    if is_too_much:
        return ProgramResult(ProgramEnd.TOO_MUCH, output=output)
    end = str(told.get("end", ""))
    # No report: somebody killed the launcher. `abandoned`: the signs of life came too late. No end of the output, or a
    # process that is left: a process inside the kernel cannot be killed, and may act yet.
    if end not in _REPORTED or not reading.done() or told.get("left"):
        return ProgramResult(ProgramEnd.LOST)
    return ProgramResult(ProgramEnd(end), int(told.get("status", 0)), output, str(told.get("why", "")))


async def _read(reader: asyncio.StreamReader, most: int, too_much: Callable[[], None]) -> tuple[bytes, bool]:
    """Reads the output to its end; returns the first `most` bytes, and True if there were more."""
    kept, is_more = b"", False
    while part := await reader.read(_CHUNK):
        kept += part[: most + 1 - len(kept)]
        if len(kept) > most and not is_more:
            is_more = True
            too_much()
    return kept[:most], is_more


async def _lines(reader: asyncio.StreamReader, on_line: Callable[[bytes], None]) -> None:
    """Passes on every line, cut at `_LINE_MOST` bytes, and reads to the end, so that no full pipe stops the program."""
    rest = b""
    while part := await reader.read(_CHUNK):
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            on_line(line[:_LINE_MOST])
        rest = rest[:_LINE_MOST]
    if rest:
        on_line(rest)


async def _ended(launched: _Launched) -> None:
    """Waits for the end of a launcher, kills what a killed launcher left, and removes the working folder."""
    process, loop = launched.process, asyncio.get_running_loop()
    ended, descriptor = asyncio.Event(), os.pidfd_open(launched.process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_REAP_S):
                await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        # The zombie keeps the number of the group: whoever is in the group belongs to this call.
        launched.kill()
        process.wait()
        launched.close()
        shutil.rmtree(launched.folder, ignore_errors=True)
