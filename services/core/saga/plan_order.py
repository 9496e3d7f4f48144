"""Order of the steps of a plan, and the fault of a reference to a step that is not done earlier.

Rule: a step may use the outputs of earlier steps alone. The sentence says if the named step comes later, needs this
step in turn (a cycle), is this step itself, or does not exist: each has another remedy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from services.core.saga.plan_forms import nearest
from services.core.saga.references import references


@dataclass(frozen=True, slots=True)
class StepOrder:
    """Names of all steps of a plan, and their references to each other.

    Attributes:
        names: Names in the order of the file; an unusable name as its text.
        needs: Name of a step to the names of the steps of its references.
    """

    names: tuple[str, ...]
    needs: Mapping[str, tuple[str, ...]]

    def earlier(self, number: int) -> tuple[str, ...]:
        """Returns the names of the steps before a step, numbered from 1."""
        return self.names[: number - 1]

    def fault(self, number: int, names: Sequence[str]) -> str:
        """Returns the fault of a reference `{steps.…}`; empty without a fault.

        Args:
            number: Number of the referring step, from 1.
            names: Parts of the reference after `steps`.
        """
        earlier, own = self.earlier(number), self.names[number - 1]
        name = names[0] if names else ""
        if name in earlier:
            return "" if len(names) == 2 else f"not an output; write {{steps.{name}.OUTPUT}}"
        if name == own:
            return "is an output of this step itself; a step may use outputs of earlier steps alone"
        if name not in self.names:
            has = f"; earlier steps are {', '.join(earlier)}" if earlier else "; put that step before this one"
            return f"no step has this name{nearest(name, self.names)}{has}"
        circle = self._way(name, own)
        if any(self.names.index(member) < number - 1 for member in circle):
            return ""  # told already, at the first step of the cycle
        if circle:
            told = ", ".join(f"{left} needs {right}" for left, right in pairwise(circle))
            return f"a cycle: {own} needs {name}, {told}; take one of these references out"
        return f"step {self.names.index(name) + 1} ({name}) is not earlier; put it before this step"

    def _way(self, start: str, end: str) -> tuple[str, ...]:
        """Returns the shortest way of references from a step to a step, both included; empty without a way."""
        ways: list[tuple[str, ...]] = [(start,)]
        seen = {start}
        while ways:
            way = ways.pop(0)
            if way[-1] == end:
                return way
            for name in self.needs.get(way[-1], ()):
                if name not in seen:
                    seen.add(name)
                    ways.append((*way, name))
        return ()


def order_of(rows: Sequence[Mapping[str, Any]]) -> StepOrder:
    """Returns the order of the steps of a plan."""
    needs: dict[str, tuple[str, ...]] = {}
    for row in rows:
        paths = [path.split(".") for path, _ in references(row)]
        needs[str(row.get("name"))] = tuple(dict.fromkeys(p[1] for p in paths if p[0] == "steps" and len(p) > 1))
    return StepOrder(tuple(str(row.get("name")) for row in rows), needs)
