"""Kafka's own options: what each library calls them, what is refused, and that no secret is shown."""

from pathlib import Path

import pytest

from infra.configuration import load_settings
from infra.errors import InputError, UsageError
from infra.settings import KafkaSettings
from stream.sources.kafka.clients import choose_client
from stream.sources.kafka.options import (
    KEY_PASSWORD_VARIABLE,
    PASSWORD_VARIABLE,
    Connection,
    confluent_config,
    connection_of,
    kafka_python_config,
)

DOTTED = {
    "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "me", "ssl.ca.location": "/ca.pem",
    "ssl.endpoint.identification.algorithm": "none", "fetch.max.bytes": "1000000", "check.crcs": "false",
    "linger.ms": 5,
}  # fmt: skip


def test_dotted_names_reach_both_libraries() -> None:
    connection = Connection("a:1, b:2", DOTTED, password="secret", key_password="other")
    assert confluent_config(connection) == {
        "bootstrap.servers": "a:1, b:2", "sasl.password": "secret", "ssl.key.password": "other", **DOTTED,
    }  # fmt: skip
    consumer = kafka_python_config(connection, "consumer")
    assert consumer == {
        "bootstrap_servers": ["a:1", "b:2"], "security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "me", "sasl_plain_password": "secret", "ssl_password": "other",
        "ssl_cafile": "/ca.pem", "ssl_check_hostname": False, "fetch_max_bytes": 1_000_000, "check_crcs": False,
    }  # fmt: skip
    assert kafka_python_config(connection, "producer")["linger_ms"] == 5
    assert "secret" not in repr(connection)
    assert "other" not in repr(connection)


def test_toml_tables_are_dotted_names(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[kafka.options]\nsecurity.protocol = "SSL"\n"fetch.min.bytes" = 3\n')
    assert load_settings(config=path).values.kafka.options == {"security.protocol": "SSL", "fetch.min.bytes": 3}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sasl.password=hunter2", "sasl.password is a secret"),
        ("ssl.key.password=hunter2", "ssl.key.password is a secret"),
        ("group.id=hunter2", "use --group"),
        ("auto.offset.reset=hunter2", r"use \[kafka\] start"),
        ("enable.auto.commit=true", "kept in the store"),
        ("hunter2", "--kafka-option is not KEY=VALUE"),
    ],
)
def test_what_is_not_the_users_to_set_is_refused_without_its_value(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        connection_of(KafkaSettings(), [given])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fetch.max.byte", "1", "did you mean fetch.max.bytes?"),
        ("key.deserializer", "x", "no option 'key.deserializer'"),
        ("fetch.max.bytes", "much", "give a whole number"),
        ("check.crcs", "perhaps", "give true or false"),
    ],
)
def test_a_wrong_option_of_kafka_python_is_told(name: str, value: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        kafka_python_config(Connection("a", {name: value}), "consumer")
    assert said in str(caught.value)


def test_passwords_come_from_the_environment_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("of the file\n")
    settings = KafkaSettings(password_file=str(file))
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    assert connection_of(settings).password == "of the file"
    monkeypatch.setenv(PASSWORD_VARIABLE, "of the environment")
    monkeypatch.setenv(KEY_PASSWORD_VARIABLE, "of the key")
    connection = connection_of(settings)
    assert (connection.password, connection.key_password) == ("of the environment", "of the key")
    monkeypatch.delenv(PASSWORD_VARIABLE)
    with pytest.raises(InputError, match="No such file"):
        connection_of(KafkaSettings(password_file=str(tmp_path / "absent")))


def test_the_client_is_chosen_by_name_or_by_speed() -> None:
    assert choose_client("auto") == "kafka-python"
    assert choose_client("confluent") == "confluent"
    with pytest.raises(UsageError, match="unknown Kafka client"):
        choose_client("librdkafka")
