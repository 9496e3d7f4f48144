"""Reads from Genesys which webhooks are registered, and compares them with what should be.

Rule: an organisation or integration that gives no information is named beside what was read, and is never taken for one
without a webhook.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import SecretStr

from schemas.genesys import Organisation
from schemas.keyring import Endpoint, Keyring
from schemas.values import UUID_PATTERN, Key, key_of
from schemas.webhook_definition import WebhookDefinition
from services.adapters.genesys import organisations, webhooks
from services.adapters.genesys.answers import NoInformation, ServerTrouble
from services.adapters.genesys.client import GenesysClient, connections, hosts_for
from services.adapters.genesys.organisations import Organisations
from services.adapters.genesys.webhooks import NoSuchIntegration
from services.adapters.process.clock import now_us
from services.adapters.process.settings import Settings
from services.adapters.secrets import keyring
from services.adapters.secrets.keyring import raw
from services.cli import keyring_contents
from services.cli.doctor.organisation import matches
from services.cli.exits import CommandError, Exit
from services.cli.options import nearest
from services.core.delivery.binding import binding
from services.core.registration import Comparison, compare, endpoint_of

T = TypeVar("T")

_UUID: Final = re.compile(UUID_PATTERN, re.IGNORECASE | re.ASCII)
_AT_ONCE: Final = 8
_HERE: Final = ("127.0.0.1", "localhost", "::1")
_NO_FINGERPRINT: Final = "no fingerprint"


@dataclass(frozen=True, slots=True)
class Held:
    """The webhook of an integration, compared.

    Attributes:
        key: `orgId:integrationId`.
        comparison: What Genesys holds beside what should be.
        bound: True if the endpoint may speak for the key.
        told: True if `apply` is to tell Genesys.
    """

    key: Key
    comparison: Comparison
    bound: bool
    told: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """A missing answer of Genesys.

    Attributes:
        scope: The organisation, or the key.
        why: The reason, without a secret.
        status: The exit status that the reason asks for.
    """

    scope: str
    why: str
    status: Exit


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a reading.

    Attributes:
        read: The integrations that were read, by key.
        troubles: What gave no information.
    """

    read: tuple[Held, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    def status(self, *, differs: bool) -> Exit:
        """Returns the exit status: the gravest of the troubles, else a deviation, else well."""
        return max((trouble.status for trouble in self.troubles), default=Exit.DEVIATION if differs else Exit.OK)


@dataclass(frozen=True, slots=True)
class Registration:
    """What should be registered, and where.

    Attributes:
        settings: The settings of an operator's command.
        orgs: The organisations.
        integrations: Ids of integrations of the only organisation; empty for all of its type.
        url: The webhook's URL.
        name: The endpoint in the keyring.
        ring: The keyring.
        whole: True if every known organisation is asked about, with all integrations.
    """

    settings: Settings
    orgs: tuple[Organisation, ...]
    integrations: tuple[str, ...]
    url: str
    name: str
    ring: Keyring = field(repr=False)
    whole: bool

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint's secrets and bindings."""
        return self.ring.endpoints[self.name]

    @property
    def definition(self) -> WebhookDefinition:
        """The webhook that each integration should have."""
        return WebhookDefinition(self.url, secret=self.endpoint.current.secret)

    def with_ring(self, ring: Keyring) -> "Registration":
        """Returns the same with a changed keyring."""
        return replace(self, ring=ring)

    def fingerprint(self, secret: SecretStr) -> str:
        """Returns the name of a secret; without `material` in the keyring no name is possible."""
        material = self.ring.material
        return (
            keyring_contents.fingerprint(None if material is None else raw(material.identity), raw(secret))
            or _NO_FINGERPRINT
        )

    def compared(self, held: WebhookDefinition | None) -> Comparison:
        """Compares what Genesys holds with what should be."""
        previous = self.endpoint.previous
        former = None if previous is None else previous.secret
        return compare(held, self.definition, former, self.fingerprint)

    def deviates(self, held: Held) -> bool:
        """True if Genesys has to be told, or the endpoint refuses the key."""
        return held.comparison.differs or not held.bound

    async def read(self) -> Found:
        """Reads the webhooks of all integrations asked about.

        Raises:
            CommandError: the organisations have no such integration at all (NOT_FOUND).
        """
        binds = binding(self.endpoint.orgs, self.endpoint.integrations)

        async def one(client: GenesysClient, integration: str) -> Held:
            key = key_of(client.organisation.org_id, integration)
            return Held(key, self.compared(await webhooks.held(client, integration)), binds.covers(key))

        read, troubles = await self._each(self._ids, one)
        if not read and not troubles:
            kinds = ", ".join(sorted({kind for organisation in self.orgs for kind in organisation.types}))
            raise CommandError(Exit.NOT_FOUND, f"no integration of the types {kinds} in {_count(self.orgs)}")
        return Found(tuple(sorted(read, key=lambda held: held.key)), tuple(troubles))

    async def register(self, keys: Iterable[Key]) -> tuple[list[tuple[Key, Comparison]], list[Trouble]]:
        """Tells Genesys the webhook of each key; returns what Genesys holds afterwards, compared, and the failures."""
        wanted: dict[str, list[str]] = {}
        for key in keys:
            org, _, integration = key.partition(":")
            wanted.setdefault(org, []).append(integration)

        async def ids(client: GenesysClient) -> list[str]:
            return wanted.get(client.organisation.org_id, [])

        async def one(client: GenesysClient, integration: str) -> tuple[Key, Comparison]:
            held = await webhooks.register(client, integration, self.definition)
            return key_of(client.organisation.org_id, integration), self.compared(held)

        return await self._each(ids, one)

    async def _ids(self, client: GenesysClient) -> list[str]:
        if self.integrations:
            return list(self.integrations)
        listing, ours = await client.listing(), client.organisation.types
        return [one.id for one in listing.integrations.values() if one.type_id in ours]

    async def _each(
        self,
        ids: Callable[[GenesysClient], Awaitable[list[str]]],
        work: Callable[[GenesysClient, str], Awaitable[T]],
    ) -> tuple[list[T], list[Trouble]]:
        """Works on each id of each organisation, several at once; returns the results and the failures."""
        done: list[T] = []
        troubles: list[Trouble] = []
        gate = asyncio.Semaphore(_AT_ONCE)

        async def guarded(client: GenesysClient, integration: str) -> None:
            try:
                async with gate:
                    done.append(await work(client, integration))
            except NoInformation as none:
                troubles.append(_trouble(key_of(client.organisation.org_id, integration), none))

        async def organisation(of: Organisation, http: httpx2.AsyncClient) -> None:
            try:
                hosts = hosts_for(of, self.settings.genesys_login_url, self.settings.genesys_api_url)
                client = GenesysClient(of, hosts, http, now_us=now_us)
                found = await ids(client)
            except NoInformation as none:
                troubles.append(_trouble(of.org_id, none))
                return
            await asyncio.gather(*(guarded(client, integration) for integration in found))

        async with connections() as http:
            await asyncio.gather(*(organisation(of, http) for of in self.orgs))
        return done, sorted(troubles, key=lambda trouble: trouble.scope)


def registration(
    settings: Settings,
    orgs: Sequence[str] | None,
    integrations: Sequence[str] | None,
    url: str | None,
    endpoint: str | None,
) -> Registration:
    """Returns what should be registered, for the integrations that the options name.

    Raises:
        CommandError: an option, a file of ORGS_DIR or the keyring cannot be used.
        Unusable: the keyring file cannot be used.
    """
    target = _url(url or settings.simulator_webhook_url)
    named = endpoint_of(urlsplit(target).path)
    if endpoint and named and endpoint != named:
        raise CommandError(Exit.UNUSABLE, f"--endpoint: {endpoint!r}, and the URL's path names {named!r}")
    ids = tuple(dict.fromkeys(_id(integration) for integration in integrations or ()))
    chosen, whole = _organisations(settings, orgs, has_ids=bool(integrations))
    name, ring = endpoint or named or "default", keyring.load(settings.keyring_file)
    if name not in ring.endpoints:
        why = f"{settings.keyring_file} has no endpoint {name!r}{nearest(name, ring.endpoints)}"
        raise CommandError(Exit.NOT_FOUND, f"{why}; `lifecycle keyring add` makes one")
    return Registration(settings, chosen, ids, target, name, ring, whole and not ids)


def _organisations(
    settings: Settings, given: Sequence[str] | None, *, has_ids: bool
) -> tuple[tuple[Organisation, ...], bool]:
    """Returns the organisations that the options name, and True if these are all."""
    found = organisations.load(settings.orgs_dir)
    names = found.known.keys() | found.faults.keys()
    if (why := found.faults.get(str(settings.orgs_dir))) is not None:
        raise CommandError(Exit.UNUSABLE, f"ORGS_DIR: {settings.orgs_dir}: {why}")
    if not names:
        raise CommandError(Exit.UNUSABLE, f"ORGS_DIR: {settings.orgs_dir} has no file of an organisation")
    asked = dict.fromkeys(_named(one, found) for one in given) if given else sorted(names)
    for name in asked:
        if name in found.faults:
            raise CommandError(Exit.UNUSABLE, f"ORGS_DIR: {name}: {found.faults[name]}")
        # Without a type every integration of the organisation would count as ours, those of other vendors too.
        if not has_ids and not found.known[name].types:
            why = "its file names no integration_types, so say which: --integration"
            raise CommandError(Exit.UNUSABLE, f"{name}: {why}")
    if has_ids and len(asked) > 1:
        raise CommandError(Exit.UNUSABLE, "--integration: say of which organisation: one --org")
    return tuple(found.known[name] for name in asked), len(asked) == len(names)


def _named(given: str, found: Organisations) -> str:
    """Returns the only organisation with a file named by an id, the beginning of an id, or a name.

    Raises:
        CommandError: no file matches, or several (UNUSABLE).
    """
    ids = matches(given, found.known, found.faults)
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise CommandError(Exit.UNUSABLE, f"--org: {given!r} names {len(ids)} organisations: {', '.join(ids)}")
    words = [*found.known, *found.faults, *(one.name for one in found.known.values() if one.name)]
    raise CommandError(Exit.UNUSABLE, f"--org: {given!r}: no such organisation{nearest(given, words)}")


def _url(url: str | None) -> str:
    """Returns a URL that Genesys can call.

    Raises:
        CommandError: no URL is known, or the URL is no HTTPS URL of a host (UNUSABLE).
    """
    if not url:
        raise CommandError(Exit.UNUSABLE, "--url: missing, and no `lifecycle up` runs here")
    try:
        parts = urlsplit(url)
        well = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment or "@" in parts.netloc)
        # `urlsplit` drops line feeds and tabs, and Genesys would be told them.
        well = well and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        raise CommandError(Exit.UNUSABLE, "--url: is no URL") from None
    if not well or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HERE)):
        why = "must be an https URL with a host, in ASCII, without user, query and fragment; http only on this machine"
        raise CommandError(Exit.UNUSABLE, f"--url: {why}")
    return url


def _id(integration: str) -> str:
    if not _UUID.fullmatch(integration):
        raise CommandError(Exit.UNUSABLE, f"--integration: {integration!r} is no UUID")
    return integration.lower()


def _trouble(scope: str, none: NoInformation) -> Trouble:
    if isinstance(none, NoSuchIntegration):
        return Trouble(scope, none.reason, Exit.NOT_FOUND)
    return Trouble(scope, none.reason, Exit.UNREACHABLE if isinstance(none, ServerTrouble) else Exit.REFUSED)


def _count(orgs: Sequence[Organisation]) -> str:
    return orgs[0].org_id if len(orgs) == 1 else f"{len(orgs)} organisations"
