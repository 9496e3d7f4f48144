"""`lifecycle demo`: plays the stories on a whole installation in a temporary folder, shows them, and judges.

Rule: the installation is the one `up` makes, with real engines and real processes. One setting is other than in
production, and it says so: the reconciler looks again after 2 s instead of 600.
"""

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Final

import httpx2
import psycopg

from services.adapters.secrets import keyring
from services.cli.demo import report
from services.cli.demo.outside import Outside
from services.cli.demo.scene import Scene, StoryContext
from services.cli.demo.stories import STORIES, Story
from services.cli.demo.view import PublicView
from services.cli.exits import CommandError, Exit
from services.cli.local.stack import Stack, stack
from services.cli.local.up import interruptible
from services.cli.local.wiring import OUTSIDE
from services.cli.show import Download, Progress, say

SECOND_LOOK_S: Final = 2


def demo(environ: Mapping[str, str], letters: tuple[str, ...], orgs: int, *, keep: bool) -> Exit:
    """Play stories and judge them.

    Args:
        environ: Our environment; it may name engines.
        letters: Which stories; none named means all.
        orgs: How many organisations install in the burst.
        keep: Keep everything running afterwards, until Ctrl-C.

    Returns:
        OK, or DEVIATION when anything was not as it should be.

    Raises:
        EngineError: an engine cannot be had.
        Failure: no such story, or something did not become ready; the logs are kept, and named.
    """
    chosen = _chosen(letters)
    began = time.monotonic()
    state_dir = Path(tempfile.mkdtemp(prefix="lifecycle-demo-"))
    # Where we are root PostgreSQL is somebody else, and keeps its data here only if it may walk in.
    state_dir.chmod(0o711)
    deviations: list[str] | None = None
    try:
        with interruptible(), stack(state_dir, alone(environ), report=say, progress=Download()) as built:
            report.opening(built, time.monotonic() - began, SECOND_LOOK_S)
            with world(built, orgs) as where:
                deviations = [text for story in chosen for text in _play(where, story)] + where.view.contradictions
            report.closing(deviations, len(chosen), time.monotonic() - began)
            if keep:
                report.kept(built)
                _until_interrupted()
    finally:
        if deviations == []:
            rmtree(state_dir, ignore_errors=True)
        else:
            say(f"logs are kept in {state_dir / 'logs'}")
    return Exit.DEVIATION if deviations else Exit.OK


@contextmanager
def world(built: Stack, orgs: int) -> Iterator[StoryContext]:
    """An installation as stories, and tests, see it."""
    settings = built.settings
    secret = keyring.raw(keyring.load(built.folders.keyring).endpoints["default"].current.secret)
    with (
        httpx2.Client(timeout=30.0, trust_env=False) as client,
        PublicView(settings.kafka, settings.topic_prefix) as view,
        Progress() as progress,
    ):
        outside = Outside(built.simulator, built.addresses.database, client)
        yield StoryContext(built, view, outside, secret, client, orgs, progress)


def _chosen(letters: tuple[str, ...]) -> list[Story]:
    known = {story.letter: story for story in STORIES}
    unknown = [letter for letter in letters if letter not in known]
    if unknown:
        raise CommandError(Exit.UNUSABLE, f"--story: no story {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[letter] for letter in letters] if letters else list(STORIES)


def alone(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the demo, which must never reach the outside systems of the operator's."""
    own = {name: text for name, text in environ.items() if name not in OUTSIDE}
    return {**own, "RECONCILE_SECOND_LOOK_S": str(SECOND_LOOK_S)}


def _play(where: StoryContext, story: Story) -> list[str]:
    scene = Scene(where, story.letter)
    try:
        story.play(scene)
    except (httpx2.HTTPError, psycopg.Error, KeyError) as error:
        scene.deviations.append(f"cut short by {type(error).__name__}: {error}")
    report.story(story, scene)
    return [f"({story.letter}) {text}" for text in scene.deviations]


def _until_interrupted() -> None:
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
