"""A schema registry that is away, refuses, or lacks a schema that another refers to."""

import json
from collections.abc import Callable
from concurrent.futures import Future

import httpx
import pytest

from infra.errors import InputError
from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import Record
from stream.decoders.records.formats import record_decoder
from stream.decoders.records.registry import RegistryAwayError, SchemaRegistry, UnknownSchemaError
from stream.events import Interner
from stream.sources.kafka import patience
from stream.sources.kafka.client import Chunk, Polled
from stream.sources.kafka.decoding import BatchDecoder
from stream.sources.kafka.patience import decoded_patiently
from stream.sources.kafka.plan import KafkaOptions
from stream.sources.kafka.source import KafkaSource
from tests.unit.stream.test_kafka_ill_brokers import Client, P, read

SCHEMA = {"schemaType": "JSON", "schema": "{}"}


def registry(answer: Callable[[httpx.Request], httpx.Response]) -> SchemaRegistry:
    return SchemaRegistry("http://r", transport=httpx.MockTransport(answer), sleep=lambda _: None)


def missing() -> httpx.Response:
    return httpx.Response(404, json={"error_code": 40401})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_BACKOFF_S", 0.001)
    monkeypatch.setattr(patience, "LONGEST_BACKOFF_S", 0.001)


def frame(number: int) -> bytes:
    value = {"src": "a", "dst": "b", "ts": 1_600_000_000 + number}
    return b"\0\0\0\0\7" + json.dumps(value).encode()


def source(schemas: SchemaRegistry, said: list[str], *, follow: bool) -> KafkaSource:
    values: list[bytes | None] = [frame(number) for number in range(3)]
    chunk = Chunk(P, values, 3, False, lambda at: Record(values[at], topic="t", offset=at))
    client = Client([Polled([chunk])], end=3)

    def decoder(interner: Interner):  # type: ignore[no-untyped-def]
        return record_decoder(DecodeOptions(format="confluent"), interner=interner, registry=schemas)

    return KafkaSource(
        lambda: client, BatchDecoder(decoder), KafkaOptions(where="w", topics=("t",), follow=follow), say=said.append
    )


def test_a_registry_that_is_away_is_waited_for_where_the_topic_is_followed() -> None:
    left = [*range(3 * 4)]  # tries: three at once, four times over

    def answer(request: httpx.Request) -> httpx.Response:
        if left:
            left.pop()
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json=SCHEMA)

    said: list[str] = []
    with source(registry(answer), said, follow=True) as reader:
        (batch,) = read(reader, lambda batch: len(batch.events) > 0)
    assert len(batch.events) == 3
    assert [line.partition(": ")[0] for line in said] == [
        "the schema registry http://r cannot be asked",
        "the schema registry answers again",
    ]


def test_without_following_it_ends() -> None:
    with (
        source(registry(lambda _: httpx.Response(503)), [], follow=False) as reader,
        pytest.raises(InputError, match="HTTP 503"),
    ):
        read(reader, lambda _: False)


@pytest.mark.parametrize("answer", [httpx.Response(401), httpx.Response(403), httpx.Response(404, text="no such page")])
def test_what_waiting_does_not_mend_stops_a_followed_topic(answer: httpx.Response) -> None:
    with (
        source(registry(lambda _: answer), [], follow=True) as reader,
        pytest.raises(InputError, match=f"HTTP {answer.status_code}") as caught,
    ):
        read(reader, lambda _: False)
    assert not isinstance(caught.value, RegistryAwayError)


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx.Response(200, json=[]), "is not that of a registry"),
        (httpx.Response(200, json={"schema": 5}), r"is not that of a registry \(.*`\$.schema`\)"),
        (httpx.Response(200, json=SCHEMA | {"schemaType": {}}), r"`\$.schemaType`"),
        (httpx.Response(200, json=SCHEMA | {"references": 5}), r"`\$.references`"),
        (httpx.Response(200, json=SCHEMA | {"references": [5]}), r"`\$.references\[\d*.*\]`"),
        (httpx.Response(200, json=SCHEMA | {"references": [{"subject": "s"}]}), "missing required field `version`"),
        (httpx.Response(200, text="<html>"), "no JSON"),
        (httpx.Response(200, text=DEEP), "is not that of a registry"),
        (httpx.Response(200, text='{"schema": "{}", "x": ' + DEEP), "no JSON"),
        (httpx.Response(404, text=DEEP), "HTTP 404"),
    ],
)
def test_an_answer_that_no_registry_gives_ends_ingestion_with_what_is_wrong_with_it(
    answer: httpx.Response, reason: str
) -> None:
    with (
        source(registry(lambda _: answer), [], follow=True) as reader,
        pytest.raises(InputError, match=reason) as caught,
    ):
        read(reader, lambda _: False)
    assert not isinstance(caught.value, RegistryAwayError)


def test_schemas_that_refer_to_others_without_end_are_unknown() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json=SCHEMA | {"references": [{"subject": f"s{len(asked)}", "version": 1}]})

    with pytest.raises(UnknownSchemaError, match="schema 7: more than 50 schemas refer to each other in a row"):
        registry(answer).schema(7)
    assert len(asked) < 60


def test_a_schema_whose_reference_is_missing_is_unknown_and_not_asked_for_each_time() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path.startswith("/subjects"):
            return missing()
        return httpx.Response(200, json=SCHEMA | {"references": [{"subject": "s", "version": 2}]})

    schemas = registry(answer)
    for _ in range(2):
        with pytest.raises(UnknownSchemaError, match="schema 7: the registry lacks s version 2, which it refers to"):
            schemas.schema(7)
    assert asked == ["/schemas/ids/7", "/subjects/s/versions/2"]
    with source(schemas, [], follow=True) as reader:
        (batch,) = read(reader, lambda batch: bool(batch.rejects))
    assert [reject.reason for reject in batch.rejects] == [
        "schema 7: the registry lacks s version 2, which it refers to"
    ] * 3


def test_the_answer_of_the_first_try_is_not_told() -> None:
    future: Future[int] = Future()
    future.set_result(3)
    said: list[str] = []
    assert decoded_patiently(future, lambda: future, say=said.append) == 3
    assert said == []


@pytest.mark.parametrize("url", ["http://ada:hush/hush@r", "http://ada:hush#@r", "http://ada:hush\x01@r", "ada:hush@r"])
def test_an_address_that_is_none_is_not_shown_with_its_password(url: str) -> None:
    with pytest.raises(InputError) as caught:
        SchemaRegistry(url)
    assert "hush" not in str(caught.value)
