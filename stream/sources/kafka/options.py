"""How to reach Kafka: options by Kafka's own dotted names, secrets apart from them, what each library calls them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from infra.errors import InputError, UsageError
from infra.settings import KafkaSettings, OptionValue

PASSWORD_VARIABLE = "GRAPHTIDE_KAFKA_PASSWORD"
KEY_PASSWORD_VARIABLE = "GRAPHTIDE_KAFKA_KEY_PASSWORD"

# Options that are ours to set, and how else to say what they mean.
_OWNED = {
    "bootstrap.servers": "use --bootstrap-servers or [kafka] bootstrap_servers",
    "group.id": "use --group",
    "auto.offset.reset": "use [kafka] start; where to go on is kept in the store",
    "enable.auto.commit": "leave it out: where to go on is kept in the store, in the transaction of the events",
    "enable.auto.offset.store": "leave it out: where to go on is kept in the store",
    "enable.partition.eof": "leave it out: Graphtide needs it",
}
_SECRETS = {
    "sasl.password": f"set {PASSWORD_VARIABLE} or [kafka] password_file",
    "sasl.plain.password": f"set {PASSWORD_VARIABLE} or [kafka] password_file",
    "ssl.key.password": f"set {KEY_PASSWORD_VARIABLE}",
    "ssl.password": f"set {KEY_PASSWORD_VARIABLE}",
    "ssl.keystore.password": "use a key in PEM format (ssl.key.location)",
    "ssl.truststore.password": "use certificates in PEM format (ssl.ca.location)",
    "sasl.jaas.config": f"set sasl.username, and {PASSWORD_VARIABLE} or [kafka] password_file",
}
# Names that the C library and the Java clients know, by what kafka-python calls them.
_KAFKA_PYTHON_NAMES = {
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.crl.location": "ssl_crlfile",
    "ssl.cipher.suites": "ssl_ciphers",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
    "fetch.wait.max.ms": "fetch_max_wait_ms",
    "fetch.message.max.bytes": "max_partition_fetch_bytes",
    "compression.codec": "compression_type",
    "message.max.bytes": "max_request_size",
}
# Options of kafka-python that hold objects of Python; no text can give them.
_OBJECTS = {
    *("key_deserializer", "value_deserializer", "key_serializer", "value_serializer", "partitioner", "selector"),
    *("ssl_context", "sasl_oauth_token_provider", "kafka_client", "metric_reporters", "socket_options"),
    *("default_offset_commit_callback", "partition_assignment_strategy", "api_version", "consumer_timeout_ms"),
}
_WHOLE_NUMBERS = {"receive_buffer_bytes", "send_buffer_bytes"}

Role = Literal["consumer", "producer"]


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a cluster.

    Attributes:
        bootstrap_servers: `host:port`, several with commas between.
        options: Kafka's own, by their dotted names; none is a secret or one that Graphtide sets itself.
        password: of SASL, None without one.
        key_password: of the TLS key, None without one.
    """

    bootstrap_servers: str
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    password: str | None = field(default=None, repr=False)
    key_password: str | None = field(default=None, repr=False)


def connection_of(settings: KafkaSettings, given: Sequence[str] = ()) -> Connection:
    """Return how the settings say that the cluster is reached.

    Args:
        settings: the section `[kafka]`.
        given: further options as `key=value`, which go before those of the settings.

    Raises:
        UsageError: an option is not `key=value`, is a secret, or is not the user's to set.
        InputError: the password file cannot be read.
    """
    options = dict(settings.options)
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            # What stands there may be a secret: it is not repeated.
            raise UsageError("--kafka-option is not KEY=VALUE", fix="write --kafka-option security.protocol=SSL")
        options[name.strip()] = value
    for name in options:
        fix = _SECRETS.get(name) or _OWNED.get(name)
        if fix is not None:
            what = "is a secret and is not taken from there" if name in _SECRETS else "is not an option that can be set"
            raise UsageError(f"{name} {what}", place="[kafka.options] or --kafka-option", fix=fix)
    if not settings.bootstrap_servers.strip():
        raise UsageError("no Kafka broker is named", fix="use --bootstrap-servers host:port")
    password = os.environ.get(PASSWORD_VARIABLE) or _read_secret(settings.password_file)
    return Connection(
        bootstrap_servers=settings.bootstrap_servers,
        options=options,
        password=password,
        key_password=os.environ.get(KEY_PASSWORD_VARIABLE) or None,
    )


def _read_secret(path: str) -> str | None:
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(
            f"the password of Kafka cannot be read from {path}: {reason}", fix="check [kafka] password_file"
        ) from None


def confluent_config(connection: Connection) -> dict[str, Any]:
    """Return the configuration of confluent-kafka: the options as they are."""
    config: dict[str, Any] = {"bootstrap.servers": connection.bootstrap_servers, **connection.options}
    if connection.password is not None:
        config["sasl.password"] = connection.password
    if connection.key_password is not None:
        config["ssl.key.password"] = connection.key_password
    return config


def kafka_python_config(connection: Connection, role: Role) -> dict[str, Any]:
    """Return the configuration of kafka-python: dots become underscores, texts become the types of the defaults.

    Options that only the other role knows are left out.

    Raises:
        UsageError: an option is unknown to kafka-python, or its value has the wrong type.
    """
    from kafka import KafkaConsumer, KafkaProducer  # noqa: PLC0415 - slow to import, needed by users of Kafka only

    defaults = {"consumer": KafkaConsumer.DEFAULT_CONFIG, "producer": KafkaProducer.DEFAULT_CONFIG}
    known = {**defaults["consumer"], **defaults["producer"]}
    config: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in connection.bootstrap_servers.split(",") if server.strip()]
    }
    for dotted, value in connection.options.items():
        if dotted == "ssl.endpoint.identification.algorithm":
            config["ssl_check_hostname"] = str(value).lower() not in {"", "none"}
            continue
        name = _KAFKA_PYTHON_NAMES.get(dotted, dotted.replace(".", "_"))
        if name not in known or name in _OBJECTS:
            raise _unknown(dotted, [each for each in known if each not in _OBJECTS])
        if name in defaults[role]:
            config[name] = _typed(dotted, value, known[name], whole=name in _WHOLE_NUMBERS)
    if connection.password is not None:
        config["sasl_plain_password"] = connection.password
    if connection.key_password is not None:
        config["ssl_password"] = connection.key_password
    return config


def _unknown(dotted: str, known: Sequence[str]) -> UsageError:
    names = [*_KAFKA_PYTHON_NAMES, *(name.replace("_", ".") for name in known)]
    near = get_close_matches(dotted, names, n=1)
    hint = f"did you mean {near[0]}? Else " if near else ""
    return UsageError(
        f"kafka-python has no option {dotted!r}",
        place="[kafka.options] or --kafka-option",
        fix=f"{hint}leave it out, or use --client confluent, which takes all options of librdkafka",
    )


def _typed(dotted: str, value: OptionValue, default: Any, *, whole: bool) -> Any:
    text = str(value).strip()
    if isinstance(default, bool):
        if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        kind = "true or false"
    elif isinstance(default, int | float) or whole:
        try:
            return int(text)
        except ValueError:
            kind = "a whole number"
    else:
        return text
    raise UsageError(f"{dotted} cannot be {text!r}", place="[kafka.options] or --kafka-option", fix=f"give {kind}")
