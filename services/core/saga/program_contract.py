"""The contract between a saga and a program of the operator: JSON in, an exit status and JSON out.

Used by the kinds `script` and `python`; docs/own-steps-in-code.md has the contract for users.

Rules:

- An exit status means something only if a program chose it on purpose. So the statuses of the contract lie above those
  of shells, of common tools and of signals (128 + n), and every further status is unknown: a change is looked up by
  `read`, and a failed `read` is an outage, or holds the step where the plan says `unknown = "hold"`.
- `done` needs a JSON object on standard output: a program that ended early by chance has written none.
- Outputs that the plan does not name are dropped, since nobody said if they are secret. An output that the plan names
  and a create or read does not show is a success that shows no resource.
- A text of the program reaches journal and log only redacted, cut and with control characters escaped.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final
from urllib.parse import quote

from services.core.saga.calls import (
    Absent,
    Answer,
    Call,
    Contradicted,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
    Verb,
    resource_name,
)

CONTRACT: Final = 1
"""Version of the contract, shown to the program as `contract`."""

DONE: Final = 0
ABSENT: Final = 210
RETRY: Final = 211
REFUSED: Final = 212
OPERATOR_REFUSED: Final = 213
UNDER_WAY: Final = 214

OUTPUT_MOST_BYTES: Final = 65_536
"""Longest standard output: the outputs are stored in the journal of the saga."""
WORDS_MOST: Final = 200
"""Longest reason, in characters."""
HOLD: Final = "hold"
"""Value of the key `unknown` for a program that does not answer `read`."""

_SECRET_LEAST: Final = 6
"""Length from which a text counts as a secret to redact; shorter texts match by chance."""
_DEPTH_MOST: Final = 8
_INTEGER_MOST: Final = 2**63 - 1
_UNSAID: Final = "inputs"
"""Stands for the differing field if a `read` does not say that everything is as asked."""
_CUT: Final = "[...]"
_HIDDEN: Final = "[redacted]"
_REMEDY: Final = "put the credentials or the set-up of this step's program right"


def request(call: Call) -> dict[str, Any]:
    """Returns the JSON object for the standard input of the program."""
    org, _, integration = call.key.partition(":")
    return {
        "contract": CONTRACT,
        "verb": str(call.verb),
        "step": call.step,
        "key": call.key,
        "organisation": org,
        "integration": integration,
        "generation": call.generation,
        "name": resource_name(call.key, call.generation),
        "tenant_id": call.tenant_id,
        "idempotency_key": call.idempotency_key,
        "epoch": call.epoch,
        "repeats": call.repeats,
        "enabled": call.enabled,
        "timeout_s": call.timeout_s,
        "inputs": call.settings.get("inputs", {}),
        "outputs": dict(call.outputs),
    }


@dataclass(frozen=True, slots=True)
class _Body:
    """The fields of an answer, of their types; a field of another type is a fault.

    Attributes:
        outputs: Outputs by name, storable in a journal.
        reason: Text for people, not redacted yet.
        differs: Field with another value than asked for; None if the program said that nothing differs.
        retry_after_s: Seconds of wait, or None.
        partly: True if a part of a refused resource exists.
        fault: The first fault of the answer; empty without any.
    """

    outputs: Mapping[str, Any]
    reason: str = ""
    differs: str | None = _UNSAID
    retry_after_s: float | None = None
    partly: bool = False
    fault: str = ""


def answer_of(call: Call, status: int, output: bytes) -> Answer:  # noqa: PLR0911 - one line a status
    """Returns the answer of a step for a program that exited.

    Args:
        call: The call.
        status: Exit status.
        output: The whole standard output.
    """
    body = _body(output)
    reason = cleaned(body.reason or f"exit status {status}", call)
    if status == DONE:
        return _done(call, body)
    if body.fault and output.strip():
        return unclear(call, f"exit status {status}, and {body.fault}")
    match status:
        case _ if status == ABSENT and call.verb is not Verb.CREATE:
            return Absent()
        case _ if status == RETRY:
            return Retryable(reason, body.retry_after_s)
        case _ if status == REFUSED:
            return Refused(reason, partly=body.partly and call.verb in {Verb.CREATE, Verb.UPDATE})
        case _ if status == OPERATOR_REFUSED:
            return OperatorRefused(reason, _REMEDY)
        case _ if status == UNDER_WAY:
            return Unknown(reason, body.retry_after_s, succeeded=True)
    return unclear(call, f"exit status {status}: {reason}" if body.reason else reason)


def unclear(call: Call, reason: str) -> Answer:
    """Returns the answer of a step for a program whose end says nothing about the resource.

    A change may have had an effect, so it is looked up. A look-up changes nothing: its failure is an outage. Where the
    plan says that the program may not know `read`, the step is held: no outage ends it, and a person has to look.
    """
    if call.verb is not Verb.READ:
        return Unknown(reason)
    if call.settings.get("unknown") == HOLD:
        return Unknown(f"held until read is answered: {reason}"[:WORDS_MOST], succeeded=True)
    return Retryable(reason)


def cleaned(text: str, call: Call) -> str:
    """Returns a text of the program for journal or log: redacted, without control characters, cut."""
    for secret in _secrets(call):
        text = text.replace(secret, _HIDDEN)
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return text if len(text) <= WORDS_MOST else text[: WORDS_MOST - len(_CUT)] + _CUT


def _done(call: Call, body: _Body) -> Answer:
    if body.fault:
        return unclear(call, f"exit status {DONE}, and {body.fault}")
    if call.verb is Verb.DELETE:
        return Done()
    named = [*call.settings.get("outputs", ()), *call.settings.get("secret_outputs", ())]
    # An update shows what it changed; the rest is as it was.
    known = dict(call.outputs) if call.verb is Verb.UPDATE else {}
    shown = {name: value for name, value in (known | dict(body.outputs)).items() if name in named}
    if missing := [name for name in named if shown.get(name) is None]:
        reason = f"output {missing[0]} is not shown"
        return Contradicted(reason) if call.verb is Verb.READ else Unknown(reason, succeeded=True)
    if call.verb is Verb.READ:
        return Done(shown, None if body.differs is None else cleaned(body.differs, call))
    return Done(shown)


def _body(output: bytes) -> _Body:
    try:
        body = json.loads(output.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return _Body({}, fault="standard output is no JSON object" if output.strip() else "standard output is empty")
    if not isinstance(body, dict):
        return _Body({}, fault="standard output is no JSON object")
    outputs, reason, after_s = body.get("outputs"), body.get("reason"), body.get("retry_after_s")
    differs, partly = body.get("differs", _UNSAID), body.get("partly", False)
    is_number = isinstance(after_s, int | float) and not isinstance(after_s, bool)
    faults = {
        "outputs is no object": not isinstance(outputs, dict | None),
        "outputs cannot be stored": not _is_storable(outputs, _DEPTH_MOST),
        "reason is no text": not isinstance(reason, str | None),
        "differs is neither a text nor null": not isinstance(differs, str | None),
        "partly is no boolean": not isinstance(partly, bool),
        "retry_after_s is no number from 0 on": after_s is not None
        and not (is_number and isfinite(after_s) and after_s >= 0),
    }
    if fault := next((fault for fault, is_so in faults.items() if is_so), ""):
        return _Body({}, fault=fault)
    return _Body(outputs or {}, reason or "", differs, after_s, partly)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _is_storable(value: Any, depth: int) -> bool:
    """True if PostgreSQL stores a JSON value and every reader gets it back: no NUL, no half of a character."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _INTEGER_MOST
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, dict):
        return depth > 0 and all(
            _is_storable(name, depth) and _is_storable(part, depth - 1) for name, part in value.items()
        )
    if isinstance(value, list):
        return depth > 0 and all(_is_storable(part, depth - 1) for part in value)
    return True


def _secrets(call: Call) -> list[str]:
    """Returns the texts to redact, the longest first: every text of inputs, environment and secret outputs.

    A text that names the tenant in every log line is no secret.
    """
    org, _, integration = call.key.partition(":")
    public = {call.key, org, integration, call.tenant_id, resource_name(call.key, call.generation), call.step}
    secret_outputs = [call.outputs.get(name) for name in call.settings.get("secret_outputs", ())]
    given = [call.settings.get("inputs"), call.settings.get("environment"), secret_outputs]
    # A text of several lines (a key in PEM) is logged line by line.
    found = {part for text in _texts(given) if text not in public for part in (text, *text.splitlines())}
    shapes = {shape for text in found for shape in (text, quote(text, safe=""), json.dumps(text)[1:-1])}
    return sorted((text for text in shapes if len(text) >= _SECRET_LEAST), key=len, reverse=True)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
