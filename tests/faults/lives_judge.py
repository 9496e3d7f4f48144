"""Judges a day of lives by what the simulator and Kafka kept: wrongful teardowns, doubles, orphans, and the end.

A *destructive* call is a delete that took effect, of any outside system. Rule for each, of key K, generation G, at T:

1. The life begins with the install that it answers: `installed_at` of the newest desired version that was known at the
   first create call of (K, G). Versions known within 2 s before that call may all be the one; the earliest counts. The
   time of an observation is a whole second, so a true install up to 1 s later may be meant. The time of a retry that
   carries the time of the attempt stands for the change that it tells of: a first attempt that comes later says so.
2. Legitimate: Genesys lost the integration after that install and before T. Late news of a true uninstall is news.
3. *Misled*: else, but Genesys itself signed an unmarked `uninstalled`, dated after that install and before T, by a
   retry that carries the time of the attempt and no retry count. No receiver can tell; only asking Genesys first can.
   Counted apart.
4. Else *wrongful*.
5. A teardown (of more than a token, which may be issued anew) is *deaf*, and wrong, if at its first call Genesys has
   the integration, and 3 s before a webhook of that install had been answered 200 as it was, or the newest desired
   version said installed; unless misled. A webhook that is marked as a retry tells nothing here: after an uninstall it
   may be a retry from before, so the ledger holds it for ambiguous and asks Genesys (docs/specification.md, section 3).
6. *Unconfigured*: a delete of the CRM connection alone, by a desired version that is installed and has no endpoint. An
   uninstall that came after the reading of a reinstall erases the configuration, if that reading had none. Counted
   apart; the next reading brings the configuration back.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas import codec
from schemas.event import Observed
from schemas.outcome import Outcome
from schemas.tenant import Desired, Stage
from schemas.times import instant, rfc3339
from schemas.topics import DESIRED, OUTCOMES, RECEIVED, Topic, named
from schemas.values import EventType, Key
from services.cli.demo.outside import PROVISIONED
from services.core.saga.calls import resource_name
from tests.faults import records
from tests.support.life_world import LifeWorld, TrueState, tenant_of

_PARTITIONS: Final = 4
_RACE_US: Final = 2_000_000
_FLOOR_US: Final = 1_000_000
_DEAF_US: Final = 3_000_000
_INSTALLED: Final = EventType.INSTALLED
_DONE: Final = frozenset({"done", "lost"})


@dataclass(slots=True)
class LifeVerdict:
    """Verdict over a day.

    Attributes:
        faults: What is not as it must be, by key; empty for a good day.
        teardowns: Destructive calls.
        late: Of these, those made while Genesys had the integration again, since the news of that had not come.
        misled: See the rule.
        unconfigured: See the rule.
    """

    faults: dict[Key, str] = field(default_factory=dict)
    teardowns: int = 0
    late: int = 0
    misled: int = 0
    unconfigured: int = 0


def judge(world: LifeWorld) -> LifeVerdict:
    """Judges every call of the day, and what is left at its end."""
    verdict = LifeVerdict()
    desired = _by_key(world, DESIRED, lambda raw: codec.decode(Desired, raw))
    calls: defaultdict[Key, list[dict[str, Any]]] = defaultdict(list)
    for call in world.client.get(f"{world.stack.simulator}/calls").raise_for_status().json():
        calls[call["key"]].append(call)
    for key, own in calls.items():
        _judge_calls(world, key, own, desired.get(key, []), verdict)
    for text in world.view.contradictions:
        verdict.faults[text.partition(": ")[0]] = text
    for key in world.truth:
        if gap := world.view.gaps(key):
            verdict.faults.setdefault(key, gap)
    return verdict


def _judge_calls(
    world: LifeWorld, key: Key, calls: list[dict[str, Any]], desired: list[Desired], verdict: LifeVerdict
) -> None:
    began: dict[int, int] = {}
    there: Counter[tuple[str, int]] = Counter()
    for call in calls:
        if call["outcome"] not in _DONE or call["verb"] == "read":
            continue
        at_us, generation, resource = instant(call["at"]), call["generation"], (call["system"], call["generation"])
        if call["verb"] == "create":
            began.setdefault(generation, _changed_us(world, key, min(at_us, _install_of(desired, at_us))))
            there[resource] += call["system"] not in {"archive", "tokens"}
            if there[resource] > 1:
                verdict.faults.setdefault(key, f"made twice: {call}")
        elif call["verb"] == "delete":
            there[resource] -= call["system"] not in {"archive", "tokens"}
            verdict.teardowns += 1
            begin_us = began.get(generation, 0)
            of_read = begin_us % _FLOOR_US == 0
            if world.left_after(key, begin_us + (_FLOOR_US if of_read else 0), at_us):
                state = world.true_state(key, at_us)
                verdict.late += state is not None and state.installed
            elif _was_misled(world, key, begin_us, at_us):
                verdict.misled += 1
            else:
                begin = rfc3339(begin_us)
                verdict.faults.setdefault(key, f"wrongful: {call}; Genesys had it all the time since {begin}")
    _judge_teardowns(world, key, calls, desired, verdict)


def _judge_teardowns(
    world: LifeWorld, key: Key, calls: list[dict[str, Any]], desired: list[Desired], verdict: LifeVerdict
) -> None:
    for at_us, call in _teardowns(calls):
        if _is_unconfigured(call, desired):
            verdict.unconfigured += 1
        elif why := _is_deaf(world, key, at_us, desired):
            verdict.faults.setdefault(key, f"deaf: {call}; {why}")


def _teardowns(calls: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the time of the first call of each teardown, and the first call that deletes more than a token."""
    token_us: dict[int, int] = {}
    torn: set[int] = set()
    for call in calls:
        if call["verb"] != "delete" or call["outcome"] not in _DONE:
            continue
        at_us, generation = instant(call["at"]), call["generation"]
        if call["system"] == "tokens":
            token_us[generation] = at_us
        elif generation not in torn:
            torn.add(generation)
            yield token_us.get(generation, at_us), call


def _install_of(desired: list[Desired], at_us: int) -> int:
    """Returns the time of the install that a life answers which begins at a time."""
    known = [one for one in desired if one.installed and one.received_at is not None and one.received_at <= at_us]
    newest = [one for one in known if one.received_at is not None and one.received_at >= at_us - _RACE_US]
    before = [one for one in known if one not in newest][-1:]
    times = [one.installed_at for one in (*before, *newest) if one.installed_at is not None]
    return min(times, default=0) if newest else max(times, default=0)


def _changed_us(world: LifeWorld, key: Key, dated_us: int) -> int:
    """Returns the time of the install that a webhook told of under another time; else the time as it is."""
    told = (one for one in world.told if one.key == key and one.what == _INSTALLED and one.restamped)
    return next((one.change_us for one in told if one.dated_us == dated_us), dated_us)


def _is_deaf(world: LifeWorld, key: Key, at_us: int, desired: list[Desired]) -> str:
    """Returns how a teardown that begins at a time goes against what had been told; empty if it does not."""
    state, known_us = world.true_state(key, at_us), at_us - _DEAF_US
    if state is None or not state.installed:
        return ""
    install_us = max(one.before_us for one in world.truth[key] if one.before_us <= at_us and one.event is _INSTALLED)
    if _was_misled(world, key, install_us, at_us):
        return ""
    heard = [one for one in world.told if one.key == key and one.what == _INSTALLED and one.dated_us == install_us]
    if any(one.answer.startswith("200") and one.at_us <= known_us and not one.retry for one in heard):
        return f"the webhook of the install of {rfc3339(install_us)} had come"
    newest = [one for one in desired if one.received_at is not None and one.received_at <= known_us][-1:]
    since = [one for one in desired if one.received_at is not None and known_us < one.received_at <= at_us]
    if newest and all(one.installed for one in (*newest, *since)):
        return f"the newest desired version {newest[0].version} said installed"
    return ""


def _is_unconfigured(call: Mapping[str, Any], desired: list[Desired]) -> bool:
    """True if a call deletes the CRM connection of an installed tenant whose endpoint is not known."""
    at_us = instant(call["at"])
    newest = [one for one in desired if one.received_at is not None and one.received_at <= at_us][-1:]
    return call["system"] == "crm" and any(one.installed and "crmEndpoint" not in one.configuration for one in newest)


def _was_misled(world: LifeWorld, key: Key, from_us: int, until_us: int) -> bool:
    return any(
        told.key == key and told.what == EventType.UNINSTALLED and told.restamped and not told.retry
        and from_us <= told.dated_us <= until_us
        for told in world.told
    )  # fmt: skip


def unequal(world: LifeWorld) -> dict[Key, str]:
    """Returns the keys whose tenant, or whose resources outside, are not as in Genesys; why by key."""
    tenants, inventory = world.tenants(), world.outside.inventory()
    found: dict[Key, str] = {}
    for key in world.truth:
        state, tenant = world.true_state(key), tenants.get(key)
        assert state is not None
        stage = None if tenant is None else tenant.stage
        counts = {system: len(inventory[system].get(key, [])) for system in PROVISIONED}
        generations = {one["generation"] for system in PROVISIONED for one in inventory[system].get(key, [])}
        wanted = 1 if state.installed else 0
        shown = f"{stage}, enabled {tenant and tenant.enabled}, {tenant and tenant.reason}"
        if state.installed and stage is not Stage.ACTIVE:
            found[key] = f"installed in Genesys, and {shown}"
        elif not state.installed and stage not in {None, Stage.DEPROVISIONED}:
            found[key] = f"not in Genesys, and {shown}"
        elif set(counts.values()) != {wanted} or len(generations) > 1:
            found[key] = f"{'installed' if wanted else 'not'} in Genesys, and {counts}, generations {generations}"
        elif tenant is not None and state.installed and state.enabled not in {None, tenant.enabled is not False}:
            found[key] = f"enabled is {state.enabled} in Genesys, and {shown}"
        elif state.installed and (why := _told_otherwise(world, key, state, generations.pop())):
            found[key] = why
    strangers = {key for system in PROVISIONED for key in inventory[system]} - world.truth.keys()
    return found | dict.fromkeys(strangers, "orphan: of no integration")


def _told_otherwise(world: LifeWorld, key: Key, state: TrueState, generation: int) -> str:
    """Returns how the middleware was told otherwise than Genesys says; empty if alike."""
    url = f"{world.stack.simulator}/middleware/{resource_name(key, generation)}"
    told = world.client.get(url, headers={"Lifecycle-Key": key}).raise_for_status().json()["desired"]
    configuration = {name: value for name, value in told["configuration"].items() if name != "tenantId"}
    if configuration != state.configuration:
        return f"configuration {configuration}, and {state.configuration} in Genesys"
    return "" if state.enabled in {None, told["enabled"]} else f"enabled {told['enabled']} outside, not in Genesys"


def story(world: LifeWorld, key: Key) -> Iterator[str]:
    """Yields what happened to a key, in order: changes, attempts, observations, versions, outcomes and calls."""
    lines: list[tuple[int, str]] = []
    for state in world.truth[key]:
        text = f"GENESYS {state.event} enabled={state.enabled} {json.dumps(state.configuration)}"
        lines.append((state.before_us, text))
    for told in (one for one in world.told if one.key == key):
        how = "hint" if told.is_hint else "webhook"
        marks = f"{' restamped' if told.restamped else ''}{f' retry {told.retry}' if told.retry else ''}"
        lines.append((told.at_us, f"{how} {told.what} of {rfc3339(told.dated_us)}{marks}: {told.answer}"))
    for at_us, seen in _observed(world, key):
        value = f"installed={seen.installed} enabled={seen.enabled} configuration={seen.configuration}"
        lines.append((at_us, f"observed {value} of {rfc3339(seen.read_at)} ({seen.cause})"))
    for one in _by_key(world, DESIRED, lambda raw: codec.decode(Desired, raw)).get(key, []):
        text = f"desired {one.version} installed={one.installed} enabled={one.enabled} of {one.installed_at}"
        lines.append((one.received_at or 0, text))
    for outcome in _by_key(world, OUTCOMES, lambda raw: codec.decode(Outcome, raw)).get(key, []):
        text = f"outcome {outcome.desired_version} g{outcome.generation} {outcome.direction} {outcome.state}"
        lines.append((outcome.at, f"{text} {outcome.step} {outcome.reason}"))
    for call in world.outside.calls(key):
        if call["verb"] != "read":
            text = f"CALL {call['system']} {call['verb']} g{call['generation']} {call['outcome']}"
            lines.append((instant(call["at"]), text))
    yield f"{key} ({tenant_of(key)})"
    for at_us, text in sorted(lines, key=lambda one: one[0]):
        yield f"  {rfc3339(at_us)[11:23]} {text}"


def _observed(world: LifeWorld, key: Key) -> Iterator[tuple[int, Observed]]:
    """Yields the observations of a key, with their log times."""
    for *_, at_us, spoken, raw in _records(world, RECEIVED):
        if spoken == key.encode() and b'"read_at"' in raw:
            yield at_us, codec.decode(Observed, raw)


def _by_key(world: LifeWorld, topic: Topic, parse: Callable[[bytes], Any]) -> Mapping[Key, list[Any]]:
    found: defaultdict[Key, list[Any]] = defaultdict(list)
    for *_, spoken, raw in _records(world, topic):
        found[spoken.decode()].append(parse(raw))
    return found


def _records(world: LifeWorld, topic: Topic) -> list[tuple[int, int, int, bytes, bytes]]:
    settings = world.stack.settings
    return records.read(world.stack.addresses.kafka, named(topic, settings.topic_prefix), _PARTITIONS)
