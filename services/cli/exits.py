"""The exit statuses of all commands. A fault of the environment never ends in a traceback."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of `lifecycle`, with equal meaning for every command."""

    OK = 0
    """The command was carried out, without a deviation."""
    DEVIATION = 1
    """The command was carried out and found a deviation, which the output names."""
    UNUSABLE = 2
    """The command line or the environment cannot be used; the output names every fault."""
    UNREACHABLE = 3
    """Kafka, PostgreSQL, an engine or a service does not answer: a later run of the command may succeed."""
    NOT_FOUND = 4
    """The key does not exist."""
    REFUSED = 5
    """Kafka or PostgreSQL refused a login, a database or a right; the ingress or Genesys refused; or the keyring would
    lose a secret still in use. Every further run is refused until an operator removes the cause."""
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
    """The end of a command with a message and an exit status, in place of a result.

    Attributes:
        status: The exit status.
    """

    def __init__(self, status: Exit, text: str) -> None:
        super().__init__(text)
        self.status = status
