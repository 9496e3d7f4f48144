"""The stories of the demo, each a function of a scene; `STORIES` is the programme.

A story reads only the public topics, the simulator and PostgreSQL, and writes only signed webhooks and the state of the
simulator's Genesys. The stories are independent: each has organisations of its own, and may be played alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

from services.cli.demo.scene import Scene
from services.cli.demo.stories.burst import burst
from services.cli.demo.stories.disorder import late_uninstall, repeated, uninstalled_first
from services.cli.demo.stories.drift import drift
from services.cli.demo.stories.life import guide, refused, whole_life


@dataclass(frozen=True, slots=True)
class Story:
    """One story of the programme.

    Attributes:
        letter: Value of the option `--story`.
        title: Title in the report.
        play: Plays the story; deviations go into the scene.
    """

    letter: str
    title: str
    play: Callable[[Scene], None]


STORIES = (
    Story("a", "The guide's own request: installed, then active", guide),
    Story("b", "One delivery six times, with drifting timestamps and retry metadata: one tenant", repeated),
    Story("c", "Uninstalled before installed: nobody is called", uninstalled_first),
    Story("d", "A whole life: everything gone at its end, the audit trail archived", whole_life),
    Story("e", "The CRM refuses the OAuth secret: compensated; a corrected one makes it active", refused),
    Story("f", "A late uninstall after a reinstall: the new tenant stands", late_uninstall),
    Story("g", "An organisation storm: all install in one burst", burst),
    Story("h", "Drift in Genesys without any webhook: the reconciler aligns both", drift),
)
