"""Every field of Genesys' answers that we read, with every value that a platform may send there, and what it costs.

Rule: a row names the calls, alters their true bodies, and says which keys it costs, or why the whole organisation.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tests.support.genesys_worlds import CONFIGURATION, ORG, integration_id

LISTED = range(5)
UNLISTED = range(5, 10)
"""In the view, and found by id alone: a listing may be older than the truth."""
EVERYBODY = (*LISTED, *UNLISTED)
ODD = (0, 1, 2)
ODD_BY_ID = (5, 6, 7)
_MISSING = object()

TYPES = {"null": None, "missing": _MISSING, "number": 7, "true": True, "list": [], "object": {}}
TEXTS = {"text": "text", "empty text": ""}


class OddField(NamedTuple):
    """One field of one call with one value.

    Attributes:
        path: Pattern of the calls whose bodies are altered.
        alter: From the true body to the odd one.
        unread: Numbers of the keys that it costs.
        whole: What the refusal of the whole organisation says, where it costs that.
    """

    path: str
    alter: Callable[[Any], Any]
    unread: tuple[int, ...] = ()
    whole: str = ""


def field(name: str, value: Any) -> Callable[[Any], Any]:
    def alter(body: Any) -> Any:
        kept = {key: old for key, old in body.items() if key != name}
        return kept if value is _MISSING else {**kept, name: value}

    return alter


def written(name: str, to: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda body: {**body, name: to(body[name])}


def of_entities(alter: Callable[[Any], Any], numbers: Iterable[int] = ODD) -> Callable[[Any], Any]:
    return lambda page: {
        **page,
        "entities": [alter(one) if number in numbers else one for number, one in enumerate(page["entities"])],
    }


def instead(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


ME, LISTING, TOKEN = "/api/v2/organizations/me", "/api/v2/integrations", "/login/oauth/token"
BY_ID = "|".join(f"{LISTING}/{integration_id(number)}" for number in ODD_BY_ID)
CONFIG = "|".join(f"{LISTING}/{integration_id(number)}/config/current" for number in ODD)

_BODIES: dict[str, Any] = {"null": None, "list": [], "text": "text", "number": 7, "true": True}
_NO_WHOLE = {name: value for name, value in {**TYPES, **TEXTS}.items() if name != "number"} | {"fraction": 1.5}
_INTEGER_AS = {"text": str, "float": float}

CASES: dict[str, OddField] = {
    **{f"me is {name}": OddField(ME, instead(value), whole="not a JSON object") for name, value in _BODIES.items()},
    **{f"me.id is {name}": OddField(ME, field("id", value), whole="id: must be text") for name, value in TYPES.items()},
    "me.id is text": OddField(ME, field("id", "text"), whole="another organisation"),
    "me.id is upper-case": OddField(ME, field("id", ORG.upper())),
    "me has more": OddField(ME, field("name", None)),
    **{
        f"token is {name}": OddField(TOKEN, instead(value), whole="not a JSON object")
        for name, value in _BODIES.items()
    },
    **{
        f"token.access_token is {name}": OddField(TOKEN, field("access_token", value), whole="not a token response")
        for name, value in {**TYPES, "empty": "", "two lines": "a\nb", "blank": "a b", "umlaut": "ä"}.items()
    },
    **{
        f"token.expires_in is {name}": OddField(TOKEN, field("expires_in", value))
        for name, value in {
            **TYPES,
            **TEXTS,
            "digits": "86400",
            "NaN": float("nan"),
            "zero": 0,
            "negative": -5,
            "endless": float("inf"),
        }.items()
    },
    **{f"token.token_type is {name}": OddField(TOKEN, field("token_type", value)) for name, value in TYPES.items()},
    **{
        f"listing is {name}": OddField(LISTING, instead(value), whole="not a JSON object")
        for name, value in _BODIES.items()
    },
    **{
        f"listing.entities is {name}": OddField(LISTING, field("entities", value), whole="entities: must be a list")
        for name, value in {**TYPES, **TEXTS}.items()
        if name != "list"
    },
    "listing.entities is empty": OddField(LISTING, field("entities", []), whole="empty"),
    **{
        f"listing.{name} is {kind}": OddField(LISTING, field(name, value), whole="must be whole numbers")
        for name in ("pageNumber", "total")
        for kind, value in _NO_WHOLE.items()
    },
    **{
        f"listing.{name} is a {kind}": OddField(LISTING, written(name, made))
        for name in ("pageNumber", "total")
        for kind, made in _INTEGER_AS.items()
    },
    "listing.total is zero": OddField(LISTING, field("total", 0), whole="empty"),
    "listing.total is negative": OddField(LISTING, field("total", -5), whole="incomplete: 5 of -5"),
    "listing.total is endless": OddField(LISTING, field("total", 10**400), whole="must be whole numbers"),
    "listing.total is too great": OddField(LISTING, field("total", 6), whole="incomplete: 5 of 6"),
    "listing.pageNumber is another": OddField(LISTING, field("pageNumber", 2), whole="another page"),
    **{
        f"listing.nextUri is {name}": OddField(LISTING, field("nextUri", value))
        for name, value in {"null": None, "missing": _MISSING, "empty": "", "false": False}.items()
    },
    # There is no second page to be answered: what it has is nothing, and then the listing ends.
    **{
        f"listing.nextUri is {name}": OddField(LISTING, field("nextUri", value))
        for name, value in {"more": "m", "true": True}.items()
    },
    **{f"entity is {name}": OddField(LISTING, of_entities(instead(value))) for name, value in _BODIES.items()},
    **{
        f"entity.id is {name}": OddField(LISTING, of_entities(field("id", value)))
        for name, value in {**TYPES, **TEXTS, "no dashes": "a" * 32, "a line more": integration_id(0) + "\n"}.items()
    },
    "entity.id is upper-case": OddField(LISTING, of_entities(lambda one: {**one, "id": one["id"].upper()})),
    "entity twice": OddField(
        LISTING,
        lambda page: {**page, "entities": [page["entities"][0], *page["entities"]], "total": 6},
        whole="incomplete: 5 of 6",
    ),
    **{
        f"entity.intendedState is {name}": OddField(LISTING, of_entities(field("intendedState", value)), unread=ODD)
        for name, value in {**TYPES, **TEXTS, "lower-case": "enabled", "new": "HIBERNATED"}.items()
    },
    # Whether a new integration is ours cannot be known then; those of the view are compared as they were.
    **{
        f"entity.integrationType is {name}": OddField(LISTING, of_entities(field("integrationType", value)))
        for name, value in {**TYPES, **TEXTS}.items()
    },
    **{
        f"entity.integrationType.id is {name}": OddField(LISTING, of_entities(field("integrationType", {"id": value})))
        for name, value in TYPES.items()
        if value is not _MISSING
    },
    **{f"entity.{name} is there": OddField(LISTING, of_entities(field(name, None))) for name in ("name", "config")},
    **{f"by id is {name}": OddField(BY_ID, instead(value), unread=ODD_BY_ID) for name, value in _BODIES.items()},
    **{
        f"by id .{part} is {name}": OddField(BY_ID, field(part, value), unread=ODD_BY_ID)
        for part in ("id", "intendedState")
        for name, value in {**TYPES, **TEXTS}.items()
    },
    "by id is another": OddField(BY_ID, field("id", integration_id(99)), unread=ODD_BY_ID),
    **{f"config is {name}": OddField(CONFIG, instead(value), unread=ODD) for name, value in _BODIES.items()},
    **{
        f"config.properties is {name}": OddField(CONFIG, field("properties", value), unread=ODD)
        for name, value in {**TYPES, **TEXTS}.items()
        if name != "object"
    },
    **{
        f"config.properties has {name}": OddField(
            CONFIG, field("properties", {**CONFIGURATION, "more": value}), unread=ODD
        )
        for name, value in {"NaN": float("nan"), "2^60": 2**60, "half a pair": "\ud800"}.items()
    },
    **{
        f"config.{name} is {kind}": OddField(CONFIG, field(name, value))
        for name in ("version", "credentials", "advanced", "notes")
        for kind, value in TYPES.items()
    },
}
