"""Runs `lifecycle demo`: starts a whole installation in a temporary folder, plays the stories, and reports deviations.

Rule: the installation is equal to that of `lifecycle up`, with real engines and real processes. A single setting
differs from production, and the report says so: the reconciler takes its second look after 2 s instead of 600 s.
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
"""RECONCILE_SECOND_LOOK_S of the demo, in seconds."""


def demo(environ: Mapping[str, str], letters: tuple[str, ...], orgs: int, *, keep: bool) -> Exit:
    """Plays stories and prints a verdict. Blocks until the end; needs the main thread, for its signal handlers.

    The temporary folder is removed after a run without deviations, and kept otherwise.

    Args:
        environ: Environment of this process; may name engines.
        letters: Letters of the stories to play; empty plays all.
        orgs: Number of organisations in the burst story.
        keep: True keeps the installation running after the stories, until Ctrl-C.

    Returns:
        OK, or DEVIATION if a story deviated.

    Raises:
        EngineError: An engine cannot be started.
        CommandError: A letter names no story, or a part of the installation did not become ready.
    """
    selected = _selected_stories(letters)
    began = time.monotonic()
    state_dir = Path(tempfile.mkdtemp(prefix="lifecycle-demo-"))
    # mkdtemp gives 0700. If this process is root, PostgreSQL runs as a second user, who must be able to enter.
    state_dir.chmod(0o711)
    deviations: list[str] | None = None  # None until all stories have ended: an interrupted run keeps its logs
    try:
        with interruptible(), stack(state_dir, isolated_environment(environ), report=say, progress=Download()) as built:
            report.opening(built, time.monotonic() - began, SECOND_LOOK_S)
            with story_context(built, orgs) as context:
                deviations = [
                    text for story in selected for text in _play(context, story)
                ] + context.view.contradictions
            report.closing(deviations, len(selected), time.monotonic() - began)
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
def story_context(built: Stack, orgs: int) -> Iterator[StoryContext]:
    """Opens the connections that stories and tests need to an installation; closes the connections at the end."""
    settings = built.settings
    secret = keyring.raw(keyring.load(built.folders.keyring).endpoints["default"].current.secret)
    with (
        httpx2.Client(timeout=30.0, trust_env=False) as client,
        PublicView(settings.kafka, settings.topic_prefix) as view,
        Progress() as progress,
    ):
        outside = Outside(built.simulator, built.addresses.database, client)
        yield StoryContext(built, view, outside, secret, client, orgs, progress)


def _selected_stories(letters: tuple[str, ...]) -> list[Story]:
    """Returns the stories with the given letters, or all stories.

    Raises:
        CommandError: A letter names no story.
    """
    by_letter = {story.letter: story for story in STORIES}
    unknown = [letter for letter in letters if letter not in by_letter]
    if unknown:
        raise CommandError(Exit.UNUSABLE, f"--story: no story {', '.join(unknown)}; there are {', '.join(by_letter)}")
    return [by_letter[letter] for letter in letters] if letters else list(STORIES)


def isolated_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment without the operator's outside systems: the demo must change none of those systems."""
    own = {name: text for name, text in environ.items() if name not in OUTSIDE}
    return {**own, "RECONCILE_SECOND_LOOK_S": str(SECOND_LOOK_S)}


def _play(context: StoryContext, story: Story) -> list[str]:
    """Plays a story, prints the report of the story, and returns the deviations."""
    scene = Scene(context, story.letter)
    try:
        story.play(scene)
    # Whatever ends a story (Kafka, PostgreSQL, the simulator, a tenant missing in the view) is a deviation of this
    # story; the next stories are still played.
    except Exception as error:  # noqa: BLE001 - see above
        scene.deviations.append(f"cut short by {type(error).__name__}: {error}")
    try:
        report.story(story, scene)
    # The table asks the simulator for the calls, which may be away for the same reason.
    except (httpx2.HTTPError, ValueError) as error:
        scene.deviations.append(f"its table was cut short by {type(error).__name__}: {error}")
    return [f"({story.letter}) {text}" for text in scene.deviations]


def _until_interrupted() -> None:
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
