"""`lifecycle doctor`: checks every dependency of the services with the services' own settings, and names remedies.

Rule: all checks run simultaneously, each under a separate time limit, and no check hides the findings of the rest: a
check that hangs, raises or has no target yields a finding. No check changes any state, and no finding shows a secret.
"""

# The problem: the client libraries behind the checks may block for minutes, or for ever, and Python cannot end a
# thread. The approach: each check runs in a daemon thread and delivers its findings through a Future; `_run_checks`
# waits for each future until the check's limit and goes on without the late ones; the command then ends by `os._exit`
# (services/cli/operate.py), so that neither a hanging thread nor a client's destructor delays the end.
#
# The modules of the checks are imported here, before any thread starts: two threads that import the same package wait
# for each other's import lock, and the wait would count against the limit of a check.

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from services.adapters.process.clock import now_us
from services.adapters.process.environment import read
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import Settings
from services.cli.doctor import databases, hint_queue, kafka, organisation, outside, running, this_machine
from services.cli.doctor.finding import Check, CheckContext, Finding, Health, NoKafka, fault, skipped, well
from services.cli.wording import counted

__all__ = ["Finding", "Health", "examine"]

T = TypeVar("T")

_NAME: Final = re.compile(r"[A-Z_]+")
_DEEP_S: Final = 60.0
CHECKS: Final = (
    Check("keyring", this_machine.keyring),
    Check("plan", this_machine.plan),
    Check("tenants file", this_machine.tenants_file),
    Check("spool", this_machine.spool),
    Check("kafka", kafka.brokers),
    Check("rights", kafka.rights),
    Check("topics", kafka.topics),
    Check("ledger's backlog", kafka.backlog_of_ledger),
    Check("provisioner's backlog", kafka.backlog_of_provisioner),
    Check("clock of Kafka", kafka.clock),
    Check("postgresql", databases.registry),
    Check("tenants' database", databases.tenants),
    Check("hints' queue", hint_queue.hint_queue),
    Check("services", running.services),
    Check("tenants", running.tenants),
    Check("operator's systems", outside.systems),
    Check("archive", outside.archive),
    Check("organisations", this_machine.organisations),
)
"""The checks, in the order of their findings."""
DEEP: Final = Check("Genesys", outside.genesys, _DEEP_S)
"""The check of the option `--deep`: one login per organisation, so its time limit is longer."""


def examine(environ: Mapping[str, str], up: Path, *, deep: bool, orgs: Sequence[str] = ()) -> list[Finding]:
    """Runs all checks and returns the findings in the order of the checks.

    Args:
        environ: The environment of an operator's command.
        up: State folder of a running `up`, for the URLs of the services.
        deep: True to log in to Genesys for every organisation as well.
        orgs: Organisations to ask Genesys about as `lifecycle orgs check` does.
    """
    chosen, unusable, found = _read(environ)
    if chosen is None:
        return [this_machine.python(), *found]
    services, services_source = running.known_services(chosen, up)
    context = CheckContext(chosen, services, services_source, now_us, unusable)
    found += _run_checks(context, (*CHECKS, *([DEEP] if deep else []), *map(organisation.named_check, orgs)))
    return [this_machine.python(), *found, *([] if deep or orgs else _deep_hint(chosen))]


def _read(environ: Mapping[str, str]) -> tuple[Settings | None, frozenset[str], list[Finding]]:
    """Returns the usable settings, the names of unusable variables, and a finding for each fault.

    The unusable variables are left out and the rest is read again: a single typing error must not stop all checks. The
    settings are None if the rest cannot be used either.
    """
    try:
        return read(environ, Settings), frozenset(), [well("settings", "every variable can be used")]
    except Unusable as error:
        # One line per fault; a line about a variable begins with the variable's name.
        lines = str(error).splitlines()
    cure = "correct this environment variable; `lifecycle doctor --settings` lists them"
    found = [fault("settings", line, cure) for line in lines]
    unusable = frozenset(name[0] for line in lines if (name := _NAME.match(line)))
    try:
        rest = {name: text for name, text in environ.items() if name.upper() not in unusable}
        return read(rest, Settings), unusable, found
    except Unusable:
        return None, unusable, found


def _run_checks(context: CheckContext, checks: Sequence[Check]) -> list[Finding]:
    """Runs each check in a separate thread and collects the findings; a check beyond the time limit yields a fault."""
    began_s = time.monotonic()
    # Several checks need the cluster; one connection serves all, and each waits for the same future.
    _in_thread("cluster", context.cluster, lambda: kafka.reach_cluster(context))
    pending: list[tuple[Check, Future[list[Finding]]]] = []
    for check in checks:
        result: Future[list[Finding]] = Future()
        _in_thread(check.name, result, partial(_run_check, check, context))
        pending.append((check, result))
    found: list[Finding] = []
    for check, result in pending:
        try:
            # All limits count from the common start, so the whole takes no longer than the longest limit.
            found += result.result(max(0.0, began_s + check.limit_s - time.monotonic()))
        except TimeoutError:
            cure = "look whether what it asks hangs, and run `lifecycle doctor` again; the other findings stand"
            found.append(fault(check.name, f"no answer within {check.limit_s:g} s", cure))
    return found


def _in_thread(name: str, result: "Future[T]", work: Callable[[], T]) -> None:
    """Runs `work` in a daemon thread: a library that blocks cannot keep the process from ending."""

    def run() -> None:
        try:
            result.set_result(work())
        except Exception as error:  # noqa: BLE001 - the future carries it to the waiting thread
            result.set_exception(error)

    threading.Thread(target=run, name=f"doctor {name}", daemon=True).start()


def _run_check(check: Check, context: CheckContext) -> list[Finding]:
    """Runs a check; turns every exception into a finding."""
    try:
        return list(check.run(context))
    except NoKafka:
        return [skipped(check.name, "Kafka does not serve us", "put right what the check `kafka` says")]
    except Unusable as error:
        return [fault(check.name, line, "correct this file or variable") for line in str(error).splitlines()]
    except Exception as error:  # noqa: BLE001 - no failing check hides the others, whatever it met
        text = (str(error).splitlines() or [""])[0]
        cure = "the other findings stand; this is a fault of `lifecycle doctor` itself, please report it"
        return [fault(check.name, f"the check failed: {type(error).__name__}: {text}", cure)]


def _deep_hint(chosen: Settings) -> list[Finding]:
    """Returns the hint to `--deep` if any organisation has credentials."""
    count = this_machine.organisations_count(chosen)
    if not count:
        return []
    return [
        skipped("Genesys", f"the logins of {counted(count, 'organisation')} were not tried", "lifecycle doctor --deep")
    ]
