"""An example of each fault, for `lifecycle simulator --help`, docs/simulator.md and the test that plays them.

Rule: an example is a fault as JSON, a request that meets the fault, and a text that the answer then shows. The module
imports nothing of the simulator, since `--help` reads the examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class FaultExample:
    """An example of a fault.

    Attributes:
        does: Effect of the fault.
        fault: Body of `POST /faults`.
        asks: Shell command that meets the fault; `api` and `call` are the functions of `SETUP`.
        shows: Text in the output of the command.
    """

    does: str
    fault: str
    asks: str
    shows: str

    def command(self) -> str:
        """Returns the shell command that sets the fault."""
        return f"curl -s $SIM/faults -d '{self.fault}'"


SETUP: Final = """\
SIM=http://127.0.0.1:8080; ORG=98765432-1234-5678-9abc-def012345678; ID=a1b2c3d4-e5f6-7890-abcd-ef1234567890
curl -s -X PUT $SIM/genesys/control/orgs/$ORG/integrations/$ID -d '{"tenantId": "acme"}'
field() { sed "s/.*\\"$1\\": *\\"\\([^\\"]*\\)\\".*/\\1/"; }
mint() { curl -s -u "$(field client_id < orgs/$ORG.json):$(field client_secret < orgs/$ORG.json)" \\
  $SIM/genesys/login/oauth/token -d grant_type=client_credentials; }
TOKEN=$(mint | sed 's/.*"access_token": *"\\([^"]*\\)".*/\\1/')
api() { path=$1; shift; curl -si -m 3 -H "Authorization: Bearer $TOKEN" "$SIM/genesys/api/v2/$path" "$@"; }
call() { curl -si -m 3 -H "Lifecycle-Key: $ORG:$ID" -H "Lifecycle-Generation: 1" -H "Lifecycle-Epoch: 1" "$@"; }
audits() { api audits/query/realtime -d '{"interval": "2020-01-01T00:00:00Z/2099-01-01T00:00:00Z",
  "serviceName": "Integrations", "pageNumber": 1}'; }"""
"""Shell commands before the examples: an integration, a token, and a request to the API, to an outside system, for
audits. The folder `orgs` is ORGS_DIR."""

_PUT: Final = "call -X PUT $SIM/middleware/a -d '{\"enabled\": true}'"

EXAMPLES: Final[Mapping[str, FaultExample]] = {
    "refuse": FaultExample(
        "answers 422 (Genesys: 403, PostgreSQL: 22023); nothing happens",
        '{"system": "genesys", "fault": "refuse", "path": "/audits", "times": 1}',
        "audits",
        '"code":"missing.any.permissions"',
    ),
    "unauthorized": FaultExample(
        "answers 401 (PostgreSQL: 28P01), as to wrong credentials; nothing happens",
        '{"system": "middleware", "fault": "unauthorized", "times": 1}',
        _PUT,
        "HTTP/1.1 401",
    ),
    "error": FaultExample(
        "answers 503 (PostgreSQL: 53300); nothing happens",
        '{"system": "middleware", "fault": "error", "times": 1}',
        _PUT,
        "HTTP/1.1 503",
    ),
    "slow": FaultExample(
        "waits `seconds` before the call takes effect: a caller that gave up is answered by a late effect",
        '{"system": "middleware", "fault": "slow", "seconds": 1, "times": 1}',
        f"{_PUT} -w 'took %{{time_total}}'",
        "took 1.",
    ),
    "lost_answer": FaultExample(
        "the call takes effect and the connection ends without the answer (PostgreSQL: the answer to COMMIT)",
        '{"system": "middleware", "fault": "lost_answer", "times": 1}',
        f"{_PUT}; curl -s $SIM/calls?key=$ORG:$ID",
        '"outcome":"lost"',
    ),
    "ignore_idempotency": FaultExample(
        "neither idempotency key nor epoch is looked at",
        '{"system": "middleware", "fault": "ignore_idempotency", "times": 1}',
        f"{_PUT} -H 'Lifecycle-Epoch: 0'",
        "HTTP/1.1 20",
    ),
    "down": FaultExample(
        "the connection ends without an answer; nothing happens, and nothing is in the call list",
        '{"system": "genesys", "fault": "down", "times": 1}',
        "api organizations/me || echo curl ended with $?",
        "curl ended with 52",
    ),
    "rate_limited": FaultExample(
        "answers 429 with `Retry-After`",
        '{"system": "genesys", "fault": "rate_limited", "times": 1}',
        "api organizations/me",
        "Rate limit exceeded the maximum. Retry the request in [1] seconds",
    ),
    "empty": FaultExample(
        "a listing, or a query for audits, is a 200 with `total` 0 and nothing else",
        '{"system": "genesys", "fault": "empty", "times": 1}',
        "api integrations",
        '"entities":[]',
    ),
    "missing_page": FaultExample(
        "the last page is left out; `total` still counts what was on it",
        '{"system": "genesys", "fault": "missing_page", "times": 1}',
        "api 'integrations?pageSize=1&pageNumber=2'",
        '"entities":[],"pageSize":1,"pageNumber":2,"total":2',
    ),
    "stale": FaultExample(
        "reads are of before the last change of each integration: a new one is absent, a removed one is there; "
        "the newest audit of each is missing",
        '{"system": "genesys", "fault": "stale", "times": 1}',
        "for enabled in true false; do curl -s -X PUT $SIM/genesys/control/orgs/$ORG/integrations/$ID "
        "-d '{\"enabled\": '$enabled'}'; done; api integrations/$ID",
        '"intendedState":"ENABLED"',
    ),
    "shifted_page": FaultExample(
        "from the second page on the first entity of all is gone, as after a removal between two pages",
        '{"system": "genesys", "fault": "shifted_page", "times": 1}',
        "api 'integrations?pageSize=1&pageNumber=2'",
        '"entities":[],"pageSize":1,"pageNumber":2,"total":1',
    ),
    "wrong_total": FaultExample(
        "`total` counts one entity more than the pages have",
        '{"system": "genesys", "fault": "wrong_total", "times": 1}',
        "api integrations",
        '"total":3',
    ),
    "flapping": FaultExample(
        "a read by id answers Genesys' own 404, although the integration exists",
        '{"system": "genesys", "fault": "flapping", "times": 1}',
        "api integrations/$ID",
        '"code":"not.found"',
    ),
    "unknown_values": FaultExample(
        "states of integrations, actions of audits and states of transactions are words of a later release",
        '{"system": "genesys", "fault": "unknown_values", "times": 1}',
        "audits",
        '"action":"Hibernate"',
    ),
    "clock_skew": FaultExample(
        "`Date` is ahead by `seconds`, without them by an hour",
        '{"system": "genesys", "fault": "clock_skew", "seconds": 8640000, "times": 1}',
        "api organizations/me | grep -i ^date; date -u",
        "GMT",
    ),
    "blank": FaultExample(
        "the answer is a 200 without a body",
        '{"system": "genesys", "fault": "blank", "times": 1}',
        "api organizations/me -w 'size %{size_download}'",
        "size 0",
    ),
    "silent": FaultExample(
        "the request is taken and never answered, until the client gives up",
        '{"system": "genesys", "fault": "silent", "times": 1}',
        "api organizations/me || echo curl ended with $?",
        "curl ended with 28",
    ),
    "over_minted": FaultExample(
        "a request for a token is refused by a 400, and not by a 429",
        '{"system": "genesys", "fault": "over_minted", "times": 1}',
        "mint",
        '"rate limit exceeded; please retry later"',
    ),
}
"""Kind of the fault to its example, in the order of the kinds."""


def page() -> str:
    """Returns the examples as a part of docs/simulator.md."""
    blocks = [f"```sh\n{SETUP}\n```"]
    for kind, example in EXAMPLES.items():
        blocks.append(
            f"`{kind}`: {example.does}.\n\n```sh\n{example.command()}\n{example.asks}   # {example.shows}\n```"
        )
    return "\n\n".join(blocks) + "\n"


def help_text() -> str:
    """Returns the examples as the end of `lifecycle simulator --help`."""
    lines = [f"{kind}: {example.does}.\n\n  {example.command()}" for kind, example in EXAMPLES.items()]
    return "Faults, and how each is set (SIM is the base URL; DELETE /faults clears all):\n\n" + "\n\n".join(lines)
