"""Reads the timeline of a key from the public topics."""

from collections.abc import Mapping
from typing import Any

from schemas.topics import named
from schemas.values import Key
from services.adapters.kafka import reader
from services.core.timeline import TOPICS, TimelineEntry, timeline


def read(key: Key, config: Mapping[str, Any], prefix: str) -> list[TimelineEntry]:
    """Returns the timeline of a key up to the present ends of the topics; empty for an unknown key. Blocks.

    Args:
        key: `orgId:integrationId`.
        config: librdkafka's connection settings.
        prefix: Prefix of the installation's topics.

    Raises:
        KafkaError: The topics cannot be read.
    """
    topics = {named(topic, prefix): topic for topic in TOPICS}
    return timeline((record for record in reader.present_records(config, list(topics)) if record.key == key), topics)
