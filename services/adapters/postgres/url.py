"""Checks a database's URL before the first session: libpq's own message would quote the URL, and so a password."""

import psycopg
from psycopg.conninfo import conninfo_to_dict

from services.adapters.process.errors import Unusable


def usable(name: str, url: str) -> str:
    """Return the URL of a database unchanged, after a check that libpq can parse the URL.

    Args:
        name: The setting's name, for the error text.
        url: URL or connection string.

    Raises:
        Unusable: libpq cannot parse the URL. The text does not quote the URL or libpq, since both may show a password.
    """
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        fault = "no PostgreSQL URL; percent-encode what is special in its user and password"
        raise Unusable(f"{name}: {fault}") from None
    return url
