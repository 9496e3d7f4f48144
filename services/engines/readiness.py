"""Asks a server whether it is really there: by the client its users will use, not by its port alone."""

import time
from collections.abc import Callable


def kafka_answers(bootstrap: str, timeout_s: float = 2.0) -> bool:
    """Whether a broker lists itself in its metadata."""
    from confluent_kafka import KafkaException  # noqa: PLC0415 - a tenth of a second, only when an engine starts
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    # log_level 0: while a broker starts, a refused connection is an answer and no news.
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
    """Whether a session opens and answers."""
    import psycopg  # noqa: PLC0415 - as above

    from services.adapters.postgres.silence import within  # noqa: PLC0415

    try:
        with psycopg.connect(url, connect_timeout=2) as session, within(2.0, session):
            return session.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def make_database(admin_url: str, name: str) -> None:
    """Create a database unless it is there."""
    import psycopg  # noqa: PLC0415 - as above
    from psycopg import sql  # noqa: PLC0415

    with psycopg.connect(admin_url, autocommit=True) as session:
        if not session.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def until(answered: Callable[[], bool], deadline_s: float, *, pause_s: float = 0.05) -> bool:
    """Ask again and again until it is so; False when `deadline_s` seconds were not enough."""
    end = time.monotonic() + deadline_s
    while not answered():
        if time.monotonic() > end:
            return False
        time.sleep(pause_s)
    return True
