"""Events over HTTP: what is taken, what is refused, and that `graphtide ingest spool` counts it once."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile
from infra.settings import Settings
from stream.store import open_reader
from tests.conftest import Ran
from tests.integration.serving import problem, served, service_settings

URL = "/v1/graphs/town/events"
CLOUD_EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "reply"}
Cli = Callable[..., Ran]


def event(hour: float, **more: object) -> dict[str, object]:
    return {"src": "ada", "dst": "ben", "ts": 3600 * (400_000 + hour), **more}


def chosen(folder: Path, **spool: object) -> Settings:
    store = f"sqlite:///{folder / 'store.db'}"
    return service_settings(store, folder, api={"ingestion": True}, spool={"path": folder / "spool.db", **spool})


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    with served(chosen(tmp_path)) as client:
        yield client


@pytest.mark.parametrize(
    ("body", "kind", "accepted", "rejected"),
    [
        (json.dumps([event(1), event(2)]), "application/json", 2, 0),
        (json.dumps(event(1), indent=2), "application/json; charset=utf-8", 1, 0),
        ("\n".join(json.dumps(event(hour)) for hour in range(3)) + "\nno event\n", "application/x-ndjson", 3, 1),
        (json.dumps([event(1), {"src": "ada"}, event(1, graph="city"), 7]), "", 1, 3),
        (
            json.dumps(
                [
                    {"specversion": "1.0", "id": "1", "source": "/s", "type": "reply", "data": event(1)},
                    {"specversion": "1.0"},
                ]
            ),
            "application/cloudevents-batch+json",
            1,
            1,
        ),
    ],
)
def test_what_is_an_event_is_taken_and_the_rest_named(
    client: httpx.Client, body: str, kind: str, accepted: int, rejected: int
) -> None:
    answer = client.post(URL, content=body, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 202
    told = answer.json()
    assert (told["graph"], told["accepted"], told["rejected"]) == ("town", accepted, rejected)
    assert len(told["errors"]) == rejected
    assert all(error["record"] >= 1 and error["detail"] for error in told["errors"])


@pytest.mark.parametrize(
    ("url", "body", "headers", "status", "kind"),
    [
        (URL, "[1, 2", {}, 422, "invalid-body"),
        (URL, "", {}, 422, "invalid-body"),
        (URL, "[]", {}, 422, "invalid-body"),
        (URL, '[{"src": "ada"}]', {}, 422, "invalid-body"),
        (URL, "src,dst\na,b", {"Content-Type": "text/csv"}, 415, "unsupported-type"),
        (URL, "{}", {"Content-Encoding": "gzip"}, 415, "unsupported-type"),
        (URL, json.dumps([event(1)] * 11), {}, 413, "too-large"),
        (URL, json.dumps([event(1, type="x" * 9000)]), {}, 413, "too-large"),
        (URL + "?sync=1", "[]", {}, 422, "invalid-parameter"),
        (URL, json.dumps(event(1)), {"Idempotency-Key": "a b"}, 422, "invalid-parameter"),
        ("/v1/graphs/Town!/events", json.dumps(event(1)), {}, 422, "invalid-parameter"),
    ],
)
def test_what_cannot_be_taken_is_refused_whole(
    tmp_path: Path, url: str, body: str, headers: dict[str, str], status: int, kind: str
) -> None:
    with served(chosen(tmp_path, max_records=10, max_body_bytes=8192)) as client:
        answer = client.post(url, content=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:graphtide:problem:{kind}")


def test_one_record_that_is_nested_too_deeply_costs_the_others_nothing(client: httpx.Client) -> None:
    deep = '{"src": ' + "[" * 100_000 + "]" * 100_000 + "}"
    lines = client.post(URL, content=f"{deep}\n{json.dumps(event(1))}\n")
    assert (lines.status_code, lines.json()["accepted"], lines.json()["rejected"]) == (202, 1, 1)
    assert "nested too deeply" in lines.json()["errors"][0]["detail"]
    for body in (deep, f"[{deep}, {json.dumps(event(1))}]"):
        refused = problem(client.post(URL, content=body), 422, "invalid-body")
        assert "nested too deeply" in refused["detail"]


def test_they_reach_the_store_once(
    client: httpx.Client, graphtide: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHTIDE_SPOOL__PATH", str(tmp_path / "spool.db"))
    store = f"sqlite:///{tmp_path / 'store.db'}"
    for hour in range(5):
        for _ in range(2):  # an answer that was lost
            body = json.dumps([event(hour), event(hour, src="cyd"), "no event"])
            answer = client.post(URL, content=body, headers={"Idempotency-Key": f"hour-{hour}"})
            assert answer.status_code == 202
        assert answer.headers["idempotent-replayed"] == "true"
        ran = graphtide("ingest", "spool", "--store", store, "--json")
        assert ran.code == 0, ran.err
    assert (json.loads(ran.out)["events"], json.loads(ran.out)["rejected"]) == (10, 5)
    with open_reader(store) as reader:
        assert reader.snapshots("town", metrics=("events",)).values[:, 0].tolist() == [2, 2, 2, 2]
    assert "record 3" in graphtide("deadletters", "list", "--store", store, "--json").out
    answer = client.post(URL, content=json.dumps(event(9)), headers={"Idempotency-Key": "hour-0"})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:graphtide:problem:key-reused")


def test_a_spool_that_is_full_says_when_to_come_again(tmp_path: Path) -> None:
    with served(chosen(tmp_path, max_mb=1)) as client:
        body = json.dumps([event(1, id="x" * 500)] * 1000)
        answers = [client.post(URL, content=body) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 503, 503]
    assert int(answers[1].headers["retry-after"]) > 0


def test_keys_say_who_may_send_to_which_graph(tmp_path: Path) -> None:
    settings = chosen(tmp_path)
    with ServiceFile(settings.api.service_db) as file:
        reads, writes = (Keys(file).create(scope.name, scope, ["town"])[1] for scope in (Scope.READ, Scope.WRITE))
    with served(settings) as client:
        asked: list[tuple[str, dict[str, str], int]] = [
            (URL, {}, 401),
            (URL, {"X-API-Key": reads}, 403),
            (URL, {"X-API-Key": writes}, 202),
            ("/v1/graphs/city/events", {"X-API-Key": writes}, 404),
        ]
        for url, headers, status in asked:
            assert client.post(url, content=json.dumps(event(1)), headers=headers).status_code == status


def test_it_is_off_unless_it_is_switched_on(tmp_path: Path) -> None:
    with served(service_settings(f"sqlite:///{tmp_path / 'store.db'}", tmp_path)) as client:
        answer: Any = client.post(URL, content="{}")
    assert answer.status_code == 404
    assert "[api] ingestion" in answer.json()["detail"]


def test_the_spool_is_not_told_how_to_read(graphtide: Cli) -> None:
    ran = graphtide("ingest", "spool", "--graph", "town")
    assert ran.code == 2
    assert "leave out --graph" in ran.err
