"""Fixtures of every test: a real Kafka and a real PostgreSQL shared by the run, with separate names per test.

Rule: no engine is a failure, never a skip; and a test that asks for none starts none.
"""

import os
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from services import engines
from tests.support.engines_of_the_run import Engines, OwnEngines, asked_with

_OWN = pytest.StashKey[OwnEngines]()
_ENGINES = pytest.StashKey[Engines]()


def pytest_configure(config: pytest.Config) -> None:
    """Own the engines, or, in a worker of pytest-xdist, know whom to ask."""
    ticket = getattr(config, "workerinput", {}).get("engines")
    if ticket is None:
        config.stash[_ENGINES] = config.stash[_OWN] = OwnEngines()
    else:
        config.stash[_ENGINES] = asked_with(ticket)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker whom to ask."""
    node.workerinput["engines"] = node.config.stash[_OWN].ticket


_LAST = ("contract", "property", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits for engines, the largest files first: what begins last should not be what ends last."""
    items.sort(key=lambda item: (item.path.parent.name in _LAST, -item.path.stat().st_size))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch before the first test what a selected test will need; engines themselves start when asked for."""
    needs_kafka = any("kafka_bootstrap" in getattr(item, "fixturenames", ()) for item in session.items)
    if needs_kafka and not session.config.option.collectonly:
        session.config.stash[_ENGINES].fetch()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started."""
    if own := config.stash.get(_OWN, None):
        own.close()


def pytest_report_header() -> str:
    """Say which engines this run would use."""
    return f"engines: {engines.choose(os.environ)}"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which engines this run did use."""
    for text in config.stash[_ENGINES].chosen():
        terminalreporter.write_line(f"engine used: {text}")


@pytest.fixture(scope="session")
def kafka_bootstrap(pytestconfig: pytest.Config) -> str:
    """`host:port` of the run's Kafka. Topics are shared by all tests: put `topic_prefix` before each name."""
    return pytestconfig.stash[_ENGINES].kafka_bootstrap()


@pytest.fixture(scope="session")
def database_admin_url(pytestconfig: pytest.Config) -> str:
    """URL of a PostgreSQL role that may create databases and roles. Roles are shared by all tests."""
    return pytestconfig.stash[_ENGINES].database_url()


@pytest.fixture
def topic_prefix() -> str:
    """A prefix no other test uses, for topics, groups and Faust application ids."""
    return f"t{secrets.token_hex(5)}-"


@pytest.fixture
def database_url(database_admin_url: str) -> Iterator[str]:
    """URL of an empty database for this test alone, with the rights of the administrator; dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(database_admin_url, autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield urlsplit(database_admin_url)._replace(path=f"/{name}").geturl()
    with psycopg.connect(database_admin_url, autocommit=True) as session:
        session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
