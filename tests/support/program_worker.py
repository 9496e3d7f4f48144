"""A real process that runs one program: `python -m tests.support.program_worker FOLDER SILENCE_S TIMEOUT_S ARGV...`.

Prints `begun` before, and the end of the program in a line.
"""

import sys
from pathlib import Path

import uvloop

from services.adapters.programs.run import Program, Programs


async def _run(folder: str, silence_s: str, timeout_s: str, *argv: str) -> None:
    programs = Programs(Path(folder), float(silence_s))
    print("begun", flush=True)
    environment = {"PATH": "/usr/bin:/bin"}
    result = await programs.run(Program(argv, "{}", environment, float(timeout_s), 1_000), lambda _: None)
    print(result.end, flush=True)
    await programs.close()


if __name__ == "__main__":
    uvloop.run(_run(*sys.argv[1:]))
