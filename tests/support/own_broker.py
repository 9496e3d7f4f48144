"""A broker for one test alone, with settings of its own: the run's is shared by all tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without `as`
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from services.engines import jars, java
from services.engines.kafka import KafkaBroker
from tests.support.eventually import eventually

AUTO_CREATE = {"auto.create.topics.enable": "true"}
"""Kafka's own default."""


@contextmanager
def own_broker(folder: Path, **settings: str) -> Iterator[KafkaBroker]:
    """Start it, and stop it whatever happened."""
    files = jars.fetch(jars.pinned(), jars.cache_folder(os.environ))
    broker = KafkaBroker(folder / "kafka", java.find(os.environ), files, os.environ, settings=settings)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def topics_of(broker: KafkaBroker) -> set[str]:
    """The names of all topics but Kafka's own."""
    names = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=20).topics
    return {name for name in names if not name.startswith("__")}


def drop(broker: KafkaBroker, *names: str) -> None:
    """Delete topics, and return when they are gone."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})  # it must outlive its answers
    for future in (admin.delete_topics(list(names)) if names else {}).values():
        future.result(30)
    eventually(lambda: not topics_of(broker) & set(names))


def set_to(bootstrap: str, topic: str, name: str, value: str) -> None:
    """Change a setting of a topic."""
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.incremental_alter_configs([change]).values():
        future.result(20)
