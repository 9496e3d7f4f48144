"""How every command ends: one number, one meaning, and never a traceback for what the world may do."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of `lifecycle`, the same for every command."""

    OK = 0
    """Done, and all is as it should be."""
    DEVIATION = 1
    """Done, and something is not as it should be: it is named."""
    UNUSABLE = 2
    """The command line or the environment cannot be used; every fault is named."""
    UNREACHABLE = 3
    """Kafka, PostgreSQL, an engine or a service does not answer: the same command may succeed later."""
    NOT_FOUND = 4
    """There is no such key."""
    REFUSED = 5
    """Kafka or PostgreSQL refused a login, a database or a right; the ingress or Genesys refused; or the keyring would
    lose a secret that counts. The same command is refused again until somebody puts that right."""
    INTERRUPTED = 130
    """Ctrl-C."""


EPILOG = (
    "Exit status: 0 done and as it should be; 1 a deviation, named; 2 unusable command line or environment; "
    "3 something does not answer; 4 no such key; 5 refused (a login, a right, a delivery); "
    "130 interrupted. "
    "Settings come from the environment (`lifecycle doctor --settings` lists them); where it names no Kafka, commands "
    "ask what `lifecycle up` started in the state folder."
)


class CommandError(Exception):
    """A command that ends with a sentence and a status instead of its result."""

    def __init__(self, status: Exit, text: str) -> None:
        super().__init__(text)
        self.status = status
