"""The interface for steps of users in Python: a class with `do`, `undo` and `observe`, and the answers of all three.

This package is public and stable: names stay, fields are only added, and nothing else of `services` is needed. A class
is found by an entry point of the group `genesys_lifecycle.steps` (docs/own-steps-in-code.md), and a step of kind
`python` names the entry point.

Each call runs in a process of its own, on an event loop of its own, with a new instance of the class. So a class may
block, and can keep nothing between two calls: everything that a repeat needs is in the call.

Example::

    class Mailbox:
        traits = StepTraits(inputs=("domain",), outputs=("address",))

        async def do(self, call: StepCall) -> StepAnswer:
            address = await make(call.name, call.inputs["domain"], call.idempotency_key)
            return StepDone({"address": address})

        async def undo(self, call: StepCall) -> StepAnswer:
            return StepDone() if await remove(call.name) else StepAbsent()

        async def observe(self, call: StepCall) -> StepAnswer:
            address = await find(call.name)
            return StepFound({"address": address}) if address else StepAbsent()
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Protocol

GROUP: Final = "genesys_lifecycle.steps"
"""Group of the entry points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTraits:
    """Declarations of a class, compared with every plan that uses the class.

    Attributes:
        inputs: Names that the table `inputs` of the plan must have.
        optional_inputs: Names that the table may have.
        outputs: Names of the outputs, the secret ones included.
        secret_outputs: Outputs that a plan may name in `secret_outputs` alone.
    """

    inputs: tuple[str, ...] = ()
    optional_inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    secret_outputs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Checks the types, and that every secret output is an output.

        Raises:
            TypeError: a value is of a wrong type.
            ValueError: a secret output is no output.
        """
        for name in ("inputs", "optional_inputs", "outputs"):
            given = getattr(self, name)
            if not isinstance(given, tuple) or not all(isinstance(part, str) for part in given):
                raise TypeError(f"traits: {name} is no tuple of texts")
        if not isinstance(self.secret_outputs, frozenset):
            raise TypeError("traits: secret_outputs is no frozenset")
        if missing := sorted(self.secret_outputs.difference(self.outputs)):
            raise ValueError(f"traits: secret output {missing[0]} is no output")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCall:
    """A call of a step.

    Attributes:
        verb: `create`, `update`, `delete` or `read`.
        step: Name of the step in the plan.
        key: `ORG:INTEGRATION`.
        organisation: First part of the key.
        integration: Second part of the key.
        generation: Number of the tenant's life; part of `name`.
        name: Name for the resource: equal for all calls of a life, and for no further life.
        tenant_id: The bound tenantId.
        idempotency_key: Equal only for a repeat of one call.
        epoch: Number of the worker's lease, growing; a call with a smaller epoch is of a worker that lost its lease.
        repeats: True if the call was made before and its answer was lost.
        enabled: The integration's flag.
        timeout_s: Seconds for the whole call; then the process is killed.
        inputs: The table `inputs` of the plan, references replaced. May hold secrets.
        outputs: Outputs of this step so far; empty before the first. May hold secrets.
    """

    verb: str
    step: str
    key: str
    organisation: str
    integration: str
    generation: int
    name: str
    tenant_id: str
    idempotency_key: str
    epoch: int
    repeats: bool
    enabled: bool
    timeout_s: float
    inputs: Mapping[str, Any] = field(repr=False)
    outputs: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StepDone:
    """The resource is as asked; after `undo` the resource is gone.

    Attributes:
        outputs: Values by name, JSON. Every output of the plan after a create; after an update those that changed.
    """

    outputs: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class StepFound:
    """`observe` found the resource.

    Attributes:
        outputs: Values by name, JSON; every output of the plan.
        differs: Name of the first field that is not as the call asks; None if everything is so. The default stands for
            a class that does not compare: a lost update is then made again.
    """

    outputs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    differs: str | None = "inputs"


@dataclass(frozen=True, slots=True)
class StepAbsent:
    """There is no such resource: an answer to `undo` and `observe`, and of `do` to an update."""


@dataclass(frozen=True, slots=True)
class StepRetry:
    """Nothing was done, and a repeat may succeed: an outage.

    Attributes:
        reason: Short text for people.
        retry_after_s: Seconds of wait, or None.
    """

    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class StepRefused:
    """The tenant's inputs are wrong, and a repeat is useless: the tenant is rolled back, or an update is.

    Attributes:
        reason: Short text for people.
        partly: True if a part of the resource was made and has to be undone.
    """

    reason: str
    partly: bool = False


@dataclass(frozen=True, slots=True)
class StepSetUpRefused:
    """The operator's own credentials or set-up are refused: nobody is rolled back, and the operator is told.

    Attributes:
        reason: Short text for people.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class StepUnderWay:
    """The system accepted the call and is not done yet: the saga asks `observe` until the resource is there.

    Attributes:
        reason: Short text for people.
        retry_after_s: Seconds until the next look, or None.
    """

    reason: str
    retry_after_s: float | None = None


StepAnswer = StepDone | StepFound | StepAbsent | StepRetry | StepRefused | StepSetUpRefused | StepUnderWay
"""Every answer. An exception, a time-out and any further value mean that the outcome is unknown."""


class PythonStep(Protocol):
    """A class of a step; made without arguments, once for each call."""

    traits: ClassVar[StepTraits]

    async def do(self, call: StepCall) -> StepAnswer:
        """Creates or updates the resource (`call.verb`); a repeated call changes nothing more."""

    async def undo(self, call: StepCall) -> StepAnswer:
        """Removes the resource."""

    async def observe(self, call: StepCall) -> StepAnswer:
        """Looks the resource up by `call.name` and changes nothing."""
