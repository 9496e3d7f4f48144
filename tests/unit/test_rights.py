"""The least rights of the services, and their forms for an administrator."""

import json
import shlex

import pytest

from schemas.rights import Operation, Resource, Right, Service, rights
from schemas.topics import TOPICS, looks_group, named
from services.cli import acls
from services.cli.exits import CommandError, Exit

READ, WRITE, DESCRIBE = Operation.READ, Operation.WRITE, Operation.DESCRIBE


def _given(prefix: str = "", **principals: str) -> acls.Rights:
    return acls.rights_by_principal(acls.principals(f"{name}={text}" for name, text in principals.items()), prefix)


def test_only_the_writers_and_readers_of_the_topic_table_have_the_rights() -> None:
    for service in Service:
        for topic in TOPICS:
            may = {right.operation for right in rights(service, "p-") if right.name == named(topic, "p-")}
            assert (READ in may, WRITE in may) == (service in topic.readers, service in topic.writers)


def test_describe_is_a_right_of_its_own_only_where_nothing_is_read_or_written() -> None:
    for service in Service:
        given = rights(service)
        used = {(right.resource, right.name) for right in given if right.operation in {READ, WRITE}}
        assert not used & {(right.resource, right.name) for right in given if right.operation is DESCRIBE}


def test_a_writer_may_read_the_settings_of_its_topics() -> None:
    """Deliveries must not be acknowledged into a topic that would lose them (docs/decisions/0023)."""
    for service in set(Service) - {Service.OPERATOR}:
        compared = {right.name for right in rights(service) if right.operation is Operation.DESCRIBE_CONFIGS}
        read_too = service in {Service.LEDGER, Service.RECONCILER}
        assert compared == {
            topic.name for topic in TOPICS if service in topic.writers or (read_too and service in topic.readers)
        }


def test_only_the_operator_may_create_and_no_service_deletes_or_alters() -> None:
    assert {operation.value for operation in Operation} == {"Read", "Write", "Create", "Describe", "DescribeConfigs"}
    creators = {service for service in Service for right in rights(service) if right.operation is Operation.CREATE}
    assert creators == {Service.OPERATOR}


def test_a_reader_without_a_group_names_the_group_of_its_installation() -> None:
    assert looks_group("acme-lifecycle.tenants") == "acme-lifecycle-looks"
    assert looks_group("acme-lifecycle-ledger-stages-changelog") == "acme-lifecycle-looks"
    assert looks_group("lifecycle.audit") == looks_group("somebody-elses") == "lifecycle-looks"
    assert Right(Resource.GROUP, "acme-lifecycle-looks", DESCRIBE) in rights(Service.RECONCILER, "acme-")


def test_each_service_has_its_own_principal_unless_another_is_named() -> None:
    named = acls.principals(["ledger=User:one", "provisioner=CN=two,O=acme"])
    assert named == {
        Service.INGRESS: "User:lifecycle-ingress",
        Service.HINTS: "User:lifecycle-hints",
        Service.LEDGER: "User:one",
        Service.PROVISIONER: "User:CN=two,O=acme",
        Service.RECONCILER: "User:lifecycle-reconciler",
        Service.OPERATOR: "User:lifecycle-operator",
    }


def test_every_unusable_principal_is_refused_by_name() -> None:
    with pytest.raises(CommandError) as refused:
        acls.principals(["ledgre=x", "ledger", "ingress= ", "operator=me"])
    assert refused.value.status is Exit.UNUSABLE
    first, *others = str(refused.value).splitlines()
    known = "ingress, hints, ledger, provisioner, reconciler, operator"
    assert first == f"--principal ledgre=x: no service 'ledgre'; there are {known}"
    assert [line.partition(":")[0] for line in others] == ["--principal ledger", "--principal ingress= "]


def test_the_acl_lines_allow_each_right_once_and_are_quoted_for_a_shell() -> None:
    lines = list(acls.as_commands(_given("acme-", ledger="CN=a b")))
    assert lines[0].startswith("# ")
    found = []
    for line in lines[1:]:
        words = shlex.split(line)
        assert words[:3] == ["kafka-acls.sh", "--bootstrap-server", "$KAFKA_BOOTSTRAP_SERVERS"]
        principal = words[words.index("--allow-principal") + 1]
        found += [(principal, word) for word in words if word.startswith("acme-")]
    assert ("User:CN=a b", "acme-lifecycle-ledger") in found
    assert len(found) == len(set(found))


def test_services_with_one_principal_are_one_user_with_all_rights() -> None:
    given = _given(**{service.value: "all" for service in Service})
    assert list(given) == ["User:all"]
    assert len(given["User:all"]) == len(set(given["User:all"]))
    every = {right for service in Service for right in rights(service)}
    left_out = every - set(given["User:all"])
    assert {right.operation for right in left_out} == {DESCRIBE}
    assert all(Right(right.resource, right.name, READ) in every or Right(right.resource, right.name, WRITE) in every
               for right in left_out)  # fmt: skip


def test_a_strimzi_user_has_the_given_name_login_and_cluster() -> None:
    documents = "\n".join(acls.as_strimzi(_given(ledger="CN=books"), "kafka-1")).split("apiVersion: ")[1:]
    assert len(documents) == len(Service)
    ledger = next(one for one in documents if '  name: "books"\n' in one)
    assert ledger.startswith("kafka.strimzi.io/v1\nkind: KafkaUser\n")
    assert '    strimzi.io/cluster: "kafka-1"\n' in ledger
    assert "    type: tls\n" in ledger
    assert ledger.count("- resource: ") == len({(r.resource, r.name) for r in rights(Service.LEDGER)})
    assert (
        "      - resource: {type: topic, name: lifecycle.outcomes, patternType: literal}\n"
        "        operations: [Read, DescribeConfigs]\n"
    ) in ledger
    assert "    type: scram-sha-512\n" in next(one for one in documents if '  name: "lifecycle-ingress"\n' in one)


def test_an_invalid_kafka_user_name_is_refused() -> None:
    with pytest.raises(
        CommandError, match="--principal User:Books_1: a KafkaUser needs a name of lower-case"
    ) as refused:
        list(acls.as_strimzi(_given(ledger="Books_1"), "kafka"))
    assert refused.value.status is Exit.UNUSABLE
    with pytest.raises(CommandError, match="--cluster My cluster: no name of a Kafka object"):
        list(acls.as_strimzi(_given(), "My cluster"))


def test_the_strimzi_objects_name_the_services_of_a_principal() -> None:
    named = acls.principals(["ingress=edge", "reconciler=edge"])
    found = json.loads(json.dumps(acls.as_json(acls.rights_by_principal(named, "p-"), named)))
    assert [one["services"] for one in found] == [
        ["ingress", "reconciler"], ["hints"], ["ledger"], ["provisioner"], ["operator"],
    ]  # fmt: skip
    assert {"resource": "group", "name": "p-lifecycle-looks", "operation": "Describe"} in found[0]["rights"]
