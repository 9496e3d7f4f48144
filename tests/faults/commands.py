"""Every command of `lifecycle` in every trouble: how it ends, how soon, and in which words.

    python -m tests.faults.commands [--command tenants] [--trouble kafka] [--at-once 3] [--limit-s 15]

Prints a table, command by trouble, and ends 1 when a cell is not as documented (docs/exit-statuses.md).

Rule: the commands are those of the program itself, so a new one is run without a word here; it then has to end as it
would without the trouble, or as the trouble says. What a command needs is a table, and makes that exact.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import typer

from services import engines
from services.adapters.tables import exits as table_exits
from services.cli.exits import Exit
from services.cli.main import app
from services.engines import Engine
from services.engines.ports import free_ports
from tests.support.eventually import eventually
from tests.support.troubles import Trouble, TroubledWorld, world

LIMIT_S: Final = 15.0
_PATIENCE_S: Final = 90.0
"""A command that takes longer hangs, however busy the machine is."""

NOTHING: Final = Trouble("no trouble", "nothing", {}, 0)

KEY: Final = "00000000-0000-4000-8000-000000000001:00000000-0000-4000-9000-000000000001"
GIVEN: Final[Mapping[str, str]] = {
    "key": KEY, "event": "installed", "endpoint": "default", "name": "audit", "file": "history.jsonl",
    "service": "ledger", "org": KEY.partition(":")[0],
}  # fmt: skip
"""Name of a required argument to what it is given."""

_BY: Final = ("--by", "operator")
_DIGEST: Final = "0123456789abcdef"
RECONCILIATIONS: Final = (
    ("--now",),
    ("--dry-run",),
    ("--report",),
    ("--report", "--outside"),
    ("--now", "--approve", _DIGEST, *_BY),
    ("--now", "--approve", _DIGEST, *_BY, "--expires", "PT5M"),
    ("--refuse", _DIGEST, *_BY),
    ("--remove-orphans", _DIGEST, *_BY),
)
"""The ways to reconcile. Approvals and the like rule on a set that is not there."""

ADOPTIONS: Final = (("history.jsonl", *_BY), ("--release", KEY, *_BY))
"""The ways to adopt, and to release."""

REPORTS: Final = frozenset({("--report",), ("--report", "--outside")})
"""They name the registry that they could not read, and end with a deviation."""

VARIANTS: Final[Mapping[tuple[str, ...], Sequence[tuple[str, ...]]]] = {
    ("adopt",): ADOPTIONS,
    ("ledger",): (("--recover-only",),),
    ("plan", "show"): (("--for", KEY),),
    ("reconcile",): RECONCILIATIONS,
    ("sagas", "retry"): ((KEY,), ("--failed",)),
    ("send",): (("--url", "http://127.0.0.1:9/v1/genesys/lifecycle/default"),),
}
"""Further ways to call a command, beside the plain one with its required arguments."""

_KAFKA, _CONFIGS, _POSTGRES = "kafka", "configs", "postgres"
NEEDS: Final[Mapping[tuple[str, ...], frozenset[str]]] = {
    ("ingress",): frozenset({_KAFKA}),
    ("hints", "sqs"): frozenset({_KAFKA, _CONFIGS}),
    ("ledger",): frozenset({_KAFKA, _CONFIGS}),
    ("provisioner",): frozenset({_KAFKA, _CONFIGS, _POSTGRES}),
    ("reconciler",): frozenset({_KAFKA, _CONFIGS}),
    ("simulator",): frozenset(),
    ("up",): frozenset({_KAFKA, _CONFIGS, _POSTGRES}),
    ("demo",): frozenset({_KAFKA, _CONFIGS, _POSTGRES}),
    ("version",): frozenset(),
    ("replay",): frozenset(),
    ("send",): frozenset(),
    ("reconcile",): frozenset({_KAFKA}),
    ("adopt",): frozenset({_KAFKA, _POSTGRES}),
    ("tenants", "list"): frozenset({_KAFKA}),
    ("tenants", "show"): frozenset({_KAFKA}),
    ("tenants", "timeline"): frozenset({_KAFKA}),
    ("audit", "verify"): frozenset({_KAFKA}),
    ("audit", "export"): frozenset({_KAFKA}),
    ("sagas", "list"): frozenset({_POSTGRES}),
    ("sagas", "show"): frozenset({_POSTGRES}),
    ("sagas", "retry"): frozenset({_POSTGRES}),
    ("plan", "check"): frozenset(),
    ("plan", "show"): frozenset({_POSTGRES}),
    ("keyring", "init"): frozenset(),
    ("keyring", "list"): frozenset(),
    ("keyring", "add"): frozenset(),
    ("keyring", "rotate"): frozenset(),
    ("keyring", "rotate-material"): frozenset(),
    ("orgs", "add"): frozenset(),
    ("orgs", "list"): frozenset(),
    ("orgs", "check"): frozenset(),
    ("orgs", "remove"): frozenset(),
    ("webhook", "plan"): frozenset(),
    ("webhook", "apply"): frozenset(),
    ("webhook", "verify"): frozenset(),
    ("topics", "list"): frozenset(),
    ("topics", "plan"): frozenset({_KAFKA, _CONFIGS}),
    ("topics", "apply"): frozenset({_KAFKA, _CONFIGS}),
}
"""What a command cannot do without; one that is not here may end either way."""

_NAMES_NOTHING: Final = frozenset({("reconcile",), ("sagas", "retry"), ("plan", "show"), ("adopt",)})
"""Commands that end with 2 in every trouble where nothing is named to do."""

ARGUMENTS_NEED: Final[Mapping[tuple[str, ...], frozenset[str]]] = {
    given: frozenset({_KAFKA, _POSTGRES})
    for given in (*(ruling for ruling in RECONCILIATIONS if _DIGEST in ruling), *ADOPTIONS)
}
"""What a command cannot do without that is called with these arguments, in place of `NEEDS`."""

SERVICES: Final = frozenset({("ingress",), ("hints", "sqs"), ("provisioner",), ("reconciler",), ("simulator",)})
"""They wait for the world: `/readyz` and a line of the log say for what, and SIGTERM ends them."""

BY_SUPERVISOR: Final = frozenset({("ledger",)})
"""It works until SIGTERM, and ends at once when Kafka does not serve it: a supervisor starts it again."""

WHOLE: Final = frozenset({("up",), ("demo",)})
"""They start everything; without a trouble they are not run, tests/e2e has them."""

_FOREIGN: Final = re.compile(r"^%\d\|", re.MULTILINE)
_STATUSES: Final = frozenset({*Exit, *table_exits.WorkerExit})


@dataclass(frozen=True, slots=True)
class Call:
    """One way to call one command."""

    words: tuple[str, ...]
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join("…" if word == KEY else word for word in (*self.words, *self.arguments))

    @property
    def needs(self) -> frozenset[str]:
        """What it cannot do without; empty if that is not known."""
        return ARGUMENTS_NEED.get(self.arguments, NEEDS.get(self.words, frozenset()))

    @property
    def runs_on(self) -> bool:
        """True if it works until it is stopped."""
        return self.words in SERVICES | BY_SUPERVISOR and "--recover-only" not in self.arguments


@dataclass(slots=True)
class Cell:
    """Result of one call in one trouble.

    Attributes:
        status: Exit status; of a service that waited, that of its end by SIGTERM.
        seconds: Until it ended, or until a service had said what it waits for.
        waited: It stayed alive.
        said: Its last line, or what `/readyz` says.
        faults: What is not as documented.
    """

    call: Call
    trouble: Trouble
    status: int = 0
    seconds: float = 0.0
    waited: bool = False
    said: str = ""
    faults: list[str] = field(default_factory=list)


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the program, by the words that call it."""

    def below(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        members = getattr(command, "commands", None)
        if members is None:
            yield words, command
        else:
            for name, member in members.items():
                yield from below((*words, name), member)

    return below((), typer.main.get_command(app))


def calls() -> Iterator[Call]:
    """Every way in which the runs call every command.

    Raises:
        AssertionError: a required argument is unknown here.
    """
    for words, command in commands():
        required = [one.name for one in command.params if one.param_type_name == "argument" and one.required]
        unknown = [name for name in required if name not in GIVEN]
        assert not unknown, f"lifecycle {' '.join(words)}: say in GIVEN what {', '.join(unknown)} is given"
        plain = tuple(GIVEN[name] for name in required)
        yield Call(words, plain)
        for variant in VARIANTS.get(words, ()):
            yield Call(words, (*plain, *variant))


class CommandRuns:
    """Runs calls in a world, and judges them."""

    def __init__(self, made: TroubledWorld, folder: Path) -> None:
        """Make what every command finds: a keyring, a history, settings of a plan."""
        self._made, self._folder = made, folder
        self._baselines: dict[Call, int] = {}
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "KEYRING_FILE": "keyring.json",
            "MIDDLEWARE_URL": "http://127.0.0.1:9",
            "SUBSCRIPTIONS_URL": "http://127.0.0.1:9",
            "OAUTH_URL": "http://127.0.0.1:9",
            "OAUTH_CLIENT_SECRET": "secret",
            **made.well,
        }
        self._keyring = folder / "keyring.json"
        self._program(folder, ("keyring", "init"), {}).communicate(timeout=_PATIENCE_S)

    def cell(self, call: Call, trouble: Trouble) -> Cell:
        """Run a call in a trouble, and judge it by what it does without."""
        made = self._run(call, trouble)
        if trouble is NOTHING:
            self._baselines[call] = made.status
        elif self._needs_baseline(call, trouble) and call not in self._baselines:
            self._baselines[call] = self._run(call, NOTHING).status
        self._judge(made)
        return made

    @staticmethod
    def _needs_baseline(call: Call, trouble: Trouble) -> bool:
        """True if this call may end in the trouble as it does without: `reconcile` alone, say, names nothing to do."""
        if call.runs_on or call.words in WHOLE | {("doctor",)}:
            return False
        names_too_little = call.words in _NAMES_NOTHING and call.arguments not in ARGUMENTS_NEED
        return trouble.of not in call.needs or names_too_little

    def _run(self, call: Call, trouble: Trouble) -> Cell:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        (folder / "keyring.json").write_bytes(self._keyring.read_bytes())
        (folder / "keyring.json").chmod(0o600)
        (folder / "history.jsonl").touch()
        (port,) = free_ports(1)
        own = {**trouble.environ, "PORT": str(port), "METRICS_PORT": str(port), "STATE_DIR": str(folder / "state")}
        began_s = time.monotonic()
        process = self._program(folder, (*call.words, *call.arguments), own)
        made = Cell(call, trouble)
        log = folder / "stderr"
        try:
            if call.runs_on:
                self._watch(made, process, port, log)
            else:
                process.wait(_PATIENCE_S)
        except (subprocess.TimeoutExpired, AssertionError) as error:
            made.faults.append(f"hung: {str(error)[:200]}")
        finally:
            made.seconds = made.seconds or time.monotonic() - began_s
            if process.poll() is None:
                process.kill()
            made.status = process.wait()
        lines = log.read_text(errors="replace").splitlines()
        made.said = made.said or (lines[-1] if lines else "")
        self._judge_words(made, lines)
        return made

    def _program(self, folder: Path, words: Sequence[str], environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        with (folder / "stderr").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "services.cli.main", *words],
                env={**self._environ, **environ},
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def _watch(self, made: Cell, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        """Wait until a service is ready, says why it is not, or ends; then stop it."""
        began_s = time.monotonic()
        wanted = 503 if made.trouble.of in NEEDS[made.call.words] else 200

        def settled() -> bool:
            status, told = _ready(port)
            made.said = told or made.said
            warned = wanted == 200 or any(level in log.read_text(errors="replace") for level in _LOUD)
            names = wanted == 200 or bool(_NOT_YET.sub("", made.said).strip("; "))
            return process.poll() is not None or (status == wanted and warned and names)

        eventually(settled, _PATIENCE_S)
        made.seconds = time.monotonic() - began_s
        if process.poll() is None:
            made.waited = True
            process.send_signal(signal.SIGTERM)
            asked_s = time.monotonic()
            process.wait(_PATIENCE_S)
            made.seconds = max(made.seconds, time.monotonic() - asked_s)
        else:
            made.said = ""
        if _CODE.search(made.said):
            made.faults.append("a library's word alone")

    def _judge_words(self, made: Cell, lines: list[str]) -> None:
        text = "\n".join(lines)
        if "Traceback" in text:
            made.faults.append("a traceback")
        if _FOREIGN.search(text):
            made.faults.append("lines of librdkafka's own")
        sentences = [line for line in lines if line.startswith("lifecycle: ")]
        ours = made.call.runs_on or made.call.words in {*WHOLE, ("ledger",)}
        if not ours and len(lines) > max(1, len(sentences)):
            made.faults.append(f"{len(lines)} lines on standard error")
        if not made.waited and made.trouble is not NOTHING and len(sentences) > 1 and made.status != Exit.UNUSABLE:
            made.faults.append(f"{len(sentences)} sentences")

    def _allowed(self, made: Cell) -> set[int]:
        """The documented statuses of a cell."""
        words, trouble = made.call.words, made.trouble
        allowed: set[int] = {self._baselines.get(made.call, 0)}
        if words == ("doctor",) and trouble is not NOTHING:
            allowed = {Exit.DEVIATION}
        elif "--remove-orphans" in made.call.arguments and trouble.of == _KAFKA:
            # It asks for a broker and needs no right there.
            allowed = {trouble.status, Exit.UNUSABLE}
        elif made.call.arguments in REPORTS and trouble.of == _POSTGRES:
            allowed = {Exit.DEVIATION}
        elif words not in NEEDS and trouble is not NOTHING:
            allowed |= {trouble.status}
        elif trouble.of == "settings":
            allowed = {Exit.UNUSABLE} if _KAFKA in NEEDS[words] else allowed | {Exit.UNUSABLE}
        elif (
            trouble.of in made.call.needs
            and not made.waited
            and (
                # A ruling fails at what it needs before it looks for its set.
                Exit.UNUSABLE not in allowed or made.call.arguments in ARGUMENTS_NEED
            )
        ):
            allowed = {trouble.status}
        return allowed

    def _judge(self, made: Cell) -> None:
        trouble, allowed = made.trouble, self._allowed(made)
        if made.status not in allowed:
            made.faults.append(f"status {made.status}, not {' or '.join(str(int(one)) for one in sorted(allowed))}")
        if made.status not in _STATUSES:
            made.faults.append(f"status {made.status} is documented nowhere")
        if made.status == trouble.status and trouble.of in made.call.needs and not made.waited:
            text = made.said.lower()
            if not any(word.lower() in text for word in trouble.says):
                made.faults.append(f"says nothing of {' or '.join(trouble.says)}")


_NOT_YET: Final = re.compile(r"\w+: (not asked yet|not started|not yet running)")
"""What `/readyz` says before anything was tried."""
_CODE: Final = re.compile(r": _[A-Z_]+\b")
_LOUD: Final = ('"level": "warning"', '"level": "error"', '"level": "critical"')


def _ready(port: int) -> tuple[int, str]:
    """Status of `/readyz`, and what of its checks is not well."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        checks = json.load(error)["checks"]
        return error.code, "; ".join(f"{name}: {text}" for name, text in checks.items() if text != "ok")
    except OSError:
        return 0, ""


def run_all(
    made: TroubledWorld, folder: Path, wanted: Collection[tuple[Call, Trouble]], *, at_once: int, limit_s: float | None
) -> list[Cell]:
    """Run them all.

    Args:
        made: The world.
        folder: For what they write.
        wanted: Calls and troubles.
        at_once: Processes at the same time.
        limit_s: Seconds that a command may take; None on a machine that is busy with everything else. Who takes longer
            is measured once more, alone.
    """
    runs = CommandRuns(made, folder)
    with ThreadPoolExecutor(at_once) as pool:
        cells = list(pool.map(lambda one: runs.cell(*one), wanted))
    for number, one in enumerate(cells):
        if limit_s is not None and one.seconds > limit_s and not one.faults:
            again = cells[number] = runs.cell(one.call, one.trouble)
            if again.seconds > limit_s:
                again.faults.append(f"took longer than {limit_s:g} s")
    return cells


def is_run(call: Call, trouble: Trouble) -> bool:
    """False for what would start whole installations, or wait for what is well."""
    return call.words not in WHOLE or trouble.of in NEEDS[call.words]


def told(cells: Sequence[Cell]) -> str:
    """The table."""
    lines = [f"{'command':<34} {'trouble':<26} {'ends':>8} {'s':>5}  says"]
    for one in cells:
        ends = f"waits, {one.status}" if one.waited else str(one.status)
        lines.append(f"{one.call!s:<34.34} {one.trouble.name:<26} {ends:>8} {one.seconds:>5.1f}  {one.said[:200]}")
        lines += [f"    NOT AS DOCUMENTED: {text}" for text in one.faults]
    wrong = sum(bool(one.faults) for one in cells)
    return "\n".join([*lines, f"{len(cells)} cells, {wrong} not as documented"])


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", default="", help="only calls that begin so")
    parser.add_argument("--trouble", default="", help="only troubles that begin so")
    parser.add_argument("--at-once", type=int, default=3, help="processes at the same time")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="seconds a command may take")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lifecycle-commands-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with (
            engines.running(folder, os.environ, wanted=(Engine.POSTGRES,)) as running,
            world(folder, running.database_url) as made,
        ):
            wanted = [
                (call, trouble)
                for call in calls()
                if str(call).startswith(chosen.command)
                for trouble in (NOTHING, *made.troubles.values())
                if trouble.name.startswith(chosen.trouble) and is_run(call, trouble)
            ]
            cells = run_all(made, folder, wanted, at_once=chosen.at_once, limit_s=chosen.limit_s)
    print(told(cells))
    return 1 if any(one.faults for one in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
