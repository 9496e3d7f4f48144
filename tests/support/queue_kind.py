"""A made-up kind in one file: a queue on a host that the event names, with a password; its update asks nobody."""

from typing import ClassVar, Self

from services.adapters.process.settings import ProvisionerSettings
from services.core.saga.calls import Absent, Answer, Call, Done, Verb
from services.core.saga.kind_traits import KindTraits, SystemBy
from services.core.saga.plan_forms import Form, PlanKey
from services.provisioner.kinds.step_kind import Shared


class QueueKind:
    """Makes a queue, and knows its password."""

    traits: ClassVar = KindTraits(
        name="queue",
        meaning="Keeps a queue.",
        keys=(
            PlanKey("url", Form.URL, "Of the broker.", required=True),
            PlanKey("passphrase", Form.TEXT, "Ours at the broker."),
            PlanKey("durable", Form.CHOICE, "Is it?", default="yes", choices=("yes", "no")),
        ),
        outputs=("queue", "password"),
        secret_outputs=frozenset({"password"}),
        credentials=frozenset({"passphrase"}),
        system=SystemBy.URL,
        silent_verbs=frozenset({Verb.UPDATE}),
        reissued=True,
        left_behind=False,
    )

    @classmethod
    def build(cls, _: ProvisionerSettings, __: Shared) -> Self:
        return cls()

    async def call(self, call: Call) -> Answer:
        return Done({"queue": call.key, "password": "canary"}) if call.verb is Verb.CREATE else Absent()

    async def close(self) -> None:
        pass
