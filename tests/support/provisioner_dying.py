"""A real provisioner that kills itself: `python -m tests.support.provisioner_dying`, configured as the shipped one.

`DIES` says at which mark: `before` or `after` a commit of a journal, or once an outside call `returned`, whose answer
nobody will hear. `DIES_AT` counts them from 1. SIGKILL, so nothing is tidied up.
"""

import itertools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from services.adapters.process.environment import read
from services.adapters.process.settings import ProvisionerSettings
from services.adapters.registry.registry import Registry
from services.provisioner.caller import Caller
from services.provisioner.main import main

MARKS: Final[dict[str, tuple[type, str]]] = {
    "before": (Registry, "write"),
    "after": (Registry, "write"),
    "returned": (Caller, "call"),
}
"""Where to die to whose method is counted."""


def _dying(method: Callable[..., Awaitable[Any]], at: int, *, before: bool) -> Callable[..., Awaitable[Any]]:
    numbers = itertools.count(1)

    async def counted(*given: Any, **named: Any) -> Any:
        is_last = next(numbers) == at
        if is_last and before:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await method(*given, **named)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return counted


if __name__ == "__main__":
    when = os.environ["DIES"]
    owner, name = MARKS[when]
    setattr(owner, name, _dying(getattr(owner, name), int(os.environ["DIES_AT"]), before=when == "before"))
    sys.exit(main(read(os.environ, ProvisionerSettings)))
