"""Runs the program of one call, for the kinds `script` and `python`: environment, limits, log lines, answer.

Rule: the end of a program is never taken for more than it proves. A program that did not start did nothing; a program
that ended in any way but by an exit status of the contract may have done all or nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from services.adapters.process.logs import Logger
from services.adapters.process.settings import ProvisionerSettings
from services.adapters.programs.run import Program, ProgramEnd, ProgramResult, Programs
from services.core.saga.calls import Answer, Call, OperatorRefused, Refused, Retryable
from services.core.saga.program_contract import OUTPUT_MOST_BYTES, answer_of, cleaned, unclear
from services.provisioner.kinds.step_kind import Shared

_LINES_MOST: Final = 100
"""Log lines of one call."""
_BASIC: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
"""Environment of every program, beside HOME and TMPDIR. Nothing is inherited: this process has secrets in its own."""
_PER_LEASE: Final = 4
"""A program is ended after this part of a lease without a sign of life, so before another worker has the lease."""
_FOLDER: Final = "programs"
_NO_START: Final = "make the program of this step executable on every machine of the provisioner"


class ChildProgram:
    """Runs the programs of one kind."""

    def __init__(self, folder: Path, lease_s: float, log: Logger) -> None:
        """Prepares the runs.

        Args:
            folder: Folder of the working folders, each made for a call and removed after it.
            lease_s: Length of a lease, seconds.
            log: Logger of the service.
        """
        self._programs, self._log = Programs(folder, lease_s / _PER_LEASE), log

    @classmethod
    def of(cls, settings: ProvisionerSettings, log: Logger) -> "ChildProgram":
        """Returns the runs with working folders below STATE_DIR."""
        return cls(settings.state_dir / _FOLDER, settings.lease_s, log)

    async def answer(self, call: Call, argv: tuple[str, ...], text: str) -> Answer:
        """Runs a program for a call; returns the answer.

        Args:
            call: The call.
            argv: Program and arguments.
            text: Text for standard input.
        """
        environment = _environment(call.settings.get("environment", {}))
        if isinstance(environment, Refused):
            return environment
        program = Program(argv, text, environment, call.timeout_s, OUTPUT_MOST_BYTES)
        lines = _StepLines(call, self._log)
        result = await self._programs.run(program, lines.take, may_act=call.is_held)
        lines.end()
        return _meaning(call, argv, result)

    async def result(
        self, argv: tuple[str, ...], text: str, environment: Mapping[str, Any], timeout_s: float
    ) -> ProgramResult:
        """Runs a program outside of a call; standard error is dropped."""
        given = _environment(environment)
        kept = dict(_BASIC) if isinstance(given, Refused) else given
        return await self._programs.run(Program(argv, text, kept, timeout_s, OUTPUT_MOST_BYTES), lambda _: None)

    async def close(self) -> None:
        """Waits for the end of programs whose calls were cancelled."""
        await self._programs.close()


class ProgramKind:
    """Common part of the kinds `script` and `python`: the runs of programs."""

    def __init__(self, programs: ChildProgram) -> None:
        self._programs = programs

    @classmethod
    def build(cls, settings: ProvisionerSettings, shared: Shared) -> Self:
        """Returns the kind, with working folders below STATE_DIR."""
        return cls(ChildProgram.of(settings, shared.log))

    async def close(self) -> None:
        """Waits for the end of programs whose calls were cancelled."""
        await self._programs.close()


class _StepLines:
    """Logs the lines that a program writes to standard error."""

    def __init__(self, call: Call, log: Logger) -> None:
        self._call, self._log, self._count = call, log, 0

    def take(self, line: bytes) -> None:
        self._count += 1
        if self._count <= _LINES_MOST:
            said = cleaned(line.decode(errors="replace"), self._call)
            self._log.info("program says", key=self._call.key, step=self._call.step, verb=self._call.verb, said=said)

    def end(self) -> None:
        if self._count > _LINES_MOST:
            more = self._count - _LINES_MOST
            self._log.info(
                "program said more", key=self._call.key, step=self._call.step, verb=self._call.verb, count=more
            )


def _environment(given: Mapping[str, Any]) -> dict[str, str] | Refused:
    """Returns the environment; `Refused` for a value of the configuration that no environment can hold."""
    written = {
        name: ("true" if value else "false") if isinstance(value, bool) else str(value)
        for name, value in given.items()
        if isinstance(value, str | int | float)
    }
    unfit = [name for name in given if name not in written or "\0" in written[name]]
    return Refused(f"environment: {unfit[0]} is no text", heard=False) if unfit else dict(_BASIC) | written


def _meaning(call: Call, argv: tuple[str, ...], result: ProgramResult) -> Answer:  # noqa: PLR0911 - one line a case
    match result.end:
        case ProgramEnd.EXITED:
            return answer_of(call, result.status, result.output)
        case ProgramEnd.NOT_STARTED:
            return OperatorRefused(f"{argv[0]}: {result.why}", _NO_START)
        case ProgramEnd.UNABLE:
            return Retryable(f"no program was started: {result.why}")
        case ProgramEnd.LATE:
            return Retryable("this worker stood still or lost its lease: no program was started", well=True)
        case ProgramEnd.SIGNALLED:
            return unclear(call, f"ended by signal {result.status}")
        case ProgramEnd.TIMED_OUT:
            return unclear(call, f"not done within {call.timeout_s:g} s")
        case ProgramEnd.TOO_MUCH:
            return unclear(call, f"more than {OUTPUT_MOST_BYTES} bytes of standard output")
        case ProgramEnd.LOST:
            return unclear(call, "the end of the program is unknown")
