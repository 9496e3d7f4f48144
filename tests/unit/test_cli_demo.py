"""A story that is cut short is a deviation of this story, and never the end of the demo."""

import subprocess
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import httpx2
import psycopg
import pytest

from services.adapters.kafka.producer import KafkaError
from services.cli.demo import demo
from services.cli.demo.scene import Scene, StoryContext
from services.cli.demo.stories import Story
from services.cli.demo.view import PublicRecords


class _Outside:
    def calls(self, _: str) -> list[Any]:
        raise httpx2.ConnectError("the simulator is away")


class _Stack:
    environ: Mapping[str, str] = MappingProxyType({})


def context() -> StoryContext:
    """The environment of a story that asks nobody."""
    unused = cast("Any", None)
    view = cast("Any", PublicRecords("p-"))
    return StoryContext(cast("Any", _Stack()), view, cast("Any", _Outside()), b"", unused, 1, unused)


@pytest.mark.parametrize(
    "error",
    [
        KafkaError("no broker answers"),
        psycopg.OperationalError("no"),
        httpx2.ReadTimeout("no"),
        KeyError("tenant"),
        ValueError("no JSON"),
        OSError("no fork"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_in_a_story_fails_this_story_only(error: Exception) -> None:
    def play(scene: Scene) -> None:
        scene.deviations.append("first")
        raise error

    deviations = demo._play(context(), Story("z", "a title", play))
    assert deviations == ["(z) first", f"(z) cut short by {type(error).__name__}: {error}"]


def test_a_report_without_the_simulator_fails_its_story_only() -> None:
    def play(scene: Scene) -> None:
        scene.integration("one")

    deviations = demo._play(context(), Story("z", "a title", play))
    assert deviations == ["(z) its table was cut short by ConnectError: the simulator is away"]


def test_an_interrupted_story_ends_the_demo() -> None:
    def play(_: Scene) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo._play(context(), Story("z", "a title", play))


def test_a_reconciliation_that_does_not_end_is_a_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, timeout: float, **__: Any) -> None:
        raise subprocess.TimeoutExpired("lifecycle", timeout, stderr=b"waiting for Kafka\n")

    monkeypatch.setattr(subprocess, "run", late)
    scene = Scene(context(), "z")
    assert scene.reconcile() == {}
    assert scene.deviations == ["reconcile did not end in 120 s: waiting for Kafka"]
