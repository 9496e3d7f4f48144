"""Tests the readiness of a server with the client library of the services.

An open port is not enough: a starting or hanging server may accept connections and answer nothing.
"""

import time
from collections.abc import Callable


def kafka_answers(bootstrap: str, timeout_s: float = 2.0) -> bool:
    """True if the metadata of `bootstrap` list at least one broker. Blocks for at most about `timeout_s` seconds."""
    # Imported here, since the import takes a tenth of a second that only a start of an engine should cost.
    from confluent_kafka import KafkaException  # noqa: PLC0415
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    # log_level 0: librdkafka would log every refused connection, and refusals are expected while a broker starts.
    config: dict[str, str | int | float | bool] = {
        "bootstrap.servers": bootstrap,
        "log_level": 0,
        "socket.connection.setup.timeout.ms": 2000,
    }
    try:
        with AdminClient(config) as client:
            return bool(client.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


def postgres_answers(url: str) -> bool:
    """True if the server opens a session and answers a query, each within 2 s."""
    import psycopg  # noqa: PLC0415 - as above

    from services.adapters.postgres.silence import within  # noqa: PLC0415

    try:
        # connect_timeout covers the login alone; `within` ends a session whose server falls silent after the login.
        with psycopg.connect(url, connect_timeout=2) as session, within(2.0, session):
            return session.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def make_database(admin_url: str, name: str) -> None:
    """Creates the database `name` unless the server has the database.

    Raises:
        psycopg.Error: The server cannot be reached or refuses.
    """
    import psycopg  # noqa: PLC0415 - as above
    from psycopg import sql  # noqa: PLC0415

    # autocommit: PostgreSQL refuses CREATE DATABASE inside a transaction, and has no IF NOT EXISTS for databases.
    with psycopg.connect(admin_url, autocommit=True) as session:
        if not session.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def until(answered: Callable[[], bool], deadline_s: float, *, pause_s: float = 0.05) -> bool:
    """Polls `answered` every `pause_s` seconds; returns True at the first success, False after `deadline_s` seconds."""
    end = time.monotonic() + deadline_s
    while not answered():
        if time.monotonic() > end:
            return False
        time.sleep(pause_s)
    return True
