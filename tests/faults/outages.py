"""Every outside system in turn is away, hangs, drops calls or refuses the operator, in the middle of everything.

`python -m tests.faults.outages` plays each of them with 100 tenants: a third is installed, a third updated and a third
uninstalled while the system is in trouble for 30 minutes, scaled to 30 seconds. Nobody may be rolled back or restored,
nothing may be left over, and everything must be as desired within 120 s after healing, without a person. A tenant
whose own CRM secret is wrong must be compensated within 10 s meanwhile, where the CRM can be reached at all. Ends with
1 when something was otherwise; `--only tokens/down` plays one.
"""

import argparse
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from schemas.outcome import Outcome, State
from schemas.tenant import Desired
from services import engines
from services.engines import Engine
from tests.support.provisioner_process import desired, end, gone
from tests.support.provisioner_stage import Stage, exists, staged

FAULTS: Final[Mapping[str, Mapping[str, float]]] = {
    "error": {},
    "slow": {"seconds": 30.0},
    "down": {},
    "unauthorized": {},
}
"""Fault of the simulator to its further fields: 503, hangs, drops, refuses our credentials."""
SYSTEMS: Final = ("middleware", "crm", "schemas", "subscriptions", "tokens", "archive")
STORIES: Final = tuple(
    (system, fault)
    for system in SYSTEMS
    for fault in FAULTS
    if (system, fault) != ("crm", "unauthorized")  # the customer's own system: that one is a refusal of the customer
)
BEHIND_THE_CRM: Final = ("schemas", "subscriptions", "tokens", "archive")
"""Systems whose trouble keeps no tenant from the CRM."""
SCALE: Final = 60.0
HEALED_S: Final = 120.0
COMPENSATED_S: Final = 10.0
_BAD_SECRET: Final = {
    "crmEndpoint": "https://acme.salesforce.com", "crmClientId": "c", "crmClientSecret": "invalid",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoryResult:
    """Result of one story.

    Attributes:
        faults: What was otherwise than it must be, in words.
        healed_s: From healing until everything was as desired.
        compensated_s: From the install with a wrong secret to its rollback; None where there was none.
    """

    faults: list[str]
    healed_s: float
    compensated_s: float | None


def environment(scale: float) -> dict[str, str]:
    """Settings under which an hour lasts `3600 / scale` seconds; the waits of the gates are as they ship."""
    return {"RETRY_FIRST_S": "0.2", "RETRY_MOST_S": str(60 / scale * 4), "UNWELL_AFTER_S": str(900 / scale)}


def play(stage: Stage, system: str, fault: str, *, outage_s: float, tenants: int) -> StoryResult:
    """Plays one story on a stage whose provisioner runs, and leaves nothing behind.

    Args:
        stage: With a provisioner that runs.
        system: In trouble.
        fault: The trouble.
        outage_s: How long it lasts.
        tenants: How many are installed, updated and uninstalled meanwhile, together.
    """
    bad, *keys = stage.keys(1 + tenants)
    installs, updates, leaves = (keys[part::3] for part in range(3))
    faults: list[str] = []
    stage.scene.publish_desired([desired(of, 1) for of in (*updates, *leaves)])
    _until(stage, [desired(of, 1) for of in (*updates, *leaves)], HEALED_S)
    stage.world.fault(system, fault, **FAULTS[fault])
    began_s = time.monotonic()
    versions = [
        *(desired(of, 1) for of in installs),
        *(desired(of, 2, enabled=False) for of in updates),
        *(gone(of, 2) for of in leaves),
    ]
    pace_s = outage_s / 2 / (len(versions) or 1)
    compensated_s: float | None = None
    for number, wanted in enumerate(versions):
        stage.scene.publish_desired([wanted])
        if number == len(versions) // 2 and system in BEHIND_THE_CRM:
            compensated_s = _compensated(stage, system, bad, faults)
        time.sleep(pace_s)
    time.sleep(max(0.0, began_s + outage_s - time.monotonic()))
    _nobody_is_undone(stage, keys, faults)
    stage.world.heal()
    healed_s = _until(stage, versions, HEALED_S)
    if healed_s > HEALED_S:
        faults.append(f"not as desired {HEALED_S:.0f} s after healing: {_late(stage, versions)}")
    _nobody_is_undone(stage, keys, faults)
    faults += [f"the provisioner ended with {one.poll()}" for one in stage.scene.processes if one.poll() is not None]
    if not faults:
        lives = dict.fromkeys((*installs, *updates), 1) | dict.fromkeys(leaves)
        exists(stage, lives | ({} if compensated_s is None else {bad: None}))
    return StoryResult(faults, healed_s, compensated_s)


def _compensated(stage: Stage, system: str, bad: str, faults: list[str]) -> float:
    """Seconds until no resource is left of a tenant whose own secret is wrong.

    What is compensated is archived last. While the archive is away that waits, and the rollback is not said yet.
    """
    began_s = time.monotonic()
    stage.scene.publish_desired([desired(bad, 1, configuration=_BAD_SECRET)])

    def is_over() -> bool:
        if system == "archive":
            refused = any(said.reason == "compensating" for said in stage.scene.outcomes(bad))
            return refused and not any(stage.world.inventory(one, bad) for one in SYSTEMS if one != system)
        return any(said.state is State.ROLLED_BACK for said in stage.scene.outcomes(bad))

    while not is_over() and time.monotonic() - began_s <= HEALED_S:
        pass
    took_s = time.monotonic() - began_s
    if took_s > COMPENSATED_S:
        faults.append(f"a wrong secret was compensated after {took_s:.1f} s")
    return took_s


def _nobody_is_undone(stage: Stage, keys: Sequence[str], faults: list[str]) -> None:
    stage.scene.outcomes("")
    ours = set(keys)
    undone = [said for said in stage.scene.said if said.state is State.ROLLED_BACK or said.reason == "update_refused"]
    faults.extend(f"{said.key}: {said.state} {said.reason} at {said.step}" for said in undone if said.key in ours)


def _until(stage: Stage, versions: Iterable[Desired], at_most_s: float) -> float:
    """Seconds until every version is done; more than the limit when it is not."""
    began_s = time.monotonic()
    left = list(versions)
    while left and time.monotonic() - began_s <= at_most_s + 1:
        stage.scene.outcomes("")
        said = list(stage.scene.said)
        left = [wanted for wanted in left if not any(_is_done(wanted, one) for one in said)]
    return time.monotonic() - began_s


def _is_done(wanted: Desired, said: Outcome) -> bool:
    return said.key == wanted.key and said.desired_version >= wanted.version and said.state is State.DONE


def _late(stage: Stage, versions: Sequence[Desired]) -> list[tuple[str, str | None, str | None]]:
    late = [wanted.key for wanted in versions if not any(_is_done(wanted, said) for said in stage.scene.said)]
    newest = {said.key: said for said in stage.scene.said if said.key in late}
    return [(said.key, said.step, said.reason) for said in newest.values()][:5]


def main(arguments: Sequence[str]) -> int:
    """Play every story, or those that are named; 1 when one ended otherwise than it must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="system/fault, such as tokens/down; may be repeated")
    parser.add_argument("--tenants", type=int, default=100)
    given = parser.parse_args(arguments)
    clean = True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-engines-")))
        wanted = (Engine.KAFKA, Engine.POSTGRES)
        running = stack.enter_context(engines.running(folder, dict(os.environ), wanted=wanted))
        assert running.kafka_bootstrap is not None
        assert running.database_url is not None
        for system, fault in STORIES:
            if given.only and f"{system}/{fault}" not in given.only:
                continue
            with _stage(running.kafka_bootstrap, running.database_url) as stage:
                process = stage.scene.start(**environment(SCALE))
                told = play(stage, system, fault, outage_s=1_800 / SCALE, tenants=given.tenants)
                if process.poll() is None:
                    end(process)
                lines = [line for line in stage.scene.logs().splitlines() if not line.startswith("{")][:60]
            secret = "" if told.compensated_s is None else f", a wrong secret compensated in {told.compensated_s:.1f} s"
            sys.stdout.write(f"{system}/{fault}: all as desired {told.healed_s:.1f} s after healing{secret}\n")
            for text in told.faults[:8]:
                sys.stdout.write(f"    WRONG: {text}\n")
            sys.stdout.writelines(f"    {line}\n" for line in lines)
            sys.stdout.flush()
            clean = clean and not told.faults
    return 0 if clean else 1


@contextmanager
def _stage(kafka: str, admin_url: str) -> Iterator[Stage]:
    name = secrets.token_hex(5)
    with tempfile.TemporaryDirectory(prefix="lifecycle-outages-") as folder:
        with psycopg.connect(admin_url, autocommit=True) as session:
            session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(f"outages_{name}")))
        url = f"{admin_url.rpartition('/')[0]}/outages_{name}"
        with staged(kafka, f"o{name}.", url, Path(folder)) as stage:
            yield stage


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
