"""`lifecycle doctor`: asks everything that the services would ask, as they would ask it, and says what to do.

Rule: every check runs at the same time as the others, under a limit of its own, and none hides another: one that hangs,
raises or finds nothing to ask is a finding like any other. No check changes anything, and none shows a secret.
What the checks need is imported here, before they start: two threads that import one package wait for each other.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from services.adapters.process import settings
from services.adapters.process.clock import now_us
from services.adapters.process.settings import Settings, Unusable
from services.cli.doctor import databases, kafka, outside, running, this_machine
from services.cli.doctor.finding import Check, CheckContext, Finding, Health, NoKafka, fault, skipped, well
from services.cli.wording import counted

__all__ = ["Finding", "Health", "examine"]

T = TypeVar("T")

_NAME: Final = re.compile(r"[A-Z_]+")
_DEEP_S: Final = 60.0
CHECKS: Final = (
    Check("keyring", this_machine.keyring),
    Check("plan", this_machine.plan),
    Check("spool", this_machine.spool),
    Check("kafka", kafka.answers),
    Check("rights", kafka.rights),
    Check("topics", kafka.topics),
    Check("ledger's backlog", kafka.backlog_of_ledger),
    Check("provisioner's backlog", kafka.backlog_of_provisioner),
    Check("clock of Kafka", kafka.clock),
    Check("postgresql", databases.registry),
    Check("tenants' database", databases.tenants),
    Check("services", running.services),
    Check("tenants", running.tenants),
    Check("operator's systems", outside.systems),
    Check("archive", outside.archive),
    Check("organisations", this_machine.organisations),
)
DEEP: Final = Check("Genesys", outside.genesys, _DEEP_S)


def examine(environ: Mapping[str, str], up: Path, *, deep: bool) -> list[Finding]:
    """Look at everything; the findings stand in the order of the checks, whichever was the first to answer.

    Args:
        environ: The environment of an operator's command.
        up: State folder of a running `up`, for what it says of its services.
        deep: Log in to Genesys for every organisation as well.
    """
    chosen, unread, found = _read(environ)
    if chosen is None:
        return [this_machine.python(), *found]
    services, known_by = running.known(chosen, up)
    asked = CheckContext(chosen, services, known_by, now_us, unread)
    found += _all(asked, (*CHECKS, *([DEEP] if deep else [])))
    return [this_machine.python(), *found, *([] if deep else _not_deep(chosen))]


def _read(environ: Mapping[str, str]) -> tuple[Settings | None, frozenset[str], list[Finding]]:
    """The settings as far as they can be used, the names of those that cannot, and what is to be said of them."""
    try:
        return settings.read(environ), frozenset(), [well("settings", "every variable can be used")]
    except Unusable as error:
        lines = str(error).splitlines()
    cure = "correct this environment variable; `lifecycle doctor --settings` lists them"
    found = [fault("settings", line, cure) for line in lines]
    unread = frozenset(name[0] for line in lines if (name := _NAME.match(line)))
    try:
        rest = {name: text for name, text in environ.items() if name.upper() not in unread}
        return settings.read(rest), unread, found
    except Unusable:
        return None, unread, found


def _all(asked: CheckContext, checks: Sequence[Check]) -> list[Finding]:
    began_s = time.monotonic()
    _in_thread("cluster", asked.cluster, lambda: kafka.reached(asked))
    looking: list[tuple[Check, Future[list[Finding]]]] = []
    for check in checks:
        result: Future[list[Finding]] = Future()
        _in_thread(check.name, result, partial(_looked, check, asked))
        looking.append((check, result))
    found: list[Finding] = []
    for check, result in looking:
        try:
            found += result.result(max(0.0, began_s + check.limit_s - time.monotonic()))
        except TimeoutError:
            cure = "look whether what it asks hangs, and run `lifecycle doctor` again; the other findings stand"
            found.append(fault(check.name, f"no answer within {check.limit_s:g} s", cure))
    return found


def _in_thread(name: str, result: "Future[T]", work: Callable[[], T]) -> None:
    """Run it beside us; a thread that hangs in a library keeps nobody from ending."""

    def run() -> None:
        try:
            result.set_result(work())
        except Exception as error:  # noqa: BLE001 - whoever waits for the result is told
            result.set_exception(error)

    threading.Thread(target=run, name=f"doctor {name}", daemon=True).start()


def _looked(check: Check, asked: CheckContext) -> list[Finding]:
    try:
        return list(check.look(asked))
    except NoKafka:
        return [skipped(check.name, "Kafka does not serve us", "put right what the check `kafka` says")]
    except Unusable as error:
        return [fault(check.name, line, "correct this file or variable") for line in str(error).splitlines()]
    except Exception as error:  # noqa: BLE001 - no failing check hides the others, whatever it met
        text = (str(error).splitlines() or [""])[0]
        cure = "the other findings stand; this is a fault of `lifecycle doctor` itself, please report it"
        return [fault(check.name, f"the check failed: {type(error).__name__}: {text}", cure)]


def _not_deep(chosen: Settings) -> list[Finding]:
    count = this_machine.organisations_count(chosen)
    if not count:
        return []
    return [
        skipped("Genesys", f"the logins of {counted(count, 'organisation')} were not tried", "lifecycle doctor --deep")
    ]
