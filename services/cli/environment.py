"""The one place that reads the process environment, and the environment that `lifecycle up` left for other commands.

Rule: a service is configured by its environment alone. The other commands add what a running `up` wrote into its state
folder, where their environment does not say otherwise; so they need no setting on the machine that runs `up`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from services.adapters.kafka.producer import KafkaError
    from services.adapters.process.settings import Settings

ENDPOINTS = "endpoints.json"
STATE_DIR = Path(".lifecycle")
ENVIRONMENT = "environment.json"
"""Written by `up` into its state folder once everything is ready, removed when it stops."""

_OF_THE_COMMAND: Final = frozenset({"STATE_DIR", "LOG_LEVEL", "NO_PROXY", "no_proxy"})
"""Variables that a command may have otherwise than the `up` of --state-dir: they lead to no other installation."""


class NoUp(CommandError):
    """The files that an `up` left are not those of a running one."""


def process() -> dict[str, str]:
    """The environment of this process."""
    return dict(os.environ)  # noqa: TID251 - the one place


def service() -> "Settings":
    """The settings of a service: its environment, and nothing else.

    Raises:
        Unusable: with every fault.
    """
    from services.adapters.process import settings

    return settings.read(process())


def state_dir(given: Path | None) -> Path:
    """The state folder: as given, else `STATE_DIR`, else `.lifecycle`."""
    return given or Path(process().get("STATE_DIR") or STATE_DIR)


def operator(given: Path | None = None) -> dict[str, str]:
    """The environment of an operator's command: that of the running `up`, overridden by our own.

    Raises:
        NoUp: the `up` found was killed, or its files are damaged.
        Failure: a folder was named in which none runs, or whose installation is not that of our environment.
    """
    own = {name: text for name, text in process().items() if text}
    kafka = own.get("KAFKA_BOOTSTRAP_SERVERS")
    if kafka and given is None:
        return own
    left = left_by_up(state_dir(given))
    if given is not None:
        _judge_state_dir(given, left, own)
    # Ours names the folder of `up`; theirs the folder of a service in it.
    return left | {name: text for name, text in own.items() if not (left and name == "STATE_DIR")}


def _judge_state_dir(given: Path, left: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Refuse a named folder in which no `up` runs, and an environment that would lead to another installation.

    Raises:
        Failure: why; no value is shown, since a database's URL holds a password.
    """
    if not given.is_dir():
        raise CommandError(Exit.UNUSABLE, f"--state-dir: {given}: no such folder; `lifecycle up` makes it")
    if not left:
        raise CommandError(Exit.UNUSABLE, f"--state-dir: no `lifecycle up` runs in {given}, or it is not ready yet")
    # Settings are read in capitals and in small letters.
    ours = {name.upper(): text for name, text in own.items()}
    others = sorted(name for name in left.keys() & ours.keys() - _OF_THE_COMMAND if left[name] != ours[name])
    if others:
        why = f"{', '.join(others)} of the environment is not that of the `up` there; unset it, or leave the option out"
        raise CommandError(Exit.UNUSABLE, f"--state-dir: {given}: {why}")


def settings_of_operator(given: Path | None = None) -> "Settings":
    """The settings of an operator's command.

    Raises:
        Unusable: with every fault.
        Failure: the `up` found was killed, or neither the environment nor a running `up` names a Kafka.
    """
    from services.adapters.process import settings

    found = settings.read(operator(given))
    if found.kafka_bootstrap_servers is None:
        where = state_dir(given)
        raise CommandError(
            Exit.UNUSABLE,
            f"KAFKA_BOOTSTRAP_SERVERS is not set, and no `lifecycle up` runs in {where}, or it is not ready yet"
            " (--state-dir names another folder).",
        )
    # A broker that is away is told once, by the command, and not by librdkafka at every attempt.
    return found.model_copy(update={"kafka_config": {"log_level": "0", **found.kafka_config}})


@contextmanager
def answering(settings: "Settings") -> Iterator[None]:
    """Ask Kafka first whether it would serve us, and say which Kafka it was that did not do its part.

    Raises:
        Failure: instead of a KafkaError.
    """
    from services.adapters.kafka.producer import KafkaError
    from services.adapters.kafka.reach import reach

    try:
        reach(settings.kafka, prefix=settings.topic_prefix)
        yield
    except KafkaError as error:
        raise kafka_failure(error, settings.kafka_bootstrap_servers) from None


def registry_answers(settings: "Settings") -> None:
    """Ask the registry's database for one session: a pool would try again and again, and say only that time was up.

    Raises:
        NoDatabase: none opens, or the role may not read the registry.
        Unusable: the environment names no database.
    """
    from services.adapters.postgres.sessions import NoDatabase, registry_standing, session
    from services.adapters.process.settings import required
    from services.adapters.registry.registry import SCHEMA

    with session("DATABASE_URL", required(settings, "database_url")) as opened:
        found = registry_standing(opened, SCHEMA)
    if found.readable and (found.exists or found.creates):
        return
    what = f"may not use the schema {SCHEMA}" if found.exists else f"may not make the schema {SCHEMA}"
    told = f'PostgreSQL (DATABASE_URL): the role "{found.user}" {what}; name the role of the provisioner'
    raise NoDatabase(told, refused=True)


def kafka_failure(error: "KafkaError", where: str | None = None) -> CommandError:
    """How a command ends that Kafka does not serve: a sentence, and whether to try again or to put something right.

    Args:
        error: What went wrong.
        where: The brokers, where they are known.
    """
    from services.adapters.kafka.reach import in_words, refusal

    subject = f"Kafka at {where} (KAFKA_BOOTSTRAP_SERVERS)" if where else "Kafka"
    status = Exit.REFUSED if refusal(error) else Exit.UNREACHABLE
    return CommandError(status, f"{subject}: {in_words(error)} (`lifecycle doctor` says more)")


def judge(endpoints: Mapping[str, Any], path: Path) -> None:
    """Say at once that an endpoints file has outlived its processes: a killed `up` removes nothing.

    Raises:
        NoUp: none of the processes in it runs.
    """
    pids = endpoints.get("pids")
    if pids and not any(map(_runs, pids.values())):
        raise NoUp(Exit.UNREACHABLE, f"{path}: none of its processes runs, `lifecycle up` was killed; start it again")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, and it runs
    return True


def left_by_up(folder: Path) -> dict[str, str]:
    """The environment that a running `up` left in its state folder; empty where none is ready.

    Raises:
        NoUp: that `up` was killed, or its files are not what it wrote.
    """
    path = folder / ENVIRONMENT
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise NoUp(
            Exit.UNUSABLE, f"{path}: is not what `lifecycle up` writes; stop it, remove the file, start it again"
        )
    with suppress(FileNotFoundError, ValueError, AttributeError):
        judge(json.loads((folder / ENDPOINTS).read_text()), folder / ENDPOINTS)
    return found
