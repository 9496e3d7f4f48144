"""The event of an audit, for an endpoint with the authority `event`: two tables, and nothing beyond the audit's words.

Rule: an audit gives at most one event, and only a stated event. An audit of a changed configuration does not carry the
configuration, and gives none. `Activate` and `Deactivate` give none either: all services of Genesys share the actions,
and both may speak of the reported state, which follows from more than the intended state.
Source: the actions of the notification topic's schema, and `intendedState` of the integrations API. The actions in use
by the service Integrations are not documented, so the tables have every action and state with a single meaning.
"""

from collections.abc import Mapping
from typing import Final

from schemas.hint import IntegrationAudit
from schemas.values import EventType

BY_ACTION: Final[Mapping[str, EventType]] = {
    "create": EventType.INSTALLED,
    "restore": EventType.INSTALLED,
    "restoredeleted": EventType.INSTALLED,
    "delete": EventType.UNINSTALLED,
    "softdelete": EventType.UNINSTALLED,
    "harddelete": EventType.UNINSTALLED,
    "enable": EventType.ENABLED,
    "disable": EventType.DISABLED,
}
"""Action, in lower case, to event."""

_UPDATE: Final = "update"
_STATE: Final = "intendedstate"
BY_STATE: Final[Mapping[str, EventType]] = {
    "enabled": EventType.ENABLED,
    "disabled": EventType.DISABLED,
    "restored": EventType.INSTALLED,
    "deleted": EventType.UNINSTALLED,
}
"""New value of the property `intendedState` in an update, in lower case, to event."""


def audited_event(audit: IntegrationAudit) -> EventType | None:
    """Returns the event that an audit states; None for an audit without one."""
    if audit.action == _UPDATE:
        return BY_STATE.get(audit.changed.get(_STATE, ""))
    return BY_ACTION.get(audit.action)
