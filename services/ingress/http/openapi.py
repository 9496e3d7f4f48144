"""The OpenAPI 3.1 document of webhooks and hints, built from the bodies' schemas and the tables of answers."""

from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version
from itertools import groupby
from typing import Any, Final

from schemas.hint import PATH, SECRET_HEADER
from schemas.hint_schema import ENVELOPE
from schemas.webhook_schema import BODY
from schemas.webhook_sent import SIGNATURE, TIMESTAMP
from services.ingress.http import answers
from services.ingress.http.answers import Answer

_REF: Final = "#/components/schemas/"
_HEADERS: Final = (
    (
        SIGNATURE,
        "Hex HMAC-SHA256 of the raw body under the endpoint's secret.",
        r"^(sha256=)?[0-9A-Fa-f]{64}$",
    ),
    (TIMESTAMP, "RFC 3339; not covered by the signature.", None),
)
_STATUS: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"enum": [*(a.reason for a in answers.TABLE if a.status == HTTPStatus.OK), "ignored"]}},
}
_PROBLEM: Final[dict[str, Any]] = {
    "description": "RFC 9457; `field` names the field that is not the schema.",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
    },
}


def document() -> dict[str, Any]:
    """Returns the whole OpenAPI document."""
    endpoint = {"name": "endpoint", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Genesys lifecycle webhooks",
            "version": version("genesys-lifecycle"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/genesys/lifecycle/{endpoint}": _path("receive", [endpoint]),
            "/v1/genesys/lifecycle": _path("receiveDefault", []),
            "/api/v1/genesys/lifecycle": _path("receiveDefaultApi", []),
            PATH + "{endpoint}": _hint_path(endpoint),
        },
        "components": {
            "schemas": {"Webhook": BODY, "Hint": ENVELOPE, "Status": _STATUS, "Problem": _PROBLEM},
            "securitySchemes": {
                "secretHeader": {"type": "apiKey", "in": "header", "name": SECRET_HEADER},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _hint_path(endpoint: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"{_REF}Hint"}}}
    return {
        "post": {
            "operationId": "hint",
            "summary": "Ask for a read of one integration. 200 means that this is durable, or that nothing is asked.",
            "security": [{"secretHeader": []}, {"bearer": []}],
            "parameters": [endpoint],
            "requestBody": {"required": True, "content": content},
            "responses": _responses((*answers.HINTS, answers.malformed("field", "rule"))),
        }
    }


def _path(operation_id: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    headers = [
        {
            "name": name,
            "in": "header",
            "required": True,
            "description": meaning,
            "schema": {"type": "string", **({"pattern": shape} if shape else {"format": "date-time"})},
        }
        for name, meaning, shape in _HEADERS
    ]
    content = {"application/json": {"schema": {"$ref": f"{_REF}Webhook"}}}
    return {
        "post": {
            "operationId": operation_id,
            "summary": "Tell one lifecycle event. 200 means that it is durable.",
            "parameters": [*parameters, *headers],
            "requestBody": {"required": True, "content": content},
            "responses": _responses(answers.TABLE),
        }
    }


def _responses(given: Iterable[Answer]) -> dict[str, Any]:
    table = sorted(given, key=lambda answer: answer.status)
    return {str(status): _response(tuple(same)) for status, same in groupby(table, key=lambda answer: answer.status)}


def _response(same: tuple[Answer, ...]) -> dict[str, Any]:
    good = same[0].status == HTTPStatus.OK
    kind, schema = ("application/json", "Status") if good else ("application/problem+json", "Problem")
    return {
        "description": HTTPStatus(same[0].status).phrase,
        "content": {kind: {"schema": {"$ref": _REF + schema}}},
    }
