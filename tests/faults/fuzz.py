"""Fuzzes verifier and parser: `python -m tests.faults.fuzz --seconds 600`; ends 1 on a breach, with its smallest input.

Hypothesis makes the choices of each change, and shrinks the first input that breaks a rule. A run that did not get deep
enough has failed too: a fuzzer whose inputs are all refused at the door proves nothing.
"""

import argparse
import faulthandler
import hashlib
import secrets
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from tests.faults.fuzz_inputs import SIZE_MAX_BYTES, Changing, seeds
from tests.faults.fuzz_subjects import NAMES, Subjects, read

DEEP: Final = ("wire", "body", "signature", "200 queued", "200 parked", "400", "401", "413", "parsed", "claim")
"""What changed inputs must have shown; the first inputs show more, and that is not counted."""

FAULTS_MAX: Final = 40
"""Refusals name fields and rules, so there are few texts of them; of one that quoted a body there would be many."""

HANG_S: Final = 20
_BATCH: Final = 500
"""Inputs of one run of Hypothesis; the next run has another seed and forgets what the former one has tried."""


class Breach(Exception):
    """An input breaks a rule.

    Attributes:
        data: The input, as small as Hypothesis made it.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(f"{len(data)} bytes")
        self.data = data


def search(try_one: Callable[[bytes], object], seconds: float, seed: int) -> int:
    """Tries changed inputs until the time is over, and returns how many were tried.

    Args:
        try_one: Raises if an input breaks a rule.
        seconds: Of wall-clock time.
        seed: Decides every choice.

    Raises:
        Breach: from what `try_one` has raised.
    """
    until_s, tried, broken = time.monotonic() + seconds, 0, b""
    firsts = seeds()
    changed = st.builds(
        lambda first, chance: Changing(chance).change(first, SIZE_MAX_BYTES), st.sampled_from(firsts), st.randoms()
    )

    def once(data: bytes) -> None:
        nonlocal tried, broken
        if time.monotonic() > until_s and not broken:
            return  # what is left of the batch
        tried += 1
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        try:
            try_one(data)
        except Exception:
            broken = data
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()

    rules = settings(
        max_examples=_BATCH,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    while time.monotonic() < until_s:
        try:
            seeded(seed)(rules(given(changed)(once)))()
        except Exception as error:
            raise Breach(broken) from error
        seed += 1
    return tried


def shallow(seen: Counter[str]) -> Sequence[str]:
    """Returns what is wrong with what was seen; nothing where the run got deep enough."""
    found = [f"NOT DEEP ENOUGH: never seen: {name}" for name in DEEP if not seen[name]]
    faults = sorted(name for name in seen if name.startswith("fault "))
    if len(faults) > FAULTS_MAX:
        found.append(f"TOO MANY KINDS OF REFUSAL: do they quote the body? {faults[:9]}")
    return found


def main() -> int:
    """Runs the program, and returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="another every time, unless it is given")
    asked = parser.parse_args()
    seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    print(f"{asked.seconds:.0f} s of fuzzing, seed {seed}", flush=True)
    with closing(Subjects()) as subjects:
        try:
            tried = search(subjects.try_one, asked.seconds, seed)
        except Breach as breach:
            _report(breach)
            return 1
        seen = subjects.seen
    print(f"{tried:,} inputs, {tried / asked.seconds:,.0f}/s")
    print(", ".join(f"{name} {count:,}" for name, count in sorted(seen.items()) if not name.startswith("fault ")))
    wrong = shallow(seen)
    print("\n".join(wrong) or "nothing was found")
    return 1 if wrong else 0


def _report(breach: Breach) -> None:
    """Prints a breach, and keeps its input in a file."""
    found = read(breach.data)
    path = Path(tempfile.mkdtemp(prefix="lifecycle-fuzz-"), f"found-{hashlib.sha256(breach.data).hexdigest()[:8]}.bin")
    path.write_bytes(breach.data)
    print("".join(traceback.format_exception(breach)))
    print(f"BREACH: {NAMES[found.subject]}, used as {found.how}: {found.payload[:1_000]!r}")
    print(f"The input is {path}: a copy of it in tests/faults/corpus is tried by every run.")


if __name__ == "__main__":
    sys.exit(main())
