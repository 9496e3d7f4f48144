"""The table of differences: the states of a key in its three views, and the decision about each difference.

Problem: a tenant stands in three places. An operator has to know the differences, and who mends each difference.

Approach: effects flow one way, so a difference lies between two neighbours.

    Genesys (as read now)  ->  desired (the view `lifecycle.tenants`)  ->  outside (the provisioner's registry)
              the reconciler mends by an observation      the provisioner mends by its steps

`BETWEEN_GENESYS` and `BETWEEN_OUTSIDE` name the difference for every pair of states. `BY_LOCK` and `RULES` have the
decision, and who acts. docs/reconciliation.md has the tables.

Rule: a missing view is "no information", never "nothing", and removes nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class GenesysState(StrEnum):
    """State of a key in Genesys, as read now."""

    INSTALLED = "installed"
    """Installed, with the settings of the view."""
    CHANGED = "installed, other settings"
    GONE = "gone"
    """Deleted, or not there."""
    UNKNOWN = "no information"


class DesiredState(StrEnum):
    """State of a key in the view of the tenants."""

    INSTALLED = "installed"
    GONE = "uninstalled"
    NEVER = "never told"
    """Neither an install nor an uninstall is known."""


class OutsideState(StrEnum):
    """State of a key's newest life in the outside systems."""

    NOTHING = "nothing"
    BUILDING = "being made"
    WHOLE = "whole"
    CHANGING = "being changed"
    UNDOING = "being undone"
    ROLLED_BACK = "rolled back"
    REMOVING = "being removed"
    HELD = "removal held"
    """The brake of the provisioner holds the removal."""
    UNCONFIRMED = "removal unconfirmed"
    """The brake has let the removal go, and Genesys has not confirmed that the integration is gone."""
    MISSING = "incomplete"
    """The journal has a resource that a look outside did not find."""
    UNKNOWN = "not read"
    """The registry was not read, or this release cannot read the key's row."""


class Actor(StrEnum):
    """The program or person that acts about a difference."""

    NOBODY = "nobody"
    RECONCILER = "reconciler"
    PROVISIONER = "provisioner"
    OPERATOR = "operator"


class Lock(StrEnum):
    """Reason for which the reconciler does not publish a difference yet; `FREE` publishes with the next run."""

    FREE = "free"
    SECOND_LOOK = "second look"
    BRAKE = "brake"
    REFUSED = "refused"
    NEW_ORGANISATION = "new organisation"


class Difference(StrEnum):
    """A difference between two neighbouring views of a key, or their agreement."""

    AGREES = "agrees"
    INSTALL_LOST = "install lost"
    GENESYS_LOST = "Genesys lost it"
    SETTINGS_DIFFER = "settings differ"
    RECHECK_OWED = "re-check owed"
    NO_INFORMATION = "no information"
    NOT_BEGUN = "not begun"
    PROVISIONING = "provisioning under way"
    UPDATING = "update under way"
    ROLLING_BACK = "rollback under way"
    ROLLED_BACK = "rolled back"
    OUTSIDE_MISSING = "outside is missing"
    TEARDOWN_DUE = "teardown due"
    TEARDOWN = "teardown under way"
    TEARDOWN_HELD = "teardown held"
    TEARDOWN_UNCONFIRMED = "teardown unconfirmed"
    NEXT_LIFE = "installed again during a teardown"
    UNASKED = "outside holds what was never told"
    OUTSIDE_UNREAD = "outside not read"
    ORPHAN = "outside holds what nobody desires"


@dataclass(frozen=True, slots=True)
class DifferenceRule:
    """The decision about a difference.

    Attributes:
        decision: The act, as a part of a sentence.
        by: The actor.
    """

    decision: str
    by: Actor


BETWEEN_GENESYS: Final[Mapping[tuple[GenesysState, DesiredState], Difference]] = {
    (GenesysState.INSTALLED, DesiredState.INSTALLED): Difference.AGREES,
    (GenesysState.INSTALLED, DesiredState.GONE): Difference.INSTALL_LOST,
    (GenesysState.INSTALLED, DesiredState.NEVER): Difference.INSTALL_LOST,
    (GenesysState.CHANGED, DesiredState.INSTALLED): Difference.SETTINGS_DIFFER,
    (GenesysState.CHANGED, DesiredState.GONE): Difference.INSTALL_LOST,
    (GenesysState.CHANGED, DesiredState.NEVER): Difference.INSTALL_LOST,
    (GenesysState.GONE, DesiredState.INSTALLED): Difference.GENESYS_LOST,
    (GenesysState.GONE, DesiredState.GONE): Difference.AGREES,
    (GenesysState.GONE, DesiredState.NEVER): Difference.AGREES,
    (GenesysState.UNKNOWN, DesiredState.INSTALLED): Difference.NO_INFORMATION,
    (GenesysState.UNKNOWN, DesiredState.GONE): Difference.NO_INFORMATION,
    (GenesysState.UNKNOWN, DesiredState.NEVER): Difference.NO_INFORMATION,
}
"""The difference between Genesys and the view, for every pair of states."""

_GOING: Final = Difference.TEARDOWN_DUE
_NEVER: Final = Difference.UNASKED
BETWEEN_OUTSIDE: Final[Mapping[tuple[DesiredState, OutsideState], Difference]] = {
    (DesiredState.INSTALLED, OutsideState.NOTHING): Difference.NOT_BEGUN,
    (DesiredState.INSTALLED, OutsideState.BUILDING): Difference.PROVISIONING,
    (DesiredState.INSTALLED, OutsideState.WHOLE): Difference.AGREES,
    (DesiredState.INSTALLED, OutsideState.CHANGING): Difference.UPDATING,
    (DesiredState.INSTALLED, OutsideState.UNDOING): Difference.ROLLING_BACK,
    (DesiredState.INSTALLED, OutsideState.ROLLED_BACK): Difference.ROLLED_BACK,
    (DesiredState.INSTALLED, OutsideState.REMOVING): Difference.NEXT_LIFE,
    (DesiredState.INSTALLED, OutsideState.HELD): Difference.NEXT_LIFE,
    (DesiredState.INSTALLED, OutsideState.UNCONFIRMED): Difference.NEXT_LIFE,
    (DesiredState.INSTALLED, OutsideState.MISSING): Difference.OUTSIDE_MISSING,
    (DesiredState.INSTALLED, OutsideState.UNKNOWN): Difference.OUTSIDE_UNREAD,
    (DesiredState.GONE, OutsideState.NOTHING): Difference.AGREES,
    (DesiredState.GONE, OutsideState.BUILDING): _GOING,
    (DesiredState.GONE, OutsideState.WHOLE): _GOING,
    (DesiredState.GONE, OutsideState.CHANGING): _GOING,
    (DesiredState.GONE, OutsideState.UNDOING): Difference.ROLLING_BACK,
    (DesiredState.GONE, OutsideState.ROLLED_BACK): Difference.AGREES,
    (DesiredState.GONE, OutsideState.REMOVING): Difference.TEARDOWN,
    (DesiredState.GONE, OutsideState.HELD): Difference.TEARDOWN_HELD,
    (DesiredState.GONE, OutsideState.UNCONFIRMED): Difference.TEARDOWN_UNCONFIRMED,
    (DesiredState.GONE, OutsideState.MISSING): _GOING,
    (DesiredState.GONE, OutsideState.UNKNOWN): Difference.OUTSIDE_UNREAD,
    (DesiredState.NEVER, OutsideState.NOTHING): Difference.AGREES,
    (DesiredState.NEVER, OutsideState.BUILDING): _NEVER,
    (DesiredState.NEVER, OutsideState.WHOLE): _NEVER,
    (DesiredState.NEVER, OutsideState.CHANGING): _NEVER,
    (DesiredState.NEVER, OutsideState.UNDOING): Difference.ROLLING_BACK,
    (DesiredState.NEVER, OutsideState.ROLLED_BACK): Difference.AGREES,
    (DesiredState.NEVER, OutsideState.REMOVING): Difference.TEARDOWN,
    (DesiredState.NEVER, OutsideState.HELD): Difference.TEARDOWN_HELD,
    (DesiredState.NEVER, OutsideState.UNCONFIRMED): Difference.TEARDOWN_UNCONFIRMED,
    (DesiredState.NEVER, OutsideState.MISSING): _NEVER,
    (DesiredState.NEVER, OutsideState.UNKNOWN): Difference.OUTSIDE_UNREAD,
}
"""The difference between the view and the outside systems, for every pair of states."""

BY_LOCK: Final[Mapping[Lock, DifferenceRule]] = {
    Lock.FREE: DifferenceRule("published by the next run", Actor.RECONCILER),
    Lock.SECOND_LOOK: DifferenceRule("published once it counts", Actor.RECONCILER),
    Lock.BRAKE: DifferenceRule("held by the brake: approve or refuse the removals", Actor.OPERATOR),
    Lock.REFUSED: DifferenceRule("refused: the tenant stays", Actor.NOBODY),
    Lock.NEW_ORGANISATION: DifferenceRule("held: approve the new tenants of the organisation", Actor.OPERATOR),
}
"""The decision about a difference between Genesys and the view, by the lock."""

RULES: Final[Mapping[Difference, DifferenceRule]] = {
    Difference.NO_INFORMATION: DifferenceRule("nothing is concluded; read again by the next run", Actor.NOBODY),
    Difference.NOT_BEGUN: DifferenceRule("provisioned with its newest version", Actor.PROVISIONER),
    Difference.PROVISIONING: DifferenceRule("goes on by itself", Actor.PROVISIONER),
    Difference.UPDATING: DifferenceRule("goes on by itself", Actor.PROVISIONER),
    Difference.ROLLING_BACK: DifferenceRule("everything begun is undone", Actor.PROVISIONER),
    Difference.ROLLED_BACK: DifferenceRule("provisioned again after a wait", Actor.PROVISIONER),
    Difference.OUTSIDE_MISSING: DifferenceRule("named only: the next change of the tenant may make it", Actor.OPERATOR),
    Difference.TEARDOWN_DUE: DifferenceRule("torn down with its newest version", Actor.PROVISIONER),
    Difference.TEARDOWN: DifferenceRule("goes on by itself", Actor.PROVISIONER),
    Difference.TEARDOWN_HELD: DifferenceRule(
        "held by the provisioner's brake: approve or refuse the removals", Actor.OPERATOR
    ),
    Difference.TEARDOWN_UNCONFIRMED: DifferenceRule(
        "held: Genesys is asked until it confirms the removal, or the integration is installed again", Actor.PROVISIONER
    ),
    Difference.NEXT_LIFE: DifferenceRule("the teardown ends first, or is taken back", Actor.PROVISIONER),
    Difference.UNASKED: DifferenceRule("stays: without an uninstall nothing is removed", Actor.NOBODY),
    Difference.OUTSIDE_UNREAD: DifferenceRule("nothing is concluded", Actor.NOBODY),
    Difference.ORPHAN: DifferenceRule("removed by command only, once seen twice", Actor.OPERATOR),
}
"""The decision about every difference without a lock."""
