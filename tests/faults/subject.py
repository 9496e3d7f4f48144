"""A subject of the chaos driver: an application with workers, an input, and a judgement."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ChaosVerdict:
    """The output, counted.

    Attributes:
        inputs: Records in the input topics, duplicates included.
        unique: Different deliveries among them.
        outputs: Records in the output topic.
        repeats: Of these, byte-identical repeats, which consumers ignore.
        missing: Deliveries without an output.
        double: Deliveries with two different outputs.
        bad: Keys whose sequence is not 1, 2, 3 … without gaps, or whose row says otherwise.
        examples: A few of them.
    """

    inputs: int
    unique: int
    outputs: int
    repeats: int
    missing: int
    double: int
    bad: int
    examples: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Nothing was lost, doubled or miscounted."""
        return not (self.missing or self.double or self.bad)

    def __str__(self) -> str:
        text = (
            f"inputs {self.inputs} unique {self.unique} outputs {self.outputs} repeats {self.repeats} "
            f"MISSING {self.missing} DOUBLE {self.double} BAD {self.bad}"
        )
        return "\n    ".join((text, *self.examples))


@dataclass(frozen=True, slots=True)
class Command:
    """Start of a worker: its arguments, and additions to our environment."""

    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)


class AppUnderTest(Protocol):
    """One application under test on one broker."""

    def prepare(self) -> None:
        """Make its topics."""

    def worker(self, disk: Path) -> Command:
        """A worker that keeps its local state on `disk`."""

    def feed(self, count: int, rate: float, draw: random.Random) -> None:
        """Write `count` deliveries and some duplicates at about `rate` a second; returns when all are acknowledged."""

    def begun(self) -> bool:
        """True if any output was written yet."""

    def drained(self) -> bool:
        """True if every input offset is committed."""

    def judge(self) -> ChaosVerdict:
        """Read everything that came out."""
