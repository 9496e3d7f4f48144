"""Tells the result of a benchmark: on the terminal, in docs/performance.md with its picture, and as raw figures.

Rule: the picture is drawn in an environment of its own, made by uv from the lock file's group `bench`, so that nobody
downloads a drawing library who draws nothing. Where it cannot be had the tables are written all the same, and said so.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from schemas.times import rfc3339
from services.adapters.process.clock import now_us
from services.engines import jars
from tests.bench import machine, report
from tests.bench.verdict import GateResult

_DOCS: Final = Path("docs")
_PAGE: Final = "performance.md"


@dataclass(frozen=True, slots=True)
class Result:
    """The findings of one command.

    Attributes:
        command: Its name, which is that of its region and picture.
        at_us: When it began, microseconds UTC.
        how: One line: how it was measured.
        tables: In Markdown.
        verdicts: Of its gates.
        figures: What `--json` writes beside them.
        picture: Whether they are drawn.
    """

    command: str
    at_us: int
    how: str
    tables: str
    verdicts: list[GateResult]
    figures: dict[str, Any]
    picture: bool = True


def asked(parser: argparse.ArgumentParser, command: str, *, rounds: int) -> argparse.Namespace:
    """What was asked for: how often, in which order, where the result goes, and what the parser has of its own.

    Ends with 2 where the result could not be written: before hours are spent.
    """
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    parser.add_argument("--seed", type=int, default=now_us(), help="of the order of turns; default: another each time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="raw figures as JSON")
    parser.add_argument("--docs", type=Path, default=_DOCS, help="where performance.md and its pictures are")
    found = parser.parse_args()
    page = found.docs / _PAGE
    try:
        report.replaced(page.read_text(), _region(command), "")
    except (OSError, report.NoRegion) as error:
        parser.error(f"{page}: {error}")
    return found


def finish(main: Callable[[], int]) -> NoReturn:
    """Run a command to its exit status; 130 when somebody interrupts it."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)


def progress(text: str) -> None:
    """Where we are, for somebody who watches; nothing where nobody does."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def tell(result: Result, docs: Path, raw: Path | None) -> None:
    """Print it, write its part of the page, draw its picture, keep its figures."""
    progress("")
    on = f"{rfc3339(result.at_us)[:10]}, {machine.described()}, Kafka {jars.KAFKA}. {result.how}"
    whole = "\n\n".join((on, result.tables, report.gates(result.verdicts)))
    print(whole)
    told = json.dumps(
        {
            "command": result.command,
            "at": rfc3339(result.at_us),
            "machine": machine.described(),
            "verdicts": [asdict(verdict) for verdict in result.verdicts],
            **result.figures,
        },
        indent=1,
    )
    if raw:
        raw.write_text(told + "\n")
    page = docs / _PAGE
    picture = f"performance-{result.command}.svg"
    shown = f"\n\n![{result.command}]({picture})" if result.picture else ""
    page.write_text(report.replaced(page.read_text(), _region(result.command), whole + shown))
    print(f"\n{report.summary(result.verdicts)}")
    fault = _draw(told, docs / picture) if result.picture else ""
    if fault:
        print(f"\nThe picture {docs / picture} was NOT drawn: {fault}", file=sys.stderr)


def _region(command: str) -> str:
    return f"make {command}"


def _draw(told: str, picture: Path) -> str:
    """Draw a picture of the raw figures; why not, when it could not be."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        return "no uv"
    environment = (uv, "run", "--quiet", "--isolated", "--frozen", "--only-group", "bench", "--python", sys.executable)
    argv = (*environment, "python", "-m", "tests.bench.picture", str(picture))
    drawn = subprocess.run(argv, input=told, capture_output=True, text=True, check=False)
    return drawn.stderr.strip() if drawn.returncode else ""
