"""Hosts a class of a user for one call: a script in a process of its own, ended by the launcher.

Standard input: `{"path": sys.path of the service, "load": "MODULE:CLASS", "name": entry point, "call": …}`. Without
`call` the script describes the class: `{"inputs": […], "optional_inputs": […], "outputs": […], "secret_outputs": […]}`.
The answer to a call is that of the program contract (services/core/saga/program_contract.py): JSON and an exit status.

Rules:

- What the class prints goes to standard error, for people; standard output has the answer alone.
- A class that cannot be loaded is the operator's set-up, and judges no tenant. A class that raises or answers with
  anything but an answer of `services.steps` has an unknown outcome.
- The process ends at once after the answer. Threads, tasks and clients that the class left open hold up nothing.
"""

import asyncio
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

# Equal to the constants of services/core/saga/program_contract.py; a test compares them. The script imports nothing of
# `services` but `services.steps`: every call waits for its imports.
DONE = 0
UNCLEAR = 70
ABSENT = 210
RETRY = 211
REFUSED = 212
OPERATOR_REFUSED = 213
UNDER_WAY = 214

_METHODS = {"create": "do", "update": "do", "delete": "undo", "read": "observe"}


class _NotLoaded(Exception):
    """The class cannot be used; the text is for people and holds no value of a tenant."""


def _load(name: str, value: str) -> Any:
    """Returns a checked class.

    Raises:
        _NotLoaded: names the entry point and the fault.
    """
    from services.steps import StepTraits  # noqa: PLC0415 - the path to it is known by now

    module, _, attributes = value.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except BaseException as error:  # noqa: BLE001 - code of a user
        traceback.print_exc()
        raise _NotLoaded(f"class {name} ({value}): {_words(error)}") from None
    if not inspect.isclass(found):
        raise _NotLoaded(f"class {name} ({value}): is no class")
    if not isinstance(getattr(found, "traits", None), StepTraits):
        raise _NotLoaded(f"class {name} ({value}): traits is no services.steps.StepTraits")
    for method in ("do", "undo", "observe"):
        if not inspect.iscoroutinefunction(getattr(found, method, None)):
            raise _NotLoaded(f"class {name} ({value}): {method} is no async method")
    return found


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _describe(name: str, value: str) -> tuple[int, dict[str, Any]]:
    traits = _load(name, value).traits
    return DONE, {
        "inputs": list(traits.inputs),
        "optional_inputs": list(traits.optional_inputs),
        "outputs": list(traits.outputs),
        "secret_outputs": sorted(traits.secret_outputs),
    }


def _answer(name: str, value: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    from services.steps import StepCall  # noqa: PLC0415 - as above

    loaded = _load(name, value)
    try:
        step = loaded()
    except BaseException as error:  # noqa: BLE001 - code of a user
        traceback.print_exc()
        return OPERATOR_REFUSED, {"reason": f"class {name}: cannot be made: {type(error).__name__}"}
    known = {field: given[field] for field in StepCall.__dataclass_fields__}
    method = _METHODS[given["verb"]]
    try:
        answer = asyncio.new_event_loop().run_until_complete(getattr(step, method)(StepCall(**known)))
    except BaseException as error:  # noqa: BLE001 - as above
        traceback.print_exc()
        return UNCLEAR, {"reason": f"class {name}: {method} raised {type(error).__name__}"}
    return _meaning(answer, given["verb"], f"class {name}: {method}")


def _meaning(answer: Any, verb: str, who: str) -> tuple[int, dict[str, Any]]:
    """Returns exit status and body for an answer of the class."""
    from services import steps  # noqa: PLC0415 - as above

    may: dict[type, tuple[int, tuple[str, ...]]] = {
        steps.StepDone: (DONE, ("create", "update", "delete")),
        steps.StepFound: (DONE, ("read",)),
        steps.StepAbsent: (ABSENT, ("update", "delete", "read")),
        steps.StepRetry: (RETRY, tuple(_METHODS)),
        steps.StepRefused: (REFUSED, tuple(_METHODS)),
        steps.StepSetUpRefused: (OPERATOR_REFUSED, tuple(_METHODS)),
        steps.StepUnderWay: (UNDER_WAY, tuple(_METHODS)),
    }
    status, verbs = may.get(type(answer), (UNCLEAR, ()))
    if verb not in verbs:
        return UNCLEAR, {"reason": f"{who} answered {type(answer).__name__} to {verb}"}
    body = {name: getattr(answer, name) for name in type(answer).__dataclass_fields__}
    if "outputs" in body:
        if not isinstance(body["outputs"], dict):
            return UNCLEAR, {"reason": f"{who}: outputs is {type(body['outputs']).__name__}, and no dict"}
        if not all(isinstance(name, str) for name in body["outputs"]):
            return UNCLEAR, {"reason": f"{who}: outputs has a name that is no text"}
    return status, body


def _guarded(work: Callable[[], tuple[int, dict[str, Any]]]) -> tuple[int, bytes]:
    """Returns the exit status and the JSON of a piece of work, also where its result is no JSON."""
    try:
        status, body = work()
        return status, json.dumps(body, allow_nan=False).encode()
    except _NotLoaded as error:
        return OPERATOR_REFUSED, json.dumps({"reason": str(error)}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return UNCLEAR, json.dumps({"reason": f"the answer is no JSON: {type(error).__name__}"}).encode()


def main() -> NoReturn:
    """Reads the request, answers, and ends the process."""
    given = json.load(sys.stdin)
    answers = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    sys.path[:] = given["path"]
    name, value, call = given["name"], given["load"], given.get("call")
    status, text = _guarded(lambda: _describe(name, value) if call is None else _answer(name, value, call))
    sys.stderr.flush()
    with os.fdopen(answers, "wb", closefd=False) as file:
        file.write(text)
    os._exit(status)


if __name__ == "__main__":
    main()
