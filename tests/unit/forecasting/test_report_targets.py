"""Targets: what is sent, signed how, and where nothing may be sent to."""

import hashlib
import hmac
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from forecasting.reports.contents import ReportRequest
from forecasting.reports.deliveries import DeliveryError
from forecasting.reports.records import ReportRow
from forecasting.reports.targets import guard, kinds, mail, s3
from forecasting.reports.targets.parcel import report_parcel
from infra.errors import UsageError
from infra.settings import TargetSettings

REPORT = ReportRow(
    "0" * 32, "town:reply", "", ReportRequest(10, 0, 20), "weekly", 1_700_000_000_000_000, ("t",), "done", 20, 1, 1,
    1, 2, 3, 4, None, ("All is well.",),
)  # fmt: skip
PARCEL = report_parcel("key-1", REPORT, b"<html>page</html>", b"PK data")
Seen = list[tuple[str, str, dict[str, str], bytes]]


@contextmanager
def receiver(*answers: int) -> Iterator[tuple[str, Seen]]:
    """Yield the address of a server that answers so, and what it was sent; the last answer is given for ever."""
    seen: Seen = []
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PUT = answer

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("s3cret\n")
    return str(path)


def send(target: TargetSettings) -> None:
    kinds.send(PARCEL, {"t": target}, "t", 5)


def test_webhook_is_signed_and_carries_the_key(secret: str) -> None:
    with receiver(204) as (url, seen):
        send(TargetSettings(kind="webhook", url=f"{url}/hook", secret_file=secret, allow_private=True))
    ((method, path, headers, body),) = seen
    assert (method, path) == ("POST", "/hook")
    assert headers["idempotency-key"] == "key-1"
    stamp, _, mac = headers["graphtide-signature"].partition(",v1=")
    expected = hmac.new(b"s3cret", stamp.removeprefix("t=").encode() + b"." + body, hashlib.sha256).hexdigest()
    assert mac == expected
    assert b'"slot": "2023-11-14T22:13:20Z"' in body


@pytest.mark.parametrize(("status", "is_final"), [(503, False), (429, False), (404, True), (302, True)])
def test_webhook_that_is_not_taken_is_an_error_and_no_redirect_is_followed(secret, status, is_final) -> None:
    with receiver(status) as (url, seen), pytest.raises(DeliveryError) as caught:
        send(TargetSettings(kind="webhook", url=f"{url}/token-abc", secret_file=secret, allow_private=True))
    assert caught.value.is_final is is_final
    assert str(status) in caught.value.message
    assert "token-abc" not in caught.value.message
    assert len(seen) == 1


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.0.0.8",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::a00:8", "2002:7f00:1::", "::"),
    ],
)
def test_addresses_that_are_not_public_are_refused_before_anything_is_sent(address: str) -> None:
    with pytest.raises(DeliveryError, match="no public address") as caught:
        guard.request(
            "POST", "https://example.org/", {}, b"", allow_private=False, timeout_s=1,
            resolve_host=lambda *_: ["93.184.216.34", address],
        )  # fmt: skip
    assert caught.value.is_final


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://u:p@example.org/",
        "https://",
        "https://a:99999/",
    ],
)
def test_only_https_without_a_user_is_sent_to(url: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        guard.request("POST", url, {}, b"", allow_private=False, timeout_s=1, resolve_host=lambda *_: ["8.8.8.8"])
    assert caught.value.is_final


def test_connection_goes_to_the_address_that_was_checked() -> None:
    with receiver(200) as (url, seen):
        port = url.rpartition(":")[2]
        guard.request(
            "POST", f"http://name.invalid:{port}/x", {}, b"b", allow_private=True, timeout_s=5,
            resolve_host=lambda *_: ["127.0.0.1"],
        )  # fmt: skip
    assert seen[0][2]["host"] == f"name.invalid:{port}"


def test_name_with_letters_beyond_ascii_is_told_as_it_goes_over_the_wire() -> None:
    asked = []

    def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    with receiver(200) as (url, seen):
        port = url.rpartition(":")[2]
        target = f"http://bücher.example:{port}/x"
        guard.request("POST", target, {}, b"b", allow_private=True, timeout_s=5, resolve_host=resolve)
    assert asked == ["xn--bcher-kva.example"]
    assert seen[0][2]["host"] == f"xn--bcher-kva.example:{port}"


def test_files_of_graphs_and_schedules_that_read_alike_have_names_of_their_own() -> None:
    alike = [("town", "north-weekly"), ("town-north", "weekly"), ("town:north", "weekly"), ("townnorth", "weekly")]
    stems = {
        report_parcel("key", replace(REPORT, graph=graph, schedule=schedule), b"", b"").stem
        for graph, schedule in alike
    }
    assert len(stems) == len(alike)


def test_s3_signature_is_that_of_the_published_example() -> None:
    """Example "PUT Object" of the Signature Version 4 documentation."""
    digest = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()
    found = s3.authorization(
        method="PUT",
        path="/test%24file.text",
        headers={
            "Date": "Fri, 24 May 2013 00:00:00 GMT",
            "Host": "examplebucket.s3.amazonaws.com",
            "x-amz-content-sha256": digest,
            "x-amz-date": "20130524T000000Z",
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
        },
        payload_sha256=digest,
        access_key="AKIAIOSFODNN7EXAMPLE",
        secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        region="us-east-1",
        moment=datetime(2013, 5, 24, tzinfo=UTC),
    )
    assert found.endswith("Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd")


def test_s3_puts_page_and_data_under_one_name_of_the_slot(secret: str) -> None:
    with receiver(200) as (url, seen):
        send(
            TargetSettings(
                kind="s3", url=url, bucket="b", prefix="r/", access_key="A", secret_file=secret, allow_private=True
            )
        )
    assert [(method, path) for method, path, _, _ in seen] == [
        ("PUT", "/b/r/townreply-weekly-2023-11-14T221320Z-556254de.zip"),
        ("PUT", "/b/r/townreply-weekly-2023-11-14T221320Z-556254de.html"),
    ]
    for _, _, headers, body in seen:
        assert headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
        assert "s3cret" not in str(headers)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://s3.example", "s3.example"),
        ("https://s3.example:443", "s3.example"),
        ("https://S3.Example:443/", "s3.example"),
        ("http://s3.example:80", "s3.example"),
        ("http://s3.example:443", "s3.example:443"),
        ("https://s3.example:9000", "s3.example:9000"),
        ("https://bücher.example", "xn--bcher-kva.example"),
        ("https://[2001:db8::1]:443", "[2001:db8::1]"),
    ],
)
def test_s3_signs_the_host_that_is_sent(secret: str, monkeypatch: pytest.MonkeyPatch, url: str, host: str) -> None:
    sent: list[httpx.Request] = []

    class Client(httpx.Client):
        def __init__(self, **_: object) -> None:
            super().__init__(transport=httpx.MockTransport(self.answer))

        def answer(self, request: httpx.Request) -> httpx.Response:
            sent.append(request)
            return httpx.Response(200)

    signed: list[str] = []
    real = s3.authorization

    def authorization(**options: Any) -> str:
        signed.append(options["headers"]["Host"])
        return real(**options)

    monkeypatch.setattr(httpx, "Client", Client)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("127.0.0.1", 0))])
    monkeypatch.setattr(s3, "authorization", authorization)
    send(TargetSettings(kind="s3", url=url, bucket="b", access_key="A", secret_file=secret, allow_private=True))
    assert {request.headers["host"] for request in sent} == set(signed) == {host}


@pytest.mark.parametrize(
    ("path", "sent"),
    [("", ""), ("/", ""), ("/storage/v1/s3", "/storage/v1/s3"), ("/a%20(b)/ä/", "/a%20%28b%29/%C3%A4")],
)
def test_s3_signs_the_whole_path_that_is_sent(secret: str, path: str, sent: str) -> None:
    """As clients of S3 do, and as servers whose address has a path expect."""
    with receiver(200) as (url, seen):
        send(
            TargetSettings(
                kind="s3", url=f"{url}{path}", bucket="b", access_key="A", secret_file=secret, allow_private=True
            )
        )
    assert len(seen) == 2
    for method, found, headers, body in seen:
        assert found.startswith(f"{sent}/b/townreply-")
        expected = s3.authorization(
            method=method,
            path=found,
            headers={name: headers[name] for name in ("host", "content-type", "x-amz-content-sha256", "x-amz-date")},
            payload_sha256=hashlib.sha256(body).hexdigest(),
            access_key="A",
            secret_key="s3cret",
            region="us-east-1",
            moment=datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        )
        assert headers["authorization"] == expected


def test_folder_holds_each_slot_once_however_often_it_is_sent(tmp_path: Path) -> None:
    target = TargetSettings(kind="folder", path=tmp_path / "out")
    send(target)
    send(target)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "townreply-weekly-2023-11-14T221320Z-556254de.html",
        "townreply-weekly-2023-11-14T221320Z-556254de.zip",
    ]


def test_mail_has_the_summary_the_page_and_one_id() -> None:
    target = TargetSettings(kind="email", smtp_host="h", sender="graphtide@example.org", to=["a@example.org"])
    first, second = mail.message(PARCEL, target), mail.message(PARCEL, target)
    assert first["Message-ID"] == second["Message-ID"] == "<key-1@example.org>"
    (attached,) = first.iter_attachments()
    assert attached.get_content() == "<html>page</html>"
    body = first.get_body()
    assert body is not None
    assert "All is well." in body.get_content()


def test_secret_that_is_not_there_is_told_without_a_traceback(tmp_path: Path) -> None:
    target = TargetSettings(kind="webhook", url="https://example.org", secret_file=str(tmp_path / "none"))
    with pytest.raises(DeliveryError, match="secret file"):
        send(target)


def test_target_that_lacks_something_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="'hook' of kind webhook has no secret_file") as caught:
        kinds.check_targets({"hook": TargetSettings(kind="webhook", url="https://example.org")})
    assert caught.value.place == "[reports.targets.hook]"
    with pytest.raises(DeliveryError, match="no target"):
        kinds.send(PARCEL, {}, "gone", 1)


@pytest.mark.parametrize("kind", ["webhook", "s3"])
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://[x", "it is no address"),
        ("https://example.org:99999/in", "https://example.org has no port that can be used"),
        ("http://example.org/in", "http://example.org cannot be used: give an https address"),
        ("https://user:hush@example.org", "https://example.org cannot be used"),
        ("https://exa\tmple.org", "no address that can be used"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_before_anything_is_sent(kind: str, url: str, says: str) -> None:
    target = TargetSettings.model_validate(
        {"kind": kind, "url": url, "secret_file": "key", "bucket": "b", "access_key": "A"}
    )
    with pytest.raises(UsageError, match="the url of the target 'away': ") as caught:
        kinds.check_targets({"away": target})
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)
    with pytest.raises(DeliveryError, match=re.escape(says)):
        guard.request("PUT", url, {}, b"", allow_private=False, timeout_s=1)
