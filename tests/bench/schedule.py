"""The instant of each request, decided before the first is sent: a slow server cannot slow its sender down."""

import random


def poisson(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Instants of independent senders who together send so many a second, seconds from the start."""
    chance, due, at_s = random.Random(seed), [], 0.0
    while (at_s := at_s + chance.expovariate(rate_per_s)) < seconds:
        due.append(at_s)
    return due


def at_once(count: int, seed: int) -> list[float]:
    """A storm: all due at the start; nothing is left to chance."""
    del seed
    return [0.0] * count
