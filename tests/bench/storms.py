"""One server under one open-loop plan: send it, and sum up what came back."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.adapters.process.clock import now_us
from tests.bench import deliveries, machine, sending
from tests.bench.contenders import PATH, Contender
from tests.bench.figures import UNANSWERED, Name, Storm
from tests.bench.openloop import Answers, Plan
from tests.bench.verdict import percentile

_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class StormCase:
    """A plan without its server.

    Attributes:
        name: Of it in the report.
        due_s: From a seed to the instants of its requests.
        connections: How many are open at the start.
        servers: Whom it is sent to.
    """

    name: str
    due_s: Callable[[int], list[float]]
    connections: int
    servers: tuple[Name, ...]


def brave(case: StormCase, server: Contender, folder: Path, number: int) -> Storm:
    """Send a case to a server.

    Args:
        case: What.
        server: To whom.
        folder: For the files it needs.
        number: Of the round; also the seed, so that all servers of a round are sent the same.
    """
    due_s = case.due_s(number)
    file = folder / "storm.tsv"
    deliveries.write(file, len(due_s), now_us())
    plan = Plan(server.port, PATH, str(file), case.connections, due_s, _PATIENCE_S)
    machine.settle(server.pid, *server.beside)
    before = machine.read()
    answers = sending.send(plan, folder)
    after = machine.read()
    return summed(number, server.name, case.name, plan, answers, machine.strangers_cores(before, after))


def summed(number: int, server: str, case: str, plan: Plan, answers: Answers, strangers_cores: float) -> Storm:
    """The figures of one run; a request without an answer counts as long as it was waited for."""
    end_ms = (plan.due_s[-1] + plan.patience_s) * 1e3
    waited_ms = [
        end_ms - due_s * 1e3 if answers.words[said] == UNANSWERED else waited_us / 1e3
        for due_s, waited_us, said in zip(plan.due_s, answers.waited_us, answers.said, strict=True)
    ]
    return Storm(
        round=number,
        server=server,
        case=case,
        requests=len(waited_ms),
        p50_ms=percentile(waited_ms, 50),
        p99_ms=percentile(waited_ms, 99),
        max_ms=max(waited_ms),
        said={answers.words[said]: count for said, count in Counter(answers.said).items()},
        connections=plan.connections,
        late_p99_ms=percentile(answers.late_us, 99) / 1e3,
        sender_cores=answers.cpu_s / answers.lasted_s,
        per_s=len(waited_ms) / answers.lasted_s,
        strangers_cores=strangers_cores,
    )
