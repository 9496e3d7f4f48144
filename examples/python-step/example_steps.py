"""Keeps a card for each tenant in an object store: S3, Azure, Google Cloud or a folder, by the library obstore.

An example of a step of kind `python`; docs/own-steps-in-code.md explains it.
"""

import json
import os
import sys
from typing import ClassVar

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from services.steps import (
    StepAbsent,
    StepAnswer,
    StepCall,
    StepDone,
    StepFound,
    StepRefused,
    StepRetry,
    StepSetUpRefused,
    StepTraits,
)


class Card:
    """One object for each tenant, named by `call.name`: the same call twice puts the same object twice."""

    traits: ClassVar = StepTraits(inputs=("colour",), optional_inputs=("note",), outputs=("path", "bytes"))

    def __init__(self) -> None:
        # STORE_URL comes from the table `environment` of the plan. Without it the class cannot be made, which is the
        # operator's set-up: no tenant is rolled back.
        self._store = from_url(os.environ["STORE_URL"])

    async def do(self, call: StepCall) -> StepAnswer:
        """Puts the card, for a create and for an update."""
        if call.inputs["colour"] not in {"red", "green"}:
            return StepRefused(f"no such colour: {call.inputs['colour']}")
        try:
            await obstore.put_async(self._store, _path(call), _card(call))
        except (PermissionDeniedError, UnauthenticatedError) as error:
            return StepSetUpRefused(type(error).__name__)
        # Any other error is raised on: the object may be there or not, so the saga looks by `observe`.
        print("card written", file=sys.stderr)  # into the provisioner's log, with key and step
        return StepDone({"path": _path(call), "bytes": len(_card(call))})

    async def undo(self, call: StepCall) -> StepAnswer:
        """Removes the card; an object store answers a second removal as it did the first."""
        await obstore.delete_async(self._store, _path(call))
        return StepDone()

    async def observe(self, call: StepCall) -> StepAnswer:
        """Reads the card, and compares it."""
        try:
            found = await (await obstore.get_async(self._store, _path(call))).bytes_async()
        except FileNotFoundError:
            return StepAbsent()
        except BaseError as error:
            return StepRetry(type(error).__name__)
        same = bytes(found) == _card(call)
        return StepFound({"path": _path(call), "bytes": len(found)}, differs=None if same else "card")


def _path(call: StepCall) -> str:
    return f"cards/{call.name}.json"


def _card(call: StepCall) -> bytes:
    card = {"tenant": call.tenant_id, "enabled": call.enabled, **call.inputs}
    return json.dumps(card, sort_keys=True).encode()
