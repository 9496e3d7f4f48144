"""Kind `rest`: a resource in a foreign HTTP API, described in the plan (docs/own-steps.md, docs/decisions/0047).

Problem: most APIs give the resource an id of their own and know no idempotency key. A create with a lost answer may
have made a resource without a known id, and a repeat may make a second resource.

Approach: the resource has a field of ours (`find.match`), different for each life of a key. `find` is asked

- before each create, so a resource that exists already is taken over;
- after a lost answer, not before `settles_within`, so a late effect shows;
- after a repeated create once more, so a second resource of a late first create is found (a *twin*) and removed;
- on the way down, so every resource of the life is removed, with or without a known id.

Of several resources with our name the one with the smallest id stays: two workers choose alike.

Work under way (202, `ready`, `job`) is an answer of its own: the journal looks again after `poll_s`, by the look-up of
a lost call, so a restart costs nothing and no try is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, NamedTuple, Self

from services.adapters.process.settings import ProvisionerSettings
from services.adapters.secrets.named_secrets import NamedSecrets
from services.core.rest.description import Described, Idempotent, described
from services.core.rest.paging import BrokenListing, NextPage, first_page, next_page
from services.core.rest.reading import (
    ListedPage,
    SeenResource,
    WorkState,
    item_document,
    outputs_of,
    page_of,
    progress_of,
    resource_of,
)
from services.core.rest.traits import KEYS, RestTraits
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
)
from services.core.saga.json_values import difference
from services.core.saga.kind_traits import KindTraits, SystemBy
from services.core.saga.references import late_references
from services.provisioner.kinds.outbound import origin
from services.provisioner.kinds.rest_exchange import RestAnswer, RestExchange, RestTask
from services.provisioner.kinds.step_kind import Shared

_READINGS_MAX: Final = 5
"""Readings of a listing that changes all the time, before the step is tried again later."""
_LOOK: Final = "look there, remove it if it is there, then say `lifecycle sagas retry`"
_TWIN: Final = "a second resource of the same name"
Outputs = Mapping[str, Any]


class RestKind:
    """Creates, finds, reads, updates and deletes the resource."""

    traits: ClassVar[KindTraits] = RestTraits(
        name="rest",
        meaning="Keeps one resource in a foreign HTTP API that the step describes ([own steps](own-steps.md)).",
        keys=KEYS,
        outputs=("url",),
        secret_outputs=frozenset(),
        credentials=frozenset({"auth", "headers"}),
        system=SystemBy.URL,
        silent_verbs=frozenset(),
        reissued=False,
        left_behind=False,
    )

    def __init__(self, exchange: RestExchange) -> None:
        self._exchange = exchange

    @classmethod
    def build(cls, settings: ProvisionerSettings, shared: Shared) -> Self:
        """Returns the kind."""
        return cls(RestExchange(shared.outbound, NamedSecrets(settings.secrets_dir, settings.plan_secrets)))

    async def call(self, call: Call) -> Answer:
        """Carries out one call."""
        url_origin = origin(call)
        if isinstance(url_origin, Refused):
            return url_origin
        base = call.settings.get("url")
        if not isinstance(base, str):
            return Refused("url: not a text", heard=False)
        if "?" in base or "#" in base:
            # A path of the plan behind it would become a part of the query.
            return Refused("url: has a query", heard=False)
        task = self._exchange.begin(call, described(call.settings), url_origin)
        known = call.outputs.get("url")
        places = dict.fromkeys(place for place in (*call.locations, known) if isinstance(place, str))
        if call.verb is Verb.READ:
            return await self._look(task, [base, *(place for place in places if place != base)])
        if call.verb is Verb.DELETE:
            return _most_uncertain([await self._at(task, place).delete() for place in places or [base]])
        return await self._change(task, base, [place for place in places if place != base])

    async def close(self) -> None:
        """Closes the HTTP client shared by the kinds; a repeated close is harmless."""
        await self._exchange.close()

    def _at(self, task: RestTask, base: str) -> "_Place":
        known = task.call.outputs
        return _Place(self._exchange, task, base, known if known.get("url", base) == base else {})

    async def _look(self, task: RestTask, places: Sequence[str]) -> Answer:
        """Looks at the wanted URL, then at every further URL with a possible resource; the first success counts."""
        answers: list[Answer] = []
        for place in places:
            answer = await self._at(task, place).look()
            if isinstance(answer, Done):
                return answer
            answers.append(answer)
        return _most_uncertain(answers)

    async def _change(self, task: RestTask, base: str, former: Sequence[str]) -> Answer:
        """Creates or updates the resource at its URL, then removes it from every former URL."""
        here = self._at(task, base)
        creates = task.call.verb is Verb.CREATE or not here.resource
        answer = await (here.create() if creates else here.update())
        if not former:
            return answer
        if not isinstance(answer, Done):
            # Not as work under way: a look-up at the new URL alone would settle the step, and leave a former resource.
            return Unknown(answer.reason, answer.retry_after_s) if isinstance(answer, Unknown) else answer
        for left in [await self._at(task, place).delete() for place in former]:
            if not isinstance(left, Done | Absent):
                reason = f"left at a former place: {left.reason}"
                return Refused(reason, partly=True) if isinstance(left, Refused) else Unknown(reason)
        return answer


class _Reading(NamedTuple):
    """One reading of a listing: all items, the items of our name, and the number of pages."""

    items: list[Any]
    ours: list[Any]
    pages: int


class _Place:
    """The API at one base URL, for one call."""

    def __init__(self, exchange: RestExchange, task: RestTask, base: str, resource: Outputs) -> None:
        self._exchange, self._task, self._base = exchange, task, base
        self._call, self._api = task.call, task.description
        self.resource = resource

    # --- the way up -------------------------------------------------------------------------------------------------

    async def create(self) -> Answer:
        """Makes the resource, unless `find` shows one of ours."""
        if (known := await self._before_create()) is not None:
            return known
        answer = await self._ask(Verb.CREATE, self._api.create)
        if isinstance(answer, Refused) and self._api.find is not None:
            # "Exists already", perhaps, by a create that `find` did not show yet.
            ours = await self._find()
            return await self._take_over(ours) if isinstance(ours, list) and ours else answer
        if not isinstance(answer, RestAnswer):
            return self._later(answer)
        return self._made(answer)

    async def _before_create(self) -> Answer | None:
        """Returns the answer of the step if no create may be sent; None if no resource of ours exists."""
        if self._call.repeats and self._call.succeeded:
            # The first call succeeded and its work is not finished: the state of the work counts.
            state = await self._state_of_work()
            if not isinstance(state, Done | Absent):
                return replace(state, partly=True) if isinstance(state, Refused) else state
        if self._api.find is None:
            is_undecided = self._is_undecided
            return Contradicted(f"nobody can tell if an earlier one was made; {_LOOK}") if is_undecided else None
        ours = await self._find()
        if isinstance(ours, Answer):
            return ours
        return await self._take_over(ours) if ours else None

    async def update(self) -> Answer:
        """Changes the resource; without `update` in the description the resource stays as made."""
        if self._call.repeats and self._call.succeeded:
            state = await self._state_of_work()
            if not isinstance(state, Done):
                return state
        if self._api.find is not None and self._api.idempotent is Idempotent.NO:
            # The id may lead to one of two resources: only `find` shows a twin.
            ours = await self._find()
            if isinstance(ours, Answer):
                return ours
            if ours:
                return await self._take_over(ours)
        return await self._update(self.resource)

    async def _take_over(self, ours: Sequence[SeenResource]) -> Answer:
        """Keeps one of the resources of our name, removes the twins, and brings the kept one to the wanted values."""
        kept, *twins = sorted(ours, key=_order)
        for twin in twins:
            answer = await self._delete(twin.outputs)
            if not isinstance(answer, Done | Absent):
                return Unknown(f"{_TWIN} is left: {answer.reason}")
        return await self._update({**self.resource, **kept.outputs})

    async def _update(self, resource: Outputs) -> Answer:
        if self._api.update is None:
            return self._done(resource)
        answer = await self._exchange.ask(self._task, Verb.UPDATE, self._api.update, self._base, resource)
        if not isinstance(answer, RestAnswer):
            return self._later(answer)
        shown = resource_of(self._api, answer.document)
        return self._finished(answer, {**resource, **shown.outputs}) or self._done({**resource, **shown.outputs})

    def _made(self, answer: RestAnswer) -> Answer:
        """Returns the answer of the step after a successful create."""
        outputs = resource_of(self._api, answer.document).outputs
        if under_way := self._finished(answer, outputs):
            return under_way
        if not self._addresses(outputs):
            reason = "the answer shows no id of the resource"
            # Without `find` nothing leads to the resource: a person looks.
            return self._pending(reason, outputs) if self._api.find else Contradicted(reason)
        if self._call.repeats and self._api.find is not None and self._api.idempotent is Idempotent.NO:
            return self._pending("a second look, after a repeated create", outputs, self._api.settles_within_s)
        return self._done(outputs)

    def _finished(self, answer: RestAnswer, outputs: Outputs) -> Answer | None:
        """Returns the answer of the step for work that failed or is under way; None for finished work."""
        # With a job, `ready` and `failed` judge the answers of the job alone.
        state = WorkState.READY if self._api.job is not None else progress_of(self._api, answer.document)
        if state is WorkState.FAILED:
            return Refused("the work has failed", partly=True)
        if state is WorkState.PENDING or answer.status == 202:
            return self._pending("the system's work", self._of_work(answer, outputs), answer.wait_s)
        return None

    def _of_work(self, answer: RestAnswer, outputs: Outputs) -> Outputs:
        """Returns the outputs to believe of an answer before the work is finished.

        A 202 may show a job: its `id` is no id of a resource, and a DELETE by that id would remove a stranger's.
        """
        if answer.status != 202:
            return outputs
        if self._api.job is not None:
            return {name: outputs[name] for name in _resource_names(self._api.job) if name in outputs}
        return {} if self._api.find is not None else outputs

    # --- looks ------------------------------------------------------------------------------------------------------

    async def look(self) -> Answer:
        """Returns the state of the resource, for an intent without an outcome or a resource in doubt."""
        if self._call.open_verb in {Verb.CREATE, Verb.UPDATE} and self._call.succeeded:
            return await self._state_of_work()
        # By id only where a twin does not matter: a delete is over when every resource of our name is gone.
        seen = await self._seen(prefers_id=self._call.open_verb not in {Verb.CREATE, Verb.DELETE})
        if seen is None:
            return self._unseen()
        if isinstance(seen, Answer):
            return seen
        if not seen:
            return Absent()
        if self._call.open_verb is Verb.DELETE:
            waits = self._call.succeeded and not self._is_overdue
            return self._pending("the removal by the system", {}) if waits else self._shown(seen)
        return self._unfinished(seen) or self._shown(seen)

    async def _state_of_work(self) -> Answer:
        """Returns the state of work under way: of its job if known, then of the resource itself."""
        if (answer := await self._state_of_job()) is not None:
            return answer
        seen = await self._seen(prefers_id=not self._looks_for_twin)
        if seen is None:
            return self._unseen()
        has_read = self._api.read is not None and self._has(self._api.read, self.resource)
        if seen == [] and self._looks_for_twin and has_read:
            # The listing may be late; the id of the repeated create is known.
            seen = await self._read(self.resource)
        if isinstance(seen, Answer):
            return seen
        if not seen:
            return self._not_shown()
        return self._unfinished(seen) or self._shown(seen)

    def _unfinished(self, seen: Sequence[SeenResource]) -> Answer | None:
        """Returns the answer of the step for a resource whose own state is not ready; None for a finished one."""
        if self._api.job is not None or self._call.open_verb is None:
            return None
        first = min(seen, key=_order)
        return self._work(progress_of(self._api, first.document), {**self.resource, **first.outputs}, None)

    async def _state_of_job(self) -> Answer | None:
        """Returns the answer of the step by the job of the work; None if the resource itself must be looked at."""
        if self._api.job is None or not self._has(self._api.job, self.resource):
            return None
        answer = await self._ask(Verb.READ, self._api.job)
        if not isinstance(answer, RestAnswer):
            # Some systems forget a finished job: the resource tells.
            return None if isinstance(answer, Absent) else answer
        self.resource = {**self.resource, **outputs_of(self._api.job_outputs, answer.document)}
        if under_way := self._work(progress_of(self._api, answer.document), self.resource, answer.wait_s):
            return under_way
        return self._done(self.resource) if self._addresses(self.resource) and not self._looks_for_twin else None

    def _not_shown(self) -> Answer:
        """Returns the answer for a success whose resource is not shown: many systems show it seconds later."""
        waits_s = max(self._api.settles_within_s, self._api.ready_within_s if self._api.ready else 0.0)
        if self._call.age_s > waits_s:
            return Absent()
        return self._pending("the resource to be shown", self.resource)

    def _work(self, state: WorkState, outputs: Outputs, wait_s: float | None) -> Answer | None:
        if state is WorkState.FAILED:
            return Refused("the work has failed")
        if state is WorkState.READY:
            return None
        if self._is_overdue:
            return Refused("the work was not finished within ready_within")
        return self._pending("the system's work", outputs, wait_s)

    def _shown(self, seen: Sequence[SeenResource]) -> Answer:
        kept, *twins = sorted(seen, key=_order)
        outputs = {**self.resource, **kept.outputs}
        if twins:
            # An update follows, which removes the twins.
            return replace(self._done(outputs), differs=_TWIN)
        return replace(self._done(outputs), differs=self._difference(kept))

    def _difference(self, seen: SeenResource) -> str | None:
        """Returns the field of a found resource with another value than asked for, if an update could mend it."""
        if self._call.open_verb is not Verb.CREATE or self._api.update is None or self._call.succeeded:
            return None
        asked = self._exchange.filled(self._api.create.body or {}, self.resource)
        return difference(asked, seen.document.get("body"))

    def _unseen(self) -> Answer:
        """Returns the answer of the step where no request shows the resource."""
        if self._call.open_verb is Verb.CREATE and not self._call.succeeded and self._api.idempotent is Idempotent.NO:
            # A retry is the answer of a person: nothing of ours is there.
            return Absent() if self._call.retried else Contradicted(f"nobody can tell if it was made; {_LOOK}")
        # A repeat shows the state: creates are idempotent, and deletes are by nature.
        return Refused("the API shows no resource")

    async def _seen(self, *, prefers_id: bool) -> list[SeenResource] | Answer | None:
        """Returns the resources of our name; None if the API has no request that shows them."""
        has_read = self._api.read is not None and self._has(self._api.read, self.resource)
        if has_read and (prefers_id or self._api.find is None):
            return await self._read(self.resource)
        if self._api.find is None:
            return None
        ours = await self._find()
        if isinstance(ours, Answer) or len(ours) != 1 or self._api.read is None:
            return ours
        # An item of a listing may be shorter than the resource.
        outputs = {**self.resource, **ours[0].outputs}
        return await self._read(outputs, listed=ours[0]) if self._has(self._api.read, outputs) else ours

    async def _read(self, outputs: Outputs, listed: SeenResource | None = None) -> list[SeenResource] | Answer:
        assert self._api.read is not None
        answer = await self._exchange.ask(self._task, Verb.READ, self._api.read, self._base, outputs)
        if isinstance(answer, Absent):
            return [listed] if listed is not None else []
        if not isinstance(answer, RestAnswer):
            return answer
        shown = resource_of(self._api, answer.document)
        return [SeenResource({**outputs, **shown.outputs}, shown.document)]

    async def _find(self) -> list[SeenResource] | Answer:
        """Returns all resources of our name, from all pages of the listing.

        A resource that is removed while the pages are read moves later ones to an earlier page, and a reader misses
        them. So an absence over several pages counts only when two readings in a row show equal resources.
        """
        before: list[Any] | None = None
        for _ in range(_READINGS_MAX):
            reading = await self._read_listing()
            if isinstance(reading, Answer):
                return reading
            if reading.ours or reading.pages == 1:
                return [resource_of(self._api, item_document(item)) for item in reading.ours]
            ids = [outputs_of(self._api.outputs, item_document(item)) or item for item in reading.items]
            if ids == before:
                return []
            before = ids
        return Retryable("find: the listing changes while it is read", well=True)

    async def _read_listing(self) -> "_Reading | Answer":
        """Reads the listing once, to its end."""
        listing = self._api.find
        assert listing is not None
        reading = _Reading([], [], 0)
        page: NextPage | BrokenListing | None = first_page(listing)
        before: ListedPage | None = None
        while isinstance(page, NextPage):
            answer = await self._exchange.ask(
                self._task, Verb.READ, listing.request, self._base, {}, query=page.query, url=page.url
            )
            if isinstance(answer, Absent):
                # A 404 of a listing is a missing path, unless the plan says that it means an empty list.
                return reading if 404 in listing.request.absent else Retryable("find: there is no such listing")
            if not isinstance(answer, RestAnswer):
                return _of_find(answer)
            listed = page_of(listing, answer.document, {"secrets": {}, "resource": {}})
            if listed is None:
                return Contradicted("find: the answer shows no list")
            reading = _Reading([*reading.items, *listed.items], [*reading.ours, *listed.ours], reading.pages + 1)
            page = next_page(listing, reading.pages, answer.url, answer.document, listed, before)
            before = listed
        return Contradicted(f"find: {page.reason}") if isinstance(page, BrokenListing) else reading

    # --- the way down -----------------------------------------------------------------------------------------------

    async def delete(self) -> Answer:
        """Removes every resource of our name."""
        if self._api.delete is None:
            return Done()
        found: list[Outputs] = []
        if self._api.find is not None:
            ours = await self._find()
            if isinstance(ours, Answer):
                return ours
            found = [seen.outputs for seen in ours]
        is_known = self._has(self._api.delete, self.resource)
        if is_known and not any(_same(self._api.delete, self.resource, outputs) for outputs in found):
            found.append(self.resource)
        if not found and not is_known and self._api.find is None:
            if self._call.retried:
                return Absent()
            reason = f"nothing shows which resource to remove; {_LOOK}"
            return Contradicted(reason, anothers=not self._call.earlier_create_open)
        return _most_uncertain([await self._delete(outputs) for outputs in found] or [Absent()])

    async def _delete(self, outputs: Outputs) -> Answer:
        if self._api.delete is None:
            return Done()
        answer = await self._exchange.ask(self._task, Verb.DELETE, self._api.delete, self._base, outputs)
        if not isinstance(answer, RestAnswer):
            return self._later(answer)
        is_taken = answer.status == 202
        return self._pending("the removal by the system", {}, answer.wait_s) if is_taken else Done()

    # --- shared -----------------------------------------------------------------------------------------------------

    async def _ask(self, verb: Verb, request: Described) -> RestAnswer | Answer:
        return await self._exchange.ask(self._task, verb, request, self._base, self.resource)

    @property
    def _is_overdue(self) -> bool:
        return self._call.age_s > self._api.ready_within_s

    @property
    def _is_undecided(self) -> bool:
        """True if an earlier create may have made a resource, and only a person can tell."""
        return self._call.earlier_create_open and self._api.idempotent is Idempotent.NO and not self._call.retried

    @property
    def _looks_for_twin(self) -> bool:
        """True if an earlier create may still have its effect."""
        is_repeated_create = self._call.repeats and self._call.open_verb is Verb.CREATE
        return is_repeated_create and self._api.find is not None and self._api.idempotent is Idempotent.NO

    def _later(self, answer: Answer) -> Answer:
        """Returns an answer to a change; a lost answer is looked up when its effect must show."""
        if not isinstance(answer, Unknown):
            return answer
        return replace(answer, retry_after_s=max(answer.retry_after_s or 0.0, self._api.settles_within_s))

    def _pending(self, reason: str, outputs: Outputs, wait_s: float | None = None) -> Unknown:
        kept = {**self.resource, **outputs, "url": self._base} if outputs else {}
        wait_s = self._api.poll_s if wait_s is None else wait_s
        return Unknown(reason, wait_s, succeeded=True, pending=True, outputs=kept)

    def _done(self, outputs: Outputs) -> Done:
        return Done({**outputs, "url": self._base})

    def _has(self, request: Described, outputs: Outputs) -> bool:
        """True if all references of a request to the resource have a value."""
        return all(outputs.get(name) is not None for name in _resource_names(request))

    def _addresses(self, outputs: Outputs) -> bool:
        """True if the outputs lead to the resource, in every request of the description."""
        requests = (self._api.read, self._api.update, self._api.delete)
        return all(self._has(request, outputs) for request in requests if request is not None)


def _resource_names(request: Described) -> list[str]:
    """Returns the outputs that a request refers to."""
    parts = (request.path, request.query, request.headers, request.body, request.form)
    return [path.partition(".")[2] for path in late_references(parts) if path.startswith("resource.")]


def _same(request: Described, one: Outputs, other: Outputs) -> bool:
    """True if a request leads to the same resource with two sets of outputs."""
    return all(str(one.get(name)) == str(other.get(name)) for name in _resource_names(request))


def _order(seen: SeenResource) -> tuple[int, str]:
    """Returns the place of a resource among its twins: by the length and text of its id, so 9 comes before 10."""
    text = str(seen.outputs.get("id", sorted((name, str(value)) for name, value in seen.outputs.items())))
    return len(text), text


def _of_find(answer: Answer) -> Answer:
    """Returns the answer of the step for a `find` without success; a search that is refused judges no tenant."""
    if isinstance(answer, Refused):
        return Contradicted(f"find: {answer.reason}") if answer.heard else answer
    return answer


def _most_uncertain(answers: Sequence[Answer]) -> Answer:
    """Returns the answer for a whole set: a failure before a success, the most uncertain failure first."""
    order = (Unknown, Retryable, OperatorRefused, Contradicted, Refused, Done, Absent)
    return min(answers, key=lambda answer: order.index(type(answer)))
