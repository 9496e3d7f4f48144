"""Maps the answers of steps to reports for the gates of the outside systems (`services.adapters.system_gates`)."""

from services.adapters.system_gates import CallReport, SystemHealth
from services.core.saga.calls import (
    Absent,
    Answer,
    Contradicted,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
)


def report_of(answer: Answer) -> CallReport:
    """Returns the evidence of an answer about the health of the system."""
    match answer:
        case Refused(heard=False):
            return CallReport(SystemHealth.NOTHING_KNOWN)
        case OperatorRefused():
            return CallReport(SystemHealth.OPERATOR_REFUSED, answer.reason, answer.remedy)
        # A refusal, a contradiction or a stale epoch shows a working system.
        case Done() | Absent() | Refused() | Contradicted() | Retryable(well=True) | Unknown(succeeded=True):
            return CallReport(SystemHealth.WORKED)
        case _:
            return CallReport(SystemHealth.FAILED)
