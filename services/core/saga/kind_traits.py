"""Traits of a step kind as data, for the plan, the saga and the gates.

Rule: only the file of a kind knows the kind's name. A decision by kind reads a trait, so a new kind needs a file and a
line in the list of kinds (`services.provisioner.kinds`).

Every trait is required: a forgotten trait stops the import of the kind's file, and so does a contradiction between two
traits.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from services.core.saga.calls import Verb
from services.core.saga.plan_forms import PlanKey
from services.core.saga.plan_keys import STEP
from services.core.saga.references import LATE, references


class SystemBy(Enum):
    """Rule that names the outside system of a call; each system has its own gate."""

    STEP = auto()
    """A system is a step, wherever the step's URL leads."""
    URL = auto()
    """A system is a step and the host of the `url`; a step alone if the plan declares the `url` as the operator's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindTraits:
    """Traits of one kind.

    Attributes:
        name: Name in the plan.
        meaning: Sentence for docs/plan.md.
        keys: Keys of the kind, beside the keys of every step.
        outputs: Names of the outputs, for references `{steps.NAME.OUTPUT}` of later steps.
        secret_outputs: Outputs to seal before the journal is stored.
        credentials: Keys that authenticate the caller. With a value from the tenant's configuration, a refusal of
            credentials judges the tenant.
        system: Rule that names the system of a call.
        silent_verbs: Verbs without a request as a rule, hence without a slot at a gate.
        reissued: True if the step is undone and done again when an `uninstalled` lay between two installs.
        left_behind: True if the undo leaves remains on purpose; an orphan check must not look for the remains.
    """

    name: str
    meaning: str
    keys: tuple[PlanKey, ...]
    outputs: tuple[str, ...]
    secret_outputs: frozenset[str]
    credentials: frozenset[str]
    system: SystemBy
    silent_verbs: frozenset[Verb]
    reissued: bool
    left_behind: bool

    def __post_init__(self) -> None:
        """Checks that no traits contradict each other.

        Raises:
            ValueError: traits contradict each other; the text names the kind and all faults.
        """
        if faults := "; ".join(self._faults()):
            raise ValueError(f"kind {self.name}: {faults}")

    def outputs_of(self, _: Mapping[str, Any]) -> Collection[str]:
        """Returns the names of the outputs of a step with these settings."""
        return self.outputs

    def secret_outputs_of(self, _: Mapping[str, Any]) -> frozenset[str]:
        """Returns the names of the outputs to seal, of a step with these settings."""
        return self.secret_outputs

    def late_s(self, _: Mapping[str, Any]) -> float:
        """Returns the seconds after a call during which the call may still take effect, by the settings of the step."""
        return 0.0

    def left_behind_of(self, _: Mapping[str, Any]) -> bool:
        """Returns `left_behind` for a step with these settings."""
        return self.left_behind

    def step_faults(self, row: Mapping[str, Any]) -> Iterator[str]:
        """Yields the faults of a step beyond unknown keys and wrong forms; the values may have any type."""
        named = sorted({path for path, _ in references(row) if path.partition(".")[0] in LATE})
        yield from (f"{{{path}}}: a step of kind {self.name} knows no such reference" for path in named)

    def _faults(self) -> Iterator[str]:
        names = [key.name for key in self.keys]
        every = {key.name for key in STEP}
        yield from (f"key {name} is declared twice" for name in sorted({n for n in names if names.count(n) > 1}))
        # A plan's parser takes such a key for the step's own, and the kind would never see its value.
        yield from (f"key {name} is a key of every step" for name in names if name in every)
        yield from (
            f"secret output {name} is no output" for name in sorted(self.secret_outputs.difference(self.outputs))
        )
        yield from (f"credential {name} is no key" for name in sorted(self.credentials.difference(names)))
        if self.system is SystemBy.URL and "url" not in names:
            yield "the system is named by a key url, and the kind has no such key"
