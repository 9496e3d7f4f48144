"""The caller when it cannot prepare a call."""

import structlog
from pydantic import SecretStr
from structlog.testing import LogCapture

from schemas.saga import Journal, Life, StepLog
from services.adapters.process import metrics
from services.adapters.secrets.sealing import Sealer
from services.core.saga.calls import Answer, Call, OperatorRefused
from services.core.saga.moves import Undo
from services.provisioner.caller import Caller
from services.provisioner.kinds import TRAITS
from tests.support.saga_world import KEY, plan

TOKENS = plan().steps[-1]


class Nobody:
    """A hand that must not be asked."""

    async def call(self, call: Call) -> Answer:
        raise AssertionError(call)


def _counted() -> float:
    found = metrics.PROVISIONER.registry.get_sample_value("lifecycle_provisioner_unsealable_total")
    assert found is not None
    return found


def test_unopenable_outputs_are_counted_each_time_and_logged_seldom() -> None:
    sealed = Sealer([SecretStr("o" * 40)]).seal(f"{KEY}/1/tokens", {"token": "x"}, frozenset({"token"}))
    life = Life(generation=1, plan=plan().digest, tenant_id="acme", steps={"tokens": StepLog(n=1, outputs=sealed)})
    told = LogCapture()
    # Its own class: another test of this process may have configured a logger that drops what is no disaster.
    heard = structlog.make_filtering_bound_logger("debug")
    log = structlog.wrap_logger(structlog.PrintLogger(), processors=[told], wrapper_class=heard)
    caller = Caller({"oauth": Nobody()}, TRAITS, Sealer([SecretStr("n" * 40)]), b"k" * 40, log)
    before = _counted()
    for _ in range(3):
        known = caller.prepare(KEY, 1, Journal(generation=1, life=life), Undo(1, TOKENS, 2))
        assert isinstance(known, OperatorRefused)
        assert known.reason == f"no key opens {KEY}/1/tokens/token"
    assert _counted() == before + 3
    assert [(line["log_level"], line["place"]) for line in told.entries] == [("error", f"{KEY}/1/tokens/token")]
