"""Does the time of a proof tell how much of a claim was right? `python -m tests.faults.fuzz_timing` measures and says.

Two kinds of wrong claims are verified in turn: of one the first byte is wrong, of the other the last. Welch's t tells
whether their times differ; above 4.5 they do (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?", 2017).
Beside it the same of a comparison that stops at the first difference: what the measurement would show.
A statistic, not a gate: on a machine with neighbours it may err.
"""

import argparse
import gc
import random
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from math import sqrt
from statistics import fmean, quantiles, variance
from typing import Final

from services.core.delivery.signature import DIGEST_BYTES, Secrets, parse_claim, sign, verify

THRESHOLD: Final = 4.5
_KEPT: Final = 0.9
"""The slowest tenth of all times tells of the machine, not of us."""
_BODY: Final = b'{"event":"installed"}' * 20
_WARM: Final = 2_000

Verify = Callable[[bytes], bool]


def welch(one: Sequence[float], other: Sequence[float]) -> float:
    """Welch's t of two samples."""
    return (fmean(one) - fmean(other)) / sqrt(variance(one) / len(one) + variance(other) / len(other))


def cropped(one: Sequence[float], other: Sequence[float]) -> tuple[list[float], list[float]]:
    """Both samples without what is slower than nine tenths of all."""
    limit = quantiles([*one, *other], n=100)[round(100 * _KEPT) - 1]
    return [t for t in one if t <= limit], [t for t in other if t <= limit]


def times(proves: Verify, true: bytes, count: int, chance: random.Random) -> tuple[list[float], list[float]]:
    """Durations of the wrong claims of both kinds, in nanoseconds; `count` in all, in random order.

    Each kind is many claims, made in random order: else where they lie in memory is measured (half a nanosecond, which
    is a |t| of 4).
    """
    plan = [(kind, flip) for kind in range(2) for flip in range(1, 256)]
    chance.shuffle(plan)
    kinds: tuple[list[bytes], list[bytes]] = [], []
    for kind, flip in plan:
        kinds[kind].append(wrong(true, flip)[kind])
    taken: tuple[list[float], list[float]] = [], []
    order = [(kind, chance.choice(kinds[kind])) for kind in (chance.randrange(2) for _ in range(_WARM + count))]
    clock = time.perf_counter_ns
    gc.disable()
    for number, (kind, claim) in enumerate(order):
        began = clock()
        proved = proves(claim)
        ended = clock()
        assert not proved
        if number >= _WARM:
            taken[kind].append(ended - began)
    gc.enable()
    return taken


def wrong(true: bytes, flip: int) -> tuple[bytes, bytes]:
    """The claim with bits of its first byte wrong, and with those of its last."""
    return bytes([true[0] ^ flip]) + true[1:], true[:-1] + bytes([true[-1] ^ flip])


def stopping(true: bytes) -> Verify:
    """A comparison as it must not be."""
    return lambda claim: all(ours == theirs for ours, theirs in zip(true, claim, strict=True))


def main() -> int:
    """Measure, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verifies", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    secret = secrets.token_bytes(DIGEST_BYTES)
    true = parse_claim(sign(secret, _BODY).encode())
    assert true is not None
    held = Secrets(secret)
    subjects: dict[str, Verify] = {
        "verify": lambda claim: bool(verify(held, claim, _BODY, 0)),
        "one that stops at the first difference": stopping(true),
    }
    for name, proves in subjects.items():
        first, last = times(proves, true, asked.verifies, random.Random(seed))
        t = abs(welch(*cropped(first, last)))
        sys.stdout.write(
            f"{name}: |t| = {t:.2f} ({'below' if t < THRESHOLD else 'NOT BELOW'} {THRESHOLD}; uncropped "
            f"{abs(welch(first, last)):.2f}), {asked.verifies:,} verifies, median {sorted(first)[len(first) // 2]:,} "
            f"and {sorted(last)[len(last) // 2]:,} ns, seed {seed}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
