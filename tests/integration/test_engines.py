"""The engines are real, come back on their folder, die with their parent, and say what to do when there are none."""

import psycopg
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic


def test_a_record_written_to_kafka_is_read_back(kafka_bootstrap: str, topic_prefix: str) -> None:
    topic = f"{topic_prefix}echo"
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    producer.produce(topic, b"value", b"key")
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": kafka_bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    record = consumer.poll(30)
    consumer.close()
    assert record is not None
    assert (record.key(), record.value()) == (b"key", b"value")


def test_each_test_has_a_database_of_its_own(database_url: str) -> None:
    with psycopg.connect(database_url) as session:
        session.execute("CREATE TABLE alone (id int)")
        row = session.execute(
            "SELECT current_setting('server_version_num')::int / 10000, rolcreatedb FROM pg_roles WHERE rolname = user"
        ).fetchone()
    assert row == (18, True)
