"""A password of any characters reaches the URL of a database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from services.adapters.process.environment import read
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import Settings

ODD = ("p@ss", "p/w", "a:b", "#hash", "50%", "%2F", "a?b=c", "it's", "back\\slash", " blank ", "ü", "@:/#?%")
PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
URL = "postgresql://lifecycle@postgres:5432/lifecycle"


def of(url: str, password: str) -> dict[str, object]:
    """Libpq's reading of the completed URL."""
    found = read({"DATABASE_URL": url, "DATABASE_PASSWORD": password}, Settings).database_url
    assert found is not None
    return dict(conninfo_to_dict(found))


@pytest.mark.parametrize("password", ODD)
def test_a_password_given_apart_reaches_libpq_unchanged(password: str) -> None:
    address = {"host": "postgres", "port": "5432", "dbname": "lifecycle"}
    assert of(URL, password) == {"user": "lifecycle", "password": password, **address}


@given(password=PASSWORDS)
def test_any_generated_password_reaches_libpq_unchanged(password: str) -> None:
    assert of(URL, password)["password"] == password
    assert of("host=postgres user=lifecycle", password) == {
        "host": "postgres",
        "user": "lifecycle",
        "password": password,
    }


def test_a_url_without_user_or_password_takes_the_password_given_apart() -> None:
    assert of("postgresql://postgres/lifecycle", "p@") == {"host": "postgres", "dbname": "lifecycle", "password": "p@"}
    assert of("postgres://u:@h/d?sslmode=require", "p@") == {
        "user": "u",
        "password": "p@",
        "host": "h",
        "dbname": "d",
        "sslmode": "require",
    }
    assert of("postgresql://u@a:1,b:2/d", "p@")["host"] == "a,b"


def test_a_password_in_the_url_wins_over_one_given_apart() -> None:
    assert of("postgresql://u:own@h/d", "other")["password"] == "own"
    assert of("host=h password=own", "other")["password"] == "own"


def test_each_database_has_a_password_of_its_own() -> None:
    names = {"DATABASE_URL": URL, "TENANT_DATABASE_URL": URL, "TENANT_DATABASE_PASSWORD": "t/t"}
    settings = read(names, Settings)
    assert settings.database_url == URL
    assert str(settings.tenant_database_url).startswith("postgresql://lifecycle:t%2Ft@")


@pytest.mark.parametrize("password", ["p@ss", "p/w", "/", "a@b@c"])
@pytest.mark.parametrize("name", ["DATABASE_URL", "TENANT_DATABASE_URL"])
def test_a_url_with_an_unescaped_password_is_refused_by_name(name: str, password: str) -> None:
    with pytest.raises(Unusable, match=f"^{name}: .*{name.replace('URL', 'PASSWORD')}$") as refused:
        read({name: f"postgresql://lifecycle:{password}@postgres:5432/lifecycle"}, Settings)
    assert "postgres:5432" not in str(refused.value)


def test_an_at_sign_in_the_options_of_a_url_is_accepted() -> None:
    url = "postgresql://u:p@h/d?application_name=a@b"
    assert read({"DATABASE_URL": url}, Settings).database_url == url


def test_faults_of_urls_and_other_settings_are_reported_together() -> None:
    with pytest.raises(Unusable) as refused:
        read({"DATABASE_URL": "postgresql://u:a@b@h/d", "PORT": "here"}, Settings)
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == ["DATABASE_URL", "PORT"]


@pytest.mark.parametrize("password", ["a?b", "?", "a?b=c", "12?3"])
def test_a_question_mark_in_a_url_s_password_is_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(Unusable, match="percent-encode") as refused:
        read({"DATABASE_URL": f"postgresql://canary:{password}@host:5432/d"}, Settings)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["postgresql://host?user=a@b", "postgresql://[::1]:5432?user=a@b", "postgresql://a:1,b:2?user=c@d"]
)
def test_an_at_sign_in_a_query_parameter_is_accepted(url: str) -> None:
    assert read({"DATABASE_URL": url}, Settings).database_url == url
