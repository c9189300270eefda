import base64
import uuid
from importlib.util import find_spec

import pytest

from stream.sources.kafka import client_kafka_python
from tests.conftest import lacking


@pytest.mark.parametrize("high", [1, -5, 2**62 + 7])
def test_both_clients_write_the_id_of_a_topic_as_the_tools_of_kafka_do(high: int) -> None:
    if find_spec("confluent_kafka") is None:
        lacking("fast", "confluent-kafka, the extra `fast`, is not installed")
    import confluent_kafka  # noqa: PLC0415 - needs the extra

    from stream.sources.kafka import client_confluent  # noqa: PLC0415 - needs the extra

    low = 77
    whole = uuid.UUID(int=((high % 2**64) << 64) | low)
    expected = base64.urlsafe_b64encode(whole.bytes).decode().rstrip("=")
    assert client_confluent._topic_id(confluent_kafka.Uuid(high, low)) == expected
    assert client_kafka_python._topic_id(whole) == expected
