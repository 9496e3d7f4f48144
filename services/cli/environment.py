"""Reads the process environment, and the environment file of `lifecycle up` for an operator's commands.

Rule: a service is configured by its process environment alone. For an operator's command, the environment file of the
running `up` supplies every variable that the operator has not set; so no setting is needed on the machine of `up`.
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
    from services.adapters.process.environment import Section
    from services.adapters.process.settings import Settings

ENDPOINTS = "endpoints.json"
"""Name of the endpoints file in the state folder."""
STATE_DIR = Path(".lifecycle")
"""Default state folder, relative to the working folder."""
ENVIRONMENT = "environment.json"
"""Name of the environment file in the state folder; present while everything that was ready once is supervised."""

_PER_COMMAND: Final = frozenset({"STATE_DIR", "LOG_LEVEL", "NO_PROXY", "no_proxy"})
"""Variables in which a command may differ from the `up` of --state-dir: none of them selects an installation."""


class UpNotRunning(CommandError):
    """The files in the state folder belong to no running `up`: killed, or damaged."""


class UpStarting(CommandError):
    """The `up` of the state folder has not been ready yet, and its settings are not known."""

    def __init__(self, folder: Path) -> None:
        """Names the folder as given."""
        text = f"`lifecycle up` in {folder} is still starting; `lifecycle status` says what is missing"
        super().__init__(Exit.UNREACHABLE, text)


def is_up_starting(folder: Path) -> bool:
    """True if an `up` runs on a state folder and has not been ready yet."""
    from services.cli.local.process_file import find_up

    # A file of another release or another user is judged by the commands about processes.
    with suppress(CommandError):
        found = find_up(folder)
        return found is not None and not found.ready
    return False


def process() -> dict[str, str]:
    """Returns the environment of this process."""
    return dict(os.environ)  # noqa: TID251 - the one place


def section(wanted: "type[Section]") -> "Section":
    """Returns a section of the settings, from the process environment alone.

    Raises:
        Unusable: a variable of the section has a fault; the message lists all faults.
    """
    from services.adapters.process.environment import read

    return read(process(), wanted)


def state_dir(given: Path | None) -> Path:
    """Returns the state folder: as given, else `STATE_DIR`, else `.lifecycle`."""
    return given or Path(process().get("STATE_DIR") or STATE_DIR)


def operator(given: Path | None = None) -> dict[str, str]:
    """Returns the environment of an operator's command: the running `up`'s, overridden by our own.

    With a Kafka in our own environment and no folder given, the files of an `up` are not read at all.

    Args:
        given: The option --state-dir.

    Raises:
        UpNotRunning: the `up` of the folder was killed, or a file of the `up` is damaged.
        UpStarting: the `up` of the folder given has not been ready yet.
        CommandError: no `up` runs in the folder given, or our environment names a different installation (UNUSABLE).
    """
    # An empty variable counts as unset.
    own = {name: text for name, text in process().items() if text}
    kafka = own.get("KAFKA_BOOTSTRAP_SERVERS")
    if kafka and given is None:
        return own
    up_environ = environment_of_up(state_dir(given))
    if given is not None:
        _check_state_dir(given, up_environ, own)
    # `STATE_DIR` of our environment is the folder of `up`; `STATE_DIR` in its file is the folder of the reconciler
    # below.
    return up_environ | {name: text for name, text in own.items() if not (up_environ and name == "STATE_DIR")}


def _check_state_dir(given: Path, up_environ: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Refuses a given folder without a running `up`, and an environment that names a different installation.

    Raises:
        CommandError: the reason (UNUSABLE). Variables are named without values, which may hold a password.
    """
    if not given.is_dir():
        raise CommandError(Exit.UNUSABLE, f"--state-dir: {given}: no such folder; `lifecycle up` makes it")
    if not up_environ:
        if is_up_starting(given):
            raise UpStarting(given)
        raise CommandError(Exit.UNUSABLE, f"--state-dir: no `lifecycle up` runs in {given}, or it is not ready yet")
    # pydantic reads settings in any case of letters, so `kafka_bootstrap_servers` is the same variable.
    own_upper = {name.upper(): text for name, text in own.items()}
    clashes = sorted(
        name for name in up_environ.keys() & own_upper.keys() - _PER_COMMAND if up_environ[name] != own_upper[name]
    )
    if clashes:
        why = (
            f"{', '.join(clashes)} of the environment is not that of the `up` there; unset it, or leave the option out"
        )
        raise CommandError(Exit.UNUSABLE, f"--state-dir: {given}: {why}")


def settings_of_operator(given: Path | None = None) -> "Settings":
    """Returns the settings of an operator's command.

    Raises:
        Unusable: a variable has a fault; the message lists all faults.
        UpStarting: the `up` of the folder has not been ready yet.
        CommandError: the `up` found was killed, or no Kafka is named (UNUSABLE).
    """
    from services.adapters.process.environment import read
    from services.adapters.process.settings import Settings

    found = read(operator(given), Settings)
    if found.kafka_bootstrap_servers is None:
        where = state_dir(given)
        if is_up_starting(where):
            raise UpStarting(where)
        raise CommandError(
            Exit.UNUSABLE,
            f"KAFKA_BOOTSTRAP_SERVERS is not set, and no `lifecycle up` runs in {where}, or it is not ready yet"
            " (--state-dir names another folder).",
        )
    # The command itself reports an absent broker once; librdkafka would print a line at every attempt.
    return found.model_copy(update={"kafka_config": {"log_level": "0", **found.kafka_config}})


@contextmanager
def require_kafka(settings: "Settings") -> Iterator[None]:
    """Probes Kafka first, and turns each KafkaError of the body into a CommandError with the names of the brokers.

    Raises:
        CommandError: in place of a KafkaError (UNREACHABLE or REFUSED).
    """
    from services.adapters.kafka.producer import KafkaError
    from services.adapters.kafka.reach import reach

    try:
        reach(settings.kafka, prefix=settings.topic_prefix)
        yield
    except KafkaError as error:
        raise kafka_failure(error, settings.kafka_bootstrap_servers) from None


def require_registry(settings: "Settings") -> None:
    """Probes the registry's database: a session opens, and the role may use the registry's schema.

    Call this before a connection pool is opened: a pool would retry and report only a timeout.

    Raises:
        NoDatabase: no session opens, or the role may not use the registry's schema.
        Unusable: DATABASE_URL is not set.
    """
    from services.adapters.postgres.sessions import NoDatabase, registry_standing, session
    from services.adapters.process.settings import required
    from services.adapters.registry.registry import SCHEMA

    with session("DATABASE_URL", required(settings, "database_url")) as opened:
        found = registry_standing(opened, SCHEMA)
    if found.readable and (found.exists or found.creates):
        return
    what = f"may not use the schema {SCHEMA}" if found.exists else f"may not make the schema {SCHEMA}"
    message = f'PostgreSQL (DATABASE_URL): the role "{found.user}" {what}; name the role of the provisioner'
    raise NoDatabase(message, refused=True)


def kafka_failure(error: "KafkaError", where: str | None = None) -> CommandError:
    """Returns a command's error for a failure of Kafka: UNREACHABLE if a retry may help, REFUSED if not.

    Args:
        error: The error.
        where: The brokers, if known.
    """
    from services.adapters.kafka.reach import in_words, refusal

    subject = f"Kafka at {where} (KAFKA_BOOTSTRAP_SERVERS)" if where else "Kafka"
    status = Exit.REFUSED if refusal(error) else Exit.UNREACHABLE
    return CommandError(status, f"{subject}: {in_words(error)} (`lifecycle doctor` says more)")


def refuse_stale(endpoints: Mapping[str, Any], path: Path) -> None:
    """Refuses an endpoints file without a living process; a killed `up` removes no file.

    Raises:
        UpNotRunning: none of the processes in the file runs (UNREACHABLE).
    """
    # One living process is enough: a service that just ended is restarted by the supervisor.
    pids = endpoints.get("pids")
    if pids and not any(map(_is_running, pids.values())):
        raise UpNotRunning(
            Exit.UNREACHABLE, f"{path}: none of its processes runs, `lifecycle up` was killed; start it again"
        )


def _is_running(pid: int) -> bool:
    """True if a process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # the process belongs to a different user, and it runs
    return True


def environment_of_up(folder: Path) -> dict[str, str]:
    """Returns the environment of the running `up` of a state folder; empty if none is ready.

    Raises:
        UpNotRunning: the `up` was killed (UNREACHABLE), or the file is damaged (UNUSABLE).
    """
    path = folder / ENVIRONMENT
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise UpNotRunning(
            Exit.UNUSABLE, f"{path}: is not what `lifecycle up` writes; stop it, remove the file, start it again"
        )
    # Without a readable endpoints file nothing speaks against a running `up`.
    with suppress(FileNotFoundError, ValueError, AttributeError):
        refuse_stale(json.loads((folder / ENDPOINTS).read_text()), folder / ENDPOINTS)
    return found
