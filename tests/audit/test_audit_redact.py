"""Argument values that the policy does not record leave only a keyed digest."""

import hmac

from caprpc.audit import extra
from tests.audit.conftest import PEER

CANARY = b"correct-horse-battery-staple"


def test_no_file_of_the_log_holds_the_value(logs, decision):
    log = logs.open()
    relation = log.relation(PEER)
    digest = log.redactor.digest(CANARY, "a" * 32, 1, "password")
    relation.append(relation.template(**decision), 1, extra(args={"password": digest}))
    log.close()
    assert logs.records_with("args")[0]["args"] == {"password": digest}
    assert not any(CANARY in file.read_bytes() for file in logs.path.iterdir())


def test_equal_values_have_different_digests_in_each_place(logs):
    redactor = logs.open().redactor
    places = [("a", 1, "x"), ("b", 1, "x"), ("a", 2, "x"), ("a", 1, "y")]
    assert len({redactor.digest(CANARY, *place) for place in places}) == 4
    assert redactor.digest(CANARY, "a", 1, "x") == redactor.digest(CANARY, "a", 1, "x")
    assert redactor.digest(CANARY, "a", 1, "x") != redactor.digest(CANARY + b"!", "a", 1, "x")


def test_one_digest_can_be_opened_without_the_others(logs):
    redactor = logs.open().redactor
    key = redactor.opening_key("a", 1, "x")
    assert redactor.digest(CANARY, "a", 1, "x") == "hmac:" + hmac.digest(key, CANARY, "sha256").hex()[:32]
    assert key != redactor.opening_key("a", 1, "y")


def test_key_is_the_same_after_a_restart_and_another_in_another_log(logs, tmp_path):
    log = logs.open()
    digest = log.redactor.digest(CANARY, "a", 1, "x")
    log.close()
    assert logs.open().redactor.digest(CANARY, "a", 1, "x") == digest
    other = type(logs)(tmp_path / "other")
    log = other.open()
    assert log.redactor.digest(CANARY, "a", 1, "x") != digest
    log.close()


def test_places_cannot_be_confused(logs):
    redactor = logs.open().redactor
    assert redactor.digest(CANARY, "a", 11, "x") != redactor.digest(CANARY, "a1", 1, "x")
