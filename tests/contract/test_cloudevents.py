"""The CloudEvents library reads every published record, and the codec reads an event written by the library."""

import json
from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from schemas import codec, webhook
from schemas.codec import Message
from schemas.values import Record
from tests.support.samples import KEY, SAMPLES

AT_US = 1_705_329_130_123_456


def _read(message: Message) -> CloudEvent:
    found = from_binary(KafkaMessage(dict(message.headers), message.key, message.value), JSONFormat())
    assert isinstance(found, CloudEvent)
    return found


@pytest.mark.parametrize("record", SAMPLES, ids=lambda record: type(record).__name__)
def test_a_published_record_is_a_cloud_event(record: Record) -> None:
    message = codec.encode(
        record, key=KEY, ce_id=f"{KEY}/e:1", source="/genesys-lifecycle/ledger", at_us=AT_US, trace="x"
    )
    event = _read(message)
    assert event.get_id() == f"{KEY}/e:1"
    assert event.get_source() == "/genesys-lifecycle/ledger"
    assert event.get_type() == type(record).ce_type  # type: ignore[attr-defined]  # every concrete record has one
    assert event.get_specversion() == "1.0"
    assert event.get_datacontenttype() == "application/json"
    assert event.get_time() == datetime(2024, 1, 15, 14, 32, 10, 123_456, tzinfo=UTC)
    assert event.get_extension("partitionkey") == KEY
    assert event.get_data() == json.loads(message.value)


def test_a_received_delivery_is_a_cloud_event() -> None:
    beside = [("endpoint", b"default")]
    message = codec.received(b'{"a": 1}', key=KEY, ce_id="d" * 64, received_at_us=AT_US, beside=beside)
    event = _read(message)
    assert event.get_type() == webhook.CE_TYPE
    assert event.get_data() == {"a": 1}


@pytest.mark.parametrize("record", SAMPLES, ids=lambda record: type(record).__name__)
def test_the_codec_reads_an_event_that_the_cloudevents_library_wrote(record: Record) -> None:
    data = json.loads(codec.dump(record))
    ours = {"id": "1", "source": "/x", "type": type(record).ce_type, "datacontenttype": "application/json"}  # type: ignore[attr-defined]  # every concrete record has one
    written = to_binary(CloudEvent(ours, data), JSONFormat(), lambda _: KEY)
    assert codec.decode(type(record), written.value) == record
    assert codec.texts(list(written.headers.items()))["ce_type"] == ours["type"]
