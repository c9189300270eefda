"""What Kafka can refuse, in words that say what to do about it."""

from infra.errors import InputError
from stream.sources.kafka.options import PASSWORD_VARIABLE


class TooLargeError(InputError):
    """A record is larger than the client or the brokers take; smaller ones can be sent all the same."""


def too_large(where: str, topic: str, error: object) -> TooLargeError:
    """Return the error of a record that is larger than what can be sent."""
    return TooLargeError(
        f"a record for topic {topic!r} is too large: {error}",
        place=where,
        fix="raise max.request.size in [kafka.options], and max.message.bytes of the topic",
    )


def wrong_credentials(where: str, error: object) -> InputError:
    """Return the error of a user name or a password that the brokers do not accept."""
    return InputError(
        f"Kafka at {where} does not accept the credentials: {error}",
        fix=f"check sasl.username and sasl.mechanism in [kafka.options], and the password in {PASSWORD_VARIABLE}"
        " or [kafka] password_file",
    )


def denied(where: str, error: object) -> InputError:
    """Return the error of a user who may not read a topic or a group."""
    return InputError(
        f"Kafka at {where} does not let this user read: {error}",
        fix="let an administrator give the user READ and DESCRIBE on the topics, and READ on the group",
    )


def unreadable(where: str, error: object) -> InputError:
    """Return the error of records that are not as Kafka writes them, or compressed in a way that cannot be read."""
    return InputError(
        f"Kafka at {where} has records that cannot be read: {error}",
        fix="check the broker's disk; for a compression that is unknown here, use --client confluent",
    )
