"""Names that an operator may use for a tenant, and names that are refused."""

import pytest
from pydantic import SecretStr

from schemas.genesys import Organisation
from services.cli.exits import CommandError, Exit
from services.cli.naming import TenantName, ids_by_name, organisation, resolve
from services.cli.wording import short_keys

ORG, OTHER = "98765432-1234-5678-9abc-def012345678", "98765439-1234-5678-9abc-def012345678"
ONE, TWO = "a1b2c3d4-e5f6-7890-abcd-ef1234567890", "b1b2c3d4-e5f6-7890-abcd-ef1234567890"
ACME, GLOBEX, INITECH = f"{ORG}:{ONE}", f"{ORG}:{TWO}", f"{OTHER}:{ONE}"
KNOWN = [
    TenantName(ACME, "acme", gone=False),
    TenantName(GLOBEX, "acme_globex", gone=False),
    TenantName(INITECH, None, gone=False),
]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (ACME, ACME),
        (ACME.upper(), ACME),
        ("acme", ACME),
        ("acme_", GLOBEX),
        ("ACME_G", GLOBEX),
        (OTHER, INITECH),
        ("98765439", INITECH),
        (TWO, GLOBEX),
        ("b1", GLOBEX),
        ("98765432:a1b2c3d4", ACME),
        ("98765432:b", GLOBEX),
        ("98765439:", INITECH),
    ],
)
def test_a_tenant_is_found_by_any_unambiguous_name(given: str, key: str) -> None:
    assert resolve(given, KNOWN) == key


@pytest.mark.parametrize("given", [ORG, "987654", "a1b2c3d4", ":a1", "acm"])
def test_an_ambiguous_name_is_refused_with_every_candidate(given: str) -> None:
    with pytest.raises(CommandError) as refused:
        resolve(given, KNOWN)
    assert refused.value.status is Exit.UNUSABLE
    meant = [short for short in short_keys([one.key for one in KNOWN]).values() if f" {short} " in str(refused.value)]
    assert f"names {len(meant)} tenants" in str(refused.value)
    assert len(meant) >= 2


def test_of_many_candidates_ten_are_named_and_the_others_counted() -> None:
    many = [TenantName(f"{number:08}-1234-5678-9abc-def012345678:{ONE}", "t", gone=False) for number in range(30)]
    with pytest.raises(CommandError, match="names 30 tenants") as refused:
        resolve("t", many)
    assert str(refused.value).count(ONE[:8]) == 10
    assert "and 20 more" in str(refused.value)


@pytest.mark.parametrize("given", ["nobody", "", ":", f"{ORG}:{ORG}", "9876543g"])
def test_an_unknown_name_is_refused_as_not_found(given: str) -> None:
    with pytest.raises(CommandError) as refused:
        resolve(given, KNOWN)
    assert refused.value.status is Exit.NOT_FOUND
    assert "KEY: " in str(refused.value)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(CommandError, match="the nearest: acme_globex"):
        resolve("acme_glovex", KNOWN)


def test_a_reused_name_means_the_installed_tenant() -> None:
    former = TenantName(f"{ORG}:{TWO}", "acme", gone=True)
    assert resolve("acme", [former, TenantName(ACME, "acme", gone=False)]) == ACME
    assert resolve("acme", [former]) == former.key, "and the former one while there is no other"


@pytest.mark.parametrize(("given", "found"), [(ORG, ORG), (OTHER.upper(), OTHER), ("98765439", OTHER)])
def test_an_organisation_is_found_by_its_id_or_a_prefix(given: str, found: str) -> None:
    assert organisation(given, {ORG, OTHER}) == found


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("nope", "no such organisation"),
        ("", "no such organisation"),
        ("9876543", "the beginning of 2 organisations"),
        (ORG[:-1] + "9", f"the nearest: {ORG}"),
    ],
)
def test_an_unknown_or_ambiguous_organisation_is_refused(given: str, why: str) -> None:
    with pytest.raises(CommandError, match=why) as refused:
        organisation(given, {ORG, OTHER})
    assert refused.value.status is Exit.UNUSABLE
    assert str(refused.value).startswith("--org: ")


def test_a_name_in_exactly_one_file_names_the_organisation() -> None:
    files = {
        org_id: Organisation(org_id=org_id, client_id="c", client_secret=SecretStr("s"), name=name)
        for org_id, name in ((ORG, "Acme"), (OTHER, "Globex"), (ONE, "Globex"), (TWO, None))
    }
    assert ids_by_name(files) == {"Acme": ORG}
