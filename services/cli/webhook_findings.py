"""Tries a webhook's URL with a signed probe, and says for each fault of the way what to do.

Rule: a probe says nothing of a tenant and changes nothing (docs/webhook.md). An answer counts as the ingress' own only
by its body: any web server answers 200.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from schemas import webhook_sent
from schemas.values import Key
from services.adapters.process.clock import now_us
from services.adapters.secrets.keyring import raw
from services.adapters.webhook_probe import ProbeAnswer, ProbeSender, WayFault
from services.cli.doctor.finding import Finding, fault, skipped, well
from services.cli.exits import CommandError, Exit
from services.cli.show import say
from services.cli.webhook_registration import Found, Registration
from services.cli.wording import counted
from services.core.delivery.signature import sign
from services.core.delivery.timestamp_rule import WINDOW_US
from services.core.registration import SecretStanding

IN_A_ROW: Final = 20
"""Proved probes that show a secret to be taken: each may reach another ingress behind the URL."""
_PAUSE_S: Final = 0.1
"""Between two probes; the row then lasts four looks of an ingress at its keyring file."""
_PAUSE_UNPROVED_S: Final = 0.5
_PAUSE_MAX_S: Final = 10.0
"""After an unproved probe, doubled up to the most. Each is a forged delivery in the metrics, and 20 of them may be an
alert (`LifecycleSignaturesRefused`)."""
_CLOCK_S: Final = 30.0
"""Difference of clocks that is a fault: a third of what a delivery may be off."""
_PROVED: Final = "proved"
_GENESYS: Final = "Genesys"
_PROBE: Final = "probe"
_FORBIDDEN: Final = 403
_PASSING: Final = frozenset({401, 408, 429, 500, 502, 503, 504})
"""Statuses that may end by themselves: an ingress without the new secret yet, or one that starts."""
_PASSING_FAULTS: Final = frozenset({WayFault.CONNECTION, WayFault.TIMEOUT, WayFault.CUT})


_WINDOW_S: Final = WINDOW_US / 1_000_000
_REMEDIES: Final = {
    401: (
        ": the ingress does not know the secret {secret} of the endpoint {endpoint}",
        "compare `lifecycle keyring list` with the KEYRING_FILE of the ingress; no proxy may change body or headers",
    ),
    404: (
        ": nothing is served at this path",
        "the path is /v1/genesys/lifecycle/{endpoint}, and the proxy must not change it",
    ),
    502: (": the proxy reaches no ingress", "start the ingress, or correct the address in the proxy"),
    503: (": the ingress takes nothing now", "`lifecycle doctor` says what it waits for"),
    504: (": the proxy gets no answer from the ingress", "`lifecycle doctor` says how the ingress is"),
}
"""Status of an answer to its meaning and remedy."""


def findings(wanted: Registration, found: Found, shown: Mapping[Key, str]) -> list[Finding]:
    """Returns the findings about Genesys and about the way to the ingress.

    Args:
        wanted: What should be registered.
        found: A reading.
        shown: The name of each key in the texts; a key without one is shown whole.
    """
    return [*_about_genesys(wanted, found, shown), *_about_the_way(wanted, found, shown)]


def await_proof(wanted: Registration, key: Key, wait_s: float) -> None:
    """Sends probes until `IN_A_ROW` in succession are proved.

    Args:
        wanted: The URL, and the endpoint whose current secret signs.
        key: The key of the probes.
        wait_s: How long faults that may pass by themselves are waited for.

    Raises:
        CommandError: the fault and its remedy (UNREACHABLE without an answer, else REFUSED).
    """
    until_s, proved, unproved = time.monotonic() + wait_s, 0, 0
    with ProbeSender(now_us) as sender:
        while proved < IN_A_ROW:
            answer = _probe(sender, wanted, key)
            if answer.said == _PROVED:
                proved += 1
            else:
                proved = 0
                passing = answer.fault in _PASSING_FAULTS or answer.status in _PASSING
                if not passing or time.monotonic() > until_s:
                    detail, cure = _trouble(wanted, key, answer)
                    status = Exit.UNREACHABLE if answer.fault else Exit.REFUSED
                    raise CommandError(status, f"{wanted.url}: {detail}\n{cure}")
                if not unproved:
                    say(f"waiting until the ingress takes the secret {_current(wanted)} …")
                unproved += 1
            time.sleep(_PAUSE_S if proved else min(_PAUSE_MAX_S, _PAUSE_UNPROVED_S * 2 ** (unproved - 1)))


def _about_genesys(wanted: Registration, found: Found, shown: Mapping[Key, str]) -> Iterator[Finding]:
    for trouble in found.troubles:
        yield fault(
            _GENESYS,
            f"{shown.get(trouble.scope, trouble.scope)}: {trouble.why}",
            "correct id, secret and region in its file in ORGS_DIR; the OAuth client needs the right to edit webhooks",
        )
    for held in found.read:
        name = shown.get(held.key, held.key)
        if held.comparison.differs:
            fields = ", ".join(row.field for row in held.comparison.rows if row.differs)
            yield fault(_GENESYS, f"{name}: holds other values: {fields}", "`lifecycle webhook apply` shows and tells")
        elif held.comparison.standing is SecretStanding.HIDDEN:
            cure = "a delivery that is answered 200 tells; `lifecycle webhook apply --again` tells Genesys the secret"
            yield skipped(_GENESYS, f"{name}: holds what should be, and does not show its secret", cure)
        else:
            yield well(_GENESYS, f"{name}: holds what should be, and the secret {_current(wanted)}")


def _about_the_way(wanted: Registration, found: Found, shown: Mapping[Key, str]) -> Iterator[Finding]:
    """Sends a probe for each integration that was read; a fault of the way ends, since the next would meet it too."""
    answer: ProbeAnswer | None = None
    proved = 0
    with ProbeSender(now_us) as sender:
        for held in found.read:
            answer = _probe(sender, wanted, held.key)
            if answer.said == _PROVED:
                proved += 1
                continue
            own = answer.status == _FORBIDDEN == answer.said
            detail, cure = _trouble(wanted, shown.get(held.key, held.key), answer)
            yield fault(_PROBE, f"{wanted.url}: {detail}", cure)
            if not own:
                break
    if answer is None:
        yield skipped(_PROBE, "no integration could be read to send a probe for", "put right what is said above")
        return
    if proved:
        took = f"{answer.took_s * 1_000:.0f} ms"
        yield well(_PROBE, f"{wanted.url}: proved for {counted(proved, 'integration')}, the last in {took}")
    if answer.clock_off_s is not None:
        yield _clock(answer.clock_off_s)


def _probe(sender: ProbeSender, wanted: Registration, key: Key) -> ProbeAnswer:
    now, (org, _, integration) = now_us(), key.partition(":")
    told = webhook_sent.probe(org, integration, now)
    signature = sign(raw(wanted.endpoint.current.secret), told)
    return sender.send(wanted.url, told, webhook_sent.headers(signature, now))


def _clock(off_s: float) -> Finding:
    if abs(off_s) <= _CLOCK_S:
        return well("clock", "that of the answer agrees with this machine's")
    side = "ahead of" if off_s > 0 else "behind"
    detail = f"the answer's is {abs(off_s):.0f} s {side} this machine's; from 90 s on deliveries are refused (401)"
    return fault("clock", detail, "synchronise both by NTP (`timedatectl`): one of them is wrong")


def _trouble(wanted: Registration, name: str, answer: ProbeAnswer) -> tuple[str, str]:
    """Returns the fault of an unproved probe, and the remedy."""
    return _unanswered(wanted, answer) if answer.fault else _refused(wanted, name, answer)


def _unanswered(wanted: Registration, answer: ProbeAnswer) -> tuple[str, str]:
    parts = urlsplit(wanted.url)
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    match answer.fault:
        case WayFault.DNS:
            return (
                f"DNS: the name {host} has no address ({answer.detail})",
                "correct the URL, or publish the name; `getent hosts` asks for it",
            )
        case WayFault.TLS:
            return (
                f"TLS: {answer.detail}",
                f"give {host} a certificate of a public authority for this name, with its chain, TLS 1.2 or later",
            )
        case WayFault.CONNECTION:
            return (
                f"no connection opens: {answer.detail}",
                f"start the proxy before the ingress, and open port {port} of {host} to the outside",
            )
        case WayFault.TIMEOUT:
            return (
                f"{answer.detail} within 3 s, when Genesys gives up",
                f"open port {port} of {host} to the outside; `lifecycle doctor` says how the ingress is",
            )
        case WayFault.URL:
            return f"is no URL: {answer.detail}", "correct --url"
    return "the connection ended without an answer", "look into the log of the proxy before the ingress"


def _refused(wanted: Registration, name: str, answer: ProbeAnswer) -> tuple[str, str]:
    status, own = answer.status, answer.said == answer.status
    head, off_s = f"HTTP {status}", answer.clock_off_s or 0.0
    if status == 401 and abs(off_s) > _WINDOW_S:
        found = f": the clocks are {abs(off_s):.0f} s apart", "synchronise both by NTP (`timedatectl`)"
    elif status == _FORBIDDEN and own:
        found = (
            f": the endpoint {wanted.name} may not speak for {name}",
            "add the id to `orgs` or `integrations` of the endpoint in KEYRING_FILE, or take another --endpoint",
        )
    elif status == 200 and answer.said == "parked":
        found = (
            ": an ingress of an older release, which knows no probe and has kept it as a dead letter",
            "renew the ingress",
        )
    elif 300 <= status < 400:
        found = ": a redirect, which Genesys does not follow", "name its target as the URL"
    elif status in _REMEDIES:
        detail, cure = _REMEDIES[status]
        found = detail.format(secret=_current(wanted), endpoint=wanted.name), cure.format(endpoint=wanted.name)
    elif own:
        cure = "let the proxy pass method, body and headers untouched; docs/webhook.md says what the status means"
        found = ": the request was changed on its way", cure
    else:
        cure = "let the URL lead to the ingress: a firewall, a sign-in page or another server answered"
        found = ", and not from the ingress", cure
    return head + found[0], found[1]


def _current(wanted: Registration) -> str:
    return wanted.fingerprint(wanted.endpoint.current.secret)
