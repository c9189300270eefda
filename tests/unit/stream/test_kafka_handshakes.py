"""What connections that fail say of a password."""

from types import SimpleNamespace

from kafka import errors as kafka_errors

from stream.sources.kafka.handshakes import MOST_CUT_OFF, Handshakes

LET_IN, NOT_REACHED = SimpleNamespace(broker_version_data="4.1"), SimpleNamespace(broker_version_data=None)


def test_a_refusal_that_was_heard_is_told() -> None:
    tries = Handshakes()
    tries.note(LET_IN, True, kafka_errors.SaslAuthenticationFailedError("wrong"))
    assert "wrong" in str(tries.refusal())


def test_connections_that_brokers_close_again_and_again_mean_a_refusal() -> None:
    tries = Handshakes()
    for number in range(MOST_CUT_OFF):
        assert tries.refusal() is None, number
        tries.note(LET_IN, True, kafka_errors.KafkaConnectionError("socket disconnected"))
    assert "close the connection" in str(tries.refusal())


def test_brokers_that_are_down_or_ask_for_no_password_refuse_none() -> None:
    tries = Handshakes()
    for _ in range(10):
        tries.note(NOT_REACHED, True, kafka_errors.KafkaConnectionError("ECONNREFUSED"))
        tries.note(LET_IN, False, kafka_errors.KafkaConnectionError("socket disconnected"))
        tries.note(LET_IN, True, kafka_errors.KafkaTimeoutError("slow"))
    assert tries.refusal() is None
