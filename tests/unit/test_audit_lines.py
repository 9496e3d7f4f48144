"""A line of the audit trail is genuine only as written."""

from typing import Any

from schemas import codec
from schemas.audit import Audit, OperatorAct
from services.core.ledger.audit import is_genuine, line, message
from tests.support.deliveries import KEY, at

KEYS = (b"newest" * 6, b"former" * 6)
ACT = OperatorAct(by="Ada", reason="closed", digest="0123456789abcdef", number=7, expires_at=at(9))


def written(material: bytes = KEYS[0], act: OperatorAct | None = None) -> Audit:
    return line(
        line_id="lifecycle.received/0/7/delivery",
        key=KEY,
        what="delivery",
        verdict="new",
        why="first",
        at_us=at(0),
        material=material,
        act=act,
    )


def test_equal_facts_make_equal_audit_lines() -> None:
    assert written() == written()
    assert message(written(), "ledger", None) == message(written(), "ledger", None)


def test_a_line_signed_by_a_current_or_former_key_is_genuine() -> None:
    assert is_genuine(written(KEYS[0]), KEYS)
    assert is_genuine(written(KEYS[1]), KEYS)
    assert not is_genuine(written(b"foreign" * 6), KEYS)
    assert not is_genuine(written(), ())


def test_a_change_of_any_field_is_detected() -> None:
    changes: dict[str, Any] = {
        "id": "x",
        "key": KEY.upper(),
        "what": "stage",
        "verdict": "late",
        "why": "",
        "at": at(1),
        "mac": "é",
    }
    changes |= {"act": ACT}
    assert set(changes) == set(Audit.model_fields)
    for field, value in changes.items():
        assert not is_genuine(written().model_copy(update={field: value}), KEYS), field


def test_an_act_by_name_is_proved_whole_and_is_absent_elsewhere() -> None:
    named = written(act=ACT)
    assert is_genuine(codec.decode(Audit, codec.dump(named)), KEYS)
    for field, value in {"by": "Bob", "reason": "", "digest": "0", "number": 8, "expires_at": None}.items():
        changed = named.model_copy(update={"act": ACT.model_copy(update={field: value})})
        assert not is_genuine(changed, KEYS), field
    assert b'"act"' not in codec.dump(written()), "records of before keep their bytes"


def test_a_line_stays_genuine_after_encoding() -> None:
    sent = message(written(), "provisioner", None)
    assert is_genuine(codec.decode(Audit, sent.value), KEYS)
    assert codec.texts(sent.headers)["ce_source"] == "/genesys-lifecycle/provisioner"
    assert sent.key == KEY.encode()
